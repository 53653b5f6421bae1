//! Requests to one bucket: their addresses, their signatures, and what comes of them.
//!
//! Listing and reading go through here rather than through `ObjectStore`: that has no page of a listing with odd keys in
//! it, and no `If-Match` with the answer's headers beside. Credentials, signatures and connections are `object_store`'s.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use http::{HeaderMap, HeaderName, Method, Request};
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::azure::{AzureAuthorizer, AzureCredential};
use object_store::client::{HttpClient, HttpRequestBody, HttpResponse};
use object_store::gcp::GcpCredential;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;

use super::count::{Counts, Purpose};
use super::fault::{Fault, FaultKind, TEXT_BYTES};

/// What is not encoded (RFC 3986, unreserved characters).
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');
/// The shortest and longest rest before something is tried again.
const RESTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A path as it stands in an address.
pub(super) fn encoded_path(path: &str) -> String {
    utf8_percent_encode(path, IN_PATH).to_string()
}

/// Whoever signs requests.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nobody.
    Anonymous,
    /// As S3 has it.
    Aws {
        /// The keys.
        keys: Arc<dyn CredentialProvider<Credential = AwsCredential>>,
        /// The bucket's region.
        region: String,
        /// The keys come from files or programs, which may have others by now.
        renews: Option<Arc<super::aws::Profile>>,
        /// Whoever asks pays.
        request_payer: bool,
    },
    /// With a token.
    Gcp(Arc<dyn CredentialProvider<Credential = GcpCredential>>),
    /// As Azure has it.
    Azure {
        /// The key, signature or token.
        keys: Arc<dyn CredentialProvider<Credential = AzureCredential>>,
        /// The account.
        account: String,
    },
    /// With a user's name and password (RFC 7617).
    Basic(HeaderValue),
}

/// Where a bucket is and who signs; found out with the first request.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address of the bucket, without a slash at its end.
    pub base: String,
    /// Who signs.
    pub auth: Auth,
}

/// Finds out where a bucket is.
#[async_trait::async_trait]
pub trait Locate: Send + Sync + std::fmt::Debug {
    /// Where it is, with the first request.
    async fn locate(&self, http: &HttpClient, counts: &Counts) -> Result<Place, Fault>;
}

/// Whoever makes requests to one bucket.
#[derive(Debug)]
pub struct Client {
    http: HttpClient,
    place: OnceCell<Place>,
    locate: Box<dyn Locate>,
    /// What was asked for.
    pub counts: Counts,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) purpose: Purpose,
    pub(super) method: Method,
    /// Below the bucket, not encoded.
    pub(super) path: &'a str,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(HeaderName, String)>,
}

impl Client {
    pub(super) fn new(http: HttpClient, locate: Box<dyn Locate>) -> Self {
        Self { http, place: OnceCell::new(), locate, counts: Counts::default() }
    }

    /// Makes a request once, but for a second time with new credentials where the old ones have expired.
    pub(super) async fn send(&self, asked: &Asked<'_>) -> Result<HttpResponse, Fault> {
        let place = self.place.get_or_try_init(|| self.locate.locate(&self.http, &self.counts)).await?;
        match self.send_once(place, asked).await {
            Err(fault) if matches!(fault.kind, FaultKind::Expired | FaultKind::Denied) => match &place.auth {
                // They may be other ones by now, where somebody renews them.
                Auth::Aws { renews: Some(profile), .. } if profile.forget() => self.send_once(place, asked).await,
                _ => Err(fault),
            },
            other => other,
        }
    }

    async fn send_once(&self, place: &Place, asked: &Asked<'_>) -> Result<HttpResponse, Fault> {
        self.counts.request(asked.purpose);
        let answer = self.exchange(place, asked).await;
        if answer.is_err() {
            self.counts.failure();
        }
        answer
    }

    async fn exchange(&self, place: &Place, asked: &Asked<'_>) -> Result<HttpResponse, Fault> {
        let mut address = place.base.clone();
        if !asked.path.is_empty() {
            address.push('/');
            address.push_str(&encoded_path(asked.path));
        }
        for (at, (key, value)) in asked.query.iter().enumerate() {
            address.push(if at == 0 { '?' } else { '&' });
            address.push_str(&format!("{key}={}", utf8_percent_encode(value, IN_QUERY)));
        }
        let mut request = Request::builder().method(asked.method.clone()).uri(address);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        // Bytes as they are stored: unpacked ones would have other offsets. Google unpacks for those who do not say that
        // they can.
        let encoding = if matches!(place.auth, Auth::Gcp(_)) { "gzip" } else { "identity" };
        request = request.header(ACCEPT_ENCODING, encoding);
        let mut request = request
            .body(HttpRequestBody::empty())
            .map_err(|error| Fault::new(FaultKind::Refused, error.to_string()))?;
        sign(&place.auth, &mut request).await?;
        let answer = self.http.execute(request).await.map_err(|error| Fault::of_connection(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let text = beginning(body.bytes_stream()).await;
        Err(Fault::of_answer(parts.status, &parts.headers, &text))
    }
}

/// Signs a request.
async fn sign(auth: &Auth, request: &mut Request<HttpRequestBody>) -> Result<(), Fault> {
    let lacking = |error: object_store::Error| {
        // A profile tells by a fault of its own what is the matter.
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = source {
            if let Some(fault) = inner.downcast_ref::<Fault>() {
                return fault.clone();
            }
            source = inner.source();
        }
        Fault::new(FaultKind::NoCredentials, super::fault::whole(&error))
    };
    match auth {
        Auth::Anonymous => {}
        Auth::Aws { keys, region, request_payer, .. } => {
            let keys = keys.get_credential().await.map_err(lacking)?;
            let signer = AwsAuthorizer::new(&keys, "s3", region).with_request_payer(*request_payer);
            signer.try_authorize(request, None).map_err(lacking)?;
        }
        Auth::Gcp(keys) => {
            let keys = keys.get_credential().await.map_err(lacking)?;
            let bearer = HeaderValue::try_from(format!("Bearer {}", keys.bearer));
            let bearer = bearer.map_err(|_| Fault::new(FaultKind::NoCredentials, "the token is no header"))?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        Auth::Azure { keys, account } => {
            let keys = keys.get_credential().await.map_err(lacking)?;
            AzureAuthorizer::new(&keys, account).try_authorize(request).map_err(lacking)?;
        }
        Auth::Basic(value) => {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
    }
    Ok(())
}

/// The first bytes of the text of an error.
async fn beginning<S>(mut body: S) -> Vec<u8>
where
    S: futures_util::Stream<Item = Result<bytes::Bytes, object_store::client::HttpError>> + Unpin,
{
    let mut text = Vec::new();
    while let Some(Ok(more)) = body.next().await {
        text.extend_from_slice(&more);
        if text.len() >= TEXT_BYTES {
            break;
        }
    }
    text
}

/// A header's value, if it is text.
pub(super) fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An ETag without its quotes; a weak one keeps its mark.
pub(super) fn etag(text: &str) -> Option<Box<str>> {
    let text = text.trim();
    let (weak, bare) = text.strip_prefix("W/").map_or(("", text), |bare| ("W/", bare));
    let bare = bare.strip_prefix('"').and_then(|bare| bare.strip_suffix('"')).unwrap_or(bare);
    (!bare.is_empty()).then(|| format!("{weak}{bare}").into())
}

/// A time, in either of the forms that stores have (RFC 3339, RFC 9110): seconds and nanoseconds.
pub(super) fn time(text: &str) -> Option<(i64, u32)> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text).or_else(|_| chrono::DateTime::parse_from_rfc2822(text));
    parsed.ok().map(|time| (time.timestamp(), time.timestamp_subsec_nanos()))
}

/// How long to rest before something is tried once more, by chance, so that many do not come at once.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    limit: Duration,
    tries: u32,
}

impl Patience {
    /// Things are tried again until nothing has come of it for so long.
    pub(super) fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit, tries: 0 }
    }

    /// Something came of it.
    pub(super) fn progress(&mut self) {
        self.begun = Instant::now();
        self.tries = 0;
    }

    /// Rests; false if there is no more patience.
    pub(super) async fn rest(&mut self) -> bool {
        let most = RESTS.1.min(RESTS.0 * 2u32.saturating_pow(self.tries.min(10)));
        let chance = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let rest = most / 2 + (most / 2).mul_f64(f64::from(chance % 1000) / 1000.0);
        if self.begun.elapsed() + rest > self.limit {
            return false;
        }
        self.tries += 1;
        tokio::time::sleep(rest).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_and_times() {
        for (text, wanted) in
            [("\"a\"", Some("a")), ("a", Some("a")), ("W/\"a\"", Some("W/a")), ("\"\"", None), ("", None)]
        {
            assert_eq!(etag(text).as_deref(), wanted, "{text}");
        }
        assert_eq!(time("2026-11-26T10:20:30.500Z"), Some((1_795_688_430, 500_000_000)));
        assert_eq!(time("Thu, 26 Nov 2026 10:20:30 GMT"), Some((1_795_688_430, 0)));
        assert_eq!(time("yesterday"), None);
    }
}
