//! Changes on their way to the sink: each once, in the order in which they were first told, and not too many.

use std::collections::HashMap;

use super::{Change, Facts};

/// More different changes than these are told as [`Change::Lost`]: to look at everything is less work.
pub(super) const MOST: usize = 64 << 10;

/// What is gathered until it is handed on.
#[derive(Debug, Default)]
pub(super) struct Batch {
    // With the standard library's hasher: names come from strangers, who could make a faster one slow.
    places: HashMap<Change, usize>,
    root: bool,
    lost: bool,
}

impl Batch {
    /// One more change.
    pub(super) fn push(&mut self, change: Change) {
        match change {
            Change::Root => self.root = true,
            Change::Lost => self.lose(),
            _ if self.lost => {}
            _ => {
                let place = self.places.len();
                self.places.entry(change).or_insert(place);
                if self.places.len() > MOST {
                    self.lose();
                }
            }
        }
    }

    /// What an event says of `name` in `dir`, or of `dir` itself.
    pub(super) fn tell(&mut self, facts: Facts, dir: &[u8], name: Option<&[u8]>) {
        let Facts { entry, attributes, content, is_dir } = facts;
        if entry {
            self.push(Change::Entry { dir: dir.into(), name: name.map(Into::into), is_dir });
        }
        if attributes {
            self.push(Change::Attributes { dir: dir.into(), name: name.map(Into::into), is_dir });
        }
        if let (true, Some(name)) = (content, name) {
            self.push(Change::Content { dir: dir.into(), name: name.into() });
        }
    }

    /// Something was lost: what else is known no longer matters.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.places.clear();
    }

    /// What was gathered; the batch is empty again.
    pub(super) fn take(&mut self) -> Vec<Change> {
        let Self { places, root, lost } = std::mem::take(self);
        let mut changes: Vec<(usize, Change)> = places.into_iter().map(|(change, place)| (place, change)).collect();
        changes.sort_unstable_by_key(|(place, _)| *place);
        let ahead =
            [(root, Change::Root), (lost, Change::Lost)].into_iter().filter_map(|(is, change)| is.then_some(change));
        ahead.chain(changes.into_iter().map(|(_, change)| change)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Change {
        Change::Entry { dir: b"/r".as_slice().into(), name: Some(name.as_bytes().into()), is_dir: false }
    }

    #[test]
    fn each_change_is_told_once_in_the_order_of_the_first() {
        let mut batch = Batch::default();
        for name in ["b", "a", "b", "c", "a"] {
            batch.push(entry(name));
        }
        batch.push(Change::Root);
        assert_eq!(batch.take(), [Change::Root, entry("b"), entry("a"), entry("c")]);
        assert!(batch.take().is_empty());
    }

    #[test]
    fn one_event_says_several_things() {
        let mut batch = Batch::default();
        let facts = Facts { entry: true, attributes: true, content: true, is_dir: false };
        batch.tell(facts, b"/r", Some(b"x"));
        batch.tell(Facts { is_dir: true, attributes: true, ..Facts::default() }, b"/r", None);
        batch.tell(Facts { content: true, ..Facts::default() }, b"/r", None);
        let (dir, name): (Box<[u8]>, Box<[u8]>) = (b"/r".as_slice().into(), b"x".as_slice().into());
        let expected = [
            Change::Entry { dir: dir.clone(), name: Some(name.clone()), is_dir: false },
            Change::Attributes { dir: dir.clone(), name: Some(name.clone()), is_dir: false },
            Change::Content { dir: dir.clone(), name },
            Change::Attributes { dir, name: None, is_dir: true },
        ];
        assert_eq!(batch.take(), expected);
    }

    #[test]
    fn too_many_changes_are_told_as_lost() {
        let mut batch = Batch::default();
        for at in 0..MOST {
            batch.push(entry(&at.to_string()));
        }
        batch.push(entry("0"));
        assert_eq!(batch.take().len(), MOST);
        for at in 0..=MOST {
            batch.push(entry(&at.to_string()));
        }
        batch.push(entry("more"));
        batch.push(Change::Root);
        assert_eq!(batch.take(), [Change::Root, Change::Lost]);
        batch.push(entry("next"));
        assert_eq!(batch.take(), [entry("next")]);
    }
}
