//! The `veinfs` command.
fn main() {}
