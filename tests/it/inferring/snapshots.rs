//! What is printed for directories as people have them.

use super::*;

/// The YAML for examples and counter-examples, each a name and the lines of its tree.
#[track_caller]
fn inferred(ours: &[(&str, &[&str])], theirs: &[(&str, &[&str])]) -> String {
    let trees = |of: &[(&str, &[&str])]| -> Vec<Example> {
        of.iter().map(|(name, lines)| example(name, &Tree::from_lines(name, lines))).collect()
    };
    let found = infer(&trees(ours), &trees(theirs), &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    sound(&found);
    found.yaml()
}

#[test]
fn bids_subjects() {
    let found = inferred(
        &[
            (
                "sub-01",
                &[
                    "anat/sub-01_T1w.nii.gz",
                    "anat/sub-01_T1w.json",
                    "func/sub-01_task-rest_run-1_bold.nii.gz",
                    "func/sub-01_task-rest_run-1_bold.json",
                    "func/sub-01_task-rest_run-2_bold.nii.gz",
                    "func/sub-01_task-rest_run-2_bold.json",
                    "func/sub-01_task-rest_run-3_bold.nii.gz",
                    "func/sub-01_task-rest_run-3_bold.json",
                    "sub-01_scans.tsv",
                    ".DS_Store",
                ],
            ),
            (
                "sub-02",
                &[
                    "anat/sub-02_T1w.nii.gz",
                    "anat/sub-02_T1w.json",
                    "func/sub-02_task-rest_run-1_bold.nii.gz",
                    "func/sub-02_task-rest_run-1_bold.json",
                    "func/sub-02_task-rest_run-2_bold.nii.gz",
                    "func/sub-02_task-rest_run-2_bold.json",
                    "func/sub-02_task-rest_run-3_bold.nii.gz",
                    "func/sub-02_task-rest_run-3_bold.json",
                    "sub-02_scans.tsv",
                ],
            ),
            (
                "sub-05",
                &[
                    "anat/sub-05_T1w.nii.gz",
                    "anat/sub-05_T1w.json",
                    "func/sub-05_task-rest_run-1_bold.nii.gz",
                    "func/sub-05_task-rest_run-1_bold.json",
                    "func/sub-05_task-rest_run-2_bold.nii.gz",
                    "func/sub-05_task-rest_run-2_bold.json",
                    "func/sub-05_task-rest_run-3_bold.nii.gz",
                    "func/sub-05_task-rest_run-3_bold.json",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What sub-01, sub-02 and sub-05 have in common.
    name: sub
    directory_name: "sub-<sub>"
    captures:
      sub: "[0-9]{2}"                       # here 01, 02 and 05
    directories:
      - directory_name: anat                # in all 3 examples
        files:
          - "sub-<sub>_T1w.json"            # in all 3 examples
          - "sub-<sub>_T1w.nii.gz"          # in all 3 examples
      - directory_name: func                # in all 3 examples
        files:
          - {glob: "sub-<sub>_task-rest_run-[0-9]*_bold.json", min: 3}  # 3 in each of 3 examples
          - {glob: "sub-<sub>_task-rest_run-[0-9]*_bold.nii.gz", min: 3}  # 3 in each of 3 examples
    optional_files:
      - "sub-<sub>_scans.tsv"               # in 2 of 3 examples
    "#);
}

#[test]
fn bids_sessions() {
    let found = inferred(
        &[
            (
                "sub-a1",
                &[
                    "ses-pre/func/sub-a1_ses-pre_task-rest_bold.nii.gz",
                    "ses-post/func/sub-a1_ses-post_task-rest_bold.nii.gz",
                ],
            ),
            (
                "sub-b2",
                &[
                    "ses-pre/func/sub-b2_ses-pre_task-rest_bold.nii.gz",
                    "ses-pre/func/sub-b2_ses-pre_task-nback_bold.nii.gz",
                ],
            ),
            (
                "sub-c3",
                &[
                    "ses-pre/func/sub-c3_ses-pre_task-rest_bold.nii.gz",
                    "ses-pre/func/sub-c3_ses-pre_task-nback_bold.nii.gz",
                    "ses-post/func/sub-c3_ses-post_task-rest_bold.nii.gz",
                    "ses-post/func/sub-c3_ses-post_task-nback_bold.nii.gz",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What sub-a1, sub-b2 and sub-c3 have in common.
    name: sub
    directory_name: "sub-<sub>"
    captures:
      sub: "[A-Za-z0-9]+"                                     # here a1, b2 and c3
    directories:
      - directory_name: "ses-<ses>"                           # 1 to 2 in each of 3 examples
        captures:
          ses: "post|pre"                                     # here post and pre
        directories:
          - directory_name: func                              # in all 5
            files:
              - "sub-<sub>_ses-<ses>_task-rest_bold.nii.gz"   # in all 5
            optional_files:
              - "sub-<sub>_ses-<ses>_task-nback_bold.nii.gz"  # in 3 of 5
    "#);
}

#[test]
fn experiment_runs() {
    let found = inferred(
        &[
            (
                "run_20240311_a",
                &[
                    "config.yaml",
                    "data.csv",
                    "raw/sample-0.csv",
                    "raw/sample-1.csv",
                    "raw/sample-2.csv",
                    "raw/sample-3.csv",
                    "notes.md",
                ],
            ),
            (
                "run_20240312_b",
                &[
                    "config.yaml",
                    "data.csv",
                    "raw/sample-0.csv",
                    "raw/sample-1.csv",
                    "raw/sample-2.csv",
                    "raw/sample-3.csv",
                    "raw/sample-4.csv",
                    "raw/sample-5.csv",
                    "raw/sample-6.csv",
                    "notes.md",
                    "notes.md~",
                ],
            ),
            (
                "run_20250114_a",
                &[
                    "config.yaml",
                    "data.csv",
                    "raw/sample-0.csv",
                    "raw/sample-1.csv",
                    "raw/sample-2.csv",
                    "raw/sample-3.csv",
                    "raw/sample-4.csv",
                    "core.1234",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What run_20240311_a, run_20240312_b and run_20250114_a have in common.
    name: run
    directory_name: "run_<run>_*"
    captures:
      run: "[0-9]{8}"                            # here 20240311, 20240312 and 20250114
    files:
      - config.yaml                              # in all 3 examples
      - data.csv                                 # in all 3 examples
    directories:
      - directory_name: raw                      # in all 3 examples
        files:
          - {glob: "sample-[0-9]*.csv", min: 2}  # 4 to 7 in each of 3 examples
    optional_files:
      - notes.md                                 # in 2 of 3 examples
    "#);
}

#[test]
fn failed_runs_are_told_apart() {
    let found = inferred(
        &[("run_1", &["config.yaml", "data.csv", "log.txt"]), ("run_2", &["config.yaml", "data.csv"])],
        &[("run_3", &["config.yaml", "data.csv", "FAILED"]), ("run_4", &["config.yaml"])],
    );
    insta::assert_snapshot!(found, @r#"
    # What run_1 and run_2 have in common.
    # Does not match run_3 and run_4.
    name: run
    directory_name: "run_[0-9]*"
    files:
      - config.yaml                         # in both examples
      - data.csv                            # in both examples
    forbidden_files:
      - FAILED                              # in a counter-example, and in no example
    "#);
}

#[test]
fn empty_files_are_told_apart() {
    let found = inferred(
        &[("r1", &["data.csv=1,2", "config.yaml=a"]), ("r2", &["data.csv=1", "config.yaml=b"])],
        &[("r3", &["data.csv", "config.yaml=c"])],
    );
    insta::assert_snapshot!(found, @r#"
    # What r1 and r2 have in common.
    # Does not match r3.
    name: inferred
    directory_name: "r[0-9]*"
    files:
      - config.yaml                         # in both examples
      - {glob: "data.csv", size: ">0"}      # 1 to 3 bytes in the examples
    "#);
}

#[test]
fn lines_are_told_apart() {
    let found = inferred(
        &[
            ("r1", &["run.json={\n  \"status\": \"done\",\n  \"id\": 1\n}"]),
            ("r2", &["run.json={\n  \"status\": \"done\",\n  \"id\": 2\n}"]),
        ],
        &[("r3", &["run.json={\n  \"status\": \"died\",\n  \"id\": 3\n}"])],
    );
    insta::assert_snapshot!(found, @r#"
    # What r1 and r2 have in common.
    # Does not match r3.
    name: inferred
    directory_name: "r[0-9]*"
    files:
      - {glob: "run.json", contains: "\"status\": \"done\","}  # in each example
    "#);
}

#[test]
fn ome_zarr() {
    let found = inferred(
        &[
            (
                "embryo.ome.zarr",
                &[
                    "zarr.json",
                    "0/zarr.json",
                    "1/zarr.json",
                    "2/zarr.json",
                    "0/c/0/0/0",
                    "0/c/0/0/1",
                    "0/c/0/0/2",
                    "0/c/0/0/3",
                    "1/c/0/0/0",
                    "1/c/0/0/1",
                    "1/c/0/0/2",
                    "1/c/0/0/3",
                    "2/c/0/0/0",
                    "2/c/0/0/1",
                    "2/c/0/0/2",
                    "2/c/0/0/3",
                ],
            ),
            (
                "brain_2.ome.zarr",
                &[
                    "zarr.json",
                    "0/zarr.json",
                    "1/zarr.json",
                    "2/zarr.json",
                    "3/zarr.json",
                    "4/zarr.json",
                    "0/c/0/0/0",
                    "0/c/0/0/1",
                    "0/c/0/0/2",
                    "0/c/0/0/3",
                    "1/c/0/0/0",
                    "1/c/0/0/1",
                    "1/c/0/0/2",
                    "1/c/0/0/3",
                    "2/c/0/0/0",
                    "2/c/0/0/1",
                    "2/c/0/0/2",
                    "2/c/0/0/3",
                    "3/c/0/0/0",
                    "3/c/0/0/1",
                    "3/c/0/0/2",
                    "3/c/0/0/3",
                    "4/c/0/0/0",
                    "4/c/0/0/1",
                    "4/c/0/0/2",
                    "4/c/0/0/3",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What embryo.ome.zarr and brain_2.ome.zarr have in common.
    name: ome.zarr
    directory_name: "*.ome.zarr"
    files:
      - zarr.json                           # in both examples
    directories:
      - directory_name: "[0-9]*"            # 3 to 5 in each of 2 examples
        files:
          - zarr.json                       # in all 8
        directories:
          - directory_name: c               # in all 8
            directories:
              - directory_name: "0"         # in all 8
                directories:
                  - directory_name: "0"     # in all 8
    "#);
}

#[test]
fn yolo() {
    let found = inferred(
        &[
            (
                "coco128",
                &[
                    "data.yaml",
                    "LICENSE",
                    "images/train/000000000097.jpg",
                    "images/train/000000000194.jpg",
                    "images/train/000000000291.jpg",
                    "images/train/000000000388.jpg",
                    "images/train/000000000485.jpg",
                    "images/val/000000000097.jpg",
                    "images/val/000000000194.jpg",
                    "images/val/000000000291.jpg",
                    "images/val/000000000388.jpg",
                    "images/val/000000000485.jpg",
                    "labels/train/000000000097.txt",
                    "labels/train/000000000194.txt",
                    "labels/train/000000000291.txt",
                    "labels/train/000000000388.txt",
                    "labels/train/000000000485.txt",
                    "labels/val/000000000097.txt",
                    "labels/val/000000000194.txt",
                    "labels/val/000000000291.txt",
                    "labels/val/000000000388.txt",
                    "labels/val/000000000485.txt",
                ],
            ),
            (
                "birds",
                &[
                    "data.yaml",
                    "README.md",
                    "labels/train.cache",
                    "images/train/b_1.jpg",
                    "images/train/b_2.jpg",
                    "images/train/b_3.jpg",
                    "images/train/b_4.jpg",
                    "images/train/b_5.jpg",
                    "images/train/b_6.jpg",
                    "images/train/b_7.jpg",
                    "images/train/b_8.jpg",
                    "images/val/b_1.jpg",
                    "images/val/b_2.jpg",
                    "images/val/b_3.jpg",
                    "images/val/b_4.jpg",
                    "images/val/b_5.jpg",
                    "images/val/b_6.jpg",
                    "images/val/b_7.jpg",
                    "images/val/b_8.jpg",
                    "labels/train/b_1.txt",
                    "labels/train/b_2.txt",
                    "labels/train/b_3.txt",
                    "labels/train/b_4.txt",
                    "labels/train/b_5.txt",
                    "labels/train/b_6.txt",
                    "labels/train/b_7.txt",
                    "labels/train/b_8.txt",
                    "labels/val/b_1.txt",
                    "labels/val/b_2.txt",
                    "labels/val/b_3.txt",
                    "labels/val/b_4.txt",
                    "labels/val/b_5.txt",
                    "labels/val/b_6.txt",
                    "labels/val/b_7.txt",
                    "labels/val/b_8.txt",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What coco128 and birds have in common.
    name: inferred
    files:
      - data.yaml                           # in both examples
    directories:
      - directory_name: images              # in both examples
        directories:
          - directory_name: train           # in both examples
            files:
              - {glob: "*.jpg", min: 2}     # 5 to 8 in each of 2 examples
          - directory_name: val             # in both examples
            files:
              - {glob: "*.jpg", min: 2}     # 5 to 8 in each of 2 examples
      - directory_name: labels              # in both examples
        directories:
          - directory_name: train           # in both examples
            files:
              - {glob: "*.txt", min: 2}     # 5 to 8 in each of 2 examples
          - directory_name: val             # in both examples
            files:
              - {glob: "*.txt", min: 2}     # 5 to 8 in each of 2 examples
    "#);
}

#[test]
fn python_packages() {
    let found = inferred(
        &[
            ("yaml", &["__init__.py", "loader.py", "reader.py", "cyaml.py", "__pycache__/x.pyc"]),
            ("idna", &["__init__.py", "core.py", "codec.py", "py.typed", "package_data.py"]),
            ("attr", &["__init__.py", "_make.py", "py.typed", "_cmp.py", "_cmp.pyi"]),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What yaml, idna and attr have in common.
    name: inferred
    files:
      - "__init__.py"                       # in all 3 examples
    optional_files:
      - "*.py"                              # 1 to 3 in each of 3 examples
      - py.typed                            # in 2 of 3 examples
    "#);
}

#[test]
fn dist_info() {
    let found = inferred(
        &[
            ("PyYAML-6.0.dist-info", &["METADATA", "RECORD", "WHEEL", "LICENSE", "top_level.txt"]),
            ("blinker-1.5.dist-info", &["METADATA", "RECORD", "WHEEL", "top_level.txt"]),
            (
                "pip-23.0.1.dist-info",
                &["METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "INSTALLER"],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What PyYAML-6.0.dist-info, blinker-1.5.dist-info and 1 more have in common.
    name: dist-info
    directory_name: "*-[0-9]*.*.dist-info"
    files:
      - METADATA                            # in all 3 examples
      - RECORD                              # in all 3 examples
      - WHEEL                               # in all 3 examples
      - top_level.txt                       # in all 3 examples
    "#);
}

#[test]
fn crates() {
    let found = inferred(
        &[
            (
                "serde_json-1.0.1",
                &[
                    "Cargo.toml",
                    "Cargo.toml.orig",
                    "README.md",
                    "src/lib.rs",
                    "LICENSE-MIT",
                    "build.rs",
                    "src/de.rs",
                    "tests/test.rs",
                ],
            ),
            (
                "libc-0.2.177",
                &[
                    "Cargo.toml",
                    "Cargo.toml.orig",
                    "README.md",
                    "src/lib.rs",
                    "LICENSE-MIT",
                    "build.rs",
                    "src/macros.rs",
                    "rustfmt.toml",
                ],
            ),
            (
                "anyhow-1.0.99",
                &[
                    "Cargo.toml",
                    "Cargo.toml.orig",
                    "README.md",
                    "src/lib.rs",
                    "LICENSE-MIT",
                    "src/error.rs",
                    "tests/test_fmt.rs",
                    "rust-toolchain.toml",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What serde_json-1.0.1, libc-0.2.177 and anyhow-1.0.99 have in common.
    name: inferred
    directory_name: "*-[0-9]*.[0-9]*.[0-9]*"
    files:
      - Cargo.toml                          # in all 3 examples
      - Cargo.toml.orig                     # in all 3 examples
      - LICENSE-MIT                         # in all 3 examples
      - README.md                           # in all 3 examples
    directories:
      - directory_name: src                 # in all 3 examples
        files:
          - lib.rs                          # in all 3 examples
        optional_files:
          - "*.rs"                          # in all 3 examples
    optional_files:
      - build.rs                            # in 2 of 3 examples
    optional_directories:
      - directory_name: tests               # in 2 of 3 examples
        files:
          - "test*.rs"                      # in both
    "#);
}

#[test]
fn photo_albums() {
    let found = inferred(
        &[
            (
                "2023-07-01 Lake",
                &[
                    "IMG_1001.JPG",
                    "IMG_1002.JPG",
                    "IMG_1003.JPG",
                    "IMG_1004.JPG",
                    "IMG_1005.JPG",
                    "IMG_1006.JPG",
                    "IMG_1007.JPG",
                    "IMG_1008.JPG",
                    "Thumbs.db",
                ],
            ),
            (
                "2023-08-15 Wedding Anna",
                &[
                    "IMG_0033.JPG",
                    "IMG_0034.JPG",
                    "IMG_0035.JPG",
                    "IMG_0036.JPG",
                    "IMG_0037.JPG",
                    "IMG_0038.JPG",
                    "IMG_0039.JPG",
                    "MVI_0044.MOV",
                    ".picasa.ini",
                ],
            ),
            ("2024-01-01 New Year", &["IMG_0007.JPG", "IMG_0008.JPG", "MVI_0001.MOV", ".picasa.ini"]),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What 2023-07-01 Lake, 2023-08-15 Wedding Anna and 2024-01-01 New Year have in common.
    name: inferred
    directory_name: "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] *"
    files:
      - {glob: "IMG_[0-9][0-9][0-9][0-9].JPG", min: 2}  # 2 to 8 in each of 3 examples
    optional_files:
      - ".picasa.ini"                                   # in 2 of 3 examples
      - "MVI_[0-9][0-9][0-9][0-9].MOV"                  # in 2 of 3 examples
    "#);
}

#[test]
fn names_in_step_with_the_directory() {
    let found = inferred(
        &[
            ("2024-03-01_mouse12", &["2024-03-01_mouse12_data.bin", "2024-03-01_mouse12_meta.json"]),
            ("2024-03-09_mouse7", &["2024-03-09_mouse7_data.bin", "2024-03-09_mouse7_meta.json"]),
            ("2024-03-11_mouse3", &["2024-03-11_mouse3_data.bin", "2024-03-11_mouse3_meta.json"]),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What 2024-03-01_mouse12, 2024-03-09_mouse7 and 2024-03-11_mouse3 have in common.
    name: mouse
    directory_name: "<name>"
    captures:
      name: "2024-03-[0-9]{2}_mouse[0-9]+"  # here 2024-03-01_mouse12, 2024-03-09_mouse7 and 2024-03-11_mouse3
    files:
      - "<name>_data.bin"                   # in all 3 examples
      - "<name>_meta.json"                  # in all 3 examples
    "#);
}

#[test]
fn names_in_step_with_each_other() {
    let found = inferred(
        &[("left", &["scan7.img", "scan7.hdr", "readme"]), ("right", &["scan19.img", "scan19.hdr", "readme"])],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What left and right have in common.
    name: inferred
    captures:
      scan: "[0-9]+"                        # here 19 and 7
    files:
      - readme                              # in both examples
      - "scan<scan>.hdr"                    # in both examples
      - "scan<scan>.img"                    # in both examples
    "#);
}

#[test]
fn mlflow_runs() {
    let found = inferred(
        &[
            (
                "26ab0db90d72e28ad0ba1e22ee510510",
                &["meta.yaml", "metrics/loss", "metrics/acc", "params/lr", "tags/mlflow.user", "artifacts/model.pkl"],
            ),
            (
                "6d7fce9fee471194aa8b5b6e47267f03",
                &[
                    "meta.yaml",
                    "metrics/loss",
                    "metrics/acc",
                    "params/lr",
                    "tags/mlflow.user",
                    "artifacts/model.pkl",
                    "params/momentum",
                ],
            ),
            (
                "b026324c6904b2a9cb4b88d6d61c81d1",
                &[
                    "meta.yaml",
                    "metrics/loss",
                    "metrics/acc",
                    "params/lr",
                    "tags/mlflow.user",
                    "artifacts/model.pkl",
                    "params/momentum",
                ],
            ),
        ],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What 26ab0db90d72e28ad0ba1e22ee510510 and 2 more have in common.
    name: inferred
    directory_name: "<id>"
    captures:
      id: "[0-9a-f]{32}"                    # here 26ab0db90d72e28ad0ba1e22ee510510 and 2 more
    files:
      - meta.yaml                           # in all 3 examples
    directories:
      - directory_name: artifacts           # in all 3 examples
        files:
          - model.pkl                       # in all 3 examples
      - directory_name: metrics             # in all 3 examples
        files:
          - acc                             # in all 3 examples
          - loss                            # in all 3 examples
      - directory_name: params              # in all 3 examples
        files:
          - lr                              # in all 3 examples
        optional_files:
          - momentum                        # in 2 of 3 examples
      - directory_name: tags                # in all 3 examples
        files:
          - mlflow.user                     # in all 3 examples
    "#);
}

#[test]
fn one_example() {
    let found = inferred(
        &[("sub-07", &["sub-07_T1w.nii.gz", "sub-07_run-1.csv", "sub-07_run-2.csv", "sub-07_run-3.csv", "README"])],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What sub-07 looks like.
    name: sub
    directory_name: "sub-<sub>"
    captures:
      sub: "[0-9]{2}"                               # here 07
    files:
      - README                                      # in the example
      - "sub-<sub>_T1w.nii.gz"                      # in the example
      - {glob: "sub-<sub>_run-[0-9]*.csv", min: 2}  # 3 in the example
    "#);
}

#[test]
fn nothing_in_common() {
    let found = inferred(&[("a", &["x.csv"]), ("b", &["y/z.txt"]), ("c", &[])], &[]);
    insta::assert_snapshot!(found, @r#"
    # What a, b and c have in common.
    name: inferred
    any_of:
      # as a
      - files:
          - x.csv                           # in the example
      # as b
      - directories:
          - directory_name: "y"             # in the example
      # as c
      - forbidden_files:
          - "*"                             # no files
        forbidden_directories:
          - {}                              # no directories
    "#);
}

#[test]
fn nameless_directories() {
    let found = inferred(
        &[("2023", &["Lake/IMG_1.jpg", "Lake/IMG_2.jpg", "Wedding/IMG_7.jpg"]), ("2024", &["Zoo/IMG_4.jpg"])],
        &[],
    );
    insta::assert_snapshot!(found, @r#"
    # What 2023 and 2024 have in common.
    name: inferred
    directory_name: "[0-9][0-9][0-9][0-9]"
    directories:
      # any name; 1 to 2 in each of 2 examples
      - files:
          - "IMG_[0-9]*.jpg"                # 1 to 2 in each of 3
    "#);
}

#[test]
fn examples_without_anything_in_common_are_told_apart_each_by_itself() {
    let found = inferred(&[("latin", &[]), ("a", &["a/"])], &[("a", &[])]);
    insta::assert_snapshot!(found, @r#"
    # What latin and a have in common.
    # Does not match a.
    name: inferred
    any_of:
      - directory_name: latin               # as latin
        forbidden_files:
          - "*"                             # no files
        forbidden_directories:
          - {}                              # no directories
      # as a
      - directories:
          - directory_name: a               # in the example
    "#);
}
