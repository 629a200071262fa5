//! Proving a dataset from its machine's DID down to every package.
//!
//! Owns the order of proof and the report. It trusts nothing that is stored: bindings, entries and bodies are checked again as
//! if they had just come from a stranger. Bounded memory, whatever the size: a window of chunks on a few threads, and one
//! package.
//!
//! | step | what it proves |
//! |---|---|
//! | bindings | the DID's identity key (and its owner) named the feed keys |
//! | dataset entry | the feed key of its place in the machine log signed it, on the way to every pinned entry |
//! | chunk entries | the same for the record of every chunk; each names the one before it |
//! | totals | counts, ranges, the chunkId chain and the Merkle root are those of the dataset entry |
//! | bodies | each ciphertext that is here: BLAKE3, SHA-256, v1 signature |
//! | plaintexts | each that was granted: key commitment, tag, commitment to the plaintext, unpacking |
//! | packages | each package: signed by the DID; numbers only go up and are those of the records |

mod packages;
mod pool;
mod report;

use std::{collections::VecDeque, sync::mpsc::Receiver, time::Instant};

use tributary_protocol::{
    binding::{BindingChain, chain::Reigns},
    dataset::{DatasetBuilder, DatasetEntry},
    entry::{EntryBody, SignedEntry},
    ids::{DatasetId, Did, Hash, LogId, LogKey, StreamId},
    keys::FeedPublicKey,
    record::{ChunkRecord, Content},
    seal,
};
use tributary_store::StoreError;

pub use self::report::{Report, Step, StepState, Verdict};
use self::{packages::Packages, pool::Pool, report::difference};
use super::{Buyer, error::VerifyError, plaintext::open_chunk};
use crate::feeds::{
    FeedsError, PullSelection, blocking, closing_entry, dataset_place, decode_stored, entries, stored_chain,
};

/// Chunks that are being checked at a time, each up to 1 MiB twice.
const WINDOW: usize = 6;

/// Something that is wrong.
struct Failure(String);

enum Stop {
    Wrong(Failure),
    Error(FeedsError),
}

impl From<FeedsError> for Stop {
    fn from(error: FeedsError) -> Self {
        match error {
            FeedsError::Store(error) => error.into(),
            error @ FeedsError::Row { .. } => wrong(error.to_string()),
            error => Self::Error(error),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            // What is on the disk is not what was written: that is what verifying is for.
            StoreError::Damaged { .. } => wrong(error.to_string()),
            error => Self::Error(error.into()),
        }
    }
}

fn wrong(reason: impl Into<String>) -> Stop {
    Stop::Wrong(Failure(reason.into()))
}

/// What became of a chunk's body.
enum Body {
    Absent,
    Sealed,
    Opened(Vec<u8>),
    Wrong(String),
    Error(FeedsError),
}

impl Buyer {
    /// Proves a dataset as far as it is here. Chunk entries of a closed one that are not known here are fetched first.
    ///
    /// # Errors
    ///
    /// When the dataset is not known here, not all of its chunk entries can be had, or the store cannot be read. What is wrong
    /// with the data is in the report.
    pub async fn verify(&self, did: &Did, dataset: DatasetId) -> Result<Report, VerifyError> {
        let (buyer, did) = (self.clone(), *did);
        self.feeds().complete(&did, PullSelection::Dataset(dataset)).await?;
        blocking(move || buyer.verify_blocking(&did, dataset)).await?
    }

    /// As [`Buyer::verify`], on the calling thread and a few more, and without asking anybody.
    ///
    /// # Errors
    ///
    /// As [`Buyer::verify`].
    pub fn verify_blocking(&self, did: &Did, dataset: DatasetId) -> Result<Report, VerifyError> {
        let begun = Instant::now();
        if !self.feeds().knows(did, &dataset)? {
            return Err(VerifyError::NotFound(dataset));
        }
        self.feeds().complete_here(did, &dataset)?;
        let closing = closing_entry(self.feeds().store(), did, &dataset)?;
        let mut proof = Proof {
            buyer: self,
            did: *did,
            chain: None,
            report: Report {
                did: *did,
                dataset,
                verdict: Verdict::Broken,
                steps: Vec::new(),
                first_failure: None,
                complete: closing.is_some(),
                chunks: 0,
                chunks_held: 0,
                chunks_opened: 0,
                packages: 0,
                packages_verified: 0,
                gaps: 0,
                seconds: 0.0,
            },
        };
        let outcome = proof.run(dataset, closing.as_deref());
        let mut report = proof.report;
        report.seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(verdict) => report.verdict = verdict,
            Err((_, Stop::Error(error))) => return Err(error.into()),
            Err((step, Stop::Wrong(Failure(reason)))) => {
                report.first_failure = Some(format!("{step}: {reason}"));
                report.steps.push(Step { name: step.to_owned(), state: StepState::Failed, detail: reason });
            }
        }
        Ok(report)
    }
}

/// Which entries a dataset has.
enum Scope {
    /// Those that the machine names.
    Closed(DatasetEntry),
    /// Those that are here.
    Open { log: LogKey, first_seq: u64, stream: StreamId, epoch: u64, dataset: DatasetId },
}

struct Proof<'a> {
    buyer: &'a Buyer,
    did: Did,
    chain: Option<BindingChain>,
    report: Report,
}

/// Names the step in which something went wrong.
trait In<T> {
    fn within(self, step: &'static str) -> Result<T, (&'static str, Stop)>;
}

impl<T, E: Into<Stop>> In<T> for Result<T, E> {
    fn within(self, step: &'static str) -> Result<T, (&'static str, Stop)> {
        self.map_err(|error| (step, error.into()))
    }
}

impl Proof<'_> {
    fn step(&mut self, name: &str, state: StepState, detail: String) {
        self.report.steps.push(Step { name: name.to_owned(), state, detail });
    }

    fn run(&mut self, dataset: DatasetId, closing: Option<&[u8]>) -> Result<Verdict, (&'static str, Stop)> {
        self.bindings().within("bindings")?;
        let scope = match closing {
            Some(closing) => {
                let close = self.dataset_entry(dataset, closing).within("dataset entry")?;
                self.report.chunks = u64::from(close.chunk_count);
                self.report.packages = close.package_count;
                Scope::Closed(close)
            }
            None => self.open(dataset).within("dataset entry")?,
        };
        let packages = self.chunks(&scope)?;

        let Report { chunks, chunks_held, chunks_opened, packages: total, .. } = self.report;
        let state = |done, all| match done {
            done if done == all => StepState::Passed,
            0 => StepState::Skipped,
            _ => StepState::Partial,
        };
        self.step("bodies", state(chunks_held, chunks), format!("{chunks_held} of {chunks} are here and right"));
        let detail = format!("{chunks_opened} of {chunks} are granted and right");
        self.step("plaintexts", state(chunks_opened, chunks), detail);
        match packages {
            Some(verified) => {
                let detail = format!("{verified} of {total} are signed by {}", self.did);
                self.step("packages", state(verified, total), detail);
            }
            None => self.step("packages", StepState::Skipped, "the dataset is a file".to_owned()),
        }
        Ok(if self.chain.is_some() { Verdict::Proven } else { Verdict::Consistent })
    }

    fn bindings(&mut self) -> Result<(), Stop> {
        match stored_chain(self.buyer.feeds().store(), &self.did) {
            Ok(Some(chain)) => {
                let current = chain.current();
                let detail = format!("{} bindings, the newest is {}", current.serial + 1, current.serial);
                self.step("bindings", StepState::Passed, detail);
                self.chain = Some(chain);
                Ok(())
            }
            Ok(None) => {
                let detail = format!("no binding of {} is here: nothing can be traced to it", self.did);
                self.step("bindings", StepState::Skipped, detail);
                Ok(())
            }
            Err(error @ (FeedsError::Chain { .. } | FeedsError::Row { .. })) => Err(wrong(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn reigns(&self, log: &LogKey) -> Option<Reigns> {
        self.chain.as_ref().map(|chain| chain.reigns(&log.log, log.incarnation))
    }

    /// Checks the signature of an entry, and that its key was entitled to its place.
    fn signed(&self, entry: &SignedEntry, reigns: Option<&Reigns>) -> Result<(), Stop> {
        let seq = entry.entry().seq;
        if let Some(reigns) = reigns {
            let reign = reigns.at(seq).ok_or_else(|| wrong(format!("no feed key may sign entry {seq}")))?;
            if reign.key != entry.signer() {
                return Err(wrong(format!("entry {seq} is signed by another key than the machine bound for it")));
            }
        }
        entry.verify_signature().map_err(|_| wrong(format!("the signature of entry {seq} is wrong")))
    }

    /// Follows the links from an entry to the next entry that a later binding pins, so that a retired key proves nothing by
    /// itself.
    fn settled(&self, log: LogKey, seq: u64, hash: Hash, reigns: Option<&Reigns>) -> Result<(), Stop> {
        let Some(pin) = reigns.and_then(|reigns| reigns.pin_above(seq)) else { return Ok(()) };
        let mut last = (seq, hash);
        let to = pin.at.saturating_sub(1);
        for entry in entries(self.buyer.feeds().store(), log, seq.saturating_add(1)..=to) {
            let entry = entry?;
            if entry.entry().seq != last.0 + 1 || entry.entry().prev != last.1 {
                return Err(wrong(format!("entry {} does not follow entry {}", entry.entry().seq, last.0)));
            }
            last = (entry.entry().seq, entry.hash());
        }
        if last != (to, pin.prev) {
            return Err(wrong(format!(
                "entry {seq} is by a retired key and does not lead to the entry pinned at {to}"
            )));
        }
        Ok(())
    }

    fn dataset_entry(&mut self, dataset: DatasetId, bytes: &[u8]) -> Result<DatasetEntry, Stop> {
        let signed = decode_stored(bytes).map_err(|error| wrong(error.to_string()))?;
        let entry = signed.entry();
        let EntryBody::DatasetClosed(close) = &entry.body else { return Err(wrong("it is no dataset entry")) };
        if entry.did != self.did || close.dataset != dataset {
            return Err(wrong("it is about another machine or dataset"));
        }
        let log = entry.key();
        let reigns = self.reigns(&log);
        self.signed(&signed, reigns.as_ref())?;
        self.settled(log, entry.seq, signed.hash(), reigns.as_ref())?;
        let detail = format!("entry {} of the machine log: {} chunks", entry.seq, close.chunk_count);
        self.step("dataset entry", StepState::Passed, detail);
        Ok(close.clone())
    }

    /// What is known of a dataset that the machine has not closed.
    fn open(&mut self, dataset: DatasetId) -> Result<Scope, Stop> {
        let place = dataset_place(self.buyer.feeds().store(), &self.did, &dataset)?;
        let (log, first_seq, _) = place.ok_or_else(|| wrong("nothing of it is here"))?;
        let first = self.buyer.feeds().store().entry(&log, first_seq)?;
        let first = decode_stored(&first.ok_or_else(|| wrong("its first entry is not here"))?)?;
        let EntryBody::Chunk(record) = &first.entry().body else { return Err(wrong("its first entry is no chunk")) };
        if record.index > 0 {
            let detail =
                format!("it begins {} chunks before the place from which its stream is followed", record.index);
            return Err(wrong(detail));
        }
        let detail = "the machine still writes it: there is no total to check the chunks against".to_owned();
        self.step("dataset entry", StepState::Skipped, detail);
        Ok(Scope::Open { log, first_seq, stream: record.stream, epoch: record.epoch, dataset })
    }

    /// Walks the chunks. Returns how many packages were verified; `None` for a file.
    fn chunks(&mut self, scope: &Scope) -> Result<Option<u64>, (&'static str, Stop)> {
        let (log, first_seq, last_seq, mut builder) = match scope {
            Scope::Closed(close) => (
                LogKey { did: self.did, log: LogId::from(close.stream), incarnation: close.incarnation },
                close.first_seq,
                close.last_seq,
                DatasetBuilder::new(close.stream, close.epoch, close.incarnation, close.first_seq),
            ),
            Scope::Open { log, first_seq, stream, epoch, .. } => {
                (*log, *first_seq, u64::MAX, DatasetBuilder::new(*stream, *epoch, log.incarnation, *first_seq))
            }
        };
        let reigns = self.reigns(&log);
        let store = self.buyer.feeds().store().clone();
        let mut last: Option<(u64, Hash)> = None;
        let pool = Pool::new();
        let mut window: VecDeque<(ChunkRecord, Receiver<Body>)> = VecDeque::new();
        let mut packages = Packages::new(self.did);
        let mut content = None;
        for signed in entries(&store, log, first_seq..=last_seq) {
            let signed = signed.within("chunk entries")?;
            let entry = signed.entry();
            if let (Scope::Open { dataset, .. }, EntryBody::Chunk(record)) = (scope, &entry.body)
                && record.dataset != *dataset
            {
                // The next dataset has begun; the entry that closes this one is on its way.
                break;
            }
            let unlinked = last.is_some_and(|(seq, hash)| entry.seq != seq + 1 || entry.prev != hash);
            if unlinked || (last.is_none() && entry.seq != first_seq) {
                return Err(("chunk entries", wrong(format!("entry {} does not follow the one before it", entry.seq))));
            }
            self.signed(&signed, reigns.as_ref()).within("chunk entries")?;
            last = Some((entry.seq, signed.hash()));
            let EntryBody::Chunk(record) = &entry.body else {
                return Err(("chunk entries", wrong(format!("entry {} is no chunk", entry.seq))));
            };
            builder.push(entry.seq, record).map_err(|error| wrong(error.to_string())).within("totals")?;
            if content.is_some_and(|content| content != record.encoding.content) {
                return Err(("chunk entries", wrong("packages and a file in one dataset")));
            }
            content = Some(record.encoding.content);
            self.report.gaps += record.gaps;
            let (job, key) = (self.body_job(record), signed.signer());
            window.push_back((record.clone(), pool.run(move || job(key))));
            if window.len() >= WINDOW {
                self.take(&mut window, &mut packages, &pool)?;
            }
        }
        let built = builder.close();
        match scope {
            Scope::Closed(close) if built.as_ref() != Some(close) => {
                let detail = match (&built, last) {
                    (Some(built), Some(_)) => difference(built, close),
                    _ => "no chunk entry is here".to_owned(),
                };
                return Err(("totals", wrong(detail)));
            }
            Scope::Closed(_) => {}
            Scope::Open { .. } => {
                self.report.chunks = u64::from(builder.next_index());
                self.report.packages = builder.packages();
            }
        }
        if let Some((seq, hash)) = last {
            self.settled(log, seq, hash, reigns.as_ref()).within("chunk entries")?;
        }
        while !window.is_empty() {
            self.take(&mut window, &mut packages, &pool)?;
        }
        let expected = matches!(scope, Scope::Closed(_)).then_some(self.report.packages);
        let verified = packages.finish(expected).within("packages")?;
        self.report.packages_verified = verified;
        let last_seq = last.map_or(first_seq, |(seq, _)| seq);
        let mut detail = format!("entries {first_seq} to {last_seq} of the stream log");
        if let Some((joined, _)) =
            self.buyer.feeds().span(&log).within("chunk entries")?.filter(|(first, _)| *first > 0)
        {
            detail.push_str(&format!(
                "; the log is followed from entry {joined} on, so nothing is proven of what came before that"
            ));
        }
        self.step("chunk entries", StepState::Passed, detail);
        match scope {
            Scope::Closed(close) => {
                let detail = format!("Merkle root {}", hex::encode(close.merkle_root));
                self.step("totals", StepState::Passed, detail);
            }
            Scope::Open { .. } => {
                let detail = "the machine states them when it closes the dataset".to_owned();
                self.step("totals", StepState::Skipped, detail);
            }
        }
        Ok((content == Some(Content::Packages)).then_some(verified))
    }

    /// What a thread does with a chunk.
    fn body_job(&self, record: &ChunkRecord) -> impl FnOnce(FeedPublicKey) -> Body + Send + 'static {
        let (buyer, did, record) = (self.buyer.clone(), self.did, record.clone());
        move |feed_key| match check_body(&buyer, &did, &record, &feed_key) {
            Ok(body) => body,
            Err(Stop::Wrong(Failure(reason))) => Body::Wrong(reason),
            Err(Stop::Error(error)) => Body::Error(error),
        }
    }

    /// Takes the oldest chunk of the window.
    fn take(
        &mut self,
        window: &mut VecDeque<(ChunkRecord, Receiver<Body>)>,
        packages: &mut Packages,
        pool: &Pool,
    ) -> Result<(), (&'static str, Stop)> {
        let Some((record, body)) = window.pop_front() else { return Ok(()) };
        let body = body.recv().map_err(|_| FeedsError::Stopped).within("bodies")?;
        let plaintext = match body {
            Body::Absent => None,
            Body::Sealed => {
                self.report.chunks_held += 1;
                None
            }
            Body::Opened(plaintext) => {
                self.report.chunks_held += 1;
                self.report.chunks_opened += 1;
                Some(plaintext)
            }
            Body::Wrong(reason) => return Err(("bodies", wrong(format!("chunk {}: {reason}", record.index)))),
            Body::Error(error) => return Err(("bodies", error.into())),
        };
        if record.encoding.content == Content::Packages {
            packages.chunk(&record, plaintext, pool).within("packages")?;
        }
        Ok(())
    }
}

fn check_body(buyer: &Buyer, did: &Did, record: &ChunkRecord, feed_key: &FeedPublicKey) -> Result<Body, Stop> {
    let Some(body) = buyer.feeds().store().chunk(&record.hash)? else { return Ok(Body::Absent) };
    // A grant that cannot be read says nothing about the machine.
    match buyer.key_for(did, record).map_err(Stop::Error)? {
        Some(key) => open_chunk(record, feed_key, &key, &body).map(Body::Opened).map_err(|error| wrong(cause(&error))),
        None => match seal::verify_v1(record, feed_key, &body) {
            Ok(()) => Ok(Body::Sealed),
            Err(error) => Err(wrong(error.to_string())),
        },
    }
}

/// An error with what is behind it.
fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", cause(source)),
        None => error.to_string(),
    }
}
