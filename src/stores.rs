//! What the user says of sources in object stores: options, memory and cache, and what they share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::config::ConfigError;
use crate::listing::Exclude;
use crate::source::object::ObjectSource;
use crate::source::object::cache::Cache;
use crate::source::object::keys::{Excluded, Scope};
use crate::source::object::location::Location;
use crate::source::object::location::options::Options;
use crate::source::object::read::Engine;
use crate::source::object::remote::RemoteStore;
use crate::walk::WalkOptions;

/// The most memory that reads take without being told, in bytes.
const MOST_MEMORY: u64 = 1 << 30;
/// The room of a cache without being told, in bytes.
const CACHE_BYTES: u64 = 10 << 30;

/// What the user says of stores: `--option KEY=VALUE`.
pub type Pairs = Vec<(String, String)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Stores {
    options: Pairs,
    memory: Option<u64>,
    cache: Option<(PathBuf, u64)>,
    max_depth: Option<u32>,
    exclude: Exclude,
    engine: OnceLock<Arc<Engine>>,
}

impl Stores {
    /// Options of the stores, memory in bytes, the directory of a cache and its room in bytes, and how sources are walked:
    /// what is not walked need not be listed.
    pub fn new(options: Pairs, memory: Option<u64>, cache: Option<(PathBuf, Option<u64>)>, walk: &WalkOptions) -> Self {
        let cache = cache.map(|(dir, bytes)| {
            // The daemon goes to the root directory.
            (std::path::absolute(&dir).unwrap_or(dir), bytes.unwrap_or(CACHE_BYTES))
        });
        let (max_depth, exclude) = (walk.max_depth, walk.exclude.clone());
        Self { options, memory, cache, max_depth, exclude, engine: OnceLock::new() }
    }

    fn engine(&self) -> Result<Arc<Engine>, ConfigError> {
        if let Some(engine) = self.engine.get() {
            return Ok(Arc::clone(engine));
        }
        let cache = match &self.cache {
            None => None,
            Some((dir, bytes)) => {
                let failed = |error| ConfigError::Usage(format!("--cache {}: {error}", dir.display()));
                Some(Cache::open(dir, *bytes).map_err(failed)?)
            }
        };
        let engine = Engine::new(self.memory.unwrap_or_else(default_memory), cache);
        Ok(Arc::clone(self.engine.get_or_init(|| engine)))
    }

    /// The source at a location; nothing is asked of the store yet.
    ///
    /// # Errors
    /// If an option or the cache's directory is wrong.
    pub(crate) fn source(&self, location: &Location) -> Result<ObjectSource, ConfigError> {
        let scoped = match (self.max_depth, self.exclude.given()) {
            (None, []) => String::new(),
            (depth, exclude) => json!({"max_depth": depth, "exclude": exclude}).to_string(),
        };
        let exclude = self.exclude.clone();
        let excluded = (!exclude.is_empty()).then(|| -> Excluded {
            Box::new(move |dir| {
                let end = dir.iter().rposition(|byte| *byte == b'/');
                let (above, name) = end.map_or((&b""[..], dir), |end| (&dir[..end], &dir[end + 1..]));
                exclude.excludes(&|| above.to_vec(), name)
            })
        });
        let scope = Scope { max_depth: self.max_depth.map(|depth| depth as usize), excluded };
        let pairs = self.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let options = Options::parse(&location.store, pairs).map_err(|error| ConfigError::Usage(error.to_string()))?;
        let store = RemoteStore::new(location.clone(), options, (scope, &scoped), self.engine()?);
        let store = store.map_err(|error| ConfigError::Usage(error.to_string()))?;
        Ok(ObjectSource::new(location.to_string().as_bytes(), Box::new(store)))
    }
}

/// A quarter of the memory that this process may use, up to a GiB.
fn default_memory() -> u64 {
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(|text| text.lines().find(|line| line.starts_with("MemTotal:")));
    let machine = machine.and_then(kib).map_or(u64::MAX, |kib| kib << 10);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let mut dir = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let mut least = machine;
    // One above it may have less.
    while dir.starts_with("/sys/fs/cgroup") {
        let limit = std::fs::read_to_string(dir.join("memory.max")).ok();
        least = least.min(limit.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX));
        if !dir.pop() {
            break;
        }
    }
    (least / 4).min(MOST_MEMORY)
}

/// A size with a unit, in bytes: `512M`, `10G`, `1.5GiB`; powers of 1024.
///
/// # Errors
/// If it is none.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "give a size, such as 512M or 10G".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = text[end..].to_ascii_uppercase();
    let unit = unit.trim_end_matches("IB").trim_end_matches('B');
    let power = match unit {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(wrong()),
    };
    let bytes = number * 1024f64.powi(power);
    if bytes.is_finite() && bytes >= 1.0 && bytes < 2f64.powi(60) { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1", 1), ("512M", 512 << 20), ("10G", 10 << 30), ("1.5GiB", 3 << 29), ("64kb", 64 << 10)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "M", "1X", "-1", "1e9", "9999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!((1 << 20..=MOST_MEMORY).contains(&default_memory()));
    }
}
