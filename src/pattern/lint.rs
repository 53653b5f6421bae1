//! Mistakes in patterns that compile: clauses that can never hold, and what is likely not meant.
//!
//! Only what can be proved from the pattern alone is told, by equal globs and by globs of a few names: what is told is
//! so, and much that is so is not told. Patterns and automaton must belong together.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::glob::{Capture, Glob, Token, components};
use super::load::clip;
use super::{Body, DirClause, FileClause, FileTest, Pattern, SizeOp, SizeTest, Subpattern, item, key};
use crate::automaton::Automaton;
use crate::matcher::mapping::CaptureId;

#[cfg(test)]
mod tests;

/// The longest name that file systems know, in bytes (`NAME_MAX`).
const NAME_BYTES: usize = 255;
/// A glob of more names is not looked at name by name.
const FEW_NAMES: usize = 64;
/// How many clauses of a list are compared with each other.
const COMPARED: usize = 256;
/// How many steps all comparing may take; what is left then is not compared.
const BUDGET: u64 = 200_000_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something can never hold.
    Error,
    /// Something is likely not what was meant.
    Warning,
}

/// A mistake, where it is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Lint {
    /// The file or built-in name.
    pub origin: String,
    /// The pattern's name.
    pub pattern: String,
    /// A key path such as `directories[0].files[2]`; empty for the whole pattern.
    pub place: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The cure.
    pub hint: Option<String>,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// Looks for mistakes in patterns that were compiled to `automaton`, in the order in which they are written.
pub fn lint(patterns: &[Pattern], automaton: &Automaton) -> Vec<Lint> {
    let known = Known { captures: automaton.names.captures(), budget: Cell::new(BUDGET) };
    let mut linter = Linter {
        origin: "",
        pattern: "",
        known: &known,
        met: 0,
        declared: Vec::new(),
        used: HashSet::new(),
        lints: Vec::new(),
    };
    let mut twins: HashMap<(u32, String, bool, Option<&str>), &Pattern> = HashMap::new();
    for (pattern, top) in patterns.iter().zip(&automaton.tops) {
        (linter.origin, linter.pattern) = (&pattern.origin, &pattern.name);
        let place = &pattern.place;
        if top.captures.is_empty() && always(&pattern.root) {
            let shut = if pattern.root.opaque { ", and no other is sought inside a match" } else { "" };
            let hint = "name a `directory_name`, `files` or `directories`";
            linter.warn(place, format!("the pattern matches every directory{shut}"), Some(hint.into()));
        }
        linter.subpattern(&pattern.root, &Scope::default(), place);
        linter.unused();
        // Captures have numbers of their own in each pattern, so that states with captures are never equal.
        let (state, text) = if declares(&pattern.root) {
            (u32::MAX, format!("{:?}", pattern.root))
        } else {
            (top.state.0, String::new())
        };
        let twin = *twins.entry((state, text, pattern.prune, pattern.layout.as_deref())).or_insert(pattern);
        if !std::ptr::eq(twin, pattern) {
            let message = format!("finds the same as the pattern `{}` of {}", clip(&twin.name), twin.origin);
            linter.warn(place, message, Some("leave one of them out".into()));
        }
    }
    linter.lints
}

/// What holds for globs at a place, as when they are compiled.
#[derive(Clone, Default)]
struct Scope {
    captures: Vec<Capture>,
    case_insensitive: bool,
}

/// A file clause, its globs read.
enum Clause<'p> {
    One(FileGlob<'p>),
    AnyOf(Vec<Clause<'p>>),
}

struct FileGlob<'p> {
    /// `None` for `**`.
    parts: Vec<Option<Glob>>,
    test: &'p FileTest,
    place: String,
}

/// A clause for a child directory, and the glob of its name where it is a single one that asks for one.
struct Child<'p> {
    clause: &'p DirClause,
    name: Option<Glob>,
    /// It asks for nothing but a name.
    bare: bool,
    /// The alternatives of a list.
    any_of: Vec<Child<'p>>,
    place: String,
}

/// What a body must not have, with what the bodies around it must not have.
struct Around<'a, 'p> {
    outer: Option<&'a Around<'a, 'p>>,
    name: Option<(&'a Glob, &'a str)>,
    forbidden_names: &'a [(Glob, String)],
    files: &'a [Clause<'p>],
    directories: &'a [Child<'p>],
}

impl<'a, 'p> Around<'a, 'p> {
    fn all(&'a self) -> impl Iterator<Item = &'a Around<'a, 'p>> {
        std::iter::successors(Some(self), |around| around.outer)
    }
}

/// All captures, and how much comparing may still cost: patterns are data from strangers.
struct Known<'a> {
    captures: &'a [Capture],
    budget: Cell<u64>,
}

struct Linter<'a> {
    origin: &'a str,
    pattern: &'a str,
    /// All captures, in the order in which patterns declare them.
    known: &'a Known<'a>,
    /// How many of them have been met.
    met: usize,
    /// Those of the pattern at hand, and where they are declared.
    declared: Vec<(Capture, String)>,
    used: HashSet<CaptureId>,
    lints: Vec<Lint>,
}

impl Linter<'_> {
    fn tell(&mut self, severity: Severity, place: &str, message: String, hint: Option<String>) {
        let (origin, pattern) = (self.origin.to_owned(), self.pattern.to_owned());
        self.lints.push(Lint { origin, pattern, place: place.to_owned(), severity, message, hint });
    }

    fn error(&mut self, place: &str, message: impl Into<String>, hint: Option<String>) {
        self.tell(Severity::Error, place, message.into(), hint);
    }

    fn warn(&mut self, place: &str, message: impl Into<String>, hint: Option<String>) {
        self.tell(Severity::Warning, place, message.into(), hint);
    }

    /// Reads a glob that compiled, and says if no name matches it.
    fn glob(&mut self, text: &str, scope: &Scope, fold: bool, place: &str) -> Option<Glob> {
        let glob = Glob::parse(text, &scope.captures, fold).ok()?;
        self.used.extend(glob.captures());
        let text = clip(text);
        let least = least_bytes(&glob.tokens, self.known.captures);
        if least > NAME_BYTES {
            let hint = format!("a name has {NAME_BYTES} bytes at most");
            self.error(place, format!("`{text}` matches no name: it takes {least} bytes at least"), Some(hint));
        } else if !possible(&glob.tokens) {
            self.error(place, format!("`{text}` matches no name: none holds a `/` or NUL"), None);
        } else if few_names(&glob).is_some_and(|names| names.iter().all(|name| matches!(&**name, "" | "." | ".."))) {
            self.error(place, format!("`{text}` matches no name: none is empty, `.` or `..`"), None);
        }
        Some(glob)
    }

    fn globs(&mut self, texts: &[String], scope: &Scope, place: &str) -> Vec<(Glob, String)> {
        let mut globs = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let place = item(place, at);
            if let Some(glob) = self.glob(text, scope, scope.case_insensitive, &place) {
                globs.push((glob, place));
            }
        }
        globs
    }

    fn declare(&mut self, pattern: &Subpattern, scope: &Scope, place: &str) -> Scope {
        let mut inner = scope.clone();
        inner.case_insensitive |= pattern.case_insensitive;
        for name in pattern.captures.keys() {
            let place = key(&key(place, "captures"), name);
            let capture = self.known.captures[self.met].clone();
            debug_assert_eq!(*capture.name, **name, "captures are met in the order in which they are compiled");
            self.met += 1;
            let properties = capture.hir().properties();
            if properties.minimum_len().is_none() {
                self.error(&place, format!("nothing matches the expression of `<{name}>`"), None);
            } else if properties.maximum_len() == Some(0) {
                let hint = "write one that matches a name's part, such as `[0-9]+`";
                let message = format!("the expression of `<{name}>` matches the empty text only");
                self.error(&place, message, Some(hint.into()));
            }
            inner.captures.push(capture.clone());
            self.declared.push((capture, place));
        }
        inner
    }

    /// Tells of the captures of the pattern that no glob uses.
    fn unused(&mut self) {
        let used = std::mem::take(&mut self.used);
        for (capture, place) in std::mem::take(&mut self.declared) {
            if !used.contains(&capture.id) {
                let hint = format!("write `<{}>` in a glob, or leave it out", capture.name);
                self.warn(&place, format!("no glob uses the capture `<{}>`", capture.name), Some(hint));
            }
        }
    }

    fn subpattern(&mut self, pattern: &Subpattern, scope: &Scope, place: &str) {
        let scope = self.declare(pattern, scope, place);
        let forbidden_names = self.globs(&pattern.forbidden_names, &scope, &key(place, "forbidden_names"));
        self.globs(&pattern.forbidden_ancestors, &scope, &key(place, "forbidden_ancestors"));
        if let Some((_, place)) = forbidden_names.iter().find(|(glob, _)| glob.is_any()) {
            self.error(place, "every name is forbidden, so that nothing matches", None);
        }
        let around =
            Around { outer: None, name: None, forbidden_names: &forbidden_names, files: &[], directories: &[] };
        self.body(&pattern.body, &scope, place, &around);
    }

    fn body(&mut self, body: &Body, scope: &Scope, place: &str, outer: &Around<'_, '_>) {
        let name_place = key(place, "directory_name");
        let name = body
            .directory_name
            .as_ref()
            .and_then(|text| self.glob(text, scope, scope.case_insensitive, &name_place))
            .filter(|glob| !glob.is_any());
        if let Some(name) = &name {
            self.directory_name(name, &name_place, outer);
        }
        // In the order in which they are compiled.
        let files = self.files(&body.files, scope, &key(place, "files"));
        let directories = self.directories(&body.directories, scope, &key(place, "directories"));
        let forbidden_files = self.files(&body.forbidden_files, scope, &key(place, "forbidden_files"));
        let forbidden_directories =
            self.directories(&body.forbidden_directories, scope, &key(place, "forbidden_directories"));
        let optional_files = self.files(&body.optional_files, scope, &key(place, "optional_files"));
        let optional_directories =
            self.directories(&body.optional_directories, scope, &key(place, "optional_directories"));
        let recommended_files = self.files(&body.recommended_files, scope, &key(place, "recommended_files"));
        let recommended_directories =
            self.directories(&body.recommended_directories, scope, &key(place, "recommended_directories"));

        let around = Around {
            outer: Some(outer),
            name: name.as_ref().map(|name| (name, &*name_place)),
            forbidden_names: &[],
            files: &forbidden_files,
            directories: &forbidden_directories,
        };
        for clause in &forbidden_files {
            if let Clause::One(FileGlob { test: FileTest { min: 0, max: None, .. }, place, .. }) = clause {
                self.error(place, "`min` 0 always holds, so that nothing matches", Some("leave `min` out".into()));
            }
        }
        for list in [&files, &optional_files, &recommended_files] {
            list.iter().take(COMPARED).for_each(|clause| self.forbidden_file(clause, &around));
        }
        for list in [&directories, &optional_directories, &recommended_directories] {
            list.iter().take(COMPARED).for_each(|clause| self.forbidden_directory(clause, &around));
        }
        self.superfluous_files(&files, &optional_files, &recommended_files);
        self.superfluous_directories(&directories, &optional_directories, &recommended_directories);
        for (at, alternative) in body.any_of.iter().enumerate() {
            let place = item(&key(place, "any_of"), at);
            if always_body(alternative) {
                let hint = "leave it out, or name what it asks for";
                let message = "this alternative always holds, so that `any_of` decides nothing";
                self.warn(&place, message, Some(hint.into()));
            }
            self.body(alternative, scope, &place, &around);
        }
    }

    fn directory_name(&mut self, name: &Glob, place: &str, outer: &Around<'_, '_>) {
        let known = self.known;
        for around in outer.all() {
            let mut forbidden = around.forbidden_names.iter().filter(|(glob, _)| !glob.is_any());
            if let Some((_, other)) = forbidden.find(|(glob, _)| known.covers(glob, name)) {
                let message = format!("what it allows is forbidden by {other}, so that it never holds");
                return self.error(place, message, Some("leave out one of them".into()));
            }
            if let Some((_, other)) = around.name.filter(|(glob, _)| known.disjoint(glob, name)) {
                let message = format!("no name matches this and {other} too, so that this alternative never holds");
                return self.error(place, message, None);
            }
        }
    }

    fn files<'p>(&mut self, clauses: &'p [FileClause], scope: &Scope, place: &str) -> Vec<Clause<'p>> {
        let read = |(at, clause)| self.file_clause(clause, scope, &item(place, at));
        clauses.iter().enumerate().map(read).collect()
    }

    fn file_clause<'p>(&mut self, clause: &'p FileClause, scope: &Scope, place: &str) -> Clause<'p> {
        match clause {
            FileClause::AnyOf(list) => Clause::AnyOf(self.files(list, scope, place)),
            FileClause::One(test) => {
                let fold = test.case_insensitive.unwrap_or(scope.case_insensitive);
                let mut parts = Vec::new();
                for part in components(&test.glob).unwrap_or_default() {
                    match part {
                        "**" => parts.push(None),
                        part => parts.extend(self.glob(part, scope, fold, place).map(Some)),
                    }
                }
                if parts.len() == 1 && parts[0].is_none() {
                    parts = self.glob("*", scope, fold, place).into_iter().map(Some).collect();
                }
                let read = FileGlob { parts, test, place: place.to_owned() };
                self.file_test(&read);
                Clause::One(read)
            }
        }
    }

    fn file_test(&mut self, file: &FileGlob<'_>) {
        let FileGlob { parts, test, place } = file;
        let names = parts.iter().try_fold(1usize, |product, part| {
            few_names(part.as_ref()?).map(|names| product.saturating_mul(names.len()))
        });
        if let Some(names) = names.filter(|names| (*names as u64) < u64::from(test.min)) {
            let (min, glob) = (test.min, clip(&test.glob));
            let files = if names == 1 { "one file".to_owned() } else { format!("{names} files") };
            let message = format!("`min` {min} never holds: at most {files} can match `{glob}`");
            self.error(&key(place, "min"), message, Some("`min` counts the files of one directory".into()));
        }
        let Some(most) = test.size.and_then(most_bytes) else { return };
        let behind = |magic: &super::Magic| magic.offset.saturating_add(magic.bytes.len() as u64);
        let asked = [
            ("magic", test.magic.as_ref().map(behind)),
            ("contains", test.contains.as_ref().map(|text| text.len() as u64)),
        ];
        for (what, bytes) in asked {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > most) {
                let message = format!("`{what}` needs {bytes} bytes, but `size` allows {most} at most");
                self.error(&key(place, what), message, None);
            }
        }
    }

    fn directories<'p>(&mut self, clauses: &'p [DirClause], scope: &Scope, place: &str) -> Vec<Child<'p>> {
        let mut children = Vec::new();
        for (at, clause) in clauses.iter().enumerate() {
            let place = item(place, at);
            let (mut name, mut bare, mut any_of) = (None, false, Vec::new());
            match clause {
                DirClause::One(pattern) => {
                    self.subpattern(pattern, scope, &place);
                    let text = &pattern.body.directory_name;
                    let fold = scope.case_insensitive || pattern.case_insensitive;
                    // A glob with captures of the child's own is not read here, which only tells less.
                    let read = text.as_ref().filter(|_| pattern.captures.is_empty());
                    name = read.and_then(|text| Glob::parse(text, &scope.captures, fold).ok());
                    let nameless = Body { directory_name: text.clone(), ..Body::default() };
                    bare = pattern.body == nameless
                        && name.is_some() == text.is_some()
                        && pattern.forbidden_names.is_empty()
                        && pattern.forbidden_ancestors.is_empty();
                }
                DirClause::AnyOf(list) => any_of = self.directories(list, scope, &place),
            }
            children.push(Child { clause, name, bare, any_of, place });
        }
        children
    }

    fn forbidden_file(&mut self, clause: &Clause<'_>, around: &Around<'_, '_>) {
        let known = self.known;
        let forbids = |one: &FileGlob<'_>| {
            let forbidden = around.all().flat_map(|around| around.files.iter().take(COMPARED)).flat_map(Clause::each);
            let mut plain = forbidden.filter(|forbidden| (forbidden.test.min, forbidden.test.max) == (1, None));
            plain.find(|forbidden| forbidden.includes(one, known)).map(|forbidden| forbidden.place.clone())
        };
        for one in clause.each().filter(|one| one.test.min > 0) {
            if let Some(other) = forbids(one) {
                let message = format!("`{}` never holds: {other} forbids such files", clip(&one.test.glob));
                self.error(&one.place, message, Some("leave out one of them".into()));
            }
        }
    }

    fn forbidden_directory(&mut self, child: &Child<'_>, around: &Around<'_, '_>) {
        let known = self.known;
        let forbidden = around.all().flat_map(|around| around.directories.iter().take(COMPARED));
        // Any of a list forbids.
        let mut forbidden = forbidden.flat_map(|child| std::iter::once(child).chain(&child.any_of));
        if let Some(other) = forbidden.find(|forbidden| forbidden.includes(child, known)) {
            let message = format!("never holds: {} forbids such directories", other.place);
            self.error(&child.place, message, Some("leave out one of them".into()));
        } else {
            child.any_of.iter().for_each(|child| self.forbidden_directory(child, around));
        }
    }

    fn superfluous_files(&mut self, files: &[Clause<'_>], optional: &[Clause<'_>], recommended: &[Clause<'_>]) {
        let known = self.known;
        for clause in files {
            if let Clause::One(FileGlob { test: FileTest { min: 0, max: None, .. }, place, .. }) = clause {
                let hint = "write it in `optional_files`, or give a `max`";
                self.warn(place, "`min` 0 always holds and asks for nothing", Some(hint.into()));
            }
        }
        for (at, clause) in files.iter().enumerate().take(COMPARED) {
            let others = files.iter().enumerate().take(COMPARED).filter(|(other, _)| *other != at);
            let implying = others.filter(|(_, other)| other.implies(clause, known));
            // Of clauses that imply each other the first is the one to keep.
            let mut implying = implying.filter(|(other, b)| *other < at || !clause.implies(b, known));
            if let Some((_, other)) = implying.next() {
                let (place, other) = (clause.place(), other.place());
                let message = format!("always holds where {other} does");
                let hint = "leave it out, or write it in `optional_files` if it is to be shown";
                self.warn(&place, message, Some(hint.into()));
            }
        }
        for list in [optional, recommended] {
            for (at, one) in list.iter().enumerate().take(COMPARED).filter_map(|(at, clause)| Some((at, clause.one()?)))
            {
                let required = files.iter().take(COMPARED).filter_map(Clause::one);
                let before = list[..at].iter().filter_map(Clause::one);
                let other =
                    required.filter(|other| other.includes(one, known)).chain(before.filter(|other| other.same(one)));
                if let Some(place) = other.map(|other| other.place.clone()).next() {
                    let message = format!("{place} shows these files already");
                    self.warn(&one.place, message, Some("leave it out".into()));
                }
            }
        }
    }

    fn superfluous_directories(&mut self, required: &[Child<'_>], optional: &[Child<'_>], recommended: &[Child<'_>]) {
        let known = self.known;
        for (at, child) in required.iter().enumerate().take(COMPARED) {
            let others = required.iter().enumerate().take(COMPARED).filter(|(other, _)| *other != at);
            let implying = others.filter(|(_, other)| child.includes(other, known));
            let mut implying = implying.filter(|(other, b)| *other < at || !b.includes(child, known));
            if let Some((_, other)) = implying.next() {
                let message = format!("always holds where {} does", other.place);
                let hint = "leave it out, or write it in `optional_directories` if it is to be shown";
                self.warn(&child.place, message, Some(hint.into()));
            }
        }
        for list in [optional, recommended] {
            for (at, child) in list.iter().enumerate().take(COMPARED) {
                let mut others = required.iter().take(COMPARED).chain(&list[..at]);
                if let Some(other) = others.find(|other| other.same(child, known)) {
                    let message = format!("{} shows these directories already", other.place);
                    self.warn(&child.place, message, Some("leave it out".into()));
                }
            }
        }
    }
}

impl<'p> Clause<'p> {
    fn one(&self) -> Option<&FileGlob<'p>> {
        match self {
            Clause::One(one) => Some(one),
            Clause::AnyOf(_) => None,
        }
    }

    /// The single ones, those of alternatives too.
    fn each(&self) -> Box<dyn Iterator<Item = &FileGlob<'p>> + '_> {
        match self {
            Clause::One(one) => Box::new(std::iter::once(one)),
            Clause::AnyOf(list) => Box::new(list.iter().flat_map(Clause::each)),
        }
    }

    fn place(&self) -> String {
        match self {
            Clause::One(one) => one.place.clone(),
            Clause::AnyOf(list) => list.first().map(|first| parent(&first.place())).unwrap_or_default(),
        }
    }

    /// True if `other` holds wherever this does.
    fn implies(&self, other: &Clause<'_>, known: &Known<'_>) -> bool {
        match (self, other) {
            (Clause::AnyOf(list), other) => list.iter().all(|one| one.implies(other, known)),
            (one, Clause::AnyOf(list)) => list.iter().any(|other| one.implies(other, known)),
            (Clause::One(one), Clause::One(other)) => {
                let equal = one.parts == other.parts && one.test == other.test;
                let plain = (other.test.min, other.test.max) == (1, None);
                equal || (plain && one.test.min > 0 && other.includes(one, known))
            }
        }
    }
}

impl FileGlob<'_> {
    /// True if each file of `other` is one of these, with all its captured values.
    fn includes(&self, other: &FileGlob<'_>, known: &Known<'_>) -> bool {
        let same = self.parts == other.parts;
        let by_names = || {
            self.parts.len() == other.parts.len()
                && self.parts.iter().zip(&other.parts).all(|pair| match pair {
                    (Some(ours), Some(theirs)) => known.covers(ours, theirs),
                    _ => false,
                })
        };
        let within = |ours: bool, equal: bool| ours || equal;
        (same || by_names())
            && within(self.test.size.is_none(), self.test.size == other.test.size)
            && within(self.test.magic.is_none(), self.test.magic == other.test.magic)
            && within(self.test.contains.is_none(), self.test.contains == other.test.contains)
    }

    /// True if the two stand for the same files.
    fn same(&self, other: &FileGlob<'_>) -> bool {
        let tests = |test: &FileTest| (test.size, test.magic.clone(), test.contains.clone());
        self.parts == other.parts && tests(self.test) == tests(other.test)
    }
}

/// A place without its last index.
fn parent(place: &str) -> String {
    place.rfind('[').map_or(place, |at| &place[..at]).to_owned()
}

impl Child<'_> {
    /// True if each directory of `other` is one of these.
    fn includes(&self, other: &Child<'_>, known: &Known<'_>) -> bool {
        let named = || match (&self.name, &other.name) {
            (Some(ours), Some(theirs)) => known.covers(ours, theirs),
            (ours, _) => ours.as_ref().is_none_or(Glob::is_any),
        };
        self.same(other, known) || (self.bare && matches!(other.clause, DirClause::One(_)) && named())
    }

    fn same(&self, other: &Child<'_>, known: &Known<'_>) -> bool {
        known.spend(100).is_some() && self.clause == other.clause
    }
}

impl Known<'_> {
    /// True if `left` matches every name that `right` matches, as far as that is plain.
    fn covers(&self, left: &Glob, right: &Glob) -> bool {
        left == right
            || (left.captures().is_empty()
                && (left.is_any()
                    || self.few(right, left).is_some_and(|(matching, others)| matching > 0 && others == 0)))
    }

    /// True if no name matches both, as far as that is plain.
    fn disjoint(&self, left: &Glob, right: &Glob) -> bool {
        let none = |names, of| self.few(names, of).is_some_and(|(matching, others)| matching == 0 && others > 0);
        none(left, right) || none(right, left)
    }

    /// Of the few names that match `names`, how many match `of`, and how many do not.
    fn few(&self, names: &Glob, of: &Glob) -> Option<(usize, usize)> {
        let names = few_names(names)?;
        let steps = names.iter().map(|name| (name.len() + 16) as u64).sum::<u64>() * (of.tokens.len() + 16) as u64;
        self.spend(steps)?;
        let (matching, others): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| of.matches(name.as_bytes(), self.captures));
        Some((matching.len(), others.len()))
    }

    fn spend(&self, steps: u64) -> Option<()> {
        self.budget.set(self.budget.get().saturating_sub(steps));
        (self.budget.get() > 0).then_some(())
    }
}

/// All names that match, if they are few.
fn few_names(glob: &Glob) -> Option<Vec<String>> {
    fn extend(heads: Vec<String>, tokens: &[Token]) -> Option<Vec<String>> {
        tokens.iter().try_fold(heads, |mut heads, token| {
            if let Token::Literal(c) = token {
                heads.iter_mut().for_each(|head| head.push(*c));
                return Some(heads);
            }
            let tails: Vec<String> = match token {
                Token::Class { negated: false, ranges } => {
                    let chars = ranges.iter().flat_map(|(low, high)| *low..=*high);
                    chars.take(FEW_NAMES + 1).map(String::from).collect()
                }
                Token::Alternates(branches) => {
                    let mut tails = Vec::new();
                    for branch in branches.iter().take(FEW_NAMES + 1) {
                        tails.extend(extend(vec![String::new()], branch)?);
                    }
                    tails
                }
                _ => return None,
            };
            if heads.len().saturating_mul(tails.len()) > FEW_NAMES {
                return None;
            }
            Some(heads.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect())
        })
    }
    let mut names = extend(vec![String::new()], &glob.tokens)?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// The length in bytes of the shortest name that matches.
fn least_bytes(tokens: &[Token], captures: &[Capture]) -> usize {
    let of = |token: &Token| match token {
        Token::Literal(c) => c.len_utf8(),
        Token::Any | Token::Class { negated: true, .. } => 1,
        Token::Class { ranges, .. } => ranges.iter().map(|(low, _)| low.len_utf8()).min().unwrap_or(1),
        Token::Star => 0,
        Token::Alternates(branches) => branches.iter().map(|branch| least_bytes(branch, captures)).min().unwrap_or(0),
        Token::Capture(id) => captures[id.index()].hir().properties().minimum_len().unwrap_or(0),
    };
    tokens.iter().map(of).fold(0, usize::saturating_add)
}

/// False if only names with a `/` or NUL match.
fn possible(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| match token {
        Token::Literal(c) => !matches!(c, '/' | '\0'),
        Token::Class { negated: false, ranges } => {
            ranges.iter().any(|range| !matches!(range, ('/', '/') | ('\0', '\0')))
        }
        Token::Alternates(branches) => branches.iter().any(|branch| possible(branch)),
        Token::Class { .. } | Token::Any | Token::Star | Token::Capture(_) => true,
    })
}

/// The most bytes that a file may have; `<0` does not load.
fn most_bytes(size: SizeTest) -> Option<u64> {
    match size.op {
        SizeOp::Less => Some(size.bytes.saturating_sub(1)),
        SizeOp::AtMost | SizeOp::Equal => Some(size.bytes),
        SizeOp::AtLeast | SizeOp::Greater => None,
    }
}

fn always(pattern: &Subpattern) -> bool {
    pattern.forbidden_names.is_empty() && pattern.forbidden_ancestors.is_empty() && always_body(&pattern.body)
}

fn always_body(body: &Body) -> bool {
    body.directory_name.as_ref().is_none_or(|name| name.bytes().all(|byte| byte == b'*'))
        && body.files.iter().all(always_holds)
        && body.directories.is_empty()
        && body.forbidden_files.is_empty()
        && body.forbidden_directories.is_empty()
        && (body.any_of.is_empty() || body.any_of.iter().any(always_body))
}

fn always_holds(clause: &FileClause) -> bool {
    match clause {
        FileClause::One(test) => (test.min, test.max) == (0, None),
        FileClause::AnyOf(list) => list.iter().any(always_holds),
    }
}

/// True if the pattern or one in it declares captures.
fn declares(pattern: &Subpattern) -> bool {
    fn in_clause(clause: &DirClause) -> bool {
        match clause {
            DirClause::One(pattern) => declares(pattern),
            DirClause::AnyOf(list) => list.iter().any(in_clause),
        }
    }
    fn in_body(body: &Body) -> bool {
        [&body.directories, &body.optional_directories, &body.recommended_directories, &body.forbidden_directories]
            .into_iter()
            .flatten()
            .any(in_clause)
            || body.any_of.iter().any(in_body)
    }
    !pattern.captures.is_empty() || in_body(&pattern.body)
}
