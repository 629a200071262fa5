//! The command line: what can be typed, and what happens then.
//!
//! This module owns the flags every command has, logging, the form of output and errors, and the exit codes. One file per
//! group of commands holds their flags and a `run` that gets a [`Context`]. Nothing outside this module writes to standard
//! output or ends the process.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand};

use crate::{
    config::{Config, Overrides},
    home::{Home, Passphrase},
};

mod access;
mod config;
mod dataset;
mod demo;
mod doctor;
mod exit;
mod feed;
mod grant;
mod health;
mod ingest;
mod init;
mod key;
mod logging;
mod meta;
mod orders;
mod output;
mod peaq;
mod peaq_files;
mod pull;
mod reach;
mod ros_args;
mod rules;
mod run;
mod selection;
mod show;
mod status;
mod store;
mod supervisor;
mod testnet;

pub use exit::{CliError, Exit};
pub use logging::LogFormat;
pub use output::{Output, Table};

/// Distributes a machine's data peer to peer: signed, sealed, and readable only by those it was granted to.
#[derive(Debug, Parser)]
#[command(
    name = "tributary",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 verification failed, 4 access denied, 5 not found, 6 network.",
    after_long_help = exit::HELP
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Home folder of the node [default: ~/.tributary]
    #[arg(long, global = true, value_name = "DIR", env = "TRIBUTARY_HOME", hide_env_values = true)]
    pub home: Option<PathBuf>,
    /// Print JSON: one document, or one line per event
    #[arg(long, global = true)]
    pub json: bool,
    /// File with the passphrase of sealed keys [or the passphrase itself in TRIBUTARY_PASSPHRASE]
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_PASSPHRASE_FILE", hide_env_values = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Log more to standard error: -v life cycle, -vv decisions, -vvv packets
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value_t, env = "TRIBUTARY_LOG_FORMAT", hide_env_values = true)]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a home folder with keys and a configuration
    Init(init::InitArgs),
    /// Run the node in the foreground
    Run(run::RunArgs),
    /// Show how the running node stands
    Status,
    /// Ask whether the running node is ready; exit code 0 only if it is
    Health(health::HealthArgs),
    /// List the peers of the running node
    Peers,
    /// Find what is wrong with this node, its machine and its network, and what to do; exit code 6 if only the network is wrong
    Doctor,
    /// Read a recording or lines into the machine's streams
    Ingest(ingest::IngestArgs),
    /// Publish a file as a dataset, or files for peaq's tools
    Publish(ingest::PublishArgs),
    /// Try the field rules
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// See what machines publish
    #[command(subcommand)]
    Feed(feed::FeedCommand),
    /// Follow a machine by its feed link
    Subscribe(feed::SubscribeArgs),
    /// List, show and close datasets
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// Ask for access to data, and decide about it
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// Write the keys of data into files for one buyer, without a request
    Grant(grant::GrantArgs),
    /// Get the data that were granted
    Pull(pull::PullArgs),
    /// Prove a dataset, or a folder of peaq's files, from the machine's peaqID down; exit code 3 unless it is proven
    Verify(pull::VerifyArgs),
    /// Write datasets, or a folder of peaq's files, into files
    Export(pull::ExportArgs),
    /// Look after the chunk store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Show, rotate and bind keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Trade with peaq's own software
    #[command(subcommand)]
    Peaq(peaq::PeaqCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// See the main job start to end on this machine: a robot's recording reaches a buyer
    Demo(demo::DemoArgs),
    /// Run a market of machines and buyers on this computer, watch it, and break it
    #[command(subcommand)]
    Testnet(testnet::TestnetCommand),
    /// Print a completion script for a shell
    Completions(meta::CompletionsArgs),
    /// Print the manual page, or write all pages into a folder
    Man(meta::ManArgs),
}

/// What a command works with.
pub struct Context {
    global: Global,
    /// Where results and errors go.
    pub output: Output,
}

impl Context {
    /// The folder of the home, which may not exist.
    pub fn home_path(&self) -> Result<PathBuf, CliError> {
        Ok(Home::locate(self.global.home.as_deref())?)
    }

    /// The home.
    pub fn home(&self) -> Result<Home, CliError> {
        Ok(Home::open(&self.home_path()?)?)
    }

    /// The passphrase of sealed keys, if one was given: the flag's file before the environment's text.
    pub fn passphrase(&self) -> Result<Option<Passphrase>, CliError> {
        if let Some(file) = &self.global.passphrase_file {
            return Ok(Some(Passphrase::from_file(file)?));
        }
        match std::env::var("TRIBUTARY_PASSPHRASE") {
            Ok(text) => Ok(Some(Passphrase::new(text.into())?)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(CliError::new(Exit::Usage, "TRIBUTARY_PASSPHRASE is not UTF-8 text")
                    .hint("put the passphrase into a file and give that with --passphrase-file"))
            }
        }
    }

    /// The configuration at `file`, or the home's, with the environment and `set` (`KEY=VALUE`, strongest) on top.
    pub fn config(&self, file: Option<&Path>, set: &[String]) -> Result<Config, CliError> {
        self.config_over(file, &self.overrides(set)?)
    }

    /// What the environment and `set` lay over a configuration.
    fn overrides(&self, set: &[String]) -> Result<Overrides, CliError> {
        let mut overrides = Overrides::from_environment(std::env::vars_os())?;
        for assignment in set {
            overrides.flag("--set", assignment)?;
        }
        Ok(overrides)
    }

    fn config_over(&self, file: Option<&Path>, overrides: &Overrides) -> Result<Config, CliError> {
        let path = match file {
            Some(file) => file.to_owned(),
            None => self.home()?.config_path(),
        };
        Ok(Config::load(&path, overrides)?)
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let (own, ros) = ros_args::split(std::env::args_os());
    let cli = match Cli::try_parse_from(own) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, to standard output and with code 0. A closed pipe changes nothing.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let Cli { global, mut command } = cli;
    let output = Output::new(global.json);
    let result = logging::start(global.verbose, global.log_format)
        .and_then(|()| ros_args::give(&mut command, ros))
        .and_then(|()| dispatch(&command, &Context { global, output }));
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            output.error(&error);
            error.code.into()
        }
    }
}

fn dispatch(command: &Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Run(args) => run::run(args, context),
        Command::Status => status::status(context),
        Command::Health(args) => health::run(args, context),
        Command::Peers => status::peers(context),
        Command::Doctor => doctor::doctor(context),
        Command::Ingest(args) => ingest::ingest(args, context),
        Command::Publish(args) => ingest::publish(args, context),
        Command::Rules(command) => rules::run(command, context),
        Command::Feed(command) => feed::run(command, context),
        Command::Subscribe(args) => feed::subscribe(args, context),
        Command::Dataset(command) => dataset::run(command, context),
        Command::Access(command) => access::run(command, context),
        Command::Grant(args) => grant::grant(args, context),
        Command::Pull(args) => pull::pull(args, context),
        Command::Verify(args) => pull::verify(args, context),
        Command::Export(args) => pull::export(args, context),
        Command::Store(command) => store::run(command, context),
        Command::Key(command) => key::run(command, context),
        Command::Peaq(command) => peaq::run(command, context),
        Command::Config(command) => config::run(command, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Testnet(command) => testnet::run(command, context),
        Command::Completions(args) => meta::completions(args, Cli::command(), context),
        Command::Man(args) => meta::man(args, Cli::command(), context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
