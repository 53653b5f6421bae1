//! `veinfs check` as a user meets it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn check(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_veinfs"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("all that is printed is UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn mistakes_are_told_and_the_exit_code_says_how_bad() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file can be written");
    write("good.yaml", "files: [a]\n");
    write("odd.yaml", "files: [a, a]\n");
    write("never.json", r#"{"files": ["a"], "forbidden_files": ["a"]}"#);
    write("wrong.toml", "files = [\"[\"]\n");
    let check = |arguments: &[&str]| check(directory.path(), arguments);

    assert_eq!(check(&["good.yaml", "zarr-array"]), (Some(0), "good: ok\nzarr-array: ok\n".into(), String::new()));
    let odd = "odd.yaml: files[1]: warning: always holds where files[0] does; \
               leave it out, or write it in `optional_files` if it is to be shown\n";
    assert_eq!(check(&["odd.yaml", "good.yaml"]), (Some(0), "good: ok\n".into(), odd.into()));
    let never = "never.json: files[0]: error: `a` never holds: forbidden_files[0] forbids such files; \
                 leave out one of them\n";
    assert_eq!(check(&["never.json", "odd.yaml"]), (Some(1), String::new(), [never, odd].concat()));
    let (code, stdout, stderr) = check(&["wrong.toml", "good.yaml"]);
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert!(stderr.starts_with("veinfs: wrong.toml: files[0]: in glob `[`, character 1: unclosed `[`; "), "{stderr}");

    let (code, stdout, stderr) = check(&["--json", "never.json", "odd.yaml", "good.yaml"]);
    assert_eq!((code, &*stderr), (Some(1), ""));
    let objects: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let words = |at: usize, key: &str| objects[at][key].as_str().map(str::to_owned).unwrap_or_default();
    assert_eq!(objects.len(), 2);
    assert_eq!((words(0, "origin"), words(0, "severity")), ("never.json".into(), "error".into()));
    assert_eq!((words(1, "place"), words(1, "severity")), ("files[1]".into(), "warning".into()));
    assert!(words(1, "message").starts_with("always holds") && words(1, "hint").starts_with("leave it out"));
    let keys: Vec<&String> = objects[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["origin", "pattern", "place", "severity", "message", "hint"]);
}
