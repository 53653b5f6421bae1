//! What a user writes: a [`Pattern`] is the checked syntax tree of one pattern file entry.
//!
//! Loading ([`load`]) turns text into these types and rejects what has the wrong shape; compiling
//! ([`compile`]) rejects what has the wrong meaning (globs, captures, depth). Both speak through
//! [`PatternError`], which names the file, the place and the cure.

use std::collections::BTreeMap;

pub mod capture;
pub mod compile;
pub mod glob;
pub mod library;
pub mod lint;
pub mod load;

/// The deepest nesting of subpatterns; deeper ones are an error.
pub const MAX_DEPTH: usize = 64;

/// The largest pattern file in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// One pattern: a structure to find and the folder to show it as.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The folder's name in the view: one path component, unique in a mount.
    pub name: String,
    /// Where it was read from, for messages: a path or `built-in NAME`.
    pub origin: String,
    /// The place in the file, as a prefix for key paths: `""`, or `patterns[3]`.
    pub place: String,
    /// Free text.
    pub description: Option<String>,
    /// What the directory must look like.
    pub root: Subpattern,
    /// Seek no further match of this pattern inside a match.
    pub prune: bool,
    /// The template that says where matches appear below the pattern's folder.
    pub layout: Option<String>,
}

/// The description of one directory, the pattern's own or one below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subpattern {
    /// Name, files, directories and alternatives.
    pub body: Body,
    /// Capture names and the regular expressions of their values.
    pub captures: BTreeMap<String, String>,
    /// Show the whole subtree.
    pub opaque: bool,
    /// All globs here and below ignore case.
    pub case_insensitive: bool,
    /// Globs of names that such a directory must not have.
    pub forbidden_names: Vec<String>,
    /// Globs of names that no directory above, within the source, may have.
    pub forbidden_ancestors: Vec<String>,
}

/// The clauses of a directory, or of one alternative of `any_of`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// Glob for the directory's own name; `None` means any (also written `null`, `""` and `"*"`).
    pub directory_name: Option<String>,
    /// Every clause needs a file.
    pub files: Vec<FileClause>,
    /// Every clause needs a child directory.
    pub directories: Vec<DirClause>,
    /// Shown when there.
    pub optional_files: Vec<FileClause>,
    /// Shown when there.
    pub optional_directories: Vec<DirClause>,
    /// Shown when there, reported when not.
    pub recommended_files: Vec<FileClause>,
    /// Shown when there, reported when not.
    pub recommended_directories: Vec<DirClause>,
    /// One of these rejects the directory.
    pub forbidden_files: Vec<FileClause>,
    /// One of these rejects the directory.
    pub forbidden_directories: Vec<DirClause>,
    /// At least one must hold, unless the list is empty.
    pub any_of: Vec<Body>,
}

/// One test for files, or alternatives of which one must hold.
#[derive(Clone, Debug, PartialEq)]
pub enum FileClause {
    /// A test.
    One(FileTest),
    /// Alternatives, never empty.
    AnyOf(Vec<FileClause>),
}

/// One subpattern for child directories, or alternatives of which one must hold.
#[allow(clippy::large_enum_variant, reason = "nearly all are `One`")]
#[derive(Clone, Debug, PartialEq)]
pub enum DirClause {
    /// A subpattern.
    One(Subpattern),
    /// Alternatives, never empty.
    AnyOf(Vec<DirClause>),
}

/// A glob for file names or paths below the directory, and what such files must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct FileTest {
    /// A name glob; with `/`, a path below the directory.
    pub glob: String,
    /// The least number of such files.
    pub min: u32,
    /// The greatest number of such files.
    pub max: Option<u32>,
    /// Overrides what the pattern says about case.
    pub case_insensitive: Option<bool>,
    /// A bound on the size.
    pub size: Option<SizeTest>,
    /// Bytes at an offset.
    pub magic: Option<Magic>,
    /// Text in the first MiB.
    pub contains: Option<String>,
}

impl FileTest {
    /// A test for at least one file whose name matches `glob`.
    pub fn glob(glob: impl Into<String>) -> Self {
        Self { glob: glob.into(), min: 1, max: None, case_insensitive: None, size: None, magic: None, contains: None }
    }
}

/// A comparison of a file's size with a number of bytes, written `">=4KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeTest {
    /// How the size compares.
    pub op: SizeOp,
    /// With how many bytes.
    pub bytes: u64,
}

/// The comparisons of [`SizeTest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizeOp {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `=` or `==`, also a bare number
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

impl SizeTest {
    /// True if a file of `size` bytes passes.
    pub fn holds(self, size: u64) -> bool {
        match self.op {
            SizeOp::Less => size < self.bytes,
            SizeOp::AtMost => size <= self.bytes,
            SizeOp::Equal => size == self.bytes,
            SizeOp::AtLeast => size >= self.bytes,
            SizeOp::Greater => size > self.bytes,
        }
    }
}

/// Bytes that a file has at an offset, written `{offset, bytes}` with text or `"hex:..."`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Magic {
    /// Bytes from the file's start.
    pub offset: u64,
    /// What stands there; 1 to 4096 bytes.
    pub bytes: Vec<u8>,
}

/// What is wrong in a pattern, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}:{}{place}{} {message}{}", if place.is_empty() { "" } else { " " }, if place.is_empty() { "" } else { ":" },
    hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct PatternError {
    /// The file or built-in name.
    pub origin: String,
    /// `line 3, column 7` or a key path such as `directories[0].files[2]`; empty for the whole file.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// The cure.
    pub hint: Option<String>,
}

/// A key path for messages: `parent` extended by `.key`.
pub fn key(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// A key path for messages: `parent` extended by `[index]`.
pub fn item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// The candidate nearest to `word` by edit distance, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Distances of longer words take too long, and people mistype short ones.
    const LONGEST: usize = 64;
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().max(word.len()) <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}
