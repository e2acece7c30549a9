//! Sizes, spans of time and dates as people write and read them.
use kfs_core::time::UnixNanos;
use std::time::Duration;

const SIZES: [(&str, u64); 6] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
const SPANS: [(&str, f64); 5] = [
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
];

/// `1234`, `256KiB`, `1.5GiB`; also `256K`, `1.5G`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // range checked above the cast
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let bad = || format!("'{text}' is not a size: write it as 4096, 64KiB, 256MiB or 1.5GiB");
    let unit = SIZES
        .iter()
        .find(|(name, _)| {
            unit.eq_ignore_ascii_case(name)
                || unit.eq_ignore_ascii_case(name.trim_end_matches("iB"))
        })
        .ok_or_else(bad)?
        .1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(bad);
    }
    let bytes = number.parse::<f64>().map_err(|_| bad())? * unit as f64;
    if !(0.0..1e18).contains(&bytes) || unit == 1 {
        return Err(bad());
    }
    Ok(bytes as u64)
}

/// `60s`, `500ms`, `2m`, `1h`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let bad = || format!("'{text}' is not a time: write it as 500ms, 60s, 2m or 1h");
    let unit = SPANS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(bad)?
        .1;
    let seconds = number.parse::<f64>().map_err(|_| bad())? * unit;
    if !(1e-3..1e9).contains(&seconds) {
        return Err(bad());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(text.len()),
    )
}

/// `1.5 GiB`: three digits at most before the unit, one after the point.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let (unit, scale) = SIZES[2..]
        .iter()
        .rfind(|(_, scale)| bytes >= *scale)
        .expect("at least a KiB");
    format!("{:.1} {unit}", bytes as f64 / *scale as f64)
}

/// `45 s`, `12 min`, `3 h`, `2 d`: as the pages of the servers have it.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (number, unit) = match seconds {
        0..90 => (seconds, "s"),
        90..5_400 => ((seconds + 30) / 60, "min"),
        5_400..172_800 => ((seconds + 1_800) / 3_600, "h"),
        _ => ((seconds + 43_200) / 86_400, "d"),
    };
    format!("{number} {unit}")
}

/// `2026-01-31 23:59:59Z`.
pub(crate) fn date(time: UnixNanos) -> String {
    let seconds = time.0 / 1_000_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in eras of 400 years that begin on 1 March, so that the leap day is the last one:
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// `2026-01-31`, `2026-01-31 23:59:59` and with `T` and `Z` as in RFC 3339, all UTC; `@1700000000.5` since 1970.
pub(crate) fn parse_date(text: &str) -> Result<UnixNanos, String> {
    let bad = || {
        format!(
            "'{text}' is no date from 1970 on: write it as 2026-01-31, '2026-01-31 23:59:59' (UTC) or @SECONDS"
        )
    };
    let (seconds, fraction) = match text.split_once('.') {
        Some((seconds, fraction)) => (seconds, fraction.trim_end_matches('Z')),
        None => (text.trim_end_matches('Z'), ""),
    };
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    let seconds = match seconds.strip_prefix('@') {
        Some(seconds) => number(seconds).ok_or_else(bad)?,
        None => of_calendar(seconds).ok_or_else(bad)?,
    };
    let all = seconds.checked_mul(1_000_000_000);
    let all = all.and_then(|all| all.checked_add(nanos)).ok_or_else(bad)?;
    Ok(UnixNanos(all))
}

/// Digits only: no sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Seconds since 1970 of `2026-01-31` or `2026-01-31 23:59:59`.
fn of_calendar(text: &str) -> Option<u64> {
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let fields = |text: &str, by: char| -> Option<[u64; 3]> {
        let fields: Option<Vec<u64>> = text.split(by).map(number).collect();
        fields?.try_into().ok()
    };
    let [year, month, day] = fields(day, '-')?;
    let [hours, minutes, seconds] = fields(time, ':')?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_max = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        _ => return None,
    };
    let fits = (1970..3_000).contains(&year) && (1..=days_max).contains(&day);
    if !fits || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    // The other way round than in `date`: Howard Hinnant, days_from_civil.
    let shifted = year - u64::from(month <= 2);
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("1.5GiB", 3 << 29),
            ("2g", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "x",
            "-1",
            "1.5",
            "1XB",
            "99999999999TiB",
            "nanKiB",
            "1e400KiB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_needs_its_unit_and_cannot_be_nothing() {
        assert_eq!(parse_span("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        for text in ["60", "0s", "-1s", "1y", "", "infs", "NaNs"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_agree_with_the_calendar_at_its_corners() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (1_767_225_599, "2025-12-31 23:59:59Z"),
        ] {
            assert_eq!(date(UnixNanos(seconds * 1_000_000_000)), text);
            let read = parse_date(text).unwrap();
            assert_eq!(read, UnixNanos(seconds * 1_000_000_000), "{text}");
        }
    }

    #[test]
    fn a_date_is_read_as_it_is_written_or_not_at_all() {
        for (text, nanos) in [
            ("2000-02-29", 951_782_400_000_000_000),
            ("2000-02-29T00:00:01.5Z", 951_782_401_500_000_000),
            ("@951782400", 951_782_400_000_000_000),
            ("@1.000000001", 1_000_000_001),
        ] {
            assert_eq!(parse_date(text), Ok(UnixNanos(nanos)), "{text}");
        }
        for text in [
            "",
            "now",
            "1969-12-31",
            "2001-02-29",
            "2100-02-29",
            "2000-13-01",
            "2000-01-01 24:00:00",
            "2000-01-01 00:00",
            "@-1",
            "@1.0000000001",
            "@99999999999999999999",
            "+2000-01-01",
        ] {
            assert!(parse_date(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_shown_in_the_unit_that_fits() {
        for (seconds, text) in [
            (0, "0 s"),
            (89, "89 s"),
            (90, "2 min"),
            (5_399, "90 min"),
            (5_400, "2 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1 << 20), "1.0 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
    }
}
