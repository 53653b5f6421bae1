//! Pages of the documentation: what they show is what happens.
//!
//! A fenced block whose first line is `# NAME.yaml`, or the like, is a file. A fenced `console` block is a session, where
//! `$ ` stands before a command, and what follows is what it prints, `...` standing for any lines. In blocks marked
//! `numbers-vary` digits stand for any digits. The places that pages speak of lie below a temporary directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mounts::can_mount;

pub(crate) const VEINFS: &str = env!("CARGO_BIN_EXE_veinfs");

/// Commands that install, build or need a running system: looked at, not run.
pub(crate) const NOT_RUN: [&str; 6] = [
    "sudo apt-get install ",
    "cargo install --path .",
    "scripts/demo",
    "scripts/test",
    "systemctl ",
    "sudo systemctl ",
];

/// Places in pages that a test has its own of.
const PLACES: [&str; 4] = ["/srv", "/data", "/mnt", "/usr/lib/python3"];

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a page, by its path in the repository.
pub(crate) fn page(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A fenced block.
pub(crate) struct Block {
    info: String,
    /// The line of its fence, from 1.
    line: usize,
    text: Vec<String>,
}

/// A command of a session and what it is to print.
pub(crate) struct Step {
    pub(crate) command: String,
    output: Vec<String>,
}

pub(crate) fn blocks(text: &str) -> Vec<Block> {
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
    pub(crate) fn is(&self, language: &str) -> bool {
        self.info.split(' ').next() == Some(language)
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in &self.text {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
                (None, Some(step)) => step.output.push(line.clone()),
                (None, None) => panic!("line {}: a session begins with a command", self.line),
            }
        }
        steps
    }
}

/// The machine that pages speak of.
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    /// What is in the environment besides.
    pub(crate) env: Vec<(&'static str, String)>,
    _temporary: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("veinfs-pages.").tempdir().expect("a temporary directory");
        let root = temporary.path().canonicalize().expect("it is there");
        let place = Self { root, env: Vec::new(), _temporary: temporary };
        for directory in ["bin", "data", "home", "mnt/m", "srv/runs", "tmp"] {
            fs::create_dir_all(place.root.join(directory)).expect("a directory");
        }
        symlink(VEINFS, place.root.join("bin/veinfs")).expect("a link");
        symlink(repository().join("patterns"), place.root.join("srv/patterns")).expect("a link");
        place
    }

    /// Makes a file, and the directories above it.
    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    /// A text of a page with the paths that this place has of its own.
    fn there(&self, text: &str) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let (mut there, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('/') {
            let before = rest[..at].chars().next_back().or_else(|| there.chars().next_back());
            let begins = !before.is_some_and(|c| is_word(c) || "/*}~".contains(c));
            let is_here = |place: &str| rest[at..].strip_prefix(place).is_some_and(|after| !after.starts_with(is_word));
            there.push_str(&rest[..at]);
            if begins && PLACES.into_iter().any(is_here) {
                there.push_str(&self.root.display().to_string());
            }
            there.push('/');
            rest = &rest[at + 1..];
        }
        there + rest
    }

    /// Writes the file that a block shows; its name is relative to `/srv`.
    fn show(&self, name: &str, lines: &[String]) {
        let path = match name.strip_prefix("~/") {
            Some(below) => format!("home/{below}"),
            None => format!("srv/{name}"),
        };
        self.file(&path, self.there(&(lines.join("\n") + "\n")));
    }

    /// Runs a command; what it prints, with the places called as in the page. Nothing runs for more than a minute.
    pub(crate) fn run(&self, command: &str) -> (Option<i32>, Vec<String>) {
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
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .output()
            .expect("timeout is part of coreutils");
        let printed = String::from_utf8(output.stdout).expect("text");
        let printed = printed.replace(&self.root.display().to_string(), "");
        (output.status.code(), printed.lines().map(str::to_owned).collect())
    }

    /// The mount points below this place.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.root)).collect()
    }

    /// Makes the files of a page, runs its sessions and compares what they print, and tells how many commands were run;
    /// without mounts only the sessions that need none.
    ///
    /// # Panics
    /// If anything else is printed, or a session ends with a mount.
    pub(crate) fn take_page(&self, path: &str) -> usize {
        let mut run = 0;
        for block in blocks(&page(path)) {
            let file = |name: &str| Path::new(name).extension().is_some_and(|extension| *extension == *block.info);
            if let Some(name) = block.text.first().and_then(|first| first.strip_prefix("# ")).filter(|name| file(name))
            {
                self.show(name, &block.text);
            }
            let steps = if block.is("console") { block.steps() } else { Vec::new() };
            let mounts = |step: &Step| step.command.starts_with("veinfs mount ");
            if steps.iter().any(mounts) && !can_mount(false) {
                continue;
            }
            let vary = block.info.ends_with(" numbers-vary");
            let shown = |lines: &[String]| lines.iter().map(|l| if vary { steady(l) } else { l.clone() }).collect();
            for Step { command, output } in steps {
                if NOT_RUN.iter().any(|known| command.starts_with(known)) || lacks_program(&command) {
                    continue;
                }
                let (_, printed) = self.run(&command);
                let (wanted, got): (Vec<String>, Vec<String>) = (shown(&output), shown(&printed));
                assert!(
                    fits(&wanted, &got),
                    "{path}:{}: `{command}` is to print\n{}\n\nbut it prints\n{}",
                    block.line,
                    output.join("\n"),
                    printed.join("\n")
                );
                run += 1;
            }
            assert!(self.mounts().is_empty(), "{path}:{}: the session ends with a mount", block.line);
        }
        run
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
pub(crate) fn lacks_program(command: &str) -> bool {
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
