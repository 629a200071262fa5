//! The thread that watches the graph and answers the operator.
//!
//! It decides what is subscribed and hands subscriptions to the receiver. It may wait for the disk: beginning a stream writes to the
//! store. What could wait long, closing datasets, is done by a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    Ros2Error, Ros2Status,
    choice::{Choice, Publisher, choose, faulty, is_hidden},
    diagnostics::Diagnostics,
    rcl::{MessageType, Node, RclError, Subscription, WaitSet, Waiting},
    receiver::{Feed, Order},
    running::Shared,
    services::Services,
    status::{MAX_REFUSED, RefusedTopic},
    type_name::TypeName,
};
use crate::{
    config::{Mode, Qos, Ros2Config, StreamConfig},
    ingest::{
        Installed, LiveDecoder,
        msgdef::{Lookup as _, Plan},
    },
    machine::{LiveStream, Machine, Situation, SourceState, check_schema},
};

/// The graph is looked at when it says that it changed, and this often in any case.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Changes of the graph come in bursts; they are looked at together after this long.
const SETTLE: Duration = Duration::from_millis(50);
/// How long to wait before the middleware is asked again after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A stream whose topic is looked after.
struct Watched {
    stream: LiveStream,
    /// The topic's name in the graph.
    topic: String,
    /// The type that is subscribed.
    current: Option<String>,
}

/// What a turn brought.
enum Came {
    /// The operator changed something.
    Change,
    /// The graph changed.
    Graph,
    /// Nothing that the survey must know of.
    Other,
}

/// The supervising thread.
pub(super) struct Supervisor {
    node: Arc<Node>,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    orders: SyncSender<Order>,
    set: WaitSet,
    installed: Installed,
    /// By the topic that the configuration names.
    watched: BTreeMap<String, Watched>,
    /// Topics that a pattern means and that have no stream, and why.
    refused: BTreeMap<String, String>,
    services: Option<Services>,
    reporter: Option<Reporter>,
}

/// Publishes `/diagnostics`.
struct Reporter {
    publisher: super::rcl::Publisher,
    diagnostics: Diagnostics,
    every: Duration,
    due: Instant,
}

impl Supervisor {
    pub(super) fn new(
        node: Arc<Node>,
        machine: Arc<Machine>,
        config: &Ros2Config,
        shared: Arc<Shared>,
        orders: SyncSender<Order>,
    ) -> Result<Self, Ros2Error> {
        let set = WaitSet::new(node.context())?;
        let installed = Installed::ament();
        // What is missing here is no reason not to ingest.
        let trouble = |what: &str, reason: String| {
            tracing::warn!(reason, "{what}");
            shared.change_status(|status| status.trouble.push(format!("{what}: {reason}")));
        };
        let services = Services::new(&node, Arc::clone(&machine), Arc::clone(&shared));
        let services =
            services.map_err(|reason| trouble("the services ~/pause and others are not offered", reason)).ok();
        let reporter = config.diagnostics.and_then(|every| {
            let reporter = Reporter::new(&node, &installed, &machine, every);
            reporter.map_err(|reason| trouble("nothing is published on /diagnostics", reason)).ok()
        });
        let (watched, refused) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { node, machine, shared, orders, set, installed, watched, refused, services, reporter })
    }

    pub(super) fn run(mut self) {
        let mut survey_at = Instant::now();
        while !self.shared.is_stopping() {
            if !self.node.context().is_valid() {
                self.shared.ended.cancel();
                break;
            }
            if Instant::now() >= survey_at {
                self.survey();
                survey_at = Instant::now() + SURVEY_EVERY;
            }
            if let Some(reporter) = &mut self.reporter {
                reporter.report(&self.machine, &self.shared);
            }
            let due = self.reporter.as_ref().map_or(survey_at, |reporter| reporter.due.min(survey_at));
            match self.turn(due.saturating_duration_since(Instant::now())) {
                Ok(Came::Graph) => survey_at = survey_at.min(Instant::now() + SETTLE),
                Ok(Came::Change) => survey_at = Instant::now(),
                Ok(Came::Other) => {}
                Err(error) => {
                    tracing::error!(%error, "watching the ROS graph failed; it is tried again");
                    std::thread::sleep(AFTER_FAILURE);
                }
            }
        }
    }

    /// Waits for what may come, at most `timeout`, and answers requests.
    fn turn(&mut self, timeout: Duration) -> Result<Came, RclError> {
        let guards = vec![&*self.shared.supervisor];
        let services = self.services.iter().flat_map(Services::waiting).collect();
        let waiting = Waiting { guards, services, graph: Some(&self.node), ..Waiting::default() };
        let ready = self.set.wait(&waiting, timeout)?;
        drop(waiting);
        let changed = match &mut self.services {
            Some(services) => services.answer(&ready.services)?,
            None => false,
        };
        Ok(match (changed, ready.graph) {
            (true, _) => Came::Change,
            (false, true) => Came::Graph,
            (false, false) => Came::Other,
        })
    }

    /// Looks at the graph, and subscribes what can be.
    fn survey(&mut self) {
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
        let mut choice = choose(config.message_type.as_deref(), current.as_deref(), &publishers);
        if let Choice::Subscribe(type_name) = &choice
            && current.as_ref() != Some(type_name)
        {
            match self.subscribe(&stream, type_name) {
                Ok(()) => self.set_current(name, Some(type_name.clone())),
                Err(reason) => {
                    self.let_go(name);
                    choice = Choice::Refuse(reason);
                }
            }
        } else if current.is_some() && !matches!(choice, Choice::Subscribe(_)) {
            self.let_go(name);
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
            self.order(Order::Remove(name.into()));
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
        let publishers = self.publishers(topic, config).map_err(|error| error.to_string())?;
        // Somebody's own subscription makes a topic, too; and a configured type is no reason to take what has another.
        let type_name = match choose(None, None, &publishers) {
            Choice::Wait => return Ok(()),
            Choice::Subscribe(type_name) => config.message_type.clone().unwrap_or(type_name),
            Choice::Refuse(reason) => match &config.message_type {
                Some(configured) => configured.clone(),
                None => return Err(reason),
            },
        };
        if publishers.iter().all(|publisher| publisher.type_name != type_name) {
            return Err(format!("nobody publishes it with the type {type_name} of its pattern"));
        }
        self.prepare(config, &type_name)?;
        let stream = self.machine.live_stream(topic).map_err(|error| error.to_string())?;
        if let Some(stream) = stream {
            self.watch(stream);
            self.look_after(topic);
        }
        Ok(())
    }

    /// What is needed to read a type under a stream's rules.
    fn prepare(&self, config: &StreamConfig, type_name: &str) -> Result<(TypeName, MessageType, LiveDecoder), String> {
        let name: TypeName = type_name.parse().map_err(|error: super::type_name::NotATypeName| error.to_string())?;
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
        let publisher = |endpoint: super::rcl::Endpoint| Publisher {
            incompatible: endpoint.incompatible_with(config.qos),
            node: endpoint.node,
            type_name: endpoint.type_name,
        };
        Ok(others.map(publisher).collect())
    }
}

impl Reporter {
    fn new(node: &Arc<Node>, installed: &Installed, machine: &Machine, every: Duration) -> Result<Self, String> {
        let message_type = MessageType::find(&TypeName::DIAGNOSTICS).map_err(|error| error.to_string())?;
        let name = TypeName::DIAGNOSTICS.to_string();
        let text = installed.find(&name).ok_or_else(|| format!("no definition of {name} is installed"))?;
        let plan = Plan::compile(&name, &text, installed).map_err(|error| error.to_string())?;
        let publisher = super::rcl::Publisher::new(node, "/diagnostics", &message_type, Qos::DEFAULT);
        let publisher = publisher.map_err(|error| error.to_string())?;
        let diagnostics = Diagnostics::new(plan, &node.full_name(), machine.did().to_string());
        Ok(Self { publisher, diagnostics, every, due: Instant::now() })
    }

    /// Publishes, when it is time.
    fn report(&mut self, machine: &Machine, shared: &Shared) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        let streams = match machine.report() {
            Ok(streams) => streams,
            Err(error) => {
                tracing::warn!(%error, "the counters cannot be read");
                return;
            }
        };
        let mut status = Ros2Status::default();
        shared.change_status(|own| status = own.clone());
        let published = self.diagnostics.message(&status, &streams, shared.now_ns(), now);
        let published = published.map_err(|error| error.to_string());
        if let Err(reason) = published.and_then(|cdr| self.publisher.publish(&cdr).map_err(|error| error.to_string())) {
            tracing::warn!(reason, "nothing is published on /diagnostics");
        }
    }
}

/// Notes how a topic stands, and logs it when that is news.
fn stands(stream: &LiveStream, situation: Situation) {
    let Situation { topic, message_type, state, reason, faulty, .. } = situation.clone();
    if !stream.source().stands(situation) {
        return;
    }
    let message_type = message_type.unwrap_or_default();
    match state {
        SourceState::Refused => {
            let reason = reason.unwrap_or_default();
            tracing::warn!(topic, reason, "the topic is refused");
        }
        _ => tracing::info!(topic, message_type, ?state, "topic"),
    }
    for publisher in faulty {
        let (node, reason) = (publisher.node, publisher.reason);
        tracing::warn!(topic, node, reason, "nothing comes from a publisher");
    }
}
