//! Where a listing can be split that begins with any prefix, but behind no key: by the names at one level.

use super::common;

/// In so many parts a level is split at most, but for those that have more first characters.
const HEADS: usize = 64;

/// Where a range can be split if pages begin with a prefix and nowhere else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Points {
    /// All that is to come begins with this, and the names at its level are not known.
    Unknown(String),
    Asked,
    /// All that is to come begins with one of these, in order; the last is split off first, since nothing is behind it.
    Known(Vec<String>),
    /// It is not split: there are too many names, or it is one name.
    None,
}

impl Points {
    /// What names at a level tell, of which those before a key are listed; `of` is what all begin with.
    pub(super) fn of_names(of: &str, names: Vec<Vec<u8>>, last: &[u8]) -> Self {
        let Ok(mut names) = names.into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>() else {
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
        if matches!(&known, Self::Unknown(head) if head.len() <= of.len()) { Self::None } else { known }
    }

    /// The same once more of it is listed, up to a key.
    pub(super) fn after(self, last: &[u8]) -> Self {
        let Self::Known(mut heads) = self else { return self };
        let listed = heads.partition_point(|head| head.as_bytes() <= last);
        heads.drain(..listed.saturating_sub(1));
        match &heads[..] {
            [head] if last.starts_with(head.as_bytes()) || head.as_bytes() > last => Self::Unknown(head.clone()),
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
    for length in common + 1..=common + 16 {
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
            (&["a", "b", "c"], "c/x", Points::Unknown("c".into())),
            (&["a", "b", "c"], "d", Points::None),
            (&["b"], "a", Points::Unknown("b".into())),
            (&[], "a", Points::None),
        ];
        for (heads, last, wanted) in table {
            assert_eq!(known(heads).after(last.as_bytes()), wanted, "{heads:?} after {last}");
        }
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(Points::of_names("a/", names(&["a/b/"]), b"a/b/c"), Points::Unknown("a/b/".into()));
        assert_eq!(
            Points::of_names("a", names(&["a", "a/", "a-"]), b"a"),
            Points::None,
            "no more is known than before"
        );
        assert_eq!(Points::of_names("", vec![vec![0xff]], b"a"), Points::None);
        assert_eq!(Points::of_names("", names(&["a/", "b/", "b0/"]), b"a/x"), known(&["a/", "b/", "b0/"]));
        assert_eq!(Points::of_names("", names(&["a/", "b/", "b-0/"]), b"a/x"), Points::None, "in either order");
    }
}
