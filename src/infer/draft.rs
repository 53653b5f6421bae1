//! A pattern in the making: clauses, each with a note of what it saw.

use super::generalise::{Var, escaped};
use crate::pattern::{Body, DirClause, FileClause, FileTest, Pattern, Subpattern};

/// A directory's description, or an alternative of `any_of`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    /// The glob for its own name; `None` for any.
    pub(super) glob: Option<String>,
    /// What was seen of it.
    pub(super) note: String,
    /// Captures that it declares, each with what its values were.
    pub(super) captures: Vec<(Var, String)>,
    /// Needed.
    pub(super) files: Vec<FileDraft>,
    /// Needed.
    pub(super) directories: Vec<Draft>,
    /// Shown.
    pub(super) optional_files: Vec<FileDraft>,
    /// Shown.
    pub(super) optional_directories: Vec<Draft>,
    /// These reject.
    pub(super) forbidden_files: Vec<FileDraft>,
    /// These reject.
    pub(super) forbidden_directories: Vec<Draft>,
    /// One must hold.
    pub(super) any_of: Vec<Draft>,
}

/// A file clause.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileDraft {
    /// What is asked.
    pub(super) test: FileTest,
    /// What was seen.
    pub(super) note: String,
}

impl FileDraft {
    /// At least one file that matches `glob`.
    pub(super) fn glob(glob: impl Into<String>, note: impl Into<String>) -> Self {
        Self { test: FileTest::glob(glob), note: note.into() }
    }
}

impl Draft {
    /// A directory of one of the names that `glob` matches.
    pub(super) fn named(glob: impl Into<String>) -> Self {
        Self { glob: Some(glob.into()), ..Self::default() }
    }

    /// The pattern that it stands for.
    pub(super) fn pattern(&self, name: &str, description: Option<String>) -> Pattern {
        Pattern {
            name: name.to_owned(),
            origin: "inferred".to_owned(),
            place: String::new(),
            description,
            root: self.subpattern(),
            prune: false,
            layout: None,
        }
    }

    fn subpattern(&self) -> Subpattern {
        let captures = self.captures.iter().map(|(var, _)| (var.name.clone(), var.regex.clone())).collect();
        Subpattern { body: self.body(), captures, ..Subpattern::default() }
    }

    fn body(&self) -> Body {
        let files = |list: &[FileDraft]| list.iter().map(|file| FileClause::One(file.test.clone())).collect();
        let directories = |list: &[Draft]| list.iter().map(|draft| DirClause::One(draft.subpattern())).collect();
        Body {
            directory_name: self.glob.clone(),
            files: files(&self.files),
            directories: directories(&self.directories),
            optional_files: files(&self.optional_files),
            optional_directories: directories(&self.optional_directories),
            forbidden_files: files(&self.forbidden_files),
            forbidden_directories: directories(&self.forbidden_directories),
            any_of: self.any_of.iter().map(Draft::body).collect(),
            ..Body::default()
        }
    }

    /// It says the same as another, whatever the notes.
    pub(super) fn says_as(&self, other: &Draft) -> bool {
        self.subpattern() == other.subpattern()
    }

    /// It asks for something below the directory.
    pub(super) fn asks_inside(&self) -> bool {
        !(self.files.is_empty() && self.directories.is_empty() && self.any_of.is_empty())
    }

    /// It holds for every directory.
    pub(super) fn is_empty(&self) -> bool {
        self.glob.is_none()
            && !self.asks_inside()
            && self.forbidden_files.is_empty()
            && self.forbidden_directories.is_empty()
    }

    /// Adds what another asks besides; a name that it asks for is one that this allows.
    pub(super) fn add(&mut self, other: &Draft) {
        if other.glob.is_some() {
            self.glob.clone_from(&other.glob);
            if !other.note.is_empty() {
                self.note.clone_from(&other.note);
            }
        }
        let files = |known: &mut Vec<FileDraft>, more: &[FileDraft]| {
            for file in more {
                if known.iter().all(|known| known.test != file.test) {
                    known.push(file.clone());
                }
            }
        };
        let directories = |known: &mut Vec<Draft>, more: &[Draft]| {
            for one in more {
                if known.iter().all(|known| !known.says_as(one)) {
                    known.push(one.clone());
                }
            }
        };
        files(&mut self.files, &other.files);
        files(&mut self.forbidden_files, &other.forbidden_files);
        directories(&mut self.directories, &other.directories);
        directories(&mut self.forbidden_directories, &other.forbidden_directories);
    }

    /// Each of its required clauses alone.
    pub(super) fn clauses(&self) -> Vec<Draft> {
        let files = self.files.iter().map(|file| Draft { files: vec![file.clone()], ..Draft::default() });
        let directories =
            self.directories.iter().map(|one| Draft { directories: vec![one.clone()], ..Draft::default() });
        files.chain(directories).collect()
    }

    /// How many clauses there are.
    pub(super) fn weight(&self) -> usize {
        let below = |list: &[Draft]| list.iter().map(|draft| 1 + draft.weight()).sum::<usize>();
        let files = self.files.len() + self.optional_files.len() + self.forbidden_files.len();
        let directories = below(&self.directories) + below(&self.optional_directories);
        files + directories + below(&self.forbidden_directories) + below(&self.any_of)
    }

    /// Leaves out what is deepest, optional parts first, until there are at most `most` clauses. What stands at the top
    /// is kept.
    pub(super) fn prune(&mut self, most: usize) {
        for level in (1..=self.depth()).rev() {
            for required_too in [false, true] {
                if self.weight() <= most {
                    return;
                }
                self.prune_level(level, required_too);
            }
        }
    }

    fn depth(&self) -> usize {
        let below = self.directories.iter().chain(&self.optional_directories);
        below.map(|draft| 1 + draft.depth()).max().unwrap_or(0)
    }

    fn prune_level(&mut self, level: usize, required_too: bool) {
        if level > 0 {
            let below = self.directories.iter_mut().chain(&mut self.optional_directories);
            return below.for_each(|draft| draft.prune_level(level - 1, required_too));
        }
        self.optional_files.clear();
        self.optional_directories.clear();
        // A directory of any name that asks for nothing would say nothing.
        if required_too && self.glob.is_some() {
            self.files.clear();
            self.directories.clear();
        }
    }

    /// The list in which a place of the pattern stands, as the linter names it, is left without it.
    pub(super) fn remove(&mut self, place: &str) -> bool {
        let Some((key, rest)) = place.split_once('[') else { return false };
        let Some((at, rest)) = rest.split_once(']') else { return false };
        let Ok(at) = at.parse::<usize>() else { return false };
        let deeper = rest.strip_prefix('.').filter(|rest| rest.contains('['));
        let from = |list: &mut Vec<FileDraft>| (at < list.len()).then(|| drop(list.remove(at))).is_some();
        let directories = match key {
            "files" => return from(&mut self.files),
            "optional_files" => return from(&mut self.optional_files),
            "forbidden_files" => return from(&mut self.forbidden_files),
            "directories" => &mut self.directories,
            "optional_directories" => &mut self.optional_directories,
            "forbidden_directories" => &mut self.forbidden_directories,
            "any_of" => &mut self.any_of,
            _ => return false,
        };
        if at >= directories.len() {
            return false;
        }
        match deeper {
            Some(deeper) => directories[at].remove(deeper),
            None => {
                directories.remove(at);
                true
            }
        }
    }
}

/// A file of one path, as a glob.
pub(super) fn path_glob(path: &[u8]) -> String {
    path.split(|byte| *byte == b'/').map(escaped).collect::<Vec<_>>().join("/")
}

/// A directory of one path below another.
pub(super) fn at_path(path: &[u8], note: &str) -> Draft {
    let (name, below) = match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    };
    let directories = below.map(|below| at_path(below, note)).into_iter().collect::<Vec<_>>();
    let note = if directories.is_empty() { note.to_owned() } else { String::new() };
    Draft { note, directories, ..Draft::named(escaped(name)) }
}
