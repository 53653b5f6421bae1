//! The bytes of a snapshot.
//!
//! ```text
//! file    = "veinobj\0" version:u32  block*  index  trailer
//! block   = record*  restart:u32*  restarts:u32                at most some 16 KiB
//! record  = shared:varint rest:varint bytes  flags:u8 size:varint seconds:zigzag nanos:varint
//!           [etag]  [version]  [class]                         as the flags say
//! etag    = 16 bytes (32 hexadecimal digits), or length:varint bytes
//! index   = about  count:varint  (offset:varint length:varint crc32c:u32 key)*  named
//! about   = location listed:varint records:varint bytes:varint left_out:varint
//! named   = count:varint  (key reason)*                          the first of those left out
//! trailer = offset:u64 length:u64 crc32c:u32 "veinobj\0"
//! text    = length:varint bytes                                location, key, version, class, reason
//! ```
//!
//! Numbers of fixed width are little-endian; varints are LEB128. Records are in the order of their keys. A key is that of
//! the one before it for `shared` bytes; every sixteenth record, a *restart*, has its key whole, so that a search inside a
//! block needs no more than sixteen. Blocks lie in the order in which they came to be full; the index has them in that of
//! their first keys.
//!
//! A file of another version, or whose checksums are wrong, is none: the object store is listed again.

use std::io;

use super::{Meta, MetaRef};

/// What a file begins and ends with.
pub(super) const MAGIC: &[u8; 8] = b"veinobj\0";
/// The version of this format.
pub(super) const VERSION: u32 = 2;
/// Bytes before the first block.
pub(super) const HEADER_BYTES: u64 = 12;
/// Bytes of the trailer.
pub(super) const TRAILER_BYTES: u64 = 28;
/// A block is full when it has so many bytes.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
/// So many records share their keys' beginnings.
const RESTART_EVERY: usize = 16;

const MARKER: u8 = 1;
const ETAG_HEX: u8 = 2;
const ETAG_TEXT: u8 = 4;
const VERSIONED: u8 = 8;
const CLASSED: u8 = 16;

/// An error for what cannot be in a sound file.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the listing of the object store on disk is damaged")
}

/// The checksum of some bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

pub(super) fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

pub(super) fn put_text(into: &mut Vec<u8>, text: &[u8]) {
    put_varint(into, text.len() as u64);
    into.extend_from_slice(text);
}

/// Reads from the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    pub(super) fn length(&mut self) -> io::Result<usize> {
        usize::try_from(self.varint()?).map_err(|_| damaged())
    }

    pub(super) fn text(&mut self) -> io::Result<&'a [u8]> {
        let length = self.length()?;
        self.bytes(length)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into().expect("four bytes")))
    }
}

/// Half the room for what is nearly always the MD5 of the content, or of its parts.
fn packed(etag: &str) -> Option<[u8; 16]> {
    let hex = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 32] = etag.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex(pair[0])? << 4 | hex(pair[1])?;
    }
    Some(bytes)
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn put_meta(into: &mut Vec<u8>, meta: &Meta) {
    let etag = meta.etag.as_deref().map(|etag| (etag, packed(etag)));
    let mut flags = if meta.marker { MARKER } else { 0 };
    flags |= match etag {
        None => 0,
        Some((_, Some(_))) => ETAG_HEX,
        Some((_, None)) => ETAG_TEXT,
    };
    flags |= if meta.version.is_some() { VERSIONED } else { 0 };
    flags |= if meta.class.is_some() { CLASSED } else { 0 };
    into.push(flags);
    put_varint(into, meta.size);
    put_varint(into, zigzag(meta.modified.0));
    put_varint(into, u64::from(meta.modified.1));
    match etag {
        None => {}
        Some((_, Some(bytes))) => into.extend_from_slice(&bytes),
        Some((text, None)) => put_text(into, text.as_bytes()),
    }
    for text in [&meta.version, &meta.class].into_iter().flatten() {
        put_text(into, text.as_bytes());
    }
}

fn read_meta<'a>(from: &mut Reader<'a>) -> io::Result<MetaRef<'a>> {
    let flags = from.bytes(1)?[0];
    let size = from.varint()?;
    let seconds = unzigzag(from.varint()?);
    let nanos = u32::try_from(from.varint()?).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(damaged)?;
    let etag = match flags & (ETAG_HEX | ETAG_TEXT) {
        0 => super::EtagRef::None,
        ETAG_HEX => super::EtagRef::Hex(from.bytes(16)?.try_into().expect("sixteen bytes")),
        _ => super::EtagRef::Text(from.text()?),
    };
    let version = if flags & VERSIONED == 0 { None } else { Some(from.text()?) };
    let class = if flags & CLASSED == 0 { None } else { Some(from.text()?) };
    Ok(MetaRef { marker: flags & MARKER != 0, size, modified: (seconds, nanos), etag, version, class })
}

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    records: usize,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Filling {
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_BYTES
    }

    pub(super) fn push(&mut self, key: &[u8], meta: &Meta) {
        let shared = if self.records.is_multiple_of(RESTART_EVERY) {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            key.iter().zip(&self.last).take_while(|(a, b)| a == b).count()
        };
        if self.records == 0 {
            self.first = key.to_vec();
        }
        put_varint(&mut self.bytes, shared as u64);
        put_text(&mut self.bytes, &key[shared..]);
        put_meta(&mut self.bytes, meta);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.records += 1;
    }

    /// The whole block and its first key; what is pushed next begins another.
    pub(super) fn take(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        for restart in &self.restarts {
            bytes.extend_from_slice(&restart.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.restarts.clear();
        self.records = 0;
        self.last.clear();
        (bytes, std::mem::take(&mut self.first))
    }
}

/// A block that was read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    restarts: usize,
    records_end: usize,
}

impl Block {
    pub(super) fn new(bytes: Box<[u8]>) -> io::Result<Self> {
        let end = bytes.len().checked_sub(4).ok_or_else(damaged)?;
        let restarts = u32::from_le_bytes(bytes[end..].try_into().expect("four bytes")) as usize;
        let records_end = restarts.checked_mul(4).and_then(|room| end.checked_sub(room)).ok_or_else(damaged)?;
        if restarts == 0 {
            return Err(damaged());
        }
        Ok(Self { bytes, restarts, records_end })
    }

    fn restart(&self, at: usize) -> usize {
        let place = self.records_end + at * 4;
        u32::from_le_bytes(self.bytes[place..place + 4].try_into().expect("four bytes")) as usize
    }

    /// Where to begin to look for the first record whose key is not below `key`.
    pub(super) fn before(&self, key: &[u8]) -> io::Result<usize> {
        let (mut low, mut high) = (0, self.restarts);
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            let mut reader = Reader(self.bytes.get(self.restart(middle)..self.records_end).ok_or_else(damaged)?);
            reader.varint()?;
            if reader.text()? <= key { low = middle } else { high = middle }
        }
        Ok(self.restart(low))
    }

    /// Reads the record at a place, whose key replaces what is in `key`; gives the next record's place, and `None` past
    /// the last one.
    pub(super) fn read(&self, at: usize, key: &mut Vec<u8>) -> io::Result<Option<(MetaRef<'_>, usize)>> {
        if at >= self.records_end {
            return Ok(None);
        }
        let mut reader = Reader(&self.bytes[at..self.records_end]);
        let shared = reader.length()?;
        if shared > key.len() {
            return Err(damaged());
        }
        let rest = reader.text()?;
        key.truncate(shared);
        key.extend_from_slice(rest);
        let meta = read_meta(&mut reader)?;
        Ok(Some((meta, self.records_end - reader.0.len())))
    }

    /// What the record at a place says of its object.
    pub(super) fn meta(&self, at: usize) -> io::Result<MetaRef<'_>> {
        let mut reader = Reader(self.bytes.get(at..self.records_end).ok_or_else(damaged)?);
        reader.varint()?;
        reader.text()?;
        read_meta(&mut reader)
    }
}
