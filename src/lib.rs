//! veinfs finds directory structures by declarative patterns and mounts them as folders.
pub mod daemon;
pub mod entry;
pub mod mounts;
pub mod pattern;
pub mod signals;
