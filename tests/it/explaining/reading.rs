//! How explanations read.

use veinfs::explain::clauses::Met;
use veinfs::explain::cure::cure;
use veinfs::explain::text::lines;
use veinfs::pattern::library;
use veinfs::pattern::load::{Format, load_text};

use super::{explained, question, read};
use crate::differential::Laid;
use crate::oracle::{Tree, split};

/// What is said of the directory at `path` of a tree by a built-in pattern, or one in YAML.
fn said(pattern: &str, path: &str, entries: &[&str]) -> String {
    let text = library::find(pattern).map_or(pattern, |builtin| builtin.text);
    let pattern = load_text(text.as_bytes(), Format::Yaml, "test", "pattern").expect("a pattern").remove(0);
    let tree = Tree::from_lines("lab", entries);
    let question = question(&pattern);
    let (dir, above) = read(&question, &Laid::new(&tree), &tree, &split(path.as_bytes()));
    let explanation = explained(&question, &dir, &above);
    let cure =
        (explanation.met == Met::No).then(|| cure(&pattern, &question.automaton, &dir, &above, 20_000)).flatten();
    let path = if path.is_empty() { "lab" } else { path };
    let lines = lines(&pattern.name, path.as_bytes(), &explanation, cure.as_ref());
    let text = lines.iter().map(|line| line.0.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>());
    text.map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
}

#[test]
fn a_match_says_who_met_what() {
    let said = said(
        "experiment",
        "run",
        &["run/config.yaml", "run/data.csv", "run/raw/1.csv", "run/raw/2.csv", "run/raw/3.csv", "run/raw/4.csv"],
    );
    insta::assert_snapshot!(said, @r#"
    run matches experiment
      ✓ files: data.csv
      ✓ files: config.yaml
      ✓ directories: raw/
    "#);
}

#[test]
fn a_file_misspelt_and_one_in_other_case() {
    let said = said("experiment", "run", &["run/config.yml", "run/Data.csv", "run/raw/1.csv"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✗ files: data.csv; in other case: Data.csv
      ✗ files: config.yaml; nearest: config.yml
      ✓ directories: raw/
    To make it match: 2 changes (no shorter list does)
      rename Data.csv to data.csv
      rename config.yml to config.yaml
    "#);
}

#[test]
fn the_right_name_one_level_too_deep() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data/data.csv", "run/raw/1.csv"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✗ files: data.csv; one level too deep: data/data.csv
      ✓ files: config.yaml
      ✓ directories: raw/
    To make it match: 1 change (no shorter list does)
      create data.csv
    "#);
}

#[test]
fn a_directory_of_another_name() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data.csv", "run/Raw/1.csv"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✓ files: data.csv
      ✓ files: config.yaml
      ✗ directories: raw/; in other case: Raw
    To make it match: 1 change (no shorter list does)
      rename Raw to raw
    "#);
}

#[test]
fn a_file_where_a_directory_is_asked() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data.csv", "run/raw"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✓ files: data.csv
      ✓ files: config.yaml
      ✗ directories: raw/; raw is there, but of another kind
    To make it match: 3 changes (the shortest list found)
      rename raw to x
      create directory raw/
      create raw/data.csv
    "#);
}

#[test]
fn a_directory_where_a_file_is_asked() {
    let said = said("experiment", "run", &["run/config.yaml/", "run/data.csv", "run/raw/1.csv"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✓ files: data.csv
      ✗ files: config.yaml; config.yaml is there, but of another kind
      ✓ directories: raw/
    To make it match: 2 changes (no shorter list does)
      rename config.yaml to x
      create config.yaml
    "#);
}

#[test]
fn a_link_that_leads_nowhere() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data.csv", "run/raw -> ../gone"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✓ files: data.csv
      ✓ files: config.yaml
      ✗ directories: raw/; raw is a link that leads nowhere
    To make it match: 3 changes (the shortest list found)
      rename raw to x
      create directory raw/
      create raw/data.csv
    "#);
}

#[test]
fn the_nearest_child_does_not_match() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data.csv", "run/raw/1.tsv", "run/raw/notes"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✓ files: data.csv
      ✓ files: config.yaml
      ✗ directories: raw/; nearest: raw/
        ✓ directory_name: raw
        ✗ files: *.csv; nearest: 1.tsv
    To make it match: 1 change (no shorter list does)
      create raw/data.csv
    "#);
}

#[test]
fn an_empty_directory() {
    let said = said("experiment", "run", &["run/"]);
    insta::assert_snapshot!(said, @r#"
    run does not match experiment
      ✗ files: data.csv
      ✗ files: config.yaml
      ✗ directories: raw/
    To make it match: 4 changes (no shorter list does)
      create data.csv
      create config.yaml
      create directory raw/
      create raw/data.csv
    "#);
}

#[test]
fn a_directory_that_cannot_be_read() {
    let said = said("experiment", "run", &["run/config.yaml", "run/data.csv", "run/raw!"]);
    insta::assert_snapshot!(said, @r#"
    run may match experiment; part of it cannot be read
      ✓ files: data.csv
      ✓ files: config.yaml
      ? directories: raw/; nearest: raw/: cannot be read: Permission denied
    What would make it match cannot be told.
    "#);
}

#[test]
fn a_data_set_without_its_description() {
    let said = said("bids-dataset", "", &["dataset_descripton.json", "sub-01/anat/", "README"]);
    insta::assert_snapshot!(said, @r#"
    lab does not match bids-dataset
      ✗ files: dataset_description.json; nearest: dataset_descripton.json
      ✓ directories: sub-*/: sub-01
      ✓ recommended_files: README{,.md,.rst,.txt}: README
      ✓ optional_files: *.{json,tsv,tsv.gz,bval,bvec}: dataset_descripton.json
    To make it match: 1 change (no shorter list does)
      rename dataset_descripton.json to dataset_description.json
    "#);
}

#[test]
fn an_array_of_neither_version() {
    let said = said("zarr-array", "", &[".zarry", "0.0"]);
    insta::assert_snapshot!(said, @r#"
    lab does not match zarr-array
      ✗ one of these
        ✗ alternative 1
          ✗ files: .zarray; nearest: .zarry
        ✗ alternative 2
          ✗ files: zarr.json (contains `"chunk_grid"`)
          ✓ forbidden_files: zarr.json (contains `"consolidated_metadata"`)
    To make it match: 1 change (no shorter list does)
      rename .zarry to .zarray
    "#);
}

#[test]
fn a_match_without_its_recommended_part() {
    let said = said("bids-dataset", "", &["dataset_description.json", "sub-01/anat/"]);
    insta::assert_snapshot!(said, @r#"
    lab matches bids-dataset
      ✓ files: dataset_description.json
      ✓ directories: sub-*/: sub-01
      – recommended_files: README{,.md,.rst,.txt}
      ✓ optional_files: *.{json,tsv,tsv.gz,bval,bvec}: dataset_description.json
    "#);
}

#[test]
fn counts_sizes_and_contents() {
    let said = said(
        "name: runs\nfiles: [{glob: '*.csv', min: 3}, {glob: info.txt, contains: done}, {glob: data.bin, size: '>=4KiB'}]\nforbidden_files: [FAILED]\n",
        "",
        &["a.csv", "b.csv", "info.txt=begun", "data.bin=x", "FAILED"],
    );
    insta::assert_snapshot!(said, @r#"
    lab does not match runs
      ✗ files: *.csv (at least 3): a.csv, b.csv; 2 there
      ✗ files: info.txt (contains `done`); info.txt is there, but not as asked: not so that it contains `done`
      ✗ files: data.bin (size >=4096); data.bin is there, but not as asked: it has 1 bytes
      ✗ forbidden_files: FAILED
    To make it match: 3 changes (no shorter list does)
      change data.bin (size >=4096)
      change info.txt (contains `done`)
      rename FAILED to x.csv
    "#);
}

#[test]
fn values_that_do_not_agree() {
    let said = said(
        "name: subject\ncaptures: {s: '[0-9]+'}\ndirectory_name: 'sub-<s>'\nfiles: ['sub-<s>_bold.nii']\n",
        "sub-01",
        &["sub-01/sub-02_bold.nii"],
    );
    insta::assert_snapshot!(said, @r#"
    sub-01 does not match subject
      ✓ directory_name: sub-<s>
      ✓ files: sub-<s>_bold.nii: sub-02_bold.nii
      ✗ values that agree; <s> is 01 by directory_name, and 02 by files[0]
    To make it match: 1 change (no shorter list does)
      rename sub-02_bold.nii to sub-01_bold.nii
    "#);
}

#[test]
fn a_forbidden_place() {
    let said =
        said("name: run\nforbidden_ancestors: [trash]\nfiles: [data.csv]\n", "trash/run", &["trash/run/data.csv"]);
    insta::assert_snapshot!(said, @r#"
    trash/run does not match run
      ✗ forbidden_ancestors: trash
      ✓ files: data.csv
    No changes in it were found that would make it match.
    "#);
}
