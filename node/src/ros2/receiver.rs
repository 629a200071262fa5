//! The thread that takes messages from the middleware and offers them to the lanes.
//!
//! It waits for messages only. A lane without room keeps one message waiting here, and its subscription is not taken from until the
//! lane calls: what comes meanwhile stays in the middleware's history and is lost there, if at all, where it is counted. The other
//! topics go on.

use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver as Orders, SyncSender, TryRecvError},
    },
    time::{Duration, Instant},
};

use super::{
    account::{MessageInfo, Sequences},
    rcl::{MessageType, Node, RclError, Subscription, TakeError, WaitSet, Waiting},
    running::{Shared, system_now_ns},
    type_name::TypeName,
};
use crate::{
    config::{Durability, History, Qos, Reliability, Stamp},
    ingest::{DEFAULT_MAX_MESSAGE, LiveDecoder, SourceMessage},
    machine::{LiveStream, Offered},
};

/// Messages taken of one topic before the others have their turn.
const TURN: usize = 32;
/// How often the middleware is asked what it lost.
const LOST_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before the middleware is asked again after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long lanes have at the end for what waits for them here.
const LAST_ROOM: Duration = Duration::from_secs(4);
/// Messages taken of one topic at the end, where its history has no bound of its own.
const LAST_TAKEN: usize = 10_000;
/// `/clock` as rclcpp subscribes it.
const CLOCK_QOS: Qos = Qos {
    reliability: Reliability::BestEffort,
    durability: Durability::Volatile,
    history: History::KeepLast,
    depth: 1,
};

/// What the supervisor asks for.
pub(super) enum Order {
    /// Take from this subscription, in place of another one of the same topic.
    Add(Box<Feed>),
    /// Let go of a topic's subscription, and say when it is gone: the middleware has one type for each topic of a node.
    Remove(Arc<str>, SyncSender<()>),
}

/// A subscription and where its messages go.
pub(super) struct Feed {
    topic: Arc<str>,
    type_name: Arc<str>,
    subscription: Subscription,
    stream: LiveStream,
    decoder: LiveDecoder,
    stamp: Stamp,
    /// Messages that its history holds at most.
    depth: usize,
    sequences: Sequences,
    /// Taken, and the lane has no room for it.
    held: Option<SourceMessage>,
    buffer: Vec<u8>,
    /// The last trouble that was logged: the same one again is only counted.
    told: Option<String>,
}

impl Feed {
    pub(super) fn new(
        type_name: &TypeName,
        subscription: Subscription,
        stream: LiveStream,
        decoder: LiveDecoder,
    ) -> Self {
        let config = Arc::clone(stream.config());
        let depth = match config.qos.history {
            History::KeepLast => usize::try_from(config.qos.depth).unwrap_or(LAST_TAKEN),
            History::KeepAll => LAST_TAKEN,
        };
        Self {
            topic: config.topic.as_str().into(),
            type_name: type_name.to_string().into(),
            subscription,
            stream,
            decoder,
            stamp: config.stamp,
            depth,
            sequences: Sequences::default(),
            held: None,
            buffer: Vec::new(),
            told: None,
        }
    }

    /// Takes up to `most` messages, and says how many. Stops early when there is none, or no room for one.
    fn take(&mut self, most: usize, shared: &Shared) -> Result<usize, RclError> {
        let mut taken = 0;
        while taken < most && self.held.is_none() {
            match self.subscription.take(&mut self.buffer, DEFAULT_MAX_MESSAGE) {
                Ok(Some(info)) => self.message(&info, shared),
                Ok(None) => break,
                Err(error @ TakeError::TooLarge { .. }) => {
                    // It has a number like any other, which the next one shows as missing.
                    self.sequences.excuse();
                    self.stream.source().received(system_now_ns() / 1_000_000);
                    self.refuse(error.to_string());
                }
                Err(TakeError::Rcl(error)) => return Err(error),
            }
            taken += 1;
        }
        Ok(taken)
    }

    fn message(&mut self, info: &MessageInfo, shared: &Shared) {
        let now_ns = system_now_ns();
        let source = self.stream.source();
        source.lost(self.sequences.note(info));
        source.received(now_ns / 1_000_000);
        if shared.is_paused() {
            source.paused();
            return;
        }
        let received_ns = match &shared.sim_time {
            Some(time) => time.load(Relaxed),
            None if info.received_ns > 0 => info.received_ns,
            None => now_ns,
        };
        let stamp = match self.stamp {
            Stamp::Header => self.decoder.stamp(&self.buffer),
            Stamp::Receive => None,
        };
        let log_time_ns = stamp.unwrap_or(received_ns);
        let publish_time_ns = if info.published_ns > 0 { info.published_ns } else { log_time_ns };
        match self.decoder.content(&mut self.buffer) {
            Ok(content) => self.offer(SourceMessage {
                topic: Arc::clone(&self.topic),
                type_name: Arc::clone(&self.type_name),
                log_time_ns,
                publish_time_ns,
                content,
            }),
            Err(reason) => self.refuse(reason),
        }
    }

    fn offer(&mut self, message: SourceMessage) {
        match self.stream.offer(message) {
            Ok(Offered::Taken) => {}
            Ok(Offered::Full(message)) => self.held = Some(message),
            // Counted by the lane, which says why it has stopped.
            Err(error) => self.tell(error.to_string()),
        }
    }

    fn offer_held(&mut self) {
        if let Some(message) = self.held.take() {
            self.offer(message);
        }
    }

    fn refuse(&mut self, reason: String) {
        self.stream.source().refused(reason.clone());
        self.tell(reason);
    }

    fn tell(&mut self, reason: String) {
        if self.told.as_ref() != Some(&reason) {
            tracing::warn!(topic = &*self.topic, reason, "messages of the topic are refused");
            self.told = Some(reason);
        }
    }

    fn count_lost(&mut self) {
        if let Some(total) = self.subscription.lost() {
            let news = self.sequences.told(total);
            self.stream.source().lost(news);
        }
    }
}

/// The receiving thread.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    orders: Orders<Order>,
    set: WaitSet,
    feeds: Vec<Feed>,
    clock: Option<Subscription>,
    buffer: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(node: &Arc<Node>, shared: Arc<Shared>, orders: Orders<Order>) -> Result<Self, super::Ros2Error> {
        let clock = match &shared.sim_time {
            Some(_) => {
                let message_type = MessageType::find(&TypeName::CLOCK)
                    .map_err(|error| super::Ros2Error::Start(format!("use_sim_time: {error}")))?;
                Some(Subscription::new(node, "/clock", &message_type, CLOCK_QOS)?)
            }
            None => None,
        };
        let set = WaitSet::new(node.context())?;
        Ok(Self { shared, orders, set, feeds: Vec::new(), clock, buffer: Vec::new() })
    }

    pub(super) fn run(mut self) {
        let mut lost_at = Instant::now() + LOST_EVERY;
        loop {
            self.obey();
            if self.shared.is_stopping() {
                break;
            }
            if let Err(error) = self.turn(LOST_EVERY) {
                tracing::error!(%error, "receiving failed; it is tried again");
                std::thread::sleep(AFTER_FAILURE);
            }
            if Instant::now() >= lost_at {
                lost_at = Instant::now() + LOST_EVERY;
                self.feeds.iter_mut().for_each(Feed::count_lost);
            }
        }
        self.finish();
    }

    fn obey(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Add(feed)) => {
                    self.remove(&feed.topic.clone());
                    self.feeds.push(*feed);
                }
                Ok(Order::Remove(topic, gone)) => {
                    self.remove(&topic);
                    let _ = gone.try_send(()); // whoever asked may have given up
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    fn remove(&mut self, topic: &Arc<str>) {
        let Some(at) = self.feeds.iter().position(|feed| feed.topic == *topic) else { return };
        let mut feed = self.feeds.swap_remove(at);
        feed.count_lost();
        if feed.held.is_some() {
            feed.offer_held();
            feed.stream.count_dropped(u64::from(feed.held.is_some()));
        }
    }

    /// Waits until something has come, at most `timeout`, and takes it.
    fn turn(&mut self, timeout: Duration) -> Result<(), RclError> {
        self.feeds.iter_mut().for_each(Feed::offer_held);
        // Those with a message in hand are left out: they would wake this thread for what it cannot take.
        let free: Vec<usize> = (0..self.feeds.len()).filter(|at| self.feeds[*at].held.is_none()).collect();
        let mut waiting = Waiting { guards: vec![&self.shared.receiver], ..Waiting::default() };
        waiting.subscriptions.extend(free.iter().map(|at| &self.feeds[*at].subscription));
        waiting.subscriptions.extend(&self.clock);
        let ready = self.set.wait(&waiting, timeout)?;
        drop(waiting);
        for at in ready.subscriptions {
            match free.get(at) {
                Some(at) => drop(self.feeds[*at].take(TURN, &self.shared)?),
                None => self.tick()?,
            }
        }
        Ok(())
    }

    /// Reads `/clock`.
    fn tick(&mut self) -> Result<(), RclError> {
        let (Some(clock), Some(time)) = (&mut self.clock, &self.shared.sim_time) else { return Ok(()) };
        match clock.take(&mut self.buffer, 64) {
            Ok(Some(_)) => {
                if let Some(now) = clock_time(&self.buffer) {
                    time.store(now, Relaxed);
                }
                Ok(())
            }
            Ok(None) | Err(TakeError::TooLarge { .. }) => Ok(()),
            Err(TakeError::Rcl(error)) => Err(error),
        }
    }

    /// Takes once more what has come, and waits a little for lanes that have no room.
    fn finish(&mut self) {
        let until = Instant::now() + LAST_ROOM;
        let mut left: Vec<usize> = self.feeds.iter().map(|feed| feed.depth).collect();
        loop {
            let mut waits = false;
            for (feed, left) in self.feeds.iter_mut().zip(&mut left) {
                feed.offer_held();
                let taken = feed.take(*left, &self.shared).unwrap_or(*left);
                // Without a message in hand there was nothing more to take.
                *left = if feed.held.is_some() { left.saturating_sub(taken) } else { 0 };
                waits |= feed.held.is_some();
            }
            let rest = until.saturating_duration_since(Instant::now());
            if !waits || rest.is_zero() {
                break;
            }
            let waiting = Waiting { guards: vec![&self.shared.receiver], ..Waiting::default() };
            if self.set.wait(&waiting, rest).is_err() {
                break;
            }
        }
        for feed in &mut self.feeds {
            feed.count_lost();
            feed.stream.count_dropped(u64::from(feed.held.is_some()));
        }
    }
}

/// The time in a `rosgraph_msgs/msg/Clock`, in nanoseconds; `None` when it is none, or before 0.
fn clock_time(cdr: &[u8]) -> Option<u64> {
    let (header, body) = cdr.split_first_chunk::<4>()?;
    let word = |at: usize| {
        let bytes = *body.get(at..)?.first_chunk::<4>()?;
        Some(if header[1] & 1 == 1 { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let seconds = u64::try_from(word(0)?.cast_signed()).ok()?;
    Some(seconds * 1_000_000_000 + u64::from(word(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_in_both_byte_orders() {
        assert_eq!(clock_time(&[0, 1, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]), Some(2_000_000_003));
        assert_eq!(clock_time(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]), Some(2_000_000_003));
        assert_eq!(clock_time(&[0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), None);
        assert_eq!(clock_time(&[0, 1, 0, 0, 2, 0, 0]), None);
    }
}
