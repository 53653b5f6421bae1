//! What is to be done with a directory and all in it: how a search keeps it, what it costs, and the changes that it comes
//! to.

use super::super::outline::{Dir, File, Judged};
use super::content::Made;
use super::{Action, Change};
use crate::automaton::StateId;
use crate::matcher::bits::Bits;

/// A state that a directory is to be in, and how many files it is to hand up to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Want {
    pub(super) state: StateId,
    pub(super) files: u32,
}

/// What to do with one directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) cost: u32,
    pub(super) rename: Option<Box<[u8]>>,
    pub(super) files: Vec<FileNow>,
    pub(super) dirs: Vec<DirNow>,
    pub(super) cleared: Vec<Box<[u8]>>,
}

/// A file as it is to be.
#[derive(Clone, Debug)]
pub(super) struct FileNow {
    /// Its name as it is; `None` for one to be made.
    pub(super) was: Option<Box<[u8]>>,
    pub(super) file: File,
    pub(super) globs: Bits,
    pub(super) made: Option<Made>,
    pub(super) state: Fate,
}

/// What becomes of a file or child directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Changed,
    Gone,
}

/// A child directory as it is to be.
#[derive(Clone, Debug)]
pub(super) struct DirNow {
    /// Its place among the children; `None` for one to be made.
    pub(super) child: Option<usize>,
    pub(super) name: Box<[u8]>,
    pub(super) wants: Vec<Want>,
    pub(super) unwanted: Vec<StateId>,
    /// What it is in now and may not be after the changes.
    pub(super) lost: Vec<StateId>,
    pub(super) plan: Option<Plan>,
    pub(super) fate: Fate,
    /// It is renamed to make room.
    pub(super) away: Option<Box<[u8]>>,
}

/// The entries of a directory, as far as a search has come.
#[derive(Clone)]
pub(super) struct Level {
    pub(super) files: Vec<FileNow>,
    pub(super) dirs: Vec<DirNow>,
    pub(super) cleared: Vec<Box<[u8]>>,
}

impl DirNow {
    pub(super) fn of(child: usize, name: &[u8]) -> Self {
        let (wants, unwanted, lost) = (Vec::new(), Vec::new(), Vec::new());
        Self { child: Some(child), name: name.into(), wants, unwanted, lost, plan: None, fate: Fate::Kept, away: None }
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.child.is_some() && self.fate == Fate::Kept && self.away.is_none()
    }

    pub(super) fn cost(&self) -> u32 {
        let made = u32::from(self.child.is_none());
        match self.fate {
            Fate::Gone => 1,
            _ => made + u32::from(self.away.is_some()) + self.plan.as_ref().map_or(0, |plan| plan.cost),
        }
    }
}

/// How many changes there are so far.
pub(super) fn spent(level: &Level) -> u32 {
    let files = level.files.iter().filter(|file| file.state != Fate::Kept).count() + level.cleared.len();
    level.dirs.iter().map(DirNow::cost).fold(files as u32, u32::saturating_add)
}

/// True if something has a name, or is to have it.
pub(super) fn is_taken(at: Option<&Judged<'_>>, level: &Level, name: &[u8]) -> bool {
    let cleared = level.cleared.iter().any(|cleared| **cleared == *name)
        || level.dirs.iter().any(|dir| {
            let renamed = dir.child.is_some() && dir.plan.as_ref().is_some_and(|plan| plan.rename.is_some());
            *dir.name == *name && (dir.away.is_some() || dir.fate == Fate::Gone || renamed)
        })
        || level.files.iter().any(|file| file.state == Fate::Gone && file.was.as_deref() == Some(name));
    let moved = level
        .files
        .iter()
        .any(|file| file.state == Fate::Changed && file.was.as_deref() == Some(name) && *file.file.name != *name);
    let there = at.is_some_and(|at| at.dir.entry(name).is_some()) && !cleared && !moved;
    there
        || level.files.iter().any(|file| file.state != Fate::Gone && *file.file.name == *name)
        || level.dirs.iter().any(|dir| {
            let new = dir.child.is_none() && *dir.name == *name;
            let renamed = dir.plan.as_ref().is_some_and(|plan| plan.rename.as_deref() == Some(name));
            new || renamed || dir.away.as_deref() == Some(name)
        })
}

/// The changes of a plan, in an order in which they can be made; the directory's own name is the caller's.
pub(super) fn emit(judged: &Judged<'_>, plan: &Plan, path: &[u8], into: &mut Vec<Change>) {
    let below = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
    for dir in &plan.dirs {
        if let (Some(child), Some(inner), true) = (dir.child, &dir.plan, dir.fate != Fate::Gone) {
            emit(&judged.children[child], inner, &below(&dir.name), into);
        }
    }
    let mut push = |name: &[u8], action| into.push(Change { path: below(name), action });
    let mut renames: Vec<(&[u8], &[u8])> = Vec::new();
    plan.cleared.iter().for_each(|name| push(name, Action::Remove));
    for file in plan.files.iter().filter(|file| file.state == Fate::Gone) {
        push(file.was.as_deref().unwrap_or(&file.file.name), Action::Remove);
    }
    plan.dirs.iter().filter(|dir| dir.fate == Fate::Gone).for_each(|dir| push(&dir.name, Action::Remove));
    for dir in &plan.dirs {
        let to = dir.away.as_ref().or(dir.plan.as_ref().and_then(|plan| plan.rename.as_ref()));
        if let (Some(to), Some(_), true) = (to, dir.child, dir.fate != Fate::Gone) {
            renames.push((&dir.name, to));
        }
    }
    for file in plan.files.iter().filter(|file| file.state == Fate::Changed) {
        match (&file.was, &file.made) {
            (Some(was), Some(made)) => push(was, Action::Rewrite(made.clone())),
            (Some(was), None) => renames.push((was, &file.file.name)),
            (None, _) => {}
        }
    }
    // A name is given when nobody has it any more.
    while let Some(next) = (0..renames.len()).find(|at| renames.iter().all(|(from, _)| *from != renames[*at].1)) {
        let (from, to) = renames.remove(next);
        push(from, Action::Rename(to.into()));
    }
    renames.into_iter().for_each(|(from, to)| push(from, Action::Rename(to.into())));
    for file in plan.files.iter().filter(|file| file.state == Fate::Changed && file.was.is_none()) {
        push(&file.file.name, Action::CreateFile(file.made.clone().unwrap_or_default()));
    }
    for dir in plan.dirs.iter().filter(|dir| dir.child.is_none()) {
        into.push(Change { path: below(&dir.name), action: Action::CreateDir });
        if let Some(inner) = &dir.plan {
            emit_new(inner, &below(&dir.name), into);
        }
    }
}

fn emit_new(plan: &Plan, path: &[u8], into: &mut Vec<Change>) {
    let empty = Dir::empty(b"");
    let globs = Bits::default();
    let nothing = Judged {
        dir: &empty,
        globs: globs.clone(),
        above: globs,
        files: Default::default(),
        kids: Default::default(),
        children: Vec::new(),
        verdict: Default::default(),
    };
    emit(&nothing, plan, path, into);
}
