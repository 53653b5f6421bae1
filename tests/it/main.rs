//! All integration tests, one binary.

mod bombs;
mod mounts;
mod trees;
