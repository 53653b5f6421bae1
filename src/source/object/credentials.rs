//! Credentials of object stores, found as each cloud's own tools find them, and kept fresh.
//!
//! - [`aws`]: environment, configuration files (keys, roles, SSO, processes), containers and instances
//! - [`google`], [`azure`]: what object_store's builders find, with a quick look first at whether there is anything
//! - [`netrc`]: names and passwords for WebDAV
//! - [`environment`]: environment variables as a value; [`web`]: small requests, bounded in time
//!
//! Model: an [`Origin`] is a place to get credentials from, looked at anew each time, so that files and tokens may rotate.
//! A [`Rotating`] provider keeps what it got until shortly before it expires. A store that refuses credentials says so by
//! [`Renew::renew`]; they are got again, and whoever was refused tries once more if they are others by now.
//!
//! Invariants: secrets are in no message, no log and no `Debug`; none is ever written but a refreshed SSO token, where
//! AWS's own tools keep it. Each look is bounded in time: with no credentials at all the error comes within two seconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use object_store::CredentialProvider;
use parking_lot::RwLock;

pub mod aws;
pub mod azure;
pub mod environment;
pub mod google;
pub mod netrc;
pub mod web;

/// Credentials are got anew this long before they expire, or when three quarters of their time are over if that is less.
const MARGIN: Duration = Duration::from_secs(300);
/// A store that keeps refusing does not make us ask for credentials more often than this.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// How long it is not tried again where there were none: each read would ask anew.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Nowhere are any.
    #[error("no credentials for {cloud} (looked at {}); {cure}", looked.join("; "))]
    Missing {
        /// The cloud.
        cloud: &'static str,
        /// The places, and what was there.
        looked: Vec<String>,
        /// What to do.
        cure: String,
    },
    /// What is configured cannot work.
    #[error("{what}: {reason}")]
    Configured {
        /// The profile, file or variable.
        what: String,
        /// What is wrong with it, and the cure.
        reason: String,
    },
    /// A file that is there and cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What had been given for a time, and is over.
    #[error("{what} has expired; {cure}")]
    Expired {
        /// What.
        what: String,
        /// The command that gets it anew.
        cure: String,
    },
    /// A service that gives credentials refused to.
    #[error("{by} gives no credentials: {reason}")]
    Refused {
        /// The service.
        by: String,
        /// Its words.
        reason: String,
    },
    /// A service that gives credentials did not answer, or not sensibly: it may later.
    #[error("{by} does not answer: {reason}")]
    Unreachable {
        /// The service.
        by: String,
        /// Why.
        reason: String,
    },
}

impl CredentialError {
    /// Whether it may be otherwise later with nobody doing anything.
    pub fn is_away(&self) -> bool {
        matches!(self, CredentialError::Unreachable { .. })
    }
}

/// As object_store's requests fail with it: unauthenticated, unless it may pass.
fn for_store(error: Arc<CredentialError>) -> object_store::Error {
    if error.is_away() {
        return object_store::Error::Generic { store: "credentials", source: Box::new(error) };
    }
    object_store::Error::Unauthenticated { path: String::new(), source: Box::new(error) }
}

/// Credentials, and when they end to be good.
#[derive(Clone)]
pub struct Fetched<T> {
    /// The credentials.
    pub credential: Arc<T>,
    /// None if nobody knows, or never.
    pub expires: Option<SystemTime>,
}

/// A place to get credentials from.
#[async_trait]
pub trait Origin<T>: Send + Sync {
    /// Looks anew.
    async fn fetch(&self) -> Result<Fetched<T>, CredentialError>;
}

/// What is told when a store refuses credentials.
#[async_trait]
pub trait Renew: Send + Sync + std::fmt::Debug {
    /// A number that grows whenever the credentials become others. Take it before a request.
    fn generation(&self) -> u64;

    /// A request made in a generation was refused (401, 403, or `ExpiredToken`): gets the credentials anew, though not
    /// every time if it happens often. Whether they are others now, and the request is worth another try.
    async fn renew(&self, refused: u64) -> bool;
}

/// Credentials of an origin, got anew shortly before they expire and after they were refused.
pub struct Rotating<T> {
    origin: Box<dyn Origin<T>>,
    current: RwLock<Option<Held<T>>>,
    generation: AtomicU64,
    /// Held while credentials are got.
    fetching: tokio::sync::Mutex<Asked>,
}

/// How it went lately.
#[derive(Default)]
struct Asked {
    /// When credentials were got because others had been refused.
    renewed: Option<Instant>,
    /// When and why there were none.
    failed: Option<(Instant, Arc<CredentialError>)>,
}

struct Held<T> {
    fetched: Fetched<T>,
    /// When it is time to get others.
    stale: Option<SystemTime>,
}

impl<T> std::fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotating").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl<T: PartialEq + Send + Sync> Rotating<T> {
    /// Nothing is looked at yet.
    pub fn new(origin: impl Origin<T> + 'static) -> Arc<Rotating<T>> {
        Arc::new(Rotating {
            origin: Box::new(origin),
            current: RwLock::new(None),
            generation: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// The credentials.
    ///
    /// # Errors
    /// Why there are none; for a moment the same again, without another look. Those that still are good are given though
    /// no others can be got.
    pub async fn get(&self) -> Result<Arc<T>, Arc<CredentialError>> {
        let usable = match self.held(SystemTime::now()) {
            Some((credential, true)) => return Ok(credential),
            Some((credential, false)) => Some(credential),
            None => None,
        };
        // Who finds good ones does not wait for others.
        let mut asked = match (&usable, self.fetching.try_lock()) {
            (_, Ok(alone)) => alone,
            (Some(credential), Err(_)) => return Ok(Arc::clone(credential)),
            (None, Err(_)) => self.fetching.lock().await,
        };
        if let Some((credential, true)) = self.held(SystemTime::now()) {
            return Ok(credential);
        }
        if let Some((_, error)) =
            asked.failed.as_ref().filter(|(at, _)| usable.is_none() && at.elapsed() < FAILURE_PAUSE)
        {
            return Err(Arc::clone(error));
        }
        match (self.origin.fetch().await, usable) {
            (Ok(fetched), _) => {
                asked.failed = None;
                Ok(self.hold(fetched))
            }
            (Err(error), Some(credential)) => {
                tracing::warn!("credentials are about to expire, and no others come: {error}");
                self.rest();
                Ok(credential)
            }
            (Err(error), None) => {
                let error = Arc::new(error);
                asked.failed = Some((Instant::now(), Arc::clone(&error)));
                Err(error)
            }
        }
    }

    /// What is held and still good, and whether it is good for a while.
    fn held(&self, now: SystemTime) -> Option<(Arc<T>, bool)> {
        let current = self.current.read();
        let held = current.as_ref().filter(|held| held.fetched.expires.is_none_or(|end| now < end))?;
        Some((Arc::clone(&held.fetched.credential), held.stale.is_none_or(|stale| now < stale)))
    }

    fn hold(&self, fetched: Fetched<T>) -> Arc<T> {
        let credential = Arc::clone(&fetched.credential);
        let mut current = self.current.write();
        if current.as_ref().is_none_or(|held| held.fetched.credential != credential) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        let stale = fetched.expires.map(|end| {
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            end - MARGIN.min(left / 4)
        });
        *current = Some(Held { fetched, stale });
        credential
    }

    /// What is held is not got anew for a moment, as that just failed.
    fn rest(&self) {
        if let Some(held) = self.current.write().as_mut() {
            held.stale = Some(SystemTime::now() + RENEWAL_PAUSE);
        }
    }
}

#[async_trait]
impl<T: PartialEq + Send + Sync> CredentialProvider for Rotating<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        self.get().await.map_err(for_store)
    }
}

#[async_trait]
impl<T: PartialEq + Send + Sync> Renew for Rotating<T> {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    async fn renew(&self, refused: u64) -> bool {
        let mut asked = self.fetching.lock().await;
        if self.generation() != refused {
            return true;
        }
        if asked.renewed.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE) {
            return false;
        }
        match self.origin.fetch().await {
            Ok(fetched) => {
                self.hold(fetched);
            }
            Err(error) => tracing::warn!("credentials were refused, and no others come: {error}"),
        }
        asked.renewed = Some(Instant::now());
        self.generation() != refused
    }
}

/// What object_store's builders find: a provider that is opened anew after its credentials were refused, as it keeps
/// them itself, and reads files only when it is made.
pub struct Reopened<T> {
    open: Box<dyn Fn() -> Result<Provider<T>, CredentialError> + Send + Sync>,
    current: RwLock<Provider<T>>,
    generation: AtomicU64,
    renewing: tokio::sync::Mutex<Option<Instant>>,
}

/// Any provider of credentials.
pub type Provider<T> = Arc<dyn CredentialProvider<Credential = T>>;

impl<T> std::fmt::Debug for Reopened<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reopened").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl<T> Reopened<T> {
    /// Opens it for the first time.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn new(
        open: impl Fn() -> Result<Provider<T>, CredentialError> + Send + Sync + 'static,
    ) -> Result<Arc<Reopened<T>>, CredentialError> {
        let current = RwLock::new(open()?);
        Ok(Arc::new(Reopened {
            open: Box::new(open),
            current,
            generation: AtomicU64::new(0),
            renewing: tokio::sync::Mutex::default(),
        }))
    }

    fn provider(&self) -> Provider<T> {
        Arc::clone(&self.current.read())
    }
}

#[async_trait]
impl<T: Send + Sync> CredentialProvider for Reopened<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        self.provider().get_credential().await
    }
}

#[async_trait]
impl<T: PartialEq + Send + Sync> Renew for Reopened<T> {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    async fn renew(&self, refused: u64) -> bool {
        let mut last = self.renewing.lock().await;
        if self.generation() != refused {
            return true;
        }
        if last.is_some_and(|last| last.elapsed() < RENEWAL_PAUSE) {
            return false;
        }
        *last = Some(Instant::now());
        let before = self.get_credential().await.ok();
        let fresh = match (self.open)() {
            Ok(provider) => provider,
            Err(error) => {
                tracing::warn!("credentials were refused, and no others come: {error}");
                return false;
            }
        };
        let after = fresh.get_credential().await.ok();
        if after.is_none() || before == after {
            return false;
        }
        *self.current.write() = fresh;
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }
}

/// What object_store's own providers say, sorted into what may pass and what does not.
pub(crate) fn sorted(by: &str, error: object_store::Error) -> CredentialError {
    let reason = error.to_string();
    let by = by.to_owned();
    if reason.contains("non-2xx status code: 4") {
        CredentialError::Refused { by, reason }
    } else if reason.contains("Error performing") {
        CredentialError::Unreachable { by, reason }
    } else {
        CredentialError::Configured { what: by, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Credentials with numbers as their values, from a script of (value, seconds to live).
    struct Script(Vec<Option<(u32, u64)>>, Arc<AtomicUsize>);

    #[async_trait]
    impl Origin<u32> for Script {
        async fn fetch(&self) -> Result<Fetched<u32>, CredentialError> {
            let at = self.1.fetch_add(1, Ordering::SeqCst);
            match self.0[at.min(self.0.len() - 1)] {
                Some((value, seconds)) => Ok(Fetched {
                    credential: Arc::new(value),
                    expires: Some(SystemTime::now() + Duration::from_secs(seconds)),
                }),
                None => Err(CredentialError::Unreachable { by: "the test".into(), reason: "as scripted".into() }),
            }
        }
    }

    fn rotating(script: &[Option<(u32, u64)>]) -> (Arc<Rotating<u32>>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        (Rotating::new(Script(script.to_vec(), Arc::clone(&asked))), asked)
    }

    fn run<F: Future>(future: F) -> F::Output {
        crate::source::object::connect::runtime().block_on(future)
    }

    #[test]
    fn credentials_are_kept_until_shortly_before_they_expire() {
        let (rotating, asked) = rotating(&[Some((1, 3600)), Some((2, 3600))]);
        run(async {
            for _ in 0..3 {
                assert_eq!(*rotating.get().await.expect("scripted"), 1);
            }
            assert_eq!((asked.load(Ordering::SeqCst), rotating.generation()), (1, 1));
            let nearly = rotating.current.read().as_ref().and_then(|held| held.stale).expect("they expire");
            assert!(rotating.held(nearly).is_some_and(|(_, fresh)| !fresh), "good, and to be replaced");
            rotating.current.write().as_mut().expect("held").stale = Some(SystemTime::UNIX_EPOCH);
            assert_eq!(*rotating.get().await.expect("scripted"), 2);
            assert_eq!(rotating.generation(), 2);
        });
    }

    #[test]
    fn good_ones_serve_while_no_others_come() {
        let (rotating, asked) = rotating(&[Some((1, 3600)), None]);
        run(async {
            rotating.get().await.expect("scripted");
            rotating.current.write().as_mut().expect("held").stale = Some(SystemTime::UNIX_EPOCH);
            for _ in 0..3 {
                assert_eq!(*rotating.get().await.expect("still good"), 1);
            }
            assert_eq!(asked.load(Ordering::SeqCst), 2, "not asked at each request");
            rotating.current.write().as_mut().expect("held").fetched.expires = Some(SystemTime::UNIX_EPOCH);
            assert!(rotating.get().await.expect_err("expired").is_away());
        });
    }

    #[test]
    fn refused_credentials_are_got_anew_and_not_too_often() {
        let (rotating, asked) = rotating(&[Some((1, 3600)), Some((2, 3600)), Some((2, 3600))]);
        run(async {
            rotating.get().await.expect("scripted");
            let before = rotating.generation();
            assert!(rotating.renew(before).await);
            assert!(rotating.renew(before).await, "one that was refused at the same time tries again, too");
            assert_eq!(*rotating.get().await.expect("scripted"), 2);
            assert!(!rotating.renew(rotating.generation()).await, "a store that refuses all");
            assert_eq!(asked.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn many_at_once_ask_once() {
        let (rotating, asked) = rotating(&[Some((1, 3600))]);
        run(async {
            let all: Vec<_> = (0..16)
                .map(|_| {
                    let rotating = Arc::clone(&rotating);
                    tokio::spawn(async move { rotating.get().await.map(|value| *value).ok() })
                })
                .collect();
            for one in all {
                assert_eq!(one.await.expect("no panic"), Some(1));
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
