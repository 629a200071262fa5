//! Selections on the command line: which data are meant.

use std::time::Duration;

use clap::Args;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tributary_protocol::ids::Did;

use super::{CliError, Exit};
use crate::{
    config::{DURATION_FORM, parse_duration},
    control::api::SelectionRequest,
};

/// Which data of which machine.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArgs {
    /// The machine; needed only when more than one is followed and no dataset is named
    #[arg(long, value_name = "DID")]
    pub machine: Option<Did>,
    /// A dataset, by its id or at least 6 digits of it; can be given again
    #[arg(long, value_name = "ID")]
    pub dataset: Vec<String>,
    /// A stream, by its name or id; can be given again
    #[arg(long, value_name = "NAME")]
    pub stream: Vec<String>,
    /// What the streams recorded in this time until now, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "stream", conflicts_with_all = ["from", "to", "live"])]
    pub last: Option<Duration>,
    /// What the streams recorded from here on (RFC 3339, such as 2026-01-31T12:00:00Z) [default: the beginning]
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "stream", conflicts_with = "live")]
    pub from: Option<u64>,
    /// What the streams recorded up to here (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "stream", conflicts_with = "live")]
    pub to: Option<u64>,
    /// What the streams will record in the next, such as 1h, instead of what they recorded
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "stream")]
    pub live: Option<Duration>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).filter(|found| !found.is_zero()).ok_or_else(|| format!("expected {DURATION_FORM}"))
}

fn moment(text: &str) -> Result<u64, String> {
    const FORM: &str = "expected a time such as 2026-01-31T12:00:00Z";
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| FORM.to_owned())?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|_| "the time is before 1970".to_owned())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SelectionArgs {
    /// The first flag that is about more than datasets.
    pub(super) fn beyond_datasets(&self) -> Option<&'static str> {
        [
            (self.machine.is_some(), "--machine"),
            (!self.stream.is_empty(), "--stream"),
            (self.last.is_some(), "--last"),
            (self.from.is_some(), "--from"),
            (self.to.is_some(), "--to"),
            (self.live.is_some(), "--live"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// The selection, `now_ms` being now.
    pub(super) fn request(&self, now_ms: u64) -> Result<SelectionRequest, CliError> {
        if self.dataset.is_empty() && self.stream.is_empty() {
            return Err(CliError::new(Exit::Usage, "no data are named").hint(
                "name a dataset with --dataset ID, or a stream with --stream NAME; `tributary dataset ls` shows both",
            ));
        }
        let (mut from_ms, to_ms) = (self.from, self.to);
        if let Some(last) = self.last {
            from_ms = Some(now_ms.saturating_sub(millis(last)));
        }
        if let (Some(from), Some(to)) = (from_ms, to_ms)
            && from > to
        {
            return Err(CliError::new(Exit::Usage, "--from is after --to").hint("exchange them"));
        }
        let live_seconds = match self.live {
            None => None,
            Some(live) => Some(u32::try_from(live.as_secs()).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                CliError::new(Exit::Usage, "--live is not a number of seconds that can be granted")
                    .hint("give 1s to 7d")
            })?),
        };
        Ok(SelectionRequest {
            machine: self.machine,
            datasets: self.dataset.clone(),
            streams: self.stream.clone(),
            from_ms,
            to_ms,
            live_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read() {
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(1500));
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(moment("yesterday").is_err() && moment("1969-01-01T00:00:00Z").is_err());
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("0s").is_err() && duration("10").is_err());
    }

    #[test]
    fn a_selection_names_something_and_ends_after_it_begins() {
        assert!(SelectionArgs::default().request(0).is_err());
        let stream = SelectionArgs { stream: vec!["imu".to_owned()], ..SelectionArgs::default() };
        let last = SelectionArgs { last: Some(Duration::from_secs(1)), ..stream.clone() };
        assert_eq!(last.request(5000).expect("valid").from_ms, Some(4000));
        assert!(SelectionArgs { from: Some(2), to: Some(1), ..stream.clone() }.request(0).is_err());
        let live = SelectionArgs { live: Some(Duration::from_millis(1)), ..stream };
        assert!(live.request(0).is_err());
    }
}
