//! Reporting: what would happen to a message, field by field.

use super::{AgentAction, AgentRules};
use crate::{
    json::{Object, Value},
    rules::{Action, FieldFate, Report, RuleViolation, path::probe},
};

impl AgentRules {
    /// What [`AgentRules::apply_noting`] would do to a message, without doing it. Of rules that act on one leaf one after the
    /// other, the last is named. Violations that show only when a value is transformed are not in it.
    #[must_use]
    pub fn report(&self, fields: &Object) -> Report {
        let mut report = Report::default();
        let mut names = Vec::new();
        for (key, value) in fields.iter() {
            names.push(key);
            self.fates(&mut names, value, &mut report.fates);
            names.pop();
        }
        for path in self.paths().filter(|path| probe(path, fields).list) {
            report.violations.push(RuleViolation::MeetsList { path: path.to_owned() });
        }
        report
    }

    fn fates<'a>(&self, names: &mut Vec<&'a str>, value: &'a Value, fates: &mut Vec<FieldFate>) {
        match value.as_object().filter(|object| !object.is_empty()) {
            None => fates.push(self.fate(names)),
            Some(object) => {
                for (key, inner) in object.iter() {
                    names.push(key);
                    self.fates(names, inner, fates);
                    names.pop();
                }
            }
        }
    }

    fn fate(&self, names: &[&str]) -> FieldFate {
        let path = names.join(".");
        let unit = path.clone();
        let including =
            self.included.iter().find(|rule| rule.split('.').eq(names.iter().copied().take(rule.split('.').count())));
        let mut fate = match including {
            None if !self.included.is_empty() => {
                return FieldFate { path, unit, action: Action::Exclude, strategy: None, rule: None };
            }
            including => FieldFate { path, unit, action: Action::Include, strategy: None, rule: including.cloned() },
        };
        // What is looked for from the second rule on: the leaf, or the unit that a rule has put something in place of.
        for rule in &self.others {
            let covers =
                fate.unit.strip_prefix(rule.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            if covers {
                (fate.action, fate.strategy) = rule.action.as_action();
                fate.rule = Some(rule.path.clone());
                fate.unit.clone_from(&rule.path);
                if rule.action == AgentAction::Exclude {
                    break;
                }
            }
        }
        fate
    }
}
