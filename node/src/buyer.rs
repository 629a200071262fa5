//! The buying side: asking for access, pulling what was granted, verifying, and reading what was bought.
//!
//! [`Buyer`] owns the keys that were bought and what is done with them; the feeds themselves are followed by
//! [`Feeds`]. It works without a network too, on what is stored: listings, [`Buyer::verify`] and [`Buyer::export`].

mod error;
mod export;
mod import;
mod listing;
mod plaintext;
mod pull;
mod request;
mod subscription;
mod verify;
mod wallet;

use std::sync::Arc;

use tributary_protocol::{identity::IdentityKey, ids::Did, keys::EncryptionKey};

pub use self::{
    error::{AccessError, ContentError, ExportJobError, VerifyError},
    export::{ExportFormat, ExportReport, ExportedFile},
    listing::ChunkInfo,
    plaintext::DatasetPlaintext,
    pull::PullReport,
    request::{AccessOutcome, OpenRequest},
    subscription::{
        MAX_SUBSCRIPTIONS, SinkTerms, SubscriptionError, SubscriptionState, SubscriptionStatus, SubscriptionTerms,
    },
    verify::{Report, Step, StepState, Verdict},
    wallet::GrantInfo,
};
use self::{subscription::Subscriptions, wallet::Wallet};
use crate::{
    feeds::{Feeds, FeedsError},
    home::MachineKeys,
};

/// The buying side of a node. Clones share it.
#[derive(Clone)]
pub struct Buyer {
    inner: Arc<Inner>,
}

struct Inner {
    did: Did,
    identity: Arc<IdentityKey>,
    encryption: Arc<EncryptionKey>,
    feeds: Feeds,
    wallet: Wallet,
    subscriptions: Subscriptions,
}

impl Buyer {
    /// Opens the buying side of followed feeds: restores the wallet and the subscriptions. `keys` sign requests, and grants are
    /// sealed to them. Reads the store, so call it where blocking is allowed; on a Tokio runtime if the feeds have a network.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn open(keys: &MachineKeys, feeds: Feeds) -> Result<Self, FeedsError> {
        let (identity, encryption) = (Arc::clone(&keys.identity), Arc::clone(&keys.encryption));
        let wallet = Wallet::open(feeds.store())?;
        let inner =
            Inner { did: identity.did(), identity, encryption, feeds, wallet, subscriptions: Subscriptions::default() };
        let buyer = Self { inner: Arc::new(inner) };
        buyer.resume_subscriptions()?;
        Ok(buyer)
    }

    /// Who buys.
    #[must_use]
    pub fn did(&self) -> Did {
        self.inner.did
    }

    /// The feeds that it buys from.
    #[must_use]
    pub fn feeds(&self) -> &Feeds {
        &self.inner.feeds
    }
}
