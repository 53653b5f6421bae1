//! `~/.netrc`, as ftp(1), curl and cadaver read it: a name and password for a host. Pure.

/// The name and password for a host: of its `machine` entry, else of `default`.
pub fn lookup(text: &str, host: &str) -> Option<(String, String)> {
    let mut entry: Option<(bool, Option<String>, Option<String>)> = None;
    let (mut own, mut default) = (None, None);
    let mut words = words(text);
    loop {
        let word = words.next();
        match word.as_deref() {
            Some("login") => set(&mut entry, words.next(), |entry| &mut entry.1),
            Some("password") => set(&mut entry, words.next(), |entry| &mut entry.2),
            Some("account") => drop(words.next()),
            None | Some("machine" | "default") => {
                if let Some((is_default, login, Some(password))) = entry.take() {
                    let of = if is_default { &mut default } else { &mut own };
                    of.get_or_insert((login.unwrap_or_default(), password));
                }
                match word.as_deref() {
                    None => return own.or(default),
                    Some("default") => entry = Some((true, None, None)),
                    _ => {
                        entry = words.next().filter(|name| name.eq_ignore_ascii_case(host)).map(|_| (false, None, None))
                    }
                }
            }
            Some(_) => {}
        }
    }
}

type Entry = (bool, Option<String>, Option<String>);

fn set(entry: &mut Option<Entry>, word: Option<String>, field: impl Fn(&mut Entry) -> &mut Option<String>) {
    if let Some(entry) = entry {
        *field(entry) = word;
    }
}

/// The words of the file, without comments and macros (`macdef`, up to an empty line).
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut in_macro = false;
    let kept = text.lines().flat_map(move |line| {
        let line = line.trim();
        if in_macro {
            in_macro = !line.is_empty();
            return Vec::new();
        }
        if line.starts_with('#') {
            return Vec::new();
        }
        in_macro = line.starts_with("macdef");
        if in_macro { Vec::new() } else { split(line) }
    });
    kept.collect::<Vec<_>>().into_iter()
}

/// Words apart by blanks; in double quotes, with `\` to escape, a blank is a letter.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted || word.is_none() => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            letter if letter.is_whitespace() && !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn entries_of_hosts() {
        let text = "\
# machine commented.example.org login no password no
machine one.example.org login me password hush
machine Two.example.org\n\tlogin \"my name\"\n\tpassword \"a \\\"b\"
machine none.example.org login me
macdef init
machine macro.example.org password no

machine three.example.org password p account a machine four.example.org login l password q
default login anonymous password mail@example.org
";
        let found = |host: &str| lookup(text, host);
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(found("one.example.org"), pair("me", "hush"));
        assert_eq!(found("two.example.org"), pair("my name", "a \"b"));
        assert_eq!(found("three.example.org"), pair("", "p"));
        assert_eq!(found("four.example.org"), pair("l", "q"));
        for other in ["commented.example.org", "none.example.org", "macro.example.org", "else"] {
            assert_eq!(found(other), pair("anonymous", "mail@example.org"), "{other}");
        }
        assert_eq!(lookup("machine a login b", "a"), None);
        assert_eq!(lookup("machine", "a"), None);
        assert_eq!(lookup("password x machine a password", "a"), None);
    }
}
