//! Credentials of all kinds of AWS's, from homes and services that are made up.
//!
//! No test sets a variable of this process: environments are values.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use object_store::aws::AwsCredential;
use serde_json::{Value, json};
use veinfs::source::object::credentials::Fetched;

use super::made_up::{Asked, Home, Reply, Server, reply};

fn triple(fetched: &Fetched<AwsCredential>) -> (&str, &str, Option<&str>) {
    let credential = &fetched.credential;
    (&credential.key_id, &credential.secret_key, credential.token.as_deref())
}

pub(crate) const SOON: &str = "2100-01-01T00:00:00Z";

fn of_role(action: &str, expires: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>S&amp;1</SecretAccessKey><SessionToken>T</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials></{action}Result></{action}Response>"
    )
}

#[test]
fn a_role_is_taken_on_with_the_keys_of_another_profile() {
    let sts = Server::start(|_| reply(200, of_role("AssumeRole", SOON)));
    let config = "[profile base]\naws_access_key_id = BASE\naws_secret_access_key = SECRET\n\
                  [profile lab]\nrole_arn = arn:aws:iam::1:role/lab\nsource_profile = base\nexternal_id = them\n\
                  role_session_name = me\nduration_seconds = 900\nregion = eu-west-1\n";
    let home = Home::new(&[("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_STS", &sts.url)]).file(".aws/config", config);
    let fetched = home.aws().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(triple(&fetched), ("ROLE", "S&1", Some("T")));
    assert!(fetched.expires.is_some_and(|end| end > SystemTime::now() + Duration::from_secs(3600)));
    let asked = &sts.asked()[0];
    let form = asked.form();
    for (key, wanted) in [
        ("Action", "AssumeRole"),
        ("RoleArn", "arn:aws:iam::1:role/lab"),
        ("RoleSessionName", "me"),
        ("ExternalId", "them"),
        ("DurationSeconds", "900"),
    ] {
        assert_eq!(form.get(key).map(String::as_str), Some(wanted), "{key}");
    }
    let signature = asked.header("authorization");
    assert!(signature.contains("Credential=BASE/") && signature.contains("/eu-west-1/sts/aws4_request"), "{signature}");
}

#[test]
fn a_role_that_is_refused_says_why() {
    let sts = Server::start(|_| reply(403, "<E><Code>AccessDenied</Code><Message>not you</Message></E>"));
    let config =
        "[default]\nrole_arn = arn:x\nsource_profile = default\naws_access_key_id = A\naws_secret_access_key = B\n";
    let home = Home::new(&[("AWS_ENDPOINT_URL_STS", &sts.url)]).file(".aws/config", config);
    let error = home.aws().map(|_| ()).expect_err("refused");
    assert!(!error.is_away());
    assert_eq!(error.to_string(), "AWS STS gives no credentials: AccessDenied: not you (role arn:x)");
}

#[test]
fn services_that_fail_for_a_moment_are_asked_again() {
    let fails = Mutex::new(2);
    let sts = Server::start(move |_| {
        let mut left = fails.lock().expect("no panic");
        if *left == 0 {
            return reply(200, of_role("AssumeRole", SOON));
        }
        *left -= 1;
        reply(503, "")
    });
    let config =
        "[default]\nrole_arn = arn:x\nsource_profile = default\naws_access_key_id = A\naws_secret_access_key = B\n";
    let home = Home::new(&[("AWS_ENDPOINT_URL_STS", &sts.url)]).file(".aws/config", config);
    assert!(home.aws().is_ok());
    assert_eq!(sts.asked().len(), 3);
    drop(sts);
    assert!(home.aws().map(|_| ()).expect_err("nobody listens").is_away());
}

#[test]
fn a_web_identity_is_read_anew_each_time() {
    let sts = Server::start(|_| reply(200, of_role("AssumeRoleWithWebIdentity", SOON)));
    let home = Home::new(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "~/token"),
        ("AWS_ROLE_ARN", "arn:web"),
        ("AWS_ENDPOINT_URL_STS", &sts.url),
    ]);
    for token in ["first", "second"] {
        home.write("token", token);
        assert_eq!(triple(&home.aws().expect("given")), ("ROLE", "S&1", Some("T")));
        let asked = sts.asked().pop().expect("asked");
        assert_eq!(asked.form().get("WebIdentityToken").map(String::as_str), Some(token));
        assert_eq!(asked.header("authorization"), "", "the token is all there is");
    }
}

const SSO_CONFIG: &str = "[profile lab]\nsso_session = org\nsso_account_id = 123456789012\nsso_role_name = Reader\n\
                          [sso-session org]\nsso_region = eu-central-1\nsso_start_url = https://org.awsapps.com/start\n";

fn sso_home(server: &Server, token: &Value) -> Home {
    use sha1::Digest;
    let hash: String = sha1::Sha1::digest(b"org").iter().map(|byte| format!("{byte:02x}")).collect();
    let variables =
        [("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_SSO", &server.url), ("AWS_ENDPOINT_URL_SSO_OIDC", &server.url)];
    let path = format!(".aws/sso/cache/{hash}.json");
    Home::new(&variables).file(".aws/config", SSO_CONFIG).file(&path, &token.to_string())
}

fn sso_token(home: &Home) -> std::path::PathBuf {
    let mut all = fs::read_dir(home.path(".aws/sso/cache")).expect("made");
    all.next().expect("one").expect("read").path()
}

fn sso_service(asked: &Asked) -> Reply {
    match (asked.what.as_str(), asked.header("x-amz-sso_bearer_token")) {
        ("GET /federation/credentials", "good") => reply(
            200,
            json!({"roleCredentials": {"accessKeyId": "SSO", "secretAccessKey": "S", "sessionToken": "T",
                   "expiration": 4_102_444_800_000_i64}}),
        ),
        ("POST /token", _) if asked.body.contains("\"refreshToken\":\"r1\"") => {
            reply(200, json!({"accessToken": "good", "expiresIn": 3600, "refreshToken": "r2"}))
        }
        ("POST /token", _) => reply(400, json!({"error": "invalid_grant"})),
        _ => reply(401, json!({"message": "Session token not found or invalid"})),
    }
}

#[test]
fn a_login_by_sso_gives_the_credentials_of_its_role() {
    let server = Server::start(sso_service);
    let home = sso_home(&server, &json!({"accessToken": "good", "expiresAt": SOON}));
    let fetched = home.aws().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(triple(&fetched), ("SSO", "S", Some("T")));
    assert!(fetched.expires.is_some());
    let query = &server.asked()[0].query;
    assert_eq!(query.get("role_name").map(String::as_str), Some("Reader"));
    assert_eq!(query.get("account_id").map(String::as_str), Some("123456789012"));
}

#[test]
fn a_login_that_is_over_says_how_to_log_in() {
    let server = Server::start(sso_service);
    let past = "2020-01-01T00:00:00UTC";
    for token in [
        json!({"accessToken": "good", "expiresAt": past}),
        json!({"accessToken": "revoked", "expiresAt": SOON}),
        json!({"accessToken": "good", "expiresAt": past, "refreshToken": "used", "clientId": "c", "clientSecret": "s"}),
        json!("no token"),
    ] {
        let error = sso_home(&server, &token).aws().map(|_| ()).expect_err("over").to_string();
        assert!(error.contains("has expired; run `aws sso login --profile lab`"), "{token}: {error}");
    }
    let never = Home::new(&[("AWS_PROFILE", "lab")]).file(".aws/config", SSO_CONFIG);
    let error = never.aws().map(|_| ()).expect_err("nobody logged in").to_string();
    assert!(error.contains("run `aws sso login --profile lab`"), "{error}");
}

#[test]
fn a_login_is_renewed_and_kept_for_all_tools() {
    let server = Server::start(sso_service);
    let token = json!({"accessToken": "old", "expiresAt": "2020-01-01T00:00:00Z", "refreshToken": "r1",
                       "clientId": "c", "clientSecret": "s", "registrationExpiresAt": SOON, "other": "kept"});
    let home = sso_home(&server, &token);
    assert_eq!(triple(&home.aws().expect("renewed")).0, "SSO");
    let path = sso_token(&home);
    let kept: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    assert_eq!(
        (&kept["accessToken"], &kept["refreshToken"], &kept["other"]),
        (&json!("good"), &json!("r2"), &json!("kept"))
    );
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(triple(&home.aws().expect("as it is kept")).0, "SSO");
    assert_eq!(server.asked().iter().filter(|asked| asked.what == "POST /token").count(), 1);
}

fn instance(asked: &Asked) -> Reply {
    let keys =
        json!({"Code": "Success", "AccessKeyId": "EC2", "SecretAccessKey": "S", "Token": "T", "Expiration": SOON});
    match (asked.what.as_str(), asked.header("x-aws-ec2-metadata-token")) {
        ("PUT /latest/api/token", _) => reply(200, "metadata-token"),
        ("GET /latest/meta-data/iam/security-credentials/", "metadata-token") => reply(200, "the-role"),
        ("GET /latest/meta-data/iam/security-credentials/the-role", "metadata-token") => reply(200, keys),
        _ => reply(401, ""),
    }
}

#[test]
fn an_instance_has_the_credentials_of_its_role() {
    let server = Server::start(instance);
    let home = Home::new(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.url)]);
    assert_eq!(triple(&home.aws().expect("given")), ("EC2", "S", Some("T")));
    let old = Server::start(|asked| match asked.what.as_str() {
        "PUT /latest/api/token" => reply(403, ""),
        _ => instance(&Asked {
            headers: HashMap::from([("x-aws-ec2-metadata-token".into(), "metadata-token".into())]),
            ..asked.clone()
        }),
    });
    let mut home = Home::new(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &old.url)]);
    assert_eq!(triple(&home.aws().expect("by version 1")).0, "EC2");
    home.variables.push(("AWS_EC2_METADATA_V1_DISABLED".into(), "true".into()));
    let error = home.aws().map(|_| ()).expect_err("version 1 is forbidden").to_string();
    assert!(error.contains("refuses"), "{error}");
}

#[test]
fn a_container_is_told_where_its_credentials_are() {
    let server = Server::start(|asked| match (asked.what.as_str(), asked.header("authorization")) {
        ("GET /creds", "the token") => {
            reply(200, json!({"AccessKeyId": "POD", "SecretAccessKey": "S", "Token": "T", "Expiration": SOON}))
        }
        _ => reply(401, ""),
    });
    let url = format!("{}/creds", server.url);
    let home = Home::new(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "~/token"),
    ]);
    home.write("token", "the token\n");
    assert_eq!(triple(&home.aws().expect("given")), ("POD", "S", Some("T")));
    home.write("token", "another");
    assert!(!home.aws().map(|_| ()).expect_err("refused").is_away());
    let home = Home::new(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.org/creds")]);
    let error = home.aws().map(|_| ()).expect_err("a token is not sent there").to_string();
    assert!(error.contains("has to be of this machine"), "{error}");
}

#[test]
fn a_process_prints_credentials() {
    let config = "[default]\ncredential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"'$WHO'\", \
                  \"SecretAccessKey\": \"S\", \"Expiration\": \"2100-01-01T00:00:00+00:00\"}'\n\
                  [profile fails]\ncredential_process = echo SECRET; exit 1\n\
                  [profile other]\ncredential_process = echo '{\"Version\": 2}'\n";
    let mut home = Home::new(&[("WHO", "PROCESS")]).file(".aws/config", config);
    let fetched = home.aws().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(triple(&fetched), ("PROCESS", "S", None));
    assert!(fetched.expires.is_some());
    for (profile, wanted) in [("fails", "run it to see why"), ("other", "another version than 1")] {
        home.variables.push(("AWS_PROFILE".into(), profile.into()));
        let error = home.aws().map(|_| ()).expect_err(profile).to_string();
        assert!(error.contains(wanted) && error.contains(profile) && !error.contains("SECRET"), "{error}");
    }
}
