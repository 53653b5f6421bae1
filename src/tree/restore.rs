//! A tree from stored listings, whatever the patterns are.

use rustc_hash::FxHashMap;

use super::{Node, NodeId, State, Tree};
use crate::automaton::Automaton;
use crate::entry::RelPath;
use crate::listing::Scratch;
use crate::listing::stored::{BadListing, Restored, restore};
use crate::source::Stamp;

/// A directory as it was stored.
#[derive(Debug)]
pub struct Stored {
    parent: NodeId,
    name: Box<[u8]>,
    stamp: Stamp,
    trusted: bool,
    restored: Restored,
}

/// Stored directories while they are read.
#[derive(Debug, Default)]
pub struct Restoring {
    records: Vec<Option<Stored>>,
    count: usize,
}

/// What [`Restoring::plant`] leaves to be done.
#[derive(Debug, Default)]
pub struct Planted {
    /// Directories to be read: those that were not stored, or whose links have to be looked at.
    pub unread: Vec<NodeId>,
    /// Stored records that belong to nothing.
    pub stray: Vec<NodeId>,
}

/// Whether a directory is not entered, by its name and, where that is asked for, its path.
pub type Closed<'a> = &'a dyn Fn(&[u8], &dyn Fn() -> RelPath) -> bool;

impl Restoring {
    /// One more directory, by its number.
    ///
    /// # Errors
    /// If its listing is damaged, or its number is out of all proportion.
    pub fn add(
        &mut self,
        automaton: &Automaton,
        follow: bool,
        scratch: &mut Scratch,
        id: NodeId,
        record: (NodeId, Box<[u8]>, Stamp, bool, &[u8]),
    ) -> Result<(), BadListing> {
        let (parent, name, stamp, trusted, listing) = record;
        // Numbers are given out densely; gaps come from what was removed.
        if id.index() > 1_000_000 + 1000 * (self.count + 1) {
            return Err(BadListing);
        }
        let restored = restore(automaton, follow, listing, scratch)?;
        if self.records.len() <= id.index() {
            self.records.resize_with(id.index() + 1, || None);
        }
        self.records[id.index()] = Some(Stored { parent, name, stamp, trusted, restored });
        self.count += 1;
        Ok(())
    }

    /// How many directories were added.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if none was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes the tree; a directory that `closed` names, by its name and path, is not entered.
    pub fn plant(mut self, automaton: &Automaton, root_name: &[u8], closed: Closed<'_>) -> (Tree, Planted) {
        let mut tree = Tree::new(automaton, root_name);
        let mut planted = Planted::default();
        let mut children: FxHashMap<NodeId, Vec<NodeId>> = FxHashMap::default();
        for (id, record) in (0..).map(NodeId).zip(&self.records).skip(1) {
            if let Some(record) = record {
                children.entry(record.parent).or_default().push(id);
            }
        }
        tree.nodes.resize_with(self.records.len().max(1), || {
            let mut node = Node::new(NodeId::ROOT, 0, Box::default(), false);
            node.state = State::Free;
            node
        });
        let closes = |tree: &Tree, id: NodeId| id != NodeId::ROOT && closed(&tree.node(id).name, &|| tree.path(id));
        let mut open = vec![NodeId::ROOT];
        while let Some(id) = open.pop() {
            let record = self.records.get_mut(id.index()).and_then(Option::take);
            let Some(Stored { stamp, trusted, restored, .. }) = record.filter(|_| !closes(&tree, id)) else {
                planted.unread.push(id);
                continue;
            };
            let depth = tree.node(id).depth + 1;
            let mut stored = children.remove(&id).unwrap_or_default();
            let name = |at: &NodeId| self.records[at.index()].as_ref().map_or(&b""[..], |record| &*record.name);
            stored.sort_by(|a, b| name(a).cmp(name(b)));
            let mut kids = Vec::with_capacity(restored.dirs.len());
            for dir in &restored.dirs {
                let known = stored.binary_search_by(|at| name(at).cmp(dir)).ok().map(|at| stored[at]);
                let node = Node::new(id, depth, dir.clone(), false);
                let child = match known {
                    Some(child) => {
                        *tree.node_mut(child) = node;
                        child
                    }
                    None => {
                        // The free numbers are known only at the end.
                        tree.nodes.push(node);
                        NodeId(tree.nodes.len() as u32 - 1)
                    }
                };
                tree.pending += 1;
                kids.push(child);
            }
            let waiting = kids.len() as u32;
            open.extend_from_slice(&kids);
            tree.pending -= 1;
            let asks_links = restored.asks_links;
            let files = restored.files;
            let node = tree.node_mut(id);
            (node.state, node.stamp, node.trusted) = (State::Read, stamp, trusted);
            node.any_file = files.any;
            node.files = (!files.present.is_empty() || !files.detailed.is_empty()).then(|| Box::new(files));
            (node.children, node.waiting) = (kids.into(), waiting);
            if asks_links {
                // What they lead to is not stored, since it may change while the directory does not.
                planted.unread.push(id);
            } else {
                tree.queue(id);
            }
        }
        planted.stray =
            (0..).map(NodeId).zip(&self.records).filter(|(_, record)| record.is_some()).map(|(id, _)| id).collect();
        tree.free = (0..)
            .map(NodeId)
            .zip(&tree.nodes)
            .filter(|(_, node)| node.state == State::Free)
            .map(|(id, _)| id)
            .collect();
        (tree, planted)
    }
}
