//! Values for captures: those that are there, and simple ones; and a pattern with values in the place of its captures.
//! Pure.

use std::collections::BTreeMap;

use super::super::names::Kinds;
use super::super::outline::Judged;
use crate::automaton::Automaton;
use crate::matcher::mapping::Mapping;
use crate::matcher::names::GlobId;
use crate::pattern::{Body, DirClause, FileClause, Pattern, Subpattern};

/// The most combinations of values that are tried.
const MOST: usize = 16;

/// A value for each capture, by the number in which it was declared.
pub type Values = Vec<Option<String>>;

/// Combinations of values that are worth a try, those that most clauses agree on first.
pub fn candidates(_pattern: &Pattern, automaton: &Automaton, kinds: &Kinds, judged: &Judged<'_>) -> Vec<Values> {
    let mut seen: BTreeMap<Mapping, usize> = BTreeMap::new();
    gather(automaton, judged, 0, &mut seen);
    let mut mappings: Vec<(Mapping, usize)> = seen.into_iter().collect();
    mappings.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
    let simple = simple(automaton, kinds);
    let mut candidates: Vec<Values> = Vec::new();
    for (first, _) in mappings.iter().take(MOST) {
        // What agrees with it fills up what it leaves open.
        let mut whole = first.clone();
        for (other, _) in &mappings {
            if other.agrees(&whole) {
                whole = whole.union(other);
            }
        }
        for mapping in [first, &whole] {
            let values: Values = (0..automaton.names.captures().len())
                .map(|at| {
                    let id = automaton.names.captures()[at].id;
                    match mapping.get(id) {
                        Some(value) => String::from_utf8(value.to_vec()).ok(),
                        None => simple[at].clone(),
                    }
                })
                .collect();
            if !candidates.contains(&values) {
                candidates.push(values);
            }
        }
    }
    candidates.truncate(MOST - 1);
    if !candidates.contains(&simple) {
        candidates.push(simple);
    }
    candidates
}

/// The values in the names of a directory and below it, each with how often it is there.
fn gather(automaton: &Automaton, judged: &Judged<'_>, depth: u32, into: &mut BTreeMap<Mapping, usize>) {
    const DEEPEST: u32 = 6;
    const MOST_SEEN: usize = 5_000;
    let globs = (0..automaton.names.len() as u32).map(GlobId);
    let captured: Vec<GlobId> = globs.filter(|glob| !automaton.names.glob(*glob).captures().is_empty()).collect();
    let mut note = |name: &[u8]| {
        for glob in &captured {
            for mapping in automaton.mappings(*glob, name).into_iter().flatten().take(32) {
                if into.len() < MOST_SEEN {
                    *into.entry(mapping).or_default() += 1;
                }
            }
        }
    };
    note(&judged.dir.name);
    judged.dir.files().for_each(|file| note(&file.name));
    if depth < DEEPEST {
        judged.children.iter().for_each(|child| gather(automaton, child, depth + 1, into));
    }
}

/// A simple value of each capture.
fn simple(automaton: &Automaton, kinds: &Kinds) -> Values {
    let of = |id| {
        kinds.kinds.iter().find_map(|kind| {
            let mut globs = kind.globs.iter().map(|glob| GlobId(glob as u32));
            let glob = globs.find(|glob| automaton.names.glob(*glob).captures().contains(&id))?;
            let ways = automaton.mappings(glob, kind.names.first()?).ok()?;
            let value = ways.iter().find_map(|way| way.get(id))?;
            String::from_utf8(value.to_vec()).ok()
        })
    };
    automaton.names.captures().iter().map(|capture| of(capture.id)).collect()
}

/// The pattern with values in the place of its captures; `None` where one that is used has none.
pub fn fix(pattern: &Pattern, values: &Values) -> Option<Pattern> {
    let mut fixer = Fixer { values, next: 0, failed: false };
    let mut fixed = pattern.clone();
    fixed.layout = None;
    fixer.subpattern(&mut fixed.root, &BTreeMap::new());
    (!fixer.failed).then_some(fixed)
}

/// Goes through a pattern in the order in which it is compiled.
struct Fixer<'a> {
    values: &'a Values,
    next: usize,
    failed: bool,
}

type Scope = BTreeMap<String, Option<String>>;

impl Fixer<'_> {
    fn subpattern(&mut self, sub: &mut Subpattern, above: &Scope) {
        let mut scope = above.clone();
        for name in std::mem::take(&mut sub.captures).into_keys() {
            scope.insert(name, self.values.get(self.next).cloned().flatten());
            self.next += 1;
        }
        let globs = sub.forbidden_names.iter_mut().chain(&mut sub.forbidden_ancestors);
        globs.for_each(|glob| self.glob(glob, &scope));
        self.body(&mut sub.body, &scope);
    }

    fn body(&mut self, body: &mut Body, scope: &Scope) {
        body.directory_name.iter_mut().for_each(|glob| self.glob(glob, scope));
        let Body {
            files,
            directories,
            optional_files,
            optional_directories,
            recommended_files,
            recommended_directories,
            forbidden_files,
            forbidden_directories,
            any_of,
            ..
        } = body;
        for (files, directories) in [
            (files, directories),
            (forbidden_files, forbidden_directories),
            (optional_files, optional_directories),
            (recommended_files, recommended_directories),
        ] {
            files.iter_mut().for_each(|clause| self.file_clause(clause, scope));
            directories.iter_mut().for_each(|clause| self.dir_clause(clause, scope));
        }
        any_of.iter_mut().for_each(|body| self.body(body, scope));
    }

    fn file_clause(&mut self, clause: &mut FileClause, scope: &Scope) {
        match clause {
            FileClause::One(test) => self.glob(&mut test.glob, scope),
            FileClause::AnyOf(list) => list.iter_mut().for_each(|clause| self.file_clause(clause, scope)),
        }
    }

    fn dir_clause(&mut self, clause: &mut DirClause, scope: &Scope) {
        match clause {
            DirClause::One(sub) => self.subpattern(sub, scope),
            DirClause::AnyOf(list) => list.iter_mut().for_each(|clause| self.dir_clause(clause, scope)),
        }
    }

    /// Puts values in the place of captures, outside classes and escapes.
    fn glob(&mut self, glob: &mut String, scope: &Scope) {
        if scope.is_empty() {
            return;
        }
        let chars: Vec<char> = glob.chars().collect();
        let (mut fixed, mut at) = (String::new(), 0);
        while let Some(&c) = chars.get(at) {
            at += 1;
            match c {
                '\\' => {
                    fixed.push(c);
                    fixed.extend(chars.get(at));
                    at += 1;
                }
                '[' => {
                    let mut end = at + usize::from(matches!(chars.get(at), Some('!' | '^'))) + 1;
                    while chars.get(end).is_some_and(|c| *c != ']') {
                        end += 1;
                    }
                    fixed.push(c);
                    fixed.extend(chars.iter().take(end + 1).skip(at));
                    at = end + 1;
                }
                '<' => {
                    let word: String =
                        chars[at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
                    match scope.get(&word).filter(|_| chars.get(at + word.len()) == Some(&'>')) {
                        Some(Some(value)) => {
                            fixed.extend(value.chars().flat_map(escaped));
                            at += word.len() + 1;
                        }
                        Some(None) => self.failed = true,
                        None => fixed.push_str("\\<"),
                    }
                }
                c => fixed.push(c),
            }
        }
        *glob = fixed;
    }
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let special = matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\' | '<');
    special.then_some('\\').into_iter().chain([c])
}
