//! Who reads what: ordinary users and root on a mount over a tree with private directories.
//!
//! What a user may do is what the same user can do on the real path: each try is made on both. A mount must never allow
//! more. Where it allows less, since modes cannot say what an access list or two owners say, the table shows it.

mod changes;
mod owners;
mod probe;
mod swaps;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bed::{Output, TestBed, can_mount, has, is_root, lay_out};
use probe::{ANN, BEN, CAT, DAN, Probe, ROOT, SHARED, USERS};

/// What a match shows: all that is in it.
const RUN: &str =
    "name: run\nfiles: [data.csv]\noptional_files: ['*']\noptional_directories: [{directory_name: '*'}]\n";

/// True if other users can be tried; says so if not.
fn can_share() -> bool {
    can_mount() && is_root() && has("setpriv") && has("python3")
}

/// Sets mode, owner, group and access list: `750 ann:shared u:ben:r-x,m::r-x`.
#[track_caller]
fn set(path: &Path, access: &str) {
    let mut words = access.split(' ');
    let mode = u32::from_str_radix(words.next().expect("a mode"), 8).expect("an octal number");
    let (owner, group) = words.next().expect("an owner").split_once(':').expect("a group");
    chown(path, Some(number(owner)), Some(number(group))).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if let Some(list) = words.next() {
        list_access(path, list);
    }
}

/// The number of a user, or of a group.
fn number(name: &str) -> u32 {
    let user = USERS.iter().find(|user| user.name == name);
    user.map_or_else(|| if name == "shared" { SHARED } else { panic!("{name}") }, |user| user.uid)
}

/// Adds to a file's access list: `u:ben:r-x,g:shared:---`.
#[track_caller]
fn list_access(path: &Path, list: &str) {
    let mut list = format!("{list},");
    for user in USERS {
        list = list.replace(&format!(":{}:", user.name), &format!(":{}:", user.uid));
    }
    let list = list.replace(":shared:", &format!(":{SHARED}:"));
    Output::of(Command::new("setfacl").args(["-m", list.trim_end_matches(',')]).arg(path)).ok();
}

/// True if there are access lists here; says so if not.
fn has_access_lists() -> bool {
    if !has("setfacl") {
        return false;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    let there = Output::of(Command::new("setfacl").args(["-m", "u:6001:r"]).arg(file.path())).code == 0;
    if !there {
        eprintln!("SKIP: no access lists here");
    }
    there
}

/// What is in each match, and whose it is.
const FILES: [(&str, &str); 12] = [
    ("data.csv=for all", "644 ann:ann"),
    ("own=for one", "600 ann:ann"),
    ("team=for some", "640 ann:shared"),
    ("strangers=for others", "604 ann:shared"),
    ("ben=for ben", "600 ben:ben"),
    ("root=for root", "600 root:root"),
    ("d-shut/in=in a private directory", "644 ann:ann"),
    ("d-shut/", "700 ann:ann"),
    ("d-team/in=in a group's directory", "644 ann:ann"),
    ("d-team/", "750 ann:shared"),
    ("d-blind/in=in one to be searched", "644 ann:ann"),
    ("d-blind/", "711 ann:ann"),
];

/// What is in a match besides where there are access lists.
const LISTED: [(&str, &str); 4] = [
    ("without-ben=x", "644 ann:ann u:ben:---"),
    ("with-cat=x", "600 ann:ann u:cat:r--"),
    ("d-listed/in=x", "644 ann:ann"),
    ("d-listed/", "700 ann:ann u:ben:r-x"),
];

/// A letter for each try, and what is tried below the match. Capital letters in tables are tries that come to the same.
const TRIES: [(char, &str, &str); 23] = [
    ('a', "seen", ""),
    ('b', "list", ""),
    ('c', "stat", "data.csv"),
    ('d', "read", "data.csv"),
    ('e', "read", "own"),
    ('f', "read", "team"),
    ('g', "read", "strangers"),
    ('h', "read", "ben"),
    ('i', "read", "root"),
    ('j', "list", "d-shut"),
    ('k', "stat", "d-shut/in"),
    ('l', "read", "d-shut/in"),
    ('m', "list", "d-team"),
    ('n', "read", "d-team/in"),
    ('o', "list", "d-blind"),
    ('p', "read", "d-blind/in"),
    ('q', "link", "link"),
    ('r', "read", "link"),
    ('s', "read", "out"),
    ('t', "read", "without-ben"),
    ('u', "read", "with-cat"),
    ('v', "list", "d-listed"),
    ('w', "read", "d-listed/in"),
];

/// A match below directories that not everyone may search.
struct Case {
    name: &'static str,
    /// What the real directories above it are, from the top.
    above: &'static [&'static str],
    own: &'static str,
}

const fn case(name: &'static str, above: &'static [&'static str], own: &'static str) -> Case {
    Case { name, above, own }
}

const OPEN: &str = "755 ann:ann";

const CASES: [Case; 22] = [
    case("open", &[OPEN], OPEN),
    case("search", &["711 ann:ann"], OPEN),
    case("roots-search", &["711 root:root"], OPEN),
    case("team", &["750 ann:shared"], OPEN),
    case("roots-team", &["750 root:shared"], OPEN),
    case("team-search", &["710 ann:shared"], OPEN),
    case("team-alone", &["070 ann:shared"], OPEN),
    case("strangers", &["705 ann:shared"], OPEN),
    case("anns", &["700 ann:ann"], OPEN),
    case("bens", &["700 ben:ben"], OPEN),
    case("roots", &["700 root:root"], OPEN),
    case("nobodys", &["000 ann:ann"], OPEN),
    case("anns-in-open", &[OPEN, "700 ann:ann"], OPEN),
    case("open-in-anns", &["700 ann:ann", OPEN], OPEN),
    case("bens-in-anns", &["700 ann:ann", "700 ben:ben"], OPEN),
    case("anns-in-team", &["750 ann:shared", "700 ann:ann"], OPEN),
    case("bens-team-in-anns-team", &["750 ann:shared", "750 ben:shared"], OPEN),
    case("bens-own-group-in-team", &["750 ann:shared", "750 ben:ben"], OPEN),
    case("match-shut", &[OPEN], "700 ann:ann"),
    case("match-team", &[OPEN], "750 ann:shared"),
    case("match-shut-in-team", &["750 ann:shared"], "700 ann:ann"),
    case("bens-match-in-anns", &["700 ann:ann"], "755 ben:ben"),
];

const LISTED_CASES: [Case; 8] = [
    case("plain", &[OPEN], OPEN),
    case("ben-let-in", &["700 ann:ann u:ben:r-x"], OPEN),
    case("ben-kept-out", &["755 ann:ann u:ben:---"], OPEN),
    case("team-let-in", &["700 ann:ann g:shared:--x"], OPEN),
    case("team-kept-out", &["755 ann:ann g:shared:---"], OPEN),
    case("masked", &["770 ann:shared u:ben:rwx,m::---"], OPEN),
    case("match-lets-ben-in", &[OPEN], "700 ann:ann u:ben:r-x"),
    case("match-lets-ben-in-below-anns", &["700 ann:ann"], "755 ann:ann u:ben:r-x"),
];

/// Lays out a match below directories, with all that is tried in it; its path.
fn lay_out_match(src: &Path, case: &Case, files: &[(&str, &str)]) -> PathBuf {
    let mut at = src.join(format!("t-{}", case.name));
    let mut above = vec![(at.clone(), case.above[0])];
    for (depth, access) in case.above.iter().enumerate().skip(1) {
        at.push(format!("below-{depth}"));
        above.push((at.clone(), access));
    }
    let own = at.join(case.name);
    for (line, access) in files {
        lay_out(&own, &[line]);
        set(&own.join(line.split('=').next().expect("a path")), access);
    }
    lay_out(&own, &["link -> data.csv"]);
    symlink(src.join("private/file"), own.join("out")).expect("a link");
    set(&own, case.own);
    above.iter().rev().for_each(|(path, access)| set(path, access));
    own
}

/// How one try compares: `+` the mount allows what the real path does not; `-` neither does, `~` for another reason; a
/// small letter, only the real path does; a capital, both, and the answer is the same.
fn compare(letter: char, what: &str, mount: &probe::Answer, real: &probe::Answer, path: &Path) -> char {
    match (mount, real) {
        (Ok(mount), Ok(real)) => {
            assert_eq!(mount, real, "{what} {}", path.display());
            letter.to_ascii_uppercase()
        }
        (Ok(_), Err(_)) => '+',
        (Err(_), Ok(_)) => letter,
        (Err(mount), Err(real)) if mount == real => '-',
        (Err(_), Err(_)) => '~',
    }
}

/// Who may do what: a line for each case, a column for each user.
fn table(probes: &mut [Probe], cases: &[Case], real: &[PathBuf], mnt: &Path, tries: usize) -> String {
    let mut lines = vec![String::from("case")];
    USERS.iter().for_each(|user| lines[0] += &format!(" {}", user.name));
    for (case, real) in cases.iter().zip(real) {
        let seen = mnt.join("run").join(case.name);
        let columns = probes.iter_mut().map(|probe| {
            let tries = TRIES[..tries].iter().map(|(letter, what, path)| {
                let (mount, real) = (probe.ask(what, &seen.join(path)), probe.ask(what, &real.join(path)));
                compare(*letter, what, &mount, &real, &seen.join(path))
            });
            tries.collect::<String>()
        });
        lines.push(format!("{} {}", case.name, columns.collect::<Vec<_>>().join(" ")));
    }
    aligned(&lines)
}

fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let line = |row: &Vec<&str>| {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:width$}", width = width(at)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The ways in which a mount is kept up to date, and how long the kernel may keep what it is told.
const WAYS: [&[&str]; 3] = [&[], &["--no-watch"], &["--attr-timeout", "3600"]];

/// The table of these cases, which is the same in each way, and whoever has looked before.
fn tables(cases: &[Case], files: &[(&str, &str)], tries: usize) -> String {
    let bed = TestBed::new(&["private/file=in nobody's match"]);
    set(&bed.src.join("private/file"), "644 ann:ann");
    set(&bed.src.join("private"), "700 ann:ann");
    let real: Vec<PathBuf> = cases.iter().map(|case| lay_out_match(&bed.src, case, files)).collect();
    let run = bed.file("run.yaml", RUN);
    let mut tables = Vec::new();
    for way in WAYS {
        bed.mount(["-p", &run, "-o", "allow_other"].iter().chain(way));
        let mut probes: Vec<Probe> = USERS.iter().map(|user| Probe::new(*user)).collect();
        // First those who may least, then all once more when root has had the kernel remember all of it.
        for times in 0..2 {
            let table = table(&mut probes, cases, &real, &bed.mnt, tries);
            tables.push((format!("{way:?} {times}"), table));
            let all = Output::of(Command::new("timeout").args(["60", "tar", "-cf", "-"]).arg(&bed.mnt)).ok();
            assert!(all.text().contains("for root"));
        }
        drop(probes);
        bed.unmount();
    }
    for (way, table) in &tables {
        assert_eq!(*table, tables[0].1, "{way}");
    }
    tables.swap_remove(0).1
}

/// The mount allows more in none of the cases, but for the match's own name and attributes, which all may see.
#[track_caller]
fn allows_no_more(table: &str) {
    let more = |cell: &str| cell.chars().skip(1).any(|letter| letter == '+');
    let wide: Vec<&str> = table.lines().filter(|line| line.split(' ').any(more)).collect();
    assert!(wide.is_empty(), "the mount allows more than the real path: {wide:#?}");
    assert!(!table.contains('~'), "it refuses for another reason:\n{table}");
}

#[test]
fn who_reads_what() {
    if !can_share() {
        return;
    }
    let tries = TRIES.iter().position(|(letter, ..)| *letter == 't').expect("a letter");
    let table = tables(&CASES, &FILES, tries);
    allows_no_more(&table);
    insta::assert_snapshot!(table, @r"
    case                    root                 ann                  ben                  cat                  dan
    open                    ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  ABCD--G--------PQR-  ABCD-F------MN-PQR-
    search                  ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  ABCD--G--------PQR-  ABCD-F------MN-PQR-
    roots-search            ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  ABCD--G--------PQR-  ABCD-F------MN-PQR-
    team                    ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  +------------------  ABCD-F------MN-PQR-
    roots-team              ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  +------------------  ABCD-F------MN-PQR-
    team-search             ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  +------------------  ABCD-F------MN-PQR-
    team-alone              ABCDEFGHIJKLMNOPQRS  +------------------  Abcd-f-h----mn-pqr-  +------------------  Abcd-f------mn-pqr-
    strangers               ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  Abcd--g--------pqr-  +------------------
    anns                    ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    bens                    ABCDEFGHIJKLMNOPQRS  +------------------  ABCD-F-H----MN-PQR-  +------------------  +------------------
    roots                   ABCDEFGHIJKLMNOPQRS  +------------------  +------------------  +------------------  +------------------
    nobodys                 ABCDEFGHIJKLMNOPQRS  +------------------  +------------------  +------------------  +------------------
    anns-in-open            ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    open-in-anns            ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    bens-in-anns            ABCDEFGHIJKLMNOPQRS  +------------------  +------------------  +------------------  +------------------
    anns-in-team            ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    bens-team-in-anns-team  ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  +------------------  ABCD-F------MN-PQR-
    bens-own-group-in-team  ABCDEFGHIJKLMNOPQRS  +------------------  Abcd-f-h----mn-pqr-  +------------------  +------------------
    match-shut              ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  A------------------  A------------------  A------------------
    match-team              ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  ABCD-F-H----MN-PQR-  A------------------  ABCD-F------MN-PQR-
    match-shut-in-team      ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  A------------------  +------------------  A------------------
    bens-match-in-anns      ABCDEFGHIJKLMNOPQRS  ABCDEFG--JKLMNOPQRS  +------------------  +------------------  +------------------
    ");
}

#[test]
fn who_reads_what_by_access_lists() {
    if !can_share() || !has_access_lists() {
        return;
    }
    let files: Vec<(&str, &str)> = FILES.iter().chain(&LISTED).copied().collect();
    let table = tables(&LISTED_CASES, &files, TRIES.len());
    allows_no_more(&table);
    insta::assert_snapshot!(table, @r"
    case                          root                     ann                      ben                      cat                      dan
    plain                         ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  ABCD-F-H----MN-PQR---VW  ABCD--G--------PQR-TU--  ABCD-F------MN-PQR-T---
    ben-let-in                    ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  Abcd-f-h----mn-pqr---vw  +----------------------  +----------------------
    ben-kept-out                  ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  +----------------------  Abcd--g--------pqr-tu--  Abcd-f------mn-pqr-t---
    team-let-in                   ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  Abcd-f-h----mn-pqr---vw  +----------------------  Abcd-f------mn-pqr-t---
    team-kept-out                 ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  +----------------------  Abcd--g--------pqr-tu--  +----------------------
    masked                        ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  +----------------------  +----------------------  +----------------------
    match-lets-ben-in             ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  ABCD-F-H----MN-PQR---VW  A----------------------  A----------------------
    match-lets-ben-in-below-anns  ABCDEFGHIJKLMNOPQRSTUVW  ABCDEFG--JKLMNOPQRSTUVW  +----------------------  +----------------------  +----------------------
    ");
}

#[test]
fn users_are_who_they_are_said_to_be() {
    if !can_share() {
        return;
    }
    for user in [ROOT, ANN, BEN, CAT, DAN] {
        let id = |flag: &str| Output::of(probe::as_user(user, "id").arg(flag)).ok().text().trim().to_owned();
        assert_eq!((id("-u"), id("-g")), (user.uid.to_string(), user.gid.to_string()));
        let groups: Vec<String> = id("-G").split(' ').map(str::to_owned).collect();
        assert!(user.groups.iter().all(|group| groups.contains(&group.to_string())), "{groups:?}");
        assert_eq!(groups.len(), 1 + user.groups.len(), "{groups:?}");
    }
}
