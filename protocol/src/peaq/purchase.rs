//! The delivery a buyer is told of (`GET /purchases/:id/delivery`), and whether it can be received.
//!
//! The checks, their order and their reasons are those of peaq's buyer. Nothing here asks the network; `now_ms` is given.

use serde::Deserialize;

use super::{
    ACCESS_SCHEMA, ReadError,
    access::{AccessEntry, MAX_ACCESS_FILE_BYTES},
    envelope::RecipientEntry,
    frame::{ENCODING, PROTOCOL, PublicCode},
};
use crate::package::parse_timestamp;

/// `transportId` of delivery over libp2p.
pub const TRANSPORT_ID: &str = "peaqos-p2p";
/// `connect.type` of it.
pub const CONNECT_TYPE: &str = "peaqos-p2p-url";
/// A handoff must be good for so much longer than now, ms: 30 s to connect and 5 s of margin, as in peaq's SDK.
pub const EXPIRY_GUARD_MS: u64 = 35_000;

const WHAT: &str = "purchase delivery";

/// The answer of the orchestration API. Unknown keys are ignored.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurchaseDelivery {
    /// The purchase.
    pub purchase_id: String,
    /// How it is delivered.
    pub delivery: DeliveryTerms,
    /// The chunk keys, sealed for the buyer.
    #[serde(default)]
    access: Vec<RawAccess>,
}

/// How a purchase is delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryTerms {
    /// `p2p`.
    pub mode: String,
    /// [`TRANSPORT_ID`].
    #[serde(default)]
    pub transport_id: String,
    /// The delivery session; the handshake names it.
    #[serde(default)]
    pub session_id: String,
    /// libp2p protocols the seller speaks.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// [`ENCODING`].
    #[serde(default)]
    pub encoding: String,
    /// Where the seller is, once it has said so.
    #[serde(default)]
    pub connect: Option<Connect>,
}

/// Where the seller is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    /// [`CONNECT_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// See [`super::connect_url`].
    #[serde(default)]
    pub url: String,
    /// Until when, RFC 3339.
    #[serde(default)]
    pub expires_at: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAccess {
    schema_version: Option<String>,
    chunk_id: String,
    buyer: RecipientEntry,
}

/// Why a delivery cannot be received; the texts are peaq's reasons. All are of [`PublicCode::Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// Not peer to peer.
    #[error("mode mismatch")]
    Mode,
    /// Another transport.
    #[error("transport_id mismatch")]
    Transport,
    /// Other frames.
    #[error("encoding mismatch")]
    Encoding,
    /// No protocol in common.
    #[error("protocol mismatch")]
    Protocol,
    /// The seller has not said where it is.
    #[error("missing connect")]
    NoConnect,
    /// Another kind of address.
    #[error("connect type mismatch")]
    ConnectType,
    /// No address.
    #[error("empty connect URL")]
    EmptyUrl,
    /// Over, or nearly.
    #[error("connect expired")]
    Expired,
    /// No point in time.
    #[error("invalid expires_at")]
    BadExpiry,
}

impl TermsError {
    /// peaq's coarse code.
    #[must_use]
    pub const fn code(self) -> PublicCode {
        PublicCode::Config
    }
}

impl PurchaseDelivery {
    /// Reads the answer.
    ///
    /// # Errors
    /// Longer than [`MAX_ACCESS_FILE_BYTES`], a key missing or of another type, access of another schema.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        ReadError::check_length(WHAT, text, MAX_ACCESS_FILE_BYTES)?;
        let answer: Self = serde_json::from_slice(text).map_err(|source| ReadError::Json { what: WHAT, source })?;
        for entry in &answer.access {
            if let Some(found) = &entry.schema_version {
                ReadError::check_schema(WHAT, found, ACCESS_SCHEMA)?;
            }
        }
        Ok(answer)
    }

    /// Whether it can be received at `now_ms` (ms since 1970), and where.
    ///
    /// # Errors
    /// The first check that fails, in peaq's order.
    pub fn check(&self, now_ms: u64) -> Result<&Connect, TermsError> {
        let terms = &self.delivery;
        if terms.mode != "p2p" {
            return Err(TermsError::Mode);
        }
        if terms.transport_id != TRANSPORT_ID {
            return Err(TermsError::Transport);
        }
        if terms.encoding != ENCODING {
            return Err(TermsError::Encoding);
        }
        if !terms.protocols.iter().any(|protocol| protocol == PROTOCOL) {
            return Err(TermsError::Protocol);
        }
        let connect = terms.connect.as_ref().ok_or(TermsError::NoConnect)?;
        if connect.kind != CONNECT_TYPE {
            return Err(TermsError::ConnectType);
        }
        if connect.url.is_empty() {
            return Err(TermsError::EmptyUrl);
        }
        let expires_ms = parse_time(&connect.expires_at).ok_or(TermsError::BadExpiry)?;
        if expires_ms <= now_ms.saturating_add(EXPIRY_GUARD_MS) {
            return Err(TermsError::Expired);
        }
        Ok(connect)
    }

    /// The chunk keys.
    #[must_use]
    pub fn into_access(self) -> Vec<AccessEntry> {
        self.access.into_iter().map(|entry| AccessEntry { chunk_id: entry.chunk_id, buyer: entry.buyer }).collect()
    }
}

/// Ms since 1970 of an RFC 3339 time: seconds with up to nine decimals, and `Z` or an offset.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    const SECONDS: usize = "YYYY-MM-DDTHH:MM:SS".len();
    let (time, zone) = match text.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => {
            let at = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at))?;
            let (time, zone) = text.split_at(at);
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let number = |text: &str, below: i64| {
                let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse::<i64>().ok()).flatten().filter(|n| *n < below)
            };
            let offset = (number(hours, 24)? * 60 + number(minutes, 60)?) * 60_000;
            match zone.as_bytes().first()? {
                b'+' => (time, offset),
                b'-' => (time, -offset),
                _ => return None,
            }
        }
    };
    let (seconds, fraction) = time.split_at_checked(SECONDS)?;
    let fraction = match fraction.strip_prefix('.') {
        Some(digits) if (1..=9).contains(&digits.len()) => digits,
        None if fraction.is_empty() => "",
        _ => return None,
    };
    let unix_ns = parse_timestamp(&format!("{seconds}.{fraction:0<9}Z"))?;
    (unix_ns / 1_000_000).checked_add_signed(-zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions_and_offsets_are_points_in_time() {
        for text in ["1970-01-02T00:00:01Z", "1970-01-02T00:00:01.000000Z", "1970-01-02T02:30:01+02:30"] {
            assert_eq!(parse_time(text), Some(86_401_000), "{text}");
        }
        assert_eq!(parse_time("1970-01-01T23:00:01.5-01:00"), Some(86_401_500));
        let bad =
            ["", "soon", "1970-01-02", "1970-01-02T00:00:01", "1970-01-02T00:00:01.Z", "1970-01-02T00:00:01+0100"];
        for text in
            bad.into_iter().chain(["1970-13-02T00:00:01Z", "é70-01-02T00:00:01+ab:cd", "1970-01-01T00:00:00+01:00"])
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
