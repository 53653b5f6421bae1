//! Which matches a file belongs to, upward from the file.
//!
//! A file belongs to a match if the match's view shows it. Names alone tell which patterns could show it from which of
//! the directories above it; only these are judged, from the deepest up, so that each is listed once and hands its
//! states to the one above. Of the other children a directory reads no more than it takes to decide. What was read then
//! tells, from each match downwards, whether the file is shown: nothing is listed again, but for what is behind a link.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use crate::automaton::{Automaton, Expr, PatternId, Role, StateId};
use crate::config::NamedSource;
use crate::entry::{Kind, RelPath};
use crate::expand::{Content, Shown, Symlinks, link, rules};
use crate::inside::{Dir, Name, content_of};
use crate::listing::{ListRules, Listed, Scratch, c_name, list};
use crate::matcher::bits::Bits;
use crate::matcher::names::GlobId;
use crate::matcher::{Accepted, Files, Kids, Offer, Summary, Verdict};
use crate::reader::{LINK_BUDGET, Reader, Reading, Target, Way};
use crate::source::Stat;
use crate::walk::{Found, Trouble, WalkOptions};

pub mod mounted;
mod names;

/// What can be said of one path.
#[derive(Debug, Default)]
pub struct Assessment {
    /// The matches whose view shows it, the innermost first.
    pub matches: Vec<Found>,
    /// Directories above it that would show it, and lack one thing to match.
    pub near: Vec<Near>,
    /// What could not be read or decided.
    pub troubles: Vec<Trouble>,
}

/// A directory that nearly matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The pattern.
    pub pattern: PatternId,
    /// The directory, below the source.
    pub path: RelPath,
    /// What it lacks, or has and must not have.
    pub lacks: String,
}

/// One component of the path, from the source's root down.
struct Step {
    name: Name,
    globs: Vec<GlobId>,
    kind: Kind,
    /// Its path below the source.
    path: RelPath,
}

/// A directory above the file that was judged.
struct Judged {
    listed: Listed,
    kids: Kids,
    /// The states of the child on the way, as far as they matter.
    next: Summary,
    verdict: Verdict,
}

/// The way from a source's root to a path.
struct Ascent<'a> {
    reader: Reader<'a>,
    steps: Vec<Step>,
    /// The directories that can be a match, from the root down; `None` for one that cannot be opened.
    dirs: Vec<Option<Arc<Dir>>>,
    /// For each of these, the states that matter.
    wanted: Vec<Bits>,
    judged: Vec<Option<Judged>>,
    troubles: &'a RefCell<Vec<Trouble>>,
}

/// Which matches of one source the entry at `path` belongs to. The way to it may lead through links: these are shown in
/// views, but no matches are sought behind them unless links are followed.
///
/// # Errors
/// If there is no such entry, or the source cannot be read. All else is among the troubles.
pub fn assess(
    automaton: &Automaton,
    source: &NamedSource,
    options: &WalkOptions,
    path: &RelPath,
) -> io::Result<Assessment> {
    let troubles = RefCell::new(Vec::new());
    let unread = |path: &[u8], error| {
        troubles.borrow_mut().push(Trouble::Unread { path: RelPath::from_bytes(path), error });
    };
    let reader = Reader {
        automaton,
        source: &*source.source,
        rules: ListRules { exclude: &options.exclude, follow: options.follow },
        closed: &|path| options.closes(path),
        shut: &options.shut,
        entered: &|_| {},
        failed: &unread,
    };
    let mut scratch = Scratch::new(automaton);
    let mut assessment = Assessment::default();
    let Some(mut ascent) = Ascent::new(reader, source, options.follow, path, &troubles, &mut scratch)? else {
        return Ok(assessment);
    };
    ascent.judge_all(&mut scratch);
    for found in ascent.found() {
        if ascent.shows(&found, &mut scratch) {
            assessment.matches.push(found);
        }
    }
    assessment.near = ascent.near();
    drop(ascent);
    assessment.troubles = troubles.into_inner();
    Ok(assessment)
}

impl<'a> Ascent<'a> {
    /// `None` if no view can show it, since the walk does not come to it.
    fn new(
        reader: Reader<'a>,
        source: &NamedSource,
        follow: bool,
        path: &RelPath,
        troubles: &'a RefCell<Vec<Trouble>>,
        scratch: &mut Scratch,
    ) -> io::Result<Option<Self>> {
        let root = Dir::root(&reader, &source.root_name, scratch)?;
        let mut steps = vec![Step {
            name: root.name.clone(),
            globs: scratch.globs.clone(),
            kind: Kind::Dir,
            path: RelPath::root(),
        }];
        let (mut dirs, mut nearest) = (vec![Some(Arc::clone(&root))], root);
        let names: Vec<&[u8]> = path.components().collect();
        let mut real = true;
        for (at, name) in names.iter().enumerate() {
            let above = steps.last().map(|step| step.path.clone()).unwrap_or_default();
            let here = above.join(name);
            if reader.rules.exclude.excludes(&|| above.as_bytes().to_vec(), name) {
                return Ok(None);
            }
            let kind = match &dirs[0] {
                Some(root) => kind_of(&reader, root, &here)?,
                None => Kind::Special,
            };
            let is_last = at + 1 == names.len();
            let above_name = steps.last().map_or_else(|| nearest.name.clone(), |step| step.name.clone());
            let name_here = above_name.child(reader.automaton, name, scratch);
            steps.push(Step { name: name_here, globs: scratch.globs.clone(), kind, path: here.clone() });
            if !is_last && (!kind.is_dir() || reader.closes(here.as_bytes(), name)) {
                return Ok(None);
            }
            real &= kind == Kind::Dir || (kind == Kind::LinkDir && follow);
            if !real {
                continue;
            }
            match nearest.child(&reader, name, kind == Kind::LinkDir, scratch) {
                Ok(dir) => {
                    let identity = reader.source.identity(&dir.handle)?;
                    let not_entered = reader.shut.is_device(identity.0);
                    if kind == Kind::LinkDir && (not_entered || dir.is_below(reader.source, identity)) {
                        // A loop, which is not walked.
                        real = false;
                        continue;
                    }
                    nearest = Arc::clone(&dir);
                    dirs.push(Some(dir));
                }
                Err(error) => {
                    // The walk does not come to what is in it.
                    (reader.failed)(here.as_bytes(), error);
                    dirs.push(None);
                    real = false;
                }
            }
        }
        let mut ascent = Self { reader, steps, dirs, wanted: Vec::new(), judged: Vec::new(), troubles };
        ascent.wanted = ascent.wanted();
        Ok(Some(ascent))
    }

    fn judge_all(&mut self, scratch: &mut Scratch) {
        let mut judged: Vec<Option<Judged>> = Vec::new();
        let mut below: Option<Summary> = None;
        for at in (0..self.dirs.len()).rev() {
            let here = (!self.wanted[at].is_empty()).then(|| self.judge(at, below.take(), scratch));
            below = here.as_ref().map(|here| here.verdict.summary.clone());
            judged.push(here);
        }
        judged.reverse();
        self.judged = judged;
    }

    /// Judges a directory, with the states of the child on the way, if that was judged.
    fn judge(&self, at: usize, next: Option<Summary>, scratch: &mut Scratch) -> Judged {
        let Self { reader, .. } = self;
        let automaton = reader.automaton;
        let step = &self.steps[at];
        let without_content = |unread: bool| {
            let (files, kids) = (Files::new(automaton), Kids::new(automaton));
            let own = step.name.own();
            let offer = Offer { own: &own, files: &files, kids: &kids, probe: &|_, _| None, unread };
            let verdict = automaton.judge(&offer, Some(&self.wanted[at]));
            let listed = Listed { files, dirs: Default::default(), entries: 0 };
            self.note(at, &verdict);
            Judged { listed, kids, next: Verdict::empty(automaton).summary, verdict }
        };
        if at > 0 && reader.closes(step.path.as_bytes(), &step.name.name) {
            return without_content(false);
        }
        let Some(dir) = &self.dirs[at] else { return without_content(true) };
        let path = || step.path.as_bytes().to_vec();
        let listed = match list(automaton, reader.source, &dir.handle, &path, reader.rules, scratch) {
            Ok(listed) => listed,
            Err(error) => {
                (reader.failed)(step.path.as_bytes(), error);
                return without_content(true);
            }
        };
        let is_below = |wanted| dir.is_below(reader.source, wanted);
        let way = Way::new(&dir.handle, &is_below);
        let mut reading = Reading { path: path(), through_link: false, budget: LINK_BUDGET, scratch };
        let (kids, next) = self.kids(at, &way, &listed, next, &mut reading);
        let probe = |name: &[u8], test| reader.probe(&dir.handle, step.path.as_bytes(), name, test);
        let own = step.name.own();
        let offer = Offer { own: &own, files: &listed.files, kids: &kids, probe: &probe, unread: false };
        let verdict = automaton.judge(&offer, Some(&self.wanted[at]));
        self.note(at, &verdict);
        Judged { listed, kids, next, verdict }
    }

    /// The states of all children as far as they decide, that on the way first; and those of the latter.
    fn kids(
        &self,
        at: usize,
        way: &Way<'_>,
        listed: &Listed,
        next: Option<Summary>,
        reading: &mut Reading<'_>,
    ) -> (Kids, Summary) {
        let automaton = self.reader.automaton;
        let mut kids = Kids::new(automaton);
        let (mut asked, mut on_way) = (Bits::new(automaton.states.len()), Verdict::empty(automaton).summary);
        let mut open = asked.clone();
        let own = self.steps[at].name.own();
        let alone = Offer { own: &own, files: &listed.files, kids: &kids, probe: &|_, _| None, unread: false };
        for state in self.wanted[at].iter().map(|state| StateId(state as u32)) {
            automaton.asked_of_children(state, &mut asked);
            automaton.left_to_children(state, &alone, &mut open);
        }
        if asked.is_empty() {
            return (kids, on_way);
        }
        let above = crate::reader::above_children(automaton, &self.steps[at].name.own());
        let target =
            |child: usize| Target { name: listed.dirs.name(child), linked: listed.dirs.linked(child), above: &above };
        let mut order: Vec<usize> = (0..listed.dirs.len()).collect();
        order.sort_unstable_by_key(|child| listed.dirs.name(*child));
        let is_next = |child: &usize| {
            self.steps.get(at + 1).is_some_and(|step| *step.name.name == *listed.dirs.name(*child).to_bytes())
        };
        if let Some(place) = order.iter().position(is_next) {
            let child = order.remove(place);
            on_way = match next {
                Some(next) => next,
                // No directory that can be a match: what a link leads to, or nothing was asked of it.
                None => self.reader.child(way, &target(child), &asked, reading).summary,
            };
            automaton.drop_settled(&mut open, &on_way);
            kids.merge(on_way.clone());
        }
        for child in order {
            if open.is_empty() {
                break;
            }
            let verdict = self.reader.child(way, &target(child), &open, reading);
            automaton.drop_settled(&mut open, &verdict.summary);
            kids.merge(verdict.summary);
        }
        (kids, on_way)
    }

    /// Notes what could not be decided of the patterns that could show the path from here.
    fn note(&self, at: usize, verdict: &Verdict) {
        let path = &self.steps[at].path;
        let mut troubles = self.troubles.borrow_mut();
        if !verdict.given_up.is_empty() {
            troubles.push(Trouble::TooManyWays { path: path.clone() });
        }
        for pattern in &verdict.undecided {
            let top = self.reader.automaton.top(*pattern);
            if self.could_show(at, top.state, top.opaque) {
                troubles.push(Trouble::Undecided { pattern: *pattern, path: path.clone() });
            }
        }
    }

    /// The matches among the directories that were judged, the innermost first, but for those within an opaque one, or
    /// one that prunes.
    fn found(&self) -> Vec<Found> {
        let automaton = self.reader.automaton;
        let mut found: Vec<Found> = Vec::new();
        for (step, judged) in self.steps.iter().zip(&self.judged).rev() {
            let accepted: &[Accepted] = judged.as_ref().map_or(&[], |judged| &judged.verdict.accepted);
            for accepted in accepted {
                let top = automaton.top(accepted.pattern);
                let hides = |below: &Found| top.opaque || (top.prune && below.pattern == accepted.pattern);
                found.retain(|below| !hides(below));
            }
            found.extend(accepted.iter().map(|accepted| Found {
                pattern: accepted.pattern,
                path: step.path.clone(),
                captures: accepted.captures.clone(),
                missing: accepted.missing.clone(),
            }));
        }
        found
    }

    /// True if a match's view shows the path.
    fn shows(&self, found: &Found, scratch: &mut Scratch) -> bool {
        let mut content = content_of(self.reader.automaton, found);
        let from = found.path.components().count();
        for at in from..self.steps.len() - 1 {
            let shown = match self.judged.get(at) {
                Some(judged) => self.shown(at, judged.as_ref(), &content),
                None => return self.shows_behind(at, content, scratch),
            };
            match shown {
                Some(Shown::Dir { content: next, .. }) => content = next,
                Some(_) => return at + 2 == self.steps.len(),
                None => return false,
            }
        }
        true
    }

    /// How a directory shows the entry on the way, if at all; what shows all need not have been judged.
    fn shown(&self, at: usize, judged: Option<&Judged>, content: &Content) -> Option<Shown> {
        let reader = &self.reader;
        let automaton = reader.automaton;
        let (step, next) = (&self.steps[at], &self.steps[at + 1]);
        let dir = self.dirs[at].as_ref()?;
        let probe = |name: &[u8], test| reader.probe(&dir.handle, step.path.as_bytes(), name, test);
        let within = match content {
            Content::Whole => Some(Content::Whole),
            Content::States(states) => {
                let judged = judged?;
                let own = step.name.own();
                let offer =
                    Offer { own: &own, files: &judged.listed.files, kids: &judged.kids, probe: &probe, unread: false };
                let rules = rules(automaton, states, &offer);
                match next.kind {
                    Kind::File | Kind::LinkFile => {
                        rules.shows_file(automaton, &next.name.name, &next.globs, &probe).then_some(Content::Whole)
                    }
                    Kind::Dir | Kind::LinkDir => rules.child(automaton, &judged.next),
                    Kind::Special => None,
                }
            }
        }?;
        match next.kind {
            Kind::File => Some(Shown::File { linked: false, ino: 0 }),
            Kind::Special => Some(Shown::Special),
            Kind::Dir => Some(Shown::Dir { content: within, linked: false }),
            Kind::LinkFile | Kind::LinkDir => {
                let is_below = |wanted| dir.is_below(reader.source, wanted);
                let way = Way::new(&dir.handle, &is_below);
                let within = (next.kind == Kind::LinkDir).then_some(within);
                link(reader, &way, &dir.handle, &next.name.name, within, Symlinks::Follow)
            }
        }
    }

    /// True if the view shows the rest of the path from the step `at` on, which is behind a link.
    fn shows_behind(&self, at: usize, mut content: Content, scratch: &mut Scratch) -> bool {
        let Some(Some(mut dir)) = self.dirs.last().cloned() else { return false };
        for (step, next) in self.steps[self.dirs.len() - 1..].iter().zip(&self.steps[self.dirs.len()..]) {
            if step.path.components().count() >= at {
                let Ok(shown) = dir.show(&self.reader, &content, Symlinks::Follow, scratch) else { return false };
                match shown.into_iter().find(|(name, _)| *name == next.name.name) {
                    Some((_, Shown::Dir { content: within, .. })) => content = within,
                    Some(_) => return next.path == self.steps[self.steps.len() - 1].path,
                    None => return false,
                }
            }
            let is_last = next.path == self.steps[self.steps.len() - 1].path;
            if is_last {
                return true;
            }
            match dir.child(&self.reader, &next.name.name, next.kind == Kind::LinkDir, scratch) {
                Ok(child) => dir = child,
                Err(_) => return false,
            }
        }
        true
    }

    /// The directories that would show the path, and lack one thing to match.
    fn near(&self) -> Vec<Near> {
        let automaton = self.reader.automaton;
        let mut near = Vec::new();
        for (at, judged) in self.judged.iter().enumerate().rev() {
            let (Some(judged), Some(dir)) = (judged, &self.dirs[at]) else { continue };
            let step = &self.steps[at];
            let own = step.name.own();
            let probe = |name: &[u8], test| self.reader.probe(&dir.handle, step.path.as_bytes(), name, test);
            let offer =
                Offer { own: &own, files: &judged.listed.files, kids: &judged.kids, probe: &probe, unread: false };
            for (pattern, top) in (0..).map(PatternId).zip(&automaton.tops) {
                let summary = &judged.verdict.summary;
                let wanted = self.wanted[at].contains(top.state.index());
                let matches = summary.yes.contains(top.state.index()) || summary.may.contains(top.state.index());
                if matches || !wanted || !self.could_show(at, top.state, top.opaque) {
                    continue;
                }
                // One that asks for one thing only, and has not even that, is no more near than any.
                let asks = required(&automaton.state(top.state).body);
                if let [part] = automaton.unmet(top.state, &offer).as_slice()
                    && (asks > 1 || part.role == Role::Forbidden)
                {
                    let label = part.label.clone().unwrap_or_else(|| "one of `any_of`".to_owned());
                    let lacks = match part.role {
                        Role::Forbidden => format!("it must not have {label}"),
                        _ => format!("it lacks {label}"),
                    };
                    near.push(Near { pattern, path: step.path.clone(), lacks });
                }
            }
        }
        near
    }
}

/// How many parts must hold.
fn required(body: &Expr) -> usize {
    let Expr::All(parts) = body else { return 1 };
    parts.iter().filter(|part| part.role == Role::Required && !matches!(part.expr, Expr::Name(_))).count()
}

/// What the entry at `path` is to patterns.
fn kind_of(reader: &Reader<'_>, root: &Dir, path: &RelPath) -> io::Result<Kind> {
    let name = c_name(path.as_bytes());
    let stat: Stat = reader.source.stat(&root.handle, &name, false)?;
    Ok(match stat {
        stat if stat.is_dir() => Kind::Dir,
        stat if stat.is_file() => Kind::File,
        stat if stat.is_link() => reader.source.link_kind(&root.handle, &name),
        _ => Kind::Special,
    })
}
