//! `tributary access`: who may read what.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use tributary_protocol::ids::Did;

use super::{CliError, Context, Exit, Table, reach::block_on, selection::SelectionArgs, show};
use crate::{
    config::parse_duration,
    control::{
        api::{
            AccessList, AccessRequestBody, AccessResult, AuditEvent, AuditLine, AuditRequest, Decide, FetchRequest,
            GrantFile, ImportRequest, Imported, ListAccess, Order, OrderRange, OrderState, QuoteInfo, Revocation,
            RevokeRequest, Stage,
        },
        audit_lines, import_file,
    },
    machine::system_clock,
};

/// `tributary access`
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Ask what data cost
    Quote {
        #[command(flatten)]
        selection: SelectionArgs,
    },
    /// Ask a machine for the keys of data; exit code 4 when it says no, or has not decided in time
    Request {
        #[command(flatten)]
        selection: SelectionArgs,
        /// How long to wait for the decision; 0s does not wait
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait)]
        wait: Duration,
    },
    /// Ask again for the decision about a request that was made here
    Fetch {
        /// Its id, or at least 6 digits of it
        request: String,
        /// How long to wait for the decision; 0s does not wait
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait)]
        wait: Duration,
    },
    /// List requests, received and made, and the keys that were granted here
    Ls {
        /// Only requests that are not decided
        #[arg(long)]
        pending: bool,
    },
    /// Grant what a buyer asked for
    Approve {
        /// The request's id, or at least 6 digits of it
        request: String,
    },
    /// Refuse what a buyer asked for
    Deny {
        /// The request's id, or at least 6 digits of it
        request: String,
        /// What the buyer is told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Grant a buyer nothing more. Keys that were granted already cannot be taken back
    Revoke {
        /// The buyer
        buyer: Did,
        /// Only of this stream, by name; can be given again [default: all]
        #[arg(long, value_name = "NAME")]
        stream: Vec<String>,
        /// Begin a new key epoch too, so that keys granted for times to come are worth nothing
        #[arg(long)]
        now: bool,
    },
    /// Print the audit log: every quote, request, decision and delivery
    Audit {
        /// From this line on
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u64,
        /// At most so many lines
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
    },
    /// Take the keys in a file that `tributary grant` wrote
    Import {
        /// The file
        file: PathBuf,
    },
}

fn wait(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("expected {}", crate::config::DURATION_FORM))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn run(command: &AccessCommand, context: &Context) -> Result<(), CliError> {
    match command {
        AccessCommand::Quote { selection } => quote(selection, context),
        AccessCommand::Request { selection, wait } => {
            let client = context.node()?;
            let body = AccessRequestBody { selection: selection.request(system_clock()())?, wait_ms: millis(*wait) };
            let result = block_on(async { Ok(client.run("/v1/access/request", &body, |_: Stage| {}).await?) })?;
            outcome(&result, context)
        }
        AccessCommand::Fetch { request, wait } => {
            let client = context.node()?;
            let body = FetchRequest { request: request.clone(), wait_ms: millis(*wait) };
            let result = block_on(async { Ok(client.run("/v1/access/fetch", &body, |_: Stage| {}).await?) })?;
            outcome(&result, context)
        }
        AccessCommand::Ls { pending } => list(*pending, context),
        AccessCommand::Approve { request } => decide("/v1/access/approve", request, None, context),
        AccessCommand::Deny { request, reason } => decide("/v1/access/deny", request, reason.clone(), context),
        AccessCommand::Revoke { buyer, stream, now } => revoke(*buyer, stream, *now, context),
        AccessCommand::Audit { from, limit } => audit(AuditRequest { from: *from, limit: *limit }, context),
        AccessCommand::Import { file } => import(file, context),
    }
}

fn quote(selection: &SelectionArgs, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let request = selection.request(system_clock()())?;
    let quote: QuoteInfo = block_on(async { Ok(client.post("/v1/access/quote", &request).await?) })?;
    context.output.document(&quote, |out| {
        let price = if quote.amount == "0" {
            "nothing".to_owned()
        } else {
            format!("{} {} on {}", quote.amount, quote.token, quote.chain)
        };
        let mut table = Table::new();
        table
            .row(["machine", &quote.machine.to_string()])
            .row(["costs", &price])
            .row(["binds until", &show::time(quote.expires_ms)])
            .row(["quote", &quote.quote.to_string()]);
        table.write(out)
    })
}

fn outcome(result: &AccessResult, context: &Context) -> Result<(), CliError> {
    context.output.document(result, |out| {
        if result.outcome == "granted" {
            writeln!(out, "{} granted {}.", result.machine, show::some(result.grants.len() as u64, "key range"))?;
            writeln!(out, "\nNext: get the data with `tributary pull`.")
        } else {
            writeln!(out, "{} has not decided about request {}.", result.machine, result.request)
        }
    })?;
    if result.outcome == "granted" {
        return Ok(());
    }
    let id = show::short(&result.request);
    Err(CliError::new(Exit::AccessDenied, "access is not decided yet")
        .cause("the machine's operator has to approve it")
        .hint(format!("ask again later with `tributary access fetch {id}`")))
}

fn list(pending: bool, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let list: AccessList = block_on(async { Ok(client.post("/v1/access/list", &ListAccess { pending }).await?) })?;
    context.output.document(&list, |out| {
        if list.received.is_empty() && list.open.is_empty() && list.grants.is_empty() && list.given.is_empty() {
            return writeln!(out, "Nothing.");
        }
        if !list.received.is_empty() {
            writeln!(out, "Received:")?;
            let mut table = Table::new();
            table.row(["REQUEST", "BUYER", "STATE", "WHEN", "FOR"]);
            for order in &list.received {
                let what: Vec<String> = order.ranges.iter().map(range).collect();
                table.row([
                    order.id.to_string(),
                    order.buyer.to_string(),
                    state(order),
                    show::time(order.received_ms),
                    what.join(", "),
                ]);
            }
            table.write(out)?;
        }
        if !list.given.is_empty() {
            writeln!(out, "Given by hand:")?;
            let mut table = Table::new();
            table.row(["ID", "BUYER", "WHEN", "FOR"]);
            for given in &list.given {
                let what: Vec<String> = given.ranges.iter().map(range).collect();
                table.row([
                    given.id.to_string(),
                    given.buyer.to_string(),
                    show::time(given.issued_ms),
                    what.join(", "),
                ]);
            }
            table.write(out)?;
        }
        if !list.open.is_empty() {
            writeln!(out, "Made here, not decided:")?;
            let mut table = Table::new();
            table.row(["REQUEST", "MACHINE", "UNTIL"]);
            for open in &list.open {
                table.row([open.request.to_string(), open.machine.to_string(), show::time(open.expires_ms)]);
            }
            table.write(out)?;
        }
        if !list.grants.is_empty() {
            writeln!(out, "Granted here:")?;
            let mut table = Table::new();
            table.row(["MACHINE", "STREAM", "EPOCH", "FROM", "TO"]);
            for grant in &list.grants {
                table.row([
                    grant.machine.to_string(),
                    show::short(&grant.stream),
                    grant.epoch.to_string(),
                    grant.first.clone(),
                    grant.last.clone(),
                ]);
            }
            table.write(out)?;
        }
        Ok(())
    })
}

fn audit(request: AuditRequest, context: &Context) -> Result<(), CliError> {
    let lines: Vec<AuditLine> = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/access/audit", &request).await?) })?,
        None => {
            let offline = context.offline()?;
            let lines = audit_lines(&offline.store, request).map_err(CliError::from);
            offline.close()?;
            lines?
        }
    };
    context.output.document(&lines, |out| {
        if lines.is_empty() {
            return writeln!(out, "Nothing.");
        }
        let mut table = Table::new();
        table.row(["LINE", "WHEN", "WHAT", "BUYER", "REQUEST", "WHY"]);
        for AuditLine { number, record } in &lines {
            table.row([
                number.to_string(),
                show::time(record.time_ms),
                event(record.event).to_owned(),
                record.buyer.to_string(),
                record.request.as_ref().map_or_else(|| "-".to_owned(), show::short),
                record.detail.clone(),
            ]);
        }
        table.write(out)
    })
}

fn event(event: AuditEvent) -> &'static str {
    match event {
        AuditEvent::Quoted => "quoted",
        AuditEvent::Requested => "requested",
        AuditEvent::Granted => "granted",
        AuditEvent::Denied => "denied",
        AuditEvent::Delivered => "delivered",
        AuditEvent::Revoked => "revoked",
        AuditEvent::Reinstated => "reinstated",
    }
}

fn state(order: &Order) -> String {
    match &order.state {
        OrderState::Pending => "waits".to_owned(),
        OrderState::Granted { delivered_ms: None, .. } => "granted".to_owned(),
        OrderState::Granted { .. } => "granted, delivered".to_owned(),
        OrderState::Denied { reason, .. } => format!("denied: {reason}"),
    }
}

fn range(range: &OrderRange) -> String {
    match range {
        OrderRange::Dataset { dataset } => format!("dataset {}", show::short(dataset)),
        OrderRange::Time { stream, from_ms, to_ms } => {
            let to = if *to_ms == u64::MAX { "now".to_owned() } else { show::time(*to_ms) };
            format!("stream {} from {} to {to}", show::short(stream), show::time(*from_ms))
        }
        OrderRange::Positions { stream, epoch, .. } => {
            format!("keys of epoch {epoch} of stream {}", show::short(stream))
        }
        OrderRange::Live { stream, seconds } => {
            format!("stream {} for the next {}", show::short(stream), show::age(u64::from(*seconds) * 1000))
        }
    }
}

fn decide(route: &str, request: &str, reason: Option<String>, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let body = Decide { request: request.to_owned(), reason };
    let order: Order = block_on(async { Ok(client.post(route, &body).await?) })?;
    context.output.document(&order, |out| writeln!(out, "Request {} of {}: {}.", order.id, order.buyer, state(&order)))
}

fn revoke(buyer: Did, streams: &[String], now: bool, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let body = RevokeRequest { buyer, streams: streams.to_vec(), now };
    let done: Vec<Revocation> = block_on(async { Ok(client.post("/v1/access/revoke", &body).await?) })?;
    context.output.document(&done, |out| {
        for revoked in &done {
            let epoch = if revoked.epoch_renewed { "; a new key epoch begins with the next chunk" } else { "" };
            writeln!(out, "{}: nothing more for {}{epoch}", revoked.stream, revoked.buyer)?;
        }
        if !now {
            writeln!(
                out,
                "\nKeys that were granted stay good for their ranges. To end what was granted ahead, add --now."
            )?;
        }
        Ok(())
    })
}

/// The largest grant file: 64 ranges of keys and a long chain of bindings.
const MAX_FILE: u64 = 64 << 20;

fn import(path: &std::path::Path, context: &Context) -> Result<(), CliError> {
    let shown = path.display();
    let read = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        CliError::new(code, format!("{shown} cannot be read")).cause(error)
    };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(CliError::new(Exit::Usage, format!("{shown} is too large for a grant file")));
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let file: GrantFile = serde_json::from_slice(&bytes).map_err(|error| {
        CliError::new(Exit::Usage, format!("{shown} is not a grant file"))
            .cause(error)
            .hint("use one that `tributary grant` wrote")
    })?;
    let imported: Imported = match context.running()? {
        Some(client) => block_on(async { Ok(client.post("/v1/access/import", &ImportRequest { file }).await?) })?,
        None => {
            let offline = context.offline()?;
            let keys = context.keys(&offline.home)?;
            let imported = block_on(async {
                let buyer = offline.buyer(&keys)?;
                import_file(&buyer, &file).await.map_err(CliError::from)
            });
            offline.close()?;
            imported?
        }
    };
    context.output.document(&imported, |out| {
        writeln!(out, "Took {} of {}.", show::some(imported.grants, "grant"), imported.machine)
    })
}
