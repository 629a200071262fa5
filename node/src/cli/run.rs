//! `tributary run`: the node in the foreground.

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tributary_protocol::ids::Did;

use super::{CliError, Context, Exit, reach::told, supervisor};
use crate::{
    config::{Config, Role},
    control::{
        self, ControlListener,
        api::{Code, Problem},
    },
    metrics::{self, MetricsListener},
    ros2::{Launch, Ros2Error},
    service::{Node, NodeOptions},
};

/// `tributary run`
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration [default: config.yaml in the home]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key, such as store.quota=10GiB; can be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What follows `--ros-args` on the command line, taken out before the rest is parsed.
    #[arg(skip)]
    pub(super) ros: Option<Vec<String>>,
}

/// What is printed, one line each with `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum RunEvent<'a> {
    /// The node listens, its streams take messages, and its control socket answers.
    Ready {
        did: Did,
        peer_id: String,
        /// The most useful feed link; missing without the role machine.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<&'a str>,
        links: &'a [String],
        listen: &'a [String],
        control: PathBuf,
        /// Where metrics and health are offered; missing where they are not.
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<SocketAddr>,
        pid: u32,
    },
    /// It begins to stop.
    Stopping { reason: &'a str },
    /// It has stopped, and everything it took in is durable.
    Stopped,
}

pub(super) fn run(args: &RunArgs, context: &Context) -> Result<(), CliError> {
    let home = context.home()?;
    let config = read_config(args, context)?;
    for notice in &config.notices {
        tracing::warn!(place = %notice.place, "{}", notice.text);
    }
    let socket = context.socket(&home, &config);
    let passphrase = context.passphrase()?;
    let options = NodeOptions { home, config, passphrase, ros_arguments: args.ros.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failed, "the runtime could not be started").cause(error))?;
    let result = runtime.block_on(run_node(options, socket, context));
    // The node has closed what must be closed; after a second Ctrl-C nothing is waited for.
    runtime.shutdown_background();
    result
}

/// The configuration, with what ROS parameters say about it.
fn read_config(args: &RunArgs, context: &Context) -> Result<Config, CliError> {
    let mut overrides = context.overrides(&args.set)?;
    let mut told_by_ros = None;
    if let Some(arguments) = &args.ros {
        let wrong = |error: Ros2Error| CliError::new(Exit::Usage, error.to_string());
        let launch = Launch::parse(arguments).map_err(wrong)?;
        told_by_ros = launch.config_yaml().map_err(wrong)?;
        for (name, value) in launch.agent_parameters().map_err(wrong)? {
            overrides.parameter(&name, &value);
        }
    }
    // What is typed wins over what a launch file says.
    context.config_over(args.config.as_deref().or(told_by_ros.as_deref()), &overrides)
}

async fn run_node(options: NodeOptions, socket: PathBuf, context: &Context) -> Result<(), CliError> {
    let output = context.output;
    // Before anything is open: a signal that comes while the node starts must not find the default handler.
    let failed = |error| CliError::new(Exit::Failed, "signals cannot be watched").cause(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let node = Node::start(options).await.map_err(|error| match error {
        crate::service::NodeError::Home(error) => CliError::from(*error),
        other => told(other),
    })?;
    let listener = match ControlListener::bind(&socket).await {
        Ok(listener) => listener,
        Err(error) => {
            let _ = node.shutdown().await;
            return Err(Problem::of(Code::Failed, &error).into());
        }
    };
    let metrics = match bind_metrics(node.config()).await {
        Ok(metrics) => metrics,
        Err(error) => {
            let _ = node.shutdown().await;
            return Err(error);
        }
    };
    let (stop, quit) = (CancellationToken::new(), CancellationToken::new());
    let metrics_addr = metrics.as_ref().map(MetricsListener::addr);
    // Until the node has stopped: whoever watches sees that it stops.
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, node.clone(), stop.clone())));
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(supervisor::watch(node.clone())));
    let reason = {
        let serving = control::serve(&listener, node.clone(), stop.clone(), quit.clone());
        tokio::pin!(serving);
        let links = node.links().await.map_err(|error| CliError::from(Problem::of(Code::Network, &error)))?;
        let links: Vec<String> = links.iter().map(ToString::to_string).collect();
        let listen: Vec<String> =
            node.net().listen_addrs().await.unwrap_or_default().iter().map(ToString::to_string).collect();
        let ready = RunEvent::Ready {
            did: node.did(),
            peer_id: node.net().peer_id().to_string(),
            link: links.first().map(String::as_str),
            links: &links,
            listen: &listen,
            control: socket.clone(),
            metrics: metrics_addr,
            pid: std::process::id(),
        };
        output.event(&ready, || human(&node, &links, &listen, &socket))?;
        supervisor::ready();
        let reason = tokio::select! {
            () = &mut serving => "the control socket ended",
            () = quit.cancelled() => "it was asked to",
            _ = interrupt.recv() => "interrupt",
            _ = terminate.recv() => "terminate",
            () = ros_ended(&node) => "ROS was shut down",
        };
        supervisor::stopping();
        if output.is_json() {
            output.event(&RunEvent::Stopping { reason }, String::new)?;
        } else {
            output.note("Stopping: sealing and storing what was taken in. Once more to stop at once.");
        }
        // Requests under way end with the node, and hear how.
        let stopping = async {
            let result = node.shutdown().await;
            stop.cancel();
            result
        };
        tokio::pin!(stopping);
        let result = loop {
            tokio::select! {
                result = &mut stopping => break result,
                () = &mut serving, if !stop.is_cancelled() => {}
                _ = interrupt.recv() => {
                    return Err(CliError::new(Exit::Failed, "the node was stopped at once")
                        .hint("what was acknowledged is stored; the rest is read again by the next ingest"));
                }
            }
        };
        if reason != "the control socket ended" {
            serving.await;
        }
        result
    };
    drop(listener);
    if let Some(metrics) = metrics {
        stop.cancel();
        let _ = metrics.await; // it can only have panicked, and then it is over too
    }
    reason.map_err(|error| CliError::from(Problem::of(Code::Failed, &error)))?;
    if output.is_json() {
        output.event(&RunEvent::Stopped, String::new)?;
    } else {
        output.note("Stopped.");
    }
    Ok(())
}

async fn bind_metrics(config: &Config) -> Result<Option<MetricsListener>, CliError> {
    let Some(config) = &config.metrics else { return Ok(None) };
    let listener = MetricsListener::bind(config).await;
    listener.map(Some).map_err(|error| Problem::of(Code::Failed, &error).into())
}

/// Waits until ROS is shut down in this process; for ever in a node without it.
async fn ros_ended(node: &Node) {
    match node.ros2() {
        Some(ros2) => ros2.ended().await,
        None => std::future::pending().await,
    }
}

fn human(node: &Node, links: &[String], listen: &[String], socket: &std::path::Path) -> String {
    let mut text = format!("{} is running.\n", node.did());
    if let Some(link) = links.first() {
        text.push_str(&format!("\nGive this link to whoever should follow its feed:\n  {link}\n"));
        if links.len() > 1 {
            text.push_str("or, from elsewhere:\n");
            links[1..].iter().for_each(|link| text.push_str(&format!("  {link}\n")));
        }
    }
    if node.config().has_role(Role::Relay) {
        text.push_str("\nNodes that want to be reached through this relay name one of these under `network.relays`:\n");
        listen.iter().for_each(|addr| text.push_str(&format!("  {addr}\n")));
    }
    text.push_str(&format!("\nCommands reach it through {}. Stop it with Ctrl-C.", socket.display()));
    text
}
