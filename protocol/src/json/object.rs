//! Objects: unique keys in the order they came.

use super::Value;

/// A JSON object: a list of fields with unique keys that keeps its order.
///
/// Messages have few fields, so looking one up walks the list; the parser, which may meet many, drops repeated keys in one
/// pass of its own.
#[derive(Debug, Clone, Default)]
pub struct Object {
    fields: Vec<(String, Value)>,
}

impl Object {
    /// An empty object.
    #[must_use]
    pub const fn new() -> Self {
        Self { fields: Vec::new() }
    }

    /// An empty object with room for `fields` fields.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self { fields: Vec::with_capacity(fields) }
    }

    /// The fields of a parsed object, whose keys may repeat: the last value wins, at the place of the first.
    pub(super) fn from_parsed(fields: Vec<(String, Value)>) -> Self {
        /// Up to this many fields, comparing all pairs is cheaper than hashing.
        const FEW: usize = 16;
        let repeats = if fields.len() <= FEW {
            (1..fields.len()).any(|i| fields[..i].iter().any(|(key, _)| *key == fields[i].0))
        } else {
            let mut seen = std::collections::HashSet::with_capacity(fields.len());
            !fields.iter().all(|(key, _)| seen.insert(key.as_str()))
        };
        if !repeats {
            return Self { fields };
        }
        let mut places = std::collections::HashMap::with_capacity(fields.len());
        let mut unique: Vec<(String, Value)> = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            if let Some(&place) = places.get(&key) {
                let field: &mut (String, Value) = &mut unique[place];
                field.1 = value;
            } else {
                places.insert(key.clone(), unique.len());
                unique.push((key, value));
            }
        }
        Self { fields: unique }
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// The value of a field, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.fields.iter_mut().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Whether there is such a field.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets a field, at its old place when it was there, else at the end; returns what it held.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(old) = self.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        self.fields.push((key, value));
        None
    }

    /// Adds a field whose key is known to be new.
    pub(crate) fn push_unique(&mut self, key: String, value: Value) {
        debug_assert!(!self.contains_key(&key), "keys are unique");
        self.fields.push((key, value));
    }

    /// Takes a field out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.fields.iter().position(|(k, _)| k == key)?;
        Some(self.fields.remove(place).1)
    }

    /// Keeps the fields for which `keep` says so; it may change their values.
    pub fn retain_mut(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.fields.retain_mut(|(key, value)| keep(key, value));
    }

    /// The fields in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator {
        self.fields.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The fields in order, their values to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        self.fields.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.fields.iter().map(|(key, _)| key.as_str())
    }

    /// The field at a place; places count from 0 in insertion order.
    pub(super) fn at(&self, place: usize) -> (&str, &Value) {
        let (key, value) = &self.fields[place];
        (key, value)
    }
}

/// Two objects are equal when they have the same fields, in any order.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if self.fields.iter().zip(&other.fields).all(|(a, b)| a.0 == b.0) {
            return self.fields.iter().zip(&other.fields).all(|(a, b)| a.1 == b.1);
        }
        let sorted = |object: &Self| {
            let mut order: Vec<usize> = (0..object.len()).collect();
            order.sort_unstable_by(|a, b| object.fields[*a].0.cmp(&object.fields[*b].0));
            order
        };
        sorted(self).into_iter().zip(sorted(other)).all(|(a, b)| self.fields[a] == other.fields[b])
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        Self::from_parsed(fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}
