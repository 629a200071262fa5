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
    Ros2Error,
    feed::Feed,
    rcl::{MessageType, Node, RclError, Subscription, TakeError, WaitSet, Waiting},
    running::Shared,
    type_name::TypeName,
};
use crate::config::{Durability, History, Qos, Reliability};

/// Messages taken of one topic before the others have their turn.
const TURN: usize = 32;
/// How often the middleware is asked what it lost.
const LOST_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before the middleware is asked again after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long lanes have at the end for what waits for them here.
const LAST_ROOM: Duration = Duration::from_secs(4);
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
    pub(super) fn new(node: &Arc<Node>, shared: Arc<Shared>, orders: Orders<Order>) -> Result<Self, Ros2Error> {
        let clock = match &shared.sim_time {
            Some(_) => {
                let message_type = MessageType::find(&TypeName::CLOCK)
                    .map_err(|error| Ros2Error::Start(format!("use_sim_time: {error}")))?;
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
                    self.remove(&Arc::clone(feed.topic()));
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
        let Some(at) = self.feeds.iter().position(|feed| feed.topic() == topic) else { return };
        let mut feed = self.feeds.swap_remove(at);
        feed.offer_held();
        if let Err(error) = feed.take(feed.depth(), &self.shared) {
            tracing::warn!(%topic, %error, "what had come could not be taken");
        }
        feed.end();
    }

    /// Waits until something has come, at most `timeout`, and takes it.
    fn turn(&mut self, timeout: Duration) -> Result<(), RclError> {
        self.feeds.iter_mut().for_each(Feed::offer_held);
        // Those with a message in hand are left out: they would wake this thread for what it cannot take.
        let free: Vec<usize> = (0..self.feeds.len()).filter(|at| !self.feeds[*at].is_holding()).collect();
        let mut waiting = Waiting { guards: vec![&self.shared.receiver], ..Waiting::default() };
        waiting.subscriptions.extend(free.iter().map(|at| self.feeds[*at].subscription()));
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
        let mut left: Vec<usize> = self.feeds.iter().map(Feed::depth).collect();
        loop {
            let mut waits = false;
            for (feed, left) in self.feeds.iter_mut().zip(&mut left) {
                feed.offer_held();
                let taken = feed.take(*left, &self.shared).unwrap_or(*left);
                // Without a message in hand there was nothing more to take.
                *left = if feed.is_holding() { left.saturating_sub(taken) } else { 0 };
                waits |= feed.is_holding();
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
        self.feeds.iter_mut().for_each(Feed::end);
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
