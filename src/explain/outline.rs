//! What is known of a directory, as far down as patterns ask: a value that can be changed and judged again. Pure.
//!
//! A [`Dir`] is what was read, whatever the patterns are; [`Dir::judge`] holds it against an automaton and gives a
//! [`Judged`] of the same shape, which answers for single clauses.

use crate::automaton::{Automaton, Test, TestId};
use crate::listing::Scratch;
use crate::matcher::bits::Bits;
use crate::matcher::{Files, Kids, Offer, Own, Summary, Verdict};
use crate::reader::above_children;

/// When less than this is left of the stack, in bytes, it grows; trees may be deep.
const STACK_LEFT: usize = 128 << 10;
const STACK_GROWTH: usize = 4 << 20;

/// A directory.
#[derive(Clone, Debug)]
pub struct Dir {
    /// Its name.
    pub name: Box<[u8]>,
    /// It is reached through a link of its name.
    pub linked: bool,
    /// It is a link back to a directory on the way to it, which `**` does not go through.
    pub looped: bool,
    /// What is in it.
    pub content: Content,
}

/// What is known of a directory's content.
#[derive(Clone, Debug)]
pub enum Content {
    /// Its entries, by name.
    Read(Vec<Entry>),
    /// Its entries by name, and no more of the directories in it than their names: no pattern asks for that.
    Names(Vec<Entry>),
    /// It is not entered, and counts as empty.
    Closed,
    /// It cannot be read, and why.
    Unread(String),
    /// It is too much to be kept: the states that it is in.
    States(Box<Summary>),
}

/// Something in a directory.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What counts as a file.
    File(File),
    /// What counts as a directory.
    Dir(Dir),
    /// A FIFO, socket or device.
    Special(Box<[u8]>),
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        match self {
            Entry::File(file) => &file.name,
            Entry::Dir(dir) => &dir.name,
            Entry::Special(name) => name,
        }
    }
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: Box<[u8]>,
    /// It is a link.
    pub linked: bool,
    /// It is a link that leads nowhere.
    pub dangling: bool,
    /// Its size in bytes, where patterns ask for more than its name.
    pub size: Option<u64>,
    /// How it does in the tests that patterns put it to; `None` if it cannot be read.
    pub tests: Vec<(Test, Option<bool>)>,
}

impl File {
    /// A file of which only the name matters.
    pub fn named(name: &[u8]) -> Self {
        Self { name: name.into(), linked: false, dangling: false, size: None, tests: Vec::new() }
    }

    /// Whether it passes a test.
    pub fn passes(&self, test: &Test) -> Option<bool> {
        self.tests.iter().find(|(known, _)| known == test).map_or(Some(false), |(_, passed)| *passed)
    }
}

impl Dir {
    /// A directory with nothing in it.
    pub fn empty(name: &[u8]) -> Self {
        Self { name: name.into(), linked: false, looped: false, content: Content::Read(Vec::new()) }
    }

    /// What is known to be in it.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Read(entries) | Content::Names(entries) => entries,
            Content::Closed | Content::Unread(_) | Content::States(_) => &[],
        }
    }

    /// The same, to be changed.
    pub fn entries_mut(&mut self) -> Option<&mut Vec<Entry>> {
        match &mut self.content {
            Content::Read(entries) | Content::Names(entries) => Some(entries),
            Content::Closed | Content::Unread(_) | Content::States(_) => None,
        }
    }

    /// The entry of a name.
    pub fn entry(&self, name: &[u8]) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.name() == name)
    }

    /// The files in it.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.entries().iter().filter_map(|entry| match entry {
            Entry::File(file) => Some(file),
            Entry::Dir(_) | Entry::Special(_) => None,
        })
    }

    /// The directories in it.
    pub fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.entries().iter().filter_map(|entry| match entry {
            Entry::Dir(dir) => Some(dir),
            Entry::File(_) | Entry::Special(_) => None,
        })
    }

    /// Holds it against an automaton; `above` has the globs of `forbidden_ancestors` that a directory above matches.
    pub fn judge<'a>(&'a self, automaton: &Automaton, scratch: &mut Scratch, above: &Bits) -> Judged<'a> {
        stacker::maybe_grow(STACK_LEFT, STACK_GROWTH, || self.judge_here(automaton, scratch, above))
    }

    fn judge_here<'a>(&'a self, automaton: &Automaton, scratch: &mut Scratch, above: &Bits) -> Judged<'a> {
        let globs = scratch.match_name(automaton, &self.name);
        let mut judged = Judged {
            dir: self,
            globs,
            above: above.clone(),
            files: Files::new(automaton),
            kids: Kids::new(automaton),
            children: Vec::new(),
            verdict: Verdict::empty(automaton),
        };
        if let Content::Read(entries) = &self.content {
            let above = above_children(automaton, &judged.own());
            for entry in entries {
                match entry {
                    Entry::File(file) => {
                        automaton.names.matches(&mut scratch.cache, &file.name, &mut scratch.globs);
                        judged.files.add(automaton, &file.name, &scratch.globs);
                    }
                    Entry::Dir(dir) => {
                        let child = dir.judge(automaton, scratch, &above);
                        judged.kids.merge(child.verdict.summary.clone());
                        judged.children.push(child);
                    }
                    Entry::Special(_) => {}
                }
            }
        } else if let Content::Names(entries) = &self.content {
            for file in entries.iter().filter_map(|entry| if let Entry::File(file) = entry { Some(file) } else { None })
            {
                automaton.names.matches(&mut scratch.cache, &file.name, &mut scratch.globs);
                judged.files.add(automaton, &file.name, &scratch.globs);
            }
        }
        judged.verdict = match &self.content {
            Content::States(summary) => Verdict { summary: (**summary).clone(), ..Verdict::empty(automaton) },
            _ => judged.with_offer(automaton, |offer| automaton.judge(offer, None)),
        };
        if self.looped {
            let summary = &mut judged.verdict.summary;
            automaton.drop_recursive(&mut summary.yes);
            automaton.drop_recursive(&mut summary.may);
            let kept = |id: &crate::automaton::StateId| !automaton.recursive.contains(id.index());
            summary.values.retain(|(id, _)| kept(id));
            summary.maybe.retain(|(id, _)| kept(id));
        }
        judged
    }
}

/// A directory with the states that it is in.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// The globs that its name matches.
    pub globs: Bits,
    /// Those of `forbidden_ancestors` that a directory above matches.
    pub above: Bits,
    /// Its files, as far as patterns ask.
    pub files: Files,
    /// The states of its child directories.
    pub kids: Kids,
    /// Its child directories, in the order of its entries.
    pub children: Vec<Judged<'a>>,
    /// What it is.
    pub verdict: Verdict,
}

impl Judged<'_> {
    /// Its name and what is above it.
    pub fn own(&self) -> Own<'_> {
        Own { name: &self.dir.name, globs: &self.globs, above: &self.above }
    }

    /// Calls `work` with all that it offers to clauses.
    pub fn with_offer<T>(&self, automaton: &Automaton, work: impl FnOnce(&Offer<'_>) -> T) -> T {
        let own = self.own();
        let probe = |name: &[u8], test: TestId| match self.dir.entry(name) {
            Some(Entry::File(file)) => file.passes(&automaton.tests[test.0 as usize]),
            _ => Some(false),
        };
        // Of what is too much to be kept, the states are known, and nothing else.
        let unread = matches!(self.dir.content, Content::Unread(_) | Content::States(_));
        work(&Offer { own: &own, files: &self.files, kids: &self.kids, probe: &probe, unread })
    }
}
