//! Asking a mount to compare what it shows with what is there: by reading an extended attribute that no list shows.
//!
//! ```text
//! user.veinfs.refresh                    on anything in the mount: what is behind it, or on a folder everything
//! user.veinfs.refresh:NUMBER:PATH        on the root: below PATH in the source of that number
//! ```
//!
//! The value is a ticket: the comparison is done when it is not among those in `refreshing` in `status.json`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::VeinFs;
use super::reach::Target;
use crate::entry::{RelPath, valid_name};

/// The attribute's name.
const NAME: &[u8] = b"user.veinfs.refresh";

/// What stands behind the attribute's name, if it is that.
pub(super) fn asked(name: &OsStr) -> Option<&[u8]> {
    let rest = name.as_bytes().strip_prefix(NAME)?;
    (rest.is_empty() || rest.starts_with(b":")).then_some(rest)
}

fn parse(rest: &[u8], sources: usize) -> Option<(usize, RelPath)> {
    let rest = rest.strip_prefix(b":")?;
    let at = rest.iter().position(|byte| *byte == b':')?;
    let source: usize = std::str::from_utf8(&rest[..at]).ok()?.parse().ok()?;
    let path = &rest[at + 1..];
    let good = path.is_empty() || path.split(|byte| *byte == b'/').all(valid_name);
    (source < sources && good).then(|| (source, RelPath::from_bytes(path)))
}

impl VeinFs {
    /// Only whoever mounted, and root, may ask; a question for the value's length alone begins nothing.
    pub(super) fn do_refresh(&self, uid: u32, ino: u64, asked: &[u8], begins: bool) -> io::Result<Vec<u8>> {
        let refused = |number| io::Error::from_raw_os_error(number);
        if uid != self.uid && uid != 0 {
            return Err(refused(libc::EPERM));
        }
        let below = if asked.is_empty() {
            match self.target(ino)? {
                Target::Node(node) => Some((node.place().source, RelPath::from_bytes(node.dir_path()))),
                Target::Folder(_) | Target::Control(_) => None,
            }
        } else {
            Some(parse(asked, self.live.sources.len()).ok_or_else(|| refused(libc::EINVAL))?)
        };
        if !begins {
            return Ok(vec![b'0'; 20]);
        }
        let ticket = self.live.refresh(below).ok_or_else(|| refused(libc::EIO))?;
        Ok(ticket.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_a_source_and_a_path() {
        let of = |name: &str| asked(OsStr::new(name)).map(|rest| parse(rest, 2));
        let path = |text: &str| RelPath::from_bytes(text.as_bytes());
        assert_eq!(of("user.veinfs.source"), None);
        assert_eq!(of("user.veinfs.refreshed"), None);
        assert_eq!(of("user.veinfs.refresh:1:a/b"), Some(Some((1, path("a/b")))));
        assert_eq!(of("user.veinfs.refresh:0:"), Some(Some((0, path("")))));
        for bad in [":2:a", ":0", ":x:a", ":0:../a", ":0:a//b", ":0:/a"] {
            assert_eq!(of(&format!("user.veinfs.refresh{bad}")), Some(None), "{bad}");
        }
    }
}
