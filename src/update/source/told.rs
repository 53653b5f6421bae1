//! What a watch tells of a source: which directories are to be read again, and what is shown otherwise.

use std::os::unix::ffi::OsStrExt;

use super::Kept;
use crate::entry::RelPath;
use crate::tree::{NodeId, State};
use crate::update::Touched;
use crate::watch::Change;

impl Kept {
    /// Takes in what a watch tells.
    pub(super) fn told(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Entry { dir, name, is_dir } => {
                    self.changed(&dir, name.as_deref(), true);
                    if let (true, Some(name)) = (is_dir, &name) {
                        // Another directory may be there under the name of one that is known, with all below.
                        for id in self.nodes_of(&[&*dir, b"/", name].concat()) {
                            self.reconcile_below(id);
                        }
                    }
                }
                Change::Attributes { dir, name, is_dir: true } => {
                    // By links: what is behind one may be read now, or no longer.
                    self.dirty.extend(self.tree.depending(&dir, name.as_deref()));
                    let path = name.map_or_else(|| dir.to_vec(), |name| [&*dir, b"/", &name].concat());
                    self.changed(&path, None, true);
                    self.reach_changed(&path);
                }
                Change::Attributes { dir, name: Some(name), .. } | Change::Content { dir, name } => {
                    self.changed(&dir, Some(&name), false);
                }
                Change::Attributes { dir, name: None, .. } => self.changed(&dir, None, true),
                Change::Root => {
                    self.note_mounts();
                    self.look_at_root();
                    // Not all that is shown is known to the tree, and so compared.
                    self.touch(RelPath::root(), Touched::Below);
                    // Watches may have gone though it is there again.
                    if !self.is_away() && self.tree.node(NodeId::ROOT).state == State::Read {
                        self.dirty.insert(NodeId::ROOT);
                        self.reconcile_all(false);
                    }
                }
                Change::Lost => {
                    self.note_mounts();
                    self.distrust = self.crawling > 0;
                    if self.tree.node(NodeId::ROOT).state == State::Read {
                        self.dirty.insert(NodeId::ROOT);
                    }
                    self.reconcile_all(false);
                    self.touch(RelPath::root(), Touched::Below);
                }
            }
        }
    }

    /// Something may have been mounted that is not to be entered, by links neither.
    pub(super) fn note_mounts(&self) {
        let own = self.root.and_then(|(dev, _)| dev);
        crate::scan::shut_new(&self.crawler.options, own);
    }

    /// The directories that the absolute path `dir` stands for.
    pub(super) fn nodes_of(&self, dir: &[u8]) -> Vec<NodeId> {
        let root = self.crawler.source.root.as_os_str().as_bytes();
        let below = match dir.strip_prefix(root) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") || root == b"/" => self.tree.find(rest),
            _ => None,
        };
        let mut nodes: Vec<NodeId> = below.into_iter().chain(self.tree.at_real(dir)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Who may search a directory may have changed, one above the root included.
    fn reach_changed(&mut self, dir: &[u8]) {
        let root = self.crawler.source.root.as_os_str().as_bytes();
        let at = match self.below_root(dir) {
            Some(below) => below,
            None if root.starts_with(dir) => RelPath::root(),
            None => return,
        };
        self.touch(at, Touched::Reach);
    }

    /// The path below the root of something that is named by its absolute path.
    fn below_root(&self, path: &[u8]) -> Option<RelPath> {
        let root = self.crawler.source.root.as_os_str().as_bytes();
        let rest = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
        match rest {
            [] => Some(RelPath::root()),
            [b'/', below @ ..] => Some(RelPath::from_bytes(below.to_vec())),
            _ => None,
        }
    }

    /// The entry `name` of `dir` is another one, or `dir` itself is; `structure`: it came, went, or may be read otherwise.
    pub(super) fn changed(&mut self, dir: &[u8], name: Option<&[u8]>, structure: bool) {
        let nodes = self.nodes_of(dir);
        // By links: what is behind one may be another thing, or have other content.
        self.dirty.extend(self.tree.depending(dir, name));
        let known = nodes.iter().any(|id| self.tree.node(*id).state != State::Pending);
        if !known && self.crawling > 0 {
            self.early.insert(dir.into());
        }
        let what = match name {
            None => Touched::Itself,
            Some(name) if structure => Touched::Entry(name.into()),
            Some(name) => Touched::File(name.into()),
        };
        if nodes.is_empty()
            && let Some(below) = self.below_root(dir)
        {
            // It may be shown though it is not searched for matches.
            self.touch(below, what.clone());
        }
        for id in nodes {
            self.touch(self.tree.path(id), what.clone());
            if self.tree.node(id).state == State::Pending {
                continue;
            }
            if structure {
                self.dirty.insert(id);
            } else if self.tree.tests_files(&self.crawler.automaton, id) {
                self.tree.judge_again(id);
            }
        }
    }
}
