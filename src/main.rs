//! The `plainfold` command: parses arguments, runs, and turns the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    plainfold::cli::main()
}
