//! A node: what it does with what comes, and what it sends. It has no clock, no network, and no chance of its own.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    rc::Rc,
};

use tributary_protocol::{
    binding::SignedBinding,
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::{EntryVerdict, Follower, HeadVerdict, History},
    ids::{DatasetId, Did, Hash, LogKey},
    wire::{FeedMessage, SyncRequest, SyncResponse},
};

use super::{
    catch_up::{CatchUp, Step},
    machine::time_ms,
    network::Load,
};

/// A message on a topic, known by its id.
pub(crate) struct Gossip {
    id: Hash,
    bytes: Vec<u8>,
}

impl Gossip {
    fn new(message: &FeedMessage) -> Rc<Self> {
        let bytes = message.encode().unwrap();
        Rc::new(Self { id: Hash::of(&bytes), bytes })
    }

    pub(crate) fn entry(entry: &SignedEntry) -> Rc<Self> {
        Self::new(&FeedMessage::Entry { entry: entry.bytes().to_vec(), attachment: None })
    }

    pub(crate) fn head(head: &SignedHead) -> Rc<Self> {
        Self::new(&FeedMessage::Head(head.bytes().to_vec()))
    }
}

/// What travels.
#[derive(Clone)]
pub(crate) enum Message {
    Gossip(Rc<Gossip>),
    /// A question with its number, and the answer to it.
    Ask(u64, Vec<u8>),
    Answer(u64, Vec<u8>),
}

impl Load for Message {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Gossip(gossip) => &gossip.bytes,
            Self::Ask(_, bytes) | Self::Answer(_, bytes) => bytes,
        };
        bytes.len() as u64
    }

    /// Gossip is dropped where queues are full; questions and answers are streams, which come whole or fail.
    fn is_repeated(&self) -> bool {
        !matches!(self, Self::Gossip(_))
    }
}

/// What is stored, by log and position.
#[derive(Default)]
pub(crate) struct Shelf(BTreeMap<LogKey, BTreeMap<u64, Vec<u8>>>);

impl History for Shelf {
    fn entry(&self, log: &LogKey, seq: u64) -> Option<Vec<u8>> {
        self.0.get(log)?.get(&seq).cloned()
    }

    /// No dataset is closed here.
    fn dataset_closed(&self, _: &Did, _: &DatasetId) -> Option<Vec<u8>> {
        None
    }
}

/// What a node has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Gossip that had come before.
    pub(crate) duplicates: u64,
    /// Entries that came before one that is missing.
    pub(crate) ahead: u64,
    /// Entries and heads by a key of which no binding was known yet.
    pub(crate) unknown_key: u64,
    /// Times that it began to catch up.
    pub(crate) catch_ups: u64,
    /// Entries that catching up brought.
    pub(crate) fetched: u64,
}

pub(crate) struct Peer {
    follower: Follower,
    bindings: Vec<SignedBinding>,
    shelf: Shelf,
    seen: HashSet<Hash>,
    catching_up: Option<CatchUp>,
    questions: u64,
    applied: Vec<(LogKey, u64)>,
    counted: Counted,
}

/// What is to be sent, and to whom.
pub(crate) type Out = Vec<(usize, Message)>;

impl Peer {
    pub(crate) fn new(did: Did) -> Self {
        Self {
            follower: Follower::new(did),
            bindings: Vec::new(),
            shelf: Shelf::default(),
            seen: HashSet::new(),
            catching_up: None,
            questions: 0,
            applied: Vec::new(),
            counted: Counted::default(),
        }
    }

    pub(crate) fn counted(&self) -> Counted {
        self.counted
    }

    /// The entries that were stored since the last time.
    pub(crate) fn take_applied(&mut self) -> Vec<(LogKey, u64)> {
        std::mem::take(&mut self.applied)
    }

    /// Whether it holds so many entries of a log.
    pub(crate) fn holds(&self, log: &LogKey, len: u64) -> bool {
        self.follower.next(&log.log, log.incarnation) == len
    }

    /// Asserts that it holds what another one holds, to the byte, and accuses nobody.
    pub(crate) fn assert_holds_the_same(&self, other: &Self) {
        assert!(self.shelf.0 == other.shelf.0, "the logs differ");
        assert_eq!(self.follower.next_serial(), other.follower.next_serial());
        assert!(self.follower.evidence().is_empty(), "an honest machine looks like a liar");
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.is_some()
    }

    /// Nobody answers any more: it was offline.
    pub(crate) fn went_offline(&mut self) {
        self.catching_up = None;
    }

    /// Gives up a question that was asked before `round`; `true` if there was one.
    pub(crate) fn give_up_before(&mut self, round: u64) -> bool {
        self.catching_up.take_if(|waiting| waiting.asked < round).is_some()
    }

    fn on_binding(&mut self, binding: &SignedBinding) {
        // A gap is what loss looks like; nothing else is wrong with an honest machine's bindings.
        if self.follower.on_binding(binding, &self.shelf).is_ok()
            && self.bindings.len() as u64 + 1 == self.follower.next_serial()
        {
            self.bindings.push(binding.clone());
        }
    }

    /// Takes an entry, and stores it if it is to be stored.
    fn on_entry(&mut self, bytes: &[u8], round: u64) -> EntryVerdict {
        let entry = SignedEntry::decode(bytes).unwrap();
        let mut verdict = self.follower.on_entry(&entry, time_ms(round), &self.shelf);
        if let (EntryVerdict::UnknownKey, EntryBody::Binding(binding)) = (&verdict, &entry.entry().body) {
            self.on_binding(binding);
            verdict = self.follower.on_entry(&entry, time_ms(round), &self.shelf);
        }
        if matches!(verdict, EntryVerdict::Apply { .. }) {
            let (log, seq) = (entry.entry().key(), entry.entry().seq);
            let before = self.shelf.0.entry(log).or_default().insert(seq, entry.into_bytes());
            assert!(before.is_none(), "a position is written once");
            self.applied.push((log, seq));
        }
        verdict
    }

    /// What the machine itself has written.
    pub(crate) fn write(&mut self, entry: &SignedEntry, binding: &SignedBinding, round: u64) -> Rc<Gossip> {
        self.on_binding(binding);
        let verdict = self.on_entry(entry.bytes(), round);
        assert!(matches!(verdict, EntryVerdict::Apply { .. }), "{verdict:?}");
        Gossip::entry(entry)
    }

    /// What the machine itself says about how far its logs go.
    pub(crate) fn say(&mut self, head: &SignedHead) -> Rc<Gossip> {
        assert_eq!(self.follower.on_head(head, &self.shelf), HeadVerdict::Current);
        Gossip::head(head)
    }

    /// Sends to all of its peers something that is new to itself, but not back.
    pub(crate) fn publish(&mut self, gossip: &Rc<Gossip>, peers: &[usize], but: Option<usize>, out: &mut Out) {
        self.seen.insert(gossip.id);
        let to = peers.iter().filter(|peer| Some(**peer) != but);
        out.extend(to.map(|peer| (*peer, Message::Gossip(Rc::clone(gossip)))));
    }

    pub(crate) fn on_message(&mut self, from: usize, message: Message, peers: &[usize], round: u64, out: &mut Out) {
        match message {
            Message::Gossip(gossip) => self.on_gossip(from, &gossip, peers, round, out),
            Message::Ask(number, bytes) => {
                let answer = self.answer(&SyncRequest::decode(&bytes).unwrap());
                out.push((from, Message::Answer(number, answer.encode().unwrap())));
            }
            Message::Answer(number, bytes) => {
                let waits = |waiting: &mut CatchUp| (waiting.peer, waiting.question) == (from, number);
                if let Some(waiting) = self.catching_up.take_if(waits) {
                    let answer = SyncResponse::decode(&bytes).unwrap();
                    self.on_answer(waiting, answer, round, out);
                }
            }
        }
    }

    fn on_gossip(&mut self, from: usize, gossip: &Rc<Gossip>, peers: &[usize], round: u64, out: &mut Out) {
        if !self.seen.insert(gossip.id) {
            self.counted.duplicates += 1;
            return;
        }
        let (accept, behind) = match FeedMessage::decode(&gossip.bytes).unwrap() {
            FeedMessage::Entry { entry, .. } => match self.on_entry(&entry, round) {
                EntryVerdict::Apply { .. } => (true, false),
                EntryVerdict::Known => (false, false),
                EntryVerdict::Ahead { .. } => {
                    self.counted.ahead += 1;
                    (true, true)
                }
                EntryVerdict::UnknownKey => {
                    self.counted.unknown_key += 1;
                    (false, true)
                }
                other => panic!("an honest entry was answered with {other:?}"),
            },
            FeedMessage::Head(head) => {
                match self.follower.on_head(&SignedHead::decode(&head).unwrap(), &self.shelf) {
                    HeadVerdict::Current => (true, false),
                    HeadVerdict::Behind { .. } => (true, true),
                    // By the key before, where a new one took over: it was on its way when the key was changed.
                    HeadVerdict::Old | HeadVerdict::Stale(_) => (false, false),
                    HeadVerdict::UnknownKey => {
                        self.counted.unknown_key += 1;
                        (false, true)
                    }
                    other => panic!("an honest head was answered with {other:?}"),
                }
            }
        };
        if accept {
            self.publish(gossip, peers, Some(from), out);
        }
        if behind {
            self.catch_up(from, round, out);
        }
    }

    /// Begins to catch up with a peer, unless it is at it.
    pub(crate) fn catch_up(&mut self, peer: usize, round: u64, out: &mut Out) {
        if self.catching_up.is_none() {
            self.counted.catch_ups += 1;
            self.ask(peer, Step::Bindings, round, out);
        }
    }

    fn ask(&mut self, peer: usize, step: Step, round: u64, out: &mut Out) {
        self.questions += 1;
        let waiting = CatchUp { peer, step, question: self.questions, asked: round };
        let next = |log: &LogKey| self.follower.next(&log.log, log.incarnation);
        // Without a question it has all there is to have there.
        if let Some(request) = waiting.request(self.follower.did(), self.follower.next_serial(), next) {
            out.push((peer, Message::Ask(self.questions, request.encode().unwrap())));
            self.catching_up = Some(waiting);
        }
    }

    fn on_answer(&mut self, asked: CatchUp, answer: SyncResponse, round: u64, out: &mut Out) {
        let step = match (asked.step, answer) {
            (Step::Bindings, SyncResponse::Bindings { bindings, more }) => {
                for binding in &bindings {
                    self.on_binding(&SignedBinding::decode(binding).unwrap());
                }
                if more { Step::Bindings } else { Step::Heads }
            }
            (Step::Bindings, SyncResponse::NotFound) => Step::Heads,
            (Step::Heads, SyncResponse::Heads { heads, .. }) => {
                let mut behind = VecDeque::new();
                for head in &heads {
                    let head = SignedHead::decode(head).unwrap();
                    if matches!(self.follower.on_head(&head, &self.shelf), HeadVerdict::Behind { .. }) {
                        behind.push_back(head.head().key());
                    }
                }
                Step::Entries(behind)
            }
            (Step::Entries(mut logs), SyncResponse::Entries { entries, more }) => {
                for entry in &entries {
                    match self.on_entry(entry, round) {
                        EntryVerdict::Apply { .. } => self.counted.fetched += 1,
                        // Gossip was quicker.
                        EntryVerdict::Known => {}
                        // The next binding comes with the next time.
                        EntryVerdict::UnknownKey => return,
                        other => panic!("an honest entry was answered with {other:?}"),
                    }
                }
                if !more {
                    logs.pop_front();
                }
                Step::Entries(logs)
            }
            (Step::Heads | Step::Entries(_), SyncResponse::NotFound) => return,
            (step, answer) => panic!("{step:?} was answered with {answer:?}"),
        };
        self.ask(asked.peer, step, round, out);
    }

    /// What it says to somebody who catches up.
    fn answer(&self, request: &SyncRequest) -> SyncResponse {
        let found = match *request {
            SyncRequest::Bindings { from_serial, .. } => {
                let from = usize::try_from(from_serial).unwrap();
                let bindings = self.bindings.iter().skip(from).map(SignedBinding::encode).collect();
                SyncResponse::Bindings { bindings, more: false }
            }
            SyncRequest::Heads { from_log, .. } => {
                let heads = self.follower.tips().filter(|tip| tip.log.log >= from_log);
                let heads = heads.filter_map(|tip| self.follower.newest_head(&tip.log.log, tip.log.incarnation));
                SyncResponse::Heads { heads: heads.map(|head| head.bytes().to_vec()).collect(), more: false }
            }
            SyncRequest::Entries { log, from, max } => {
                let held = self.shelf.0.get(&log).into_iter().flat_map(|log| log.range(from..));
                let mut entries: Vec<Vec<u8>> = held.take(max as usize + 1).map(|(_, entry)| entry.clone()).collect();
                let more = entries.len() > max as usize;
                entries.truncate(max as usize);
                SyncResponse::Entries { entries, more }
            }
            _ => panic!("nobody asks for {request:?}"),
        };
        match found {
            SyncResponse::Bindings { bindings: list, .. }
            | SyncResponse::Heads { heads: list, .. }
            | SyncResponse::Entries { entries: list, .. }
                if list.is_empty() =>
            {
                SyncResponse::NotFound
            }
            found => found,
        }
    }
}
