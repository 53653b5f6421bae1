//! The virtual tree.
pub mod layout;
pub mod matches;
pub mod name;
