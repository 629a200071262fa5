//! Sizes and durations as people write them: `256KiB`, `10s`, `1h30m`.

use std::time::Duration;

/// What to write for a size, for messages.
pub(super) const BYTES_FORM: &str = "a size such as 500B, 256KiB, 64MB or 10GiB";
/// What to write for a duration, for messages.
pub(crate) const DURATION_FORM: &str = "a duration such as 250ms, 10s, 5m, 1h30m or 7d";

const BYTE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const TIB: (&str, u64) = ("TiB", 1 << 40);

const TIME_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// Splits `text` into a leading whole number and the rest.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Bytes from `256KiB`, `64 MB` or a plain number of bytes. Units of 1024 have an `i`; whole numbers only.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (value, unit) = number(text.trim())?;
    let unit = unit.trim_start();
    let (_, factor) = BYTE_UNITS.iter().chain([&TIB]).find(|(name, _)| *name == unit)?;
    value.checked_mul(*factor)
}

/// A duration from one or more numbers with units, longest first as people write them. A number without a unit is refused.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (value, after) = number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == &after[..end])?;
        total = total.checked_add(value.checked_mul(*factor)?)?;
        rest = after[end..].trim_start();
    }
    Some(Duration::from_millis(total))
}

/// `bytes` in the largest unit of 1024 that says it exactly.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    [TIB, BYTE_UNITS[9], BYTE_UNITS[8], BYTE_UNITS[7]]
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// `duration` in whole units, milliseconds at the finest.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, factor) in TIME_UNITS.iter().rev().filter(|(unit, _)| *unit != "w") {
        if rest >= *factor {
            out.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units_of_1000_and_1024() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("500B", 500), ("256KiB", 262_144), ("64 MB", 64_000_000), ("2TiB", 2 << 40)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "KiB", "1.5GiB", "-1", "1kib", "1 Gi", "99999999999TiB", "1KiB2"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(5_400)));
        for bad in ["", "10", "s", "10 seconds", "1.5s", "-1s", "99999999999999w"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes: u64, millis in 0..u64::MAX / 2) {
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
