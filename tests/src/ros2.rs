//! A ROS 2 of one test's own: a network that nobody else is in, nodes of ours, and a real `rclpy` node that does as it is told.

mod network;
mod rclpy;
mod values;

pub use self::{
    network::Network,
    rclpy::{Publish, Published, Rclpy},
    values::assert_same,
};

use std::path::PathBuf;

use crate::node::program_named;

/// The program with ROS 2 in it.
///
/// # Panics
///
/// When it is not there: Cargo builds it with the tests of this package, with the feature `ros2`.
#[must_use]
pub fn program() -> PathBuf {
    program_named("tributary-ros2-under-test")
}

/// The Python that has `rclpy` in it.
///
/// # Panics
/// Without a ROS 2: a test that has nobody to talk to must not pass.
#[must_use]
pub fn python() -> PathBuf {
    std::env::var_os("TRIBUTARY_ROS2_PYTHON")
        .expect(
            "TRIBUTARY_ROS2_PYTHON is not set: run this test with ./tests/run.sh, or source tests/tools/ros2_env.sh",
        )
        .into()
}
