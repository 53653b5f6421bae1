//! The credentials of AWS' own tools: profiles in `~/.aws/config` and `~/.aws/credentials`.
//!
//! `object_store` knows keys in the environment, web identities, containers and instances. Profiles are read here, since
//! `aws-config` would double what is built: static keys, `credential_process`, roles that are assumed, single sign-on,
//! and web identities, as the AWS SDKs' reference guide describes them ("Shared config and credentials files").

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use http::Request;
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequestBody};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::fault::{Fault, FaultKind, whole};

/// Keys are got anew so long before they end.
const EARLY: Duration = Duration::from_secs(300);
/// Keys that were got within this time are not got again because they are refused.
const FRESH: Duration = Duration::from_secs(10);
/// The most profiles that lead from one to the next.
const MOST_HOPS: usize = 8;
/// How long a `credential_process` may take.
const PROCESS_LIMIT: Duration = Duration::from_secs(30);

/// Looks up an environment variable; in tests, another one than the process has.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The environment of this process; what is empty is not set.
pub fn environment() -> Env {
    Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The sections of the two files, by kind and name, with their keys.
type Sections = HashMap<(&'static str, String), HashMap<String, String>>;

/// A profile, and the keys that it led to last.
pub struct Profile {
    name: String,
    env: Env,
    http: HttpClient,
    known: Mutex<Option<Keys>>,
    /// One asks at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Keys {
    credential: Arc<AwsCredential>,
    got: SystemTime,
    ends: Option<SystemTime>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lacking(text: impl Into<Box<str>>) -> Fault {
    Fault::new(FaultKind::NoCredentials, text)
}

/// Where the two files are.
fn files(env: &Env) -> [(Option<PathBuf>, bool); 2] {
    let home = env("HOME").map(PathBuf::from);
    let path = |variable: &str, name: &str| {
        env(variable).map(PathBuf::from).or_else(|| Some(home.clone()?.join(".aws").join(name)))
    };
    [(path("AWS_CONFIG_FILE", "config"), true), (path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), false)]
}

fn sections(env: &Env) -> Sections {
    let mut sections = Sections::new();
    for (path, is_config) in files(env) {
        // One that cannot be read holds nothing for us.
        if let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) {
            parse(&text, is_config, &mut sections);
        }
    }
    sections
}

/// Adds the sections of a file; those of the second one go before.
fn parse(text: &str, is_config: bool, into: &mut Sections) {
    let mut at = None;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = bare.strip_prefix('[') {
            let head = head.split(']').next().unwrap_or_default().trim();
            let (kind, name) = head.split_once(char::is_whitespace).unwrap_or(("", head));
            at = match (kind, is_config) {
                ("profile", true) => Some(("profile", name.trim().to_owned())),
                ("sso-session", true) => Some(("sso-session", name.trim().to_owned())),
                ("", true) if name == "default" => Some(("profile", name.to_owned())),
                ("", false) => Some(("profile", name.to_owned())),
                _ => None,
            };
            continue;
        }
        // What is further in belongs to a key such as `s3 =`, and is of other tools.
        if line.starts_with([' ', '\t']) {
            continue;
        }
        if let (Some(at), Some((key, value))) = (&at, bare.split_once('=')) {
            let value = value.trim();
            let value = value.split(" #").next().unwrap_or_default().trim();
            into.entry(at.clone()).or_default().insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
}

/// What a profile says of a setting, such as `region`.
pub fn setting(env: &Env, profile: &str, key: &str) -> Option<String> {
    let sections = sections(env);
    sections.get(&("profile", profile.to_owned()))?.get(key).filter(|value| !value.is_empty()).cloned()
}

/// True if there is a profile of this name with credentials in it.
pub fn has_credentials(env: &Env, profile: &str) -> bool {
    let sections = sections(env);
    let known = ["aws_access_key_id", "credential_process", "role_arn", "sso_account_id", "sso_session"];
    let found = sections.get(&("profile", profile.to_owned()));
    found.is_some_and(|keys| known.iter().any(|key| keys.contains_key(*key)))
}

/// The names of all profiles.
pub fn names(env: &Env) -> Vec<String> {
    let mut names: Vec<String> =
        sections(env).into_keys().filter(|(kind, _)| *kind == "profile").map(|(_, name)| name).collect();
    names.sort_unstable();
    names
}

impl Profile {
    /// The profile of a name; nothing is read yet.
    pub fn new(name: &str, env: Env, http: HttpClient) -> Self {
        Self { name: name.to_owned(), env, http, known: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// Forgets the keys, as they are refused; false if others are not to be expected.
    pub fn forget(&self) -> bool {
        let mut known = self.known.lock();
        let old = known.as_ref().is_some_and(|keys| keys.got.elapsed().is_ok_and(|age| age > FRESH));
        if old {
            *known = None;
        }
        old
    }

    fn usable(&self) -> Option<Arc<AwsCredential>> {
        let known = self.known.lock();
        let keys = known.as_ref()?;
        let good = keys.ends.is_none_or(|ends| ends > SystemTime::now() + EARLY);
        good.then(|| Arc::clone(&keys.credential))
    }

    async fn keys(&self) -> Result<Arc<AwsCredential>, Fault> {
        if let Some(credential) = self.usable() {
            return Ok(credential);
        }
        let _asking = self.asking.lock().await;
        if let Some(credential) = self.usable() {
            return Ok(credential);
        }
        match self.resolve(&self.name, 0).await {
            Ok((credential, ends)) => {
                let credential = Arc::new(credential);
                *self.known.lock() = Some(Keys { credential: Arc::clone(&credential), got: SystemTime::now(), ends });
                Ok(credential)
            }
            Err(fault) => {
                // Those that there are may last some minutes yet.
                let known = self.known.lock().clone();
                let lasting = known.filter(|keys| keys.ends.is_some_and(|ends| ends > SystemTime::now()));
                lasting.map(|keys| keys.credential).ok_or(fault)
            }
        }
    }

    async fn resolve(&self, name: &str, hops: usize) -> Result<(AwsCredential, Option<SystemTime>), Fault> {
        let sections = sections(&self.env);
        let Some(profile) = sections.get(&("profile", name.to_owned())) else {
            return Err(lacking(format!("there is no AWS profile `{name}` in {}", places(&self.env))));
        };
        let get = |key: &str| profile.get(key).map(String::as_str).filter(|value| !value.is_empty());
        if let Some(role) = get("role_arn") {
            return Box::pin(self.assume(name, role, profile, hops)).await;
        }
        if let (Some(id), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
            let token = get("aws_session_token").map(str::to_owned);
            return Ok((AwsCredential { key_id: id.to_owned(), secret_key: secret.to_owned(), token }, None));
        }
        if get("sso_session").is_some() || get("sso_start_url").is_some() {
            return self.sign_on(name, profile, &sections).await;
        }
        if let Some(command) = get("credential_process") {
            return process(command).await;
        }
        Err(lacking(format!("the AWS profile `{name}` has no credentials that are known here")))
    }

    /// A role (STS, AssumeRole and AssumeRoleWithWebIdentity).
    async fn assume(
        &self,
        name: &str,
        role: &str,
        profile: &HashMap<String, String>,
        hops: usize,
    ) -> Result<(AwsCredential, Option<SystemTime>), Fault> {
        let get = |key: &str| profile.get(key).map(String::as_str).filter(|value| !value.is_empty());
        if hops >= MOST_HOPS {
            return Err(lacking(format!("the AWS profile `{name}` leads back to itself by `source_profile`")));
        }
        let region = get("region").map(str::to_owned).or_else(|| (self.env)("AWS_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let session = get("role_session_name").unwrap_or("veinfs");
        let mut query = vec![("Version", "2011-06-15".to_owned()), ("RoleArn", role.to_owned())];
        query.push(("RoleSessionName", session.to_owned()));
        if let Some(seconds) = get("duration_seconds") {
            query.push(("DurationSeconds", seconds.to_owned()));
        }
        let source = if let Some(file) = get("web_identity_token_file") {
            let token = std::fs::read_to_string(file).map_err(|error| lacking(format!("{file}: {error}")))?;
            query.push(("Action", "AssumeRoleWithWebIdentity".to_owned()));
            query.push(("WebIdentityToken", token.trim().to_owned()));
            None
        } else {
            query.push(("Action", "AssumeRole".to_owned()));
            if let Some(id) = get("external_id") {
                query.push(("ExternalId", id.to_owned()));
            }
            Some(match (get("source_profile"), get("credential_source")) {
                // A role whose source is itself uses the keys beside it.
                (Some(source), _) if source == name => own_keys(name, profile)?,
                (Some(source), _) => Box::pin(self.resolve(source, hops + 1)).await?.0,
                (None, Some("Environment")) => env_keys(&self.env)
                    .ok_or_else(|| lacking("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"))?,
                (None, _) => {
                    return Err(lacking(format!("the AWS profile `{name}` has a role and no `source_profile`")));
                }
            })
        };
        let endpoint =
            (self.env)("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com"));
        let query: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let address = format!("{}/?{}", endpoint.trim_end_matches('/'), query.join("&"));
        let mut request = request(&address)?;
        if let Some(source) = &source {
            let signer = AwsAuthorizer::new(source, "sts", &region);
            signer.try_authorize(&mut request, None).map_err(|error| lacking(whole(&error)))?;
        }
        let text = self.ask(request).await?;
        let part = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
        };
        let (Some(key_id), Some(secret_key)) = (part("AccessKeyId"), part("SecretAccessKey")) else {
            return Err(lacking("what the token service says cannot be understood"));
        };
        let ends = part("Expiration").and_then(|text| time(&text));
        Ok((AwsCredential { key_id, secret_key, token: part("SessionToken") }, ends))
    }

    /// Single sign-on, with the token that `aws sso login` has left.
    async fn sign_on(
        &self,
        name: &str,
        profile: &HashMap<String, String>,
        sections: &Sections,
    ) -> Result<(AwsCredential, Option<SystemTime>), Fault> {
        let session = profile.get("sso_session");
        let shared = session.and_then(|session| sections.get(&("sso-session", session.clone())));
        let get = |key: &str| profile.get(key).or_else(|| shared?.get(key)).filter(|value| !value.is_empty());
        let need = |key: &str| get(key).ok_or_else(|| lacking(format!("the AWS profile `{name}` has no `{key}`")));
        let (url, account, role) = (need("sso_start_url")?, need("sso_account_id")?, need("sso_role_name")?);
        let region = need("sso_region")?;
        let login = format!("log in with `aws sso login --profile {name}`");
        let home = (self.env)("HOME").ok_or_else(|| lacking("HOME is not set"))?;
        let digest = Sha1::digest(session.unwrap_or(url).as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let cache = Path::new(&home).join(".aws/sso/cache").join(format!("{digest}.json"));
        let Ok(text) = std::fs::read_to_string(&cache) else {
            return Err(lacking(format!("nobody has logged in for the AWS profile `{name}`; {login}")));
        };
        let cached: Value =
            serde_json::from_str(&text).map_err(|_| lacking(format!("{}: damaged", cache.display())))?;
        let ends = cached["expiresAt"].as_str().and_then(time);
        let token = cached["accessToken"].as_str().unwrap_or_default();
        if token.is_empty() || ends.is_some_and(|ends| ends <= SystemTime::now()) {
            return Err(Fault::new(FaultKind::Expired, format!("the login of the AWS profile `{name}`; {login}")));
        }
        let endpoint =
            (self.env)("AWS_ENDPOINT_URL_SSO").unwrap_or_else(|| format!("https://portal.sso.{region}.amazonaws.com"));
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (account, role) = (encode(account), encode(role));
        let endpoint = endpoint.trim_end_matches('/');
        let address = format!("{endpoint}/federation/credentials?account_id={account}&role_name={role}");
        let mut request = request(&address)?;
        let token = token.parse().map_err(|_| lacking("the token of the login is no header"))?;
        request.headers_mut().insert("x-amz-sso_bearer_token", token);
        let text = self.ask(request).await.map_err(|fault| match fault.kind {
            FaultKind::Denied => Fault::new(FaultKind::Expired, format!("{}; {login}", fault.detail)),
            _ => fault,
        })?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let keys = &answer["roleCredentials"];
        let text = |key: &str| keys[key].as_str().map(str::to_owned);
        let (Some(key_id), Some(secret_key)) = (text("accessKeyId"), text("secretAccessKey")) else {
            return Err(lacking("what the single sign-on says cannot be understood"));
        };
        let ends = keys["expiration"].as_u64().map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        Ok((AwsCredential { key_id, secret_key, token: text("sessionToken") }, ends))
    }

    async fn ask(&self, request: Request<HttpRequestBody>) -> Result<String, Fault> {
        let answer = self.http.execute(request).await.map_err(|error| Fault::of_connection(&error))?;
        let (parts, body) = answer.into_parts();
        let mut body = body.bytes_stream();
        let mut text = Vec::new();
        while let Some(more) = body.next().await {
            text.extend_from_slice(&more.map_err(|error| Fault::of_connection(&error))?);
            if text.len() > 1 << 20 {
                return Err(lacking("an answer of more than a MiB"));
            }
        }
        if !parts.status.is_success() {
            return Err(Fault::of_answer(parts.status, &parts.headers, &text));
        }
        String::from_utf8(text).map_err(|_| lacking("an answer that is no UTF-8"))
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let lacking = |fault| object_store::Error::Generic { store: "AWS", source: Box::new(fault) };
        self.keys().await.map_err(lacking)
    }
}

fn request(address: &str) -> Result<Request<HttpRequestBody>, Fault> {
    let request = Request::builder().uri(address).header("accept", "application/json, text/xml");
    request.body(HttpRequestBody::empty()).map_err(|error| lacking(format!("{address}: {error}")))
}

fn own_keys(name: &str, profile: &HashMap<String, String>) -> Result<AwsCredential, Fault> {
    match (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(AwsCredential {
            key_id: id.clone(),
            secret_key: secret.clone(),
            token: profile.get("aws_session_token").cloned(),
        }),
        _ => Err(lacking(format!("the AWS profile `{name}` has no keys of its own"))),
    }
}

/// The keys that are in the environment itself.
pub fn env_keys(env: &Env) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: env("AWS_ACCESS_KEY_ID")?,
        secret_key: env("AWS_SECRET_ACCESS_KEY")?,
        token: env("AWS_SESSION_TOKEN"),
    })
}

/// What was looked at, for people.
pub fn places(env: &Env) -> String {
    let paths = files(env).into_iter().filter_map(|(path, _)| path);
    paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}

/// The keys that a program prints (`credential_process`).
async fn process(command: &str) -> Result<(AwsCredential, Option<SystemTime>), Fault> {
    let line = command.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        std::process::Command::new("/bin/sh").args(["-c", &line]).stdin(std::process::Stdio::null()).output()
    });
    let failed = |text: String| lacking(format!("credential_process: {text}"));
    let output = tokio::time::timeout(PROCESS_LIMIT, run)
        .await
        .map_err(|_| failed("it does not end".into()))?
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.lines().last().unwrap_or_default())));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let text = |key: &str| answer[key].as_str().map(str::to_owned);
    let (Some(key_id), Some(secret_key)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
        return Err(failed("it prints no AccessKeyId and SecretAccessKey".into()));
    };
    Ok((AwsCredential { key_id, secret_key, token: text("SessionToken") }, text("Expiration").and_then(|t| time(&t))))
}

/// A time as AWS writes it (RFC 3339, and `UTC` for `Z` in old caches).
fn time(text: &str) -> Option<SystemTime> {
    let text = text.trim().replace("UTC", "Z");
    chrono::DateTime::parse_from_rfc3339(&text).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests;
