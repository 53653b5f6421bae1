use super::*;
use crate::source::object::credentials::environment::Environment;

const CONFIG: &str = "\
[default]
region = eu-west-1
[profile keys]
aws_access_key_id = ID
aws_secret_access_key = SECRET
[profile half]
aws_access_key_id = ID
[profile role]
role_arn = arn:role
source_profile = keys
external_id = them
duration_seconds = 900
[profile chain]
role_arn = arn:chain
source_profile = role
role_session_name = me
[profile self]
role_arn = arn:self
source_profile = self
aws_access_key_id = ID
aws_secret_access_key = SECRET
[profile a]
role_arn = arn:a
source_profile = b
[profile b]
role_arn = arn:b
source_profile = a
[profile mfa]
role_arn = arn:mfa
source_profile = keys
mfa_serial = arn:device
[profile web]
role_arn = arn:web
web_identity_token_file = /token
[profile env]
role_arn = arn:env
credential_source = Environment
[profile ec2]
role_arn = arn:ec2
credential_source = Ec2InstanceMetadata
[profile nosource]
role_arn = arn:x
[profile badsource]
role_arn = arn:x
credential_source = Nowhere
[profile dangling]
role_arn = arn:x
source_profile = keyss
[profile sso]
sso_session = org
sso_account_id = 123456789012
sso_role_name = Reader
[profile legacy]
sso_start_url = https://org.awsapps.com/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = Reader
[profile ssohalf]
sso_session = org
sso_role_name = Reader
[profile ssonone]
sso_session = nobody
[profile process]
credential_process = /bin/creds
[profile login]
login_session = arn:aws:iam::1:user/me
[sso-session org]
sso_region = eu-central-1
sso_start_url = https://org.awsapps.com/start
";

fn planned(profile: Option<&str>, variables: &[(&str, &str)]) -> Result<Plan, String> {
    let mut profiles = Profiles::default();
    profiles.add(CONFIG, false);
    let environment = Environment::of(variables.iter().copied());
    let settings = Settings { environment, profile: profile.map(str::to_owned), role: None };
    plan(&settings, &profiles).map_err(|error| error.to_string())
}

fn keys(id: &str, secret: &str, token: Option<&str>) -> Plan {
    Plan::Keys(Keys { id: id.into(), secret: secret.into(), token: token.map(str::to_owned) })
}

fn role(arn: &str) -> Role {
    Role { arn: arn.into(), ..Role::default() }
}

#[test]
fn the_order_is_that_of_awss_own_tools() {
    let own = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "S"), ("AWS_SESSION_TOKEN", "T")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:w"), ("AWS_PROFILE", "keys")];
    let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c")];
    assert_eq!(planned(None, &own), Ok(keys("E", "S", Some("T"))));
    assert_eq!(planned(None, &[&own[..], &[("AWS_PROFILE", "keys")]].concat()), Ok(keys("E", "S", Some("T"))));
    assert_eq!(planned(Some("keys"), &own), Ok(keys("ID", "SECRET", None)), "an option comes before the environment");
    assert_eq!(planned(None, &web), Ok(Plan::WebIdentity { token_file: "/t".into(), role: role("arn:w") }));
    assert_eq!(planned(None, &[("AWS_PROFILE", "keys")]), Ok(keys("ID", "SECRET", None)));
    assert_eq!(planned(None, &[("AWS_DEFAULT_PROFILE", "keys")]), Ok(keys("ID", "SECRET", None)));
    assert_eq!(planned(Some("keys"), &container), Ok(keys("ID", "SECRET", None)));
    assert_eq!(planned(None, &container), Ok(Plan::Container));
    assert_eq!(planned(None, &[("AWS_ACCESS_KEY_ID", "")]), Ok(Plan::Instance), "an empty variable is none");
}

#[test]
fn profiles_in_all_their_kinds() {
    let lent = Role { external_id: Some("them".into()), duration_seconds: Some("900".into()), ..role("arn:role") };
    let of_keys = Plan::Role { base: Box::new(keys("ID", "SECRET", None)), role: lent };
    assert_eq!(planned(Some("role"), &[]), Ok(of_keys.clone()));
    let named = Role { session_name: Some("me".into()), ..role("arn:chain") };
    assert_eq!(planned(Some("chain"), &[]), Ok(Plan::Role { base: Box::new(of_keys), role: named }));
    let own = Plan::Role { base: Box::new(keys("ID", "SECRET", None)), role: role("arn:self") };
    assert_eq!(planned(Some("self"), &[]), Ok(own));
    assert_eq!(planned(Some("web"), &[]), Ok(Plan::WebIdentity { token_file: "/token".into(), role: role("arn:web") }));
    assert_eq!(planned(Some("ec2"), &[]), Ok(Plan::Role { base: Box::new(Plan::Instance), role: role("arn:ec2") }));
    let variables = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "S")];
    let of_environment = Plan::Role { base: Box::new(keys("E", "S", None)), role: role("arn:env") };
    assert_eq!(planned(Some("env"), &variables), Ok(of_environment));
    let command = Plan::Process { profile: "process".into(), command: "/bin/creds".into() };
    assert_eq!(planned(Some("process"), &[]), Ok(command));
    let sso = |profile: &str, token_name: &str, region: &str| {
        Plan::Sso(Sso {
            profile: profile.into(),
            token_name: token_name.into(),
            region: region.into(),
            account: "123456789012".into(),
            role: "Reader".into(),
        })
    };
    assert_eq!(planned(Some("sso"), &[]), Ok(sso("sso", "org", "eu-central-1")));
    assert_eq!(planned(Some("legacy"), &[]), Ok(sso("legacy", "https://org.awsapps.com/start", "us-east-1")));
}

#[test]
fn what_cannot_be_meant_is_said_with_a_cure() {
    for (profile, wanted) in [
        ("keyz", "did you mean `keys`?"),
        ("half", "without aws_secret_access_key"),
        ("a", "a → b → a"),
        ("mfa", "aws configure export-credentials --profile mfa"),
        ("env", "AWS_ACCESS_KEY_ID is not set"),
        ("nosource", "either source_profile or credential_source"),
        ("badsource", "Ec2InstanceMetadata"),
        ("dangling", "did you mean `keys`?"),
        ("ssohalf", "no sso_account_id; run `aws configure sso --profile ssohalf`"),
        ("ssonone", "[sso-session nobody]"),
        ("login", "credential_process = aws configure export-credentials --profile login"),
    ] {
        let error = planned(Some(profile), &[]).expect_err(profile);
        assert!(error.contains(wanted), "{profile}: {error}");
    }
    let half = planned(None, &[("AWS_ACCESS_KEY_ID", "E")]).expect_err("half");
    assert!(half.contains("AWS_SECRET_ACCESS_KEY"), "{half}");
    let half = planned(None, &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]).expect_err("half");
    assert!(half.contains("AWS_ROLE_ARN"), "{half}");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", planned(Some("role"), &[]));
    assert!(!shown.contains("SECRET"), "{shown}");
}
