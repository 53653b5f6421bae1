//! Credentials of Azure Blob Storage, in the order in which object_store has them.
//!
//! The environment (a token, a key, workload identity, a client's secret, a shared access signature, also by the names that
//! the Azure CLI has for them and as a connection string); the login of the Azure CLI, if there is one; the managed
//! identity of the machine, asked first whether it is there at all. Keys and signatures are those of one account: if the
//! environment names an account and the location another, they are left alone.

use std::sync::Arc;

use http::Method;
use object_store::ClientOptions;
use object_store::azure::{AzureConfigKey, AzureCredential, MicrosoftAzureBuilder};

use super::environment::Environment;
use super::web::{Web, request};
use super::{CredentialError, Provider, Renew, Reopened};
use crate::source::object::connect::http::retries;
use crate::source::object::location::options::Options;

const CURE: &str = "run `az login`, set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY, or give --option \
                    skip_signature=true for a public container";

/// What is said of an account and its credentials, options last; keys as object_store has them.
#[derive(Clone, Default)]
pub struct Settings {
    values: Vec<(AzureConfigKey, String)>,
}

/// What the Azure CLI calls things that object_store calls otherwise.
const CLI_NAMES: [(&str, AzureConfigKey); 2] =
    [("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName), ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey)];

impl Settings {
    /// Those of an environment and options, for the account that a location names, if it does.
    pub fn new(environment: &Environment, options: &Options, account: Option<&str>) -> Settings {
        let mut of_environment = Settings::default();
        for (key, value) in connection_string(environment.get("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default()) {
            of_environment.set(key, value);
        }
        for (name, key) in CLI_NAMES {
            if let Some(value) = environment.get(name) {
                of_environment.set(key, value);
            }
        }
        for (name, value) in environment.beginning("AZURE_") {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
                of_environment.set(key, value);
            }
        }
        if let Some(endpoint) = environment.get("IDENTITY_ENDPOINT") {
            of_environment.set(AzureConfigKey::MsiEndpoint, endpoint);
        }
        let account = account.or_else(|| options.get("azure_storage_account_name"));
        let of_account = of_environment.get(AzureConfigKey::AccountName);
        if let (Some(wanted), Some(other)) = (account, of_account)
            && wanted != other
        {
            use AzureConfigKey::{AccessKey, AccountName, Endpoint, SasKey};
            of_environment.values.retain(|(key, _)| !matches!(key, AccessKey | AccountName | Endpoint | SasKey));
        }
        let mut all = of_environment;
        for (name, value) in options.iter() {
            if let Ok(key) = name.parse() {
                all.set(key, value);
            }
        }
        if let Some(account) = account {
            all.set(AzureConfigKey::AccountName, account);
        }
        all
    }

    fn set(&mut self, key: AzureConfigKey, value: &str) {
        self.values.retain(|(other, _)| *other != key);
        self.values.push((key, value.to_owned()));
    }

    /// A setting.
    pub fn get(&self, key: AzureConfigKey) -> Option<&str> {
        self.values.iter().find(|(other, _)| *other == key).map(|(_, value)| value.as_str())
    }

    /// Whether a setting says yes.
    pub fn is_on(&self, key: AzureConfigKey) -> bool {
        self.get(key).and_then(crate::source::object::location::options::truth) == Some(true)
    }

    /// A builder with all of it.
    pub fn builder(&self, client: &ClientOptions) -> MicrosoftAzureBuilder {
        // What concerns the client is in `client` already.
        let own = self.values.iter().filter(|(key, _)| !matches!(key, AzureConfigKey::Client(_)));
        let builder = MicrosoftAzureBuilder::new().with_client_options(client.clone());
        own.fold(builder, |builder, (key, value)| builder.with_config(*key, value))
    }

    fn has_own(&self) -> bool {
        use AzureConfigKey::{AccessKey, ClientSecret, CredentialType, FederatedTokenFile, SasKey, Token};
        [AccessKey, ClientSecret, CredentialType, FederatedTokenFile, SasKey, Token]
            .into_iter()
            .any(|key| self.get(key).is_some())
    }
}

/// The settings of a connection string: `AccountName=…;AccountKey=…;…`.
fn connection_string(text: &str) -> Vec<(AzureConfigKey, &str)> {
    let parts = text.split(';').filter_map(|part| part.split_once('='));
    let known = |(name, value)| {
        let key = match name {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            "BlobEndpoint" => AzureConfigKey::Endpoint,
            "UseDevelopmentStorage" => AzureConfigKey::UseEmulator,
            _ => return None,
        };
        Some((key, value))
    };
    parts.filter_map(known).collect()
}

/// Finds them.
///
/// # Errors
/// What is configured and cannot work, or that there are none; the latter within two seconds.
pub async fn find(
    environment: &Environment,
    options: &Options,
    account: Option<&str>,
    client: &ClientOptions,
    web: &Web,
) -> Result<(Provider<AzureCredential>, Arc<dyn Renew>), CredentialError> {
    let settings = Settings::new(environment, options, account);
    let by_cli = settings.is_on(AzureConfigKey::UseAzureCli)
        || (!settings.has_own() && settings.get(AzureConfigKey::MsiEndpoint).is_none() && is_logged_in(environment));
    if !settings.has_own() && !by_cli && settings.get(AzureConfigKey::MsiEndpoint).is_none() {
        probe(environment, web).await?;
    }
    let (environment, options, client) = (environment.clone(), options.clone(), client.clone());
    let account = account.map(str::to_owned);
    let open = move || {
        let settings = Settings::new(&environment, &options, account.as_deref());
        let mut builder = settings.builder(&client).with_container_name("any").with_retry(retries());
        if by_cli {
            builder = builder.with_use_azure_cli(true);
        }
        let store = builder.build().map_err(|error| super::sorted("Azure's credentials", error))?;
        Ok(Arc::clone(store.credentials()))
    };
    let provider = Reopened::new(open)?;
    Ok((provider.clone(), provider))
}

/// Whether somebody has logged in by the Azure CLI, and it is there to ask.
fn is_logged_in(environment: &Environment) -> bool {
    let directory = environment.path("AZURE_CONFIG_DIR", ".azure");
    let profile = directory.map(|directory| directory.join("azureProfile.json"));
    profile.is_some_and(|profile| profile.exists()) && environment.program("az").is_some()
}

/// Whether the machine has an identity service at all.
async fn probe(environment: &Environment, web: &Web) -> Result<(), CredentialError> {
    let host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or("http://169.254.169.254");
    let url = format!("{}/metadata/instance?api-version=2021-02-01", host.trim_end_matches('/'));
    let ask = request(Method::GET, &url, &[("metadata", "true")], String::new())?;
    if web.ask_machine(ask).await.is_some() {
        return Ok(());
    }
    let directory = environment.path("AZURE_CONFIG_DIR", ".azure").unwrap_or_default();
    Err(CredentialError::Missing {
        cloud: "Azure Blob Storage",
        looked: vec![
            "AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN and AZURE_CLIENT_SECRET, which are not set".to_owned(),
            format!("the login of the Azure CLI in {}, which is not there", directory.display()),
            format!("managed identity at {host}, which does not answer"),
        ],
        cure: CURE.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use AzureConfigKey::{AccessKey, AccountName, Endpoint, SasKey};

    fn settings(variables: &[(&str, &str)], account: Option<&str>) -> Settings {
        Settings::new(&Environment::of(variables.iter().copied()), &Options::default(), account)
    }

    #[test]
    fn names_of_the_cli_and_of_object_store() {
        for variables in [
            &[("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_KEY", "k")][..],
            &[("AZURE_STORAGE_ACCOUNT_NAME", "acc"), ("AZURE_STORAGE_ACCOUNT_KEY", "k")],
            &[("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acc;AccountKey=k;EndpointSuffix=core.windows.net")],
        ] {
            let found = settings(variables, None);
            assert_eq!((found.get(AccountName), found.get(AccessKey)), (Some("acc"), Some("k")), "{variables:?}");
        }
        let text = "BlobEndpoint=http://127.0.0.1:1/a;SharedAccessSignature=sv=1&sig=2==;AccountName=a";
        let found = settings(&[("AZURE_STORAGE_CONNECTION_STRING", text)], None);
        assert_eq!(found.get(Endpoint), Some("http://127.0.0.1:1/a"));
        assert_eq!(found.get(SasKey), Some("sv=1&sig=2=="));
    }

    #[test]
    fn the_key_of_one_account_is_not_shown_to_another() {
        let variables = [("AZURE_STORAGE_ACCOUNT", "mine"), ("AZURE_STORAGE_KEY", "k"), ("AZURE_CLIENT_ID", "c")];
        let found = settings(&variables, Some("theirs"));
        assert_eq!((found.get(AccountName), found.get(AccessKey)), (Some("theirs"), None));
        assert_eq!(found.get(AzureConfigKey::ClientId), Some("c"));
        assert_eq!(settings(&variables, Some("mine")).get(AccessKey), Some("k"));
        assert_eq!(settings(&variables[1..], Some("theirs")).get(AccessKey), Some("k"), "of no account in particular");
    }
}
