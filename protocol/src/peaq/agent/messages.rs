//! What the agent's frames say.

use std::{borrow::Cow, collections::BTreeMap};

use base64::Engine;
use serde::{Deserialize, Serialize};

use super::{MAX_CHUNKS, MAX_REQUEST_BYTES, frames::framed};
use crate::peaq::{
    ascii_json,
    base64_engine::BASE64,
    envelope::Envelope,
    frame::{ENCODING, PROTOCOL, sorted_envelope},
};

/// A buyer's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRequest {
    /// Comes back in every answer.
    pub request_id: String,
    /// The purchase (order) id.
    pub purchase_id: String,
    /// The delivery session.
    pub delivery_session_id: String,
    /// The buyer's id.
    pub buyer_id: String,
    /// Which chunks, in the order they are wanted.
    pub chunk_ids: Vec<String>,
    /// How many bytes of a chunk's ciphertext the buyer has already.
    pub resume_offsets: BTreeMap<String, u64>,
}

/// Why a request is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too long.
    #[error("the request is longer than {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    /// Not JSON, or no `chunk.request` with its fields.
    #[error("the first frame must be a chunk.request with chunkIds")]
    Shape,
    /// Another protocol or encoding.
    #[error("unsupported protocol or encoding")]
    Protocol,
    /// Too many chunks.
    #[error("at most {MAX_CHUNKS} chunks can be asked for at once")]
    TooMany,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(default)]
    buyer_id: Cow<'a, str>,
    chunk_ids: Cow<'a, [String]>,
    #[serde(default)]
    delivery_session_id: Cow<'a, str>,
    encoding: Option<Cow<'a, str>>,
    protocol: Cow<'a, str>,
    #[serde(default)]
    purchase_id: Cow<'a, str>,
    #[serde(default)]
    request_id: Cow<'a, str>,
    #[serde(default)]
    resume_offsets: Cow<'a, BTreeMap<String, u64>>,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
}

impl ChunkRequest {
    /// Reads the JSON text of a frame.
    ///
    /// # Errors
    /// Too long, of another kind, for another protocol, or for too many chunks.
    pub fn parse(json: &[u8]) -> Result<Self, RequestError> {
        if json.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong);
        }
        let request: Request<'_> = serde_json::from_slice(json).map_err(|_| RequestError::Shape)?;
        if request.kind != "chunk.request" || request.chunk_ids.iter().any(String::is_empty) {
            return Err(RequestError::Shape);
        }
        if request.protocol != PROTOCOL || request.encoding.is_some_and(|encoding| encoding != ENCODING) {
            return Err(RequestError::Protocol);
        }
        if request.chunk_ids.len() > MAX_CHUNKS {
            return Err(RequestError::TooMany);
        }
        Ok(Self {
            request_id: request.request_id.into_owned(),
            purchase_id: request.purchase_id.into_owned(),
            delivery_session_id: request.delivery_session_id.into_owned(),
            buyer_id: request.buyer_id.into_owned(),
            chunk_ids: request.chunk_ids.into_owned(),
            resume_offsets: request.resume_offsets.into_owned(),
        })
    }

    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(&ascii_json::compact(&Request {
            buyer_id: (&self.buyer_id).into(),
            chunk_ids: Cow::from(&self.chunk_ids),
            delivery_session_id: (&self.delivery_session_id).into(),
            encoding: Some(ENCODING.into()),
            protocol: PROTOCOL.into(),
            purchase_id: (&self.purchase_id).into(),
            request_id: (&self.request_id).into(),
            resume_offsets: Cow::Borrowed(&self.resume_offsets),
            kind: "chunk.request".into(),
        }))
    }

    /// `chunk.manifest`.
    #[must_use]
    pub fn manifest(&self, envelope: &Envelope) -> Vec<u8> {
        framed(&ascii_json::compact(&Manifest {
            chunk_id: &envelope.chunk_id,
            delivery_session_id: &self.delivery_session_id,
            manifest: sorted_envelope(envelope),
            request_id: &self.request_id,
            kind: "chunk.manifest",
        }))
    }

    /// `chunk.data`: the ciphertext from `offset` on.
    #[must_use]
    pub fn data(&self, chunk_id: &str, offset: u64, data: &[u8]) -> Vec<u8> {
        framed(&ascii_json::compact(&Data {
            chunk_id,
            data_base64: &BASE64.encode(data),
            delivery_session_id: &self.delivery_session_id,
            offset,
            request_id: &self.request_id,
            kind: "chunk.data",
        }))
    }

    /// `chunk.end`: the whole length of the ciphertext.
    #[must_use]
    pub fn end(&self, chunk_id: &str, bytes: u64) -> Vec<u8> {
        framed(&ascii_json::compact(&End {
            bytes,
            chunk_id,
            delivery_session_id: &self.delivery_session_id,
            request_id: &self.request_id,
            kind: "chunk.end",
        }))
    }
}

/// `delivery.error`. Nothing comes behind it.
#[must_use]
pub fn error(request_id: &str, code: &str, message: &str) -> Vec<u8> {
    framed(&ascii_json::compact(&Failure { code, message, request_id, kind: "delivery.error" }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a, M> {
    chunk_id: &'a str,
    delivery_session_id: &'a str,
    manifest: M,
    request_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    chunk_id: &'a str,
    data_base64: &'a str,
    delivery_session_id: &'a str,
    offset: u64,
    request_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct End<'a> {
    bytes: u64,
    chunk_id: &'a str,
    delivery_session_id: &'a str,
    request_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> ChunkRequest {
        ChunkRequest {
            request_id: "r".into(),
            purchase_id: "p".into(),
            delivery_session_id: "s".into(),
            buyer_id: "b\u{e9}".into(),
            chunk_ids: vec!["c".into()],
            resume_offsets: [("c".to_owned(), 7)].into(),
        }
    }

    #[test]
    fn frames_have_the_agents_keys_in_its_order() {
        let text = |frame: Vec<u8>| {
            assert_eq!(usize::try_from(u32::from_be_bytes(*frame.first_chunk().unwrap())).unwrap(), frame.len() - 4);
            assert!(super::super::is_agent(frame[0]));
            String::from_utf8(frame[4..].to_vec()).unwrap()
        };
        let request = request();
        assert_eq!(
            text(request.encode()),
            concat!(
                r#"{"buyerId":"b\u00e9","chunkIds":["c"],"deliverySessionId":"s","encoding":"peaqos-json-frame-v1","#,
                r#""protocol":"/peaqos/stream/chunk/1.0.0","purchaseId":"p","requestId":"r","#,
                r#""resumeOffsets":{"c":7},"type":"chunk.request"}"#
            )
        );
        assert_eq!(
            text(request.data("c", 7, b"abc")),
            r#"{"chunkId":"c","dataBase64":"YWJj","deliverySessionId":"s","offset":7,"requestId":"r","type":"chunk.data"}"#
        );
        assert_eq!(
            text(request.end("c", 10)),
            r#"{"bytes":10,"chunkId":"c","deliverySessionId":"s","requestId":"r","type":"chunk.end"}"#
        );
        assert_eq!(
            text(error("", "delivery_failed", "no")),
            r#"{"code":"delivery_failed","message":"no","requestId":"","type":"delivery.error"}"#
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let whole = serde_json::to_value(json(&request())).unwrap();
        let parse = |change: fn(&mut serde_json::Value)| {
            let mut value = whole.clone();
            change(&mut value);
            ChunkRequest::parse(value.to_string().as_bytes())
        };
        assert_eq!(parse(|_| {}), Ok(request()));
        assert_eq!(parse(|v| v["type"] = "chunk.end".into()), Err(RequestError::Shape));
        assert_eq!(parse(|v| v["chunkIds"] = "c".into()), Err(RequestError::Shape));
        assert_eq!(parse(|v| v["chunkIds"] = vec![""].into()), Err(RequestError::Shape));
        assert_eq!(parse(|v| v["chunkIds"] = vec!["c"; MAX_CHUNKS + 1].into()), Err(RequestError::TooMany));
        assert_eq!(parse(|v| v["resumeOffsets"]["c"] = (-1).into()), Err(RequestError::Shape));
        assert_eq!(parse(|v| v["protocol"] = "/x".into()), Err(RequestError::Protocol));
        assert_eq!(parse(|v| v["encoding"] = "x".into()), Err(RequestError::Protocol));
        assert_eq!(ChunkRequest::parse(&vec![b' '; MAX_REQUEST_BYTES + 1]), Err(RequestError::TooLong));
    }

    fn json(request: &ChunkRequest) -> serde_json::Value {
        serde_json::from_slice(&request.encode()[4..]).unwrap()
    }

    proptest! {
        #[test]
        fn requests_read_back(
            names in proptest::collection::vec(any::<String>(), 4..=4),
            chunk_ids in proptest::collection::vec(".{1,8}", 0..5),
            offset: u64,
        ) {
            let [request_id, purchase_id, delivery_session_id, buyer_id] = names.try_into().unwrap();
            let resume_offsets = chunk_ids.iter().map(|id| (id.clone(), offset)).collect();
            let request =
                ChunkRequest { request_id, purchase_id, delivery_session_id, buyer_id, chunk_ids, resume_offsets };
            prop_assert_eq!(ChunkRequest::parse(&request.encode()[4..]), Ok(request));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = ChunkRequest::parse(text.as_bytes());
        }
    }
}
