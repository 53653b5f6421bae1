//! stub
#![allow(missing_docs)]
use std::os::fd::BorrowedFd;
use std::path::Path;
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    #[default]
    Auto,
    Fanotify,
    Inotify,
    Poll,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Fanotify,
    Inotify,
    Poll,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Entry { dir: Box<[u8]>, name: Option<Box<[u8]>>, is_dir: bool },
    Attributes { dir: Box<[u8]>, name: Option<Box<[u8]>>, is_dir: bool },
    Content { dir: Box<[u8]>, name: Box<[u8]> },
    Root,
    Lost,
}
#[derive(Clone, Debug)]
pub struct State {
    pub mode: Mode,
    pub reason: Option<String>,
    pub watches: u64,
    pub limit: Option<u64>,
    pub refused: u64,
    pub lost: u64,
}
#[derive(Debug)]
pub struct Watch;
impl Watch {
    pub fn start(_root: &Path, _choice: Choice, _sink: Box<dyn Fn(Vec<Change>) + Send>) -> Watch {
        Watch
    }
    pub fn add(&self, _dir: BorrowedFd<'_>, _dev: u64, _path: &[u8]) -> bool {
        false
    }
    pub fn knows(&self, _dev: u64) -> Option<bool> {
        Some(false)
    }
    pub fn remove(&self, _path: &[u8]) {}
    pub fn mode(&self) -> Mode {
        Mode::Poll
    }
    pub fn state(&self) -> State {
        State { mode: Mode::Poll, reason: None, watches: 0, limit: None, refused: 0, lost: 0 }
    }
}
