//! The bounded parser.

use super::{IllFormed, JsonError, Number, Object, Value};

/// The deepest nesting that any value may have, parsed or written.
pub(super) const MAX_DEPTH: usize = 128;

/// The most digits of an integer that Python converts; a longer one cannot come from peaq's tools.
const MAX_DIGITS: usize = 4300;

/// What a parser accepts. Memory for the value is at most a small multiple of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest text in bytes.
    pub max_bytes: usize,
    /// Deepest nesting of arrays and objects, at most 128; a larger number counts as 128.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 16 MiB and 128 levels.
    fn default() -> Self {
        Self { max_bytes: 16 << 20, max_depth: MAX_DEPTH }
    }
}

impl Limits {
    /// At most this many bytes, at the greatest depth.
    #[must_use]
    pub fn bytes(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }
}

/// Reads one JSON value and nothing after it but whitespace. Of repeated object keys the last value counts, as in Python.
///
/// # Errors
/// When the text is over a limit or not JSON; `NaN`, `Infinity` and floats beyond the range are [`JsonError::NonFinite`].
pub fn parse(text: &[u8], limits: Limits) -> Result<Value, JsonError> {
    if text.len() > limits.max_bytes {
        return Err(JsonError::TooLarge { bytes: text.len(), limit: limits.max_bytes });
    }
    let text = std::str::from_utf8(text).map_err(|error| JsonError::Utf8 { offset: error.valid_up_to() })?;
    let mut parser = Parser { text, at: 0, depth: 0, max_depth: limits.max_depth.min(MAX_DEPTH) };
    let value = parser.value()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("the end of the text"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
}

/// A string as it was read: whole characters, or UTF-16 code units with a lone surrogate among them.
enum Text {
    Whole(String),
    Units(Vec<u16>),
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { offset: self.at, expected }
    }

    /// Whether `literal` stands here; then steps over it.
    fn take(&mut self, literal: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(literal.as_bytes());
        if found {
            self.at += literal.len();
        }
        found
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(match self.string()? {
                Text::Whole(text) => Value::String(text),
                Text::Units(units) => IllFormed::value_of(&units),
            }),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') if self.take("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.take("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.take("null") => Ok(Value::Null),
            Some(b'N') if self.take("NaN") => Err(JsonError::NonFinite),
            Some(b'I') if self.take("Infinity") => Err(JsonError::NonFinite),
            _ => Err(self.expected("a value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, JsonError>) -> Result<Value, JsonError> {
        if self.depth == self.max_depth {
            return Err(JsonError::TooDeep { limit: self.max_depth });
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// After `[`.
    fn array(&mut self) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.expected("',' or ']'")),
            }
        }
    }

    /// After `{`.
    fn object(&mut self) -> Result<Value, JsonError> {
        let mut fields = Vec::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Value::Object(Object::new()));
        }
        loop {
            self.skip_space();
            let offset = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let Text::Whole(key) = self.string()? else { return Err(JsonError::SurrogateKey { offset }) };
            self.skip_space();
            if !self.take(":") {
                return Err(self.expected("':'"));
            }
            fields.push((key, self.value()?));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(Object::from_parsed(fields)));
                }
                _ => return Err(self.expected("',' or '}'")),
            }
        }
    }

    /// At the opening quote.
    fn string(&mut self) -> Result<Text, JsonError> {
        self.at += 1;
        let start = self.at;
        self.skip_plain();
        if self.take("\"") {
            // The common case: no escapes, one copy.
            return Ok(Text::Whole(self.text[start..self.at - 1].to_owned()));
        }
        let mut text = String::with_capacity(2 * (self.at - start) + 16);
        text.push_str(&self.text[start..self.at]);
        // Set once a lone surrogate turns up; from then on the string grows as code units.
        let mut units: Option<Vec<u16>> = None;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(units.map_or(Text::Whole(text), Text::Units));
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.escape()? {
                        Ok(character) => match &mut units {
                            None => text.push(character),
                            Some(units) => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
                        },
                        Err(lone) => units.get_or_insert_with(|| text.encode_utf16().collect()).push(lone),
                    }
                }
                Some(0..0x20) => return Err(self.expected("no control character: escape it as \\uXXXX")),
                Some(_) => {
                    let from = self.at;
                    self.skip_plain();
                    let run = &self.text[from..self.at];
                    match &mut units {
                        None => text.push_str(run),
                        Some(units) => units.extend(run.encode_utf16()),
                    }
                }
                None => return Err(self.expected("the closing '\"' of a string")),
            }
        }
    }

    /// Steps over what stands for itself in a string.
    fn skip_plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
    }

    /// After a backslash: a character, or a lone surrogate.
    fn escape(&mut self) -> Result<Result<char, u16>, JsonError> {
        let character = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.expected("one of \" \\ / b f n r t u after a backslash")),
        };
        self.at += 1;
        Ok(Ok(character))
    }

    /// After `\u`. A high surrogate takes the low one behind it along.
    fn unicode_escape(&mut self) -> Result<Result<char, u16>, JsonError> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) {
            let behind = self.at;
            if self.take("\\u") {
                let second = self.hex4()?;
                if let Some(Ok(character)) = char::decode_utf16([first, second]).next() {
                    return Ok(Ok(character));
                }
                // Not a pair: what follows is read again for itself.
                self.at = behind;
            }
        }
        Ok(char::from_u32(first.into()).ok_or(first))
    }

    fn hex4(&mut self) -> Result<u16, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let mut unit = 0;
        for digit in digits {
            let Some(nibble) = char::from(*digit).to_digit(16).and_then(|d| u16::try_from(d).ok()) else {
                return Err(self.expected("four hex digits after \\u"));
            };
            unit = unit << 4 | nibble;
        }
        if digits.len() < 4 {
            return Err(self.expected("four hex digits after \\u"));
        }
        self.at += 4;
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        count
    }

    fn number(&mut self) -> Result<Number, JsonError> {
        let start = self.at;
        if self.take("-") && self.take("Infinity") {
            return Err(JsonError::NonFinite);
        }
        let first = self.at;
        let whole = self.digits();
        if whole == 0 {
            return Err(self.expected("a digit"));
        }
        if whole > 1 && self.text.as_bytes()[first] == b'0' {
            self.at = first;
            return Err(self.expected("a number without leading zeros"));
        }
        let mut integer = true;
        if self.take(".") {
            integer = false;
            if self.digits() == 0 {
                return Err(self.expected("a digit after the point"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.expected("a digit of the exponent"));
            }
        }
        let text = &self.text[start..self.at];
        let unreadable = JsonError::Syntax { offset: start, expected: "a number" };
        if integer {
            if whole > MAX_DIGITS {
                return Err(JsonError::NumberTooLong { offset: start, limit: MAX_DIGITS });
            }
            return Number::from_digits(text).ok_or(unreadable);
        }
        let float: f64 = text.parse().map_err(|_| unreadable)?;
        if float.is_finite() { Ok(Number::Float(float)) } else { Err(JsonError::NonFinite) }
    }
}
