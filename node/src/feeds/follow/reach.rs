//! Which peers have a machine's feed and chunks, and connections to them.

use std::sync::Arc;

use libp2p::{Multiaddr, PeerId, identity, multiaddr::Protocol};
use tributary_protocol::{binding::Binding, ids::Did};

use super::{
    super::{
        Feeds, blocking,
        error::{FeedsError, FollowError},
    },
    handle::{Handle, MAX_PEERS},
};

/// The peers that a binding names.
pub(super) fn node_peers(binding: &Binding) -> Vec<PeerId> {
    let peer = |key: &[u8; 32]| {
        let key = identity::ed25519::PublicKey::try_from_bytes(key).ok()?;
        Some(identity::PublicKey::from(key).to_peer_id())
    };
    binding.node_keys.iter().filter_map(peer).collect()
}

impl Feeds {
    /// The peers to ask about a feed: the machine's own nodes first.
    pub(in crate::feeds) async fn peers_of(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let mut peers = self.machine_peers(handle).await?;
        let others: Vec<PeerId> = handle.reach().peers.clone();
        peers.extend(others.into_iter().filter(|peer| !peers.contains(peer)).collect::<Vec<_>>());
        Ok(peers)
    }

    /// The nodes that the machine's newest binding names.
    pub(crate) async fn machine_peers(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let handle = Arc::clone(handle);
        Ok(blocking(move || handle.feed().follower().chain().map(|chain| node_peers(chain.current())))
            .await?
            .unwrap_or_default())
    }

    /// Makes sure that there is a connection to a peer.
    pub(crate) async fn reach(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<(), FollowError> {
        let net = self.net()?;
        let known = Arc::clone(handle);
        let addrs = blocking(move || known.feed().row.addrs.clone()).await?;
        let fits = |addr: &Multiaddr| match addr.iter().last() {
            Some(Protocol::P2p(named)) => named == peer,
            _ => true,
        };
        let addrs = addrs.iter().filter_map(|addr| addr.parse().ok()).filter(fits).collect();
        net.connect(peer, addrs).await.map_err(|source| FollowError::Dial { did: handle.did, source: Box::new(source) })
    }

    /// Adds a peer that may have a machine's feed and chunks, such as a mirror. At most 16 are kept per machine.
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

    /// The peers to pull from: the machine's own nodes, then those named as providers. Where none of the machine's can be reached,
    /// others are looked for.
    pub(in crate::feeds) async fn providers_of(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let own = self.machine_peers(handle).await?;
        let named = || -> Vec<PeerId> {
            let reach = handle.reach();
            reach.providers.iter().copied().filter(|peer| !own.contains(peer)).collect()
        };
        let connected = self.connected().await?;
        let (mut peers, mut others) = (own.clone(), named());
        if !own.iter().any(|peer| connected.contains(peer)) {
            if others.iter().any(|peer| connected.contains(peer)) {
                // A machine that is gone keeps nobody waiting who has others to ask: it is dialled meanwhile.
                peers.clear();
                others.sort_by_key(|peer| !connected.contains(peer));
                for peer in own {
                    let (feeds, handle) = (self.clone(), Arc::clone(handle));
                    tokio::spawn(async move { feeds.reach(&handle, peer).await });
                }
            } else if !self.reach_any(handle, &own).await {
                others = self.others(handle).await?;
            }
        }
        peers.extend(others);
        Ok(peers)
    }

    async fn reach_any(&self, handle: &Arc<Handle>, peers: &[PeerId]) -> bool {
        for peer in peers {
            if self.reach(handle, *peer).await.is_ok() {
                return true;
            }
        }
        false
    }
}
