//! `tributary peaq`: trade with peaq's own software.

use std::{io::Read as _, path::PathBuf};

use clap::Subcommand;
use libp2p::Multiaddr;
use serde::Serialize;
use tributary_protocol::{
    keys::FeedPublicKey,
    peaq::{
        access::{AccessEntry, MAX_ACCESS_FILE_BYTES, ParsedAccessFile},
        connect_url::ConnectUrl,
        frame::{FrameCode, Handshake},
        purchase::PurchaseDelivery,
        receiver::ReceiveError,
        sealed_box::BoxSecretKey,
    },
};
use zeroize::Zeroizing;

use super::{
    CliError, Context, Exit, Table,
    ingest::absolute,
    orders::{self, OrdersCommand},
    reach::block_on,
    show,
};
use crate::{
    config::parse_duration,
    control::api::{OfferRequest, Offered, PurchaseRequest},
    machine::system_clock,
    peaq::{
        DeliveryState, DeliveryStatus,
        receive::{Failure, Order, Receipt, receive},
    },
};

/// Longest file of a private key, bytes.
const MAX_KEY_FILE: u64 = 4096;

/// `tributary peaq`
#[derive(Debug, Subcommand)]
pub enum PeaqCommand {
    /// Open a delivery session for one of peaq's buyers, and print where it finds the chunks
    Offer(OfferArgs),
    /// List deliveries to peaq's buyers
    Deliveries,
    /// Close a delivery session
    Close {
        /// The purchase
        purchase: String,
    },
    /// Receive a purchase from one of peaq's sellers; needs no node and no home
    Receive(ReceiveArgs),
    /// See what buyers with peaq's SDK ordered, and decide about it
    #[command(subcommand)]
    Orders(OrdersCommand),
}

/// `tributary peaq offer`
#[derive(Debug, clap::Args)]
pub struct OfferArgs {
    /// A closed dataset of this machine, by its id or at least 6 digits of it
    #[arg(long, value_name = "DATASET", required_unless_present = "dir", conflicts_with = "dir")]
    dataset: Option<String>,
    /// A folder that `peaqos stream publish` wrote, or the ROS 2 agent
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The purchase (order) id
    #[arg(long, value_name = "ID")]
    purchase: String,
    /// The delivery session's id
    #[arg(long, value_name = "ID")]
    session: String,
    /// The buyer's id
    #[arg(long, value_name = "ID")]
    buyer_id: String,
    /// How long the buyer may come
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = ttl)]
    expires: u64,
    /// The buyer's public X25519 key, 64 hex digits: with --access-out, writes the keys of the dataset for it
    #[arg(long, value_name = "HEX", requires = "access_out")]
    buyer_key: Option<String>,
    /// The access file to write
    #[arg(long, value_name = "FILE", requires = "buyer_key")]
    access_out: Option<PathBuf>,
    /// Wait until the delivery is over; exit code 1 when it fails
    #[arg(long)]
    wait: bool,
}

/// `tributary peaq receive`
#[derive(Debug, clap::Args)]
pub struct ReceiveArgs {
    /// The answer of the marketplace (GET /purchases/<id>/delivery) as a file: everything in one
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "session", "access"])]
    delivery: Option<PathBuf>,
    /// Where the seller is: peaqos-p2p://…
    #[arg(long, value_name = "URL", requires_all = ["session", "access"])]
    url: Option<String>,
    /// The delivery session's id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// File with the keys of the chunks, from `peaqos stream grant` or `tributary peaq offer --access-out`; may be repeated
    #[arg(long, value_name = "FILE")]
    access: Vec<PathBuf>,
    /// File with the buyer's private X25519 key, 64 hex digits
    #[arg(long, value_name = "FILE")]
    buyer_key_file: PathBuf,
    /// The buyer's id
    #[arg(long, value_name = "ID")]
    buyer_id: String,
    /// Take only chunks that this Ed25519 key has signed, 64 hex digits; without it their origin is not proven
    #[arg(long, value_name = "HEX")]
    trust_key: Option<FeedPublicKey>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn ttl(text: &str) -> Result<u64, String> {
    let time = parse_duration(text).ok_or("a duration such as 5m")?;
    if time.as_secs() == 0 { Err("at least one second".to_owned()) } else { Ok(time.as_secs()) }
}

pub(super) fn run(command: &PeaqCommand, context: &Context) -> Result<(), CliError> {
    match command {
        PeaqCommand::Offer(args) => offer(args, context),
        PeaqCommand::Deliveries => deliveries(context),
        PeaqCommand::Close { purchase } => close(purchase, context),
        PeaqCommand::Receive(args) => receive_into_file(args, context),
        PeaqCommand::Orders(command) => orders::run(command, context),
    }
}

fn offer(args: &OfferArgs, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let request = OfferRequest {
        purchase: args.purchase.clone(),
        session: args.session.clone(),
        buyer: args.buyer_id.clone(),
        dataset: args.dataset.clone(),
        folder: args.dir.as_deref().map(absolute).transpose()?,
        ttl_seconds: Some(args.expires),
        buyer_key: args.buyer_key.clone(),
        access_out: args.access_out.as_deref().map(absolute).transpose()?,
    };
    let offered: Offered = block_on(async { Ok(client.post("/v1/peaq/offer", &request).await?) })?;
    context.output.document(&offered, |out| {
        writeln!(out, "{}", offered.url)?;
        writeln!(out, "{} wait for the buyer until {}.", show::some(offered.chunks, "chunk"), offered.expires_at)
    })?;
    if !args.wait {
        return Ok(());
    }
    let purchase = PurchaseRequest { purchase: args.purchase.clone() };
    let end: DeliveryStatus =
        block_on(async { Ok(client.run("/v1/peaq/watch", &purchase, |_: DeliveryStatus| {}).await?) })?;
    match &end.state {
        DeliveryState::Failed { reason } => {
            Err(CliError::new(Exit::Failed, "the delivery failed").cause(reason).hint("open a new session for it"))
        }
        _ => context.output.document(&end, |out| writeln!(out, "{}", in_words(&end.state))),
    }
}

fn in_words(state: &DeliveryState) -> String {
    match state {
        DeliveryState::Preparing => "being prepared".to_owned(),
        DeliveryState::Waiting => "waits for the buyer".to_owned(),
        DeliveryState::Sending => "the buyer is there".to_owned(),
        DeliveryState::Completed { bytes, confirmed, .. } => {
            let read = if *confirmed { ", and the buyer closed when it had read" } else { "" };
            format!("delivered, {} on the wire{read}", show::bytes(*bytes))
        }
        DeliveryState::Failed { reason } => format!("failed: {reason}"),
    }
}

fn deliveries(context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let all: Vec<DeliveryStatus> = block_on(async { Ok(client.get("/v1/peaq/deliveries").await?) })?;
    context.output.document(&all, |out| {
        let mut table = Table::new();
        table.row(["PURCHASE", "BUYER", "CHUNKS", "STATE"]);
        for delivery in &all {
            let buyer = delivery.buyer.clone().unwrap_or_default();
            table.row([delivery.purchase.clone(), buyer, show::count(delivery.chunks), in_words(&delivery.state)]);
        }
        table.write(out)
    })
}

fn close(purchase: &str, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let request = PurchaseRequest { purchase: purchase.to_owned() };
    let status: DeliveryStatus = block_on(async { Ok(client.post("/v1/peaq/close", &request).await?) })?;
    context.output.document(&status, |out| writeln!(out, "Closed the delivery of {}.", status.purchase))
}

/// What a purchase says, wherever it stands.
struct Terms {
    url: ConnectUrl,
    handshake: Handshake,
    access: Vec<AccessEntry>,
}

fn read_file(path: &std::path::Path, max: u64) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        CliError::new(code, format!("{} cannot be read", path.display())).cause(error)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(CliError::new(Exit::Usage, format!("{} has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

fn read_error(path: &std::path::Path) -> impl Fn(tributary_protocol::peaq::ReadError) -> CliError + '_ {
    move |error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        CliError::new(Exit::Usage, format!("{} is not of peaq's format", path.display())).cause(why)
    }
}

fn terms(args: &ReceiveArgs) -> Result<Terms, CliError> {
    let url_of = |text: &str| {
        ConnectUrl::parse(text).map_err(|error| CliError::new(Exit::Usage, "the URL is none of a seller").cause(error))
    };
    let max = MAX_ACCESS_FILE_BYTES as u64;
    let buyer_id = args.buyer_id.clone();
    if let Some(path) = &args.delivery {
        let delivery = PurchaseDelivery::parse(&read_file(path, max)?).map_err(read_error(path))?;
        let connect = delivery.check(system_clock()()).map_err(|error| {
            CliError::new(Exit::Failed, "this delivery cannot be received")
                .cause(error)
                .hint("ask the marketplace for it again")
        })?;
        let url = url_of(&connect.url)?;
        let handshake = Handshake {
            purchase_id: delivery.purchase_id.clone(),
            session_id: delivery.delivery.session_id.clone(),
            buyer_id,
        };
        return Ok(Terms { url, handshake, access: delivery.into_access() });
    }
    let url = url_of(args.url.as_deref().unwrap_or_default())?;
    let session_id = args.session.clone().unwrap_or_default();
    let mut access = Vec::new();
    for path in &args.access {
        let file = ParsedAccessFile::parse(&read_file(path, max)?).map_err(read_error(path))?;
        access.extend(file.entries.into_iter().filter(|entry| entry.buyer.recipient_id == args.buyer_id));
    }
    let handshake = Handshake { purchase_id: url.session.clone(), session_id, buyer_id };
    Ok(Terms { url, handshake, access })
}

fn key_of(path: &std::path::Path) -> Result<BoxSecretKey, CliError> {
    let bytes = Zeroizing::new(read_file(path, MAX_KEY_FILE)?);
    let text = std::str::from_utf8(&bytes).ok().map(str::trim);
    text.and_then(|text| BoxSecretKey::from_hex(text).ok()).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("{} does not hold a private X25519 key", path.display()))
            .hint("64 hex digits are expected, with or without 0x")
    })
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let (code, what) = match &failure {
            Failure::Connect(_) | Failure::Broken(_) | Failure::Silent => (Exit::Network, "nothing was received"),
            Failure::Delivery(ReceiveError::Incomplete) => (Exit::Network, "the delivery broke off"),
            Failure::Delivery(ReceiveError::Aborted(Some(FrameCode::SessionMismatch))) => {
                (Exit::AccessDenied, "the seller does not deliver to this buyer")
            }
            Failure::Delivery(ReceiveError::Aborted(_)) => (Exit::Failed, "the seller gave up"),
            Failure::Delivery(_) | Failure::Untrusted { .. } => {
                (Exit::VerificationFailed, "what the seller sent is not what was bought")
            }
            Failure::File(_) | Failure::Ended => (Exit::Failed, "nothing was received"),
        };
        let error = Self::new(code, what).cause(&failure);
        match &failure {
            Failure::Delivery(reason) => {
                error.hint(format!("peaq's SDK calls this {:?}; no file was written", reason.reason()))
            }
            Failure::Untrusted { .. } => error.hint("no file was written; ask the seller for the machine's key"),
            Failure::Connect(_) | Failure::Broken(_) | Failure::Silent => {
                error.hint("see that the seller is online, and ask for the delivery again")
            }
            _ => error,
        }
    }
}

fn receive_into_file(args: &ReceiveArgs, context: &Context) -> Result<(), CliError> {
    let key = key_of(&args.buyer_key_file)?;
    let Terms { url, handshake, access } = terms(args)?;
    if access.is_empty() {
        return Err(CliError::new(Exit::AccessDenied, format!("there are no keys for buyer {}", args.buyer_id))
            .hint("ask the seller for access, and check --buyer-id"));
    }
    let seller: Multiaddr = url
        .first_address()
        .parse()
        .map_err(|error| CliError::new(Exit::Usage, "the URL does not say where the seller is").cause(error))?;
    let bought = access.len() as u64;
    let bar = context.output.progress_count("receiving", Some(bought));
    let shown = bar.clone();
    let order = Order { handshake, seller, access, key, trusted: args.trust_key };
    let receipt: Receipt = block_on(async {
        Ok(receive(order, &args.out, move |done, all| {
            shown.set_length(all);
            shown.set_position(done);
        })
        .await?)
    })?;
    bar.finish_and_clear();
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Report<'a> {
        output: &'a std::path::Path,
        buyer_id: &'a str,
        #[serde(flatten)]
        receipt: &'a Receipt,
    }
    let report = Report { output: &args.out, buyer_id: &args.buyer_id, receipt: &receipt };
    context.output.document(&report, |out| {
        let (chunks, size) = (show::some(receipt.chunk_count, "chunk"), show::bytes(receipt.total_bytes));
        writeln!(out, "Wrote {chunks} ({size}) to {}.", args.out.display())?;
        writeln!(out, "Verdict: {}.", receipt.verdict)?;
        if let Some(signer) = receipt.signer.as_ref().filter(|_| !receipt.trusted) {
            writeln!(out, "They are signed by {signer}; give that with --trust-key once you know whose it is.")?;
        }
        Ok(())
    })
}
