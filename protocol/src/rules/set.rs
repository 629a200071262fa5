//! The rules of one stream, of whichever kind.

use rand_core::CryptoRng;

use super::{Action, LoadError, Report, RuleViolation, SchemaPaths, agent::AgentRules, native::NativeRules};
use crate::json::Object;

/// The loaded rules of a stream.
pub enum RuleSet {
    /// Those of a Data Event Map.
    Native(NativeRules),
    /// Those of a configuration of peaq's agent.
    Agent(AgentRules),
}

impl RuleSet {
    /// The fields after the rules, and whether the rules removed or replaced anything.
    ///
    /// # Errors
    /// When the message does not fit the rules: it must not leave.
    pub fn apply_noting(&self, fields: Object, rng: &mut impl CryptoRng) -> Result<(Object, bool), RuleViolation> {
        match self {
            Self::Native(rules) => rules.apply_noting(fields, rng),
            Self::Agent(rules) => rules.apply_noting(fields, rng),
        }
    }

    /// Checks every path against the fields of the message type.
    ///
    /// # Errors
    /// For the first rule whose path does not exist or runs into an array.
    pub fn check_schema(&self, schema: &SchemaPaths) -> Result<(), LoadError> {
        match self {
            Self::Native(rules) => rules.check_schema(schema),
            Self::Agent(rules) => rules.check_schema(schema),
        }
    }

    /// What [`RuleSet::apply_noting`] would do to a message, without doing it.
    #[must_use]
    pub fn report(&self, fields: &Object) -> Report {
        match self {
            Self::Native(rules) => rules.report(fields),
            Self::Agent(rules) => rules.report(fields),
        }
    }

    /// Whether a rule replaces the field at `path` (names from the top; of something in an array, those of the array) by
    /// something made of its value, and so has to be given the value itself.
    #[must_use]
    pub fn needs_value(&self, path: &[&str]) -> bool {
        match self {
            Self::Native(rules) => matches!(rules.action_for(path).action, Action::Encrypt | Action::Anonymize),
            Self::Agent(rules) => rules.needs_value(path),
        }
    }
}
