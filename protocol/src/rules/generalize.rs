//! The `generalize` strategy: buckets for numbers, outlines for strings.

use super::RuleError;
use crate::json::{IllFormed, Object, Value};

/// What stands for a value that has nothing to keep.
const HIDDEN: &str = "***";

/// The generalized form of a value: numbers become the bucket of their first digit (`52.52` is `50-60`), strings of five and
/// more code points keep the first two and the last, arrays and objects are entered, anything else is `***`.
///
/// # Errors
/// [`RuleError::Bucket`] for a number whose bucket ends beyond the range of floats.
pub fn generalize(value: &Value) -> Result<Value, RuleError> {
    Ok(match value {
        Value::Null | Value::Bool(_) => HIDDEN.into(),
        Value::Number(number) => {
            if !number.is_integer() && !number.to_f64().is_finite() {
                return Ok(HIDDEN.into());
            }
            bucket(number.to_f64())?.into()
        }
        Value::String(text) => outline(text),
        Value::IllFormed(text) => outline_units(text.units()),
        Value::Array(items) => Value::Array(items.iter().map(generalize).collect::<Result<_, _>>()?),
        Value::Object(object) => {
            let mut out = Object::with_capacity(object.len());
            for (key, inner) in object.iter() {
                out.push_unique(key.to_owned(), generalize(inner)?);
            }
            Value::Object(out)
        }
    })
}

fn outline(text: &str) -> Value {
    let mut characters = text.chars();
    let first_two: String = characters.by_ref().take(2).collect();
    match characters.clone().count() {
        _ if text.chars().nth(1).is_none() => "*".into(),
        0..=2 => HIDDEN.into(),
        _ => format!("{first_two}{HIDDEN}{}", characters.next_back().unwrap_or_default()).into(),
    }
}

/// As [`outline`], where a lone surrogate counts as a code point of its own, as in Python.
fn outline_units(units: &[u16]) -> Value {
    let points: Vec<_> = char::decode_utf16(units.iter().copied()).collect();
    match points.as_slice() {
        [] | [_] => "*".into(),
        [first, second, .., last] if points.len() >= 5 => {
            let mut out = Vec::with_capacity(9);
            let mut push = |point: &Result<char, std::char::DecodeUtf16Error>| match point {
                Ok(character) => out.extend_from_slice(character.encode_utf16(&mut [0; 2])),
                Err(lone) => out.push(lone.unpaired_surrogate()),
            };
            push(first);
            push(second);
            HIDDEN.chars().for_each(|star| push(&Ok(star)));
            push(last);
            IllFormed::value_of(&out)
        }
        _ => HIDDEN.into(),
    }
}

/// The bucket `lower-upper` of a number, in the steps of its decimal exponent.
///
/// From exponent 0 up the bounds are exact integers, printed as the nearest float in full decimal; below, all is float
/// arithmetic with C's `pow`, and its artefacts (`0.3` is in `0.2-0.3`) are part of the format.
fn bucket(v: f64) -> Result<String, RuleError> {
    if v == 0.0 {
        return Ok("0-1".into());
    }
    if !v.is_finite() {
        return Err(RuleError::Bucket);
    }
    let exponent = v.abs().log10().floor();
    if exponent >= 0.0 {
        let step = decimal(1.0, exponent)?;
        let multiple = (v / step).floor();
        return Ok(format!("{:.0}-{:.0}", decimal(multiple, exponent)?, decimal(multiple + 1.0, exponent)?));
    }
    let step = 10f64.powf(exponent);
    let lower = (v / step).floor() * step;
    Ok(format!("{}-{}", ten_decimals(lower), ten_decimals(lower + step)))
}

/// The float nearest to `multiple` x 10^`exponent`; both are small whole numbers.
fn decimal(multiple: f64, exponent: f64) -> Result<f64, RuleError> {
    // A zero multiple comes from -1 + 1 and has no sign, as in integer arithmetic.
    let multiple = if multiple == 0.0 { 0.0 } else { multiple };
    let nearest: f64 = format!("{multiple:.0}e{exponent:.0}").parse().map_err(|_| RuleError::Bucket)?;
    if nearest.is_finite() { Ok(nearest) } else { Err(RuleError::Bucket) }
}

fn ten_decimals(n: f64) -> String {
    let text = format!("{n:.10}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "" => "0".into(),
        trimmed => trimmed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_the_bucket_of_their_first_digit() {
        for (v, expected) in [
            (52.52, "50-60"),
            (-52.52, "-60--50"),
            (-1.0, "-1-0"),
            (10.0, "10-20"),
            (9.0, "9-10"),
            (-0.0, "0-1"),
            (0.5, "0.5-0.6"),
            (0.0012, "0.001-0.002"),
            (1e-11, "0-0"),
            (-1e-11, "-0-0"),
            (0.3, "0.2-0.3"),
            (0.0003, "0.0002-0.0003"),
            (1.5e23, "99999999999999991611392-199999999999999983222784"),
        ] {
            assert_eq!(bucket(v).as_deref(), Ok(expected), "{v}");
        }
        assert!(bucket(9e307).is_ok());
        assert_eq!(bucket(1e308), Err(RuleError::Bucket), "its upper bound is beyond the floats");
        assert_eq!(bucket(f64::INFINITY), Err(RuleError::Bucket));
    }

    #[test]
    fn strings_keep_an_outline_counted_in_code_points() {
        for (text, expected) in [
            ("", "*"),
            ("a", "*"),
            ("ab", "***"),
            ("abcd", "***"),
            ("abcde", "ab***e"),
            ("\u{1f600}\u{1f601}xyz\u{1f602}", "\u{1f600}\u{1f601}***\u{1f602}"),
        ] {
            assert_eq!(outline(text), Value::from(expected), "{text}");
        }
        assert_eq!(outline_units(&[0xd800]), Value::from("*"));
        assert_eq!(outline_units(&[97, 98, 0xd800, 99, 100]), Value::from("ab***d"));
        assert!(matches!(outline_units(&[0xd800, 98, 99, 99, 100]), Value::IllFormed(_)));
    }
}
