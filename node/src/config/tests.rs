//! What a configuration says, and what is said about one that is wrong.

use std::{ffi::OsString, path::Path, time::Duration};

use proptest::prelude::*;

use super::{reader::trace, *};
use crate::feeds::JoinPoint;

const EXAMPLE: &str = include_str!("../../../examples/tributary.yaml");
const BUYER: &str = include_str!("../../../examples/buyer.yaml");
const MIRROR: &str = include_str!("../../../examples/mirror.yaml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "test.yaml", Path::new("/base"), &Overrides::none())
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn machine(streams: &str) -> String {
    format!("roles: [machine]\nstreams:\n{streams}")
}

fn environment(vars: &[(&str, &str)]) -> Result<Overrides, ConfigError> {
    Overrides::from_environment(vars.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))))
}

#[test]
fn the_example_says_what_it_says() {
    let config = parse(EXAMPLE).expect("the example is valid");
    let position = config.stream_named("position").expect("there");
    assert_eq!(position.topic, "/gps/fix");
    let Some(FieldRules::Native { default, rules }) = position.rules() else { panic!("native rules") };
    assert_eq!((*default, rules.len()), (DefaultAction::Include, 6));
    let key = RuleKey { file: "/base/position.key".into() };
    assert_eq!(rules[4].action, FieldAction::Encrypt(key.clone()));
    assert_eq!(rules[5].action, FieldAction::KeyedHash(key));
    assert!(rules[5].optional);
    assert_eq!(position.chunk, ChunkConfig { bytes: 256 << 10, max_age: Duration::from_secs(1) });
    assert_eq!(config.store.quota, Some(64 << 30));
    assert_eq!(config.network.limits.pull_bytes_per_second, Some(20_000_000));
    assert_eq!(config.follow[0].streams, FollowStreams::Named(vec!["position".into(), "recordings".into()]));
    assert!(config.has_role(Role::Buyer));
    assert_eq!(config.stream_for_topic("recordings").map(|s| &s.access.policy), Some(&Policy::Free));
    let camera =
        config.stream_for_topic("/camera/left/compressed").expect("the pattern").for_topic("/camera/left/compressed");
    assert_eq!((camera.name(), camera.stamp), ("/camera/left/compressed", Stamp::Receive));
    assert_eq!(camera.qos, Qos { reliability: Reliability::BestEffort, depth: 8, ..Qos::DEFAULT });
    assert!(camera.pattern().is_none() && config.stream_for_topic("/camera/left/raw").is_none());
    assert_eq!(config.ros2, Some(Ros2Config::default()));
}

#[test]
fn every_key_is_documented_in_the_example() {
    trace::take();
    parse(EXAMPLE).expect("the example is valid");
    let keys = trace::take();
    // `allow` cannot stand in `defaults` beside the policy that is the default; the same keys are shown in a stream.
    let in_a_stream =
        |key: &str| key.strip_prefix("defaults.").is_some_and(|k| keys.get(&format!("streams[].{k}")) == Some(&true));
    let missing: Vec<&String> =
        keys.iter().filter(|(key, there)| !**there && !in_a_stream(key)).map(|(key, _)| key).collect();
    assert!(keys.len() > 60, "the keys were traced: {}", keys.len());
    assert!(missing.is_empty(), "keys that examples/tributary.yaml does not show: {missing:?}");
}

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    let text = |defaults: &str| format!("{defaults}\n{}", machine("  - {topic: /a, mode: raw}"));
    let section =
        &EXAMPLE[EXAMPLE.find("\ndefaults:").expect("there")..EXAMPLE.find("\n# The Data Event Map").expect("there")];
    assert_eq!(parse(&text(section)).expect("valid"), parse(&text("")).expect("valid"));
    let listen = parse(EXAMPLE).expect("valid").network.listen;
    assert_eq!(listen, parse("roles: [buyer]").expect("valid").network.listen);
}

#[test]
fn the_mirrors_example_is_valid_and_what_cannot_be_kept_is_said() {
    let config = parse(MIRROR).expect("valid");
    assert_eq!(config.roles, [Role::Mirror]);
    assert_eq!(config.mirror.feeds[0].link.addrs.len(), 1);
    assert_eq!(config.mirror.feeds[0].retention, Retention { age: None, bytes: Some(100 << 30) });
    assert!(config.mirror.deposits && config.mirror.space.is_none());
    let example = parse(EXAMPLE).expect("valid");
    let feed = &example.mirror.feeds[0];
    assert_eq!((feed.retention.age, feed.retention.bytes), (None, Some(20 << 30)), "in place of the one for all");
    assert_eq!((example.mirror.space, example.mirrors.len()), (Some(200 << 30), 1));

    let did = "did:peaq:0x52908400098527886e0f7030069857d2e4169ee7";
    let mirror = |more: &str| format!("roles: [mirror]\nmirror:\n  feeds:\n    - machine: {did}\n{more}");
    assert!(parse(&mirror("")).is_ok());
    for (text, expected) in [
        ("roles: [mirror]".to_owned(), "no `mirror.feeds` says whose feeds it keeps"),
        ("roles: [mirror]\nmirror: {feeds: []}".to_owned(), "names no feed"),
        (mirror(&format!("    - machine: tributary://{did}\n")), "is kept twice"),
        (mirror("  space: 1KiB\n"), "`mirror.space`"),
        (mirror("  retention: {bytes: 1B}\n"), "`mirror.retention.bytes`"),
        (mirror("").replace("roles: [mirror]", "roles: [buyer]"), "needs the role `mirror`"),
        (
            format!("{}follow:\n  - machine: {did}\n", mirror("").replace("[mirror]", "[mirror, buyer]")),
            "is also in `follow`",
        ),
        ("roles: [mirror]\nmirror: {feeds: [{machine: robot}]}".to_owned(), "or a link tributary://"),
        (
            "roles: [buyer]\nmirrors: [/ip4/192.0.2.8/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5]"
                .to_owned(),
            "needs the role `machine`",
        ),
        ("roles: [machine]\nmirrors: [/ip4/192.0.2.8/tcp/1]".to_owned(), "`mirrors[0]`"),
    ] {
        let message = error(&text);
        assert!(message.contains(expected), "{text}\n{message}");
    }
}

#[test]
fn the_buyers_example_is_valid() {
    let config = parse(BUYER).expect("valid");
    assert_eq!(config.roles, [Role::Buyer]);
    assert!(config.network.listen.is_empty());
    // What is not said: renewed and pulled, a quarter of an hour at a time, and nothing is paid.
    let [subscription] = config.buyer.subscriptions.as_slice() else { panic!("one subscription") };
    assert_eq!(subscription.machine, config.follow[0].machine);
    let [terms] = subscription.streams.as_slice() else { panic!("one stream") };
    assert_eq!((terms.stream.as_str(), terms.renew, terms.pull), ("position", true, true));
    assert_eq!((terms.live_seconds, terms.max_price), (900, 0));
    let sink = terms.sink.clone().expect("files");
    assert_eq!((sink.dir, sink.rotate_bytes), ("/base/data".into(), 64 << 20));
    assert_eq!(config.follow[0].from, JoinPoint::Start);
}

#[test]
fn a_metered_link_has_low_limits_and_whatever_is_said_wins() {
    let normal = parse("roles: [machine]").expect("valid").network;
    assert_eq!((normal.limits.up, normal.limits.down), (RateLimits::default(), RateLimits::default()));
    let metered =
        |more: &str| parse(&format!("roles: [machine]\nnetwork: {{profile: metered{more}}}")).expect("valid").network;
    let plain = metered("");
    assert!(plain.profile.is_metered() && !plain.nat.autonat_server && normal.nat.autonat_server);
    assert_eq!((plain.limits.up.total, plain.limits.pull_bytes_per_second), (Some(128 << 10), Some(64 << 10)));
    assert_eq!((plain.limits.down.pull, plain.limits.pulls, plain.limits.pulls_per_peer), (Some(256 << 10), 4, 2));
    let said = metered(
        ", nat: {autonat_server: true}, limits: {pulls: 9, up: {total: none, gossip: 20KiB}, down: {pull: 1MiB}}",
    );
    assert_eq!((said.limits.pulls, said.nat.autonat_server, said.limits.down.pull), (9, true, Some(1 << 20)));
    let expected = RateLimits { total: None, gossip: Some(20 << 10), ..plain.limits.up };
    assert_eq!(said.limits.up, expected);
    for (text, expected) in [
        ("roles: [machine]\nnetwork: {profile: cheap}", "one of normal, metered"),
        ("roles: [relay]\nnetwork: {profile: metered}", "does not go with the role `relay`"),
        ("roles: [machine]\nnetwork: {limits: {up: {pull: 1MiB}}}", "network.limits.up.pull"),
        ("roles: [machine]\nnetwork: {limits: {down: {sync: 1KiB}}}", "none, or"),
    ] {
        let message = error(text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_relay_has_limits_and_only_a_relay_has() {
    let limits = "network: {relay: {circuits: 3, circuit_bytes: none, reservation_time: 2h}}";
    let relay = parse(&format!("roles: [relay]\n{limits}")).expect("valid").network.relay;
    assert_eq!((relay.circuits, relay.circuit_bytes, relay.reservation_time), (3, 0, Duration::from_secs(7200)));
    assert_eq!(relay.reservations, crate::net::RelayCaps::default().reservations);
    let message = error(&format!("roles: [buyer]\n{limits}"));
    assert!(message.contains("`network.relay` needs the role `relay`"), "{message}");
    for (text, expected) in [
        ("relay: {circuits: 0}", "from 1 to 65536"),
        ("relay: {circuit_time: 1s}", "from 1m to 30d"),
        ("relay: {reservation_time: 1m}", "from 1h to 7d"),
        ("relays: [/ip4/192.0.2.7/tcp/4600]", "`network.relays[0]`"),
        ("discovery: {bootstrap: [/ip4/192.0.2.7/tcp/4600]}", "`network.discovery.bootstrap[0]`"),
        ("discovery: {mdns: maybe}", "expected one of true, false"),
        ("nat: {upnp: 1}", "expected one of true, false"),
    ] {
        let message = error(&format!("roles: [relay]\nnetwork: {{{text}}}"));
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn nothing_speaks_to_the_local_network_unless_it_is_told_to() {
    let network = parse("roles: [buyer]").expect("valid").network;
    assert!(!network.discovery.mdns && !network.nat.upnp);
    assert!(network.discovery.kademlia && network.nat.autonat && network.nat.hole_punching);
}

#[test]
fn a_subscription_that_could_not_work_is_refused() {
    const DID: &str = "did:peaq:0x27b1fdb04752bbc536007a920d24acb045561c26";
    let text = |follow: &str, subscription: &str| {
        format!(
            "roles: [buyer]\nfollow:\n  - {{machine: '{DID}'{follow}}}\nbuyer:\n  subscriptions:\n    - {{machine: '{DID}', {subscription}}}\n"
        )
    };
    assert!(parse(&text("", "streams: [a, b]")).is_ok());
    assert!(parse(&text(", from: now", "streams: [a], max_price: 340282366920938463463374607431768211455")).is_ok());
    for (follow, subscription, expected) in [
        (", streams: [b]", "streams: [a]", "`buyer.subscriptions[0].streams[0]` is not followed"),
        ("", "streams: []", "a list of at least one stream"),
        ("", "live: 1h", "`buyer.subscriptions[0].streams` is missing"),
        ("", "streams: [a], live: 10ms", "from 1s to 7d"),
        ("", "streams: [a], max_price: -1", "a whole number, in the smallest units"),
        ("", "streams: [a], pull: false, export: {dir: x}", "`buyer.subscriptions[0].pull` leaves nothing to export"),
        ("", "streams: [a], pull: false, renew: false", "`buyer.subscriptions[0].pull` leaves nothing"),
        ("", "streams: [a], export: {dir: x, rotate: 1KiB}", "from 4KiB to 64GiB"),
        ("", "streams: [a], export: {}", "`buyer.subscriptions[0].export.dir` is missing"),
        ("", "streams: [a, a]", "another entry subscribes to"),
        (", from: yesterday", "streams: [a]", "expected start, now, or dataset:"),
    ] {
        let message = error(&text(follow, subscription));
        assert!(message.contains(expected), "{subscription}: {message}");
    }
    let other = text("", "streams: [a]").replacen("27b1", "27b2", 1);
    let message = error(&other);
    assert!(message.contains("`buyer.subscriptions[0].machine` is not followed"), "{message}");
}

#[test]
fn metrics_are_off_until_they_are_asked_for_and_on_loopback_unless_written_otherwise() {
    assert_eq!(parse("roles: [buyer]").expect("valid").metrics, None);
    let asked = |inside: &str| parse(&format!("roles: [buyer]\nmetrics: {inside}\n"));
    let by_default = MetricsConfig { listen: ([127, 0, 0, 1], 9464).into(), hosts: Vec::new() };
    assert_eq!(asked("{}").expect("valid").metrics, Some(by_default.clone()));
    let open = asked("{ listen: '0.0.0.0:1', hosts: [Robot.example] }").expect("valid").metrics.expect("on");
    assert_eq!(open, MetricsConfig { listen: ([0, 0, 0, 0], 1).into(), hosts: vec!["robot.example".to_owned()] });
    for (inside, expected) in [
        ("{ listen: 9464 }", "`metrics.listen` is \"9464\"; expected an address and a port"),
        ("{ hosts: ['a b'] }", "`metrics.hosts[0]`"),
        ("{ listn: 127.0.0.1:1 }", "perhaps `listen`"),
        ("on", "expected a mapping"),
    ] {
        let message = asked(inside).expect_err(inside).to_string();
        assert!(message.contains(expected), "{inside}: {message}");
    }
    let environment = environment(&[("TRIBUTARY_METRICS__LISTEN", "127.0.0.1:7")]).expect("fits");
    let config = Config::parse("roles: [buyer]", "t.yaml", Path::new("/base"), &environment).expect("valid");
    assert_eq!(config.metrics.expect("on").listen.port(), 7);
}

#[test]
fn an_unknown_key_names_its_place_and_the_key_that_was_meant() {
    let text = "roles: [machine]\nnetwork:\n  limits:\n    conections: 3\n";
    let error = parse(text).expect_err("unknown");
    assert_eq!(error.key(), Some("network.limits.conections"));
    let message = error.to_string();
    assert!(
        message.starts_with("test.yaml:4:5: unknown key `network.limits.conections`, perhaps `connections`;"),
        "{message}"
    );
    assert!(message.contains("pulls_per_peer"), "{message}");
}

#[test]
fn a_wrong_value_names_file_line_key_and_what_was_expected() {
    for (text, expected) in [
        ("roles: [robot]", "test.yaml:1:9: `roles[0]` is \"robot\"; expected one of machine, buyer, mirror, relay"),
        ("roles: []", "test.yaml:1:8: `roles` is a list of 0; expected at least one of machine, buyer, mirror, relay"),
        ("roles: machine", "test.yaml:1:8: `roles` is \"machine\"; expected a list of roles"),
        (
            "roles: [buyer]\nstore: {quota: 10}",
            "test.yaml:2:16: `store.quota` is \"10\"; expected none, or a size such as",
        ),
        ("roles: [buyer]\nstore:\n  quota: ~", "test.yaml:3:10: `store.quota` is empty; expected"),
        ("roles: [buyer]\nnetwork: 7", "test.yaml:2:10: `network` is \"7\"; expected a mapping"),
        (
            "roles: [buyer]\nnetwork: {listen: [localhost]}",
            "`network.listen[0]` is \"localhost\"; expected a multiaddr",
        ),
        ("roles: [buyer]\nnetwork: {peers: [/ip4/1.2.3.4/tcp/1]}", "`network.peers[0]`"),
        ("network: {}", "test.yaml:1:1: `roles` is missing; expected a list of roles"),
        ("", "test.yaml:1:1: `roles` is missing"),
        ("roles: [buyer, buyer]", "test.yaml:1:16: `roles[1]` is given twice"),
        ("roles: [buyer]\nroles: [machine]", "test.yaml:2:1: `roles` is given twice; the first is at test.yaml:1:1"),
    ] {
        let message = error(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn a_stream_that_would_leak_or_not_work_is_refused() {
    let long = "x".repeat(300);
    for (stream, expected) in [
        ("  - {mode: raw}", "`streams[0].topic` is missing"),
        ("  - {topic: /a}", "`streams[0].mode` is missing"),
        ("  - {topic: /a, mode: fields}", "`streams[0].default` is missing; expected include or exclude"),
        ("  - {topic: /a, mode: raw, default: exclude}", "`streams[0].default` works only with `mode: fields`"),
        ("  - {topic: /a, mode: raw, rules: [{path: x, action: exclude}]}", "`streams[0].rules` works only with"),
        ("  - {topic: /a, mode: raw}\n  - {topic: /a, mode: raw}", "`streams[1]` is a second stream of the topic /a"),
        ("  - {topic: /a, mode: raw}\n  - {topic: /b, alias: /a, mode: raw}", "`streams[1]` has the public name /a"),
        ("  - {topic: /a, mode: raw, chunk: {bytes: 2MiB}}", "from 4KiB to 1MiB"),
        ("  - {topic: /a, mode: raw, chunk: {max_age: 10}}", "expected a duration such as"),
        ("  - {topic: /a, mode: raw, queue: {messages: 0}}", "a whole number from 1 to 1000000"),
        ("  - {topic: /a, mode: raw, queue: {overflow: drop}}", "one of pause, drop_oldest"),
        ("  - {topic: /a, mode: raw, access: {policy: allowlist}}", "add the list of buyers"),
        ("  - {topic: /a, mode: raw, access: {policy: free, allow: []}}", "`streams[0].access.allow` does nothing"),
        ("  - {topic: /a, mode: raw, access: {allow: []}}", "`streams[0].access.allow` does nothing"),
        ("  - {topic: /a, mode: raw, access: {hook: notify me}}", "the absolute path of a program"),
        ("  - {topic: /a, mode: raw, access: {hook: [notify]}}", "the absolute path of a program"),
        ("  - {topic: /a, mode: raw, access: {hook: []}}", "the absolute path of a program"),
        (&format!("  - {{topic: {long}, mode: raw}}"), "at most 256 bytes"),
    ] {
        let message = error(&machine(stream));
        assert!(message.contains(expected), "{stream}: {message}");
    }
}

#[test]
fn a_rule_that_would_not_protect_is_refused() {
    for (rules, expected) in [
        ("{path: a, action: excluded}", "one of include, exclude, encrypt, anonymize"),
        ("{path: a}", "`streams[0].rules[0].action` is missing"),
        ("{action: exclude}", "`streams[0].rules[0].path` is missing"),
        ("{path: a..b, action: exclude}", "a field's path"),
        ("{path: '@topic', action: exclude}", "a field's path"),
        ("{path: a, action: encrypt}", "`streams[0].rules[0].key_file` is missing"),
        ("{path: a, action: anonymize}", "`streams[0].rules[0].strategy` is missing"),
        ("{path: a, action: anonymize, strategy: keyed_hash}", "`streams[0].rules[0].key_file` is missing"),
        ("{path: a, action: anonymize, strategy: hash, key_file: k}", "`streams[0].rules[0].key_file` works only with"),
        ("{path: a, action: exclude, strategy: hash}", "`streams[0].rules[0].strategy` works only with"),
        ("{path: a, action: exclude, optional: yes}", "one of true, false"),
        ("{path: a, action: exclude}, {path: a, action: include}", "`streams[0].rules[1].path` is a second rule for a"),
        ("{path: a, action: include}, {path: a.b, action: exclude}", "stands behind the rule for a, which decides"),
        ("{path: a, action: exclude, when: now}", "unknown key `streams[0].rules[0].when`"),
    ] {
        let message = error(&machine(&format!("  - {{topic: /a, mode: fields, default: include, rules: [{rules}]}}")));
        assert!(message.contains(expected), "{rules}: {message}");
    }
    // A name that only starts like another one is no child of it.
    let text = machine(
        "  - {topic: /a, mode: fields, default: include, rules: [{path: a, action: include}, {path: ab, action: exclude}]}",
    );
    assert!(parse(&text).is_ok());
}

#[test]
fn a_section_without_its_role_is_refused() {
    assert!(error("roles: [buyer]\nstreams: [{topic: /a, mode: raw}]").contains("`streams` needs the role `machine`"));
    let follow = "roles: [machine]\nfollow: [{machine: 'did:peaq:0x27b1fdb04752bbc536007a920d24acb045561c26'}]";
    assert!(error(follow).contains("`follow` needs the role `buyer`"));
}

#[test]
fn nothing_is_granted_because_a_line_was_forgotten() {
    let config = parse(&machine("  - {topic: /a, mode: raw}")).expect("valid");
    assert_eq!(config.streams[0].access.policy, Policy::Manual);
}

#[test]
fn a_stream_takes_from_defaults_what_it_does_not_say() {
    let text = format!(
        "defaults:\n  access: {{policy: allowlist, allow: ['did:peaq:0x27b1fdb04752bbc536007a920d24acb045561c26']}}\n  chunk: {{max_age: 2s}}\n{}",
        machine(
            "  - {topic: /a, mode: raw, chunk: {bytes: 64KiB}}\n  - {topic: /b, mode: raw, access: {policy: free}}"
        )
    );
    let config = parse(&text).expect("valid");
    assert_eq!(config.streams[0].chunk, ChunkConfig { bytes: 64 << 10, max_age: Duration::from_secs(2) });
    assert!(matches!(&config.streams[0].access.policy, Policy::Allowlist(allow) if allow.len() == 1));
    assert_eq!(config.streams[1].access.policy, Policy::Free);
}

#[test]
fn a_stream_that_names_a_topic_goes_before_patterns_and_the_first_pattern_before_the_others() {
    let text = machine(
        "  - {topic: '/**', mode: raw}\n  - {topic: '/camera/*', mode: raw}\n  - {topic: /camera/left, alias: left, mode: raw}",
    );
    let config = parse(&text).expect("valid");
    let taken_by = |topic| config.stream_for_topic(topic).map(|stream| stream.topic.as_str());
    assert_eq!(taken_by("/camera/left"), Some("/camera/left"));
    assert_eq!(taken_by("/camera/right"), Some("/**"));
    assert_eq!(taken_by("imu"), None);
    for (stream, expected) in [
        ("{topic: /a/*, alias: a, mode: raw}", "`streams[0].alias` cannot name every topic of a pattern"),
        ("{topic: /a/*, mode: file}", "`streams[0]` takes files, which come from no topic"),
    ] {
        let message = error(&machine(&format!("  - {stream}")));
        assert!(message.contains(expected), "{stream}: {message}");
    }
}

#[test]
fn quality_of_service_is_a_profile_or_its_values_over_the_default() {
    let read = |defaults: &str, stream: &str| {
        let text = format!("defaults: {{{defaults}}}\n{}", machine(&format!("  - {{topic: /a, mode: raw{stream}}}")));
        parse(&text).map(|config| (config.streams[0].qos, config.streams[0].stamp))
    };
    let qos = |defaults, stream| read(defaults, stream).expect("valid").0;
    assert_eq!(read("", "").expect("valid"), (Qos::DEFAULT, Stamp::Header));
    assert_eq!(qos("", ", qos: sensor_data"), Qos::SENSOR_DATA);
    assert_eq!(qos("qos: sensor_data", ", qos: reliable"), Qos::RELIABLE);
    assert_eq!(qos("qos: sensor_data", ", qos: {depth: 30}"), Qos { depth: 30, ..Qos::SENSOR_DATA });
    let kept = ", qos: {durability: transient_local, history: keep_all}";
    let expected = Qos { durability: Durability::TransientLocal, history: History::KeepAll, ..Qos::DEFAULT };
    assert_eq!(qos("", kept), expected);
    assert_eq!(read("stamp: receive", "").expect("valid").1, Stamp::Receive);
    assert_eq!(read("stamp: receive", ", stamp: header").expect("valid").1, Stamp::Header);
    for (stream, expected) in [
        ("qos: best_effort", "one of default, sensor_data, reliable, or a mapping of reliability"),
        ("qos: {reliability: best}", "one of reliable, best_effort"),
        ("qos: {history: keep_all, depth: 5}", "`streams[0].qos.depth` does nothing with `history: keep_all`"),
        ("qos: {depth: 0}", "a whole number from 1 to 100000"),
        ("qos: {liveliness: manual}", "unknown key `streams[0].qos.liveliness`"),
        ("stamp: now", "one of header, receive"),
    ] {
        let message = read("", &format!(", {stream}")).expect_err(stream).to_string();
        assert!(message.contains(expected), "{stream}: {message}");
    }
}

#[test]
fn live_topics_are_on_when_the_section_is_there() {
    let ros2 = |section: &str| parse(&format!("roles: [machine]\n{section}")).map(|config| config.ros2);
    assert_eq!(ros2("").expect("valid"), None);
    assert_eq!(ros2("ros2:").expect("valid"), Some(Ros2Config::default()));
    let all = "ros2: {node_name: ears_2, namespace: /fleet/r7, use_sim_time: true, diagnostics: none}";
    let expected =
        Ros2Config { node_name: "ears_2".into(), namespace: "/fleet/r7".into(), use_sim_time: true, diagnostics: None };
    assert_eq!(ros2(all).expect("valid"), Some(expected));
    for (section, expected) in [
        ("node_name: 2nd", "`ros2.node_name` is \"2nd\"; expected a node's name"),
        ("node_name: a/b", "expected a node's name"),
        ("namespace: fleet", "expected an absolute namespace"),
        ("namespace: /fleet/", "expected an absolute namespace"),
        ("diagnostics: 1ms", "expected none, or a duration"),
        ("use_sim_time: yes", "one of true, false"),
    ] {
        let message = ros2(&format!("ros2: {{{section}}}")).expect_err(section).to_string();
        assert!(message.contains(expected), "{section}: {message}");
    }
    assert!(error("roles: [buyer]\nros2:").contains("`ros2` needs the role `machine`"));
}

#[test]
fn what_hides_or_multiplies_values_is_refused_by_name() {
    for (text, expected) in [
        ("a: &x [1]\nb: *x", "anchors (&name) are not supported"),
        ("roles: *x", "test.yaml:1"),
        ("roles: !!set {}", "tags (!name) are not supported"),
        ("roles: [buyer]\n---\nroles: [buyer]", "test.yaml:2:1: a second document"),
        ("[a, b]: 1", "a key must be a plain word"),
        ("roles: [buyer", "not valid YAML"),
        ("a:\n\tb: 1", "not valid YAML"),
    ] {
        let message = error(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
    assert!(error(&"[".repeat(100_000)).contains("test.yaml"));
    assert!(error(&format!("a: {}{}", "[".repeat(20), "]".repeat(20))).contains("nested deeper than 16"));
    assert!(matches!(parse(&" ".repeat(MAX_BYTES + 1)), Err(ConfigError::TooLarge { .. })));
    let many: String = (0..100).map(|i| format!("k{i}: 1\n")).collect();
    assert!(error(&many).contains("more than 64 keys"));
}

#[test]
fn an_error_cannot_drive_the_terminal_or_flood_it() {
    let message = error(&format!("roles: [\"\\e[2J{}\"]", "x".repeat(10_000)));
    assert!(!message.contains('\u{1b}') && message.len() < 300, "{message}");
}

#[test]
fn the_environment_is_stronger_than_the_file_and_a_flag_is_stronger_still() {
    let vars = [
        ("TRIBUTARY_STORE__QUOTA", "2GiB"),
        ("TRIBUTARY_STORE__BALLAST", "1MiB"),
        ("TRIBUTARY_NETWORK__LISTEN", "[/ip4/127.0.0.1/tcp/0]"),
        ("TRIBUTARY_NETWORK__LIMITS__PULLS", "7"),
        ("TRIBUTARY_HOME", "/nowhere"),
        ("TRIBUTARY_PASSPHRASE", "secret"),
        ("OTHER__THING", "x"),
    ];
    let mut overrides = environment(&vars).expect("valid");
    overrides.flag("--set", "store.quota=3GiB").expect("valid");
    let text = "roles: [buyer]\nstore: {quota: 1GiB}";
    let config = Config::parse(text, "test.yaml", Path::new(""), &overrides).expect("valid");
    assert_eq!(config.store.quota, Some(3 << 30));
    assert_eq!(config.store.ballast, 1 << 20);
    assert_eq!(config.network.listen.len(), 1);
    assert_eq!(config.network.limits.pulls, 7);
    assert_eq!(overrides.places().count(), 5);
}

#[test]
fn an_override_that_is_wrong_names_the_variable_or_flag() {
    let with = |overrides: &Overrides| {
        Config::parse("roles: [buyer]", "test.yaml", Path::new(""), overrides).expect_err("wrong").to_string()
    };
    let message = with(&environment(&[("TRIBUTARY_STORE__QUOTA", "lots")]).expect("read"));
    assert!(
        message.starts_with("environment variable TRIBUTARY_STORE__QUOTA: `store.quota` is \"lots\"; expected"),
        "{message}"
    );
    let message = with(&environment(&[("TRIBUTARY_STORE__QOUTA", "1GiB")]).expect("read"));
    assert!(message.contains("TRIBUTARY_STORE__QOUTA: unknown key `store.qouta`, perhaps `quota`"), "{message}");
    let mut flags = Overrides::none();
    assert!(flags.flag("--set", "store.quota").is_err());
    flags.flag("--set", "roles.x=1").expect("has a value");
    assert!(with(&flags).contains("flag --set roles.x=1: `roles.x` lies below a value that is not a mapping"));
    let mut flags = Overrides::none();
    flags.flag("--set", "store..x=1").expect("has a value");
    assert!(with(&flags).contains("is not a key"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    assert!(matches!(Config::load(&path, &Overrides::none()), Err(ConfigError::Read { .. })));
    std::fs::write(&path, b"roles: [buyer]\nx: \xff\n").expect("written");
    let message = Config::load(&path, &Overrides::none()).expect_err("not text").to_string();
    assert!(message.contains("config.yaml:2:1: not UTF-8 text"), "{message}");
    std::fs::write(&path, b"roles: [buyer]\n").expect("written");
    assert!(Config::load(&path, &Overrides::none()).is_ok());
}

#[test]
fn a_rule_key_must_be_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let key = RuleKey { file: folder.path().join("rule.key") };
    assert!(key.load().is_err());
    std::fs::write(&key.file, format!("{}\n", "ab".repeat(32))).expect("written");
    std::fs::set_permissions(&key.file, std::fs::Permissions::from_mode(0o640)).expect("set");
    assert!(key.load().expect_err("readable by others").to_string().contains("chmod 600"));
    std::fs::set_permissions(&key.file, std::fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(key.load().ok().map(|k| *k), Some([0xab; 32]));
}

#[test]
fn rules_reach_the_data_with_their_keys() {
    use std::os::unix::fs::PermissionsExt as _;

    use tributary_protocol::rules::{Action, RuleSet, Strategy};

    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::parse(EXAMPLE, "test.yaml", folder.path(), &Overrides::none()).expect("valid");
    let [position, camera, files] = &config.streams[..] else { panic!("three streams") };
    assert!(matches!(position.rule_set(), Err(RulesError::Key { path, .. }) if path == "altitude"));
    let key = folder.path().join("position.key");
    std::fs::write(&key, "ab".repeat(32)).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let Ok(Some(RuleSet::Native(rules))) = position.rule_set() else { panic!("rules") };
    for (path, action, strategy) in [
        (&["header", "stamp", "sec"][..], Action::Include, None),
        (&["header", "frame_id"], Action::Exclude, None),
        (&["latitude"], Action::Anonymize, Some(Strategy::Generalize)),
        (&["altitude"], Action::Encrypt, None),
        (&["operator", "name"], Action::Anonymize, Some(Strategy::KeyedHash)),
        (&["status"], Action::Include, None),
    ] {
        let governing = rules.action_for(path);
        assert_eq!((governing.action, governing.strategy), (action, strategy), "{path:?}");
    }
    for stream in [camera, files] {
        assert!(matches!(stream.rule_set(), Ok(None)));
    }
}

/// Text that is nearly a configuration.
fn nearly() -> impl Strategy<Value = String> {
    (any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), "[ -~\n]{0,8}").prop_map(
        |(at, len, insert)| {
            let at = at.index(EXAMPLE.len());
            let end = (at + len.index(40)).min(EXAMPLE.len());
            format!("{}{insert}{}", &EXAMPLE[..at], &EXAMPLE[end..])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_configuration_is_read_or_refused_with_its_place(text in nearly()) {
        if let Err(error) = parse(&text) {
            prop_assert!(matches!(error.place(), Some(Place::File { line: 1.., column: 1.., .. })), "{error:?}");
        }
    }

    #[test]
    fn any_override_is_read_or_refused(path in "[a-z_.\\[\\]]{0,30}", value: String) {
        let mut overrides = Overrides::none();
        if overrides.flag("--set", &format!("{path}={value}")).is_ok() {
            let _ = Config::parse(EXAMPLE, "test.yaml", Path::new(""), &overrides);
        }
    }
}
