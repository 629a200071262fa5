//! Why rules do not load, and why a message must not leave. Each names the rule or the field.

use super::{RuleError, Strategy};

/// Why a message must not leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleViolation {
    /// A rule that is not optional matched nothing.
    #[error(
        "the rule for {path:?} matched nothing in the message: correct the path, or mark the rule optional if the field \
         may be absent"
    )]
    NeverMatched {
        /// The rule's path.
        path: String,
    },
    /// A rule's path runs into an array.
    #[error(
        "the rule for {path:?} meets an array before its end, and rules do not reach into arrays: rule the whole array"
    )]
    MeetsList {
        /// The rule's path.
        path: String,
    },
    /// A value could not be transformed.
    #[error("the rule for {path:?} cannot transform the value of the field: {source}")]
    Transform {
        /// The rule's path.
        path: String,
        /// Why.
        source: RuleError,
    },
}

/// Rules that do not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// More than 1,024 rules.
    #[error("{count} field rules are too many: at most 1024")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A path that can match nothing.
    #[error(
        "{path:?} is no field path: expected names with a dot between them, none empty and none that starts with '@'"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// Two rules for one path.
    #[error("there are two rules for {path:?}: remove one")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A rule behind a rule for one of its parents.
    #[error(
        "the rule for {child:?} stands behind the rule for its parent {parent:?} and would never act: move it in front"
    )]
    ChildBehindParent {
        /// The path of the rule that would never act.
        child: String,
        /// The path of the rule before it.
        parent: String,
    },
    /// An encrypt rule without a key.
    #[error("the rule for {path:?} encrypts, and has no key")]
    NoKey {
        /// The path.
        path: String,
    },
    /// A `keyed_hash` rule without a key.
    #[error("the rule for {path:?} anonymizes with keyed_hash, and has no key")]
    NoHashKey {
        /// The path.
        path: String,
    },
    /// An anonymize rule without a strategy.
    #[error("the rule for {path:?} anonymizes, and has no strategy: hash, generalize, redact or keyed_hash")]
    NoStrategy {
        /// The path.
        path: String,
    },
    /// A strategy on a rule that does not anonymize.
    #[error("the rule for {path:?} has the strategy {strategy}, and does not anonymize")]
    StrayStrategy {
        /// The path.
        path: String,
        /// The strategy.
        strategy: Strategy,
    },
    /// The message type has no such field.
    #[error("the rule for {path:?} names a field that the message type does not have; it has {known}")]
    NoSuchField {
        /// The path.
        path: String,
        /// The fields where the path goes wrong.
        known: String,
    },
    /// The path runs into an array of the message type.
    #[error(
        "the rule for {path:?} runs into the array {list:?}, and rules do not reach into arrays: rule the whole array"
    )]
    RunsIntoList {
        /// The path.
        path: String,
        /// The path of the array.
        list: String,
    },
}
