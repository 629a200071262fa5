//! The `tributary` command as `node/src/main.rs` has it, under a name of its own: a build with ROS 2 must not take the other's place.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary::cli::main()
}
