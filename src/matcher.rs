//! Automaton × what a directory offers × states of its children → states. Pure: values in, values out.
//!
//! The driver ([`crate::walk`], [`crate::expand`]) lists a directory into [`Files`], merges the [`Summary`] of each
//! child into [`Kids`], and asks [`Automaton::judge`] once. Logic is Kleene's: a state holds, does not hold, or *may*
//! hold, where something could not be read. Where captures are involved a state's value is the set of
//! [`Mapping`]s under which it holds. `docs/patterns.md` has the exact meaning.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::automaton::{Atom, Automaton, Expr, Part, PatternId, Role, State, StateId, TestId};
use bits::Bits;
use mapping::{Mapping, TooMany, distinct, join};
use names::GlobId;

pub mod bits;
pub mod mapping;
pub mod names;

/// A directory's own name and what is above it.
#[derive(Clone, Debug)]
pub struct Own<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The globs that its name matches.
    pub globs: &'a Bits,
    /// The globs of `forbidden_ancestors` that a directory above it within the source matches.
    pub above: &'a Bits,
}

/// The files of a directory, as far as patterns ask for them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Globs that some file matches.
    pub present: Bits,
    /// True if there is any file.
    pub any: bool,
    /// Files whose names matter one by one, with the globs that they match.
    pub detailed: Vec<(Box<[u8]>, SmallVec<[GlobId; 4]>)>,
}

impl Files {
    /// No files yet.
    pub fn new(automaton: &Automaton) -> Self {
        Self { present: Bits::new(automaton.names.len()), any: false, detailed: Vec::new() }
    }

    /// Adds a file that matches `globs`.
    #[inline]
    pub fn add(&mut self, automaton: &Automaton, name: &[u8], globs: &[GlobId]) {
        self.any = true;
        let mut detailed = false;
        for glob in globs {
            self.present.insert(glob.index());
            detailed |= automaton.detailed.contains(glob.index());
        }
        if detailed {
            let wanted = globs.iter().copied().filter(|glob| automaton.detailed.contains(glob.index()));
            self.detailed.push((name.into(), wanted.collect()));
        }
    }
}

/// The value of a state beyond yes or no.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The mappings under which the state holds.
    Set(Vec<Mapping>),
    /// Files to be counted: the mappings of one file, and how many files have these.
    Bag(Vec<(SmallVec<[Mapping; 1]>, u32)>),
}

/// The states of one directory.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// States that hold.
    pub yes: Bits,
    /// States that may hold, or hold in more ways, if what could not be read were known.
    pub may: Bits,
    /// Values of those states that have one.
    pub values: Vec<(StateId, Value)>,
}

/// The states of all child directories of one directory, together.
#[derive(Clone, Debug, Default)]
pub struct Kids {
    /// States that some child is in.
    pub yes: Bits,
    /// States that some child may be in.
    pub may: Bits,
    values: FxHashMap<StateId, Value>,
}

impl Kids {
    /// No children yet.
    pub fn new(automaton: &Automaton) -> Self {
        let states = automaton.states.len();
        Self { yes: Bits::new(states), may: Bits::new(states), values: FxHashMap::default() }
    }

    /// Adds a child.
    pub fn merge(&mut self, child: Summary) {
        self.yes.extend(&child.yes);
        self.may.extend(&child.may);
        for (state, value) in child.values {
            match (self.values.get_mut(&state), value) {
                (None, value) => {
                    self.values.insert(state, value);
                }
                (Some(Value::Set(all)), Value::Set(more)) => {
                    all.extend(more);
                    // Doubles are removed now and then, so that equal children take no memory.
                    if all.len().is_power_of_two() {
                        *all = distinct(std::mem::take(all));
                    }
                }
                (Some(Value::Bag(all)), Value::Bag(more)) => {
                    for (mappings, count) in more {
                        match all.first_mut() {
                            // Without captures all files are alike.
                            Some((known, sum)) if *known == mappings => *sum = sum.saturating_add(count),
                            _ => all.push((mappings, count)),
                        }
                        if all.len().is_power_of_two() {
                            add_up(all);
                        }
                    }
                }
                (Some(_), _) => {}
            }
        }
    }
}

/// Makes one of equal items.
fn add_up(files: &mut Vec<(SmallVec<[Mapping; 1]>, u32)>) {
    files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    files.dedup_by(|(later, more), (kept, sum)| {
        let equal = later == kept;
        if equal {
            *sum = sum.saturating_add(*more);
        }
        equal
    });
}

/// A directory that matches a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Which pattern.
    pub pattern: PatternId,
    /// The captured values.
    pub captures: Mapping,
    /// The recommended parts that are missing.
    pub missing: Vec<String>,
}

/// What judging a directory yields.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// For its parent.
    pub summary: Summary,
    /// The patterns that it matches.
    pub accepted: Vec<Accepted>,
    /// The patterns that it may match, where something could not be read or combine.
    pub undecided: Vec<PatternId>,
    /// States given up because captures combine in too many ways.
    pub given_up: Vec<StateId>,
}

impl Verdict {
    /// A directory in no state.
    pub fn empty(automaton: &Automaton) -> Self {
        let states = automaton.states.len();
        let summary = Summary { yes: Bits::new(states), may: Bits::new(states), values: Vec::new() };
        Self { summary, ..Self::default() }
    }
}

/// Answers a test of a file in the directory being judged: `None` if the file cannot be read.
pub type Probe<'a> = &'a dyn Fn(&[u8], TestId) -> Option<bool>;

/// All that a directory offers to a state.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// Its name and what is above.
    pub own: &'a Own<'a>,
    /// Its files.
    pub files: &'a Files,
    /// Its child directories.
    pub kids: &'a Kids,
    /// Tests of its files.
    pub probe: Probe<'a>,
    /// Its content could not be read, so that nothing of it is known.
    pub unread: bool,
}

impl std::fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("own", self.own).field("files", self.files).field("kids", self.kids).finish()
    }
}

/// The mappings under which something holds.
#[derive(Clone, Debug, PartialEq)]
enum Ways {
    /// None.
    No,
    /// All: the empty mapping.
    Yes,
    /// These; never empty.
    Set(Vec<Mapping>),
}

/// The ways that are certain, and whether there may be more.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    ways: Ways,
    may: bool,
}

const NO: Answer = Answer { ways: Ways::No, may: false };
const YES: Answer = Answer { ways: Ways::Yes, may: false };

impl Answer {
    fn of(mappings: Vec<Mapping>, may: bool) -> Answer {
        let mappings = distinct(mappings);
        let ways = match mappings.as_slice() {
            [] => Ways::No,
            [one] if one.is_empty() => Ways::Yes,
            _ => Ways::Set(mappings),
        };
        Answer { ways, may }
    }

    fn holds_with(&self, given: &Mapping) -> bool {
        match &self.ways {
            Ways::No => false,
            Ways::Yes => true,
            Ways::Set(set) => set.iter().any(|mapping| mapping.agrees(given)),
        }
    }
}

impl Automaton {
    /// Judges a directory once, for every state that could hold, or only for those of `wanted`.
    pub fn judge(&self, offer: &Offer<'_>, wanted: Option<&Bits>) -> Verdict {
        let mut verdict = Verdict::empty(self);
        let mut judge = |id: StateId| {
            if wanted.is_none_or(|wanted| wanted.contains(id.index())) && self.name_holds(self.state(id), offer.own) {
                self.judge_state(id, offer, &mut verdict);
            }
        };
        if offer.unread {
            // Whatever its name allows is possible.
            (0..self.states.len() as u32).for_each(|id| judge(StateId(id)));
            self.accept(offer, &mut verdict);
            return verdict;
        }
        let triggers = &self.triggers;
        triggers.always.iter().for_each(|id| judge(*id));
        for glob in offer.own.globs.iter() {
            triggers.by_name[glob].iter().for_each(|id| judge(*id));
        }
        for glob in offer.files.present.iter() {
            triggers.by_file[glob].iter().for_each(|id| judge(*id));
        }
        for child in offer.kids.yes.iter() {
            triggers.by_child[child].iter().for_each(|id| judge(*id));
        }
        for child in offer.kids.may.iter().filter(|child| !offer.kids.yes.contains(*child)) {
            triggers.by_child[child].iter().for_each(|id| judge(*id));
        }
        self.accept(offer, &mut verdict);
        verdict
    }

    /// The states of `wanted` that a directory of this name can be in.
    pub fn possible(&self, own: &Own<'_>, wanted: &Bits) -> Bits {
        let mut possible = Bits::new(self.states.len());
        for id in wanted.iter().filter(|id| self.name_holds(&self.states[*id], own)) {
            possible.insert(id);
        }
        possible
    }

    fn name_holds(&self, state: &State, own: &Own<'_>) -> bool {
        state.name.is_none_or(|glob| own.globs.contains(glob.index()))
            && !state.forbidden_names.iter().any(|glob| own.globs.contains(glob.index()))
            && !state.forbidden_ancestors.iter().any(|glob| own.above.contains(glob.index()))
    }

    fn judge_state(&self, id: StateId, offer: &Offer<'_>, verdict: &mut Verdict) {
        let state = self.state(id);
        if let Expr::Sum(of) = &state.body {
            return self.sum(id, of, offer, verdict);
        }
        let Ok(answer) = self.answer(&state.body, offer) else {
            verdict.given_up.push(id);
            verdict.summary.may.insert(id.index());
            return;
        };
        if answer.may {
            verdict.summary.may.insert(id.index());
        }
        match answer.ways {
            Ways::No => return,
            Ways::Set(set) if !state.closed => {
                let kept = distinct(set.into_iter().map(|mapping| mapping.without(&state.declares)).collect());
                verdict.summary.values.push((id, Value::Set(kept)));
            }
            // A state that can have values has one, so that values of several children unite.
            Ways::Yes if !state.closed => {
                verdict.summary.values.push((id, Value::Set(vec![Mapping::default()])));
            }
            Ways::Yes | Ways::Set(_) => {}
        }
        verdict.summary.yes.insert(id.index());
    }

    /// A counting state passes up the files that it stands for.
    fn sum(&self, id: StateId, of: &[Atom], offer: &Offer<'_>, verdict: &mut Verdict) {
        let counted = self.items(of, offer).and_then(|mut items| {
            let state = self.state(id);
            if let Some(glob) = state.name.filter(|glob| !self.names.glob(*glob).captures().is_empty()) {
                let own = self.mappings(glob, offer.own.name)?;
                for (mappings, _) in &mut items.files {
                    *mappings = SmallVec::from_vec(join(mappings, &own)?);
                }
            }
            Ok(items)
        });
        let Ok(items) = counted else {
            verdict.given_up.push(id);
            verdict.summary.may.insert(id.index());
            return;
        };
        if items.unknown > 0 {
            verdict.summary.may.insert(id.index());
        }
        if !items.files.is_empty() {
            verdict.summary.yes.insert(id.index());
            verdict.summary.values.push((id, Value::Bag(items.files)));
        }
    }

    fn accept(&self, offer: &Offer<'_>, verdict: &mut Verdict) {
        for (pattern, top) in (0..).map(PatternId).zip(&self.tops) {
            if verdict.summary.yes.contains(top.state.index()) {
                let Some(captures) = self.enter(top.state, &Mapping::default(), offer) else { continue };
                let missing = self.missing(top.state, &captures, offer);
                verdict.accepted.push(Accepted { pattern, captures, missing });
            } else if verdict.summary.may.contains(top.state.index()) {
                verdict.undecided.push(pattern);
            }
        }
    }

    /// The values that captures take in a directory in `state`, given those of the directory above: the smallest
    /// mapping that agrees, then what optional and recommended parts add. `None` if the state does not hold so.
    pub fn enter(&self, state: StateId, given: &Mapping, offer: &Offer<'_>) -> Option<Mapping> {
        let state = self.state(state);
        let Expr::All(parts) = &state.body else { return Some(given.clone()) };
        if self.names.captures().is_empty() {
            return Some(Mapping::default());
        }
        let mut entered = match self.answer(&state.body, offer).ok()?.ways {
            Ways::No => return None,
            Ways::Yes => given.clone(),
            Ways::Set(set) => given.union(set.iter().find(|mapping| mapping.agrees(given))?),
        };
        for part in parts.iter().filter(|part| matches!(part.role, Role::Optional | Role::Recommended)) {
            if let Ok(Answer { ways: Ways::Set(set), .. }) = self.answer(&part.expr, offer)
                && let Some(more) = set.iter().find(|mapping| mapping.agrees(&entered))
            {
                entered = entered.union(more);
            }
        }
        Some(entered)
    }

    fn missing(&self, state: StateId, captures: &Mapping, offer: &Offer<'_>) -> Vec<String> {
        let Expr::All(parts) = &self.state(state).body else { return Vec::new() };
        let recommended = parts.iter().filter(|part| part.role == Role::Recommended);
        recommended
            .filter(|part| {
                self.answer(&part.expr, offer).is_ok_and(|answer| !answer.may && !answer.holds_with(captures))
            })
            .filter_map(|part| part.label.clone())
            .collect()
    }

    /// The atoms of `state` that say what the view shows in this directory: those of required, optional and
    /// recommended parts, and of alternatives those that hold.
    pub fn shown_atoms<'s>(&'s self, state: StateId, captures: &Mapping, offer: &Offer<'_>) -> Vec<&'s Atom> {
        let mut shown = Vec::new();
        self.collect_shown(&self.state(state).body, captures, offer, &mut shown);
        shown
    }

    fn collect_shown<'s>(&'s self, expr: &'s Expr, captures: &Mapping, offer: &Offer<'_>, into: &mut Vec<&'s Atom>) {
        match expr {
            Expr::All(parts) => parts
                .iter()
                .filter(|part| part.role != Role::Forbidden)
                .for_each(|part| self.collect_shown(&part.expr, captures, offer, into)),
            Expr::Any(list) => list
                .iter()
                .filter(|expr| self.answer(expr, offer).is_ok_and(|answer| answer.holds_with(captures)))
                .for_each(|expr| self.collect_shown(expr, captures, offer, into)),
            Expr::Count { of, .. } | Expr::Sum(of) => into.extend(of),
            Expr::Name(_) => {}
        }
    }

    /// True if a file of this name, which matches `globs`, is one that `atom` stands for.
    pub fn shows_file(&self, atom: &Atom, captures: &Mapping, name: &[u8], globs: &[GlobId], probe: Probe<'_>) -> bool {
        let Atom::File(glob, tests) = atom else { return false };
        let named = match glob {
            None => true,
            Some(glob) if !globs.contains(glob) => false,
            Some(glob) if self.names.glob(*glob).captures().is_empty() => true,
            Some(glob) => self.mappings(*glob, name).is_ok_and(|all| all.iter().any(|way| way.agrees(captures))),
        };
        named && tests.iter().all(|test| probe(name, *test) == Some(true))
    }

    /// True if a child directory with these states is one that holds `state`, in agreement with `captures`.
    pub fn shows_child(&self, state: StateId, captures: &Mapping, child: &Summary) -> bool {
        child.yes.contains(state.index())
            && child.values.iter().filter(|(id, _)| *id == state).all(|(_, value)| match value {
                Value::Set(set) => set.iter().any(|mapping| mapping.agrees(captures)),
                Value::Bag(files) => files.iter().any(|(ways, _)| ways.iter().any(|way| way.agrees(captures))),
            })
    }

    fn mappings(&self, glob: GlobId, name: &[u8]) -> Result<Vec<Mapping>, TooMany> {
        self.names.glob(glob).mappings(name, self.names.captures()).map_err(|_| TooMany)
    }

    fn answer(&self, expr: &Expr, offer: &Offer<'_>) -> Result<Answer, TooMany> {
        match expr {
            Expr::All(parts) => self.all(parts, offer),
            Expr::Any(list) => self.any(list, offer),
            Expr::Name(glob) if !offer.own.globs.contains(glob.index()) => Ok(NO),
            Expr::Name(glob) if self.names.glob(*glob).captures().is_empty() => Ok(YES),
            Expr::Name(glob) => Ok(Answer::of(self.mappings(*glob, offer.own.name)?, false)),
            Expr::Count { of, min, max } => self.count(of, *min, *max, offer),
            Expr::Sum(of) => self.count(of, 1, None, offer),
        }
    }

    fn all(&self, parts: &[Part], offer: &Offer<'_>) -> Result<Answer, TooMany> {
        let mut whole = YES;
        let mut rejections: SmallVec<[Answer; 2]> = SmallVec::new();
        for part in parts {
            match part.role {
                Role::Optional | Role::Recommended => break,
                Role::Forbidden => match self.answer(&part.expr, offer)? {
                    Answer { ways: Ways::Yes, .. } => return Ok(NO),
                    Answer { ways: Ways::No, may: false } => {}
                    some => rejections.push(some),
                },
                Role::Required => {
                    let answer = self.answer(&part.expr, offer)?;
                    whole = match (whole.ways, answer.ways) {
                        (_, Ways::No) if !answer.may => return Ok(NO),
                        (Ways::No, _) | (_, Ways::No) => Answer { ways: Ways::No, may: true },
                        (Ways::Yes, ways) | (ways, Ways::Yes) => Answer { ways, may: whole.may || answer.may },
                        (Ways::Set(ours), Ways::Set(theirs)) => {
                            Answer::of(join(&ours, &theirs)?, whole.may || answer.may)
                        }
                    };
                    if whole == NO {
                        return Ok(NO);
                    }
                }
            }
        }
        for rejection in rejections {
            if let Ways::Set(rejected) = &rejection.ways {
                whole = match whole.ways {
                    Ways::No => whole,
                    // The empty mapping agrees with every other.
                    Ways::Yes => Answer { ways: Ways::No, may: whole.may },
                    Ways::Set(mut set) => {
                        set.retain(|mapping| !rejected.iter().any(|other| other.agrees(mapping)));
                        Answer::of(set, whole.may)
                    }
                };
            }
            if rejection.may && whole != NO {
                whole = Answer { ways: Ways::No, may: true };
            }
        }
        Ok(whole)
    }

    fn any(&self, list: &[Expr], offer: &Offer<'_>) -> Result<Answer, TooMany> {
        let (mut union, mut may) = (Vec::new(), false);
        for expr in list {
            let answer = self.answer(expr, offer)?;
            may |= answer.may;
            match answer.ways {
                Ways::No => {}
                Ways::Yes if self.names.captures().is_empty() => return Ok(YES),
                Ways::Yes => union.push(Mapping::default()),
                Ways::Set(set) => union.extend(set),
            }
        }
        Ok(Answer::of(union, may))
    }

    fn count(&self, of: &[Atom], min: u32, max: Option<u32>, offer: &Offer<'_>) -> Result<Answer, TooMany> {
        if (min, max) == (1, None)
            && let Some(answer) = self.there(of, offer)
        {
            return Ok(answer);
        }
        let items = self.items(of, offer)?;
        let within = |sure: u32| (sure >= min, max.is_none_or(|max| sure.saturating_add(items.unknown) <= max));
        let possible = |sure: u32| sure.saturating_add(items.unknown) >= min && max.is_none_or(|max| sure <= max);
        let all = items.files.iter().fold(0u32, |sum, (_, count)| sum.saturating_add(*count));
        if min == 0 || items.files.iter().all(|(ways, _)| ways.iter().all(Mapping::is_empty)) {
            return Ok(match within(all) {
                (true, true) => YES,
                _ => Answer { ways: Ways::No, may: possible(all) },
            });
        }
        let mut held = Vec::new();
        let candidates = distinct(items.files.iter().flat_map(|(ways, _)| ways.iter().cloned()).collect());
        let simple = (min, max) == (1, None);
        if !simple && candidates.len().saturating_mul(items.files.len()) > 16 * mapping::MAX_MAPPINGS {
            return Err(TooMany);
        }
        let mut may = items.unknown > 0;
        for candidate in candidates {
            let agreeing = || items.files.iter().filter(|(ways, _)| ways.iter().any(|way| way.agrees(&candidate)));
            let sure = if simple { 1 } else { agreeing().fold(0u32, |sum, (_, count)| sum.saturating_add(*count)) };
            match within(sure) {
                (true, true) => held.push(candidate),
                _ => may |= possible(sure),
            }
        }
        if held.len() > mapping::MAX_MAPPINGS {
            return Err(TooMany);
        }
        Ok(Answer::of(held, may))
    }

    /// Whether any of these is there, where presence alone tells: no captures, no tests.
    fn there(&self, of: &[Atom], offer: &Offer<'_>) -> Option<Answer> {
        let mut answer = Answer { ways: Ways::No, may: offer.unread };
        for atom in of {
            match atom {
                Atom::File(None, tests) if tests.is_empty() => {
                    if offer.files.any {
                        return Some(YES);
                    }
                }
                Atom::File(Some(glob), tests) => {
                    if offer.files.present.contains(glob.index()) {
                        if !tests.is_empty() || !self.names.glob(*glob).captures().is_empty() {
                            return None;
                        }
                        return Some(YES);
                    }
                }
                Atom::File(None, _) => return None,
                Atom::Child(child) => {
                    if !self.state(*child).closed {
                        return None;
                    }
                    if offer.kids.yes.contains(child.index()) {
                        return Some(YES);
                    }
                    answer.may |= offer.kids.may.contains(child.index());
                }
            }
        }
        Some(answer)
    }

    /// The files and children that atoms stand for, each with the mappings that it allows.
    fn items(&self, of: &[Atom], offer: &Offer<'_>) -> Result<Items, TooMany> {
        let mut items = Items { files: Vec::new(), unknown: if offer.unread { u32::MAX } else { 0 } };
        for atom in of {
            match atom {
                Atom::File(None, _) => {
                    // Interned as a glob wherever more than presence is asked.
                    if offer.files.any {
                        items.add(SmallVec::from_elem(Mapping::default(), 1), 1);
                    }
                }
                Atom::File(Some(glob), tests) => {
                    let captured = !self.names.glob(*glob).captures().is_empty();
                    for (name, _) in offer.files.detailed.iter().filter(|(_, globs)| globs.contains(glob)) {
                        let mut sure = true;
                        let passed = tests.iter().all(|test| match (offer.probe)(name, *test) {
                            Some(passed) => passed,
                            None => {
                                sure = false;
                                true
                            }
                        });
                        let ways = if captured {
                            SmallVec::from_vec(self.mappings(*glob, name)?)
                        } else {
                            SmallVec::from_elem(Mapping::default(), 1)
                        };
                        match (passed && !ways.is_empty(), sure) {
                            (false, _) => {}
                            (true, true) => items.add(ways, 1),
                            (true, false) => items.unknown = items.unknown.saturating_add(1),
                        }
                    }
                }
                Atom::Child(child) => {
                    match offer.kids.values.get(child) {
                        Some(Value::Set(set)) => {
                            set.iter().for_each(|way| items.add(SmallVec::from_elem(way.clone(), 1), 1));
                        }
                        Some(Value::Bag(files)) => files.iter().for_each(|(ways, n)| items.add(ways.clone(), *n)),
                        None if offer.kids.yes.contains(child.index()) => {
                            items.add(SmallVec::from_elem(Mapping::default(), 1), 1);
                        }
                        None => {}
                    }
                    if offer.kids.may.contains(child.index()) {
                        items.unknown = u32::MAX;
                    }
                }
            }
        }
        Ok(items)
    }
}

struct Items {
    files: Vec<(SmallVec<[Mapping; 1]>, u32)>,
    /// How many more there may be.
    unknown: u32,
}

impl Items {
    fn add(&mut self, ways: SmallVec<[Mapping; 1]>, count: u32) {
        match self.files.last_mut() {
            Some((last, sum)) if *last == ways => *sum = sum.saturating_add(count),
            _ => self.files.push((ways, count)),
        }
    }
}
