//! Connecting to S3: the bucket's URL, its region, and a first request that says what is wrong.
//!
//! A region is only guessed from the configuration, as a bucket may be in any. The first request is a listing of one key,
//! signed for the guess; the answer says where the bucket is if it is elsewhere, in a header or in words (a bare 301,
//! or 400 `AuthorizationHeaderMalformed`), and if not, S3 says so to whoever asks for the bucket's head.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest};
use url::Url;
use url::form_urlencoded::Serializer;

use super::{ConnectError, Parts, Protocol, http};
use crate::source::object::credentials::aws::{Aws, Settings, profiles, sts};
use crate::source::object::credentials::environment::Environment;
use crate::source::object::credentials::web::{Web, request, told};
use crate::source::object::credentials::{Renew, Rotating};
use crate::source::object::location::options::Options;
use crate::source::object::location::{Location, Store};

/// Where every bucket of the main partition is known.
const GLOBAL: &str = "https://s3.amazonaws.com";
/// Where it is said which region a bucket is in.
const REGION_HEADER: &str = "x-amz-bucket-region";
/// A guess, what the answer to it says, and what that answers.
const ATTEMPTS: usize = 3;
/// What the first request may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer answers are no S3's; what is read of them is for people.
const READ_BYTES: usize = 1 << 16;

/// What is known of a bucket before anybody is asked.
struct Place {
    bucket: String,
    /// The service, if it is not AWS's own.
    endpoint: Option<String>,
    region: String,
    /// Whether the bucket's name is in the host.
    in_host: bool,
}

/// The endpoint, if it is not AWS's own: of an option, the location, the environment or the profile.
pub(super) fn custom_endpoint(
    located: Option<&str>,
    options: &Options,
    environment: &Environment,
) -> Result<Option<String>, ConnectError> {
    if let Some(endpoint) = options.get("aws_endpoint").or(located) {
        return Ok(Some(endpoint.trim_end_matches('/').to_owned()));
    }
    let settings = Settings::new(environment, options);
    let profiles = profiles::read(environment)?;
    let found = settings.endpoint(&profiles, "s3").or_else(|| environment.get("AWS_ENDPOINT").map(str::to_owned));
    Ok(found.map(|endpoint| endpoint.trim_end_matches('/').to_owned()))
}

impl Place {
    fn new(
        bucket: &str,
        located: Option<&str>,
        options: &Options,
        environment: &Environment,
    ) -> Result<Place, ConnectError> {
        if bucket.ends_with("--x-s3") {
            let reason = "directory buckets (S3 Express One Zone) are not supported; mount it with mountpoint-s3, and give \
                          the path";
            return Err(ConnectError::setting(bucket, reason));
        }
        let endpoint = custom_endpoint(located, options, environment)?;
        let settings = Settings::new(environment, options);
        let guess = match (options.get("aws_region"), endpoint.as_deref().and_then(region_of)) {
            (Some(region), _) => Some(region.to_owned()),
            (None, Some(region)) => Some(region),
            (None, None) => settings.region(&profiles::read(environment)?),
        };
        let said = options.get("aws_virtual_hosted_style_request");
        let said = said.or_else(|| environment.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"));
        let in_host = match said.and_then(crate::source::object::location::options::truth) {
            Some(said) => said,
            // Certificates are for one label before the service's; old buckets may have letters that hosts do not have.
            None => {
                endpoint.is_none() && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            }
        };
        let region = guess.unwrap_or_else(|| "us-east-1".to_owned());
        Ok(Place { bucket: bucket.to_owned(), endpoint, region, in_host })
    }

    fn service(&self) -> String {
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.{domain}", self.region))
    }

    fn bucket_url(&self) -> Result<Url, ConnectError> {
        let service = self.service();
        let text = match service.split_once("://") {
            // Some give endpoints with the bucket in them.
            Some((_, host)) if self.in_host && host.starts_with(&format!("{}.", self.bucket)) => service,
            Some((scheme, host)) if self.in_host => format!("{scheme}://{}.{host}", self.bucket),
            _ => format!("{service}/{}", self.bucket),
        };
        super::url(&text)
    }

    /// Goes where the bucket is; whether that is news.
    fn move_to(&mut self, region: String, options: &Options) -> bool {
        if region == self.region {
            return false;
        }
        if let Some(given) = options.get("aws_region") {
            tracing::warn!("bucket {} is in {region}, not in {given} as --option region says", self.bucket);
        }
        self.region = region;
        true
    }
}

/// The region in an endpoint of AWS's or R2's.
fn region_of(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    let host = url.host_str()?;
    if host.ends_with(".r2.cloudflarestorage.com") {
        return Some("auto".to_owned());
    }
    let host = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let last = host.rsplit('.').next()?;
    let last = last.strip_prefix("s3-fips-").or_else(|| last.strip_prefix("s3-")).unwrap_or(last);
    Some(last.to_owned()).filter(|region| region.contains('-'))
}

pub(super) async fn connect(
    location: &Location,
    options: &Options,
    environment: &Environment,
) -> Result<Parts, ConnectError> {
    let Store::S3 { bucket, endpoint } = &location.store else { unreachable!("asked for S3's locations alone") };
    let mut place = Place::new(bucket, endpoint.as_deref(), options, environment)?;
    let is_on = |name: &str| super::is_on(name, options, environment);
    // A signature is of no use to who sees it, so an endpoint that says http is enough.
    let allow_http = place.service().starts_with("http:") || is_on("aws_allow_http") || options.is_on("allow_http");
    let client_options = http::client_options(options, allow_http);
    let client = http::connect(&client_options)?;
    let rotating = match is_on("aws_skip_signature") {
        true => None,
        false => Some(Rotating::new(Aws::new(Settings::new(environment, options), Web::new()?))),
    };
    let request_payer = is_on("aws_request_payer");
    let prober = Prober { client: &client, rotating: rotating.as_ref(), request_payer, global: GLOBAL };
    prober.settle(&mut place, &location.key_prefix(), options).await?;

    let bucket_url = place.bucket_url()?;
    let builder = builder(&place, bucket_url.as_str(), options, environment, client_options);
    let (builder, credentials, renewal) = match rotating {
        None => (builder.with_skip_signature(true), None, None),
        Some(rotating) => {
            (builder.with_credentials(rotating.clone()), Some(rotating.clone() as _), Some(rotating as Arc<dyn Renew>))
        }
    };
    let store = builder.build().map_err(ConnectError::from_store)?;
    let protocol = Protocol::S3 { bucket_url, region: place.region, credentials, request_payer, client };
    Ok((Arc::new(store), protocol, renewal))
}

/// A builder with everything but credentials.
fn builder(
    place: &Place,
    bucket_url: &str,
    options: &Options,
    environment: &Environment,
    client_options: ClientOptions,
) -> AmazonS3Builder {
    use AmazonS3ConfigKey::{Checksum, Encryption, RequestPayer, UnsignedPayload};
    let variables = environment.beginning("AWS_").map(|(name, value)| (name.to_ascii_lowercase(), value));
    let given = options.iter().map(|(name, value)| (name.to_owned(), value));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&place.region)
        // With the style that has the bucket in the host, an endpoint is taken as it is.
        .with_endpoint(bucket_url.trim_end_matches('/'))
        .with_virtual_hosted_style_request(true)
        .with_client_options(client_options)
        .with_retry(http::retries());
    for (name, value) in variables.chain(given) {
        if let Ok(key @ (Checksum | Encryption(_) | RequestPayer | UnsignedPayload)) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

/// What an answer to the first request means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// The bucket is in this region.
    Elsewhere(String),
    /// It is in another, and the answer does not say in which.
    SomewhereElse,
    /// Whoever asks may not, or is not known.
    Refused(String),
    NoBucket,
    /// Neither yes nor no.
    Broken(String),
    /// It makes no sense, now or later.
    Wrong(String),
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &str, place: &Place) -> Verdict {
    let is_own = place.endpoint.is_none();
    let said = headers.get(REGION_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let elsewhere = said.filter(|region| *region != place.region && (is_own || !status.is_success()));
    if let Some(region) = elsewhere {
        return Verdict::Elsewhere(region);
    }
    if status.is_success() {
        return match body.contains("ListBucketResult") {
            true => Verdict::Good,
            false => Verdict::Wrong("it answers, but not as S3 does; check the endpoint".to_owned()),
        };
    }
    let code = sts::element(body, "Code").unwrap_or_default();
    let message = sts::element(body, "Message").unwrap_or_default();
    let words = match (code.is_empty(), message.is_empty()) {
        (true, _) => status.to_string(),
        (false, true) => code.clone(),
        (false, false) => format!("{code}: {message}"),
    };
    match (status.as_u16(), code.as_str()) {
        (_, "AuthorizationHeaderMalformed" | "IncorrectEndpoint" | "IllegalLocationConstraintException")
        | (301 | 302 | 307 | 308, _) => match sts::element(body, "Region") {
            Some(region) if region != place.region => Verdict::Elsewhere(region),
            _ if is_own => Verdict::SomewhereElse,
            _ => Verdict::Wrong(words),
        },
        (404, "NoSuchBucket") => Verdict::NoBucket,
        (401 | 403, _) | (400, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "RequestExpired") => {
            Verdict::Refused(words)
        }
        (429 | 500.., _) | (_, "SlowDown") => Verdict::Broken(words),
        _ => Verdict::Wrong(words),
    }
}

/// Asks a bucket for one key.
struct Prober<'a> {
    client: &'a HttpClient,
    rotating: Option<&'a Arc<Rotating<AwsCredential>>>,
    request_payer: bool,
    global: &'a str,
}

impl Prober<'_> {
    /// Asks until the region is right, or it is clear what is wrong.
    async fn settle(&self, place: &mut Place, prefix: &str, options: &Options) -> Result<(), ConnectError> {
        let store = format!("s3://{}", place.bucket);
        for _ in 0..ATTEMPTS {
            let verdict = self.ask(place, prefix).await?;
            tracing::debug!("{store} in {}: {verdict:?}", place.region);
            let region = match verdict {
                Verdict::Good => return Ok(()),
                Verdict::Elsewhere(region) => region,
                Verdict::SomewhereElse => self.discover(place).await?,
                Verdict::Refused(reason) => return Err(self.denied(store, reason)),
                Verdict::NoBucket => return Err(no_bucket(place)),
                Verdict::Broken(reason) => return Err(ConnectError::Unreachable { store, reason }),
                Verdict::Wrong(reason) => return Err(ConnectError::setting(place.bucket_url()?, reason)),
            };
            if !place.move_to(region, options) {
                break;
            }
        }
        let reason = format!("it is not in {}, where it is said to be; give --option region=REGION", place.region);
        Err(ConnectError::setting(store, reason))
    }

    async fn ask(&self, place: &Place, prefix: &str) -> Result<Verdict, ConnectError> {
        let credential = match self.rotating {
            Some(rotating) => Some(rotating.get().await?),
            None => None,
        };
        let mut url = place.bucket_url()?;
        // In a scope of its own: it cannot be kept while an answer is waited for.
        let query = {
            let mut query = Serializer::new(String::new());
            query.append_pair("list-type", "2").append_pair("max-keys", "1").append_pair("prefix", prefix);
            query.finish()
        };
        // Signatures are made of what a blank is in URLs, and not in forms.
        url.set_query(Some(&query.replace('+', "%20")));
        let mut ask = request(Method::GET, url.as_str(), &[], String::new())?;
        if let Some(credential) = credential {
            AwsAuthorizer::new(&credential, "s3", &place.region)
                .with_request_payer(self.request_payer)
                .try_authorize(&mut ask, None)
                .map_err(ConnectError::from_store)?;
        }
        let (status, headers, body) = self.answer(place, ask).await?;
        Ok(judge(status, &headers, &body, place))
    }

    /// The region that S3 says a bucket is in.
    async fn discover(&self, place: &Place) -> Result<String, ConnectError> {
        let head = request(Method::HEAD, &format!("{}/{}", self.global, place.bucket), &[], String::new())?;
        let (status, headers, _) = self.answer(place, head).await?;
        match headers.get(REGION_HEADER).and_then(|value| value.to_str().ok()) {
            Some(region) => Ok(region.to_owned()),
            None if status == StatusCode::NOT_FOUND => Err(no_bucket(place)),
            None => {
                let reason = "it is not told which region it is in; give --option region=REGION";
                Err(ConnectError::setting(format!("s3://{}", place.bucket), reason))
            }
        }
    }

    async fn answer(
        &self,
        place: &Place,
        request: HttpRequest,
    ) -> Result<(StatusCode, HeaderMap, String), ConnectError> {
        let whole = async {
            let (parts, body) = self.client.execute(request).await?.into_parts();
            Ok((parts.status, parts.headers, body.bytes().await?))
        };
        let away = |reason: String| ConnectError::Unreachable {
            store: format!("{} at {}", place.bucket, place.service()),
            reason,
        };
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(Ok((status, headers, body))) => {
                let read = &body[..body.len().min(READ_BYTES)];
                Ok((status, headers, String::from_utf8_lossy(read).into_owned()))
            }
            Ok(Err(error)) => Err(away(told(&error))),
            Err(_) => Err(away(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    fn denied(&self, store: String, reason: String) -> ConnectError {
        let cure = match self.rotating {
            None => "it is not public: leave out skip_signature, and give credentials",
            Some(_) => {
                "the credentials need s3:ListBucket on the bucket and s3:GetObject on its objects; others are \
                        chosen by --option profile=NAME, and public buckets want --option skip_signature=true"
            }
        };
        ConnectError::Denied { store, reason, cure }
    }
}

fn no_bucket(place: &Place) -> ConnectError {
    let (endpoint, is_custom) = (place.service(), place.endpoint.is_some());
    ConnectError::NoBucket { bucket: place.bucket.clone(), endpoint, is_custom }
}

#[cfg(test)]
mod tests;
