//! The `tributary` command; everything is in [`tributary::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary::cli::main()
}
