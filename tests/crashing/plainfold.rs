//! Plainfold as it is, with the hooks of `src/trial` at work. The tests of crashes build and run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let _scenario = fail::FailScenario::setup();
    plainfold::cli::main()
}
