//! Finding a machine from its DID: who answers at an address, and is it one of its nodes?

use libp2p::{Multiaddr, PeerId};
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
    /// The node that answered, proven to be one of the machine's.
    #[serde(serialize_with = "text")]
    pub peer: PeerId,
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
    /// DID alone.
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
        for addr in &link.addrs {
            let peer = match net.dial(addr.clone()).await {
                Ok(peer) => peer,
                Err(source) => {
                    last = FollowError::Dial { did, source: Box::new(source) };
                    continue;
                }
            };
            match self.prove(peer, did).await {
                Ok((binding, bindings)) => {
                    let info = MachineInfo {
                        did,
                        peer,
                        addr: addr.clone(),
                        binding_serial: binding.serial,
                        incarnation: binding.incarnation,
                        owner: binding.owner_id,
                        feed_key: binding.feed_key,
                        encryption_key: binding.encryption_key,
                        expires_ms: binding.expires_ms,
                        stale: binding.is_stale_at(self.now()),
                    };
                    return Ok((info, bindings));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Fetches all bindings from a peer and checks that it is one of the nodes the newest one names.
    async fn prove(&self, peer: PeerId, did: Did) -> Result<(Binding, Vec<SignedBinding>), FollowError> {
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
        if !node_peers(&binding).contains(&peer) {
            return Err(FollowError::NotTheMachine { peer, did });
        }
        Ok((binding, bindings))
    }
}
