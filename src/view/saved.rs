//! Matches and their names as an index keeps them, one blob a pattern. Pure: values in, values out.
//!
//! ```text
//! saved   = u8 version (1)  match*
//! match   = varint(source's place)
//!           bytes(path below the source)
//!           varint(components)  bytes(component)*          path below the pattern's folder
//!           (u8 set (0 or 1)  [bytes(value)])*             one for each capture of the pattern, in its order
//!           varint(parts)  bytes(label)*                   recommended parts that are missing
//! bytes   = varint(length)  byte[length]
//! varint  = LEB128, unsigned, at most 5 bytes
//! ```

use crate::automaton::{Automaton, PatternId};
use crate::entry::{RelPath, valid_name};
use crate::matcher::mapping::Mapping;
use crate::view::catalog::Named;
use crate::walk::Found;

/// The version of the format.
const VERSION: u8 = 1;

/// Saved matches that cannot be such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved matches are damaged")]
pub struct BadMatches;

fn put(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The matches of one pattern, each with its source's place.
pub fn encode<'a>(
    automaton: &Automaton,
    pattern: PatternId,
    matches: impl Iterator<Item = (usize, &'a Named)>,
) -> Vec<u8> {
    let mut out = vec![VERSION];
    for (source, Named { found, view }) in matches {
        put(&mut out, source);
        put_bytes(&mut out, found.path.as_bytes());
        put(&mut out, view.len());
        view.iter().for_each(|name| put_bytes(&mut out, name));
        for id in &automaton.top(pattern).captures {
            match found.captures.get(*id) {
                Some(value) => {
                    out.push(1);
                    put_bytes(&mut out, value);
                }
                None => out.push(0),
            }
        }
        put(&mut out, found.missing.len());
        found.missing.iter().for_each(|label| put_bytes(&mut out, label.as_bytes()));
    }
    out
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, BadMatches> {
        let (first, rest) = self.0.split_first().ok_or(BadMatches)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<usize, BadMatches> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| BadMatches);
            }
        }
        Err(BadMatches)
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadMatches> {
        let length = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BadMatches)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn name(&mut self) -> Result<Box<[u8]>, BadMatches> {
        self.bytes().and_then(|name| if valid_name(name) { Ok(name.into()) } else { Err(BadMatches) })
    }
}

/// The matches of one pattern, each with its source's place below `sources`.
///
/// # Errors
/// If they are damaged.
pub fn decode(
    automaton: &Automaton,
    pattern: PatternId,
    sources: usize,
    saved: &[u8],
) -> Result<Vec<(usize, Named)>, BadMatches> {
    let mut reader = Reader(saved);
    if reader.byte()? != VERSION {
        return Err(BadMatches);
    }
    let mut matches = Vec::new();
    while !reader.0.is_empty() {
        let source = reader.number()?;
        let path = reader.bytes()?;
        let good = path.is_empty() || path.split(|byte| *byte == b'/').all(valid_name);
        let components = reader.number()?;
        if source >= sources || !good || components == 0 || components > super::layout::MAX_LEVELS + 1 {
            return Err(BadMatches);
        }
        let view = (0..components).map(|_| reader.name()).collect::<Result<_, _>>()?;
        let mut captures = Mapping::default();
        for id in &automaton.top(pattern).captures {
            match reader.byte()? {
                0 => {}
                1 => captures = captures.with(*id, reader.bytes()?),
                _ => return Err(BadMatches),
            }
        }
        let mut missing = Vec::new();
        for _ in 0..reader.number()? {
            missing.push(String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| BadMatches)?);
        }
        let found = Found { pattern, path: RelPath::from_bytes(path), captures, missing };
        matches.push((source, Named { found, view }));
    }
    Ok(matches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::compile::compile;
    use crate::pattern::load::{Format, load_text};

    fn automaton() -> Automaton {
        let text = r#"{"name": "p", "captures": {"a": "[0-9]+", "b": ".*"}, "files": ["<a>-<b>"]}"#;
        compile(&load_text(text.as_bytes(), Format::Json, "test", "p").expect("a pattern")).expect("it compiles")
    }

    fn name() -> impl Strategy<Value = Box<[u8]>> {
        prop::collection::vec(any::<u8>(), 1..9).prop_filter("a name", |name| valid_name(name)).prop_map(Into::into)
    }

    proptest! {
        #[test]
        fn what_is_saved_comes_back(all in prop::collection::vec((0..3usize, prop::collection::vec(name(), 0..4),
            prop::collection::vec(name(), 1..4), prop::option::of(".*"), prop::collection::vec(".*", 0..3)), 0..9)) {
            let automaton = automaton();
            let pattern = PatternId(0);
            let ids = &automaton.top(pattern).captures;
            let matches: Vec<(usize, Named)> = all.into_iter().map(|(source, path, view, value, missing)| {
                let captures = value.map_or(Mapping::default(), |value| Mapping::default().with(ids[1], value.as_bytes()));
                let path = RelPath::from_bytes(path.join(&b'/'));
                (source, Named { found: Found { pattern, path, captures, missing }, view })
            }).collect();
            let saved = encode(&automaton, pattern, matches.iter().map(|(source, named)| (*source, named)));
            prop_assert_eq!(decode(&automaton, pattern, 3, &saved), Ok(matches));
        }

        #[test]
        fn any_bytes_are_matches_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode(&automaton(), PatternId(0), 3, &bytes);
        }
    }
}
