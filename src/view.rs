//! The virtual tree.
pub mod layout;
pub mod name;
