//! `tributary config`: the configuration without the node.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{CliError, Context, Exit, Table};
use crate::config::{Compression, Config, FieldRules, Mode, Policy, RulesError, show_bytes};

/// `tributary config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration and the keys its rules need, and show what would be published
    Check(ConfigArgs),
}

/// Which configuration, and what is laid over it.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration [default: config.yaml in the home]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a key, such as store.quota=10GiB; can be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    valid: bool,
    roles: Vec<&'static str>,
    streams: Vec<StreamReport>,
    follow: Vec<String>,
    /// What was accepted and a person should know about.
    notices: Vec<String>,
}

#[derive(Serialize)]
struct StreamReport {
    topic: String,
    name: String,
    mode: &'static str,
    rules: usize,
    chunk_bytes: u32,
    compression: &'static str,
    access: &'static str,
}

fn report(config: &Config) -> Report {
    let streams = config.streams.iter().map(|stream| StreamReport {
        topic: stream.topic.clone(),
        name: stream.name().to_owned(),
        mode: match &stream.mode {
            Mode::Fields(rules) if rules.is_allowlist() => "fields, only what rules say",
            Mode::Fields(_) => "fields, all but what rules say",
            Mode::Raw => "raw",
            Mode::File => "file",
        },
        rules: stream.rules().map_or(0, FieldRules::count),
        chunk_bytes: stream.chunk.bytes,
        compression: match stream.compression {
            Compression::None => "none",
            Compression::Zstd => "zstd",
        },
        access: match &stream.access.policy {
            Policy::Free => "free",
            Policy::Allowlist(_) => "allowlist",
            Policy::Manual => "manual",
        },
    });
    Report {
        valid: true,
        roles: config.roles.iter().map(|role| role.name()).collect(),
        streams: streams.collect(),
        follow: config.follow.iter().map(|follow| follow.machine.to_string()).collect(),
        notices: config.notices.iter().map(ToString::to_string).collect(),
    }
}

/// Loads the rules of every stream with their keys, and forgets them again.
fn check_rules(config: &Config) -> Result<(), CliError> {
    for stream in &config.streams {
        stream.rule_set().map(drop).map_err(|error| {
            let what = format!("the rules of the stream {} cannot be used", stream.topic);
            match &error {
                RulesError::Key { file, .. } => {
                    let file = file.display();
                    let hint = format!("make a new key with: openssl rand -hex 32 > {file} && chmod 600 {file}");
                    CliError::new(Exit::Failed, what).cause(&error).hint(hint)
                }
                _ => CliError::new(Exit::Usage, what).cause(&error).hint("correct the rule in the configuration"),
            }
        })?;
    }
    Ok(())
}

pub(super) fn run(command: &ConfigCommand, context: &Context) -> Result<(), CliError> {
    let ConfigCommand::Check(args) = command;
    let config = context.config(args.config.as_deref(), &args.set)?;
    check_rules(&config)?;
    let report = report(&config);
    context.output.document(&report, |out| {
        writeln!(out, "The configuration is valid. Roles: {}", report.roles.join(", "))?;
        if !report.streams.is_empty() {
            let mut table = Table::new();
            table.row(["STREAM", "MODE", "RULES", "CHUNKS", "COMPRESSION", "ACCESS"]);
            for s in &report.streams {
                let (rules, bytes) = (s.rules.to_string(), show_bytes(u64::from(s.chunk_bytes)));
                table.row([s.name.as_str(), s.mode, &rules, &bytes, s.compression, s.access]);
            }
            writeln!(out)?;
            table.write(out)?;
        }
        for machine in &report.follow {
            writeln!(out, "follows {machine}")?;
        }
        for notice in &report.notices {
            writeln!(out, "\nnote: {notice}")?;
        }
        Ok(())
    })
}
