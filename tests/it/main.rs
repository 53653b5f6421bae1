//! All integration tests, one binary.
mod mounts;
