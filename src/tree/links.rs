//! What depends on a place elsewhere, by symbolic links: by absolute paths.

use std::collections::BTreeMap;
use std::ops::Bound;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{Link, NodeId};

type Ids = SmallVec<[NodeId; 2]>;

/// Directories by the paths that their links depend on.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Paths on the way of a link: if one of them comes or goes, the link may lead elsewhere.
    touched: BTreeMap<Box<[u8]>, Ids>,
    /// Directories that were read behind a link.
    behind: FxHashMap<Box<[u8]>, Ids>,
    /// Directories that are walked behind a link.
    walked: FxHashMap<Box<[u8]>, Ids>,
    /// What each directory is noted under, to be forgotten.
    noted: FxHashMap<NodeId, Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    touched: Vec<Box<[u8]>>,
    behind: Vec<Box<[u8]>>,
    walked: Option<Box<[u8]>>,
}

impl Ways {
    /// Notes what the links of a directory depend on; `real` is its own path if it is walked behind a link.
    pub(super) fn note(&mut self, id: NodeId, links: &[Link], real: Option<Box<[u8]>>) {
        if links.iter().all(|link| link.touches.is_empty() && link.behind.is_empty()) && real.is_none() {
            return;
        }
        let mut noted = Noted::default();
        let add = |ids: &mut Ids| {
            if !ids.contains(&id) {
                ids.push(id);
            }
        };
        for link in links {
            for path in &link.touches {
                add(self.touched.entry(path.clone()).or_default());
                noted.touched.push(path.clone());
            }
            for path in &link.behind {
                add(self.behind.entry(path.clone()).or_default());
                noted.behind.push(path.clone());
            }
        }
        if let Some(path) = real {
            add(self.walked.entry(path.clone()).or_default());
            noted.walked = Some(path);
        }
        self.noted.insert(id, noted);
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        let Some(noted) = self.noted.remove(&id) else { return };
        for path in noted.touched {
            if let Some(ids) = self.touched.get_mut(&path) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.touched.remove(&path);
                }
            }
        }
        for (map, paths) in [(&mut self.behind, noted.behind), (&mut self.walked, noted.walked.into_iter().collect())] {
            for path in paths {
                if let Some(ids) = map.get_mut(&path) {
                    ids.retain(|known| *known != id);
                    if ids.is_empty() {
                        map.remove(&path);
                    }
                }
            }
        }
    }

    pub(super) fn depending(&self, dir: &[u8], name: Option<&[u8]>) -> Vec<NodeId> {
        let mut found: Vec<NodeId> = self.behind.get(dir).into_iter().flatten().copied().collect();
        if !self.touched.is_empty() {
            let mut path = dir.to_vec();
            if let Some(name) = name {
                if !path.ends_with(b"/") {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
            let from = (Bound::Included(path.as_slice()), Bound::Unbounded);
            let below = |known: &[u8]| known.starts_with(&path);
            for (known, ids) in self.touched.range::<[u8], _>(from).take_while(|(known, _)| below(known)) {
                // `a/bc` is not below `a/b`.
                if known.len() == path.len() || path.ends_with(b"/") || known[path.len()] == b'/' {
                    found.extend(ids);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The walked directories that `path` is, or is below, each with the rest of the path.
    pub(super) fn walked<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (NodeId, &'a [u8])> {
        let ends = (0..=path.len()).filter(move |end| *end == path.len() || path[*end] == b'/');
        let ends = ends.filter(|_| !self.walked.is_empty());
        ends.flat_map(move |end| {
            let rest = &path[end..];
            self.walked
                .get(&path[..end])
                .into_iter()
                .flatten()
                .map(move |id| (*id, rest.strip_prefix(b"/").unwrap_or(rest)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_depends_on_what_it_passes() {
        let mut ways = Ways::default();
        let link = |touches: &[&str], behind: &[&str]| Link {
            touches: touches.iter().map(|path| path.as_bytes().into()).collect(),
            behind: behind.iter().map(|path| path.as_bytes().into()).collect(),
            ..Link::default()
        };
        ways.note(NodeId(1), &[link(&["/s/a/b"], &[])], None);
        ways.note(NodeId(2), &[link(&["/s/a-b/c"], &["/t/d"])], None);
        ways.note(NodeId(3), &[link(&["/s/a/b/c"], &[])], None);
        ways.note(NodeId(4), &[], Some(b"/w/x".as_slice().into()));
        assert_eq!(ways.depending(b"/s/a", Some(b"b")), [NodeId(1), NodeId(3)]);
        assert_eq!(ways.depending(b"/s", Some(b"a")), [NodeId(1), NodeId(3)]);
        assert_eq!(ways.depending(b"/s", Some(b"a-b")), [NodeId(2)]);
        assert_eq!(ways.depending(b"/s", None), [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(ways.depending(b"/t/d", Some(b"any")), [NodeId(2)]);
        assert_eq!(ways.depending(b"/t", Some(b"other")), []);
        assert_eq!(ways.walked(b"/w/x/y/z").collect::<Vec<_>>(), [(NodeId(4), b"y/z".as_slice())]);
        assert_eq!(ways.walked(b"/w/xy").count(), 0);
        (1..=4).map(NodeId).for_each(|id| ways.forget(id));
        assert!(ways.touched.is_empty() && ways.behind.is_empty() && ways.walked.is_empty());
        assert_eq!(ways.depending(b"/s", None), []);
    }
}
