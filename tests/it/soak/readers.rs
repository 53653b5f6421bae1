//! Who reads meanwhile: threads and programs, each in a way of its own, and what they make of what they get.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::changes::{WHOLE, is_whole};
use crate::bed::eventually;
use crate::mirror::Random;

/// What a reader has to say at its end.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) reads: usize,
    /// What neither the source nor the end of the mount explains.
    pub(super) wrong: Vec<String>,
    /// It ended since nobody answers any more.
    pub(super) cut_off: bool,
}

/// A thread's own.
struct Reader {
    mnt: PathBuf,
    random: Random,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    report: Report,
}

/// What a path can answer where files and directories come and go. ESTALE: the kernel asks once more by itself, and gives
/// this to the program where the name has another file for the second time.
fn explained(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE))
}

/// What the kernel answers when the daemon has gone.
fn is_end(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

impl Reader {
    fn goes_on(&self) -> bool {
        !self.report.cut_off && !self.stop.load(Ordering::Relaxed)
    }

    /// The value, or what is wrong about there being none.
    fn note<T>(&mut self, what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.report.reads += 1;
                self.reads.fetch_add(1, Ordering::Relaxed);
                return Some(value);
            }
            Err(error) if is_end(&error) => self.report.cut_off = true,
            Err(error) if explained(&error) => {}
            Err(error) => self.wrong(format!("{what} {}: {error}", path.display())),
        }
        None
    }

    fn wrong(&mut self, what: String) {
        if self.report.wrong.len() < 20 {
            self.report.wrong.push(what);
        }
    }

    /// Some file that is only ever replaced whole.
    fn some_file(&mut self) -> Option<PathBuf> {
        let dir = self.mnt.join("run");
        let entries = self.note("list", &dir, fs::read_dir(&dir))?;
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        let at = self.random.below(names.len().max(1) as u64) as usize;
        let file = format!("a{}", self.random.below(WHOLE));
        Some(dir.join(names.get(at)?).join(file))
    }

    /// Reads whole files.
    fn read(mut self) -> Report {
        while self.goes_on() {
            let Some(path) = self.some_file() else { continue };
            if let Some(bytes) = self.note("read", &path, fs::read(&path))
                && !is_whole(&bytes)
            {
                self.wrong(format!("{}: {} bytes of no one version", path.display(), bytes.len()));
            }
        }
        self.report
    }

    /// Looks at everything.
    fn walk(mut self) -> Report {
        while self.goes_on() {
            let mut open = vec![self.mnt.clone()];
            while let Some(path) = open.pop() {
                let Some(meta) = self.note("stat", &path, fs::symlink_metadata(&path)) else { continue };
                if meta.is_dir()
                    && let Some(entries) = self.note("list", &path, fs::read_dir(&path))
                {
                    for entry in entries {
                        if let Some(entry) = self.note("go on in", &path, entry) {
                            open.push(entry.path());
                        }
                    }
                }
            }
        }
        self.report
    }

    /// Holds files open, and reads them later: they are what they were, whatever has their names by then.
    fn hold(mut self) -> Report {
        let mut held: Vec<(PathBuf, File, Vec<u8>)> = Vec::new();
        while self.goes_on() {
            if held.len() > 24 {
                let (path, file, before) = held.swap_remove(self.random.below(24) as usize);
                let after = whole_content(&file);
                match after {
                    Err(error) if is_end(&error) => self.report.cut_off = true,
                    Err(error) => self.wrong(format!("read what is open, {}: {error}", path.display())),
                    Ok(after) if after != before => self.wrong(format!("{}: another content", path.display())),
                    Ok(_) => {}
                }
            }
            let Some(path) = self.some_file() else { continue };
            let Some(file) = self.note("open", &path, File::open(&path)) else { continue };
            if let Some(bytes) = self.note("read", &path, whole_content(&file)) {
                if !is_whole(&bytes) {
                    self.wrong(format!("{}: open, {} bytes of no one version", path.display(), bytes.len()));
                }
                held.push((path, file, bytes));
            }
        }
        self.report
    }
}

/// All that is in an open file, by positions.
fn whole_content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64)? {
            0 => return Ok(bytes),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Maps whole files, and looks at all their pages.
const MAP: &str = r#"
import errno, mmap, os, random, sys
mnt, going = sys.argv[1:]
random.seed(4711)
while os.path.exists(going):
    try:
        path = os.path.join(mnt, "run", random.choice(os.listdir(mnt + "/run") or ["none"]), "a%d" % random.randrange(4))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            text = pages[:]
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED): break
        # Where fstat fails, mmap.mmap does not say so and maps no bytes.
        if error.errno == errno.EINVAL and not os.path.isdir(mnt + "/run"): break
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE): print(path, error)
        continue
    line = text[:text.index(b"\n") + 1]
    if text != line * int(line.split()[-1]): print(path, len(text), "bytes of no one version")
"#;

/// The programs that read, each for as long as there is a file `going`.
fn programs(mnt: &Path, going: &Path) -> Vec<Command> {
    let forever = "while [ -e \"$2\" ]; do";
    let scripts = [
        format!("{forever} find \"$1\" -printf '' 2>&1; done"),
        format!("{forever} find \"$1\" -type f -printf '%s\\n' 2>&1 >/dev/null; done"),
        format!("{forever} find \"$1\" -type f -exec cat {{}} + 2>&1 >/dev/null; done"),
    ];
    let command = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    let mut commands: Vec<Command> = scripts.iter().map(|script| command(&["sh", "-c", script, "sh"])).collect();
    commands.push(command(&["python3", "-c", MAP]));
    for command in &mut commands {
        command.arg(mnt).arg(going).env("LC_ALL", "C").stdin(Stdio::null()).current_dir("/");
    }
    commands
}

/// All who read.
pub(super) struct Readers {
    stop: Arc<AtomicBool>,
    going: PathBuf,
    threads: Vec<(&'static str, JoinHandle<Report>)>,
    children: Vec<(Child, PathBuf)>,
    /// How much the threads have read.
    pub(super) reads: Arc<AtomicUsize>,
}

impl Readers {
    /// Starts them; what the programs say goes to files in `dir`.
    pub(super) fn start(mnt: &Path, dir: &Path) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        type Kind = (&'static str, fn(Reader) -> Report);
        let kinds: [Kind; 4] =
            [("read", Reader::read), ("read", Reader::read), ("walk", Reader::walk), ("hold", Reader::hold)];
        let threads = kinds.into_iter().zip(1..).map(|((name, act), seed)| {
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            let reader = Reader { mnt: mnt.into(), random: Random::new(seed), stop, reads, report: Report::default() };
            (name, std::thread::spawn(move || act(reader)))
        });
        let going = dir.join("going");
        fs::write(&going, "").expect("a file");
        let children = programs(mnt, &going).into_iter().enumerate().map(|(number, mut command)| {
            let said = dir.join(format!("said-{number}"));
            let child = command.stdout(File::create(&said).expect("a file")).spawn().expect("a program");
            (child, said)
        });
        Self { threads: threads.collect(), children: children.collect(), stop, going, reads }
    }

    /// Ends them, and gives what the threads report, and what the programs said that is not explained.
    #[track_caller]
    pub(super) fn end(mut self) -> (Vec<(&'static str, Report)>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        fs::remove_file(&self.going).expect("a file");
        eventually("all readers have ended", || {
            self.threads.iter().all(|(_, thread)| thread.is_finished())
                && self.children.iter_mut().all(|(child, _)| child.try_wait().expect("a child").is_some())
        });
        let threads = std::mem::take(&mut self.threads).into_iter();
        let reports = threads.map(|(name, thread)| (name, thread.join().expect("no panic"))).collect();
        let said = self.children.iter().flat_map(|(_, said)| {
            let text = fs::read(said).expect("a file");
            String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>()
        });
        let explained =
            |line: &String| ["No such file", "Not a directory", "Stale file"].iter().any(|text| line.contains(text));
        (reports, said.filter(|line| !explained(line)).collect())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without it the programs end too.
        let _ = fs::remove_file(&self.going);
    }
}
