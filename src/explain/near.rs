//! What comes near a glob: the same name in other case, a few characters away, of another kind, or on another level. Pure.

use serde::Serialize;

use super::outline::{Dir, Entry};
use crate::pattern::capture::{Chars, Spans};
use crate::pattern::glob::{Capture, Glob, Token, one_holds};

/// Something that is nearly what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Where it is, below the directory that is asked for it; `../name` one level up.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub why: Why,
}

/// Why something is not what is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its content is not as asked.
    Content,
    /// It is a link that leads nowhere.
    Dangling,
    /// A directory where a file is asked, a file where a directory is, or a FIFO, socket or device.
    Kind,
    /// It is in a directory of the one that it should be in.
    Deeper,
    /// It is in the directory above.
    Higher,
    /// It differs in case alone.
    Case,
    /// It is so many characters away.
    Spelling(u32),
    /// It has the right name, and does not match otherwise.
    Inside,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file.
    File,
    /// A directory.
    Dir,
}

/// The most names of one directory that are held against a glob.
const LOOKED_AT: usize = 5_000;

/// What comes nearest to `glob` in and around `dir`; nothing if it is nowhere near.
pub fn nearest(glob: &Glob, captures: &[Capture], wanted: Wanted, dir: &Dir, above: Option<&Dir>) -> Option<Near> {
    let matches = |name: &[u8]| glob.matches(name, captures);
    let fits = |entry: &&Entry| is(entry, wanted) && matches(entry.name());
    let here = |entry: &Entry, why| Near { path: entry.name().to_vec(), why };
    let named = dir.entries().iter().find(|entry| !is(entry, wanted) && matches(entry.name()));
    if let Some(entry) = named {
        let dangling = matches!(entry, Entry::File(file) if file.dangling);
        return Some(here(entry, if dangling { Why::Dangling } else { Why::Kind }));
    }
    // What any name matches is nowhere near by its name.
    if letters(&glob.tokens) == 0 {
        return None;
    }
    let folded = glob.ignoring_case();
    let entries = || dir.entries().iter().filter(|entry| is(entry, wanted)).take(LOOKED_AT);
    if let Some(entry) = entries().find(|entry| folded.matches(entry.name(), captures)) {
        return Some(here(entry, Why::Case));
    }
    for child in dir.dirs() {
        if let Some(entry) = child.entries().iter().find(fits) {
            return Some(Near { path: [&child.name, &b"/"[..], entry.name()].concat(), why: Why::Deeper });
        }
    }
    let farthest = 1 + letters(&glob.tokens) / 4;
    let by_distance = entries().filter_map(|entry| {
        let away = distance(&folded, captures, entry.name());
        (away <= farthest).then(|| (away, here(entry, Why::Spelling(away))))
    });
    let misspelt = by_distance.min_by_key(|(away, near)| (*away, near.path.clone())).map(|(_, near)| near);
    misspelt.or_else(|| {
        let entry = above?.entries().iter().find(fits)?;
        Some(Near { path: [&b"../"[..], entry.name()].concat(), why: Why::Higher })
    })
}

fn is(entry: &Entry, wanted: Wanted) -> bool {
    match entry {
        Entry::File(_) => wanted == Wanted::File,
        Entry::Dir(_) => wanted == Wanted::Dir,
        Entry::Special(_) => false,
    }
}

/// How many characters a glob says itself.
pub fn letters(tokens: &[Token]) -> u32 {
    let of = |token: &Token| match token {
        Token::Literal(_) | Token::Class { negated: false, .. } => 1,
        Token::Alternates(branches) => branches.iter().map(|branch| letters(branch)).min().unwrap_or(0),
        Token::Any | Token::Star | Token::Class { .. } | Token::Capture(_) => 0,
    };
    tokens.iter().map(of).sum()
}

/// The least number of characters to be put in, left out or changed for a name to match (Levenshtein).
pub fn distance(glob: &Glob, captures: &[Capture], name: &[u8]) -> u32 {
    let chars = Chars::of(name);
    let mut spans = Spans::new(&chars, captures);
    let start: Vec<u32> = (0..=chars.len() as u32).collect();
    advance(&glob.tokens, &mut spans, start)[chars.len()]
}

/// From the costs of having come so far to those behind `tokens`; a character too many costs one anywhere.
fn advance(tokens: &[Token], spans: &mut Spans<'_>, mut cost: Vec<u32>) -> Vec<u32> {
    for token in tokens {
        let length = spans.name.len();
        let mut next: Vec<u32> = match token {
            Token::Star => cost.clone(),
            Token::Alternates(branches) => {
                let ends = branches.iter().map(|branch| advance(branch, spans, cost.clone()));
                ends.reduce(|a, b| a.iter().zip(&b).map(|(a, b)| *a.min(b)).collect()).unwrap_or_else(|| cost.clone())
            }
            _ => cost.iter().map(|cost| cost + 1).collect(),
        };
        for from in 0..=length {
            match token {
                Token::Capture(id) => {
                    let reached = cost[from];
                    spans.ends(*id, from).iter().for_each(|to| next[to] = next[to].min(reached));
                }
                Token::Literal(_) | Token::Any | Token::Class { .. } if from < length => {
                    let other = u32::from(!one_holds(token, spans.name.code(from)));
                    next[from + 1] = next[from + 1].min(cost[from] + other);
                }
                _ => {}
            }
        }
        let step = u32::from(*token != Token::Star);
        for at in 1..=length {
            next[at] = next[at].min(next[at - 1] + step);
        }
        cost = next;
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein_through_globs() {
        let of =
            |glob: &str, name: &str| distance(&Glob::parse(glob, &[], false).expect("a glob"), &[], name.as_bytes());
        for (glob, name, away) in [
            ("config.yaml", "config.yaml", 0),
            ("config.yaml", "config.yml", 1),
            ("config.yaml", "konfig.yaml", 1),
            ("config.yaml", "Config.YAML", 5),
            ("*.csv", "data.tsv", 1),
            ("*.csv", "data", 4),
            ("a?c", "ac", 1),
            ("{data,info}.json", "inf.json", 1),
            ("x[0-9][0-9]", "x1", 1),
            ("", "abc", 3),
        ] {
            assert_eq!(of(glob, name), away, "{glob} {name}");
        }
    }
}
