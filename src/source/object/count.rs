//! How many requests are made of a store: they cost money.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A page of a listing (LIST, PROPFIND).
    List,
    /// A range of an object, or what it is now (GET, HEAD).
    Get,
}

/// Requests since the mount began.
#[derive(Debug, Default)]
pub struct Counts {
    list: AtomicU64,
    get: AtomicU64,
    failed: AtomicU64,
    again: AtomicU64,
    bytes: AtomicU64,
    cached_bytes: AtomicU64,
}

impl Counts {
    /// One is made.
    pub fn request(&self, purpose: Purpose) {
        let counter = match purpose {
            Purpose::List => &self.list,
            Purpose::Get => &self.get,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One did not do what it was for.
    pub fn failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// It is made again.
    pub fn retry(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes of objects came.
    pub fn got(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of objects were in the cache.
    pub fn cached(&self, bytes: u64) {
        self.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many there were of a kind.
    pub fn of(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::List => self.list.load(Ordering::Relaxed),
            Purpose::Get => self.get.load(Ordering::Relaxed),
        }
    }

    /// All of them, as `status` shows them.
    pub fn json(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "list": count(&self.list),
            "get": count(&self.get),
            "failed": count(&self.failed),
            "retried": count(&self.again),
            "bytes": count(&self.bytes),
            "cached_bytes": count(&self.cached_bytes),
        })
    }
}
