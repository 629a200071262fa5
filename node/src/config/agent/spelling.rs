//! Keys are written as `snake_case` or as `camelCase`, and one of the agent's with a hyphen. Read is `snake_case`.

use crate::config::{
    error::{ConfigError, excerpt},
    yaml::{Entry, Node, Value},
};

/// The same tree with every key in one spelling. The agent takes one of two spellings and drops the other; here they are an
/// error, since nobody can mean both.
pub(super) fn unified(node: &Node) -> Result<Node, ConfigError> {
    let value = match &node.value {
        Value::Map(entries) => {
            let mut out: Vec<Entry> = Vec::with_capacity(entries.len());
            for Entry { place, key, node } in entries {
                let entry = Entry { place: place.clone(), key: snake_case(key), node: unified(node)? };
                if let Some(first) = out.iter().find(|e| e.key == entry.key) {
                    let problem = format!("is given twice in two spellings; the first is at {}", first.place);
                    return Err(ConfigError::Conflict { place: entry.place, key: excerpt(key), problem });
                }
                out.push(entry);
            }
            Value::Map(out)
        }
        Value::List(items) => Value::List(items.iter().map(unified).collect::<Result<_, _>>()?),
        other => other.clone(),
    };
    Ok(Node { place: node.place.clone(), value })
}

fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for (at, c) in key.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn camel_case_becomes_snake_case_and_what_is_that_stays() {
        for (given, expected) in [
            ("apiBaseUrl", "api_base_url"),
            ("field_rules", "field_rules"),
            ("publicKeyHex", "public_key_hex"),
            ("google-drive", "google_drive"),
            ("s3", "s3"),
            ("", ""),
        ] {
            assert_eq!(snake_case(given), expected);
        }
    }
}
