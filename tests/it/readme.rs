//! What the README says is so: its commands are run and print what it shows, its options and subcommands exist.
//!
//! A fenced `yaml` block whose first line is `# NAME.yaml` is a file; a fenced `console` block is a session, where
//! `$ ` stands before a command, and what follows is what it prints, `...` standing for any lines. In blocks marked
//! `numbers-vary` digits stand for any digits. The places that the README speaks of lie below a temporary directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mounts::can_mount;

const VEINFS: &str = env!("CARGO_BIN_EXE_veinfs");

/// Commands that install or build, or are this very test: looked at, not run.
const NOT_RUN: [&str; 4] = ["sudo apt-get install ", "cargo install --path .", "scripts/demo", "scripts/test"];

/// Places in the README that a test has its own of.
const PLACES: [&str; 3] = ["/srv", "/mnt/m", "/usr/lib/python3"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("the README is part of the repository")
}

/// A fenced block.
struct Block {
    info: String,
    /// The line of its fence, from 1.
    line: usize,
    text: Vec<String>,
}

/// A command of a session and what it is to print.
struct Step {
    command: String,
    output: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(info), false) => {
                blocks.push(Block { info: info.to_owned(), line: at + 1, text: Vec::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => blocks.last_mut().expect("a block is open").text.push(line.to_owned()),
            (None, false) => {}
        }
    }
    assert!(!open, "the last block is not closed");
    blocks
}

impl Block {
    fn is(&self, language: &str) -> bool {
        self.info.split(' ').next() == Some(language)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in &self.text {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
                (None, Some(step)) => step.output.push(line.clone()),
                (None, None) => panic!("README.md:{}: a session begins with a command", self.line),
            }
        }
        steps
    }
}

/// A home, a laboratory and the rest of what the README's sessions are about.
struct Place {
    root: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("veinfs-readme.").tempdir().expect("a temporary directory");
        let root = temporary.path().canonicalize().expect("it is there");
        let place = Self { root, _temporary: temporary };
        for directory in ["bin", "home", "mnt/m", "srv/runs", "tmp"] {
            fs::create_dir_all(place.root.join(directory)).expect("a directory");
        }
        symlink(VEINFS, place.root.join("bin/veinfs")).expect("a link");
        symlink(repository().join("patterns"), place.root.join("srv/patterns")).expect("a link");

        for package in ["adler2-2.0.1", "aho-corasick-1.1.5", "serde-1.0.229", "zmij-1.0.23"] {
            let package = format!("home/.cargo/registry/src/registry-0123456789abcdef/{package}");
            for file in ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
                place.file(&format!("{package}/{file}"), "");
            }
            for file in ["build.rs", "crates-io.md", "src/lib.rs"] {
                place.file(&format!("{package}/{file}"), "");
            }
        }
        place.file("usr/lib/python3/dist-packages/yaml/__init__.py", "version = '6.0'\n");
        place.file("usr/lib/python3/dist-packages/six.py", "");

        place.experiment("2024/spring/copper-20240311");
        place.experiment("2024/spring/copper-20240312");
        fs::remove_file(place.root.join("srv/lab/2024/spring/copper-20240312/raw/sample-1.csv")).expect("was made");
        place.experiment("2025/anna/zinc-20250114");
        place.file("srv/lab/2025/anna/zinc-20250114/figures/decay.png", "");
        place.file("srv/lab/2025/anna/zinc-20250114/core.4711", "");
        place.experiment("2025/ben/old/copper-20240311");
        place.file("srv/lab/2025/ben/old/copper-20240311/README.md", "");
        place.experiment("2025/ben/zinc-20250115");
        place.file("srv/lab/2025/ben/zinc-20250115/FAILED", "");
        place.file("srv/misspelt.yaml", "file: [data.csv]\n");
        place
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn experiment(&self, path: &str) {
        self.file(&format!("srv/lab/{path}/config.yaml"), "rate: 0.4\n");
        self.file(&format!("srv/lab/{path}/data.csv"), "time_s,value\n0,1.0000\n1,0.6703\n");
        for n in 0..2 {
            self.file(&format!("srv/lab/{path}/raw/sample-{n}.csv"), "channel,volt\n0,0.6703\n");
        }
    }

    /// What the README calls by another name.
    fn there(&self, command: &str) -> String {
        PLACES.iter().fold(command.to_owned(), |command, place| {
            command.replace(place, &format!("{}{place}", self.root.display()))
        })
    }

    /// Runs a command; what it prints, with the places called as in the README. Nothing runs for more than a minute.
    fn run(&self, command: &str) -> (Option<i32>, Vec<String>) {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args(["--signal=KILL", "60", "bash", "-c", &format!("exec 2>&1\n{}", self.there(command))])
            .current_dir(self.root.join("srv"))
            .env("HOME", self.root.join("home"))
            .env("PATH", format!("{}:{path}", self.root.join("bin").display()))
            .env("TMPDIR", self.root.join("tmp"))
            .env("LC_ALL", "C")
            .env("VEINFS", VEINFS)
            .env_remove("CARGO_HOME")
            .stdin(Stdio::null())
            .output()
            .expect("timeout is part of coreutils");
        let printed = String::from_utf8(output.stdout).expect("text");
        let printed = printed.replace(&self.root.display().to_string(), "");
        (output.status.code(), printed.lines().map(str::to_owned).collect())
    }

    /// The mount points below this place.
    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.root)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for point in self.mounts() {
            let done = Command::new(VEINFS).arg("unmount").arg("--lazy").arg(&point).status();
            if !done.is_ok_and(|status| status.success()) {
                let _ = Command::new("fusermount3").arg("-uz").arg(&point).status();
            }
        }
    }
}

/// A line without what differs from run to run and between users.
fn steady(line: &str) -> String {
    let line = match line.split_once("; daemon:") {
        Some((reads, daemon)) if reads.starts_with("  reads: ") => format!("  reads: any; daemon:{daemon}"),
        _ => line.to_owned(),
    };
    let mut steady = String::new();
    for c in line.chars() {
        match (c.is_ascii_digit(), steady.ends_with('#')) {
            (true, true) => {}
            (true, false) => steady.push('#'),
            (false, _) => steady.push(c),
        }
    }
    steady
}

/// True if the lines are the wanted ones, where `...` stands for any number of lines.
fn fits(wanted: &[String], printed: &[String]) -> bool {
    match wanted.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|from| fits(rest, &printed[from..])),
        Some((first, rest)) => printed.split_first().is_some_and(|(line, more)| line == first && fits(rest, more)),
    }
}

/// True if a command needs a program that is not there, which is a failure where mounts have to be tested.
fn lacks_program(command: &str) -> bool {
    let lacking = ["getfattr", "python3"].into_iter().find(|program| {
        command.contains(program) && !Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
    });
    let required = std::env::var_os("VEINFS_REQUIRE_FUSE").is_some_and(|value| value == "1");
    if let Some(program) = lacking {
        assert!(!required, "VEINFS_REQUIRE_FUSE=1, but there is no {program}");
        eprintln!("SKIP: there is no {program}: {command}");
    }
    lacking.is_some()
}

#[test]
fn the_sessions_print_what_is_shown() {
    let readme = readme();
    let place = Place::new();
    let mut run = 0;
    for block in blocks(&readme) {
        if block.is("yaml") {
            let name = block.text[0].strip_prefix("# ").expect("the first line names the file");
            place.file(&format!("srv/{name}"), &block.text.join("\n"));
        }
        let steps = if block.is("console") { block.steps() } else { Vec::new() };
        if steps.iter().any(|step| step.command.starts_with("veinfs mount ")) && !can_mount(false) {
            continue;
        }
        let vary = block.info.ends_with(" numbers-vary");
        let shown = |lines: &[String]| lines.iter().map(|l| if vary { steady(l) } else { l.clone() }).collect();
        for Step { command, output } in steps {
            if NOT_RUN.iter().any(|known| command.starts_with(known)) || lacks_program(&command) {
                continue;
            }
            let (_, printed) = place.run(&command);
            let (wanted, got): (Vec<String>, Vec<String>) = (shown(&output), shown(&printed));
            assert!(
                fits(&wanted, &got),
                "README.md:{}: `{command}` is to print\n{}\n\nbut it prints\n{}",
                block.line,
                output.join("\n"),
                printed.join("\n")
            );
            run += 1;
        }
        assert!(place.mounts().is_empty(), "README.md:{}: the session ends with a mount", block.line);
    }
    assert!(run > 0, "no command was run");
}

#[test]
fn what_is_not_run_is_there() {
    let commands: Vec<String> = blocks(&readme())
        .iter()
        .filter(|block| block.is("console"))
        .flat_map(Block::steps)
        .map(|s| s.command)
        .collect();
    for known in NOT_RUN {
        assert!(commands.iter().any(|command| command.starts_with(known)), "the README has no `{known}`");
    }
    let scripts = ["scripts/demo", "scripts/test", "scripts/check", "scripts/bench"];
    for script in scripts {
        use std::os::unix::fs::PermissionsExt;
        let path = repository().join(script);
        let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{script}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} can be run");
        let parsed = Command::new("bash").arg("-n").arg(&path).status().expect("there is a bash");
        assert!(parsed.success(), "{script}");
    }
    // Whoever installs by hand gets what the demo would install.
    let demo = fs::read_to_string(repository().join("scripts/demo")).expect("a script");
    for command in commands.iter().filter_map(|command| command.strip_prefix("sudo apt-get install ")) {
        command.split(' ').for_each(|package| assert!(demo.contains(&format!(":{package} ")), "{package}"));
    }
}

#[test]
fn the_demo_shows_a_mount_and_takes_it_off() {
    if !can_mount(false) || lacks_program("python3") {
        return;
    }
    let place = Place::new();
    let (code, printed) = place.run(&format!("{}/scripts/demo", repository().display()));
    let text = printed.join("\n");
    assert_eq!(code, Some(0), "{text}");
    for wanted in ["pattern experiment: 4 matches", "pattern cargo-crate: 4 matches", "\n0,1.0000\n"] {
        assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
    }
    assert!(printed.last().is_some_and(|last| last.starts_with("$ veinfs unmount ")), "{text}");
    assert!(place.mounts().is_empty(), "the demo leaves a mount");
    let left: Vec<_> = fs::read_dir(place.root.join("tmp")).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "the demo leaves {left:?}");
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(VEINFS).args(arguments).arg("--help").output().expect("veinfs runs");
    assert!(output.status.success(), "veinfs {arguments:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

/// The options in a text, such as `--lazy`.
fn options(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect()
}

/// What stands between backquotes.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_options_and_subcommands_exist() {
    let readme = readme();
    let main = help(&[]);
    let listed: Vec<&str> = main
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    let helps: Vec<(&str, String)> = listed.iter().map(|command| (*command, help(&[command]))).collect();
    let has = |command: &str, option: &str| {
        helps.iter().any(|(known, text)| *known == command && options(text).contains(&option))
    };

    let mut shown: Vec<&str> = Vec::new();
    for line in readme.lines().filter(|line| line.starts_with("| `veinfs ")) {
        let command = line["| `veinfs ".len()..].split([' ', '`']).next().expect("split yields something");
        shown.push(command);
        for option in spans(line).flat_map(options) {
            assert!(has(command, option), "`veinfs {command}` has no `{option}`");
        }
    }
    assert_eq!(shown, listed, "the table of commands has those of `veinfs --help` in their order");

    let mut fenced = false;
    for line in readme.lines() {
        fenced ^= line.starts_with("```");
        if fenced {
            continue;
        }
        for span in spans(line).filter(|span| !span.starts_with("--device ")) {
            for option in options(span) {
                let known = option == "--help" || listed.iter().any(|command| has(command, option));
                assert!(known, "no command has the `{option}` of `{span}`");
            }
            if let Some(command) = span.strip_prefix("veinfs ").and_then(|rest| rest.split(' ').next()) {
                let known = listed.contains(&command) || command == "COMMAND";
                assert!(known, "there is no `{span}`");
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/benchmarks.md",
        "docs/explain.md",
        "docs/infer.md",
        "docs/library.md",
        "docs/object-stores.md",
        "docs/operations.md",
        "docs/patterns.md",
    ] {
        let path = repository().join(page);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with('#') || link.contains("://") {
                continue;
            }
            let target = path.parent().expect("a file is in a directory").join(link);
            assert!(target.exists(), "{page}: {link}");
        }
    }
}
