//! All integration tests, one binary.

mod bombs;
mod check;
mod generate;
mod mounts;
mod oracle;
mod readme;
mod trees;
