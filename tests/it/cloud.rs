//! Object stores, against servers of our own.

mod connecting;
mod identity;
mod made_up;
