//! Where a listing can be split that begins with any prefix, but behind no key: by the names at one level.

use super::{From, Page, common};

/// Of so many names at a level at most is known; where there are more it is not split.
const NAMES: usize = 100_000;
/// So much longer than what all names have in common their beginnings are at most.
const LONGER: usize = 16;
/// In so many parts a level is split at most, but for those that have more first characters.
const HEADS: usize = 64;

/// The names at a level, as far as they are known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// What all of them begin with.
    pub(super) of: String,
    names: Vec<Vec<u8>>,
    /// Where those begin that are not known.
    pub(super) from: From,
}

impl Level {
    /// A level of which nothing is known.
    pub(super) fn new(of: String) -> Self {
        Self { of, names: Vec::new(), from: From::Start }
    }
}

/// Where a range can be split if pages begin with a prefix and nowhere else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Points {
    /// All that is to come begins with what a level does of which not all names are known.
    Unknown(Level),
    /// A page of names is under way.
    Asked,
    /// All that is to come begins with one of these, in order; the last is split off first, since nothing is behind it.
    Known(Vec<String>),
    /// It is not split: there are too many names, or it is one name.
    None,
}

impl Points {
    /// What a level tells with one more page of it; what is up to a key is listed.
    pub(super) fn of_names(mut level: Level, page: Page, last: &[u8]) -> Self {
        level.names.extend(page.objects.into_iter().map(|found| found.key));
        if let Some(token) = page.next {
            level.from = From::Token(token);
            return if level.names.len() < NAMES { Self::Unknown(level) } else { Self::None };
        }
        let Ok(mut names) = level.names.into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>() else {
            return Self::None;
        };
        names.sort_unstable();
        names.dedup();
        // A store may put what is in a directory before all that its name begins. A range would be taken to be at its end
        // where it is not: only where both orders are the same it is split.
        let slash_first =
            |name: &String| name.bytes().map(|byte| if byte == b'/' { 0 } else { byte }).collect::<Vec<u8>>();
        if !names.is_sorted_by_key(slash_first) {
            return Self::None;
        }
        let known = Self::Known(heads(&names)).after(last);
        // What is no longer would be asked for again and again.
        if matches!(&known, Self::Unknown(head) if head.of.len() <= level.of.len()) { Self::None } else { known }
    }

    /// The same once more of it is listed, up to a key.
    pub(super) fn after(self, last: &[u8]) -> Self {
        let Self::Known(mut heads) = self else { return self };
        let listed = heads.partition_point(|head| head.as_bytes() <= last);
        heads.drain(..listed.saturating_sub(1));
        match &heads[..] {
            [head] if last.starts_with(head.as_bytes()) || head.as_bytes() > last => {
                Self::Unknown(Level::new(head.clone()))
            }
            [_] | [] => Self::None,
            _ => Self::Known(heads),
        }
    }
}

/// Beginnings that all names, which are in order, have one of, and no other name than they; some [`HEADS`] where that can be.
fn heads(names: &[String]) -> Vec<String> {
    let [first, .., last] = names else { return names.to_vec() };
    let common = common(first.as_bytes(), last.as_bytes());
    let mut best: Vec<String> = Vec::new();
    for length in common + 1..=common + LONGER {
        let mut heads: Vec<&str> = Vec::new();
        for name in names {
            let end = (length..name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(name.len());
            let head = &name[..end];
            // Sorted, what begins with another one comes right behind it.
            if !heads.last().is_some_and(|last| head.starts_with(last)) {
                heads.push(head);
            }
        }
        if heads.len() > HEADS && !best.is_empty() {
            break;
        }
        if heads.len() >= best.len() {
            best = heads.into_iter().map(str::to_owned).collect();
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::object::list::Found;
    use crate::source::object::snapshot::Meta;

    #[test]
    fn heads_are_of_all_names() {
        let table: [(&[&str], &[&str]); 8] = [
            (&["run-1/", "run-2/"], &["run-1/", "run-2/"]),
            (&["run-01/", "run-02/", "run-11/"], &["run-01/", "run-02/", "run-11/"]),
            (&["only/"], &["only/"]),
            (&[], &[]),
            (&["a", "a-1/", "a/", "b"], &["a", "b"]),
            (&["run", "run-1/"], &["run"]),
            (&["é", "ü/"], &["é", "ü/"]),
            (&["x", "xé"], &["x"]),
        ];
        for (names, wanted) in table {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(heads(&names), wanted, "{names:?}");
        }
        let many: Vec<String> = (0..5000).map(|n| format!("run-{n:04}/")).collect();
        assert_eq!(heads(&many).len(), 50, "hundreds would be more than can be asked for");
    }

    #[test]
    fn what_is_split_is_yet_to_come() {
        let known = |heads: &[&str]| Points::Known(heads.iter().map(|head| (*head).to_owned()).collect());
        let table = [
            (&["a", "b", "c"][..], "", known(&["a", "b", "c"])),
            (&["a", "b", "c"], "a1", known(&["a", "b", "c"])),
            (&["a", "b", "c"], "b1", known(&["b", "c"])),
            (&["a", "b", "c"], "b", known(&["b", "c"])),
            (&["a", "b", "c"], "c/x", Points::Unknown(Level::new("c".into()))),
            (&["a", "b", "c"], "d", Points::None),
            (&["b"], "a", Points::Unknown(Level::new("b".into()))),
            (&[], "a", Points::None),
        ];
        for (heads, last, wanted) in table {
            assert_eq!(known(heads).after(last.as_bytes()), wanted, "{heads:?} after {last}");
        }
        let found = |key: &[u8]| Found { key: key.to_vec(), meta: Meta::default() };
        let page = |names: &[&str], next: Option<&str>| Page {
            objects: names.iter().map(|name| found(name.as_bytes())).collect(),
            next: next.map(str::to_owned),
        };
        let of = |of: &str, names: &[&str], last: &str| {
            Points::of_names(Level::new(of.to_owned()), page(names, None), last.as_bytes())
        };
        assert_eq!(of("a/", &["a/b/"], "a/b/c"), Points::Unknown(Level::new("a/b/".into())));
        assert_eq!(of("a", &["a", "a/", "a-"], "a"), Points::None, "no more is known than before");
        assert_eq!(of("", &["a/", "b/", "b0/"], "a/x"), known(&["a/", "b/", "b0/"]));
        assert_eq!(of("", &["a/", "b/", "b-0/"], "a/x"), Points::None, "in either order");
        let odd = Page { objects: vec![found(&[0xff])], next: None };
        assert_eq!(Points::of_names(Level::new(String::new()), odd, b"a"), Points::None);
        // More of them come in another page.
        let Points::Unknown(more) = Points::of_names(Level::new(String::new()), page(&["a/"], Some("t")), b"") else {
            panic!("there are more");
        };
        assert_eq!(more.from, From::Token("t".into()));
        assert_eq!(Points::of_names(more, page(&["b/"], None), b""), known(&["a/", "b/"]));
    }
}
