use object_store::client::{HttpConnector, ReqwestConnector};

use super::*;
use crate::source::object::connect::{client_options, runtime};
use crate::source::object::testing::{Answer, Server};

/// A home with the two files in it.
struct Home(tempfile::TempDir, Vec<(String, String)>);

impl Home {
    fn new(config: &str, credentials: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join(".aws/sso/cache")).expect("a directory");
        std::fs::write(dir.path().join(".aws/config"), config).expect("written");
        std::fs::write(dir.path().join(".aws/credentials"), credentials).expect("written");
        let home = dir.path().display().to_string();
        Self(dir, vec![("HOME".to_owned(), home)])
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.1.push((name.to_owned(), value.to_owned()));
        self
    }

    fn env(&self) -> Env {
        let variables = self.1.clone();
        Arc::new(move |name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    fn profile(&self, name: &str) -> Profile {
        let http = ReqwestConnector::default().connect(&client_options(true)).expect("a client");
        Profile::new(name, self.env(), http)
    }

    fn keys(&self, name: &str) -> Result<String, String> {
        let keys = runtime().block_on(self.profile(name).keys());
        keys.map(|keys| format!("{} {} {}", keys.key_id, keys.secret_key, keys.token.as_deref().unwrap_or("-")))
            .map_err(|fault| fault.to_string())
    }
}

#[test]
fn files_are_read_as_aws_reads_them() {
    let home = Home::new(
        "# a comment\n[default]\nregion = eu-west-1\n\n[profile work]\nregion=us-west-2\ns3 =\n  region = nowhere\n\
         endpoint_url = http://x # a comment\n[services a]\nregion = wrong\n[work2]\nregion = none\n",
        "[default]\naws_access_key_id = A\naws_secret_access_key = S=1/2+\n[work]\nAWS_ACCESS_KEY_ID=B\n\
         aws_secret_access_key=T\naws_session_token=U\n",
    );
    let env = home.env();
    assert_eq!(setting(&env, "default", "region").as_deref(), Some("eu-west-1"));
    assert_eq!(setting(&env, "work", "region").as_deref(), Some("us-west-2"));
    assert_eq!(setting(&env, "work", "endpoint_url").as_deref(), Some("http://x"));
    assert_eq!(setting(&env, "work2", "region"), None);
    assert_eq!(names(&env), ["default", "work"]);
    assert_eq!(home.keys("default").as_deref(), Ok("A S=1/2+ -"));
    assert_eq!(home.keys("work").as_deref(), Ok("B T U"));
    assert!(home.keys("home").expect_err("there is none").contains("there is no AWS profile `home`"));
    assert!(has_credentials(&env, "work") && !has_credentials(&env, "home"));
}

#[test]
fn a_program_tells_keys() {
    let json = r#"{\"Version\":1,\"AccessKeyId\":\"P\",\"SecretAccessKey\":\"Q\",\"SessionToken\":\"R\"}"#;
    let home = Home::new(
        &format!(
            "[profile p]\ncredential_process = echo \"{json}\"\n[profile bad]\ncredential_process = echo no >&2; false\n"
        ),
        "",
    );
    assert_eq!(home.keys("p").as_deref(), Ok("P Q R"));
    let error = home.keys("bad").expect_err("it fails");
    assert!(error.contains("credential_process") && error.contains("no"), "{error}");
}

#[test]
fn roles_are_assumed() {
    let answer = "<AssumeRoleResponse><Credentials><AccessKeyId>R</AccessKeyId><SecretAccessKey>S</SecretAccessKey>\
                  <SessionToken>T</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResponse>";
    let server = Server::start(move |request| {
        let signed = request.headers.get("authorization").is_some();
        assert!(request.query.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx"), "{}", request.query);
        if request.query.contains("Action=AssumeRoleWithWebIdentity") {
            assert!(!signed && request.query.contains("WebIdentityToken=tok"));
        } else {
            assert!(signed && request.query.contains("ExternalId=e1"));
        }
        Answer::text(200, answer)
    });
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "tok\n").expect("written");
    let role = "role_arn = arn:aws:iam::1:role/x";
    let home = Home::new(
        &format!(
            "[profile a]\n{role}\nsource_profile = base\nexternal_id = e1\n[profile b]\n{role}\nsource_profile = c\n\
             [profile c]\n{role}\nsource_profile = b\n[profile w]\n{role}\nweb_identity_token_file = {}\n[profile n]\n{role}\n",
            token.display()
        ),
        "[base]\naws_access_key_id = A\naws_secret_access_key = S\n",
    )
    .with("AWS_ENDPOINT_URL_STS", &server.url());
    assert_eq!(home.keys("a").as_deref(), Ok("R S T"));
    assert_eq!(home.keys("w").as_deref(), Ok("R S T"));
    assert!(home.keys("b").expect_err("a loop").contains("leads back to itself"));
    assert!(home.keys("n").expect_err("no source").contains("no `source_profile`"));
}

#[test]
fn single_sign_on() {
    let server = Server::start(|request| {
        assert_eq!(request.query, "account_id=123&role_name=Read%20Only");
        match request.headers.get("x-amz-sso_bearer_token").and_then(|value| value.to_str().ok()) {
            Some("good") => Answer::text(
                200,
                r#"{"roleCredentials":{"accessKeyId":"K","secretAccessKey":"L","sessionToken":"M","expiration":4070908800000}}"#,
            ),
            _ => Answer::text(401, "<Message>Session token not found or invalid</Message>"),
        }
    });
    let home = Home::new(
        "[profile s]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = Read Only\n\
         [sso-session corp]\nsso_start_url = https://x/start\nsso_region = eu-west-1\n",
        "",
    )
    .with("AWS_ENDPOINT_URL_SSO", &server.url());
    assert!(home.keys("s").expect_err("no login").contains("`aws sso login --profile s`"));
    // The SHA-1 of `corp`.
    let digest: String = Sha1::digest(b"corp").iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = home.0.path().join(".aws/sso/cache").join(format!("{digest}.json"));
    let write = |token: &str, ends: &str| {
        std::fs::write(&cache, format!(r#"{{"accessToken":"{token}","expiresAt":"{ends}"}}"#)).expect("written");
    };
    write("good", "2099-01-01T00:00:00Z");
    assert_eq!(home.keys("s").as_deref(), Ok("K L M"));
    write("good", "2019-01-01T00:00:00UTC");
    assert!(home.keys("s").expect_err("it has ended").contains("expired"));
    write("bad", "2099-01-01T00:00:00Z");
    let error = home.keys("s").expect_err("it is refused");
    assert!(error.contains("expired") && error.contains("aws sso login --profile s"), "{error}");
}

#[test]
fn keys_that_are_refused_are_got_again() {
    let home = Home::new("", "[d]\naws_access_key_id = A\naws_secret_access_key = S\n");
    let profile = home.profile("d");
    let id = || runtime().block_on(profile.keys()).expect("keys").key_id.clone();
    assert_eq!(id(), "A");
    std::fs::write(home.0.path().join(".aws/credentials"), "[d]\naws_access_key_id = B\naws_secret_access_key = S\n")
        .expect("written");
    assert_eq!(id(), "A", "they are good as long as nobody refuses them");
    assert!(!profile.forget(), "they have only just been read");
    profile.known.lock().as_mut().expect("keys").got -= FRESH * 2;
    assert!(profile.forget());
    assert_eq!(id(), "B");
}
