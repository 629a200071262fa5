//! Whom the agent seals chunk keys for.
//!
//! Here those three stand in files for peaq's tools; on the feed, keys are sealed to buyers one by one, and to the owner of the
//! home.

use tributary_protocol::peaq::parties::{Recipient, Role};

use super::layers::{text, value};
use crate::config::{
    error::{ConfigError, Notice, Place},
    reader::Field,
    yaml::Node,
};

/// Longer lists are a mistake.
const MAX_RECIPIENTS: usize = 64;

/// An owner in two environment variables, which comes last.
pub(super) struct OwnerVariables {
    pub(super) id: Node,
    pub(super) key: Node,
}

/// The first recipient of each role, as public key and place.
#[derive(Default)]
pub(super) struct Recipients {
    found: [Option<(Place, String)>; 3],
}

const ROLES: [(&str, Role, &str); 3] = [
    ("owner", Role::Owner, "owner_public_key"),
    ("operator", Role::Operator, "operator_public_key"),
    ("machine", Role::Machine, "machine_public_key"),
];

impl Recipients {
    /// Reads the list and the owner of the environment.
    pub(super) fn read(
        list: Option<&Field<'_>>,
        owner: Option<&OwnerVariables>,
        notices: &mut Vec<Notice>,
    ) -> Result<Self, ConfigError> {
        const LIST: &str = "a list of recipients, each with `recipient_id` and `public_key_hex`";
        let mut out = Self::default();
        let read = |item: Field<'_>| {
            let section = item.section()?;
            const ID: &str = "the recipient's id";
            let id = text(&section.need("recipient_id", ID)?, ID)?;
            let words: Vec<(&str, usize)> = ROLES.iter().enumerate().map(|(i, (word, ..))| (*word, i)).collect();
            let role = value(&section, "recipient_type").map(|f| f.one_of(&words)).transpose()?.unwrap_or(0);
            let key = public_key(id, role, &section.need("public_key_hex", KEY)?)?;
            section.finish()?;
            out.add(role, item.place(), key, notices);
            Ok(())
        };
        if let Some(list) = list {
            list.list(MAX_RECIPIENTS, LIST, read)?;
        }
        if let Some(OwnerVariables { id, key }) = owner {
            let (id, key) = (Field::at("recipient_id", id), Field::at("public_key_hex", key));
            let public = public_key(text(&id, "the owner's id")?, 0, &key)?;
            out.add(0, key.place(), public, notices);
        }
        Ok(out)
    }

    fn add(&mut self, role: usize, place: Place, key: String, notices: &mut Vec<Notice>) {
        if self.found[role].is_none() {
            self.found[role] = Some((place, key));
            return;
        }
        let word = ROLES[role].0;
        let text = format!(
            "a second recipient of the type {word}: the files for peaq's tools name one {word}; let this one in as a buyer \
             with `tributary grant`"
        );
        notices.push(Notice { place, text });
    }

    /// The keys of the section `peaq` that are given, with their values.
    pub(super) fn keys(self) -> impl Iterator<Item = (&'static str, Node)> {
        let found = ROLES.iter().zip(self.found);
        found.filter_map(|((_, _, key), found)| found.map(|(place, text)| (*key, Node::scalar(place, text))))
    }
}

const KEY: &str = "an X25519 public key, 64 hex digits";

fn public_key(id: &str, role: usize, field: &Field<'_>) -> Result<String, ConfigError> {
    let given = text(field, KEY)?;
    let digits = given.strip_prefix("0x").unwrap_or(given).to_ascii_lowercase();
    Recipient::new(id, ROLES[role].1, &digits).map_err(|_| field.wrong(KEY))?;
    Ok(digits)
}
