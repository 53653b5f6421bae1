//! Explanations as people read them: lines with what each part of them is, so that whoever prints can colour them.

use super::clauses::{Clause, Explanation, Met};
use super::cure::{Action, Change, Cure, content::Made, words};
use super::near::{Near, Why};

/// What a piece of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Nothing in particular.
    Plain,
    /// Met.
    Good,
    /// Not met.
    Bad,
    /// Not known.
    Unknown,
    /// Beside the point.
    Faint,
    /// What it is about.
    Strong,
}

/// Pieces of bytes, each with its style; names are in it as they are, to be escaped by whoever prints.
#[derive(Clone, Debug, Default)]
pub struct Line(pub Vec<(Style, Vec<u8>)>);

impl Line {
    fn new(depth: usize) -> Self {
        Self(vec![(Style::Plain, "  ".repeat(depth).into_bytes())])
    }

    fn add(mut self, style: Style, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((style, bytes.as_ref().to_vec()));
        self
    }

    fn text(self, bytes: impl AsRef<[u8]>) -> Self {
        self.add(Style::Plain, bytes)
    }
}

/// The tree of clauses, and the list of changes below it; optional parts that are not there are left out.
pub fn lines(pattern: &str, path: &[u8], explanation: &Explanation, cure: Option<&Cure>) -> Vec<Line> {
    let (style, verdict) = match explanation.met {
        Met::Yes => (Style::Good, "matches"),
        Met::No => (Style::Bad, "does not match"),
        Met::Unknown => (Style::Unknown, "may match"),
    };
    let head = Line::default().add(Style::Strong, path).text(" ").add(style, verdict).text(" ");
    let mut head = head.add(Style::Strong, pattern);
    if explanation.met == Met::Unknown {
        head = head.text("; part of it cannot be read");
    }
    let mut lines = vec![head];
    if let Some(reason) = &explanation.unread {
        lines.push(Line::new(1).add(Style::Unknown, "? ").text(format!("it cannot be read: {reason}")));
    }
    explanation.clauses.iter().for_each(|one| clause(one, 1, &mut lines));
    for (name, value) in &explanation.captures {
        let line = Line::new(1).add(Style::Faint, "= ").text(format!("<{name}>: "));
        lines.push(match value {
            Some(value) => line.text(value),
            None => line.add(Style::Faint, "unset"),
        });
    }
    if explanation.met != Met::Yes {
        lines.extend(changes(explanation, cure));
    }
    lines
}

fn changes(explanation: &Explanation, cure: Option<&Cure>) -> Vec<Line> {
    let Some(cure) = cure else {
        let unknown = explanation.met == Met::Unknown || explanation.unread.is_some();
        let text = if unknown {
            "What would make it match cannot be told."
        } else {
            "No changes in it were found that would make it match."
        };
        return vec![Line::default().text(text)];
    };
    let count = match cure.changes.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let known = if cure.shortest { "no shorter list does" } else { "the shortest list found" };
    let mut lines = vec![Line::default().text(format!("To make it match: {count} ({known})"))];
    lines.extend(cure.changes.iter().map(change));
    lines
}

/// One change, as a line.
pub fn change(change: &Change) -> Line {
    let path: &[u8] = if change.path.is_empty() { b"the directory itself" } else { &change.path };
    let line = Line::new(1);
    match &change.action {
        Action::CreateDir => line.text("create directory ").add(Style::Strong, [path, b"/"].concat()),
        Action::CreateFile(made) => so_that(line.text("create ").add(Style::Strong, path), made),
        Action::Rename(to) => line.text("rename ").add(Style::Strong, path).text(" to ").add(Style::Strong, to),
        Action::Remove => line.text("remove ").add(Style::Strong, path),
        Action::Rewrite(made) => so_that(line.text("change ").add(Style::Strong, path), made),
    }
}

fn so_that(line: Line, made: &Made) -> Line {
    if made.tests.is_empty() {
        return line;
    }
    let tests: Vec<String> = made.tests.iter().map(words).collect();
    line.add(Style::Faint, format!(" ({})", tests.join(", ")))
}

fn clause(one: &Clause, depth: usize, lines: &mut Vec<Line>) {
    let optional = !one.decides();
    if one.key.starts_with("optional") && one.met != Met::Yes {
        return;
    }
    let (style, mark) = match one.met {
        Met::Yes => (Style::Good, "✓ "),
        Met::No if optional => (Style::Faint, "– "),
        Met::No => (Style::Bad, "✗ "),
        Met::Unknown => (Style::Unknown, "? "),
    };
    let key = match one.key {
        "captures" | "any_of" | "alternative" => String::new(),
        key => format!("{key}: "),
    };
    let mut line = Line::new(depth).add(style, mark).add(Style::Faint, key).text(&one.asks);
    let itself = one.count == 1 && one.by.first().is_some_and(|by| **by == *one.asks.trim_end_matches('/').as_bytes());
    if !one.by.is_empty() && !itself {
        let mut shown = one.by.join(&b", "[..]);
        if one.count > one.by.len() {
            shown.extend_from_slice(format!(" and {} more", one.count - one.by.len()).as_bytes());
        }
        line = line.add(Style::Faint, ": ").text(shown);
    }
    if let Some(near) = &one.near {
        line = line.add(Style::Faint, "; ");
        line = nearness(line, near);
    }
    if let Some(note) = &one.note {
        line = line.add(Style::Faint, if one.near.is_some() { ": " } else { "; " }).text(note);
    }
    lines.push(line);
    let inner = depth + 1;
    one.clauses.iter().for_each(|one| clause(one, inner, lines));
}

/// What came nearest, at the end of a line.
pub fn nearness(line: Line, near: &Near) -> Line {
    let path = near.path.as_slice();
    let split = |from: &[u8]| from.iter().rposition(|byte| *byte == b'/');
    match near.why {
        Why::Content => line.add(Style::Strong, path).text(" is there, but not as asked"),
        Why::Dangling => line.add(Style::Strong, path).text(" is a link that leads nowhere"),
        Why::Kind => line.add(Style::Strong, path).text(" is there, but of another kind"),
        Why::Deeper => {
            let at = split(path).unwrap_or(0);
            line.text("one level too deep: ").add(Style::Strong, &path[..at]).add(Style::Strong, &path[at..])
        }
        Why::Higher => line.text("one level too high: ").add(Style::Strong, path),
        Why::Case => line.text("in other case: ").add(Style::Strong, path),
        Why::Spelling(_) => line.text("nearest: ").add(Style::Strong, path),
        Why::Inside => line.text("nearest: ").add(Style::Strong, [path, b"/"].concat()),
    }
}
