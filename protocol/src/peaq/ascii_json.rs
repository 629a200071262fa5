//! JSON text that is pure ASCII, laid out as peaq's tools lay it out.
//!
//! Everything outside U+0020..U+007E is escaped (`\uXXXX` in lower case, surrogate pairs above U+FFFF), so U+007F is too.
//! Keys keep the order of the struct that is written.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Compact text without a trailing newline.
#[must_use]
pub fn compact(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(value, &mut out, CompactFormatter);
    out
}

/// Two spaces of indentation and a trailing newline.
#[must_use]
pub fn indented(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    write(value, &mut out, PrettyFormatter::new());
    out.push(b'\n');
    out
}

/// Length in bytes of [`compact`], without making the text.
#[must_use]
pub fn compact_len(value: &impl Serialize) -> usize {
    let mut count = Count(0);
    write(value, &mut count, CompactFormatter);
    count.0
}

fn write(value: &impl Serialize, out: &mut impl Write, layout: impl Formatter) {
    value
        .serialize(&mut Serializer::with_formatter(out, Ascii(layout)))
        .expect("structs with text keys always have a JSON form, and writing to memory does not fail");
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes what is not printable ASCII and leaves the layout to the formatter inside.
struct Ascii<F>(F);

impl<F: Formatter> Formatter for Ascii<F> {
    /// Quotes, backslashes and U+0000..U+001F never reach this method: the serializer escapes them as this format wants it.
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            out.write_all(&rest.as_bytes()[..at])?;
            let mut tail = rest[at..].chars();
            if let Some(c) = tail.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            rest = tail.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_lower_case_and_cover_delete_and_astral_characters() {
        let text = "a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}é\u{ffff}\u{1f600}";
        let expected = r#""a\"\\/\b\f\n\r\t\u0001\u007f\u00e9\uffff\ud83d\ude00""#;
        assert_eq!(compact(&text), expected.as_bytes());
    }

    #[test]
    fn indentation_is_two_spaces_and_empty_lists_stay_on_their_line() {
        #[derive(Serialize)]
        struct Sample {
            b: Option<u8>,
            a: Vec<u8>,
            c: Vec<u8>,
        }
        let text = indented(&Sample { b: None, a: vec![], c: vec![1, 2] });
        let expected = "{\n  \"b\": null,\n  \"a\": [],\n  \"c\": [\n    1,\n    2\n  ]\n}\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_is_ascii(text in any::<String>()) {
            let written = compact(&text);
            prop_assert!(written.iter().all(|b| matches!(b, b' '..=b'~')));
            prop_assert_eq!(compact_len(&text), written.len());
            prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), text);
        }
    }
}
