//! The `veinfs` command; see the library for how it works.

use std::process::ExitCode;

fn main() -> ExitCode {
    veinfs::cli::main()
}
