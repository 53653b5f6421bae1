//! `veinfs explain` as a user meets it, and `.veinfs/near`.

use serde_json::Value;

use crate::bed::{TestBed, can_mount, ndjson};

fn laboratory() -> TestBed {
    TestBed::new(&[
        "good/config.yaml=",
        "good/data.csv=",
        "good/raw/1.csv=",
        "misspelt/config.yml=",
        "misspelt/data.csv=",
        "misspelt/raw/1.csv=",
        "bare/config.yaml=",
        "bare/Data.csv=",
        "other/notes.txt=",
    ])
}

fn path(bed: &TestBed, name: &str) -> String {
    bed.src.join(name).to_str().expect("a temporary path is text").to_owned()
}

#[test]
fn exit_codes_say_how_it_stands() {
    let bed = laboratory();
    let (good, misspelt) = (path(&bed, "good"), path(&bed, "misspelt"));
    let said = bed.veinfs(["explain", &good, "-p", "experiment"]).ok();
    assert!(said.text().starts_with(&format!("{good} matches experiment\n")), "{}", said.text());
    let said = bed.veinfs(["explain", &good, &misspelt, "-p", "experiment"]).code(1);
    assert!(said.text().ends_with("(no shorter list does)\n  rename config.yml to config.yaml\n"), "{}", said.text());
    bed.veinfs(["explain", &path(&bed, "absent"), "-p", "experiment"]).code(2).says("there is no such directory");
    bed.veinfs(["explain", &good]).code(2);
    bed.veinfs(["explain", &good, "--source", &misspelt, "-p", "experiment"]).code(2).says("it is not in ");
}

#[test]
fn a_source_around_it_counts_for_what_is_above() {
    let bed = TestBed::new(&["trash/run/data.csv="]);
    let pattern = bed.file("run.yaml", "forbidden_ancestors: [trash]\nfiles: [data.csv]\n");
    let run = path(&bed, "trash/run");
    bed.veinfs(["explain", &run, "-p", &pattern]).ok();
    let said = bed.veinfs(["explain", &run, "--source", &path(&bed, ""), "-p", &pattern]).code(1);
    assert!(said.text().contains("✗ forbidden_ancestors: trash\n"), "{}", said.text());
}

#[test]
fn json_has_the_documented_shape() {
    let bed = laboratory();
    let objects = bed.veinfs(["explain", "--json", &path(&bed, "misspelt"), "-p", "experiment"]).code(1).ndjson();
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let whole =
        ["pattern", "source", "path", "relpath", "matches", "captures", "missing", "clauses", "changes", "shortest"];
    assert_eq!(keys(&objects[0]), whole);
    assert_eq!(objects[0]["matches"], false);
    let clause = &objects[0]["clauses"][1];
    assert_eq!(keys(clause), ["place", "key", "asks", "met", "count", "by", "near"]);
    assert_eq!((&clause["place"], &clause["met"]), (&"files[1]".into(), &"no".into()));
    assert_eq!(clause["near"], serde_json::json!({"path": "config.yml", "why": "spelling", "distance": 1}));
    let change = serde_json::json!([{"action": "rename", "path": "config.yml", "to": "config.yaml"}]);
    assert_eq!(objects[0]["changes"], change);
    assert_eq!(objects[0]["shortest"], true);
}

#[test]
fn the_nearest_misses_come_first_and_matches_never() {
    let bed = laboratory();
    let source = bed.src.to_str().expect("a temporary path is text");
    let said = bed.veinfs(["explain", "--nearest", source, "-p", "experiment"]).ok();
    let expected = format!(
        "{source}/misspelt: 1 change: rename config.yml to config.yaml\n\
         {source}/bare: 3 changes: rename Data.csv to data.csv; create directory raw/; create raw/data.csv\n"
    );
    assert_eq!(said.text(), expected);
    let said = bed.veinfs(["explain", "--nearest=1", source, "-p", "experiment"]).ok();
    assert_eq!(said.text().lines().count(), 1);
    let objects = bed.veinfs(["explain", "--nearest", "--json", source, "-p", "experiment"]).ok().ndjson();
    assert_eq!(objects[0]["missing"], serde_json::json!(["files: config.yaml"]));
    assert_eq!((&objects[0]["distance"], &objects[1]["distance"]), (&1.into(), &3.into()));
}

#[test]
fn a_pattern_of_one_file_has_near_misses_by_name() {
    let bed = TestBed::new(&["a/pom.xml=", "b/pon.xml=", "c/readme="]);
    let source = bed.src.to_str().expect("a temporary path is text");
    let said = bed.veinfs(["explain", "--nearest", source, "-p", "maven-project"]).ok();
    assert_eq!(said.text(), format!("{source}/b: 1 change: rename pon.xml to pom.xml\n"));
}

#[test]
fn a_mount_tells_of_near_misses_when_asked() {
    if !can_mount() {
        return;
    }
    let bed = laboratory();
    bed.mount(["-p", "experiment", "-p", "maven-project"]);
    let near = bed.mnt.join(".veinfs/near");
    assert_eq!(crate::bed::names(&near), ["experiment.ndjson", "maven-project.ndjson"]);
    let told = ndjson(&std::fs::read(near.join("experiment.ndjson")).expect("it can be read"));
    let source = bed.src.to_str().expect("a temporary path is text");
    let said = bed.veinfs(["explain", "--nearest=100", "--json", source, "-p", "experiment"]).ok().ndjson();
    assert_eq!(told, said);
    assert_eq!(told.len(), 2);
    // What has been cured since is no miss any more.
    std::fs::rename(bed.src.join("misspelt/config.yml"), bed.src.join("misspelt/config.yaml")).expect("a rename");
    let told = ndjson(&std::fs::read(near.join("experiment.ndjson")).expect("it can be read"));
    assert_eq!(told.len(), 1);
    assert!(std::fs::read(near.join("maven-project.ndjson")).expect("it can be read").is_empty());
}
