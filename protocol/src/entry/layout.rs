//! Reading and writing of the fixed byte layouts that are signed or hashed.
//!
//! Owns nothing but the cursor. Everything is big endian; variable parts carry their length in front; a decoder must come out
//! exactly at the end. Nothing is allocated before the bytes that fill it are known to be there.

use crate::ids::Hash;

/// Bytes that are not the object they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The bytes end inside a field.
    #[error("the bytes end inside {what}; get the object again from another peer")]
    Truncated {
        /// The field that is cut.
        what: &'static str,
    },
    /// Bytes are left behind the last field.
    #[error("{count} bytes are left behind the end of the {what}")]
    Trailing {
        /// The object.
        what: &'static str,
        /// How many bytes are too many.
        count: usize,
    },
    /// The object is of a version this node does not know.
    #[error("{what} of version {found}, this node knows version {known}; a newer node may read it")]
    Version {
        /// The object.
        what: &'static str,
        /// The version that was found.
        found: u8,
        /// The version that is known.
        known: u8,
    },
    /// A length or count above its limit.
    #[error("{what} has {found}, at most {limit} are allowed")]
    TooLong {
        /// The field or object.
        what: &'static str,
        /// What was found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A value outside of what the field may hold.
    #[error("{what}: {reason}")]
    Value {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads a layout from front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], LayoutError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(LayoutError::Truncated { what })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], LayoutError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(LayoutError::Truncated { what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn hash(&mut self, what: &'static str) -> Result<Hash, LayoutError> {
        self.array(what).map(Hash::from_bytes)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, LayoutError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, LayoutError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, LayoutError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, LayoutError> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self, what: &'static str) -> Result<u128, LayoutError> {
        self.array(what).map(u128::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, LayoutError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(LayoutError::Value { what, reason: "a flag is 0 or 1" }),
        }
    }

    /// A version byte that must be `known`.
    pub(crate) fn version(&mut self, known: u8, what: &'static str) -> Result<(), LayoutError> {
        match self.u8(what)? {
            found if found == known => Ok(()),
            found => Err(LayoutError::Version { what, found, known }),
        }
    }

    /// A length (u16) of at most `limit`, and that many bytes.
    pub(crate) fn block(&mut self, limit: usize, what: &'static str) -> Result<&'a [u8], LayoutError> {
        let found = usize::from(self.u16(what)?);
        if found > limit {
            return Err(LayoutError::TooLong { what, found, limit });
        }
        self.bytes(found, what)
    }

    /// A length (u16) of at most `limit`, and that many bytes of UTF-8 without control characters.
    pub(crate) fn text(&mut self, limit: usize, what: &'static str) -> Result<String, LayoutError> {
        let bytes = self.block(limit, what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| LayoutError::Value { what, reason: "not UTF-8" })?;
        check_text(text, limit, what)?;
        Ok(text.to_owned())
    }

    /// What is left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the object: nothing may be left.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), LayoutError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(LayoutError::Trailing { what, count }),
        }
    }
}

/// Texts end in terminals, logs and tables of others: control characters have no place in them.
pub(crate) fn check_text(text: &str, limit: usize, what: &'static str) -> Result<(), LayoutError> {
    if text.len() > limit {
        return Err(LayoutError::TooLong { what, found: text.len(), limit });
    }
    if text.chars().any(char::is_control) {
        return Err(LayoutError::Value { what, reason: "control characters are not allowed" });
    }
    Ok(())
}

/// Appends a length (u16) and the bytes. The caller has checked that the length fits.
pub(crate) fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("blocks are checked against limits below 64 KiB when they are made");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}
