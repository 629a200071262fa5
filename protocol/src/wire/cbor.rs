//! CBOR with a limit on everything.

use minicbor::{Decoder, Encoder};

use super::WireError;
use crate::ids::{DatasetId, Did, Hash, LogId, LogKey};

/// Refuses input or output that is too large.
pub(super) fn check_len(what: &'static str, found: usize, limit: usize) -> Result<(), WireError> {
    if found > limit { Err(WireError::TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Writes one message into memory.
pub(super) struct Writer(Encoder<Vec<u8>>);

/// Writing into a `Vec` has no way to fail; the encoder's error type only says so since `Infallible` is in it.
const VEC: &str = "writing to memory does not fail";

impl Writer {
    /// Begins message `number` with `fields` fields.
    pub(super) fn message(number: u8, fields: u8) -> Self {
        let mut writer = Self(Encoder::new(Vec::new()));
        writer.list(usize::from(fields) + 1).uint(u64::from(number));
        writer
    }

    pub(super) fn list(&mut self, len: usize) -> &mut Self {
        self.0.array(u64::try_from(len).unwrap_or(u64::MAX)).expect(VEC);
        self
    }

    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        self.0.u64(value).expect(VEC);
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.bool(value).expect(VEC);
        self
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.0.str(value).expect(VEC);
        self
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.bytes(value).expect(VEC);
        self
    }

    pub(super) fn blobs<T: AsRef<[u8]>>(&mut self, values: &[T]) -> &mut Self {
        self.list(values.len());
        for value in values {
            self.bytes(value.as_ref());
        }
        self
    }

    pub(super) fn finish(self, what: &'static str, limit: usize) -> Result<Vec<u8>, WireError> {
        let bytes = self.0.into_writer();
        check_len(what, bytes.len(), limit)?;
        Ok(bytes)
    }
}

/// Reads one message.
pub(super) struct Reader<'b> {
    decoder: Decoder<'b>,
    fields: u64,
}

impl<'b> Reader<'b> {
    /// Opens a message of at most `limit` bytes; returns its number.
    pub(super) fn message(what: &'static str, bytes: &'b [u8], limit: usize) -> Result<(Self, u8), WireError> {
        check_len(what, bytes.len(), limit)?;
        let mut reader = Self { decoder: Decoder::new(bytes), fields: 0 };
        let len = reader.list(what, 16)?;
        let number = reader.decoder.u8()?;
        reader.fields =
            u64::try_from(len).unwrap_or(u64::MAX).checked_sub(1).ok_or(WireError::Value { what, reason: "empty" })?;
        Ok((reader, number))
    }

    /// Says how many fields the message has.
    pub(super) fn expect(&self, what: &'static str, fields: u64) -> Result<(), WireError> {
        if self.fields == fields {
            return Ok(());
        }
        Err(WireError::Value { what, reason: "another number of fields than this message has" })
    }

    /// Opens a list of definite length. Each element takes at least a byte, so its length is also bounded by the input.
    pub(super) fn list(&mut self, what: &'static str, limit: usize) -> Result<usize, WireError> {
        let found = self.decoder.array()?.ok_or(WireError::Value { what, reason: "indefinite length" })?;
        let left = self.decoder.input().len().saturating_sub(self.decoder.position());
        let limit = limit.min(left);
        match usize::try_from(found) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(WireError::TooMany { what, found, limit }),
        }
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(self.decoder.u64()?)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(self.decoder.u32()?)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(self.decoder.u16()?)
    }

    pub(super) fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.decoder.bool()?)
    }

    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, WireError> {
        let text = self.decoder.str()?;
        crate::entry::layout::check_text(text, limit, what)?;
        Ok(text.to_owned())
    }

    pub(super) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'b [u8], WireError> {
        let bytes = self.decoder.bytes()?;
        if bytes.len() > limit {
            let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Err(WireError::TooMany { what, found, limit });
        }
        Ok(bytes)
    }

    /// A list of at most `count` byte strings of at most `limit` bytes.
    pub(super) fn blobs(&mut self, what: &'static str, count: usize, limit: usize) -> Result<Vec<Vec<u8>>, WireError> {
        let len = self.list(what, count)?;
        (0..len).map(|_| Ok(self.bytes(what, limit)?.to_vec())).collect()
    }

    pub(super) fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        self.decoder.bytes()?.try_into().map_err(|_| WireError::Value { what, reason: "not of the right length" })
    }

    pub(super) fn did(&mut self) -> Result<Did, WireError> {
        self.fixed("DID").map(Did::from_bytes)
    }

    pub(super) fn hash(&mut self) -> Result<Hash, WireError> {
        self.fixed("hash").map(Hash::from_bytes)
    }

    pub(super) fn dataset(&mut self) -> Result<DatasetId, WireError> {
        self.fixed("dataset").map(DatasetId::from_bytes)
    }

    pub(super) fn log_id(&mut self) -> Result<LogId, WireError> {
        self.fixed("log").map(LogId::from_bytes)
    }

    pub(super) fn log_key(&mut self) -> Result<LogKey, WireError> {
        self.fixed("log").map(|bytes| LogKey::from_bytes(&bytes))
    }

    pub(super) fn finish(self) -> Result<(), WireError> {
        match self.decoder.input().len().saturating_sub(self.decoder.position()) {
            0 => Ok(()),
            count => Err(WireError::Trailing { count }),
        }
    }
}
