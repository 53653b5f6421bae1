//! What all matches are called, kept from view to view.
//!
//! While the first scan runs names are a function of the set of matches alone, whatever the order of discovery
//! ([`super::name::assign`]). Once it is complete a match keeps its name for as long as it lives: a newcomer that wants
//! a name in use gets one with a hash, also if it sorts before the other.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::Edit;
use super::matches::candidate;
use super::name::{Candidate, assign, distinct_name};
use crate::automaton::{Automaton, PatternId};
use crate::config::NamedSource;
use crate::entry::RelPath;
use crate::tree::MatchChange;
use crate::walk::Found;

/// A path below a pattern's folder.
type Place = Vec<Box<[u8]>>;
/// A match, by pattern, source and path.
type Key = (PatternId, usize, RelPath);

/// A match with its place in the view.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// What was found.
    pub found: Found,
    /// The path below the pattern's folder, in components; empty while it has no name yet.
    pub view: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    Match,
    /// A level that so many matches are below.
    Level(u32),
}

/// All matches with their names.
#[derive(Debug)]
pub struct Catalog {
    matches: BTreeMap<Key, Named>,
    /// For each pattern, what its paths are taken by.
    taken: Vec<FxHashMap<Place, Taken>>,
    pending: Vec<(usize, MatchChange)>,
    /// Names stay as they are.
    settled: bool,
}

impl Catalog {
    /// No matches yet.
    pub fn new(automaton: &Automaton) -> Self {
        let taken = vec![FxHashMap::default(); automaton.tops.len()];
        Self { matches: BTreeMap::new(), taken, pending: Vec::new(), settled: false }
    }

    /// Notes changes for the next [`Catalog::publish`]; `source` is the source's place.
    pub fn note(&mut self, source: usize, changes: impl IntoIterator<Item = MatchChange>) {
        self.pending.extend(changes.into_iter().map(|change| (source, change)));
    }

    /// True if there is something to be published.
    pub fn is_stale(&self) -> bool {
        !self.pending.is_empty()
    }

    /// From now on matches keep their names.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Takes in a match with the name that it had in an earlier life of the mount; false if that is in use.
    pub fn restore(
        &mut self,
        edit: &mut Edit<'_>,
        automaton: &Automaton,
        sources: &[NamedSource],
        source: usize,
        named: Named,
    ) -> bool {
        let key = (named.found.pattern, source, named.found.path.clone());
        if self.matches.contains_key(&key) {
            // An index that says a thing twice.
            return false;
        }
        let taken = &self.taken[named.found.pattern.index()];
        let levels = || (1..named.view.len()).map(|depth| &named.view[..depth]);
        let free = !named.view.is_empty()
            && !taken.contains_key(&named.view)
            && levels().all(|level| taken.get(level) != Some(&Taken::Match));
        if free {
            self.add(edit, automaton, sources, source, named.found, named.view);
        } else {
            self.pending.push((source, MatchChange::Set(named.found)));
        }
        free
    }

    /// All matches, by pattern, source and path.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Named)> {
        self.matches.iter().map(|((_, source, _), named)| (*source, named))
    }

    /// The matches of one source, as they are known.
    pub fn of_source(&self, source: usize) -> impl Iterator<Item = (PatternId, &RelPath)> {
        self.matches.keys().filter(move |(_, of, _)| *of == source).map(|(pattern, _, path)| (*pattern, path))
    }

    /// Puts what was noted into a view.
    pub fn publish(&mut self, edit: &mut Edit<'_>, automaton: &Automaton, sources: &[NamedSource]) {
        // What came and went in between makes no difference.
        let mut last: BTreeMap<Key, Option<Found>> = BTreeMap::new();
        for (source, change) in std::mem::take(&mut self.pending) {
            match change {
                MatchChange::Set(found) => last.insert((found.pattern, source, found.path.clone()), Some(found)),
                MatchChange::Gone(pattern, path) => last.insert((pattern, source, path), None),
            };
        }
        if !self.settled {
            return self.publish_all(edit, automaton, sources, last);
        }
        let mut new: Vec<(usize, Found)> = Vec::new();
        for ((pattern, source, path), found) in last {
            let key = (pattern, source, path);
            let old = self.matches.get(&key);
            match (old, found) {
                (Some(old), Some(found)) if old.found == found => {}
                (Some(old), Some(found)) => {
                    let wanted = |found| candidate(automaton, &sources[source], found).wanted;
                    let stays = wanted(&old.found) == wanted(&found);
                    let view = old.view.clone();
                    self.drop_match(edit, automaton, sources, &key);
                    if stays {
                        self.add(edit, automaton, sources, source, found, view);
                    } else {
                        new.push((source, found));
                    }
                }
                (Some(_), None) => self.drop_match(edit, automaton, sources, &key),
                (None, Some(found)) => new.push((source, found)),
                (None, None) => {}
            }
        }
        // In an order of their own, not in that of discovery.
        let order =
            |(source, found): &(usize, Found)| (found.pattern, sources[*source].name.clone(), found.path.clone());
        new.sort_by_cached_key(order);
        for (source, found) in new {
            let candidate = candidate(automaton, &sources[source], &found);
            let view = free_place(&self.taken[found.pattern.index()], &candidate);
            self.add(edit, automaton, sources, source, found, view);
        }
    }

    /// Names everything anew.
    fn publish_all(
        &mut self,
        edit: &mut Edit<'_>,
        automaton: &Automaton,
        sources: &[NamedSource],
        changes: BTreeMap<Key, Option<Found>>,
    ) {
        for (key, found) in changes {
            match found {
                Some(found) => {
                    let same = self.matches.get(&key).is_some_and(|old| old.found == found);
                    if !same {
                        self.drop_match(edit, automaton, sources, &key);
                        self.matches.insert(key, Named { found, view: Vec::new() });
                    }
                }
                None => self.drop_match(edit, automaton, sources, &key),
            }
        }
        let mut moved: Vec<(Key, Place)> = Vec::new();
        for pattern in (0..automaton.tops.len() as u32).map(PatternId) {
            let first = (pattern, 0, RelPath::root());
            let of_pattern = self.matches.range(first..).take_while(|((id, ..), _)| *id == pattern);
            let mut of_pattern: Vec<(&Key, &Named)> = of_pattern.collect();
            // By the source's name, not by its place on the command line.
            of_pattern.sort_by(|(a, _), (b, _)| (&sources[a.1].name, &a.2).cmp(&(&sources[b.1].name, &b.2)));
            let candidates: Vec<Candidate<'_>> =
                of_pattern.iter().map(|(key, named)| candidate(automaton, &sources[key.1], &named.found)).collect();
            for ((key, named), place) in of_pattern.into_iter().zip(assign(&candidates)) {
                if named.view != place {
                    moved.push((key.clone(), place));
                }
            }
        }
        let found: Vec<Found> = moved
            .iter()
            .map(|(key, _)| {
                let found = self.matches[key].found.clone();
                self.drop_match(edit, automaton, sources, key);
                found
            })
            .collect();
        for ((key, place), found) in moved.into_iter().zip(found) {
            self.add(edit, automaton, sources, key.1, found, place);
        }
    }

    fn add(
        &mut self,
        edit: &mut Edit<'_>,
        automaton: &Automaton,
        sources: &[NamedSource],
        source: usize,
        found: Found,
        view: Place,
    ) {
        let taken = &mut self.taken[found.pattern.index()];
        for depth in 1..view.len() {
            if let Taken::Level(count) = taken.entry(view[..depth].to_vec()).or_insert(Taken::Level(0)) {
                *count += 1;
            }
        }
        taken.insert(view.clone(), Taken::Match);
        edit.insert(automaton.top(found.pattern).name.as_bytes(), &sources[source].name, source, &found, view.clone());
        self.matches.insert((found.pattern, source, found.path.clone()), Named { found, view });
    }

    fn drop_match(&mut self, edit: &mut Edit<'_>, automaton: &Automaton, sources: &[NamedSource], key: &Key) {
        let Some(Named { found, view }) = self.matches.remove(key) else { return };
        if view.is_empty() {
            return;
        }
        let taken = &mut self.taken[key.0.index()];
        taken.remove(&view);
        for depth in 1..view.len() {
            if let Some(Taken::Level(count)) = taken.get_mut(&view[..depth]) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&view[..depth]);
                }
            }
        }
        edit.remove(automaton.top(key.0).name.as_bytes(), &sources[key.1].name, &found);
    }
}

/// Where a newcomer appears: where it wants, or beside what is there.
fn free_place(taken: &FxHashMap<Place, Taken>, candidate: &Candidate<'_>) -> Place {
    let Some((name, levels)) = candidate.wanted.split_last() else { return Vec::new() };
    let mut place: Place = Vec::with_capacity(candidate.wanted.len());
    for level in levels {
        place.push(level.clone());
        if taken.get(&place) == Some(&Taken::Match) {
            // A match has the name: all that want it for a level get the same other one.
            place.pop();
            let above = place.join(&b'/');
            let other = distinct_name(level, &[&above, level], |name| {
                taken.get(&[&place[..], &[name.into()]].concat()) != Some(&Taken::Match)
            });
            place.push(other.unwrap_or_else(|| level.clone()));
        }
    }
    place.push(name.clone());
    if taken.contains_key(&place) {
        place.pop();
        let free = |name: &[u8]| !taken.contains_key(&[&place[..], &[name.into()]].concat());
        // The same hash as in a scan, so that most names are the same after a new one.
        let other = distinct_name(name, &[candidate.source, candidate.path, &[]], free);
        place.push(other.unwrap_or_else(|| name.clone()));
    }
    place
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matcher::mapping::Mapping;
    use crate::pattern::compile::compile;
    use crate::pattern::load::{Format, load_text};
    use crate::source::local::LocalSource;
    use crate::view::View;
    use crate::view::inode::Inodes;

    struct Bed {
        automaton: Automaton,
        sources: Vec<NamedSource>,
        inodes: Inodes,
        view: View,
        catalog: Catalog,
    }

    impl Bed {
        fn new(layout: &str) -> Self {
            let text = format!(r#"{{"name": "p", "files": ["x"], "layout": "{layout}"}}"#);
            let patterns = load_text(text.as_bytes(), Format::Json, "test", "p").expect("a pattern");
            let automaton = compile(&patterns).expect("it compiles");
            let mut inodes = Inodes::default();
            let view = View::of_patterns(&automaton, &mut inodes);
            let source = NamedSource {
                name: b"s".as_slice().into(),
                root_name: b"s".as_slice().into(),
                root: "/s".into(),
                source: Arc::new(LocalSource::new("/s")),
            };
            let catalog = Catalog::new(&automaton);
            Self { automaton, sources: vec![source], inodes, view, catalog }
        }

        /// Publishes `+path` and `-path`, and says where matches are.
        fn publish(&mut self, changes: &[&str]) -> Vec<String> {
            let pattern = PatternId(0);
            for change in changes {
                let path = RelPath::from_bytes(change.as_bytes()[1..].to_vec());
                let found = Found { pattern, path: path.clone(), captures: Mapping::default(), missing: Vec::new() };
                let gone = MatchChange::Gone(pattern, path);
                self.catalog.note(0, [if change.starts_with('+') { MatchChange::Set(found) } else { gone }]);
            }
            let mut edit = Edit::new(&self.view, &mut self.inodes);
            self.catalog.publish(&mut edit, &self.automaton, &self.sources);
            self.view = edit.finish().0;
            let mut shown: Vec<String> = self
                .view
                .sorted()
                .iter()
                .map(|place| {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    format!("{} {}", text(place.found.path.as_bytes()), text(&place.view.join(&b'/')))
                })
                .collect();
            shown.iter_mut().for_each(|line| {
                if let Some(at) = line.find('~') {
                    line.replace_range(at + 1..at + 7, "H");
                }
            });
            shown
        }
    }

    #[test]
    fn a_match_keeps_its_name_once_the_scan_is_complete() {
        let mut bed = Bed::new("<.name>");
        assert_eq!(bed.publish(&["+b/run"]), ["b/run run"]);
        assert_eq!(bed.publish(&["+a/run"]), ["a/run run", "b/run run~H"], "still the function of the set");
        bed.catalog.settle();
        assert_eq!(bed.publish(&["-a/run"]), ["b/run run~H"]);
        assert_eq!(bed.publish(&["+c/run"]), ["b/run run~H", "c/run run"]);
        assert_eq!(bed.publish(&["+a/run"]), ["a/run run~H", "b/run run~H", "c/run run"]);
        assert_eq!(bed.publish(&["-c/run", "-b/run", "+c/run"]), ["a/run run~H", "c/run run"]);
        assert_eq!(bed.publish(&["-a/run", "-c/run"]), [""; 0]);
        assert_eq!(bed.view.folders.len(), 2);
    }

    #[test]
    fn levels_come_and_go_with_what_is_below() {
        let mut bed = Bed::new("<.path>");
        bed.catalog.settle();
        assert_eq!(bed.publish(&["+a/b/c", "+a/d"]), ["a/b/c a/b/c", "a/d a/d"]);
        assert_eq!(bed.view.folders.len(), 4);
        assert_eq!(bed.publish(&["+a"]), ["a a~H", "a/b/c a/b/c", "a/d a/d"], "a level has the name");
        assert_eq!(bed.publish(&["-a/b/c", "-a/d"]), ["a a~H"]);
        assert_eq!(bed.view.folders.len(), 2);
        assert_eq!(bed.publish(&["-a", "+x"]), ["x x"]);
        assert_eq!(bed.publish(&["+x/y", "+x/z"]), ["x x", "x/y x~H/y", "x/z x~H/z"], "a match has the level's name");
        assert_eq!(bed.publish(&["-x", "-x/y", "-x/z"]), [""; 0]);
        assert_eq!(bed.view.folders.len(), 2);
    }
}
