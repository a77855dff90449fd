//! Parsing and formatting of sizes and durations.
//!
//! Two tables, and no library, because the accepted syntax would change: `bytesize` accepts more units, rounds down and
//! parses overflow as the largest size; `jiff` accepts no days, no bare numbers and no `.5s`, but signs and sums.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

const SECONDS: [(&str, f64); 8] =
    [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const BYTES: [(&str, u64); 14] = [
    ("", 1),
    ("B", 1),
    ("K", 1000),
    ("KB", 1000),
    ("M", 1000 * 1000),
    ("MB", 1000 * 1000),
    ("G", 1000 * 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("T", 1000 * 1000 * 1000 * 1000),
    ("TB", 1000 * 1000 * 1000 * 1000),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

/// Parses `5ms`, `1.5s`, `2h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit = if unit.is_empty() { Some(1.0) } else { SECONDS.iter().find(|(name, _)| *name == unit).map(|u| u.1) };
    number
        .parse::<f64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| Duration::try_from_secs_f64(number * unit).ok())
        .ok_or_else(|| "a duration such as 5ms, 2s, 1.5m, 1h or 7d; a bare number is seconds".to_owned())
}

/// The same, without zero.
pub fn interval(text: &str) -> Result<Duration, String> {
    duration(text)?.checked_sub(Duration::from_nanos(1)).ok_or_else(|| "a duration above 0".to_owned())?;
    duration(text)
}

/// Parses `4096`, `10MB` (10 000 000) and `1GiB` (1 073 741 824), case-insensitively.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_uppercase();
    let unit = BYTES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = match (number.parse::<u64>(), unit) {
        (Ok(whole), Some(unit)) => whole.checked_mul(unit),
        (Err(_), Some(unit)) => number.parse::<f64>().ok().and_then(|number| scaled(number, unit)),
        (_, None) => None,
    };
    bytes.ok_or_else(|| "a size such as 4096, 10MB (millions) or 1GiB (powers of 1024)".to_owned())
}

/// Parses a number of seconds above 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a number of seconds above 0".to_owned())
}

/// A limit in bytes.
pub fn max_bytes(text: &str) -> Result<u64, String> {
    limit(text, bytes)
}

/// A time limit.
pub fn max_duration(text: &str) -> Result<Duration, String> {
    // The index counts in microseconds.
    limit(text, |text| duration(text).map(|limit| if limit.as_micros() == 0 { Duration::ZERO } else { limit }))
}

/// A numeric limit.
pub fn max_count(text: &str) -> Result<u64, String> {
    limit(text, |text| text.parse().map_err(|_| "a whole number such as 10000".to_owned()))
}

/// Parses a limit; `none` is 0. A value that is rounded to 0 is refused: it would remove the limit.
fn limit<T: Default + PartialEq>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    if text == "none" {
        return Ok(T::default());
    }
    let value = read(text).map_err(|expected| format!("{expected}; 0 or none is no limit"))?;
    if value == T::default() && text.contains(|c: char| ('1'..='9').contains(&c)) {
        return Err("too small to be a limit: at least 1 byte or 1us; 0 or none is no limit".to_owned());
    }
    Ok(value)
}

/// Parses a share, from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share from 0 to 1 such as 0.9".to_owned())
}

/// A fraction of a unit, rounded to whole bytes.
fn scaled(number: f64, unit: u64) -> Option<u64> {
    let bytes = (number * unit as f64).round();
    (number.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `512 B`, `4.1 kB`, `12 MB`.
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        // 999.5 would be shown as 1000.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// `9999`, `12k`, `3.4M`: in four characters.
pub fn show_count(count: u64) -> String {
    if count < 10_000 {
        return count.to_string();
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        // 999.5 would be shown as 1000.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value >= 9.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// `250ms`, `4.2s`, `12m`, `3h`, `8d`: one unit.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0 => "0s".to_owned(),
        ..1e-3 => format!("{:.0}µs", seconds * 1e6),
        ..1.0 => format!("{:.0}ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1}s"),
        ..3600.0 => format!("{:.0}m", seconds / 60.0),
        ..86_400.0 => format!("{:.1}h", seconds / 3600.0),
        _ => format!("{:.1}d", seconds / 86_400.0),
    }
}

/// Time since then; a time in the future is now.
pub fn ago(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

/// Seconds since 1970.
pub fn epoch_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The time as `2026-11-21T06:49:30Z`; a time before 1970 or after 9999 is clamped.
pub fn show_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(Timestamp::MAX.as_second());
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_in_four_characters() {
        for (count, expected) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (9_949_999, "9.9M"),
            (9_960_000, "10M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(show_count(count), expected);
        }
    }

    #[test]
    fn durations_have_units_and_bare_numbers_are_seconds() {
        for (text, milliseconds) in
            [("0.005", 5), ("5ms", 5), ("2s", 2000), ("2", 2000), ("1.5m", 90_000), ("1h", 3_600_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        for wrong in ["", "-1", "soon", "1 parsec", "inf", "nan", "1e3", "1.2.3", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interval_is_above_zero() {
        assert_eq!(interval("1ms"), Ok(Duration::from_millis(1)));
        assert!(interval("0").is_err() && interval("0ms").is_err());
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("10MB", 10_000_000),
            ("1GiB", 1 << 30),
            ("1.5kB", 1500),
            ("2 mib", 2 << 20),
            ("3k", 3000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in ["", "-1", "1XB", "MB", "1e6", "18446744073709551616", "99999999TiB", "1..5K"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_may_be_none_but_do_not_become_none_by_rounding() {
        for none in ["0", "none", "0.0"] {
            assert_eq!((max_bytes(none), max_duration(none)), (Ok(0), Ok(Duration::ZERO)), "{none}");
        }
        assert_eq!((max_bytes("0B"), max_duration("0s")), (Ok(0), Ok(Duration::ZERO)));
        assert_eq!((max_bytes("1.5K"), max_duration("1us")), (Ok(1500), Ok(Duration::from_micros(1))));
        assert_eq!((max_count("7"), max_count("none"), max_count("0")), (Ok(7), Ok(0), Ok(0)));
        for wrong in [max_bytes("0.4"), max_bytes("0.0001K"), max_count("-1"), max_count("1.5"), max_count("NONE")] {
            assert!(wrong.clone().unwrap_err().contains("0 or none is no limit"), "{wrong:?}");
        }
        assert!(max_duration("0.5us").unwrap_err().contains("at least"));
        assert!(max_duration("never").unwrap_err().contains("5ms"));
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!((share("0"), share("0.85"), share("1")), (Ok(0.0), Ok(0.85), Ok(1.0)));
        for wrong in ["", "1.01", "-0.1", "nan", "inf", "90%", "none"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_durations_are_shown_short() {
        for (value, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_900, "99.9 kB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(show_bytes(value), expected);
        }
        for (milliseconds, expected) in
            [(0, "0s"), (250, "250ms"), (4200, "4.2s"), (61_000, "1m"), (7_200_000, "2.0h"), (172_800_000, "2.0d")]
        {
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_243_770, "2026-11-21T06:49:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(show_time(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(show_time(UNIX_EPOCH + Duration::from_millis(1999)), "1970-01-01T00:00:01Z");
        assert_eq!(show_time(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        let late = show_time(UNIX_EPOCH + Duration::from_secs(1 << 40));
        assert!(late.starts_with("9999-12-30T"), "{late}");
    }

    #[test]
    fn a_timeout_is_above_zero() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "soon", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
