//! Credentials of AWS, found in the order in which its own tools look.
//!
//! - [`profiles`]: `~/.aws/config` and `~/.aws/credentials`
//! - [`plan`]: environment and profiles → where credentials come from; pure
//! - [`sts`]: roles; [`sso`]: IAM Identity Center; [`machine`]: processes, containers and instances
//!
//! The crate `aws-config` does all of this, and was weighed: with SSO and processes it brings 43 crates that we have no
//! other use for (a second signer, HTTP client and TLS library among them, the last in C; it and all below it are 138
//! crates and 92 seconds of a debug build on two cores), and it reads the environment of the process, so that no two tests
//! could run at once. What is here is a few hundred lines over the signer and client that reading uses anyway. What wants
//! a person is not here, the first login of SSO and codes typed in: `aws` does that, and we read what it leaves behind.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use object_store::aws::AwsCredential;

use super::environment::Environment;
use super::web::Web;
use super::{CredentialError, Fetched, Origin};
use crate::source::object::location::options::{Options, PROFILE, truth};

pub mod machine;
pub mod plan;
pub mod profiles;
pub mod sso;
pub mod sts;

use plan::Plan;
use profiles::Profiles;

/// What cures having none.
const CURE: &str = "run `aws configure` or `aws sso login`, name a profile with --option profile=NAME, or give \
                    --option skip_signature=true for a public bucket";

/// What decides where credentials, region and endpoint come from, besides the files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Variables, with the options that stand for some of them in their place.
    pub environment: Environment,
    /// The profile that an option names.
    pub profile: Option<String>,
    /// A role that an option names, to be taken on with whatever credentials there are.
    pub role: Option<String>,
}

impl Settings {
    /// Those of an environment and options.
    pub fn new(environment: &Environment, options: &Options) -> Settings {
        let given: Vec<(String, &str)> =
            options.iter().filter(|(key, _)| key.starts_with("aws_")).map(|(key, v)| (key.to_uppercase(), v)).collect();
        let mut overlaid = environment.clone();
        overlaid.set(given.iter().map(|(key, value)| (key.as_str(), *value)));
        let role = options.get("aws_role_arn").filter(|_| overlaid.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_none());
        Settings {
            profile: options.get(PROFILE).map(str::to_owned),
            role: role.map(str::to_owned),
            environment: overlaid,
        }
    }

    /// The profile in use.
    pub fn profile(&self) -> &str {
        let named = self.profile.as_deref().or_else(|| self.environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]));
        named.unwrap_or("default")
    }

    /// Whether somebody named the profile.
    pub fn is_profile_named(&self) -> bool {
        self.profile.is_some() || self.environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]).is_some()
    }

    /// The region that is configured; for a bucket no more than a guess.
    pub fn region(&self, profiles: &Profiles) -> Option<String> {
        let own = self.environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
        own.or_else(|| profiles.profile(self.profile())?.get("region").map(String::as_str)).map(str::to_owned)
    }

    /// The endpoint that is configured for a service, as the AWS tools have it: `s3`, `sts`, `sso`, `sso_oidc`.
    pub fn endpoint(&self, profiles: &Profiles, service: &str) -> Option<String> {
        let profile = profiles.profile(self.profile());
        let ignored = self
            .environment
            .get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
            .or_else(|| profile?.get("ignore_configured_endpoint_urls").map(String::as_str));
        if ignored.and_then(truth) == Some(true) {
            return None;
        }
        let own = format!("AWS_ENDPOINT_URL_{}", service.to_uppercase());
        let set = self.environment.first(&[&own, "AWS_ENDPOINT_URL"]);
        set.or_else(|| profiles.endpoint(self.profile(), service)).map(str::to_owned)
    }
}

/// Credentials as [`Settings`] and the files say, read anew each time.
#[derive(Debug)]
pub struct Aws {
    settings: Settings,
    web: Web,
    /// Instance metadata answered before: it is there, though it may be silent now.
    is_instance: AtomicBool,
}

impl Aws {
    /// Looks at nothing yet.
    pub fn new(settings: Settings, web: Web) -> Aws {
        Aws { settings, web, is_instance: AtomicBool::new(false) }
    }

    fn run<'a>(
        &'a self,
        plan: &'a Plan,
        profiles: &'a Profiles,
    ) -> BoxFuture<'a, Result<Fetched<AwsCredential>, CredentialError>> {
        let environment = &self.settings.environment;
        Box::pin(async move {
            match plan {
                Plan::Keys(keys) => Ok(keys.clone().fetched(None)),
                Plan::Role { base, role } => {
                    let base = self.run(base, profiles).await?;
                    sts::assume_role(&self.web, &self.settings, profiles, role, &base.credential).await
                }
                Plan::WebIdentity { token_file, role } => {
                    sts::with_web_identity(&self.web, &self.settings, profiles, role, token_file).await
                }
                Plan::Sso(login) => sso::role_credentials(&self.web, &self.settings, profiles, login).await,
                Plan::Process { profile, command } => machine::process(profile, command, environment).await,
                Plan::Container => machine::container(&self.web, environment).await,
                Plan::Instance => match machine::instance(&self.web, environment).await {
                    Ok(fetched) => {
                        self.is_instance.store(true, Ordering::Relaxed);
                        Ok(fetched)
                    }
                    Err(reason) if self.is_instance.load(Ordering::Relaxed) => {
                        Err(CredentialError::Unreachable { by: "instance metadata".to_owned(), reason })
                    }
                    Err(reason) => Err(CredentialError::Missing {
                        cloud: "AWS",
                        looked: plan::looked(&self.settings, profiles).into_iter().chain([reason]).collect(),
                        cure: CURE.to_owned(),
                    }),
                },
            }
        })
    }
}

#[async_trait]
impl Origin<AwsCredential> for Aws {
    async fn fetch(&self) -> Result<Fetched<AwsCredential>, CredentialError> {
        let profiles = profiles::read(&self.settings.environment)?;
        let plan = plan::plan(&self.settings, &profiles)?;
        tracing::debug!("credentials from {}", plan.name());
        self.run(&plan, &profiles).await
    }
}

/// An access key, as files and services have it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Its public part.
    pub id: String,
    /// Its secret part.
    pub secret: String,
    /// What comes with it if it is for a time.
    pub token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Keys {
    /// As a provider hands them on.
    pub fn fetched(self, expires: Option<DateTime<Utc>>) -> Fetched<AwsCredential> {
        let credential = AwsCredential { key_id: self.id, secret_key: self.secret, token: self.token };
        Fetched { credential: credential.into(), expires: expires.map(Into::into) }
    }
}

/// A time as AWS's services and files write it.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(&text.replace("UTC", "Z")).ok().map(|time| time.with_timezone(&Utc))
}
