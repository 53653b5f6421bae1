//! Requests to one bucket: their addresses, their signatures, and what comes of them.
//!
//! Listing and reading go through here rather than through `ObjectStore`: that has no page of a listing with odd keys in
//! it, and no `If-Match` with the answer's headers beside. Credentials, signatures and connections are `object_store`'s.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use http::{HeaderMap, HeaderName, Method, Request};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpRequestBody, HttpResponse};
use object_store::gcp::GcpCredentialProvider;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;
use url::Url;

use super::connect::{ConnectError, Protocol, Remote, connect};
use super::count::{Counts, Purpose};
use super::credentials::environment::Environment;
use super::credentials::{Renew, sorted};
use super::fault::{Fault, FaultKind, TEXT_BYTES};
use super::location::options::Options;
use super::location::{Location, Store};

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
enum Auth {
    /// Nobody, or the client itself.
    None,
    /// As S3 has it: keys, the bucket's region, and whether whoever asks pays.
    Aws(AwsCredentialProvider, String, bool),
    /// With a token.
    Gcp(GcpCredentialProvider),
    /// As Azure has it: key, signature or token, and the account.
    Azure(AzureCredentialProvider, String),
}

/// Where a bucket is and who signs; found out with the first request.
#[derive(Debug)]
struct Place {
    http: HttpClient,
    /// The address of the bucket, without a slash at its end.
    base: String,
    auth: Auth,
    /// Google's: stored packed, objects are unpacked for those who do not say that they can.
    unpacks: bool,
    renewal: Option<Arc<dyn Renew>>,
}

impl Place {
    fn of(remote: Remote) -> Result<Self, Fault> {
        let below = |url: &Url, name: &str| format!("{}/{name}", url.as_str().trim_end_matches('/'));
        let place = |http, base, auth| Self { http, base, auth, unpacks: false, renewal: remote.renewal };
        Ok(match remote.protocol {
            Protocol::S3 { bucket_url, region, credentials, request_payer, client } => {
                let auth = credentials.map_or(Auth::None, |keys| Auth::Aws(keys, region, request_payer));
                place(client, bucket_url.as_str().trim_end_matches('/').to_owned(), auth)
            }
            Protocol::Google { base_url, bucket, credentials, client } => {
                let auth = credentials.map_or(Auth::None, Auth::Gcp);
                Self { unpacks: true, ..place(client, below(&base_url, &bucket), auth) }
            }
            Protocol::Azure { service_url, account, container, credentials, client } => {
                let auth = credentials.map_or(Auth::None, |keys| Auth::Azure(keys, account));
                place(client, below(&service_url, &container), auth)
            }
            Protocol::WebDav { origin, client } => {
                place(client, origin.as_str().trim_end_matches('/').to_owned(), Auth::None)
            }
            Protocol::Memory(_) => return Err(Fault::new(FaultKind::Refused, "stores in memory are for tests")),
        })
    }
}

/// Whoever makes requests to one bucket.
#[derive(Debug)]
pub struct Client {
    location: Location,
    options: Options,
    environment: Environment,
    place: OnceCell<Place>,
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

#[cfg(test)]
impl Client {
    /// Of the bucket `b` of a server that speaks S3.
    pub(super) fn of_server(url: &str) -> Self {
        Self::of_server_as(url, "s3://b")
    }

    /// The same for any kind of store.
    pub(super) fn of_server_as(url: &str, location: &str) -> Self {
        let location = Location::parse(location).expect("a location");
        let options = Options::parse(&location.store, [("endpoint", url), ("skip_signature", "true")]);
        Self::new(location, options.expect("options"), Environment::of([]))
    }
}

impl Client {
    /// Of a location, with options of the user; nothing is asked yet.
    pub fn new(location: Location, options: Options, environment: Environment) -> Self {
        Self { location, options, environment, place: OnceCell::new(), counts: Counts::default() }
    }

    async fn open(&self) -> Result<Place, Fault> {
        if matches!(self.location.store, Store::S3 { .. }) {
            // A page of one key: it tells the region, and whether there is such a bucket.
            self.counts.request(Purpose::List);
        }
        let remote = connect(&self.location, &self.options, &self.environment).await;
        remote.map_err(|error| of_connect(&error)).and_then(Place::of).inspect_err(|_| self.counts.failure())
    }

    /// Makes a request once, but for a second time with new credentials where the old ones are refused.
    pub(super) async fn send(&self, asked: &Asked<'_>) -> Result<HttpResponse, Fault> {
        let place = self.place.get_or_try_init(|| self.open()).await?;
        let generation = place.renewal.as_ref().map(|renewal| renewal.generation());
        match (self.send_once(place, asked).await, &place.renewal, generation) {
            (Err(fault), Some(renewal), Some(generation))
                if matches!(fault.kind, FaultKind::Expired | FaultKind::Denied) =>
            {
                // They may be other ones by now, where somebody renews them.
                if renewal.renew(generation).await { self.send_once(place, asked).await } else { Err(fault) }
            }
            (other, ..) => other,
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
        let encoding = if place.unpacks { "gzip" } else { "identity" };
        request = request.header(ACCEPT_ENCODING, encoding);
        let mut request = request
            .body(HttpRequestBody::empty())
            .map_err(|error| Fault::new(FaultKind::Refused, error.to_string()))?;
        sign(&place.auth, &mut request).await?;
        let answer = place.http.execute(request).await.map_err(|error| Fault::of_connection(&error))?;
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
    match auth {
        Auth::None => {}
        Auth::Aws(keys, region, request_payer) => {
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
        Auth::Azure(keys, account) => {
            let keys = keys.get_credential().await.map_err(lacking)?;
            AzureAuthorizer::new(&keys, account).try_authorize(request).map_err(lacking)?;
        }
    }
    Ok(())
}

/// Credentials that are not to be had.
fn lacking(error: object_store::Error) -> Fault {
    let error = sorted("the store's own", error);
    of_connect(&ConnectError::from(error))
}

/// What there is no connection for.
fn of_connect(error: &ConnectError) -> Fault {
    let kind = match error {
        ConnectError::Credentials(error) if error.is_away() => FaultKind::Unreachable,
        ConnectError::Credentials(_) => FaultKind::NoCredentials,
        ConnectError::Setting { .. } => FaultKind::Refused,
        ConnectError::NoBucket { .. } => FaultKind::NoBucket,
        ConnectError::Denied { .. } => FaultKind::Denied,
        ConnectError::Unreachable { .. } => FaultKind::Unreachable,
    };
    Fault::new(kind, error.to_string())
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
    match (bare, weak) {
        ("", _) => None,
        (bare, "") => Some(bare.into()),
        (bare, weak) => Some(format!("{weak}{bare}").into()),
    }
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
