//! Numbers, times and lines as people read them.

use textwrap::{Options, WordSeparator, WordSplitter};

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

/// A text of others with each character written out that would move the cursor, hide text, or show it in another order:
/// control characters but for the line's end, and those of Unicode that set a direction (UAX 9) or have no width.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            '\t' => out.push(' '),
            '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => out.extend(c.escape_unicode()),
            _ if c.is_control() => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// A line broken between words so that it fits `width` columns. The first begins with `first`, each further with `indent`;
/// styles count for nothing. What stands between backticks stays whole, as does a word that is too long, to be copied.
pub fn wrapped(line: &str, width: usize, first: &str, indent: &str) -> Vec<String> {
    const HELD: char = '\u{a0}';
    if line.trim().is_empty() {
        return vec![first.to_owned()];
    }
    let mut held = String::with_capacity(line.len());
    // One that is not closed holds nothing together.
    let closed = line.matches('`').count() / 2 * 2;
    for (at, piece) in line.split('`').enumerate() {
        if at > 0 {
            held.push('`');
        }
        if at % 2 == 1 && at < closed {
            held.extend(piece.chars().map(|c| if c == ' ' { HELD } else { c }));
        } else {
            held.push_str(piece);
        }
    }
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(indent)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(&held, options).into_iter().map(|piece| piece.replace(HELD, " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_hide_or_turn_text_is_written_out() {
        assert_eq!(visible("a\u{1b}[2Jb\r\u{202e}c\td\ne\u{9b}"), "a\\u{1b}[2Jb\\u{d}\\u{202e}c d\ne\\u{9b}");
        for fine in ["größe", "日本語", "عربي", "👩‍🔧", "`a b`"] {
            assert_eq!(visible(fine), fine);
        }
    }

    #[test]
    fn lines_break_between_words_and_commands_stay_whole() {
        let line = "write it again: `bedplate lock p --update-all` and a/path/that/is/longer/than/the/width";
        let lines = wrapped(line, 24, "\u{1b}[36mnext:\u{1b}[0m ", "  ");
        assert_eq!(
            lines,
            [
                "\u{1b}[36mnext:\u{1b}[0m write it again:",
                "  `bedplate lock p --update-all`",
                "  and",
                "  a/path/that/is/longer/than/the/width"
            ]
        );
        assert_eq!(wrapped("one ` left open", 8, "", " "), ["one `", " left", " open"]);
        assert_eq!(wrapped("", 8, "x", " "), ["x"]);
    }

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
