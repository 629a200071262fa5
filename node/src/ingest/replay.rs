//! A recording played again as if it happened now: in its own time or faster, once or over and over.
//!
//! Owns the pace and the times: messages come when they came in the recording, counted from the first one, and carry the time at which
//! they are given out. A recording that is played twice would otherwise say that the same things happened at the same time. What the
//! messages say is left as it is, stamps in their headers included. Ends with the recording, or never when it is repeated.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tributary_protocol::rules::native::SchemaPaths;

use super::{IngestError, IngestOptions, Source, SourceItem, open};

/// The longest silence between two messages. Longer ones of the recording are shortened to it: a source that is asked to end must
/// notice before the node stops waiting for it.
pub const MAX_SILENCE: Duration = Duration::from_secs(5);
/// How slow and how fast a recording may be played.
pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// Between the end of a recording and its next beginning.
const BETWEEN: Duration = Duration::from_millis(100);
/// What a slow reader may be behind by and still catch up on; what is beyond is not made good.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// How many times as fast as it was recorded, within [`SPEEDS`].
    pub speed: f64,
    /// Begin again at its end, for ever.
    #[serde(default)]
    pub repeat: bool,
}

impl Pace {
    /// Whether the speed is one that can be played.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        SPEEDS.contains(&self.speed)
    }
}

/// Plays a recording.
pub struct Replay {
    path: PathBuf,
    options: IngestOptions,
    pace: Pace,
    source: Box<dyn Source + Send>,
    clock: PaceClock,
    /// Messages of this round.
    round: u64,
    ended: bool,
}

impl Replay {
    /// Opens the recording.
    ///
    /// # Errors
    ///
    /// As [`open`]; [`IngestError::Unsupported`] for a speed outside [`SPEEDS`], and for what cannot be read twice.
    pub fn open(path: &Path, options: &IngestOptions, pace: Pace) -> Result<Self, IngestError> {
        let refused = |reason: &str| IngestError::Unsupported { path: path.to_owned(), reason: reason.to_owned() };
        if !pace.is_valid() {
            return Err(refused("it can be played 0.01 to 1000 times as fast as it was recorded; give another speed"));
        }
        if path.as_os_str() == "-" {
            return Err(refused("lines on standard input come when they come; give a recording to play"));
        }
        let source = open(path, options)?;
        let clock = PaceClock::new(pace.speed, Instant::now());
        Ok(Self { path: path.to_owned(), options: options.clone(), pace, source, clock, round: 0, ended: false })
    }

    /// Begins again, if that is wanted and there was anything. `false` at the end.
    fn again(&mut self) -> Result<bool, IngestError> {
        if !self.pace.repeat || self.round == 0 {
            self.ended = true;
            return Ok(false);
        }
        self.source = open(&self.path, &self.options)?;
        (self.round, self.clock.last) = (0, None);
        self.clock.due += BETWEEN;
        Ok(true)
    }
}

impl Source for Replay {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match self.source.next()? {
                Some(SourceItem::Message(mut message)) => {
                    self.round += 1;
                    std::thread::sleep(self.clock.wait(message.log_time_ns, Instant::now()));
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                    let now = u64::try_from(now).unwrap_or(u64::MAX);
                    (message.log_time_ns, message.publish_time_ns) = (now, now);
                    return Ok(Some(SourceItem::Message(message)));
                }
                Some(other) => return Ok(Some(other)),
                None => drop(self.again()?),
            }
        }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.source.schema_paths(topic)
    }
}

/// When the next message is due.
struct PaceClock {
    speed: f64,
    due: Instant,
    /// When the message before was recorded, ns.
    last: Option<u64>,
}

impl PaceClock {
    fn new(speed: f64, now: Instant) -> Self {
        Self { speed, due: now, last: None }
    }

    /// How long a message that was recorded at `time_ns` has to wait at `now`.
    fn wait(&mut self, time_ns: u64, now: Instant) -> Duration {
        let gap = Duration::from_nanos(self.last.map_or(0, |last| time_ns.saturating_sub(last)));
        self.last = Some(time_ns);
        // Within SPEEDS, and a gap of 584 years at most: this is finite and positive.
        self.due += gap.min(MAX_SILENCE * 1000).div_f64(self.speed).min(MAX_SILENCE);
        if let Some(latest) = now.checked_sub(CATCH_UP) {
            self.due = self.due.max(latest);
        }
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn messages_wait_as_long_as_they_did_and_silence_is_shortened() {
        let start = Instant::now();
        let mut clock = PaceClock::new(2.0, start);
        assert_eq!(clock.wait(100 * SECOND, start), Duration::ZERO, "the first one comes at once");
        assert_eq!(clock.wait(102 * SECOND, start), Duration::from_secs(1));
        assert_eq!(clock.wait(101 * SECOND, start), Duration::from_secs(1), "a time that goes back adds nothing");
        assert_eq!(clock.wait(100_000 * SECOND, start), Duration::from_secs(1) + MAX_SILENCE);
        let late = start + Duration::from_secs(60);
        assert_eq!(clock.wait(100_000 * SECOND, late), Duration::ZERO);
        assert_eq!(clock.wait(100_004 * SECOND, late), Duration::from_secs(1), "59 of 60 s are not made good");
    }

    #[test]
    fn a_recording_is_repeated_with_times_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.ndjson");
        std::fs::write(&path, "{\"n\":1,\"t\":1000000000}\n{\"n\":2,\"t\":1000000001}\n").unwrap();
        let mut options = IngestOptions::default();
        options.ndjson.topic = "/a".to_owned();
        options.ndjson.time_field = Some("t".to_owned());
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let mut replay = Replay::open(&path, &options, Pace { speed: 1000.0, repeat: true }).unwrap();
        let mut times = Vec::new();
        while times.len() < 5 {
            if let Some(SourceItem::Message(message)) = replay.next().unwrap() {
                times.push(u128::from(message.log_time_ns));
            }
        }
        assert!(times[0] >= began && times.is_sorted(), "{times:?}");
        let mut once = Replay::open(&path, &options, Pace { speed: 1000.0, repeat: false }).unwrap();
        assert!(once.next().unwrap().is_some() && once.next().unwrap().is_some());
        assert_eq!((once.next().unwrap(), once.next().unwrap()), (None, None));
    }

    #[test]
    fn what_cannot_be_played_is_refused_and_nothing_is_repeated_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.ndjson");
        std::fs::write(&path, "").unwrap();
        let options = IngestOptions::default();
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
            assert!(Replay::open(&path, &options, Pace { speed, repeat: true }).is_err(), "{speed}");
        }
        assert!(Replay::open(Path::new("-"), &options, Pace { speed: 1.0, repeat: false }).is_err());
        let mut empty = Replay::open(&path, &options, Pace { speed: 1.0, repeat: true }).unwrap();
        assert_eq!(empty.next().unwrap(), None);
    }
}
