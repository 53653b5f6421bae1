//! Who asks: credentials of all kinds, from homes and services that are made up, and connecting with them.
//!
//! No test sets a variable of this process: environments are values.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use object_store::ObjectStoreExt;
use object_store::aws::AwsCredential;
use serde_json::{Value, json};
use veinfs::source::object::connect::{ConnectError, Protocol, Remote, connect, runtime};
use veinfs::source::object::credentials::aws::{Aws, Settings};
use veinfs::source::object::credentials::environment::Environment;
use veinfs::source::object::credentials::web::Web;
use veinfs::source::object::credentials::{CredentialError, Fetched, Origin};
use veinfs::source::object::location::Location;
use veinfs::source::object::location::options::Options;

/// What was asked.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// `METHOD /path`.
    what: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// A status, headers and a body.
type Reply = (u16, Vec<(&'static str, String)>, String);

fn reply(status: u16, body: impl ToString) -> Reply {
    (status, Vec::new(), body.to_string())
}

/// A server that answers as a function says, and keeps what it was asked; it ends with the test.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A reply of status 0 never comes.
    fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                let service = service_fn(move |request| respond(request, Arc::clone(&kept), Arc::clone(&answer)));
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.push(Ended(tokio::spawn(async move { drop(served.await) })));
            }
        });
        Server { url, asked, task }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

/// A task that ends with its owner.
struct Ended(tokio::task::JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn respond(
    request: hyper::Request<hyper::body::Incoming>,
    kept: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<impl Fn(&Asked) -> Reply>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers = parts.headers.iter().map(|(name, v)| (name.to_string(), v.to_str().unwrap_or("?").to_owned()));
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
    let asked = Asked {
        what: format!("{} {}", parts.method, parts.uri.path()),
        query: query.collect(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (status, headers, text) = answer(&asked);
    kept.lock().expect("no panic").push(asked);
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let response = headers.into_iter().fold(hyper::Response::builder().status(status), |r, (name, v)| r.header(name, v));
    Ok(response.body(Full::new(text.into())).expect("a response"))
}

/// A home directory and an environment that know nothing of this machine's.
struct Home {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    fn new(variables: &[(&str, &str)]) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().to_str().expect("UTF-8").to_owned();
        let mut of: Vec<(String, String)> = vec![("HOME".into(), home), ("PATH".into(), "/usr/bin:/bin".into())];
        of.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Home { dir, variables: of }
    }

    fn file(self, path: &str, text: &str) -> Home {
        self.write(path, text);
        self
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the home")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn environment(&self) -> Environment {
        Environment::of(self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// AWS's credentials as this home has them.
    fn aws(&self) -> Result<Fetched<AwsCredential>, CredentialError> {
        let settings = Settings::new(&self.environment(), &Options::default());
        let aws = Aws::new(settings, Web::new().expect("a client"));
        runtime().block_on(aws.fetch())
    }

    fn connect(&self, location: &str, options: &[(&str, &str)]) -> Result<Remote, ConnectError> {
        let location = Location::parse(location).expect("a location");
        let options = Options::parse(&location.store, options.iter().copied()).expect("options");
        runtime().block_on(connect(&location, &options, &self.environment()))
    }
}

fn triple(fetched: &Fetched<AwsCredential>) -> (&str, &str, Option<&str>) {
    let credential = &fetched.credential;
    (&credential.key_id, &credential.secret_key, credential.token.as_deref())
}

const SOON: &str = "2100-01-01T00:00:00Z";

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
    let config = "[default]\nrole_arn = arn:x\nsource_profile = default\naws_access_key_id = A\naws_secret_access_key = B\n";
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
    let config = "[default]\nrole_arn = arn:x\nsource_profile = default\naws_access_key_id = A\naws_secret_access_key = B\n";
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
    assert_eq!((&kept["accessToken"], &kept["refreshToken"], &kept["other"]), (&json!("good"), &json!("r2"), &json!("kept")));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(triple(&home.aws().expect("as it is kept")).0, "SSO");
    assert_eq!(server.asked().iter().filter(|asked| asked.what == "POST /token").count(), 1);
}

fn instance(asked: &Asked) -> Reply {
    let keys = json!({"Code": "Success", "AccessKeyId": "EC2", "SecretAccessKey": "S", "Token": "T", "Expiration": SOON});
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
    let aws = ["AWS_ACCESS_KEY_ID", &config, "does not answer", "aws configure", "aws sso login", "skip_signature=true"];
    says_there_are_none(&home, "s3://bucket", &[("endpoint", "http://127.0.0.1:1")], &aws);
    let google = ["GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth application-default login", "does not answer"];
    says_there_are_none(&home, "gs://bucket", &[], &google);
    let azure = ["AZURE_STORAGE_KEY", "az login", "skip_signature=true", "does not answer"];
    says_there_are_none(&home, "abfss://c@account.dfs.core.windows.net", &[], &azure);
    let disabled = Home::new(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    says_there_are_none(&disabled, "s3://bucket", &[("endpoint", "http://127.0.0.1:1")], &["AWS_EC2_METADATA_DISABLED"]);
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
        let remote = home.connect("s3://bucket/a b", &[("endpoint", &s3.url)]).unwrap_or_else(|error| panic!("{error}"));
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
            (_, "GET /bucket/a") => (200, vec![("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT".into())], "text".into()),
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
    let store = Server::start(|_| (200, vec![("x-ms-blob-type", "BlockBlob".into())], "text".into()));
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
