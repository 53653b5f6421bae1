//! Whose mount it is: an ordinary user's opens files with that user's rights only, and without `allow_other` nobody else
//! gets in, root neither.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use super::probe::{ANN, Probe, USERS, as_user};
use super::{CASES, Case, FILES, RUN, TRIES, can_share, lay_out_match, set, table};
use crate::bed::{Output, TestBed, eventually, has};

/// Set where [`role_mounts_of_an_ordinary_user`] is to do its part.
const PRIVATE: &str = "VEINFS_TEST_PRIVATE_NAMESPACE";

/// As many tries as need no access lists.
fn tries() -> usize {
    TRIES.iter().position(|(letter, ..)| *letter == 't').expect("a letter")
}

fn cases() -> Vec<Case> {
    let chosen = ["open", "search", "team", "anns", "bens", "roots", "bens-own-group-in-team", "match-team"];
    CASES.into_iter().filter(|case| chosen.contains(&case.name)).collect()
}

fn lay_out_all(bed: &TestBed, cases: &[Case]) -> Vec<PathBuf> {
    crate::bed::lay_out(&bed.src, &["private/file=in nobody's match"]);
    set(&bed.src.join("private"), "700 ann:ann");
    cases.iter().map(|case| lay_out_match(&bed.src, case, &FILES)).collect()
}

fn probes() -> Vec<Probe> {
    USERS.iter().map(|user| Probe::new(*user)).collect()
}

#[test]
fn what_root_mounts_for_itself_is_for_nobody_else() {
    if !can_share() {
        return;
    }
    let bed = TestBed::new(&[] as &[&str]);
    let cases = cases();
    lay_out_all(&bed, &cases);
    bed.mount(["-p", &bed.file("run.yaml", RUN)]);
    let seen = bed.mnt.join("run/open/data.csv");
    // The kernel remembers it now.
    assert_eq!(fs::read_to_string(&seen).expect("a file"), "for all");
    for (mut probe, user) in probes().into_iter().zip(USERS) {
        for path in [&bed.mnt, &bed.mnt.join("run"), &seen, &bed.mnt.join(".veinfs/matches.ndjson")] {
            for what in ["seen", "list", "read"] {
                let answer = probe.ask(what, path);
                match user.uid {
                    0 => assert_ne!(answer, Err("EACCES".into()), "{what} {}", path.display()),
                    _ => assert_eq!(answer, Err("EACCES".into()), "{}: {what} {}", user.name, path.display()),
                }
            }
        }
    }
}

#[test]
fn what_an_ordinary_user_mounts_shows_no_more_than_that_user_may_read() {
    if !can_share() || !has("unshare") || !has("fusermount3") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).expect("a mode");
    // A device for everybody, a configuration that lets them share, and the name that fusermount3 asks for, in a mount
    // namespace where nobody else sees them. What other tests have mounted must not live on in there.
    let script = r#"
        awk '/ - fuse/ { print $5 }' /proc/self/mountinfo | while read -r at; do umount -l "$(printf "$at")"; done
        mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse &&
        echo user_allow_other > conf && mount --bind conf /etc/fuse.conf &&
        { cat /etc/passwd; echo ann:x:6001:6001::/:/bin/sh; } > passwd && mount --bind passwd /etc/passwd &&
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", "sharing::owners::role_mounts_of_an_ordinary_user", "--nocapture"]);
    let output = Output::of(command.current_dir(dir.path()).env(PRIVATE, "1").env("TMPDIR", dir.path()));
    eprintln!("{}{}", output.text(), output.stderr);
    output.ok();
}

/// The other half of the test above.
#[test]
fn role_mounts_of_an_ordinary_user() {
    if std::env::var_os(PRIVATE).is_none() {
        return;
    }
    let bed = TestBed::new(&[] as &[&str]);
    let cases = cases();
    let real = lay_out_all(&bed, &cases);
    let run = bed.file("run.yaml", RUN);
    chown(&bed.mnt, Some(ANN.uid), Some(ANN.gid)).expect("an owner");
    let mut tables = Vec::new();
    for others in [&[][..], &["-o", "allow_other"]] {
        let mut command = as_user(ANN, env!("CARGO_BIN_EXE_veinfs"));
        command.arg("mount").arg(&bed.src).arg(&bed.mnt).args(["-p", &run, "--wait", "--no-index"]).args(others);
        let mounted = Output::of(command.current_dir("/"));
        // Part of the source is not for this user.
        assert!(matches!(mounted.code, 0 | 3), "{mounted:?}");
        bed.keep(&bed.mnt);
        let mut probes = probes();
        let table = table(&mut probes, &cases, &real, &bed.mnt, tries());
        for line in table.lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().skip(1).collect();
            let (ann, all) = (cells[1], &cells[..]);
            assert!(!ann.contains('+') || ann.starts_with('+'), "more than the owner may: {line}");
            for cell in all {
                assert!(cell.chars().skip(1).all(|letter| letter != '+'), "more than the real path: {line}");
                for (one, owners) in cell.chars().zip(ann.chars()) {
                    let shown = one.is_ascii_uppercase() && one != '+';
                    assert!(!shown || owners.is_ascii_uppercase(), "what the owner may not read is served: {line}");
                }
            }
        }
        tables.push(table);
        drop(probes);
        let unmount = [OsStr::new("unmount"), bed.mnt.as_os_str()];
        let mut command = as_user(ANN, env!("CARGO_BIN_EXE_veinfs"));
        Output::of(command.args(unmount).current_dir("/")).ok();
        eventually("it is gone", || !bed.is_mounted());
    }
    insta::assert_snapshot!(tables[0], @r"
    case                    root                 ann                  ben                  cat                  dan
    open                    abcdefghijklmnopqrs  ABCDEFG--JKLMNOPqRS  abcd-f-h----mn-pqr-  abcd--g--------pqr-  abcd-f------mn-pqr-
    search                  abcdefghijklmnopqrs  ABCDEFG--JKLMNOPqRS  abcd-f-h----mn-pqr-  abcd--g--------pqr-  abcd-f------mn-pqr-
    team                    abcdefghijklmnopqrs  ABCDEFG--JKLMNOPqRS  abcd-f-h----mn-pqr-  -------------------  abcd-f------mn-pqr-
    anns                    abcdefghijklmnopqrs  ABCDEFG--JKLMNOPqRS  -------------------  -------------------  -------------------
    bens                    abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  abcd-f-h----mn-pqr-  -------------------  -------------------
    roots                   abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  -------------------  -------------------  -------------------
    bens-own-group-in-team  abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  abcd-f-h----mn-pqr-  -------------------  -------------------
    match-team              abcdefghijklmnopqrs  ABCDEFG--JKLMNOPqRS  abcd-f-h----mn-pqr-  a------------------  abcd-f------mn-pqr-
    ");
    insta::assert_snapshot!(tables[1], @r"
    case                    root                 ann                  ben                  cat                  dan
    open                    ABCDEFGhiJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-h----MN-PQR-  ABCD--G--------PQR-  ABCD-F------MN-PQR-
    search                  ABCDEFGhiJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-h----MN-PQR-  ABCD--G--------PQR-  ABCD-F------MN-PQR-
    team                    ABCDEFGhiJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-h----MN-PQR-  +------------------  ABCD-F------MN-PQR-
    anns                    ABCDEFGhiJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    bens                    abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  abcd~f~h~~~~mn~pqr~  ~~~~~~~~~~~~~~~~~~~  ~~~~~~~~~~~~~~~~~~~
    roots                   abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  ~~~~~~~~~~~~~~~~~~~  ~~~~~~~~~~~~~~~~~~~  ~~~~~~~~~~~~~~~~~~~
    bens-own-group-in-team  abcdefghijklmnopqrs  ~~~~~~~~~~~~~~~~~~~  abcd~f~h~~~~mn~pqr~  ~~~~~~~~~~~~~~~~~~~  ~~~~~~~~~~~~~~~~~~~
    match-team              ABCDEFGhiJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-h----MN-PQR-  A------------------  ABCD-F------MN-PQR-
    ");
}
