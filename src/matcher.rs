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

/// A file's name with the globs that it matches.
pub type Detailed = (Box<[u8]>, SmallVec<[GlobId; 4]>);

/// The files of a directory, as far as patterns ask for them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Globs that some file matches.
    pub present: Bits,
    /// True if there is any file.
    pub any: bool,
    /// Files whose names matter one by one.
    pub detailed: Vec<Detailed>,
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
    /// Files to be counted.
    Bag(Bag),
}

/// The mappings of one file, and how many files have these.
pub type Bag = Vec<(SmallVec<[Mapping; 1]>, u32)>;

/// The states of one directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// States that hold.
    pub yes: Bits,
    /// States that may hold, or hold in more ways, if what could not be read were known.
    pub may: Bits,
    /// Values of those states that have one.
    pub values: Vec<(StateId, Value)>,
    /// For states that may hold and can have values: what may be added to these.
    pub maybe: Vec<(StateId, Value)>,
}

/// The states of all child directories of one directory, together.
#[derive(Clone, Debug, Default)]
pub struct Kids {
    /// States that some child is in.
    pub yes: Bits,
    /// States that some child may be in.
    pub may: Bits,
    values: FxHashMap<StateId, Value>,
    maybe: FxHashMap<StateId, Value>,
}

impl Kids {
    /// No children yet.
    pub fn new(automaton: &Automaton) -> Self {
        let states = automaton.states.len();
        Self { yes: Bits::new(states), may: Bits::new(states), ..Self::default() }
    }

    /// Adds a child.
    pub fn merge(&mut self, child: Summary) {
        self.yes.extend(&child.yes);
        self.may.extend(&child.may);
        child.values.into_iter().for_each(|(state, value)| merge(&mut self.values, state, value));
        child.maybe.into_iter().for_each(|(state, value)| merge(&mut self.maybe, state, value));
    }
}

fn merge(values: &mut FxHashMap<StateId, Value>, state: StateId, value: Value) {
    match (values.get_mut(&state), value) {
        (None, value) => {
            values.insert(state, value);
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

/// Makes one of equal items.
fn add_up(files: &mut Bag) {
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
        let summary = Summary { yes: Bits::new(states), may: Bits::new(states), ..Summary::default() };
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
pub(crate) enum Ways {
    /// None.
    No,
    /// All: the empty mapping.
    Yes,
    /// These; never empty.
    Set(Vec<Mapping>),
}

impl Ways {
    fn of(mappings: Vec<Mapping>) -> Ways {
        let mappings = distinct(mappings);
        match mappings.as_slice() {
            [] => Ways::No,
            [one] if one.is_empty() => Ways::Yes,
            _ => Ways::Set(mappings),
        }
    }

    fn holds_with(&self, given: &Mapping) -> bool {
        match self {
            Ways::No => false,
            Ways::Yes => true,
            Ways::Set(set) => set.iter().any(|mapping| mapping.agrees(given)),
        }
    }

    pub(crate) fn into_mappings(self) -> Vec<Mapping> {
        match self {
            Ways::No => Vec::new(),
            Ways::Yes => vec![Mapping::default()],
            Ways::Set(set) => set,
        }
    }

    fn filter(self, keep: impl Fn(&Mapping) -> bool) -> Ways {
        match self {
            Ways::Yes if !keep(&Mapping::default()) => Ways::No,
            Ways::Set(mut set) => {
                set.retain(keep);
                Ways::of(set)
            }
            ways => ways,
        }
    }

    fn or(self, other: Ways) -> Ways {
        match (self, other) {
            (ways, Ways::No) | (Ways::No, ways) => ways,
            (ours, theirs) => Ways::of([ours.into_mappings(), theirs.into_mappings()].concat()),
        }
    }

    fn and(self, other: Ways) -> Result<Ways, TooMany> {
        Ok(match (self, other) {
            (Ways::No, _) | (_, Ways::No) => Ways::No,
            (Ways::Yes, ways) | (ways, Ways::Yes) => ways,
            (Ways::Set(ours), Ways::Set(theirs)) => Ways::of(join(&ours, &theirs)?),
        })
    }
}

/// The ways that are certain, and those that there may be: in these, a capture that is not set stands for any value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) ways: Ways,
    pub(crate) may: Ways,
}

pub(crate) const NO: Answer = Answer { ways: Ways::No, may: Ways::No };
pub(crate) const YES: Answer = Answer { ways: Ways::Yes, may: Ways::No };
pub(crate) const UNKNOWN: Answer = Answer { ways: Ways::No, may: Ways::Yes };

impl Answer {
    pub(crate) fn and(self, other: Answer) -> Result<Answer, TooMany> {
        let may = match (&self.may, &other.may) {
            (Ways::No, Ways::No) => Ways::No,
            _ => self.ways.clone().or(self.may).and(other.ways.clone().or(other.may))?,
        };
        Ok(Answer { ways: self.ways.and(other.ways)?, may })
    }

    pub(crate) fn without(self, rejected: &Answer) -> Answer {
        let left = |ways: Ways| ways.filter(|mapping| !rejected.ways.holds_with(mapping));
        let (ways, may) = (left(self.ways), left(self.may));
        if rejected.may == Ways::No {
            return Answer { ways, may };
        }
        let may = may.or(ways.clone().filter(|mapping| rejected.may.holds_with(mapping)));
        Answer { ways: ways.filter(|mapping| !rejected.may.holds_with(mapping)), may }
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

    pub(crate) fn name_holds(&self, state: &State, own: &Own<'_>) -> bool {
        state.name.is_none_or(|glob| own.globs.contains(glob.index()))
            && !state.forbidden_names.iter().any(|glob| own.globs.contains(glob.index()))
            && !state.forbidden_ancestors.iter().any(|glob| own.above.contains(glob.index()))
    }

    fn judge_state(&self, id: StateId, offer: &Offer<'_>, verdict: &mut Verdict) {
        let state = self.state(id);
        if let Expr::Sum(of) = &state.body {
            return self.sum(id, of, offer, verdict);
        }
        let answer = self.answer(&state.body, offer).unwrap_or_else(|TooMany| {
            verdict.given_up.push(id);
            UNKNOWN
        });
        let Summary { yes, may, values, maybe } = &mut verdict.summary;
        for (ways, holds, values) in [(answer.ways, yes, values), (answer.may, may, maybe)] {
            if ways == Ways::No {
                continue;
            }
            holds.insert(id.index());
            // A state that can have values has one, so that values of several children unite.
            if !state.closed {
                let kept = ways.into_mappings().into_iter().map(|mapping| mapping.without(&state.declares));
                values.push((id, Value::Set(distinct(kept.collect()))));
            }
        }
    }

    /// A counting state passes up the files that it stands for.
    fn sum(&self, id: StateId, of: &[Atom], offer: &Offer<'_>, verdict: &mut Verdict) {
        let counted = self.items(of, offer).and_then(|mut items| {
            let state = self.state(id);
            if let Some(glob) = state.name.filter(|glob| !self.names.glob(*glob).captures().is_empty()) {
                let own = self.mappings(glob, offer.own.name)?;
                for list in [&mut items.files, &mut items.unknown] {
                    for (mappings, _) in list.iter_mut() {
                        *mappings = SmallVec::from_vec(join(mappings, &own)?);
                    }
                    list.retain(|(mappings, _)| !mappings.is_empty());
                }
            }
            Ok(items)
        });
        let items = counted.unwrap_or_else(|TooMany| {
            verdict.given_up.push(id);
            Items { files: Bag::new(), unknown: unread_files() }
        });
        let Summary { yes, may, values, maybe } = &mut verdict.summary;
        for (files, holds, values) in [(items.files, yes, values), (items.unknown, may, maybe)] {
            if !files.is_empty() {
                holds.insert(id.index());
                values.push((id, Value::Bag(files)));
            }
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

    /// The values that captures have in a directory in `state`, given those of the directory above. Those that the
    /// state declares take them from the smallest mapping that agrees, then from what optional and recommended parts
    /// add. `None` if the state does not hold so.
    pub fn enter(&self, state: StateId, given: &Mapping, offer: &Offer<'_>) -> Option<Mapping> {
        let state = self.state(state);
        let Expr::All(parts) = &state.body else { return Some(given.clone()) };
        if state.declares.is_empty() {
            return Some(given.clone());
        }
        let mut entered = given.clone();
        let mut add = |ways: &Ways| {
            let Ways::Set(set) = ways else { return *ways == Ways::Yes };
            let Some(mapping) = set.iter().find(|mapping| mapping.agrees(&entered)) else { return false };
            entered = entered.union(&mapping.only(&state.declares));
            true
        };
        if !add(&self.answer(&state.body, offer).ok()?.ways) {
            return None;
        }
        for part in parts.iter().filter(|part| matches!(part.role, Role::Optional | Role::Recommended)) {
            if let Ok(answer) = self.answer(&part.expr, offer) {
                add(&answer.ways);
            }
        }
        Some(entered)
    }

    /// The values with which the view shows a directory in `state`: those of [`Automaton::enter`], or on the way of a
    /// path glob one for each way in which its name matches.
    pub fn entered(&self, state: StateId, given: &Mapping, offer: &Offer<'_>) -> SmallVec<[Mapping; 1]> {
        if let State { path: true, name: Some(glob), .. } = self.state(state)
            && let Ok(ways) = self.mappings(*glob, offer.own.name)
        {
            return ways.iter().filter(|way| way.agrees(given)).map(|way| given.union(way)).collect();
        }
        SmallVec::from_elem(self.enter(state, given, offer).unwrap_or_else(|| given.clone()), 1)
    }

    fn missing(&self, state: StateId, captures: &Mapping, offer: &Offer<'_>) -> Vec<String> {
        let Expr::All(parts) = &self.state(state).body else { return Vec::new() };
        let recommended = parts.iter().filter(|part| part.role == Role::Recommended);
        recommended
            .filter(|part| {
                let holds = |answer: Answer| answer.ways.holds_with(captures) || answer.may.holds_with(captures);
                self.answer(&part.expr, offer).is_ok_and(|answer| !holds(answer))
            })
            .filter_map(|part| part.label.clone())
            .collect()
    }

    /// The required parts of `state` that a directory lacks and the forbidden ones that it has, for certain and whatever
    /// the values of captures.
    pub fn unmet<'s>(&'s self, state: StateId, offer: &Offer<'_>) -> Vec<&'s Part> {
        let Expr::All(parts) = &self.state(state).body else { return Vec::new() };
        let unmet = |part: &&Part| match (part.role, self.answer(&part.expr, offer)) {
            (Role::Required, Ok(answer)) => answer == NO,
            (Role::Forbidden, Ok(answer)) => answer.ways == Ways::Yes,
            (Role::Optional | Role::Recommended, _) | (_, Err(TooMany)) => false,
        };
        parts.iter().filter(unmet).collect()
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
                .filter(|expr| self.answer(expr, offer).is_ok_and(|answer| answer.ways.holds_with(captures)))
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

    pub(crate) fn mappings(&self, glob: GlobId, name: &[u8]) -> Result<Vec<Mapping>, TooMany> {
        self.names.glob(glob).mappings(name, self.names.captures()).map_err(|_| TooMany)
    }

    /// True if `state` holds by the files of the directory, whatever its children are.
    pub(crate) fn files_decide(&self, state: StateId, offer: &Offer<'_>) -> bool {
        match &self.state(state).body {
            Expr::Count { of, min: 1, max: None } if self.state(state).closed => self.there(of, offer) == Some(YES),
            _ => false,
        }
    }

    /// The states that `state` asks of child directories for what the files of the directory do not decide.
    pub(crate) fn left_to_children(&self, state: StateId, alone: &Offer<'_>, into: &mut Bits) {
        self.collect_left(&self.state(state).body, alone, into);
    }

    fn collect_left(&self, expr: &Expr, alone: &Offer<'_>, into: &mut Bits) {
        match expr {
            Expr::All(parts) => parts.iter().for_each(|part| self.collect_left(&part.expr, alone, into)),
            Expr::Any(list) => list.iter().for_each(|expr| self.collect_left(expr, alone, into)),
            Expr::Count { of, min: 1, max: None } if self.there(of, alone) == Some(YES) => {}
            Expr::Count { of, .. } | Expr::Sum(of) => of.iter().for_each(|atom| {
                if let Atom::Child(child) = atom {
                    into.insert(child.index());
                }
            }),
            Expr::Name(_) => {}
        }
    }

    /// Whether, and with which values of captures, an expression holds in a directory.
    pub(crate) fn answer(&self, expr: &Expr, offer: &Offer<'_>) -> Result<Answer, TooMany> {
        match expr {
            Expr::All(parts) => self.all(parts, offer),
            Expr::Any(list) => self.any(list, offer),
            Expr::Name(glob) if !offer.own.globs.contains(glob.index()) => Ok(NO),
            Expr::Name(glob) if self.names.glob(*glob).captures().is_empty() => Ok(YES),
            Expr::Name(glob) => Ok(Answer { ways: Ways::of(self.mappings(*glob, offer.own.name)?), may: Ways::No }),
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
                    NO => {}
                    some => rejections.push(some),
                },
                Role::Required => {
                    whole = whole.and(self.answer(&part.expr, offer)?)?;
                    if whole == NO {
                        return Ok(NO);
                    }
                }
            }
        }
        Ok(rejections.iter().fold(whole, Answer::without))
    }

    fn any(&self, list: &[Expr], offer: &Offer<'_>) -> Result<Answer, TooMany> {
        let mut union = NO;
        for expr in list {
            let answer = self.answer(expr, offer)?;
            if answer.ways == Ways::Yes && self.names.captures().is_empty() {
                return Ok(YES);
            }
            union = Answer { ways: union.ways.or(answer.ways), may: union.may.or(answer.may) };
        }
        Ok(union)
    }

    fn count(&self, of: &[Atom], min: u32, max: Option<u32>, offer: &Offer<'_>) -> Result<Answer, TooMany> {
        if (min, max) == (1, None)
            && let Some(answer) = self.there(of, offer)
        {
            return Ok(answer);
        }
        let Items { files, unknown } = self.items(of, offer)?;
        let max = max.unwrap_or(u32::MAX);
        let sum = |bag: &Bag, with: &dyn Fn(&Mapping) -> bool| {
            let agreeing = bag.iter().filter(|(ways, _)| ways.iter().any(with));
            agreeing.fold(0u32, |sum, (_, count)| sum.saturating_add(*count))
        };
        let held = |sure: u32, more: u32| sure >= min && (max == u32::MAX || sure.saturating_add(more) <= max);
        let possible = |sure: u32, more: u32| sure.saturating_add(more) >= min && sure <= max;
        let plain = |bag: &Bag| bag.iter().all(|(ways, _)| ways.iter().all(Mapping::is_empty));
        if min == 0 || (plain(&files) && plain(&unknown)) {
            let (sure, more) = (sum(&files, &|_| true), sum(&unknown, &|_| true));
            return Ok(match (held(sure, more), possible(sure, more)) {
                (true, _) => YES,
                (false, true) => UNKNOWN,
                (false, false) => NO,
            });
        }
        let candidates = |bag: &Bag| distinct(bag.iter().flat_map(|(ways, _)| ways.iter().cloned()).collect());
        let (sure, open) = (candidates(&files), candidates(&unknown));
        let size = (sure.len() + open.len()).saturating_mul(files.len() + unknown.len());
        let simple = (min, max) == (1, u32::MAX);
        if sure.len().max(open.len()) > mapping::MAX_MAPPINGS || (!simple && size > 16 * mapping::MAX_MAPPINGS) {
            return Err(TooMany);
        }
        if simple {
            return Ok(Answer { ways: Ways::of(sure), may: Ways::of(open) });
        }
        let (mut ways, mut may) = (Vec::new(), Vec::new());
        for candidate in sure {
            let agreeing = |bag| sum(bag, &|way| way.agrees(&candidate));
            match (agreeing(&files), agreeing(&unknown)) {
                (sure, more) if held(sure, more) => ways.push(candidate),
                (sure, more) if possible(sure, more) => may.push(candidate),
                _ => {}
            }
        }
        for candidate in open {
            // Files count against `max` if they agree whatever the values of captures that are not set.
            let set = |way: &Mapping| way.iter().all(|(id, _)| candidate.get(id).is_some());
            let agreeing = |bag| sum(bag, &|way| way.agrees(&candidate));
            let enough = agreeing(&files).saturating_add(agreeing(&unknown)) >= min;
            if enough && sum(&files, &|way| set(way) && way.agrees(&candidate)) <= max {
                may.push(candidate);
            }
        }
        Ok(Answer { ways: Ways::of(ways), may: Ways::of(may) })
    }

    /// How many files, and children in a state, atoms stand for; tests of files that cannot be read count as failed.
    pub(crate) fn counted(&self, of: &[Atom], offer: &Offer<'_>) -> u32 {
        let files = self.items(of, offer).map(|items| items.files).unwrap_or_default();
        files.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether any of these is there, where presence alone tells: no captures, no tests.
    fn there(&self, of: &[Atom], offer: &Offer<'_>) -> Option<Answer> {
        let mut may = offer.unread;
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
                    may |= offer.kids.may.contains(child.index());
                }
            }
        }
        Some(if may { UNKNOWN } else { NO })
    }

    /// The files and children that atoms stand for, each with the mappings that it allows.
    fn items(&self, of: &[Atom], offer: &Offer<'_>) -> Result<Items, TooMany> {
        let unknown = if offer.unread { unread_files() } else { Bag::new() };
        let mut items = Items { files: Bag::new(), unknown };
        for atom in of {
            match atom {
                Atom::File(None, _) => {
                    // Interned as a glob wherever more than presence is asked.
                    if offer.files.any {
                        add(&mut items.files, any_value(), 1);
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
                        let ways = if captured { SmallVec::from_vec(self.mappings(*glob, name)?) } else { any_value() };
                        if passed && !ways.is_empty() {
                            add(if sure { &mut items.files } else { &mut items.unknown }, ways, 1);
                        }
                    }
                }
                Atom::Child(child) => {
                    let kids = offer.kids;
                    for (holds, values, into) in
                        [(&kids.yes, &kids.values, &mut items.files), (&kids.may, &kids.maybe, &mut items.unknown)]
                    {
                        match values.get(child) {
                            Some(Value::Set(set)) => {
                                set.iter().for_each(|way| add(into, SmallVec::from_elem(way.clone(), 1), 1));
                            }
                            Some(Value::Bag(files)) => files.iter().for_each(|(ways, n)| add(into, ways.clone(), *n)),
                            None if holds.contains(child.index()) => add(into, any_value(), 1),
                            None => {}
                        }
                    }
                }
            }
        }
        Ok(items)
    }
}

struct Items {
    files: Bag,
    /// What there may be besides.
    unknown: Bag,
}

fn any_value() -> SmallVec<[Mapping; 1]> {
    SmallVec::from_elem(Mapping::default(), 1)
}

/// Any number of files with any values.
fn unread_files() -> Bag {
    vec![(any_value(), u32::MAX)]
}

fn add(bag: &mut Bag, ways: SmallVec<[Mapping; 1]>, count: u32) {
    match bag.last_mut() {
        Some((last, sum)) if *last == ways => *sum = sum.saturating_add(count),
        _ => bag.push((ways, count)),
    }
}
