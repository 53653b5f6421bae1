//! Object stores: S3, Google Cloud Storage, Azure Blob Storage and WebDAV, as trees.
//!
//! - [`snapshot`]: all objects below a prefix, as they were when they were listed last
//! - [`tree`]: directories and files as a snapshot has them

mod answers;
pub mod snapshot;
pub mod tree;

pub use tree::{Dir, ObjectSource, OpenObject, Ticket};
