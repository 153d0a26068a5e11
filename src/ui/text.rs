//! Numbers and times as people read them.

/// Bytes with a decimal unit: `9.9 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 image`, `2 images`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A time of RFC 3339 without its fraction of a second; other texts as they are.
pub fn moment(text: &str) -> String {
    let Some((whole, fraction)) = text.split_once('.') else { return text.to_owned() };
    format!("{whole}{}", fraction.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_no_fractions() {
        assert_eq!(moment("2026-11-24T01:02:03.456789012Z"), "2026-11-24T01:02:03Z");
        assert_eq!(moment("2026-11-24T01:02:03.5+01:00"), "2026-11-24T01:02:03+01:00");
        assert_eq!(moment("2026-11-24T01:02:03Z"), "2026-11-24T01:02:03Z");
        assert_eq!(moment(""), "");
    }

    #[test]
    fn bytes_have_one_decimal_and_the_right_unit() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (9_876_543_210, "9.9 GB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(count(1, "image"), "1 image");
        assert_eq!(count(0, "image"), "0 images");
    }
}
