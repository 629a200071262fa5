//! `tributary dataset`: the units that are sold, pulled and verified.

use clap::Subcommand;
use tributary_protocol::ids::Did;

use super::{
    CliError, Context, Table,
    feed::all_feeds,
    reach::{block_on, told},
    show,
};
use crate::control::{
    self,
    api::{CloseRequest, Closed, DatasetDetail, DatasetSummary},
};

/// `tributary dataset`
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// List datasets, oldest first
    Ls {
        /// Only of this machine
        #[arg(long, value_name = "DID")]
        machine: Option<Did>,
        /// Only of this stream, by name or id
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
    },
    /// Show one dataset, and how much of it is here
    Show {
        /// Its id, or at least 6 digits of it
        dataset: String,
    },
    /// Close the dataset that is being written, so that it can be bought now; the next message begins another one
    Close {
        /// Only of this stream, by name [default: all]
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
    },
}

pub(super) fn run(command: &DatasetCommand, context: &Context) -> Result<(), CliError> {
    match command {
        DatasetCommand::Ls { machine, stream } => list(*machine, stream.as_deref(), context),
        DatasetCommand::Show { dataset } => show_one(dataset, context),
        DatasetCommand::Close { stream } => close(stream.clone(), context),
    }
}

pub(super) fn table(datasets: &[DatasetSummary]) -> Table {
    let mut table = Table::new();
    table.row(["DATASET", "STREAM", "STATE", "PACKAGES", "SIZE", "FROM", "TO"]);
    for dataset in datasets {
        table.row([
            dataset.dataset.to_string(),
            dataset.stream.clone(),
            state(dataset).to_owned(),
            dataset.packages.map_or_else(|| "-".to_owned(), show::count),
            dataset.bytes.map_or_else(|| "-".to_owned(), show::bytes),
            show::time(dataset.from_ms),
            show::time(dataset.to_ms),
        ]);
    }
    table
}

fn state(dataset: &DatasetSummary) -> &'static str {
    match (dataset.withdrawn, dataset.closed) {
        (true, _) => "withdrawn",
        (false, true) => "closed",
        (false, false) => "open",
    }
}

fn list(machine: Option<Did>, stream: Option<&str>, context: &Context) -> Result<(), CliError> {
    let (_, feeds) = all_feeds(context)?;
    let datasets: Vec<DatasetSummary> = feeds
        .into_iter()
        .filter(|feed| machine.is_none_or(|machine| machine == feed.machine))
        .flat_map(|feed| feed.datasets)
        .filter(|dataset| stream.is_none_or(|name| dataset.stream == name || dataset.stream_id.to_string() == name))
        .collect();
    context.output.document(&datasets, |out| {
        if datasets.is_empty() {
            return writeln!(
                out,
                "No datasets. A machine makes them with `tributary ingest`; a buyer sees those of the feeds it follows."
            );
        }
        table(&datasets).write(out)
    })
}

fn show_one(dataset: &str, context: &Context) -> Result<(), CliError> {
    let detail: DatasetDetail = match context.running()? {
        Some(client) => block_on(async { Ok(client.get(&format!("/v1/datasets/{}", segment(dataset))).await?) })?,
        None => {
            let offline = context.offline()?;
            let detail = control::detail(&offline.store, dataset).map_err(CliError::from);
            offline.close()?;
            detail?
        }
    };
    context.output.document(&detail, |out| {
        let found = &detail.summary;
        let mut table = Table::new();
        table
            .row(["dataset", &found.dataset.to_string()])
            .row(["machine", &found.machine.to_string()])
            .row(["stream", &found.stream])
            .row(["state", state(found)])
            .row(["holds", &found.content])
            .row(["from", &show::time(found.from_ms)])
            .row(["to", &show::time(found.to_ms)])
            .row(["chunks", &show::count(found.chunks.into())]);
        if let (Some(packages), Some(bytes)) = (found.packages, found.bytes) {
            table.row(["packages", &show::count(packages)]).row(["ciphertext", &show::bytes(bytes)]);
        }
        if let Some(root) = &found.merkle_root {
            table.row(["Merkle root", root]);
        }
        let held =
            format!("{} of {}", show::count(detail.held_chunks.into()), show::some(found.chunks.into(), "chunk"));
        table.row(["here", &format!("{held} ({})", show::bytes(detail.held_bytes))]);
        table.write(out)
    })
}

/// A text as part of a route: what is no id digit cannot lead anywhere, but must not lead elsewhere.
fn segment(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_alphanumeric).take(128).collect();
    if digits.is_empty() { "-".to_owned() } else { digits }
}

fn close(stream: Option<String>, context: &Context) -> Result<(), CliError> {
    let request = CloseRequest { stream };
    let closed: Closed = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/datasets/close", &request).await?) })?,
        None => {
            // Opening the machine closes what a stop left open; nothing else can be open without a node.
            let offline = context.offline()?;
            let before = control::all_feeds(&offline.store).map_err(told)?;
            let keys = context.keys(&offline.home)?;
            let machine = offline.machine(&keys)?;
            let result = machine.close_datasets(request.stream.as_deref()).map_err(told);
            machine.shutdown().map_err(told)?;
            drop(machine);
            result?;
            let own = keys.identity.did();
            let open = before.into_iter().filter(|feed| feed.machine == own).flat_map(|feed| feed.datasets);
            let datasets = open.filter(|dataset| !dataset.closed).map(|dataset| dataset.dataset).collect();
            offline.close()?;
            Closed { datasets }
        }
    };
    context.output.document(&closed, |out| {
        if closed.datasets.is_empty() {
            return writeln!(out, "No dataset was open.");
        }
        for dataset in &closed.datasets {
            writeln!(out, "closed dataset {dataset}")?;
        }
        Ok(())
    })
}
