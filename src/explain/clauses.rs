//! Clauses × what was read → each met or not, with what met it or what came nearest. Pure.

use super::Question;
use super::cure::words;
use super::near::{Near, Wanted, Why, nearest};
use super::outline::{Content, Dir, Entry, Judged};
use crate::automaton::{Atom, Automaton, Expr, Role, StateId, atoms};
use crate::matcher::mapping::{CaptureId, Mapping};
use crate::matcher::names::GlobId;
use crate::matcher::{Answer, NO, UNKNOWN, Ways, YES};
use crate::pattern::glob::Glob;
use crate::pattern::{Body, DirClause, FileClause, FileTest, Subpattern, item, key};

/// How many names are told of those that met a clause.
pub const SHOWN: usize = 3;
/// The most child directories of which the nearest is sought.
const MOST_CHILDREN: usize = 1_000;
/// How deep the nearest child's nearest child is explained.
const DEEPEST: u32 = 12;

/// Whether a clause holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// That depends on what could not be read.
    Unknown,
}

impl Met {
    fn of(answer: &Answer) -> Met {
        match answer {
            Answer { ways, .. } if *ways != Ways::No => Met::Yes,
            Answer { may, .. } if *may != Ways::No => Met::Unknown,
            _ => Met::No,
        }
    }

    fn negated(self) -> Met {
        match self {
            Met::Yes => Met::No,
            Met::No => Met::Yes,
            Met::Unknown => Met::Unknown,
        }
    }

    fn holds(holds: bool) -> Met {
        if holds { Met::Yes } else { Met::No }
    }
}

/// Why a directory matches, or does not.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Whether it matches.
    pub met: Met,
    /// The captured values, where it does.
    pub captures: Vec<(String, Option<Vec<u8>>)>,
    /// The recommended parts that are missing, where it does.
    pub missing: Vec<String>,
    /// The clauses, in the order of the pattern's keys.
    pub clauses: Vec<Clause>,
    /// Why it could not be read.
    pub unread: Option<String>,
}

/// A clause.
#[derive(Clone, Debug)]
pub struct Clause {
    /// Its place in the pattern: `files[0]`.
    pub place: String,
    /// The key that it stands under: `files`; `directory` for a child that comes nearest, `captures` for values that
    /// have to agree.
    pub key: &'static str,
    /// What it asks for.
    pub asks: String,
    /// Whether it is as the clause wants: a forbidden one is met if nothing is there.
    pub met: Met,
    /// What it found: the first few, by path below the directory.
    pub by: Vec<Vec<u8>>,
    /// How many there are.
    pub count: usize,
    /// What came nearest.
    pub near: Option<Near>,
    /// What more there is to say.
    pub note: Option<String>,
    /// Alternatives, or the clauses of the child that comes nearest.
    pub clauses: Vec<Clause>,
}

impl Clause {
    fn new(place: String, key: &'static str, asks: String, met: Met) -> Self {
        let (by, clauses) = (Vec::new(), Vec::new());
        Self { place, key, asks, met, by, count: 0, near: None, note: None, clauses }
    }

    /// True for those that decide.
    pub fn decides(&self) -> bool {
        !self.key.starts_with("optional") && !self.key.starts_with("recommended")
    }

    fn found(mut self, mut paths: Vec<Vec<u8>>) -> Self {
        self.count = paths.len();
        paths.truncate(SHOWN);
        self.by = paths;
        self
    }
}

/// Explains what was read by a pattern.
pub fn explain(question: &Question, judged: &Judged<'_>) -> Explanation {
    let verdict = &judged.verdict;
    let accepted = verdict.accepted.first();
    let met = match accepted {
        Some(_) => Met::Yes,
        None if verdict.undecided.is_empty() => Met::No,
        None => Met::Unknown,
    };
    let automaton = &question.automaton;
    let captures = accepted.map(|accepted| {
        let value = |id: &CaptureId| accepted.captures.get(*id).map(<[u8]>::to_vec);
        let captures = automaton.tops[0].captures.iter();
        captures.map(|id| (automaton.capture_name(*id).to_owned(), value(id))).collect()
    });
    let explainer = Explainer { question, automaton };
    Explanation {
        met,
        captures: captures.unwrap_or_default(),
        missing: accepted.map(|accepted| accepted.missing.clone()).unwrap_or_default(),
        clauses: explainer.subpattern(&question.pattern.root, "", judged, None, 0),
        unread: if let Content::Unread(reason) = &judged.dir.content { Some(reason.clone()) } else { None },
    }
}

struct Explainer<'a> {
    question: &'a Question,
    automaton: &'a Automaton,
}

impl Explainer<'_> {
    fn answer(&self, place: &str, judged: &Judged<'_>) -> Answer {
        match self.question.places.exprs.get(place) {
            Some(expr) => {
                judged.with_offer(self.automaton, |offer| self.automaton.answer(expr, offer)).unwrap_or(UNKNOWN)
            }
            // What says nothing: a glob that any name matches.
            None => YES,
        }
    }

    fn glob(&self, place: &str) -> Option<&Glob> {
        match self.question.places.exprs.get(place)? {
            Expr::Name(glob) => Some(self.automaton.names.glob(*glob)),
            _ => None,
        }
    }

    fn subpattern(
        &self,
        sub: &Subpattern,
        place: &str,
        judged: &Judged<'_>,
        above: Option<&Judged<'_>>,
        depth: u32,
    ) -> Vec<Clause> {
        let mut clauses = Vec::new();
        for (name, globs) in
            [("forbidden_names", &sub.forbidden_names), ("forbidden_ancestors", &sub.forbidden_ancestors)]
        {
            for (at, glob) in globs.iter().enumerate() {
                let place = item(&key(place, name), at);
                let Some(Expr::Name(id)) = self.question.places.exprs.get(&place) else { continue };
                let names = if name == "forbidden_names" { &judged.globs } else { &judged.above };
                clauses.push(Clause::new(place, name, glob.clone(), Met::holds(!names.contains(id.index()))));
            }
        }
        let mut answers = Vec::new();
        let body = self.body(&sub.body, place, judged, above, depth, &mut answers);
        if let Some(name) = body.first().filter(|clause| clause.key == "directory_name") {
            clauses.insert(0, name.clone());
            clauses.extend(body.into_iter().skip(1));
        } else {
            clauses.extend(body);
        }
        clauses.extend(self.agreement(place, judged, &answers));
        clauses
    }

    /// Those that decide leave their answers in `answers`.
    fn body(
        &self,
        body: &Body,
        place: &str,
        judged: &Judged<'_>,
        above: Option<&Judged<'_>>,
        depth: u32,
        answers: &mut Vec<(String, Role, Answer)>,
    ) -> Vec<Clause> {
        let mut clauses = Vec::new();
        if let Some(name) = body.directory_name.as_ref().filter(|name| !name.is_empty()) {
            let place = key(place, "directory_name");
            let answer = self.answer(&place, judged);
            clauses.push(Clause::new(place.clone(), "directory_name", name.clone(), Met::of(&answer)));
            answers.push((place, Role::Required, answer));
        }
        type List<'a> = (&'static str, &'static str, Role, &'a [FileClause], &'a [DirClause]);
        let lists: [List<'_>; 4] = [
            ("files", "directories", Role::Required, &body.files, &body.directories),
            (
                "forbidden_files",
                "forbidden_directories",
                Role::Forbidden,
                &body.forbidden_files,
                &body.forbidden_directories,
            ),
            (
                "recommended_files",
                "recommended_directories",
                Role::Recommended,
                &body.recommended_files,
                &body.recommended_directories,
            ),
            (
                "optional_files",
                "optional_directories",
                Role::Optional,
                &body.optional_files,
                &body.optional_directories,
            ),
        ];
        for (in_files, in_directories, role, files, directories) in lists {
            let (from, to) = (clauses.len(), answers.len());
            for (at, clause) in files.iter().enumerate() {
                let place = item(&key(place, in_files), at);
                clauses.push(self.file_clause(clause, place.clone(), in_files, judged, above));
                answers.push((place.clone(), role, self.answer(&place, judged)));
            }
            for (at, clause) in directories.iter().enumerate() {
                let place = item(&key(place, in_directories), at);
                clauses.push(self.dir_clause(clause, place.clone(), in_directories, judged, depth));
                answers.push((place.clone(), role, self.answer(&place, judged)));
            }
            if role == Role::Forbidden {
                clauses[from..].iter_mut().for_each(negate);
            } else if role != Role::Required {
                answers.truncate(to);
            }
            if role == Role::Required && !body.any_of.is_empty() {
                clauses.push(self.any_of(body, place, judged, above, depth));
                let place = key(place, "any_of");
                answers.push((place.clone(), role, self.answer(&place, judged)));
            }
        }
        clauses
    }

    fn any_of(&self, body: &Body, place: &str, judged: &Judged<'_>, above: Option<&Judged<'_>>, depth: u32) -> Clause {
        let place = key(place, "any_of");
        let alternatives = body.any_of.iter().enumerate().map(|(at, alternative)| {
            let place = item(&place, at);
            let met = Met::of(&self.answer(&place, judged));
            let mut clause = Clause::new(place.clone(), "alternative", format!("alternative {}", at + 1), met);
            clause.clauses = self.body(alternative, &place, judged, above, depth, &mut Vec::new());
            clause
        });
        let met = Met::of(&self.answer(&place, judged));
        let mut clause = Clause::new(place.clone(), "any_of", "one of these".into(), met);
        clause.clauses = alternatives.collect();
        clause
    }

    // --- files ---

    fn file_clause(
        &self,
        clause: &FileClause,
        place: String,
        key: &'static str,
        judged: &Judged<'_>,
        above: Option<&Judged<'_>>,
    ) -> Clause {
        let answer = self.answer(&place, judged);
        match clause {
            FileClause::AnyOf(list) => {
                let alternatives = list.iter().enumerate();
                let alternatives =
                    alternatives.map(|(at, clause)| self.file_clause(clause, item(&place, at), key, judged, above));
                let mut clause = Clause::new(place.clone(), key, "one of these".into(), Met::of(&answer));
                clause.clauses = alternatives.collect();
                clause
            }
            FileClause::One(test) => {
                let Some(Expr::Count { of, .. }) = self.question.places.exprs.get(&place) else {
                    return Clause::new(place, key, test_words(test), Met::of(&answer));
                };
                let mut found = Found::default();
                self.find(of, judged, &mut Vec::new(), 0, &mut found);
                found.passing.sort();
                found.passing.dedup();
                let met = Met::of(&answer);
                let mut clause = Clause::new(place, key, test_words(test), met).found(found.passing);
                if met == Met::No && key != "forbidden_files" {
                    self.why_no_file(test, of, &found.failing, judged, above, &mut clause);
                } else if clause.by.iter().any(|path| dangles(judged.dir, path)) {
                    clause.note = Some("a link that leads nowhere".into());
                }
                clause
            }
        }
    }

    fn why_no_file(
        &self,
        test: &FileTest,
        of: &[Atom],
        failing: &[(Vec<u8>, String)],
        judged: &Judged<'_>,
        above: Option<&Judged<'_>>,
        clause: &mut Clause,
    ) {
        let count = clause.count as u64;
        if let Some((path, reason)) = failing.first() {
            clause.near = Some(Near { path: path.clone(), why: Why::Content });
            clause.note = Some(reason.clone());
        } else if count > 0 && (count < u64::from(test.min) || test.max.is_some_and(|max| count > u64::from(max))) {
            clause.note = Some(format!("{count} there"));
        } else if count == 0 {
            let captures = self.automaton.names.captures();
            clause.near = of.iter().find_map(|atom| match atom {
                Atom::File(Some(glob), _) => {
                    let glob = self.automaton.names.glob(*glob);
                    nearest(glob, captures, Wanted::File, judged.dir, above.map(|above| above.dir))
                }
                _ => None,
            });
            if clause.near.is_none() {
                clause.near = self.near_path(of, judged, 0);
            }
        }
    }

    /// What comes nearest to a path: the directory that is missing on it, or what is nearly there at its end.
    fn near_path(&self, of: &[Atom], judged: &Judged<'_>, depth: u32) -> Option<Near> {
        let captures = self.automaton.names.captures();
        of.iter().find_map(|atom| {
            let Atom::Child(state) = atom else { return None };
            if self.automaton.recursive.contains(state.index()) || depth > DEEPEST {
                return None;
            }
            let glob = self.automaton.state(*state).name.map(|glob| self.automaton.names.glob(glob));
            let inner = inner_atoms(self.automaton, *state);
            let fitting: Vec<&Judged<'_>> =
                judged.children.iter().filter(|child| name_fits(self.automaton, *state, child)).collect();
            if fitting.is_empty() {
                return nearest(glob?, captures, Wanted::Dir, judged.dir, None);
            }
            fitting.into_iter().find_map(|child| {
                let at_end = inner.iter().find_map(|atom| match atom {
                    Atom::File(Some(glob), _) => {
                        let glob = self.automaton.names.glob(*glob);
                        nearest(glob, captures, Wanted::File, child.dir, Some(judged.dir))
                    }
                    _ => None,
                });
                let near = at_end.or_else(|| self.near_path(&inner, child, depth + 1))?;
                Some(match near.path.strip_prefix(b"../") {
                    Some(path) => Near { path: path.to_vec(), why: near.why },
                    None => Near { path: [&child.dir.name, &b"/"[..], &near.path].concat(), why: near.why },
                })
            })
        })
    }

    /// The files that atoms stand for, with those that fail a test and why.
    fn find(&self, of: &[Atom], judged: &Judged<'_>, path: &mut Vec<u8>, depth: u32, found: &mut Found) {
        const DEEPEST_FOUND: u32 = 200;
        let length = path.len();
        for atom in of {
            match atom {
                Atom::File(glob, tests) => {
                    for file in judged.dir.files().filter(|file| self.matches(*glob, &file.name)) {
                        path.extend_from_slice(&file.name);
                        let failed = tests.iter().find_map(|test| {
                            let test = &self.automaton.tests[test.0 as usize];
                            match file.passes(test) {
                                Some(true) => None,
                                Some(false) if file.dangling => Some("a link that leads nowhere".to_owned()),
                                Some(false) => Some(match (test, file.size) {
                                    (crate::automaton::Test::Size(_), Some(size)) => format!("it has {size} bytes"),
                                    _ => format!("not so that it {}", words(test)),
                                }),
                                None => Some("it cannot be read".to_owned()),
                            }
                        });
                        match failed {
                            None => found.passing.push(path.clone()),
                            Some(reason) => found.failing.push((path.clone(), reason)),
                        }
                        path.truncate(length);
                    }
                }
                Atom::Child(state) if depth < DEEPEST_FOUND => {
                    let inner = inner_atoms(self.automaton, *state);
                    for child in judged.children.iter().filter(|child| name_fits(self.automaton, *state, child)) {
                        if child.dir.looped && self.automaton.recursive.contains(state.index()) {
                            continue;
                        }
                        path.extend_from_slice(&child.dir.name);
                        path.push(b'/');
                        self.find(&inner, child, path, depth + 1, found);
                        path.truncate(length);
                    }
                }
                Atom::Child(_) => {}
            }
        }
    }

    fn matches(&self, glob: Option<GlobId>, name: &[u8]) -> bool {
        glob.is_none_or(|glob| {
            let glob_ = self.automaton.names.glob(glob);
            if glob_.captures().is_empty() {
                glob_.matches(name, self.automaton.names.captures())
            } else {
                self.automaton.mappings(glob, name).is_ok_and(|ways| !ways.is_empty())
            }
        })
    }

    // --- directories ---

    fn dir_clause(
        &self,
        clause: &DirClause,
        place: String,
        key: &'static str,
        judged: &Judged<'_>,
        depth: u32,
    ) -> Clause {
        let met = Met::of(&self.answer(&place, judged));
        match clause {
            DirClause::AnyOf(list) => {
                let alternatives = list.iter().enumerate();
                let alternatives =
                    alternatives.map(|(at, clause)| self.dir_clause(clause, item(&place, at), key, judged, depth));
                let mut clause = Clause::new(place.clone(), key, "one of these".into(), met);
                clause.clauses = alternatives.collect();
                clause
            }
            DirClause::One(sub) => {
                let Some(state) = self.question.places.states.get(&place).copied() else {
                    return Clause::new(place, key, sub_words(sub), met);
                };
                let children = || judged.children.iter();
                let matching = children().filter(|child| child.verdict.summary.yes.contains(state.index()));
                let found = matching.map(|child| child.dir.name.to_vec()).collect();
                let mut clause = Clause::new(place.clone(), key, sub_words(sub), met).found(found);
                let unknown = children().find(|child| child.verdict.summary.may.contains(state.index()));
                match (met, unknown) {
                    (Met::Unknown, Some(child)) => {
                        clause.near = Some(Near { path: child.dir.name.to_vec(), why: Why::Inside });
                        if let Content::Unread(reason) = &child.dir.content {
                            clause.note = Some(format!("cannot be read: {reason}"));
                        } else if depth < DEEPEST {
                            clause.clauses = self.subpattern(sub, &place, child, Some(judged), depth + 1);
                        }
                    }
                    (Met::No, _) if key != "forbidden_directories" => {
                        self.why_no_child(sub, state, judged, depth, &mut clause);
                    }
                    _ => {}
                }
                clause
            }
        }
    }

    fn why_no_child(&self, sub: &Subpattern, state: StateId, judged: &Judged<'_>, depth: u32, clause: &mut Clause) {
        let fitting = judged.children.iter().filter(|child| name_fits(self.automaton, state, child));
        let ranked = fitting.take(MOST_CHILDREN).map(|child| (self.unmet(state, child), child));
        let best = ranked.min_by_key(|((unmet, met), child)| (*unmet, std::cmp::Reverse(*met), child.dir.name.clone()));
        if let Some(((_, met), child)) = best {
            // Of a directory that may have any name, one that has nothing of what is asked is not near.
            if met > 0 || self.automaton.state(state).name.is_some() {
                clause.near = Some(Near { path: child.dir.name.to_vec(), why: Why::Inside });
                if depth < DEEPEST {
                    clause.clauses = self.subpattern(sub, &clause.place, child, Some(judged), depth + 1);
                }
            }
            return;
        }
        let glob = self.glob(&key(&clause.place, "directory_name"));
        let captures = self.automaton.names.captures();
        clause.near = glob.and_then(|glob| nearest(glob, captures, Wanted::Dir, judged.dir, None));
    }

    /// How many of a state's parts a directory does not have, and how many required ones it has.
    fn unmet(&self, state: StateId, child: &Judged<'_>) -> (usize, usize) {
        let Expr::All(parts) = &self.automaton.state(state).body else { return (0, 0) };
        let (mut unmet, mut met) = (0, 0);
        for part in parts.iter().filter(|part| matches!(part.role, Role::Required | Role::Forbidden)) {
            let holds = child.with_offer(self.automaton, |offer| self.automaton.answer(&part.expr, offer));
            let holds = holds.is_ok_and(|answer| answer != NO);
            unmet += usize::from(holds == (part.role == Role::Forbidden));
            met += usize::from(holds && part.role == Role::Required);
        }
        (unmet, met)
    }

    // --- captures ---

    /// Which value failed to agree with which, where each clause holds by itself.
    fn agreement(&self, place: &str, judged: &Judged<'_>, answers: &[(String, Role, Answer)]) -> Option<Clause> {
        if self.automaton.names.captures().is_empty() {
            return None;
        }
        let state = *self.question.places.states.get(place)?;
        let whole =
            judged.with_offer(self.automaton, |offer| self.automaton.answer(&self.automaton.state(state).body, offer));
        let required = answers.iter().filter(|(_, role, _)| *role == Role::Required);
        let forbidden = answers.iter().filter(|(_, role, _)| *role == Role::Forbidden);
        if whole.as_ref().map_or(Met::Unknown, Met::of) != Met::No
            || required.clone().any(|(_, _, answer)| *answer == NO)
            || forbidden.clone().any(|(_, _, answer)| *answer == YES)
        {
            return None;
        }
        let mut so_far = YES;
        let mut before: Vec<&str> = Vec::new();
        for (place, _, answer) in required {
            let together = so_far.clone().and(answer.clone()).unwrap_or(UNKNOWN);
            if together == NO {
                let note = self.disagreement(&before, &so_far, place, answer);
                return Some(disagreeing(place, note));
            }
            so_far = together;
            before.push(place);
        }
        for (place, _, answer) in forbidden {
            let left = so_far.clone().without(answer);
            if left == NO {
                let values = self.values(&so_far.ways);
                let note = format!("{place} forbids what is left: {}", values.join("; "));
                return Some(disagreeing(place, note));
            }
            so_far = left;
        }
        None
    }

    fn disagreement(&self, before: &[&str], so_far: &Answer, place: &str, answer: &Answer) -> String {
        let set = |answer: &Answer| match &answer.ways {
            Ways::Set(set) => set.clone(),
            Ways::No | Ways::Yes => Vec::new(),
        };
        let (ours, theirs) = (set(so_far), set(answer));
        let values_of = |set: &[Mapping], id: CaptureId| -> Vec<Vec<u8>> {
            let mut values: Vec<Vec<u8>> = set.iter().filter_map(|m| m.get(id).map(<[u8]>::to_vec)).collect();
            values.sort();
            values.dedup();
            values
        };
        let captures = self.automaton.names.captures().iter();
        let apart = captures.filter(|capture| {
            let (ours, theirs) = (values_of(&ours, capture.id), values_of(&theirs, capture.id));
            !ours.is_empty() && !theirs.is_empty() && !ours.iter().any(|value| theirs.contains(value))
        });
        match apart.map(|capture| (capture.name.clone(), capture.id)).next() {
            Some((name, id)) => {
                let list = |set: &[Mapping]| listed(&values_of(set, id));
                // The clause before that says something of it.
                let by = before.iter().rev().find(|before| {
                    let expr = self.question.places.exprs.get(**before);
                    expr.is_some_and(|expr| uses(self.automaton, expr, id))
                });
                let by = by.or(before.last()).copied().unwrap_or_default();
                format!("<{name}> is {} by {by}, and {} by {place}", list(&ours), list(&theirs))
            }
            None => {
                let (ours, theirs) = (self.values(&so_far.ways), self.values(&answer.ways));
                format!(
                    "no values agree: {} by {}, {} by {place}",
                    ours.join("; "),
                    before.join(" and "),
                    theirs.join("; ")
                )
            }
        }
    }

    fn values(&self, ways: &Ways) -> Vec<String> {
        let Ways::Set(set) = ways else { return vec!["any".into()] };
        let one = |mapping: &Mapping| {
            let values = mapping.iter().map(|(id, value)| {
                format!("<{}> = {}", self.automaton.capture_name(id), String::from_utf8_lossy(value))
            });
            values.collect::<Vec<_>>().join(", ")
        };
        set.iter().take(SHOWN).map(one).collect()
    }
}

#[derive(Default)]
struct Found {
    passing: Vec<Vec<u8>>,
    failing: Vec<(Vec<u8>, String)>,
}

fn disagreeing(place: &str, note: String) -> Clause {
    let mut clause = Clause::new(place.to_owned(), "captures", "values that agree".into(), Met::No);
    clause.note = Some(note);
    clause
}

fn uses(automaton: &Automaton, expr: &Expr, id: CaptureId) -> bool {
    let glob = |glob: GlobId| automaton.names.glob(glob).captures().contains(&id);
    if let Expr::Name(name) = expr {
        return glob(*name);
    }
    let mut used = false;
    atoms(expr, &mut |atom| {
        used |= match atom {
            Atom::File(name, _) => name.is_some_and(glob),
            Atom::Child(state) => !automaton.state(*state).closed,
        };
    });
    used
}

fn listed(values: &[Vec<u8>]) -> String {
    let mut shown: Vec<String> =
        values.iter().take(SHOWN).map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    if values.len() > SHOWN {
        shown.push(format!("{} more", values.len() - SHOWN));
    }
    shown.join(", ")
}

fn negate(clause: &mut Clause) {
    clause.met = clause.met.negated();
    clause.clauses.iter_mut().for_each(negate);
}

fn inner_atoms(automaton: &Automaton, state: StateId) -> Vec<Atom> {
    let mut inner = Vec::new();
    atoms(&automaton.state(state).body, &mut |atom| inner.push(atom.clone()));
    inner
}

fn name_fits(automaton: &Automaton, state: StateId, child: &Judged<'_>) -> bool {
    automaton.name_holds(automaton.state(state), &child.own())
}

fn dangles(dir: &Dir, path: &[u8]) -> bool {
    matches!(dir.entry(path), Some(Entry::File(file)) if file.dangling)
}

/// A test as people read it.
pub fn test_words(test: &FileTest) -> String {
    let mut parts = Vec::new();
    match (test.min, test.max) {
        (1, None) => {}
        (0, Some(0)) => parts.push("none".to_owned()),
        (min, None) => parts.push(format!("at least {min}")),
        (0, Some(max)) => parts.push(format!("at most {max}")),
        (min, Some(max)) => parts.push(format!("{min} to {max}")),
    }
    parts.extend(test.size.map(|size| words(&crate::automaton::Test::Size(size))));
    parts.extend(test.magic.clone().map(|magic| words(&crate::automaton::Test::Magic(magic))));
    let contains = test.contains.as_ref().map(|text| crate::automaton::Test::Contains(text.clone().into_bytes()));
    parts.extend(contains.map(|test| words(&test)));
    if parts.is_empty() { test.glob.clone() } else { format!("{} ({})", test.glob, parts.join(", ")) }
}

fn sub_words(sub: &Subpattern) -> String {
    format!("{}/", sub.body.directory_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("*"))
}
