//! Live ROS 2 topics through whole nodes: real publishers, a real middleware, a buyer at the end. Each test has a network of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

mod ros2 {
    mod agent;
    mod arguments;
    mod lives;
    mod misfits;
    mod operator;
    mod overload;
    mod package;
    mod patterns;
    mod shutdown;
    mod time;
    mod values;
    mod world;
}
