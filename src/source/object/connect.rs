//! A location, options and environment → a store to read, and what listing it needs.
//!
//! - [`s3`]: the bucket's URL and region, found by asking; [`http`]: time-outs, TLS, the user agent
//! - [`read_only`]: the store as the reader gets it
//!
//! Model: [`identity`] says which store is meant, without any request, for the key of an index; [`connect`] gets
//! credentials (and for S3 the region), so that what is wrong is known at once and said with a cure. All of it runs on
//! [`runtime`], the one of the process.
//!
//! Invariants: a [`Remote`] never writes; an error that may pass by itself says so ([`ConnectError::is_away`]); no secret
//! is in an identity, an error or a log.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use ::http::HeaderValue;
use base64::Engine;
use object_store::ObjectStore;
use object_store::aws::AwsCredentialProvider;
use object_store::azure::{AzureConfigKey, AzureCredentialProvider};
use object_store::client::HttpClient;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use url::Url;

use super::credentials::environment::Environment;
use super::credentials::web::Web;
use super::credentials::{CredentialError, Renew, azure, google, netrc};
use super::location::options::Options;
use super::location::{AZURE_CLOUDS, Account, Location, Store};

pub mod http;
pub mod read_only;
pub mod s3;

use read_only::ReadOnly;

/// A store, connected.
#[derive(Debug)]
pub struct Remote {
    /// Where it is.
    pub location: Location,
    /// Which store and prefix this is; see [`identity`].
    pub identity: String,
    /// For reading, by whole keys (the prefix included). It refuses to write.
    pub store: Arc<dyn ObjectStore>,
    /// For listing.
    pub protocol: Protocol,
    /// To be told by whoever makes requests besides `store` that credentials were refused.
    pub renewal: Option<Arc<dyn Renew>>,
}

/// What it takes to speak to a store. No credentials: no signature.
#[derive(Debug)]
pub enum Protocol {
    /// S3.
    S3 {
        /// The bucket's URL, with its name in the path (`http://host/bucket`) or in the host (`https://bucket.host/`).
        bucket_url: Url,
        /// The region to sign for.
        region: String,
        /// Who asks.
        credentials: Option<AwsCredentialProvider>,
        /// Whether whoever asks pays.
        request_payer: bool,
        /// To ask with.
        client: HttpClient,
    },
    /// Google Cloud Storage.
    Google {
        /// The service's URL; the bucket is the next component of its path.
        base_url: Url,
        /// The bucket.
        bucket: String,
        /// Who asks.
        credentials: Option<GcpCredentialProvider>,
        /// To ask with.
        client: HttpClient,
    },
    /// Azure Blob Storage.
    Azure {
        /// The account's URL; the container is the next component of its path.
        service_url: Url,
        /// The account, for signatures.
        account: String,
        /// The container.
        container: String,
        /// Who asks.
        credentials: Option<AzureCredentialProvider>,
        /// To ask with.
        client: HttpClient,
    },
    /// WebDAV.
    WebDav {
        /// Scheme, host and port.
        origin: Url,
        /// To ask with; it sends the name and password by itself.
        client: HttpClient,
    },
    /// In this process.
    Memory(Arc<InMemory>),
}

/// Why a store cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Credentials.
    #[error(transparent)]
    Credentials(Arc<CredentialError>),
    /// Something that was said, or left unsaid.
    #[error("{what}: {reason}")]
    Setting {
        /// What.
        what: String,
        /// What is wrong, and the cure.
        reason: String,
    },
    /// There is no such bucket.
    #[error("no bucket `{bucket}` at {endpoint}; check its name{}", if *.is_custom { " and the endpoint" } else { "" })]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The service.
        endpoint: String,
        /// Whether an endpoint was given.
        is_custom: bool,
    },
    /// The store refuses whoever asks.
    #[error("{store} refuses: {reason}; {cure}")]
    Denied {
        /// The bucket.
        store: String,
        /// Its words.
        reason: String,
        /// What to do.
        cure: &'static str,
    },
    /// No answer, or none that makes sense.
    #[error("{store} does not answer: {reason}")]
    Unreachable {
        /// The bucket.
        store: String,
        /// Why.
        reason: String,
    },
}

impl ConnectError {
    /// Whether it may be otherwise later with nobody doing anything: worth a retry, and no reason to end a mount.
    pub fn is_away(&self) -> bool {
        match self {
            ConnectError::Credentials(error) => error.is_away(),
            ConnectError::Unreachable { .. } => true,
            _ => false,
        }
    }

    /// What a builder of object_store's says.
    pub(crate) fn from_store(error: object_store::Error) -> ConnectError {
        let reason = match &error {
            object_store::Error::Generic { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        ConnectError::Setting { what: "--option".to_owned(), reason }
    }

    fn setting(what: impl Into<String>, reason: impl Into<String>) -> ConnectError {
        ConnectError::Setting { what: what.into(), reason: reason.into() }
    }
}

impl From<CredentialError> for ConnectError {
    fn from(error: CredentialError) -> ConnectError {
        ConnectError::Credentials(Arc::new(error))
    }
}

impl From<Arc<CredentialError>> for ConnectError {
    fn from(error: Arc<CredentialError>) -> ConnectError {
        ConnectError::Credentials(error)
    }
}

/// The runtime that all requests run on, made when it is first needed.
///
/// # Panics
/// If the system gives this process no threads.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        // Whoever makes clients of its own on it, as tests do, needs it too.
        http::install_tls();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("veinfs-remote").enable_all();
        builder.build().expect("two threads can be made")
    });
    &RUNTIME
}

/// The store of a name in this process; tests put objects in it.
pub fn memory(name: &str) -> Arc<InMemory> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    Arc::clone(STORES.lock().entry(name.to_owned()).or_default())
}

/// Which store and prefix are meant, environment and configuration files included, as one line without secrets: two are
/// equal only if they lead to the same objects. No request is made.
///
/// # Errors
/// Configuration files that cannot be read; an Azure location without an account anywhere.
pub fn identity(location: &Location, options: &Options, environment: &Environment) -> Result<String, ConnectError> {
    Ok(match &location.store {
        Store::S3 { endpoint, .. } => match s3::custom_endpoint(endpoint.as_deref(), options, environment)? {
            Some(custom) if Some(&custom) != endpoint.as_ref() => format!("{location} at {custom}"),
            _ => location.to_string(),
        },
        Store::Google { .. } => match google_base(options, environment) {
            GOOGLE => location.to_string(),
            base => format!("{location} at {base}"),
        },
        Store::Azure { .. } => {
            let (name, service, _) = azure_place(location, options, environment)?;
            match azure_cloud(&service, &name) {
                Some(cloud) => in_account(location, Account { name, cloud }).to_string(),
                None => format!("{location} at {service} of {name}"),
            }
        }
        Store::WebDav { .. } | Store::Memory { .. } => location.to_string(),
    })
}

/// A location of Azure's with the account named.
fn in_account(location: &Location, account: Account) -> Location {
    let mut located = location.clone();
    if let Store::Azure { account: of, .. } = &mut located.store {
        *of = Some(account);
    }
    located
}

/// The cloud whose own URL of an account this is.
fn azure_cloud(service: &str, account: &str) -> Option<&'static str> {
    let found = AZURE_CLOUDS.iter().find(|cloud| service == format!("https://{account}.blob.{cloud}"));
    found.copied()
}

/// Connects to a store. Call it on [`runtime`].
///
/// # Errors
/// See [`ConnectError`]; without any credentials within two seconds.
pub async fn connect(
    location: &Location,
    options: &Options,
    environment: &Environment,
) -> Result<Remote, ConnectError> {
    let identity = identity(location, options, environment)?;
    let (store, protocol, renewal) = match &location.store {
        Store::S3 { .. } => s3::connect(location, options, environment).await?,
        Store::Google { bucket } => connect_google(bucket, options, environment).await?,
        Store::Azure { container, .. } => connect_azure(location, container, options, environment).await?,
        Store::WebDav { origin } => connect_webdav(origin, options, environment)?,
        Store::Memory { name } => {
            let store = memory(name);
            (Arc::clone(&store) as _, Protocol::Memory(store), None)
        }
    };
    let store = Arc::new(ReadOnly::new(store, renewal.clone()));
    Ok(Remote { location: location.clone(), identity, store, protocol, renewal })
}

/// A store as object_store has it, what listing needs, and whom to tell of refusals.
type Parts = (Arc<dyn ObjectStore>, Protocol, Option<Arc<dyn Renew>>);

const GOOGLE: &str = "https://storage.googleapis.com";

fn google_base<'a>(options: &'a Options, environment: &'a Environment) -> &'a str {
    let emulator = environment.get("STORAGE_EMULATOR_HOST").filter(|host| host.contains("://"));
    let base = options.get("google_base_url").or_else(|| environment.get("GOOGLE_BASE_URL")).or(emulator);
    base.unwrap_or(GOOGLE).trim_end_matches('/')
}

async fn connect_google(bucket: &str, options: &Options, environment: &Environment) -> Result<Parts, ConnectError> {
    let base = google_base(options, environment);
    let client_options = http::client_options(options, allows_http(base, options)?);
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_base_url(base)
        .with_client_options(client_options.clone())
        .with_retry(http::retries());
    let is_anonymous = is_on("google_skip_signature", options, environment);
    let (builder, credentials, renewal) = if is_anonymous {
        // Credentials that are given keep the builder from looking for others.
        let none =
            object_store::StaticCredentialProvider::new(object_store::gcp::GcpCredential { bearer: String::new() });
        (builder.with_credentials(Arc::new(none)).with_skip_signature(true), None, None)
    } else {
        let (provider, renewal) = google::find(environment, options, &client_options, &Web::new()?).await?;
        first(&*provider, "Google's token service").await?;
        (builder.with_credentials(Arc::clone(&provider)), Some(provider), Some(renewal))
    };
    let protocol = Protocol::Google {
        base_url: url(base)?,
        bucket: bucket.to_owned(),
        credentials,
        client: http::connect(&client_options)?,
    };
    Ok((Arc::new(builder.build().map_err(ConnectError::from_store)?), protocol, renewal))
}

/// Whether an option says yes, or if it says nothing, the variable that object_store has for it.
fn is_on(name: &str, options: &Options, environment: &Environment) -> bool {
    match options.get(name) {
        Some(_) => options.is_on(name),
        None => environment.is_on(&name.to_uppercase()),
    }
}

/// Gets credentials for the first time, so that what is wrong is said now.
async fn first<T: Send + Sync>(
    provider: &dyn object_store::CredentialProvider<Credential = T>,
    by: &str,
) -> Result<(), ConnectError> {
    match provider.get_credential().await {
        Ok(_) => Ok(()),
        Err(error) => Err(super::credentials::sorted(by, error).into()),
    }
}

/// The account, its URL, and whether it is the emulator's.
fn azure_place(
    location: &Location,
    options: &Options,
    environment: &Environment,
) -> Result<(String, String, bool), ConnectError> {
    let Store::Azure { account, .. } = &location.store else { unreachable!("asked for Azure's locations alone") };
    let named = account.as_ref().map(|account| account.name.as_str());
    let settings = azure::Settings::new(environment, options, named);
    let is_emulator = settings.is_on(AzureConfigKey::UseEmulator);
    let name = match settings.get(AzureConfigKey::AccountName) {
        Some(name) => name.to_owned(),
        None if is_emulator => "devstoreaccount1".to_owned(),
        None => {
            let cure = "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX, or set AZURE_STORAGE_ACCOUNT";
            return Err(ConnectError::setting(location.to_string(), format!("no storage account; {cure}")));
        }
    };
    let service = if is_emulator {
        let host = environment.get("AZURITE_BLOB_STORAGE_URL").unwrap_or("http://127.0.0.1:10000");
        format!("{}/{name}", host.trim_end_matches('/'))
    } else if let Some(endpoint) = settings.get(AzureConfigKey::Endpoint) {
        endpoint.trim_end_matches('/').to_owned()
    } else {
        let fabric = settings.is_on(AzureConfigKey::UseFabricEndpoint);
        let cloud = match account {
            Some(account) => account.cloud,
            None if fabric => "fabric.microsoft.com",
            None => "core.windows.net",
        };
        format!("https://{name}.blob.{cloud}")
    };
    Ok((name, service, is_emulator))
}

async fn connect_azure(
    location: &Location,
    container: &str,
    options: &Options,
    environment: &Environment,
) -> Result<Parts, ConnectError> {
    let (account, service, is_emulator) = azure_place(location, options, environment)?;
    let client_options = http::client_options(options, allows_http(&service, options)?);
    let settings = azure::Settings::new(environment, options, Some(&account));
    let builder = settings.builder(&client_options).with_container_name(container).with_account(&account);
    let mut builder = builder.with_retry(http::retries());
    let mut renewal = None;
    let is_anonymous = settings.is_on(AzureConfigKey::SkipSignature);
    if !is_emulator {
        builder = builder.with_endpoint(service.clone());
        if !is_anonymous {
            let found = azure::find(environment, options, Some(&account), &client_options, &Web::new()?).await?;
            first(&*found.0, "Azure's token service").await?;
            builder = builder.with_credentials(found.0);
            renewal = Some(found.1);
        }
    }
    let store = builder.build().map_err(ConnectError::from_store)?;
    let protocol = Protocol::Azure {
        service_url: url(&service)?,
        account,
        container: container.to_owned(),
        credentials: (!is_anonymous).then(|| Arc::clone(store.credentials())),
        client: http::connect(&client_options)?,
    };
    Ok((Arc::new(store), protocol, renewal))
}

fn connect_webdav(origin: &str, options: &Options, environment: &Environment) -> Result<Parts, ConnectError> {
    let mut client_options = http::client_options(options, true);
    if let Some((name, password)) = webdav_password(origin, environment)? {
        allows_http(origin, options)?;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is text");
        value.set_sensitive(true);
        client_options =
            client_options.with_default_headers([(::http::header::AUTHORIZATION, value)].into_iter().collect());
    }
    let builder = HttpBuilder::new().with_url(origin).with_client_options(client_options.clone());
    let store = builder.with_retry(http::retries()).build().map_err(ConnectError::from_store)?;
    let protocol = Protocol::WebDav { origin: url(origin)?, client: http::connect(&client_options)? };
    Ok((Arc::new(store), protocol, None))
}

/// The name and password for a server: of `~/.netrc`, which says for which server they are, else of the environment.
fn webdav_password(origin: &str, environment: &Environment) -> Result<Option<(String, String)>, ConnectError> {
    let host = url(origin)?.host_str().unwrap_or_default().to_owned();
    if let Some(path) = environment.path("NETRC", ".netrc") {
        match std::fs::read(&path) {
            Ok(text) => {
                if let Some(found) = netrc::lookup(&String::from_utf8_lossy(&text), &host) {
                    return Ok(Some(found));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(CredentialError::File { path, source }.into()),
        }
    }
    let pair = (environment.get("VEINFS_WEBDAV_USER"), environment.get("VEINFS_WEBDAV_PASSWORD"));
    match pair {
        (Some(name), Some(password)) => Ok(Some((name.to_owned(), password.to_owned()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConnectError::setting("VEINFS_WEBDAV_USER", "set VEINFS_WEBDAV_PASSWORD, too")),
        (None, Some(_)) => Err(ConnectError::setting("VEINFS_WEBDAV_PASSWORD", "set VEINFS_WEBDAV_USER, too")),
    }
}

/// Whether requests may go over plain `http`: to this machine, or where it was said. What is sent to these stores can be
/// used by whoever sees it, other than signatures of S3.
///
/// # Errors
/// It is `http`, and was not said.
fn allows_http(to: &str, options: &Options) -> Result<bool, ConnectError> {
    let is_plain = to.starts_with("http:");
    if is_plain && !http::is_loopback(to) && !options.is_on("allow_http") {
        let cure = "use https, or give --option allow_http=true if nobody listens on the way";
        return Err(ConnectError::setting(to, format!("credentials would be sent over plain http; {cure}")));
    }
    Ok(is_plain || options.is_on("allow_http"))
}

fn url(text: &str) -> Result<Url, ConnectError> {
    Url::parse(text).map_err(|error| ConnectError::setting(text, error.to_string()))
}

#[cfg(test)]
mod tests;
