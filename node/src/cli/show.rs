//! Numbers, times and sizes as people read them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Table;
use crate::{
    control::api::{Step, StepState},
    export::{ChannelEncoding, McapChannel},
};

/// A time in ms since 1970, to the second, UTC.
pub(super) fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms"))
}

/// A size to three digits, in units of 1024.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A number with separators.
pub(super) fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// A duration in ms, to the second.
pub(super) fn age(ms: u64) -> String {
    if ms < 1000 { format!("{ms}ms") } else { crate::config::show_duration(std::time::Duration::from_secs(ms / 1000)) }
}

/// "1 chunk", "2 chunks".
pub(super) fn some(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// "1 process", "2 processes".
pub(super) fn processes(number: u64) -> String {
    format!("{} process{}", count(number), if number == 1 { "" } else { "es" })
}

/// Which channels of an MCAP file are as recorded: "4 topics as recorded (CDR), 2 as JSON: /battery, /fix".
pub(super) fn channels(channels: &[McapChannel]) -> String {
    let (cdr, json): (Vec<_>, Vec<_>) = channels.iter().partition(|channel| channel.encoding == ChannelEncoding::Cdr);
    let recorded = format!("{} as recorded (CDR)", some(cdr.len() as u64, "topic"));
    let names: Vec<&str> = json.iter().map(|channel| channel.topic.as_str()).collect();
    match (cdr.len(), json.len()) {
        (_, 0) => recorded,
        (0, n) => format!("{} as JSON: {}", some(n as u64, "topic"), names.join(", ")),
        (_, n) => format!("{recorded}, {n} as JSON: {}", names.join(", ")),
    }
}

/// The steps of a verification, a row each.
pub(super) fn steps(steps: &[Step]) -> Table {
    let mut table = Table::new();
    for step in steps {
        let state = match step.state {
            StepState::Passed => "ok",
            StepState::Partial => "partly",
            StepState::Skipped => "skipped",
            StepState::Failed => "FAILED",
        };
        table.row([step.name.as_str(), state, &step.detail]);
    }
    table
}

/// The start of an id, long enough to name it.
pub(super) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_readable() {
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
        assert_eq!(bytes(256 << 10), "256.00 KiB");
        assert_eq!((some(1, "chunk"), some(1200, "chunk")), ("1 chunk".to_owned(), "1,200 chunks".to_owned()));
        let channel = |topic: &str, encoding| McapChannel {
            topic: topic.to_owned(),
            message_type: String::new(),
            encoding,
            reason: None,
        };
        let all = ["/a", "/b"].map(|topic| channel(topic, ChannelEncoding::Json));
        assert_eq!(channels(&all), "2 topics as JSON: /a, /b");
        let all = [channel("/a", ChannelEncoding::Cdr), channel("/b", ChannelEncoding::Json)];
        assert_eq!(channels(&all), "1 topic as recorded (CDR), 1 as JSON: /b");
        assert_eq!(channels(&all[..1]), "1 topic as recorded (CDR)");
        assert_eq!((age(12), age(61_500)), ("12ms".to_owned(), "1m1s".to_owned()));
    }
}
