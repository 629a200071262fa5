//! The native text of a capture time.

/// Length of the text: `2026-01-02T03:04:05.000000006Z`.
const LEN: usize = 30;
const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// A capture time as a native package spells it: RFC 3339 in UTC with nine digits of the second, from nanoseconds since
/// 1970. All of `u64` (until the year 2554) has a text.
#[must_use]
pub fn timestamp_text(unix_ns: u64) -> String {
    let (seconds, nanos) = (unix_ns / NANOS, unix_ns % NANOS);
    let (year, month, day) = civil(seconds / DAY);
    let second = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Reads the form of [`timestamp_text`] and no other; peaq's tools write other forms, which stay text.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<u64> {
    let bytes: &[u8; LEN] = text.as_bytes().try_into().ok()?;
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    let unix_ns = seconds.checked_mul(NANOS)?.checked_add(number(20..29)?)?;
    // Separators, the 31st of June and second 61 all show as another text.
    (timestamp_text(unix_ns) == text).then_some(unix_ns)
}

/// Year, month and day of a day since 1970-01-01, by counting 400-year eras from 1 March of year 0 (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`], for years from 1970.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_have_their_text() {
        for (unix_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400 * NANOS + 1, "2000-02-29T00:00:00.000000001Z"),
            (1_767_323_045 * NANOS + 678_000_000, "2026-01-02T03:04:05.678000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(timestamp_text(unix_ns), text);
        }
    }

    #[test]
    fn another_form_is_not_read() {
        for bad in [
            "",
            "2026-01-02T03:04:05.678Z",
            "2026-02-30T03:04:05.000000000Z",
            "2026-01-02T03:04:60.000000000Z",
            "2026-01-02 03:04:05.000000000Z",
            "1969-01-02T03:04:05.000000000Z",
            "9999-01-02T03:04:05.000000000Z",
            "2026-13-02T03:04:05.000000000Z",
            "2026-01-00T03:04:05.000000000Z",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_survives_its_text(unix_ns: u64) {
            prop_assert_eq!(parse_timestamp(&timestamp_text(unix_ns)), Some(unix_ns));
        }
    }
}
