use std::{ffi::OsString, path::Path, time::Duration};

use proptest::prelude::*;
use tributary_protocol::{
    peaq::sealed_box::BoxPublicKey,
    rules::agent::{AgentAction, AgentRule},
};

use super::super::*;

mod model;
mod never_more;

/// X25519 keys: public halves of [1; 32], [2; 32] and [3; 32].
const OWNER: &str = "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209";
const OPERATOR: &str = "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59";
const MACHINE: &str = "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22";

fn over(text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    Config::parse(text, "agent.yaml", Path::new("/base"), overrides)
}

fn parse(text: &str) -> Config {
    over(text, &Overrides::none()).expect(text)
}

fn error(text: &str) -> String {
    over(text, &Overrides::none()).expect_err(text).to_string()
}

/// An enabled agent with one topic, which has `more`, and with `rest` beside the topics.
fn one_topic(more: &str, rest: &str) -> String {
    format!(
        "stream_agent:\n  enabled: true\n{rest}  topics:\n  - {{topic: /imu, message_type: sensor_msgs/msg/Imu{more}}}\n"
    )
}

fn environment(vars: &[(&str, &str)]) -> Overrides {
    let vars = vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Overrides::from_environment(vars).expect("valid")
}

fn notices(config: &Config) -> Vec<String> {
    config.notices.iter().map(ToString::to_string).collect()
}

fn has_notice(config: &Config, text: &str) -> bool {
    notices(config).iter().any(|notice| notice.contains(text))
}

/// Every key that the agent has, each with another value than its default.
fn everything() -> String {
    format!(
        "stream_agent:
  enabled: true
  api_base_url: https://api.example.com
  api_key: s3cr3t-api
  machine_id: mach_1
  agent_id: agent_1
  agent_token: s3cr3t-agent
  identity_ref: peaqos:machine:1
  policy_name: Fleet
  signing_key_path: /keys/signing.json
  sequence_state_path: /state/sequences.json
  chunk_storage_path: /data/chunks
  chunk_manifest_path: /data/chunks.json
  chunk_catalog_path: /data/catalog.sqlite3
  chunk_key_store_path: /data/keys.sqlite3
  heartbeat_interval_seconds: 30
  destinations: [backend, other]
  topics:
    - topic: /fix
      message_type: sensor_msgs/msg/NavSatFix
      qos_preset: sensor_data
      depth: 7
      field_rules:
        - path: header
        - {{path: status.status, action: include}}
        - {{path: header.frame_id, action: hash}}
        - {{path: latitude, action: encrypt, public_key_hex: 0x{OWNER}}}
    - {{topic: /odom, message_type: nav_msgs/msg/Odometry}}
  key_recipients:
    - {{recipient_id: me, recipient_type: owner, public_key_hex: 0x{OWNER}}}
    - {{recipient_id: fleet, recipient_type: operator, public_key_hex: {OPERATOR}}}
    - {{recipient_id: robot, recipient_type: machine, public_key_hex: {MACHINE}}}
  buffer: {{path: /data/buffer.sqlite3, max_events: 500, retention_seconds: 7200, retry_interval_seconds: 5, overflow: pause}}
  payload: {{store_inline: true, inline_limit_bytes: 128}}
  peaqos_event: {{enabled: true, node_name: events, machine_id: 7, event_type: 2, trust_level: 1, source_chain_id: 3338}}
  storage:
    backend: s3
    walrus: {{publisher_url: https://w, aggregator_url: https://a, publisher_token: s3cr3t-walrus, epochs: 9, permanent: false, timeout_sec: 5}}
    s3: {{bucket: b, prefix: p, endpoint_url: https://s, region: eu, access_key_id: s3cr3t-id, secret_access_key: s3cr3t-key, session_token: s3cr3t-session}}
    google_drive: {{folder_id: f, credentials_path: /c}}
  delivery: {{enabled: true, host: 0.0.0.0, port: 9000, token: s3cr3t-delivery, poll_interval_seconds: 1}}
"
    )
}

/// `text` with every key in `camelCase`.
fn camel(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(':') {
        let start = rest[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        let is_key = rest[at + 1..].starts_with([' ', '\n']);
        out.push_str(&rest[..start]);
        let mut upper = false;
        for c in rest[start..at].chars() {
            match c {
                '_' if is_key => upper = true,
                c => {
                    out.push(if upper { c.to_ascii_uppercase() } else { c });
                    upper = false;
                }
            }
        }
        out.push(':');
        rest = &rest[at + 1..];
    }
    (out + rest).replace("streamAgent", "stream_agent")
}

#[test]
fn what_has_a_meaning_here_is_taken_over() {
    let config = parse(&everything());
    assert_eq!(config.roles, [Role::Machine]);
    assert_eq!(config.ros2, Some(Ros2Config::default()));
    let [fix, odom] = config.streams.as_slice() else { panic!("two streams") };
    assert_eq!((fix.topic.as_str(), fix.name()), ("/fix", "/fix"));
    assert_eq!(fix.message_type.as_deref(), Some("sensor_msgs/msg/NavSatFix"));
    assert_eq!(fix.qos, Qos { depth: 7, ..Qos::SENSOR_DATA });
    let rule = |path: &str, action| AgentRule { path: path.into(), action };
    let key = BoxPublicKey::from_hex(OWNER, "key").ok();
    let expected = vec![
        rule("header", AgentAction::Include),
        rule("status.status", AgentAction::Include),
        rule("header.frame_id", AgentAction::Hash),
        rule("latitude", AgentAction::Encrypt(key)),
    ];
    assert_eq!(fix.mode, Mode::Fields(FieldRules::Agent(expected)));
    assert_eq!((odom.qos, &odom.mode), (Qos::DEFAULT, &Mode::Fields(FieldRules::Agent(Vec::new()))));
    for stream in [fix, odom] {
        assert_eq!(stream.queue, QueueConfig { messages: 500, overflow: Overflow::Pause });
        assert_eq!(stream.retention.age, Some(Duration::from_secs(7_200)));
        // Nothing is given away because the agent's file says nothing about it.
        assert_eq!(stream.access.policy, Policy::Manual);
    }
    assert_eq!(config.peaq.owner_public_key.as_deref(), Some(OWNER));
    assert_eq!(config.peaq.operator_public_key.as_deref(), Some(OPERATOR));
    assert_eq!(config.peaq.machine_public_key.as_deref(), Some(MACHINE));
}

#[test]
fn both_spellings_mean_the_same_and_the_key_may_be_stream() {
    let snake = everything();
    let camel = camel(&snake);
    assert!(
        camel.contains("publicKeyHex:") && camel.contains("googleDrive:") && camel.contains("maxEvents:"),
        "{camel}"
    );
    // Places differ, since the keys have other lengths.
    let plain = |text: &str| Config { notices: Vec::new(), ..parse(text) };
    assert_eq!(plain(&snake), plain(&camel));
    assert_eq!(plain(&snake), plain(&snake.replace("stream_agent:", "stream:")));
    assert_eq!(plain(&snake), plain(&snake.replace("google_drive", "google-drive")));
    let both = one_topic(", field_rules: [{path: a, action: exclude}], fieldRules: []", "");
    assert!(error(&both).contains("`fieldRules` is given twice in two spellings"));
}

#[test]
fn what_has_no_meaning_is_named_once_with_what_to_use_instead_and_without_its_value() {
    let config = parse(&everything());
    let notices = notices(&config);
    for (keys, advice) in [
        ("`api_base_url`, `api_key`, `agent_id`, `agent_token`, `policy_name`, `heartbeat_interval_seconds`", "feed"),
        ("`machine_id`, `identity_ref`", "peaqID"),
        ("`signing_key_path`, `sequence_state_path`, `chunk_storage_path`", "home"),
        ("`buffer.path`, `buffer.retry_interval_seconds`", "store"),
        ("`payload.store_inline`, `payload.inline_limit_bytes`", "encrypted"),
        ("`peaqos_event.enabled`, `peaqos_event.node_name`", "chain"),
        ("`storage.backend` means", "tributary publish"),
        ("`storage.walrus.publisher_url`", "tributary publish"),
        ("`storage.s3.bucket`", "tributary publish"),
        ("`storage.google_drive.folder_id`", "tributary publish"),
        ("`delivery.enabled`", "network.listen"),
        ("buffer.retention_seconds", "defaults.retention.age"),
    ] {
        let found: Vec<&String> = notices.iter().filter(|notice| notice.contains(keys)).collect();
        assert_eq!(found.len(), 1, "{keys}: {notices:?}");
        assert!(found[0].contains(advice) && found[0].starts_with("agent.yaml:"), "{}", found[0]);
    }
    assert_eq!(notices.len(), 12, "{notices:?}");
    assert!(!format!("{config:?}{notices:?}").contains("s3cr3t"));
}

#[test]
fn defaults_written_out_are_not_worth_a_word() {
    let text = "stream_agent:
  enabled: true
  api_base_url: \"http://127.0.0.1:8000\"
  api_key: \"\"
  machine_id: \"\"
  policy_path: \"\"
  signing_key_path: \"~/.peaq_robot/stream_signing_key.json\"
  heartbeat_interval_seconds: 60
  topics: [{topic: /a, message_type: std_msgs/msg/String}]
  buffer: {retry_interval_seconds: 30, max_events: 1000}
  payload: {store_inline: false, inline_limit_bytes: 4096}
  storage: {backend: local, walrus: {epochs: 5, permanent: true, timeout_sec: 30.0}, s3: {prefix: peaq-stream, bucket: \"\"}}
  destinations:
    - backend
  key_recipients:
    # none
  peaqos_event: {enabled: false, node_name: peaqos_node, event_type: 1}
network: agung
wallet: {path: /work/wallet.json}
";
    let config = parse(text);
    let [notice] = config.notices.as_slice() else { panic!("{:?}", config.notices) };
    assert!(notice.text.contains("chunks are dropped after 1d (`stream_agent.buffer.retention_seconds`)"));
    // What the agent has when nothing is said.
    let bare = parse(&one_topic("", ""));
    assert_eq!(bare.streams[0].queue, QueueConfig { messages: 1_000, overflow: Overflow::DropOldest });
    assert_eq!(bare.streams[0].retention.age, Some(Duration::from_secs(86_400)));
    assert_eq!(bare.streams[0].qos, Qos::DEFAULT);
    assert_eq!(bare.peaq, PeaqConfig::default());
}

#[test]
fn an_agent_that_is_not_enabled_publishes_nothing() {
    for text in [
        "stream_agent:",
        "stream_agent: {topics: [{topic: /a, message_type: b}]}",
        "stream_agent: {enabled: no, topics: [{topic: /a, message_type: b}]}",
        "stream_agent: {enabled: \"False\"}",
    ] {
        let config = parse(text);
        assert!(config.streams.is_empty() && config.ros2.is_none(), "{text}");
        assert!(has_notice(&config, "`stream_agent.enabled` is not true: nothing is published"), "{text}");
    }
    for word in ["true", "True", "yes", "on", "1", "\"TRUE\""] {
        let text = format!("stream_agent: {{enabled: {word}, topics: [{{topic: /a, message_type: b}}]}}");
        assert_eq!(parse(&text).streams.len(), 1, "{word}");
    }
}

#[test]
fn the_last_word_has_the_policy_file_before_it_parameters_the_environment_and_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |file: &str, overrides: &Overrides| Config::parse(file, "agent.yaml", folder.path(), overrides);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let topics = |config: &Config| config.streams.iter().map(|stream| stream.topic.clone()).collect::<Vec<_>>();
    let policy = |topic: &str| format!("stream_policy: {{topics: [{{topic: {topic}, message_type: t}}]}}");
    write("one.yaml", &policy("/one"));
    write("two.yaml", &policy("/two"));
    write("bare.yaml", "topics: [{topic: /bare, messageType: t}]\nbuffer: {maxEvents: 9}\n");
    write("off.yaml", "stream_policy: {enabled: false, topics: []}");
    let file = |policy: &str| one_topic("", &format!("  policy_path: {policy}\n"));

    assert_eq!(topics(&read(&file("one.yaml"), &Overrides::none()).expect("valid")), ["/one"]);
    let bare = read(&file("bare.yaml"), &Overrides::none()).expect("valid");
    assert_eq!((topics(&bare), bare.streams[0].queue.messages), (vec!["/bare".to_owned()], 9));
    let mut overrides = environment(&[("PEAQOS_STREAM_POLICY_PATH", "two.yaml"), ("PEAQOS_STREAM_ENABLED", "true")]);
    assert_eq!(topics(&read(&file("one.yaml"), &overrides).expect("valid")), ["/two"]);
    let disabled = file("one.yaml").replace("enabled: true", "enabled: false");
    assert_eq!(topics(&read(&disabled, &overrides).expect("valid")), ["/two"]);
    overrides.parameter("stream_agent.policy_path", "one.yaml");
    overrides.parameter("use_sim_time", "true");
    assert_eq!(topics(&read(&file("two.yaml"), &overrides).expect("valid")), ["/one"]);
    overrides.parameter("stream_agent.policy_path", "off.yaml");
    assert!(topics(&read(&file("one.yaml"), &overrides).expect("valid")).is_empty());
    // An empty list of topics is no list, there as here.
    write("off.yaml", "stream_policy: {topics: []}");
    assert_eq!(topics(&read(&file("off.yaml"), &Overrides::none()).expect("valid")), ["/imu"]);

    for (name, text, expected) in [
        ("none.yaml", None, "cannot read the configuration"),
        ("wrong.yaml", Some("stream_agent: {topics: []}"), "unknown key `stream_agent`"),
        ("wrong.yaml", Some("stream_policy: {topcis: []}"), "unknown key `stream_policy.topcis`, perhaps `topics`"),
        (".", None, "expected the path of a regular file"),
        ("~other/policy.yaml", None, "another user's ~"),
    ] {
        if let Some(text) = text {
            write(name, text);
        }
        let message = read(&file(name), &Overrides::none()).expect_err(name).to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn the_environment_and_parameters_are_named_where_they_mean_nothing_and_never_repeated() {
    let mut overrides = environment(&[
        ("PEAQOS_STREAM_API_KEY", "s3cr3t-1"),
        ("PEAQOS_STREAM_S3_SECRET_ACCESS_KEY", "s3cr3t-2"),
        ("PEAQOS_STREAM_STORAGE_BACKEND", "local"),
        ("PEAQOS_STREAM_DELIVERY_TOKEN", ""),
        ("PEAQOS_STREAM_UNHEARD_OF", "x"),
    ]);
    overrides.parameter("stream_agent.agent_token", "s3cr3t-3");
    overrides.parameter("stream_agent.google_drive_folder_id", "x");
    assert!(!format!("{overrides:?}").contains("s3cr3t"));
    let config = over(&one_topic("", ""), &overrides).expect("valid");
    let notices = notices(&config);
    assert_eq!(notices.len(), 4, "{notices:?}");
    assert!(
        notices[1].starts_with("environment variable PEAQOS_STREAM_API_KEY: `api_key`, `agent_token` mean nothing")
    );
    assert!(
        notices[2]
            .starts_with("environment variable PEAQOS_STREAM_S3_SECRET_ACCESS_KEY: `storage.s3.secret_access_key`")
    );
    assert!(
        notices[3].starts_with("ROS parameter stream_agent.google_drive_folder_id: `storage.google_drive.folder_id`")
    );
    // They are the agent's: another configuration is not touched by them.
    assert!(over("roles: [machine]", &overrides).expect("valid").notices.is_empty());
}

#[test]
fn the_first_recipient_of_a_type_is_the_party_and_the_environments_owner_comes_last() {
    let recipients = |list: &str| one_topic("", &format!("  key_recipients: [{list}]\n"));
    let owner = environment(&[
        ("PEAQOS_STREAM_OWNER_ID", "me"),
        ("PEAQOS_STREAM_OWNER_PUBLIC_KEY_HEX", &format!("0x{}", OWNER.to_uppercase())),
    ]);
    let config = over(&recipients(""), &owner).expect("valid");
    assert_eq!(config.peaq.owner_public_key.as_deref(), Some(OWNER));
    let listed = recipients(&format!("{{recipient_id: a, public_key_hex: {MACHINE}}}"));
    let config = over(&listed, &owner).expect("valid");
    assert_eq!(config.peaq.owner_public_key.as_deref(), Some(MACHINE), "an owner is what no type means");
    assert!(has_notice(&config, "a second recipient of the type owner"));
    let half = environment(&[("PEAQOS_STREAM_OWNER_ID", "me")]);
    assert_eq!(over(&one_topic("", ""), &half).expect("valid").peaq.owner_public_key, None);
    for (list, expected) in [
        ("{public_key_hex: aa}", "`stream_agent.key_recipients[0].recipient_id` is missing"),
        ("{recipient_id: a, public_key_hex: aa}", "an X25519 public key"),
        (
            &format!("{{recipient_id: a, recipient_type: buyer, public_key_hex: {OWNER}}}"),
            "one of owner, operator, machine",
        ),
    ] {
        let message = error(&recipients(list));
        assert!(message.contains(expected), "{list}: {message}");
    }
}

#[test]
fn what_the_agent_would_pass_over_or_guess_is_refused() {
    for (text, expected) in [
        (one_topic(", feild_rules: []", ""), "unknown key `stream_agent.topics[0].feild_rules`, perhaps `field_rules`"),
        (one_topic(", field_rules: [{path: a, acton: hash}]", ""), "perhaps `action`"),
        (
            one_topic(", field_rules: [{path: a, action: mask}]", ""),
            "one of include, exclude, anonymize, hash, encrypt",
        ),
        (one_topic(", field_rules: [{action: hash}]", ""), "`stream_agent.topics[0].field_rules[0].path` is missing"),
        (one_topic(", field_rules: [{path: '..', action: hash}]", ""), "a field's path"),
        (one_topic(", field_rules: [{path: '@topic'}]", ""), "a field's path"),
        (one_topic(", field_rules: [{path: a, action: encrypt, public_key_hex: beef}]", ""), "an X25519 public key"),
        (one_topic(&format!(", field_rules: [{{path: a, public_key_hex: {OWNER}}}]"), ""), "would leave in clear"),
        (one_topic(", field_rules: exclude", ""), "a list of rules"),
        (one_topic(", qos_preset: best", ""), "one of default, sensor_data, reliable"),
        (one_topic(", depth: many", ""), "a whole number from 0 to 100000"),
        (one_topic("", "  buffer: {overflow: drop}\n"), "one of drop_oldest, pause"),
        (one_topic("", "  buffer: {max_events: -1}\n"), "a whole number"),
        (one_topic("", "").replace("/imu", "/camera/*"), "without *"),
        (one_topic("", "").replace("/imu", "' '"), "without *"),
        (one_topic("", "") + "  - {topic: /imu, message_type: t}\n", "is a second entry for /imu"),
        (
            one_topic("", "").replace(", message_type: sensor_msgs/msg/Imu", ""),
            "`stream_agent.topics[0].message_type` is missing",
        ),
        ("stream_agent: {enabled: true}".to_owned(), "`stream_agent.topics` is missing"),
        ("stream_agent: {enabled: maybe}".to_owned(), "expected true or false"),
        ("stream_agent: [1]".to_owned(), "expected a mapping"),
        ("roles: [machine]\nstream_agent: {enabled: true}".to_owned(), "unknown key `stream_agent`"),
    ] {
        let message = error(&text);
        assert!(message.contains(expected) && message.starts_with("agent.yaml:"), "{text}: {message}");
    }
    // Elsewhere an unknown key does nothing, there as here, and is named.
    let config = parse(&one_topic("", "  polcy_path: policy.yaml\n"));
    assert!(has_notice(&config, "`stream_agent.polcy_path` is no key of the agent"));
}

#[test]
fn what_encrypts_without_a_key_is_said_once() {
    let rules = ", field_rules: [{path: a, action: encrypt}, {path: b, action: encrypt}]";
    let config = parse(&one_topic(rules, ""));
    assert!(
        has_notice(&config, "`stream_agent.topics[0].field_rules[0]` and 1 more rules encrypt without"),
        "{config:?}"
    );
}

#[test]
fn what_the_agent_has_no_key_for_is_set_over_its_configuration() {
    let mut overrides = environment(&[("TRIBUTARY_STORE__QUOTA", "1GiB")]);
    overrides.flag("--set", "defaults.access.policy=free").expect("valid");
    overrides.flag("--set", "defaults.retention.age=none").expect("valid");
    overrides.flag("--set", "ros2.node_name=ears").expect("valid");
    let config = over(&one_topic("", ""), &overrides).expect("valid");
    assert_eq!(config.store.quota, Some(1 << 30));
    assert_eq!((&config.streams[0].access.policy, config.streams[0].retention.age), (&Policy::Free, None));
    assert_eq!(config.ros2.map(|ros2| ros2.node_name).as_deref(), Some("ears"));
    assert!(config.notices.is_empty(), "nothing is dropped by age any more");
    let mut overrides = Overrides::none();
    overrides.flag("--set", "streams=[{topic: /b, mode: raw}]").expect("valid");
    let message = over(&one_topic("", ""), &overrides).expect_err("refused").to_string();
    assert!(message.contains("`streams` are those of the file's `stream_agent.topics`"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_configuration_is_read_or_refused(at: prop::sample::Index, len in 0..40_usize, insert in "[ -~\n]{0,8}") {
        let text = everything();
        let at = at.index(text.len());
        let end = (at + len).min(text.len());
        let text = format!("{}{insert}{}", &text[..at], &text[end..]);
        if let Err(error) = over(&text, &Overrides::none()) {
            prop_assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }
}
