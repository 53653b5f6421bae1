//! The search for the fewest changes, without captures: what a state asks of a directory becomes literals, of which
//! each is a number of files or child directories to be reached or left; a literal that does not hold says which changes
//! could help, and these are tried, the shorter lists first. Pure.
//!
//! A list that helps holds, for each literal that does not hold, a change that moves its number the right way. All such
//! changes are tried, files that no glob tells apart counting as one, so that the first list found is the shortest.
//! Where something is left out (too many steps, children that several clauses change in different ways, counts through
//! several directories, a name that both a file and a directory could have), the search is no longer exact, and says so.

use rustc_hash::FxHashMap;

use super::super::names::Kinds;
use super::super::near::distance;
use super::super::outline::{Content, Entry, Judged};
use super::content::Made;
use super::plan::{DirNow, Fate, FileNow, Level, Plan, Want, emit, is_taken, spent};
use super::{Action, Change};
use crate::automaton::{Atom, Automaton, Expr, Role, StateId, Test, TestId};
use crate::matcher::Value;
use crate::matcher::bits::Bits;
use crate::matcher::names::{GlobId, NameCache};

/// The most ways in which a directory's clauses can hold that are told apart.
const MOST_WAYS: usize = 128;
/// Of more files than this, those that no glob asks for are not looked at one by one.
const FEW_FILES: usize = 48;
/// The most child directories that are considered for one clause.
const MOST_CHILDREN: usize = 48;

/// A search with one automaton for its only pattern.
pub struct Search<'a> {
    automaton: &'a Automaton,
    kinds: &'a Kinds,
    /// Values of captures need not agree: what is found is no more than a bound from below.
    relaxed: bool,
    steps: u32,
    exact: bool,
    known: FxHashMap<Key, Known>,
    levels: FxHashMap<usize, Level>,
    cache: NameCache,
}

type Key = (usize, Vec<Want>, Vec<StateId>);

#[derive(Clone)]
enum Known {
    /// With so many changes or fewer it cannot be.
    MoreThan(u32),
    Plan(Plan),
}

/// A number of files or child directories that is asked for, or to be avoided.
#[derive(Clone, Debug)]
struct Literal {
    of: Vec<Atom>,
    min: u32,
    max: u32,
    wanted: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Lack {
    /// So many more.
    More(u32),
    /// So many less.
    Less(u32),
    /// Either will do.
    Either(u32, u32),
}

/// A name that a directory may have: what it costs, the name where it is another one, and the globs that match it.
type Naming = (u32, Option<Box<[u8]>>, Bits);

impl<'a> Search<'a> {
    /// A search that gives up being exact after some steps.
    pub fn new(automaton: &'a Automaton, kinds: &'a Kinds, relaxed: bool, steps: u32) -> Self {
        let exact = kinds.complete && automaton.ancestor_globs.is_empty();
        let (known, levels) = (FxHashMap::default(), FxHashMap::default());
        Self { automaton, kinds, relaxed, steps, exact, known, levels, cache: automaton.names.cache() }
    }

    /// True if nothing was left out so far.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The shortest list of changes, of `longest` at the most, and whether nothing was left out.
    pub fn run(&mut self, judged: &Judged<'_>, longest: u32) -> Option<(Vec<Change>, bool)> {
        let wants = vec![Want { state: self.automaton.tops[0].state, files: 1 }];
        let plan = self.solve(Some(judged), &|_| false, &wants, &[], longest)?;
        let mut changes = Vec::new();
        emit(judged, &plan, b"", &mut changes);
        changes.extend(plan.rename.map(|to| Change { path: Vec::new(), action: Action::Rename(to) }));
        Some((changes, self.exact))
    }

    /// The fewest changes, `longest` at the most, after which a directory is in all states of `wants` and in none of
    /// `unwanted`; `None` stands for an empty directory of any name to be made, the making not counted.
    fn solve(
        &mut self,
        at: Option<&Judged<'_>>,
        taken: &dyn Fn(&[u8]) -> bool,
        wants: &[Want],
        unwanted: &[StateId],
        longest: u32,
    ) -> Option<Plan> {
        let address = at.map_or(0, |judged| std::ptr::from_ref(judged.dir).addr());
        let key = (address, wants.to_vec(), unwanted.to_vec());
        let mut from = 0;
        match self.known.get(&key) {
            Some(Known::Plan(plan)) => return (plan.cost <= longest).then(|| plan.clone()),
            Some(Known::MoreThan(cost)) if *cost >= longest => return None,
            Some(Known::MoreThan(cost)) => from = cost + 1,
            None => {}
        }
        for bound in from..=longest {
            let found = stacker::maybe_grow(128 << 10, 4 << 20, || self.within(at, taken, wants, unwanted, bound));
            if let Some(plan) = found {
                self.known.insert(key, Known::Plan(plan.clone()));
                return Some(plan);
            }
            if self.steps == 0 {
                return None;
            }
            self.known.insert(key.clone(), Known::MoreThan(bound));
        }
        None
    }

    fn within(
        &mut self,
        at: Option<&Judged<'_>>,
        taken: &dyn Fn(&[u8]) -> bool,
        wants: &[Want],
        unwanted: &[StateId],
        bound: u32,
    ) -> Option<Plan> {
        for (cost, rename, globs) in self.own_names(at, taken, wants, unwanted) {
            let Some(left) = bound.checked_sub(cost) else { continue };
            let active: Vec<StateId> =
                unwanted.iter().copied().filter(|state| self.name_fits(*state, &globs, at)).collect();
            for literals in self.ways(wants, &active, &globs) {
                if let Some(level) = self.reach(at, &literals, left) {
                    let spent = spent(&level);
                    let Level { files, dirs, cleared } = level;
                    return Some(Plan { cost: cost + spent, rename, files, dirs, cleared });
                }
            }
        }
        None
    }

    /// Names that the directory can have, with what they cost and the globs that they match: its own, and the simplest
    /// of each kind that makes a difference.
    fn own_names(
        &mut self,
        at: Option<&Judged<'_>>,
        taken: &dyn Fn(&[u8]) -> bool,
        wants: &[Want],
        unwanted: &[StateId],
    ) -> Vec<Naming> {
        let mut names = Vec::new();
        if let Some(judged) = at
            && wants.iter().all(|want| self.name_fits(want.state, &judged.globs, at))
        {
            names.push((0, None, judged.globs.clone()));
        }
        let mut asked = Bits::new(self.automaton.names.len());
        for state in wants.iter().map(|want| want.state).chain(unwanted.iter().copied()) {
            let state = self.automaton.state(state);
            state.name.iter().chain(&state.forbidden_names).for_each(|glob| asked.insert(glob.index()));
            names_in(&state.body, &mut asked);
        }
        let seen = at.map(|judged| project(&judged.globs, &asked));
        let mut kinds: Vec<Bits> = seen.into_iter().filter(|_| !names.is_empty()).collect();
        let mut renames = Vec::new();
        for (number, kind) in self.kinds.kinds.iter().enumerate() {
            let projected = project(&kind.globs, &asked);
            if kinds.contains(&projected) || !wants.iter().all(|want| self.name_fits(want.state, &kind.globs, at)) {
                continue;
            }
            let Some(name) = self.kinds.name(number, taken) else {
                self.exact &= kind.complete;
                continue;
            };
            kinds.push(projected);
            let cost = u32::from(at.is_some());
            let away = at.map_or(0, |judged| away(&name, &judged.dir.name));
            renames.push((away, (cost, Some(name), kind.globs.clone())));
        }
        renames.sort_by_key(|(away, _)| *away);
        names.extend(renames.into_iter().map(|(_, name)| name));
        names
    }

    fn name_fits(&self, state: StateId, globs: &Bits, at: Option<&Judged<'_>>) -> bool {
        let state = self.automaton.state(state);
        state.name.is_none_or(|glob| globs.contains(glob.index()))
            && !state.forbidden_names.iter().any(|glob| globs.contains(glob.index()))
            && !state
                .forbidden_ancestors
                .iter()
                .any(|glob| at.is_some_and(|judged| judged.above.contains(glob.index())))
    }

    // --- what is asked, as literals ---

    /// The ways in which a directory of such a name is in all states of `wants` and in none of `unwanted`.
    fn ways(&mut self, wants: &[Want], unwanted: &[StateId], globs: &Bits) -> Vec<Vec<Literal>> {
        let mut ways = vec![Vec::new()];
        for want in wants {
            let body = &self.automaton.state(want.state).body;
            let of_state = match body {
                Expr::Sum(of) => {
                    vec![vec![Literal { of: of.clone(), min: want.files, max: u32::MAX, wanted: true }]]
                }
                body => self.expand(body, true, globs),
            };
            ways = self.each_with(ways, of_state);
        }
        for state in unwanted {
            let of_state = self.expand(&self.automaton.state(*state).body, false, globs);
            ways = self.each_with(ways, of_state);
        }
        ways
    }

    fn expand(&mut self, expr: &Expr, wanted: bool, globs: &Bits) -> Vec<Vec<Literal>> {
        match expr {
            Expr::Name(glob) => {
                if globs.contains(glob.index()) == wanted {
                    vec![Vec::new()]
                } else {
                    Vec::new()
                }
            }
            Expr::Sum(of) => vec![vec![Literal { of: of.clone(), min: 1, max: u32::MAX, wanted }]],
            Expr::Count { of, min, max } => {
                let mut literal = Literal { of: of.clone(), min: *min, max: max.unwrap_or(u32::MAX), wanted };
                if self.relaxed && self.uses_captures(of) {
                    if !wanted {
                        return vec![Vec::new()];
                    }
                    literal.max = u32::MAX;
                }
                vec![vec![literal]]
            }
            Expr::All(parts) => {
                let parts: Vec<_> =
                    parts.iter().filter(|part| matches!(part.role, Role::Required | Role::Forbidden)).collect();
                let of_part = |search: &mut Self, part: &crate::automaton::Part| {
                    search.expand(&part.expr, (part.role == Role::Required) == wanted, globs)
                };
                if wanted {
                    let mut ways = vec![Vec::new()];
                    for part in parts {
                        let of_part = of_part(self, part);
                        ways = self.each_with(ways, of_part);
                    }
                    ways
                } else {
                    parts.into_iter().flat_map(|part| of_part(self, part)).collect()
                }
            }
            Expr::Any(list) if wanted => list.iter().flat_map(|expr| self.expand(expr, true, globs)).collect(),
            Expr::Any(list) => {
                let mut ways = vec![Vec::new()];
                for expr in list {
                    let of_expr = self.expand(expr, false, globs);
                    ways = self.each_with(ways, of_expr);
                }
                ways
            }
        }
    }

    fn each_with(&mut self, ways: Vec<Vec<Literal>>, more: Vec<Vec<Literal>>) -> Vec<Vec<Literal>> {
        self.exact &= ways.len() * more.len() <= MOST_WAYS;
        let both = ways.iter().flat_map(|way| more.iter().map(move |more| [&way[..], more].concat()));
        both.take(MOST_WAYS).collect()
    }

    fn uses_captures(&self, of: &[Atom]) -> bool {
        of.iter().any(|atom| match atom {
            Atom::File(glob, _) => glob.is_some_and(|glob| !self.automaton.names.glob(glob).captures().is_empty()),
            Atom::Child(state) => !self.automaton.state(*state).closed,
        })
    }

    // --- reaching them ---

    fn reach(&mut self, at: Option<&Judged<'_>>, literals: &[Literal], bound: u32) -> Option<Level> {
        let level = self.level(at)?;
        let known = at.is_none_or(|judged| matches!(judged.dir.content, Content::Read(_)) && !judged.dir.linked);
        self.go_on(at, literals, level, bound, known)
    }

    fn level(&mut self, at: Option<&Judged<'_>>) -> Option<Level> {
        let mut level = Level { files: Vec::new(), dirs: Vec::new(), cleared: Vec::new() };
        let Some(judged) = at else { return Some(level) };
        if matches!(judged.dir.content, Content::Unread(_)) {
            return None;
        }
        let address = std::ptr::from_ref(judged.dir).addr();
        if let Some(level) = self.levels.get(&address) {
            return Some(level.clone());
        }
        for file in judged.dir.files() {
            let globs = self.globs_of_name(&file.name);
            self.exact &= file.tests.iter().all(|(_, passed)| passed.is_some());
            let was = Some(file.name.clone());
            level.files.push(FileNow { was, file: file.clone(), globs, made: None, state: Fate::Kept });
        }
        self.leave_out_strangers(&mut level.files);
        level.dirs = (0..judged.children.len()).map(|at| DirNow::of(at, &judged.children[at].dir.name)).collect();
        self.levels.insert(address, level.clone());
        Some(level)
    }

    /// Of many files that no glob asks for, those with the nearest names stand for all.
    fn leave_out_strangers(&self, files: &mut Vec<FileNow>) {
        if files.len() <= FEW_FILES {
            return;
        }
        let asked =
            |kind: &&super::super::names::Kind| kind.globs.iter().any(|glob| self.automaton.file_globs.contains(glob));
        let wanted: Vec<&[u8]> = self
            .kinds
            .kinds
            .iter()
            .filter(asked)
            .take(FEW_FILES)
            .filter_map(|kind| Some(&**kind.names.first()?))
            .collect();
        let (strangers, mut known): (Vec<FileNow>, Vec<FileNow>) =
            std::mem::take(files).into_iter().partition(|file| file.globs.is_empty());
        let far = |file: &FileNow| wanted.iter().map(|name| away(name, &file.file.name)).min();
        let mut ranked: Vec<_> = strangers.into_iter().map(|file| (far(&file), file)).collect();
        ranked.sort_by_key(|(far, _)| *far);
        known.extend(ranked.into_iter().take(FEW_FILES).map(|(_, file)| file));
        *files = known;
    }

    fn go_on(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        level: Level,
        bound: u32,
        changeable: bool,
    ) -> Option<Level> {
        if self.steps == 0 {
            self.exact = false;
            return None;
        }
        // What takes longer counts more.
        let weight = 1 + (level.files.len() + level.dirs.len()) as u32 / 32;
        self.steps = self.steps.saturating_sub(weight);
        let cost = spent(&level);
        let lacking: Vec<(&Literal, Lack)> =
            literals.iter().filter_map(|literal| Some((literal, self.lack(at, &level, literal)?))).collect();
        let Some((literal, lack)) = lacking.first().copied() else { return Some(level) };
        if !changeable || cost.saturating_add(self.at_least(&lacking)) > bound {
            return None;
        }
        let left = bound - cost;
        let mut next = Vec::new();
        if let Lack::More(more) | Lack::Either(more, _) = lack {
            self.more(at, literals, literal, more, &level, left, &mut next);
        }
        if let Lack::Less(_) | Lack::Either(..) = lack {
            self.less(at, literals, literal, &level, left, &mut next);
        }
        next.sort_by_key(|(order, _)| *order);
        next.into_iter().find_map(|(_, level)| {
            (spent(&level) <= bound).then(|| self.go_on(at, literals, level, bound, changeable))?
        })
    }

    /// How many changes it takes at the least: those of literals that no one change can help together.
    fn at_least(&self, lacking: &[(&Literal, Lack)]) -> u32 {
        let (mut more, mut less): (Vec<&Literal>, u32) = (Vec::new(), 0);
        let mut sum = 0u32;
        for (literal, lack) in lacking {
            let [Atom::File(Some(glob), _)] = &literal.of[..] else { continue };
            match lack {
                Lack::More(count) if more.iter().all(|other| !self.together(*glob, other)) => {
                    sum = count.saturating_add(sum);
                    more.push(literal);
                }
                Lack::Less(count) => less = less.max(*count),
                Lack::More(_) | Lack::Either(..) => {}
            }
        }
        // A file that is renamed may count less here and more there.
        sum.max(less).max(1)
    }

    /// True if some name matches a glob and one of a literal's.
    fn together(&self, glob: GlobId, literal: &Literal) -> bool {
        let other = |kind: &Bits| {
            literal.of.iter().any(|atom| match atom {
                Atom::File(Some(other), _) => kind.contains(other.index()),
                _ => true,
            })
        };
        !self.kinds.complete
            || self.kinds.kinds.iter().any(|kind| kind.globs.contains(glob.index()) && other(&kind.globs))
    }

    /// How many literals do not hold.
    fn lacking(&self, at: Option<&Judged<'_>>, literals: &[Literal], level: &Level) -> usize {
        literals.iter().filter(|literal| self.lack(at, level, literal).is_some()).count()
    }

    /// True if a name that matches `globs`, given to a directory or to a file, may be one that the other kind lacks.
    fn crowds(&self, at: Option<&Judged<'_>>, literals: &[Literal], level: &Level, globs: &Bits, dir: bool) -> bool {
        let lacks = |atom: &Atom| match atom {
            Atom::File(glob, _) => dir && glob.is_some_and(|glob| globs.contains(glob.index())),
            Atom::Child(state) => {
                !dir && self.automaton.state(*state).name.is_some_and(|glob| globs.contains(glob.index()))
            }
        };
        literals
            .iter()
            .any(|literal| literal.wanted && literal.of.iter().any(lacks) && self.lack(at, level, literal).is_some())
    }

    /// The globs that a name matches.
    fn globs_of_name(&mut self, name: &[u8]) -> Bits {
        let (mut matched, mut globs) = (Vec::new(), Bits::new(self.automaton.names.len()));
        self.automaton.names.matches(&mut self.cache, name, &mut matched);
        matched.iter().for_each(|glob| globs.insert(glob.index()));
        globs
    }

    /// How a literal fails to hold; `None` if it holds.
    fn lack(&self, at: Option<&Judged<'_>>, level: &Level, literal: &Literal) -> Option<Lack> {
        let count = self.count(at, level, literal);
        let holds = literal.min <= count && count <= literal.max;
        match (holds, literal.wanted) {
            (true, true) | (false, false) => None,
            (false, true) if count < literal.min => Some(Lack::More(literal.min - count)),
            (false, true) => Some(Lack::Less(count - literal.max)),
            // What holds without anything cannot be made to fail by less.
            (true, false) if literal.min == 0 => Some(Lack::More(literal.max.saturating_sub(count).saturating_add(1))),
            (true, false) if literal.max == u32::MAX => Some(Lack::Less(count - literal.min + 1)),
            (true, false) => Some(Lack::Either(literal.max - count + 1, count - literal.min + 1)),
        }
    }

    fn count(&self, at: Option<&Judged<'_>>, level: &Level, literal: &Literal) -> u32 {
        let of_atom = |atom: &Atom| -> u32 {
            match atom {
                Atom::File(..) => level.files.iter().filter(|file| self.counts(atom, file)).count() as u32,
                Atom::Child(state) => {
                    level.dirs.iter().map(|dir| self.states(at, dir, *state)).fold(0, u32::saturating_add)
                }
            }
        };
        literal.of.iter().map(of_atom).fold(0, u32::saturating_add)
    }

    fn counts(&self, atom: &Atom, now: &FileNow) -> bool {
        let Atom::File(glob, tests) = atom else { return false };
        now.state != Fate::Gone
            && glob.is_none_or(|glob| now.globs.contains(glob.index()))
            && tests.iter().all(|test| now.file.passes(self.test(*test)) == Some(true))
    }

    fn test(&self, id: TestId) -> &Test {
        &self.automaton.tests[id.0 as usize]
    }

    /// What a child directory counts for a state.
    fn states(&self, at: Option<&Judged<'_>>, dir: &DirNow, state: StateId) -> u32 {
        if dir.fate == Fate::Gone || dir.unwanted.contains(&state) || dir.lost.contains(&state) {
            return 0;
        }
        if let Some(want) = dir.wants.iter().find(|want| want.state == state) {
            return want.files;
        }
        let named = self.automaton.state(state).name.is_some();
        let (Some(at), Some(child), false) = (at, dir.child, dir.away.is_some() && named) else { return 0 };
        in_state(&at.children[child], state)
    }

    // --- changes that could help ---

    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn more(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        literal: &Literal,
        more: u32,
        level: &Level,
        left: u32,
        next: &mut Vec<(u32, Level)>,
    ) {
        for atom in &literal.of {
            match atom {
                Atom::File(glob, tests) => self.more_files(at, literals, atom, *glob, tests, level, next),
                Atom::Child(state) => self.more_children(at, literals, *state, more, level, left, next),
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn more_files(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        atom: &Atom,
        glob: Option<GlobId>,
        tests: &[TestId],
        level: &Level,
        next: &mut Vec<(u32, Level)>,
    ) {
        let asked = globs_of(literals, self.automaton.names.len());
        let fits = |globs: &Bits| glob.is_none_or(|glob| globs.contains(glob.index()));
        // The content of a file that has the name.
        for (place, now) in level.files.iter().enumerate() {
            if now.state == Fate::Kept && fits(&now.globs) && !self.counts(atom, now) {
                for made in self.contents(literals, &now.globs, tests) {
                    let mut level = level.clone();
                    let now = &mut level.files[place];
                    now.file = made.file(&now.file.name);
                    (now.made, now.state) = (Some(made), Fate::Changed);
                    next.push((0, level));
                }
            }
        }
        let mut seen: Vec<Bits> = Vec::new();
        for number in 0..self.kinds.kinds.len() {
            let kind = &self.kinds.kinds[number];
            let projected = project(&kind.globs, &asked);
            if !fits(&kind.globs) || seen.contains(&projected) {
                continue;
            }
            let Some(name) = self.kinds.name(number, &|name| is_taken(at, level, name)) else {
                self.exact &= kind.complete;
                self.clear(at, literals, level, number, next);
                continue;
            };
            seen.push(projected);
            self.exact &= !self.crowds(at, literals, level, &kind.globs, false);
            self.renames(literals, level, &name, &kind.globs.clone(), next, &|search, now| {
                !search.counts(atom, now) && tests.iter().all(|test| now.file.passes(search.test(*test)) == Some(true))
            });
            for made in self.contents(literals, &self.kinds.kinds[number].globs.clone(), tests) {
                let mut level = level.clone();
                let globs = self.kinds.kinds[number].globs.clone();
                let file = made.file(&name);
                level.files.push(FileNow { was: None, file, globs, made: Some(made), state: Fate::Changed });
                next.push((10, level));
            }
        }
    }

    /// Files that get a name, of those that `of` says; those that nothing tells apart count as one, the nearest.
    fn renames(
        &self,
        literals: &[Literal],
        level: &Level,
        name: &[u8],
        globs: &Bits,
        next: &mut Vec<(u32, Level)>,
        of: &dyn Fn(&Self, &FileNow) -> bool,
    ) {
        let asked = globs_of(literals, self.automaton.names.len());
        let mut best: Vec<(u32, usize)> = Vec::new();
        for (place, now) in level.files.iter().enumerate() {
            if now.state != Fate::Kept || now.file.linked && now.file.dangling || !of(self, now) {
                continue;
            }
            let alike = |other: &FileNow| {
                project(&other.globs, &asked) == project(&now.globs, &asked) && other.file.tests == now.file.tests
            };
            let away = away(name, &now.file.name);
            match best.iter_mut().find(|(_, other)| alike(&level.files[*other])) {
                Some(known) if known.0 <= away => {}
                Some(known) => *known = (away, place),
                None => best.push((away, place)),
            }
        }
        let near = 1 + name.len() as u32 / 4;
        for (away, place) in best {
            let mut level = level.clone();
            let now = &mut level.files[place];
            now.file.name = name.into();
            (now.globs, now.state) = (globs.clone(), Fate::Changed);
            next.push((if away <= near { 1 + away } else { 20 + away }, level));
        }
    }

    /// Content for a file that counts for literals of several tests: for all of them, or for those at hand.
    fn contents(&mut self, literals: &[Literal], globs: &Bits, tests: &[TestId]) -> Vec<Made> {
        let mut all: Vec<Test> = tests.iter().map(|test| self.test(*test).clone()).collect();
        let own = all.clone();
        for literal in literals {
            for atom in &literal.of {
                if let Atom::File(glob, more) = atom
                    && glob.is_none_or(|glob| globs.contains(glob.index()))
                {
                    // Other contents could be right for literals that are to be avoided.
                    self.exact &= more.is_empty() || (literal.wanted && more == tests);
                    if literal.wanted && literal.min > 0 {
                        all.extend(more.iter().map(|test| self.test(*test).clone()));
                    }
                }
            }
        }
        all.dedup();
        let mut made: Vec<Made> = Made::new(self.automaton, &all).into_iter().collect();
        if all != own {
            made.extend(Made::new(self.automaton, &own));
        }
        made
    }

    /// Makes room for a name of a kind that all are taken.
    fn clear(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        level: &Level,
        kind: usize,
        next: &mut Vec<(u32, Level)>,
    ) {
        let taken = |name: &[u8]| is_taken(at, level, name);
        for name in &self.kinds.kinds[kind].names {
            let special = at.is_some_and(|at| matches!(at.dir.entry(name), Some(Entry::Special(_))));
            if special && !level.cleared.contains(name) {
                let mut level = level.clone();
                level.cleared.push(name.clone());
                next.push((5, level));
            } else if let Some(place) = level.dirs.iter().position(|dir| dir.name == *name && dir.is_untouched()) {
                let mut without = level.clone();
                without.dirs[place].fate = Fate::Gone;
                // By another name, or by what is in it, it could help with what else is lacking.
                self.exact &= self.lacking(at, literals, level) <= 1 && self.lacking(at, literals, &without) <= 1;
                next.push((30, without));
                let plain = self.kinds.kinds.iter().position(|kind| kind.globs.is_empty());
                let Some(free) = plain.and_then(|plain| self.kinds.name(plain, &taken)) else { continue };
                let mut level = level.clone();
                level.dirs[place].away = Some(free);
                next.push((5, level));
            } else if let Some(place) =
                level.files.iter().position(|file| file.file.name == *name && file.state == Fate::Kept)
            {
                // Any name that makes a difference: one that nothing asks for first.
                let asked = globs_of(literals, self.automaton.names.len());
                let mut seen: Vec<Bits> = Vec::new();
                for (number, kind) in self.kinds.kinds.iter().enumerate() {
                    let projected = project(&kind.globs, &asked);
                    if seen.contains(&projected) {
                        continue;
                    }
                    let Some(free) = self.kinds.name(number, &taken) else { continue };
                    let mut level = level.clone();
                    let file = &mut level.files[place];
                    (file.file.name, file.globs, file.state) = (free, kind.globs.clone(), Fate::Changed);
                    next.push((if projected.is_empty() { 5 } else { 15 }, level));
                    seen.push(projected);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn more_children(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        state: StateId,
        more: u32,
        level: &Level,
        left: u32,
        next: &mut Vec<(u32, Level)>,
    ) {
        let counts = self.automaton.state(state).counts;
        // Several directories could share what is to be added.
        self.exact &= !counts || more == 1;
        let mut tried = 0;
        for place in 0..level.dirs.len() {
            let dir = &level.dirs[place];
            let has = self.states(at, dir, state);
            if dir.fate == Fate::Gone || dir.away.is_some() || (has > 0 && !counts) || dir.unwanted.contains(&state) {
                continue;
            }
            tried += 1;
            if tried > MOST_CHILDREN {
                self.exact = false;
                break;
            }
            let want = Want { state, files: if counts { has.saturating_add(more) } else { 1 } };
            let mut wants: Vec<Want> = dir.wants.iter().filter(|want| want.state != state).cloned().collect();
            wants.push(want);
            wants.sort();
            let unwanted = dir.unwanted.clone();
            self.assign(at, literals, level, place, &wants, &unwanted, left, next);
        }
        let wants = vec![Want { state, files: if counts { more } else { 1 } }];
        let taken = |name: &[u8]| is_taken(at, level, name);
        let Some(left) = left.checked_sub(1) else { return };
        let unwanted = unwanted_states(literals);
        match self.solve_new(&taken, &wants, &unwanted, left) {
            Some(plan) => {
                let name = plan.rename.clone().unwrap_or_default();
                let cost = plan.cost;
                let globs = self.globs_of_name(&name);
                self.exact &= !self.crowds(at, literals, level, &globs, true);
                let mut level = level.clone();
                let dir = DirNow {
                    child: None,
                    name,
                    wants,
                    unwanted,
                    lost: Vec::new(),
                    plan: Some(plan),
                    fate: Fate::Changed,
                    away: None,
                };
                level.dirs.push(dir);
                next.push((10 + 20 * cost, level));
            }
            None => {
                let asked = self.automaton.state(state).name;
                let blocked = |kind: &super::super::names::Kind| {
                    asked.is_none_or(|glob| kind.globs.contains(glob.index()))
                        && kind.names.iter().all(|name| taken(name))
                };
                if let Some(kind) = self.kinds.kinds.iter().position(blocked) {
                    self.clear(at, literals, level, kind, next);
                }
            }
        }
    }

    /// A new directory, its name one that is not taken.
    fn solve_new(
        &mut self,
        taken: &dyn Fn(&[u8]) -> bool,
        wants: &[Want],
        unwanted: &[StateId],
        left: u32,
    ) -> Option<Plan> {
        let plan = self.solve(None, &|_| false, wants, unwanted, left)?;
        match &plan.rename {
            Some(name) if taken(name) => {
                let others = self.own_names(None, taken, wants, unwanted);
                let (_, rename, globs) = others.into_iter().next()?;
                // What is in it was worked out for another name.
                self.exact &= self.ways(wants, &[], &globs).len() == 1;
                Some(Plan { rename, ..plan })
            }
            _ => Some(plan),
        }
    }

    /// Has a child come to be in states, or not to be: such that what it is in besides stays where that is asked for, or
    /// if that is cheaper, such that it is lost.
    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn assign(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        level: &Level,
        place: usize,
        wants: &[Want],
        unwanted: &[StateId],
        left: u32,
        next: &mut Vec<(u32, Level)>,
    ) {
        let dir = &level.dirs[place];
        let mut unwanted = [unwanted, &unwanted_states(literals)].concat();
        unwanted.sort_unstable();
        unwanted.dedup();
        unwanted.retain(|state| !wants.iter().any(|want| want.state == *state));
        let asked = literals.iter().filter(|literal| literal.wanted).flat_map(|literal| &literal.of);
        let mut kept: Vec<Want> = Vec::new();
        for atom in asked {
            let Atom::Child(state) = atom else { continue };
            let has = self.states(at, dir, *state);
            let known = wants.iter().chain(&kept).any(|want| want.state == *state) || unwanted.contains(state);
            let others =
                level.dirs.iter().enumerate().any(|(other, dir)| other != place && self.states(at, dir, *state) > 0);
            if has > 0 && !known && !others {
                kept.push(Want { state: *state, files: has });
            }
        }
        let lost: Vec<StateId> = kept.iter().map(|want| want.state).collect();
        let mut all = [wants, &kept[..]].concat();
        all.sort();
        let keeping = self.assign_as(at, literals, level, place, &all, &unwanted, &[], left);
        let cost = keeping.as_ref().map(|(_, level)| level.dirs[place].cost());
        if !lost.is_empty() {
            let losing = self.assign_as(at, literals, level, place, wants, &unwanted, &lost, left);
            next.extend(losing.filter(|(_, level)| cost.is_none_or(|cost| level.dirs[place].cost() < cost)));
        }
        next.extend(keeping);
    }

    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn assign_as(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        level: &Level,
        place: usize,
        wants: &[Want],
        unwanted: &[StateId],
        lost: &[StateId],
        left: u32,
    ) -> Option<(u32, Level)> {
        let dir = &level.dirs[place];
        let before = dir.cost();
        let taken = |name: &[u8]| is_taken(at, level, name);
        let plan = match dir.child {
            Some(child) => self.solve(Some(&at?.children[child]), &taken, wants, unwanted, left + before)?,
            None => {
                let taken = |name: &[u8]| taken(name) && *name != *dir.name;
                self.solve_new(&taken, wants, unwanted, (left + before).checked_sub(1)?)?
            }
        };
        if plan.rename.as_ref().is_some_and(|name| taken(name) && *name != dir.name) {
            self.exact = false;
            return None;
        }
        if let Some(name) = &plan.rename {
            let globs = self.globs_of_name(name);
            self.exact &= !self.crowds(at, literals, level, &globs, true);
        }
        let order = plan.cost * 20 + plan.rename.as_ref().map_or(5, |name| away(name, &dir.name));
        let mut level = level.clone();
        let dir = &mut level.dirs[place];
        if dir.child.is_none() {
            dir.name = plan.rename.clone().unwrap_or_else(|| dir.name.clone());
        }
        (dir.wants, dir.unwanted, dir.lost) = (wants.to_vec(), unwanted.to_vec(), lost.to_vec());
        (dir.plan, dir.fate) = (Some(plan), Fate::Changed);
        Some((order, level))
    }

    fn less(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        literal: &Literal,
        level: &Level,
        left: u32,
        next: &mut Vec<(u32, Level)>,
    ) {
        let asked = globs_of(literals, self.automaton.names.len());
        for atom in &literal.of {
            match atom {
                Atom::File(glob, tests) => {
                    self.less_files(literals, &asked, atom, tests, level, next);
                    let mut seen: Vec<Bits> = Vec::new();
                    for number in 0..self.kinds.kinds.len() {
                        let kind = &self.kinds.kinds[number];
                        let projected = project(&kind.globs, &asked);
                        let fits = glob.is_some_and(|glob| !kind.globs.contains(glob.index()));
                        if !fits || seen.contains(&projected) {
                            continue;
                        }
                        let Some(name) = self.kinds.name(number, &|name| is_taken(at, level, name)) else {
                            // What has the names is not cleared away for this alone.
                            let by_dir = |name| level.dirs.iter().any(|dir| dir.name == name);
                            let blocked = kind.names.iter().cloned().any(by_dir);
                            self.exact &= kind.complete && (!blocked || self.lacking(at, literals, level) <= 1);
                            continue;
                        };
                        seen.push(projected);
                        self.renames(literals, level, &name, &kind.globs.clone(), next, &|search, now| {
                            search.counts(atom, now)
                        });
                    }
                }
                Atom::Child(state) => {
                    self.exact &= !self.automaton.state(*state).counts;
                    for place in 0..level.dirs.len() {
                        self.less_children(at, literals, *state, level, place, left, next);
                    }
                }
            }
        }
    }

    /// Takes away files that count, or what in them counts.
    fn less_files(
        &mut self,
        literals: &[Literal],
        asked: &Bits,
        atom: &Atom,
        tests: &[TestId],
        level: &Level,
        next: &mut Vec<(u32, Level)>,
    ) {
        type Seen<'a> = (Bits, &'a [(Test, Option<bool>)]);
        let mut seen: Vec<Seen<'_>> = Vec::new();
        for (place, now) in level.files.iter().enumerate() {
            let class = (project(&now.globs, asked), &now.file.tests[..]);
            if now.state != Fate::Kept || !self.counts(atom, now) || seen.contains(&class) {
                continue;
            }
            seen.push(class);
            let mut without = level.clone();
            without.files[place].state = Fate::Gone;
            next.push((5, without));
            if !tests.is_empty() {
                for made in self.contents(literals, &now.globs, &[]) {
                    let mut level = level.clone();
                    let now = &mut level.files[place];
                    now.file = made.file(&now.file.name);
                    (now.made, now.state) = (Some(made), Fate::Changed);
                    if !self.counts(atom, &level.files[place]) {
                        next.push((15, level));
                    }
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is searched, and where it has come to")]
    fn less_children(
        &mut self,
        at: Option<&Judged<'_>>,
        literals: &[Literal],
        state: StateId,
        level: &Level,
        place: usize,
        left: u32,
        next: &mut Vec<(u32, Level)>,
    ) {
        let dir = &level.dirs[place];
        if self.states(at, dir, state) == 0 {
            return;
        }
        if dir.child.is_some() {
            let mut level = level.clone();
            (level.dirs[place].fate, level.dirs[place].plan) = (Fate::Gone, None);
            next.push((25, level));
        }
        if dir.child.is_some() && !self.automaton.state(state).counts {
            let mut unwanted = dir.unwanted.clone();
            unwanted.push(state);
            unwanted.sort_unstable();
            let wants: Vec<Want> = dir.wants.iter().filter(|want| want.state != state).cloned().collect();
            self.assign(at, literals, level, place, &wants, &unwanted, left, next);
        }
    }
}

/// What a child counts for a state: 1, or its files where these are counted.
fn in_state(child: &Judged<'_>, state: StateId) -> u32 {
    let summary = &child.verdict.summary;
    if !summary.yes.contains(state.index()) {
        return 0;
    }
    match summary.values.iter().find(|(id, _)| *id == state) {
        Some((_, Value::Bag(files))) => files.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count)),
        _ => 1,
    }
}

/// States that no child is to be in.
fn unwanted_states(literals: &[Literal]) -> Vec<StateId> {
    let unwanted = literals.iter().filter(|literal| !literal.wanted && literal.min <= 1 && literal.max == u32::MAX);
    let states = unwanted.flat_map(|literal| &literal.of).filter_map(|atom| match atom {
        Atom::Child(state) => Some(*state),
        Atom::File(..) => None,
    });
    let mut states: Vec<StateId> = states.collect();
    states.sort_unstable();
    states.dedup();
    states
}

fn project(globs: &Bits, asked: &Bits) -> Bits {
    let mut projected = asked.clone();
    asked.iter().filter(|glob| !globs.contains(*glob)).for_each(|glob| projected.take(glob));
    projected
}

fn globs_of(literals: &[Literal], globs: usize) -> Bits {
    let mut asked = Bits::new(globs);
    for atom in literals.iter().flat_map(|literal| &literal.of) {
        if let Atom::File(Some(glob), _) = atom {
            asked.insert(glob.index());
        }
    }
    asked
}

fn names_in(expr: &Expr, into: &mut Bits) {
    match expr {
        Expr::Name(glob) => into.insert(glob.index()),
        Expr::All(parts) => parts.iter().for_each(|part| names_in(&part.expr, into)),
        Expr::Any(list) => list.iter().for_each(|expr| names_in(expr, into)),
        Expr::Count { .. } | Expr::Sum(_) => {}
    }
}

/// How far a name is from another one.
fn away(name: &[u8], from: &[u8]) -> u32 {
    let tokens =
        String::from_utf8_lossy(name).to_lowercase().chars().map(crate::pattern::glob::Token::Literal).collect();
    let glob = crate::pattern::glob::Glob { tokens };
    distance(&glob, &[], String::from_utf8_lossy(from).to_lowercase().as_bytes())
}
