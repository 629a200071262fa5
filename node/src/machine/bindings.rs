//! The machine's own key bindings: the first one, and the next ones with the owner.
//!
//! Binding 0 is made by the machine alone; every later one is only valid with the owner's signature, so whoever steals a robot
//! cannot rebind it. The signed bindings lie in the store in order of their serial.

use tributary_protocol::{
    binding::{Binding, BindingChain, BindingError, ChainError, LogPosition, MAX_LIFE_MS, SignedBinding},
    entry::SignedEntry,
    ids::{Did, Hash, LogKey},
    keys::EncryptionPublicKey,
};
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::Keys;

/// Why the bindings cannot be read or a new one cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnBindingError {
    /// The store cannot be read or written.
    #[error("the machine's bindings cannot be read or written: {0}")]
    Store(#[from] StoreError),
    /// A stored binding is damaged.
    #[error("a stored binding is damaged: {0}; run `tributary store check`")]
    Damaged(#[from] BindingError),
    /// The stored bindings do not follow each other, or the new one does not follow them.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A log's head is not an entry.
    #[error("the head of log {log:?} is damaged; run `tributary store check`")]
    Head {
        /// The log.
        log: LogKey,
    },
    /// The store has no binding yet.
    #[error("this machine has no binding yet; run `tributary run` once")]
    None,
}

/// What a binding says that the machine's keys do not.
pub(crate) struct Terms {
    pub(crate) owner: Did,
    pub(crate) owner_enc: EncryptionPublicKey,
    pub(crate) node_key: [u8; 32],
}

/// All bindings of `did` that the store holds, in order, and what they say together.
pub(crate) fn load(store: &Store, did: &Did) -> Result<Option<(BindingChain, Vec<SignedBinding>)>, OwnBindingError> {
    let mut chain = None;
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.rows(Table::Binding, did.as_bytes(), after.as_deref(), 64)?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        for (_, bytes) in rows {
            let signed = SignedBinding::decode(&bytes)?;
            BindingChain::extend(&mut chain, &signed)?;
            all.push(signed);
        }
    }
    Ok(chain.map(|chain| (chain, all)))
}

/// The row that a binding is kept in.
pub(crate) fn put(batch: &mut WriteBatch, signed: &SignedBinding) {
    let mut key = signed.binding().did.as_bytes().to_vec();
    key.extend_from_slice(&signed.binding().serial.to_be_bytes());
    batch.put_row(Table::Binding, key, signed.encode());
}

/// Makes binding 0.
pub(crate) fn first(keys: &Keys, terms: &Terms, now_ms: u64) -> Result<SignedBinding, OwnBindingError> {
    let binding = Binding {
        did: keys.did,
        serial: 0,
        prev: Hash::ZERO,
        incarnation: 0,
        owner_id: terms.owner,
        owner_enc: terms.owner_enc,
        feed_key: keys.feed.public(),
        encryption_key: keys.encryption.public(),
        node_keys: vec![terms.node_key],
        issued_ms: now_ms,
        expires_ms: now_ms + MAX_LIFE_MS,
        positions: Vec::new(),
    };
    Ok(SignedBinding::sign(binding, &keys.identity)?)
}

/// Where the logs of an incarnation stand, ascending by log.
pub(crate) fn heads(store: &Store, did: &Did, incarnation: u32) -> Result<Vec<LogPosition>, OwnBindingError> {
    let mut positions = Vec::new();
    for log in store.logs(Some(did))?.into_iter().filter(|log| log.incarnation == incarnation) {
        let Some((seq, bytes)) = store.head(&log)? else { continue };
        let head = SignedEntry::decode(&bytes).map_err(|_| OwnBindingError::Head { log })?;
        positions.push(LogPosition { log: log.log, from_seq: seq + 1, prev_entry_hash: head.hash() });
    }
    positions.sort_by_key(|position| position.log);
    Ok(positions)
}

/// Makes the binding after `chain`, for the keys that the machine has now, with the machine's signature only. It takes every log
/// over where the store stands; `next_incarnation` closes them all there instead.
pub(crate) fn next(
    store: &Store,
    chain: &BindingChain,
    keys: &Keys,
    node_key: [u8; 32],
    next_incarnation: bool,
    now_ms: u64,
) -> Result<SignedBinding, OwnBindingError> {
    let held = chain.current();
    let binding = Binding {
        did: keys.did,
        serial: held.serial + 1,
        prev: chain.current_hash(),
        incarnation: held.incarnation + u32::from(next_incarnation),
        owner_id: held.owner_id,
        owner_enc: held.owner_enc,
        feed_key: keys.feed.public(),
        encryption_key: keys.encryption.public(),
        node_keys: vec![node_key],
        issued_ms: now_ms,
        expires_ms: now_ms + MAX_LIFE_MS,
        positions: heads(store, &keys.did, held.incarnation)?,
    };
    Ok(SignedBinding::sign(binding, &keys.identity)?)
}
