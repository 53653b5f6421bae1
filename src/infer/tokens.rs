//! Names cut into tokens, and what several names have in common.
//!
//! A token is a run of letters, a run of digits, or one other character; a hash counts as digits. Names are compared token by token, so that
//! `run-9` and `run-10` differ in one place, and `bold` and `bolt` have nothing in common.

use crate::entry::printable;

/// The number of a step variable: a part of names that varies in step with the name of a directory above, or with
/// other names beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct VarId(pub(super) usize);

/// A part of a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token<'a> {
    /// A run of letters.
    Word(&'a [u8]),
    /// A run of ASCII digits, or a long hexadecimal number.
    Number(&'a [u8]),
    /// One character that is neither, or a byte that is no character.
    Mark(&'a [u8]),
    /// What a variable stands for here.
    Step(VarId, &'a [u8]),
}

impl<'a> Token<'a> {
    /// What is written in the name.
    pub(super) fn text(self) -> &'a [u8] {
        match self {
            Token::Word(text) | Token::Number(text) | Token::Mark(text) | Token::Step(_, text) => text,
        }
    }
}

/// Variables are equal whatever they stand for.
impl PartialEq for Token<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Token::Step(ours, _), Token::Step(theirs, _)) => ours == theirs,
            (Token::Step(..), _) | (_, Token::Step(..)) => false,
            (ours, theirs) => ours.text() == theirs.text(),
        }
    }
}

/// The shortest run of letters and digits that is taken for a hash.
const HASH: usize = 8;

/// How long the hash is that `text` begins with: hexadecimal digits and letters in turn, up to a mark.
fn hash(text: &[u8]) -> Option<usize> {
    let length = text.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(text.len());
    let run = &text[..length];
    let changes = run.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    let hex = run.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (length >= HASH && changes >= 2 && hex).then_some(length)
}

/// The tokens of a name.
pub(super) fn tokens(name: &[u8]) -> Vec<Token<'_>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        let mut chars = valid.char_indices().peekable();
        while let Some((from, c)) = chars.next() {
            let starts = from == 0 || !valid.as_bytes()[from - 1].is_ascii_alphanumeric();
            if let Some(length) = hash(&valid.as_bytes()[from..]).filter(|_| starts) {
                tokens.push(Token::Number(&name[at + from..at + from + length]));
                while chars.next_if(|(next, _)| *next < from + length).is_some() {}
                continue;
            }
            let kind = |c: char| (c.is_alphabetic(), c.is_ascii_digit());
            if kind(c) != (false, false) {
                while chars.next_if(|(_, next)| kind(*next) == kind(c)).is_some() {}
            }
            let to = chars.peek().map_or(valid.len(), |(to, _)| *to);
            let text = &name[at + from..at + to];
            tokens.push(match kind(c) {
                (true, _) => Token::Word(text),
                (_, true) => Token::Number(text),
                _ => Token::Mark(text),
            });
        }
        at += valid.len();
        tokens.extend((0..chunk.invalid().len()).map(|byte| Token::Mark(&name[at + byte..at + byte + 1])));
        at += chunk.invalid().len();
    }
    tokens
}

/// Puts the variable in the place of every run of tokens that spells `value`.
pub(super) fn substitute<'a>(tokens: &mut Vec<Token<'a>>, name: &'a [u8], value: &[Token<'_>], var: VarId) {
    let mut at = 0;
    while !value.is_empty() && at + value.len() <= tokens.len() {
        if tokens[at..at + value.len()] == *value {
            let before: usize = tokens[..at].iter().map(|token| token.text().len()).sum();
            let length: usize = value.iter().map(|token| token.text().len()).sum();
            tokens.splice(at..at + value.len(), [Token::Step(var, &name[before..before + length])]);
        }
        at += 1;
    }
}

/// A value for each name.
pub(super) type Gap = Vec<Box<[u8]>>;

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// The same in all names.
    Text(Vec<u8>),
    /// A variable.
    Step(VarId),
    /// What differs: the value in each name, in the order of the names.
    Gap(Gap),
}

/// What names have in common, and what differs in between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Template(pub(super) Vec<Part>);

impl Template {
    /// The parts that differ.
    pub(super) fn gaps(&self) -> impl Iterator<Item = &Vec<Box<[u8]>>> {
        self.0.iter().filter_map(|part| match part {
            Part::Gap(values) => Some(values),
            _ => None,
        })
    }

    /// The names have something in common that is no accident: a word, their beginning or end, or a variable.
    pub(super) fn has_anchor(&self) -> bool {
        let letters = |text: &[u8], least: usize| {
            let is_alphanumeric = |c: char| if least > 1 { c.is_alphabetic() } else { c.is_alphanumeric() };
            printable(text).split(|c| !is_alphanumeric(c)).any(|word| word.chars().count() >= least)
        };
        self.0.iter().enumerate().any(|(at, part)| match part {
            Part::Text(text) => letters(text, if at == 0 || at + 1 == self.0.len() { 1 } else { 2 }),
            Part::Step(_) => true,
            Part::Gap(_) => false,
        })
    }

    fn push(&mut self, token: Token<'_>) {
        match (token, self.0.last_mut()) {
            (Token::Step(var, _), _) => self.0.push(Part::Step(var)),
            (token, Some(Part::Text(text))) => text.extend_from_slice(token.text()),
            (token, _) => self.0.push(Part::Text(token.text().to_vec())),
        }
    }

    fn push_gap(&mut self, values: Vec<Box<[u8]>>) {
        if values.iter().all(|value| value.is_empty()) {
            return;
        }
        match self.0.last_mut() {
            Some(Part::Gap(gap)) => {
                for (whole, more) in gap.iter_mut().zip(values) {
                    *whole = [&**whole, &*more].concat().into();
                }
            }
            _ => self.0.push(Part::Gap(values)),
        }
    }
}

/// What `names` have in common: their tokens in columns if they have the same marks in the same places, else the
/// longest run at the beginning, the longest at the end, and a longest common subsequence in between.
pub(super) fn common(names: &[&[Token<'_>]]) -> Template {
    let Some((first, rest)) = names.split_first() else { return Template::default() };
    if rest.iter().all(|name| same_marks(first, name)) {
        return columns(names);
    }
    let head = rest.iter().map(|name| shared(first.iter(), name.iter())).min().unwrap_or(first.len());
    let least = names.iter().map(|name| name.len()).min().unwrap_or(0);
    let tail = rest.iter().map(|name| shared(first.iter().rev(), name.iter().rev())).min().unwrap_or(0);
    let tail = tail.min(least - head);
    let middles: Vec<&[Token<'_>]> = names.iter().map(|name| &name[head..name.len() - tail]).collect();
    let mut template = Template::default();
    first[..head].iter().for_each(|token| template.push(*token));
    between(&middles, &mut template);
    first[first.len() - tail..].iter().for_each(|token| template.push(*token));
    template
}

fn shared<'t, 'a: 't>(ours: impl Iterator<Item = &'t Token<'a>>, theirs: impl Iterator<Item = &'t Token<'a>>) -> usize {
    ours.zip(theirs).take_while(|(a, b)| a == b).count()
}

fn same_marks(one: &[Token<'_>], other: &[Token<'_>]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Token::Mark(a), Token::Mark(b)) => a == b,
            (Token::Mark(_), _) | (_, Token::Mark(_)) => false,
            (Token::Step(a, _), Token::Step(b, _)) => a == b,
            (Token::Step(..), _) | (_, Token::Step(..)) => false,
            _ => true,
        })
}

fn columns(names: &[&[Token<'_>]]) -> Template {
    let mut template = Template::default();
    for (at, token) in names[0].iter().enumerate() {
        if names.iter().all(|name| name[at] == *token) {
            template.push(*token);
        } else {
            template.push_gap(names.iter().map(|name| name[at].text().into()).collect());
        }
    }
    template
}

/// The longest common subsequence of all, found by folding, with what stands between its tokens in each name.
fn between(names: &[&[Token<'_>]], template: &mut Template) {
    let mut anchors: Vec<Token<'_>> = names[0].to_vec();
    for name in &names[1..] {
        anchors = subsequence(&anchors, name);
    }
    let mut at = vec![0; names.len()];
    for anchor in anchors.iter().map(Some).chain([None]) {
        let mut values = Vec::with_capacity(names.len());
        for (at, name) in at.iter_mut().zip(names) {
            let rest = &name[*at..];
            let to = anchor.map_or(rest.len(), |anchor| rest.iter().position(|t| t == anchor).unwrap_or(rest.len()));
            values.push(rest[..to].iter().flat_map(|token| token.text()).copied().collect::<Box<[u8]>>());
            *at = (*at + to + 1).min(name.len());
        }
        template.push_gap(values);
        anchor.iter().for_each(|anchor| template.push(**anchor));
    }
}

/// How much a token says that names have in common: numbers are alike by accident.
fn weight(token: Token<'_>) -> usize {
    match token {
        Token::Step(..) => 8,
        Token::Word(word) if word.len() > 1 => 6,
        Token::Mark(_) => 4,
        Token::Word(_) => 2,
        Token::Number(_) => 1,
    }
}

fn subsequence<'a>(ours: &[Token<'a>], theirs: &[Token<'_>]) -> Vec<Token<'a>> {
    // Names have 255 bytes at most, so that the table stays small.
    let mut longest = vec![vec![0usize; theirs.len() + 1]; ours.len() + 1];
    for (i, a) in ours.iter().enumerate().rev() {
        for (j, b) in theirs.iter().enumerate().rev() {
            let skipped = longest[i + 1][j].max(longest[i][j + 1]);
            let taken = if a == b { longest[i + 1][j + 1] + weight(*a) } else { 0 };
            longest[i][j] = taken.max(skipped);
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < ours.len() && j < theirs.len() {
        if ours[i] == theirs[j] && longest[i][j] == longest[i + 1][j + 1] + weight(ours[i]) {
            found.push(ours[i]);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &[&str]) -> String {
        let tokens: Vec<_> = names.iter().map(|name| tokens(name.as_bytes())).collect();
        let template = common(&tokens.iter().map(|name| &**name).collect::<Vec<_>>());
        let part = |part: &Part| match part {
            Part::Text(text) => printable(text).into_owned(),
            Part::Step(var) => format!("<{}>", var.0),
            Part::Gap(values) => {
                format!("({})", values.iter().map(|value| printable(value)).collect::<Vec<_>>().join("|"))
            }
        };
        template.0.iter().map(part).collect()
    }

    #[test]
    fn names_have_tokens_in_common() {
        let table: &[(&[&str], &str)] = &[
            (&["a.csv"], "a.csv"),
            (&["run-9", "run-10"], "run-(9|10)"),
            (&["sub-01_bold.nii.gz", "sub-02_bold.nii.gz"], "sub-(01|02)_bold.nii.gz"),
            (&["jane_data.csv", "bob_data.csv"], "(jane|bob)_data.csv"),
            (&["a.b.csv", "c.csv"], "(a.b|c).csv"),
            (&["serde_json-1.0.1", "libc-0.2.9"], "(serde_json|libc)-(1|0).(0|2).(1|9)"),
            (&["x_long_name.txt", "y.txt"], "(x_long_name|y).txt"),
            (&["IMG_1 (copy).jpg", "IMG_2.jpg"], "IMG_(1 (copy)|2).jpg"),
            (&["aa", "aa-aa"], "aa(|-aa)"),
            (&["26ab0db90d72", "6d7fce9fee47"], "(26ab0db90d72|6d7fce9fee47)"),
        ];
        for (names, wanted) in table {
            assert_eq!(shown(names), *wanted, "{names:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_marks() {
        let texts: Vec<&[u8]> = tokens(b"caf\xe9-\xc3\xa912").into_iter().map(Token::text).collect();
        assert_eq!(texts, [b"caf".as_slice(), b"\xe9", b"-", b"\xc3\xa9", b"12"]);
    }

    #[test]
    fn a_variable_takes_the_place_of_its_value() {
        let name = b"m12_2024-m12.csv";
        let mut found = tokens(name);
        substitute(&mut found, name, &tokens(b"m12"), VarId(3));
        let vars: Vec<bool> = found.iter().map(|token| matches!(token, Token::Step(VarId(3), b"m12"))).collect();
        assert_eq!(vars, [true, false, false, false, true, false, false]);
    }
}
