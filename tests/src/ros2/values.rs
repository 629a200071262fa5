//! Whether what arrived is what was published.

use serde_json::Value;

/// Compares values that were published with what arrived, field by field; numbers by their value, to the last bit.
///
/// # Panics
///
/// With the first field that differs.
pub fn assert_same(published: &Value, arrived: &Value) {
    if let Some(difference) = difference("", published, arrived) {
        panic!("{difference}\npublished: {published}\narrived: {arrived}");
    }
}

fn difference(path: &str, published: &Value, arrived: &Value) -> Option<String> {
    match (published, arrived) {
        (Value::Object(a), Value::Object(b)) => {
            let extra = b.keys().find(|key| !a.contains_key(*key)).map(|key| format!("{path}.{key} was not published"));
            extra.or_else(|| {
                a.iter().find_map(|(key, a)| match b.get(key) {
                    Some(b) => difference(&format!("{path}.{key}"), a, b),
                    None => Some(format!("{path}.{key} did not arrive")),
                })
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| difference(&format!("{path}[{at}]"), a, b))
        }
        (Value::Number(a), Value::Number(b)) if a != b => {
            // 7 and 7.0 are one number; -0.0 and 0.0 are not.
            let same = a.is_f64() != b.is_f64() && a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits);
            (!same).then(|| format!("{path} was {a}, and is {b}"))
        }
        (Value::Number(a), Value::Number(b)) => {
            let sign = |n: &serde_json::Number| n.as_f64().is_some_and(f64::is_sign_negative);
            (sign(a) != sign(b)).then(|| format!("{path} was {a}, and is {b}"))
        }
        (a, b) => (a != b).then(|| format!("{path} was {a}, and is {b}")),
    }
}
