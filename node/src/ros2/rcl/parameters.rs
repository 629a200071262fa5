//! Parameters of the command line (`-p`, `--params-file`).

use std::collections::BTreeMap;

use r2r_rcl::{rcl_params_t, rcl_variant_t, rcl_yaml_node_struct_fini};

use super::error::text_of;

/// A value of the kinds that this node has parameters of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Text(String),
    /// Of another kind.
    Other,
}

/// The parameters of one node, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ros2) struct Parameters {
    values: BTreeMap<String, Value>,
}

impl Parameters {
    /// A text; an error names a parameter of another kind.
    pub(in crate::ros2) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(format!("the ROS parameter {name} is not a text")),
        }
    }

    /// A truth value; an error names a parameter of another kind.
    pub(in crate::ros2) fn truth(&self, name: &str) -> Result<Option<bool>, String> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(format!("the ROS parameter {name} is neither true nor false")),
        }
    }

    /// The parameters whose names start with `prefix`, values as text; nothing for a value of a kind that no such parameter has.
    pub(in crate::ros2) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let found = self.values.range(prefix.to_owned()..).take_while(move |(name, _)| name.starts_with(prefix));
        found.map(|(name, value)| {
            let text = match value {
                Value::Bool(true) => "true",
                Value::Bool(false) => "false",
                Value::Text(text) => text,
                Value::Other => "",
            };
            (name.as_str(), text)
        })
    }

    /// Copies what is meant for the node and ends the original. Later sections of the command line win over earlier ones, as in
    /// rclcpp.
    ///
    /// # Safety
    /// `all` is null or was given by rcl, and nobody else ends it.
    pub(super) unsafe fn take(all: *mut rcl_params_t, full_name: &str) -> Self {
        let mut out = Self::default();
        if all.is_null() {
            return out;
        }
        // SAFETY: rcl fills `num_nodes` names and parameter lists, and `num_params` names and values in each; a null pointer stands for
        // an empty list. All of it lives until it is ended at the bottom.
        unsafe {
            let nodes = slice((*all).node_names, (*all).num_nodes);
            let lists = slice((*all).params, (*all).num_nodes);
            for (node, list) in nodes.iter().zip(lists) {
                if !is_for(&text_of(*node), full_name) {
                    continue;
                }
                let names = slice(list.parameter_names, list.num_params);
                let values = slice(list.parameter_values, list.num_params);
                for (name, value) in names.iter().zip(values) {
                    out.values.insert(text_of(*name), read(value));
                }
            }
            rcl_yaml_node_struct_fini(all);
        }
        out
    }
}

/// # Safety
/// `first` is null or points to `count` values that live as long as the result is used.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    // SAFETY: as the caller promises.
    if first.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

/// # Safety
/// A variant of rcl: at most one of its pointers is not null, and that one is valid.
unsafe fn read(variant: &rcl_variant_t) -> Value {
    // SAFETY: as the caller promises.
    unsafe {
        if let Some(value) = variant.bool_value.as_ref() {
            Value::Bool(*value)
        } else if !variant.string_value.is_null() {
            Value::Text(text_of(variant.string_value))
        } else {
            Value::Other
        }
    }
}

/// Whether a section of parameters is for a node: a full name in which `*` stands for one part and `**` for any number of parts. A
/// slash in front may be missing, as in rclcpp.
fn is_for(section: &str, full_name: &str) -> bool {
    fn parts(name: &str) -> Vec<&str> {
        name.split('/').filter(|part| !part.is_empty()).collect()
    }
    fn fits(section: &[&str], name: &[&str]) -> bool {
        match (section, name) {
            ([], name) => name.is_empty(),
            (["**", rest @ ..], name) => (0..=name.len()).any(|n| fits(rest, &name[n..])),
            ([part, rest @ ..], [own, name @ ..]) => (*part == "*" || part == own) && fits(rest, name),
            _ => false,
        }
    }
    fits(&parts(section), &parts(full_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_prefix_are_read_as_text() {
        let values = [
            ("stream", Value::Bool(true)),
            ("stream.enabled", Value::Bool(true)),
            ("stream.path", Value::Text("/p".to_owned())),
            ("stream.port", Value::Other),
            ("streams", Value::Bool(false)),
        ];
        let parameters = Parameters { values: values.map(|(name, value)| (name.to_owned(), value)).into() };
        let found: Vec<_> = parameters.starting_with("stream.").collect();
        assert_eq!(found, [("stream.enabled", "true"), ("stream.path", "/p"), ("stream.port", "")]);
    }

    #[test]
    fn a_section_is_for_the_nodes_it_names() {
        for (section, node) in [
            ("/**", "/tributary"),
            ("/**", "/fleet/a/tributary"),
            ("/tributary", "/tributary"),
            ("tributary", "/tributary"),
            ("/*/tributary", "/fleet/tributary"),
            ("/fleet/**", "/fleet/a/tributary"),
        ] {
            assert!(is_for(section, node), "{section} {node}");
        }
        for (section, node) in [
            ("/tributary", "/tributary2"),
            ("/a/tributary", "/b/tributary"),
            ("/*", "/fleet/tributary"),
            ("tributary", "/fleet/tributary"),
        ] {
            assert!(!is_for(section, node), "{section} {node}");
        }
    }
}
