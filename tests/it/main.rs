//! All integration tests, one binary.

mod announcing;
mod apps;
mod bed;
mod bombs;
mod check;
mod commands;
mod differential;
mod explaining;
mod faults;
mod following;
mod generate;
mod indexing;
mod life;
mod mirror;
mod mounts;
mod odd;
mod oracle;
mod pathvein;
mod readme;
mod real_trees;
mod serving;
mod trees;
mod updating;
mod walking;
