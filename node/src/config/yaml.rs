//! YAML text to a tree in which every node knows its place.
//!
//! A configuration needs mappings, lists and scalars. Anchors, aliases, tags and merge keys are refused by name: they hide
//! what is configured, and aliases are how a small file becomes an endless one. Scalars keep their text, so that `1.10`, `on`
//! and `007` mean what is written; the reader of a key decides what it is.
//!
//! Bounds: [`MAX_BYTES`] of text, [`MAX_DEPTH`] levels, [`MAX_NODES`] nodes. The tree is built without recursion.

use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::error::{ConfigError, Place, excerpt};

/// A configuration of ten thousand streams is about this large.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// No key of ours lies deeper than 6.
const MAX_DEPTH: usize = 16;
/// Far above what [`MAX_BYTES`] of sensible text holds.
const MAX_NODES: usize = 500_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar's text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text; keys are unique.
    Map(Vec<Entry>),
}

/// A key of a mapping and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) node: Node,
}

/// A collection that is not closed yet.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<Entry>, Option<(Place, String)>),
}

/// Reads one document. `at` makes a place from line and column, both from 1. An empty text is [`Value::Null`].
pub(super) fn parse(text: &str, at: &dyn Fn(usize, usize) -> Place) -> Result<Node, ConfigError> {
    if text.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge { place: at(1, 1), limit: MAX_BYTES });
    }
    let place_of = |mark: &Marker| at(mark.line(), mark.col() + 1);
    let syntax = |place: Place, message: &str| Err(ConfigError::Syntax { place, message: message.to_owned() });
    let (mut stack, mut root, mut nodes) = (Vec::<Open>::new(), None, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| ConfigError::Syntax {
            place: place_of(error.marker()),
            message: format!("not valid YAML: {}", excerpt(&error.info())),
        })?;
        let place = place_of(&span.start);
        if let Event::Scalar(_, _, anchor, tag)
        | Event::SequenceStart(_, anchor, tag)
        | Event::MappingStart(_, anchor, tag) = &event
        {
            nodes += 1;
            if nodes > MAX_NODES {
                return syntax(place, &format!("more than {MAX_NODES} values"));
            }
            if *anchor != 0 {
                return syntax(place, "anchors (&name) are not supported; write the value out, or use `defaults`");
            }
            if tag.is_some() {
                return syntax(place, "tags (!name) are not supported; write the plain value");
            }
        }
        let node = match event {
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                return syntax(place, "aliases (*name) are not supported; write the value out, or quote the text");
            }
            Event::DocumentStart(..) if root.is_some() => {
                return syntax(place, "a second document; a configuration is one document");
            }
            Event::Scalar(text, style, ..) => Node { place, value: scalar(text.into_owned(), style) },
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if stack.len() >= MAX_DEPTH {
                    return syntax(place, &format!("nested deeper than {MAX_DEPTH} levels"));
                }
                stack.push(match event {
                    Event::SequenceStart(..) => Open::List(place, Vec::new()),
                    _ => Open::Map(place, Vec::new(), None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(place, items)) => Node { place, value: Value::List(items) },
                Some(Open::Map(place, entries, _)) => Node { place, value: Value::Map(entries) },
                None => return syntax(place, "a collection ends that never began"),
            },
            _ => continue,
        };
        match stack.last_mut() {
            None => root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, pending)) => match pending.take() {
                Some((place, key)) => entries.push(Entry { place, key, node }),
                None => *pending = Some(key_of(node, entries)?),
            },
        }
    }
    Ok(root.unwrap_or_else(|| Node { place: at(1, 1), value: Value::Null }))
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    if style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Scalar(text)
    }
}

fn key_of(node: Node, entries: &[Entry]) -> Result<(Place, String), ConfigError> {
    let Value::Scalar(key) = node.value else {
        return Err(ConfigError::Syntax { place: node.place, message: "a key must be a plain word".to_owned() });
    };
    // Linear: the longest mapping of the schema has under twenty keys, and a longer one is an unknown key soon.
    if entries.len() > 64 {
        return Err(ConfigError::Syntax { place: node.place, message: "a mapping with more than 64 keys".to_owned() });
    }
    if let Some(first) = entries.iter().find(|e| e.key == key) {
        return Err(ConfigError::Conflict {
            place: node.place,
            key: excerpt(&key),
            problem: format!("is given twice; the first is at {}", first.place),
        });
    }
    Ok((node.place, key))
}

impl Node {
    /// A scalar.
    pub(super) fn scalar(place: Place, text: impl Into<String>) -> Self {
        Self { place, value: Value::Scalar(text.into()) }
    }

    /// An empty mapping.
    pub(super) fn map(place: Place) -> Self {
        Self { place, value: Value::Map(Vec::new()) }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Puts `value` at `path` (keys of mappings, outermost first), making the mappings that are not there. `false` when
    /// something on the way is not a mapping.
    pub(super) fn set(&mut self, path: &[&str], value: Self) -> bool {
        let Some((key, rest)) = path.split_first() else {
            *self = value;
            return true;
        };
        if matches!(self.value, Value::Null) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return false };
        let index = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
            let empty = Self { place: value.place.clone(), value: Value::Null };
            entries.push(Entry { place: value.place.clone(), key: (*key).to_owned(), node: empty });
            entries.len() - 1
        });
        entries[index].place = value.place.clone();
        entries[index].node.set(rest, value)
    }
}

/// A place maker for a file.
pub(super) fn in_file(file: Arc<str>) -> impl Fn(usize, usize) -> Place {
    move |line, column| Place::File { file: Arc::clone(&file), line, column }
}
