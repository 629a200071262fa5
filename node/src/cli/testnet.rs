//! `tributary testnet`: a market of machines and buyers on this computer.

use std::{io::Write as _, path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Context, Exit, Output, Table, reach::block_on, show};
use crate::{
    config::Scenario,
    testnet::{
        self, Brought, Feed, Folder, TestnetError, Topology, UpOptions, dashboard,
        scenario::{Line, Outcome},
        status::NetStatus,
        verify::{CATCH_UP, Verified},
    },
};

/// How often a screen is drawn.
const REDRAW: Duration = Duration::from_secs(1);
/// How often a log is looked at for new lines.
const LOOK: Duration = Duration::from_millis(200);

/// `tributary testnet`
#[derive(Debug, clap::Subcommand)]
pub enum TestnetCommand {
    /// Start machines, mirrors and buyers, feed the machines, let the buyers buy; they go on running in the background
    Up(UpArgs),
    /// Show how the nodes stand
    Status(StatusArgs),
    /// End a node at once, as a crash would (SIGKILL)
    Kill(NodeArgs),
    /// Start a node again; one that runs ends in order before. The name feeder restarts what feeds the machines
    Restart(NodeArgs),
    /// Cut groups of nodes off from each other: A,B '|' C,D; needs `up --namespaces`
    Partition(PartitionArgs),
    /// End the partition
    Heal(DirArgs),
    /// Check that every buyer's logs are its machine's, that everything bought decrypts, and nothing else; exit code 3 otherwise
    Verify(VerifyArgs),
    /// Run a scenario file: a testnet, what goes wrong in it and when, and how it must end; exit code 1 or 3 when it ends otherwise
    Run(RunArgs),
    /// Print the log of a node, or of the feeder
    Logs(LogsArgs),
    /// End all nodes and remove their homes
    Down(DownArgs),
    /// Feed the machines; started by `up`
    #[command(hide = true)]
    Feed(DirArgs),
}

/// Where the testnet is.
#[derive(Debug, clap::Args)]
pub struct DirArgs {
    /// The folder of the testnet [default: ~/.tributary-testnet]
    #[arg(long, value_name = "DIR", env = "TRIBUTARY_TESTNET", hide_env_values = true)]
    dir: Option<PathBuf>,
}

impl DirArgs {
    fn path(&self) -> Result<PathBuf, CliError> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        home.map(|home| PathBuf::from(home).join(".tributary-testnet")).ok_or_else(|| {
            CliError::new(Exit::Usage, "there is no home folder to keep a testnet in").hint("name a folder with --dir")
        })
    }

    fn folder(&self) -> Result<Folder, CliError> {
        Ok(Folder::new(&self.path()?)?)
    }
}

/// `tributary testnet up`
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Machines, 1 to 100
    #[arg(long, default_value_t = 1, value_name = "N")]
    machines: u16,
    /// Buyers, at most 200; buyer 1 is a customer of machine 1, buyer 2 of machine 2, and so on, around
    #[arg(long, default_value_t = 2, value_name = "N")]
    buyers: u16,
    /// Mirrors, at most 16; each keeps the feeds of all machines
    #[arg(long, default_value_t = 0, value_name = "N")]
    mirrors: u16,
    /// A recording (.mcap or .db3) that every machine plays over and over [default: the one that comes with the program]
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Play it so many times as fast as it was recorded
    #[arg(long, default_value_t = 1.0, value_name = "TIMES")]
    speed: f64,
    /// Give each node a network of its own, so that it can be cut
    #[arg(long)]
    namespaces: bool,
    /// Stay, and take everything down at Ctrl-C
    #[arg(long)]
    foreground: bool,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet status`
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Draw it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    dir: DirArgs,
}

/// One node.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// The node, such as machine-1
    node: String,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet partition`
#[derive(Debug, clap::Args)]
pub struct PartitionArgs {
    /// Groups of nodes, with commas in a group and '|' between groups; quote them: 'machine-1,buyer-1 | buyer-2'
    #[arg(required = true, num_args = 1..)]
    groups: Vec<String>,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet verify`
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// How many seconds buyers may take to catch up
    #[arg(long, value_name = "SECONDS", default_value_t = CATCH_UP.as_secs())]
    wait: u64,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet run`
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The scenario; examples/scenarios/market.yaml describes every key
    file: PathBuf,
    /// Write a line of JSON for everything that happens into this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave the testnet up at the end
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet logs`
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The node, or feeder
    node: String,
    /// Go on with what is added, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    dir: DirArgs,
}

/// `tributary testnet down`
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// Let the nodes end in order, and keep homes and logs
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    dir: DirArgs,
}

impl From<TestnetError> for CliError {
    fn from(error: TestnetError) -> Self {
        let (code, what, hint) = match &error {
            TestnetError::Exists { .. } => (
                Exit::Failed,
                "no testnet was started",
                "take it down with `tributary testnet down`, or give another folder with --dir",
            ),
            TestnetError::Occupied { .. } => {
                (Exit::Usage, "no testnet was started", "give an empty folder, or one that is not there, with --dir")
            }
            TestnetError::None { .. } => (
                Exit::NotFound,
                "there is no testnet",
                "start one with `tributary testnet up`, or name its folder with --dir",
            ),
            TestnetError::Busy { .. } => (
                Exit::Failed,
                "the testnet is being changed",
                "wait for the other command; `tributary testnet down` works when it has ended",
            ),
            TestnetError::Plan(_) => (Exit::Usage, "that cannot be", "see `tributary testnet --help`"),
            TestnetError::NoNode { known, .. } => {
                let hint = format!("there are: {known}");
                return Self::new(Exit::NotFound, error.to_string()).hint(hint);
            }
            TestnetError::Namespaces { .. } => (
                Exit::Failed,
                "the nodes cannot have networks of their own",
                "run it as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN, with the packages iproute2, nftables and util-linux; or leave out --namespaces",
            ),
            TestnetError::OneNetwork => (
                Exit::Usage,
                "nothing was cut",
                "bring the testnet up with --namespaces (as root), where each node has a network of its own",
            ),
            TestnetError::Recording(_) => {
                (Exit::NotFound, "the recording cannot be used", "give an .mcap or .db3 recording")
            }
            _ => (Exit::Failed, "the testnet does not work", "see `tributary testnet logs NODE`"),
        };
        Self::new(code, what).cause(error).hint(hint)
    }
}

pub(super) fn run(command: &TestnetCommand, context: &Context) -> Result<(), CliError> {
    let output = context.output;
    match command {
        TestnetCommand::Up(args) => up(args, output),
        TestnetCommand::Status(args) => status(args, output),
        TestnetCommand::Kill(args) => {
            let dir = args.dir.path()?;
            let process = block_on(async { Ok(testnet::kill(&dir, &args.node).await?) })?;
            output.document(&process, |out| writeln!(out, "{} is gone (process {}).", args.node, process.pid))
        }
        TestnetCommand::Restart(args) => {
            let dir = args.dir.path()?;
            let process = block_on(async { Ok(testnet::restart(&dir, &args.node).await?) })?;
            output.document(&process, |out| writeln!(out, "{} runs (process {}).", args.node, process.pid))
        }
        TestnetCommand::Partition(args) => partition(args, output),
        TestnetCommand::Heal(args) => {
            let dir = args.path()?;
            let healed = block_on(async { Ok(testnet::heal(&dir).await?) })?;
            output.document(&healed, |out| {
                let mut table = Table::new();
                table.row(["NODE", "PACKETS DROPPED"]);
                for (node, dropped) in &healed.dropped {
                    table.row([node.clone(), show::count(*dropped)]);
                }
                table.write(out)
            })
        }
        TestnetCommand::Verify(args) => verify(args, output),
        TestnetCommand::Run(args) => scenario(args, output),
        TestnetCommand::Logs(args) => logs(args),
        TestnetCommand::Down(args) => {
            let dir = args.dir.path()?;
            let ended = block_on(async { Ok(testnet::down(&dir, args.keep).await?) })?;
            output.document(&ended, |out| {
                let kept = if ended.kept { format!("{} is kept", dir.display()) } else { "nothing is left".to_owned() };
                writeln!(out, "{} ended; {kept}.", show::processes(ended.processes as u64))
            })
        }
        TestnetCommand::Feed(args) => {
            let dir = args.path()?;
            block_on(async { Ok(testnet::feeder::feed(&dir).await?) })
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> Result<(), CliError> {
    let failed = |error| CliError::new(Exit::Failed, "signals cannot be watched").cause(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn up(args: &UpArgs, output: Output) -> Result<(), CliError> {
    let recording = args.recording.as_deref().map(super::ingest::absolute).transpose()?;
    let options = UpOptions {
        dir: args.dir.path()?,
        program: None,
        topology: Topology { machines: args.machines, buyers: args.buyers, mirrors: args.mirrors },
        feed: Feed::Recording { path: recording, speed: args.speed },
        namespaces: args.namespaces,
    };
    block_on(async {
        let mut say = |line: &str| output.note(line);
        let mut interrupt = std::pin::pin!(interrupted());
        let brought = tokio::select! {
            brought = testnet::up(&options, &mut say) => brought?,
            signal = &mut interrupt => {
                signal?;
                testnet::down(&options.dir, false).await?;
                return Err(CliError::new(Exit::Failed, "the testnet was stopped while it was brought up")
                    .hint("nothing of it is left; run it again"));
            }
        };
        let folder = Folder::new(&brought.dir)?;
        let status = testnet::status::status(&folder, None).await?;
        output.document(&Up { brought: &brought, status: &status }, |out| {
            write!(out, "\n{}", dashboard::render(&status))?;
            let dir = args.dir.dir.as_ref().map(|dir| format!(" --dir {}", dir.display())).unwrap_or_default();
            writeln!(out, "\nUp in {:.1} s. Watch it: tributary testnet status --watch{dir}", brought.seconds)?;
            if args.foreground { Ok(()) } else { writeln!(out, "End it:   tributary testnet down{dir}") }
        })?;
        if args.foreground {
            output.note("Ctrl-C takes it down.");
            interrupt.await?;
            testnet::down(&options.dir, false).await?;
            output.note("Nothing is left.");
        }
        Ok(())
    })
}

/// What `up` prints with `--json`.
#[derive(Serialize)]
struct Up<'a> {
    #[serde(flatten)]
    brought: &'a Brought,
    status: &'a NetStatus,
}

fn status(args: &StatusArgs, output: Output) -> Result<(), CliError> {
    let folder = args.dir.folder()?;
    block_on(async {
        let mut status = testnet::status::status(&folder, None).await?;
        if !args.watch {
            return output.document(&status, |out| out.write_all(dashboard::render(&status).as_bytes()));
        }
        let mut timer = tokio::time::interval(REDRAW);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut interrupt = std::pin::pin!(interrupted());
        loop {
            output.event(&status, || format!("{}{}\nCtrl-C ends.", dashboard::CLEAR, dashboard::render(&status)))?;
            tokio::select! {
                signal = &mut interrupt => return signal,
                _ = timer.tick() => {}
            }
            status = testnet::status::status(&folder, Some(&status)).await?;
        }
    })
}

fn partition(args: &PartitionArgs, output: Output) -> Result<(), CliError> {
    let dir = args.dir.path()?;
    let groups = groups(&args.groups.join(" "));
    block_on(async { Ok(testnet::partition(&dir, groups.clone()).await?) })?;
    output.document(&groups, |out| {
        let shown: Vec<String> = groups.iter().map(|group| group.join(",")).collect();
        writeln!(out, "{} cannot reach each other now.", shown.join(" | "))
    })
}

/// `A,B | C,D`
fn groups(text: &str) -> Vec<Vec<String>> {
    let names = |group: &str| {
        let names = group.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    text.split('|').map(names).collect()
}

fn verify(args: &VerifyArgs, output: Output) -> Result<(), CliError> {
    let folder = args.dir.folder()?;
    let found = block_on(async { Ok(testnet::verify::verify(&folder, Duration::from_secs(args.wait)).await?) })?;
    output.document(&found, |out| write!(out, "{}", verified(&found)))?;
    if found.ok {
        return Ok(());
    }
    let first = found.findings.first().map(|finding| format!("{}: {}", finding.node, finding.what));
    Err(CliError::new(Exit::VerificationFailed, "the testnet is not as it should be")
        .cause(first.unwrap_or_default())
        .hint("see `tributary testnet logs NODE`"))
}

/// What was verified, as people read it.
fn verified(found: &Verified) -> String {
    let mut table = Table::new();
    table.row(["NODE", "SAME LOGS", "ENTRIES", "BOUGHT AND OPEN", "PACKAGES", "NOT BOUGHT, SEALED"]);
    for buyer in &found.buyers {
        table.row([
            buyer.name.clone(),
            show::count(buyer.logs),
            show::count(buyer.entries),
            show::some(buyer.datasets_open, "dataset"),
            show::count(buyer.packages),
            show::some(buyer.datasets_closed, "dataset"),
        ]);
    }
    for mirror in &found.mirrors {
        let none = || "-".to_owned();
        table.row([mirror.name.clone(), show::count(mirror.logs), show::count(mirror.entries), none(), none(), none()]);
    }
    let mut text = Vec::new();
    // Writing into memory does not fail.
    let _ = table.write(&mut text);
    for finding in &found.findings {
        let _ = writeln!(text, "\nWRONG  {}: {}", finding.node, finding.what);
    }
    let any = found.buyers.iter().any(|buyer| buyer.datasets_open > 0);
    let _ = match (found.ok, any) {
        (true, true) => writeln!(text, "\nEvery log is its machine's, what was bought opens, and nothing else does."),
        (true, false) => writeln!(text, "\nEvery log is its machine's. No dataset that was bought is closed yet."),
        (false, _) => Ok(()),
    };
    String::from_utf8_lossy(&text).into_owned()
}

fn scenario(args: &RunArgs, output: Output) -> Result<(), CliError> {
    let scenario = Scenario::load(&args.file)?;
    let dir = args.dir.path()?;
    let unwritten = |path: &PathBuf, error| {
        CliError::new(Exit::Failed, format!("the report {} cannot be written", path.display())).cause(error)
    };
    let mut report = match &args.report {
        Some(path) => Some((path, std::fs::File::create(path).map_err(|error| unwritten(path, error))?)),
        None => None,
    };
    let mut told = Ok(());
    let mut tell = |line: &Line| {
        let written = output.event(line, || line.shown()).and_then(|()| match &mut report {
            Some((path, file)) => {
                let line = serde_json::to_string(line).unwrap_or_default();
                writeln!(file, "{line}").map_err(|error| unwritten(path, error))
            }
            None => Ok(()),
        });
        // The first failure is what is told, at the end: the scenario goes on.
        if told.is_ok() {
            told = written;
        }
    };
    let outcome = block_on(async {
        let outcome = tokio::select! {
            outcome = testnet::scenario::run(&scenario, dir.clone(), &mut tell) => outcome,
            signal = interrupted() => {
                signal?;
                testnet::down(&dir, false).await?;
                return Err(CliError::new(Exit::Failed, "the scenario was stopped").hint("nothing of it is left"));
            }
        };
        // What was there before is not this scenario's to take down, and what cannot be brought up has been taken down.
        let ours = !matches!(outcome, Err(TestnetError::Exists { .. } | TestnetError::Occupied { .. }));
        if ours && !args.keep && Folder::new(&dir)?.load().is_ok() {
            testnet::down(&dir, false).await?;
        }
        Ok(outcome?)
    })?;
    told?;
    let failed = |code, what: &str| Err(CliError::new(code, what).hint("the report says what was not as expected"));
    match outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed => failed(Exit::Failed, "the scenario did not end as expected"),
        Outcome::NotVerified => failed(Exit::VerificationFailed, "the testnet is not as it should be"),
    }
}

fn logs(args: &LogsArgs) -> Result<(), CliError> {
    let folder = args.dir.folder()?;
    let state = folder.load()?;
    if args.node != "feeder" {
        state.node(&args.node)?;
    }
    let path = folder.log(&args.node);
    let failed = |error| CliError::new(Exit::Failed, format!("{} cannot be read", path.display())).cause(error);
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    block_on(async {
        let mut interrupt = std::pin::pin!(interrupted());
        let mut part = vec![0; 64 << 10];
        loop {
            match std::io::Read::read(&mut file, &mut part).map_err(failed)? {
                0 if !args.follow => return Ok(()),
                0 => tokio::select! {
                    signal = &mut interrupt => return signal,
                    () = tokio::time::sleep(LOOK) => {}
                },
                read => Output::bytes(&part[..read])?,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_split_at_bars_and_names_at_commas() {
        let expected = vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
        for text in ["a,b|c", "a,b | c", " a , b |c ", "a b | c"] {
            assert_eq!(groups(text), expected, "{text}");
        }
        assert_eq!(groups("a"), [vec!["a".to_owned()]]);
    }
}
