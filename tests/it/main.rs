//! All integration tests, one binary.

mod bombs;
mod check;
mod differential;
mod faults;
mod generate;
mod mounts;
mod oracle;
mod pathvein;
mod readme;
mod real_trees;
mod serving;
mod trees;
mod walking;
