//! Object stores: S3, Google Cloud Storage, Azure Blob Storage and WebDAV, as trees.
//!
//! From the outside in:
//! - [`location`], [`credentials`], [`connect`]: where a bucket is, and who signs for it, found as the clouds' own tools do
//! - [`client`], [`fault`], [`count`]: requests, what goes wrong with them, how many there are
//! - `list`, [`keys`]: listing all objects, and which of them can be shown
//! - [`snapshot`]: all objects below a prefix, as they were when they were listed last
//! - [`read`], [`cache`]: the bytes of objects, ahead of those who read them, and on disk
//! - [`remote`]: all of that for one bucket
//! - [`tree`]: directories and files as a snapshot has them

mod answers;
pub mod cache;
pub mod client;
pub mod connect;
pub mod count;
pub mod credentials;
pub mod fault;
pub mod keys;
mod list;
pub mod location;
pub mod read;
pub mod remote;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod tree;

pub use tree::{Dir, ObjectSource, OpenObject, Ticket};
