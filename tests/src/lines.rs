//! NDJSON messages to ingest, numbered so that each can be found again.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, StreamExt as _};
use hyper::body::Bytes;
use tributary::control::api::IngestRequest;

/// Key of a line that holds its topic.
pub const TOPIC_FIELD: &str = "topic";

/// Message number `n` on `topic`, about as large as an odometry message. What is in it follows from its number.
#[must_use]
pub fn line(topic: &str, n: u64) -> String {
    let angle = (n % 6283) as f64 / 1000.0;
    format!(
        "{{\"topic\":\"{topic}\",\"n\":{n},\"pose\":{{\"x\":{:.6},\"y\":{:.6}}},\"frame\":\"{}\"}}\n",
        angle.cos(),
        angle.sin(),
        "odom ".repeat(24)
    )
}

/// Writes messages `first..first + count` on `topic` into a new file of `folder`.
///
/// # Panics
///
/// When it cannot be written.
#[must_use]
pub fn file(folder: &Path, topic: &str, first: u64, count: u64) -> PathBuf {
    let path = folder.join(format!("lines-{}-{first}.ndjson", topic.replace('/', "")));
    let text: String = (first..first + count).map(|n| line(topic, n)).collect();
    std::fs::write(&path, text).unwrap();
    path
}

/// The request that goes before lines with a topic each.
#[must_use]
pub fn by_topic() -> IngestRequest {
    IngestRequest { topic_field: Some(TOPIC_FIELD.to_owned()), ..IngestRequest::default() }
}

/// A robot that never stops: messages on all `topics` in turn, numbered on from `next`, which is moved along before the
/// messages are handed out. The first line is the request.
///
/// # Panics
///
/// Never: requests can be written.
pub fn endless(
    topics: &'static [&'static str],
    next: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    /// Messages on each topic that go into one part of the body.
    const PART: u64 = 16;
    let mut head = serde_json::to_vec(&by_topic()).unwrap();
    head.push(b'\n');
    let parts = futures::stream::repeat_with(move || {
        let first = next.fetch_add(PART, Relaxed);
        let text: String = (first..first + PART).flat_map(|n| topics.iter().map(move |topic| line(topic, n))).collect();
        Ok::<_, Infallible>(Bytes::from(text))
    });
    futures::stream::once(std::future::ready(Ok(Bytes::from(head))))
        .chain(parts)
        .map(|part| part.map_err(|never| match never {}))
}
