//! Connecting to stores: none without credentials, regions found, credentials that rotate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use serde_json::json;
use veinfs::source::object::connect::{Protocol, Remote, runtime};

use super::identity::SOON;
use super::made_up::{Asked, Home, Server, reply};

/// That there are no credentials is said soon, with where they were sought and what to do.
#[track_caller]
fn says_there_are_none(home: &Home, location: &str, options: &[(&str, &str)], wanted: &[&str]) {
    let start = Instant::now();
    let error = home.connect(location, options).expect_err("no credentials");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(!error.is_away(), "{error}");
    for wanted in wanted {
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn that_there_are_no_credentials_is_said_soon() {
    let silent = Server::start(|_| reply(0, ""));
    let home = Home::new(&[
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &silent.url),
        ("GCE_METADATA_HOST", silent.host()),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &silent.url),
    ]);
    let config = home.path(".aws/config").display().to_string();
    let aws =
        ["AWS_ACCESS_KEY_ID", &config, "does not answer", "aws configure", "aws sso login", "skip_signature=true"];
    says_there_are_none(&home, "s3://bucket", &[("endpoint", "http://127.0.0.1:1")], &aws);
    let google = ["GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth application-default login", "does not answer"];
    says_there_are_none(&home, "gs://bucket", &[], &google);
    let azure = ["AZURE_STORAGE_KEY", "az login", "skip_signature=true", "does not answer"];
    says_there_are_none(&home, "abfss://c@account.dfs.core.windows.net", &[], &azure);
    let disabled = Home::new(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    says_there_are_none(
        &disabled,
        "s3://bucket",
        &[("endpoint", "http://127.0.0.1:1")],
        &["AWS_EC2_METADATA_DISABLED"],
    );
    let empty = Home::new(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")]);
    says_there_are_none(&empty, "s3://bucket", &[("endpoint", "http://127.0.0.1:1")], &["does not answer"]);
}

const LISTED: &str = "<ListBucketResult><Name>bucket</Name></ListBucketResult>";

/// The credential's key and region of a request's signature.
fn signer(asked: &Asked) -> (String, String) {
    let credential = asked.header("authorization").split("Credential=").nth(1).unwrap_or_default();
    let mut parts = credential.split('/');
    let id = parts.next().unwrap_or_default().to_owned();
    (id, parts.nth(1).unwrap_or_default().to_owned())
}

fn keys_home(variables: &[(&str, &str)]) -> Home {
    Home::new(variables).file(".aws/credentials", "[default]\naws_access_key_id = OLD\naws_secret_access_key = S\n")
}

#[test]
fn the_region_is_found_by_asking() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-south-2</Region></Error>";
    for by_header in [true, false] {
        let s3 = Server::start(move |asked| match signer(asked).1.as_str() {
            "eu-south-2" => reply(200, LISTED),
            _ if by_header => (301, vec![("x-amz-bucket-region", "eu-south-2".into())], String::new()),
            _ => reply(400, malformed),
        });
        let home = keys_home(&[("AWS_REGION", "us-west-2")]);
        let remote =
            home.connect("s3://bucket/a b", &[("endpoint", &s3.url)]).unwrap_or_else(|error| panic!("{error}"));
        let Protocol::S3 { region, bucket_url, .. } = &remote.protocol else { panic!("{remote:?}") };
        assert_eq!((region.as_str(), bucket_url.path()), ("eu-south-2", "/bucket"));
        assert_eq!(s3.asked().iter().map(|asked| signer(asked).1).collect::<Vec<_>>(), ["us-west-2", "eu-south-2"]);
        assert_eq!(s3.asked()[0].query.get("prefix").map(String::as_str), Some("a b/"));
        assert_eq!(remote.identity, format!("s3://bucket/a%20b at {}", s3.url));
    }
}

#[test]
fn what_a_bucket_answers_is_said_with_a_cure() {
    let code = |status: u16, code: &str| reply(status, format!("<Error><Code>{code}</Code></Error>"));
    for (answer, options, wanted, away) in [
        (code(404, "NoSuchBucket"), &[][..], "no bucket `bucket`", false),
        (code(403, "AccessDenied"), &[], "s3:ListBucket", false),
        (code(403, "AccessDenied"), &[("skip_signature", "true")], "leave out skip_signature", false),
        (code(503, "SlowDown"), &[], "SlowDown", true),
        (reply(200, "<html>a login page</html>"), &[], "not as S3 does", false),
    ] {
        let s3 = Server::start(move |_| answer.clone());
        let options = [&[("endpoint", s3.url.as_str())], options].concat();
        let error = keys_home(&[]).connect("s3://bucket", &options).expect_err(wanted);
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(error.is_away(), away, "{error}");
    }
    let error = keys_home(&[]).connect("s3://bucket", &[("endpoint", "http://127.0.0.1:1")]).expect_err("no server");
    assert!(error.is_away() && error.to_string().contains("no connection"), "{error}");
}

#[test]
fn public_buckets_want_no_credentials() {
    let s3 = Server::start(|asked| match asked.header("authorization") {
        "" if asked.what == "GET /bucket/a" => reply(200, "text"),
        "" => reply(200, LISTED),
        _ => reply(403, ""),
    });
    let remote = Home::new(&[]).connect("s3://bucket", &[("endpoint", &s3.url), ("skip_signature", "true")]);
    let remote = remote.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(remote.protocol, Protocol::S3 { credentials: None, .. }));
    assert_eq!(&get(&remote, "a").expect("read")[..], b"text");
}

fn get(remote: &Remote, key: &str) -> object_store::Result<Bytes> {
    runtime().block_on(async { remote.store.get(&key.into()).await?.bytes().await })
}

#[test]
fn credentials_that_rotate_are_read_anew_when_they_are_refused() {
    for status in [400, 403] {
        let good = Arc::new(Mutex::new("OLD"));
        let known = Arc::clone(&good);
        let s3 = Server::start(move |asked| match (signer(asked).0, asked.what.as_str()) {
            (id, _) if id != *known.lock().expect("no panic") => {
                reply(status, "<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>")
            }
            (_, "GET /bucket/a") => reply(200, "text"),
            _ => reply(200, LISTED),
        });
        let home = keys_home(&[]);
        let remote = home.connect("s3://bucket", &[("endpoint", &s3.url)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&get(&remote, "a").expect("with the old key")[..], b"text");
        *good.lock().expect("no panic") = "NEW";
        home.write(".aws/credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = S\n");
        assert_eq!(&get(&remote, "a").expect("with the new key")[..], b"text", "{status}");
        let Protocol::S3 { credentials: Some(credentials), .. } = &remote.protocol else { panic!("{remote:?}") };
        let credential = runtime().block_on(credentials.get_credential()).expect("held");
        assert_eq!(credential.key_id, "NEW", "listing has them, too");
        // A store that refuses all is not asked twice each time.
        *good.lock().expect("no panic") = "NOBODY";
        assert!(get(&remote, "a").is_err());
        let before = s3.asked().len();
        assert!(get(&remote, "a").is_err());
        assert_eq!(s3.asked().len(), before + 1);
        assert!(!format!("{remote:?}").contains("secret_key"), "no secret is shown");
    }
}

#[test]
fn credentials_that_expire_are_replaced() {
    let calls = Mutex::new(0);
    let service = Server::start(move |_| {
        let mut calls = calls.lock().expect("no panic");
        *calls += 1;
        // The first is over at once, the second is not.
        let expires = if *calls == 1 { "2020-01-01T00:00:00Z" } else { SOON };
        reply(200, json!({"AccessKeyId": format!("K{calls}"), "SecretAccessKey": "S", "Expiration": expires}))
    });
    let s3 = Server::start(|asked| if asked.what == "GET /bucket/a" { reply(200, "text") } else { reply(200, LISTED) });
    let home = Home::new(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url)]);
    let remote = home.connect("s3://bucket", &[("endpoint", &s3.url)]).unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..2 {
        get(&remote, "a").expect("read");
    }
    let signers: Vec<_> = s3.asked().iter().map(|asked| signer(asked).0).collect();
    assert_eq!(signers, ["K1", "K2", "K2"]);
}

#[test]
fn an_instance_of_google_gives_its_token() {
    let metadata = Server::start(|asked| match (asked.what.as_str(), asked.header("metadata-flavor")) {
        ("GET /computeMetadata/v1/instance/service-accounts/default/token", "Google") => {
            reply(200, json!({"access_token": "ya29", "expires_in": 3600, "token_type": "Bearer"}))
        }
        _ => reply(403, ""),
    });
    let store = Server::start(|_| reply(200, "text"));
    let home = Home::new(&[("GCE_METADATA_HOST", metadata.host())]);
    let remote = home.connect("gs://bucket", &[("base_url", &store.url)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&get(&remote, "a").expect("read")[..], b"text");
    assert_eq!(store.asked()[0].header("authorization"), "Bearer ya29");
    assert!(!format!("{remote:?}").contains("ya29"));
    let remote = home.connect("gs://bucket", &[("base_url", &store.url), ("skip_signature", "true")]);
    get(&remote.unwrap_or_else(|error| panic!("{error}")), "a").expect("read");
    assert_eq!(store.asked()[1].header("authorization"), "");
}

#[test]
fn credentials_of_google_that_cannot_be_used_are_named() {
    for (text, wanted) in [
        (r#"{"type": "external_account"}"#, "gcloud auth application-default print-access-token"),
        ("no JSON", "gcloud auth application-default login"),
    ] {
        let home = Home::new(&[]).file(".config/gcloud/application_default_credentials.json", text);
        let error = home.connect("gs://bucket", &[]).expect_err(text).to_string();
        assert!(error.contains(wanted) && error.contains("application_default_credentials.json"), "{error}");
    }
    let home = Home::new(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")]);
    let error = home.connect("gs://bucket", &[]).expect_err("no file").to_string();
    assert!(error.contains("/nowhere.json"), "{error}");
}

#[test]
fn azure_by_key_and_without() {
    let store = Server::start(|_| reply(200, "text"));
    let home = Home::new(&[("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_KEY", "c2VjcmV0")]);
    for (location, signature) in
        [("az://c", "SharedKey acc:"), ("abfss://c@acc.dfs.core.windows.net", "SharedKey acc:")]
    {
        let remote = home.connect(location, &[("endpoint", &store.url)]).unwrap_or_else(|error| panic!("{error}"));
        get(&remote, "a").expect("read");
        let asked = store.asked().pop().expect("asked");
        assert!(asked.header("authorization").starts_with(signature), "{asked:?}");
        assert_eq!(asked.what, "GET /c/a");
        assert!(!format!("{remote:?}").contains("c2VjcmV0"));
    }
    let remote = home.connect("az://c", &[("endpoint", &store.url), ("skip_signature", "true")]);
    get(&remote.unwrap_or_else(|error| panic!("{error}")), "a").expect("read");
    assert_eq!(store.asked().pop().expect("asked").header("authorization"), "");
}

#[test]
fn webdav_by_netrc() {
    let server = Server::start(|asked| match asked.header("authorization") {
        // `me:hush`
        "Basic bWU6aHVzaA==" => reply(200, "text"),
        _ => reply(401, ""),
    });
    let home = Home::new(&[]).file(".netrc", "machine 127.0.0.1 login me password hush\n");
    let location = format!("{}/dav", server.url);
    let remote = home.connect(&location, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&get(&remote, "dav/a").expect("read")[..], b"text");
    assert_eq!(server.asked()[0].what, "GET /dav/a");
    assert_eq!(server.asked()[0].header("user-agent"), concat!("veinfs/", env!("CARGO_PKG_VERSION")));
    assert!(get(&Home::new(&[]).connect(&location, &[]).expect("connected"), "dav/a").is_err());
}
