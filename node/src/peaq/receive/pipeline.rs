//! Several chunks are looked into at a time, and judged in the order of the seller.
//!
//! ```text
//! stream ─► lines ─► tray ─► examiners, in turns ─► tray ─► judge, file
//!                     ▲                                       │
//!                     └───────────── empty trays ◄────────────┘
//! ```
//!
//! The network part cuts what it reads into lines; examining, judging and writing run on threads that may block. Frames travel in
//! trays, of which there is a fixed number, so memory is bounded whoever is slow. Examiners take turns, and the judge asks them in
//! the same turns. It ends with the judge: when everything came, or at the first check that fails.

use std::{
    num::NonZero,
    sync::{Arc, mpsc as blocking},
    thread,
};

use futures::{AsyncRead, AsyncReadExt as _};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tributary_protocol::peaq::{
    frame::{FrameError, lines::Lines},
    receiver::{Buffers, Examined, Examiner, Judge, ReceiveError, Verdict},
    verify::ChainReport,
};

use super::{Failure, Receipt, SILENCE};

/// Bytes read at a time: as many as a stream has in one piece.
const READ: usize = 64 << 10;
/// Most examiners: they are faster than one connection long before.
const MAX_EXAMINERS: usize = 4;
/// Trays beside one for each examiner: one that is being filled, one that is being judged, and one on the way.
const SPARE: usize = 3;

/// Where a frame lies while it is worked on.
#[derive(Default)]
struct Tray {
    line: Vec<u8>,
    buffers: Buffers,
}

/// A line in its tray, or why there is none.
type Filled = (Tray, Result<(), FrameError>);

/// Where plaintexts go. Called on a thread that may block.
pub(super) trait Sink: Send + 'static {
    /// The next plaintext, the number of chunks so far, and of those bought.
    fn chunk(&mut self, plaintext: &[u8], received: u64, bought: u64) -> Result<(), Failure>;

    /// Everything came.
    fn complete(self, report: &ChainReport) -> Result<Receipt, Failure>;
}

/// Receives frames until the delivery is complete.
///
/// # Errors
/// The first check that fails, the connection broke, or the sink refused.
pub(super) async fn run(
    stream: &mut (impl AsyncRead + Unpin),
    examiner: Examiner,
    sink: impl Sink,
) -> Result<Receipt, Failure> {
    let count = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_EXAMINERS);
    let trays = count + SPARE;
    let (lines, judge) = (examiner.lines(), examiner.judge());
    let examiner = Arc::new(examiner);
    let (give_back, empty) = mpsc::channel(trays);
    for _ in 0..trays {
        // There is room for all of them.
        let _ = give_back.try_send(Tray::default());
    }
    let (mut filled, mut examined, mut examiners) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (fill, lines) = mpsc::channel(trays);
        let (done, results) = blocking::sync_channel(trays);
        let examiner = Arc::clone(&examiner);
        examiners.push(tokio::task::spawn_blocking(move || examine(&examiner, lines, &done)));
        filled.push(fill);
        examined.push(results);
    }
    let mut judging = tokio::task::spawn_blocking(move || judge_all(judge, &examined, &give_back, sink));
    let fed = tokio::select! {
        biased;
        // Nobody wants more.
        judged = &mut judging => return finished(judged, examiners).await,
        fed = feed(stream, lines, filled, empty) => fed,
    };
    match (fed, finished(judging.await, examiners).await) {
        // What is wrong with the data is said before what is wrong with the connection, unless that came first.
        (Err(broken), Err(Failure::Delivery(ReceiveError::Incomplete | ReceiveError::Frame(_)))) => Err(broken),
        (_, judged) => judged,
    }
}

/// What the judge said, if every thread ended as it should.
async fn finished(
    judged: Result<Result<Receipt, Failure>, JoinError>,
    examiners: Vec<JoinHandle<()>>,
) -> Result<Receipt, Failure> {
    for examiner in examiners {
        examiner.await.map_err(|_| Failure::Ended)?;
    }
    judged.map_err(|_| Failure::Ended)?
}

/// Reads until the seller ends, and gives each line to the next examiner.
async fn feed(
    stream: &mut (impl AsyncRead + Unpin),
    mut lines: Lines,
    filled: Vec<mpsc::Sender<Filled>>,
    mut empty: mpsc::Receiver<Tray>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; READ];
    let mut examiners = filled.iter().cycle();
    loop {
        let read = timeout(SILENCE, stream.read(&mut buffer)).await;
        let len = read.map_err(|_| Failure::Silent)?.map_err(Failure::Broken)?;
        let mut input = buffer.get(..len).unwrap_or_default();
        loop {
            let line = match lines.next(&mut input) {
                Ok(None) if len > 0 => break,
                Ok(None) => match lines.finish() {
                    // The judge finds out that nothing more comes.
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                },
                Ok(Some(_)) => Ok(()),
                Err(error) => Err(error),
            };
            let (Some(mut tray), Some(examiner)) = (empty.recv().await, examiners.next()) else { return Ok(()) };
            let is_last = line.is_err();
            lines.swap(&mut tray.line);
            if examiner.send((tray, line)).await.is_err() || is_last {
                return Ok(());
            }
        }
    }
}

/// Looks into every line.
fn examine(examiner: &Examiner, mut lines: mpsc::Receiver<Filled>, done: &blocking::SyncSender<(Tray, Examined)>) {
    while let Some((mut tray, line)) = lines.blocking_recv() {
        let examined = match line {
            Ok(()) => examiner.examine(&tray.line, &mut tray.buffers),
            Err(error) => error.into(),
        };
        if done.send((tray, examined)).is_err() {
            return;
        }
    }
}

/// Judges every frame in its turn.
fn judge_all(
    mut judge: Judge,
    examined: &[blocking::Receiver<(Tray, Examined)>],
    give_back: &mpsc::Sender<Tray>,
    mut sink: impl Sink,
) -> Result<Receipt, Failure> {
    for examiner in examined.iter().cycle() {
        // Nothing more comes.
        let Ok((tray, frame)) = examiner.recv() else { break };
        match judge.judge(frame)? {
            Verdict::Chunk { .. } => sink.chunk(tray.buffers.plaintext(), judge.received(), judge.bought())?,
            Verdict::Withheld => {}
            Verdict::Complete(report) => return sink.complete(&report),
        }
        // Nobody fills it any more where this fails.
        let _ = give_back.try_send(tray);
    }
    Err(ReceiveError::Incomplete.into())
}
