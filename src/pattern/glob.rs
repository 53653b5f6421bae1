//! Globs for one name: syntax, the exact match by character, and the ways in which captures match.
//!
//! A [`Glob`] is a sequence of [`Token`]s. The automaton runs all globs at once over a name's bytes
//! ([`crate::matcher::names`]); what stands here is the slow, exact reading, used to enumerate captures and for
//! names that are no valid UTF-8, where a byte outside any valid sequence counts as one character.

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, Repetition};
use rustc_hash::{FxHashMap, FxHashSet};

pub use super::capture::Capture;
pub(crate) use super::capture::{Chars, Spans};
use crate::matcher::mapping::{CaptureId, MAX_MAPPINGS, Mapping};

#[cfg(test)]
mod tests;

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

    /// The glob that takes no notice of case.
    pub(crate) fn ignoring_case(&self) -> Glob {
        fn fold(tokens: &[Token]) -> Vec<Token> {
            let folded_token = |token: &Token| match token {
                Token::Literal(c) => Token::Class { negated: false, ranges: folded(&[(*c, *c)]) },
                Token::Class { negated: false, ranges } => Token::Class { negated: false, ranges: folded(ranges) },
                Token::Alternates(branches) => Token::Alternates(branches.iter().map(|branch| fold(branch)).collect()),
                other => other.clone(),
            };
            tokens.iter().map(folded_token).collect()
        }
        Glob { tokens: fold(&self.tokens) }
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

    /// True if bytes alone could take a part of a character for a captured value.
    pub(crate) fn splits_characters(&self, captures: &[Capture]) -> bool {
        self.captures().iter().any(|id| captures[id.index()].splits_characters())
    }

    /// At least what the glob takes as a part of an automaton, in bytes.
    pub(crate) fn bytes(&self, captures: &[Capture]) -> usize {
        sequence_bytes(&self.tokens, captures)
    }

    /// The glob as an expression over the bytes of a valid UTF-8 name.
    pub fn to_hir(&self, captures: &[Capture]) -> Hir {
        sequence_hir(&self.tokens, captures)
    }

    /// True if `name` matches; exact for all names, captures each on their own.
    pub fn matches(&self, name: &[u8], captures: &[Capture]) -> bool {
        self.matches_spans(&mut Spans::new(&Chars::of(name), captures))
    }

    /// The same for a name that several globs are held against.
    pub(crate) fn matches_spans(&self, spans: &mut Spans<'_>) -> bool {
        let length = spans.name.len();
        let mut reached = vec![false; length + 1];
        reached[0] = true;
        advance(&self.tokens, spans, reached)[length]
    }

    /// Every way in which `name` matches, as sets of captured values; empty if it does not match.
    pub fn mappings(&self, name: &[u8], captures: &[Capture]) -> Result<Vec<Mapping>, TooManyWays> {
        let mut program = Vec::new();
        unfold(&self.tokens, &mut program);
        program.push(Step::End);
        Ways::of(&program, &mut Spans::new(&Chars::of(name), captures))
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

    /// As globset reads it: `]` first, `-` first or last are members; a `-` behind a range extends it.
    fn class(&mut self, start: usize) -> Result<Token, GlobError> {
        let negated = matches!(self.chars.get(self.at), Some('!' | '^'));
        self.at += usize::from(negated);
        let first = self.at;
        let Some(length) = self.chars.iter().skip(first + 1).position(|c| *c == ']') else {
            return self.error(
                start,
                "unclosed `[`",
                Some("close it with `]`, or write `\\[` for the character itself"),
            );
        };
        self.at = first + length + 2;
        let members = &self.chars[first..self.at - 1];
        let mut ranges: Vec<(char, char)> = vec![(members[0], members[0])];
        let mut i = 1;
        while i < members.len() {
            let last = ranges.last_mut().expect("the first member is in it");
            if members[i] == '-' && i + 1 < members.len() {
                let (low, high) = (last.0, members[i + 1]);
                if low > high {
                    let hint = format!("write `{high}-{low}`");
                    return self.error(first + i - 1, &format!("the range `{low}-{high}` runs backwards"), Some(&hint));
                }
                last.1 = high;
                i += 2;
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
    let (mut parts, mut literal) = (Vec::new(), String::new());
    for token in tokens {
        if let Token::Literal(c) = token {
            literal.push(*c);
            continue;
        }
        if !literal.is_empty() {
            parts.push(Hir::literal(std::mem::take(&mut literal).into_bytes()));
        }
        parts.push(token_hir(token, captures));
    }
    parts.push(Hir::literal(literal.into_bytes()));
    Hir::concat(parts)
}

fn token_hir(token: &Token, captures: &[Capture]) -> Hir {
    match token {
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
        Token::Capture(id) => captures[id.index()].hir().clone(),
    }
}

/// What tokens take as a part of an automaton, in bytes; a rough estimate from below.
fn sequence_bytes(tokens: &[Token], captures: &[Capture]) -> usize {
    let of = |token: &Token| match token {
        Token::Literal(_) => 24,
        Token::Star => 64,
        Token::Any => 256,
        Token::Class { ranges, .. } => 64 + 16 * ranges.len(),
        Token::Alternates(branches) => {
            branches.iter().map(|branch| 16 + sequence_bytes(branch, captures)).fold(64, usize::saturating_add)
        }
        Token::Capture(id) => captures[id.index()].bytes(),
    };
    tokens.iter().map(of).fold(0, usize::saturating_add)
}

fn class_holds(negated: bool, ranges: &[(char, char)], code: u32) -> bool {
    ranges.iter().any(|(low, high)| (u32::from(*low)..=u32::from(*high)).contains(&code)) != negated
}

pub(crate) fn one_holds(token: &Token, code: u32) -> bool {
    match token {
        Token::Literal(c) => u32::from(*c) == code,
        Token::Any => true,
        Token::Class { negated, ranges } => class_holds(*negated, ranges, code),
        Token::Star | Token::Alternates(_) | Token::Capture(_) => false,
    }
}

/// From the places reached so far to those reached behind `tokens`.
fn advance(tokens: &[Token], spans: &mut Spans<'_>, mut reached: Vec<bool>) -> Vec<bool> {
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
                    let places = advance(branch, spans, reached.clone());
                    union.iter_mut().zip(places).for_each(|(place, more)| *place |= more);
                }
                reached = union;
            }
            Token::Capture(id) => {
                let mut next = vec![false; reached.len()];
                for from in (0..reached.len()).filter(|from| reached[*from]) {
                    spans.ends(*id, from).iter().for_each(|to| next[to] = true);
                }
                reached = next;
            }
            one => {
                for at in (0..spans.name.len()).rev() {
                    reached[at + 1] = reached[at] && one_holds(one, spans.name.code(at));
                }
                reached[0] = false;
            }
        }
    }
    reached
}

/// A glob unfolded for the search of [`Ways`], which goes from step to step.
enum Step<'a> {
    One(&'a Token),
    Star,
    Capture(CaptureId),
    /// On at any of these.
    Split(Vec<usize>),
    /// On here.
    Jump(usize),
    /// The end of the name must be reached.
    End,
}

fn unfold<'a>(tokens: &'a [Token], into: &mut Vec<Step<'a>>) {
    for token in tokens {
        match token {
            Token::Star => into.push(Step::Star),
            Token::Capture(id) => into.push(Step::Capture(*id)),
            Token::Alternates(branches) => {
                let split = into.len();
                into.push(Step::End);
                let (mut starts, mut jumps) = (Vec::with_capacity(branches.len()), Vec::new());
                for branch in branches {
                    starts.push(into.len());
                    unfold(branch, into);
                    jumps.push(into.len());
                    into.push(Step::End);
                }
                let behind = into.len();
                jumps.into_iter().for_each(|jump| into[jump] = Step::Jump(behind));
                into[split] = Step::Split(starts);
            }
            one => into.push(Step::One(one)),
        }
    }
}

/// A place in the program, one in the name, and a number for the values captured so far.
type Point = (usize, usize, usize);

/// The search for all ways in which a name matches; no point is visited twice.
#[derive(Default)]
struct Ways {
    open: Vec<Point>,
    seen: FxHashSet<Point>,
    mappings: Vec<Mapping>,
    numbers: FxHashMap<Mapping, usize>,
}

impl Ways {
    fn of(program: &[Step<'_>], spans: &mut Spans<'_>) -> Result<Vec<Mapping>, TooManyWays> {
        let (mut ways, mut found, mut steps) = (Ways::default(), FxHashSet::default(), 0u32);
        let none = ways.number(Mapping::default());
        ways.visit((0, 0, none));
        while let Some((mut pc, mut at, values)) = ways.open.pop() {
            loop {
                steps += 1;
                if steps > CAPTURE_STEPS || found.len() > MAX_MAPPINGS {
                    return Err(TooManyWays);
                }
                match &program[pc] {
                    Step::One(token) if at < spans.name.len() && one_holds(token, spans.name.code(at)) => {
                        (pc, at) = (pc + 1, at + 1);
                        continue;
                    }
                    Step::One(_) => {}
                    Step::Star if matches!(program[pc + 1], Step::End) => drop(found.insert(values)),
                    Step::Star => {
                        ways.visit((pc + 1, at, values));
                        if at < spans.name.len() {
                            ways.visit((pc, at + 1, values));
                        }
                    }
                    Step::Jump(to) => {
                        ways.visit((*to, at, values));
                    }
                    Step::Split(starts) => starts.iter().for_each(|start| ways.visit((*start, at, values))),
                    Step::Capture(id) => match ways.mappings[values].get(*id) {
                        Some(set) => {
                            if let Some(to) = spans.name.behind(at, set) {
                                ways.visit((pc + 1, to, values));
                            }
                        }
                        None => {
                            let name = spans.name;
                            for to in spans.ends(*id, at).iter() {
                                steps += 1;
                                let longer = ways.mappings[values].with(*id, name.slice(at, to));
                                let longer = ways.number(longer);
                                ways.visit((pc + 1, to, longer));
                            }
                        }
                    },
                    Step::End if at == spans.name.len() => drop(found.insert(values)),
                    Step::End => {}
                }
                break;
            }
        }
        let mut found: Vec<Mapping> =
            found.into_iter().map(|number| std::mem::take(&mut ways.mappings[number])).collect();
        found.sort_unstable();
        Ok(found)
    }

    fn visit(&mut self, point: Point) {
        if self.seen.insert(point) {
            self.open.push(point);
        }
    }

    fn number(&mut self, mapping: Mapping) -> usize {
        let next = self.mappings.len();
        *self.numbers.entry(mapping).or_insert_with_key(|mapping| {
            self.mappings.push(mapping.clone());
            next
        })
    }
}
