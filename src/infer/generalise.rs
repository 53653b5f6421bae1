//! What differs between names, as part of a glob or as the expression of a capture: the tightest class that one
//! still likes to read.

use std::collections::BTreeSet;

use super::tokens::{Part, Template, VarId};

/// Digits that are written out in a glob, one class each, at the most.
const WRITTEN_OUT: usize = 4;
/// Words that are written as alternatives, at the most.
const ALTERNATIVES: usize = 3;
/// The shortest hexadecimal number that is taken for one, in digits.
const HEX: usize = 7;

/// A step variable as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Var {
    /// What stands between `<` and `>`.
    pub(super) name: String,
    /// What its values match.
    pub(super) regex: String,
}

/// What values of one place in names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Digits, always as many if there is a number.
    Digits(Option<usize>),
    /// Hexadecimal digits, always as many.
    Hex(usize),
    /// One of these words.
    OneOf(BTreeSet<Vec<u8>>),
    /// Letters.
    Letters,
    /// Letters and digits.
    Alphanumeric,
    /// Anything, also nothing if there is an empty value.
    Any {
        /// There is none.
        empty: bool,
        /// Not only text, or not on one line.
        bytes: bool,
    },
}

impl Class {
    /// The class of values.
    pub(super) fn of(values: &[Box<[u8]>]) -> Self {
        let all = |test: fn(&u8) -> bool| values.iter().all(|value| !value.is_empty() && value.iter().all(test));
        let width = values.first().map_or(0, |value| value.len());
        let equally_wide = values.iter().all(|value| value.len() == width);
        if all(u8::is_ascii_digit) {
            // Numbers of one width are padded, or years and the like; single digits may grow.
            let padded = width > 1 && (width >= WRITTEN_OUT || values.iter().any(|value| value.starts_with(b"0")));
            return Class::Digits((equally_wide && padded).then_some(width));
        }
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if equally_wide && width >= HEX && all(hex) {
            return Class::Hex(width);
        }
        let distinct: BTreeSet<Vec<u8>> = values.iter().map(|value| value.to_vec()).collect();
        if all(u8::is_ascii_alphabetic) {
            if distinct.len() <= ALTERNATIVES && values.len() >= 2 * distinct.len() {
                return Class::OneOf(distinct);
            }
            return Class::Letters;
        }
        if all(u8::is_ascii_alphanumeric) {
            return Class::Alphanumeric;
        }
        let text = |value: &[u8]| std::str::from_utf8(value).is_ok_and(|text| !text.contains('\n'));
        Class::Any {
            empty: values.iter().any(|value| value.is_empty()),
            bytes: !values.iter().all(|value| text(value)),
        }
    }

    /// Says more than that something is there.
    pub(super) fn is_telling(&self) -> bool {
        matches!(self, Class::Digits(_) | Class::Hex(_) | Class::OneOf(_))
    }

    /// A glob cannot say it as tightly as an expression.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Class::Digits(Some(width)) if *width > WRITTEN_OUT) || matches!(self, Class::Hex(_))
    }

    fn glob(&self) -> String {
        match self {
            Class::Digits(Some(width)) if *width <= WRITTEN_OUT => "[0-9]".repeat(*width),
            Class::Digits(_) => "[0-9]*".to_owned(),
            Class::Hex(_) => "[0-9a-f]*".to_owned(),
            Class::OneOf(words) => {
                format!("{{{}}}", words.iter().map(|word| escaped(word)).collect::<Vec<_>>().join(","))
            }
            Class::Letters | Class::Alphanumeric | Class::Any { .. } => "*".to_owned(),
        }
    }

    /// The expression of a capture for such values.
    pub(super) fn regex(&self) -> String {
        match self {
            Class::Digits(Some(width)) => format!("[0-9]{{{width}}}"),
            Class::Digits(None) => "[0-9]+".to_owned(),
            Class::Hex(width) => format!("[0-9a-f]{{{width}}}"),
            Class::OneOf(words) => {
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join("|")
            }
            Class::Letters => "[A-Za-z]+".to_owned(),
            Class::Alphanumeric => "[A-Za-z0-9]+".to_owned(),
            Class::Any { empty, bytes } => {
                [if *bytes { "(?s-u:.)" } else { "." }, if *empty { "*" } else { "+" }].concat()
            }
        }
    }
}

/// A literal name, or a part of one, in a glob; a byte that is no text becomes `?`.
pub(super) fn escaped(text: &[u8]) -> String {
    let mut glob = String::new();
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '*' | '?' | '[' | '{' | '}' | '\\' | '<') {
                glob.push('\\');
            }
            glob.push(c);
        }
        chunk.invalid().iter().for_each(|_| glob.push('?'));
    }
    glob
}

/// The template as a glob; variables are those of `vars`.
pub(super) fn glob(template: &Template, vars: &[Var]) -> String {
    let mut glob = String::new();
    for part in &template.0 {
        let piece = match part {
            Part::Text(text) => escaped(text),
            Part::Step(var) => format!("<{}>", vars[var.0].name),
            Part::Gap(values) => Class::of(values).glob(),
        };
        // Two stars in a row say what one says.
        let piece = if glob.ends_with('*') && !glob.ends_with("\\*") { piece.trim_start_matches('*') } else { &piece };
        glob.push_str(piece);
    }
    glob
}

/// The template as the expression of a capture for whole names.
pub(super) fn regex(template: &Template, vars: &[Var]) -> String {
    let piece = |part: &Part| match part {
        Part::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => regex_syntax::escape(text).replace("\\-", "-"),
            Err(_) => "(?s-u:.)+".to_owned(),
        },
        Part::Step(var) => format!("(?:{})", vars[var.0].regex),
        Part::Gap(values) => match Class::of(values) {
            class @ Class::OneOf(_) => format!("(?:{})", class.regex()),
            class => class.regex(),
        },
    };
    template.0.iter().map(piece).collect()
}

/// A name for the variable in the gap at `at` of a template: the word before it, or what its values are.
pub(super) fn name_of(template: &Template, at: usize, taken: &[Var]) -> String {
    let before = at.checked_sub(1).and_then(|at| match &template.0[at] {
        Part::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    });
    let word = before.map(|text| text.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()));
    let word = word.map(|text| text.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default());
    let word = word.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase);
    let dates = |values: &[Box<[u8]>]| values.iter().all(|v| v.len() == 8 && matches!(v.get(..2), Some(b"19" | b"20")));
    let kind = || match &template.0[at] {
        Part::Gap(values) if matches!(Class::of(values), Class::Digits(_)) && dates(values) => "date",
        Part::Gap(values) if matches!(Class::of(values), Class::Digits(_)) => "number",
        Part::Gap(values) if matches!(Class::of(values), Class::Hex(_)) => "id",
        _ => "name",
    };
    free_name(&word.unwrap_or_else(|| kind().to_owned()), taken)
}

/// The name, or with a number behind it if it is taken.
pub(super) fn free_name(wanted: &str, taken: &[Var]) -> String {
    let is_taken = |name: &str| taken.iter().any(|var| var.name == name);
    let numbered = (2..).map(|number| format!("{wanted}{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !is_taken(name)).expect("some number is free")
}

/// The template with a variable in the place of its gap at `at`.
pub(super) fn with_step(template: &Template, at: usize, var: VarId) -> Template {
    let mut stepped = template.clone();
    stepped.0[at] = Part::Step(var);
    stepped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_tightest_class() {
        let table: &[(&[&str], &str, &str)] = &[
            (&["01", "02"], "[0-9][0-9]", "[0-9]{2}"),
            (&["1", "2"], "[0-9]*", "[0-9]+"),
            (&["9", "10"], "[0-9]*", "[0-9]+"),
            (&["10", "12"], "[0-9]*", "[0-9]+"),
            (&["2023", "2024"], "[0-9][0-9][0-9][0-9]", "[0-9]{4}"),
            (&["20240101", "20240102"], "[0-9]*", "[0-9]{8}"),
            (&["deadbeef", "00c0ffee"], "[0-9a-f]*", "[0-9a-f]{8}"),
            (&["L", "R", "L", "R"], "{L,R}", "L|R"),
            (&["jane", "bob"], "*", "[A-Za-z]+"),
            (&["a1", "b"], "*", "[A-Za-z0-9]+"),
            (&["a b", "c"], "*", ".+"),
            (&["", "c-"], "*", ".*"),
        ];
        for (values, glob, regex) in table {
            let class = Class::of(&values.iter().map(|value| value.as_bytes().into()).collect::<Vec<_>>());
            assert_eq!((&*class.glob(), &*class.regex()), (*glob, *regex), "{values:?}");
        }
    }

    #[test]
    fn literal_names_are_escaped() {
        let table: &[(&[u8], &str)] =
            &[(b"a.csv", "a.csv"), (b"a[1]*", "a\\[1]\\*"), (b"<s>{x},", "\\<s>\\{x\\},"), (b"caf\xe9,", "caf?,")];
        for (name, wanted) in table {
            assert_eq!(escaped(name), *wanted);
        }
    }
}
