//! What travels: requests and answers in the spelling of peaq's SDK.
//!
//! Keys that are not known are passed over, because the API of the SDK grows. Every text and list has a bound ([`Bounded`]).

mod answers;
mod requests;

use super::{answer::ApiError, purchase::Capability};

pub(super) use self::{
    answers::{
        AmountText, CapabilityShown, ListingText, PurchaseText, Seller, TransportText, payment_status, transport,
    },
    requests::{
        AccessText, Connect, CreatePurchase, Destination, EventText, ListingResource, PatchListing, PaymentIntent,
        PaymentProof, PrepareAccess, PutCapabilities, destination, fits,
    },
};

/// The transport, as the SDK looks for it.
pub(super) const TRANSPORT: &str = "peaqos-p2p";
/// Its version.
pub(super) const VERSION: &str = "v1";
/// Its libp2p protocol.
pub(super) const PROTOCOL: &str = "/peaqos/stream/chunk/1.0.0";
/// Its encoding.
pub(super) const ENCODING: &str = "peaqos-json-frame-v1";
/// `connect.type`.
pub(super) const CONNECT: &str = "peaqos-p2p-url";
/// `signaling`.
pub(super) const SIGNALING: &str = "peaqos-socket";

/// The longest text of any kind, bytes.
const MAX_TEXT: usize = 256;
/// The longest URL, bytes.
const MAX_URL: usize = 4_096;
/// Entries of any short list.
const MAX_LIST: usize = 32;

/// Whether a text may stand where a name is expected.
pub(super) fn name(text: &str, field: &'static str) -> Result<(), ApiError> {
    if text.trim().is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!("{field} has to be 1 to {MAX_TEXT} printable characters")));
    }
    Ok(())
}

fn optional(text: Option<&String>, field: &'static str) -> Result<(), ApiError> {
    text.map_or(Ok(()), |text| name(text, field))
}

fn short<T>(list: &[T], field: &'static str) -> Result<(), ApiError> {
    if list.len() <= MAX_LIST {
        Ok(())
    } else {
        Err(ApiError::invalid(format!("{field} has more than {MAX_LIST} values")))
    }
}

/// A request whose texts and lists were not looked at yet.
pub(super) trait Bounded {
    /// Refuses what is too long or empty.
    fn check(&self) -> Result<(), ApiError>;
}

impl Bounded for Capability {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.transport_id, "transportId")?;
        name(&self.version, "version")?;
        short(&self.features, "features")?;
        short(&self.protocols, "protocols")?;
        self.features.iter().try_for_each(|text| name(text, "features"))?;
        self.protocols.iter().try_for_each(|text| name(text, "protocols"))?;
        if self.encoding.is_empty() { Ok(()) } else { name(&self.encoding, "encoding") }
    }
}

#[cfg(test)]
mod tests;
