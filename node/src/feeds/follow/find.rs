//! Finding a machine from its DID: who answers at an address, and is it one of its nodes? Where none answers, whoever has the
//! machine's feed will do: what is followed is proven from the DID down, whoever sends it.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::Serialize;
use tributary_protocol::{
    binding::{Binding, SignedBinding, chain::MAX_BINDINGS},
    ids::Did,
    keys::{EncryptionPublicKey, FeedPublicKey},
};

use super::{
    super::{Feeds, error::FollowError, feed::chain_of, link::FeedLink},
    ask::ask_bindings,
    reach::node_peers,
};
use crate::net::Offence;

/// What was found at a link.
#[derive(Debug, Clone, Serialize)]
pub struct MachineInfo {
    /// The machine.
    pub did: Did,
    /// The node that answered.
    #[serde(serialize_with = "text")]
    pub peer: PeerId,
    /// Whether it is proven to be one of the machine's own; another holder of its feed, such as a mirror, otherwise.
    pub own: bool,
    /// Where it answered.
    #[serde(serialize_with = "text")]
    pub addr: Multiaddr,
    /// Serial of the newest binding.
    pub binding_serial: u64,
    /// How often the machine was restored.
    pub incarnation: u32,
    /// Its owner.
    pub owner: Did,
    /// Its feed key.
    pub feed_key: FeedPublicKey,
    /// What is sealed to it.
    pub encryption_key: EncryptionPublicKey,
    /// When the binding becomes stale, ms since 1970.
    pub expires_ms: u64,
    /// Whether it is stale already.
    pub stale: bool,
}

fn text<T: ToString, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

impl Feeds {
    /// Dials the addresses of a link one after the other until a node answers that is proven to be the machine's, from the
    /// DID alone. Where there is none, takes another peer that has the machine's bindings: one of the link, one that says it
    /// serves the feed, or one that is connected.
    ///
    /// # Errors
    ///
    /// What happened at the last address.
    pub async fn find(&self, link: &FeedLink) -> Result<MachineInfo, FollowError> {
        Ok(self.look_up(link).await?.0)
    }

    pub(super) async fn look_up(&self, link: &FeedLink) -> Result<(MachineInfo, Vec<SignedBinding>), FollowError> {
        let net = self.net()?;
        let did = link.did;
        if did == self.inner.did {
            return Err(FollowError::Myself(did));
        }
        let mut last = FollowError::NoAddress(did);
        let mut holder = None;
        let mut asked = Vec::new();
        for addr in &link.addrs {
            let peer = match net.dial(addr.clone()).await {
                Ok(peer) => peer,
                Err(source) => {
                    last = FollowError::Dial { did, source: Box::new(source) };
                    continue;
                }
            };
            asked.push(peer);
            match self.prove(peer, did).await {
                Ok(proven) if proven.own => return Ok(self.found(peer, addr.clone(), proven)),
                Ok(proven) => drop(holder.get_or_insert((peer, with_peer(addr, peer), proven))),
                Err(error) => last = error,
            }
        }
        if let Some((peer, addr, proven)) = holder {
            return Ok(self.found(peer, addr, proven));
        }
        for (peer, addr) in self.holders(&did).await?.into_iter().filter(|(peer, _)| !asked.contains(peer)) {
            match self.prove(peer, did).await {
                Ok(proven) => return Ok(self.found(peer, with_peer(&addr, peer), proven)),
                // What happened at the link says more than that a neighbour knows nothing.
                Err(error) => tracing::debug!(%did, %peer, %error, "a peer does not have the feed"),
            }
        }
        Err(last)
    }

    fn found(&self, peer: PeerId, addr: Multiaddr, proven: Proven) -> (MachineInfo, Vec<SignedBinding>) {
        let Proven { binding, bindings, own } = proven;
        let info = MachineInfo {
            did: binding.did,
            peer,
            own,
            addr,
            binding_serial: binding.serial,
            incarnation: binding.incarnation,
            owner: binding.owner_id,
            feed_key: binding.feed_key,
            encryption_key: binding.encryption_key,
            expires_ms: binding.expires_ms,
            stale: binding.is_stale_at(self.now()),
        };
        (info, bindings)
    }

    /// Fetches all bindings from a peer, and looks whether it is one of the nodes the newest one names.
    async fn prove(&self, peer: PeerId, did: Did) -> Result<Proven, FollowError> {
        let net = self.net()?;
        let mut bindings: Vec<SignedBinding> = Vec::new();
        loop {
            let from_serial = bindings.len() as u64;
            let (page, more) = ask_bindings(net, peer, did, from_serial).await?;
            let room = MAX_BINDINGS.saturating_sub(bindings.len());
            bindings.extend(page.into_iter().take(room));
            if !more || bindings.len() >= MAX_BINDINGS {
                break;
            }
        }
        let chain = match chain_of(&did, &bindings) {
            Ok(Some(chain)) => chain,
            Ok(None) => return Err(FollowError::Unknown { peer, did }),
            Err(source) => {
                net.penalize(peer, Offence::BadProof).await?;
                return Err(FollowError::Chain { peer, did, source: Box::new(source) });
            }
        };
        let binding = chain.current().clone();
        let own = node_peers(&binding).contains(&peer);
        Ok(Proven { binding, bindings, own })
    }
}

/// What a peer says of a machine, proven from the DID.
struct Proven {
    binding: Binding,
    bindings: Vec<SignedBinding>,
    own: bool,
}

/// An address that says which peer it leads to: it must not be taken for one of the machine's own nodes.
fn with_peer(addr: &Multiaddr, peer: PeerId) -> Multiaddr {
    match addr.iter().last() {
        Some(Protocol::P2p(_)) => addr.clone(),
        _ => addr.clone().with(Protocol::P2p(peer)),
    }
}
