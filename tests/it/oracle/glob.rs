//! Globs by backtracking, one character after another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use regex::bytes::Regex;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::{Mapping, union};

/// Part of a glob.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character that stands for itself.
    Char(char),
    /// `[a-z]`
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `{a,b}`
    Alternatives(Vec<Vec<Token>>),
    /// `<name>`
    Capture(String),
}

/// A character of a name, with what is not UTF-8 byte by byte.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Letter {
    Char(char),
    Byte(u8),
}

/// The mapping of every way in which `glob` matches `name`; none if it does not. `captures` are those declared here or
/// above, by name, with their regular expressions. Panics on a malformed glob.
pub(crate) fn glob_match(
    glob: &str,
    captures: Option<&BTreeMap<String, String>>,
    ignore_case: bool,
    name: &[u8],
) -> BTreeSet<Mapping> {
    let none = BTreeMap::new();
    let captures = captures.unwrap_or(&none);
    let tokens = parse(glob, captures).unwrap_or_else(|error| panic!("glob {glob:?}: {error}"));
    let mut found = BTreeSet::new();
    let attempt = Attempt { captures, ignore_case, letters: &decode(name), name };
    attempt.run(&tokens, 0, Mapping::new(), &mut found);
    found
}

/// What is wrong in a glob, if anything is.
pub(crate) fn glob_error(glob: &str, captures: &BTreeMap<String, String>) -> Option<String> {
    parse(glob, captures).err()
}

/// The letters of a name, with the place of each and of the end in bytes.
fn decode(name: &[u8]) -> Vec<(usize, Letter)> {
    let mut letters = Vec::new();
    let mut at = 0;
    while at < name.len() {
        let valid = (1..=4).find_map(|len| std::str::from_utf8(name.get(at..at + len)?).ok());
        let (len, letter) = match valid.and_then(|text| text.chars().next()) {
            Some(char) => (char.len_utf8(), Letter::Char(char)),
            None => (1, Letter::Byte(name[at])),
        };
        letters.push((at, letter));
        at += len;
    }
    letters
}

fn parse(glob: &str, captures: &BTreeMap<String, String>) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = glob.chars().collect();
    let (tokens, at) = sequence(&chars, 0, 0, captures)?;
    if at < chars.len() { Err(format!("lone {:?}", chars[at])) } else { Ok(tokens) }
}

/// Tokens from `at` up to the end, or to a `,` or `}` that belongs to the braces around, `depth` of them.
fn sequence(
    chars: &[char],
    mut at: usize,
    depth: usize,
    captures: &BTreeMap<String, String>,
) -> Result<(Vec<Token>, usize), String> {
    let mut tokens = Vec::new();
    while let Some(&char) = chars.get(at) {
        at += 1;
        match char {
            '}' => return Ok((tokens, at - 1)),
            ',' if depth > 0 => return Ok((tokens, at - 1)),
            '*' => tokens.push(Token::Any),
            '?' => tokens.push(Token::One),
            '\\' => {
                tokens.push(Token::Char(*chars.get(at).ok_or("a \\ at the end")?));
                at += 1;
            }
            '[' => {
                let (class, end) = class(chars, at)?;
                tokens.push(class);
                at = end;
            }
            '{' => {
                let mut alternatives = Vec::new();
                loop {
                    let (alternative, end) = sequence(chars, at, depth + 1, captures)?;
                    alternatives.push(alternative);
                    at = end + 1;
                    match chars.get(end) {
                        Some(',') => {}
                        Some(_) => break,
                        None => return Err("an unclosed {".into()),
                    }
                }
                tokens.push(Token::Alternatives(alternatives));
            }
            '<' if !captures.is_empty() => match word(&chars[at..]) {
                Some(word) if captures.contains_key(&word) => {
                    at += word.chars().count() + 1;
                    tokens.push(Token::Capture(word));
                }
                Some(word) => return Err(format!("undeclared <{word}>")),
                None => tokens.push(Token::Char('<')),
            },
            _ => tokens.push(Token::Char(char)),
        }
    }
    Ok((tokens, at))
}

/// The `word` of `<word>`, from behind the `<`.
fn word(chars: &[char]) -> Option<String> {
    let end = chars.iter().position(|char| *char == '>')?;
    let word: String = chars[..end].iter().collect();
    (!word.is_empty() && word.chars().all(|char| char.is_alphanumeric() || char == '_')).then_some(word)
}

/// A class from behind its `[`, and the place behind its `]`.
fn class(chars: &[char], mut at: usize) -> Result<(Token, usize), String> {
    let negated = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        let low = *chars.get(at).ok_or("an unclosed [")?;
        at += 1;
        if low == ']' && !ranges.is_empty() {
            return Ok((Token::Class { negated, ranges }, at));
        }
        let mut high = low;
        // Again and again: `a-c-e` is `a-e`.
        while let Some(['-', further]) = chars.get(at..at + 2)
            && *further != ']'
        {
            at += 2;
            high = *further;
            if high < low {
                return Err(format!("the range {low}-{high} runs backwards"));
            }
        }
        ranges.push((low, high));
    }
}

/// A match under way.
struct Attempt<'a> {
    captures: &'a BTreeMap<String, String>,
    ignore_case: bool,
    letters: &'a [(usize, Letter)],
    name: &'a [u8],
}

impl Attempt<'_> {
    /// Adds the mapping of every way in which `tokens` match the letters from `at` to the end.
    fn run(&self, tokens: &[Token], at: usize, mapping: Mapping, found: &mut BTreeSet<Mapping>) {
        let Some((token, rest)) = tokens.split_first() else {
            if at == self.letters.len() {
                found.insert(mapping);
            }
            return;
        };
        match token {
            Token::Any => {
                for end in at..=self.letters.len() {
                    self.run(rest, end, mapping.clone(), found);
                }
            }
            Token::Alternatives(alternatives) => {
                for alternative in alternatives {
                    self.run(&[alternative, rest].concat(), at, mapping.clone(), found);
                }
            }
            Token::Capture(capture) => {
                for end in at..=self.letters.len() {
                    let value = &self.name[self.place(at)..self.place(end)];
                    let set = Mapping::from([(capture.clone(), value.to_vec())]);
                    if let Some(mapping) = union(&mapping, &set).filter(|_| is_value(&self.captures[capture], value)) {
                        self.run(rest, end, mapping, found);
                    }
                }
            }
            Token::One | Token::Char(_) | Token::Class { .. } => {
                if self.letters.get(at).is_some_and(|(_, letter)| self.is(*letter, token)) {
                    self.run(rest, at + 1, mapping, found);
                }
            }
        }
    }

    fn place(&self, letter: usize) -> usize {
        self.letters.get(letter).map_or(self.name.len(), |(place, _)| *place)
    }

    fn is(&self, letter: Letter, token: &Token) -> bool {
        let same = match letter {
            Letter::Char(char) if self.ignore_case => folds(char),
            Letter::Char(char) => vec![char],
            Letter::Byte(_) => vec![],
        };
        match token {
            Token::Char(wanted) => same.contains(wanted),
            Token::Class { negated, ranges } => {
                same.iter().any(|char| ranges.iter().any(|(low, high)| low <= char && char <= high)) != *negated
            }
            _ => true,
        }
    }
}

/// `char` and all that are the same by simple case folding.
fn folds(char: char) -> Vec<char> {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(char, char)]);
    class.try_case_fold_simple().expect("the tables are compiled in");
    class.iter().flat_map(|range| range.start()..=range.end()).collect()
}

/// True if `regex` matches the whole of `value`.
fn is_value(regex: &str, value: &[u8]) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        compiled
            .entry(regex.to_owned())
            .or_insert_with(|| Regex::new(&format!(r"\A(?:{regex})\z")).expect("the regular expression is valid"))
            .is_match(value)
    })
}
