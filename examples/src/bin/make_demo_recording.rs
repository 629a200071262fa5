//! Writes the demo recording: twenty seconds of a small made-up robot, as ROS 2 would have recorded it.
//!
//! ```text
//! cargo run -p tributary-examples --bin make_demo_recording -- examples/recordings/robot.mcap
//! ```
//!
//! The same bytes come out every time.

use std::{env, fs, process::ExitCode};

use tributary_examples::demo_recording;

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this is a command")]
fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: make_demo_recording OUTPUT.mcap");
        return ExitCode::from(2);
    };
    let result = demo_recording::generate().and_then(|bytes| Ok(fs::write(&path, &bytes).map(|()| bytes.len())?));
    match result {
        Ok(bytes) => {
            println!("{}: {bytes} bytes", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
