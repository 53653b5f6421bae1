//! From directories in the same role to the description that they have in common.
//!
//! A *family* is all directories in one role. Its names give the glob, and perhaps step variables: parts of the name
//! that come back in names below. The entries of its members are put in groups ([`super::align`]); each group of files
//! becomes a clause, each group of directories a family of its own, one level further down.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::Dir;
use super::align::{Group, Groups, Values, by_extension, counts, groups, is_junk, of_a_kind, regrouped};
use super::draft::{Draft, FileDraft};
use super::generalise::{Class, Var, free_name, glob, name_of, regex, with_step};
use super::tokens::{Gap, Part, Template, Token, VarId, common, tokens};
use crate::entry::printable;
use crate::pattern::glob::Glob;

/// The largest number that `min` takes from directories which all have as many.
const EXACT_MIN: usize = 32;
/// The largest number that two directories have for a reason.
const FEW: usize = 3;
/// How many names below a directory are looked through for a part of its own name.
const SEARCHED: usize = 20_000;
/// As many names with one extension are put together where there are too many clauses.
const MANY: usize = 4;

/// How much is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most required clauses of one kind in one directory.
    pub(super) clauses: usize,
    /// How many levels below the examples are described.
    pub(super) depth: usize,
    /// Whether captures say what varies in step.
    pub(super) steps: bool,
}

/// A directory in a role.
#[derive(Clone, Debug)]
struct Instance<'a> {
    dir: &'a Dir,
    /// What step variables of directories above, and its own, are here.
    values: Values,
}

/// Describes what examples have in common; empty if that is nothing.
pub(super) fn describe(examples: &[&Dir], limits: Limits) -> Draft {
    let chooser = Chooser { limits, examples: examples.len(), vars: RefCell::default(), used: RefCell::default() };
    let names: Vec<Vec<Token<'_>>> = examples.iter().map(|dir| tokens(&dir.name)).collect();
    let template = match names.as_slice() {
        [one] => alone(one),
        names => common(&names.iter().map(|name| &**name).collect::<Vec<_>>()),
    };
    let instances = examples.iter().map(|dir| Instance { dir, values: Values::new() }).collect();
    let mut draft = chooser.family(instances, template, 0);
    if let [one] = examples
        && draft.glob.as_deref() == Some(&*super::generalise::escaped(&one.name))
    {
        // The one name of the one example says nothing about others.
        draft.glob = None;
    }
    draft
}

/// The name of a single example: its numbers are what may vary.
pub(super) fn alone(name: &[Token<'_>]) -> Template {
    let part = |token: &Token<'_>| match token {
        Token::Number(number) => Part::Gap(vec![(*number).into()]),
        token => Part::Text(token.text().to_vec()),
    };
    let mut template = Template::default();
    for part in name.iter().map(part) {
        match (template.0.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) => text.extend(more),
            (_, part) => template.0.push(part),
        }
    }
    template
}

struct Chooser {
    limits: Limits,
    examples: usize,
    vars: RefCell<Vec<Var>>,
    used: RefCell<BTreeSet<VarId>>,
}

/// A step variable that is tried.
struct Tried {
    var: VarId,
    /// The template's gap that it stands for; `None` for the whole name.
    gap: Option<usize>,
    note: String,
}

impl Chooser {
    fn family(&self, mut instances: Vec<Instance<'_>>, template: Template, level: usize) -> Draft {
        let tried = if self.limits.steps { self.try_steps(&mut instances, &template, level) } else { Vec::new() };
        let mut draft = Draft::default();
        if level < self.limits.depth && instances.iter().all(|instance| !instance.dir.open) {
            self.contents(&mut draft, &mut instances, level);
        }
        let mut used: Vec<Tried> = tried.into_iter().filter(|tried| self.used.borrow().contains(&tried.var)).collect();
        if self.limits.steps && used.iter().all(|tried| tried.gap.is_some()) {
            let more = self.exact(&mut instances, &template, &used);
            used.extend(more);
        }
        let stepped = used.iter().fold(template.clone(), |template, tried| match tried.gap {
            Some(at) => with_step(&template, at, tried.var),
            None => Template(vec![Part::Step(tried.var)]),
        });
        let telling = template.gaps().any(|values| Class::of(values).is_telling());
        if !used.is_empty() || stepped.has_anchor() || telling {
            draft.glob = Some(self.glob(&stepped)).filter(|glob| glob != "*");
        }
        let vars = self.vars.borrow();
        let declared: Vec<_> = used.into_iter().map(|tried| (vars[tried.var.0].clone(), tried.note)).collect();
        draft.captures.splice(0..0, declared);
        draft
    }

    fn glob(&self, template: &Template) -> String {
        self.used.borrow_mut().extend(template.0.iter().filter_map(|part| match part {
            Part::Step(var) => Some(*var),
            _ => None,
        }));
        glob(template, &self.vars.borrow())
    }

    /// Parts of the directories' names that come back in names below each of them, as variables of the instances.
    fn try_steps(&self, instances: &mut [Instance<'_>], template: &Template, level: usize) -> Vec<Tried> {
        let gaps: Vec<usize> = (0..template.0.len()).filter(|at| matches!(template.0[*at], Part::Gap(_))).collect();
        let mut tried = Vec::new();
        if gaps.len() > 1 {
            let wholes: Vec<Vec<u8>> = instances.iter().map(|instance| instance.dir.name.to_vec()).collect();
            if self.come_back(instances, &wholes, level) {
                let name = free_name("name", &self.vars.borrow());
                let regex = regex(template, &self.vars.borrow());
                let note = seen(&wholes);
                tried.push(Tried { var: self.declare(instances, wholes, name, regex), gap: None, note });
            }
        }
        for at in gaps.into_iter().filter(|_| tried.is_empty()).collect::<Vec<_>>() {
            let Part::Gap(values) = &template.0[at] else { continue };
            let values: Vec<Vec<u8>> = values.iter().map(|value| value.to_vec()).collect();
            if self.come_back(instances, &values, level) {
                let class = Class::of(&values.iter().map(|value| value.as_slice().into()).collect::<Vec<_>>());
                let name = name_of(template, at, &self.vars.borrow());
                let note = seen(&values);
                tried.push(Tried { var: self.declare(instances, values, name, class.regex()), gap: Some(at), note });
            }
        }
        tried
    }

    /// Parts that an expression says tighter than a glob: numbers of many digits.
    fn exact(&self, instances: &mut [Instance<'_>], template: &Template, used: &[Tried]) -> Vec<Tried> {
        let mut exact = Vec::new();
        for (at, part) in template.0.iter().enumerate().filter(|(at, _)| used.iter().all(|t| t.gap != Some(*at))) {
            let Part::Gap(values) = part else { continue };
            let class = Class::of(values);
            if !class.is_exact() || values.len() != instances.len() {
                continue;
            }
            let name = name_of(template, at, &self.vars.borrow());
            let values: Vec<Vec<u8>> = values.iter().map(|value| value.to_vec()).collect();
            let note = seen(&values);
            exact.push(Tried { var: self.declare(instances, values, name, class.regex()), gap: Some(at), note });
        }
        exact
    }

    fn declare(&self, instances: &mut [Instance<'_>], values: Vec<Vec<u8>>, name: String, regex: String) -> VarId {
        let mut vars = self.vars.borrow_mut();
        let var = VarId(vars.len());
        vars.push(Var { name, regex });
        instances.iter_mut().zip(values).for_each(|(instance, value)| instance.values.push((var, value)));
        var
    }

    /// Each value is found in a name below its instance, as whole tokens.
    fn come_back(&self, instances: &[Instance<'_>], values: &[Vec<u8>], level: usize) -> bool {
        let below = self.limits.depth.saturating_sub(level);
        values.len() == instances.len()
            && values.iter().zip(instances).all(|(value, instance)| {
                let budget = Cell::new(SEARCHED);
                !value.is_empty() && mentions(instance.dir, &tokens(value), below, &budget)
            })
    }

    fn contents(&self, draft: &mut Draft, instances: &mut [Instance<'_>], level: usize) {
        let file_names: Vec<_> = instances.iter().map(|instance| file_names(instance.dir)).collect();
        let dir_names: Vec<_> = instances.iter().map(|instance| dir_names(instance.dir)).collect();
        let stem = if self.limits.steps { self.stem(instances, &file_names) } else { None };
        let values: Vec<Values> = instances.iter().map(|instance| instance.values.clone()).collect();
        let mut files = groups(&file_names, &values);
        let mut dirs = groups(&dir_names, &values);
        of_a_kind(&mut dirs);
        let total = instances.len();
        let mut captures = Vec::new();
        if let Some(var) = stem {
            captures.push((var, seen(&values_of(instances, var))));
        }
        if self.limits.steps && total > 1 {
            captures.extend(self.join_singles(instances, &mut files, &mut dirs));
        }
        let more = self.simplify(&mut files.required);
        draft.files = self.file_clauses(&files.required, &file_names, total, level);
        if let Some(last) = draft.files.last_mut().filter(|_| more > 0) {
            last.note = format!("{}; {more} more left out", last.note);
        }
        draft.optional_files = self.optional_files(&files.optional, &draft.files, total, level);
        self.directories(draft, instances, dirs, level);
        let used = self.used.borrow();
        let vars = self.vars.borrow();
        let used = captures.into_iter().filter(|(var, _)| used.contains(var));
        draft.captures.extend(used.map(|(var, note)| (vars[var.0].clone(), note)));
    }

    /// A first word that several files of every instance share, but not the instances.
    fn stem(&self, instances: &mut [Instance<'_>], names: &[Vec<&[u8]>]) -> Option<VarId> {
        if instances.len() < 2 {
            return None;
        }
        let mut stems = Vec::new();
        for (instance, names) in instances.iter().zip(names) {
            let mut firsts: BTreeMap<&[u8], usize> = BTreeMap::new();
            for name in names.iter().filter(|name| !is_junk(name)) {
                if let Some(first) = first_part(name) {
                    *firsts.entry(first).or_default() += 1;
                }
            }
            let (first, count) = firsts.into_iter().max_by_key(|(first, count)| (*count, first.len()))?;
            if count < 2 || instance.values.iter().any(|(_, value)| value == first) {
                return None;
            }
            stems.push(first.to_vec());
        }
        let distinct: BTreeSet<&Vec<u8>> = stems.iter().collect();
        if distinct.len() < stems.len() {
            return None;
        }
        let spelt: Vec<Vec<Token<'_>>> = stems.iter().map(|stem| tokens(stem)).collect();
        let template = common(&spelt.iter().map(|stem| &**stem).collect::<Vec<_>>());
        // Numbers in step are found where they stand.
        if template.gaps().all(|values| Class::of(values).is_telling()) {
            return None;
        }
        let name = free_name("stem", &self.vars.borrow());
        let regex = regex(&template, &self.vars.borrow());
        Some(self.declare(instances, stems.clone(), name, regex))
    }

    /// Parts that vary alike in several names, of which each instance has one, become variables.
    fn join_singles<'g>(
        &self,
        instances: &mut [Instance<'_>],
        files: &mut Groups<'g>,
        dirs: &mut Groups<'g>,
    ) -> Vec<(VarId, String)> {
        let total = instances.len();
        // The values in each instance, and the groups and parts in which they stand.
        let mut alike: BTreeMap<Gap, Vec<(usize, usize)>> = BTreeMap::new();
        let mut singles: Vec<&mut Group<'g>> = files.required.iter_mut().chain(&mut dirs.required).collect();
        for (at, group) in singles.iter().enumerate().filter(|(_, group)| group.most == 1 && group.present == total) {
            for (part, piece) in group.template.0.iter().enumerate() {
                if let Part::Gap(values) = piece
                    && values.iter().all(|value| !value.is_empty())
                {
                    alike.entry(values.clone()).or_default().push((at, part));
                }
            }
        }
        let mut found = Vec::new();
        for (values, places) in alike {
            let distinct: BTreeSet<usize> = places.iter().map(|(group, _)| *group).collect();
            if distinct.len() < 2 {
                continue;
            }
            let (group, part) = places[0];
            let name = name_of(&singles[group].template, part, &self.vars.borrow());
            let regex = Class::of(&values).regex();
            let values: Vec<Vec<u8>> = values.iter().map(|value| value.to_vec()).collect();
            let note = seen(&values);
            let var = self.declare(instances, values, name, regex);
            for (group, part) in places {
                singles[group].template = with_step(&singles[group].template, part, var);
            }
            found.push((var, note));
        }
        found
    }

    /// Puts groups with the same extension together where there are too many, and leaves out what is still too much;
    /// returns how many were left out.
    fn simplify(&self, groups: &mut Vec<Group<'_>>) -> usize {
        let most = self.limits.clauses;
        while groups.len() > most {
            let mut extensions: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            for group in groups.iter().filter(|group| !group.template.0.iter().any(|p| matches!(p, Part::Step(_)))) {
                if let Some(extension) = by_extension(&group.entries[0]) {
                    *extensions.entry(extension).or_default() += 1;
                }
            }
            let Some((extension, _)) =
                extensions.into_iter().filter(|(_, count)| *count >= MANY).max_by_key(|(_, count)| *count)
            else {
                break;
            };
            let of = |group: &Group<'_>| {
                by_extension(&group.entries[0]).as_ref() == Some(&extension)
                    && !group.template.0.iter().any(|part| matches!(part, Part::Step(_)))
            };
            let (same, others): (Vec<_>, Vec<_>) = std::mem::take(groups).into_iter().partition(of);
            *groups = others;
            groups.push(regrouped(same));
        }
        let more = groups.len().saturating_sub(most);
        if more > 0 {
            groups.sort_by_key(|group| (!group.is_literal(), group.entries[0].tokens.len()));
            groups.truncate(most);
        }
        groups.sort_by_cached_key(|group| glob(&group.template, &self.vars.borrow()));
        more
    }

    fn file_clauses(&self, groups: &[Group<'_>], names: &[Vec<&[u8]>], total: usize, level: usize) -> Vec<FileDraft> {
        let globs: Vec<String> = groups.iter().map(|group| self.glob(&group.template)).collect();
        let literal = |at: usize| groups[at].is_literal();
        let mut clauses = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let stepped = group.template.0.iter().any(|part| matches!(part, Part::Step(_)));
            let parsed = Glob::parse(&globs[at], &[], false).ok().filter(|_| !stepped && !literal(at));
            let (least, most) = match &parsed {
                Some(glob) => bounds(names.iter().map(|names| names.iter().filter(|n| glob.matches(n, &[])).count())),
                None => bounds(counts(&group.entries).into_values()),
            };
            // A glob that also matches a name which is asked for anyway has to ask for more than that.
            let implied = parsed.as_ref().map_or(0, |glob| {
                let others = (0..groups.len()).filter(|other| *other != at && literal(*other));
                others.filter(|other| glob.matches(&first_name(&groups[*other], names), &[])).count()
            });
            let exact = least == most && least <= EXACT_MIN && (total > 2 || (total == 2 && least <= FEW));
            let min = if least < 2 {
                1
            } else if exact {
                least
            } else {
                (implied + 1).max(2)
            };
            let mut clause = FileDraft::glob(globs[at].clone(), self.note(least, most, total, total, level));
            clause.test.min = min as u32;
            clauses.push(clause);
        }
        clauses
    }

    fn optional_files(
        &self,
        groups: &[Group<'_>],
        required: &[FileDraft],
        total: usize,
        level: usize,
    ) -> Vec<FileDraft> {
        let shown: Vec<Glob> =
            required.iter().filter_map(|file| Glob::parse(&file.test.glob, &[], false).ok()).collect();
        let mut clauses: Vec<FileDraft> = Vec::new();
        for group in groups {
            let glob = self.glob(&group.template);
            let is_shown = shown.iter().any(|shown| {
                let mut names = group.entries.iter();
                names.all(|entry| {
                    shown.matches(&entry.tokens.iter().flat_map(|t| t.text()).copied().collect::<Vec<_>>(), &[])
                })
            });
            if !is_shown && clauses.iter().all(|clause| clause.test.glob != glob) {
                clauses.push(FileDraft::glob(glob, self.note(1, group.most, group.present, total, level)));
            }
        }
        clauses
    }

    fn directories(&self, draft: &mut Draft, instances: &[Instance<'_>], groups: Groups<'_>, level: usize) {
        let total = instances.len();
        let most = self.limits.clauses;
        let members = |group: &Group<'_>| -> Vec<Instance<'_>> {
            let child = |entry: &super::align::Entry<'_>| {
                let parent = &instances[entry.instance];
                Instance { dir: &parent.dir.dirs[entry.at], values: parent.values.clone() }
            };
            group.entries.iter().map(child).collect()
        };
        let mut required = groups.required;
        let more = required.len().saturating_sub(most);
        required.sort_by_key(|group| (!group.is_literal(), group.entries[0].tokens.len()));
        required.truncate(most);
        required.sort_by_cached_key(|group| glob(&group.template, &self.vars.borrow()));
        for (list, groups) in [(true, &required), (false, &groups.optional)] {
            for group in groups {
                let mut child = self.family(members(group), group.template.clone(), level + 1);
                let (least, most) = bounds(counts(&group.entries).into_values());
                child.note = self.note(least, most, group.present, total, level);
                if !list {
                    // What is optional is shown, whatever it holds.
                    if child.glob.is_some() && draft.optional_directories.iter().all(|known| known.glob != child.glob) {
                        draft.optional_directories.push(child);
                    }
                } else if child.glob.is_some() || child.asks_inside() {
                    draft.directories.push(child);
                }
            }
        }
        if let Some(last) = draft.directories.last_mut().filter(|_| more > 0) {
            last.note = format!("{}; {more} more left out", last.note);
        }
        self.nameless(draft, instances, &groups.rest, level);
    }

    /// Directories without a name in common may still be alike inside.
    fn nameless(&self, draft: &mut Draft, instances: &[Instance<'_>], rest: &[super::align::Entry<'_>], level: usize) {
        let counted = counts(rest);
        if !draft.directories.is_empty() || counted.len() < instances.len() || rest.len() < 2 {
            return;
        }
        let child = |entry: &super::align::Entry<'_>| {
            let parent = &instances[entry.instance];
            Instance { dir: &parent.dir.dirs[entry.at], values: parent.values.clone() }
        };
        let names: Vec<&[Token<'_>]> = rest.iter().map(|entry| &*entry.tokens).collect();
        let mut family = self.family(rest.iter().map(child).collect(), common(&names), level + 1);
        if family.asks_inside() {
            let (least, most) = bounds(counted.into_values());
            family.note = format!("any name; {}", self.note(least, most, instances.len(), instances.len(), level));
            draft.directories.push(family);
        }
    }

    /// `in all 4 examples`, `in 3 of 4`, `2 to 9 in each of 4`.
    fn note(&self, least: usize, most: usize, present: usize, total: usize, level: usize) -> String {
        let what = if total == self.examples { " examples" } else { "" };
        let seen = if most > least { format!("{least} to {most} in each") } else { format!("{least} in each") };
        let all = if total == 2 { "both".to_owned() } else { format!("all {total}") };
        match (total == 1, present == total, most > 1) {
            (true, _, false) => {
                if level == 0 {
                    "in the example".to_owned()
                } else {
                    String::new()
                }
            }
            (true, _, true) => format!("{most} in the example"),
            (_, true, false) => format!("in {all}{what}"),
            (_, true, true) => format!("{seen} of {total}{what}"),
            (_, false, _) => format!("in {present} of {total}{what}"),
        }
    }
}

fn bounds(counts: impl Iterator<Item = usize>) -> (usize, usize) {
    counts.fold((usize::MAX, 0), |(least, most), count| (least.min(count), most.max(count)))
}

fn file_names(dir: &Dir) -> Vec<&[u8]> {
    dir.files.iter().map(|name| &**name).collect()
}

fn dir_names(dir: &Dir) -> Vec<&[u8]> {
    dir.dirs.iter().map(|dir| &*dir.name).collect()
}

fn first_name(group: &Group<'_>, names: &[Vec<&[u8]>]) -> Vec<u8> {
    let entry = &group.entries[0];
    names[entry.instance][entry.at].to_vec()
}

/// What a variable stands for in each instance.
fn values_of(instances: &[Instance<'_>], var: VarId) -> Vec<Vec<u8>> {
    let of =
        |instance: &Instance<'_>| instance.values.iter().find(|(of, _)| *of == var).map(|(_, value)| value.clone());
    instances.iter().filter_map(of).collect()
}

/// `01, 02 and 03`, or the first ones and how many there are.
fn seen(values: &[Vec<u8>]) -> String {
    let distinct: BTreeSet<&Vec<u8>> = values.iter().collect();
    let texts: Vec<String> = distinct.iter().map(|value| printable(value).into_owned()).collect();
    if texts.is_empty() { String::new() } else { format!("here {}", super::listed(&texts)) }
}

/// The part of a name before the first separator, if it says something.
fn first_part(name: &[u8]) -> Option<&[u8]> {
    let end = name.iter().position(|byte| matches!(byte, b'_' | b'-' | b'.' | b' '))?;
    (end > 1).then(|| &name[..end])
}

/// True if a name below `dir` has the tokens of `value` in a row.
fn mentions(dir: &Dir, value: &[Token<'_>], levels: usize, budget: &Cell<usize>) -> bool {
    let has = |name: &[u8]| {
        budget.set(budget.get().saturating_sub(1));
        budget.get() > 0 && tokens(name).windows(value.len()).any(|window| window == value)
    };
    levels > 0
        && (dir.files.iter().any(|name| has(name))
            || dir.dirs.iter().any(|child| has(&child.name))
            || dir.dirs.iter().any(|child| mentions(child, value, levels - 1, budget)))
}
