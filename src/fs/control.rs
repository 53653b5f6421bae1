//! `.veinfs`: what the mount says of itself. It is there by name, but no listing of the root shows it.

use serde_json::Value;

use super::announce::Announcer;
use crate::live::Live;
use crate::pattern::load::to_json;
use crate::view::table::Table;

/// The folder's name.
pub(super) const NAME: &[u8] = b".veinfs";
/// The folder's inode number.
pub(super) const ROOT: u64 = 2;
const FILES: [(&str, u64); 4] = [("status.json", 3), ("matches.ndjson", 4), ("errors.ndjson", 5), ("metrics", 6)];
const PATTERNS: u64 = 7;
const NEAR: u64 = 8;
const FIRST_PATTERN: u64 = 0x100;
/// Beyond all patterns: these are fewer.
const FIRST_NEAR: u64 = 1 << 32;

/// Something below `.veinfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The folder itself.
    Root,
    /// One of its files, by inode number.
    File(u64),
    /// The folder of patterns.
    Patterns,
    /// A pattern, by its place.
    Pattern(usize),
    /// The folder of near misses.
    Nears,
    /// The near misses of a pattern, by its place; worked out when they are read.
    Near(usize),
}

impl Control {
    pub(super) fn of(ino: u64, patterns: usize) -> Option<Self> {
        match ino {
            ROOT => Some(Control::Root),
            PATTERNS => Some(Control::Patterns),
            NEAR => Some(Control::Nears),
            3..PATTERNS => Some(Control::File(ino)),
            _ => {
                let (first, of): (_, fn(usize) -> Control) =
                    if ino < FIRST_NEAR { (FIRST_PATTERN, Control::Pattern) } else { (FIRST_NEAR, Control::Near) };
                let at = usize::try_from(ino.checked_sub(first)?).ok()?;
                (at < patterns).then(|| of(at))
            }
        }
    }

    pub(super) fn ino(&self) -> u64 {
        match self {
            Control::Root => ROOT,
            Control::File(ino) => *ino,
            Control::Patterns => PATTERNS,
            Control::Pattern(at) => FIRST_PATTERN + *at as u64,
            Control::Nears => NEAR,
            Control::Near(at) => FIRST_NEAR + *at as u64,
        }
    }

    /// What a folder holds; `None` for a file.
    pub(super) fn entries(&self, live: &Live) -> Option<Table<Control>> {
        let entry = |name: &str, control| (Box::from(name.as_bytes()), control);
        match self {
            Control::Root => {
                let mut entries: Vec<_> = FILES.iter().map(|(name, ino)| entry(name, Control::File(*ino))).collect();
                entries.push(entry("patterns", Control::Patterns));
                entries.push(entry("near", Control::Nears));
                Some(Table::new(entries))
            }
            Control::Patterns => Some(Table::new(
                live.patterns
                    .iter()
                    .enumerate()
                    .map(|(at, pattern)| entry(&format!("{}.json", pattern.name), Control::Pattern(at)))
                    .collect(),
            )),
            Control::Nears => Some(Table::new(
                live.patterns
                    .iter()
                    .enumerate()
                    .map(|(at, pattern)| entry(&format!("{}.ndjson", pattern.name), Control::Near(at)))
                    .collect(),
            )),
            Control::File(_) | Control::Pattern(_) | Control::Near(_) => None,
        }
    }

    pub(super) fn child(&self, name: &[u8], live: &Live) -> Option<Control> {
        self.entries(live)?.get(name).copied()
    }

    /// What a file holds at this moment; `None` for a folder.
    pub(super) fn text(&self, live: &Live, reads: Value, announcer: &Announcer) -> Option<Vec<u8>> {
        let pretty = |value: &Value| {
            let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
            text.push(b'\n');
            text
        };
        match self {
            Control::Root | Control::Patterns | Control::Nears => None,
            // How much there is shows when it is read.
            Control::Near(_) => Some(Vec::new()),
            Control::File(3) => {
                let mut status = live.status(reads);
                status["announces"] = announcer.is_on().into();
                status["announcing"] = announcer.status();
                Some(pretty(&status))
            }
            Control::File(4) => Some(live.matches_ndjson()),
            Control::File(5) => Some(live.errors_ndjson()),
            Control::File(_) => Some(live.metrics().into_bytes()),
            Control::Pattern(at) => Some(pretty(&to_json(live.patterns.get(*at)?))),
        }
    }
}
