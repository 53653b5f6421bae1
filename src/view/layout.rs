//! Templates that say where a match appears below its pattern's folder, such as `<sub>/<.name>`.

use crate::entry::NAME_MAX;
use crate::matcher::mapping::{CaptureId, Mapping};
use crate::pattern::nearest;

/// The most levels that a match appears below its pattern's folder. Trees may be deeper than any path that the kernel
/// takes; of such a match the levels between the first ones and its own are left out.
pub const MAX_LEVELS: usize = 256;

/// A template: what it yields is cut at each `/` into levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
    /// `None`: declared by other patterns of the mount only, so never set.
    Capture(Option<CaptureId>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Stem,
    Parent,
    Path,
    Source,
}

const FIELDS: [(&str, Field); 5] = [
    (".name", Field::Name),
    (".stem", Field::Stem),
    (".parent", Field::Parent),
    (".path", Field::Path),
    (".source", Field::Source),
];

/// What is wrong with a template, and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// What is wrong.
    pub message: String,
    /// The cure.
    pub hint: Option<String>,
}

/// What a template can name of a match.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The directory's own name.
    pub name: &'a [u8],
    /// The name of the directory above it; empty for a source's root.
    pub parent: &'a [u8],
    /// The path below the source; empty for its root.
    pub path: &'a [u8],
    /// The source's name.
    pub source: &'a [u8],
    /// The captured values.
    pub captures: &'a Mapping,
}

impl Layout {
    /// Reads a template that may use `captures`.
    pub fn parse(text: &str, captures: &[(&str, CaptureId)]) -> Result<Layout, LayoutError> {
        Self::read(text, &|word| captures.iter().find(|(name, _)| *name == word).map(|(_, id)| Some(*id)), &|| {
            captures.iter().map(|(name, _)| (*name).to_owned()).collect()
        })
    }

    /// Reads a template for several patterns: captures in `elsewhere`, that only others declare, are never set here.
    pub fn parse_shared(text: &str, captures: &[(&str, CaptureId)], elsewhere: &[&str]) -> Result<Layout, LayoutError> {
        let known = |word: &str| match captures.iter().find(|(name, _)| *name == word) {
            Some((_, id)) => Some(Some(*id)),
            None => elsewhere.contains(&word).then_some(None),
        };
        Self::read(text, &known, &|| {
            captures.iter().map(|(name, _)| *name).chain(elsewhere.iter().copied()).map(str::to_owned).collect()
        })
    }

    fn read(
        text: &str,
        known: &dyn Fn(&str) -> Option<Option<CaptureId>>,
        names: &dyn Fn() -> Vec<String>,
    ) -> Result<Layout, LayoutError> {
        let fail = |message: String, hint: Option<String>| Err(LayoutError { message, hint });
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(c) => literal.push(c),
                    None => return fail("`\\` at the end escapes nothing".into(), Some("write `\\\\`".into())),
                },
                '\0' => return fail("a NUL character".into(), None),
                '<' => {
                    let rest = chars.as_str();
                    let Some(end) = rest.find('>') else {
                        return fail("unclosed `<`".into(), Some("write `\\<` for the character itself".into()));
                    };
                    let word = &rest[..end];
                    chars = rest[end + 1..].chars();
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == word) {
                        pieces.push(Piece::Field(*field));
                    } else if let Some(capture) = known(word) {
                        pieces.push(Piece::Capture(capture));
                    } else {
                        let mut names = names();
                        names.extend(FIELDS.iter().map(|(name, _)| (*name).to_owned()));
                        let hint = match nearest(word, names.iter().map(String::as_str)) {
                            Some(near) => format!("did you mean `<{near}>`?"),
                            None => format!("there are <{}>", names.join(">, <")),
                        };
                        return fail(format!("nothing is called `<{word}>` here"), Some(hint));
                    }
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        if pieces.is_empty() {
            return fail("an empty layout".into(), Some("the default is `<.name>`".into()));
        }
        Ok(Layout(pieces))
    }

    /// The components of the path at which `subject` appears, at least one, each a valid name.
    pub fn place(&self, subject: &Subject<'_>) -> Vec<Box<[u8]>> {
        let mut path = Vec::new();
        for piece in &self.0 {
            let value: &[u8] = match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Field(Field::Name) => subject.name,
                Piece::Field(Field::Stem) => stem(subject.name),
                Piece::Field(Field::Parent) => or_unset(subject.parent),
                Piece::Field(Field::Path) if subject.path.is_empty() => subject.name,
                Piece::Field(Field::Path) => subject.path,
                Piece::Field(Field::Source) => subject.source,
                Piece::Capture(capture) => {
                    or_unset(capture.and_then(|id| subject.captures.get(id)).unwrap_or_default())
                }
            };
            path.extend_from_slice(value);
        }
        let mut components: Vec<Box<[u8]>> =
            path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(safe).collect();
        if components.is_empty() {
            components.push(safe(subject.name));
        }
        if components.len() > MAX_LEVELS {
            components.drain(MAX_LEVELS - 1..components.len() - 1);
        }
        components
    }
}

fn or_unset(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"_" } else { value }
}

/// A name without its last extension; a leading dot starts none.
fn stem(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    }
}

/// A component that can be a name: `.` and `..` become `_`, what is too long is cut and told apart by a hash.
fn safe(component: &[u8]) -> Box<[u8]> {
    match component {
        b"." | b".." | b"" => Box::from(&b"_"[..]),
        long if long.len() > NAME_MAX => super::name::suffixed(long, &super::name::hash_text(&[long], 6)),
        fine => fine.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(layout: &str, path: &str) -> String {
        let captures = Mapping::default().with(CaptureId(0), b"01");
        let name = path.rsplit('/').next().unwrap_or_default();
        let parent = path.rsplit('/').nth(1).unwrap_or("src");
        let subject = Subject {
            name: name.as_bytes(),
            parent: parent.as_bytes(),
            path: path.as_bytes(),
            source: b"nas",
            captures: &captures,
        };
        let layout = Layout::parse(layout, &[("sub", CaptureId(0)), ("ses", CaptureId(1))]).expect("a valid layout");
        let parts: Vec<String> =
            layout.place(&subject).iter().map(|part| crate::entry::printable(part).into_owned()).collect();
        parts.join("|")
    }

    #[test]
    fn templates_yield_levels() {
        for (layout, path, expected) in [
            ("<.name>", "a/b/run.d", "run.d"),
            ("<.stem>", "a/run.d", "run"),
            ("<.stem>", "a/.run", ".run"),
            ("<.path>", "a/b/run", "a|b|run"),
            ("<.source>/<.parent>-<.name>", "a/run", "nas|a-run"),
            ("<sub>/<ses>/<.name>", "run", "01|_|run"),
            ("/x//<.name>/", "run", "x|run"),
            ("../<.name>", "run", "_|run"),
            ("\\<<.name>", "run", "<run"),
        ] {
            assert_eq!(place(layout, path), expected, "{layout} of {path}");
        }
    }

    #[test]
    fn levels_are_bounded() {
        let deep = vec!["d"; 5000].join("/") + "/run";
        let levels = place("<.path>", &deep);
        assert_eq!(levels.split('|').count(), MAX_LEVELS);
        assert!(levels.ends_with("|d|run"), "its own name stays");
    }

    #[test]
    fn wrong_templates_name_the_cure() {
        for (layout, message, hint) in [
            ("<sbu>", "nothing is called `<sbu>` here", "did you mean `<sub>`?"),
            ("<name>", "nothing is called `<name>` here", "did you mean `<.name>`?"),
            ("<.name", "unclosed `<`", "write `\\<` for the character itself"),
            ("", "an empty layout", "the default is `<.name>`"),
        ] {
            let error = Layout::parse(layout, &[("sub", CaptureId(0))]).expect_err(layout);
            assert_eq!((error.message.as_str(), error.hint.as_deref()), (message, Some(hint)));
        }
    }
}
