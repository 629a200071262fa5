//! What a node says about its part in ROS 2, beside what each stream says.

use serde::{Deserialize, Serialize};

/// Topics that are listed as refused; the others are counted.
pub const MAX_REFUSED: usize = 64;

/// How the ROS side of a node stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ros2Status {
    /// Full name of the ROS node, after remapping.
    pub node: String,
    /// The middleware, such as `rmw_fastrtps_cpp`.
    pub middleware: String,
    /// Whether the operator paused the node: what is published is left out.
    pub paused: bool,
    /// Whether the receive time is that of `/clock`.
    pub use_sim_time: bool,
    /// Topics that a pattern means and that have no stream, the first [`MAX_REFUSED`].
    pub refused: Vec<RefusedTopic>,
    /// How many of those there are.
    pub refused_count: u64,
    /// What does not work although the node goes on.
    pub trouble: Vec<String>,
}

/// A topic that a pattern means and that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTopic {
    /// Its name in the graph.
    pub topic: String,
    /// Why.
    pub reason: String,
}
