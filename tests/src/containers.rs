//! Containers, as their user would run them: Docker by its command line, one container at a time or a project of compose.
//!
//! The image is built by `tests/tools/containers.sh`, for `tests/run.sh`. Everything is called by a name that begins with the name of
//! that run: a test removes what it made, and the script removes what a test could not, because it was killed.

use std::{process::Stdio, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};
use tributary::control::api::NodeStatus;

use crate::{node::Ended, wait::until_within};

/// For what goes through several nodes, or waits for a network that was cut: a lost peer is dialled again within a minute.
pub const LONG: Duration = Duration::from_secs(240);
/// A folder of the image: the home.
const HOME: &str = "/var/lib/tributary";

/// The image under test.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn image() -> String {
    format!("{}/node", run())
}

/// What the names of everything begin with that is made in this run.
fn run() -> String {
    std::env::var("TRIBUTARY_TEST_CONTAINERS")
        .expect("the image is built by ./tests/run.sh, which then runs these tests")
}

/// A name that nothing else has.
fn name(what: &str) -> String {
    format!("{}-{what}-{:08x}", run(), rand::random::<u32>())
}

/// Runs a command to its end, with this on its standard input.
async fn finish(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let what = format!("{:?}", command.as_std());
    let work = async {
        let mut child = command.spawn().unwrap();
        // One that does not read has ended, and says why.
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let output = tokio::time::timeout(LONG * 2, work).await.unwrap_or_else(|_| panic!("does not end: {what}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs `docker` with these arguments.
///
/// # Panics
///
/// When it cannot be run.
pub async fn docker(args: &[&str]) -> Ended {
    docker_with(args, "").await
}

/// As [`docker`], with this on its standard input.
///
/// # Panics
///
/// When it cannot be run.
pub async fn docker_with(args: &[&str], input: &str) -> Ended {
    let mut command = Command::new("docker");
    command.args(args);
    finish(command, input).await
}

/// What `docker` printed; it must succeed.
///
/// # Panics
///
/// When it does not.
pub async fn docker_ok(args: &[&str]) -> String {
    let ended = docker(args).await;
    assert_eq!(ended.code, Some(0), "docker {args:?}: {ended:?}");
    ended.stdout.trim().to_owned()
}

/// The JSON document that a program in a container prints.
async fn json<T: DeserializeOwned>(container: &str, args: &[&str]) -> Option<T> {
    let args = [&["exec", container, "tributary"], args, &["--json"]].concat();
    serde_json::from_str(&docker(&args).await.stdout).ok()
}

/// Waits until Docker says this of a container's health.
///
/// # Panics
///
/// With the end of its log, when it does not.
pub async fn health(container: &str, expected: &str) {
    let mut last = String::new();
    let deadline = std::time::Instant::now() + LONG;
    until_within(&format!("{container} to be {expected}"), LONG + Duration::from_secs(10), async || {
        last = docker_ok(&["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container]).await;
        if std::time::Instant::now() > deadline {
            panic!("{container} is {last}: {:?}", docker(&["logs", "--tail", "40", container]).await);
        }
        last.ends_with(expected).then_some(())
    })
    .await;
}

/// One container of the image and its home. Both are removed at the end.
pub struct Solo {
    name: String,
    volume: String,
}

impl Solo {
    /// A home with this configuration; nothing runs yet.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn new(what: &str, config: &str) -> Self {
        let solo = Self { name: name(what), volume: name("home") };
        docker_ok(&["volume", "create", &solo.volume]).await;
        let made = solo.once(&["init"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let mount = solo.mount();
        let write = ["run", "--rm", "-i", "--network", "none", "-v", &mount, "--entrypoint", "sh"];
        let image = image();
        let command = [&write[..], &[&image, "-c", "cat > config.yaml"]].concat();
        let written = docker_with(&command, config).await;
        assert_eq!(written.code, Some(0), "{written:?}");
        solo
    }

    fn mount(&self) -> String {
        format!("{}:{HOME}", self.volume)
    }

    /// Starts the node as the manual says: read-only root, no capabilities, and without a network, which it does not need to be ready.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn start(&self) {
        let mount = self.mount();
        let hard = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let health = ["--health-interval", "1s", "--health-timeout", "3s", "--health-retries", "1"];
        let run = ["run", "-d", "--name", &self.name, "--network", "none", "-v", &mount];
        docker_ok(&[&run[..], &hard, &health, &[&image()]].concat()).await;
    }

    /// Runs the program on the home, in a container for just that.
    pub async fn once(&self, args: &[&str]) -> Ended {
        let mount = self.mount();
        docker(&[&["run", "--rm", "--network", "none", "--read-only", "-v", &mount, &image()], args].concat()).await
    }

    /// The running container.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the node stands.
    pub async fn status(&self) -> Option<NodeStatus> {
        json(&self.name, &["status"]).await
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        removed(&["rm", "--force", "--volumes", &self.name]);
        removed(&["volume", "rm", "--force", &self.volume]);
    }
}

/// Removes something that may be gone already.
fn removed(args: &[&str]) {
    let _ = std::process::Command::new("docker").args(args).stdin(Stdio::null()).output();
}

/// The testnet of `docker/compose.yaml`, under a name of its own. It is taken down at the end, with its volumes and networks.
pub struct Project {
    name: String,
    compose: Vec<String>,
}

impl Project {
    /// Brings it up, and waits until every buyer has bought what there was.
    ///
    /// # Panics
    ///
    /// When that does not succeed.
    pub async fn up(what: &str) -> Self {
        let plugin = docker(&["compose", "version"]).await.code == Some(0);
        let program: &[&str] = if plugin { &["docker", "compose"] } else { &["docker-compose"] };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/compose.yaml");
        let name = name(what);
        let compose = [program, &["-f", file, "-p", &name]].concat().into_iter().map(str::to_owned).collect();
        let project = Self { name, compose };
        project.compose_ok(&["up", "-d", "--no-build"]).await;
        let shop = project.container("shop").await;
        assert_eq!(docker_ok(&["wait", &shop]).await, "0", "{:?}", docker(&["logs", "--tail", "40", &shop]).await);
        project
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.compose[0]);
        command.args(&self.compose[1..]).args(args).env("TRIBUTARY_IMAGE", image());
        command
    }

    /// Runs compose with these arguments.
    pub async fn compose(&self, args: &[&str]) -> Ended {
        finish(Command::from(self.command(args)), "").await
    }

    /// As [`Project::compose`]; it must succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn compose_ok(&self, args: &[&str]) -> String {
        let ended = self.compose(args).await;
        assert_eq!(ended.code, Some(0), "compose {args:?}: {ended:?}");
        ended.stdout.trim().to_owned()
    }

    /// The container of a service.
    pub async fn container(&self, service: &str) -> String {
        self.compose_ok(&["ps", "-aq", service]).await
    }

    /// A network of the project, as Docker calls it.
    #[must_use]
    pub fn network(&self, network: &str) -> String {
        format!("{}_{network}", self.name)
    }

    /// How a node stands.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub async fn status(&self, service: &str) -> NodeStatus {
        let container = self.container(service).await;
        until_within(&format!("the status of {service}"), LONG, async || json(&container, &["status"]).await).await
    }

    /// What the testnet's verification says, and its exit code.
    ///
    /// # Panics
    ///
    /// When it says nothing.
    pub async fn verify(&self, wait: Duration) -> (Option<i32>, Value) {
        let wait = wait.as_secs().to_string();
        let ended = self.compose(&["run", "--rm", "-T", "verify", "--json", "--wait", &wait]).await;
        let found = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended.code, found)
    }

    /// Ends what feeds the machines, or starts it again.
    ///
    /// # Panics
    ///
    /// When compose does not.
    pub async fn feeds(&self, running: bool) {
        self.compose_ok(&[if running { "start" } else { "stop" }, "feeder-1", "feeder-2"]).await;
    }

    /// Asserts that every buyer has what it bought, that there is something to have, and that nothing else opens. The machines get nothing
    /// more, so what is checked does not grow faster than a busy computer can check it.
    ///
    /// # Panics
    ///
    /// With what is wrong.
    pub async fn is_sound(&self) {
        self.feeds(false).await;
        for machine in ["machine-1", "machine-2"] {
            let container = self.container(machine).await;
            docker_ok(&["exec", &container, "tributary", "dataset", "close"]).await;
        }
        let (code, found) = self.verify(LONG).await;
        assert_eq!((code, &found["ok"]), (Some(0), &Value::Bool(true)), "{found:#}");
        let buyers = found["buyers"].as_array().unwrap();
        assert_eq!(buyers.len(), 3, "{found:#}");
        for buyer in buyers {
            let opened = buyer["packages"].as_u64().unwrap() > 0 && buyer["datasets_closed"].as_u64().unwrap() > 0;
            assert!(opened, "{found:#}");
        }
    }

    /// The findings of a verification that must fail now, as `node: what` each.
    ///
    /// # Panics
    ///
    /// When nothing is wrong.
    pub async fn is_unsound(&self) -> Vec<String> {
        let (code, found) = self.verify(Duration::from_secs(1)).await;
        assert_eq!(code, Some(3), "{found:#}");
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let findings = found["findings"].as_array().unwrap().iter();
        findings.map(|finding| format!("{}: {}", text(finding, "node"), text(finding, "what"))).collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(logs) = self.command(&["logs", "--tail", "15"]).output()
        {
            eprintln!("--- the ends of the logs:\n{}", String::from_utf8_lossy(&logs.stdout));
        }
        // What does not go now, the script removes.
        let _ = self.command(&["down", "--volumes", "--timeout", "0"]).output();
    }
}
