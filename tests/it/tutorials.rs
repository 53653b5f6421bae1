//! The tutorials and the pages on standing mounts and object stores do what they show.

use crate::objects::testing::{Bucket, Server};
use crate::pages::Place;

/// A bucket for a page, at `lab-runs/2026`, and where it is.
fn bucket(place: &mut Place) -> Server {
    let bucket = Bucket::default();
    for (run, raw) in [("copper", &["1", "2"][..]), ("zinc", &["1"]), ("tin", &[])] {
        bucket.put(format!("2026/{run}/data.csv"), "time_s,value\n0,1.0000\n");
        raw.iter().for_each(|n| bucket.put(format!("2026/{run}/raw/{n}.csv"), ""));
    }
    bucket.put("2026/README.txt", "What is here");
    bucket.put("2026/tin/notes.txt", "lost");
    let server = bucket.serve();
    place.env = vec![
        ("AWS_ENDPOINT_URL", server.url()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "an example's".to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
    ];
    server
}

#[test]
fn the_tutorial_on_runs() {
    assert!(Place::new().take_page("docs/tutorial-runs.md") > 0, "no command was run");
}

#[test]
fn the_tutorial_on_data_sets() {
    assert!(Place::new().take_page("docs/tutorial-data-sets.md") > 0, "no command was run");
}

#[test]
fn the_tutorial_on_buckets() {
    let mut place = Place::new();
    let _server = bucket(&mut place);
    assert!(place.take_page("docs/tutorial-bucket.md") > 0, "no command was run");
}

#[test]
fn the_page_on_object_stores() {
    let mut place = Place::new();
    let _server = bucket(&mut place);
    place.file("data/nas/iron/data.csv", "");
    place.take_page("docs/object-stores.md");
}

#[test]
fn the_page_on_standing_mounts() {
    let mut place = Place::new();
    let _server = bucket(&mut place);
    for path in ["data/runs/a/data.csv", "mnt/nas/runs/b/data.csv"] {
        place.file(path, "");
    }
    assert!(place.take_page("docs/operations.md") > 0, "no command was run");
}
