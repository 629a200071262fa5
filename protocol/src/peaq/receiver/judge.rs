//! What can be said of a frame only by whoever knows those before it.

use std::collections::HashSet;

use super::{
    ReceiveError,
    examine::{Chunk, Content, Examined},
};
use crate::{
    keys::FeedPublicKey,
    peaq::{
        chain::chunk_id,
        frame::FrameCode,
        verify::{ChainReport, is_named},
    },
};

/// What to do after a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The plaintext of this chunk may be handed out.
    Chunk {
        /// Its index; they come as 0, 1, 2 and so on.
        index: u64,
    },
    /// The chunk is good, but one before it has broken the chain: nothing more is handed out.
    Withheld,
    /// Everything came and the chain is consistent. Whatever follows is ignored.
    Complete(ChainReport),
}

/// What is known of the frames so far. After an error it is of no further use.
pub struct Judge {
    /// By place among the chunks that were bought.
    used: Vec<bool>,
    received: u64,
    /// At most as many as were bought.
    indices: HashSet<u64>,
    previous: Option<String>,
    /// The first chunk that the last check of the chain would refuse.
    broken: Option<u64>,
    signer: Option<FeedPublicKey>,
    machine_did: Option<String>,
    complete: bool,
}

impl Judge {
    pub(super) fn new(bought: usize) -> Self {
        Self {
            used: vec![false; bought],
            received: 0,
            indices: HashSet::new(),
            previous: None,
            broken: None,
            signer: None,
            machine_did: None,
            complete: false,
        }
    }

    /// Chunks there are keys for.
    #[must_use]
    pub fn bought(&self) -> u64 {
        self.used.len() as u64
    }

    /// Chunks that have come.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether [`Verdict::Complete`] was given.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// What to do with a frame. They come in the order of the seller.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn judge(&mut self, frame: Examined) -> Result<Verdict, ReceiveError> {
        match frame.0 {
            Content::Chunk(chunk) => self.chunk(*chunk),
            Content::Complete { total_chunks } => self.end(&total_chunks).map(Verdict::Complete),
            Content::Error(error) => Err(ReceiveError::Aborted(FrameCode::from_text(&error.code))),
            Content::Handshake => Err(ReceiveError::Unexpected),
            Content::None(error) => Err(error.into()),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<Verdict, ReceiveError> {
        let Chunk { envelope, bought } = chunk;
        let index = envelope.index;
        let (place, signed) = bought?;
        let used = self.used.get_mut(place).ok_or(ReceiveError::Unauthorized { index })?;
        if *used || self.indices.contains(&index) {
            return Err(ReceiveError::Duplicate { index });
        }
        let signed = signed?;
        if envelope.previous_chunk_id != self.previous {
            return Err(ReceiveError::Linking { index });
        }
        signed.opened.map_err(|source| ReceiveError::Decryption { index, source })?;

        *used = true;
        self.indices.insert(index);
        let linked = index == self.received
            && is_named(&envelope.signature)
            && chunk_id(self.previous.as_deref(), &envelope.encrypted_data_hash, index) == envelope.chunk_id;
        if !linked {
            self.broken.get_or_insert(index);
        }
        let (signer, machine_did) = (signed.signer, envelope.signature.machine_did);
        if self.received == 0 {
            self.signer = Some(signer);
            self.machine_did = Some(machine_did);
        } else {
            self.signer = self.signer.filter(|known| *known == signer);
            self.machine_did = self.machine_did.take().filter(|known| *known == machine_did);
        }
        self.previous = Some(envelope.chunk_id);
        self.received += 1;
        Ok(if self.broken.is_none() { Verdict::Chunk { index } } else { Verdict::Withheld })
    }

    fn end(&mut self, total: &serde_json::Value) -> Result<ChainReport, ReceiveError> {
        let received = self.received;
        let bought = self.bought();
        // Python compares numbers by value, so 3.0 is 3.
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let is_total = |count: u64| total.as_u64() == Some(count) || total.as_f64() == Some(count as f64);
        if !is_total(received) || received != bought {
            let announced = total.to_string().chars().take(40).collect();
            return Err(ReceiveError::Count { announced, received, bought });
        }
        if (0..received).any(|index| !self.indices.contains(&index)) {
            return Err(ReceiveError::Missing);
        }
        if let Some(index) = self.broken {
            return Err(ReceiveError::Chain { index });
        }
        if received == 0 {
            // Nothing was bought and nothing came: a chain of no chunks is none.
            return Err(ReceiveError::Chain { index: 0 });
        }
        self.complete = true;
        Ok(ChainReport { total_chunks: received, signer: self.signer, machine_did: self.machine_did.take() })
    }
}
