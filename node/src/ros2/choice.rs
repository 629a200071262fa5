//! Which type of a topic is subscribed, and which publishers that leaves out.

use std::collections::BTreeMap;

use crate::machine::FaultyPublisher;

/// Publishers that a refusal names.
const NAMED: usize = 4;

/// A publisher whose node nobody knows.
pub(super) const UNNAMED: &str = "(unknown)";

/// A publisher of a topic, as the graph shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publisher {
    /// Full name of its node; empty when nobody knows.
    pub(super) node: String,
    /// Its type, `pkg/msg/Type`.
    pub(super) type_name: String,
    /// Why its quality of service gives the subscription nothing.
    pub(super) incompatible: Option<String>,
}

/// What to do about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nobody publishes it yet.
    Wait,
    /// Subscribe this type, or stay subscribed.
    Subscribe(String),
    /// Nothing is subscribed.
    Refuse(String),
}

/// Chooses. `configured` is the type that the stream must have, `current` the one that is subscribed now.
///
/// One topic has one type. Where publishers disagree and nothing says who is right, none is taken: a stream's rules are made for
/// one type. A subscription that is there stays as long as one publisher of its type does, since the middleware keeps others out.
pub(super) fn choose(configured: Option<&str>, current: Option<&str>, publishers: &[Publisher]) -> Choice {
    if let Some(configured) = configured {
        return Choice::Subscribe(configured.to_owned());
    }
    let mut types: BTreeMap<&str, &Publisher> = BTreeMap::new();
    for publisher in publishers {
        types.entry(&publisher.type_name).or_insert(publisher);
    }
    if let Some(current) = current
        && (types.is_empty() || types.contains_key(current))
    {
        return Choice::Subscribe(current.to_owned());
    }
    let mut names = types.keys();
    match (names.next(), names.next()) {
        (None, _) => Choice::Wait,
        (Some(only), None) => Choice::Subscribe((*only).to_owned()),
        (Some(_), Some(_)) => {
            let mut named: Vec<String> =
                types.iter().take(NAMED).map(|(name, publisher)| format!("{name} by {}", name_of(publisher))).collect();
            if types.len() > NAMED {
                named.push(format!("and {} more", types.len() - NAMED));
            }
            let named = named.join(", ");
            Choice::Refuse(format!(
                "it is published with several types: {named}; stop all but one, or give the stream its `type`"
            ))
        }
    }
}

/// The publishers whose messages do not come.
pub(super) fn faulty(choice: &Choice, publishers: &[Publisher]) -> Vec<FaultyPublisher> {
    let reason_of = |publisher: &Publisher| match choice {
        Choice::Subscribe(chosen) if *chosen != publisher.type_name => {
            Some(format!("publishes {}, subscribed is {chosen}", publisher.type_name))
        }
        Choice::Subscribe(_) => {
            publisher.incompatible.as_ref().map(|reason| format!("incompatible quality of service: {reason}"))
        }
        Choice::Refuse(_) => Some("the topic is refused".to_owned()),
        Choice::Wait => None,
    };
    publishers
        .iter()
        .filter_map(|publisher| {
            let reason = reason_of(publisher)?;
            let (node, message_type) = (name_of(publisher).to_owned(), publisher.type_name.clone());
            Some(FaultyPublisher { node, message_type, reason })
        })
        .collect()
}

/// What a publisher is called for people.
fn name_of(publisher: &Publisher) -> &str {
    if publisher.node.is_empty() { UNNAMED } else { &publisher.node }
}

/// Whether ROS tools hide a topic: a part of its name begins with `_`, as those of actions do.
pub(super) fn is_hidden(topic: &str) -> bool {
    topic.split('/').any(|part| part.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(node: &str, type_name: &str) -> Publisher {
        Publisher { node: node.to_owned(), type_name: type_name.to_owned(), incompatible: None }
    }

    fn subscribe(name: &str) -> Choice {
        Choice::Subscribe(name.to_owned())
    }

    #[test]
    fn the_only_type_is_subscribed_when_somebody_publishes_it() {
        assert_eq!(choose(None, None, &[]), Choice::Wait);
        let publishers = [publisher("/a", "p/msg/A"), publisher("/b", "p/msg/A")];
        assert_eq!(choose(None, None, &publishers), subscribe("p/msg/A"));
        assert!(faulty(&subscribe("p/msg/A"), &publishers).is_empty());
    }

    #[test]
    fn several_types_are_refused_and_named_until_one_is_left() {
        let both = [publisher("/a", "p/msg/A"), publisher("/b", "p/msg/B")];
        let choice = choose(None, None, &both);
        let Choice::Refuse(reason) = &choice else { panic!("{choice:?}") };
        assert!(reason.contains("p/msg/A by /a, p/msg/B by /b"), "{reason}");
        assert_eq!(faulty(&choice, &both).len(), 2);
        assert_eq!(choose(None, None, &both[1..]), subscribe("p/msg/B"));
        let many: Vec<_> = (0..6).map(|i| publisher("/n", &format!("p/msg/T{i}"))).collect();
        let Choice::Refuse(reason) = choose(None, None, &many) else { panic!("refused") };
        assert!(reason.contains("and 2 more"), "{reason}");
    }

    #[test]
    fn the_configured_type_is_subscribed_before_anybody_publishes_and_others_are_named() {
        let others = [publisher("/b", "p/msg/B"), publisher("/a", "p/msg/A")];
        let choice = choose(Some("p/msg/A"), None, &[]);
        assert_eq!(choice, subscribe("p/msg/A"));
        assert_eq!(choose(Some("p/msg/A"), None, &others), choice);
        let [faulty] = &faulty(&choice, &others)[..] else { panic!("one") };
        assert_eq!((faulty.node.as_str(), faulty.message_type.as_str()), ("/b", "p/msg/B"));
        assert_eq!(faulty.reason, "publishes p/msg/B, subscribed is p/msg/A");
    }

    #[test]
    fn a_subscription_outlives_its_publishers_and_gives_way_to_another_type_without_them() {
        let (a, b) = (publisher("/a", "p/msg/A"), publisher("/b", "p/msg/B"));
        assert_eq!(choose(None, Some("p/msg/A"), &[]), subscribe("p/msg/A"));
        assert_eq!(choose(None, Some("p/msg/A"), &[b.clone(), a]), subscribe("p/msg/A"));
        assert_eq!(choose(None, Some("p/msg/A"), &[b]), subscribe("p/msg/B"));
    }

    #[test]
    fn an_incompatible_publisher_is_named() {
        let quiet = Publisher { incompatible: Some("best effort".to_owned()), ..publisher("/a", "p/msg/A") };
        let found = faulty(&subscribe("p/msg/A"), &[quiet, publisher("/b", "p/msg/A")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].reason, "incompatible quality of service: best effort");
    }

    #[test]
    fn topics_of_actions_are_hidden() {
        assert!(is_hidden("/fibonacci/_action/feedback") && is_hidden("/_x") && !is_hidden("/a_/b_c"));
    }
}
