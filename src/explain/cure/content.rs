//! Content that passes tests: the least that does. Pure.

use super::super::outline::File;
use crate::automaton::{Automaton, Test};
use crate::pattern::SizeOp;

/// The farthest from its start that something is put in a file, in bytes.
const FARTHEST: usize = 1 << 20;

/// The content of a file to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// What it begins with.
    pub bytes: Vec<u8>,
    /// Its whole size in bytes; zeros behind what it begins with.
    pub size: u64,
    /// The tests that it is made to pass.
    pub tests: Vec<Test>,
    /// How it does in all tests.
    results: Vec<(Test, Option<bool>)>,
}

impl Made {
    /// Content that passes `tests`; `None` if there is none, or none was found.
    pub fn new(automaton: &Automaton, tests: &[Test]) -> Option<Made> {
        let mut bytes = Vec::new();
        let magics = tests.iter().filter_map(|test| if let Test::Magic(magic) = test { Some(magic) } else { None });
        for magic in magics {
            let from = usize::try_from(magic.offset).ok().filter(|from| *from <= FARTHEST)?;
            if bytes.len() < from + magic.bytes.len() {
                bytes.resize(from + magic.bytes.len(), 0);
            }
            bytes[from..from + magic.bytes.len()].copy_from_slice(&magic.bytes);
        }
        let texts = tests.iter().filter_map(|test| if let Test::Contains(text) = test { Some(text) } else { None });
        for text in texts {
            if memchr::memmem::find(&bytes, text).is_none() {
                bytes.extend_from_slice(text);
            }
        }
        let mut size = bytes.len() as u64;
        for test in tests {
            let Test::Size(bound) = test else { continue };
            size = match bound.op {
                SizeOp::AtLeast | SizeOp::Equal => size.max(bound.bytes),
                SizeOp::Greater => size.max(bound.bytes.checked_add(1)?),
                SizeOp::Less | SizeOp::AtMost => size,
            };
        }
        let mut made = Made { bytes, size, tests: tests.to_vec(), results: Vec::new() };
        made.results = automaton.tests.iter().map(|test| (test.clone(), Some(made.passes(test)))).collect();
        tests.iter().all(|test| made.passes(test)).then_some(made)
    }

    /// Whether it passes a test.
    pub fn passes(&self, test: &Test) -> bool {
        match test {
            Test::Size(bound) => bound.holds(self.size),
            Test::Contains(text) => memchr::memmem::find(&self.bytes, text).is_some(),
            Test::Magic(magic) => {
                let byte = |at: u64| {
                    let known = usize::try_from(at).ok().and_then(|at| self.bytes.get(at));
                    known.copied().or((at < self.size).then_some(0))
                };
                magic.bytes.iter().zip(magic.offset..).all(|(wanted, at)| byte(at) == Some(*wanted))
            }
        }
    }

    /// The file of this content.
    pub fn file(&self, name: &[u8]) -> File {
        File { size: Some(self.size), tests: self.results.clone(), ..File::named(name) }
    }
}
