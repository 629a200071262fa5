//! Typed reading of the tree: sections that know their keys, fields that know their path.
//!
//! A [`Section`] learns which keys exist from being asked for them, so the list of known keys in a message, and the test that
//! every key is documented, can never differ from what the code reads.

use std::{cell::RefCell, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{
    error::{ConfigError, Place, excerpt},
    units::{BYTES_FORM, DURATION_FORM, parse_bytes, parse_duration, show_bytes, show_duration},
    yaml::{Entry, Node, Value},
};

/// A mapping being read. Ask for every key it may have, then call [`Section::finish`].
pub(super) struct Section<'a> {
    place: Place,
    path: String,
    entries: &'a [Entry],
    known: RefCell<Vec<&'static str>>,
}

/// A value being read.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    node: &'a Node,
}

impl<'a> Section<'a> {
    /// The whole document as a section.
    pub(super) fn root(node: &'a Node) -> Result<Self, ConfigError> {
        Field { path: String::new(), node }.section()
    }

    fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().push(key);
        let entry = self.entries.iter().find(|e| e.key == key);
        #[cfg(test)]
        trace::asked(&self.key_path(key), entry.is_some());
        entry.map(|e| Field { path: self.key_path(key), node: &e.node })
    }

    /// The value of `key`, which must be there.
    pub(super) fn need(&self, key: &'static str, expected: &str) -> Result<Field<'a>, ConfigError> {
        self.get(key).ok_or_else(|| ConfigError::Missing {
            place: self.place.clone(),
            key: self.key_path(key),
            expected: expected.to_owned(),
        })
    }

    /// The keys nobody asked for, and where they stand.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (&Place, String)> {
        let known = self.known.borrow().clone();
        let unknown = self.entries.iter().filter(move |entry| !known.contains(&entry.key.as_str()));
        unknown.map(|entry| (&entry.place, self.key_path(&excerpt(&entry.key))))
    }

    /// Refuses keys nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let known = self.known.borrow();
        let Some(entry) = self.entries.iter().find(|e| !known.contains(&e.key.as_str())) else { return Ok(()) };
        let mut names: Vec<&str> = known.clone();
        names.sort_unstable();
        names.dedup();
        let nearest = names.iter().map(|name| (distance(name, &entry.key), *name)).min();
        Err(ConfigError::UnknownKey {
            place: entry.place.clone(),
            key: self.key_path(&excerpt(&entry.key)),
            suggestion: nearest.filter(|(d, name)| *d <= name.len() / 2).map(|(_, name)| name.to_owned()),
            expected: names.join(", "),
        })
    }
}

impl<'a> Field<'a> {
    /// Where the value stands.
    pub(super) fn place(&self) -> Place {
        self.node.place.clone()
    }

    /// An error about this value.
    pub(super) fn wrong(&self, expected: impl Into<String>) -> ConfigError {
        let found = match &self.node.value {
            Value::Null => "empty".to_owned(),
            Value::Scalar(text) => format!("\"{}\"", excerpt(text)),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "a mapping".to_owned(),
        };
        let key = if self.path.is_empty() { "the whole configuration".to_owned() } else { self.path.clone() };
        ConfigError::Value { place: self.place(), key, found, expected: expected.into() }
    }

    /// An error about this value and another one.
    pub(super) fn conflict(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Conflict { place: self.place(), key: self.path.clone(), problem: problem.into() }
    }

    /// The root of a tree whose place in its document is `path`.
    pub(super) fn at(path: &str, node: &'a Node) -> Self {
        Self { path: path.to_owned(), node }
    }

    /// Whether there is nothing: no value, or a text without anything but white space.
    pub(super) fn is_blank(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::Scalar(text) => text.trim().is_empty(),
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What there is.
    pub(super) fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn child(&self, key: &str) -> Option<Self> {
        self.node.get(key).map(|node| Self { path: format!("{}.{key}", self.path), node })
    }

    /// Whether it is a list of nothing.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::List(items) if items.is_empty())
    }

    /// Whether it is a mapping.
    pub(super) fn is_section(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// A mapping; nothing at all is an empty one.
    pub(super) fn section(&self) -> Result<Section<'a>, ConfigError> {
        let entries: &[Entry] = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return Err(self.wrong("a mapping of keys to values")),
        };
        Ok(Section { place: self.place(), path: self.path.clone(), entries, known: RefCell::new(Vec::new()) })
    }

    /// A list of at most `max` values; nothing at all is an empty one.
    pub(super) fn list<T>(
        &self,
        max: usize,
        expected: &str,
        mut read: impl FnMut(Field<'a>) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let items: &[Node] = match &self.node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => return Err(self.wrong(expected)),
        };
        if items.len() > max {
            return Err(self.wrong(format!("at most {max} values")));
        }
        items.iter().enumerate().map(|(i, node)| read(Field { path: format!("{}[{i}]", self.path), node })).collect()
    }

    /// A scalar's text, which is not empty.
    pub(super) fn text(&self, expected: &str) -> Result<&'a str, ConfigError> {
        match &self.node.value {
            Value::Scalar(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong(expected)),
        }
    }

    /// Whatever its text form says it is. `expected` is what to write.
    pub(super) fn parse<T: FromStr>(&self, expected: &str) -> Result<T, ConfigError> {
        self.text(expected)?.parse().map_err(|_| self.wrong(expected))
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}", names.join(", "));
        let text = self.text(&expected)?;
        words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| self.wrong(expected))
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.parse::<u64>(&expected)?;
        if range.contains(&value) { Ok(value) } else { Err(self.wrong(expected)) }
    }

    /// A small whole number in a range.
    pub(super) fn integer32(&self, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let value = self.integer(u64::from(*range.start())..=u64::from(*range.end()))?;
        u32::try_from(value).map_err(|_| self.wrong("a smaller number"))
    }

    /// A size in a range, in bytes.
    pub(super) fn bytes(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let bounds = format!("{BYTES_FORM}, {}", bounds(&range, show_bytes));
        let value = parse_bytes(self.text(&bounds)?).ok_or_else(|| self.wrong(&bounds))?;
        if range.contains(&value) { Ok(value) } else { Err(self.wrong(bounds)) }
    }

    /// A duration in a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let bounds = format!("{DURATION_FORM}, {}", bounds(&range, show_duration));
        let value = parse_duration(self.text(&bounds)?).ok_or_else(|| self.wrong(&bounds))?;
        if range.contains(&value) { Ok(value) } else { Err(self.wrong(bounds)) }
    }

    /// `none`, or what `read` makes of it.
    pub(super) fn or_none<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        if matches!(&self.node.value, Value::Scalar(text) if text == "none") {
            return Ok(None);
        }
        read(self).map(Some).map_err(|error| match error {
            ConfigError::Value { place, key, found, expected } => {
                ConfigError::Value { place, key, found, expected: format!("none, or {expected}") }
            }
            other => other,
        })
    }
}

fn bounds<T: Copy>(range: &RangeInclusive<T>, show: impl Fn(T) -> String) -> String {
    format!("from {} to {}", show(*range.start()), show(*range.end()))
}

/// Levenshtein distance of two short words; longer ones are far apart.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().take(40).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Which keys were asked for and which were there, in tests.
#[cfg(test)]
pub(super) mod trace {
    use std::{cell::RefCell, collections::BTreeMap};

    thread_local! {
        static KEYS: RefCell<BTreeMap<String, bool>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn asked(path: &str, present: bool) {
        // Positions in lists do not matter: a key is documented when any element of the list has it.
        let mut pattern = String::new();
        let mut inside = false;
        for c in path.chars() {
            if c == ']' {
                inside = false;
            }
            if !inside {
                pattern.push(c);
            }
            if c == '[' {
                inside = true;
            }
        }
        KEYS.with_borrow_mut(|keys| *keys.entry(pattern).or_default() |= present);
    }

    /// The keys asked for since the last call, with whether they were ever there.
    pub(in super::super) fn take() -> BTreeMap<String, bool> {
        KEYS.take()
    }
}
