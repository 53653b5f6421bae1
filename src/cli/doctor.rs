//! `veinfs doctor`: gathers the facts, and says what [`crate::doctor`] makes of them.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{DONE, FAILED, out, standing};
use crate::doctor::{Facts, Level, judge};
use crate::mounts::{MountState, state, veinfs_mounts};

/// Say what is missing on this machine, and what to do about it.
///
/// Exits with 1 if something does not work.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let found = judge(&gather());
    let mut stdout = std::io::stdout().lock();
    for finding in &found {
        if args.json {
            writeln!(stdout, "{}", finding.json())?;
            continue;
        }
        let mark = match finding.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Failure => "FAILURE",
        };
        writeln!(stdout, "{mark}  {}", out::for_terminal(finding.text.as_bytes()))?;
        if let Some(cure) = &finding.cure {
            writeln!(stdout, "         {}", out::for_terminal(cure.as_bytes()))?;
        }
    }
    Ok(if found.iter().any(|finding| finding.level == Level::Failure) { FAILED } else { DONE })
}

fn gather() -> Facts {
    let root = rustix::process::geteuid().is_root();
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Facts {
        root,
        fuse: Path::new("/dev/fuse").exists().then(|| {
            let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
            opened.map(drop).map_err(|error| crate::scan::plain(&error))
        }),
        kernel: kernel(rustix::system::uname().release().to_string_lossy().as_ref()),
        fusermount: on_path("fusermount3").map(|path| {
            let may = std::fs::metadata(&path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & libc::S_ISUID != 0);
            (path.display().to_string(), may)
        }),
        user_allow_other: std::fs::read_to_string("/etc/fuse.conf")
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other")),
        fanotify: root && number("/proc/sys/fs/fanotify/max_user_marks").is_some(),
        watches: number("/proc/sys/fs/inotify/max_user_watches"),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.or(Some(u64::MAX)),
        index: crate::index::cache_directory().map(|dir| (dir.display().to_string(), room(&dir))),
        dead: dead(),
        files: standing::all().into_iter().map(|(path, wrong)| (path.display().to_string(), wrong)).collect(),
        fstab: std::fs::read_to_string("/etc/fstab").map(|text| standing::check_fstab(&text)).unwrap_or_default(),
        helper: ["/sbin", "/usr/sbin"].iter().any(|dir| Path::new(dir).join("mount.veinfs").exists()),
    }
}

fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn on_path(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The free bytes where a directory is, or is to be, if it can be written to.
fn room(dir: &Path) -> Result<u64, String> {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).map_err(|error| crate::scan::plain(&error.into()))?;
    let stat = rustix::fs::statvfs(there).map_err(|error| crate::scan::plain(&error.into()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

fn dead() -> Vec<String> {
    let mounts = veinfs_mounts().unwrap_or_default();
    let dead = mounts.iter().filter(|entry| matches!(state(&entry.mountpoint), Ok(MountState::Dead)));
    dead.map(|entry| entry.mountpoint.display().to_string()).collect()
}
