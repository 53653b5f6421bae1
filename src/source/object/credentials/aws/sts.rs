//! Roles, taken on at AWS's Security Token Service.
//!
//! API: AWS STS reference, `AssumeRole` and `AssumeRoleWithWebIdentity`, version 2011-06-15.

use http::Method;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use url::form_urlencoded::Serializer;

use super::super::web::{Answer, Web, request};
use super::plan::Role;
use super::profiles::Profiles;
use super::{CredentialError, Fetched, Keys, Settings, time};

const STS: &str = "AWS STS";

/// Takes on a role with other credentials.
///
/// # Errors
/// It is refused, or STS does not answer.
pub async fn assume_role(
    web: &Web,
    settings: &Settings,
    profiles: &Profiles,
    role: &Role,
    base: &AwsCredential,
) -> Result<Fetched<AwsCredential>, CredentialError> {
    let (url, region) = endpoint(settings, profiles);
    let form = form("AssumeRole", role, &[]);
    let make = || {
        let mut request = request(Method::POST, &url, &[FORM], form.clone())?;
        let signed = AwsAuthorizer::new(base, "sts", &region).try_authorize(&mut request, None);
        signed.map_err(|error| CredentialError::Configured { what: STS.to_owned(), reason: error.to_string() })?;
        Ok(request)
    };
    let answer = web.ask(STS, make).await?;
    credentials(answer, role)
}

/// Takes on a role with a token in a file, which is read anew each time.
///
/// # Errors
/// No such file; it is refused, or STS does not answer.
pub async fn with_web_identity(
    web: &Web,
    settings: &Settings,
    profiles: &Profiles,
    role: &Role,
    token_file: &str,
) -> Result<Fetched<AwsCredential>, CredentialError> {
    let path = settings.environment.expand(token_file);
    let token = std::fs::read_to_string(&path).map_err(|source| CredentialError::File { path, source })?;
    let (url, _) = endpoint(settings, profiles);
    let form = form("AssumeRoleWithWebIdentity", role, &[("WebIdentityToken", token.trim())]);
    let make = || request(Method::POST, &url, &[FORM], form.clone());
    credentials(web.ask(STS, make).await?, role)
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The service's URL and the region that requests are signed for.
fn endpoint(settings: &Settings, profiles: &Profiles) -> (String, String) {
    let region = settings.region(profiles).unwrap_or_else(|| "us-east-1".to_owned());
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = settings.endpoint(profiles, "sts").unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
    (format!("{}/", url.trim_end_matches('/')), region)
}

fn form(action: &str, role: &Role, more: &[(&str, &str)]) -> String {
    let session_name = role.session_name.clone().unwrap_or_else(|| format!("veinfs-{}", std::process::id()));
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", "2011-06-15").append_pair("RoleArn", &role.arn);
    form.append_pair("RoleSessionName", &session_name);
    form.append_pair("DurationSeconds", role.duration_seconds.as_deref().unwrap_or("3600"));
    if let Some(external_id) = &role.external_id {
        form.append_pair("ExternalId", external_id);
    }
    form.extend_pairs(more).finish()
}

fn credentials(answer: Answer, role: &Role) -> Result<Fetched<AwsCredential>, CredentialError> {
    let text = answer.text();
    if !answer.status.is_success() {
        let code = element(&text, "Code").unwrap_or_else(|| answer.status.to_string());
        if code.starts_with("ExpiredToken") {
            let cure = "get others from whoever gave them, or run `aws sso login`".to_owned();
            return Err(CredentialError::Expired { what: format!("what takes on the role {}", role.arn), cure });
        }
        let reason = format!("{code}: {} (role {})", element(&text, "Message").unwrap_or_default(), role.arn);
        return Err(CredentialError::Refused { by: STS.to_owned(), reason });
    }
    let value = |name: &str| {
        element(&text, name).ok_or_else(|| CredentialError::Unreachable {
            by: STS.to_owned(),
            reason: format!("an answer without {name}"),
        })
    };
    let expires = time(&value("Expiration")?);
    let keys =
        Keys { id: value("AccessKeyId")?, secret: value("SecretAccessKey")?, token: Some(value("SessionToken")?) };
    Ok(keys.fetched(expires))
}

/// The text of the first element of a name.
pub(crate) fn element(xml: &str, name: &str) -> Option<String> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut found: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) if start.local_name().as_ref() == name.as_bytes() => found = Some(String::new()),
            Event::Text(text) => {
                if let Some(found) = &mut found {
                    found.push_str(&text.decode().ok()?);
                }
            }
            Event::GeneralRef(entity) => {
                if let Some(found) = &mut found {
                    let name = entity.decode().ok()?;
                    match entity.resolve_char_ref().ok()? {
                        Some(letter) => found.push(letter),
                        None => found.push_str(quick_xml::escape::resolve_predefined_entity(&name)?),
                    }
                }
            }
            Event::End(end) if end.local_name().as_ref() == name.as_bytes() && found.is_some() => return found,
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_an_answer() {
        let xml =
            "<?xml version=\"1.0\"?><E xmlns=\"urn:x\"><Code>Access&lt;Denied&#33;</Code><n:Region>eu</n:Region></E>";
        assert_eq!(element(xml, "Code").as_deref(), Some("Access<Denied!"));
        assert_eq!(element(xml, "Region").as_deref(), Some("eu"));
        assert_eq!(element(xml, "Message"), None);
        assert_eq!(element("<Code>a", "Code"), None);
        assert_eq!(element("no xml <", "Code"), None);
    }

    #[test]
    fn the_service_is_where_it_is_configured() {
        use crate::source::object::credentials::environment::Environment;
        for (variables, url, region) in [
            (&[][..], "https://sts.us-east-1.amazonaws.com/", "us-east-1"),
            (&[("AWS_REGION", "eu-west-1")], "https://sts.eu-west-1.amazonaws.com/", "eu-west-1"),
            (&[("AWS_REGION", "cn-north-1")], "https://sts.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
            (&[("AWS_ENDPOINT_URL", "http://localhost:1")], "http://localhost:1/", "us-east-1"),
        ] {
            let settings =
                Settings { environment: Environment::of(variables.iter().copied()), profile: None, role: None };
            assert_eq!(endpoint(&settings, &Profiles::default()), (url.to_owned(), region.to_owned()));
        }
    }
}
