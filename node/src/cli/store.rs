//! `tributary store`: looking after the chunk store.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use tributary_store::Store;

use super::{
    CliError, Context, Exit, Table,
    ingest::absolute,
    reach::{block_on, store_options, told},
    show,
};
use crate::{
    control::{
        api::{BackupRequest, BackupResult, CheckRequest, GcRequest, GcResult, StoreCheck, StoreStats},
        store_backup, store_check, store_gc, store_stats,
    },
    machine::system_clock,
};

/// `tributary store`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything: is each chunk what its hash says, and the index what the log says?
    Check {
        /// Put right what can be: damaged chunks are removed, so that they can be fetched again, and the index is corrected
        #[arg(long)]
        repair: bool,
    },
    /// Drop what the retention of the configuration no longer keeps, and give space back
    Gc {
        /// Only say what would be dropped
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the store into a new or empty folder; keys are not in it
    Backup {
        /// The folder
        out: PathBuf,
    },
    /// Make the store of this home from a backup. The machine then has to start a new incarnation
    Restore {
        /// The folder of the backup
        backup: PathBuf,
    },
    /// Show what the store holds and takes
    Stats,
}

pub(super) fn run(command: &StoreCommand, context: &Context) -> Result<(), CliError> {
    match command {
        StoreCommand::Check { repair } => check(*repair, context),
        StoreCommand::Gc { dry_run } => gc(*dry_run, context),
        StoreCommand::Backup { out } => backup(out, context),
        StoreCommand::Restore { backup } => restore(backup, context),
        StoreCommand::Stats => stats(context),
    }
}

fn check(repair: bool, context: &Context) -> Result<(), CliError> {
    let report: StoreCheck = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/store/check", &CheckRequest { repair }).await?) })?,
        None => {
            let offline = context.offline()?;
            let report = store_check(&offline.store, repair).map_err(CliError::from)?;
            offline.close()?;
            report
        }
    };
    context.output.document(&report, |out| {
        let mut table = Table::new();
        table
            .row(["chunks", &format!("{} ({})", show::count(report.chunks), show::bytes(report.chunk_bytes))])
            .row(["frames in the log", &show::count(report.frames)])
            .row(["damaged chunks", &show::count(report.damaged_chunks.len() as u64)])
            .row(["damaged parts of the log", &show::count(report.damage.len() as u64)])
            .row(["lost frames", &show::count(report.lost_frames)])
            .row(["unreadable entries and rows", &show::count(report.unreadable)])
            .row(["index differences", &show::count(report.index_differences)]);
        table.write(out)?;
        for hash in &report.damaged_chunks {
            writeln!(out, "damaged chunk {hash}")?;
        }
        for damage in &report.damage {
            writeln!(out, "damage: {damage}")?;
        }
        let verdict = match (report.clean, report.repaired) {
            (true, _) => "The store is sound.",
            (false, true) => "Repaired what could be; fetch damaged chunks again.",
            (false, false) => "The store is damaged.",
        };
        writeln!(out, "\n{verdict}")
    })?;
    if report.clean || report.repaired {
        return Ok(());
    }
    Err(CliError::new(Exit::VerificationFailed, "the store is damaged")
        .hint("run `tributary store check --repair`, then pull what is missing again or restore a backup"))
}

fn gc(dry_run: bool, context: &Context) -> Result<(), CliError> {
    let request = GcRequest { dry_run };
    let report: GcResult = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/store/gc", &request).await?) })?,
        None => {
            let offline = context.offline()?;
            let did = offline.home.public_keys()?.did;
            let now_ms = system_clock()();
            let report = store_gc(&offline.store, &offline.config, &did, request, now_ms).map_err(CliError::from)?;
            offline.close()?;
            report
        }
    };
    context.output.document(&report, |out| {
        let (chunks, size) = (show::some(report.expired_chunks, "chunk"), show::bytes(report.expired_bytes));
        let (before, after) = (show::bytes(report.used_before), show::bytes(report.used_after));
        let would = if dry_run { "Would drop" } else { "Dropped" };
        writeln!(out, "{would} {chunks} ({size}); the store takes {before} before and {after} afterwards.")
    })
}

fn backup(out: &std::path::Path, context: &Context) -> Result<(), CliError> {
    let request = BackupRequest { out: absolute(out)? };
    let result: BackupResult = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/store/backup", &request).await?) })?,
        None => {
            let offline = context.offline()?;
            let result = store_backup(&offline.store, &request).map_err(CliError::from)?;
            offline.close()?;
            result
        }
    };
    context.output.document(&result, |out| {
        writeln!(out, "Copied {} to {}.", show::bytes(result.bytes), result.out.display())?;
        writeln!(out, "The keys are not in it: keep a copy of the home's keys folder in a safe place of its own.")
    })
}

#[derive(Serialize)]
struct Restored {
    store: PathBuf,
    stats: StoreStats,
    /// Damaged parts that were skipped.
    damage: usize,
}

fn restore(backup: &std::path::Path, context: &Context) -> Result<(), CliError> {
    context.stopped("a store cannot be restored")?;
    let (home, config) = (context.home()?, context.config(None, &[])?);
    let _lock = home.lock()?;
    let path = home.store_path();
    if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
        let (shown, aside) = (path.display(), path.with_extension("old"));
        return Err(CliError::new(Exit::Failed, format!("{shown} is not empty, and a store is never overwritten"))
            .hint(format!("move it away first: mv {shown} {}", aside.display())));
    }
    let (store, report) = Store::restore(backup, &path, &store_options(&config)).map_err(told)?;
    let result = Restored { store: path.clone(), stats: store_stats(&store), damage: report.damage.len() };
    store.close().map_err(told)?;
    context.output.document(&result, |out| {
        let (chunks, entries) = (show::some(result.stats.chunks, "chunk"), show::count(result.stats.entries));
        writeln!(out, "Restored {chunks} and {entries} log entries into {}.", path.display())?;
        if config.has_role(crate::config::Role::Machine) {
            writeln!(
                out,
                "\nWhat this machine published after the backup is unknown here, so it must not go on where the backup ends.\n\
                 Start a new incarnation with the owner's key: tributary key bind --incarnation --owner-key FILE"
            )?;
        }
        Ok(())
    })
}

fn stats(context: &Context) -> Result<(), CliError> {
    let stats: StoreStats = match context.running()? {
        Some(client) => block_on(async { Ok(client.get("/v1/store/stats").await?) })?,
        None => {
            let offline = context.offline()?;
            let stats = store_stats(&offline.store);
            offline.close()?;
            stats
        }
    };
    context.output.document(&stats, |out| table(&stats).write(out))
}

pub(super) fn table(stats: &StoreStats) -> Table {
    let or_none = |bytes: Option<u64>| bytes.map_or_else(|| "none".to_owned(), show::bytes);
    let mut table = Table::new();
    table
        .row(["chunks", &format!("{} ({})", show::count(stats.chunks), show::bytes(stats.chunk_bytes))])
        .row(["log entries", &show::count(stats.entries)])
        .row(["rows", &show::count(stats.rows)])
        .row(["chunks removed", &show::count(stats.tombstones)])
        .row(["segments", &show::count(stats.segments)])
        .row(["on the disk", &show::bytes(stats.used_bytes)])
        .row(["quota", &or_none(stats.quota_bytes)])
        .row(["free on the disk", &or_none(stats.free_bytes)]);
    if stats.evidence > 0 {
        table.row(["entries kept as evidence", &show::count(stats.evidence)]);
    }
    if stats.stopped {
        table.row(["state", "stopped after a failure; restart the node"]);
    }
    table
}
