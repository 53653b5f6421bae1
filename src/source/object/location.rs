//! Where objects are: `s3://bucket/prefix` and its kin, taken apart.
//!
//! Keys are what people see in other tools, so that in the clouds' own forms nothing is percent-encoded; in those that
//! begin with `http` all is, as everywhere in the web.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

/// The kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Amazon S3, or one that speaks as it does.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// WebDAV.
    WebDav,
}

/// A place in a store, see [`Location::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What speaks there.
    pub kind: Kind,
    /// The bucket or container; of WebDAV, scheme and host.
    pub bucket: String,
    /// What all keys begin with, without slashes at either end; empty for all of it.
    pub prefix: String,
    /// The account, where Azure's form names it.
    pub account: Option<String>,
    /// The region, where S3's form names it.
    pub region: Option<String>,
}

/// What is wrong with the text of a location, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LocationError(String);

/// True for what is meant as one: a scheme and `://`.
pub fn is_location(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

impl Location {
    /// Takes a location apart:
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`,
    /// `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`, and `https://HOST/PATH` for WebDAV and for the addresses
    /// that the clouds show.
    ///
    /// # Errors
    /// If it is none, says more than that, or holds a password.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let wrong = |text: &str| Err(LocationError(text.to_owned()));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("no location; write it as s3://BUCKET/PREFIX");
        };
        let scheme = scheme.to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "s3" | "s3a" => Kind::S3,
            "gs" | "gcs" => Kind::Gcs,
            "az" | "azure" | "adl" | "abfs" | "abfss" => Kind::Azure,
            "http" | "https" | "webdav" | "webdavs" | "dav" | "davs" => return Self::parse_web(&scheme, text),
            _ => {
                return Err(LocationError(format!(
                    "`{scheme}://` is no kind of store that is known; there are s3, gs, az, abfss and https (WebDAV)"
                )));
            }
        };
        let (mut bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut account = None;
        if let (Kind::Azure, Some((container, host))) = (kind, bucket.split_once('@')) {
            let name = host.split('.').next().unwrap_or_default();
            if name.is_empty() {
                return wrong("no account; write it as abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX");
            }
            (bucket, account) = (container, Some(name.to_owned()));
        }
        if bucket.contains('@') || bucket.contains(':') {
            return wrong(
                "no keys or ports belong in it; keys are found as the cloud's own tools find them, another \
                          server is `--option endpoint=http://HOST:PORT`",
            );
        }
        if bucket.is_empty() {
            return Err(LocationError(format!("no bucket; write it as {scheme}://BUCKET/PREFIX")));
        }
        Ok(Self { kind, bucket: bucket.to_owned(), prefix: clean(prefix)?, account, region: None })
    }

    fn parse_web(scheme: &str, text: &str) -> Result<Self, LocationError> {
        let wrong = |text: String| Err(LocationError(text));
        let (_, rest) = text.split_once("://").unwrap_or_default();
        let scheme = if matches!(scheme, "http" | "webdav" | "dav") { "http" } else { "https" };
        let url = match Url::parse(&format!("{scheme}://{rest}")) {
            Ok(url) => url,
            Err(error) => return wrong(format!("no address ({error}); write it as https://HOST/PATH")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong(
                "no user or password belongs in an address, where others see it; set VEINFS_WEBDAV_USER and \
                          VEINFS_WEBDAV_PASSWORD, or put them in ~/.netrc"
                    .to_owned(),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong(
                "nothing behind `?` or `#` belongs in it; percent-encode these as %3F and %23 in names".into(),
            );
        }
        let Ok(path) = percent_decode_str(url.path()).decode_utf8() else {
            return wrong("its path is no UTF-8".into());
        };
        let path = clean(path.trim_start_matches('/'))?;
        let host = url.host_str().unwrap_or_default();
        let labels: Vec<&str> = host.split('.').collect();
        let first_and_rest =
            || path.split_once('/').map_or((path.clone(), String::new()), |(a, b)| (a.into(), b.into()));
        let plain =
            |kind, (bucket, prefix): (String, String)| Self { kind, bucket, prefix, account: None, region: None };
        let found = if let Some(account) =
            host.strip_suffix(".blob.core.windows.net").or_else(|| host.strip_suffix(".dfs.core.windows.net"))
        {
            Self { account: Some(account.to_owned()), ..plain(Kind::Azure, first_and_rest()) }
        } else if host == "storage.googleapis.com" || host == "storage.cloud.google.com" {
            plain(Kind::Gcs, first_and_rest())
        } else if let Some(name) = host.strip_suffix(".storage.googleapis.com") {
            plain(Kind::Gcs, (name.to_owned(), path))
        } else if let [before @ .., "amazonaws", "com"] = &*labels
            && let Some(at) = before.iter().rposition(|label| *label == "s3" || label.starts_with("s3-"))
        {
            let region = before.get(at + 1).map(|region| (*region).to_owned());
            let place = if at == 0 { first_and_rest() } else { (before[..at].join("."), path) };
            Self { region, ..plain(Kind::S3, place) }
        } else {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            plain(Kind::WebDav, (format!("{scheme}://{host}{port}"), path))
        };
        if found.bucket.is_empty() {
            return wrong("no bucket in it; add it to the path".into());
        }
        Ok(found)
    }

    /// What the root directory is called: the last component, or the bucket.
    pub fn name(&self) -> &str {
        match self.prefix.rsplit('/').next() {
            Some(last) if !last.is_empty() => last,
            _ => self.bucket.rsplit('/').next().unwrap_or_default(),
        }
    }
}

/// A prefix without slashes at its ends.
fn clean(prefix: &str) -> Result<String, LocationError> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(LocationError(format!("`{prefix}` has an empty, `.` or `..` component, which cannot be shown")));
    }
    if prefix.contains('\0') {
        return Err(LocationError("a NUL cannot be in it".to_owned()));
    }
    Ok(prefix.to_owned())
}

/// In the form that is shown, and that parses to the same.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.account) {
            (Kind::S3, _) => write!(f, "s3://{}", self.bucket)?,
            (Kind::Gcs, _) => write!(f, "gs://{}", self.bucket)?,
            (Kind::Azure, None) => write!(f, "az://{}", self.bucket)?,
            (Kind::Azure, Some(account)) => write!(f, "abfss://{}@{account}.dfs.core.windows.net", self.bucket)?,
            (Kind::WebDav, _) => f.write_str(&self.bucket)?,
        }
        if self.prefix.is_empty() {
            return Ok(());
        }
        match self.kind {
            Kind::WebDav => write!(f, "/{}", super::client::encoded_path(&self.prefix)),
            _ => write!(f, "/{}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        let table = [
            ("s3://lab-runs/2026", "s3 lab-runs 2026 2026"),
            ("s3://lab-runs", "s3 lab-runs  lab-runs"),
            ("s3://lab-runs/", "s3 lab-runs  lab-runs"),
            ("S3A://b/a/b c/%41/", "s3 b a/b c/%41 %41"),
            ("gs://b/x", "gcs b x x"),
            ("az://c/x", "azure c x x"),
            ("abfss://c@acct.dfs.core.windows.net/x/y", "azure c x/y y acct"),
            ("https://acct.blob.core.windows.net/c/x%20y", "azure c x y x y acct"),
            ("https://b.s3.eu-west-1.amazonaws.com/x/y", "s3 b x/y y region eu-west-1"),
            ("https://my.b.s3.amazonaws.com/x", "s3 my.b x x"),
            ("https://s3.eu-west-1.amazonaws.com/b/x", "s3 b x x region eu-west-1"),
            ("https://storage.googleapis.com/b/x", "gcs b x x"),
            (
                "https://dav.example.org:8443/remote.php/a%20b/",
                "webdav https://dav.example.org:8443 remote.php/a b a b",
            ),
            ("http://127.0.0.1:80/", "webdav http://127.0.0.1  127.0.0.1"),
            ("webdavs://h/x", "webdav https://h x x"),
        ];
        for (text, wanted) in table {
            let found = Location::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut shown =
                format!("{:?} {} {} {}", found.kind, found.bucket, found.prefix, found.name()).to_lowercase();
            found.account.iter().for_each(|account| shown.push_str(&format!(" {account}")));
            found.region.iter().for_each(|region| shown.push_str(&format!(" region {region}")));
            assert_eq!(shown, wanted, "{text}");
            assert!(is_location(text));
        }
    }

    #[test]
    fn what_is_none() {
        let wrong = [
            "s3:///x",
            "s3://",
            "ftp://h/x",
            "s3://b//x",
            "s3://b/../x",
            "s3://k:s@b/x",
            "https://u:p@h/x",
            "https://h/x?y",
            "https://h/x#y",
            "https://",
            "abfss://c@/x",
            "https://storage.googleapis.com/",
        ];
        for text in wrong {
            let error = Location::parse(text).expect_err(text).to_string();
            assert!(!error.contains("u:p") && error.len() > 10, "{error}");
        }
        for text in ["/a/b", "a=/x", "./s3:/x", "1s://x", "a b://c"] {
            assert!(!is_location(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_same(
            scheme in prop::sample::select(vec!["s3", "gs", "az", "https"]),
            bucket in "[a-z][a-z0-9]{1,8}",
            parts in prop::collection::vec("[^/\0]{1,6}", 0..4),
        ) {
            let encode = |part: &String| if scheme == "https" { super::super::client::encoded_path(part) } else { part.clone() };
            let path: Vec<String> = parts.iter().map(encode).collect();
            let text = format!("{scheme}://{bucket}/{}", path.join("/"));
            if let Ok(one) = Location::parse(&text) {
                prop_assert_eq!(Location::parse(&one.to_string()), Ok(one));
            } else {
                prop_assert!(parts.iter().any(|part| part == "." || part == ".."), "{}", text);
            }
        }
    }
}
