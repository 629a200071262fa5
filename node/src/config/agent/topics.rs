//! The agent's topics: their quality of service and their rules.

use std::collections::BTreeSet;

use tributary_protocol::{
    peaq::sealed_box::BoxPublicKey,
    rules::agent::{AgentAction, AgentRule, AgentRules},
};

use super::layers::{text, value};
use crate::config::{
    error::{ConfigError, Notice, Place},
    pattern::TopicPattern,
    reader::{Field, Section},
    ros2::Qos,
    rules::{FieldRules, MAX_RULES},
    stream::{Defaults, MAX_STREAMS, Mode, StreamConfig, name},
};

/// The topics that are published.
#[derive(Default)]
pub(in crate::config) struct Topics(Vec<Topic>);

struct Topic {
    name: String,
    message_type: String,
    qos: Qos,
    rules: Vec<AgentRule>,
}

impl Topics {
    /// Reads the list, which is `None` when there is none; `place` and `key` are those of the section that should have it.
    pub(super) fn read(
        list: Option<&Field<'_>>,
        place: &Place,
        key: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<Self, ConfigError> {
        const LIST: &str = "a list of topics, each with `topic` and `message_type`";
        let Some(list) = list else {
            let (place, key, expected) = (place.clone(), format!("{key}.topics"), LIST.to_owned());
            return Err(ConfigError::Missing { place, key, expected });
        };
        let (mut seen, mut hashed) = (BTreeSet::new(), Hashed::default());
        let topics = list.list(MAX_STREAMS, LIST, |item| {
            let topic = topic(&item, &mut hashed)?;
            if !seen.insert(topic.name.clone()) {
                let problem = format!("is a second entry for {}; put its rules into one", topic.name);
                return Err(item.conflict(problem));
            }
            Ok(topic)
        })?;
        notices.extend(hashed.notice());
        Ok(Self(topics))
    }

    /// The streams of these topics, with `defaults` for what the agent does not say.
    pub(in crate::config) fn streams(&self, defaults: &Defaults) -> Vec<StreamConfig> {
        let stream = |topic: &Topic| StreamConfig {
            message_type: Some(topic.message_type.clone()),
            qos: topic.qos,
            ..defaults.clone().stream(topic.name.clone(), Mode::Fields(FieldRules::Agent(topic.rules.clone())))
        };
        self.0.iter().map(stream).collect()
    }
}

fn topic(item: &Field<'_>, hashed: &mut Hashed) -> Result<Topic, ConfigError> {
    const TOPIC: &str = "the name of a topic, such as /imu";
    const TYPE: &str = "a message type such as sensor_msgs/msg/Imu";
    let section = item.section()?;
    let topic = section.need("topic", TOPIC)?;
    let topic_name = name(&topic, TOPIC)?.trim().to_owned();
    if topic_name.is_empty() || TopicPattern::new(&topic_name).is_some() {
        // The agent knows no patterns, so one would let out more than there.
        return Err(topic.wrong(format!("{TOPIC}, without *")));
    }
    let message_type = name(&section.need("message_type", TYPE)?, TYPE)?.trim().to_owned();
    let qos = qos(&section)?;
    let rules = match value(&section, "field_rules") {
        Some(field) => field.list(MAX_RULES, "a list of rules, each with `path` and `action`", |item| {
            let rule = rule(&item)?;
            if rule.action == AgentAction::Encrypt(None) {
                hashed.note(&item);
            }
            Ok(rule)
        })?,
        None => Vec::new(),
    };
    section.finish()?;
    Ok(Topic { name: topic_name, message_type, qos, rules })
}

/// `sensor_data` is best effort and 5 deep, the others are reliable and 10 deep; `depth` is stronger.
fn qos(section: &Section<'_>) -> Result<Qos, ConfigError> {
    const PRESETS: [(&str, Qos); 3] =
        [("default", Qos::DEFAULT), ("sensor_data", Qos::SENSOR_DATA), ("reliable", Qos::DEFAULT)];
    let mut qos = value(section, "qos_preset").map(|field| field.one_of(&PRESETS)).transpose()?.unwrap_or(Qos::DEFAULT);
    if let Some(field) = value(section, "depth") {
        qos.depth = field.integer32(0..=100_000)?.max(1);
    }
    Ok(qos)
}

fn rule(item: &Field<'_>) -> Result<AgentRule, ConfigError> {
    const PATH: &str = "a field's path such as pose.position.x, no name with @ in front";
    const KEY: &str = "an X25519 public key, 64 hex digits";
    let section = item.section()?;
    let path = section.need("path", PATH)?;
    let key = value(&section, "public_key_hex");
    let action = match value(&section, "action") {
        Some(field) => field.one_of(&[
            ("include", AgentWord::Include),
            ("exclude", AgentWord::Exclude),
            ("anonymize", AgentWord::Anonymize),
            ("hash", AgentWord::Hash),
            ("encrypt", AgentWord::Encrypt),
        ])?,
        None => AgentWord::Include,
    };
    let action = match action {
        AgentWord::Include => {
            if let Some(key) = key {
                let problem = "does nothing with `include`, which is also what no `action` means: the field would leave \
                               in clear; write `action: encrypt`, or remove the key";
                return Err(key.conflict(problem));
            }
            AgentAction::Include
        }
        AgentWord::Exclude => AgentAction::Exclude,
        AgentWord::Anonymize => AgentAction::Anonymize,
        AgentWord::Hash => AgentAction::Hash,
        AgentWord::Encrypt => AgentAction::Encrypt(
            key.map(|field| BoxPublicKey::from_hex(text(&field, KEY)?, "public_key_hex").map_err(|_| field.wrong(KEY)))
                .transpose()?,
        ),
    };
    let rule = AgentRule { path: text(&path, PATH)?.to_owned(), action };
    // What is wrong with a path is found here, where its line is known.
    AgentRules::load(vec![rule.clone()]).map_err(|_| path.wrong(PATH))?;
    section.finish()?;
    Ok(rule)
}

#[derive(Clone, Copy)]
enum AgentWord {
    Include,
    Exclude,
    Anonymize,
    Hash,
    Encrypt,
}

/// The rules that encrypt and have no key: the first, and how many.
#[derive(Default)]
struct Hashed {
    first: Option<(Place, String)>,
    count: usize,
}

impl Hashed {
    fn note(&mut self, rule: &Field<'_>) {
        self.count += 1;
        self.first.get_or_insert_with(|| (rule.place(), rule.path.clone()));
    }

    fn notice(self) -> Option<Notice> {
        let (place, path) = self.first?;
        let more = if self.count > 1 { format!(" and {} more rules", self.count - 1) } else { String::new() };
        let text = format!(
            "`{path}`{more} encrypt without `public_key_hex`: as in the agent, the SHA-256 of the value leaves in its place, \
             against which anyone can test guesses; add the key, or write `action: exclude`"
        );
        Some(Notice { place, text })
    }
}
