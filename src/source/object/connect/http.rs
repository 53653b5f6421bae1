//! How requests are sent: TLS, time-outs, the user agent.
//!
//! A body may take as long as it likes while bytes come: there is a time-out from one piece to the next, and none for the
//! whole. Retries are few, as whoever reads or lists tries again itself, and knows better what for.

use std::sync::Once;
use std::time::Duration;

use http::HeaderValue;
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::{ClientConfigKey, ClientOptions, RetryConfig};

use super::ConnectError;
use crate::source::object::location::options::Options;

/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// From one piece of an answer to the next.
const READ: Duration = Duration::from_secs(30);
/// Connections kept to a host; as many requests as a source makes at once.
const IDLE_CONNECTIONS: usize = 64;

/// What we call ourselves.
pub fn agent() -> HeaderValue {
    HeaderValue::from_static(concat!("veinfs/", env!("CARGO_PKG_VERSION")))
}

/// Installs the cryptography that TLS uses, once; reqwest is built without any.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Whoever was here before did the same.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// How a client is to behave, options included.
pub fn client_options(options: &Options, allow_http: bool) -> ClientOptions {
    install_tls();
    let client = ClientOptions::new()
        .with_user_agent(agent())
        .with_connect_timeout(CONNECT)
        .with_read_timeout(READ)
        .with_timeout_disabled()
        .with_pool_max_idle_per_host(IDLE_CONNECTIONS)
        .with_allow_http(allow_http);
    let own = options.iter().filter_map(|(key, value)| Some((key.parse::<ClientConfigKey>().ok()?, value)));
    own.fold(client, |client, (key, value)| client.with_config(key, value))
}

/// A client.
///
/// # Errors
/// Options that cannot be, such as a certificate that is none.
pub fn connect(client: &ClientOptions) -> Result<HttpClient, ConnectError> {
    ReqwestConnector::default().connect(client).map_err(ConnectError::from_store)
}

/// Retries of object_store's own.
pub fn retries() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}

/// Whether a plain `http` URL leads to this machine, where nobody listens.
pub fn is_loopback(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}
