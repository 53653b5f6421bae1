//! The end of a mount: a signal, or the end of the FUSE session because somebody unmounted it.
//!
//! No signal handlers. [`block`] is called in the main thread before there is any other, so that all
//! threads inherit the mask; one thread then takes the signals with sigwait(3) and hands them on as
//! values. The main thread waits for whichever comes first:
//!
//! ```no_run
//! # fn serve() -> std::io::Result<()> { Ok(()) }
//! use veinfs::signals::{self, ShutdownReason, Waiter};
//! signals::block()?;
//! let waiter = Waiter::new()?;
//! waiter.watch("session", serve)?;
//! match waiter.wait() {
//!     ShutdownReason::Signal(_) => { /* unmount, then wait_timeout for the session's end */ }
//!     ShutdownReason::Unmounted => {}
//!     ShutdownReason::SessionFailed(error) => return Err(error),
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The programs that this process starts inherit the mask as well.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// Signals nearer to each other than this are one: a Ctrl-C comes from the terminal and once more
/// from the parent that passes it on.
const SAME: Duration = Duration::from_millis(500);

/// What the main thread waits for.
#[derive(Debug)]
pub enum Event {
    /// SIGINT, SIGTERM or SIGHUP came.
    Signal(Signal),
    /// The session came to its end, with its result.
    SessionEnded(io::Result<()>),
}

/// Why a mount ends.
#[derive(Debug)]
pub enum ShutdownReason {
    /// It was told to.
    Signal(Signal),
    /// It was unmounted from outside.
    Unmounted,
    /// The session broke.
    SessionFailed(io::Error),
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShutdownReason::Signal(signal) => write!(f, "{signal}"),
            ShutdownReason::Unmounted => f.write_str("unmounted"),
            ShutdownReason::SessionFailed(error) => write!(f, "the FUSE session failed: {error}"),
        }
    }
}

impl From<Event> for ShutdownReason {
    fn from(event: Event) -> Self {
        match event {
            Event::Signal(signal) => ShutdownReason::Signal(signal),
            Event::SessionEnded(Ok(())) => ShutdownReason::Unmounted,
            Event::SessionEnded(Err(error)) => ShutdownReason::SessionFailed(error),
        }
    }
}

fn shutdown_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Blocks SIGINT, SIGTERM and SIGHUP in this thread and those it starts from now on.
///
/// To be called before any other thread runs: a thread that lets one of them through ends the
/// process, and the mount is left dead.
pub fn block() -> io::Result<()> {
    Ok(shutdown_signals().thread_block()?)
}

/// Where signals and the session's end arrive.
#[derive(Debug)]
pub struct Waiter {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Waiter {
    /// Starts the thread that takes the signals; [`block`] must have been called.
    ///
    /// The thread lives as long as the process: there is one waiter in a process.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let signals = sender.clone();
        thread::Builder::new().name("signals".into()).spawn(move || take_signals(&signals))?;
        Ok(Self { sender, receiver })
    }

    /// Runs `session` in a thread called `name`; its end, a panic too, ends the wait.
    pub fn watch<F>(&self, name: &str, session: F) -> io::Result<()>
    where
        F: FnOnce() -> io::Result<()> + Send + 'static,
    {
        let mut end = SessionEnd(Some(self.sender.clone()));
        thread::Builder::new().name(name.into()).spawn(move || end.send(session()))?;
        Ok(())
    }

    /// A handle by which a session that runs elsewhere tells its end; dropped, it tells it as broken.
    pub fn session_end(&self) -> SessionEnd {
        SessionEnd(Some(self.sender.clone()))
    }

    /// Waits for the first signal or the session's end; called again, for the next.
    pub fn wait(&self) -> ShutdownReason {
        self.receiver.recv().expect("the waiter holds a sender itself").into()
    }

    /// As [`wait`](Self::wait), but at most for `limit`: after a signal and the unmount, for the
    /// session's end, or the second signal of somebody impatient.
    pub fn wait_timeout(&self, limit: Duration) -> Option<ShutdownReason> {
        match self.receiver.recv_timeout(limit) {
            Ok(event) => Some(event.into()),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the waiter holds a sender itself"),
        }
    }
}

/// Tells a [`Waiter`] once that the session has ended.
#[derive(Debug)]
pub struct SessionEnd(Option<Sender<Event>>);

impl SessionEnd {
    /// Tells the session's result; only the first call counts.
    pub fn send(&mut self, result: io::Result<()>) {
        if let Some(sender) = self.0.take() {
            // Without a waiter nobody wants to know.
            let _ = sender.send(Event::SessionEnded(result));
        }
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.send(Err(io::Error::other("the session's thread panicked")));
    }
}

/// Hands on the shutdown signals, one of each burst, until nobody listens.
fn take_signals(events: &Sender<Event>) {
    let signals = shutdown_signals();
    let mut last: Option<Instant> = None;
    loop {
        let Ok(signal) = signals.wait() else { continue };
        let again = last.is_some_and(|last| last.elapsed() < SAME);
        last = Some(Instant::now());
        if !again && events.send(Event::Signal(signal)).is_err() {
            return;
        }
    }
}

/// Keeps the shutdown signals from this thread while it lives; then the mask is as it was before.
#[derive(Debug)]
pub(crate) struct Held(SigSet);

impl Held {
    pub(crate) fn new() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        block()?;
        Ok(Self(before))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.thread_set_mask().expect("a mask that was set before is valid");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::unistd::Pid;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn waiter() -> Waiter {
        let (sender, receiver) = mpsc::channel();
        Waiter { sender, receiver }
    }

    #[test]
    fn the_sessions_end_ends_the_wait() {
        let waiter = waiter();
        waiter.watch("good", || Ok(())).expect("a thread");
        assert!(matches!(waiter.wait(), ShutdownReason::Unmounted));
        waiter.watch("bad", || Err(io::Error::other("broken"))).expect("a thread");
        assert_eq!(waiter.wait().to_string(), "the FUSE session failed: broken");
        waiter.watch("panics", || std::panic::resume_unwind(Box::new(()))).expect("a thread");
        assert!(matches!(waiter.wait(), ShutdownReason::SessionFailed(_)));
        let mut end = waiter.session_end();
        end.send(Ok(()));
        drop(end);
        assert!(matches!(waiter.wait(), ShutdownReason::Unmounted));
        assert!(waiter.wait_timeout(Duration::from_millis(1)).is_none(), "told once");
    }

    const CHILD: &str = "VEINFS_TEST_SIGNALS";

    /// The other half of the next test, in a process of its own.
    #[test]
    fn child_waits_for_signals() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        // This process's main thread, libtest's, has inherited the mask.
        block().expect("a mask");
        let waiter = Waiter::new().expect("a thread");
        eprintln!("waits");
        while let Some(reason) = waiter.wait_timeout(LIMIT) {
            eprintln!("got {reason}");
        }
    }

    #[test]
    fn signals_arrive_as_values_and_bursts_as_one() {
        let held = Held::new().expect("a mask");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "signals::tests::child_waits_for_signals", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a child");
        drop(held);
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut told = Vec::new();
        if lines.any(|line| line == "waits") {
            for burst in [&[Signal::SIGTERM, Signal::SIGTERM, Signal::SIGINT][..], &[Signal::SIGHUP]] {
                for signal in burst {
                    nix::sys::signal::kill(pid, *signal).expect("a signal");
                }
                told.extend(lines.next());
                thread::sleep(SAME * 2);
            }
        }
        child.kill().expect("a child to end");
        child.wait().expect("its status");
        told.extend(lines);
        assert_eq!(told.len(), 2, "one of each burst: {told:?}");
        // Pending signals are taken lowest number first.
        assert!(["got SIGTERM", "got SIGINT"].contains(&told[0].as_str()), "{told:?}");
        assert_eq!(told[1], "got SIGHUP");
    }
}
