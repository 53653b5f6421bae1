//! The set of matches and where each appears, a function of the set alone.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::layout::Subject;
use super::name::{Candidate, assign};
use crate::automaton::{Automaton, PatternId};
use crate::config::NamedSource;
use crate::entry::{RelPath, printable};
use crate::walk::Found;

/// All matches, in the order of pattern, source and path.
#[derive(Clone, Debug, Default)]
pub struct MatchSet(BTreeMap<(PatternId, usize, RelPath), Found>);

/// A match's source, by its place, the match, and its path below the pattern's folder.
pub type Named<'a> = (usize, &'a Found, Vec<Box<[u8]>>);

impl MatchSet {
    /// Adds a match; `source` is its source's place.
    pub fn insert(&mut self, source: usize, found: Found) {
        self.0.insert((found.pattern, source, found.path.clone()), found);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All matches as the view shows them.
    pub fn named<'a>(&'a self, automaton: &Automaton, sources: &[NamedSource]) -> Vec<Named<'a>> {
        let mut named = Vec::with_capacity(self.0.len());
        for pattern in (0..automaton.tops.len() as u32).map(PatternId) {
            let first = (pattern, 0, RelPath::root());
            let mut of_pattern: Vec<(usize, &Found)> = self
                .0
                .range(first..)
                .take_while(|((id, ..), _)| *id == pattern)
                .map(|((_, source, _), found)| (*source, found))
                .collect();
            // By the source's name, not by its place on the command line.
            of_pattern.sort_by(|(a, x), (b, y)| (&sources[*a].name, &x.path).cmp(&(&sources[*b].name, &y.path)));
            let candidates: Vec<Candidate<'_>> =
                of_pattern.iter().map(|(source, found)| candidate(automaton, &sources[*source], found)).collect();
            let places = assign(&candidates);
            named.extend(of_pattern.iter().zip(places).map(|((source, found), place)| (*source, *found, place)));
        }
        named
    }
}

/// A match as far as its name depends on it.
pub fn candidate<'a>(automaton: &Automaton, source: &'a NamedSource, found: &'a Found) -> Candidate<'a> {
    let name = match found.path.name() {
        Some(name) => name,
        None if source.root_name.is_empty() => &source.name,
        None => &source.root_name,
    };
    let path = found.path.as_bytes();
    let above = path.len().checked_sub(name.len() + 1).map(|end| &path[..end]);
    let parent = match above {
        Some(above) => above.rsplit(|byte| *byte == b'/').next().unwrap_or_default(),
        None if found.path.is_root() => b"",
        None => &source.root_name,
    };
    let subject = Subject { name, parent, path, source: &source.name, captures: &found.captures };
    let wanted = match &automaton.top(found.pattern).layout {
        Some(layout) => layout.place(&subject),
        None => vec![name.into()],
    };
    Candidate { source: &source.name, path, wanted }
}

/// A match as an object of the NDJSON that `scan --json` and `.veinfs/matches.ndjson` hold.
pub fn ndjson(automaton: &Automaton, source: &NamedSource, found: &Found, place: &[Box<[u8]>]) -> Value {
    let top = automaton.top(found.pattern);
    let view = [top.name.as_bytes(), b"/", &place.join(&b'/')].concat();
    let mut object = Map::new();
    object.insert("pattern".into(), json!(top.name));
    object.insert("source".into(), json!(printable(&source.name)));
    bytes(&mut object, "path", &source.path_of(&found.path));
    bytes(&mut object, "relpath", found.path.as_bytes());
    bytes(&mut object, "view", &view);
    object.insert("captures".into(), captures(automaton, found));
    object.insert("missing".into(), json!(found.missing));
    Value::Object(object)
}

/// The captured values of a match; unset ones are `null`.
pub fn captures(automaton: &Automaton, found: &Found) -> Value {
    let values = automaton.top(found.pattern).captures.iter().map(|id| {
        let value = found.captures.get(*id).map(|value| printable(value).into_owned());
        (automaton.capture_name(*id).to_owned(), json!(value))
    });
    Value::Object(values.collect())
}

/// Text, and besides it the exact bytes in base64 where they are no UTF-8.
pub(crate) fn bytes(object: &mut Map<String, Value>, key: &str, value: &[u8]) {
    object.insert(key.into(), json!(printable(value)));
    if std::str::from_utf8(value).is_err() {
        object.insert(format!("{key}_bytes"), json!(STANDARD.encode(value)));
    }
}
