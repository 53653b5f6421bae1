//! The shortest list of changes that makes a directory match. Pure.
//!
//! Changes are: a file or directory made, an entry renamed within its directory or removed (a directory with all that is
//! in it), a file given another content. Each counts one. Behind links nothing is changed.
//!
//! Without captures [`search`] tries all lists that could help, the shorter ones first, and what it finds is the
//! shortest. With captures, values are tried one after the other, each making the pattern one without captures; the
//! answer is known to be the shortest where a pattern that forgets that values must agree takes as many changes.
//! Whatever is found is held against the matcher before it is given.

use super::names::Kinds;
use super::outline::{Content, Dir, Entry, File, Judged};
use crate::automaton::{Automaton, PatternId, Test};
use crate::listing::Scratch;
use crate::matcher::bits::Bits;
use crate::pattern::Pattern;
use crate::pattern::compile::compile;

pub mod content;
mod plan;
pub mod search;
pub mod values;

/// The longest list that is looked for.
const LONGEST: u32 = 48;
/// How often what was found is completed, where the matcher does not agree that it is enough.
const ROUNDS: usize = 4;

/// What makes a directory match.
#[derive(Clone, Debug, PartialEq)]
pub struct Cure {
    /// What to do, in this order.
    pub changes: Vec<Change>,
    /// No shorter list does.
    pub shortest: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it is about: a path below the directory, empty for the directory itself; paths are those from before any
    /// directory on the way is renamed.
    pub path: Vec<u8>,
    /// What happens to it.
    pub action: Action,
}

/// What happens to an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is made, a directory.
    CreateDir,
    /// It is made, a file.
    CreateFile(content::Made),
    /// It gets another name.
    Rename(Box<[u8]>),
    /// It goes, with all that is in it.
    Remove,
    /// The file, or what it leads to, gets another content.
    Rewrite(content::Made),
}

/// Looks for the shortest list of changes that makes `dir`, which does not match, do so; `above` is for
/// `forbidden_ancestors`, and `steps` bounds the search.
pub fn cure(pattern: &Pattern, automaton: &Automaton, dir: &Dir, above: &Bits, steps: u32) -> Option<Cure> {
    let mut scratch = Scratch::new(automaton);
    let judged = dir.judge(automaton, &mut scratch, above);
    if matches!(dir.content, Content::Unread(_) | Content::States(_) | Content::Closed) || accepted(&judged) {
        return None;
    }
    let cure = if automaton.names.captures().is_empty() {
        complete(automaton, automaton, dir, above, LONGEST, steps)
    } else {
        with_captures(pattern, automaton, &judged, above, steps)
    }?;
    // It does not match as it is, so one change is the least.
    let shortest = cure.changes.len() == 1
        || (cure.shortest && !has_links(dir) && (cure.changes.len() < 3 || !makes_way(&cure.changes)));
    Some(Cure { shortest, ..cure })
}

/// True if something is renamed to make way for another of the same name: the name that it gets might be one that is
/// wanted as well, and that is not sought.
fn makes_way(changes: &[Change]) -> bool {
    let renamed = changes.iter().filter(|change| matches!(change.action, Action::Rename(_)));
    renamed.into_iter().any(|renamed| {
        let made = |change: &Change| matches!(change.action, Action::CreateDir | Action::CreateFile(_));
        changes.iter().any(|change| made(change) && change.path == renamed.path)
    })
}

fn accepted(judged: &Judged<'_>) -> bool {
    judged.verdict.accepted.iter().any(|accepted| accepted.pattern == PatternId(0))
}

/// Behind links are copies: what changes in the one changes in the other, which is not looked at.
fn has_links(dir: &Dir) -> bool {
    dir.linked || dir.dirs().any(has_links)
}

/// Searches with one automaton until another one accepts.
fn complete(
    searched: &Automaton,
    asked: &Automaton,
    dir: &Dir,
    above: &Bits,
    longest: u32,
    steps: u32,
) -> Option<Cure> {
    let kinds = Kinds::new(searched);
    let mut scratch = Scratch::new(searched);
    let mut asked_scratch = Scratch::new(asked);
    let searched_above = remap(above, asked, searched);
    let mut at = dir.clone();
    let mut cure = Cure { changes: Vec::new(), shortest: true };
    for round in 0..ROUNDS {
        let judged = at.judge(searched, &mut scratch, &searched_above);
        let left = longest.checked_sub(cure.changes.len() as u32)?;
        let (changes, exact) = search::Search::new(searched, &kinds, false, steps).run(&judged, left)?;
        cure.shortest &= exact && round == 0;
        let next = apply(&at, &changes)?;
        cure.changes.extend(changes);
        at = next;
        if accepted(&at.judge(asked, &mut asked_scratch, above)) {
            return Some(cure);
        }
        if at.name != dir.name && round == 0 {
            // A new name stands for all that follows, and paths do not.
            cure.shortest = false;
        }
    }
    None
}

/// Globs of one automaton that stand for the same in another.
fn remap(above: &Bits, from: &Automaton, to: &Automaton) -> Bits {
    if std::ptr::eq(from, to) {
        return above.clone();
    }
    let mut mapped = Bits::new(to.names.len());
    for glob in above.iter() {
        let glob = from.names.glob(crate::matcher::names::GlobId(glob as u32));
        let same = (0..to.names.len()).find(|id| to.names.glob(crate::matcher::names::GlobId(*id as u32)) == glob);
        same.into_iter().for_each(|id| mapped.insert(id));
    }
    mapped
}

fn with_captures(
    pattern: &Pattern,
    automaton: &Automaton,
    judged: &Judged<'_>,
    above: &Bits,
    steps: u32,
) -> Option<Cure> {
    let kinds = Kinds::new(automaton);
    let plain = without_states(judged.dir);
    let mut best: Option<Cure> = None;
    let candidates = values::candidates(pattern, automaton, &kinds, judged);
    let each = steps / (candidates.len().max(1) as u32);
    for values in &candidates {
        let Some(fixed) = values::fix(pattern, values) else { continue };
        let Ok(fixed) = compile(&[fixed]) else { continue };
        let longest = best.as_ref().map_or(LONGEST, |best| best.changes.len() as u32 - 1);
        if let Some(cure) = complete(&fixed, automaton, &plain, above, longest, each) {
            best = Some(cure);
        }
    }
    let mut best = best?;
    let shorter = best.changes.len() as u32 - 1;
    let mut scratch = Scratch::new(automaton);
    let plain = plain.judge(automaton, &mut scratch, above);
    let mut relaxed = search::Search::new(automaton, &kinds, true, steps);
    best.shortest = relaxed.run(&plain, shorter).is_none() && relaxed.is_exact();
    Some(best)
}

/// The same directory; of what was too much to be kept nothing is known.
fn without_states(dir: &Dir) -> Dir {
    let mut dir = dir.clone();
    if matches!(dir.content, Content::States(_)) {
        dir.content = Content::Unread("too much to be looked at".into());
    }
    for entry in dir.entries_mut().into_iter().flatten() {
        if let Entry::Dir(child) = entry {
            *child = without_states(child);
        }
    }
    dir
}

/// The directory after some changes; `None` if one of them cannot be.
pub fn apply(dir: &Dir, changes: &[Change]) -> Option<Dir> {
    let mut dir = dir.clone();
    for change in changes {
        apply_one(&mut dir, change)?;
    }
    Some(dir)
}

fn apply_one(dir: &mut Dir, change: &Change) -> Option<()> {
    let (above, name) = match change.path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&change.path[..at], &change.path[at + 1..]),
        None => (&b""[..], &change.path[..]),
    };
    if name.is_empty() {
        let Action::Rename(to) = &change.action else { return None };
        dir.name = to.clone();
        return Some(());
    }
    let mut at = dir;
    for step in above.split(|byte| *byte == b'/').filter(|step| !step.is_empty()) {
        at = at.entries_mut()?.iter_mut().find_map(|entry| match entry {
            Entry::Dir(child) if *child.name == *step && !child.linked => Some(child),
            _ => None,
        })?;
    }
    let entries = at.entries_mut()?;
    let place = entries.iter().position(|entry| entry.name() == name);
    match (&change.action, place) {
        (Action::CreateDir, None) => entries.push(Entry::Dir(Dir::empty(name))),
        (Action::CreateFile(made), None) => entries.push(Entry::File(made.file(name))),
        (Action::Rewrite(made), Some(place)) => entries[place] = Entry::File(made.file(name)),
        (Action::Remove, Some(place)) => drop(entries.remove(place)),
        (Action::Rename(to), Some(place)) => {
            if entries.iter().any(|entry| entry.name() == &**to) {
                return None;
            }
            match &mut entries[place] {
                Entry::File(File { name, .. }) | Entry::Dir(Dir { name, .. }) | Entry::Special(name) => {
                    *name = to.clone();
                }
            }
        }
        _ => return None,
    }
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    Some(())
}

/// A test in the words of patterns.
pub fn words(test: &Test) -> String {
    use crate::pattern::SizeOp;
    match test {
        Test::Size(size) => {
            let op = match size.op {
                SizeOp::Less => "<",
                SizeOp::AtMost => "<=",
                SizeOp::Equal => "=",
                SizeOp::AtLeast => ">=",
                SizeOp::Greater => ">",
            };
            format!("size {op}{}", size.bytes)
        }
        Test::Magic(magic) => {
            let bytes = match std::str::from_utf8(&magic.bytes) {
                Ok(text) if !text.chars().any(char::is_control) => format!("`{text}`"),
                _ => format!("hex:{}", magic.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            };
            if magic.offset == 0 { format!("begins with {bytes}") } else { format!("{bytes} at {}", magic.offset) }
        }
        Test::Contains(text) => format!("contains `{}`", String::from_utf8_lossy(text)),
    }
}
