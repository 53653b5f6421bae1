//! The virtual tree.
pub mod layout;
pub mod name;
pub mod matches;
