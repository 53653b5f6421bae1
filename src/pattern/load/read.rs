//! [`Node`] to patterns: every value is taken by its key and type, every fault noted with its key path.
//!
//! After a fault the reader goes on with a default, so that one reading finds many faults. What it
//! returns counts only if there are none.

use std::collections::{BTreeMap, HashSet};

use super::super::{
    Body, DirClause, FileClause, FileTest, MAX_DEPTH, Magic, Pattern, PatternError, SizeOp, SizeTest, Subpattern, item,
    key, nearest,
};
use super::keys::{Fields, Scope};
use super::node::{self, Budget, Node};
use super::scalar::{self, Fault, clip};

/// More faults than this are not noted.
const MAX_ERRORS: usize = 100;

/// A pattern, and its name if it has one.
pub(super) struct Named {
    pub(super) name: Option<String>,
    /// Its `name` is still empty.
    pub(super) pattern: Pattern,
}

/// Reads nodes and notes what is wrong.
pub(super) struct Reader<'a> {
    origin: &'a str,
    budget: &'a Budget,
    errors: Vec<PatternError>,
}

impl<'a> Reader<'a> {
    /// A reader of a file whose encoded subpatterns are paid from `budget`.
    pub(super) fn new(origin: &'a str, budget: &'a Budget) -> Self {
        Self { origin, budget, errors: Vec::new() }
    }

    /// What was wrong.
    pub(super) fn finish(self) -> Vec<PatternError> {
        self.errors
    }

    /// Notes a fault.
    pub(super) fn fail(&mut self, place: &str, message: impl Into<String>, hint: Option<String>) {
        if self.is_full() {
            return;
        }
        let (origin, place) = (self.origin.to_owned(), place.to_owned());
        self.errors.push(PatternError { origin, place, message: message.into(), hint });
    }

    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    fn fail_with(&mut self, place: &str, (message, hint): Fault) {
        self.fail(place, message, hint);
    }

    fn fail_kind(&mut self, place: &str, expected: &str, node: &Node, hint: Option<&str>) {
        let message = format!("expected {expected}, found {}", node.kind());
        self.fail(place, message, hint.map(str::to_owned));
    }

    /// A whole file: a pattern, a list of patterns, or an object with such a list.
    pub(super) fn file(&mut self, node: Node) -> Vec<Named> {
        match node {
            Node::List(nodes) => self.patterns(nodes, ""),
            Node::Map(mut entries) if entries.iter().any(|(key, _)| key == "patterns") => {
                self.duplicates("", &entries);
                for (other, _) in entries.iter().filter(|(key, _)| key != "patterns") {
                    let hint = "beside `patterns` there are no other keys; put it into each pattern".to_owned();
                    self.fail("", format!("unexpected key `{}`", clip(other)), Some(hint));
                }
                let index = entries.iter().position(|(key, _)| key == "patterns").unwrap_or_default();
                match entries.swap_remove(index).1 {
                    Node::List(nodes) => self.patterns(nodes, "patterns"),
                    node => {
                        self.fail_kind("patterns", "a list of patterns", &node, Some("write [{…}]"));
                        Vec::new()
                    }
                }
            }
            node => vec![self.pattern(node, "")],
        }
    }

    fn patterns(&mut self, nodes: Vec<Node>, place: &str) -> Vec<Named> {
        if nodes.is_empty() {
            self.fail(place, "the list of patterns is empty", None);
        }
        nodes.into_iter().enumerate().map(|(index, node)| self.pattern(node, &item(place, index))).collect()
    }

    fn pattern(&mut self, node: Node, place: &str) -> Named {
        let mut pattern = Pattern {
            name: String::new(),
            origin: self.origin.to_owned(),
            place: place.to_owned(),
            description: None,
            root: Subpattern::default(),
            prune: false,
            layout: None,
        };
        let Some(mut fields) = self.fields(node, place, Scope::Pattern) else {
            // A name that is never seen, since there is an error: this is not to be reported as nameless too.
            return Named { name: Some(place.to_owned()), pattern };
        };
        let name = fields.take("name").map(|(node, place)| {
            let name = self.string(node, &place).unwrap_or_else(|| place.clone());
            if let Err(message) = scalar::check_name(&name) {
                self.fail(&place, format!("this cannot be a pattern's name: {message}"), None);
            }
            name
        });
        pattern.description = self.optional_string(&mut fields, "description");
        pattern.prune = self.flag(&mut fields, "prune").unwrap_or_default();
        pattern.layout = self.optional_string(&mut fields, "layout");
        if pattern.layout.as_deref() == Some("") {
            let hint = "write \"<.name>\", or leave it out".to_owned();
            self.fail(&key(place, "layout"), "an empty layout gives matches no name", Some(hint));
        }
        pattern.root = self.subpattern(fields, 0);
        Named { name, pattern }
    }

    /// The rest of a pattern, or a subpattern, `depth` levels down.
    fn subpattern(&mut self, mut fields: Fields, depth: usize) -> Subpattern {
        let fields = &mut fields;
        Subpattern {
            captures: self.captures(fields),
            opaque: self.flag(fields, "opaque").unwrap_or_default(),
            case_insensitive: self.flag(fields, "case_insensitive").unwrap_or_default(),
            forbidden_names: self.name_globs(fields, "forbidden_names"),
            forbidden_ancestors: self.name_globs(fields, "forbidden_ancestors"),
            body: self.body(fields, depth),
        }
    }

    fn body(&mut self, fields: &mut Fields, depth: usize) -> Body {
        let directory_name = fields.take("directory_name").and_then(|(node, place)| {
            let glob = self.string(node, &place).filter(|glob| !glob.is_empty() && glob != "*")?;
            scalar::check_name_glob(&glob).unwrap_or_else(|fault| self.fail_with(&place, fault));
            Some(glob)
        });
        Body {
            directory_name,
            files: self.file_clauses(fields, "files", depth),
            directories: self.dir_clauses(fields, "directories", depth),
            optional_files: self.file_clauses(fields, "optional_files", depth),
            optional_directories: self.dir_clauses(fields, "optional_directories", depth),
            recommended_files: self.file_clauses(fields, "recommended_files", depth),
            recommended_directories: self.dir_clauses(fields, "recommended_directories", depth),
            forbidden_files: self.file_clauses(fields, "forbidden_files", depth),
            forbidden_directories: self.dir_clauses(fields, "forbidden_directories", depth),
            any_of: self.alternatives(fields, depth),
        }
    }

    fn alternatives(&mut self, fields: &mut Fields, depth: usize) -> Vec<Body> {
        let Some((node, place)) = fields.take("any_of") else { return Vec::new() };
        let hint = |_: &str| "write [{\"files\": [\"a.csv\"]}, {\"files\": [\"b.csv\"]}]".to_owned();
        let nodes = self.list(node, &place, "a list of alternatives", hint);
        if !nodes.is_empty() && self.too_deep(&place, depth + 1) {
            return Vec::new();
        }
        let mut alternatives = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let place = item(&place, index);
            if let Some(mut fields) = self.fields(node, &place, Scope::Alternative) {
                alternatives.push(self.body(&mut fields, depth + 1));
            }
        }
        alternatives
    }

    fn file_clauses(&mut self, fields: &mut Fields, name: &str, depth: usize) -> Vec<FileClause> {
        let Some((node, place)) = fields.take(name) else { return Vec::new() };
        let nodes = self.list(node, &place, "a list of file clauses", |text| format!("write [{text}]"));
        self.file_clause_list(nodes, &place, depth)
    }

    fn file_clause_list(&mut self, nodes: Vec<Node>, place: &str, depth: usize) -> Vec<FileClause> {
        let mut clauses = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            if self.is_full() {
                break;
            }
            let place = item(place, index);
            clauses.extend(match node {
                Node::List(nodes) => {
                    let nodes = self.checked_alternatives(nodes, &place, depth);
                    nodes.map(|nodes| FileClause::AnyOf(self.file_clause_list(nodes, &place, depth + 1)))
                }
                Node::Map(_) => self.fields(node, &place, Scope::FileTest).map(|fields| {
                    let test = self.file_test(fields);
                    FileClause::One(test)
                }),
                Node::String(glob) => {
                    scalar::check_path_glob(&glob).unwrap_or_else(|fault| self.fail_with(&place, fault));
                    Some(FileClause::One(FileTest::glob(glob)))
                }
                node => {
                    self.fail_kind(&place, "a glob, an object or a list of alternatives", &node, quote(&node));
                    None
                }
            });
        }
        clauses
    }

    fn file_test(&mut self, mut fields: Fields) -> FileTest {
        let fields = &mut fields;
        let place = fields.place.clone();
        let min = self.count(fields, "min");
        let mut test = FileTest {
            min: min.unwrap_or(1),
            max: self.count(fields, "max"),
            case_insensitive: self.flag(fields, "case_insensitive"),
            size: fields.take("size").and_then(|(node, place)| self.size(node, &place)),
            magic: fields.take("magic").and_then(|(node, place)| self.magic(node, &place)),
            contains: self.optional_string(fields, "contains"),
            ..FileTest::glob("")
        };
        match fields.take("glob") {
            None => {
                self.fail(&place, "the file clause has no `glob`", Some("add \"glob\": \"*\" for any name".to_owned()))
            }
            Some((node, place)) => {
                if let Some(glob) = self.string(node, &place) {
                    scalar::check_path_glob(&glob).unwrap_or_else(|fault| self.fail_with(&place, fault));
                    test.glob = glob;
                }
            }
        }
        match test.max {
            Some(0) if min.is_none() => {
                let hint = "to forbid such files, use `forbidden_files` or \"min\": 0";
                self.fail(&key(&place, "max"), "no file may match, but `min` is 1 by default", Some(hint.to_owned()));
            }
            Some(max) if max < test.min => {
                self.fail(&key(&place, "max"), format!("`max` {max} is less than `min` {}", test.min), None);
            }
            _ => {}
        }
        if let Some(Err(fault)) = test.contains.as_deref().map(|text| scalar::check_content(text.len())) {
            self.fail_with(&key(&place, "contains"), fault);
        }
        test
    }

    fn size(&mut self, node: Node, place: &str) -> Option<SizeTest> {
        match node {
            Node::String(text) => scalar::size(&text).map_err(|fault| self.fail_with(place, fault)).ok(),
            Node::Int(bytes) => {
                let bytes = u64::try_from(bytes);
                let bytes = bytes.map_err(|_| self.fail(place, "this is no size of a file", None)).ok()?;
                Some(SizeTest { op: SizeOp::Equal, bytes })
            }
            node => {
                self.fail_kind(place, "a size", &node, Some("write \">0\", \"<10MiB\" or \">=4KiB\""));
                None
            }
        }
    }

    fn magic(&mut self, node: Node, place: &str) -> Option<Magic> {
        if let Node::String(text) = &node {
            let hint = format!("write {{\"bytes\": {}}}", json_string(text));
            self.fail_kind(place, "an object", &node, Some(&hint));
            return None;
        }
        let mut fields = self.fields(node, place, Scope::Magic)?;
        let offset = match fields.take("offset") {
            None => 0,
            Some((Node::Int(offset), _)) if (0..=i128::from(i64::MAX)).contains(&offset) => {
                u64::try_from(offset).unwrap_or_default()
            }
            Some((_, place)) => {
                self.fail(&place, format!("expected a whole number of bytes from 0 to {}", i64::MAX), None);
                0
            }
        };
        let Some((node, place)) = fields.take("bytes") else {
            let hint = "add \"bytes\": \"hex:89504e47\", or a text".to_owned();
            self.fail(place, "`magic` has no `bytes`", Some(hint));
            return None;
        };
        let bytes = scalar::magic_bytes(&self.string(node, &place)?);
        let bytes = bytes.map_err(|fault| self.fail_with(&place, fault)).ok()?;
        Some(Magic { offset, bytes })
    }

    fn dir_clauses(&mut self, fields: &mut Fields, name: &str, depth: usize) -> Vec<DirClause> {
        let Some((node, place)) = fields.take(name) else { return Vec::new() };
        let nodes =
            self.list(node, &place, "a list of subpatterns", |text| format!("write [{{\"directory_name\": {text}}}]"));
        self.dir_clause_list(nodes, &place, depth)
    }

    fn dir_clause_list(&mut self, nodes: Vec<Node>, place: &str, depth: usize) -> Vec<DirClause> {
        if !nodes.is_empty() && self.too_deep(place, depth + 1) {
            return Vec::new();
        }
        let mut clauses = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            if self.is_full() {
                break;
            }
            let place = item(place, index);
            clauses.extend(match self.decoded(node, &place) {
                Some(Node::List(nodes)) => {
                    let nodes = self.checked_alternatives(nodes, &place, depth);
                    nodes.map(|nodes| DirClause::AnyOf(self.dir_clause_list(nodes, &place, depth + 1)))
                }
                Some(node) => self.fields(node, &place, Scope::Subpattern).map(|fields| {
                    let subpattern = self.subpattern(fields, depth + 1);
                    DirClause::One(subpattern)
                }),
                None => None,
            });
        }
        clauses
    }

    /// A subpattern that stands in the list as a string of JSON (pathvein writes them so), parsed.
    fn decoded(&mut self, node: Node, place: &str) -> Option<Node> {
        let Node::String(text) = node else { return Some(node) };
        if !text.trim_start().starts_with('{') {
            let hint = format!("write {{\"directory_name\": {}}}", json_string(&text));
            self.fail(place, "expected a subpattern, found a string", Some(hint));
            return None;
        }
        let node = node::from_json(&text, self.budget);
        node.map_err(|error| {
            let at = if error.place.is_empty() { String::new() } else { format!("{} of ", error.place) };
            self.fail(place, format!("in {at}the encoded subpattern: {}", error.message), error.hint);
        })
        .ok()
    }

    /// The alternatives of a clause, if there are any and they are not too deep.
    fn checked_alternatives(&mut self, nodes: Vec<Node>, place: &str, depth: usize) -> Option<Vec<Node>> {
        if nodes.is_empty() {
            self.fail(place, "an empty list of alternatives never holds", Some("leave it out".to_owned()));
            return None;
        }
        (!self.too_deep(place, depth + 1)).then_some(nodes)
    }

    fn too_deep(&mut self, place: &str, depth: usize) -> bool {
        let too_deep = depth > MAX_DEPTH;
        if too_deep {
            self.fail(place, format!("subpatterns and alternatives are nested more than {MAX_DEPTH} deep"), None);
        }
        too_deep
    }

    fn captures(&mut self, fields: &mut Fields) -> BTreeMap<String, String> {
        let Some((node, place)) = fields.take("captures") else { return BTreeMap::new() };
        let Node::Map(entries) = node else {
            self.fail_kind(
                &place,
                "an object of names and regular expressions",
                &node,
                Some("write {\"sub\": \"[0-9]+\"}"),
            );
            return BTreeMap::new();
        };
        self.duplicates(&place, &entries);
        let mut captures = BTreeMap::new();
        for (name, node) in entries {
            if !scalar::is_identifier(&name) {
                let hint = "use letters, digits and `_`, and no digit first".to_owned();
                self.fail(&place, format!("`{}` cannot be a capture's name", clip(&name)), Some(hint));
            } else if let Some(regex) = self.string(node, &key(&place, &clip(&name))) {
                captures.insert(name, regex);
            }
        }
        captures
    }

    fn name_globs(&mut self, fields: &mut Fields, name: &str) -> Vec<String> {
        let Some((node, place)) = fields.take(name) else { return Vec::new() };
        let nodes = self.list(node, &place, "a list of globs", |text| format!("write [{text}]"));
        let mut globs = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let place = item(&place, index);
            if let Some(glob) = self.string(node, &place) {
                scalar::check_name_glob(&glob).unwrap_or_else(|fault| self.fail_with(&place, fault));
                globs.push(glob);
            }
        }
        globs
    }

    /// The items of a list; `cure` says how to write the list that a string (as JSON) was meant to be.
    fn list(&mut self, node: Node, place: &str, expected: &str, cure: impl FnOnce(&str) -> String) -> Vec<Node> {
        let hint = match &node {
            Node::List(_) => None,
            Node::String(text) => Some(cure(&json_string(text))),
            Node::Map(_) => Some("put it into a list: [{…}]".to_owned()),
            _ => None,
        };
        match node {
            Node::List(nodes) => nodes,
            node => {
                self.fail_kind(place, expected, &node, hint.as_deref());
                Vec::new()
            }
        }
    }

    fn string(&mut self, node: Node, place: &str) -> Option<String> {
        match node {
            Node::String(text) => Some(text),
            node => {
                self.fail_kind(place, "a string", &node, quote(&node));
                None
            }
        }
    }

    fn optional_string(&mut self, fields: &mut Fields, name: &str) -> Option<String> {
        fields.take(name).and_then(|(node, place)| self.string(node, &place))
    }

    fn flag(&mut self, fields: &mut Fields, name: &str) -> Option<bool> {
        match fields.take(name)? {
            (Node::Bool(flag), _) => Some(flag),
            (node, place) => {
                self.fail_kind(&place, "`true` or `false`", &node, None);
                None
            }
        }
    }

    fn count(&mut self, fields: &mut Fields, name: &str) -> Option<u32> {
        let (node, place) = fields.take(name)?;
        let count = if let Node::Int(count) = node { u32::try_from(count).ok() } else { None };
        if count.is_none() {
            let found = if let Node::Int(count) = node { count.to_string() } else { node.kind().to_owned() };
            self.fail(&place, format!("expected a whole number from 0 to {}, found {found}", u32::MAX), None);
        }
        count
    }

    /// The entries of an object, of which each is known in `scope` and there once.
    fn fields(&mut self, node: Node, place: &str, scope: Scope) -> Option<Fields> {
        let Node::Map(entries) = node else {
            self.fail_kind(place, &format!("{} (an object)", scope.what()), &node, None);
            return None;
        };
        self.duplicates(place, &entries);
        for (name, _) in &entries {
            if self.is_full() {
                break;
            }
            if scope.keys().any(|known| known == name) {
                continue;
            }
            if let Some(belongs) = scope.belongs(name) {
                self.fail(place, format!("`{name}` is no key of {}", scope.what()), Some(belongs.to_owned()));
                continue;
            }
            // Distance to what is far longer than any key is not worth its time.
            let near = if name.len() > 64 { None } else { nearest(name, scope.keys()) };
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} has {}", scope.what(), scope.keys().collect::<Vec<_>>().join(", ")),
            };
            self.fail(place, format!("unknown key `{}`", clip(name)), Some(hint));
        }
        Some(Fields { place: place.to_owned(), entries })
    }

    fn duplicates(&mut self, place: &str, entries: &[(String, Node)]) {
        let mut seen = HashSet::with_capacity(entries.len());
        for (name, _) in entries {
            if !seen.insert(name.as_str()) {
                self.fail(place, format!("duplicate key `{}`", clip(name)), Some("keep one".to_owned()));
            }
        }
    }
}

/// The cure for what should have been a string.
fn quote(node: &Node) -> Option<&'static str> {
    matches!(node, Node::Bool(_) | Node::Int(_) | Node::Float | Node::Date).then_some("quote it")
}

/// The text as a JSON string for a message.
fn json_string(text: &str) -> String {
    serde_json::Value::from(clip(text)).to_string()
}
