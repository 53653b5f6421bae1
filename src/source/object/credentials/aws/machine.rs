//! Credentials that this machine gives: a configured process, the container, the instance.

use std::io::Read;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use http::{Method, StatusCode};
use object_store::aws::AwsCredential;
use serde_json::Value;
use url::{Host, Url};

use super::super::environment::Environment;
use super::super::web::{Answer, Web, request};
use super::{CredentialError, Fetched, Keys, time};
use crate::source::object::location::options::truth;

/// A process that gives credentials has to end within this: it may ask a browser.
const PROCESS: Duration = Duration::from_secs(60);
const CONTAINER: &str = "the container's credential service";

/// What a command prints, run by the shell, as AWS's tools do; see "Sourcing credentials with an external process".
///
/// # Errors
/// It fails, takes longer than a minute, or prints something else.
pub async fn process(
    profile: &str,
    command: &str,
    environment: &Environment,
) -> Result<Fetched<AwsCredential>, CredentialError> {
    let what = format!("credential_process of profile `{profile}`");
    let fail = |reason: String| CredentialError::Configured { what: what.clone(), reason };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    shell.env_clear().envs(environment.beginning(""));
    let printed = tokio::task::spawn_blocking(move || printed_by(shell, PROCESS)).await;
    let printed = printed.map_err(|error| fail(error.to_string()))?.map_err(fail)?;
    let value: Value = serde_json::from_slice(&printed).map_err(|_| fail("it prints no JSON".to_owned()))?;
    if value["Version"] != 1 {
        return Err(fail("it prints JSON of another version than 1".to_owned()));
    }
    from_json(&value, "SessionToken").ok_or_else(|| fail("it prints no AccessKeyId and SecretAccessKey".to_owned()))
}

/// What a command prints, or why not.
fn printed_by(mut command: Command, within: Duration) -> Result<Vec<u8>, String> {
    let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let mut stdout = child.stdout.take().expect("piped above");
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut printed = Vec::new();
        let read = stdout.by_ref().take(1 << 20).read_to_end(&mut printed);
        drop(send.send(read.map(|_| printed)));
    });
    let printed = receive.recv_timeout(within);
    if printed.is_err() {
        drop(child.kill());
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match printed {
        Err(_) => Err(format!("it does not end within {} s", within.as_secs())),
        Ok(_) if !status.success() => Err(format!("it fails ({status}); run it to see why")),
        Ok(printed) => printed.map_err(|error| error.to_string()),
    }
}

/// What the container's environment names; see "Container credential provider".
///
/// # Errors
/// A URL that a token must not be sent to; the service refuses, or does not answer.
pub async fn container(web: &Web, environment: &Environment) -> Result<Fetched<AwsCredential>, CredentialError> {
    let url = match environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) => format!("http://169.254.170.2{path}"),
        None => environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap_or_default().to_owned(),
    };
    if !is_local_or_tls(&url) {
        return Err(CredentialError::Configured {
            what: "AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(),
            reason: "a plain http URL has to be of this machine".to_owned(),
        });
    }
    let token = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            let path = environment.expand(path);
            let text = std::fs::read_to_string(&path);
            Some(text.map_err(|source| CredentialError::File { path, source })?.trim().to_owned())
        }
        None => environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
    };
    let headers: Vec<(&str, &str)> = token.iter().map(|token| ("authorization", token.as_str())).collect();
    let make = || request(Method::GET, &url, &headers, String::new());
    let answer = web.ask_local(CONTAINER, make).await?;
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match from_json(&value, "Token") {
        Some(fetched) if answer.status.is_success() => Ok(fetched),
        _ => Err(CredentialError::Refused { by: CONTAINER.to_owned(), reason: answer.status.to_string() }),
    }
}

/// Whether a token may be sent there: over TLS, or to loopback and the link-local addresses of ECS and EKS.
fn is_local_or_tls(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    let known = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
    url.scheme() == "https"
        || url.host_str() == Some("localhost")
        || address.is_some_and(|address| address.is_loopback() || known.contains(&address.to_string().as_str()))
}

/// The role of the instance that this is, by IMDSv2, else by version 1 where that is allowed.
///
/// # Errors
/// What was there instead, for a list of what was looked at.
pub async fn instance(web: &Web, environment: &Environment) -> Result<Fetched<AwsCredential>, String> {
    let is = |name: &str| environment.get(name).and_then(truth) == Some(true);
    if is("AWS_EC2_METADATA_DISABLED") {
        return Err("instance metadata, which AWS_EC2_METADATA_DISABLED forbids".to_owned());
    }
    let is_v6 =
        environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|m| m.eq_ignore_ascii_case("ipv6"));
    let default = if is_v6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
    let host = environment.first(&["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"]).unwrap_or(default);
    let host = host.trim_end_matches('/');
    let silent = || format!("instance metadata at {host}, which does not answer");
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| -> Result<Answer, String> {
        let request = request(method, &format!("{host}{path}"), headers, String::new()).map_err(|e| e.to_string())?;
        web.ask_machine(request).await.ok_or_else(silent)
    };
    let answer = ask(Method::PUT, "/latest/api/token", &[("x-aws-ec2-metadata-token-ttl-seconds", "21600")]).await?;
    let token = answer.text();
    let header = ("x-aws-ec2-metadata-token", token.trim());
    let headers = match answer.status {
        status if status.is_success() => std::slice::from_ref(&header),
        // Before version 2 there was no such path.
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
            if !is("AWS_EC2_METADATA_V1_DISABLED") =>
        {
            &[]
        }
        status => return Err(format!("instance metadata at {host}, which refuses ({status})")),
    };
    let roles = "/latest/meta-data/iam/security-credentials/";
    let answer = ask(Method::GET, roles, headers).await?;
    let role = answer.text();
    let role = role.lines().next().unwrap_or_default().trim();
    if !answer.status.is_success() || role.is_empty() {
        return Err(format!("instance metadata at {host}, which knows no role of this instance"));
    }
    let answer = ask(Method::GET, &format!("{roles}{role}"), headers).await?;
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let given = from_json(&value, "Token").filter(|_| answer.status.is_success());
    given.ok_or_else(|| format!("instance metadata at {host}, which gives no credentials of the role {role}"))
}

/// Credentials as processes, containers and instances write them, all but for the token's key.
fn from_json(value: &Value, token: &str) -> Option<Fetched<AwsCredential>> {
    let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let keys = Keys { id: text("AccessKeyId")?, secret: text("SecretAccessKey")?, token: text(token) };
    Some(keys.fetched(value["Expiration"].as_str().and_then(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_to_this_machine_or_over_tls() {
        for (url, wanted) in [
            ("https://example.org/c", true),
            ("http://127.0.0.1:80/c", true),
            ("http://localhost/c", true),
            ("http://[::1]/c", true),
            ("http://169.254.170.2/c", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://example.org/c", false),
            ("http://169.254.169.254/c", false),
            ("http://169.254.170.2@example.org/", false),
            ("", false),
        ] {
            assert_eq!(is_local_or_tls(url), wanted, "{url}");
        }
    }

    fn printed(script: &str, within: Duration) -> Result<Vec<u8>, String> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).stdout(Stdio::piped()).stderr(Stdio::null());
        printed_by(shell, within)
    }

    #[test]
    fn processes_end_in_time_and_well() {
        assert_eq!(printed("echo a", PROCESS), Ok(b"a\n".to_vec()));
        assert!(printed("echo a; exit 3", PROCESS).is_err_and(|reason| reason.contains("run it to see why")));
        let start = std::time::Instant::now();
        let late = printed("exec sleep 60", Duration::from_millis(50));
        assert!(late.is_err_and(|reason| reason.contains("does not end")));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
