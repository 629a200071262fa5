//! `tributary feed` and `tributary subscribe`: what machines publish.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tributary_protocol::ids::Did;

use super::{
    CliError, Context, Exit, Table,
    reach::{block_on, told},
    show,
};
use crate::control::{
    self, Feed,
    api::{Empty, FeedChange, FollowFeedRequest, Following, SubscribeRequest, UnsubscribeRequest},
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
    /// Stop following instead; what is stored stays
    #[arg(long, conflicts_with = "stream")]
    stop: bool,
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
        writeln!(out, "{} (incarnation {})\n", feed.machine, feed.incarnation)?;
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
    let request = SubscribeRequest { link: args.link.clone(), streams: args.stream.clone() };
    let followed: Following = block_on(async { Ok(client.post("/v1/subscribe", &request).await?) })?;
    context.output.document(&followed, |out| {
        let streams = match &followed.streams {
            None => "all streams".to_owned(),
            Some(names) => names.join(", "),
        };
        writeln!(out, "Following {}: {streams}; {} came.", followed.machine, entries(followed.entries))?;
        writeln!(out, "\nNext: see what it offers with `tributary feed show {}`.", followed.machine)
    })
}

fn entries(count: u64) -> String {
    if count == 1 { "1 new entry".to_owned() } else { format!("{} new entries", show::count(count)) }
}
