//! Where AWS credentials come from, given environment and profiles. Pure.
//!
//! In this order: the environment's keys (unless an option names a profile); a web identity of the environment; the
//! profile: a role, SSO, keys, a process; a container's credentials; the instance's role. What comes first is used,
//! though it may fail then: falling through to something else would be somebody else's identity.

use super::profiles::{Profiles, Section};
use super::{CredentialError, Keys, Settings};
use crate::pattern::nearest;

/// Profiles that build on profiles, at most.
const DEEPEST: usize = 8;

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// They are at hand.
    Keys(Keys),
    /// A role, taken on with others.
    Role {
        /// Where those come from.
        base: Box<Plan>,
        /// The role.
        role: Role,
    },
    /// A role, taken on with a token in a file.
    WebIdentity {
        /// The file.
        token_file: String,
        /// The role.
        role: Role,
    },
    /// IAM Identity Center.
    Sso(Sso),
    /// A command that prints them.
    Process {
        /// The profile.
        profile: String,
        /// For the shell.
        command: String,
    },
    /// The container's environment says where.
    Container,
    /// The instance's role.
    Instance,
}

/// A role to take on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub arn: String,
    /// What the session is called; none for one of ours.
    pub session_name: Option<String>,
    /// What the role's owner asks for.
    pub external_id: Option<String>,
    /// For how long, in seconds; none for an hour.
    pub duration_seconds: Option<String>,
}

/// What a login by SSO is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sso {
    /// The profile, for the command that logs in.
    pub profile: String,
    /// The name of its token in the cache: the session's, else the start URL.
    pub token_name: String,
    /// Where the service is.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// The permission set.
    pub role: String,
}

impl Plan {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Plan::Keys(_) => "keys",
            Plan::Role { .. } => "a role",
            Plan::WebIdentity { .. } => "a web identity",
            Plan::Sso(_) => "SSO",
            Plan::Process { .. } => "a process",
            Plan::Container => "the container",
            Plan::Instance => "instance metadata",
        }
    }
}

/// Decides where credentials come from.
///
/// # Errors
/// What is configured and cannot be meant so.
pub fn plan(settings: &Settings, profiles: &Profiles) -> Result<Plan, CredentialError> {
    let base = chosen(settings, profiles)?;
    Ok(match &settings.role {
        Some(arn) => Plan::Role {
            base: Box::new(base),
            role: Role {
                arn: arn.clone(),
                session_name: settings.environment.get("AWS_ROLE_SESSION_NAME").map(str::to_owned),
                ..Role::default()
            },
        },
        None => base,
    })
}

fn chosen(settings: &Settings, profiles: &Profiles) -> Result<Plan, CredentialError> {
    if settings.profile.is_none()
        && let Some(keys) = of_environment(settings)?
    {
        return Ok(Plan::Keys(keys));
    }
    let environment = &settings.environment;
    if settings.profile.is_none()
        && let Some(token_file) = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    {
        let Some(arn) = environment.get("AWS_ROLE_ARN") else {
            return Err(wrong(
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "set AWS_ROLE_ARN, too: the role to take on with the token",
            ));
        };
        let session_name = environment.get("AWS_ROLE_SESSION_NAME").map(str::to_owned);
        let role = Role { arn: arn.to_owned(), session_name, ..Role::default() };
        return Ok(Plan::WebIdentity { token_file: token_file.to_owned(), role });
    }
    let name = settings.profile();
    if profiles.profile(name).is_none() && settings.is_profile_named() {
        return Err(unknown_profile(name, profiles));
    }
    if let Some(plan) = of_profile(name, settings, profiles, &mut Vec::new())? {
        return Ok(plan);
    }
    Ok(if in_container(settings) { Plan::Container } else { Plan::Instance })
}

/// What was looked at in vain before instance metadata.
pub fn looked(settings: &Settings, profiles: &Profiles) -> Vec<String> {
    let name = settings.profile();
    let keys = match settings.profile {
        Some(_) => None,
        None => Some("AWS_ACCESS_KEY_ID, which is not set".to_owned()),
    };
    let files = super::profiles::paths(&settings.environment);
    let files: Vec<String> = files.into_iter().flatten().map(|path| path.display().to_string()).collect();
    let profile = match profiles.profile(name) {
        Some(_) => format!("profile `{name}`, which has none"),
        None => format!("profile `{name}`, which is not in {}", files.join(" or ")),
    };
    let container = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, which is not set".to_owned();
    keys.into_iter().chain([profile, container]).collect()
}

fn wrong(what: &str, reason: impl Into<String>) -> CredentialError {
    CredentialError::Configured { what: what.to_owned(), reason: reason.into() }
}

fn unknown_profile(name: &str, profiles: &Profiles) -> CredentialError {
    let cure = match nearest(name, profiles.names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if profiles.names().next().is_none() => format!("make it with `aws configure --profile {name}`"),
        None => format!("there are {}", profiles.names().collect::<Vec<_>>().join(", ")),
    };
    wrong(&format!("profile `{name}`"), format!("not in AWS's configuration files; {cure}"))
}

fn in_container(settings: &Settings) -> bool {
    let names = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    settings.environment.first(&names).is_some()
}

fn of_environment(settings: &Settings) -> Result<Option<Keys>, CredentialError> {
    let environment = &settings.environment;
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(Some(Keys {
            id: id.trim().to_owned(),
            secret: secret.trim().to_owned(),
            token: environment.get("AWS_SESSION_TOKEN").map(|token| token.trim().to_owned()),
        })),
        (Some(_), None) => Err(wrong("AWS_ACCESS_KEY_ID", "set AWS_SECRET_ACCESS_KEY, too")),
        _ => Ok(None),
    }
}

fn of_profile(
    name: &str,
    settings: &Settings,
    profiles: &Profiles,
    above: &mut Vec<String>,
) -> Result<Option<Plan>, CredentialError> {
    let Some(section) = profiles.profile(name) else { return Ok(None) };
    let fail = |reason: &str| wrong(&format!("profile `{name}`"), reason);
    if section.contains_key("role_arn") {
        return role_of_profile(name, section, settings, profiles, above).map(Some);
    }
    if section.contains_key("sso_session") || section.contains_key("sso_start_url") {
        return sso_of_profile(name, section, profiles).map(Some);
    }
    if section.contains_key("login_session") {
        let process =
            format!("credential_process = aws configure export-credentials --profile {name} --format process");
        return Err(fail(&format!(
            "what `aws login` leaves behind is bound to AWS's own tools; make another profile that asks them, `{process}`"
        )));
    }
    if let Some(keys) = keys_of(section).map_err(fail)? {
        return Ok(Some(Plan::Keys(keys)));
    }
    let process = section.get("credential_process").filter(|command| !command.is_empty());
    Ok(process.map(|command| Plan::Process { profile: name.to_owned(), command: command.clone() }))
}

fn keys_of(section: &Section) -> Result<Option<Keys>, &'static str> {
    match (section.get("aws_access_key_id"), section.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            Ok(Some(Keys { id: id.clone(), secret: secret.clone(), token: section.get("aws_session_token").cloned() }))
        }
        (Some(_), None) => Err("aws_access_key_id without aws_secret_access_key; run `aws configure`"),
        (None, Some(_)) => Err("aws_secret_access_key without aws_access_key_id; run `aws configure`"),
        (None, None) => Ok(None),
    }
}

fn role_of_profile(
    name: &str,
    section: &Section,
    settings: &Settings,
    profiles: &Profiles,
    above: &mut Vec<String>,
) -> Result<Plan, CredentialError> {
    let fail = |reason: String| wrong(&format!("profile `{name}`"), reason);
    let value = |key: &str| section.get(key).cloned();
    let role = Role {
        arn: value("role_arn").unwrap_or_default(),
        session_name: value("role_session_name"),
        external_id: value("external_id"),
        duration_seconds: value("duration_seconds"),
    };
    if section.contains_key("mfa_serial") {
        let cure = format!("set what `aws configure export-credentials --profile {name} --format env` prints");
        return Err(fail(format!("its role wants a code typed in (mfa_serial), which a mount cannot ask for; {cure}")));
    }
    if let Some(token_file) = value("web_identity_token_file") {
        return Ok(Plan::WebIdentity { token_file, role });
    }
    above.push(name.to_owned());
    let base = match (value("source_profile"), value("credential_source")) {
        (Some(source), None) if source == name => {
            let keys = keys_of(section).map_err(|reason| fail(reason.to_owned()))?;
            Plan::Keys(keys.ok_or_else(|| fail("it is its own source_profile, and holds no keys".to_owned()))?)
        }
        (Some(source), None) if above.contains(&source) || above.len() > DEEPEST => {
            return Err(fail(format!("source_profile leads round in a circle: {} → {source}", above.join(" → "))));
        }
        (Some(source), None) if profiles.profile(&source).is_none() => return Err(unknown_profile(&source, profiles)),
        (Some(source), None) => of_profile(&source, settings, profiles, above)?
            .ok_or_else(|| wrong(&format!("profile `{source}`"), "no credentials in it; run `aws configure`"))?,
        (None, Some(source)) => match source.as_str() {
            "Environment" => Plan::Keys(of_environment(settings)?.ok_or_else(|| {
                fail("credential_source is Environment, and AWS_ACCESS_KEY_ID is not set".to_owned())
            })?),
            "Ec2InstanceMetadata" => Plan::Instance,
            "EcsContainer" if in_container(settings) => Plan::Container,
            "EcsContainer" => return Err(fail("credential_source is EcsContainer, and this is none".to_owned())),
            _ => {
                let known = "Environment, Ec2InstanceMetadata or EcsContainer";
                return Err(fail(format!("credential_source is `{source}`; write {known}")));
            }
        },
        _ => return Err(fail("role_arn wants either source_profile or credential_source".to_owned())),
    };
    Ok(Plan::Role { base: Box::new(base), role })
}

fn sso_of_profile(name: &str, section: &Section, profiles: &Profiles) -> Result<Plan, CredentialError> {
    let cure = format!("run `aws configure sso --profile {name}`");
    let fail = |reason: String| wrong(&format!("profile `{name}`"), format!("{reason}; {cure}"));
    let session = match section.get("sso_session") {
        Some(session) => Some((
            session,
            profiles
                .sso_session(session)
                .ok_or_else(|| fail(format!("there is no section [sso-session {session}]")))?,
        )),
        None => None,
    };
    let value = |key: &str| {
        let value = section.get(key).or_else(|| session?.1.get(key));
        value.cloned().ok_or_else(|| fail(format!("it has no {key}")))
    };
    Ok(Plan::Sso(Sso {
        profile: name.to_owned(),
        token_name: match session {
            Some((session, _)) => session.clone(),
            None => value("sso_start_url")?,
        },
        region: value("sso_region")?,
        account: value("sso_account_id")?,
        role: value("sso_role_name")?,
    }))
}

#[cfg(test)]
mod tests;
