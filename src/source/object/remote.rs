//! A bucket as [`ObjectSource`](super::ObjectSource) needs it: listed, and read from.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use serde_json::Value;

use super::client::{Asked, Client, etag, header, time};
use super::connect::{ConnectError, identity, runtime};
use super::count::Purpose;
use super::credentials::environment::Environment;
use super::fault::{Fault, FaultKind};
use super::keys::{Left, Scope};
use super::list::list;
use super::location::Location;
use super::location::options::Options;
use super::read::{Engine, Reader, Remote};
use super::snapshot::{About, Meta, Snapshot, Writer};
use super::tree::{ReadObject, Store};

/// How long it is waited for what an object is now.
const LOOK: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct RemoteStore {
    location: Location,
    /// With all that tells it from others.
    text: Box<[u8]>,
    scope: Scope,
    client: Arc<Client>,
    engine: Arc<Engine>,
    remote: Arc<Remote>,
}

impl RemoteStore {
    /// What is at a location, as far as it is in `scope`; `scoped` tells that one from others. Nothing is asked yet.
    ///
    /// # Errors
    /// If it is not known where that is.
    pub fn new(
        location: Location,
        options: Options,
        (scope, scoped): (Scope, &str),
        engine: Arc<Engine>,
    ) -> Result<Self, ConnectError> {
        let environment = Environment::of_process();
        let bucket = identity(&location, &options, &environment)?;
        let text = format!("{bucket} {scoped}").trim_end().as_bytes().into();
        let client = Arc::new(Client::new(location.clone(), options, environment));
        let remote = Remote::new(Arc::clone(&client), bucket.as_bytes());
        Ok(Self { location, text, scope, client, engine, remote })
    }

    fn key(&self, path: &[u8]) -> String {
        // Keys are text: others are not in a listing.
        let path = String::from_utf8_lossy(path);
        self.location.key_prefix() + &path
    }
}

impl Store for RemoteStore {
    fn location(&self) -> &[u8] {
        &self.text
    }

    fn list(&self, into: Writer, cancelled: &AtomicBool) -> io::Result<Snapshot> {
        let (listed, left) = (SystemTime::now(), Left::default());
        let listing = list(&self.client, &self.location, &self.scope, (&into, &left), cancelled);
        let objects = runtime().block_on(listing)?.objects;
        tracing::debug!(location = %self.location, objects, "listed");
        into.finish(About { location: self.text.clone(), listed, left_out: left.count(), named: left.named() })
    }

    fn open(&self, path: &[u8], meta: &Meta) -> Arc<dyn ReadObject> {
        Arc::new(Reader::new(&self.engine, &self.remote, self.key(path), meta))
    }

    fn look_again(&self, path: &[u8], listed: &Meta) -> io::Result<Option<Meta>> {
        let key = self.key(path);
        if !self.remote.was_replaced(&key) {
            return Ok(None);
        }
        let asked =
            Asked { purpose: Purpose::Get, method: Method::HEAD, path: &key, query: Vec::new(), headers: Vec::new() };
        // Whoever opens a file waits for it, and with it one of the threads that answer.
        let answer = runtime().block_on(async { tokio::time::timeout(LOOK, self.client.send(&asked)).await });
        let answer = answer.map_err(|_| Fault::new(FaultKind::TimedOut, "what it is now is not said"))??;
        let header = |name| header(answer.headers(), name);
        let size = header(CONTENT_LENGTH).and_then(|size| size.trim().parse().ok());
        let size = size.ok_or_else(|| Fault::new(FaultKind::Malformed, "an object without a size"))?;
        let modified = header(LAST_MODIFIED).and_then(time).unwrap_or(listed.modified);
        let now = Meta { size, modified, etag: header(ETAG).and_then(etag), version: None, ..listed.clone() };
        self.remote.note_current(&key);
        Ok(Some(now))
    }

    fn requests(&self) -> Value {
        let mut value = self.client.counts.json();
        value["memory_bytes"] = self.engine.memory_in_use().into();
        if let Some(cache) = self.engine.cache() {
            value["cache_bytes"] = cache.bytes().into();
        }
        value
    }
}
