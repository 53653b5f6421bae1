//! The nearest misses of a source: one parallel pass that estimates for every directory how many changes it is away,
//! from the leaves up, and keeps the best; these are then looked at one by one.
//!
//! The estimate of a state is a sum over its parts; of a part that asks for a child directory, it is the least over the
//! children, which each hand up what they would cost in each state. So the pass holds what is on the way, like the walk,
//! and no names. A directory that is as far away as an empty one would be is no near miss, unless it has a file whose name is
//! nearly right.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::ffi::CStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::clauses::{Clause, Met, explain};
use super::cure::{Cure, cure};
use super::load::{Limits, outline};
use super::near::{distance, letters};
use super::{Question, json as shape};
use crate::automaton::{Atom, Automaton, Expr, Role, State, StateId, TestId};
use crate::config::NamedSource;
use crate::entry::{RelPath, printable};
use crate::listing::{ListRules, Listed, Scratch, list};
use crate::matcher::bits::Bits;
use crate::matcher::{Files, Kids, NO, Offer, Own, Summary, Verdict};
use crate::reader::{LINK_BUDGET, NOT_ENTERED, Reader, Reading, Target, Way, above_children};
use crate::source::{Handle, RawKind, Source};
use crate::view::matches::bytes;
use crate::walk::WalkOptions;

/// How many near misses of a pattern there are unless one says otherwise.
pub const DEFAULT: usize = 20;
/// What cannot be.
const NEVER: u32 = u32::MAX / 4;
/// How much of one near miss is read, and how long its changes are looked for.
const LIMITS: Limits = Limits { entries: 5_000, depth: 64 };
const STEPS: u32 = 4_000;
/// Where a pattern asks for no more than this, names that are nearly right count.
const FEW: u32 = 2;
/// Files of one directory whose names are looked at for that.
const NAMES: usize = 1_000;
const STACK_BYTES: usize = 16 << 20;

/// A directory that nearly matches.
#[derive(Clone, Debug)]
pub struct Miss {
    /// The source's place.
    pub source: usize,
    /// Where.
    pub path: RelPath,
    /// What would make it match.
    pub cure: Option<Cure>,
    /// The clauses that are not met.
    pub unmet: Vec<Clause>,
    estimate: u32,
}

impl Miss {
    /// How many changes it is away, or is thought to be.
    pub fn changes(&self) -> u32 {
        self.cure.as_ref().map_or(self.estimate, |cure| cure.changes.len() as u32)
    }

    /// What is missing, in a few words each.
    pub fn missing(&self) -> Vec<String> {
        self.unmet.iter().map(|clause| format!("{}: {}", clause.key, clause.asks)).collect()
    }
}

/// A line of NDJSON, in the words of `scan --json`.
pub fn ndjson(question: &Question, sources: &[NamedSource], miss: &Miss) -> Value {
    let source = &sources[miss.source];
    let mut object = Map::new();
    object.insert("pattern".into(), json!(question.pattern.name));
    object.insert("source".into(), json!(printable(&source.name)));
    bytes(&mut object, "path", &source.path_of(&miss.path));
    bytes(&mut object, "relpath", miss.path.as_bytes());
    object.insert("missing".into(), json!(miss.missing()));
    object.insert("distance".into(), json!(miss.changes()));
    shape::changes(&mut object, miss.cure.as_ref());
    Value::Object(object)
}

/// The nearest misses of a pattern in some sources, the nearest first, `most` at the most. `trouble` is told of what cannot be read, with the
/// source's place and the path below it; `cancelled` ends it soon.
pub fn nearest(
    question: &Question,
    sources: &[NamedSource],
    options: &[WalkOptions],
    most: usize,
    cancelled: &AtomicBool,
    trouble: &(dyn Fn(usize, &[u8], io::Error) + Sync),
) -> Vec<Miss> {
    let best = Best { most: most.saturating_mul(2).max(1), heap: Mutex::default() };
    for (place, (source, options)) in sources.iter().zip(options).enumerate() {
        let told = |path: &[u8], error| trouble(place, path, error);
        let pass = Pass::new(question, place, source, options, &best, cancelled, &told);
        if let Err(error) = pass.run() {
            trouble(place, b"", error);
        }
    }
    let found = best.heap.into_inner().into_sorted_vec();
    let mut misses: Vec<Miss> = found
        .into_iter()
        .filter(|_| !cancelled.load(Ordering::Relaxed))
        .filter_map(|ranked| look_at(question, sources, options, ranked))
        .collect();
    misses.sort_by(|a, b| (a.changes(), a.source, &a.path).cmp(&(b.changes(), b.source, &b.path)));
    misses.truncate(most);
    misses
}

/// Reads one of the best once more, with all that comes near. It may match by now, or be gone.
fn look_at(question: &Question, sources: &[NamedSource], options: &[WalkOptions], ranked: Ranked) -> Option<Miss> {
    let Ranked { estimate, source, path } = ranked;
    let NamedSource { source: tree, root_name, .. } = &sources[source];
    let automaton = &question.automaton;
    let loaded = outline(automaton, &**tree, root_name, &path, &options[source], LIMITS);
    let judged = loaded.dir.judge(automaton, &mut Scratch::new(automaton), &loaded.above);
    let explanation = explain(question, &judged);
    if explanation.met != Met::No {
        return None;
    }
    let cure = cure(&question.pattern, automaton, &loaded.dir, &loaded.above, STEPS);
    let unmet = explanation.clauses.into_iter().filter(|clause| clause.met == Met::No && clause.decides()).collect();
    Some(Miss { source, path, cure, unmet, estimate })
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    estimate: u32,
    source: usize,
    path: RelPath,
}

/// The best so far; the worst of them on top.
struct Best {
    most: usize,
    heap: Mutex<BinaryHeap<Ranked>>,
}

impl Best {
    fn offer(&self, ranked: Ranked) {
        let mut heap = self.heap.lock();
        if heap.len() < self.most {
            heap.push(ranked);
        } else if let Some(mut worst) = heap.peek_mut()
            && ranked.cmp(&worst) == Order::Less
        {
            *worst = ranked;
        }
    }
}

/// A directory on the way, up to the root.
#[derive(Clone, Copy)]
struct Step<'a> {
    handle: &'a Handle,
    above: Option<&'a Step<'a>>,
    depth: u32,
}

impl Step<'_> {
    fn holds(&self, source: &dyn Source, identity: (u64, u64)) -> bool {
        source.identity(self.handle).is_ok_and(|own| own == identity)
            || self.above.is_some_and(|above| above.holds(source, identity))
    }
}

/// What a directory is to the one above it.
struct Handed {
    summary: Summary,
    /// For each state, the changes that it is away.
    costs: Vec<u32>,
}

struct Pass<'a> {
    automaton: &'a Automaton,
    place: usize,
    source: &'a NamedSource,
    options: &'a WalkOptions,
    best: &'a Best,
    cancelled: &'a AtomicBool,
    trouble: &'a (dyn Fn(&[u8], io::Error) + Sync),
    scratch: Vec<Mutex<Scratch>>,
    /// For each state, what it takes in an empty directory.
    fresh: Vec<u32>,
    top: StateId,
    root_dev: Option<u64>,
}

impl<'a> Pass<'a> {
    fn new(
        question: &'a Question,
        place: usize,
        source: &'a NamedSource,
        options: &'a WalkOptions,
        best: &'a Best,
        cancelled: &'a AtomicBool,
        trouble: &'a (dyn Fn(&[u8], io::Error) + Sync),
    ) -> Self {
        let automaton = &question.automaton;
        let mut fresh = vec![None; automaton.states.len()];
        for state in 0..automaton.states.len() {
            fresh_cost(automaton, state, &mut fresh, &mut Vec::new());
        }
        let fresh = fresh.into_iter().map(|cost| cost.unwrap_or(NEVER)).collect();
        let scratch = (0..options.threads.max(1)).map(|_| Mutex::new(Scratch::new(automaton))).collect();
        let top = automaton.tops[0].state;
        Self { automaton, place, source, options, best, cancelled, trouble, scratch, fresh, top, root_dev: None }
    }

    fn run(mut self) -> io::Result<()> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.options.threads.max(1))
            .thread_name(|at| format!("near-{at}"))
            .stack_size(STACK_BYTES)
            .build()
            .map_err(io::Error::other)?;
        crate::walk::descriptor_limit();
        let root = self.source.source.open_root()?;
        if self.options.one_file_system {
            self.root_dev = Some(self.source.source.identity(&root)?.0);
        }
        let above = Bits::new(self.automaton.names.len());
        let step = Step { handle: &root, above: None, depth: 0 };
        let pass = &self;
        pool.install(|| pass.visit(&step, &pass.source.root_name, &above, &[])).map(drop)
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let at = rayon::current_thread_index().unwrap_or(0) % self.scratch.len();
        // A thread that waits for its children takes up others' work, never while it holds this.
        work(&mut self.scratch[at].lock())
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            automaton: self.automaton,
            source: &*self.source.source,
            rules: ListRules { exclude: &self.options.exclude, follow: self.options.follow },
            closed: &|_| false,
            shut: &self.options.shut,
            entered: &|_| {},
            failed: &|_, _| {},
        }
    }

    fn visit(&self, step: &Step<'_>, name: &[u8], above: &Bits, path: &[u8]) -> io::Result<Handed> {
        let rules = ListRules { exclude: &self.options.exclude, follow: self.options.follow };
        let source = &*self.source.source;
        let (listed, globs) = self.with_scratch(|scratch| {
            let listed = list(self.automaton, source, step.handle, &|| path.to_vec(), rules, scratch);
            listed.map(|listed| (listed, scratch.match_name(self.automaton, name)))
        })?;
        let own = Own { name, globs: &globs, above };
        let below = above_children(self.automaton, &own);
        let children: Vec<Handed> = (0..listed.dirs.len())
            .into_par_iter()
            .map(|at| stacker::maybe_grow(128 << 10, 4 << 20, || self.child(step, &listed, at, &below, path)))
            .collect();
        let (mut kids, mut costs) = (Kids::new(self.automaton), vec![NEVER; self.automaton.states.len()]);
        for child in children {
            kids.merge(child.summary);
            costs.iter_mut().zip(child.costs).for_each(|(least, cost)| *least = (*least).min(cost));
        }
        let probe = |name: &[u8], test: TestId| {
            source.test(step.handle, &crate::listing::c_name(name), &self.automaton.tests[test.0 as usize]).ok()
        };
        let offer = Offer { own: &own, files: &listed.files, kids: &kids, probe: &probe, unread: false };
        let (handed, accepted) = self.hand(&offer, &costs);
        if !accepted {
            self.consider(step.handle, handed.costs[self.top.index()], path);
        }
        Ok(handed)
    }

    fn child(&self, step: &Step<'_>, listed: &Listed, at: usize, above: &Bits, path: &[u8]) -> Handed {
        let (name, linked) = (listed.dirs.name(at), listed.dirs.linked(at));
        let depth = step.depth + 1;
        let path = if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() };
        if self.cancelled.load(Ordering::Relaxed) {
            return self.without_content(name, above, true);
        }
        if linked && !self.options.follow {
            return self.behind_link(step, name, above, path);
        }
        let closed = name.to_bytes() == NOT_ENTERED
            || self.options.max_depth.is_some_and(|limit| depth >= limit)
            || self.options.closes(&path);
        if closed {
            return self.without_content(name, above, false);
        }
        let source = &*self.source.source;
        let opened = if linked { source.open_link(step.handle, name) } else { source.open_dir(step.handle, name) };
        let visited = opened.and_then(|handle| {
            if self.root_dev.is_some() || self.options.follow {
                let (dev, ino) = source.identity(&handle)?;
                let other = self.root_dev.is_some_and(|root| root != dev) || self.options.shut.is_device(dev);
                if other || (linked && step.holds(source, (dev, ino))) {
                    return Ok(self.without_content(name, above, false));
                }
            }
            self.visit(&Step { handle: &handle, above: Some(step), depth }, name.to_bytes(), above, &path)
        });
        visited.unwrap_or_else(|error| {
            (self.trouble)(&path, error);
            self.without_content(name, above, true)
        })
    }

    /// The states of what is behind a link; nothing is changed there.
    fn behind_link(&self, step: &Step<'_>, name: &CStr, above: &Bits, path: Vec<u8>) -> Handed {
        let is_below = |identity| step.above.is_some_and(|above| above.holds(&*self.source.source, identity));
        let way = Way::new(step.handle, &is_below);
        let target = Target { name, linked: true, above };
        let parent = &path[..path.len() - name.to_bytes().len()];
        let parent = parent.strip_suffix(b"/").unwrap_or(parent).to_vec();
        let summary = self.with_scratch(|scratch| {
            let mut reading = Reading { path: parent, through_link: true, budget: LINK_BUDGET, scratch };
            self.reader().child(&way, &target, &self.automaton.subs, &mut reading).summary
        });
        let costs = (0..self.automaton.states.len()).map(|state| if summary.yes.contains(state) { 0 } else { NEVER });
        Handed { costs: costs.collect(), summary }
    }

    /// A directory of which nothing but the name is seen; it cannot be changed.
    fn without_content(&self, name: &CStr, above: &Bits, unread: bool) -> Handed {
        let globs = self.with_scratch(|scratch| scratch.match_name(self.automaton, name.to_bytes()));
        let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
        let own = Own { name: name.to_bytes(), globs: &globs, above };
        let offer = Offer { own: &own, files: &files, kids: &kids, probe: &|_, _| None, unread };
        let Verdict { summary, .. } = self.automaton.judge(&offer, None);
        let costs = (0..self.automaton.states.len()).map(|state| if summary.yes.contains(state) { 0 } else { NEVER });
        Handed { costs: costs.collect(), summary }
    }

    /// What a directory hands up, and whether it matches or may.
    fn hand(&self, offer: &Offer<'_>, of_children: &[u32]) -> (Handed, bool) {
        let verdict = self.automaton.judge(offer, None);
        let count = |of: &[Atom]| self.automaton.counted(of, offer);
        let holds = |expr: &Expr| self.automaton.answer(expr, offer).map_or(true, |answer| answer != NO);
        let estimate = Estimate { fresh: &self.fresh, of_children, count: &count, holds: &holds };
        let costs = self.automaton.states.iter().zip(0u32..).map(|(state, id)| {
            if verdict.summary.yes.contains(id as usize) {
                return 0;
            }
            let banned = state.forbidden_ancestors.iter().any(|glob| offer.own.above.contains(glob.index()));
            let named = match self.automaton.name_holds(state, offer.own) {
                true => 0u32,
                false if id == self.top.0 || self.is_near(state, offer.own.name) => 1,
                false => return NEVER,
            };
            if banned { NEVER } else { named.saturating_add(estimate.of(&state.body)).min(NEVER) }
        });
        let costs = costs.collect();
        let accepted = !verdict.accepted.is_empty() || !verdict.undecided.is_empty();
        (Handed { summary: verdict.summary, costs }, accepted)
    }

    /// True if a child of this name could be meant: one of quite another name is no sign of what a pattern asks for.
    fn is_near(&self, state: &State, name: &[u8]) -> bool {
        state.name.is_none_or(|glob| {
            let glob = self.automaton.names.glob(glob);
            let said = letters(&glob.tokens);
            said <= FEW || distance(&glob.ignoring_case(), self.automaton.names.captures(), name) <= 1 + said / 4
        })
    }

    fn consider(&self, handle: &Handle, estimate: u32, path: &[u8]) {
        let top = self.automaton.state(self.top);
        let empty = self.fresh[self.top.index()] + u32::from(top.name.is_some());
        let estimate = estimate.max(1);
        if estimate < empty || (estimate == empty && empty <= FEW && self.has_near_name(handle)) {
            self.best.offer(Ranked { estimate, source: self.place, path: RelPath::from_bytes(path) });
        }
    }

    /// True if a file's name is nearly what the pattern asks for at its top.
    fn has_near_name(&self, handle: &Handle) -> bool {
        let mut asked = Vec::new();
        let Expr::All(parts) = &self.automaton.state(self.top).body else { return false };
        for part in parts.iter().filter(|part| part.role == Role::Required) {
            crate::automaton::atoms(&part.expr, &mut |atom| {
                if let Atom::File(Some(glob), _) = atom {
                    asked.push(self.automaton.names.glob(*glob));
                }
            });
        }
        asked.retain(|glob| letters(&glob.tokens) > 2);
        if asked.is_empty() {
            return false;
        }
        let asked: Vec<_> =
            asked.into_iter().map(|glob| (1 + letters(&glob.tokens) / 4, glob.ignoring_case())).collect();
        let mut names: Vec<Box<[u8]>> = Vec::new();
        // What was listed once is at its end.
        let Ok(handle) = self.source.source.open_dir(handle, c".") else { return false };
        let listed = self.with_scratch(|scratch| {
            self.source.source.list(&handle, &mut scratch.buffer, &mut |name, kind, _| {
                if matches!(kind, RawKind::File | RawKind::Link) && names.len() < NAMES {
                    names.push(name.to_bytes().into());
                }
            })
        });
        let captures = self.automaton.names.captures();
        listed.is_ok()
            && names.iter().any(|name| asked.iter().any(|(far, glob)| distance(glob, captures, name) <= *far))
    }
}

/// A sum over what is asked.
struct Estimate<'a> {
    fresh: &'a [u32],
    of_children: &'a [u32],
    count: &'a dyn Fn(&[Atom]) -> u32,
    holds: &'a dyn Fn(&Expr) -> bool,
}

impl Estimate<'_> {
    fn of(&self, expr: &Expr) -> u32 {
        match expr {
            Expr::All(parts) => {
                let cost = |part: &crate::automaton::Part| match part.role {
                    Role::Required => self.of(&part.expr),
                    Role::Forbidden => u32::from((self.holds)(&part.expr)),
                    Role::Optional | Role::Recommended => 0,
                };
                parts.iter().map(cost).fold(0, |sum, cost| sum.saturating_add(cost).min(NEVER))
            }
            Expr::Any(list) => list.iter().map(|expr| self.of(expr)).min().unwrap_or(NEVER),
            Expr::Name(_) => u32::from(!(self.holds)(expr)),
            Expr::Sum(of) => self.of_count(expr, of, 1, None),
            Expr::Count { of, min, max } => self.of_count(expr, of, *min, *max),
        }
    }

    fn of_count(&self, expr: &Expr, of: &[Atom], min: u32, max: Option<u32>) -> u32 {
        if (self.holds)(expr) {
            return 0;
        }
        let count = if (min, max) == (1, None) { 0 } else { (self.count)(of) };
        if let Some(max) = max.filter(|max| count > *max) {
            return count - max;
        }
        let more = min.saturating_sub(count).max(1);
        let least = |atom: &Atom| match atom {
            Atom::File(..) => 1,
            Atom::Child(state) => {
                self.of_children[state.index()].min(self.fresh[state.index()].saturating_add(1)).max(1)
            }
        };
        of.iter().map(least).min().unwrap_or(NEVER).saturating_add(more - 1).min(NEVER)
    }
}

/// What a state takes in an empty directory of the right name.
fn fresh_cost(automaton: &Automaton, state: usize, known: &mut Vec<Option<u32>>, open: &mut Vec<usize>) -> u32 {
    if let Some(cost) = known[state] {
        return cost;
    }
    // `**` that asks itself of its children is never cheaper that way.
    if open.contains(&state) {
        return NEVER;
    }
    open.push(state);
    let mut children = Bits::new(automaton.states.len());
    automaton.asked_of_children(StateId(state as u32), &mut children);
    let mut fresh = vec![NEVER; automaton.states.len()];
    for child in children.iter() {
        fresh[child] = fresh_cost(automaton, child, known, open);
    }
    open.pop();
    let never = vec![NEVER; automaton.states.len()];
    let holds = |expr: &Expr| match expr {
        Expr::Count { min, .. } => *min == 0,
        Expr::Name(_) => true,
        Expr::All(_) | Expr::Any(_) | Expr::Sum(_) => false,
    };
    let estimate = Estimate { fresh: &fresh, of_children: &never, count: &|_| 0, holds: &holds };
    let cost = estimate.of(&automaton.states[state].body);
    known[state] = Some(cost);
    cost
}
