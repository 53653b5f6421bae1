//! Small requests to services that give credentials: bounded in time, tried again where that helps.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use object_store::client::{HttpClient, HttpErrorKind, HttpRequest, HttpRequestBody};

use super::CredentialError;
use crate::source::object::connect::http::{agent, install_tls};

/// What a service on the network has to answer within.
const NETWORK: Duration = Duration::from_secs(10);
/// What a service of the machine (instance metadata) has to answer within; where there is none, nothing answers at all.
pub const MACHINE: Duration = Duration::from_secs(1);
/// How often a request is made at most that fails for reasons that pass.
const ATTEMPTS: u32 = 3;
/// An answer that is longer is none of these services'.
const LONGEST_ANSWER_BYTES: usize = 1 << 20;

/// Clients for such requests.
#[derive(Clone, Debug)]
pub struct Web {
    /// Through a proxy if one is configured.
    network: HttpClient,
    /// Through none: link-local and loopback addresses.
    machine: HttpClient,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All of the body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, for people.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Web {
    /// Makes no connection yet.
    ///
    /// # Errors
    /// What keeps TLS from working, such as certificates that cannot be read.
    pub fn new() -> Result<Web, CredentialError> {
        install_tls();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(agent())
                .connect_timeout(Duration::from_secs(5))
                .redirect(reqwest::redirect::Policy::none())
        };
        let failed = |error: reqwest::Error| CredentialError::Configured {
            what: "HTTP client".to_owned(),
            reason: error.to_string(),
        };
        Ok(Web {
            network: HttpClient::new(builder().build().map_err(failed)?),
            machine: HttpClient::new(builder().connect_timeout(MACHINE).no_proxy().build().map_err(failed)?),
        })
    }

    /// Asks a service of the machine, once; nothing if it does not answer in time.
    pub async fn ask_machine(&self, request: HttpRequest) -> Option<Answer> {
        once(&self.machine, request, MACHINE).await.ok()
    }

    /// Asks a service of the machine that is known to be there.
    ///
    /// # Errors
    /// As [`Web::ask`].
    pub async fn ask_local(
        &self,
        by: &str,
        make: impl Fn() -> Result<HttpRequest, CredentialError>,
    ) -> Result<Answer, CredentialError> {
        repeated(&self.machine, by, make).await
    }

    /// Asks a service; `make` makes the request, each time signed anew.
    ///
    /// # Errors
    /// It does not answer, or only with errors of its own (5xx and 429); those of `make`.
    pub async fn ask(
        &self,
        by: &str,
        make: impl Fn() -> Result<HttpRequest, CredentialError>,
    ) -> Result<Answer, CredentialError> {
        repeated(&self.network, by, make).await
    }
}

async fn repeated(
    client: &HttpClient,
    by: &str,
    make: impl Fn() -> Result<HttpRequest, CredentialError>,
) -> Result<Answer, CredentialError> {
    let mut attempt = 1;
    loop {
        let reason = match once(client, make()?, NETWORK).await {
            Ok(answer) if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS => {
                answer.status.to_string()
            }
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if attempt == ATTEMPTS {
            return Err(CredentialError::Unreachable { by: by.to_owned(), reason });
        }
        tokio::time::sleep(Duration::from_millis(100) * attempt * attempt).await;
        attempt += 1;
    }
}

/// One request and its whole answer, or why there is none.
async fn once(client: &HttpClient, request: HttpRequest, within: Duration) -> Result<Answer, String> {
    let whole = async {
        let (parts, body) = client.execute(request).await?.into_parts();
        Ok((parts.status, body.bytes().await?))
    };
    match tokio::time::timeout(within, whole).await {
        Ok(Ok((_, body))) if body.len() > LONGEST_ANSWER_BYTES => Err("an answer of no end".to_owned()),
        Ok(Ok((status, body))) => Ok(Answer { status, body }),
        Ok(Err(error)) => Err(told(&error)),
        Err(_) => Err(format!("no answer within {} s", within.as_secs())),
    }
}

/// What failed, without the URL, in which there may be secrets.
pub fn told(error: &object_store::client::HttpError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match error.kind() {
        HttpErrorKind::Connect => format!("no connection: {cause}"),
        HttpErrorKind::Timeout => "no answer in time".to_owned(),
        _ => cause.to_string(),
    }
}

/// A request.
///
/// # Errors
/// A URL or header that cannot be.
pub fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<HttpRequestBody>,
) -> Result<HttpRequest, CredentialError> {
    let builder = http::Request::builder().method(method).uri(url);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(body.into()).map_err(|error| CredentialError::Configured {
        what: url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        reason: error.to_string(),
    })
}
