//! veinfs finds directory structures by declarative patterns and mounts them as folders.
pub mod automaton;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod entry;
pub mod expand;
pub mod listing;
pub mod matcher;
pub mod mounts;
pub mod pattern;
pub mod reader;
pub mod scan;
pub mod signals;
pub mod source;
pub mod view;
pub mod walk;
