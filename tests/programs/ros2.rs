//! The `tributary` command with ROS 2, as the tests start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary::cli::main()
}
