use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::source::object::client::Asked;
use crate::source::object::count::Purpose;
use crate::source::object::fault::FaultKind;
use crate::source::object::testing::{Answer, Server};

fn env(variables: &[(&str, &str)]) -> Env {
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(move |name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
}

fn pairs(options: &[(&str, &str)]) -> Pairs {
    options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn refused(location: &str, key: &str) -> String {
    let location = Location::parse(location).expect("a location");
    connect_with(&location, &pairs(&[(key, "x")]), env(&[])).expect_err(key).to_string()
}

#[test]
fn options_are_checked() {
    let text = |location, key| refused(location, key);
    insta::assert_snapshot!(text("s3://b", "reigon"), @"--option reigon: no such option of this kind of store; did you mean `region`?");
    insta::assert_snapshot!(text("s3://b", "secret_access_key"), @"--option secret_access_key: a secret, which others would see; set AWS_SECRET_ACCESS_KEY in the environment instead");
    insta::assert_snapshot!(text("az://b", "azure_storage_account_key"), @"--option azure_storage_account_key: a secret, which others would see; set AZURE_STORAGE_ACCOUNT_KEY in the environment instead");
    assert!(text("gs://b", "profile").contains("no such option"));
    assert!(text("https://h/x", "region").contains("no such option"));
    for (location, key) in [
        ("s3://b", "region"),
        ("s3://b", "aws_endpoint_url"),
        ("s3://b", "profile"),
        ("s3://b", "allow_http"),
        ("s3://b", "virtual-hosted-style-request"),
        ("gs://b", "google_base_url"),
        ("az://b", "account_name"),
        ("https://h", "proxy_url"),
    ] {
        let location = Location::parse(location).expect("a location");
        let made = connect_with(
            &location,
            &pairs(&[(key, if key == "allow_http" { "true" } else { "http://127.0.0.1:1" })]),
            env(&[]),
        );
        assert!(made.is_ok(), "{key}: {:?}", made.err());
    }
}

fn list(client: &Client) -> Result<(), super::super::fault::Fault> {
    let asked = Asked {
        purpose: Purpose::List,
        method: http::Method::GET,
        path: "",
        query: vec![("list-type", "2".to_owned())],
        headers: Vec::new(),
    };
    runtime().block_on(client.send(&asked)).map(drop)
}

#[test]
fn who_has_no_credentials_is_told_so_at_once() {
    let location = Location::parse("s3://b/x").expect("a location");
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().display().to_string();
    // Nobody answers there: a port that is closed.
    let nobody = "http://127.0.0.1:9";
    let variables = env(&[("HOME", &home), ("AWS_METADATA_ENDPOINT", nobody), ("AWS_ENDPOINT_URL", nobody)]);
    let client = connect_with(&location, &Pairs::new(), variables).expect("a client");
    let begun = Instant::now();
    let fault = list(&client).expect_err("nobody signs");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let text = fault.to_string();
    for part in ["no credentials", "aws configure", "skip_signature", ".aws/config"] {
        assert!(text.contains(part), "{text}");
    }
    let missing = env(&[("HOME", &home), ("AWS_PROFILE", "work"), ("AWS_ENDPOINT_URL", nobody)]);
    let client = connect_with(&location, &Pairs::new(), missing).expect("a client");
    assert!(list(&client).expect_err("no profile").to_string().contains("there is no AWS profile `work`"));
}

#[test]
fn requests_are_signed_where_there_are_keys() {
    let server = Server::start(|asked| match (asked.header("authorization"), &*asked.path) {
        (Some(value), "/b") if value.contains("/eu-north-1/s3/aws4_request") => Answer::text(200, "signed"),
        (None, "/open") => Answer::text(200, "anonymous"),
        (Some("Bearer x"), "/g") | (Some("Basic dTpw"), "") | (Some("Basic dTpw"), "/") => Answer::text(200, "bearer"),
        (value, path) => Answer::text(403, &format!("<Code>AccessDenied</Code><Message>{path} {value:?}</Message>")),
    });
    let url = server.url();
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S")];
    let send = |location: &str, options: &[(&str, &str)], variables: &[(&str, &str)]| {
        let location = Location::parse(location).expect("a location");
        list(&connect_with(&location, &pairs(options), env(variables)).expect("a client"))
    };
    let with_region = [keys[0], keys[1], ("AWS_REGION", "eu-north-1"), ("AWS_ENDPOINT_URL", &url)];
    assert_eq!(send("s3://b/x", &[], &with_region), Ok(()));
    assert_eq!(send("s3://b/x", &[("endpoint", &url), ("region", "eu-north-1")], &keys), Ok(()));
    let fault = send("s3://b/x", &[("endpoint", &url)], &keys).expect_err("another region");
    assert_eq!(fault.kind, FaultKind::Denied);
    assert_eq!(send("s3://open/x", &[("endpoint", &url), ("skip_signature", "true")], &keys), Ok(()));
    assert_eq!(send("gs://g", &[("base_url", &url)], &[("GOOGLE_BEARER_TOKEN", "x")]), Ok(()));
    let user = [("VEINFS_WEBDAV_USER", "u"), ("VEINFS_WEBDAV_PASSWORD", "p")];
    assert_eq!(send(&url, &[], &user), Ok(()));
    let client = connect_with(
        &Location::parse("s3://b").expect("one"),
        &pairs(&[("endpoint", &url), ("region", "eu-north-1")]),
        env(&keys),
    );
    let client = client.expect("a client");
    list(&client).expect("it is signed");
    assert_eq!(client.counts.of(Purpose::List), 1);
}
