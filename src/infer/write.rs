//! A draft as YAML for people: what is asked, and behind it what was seen.

use std::fmt::Write;

use super::draft::{Draft, FileDraft};
use crate::pattern::{FileTest, SizeOp};

/// Comments stand in one column, at least this far to the right, in characters.
const LEFTMOST: usize = 40;
/// And at most this far; behind longer lines they follow at once.
const RIGHTMOST: usize = 64;
/// What stands between a line and its comment until the column is known; no line holds one.
const TAB: char = '\t';

/// The text of a pattern file; `heading` becomes its first comment.
pub(super) fn yaml(draft: &Draft, name: &str, description: Option<&str>, heading: &[String]) -> String {
    let mut text = String::new();
    for line in heading {
        let _ = writeln!(text, "# {}", plain_comment(line));
    }
    line(&mut text, 0, &format!("name: {}", scalar(name)), "");
    if let Some(description) = description {
        line(&mut text, 0, &format!("description: {}", scalar(description)), "");
    }
    body(&mut text, draft, 0);
    aligned(&text)
}

/// Puts comments in their column.
fn aligned(text: &str) -> String {
    let width = |line: &str| line.split(TAB).next().map_or(0, |content| content.chars().count() + 2);
    let commented = text.lines().filter(|line| line.contains(TAB)).map(width);
    let column = commented.filter(|width| *width <= RIGHTMOST).max().unwrap_or(0).max(LEFTMOST);
    let mut aligned = String::new();
    for line in text.lines() {
        match line.split_once(TAB) {
            Some((content, comment)) => {
                let gap = column.saturating_sub(content.chars().count()).max(2);
                let _ = writeln!(aligned, "{content}{:gap$}{comment}", "");
            }
            None => {
                let _ = writeln!(aligned, "{line}");
            }
        }
    }
    aligned
}

fn body(text: &mut String, draft: &Draft, indent: usize) {
    if let Some(glob) = &draft.glob {
        line(text, indent, &format!("directory_name: {}", scalar(glob)), &draft.note);
    }
    if !draft.captures.is_empty() {
        line(text, indent, "captures:", "");
        for (var, note) in &draft.captures {
            line(text, indent + 2, &format!("{}: {}", scalar(&var.name), quoted(&var.regex)), note);
        }
    }
    files(text, "files", &draft.files, indent);
    directories(text, "directories", &draft.directories, indent);
    directories(text, "any_of", &draft.any_of, indent);
    files(text, "forbidden_files", &draft.forbidden_files, indent);
    directories(text, "forbidden_directories", &draft.forbidden_directories, indent);
    files(text, "optional_files", &draft.optional_files, indent);
    directories(text, "optional_directories", &draft.optional_directories, indent);
}

fn files(text: &mut String, key: &str, list: &[FileDraft], indent: usize) {
    if list.is_empty() {
        return;
    }
    line(text, indent, &format!("{key}:"), "");
    for file in list {
        if file.test == FileTest::glob(file.test.glob.as_str()) {
            line(text, indent + 2, &format!("- {}", scalar(&file.test.glob)), &file.note);
        } else {
            line(text, indent + 2, &format!("- {{{}}}", test(&file.test)), &file.note);
        }
    }
}

fn test(test: &FileTest) -> String {
    let mut keys = vec![format!("glob: {}", quoted(&test.glob))];
    if test.min != 1 {
        keys.push(format!("min: {}", test.min));
    }
    keys.extend(test.max.map(|max| format!("max: {max}")));
    keys.extend(test.size.map(|size| {
        let sign = match size.op {
            SizeOp::Less => "<",
            SizeOp::AtMost => "<=",
            SizeOp::Equal => "=",
            SizeOp::AtLeast => ">=",
            SizeOp::Greater => ">",
        };
        format!("size: \"{sign}{}\"", bytes(size.bytes))
    }));
    keys.extend(test.magic.as_ref().map(|magic| {
        let hex: String = magic.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("magic: {{offset: {}, bytes: \"hex:{hex}\"}}", magic.offset)
    }));
    keys.extend(test.contains.as_ref().map(|contains| format!("contains: {}", quoted(contains))));
    keys.join(", ")
}

fn bytes(bytes: u64) -> String {
    for (unit, name) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

fn directories(text: &mut String, key: &str, list: &[Draft], indent: usize) {
    if list.is_empty() {
        return;
    }
    line(text, indent, &format!("{key}:"), "");
    for draft in list {
        let mut item = String::new();
        body(&mut item, draft, indent + 4);
        if item.is_empty() {
            line(text, indent + 2, "- {}", &draft.note);
            continue;
        }
        if draft.glob.is_none() && !draft.note.is_empty() {
            line(text, indent + 2, "", &draft.note);
        }
        // The first key stands behind the dash.
        item.replace_range(indent + 2..indent + 4, "- ");
        text.push_str(&item);
    }
}

fn line(text: &mut String, indent: usize, content: &str, note: &str) {
    let mut line = format!("{:indent$}{content}", "");
    if !note.is_empty() {
        let note = plain_comment(note);
        if content.is_empty() {
            let _ = write!(line, "# {note}");
        } else {
            let _ = write!(line, "{TAB}# {note}");
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// No control character ends a comment or reaches a terminal.
fn plain_comment(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Without quotes where no reader of YAML could take it for anything but a text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    let lower = text.to_ascii_lowercase();
    let word = matches!(&*lower, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf");
    if plain && !word { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if is_printable(c) => quoted.push(c),
            c if u32::from(c) <= 0xff => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
