//! What users may do: a child that runs as one of them tries it, on a real path and on the mount alike.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Somebody, by numbers alone: nothing here needs an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Besides that.
    pub(super) groups: &'static [u32],
}

/// The group that some of them share.
pub(super) const SHARED: u32 = 6100;
pub(super) const ROOT: User = User { name: "root", uid: 0, gid: 0, groups: &[] };
/// In the shared group besides his own.
pub(super) const ANN: User = User { name: "ann", uid: 6001, gid: 6001, groups: &[SHARED] };
/// In the shared group besides his own.
pub(super) const BEN: User = User { name: "ben", uid: 6002, gid: 6002, groups: &[SHARED] };
/// In no group but her own.
pub(super) const CAT: User = User { name: "cat", uid: 6003, gid: 6003, groups: &[] };
/// The shared group is his first.
pub(super) const DAN: User = User { name: "dan", uid: 6004, gid: SHARED, groups: &[] };

/// All but the first are ordinary users.
pub(super) const USERS: [User; 5] = [ROOT, ANN, BEN, CAT, DAN];

/// What came of a try: a value, or an error's name.
pub(super) type Answer = Result<Value, String>;

/// Answers a line for a line: `[operation, path, descriptor of the directory that it is relative to or null]`.
const SCRIPT: &str = r#"
import errno, json, os, sys
def read(path, at):
    with open(os.open(path, os.O_RDONLY, dir_fd=at), "rb") as file:
        return file.read().decode("latin1")
def names(path, at):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
    try: return sorted(os.listdir(fd))
    finally: os.close(fd)
def stat(path, at):
    stat = os.stat(path, dir_fd=at, follow_symlinks=False)
    return [stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_mtime_ns]
def seen(path, at):
    os.stat(path, dir_fd=at)
    return True
def linked(path, at):
    os.readlink(path, dir_fd=at)
    return True
def hold(path, at):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
tries = {"read": read, "list": names, "stat": stat, "seen": seen, "link": linked, "hold": hold}
for line in sys.stdin:
    what, path, at = json.loads(line)
    try: answer = {"Ok": tries[what](os.fsencode(path), at)}
    except OSError as error: answer = {"Err": errno.errorcode[error.errno]}
    print(json.dumps(answer), flush=True)
"#;

/// A child that tries things as one user, until it is dropped.
pub(super) struct Probe {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Probe {
    pub(super) fn new(user: User) -> Self {
        // Whatever hangs, the test ends.
        let mut command = as_user(user, "timeout");
        command.args(["300", "python3", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.current_dir("/").spawn().expect("a child");
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("its answers"));
        Self { child, to, from: BufReader::new(from) }
    }

    #[track_caller]
    pub(super) fn ask(&mut self, what: &str, path: &Path) -> Answer {
        self.ask_at(what, path, None)
    }

    /// Relative to a directory that is held open.
    #[track_caller]
    pub(super) fn ask_at(&mut self, what: &str, path: &Path, at: Option<i64>) -> Answer {
        let mut to = self.to.as_ref().expect("a child");
        writeln!(to, "{}", json!([what, path.to_str().expect("text"), at])).expect("a question");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what} {}: {line:?}: {error}", path.display()))
    }

    /// Opens a directory, and keeps it open.
    #[track_caller]
    pub(super) fn hold(&mut self, path: &Path) -> i64 {
        let held = self.ask("hold", path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        held.as_i64().expect("a descriptor")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It ends at the end of the questions.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

/// A program, run as somebody.
pub(super) fn as_user(user: User, program: &str) -> Command {
    if user.uid == 0 {
        return Command::new(program);
    }
    let groups = user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()]);
    match groups.is_empty() {
        true => command.arg("--clear-groups"),
        false => command.args(["--groups", &groups]),
    };
    command.arg(program);
    command
}
