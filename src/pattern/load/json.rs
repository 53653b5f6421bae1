//! [`Pattern`]s back to JSON, in the form that says the least.

use serde_json::{Map, Value};

use super::super::{Body, DirClause, FileClause, FileTest, Magic, Pattern, SizeOp, SizeTest, Subpattern};

/// The pattern as JSON that [`load_text`](super::load_text) reads back as the same pattern: subpatterns as
/// objects, defaults left out. Where it came from is not part of it.
pub fn to_json(pattern: &Pattern) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), pattern.name.as_str().into());
    text(&mut map, "description", pattern.description.as_deref());
    subpattern(&mut map, &pattern.root);
    flag(&mut map, "prune", pattern.prune);
    text(&mut map, "layout", pattern.layout.as_deref());
    Value::Object(map)
}

fn subpattern(map: &mut Map<String, Value>, subpattern: &Subpattern) {
    body(map, &subpattern.body);
    if !subpattern.captures.is_empty() {
        let captures = subpattern.captures.iter().map(|(name, regex)| (name.clone(), regex.as_str().into()));
        map.insert("captures".to_owned(), Value::Object(captures.collect()));
    }
    flag(map, "opaque", subpattern.opaque);
    flag(map, "case_insensitive", subpattern.case_insensitive);
    list(map, "forbidden_names", &subpattern.forbidden_names, |glob| glob.as_str().into());
    list(map, "forbidden_ancestors", &subpattern.forbidden_ancestors, |glob| glob.as_str().into());
}

fn body(map: &mut Map<String, Value>, body: &Body) {
    text(map, "directory_name", body.directory_name.as_deref());
    list(map, "files", &body.files, file_clause);
    list(map, "directories", &body.directories, dir_clause);
    list(map, "optional_files", &body.optional_files, file_clause);
    list(map, "optional_directories", &body.optional_directories, dir_clause);
    list(map, "recommended_files", &body.recommended_files, file_clause);
    list(map, "recommended_directories", &body.recommended_directories, dir_clause);
    list(map, "forbidden_files", &body.forbidden_files, file_clause);
    list(map, "forbidden_directories", &body.forbidden_directories, dir_clause);
    list(map, "any_of", &body.any_of, |alternative| object(|map| self::body(map, alternative)));
}

fn file_clause(clause: &FileClause) -> Value {
    match clause {
        FileClause::One(test) => file_test(test),
        FileClause::AnyOf(clauses) => Value::Array(clauses.iter().map(file_clause).collect()),
    }
}

fn dir_clause(clause: &DirClause) -> Value {
    match clause {
        DirClause::One(subpattern) => object(|map| self::subpattern(map, subpattern)),
        DirClause::AnyOf(clauses) => Value::Array(clauses.iter().map(dir_clause).collect()),
    }
}

fn file_test(test: &FileTest) -> Value {
    if *test == FileTest::glob(test.glob.as_str()) {
        return test.glob.as_str().into();
    }
    object(|map| {
        map.insert("glob".to_owned(), test.glob.as_str().into());
        let numbers = [("min", (test.min != 1).then_some(test.min)), ("max", test.max)];
        map.extend(numbers.into_iter().filter_map(|(key, number)| Some((key.to_owned(), number?.into()))));
        map.extend(test.case_insensitive.map(|value| ("case_insensitive".to_owned(), value.into())));
        map.extend(test.size.map(|size| ("size".to_owned(), size_text(size).into())));
        map.extend(test.magic.as_ref().map(|magic| ("magic".to_owned(), magic_value(magic))));
        text(map, "contains", test.contains.as_deref());
    })
}

fn size_text(size: SizeTest) -> String {
    let sign = match size.op {
        SizeOp::Less => "<",
        SizeOp::AtMost => "<=",
        SizeOp::Equal => "=",
        SizeOp::AtLeast => ">=",
        SizeOp::Greater => ">",
    };
    format!("{sign}{}", size.bytes)
}

fn magic_value(magic: &Magic) -> Value {
    object(|map| {
        if magic.offset != 0 {
            map.insert("offset".to_owned(), magic.offset.into());
        }
        let plain = std::str::from_utf8(&magic.bytes)
            .ok()
            .filter(|text| !text.starts_with("hex:") && !text.contains(char::is_control));
        let hex = || magic.bytes.iter().fold("hex:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
        map.insert("bytes".to_owned(), plain.map_or_else(hex, str::to_owned).into());
    })
}

fn object(fill: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut map = Map::new();
    fill(&mut map);
    Value::Object(map)
}

fn text(map: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    map.extend(value.map(|value| (key.to_owned(), value.into())));
}

fn flag(map: &mut Map<String, Value>, key: &str, value: bool) {
    map.extend(value.then(|| (key.to_owned(), true.into())));
}

fn list<T>(map: &mut Map<String, Value>, key: &str, items: &[T], value: impl FnMut(&T) -> Value) {
    if !items.is_empty() {
        map.insert(key.to_owned(), Value::Array(items.iter().map(value).collect()));
    }
}
