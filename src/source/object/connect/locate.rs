//! Where the buckets of each kind of store are, and who signs for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use http::header::HeaderValue;
use http::{Method, Request};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientOptions, CredentialProvider, StaticCredentialProvider};

use super::{Pairs, is_true, profile_name};
use crate::source::object::aws::{self, Env, Profile};
use crate::source::object::client::{Auth, Locate, Place, header};
use crate::source::object::count::{Counts, Purpose};
use crate::source::object::fault::{Fault, FaultKind, whole};
use crate::source::object::location::Location;

/// How long the service that gives credentials to the machines of a cloud may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// The region of buckets that say none, and of servers that have none.
const REGION: &str = "us-east-1";

fn unusable(error: object_store::Error) -> Fault {
    Fault::new(FaultKind::NoCredentials, whole(&error))
}

fn given<'a>(options: &'a Pairs, key: &str) -> Option<&'a str> {
    options.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

/// S3 and what speaks as it does.
pub(super) struct S3 {
    pub(super) location: Location,
    pub(super) options: Pairs,
    pub(super) client: ClientOptions,
    pub(super) endpoint: Option<String>,
    pub(super) env: Env,
}

/// Google Cloud Storage.
pub(super) struct Gcs {
    pub(super) location: Location,
    pub(super) options: Pairs,
    pub(super) client: ClientOptions,
    pub(super) env: Env,
}

/// Azure Blob Storage.
pub(super) struct Azure {
    pub(super) location: Location,
    pub(super) options: Pairs,
    pub(super) client: ClientOptions,
    pub(super) env: Env,
    pub(super) emulated: bool,
}

/// WebDAV.
pub(super) struct WebDav {
    pub(super) location: Location,
    pub(super) env: Env,
}

macro_rules! debug_as_location {
    ($($of:ty),*) => {
        $(impl std::fmt::Debug for $of {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.location)
            }
        })*
    };
}
debug_as_location!(S3, Gcs, Azure, WebDav);

impl S3 {
    /// What the environment and the options say, as `object_store` understands it.
    fn builder(&self) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::new().with_client_options(self.client.clone());
        for key in KNOWN_VARIABLES {
            if let (Some(value), Ok(key)) = ((self.env)(key), key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()) {
                builder = builder.with_config(key, value);
            }
        }
        for (key, value) in &self.options {
            if let Ok(key) = key.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        builder.with_bucket_name(&self.location.bucket)
    }

    async fn region(&self, builder: &AmazonS3Builder, http: &HttpClient, counts: &Counts) -> Result<String, Fault> {
        let said = builder
            .get_config_value(&AmazonS3ConfigKey::Region)
            .or_else(|| self.location.region.clone())
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::DefaultRegion));
        if self.endpoint.is_some() {
            // Servers of one's own have none, and take any.
            return Ok(said.unwrap_or_else(|| REGION.to_owned()));
        }
        if let Some(region) = given(&self.options, "region") {
            return Ok(region.to_owned());
        }
        // That of the environment is where its user works, which need not be where the bucket is.
        counts.request(Purpose::Head);
        let bucket = &self.location.bucket;
        let address = if bucket.contains('.') {
            format!("https://s3.amazonaws.com/{bucket}")
        } else {
            format!("https://{bucket}.s3.amazonaws.com")
        };
        let request = Request::builder().method(Method::HEAD).uri(address).body(HttpRequestBody::empty());
        let request = request.map_err(|error| Fault::new(FaultKind::NoBucket, format!("{bucket}: {error}")))?;
        let answer = match http.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                counts.failure();
                return said.ok_or_else(|| Fault::of_connection(&error));
            }
        };
        if answer.status() == http::StatusCode::NOT_FOUND {
            return Err(Fault::new(FaultKind::NoBucket, format!("there is no bucket `{bucket}`")));
        }
        let found = header(answer.headers(), "x-amz-bucket-region").map(str::to_owned);
        Ok(found.or(said).unwrap_or_else(|| REGION.to_owned()))
    }

    /// Whoever signs, of all that AWS' own tools ask, in their order.
    async fn keys(
        &self,
        builder: AmazonS3Builder,
        http: &HttpClient,
    ) -> Result<(Arc<dyn CredentialProvider<Credential = AwsCredential>>, Option<Arc<Profile>>), Fault> {
        let named = given(&self.options, "profile");
        if named.is_none()
            && let Some(keys) = aws::env_keys(&self.env)
        {
            return Ok((Arc::new(StaticCredentialProvider::new(keys)), None));
        }
        let name = profile_name(&self.env, named.map(str::to_owned));
        let chosen = named.is_some() || (self.env)("AWS_PROFILE").is_some();
        if chosen || aws::has_credentials(&self.env, &name) {
            if !aws::names(&self.env).contains(&name) {
                let (places, names) = (aws::places(&self.env), aws::names(&self.env));
                let hint = crate::pattern::nearest(&name, names.iter().map(String::as_str));
                let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let text = format!("there is no AWS profile `{name}` in {places}{hint}");
                return Err(Fault::new(FaultKind::NoCredentials, text));
            }
            let profile = Arc::new(Profile::new(&name, Arc::clone(&self.env), http.clone()));
            return Ok((Arc::clone(&profile) as _, Some(profile)));
        }
        let elsewhere = [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        if !elsewhere.iter().any(|variable| (self.env)(variable).is_some()) {
            self.probe(http).await?;
        }
        let store = builder.build().map_err(unusable)?;
        Ok((Arc::clone(store.credentials()), None))
    }

    /// Whether this is a machine of the cloud, which has credentials of its own: otherwise there are none, and to find
    /// that out by waiting takes long.
    async fn probe(&self, http: &HttpClient) -> Result<(), Fault> {
        let off = (self.env)("AWS_EC2_METADATA_DISABLED").is_some_and(|value| is_true(&value));
        let service = (self.env)("AWS_METADATA_ENDPOINT").unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let address = format!("{}/latest/api/token", service.trim_end_matches('/'));
        let request =
            Request::builder().method(Method::PUT).uri(address).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        // Through a proxy nobody reaches it, and without encryption everybody does.
        let there = match (off, request.body(HttpRequestBody::empty())) {
            (false, Ok(request)) => {
                let plain = super::client_options(true);
                let plain = object_store::client::HttpConnector::connect(
                    &object_store::client::ReqwestConnector::default(),
                    &plain,
                );
                let client = plain.unwrap_or_else(|_| http.clone());
                matches!(tokio::time::timeout(PROBE_LIMIT, client.execute(request)).await, Ok(Ok(_)))
            }
            _ => false,
        };
        if there {
            return Ok(());
        }
        let text = format!(
            "neither in the environment nor in {} nor from the machine; run `aws configure`, or set AWS_PROFILE, or for \
             a public bucket give `--option skip_signature=true`",
            aws::places(&self.env)
        );
        Err(Fault::new(FaultKind::NoCredentials, text))
    }
}

/// The variables that say more than options of the same names would be given for.
const KNOWN_VARIABLES: [&str; 15] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_SKIP_SIGNATURE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_REQUEST_PAYER",
    "AWS_METADATA_ENDPOINT",
    "AWS_IMDSV1_FALLBACK",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ALLOW_HTTP",
];

#[async_trait::async_trait]
impl Locate for S3 {
    async fn locate(&self, http: &HttpClient, counts: &Counts) -> Result<Place, Fault> {
        let builder = self.builder();
        let value = |key| builder.get_config_value(&key);
        let truth = |key| builder.get_config_value(&key).is_some_and(|value| is_true(&value));
        let anonymous = truth(AmazonS3ConfigKey::SkipSignature);
        let request_payer = truth(AmazonS3ConfigKey::RequestPayer);
        let named = given(&self.options, "profile").map(str::to_owned);
        let profile_region = aws::setting(&self.env, &profile_name(&self.env, named), "region");
        let builder = match (value(AmazonS3ConfigKey::Region), profile_region) {
            (None, Some(region)) => builder.with_region(region),
            _ => builder,
        };
        // First what is quick: whoever has no credentials need not wait for a region.
        let keys = if anonymous { None } else { Some(self.keys(self.builder(), http).await?) };
        let region = self.region(&builder, http, counts).await?;
        let bucket = &self.location.bucket;
        let hosted =
            builder.get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest).is_some_and(|v| is_true(&v));
        let base = match &self.endpoint {
            Some(endpoint) => {
                let endpoint = endpoint.trim_end_matches('/');
                match endpoint.split_once("://").filter(|_| hosted) {
                    Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
                    None => format!("{endpoint}/{bucket}"),
                }
            }
            // Certificates are for one label alone.
            None if bucket.contains('.') => format!("https://s3.{region}.{}/{bucket}", domain(&region)),
            None => format!("https://{bucket}.s3.{region}.{}", domain(&region)),
        };
        let auth = match keys {
            None => Auth::Anonymous,
            Some((keys, renews)) => Auth::Aws { keys, region, renews, request_payer },
        };
        Ok(Place { base, auth })
    }
}

/// The domain of AWS that a region is in.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

#[async_trait::async_trait]
impl Locate for Gcs {
    async fn locate(&self, _: &HttpClient, _: &Counts) -> Result<Place, Fault> {
        let mut builder = GoogleCloudStorageBuilder::new().with_client_options(self.client.clone());
        let variables = [
            ("GOOGLE_APPLICATION_CREDENTIALS", "google_application_credentials"),
            ("GOOGLE_SERVICE_ACCOUNT", "service_account"),
            ("GOOGLE_SERVICE_ACCOUNT_PATH", "service_account_path"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "service_account_key"),
            ("GOOGLE_BEARER_TOKEN", "bearer_token"),
            ("GOOGLE_BASE_URL", "base_url"),
            ("GOOGLE_SKIP_SIGNATURE", "skip_signature"),
        ];
        let from_env = variables.iter().filter_map(|(name, key)| Some(((*key).to_owned(), (self.env)(name)?)));
        for (key, value) in from_env.chain(self.options.iter().cloned()) {
            if let Ok(key) = key.parse::<GoogleConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let base = builder.get_config_value(&GoogleConfigKey::BaseUrl);
        let base = base.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
        let base = format!("{}/{}", base.trim_end_matches('/'), self.location.bucket);
        if builder.get_config_value(&GoogleConfigKey::SkipSignature).is_some_and(|value| is_true(&value)) {
            return Ok(Place { base, auth: Auth::Anonymous });
        }
        let store = builder.with_bucket_name(&self.location.bucket).build().map_err(unusable)?;
        let keys = Arc::clone(store.credentials());
        // On no machine of the cloud its service is waited for long.
        let first = tokio::time::timeout(PROBE_LIMIT * 5, keys.get_credential()).await;
        match first {
            Ok(Ok(_)) => Ok(Place { base, auth: Auth::Gcp(keys) }),
            Ok(Err(error)) => Err(Fault::new(FaultKind::NoCredentials, format!("{}; {GCS_CURE}", whole(&error)))),
            Err(_) => Err(Fault::new(FaultKind::NoCredentials, GCS_CURE)),
        }
    }
}

const GCS_CURE: &str = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key \
                        file, or for a public bucket give `--option skip_signature=true`";
const AZURE_CURE: &str = "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or run `az login` and give `--option \
                          use_azure_cli=true`, or for a public container give `--option skip_signature=true`";
/// The account of Azurite and its kin, which everybody knows.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

#[async_trait::async_trait]
impl Locate for Azure {
    async fn locate(&self, _: &HttpClient, _: &Counts) -> Result<Place, Fault> {
        let mut builder = MicrosoftAzureBuilder::new().with_client_options(self.client.clone());
        let variables = [
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_STORAGE_CLIENT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_STORAGE_CLIENT_SECRET",
            "AZURE_CLIENT_SECRET",
            "AZURE_STORAGE_TENANT_ID",
            "AZURE_TENANT_ID",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_TOKEN",
            "AZURE_STORAGE_ENDPOINT",
            "AZURE_STORAGE_USE_EMULATOR",
            "AZURE_STORAGE_SKIP_SIGNATURE",
            "AZURE_SKIP_SIGNATURE",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_AUTHORITY_HOST",
            "AZURE_USE_AZURE_CLI",
            "AZURE_MSI_ENDPOINT",
        ];
        let from_env = variables.iter().filter_map(|name| Some((name.to_ascii_lowercase(), (self.env)(name)?)));
        for (key, value) in from_env.chain(self.options.iter().cloned()) {
            if let Ok(key) = key.parse::<AzureConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(account) = &self.location.account {
            builder = builder.with_account(account);
        }
        let value = |key| builder.get_config_value(&key);
        let container = &self.location.bucket;
        let account = value(AzureConfigKey::AccountName);
        let (base, account) = if self.emulated {
            let service = (self.env)("AZURITE_BLOB_STORAGE_URL").unwrap_or_else(|| "http://127.0.0.1:10000".to_owned());
            let account = account.unwrap_or_else(|| EMULATOR_ACCOUNT.to_owned());
            (format!("{}/{account}/{container}", service.trim_end_matches('/')), account)
        } else {
            let Some(account) = account else {
                let text = "no account: write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX, or set \
                            AZURE_STORAGE_ACCOUNT_NAME";
                return Err(Fault::new(FaultKind::NoCredentials, text));
            };
            let service = value(AzureConfigKey::Endpoint);
            let service = service.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
            (format!("{}/{container}", service.trim_end_matches('/')), account)
        };
        if value(AzureConfigKey::SkipSignature).is_some_and(|value| is_true(&value)) {
            return Ok(Place { base, auth: Auth::Anonymous });
        }
        if self.emulated {
            builder = builder.with_use_emulator(true);
        }
        let store = builder.with_container_name(container).build().map_err(unusable)?;
        let keys = Arc::clone(store.credentials());
        match tokio::time::timeout(PROBE_LIMIT * 5, keys.get_credential()).await {
            Ok(Ok(_)) => Ok(Place { base, auth: Auth::Azure { keys, account } }),
            Ok(Err(error)) => Err(Fault::new(FaultKind::NoCredentials, format!("{}; {AZURE_CURE}", whole(&error)))),
            Err(_) => Err(Fault::new(FaultKind::NoCredentials, AZURE_CURE)),
        }
    }
}

#[async_trait::async_trait]
impl Locate for WebDav {
    async fn locate(&self, _: &HttpClient, _: &Counts) -> Result<Place, Fault> {
        let base = self.location.bucket.clone();
        let known = match ((self.env)("VEINFS_WEBDAV_USER"), (self.env)("VEINFS_WEBDAV_PASSWORD")) {
            (Some(user), password) => Some((user, password.unwrap_or_default())),
            (None, _) => netrc(&self.env, &base),
        };
        let Some((user, password)) = known else { return Ok(Place { base, auth: Auth::Anonymous }) };
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {text}"))
            .map_err(|_| Fault::new(FaultKind::NoCredentials, "the user or password is no text"))?;
        value.set_sensitive(true);
        Ok(Place { base, auth: Auth::Basic(value) })
    }
}

/// The user and password of a host in `~/.netrc`, as ftp(1) has it.
fn netrc(env: &Env, base: &str) -> Option<(String, String)> {
    let path = env("NETRC").or_else(|| Some(format!("{}/.netrc", env("HOME")?)))?;
    let text = std::fs::read_to_string(path).ok()?;
    let host = base.split_once("://")?.1;
    let host = host.split(':').next()?;
    let mut words = text.split_whitespace();
    let (mut ours, mut found) = (false, HashMap::new());
    while let Some(word) = words.next() {
        match word {
            "machine" => {
                if ours && found.contains_key("login") {
                    break;
                }
                ours = words.next() == Some(host);
            }
            "default" => {
                if ours && found.contains_key("login") {
                    break;
                }
                ours = true;
            }
            "login" | "password" => {
                let value = words.next()?;
                if ours {
                    found.entry(word).or_insert_with(|| value.to_owned());
                }
            }
            _ => {}
        }
    }
    Some((found.get("login")?.clone(), found.get("password").cloned().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_hosts() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(
            dir.path().join(".netrc"),
            "machine a.org login u password p\nmachine b.org\n login v\n password q\ndefault login w password r\n",
        )
        .expect("written");
        let home = dir.path().display().to_string();
        let env: Env = Arc::new(move |name| (name == "HOME").then(|| home.clone()));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(netrc(&env, "https://a.org:8443"), pair("u", "p"));
        assert_eq!(netrc(&env, "http://b.org"), pair("v", "q"));
        assert_eq!(netrc(&env, "http://c.org"), pair("w", "r"));
    }
}
