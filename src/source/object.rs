//! Object stores: S3, Google Cloud Storage, Azure Blob Storage and WebDAV, as trees.
//!
//! - [`location`]: URLs and options of stores, to values and back
//! - [`credentials`]: found as each cloud's own tools find them, and kept fresh
//! - [`connect`]: a location, options and environment → a store to read and what listing it needs
//! - [`snapshot`]: all objects below a prefix, as they were when they were listed last
//! - [`tree`]: directories and files as a snapshot has them

pub mod connect;
pub mod credentials;
pub mod location;
pub mod snapshot;
pub mod tree;

pub use tree::{Dir, ObjectSource, OpenObject};
