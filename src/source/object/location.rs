//! Where an object store is: text to a [`Location`] and back. Pure.
//!
//! | written | store |
//! | --- | --- |
//! | `s3://BUCKET/PREFIX`, `s3a://`, and the `https` URLs of AWS and R2 | S3 |
//! | `gs://BUCKET/PREFIX`, `https://storage.googleapis.com/BUCKET/PREFIX` | Google Cloud Storage |
//! | `az://CONTAINER/PREFIX` (`azblob`, `azure`, `adl`, `abfs`, `abfss`), `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`, and the `https` URLs of Azure | Azure Blob Storage |
//! | `http(s)://HOST[:PORT]/PATH`, any other | WebDAV |
//! | `memory://NAME/PREFIX` | a store in this process, for tests |
//!
//! Percent-escapes are decoded; a `%` that begins none stands for itself. In a bucket's location `?` and `#` are letters,
//! as in keys; a URL of `http(s)` must have neither. Slashes at the end and repeated ones do not count. `.` and `..` as
//! components are refused, as they mean something else to every tool.
//!
//! Invariants: no location holds a secret, since user information and signed URLs are refused; [`Location::parse`] of
//! the normal form, which `Display` writes, gives the same location.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::pattern::nearest;

pub mod options;
#[cfg(test)]
mod tests;

/// What is escaped in the normal form, besides all that is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'\\');
/// For error messages, and the nearest right one.
const SCHEMES: [&str; 6] = ["s3", "gs", "az", "abfss", "https", "http"];
/// Schemes that are meant as they are written, near as they may be to ours.
const OTHERS: [&str; 9] = ["file", "ftp", "ftps", "sftp", "ssh", "nfs", "smb", "cifs", "hdfs"];
/// What a URL that carries a secret has in its query: signed URLs of S3 and GCS, shared access signatures of Azure.
const SIGNED: [&str; 3] = ["x-amz-signature=", "x-goog-signature=", "sig="];

/// A prefix in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The bucket, container or server.
    pub store: Store,
    /// Components with single slashes between them, none at the ends; empty for all of the store.
    pub prefix: String,
}

/// A bucket, container or server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// S3 and what speaks it.
    S3 {
        /// The bucket.
        bucket: String,
        /// The service's URL without the bucket, if the location says it.
        endpoint: Option<String>,
    },
    /// Google Cloud Storage.
    Google {
        /// The bucket.
        bucket: String,
    },
    /// Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// The storage account and its cloud, if the location says it.
        account: Option<Account>,
    },
    /// A WebDAV server.
    WebDav {
        /// Scheme, host and port, as a URL without a path.
        origin: String,
    },
    /// A store in this process.
    Memory {
        /// Stores of the same name are one.
        name: String,
    },
}

/// A storage account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What follows `blob.` or `dfs.` in its host name: `core.windows.net`.
    pub cloud: &'static str,
}

/// The clouds of Azure: what follows `blob.` in host names.
pub const AZURE_CLOUDS: [&str; 4] =
    ["core.windows.net", "core.usgovcloudapi.net", "core.chinacloudapi.cn", "fabric.microsoft.com"];

/// Why a text is no location. No message repeats what may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LocationError {
    /// The scheme is none of ours.
    #[error("`{scheme}://` is no kind of source; {}", cure(.near))]
    Scheme {
        /// As given.
        scheme: String,
        /// What was likely meant.
        near: Option<&'static str>,
    },
    /// A name or password before an `@`.
    #[error(
        "a user name or password has no place in a URL, where others can read it; leave out all up to the `@`, and give \
         it as the cloud's own tools do: {0}"
    )]
    UserInfo(&'static str),
    /// A signed URL.
    #[error("a signed URL is a secret and has no place on the command line; leave out all from the `?` on, and {0}")]
    Signed(&'static str),
    /// A query or fragment of an `http` URL.
    #[error("a WebDAV URL ends with its path; leave out all from the `{0}` on, or write `{1}` if it is part of a name")]
    Query(char, &'static str),
    /// No bucket, container or host.
    #[error("no {what} in `{before}`; write `{before}{}/PREFIX`", what.to_uppercase())]
    NoBucket {
        /// What comes before it.
        before: String,
        /// `bucket`, `container` or `host`.
        what: &'static str,
    },
    /// A bucket with a port: an endpoint is meant.
    #[error("`{0}` is a host with a port, and no bucket; write s3://BUCKET/PREFIX with --option endpoint=http://{0}")]
    Port(String),
    /// A bucket that cannot be.
    #[error("`{name}` cannot be a {what}'s name: it holds {found:?}")]
    Name {
        /// `bucket`, `container` or `account`.
        what: &'static str,
        /// As given.
        name: String,
        /// The first character that cannot be in it.
        found: char,
    },
    /// A host of Azure that is none.
    #[error("`{0}` is no host of Azure Blob Storage; write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX")]
    AzureHost(String),
    /// A component `.` or `..`.
    #[error("`{0}` cannot be a part of a prefix; write the prefix as keys have it")]
    Dots(String),
    /// Escapes that are no UTF-8, or NUL.
    #[error("the prefix is no UTF-8 text, as keys are, once its percent-escapes are decoded; write `%25` for `%`")]
    Escapes,
    /// A URL that cannot be read.
    #[error("no URL: {0}")]
    Url(url::ParseError),
}

fn cure(near: &Option<&'static str>) -> String {
    match near {
        Some(near) => format!("did you mean `{near}://`?"),
        None => "veinfs knows paths, s3://, gs://, az://, abfss://, and http:// and https:// for WebDAV; mount others \
                 with sshfs or rclone, and give the path"
            .to_owned(),
    }
}

/// How secrets are given to each kind of store.
fn given_by(scheme: &str) -> &'static str {
    match scheme {
        "s3" | "s3a" => "run `aws configure` or `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs" => "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
        "http" | "https" => "write ~/.netrc, or set VEINFS_WEBDAV_USER and VEINFS_WEBDAV_PASSWORD",
        _ => "run `az login`, or set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY",
    }
}

/// Whether a text begins as a URL does, `scheme://`.
pub fn is_url(text: &[u8]) -> bool {
    let scheme = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
    scheme > 0 && text[0].is_ascii_alphabetic() && text[scheme..].starts_with(b"://")
}

impl Location {
    /// Reads a URL; see the module.
    ///
    /// # Errors
    /// What is wrong with it, and the cure.
    pub fn parse(text: &str) -> Result<Location, LocationError> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let what = match scheme.as_str() {
            "s3" | "s3a" | "gs" => "bucket",
            "az" | "azblob" | "azure" | "adl" | "abfs" | "abfss" => "container",
            "http" | "https" => return Self::parse_http(&scheme, rest),
            "memory" => "name",
            other => {
                let near = if OTHERS.contains(&other) { None } else { nearest(other, SCHEMES) };
                return Err(LocationError::Scheme { near, scheme });
            }
        };
        refuse_signed(&scheme, rest)?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) if what == "container" && !user.contains([':', '@']) => (Some(user), host),
            Some(_) => return Err(LocationError::UserInfo(given_by(&scheme))),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err(LocationError::NoBucket { before: format!("{scheme}://"), what });
        }
        if what == "bucket" && host.contains(':') {
            return Err(LocationError::Port(host.to_owned()));
        }
        let store = match (what, scheme.as_str()) {
            ("bucket", "gs") => Store::Google { bucket: checked(host, "bucket")? },
            ("bucket", _) => Store::S3 { bucket: checked(host, "bucket")?, endpoint: None },
            ("container", _) => match user {
                Some(container) => azure(container, &host.to_ascii_lowercase())?,
                None => Store::Azure { container: checked(host, "container")?, account: None },
            },
            _ => Store::Memory { name: checked(host, "store")? },
        };
        Ok(Location { store, prefix: prefix(path)? })
    }

    fn parse_http(scheme: &str, rest: &str) -> Result<Location, LocationError> {
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err(LocationError::UserInfo(given_by(scheme)));
        }
        let path = &rest[authority.len()..];
        let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|error| match error {
            url::ParseError::EmptyHost => LocationError::NoBucket { before: format!("{scheme}://"), what: "host" },
            other => LocationError::Url(other),
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let cloud = if scheme == "https" && url.port().is_none() { in_cloud(&host, path)? } else { None };
        refuse_signed(
            match &cloud {
                Some((store, _)) => store.scheme(),
                None => scheme,
            },
            path,
        )?;
        if let Some(at) = path.find(['?', '#']) {
            let (found, escape) = if path[at..].starts_with('?') { ('?', "%3F") } else { ('#', "%23") };
            return Err(LocationError::Query(found, escape));
        }
        let (store, path) =
            cloud.unwrap_or_else(|| (Store::WebDav { origin: url.origin().ascii_serialization() }, path));
        Ok(Location { store, prefix: prefix(path)? })
    }

    /// What a source is called if it is given no name: the last component of the prefix, else the bucket, container or host.
    pub fn name(&self) -> String {
        if let Some(last) = self.prefix.rsplit('/').next().filter(|last| !last.is_empty()) {
            return last.to_owned();
        }
        match &self.store {
            Store::S3 { bucket, .. } | Store::Google { bucket } => bucket.clone(),
            Store::Azure { container, .. } => container.clone(),
            Store::WebDav { origin } => match Url::parse(origin) {
                Ok(url) => url.host_str().unwrap_or("webdav").to_owned(),
                Err(_) => origin.clone(),
            },
            Store::Memory { name } => name.clone(),
        }
    }

    /// What the keys of all objects below the prefix begin with: empty, or with a slash at the end.
    pub fn key_prefix(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) }
    }
}

impl Store {
    /// The scheme that is written for it.
    pub fn scheme(&self) -> &str {
        match self {
            Store::S3 { .. } => "s3",
            Store::Google { .. } => "gs",
            Store::Azure { account: None, .. } => "az",
            Store::Azure { .. } => "abfss",
            Store::WebDav { origin } if origin.starts_with("http:") => "http",
            Store::WebDav { .. } => "https",
            Store::Memory { .. } => "memory",
        }
    }
}

/// The normal form, of the store alone: no slash at the end.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Store::S3 { bucket, endpoint: Some(endpoint) } => write!(f, "{endpoint}/{bucket}"),
            Store::S3 { bucket, .. } => write!(f, "s3://{bucket}"),
            Store::Google { bucket } => write!(f, "gs://{bucket}"),
            Store::Azure { container, account: None } => write!(f, "az://{container}"),
            Store::Azure { container, account: Some(Account { name, cloud }) } => {
                write!(f, "abfss://{container}@{name}.dfs.{cloud}")
            }
            Store::WebDav { origin } => f.write_str(origin),
            Store::Memory { name } => write!(f, "memory://{name}"),
        }
    }
}

/// The normal form: the same for all ways to write a location.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", utf8_percent_encode(&self.prefix, ESCAPED)) }
    }
}

fn refuse_signed(scheme: &str, text: &str) -> Result<(), LocationError> {
    let query = text.split_once('?').map(|(_, query)| query.to_ascii_lowercase()).unwrap_or_default();
    let signed = |parameter: &str| SIGNED.iter().any(|start| parameter.starts_with(start));
    if query.split('&').any(signed) { Err(LocationError::Signed(given_by(scheme))) } else { Ok(()) }
}

/// A name of a bucket, container, account or store.
fn checked(name: &str, what: &'static str) -> Result<String, LocationError> {
    let decoded = percent_decode_str(name).decode_utf8().map_err(|_| LocationError::Escapes)?;
    match decoded.chars().find(|letter| !letter.is_ascii_alphanumeric() && !"-._$".contains(*letter)) {
        Some(found) => Err(LocationError::Name { what, name: decoded.into_owned(), found }),
        None if decoded.is_empty() || decoded == "." || decoded == ".." => {
            Err(LocationError::Name { what, found: decoded.chars().next().unwrap_or('/'), name: decoded.into_owned() })
        }
        None => Ok(decoded.into_owned()),
    }
}

fn prefix(path: &str) -> Result<String, LocationError> {
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| LocationError::Escapes)?;
    if decoded.contains('\0') {
        return Err(LocationError::Escapes);
    }
    let components: Vec<&str> = decoded.split('/').filter(|component| !component.is_empty()).collect();
    match components.iter().find(|component| matches!(**component, "." | "..")) {
        Some(dots) => Err(LocationError::Dots((*dots).to_owned())),
        None => Ok(components.join("/")),
    }
}

/// The first component of a path, and the rest.
fn first(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_at(path.find(['/', '?', '#']).unwrap_or(path.len()))
}

fn azure(container: &str, host: &str) -> Result<Store, LocationError> {
    let found = AZURE_CLOUDS.iter().find_map(|cloud| {
        let before = host.strip_suffix(cloud)?.strip_suffix('.')?;
        Some((before.strip_suffix(".blob").or_else(|| before.strip_suffix(".dfs"))?, *cloud))
    });
    match found {
        Some((name, cloud)) if !name.contains('.') => Ok(Store::Azure {
            container: checked(container, "container")?,
            account: Some(Account { name: checked(name, "account")?, cloud }),
        }),
        _ => Err(LocationError::AzureHost(host.to_owned())),
    }
}

/// The store of an `https` URL of a cloud, and what of its path is the prefix; nothing for any other host.
fn in_cloud<'a>(host: &str, path: &'a str) -> Result<Option<(Store, &'a str)>, LocationError> {
    let bucket_in_path = |what: &'static str| match first(path) {
        ("", _) => Err(LocationError::NoBucket { before: format!("https://{host}/"), what }),
        (bucket, rest) => Ok((bucket, rest)),
    };
    if AZURE_CLOUDS.iter().any(|cloud| host.ends_with(cloud)) {
        let (container, rest) = bucket_in_path("container")?;
        return Ok(Some((azure(container, host)?, rest)));
    }
    if host == "storage.googleapis.com" {
        let (bucket, rest) = bucket_in_path("bucket")?;
        return Ok(Some((Store::Google { bucket: checked(bucket, "bucket")? }, rest)));
    }
    if let Some(bucket) = host.strip_suffix(".storage.googleapis.com") {
        return Ok(Some((Store::Google { bucket: checked(bucket, "bucket")? }, path)));
    }
    if host.ends_with(".r2.cloudflarestorage.com") {
        let (bucket, rest) = bucket_in_path("bucket")?;
        let bucket = checked(bucket, "bucket")?;
        return Ok(Some((Store::S3 { bucket, endpoint: Some(format!("https://{host}")) }, rest)));
    }
    let Some((labels, domain)) = ["amazonaws.com", "amazonaws.com.cn"]
        .iter()
        .find_map(|domain| Some((host.strip_suffix(domain)?.strip_suffix('.')?, *domain)))
    else {
        return Ok(None);
    };
    let labels: Vec<&str> = labels.split('.').collect();
    let Some(at) = labels.iter().rposition(|label| *label == "s3" || label.starts_with("s3-")) else {
        return Ok(None);
    };
    let (bucket, rest) = match at {
        0 => bucket_in_path("bucket")?,
        _ => ("", path),
    };
    let bucket = if at == 0 { bucket.to_owned() } else { labels[..at].join(".") };
    // Regions of the main partition are found from the bucket alone; those of others, and dual stacks, are not.
    let service = labels[at..].join(".");
    let apart =
        domain.ends_with(".cn") || ["dualstack", "us-gov-", "us-iso", "fips"].iter().any(|w| service.contains(w));
    let endpoint = apart.then(|| format!("https://{service}.{domain}"));
    Ok(Some((Store::S3 { bucket: checked(&bucket, "bucket")?, endpoint }, rest)))
}
