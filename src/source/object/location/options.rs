//! `--option KEY=VALUE`: what is said of a store besides its location. Pure.
//!
//! Keys are those of object_store's builders, with or without their `aws_`, `google_` or `azure_`, and `profile` for S3.
//! What they would leave unsaid is refused here: unknown keys, secrets, and what the location already says.

use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use url::Url;

use super::Store;
use crate::pattern::nearest;

/// The profile of AWS's configuration files.
pub const PROFILE: &str = "profile";

/// Options of one store, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keys as object_store spells them, each once.
    values: Vec<(String, String)>,
}

/// Why an option cannot be given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionError {
    /// No store of this kind has such an option.
    #[error("--option {key}: no option of {scheme}:// sources{}", hint(near.as_deref(), takes))]
    Unknown {
        /// As given.
        key: String,
        /// The scheme of the location.
        scheme: String,
        /// What was likely meant.
        near: Option<String>,
        /// All that would do.
        takes: String,
    },
    /// A secret.
    #[error("--option {key}: a secret has no place on the command line, where others can read it; {cure}")]
    Secret {
        /// As given.
        key: String,
        /// Where it belongs.
        cure: String,
    },
    /// What the location says.
    #[error("--option {key}: the source's URL says it already; write it there")]
    InLocation {
        /// As given.
        key: String,
    },
    /// A value that cannot be.
    #[error("--option {key}: {reason}")]
    Value {
        /// As given.
        key: String,
        /// What would do.
        reason: &'static str,
    },
}

fn hint(near: Option<&str>, takes: &str) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are {takes}"),
    }
}

/// Keys worth suggesting, without what only writers need.
const S3: [&str; 11] = [
    "endpoint",
    "region",
    PROFILE,
    "skip_signature",
    "virtual_hosted_style_request",
    "request_payer",
    "unsigned_payload",
    "endpoint_url_sts",
    "metadata_endpoint",
    "role_arn",
    "role_session_name",
];
const GOOGLE: [&str; 4] = ["base_url", "skip_signature", "application_credentials", "service_account"];
const AZURE: [&str; 13] = [
    "account_name",
    "endpoint",
    "skip_signature",
    "use_azure_cli",
    "use_emulator",
    "use_fabric_endpoint",
    "client_id",
    "tenant_id",
    "authority_host",
    "object_id",
    "msi_resource_id",
    "federated_token_file",
    "credential_type",
];
const CLIENT: [&str; 13] = [
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "read_timeout",
    "timeout",
    "proxy_url",
    "proxy_excludes",
    "proxy_ca_certificate",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "user_agent",
];

/// Secrets, and where they belong.
const SECRETS: [(&str, &str); 13] = [
    ("aws_access_key_id", "set AWS_ACCESS_KEY_ID, or run `aws configure` and give --option profile=NAME"),
    ("aws_secret_access_key", "set AWS_SECRET_ACCESS_KEY, or run `aws configure` and give --option profile=NAME"),
    ("aws_session_token", "set AWS_SESSION_TOKEN, or run `aws sso login` and give --option profile=NAME"),
    ("aws_sse_customer_key_base64", "set AWS_SSE_CUSTOMER_KEY_BASE64"),
    (
        "google_service_account_key",
        "set GOOGLE_SERVICE_ACCOUNT_KEY, or GOOGLE_APPLICATION_CREDENTIALS to a file's path",
    ),
    ("google_bearer_token", "set GOOGLE_BEARER_TOKEN, or run `gcloud auth application-default login`"),
    ("azure_storage_account_key", "set AZURE_STORAGE_KEY, or run `az login`"),
    ("azure_storage_client_secret", "set AZURE_CLIENT_SECRET"),
    ("azure_storage_sas_key", "set AZURE_STORAGE_SAS_TOKEN, or run `az login`"),
    ("azure_storage_token", "set AZURE_STORAGE_TOKEN, or run `az login`"),
    ("azure_storage_encryption_key", "set AZURE_STORAGE_ENCRYPTION_KEY"),
    ("azure_fabric_session_token", "set AZURE_FABRIC_SESSION_TOKEN"),
    ("password", "write ~/.netrc, or set VEINFS_WEBDAV_USER and VEINFS_WEBDAV_PASSWORD"),
];
/// What a location says.
const LOCATED: [&str; 4] = ["aws_bucket", "google_bucket", "azure_container_name", "aws_s3_express"];

impl Options {
    /// Checks the options given for a store.
    ///
    /// # Errors
    /// The first that cannot be; no message repeats a value.
    pub fn parse<'a>(
        store: &Store,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Options, OptionError> {
        let mut options = Options::default();
        for (key, value) in given {
            let name = canonical(store, key)?;
            check(key, &name, value)?;
            options.values.retain(|(other, _)| *other != name);
            options.values.push((name, value.trim().to_owned()));
        }
        Ok(options)
    }

    /// The value of an option, by the name that object_store's builders have for it (`aws_region`).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether an option is given and says yes.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| truth(value) == Some(true))
    }

    /// All, as object_store spells them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Reads a truth as object_store does.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" | "y" => Some(true),
        "0" | "false" | "off" | "no" | "n" => Some(false),
        _ => None,
    }
}

/// A key as object_store spells it.
fn canonical(store: &Store, key: &str) -> Result<String, OptionError> {
    let lower = key.trim().to_ascii_lowercase().replace('-', "_");
    let found = match store {
        Store::S3 { .. } if lower == PROFILE || lower == "aws_profile" => Some(PROFILE.to_owned()),
        Store::S3 { .. } => lower.parse().map(|key: AmazonS3ConfigKey| key.as_ref().to_owned()).ok(),
        Store::Google { .. } => lower.parse().map(|key: GoogleConfigKey| key.as_ref().to_owned()).ok(),
        Store::Azure { .. } => lower.parse().map(|key: AzureConfigKey| key.as_ref().to_owned()).ok(),
        Store::WebDav { .. } => lower.parse().map(|key: ClientConfigKey| key.as_ref().to_owned()).ok(),
        Store::Memory { .. } => None,
    };
    if let Some(name) = found {
        return match name.as_str() {
            name if LOCATED.contains(&name) => Err(OptionError::InLocation { key: key.to_owned() }),
            // One region is all that is ever used.
            "aws_default_region" => Ok("aws_region".to_owned()),
            "aws_endpoint_url_s3" => Ok("aws_endpoint".to_owned()),
            _ => Ok(name),
        };
    }
    // A secret of another cloud, or a near miss of one: its value is a secret all the same.
    if ["secret", "password", "token", "access_key", "sas"].iter().any(|word| lower.contains(word)) {
        return Err(OptionError::Secret { key: key.to_owned(), cure: super::given_by(store.scheme()).to_owned() });
    }
    let own: &[&str] = match store {
        Store::S3 { .. } => &S3,
        Store::Google { .. } => &GOOGLE,
        Store::Azure { .. } => &AZURE,
        Store::WebDav { .. } | Store::Memory { .. } => &[],
    };
    let client: &[&str] = if matches!(store, Store::Memory { .. }) { &[] } else { &CLIENT };
    let takes: Vec<&str> = own.iter().chain(client).copied().collect();
    let bare = ["aws_", "google_", "azure_"].iter().find_map(|start| lower.strip_prefix(start)).unwrap_or(&lower);
    Err(OptionError::Unknown {
        key: key.to_owned(),
        scheme: store.scheme().to_owned(),
        near: nearest(bare, takes.iter().copied()).map(str::to_owned),
        takes: if takes.is_empty() { "none".to_owned() } else { takes.join(", ") },
    })
}

fn check(key: &str, name: &str, value: &str) -> Result<(), OptionError> {
    if let Some((_, cure)) = SECRETS.iter().find(|(secret, _)| *secret == name) {
        return Err(OptionError::Secret { key: key.to_owned(), cure: (*cure).to_owned() });
    }
    let wrong = |reason| Err(OptionError::Value { key: key.to_owned(), reason });
    if value.trim().is_empty() {
        return wrong("no value; write KEY=VALUE");
    }
    if let Ok(url) = Url::parse(value)
        && url.has_authority()
    {
        if !url.username().is_empty() || url.password().is_some() {
            let cure = if name == "proxy_url" { "set HTTPS_PROXY" } else { "leave out all up to the `@`" };
            return Err(OptionError::Secret { key: key.to_owned(), cure: cure.to_owned() });
        }
    } else if ["endpoint", "_url"].iter().any(|end| name.ends_with(end)) {
        return wrong("a URL is wanted, such as http://localhost:9000");
    }
    let is_truth =
        ["skip_signature", "request_payer", "_style_request", "unsigned_payload", "imdsv1_fallback", "allow_http"]
            .iter()
            .chain(&["use_azure_cli", "use_emulator", "use_fabric_endpoint", "allow_invalid_certificates", "_only"])
            .any(|end| name.ends_with(end));
    if is_truth && truth(value.trim()).is_none() { wrong("true or false is wanted") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::object::location::Location;

    fn parse(location: &str, key: &str, value: &str) -> Result<Options, OptionError> {
        Options::parse(&Location::parse(location).expect("a location").store, [(key, value)])
    }

    #[test]
    fn keys_are_those_of_object_store() {
        for (location, key, value, name) in [
            ("s3://b", "region", "eu-west-1", "aws_region"),
            ("s3://b", "AWS_REGION", "eu-west-1", "aws_region"),
            ("s3://b", "aws_default_region", "eu-west-1", "aws_region"),
            ("s3://b", "endpoint-url", "http://localhost:9000", "aws_endpoint"),
            ("s3://b", "aws_endpoint_url_s3", "http://localhost:9000", "aws_endpoint"),
            ("s3://b", "skip_signature", "true", "aws_skip_signature"),
            ("s3://b", "profile", "lab", "profile"),
            ("s3://b", "allow_http", "yes", "allow_http"),
            ("gs://b", "google_base_url", "http://localhost:4443", "google_base_url"),
            ("gs://b", "skip_signature", "on", "google_skip_signature"),
            ("az://c", "account_name", "acc", "azure_storage_account_name"),
            ("az://c", "use_azure_cli", "1", "azure_use_azure_cli"),
            ("https://h", "read_timeout", "5s", "read_timeout"),
        ] {
            let options = parse(location, key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(options.iter().collect::<Vec<_>>(), [(name, value)], "{location} {key}");
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        let store = Location::parse("s3://b").expect("a location").store;
        let options = Options::parse(&store, [("region", "a"), ("profile", "p"), ("aws_region", "b")]).expect("good");
        assert_eq!((options.get("aws_region"), options.get(PROFILE)), (Some("b"), Some("p")));
    }

    #[test]
    fn what_is_suggested_would_be_taken() {
        for (location, own) in [("s3://b", &S3[..]), ("gs://b", &GOOGLE), ("az://c", &AZURE), ("https://h", &[])] {
            for key in own.iter().chain(&CLIENT) {
                let store = Location::parse(location).expect("a location").store;
                assert!(canonical(&store, key).is_ok(), "{location} {key}");
            }
        }
    }

    #[test]
    fn wrong_options_are_refused_with_the_nearest_right_one() {
        for (location, key, value, wanted) in [
            ("s3://b", "regoin", "x", "did you mean `region`?"),
            ("s3://b", "aws_skip_signatur", "x", "did you mean `skip_signature`?"),
            ("s3://b", "no_sign_request", "x", "there are endpoint, region, profile"),
            ("gs://b", "profile", "x", "no option of gs:// sources"),
            ("az://c", "acount_name", "x", "did you mean `account_name`?"),
            ("https://h", "endpoint", "http://x", "no option of https:// sources"),
            ("memory://m", "region", "x", "there are none"),
            ("s3://b", "bucket", "x", "the source's URL says it"),
            ("az://c", "container_name", "x", "the source's URL says it"),
            ("s3://b", "endpoint", "localhost", "http://localhost:9000"),
            ("s3://b", "skip_signature", "maybe", "true or false"),
            ("s3://b", "region", " ", "KEY=VALUE"),
        ] {
            let error = parse(location, key, value).expect_err(key).to_string();
            assert!(error.contains(wanted), "{location} {key}: {error}");
        }
    }

    #[test]
    fn secrets_are_refused_by_every_name() {
        for (location, key, wanted) in [
            ("s3://b", "access_key_id", "AWS_ACCESS_KEY_ID"),
            ("s3://b", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
            ("s3://b", "token", "AWS_SESSION_TOKEN"),
            ("s3://b", "secret_acess_key", "aws configure"),
            ("s3://b", "sse_customer_key_base64", "AWS_SSE_CUSTOMER_KEY_BASE64"),
            ("gs://b", "service_account_key", "GOOGLE_APPLICATION_CREDENTIALS"),
            ("gs://b", "bearer_token", "gcloud"),
            ("az://c", "access_key", "AZURE_STORAGE_KEY"),
            ("az://c", "master_key", "AZURE_STORAGE_KEY"),
            ("az://c", "sas_token", "AZURE_STORAGE_SAS_TOKEN"),
            ("az://c", "client_secret", "AZURE_CLIENT_SECRET"),
            ("https://h", "password", "netrc"),
        ] {
            let error = parse(location, key, "hush").expect_err(key);
            assert!(matches!(error, OptionError::Secret { .. }), "{key}: {error}");
            assert!(error.to_string().contains(wanted), "{key}: {error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{key}");
        }
        let error = parse("s3://b", "proxy_url", "http://me:hush@proxy:3128").expect_err("a password");
        assert!(error.to_string().contains("HTTPS_PROXY") && !format!("{error:?}").contains("hush"));
    }
}
