//! Go's durations, exact to the nanosecond.

use std::time::Duration;

/// Go's form of a duration: numbers with units, such as `1h2m3.5s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let unit: u128 = match &behind[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(nanoseconds(number, unit)?)?;
        rest = &behind[end..];
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, u32::try_from(total % 1_000_000_000).ok()?))
}

/// A decimal number of a unit; what is less than a nanosecond is cut off.
fn nanoseconds(number: &str, unit: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    // More digits than these say nothing about nanoseconds, not even of hours.
    let part = &part[..part.len().min(15)];
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(part)? * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0s", 0),
            (".5s", 500),
            ("1.s", 1_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "10", "-1s", "1d", "1s1", "1..5s", ".s", "9999999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
