//! The states of one directory read from the top down, only as deep as the states asked for need.
//!
//! The walk uses it for what is behind links, the view for what a match shows. It goes through links as patterns ask;
//! a state of `**` does not follow a link to a directory that is already on the way, which cuts loops, and a budget
//! bounds farms of links.

use std::cell::Cell;
use std::ffi::CStr;
use std::io;

use crate::automaton::{Automaton, StateId};
use crate::listing::{ListRules, Listed, Scratch, c_name, list};
use crate::matcher::bits::Bits;
use crate::matcher::{Files, Kids, Offer, Own, Summary, Verdict};
use crate::shut::Shut;
use crate::source::{Handle, Source};

/// The most directories that are read behind one link.
pub const LINK_BUDGET: u32 = 100_000;
/// The name that a mount has in itself for what it tells of itself.
pub const NOT_ENTERED: &[u8] = b".veinfs";
/// When less than this is left of the stack, in bytes, it grows.
const STACK_LEFT: usize = 128 << 10;
/// By how much it grows, in bytes.
const STACK_GROWTH: usize = 4 << 20;
/// The deepest way below one link or directory of a match.
pub const MAX_WAY: usize = 4096;

/// What a reader needs to know of the source it reads.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The patterns.
    pub automaton: &'a Automaton,
    /// The tree.
    pub source: &'a dyn Source,
    /// What is left out.
    pub rules: ListRules<'a>,
    /// Paths below the source that are not entered.
    pub closed: &'a dyn Fn(&[u8]) -> bool,
    /// What is not entered through links either.
    pub shut: &'a Shut,
    /// Told of every directory that is read behind a link, before it is read.
    pub entered: &'a dyn Fn(&Handle),
    /// Told of directories and files that cannot be read, by path below the source.
    pub failed: &'a dyn Fn(&[u8], io::Error),
}

/// Directories on the way, from the one at hand up to the source's root; identities are asked only when a link is met.
pub struct Way<'a> {
    handle: &'a Handle,
    identity: Cell<Option<(u64, u64)>>,
    above: Above<'a>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Above<'a> {
    Way(&'a Way<'a>),
    /// Tells whether a directory of this identity is further up.
    Further(&'a dyn Fn((u64, u64)) -> bool),
}

impl<'a> Way<'a> {
    /// A directory; `is_below` tells whether it is below one of a given device and inode.
    pub fn new(handle: &'a Handle, is_below: &'a dyn Fn((u64, u64)) -> bool) -> Self {
        Self { handle, identity: Cell::new(None), above: Above::Further(is_below), depth: 0 }
    }

    /// A directory below this one.
    pub fn down(&'a self, handle: &'a Handle) -> Self {
        Self { handle, identity: Cell::new(None), above: Above::Way(self), depth: self.depth + 1 }
    }

    /// True if a directory of this identity is on the way.
    pub fn holds(&self, source: &dyn Source, wanted: (u64, u64)) -> bool {
        let mut way = self;
        loop {
            let identity = way.identity.get().or_else(|| source.identity(way.handle).ok());
            way.identity.set(identity);
            if identity == Some(wanted) {
                return true;
            }
            way = match way.above {
                Above::Way(above) => above,
                Above::Further(is_below) => return is_below(wanted),
            };
        }
    }
}

/// A directory to be read.
pub struct Target<'a> {
    /// Its name.
    pub name: &'a CStr,
    /// Whether it is reached through a link.
    pub linked: bool,
    /// What is above it, for `forbidden_ancestors`.
    pub above: &'a Bits,
}

/// What goes along from directory to directory.
pub struct Reading<'a> {
    /// The path below the source of the directory at hand.
    pub path: Vec<u8>,
    /// A link lies on the way to it.
    pub through_link: bool,
    /// How many directories behind links may still be read.
    pub budget: u32,
    /// For listings.
    pub scratch: &'a mut Scratch,
}

/// What a child directory turns out to be.
pub(crate) enum Opened {
    /// It is open.
    Open(Handle),
    /// It is not entered, and counts as empty.
    Closed,
    /// It cannot be read.
    Unread(io::Error),
}

/// Sees the states of one child after the other, by its place in the listing.
pub type Each<'a> = &'a mut dyn FnMut(usize, &Summary);

impl Reader<'_> {
    /// The states, out of `wanted`, of the child `target` of the directory `parent`, which is at hand.
    pub fn child(&self, parent: &Way<'_>, target: &Target<'_>, wanted: &Bits, reading: &mut Reading<'_>) -> Verdict {
        let globs = reading.scratch.match_name(self.automaton, target.name.to_bytes());
        let own = Own { name: target.name.to_bytes(), globs: &globs, above: target.above };
        let mut possible = self.automaton.possible(&own, wanted);
        if possible.is_empty() {
            return Verdict::empty(self.automaton);
        }
        let (length, through_link) = (reading.path.len(), reading.through_link);
        if length > 0 {
            reading.path.push(b'/');
        }
        reading.path.extend_from_slice(target.name.to_bytes());
        reading.through_link |= target.linked;
        // Trees may be deeper than a thread's stack.
        let verdict =
            stacker::maybe_grow(STACK_LEFT, STACK_GROWTH, || self.enter(parent, target, &own, &mut possible, reading));
        reading.path.truncate(length);
        reading.through_link = through_link;
        verdict
    }

    /// True if the directory at `path` below the source, with the name `name`, is not entered.
    pub fn closes(&self, path: &[u8], name: &[u8]) -> bool {
        name == NOT_ENTERED || (self.closed)(path)
    }

    fn enter(
        &self,
        parent: &Way<'_>,
        target: &Target<'_>,
        own: &Own<'_>,
        possible: &mut Bits,
        reading: &mut Reading<'_>,
    ) -> Verdict {
        let unread = |path: &[u8], error: io::Error, possible: &Bits| {
            (self.failed)(path, error);
            let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
            self.automaton
                .judge(&Offer { own, files: &files, kids: &kids, probe: &|_, _| None, unread: true }, Some(possible))
        };
        let empty = |possible: &Bits| {
            let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
            let offer = Offer { own, files: &files, kids: &kids, probe: &|_, _| None, unread: false };
            self.automaton.judge(&offer, Some(possible))
        };
        let handle = match self.open(parent, target, possible, reading) {
            Opened::Open(handle) => handle,
            Opened::Closed => return empty(possible),
            Opened::Unread(error) => return unread(&reading.path, error, possible),
        };
        if possible.is_empty() {
            return Verdict::empty(self.automaton);
        }
        if reading.through_link {
            (self.entered)(&handle);
        }
        let Reading { path, scratch, .. } = reading;
        let listed = match list(self.automaton, self.source, &handle, &|| path.clone(), self.rules, scratch) {
            Ok(listed) => listed,
            Err(error) => return unread(path, error, possible),
        };
        let way = parent.down(&handle);
        self.judge(&way, own, &listed, possible, reading)
    }

    /// Opens the child `target` of `parent`, by way of a link if it is one. Where it is a link back to a directory on
    /// the way, the states of `**` are taken out of `possible`.
    pub(crate) fn open(
        &self,
        parent: &Way<'_>,
        target: &Target<'_>,
        possible: &mut Bits,
        reading: &mut Reading<'_>,
    ) -> Opened {
        let name = target.name.to_bytes();
        if self.closes(&reading.path, name) || self.shut.is_point(self.source, parent.handle, name) {
            return Opened::Closed;
        }
        let opened = if target.linked {
            self.source.open_link(parent.handle, target.name)
        } else {
            self.source.open_dir(parent.handle, target.name)
        };
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => return Opened::Unread(error),
        };
        if parent.depth > MAX_WAY {
            return Opened::Unread(io::Error::other("too many directories within each other; gave up"));
        }
        if reading.through_link {
            if reading.budget == 0 {
                return Opened::Unread(io::Error::other("too many directories behind links; gave up"));
            }
            reading.budget -= 1;
            let identity = match self.source.identity(&handle) {
                Ok(identity) => identity,
                Err(error) => return Opened::Unread(error),
            };
            if self.shut.is_device(identity.0) {
                return Opened::Closed;
            }
            if target.linked && self.automaton.has_recursion() && parent.holds(self.source, identity) {
                self.automaton.drop_recursive(possible);
            }
        }
        Opened::Open(handle)
    }

    /// Judges a directory that has been listed, reading those children that `wanted` asks for.
    pub fn judge(
        &self,
        way: &Way<'_>,
        own: &Own<'_>,
        listed: &Listed,
        wanted: &Bits,
        reading: &mut Reading<'_>,
    ) -> Verdict {
        // What files decide by themselves needs no look at the children, which for `**` saves whole subtrees.
        let none = Kids::new(self.automaton);
        let alone = Offer { own, files: &listed.files, kids: &none, probe: &|_, _| None, unread: false };
        let mut open = Bits::new(self.automaton.states.len());
        wanted
            .iter()
            .filter(|id| !self.automaton.files_decide(StateId(*id as u32), &alone))
            .for_each(|id| open.insert(id));
        let kids = self.kids(way, own, listed, &open, reading, None);
        let probe = |name: &[u8], test| self.probe(way.handle, &reading.path, name, test);
        let offer = Offer { own, files: &listed.files, kids: &kids, probe: &probe, unread: false };
        self.automaton.judge(&offer, Some(wanted))
    }

    /// The states of the children that `wanted` asks for. `each` sees those of every one, by its place in the listing;
    /// without it, no more are read than it takes to know them all together.
    pub fn kids(
        &self,
        way: &Way<'_>,
        own: &Own<'_>,
        listed: &Listed,
        wanted: &Bits,
        reading: &mut Reading<'_>,
        mut each: Option<Each<'_>>,
    ) -> Kids {
        let mut kids = Kids::new(self.automaton);
        let mut asked = Bits::new(self.automaton.states.len());
        wanted.iter().for_each(|state| self.automaton.asked_of_children(StateId(state as u32), &mut asked));
        if asked.is_empty() {
            return kids;
        }
        let above = above_children(self.automaton, own);
        // In one order, whatever that of the listing: which directories are read must not depend on it.
        let mut order: Vec<usize> = (0..listed.dirs.len()).collect();
        order.sort_unstable_by_key(|at| listed.dirs.name(*at));
        for at in order {
            let target = Target { name: listed.dirs.name(at), linked: listed.dirs.linked(at), above: &above };
            let verdict = self.child(way, &target, &asked, reading);
            match &mut each {
                Some(each) => each(at, &verdict.summary),
                // One child is enough for these, and no other can take it back.
                None => self.automaton.drop_settled(&mut asked, &verdict.summary),
            }
            kids.merge(verdict.summary);
            if asked.is_empty() {
                break;
            }
        }
        kids
    }

    /// Answers a test of a file, telling of those that cannot be read.
    pub fn probe(&self, dir: &Handle, path: &[u8], name: &[u8], test: crate::automaton::TestId) -> Option<bool> {
        match self.source.test(dir, &c_name(name), &self.automaton.tests[test.0 as usize]) {
            Ok(passed) => Some(passed),
            Err(error) => {
                let path = [path, if path.is_empty() { b"".as_slice() } else { b"/" }, name].concat();
                (self.failed)(&path, error);
                None
            }
        }
    }
}

/// What `forbidden_ancestors` sees above the children of a directory.
pub fn above_children(automaton: &Automaton, own: &Own<'_>) -> Bits {
    let mut above = own.above.clone();
    own.globs.iter().filter(|glob| automaton.ancestor_globs.contains(*glob)).for_each(|glob| above.insert(glob));
    above
}
