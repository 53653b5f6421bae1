//! Listing all objects below a prefix into a snapshot.
//!
//! S3 and its kin give a thousand keys a page, in order, and begin behind any key that is asked for. So one listing is
//! many: a range of keys whose end is far off is split in the middle of what is left of it, as long as there is room for
//! more requests ([`AT_ONCE`]) and not too many splits have found nothing ([`Splits`]). Ends are checked here. Where a
//! server does not keep the order all is listed once more, page by page, and sorted ([`gather`]).
//!
//! Azure gives five thousand a page, and begins with any prefix, but behind no key. A range there is split by the names at
//! one level (a listing up to the next slash), which are asked for and split off from the last on ([`Points`]).
//!
//! Measured by `benches/object_list.rs`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::client::{Client, Patience};
use super::fault::{Fault, FaultKind};
use super::keys::{Left, Scope, Sink};
use super::location::{Location, Store};
use super::snapshot::{Meta, Writer};
use points::{Level, Points};

mod azure;
mod dav;
mod points;
mod s3;
mod xml;

/// Requests that are under way together.
const AT_ONCE: usize = 16;
/// How long it is tried to get a page of which nothing comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same where nobody can be reached.
const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether anybody still waits.
const LOOK: Duration = Duration::from_millis(100);

/// An object of a listing: its key below the prefix.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) key: Vec<u8>,
    pub(super) meta: Meta,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Found>,
    /// How to go on; `None` at the end.
    pub(super) next: Option<String>,
}

/// How much of what is below a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    All,
    /// Up to the next slash, which stands for what is behind it.
    One,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With the first key.
    Start,
    /// Where the page before ended.
    Token(String),
    /// Behind a key below the prefix.
    After(Vec<u8>),
}

/// A listing as a store has it: what is below a prefix, page by page.
struct Pages<'a> {
    client: &'a Client,
    store: &'a Store,
    /// With a slash at its end, if it is not empty.
    prefix: String,
}

impl Pages<'_> {
    async fn once(&self, within: &str, from: &From) -> Result<Page, Fault> {
        match self.store {
            Store::Azure { .. } => azure::page(self.client, (&self.prefix, within), from, Depth::All).await,
            _ => s3::page(self.client, &self.prefix, from).await,
        }
    }

    /// A page, asked for until it comes or there is no more patience; `within`, which all of its keys begin with, is empty
    /// where pages begin behind any key.
    async fn get(&self, within: &str, from: &From) -> Result<Page, Fault> {
        patiently(self.client, || self.once(within, from)).await
    }

    /// A page of the names at a level.
    async fn names(&self, level: &Level) -> Result<Page, Fault> {
        let once = || azure::page(self.client, (&self.prefix, &level.of), &level.from, Depth::One);
        patiently(self.client, once).await
    }

    /// True if a page can begin behind any key.
    fn begins_anywhere(&self) -> bool {
        matches!(self.store, Store::S3 { .. } | Store::Google { .. })
    }
}

/// Tries until it is done, or there is no more patience.
async fn patiently<T, F>(client: &Client, mut what: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let (mut patience, mut short) = (Patience::new(PATIENCE), Patience::new(UNREACHABLE_PATIENCE));
    loop {
        match what().await {
            // Likely an address that is wrong.
            Err(fault) if fault.kind == FaultKind::Unreachable && !short.rest().await => return Err(fault),
            Err(fault) if fault.kind.may_pass() && patience.rest().await => client.counts.retry(),
            done => return done,
        }
    }
}

/// What came of a listing.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) objects: u64,
}

/// Lists all that is below a location's prefix; what there is of it is in the writer.
///
/// # Errors
/// If any part of it cannot be listed, or there is nothing.
pub(super) async fn list(
    client: &Client,
    location: &Location,
    scope: &Scope,
    (writer, left): (&Writer, &Left),
    cancelled: &AtomicBool,
) -> Result<Listing, Fault> {
    let listing = async {
        if matches!(location.store, Store::WebDav { .. }) {
            return dav::list(client, location, scope, (writer, left)).await;
        }
        let pages = Pages { client, store: &location.store, prefix: location.key_prefix() };
        let first = pages.get("", &From::Start).await?;
        if first.objects.is_empty() && first.next.is_none() && !pages.prefix.is_empty() {
            let text = format!("there is no object whose key begins with `{}`; check the spelling", pages.prefix);
            return Err(Fault::new(FaultKind::NoBucket, text));
        }
        let mut ranges = Ranges::new(&pages, scope, (writer, left));
        match ranges.list(first).await? {
            true => Ok(Listing { objects: ranges.objects }),
            false => {
                tracing::warn!("the store does not list in order: all is listed once more, and sorted");
                gather(&pages, scope, (writer, left)).await
            }
        }
    };
    let mut listing = std::pin::pin!(listing);
    loop {
        match tokio::time::timeout(LOOK, &mut listing).await {
            Ok(listed) => return listed,
            Err(_) if cancelled.load(Ordering::Relaxed) => return Err(Fault::cancelled()),
            Err(_) => {}
        }
    }
}

fn unwritten(error: io::Error) -> Fault {
    Fault::new(FaultKind::Refused, format!("the listing cannot be written: {error}"))
}

/// A range of keys that is listed page by page.
struct Range<'a> {
    sink: Sink<'a>,
    /// What all its keys begin with.
    within: String,
    /// Behind which key it begins.
    begin: Vec<u8>,
    /// The first key that does not belong to it.
    end: Option<Vec<u8>>,
    /// A page of it is under way.
    busy: bool,
    /// It was split off, and nothing has come of it yet.
    unproven: bool,
    points: Points,
}

/// How many splits are made: each that finds nothing has cost a request.
#[derive(Debug, Default)]
struct Splits {
    pages: usize,
    wasted: usize,
    unproven: usize,
}

impl Splits {
    fn allows(&self) -> bool {
        self.wasted + self.unproven < 2 + self.pages / 4
    }
}

/// What was asked of a store for a range, by its number.
enum Came {
    Page(usize, Result<Page, Fault>),
    Names(usize, Level, Result<Page, Fault>),
}

/// All pages, in ranges beside each other.
struct Ranges<'a> {
    pages: &'a Pages<'a>,
    scope: &'a Scope,
    writer: &'a Writer,
    left: &'a Left,
    /// Those that are at their end are gone.
    all: Vec<Option<Range<'a>>>,
    splits: Splits,
    objects: u64,
    asked: FuturesUnordered<BoxFuture<'a, Came>>,
}

impl<'a> Ranges<'a> {
    fn new(pages: &'a Pages<'a>, scope: &'a Scope, (writer, left): (&'a Writer, &'a Left)) -> Self {
        let (splits, asked) = (Splits::default(), FuturesUnordered::new());
        Self { pages, scope, writer, left, all: Vec::new(), splits, objects: 0, asked }
    }

    fn add(&mut self, within: String, begin: Vec<u8>, end: Option<Vec<u8>>) -> &mut Range<'a> {
        let sink = Sink::new(self.writer.run(), self.left, self.scope);
        let points = match self.pages.store {
            Store::Azure { .. } => Points::Unknown(Level::new(within.clone())),
            _ => Points::None,
        };
        self.all.push(Some(Range { sink, within, begin, end, busy: true, unproven: false, points }));
        self.all.last_mut().and_then(Option::as_mut).expect("it was added")
    }

    fn ask(&mut self, at: usize, from: From) {
        let pages = self.pages;
        let within = self.all[at].as_ref().expect("it is there").within.clone();
        self.asked.push(async move { Came::Page(at, pages.get(&within, &from).await) }.boxed());
    }

    /// Lists all, of which the first page is there; false if it comes in no order.
    async fn list(&mut self, first: Page) -> Result<bool, Fault> {
        self.add(String::new(), Vec::new(), None);
        let mut came = Some(Came::Page(0, Ok(first)));
        while let Some(next) = match came.take() {
            Some(first) => Some(first),
            None => self.asked.next().await,
        } {
            match next {
                Came::Page(at, page) => {
                    if !self.take(at, page?)? {
                        return Ok(false);
                    }
                }
                Came::Names(at, level, page) => {
                    let page = page?;
                    self.splits.unproven -= 1;
                    self.splits.wasted += 1;
                    // It may be at its end by now.
                    if let Some(range) = &mut self.all[at] {
                        range.points = Points::of_names(level, page, range.sink.last());
                    }
                }
            }
            while self.asked.len() < AT_ONCE && self.splits.allows() && self.split() {}
        }
        Ok(true)
    }

    /// Takes a page of a range, and asks for the next; false if it is in no order.
    fn take(&mut self, at: usize, page: Page) -> Result<bool, Fault> {
        self.splits.pages += 1;
        let range = self.all[at].as_mut().expect("what is under way is not at its end");
        range.busy = false;
        let before = range.sink.objects;
        let mut past = false;
        for found in &page.objects {
            if range.end.as_ref().is_some_and(|end| found.key >= *end) {
                past = true;
                break;
            }
            if found.key <= range.begin && !range.begin.is_empty()
                || !range.sink.push(&found.key, &found.meta).map_err(unwritten)?
            {
                return Ok(false);
            }
        }
        let goes_on = page.next.is_some() && !past;
        if std::mem::take(&mut range.unproven) {
            self.splits.unproven -= 1;
            // Less than a page of a prefix is what another range would have had by the way.
            let little = if range.within.is_empty() { range.sink.objects == before } else { !goes_on };
            self.splits.wasted += usize::from(little);
        }
        match page.next.filter(|_| goes_on) {
            Some(token) => {
                range.busy = true;
                // What is shut is passed over, where there is more of it than a page.
                let last = range.sink.last();
                let from = match self.scope.shuts(last).filter(|_| self.pages.begins_anywhere()) {
                    Some(dir) => From::After([dir, b"/", LAST.as_bytes()].concat()),
                    None => From::Token(token),
                };
                self.ask(at, from);
            }
            None => {
                let range = self.all[at].take().expect("it was there");
                self.objects += range.sink.objects;
                range.sink.finish().map_err(unwritten)?;
            }
        }
        Ok(true)
    }

    /// Splits the range that has most to come, as far as that can be told; false if there is none.
    fn split(&mut self) -> bool {
        match self.pages.begins_anywhere() {
            true => self.split_in_the_middle(),
            false => self.split_off_the_last() || self.ask_for_names(),
        }
    }

    fn busy(&self) -> impl Iterator<Item = (usize, &Range<'a>)> {
        let all = self.all.iter().enumerate();
        all.filter_map(|(at, range)| Some((at, range.as_ref().filter(|range| range.busy && !range.unproven)?)))
    }

    fn split_in_the_middle(&mut self) -> bool {
        // The middle of the one that has most to come is the farthest.
        let middles = self.busy().filter_map(|(at, range)| {
            let from = range.sink.last();
            let middle = middle(from, range.end.as_deref())?;
            Some((common(from, &middle), at, middle))
        });
        let Some((_, at, middle)) = middles.min_by_key(|(common, at, _)| (*common, *at)) else { return false };
        // The middle itself belongs to the left one.
        let range = self.all[at].as_mut().expect("it is busy");
        let end = range.end.replace([&middle[..], &[0]].concat());
        self.add(String::new(), middle.clone(), end).unproven = true;
        self.splits.unproven += 1;
        self.ask(self.all.len() - 1, From::After(middle));
        true
    }

    fn split_off_the_last(&mut self) -> bool {
        let counts = self.busy().filter_map(|(at, range)| match &range.points {
            Points::Known(heads) => Some((heads.len(), at)),
            _ => None,
        });
        let Some((_, at)) = counts.max() else { return false };
        let range = self.all[at].as_mut().expect("it is busy");
        range.points = std::mem::replace(&mut range.points, Points::None).after(range.sink.last());
        // What is left may have names of its own.
        let Points::Known(heads) = &mut range.points else { return true };
        let Some(last) = heads.pop() else { return true };
        let end = range.end.replace(last.clone().into_bytes());
        self.add(last, Vec::new(), end).unproven = true;
        self.splits.unproven += 1;
        self.ask(self.all.len() - 1, From::Start);
        true
    }

    fn ask_for_names(&mut self) -> bool {
        let unknown = self.busy().find(|(_, range)| matches!(range.points, Points::Unknown(_)));
        let Some(at) = unknown.map(|(at, _)| at) else { return false };
        let range = self.all[at].as_mut().expect("it is busy");
        let Points::Unknown(level) = std::mem::replace(&mut range.points, Points::Asked) else { return false };
        self.splits.unproven += 1;
        let pages = self.pages;
        let asked = async move {
            let page = pages.names(&level).await;
            Came::Names(at, level, page)
        };
        self.asked.push(asked.boxed());
        true
    }
}

/// What comes behind all keys in a directory.
const LAST: &str = "\u{10ffff}";
/// What most names are made of, in order.
const USUAL: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// A key between two, about in the middle where names are made of what they usually are; `None` if there is none such.
fn middle(from: &[u8], to: Option<&[u8]>) -> Option<Vec<u8>> {
    let rank = |byte: u8| USUAL.partition_point(|usual| *usual < byte);
    let first = to.map_or(0, |to| common(from, to));
    for at in first..=from.len() {
        let low = from.get(at).map_or(0, |byte| rank(byte.saturating_add(1)));
        let high = match to {
            Some(to) if at == first => to.get(at).map_or(0, |byte| rank(*byte)),
            _ => USUAL.len(),
        };
        // Both ends are left out.
        if low < high {
            let middle = [&from[..at], &[USUAL[low + (high - low) / 2]]].concat();
            let between = *middle > *from && to.is_none_or(|to| *middle < *to);
            // In the midst of a character it is no text.
            return (between && std::str::from_utf8(&middle).is_ok()).then_some(middle);
        }
    }
    None
}

/// All pages, one after the other, whatever their order; all of it is in memory for that time.
async fn gather(pages: &Pages<'_>, scope: &Scope, (writer, left): (&Writer, &Left)) -> Result<Listing, Fault> {
    let mut all = Vec::new();
    let mut from = From::Start;
    loop {
        let page = pages.get("", &from).await?;
        all.extend(page.objects);
        match page.next {
            Some(token) => from = From::Token(token),
            None => break,
        }
    }
    write_sorted(all, scope, (writer, left))
}

/// Writes what is in no order.
fn write_sorted(mut all: Vec<Found>, scope: &Scope, (writer, left): (&Writer, &Left)) -> Result<Listing, Fault> {
    all.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    all.dedup_by(|one, other| one.key == other.key);
    writer.begin_anew();
    left.clear();
    let mut sink = Sink::new(writer.run(), left, scope);
    for found in &all {
        sink.push(&found.key, &found.meta).map_err(unwritten)?;
    }
    let objects = sink.objects;
    sink.finish().map_err(unwritten)?;
    Ok(Listing { objects })
}

#[cfg(test)]
mod tests;
