//! Why a directory matches a pattern or does not: each clause with what met it or what came nearest, and the shortest
//! list of changes that would make it match.
//!
//! The core is pure: an [`outline`] of what was read × a pattern → an [`Explanation`]. [`load`] reads the outline
//! through [`crate::source::Source`]. Whether a clause is met is the matcher's own answer for what the clause was compiled to, so that the
//! two cannot disagree; what is added here is who met it, and what came near.

use crate::automaton::Automaton;
use crate::pattern::compile::{Places, compile_placed};
use crate::pattern::{Pattern, PatternError};

pub mod clauses;
pub mod cure;
pub mod json;
pub mod load;
pub mod names;
pub mod near;
pub mod nearest;
pub mod outline;
pub mod text;

pub use clauses::{Clause, Explanation, Met};

/// A pattern to explain with.
#[derive(Debug)]
pub struct Question {
    /// As it was written.
    pub pattern: Pattern,
    /// Compiled, alone.
    pub automaton: Automaton,
    /// What became of its clauses.
    pub places: Places,
}

impl Question {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Those of [`crate::pattern::compile::compile`].
    pub fn new(pattern: &Pattern) -> Result<Self, Vec<PatternError>> {
        let (automaton, places) = compile_placed(pattern)?;
        Ok(Self { pattern: pattern.clone(), automaton, places })
    }
}
