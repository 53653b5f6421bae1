//! Text to [`Node`], one tree for all formats.
//!
//! A [`Node`] keeps duplicate keys, so that the reader can name them, is at most [`MAX_NESTING`] deep,
//! and costs no more than a [`Budget`] allows, whatever aliases unfold to.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter as _, NonFiniteFloatPolicy, UserMessageFormatter};

use super::super::MAX_DEPTH;

/// The deepest nesting of lists and maps: two for each level of a pattern, and some for what is around
/// and inside (`patterns`, lists of clauses, `magic`).
pub(super) const MAX_NESTING: usize = 2 * MAX_DEPTH + 12;

/// What all nodes of a file may cost; a file of the greatest size without aliases costs two thirds of it.
const MAX_COST_BYTES: usize = 24 << 20;

/// What a node costs beside its text.
const NODE_COST_BYTES: usize = 32;

/// Several times what the deepest TOML needs.
const TOML_STACK_BYTES: usize = 16 << 20;

/// The key under which the `toml` crate hands out dates.
const TOML_DATE: &str = "$__toml_private_datetime";

/// A value of JSON, YAML or TOML.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Date,
    String(String),
    List(Vec<Node>),
    /// In the order written, duplicate keys included.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(true) => "`true`",
            Self::Bool(false) => "`false`",
            Self::Int(_) | Self::Float => "a number",
            Self::Date => "a date",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

/// What may still be spent on nodes.
pub(super) struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_COST_BYTES))
    }
}

impl Budget {
    fn spend<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        let spent = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        spent.map(|_| ()).map_err(|_| E::custom("the text unfolds to too much"))
    }
}

/// Why a text is none of its format.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// `line L, column C`, or empty.
    pub(super) place: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Parses JSON.
pub(super) fn from_json(text: &str, budget: &Budget) -> Result<Node, SyntaxError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // `Seed` limits the depth, and with it the recursion.
    deserializer.disable_recursion_limit();
    Seed { budget, depth: 0 }.deserialize(&mut deserializer).and_then(|node| deserializer.end().map(|()| node)).map_err(
        |error| {
            let message = error.to_string();
            let suffix = format!(" at line {} column {}", error.line(), error.column());
            SyntaxError {
                place: place(text, error.line(), error.column()),
                message: message.strip_suffix(&suffix).unwrap_or(&message).to_owned(),
                hint: message.starts_with("trailing comma").then(|| "remove the comma before it".to_owned()),
            }
        },
    )
}

/// Parses YAML.
pub(super) fn from_yaml(text: &str, budget: &Budget) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_NESTING, max_documents: 2 },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A file called `on` or `001` is just that.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let seed = Seed { budget, depth: 0 };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| seed.deserialize(deserializer))
        .map_err(|error| {
            let at = error.location().map(|at| (at.line(), at.column()));
            let place = at.map_or_else(String::new, |(line, column)| format!("line {line}, column {column}"));
            let message = UserMessageFormatter.format_message(&error).into_owned();
            if message.contains("limits breached") || message.contains("recursion limit") {
                let message = "the document is too large or nested too deep".to_owned();
                return SyntaxError { place, message, hint: None };
            }
            let hint = at.and_then(|(line, _)| unquoted(text, usize::try_from(line).ok()?));
            SyntaxError { place, message, hint }
        })
}

/// The cure if the line holds a value that begins like syntax, as globs do.
fn unquoted(text: &str, line: usize) -> Option<String> {
    let mut value = text.lines().nth(line.checked_sub(1)?)?.trim();
    while let Some(rest) = value.strip_prefix("- ") {
        value = rest.trim_start();
    }
    let value = value.split_once(": ").map_or(value, |(_, value)| value.trim_start());
    let goes_on = |close: char| value.contains(close) && !value.ends_with(close);
    let glob = match value.chars().next()? {
        '*' | '!' | '?' | '&' | '@' | '%' => true,
        '[' => goes_on(']'),
        '{' => goes_on('}'),
        _ => false,
    };
    let in_list = ["[*", "[!", ", *", ", !"].iter().any(|start| value.contains(start));
    (glob || in_list).then(|| "quote globs that begin with such a character: '*.csv'".to_owned())
}

/// Parses TOML.
///
/// The `toml` crate allows 80 brackets inside each other and 80 parts of a dotted key in each: tables 6400
/// deep, which it drops by recursion. So this has a stack of its own.
pub(super) fn from_toml(text: &str, budget: &Budget) -> Result<Node, SyntaxError> {
    let parse = || {
        let document = toml::Deserializer::parse(text)?;
        Seed { budget, depth: 0 }.deserialize(document)
    };
    let parsed = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(TOML_STACK_BYTES).spawn_scoped(scope, parse);
        thread.map(|thread| thread.join().expect("the parser does not panic"))
    });
    let parsed = parsed.map_err(|error| SyntaxError {
        place: String::new(),
        message: format!("cannot start a thread to parse it: {error}"),
        hint: None,
    })?;
    parsed.map_err(|error| SyntaxError {
        place: error.span().map(|span| place_at(text, span.start)).unwrap_or_default(),
        message: error.message().to_owned(),
        hint: None,
    })
}

/// `line L, column C` of a byte of the text, the column in characters.
pub(super) fn place_at(text: &str, offset: usize) -> String {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    format!("line {line}, column {}", 1 + String::from_utf8_lossy(&before[start..]).chars().count())
}

/// `line L, column C` from a line and a column in bytes, both from 1 on.
fn place(text: &str, line: usize, column: usize) -> String {
    let Some(start) = line.checked_sub(1).and_then(|skip| line_start(text, skip)) else { return String::new() };
    place_at(text, start + column.saturating_sub(1))
}

fn line_start(text: &str, skip: usize) -> Option<usize> {
    match skip {
        0 => Some(0),
        _ => text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').nth(skip - 1).map(|(at, _)| at + 1),
    }
}

/// Builds a [`Node`] within its limits.
#[derive(Clone, Copy)]
struct Seed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_NESTING {
            return Err(E::custom(format!("lists and objects are nested more than {MAX_NESTING} deep")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.budget.spend(NODE_COST_BYTES)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pattern")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(i128::try_from(value).map_or(Node::Float, Node::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Float)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Node, E> {
        self.budget.spend(value.len())?;
        Ok(Node::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(seed)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            self.budget.spend(NODE_COST_BYTES + key.len())?;
            let value = map.next_value_seed(seed)?;
            if key == TOML_DATE {
                return Ok(Node::Date);
            }
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}
