//! Access: what a buyer asks for, what it costs, and how chunk keys reach exactly that buyer.
//!
//! Owns the signed objects of the trade: [`Selection`], [`Quote`], [`AccessRequest`], [`Grant`], and their checks. It never
//! decides whether somebody gets access, never talks to a chain, and never keeps anything: that is the node's.
//!
//! ```text
//! buyer                                   machine (or its owner)
//!   selection           ->
//!                       <-                quote, signed by the feed key: price, expiry, for this buyer only
//!   request, signed by the buyer's
//!   identity key: names the quote,
//!   the X25519 key, the payment ->
//!                       <-                grants, one per stream and epoch: a cover of chunk keys, sealed to that X25519 key
//! ```
//!
//! Each object names the machine and the buyer, and the hash of the object before it, so none can be replayed for another
//! buyer, another machine, another price or another range. All layouts are big endian, with a version in front, and stand in
//! the module of each object.

pub mod deposit;
pub mod grant;
pub mod quote;
pub mod request;
pub mod sealing;
pub mod selection;

pub use deposit::{Deposit, DepositError, DepositState, SignedDeposit};
pub use grant::{Grant, GrantError, GrantExpectation, GrantHeader, GrantRange, Issuer};
pub use quote::{Price, Quote, QuoteError, SignedQuote};
pub use request::{AccessRequest, Payment, RequestError, SignedRequest};
pub use sealing::{Sealed, SealingError};
pub use selection::{MAX_RANGES, Range, Selection};

#[cfg(test)]
mod tests;
