//! Credentials of Google Cloud Storage, in the order of Google's Application Default Credentials.
//!
//! `GOOGLE_BEARER_TOKEN`; a service account (`GOOGLE_SERVICE_ACCOUNT`, `…_KEY`, or the option); the file that
//! `GOOGLE_APPLICATION_CREDENTIALS` names; the one that `gcloud auth application-default login` wrote; the metadata server.
//! Service accounts and users are object_store's, the metadata server is asked here, as object_store's way of asking has
//! no short end where there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::Method;
use object_store::ClientOptions;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use serde_json::Value;

use super::environment::Environment;
use super::web::{Web, request};
use super::{CredentialError, Fetched, Origin, Provider, Renew, Reopened, Rotating};
use crate::source::object::connect::http::retries;
use crate::source::object::location::options::Options;

const CLOUD: &str = "Google Cloud Storage";
const CURE: &str = "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS to a key file, or \
                    give --option skip_signature=true for a public bucket";

/// Finds them.
///
/// # Errors
/// What is configured and cannot work, or that there are none; the latter within two seconds.
pub async fn find(
    environment: &Environment,
    options: &Options,
    client: &ClientOptions,
    web: &Web,
) -> Result<(Provider<GcpCredential>, Arc<dyn Renew>), Arc<CredentialError>> {
    let environment = environment.clone();
    let file = application_credentials(&environment, options);
    let has_own = settings(&environment, options).iter().any(|(key, _)| {
        use GoogleConfigKey::{BearerToken, ServiceAccount, ServiceAccountKey};
        matches!(key, BearerToken | ServiceAccount | ServiceAccountKey)
    });
    if !has_own && file.is_none() {
        let server = Rotating::new(MetadataServer { environment, web: web.clone() });
        server.get().await?;
        return Ok((server.clone(), server));
    }
    let (options, client) = (options.clone(), client.clone());
    let open = move || {
        let file = application_credentials(&environment, &options);
        if let Some(file) = &file {
            check(file)?;
        }
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name("any")
            .with_client_options(client.clone())
            .with_retry(retries());
        for (key, value) in settings(&environment, &options) {
            builder = builder.with_config(key, value);
        }
        if let Some(file) = file {
            builder = builder.with_application_credentials(file.display().to_string());
        }
        let store = builder.build().map_err(|error| super::sorted("Google's credentials", error))?;
        Ok(Arc::clone(store.credentials()))
    };
    let provider = Reopened::new(open).map_err(Arc::new)?;
    Ok((provider.clone(), provider))
}

/// What decides on credentials, of options and environment, options last.
fn settings(environment: &Environment, options: &Options) -> Vec<(GoogleConfigKey, String)> {
    use GoogleConfigKey::{BearerToken, ServiceAccount, ServiceAccountKey};
    let variables = environment.beginning("GOOGLE_").map(|(name, value)| (name.to_ascii_lowercase(), value));
    let given = options.iter().map(|(name, value)| (name.to_owned(), value));
    let mut found: Vec<(GoogleConfigKey, String)> = Vec::new();
    for (name, value) in variables.chain(given) {
        if let Ok(key @ (BearerToken | ServiceAccount | ServiceAccountKey)) = name.parse() {
            found.push((key, value.to_owned()));
        }
    }
    found
}

/// The file of Application Default Credentials: one that is named, else gcloud's if it is there.
fn application_credentials(environment: &Environment, options: &Options) -> Option<PathBuf> {
    let named = options.get("google_application_credentials");
    if let Some(path) = named.or_else(|| environment.get("GOOGLE_APPLICATION_CREDENTIALS")) {
        return Some(environment.expand(path));
    }
    let directory = environment.path("CLOUDSDK_CONFIG", ".config/gcloud")?;
    Some(directory.join("application_default_credentials.json")).filter(|path| path.exists())
}

/// Kinds that object_store does not know would fail with the words of a JSON parser.
fn check(path: &Path) -> Result<(), CredentialError> {
    let text = std::fs::read(path).map_err(|source| CredentialError::File { path: path.to_path_buf(), source })?;
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    let reason = match value["type"].as_str() {
        Some("service_account" | "authorized_user") => return Ok(()),
        Some(kind) => format!(
            "credentials of type `{kind}` are not supported; set GOOGLE_BEARER_TOKEN to what \
             `gcloud auth application-default print-access-token` prints"
        ),
        None => "no JSON of Google's credentials; run `gcloud auth application-default login`".to_owned(),
    };
    Err(CredentialError::Configured { what: path.display().to_string(), reason })
}

#[derive(Debug)]
struct MetadataServer {
    environment: Environment,
    web: Web,
}

#[async_trait]
impl Origin<GcpCredential> for MetadataServer {
    async fn fetch(&self) -> Result<Fetched<GcpCredential>, CredentialError> {
        let named = self.environment.first(&["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"]);
        // By its address: without the server, its name would wait for name servers.
        let host = named.unwrap_or("169.254.169.254");
        let missing = |what: &str| {
            let file = self.environment.path("CLOUDSDK_CONFIG", ".config/gcloud").unwrap_or_default();
            CredentialError::Missing {
                cloud: CLOUD,
                looked: vec![
                    "GOOGLE_APPLICATION_CREDENTIALS, which is not set".to_owned(),
                    format!("{}, which is not there", file.join("application_default_credentials.json").display()),
                    format!("the metadata server at {host}, which {what}"),
                ],
                cure: CURE.to_owned(),
            }
        };
        if self.environment.get("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(missing("NO_GCE_CHECK forbids"));
        }
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let ask = request(Method::GET, &url, &[("metadata-flavor", "Google")], String::new())?;
        let answer = self.web.ask_machine(ask).await.ok_or_else(|| missing("does not answer"))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(token) = value["access_token"].as_str().filter(|_| answer.status.is_success()) else {
            return Err(missing("gives no token of a service account"));
        };
        let seconds = value["expires_in"].as_u64().unwrap_or(0);
        Ok(Fetched {
            credential: Arc::new(GcpCredential { bearer: token.to_owned() }),
            expires: Some(SystemTime::now() + Duration::from_secs(seconds)),
        })
    }
}
