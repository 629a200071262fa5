//! Starting a node from a program.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{Config, ConfigError, Overrides},
    home::{Home, HomeError, InitOptions, Passphrase},
    service::{Node, NodeError, NodeOptions, access::AccessPolicy},
};

/// Why a node was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The home cannot be made, opened or read.
    #[error(transparent)]
    Home(Box<HomeError>),
    /// The configuration is not valid.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl From<HomeError> for BuildError {
    fn from(error: HomeError) -> Self {
        Self::Home(Box::new(error))
    }
}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

/// What a node is started with. Made by [`Node::builder`].
#[must_use = "a builder does nothing until `start`"]
pub struct NodeBuilder {
    home: PathBuf,
    config: Option<String>,
    create: bool,
    passphrase: Option<Passphrase>,
    policy: Option<Arc<dyn AccessPolicy>>,
}

impl Node {
    /// A node on the home in this folder: its keys, its store, and its configuration unless [`NodeBuilder::config`] gives another one.
    pub fn builder(home: impl AsRef<Path>) -> NodeBuilder {
        let home = home.as_ref().to_owned();
        NodeBuilder { home, config: None, create: false, passphrase: None, policy: None }
    }
}

impl NodeBuilder {
    /// The configuration, as the text of a `config.yaml`, instead of the one in the home. Relative paths in it start at the home.
    pub fn config(mut self, yaml: impl Into<String>) -> Self {
        self.config = Some(yaml.into());
        self
    }

    /// Makes the home with new keys if it is not there, as `tributary init` does. The owner's key is in it then, and belongs off the machine.
    pub fn create_home(mut self) -> Self {
        self.create = true;
        self
    }

    /// Opens sealed keys, and seals those that [`NodeBuilder::create_home`] makes.
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// Decides the requests that would otherwise wait for the operator: those for streams with `policy: manual`.
    pub fn access_policy(mut self, policy: impl AccessPolicy + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Starts the node. Returns when it listens and its streams take messages. Call it on a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Names what is wrong; nothing is left running then.
    pub async fn start(self) -> Result<Node, BuildError> {
        let Self { home: path, config: text, create, passphrase, policy } = self;
        // Sealing keys is slow on purpose, and the file system may be slow by nature.
        let opened = tokio::task::spawn_blocking(move || -> Result<_, BuildError> {
            let home = if create && !path.join("keys").exists() {
                let config = text.clone().unwrap_or_default();
                let options = InitOptions {
                    owner: None,
                    identity: None,
                    passphrase: passphrase.as_ref().map(Passphrase::again),
                    config,
                };
                Home::init(&path, options, &mut rand::rng())?
            } else {
                Home::open(&path)?
            };
            let config = match &text {
                Some(text) => Config::parse(text, "the configuration of the program", home.path(), &Overrides::none())?,
                None => Config::load(&home.config_path(), &Overrides::none())?,
            };
            Ok((home, config, passphrase))
        });
        let (home, config, passphrase) = opened.await.map_err(|_| NodeError::Stopped)??;
        let options = NodeOptions { home, config, passphrase, ros_arguments: None };
        Ok(Node::start_with(options, policy).await?)
    }
}
