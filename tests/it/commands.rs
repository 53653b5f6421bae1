//! The command line as people and scripts meet it: output, exit codes, messages.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use base64::Engine;
use serde_json::json;

use crate::bed::{Output, TestBed, can_mount, names, path_of};

const RUN: &str = "name: run\nfiles: [data.csv]\nrecommended_files: [notes.txt]\n";

fn runs() -> TestBed {
    TestBed::new(&[
        "a/x/data.csv=",
        "a/x/notes.txt=",
        "b/x/data.csv=",
        "b/none/other.txt=",
        "line\nbreak/data.csv=",
        "esc\x1b[31m/data.csv=",
    ])
}

#[test]
fn scan_prints_paths() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let path = |below: &str| bed.src.join(below).to_str().expect("text").to_owned();
    let found = bed.scan(["-p", &run, "--exclude", "line*"]).ok();
    assert_eq!(found.lines(), [path("a/x"), path("b/x"), path("esc\x1b[31m")]);
    assert_eq!(found.stderr, "");
    let found = bed.scan(["-p", &run, "-0"]).ok();
    let mut paths: Vec<&[u8]> = found.stdout.split(|byte| *byte == 0).collect();
    assert_eq!(paths.pop(), Some(&b""[..]), "the last is ended too");
    paths.sort_unstable();
    let wanted = [path("a/x"), path("b/x"), path("esc\x1b[31m"), path("line\nbreak")];
    assert_eq!(paths, wanted.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[test]
fn scan_counts_and_answers() {
    let bed = runs();
    let (run, none) = (bed.file("run.yaml", RUN), bed.file("none.yaml", "files: ['*.none']"));
    assert_eq!(bed.scan(["-p", &run, "--count"]).ok().text(), "4\n");
    assert_eq!(bed.scan(["-p", &none, "--count"]).ok().text(), "0\n");
    assert_eq!(bed.scan(["-p", &run, "-p", &none, "--count"]).ok().text(), "4 run\n0 none\n");
    assert_eq!(bed.scan(["-p", &none]).ok().text(), "");
    for (pattern, code) in [(&run, 0), (&none, 1)] {
        let quiet = bed.scan(["-q", "-p", pattern]).code(code);
        assert_eq!((quiet.text(), &*quiet.stderr), (String::new(), ""));
        bed.scan(["--quiet", "-p", pattern]).code(code);
    }
}

#[test]
fn scan_prints_objects() {
    let bed = TestBed::new(&["sub-01/ses-a/x/data.csv=", "sub-02/x/data.csv=", "sub-02/x/notes.txt="]);
    let name = b"wrong \xff\n";
    fs::create_dir(bed.src.join(path_of(name))).expect("a directory");
    fs::write(bed.src.join(path_of(name)).join("data.csv"), "").expect("a file");
    let run = bed.file("run.yaml", RUN);
    let found = bed.scan(["-p", &run, "--json"]).ok().ndjson();
    assert_eq!(found.len(), 3);
    let keys: Vec<&String> = found[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["pattern", "source", "path", "relpath", "view", "captures", "missing"]);
    assert_eq!(
        found[0],
        json!({
            "pattern": "run", "source": "src", "path": bed.src.join("sub-01/ses-a/x").to_str(),
            "relpath": "sub-01/ses-a/x", "view": "run/x", "captures": {}, "missing": ["notes.txt"],
        })
    );
    assert_eq!(found[1]["missing"], json!([]));
    let suffix = found[1]["view"].as_str().and_then(|view| view.strip_prefix("run/x~")).expect("a suffix");
    assert_eq!(suffix.len(), 6);
    // Names that are no text come as bytes besides.
    let decode = |key: &str| {
        let text = found[2][key].as_str().unwrap_or_else(|| panic!("no {key}: {}", found[2]));
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    };
    assert_eq!(decode("relpath_bytes"), name);
    assert_eq!(decode("path_bytes"), [bed.src.as_os_str().as_bytes(), b"/", name].concat());
    assert_eq!(decode("view_bytes"), [b"run/", &name[..]].concat());
    assert!(found[0].get("path_bytes").is_none());

    let capture = "name: ses\ndirectory_name: 'ses-<ses>'\ncaptures: {ses: '[a-z]+', sub: '\\d+'}\n";
    let found = bed.scan(["-p", &bed.file("ses.yaml", capture), "--json", "--layout", "<sub>/<ses>/<.stem>"]).ok();
    let found = found.ndjson();
    assert_eq!(found[0]["captures"], json!({"ses": "a", "sub": null}));
    assert_eq!(found[0]["view"], "ses/_/a/ses-a");
}

#[test]
fn a_source_of_its_own_name() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let named = format!("disk={}", bed.src.join("a").display());
    let found = bed.veinfs(["scan", &named, bed.src.join("b").to_str().expect("text"), "-p", &run, "--json"]).ok();
    let sources: Vec<String> = found.ndjson().iter().map(|found| found["source"].to_string()).collect();
    assert_eq!(sources, ["\"b\"", "\"disk\""], "sorted by source name");
    assert_eq!(found.ndjson()[0]["view"], "run/x");
    let twice = format!("disk={}", bed.src.join("b").display());
    bed.veinfs(["scan", &named, &twice, "-p", &run]).code(2).says("a second source of this name");
    // Without names, the second of a kind gets a number.
    let (one, two) = (bed.src.join("a/x"), bed.src.join("b/x"));
    let found = bed.veinfs([
        OsStr::new("scan"),
        one.as_os_str(),
        two.as_os_str(),
        OsStr::new("--json"),
        OsStr::new("-p"),
        OsStr::new(&run),
    ]);
    let sources: Vec<String> = found.ok().ndjson().iter().map(|found| found["source"].to_string()).collect();
    assert_eq!(sources, ["\"x\"", "\"x-2\""]);
}

#[test]
fn what_cannot_be_read_is_said_and_told_by_the_exit_code() {
    use std::os::unix::fs::PermissionsExt;
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let shut = bed.src.join("b");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).expect("a mode");
    let scan = |args: &[&str]| {
        let mut command = bed.command(["scan", bed.src.to_str().expect("text"), "-p", &run]);
        command.args(args);
        if rustix::process::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, 65534);
            std::os::unix::process::CommandExt::gid(&mut command, 65534);
        }
        Output::of(&mut command)
    };
    let found = scan(&["--exclude", "line*", "--exclude", "esc*"]).code(3);
    assert_eq!(found.lines(), [bed.src.join("a/x").to_str().expect("text")]);
    assert!(found.stderr.contains(&format!("cannot read {}: Permission denied", shut.display())), "{}", found.stderr);
    assert_eq!(scan(&["--count"]).code(3).text(), "3\n");
    assert_eq!(scan(&["--json"]).code(3).ndjson().len(), 3);
    let quiet = scan(&["--quiet"]).code(0);
    assert_eq!(quiet.text(), "");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o755)).expect("a mode");
    scan(&["--count"]).ok();
}

#[test]
fn usage_errors_end_with_2_and_say_the_cure() {
    let bed = runs();
    let (run, src) = (bed.file("run.yaml", RUN), bed.src.to_str().expect("text").to_owned());
    let broken = bed.file("broken.yaml", "file: [x]\n");
    let missing = bed.dir.join("none.yaml").to_str().expect("text").to_owned();
    let nowhere = bed.dir.join("nowhere").to_str().expect("text").to_owned();
    let cases: &[(&[&str], &str)] = &[
        (&["scan", &src], "--pattern"),
        (&["scan", "-p", &run], "SOURCE"),
        (&["scan", &src, "-p", &run, "--jsno"], "--json"),
        (&["scan", &src, "-p", &run, "--json", "--count"], "cannot be used with"),
        (&["scan", &src, "-p", &run, "--max-depth", "deep"], "--max-depth"),
        (&["scan", &src, "-p", &run, "--exclude", "[a"], "--exclude"),
        (&["scan", &src, "-p", &run, "--layout", "<.nam>"], "did you mean `<.name>`?"),
        (&["scan", &src, "-p", "cargo-crat"], "did you mean `cargo-crate`?"),
        (&["scan", &src, "-p", &missing], "cannot be read"),
        (&["scan", &src, "-p", &broken], "did you mean `files`?"),
        (&["scan", &nowhere, "-p", &run], "there is no such directory"),
        (&["scan", &run, "-p", &run], "not a directory"),
        (&["scan", "s3://bucket/x", "-p", &run], "s3://"),
        (&["scna", &src], "scan"),
        (&["mount", &src, "-p", &run], "MOUNTPOINT"),
        (&["check", &broken], "did you mean `files`?"),
        (&["check"], "PATTERN"),
    ];
    for (args, says) in cases {
        let output = bed.veinfs(*args);
        assert_eq!(output.code, 2, "{args:?}: {}", output.stderr);
        assert_eq!(output.text(), "", "{args:?}");
        assert!(output.stderr.contains(says), "{args:?}: `{says}` is not in {}", output.stderr);
    }
    for args in [vec!["--help"], vec!["--version"], vec!["mount", "--help"]] {
        assert!(!bed.veinfs(args).ok().text().is_empty());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lines: Vec<String> = (0..3000).map(|n| format!("{n:0100}/data.csv=")).collect();
    let bed = TestBed::new(&lines);
    let run = bed.file("run.yaml", RUN);
    let src = bed.src.to_str().expect("text");
    for args in [&["scan", src, "-p", &run][..], &["scan", src, "-p", &run, "--json"], &["scan", src, "-p", &run, "-0"]]
    {
        let mut child =
            bed.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut first).expect("some output");
        drop(stdout);
        let output = child.wait_with_output().expect("its end");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert!(matches!(output.status.code(), Some(0)), "{args:?}: {}", output.status);
    }
}

#[test]
fn the_library_is_listed_and_every_pattern_is_used_by_name_or_as_printed() {
    let bed = runs();
    let listed = bed.veinfs(["patterns"]).ok().lines();
    assert_eq!(listed.len(), veinfs::pattern::library::LIBRARY.len());
    for line in &listed {
        let (name, description) = line.split_once("  ").expect("two columns");
        assert!(!description.trim().is_empty(), "{name}");
        let text = bed.veinfs(["patterns", name]).ok().text();
        let file = bed.file("printed.yaml", &text);
        bed.veinfs(["check", &file]).ok();
        assert_eq!(bed.veinfs(["check", name]).ok().text(), format!("{name}: ok\n"));
    }
    let text = bed.veinfs(["patterns", "experiment"]).ok().text();
    let tree = TestBed::new(&["e1/data.csv=", "e1/config.yaml=", "e1/raw/1.csv=", "e2/data.csv="]);
    let file = tree.file("other.yaml", &text);
    let found = tree.scan(["-p", &file]).ok().lines();
    assert_eq!(found, [tree.src.join("e1").to_str().expect("text")]);
    assert_eq!(tree.scan(["-p", "experiment"]).ok().lines(), found);
}

#[test]
fn the_library_is_searched_where_no_pattern_has_that_name() {
    let bed = TestBed::new::<&str>(&[]);
    let patterns = |args: &[&str]| bed.veinfs([&["patterns"], args].concat());
    let spectrometry = "\
        agilent-d   An Agilent mass spectrometry or chromatography run (.d directory)\n\
        bruker-d    A Bruker mass spectrometry run (.d directory)\n\
        waters-raw  A Waters mass spectrometry run (.raw directory)\n";
    assert_eq!(patterns(&["mass", "SPECTROMETRY"]).ok().text(), spectrometry);
    assert!(patterns(&["maildir"]).ok().text().starts_with("# Source: "), "a name prints the file");
    assert_eq!(patterns(&["maildir", "-s"]).ok().text(), "maildir  A mail folder in Maildir format\n");
    assert_eq!(patterns(&["maildir", "courier"]).ok().text(), "maildir  A mail folder in Maildir format\n");

    patterns(&["experimant"]).code(2).says("no built-in pattern is called `experimant`; did you mean `experiment`?");
    patterns(&["xyzzy"]).code(2).says("or speaks of it; `veinfs patterns` lists them all");
    patterns(&["maildir", "xyzzy"]).code(2).says("speaks of all of `maildir`, `xyzzy`; use fewer words");
    patterns(&["--search"]).code(2).says("<NAME|WORD>");

    let all = patterns(&["--json"]).ok().ndjson();
    let keys: Vec<&String> = all[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["name", "field", "description", "source", "url"]);
    let named = |value: &serde_json::Value| value["name"].as_str().expect("text").to_owned();
    let found = patterns(&["--json", "zarr"]).ok().ndjson();
    assert!(found.len() >= 3 && found.iter().all(|one| all.contains(one)));
    assert_eq!(found.iter().take(3).map(named).collect::<Vec<_>>(), ["ome-zarr", "zarr-array", "zarr-group"]);
    let one = patterns(&["--json", "maildir"]).ok().ndjson();
    let file = bed.file("maildir.json", &one[0]["pattern"].to_string());
    bed.veinfs(["check", &file]).ok();
    assert_eq!((one.len(), &one[0]["pattern"]["name"]), (1, &json!("maildir")));
}

#[test]
fn check_says_where_and_what_is_wrong() {
    let bed = runs();
    // Where the syntax is right, the place is the key's path.
    let cases = [
        ("key.yaml", "name: a\nfile: [x]\n", ": unknown key `file`", "did you mean `files`?"),
        ("key.json", "{\"name\": \"a\",\n \"file\": [\"x\"]}", ": unknown key `file`", "did you mean `files`?"),
        ("key.toml", "name = \"a\"\nfile = [\"x\"]\n", ": unknown key `file`", "did you mean `files`?"),
        ("deep.yaml", "directories:\n- files: [a, {glob: b, mim: 1}]\n", ": directories[0].files[1]: ", "`min`"),
        ("list.yaml", "files: data.csv\n", ": files: ", "write [\"data.csv\"]"),
        ("class.yaml", "files:\n  - ok\n  - '[ab'\n", ": files[1]: ", "close it with `]`"),
        ("capture.yaml", "captures: {a: x}\nfiles: ['<b>']\n", ": files[0]: ", "did you mean `<a>`?"),
        ("size.yaml", "files: [{glob: x, size: big}]\n", ": files[0].size: ", "write \">0\""),
        ("twice.json", "{\"files\": [], \"files\": []}", ": ", "duplicate key `files`"),
        ("syntax.json", "{\"files\":\n [\"x\",]}", ": line 2, column 7: ", "remove the comma"),
        ("syntax.yaml", "files: [x\nname: y: z\n", ": line ", "column "),
        ("syntax.toml", "files = [\n", ": line 1, column 10: ", "unclosed array"),
    ];
    for (name, text, place, says) in cases {
        let file = bed.file(name, text);
        let output = bed.veinfs(["check", &file]).code(2);
        assert!(output.stderr.contains(&format!("{name}{place}")), "{name}{place} is not in {}", output.stderr);
        assert!(output.stderr.contains(says), "{name}: `{says}` is not in {}", output.stderr);
        assert!(output.stderr.lines().all(|line| line.starts_with("veinfs: ")), "{}", output.stderr);
    }
    // All that is wrong, in all of them.
    let (one, two) = (bed.file("one.yaml", "file: [x]\nfiels: [y]\n"), bed.file("two.yaml", "files: 1\n"));
    let output = bed.veinfs(["check", &one, &two]).code(2);
    for place in ["one.yaml: unknown key `file`", "one.yaml: unknown key `fiels`", "two.yaml: files: "] {
        assert!(output.stderr.contains(place), "{place} is not in {}", output.stderr);
    }
}

#[test]
fn what_the_control_folder_holds_is_well_formed() {
    if !can_mount() {
        return;
    }
    let bed = runs();
    let capture = "name: seen\ndirectory_name: '<x>'\ncaptures: {x: '[ab]'}\nfiles: []\ndescription: one \"quoted\"\n";
    bed.mount(["-p", &bed.file("run.yaml", RUN), "-p", &bed.file("seen.yaml", capture), "-p", "experiment"]);
    assert_eq!(names(&bed.mnt), ["experiment", "run", "seen"], "patterns without a match too, and nothing else");
    let control = bed.mnt.join(".veinfs");
    let read = |name: &str| fs::read(control.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for name in ["status.json", "matches.ndjson", "errors.ndjson", "metrics", "patterns"] {
        assert!(names(&control).contains(&name.to_owned()), "{name}");
    }
    let status = bed.status();
    assert_eq!((&status["state"], &status["matches"], &status["errors"]), (&json!("complete"), &json!(6), &json!(0)));
    assert_eq!(status["patterns"][0], json!({"name": "run", "matches": 4}));
    assert_eq!(status["mountpoint"], json!(bed.mnt.to_str()));
    let shown = bed.veinfs(["status", bed.mnt.to_str().expect("text")]).ok().text();
    assert!(shown.contains("complete, 6 matches, 0 errors"), "{shown}");
    let object = bed.veinfs(["status", "--json", bed.mnt.to_str().expect("text")]).ok().ndjson();
    assert_eq!(object[0]["pid"], status["pid"]);
    // What the mount says is what scan says.
    let run = bed.dir.join("run.yaml");
    let args = ["-p", run.to_str().expect("text"), "-p", "seen.yaml", "-p", "experiment", "--json"];
    let (scanned, listed) = (bed.scan(args).ok(), read("matches.ndjson"));
    assert_eq!(scanned.text(), String::from_utf8_lossy(&listed));
    for found in scanned.ndjson() {
        assert!(bed.mnt.join(found["view"].as_str().expect("text")).is_dir(), "{found}");
    }
    assert_eq!(read("errors.ndjson"), b"");
    let metrics = String::from_utf8(read("metrics")).expect("text");
    for line in metrics.lines() {
        let fine = line.starts_with("# HELP veinfs_") || line.starts_with("# TYPE veinfs_") || {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            name.starts_with("veinfs_") && value.parse::<f64>().is_ok()
        };
        assert!(fine, "{line}");
    }
    assert!(metrics.contains("veinfs_matches{pattern=\"run\"} 4\n"), "{metrics}");
    assert_eq!(names(control.join("patterns")), ["experiment.json", "run.json", "seen.json"]);
    for name in ["experiment", "run", "seen"] {
        let file = control.join("patterns").join(format!("{name}.json"));
        let text = file.to_str().expect("text");
        bed.veinfs(["check", text]).ok();
        let again = bed.scan(["-p", text, "--json"]).ok().ndjson();
        let wanted: Vec<_> = scanned.ndjson().into_iter().filter(|found| found["pattern"] == name).collect();
        assert_eq!(again, wanted);
    }
    for name in ["no-such", "patterns/no.json", "status.json/x"] {
        assert!(fs::metadata(control.join(name)).is_err(), "{name}");
    }
    assert!(fs::metadata(bed.mnt.join("run/.veinfs")).is_err(), "only at the root");
}
