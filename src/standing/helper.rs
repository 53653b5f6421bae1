//! `mount.veinfs`: what mount(8) asks of a helper, as words of `veinfs mount`.
//!
//! A line of fstab(5) has one word for all sources; `#` stands between several, and `\#` for itself. Options are those of
//! `veinfs mount` by their long names, `pattern=` as often as needed, and those of mount(8); commas stand between them, so
//! that none can be in them. With `config=NAME` the file of that name says the rest, and the source is `none`.
//!
//! ```text
//! /data/runs#/mnt/nas  /srv/runs  veinfs  pattern=/etc/veinfs/run.yaml,allow_other,nofail  0 0
//! none                 /srv/bids  veinfs  config=bids,_netdev,nofail                       0 0
//! ```

use super::Known;

/// What a helper is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The words of `veinfs mount`.
    pub words: Vec<String>,
    /// All is checked, and nothing is mounted (`-f`).
    pub fake: bool,
    /// Options that are not known are passed over (`-s`).
    pub sloppy: bool,
    /// The namespace to mount in (`-N`).
    pub namespace: Option<String>,
}

/// What is wrong with what a helper is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HelperError(String);

/// Options of fstab(5) that are of mount(8) itself, and not handed on.
const OF_MOUNT: [&str; 14] = [
    "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "rw", "ro",
    "nodev", "nosuid",
];

/// Takes the arguments of a helper apart: `SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]` (mount(8),
/// "External helpers").
///
/// # Errors
/// If there is no source or mount point, or an option that is not understood.
pub fn parse(arguments: &[String], known: &[Known]) -> Result<Asked, HelperError> {
    let wrong = |text: &str| HelperError(text.to_owned());
    let (mut asked, mut places, mut options) = (Asked::default(), Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            None => places.push(argument.clone()),
            Some(letters) => {
                for letter in letters.chars() {
                    match letter {
                        'f' => asked.fake = true,
                        's' => asked.sloppy = true,
                        'n' | 'v' | 'r' | 'w' => {}
                        'o' | 't' | 'N' => {
                            let value = rest.next().ok_or_else(|| HelperError(format!("-{letter} has no value")))?;
                            match letter {
                                'o' => options
                                    .extend(value.split(',').filter(|option| !option.is_empty()).map(str::to_owned)),
                                'N' => asked.namespace = Some(value.clone()),
                                _ => {}
                            }
                        }
                        other => return Err(HelperError(format!("-{other}: no such option of a helper"))),
                    }
                }
            }
        }
    }
    let [source, mountpoint] = <[String; 2]>::try_from(places)
        .map_err(|_| wrong("give a source and a mount point: mount.veinfs SOURCE MOUNTPOINT -o OPTIONS"))?;
    let (mut words, mut handed_on, mut configured) = (Vec::new(), Vec::new(), false);
    for option in options {
        let (name, value) = option.split_once('=').map_or((&*option, None), |(name, value)| (name, Some(value)));
        let long = name.replace('_', "-");
        match (long.as_str(), value) {
            ("remount", _) => {
                return Err(wrong(
                    "it cannot be mounted otherwise while it is mounted; unmount it, and mount it again",
                ));
            }
            ("pattern", Some(value)) => words.push(format!("--pattern={value}")),
            ("config", Some(value)) => {
                configured = true;
                words.push(format!("--config={value}"));
            }
            _ if name.starts_with("x-") || OF_MOUNT.contains(&name) || name == "user" => {}
            (long, value) => match known.iter().find(|known| known.name == long) {
                Some(one) if one.takes_value && value.is_some() => {
                    words.push(format!("--{long}={}", value.unwrap_or_default()));
                }
                Some(one) if !one.takes_value && value.is_none() => words.push(format!("--{long}")),
                _ => handed_on.push(option.clone()),
            },
        }
    }
    if !configured || source != "none" {
        // As the line has it, so that mount(8) sees that it is mounted.
        handed_on.push(format!("fsname={source}"));
    }
    if !handed_on.is_empty() {
        words.push(format!("--options={}", handed_on.join(",")));
    }
    words.push("--".to_owned());
    let sources = sources(&source);
    if !(configured && sources == ["none"]) {
        words.extend(sources);
    }
    words.push(mountpoint);
    asked.words = words;
    Ok(asked)
}

/// The sources in the first word of a line.
fn sources(word: &str) -> Vec<String> {
    let mut sources = vec![String::new()];
    let mut rest = word.chars().peekable();
    while let Some(char) = rest.next() {
        let last = sources.last_mut().expect("there is one");
        match char {
            '\\' if rest.peek() == Some(&'#') => {
                rest.next();
                last.push('#');
            }
            '#' => sources.push(String::new()),
            _ => last.push(char),
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Result<String, String> {
        let one = |name: &str, takes_value| Known { name: name.into(), takes_value, repeats: false, is_path: false };
        let known = [one("poll", true), one("no-index", false), one("view", true), one("attr-timeout", true)];
        let arguments: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        parse(&arguments, &known).map(|asked| asked.words.join(" ")).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_fstab() {
        let table = [
            (&["/a", "/m", "-o", "rw,pattern=/p.yaml"][..], "--pattern=/p.yaml --options=fsname=/a -- /a /m"),
            (
                &["/a#/b", "/m", "-sn", "-o", "pattern=x,pattern=y,allow_other,nofail"],
                "--pattern=x --pattern=y --options=allow_other,fsname=/a#/b -- /a /b /m",
            ),
            (&[r"/a\#1#n=/b", "/m", "-o", "pattern=x"], r"--pattern=x --options=fsname=/a\#1#n=/b -- /a#1 n=/b /m"),
            (&["none", "/m", "-o", "config=runs,_netdev,x-systemd.automount,user=ben"], "--config=runs -- /m"),
            (
                &["/a", "/m", "-t", "fuse.veinfs", "-o", "pattern=x,poll=5m,no_index,view=all"],
                "--pattern=x --poll=5m --no-index --view=all --options=fsname=/a -- /a /m",
            ),
        ];
        for (line, wanted) in table {
            assert_eq!(words(line).as_deref(), Ok(wanted), "{line:?}");
        }
        assert!(words(&["/a", "/m", "-o", "remount,pattern=x"]).is_err());
        assert!(words(&["/a"]).is_err());
        assert!(words(&["/a", "/m", "-x"]).is_err());
        assert!(words(&["/a", "/m", "-o"]).is_err());
    }
}
