//! Clauses that tell examples from counter-examples, the plainest kind that does.
//!
//! Each candidate holds for all examples by how it is found; the matcher says which counter-examples it rejects. The
//! last resort, one alternative for each example, is complete: two trees that differ in a name, a size or a byte that
//! can be read differ in some clause.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::choose::{Limits, describe};
use super::draft::{Draft, FileDraft, at_path, path_glob};
use super::generalise::escaped;
use super::judge::{Answer, answer, answers};
use super::{Dir, Failure, Tree};
use crate::pattern::{FileTest, Magic, SizeOp, SizeTest};

/// The most candidates of one kind that are tried.
const TRIED: usize = 2000;
/// The most files whose sizes and contents are looked at.
const LOOKED_AT: usize = 500;
/// The longest text that `contains` is given, in bytes.
const LINE_BYTES: usize = 80;
/// The most bytes that `magic` is given.
const MAGIC_BYTES: usize = 8;

/// Makes candidates against those counter-examples that still match.
type Kind<'a> = &'a dyn Fn(&[&Tree]) -> Vec<Draft>;

/// Adds to `draft` what it takes so that it matches none of `counters`; it matches all of `examples`, and still does.
///
/// # Errors
/// If an example and a counter-example are alike.
pub(super) fn tell_apart(
    draft: &mut Draft,
    examples: &[&Tree],
    counters: &[&Tree],
    depth: usize,
) -> Result<(), Failure> {
    let mut alive: Vec<&Tree> = counters.to_vec();
    let rejected = |draft: &Draft, alive: &mut Vec<&Tree>| {
        let answers = answer(&draft.pattern("candidate", None), alive);
        let mut answers = answers.into_iter();
        alive.retain(|_| answers.next() != Some(Answer::No));
    };
    rejected(draft, &mut alive);
    if alive.is_empty() {
        return Ok(());
    }
    let seen = Seen::new(examples);
    let kinds: [Kind<'_>; 6] = [
        &|alive| seen.required(examples, alive, depth),
        &|_| own_name(examples),
        &|alive| seen.forbidden(alive),
        &|alive| seen.numbers(examples, alive),
        &|alive| seen.sizes(examples, alive),
        &|alive| seen.contents(examples, alive),
    ];
    for kind in kinds {
        let mut candidates = kind(&alive);
        candidates.truncate(TRIED);
        cover(draft, candidates, examples, &mut alive);
        if alive.is_empty() {
            return Ok(());
        }
    }
    alternatives(draft, examples, &alive)
}

/// Takes the candidate that rejects most, again and again.
fn cover(draft: &mut Draft, candidates: Vec<Draft>, examples: &[&Tree], alive: &mut Vec<&Tree>) {
    let patterns: Vec<_> = candidates.iter().map(|candidate| candidate.pattern("candidate", None)).collect();
    let rejects = answers(&patterns, alive);
    let mut left: Vec<usize> = (0..alive.len()).collect();
    let mut sound: HashMap<usize, bool> = HashMap::new();
    loop {
        let count = |at: usize| left.iter().filter(|tree| rejects[at][**tree] == Answer::No).count();
        let mut best: Vec<(usize, usize)> = (0..candidates.len()).map(|at| (count(at), at)).collect();
        best.retain(|(count, _)| *count > 0);
        best.sort_by_key(|(count, at)| (std::cmp::Reverse(*count), *at));
        let holds = |at: usize| answer(&patterns[at], examples).iter().all(|answer| *answer == Answer::Yes);
        let Some((_, at)) = best.into_iter().find(|(_, at)| *sound.entry(*at).or_insert_with(|| holds(*at))) else {
            break;
        };
        draft.add(&candidates[at]);
        left.retain(|tree| rejects[at][*tree] != Answer::No);
    }
    *alive = left.into_iter().map(|at| alive[at]).collect();
}

/// A name's place in a tree: how deep, and the path.
type Place = (usize, Vec<u8>);

/// All files or directories of a tree by their places.
#[derive(Default)]
struct Names {
    files: HashSet<Vec<u8>>,
    dirs: HashSet<Vec<u8>>,
}

impl Names {
    fn of(dir: &Dir) -> Self {
        let mut names = Self::default();
        names.collect(dir, &[]);
        names
    }

    fn collect(&mut self, dir: &Dir, path: &[u8]) {
        let join = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
        self.files.extend(dir.files.iter().map(|name| join(name)));
        for child in &dir.dirs {
            let path = join(&child.name);
            self.collect(child, &path);
            self.dirs.insert(path);
        }
    }
}

/// Sorted so that the plainest come first.
fn by_depth<'a>(paths: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Place> {
    let mut places: Vec<Place> =
        paths.map(|path| (path.iter().filter(|byte| **byte == b'/').count(), path.clone())).collect();
    places.sort_by(|a, b| (a.0, a.1.len(), &a.1).cmp(&(b.0, b.1.len(), &b.1)));
    places
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The names of all examples.
struct Seen {
    common: Names,
    any: Names,
    /// Names of files anywhere in any example.
    anywhere: HashSet<Vec<u8>>,
    total: usize,
}

impl Seen {
    fn new(examples: &[&Tree]) -> Self {
        let mut all = examples.iter().map(|tree| Names::of(&tree.dir));
        let mut common = all.next().unwrap_or_default();
        let mut any = Names { files: common.files.clone(), dirs: common.dirs.clone() };
        for names in all {
            common.files.retain(|path| names.files.contains(path));
            common.dirs.retain(|path| names.dirs.contains(path));
            any.files.extend(names.files);
            any.dirs.extend(names.dirs);
        }
        let anywhere = any.files.iter().map(|path| last(path).to_vec()).collect();
        Self { common, any, anywhere, total: examples.len() }
    }

    fn in_all(&self) -> String {
        match self.total {
            1 => "in the example, and not in a counter-example".to_owned(),
            2 => "in both examples, and not in a counter-example".to_owned(),
            total => format!("in all {total} examples, and not in a counter-example"),
        }
    }

    /// What all examples have and some counter-example has not.
    fn required(&self, examples: &[&Tree], alive: &[&Tree], depth: usize) -> Vec<Draft> {
        let theirs: Vec<Names> = alive.iter().map(|tree| Names::of(&tree.dir)).collect();
        let missing = |set: &HashSet<Vec<u8>>, of: fn(&Names) -> &HashSet<Vec<u8>>| {
            by_depth(set.iter().filter(|path| theirs.iter().any(|names| !of(names).contains(*path))))
        };
        let mut candidates: Vec<(usize, Draft)> = Vec::new();
        for (depth, path) in missing(&self.common.files, |names| &names.files).into_iter().take(TRIED / 2) {
            let files = vec![FileDraft::glob(path_glob(&path), self.in_all())];
            candidates.push((depth, Draft { files, ..Draft::default() }));
        }
        for (depth, path) in missing(&self.common.dirs, |names| &names.dirs).into_iter().take(TRIED / 4) {
            candidates.push((depth, Draft { directories: vec![at_path(&path, &self.in_all())], ..Draft::default() }));
        }
        candidates.sort_by_key(|(depth, _)| *depth);
        let dirs: Vec<&Dir> = examples.iter().map(|tree| &tree.dir).collect();
        let whole = describe(&dirs, Limits { clauses: usize::MAX, depth, steps: false });
        candidates.into_iter().map(|(_, draft)| draft).chain(whole.clauses()).collect()
    }

    /// What a counter-example has and no example has.
    fn forbidden(&self, alive: &[&Tree]) -> Vec<Draft> {
        let mut often: BTreeMap<(usize, Vec<u8>, bool), usize> = BTreeMap::new();
        for tree in alive {
            let names = Names::of(&tree.dir);
            for (depth, path) in by_depth(names.files.difference(&self.any.files)).into_iter().take(TRIED) {
                *often.entry((depth, path, true)).or_default() += 1;
            }
            for (depth, path) in by_depth(names.dirs.difference(&self.any.dirs)).into_iter().take(TRIED) {
                *often.entry((depth, path, false)).or_default() += 1;
            }
        }
        let note = |count: usize| match count {
            1 => "in a counter-example, and in no example".to_owned(),
            count => format!("in {count} counter-examples, and in no example"),
        };
        let mut candidates = Vec::new();
        for ((depth, path, is_file), count) in often {
            let note = note(count);
            if !is_file {
                candidates.push(Draft { forbidden_directories: vec![at_path(&path, &note)], ..Draft::default() });
                continue;
            }
            let mut forbid = |glob: String| {
                let forbidden_files = vec![FileDraft::glob(glob, note.clone())];
                candidates.push(Draft { forbidden_files, ..Draft::default() });
            };
            forbid(path_glob(&path));
            if depth > 0 && !self.anywhere.contains(last(&path)) {
                forbid(format!("**/{}", escaped(last(&path))));
            }
        }
        candidates
    }

    /// How many files with an extension there are at the top, or in a directory that all have.
    fn numbers(&self, examples: &[&Tree], alive: &[&Tree]) -> Vec<Draft> {
        let of = |tree: &&Tree| numbers(&tree.dir, &self.common.dirs);
        let ours: Vec<_> = examples.iter().map(of).collect();
        let theirs: Vec<_> = alive.iter().map(of).collect();
        let globs: HashSet<&String> = ours.iter().chain(&theirs).flat_map(BTreeMap::keys).collect();
        let mut globs: Vec<&String> = globs.into_iter().collect();
        globs.sort();
        let mut candidates = Vec::new();
        for glob in globs {
            let count = |numbers: &BTreeMap<String, u32>| numbers.get(glob).copied().unwrap_or(0);
            let least = ours.iter().map(count).min().unwrap_or(0);
            let most = ours.iter().map(count).max().unwrap_or(0);
            let note = match least == most {
                true => format!("{least} in each example"),
                false => format!("{least} to {most} in the examples"),
            };
            let mut add = |min: u32, max: Option<u32>| {
                let test = FileTest { min, max, ..FileTest::glob(glob.as_str()) };
                candidates.push(Draft { files: vec![FileDraft { test, note: note.clone() }], ..Draft::default() });
            };
            if theirs.iter().any(|theirs| count(theirs) < least) {
                add(least, None);
            }
            if theirs.iter().any(|theirs| count(theirs) > most) {
                add(0, Some(most));
            }
        }
        candidates
    }

    fn files_to_look_at(&self) -> Vec<Vec<u8>> {
        by_depth(self.common.files.iter()).into_iter().take(LOOKED_AT).map(|(_, path)| path).collect()
    }

    /// Bounds on the sizes of files that all examples have.
    fn sizes(&self, examples: &[&Tree], alive: &[&Tree]) -> Vec<Draft> {
        let mut candidates = Vec::new();
        for path in self.files_to_look_at() {
            let sizes = |trees: &[&Tree]| trees.iter().map(|tree| tree.look.size(&path)).collect::<Option<Vec<u64>>>();
            let (Some(ours), Some(theirs)) = (sizes(examples), sizes(alive)) else { continue };
            let (least, most) = bounds(&ours);
            let note = match least == most {
                true => format!("{least} bytes in each example"),
                false => format!("{least} to {most} bytes in the examples"),
            };
            for theirs in theirs {
                if let Some(size) = size_test(least, most, theirs) {
                    let test = FileTest { size: Some(size), ..FileTest::glob(path_glob(&path)) };
                    candidates.push(Draft { files: vec![FileDraft { test, note: note.clone() }], ..Draft::default() });
                }
            }
        }
        candidates
    }

    /// Lines of files that all examples have, and a counter-example has not; and the other way round.
    fn contents(&self, examples: &[&Tree], alive: &[&Tree]) -> Vec<Draft> {
        let mut candidates = Vec::new();
        for path in self.files_to_look_at() {
            let heads = |trees: &[&Tree]| trees.iter().map(|tree| tree.look.head(&path)).collect::<Option<Vec<_>>>();
            let (Some(ours), Some(theirs)) = (heads(examples), heads(alive)) else { continue };
            let mut add = |required: bool, text: &str| {
                let test = FileTest { contains: Some(text.to_owned()), ..FileTest::glob(path_glob(&path)) };
                let note = if required { "in each example" } else { "in no example" };
                let file = vec![FileDraft { test, note: note.to_owned() }];
                candidates.push(match required {
                    true => Draft { files: file, ..Draft::default() },
                    false => Draft { forbidden_files: file, ..Draft::default() },
                });
            };
            let holds = |head: &Vec<u8>, line: &str| memchr::memmem::find(head, line.as_bytes()).is_some();
            for line in lines(&ours[0]) {
                if ours.iter().all(|head| holds(head, line)) && theirs.iter().any(|head| !holds(head, line)) {
                    add(true, line);
                }
            }
            for line in theirs.iter().flat_map(|head| lines(head)) {
                if !ours.iter().any(|head| holds(head, line)) {
                    add(false, line);
                }
            }
        }
        candidates
    }
}

/// The examples' names, if those have something in common.
fn own_name(examples: &[&Tree]) -> Vec<Draft> {
    let dirs: Vec<&Dir> = examples.iter().map(|tree| &tree.dir).collect();
    let mut described = describe(&dirs, Limits { clauses: 0, depth: 0, steps: false });
    if described.glob.is_none() && dirs.iter().all(|dir| dir.name == dirs[0].name) && !dirs[0].name.is_empty() {
        described = Draft::named(escaped(&dirs[0].name));
    }
    described.note = "the name tells the counter-examples apart".to_owned();
    if described.glob.is_some() { vec![described] } else { Vec::new() }
}

fn numbers(dir: &Dir, common: &HashSet<Vec<u8>>) -> BTreeMap<String, u32> {
    fn add(dir: &Dir, path: &[u8], common: &HashSet<Vec<u8>>, numbers: &mut BTreeMap<String, u32>) {
        let prefix = if path.is_empty() { String::new() } else { path_glob(path) + "/" };
        for name in &dir.files {
            *numbers.entry(format!("{prefix}*")).or_default() += 1;
            if let Some(dot) = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) {
                *numbers.entry(format!("{prefix}*{}", escaped(&name[dot..]))).or_default() += 1;
            }
        }
        for child in &dir.dirs {
            let path = if path.is_empty() { child.name.to_vec() } else { [path, b"/", &child.name].concat() };
            if common.contains(&path) {
                add(child, &path, common, numbers);
            }
        }
    }
    let mut numbers = BTreeMap::new();
    add(dir, &[], common, &mut numbers);
    numbers
}

fn bounds(sizes: &[u64]) -> (u64, u64) {
    (sizes.iter().copied().min().unwrap_or(0), sizes.iter().copied().max().unwrap_or(0))
}

/// The roundest bound that sizes from `least` to `most` pass and `other` does not.
fn size_test(least: u64, most: u64, other: u64) -> Option<SizeTest> {
    let test = |op, bytes| Some(SizeTest { op, bytes });
    if other < least {
        return match other {
            0 => test(SizeOp::Greater, 0),
            _ => test(SizeOp::AtLeast, round(other + 1, least)),
        };
    }
    if other > most {
        return test(SizeOp::AtMost, round(most, other - 1));
    }
    (least == most && other != least).then_some(SizeTest { op: SizeOp::Equal, bytes: least })
}

/// The roundest number from one to another.
fn round(from: u64, to: u64) -> u64 {
    let units = (0..=62).rev().map(|bits| 1u64 << bits);
    units.filter_map(|unit| Some(to / unit * unit).filter(|round| *round >= from)).next().unwrap_or(to)
}

/// Lines worth asking for.
fn lines(head: &[u8]) -> impl Iterator<Item = &str> {
    let lines = head.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| std::str::from_utf8(line).ok());
    let lines = lines.map(str::trim).filter(|line| (3..=LINE_BYTES).contains(&line.len()));
    lines.filter(|line| !line.chars().any(char::is_control)).take(TRIED / 10)
}

/// One alternative for each example, with what tells it from each counter-example that is left.
fn alternatives(draft: &mut Draft, examples: &[&Tree], alive: &[&Tree]) -> Result<(), Failure> {
    let mut whole = Vec::new();
    for example in examples {
        let mut alternative = Draft { note: format!("as {}", example.label), ..Draft::default() };
        for counter in alive {
            let Some(difference) = difference(example, counter) else {
                return Err(Failure::Alike {
                    example: example.label.clone(),
                    counter: counter.label.clone(),
                    shared: shared(&example.dir, &counter.dir),
                });
            };
            alternative.add(&difference);
        }
        whole.push(alternative);
    }
    if draft.any_of.is_empty() {
        one_of(draft, whole.iter());
        return Ok(());
    }
    // The examples have nothing in common, so that they have alternatives already: each is told apart in its own.
    for known in &mut draft.any_of {
        let answers = answer(&known.pattern("candidate", None), examples);
        let own = whole.iter().zip(&answers).filter(|(_, answer)| **answer == Answer::Yes).map(|(one, _)| one);
        one_of(known, own);
    }
    Ok(())
}

/// One of these must hold besides.
fn one_of<'d>(draft: &mut Draft, alternatives: impl Iterator<Item = &'d Draft>) {
    let mut distinct: Vec<Draft> = Vec::new();
    for alternative in alternatives {
        if distinct.iter().all(|known| !known.says_as(alternative)) {
            distinct.push(alternative.clone());
        }
    }
    match distinct.as_slice() {
        [one] => draft.add(one),
        _ => draft.any_of = distinct,
    }
}

/// A clause that holds for the one and not for the other.
fn difference(example: &Tree, counter: &Tree) -> Option<Draft> {
    let (ours, theirs) = (Names::of(&example.dir), Names::of(&counter.dir));
    let file = |path: &[u8]| vec![FileDraft::glob(path_glob(path), "")];
    let dir = |path: &[u8]| vec![at_path(path, "")];
    let mut candidates: Vec<Draft> = Vec::new();
    let difference = |a: &HashSet<Vec<u8>>, b: &HashSet<Vec<u8>>| by_depth(a.difference(b)).into_iter().take(TRIED);
    candidates
        .extend(difference(&ours.files, &theirs.files).map(|(_, p)| Draft { files: file(&p), ..Draft::default() }));
    candidates
        .extend(difference(&ours.dirs, &theirs.dirs).map(|(_, p)| Draft { directories: dir(&p), ..Draft::default() }));
    candidates.extend(
        difference(&theirs.files, &ours.files).map(|(_, p)| Draft { forbidden_files: file(&p), ..Draft::default() }),
    );
    candidates.extend(
        difference(&theirs.dirs, &ours.dirs).map(|(_, p)| Draft { forbidden_directories: dir(&p), ..Draft::default() }),
    );
    if !example.dir.name.is_empty() && example.dir.name != counter.dir.name {
        candidates.push(Draft::named(escaped(&example.dir.name)));
    }
    if let Some(found) = first_that_tells(candidates, example, counter) {
        return Some(found);
    }
    let mut common: Vec<&Vec<u8>> = ours.files.intersection(&theirs.files).collect();
    common.sort();
    let sizes = common.iter().filter_map(|path| {
        let (ours, theirs) = (example.look.size(path)?, counter.look.size(path)?);
        let test = FileTest { size: size_test(ours, ours, theirs), ..FileTest::glob(path_glob(path)) };
        test.size?;
        Some(Draft { files: vec![FileDraft { test, note: String::new() }], ..Draft::default() })
    });
    if let Some(found) = first_that_tells(sizes.take(TRIED).collect(), example, counter) {
        return Some(found);
    }
    let bytes = common.iter().filter_map(|path| {
        let (ours, theirs) = (example.look.head(path)?, counter.look.head(path)?);
        let at = ours.iter().zip(&theirs).position(|(a, b)| a != b)?;
        let bytes = ours[at..ours.len().min(at + MAGIC_BYTES)].to_vec();
        let test = FileTest { magic: Some(Magic { offset: at as u64, bytes }), ..FileTest::glob(path_glob(path)) };
        Some(Draft { files: vec![FileDraft { test, note: String::new() }], ..Draft::default() })
    });
    first_that_tells(bytes.take(1).collect(), example, counter)
}

fn first_that_tells(candidates: Vec<Draft>, example: &Tree, counter: &Tree) -> Option<Draft> {
    // The first ones nearly always do, and trees may be large.
    for some in candidates.chunks(16) {
        let patterns: Vec<_> = some.iter().map(|candidate| candidate.pattern("candidate", None)).collect();
        let answers = answers(&patterns, &[example, counter]);
        if let Some(at) = answers.iter().position(|answer| answer[..] == [Answer::Yes, Answer::No]) {
            return Some(some[at].clone());
        }
    }
    None
}

fn shared(example: &Dir, counter: &Dir) -> String {
    fn count(dir: &Dir) -> (usize, usize) {
        dir.dirs
            .iter()
            .map(count)
            .fold((dir.files.len(), dir.dirs.len()), |sum, below| (sum.0 + below.0, sum.1 + below.1))
    }
    let (files, dirs) = count(example);
    let plural = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let (files, dirs) = (plural(files, "file", "files"), plural(dirs, "directory", "directories"));
    let known = example.is_known() && counter.is_known();
    let limit = if known { "" } else { ", as far as they could be read" };
    format!("both have the same {files} and {dirs} below them, of the same names, sizes and contents{limit}")
}
