//! Control data (deb822(5)): stanzas of `Name: value`, as release files, indices and apt's sources have them.
//!
//! Written by hand because an index is read whole for a tenth of its fields: `deb822-fast` makes a `String` of
//! every one, which takes three times as long as finding the line ends. The tests hold it against that crate.

use std::borrow::Cow;

/// One thing of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'t> {
    /// A field: its name as written, and its value from the first byte that is not blank to the end of its
    /// last line, continuation lines included as they stand.
    Field(&'t [u8], &'t [u8]),
    /// The stanza ends here. It had at least one field.
    End,
}

/// A line that is no control data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Its number, from 1 on.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) why: &'static str,
}

/// Reads the stanzas of a text, one field after the other.
pub(crate) struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    within: bool,
}

impl<'t> Reader<'t> {
    /// A reader at the start of `text`.
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0, within: false }
    }

    /// The next field or end of a stanza; `None` at the end of the text.
    ///
    /// # Errors
    /// A line that is neither a field, a continuation, a comment nor blank.
    pub(crate) fn next(&mut self) -> Result<Option<Item<'t>>, Bad> {
        loop {
            if self.at >= self.text.len() {
                return Ok(std::mem::take(&mut self.within).then_some(Item::End));
            }
            let start = self.at;
            let end = self.line_end(start);
            let line = self.text.get(start..end).unwrap_or_default();
            match line.first() {
                Some(b'#') => self.at = end,
                Some(b' ' | b'\t' | b'\r' | b'\n') if blank(line) => {
                    self.at = end;
                    if std::mem::take(&mut self.within) {
                        return Ok(Some(Item::End));
                    }
                }
                Some(b' ' | b'\t') => return Err(self.bad(start, "a continuation of nothing")),
                _ => {
                    let Some(colon) = memchr::memchr(b':', line) else {
                        return Err(self.bad(start, "no `:` in it"));
                    };
                    let (name, _) = line.split_at(colon);
                    if name.is_empty() || name.iter().any(|b| !b.is_ascii_graphic()) {
                        return Err(self.bad(start, "no name of a field before its `:`"));
                    }
                    let end = self.value_end(end);
                    let value = self.text.get(start + colon + 1..end).unwrap_or_default();
                    self.at = end;
                    self.within = true;
                    return Ok(Some(Item::Field(name, value.trim_ascii())));
                }
            }
        }
    }

    /// Where the line after the one at `start` begins.
    fn line_end(&self, start: usize) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        memchr::memchr(b'\n', rest).map_or(self.text.len(), |at| start + at + 1)
    }

    /// Past the continuation lines that begin at `at`.
    fn value_end(&self, mut at: usize) -> usize {
        while let Some(b' ' | b'\t') = self.text.get(at) {
            let end = self.line_end(at);
            if blank(self.text.get(at..end).unwrap_or_default()) {
                break;
            }
            at = end;
        }
        at
    }

    fn bad(&self, at: usize, why: &'static str) -> Bad {
        let before = self.text.get(..at).unwrap_or_default();
        Bad { line: memchr::memchr_iter(b'\n', before).count() + 1, why }
    }
}

fn blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// A value with its line ends folded into single blanks; text that is not UTF-8 is `None`.
pub(crate) fn folded(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    if memchr::memchr2(b'\n', b'\r', value).is_none() {
        return Some(Cow::Borrowed(text));
    }
    Some(Cow::Owned(text.lines().map(str::trim).collect::<Vec<_>>().join(" ")))
}

/// A stanza as pairs, for small files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// The value of a field, continuation lines as they stand; names are compared without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The words of a field; none where it is absent.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// Whether a field says `yes`.
    pub(crate) fn yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }
}

/// All stanzas of a small text.
///
/// # Errors
/// As [`Reader::next`]; also a field that stands twice in a stanza.
pub(crate) fn stanzas(text: &[u8]) -> Result<Vec<Stanza>, Bad> {
    let mut reader = Reader::new(text);
    let mut all = Vec::new();
    let mut now = Stanza::default();
    loop {
        let start = reader.at;
        match reader.next()? {
            None => return Ok(all),
            Some(Item::End) => all.push(std::mem::take(&mut now)),
            Some(Item::Field(name, value)) => {
                let name = String::from_utf8_lossy(name).into_owned();
                if now.get(&name).is_some() {
                    return Err(reader.bad(start, "a field that is there twice"));
                }
                now.fields.push((name, String::from_utf8_lossy(value).into_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_control_data() {
        let text = b"\n# c\nA: 1\nB:\n two\n .\n  three \n\t\nC:x:y\r\n\r\n\nD: \n";
        let all = stanzas(text).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].get("a"), Some("1"));
        assert_eq!(all[0].get("B"), Some("two\n .\n  three"));
        assert_eq!(all[1].get("C"), Some("x:y"));
        assert_eq!(all[2].get("D"), Some(""));
        for (bad, line) in
            [("A: 1\nnonsense\n", 2), (" x\n", 1), (":x\n", 1), ("A: 1\na: 2\n", 2), ("A b: 1\n", 1)]
        {
            assert_eq!(stanzas(bad.as_bytes()).unwrap_err().line, line, "{bad}");
        }
        assert_eq!(folded(b"a,\n b,\r\n\tc").unwrap(), "a, b, c");
        assert_eq!(folded(b"\xff"), None);
    }

    fn flat(text: &str) -> Vec<&str> {
        text.lines().map(str::trim).collect()
    }

    fn value() -> impl Strategy<Value = String> {
        "[a-z0-9,.:()=-][ -\"$-~]{0,20}[a-z]"
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = stanzas(&text);
        }

        #[test]
        fn never_panics_on_likely_text(text in "([A-C]{0,2}:?[ \t]?[a-c #]{0,3}\r?\n){0,12}") {
            let _ = stanzas(text.as_bytes());
        }

        #[test]
        fn agrees_with_deb822_fast(
            written in proptest::collection::vec(
                proptest::collection::btree_map("[A-Z][a-z-]{0,8}", proptest::collection::vec(value(), 1..4), 1..6),
                0..5,
            ),
        ) {
            let text: String = written.iter().map(|stanza| {
                stanza.iter().map(|(name, lines)| format!("{name}: {}\n", lines.join("\n "))).collect::<String>() + "\n"
            }).collect();
            let theirs: deb822_fast::Deb822 = text.parse().unwrap();
            let ours = stanzas(text.as_bytes()).unwrap();
            prop_assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs.iter()) {
                prop_assert_eq!(ours.fields.len(), theirs.len());
                for ((name, value), (other, same)) in ours.fields.iter().zip(theirs.iter()) {
                    prop_assert_eq!(name, other);
                    prop_assert_eq!(flat(value), flat(same));
                }
            }
        }
    }
}
