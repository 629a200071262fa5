//! One record's bytes, once the lengths in them are known to be true.

use mcap::{
    McapError, McapResult, parse_record,
    records::{Record, op},
};

/// Reads a schema, a channel or a message; `None` for any other record. The crate reserves memory for a text before it looks
/// for its bytes (mcap 0.26), up to 4 GiB for a record of a few bytes, so the lengths are compared with the record first.
pub(super) fn parse(opcode: u8, body: &[u8]) -> McapResult<Option<Record<'_>>> {
    let texts = match opcode {
        op::SCHEMA => texts(body, 2, false),
        op::CHANNEL => texts(body, 4, true),
        op::MESSAGE => Some(()),
        _ => return Ok(None),
    };
    texts.ok_or(McapError::UnexpectedEof)?;
    parse_record(opcode, body).map(Some)
}

/// Walks over `fixed` bytes, two texts and perhaps a map of texts; `None` when the bytes end before that.
fn texts(body: &[u8], fixed: usize, map: bool) -> Option<()> {
    let mut rest = body.get(fixed..)?;
    for _ in 0..2 {
        text(&mut rest)?;
    }
    if map {
        let bytes = length(&mut rest)?;
        let before = rest.len();
        while before - rest.len() < bytes {
            text(&mut rest)?;
        }
    }
    Some(())
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let (length, behind) = rest.split_first_chunk()?;
    *rest = behind;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

fn text(rest: &mut &[u8]) -> Option<()> {
    let length = length(rest)?;
    *rest = rest.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn a_record_is_read_when_its_lengths_are_true() {
        let channel = joined(&[b"\x01\0\x02\0", b"\x01\0\0\0/", b"\0\0\0\0", b"\x0a\0\0\0", b"\x01\0\0\0k\x01\0\0\0v"]);
        let Ok(Some(Record::Channel(read))) = parse(op::CHANNEL, &channel) else { panic!("a channel") };
        assert_eq!((read.topic.as_str(), read.metadata), ("/", BTreeMap::from([("k".to_owned(), "v".to_owned())])));
        let schema = joined(&[b"\x01\0", b"\x01\0\0\0n", b"\x01\0\0\0e", b"\x02\0\0\0{}"]);
        assert!(matches!(parse(op::SCHEMA, &schema), Ok(Some(Record::Schema { .. }))));
        for cut in 0..channel.len() {
            assert!(parse(op::CHANNEL, &channel[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_promised_length_allocates_nothing() {
        let long = b"\xff\xff\xff\xff";
        let bodies = [
            (op::SCHEMA, joined(&[b"\x01\0", long, b"n"])),
            (op::SCHEMA, joined(&[b"\x01\0", b"\x01\0\0\0n", long])),
            (op::CHANNEL, joined(&[b"\x01\0\x02\0", long])),
            (op::CHANNEL, joined(&[b"\x01\0\x02\0", b"\0\0\0\0", b"\0\0\0\0", long, b"\0\0\0\0"])),
            (op::CHANNEL, joined(&[b"\x01\0\x02\0", b"\0\0\0\0", b"\0\0\0\0", b"\x08\0\0\0", b"\0\0\0\0", long])),
        ];
        for (opcode, body) in bodies {
            assert!(matches!(parse(opcode, &body), Err(McapError::UnexpectedEof)), "{body:?}");
        }
        assert!(matches!(parse(op::METADATA, long), Ok(None)));
    }
}
