//! Getting a part of an object: from the cache, else from the store, tried again from where it broke off.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use http::header::{CONTENT_RANGE, ETAG, HeaderName, IF_MATCH, LAST_MODIFIED, RANGE};
use http::{Method, StatusCode};

use super::{Part, Reader, Shared, gather};
use crate::source::object::cache::BLOCK_BYTES;
use crate::source::object::client::{Asked, Patience, etag, header, time};
use crate::source::object::count::Purpose;
use crate::source::object::fault::{Fault, FaultKind};

/// How long a part is tried to be got while nothing comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fills a part, for as long as somebody knows it.
pub(super) async fn fill(shared: Arc<Shared>, part: Weak<Part>, begin: u64, end: u64) {
    if let Err(fault) = get(&shared, &part, begin, end).await
        && let Some(part) = part.upgrade()
    {
        part.fail(fault);
    }
}

async fn get(shared: &Arc<Shared>, part: &Weak<Part>, begin: u64, end: u64) -> Result<(), Fault> {
    let mut at = cached(shared, part, begin, end).await;
    if at == end {
        return Ok(());
    }
    if part.upgrade().is_some_and(|part| part.filled.lock().grant.is_none()) {
        let grant = match shared.engine.budget.try_take(end - begin) {
            Some(grant) => grant,
            None => {
                shared.engine.reclaim(true);
                shared.engine.budget.take(end - begin).await
            }
        };
        if let Some(part) = part.upgrade() {
            part.filled.lock().grant = Some(grant);
        }
    }
    let mut patience = Patience::new(PATIENCE);
    loop {
        let fault = match request(shared, part, &mut at, end, &mut patience).await {
            Ok(()) => break,
            Err(fault) => fault,
        };
        if fault.kind == FaultKind::Throttled {
            shared.remote.gate.throttled();
        }
        if !fault.kind.may_pass() || !patience.rest().await {
            return Err(fault);
        }
        shared.remote.client.counts.retry();
    }
    shared.remote.gate.went_well();
    Ok(())
}

/// Takes from the cache what it has of the beginning of a part; gives where that ends.
async fn cached(shared: &Arc<Shared>, part: &Weak<Part>, begin: u64, end: u64) -> u64 {
    let mut at = begin;
    let Some(cache) = shared.engine.cache.clone() else { return at };
    while at < end {
        let number = at / BLOCK_BYTES;
        let (key, first) = (Reader::block(shared, number), number * BLOCK_BYTES);
        if !cache.may_have(key) {
            break;
        }
        let length = (shared.meta.size - first).min(BLOCK_BYTES);
        let cache = Arc::clone(&cache);
        let block = tokio::task::spawn_blocking(move || cache.get(key, length as usize)).await;
        let Ok(Some(block)) = block else { break };
        let upto = (first + length).min(end);
        let Some(part) = part.upgrade() else { return end };
        part.add(block.slice((at - first) as usize..(upto - first) as usize));
        shared.remote.client.counts.cached(upto - at);
        at = upto;
    }
    at
}

/// Keeps the whole blocks of a part that is complete.
fn keep(shared: &Shared, part: &Arc<Part>) {
    let Some(cache) = &shared.engine.cache else { return };
    let mut first = part.begin.next_multiple_of(BLOCK_BYTES);
    while first < part.end {
        let next = (first + BLOCK_BYTES).min(shared.meta.size);
        if next > part.end {
            break;
        }
        let key = Reader::block(shared, first / BLOCK_BYTES);
        if !cache.may_have(key)
            && let Ok(pieces) = gather(std::slice::from_ref(part), first, next)
        {
            cache.put(key, pieces.concat().into());
        }
        first = next;
    }
}

/// Gets what is missing of a part by one request; `at` is where it ends.
async fn request(
    shared: &Arc<Shared>,
    part: &Weak<Part>,
    at: &mut u64,
    end: u64,
    patience: &mut Patience,
) -> Result<(), Fault> {
    // They are never closed.
    let _own = shared.requests.acquire().await;
    let _pass = shared.remote.gate.pass().await;
    if part.strong_count() == 0 {
        return Ok(());
    }
    let mut headers: Vec<(HeaderName, String)> = vec![(RANGE, format!("bytes={at}-{}", end - 1))];
    // A weak one never matches (RFC 9110, 13.1.1).
    if let Some(tag) = shared.meta.etag.as_deref().filter(|tag| !tag.starts_with("W/")) {
        headers.push((IF_MATCH, format!("\"{tag}\"")));
    }
    let asked = Asked { purpose: Purpose::Get, method: Method::GET, path: &shared.key, query: Vec::new(), headers };
    let answer = shared.remote.client.send(&asked).await?;
    let mut skip = check(shared, &answer, *at)?;
    let mut body = answer.into_body().bytes_stream();
    while *at < end {
        let Some(more) = body.next().await else {
            return Err(Fault::new(FaultKind::Unavailable, "the answer is cut off"));
        };
        let more = more.map_err(|error| Fault::of_connection(&error))?;
        shared.remote.client.counts.got(more.len() as u64);
        patience.progress();
        let skipped = skip.min(more.len() as u64);
        skip -= skipped;
        let until = more.len().min(skipped as usize + (end - *at) as usize);
        let more = more.slice(skipped as usize..until);
        if !more.is_empty() {
            *at += more.len() as u64;
            let Some(part) = part.upgrade() else { return Ok(()) };
            part.add(more);
            if *at == end {
                // Here, where it cannot go: whoever has its last bytes may close the file, and nobody knows it any more.
                keep(shared, &part);
            }
        }
    }
    Ok(())
}

/// Whether an answer is of the version that was listed, and how many of its bytes are before those that were asked for.
fn check(shared: &Shared, answer: &object_store::client::HttpResponse, at: u64) -> Result<u64, Fault> {
    let replaced = |text: String| Fault::new(FaultKind::Replaced, text);
    let headers = answer.headers();
    match (header(headers, ETAG).and_then(etag), &shared.meta.etag) {
        (Some(now), Some(listed)) => {
            let bare = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
            if bare(&now) != bare(listed) {
                return Err(replaced(format!("its ETag was {listed}, and is {now}")));
            }
        }
        _ => {
            if let Some((now, _)) = header(headers, LAST_MODIFIED).and_then(time)
                && now != shared.meta.modified.0
            {
                return Err(replaced("it was modified".to_owned()));
            }
        }
    }
    let size = |text: &str| text.trim().parse::<u64>().ok();
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        let range = header(headers, CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
        let Some((range, whole)) = range.and_then(|range| range.split_once('/')) else {
            return Err(Fault::new(FaultKind::Malformed, "a part of something, and not which"));
        };
        if size(whole).is_some_and(|whole| whole != shared.meta.size) {
            return Err(replaced(format!("it had {} bytes, and has {whole}", shared.meta.size)));
        }
        let first = range.split('-').next().and_then(size);
        return match first {
            Some(first) if first == at => Ok(0),
            _ => Err(Fault::new(FaultKind::Malformed, "another part than was asked for")),
        };
    }
    // Whoever knows no ranges sends all of it.
    let length = header(headers, "content-length").and_then(size);
    if length.is_some_and(|length| length != shared.meta.size) {
        let text = format!("all of it is {} bytes, and was listed with {}", length.unwrap_or(0), shared.meta.size);
        return Err(replaced(text));
    }
    Ok(at)
}
