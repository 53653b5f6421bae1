//! The built-in library: the pattern files of `patterns/`, compiled in.
//!
//! Each file holds one pattern whose name is the file's stem. Its leading comment says where the structure is defined,
//! in words and as an address, and its description is one line. `tests/data/library` has trees that it matches and
//! trees that it all but matches; how many matches there are in the listings of `tests/data` stands in the README there.

use super::Pattern;
use super::load::{Format, load_text};

/// One pattern file of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// The pattern's name and the file's stem, in kebab case.
    pub name: &'static str,
    /// What it belongs to, one of [`FIELDS`].
    pub field: &'static str,
    /// The file's text, YAML.
    pub text: &'static str,
}

/// What patterns belong to, in the order in which people are shown it.
pub const FIELDS: &[&str] = &[
    "neuroimaging",
    "microscopy and arrays",
    "medical imaging",
    "sequencing",
    "mass spectrometry",
    "laboratory",
    "machine learning",
    "robotics",
    "tables",
    "software",
    "media",
    "mail and applications",
];

macro_rules! builtin {
    ($name:literal, $field:literal) => {
        Builtin { name: $name, field: $field, text: include_str!(concat!("../../patterns/", $name, ".yaml")) }
    };
}

/// All files of the library, sorted by name.
pub static LIBRARY: &[Builtin] = &[
    builtin!("10x-matrix", "sequencing"),
    builtin!("agilent-d", "mass spectrometry"),
    builtin!("ansible-project", "software"),
    builtin!("ansible-role", "software"),
    builtin!("apple-photos-library", "media"),
    builtin!("bids-bold-run", "neuroimaging"),
    builtin!("bids-dataset", "neuroimaging"),
    builtin!("bids-subject", "neuroimaging"),
    builtin!("bluray-video", "media"),
    builtin!("bruker-d", "mass spectrometry"),
    builtin!("camera-card", "media"),
    builtin!("cargo-crate", "software"),
    builtin!("cellranger-outs", "sequencing"),
    builtin!("cmake-project", "software"),
    builtin!("coco-dataset", "machine learning"),
    builtin!("ctf-ds", "neuroimaging"),
    builtin!("delta-table", "tables"),
    builtin!("dicom-media", "medical imaging"),
    builtin!("dicom-series", "medical imaging"),
    builtin!("dvd-video", "media"),
    builtin!("experiment", "laboratory"),
    builtin!("git-bare", "software"),
    builtin!("git-worktree", "software"),
    builtin!("go-module", "software"),
    builtin!("helm-chart", "software"),
    builtin!("hf-cache", "machine learning"),
    builtin!("hf-model", "machine learning"),
    builtin!("hive-table", "tables"),
    builtin!("home-assistant", "software"),
    builtin!("iceberg-table", "tables"),
    builtin!("illumina-run", "sequencing"),
    builtin!("kitti-drive", "robotics"),
    builtin!("kitti-object", "robotics"),
    builtin!("kitti-sequence", "robotics"),
    builtin!("kodi-movie", "media"),
    builtin!("lerobot-dataset", "machine learning"),
    builtin!("lightning-version", "machine learning"),
    builtin!("macos-app", "mail and applications"),
    builtin!("maildir", "mail and applications"),
    builtin!("maven-project", "software"),
    builtin!("mlflow-run", "machine learning"),
    builtin!("music-album", "media"),
    builtin!("nextflow-task", "sequencing"),
    builtin!("nf-core-module", "software"),
    builtin!("nf-core-pipeline", "software"),
    builtin!("npm-package", "software"),
    builtin!("npm-project", "software"),
    builtin!("nuscenes", "robotics"),
    builtin!("ome-zarr", "microscopy and arrays"),
    builtin!("photo-library", "media"),
    builtin!("python-dist-info", "software"),
    builtin!("python-package", "software"),
    builtin!("python-project", "software"),
    builtin!("ros2-bag", "robotics"),
    builtin!("safetensors-shards", "machine learning"),
    builtin!("spack-environment", "software"),
    builtin!("spack-package", "software"),
    builtin!("terraform-module", "software"),
    builtin!("waters-raw", "mass spectrometry"),
    builtin!("yolo-dataset", "machine learning"),
    builtin!("zarr-array", "microscopy and arrays"),
    builtin!("zarr-group", "microscopy and arrays"),
];

/// The library's pattern called `name`.
pub fn find(name: &str) -> Option<&'static Builtin> {
    LIBRARY.binary_search_by(|builtin| builtin.name.cmp(name)).ok().map(|index| &LIBRARY[index])
}

/// The patterns in which all of the words occur, whatever the case: in the name, the field, the description or the
/// source. Those in whose name and field they all are come first; each part is sorted by name.
pub fn search<S: AsRef<str>>(words: &[S]) -> Vec<&'static Builtin> {
    let words: Vec<String> = words.iter().map(|word| word.as_ref().to_lowercase()).collect();
    let all_in = |text: &str| {
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word))
    };
    let titled = |builtin: &Builtin| all_in(&format!("{} {}", builtin.name, builtin.field));
    let speaks = |builtin: &Builtin| {
        all_in(&format!("{} {} {} {}", builtin.name, builtin.field, builtin.description(), builtin.source()))
    };
    let (mut found, others): (Vec<&Builtin>, Vec<&Builtin>) = LIBRARY.iter().partition(|builtin| titled(builtin));
    found.extend(others.into_iter().filter(|builtin| speaks(builtin)));
    found
}

impl Builtin {
    /// The pattern that the file holds.
    pub fn pattern(&self) -> Pattern {
        let origin = format!("built-in {}", self.name);
        let loaded = load_text(self.text.as_bytes(), Format::Yaml, &origin, self.name);
        loaded.ok().and_then(|patterns| patterns.into_iter().next()).expect("a test loads each file of the library")
    }

    /// What the pattern is about, in one line.
    pub fn description(&self) -> String {
        self.pattern().description.unwrap_or_default()
    }

    /// Where the structure is defined, and what is to be known of it: the leading comment without the address.
    pub fn source(&self) -> String {
        let lines: Vec<&str> = self.comment().filter(|line| !line.starts_with("https://")).collect();
        let text = lines.join(" ");
        text.strip_prefix("Source: ").map(str::to_owned).unwrap_or(text)
    }

    /// The address of the specification or the software; none if veinfs itself is the source.
    pub fn url(&self) -> Option<&'static str> {
        self.comment().find(|line| line.starts_with("https://"))
    }

    /// The lines of the leading comment.
    fn comment(&self) -> impl Iterator<Item = &'static str> {
        self.text.lines().map_while(|line| line.strip_prefix("# "))
    }
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
        assert!(table.len() >= 50, "{}", table.len());
    }

    #[test]
    fn every_file_names_its_source_itself_and_what_it_describes() {
        for builtin in LIBRARY {
            let Builtin { name, field, text } = builtin;
            assert!(text.starts_with("# Source: "), "{name}: the first line names the source");
            assert!(builtin.source().len() > 20 && !builtin.source().contains('#'), "{name}: {}", builtin.source());
            let address = builtin.url().map_or_else(|| *name == "experiment", |url| !url.contains(' '));
            assert!(address, "{name}: a line of the leading comment is the source's address");
            let pattern: serde_json::Value = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(pattern["name"], *name);
            assert_eq!(builtin.pattern().name, *name);
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
            assert!(FIELDS.contains(field), "{name}: {field}");
            let description = pattern["description"].as_str().unwrap_or_else(|| panic!("{name}: no description"));
            assert!(!description.is_empty() && !description.contains('\n'), "{name}: one line of description");
            assert!(description.chars().count() <= 90, "{name}: {description}");
        }
        for field in FIELDS {
            assert!(LIBRARY.iter().any(|builtin| builtin.field == *field), "no pattern in {field}");
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

    #[test]
    fn search_looks_at_names_and_fields_first_and_wants_all_words() {
        let names = |words: &[&str]| -> Vec<&str> { search(words).iter().map(|builtin| builtin.name).collect() };
        assert_eq!(names(&["CARGO"]), ["cargo-crate"]);
        assert!(names(&["tables"]).starts_with(&["delta-table", "hive-table", "iceberg-table"]));
        assert!(names(&["tables"])[3..].contains(&"nuscenes"), "its description speaks of tables");
        assert_eq!(names(&["git"]).first(), Some(&"git-bare"));
        assert_eq!(names(&["cargo", "no such word"]), [""; 0]);
        assert_eq!(names(&["proteowizard", "bruker"]), ["bruker-d"]);
        assert_eq!(names(&["kitti", "odometry"]), ["kitti-sequence"]);
    }
}
