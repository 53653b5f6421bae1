//! All integration tests, one binary.

mod generate;
mod mounts;
mod oracle;
mod trees;
