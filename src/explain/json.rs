//! Explanations as JSON, in the words of `scan --json`; `docs/explain.md` fixes the shape.

use serde_json::{Map, Value, json};

use super::clauses::{Clause, Explanation, Met};
use super::cure::{Action, Cure, content::Made, words};
use super::near::Why;
use crate::view::matches::bytes;

/// An explanation's own part of the object: `matches`, `captures`, `missing`, `clauses`, `changes`, `shortest`.
pub fn explanation(object: &mut Map<String, Value>, explanation: &Explanation, cure: Option<&Cure>) {
    object.insert(
        "matches".into(),
        match explanation.met {
            Met::Yes => json!(true),
            Met::No => json!(false),
            Met::Unknown => Value::Null,
        },
    );
    let captures = explanation.captures.iter();
    let value = |value: &Option<Vec<u8>>| json!(value.as_ref().map(|value| String::from_utf8_lossy(value)));
    object.insert("captures".into(), Value::Object(captures.map(|(name, set)| (name.clone(), value(set))).collect()));
    object.insert("missing".into(), json!(explanation.missing));
    if let Some(reason) = &explanation.unread {
        object.insert("unread".into(), json!(reason));
    }
    object.insert("clauses".into(), explanation.clauses.iter().map(clause).collect());
    changes(object, cure);
}

/// `changes` and `shortest`; `changes` is null where there is nothing to be changed, or no list was found.
pub fn changes(object: &mut Map<String, Value>, cure: Option<&Cure>) {
    object.insert("changes".into(), cure.map_or(Value::Null, |cure| cure.changes.iter().map(change).collect()));
    if let Some(cure) = cure {
        object.insert("shortest".into(), json!(cure.shortest));
    }
}

fn clause(clause: &Clause) -> Value {
    let mut object = Map::new();
    object.insert("place".into(), json!(clause.place));
    object.insert("key".into(), json!(clause.key));
    object.insert("asks".into(), json!(clause.asks));
    object.insert("met".into(), json!(met(clause.met)));
    object.insert("count".into(), json!(clause.count));
    object.insert("by".into(), clause.by.iter().map(|path| json!(String::from_utf8_lossy(path))).collect());
    if let Some(near) = &clause.near {
        let mut object_of_near = Map::new();
        bytes(&mut object_of_near, "path", &near.path);
        let (why, distance) = match near.why {
            Why::Content => ("content", None),
            Why::Dangling => ("dangling", None),
            Why::Kind => ("kind", None),
            Why::Deeper => ("deeper", None),
            Why::Higher => ("higher", None),
            Why::Case => ("case", None),
            Why::Spelling(distance) => ("spelling", Some(distance)),
            Why::Inside => ("inside", None),
        };
        object_of_near.insert("why".into(), json!(why));
        object_of_near.extend(distance.map(|distance| ("distance".to_owned(), json!(distance))));
        object.insert("near".into(), Value::Object(object_of_near));
    }
    if let Some(note) = &clause.note {
        object.insert("note".into(), json!(note));
    }
    if !clause.clauses.is_empty() {
        object.insert("clauses".into(), clause.clauses.iter().map(self::clause).collect());
    }
    Value::Object(object)
}

fn met(met: Met) -> &'static str {
    match met {
        Met::Yes => "yes",
        Met::No => "no",
        Met::Unknown => "unknown",
    }
}

fn change(change: &super::cure::Change) -> Value {
    let mut object = Map::new();
    let (action, made): (_, Option<&Made>) = match &change.action {
        Action::CreateDir => ("create_directory", None),
        Action::CreateFile(made) => ("create_file", Some(made)),
        Action::Rename(_) => ("rename", None),
        Action::Remove => ("remove", None),
        Action::Rewrite(made) => ("change", Some(made)),
    };
    object.insert("action".into(), json!(action));
    bytes(&mut object, "path", &change.path);
    if let Action::Rename(to) = &change.action {
        bytes(&mut object, "to", to);
    }
    if let Some(made) = made.filter(|made| !made.tests.is_empty()) {
        object.insert("so_that".into(), made.tests.iter().map(|test| json!(words(test))).collect());
    }
    Value::Object(object)
}
