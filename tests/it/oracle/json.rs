//! Patterns for tests, from JSON that is taken to be right.

use serde_json::Value;
use veinfs::pattern::{Body, DirClause, FileClause, FileTest, Magic, Pattern, SizeOp, SizeTest, Subpattern};

/// A pattern called `name`.
pub(super) fn pattern(name: &str, value: &Value) -> Pattern {
    Pattern {
        name: name.into(),
        origin: "test".into(),
        place: String::new(),
        description: None,
        root: subpattern(value),
        prune: truth(value, "prune"),
        layout: None,
    }
}

fn subpattern(value: &Value) -> Subpattern {
    let known = "directory_name files directories optional_files optional_directories recommended_files \
                 recommended_directories forbidden_files forbidden_directories any_of captures opaque prune \
                 case_insensitive forbidden_names forbidden_ancestors";
    for key in value.as_object().expect("a pattern is an object").keys() {
        assert!(known.split_whitespace().any(|known| known == key), "unknown key {key}");
    }
    let captures = value["captures"].as_object();
    Subpattern {
        body: body(value),
        captures: captures.into_iter().flatten().map(|(name, regex)| (name.clone(), text(regex))).collect(),
        opaque: truth(value, "opaque"),
        case_insensitive: truth(value, "case_insensitive"),
        forbidden_names: list(&value["forbidden_names"], text),
        forbidden_ancestors: list(&value["forbidden_ancestors"], text),
    }
}

fn body(value: &Value) -> Body {
    Body {
        directory_name: value["directory_name"].as_str().map(str::to_owned),
        files: list(&value["files"], file_clause),
        directories: list(&value["directories"], dir_clause),
        optional_files: list(&value["optional_files"], file_clause),
        optional_directories: list(&value["optional_directories"], dir_clause),
        recommended_files: list(&value["recommended_files"], file_clause),
        recommended_directories: list(&value["recommended_directories"], dir_clause),
        forbidden_files: list(&value["forbidden_files"], file_clause),
        forbidden_directories: list(&value["forbidden_directories"], dir_clause),
        any_of: list(&value["any_of"], body),
    }
}

fn file_clause(value: &Value) -> FileClause {
    match value {
        Value::String(glob) => FileClause::One(FileTest::glob(glob)),
        Value::Array(_) => FileClause::AnyOf(list(value, file_clause)),
        _ => FileClause::One(FileTest {
            glob: text(&value["glob"]),
            min: number(&value["min"]).unwrap_or(1),
            max: number(&value["max"]),
            case_insensitive: value["case_insensitive"].as_bool(),
            size: value["size"].as_str().map(size),
            magic: value["magic"].as_object().map(|magic| Magic {
                offset: magic["offset"].as_u64().expect("an offset is a number"),
                bytes: text(&magic["bytes"]).into(),
            }),
            contains: value["contains"].as_str().map(str::to_owned),
        }),
    }
}

fn dir_clause(value: &Value) -> DirClause {
    match value {
        Value::Array(_) => DirClause::AnyOf(list(value, dir_clause)),
        _ => DirClause::One(subpattern(value)),
    }
}

fn size(text: &str) -> SizeTest {
    let (op, bytes) = text.split_at(text.find(|char: char| char.is_ascii_digit()).expect("a size has a number"));
    let op = match op {
        "<" => SizeOp::Less,
        "<=" => SizeOp::AtMost,
        "=" => SizeOp::Equal,
        ">=" => SizeOp::AtLeast,
        _ => SizeOp::Greater,
    };
    SizeTest { op, bytes: bytes.parse().expect("the rest is a number") }
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(item).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").into()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().map(|number| u32::try_from(number).expect("counts in tests are small"))
}

fn truth(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}
