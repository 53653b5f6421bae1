//! Listing all objects below a prefix into a snapshot.
//!
//! S3 and its kin give a thousand keys a page, in order, and begin behind any key that is asked for. So one listing is
//! many: a range of keys whose end is far off is split in the middle of what is left of it, as long as there is room for
//! more requests ([`AT_ONCE`]) and not too many splits have found nothing ([`Splits`]). Ends are checked here. Where a
//! server does not keep the order all is listed once more, page by page, and sorted ([`gather`]).
//!
//! Measured by `benches/object_list.rs`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::client::{Client, Patience};
use super::fault::{Fault, FaultKind};
use super::keys::{Left, Scope, Sink};
use super::location::{Location, Store};
use super::snapshot::{Meta, Writer};

mod azure;
mod dav;
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
    async fn once(&self, from: &From) -> Result<Page, Fault> {
        match self.store {
            Store::Azure { .. } => azure::page(self.client, &self.prefix, from).await,
            _ => s3::page(self.client, &self.prefix, from).await,
        }
    }

    /// A page, asked for until it comes or there is no more patience.
    async fn get(&self, from: &From) -> Result<Page, Fault> {
        patiently(self.client, || self.once(from)).await
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
        let first = pages.get(&From::Start).await?;
        if first.objects.is_empty() && first.next.is_none() && !pages.prefix.is_empty() {
            let text = format!("there is no object whose key begins with `{}`; check the spelling", pages.prefix);
            return Err(Fault::new(FaultKind::NoBucket, text));
        }
        if pages.begins_anywhere() {
            ranges(&pages, scope, (writer, left), first).await
        } else {
            one_by_one(&pages, scope, (writer, left), first).await
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

/// All pages, one after the other.
async fn one_by_one(
    pages: &Pages<'_>,
    scope: &Scope,
    (writer, left): (&Writer, &Left),
    first: Page,
) -> Result<Listing, Fault> {
    let mut sink = Sink::new(writer.run(), left, scope);
    let mut page = first;
    loop {
        for found in &page.objects {
            if !sink.push(&found.key, &found.meta).map_err(unwritten)? {
                return Err(Fault::new(FaultKind::Malformed, "its listing has no order"));
            }
        }
        match page.next {
            Some(token) => page = pages.get(&From::Token(token)).await?,
            None => {
                let objects = sink.objects;
                sink.finish().map_err(unwritten)?;
                return Ok(Listing { objects });
            }
        }
    }
}

/// A range of keys that is listed page by page.
struct Range<'a> {
    sink: Sink<'a>,
    /// Behind which key it begins.
    begin: Vec<u8>,
    /// The last key that belongs to it.
    end: Option<Vec<u8>>,
    /// A page of it is under way.
    busy: bool,
    /// It was split off, and nothing has come of it yet.
    unproven: bool,
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

/// All pages, in ranges beside each other.
async fn ranges<'a>(
    pages: &Pages<'_>,
    scope: &'a Scope,
    (writer, left): (&'a Writer, &'a Left),
    first: Page,
) -> Result<Listing, Fault> {
    let new = |begin: Vec<u8>, end| Range {
        sink: Sink::new(writer.run(), left, scope),
        begin,
        end,
        busy: false,
        unproven: false,
    };
    let mut all: Vec<Option<Range<'a>>> = vec![Some(new(Vec::new(), None))];
    let mut splits = Splits::default();
    let mut objects = 0;
    let mut asked = FuturesUnordered::new();
    let ask = |at: usize, from: From| async move {
        let page = pages.get(&from).await;
        (at, page)
    };
    let mut arrived = Some((0, Ok(first)));
    while let Some((at, page)) = match arrived.take() {
        Some(first) => Some(first),
        None => asked.next().await,
    } {
        let page = page?;
        splits.pages += 1;
        let range = all[at].as_mut().expect("what is under way is not at its end");
        range.busy = false;
        let before = range.sink.objects;
        let mut past = false;
        for found in &page.objects {
            if range.end.as_ref().is_some_and(|end| found.key > *end) {
                past = true;
                break;
            }
            if found.key <= range.begin && !range.begin.is_empty()
                || !range.sink.push(&found.key, &found.meta).map_err(unwritten)?
            {
                tracing::warn!("the store does not list in order: all is listed once more, and sorted");
                return gather(pages, scope, (writer, left)).await;
            }
        }
        if range.unproven {
            range.unproven = false;
            splits.unproven -= 1;
            splits.wasted += usize::from(range.sink.objects == before);
        }
        match page.next {
            Some(token) if !past => {
                range.busy = true;
                // What is shut is passed over, where there is more of it than a page.
                let last = range.sink.last();
                let from = match scope.shuts(last) {
                    Some(dir) => From::After([dir, b"/", LAST.as_bytes()].concat()),
                    None => From::Token(token),
                };
                asked.push(ask(at, from));
            }
            _ => {
                let range = all[at].take().expect("it was there");
                objects += range.sink.objects;
                range.sink.finish().map_err(unwritten)?;
            }
        }
        while asked.len() < AT_ONCE && splits.allows() {
            // The one that has most to come, as far as that can be told: the middle of it is the farthest.
            let middles = all.iter().enumerate().filter_map(|(at, range)| {
                let range = range.as_ref().filter(|range| range.busy && !range.unproven)?;
                let from = range.sink.last();
                let middle = middle(from, range.end.as_deref())?;
                let common = common(from, &middle);
                Some((common, at, middle))
            });
            let Some((_, at, middle)) = middles.min_by_key(|(common, at, _)| (*common, *at)) else { break };
            let range = all[at].as_mut().expect("it is busy");
            let mut right = new(middle.clone(), range.end.replace(middle.clone()));
            (right.busy, right.unproven) = (true, true);
            splits.unproven += 1;
            all.push(Some(right));
            asked.push(ask(all.len() - 1, From::After(middle)));
        }
    }
    Ok(Listing { objects })
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
        let page = pages.get(&from).await?;
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
