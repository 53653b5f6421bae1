//! How long the kernel may keep what it was told.
//!
//! Where changes are told, names and directories are kept until one is. Files are not told of altogether: what is stored
//! through a shared mapping (mmap(2)) makes no event before the file is closed, and of a file with several names those
//! that lie elsewhere are not watched. So attributes of a file are kept for as long as it has not changed, as HTTP
//! caches do where a server says nothing (RFC 9111, 4.2.2): one that changed a second ago is asked for again in a
//! second, one that is as it was a year ago not for a year.
//!
//! Where changes are not told somebody looks now and then, and so does the kernel.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attr::age;
use super::node::{Dir, Node};
use super::{FOREVER, FRESH, FsOptions, VeinFs};
use crate::config::NamedSource;
use crate::expand::Content;
use crate::source::Stat;

/// How long a name and what it stands for may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// The name.
    pub(super) name: Duration,
    /// The attributes.
    pub(super) attr: Duration,
}

/// What is known of how changes are learnt of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Changes of it are told.
    pub(super) itself: bool,
    /// Whether it is there depends on its name and kind alone.
    pub(super) by_name: bool,
}

/// How long something with these attributes may be kept at a certain time.
pub(super) fn keep(options: &FsOptions, told: Told, stat: &Stat, now: SystemTime) -> Keep {
    if let Some(ttl) = options.ttl {
        return Keep { name: ttl, attr: ttl };
    }
    let age = age(stat.mtime.max(stat.ctime), now);
    let settled = age.max(FRESH);
    if !told.itself {
        let until_looked_at = settled.min(options.poll.unwrap_or(FRESH).max(FRESH));
        return Keep { name: until_looked_at, attr: until_looked_at };
    }
    // Of two answers about a file that it did not know, the kernel takes the one that comes first, be it the older one:
    // a file that is just being written would be as short as it was for a second.
    let settled = if age.is_zero() { FRESH } else { age };
    let attr = match (stat.is_file(), stat.nlink) {
        (false, _) => FOREVER,
        (true, 1) => settled.min(FOREVER),
        (true, _) => settled.min(FRESH),
    };
    Keep { name: if told.by_name { FOREVER } else { FRESH }, attr }
}

impl VeinFs {
    /// How long an entry of a directory that is shown may be kept; `linked` if it is what a link leads to.
    pub(super) fn keep_entry(&self, dir: &Node, entry: &Node, linked: bool, stat: &Stat, now: SystemTime) -> Keep {
        let told = dir.dir().is_some_and(Dir::is_told) && !linked;
        let kept = keep(&self.options, Told { itself: told, by_name: told && self.goes_by_names(dir) }, stat, now);
        Keep { attr: kept.attr.min(self.keep_content(entry)), ..kept }
    }

    /// How long attributes of something that is shown may be kept.
    pub(super) fn keep_attr(&self, node: &Node, stat: &Stat) -> Duration {
        let (parent, linked) = {
            let at = node.at.lock();
            (at.parent.clone(), at.linked)
        };
        let now = SystemTime::now();
        match parent {
            None => self.keep_match(node, stat, now),
            Some(parent) => self.keep_entry(&parent, node, linked, stat, now).attr,
        }
    }

    /// How long attributes of a match's own directory may be kept.
    pub(super) fn keep_match(&self, node: &Node, stat: &Stat, now: SystemTime) -> Duration {
        let told = self.tells(node.place().source, stat.dev);
        keep(&self.options, Told { itself: told, by_name: true }, stat, now).attr.min(self.keep_content(node))
    }

    /// How long what a directory shows is good as far as it depends on what is above it: captures with values from
    /// there. What depends on what is below is told, since the directory is judged again.
    fn keep_content(&self, node: &Node) -> Duration {
        let alone = match node.dir().map(|dir| Arc::clone(&dir.content.lock())).as_deref() {
            None | Some(Content::Whole) => true,
            Some(Content::States(states)) => states.iter().all(|(_, given)| given.is_empty()),
        };
        if alone { FOREVER } else { FRESH }
    }

    /// True if changes on a file system are told, as far as directories of a source are concerned.
    pub(super) fn tells(&self, source: usize, dev: u64) -> bool {
        // Through links a directory has another path than the one by which it is told of.
        !self.options.follow && self.watches.get(source).is_some_and(|watch| watch.tells(dev))
    }

    /// True if changes of all sources are told.
    pub(super) fn tells_all(&self) -> bool {
        let told = |(at, source): (usize, &NamedSource)| {
            let root = source.source.open_root().and_then(|root| source.source.identity(&root));
            root.is_ok_and(|(dev, _)| self.tells(at, dev))
        };
        self.live.sources.iter().enumerate().all(told)
    }

    /// True if what a directory shows depends on the names and kinds of its entries alone.
    pub(super) fn goes_by_names(&self, node: &Node) -> bool {
        node.dir().is_some() && !self.depends_on_more_than_names(node) && self.keep_content(node) == FOREVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::Symlinks;
    use crate::fs::{OpenMode, ViewMode};

    #[test]
    fn what_has_not_changed_for_long_is_kept_for_long() {
        let mut options = FsOptions {
            view: ViewMode::Matched,
            symlinks: Symlinks::Follow,
            open: OpenMode::Auto,
            ttl: None,
            poll: Some(Duration::from_secs(60)),
            allow_other: false,
            follow: false,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let secs = Duration::from_secs;
        let stat = |mode: u32, nlink, mtime, ctime| Stat {
            dev: 1,
            ino: 1,
            mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: (0, 0),
            mtime: (mtime, 0),
            ctime: (ctime, 0),
            btime: (0, 0),
        };
        let of = |options: &FsOptions, itself, by_name, stat: Stat| {
            let kept = keep(options, Told { itself, by_name }, &stat, now);
            (kept.name, kept.attr)
        };
        let (file, dir) = (libc::S_IFREG, libc::S_IFDIR);
        assert_eq!(of(&options, true, true, stat(file, 1, 0, 999_000)), (FOREVER, secs(1000)));
        let mut lately = stat(file, 1, 999_999, 0);
        lately.mtime.1 = 990_000_000;
        assert_eq!(of(&options, true, true, lately), (FOREVER, Duration::from_millis(10)), "it may still be written");
        assert_eq!(of(&options, true, true, stat(file, 1, 1_000_005, 0)), (FOREVER, FRESH), "a clock that is ahead");
        assert_eq!(of(&options, true, true, stat(file, 2, 0, 0)), (FOREVER, FRESH), "another name may be elsewhere");
        assert_eq!(of(&options, true, true, stat(dir, 9, 999_999, 999_999)), (FOREVER, FOREVER));
        assert_eq!(of(&options, true, false, stat(dir, 9, 0, 0)), (FRESH, FOREVER));
        assert_eq!(of(&options, false, true, stat(file, 1, 0, 0)), (secs(60), secs(60)));
        assert_eq!(of(&options, false, true, stat(file, 1, 999_990, 0)), (secs(10), secs(10)));
        options.poll = None;
        assert_eq!(of(&options, false, true, stat(file, 1, 0, 0)), (FRESH, FRESH));
        options.ttl = Some(secs(7));
        assert_eq!(of(&options, true, true, stat(file, 1, 0, 0)), (secs(7), secs(7)));
    }
}
