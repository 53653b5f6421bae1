//! Which entries of several directories correspond to each other.
//!
//! Each *instance* is a directory in the same role: the examples themselves, or all `ses-*` below them. The names of
//! their entries are put in groups, each to become one clause:
//! 1. A name that all instances have is a group.
//! 2. Names that differ only in numbers are of one *shape*. A number that is in every instance what a step variable is
//!    there, is that variable. If what is left differs from instance to instance, or there are many, the whole shape is
//!    a group (a series); otherwise each of its names is one.
//! 3. Names that only one instance has each are put together by their first word and extension, then by extension
//!    alone, as long as every instance has one.
//! 4. What some instances have, but not all, is optional. What one instance has alone is left out, and so is junk:
//!    what desktops, editors and interpreters leave behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tokens::{Template, Token, VarId, common, substitute, tokens};

/// As many names of one shape in one directory are a series, however alike the directories are.
const SERIES: usize = 3;
/// The most optional groups of one kind in one directory.
const MAX_OPTIONAL: usize = 8;

/// A name in one of the instances.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Which instance.
    pub(super) instance: usize,
    /// Which of its names.
    pub(super) at: usize,
    /// The name's tokens, with step variables.
    pub(super) tokens: Vec<Token<'a>>,
}

/// Entries that correspond.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    /// In the order of instances and names.
    pub(super) entries: Vec<Entry<'a>>,
    /// What their names have in common.
    pub(super) template: Template,
    /// How many instances have one.
    pub(super) present: usize,
    /// The most that one instance has.
    pub(super) most: usize,
}

impl<'a> Group<'a> {
    fn new(entries: Vec<Entry<'a>>) -> Self {
        let template = common(&entries.iter().map(|entry| &*entry.tokens).collect::<Vec<_>>());
        let counts = counts(&entries);
        let most = counts.values().copied().max().unwrap_or(0);
        Self { entries, template, present: counts.len(), most }
    }

    /// All its names are one, but for variables.
    pub(super) fn is_literal(&self) -> bool {
        self.template.gaps().next().is_none()
    }
}

/// The groups of one kind of entry.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    /// In every instance.
    pub(super) required: Vec<Group<'a>>,
    /// In some.
    pub(super) optional: Vec<Group<'a>>,
    /// What is in one instance alone.
    pub(super) rest: Vec<Entry<'a>>,
}

/// Makes one group of what has a first word in common with a group that all instances have: `ses-post` is of the kind
/// of `ses-pre`, though only some have one.
pub(super) fn of_a_kind(groups: &mut Groups<'_>) {
    let mut at = 0;
    while at < groups.required.len() {
        let kind = by_word(&groups.required[at].entries[0]);
        let same = |entry: &Entry<'_>| kind.is_some() && by_word(entry) == kind;
        if groups.optional.iter().any(|group| same(&group.entries[0])) || groups.rest.iter().any(same) {
            let mut entries = Vec::new();
            for list in [&mut groups.required, &mut groups.optional] {
                let (ours, others): (Vec<_>, Vec<_>) =
                    std::mem::take(list).into_iter().partition(|group| same(&group.entries[0]));
                *list = others;
                entries.extend(ours.into_iter().flat_map(|group| group.entries));
            }
            let (ours, others): (Vec<_>, Vec<_>) = std::mem::take(&mut groups.rest).into_iter().partition(same);
            groups.rest = others;
            entries.extend(ours);
            entries.sort_by_key(|entry| (entry.instance, entry.at));
            groups.required.insert(at.min(groups.required.len()), Group::new(entries));
        }
        at += 1;
    }
}

/// What an instance brings along: the values that step variables have in it.
pub(super) type Values = Vec<(VarId, Vec<u8>)>;

/// Puts names in groups; `names` and `values` have an item for each instance.
pub(super) fn groups<'a>(names: &[Vec<&'a [u8]>], values: &[Values]) -> Groups<'a> {
    let instances = names.len();
    let mut groups = Groups::default();
    let mut left: Vec<Group<'a>> = Vec::new();
    for entries in shapes(names, values).into_values() {
        for group in split(entries, instances) {
            if group.present == instances { groups.required.push(group) } else { left.push(group) }
        }
    }
    if instances > 1 {
        for key in [by_word as fn(&Entry<'_>) -> Option<Vec<u8>>, by_extension] {
            loose(&mut groups, &mut left, instances, key);
        }
    }
    let often = |group: &Group<'_>| group.present >= 2 && group.present * 4 >= instances;
    let (mut optional, rare): (Vec<_>, Vec<_>) = left.into_iter().partition(often);
    optional.sort_by_key(|group| std::cmp::Reverse(group.present));
    let dropped = optional.drain(MAX_OPTIONAL.min(optional.len())..);
    groups.rest = rare.into_iter().chain(dropped).flat_map(|group| group.entries).collect();
    groups.optional.extend(optional);
    groups
}

/// All names by their shape: marks, words and variables as they are, and any number for a number.
fn shapes<'a>(names: &[Vec<&'a [u8]>], values: &[Values]) -> BTreeMap<Vec<u8>, Vec<Entry<'a>>> {
    let mut everywhere: HashMap<&[u8], usize> = HashMap::new();
    names.iter().flatten().for_each(|name| *everywhere.entry(name).or_default() += 1);
    let steps = Steps::new(values);
    let mut shapes: BTreeMap<Vec<u8>, Vec<Entry<'a>>> = BTreeMap::new();
    for (instance, of_instance) in names.iter().enumerate() {
        for (at, name) in of_instance.iter().enumerate().filter(|(_, name)| !is_junk(name)) {
            let mut tokens = tokens(name);
            let common = names.len() > 1 && everywhere[name] == names.len();
            steps.substitute_words(&mut tokens, name, instance, common);
            shapes.entry(shape(&tokens)).or_default().push(Entry { instance, at, tokens });
        }
    }
    shapes.values_mut().for_each(|entries| steps.substitute_numbers(entries));
    shapes
}

fn shape(tokens: &[Token<'_>]) -> Vec<u8> {
    tokens.iter().fold(Vec::new(), |mut shape, token| {
        match token {
            // No name holds a NUL or a slash.
            Token::Number(_) => shape.push(0),
            Token::Step(var, _) => shape.extend_from_slice(format!("/{}/", var.0).as_bytes()),
            Token::Word(text) | Token::Mark(text) => shape.extend_from_slice(text),
        }
        shape
    })
}

/// The values that step variables have in each instance, as tokens.
struct Steps<'v> {
    spelt: Vec<Vec<(VarId, Vec<Token<'v>>)>>,
    /// Variables that have one value in all instances.
    constant: BTreeSet<VarId>,
}

impl<'v> Steps<'v> {
    fn new(values: &'v [Values]) -> Self {
        let spelt: Vec<Vec<(VarId, Vec<Token<'v>>)>> =
            values.iter().map(|values| values.iter().map(|(var, value)| (*var, tokens(value))).collect()).collect();
        let same = |step: &&(VarId, Vec<u8>)| values.iter().all(|values| values.contains(step));
        let constant = values.first().into_iter().flatten().filter(same).map(|(var, _)| *var).collect();
        Self { spelt, constant }
    }

    /// Puts variables in the place of values that are more than one number. What all instances have literally is no
    /// variable, unless the variable is the same in all of them too.
    fn substitute_words<'a>(&self, tokens: &mut Vec<Token<'a>>, name: &'a [u8], instance: usize, common: bool) {
        for (var, value) in &self.spelt[instance] {
            if !matches!(value[..], [Token::Number(_)]) && (!common || self.constant.contains(var)) {
                substitute(tokens, name, value, *var);
            }
        }
    }

    /// Puts variables in the place of numbers, where a whole column of the shape is in step.
    fn substitute_numbers(&self, entries: &mut [Entry<'_>]) {
        let columns = entries.first().map_or(0, |entry| entry.tokens.len());
        for column in 0..columns {
            let number = |entry: &Entry<'_>| match entry.tokens[column] {
                Token::Number(number) => Some(number.to_vec()),
                _ => None,
            };
            let Some(first) = entries.first().and_then(number) else { continue };
            let same = entries.iter().all(|entry| number(entry).as_ref() == Some(&first));
            let steps = self.spelt.first().into_iter().flatten().map(|(var, _)| *var);
            let in_step = |var: &VarId| {
                entries.iter().all(|entry| {
                    let text = number(entry).unwrap_or_default();
                    let of = self.spelt[entry.instance].iter().find(|(of, _)| of == var);
                    of.is_some_and(|(_, value)| matches!(value[..], [Token::Number(value)] if value == &text[..]))
                })
            };
            let plausible = |var: &VarId| !same || (self.constant.contains(var) && first.len() > 1);
            let Some(var) = steps.filter(plausible).find(in_step) else { continue };
            for entry in entries.iter_mut() {
                entry.tokens[column] = Token::Step(var, entry.tokens[column].text());
            }
        }
    }
}

/// Entries of one shape in groups: all of them if they are a series, else one for each name.
fn split(entries: Vec<Entry<'_>>, instances: usize) -> Vec<Group<'_>> {
    let mut by_name: BTreeMap<Vec<u8>, Vec<Entry<'_>>> = BTreeMap::new();
    let counted = counts(&entries);
    let (most, present) = (counted.values().copied().max().unwrap_or(0), counted.len());
    for entry in &entries {
        let name = entry.tokens.iter().fold(Vec::new(), |mut name, token| {
            match token {
                Token::Step(var, _) => name.extend_from_slice(format!("/{}/", var.0).as_bytes()),
                token => name.extend_from_slice(token.text()),
            }
            name
        });
        by_name.entry(name).or_default().push(entry.clone());
    }
    if by_name.len() == 1 {
        return vec![Group::new(entries)];
    }
    let present_of = |entries: &[Entry<'_>]| counts(entries).len();
    let differ = by_name.values().any(|entries| present_of(entries) < instances);
    let one_for_each = most == 1 && (present == instances || by_name.values().all(|of| present_of(of) < 2));
    if most >= SERIES || (differ && (most > 1 || one_for_each)) {
        return vec![Group::new(entries)];
    }
    by_name.into_values().map(Group::new).collect()
}

/// Makes groups of what is left, by a key, as long as every instance has one.
fn loose<'a>(
    groups: &mut Groups<'a>,
    left: &mut Vec<Group<'a>>,
    instances: usize,
    key: fn(&Entry<'_>) -> Option<Vec<u8>>,
) {
    let mut clusters: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (at, group) in left.iter().enumerate() {
        if let Some(key) = key(&group.entries[0]) {
            clusters.entry(key).or_default().push(at);
        }
    }
    let mut taken = BTreeSet::new();
    for (extension, cluster) in clusters {
        let of = |wanted: &dyn Fn(&Group<'_>) -> bool| -> Vec<Entry<'a>> {
            let groups = cluster.iter().map(|at| &left[*at]).filter(|group| wanted(group));
            groups.flat_map(|group| group.entries.iter().cloned()).collect()
        };
        // What some have in common by name is not thrown together with all else that happens to have its extension.
        if counts(&of(&|group| group.present == 1)).len() < instances {
            continue;
        }
        let mut entries = of(&|_| true);
        entries.sort_by_key(|entry| (entry.instance, entry.at));
        let group = Group::new(entries);
        let known = groups.required.iter().any(|known| by_extension(&known.entries[0]).as_ref() == Some(&extension));
        if known {
            groups.optional.push(group);
        } else {
            groups.required.push(group);
        }
        taken.extend(cluster);
    }
    let mut at = 0..;
    left.retain(|_| !taken.contains(&at.next().unwrap_or(0)));
}

/// The first word, if something stands behind it, and the extension.
fn by_word(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let first = *entry.tokens.first()?;
    let first = match first {
        Token::Word(word) => word.to_vec(),
        Token::Step(var, _) => format!("/{}/", var.0).into_bytes(),
        _ => return None,
    };
    let behind = entry.tokens.get(1).filter(|token| token.text() != b".")?;
    let extension = by_extension(entry).unwrap_or_default();
    Some([&first[..], behind.text().get(..1).filter(|mark| *mark == b"_" || *mark == b"-")?, &extension].concat())
}

/// From the last dot, and from the one before it if that is a compression's: `.csv`, `.nii.gz`.
pub(super) fn by_extension(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let tokens = &entry.tokens;
    let dot = |below: usize| tokens[..below].iter().rposition(|token| token.text() == b".").filter(|at| *at > 0);
    let last = dot(tokens.len())?;
    let text = |from: usize| tokens[from..].iter().flat_map(|token| token.text()).copied().collect::<Vec<u8>>();
    let packed = matches!(&*text(last), b".gz" | b".bz2" | b".xz" | b".zst" | b".lz4");
    let from = if packed { dot(last).unwrap_or(last) } else { last };
    // `1.0` and `a. b` have no extension.
    let extension = text(from);
    let is_extension = extension.len() <= 12
        && extension.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
        && extension.iter().any(u8::is_ascii_alphabetic);
    is_extension.then_some(extension)
}

/// Groups put together by what they have in common.
pub(super) fn regrouped<'a>(groups: Vec<Group<'a>>) -> Group<'a> {
    let mut entries: Vec<Entry<'a>> = groups.into_iter().flat_map(|group| group.entries).collect();
    entries.sort_by_key(|entry| (entry.instance, entry.at));
    Group::new(entries)
}

/// How many entries each instance has of those that have any.
pub(super) fn counts(entries: &[Entry<'_>]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    entries.iter().for_each(|entry| *counts.entry(entry.instance).or_default() += 1);
    counts
}

/// What desktops, editors and interpreters leave behind.
pub(super) fn is_junk(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b".DS_Store",
        b"Thumbs.db",
        b"ehthumbs.db",
        b"desktop.ini",
        b".directory",
        b".AppleDouble",
        b".Spotlight-V100",
        b".Trashes",
        b".fseventsd",
        b"@eaDir",
        b"__pycache__",
        b"__MACOSX",
        b".ipynb_checkpoints",
        b".mypy_cache",
        b".pytest_cache",
        b".ruff_cache",
        b".Rhistory",
    ];
    let between = |start: &[u8], end: &[u8]| name.starts_with(start) && name.ends_with(end);
    NAMES.contains(&name)
        || name.starts_with(b"._")
        || name.starts_with(b".nfs")
        || name.starts_with(b"~$")
        || between(b"", b"~")
        || between(b".", b".swp")
        || between(b".", b".swo")
        || between(b"#", b"#")
        || between(b".#", b"")
        || between(b"", b".bak")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::generalise::{Var, glob};

    /// The groups of files, as `required | optional | rest`, with one variable in step with `values`.
    fn grouped(instances: &[&str], steps: &[&str]) -> String {
        let names: Vec<Vec<&[u8]>> =
            instances.iter().map(|names| names.split_whitespace().map(str::as_bytes).collect()).collect();
        let mut values = vec![Values::new(); instances.len()];
        values.iter_mut().zip(steps).for_each(|(values, step)| values.push((VarId(0), step.as_bytes().to_vec())));
        let groups = groups(&names, &values);
        let vars = [Var { name: "v".into(), regex: ".+".into() }];
        let globs = |groups: &[Group<'_>]| {
            groups.iter().map(|group| glob(&group.template, &vars)).collect::<Vec<_>>().join(" ")
        };
        let rest: Vec<_> =
            groups.rest.iter().map(|entry| String::from_utf8_lossy(names[entry.instance][entry.at])).collect();
        format!("{} | {} | {}", globs(&groups.required), globs(&groups.optional), rest.join(" "))
    }

    #[test]
    fn names_that_correspond_are_one_group() {
        let table: &[(&[&str], &[&str], &str)] = &[
            (&["a b", "b a"], &[], "a b |  | "),
            (&["a x", "a", "a x y", "a"], &[], "a | x | y"),
            (&["a .DS_Store a~", "a .DS_Store"], &[], "a |  | "),
            (&["sub-01_bold.nii.gz", "sub-02_bold.nii.gz"], &["01", "02"], "sub-<v>_bold.nii.gz |  | "),
            (&["sub-01_bold.nii.gz", "sub-03_bold.nii.gz"], &["01", "02"], "sub-[0-9][0-9]_bold.nii.gz |  | "),
            (&["serde.h serde.pc", "tokio.h tokio.pc"], &["serde", "tokio"], "<v>.h <v>.pc |  | "),
            (&["ch1.csv ch2.csv", "ch1.csv ch2.csv"], &["1", "2"], "ch1.csv ch2.csv |  | "),
            (&["f1 f2", "f1"], &[], "f[0-9]* |  | "),
            (&["f1 f2 f3 f4", "f1 f2 f3 f4"], &[], "f[0-9]* |  | "),
            (&["jane.jpg x.jpg", "bob.jpg"], &[], "*.jpg |  | "),
            (&["scan_a.csv log_a.csv", "scan_b.csv log_b.csv"], &[], "log_*.csv scan_*.csv |  | "),
            (&["Cargo.toml clippy.toml", "Cargo.toml deny.toml"], &[], "Cargo.toml | *.toml | "),
            (&["notes.txt", "notes.txt", "readme.txt"], &[], " | notes.txt | readme.txt"),
            (&["a b c1 c2 c3"], &[], "a b c[0-9]* |  | "),
        ];
        for (instances, steps, wanted) in table {
            assert_eq!(grouped(instances, steps), *wanted, "{instances:?}");
        }
    }
}
