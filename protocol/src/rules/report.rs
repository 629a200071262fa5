//! What rules would do to a message, field by field.

use super::{Action, RuleViolation, Strategy};

/// What would happen to one leaf of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFate {
    /// The leaf in dot notation; an array is a leaf.
    pub path: String,
    /// The subtree that is transformed as one, equal to `path` when the leaf stands for itself.
    pub unit: String,
    /// What happens to it.
    pub action: Action,
    /// How, when it is anonymized.
    pub strategy: Option<Strategy>,
    /// The path of the rule that governs it; `None` for the default.
    pub rule: Option<String>,
}

/// What would happen to a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every leaf in the message's order.
    pub fates: Vec<FieldFate>,
    /// Why the message would not leave at all: each rule that meets an array or, where the rules ask for it,
    /// matches nothing.
    pub violations: Vec<RuleViolation>,
}
