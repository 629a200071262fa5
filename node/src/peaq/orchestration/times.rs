//! Times as the API spells them: RFC 3339, UTC, whole seconds.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A time in ms since 1970 as text.
pub(super) fn text(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
    // A clock beyond the year 9999 has no such form.
    time.unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

/// A text as ms since 1970; `None` when it is no time, or one before 1970.
pub(super) fn parse(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(text(1_767_225_600_999), "2026-01-01T00:00:00Z");
        assert_eq!(parse("2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
        // As Python writes it.
        assert_eq!(parse("2026-01-01T01:00:00.123456+01:00"), Some(1_767_225_600_123));
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59Z");
        for bad in ["", "soon", "1969-12-31T23:59:59Z", "2026-01-01"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
