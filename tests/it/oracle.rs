//! What patterns mean, computed naively from `docs/patterns.md` over a tree in memory: plain recursion, nothing shared,
//! nothing remembered. The property tests hold the real matcher against it.
//!
//! A clause yields mappings, each of them sure or unknown. What an unreadable directory might hold yields the mappings
//! of the way to it, as unknown: a capture that they leave open stands for any value.

use std::collections::{BTreeMap, BTreeSet};

use veinfs::entry::Kind;
use veinfs::pattern::{Body, DirClause, FileClause, FileTest, Pattern, Subpattern};

pub(crate) use glob::{glob_error, glob_match};
pub(crate) use tree::{Name, Node, Real, Tree, joined, lay_out, split};

mod glob;
mod json;
mod tests;
mod tree;

/// What veinfs keeps in its mounts, always seen as empty.
const NOT_ENTERED: &[u8] = b".veinfs";

/// Values of captures; one that is not in it is unset.
pub(crate) type Mapping = BTreeMap<String, Vec<u8>>;

/// The captures that a pattern declares, as one of its matches shows them.
pub(crate) type Captures = BTreeMap<String, Option<Vec<u8>>>;

/// What one pattern finds in a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The matches by path, sorted, with their captures.
    pub(crate) matches: Vec<(Vec<u8>, Captures)>,
    /// The paths of directories of which it cannot be said whether they match, sorted.
    pub(crate) undecided: Vec<Vec<u8>>,
}

/// A clause's mappings.
type Yields = BTreeMap<Mapping, Truth>;

/// How far a mapping can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    Unknown,
    Sure,
}

/// Both mappings in one, if no capture has different values in them.
fn union(a: &Mapping, b: &Mapping) -> Option<Mapping> {
    let agree = a.iter().all(|(name, value)| b.get(name).is_none_or(|other| other == value));
    agree.then(|| a.iter().chain(b).map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn agree(a: &Mapping, b: &Mapping) -> bool {
    union(a, b).is_some()
}

/// What every pattern finds in `tree`, in the order of the patterns.
pub(crate) fn matches(patterns: &[Pattern], tree: &Tree) -> Vec<Outcome> {
    let oracle = Oracle { tree };
    let directories: Vec<Real> =
        tree.paths().into_iter().filter(|path| matches!(tree.at(path), Some(Node::Dir { .. }))).collect();
    let yields = |pattern: &Pattern, path: &[Name]| {
        oracle.subpattern(&pattern.root, &Scope::default(), &oracle.dir(path).expect("it is a directory"))
    };
    let is_sure = |pattern: &Pattern, path: &[Name]| yields(pattern, path).values().any(|truth| *truth == Truth::Sure);
    let mut outcomes = Vec::new();
    for pattern in patterns {
        let mut outcome = Outcome::default();
        for path in &directories {
            let above = || (0..path.len()).map(|len| &path[..len]);
            let not_entered = path.split_last().is_some_and(|(_, above)| above.iter().any(|name| name == NOT_ENTERED));
            let pruned = above().any(|path| {
                (pattern.prune && is_sure(pattern, path))
                    || patterns.iter().any(|other| other.root.opaque && is_sure(other, path))
            });
            if not_entered || pruned {
                continue;
            }
            let yields = yields(pattern, path);
            if is_sure(pattern, path) {
                let dir = oracle.dir(path).expect("it is a directory");
                let captures = oracle.values(&pattern.root, &Scope::default(), &dir, &Mapping::new(), &yields);
                let shown = pattern.root.captures.keys().map(|name| (name.clone(), captures.get(name).cloned()));
                outcome.matches.push((joined(path), shown.collect()));
            } else if !yields.is_empty() {
                outcome.undecided.push(joined(path));
            }
        }
        outcome.matches.sort();
        outcome.undecided.sort();
        outcomes.push(outcome);
    }
    outcomes
}

/// The files and directories, by path below the match, that the match of `pattern` at `path` shows.
pub(crate) fn view(pattern: &Pattern, tree: &Tree, path: &[u8], captures: &Captures) -> BTreeSet<Vec<u8>> {
    let oracle = Oracle { tree };
    let dir = oracle.dir(&split(path)).expect("a match is a directory");
    let values = captures.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    let mut shown = BTreeSet::new();
    oracle.show(&pattern.root, &Scope::default(), &dir, &values, &Real::new(), &mut shown);
    shown.iter().map(|path| joined(path)).collect()
}

/// What the (sub)patterns above say about globs.
#[derive(Clone, Debug, Default)]
struct Scope {
    captures: BTreeMap<String, String>,
    ignore_case: bool,
}

impl Scope {
    fn within(&self, sub: &Subpattern) -> Self {
        let mut captures = self.captures.clone();
        captures.extend(sub.captures.clone());
        Self { captures, ignore_case: self.ignore_case || sub.case_insensitive }
    }

    fn glob(&self, glob: &str, name: &[u8]) -> BTreeSet<Mapping> {
        glob_match(glob, Some(&self.captures), self.ignore_case, name)
    }
}

/// A directory as it is reached, maybe through links.
#[derive(Clone, Debug)]
struct Dir {
    /// The names of the directories above, from the root's down.
    above: Vec<Name>,
    name: Name,
    real: Real,
    /// Through a link of its name.
    linked: bool,
    /// It and the directories on the way to it from the root.
    way: Vec<Real>,
    /// `None` if it cannot be read.
    entries: Option<Vec<(Name, Kind)>>,
}

impl Dir {
    /// True if it is reached through a link and on the way already.
    fn is_loop(&self) -> bool {
        self.linked && self.way[..self.way.len() - 1].contains(&self.real)
    }
}

/// The files that a file clause finds.
#[derive(Debug, Default)]
struct Found {
    /// By path below the directory, with the mappings of every way to match it.
    files: BTreeMap<Real, BTreeSet<Mapping>>,
    /// The mappings of the ways to directories that cannot be read and may hold more such files.
    unread: BTreeSet<Mapping>,
}

struct Oracle<'a> {
    tree: &'a Tree,
}

impl Oracle<'_> {
    /// The directory at `path`, from the root down.
    fn dir(&self, path: &[Name]) -> Option<Dir> {
        let real = self.tree.follow(path)?;
        let Node::Dir { .. } = self.tree.at(&real)? else { return None };
        let mut above = vec![self.tree.name.clone()];
        above.extend_from_slice(path);
        let name = above.pop().expect("the root's name is there");
        let way = (0..=path.len()).map(|len| self.tree.follow(&path[..len])).collect::<Option<_>>()?;
        let entries = if path.is_empty() { self.tree.list(&real) } else { self.list(&name, &real) };
        Some(Dir { above, name, entries, real, linked: false, way })
    }

    /// What is in the directory of this name at `real`, for all who come by; `None` if it cannot be read.
    fn list(&self, name: &Name, real: &Real) -> Option<Vec<(Name, Kind)>> {
        if name == NOT_ENTERED { Some(Vec::new()) } else { self.tree.list(real) }
    }

    /// The child directories, links to directories included; none if `dir` cannot be read.
    fn children(&self, dir: &Dir) -> Vec<Dir> {
        let directories = dir.entries.iter().flatten().filter(|(_, kind)| kind.is_dir());
        directories
            .map(|(name, kind)| {
                let real = self.tree.follow(&append(&dir.real, name)).expect("it leads to a directory");
                let above = append(&dir.above, &dir.name);
                let way = [&dir.way[..], std::slice::from_ref(&real)].concat();
                Dir {
                    above,
                    name: name.clone(),
                    entries: self.list(name, &real),
                    real,
                    linked: *kind == Kind::LinkDir,
                    way,
                }
            })
            .collect()
    }

    /// What `dir` yields for `sub`, captures that `sub` declares included.
    fn subpattern(&self, sub: &Subpattern, scope: &Scope, dir: &Dir) -> Yields {
        let scope = scope.within(sub);
        let any = |globs: &[String], name: &Name| globs.iter().any(|glob| !scope.glob(glob, name).is_empty());
        if any(&sub.forbidden_names, &dir.name) || dir.above.iter().any(|name| any(&sub.forbidden_ancestors, name)) {
            return Yields::new();
        }
        self.body(&sub.body, &scope, dir)
    }

    /// What `dir` yields for a (sub)pattern's clauses or for an alternative of `any_of`.
    fn body(&self, body: &Body, scope: &Scope, dir: &Dir) -> Yields {
        let mut yields = sure([Mapping::new()]);
        if let Some(glob) = body.directory_name.as_ref().filter(|glob| !glob.is_empty()) {
            yields = both(&yields, &sure(scope.glob(glob, &dir.name)));
        }
        for clause in &body.files {
            yields = both(&yields, &self.file_clause(clause, scope, dir));
        }
        for clause in &body.directories {
            yields = both(&yields, &self.dir_clause(clause, scope, dir));
        }
        if !body.any_of.is_empty() {
            yields = both(&yields, &either(body.any_of.iter().map(|body| self.body(body, scope, dir))));
        }
        for clause in &body.forbidden_files {
            yields = without(&yields, &self.file_clause(clause, scope, dir));
        }
        for clause in &body.forbidden_directories {
            yields = without(&yields, &self.dir_clause(clause, scope, dir));
        }
        yields
    }

    fn dir_clause(&self, clause: &DirClause, scope: &Scope, dir: &Dir) -> Yields {
        match clause {
            DirClause::AnyOf(clauses) => either(clauses.iter().map(|clause| self.dir_clause(clause, scope, dir))),
            DirClause::One(_) if dir.entries.is_none() => unknown([Mapping::new()]),
            DirClause::One(sub) => either(
                self.children(dir).iter().map(|child| dropped(&self.subpattern(sub, scope, child), &sub.captures)),
            ),
        }
    }

    fn file_clause(&self, clause: &FileClause, scope: &Scope, dir: &Dir) -> Yields {
        match clause {
            FileClause::AnyOf(clauses) => either(clauses.iter().map(|clause| self.file_clause(clause, scope, dir))),
            FileClause::One(test) => counted(test, &self.files(test, scope, dir)),
        }
    }

    /// The files that `test` is about.
    fn files(&self, test: &FileTest, scope: &Scope, dir: &Dir) -> Found {
        let ignore_case = test.case_insensitive.unwrap_or(scope.ignore_case);
        let scope = Scope { ignore_case, ..scope.clone() };
        let mut components: Vec<&str> = test.glob.split('/').collect();
        if components.len() > 1 && components.last() == Some(&"**") {
            components.push("*");
        }
        let mut found = Found::default();
        let start = Way { below: Real::new(), mapping: Mapping::new() };
        self.along(&components, test, &scope, dir, start, &mut found);
        found
    }

    /// Adds the files that the rest of a path glob finds from `dir` on.
    fn along(&self, components: &[&str], test: &FileTest, scope: &Scope, dir: &Dir, way: Way, found: &mut Found) {
        let Some(entries) = &dir.entries else {
            found.unread.insert(way.mapping);
            return;
        };
        match components {
            [] => unreachable!("a path has a component"),
            [glob] => {
                for (name, _) in entries.iter().filter(|(_, kind)| kind.is_file()) {
                    if !self.passes(test, &append(&dir.real, name)) {
                        continue;
                    }
                    for mapping in scope.glob(glob, name) {
                        if let Some(mapping) = union(&way.mapping, &mapping) {
                            found.files.entry(append(&way.below, name)).or_default().insert(mapping);
                        }
                    }
                }
            }
            ["**", rest @ ..] => {
                self.along(rest, test, scope, dir, way.clone(), found);
                for child in self.children(dir) {
                    if !child.is_loop() {
                        self.along(components, test, scope, &child, way.down(&child, way.mapping.clone()), found);
                    }
                }
            }
            [glob, rest @ ..] => {
                for child in self.children(dir) {
                    for mapping in scope.glob(glob, &child.name) {
                        if let Some(mapping) = union(&way.mapping, &mapping) {
                            self.along(rest, test, scope, &child, way.down(&child, mapping), found);
                        }
                    }
                }
            }
        }
    }

    /// True if the file, or the one that the link leads to, passes `size`, `magic` and `contains`.
    fn passes(&self, test: &FileTest, path: &[Name]) -> bool {
        if test.size.is_none() && test.magic.is_none() && test.contains.is_none() {
            return true;
        }
        let Some(bytes) = self.tree.bytes(path) else { return false };
        let size = test.size.is_none_or(|size| size.holds(bytes.len() as u64));
        let magic = test.magic.as_ref().is_none_or(|magic| {
            let offset = usize::try_from(magic.offset).expect("offsets in tests are small");
            bytes.get(offset..).is_some_and(|bytes| bytes.starts_with(&magic.bytes))
        });
        let contains = test.contains.as_ref().is_none_or(|text| {
            let first = &bytes[..bytes.len().min(1 << 20)];
            text.is_empty() || first.windows(text.len()).any(|window| window == text.as_bytes())
        });
        size && magic && contains
    }

    /// The values that a match of `sub` at `dir` shows for the captures that `sub` declares: those of the smallest of
    /// `yields` that agrees with `outer`, and for what is unset then, those of optional and recommended clauses.
    fn values(&self, sub: &Subpattern, scope: &Scope, dir: &Dir, outer: &Mapping, yields: &Yields) -> Mapping {
        let scope = scope.within(sub);
        let outer: Mapping = without_captures(outer, &sub.captures);
        let smallest = |yields: &Yields, known: &Mapping| {
            let sure = yields.iter().filter(|(mapping, truth)| **truth == Truth::Sure && agree(mapping, known));
            sure.map(|(mapping, _)| mapping.clone()).min_by_key(|mapping| ordered(mapping, &scope))
        };
        let own = |mapping: Mapping| -> Mapping {
            mapping.into_iter().filter(|(name, _)| sub.captures.contains_key(name)).collect()
        };
        let mut values = smallest(yields, &outer).map(own).unwrap_or_default();
        let body = &sub.body;
        let files = |clauses: &[FileClause]| -> Vec<Yields> {
            clauses.iter().map(|clause| self.file_clause(clause, &scope, dir)).collect()
        };
        let directories = |clauses: &[DirClause]| -> Vec<Yields> {
            clauses.iter().map(|clause| self.dir_clause(clause, &scope, dir)).collect()
        };
        for yields in [
            files(&body.optional_files),
            directories(&body.optional_directories),
            files(&body.recommended_files),
            directories(&body.recommended_directories),
        ]
        .concat()
        {
            let known = union(&outer, &values).expect("they share no capture");
            if let Some(more) = smallest(&yields, &known) {
                values = union(&values, &own(more)).expect("it agrees");
            }
        }
        values
    }

    /// Adds what a match of `sub` at `dir` shows, where captures have `values`, those that `sub` declares included.
    fn show(
        &self,
        sub: &Subpattern,
        scope: &Scope,
        dir: &Dir,
        values: &Mapping,
        at: &Real,
        shown: &mut BTreeSet<Real>,
    ) {
        if sub.opaque || names_nothing(&sub.body) {
            self.show_whole(dir, at, shown);
        } else {
            self.show_body(&sub.body, &scope.within(sub), dir, values, at, shown);
        }
    }

    /// Adds the whole subtree of `dir`.
    fn show_whole(&self, dir: &Dir, at: &Real, shown: &mut BTreeSet<Real>) {
        let files = dir.entries.iter().flatten().filter(|(_, kind)| kind.is_file());
        shown.extend(files.map(|(name, _)| append(at, name)));
        for child in self.children(dir) {
            let at = append(at, &child.name);
            shown.insert(at.clone());
            if !child.is_loop() {
                self.show_whole(&child, &at, shown);
            }
        }
    }

    fn show_body(
        &self,
        body: &Body,
        scope: &Scope,
        dir: &Dir,
        values: &Mapping,
        at: &Real,
        shown: &mut BTreeSet<Real>,
    ) {
        for clause in body.files.iter().chain(&body.optional_files).chain(&body.recommended_files) {
            self.show_files(clause, scope, dir, values, at, shown);
        }
        for clause in body.directories.iter().chain(&body.optional_directories).chain(&body.recommended_directories) {
            self.show_directories(clause, scope, dir, values, at, shown);
        }
        for alternative in &body.any_of {
            if holds(&self.body(alternative, scope, dir), values) {
                self.show_body(alternative, scope, dir, values, at, shown);
            }
        }
    }

    fn show_files(
        &self,
        clause: &FileClause,
        scope: &Scope,
        dir: &Dir,
        values: &Mapping,
        at: &Real,
        shown: &mut BTreeSet<Real>,
    ) {
        match clause {
            FileClause::AnyOf(clauses) => {
                for clause in clauses.iter().filter(|clause| holds(&self.file_clause(clause, scope, dir), values)) {
                    self.show_files(clause, scope, dir, values, at, shown);
                }
            }
            FileClause::One(test) => {
                for (path, mappings) in self.files(test, scope, dir).files {
                    if mappings.iter().any(|mapping| agree(mapping, values)) {
                        let seen = self.seen(dir, &path);
                        shown.extend((1..=seen).map(|len| [&at[..], &path[..len]].concat()));
                    }
                }
            }
        }
    }

    /// How many components of the `path` below `dir` the view has: a link back is shown, but nothing below it.
    fn seen(&self, dir: &Dir, path: &[Name]) -> usize {
        let mut at = dir.clone();
        for (above, name) in path.iter().enumerate() {
            match self.children(&at).into_iter().find(|child| child.name == *name) {
                Some(child) if child.is_loop() => return above + 1,
                Some(child) => at = child,
                None => {}
            }
        }
        path.len()
    }

    fn show_directories(
        &self,
        clause: &DirClause,
        scope: &Scope,
        dir: &Dir,
        values: &Mapping,
        at: &Real,
        shown: &mut BTreeSet<Real>,
    ) {
        match clause {
            DirClause::AnyOf(clauses) => {
                for clause in clauses.iter().filter(|clause| holds(&self.dir_clause(clause, scope, dir), values)) {
                    self.show_directories(clause, scope, dir, values, at, shown);
                }
            }
            DirClause::One(sub) => {
                let outer = without_captures(values, &sub.captures);
                for child in self.children(dir) {
                    let yields = self.subpattern(sub, scope, &child);
                    if holds(&yields, &outer) {
                        let own = self.values(sub, scope, &child, &outer, &yields);
                        let values = union(&outer, &own).expect("they share no capture");
                        let at = append(at, &child.name);
                        shown.insert(at.clone());
                        if !child.is_loop() {
                            self.show(sub, scope, &child, &values, &at, shown);
                        }
                    }
                }
            }
        }
    }
}

/// How far along a path glob we are.
#[derive(Clone, Debug)]
struct Way {
    /// The path below the directory that the glob starts from.
    below: Real,
    mapping: Mapping,
}

impl Way {
    fn down(&self, child: &Dir, mapping: Mapping) -> Self {
        Self { below: append(&self.below, &child.name), mapping }
    }
}

/// What a file clause with these files yields.
fn counted(test: &FileTest, found: &Found) -> Yields {
    let max = test.max.map_or(usize::MAX, |max| max as usize);
    let min = test.min as usize;
    let can_exceed = |unread: bool| unread && test.max.is_some();
    if min == 0 {
        return match found.files.len() {
            count if count > max => Yields::new(),
            _ if can_exceed(!found.unread.is_empty()) => unknown([Mapping::new()]),
            _ => sure([Mapping::new()]),
        };
    }
    let mut yields = Yields::new();
    for mapping in found.files.values().flatten() {
        let count = found.files.values().filter(|file| file.iter().any(|other| agree(other, mapping))).count();
        let unread = found.unread.iter().any(|other| agree(other, mapping));
        if count > max || (count < min && !unread) {
            continue;
        }
        add(&mut yields, mapping, if count < min || can_exceed(unread) { Truth::Unknown } else { Truth::Sure });
    }
    for mapping in &found.unread {
        // Those that agree with whatever values the captures that `mapping` leaves open may get.
        let is_counted = |file: &Mapping| agree(file, mapping) && file.keys().all(|name| mapping.contains_key(name));
        if found.files.values().filter(|file| file.iter().any(is_counted)).count() <= max {
            add(&mut yields, mapping, Truth::Unknown);
        }
    }
    yields
}

/// True if neither the body nor its alternatives name files or directories, forbidden ones aside.
fn names_nothing(body: &Body) -> bool {
    body.files.is_empty()
        && body.directories.is_empty()
        && body.optional_files.is_empty()
        && body.optional_directories.is_empty()
        && body.recommended_files.is_empty()
        && body.recommended_directories.is_empty()
        && body.any_of.iter().all(names_nothing)
}

/// True if a clause surely yields a mapping that agrees with `values`.
fn holds(yields: &Yields, values: &Mapping) -> bool {
    yields.iter().any(|(mapping, truth)| *truth == Truth::Sure && agree(mapping, values))
}

/// The key by which mappings are compared: in the order of names, values by bytes, unset after set.
fn ordered(mapping: &Mapping, scope: &Scope) -> Vec<(bool, Vec<u8>)> {
    scope
        .captures
        .keys()
        .map(|name| mapping.get(name))
        .map(|value| (value.is_none(), value.cloned().unwrap_or_default()))
        .collect()
}

fn sure(mappings: impl IntoIterator<Item = Mapping>) -> Yields {
    mappings.into_iter().map(|mapping| (mapping, Truth::Sure)).collect()
}

fn unknown(mappings: impl IntoIterator<Item = Mapping>) -> Yields {
    mappings.into_iter().map(|mapping| (mapping, Truth::Unknown)).collect()
}

fn add(yields: &mut Yields, mapping: &Mapping, truth: Truth) {
    let known = yields.entry(mapping.clone()).or_insert(truth);
    *known = truth.max(*known);
}

/// All that any of them yields.
fn either(clauses: impl IntoIterator<Item = Yields>) -> Yields {
    let mut yields = Yields::new();
    for clause in clauses {
        clause.iter().for_each(|(mapping, truth)| add(&mut yields, mapping, *truth));
    }
    yields
}

/// The agreeing unions of one mapping from each.
fn both(a: &Yields, b: &Yields) -> Yields {
    let mut yields = Yields::new();
    for (one, one_truth) in a {
        for (other, other_truth) in b {
            if let Some(mapping) = union(one, other) {
                add(&mut yields, &mapping, *one_truth.min(other_truth));
            }
        }
    }
    yields
}

/// The mappings that agree with none of `forbidden`.
fn without(yields: &Yields, forbidden: &Yields) -> Yields {
    let mut left = Yields::new();
    for (mapping, truth) in yields {
        match forbidden.iter().filter(|(other, _)| agree(mapping, other)).map(|(_, truth)| truth).max() {
            Some(Truth::Sure) => {}
            Some(Truth::Unknown) => add(&mut left, mapping, Truth::Unknown),
            None => add(&mut left, mapping, *truth),
        }
    }
    left
}

/// The same mappings, the captures that a subpattern declares dropped.
fn dropped(yields: &Yields, declared: &BTreeMap<String, String>) -> Yields {
    let mut left = Yields::new();
    yields.iter().for_each(|(mapping, truth)| add(&mut left, &without_captures(mapping, declared), *truth));
    left
}

fn without_captures(mapping: &Mapping, declared: &BTreeMap<String, String>) -> Mapping {
    mapping.iter().filter(|(name, _)| !declared.contains_key(*name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn append(path: &[Name], name: &[u8]) -> Real {
    [path, &[name.to_vec()]].concat()
}
