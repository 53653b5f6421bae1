//! All integration tests, one binary.

mod trees;
