//! Reporting: what would happen to a message, field by field.

use super::{Action, NativeRules, RuleViolation, Step, Strategy, step};
use crate::json::{Object, Value};

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
    /// Why the message would not leave at all: each rule that meets an array or, not being optional, matches nothing.
    pub violations: Vec<RuleViolation>,
}

impl NativeRules {
    /// What [`NativeRules::apply`] would do to a message, without doing it. Violations that show only when a value is
    /// transformed (a number without canonical form) are not among them.
    #[must_use]
    pub fn report(&self, fields: &Object) -> Report {
        let mut report = Report::default();
        for (key, value) in fields.iter() {
            self.fate(key, value, None, &mut report.fates);
        }
        for rule in &self.rules {
            let found = probe(&rule.path, fields);
            let path = rule.path.clone();
            if found.list {
                report.violations.push(RuleViolation::MeetsList { path });
            } else if !found.matched && !rule.optional {
                report.violations.push(RuleViolation::NeverMatched { path });
            }
        }
        report
    }

    fn rule_of(&self, path: &str) -> Option<usize> {
        self.rules.iter().position(|rule| {
            path.strip_prefix(rule.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    fn fate(&self, path: &str, value: &Value, unit: Option<&str>, fates: &mut Vec<FieldFate>) {
        let rule = self.rule_of(path);
        let Some(object) = value.as_object().filter(|object| !object.is_empty()) else {
            let governing = self.governing(rule);
            fates.push(FieldFate {
                path: path.to_owned(),
                unit: unit.unwrap_or(path).to_owned(),
                action: governing.action,
                strategy: governing.strategy,
                rule: governing.rule.map(str::to_owned),
            });
            return;
        };
        let unit = unit.or_else(|| self.alike(path, object, rule).then_some(path));
        for (key, inner) in object.iter() {
            self.fate(&format!("{path}.{key}"), inner, unit, fates);
        }
    }

    fn alike(&self, path: &str, object: &Object, rule: Option<usize>) -> bool {
        object.iter().all(|(key, value)| {
            let path = format!("{path}.{key}");
            match value.as_object().filter(|object| !object.is_empty()) {
                Some(object) => self.alike(&path, object, rule),
                None => self.rule_of(&path) == rule,
            }
        })
    }
}

/// What a rule's path meets.
#[derive(Default)]
struct Found {
    matched: bool,
    list: bool,
}

fn probe(rest: &str, object: &Object) -> Found {
    let mut found = Found::default();
    for (key, value) in object.iter() {
        match (step(rest, key), value) {
            (Step::Covers, _) => found.matched = true,
            (Step::Below(_), Value::Array(_)) => found.list = true,
            (Step::Below(offset), Value::Object(inner)) => {
                let below = probe(&rest[offset..], inner);
                found.matched |= below.matched;
                found.list |= below.list;
            }
            _ => {}
        }
    }
    found
}
