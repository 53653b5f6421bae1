//! Pattern → [`Automaton`]: globs read, captures resolved, paths unfolded to states, equal states made one.

use std::collections::HashMap;
use std::rc::Rc;

use super::capture::{Capture, CaptureError};
use super::glob::{self, Glob};
use super::load::clip;
use super::{Body, DirClause, FileClause, FileTest, Pattern, PatternError, Subpattern, item, key};
use crate::automaton::{Atom, Automaton, Expr, Part, Role, State, StateId, Test, TestId, Top, Triggers};
use crate::matcher::bits::Bits;
use crate::matcher::mapping::CaptureId;
use crate::matcher::names::{GlobId, NameSet};
use crate::view::layout::Layout;

/// The most states or globs of one automaton.
const MAX_PARTS: usize = 50_000;
/// The most captures of one automaton, and the most memory that their expressions may take together, in bytes.
const MAX_CAPTURES: usize = 1000;
const CAPTURES_BYTES: usize = 32 << 20;
/// The most errors that are told.
const MAX_ERRORS: usize = 100;
/// The longest glob, in bytes.
const MAX_GLOB_BYTES: usize = 4096;

/// Compiles patterns to one automaton; a pattern's place in the slice is its [`crate::automaton::PatternId`].
///
/// # Errors
/// All that is wrong in their globs, captures, layouts and names, each with its place.
pub fn compile(patterns: &[Pattern]) -> Result<Automaton, Vec<PatternError>> {
    compile_with(patterns, Compiler::default()).map(|(automaton, _)| automaton)
}

/// What the clauses of one pattern became, by their places in it (`directories[0].files[2]`, `""` for the whole).
#[derive(Debug, Default)]
pub struct Places {
    /// Clauses, alternatives of `any_of`, and globs for names.
    pub exprs: HashMap<String, Expr>,
    /// The pattern itself and its subpatterns.
    pub states: HashMap<String, StateId>,
}

/// Compiles one pattern, and tells what became of its clauses; places begin where the pattern does.
///
/// # Errors
/// Those of [`compile`].
pub fn compile_placed(pattern: &Pattern) -> Result<(Automaton, Places), Vec<PatternError>> {
    let pattern = Pattern { place: String::new(), ..pattern.clone() };
    compile_with(&[pattern], Compiler { places: Some(Places::default()), ..Compiler::default() })
}

fn compile_with(patterns: &[Pattern], mut compiler: Compiler) -> Result<(Automaton, Places), Vec<PatternError>> {
    let mut tops = Vec::new();
    let mut named: HashMap<&str, &Pattern> = HashMap::new();
    for pattern in patterns {
        compiler.origin = pattern.origin.clone();
        let twin = *named.entry(&pattern.name).or_insert(pattern);
        if !std::ptr::eq(twin, pattern) {
            let hint = if (&twin.origin, &twin.place) == (&pattern.origin, &pattern.place) {
                "it was given twice".to_owned()
            } else {
                format!("the other is in {}; give one of them another `name`", twin.origin)
            };
            let message = format!("a second pattern named `{}`", pattern.name);
            compiler.error(&key(&pattern.place, "name"), message, Some(hint));
        }
        let first_capture = compiler.captures.len();
        let state = compiler.subpattern(&pattern.root, &Scope::default(), &pattern.place);
        let captures: Vec<CaptureId> =
            (first_capture as u32..).take(pattern.root.captures.len()).map(CaptureId).collect();
        let names: Vec<(&str, CaptureId)> =
            pattern.root.captures.keys().map(String::as_str).zip(captures.iter().copied()).collect();
        let layout = pattern.layout.as_ref().and_then(|text| {
            Layout::parse(text, &names)
                .map_err(|error| compiler.error(&key(&pattern.place, "layout"), error.message, error.hint))
                .ok()
        });
        tops.push(Top {
            name: pattern.name.clone(),
            state,
            prune: pattern.prune,
            opaque: pattern.root.opaque,
            layout,
            captures,
        });
    }
    let places = compiler.places.take().unwrap_or_default();
    compiler.finish(tops).map(|automaton| (automaton, places))
}

/// What holds for all globs at a place.
#[derive(Clone, Default)]
struct Scope {
    captures: Rc<Vec<Capture>>,
    case_insensitive: bool,
}

#[derive(Default)]
struct Compiler {
    origin: String,
    errors: Vec<PatternError>,
    globs: Vec<Glob>,
    glob_ids: HashMap<Glob, GlobId>,
    states: Vec<State>,
    state_ids: HashMap<State, StateId>,
    /// For each state, the captures of enclosing patterns that it uses.
    free: Vec<Vec<CaptureId>>,
    tests: Vec<Test>,
    test_ids: HashMap<Test, TestId>,
    captures: Vec<Capture>,
    /// What the expressions of captures take, in bytes.
    captures_bytes: usize,
    /// Filled where somebody asks what became of clauses.
    places: Option<Places>,
}

impl Compiler {
    fn note(&mut self, place: &str, expr: &Expr) {
        if let Some(places) = &mut self.places {
            places.exprs.insert(place.to_owned(), expr.clone());
        }
    }

    fn note_glob(&mut self, place: &str, glob: Option<GlobId>) {
        if let Some(glob) = glob {
            self.note(place, &Expr::Name(glob));
        }
    }

    fn error(&mut self, place: &str, message: impl Into<String>, hint: Option<String>) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        self.errors.push(PatternError {
            origin: self.origin.clone(),
            place: place.to_owned(),
            message: message.into(),
            hint,
        });
    }

    /// `None` for a glob that any name matches, and for one that is wrong, which is then reported.
    fn name_glob(&mut self, text: &str, scope: &Scope, fold: bool, place: &str) -> Option<GlobId> {
        let glob = self.parse(text, scope, fold, place)?;
        (!glob.is_any()).then(|| self.intern(glob))
    }

    fn parse(&mut self, text: &str, scope: &Scope, fold: bool, place: &str) -> Option<Glob> {
        if self.errors.len() >= MAX_ERRORS {
            // Hints are looked for at length.
            return None;
        }
        if text.len() > MAX_GLOB_BYTES {
            self.error(place, format!("a glob of {} bytes", text.len()), Some(format!("at most {MAX_GLOB_BYTES}")));
            return None;
        }
        match Glob::parse(text, &scope.captures, fold) {
            Ok(glob) => Some(glob),
            Err(error) => {
                self.error(
                    place,
                    format!("in glob `{}`, character {}: {}", clip(text), error.column, error.message),
                    error.hint,
                );
                None
            }
        }
    }

    fn intern(&mut self, glob: Glob) -> GlobId {
        let next = GlobId(self.globs.len() as u32);
        *self.glob_ids.entry(glob).or_insert_with_key(|glob| {
            self.globs.push(glob.clone());
            next
        })
    }

    fn globs(&mut self, texts: &[String], scope: &Scope, place: &str) -> Vec<GlobId> {
        let mut ids: Vec<GlobId> = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            if let Some(glob) = self.parse(text, scope, scope.case_insensitive, &item(place, at)) {
                ids.push(self.intern(glob));
                self.note_glob(&item(place, at), ids.last().copied());
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn declare(&mut self, pattern: &Subpattern, scope: &Scope, place: &str) -> (Scope, Vec<CaptureId>) {
        let mut inner = scope.clone();
        inner.case_insensitive |= pattern.case_insensitive;
        let mut declared = Vec::new();
        for (name, expression) in &pattern.captures {
            let place = key(&key(place, "captures"), name);
            if self.captures.len() >= MAX_CAPTURES || self.captures_bytes > CAPTURES_BYTES {
                self.too_many_captures(&place);
                break;
            }
            let id = CaptureId(self.captures.len() as u32);
            // `case_insensitive` is about globs; an expression says `(?i)` itself.
            match Capture::new(name, id, expression) {
                Ok(capture) => {
                    self.captures_bytes += capture.bytes();
                    self.captures.push(capture.clone());
                    Rc::make_mut(&mut inner.captures).push(capture);
                    declared.push(id);
                }
                Err(CaptureError::Anchor) => {
                    let hint = "leave out `^`, `$` and `\\b`: the expression always matches a whole value";
                    let message = format!("an anchor in the expression `{}`", clip(expression));
                    self.error(&place, message, Some(hint.into()));
                }
                Err(CaptureError::Wrong(reason)) => {
                    let hint = "it is a regular expression for one name's part, such as `sub-[0-9]+`";
                    let message = format!("the expression `{}` is wrong: {reason}", clip(expression));
                    self.error(&place, message, Some(hint.into()));
                }
            }
        }
        (inner, declared)
    }

    fn too_many_captures(&mut self, place: &str) {
        let message = "too many or too large captures in all patterns together";
        if self.errors.last().is_none_or(|last| last.message != message) {
            let hint = format!("at most {MAX_CAPTURES}, of {} MiB compiled", CAPTURES_BYTES >> 20);
            self.error(place, message, Some(hint));
        }
    }

    fn subpattern(&mut self, pattern: &Subpattern, scope: &Scope, place: &str) -> StateId {
        let (scope, declares) = self.declare(pattern, scope, place);
        let name = pattern
            .body
            .directory_name
            .as_ref()
            .and_then(|text| self.name_glob(text, &scope, scope.case_insensitive, &key(place, "directory_name")));
        self.note_glob(&key(place, "directory_name"), name);
        let forbidden_names = self.globs(&pattern.forbidden_names, &scope, &key(place, "forbidden_names"));
        let forbidden_ancestors = self.globs(&pattern.forbidden_ancestors, &scope, &key(place, "forbidden_ancestors"));
        let mut parts = self.body(&pattern.body, &scope, place);
        if let Some(glob) = name.filter(|glob| !self.globs[glob.index()].captures().is_empty()) {
            parts.insert(0, Part { role: Role::Required, expr: Expr::Name(glob), label: None });
        }
        let whole = pattern.opaque || !names_anything(&pattern.body);
        let state = self.state(State {
            name,
            forbidden_names,
            forbidden_ancestors,
            body: Expr::All(parts),
            declares,
            whole,
            closed: true,
            counts: false,
            path: false,
        });
        if let Some(places) = &mut self.places {
            places.states.insert(place.to_owned(), state);
        }
        state
    }

    fn body(&mut self, body: &Body, scope: &Scope, place: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        let roles = [
            (Role::Required, "", &body.files, &body.directories),
            (Role::Forbidden, "forbidden_", &body.forbidden_files, &body.forbidden_directories),
            (Role::Optional, "optional_", &body.optional_files, &body.optional_directories),
            (Role::Recommended, "recommended_", &body.recommended_files, &body.recommended_directories),
        ];
        for (role, prefix, files, directories) in roles {
            let labelled = |label: String| (role != Role::Optional).then_some(label);
            for (at, clause) in files.iter().enumerate() {
                let place = item(&key(place, &format!("{prefix}files")), at);
                let expr = self.file_clause(clause, scope, &place);
                parts.push(Part { role, expr, label: labelled(file_label(clause)) });
            }
            for (at, clause) in directories.iter().enumerate() {
                let place = item(&key(place, &format!("{prefix}directories")), at);
                let expr = self.dir_clause(clause, scope, &place);
                parts.push(Part { role, expr, label: labelled(dir_label(clause)) });
            }
        }
        if !body.any_of.is_empty() {
            let alternatives = body.any_of.iter().enumerate().map(|(at, alternative)| {
                let place = item(&key(place, "any_of"), at);
                let mut parts = self.body(alternative, scope, &place);
                if let Some(text) = &alternative.directory_name {
                    let glob = self.name_glob(text, scope, scope.case_insensitive, &key(&place, "directory_name"));
                    self.note_glob(&key(&place, "directory_name"), glob);
                    parts.extend(glob.map(|glob| Part { role: Role::Required, expr: Expr::Name(glob), label: None }));
                }
                self.order(&mut parts);
                let alternative = Expr::All(parts);
                self.note(&place, &alternative);
                alternative
            });
            let expr = Expr::Any(alternatives.collect());
            self.note(&key(place, "any_of"), &expr);
            parts.push(Part { role: Role::Required, expr, label: None });
        }
        parts
    }

    fn file_clause(&mut self, clause: &FileClause, scope: &Scope, place: &str) -> Expr {
        let expr = match clause {
            FileClause::One(test) => self.file_test(test, scope, place),
            FileClause::AnyOf(list) => Expr::Any(
                list.iter().enumerate().map(|(at, clause)| self.file_clause(clause, scope, &item(place, at))).collect(),
            ),
        };
        self.note(place, &expr);
        expr
    }

    fn dir_clause(&mut self, clause: &DirClause, scope: &Scope, place: &str) -> Expr {
        let expr = match clause {
            DirClause::One(pattern) => {
                Expr::Count { of: vec![Atom::Child(self.subpattern(pattern, scope, place))], min: 1, max: None }
            }
            DirClause::AnyOf(list) => Expr::Any(
                list.iter().enumerate().map(|(at, clause)| self.dir_clause(clause, scope, &item(place, at))).collect(),
            ),
        };
        self.note(place, &expr);
        expr
    }

    fn file_test(&mut self, test: &FileTest, scope: &Scope, place: &str) -> Expr {
        let fold = test.case_insensitive.unwrap_or(scope.case_insensitive);
        let nothing = Expr::All(Vec::new());
        let mut parts = match glob::components(&test.glob) {
            Ok(parts) => parts,
            Err(error) => {
                let message = format!("in glob `{}`, character {}: {}", clip(&test.glob), error.column, error.message);
                self.error(place, message, error.hint);
                return nothing;
            }
        };
        if parts.len() > super::MAX_DEPTH {
            self.error(
                place,
                format!("a path of {} components", parts.len()),
                Some(format!("at most {}", super::MAX_DEPTH)),
            );
            return nothing;
        }
        parts.dedup_by(|b, a| *a == "**" && *b == "**");
        if parts.len() > 1 && parts.last() == Some(&"**") {
            parts.push("*");
        }
        let counting = test.min != 1 || test.max.is_some();
        if counting && parts.len() > 1 && parts.iter().filter(|part| **part == "**").count() > 1 {
            let hint = "a file could be counted twice; leave out `min` and `max`, or one of the `**`";
            self.error(place, format!("`{}` counts through more than one `**`", clip(&test.glob)), Some(hint.into()));
            return nothing;
        }
        let mut tests: Vec<TestId> = Vec::new();
        tests.extend(test.size.map(|size| self.test(Test::Size(size))));
        tests.extend(test.magic.clone().map(|magic| self.test(Test::Magic(magic))));
        tests.extend(test.contains.as_ref().map(|text| self.test(Test::Contains(text.clone().into_bytes()))));

        let Some((file, dirs)) = parts.split_last() else { return nothing };
        let Some(glob) = self.parse(file, scope, fold, place) else { return nothing };
        let plain_any = glob.is_any() && tests.is_empty() && !counting;
        let file = Atom::File((!plain_any).then(|| self.intern(glob)), tests);
        let Some(of) = self.below(dirs, file, counting, scope, fold, place) else { return nothing };
        Expr::Count { of, min: test.min, max: test.max }
    }

    /// The atoms of a directory that stand for `file` below `dirs`; `None` after an error.
    fn below(
        &mut self,
        dirs: &[&str],
        file: Atom,
        counts: bool,
        scope: &Scope,
        fold: bool,
        place: &str,
    ) -> Option<Vec<Atom>> {
        let Some((dir, rest)) = dirs.split_first() else { return Some(vec![file]) };
        let inner = self.below(rest, file, counts, scope, fold, place)?;
        let state = |name, atoms: Vec<Atom>| State {
            name,
            forbidden_names: Vec::new(),
            forbidden_ancestors: Vec::new(),
            body: if counts { Expr::Sum(atoms) } else { Expr::Count { of: atoms, min: 1, max: None } },
            declares: Vec::new(),
            whole: false,
            closed: true,
            counts,
            path: false,
        };
        if *dir == "**" {
            let mut here = inner.clone();
            here.push(Atom::Child(StateId::OWN));
            let below = self.state(state(None, here));
            let mut atoms = inner;
            atoms.push(Atom::Child(below));
            return Some(atoms);
        }
        let glob = self.parse(dir, scope, fold, place)?;
        let name = (!glob.is_any()).then(|| self.intern(glob));
        let mut state = state(name, inner);
        if let Some(glob) = name.filter(|glob| !self.globs[glob.index()].captures().is_empty()) {
            state.path = true;
            if !counts {
                let named = Part { role: Role::Required, expr: Expr::Name(glob), label: None };
                state.body = Expr::All(vec![named, Part { role: Role::Required, expr: state.body, label: None }]);
            }
        }
        Some(vec![Atom::Child(self.state(state))])
    }

    fn test(&mut self, test: Test) -> TestId {
        let next = TestId(self.tests.len() as u32);
        *self.test_ids.entry(test).or_insert_with_key(|test| {
            self.tests.push(test.clone());
            next
        })
    }

    /// Numbers a state, the same one for equal states, after working out what it depends on.
    fn state(&mut self, mut state: State) -> StateId {
        let mut free = Vec::new();
        self.collect_free(&state.body, &mut free);
        free.extend(state.name.iter().flat_map(|glob| self.globs[glob.index()].captures()));
        free.retain(|id| !state.declares.contains(id));
        free.sort_unstable();
        free.dedup();
        state.closed = free.is_empty();
        if let Expr::All(parts) = &mut state.body {
            self.order(parts);
        }
        let next = StateId(self.states.len() as u32);
        *self.state_ids.entry(state).or_insert_with_key(|state| {
            self.states.push(state.clone());
            self.free.push(free);
            next
        })
    }

    /// Decisive and cheap parts first, tests of content last; the matcher stops at the first part that decides nothing.
    fn order(&self, parts: &mut [Part]) {
        let cost = |part: &Part| if decides(part.role) == 0 { self.cost(&part.expr) } else { 0 };
        parts.sort_by_cached_key(|part| (decides(part.role), cost(part)));
    }

    fn collect_free(&self, expr: &Expr, into: &mut Vec<CaptureId>) {
        match expr {
            Expr::All(parts) => parts.iter().for_each(|part| self.collect_free(&part.expr, into)),
            Expr::Any(list) => list.iter().for_each(|expr| self.collect_free(expr, into)),
            Expr::Name(glob) => into.extend(self.globs[glob.index()].captures()),
            Expr::Count { of, .. } | Expr::Sum(of) => {
                for atom in of {
                    match atom {
                        Atom::File(Some(glob), _) => into.extend(self.globs[glob.index()].captures()),
                        Atom::File(None, _) | Atom::Child(StateId::OWN) => {}
                        Atom::Child(child) => into.extend(&self.free[child.index()]),
                    }
                }
            }
        }
    }

    fn cost(&self, expr: &Expr) -> u32 {
        match expr {
            Expr::Name(_) => 0,
            Expr::All(parts) => parts.iter().map(|part| self.cost(&part.expr)).max().unwrap_or(0),
            Expr::Any(list) => list.iter().map(|expr| self.cost(expr)).max().unwrap_or(0),
            Expr::Count { of, .. } | Expr::Sum(of) => of
                .iter()
                .map(|atom| match atom {
                    Atom::File(_, tests) if !tests.is_empty() => 3,
                    Atom::File(Some(glob), _) if !self.globs[glob.index()].captures().is_empty() => 2,
                    _ => 1,
                })
                .max()
                .unwrap_or(0),
        }
    }

    fn finish(mut self, tops: Vec<Top>) -> Result<Automaton, Vec<PatternError>> {
        for (parts, what) in [(self.states.len(), "subpatterns"), (self.globs.len(), "globs")] {
            if parts > MAX_PARTS {
                self.error(
                    "",
                    format!("{parts} {what} in all patterns together"),
                    Some(format!("at most {MAX_PARTS}")),
                );
            }
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        for at in 0..self.states.len() {
            own_to(&mut self.states[at].body, StateId(at as u32));
        }
        let globs = self.globs.len();
        let mut automaton = Automaton {
            names: NameSet::new(self.globs, self.captures).map_err(|error| {
                vec![PatternError {
                    origin: self.origin.clone(),
                    place: String::new(),
                    message: error.to_string(),
                    hint: Some("use fewer or shorter globs, and narrower captures".into()),
                }]
            })?,
            triggers: Triggers {
                by_file: vec![Vec::new(); globs],
                by_name: vec![Vec::new(); globs],
                by_child: vec![Vec::new(); self.states.len()],
                always: Vec::new(),
            },
            detailed: Bits::new(globs),
            tested_globs: Bits::new(globs),
            file_globs: Bits::new(globs),
            dir_globs: Bits::new(globs),
            ancestor_globs: Bits::new(globs),
            any_file: false,
            any_dir: false,
            subs: Bits::new(self.states.len()),
            recursive: Bits::new(self.states.len()),
            states: self.states,
            tests: self.tests,
            tops,
        };
        index(&mut automaton);
        Ok(automaton)
    }
}

/// Fills the tables that say which states and globs matter where.
fn index(automaton: &mut Automaton) {
    let mut subs = std::mem::take(&mut automaton.subs);
    for at in 0..automaton.states.len() {
        automaton.asked_of_children(StateId(at as u32), &mut subs);
    }
    automaton.subs = subs;
    for at in 0..automaton.states.len() {
        let mut asked = Bits::new(automaton.states.len());
        automaton.asked_of_children(StateId(at as u32), &mut asked);
        if asked.contains(at) {
            automaton.recursive.insert(at);
        }
    }
    let Automaton {
        names,
        states,
        triggers,
        detailed,
        tested_globs,
        file_globs,
        dir_globs,
        ancestor_globs,
        any_file,
        any_dir,
        subs,
        ..
    } = automaton;
    for (id, state) in (0..).map(StateId).zip(states.iter()) {
        match state.name {
            Some(glob) => triggers.by_name[glob.index()].push(id),
            None => match trigger(&state.body) {
                Some(Atom::File(Some(glob), _)) => triggers.by_file[glob.index()].push(id),
                Some(Atom::Child(child)) => triggers.by_child[child.index()].push(id),
                _ => triggers.always.push(id),
            },
        }
        // A directory behind a link matters to subpatterns alone.
        let sub = subs.contains(id.index());
        *any_dir |= sub && state.name.is_none();
        let own = state.name.iter().chain(&state.forbidden_names).chain(&state.forbidden_ancestors);
        own.filter(|_| sub).for_each(|glob| dir_globs.insert(glob.index()));
        state.forbidden_ancestors.iter().for_each(|glob| ancestor_globs.insert(glob.index()));
        each_count(&state.body, &mut |expr| match expr {
            Expr::Name(glob) if sub => dir_globs.insert(glob.index()),
            Expr::Count { of, .. } | Expr::Sum(of) => {
                let simple = matches!(expr, Expr::Count { min: 1, max: None, .. });
                for atom in of {
                    match atom {
                        Atom::File(Some(glob), tests) => {
                            file_globs.insert(glob.index());
                            if !simple || !tests.is_empty() || !names.glob(*glob).captures().is_empty() {
                                detailed.insert(glob.index());
                            }
                            if !tests.is_empty() {
                                tested_globs.insert(glob.index());
                            }
                        }
                        Atom::File(None, _) => *any_file = true,
                        Atom::Child(_) => {}
                    }
                }
            }
            Expr::Name(_) | Expr::All(_) | Expr::Any(_) => {}
        });
    }
}

fn each_count(expr: &Expr, each: &mut impl FnMut(&Expr)) {
    match expr {
        Expr::All(parts) => parts.iter().for_each(|part| each_count(&part.expr, each)),
        Expr::Any(list) => list.iter().for_each(|expr| each_count(expr, each)),
        leaf => each(leaf),
    }
}

/// An atom without which the expression cannot hold.
fn trigger(expr: &Expr) -> Option<&Atom> {
    match expr {
        Expr::All(parts) => {
            parts.iter().filter(|part| part.role == Role::Required).find_map(|part| trigger(&part.expr))
        }
        Expr::Count { of, min: 1.., .. } | Expr::Sum(of) if of.len() == 1 => {
            of.first().filter(|atom| !matches!(atom, Atom::File(None, _)))
        }
        _ => None,
    }
}

fn own_to(expr: &mut Expr, id: StateId) {
    match expr {
        Expr::All(parts) => parts.iter_mut().for_each(|part| own_to(&mut part.expr, id)),
        Expr::Any(list) => list.iter_mut().for_each(|expr| own_to(expr, id)),
        Expr::Name(_) => {}
        Expr::Count { of, .. } | Expr::Sum(of) => {
            for atom in of.iter_mut().filter(|atom| **atom == Atom::Child(StateId::OWN)) {
                *atom = Atom::Child(id);
            }
        }
    }
}

fn decides(role: Role) -> u8 {
    match role {
        Role::Required | Role::Forbidden => 0,
        Role::Optional => 1,
        Role::Recommended => 2,
    }
}

fn names_anything(body: &Body) -> bool {
    !(body.files.is_empty()
        && body.directories.is_empty()
        && body.optional_files.is_empty()
        && body.optional_directories.is_empty()
        && body.recommended_files.is_empty()
        && body.recommended_directories.is_empty())
        || body.any_of.iter().any(names_anything)
}

fn file_label(clause: &FileClause) -> String {
    match clause {
        FileClause::One(test) => test.glob.clone(),
        FileClause::AnyOf(list) => list.iter().map(file_label).collect::<Vec<_>>().join(" or "),
    }
}

fn dir_label(clause: &DirClause) -> String {
    match clause {
        DirClause::One(pattern) => format!("{}/", pattern.body.directory_name.as_deref().unwrap_or("*")),
        DirClause::AnyOf(list) => list.iter().map(dir_label).collect::<Vec<_>>().join(" or "),
    }
}
