//! The feeds that a buyer follows, and its subscriptions.

use std::{collections::BTreeMap, fmt};

use super::{MAX_NAMED, OTHERS, Page, Snapshot, Value};
use crate::{
    metrics::catalog::metrics,
    service::status::{FollowedStatus, SubscriptionState, SubscriptionStatus},
};

metrics! {
    FEEDS = Gauge "tributary_feeds" in "feeds" by []: "Feeds that are followed.";
    ENTRIES = Gauge "tributary_feed_entries" in "entries" by ["machine"]: "Entries of a followed feed that are here.";
    MISSING = Gauge "tributary_feed_missing_entries" in "entries" by ["machine"]: "Entries that the machine says there are and that are not here.";
    HEAD_AGE = Gauge "tributary_feed_head_age_seconds" in "seconds" by ["machine"]: "Age of the oldest of the newest heads of its logs: minutes mean that the machine is offline, or somebody keeps its news back.";
    STALE = Gauge "tributary_feed_stale_binding" in "0 or 1" by ["machine"]: "Whether the machine's newest binding is past its time.";
    EQUIVOCATIONS = Gauge "tributary_feed_equivocations" in "proofs" by ["machine"]: "Proofs that the machine tells two stories.";
    NOISE = Counter "tributary_feed_noise_messages" in "messages" by ["machine"]: "Entries and heads that counted for nothing.";
    FLAGGED = Counter "tributary_feed_flagged_entries" in "entries" by ["machine"]: "Entries that count and looked odd.";
    LAG = Histogram "tributary_feed_lag_seconds" in "seconds" by []: "From the time in an entry, by the machine's clock, to its arrival over gossip, by this one's.";
    SUBSCRIPTIONS = Gauge "tributary_subscriptions" in "subscriptions" by ["state"]: "Live subscriptions, by state: `starting`, `live`, `waiting`, `failing`, `ended`, `passive`.";
    BEHIND = Gauge "tributary_subscription_behind_chunks" in "chunks" by ["machine", "stream"]: "Chunks that are announced and not taken yet.";
    CHUNKS = Gauge "tributary_subscription_chunks" in "chunks" by ["machine", "stream"]: "Chunks taken, since the subscription began.";
    WRITTEN = Gauge "tributary_subscription_packages" in "packages" by ["machine", "stream"]: "Packages written, since the subscription began.";
    SKIPPED = Gauge "tributary_subscription_skipped_chunks" in "chunks" by ["machine", "stream"]: "Chunks left out because nobody had them any more.";
}

/// How a followed feed stands, or several together.
#[derive(Default, Clone, Copy)]
struct Feed {
    entries: u64,
    missing: u64,
    head_age_s: Option<u64>,
    stale: bool,
    equivocations: u64,
    noise: u64,
    flagged: u64,
}

impl Feed {
    fn add(&mut self, status: &FollowedStatus) {
        for log in &status.logs {
            self.entries += log.entries.saturating_sub(log.first);
            self.missing += log.announced.unwrap_or(log.entries).saturating_sub(log.entries);
            self.head_age_s = self.head_age_s.max(log.head_age_s);
        }
        self.stale |= status.stale_binding;
        self.equivocations += status.equivocations;
        self.noise += status.noise;
        self.flagged += status.flagged;
    }
}

/// How a subscription stands, or several together.
#[derive(Default, Clone, Copy)]
struct Copied {
    behind: u64,
    chunks: u64,
    packages: u64,
    skipped: u64,
}

impl Copied {
    fn add(&mut self, status: &SubscriptionStatus) {
        self.behind += status.behind;
        self.chunks += status.chunks;
        self.packages += status.packages;
        self.skipped += status.skipped;
    }
}

fn state_name(state: SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::Starting => "starting",
        SubscriptionState::Live => "live",
        SubscriptionState::Waiting => "waiting",
        SubscriptionState::Failing => "failing",
        SubscriptionState::Ended => "ended",
        SubscriptionState::Passive => "passive",
    }
}

const STATES: [SubscriptionState; 6] = [
    SubscriptionState::Starting,
    SubscriptionState::Live,
    SubscriptionState::Waiting,
    SubscriptionState::Failing,
    SubscriptionState::Ended,
    SubscriptionState::Passive,
];

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let status = &snapshot.status;
    page.one(&FEEDS, status.followed.len())?;
    let mut feeds: BTreeMap<String, Feed> = BTreeMap::new();
    for feed in &status.followed {
        let name = feed.did.to_string();
        let named = feeds.len() < MAX_NAMED;
        feeds.entry(if named { name } else { OTHERS.to_owned() }).or_default().add(feed);
    }
    let of = |value: fn(&Feed) -> Value| {
        feeds.iter().map(move |(machine, feed)| ([machine.as_str()], value(feed))).collect::<Vec<_>>()
    };
    page.each(&ENTRIES, of(|feed| feed.entries.into()))?;
    page.each(&MISSING, of(|feed| feed.missing.into()))?;
    let ages = feeds.iter().filter_map(|(machine, feed)| Some(([machine.as_str()], feed.head_age_s?)));
    page.each(&HEAD_AGE, ages)?;
    page.each(&STALE, of(|feed| feed.stale.into()))?;
    page.each(&EQUIVOCATIONS, of(|feed| feed.equivocations.into()))?;
    page.each(&NOISE, of(|feed| feed.noise.into()))?;
    page.each(&FLAGGED, of(|feed| feed.flagged.into()))?;
    page.one(&LAG, snapshot.timings.feed_lag)?;

    let count = |state| status.subscriptions.iter().filter(|subscription| subscription.state == state).count();
    page.each(&SUBSCRIPTIONS, STATES.map(|state| ([state_name(state)], count(state))))?;
    let mut copies: BTreeMap<(String, &str), Copied> = BTreeMap::new();
    for subscription in &status.subscriptions {
        let named = copies.len() < MAX_NAMED;
        let own = || (subscription.machine.to_string(), subscription.stream.as_str());
        copies.entry(if named { own() } else { (OTHERS.to_owned(), OTHERS) }).or_default().add(subscription);
    }
    let of = |value: fn(&Copied) -> u64| {
        copies.iter().map(move |((machine, stream), copied)| ([machine.as_str(), *stream], value(copied)))
    };
    page.each(&BEHIND, of(|copied| copied.behind))?;
    page.each(&CHUNKS, of(|copied| copied.chunks))?;
    page.each(&WRITTEN, of(|copied| copied.packages))?;
    page.each(&SKIPPED, of(|copied| copied.skipped))
}
