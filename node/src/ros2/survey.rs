//! What of the ROS graph is subscribed.
//!
//! Looks at the publishers of every topic that a stream names, and at the topics that patterns mean; subscribes what can be, hands
//! the subscriptions to the receiver, and notes why the others are not. It decides by [`choose`] and writes to the store when a
//! stream begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{
    alone::Alone,
    choice::{Choice, Publisher, UNNAMED, choose, faulty, is_hidden},
    failures::Failures,
    feed::Feed,
    rcl::{Endpoint, MessageType, Node, RclError, Subscription},
    receiver::Order,
    running::Shared,
    status::{MAX_REFUSED, RefusedTopic},
    type_name::{NotATypeName, TypeName},
};
use crate::{
    config::{Mode, StreamConfig},
    ingest::{Installed, LiveDecoder},
    machine::{FaultyPublisher, LiveStream, Machine, Situation, SourceState, check_schema},
};

/// The receiver lets go of a subscription at its next turn.
const LETTING_GO: Duration = Duration::from_secs(5);

/// A stream whose topic is looked after.
struct Watched {
    stream: LiveStream,
    /// The topic's name in the graph.
    topic: String,
    /// The type that is subscribed.
    current: Option<String>,
}

/// All that is looked after.
pub(super) struct Survey {
    node: Arc<Node>,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    orders: SyncSender<Order>,
    installed: Installed,
    /// By the topic that the configuration names.
    watched: BTreeMap<String, Watched>,
    /// Topics that a pattern means and that have no stream, and why.
    refused: BTreeMap<String, String>,
    alone: Alone,
    failures: Failures,
}

impl Survey {
    pub(super) fn new(
        node: Arc<Node>,
        machine: Arc<Machine>,
        shared: Arc<Shared>,
        orders: SyncSender<Order>,
        installed: Installed,
    ) -> Self {
        let (watched, refused) = (BTreeMap::new(), BTreeMap::new());
        let (alone, failures) = (Alone::default(), Failures::default());
        Self { node, machine, shared, orders, installed, watched, refused, alone, failures }
    }

    /// Looks at the graph, and subscribes what can be. Says when to look again at the latest, where that is soon.
    pub(super) fn look(&mut self) -> Option<Instant> {
        self.meet_streams();
        let topics: Vec<String> = self.watched.keys().cloned().collect();
        for topic in topics {
            self.look_after(&topic);
        }
        self.meet_topics();
        let refused: Vec<RefusedTopic> = self
            .refused
            .iter()
            .take(MAX_REFUSED)
            .map(|(topic, reason)| RefusedTopic { topic: topic.clone(), reason: reason.clone() })
            .collect();
        let count = self.refused.len() as u64;
        self.shared.change_status(|status| (status.refused, status.refused_count) = (refused, count));
        self.alone.end_look()
    }

    /// Streams that began since, by a recording or at the start.
    fn meet_streams(&mut self) {
        for stream in self.machine.live_streams() {
            let topic = stream.config().topic.clone();
            if !self.watched.contains_key(&topic) {
                self.watch(stream);
            }
        }
    }

    fn watch(&mut self, stream: LiveStream) {
        let name = stream.config().topic.clone();
        match self.node.resolve(&name) {
            Ok(topic) => drop(self.watched.insert(name, Watched { stream, topic, current: None })),
            Err(error) => {
                let situation = Situation {
                    topic: name,
                    state: SourceState::Refused,
                    reason: Some(error.to_string()),
                    ..Situation::default()
                };
                stands(&stream, situation);
            }
        }
    }

    /// Subscribes a watched topic, or says why not.
    fn look_after(&mut self, name: &str) {
        let Some(Watched { stream, topic, current }) = self.watched.get(name) else { return };
        let (stream, topic, current) = (stream.clone(), topic.clone(), current.clone());
        let config = stream.config();
        let publishers = match self.publishers(&topic, config) {
            Ok(publishers) => publishers,
            Err(error) => {
                tracing::warn!(topic, %error, "the topic cannot be looked at");
                return;
            }
        };
        let configured = configured_type(config);
        let mut choice = choose(configured.as_deref(), current.as_deref(), &publishers);
        if let Choice::Subscribe(type_name) = &choice
            && configured.is_none()
            && current.as_ref() != Some(type_name)
            && !self.alone.is_settled(&topic, type_name, Instant::now())
        {
            choice = Choice::Wait;
        }
        let chosen = match &choice {
            Choice::Subscribe(type_name) => Some(type_name.clone()),
            Choice::Wait | Choice::Refuse(_) => None,
        };
        if current != chosen {
            self.let_go(name);
        }
        if let Some(type_name) = &chosen
            && current != chosen
        {
            match self.try_with(&topic, type_name, |survey| survey.subscribe(&stream, type_name)) {
                Ok(()) => {
                    self.alone.forget(&topic);
                    self.set_current(name, Some(type_name.clone()));
                }
                Err(reason) => choice = Choice::Refuse(reason),
            }
        }
        let (state, message_type, reason) = match &choice {
            Choice::Wait => (SourceState::Waiting, None, None),
            Choice::Subscribe(name) if publishers.is_empty() => (SourceState::Waiting, Some(name.clone()), None),
            Choice::Subscribe(name) if self.shared.is_paused() => (SourceState::Paused, Some(name.clone()), None),
            Choice::Subscribe(name) => (SourceState::Subscribed, Some(name.clone()), None),
            Choice::Refuse(reason) => (SourceState::Refused, None, Some(reason.clone())),
        };
        let faulty = faulty(&choice, &publishers);
        let count = publishers.len() as u64;
        stands(&stream, Situation { topic, message_type, state, reason, publishers: count, faulty });
    }

    fn set_current(&mut self, name: &str, current: Option<String>) {
        if let Some(watched) = self.watched.get_mut(name) {
            watched.current = current;
        }
    }

    fn let_go(&mut self, name: &str) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        if watched.current.take().is_some() {
            let (gone, wait) = sync_channel(1);
            self.order(Order::Remove(name.into(), gone));
            let _ = wait.recv_timeout(LETTING_GO); // the next subscription says what is wrong
        }
    }

    /// Begins streams for topics that patterns mean.
    fn meet_topics(&mut self) {
        let topics = match self.node.topics() {
            Ok(topics) => topics,
            Err(error) => {
                tracing::warn!(%error, "the topics cannot be listed");
                return;
            }
        };
        let known: BTreeSet<&str> = self.watched.values().map(|watched| watched.topic.as_str()).collect();
        let new: Vec<String> =
            topics.into_iter().filter(|topic| !known.contains(topic.as_str()) && !is_hidden(topic)).collect();
        let mut refused = BTreeMap::new();
        for topic in new {
            let Some(config) = self.machine.pattern_config(&topic) else { continue };
            match self.begin(&topic, &config) {
                Ok(()) => {}
                Err(reason) => {
                    if self.refused.get(&topic) != Some(&reason) {
                        tracing::warn!(topic, reason, "a topic that a pattern means is refused");
                    }
                    refused.insert(topic, reason);
                }
            }
        }
        self.refused = refused;
    }

    /// Begins a stream, if the topic can be subscribed now.
    fn begin(&mut self, topic: &str, config: &StreamConfig) -> Result<(), String> {
        if self.node.resolve(topic).map_err(|error| error.to_string())? != topic {
            return Err(
                "a remapping rule gives this name to another topic; name the topic in a stream of its own".to_owned()
            );
        }
        let mut publishers = self.publishers(topic, config).map_err(|error| error.to_string())?;
        // Until the graph knows whose a publisher is, it may be the node's own.
        publishers.retain(|publisher| !publisher.node.is_empty());
        // Somebody's own subscription makes a topic, too; and a configured type is no reason to take what has another.
        let type_name = match choose(None, None, &publishers) {
            Choice::Wait => return Ok(()),
            Choice::Subscribe(type_name) => match configured_type(config) {
                Some(configured) => configured,
                None if self.alone.is_settled(topic, &type_name, Instant::now()) => type_name,
                None => return Ok(()),
            },
            Choice::Refuse(reason) => configured_type(config).ok_or(reason)?,
        };
        if publishers.iter().all(|publisher| publisher.type_name != type_name) {
            return Err(format!("nobody publishes it with the type {type_name} of its pattern"));
        }
        self.try_with(topic, &type_name, |survey| survey.prepare(config, &type_name).map(drop))?;
        let stream = self.machine.live_stream(topic).map_err(|error| error.to_string())?;
        if let Some(stream) = stream {
            self.watch(stream);
            self.look_after(topic);
        }
        Ok(())
    }

    /// Does what needs a type of a topic, unless that failed a moment ago.
    fn try_with(
        &mut self,
        topic: &str,
        type_name: &str,
        what: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let now = Instant::now();
        if let Some(reason) = self.failures.hold(topic, type_name, now) {
            return Err(reason.to_owned());
        }
        let result = what(self);
        match &result {
            Ok(()) => self.failures.forget(topic),
            Err(reason) => self.failures.note(topic, type_name, reason, now),
        }
        result
    }

    /// What is needed to read a type under a stream's rules.
    fn prepare(&self, config: &StreamConfig, type_name: &str) -> Result<(TypeName, MessageType, LiveDecoder), String> {
        let name: TypeName = type_name.parse().map_err(|error: NotATypeName| error.to_string())?;
        let message_type = MessageType::find(&name).map_err(|error| error.to_string())?;
        let raw = config.mode == Mode::Raw;
        let decoder = LiveDecoder::new(&name.to_string(), raw, &self.installed)?;
        if let Some(paths) = decoder.schema_paths() {
            check_schema(config, &paths)?;
        }
        Ok((name, message_type, decoder))
    }

    fn subscribe(&self, stream: &LiveStream, type_name: &str) -> Result<(), String> {
        let config = stream.config();
        let (name, message_type, decoder) = self.prepare(config, type_name)?;
        let receiver = Arc::downgrade(&self.shared.receiver);
        let room = Arc::new(move || {
            if let Some(receiver) = receiver.upgrade() {
                receiver.trigger();
            }
        });
        stream.go_live(room).map_err(|error| error.to_string())?;
        let subscription = Subscription::new(&self.node, &config.topic, &message_type, config.qos)
            .map_err(|error| error.to_string())?;
        self.order(Order::Add(Box::new(Feed::new(&name, subscription, stream.clone(), decoder))));
        Ok(())
    }

    /// Waits while the receiver has many orders, which it takes at every turn.
    fn order(&self, order: Order) {
        self.shared.receiver.trigger();
        // It ends only together with this thread.
        let _ = self.orders.send(order);
        self.shared.receiver.trigger();
    }

    /// Others' publishers of a topic.
    fn publishers(&self, topic: &str, config: &StreamConfig) -> Result<Vec<Publisher>, RclError> {
        let own = self.node.full_name();
        let endpoints = self.node.publishers(topic)?;
        let others = endpoints.into_iter().filter(|endpoint| endpoint.node != own);
        let publisher = |endpoint: Endpoint| Publisher {
            incompatible: endpoint.incompatible_with(config.qos),
            node: endpoint.node,
            type_name: endpoint.type_name,
        };
        Ok(others.map(publisher).collect())
    }
}

/// The type that a stream must have, as the graph writes it.
fn configured_type(config: &StreamConfig) -> Option<String> {
    let text = config.message_type.as_ref()?;
    Some(text.parse::<TypeName>().map_or_else(|_| text.clone(), |name| name.to_string()))
}

/// Notes how a topic stands, and logs what is news.
fn stands(stream: &LiveStream, situation: Situation) {
    let Situation { topic, message_type, state, reason, faulty, .. } = situation.clone();
    let before = stream.source().stands(situation).unwrap_or_default();
    let message_type = message_type.unwrap_or_default();
    let changed = before.message_type.unwrap_or_default() != message_type || before.reason != reason;
    match reason {
        Some(reason) if changed => tracing::warn!(topic, reason, "the topic is refused"),
        None if changed && !message_type.is_empty() => tracing::info!(topic, message_type, "subscribed"),
        None if changed => tracing::info!(topic, "no longer subscribed"),
        _ => tracing::debug!(topic, ?state, "topic"),
    }
    let is_news = |publisher: &FaultyPublisher| publisher.node != UNNAMED && !before.faulty.contains(publisher);
    for FaultyPublisher { node, reason, .. } in faulty.iter().filter(|publisher| is_news(publisher)) {
        tracing::warn!(topic, node, reason, "nothing comes from a publisher");
    }
}
