//! The packages of a dataset while its chunks are verified in order.
//!
//! Owns what is known about the package stream: where it may begin again behind a chunk that is not here, which numbers are
//! due, and the signatures that are being checked. A stretch that begins behind a missing chunk may begin in the middle of a
//! package; its first chunks are then left out until one begins with a package.

use std::{collections::VecDeque, sync::mpsc::Receiver};

use tributary_protocol::{ids::Did, package::DataPackage, record::ChunkRecord};

use super::{Failure, Stop, pool::Pool, wrong};
use crate::{
    export::{PlaintextLimits, PlaintextReader},
    feeds::FeedsError,
};

/// Packages in one job.
const BATCH: usize = 64;
/// Jobs under way.
const JOBS: usize = 8;

pub(super) struct Packages {
    did: Did,
    run: Option<Run>,
    /// Packages that begin in the chunks so far.
    begun: u64,
    last_number: Option<u64>,
    batch: Vec<DataPackage>,
    jobs: VecDeque<(u64, Receiver<Option<String>>)>,
    verified: u64,
    /// Whether every chunk so far was read.
    whole: bool,
}

/// Chunks without a hole between them.
struct Run {
    reader: PlaintextReader,
    /// Whether it is certain that it began with a package.
    aligned: bool,
    /// Number of the next package, counted from the start of the dataset.
    next: u64,
    /// Which of them begins which chunk, and the number it must have.
    due: VecDeque<(u64, u64)>,
}

impl Packages {
    pub(super) fn new(did: Did) -> Self {
        Self {
            did,
            run: None,
            begun: 0,
            last_number: None,
            batch: Vec::new(),
            jobs: VecDeque::new(),
            verified: 0,
            whole: true,
        }
    }

    /// Takes the next chunk; `None` for one that is not here or not granted.
    pub(super) fn chunk(&mut self, record: &ChunkRecord, plaintext: Option<Vec<u8>>, pool: &Pool) -> Result<(), Stop> {
        let begun = self.begun;
        self.begun += u64::from(record.package_count);
        let Some(plaintext) = plaintext else {
            self.whole = false;
            self.run = None;
            return Ok(());
        };
        let run = self.run.get_or_insert_with(|| Run {
            reader: PlaintextReader::new(PlaintextLimits::default()),
            aligned: record.index == 0,
            next: begun,
            due: VecDeque::new(),
        });
        if record.package_count > 0 {
            run.due.push_back((begun, record.first_number));
        }
        run.reader.push(&plaintext);
        loop {
            let Some(run) = &mut self.run else { return Ok(()) };
            let package = match run.reader.next_package() {
                Ok(Some(package)) => package.package,
                Ok(None) => return Ok(()),
                Err(_) if !run.aligned => {
                    self.run = None;
                    return Ok(());
                }
                Err(error) => return Err(wrong(format!("chunk {}: {error}", record.index))),
            };
            run.aligned = true;
            let number = package.sequence_number.as_u64();
            let Some(number) = number else { return Err(wrong("a package has a number that is none")) };
            if self.last_number.is_some_and(|last| number <= last) {
                return Err(wrong(format!("package {number} comes after a later one")));
            }
            self.last_number = Some(number);
            if let Some((_, first)) = run.due.pop_front_if(|(at, _)| *at == run.next)
                && first != number
            {
                return Err(wrong(format!("package {number} stands where its record says {first}")));
            }
            run.next += 1;
            self.batch.push(package);
            if self.batch.len() >= BATCH {
                self.send(pool)?;
            }
        }
    }

    /// Hands what was collected to the threads.
    fn send(&mut self, pool: &Pool) -> Result<(), Stop> {
        let (did, batch) = (self.did, std::mem::take(&mut self.batch));
        if batch.is_empty() {
            return Ok(());
        }
        let count = batch.len() as u64;
        self.jobs.push_back((count, pool.run(move || batch.iter().find_map(|package| refused(&did, package)))));
        while self.jobs.len() > JOBS {
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), Stop> {
        let Some((count, result)) = self.jobs.pop_front() else { return Ok(()) };
        match result.recv() {
            Ok(None) => self.verified += count,
            Ok(Some(reason)) => return Err(Stop::Wrong(Failure(reason))),
            Err(_) => return Err(FeedsError::Stopped.into()),
        }
        Ok(())
    }

    /// Waits for all signatures; returns how many packages are right. `expected` is how many the dataset has; `None` when it has
    /// no end yet, and may stop in the middle of a package.
    pub(super) fn finish(mut self, expected: Option<u64>) -> Result<u64, Stop> {
        let left = std::mem::take(&mut self.batch);
        for package in &left {
            match refused(&self.did, package) {
                None => self.verified += 1,
                Some(reason) => return Err(wrong(reason)),
            }
        }
        while !self.jobs.is_empty() {
            self.collect()?;
        }
        if let Some(run) = self.run.take()
            && run.aligned
            && expected.is_some()
        {
            if let Some((_, number)) = run.due.front() {
                return Err(wrong(format!("package {number} is missing")));
            }
            run.reader.finish().map_err(|error| wrong(error.to_string()))?;
        }
        if let Some(expected) = expected
            && self.whole
            && self.verified != expected
        {
            return Err(wrong(format!("{} packages are here, the dataset has {expected}", self.verified)));
        }
        Ok(self.verified)
    }
}

/// Why a package is not the machine's.
fn refused(did: &Did, package: &DataPackage) -> Option<String> {
    let number = &package.sequence_number;
    match package.verify_from(did) {
        Ok(verdict) if verdict.valid => None,
        Ok(verdict) => {
            let reason = verdict.reason.map_or_else(String::new, |reason| reason.to_string());
            Some(format!("package {number} is not signed by {did}: {reason}"))
        }
        Err(error) => Some(format!("package {number} cannot be checked: {error}")),
    }
}
