//! All integration tests, one binary.

mod mounts;
mod trees;
