//! In place of ROS 2 in a build without it: says so.

use std::path::PathBuf;

use super::{Ros2Error, Ros2Options, Ros2Status};

/// ROS arguments of a command line.
pub struct Launch(());

impl Launch {
    /// Reads them.
    ///
    /// # Errors
    /// Always: this build has no ROS 2.
    pub fn parse(_: &[String]) -> Result<Self, Ros2Error> {
        Err(Ros2Error::NotBuilt)
    }

    /// The parameter `config_yaml`.
    ///
    /// # Errors
    /// None: there is no such value.
    pub fn config_yaml(&self) -> Result<Option<PathBuf>, Ros2Error> {
        Ok(None)
    }

    /// The parameters of peaq's agent.
    ///
    /// # Errors
    /// None: there are no such values.
    pub fn agent_parameters(&self) -> Result<Vec<(String, String)>, Ros2Error> {
        Ok(Vec::new())
    }
}

/// The ROS side of a node, which this build does not have.
pub enum Ros2 {}

impl Ros2 {
    /// Starts it.
    ///
    /// # Errors
    /// Always: this build has no ROS 2.
    pub fn start(_: Ros2Options) -> Result<Self, Ros2Error> {
        Err(Ros2Error::NotBuilt)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Ros2Status {
        match *self {}
    }

    /// Waits until ROS itself was shut down in this process.
    pub fn ended(&self) -> std::future::Pending<()> {
        match *self {}
    }

    /// Ends it. Blocks.
    pub fn stop(&self) {
        match *self {}
    }
}
