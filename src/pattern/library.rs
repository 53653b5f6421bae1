//! The built-in library: the pattern files of `patterns/`, compiled in.
//!
//! Each file holds one pattern whose name is the file's stem, says in its leading comment where the structure is
//! defined, and describes itself in one line. How many matches each has in the listings of `tests/data` stands in the
//! README there.

/// One pattern file of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// The pattern's name and the file's stem, in kebab case.
    pub name: &'static str,
    /// The file's text, YAML.
    pub text: &'static str,
}

/// All files of the library, sorted by name.
pub static LIBRARY: &[Builtin] = &[
    Builtin { name: "ansible-role", text: include_str!("../../patterns/ansible-role.yaml") },
    Builtin { name: "bids-bold-run", text: include_str!("../../patterns/bids-bold-run.yaml") },
    Builtin { name: "bids-dataset", text: include_str!("../../patterns/bids-dataset.yaml") },
    Builtin { name: "bids-subject", text: include_str!("../../patterns/bids-subject.yaml") },
    Builtin { name: "camera-card", text: include_str!("../../patterns/camera-card.yaml") },
    Builtin { name: "cargo-crate", text: include_str!("../../patterns/cargo-crate.yaml") },
    Builtin { name: "cmake-project", text: include_str!("../../patterns/cmake-project.yaml") },
    Builtin { name: "ctf-ds", text: include_str!("../../patterns/ctf-ds.yaml") },
    Builtin { name: "dvd-video", text: include_str!("../../patterns/dvd-video.yaml") },
    Builtin { name: "experiment", text: include_str!("../../patterns/experiment.yaml") },
    Builtin { name: "git-bare", text: include_str!("../../patterns/git-bare.yaml") },
    Builtin { name: "git-worktree", text: include_str!("../../patterns/git-worktree.yaml") },
    Builtin { name: "go-module", text: include_str!("../../patterns/go-module.yaml") },
    Builtin { name: "helm-chart", text: include_str!("../../patterns/helm-chart.yaml") },
    Builtin { name: "hf-model", text: include_str!("../../patterns/hf-model.yaml") },
    Builtin { name: "maildir", text: include_str!("../../patterns/maildir.yaml") },
    Builtin { name: "maven-project", text: include_str!("../../patterns/maven-project.yaml") },
    Builtin { name: "mlflow-run", text: include_str!("../../patterns/mlflow-run.yaml") },
    Builtin { name: "nf-core-module", text: include_str!("../../patterns/nf-core-module.yaml") },
    Builtin { name: "npm-package", text: include_str!("../../patterns/npm-package.yaml") },
    Builtin { name: "npm-project", text: include_str!("../../patterns/npm-project.yaml") },
    Builtin { name: "python-dist-info", text: include_str!("../../patterns/python-dist-info.yaml") },
    Builtin { name: "python-package", text: include_str!("../../patterns/python-package.yaml") },
    Builtin { name: "python-project", text: include_str!("../../patterns/python-project.yaml") },
    Builtin { name: "ros2-bag", text: include_str!("../../patterns/ros2-bag.yaml") },
    Builtin { name: "terraform-module", text: include_str!("../../patterns/terraform-module.yaml") },
    Builtin { name: "zarr-array", text: include_str!("../../patterns/zarr-array.yaml") },
];

/// The library's pattern called `name`.
pub fn find(name: &str) -> Option<&'static Builtin> {
    LIBRARY.binary_search_by(|builtin| builtin.name.cmp(name)).ok().map(|index| &LIBRARY[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn table_and_directory_hold_the_same_names_in_order() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("patterns");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .expect("patterns/ is part of the repository")
            .map(|entry| entry.expect("a readable entry").file_name().into_string().expect("a name in UTF-8"))
            .collect();
        files.sort_by(|a, b| a.trim_end_matches(".yaml").cmp(b.trim_end_matches(".yaml")));
        let table: Vec<String> = LIBRARY.iter().map(|builtin| format!("{}.yaml", builtin.name)).collect();
        assert_eq!(table, files);
    }

    #[test]
    fn every_file_names_its_source_itself_and_what_it_describes() {
        for Builtin { name, text } in LIBRARY {
            assert!(text.starts_with("# Source: "), "{name}: the first line names the source");
            let pattern: serde_json::Value = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(pattern["name"], *name);
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
            let description = pattern["description"].as_str().unwrap_or_else(|| panic!("{name}: no description"));
            assert!(!description.is_empty() && !description.contains('\n'), "{name}: one line of description");
        }
    }

    #[test]
    fn find_finds_all_and_no_others() {
        for builtin in LIBRARY {
            assert_eq!(find(builtin.name), Some(builtin));
        }
        assert_eq!(find("cargo"), None);
        assert_eq!(find(""), None);
    }
}
