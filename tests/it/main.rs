//! All integration tests, one binary.

mod bombs;
mod check;
mod mounts;
mod trees;
