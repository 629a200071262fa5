//! Who may have a feed's chunks.
//!
//! | who | how it is known |
//! |---|---|
//! | the machine | its newest binding names its nodes |
//! | providers | named: by the configuration, or by provider records of the network, with [`Feeds::add_provider`] |
//! | other followers | they are subscribed to the feed's gossip, or told something about it: passed an entry or a head on |
//!
//! That a peer may have something is a hint: what it sends is checked, and what it does not have is asked elsewhere.

use std::sync::Arc;

use libp2p::PeerId;
use tributary_protocol::{ids::Did, wire::topic_machine};

use super::{
    super::{
        Feeds,
        error::{FeedsError, FollowError},
    },
    handle::{Handle, MAX_PEERS},
};

impl Feeds {
    /// Adds a peer that may have a machine's feed and chunks, such as a mirror, or one that a provider record names. At most 16
    /// are kept per machine.
    ///
    /// # Errors
    ///
    /// [`FeedsError::NotFollowed`].
    pub fn add_provider(&self, did: &Did, peer: PeerId) -> Result<(), FeedsError> {
        let handle = self.handle(did)?;
        handle.remember(peer);
        let mut reach = handle.reach();
        if !reach.providers.contains(&peer) && reach.providers.len() < MAX_PEERS {
            reach.providers.push(peer);
        }
        Ok(())
    }

    /// The peers to pull from, the most likely first. Grows while a pull runs.
    pub(in crate::feeds) async fn sources(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let mut sources = self.machine_peers(handle).await?;
        let beside = self.beside(handle, &sources).await?;
        sources.extend(beside);
        Ok(sources)
    }

    /// The peers beside the machine's `own` nodes that may have its feed, providers first.
    pub(super) async fn beside(&self, handle: &Arc<Handle>, own: &[PeerId]) -> Result<Vec<PeerId>, FollowError> {
        let net = self.net()?;
        let listeners = net.listeners(topic_machine(&handle.did)).await?;
        let reach = handle.reach();
        let mut beside = Vec::new();
        for peer in reach.providers.iter().chain(&listeners).chain(&reach.peers).copied() {
            if peer != net.peer_id() && !own.contains(&peer) && !beside.contains(&peer) {
                beside.push(peer);
            }
        }
        Ok(beside)
    }
}
