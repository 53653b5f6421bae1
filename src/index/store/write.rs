//! What a commit changes in the tables.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::super::format::{self, PER_BLOCK, PIECE, Totals};
use super::super::{Batch, DirRecord, IndexError};
use super::{
    DIRS, Failure, MATCHES, META, Session, block_piece, failure, joined, matches_piece, patterns, read_totals,
};

/// Patterns whose matches are kept besides those just written; the oldest go.
const PATTERNS_KEPT: usize = 256;
/// Applies a batch in a transaction; the totals after it.
pub(super) fn write(transaction: &WriteTransaction, batch: &Batch, listings: bool) -> Session<Totals> {
    let mut meta = transaction.open_table(META).map_err(failure)?;
    // A table that is new has no totals yet.
    let mut totals = if meta.is_empty().map_err(failure)? { Totals::default() } else { read_totals(&meta)? };
    {
        let mut matches = transaction.open_table(MATCHES).map_err(failure)?;
        write_matches(&mut matches, batch, &mut totals)?;
    }
    if listings {
        if batch.clear_dirs {
            transaction.delete_table(DIRS).map_err(failure)?;
            totals = Totals { dirs: 0, blocks: 0, sum: 0, dir_bytes: 0, reconciled: None, ..totals };
        }
        if let Some(reconciled) = batch.reconciled {
            totals.reconciled = Some(format::from_time(reconciled));
        }
    }
    {
        let mut dirs = transaction.open_table(DIRS).map_err(failure)?;
        if listings {
            write_dirs(&mut dirs, batch, &mut totals)?;
        }
    }
    totals.written = format::from_time(SystemTime::now()).0;
    put(&mut meta, u32::to_be_bytes, &format::seal(b"meta", &totals.encode()), 1)?;
    Ok(totals)
}

/// Writes the pieces of a sealed value over those that were there.
fn put<const N: usize>(
    table: &mut Table<'_, [u8; N], &'static [u8]>,
    key: impl Fn(u32) -> [u8; N],
    sealed: &[u8],
    pieces_before: usize,
) -> Session<()> {
    let mut pieces = 0;
    for piece in sealed.chunks(PIECE) {
        table.insert(key(pieces), piece).map_err(failure)?;
        pieces += 1;
    }
    for piece in pieces..pieces_before as u32 {
        table.remove(key(piece)).map_err(failure)?;
    }
    Ok(())
}

fn write_matches(table: &mut Table<'_, [u8; 20], &'static [u8]>, batch: &Batch, totals: &mut Totals) -> Session<()> {
    let now = format::from_time(SystemTime::now()).0.max(0).cast_unsigned();
    for (fingerprint, bytes) in &batch.matches {
        let before = joined(table, |piece| matches_piece(fingerprint, piece))?.map(|sealed| sealed.len());
        let content = [&now.to_le_bytes()[..], bytes].concat();
        let sealed = format::seal(fingerprint, &content);
        put(table, |piece| matches_piece(fingerprint, piece), &sealed, before.unwrap_or(0).div_ceil(PIECE))?;
        totals.match_bytes = totals.match_bytes.saturating_sub(before.unwrap_or(0) as u64) + sealed.len() as u64;
        totals.patterns += u64::from(before.is_none());
    }
    let new = |fingerprint: &[u8; 16]| batch.matches.iter().any(|(written, _)| written == fingerprint);
    if batch.matches.is_empty() || totals.patterns <= PATTERNS_KEPT as u64 {
        return Ok(());
    }
    let mut old: Vec<(u64, [u8; 16], usize)> = Vec::new();
    for fingerprint in patterns(table)?.into_iter().filter(|fingerprint| !new(fingerprint)) {
        let Some(sealed) = joined(table, |piece| matches_piece(&fingerprint, piece))? else { continue };
        // What is damaged goes first.
        let written = format::unseal(&fingerprint, &sealed).ok();
        let written = written.and_then(|content| content.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
        old.push((written.unwrap_or(0), fingerprint, sealed.len()));
    }
    old.sort_unstable();
    for (_, fingerprint, length) in old.iter().take(old.len().saturating_sub(PATTERNS_KEPT)) {
        put(table, |piece| matches_piece(fingerprint, piece), b"", length.div_ceil(PIECE))?;
        totals.match_bytes = totals.match_bytes.saturating_sub(*length as u64);
        totals.patterns = totals.patterns.saturating_sub(1);
    }
    Ok(())
}

/// The changes of one block, in the order of ids.
type Changes<'a> = Vec<(u32, Option<&'a DirRecord>)>;

fn write_dirs(table: &mut Table<'_, [u8; 12], &'static [u8]>, batch: &Batch, totals: &mut Totals) -> Session<()> {
    let last = table.last().map_err(failure)?.map(|(key, _)| key.value());
    let mut blocks: BTreeMap<(u32, u32), Changes<'_>> = BTreeMap::new();
    for ((source, id), record) in &batch.dirs {
        blocks.entry((*source, id / PER_BLOCK)).or_default().push((*id, record.as_ref()));
    }
    let behind = |(source, block): (u32, u32)| last.is_none_or(|last| last < block_piece(source, block, 0));
    for ((source, block), changes) in blocks.iter().filter(|(at, _)| !behind(**at)) {
        let key = |piece| block_piece(*source, *block, piece);
        let before = joined(table, key)?;
        let records = match &before {
            Some(sealed) => merged(*source, *block, sealed, changes, totals)?,
            None => kept(changes),
        };
        let pieces_before = before.map_or(0, |sealed| sealed.len().div_ceil(PIECE));
        let sealed = if records.is_empty() { Vec::new() } else { sealed_block(*source, *block, &records, totals)? };
        put(table, key, &sealed, pieces_before)?;
    }
    // What comes behind everything else goes in without a search, three times as fast, and fills pages to the end.
    let mut end = table.upper_bound_mut(Bound::<[u8; 12]>::Unbounded).map_err(failure)?;
    for ((source, block), changes) in blocks.iter().filter(|(at, _)| behind(**at)) {
        let records = kept(changes);
        if records.is_empty() {
            continue;
        }
        let sealed = sealed_block(*source, *block, &records, totals)?;
        for (piece, bytes) in (0..).zip(sealed.chunks(PIECE)) {
            end.insert_before(block_piece(*source, *block, piece), bytes)
                .map_err(|error| Failure::Damaged(error.to_string()))?;
        }
    }
    end.close().map_err(failure)
}

/// The records of a block that has none yet.
fn kept<'a>(changes: &[(u32, Option<&'a DirRecord>)]) -> Vec<(u32, Cow<'a, DirRecord>)> {
    changes.iter().filter_map(|(id, record)| Some((*id, Cow::Borrowed((*record)?)))).collect()
}

/// The records of a block after the changes; it is taken out of the totals as it was.
fn merged<'a>(
    source: u32,
    block: u32,
    sealed: &[u8],
    changes: &[(u32, Option<&'a DirRecord>)],
    totals: &mut Totals,
) -> Session<Vec<(u32, Cow<'a, DirRecord>)>> {
    let content = format::unseal(&format::block_key(source, block), sealed)?;
    let mut records: BTreeMap<u32, Cow<'a, DirRecord>> = BTreeMap::new();
    format::decode_block(block, &content, &mut |id, record| {
        records.insert(id, Cow::Owned(record));
    })?;
    totals.dirs = totals.dirs.saturating_sub(records.len() as u64);
    totals.blocks = totals.blocks.saturating_sub(1);
    totals.sum = totals.sum.wrapping_sub(format::sum_of(sealed).unwrap_or_default());
    totals.dir_bytes = totals.dir_bytes.saturating_sub(sealed.len() as u64);
    for (id, record) in changes {
        match record {
            Some(record) => records.insert(*id, Cow::Borrowed(record)),
            None => records.remove(id),
        };
    }
    Ok(records.into_iter().collect())
}

/// A block as it is stored; it is added to the totals.
fn sealed_block(
    source: u32,
    block: u32,
    records: &[(u32, Cow<'_, DirRecord>)],
    totals: &mut Totals,
) -> Session<Vec<u8>> {
    let Some(content) = format::encode_block(block, records) else {
        return Err(Failure::Index(IndexError::Record { source_place: source, first: block * PER_BLOCK }));
    };
    let sealed = format::seal(&format::block_key(source, block), &content);
    totals.dirs += records.len() as u64;
    totals.blocks += 1;
    totals.sum = totals.sum.wrapping_add(format::sum_of(&sealed).unwrap_or_default());
    totals.dir_bytes += sealed.len() as u64;
    Ok(sealed)
}
