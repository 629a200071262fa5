//! Who else has a machine's feed: mirrors and others that say so in provider records, and peers that are connected anyway.
//!
//! What is found is whom to ask, and nothing more. Lookups are shared and limited by the network; here is only how many of those
//! who are found are connected to.

use std::{collections::HashSet, sync::Arc};

use libp2p::{Multiaddr, PeerId};
use tributary_protocol::ids::Did;

use super::{
    super::{Feeds, error::FollowError},
    handle::Handle,
};
use crate::net::{Provider, SYNC_PROTOCOL};

/// Peers found by provider records that are connected to.
const MAX_FOUND: usize = 8;
/// Connected peers that are asked whether they know a machine that was found nowhere else.
const MAX_NEIGHBOURS: usize = 16;

impl Feeds {
    /// Peers that say they serve a feed and that there is a connection to now.
    async fn connected_providers(&self, did: &Did) -> Result<Vec<(PeerId, Vec<Multiaddr>)>, FollowError> {
        let net = self.net()?;
        let found = match net.providers(did).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%did, %error, "nobody can be asked who serves a feed");
                return Ok(Vec::new());
            }
        };
        let mut connected = Vec::new();
        for Provider { peer, addresses } in found.into_iter().take(MAX_FOUND) {
            match net.connect(peer, addresses.clone()).await {
                Ok(()) => connected.push((peer, addresses)),
                Err(error) => tracing::debug!(%did, %peer, %error, "a provider is not reached"),
            }
        }
        Ok(connected)
    }

    /// Looks for further peers that have a followed feed, and connects to them. Returns how many there are.
    pub(in crate::feeds) async fn discover(&self, handle: &Arc<Handle>) -> Result<usize, FollowError> {
        let found = self.connected_providers(&handle.did).await?;
        for (peer, _) in &found {
            self.add_provider(&handle.did, *peer)?;
        }
        Ok(found.len())
    }

    /// Before a pull: looks for further peers where none of the machine's own nodes is connected. Waits for it only where nobody else
    /// is known either.
    pub(in crate::feeds) async fn seek(&self, handle: &Arc<Handle>) -> Result<(), FollowError> {
        let (own, connected) = (self.machine_peers(handle).await?, self.connected().await?);
        if own.iter().any(|peer| connected.contains(peer)) {
            return Ok(());
        }
        if handle.reach().providers.iter().any(|peer| connected.contains(peer)) {
            let (feeds, handle) = (self.clone(), Arc::clone(handle));
            tokio::spawn(async move { feeds.discover(&handle).await });
            return Ok(());
        }
        self.discover(handle).await.map(drop)
    }

    /// Peers that may know a machine of which only the DID is known, with an address of each.
    pub(super) async fn holders(&self, did: &Did) -> Result<Vec<(PeerId, Multiaddr)>, FollowError> {
        let mut holders: Vec<(PeerId, Multiaddr)> = Vec::new();
        let providers = self.connected_providers(did).await?;
        let all = self.net()?.peers().await?;
        for (peer, addresses) in providers {
            let known = all.iter().find(|info| info.peer == peer).map(|info| info.addr.clone());
            holders.extend(addresses.into_iter().next().or(known).map(|address| (peer, address)));
        }
        let speaks = |protocols: &[String]| protocols.iter().any(|known| known == SYNC_PROTOCOL);
        let neighbours = all.into_iter().filter(|info| speaks(&info.protocols)).take(MAX_NEIGHBOURS);
        for info in neighbours {
            if !holders.iter().any(|(peer, _)| *peer == info.peer) {
                holders.push((info.peer, info.addr));
            }
        }
        Ok(holders)
    }

    /// The peers that there is a connection to.
    pub(in crate::feeds) async fn connected(&self) -> Result<HashSet<PeerId>, FollowError> {
        Ok(self.net()?.peers().await?.into_iter().map(|info| info.peer).collect())
    }

    /// Peers beside the machine's own nodes that have said something about a feed, or that they serve it; those that there is a
    /// connection to come first. Where nobody is known, others are asked.
    ///
    /// # Errors
    ///
    /// Without a network.
    pub(crate) async fn others(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let own = self.machine_peers(handle).await?;
        let knows_somebody = {
            let reach = handle.reach();
            reach.providers.iter().chain(&reach.peers).any(|peer| !own.contains(peer))
        };
        if !knows_somebody {
            self.discover(handle).await?;
        }
        // Those who follow it, too: one that keeps it has perhaps not told anything of it since this node started.
        let mut peers = self.beside(handle, &own).await?;
        let connected = self.connected().await?;
        peers.sort_by_key(|peer| !connected.contains(peer));
        Ok(peers)
    }
}
