//! What entries say: the kinds and the layouts of their bodies.
//!
//! Numbers are big endian; `text(n)` is a length (u16) of at most n and that many bytes of UTF-8 without control characters.
//! The version byte of the entry covers the bodies.
//!
//! | kind | log | body |
//! |---|---|---|
//! | 1 binding | machine | a signed binding, see [`crate::binding`] |
//! | 2 epoch | machine | stream (32), epoch (8), started ms (8), owner's X25519 key (32), HPKE enc (32), ciphertext (48) |
//! | 3 stream | machine | stream (32), mode (1), policy (1), chunk target in bytes (4), name text(256), message type text(256), price text(256) |
//! | 4 chunk | stream | a chunk record, see [`crate::record`] |
//! | 5 dataset closed | machine | a dataset entry, see [`crate::dataset`] |
//! | 6 listing | machine | subject tag (1: 1 stream, 2 dataset) and id (32), withdrawn (1), title text(128), description text(4096), price text(256), hash of the terms text (32) |
//! | 7 tombstone | machine | tag 1, count (u16, 1 to 256) and chunk hashes (32 each); or tag 2 and dataset (32); then reason text(256) |
//!
//! The sealed seed of an epoch is HPKE (see [`crate::access`]) with `info` = `tributary/epoch/1` || machine (20) ||
//! incarnation (4) || stream (32) || epoch (8) || started ms (8).

use rand_core::CryptoRng;

use super::{
    Entry, EntryError,
    layout::{LayoutError, Reader, check_text, put_block},
};
use crate::{
    access::sealing::{self, Sealed, SealingError, TAG_LEN},
    binding::SignedBinding,
    dataset::DatasetEntry,
    ids::{DatasetId, Did, Hash, LogId, StreamId},
    keys::{EncryptionKey, EncryptionPublicKey},
    keytree::EpochSeed,
    record::ChunkRecord,
};

/// Longest name, message type, price and reason, in bytes of UTF-8.
pub const MAX_TEXT: usize = 256;
/// Longest title of a listing.
pub const MAX_TITLE: usize = 128;
/// Longest description of a listing.
pub const MAX_DESCRIPTION: usize = 4096;
/// At most this many chunks in one tombstone.
pub const MAX_TOMBSTONE_CHUNKS: usize = 256;
/// Largest chunk target: 1 MiB.
pub const MAX_CHUNK_TARGET: u32 = 1 << 20;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A key binding.
    Binding = 1,
    /// A key epoch began.
    Epoch = 2,
    /// A stream is announced, or announced anew.
    Stream = 3,
    /// A chunk.
    Chunk = 4,
    /// A dataset is complete.
    DatasetClosed = 5,
    /// An offer.
    Listing = 6,
    /// Something is withdrawn.
    Tombstone = 7,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Result<Self, LayoutError> {
        Ok(match byte {
            1 => Self::Binding,
            2 => Self::Epoch,
            3 => Self::Stream,
            4 => Self::Chunk,
            5 => Self::DatasetClosed,
            6 => Self::Listing,
            7 => Self::Tombstone,
            _ => {
                return Err(LayoutError::Value {
                    what: "entry kind",
                    reason: "no such kind; a newer node may know it",
                });
            }
        })
    }

    /// Its name, as people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Epoch => "epoch",
            Self::Stream => "stream",
            Self::Chunk => "chunk",
            Self::DatasetClosed => "dataset closed",
            Self::Listing => "listing",
            Self::Tombstone => "tombstone",
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum EntryBody {
    /// The machine has this key binding.
    Binding(SignedBinding),
    /// A key epoch of a stream began.
    Epoch(EpochInfo),
    /// A stream and how to get at it.
    Stream(StreamInfo),
    /// A chunk of the stream whose log this is.
    Chunk(ChunkRecord),
    /// A dataset is complete.
    DatasetClosed(DatasetEntry),
    /// An offer to buyers.
    Listing(Listing),
    /// Mirrors must no longer serve this.
    Tombstone(Tombstone),
}

/// How messages of a stream become data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Messages are decoded to fields, and rules apply.
    Fields = 0,
    /// Messages stay as they are.
    Raw = 1,
    /// Files.
    File = 2,
}

/// How buyers get access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Policy {
    /// Whoever asks.
    Free = 0,
    /// Buyers on a list.
    Allowlist = 1,
    /// An operator decides.
    Manual = 2,
    /// Whoever has paid.
    Paid = 3,
}

/// A stream as it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its id: always that of the machine and the name.
    pub stream: StreamId,
    /// The topic, or the alias that hides it.
    pub name: String,
    /// The ROS message type, or a media type; may be empty.
    pub message_type: String,
    /// What its data are.
    pub mode: Mode,
    /// How buyers get access.
    pub policy: Policy,
    /// The price, for people; what binds is a quote.
    pub price: String,
    /// Chunks are closed when they reach this many bytes of plaintext; 1 to 1 MiB.
    pub chunk_target: u32,
}

/// An epoch seed that only the owner can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSeed {
    /// The owner's X25519 key it is sealed to.
    pub owner_enc: EncryptionPublicKey,
    /// HPKE encapsulated key.
    pub enc: [u8; 32],
    /// The seed, sealed.
    pub ciphertext: [u8; 32 + TAG_LEN],
}

/// The beginning of a key epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochInfo {
    /// The stream.
    pub stream: StreamId,
    /// Number of the epoch.
    pub epoch: u64,
    /// When slot 0 began, ms since 1970.
    pub started_ms: u64,
    /// Its seed, for the owner.
    pub sealed_seed: SealedSeed,
}

impl EpochInfo {
    /// Seals the seed of an epoch to the owner.
    ///
    /// # Errors
    ///
    /// [`SealingError::Recipient`] when nothing can be sealed to the owner's key.
    pub fn seal(
        at: &EpochName,
        started_ms: u64,
        owner_enc: EncryptionPublicKey,
        seed: &EpochSeed,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealingError> {
        let Sealed { enc, ciphertext } = sealing::seal(&owner_enc, &at.info(started_ms), seed.as_bytes(), rng)?;
        let ciphertext = ciphertext.try_into().expect("a 32 byte seed and its tag are 48 bytes");
        let sealed_seed = SealedSeed { owner_enc, enc, ciphertext };
        Ok(Self { stream: at.stream, epoch: at.epoch, started_ms, sealed_seed })
    }

    /// Opens the seed with the owner's key. `did` and `incarnation` are those of the entry.
    ///
    /// # Errors
    ///
    /// [`SealingError::Open`] when it was sealed to another key, or moved here from another entry.
    pub fn open(&self, did: Did, incarnation: u32, owner: &EncryptionKey) -> Result<EpochSeed, SealingError> {
        let at = EpochName { did, incarnation, stream: self.stream, epoch: self.epoch };
        let SealedSeed { enc, ciphertext, .. } = &self.sealed_seed;
        let seed = sealing::open(owner, &at.info(self.started_ms), enc, ciphertext)?;
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| SealingError::Open)?;
        Ok(EpochSeed::from_bytes(seed))
    }
}

/// Which epoch of which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochName {
    /// The machine.
    pub did: Did,
    /// Its incarnation.
    pub incarnation: u32,
    /// The stream.
    pub stream: StreamId,
    /// Number of the epoch.
    pub epoch: u64,
}

impl EpochName {
    fn info(&self, started_ms: u64) -> Vec<u8> {
        let mut info = b"tributary/epoch/1".to_vec();
        info.extend_from_slice(self.did.as_bytes());
        info.extend_from_slice(&self.incarnation.to_be_bytes());
        info.extend_from_slice(self.stream.as_bytes());
        info.extend_from_slice(&self.epoch.to_be_bytes());
        info.extend_from_slice(&started_ms.to_be_bytes());
        info
    }
}

/// What a listing offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListingSubject {
    /// A stream, past and future.
    Stream(StreamId),
    /// One dataset.
    Dataset(DatasetId),
}

/// An offer. A later listing of the same subject replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What is offered.
    pub subject: ListingSubject,
    /// Whether the offer is taken back.
    pub withdrawn: bool,
    /// One line.
    pub title: String,
    /// A paragraph, without line breaks.
    pub description: String,
    /// The price, for people; what binds is a quote.
    pub price: String,
    /// BLAKE3 of the text of the terms; zeros without one.
    pub terms: Hash,
}

/// What a tombstone withdraws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TombstoneTarget {
    /// Chunks, by the BLAKE3 of their ciphertext; 1 to 256 of them.
    Chunks(Vec<Hash>),
    /// A whole dataset.
    Dataset(DatasetId),
}

/// A withdrawal: mirrors stop serving at once and delete after 7 days; buyers keep what they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// What is withdrawn.
    pub target: TombstoneTarget,
    /// Why, for people.
    pub reason: String,
}

impl EntryBody {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Binding(_) => Kind::Binding,
            Self::Epoch(_) => Kind::Epoch,
            Self::Stream(_) => Kind::Stream,
            Self::Chunk(_) => Kind::Chunk,
            Self::DatasetClosed(_) => Kind::DatasetClosed,
            Self::Listing(_) => Kind::Listing,
            Self::Tombstone(_) => Kind::Tombstone,
        }
    }

    /// Checks that the body belongs in the entry that carries it.
    pub(super) fn check_place(&self, entry: &Entry) -> Result<(), EntryError> {
        let misplaced = |reason| Err(EntryError::Misplaced { kind: self.kind().name(), reason });
        match (self, entry.log.stream()) {
            (Self::Chunk(record), Some(stream)) if record.stream == stream => Ok(()),
            (Self::Chunk(_), Some(_)) => misplaced("the chunk is of another stream"),
            (Self::Chunk(_), None) => misplaced("chunks stand in the log of their stream"),
            (_, Some(_)) => misplaced("only chunks stand in the log of a stream"),
            (Self::Binding(signed), None) if signed.binding().did != entry.did => {
                misplaced("the binding is another machine's")
            }
            (Self::Stream(info), None) if info.stream != StreamId::of(&entry.did, &info.name) => {
                misplaced("the stream id is not that of the machine and the name")
            }
            // Zeros would be the machine log: no stream may have that id.
            (Self::Epoch(info), None) if LogId::from(info.stream) == LogId::MACHINE => {
                misplaced("zeros name no stream")
            }
            (_, None) => Ok(()),
        }
    }

    /// The bytes of the body.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let mut out = Vec::new();
        match self {
            Self::Binding(signed) => return Ok(signed.encode()),
            Self::Chunk(record) => {
                record.check().map_err(|e| EntryError::Record { what: "chunk record", reason: e.to_string() })?;
                return Ok(record.encode());
            }
            Self::DatasetClosed(dataset) => {
                dataset.check().map_err(|e| EntryError::Record { what: "dataset entry", reason: e.to_string() })?;
                return Ok(dataset.encode());
            }
            Self::Epoch(info) => {
                out.extend_from_slice(info.stream.as_bytes());
                out.extend_from_slice(&info.epoch.to_be_bytes());
                out.extend_from_slice(&info.started_ms.to_be_bytes());
                out.extend_from_slice(info.sealed_seed.owner_enc.as_bytes());
                out.extend_from_slice(&info.sealed_seed.enc);
                out.extend_from_slice(&info.sealed_seed.ciphertext);
            }
            Self::Stream(info) => {
                check_target(info.chunk_target)?;
                out.extend_from_slice(info.stream.as_bytes());
                out.extend_from_slice(&[info.mode as u8, info.policy as u8]);
                out.extend_from_slice(&info.chunk_target.to_be_bytes());
                put_text(&mut out, &info.name, MAX_TEXT, "stream name")?;
                put_text(&mut out, &info.message_type, MAX_TEXT, "message type")?;
                put_text(&mut out, &info.price, MAX_TEXT, "price")?;
            }
            Self::Listing(listing) => {
                match &listing.subject {
                    ListingSubject::Stream(id) => {
                        out.push(1);
                        out.extend_from_slice(id.as_bytes());
                    }
                    ListingSubject::Dataset(id) => {
                        out.push(2);
                        out.extend_from_slice(id.as_bytes());
                    }
                }
                out.push(u8::from(listing.withdrawn));
                put_text(&mut out, &listing.title, MAX_TITLE, "title")?;
                put_text(&mut out, &listing.description, MAX_DESCRIPTION, "description")?;
                put_text(&mut out, &listing.price, MAX_TEXT, "price")?;
                out.extend_from_slice(listing.terms.as_bytes());
            }
            Self::Tombstone(tombstone) => {
                match &tombstone.target {
                    TombstoneTarget::Chunks(hashes) => {
                        check_chunk_count(hashes.len())?;
                        out.push(1);
                        let count = u16::try_from(hashes.len()).expect("checked: at most 256");
                        out.extend_from_slice(&count.to_be_bytes());
                        hashes.iter().for_each(|hash| out.extend_from_slice(hash.as_bytes()));
                    }
                    TombstoneTarget::Dataset(id) => {
                        out.push(2);
                        out.extend_from_slice(id.as_bytes());
                    }
                }
                put_text(&mut out, &tombstone.reason, MAX_TEXT, "reason")?;
            }
        }
        Ok(out)
    }

    /// Reads the bytes of a body of this kind.
    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, EntryError> {
        let bad = |what, reason: String| EntryError::Record { what, reason };
        let mut r = Reader::new(bytes);
        let body = match kind {
            Kind::Binding => return Ok(Self::Binding(SignedBinding::decode(bytes)?)),
            Kind::Chunk => {
                return ChunkRecord::decode(bytes).map(Self::Chunk).map_err(|e| bad("chunk record", e.to_string()));
            }
            Kind::DatasetClosed => {
                let dataset = DatasetEntry::decode(bytes).map_err(|e| bad("dataset entry", e.to_string()))?;
                return Ok(Self::DatasetClosed(dataset));
            }
            Kind::Epoch => Self::Epoch(EpochInfo {
                stream: StreamId::from_bytes(r.array("stream")?),
                epoch: r.u64("epoch")?,
                started_ms: r.u64("start")?,
                sealed_seed: SealedSeed {
                    owner_enc: EncryptionPublicKey::from_bytes(r.array("owner's key")?),
                    enc: r.array("sealed seed")?,
                    ciphertext: r.array("sealed seed")?,
                },
            }),
            Kind::Stream => {
                let stream = StreamId::from_bytes(r.array("stream")?);
                let mode = match r.u8("mode")? {
                    0 => Mode::Fields,
                    1 => Mode::Raw,
                    2 => Mode::File,
                    _ => return Err(LayoutError::Value { what: "mode", reason: "no such mode" }.into()),
                };
                let policy = match r.u8("policy")? {
                    0 => Policy::Free,
                    1 => Policy::Allowlist,
                    2 => Policy::Manual,
                    3 => Policy::Paid,
                    _ => return Err(LayoutError::Value { what: "policy", reason: "no such policy" }.into()),
                };
                let chunk_target = r.u32("chunk target")?;
                check_target(chunk_target)?;
                let name = r.text(MAX_TEXT, "stream name")?;
                let message_type = r.text(MAX_TEXT, "message type")?;
                let price = r.text(MAX_TEXT, "price")?;
                Self::Stream(StreamInfo { stream, name, message_type, mode, policy, price, chunk_target })
            }
            Kind::Listing => Self::Listing(Listing {
                subject: match r.u8("subject")? {
                    1 => ListingSubject::Stream(StreamId::from_bytes(r.array("subject")?)),
                    2 => ListingSubject::Dataset(DatasetId::from_bytes(r.array("subject")?)),
                    _ => return Err(LayoutError::Value { what: "subject", reason: "a stream or a dataset" }.into()),
                },
                withdrawn: r.flag("withdrawn")?,
                title: r.text(MAX_TITLE, "title")?,
                description: r.text(MAX_DESCRIPTION, "description")?,
                price: r.text(MAX_TEXT, "price")?,
                terms: r.hash("terms")?,
            }),
            Kind::Tombstone => {
                let target = match r.u8("target")? {
                    1 => {
                        let count = usize::from(r.u16("chunk count")?);
                        check_chunk_count(count)?;
                        let hashes = Reader::new(r.bytes(count * Hash::LEN, "chunk hashes")?);
                        TombstoneTarget::Chunks(read_hashes(hashes, count)?)
                    }
                    2 => TombstoneTarget::Dataset(DatasetId::from_bytes(r.array("dataset")?)),
                    _ => return Err(LayoutError::Value { what: "target", reason: "chunks or a dataset" }.into()),
                };
                Self::Tombstone(Tombstone { target, reason: r.text(MAX_TEXT, "reason")? })
            }
        };
        r.finish("entry body")?;
        Ok(body)
    }
}

fn read_hashes(mut r: Reader<'_>, count: usize) -> Result<Vec<Hash>, LayoutError> {
    (0..count).map(|_| r.hash("chunk hash")).collect()
}

fn put_text(out: &mut Vec<u8>, text: &str, limit: usize, what: &'static str) -> Result<(), LayoutError> {
    check_text(text, limit, what)?;
    put_block(out, text.as_bytes());
    Ok(())
}

fn check_target(bytes: u32) -> Result<(), LayoutError> {
    if (1..=MAX_CHUNK_TARGET).contains(&bytes) {
        return Ok(());
    }
    Err(LayoutError::Value { what: "chunk target", reason: "must be 1 byte to 1 MiB" })
}

fn check_chunk_count(found: usize) -> Result<(), LayoutError> {
    match found {
        0 => Err(LayoutError::Value { what: "tombstone", reason: "names no chunk" }),
        1..=MAX_TOMBSTONE_CHUNKS => Ok(()),
        _ => Err(LayoutError::TooLong { what: "tombstone", found, limit: MAX_TOMBSTONE_CHUNKS }),
    }
}
