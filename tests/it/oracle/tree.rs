//! A source in memory: directories, files, symbolic links and special files, with links resolved as the kernel does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use veinfs::entry::Kind;

/// One component of a path.
pub(crate) type Name = Vec<u8>;

/// A directory or file by its place in the tree, without any link on the way: components below the root.
pub(crate) type Real = Vec<Name>;

/// How many links the kernel follows in one look-up (`MAXSYMLINKS`, `linux/namei.h`).
const MAX_HOPS: u32 = 40;
/// Hops once a look-up has left the root upwards.
const ESCAPED: u32 = u32::MAX;

/// A source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    /// The root's name, the last component of the source's path.
    pub(crate) name: Name,
    /// The root, always a [`Node::Dir`].
    pub(crate) root: Node,
}

/// A thing in a [`Tree`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
    },
    /// A directory.
    Dir {
        /// What is in it, by name.
        children: BTreeMap<Name, Node>,
        /// False if its content cannot be listed; only modelled, see [`lay_out`].
        readable: bool,
    },
    /// A symbolic link with its text: relative, or dangling.
    Link {
        /// Such as `../a/b`.
        to: Vec<u8>,
    },
    /// A FIFO.
    Special,
}

impl Node {
    /// An empty readable directory.
    pub(crate) fn dir() -> Self {
        Self::Dir { children: BTreeMap::new(), readable: true }
    }
}

impl Tree {
    /// An empty source.
    pub(crate) fn new(name: &[u8]) -> Self {
        Self { name: name.to_vec(), root: Node::dir() }
    }

    /// Puts `node` at `path`, making the directories above it.
    pub(crate) fn put(&mut self, path: &[u8], node: Node) {
        let mut at = &mut self.root;
        for name in path.split(|b| *b == b'/') {
            let Node::Dir { children, .. } = at else { panic!("no directory above {path:?}") };
            at = children.entry(name.to_vec()).or_insert_with(Node::dir);
        }
        *at = node;
    }

    /// A tree from one line for each thing: `d/` a directory, `d!` an unreadable one, `l -> text` a link, `p|` a FIFO,
    /// `f=content` and `f` files.
    pub(crate) fn from_lines(name: &str, lines: &[&str]) -> Self {
        let mut tree = Self::new(name.as_bytes());
        for line in lines {
            let (path, node) = if let Some((path, to)) = line.split_once(" -> ") {
                (path, Node::Link { to: to.into() })
            } else if let Some((path, content)) = line.split_once('=') {
                (path, Node::File { bytes: content.into() })
            } else if let Some(path) = line.strip_suffix('/') {
                (path, Node::dir())
            } else if let Some(path) = line.strip_suffix('!') {
                (path, Node::Dir { children: BTreeMap::new(), readable: false })
            } else if let Some(path) = line.strip_suffix('|') {
                (path, Node::Special)
            } else {
                (*line, Node::File { bytes: Vec::new() })
            };
            tree.put(path.as_bytes(), node);
        }
        tree
    }

    /// What stands at `real`, a link itself if it is one.
    pub(crate) fn at(&self, real: &[Name]) -> Option<&Node> {
        let mut at = &self.root;
        for name in real {
            let Node::Dir { children, .. } = at else { return None };
            at = children.get(name)?;
        }
        Some(at)
    }

    /// Where `path` leads, all links in it and at its end followed; `None` if it dangles.
    pub(crate) fn follow(&self, path: &[Name]) -> Option<Real> {
        let mut at = Real::new();
        let mut hops = 0;
        for name in path {
            at = self.step(at, name, &mut hops)?;
        }
        Some(at)
    }

    /// True if a link leads above the root, also through other links: what is there, a tree does not say.
    pub(crate) fn escapes(&self) -> bool {
        self.paths().iter().any(|path| {
            let mut hops = 0;
            path.iter().try_fold(Real::new(), |at, name| self.step(at, name, &mut hops));
            hops == ESCAPED
        })
    }

    /// One component of a look-up, from the directory `at`.
    fn step(&self, mut at: Real, name: &[u8], hops: &mut u32) -> Option<Real> {
        let Some(Node::Dir { children, .. }) = self.at(&at) else { return None };
        match name {
            b"" | b"." => Some(at),
            b".." if at.is_empty() => {
                *hops = ESCAPED;
                None
            }
            b".." => at.pop().map(|_| at),
            _ => match children.get(name)? {
                Node::Link { to } => {
                    *hops += 1;
                    if *hops > MAX_HOPS || to.is_empty() || to.starts_with(b"/") {
                        return None;
                    }
                    to.split(|b| *b == b'/').try_fold(at, |at, name| self.step(at, name, hops))
                }
                _ => {
                    at.push(name.to_vec());
                    Some(at)
                }
            },
        }
    }

    /// What the entry at `path` is to a pattern; links in the path are followed.
    pub(crate) fn kind(&self, path: &[Name]) -> Option<Kind> {
        let Some((name, above)) = path.split_last() else { return Some(Kind::Dir) };
        let mut real = self.follow(above)?;
        real.push(name.clone());
        Some(match self.at(&real)? {
            Node::File { .. } => Kind::File,
            Node::Dir { .. } => Kind::Dir,
            Node::Special => Kind::Special,
            Node::Link { .. } => match self.follow(&real).and_then(|target| self.at(&target)) {
                Some(Node::Dir { .. }) => Kind::LinkDir,
                _ => Kind::LinkFile,
            },
        })
    }

    /// The entries of the directory at `path`, links in it followed, sorted by name; `None` if it cannot be read.
    pub(crate) fn list(&self, path: &[Name]) -> Option<Vec<(Name, Kind)>> {
        let real = self.follow(path)?;
        let Node::Dir { children, readable: true } = self.at(&real)? else { return None };
        let entry = |name: &Name| {
            let path = [&real[..], std::slice::from_ref(name)].concat();
            (name.clone(), self.kind(&path).expect("it is a child of a directory"))
        };
        Some(children.keys().map(entry).collect())
    }

    /// The content of the regular file that `path` leads to, through links.
    pub(crate) fn bytes(&self, path: &[Name]) -> Option<&[u8]> {
        match self.at(&self.follow(path)?)? {
            Node::File { bytes } => Some(bytes),
            _ => None,
        }
    }

    /// All paths in the tree, the root (no components) first, not through links.
    pub(crate) fn paths(&self) -> Vec<Real> {
        fn collect(node: &Node, path: &Real, paths: &mut Vec<Real>) {
            paths.push(path.clone());
            if let Node::Dir { children, .. } = node {
                for (name, child) in children {
                    collect(child, &[&path[..], std::slice::from_ref(name)].concat(), paths);
                }
            }
        }
        let mut paths = Vec::new();
        collect(&self.root, &Real::new(), &mut paths);
        paths
    }
}

/// The components of a path joined by `/`; none for the root.
pub(crate) fn split(path: &[u8]) -> Vec<Name> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Components joined by `/`.
pub(crate) fn joined(path: &[Name]) -> Vec<u8> {
    path.join(&b'/')
}

/// Writes `tree` to `parent`, as a directory of the tree's name there, and gives its path. Permissions are left alone:
/// an unreadable directory becomes an ordinary one, as root reads it anyway.
pub(crate) fn lay_out(tree: &Tree, parent: &Path) -> PathBuf {
    fn write(node: &Node, path: &Path) {
        match node {
            Node::File { bytes } => fs::write(path, bytes).expect("the file is new"),
            Node::Link { to } => symlink(OsStr::from_bytes(to), path).expect("the link is new"),
            Node::Special => nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("the FIFO is new"),
            Node::Dir { children, .. } => {
                fs::create_dir(path).expect("the directory is new");
                for (name, child) in children {
                    write(child, &path.join(OsStr::from_bytes(name)));
                }
            }
        }
    }
    let root = parent.join(OsStr::from_bytes(&tree.name));
    write(&tree.root, &root);
    root
}
