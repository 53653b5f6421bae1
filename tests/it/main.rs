//! All integration tests, one binary.
mod generate;
mod oracle;
