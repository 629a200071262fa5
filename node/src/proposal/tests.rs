use tributary_protocol::{
    binding::{LogPosition, MAX_LIFE_MS},
    identity::IdentityKey,
    ids::Hash,
    keys::{EncryptionKey, FeedKey},
};

use super::*;

struct Pair {
    identity: IdentityKey,
    owner: IdentityKey,
    previous: SignedBinding,
}

impl Pair {
    fn new() -> Self {
        let (identity, owner) = (IdentityKey::generate(&mut rand::rng()), IdentityKey::generate(&mut rand::rng()));
        let binding = Binding {
            did: identity.did(),
            serial: 0,
            prev: Hash::ZERO,
            incarnation: 0,
            owner_id: owner.did(),
            owner_enc: EncryptionKey::generate(&mut rand::rng()).public(),
            feed_key: FeedKey::generate(&mut rand::rng()).public(),
            encryption_key: EncryptionKey::generate(&mut rand::rng()).public(),
            node_keys: vec![[7; 32]],
            issued_ms: 1_800_000_000_000,
            expires_ms: 1_800_000_000_000 + MAX_LIFE_MS,
            positions: Vec::new(),
        };
        let previous = SignedBinding::sign(binding, &identity).expect("valid");
        Self { identity, owner, previous }
    }

    fn propose(&self, change: impl FnOnce(&mut Binding)) -> Proposal {
        let mut next = Binding { serial: 1, prev: self.previous.hash(), ..self.previous.binding().clone() };
        change(&mut next);
        let next = SignedBinding::sign(next, &self.identity).expect("valid");
        Proposal::new(self.previous.clone(), next).expect("follows")
    }
}

#[test]
fn a_proposal_comes_back_as_it_was_signed_or_not() {
    let pair = Pair::new();
    let log = LogPosition { log: LogId::MACHINE, from_seq: 4, prev_entry_hash: Hash::of(b"entry") };
    let proposal = pair.propose(|next| next.positions = vec![log]);
    assert_eq!(Proposal::decode(&proposal.encode()).expect("whole"), proposal);
    let signed = proposal.signed_by(&pair.owner);
    let back = Proposal::decode(&signed.encode()).expect("whole");
    assert!(back == signed && back.next().verify(Some(&pair.owner.did())).is_ok());
    assert!(back.words().contains(&format!("from entry 4 of the machine log, behind {}", Hash::of(b"entry"))));
}

#[test]
fn the_words_name_every_key_that_changes() {
    let pair = Pair::new();
    let renewed = pair.propose(|_| {});
    assert_eq!(renewed.change(), Change::Renew);
    assert!(!renewed.words().join("\n").contains("NEW"));
    let key = FeedKey::generate(&mut rand::rng()).public();
    let rotated = pair.propose(|next| next.feed_key = key);
    assert_eq!(rotated.change(), Change::Rotate);
    assert!(rotated.words().iter().any(|line| line.starts_with("feed key: NEW") && line.contains(&key.to_string())));
    let thief = IdentityKey::generate(&mut rand::rng()).did();
    let sold = pair.propose(|next| next.owner_id = thief).words().join("\n");
    assert!(sold.contains("THE MACHINE IS HANDED OVER") && sold.contains(&thief.to_string()), "{sold}");
    let moved = pair.propose(|next| (next.incarnation, next.node_keys) = (1, vec![[8; 32]]));
    assert_eq!(moved.change(), Change::Incarnation);
    assert!(moved.words().iter().any(|line| line.starts_with("node keys: NEW")));
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let pair = Pair::new();
    let proposal = pair.propose(|_| {});
    let text = String::from_utf8(proposal.encode()).expect("text");
    // A word.
    let words = text.replace("feed key: stays", "feed key: keeps");
    assert!(words != text && matches!(Proposal::decode(words.as_bytes()), Err(ProposalError::Changed { .. })));
    // A byte of the binding: its serial, its keys, its signature.
    let bytes = hex::encode(proposal.next().encode());
    let mut refused = 0;
    for at in (2 * 3..bytes.len() - 2).step_by(16) {
        let digit = if &bytes[at..=at] == "0" { "1" } else { "0" };
        let other = format!("{}{digit}{}", &bytes[..at], &bytes[at + 1..]);
        assert!(Proposal::decode(text.replace(&bytes, &other).as_bytes()).is_err(), "digit {at}");
        refused += 1;
    }
    assert!(refused > 20);
    // Another machine's binding in front.
    let other = Pair::new();
    assert!(matches!(Proposal::new(other.previous, proposal.next().clone()), Err(ProposalError::Changed { .. })));
    for junk in [&b""[..], b"{}", b"[]", &vec![b' '; MAX_PROPOSAL_LEN + 1]] {
        assert!(matches!(Proposal::decode(junk), Err(ProposalError::Form { .. })));
    }
}
