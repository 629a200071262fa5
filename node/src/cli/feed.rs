//! `tributary feed` and `tributary subscribe`: what machines publish.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tributary_protocol::ids::Did;

use super::{
    CliError, Context, Exit, Table,
    ingest::absolute,
    reach::{block_on, told},
    show,
};
use crate::{
    config::DEFAULT_ROTATE,
    control::{
        self, Feed,
        api::{
            Empty, FeedChange, FollowFeedRequest, Following, SinkTerms, SubscribeRequest, SubscriptionTerms,
            UnsubscribeRequest,
        },
    },
    feeds::JoinPoint,
};

/// `tributary feed`
#[derive(Debug, Subcommand)]
pub enum FeedCommand {
    /// List the feeds that are known here
    Ls,
    /// Show one feed: its streams and datasets
    Show {
        /// The machine [default: the only feed there is, or this machine's own]
        machine: Option<Did>,
    },
    /// Print what comes in on followed feeds, until it is stopped
    Follow {
        /// Only this machine
        machine: Option<Did>,
        /// End after so many changes
        #[arg(long, value_name = "COUNT")]
        count: Option<u64>,
    },
}

/// `tributary subscribe`
#[derive(Debug, clap::Args)]
pub struct SubscribeArgs {
    /// The feed link that the machine's operator gave you: tributary://did:peaq:0x…?addr=/ip4/…
    link: String,
    /// Only this stream, by name; can be given again [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// From where: `start` is everything, `now` is from the datasets that are being written on, `dataset:ID` is from that
    /// dataset on (all 64 digits). A later call can go back to an earlier place [default: start]
    #[arg(long, value_name = "PLACE")]
    from: Option<JoinPoint>,
    /// Keep the keys of the streams: ask for the next range before the prepaid one ends
    #[arg(long, requires = "stream")]
    auto_renew: bool,
    /// How much is asked for at a time, such as 15m; at most what the machine grants ahead
    #[arg(long, value_name = "DURATION", value_parser = super::selection::duration, requires = "auto_renew", default_value = "15m")]
    live: Duration,
    /// The most that one request may cost, in the smallest units of the machine's token
    #[arg(long, value_name = "AMOUNT", requires = "auto_renew", default_value_t = 0)]
    max_price: u128,
    /// Pull the chunks of the streams as they are announced
    #[arg(long, requires = "stream")]
    pull: bool,
    /// Write the packages of the streams into rolling NDJSON files in this folder, as they come; pulls, too
    #[arg(long, value_name = "DIR", requires = "stream")]
    out: Option<PathBuf>,
    /// Begin the next file when one has grown to this size
    #[arg(long, value_name = "BYTES", requires = "out", default_value_t = DEFAULT_ROTATE)]
    rotate_bytes: u64,
    /// Stop following and subscribing instead; what is stored stays
    #[arg(long, conflicts_with_all = ["stream", "from"])]
    stop: bool,
}

impl SubscribeArgs {
    /// What is kept up of the streams; `None` when it is only their feed.
    fn terms(&self) -> Result<Option<SubscriptionTerms>, CliError> {
        if !self.auto_renew && !self.pull && self.out.is_none() {
            return Ok(None);
        }
        let sink = match &self.out {
            Some(dir) => Some(SinkTerms { dir: absolute(dir)?, rotate_bytes: self.rotate_bytes }),
            None => None,
        };
        Ok(Some(SubscriptionTerms {
            stream: String::new(),
            renew: self.auto_renew,
            live_seconds: u32::try_from(self.live.as_secs()).unwrap_or(u32::MAX),
            max_price: self.max_price,
            pull: self.pull || sink.is_some(),
            sink,
        }))
    }
}

/// A feed in the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    machine: Did,
    own: bool,
    streams: usize,
    datasets: usize,
    entries: u64,
    newest_ms: Option<u64>,
}

pub(super) fn all_feeds(context: &Context) -> Result<(Did, Vec<Feed>), CliError> {
    let own = context.home()?.public_keys()?.did;
    let feeds = match context.running()? {
        Some(client) => block_on(async { Ok(client.get("/v1/feeds").await?) })?,
        None => {
            let offline = context.offline()?;
            let feeds = control::all_feeds(&offline.store).map_err(told)?;
            offline.close()?;
            feeds
        }
    };
    Ok((own, feeds))
}

pub(super) fn run(command: &FeedCommand, context: &Context) -> Result<(), CliError> {
    match command {
        FeedCommand::Ls => list(context),
        FeedCommand::Show { machine } => show_one(*machine, context),
        FeedCommand::Follow { machine, count } => follow(*machine, *count, context),
    }
}

fn list(context: &Context) -> Result<(), CliError> {
    let (own, feeds) = all_feeds(context)?;
    let rows: Vec<Row> = feeds
        .iter()
        .map(|feed| Row {
            machine: feed.machine,
            own: feed.machine == own,
            streams: feed.streams.len(),
            datasets: feed.datasets.len(),
            entries: feed.entries + feed.streams.iter().map(|stream| stream.chunks).sum::<u64>(),
            newest_ms: feed.newest_ms,
        })
        .collect();
    context.output.document(&rows, |out| {
        if rows.is_empty() {
            return writeln!(out, "No feeds yet. Follow one with `tributary subscribe LINK`.");
        }
        let mut table = Table::new();
        table.row(["MACHINE", "STREAMS", "DATASETS", "ENTRIES", "NEWEST", ""]);
        for row in &rows {
            table.row([
                row.machine.to_string(),
                row.streams.to_string(),
                row.datasets.to_string(),
                show::count(row.entries),
                row.newest_ms.map_or_else(|| "-".to_owned(), show::time),
                if row.own { "this machine".to_owned() } else { String::new() },
            ]);
        }
        table.write(out)
    })
}

fn show_one(machine: Option<Did>, context: &Context) -> Result<(), CliError> {
    let (own, mut feeds) = all_feeds(context)?;
    let at = match machine {
        Some(machine) => feeds.iter().position(|feed| feed.machine == machine),
        None if feeds.len() == 1 => Some(0),
        None => feeds.iter().position(|feed| feed.machine == own),
    };
    let Some(at) = at else {
        let what = machine
            .map_or_else(|| "no feed is named".to_owned(), |machine| format!("nothing of {machine} is known here"));
        return Err(CliError::new(Exit::NotFound, what)
            .hint("list feeds with `tributary feed ls`; follow one with `tributary subscribe LINK`"));
    };
    let feed = feeds.swap_remove(at);
    context.output.document(&feed, |out| {
        writeln!(out, "{} (incarnation {})", feed.machine, feed.incarnation)?;
        if let Some(followed) = &feed.followed {
            writeln!(out, "followed since {}, streams from: {}", show::time(followed.since_ms), followed.from)?;
        }
        writeln!(out)?;
        let mut table = Table::new();
        table.row(["STREAM", "MODE", "ACCESS", "CHUNKS", "NEWEST", "TYPE"]);
        for stream in &feed.streams {
            table.row([
                stream.name.clone(),
                stream.mode.clone(),
                stream.policy.clone(),
                show::count(stream.chunks),
                stream.newest_ms.map_or_else(|| "-".to_owned(), show::time),
                stream.message_type.clone(),
            ]);
        }
        table.write(out)?;
        for stream in feed.streams.iter().filter(|stream| stream.from_seq > 0) {
            writeln!(
                out,
                "{} is followed from entry {} of its log on: what is before is not here, and nothing is proven of it.",
                stream.name, stream.from_seq
            )?;
        }
        writeln!(out)?;
        super::dataset::table(&feed.datasets).write(out)
    })
}

fn follow(machine: Option<Did>, count: Option<u64>, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let request = FollowFeedRequest { machine, count };
    let output = context.output;
    let mut failed = None;
    block_on(async {
        let print = |change: FeedChange| {
            let printed = output.event(&change, || {
                let log = change.stream.as_deref().unwrap_or("machine log");
                match change.what.as_str() {
                    "equivocation" => format!("{}  SIGNED TWO STORIES: the feed is flagged", change.machine),
                    _ => format!("{}  {log}  {}", change.machine, entries(change.count)),
                }
            });
            if let Err(error) = printed {
                failed.get_or_insert(error);
            }
        };
        let _: Empty = client.run("/v1/feeds/watch", &request, print).await?;
        Ok(())
    })?;
    failed.map_or(Ok(()), Err)
}

pub(super) fn subscribe(args: &SubscribeArgs, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    if args.stop {
        let request = UnsubscribeRequest { machine: args.link.clone() };
        let _: Empty = block_on(async { Ok(client.post("/v1/unsubscribe", &request).await?) })?;
        return context.output.document(&Empty {}, |out| writeln!(out, "No longer following; what is stored stays."));
    }
    let request = SubscribeRequest {
        link: args.link.clone(),
        streams: args.stream.clone(),
        from: args.from.map(|from| from.to_string()),
        live: args.terms()?,
    };
    let followed: Following = block_on(async { Ok(client.post("/v1/subscribe", &request).await?) })?;
    context.output.document(&followed, |out| {
        let streams = match &followed.streams {
            None => "all streams".to_owned(),
            Some(names) => names.join(", "),
        };
        writeln!(out, "Following {}: {streams}; {} came.", followed.machine, entries(followed.entries))?;
        if followed.from != "start" {
            writeln!(
                out,
                "Streams are followed from {} on. Datasets from there on are proven as always; of what was before nothing is \
                 known or claimed.",
                followed.from
            )?;
        }
        if request.live.is_some() {
            return writeln!(out, "\nIts streams are kept up by themselves. See how they stand with `tributary status`.");
        }
        writeln!(out, "\nNext: see what it offers with `tributary feed show {}`.", followed.machine)
    })
}

fn entries(count: u64) -> String {
    if count == 1 { "1 new entry".to_owned() } else { format!("{} new entries", show::count(count)) }
}
