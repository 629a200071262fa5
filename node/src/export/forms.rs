//! Which channels of an MCAP export are CDR and which are JSON.
//!
//! A channel is one or the other as a whole. Whether all its messages can be CDR shows at the last of them, so an export begins in
//! good hope, and begins again where that failed: what was learned is kept here. Almost always one pass is enough, since rules
//! apply to all messages of a stream alike.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tributary_protocol::json::Object;

use super::cdr::{EncodeError, encode_cdr};
use crate::ingest::{
    BlobField, MAX_DEFINITION, definition_id,
    msgdef::{NoLookup, Plan},
};

/// Most definitions of one export; a stream has one at a time.
const MAX_DEFINITIONS: usize = 256;

/// Digits of a definition's id.
const DEFINITION_ID: usize = 32;

/// Why a channel is JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonReason {
    /// A package does not say that it is the whole message.
    #[error("a rule changed its messages, or they had no ROS 2 definition")]
    NotWhole,
    /// The text of a definition is not in what was exported.
    #[error("the definition {0} is not in this part of the dataset; export the whole dataset")]
    NoDefinition(String),
    /// The definition's text is none of this type.
    #[error("the definition {0} is not one of its type")]
    BadDefinition(String),
    /// A package says that it is whole, and is not.
    #[error("package {number} is not a message of its definition: {error}")]
    NotEncodable {
        /// Its sequence number.
        number: String,
        /// What does not fit.
        error: EncodeError,
    },
}

/// Topic and type.
type Key = (String, String);

enum State {
    /// CDR so far.
    Cdr,
    /// JSON until the text of this definition is found.
    Waiting(String),
    Json(JsonReason),
}

/// A message as it goes into a CDR channel.
pub(super) struct Encoded {
    pub(super) definition: Arc<str>,
    pub(super) cdr: Vec<u8>,
}

/// What a package says about the message it was made of.
pub(super) struct Claim<'a> {
    pub(super) number: &'a dyn std::fmt::Display,
    /// The definition of which it has all fields, unchanged.
    pub(super) definition: Option<&'a str>,
    /// The text of that definition.
    pub(super) text: Option<&'a str>,
}

/// What is known about channels and definitions; goes from one pass of an export to the next.
#[derive(Default)]
pub struct ChannelForms {
    texts: HashMap<String, Arc<str>>,
    /// By definition and type; `None` when it does not compile as that.
    plans: HashMap<Key, Option<Arc<Plan>>>,
    channels: BTreeMap<Key, State>,
    /// A channel that has CDR in this pass turned out to be JSON.
    failed: bool,
}

impl ChannelForms {
    /// The message as CDR, or `None` when it goes into a JSON channel in this pass.
    pub(super) fn encode(
        &mut self,
        (topic, type_name): (&str, &str),
        claim: &Claim<'_>,
        fields: &Object,
        blobs: &[BlobField],
    ) -> Option<Encoded> {
        if let (Some(id), Some(text)) = (claim.definition, claim.text) {
            self.learn(id, text);
        }
        let key = (topic.to_owned(), type_name.to_owned());
        if let Some(State::Json(_)) = self.channels.get(&key) {
            return None;
        }
        let result = self.try_encode(type_name, claim, fields, blobs);
        let (next, encoded) = match (self.channels.get(&key), result) {
            (None | Some(State::Cdr), Ok(encoded)) => (State::Cdr, Some(encoded)),
            (_, Ok(_)) => return None,
            (None, Err(JsonReason::NoDefinition(id))) => (State::Waiting(id), None),
            (Some(State::Waiting(_)), Err(JsonReason::NoDefinition(_))) => return None,
            (before, Err(reason)) => {
                self.failed |= matches!(before, Some(State::Cdr));
                (State::Json(reason), None)
            }
        };
        self.channels.insert(key, next);
        encoded
    }

    fn learn(&mut self, id: &str, text: &str) {
        // A package may be 16 MiB and is written by anyone.
        if text.len() <= MAX_DEFINITION
            && self.texts.len() < MAX_DEFINITIONS
            && !self.texts.contains_key(id)
            && definition_id(text) == id
        {
            self.texts.insert(id.to_owned(), Arc::from(text));
        }
    }

    fn try_encode(
        &mut self,
        type_name: &str,
        claim: &Claim<'_>,
        fields: &Object,
        blobs: &[BlobField],
    ) -> Result<Encoded, JsonReason> {
        let id = claim.definition.ok_or(JsonReason::NotWhole)?;
        if id.len() != DEFINITION_ID || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            // Nothing can have such a name, so there is nothing to wait for.
            return Err(JsonReason::BadDefinition(id.chars().take(DEFINITION_ID).collect()));
        }
        let text = self.texts.get(id).ok_or_else(|| JsonReason::NoDefinition(id.to_owned()))?;
        let key = (id.to_owned(), type_name.to_owned());
        if self.plans.len() >= MAX_DEFINITIONS && !self.plans.contains_key(&key) {
            return Err(JsonReason::BadDefinition(id.to_owned()));
        }
        let plan = self
            .plans
            .entry(key)
            .or_insert_with(|| Plan::compile(type_name, text, &NoLookup).ok().map(Arc::new))
            .as_ref()
            .ok_or_else(|| JsonReason::BadDefinition(id.to_owned()))?;
        let cdr = encode_cdr(plan, fields, blobs)
            .map_err(|error| JsonReason::NotEncodable { number: claim.number.to_string(), error })?;
        Ok(Encoded { definition: Arc::clone(text), cdr })
    }

    /// Why a channel is JSON.
    pub(super) fn reason(&self, topic: &str, type_name: &str) -> Option<JsonReason> {
        match self.channels.get(&(topic.to_owned(), type_name.to_owned()))? {
            State::Cdr => None,
            State::Waiting(id) => Some(JsonReason::NoDefinition(id.clone())),
            State::Json(reason) => Some(reason.clone()),
        }
    }

    /// Ends a pass: whether another one is needed. It ends: each further pass has a channel more that is JSON for good, or waits
    /// for fewer definitions, of which all that there are were seen in the first.
    pub(super) fn again(&mut self) -> bool {
        let Self { texts, channels, failed, .. } = self;
        let found = channels.values().any(|state| matches!(state, State::Waiting(id) if texts.contains_key(id)));
        let again = *failed || found;
        if again {
            *failed = false;
            channels.retain(|_, state| matches!(state, State::Json(_)));
        }
        again
    }
}
