//! veinfs finds directory structures by declarative patterns and mounts them as folders.
pub mod entry;
pub mod pattern;
