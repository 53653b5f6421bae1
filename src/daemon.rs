//! A mount in the background: this program started once more, with the same arguments.
//!
//! Started anew rather than forked, since a fork of a process with threads may not do much. The
//! child's standard output is a pipe to the parent. On it the child says once, as a line of JSON,
//! how it went:
//!
//! ```text
//! {"ready":true, ...}                 the mount is usable; what else is there is for the caller
//! {"error":"...","code":1}            it is not, and never will be; the exit code to end with
//! ```
//!
//! The parent returns when it has read that line, or when the child has ended without one.
//!
//! Until then the child belongs to the parent's terminal: its errors and progress show there, and
//! Ctrl-C reaches both. The parent lives on until the child has unmounted and ended. A signal sent to
//! the parent alone is passed on; a second one kills the child; and if the parent is killed outright,
//! the child gets SIGTERM. Only when it is ready does the child go into a session of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde_json::{Map, Value, json};

use crate::signals::{Held, ShutdownReason, Waiter};

/// Set to `1` in the environment of the child.
const DAEMON_ENV: &str = "VEINFS_DAEMON";

/// Why there is nothing in the background.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The child said why.
    #[error("{message}")]
    Failed {
        /// What it said, one line.
        message: String,
        /// The exit code it asked for.
        code: u8,
    },
    /// The child ended and said nothing.
    #[error("the background process ended before the mount was usable ({status}); run it with -f to see why")]
    Died {
        /// How it ended.
        status: ExitStatus,
    },
    /// A signal came while the child was not ready yet.
    #[error("interrupted ({signal}) before the mount was usable")]
    Interrupted {
        /// The first one.
        signal: Signal,
    },
    /// The child could not be started.
    #[error("cannot start {} in the background: {error}; run it with -f", program.display())]
    Start {
        /// This program's path.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The log file could not be opened.
    #[error("cannot write the log file {}: {error}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The parent has gone: nobody wants the mount any more.
    #[error("the process that asked for the mount has gone")]
    ParentGone,
    /// Some other call failed.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl DaemonError {
    /// The exit code that tells it.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Failed { code, .. } => *code,
            DaemonError::Interrupted { signal } => 128 + *signal as u8,
            _ => 1,
        }
    }

    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| DaemonError::System { what, error: error.into() }
    }
}

/// A child that is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    /// Its process id.
    pub pid: u32,
    /// What it said besides `ready`.
    pub details: Map<String, Value>,
}

/// Starts this program once more, with `args`, and waits until it says that it is ready.
///
/// `args` are without the program's name. To be called while there is no other thread, as with
/// [`signals::block`](crate::signals::block).
pub fn spawn_background(args: &[OsString]) -> Result<Background, DaemonError> {
    let start = |program: &Path, error| DaemonError::Start { program: program.to_path_buf(), error };
    let program = std::env::current_exe().map_err(|error| start(Path::new("this program"), error))?;
    // After an upgrade its file has gone; what runs is still there.
    let program = if program.exists() { program } else { PathBuf::from("/proc/self/exe") };

    // The child inherits the mask: no signal can end it before it is able to clean up.
    let held = Held::new().map_err(DaemonError::system("block signals"))?;
    let mut child = Command::new(&program)
        .args(args)
        .env(DAEMON_ENV, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| start(&program, error))?;
    let signal = Arc::new(AtomicI32::new(0));
    let outcome = pass_signals_on(&child, Arc::clone(&signal)).and_then(|()| read_outcome(&mut child));
    if outcome.is_err() {
        // Deaf as it is now, this process cannot leave a half-started mount behind.
        child.kill().map_err(DaemonError::system("end the background process"))?;
    }
    let result = match outcome {
        Ok(Some(Outcome::Ready(details))) => Ok(Background { pid: child.id(), details }),
        said => {
            let status = child.wait().map_err(DaemonError::system("wait for the background process"))?;
            match (said, Signal::try_from(signal.load(Ordering::SeqCst))) {
                (_, Ok(signal)) => Err(DaemonError::Interrupted { signal }),
                (Ok(Some(Outcome::Failed { message, code })), _) => Err(DaemonError::Failed { message, code }),
                (Err(error), _) => Err(DaemonError::system("hear from the background process")(error)),
                (Ok(_), _) => Err(DaemonError::Died { status }),
            }
        }
    };
    drop(held);
    result
}

enum Outcome {
    Ready(Map<String, Value>),
    Failed { message: String, code: u8 },
}

/// The child's line; `None` if it ended without one. Any other line goes to standard error.
fn read_outcome(child: &mut Child) -> io::Result<Option<Outcome>> {
    let stdout = child.stdout.take().expect("the child's output is a pipe");
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        match parse_outcome(&line) {
            Some(outcome) => return Ok(Some(outcome)),
            None => {
                let mut stderr = io::stderr().lock();
                // Without a standard error there is nowhere to complain.
                let _ = stderr.write_all(&line).and_then(|()| stderr.write_all(b"\n"));
            }
        }
    }
    Ok(None)
}

fn parse_outcome(line: &[u8]) -> Option<Outcome> {
    let Ok(Value::Object(mut said)) = serde_json::from_slice(line) else { return None };
    if said.get("ready") == Some(&Value::Bool(true)) {
        said.shift_remove("ready");
        return Some(Outcome::Ready(said));
    }
    let message = said.get("error")?.as_str()?.to_owned();
    let code = said.get("code").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Some(Outcome::Failed { message, code })
}

/// Passes the first signal on to the child as SIGTERM, the second as SIGKILL; notes the first.
fn pass_signals_on(child: &Child, first: Arc<AtomicI32>) -> io::Result<()> {
    let waiter = Waiter::new()?;
    // A descriptor, since the id may be another process's by the time a signal comes.
    let child = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    thread::Builder::new().name("pass-signals".into()).spawn(move || {
        let mut sent = rustix::process::Signal::TERM;
        while let ShutdownReason::Signal(signal) = waiter.wait() {
            let _ = first.compare_exchange(0, signal as i32, Ordering::SeqCst, Ordering::SeqCst);
            // It fails only if the child has ended, and then its pipe tells so.
            let _ = pidfd_send_signal(&child, sent);
            sent = rustix::process::Signal::KILL;
        }
    })?;
    Ok(())
}

/// The child's end of the pipe. Dropped without a word, it tells a failure.
#[derive(Debug)]
pub struct DaemonChannel(Option<File>);

impl DaemonChannel {
    /// The channel, if this process was started by [`spawn_background`]; standard output is
    /// `/dev/null` from then on, so that nothing else can get into the channel.
    ///
    /// If the parent is killed before this process is ready, this process gets SIGTERM.
    pub fn from_env() -> Result<Option<Self>, DaemonError> {
        if std::env::var_os(DAEMON_ENV).as_deref() != Some(OsStr::new("1")) {
            return Ok(None);
        }
        let stdout = io::stdout();
        let kind = rustix::fs::fstat(&stdout).map_err(DaemonError::system("look at the standard output"))?.st_mode;
        if !rustix::fs::FileType::from_raw_mode(kind).is_fifo() {
            // The variable was set by somebody else.
            return Ok(None);
        }
        const ABOVE_STDIO: i32 = 3;
        let channel: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&stdout, ABOVE_STDIO)
            .map_err(DaemonError::system("take over the standard output"))?;
        let null = dev_null()?;
        rustix::stdio::dup2_stdout(&null).map_err(DaemonError::system("redirect the standard output"))?;
        parent_death_signal(Some(rustix::process::Signal::TERM))?;
        Ok(Some(Self(Some(channel.into()))))
    }

    /// Tells the parent that the mount is usable, with `details` besides, and leaves its terminal.
    ///
    /// Standard error goes to `log` from now on, without one to `/dev/null`. An error of
    /// [`ParentGone`](DaemonError::ParentGone) means that nobody waits any more: unmount and end.
    pub fn ready(mut self, mut details: Map<String, Value>, log: Option<File>) -> Result<(), DaemonError> {
        // All before the line is written: the parent ends when it has read it.
        become_daemon(log)?;
        details.shift_insert(0, "ready".to_owned(), Value::Bool(true));
        self.tell(&Value::Object(details)).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => DaemonError::ParentGone,
            _ => DaemonError::system("tell that the mount is ready")(error),
        })
    }

    /// Tells the parent that there will be no mount: why, in one line, and the exit code.
    pub fn fail(mut self, message: &str, code: u8) {
        self.say_failure(message, code);
    }

    fn say_failure(&mut self, message: &str, code: u8) {
        // Without a parent there is nobody to tell.
        let _ = self.tell(&json!({"error": message, "code": code}));
    }

    fn tell(&mut self, what: &Value) -> io::Result<()> {
        let Some(mut channel) = self.0.take() else { return Ok(()) };
        let mut line = what.to_string();
        line.push('\n');
        channel.write_all(line.as_bytes())
    }
}

impl Drop for DaemonChannel {
    fn drop(&mut self) {
        self.say_failure("the background process gave up before the mount was usable", 1);
    }
}

/// Opens a log file for [`DaemonChannel::ready`], to be appended to; made if it is missing.
///
/// To be called while failures can still be told.
pub fn open_log(path: &Path) -> Result<File, DaemonError> {
    let log = OpenOptions::new().append(true).create(true).open(path);
    log.map_err(|error| DaemonError::Log { path: path.to_path_buf(), error })
}

/// Leaves the parent's session, working directory and terminal; standard error goes to `log`.
fn become_daemon(log: Option<File>) -> Result<(), DaemonError> {
    parent_death_signal(None)?;
    match rustix::process::setsid() {
        // Started as the leader of a group, it has no terminal to lose.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(DaemonError::system("start a session")(error)),
    }
    rustix::process::chdir("/").map_err(DaemonError::system("change to /"))?;
    let sink = match log {
        Some(log) => log,
        None => dev_null()?,
    };
    rustix::stdio::dup2_stderr(&sink).map_err(DaemonError::system("redirect the standard error"))
}

fn dev_null() -> Result<File, DaemonError> {
    OpenOptions::new().read(true).write(true).open("/dev/null").map_err(DaemonError::system("open /dev/null"))
}

fn parent_death_signal(signal: Option<rustix::process::Signal>) -> Result<(), DaemonError> {
    rustix::process::set_parent_process_death_signal(signal).map_err(DaemonError::system("follow the parent"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mounts::Exit;
    use crate::signals;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Arguments that make this test program run the test `role` alone, as another process.
    fn role(role: &str) -> Vec<OsString> {
        let test = format!("daemon::tests::{role}");
        [test.as_str(), "--exact", "--nocapture", "--test-threads=2"].map(OsString::from).to_vec()
    }

    /// The channel in a process that plays a role; `None` in the test run itself.
    fn channel() -> Option<DaemonChannel> {
        DaemonChannel::from_env().expect("a channel")
    }

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn role_ready() {
        if let Some(channel) = channel() {
            println!("lost: standard output is no longer the channel");
            channel.ready(object(json!({"mountpoint": "/m", "n": 1})), None).expect("a parent");
            println!("lost");
            eprintln!("lost");
            thread::sleep(LIMIT);
        }
    }

    #[test]
    fn a_ready_child_has_left_the_terminal() {
        let child = spawn_background(&role("role_ready")).expect("ready");
        let pid = Pid::from_raw(child.pid.cast_signed()).expect("an id");
        let link = |name: &str| std::fs::read_link(format!("/proc/{}/{name}", child.pid)).expect(name);
        let seen = (rustix::process::getsid(Some(pid)), link("cwd"), ["fd/0", "fd/1", "fd/2"].map(link));
        let exit = Exit::of(child.pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a child to end");
        assert!(exit.wait(LIMIT).expect("a wait"));
        assert_eq!(seen, (Ok(pid), "/".into(), ["/dev/null"; 3].map(PathBuf::from)));
        assert_eq!(Value::Object(child.details), json!({"mountpoint": "/m", "n": 1}));
    }

    #[test]
    fn role_fails() {
        if let Some(channel) = channel() {
            channel.fail("no pattern given", 2);
        }
    }

    #[test]
    fn role_drops() {
        drop(channel());
    }

    #[test]
    fn role_dies() {
        if let Some(channel) = channel() {
            std::mem::forget(channel);
            std::process::exit(7);
        }
    }

    #[test]
    fn failures_are_told() {
        let error = spawn_background(&role("role_fails")).expect_err("it fails");
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("no pattern given", 2));
        let error = spawn_background(&role("role_drops")).expect_err("it gives up");
        assert!(error.to_string().contains("gave up"), "{error}");
        let error = spawn_background(&role("role_dies")).expect_err("it dies");
        assert!(matches!(error, DaemonError::Died { status } if status.code() == Some(7)), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    /// A mount that is never ready, but ends well when told to.
    #[test]
    fn role_slow() {
        if let Some(channel) = channel() {
            signals::block().expect("a mask");
            let waiter = Waiter::new().expect("a thread");
            eprintln!("slow");
            if let Some(reason) = waiter.wait_timeout(LIMIT) {
                thread::sleep(Duration::from_millis(100));
                eprintln!("cleaned up after {reason}");
            }
            channel.fail("ended early", 1);
        }
    }

    const PARENT: &str = "VEINFS_TEST_PARENT";

    #[test]
    fn role_parent() {
        if std::env::var_os(PARENT).is_some() {
            let error = spawn_background(&role("role_slow")).expect_err("never ready");
            eprintln!("parent: {error} {}", error.exit_code());
        }
    }

    /// What a parent and its child say when `signal` comes to the parent alone.
    fn interrupted_by(signal: Signal) -> Vec<String> {
        let held = Held::new().expect("a mask");
        let mut parent = Command::new(std::env::current_exe().expect("this program"))
            .args(role("role_parent"))
            .env(PARENT, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a parent");
        drop(held);
        let stderr = BufReader::new(parent.stderr.take().expect("a pipe"));
        let mut said = Vec::new();
        for line in stderr.lines().map(|line| line.expect("text")) {
            if line == "slow" {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent.id().cast_signed()), signal)
                    .expect("a signal");
            } else if line.starts_with("parent") || line.starts_with("cleaned") {
                said.push(line);
            }
        }
        parent.wait().expect("its status");
        said
    }

    #[test]
    fn a_signal_ends_the_child_and_then_the_parent() {
        let said = interrupted_by(Signal::SIGINT);
        assert_eq!(said, ["cleaned up after SIGTERM", "parent: interrupted (SIGINT) before the mount was usable 130"]);
    }

    #[test]
    fn a_killed_parent_takes_the_child_along() {
        assert_eq!(interrupted_by(Signal::SIGKILL), ["cleaned up after SIGTERM"]);
    }

    #[test]
    fn lines_of_the_channel() {
        let failed = |line: &str| match parse_outcome(line.as_bytes()) {
            Some(Outcome::Failed { message, code }) => Some((message, code)),
            _ => None,
        };
        assert_eq!(failed(r#"{"error":"x","code":3}"#), Some(("x".into(), 3)));
        assert_eq!(failed(r#"{"error":"x","code":256}"#), Some(("x".into(), 1)));
        assert_eq!(failed(r#"{"error":"x"}"#), Some(("x".into(), 1)));
        for other in ["", "running 1 test", "{}", "[]", r#"{"ready":false}"#, r#"{"error":1}"#] {
            assert!(parse_outcome(other.as_bytes()).is_none(), "{other}");
        }
        assert!(matches!(parse_outcome(br#"{"ready":true}"#), Some(Outcome::Ready(details)) if details.is_empty()));
    }
}
