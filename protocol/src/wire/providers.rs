//! Provider records: under which key a node says in Kademlia that it serves a machine's feed.
//!
//! A record is a hint whom to ask and nothing more: whoever answers is checked like everybody else.

use std::time::Duration;

use crate::ids::{Did, Hash};

/// How long a provider record is kept by the peers that got it. A provider announces itself again when half of it is over.
pub const PROVIDER_EXPIRY: Duration = Duration::from_secs(2 * 3600);

/// The key of the provider records of a machine's feed. It is a hash, so that keys are spread evenly and of one length.
#[must_use]
pub fn provider_key(machine: &Did) -> Hash {
    Hash::derive("tributary 2026 feed providers", machine.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_frozen() {
        let machine = Did::from_bytes([0xaa; 20]);
        // Python's blake3: blake3(bytes([0xaa] * 20), derive_key_context="tributary 2026 feed providers").
        assert_eq!(
            provider_key(&machine).to_string(),
            "97bd1e7319fa0bc31fce02337af411c03f9f8a723d34edb6c1401bb161142e45"
        );
    }
}
