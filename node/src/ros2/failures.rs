//! Topics that could not be subscribed, and when that is tried again.
//!
//! To try means to look for a type's package and to open its library. What fails will fail again until somebody installs something, so
//! it is not tried at every look at the graph.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

struct Failure {
    type_name: String,
    reason: String,
    again: Instant,
}

/// What failed, as many topics as the graph has.
#[derive(Default)]
pub(super) struct Failures {
    topics: BTreeMap<String, Failure>,
}

impl Failures {
    /// Why a topic is not tried with this type now; `None` when it may be tried.
    pub(super) fn hold(&self, topic: &str, type_name: &str, now: Instant) -> Option<&str> {
        let failure = self.topics.get(topic)?;
        (failure.type_name == type_name && now < failure.again).then_some(&failure.reason)
    }

    /// It was tried and failed.
    pub(super) fn note(&mut self, topic: &str, type_name: &str, reason: &str, now: Instant) {
        // Topics that are there are noted again when their time has come.
        self.topics.retain(|_, failure| now < failure.again + AGAIN);
        let (type_name, reason) = (type_name.to_owned(), reason.to_owned());
        self.topics.insert(topic.to_owned(), Failure { type_name, reason, again: now + AGAIN });
    }

    /// It was tried and worked.
    pub(super) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_after_a_while_or_with_another_type() {
        let (mut failures, began) = (Failures::default(), Instant::now());
        assert_eq!(failures.hold("/a", "p/msg/A", began), None);
        failures.note("/a", "p/msg/A", "not installed", began);
        assert_eq!(failures.hold("/a", "p/msg/A", began + AGAIN / 2), Some("not installed"));
        assert_eq!(failures.hold("/a", "p/msg/B", began), None);
        assert_eq!(failures.hold("/b", "p/msg/A", began), None);
        assert_eq!(failures.hold("/a", "p/msg/A", began + AGAIN), None);
        failures.note("/a", "p/msg/A", "not installed", began + AGAIN);
        failures.forget("/a");
        assert_eq!(failures.hold("/a", "p/msg/A", began + AGAIN), None);
    }

    #[test]
    fn topics_that_went_are_forgotten() {
        let (mut failures, began) = (Failures::default(), Instant::now());
        failures.note("/gone", "p/msg/A", "not installed", began);
        failures.note("/a", "p/msg/A", "not installed", began + 2 * AGAIN);
        assert_eq!(failures.topics.keys().collect::<Vec<_>>(), ["/a"]);
    }
}
