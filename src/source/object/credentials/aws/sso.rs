//! Credentials by IAM Identity Center, with the token that `aws sso login` left in its cache.
//!
//! The cache is `~/.aws/sso/cache/NAME.json`, NAME being the SHA-1 of the session's name or start URL in hex. A token that
//! has expired and came with a refresh token is renewed and written back, as AWS's tools do: they share it, and a refresh
//! token may be good for one use only.
//!
//! API: AWS SSO portal reference, `GetRoleCredentials`; OIDC reference, `CreateToken`.

use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use http::{Method, StatusCode};
use object_store::aws::AwsCredential;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use url::form_urlencoded::Serializer;

use super::super::environment::Environment;
use super::super::web::{Web, request};
use super::plan::Sso;
use super::profiles::Profiles;
use super::{CredentialError, Fetched, Keys, Settings, time};

const SSO: &str = "AWS IAM Identity Center";
/// Tokens that end sooner are renewed.
const MARGIN: Duration = Duration::minutes(5);

/// The credentials of a role in an account.
///
/// # Errors
/// Nobody has logged in, or the login has expired; it is refused, or the service does not answer.
pub async fn role_credentials(
    web: &Web,
    settings: &Settings,
    profiles: &Profiles,
    login: &Sso,
) -> Result<Fetched<AwsCredential>, CredentialError> {
    let token = token(web, settings, profiles, login).await?;
    let host = settings.endpoint(profiles, "sso");
    let host = host.unwrap_or_else(|| format!("https://portal.sso.{}.{}", login.region, domain(&login.region)));
    let query = Serializer::new(String::new())
        .append_pair("role_name", &login.role)
        .append_pair("account_id", &login.account)
        .finish();
    let url = format!("{}/federation/credentials?{query}", host.trim_end_matches('/'));
    let headers = [("x-amz-sso_bearer_token", token.as_str())];
    let make = || request(Method::GET, &url, &headers, String::new());
    let answer = web.ask(SSO, make).await?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Err(expired(login));
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if !answer.status.is_success() {
        let message = body["message"].as_str().unwrap_or("it says no more");
        let reason = format!("{}: {message} (role {} in {})", answer.status, login.role, login.account);
        return Err(CredentialError::Refused { by: SSO.to_owned(), reason });
    }
    let role = &body["roleCredentials"];
    let text = |key: &str| role[key].as_str().map(str::to_owned);
    match (text("accessKeyId"), text("secretAccessKey"), text("sessionToken")) {
        (Some(id), Some(secret), token @ Some(_)) => {
            let expires = role["expiration"].as_i64().and_then(DateTime::from_timestamp_millis);
            Ok(Keys { id, secret, token }.fetched(expires))
        }
        _ => {
            Err(CredentialError::Unreachable { by: SSO.to_owned(), reason: "an answer without credentials".to_owned() })
        }
    }
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn expired(login: &Sso) -> CredentialError {
    CredentialError::Expired {
        what: format!("the login of profile `{}`", login.profile),
        cure: format!("run `aws sso login --profile {}`", login.profile),
    }
}

/// Where the token is kept.
fn cache_file(environment: &Environment, login: &Sso) -> Option<PathBuf> {
    let hash: String = Sha1::digest(login.token_name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    environment.at_home(&format!(".aws/sso/cache/{hash}.json"))
}

async fn token(web: &Web, settings: &Settings, profiles: &Profiles, login: &Sso) -> Result<String, CredentialError> {
    let path = cache_file(&settings.environment, login).ok_or_else(|| expired(login))?;
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CredentialError::Missing {
                cloud: "AWS",
                looked: vec![format!(
                    "the SSO token of profile `{}`, {}, which is not there",
                    login.profile,
                    path.display()
                )],
                cure: format!("run `aws sso login --profile {}`", login.profile),
            });
        }
        Err(source) => return Err(CredentialError::File { path, source }),
    };
    let kept: Value = serde_json::from_slice(&text).unwrap_or_default();
    let ends = kept["expiresAt"].as_str().and_then(time);
    let token = kept["accessToken"].as_str().ok_or_else(|| expired(login))?;
    let left = ends.map_or(Duration::zero(), |end| end - Utc::now());
    if left > MARGIN {
        return Ok(token.to_owned());
    }
    match refreshed(web, settings, profiles, login, &kept).await {
        Some(fresh) => {
            let token = fresh["accessToken"].as_str().unwrap_or_default().to_owned();
            if let Err(error) = write(&path, &fresh) {
                tracing::warn!("{}: the renewed SSO token is not kept: {error}", path.display());
            }
            Ok(token)
        }
        None if left > Duration::zero() => Ok(token.to_owned()),
        None => Err(expired(login)),
    }
}

/// The token renewed, as it is kept; nothing if it cannot be.
async fn refreshed(web: &Web, settings: &Settings, profiles: &Profiles, login: &Sso, kept: &Value) -> Option<Value> {
    let text = |key: &str| kept[key].as_str();
    if text("registrationExpiresAt").and_then(time).is_some_and(|end| end < Utc::now()) {
        return None;
    }
    let body = json!({
        "clientId": text("clientId")?,
        "clientSecret": text("clientSecret")?,
        "grantType": "refresh_token",
        "refreshToken": text("refreshToken")?,
    });
    let host = settings.endpoint(profiles, "sso_oidc");
    let host = host.unwrap_or_else(|| format!("https://oidc.{}.{}", login.region, domain(&login.region)));
    let url = format!("{}/token", host.trim_end_matches('/'));
    let headers = [("content-type", "application/json")];
    let make = || request(Method::POST, &url, &headers, body.to_string());
    let answer = web.ask(SSO, make).await.ok().filter(|answer| answer.status.is_success())?;
    let given: Value = serde_json::from_slice(&answer.body).ok()?;
    let mut fresh = kept.clone();
    fresh["accessToken"] = json!(given["accessToken"].as_str()?);
    let ends = Utc::now() + Duration::seconds(given["expiresIn"].as_i64().unwrap_or(0));
    fresh["expiresAt"] = json!(ends.to_rfc3339_opts(SecondsFormat::Secs, true));
    if let Some(next) = given["refreshToken"].as_str() {
        fresh["refreshToken"] = json!(next);
    }
    Some(fresh)
}

/// Replaces the file at once, for its owner alone: temporary files are made so.
fn write(path: &Path, token: &Value) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(token.to_string().as_bytes())?;
    file.persist(path)?;
    Ok(())
}
