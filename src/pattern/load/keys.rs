//! Which object of a pattern file may have which keys.

use super::super::key;
use super::node::Node;

/// Keys of every directory's description, also of an alternative.
const BODY_KEYS: &[&str] = &[
    "directory_name",
    "files",
    "directories",
    "optional_files",
    "optional_directories",
    "recommended_files",
    "recommended_directories",
    "forbidden_files",
    "forbidden_directories",
    "any_of",
];

/// Keys of a pattern or subpattern, but not of an alternative.
const SUBPATTERN_KEYS: &[&str] = &["captures", "opaque", "case_insensitive", "forbidden_names", "forbidden_ancestors"];

/// Keys that are ignored below a pattern.
const DOCUMENTING_KEYS: &[&str] = &["name", "description"];

/// Keys of a pattern alone.
const PATTERN_KEYS: &[&str] = &["prune", "layout"];

const FILE_TEST_KEYS: &[&str] = &["glob", "min", "max", "case_insensitive", "size", "magic", "contains"];

const MAGIC_KEYS: &[&str] = &["offset", "bytes"];

/// What an object describes, and so which keys it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Pattern,
    Subpattern,
    Alternative,
    FileTest,
    Magic,
}

impl Scope {
    /// What it is, for messages.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Pattern => "a pattern",
            Self::Subpattern => "a subpattern",
            Self::Alternative => "an alternative of `any_of`",
            Self::FileTest => "a file clause",
            Self::Magic => "`magic`",
        }
    }

    /// The keys it may have.
    pub(super) fn keys(self) -> impl Iterator<Item = &'static str> {
        let groups: &[&[&'static str]] = match self {
            Self::Pattern => &[BODY_KEYS, SUBPATTERN_KEYS, DOCUMENTING_KEYS, PATTERN_KEYS],
            Self::Subpattern => &[BODY_KEYS, SUBPATTERN_KEYS, DOCUMENTING_KEYS],
            Self::Alternative => &[BODY_KEYS, DOCUMENTING_KEYS],
            Self::FileTest => &[FILE_TEST_KEYS],
            Self::Magic => &[MAGIC_KEYS],
        };
        groups.iter().copied().flatten().copied()
    }

    /// Where a key belongs that is none of this scope.
    pub(super) fn belongs(self, key: &str) -> Option<&'static str> {
        if key == "patterns" {
            Some("a list `patterns` stands alone at the top of a file")
        } else if self == Self::Alternative && SUBPATTERN_KEYS.contains(&key) {
            Some("it belongs in the pattern or subpattern around `any_of`")
        } else if PATTERN_KEYS.contains(&key) {
            Some("it belongs at the top of the pattern")
        } else if MAGIC_KEYS.contains(&key) {
            Some("it belongs in the `magic` of a file clause")
        } else if FILE_TEST_KEYS.contains(&key) {
            Some("it belongs in a file clause: files: [{\"glob\": …}]")
        } else if BODY_KEYS.contains(&key) || SUBPATTERN_KEYS.contains(&key) || DOCUMENTING_KEYS.contains(&key) {
            Some("it belongs in a pattern or subpattern")
        } else {
            None
        }
    }
}

/// The entries of an object, each to be taken once.
pub(super) struct Fields {
    pub(super) place: String,
    pub(super) entries: Vec<(String, Node)>,
}

impl Fields {
    /// The value of `name` and its key path, unless it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<(Node, String)> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        let (_, node) = self.entries.swap_remove(index);
        (!matches!(node, Node::Null)).then(|| (node, key(&self.place, name)))
    }
}
