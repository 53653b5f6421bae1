//! AWS's configuration files, `~/.aws/config` and `~/.aws/credentials`: text to profiles. Pure but for [`read`].
//!
//! ```ini
//! [profile lab]                 # [lab] in `credentials`; [default] in both
//! region = eu-west-1
//! sso_session = org
//! services = local
//! [sso-session org]
//! sso_start_url = https://org.awsapps.com/start
//! [services local]
//! s3 =
//!   endpoint_url = http://localhost:9000
//! ```
//!
//! The format is that of the AWS SDKs and Tools Reference Guide, "Shared config and credentials files". Lines that
//! nobody can read are passed over, as the SDKs do. What stands in `credentials` comes before what stands in `config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::CredentialError;
use super::super::environment::Environment;

/// The keys of a section; those indented below a key `s3` are called `s3.endpoint_url`.
pub type Section = BTreeMap<String, String>;

/// What the files say.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Profiles {
    profiles: BTreeMap<String, Section>,
    sso_sessions: BTreeMap<String, Section>,
    services: BTreeMap<String, Section>,
}

/// No values: there are secrets among them.
impl std::fmt::Debug for Profiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.profiles.keys()).finish()
    }
}

/// Where the files are: `config` and `credentials`.
pub fn paths(environment: &Environment) -> [Option<PathBuf>; 2] {
    [
        environment.path("AWS_CONFIG_FILE", ".aws/config"),
        environment.path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
    ]
}

/// Reads both files, if they are there.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn read(environment: &Environment) -> Result<Profiles, CredentialError> {
    let [config, credentials] = paths(environment);
    let mut profiles = Profiles::default();
    profiles.add(&text(config.as_deref())?, false);
    profiles.add(&text(credentials.as_deref())?, true);
    Ok(profiles)
}

fn text(path: Option<&Path>) -> Result<String, CredentialError> {
    let Some(path) = path else { return Ok(String::new()) };
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(source) => Err(CredentialError::File { path: path.to_path_buf(), source }),
    }
}

impl Profiles {
    /// Takes in the text of a file; what it says takes the place of what was said before.
    pub fn add(&mut self, text: &str, is_credentials: bool) {
        let mut section: Option<&mut Section> = None;
        let mut above: Option<String> = None;
        for line in text.lines() {
            let indented = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line.strip_prefix('[').filter(|_| !indented) {
                let header = header.split(']').next().unwrap_or_default().trim();
                section = self.section(header, is_credentials);
                above = None;
                continue;
            }
            let (Some((key, value)), Some(section)) = (line.split_once('='), section.as_deref_mut()) else { continue };
            let key = key.trim().to_ascii_lowercase();
            let value = value.trim();
            match &above {
                Some(above) if indented => section.insert(format!("{above}.{key}"), uncommented(&key, value)),
                _ => {
                    above = value.is_empty().then(|| key.clone());
                    section.insert(key.clone(), uncommented(&key, value))
                }
            };
        }
    }

    fn section(&mut self, header: &str, is_credentials: bool) -> Option<&mut Section> {
        let (kind, name) = header.split_once([' ', '\t']).unwrap_or(("", header));
        let name = name.trim().trim_matches(['"', '\'']).to_owned();
        let of = match kind {
            _ if is_credentials => return Some(self.profiles.entry(header.to_owned()).or_default()),
            "profile" => &mut self.profiles,
            "sso-session" => &mut self.sso_sessions,
            "services" => &mut self.services,
            "" if name == "default" => &mut self.profiles,
            _ => return None,
        };
        Some(of.entry(name).or_default())
    }

    /// A profile.
    pub fn profile(&self, name: &str) -> Option<&Section> {
        self.profiles.get(name)
    }

    /// The names of all profiles.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }

    /// An SSO session.
    pub fn sso_session(&self, name: &str) -> Option<&Section> {
        self.sso_sessions.get(name)
    }

    /// The endpoint that a profile has for a service (`s3`, `sts`): its own, or that of all services.
    pub fn endpoint(&self, profile: &str, service: &str) -> Option<&str> {
        let section = self.profiles.get(profile)?;
        let services = section.get("services").and_then(|name| self.services.get(name));
        let own = services.and_then(|services| services.get(&format!("{service}.endpoint_url")));
        own.or_else(|| section.get("endpoint_url")).map(String::as_str)
    }
}

/// A value without a comment after it; commands may hold what looks like one.
fn uncommented(key: &str, value: &str) -> String {
    if key == "credential_process" {
        return value.to_owned();
    }
    let end = [" #", " ;", "\t#", "\t;"].iter().filter_map(|start| value.find(start)).min().unwrap_or(value.len());
    value[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_both_files() {
        let mut profiles = Profiles::default();
        let config = "\
; a comment\n[default]\nregion = eu-west-1 # home\noutput=json\n\
[profile lab]\nregion=us-west-2\naws_access_key_id = FROM_CONFIG\nservices = local\n\
[profile \"two words\"]\ncredential_process = /bin/x --tag '#1' # not a comment\n\
[sso-session org]\nsso_region = eu-central-1\n\
[services local]\ns3 =\n  endpoint_url = http://localhost:9000\n  other = 1\nsts =\n\tendpoint_url = http://localhost:9001\n\
[plugins]\nx = y\n[other]\nregion = nowhere\n";
        profiles.add(config, false);
        profiles.add("[lab]\naws_access_key_id=FROM_CREDENTIALS\nno equals sign\n[other]\naws_access_key_id=O\n", true);
        let value = |profile: &str, key: &str| profiles.profile(profile)?.get(key).map(String::as_str);
        assert_eq!(value("default", "region"), Some("eu-west-1"));
        assert_eq!(value("lab", "region"), Some("us-west-2"));
        assert_eq!(value("lab", "aws_access_key_id"), Some("FROM_CREDENTIALS"));
        assert_eq!(value("two words", "credential_process"), Some("/bin/x --tag '#1' # not a comment"));
        // `[other]` in `config` is no profile; in `credentials` it is.
        assert_eq!((value("other", "region"), value("other", "aws_access_key_id")), (None, Some("O")));
        assert_eq!(
            profiles.sso_session("org").and_then(|s| s.get("sso_region")).map(String::as_str),
            Some("eu-central-1")
        );
        assert_eq!(profiles.endpoint("lab", "s3"), Some("http://localhost:9000"));
        assert_eq!(profiles.endpoint("lab", "sts"), Some("http://localhost:9001"));
        assert_eq!(profiles.endpoint("lab", "sso"), None);
        assert!(!format!("{profiles:?}").contains("FROM_"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in ["[", "[]", "=\n", "[profile]\na=b", "[profile ]\n = x\n  y = z", "[a]\n  b = c\n"] {
            Profiles::default().add(text, false);
            Profiles::default().add(text, true);
        }
    }
}
