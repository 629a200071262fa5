//! Starting and stopping the ROS side of a node.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_util::sync::CancellationToken;

use super::{
    Ros2Error, Ros2Options, Ros2Status,
    rcl::{Arguments, Context, Guard, Node, RclError},
    receiver::Receiver,
    supervisor::Supervisor,
};
use crate::config::Ros2Config;

/// Orders on their way to the receiver, which takes them at every turn.
const ORDERS: usize = 16;

impl From<RclError> for Ros2Error {
    fn from(error: RclError) -> Self {
        Self::Start(error.to_string())
    }
}

/// ROS arguments of a command line, before there is a configuration.
pub struct Launch {
    arguments: Arguments,
    full_name: String,
}

impl Launch {
    /// Reads them.
    ///
    /// # Errors
    /// They are malformed, or hold what ROS does not know.
    pub fn parse(arguments: &[String]) -> Result<Self, Ros2Error> {
        let full_name = name_of(arguments);
        Ok(Self { arguments: Arguments::parse(arguments)?, full_name })
    }

    /// The parameter `config_yaml`, or `config.yaml_path` as peaq's agent has it: the path of the configuration.
    ///
    /// # Errors
    /// It is not a text.
    pub fn config_yaml(&self) -> Result<Option<PathBuf>, Ros2Error> {
        let parameters = self.arguments.parameters(&self.full_name)?;
        let text = |name| parameters.text(name).map_err(Ros2Error::Start);
        Ok(text("config_yaml")?.or(text("config.yaml_path")?).map(PathBuf::from))
    }

    /// The parameters of peaq's agent, for its configuration ([`Overrides::parameter`]).
    ///
    /// # Errors
    /// ROS does not know them.
    ///
    /// [`Overrides::parameter`]: crate::config::Overrides::parameter
    pub fn agent_parameters(&self) -> Result<Vec<(String, String)>, Ros2Error> {
        let parameters = self.arguments.parameters(&self.full_name)?;
        let found = parameters.starting_with("stream_agent.");
        Ok(found.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// The node's full name by the command line alone: the configuration, which may name it too, is not known yet.
fn name_of(arguments: &[String]) -> String {
    let Ros2Config { mut node_name, mut namespace, .. } = Ros2Config::default();
    for rule in arguments {
        match rule.split_once(":=") {
            Some(("__node" | "__name", name)) => name.clone_into(&mut node_name),
            Some(("__ns", name)) => name.clone_into(&mut namespace),
            _ => {}
        }
    }
    format!("{}/{node_name}", namespace.trim_end_matches('/'))
}

/// What both threads and the node share.
pub(super) struct Shared {
    /// Wakes the receiver.
    pub(super) receiver: Arc<Guard>,
    /// Wakes the supervisor.
    pub(super) supervisor: Arc<Guard>,
    /// What is published is left out.
    pub(super) paused: AtomicBool,
    /// Both threads end.
    pub(super) stop: AtomicBool,
    /// The time of `/clock` in nanoseconds, where that is asked for; 0 before its first message, as in ROS.
    pub(super) sim_time: Option<AtomicU64>,
    pub(super) status: Arc<Mutex<Ros2Status>>,
    /// Cancelled when somebody shuts ROS down in this process.
    pub(super) ended: CancellationToken,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// The time of the ROS clock, nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        match &self.sim_time {
            Some(time) => time.load(Ordering::Relaxed),
            None => system_now_ns(),
        }
    }

    pub(super) fn change_status(&self, change: impl FnOnce(&mut Ros2Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The system's time, nanoseconds since 1970.
pub(super) fn system_now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// The ROS side of a node.
pub struct Ros2 {
    threads: Mutex<Option<Threads>>,
    status: Arc<Mutex<Ros2Status>>,
    ended: CancellationToken,
}

impl Ros2 {
    /// Joins the graph and begins to ingest. Blocks while the middleware starts.
    ///
    /// # Errors
    /// The arguments are wrong, or ROS 2 does not start.
    pub fn start(options: Ros2Options) -> Result<Self, Ros2Error> {
        let Ros2Options { config, arguments, machine } = options;
        let context = Context::new(&arguments)?;
        let node = Node::new(&context, &config.node_name, &config.namespace)?;
        let parameters = context.parameters(&node.full_name())?;
        let sim_time = parameters.truth("use_sim_time").map_err(Ros2Error::Start)?.unwrap_or(config.use_sim_time);
        let status = Arc::new(Mutex::new(Ros2Status {
            node: node.full_name(),
            middleware: context.middleware(),
            use_sim_time: sim_time,
            ..Ros2Status::default()
        }));
        let ended = CancellationToken::new();
        let shared = Arc::new(Shared {
            receiver: Arc::new(Guard::new(&context)?),
            supervisor: Arc::new(Guard::new(&context)?),
            paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sim_time: sim_time.then(AtomicU64::default),
            status: Arc::clone(&status),
            ended: ended.clone(),
        });
        let (orders, taken) = sync_channel(ORDERS);
        let receiver = Receiver::new(&node, Arc::clone(&shared), taken)?;
        let supervisor = Supervisor::new(node, machine, &config, Arc::clone(&shared), orders)?;
        let mut threads = Threads { shared, handles: Vec::new() };
        let no_thread = |error: std::io::Error| Ros2Error::Start(format!("no thread for ROS 2: {error}"));
        for (name, run) in [
            ("ros2-receiver", Box::new(move || receiver.run()) as Box<dyn FnOnce() + Send>),
            ("ros2-supervisor", Box::new(move || supervisor.run())),
        ] {
            let run = watched(name, run, Arc::clone(&threads.shared));
            match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
                Ok(handle) => threads.handles.push(handle),
                Err(error) => {
                    threads.end();
                    return Err(no_thread(error));
                }
            }
        }
        tracing::info!(node = status.lock().unwrap_or_else(PoisonError::into_inner).node, "joined the ROS graph");
        Ok(Self { threads: Mutex::new(Some(threads)), status, ended })
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Ros2Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until ROS itself was shut down in this process.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends it: what has come is handed to the lanes, the node leaves the graph. Blocks, for a few seconds at most. Does nothing the
    /// second time.
    pub fn stop(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            threads.end();
        }
    }
}

impl Drop for Ros2 {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread that ends before its time must not look like topics on which nothing is published.
fn watched(name: &'static str, run: Box<dyn FnOnce() + Send>, shared: Arc<Shared>) -> impl FnOnce() + Send {
    move || {
        let _ = catch_unwind(AssertUnwindSafe(run)); // the panic is in the log
        if !shared.is_stopping() && !shared.ended.is_cancelled() {
            tracing::error!(name, "a thread of ROS 2 has ended");
            let trouble =
                format!("the thread {name} has ended, nothing more is ingested; see the log, and restart the node");
            shared.change_status(|status| status.trouble.push(trouble));
        }
    }
}

impl Threads {
    fn end(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.receiver.trigger();
        self.shared.supervisor.trigger();
        for handle in self.handles {
            if handle.join().is_err() {
                tracing::error!("a thread of ROS 2 failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_command_line() {
        let name = |words: &[&str]| name_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&[]), "/tributary");
        assert_eq!(name(&["--ros-args", "-r", "__node:=x", "-r", "__ns:=/fleet/a"]), "/fleet/a/x");
        assert_eq!(name(&["--ros-args", "-p", "use_sim_time:=true"]), "/tributary");
    }
}
