//! Reporting: what would happen to a message, field by field.

use super::{FieldFate, NativeRules, Report, RuleViolation};
use crate::{
    json::{Object, Value},
    rules::path::probe,
};

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
