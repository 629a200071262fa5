//! The feeds that a mirror keeps.

use std::{collections::BTreeMap, fmt};

use super::{MAX_NAMED, OTHERS, Page, Snapshot};
use crate::{metrics::catalog::metrics, service::status::MirroredStatus};

metrics! {
    FEEDS = Gauge "tributary_mirror_feeds" in "feeds" by []: "Feeds that are kept for others; without the role mirror it is missing, as the others here.";
    KNOWN = Gauge "tributary_mirror_known_chunks" in "chunks" by ["machine"]: "Chunks that the entries of a kept feed name.";
    KEPT = Gauge "tributary_mirror_chunks" in "chunks" by ["machine"]: "Of these, chunks that are here.";
    KEPT_BYTES = Gauge "tributary_mirror_bytes" in "bytes" by ["machine"]: "Their ciphertext.";
    MISSING = Gauge "tributary_mirror_missing_chunks" in "chunks" by ["machine"]: "Chunks that are to be kept and that nobody had.";
    DROPPED = Counter "tributary_mirror_dropped_chunks" in "chunks" by ["machine"]: "Chunks dropped for age or room; their entries stay.";
    DEPOSITS = Gauge "tributary_mirror_deposits" in "requests" by ["machine"]: "Requests that the machine left grants or a denial about, for their buyers.";
    PARTS = Counter "tributary_mirror_deposit_messages" in "messages" by ["result"]: "Messages with deposits: `taken`, `outdated` (something newer is here), `refused` (not signed by the machine, not of a kept feed, or no room).";
    GIVEN = Counter "tributary_mirror_deposit_answers" in "answers" by []: "Answers to buyers from deposits.";
    FETCHED = Counter "tributary_mirror_fetched_chunks" in "chunks" by ["machine"]: "Chunks fetched.";
}

/// How a kept feed stands, or several together.
#[derive(Default, Clone, Copy)]
struct Kept {
    known: u64,
    chunks: u64,
    bytes: u64,
    missing: u64,
    dropped: u64,
    fetched: u64,
    deposits: u64,
}

impl Kept {
    fn add(&mut self, status: &MirroredStatus) {
        self.known += status.chunks_known;
        self.chunks += status.chunks;
        self.bytes += status.bytes;
        self.missing += status.missing;
        self.dropped += status.dropped;
        self.fetched += status.fetched;
        self.deposits += status.deposits;
    }
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let Some(mirror) = &snapshot.status.mirror else { return Ok(()) };
    page.one(&FEEDS, mirror.feeds.len())?;
    let mut feeds: BTreeMap<String, Kept> = BTreeMap::new();
    for feed in &mirror.feeds {
        let named = feeds.len() < MAX_NAMED;
        let name = if named { feed.did.to_string() } else { OTHERS.to_owned() };
        feeds.entry(name).or_default().add(feed);
    }
    let of = |value: fn(&Kept) -> u64| feeds.iter().map(move |(machine, feed)| ([machine.as_str()], value(feed)));
    page.each(&KNOWN, of(|feed| feed.known))?;
    page.each(&KEPT, of(|feed| feed.chunks))?;
    page.each(&KEPT_BYTES, of(|feed| feed.bytes))?;
    page.each(&MISSING, of(|feed| feed.missing))?;
    page.each(&DROPPED, of(|feed| feed.dropped))?;
    page.each(&DEPOSITS, of(|feed| feed.deposits))?;
    let counts = &mirror.deposits;
    let results = [(["taken"], counts.taken), (["outdated"], counts.outdated), (["refused"], counts.refused)];
    page.each(&PARTS, results)?;
    page.one(&GIVEN, counts.given)?;
    page.each(&FETCHED, of(|feed| feed.fetched))
}
