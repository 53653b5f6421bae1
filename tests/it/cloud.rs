//! Object stores, against servers of our own.

mod identity;
