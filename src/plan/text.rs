//! A line diff for people: what a configuration file will change.

/// Lines of context around a change, as diff(1) `-u` has them.
const CONTEXT: usize = 3;
/// Beyond this many cells of the comparison table a file is called changed and not shown.
const LIMIT: usize = 4_000_000;

/// The lines of a unified diff without its header: ` ` kept, `-` taken away, `+` added, `@@` between
/// hunks. Empty for equal texts; one line of words for content that is not text.
pub fn diff(old: &[u8], new: &[u8]) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (Ok(before), Ok(after)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return vec![format!("(not text: {} bytes become {})", old.len(), new.len())];
    };
    let (before, after): (Vec<&str>, Vec<&str>) = (lines(before), lines(after));
    let head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let tail =
        before[head..].iter().rev().zip(after[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&before[head..before.len() - tail], &after[head..after.len() - tail]);
    if (a.len() + 1) * (b.len() + 1) > LIMIT {
        return vec![format!("({} lines become {})", before.len(), after.len())];
    }
    let mut all: Vec<(char, &str)> = before[..head].iter().map(|line| (' ', *line)).collect();
    all.extend(changed(a, b));
    all.extend(before[before.len() - tail..].iter().map(|line| (' ', *line)));
    hunks(&all)
}

/// Lines with a mark where the last one is not ended.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Longest common subsequence by table.
fn changed<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i * width + j] = if a[i] == b[j] {
                table[(i + 1) * width + j + 1] + 1
            } else {
                table[(i + 1) * width + j].max(table[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push((' ', a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || table[(i + 1) * width + j] >= table[i * width + j + 1]) {
            out.push(('-', a[i]));
            i += 1;
        } else {
            out.push(('+', b[j]));
            j += 1;
        }
    }
    out
}

fn hunks(all: &[(char, &str)]) -> Vec<String> {
    let mut out = Vec::new();
    let mut shown_to = 0;
    for (index, _) in all.iter().enumerate().filter(|(_, (mark, _))| *mark != ' ') {
        let from = index.saturating_sub(CONTEXT).max(shown_to);
        let to = (index + CONTEXT + 1).min(all.len());
        if from > shown_to && !out.is_empty() {
            out.push("@@".to_owned());
        }
        for (mark, line) in all.get(from..to).unwrap_or_default() {
            let ended = line.strip_suffix('\n');
            let shown = ended.unwrap_or(line);
            // Control characters could drive the terminal.
            let shown: String =
                shown.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
            let note = if ended.is_some() { "" } else { " (no line end)" };
            out.push(format!("{mark}{shown}{note}"));
        }
        shown_to = shown_to.max(to);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_changes_with_context() {
        for (old, new, wanted) in [
            ("a\nb\n", "a\nb\n", vec![]),
            ("a\nb\nc\n", "a\nx\nc\n", vec![" a", "-b", "+x", " c"]),
            ("", "a\n", vec!["+a"]),
            ("a", "a\n", vec!["-a (no line end)", "+a"]),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n",
                "0\n2\n3\n4\n5\n6\n7\n8\n9\n11\n",
                vec!["-1", "+0", " 2", " 3", " 4", "@@", " 7", " 8", " 9", "-10", "+11"],
            ),
        ] {
            assert_eq!(diff(old.as_bytes(), new.as_bytes()), wanted, "{old:?} -> {new:?}");
        }
        assert_eq!(diff(b"\xff", b"a"), ["(not text: 1 bytes become 1)"]);
    }

    proptest::proptest! {
        #[test]
        fn a_diff_holds_both_texts(old in "([ab]\n){0,3}", new in "([ab]\n){0,3}") {
            let shown = diff(old.as_bytes(), new.as_bytes());
            let pick = |mark| -> String {
                let lines = shown.iter().filter(|line| line.starts_with([' ', mark]));
                lines.flat_map(|line| [&line[1..], "\n"]).collect()
            };
            if old != new {
                proptest::prop_assert_eq!(pick('-'), old);
                proptest::prop_assert_eq!(pick('+'), new);
            }
        }
    }
}
