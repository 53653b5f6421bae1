//! The bytes of an index: values to bytes and back, without I/O.
//!
//! Version policy: [`VERSION`] stands at byte 16 in every version to come. A file of another version is set aside and
//! begun anew, never converted: an index is a cache. Whatever changes a drawing on this page, redb's own file format
//! included, gets another version.
//!
//! Numbers are little-endian; `varint` is LEB128 of at most 64 bits, its shortest form; `zigzag` is a varint of
//! `(n << 1) ^ (n >> 63)`, for differences that wrap. Checksums are XXH3 of 64 bits. They tell what was damaged, not
//! what was forged: nothing here is trusted further than its checksum, and decoding neither panics nor allocates more
//! than its input justifies, whatever the bytes.
//!
//! # The file
//!
//! ```text
//! head          whole pages of 4096 bytes
//! sums          one page: the checksums of the 512 pages that follow, 8 bytes each
//! 512 pages     pages 0 to 511 of a redb database
//! sums
//! 512 pages     pages 512 to 1023
//! …             the last group may be shorter
//! ```
//!
//! redb checks its checksums when it repairs, not when it reads, and on a page that was damaged it may allocate
//! gigabytes or abort the process. So it never sees one: a page that is not what was last written there is an error of
//! the read (`sealed`). The seed of a page's checksum is its number and the index's epoch, so that a
//! page in the wrong place, or of another file, does not pass. Page 0, which redb writes in place and guards itself,
//! has no checksum.
//!
//! # The head
//!
//! ```text
//!   0  magic           16 bytes: "veinfs index" CR LF 1A LF
//!  16  version         u32
//!  20  length          u32: of all this, the checksum included
//!  24  epoch           16 bytes, random: which file this is
//!  40  sources         varint: how many; each
//!        name            varint length, bytes
//!        root            varint length, bytes
//!      options         varint length, UTF-8
//!      checksum        u64 of everything before it
//!      zeros           to the end of the page
//! ```
//!
//! # Sealed values
//!
//! ```text
//!   0  checksum        u64 of the key (its own length and XXH3 come in as the seed) and everything below
//!   8  length          varint: of the content, not packed
//!      packed          u8: 0 the content as it is, 1 as an LZ4 block
//!      content         to the end
//! ```
//!
//! A sealed value is cut into pieces of [`PIECE`] bytes, one redb value each: a piece fills a page, where larger values
//! would be rounded up to the next power of two of pages. The last four bytes of a piece's key number it, big-endian.
//!
//! | table | key before the number of the piece | content |
//! | --- | --- | --- |
//! | `meta` | none | [`Totals`] |
//! | `dirs` | source u32, block u32, both big-endian | a block |
//! | `matches` | the pattern's fingerprint, 16 bytes | u64 seconds since the epoch when it was written, and the caller's bytes |
//!
//! # A block
//!
//! [`PER_BLOCK`] directories whose ids differ in the lowest bits alone; those that exist, in order:
//!
//! ```text
//!   0  place           u8: bits 0–4 the lowest bits of the id; 5 trusted; 6 a ctime of its own; 7 zero
//!   1  parent          zigzag: id − parent
//!      name            varint length, bytes; empty for id 0 alone, whose parent is 0
//!      ino             zigzag: difference to the directory before in the block, to 0 for the first
//!      mtime seconds   zigzag: likewise
//!      mtime nanos     u32
//!      ctime seconds   zigzag: ctime − mtime          } only with bit 6;
//!      ctime nanos     u32                            } else it is the mtime
//!      listing         varint length, bytes
//! ```
//!
//! # Totals
//!
//! ```text
//!      dirs            varint: directories in all blocks
//!      blocks          varint
//!      sum             u64: the checksums of all blocks, added and wrapped: a lost block is found, and a stale one
//!      dir bytes       varint: the sealed bytes of all blocks
//!      patterns        varint: how many have matches stored
//!      match bytes     varint: the sealed bytes of their matches
//!      written         zigzag: seconds since the epoch
//!      reconciled      u8: 0 never; 1: then seconds as zigzag, nanoseconds as u32
//! ```

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::{DirRecord, Identity, Stamp};
use crate::entry::valid_name;

/// The version of everything on this page.
pub const VERSION: u32 = 1;
/// How the file begins. A transfer that changes line ends or stops at a control character spoils it.
pub const MAGIC: &[u8; 16] = b"veinfs index\r\n\x1a\n";
/// Bytes of a page, redb's and ours.
pub const PAGE: usize = 4096;
/// Pages between two pages of checksums.
pub const GROUP: usize = PAGE / 8;
/// The most bytes of one redb value: with key and header it just fits a leaf page.
pub const PIECE: usize = 4064;
/// Directories in a block. Per 100,000 directories of real trees, written and read at once, the file has
///
/// | a block | packed | not packed |
/// | --- | --- | --- |
/// | 8 | 5.2 MB | 11.6 MB |
/// | 16 | 4.4 MB | 12.6 MB |
/// | 32 | 4.2 MB | 13.0 MB |
/// | 64 | 4.1 MB | 11.3 MB |
/// | 256 | 3.8 MB | 10.3 MB |
///
/// and costs some 20 ms to write, of which LZ4 takes half. A change of one directory writes its block anew.
pub const PER_BLOCK: u32 = 32;
/// The longest head: identities are some paths and options.
const HEAD_MAX: usize = 1 << 20;
/// LZ4 gives at most 255 bytes for one.
const LZ4_MOST: usize = 255;

/// What is wrong with bytes; the words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub &'static str);

type Decoded<T> = Result<T, Wrong>;

/// What stands at the front of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which file this is.
    pub epoch: [u8; 16],
    /// What it is an index of.
    pub identity: Identity,
}

/// Why a head was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not one of our files, or damaged.
    #[error("{0}")]
    Wrong(#[from] Wrong),
    /// Of another version.
    #[error("it is of version {0}; this is version {VERSION}")]
    Version(u32),
}

impl Head {
    /// The head as whole pages; `None` if the identity is absurdly long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.epoch);
        encode_identity(&self.identity, &mut bytes);
        let length = bytes.len() + 8;
        if length > HEAD_MAX {
            return None;
        }
        bytes[20..24].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes, 0);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        Some(bytes)
    }

    /// How many bytes the head has, whole pages, as its first 24 say.
    pub fn length(start: &[u8]) -> Result<usize, HeadError> {
        let mut input = Input(start);
        if input.take(16) != Ok(MAGIC) {
            return Err(Wrong("it is no index").into());
        }
        let version = input.u32()?;
        if version != VERSION {
            return Err(HeadError::Version(version));
        }
        let length = input.u32()? as usize;
        if length > HEAD_MAX { Err(Wrong("its head is too long").into()) } else { Ok(length.next_multiple_of(PAGE)) }
    }

    /// Reads a head from [`length`](Head::length) bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        Self::length(bytes)?;
        let mut input = Input(bytes);
        input.take(20)?;
        let length = input.u32()? as usize;
        let Some((content, checksum)) = bytes.get(..length).and_then(<[u8]>::split_last_chunk::<8>) else {
            return Err(Wrong("its head is cut off").into());
        };
        if xxh3_64_with_seed(content, 0) != u64::from_le_bytes(*checksum) {
            return Err(Wrong("the checksum of its head is wrong").into());
        }
        let mut input = Input(content);
        input.take(24)?;
        let epoch = input.array()?;
        let identity = decode_identity(&mut input)?;
        input.end()?;
        Ok(Self { epoch, identity })
    }

    /// The seed of its pages' checksums.
    pub fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.epoch;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

fn encode_identity(identity: &Identity, to: &mut Vec<u8>) {
    varint(to, identity.sources.len() as u64);
    for part in identity.sources.iter().flat_map(|(name, root)| [name, root]) {
        string(to, part);
    }
    string(to, identity.options.as_bytes());
}

fn decode_identity(input: &mut Input<'_>) -> Decoded<Identity> {
    let count = input.varint()?;
    let mut sources = Vec::new();
    for _ in 0..count {
        sources.push((input.string()?.into(), input.string()?.into()));
    }
    let options = std::str::from_utf8(input.string()?).map_err(|_| Wrong("its options are no text"))?.to_owned();
    Ok(Identity { sources, options })
}

/// A hash of the identity: 26 digits in base 32, no vowels that make words.
pub fn identity_hash(identity: &Identity) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut bytes = Vec::new();
    encode_identity(identity, &mut bytes);
    let mut hash = xxh3_128(&bytes);
    let mut text = String::with_capacity(26);
    for _ in 0..26 {
        text.push(DIGITS[(hash & 31) as usize].into());
        hash >>= 5;
    }
    text
}

/// What a page's checksum is; never 0, which stands for a page that was not written.
pub fn page_sum(page: &[u8], number: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(page, seed.wrapping_add(number)).max(1)
}

/// The key of a block of `source`, without the number of the piece.
pub fn block_key(source: u32, block: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&source.to_be_bytes());
    key[4..].copy_from_slice(&block.to_be_bytes());
    key
}

fn seal_sum(key: &[u8], rest: &[u8]) -> u64 {
    xxh3_64_with_seed(rest, xxh3_64_with_seed(key, key.len() as u64))
}

/// Seals a content under a key; the checksum comes first.
pub fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    varint(&mut bytes, content.len() as u64);
    let packed = lz4_flex::block::compress(content);
    if packed.len() < content.len() {
        bytes.push(1);
        bytes.extend_from_slice(&packed);
    } else {
        bytes.push(0);
        bytes.extend_from_slice(content);
    }
    let sum = seal_sum(key, &bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The checksum of a sealed value, not yet held against it.
pub fn sum_of(sealed: &[u8]) -> Option<u64> {
    sealed.first_chunk::<8>().map(|sum| u64::from_le_bytes(*sum))
}

/// Opens what was sealed under this key.
pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Decoded<Cow<'a, [u8]>> {
    let mut input = Input(sealed);
    let sum = input.u64()?;
    if seal_sum(key, input.0) != sum {
        return Err(Wrong("a checksum is wrong"));
    }
    let length = usize::try_from(input.varint()?).map_err(|_| Wrong("a value is too long"))?;
    match input.u8()? {
        0 if input.0.len() == length => Ok(Cow::Borrowed(input.0)),
        1 if length <= input.0.len().saturating_mul(LZ4_MOST) => {
            let mut content = vec![0; length];
            match lz4_flex::block::decompress_into(input.0, &mut content) {
                Ok(written) if written == length => Ok(Cow::Owned(content)),
                _ => Err(Wrong("a value cannot be unpacked")),
            }
        }
        _ => Err(Wrong("a value has another length")),
    }
}

/// The content of a block; `None` if a record cannot stand there: a name that is none, a wrong id, no record at all.
pub fn encode_block(block: u32, records: &[(u32, Cow<'_, DirRecord>)]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut before: Option<(u32, Stamp)> = None;
    for (id, record) in records {
        let stamp = record.stamp;
        let in_order = before.is_none_or(|(last, _)| last < *id);
        if id / PER_BLOCK != block || !in_order || !valid_record(*id, record.parent, &record.name) {
            return None;
        }
        let last = before.map_or(Stamp::default(), |(_, stamp)| stamp);
        let own_ctime = stamp.ctime != stamp.mtime;
        bytes.push((id % PER_BLOCK) as u8 | u8::from(record.trusted) << 5 | u8::from(own_ctime) << 6);
        zigzag(&mut bytes, i64::from(*id) - i64::from(record.parent));
        string(&mut bytes, &record.name);
        zigzag(&mut bytes, stamp.ino.wrapping_sub(last.ino).cast_signed());
        zigzag(&mut bytes, stamp.mtime.0.wrapping_sub(last.mtime.0));
        bytes.extend_from_slice(&stamp.mtime.1.to_le_bytes());
        if own_ctime {
            zigzag(&mut bytes, stamp.ctime.0.wrapping_sub(stamp.mtime.0));
            bytes.extend_from_slice(&stamp.ctime.1.to_le_bytes());
        }
        string(&mut bytes, &record.listing);
        before = Some((*id, stamp));
    }
    before.map(|_| bytes)
}

/// The directories of a block, in order.
pub fn decode_block(block: u32, bytes: &[u8], each: &mut dyn FnMut(u32, DirRecord)) -> Decoded<()> {
    let first = block.checked_mul(PER_BLOCK).ok_or(Wrong("a block has a number that is none"))?;
    let mut input = Input(bytes);
    let mut before: Option<(u32, Stamp)> = None;
    while !input.0.is_empty() {
        let place = input.u8()?;
        let id = first + u32::from(place) % PER_BLOCK;
        if place & 0x80 != 0 || before.is_some_and(|(last, _)| id <= last) {
            return Err(Wrong("directories are out of order"));
        }
        let parent = i64::from(id).checked_sub(input.zigzag()?).and_then(|parent| u32::try_from(parent).ok());
        let parent = parent.ok_or(Wrong("a directory has a parent that is none"))?;
        let name = input.string()?;
        if !valid_record(id, parent, name) {
            return Err(Wrong("a directory has a name that is none"));
        }
        let last = before.map_or(Stamp::default(), |(_, stamp)| stamp);
        let ino = last.ino.wrapping_add(input.zigzag()?.cast_unsigned());
        let mtime = (last.mtime.0.wrapping_add(input.zigzag()?), input.u32()?);
        let ctime = if place & 0x40 == 0 { mtime } else { (mtime.0.wrapping_add(input.zigzag()?), input.u32()?) };
        let stamp = Stamp { ino, mtime, ctime };
        let listing = input.string()?.into();
        each(id, DirRecord { parent, name: name.into(), stamp, trusted: place & 0x20 != 0, listing });
        before = Some((id, stamp));
    }
    before.map(|_| ()).ok_or(Wrong("a block is empty"))
}

fn valid_record(id: u32, parent: u32, name: &[u8]) -> bool {
    if id == 0 { name.is_empty() && parent == 0 } else { valid_name(name) }
}

/// What all blocks and matches add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories in all blocks.
    pub dirs: u64,
    /// How many blocks.
    pub blocks: u64,
    /// Their checksums, added and wrapped.
    pub sum: u64,
    /// Sealed bytes of all blocks.
    pub dir_bytes: u64,
    /// Patterns with matches stored.
    pub patterns: u64,
    /// Sealed bytes of their matches.
    pub match_bytes: u64,
    /// Seconds since the epoch when this was written.
    pub written: i64,
    /// When the source and this last agreed, as seconds and nanoseconds since the epoch.
    pub reconciled: Option<(i64, u32)>,
}

impl Totals {
    /// The content of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(&mut bytes, self.dirs);
        varint(&mut bytes, self.blocks);
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        varint(&mut bytes, self.dir_bytes);
        varint(&mut bytes, self.patterns);
        varint(&mut bytes, self.match_bytes);
        zigzag(&mut bytes, self.written);
        match self.reconciled {
            None => bytes.push(0),
            Some((seconds, nanos)) => {
                bytes.push(1);
                zigzag(&mut bytes, seconds);
                bytes.extend_from_slice(&nanos.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads them.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut input = Input(bytes);
        let totals = Self {
            dirs: input.varint()?,
            blocks: input.varint()?,
            sum: input.u64()?,
            dir_bytes: input.varint()?,
            patterns: input.varint()?,
            match_bytes: input.varint()?,
            written: input.zigzag()?,
            reconciled: match input.u8()? {
                0 => None,
                1 => Some((input.zigzag()?, input.u32()?)),
                _ => return Err(Wrong("its totals are none")),
            },
        };
        input.end()?;
        Ok(totals)
    }
}

/// Seconds and nanoseconds since the epoch; times before it are negative seconds.
pub fn from_time(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let (seconds, nanos) = (i64::try_from(before.as_secs()).unwrap_or(i64::MAX), before.subsec_nanos());
            if nanos == 0 { (-seconds, 0) } else { (-seconds - 1, 1_000_000_000 - nanos) }
        }
    }
}

/// The time again; `None` if it is none.
pub fn to_time((seconds, nanos): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    time.filter(|_| nanos < 1_000_000_000)?.checked_add(Duration::from_nanos(nanos.into()))
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn zigzag(to: &mut Vec<u8>, number: i64) {
    varint(to, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Wrong("a value is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Wrong("a value is cut off"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Decoded<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Decoded<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Wrong("a number is none"))
    }

    fn zigzag(&mut self) -> Decoded<i64> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    fn string(&mut self) -> Decoded<&'a [u8]> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| Wrong("a value is cut off"))?)
    }

    fn end(&self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Wrong("a value has more than it should")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Box<[u8]>> {
        let any = vec(any::<u8>().prop_filter("no part of a name", |byte| *byte != b'/' && *byte != 0), 1..40);
        any.prop_map(Vec::into_boxed_slice).prop_filter("no name", |name| valid_name(name))
    }

    prop_compose! {
        fn stamp()(ino in any::<u64>(), mtime in any::<(i64, u32)>(), ctime in any::<Option<(i64, u32)>>()) -> Stamp {
            Stamp { ino, mtime, ctime: ctime.unwrap_or(mtime) }
        }
    }

    prop_compose! {
        fn record()(
            parent in any::<u32>(), name in name(), stamp in stamp(), trusted in any::<bool>(),
            listing in vec(any::<u8>(), 0..200),
        ) -> DirRecord {
            DirRecord { parent, name, stamp, trusted, listing: listing.into() }
        }
    }

    fn decoded(block: u32, bytes: &[u8]) -> Decoded<Vec<(u32, DirRecord)>> {
        let mut records = Vec::new();
        decode_block(block, bytes, &mut |id, record| records.push((id, record)))?;
        Ok(records)
    }

    fn identity() -> impl Strategy<Value = Identity> {
        let part = || vec(any::<u8>(), 0..300).prop_map(Vec::into_boxed_slice);
        (vec((part(), part()), 0..30), ".*").prop_map(|(sources, options)| Identity { sources, options })
    }

    proptest! {
        #[test]
        fn blocks_come_back(
            block in prop_oneof![0u32..4, 0..u32::MAX / PER_BLOCK, Just(u32::MAX / PER_BLOCK)],
            records in btree_map(0..PER_BLOCK, record(), 1..20),
        ) {
            let mut records: Vec<(u32, DirRecord)> =
                records.into_iter().map(|(place, record)| (block * PER_BLOCK + place, record)).collect();
            if let Some((0, root)) = records.first_mut() {
                (root.parent, root.name) = (0, Box::default());
            }
            let given: Vec<_> = records.iter().map(|(id, record)| (*id, Cow::Borrowed(record))).collect();
            let bytes = encode_block(block, &given).expect("records that can stand there");
            prop_assert_eq!(decoded(block, &bytes), Ok(records));
            // Cut anywhere, it is an error or fewer records, and never a panic.
            for length in 0..bytes.len() {
                let _ = decoded(block, &bytes[..length]);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300), block in any::<u32>(), key in vec(any::<u8>(), 0..9)) {
            let _ = decoded(block, &bytes);
            let _ = Totals::decode(&bytes);
            let _ = unseal(&key, &bytes);
            let _ = Head::decode(&bytes);
            let _ = Head::length(&bytes);
            let _ = decode_identity(&mut Input(&bytes));
            // And behind a right checksum.
            let mut sealed = seal_sum(&key, &bytes).to_le_bytes().to_vec();
            sealed.extend_from_slice(&bytes);
            if let Ok(content) = unseal(&key, &sealed) {
                prop_assert!(content.len() <= bytes.len() * LZ4_MOST);
            }
        }

        #[test]
        fn sealed_values_come_back(content in vec(0u8..4, 0..3000), key in vec(any::<u8>(), 0..20), at in any::<u16>()) {
            let mut sealed = seal(&key, &content);
            prop_assert_eq!(unseal(&key, &sealed).map(Cow::into_owned), Ok(content));
            prop_assert!(unseal(b"another key, longer than those", &sealed).is_err());
            let at = usize::from(at) % sealed.len();
            sealed[at] ^= 1;
            prop_assert!(unseal(&key, &sealed).is_err());
        }

        #[test]
        fn heads_come_back(epoch in any::<[u8; 16]>(), identity in identity(), at in any::<u16>(), bit in 0..8u8) {
            let head = Head { epoch, identity };
            let mut bytes = head.encode().expect("not absurdly long");
            prop_assert_eq!(bytes.len() % PAGE, 0);
            prop_assert_eq!(Head::length(&bytes), Ok(bytes.len()));
            prop_assert_eq!(Head::decode(&bytes), Ok(head));
            let length = u32::from_le_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]) as usize;
            bytes[usize::from(at) % length] ^= 1u8 << bit;
            prop_assert!(Head::decode(&bytes).is_err());
        }

        #[test]
        fn totals_come_back(
            numbers in any::<[u64; 6]>(), written in any::<i64>(), reconciled in any::<Option<(i64, u32)>>(),
        ) {
            let [dirs, blocks, sum, dir_bytes, patterns, match_bytes] = numbers;
            let totals = Totals { dirs, blocks, sum, dir_bytes, patterns, match_bytes, written, reconciled };
            prop_assert_eq!(Totals::decode(&totals.encode()), Ok(totals));
        }

        #[test]
        fn times_come_back(seconds in -100_000_000_000i64..100_000_000_000, nanos in 0..1_000_000_000u32) {
            let time = to_time((seconds, nanos)).expect("a time");
            prop_assert_eq!(from_time(time), (seconds, nanos));
        }
    }

    #[test]
    fn what_cannot_stand_in_a_block() {
        let record = |parent, name: &[u8]| {
            Cow::Owned(DirRecord {
                parent,
                name: name.into(),
                stamp: Stamp::default(),
                trusted: true,
                listing: Box::default(),
            })
        };
        assert!(encode_block(0, &[(0, record(0, b"")), (1, record(0, b"a"))]).is_some());
        for (id, parent, name) in
            [(0, 0, &b"a"[..]), (0, 1, b""), (1, 0, b""), (1, 0, b".."), (1, 0, b"a/b"), (32, 0, b"a")]
        {
            assert_eq!(encode_block(0, &[(id, record(parent, name))]), None, "{id} {parent} {name:?}");
        }
        assert_eq!(encode_block(0, &[]), None);
        assert_eq!(encode_block(0, &[(2, record(0, b"a")), (1, record(0, b"b"))]), None);
        assert!(decoded(u32::MAX, b"\x01").is_err());
        assert!(decoded(0, b"").is_err());
    }

    #[test]
    fn versions_are_told() {
        let head = Head { epoch: [7; 16], identity: Identity { sources: Vec::new(), options: String::new() } };
        let mut bytes = head.encode().expect("a head");
        bytes[16] = 9;
        assert_eq!(Head::decode(&bytes), Err(HeadError::Version(9)));
        let long = Identity { sources: Vec::new(), options: "x".repeat(HEAD_MAX) };
        assert_eq!(Head { epoch: [7; 16], identity: long }.encode(), None);
    }

    #[test]
    fn a_name_for_each_identity() {
        let of = |sources: &[(&str, &str)], options: &str| {
            let part = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
            let sources = sources.iter().map(|(name, root)| (part(name), part(root))).collect();
            identity_hash(&Identity { sources, options: options.to_owned() })
        };
        let hashes = [
            of(&[("a", "/a")], ""),
            of(&[("a", "/a")], "x"),
            of(&[("a/", "a")], ""),
            of(&[("a", "/a"), ("b", "/b")], ""),
            of(&[("b", "/b"), ("a", "/a")], ""),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert_eq!(hash.len(), 26);
            assert!(hashes[..i].iter().all(|other| other != hash));
        }
        assert_eq!(hashes[0], of(&[("a", "/a")], ""));
    }
}
