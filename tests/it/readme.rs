//! What the README says is so: its commands are run and print what it shows, its options and subcommands exist.

use std::fs;
use std::process::Command;

use crate::mounts::can_mount;
use crate::pages::{Block, NOT_RUN, Place, VEINFS, blocks, lacks_program, page, repository};

fn readme() -> String {
    page("README.md")
}

/// A home with a cargo registry, Python packages, and the laboratory's runs.
fn place() -> Place {
    let place = Place::new();
    for package in ["adler2-2.0.1", "aho-corasick-1.1.5", "serde-1.0.229", "zmij-1.0.23"] {
        let package = format!("home/.cargo/registry/src/registry-0123456789abcdef/{package}");
        for file in ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
            place.file(&format!("{package}/{file}"), "");
        }
        for file in ["build.rs", "crates-io.md", "src/lib.rs"] {
            place.file(&format!("{package}/{file}"), "");
        }
    }
    place.file("usr/lib/python3/dist-packages/yaml/__init__.py", "version = '6.0'\n");
    place.file("usr/lib/python3/dist-packages/six.py", "");

    experiment(&place, "2024/spring/copper-20240311");
    experiment(&place, "2024/spring/copper-20240312");
    fs::remove_file(place.root.join("srv/lab/2024/spring/copper-20240312/raw/sample-1.csv")).expect("was made");
    experiment(&place, "2025/anna/zinc-20250114");
    place.file("srv/lab/2025/anna/zinc-20250114/figures/decay.png", "");
    place.file("srv/lab/2025/anna/zinc-20250114/core.4711", "");
    experiment(&place, "2025/ben/old/copper-20240311");
    place.file("srv/lab/2025/ben/old/copper-20240311/README.md", "");
    experiment(&place, "2025/ben/zinc-20250115");
    place.file("srv/lab/2025/ben/zinc-20250115/FAILED", "");
    place.file("srv/misspelt.yaml", "file: [data.csv]\n");
    place
}

fn experiment(place: &Place, path: &str) {
    place.file(&format!("srv/lab/{path}/config.yaml"), "rate: 0.4\n");
    place.file(&format!("srv/lab/{path}/data.csv"), "time_s,value\n0,1.0000\n1,0.6703\n");
    for n in 0..2 {
        place.file(&format!("srv/lab/{path}/raw/sample-{n}.csv"), "channel,volt\n0,0.6703\n");
    }
}

#[test]
fn the_sessions_print_what_is_shown() {
    assert!(place().take_page("README.md") > 0, "no command was run");
}

#[test]
fn what_is_not_run_is_there() {
    let of_page = |text: &str| {
        let blocks = blocks(text);
        let steps = blocks.iter().filter(|block| block.is("console")).flat_map(Block::steps);
        steps.map(|step| step.command).collect::<Vec<String>>()
    };
    let commands = [of_page(&readme()), of_page(&page("docs/operations.md"))].concat();
    for known in NOT_RUN {
        assert!(commands.iter().any(|command| command.starts_with(known)), "no page has `{known}`");
    }
    let scripts =
        ["scripts/demo", "scripts/test", "scripts/check", "scripts/bench", "scripts/package", "scripts/package-test"];
    for script in scripts {
        use std::os::unix::fs::PermissionsExt;
        let path = repository().join(script);
        let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{script}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} can be run");
        let parsed = Command::new("bash").arg("-n").arg(&path).status().expect("there is a bash");
        assert!(parsed.success(), "{script}");
    }
    // Whoever installs by hand gets what the demo would install.
    let demo = fs::read_to_string(repository().join("scripts/demo")).expect("a script");
    for command in commands.iter().filter_map(|command| command.strip_prefix("sudo apt-get install ")) {
        command.split(' ').for_each(|package| assert!(demo.contains(&format!(":{package} ")), "{package}"));
    }
}

#[test]
fn the_demo_shows_a_mount_and_takes_it_off() {
    if !can_mount(false) || lacks_program("python3") {
        return;
    }
    let place = place();
    let (code, printed) = place.run(&format!("{}/scripts/demo", repository().display()));
    let text = printed.join("\n");
    assert_eq!(code, Some(0), "{text}");
    for wanted in ["pattern experiment: 4 matches", "pattern cargo-crate: 4 matches", "\n0,1.0000\n"] {
        assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
    }
    assert!(printed.last().is_some_and(|last| last.starts_with("$ veinfs unmount ")), "{text}");
    assert!(place.mounts().is_empty(), "the demo leaves a mount");
    let left: Vec<_> = fs::read_dir(place.root.join("tmp")).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "the demo leaves {left:?}");
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(VEINFS).args(arguments).arg("--help").output().expect("veinfs runs");
    assert!(output.status.success(), "veinfs {arguments:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

/// The options in a text, such as `--lazy`.
fn options(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect()
}

/// What stands between backquotes.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_options_and_subcommands_exist() {
    let readme = readme();
    let main = help(&[]);
    let listed: Vec<&str> = main
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    let helps: Vec<(&str, String)> = listed.iter().map(|command| (*command, help(&[command]))).collect();
    let has = |command: &str, option: &str| {
        helps.iter().any(|(known, text)| *known == command && options(text).contains(&option))
    };

    let mut shown: Vec<&str> = Vec::new();
    for line in readme.lines().filter(|line| line.starts_with("| `veinfs ")) {
        let command = line["| `veinfs ".len()..].split([' ', '`']).next().expect("split yields something");
        shown.push(command);
        for option in spans(line).flat_map(options) {
            assert!(has(command, option), "`veinfs {command}` has no `{option}`");
        }
    }
    assert_eq!(shown, listed, "the table of commands has those of `veinfs --help` in their order");

    let mut fenced = false;
    for line in readme.lines() {
        fenced ^= line.starts_with("```");
        if fenced {
            continue;
        }
        for span in spans(line).filter(|span| !span.starts_with("--device ")) {
            for option in options(span) {
                let known = option == "--help" || listed.iter().any(|command| has(command, option));
                assert!(known, "no command has the `{option}` of `{span}`");
            }
            if let Some(command) = span.strip_prefix("veinfs ").and_then(|rest| rest.split(' ').next()) {
                let known = listed.contains(&command) || command == "COMMAND";
                assert!(known, "there is no `{span}`");
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/benchmarks.md",
        "docs/explain.md",
        "docs/infer.md",
        "docs/library.md",
        "docs/object-stores.md",
        "docs/operations.md",
        "docs/patterns.md",
        "docs/tutorial-bucket.md",
        "docs/tutorial-data-sets.md",
        "docs/tutorial-runs.md",
    ] {
        let path = repository().join(page);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with('#') || link.contains("://") {
                continue;
            }
            let target = path.parent().expect("a file is in a directory").join(link);
            assert!(target.exists(), "{page}: {link}");
        }
    }
}
