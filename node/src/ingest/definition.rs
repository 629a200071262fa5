//! The definition that a message's fields are the whole of, as it travels with them.

use std::sync::Arc;

use super::{
    definitions::complete_text,
    msgdef::{Lookup, NoLookup, Plan},
};

/// Longest definition that travels with fields, in bytes. Those of common types have 1 to 6 KiB.
pub const MAX_DEFINITION: usize = 64 << 10;

/// A `ros2msg` definition that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// [`definition_id`] of the text.
    pub id: Arc<str>,
    /// The definition with all types it uses.
    pub text: Arc<str>,
}

/// What a definition is called where its text would be too long: the first 16 bytes of the BLAKE3 of the text, in hex.
#[must_use]
pub fn definition_id(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    hash.chars().take(32).collect()
}

impl Definition {
    /// The definition behind `plan`, which was compiled from `text`: the text itself where it stands alone, otherwise with what
    /// it lacks. `None` when it cannot stand alone (a service's, an action's) or is longer than [`MAX_DEFINITION`].
    pub(super) fn of(type_name: &str, text: &str, plan: &Plan, lookup: &dyn Lookup) -> Option<Arc<Self>> {
        let alone = |text: &str| Plan::compile(type_name, text, &NoLookup).is_ok_and(|own| own == *plan);
        let text: Arc<str> = if alone(text) {
            Arc::from(text)
        } else {
            complete_text(type_name, text, lookup).filter(|text| alone(text))?.into()
        };
        (text.len() <= MAX_DEFINITION).then(|| Arc::new(Self { id: definition_id(&text).into(), text }))
    }
}
