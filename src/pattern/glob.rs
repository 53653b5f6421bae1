//! Globs for one name: syntax, the exact match by character, and the ways in which captures match.
//!
//! A [`Glob`] is a sequence of [`Token`]s. The automaton runs all globs at once over a name's bytes
//! ([`crate::matcher::names`]); what stands here is the slow, exact reading, used to enumerate captures and for
//! names that are no valid UTF-8, where a byte outside any valid sequence counts as one character.

use std::sync::Arc;

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, Repetition};

use crate::matcher::mapping::{CaptureId, Mapping};

/// How many steps one name may take while captures are enumerated.
pub const CAPTURE_STEPS: u32 = 200_000;

/// A piece of a glob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// This character.
    Literal(char),
    /// `?`: one character.
    Any,
    /// `*`: any characters, also none.
    Star,
    /// `[...]`: one character of the ranges, or of none of them.
    Class {
        /// `[!...]`
        negated: bool,
        /// Inclusive ranges.
        ranges: Vec<(char, char)>,
    },
    /// `{a,b}`
    Alternates(Vec<Vec<Token>>),
    /// `<name>`
    Capture(CaptureId),
}

/// A glob for one whole name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    /// The pieces from left to right.
    pub tokens: Vec<Token>,
}

/// A capture that globs may use: its name, number and compiled expression.
#[derive(Clone, Debug)]
pub struct Capture {
    /// What stands between `<` and `>`.
    pub name: Arc<str>,
    /// Its number in the automaton.
    pub id: CaptureId,
    /// Matches a whole value.
    pub regex: regex::bytes::Regex,
    /// The same for the automaton of names.
    pub hir: Hir,
}

/// What is wrong with a glob, and the cure.
#[derive(Debug, PartialEq, Eq)]
pub struct GlobError {
    /// The character's place, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The cure.
    pub hint: Option<String>,
}

/// Enumerating the captures of a name took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("captures match in too many ways")]
pub struct TooManyWays;

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    scope: &'a [Capture],
    fold: bool,
}

/// Splits a glob at each `/` that stands outside classes, braces and escapes.
pub fn components(glob: &str) -> Result<Vec<&str>, GlobError> {
    let mut parts = Vec::new();
    let (mut start, mut braces, mut chars) = (0, 0usize, glob.char_indices().enumerate().peekable());
    while let Some((column, (at, c))) = chars.next() {
        match c {
            '\\' => {
                if let Some((_, (_, '/'))) = chars.next() {
                    return Err(GlobError {
                        column: column + 1,
                        message: "`/` cannot be escaped: no name contains it".into(),
                        hint: None,
                    });
                }
            }
            '[' => {
                chars.next_if(|(_, (_, c))| matches!(c, '!' | '^'));
                chars.next_if(|(_, (_, c))| *c == ']');
                for (_, (_, c)) in chars.by_ref() {
                    if c == ']' {
                        break;
                    }
                }
            }
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            '/' if braces > 0 => {
                return Err(GlobError {
                    column: column + 1,
                    message: "`/` inside `{}`".into(),
                    hint: Some("write one clause for each path, in a nested list if one of them is enough".into()),
                });
            }
            '/' => {
                parts.push(&glob[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&glob[start..]);
    Ok(parts)
}

impl Glob {
    /// Reads one name's glob; `scope` are the captures declared here or above, the nearest last.
    pub fn parse(text: &str, scope: &[Capture], case_insensitive: bool) -> Result<Glob, GlobError> {
        let mut parser = Parser { chars: text.chars().collect(), at: 0, scope, fold: case_insensitive };
        let tokens = parser.sequence(0)?;
        Ok(Glob { tokens })
    }

    /// True if every name matches.
    pub fn is_any(&self) -> bool {
        !self.tokens.is_empty() && self.tokens.iter().all(|token| *token == Token::Star)
    }

    /// The captures in it, each once.
    pub fn captures(&self) -> Vec<CaptureId> {
        fn collect(tokens: &[Token], into: &mut Vec<CaptureId>) {
            for token in tokens {
                match token {
                    Token::Capture(id) if !into.contains(id) => into.push(*id),
                    Token::Alternates(branches) => branches.iter().for_each(|branch| collect(branch, into)),
                    _ => {}
                }
            }
        }
        let mut ids = Vec::new();
        collect(&self.tokens, &mut ids);
        ids.sort_unstable();
        ids
    }

    /// True if a byte that is no valid UTF-8 can match as one character, which bytes alone cannot tell.
    pub fn counts_characters(&self) -> bool {
        fn any(tokens: &[Token]) -> bool {
            tokens.iter().any(|token| match token {
                Token::Any | Token::Capture(_) | Token::Class { negated: true, .. } => true,
                Token::Alternates(branches) => branches.iter().any(|branch| any(branch)),
                _ => false,
            })
        }
        any(&self.tokens)
    }

    /// The glob as an expression over the bytes of a valid UTF-8 name.
    pub fn to_hir(&self, captures: &[Capture]) -> Hir {
        sequence_hir(&self.tokens, captures)
    }

    /// True if `name` matches; exact for all names, captures each on their own.
    pub fn matches(&self, name: &[u8], captures: &[Capture]) -> bool {
        let name = Chars::of(name);
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        advance(&self.tokens, &name, reached, captures)[name.len()]
    }

    /// Every way in which `name` matches, as sets of captured values; empty if it does not match.
    pub fn mappings(&self, name: &[u8], captures: &[Capture]) -> Result<Vec<Mapping>, TooManyWays> {
        let name = Chars::of(name);
        let mut search = Ways { name: &name, captures, steps: 0, found: Vec::new() };
        search.go(&Rest { tokens: &self.tokens, next: None }, 0, &Mapping::default())?;
        let mut found = search.found;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

impl Parser<'_> {
    fn error<T>(&self, at: usize, message: &str, hint: Option<&str>) -> Result<T, GlobError> {
        Err(GlobError { column: at + 1, message: message.into(), hint: hint.map(Into::into) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Token>, GlobError> {
        if depth > super::MAX_DEPTH {
            return self.error(self.at, "`{` nested too deeply", None);
        }
        let mut tokens: Vec<Token> = Vec::new();
        while let Some(&c) = self.chars.get(self.at) {
            let start = self.at;
            self.at += 1;
            match c {
                '*' => {
                    if tokens.last() != Some(&Token::Star) {
                        tokens.push(Token::Star);
                    }
                }
                '?' => tokens.push(Token::Any),
                '[' => tokens.push(self.class(start)?),
                '{' => tokens.push(self.alternates(start, depth)?),
                '}' if depth == 0 => {
                    return self.error(start, "`}` without `{`", Some("write `\\}` for the character itself"));
                }
                '}' | ',' if depth > 0 => {
                    self.at = start;
                    return Ok(tokens);
                }
                '\\' => match self.chars.get(self.at) {
                    Some(&c) => {
                        self.at += 1;
                        tokens.push(self.literal(c));
                    }
                    None => {
                        return self.error(
                            start,
                            "`\\` at the end escapes nothing",
                            Some("write `\\\\` for a backslash"),
                        );
                    }
                },
                '<' if !self.scope.is_empty() => match self.capture(start)? {
                    Some(id) => tokens.push(Token::Capture(id)),
                    None => tokens.push(Token::Literal('<')),
                },
                c => tokens.push(self.literal(c)),
            }
        }
        Ok(tokens)
    }

    fn literal(&self, c: char) -> Token {
        if self.fold {
            let ranges = folded(&[(c, c)]);
            if ranges != [(c, c)] {
                return Token::Class { negated: false, ranges };
            }
        }
        Token::Literal(c)
    }

    fn class(&mut self, start: usize) -> Result<Token, GlobError> {
        let negated = matches!(self.chars.get(self.at), Some('!' | '^'));
        self.at += usize::from(negated);
        let first = self.at;
        let Some(length) = self.chars[first..].iter().skip(1).position(|c| *c == ']') else {
            return self.error(
                start,
                "unclosed `[`",
                Some("close it with `]`, or write `\\[` for the character itself"),
            );
        };
        let members = self.chars[first..first + length + 1].to_vec();
        self.at = first + length + 2;
        let mut ranges = Vec::new();
        let mut i = 0;
        while i < members.len() {
            if members.get(i + 1) == Some(&'-') && i + 2 < members.len() {
                let (low, high) = (members[i], members[i + 2]);
                if low > high {
                    let hint = format!("write `{high}-{low}`");
                    return self.error(first + i, &format!("the range `{low}-{high}` runs backwards"), Some(&hint));
                }
                ranges.push((low, high));
                i += 3;
            } else {
                ranges.push((members[i], members[i]));
                i += 1;
            }
        }
        if self.fold {
            ranges = folded(&ranges);
        }
        Ok(Token::Class { negated, ranges })
    }

    fn alternates(&mut self, start: usize, depth: usize) -> Result<Token, GlobError> {
        let mut branches = Vec::new();
        loop {
            branches.push(self.sequence(depth + 1)?);
            match self.chars.get(self.at) {
                Some(',') => self.at += 1,
                Some('}') => {
                    self.at += 1;
                    return Ok(Token::Alternates(branches));
                }
                _ => {
                    let hint = "close it with `}`, or write `\\{` for the character itself";
                    return self.error(start, "unclosed `{`", Some(hint));
                }
            }
        }
    }

    fn capture(&mut self, start: usize) -> Result<Option<CaptureId>, GlobError> {
        let word: String =
            self.chars[self.at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
        if word.is_empty() || self.chars.get(self.at + word.len()) != Some(&'>') {
            return Ok(None);
        }
        self.at += word.len() + 1;
        if let Some(capture) = self.scope.iter().rev().find(|capture| *capture.name == word) {
            return Ok(Some(capture.id));
        }
        let names = || self.scope.iter().map(|capture| &*capture.name);
        let hint = match super::nearest(&word, names()) {
            Some(near) => format!("did you mean `<{near}>`?"),
            None => format!(
                "declare it in `captures`, or write `\\<` for the character itself; declared: {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        };
        self.error(start, &format!("undeclared capture `<{word}>`"), Some(&hint))
    }
}

fn folded(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut class = unicode_class(ranges);
    // Fails only where regex-syntax is built without its case tables, which its default features include.
    let _ = class.try_case_fold_simple();
    class.ranges().iter().map(|range| (range.start(), range.end())).collect()
}

fn unicode_class(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)))
}

fn sequence_hir(tokens: &[Token], captures: &[Capture]) -> Hir {
    Hir::concat(
        tokens
            .iter()
            .map(|token| match token {
                Token::Literal(c) => Hir::literal(c.to_string().into_bytes()),
                Token::Any => Hir::class(Class::Unicode(unicode_class(&[('\0', char::MAX)]))),
                Token::Star => Hir::repetition(Repetition {
                    min: 0,
                    max: None,
                    greedy: true,
                    sub: Box::new(Hir::class(Class::Bytes(ClassBytes::new([ClassBytesRange::new(0, 255)])))),
                }),
                Token::Class { negated, ranges } => {
                    let mut class = unicode_class(ranges);
                    if *negated {
                        class.negate();
                    }
                    Hir::class(Class::Unicode(class))
                }
                Token::Alternates(branches) => {
                    Hir::alternation(branches.iter().map(|branch| sequence_hir(branch, captures)).collect())
                }
                Token::Capture(id) => captures[id.index()].hir.clone(),
            })
            .collect(),
    )
}

/// A name cut into characters; a byte outside valid UTF-8 stands above the Unicode range.
struct Chars<'a> {
    bytes: &'a [u8],
    codes: Vec<u32>,
    starts: Vec<usize>,
}

const INVALID: u32 = 0x11_0000;

impl<'a> Chars<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (mut codes, mut starts, mut at) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len() + 1), 0);
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                codes.push(u32::from(c));
                starts.push(at);
                at += c.len_utf8();
            }
            for byte in chunk.invalid() {
                codes.push(INVALID + u32::from(*byte));
                starts.push(at);
                at += 1;
            }
        }
        starts.push(at);
        Self { bytes, codes, starts }
    }

    fn len(&self) -> usize {
        self.codes.len()
    }

    fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[self.starts[from]..self.starts[to]]
    }
}

fn class_holds(negated: bool, ranges: &[(char, char)], code: u32) -> bool {
    ranges.iter().any(|(low, high)| (u32::from(*low)..=u32::from(*high)).contains(&code)) != negated
}

fn one_holds(token: &Token, code: u32) -> bool {
    match token {
        Token::Literal(c) => u32::from(*c) == code,
        Token::Any => true,
        Token::Class { negated, ranges } => class_holds(*negated, ranges, code),
        Token::Star | Token::Alternates(_) | Token::Capture(_) => false,
    }
}

/// From the places reached so far to those reached behind `tokens`.
fn advance(tokens: &[Token], name: &Chars<'_>, mut reached: Vec<bool>, captures: &[Capture]) -> Vec<bool> {
    for token in tokens {
        match token {
            Token::Star => {
                if let Some(first) = reached.iter().position(|place| *place) {
                    reached[first..].fill(true);
                }
            }
            Token::Alternates(branches) => {
                let mut union = vec![false; reached.len()];
                for branch in branches {
                    let places = advance(branch, name, reached.clone(), captures);
                    union.iter_mut().zip(places).for_each(|(place, more)| *place |= more);
                }
                reached = union;
            }
            Token::Capture(id) => {
                let mut next = vec![false; reached.len()];
                for from in (0..reached.len()).filter(|from| reached[*from]) {
                    for (to, place) in next.iter_mut().enumerate().skip(from) {
                        *place |= captures[id.index()].regex.is_match(name.slice(from, to));
                    }
                }
                reached = next;
            }
            one => {
                for at in (0..name.len()).rev() {
                    reached[at + 1] = reached[at] && one_holds(one, name.codes[at]);
                }
                reached[0] = false;
            }
        }
    }
    reached
}

/// What is still to match: these tokens, then those behind the enclosing alternates.
struct Rest<'a> {
    tokens: &'a [Token],
    next: Option<&'a Rest<'a>>,
}

struct Ways<'a> {
    name: &'a Chars<'a>,
    captures: &'a [Capture],
    steps: u32,
    found: Vec<Mapping>,
}

impl Ways<'_> {
    fn go(&mut self, rest: &Rest<'_>, at: usize, values: &Mapping) -> Result<(), TooManyWays> {
        self.steps += 1;
        if self.steps > CAPTURE_STEPS {
            return Err(TooManyWays);
        }
        let Some((token, tokens)) = rest.tokens.split_first() else {
            match rest.next {
                Some(next) => return self.go(next, at, values),
                None if at == self.name.len() => self.found.push(values.clone()),
                None => {}
            }
            return Ok(());
        };
        let behind = Rest { tokens, next: rest.next };
        match token {
            Token::Star if tokens.is_empty() && rest.next.is_none() => self.found.push(values.clone()),
            Token::Star => {
                for to in at..=self.name.len() {
                    self.go(&behind, to, values)?;
                }
            }
            Token::Alternates(branches) => {
                for branch in branches {
                    self.go(&Rest { tokens: branch, next: Some(&behind) }, at, values)?;
                }
            }
            Token::Capture(id) => {
                for to in at..=self.name.len() {
                    self.steps += 1;
                    let value = self.name.slice(at, to);
                    match values.get(*id) {
                        Some(set) if set != value => {}
                        Some(_) => self.go(&behind, to, values)?,
                        None if self.captures[id.index()].regex.is_match(value) => {
                            self.go(&behind, to, &values.with(*id, value))?;
                        }
                        None => {}
                    }
                }
            }
            one => {
                if at < self.name.len() && one_holds(one, self.name.codes[at]) {
                    self.go(&behind, at + 1, values)?;
                }
            }
        }
        Ok(())
    }
}
