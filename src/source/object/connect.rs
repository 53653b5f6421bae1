//! From a location to a [`Client`]: options, addresses, and credentials as the clouds' own tools find them.
//!
//! Nothing is asked of anybody before the first request; what is wrong with options is said at once.

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::HeaderValue;
use object_store::ClientOptions;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::client::{ClientConfigKey, HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleConfigKey;

use super::aws::{self, Env, environment};
use super::client::{Client, Locate};
use super::fault::whole;
use super::location::{Kind, Location};
use crate::pattern::nearest;
use locate::{Azure, Gcs, S3, WebDav};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long nothing may come of what was asked for.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Threads for all that waits for stores.
const THREADS: usize = 2;

/// What the user says of stores: `--option KEY=VALUE`.
pub type Pairs = Vec<(String, String)>;

/// The threads that wait for stores, for all of the process.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // Somebody else may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("object").enable_all();
        builder.build().expect("threads can be started: those of the mount could be, too")
    })
}

/// How connections are made.
pub(super) fn client_options(allow_http: bool) -> ClientOptions {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_user_agent(HeaderValue::from_static(concat!("veinfs/", env!("CARGO_PKG_VERSION"))))
        .with_connect_timeout(CONNECT_LIMIT)
        .with_read_timeout(STALL_LIMIT)
        // A large body takes as long as it takes.
        .with_timeout_disabled()
}

/// Options that hold secrets, each with where they belong.
const SECRET: [(&str, &str); 12] = [
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
    ("sse_customer_key_base64", "AWS_SSE_CUSTOMER_KEY_BASE64"),
    ("service_account_key", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    ("bearer_token", "GOOGLE_BEARER_TOKEN, or AZURE_STORAGE_TOKEN"),
    ("access_key", "AZURE_STORAGE_ACCOUNT_KEY"),
    ("account_key", "AZURE_STORAGE_ACCOUNT_KEY"),
    ("client_secret", "AZURE_STORAGE_CLIENT_SECRET"),
    ("sas_token", "AZURE_STORAGE_SAS_TOKEN"),
    ("sas_key", "AZURE_STORAGE_SAS_TOKEN"),
    ("token", "AWS_SESSION_TOKEN, or AZURE_STORAGE_TOKEN"),
];
/// What is of use here, by kind of store; for hints.
const USEFUL: [(Kind, &[&str]); 4] = [
    (Kind::S3, &["endpoint", "region", "profile", "skip_signature", "virtual_hosted_style_request", "request_payer"]),
    (Kind::Gcs, &["base_url", "service_account", "skip_signature"]),
    (
        Kind::Azure,
        &["account_name", "endpoint", "client_id", "tenant_id", "use_azure_cli", "skip_signature", "use_emulator"],
    ),
    (Kind::WebDav, &[]),
];
const COMMON: [&str; 6] = [
    "allow_http",
    "allow_invalid_certificates",
    "proxy_url",
    "connect_timeout",
    "read_timeout",
    "proxy_ca_certificate",
];

/// What is wrong with an option, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--option {key}: {reason}")]
pub struct OptionError {
    /// As given.
    pub key: String,
    /// Why, and the cure.
    pub reason: String,
}

/// Whoever makes requests to the bucket of a location.
///
/// # Errors
/// The first option that is wrong.
pub fn connect(location: &Location, options: &Pairs) -> Result<Client, OptionError> {
    connect_with(location, options, environment())
}

pub(super) fn connect_with(location: &Location, options: &Pairs, env: Env) -> Result<Client, OptionError> {
    let mut client = client_options(false);
    let mut others = Vec::new();
    for (key, value) in options {
        let fail = |reason: String| OptionError { key: key.clone(), reason };
        let bare = key.to_ascii_lowercase().replace('-', "_");
        let bare = ["aws_", "google_", "azure_storage_", "azure_"]
            .iter()
            .fold(&*bare, |key, prefix| key.strip_prefix(prefix).unwrap_or(key));
        if let Some((_, variable)) = SECRET.iter().find(|(secret, _)| *secret == bare) {
            return Err(fail(format!("a secret, which others would see; set {variable} in the environment instead")));
        }
        if let Ok(known) = ClientConfigKey::from_str(bare) {
            client = client.with_config(known, value);
            continue;
        }
        let known = match location.kind {
            Kind::S3 => bare == "profile" || AmazonS3ConfigKey::from_str(bare).is_ok(),
            Kind::Gcs => GoogleConfigKey::from_str(bare).is_ok(),
            Kind::Azure => AzureConfigKey::from_str(bare).is_ok(),
            Kind::WebDav => false,
        };
        if !known {
            let useful = USEFUL.iter().filter(|(kind, _)| *kind == location.kind).flat_map(|(_, keys)| *keys);
            let keys: Vec<&str> = useful.chain(&COMMON).copied().collect();
            let hint = match nearest(bare, keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", keys.join(", ")),
            };
            return Err(fail(format!("no such option of this kind of store; {hint}")));
        }
        others.push((bare.to_owned(), value.clone()));
    }
    // Whoever names an address without encryption means it.
    let get = |key: &str| others.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
    let endpoint = get("endpoint").or_else(|| get("endpoint_url")).or_else(|| get("base_url"));
    let endpoint = endpoint.or_else(|| match location.kind {
        Kind::S3 => {
            let profile = || aws::setting(&env, &profile_name(&env, get("profile")), "endpoint_url");
            env("AWS_ENDPOINT_URL_S3").or_else(|| env("AWS_ENDPOINT_URL")).or_else(profile)
        }
        Kind::WebDav => Some(location.bucket.clone()),
        _ => None,
    });
    let emulated = location.kind == Kind::Azure
        && [get("use_emulator"), env("AZURE_STORAGE_USE_EMULATOR")].iter().flatten().any(|value| is_true(value));
    if emulated || endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
        client = client.with_allow_http(true);
    }
    let wrong = |error: object_store::Error| OptionError { key: "…".into(), reason: whole(&error) };
    let http = ReqwestConnector::default().connect(&client).map_err(wrong)?;
    let location = location.clone();
    let locate: Box<dyn Locate> = match location.kind {
        Kind::S3 => Box::new(S3 { location, options: others, client, endpoint, env }),
        Kind::Gcs => Box::new(Gcs { location, options: others, client, env }),
        Kind::Azure => Box::new(Azure { location, options: others, client, env, emulated }),
        Kind::WebDav => Box::new(WebDav { location, env }),
    };
    Ok(Client::new(http, locate))
}

/// Where requests go to, if that is not the usual place: a part of what tells one bucket from another.
pub fn elsewhere(location: &Location, options: &Pairs) -> String {
    let env = environment();
    let named = [
        "endpoint",
        "endpoint_url",
        "base_url",
        "aws_endpoint",
        "aws_endpoint_url",
        "google_base_url",
        "azure_endpoint",
        "azure_storage_endpoint",
        "account_name",
    ];
    let given = options.iter().rev().find(|(key, _)| named.contains(&&*key.to_ascii_lowercase().replace('-', "_")));
    let variable = match location.kind {
        Kind::S3 => env("AWS_ENDPOINT_URL_S3").or_else(|| env("AWS_ENDPOINT_URL")),
        Kind::Azure => env("AZURE_STORAGE_ENDPOINT").or_else(|| env("AZURE_STORAGE_ACCOUNT_NAME")),
        Kind::Gcs | Kind::WebDav => None,
    };
    given.map(|(_, value)| value.clone()).or(variable).unwrap_or_default()
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

fn profile_name(env: &Env, given: Option<String>) -> String {
    given.or_else(|| env("AWS_PROFILE")).or_else(|| env("AWS_DEFAULT_PROFILE")).unwrap_or_else(|| "default".into())
}

mod locate;

#[cfg(test)]
mod tests;
