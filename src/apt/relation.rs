//! Relations between packages, such as `Depends` (Debian Policy 7.1; deb-control(5)).

use std::{cmp::Ordering, fmt};

use super::version;
use crate::error::{Error, Result};

/// How a version is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }

    /// Whether `version` stands in this relation to `bound`.
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let order = version::compare(version, bound);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

/// One alternative of a relation, as it stands in the field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relation<'f> {
    /// Name of a package, real or virtual.
    pub name: &'f str,
    /// What follows the colon: `any`, or an architecture.
    pub qualifier: Option<&'f str>,
    /// The bound on the version.
    pub version: Option<(Operator, &'f str)>,
    /// The words between brackets: `amd64`, `!i386`, `linux-any`. Empty: every architecture.
    pub architectures: Vec<&'f str>,
    /// The build profiles, one text per pair of angle brackets; they bear on sources alone.
    pub profiles: Vec<&'f str>,
}

impl Relation<'_> {
    /// Whether the brackets let it stand for packages of this architecture.
    pub fn applies(&self, architecture: &str) -> bool {
        if self.architectures.is_empty() {
            return true;
        }
        let named = self.architectures.iter().any(|w| matches(w.trim_start_matches('!'), architecture));
        let negated = self.architectures[0].starts_with('!');
        named != negated
    }

    /// Whether a version is within its bound.
    pub fn admits(&self, version: &str) -> bool {
        self.version.is_none_or(|(operator, bound)| operator.holds(version, bound))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = self.version {
            write!(f, " ({} {version})", operator.sign())?;
        }
        if !self.architectures.is_empty() {
            write!(f, " [{}]", self.architectures.join(" "))?;
        }
        for profile in &self.profiles {
            write!(f, " <{profile}>")?;
        }
        Ok(())
    }
}

/// A field's relations: all of the outer list, any of each inner one. Empty for an empty field; empty items between
/// commas are passed over, as apt does.
pub fn parse(field: &str) -> Result<Vec<Vec<Relation<'_>>>> {
    let mut all = Vec::new();
    for item in field.split(',') {
        let item = item.trim();
        if item.is_empty() {
            continue;
        }
        let alternatives = item.split('|').map(|one| parse_one(one.trim())).collect::<Result<Vec<_>>>();
        all.push(alternatives?);
    }
    Ok(all)
}

/// A field's relations as text again, in one way.
pub fn show(relations: &[Vec<Relation<'_>>]) -> String {
    relations.iter().map(|any| show_any(any)).collect::<Vec<_>>().join(", ")
}

/// Alternatives as text.
pub fn show_any(any: &[Relation<'_>]) -> String {
    any.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ")
}

fn parse_one(text: &str) -> Result<Relation<'_>> {
    let wrong = |what: &str| {
        Err(Error::failed(format!("`{}` is not a relation to a package: {what}", text.escape_debug())))
    };
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return wrong("it has no name");
    }
    let mut relation =
        Relation { name, qualifier: None, version: None, architectures: Vec::new(), profiles: Vec::new() };
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(after.len());
        let (qualifier, after) = after.split_at(end);
        if qualifier.is_empty() {
            return wrong("nothing follows the colon");
        }
        relation.qualifier = Some(qualifier);
        rest = after;
    }
    rest = rest.trim_start();
    if let Some(after) = rest.strip_prefix('(') {
        let Some((bound, after)) = after.split_once(')') else {
            return wrong("a bracket is not closed");
        };
        let Some(bound) = parse_bound(bound.trim()) else {
            return wrong("its version bound is none");
        };
        relation.version = Some(bound);
        rest = after.trim_start();
    }
    if let Some(after) = rest.strip_prefix('[') {
        let Some((words, after)) = after.split_once(']') else {
            return wrong("a bracket is not closed");
        };
        relation.architectures = words.split_whitespace().collect();
        let negated = relation.architectures.iter().filter(|w| w.starts_with('!')).count();
        let good = |w: &str| {
            let w = w.strip_prefix('!').unwrap_or(w);
            !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if relation.architectures.is_empty() || !relation.architectures.iter().all(|w| good(w)) {
            return wrong("its architectures are none");
        }
        if negated != 0 && negated != relation.architectures.len() {
            return wrong("its architectures are negated in part");
        }
        rest = after.trim_start();
    }
    while let Some(after) = rest.strip_prefix('<') {
        let Some((profile, after)) = after.split_once('>') else {
            return wrong("a bracket is not closed");
        };
        let profile = profile.trim();
        if profile.is_empty() || profile.contains(['<', '(', '[', ')', ']']) {
            return wrong("its build profile is none");
        }
        relation.profiles.push(profile);
        rest = after.trim_start();
    }
    if rest.is_empty() { Ok(relation) } else { wrong("something follows it") }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')
}

fn parse_bound(text: &str) -> Option<(Operator, &str)> {
    // The longer signs first. `<` and `>` alone are old and mean "or equal" (Debian Policy 7.1).
    const SIGNS: [(&str, Operator); 7] = [
        ("<<", Operator::Earlier),
        ("<=", Operator::EarlierOrEqual),
        (">=", Operator::LaterOrEqual),
        (">>", Operator::Later),
        ("=", Operator::Equal),
        ("<", Operator::EarlierOrEqual),
        (">", Operator::LaterOrEqual),
    ];
    let (sign, operator) = SIGNS.into_iter().find(|(sign, _)| text.starts_with(sign))?;
    let version = text[sign.len()..].trim();
    let good = |b: u8| b.is_ascii_alphanumeric() || b".+-~:_".contains(&b);
    (!version.is_empty() && version.bytes().all(good)).then_some((operator, version))
}

/// Whether an architecture is what a word names, wildcards included (Debian Policy 11.1). Debian's architectures here
/// are all Linux ones, whose names have no system in front.
fn matches(word: &str, architecture: &str) -> bool {
    match word.split_once('-') {
        _ if word == architecture || word == "any" => true,
        Some(("linux" | "any", cpu)) => cpu == "any" || cpu == architecture,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_form() {
        let rows = [
            ("libc6 (>= 2.36)", "libc6 (>= 2.36)"),
            ("a(<<1),b ( = 2:3-4 )|c:any", "a (<< 1), b (= 2:3-4) | c:any"),
            ("old (< 1), new (> 2)", "old (<= 1), new (>= 2)"),
            (
                "x:amd64 (>> 1~) [amd64 linux-any] <!nocheck> <cross  !x>",
                "x:amd64 (>> 1~) [amd64 linux-any] <!nocheck> <cross  !x>",
            ),
            ("a,\n b | c,\n", "a, b | c"),
            ("", ""),
            (" , ", ""),
        ];
        for (text, wanted) in rows {
            assert_eq!(show(&parse(text).unwrap()), wanted, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "a |",
            "| a",
            "a || b",
            "(>= 1)",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "a (>= 1) b",
            "a:",
            "a b",
            "a [",
            "a []",
            "a [amd64 !i386]",
            "a [!]",
            "a <>",
            "a <x",
            "-a",
            "é",
            "a (>= 1 2)",
            "a (=> 1)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn brackets_restrict_architectures() {
        let rows = [
            ("a", "amd64", true),
            ("a [amd64]", "amd64", true),
            ("a [i386 arm64]", "amd64", false),
            ("a [!i386]", "amd64", true),
            ("a [!amd64 !i386]", "amd64", false),
            ("a [linux-any]", "amd64", true),
            ("a [any-amd64]", "amd64", true),
            ("a [kfreebsd-any]", "amd64", false),
        ];
        for (text, architecture, wanted) in rows {
            assert_eq!(parse(text).unwrap()[0][0].applies(architecture), wanted, "{text}");
        }
    }

    fn relation() -> impl Strategy<Value = String> {
        let version = prop::option::of(("(<<|<=|=|>=|>>|<|>)", " ?[0-9][0-9a-z.+~:-]{0,5}"));
        let words = prop::option::of("!?(amd64|linux-any)");
        (
            "[a-z0-9][a-z0-9+.-]{1,4}",
            prop::option::of("any|amd64"),
            version,
            words,
            prop::option::of("!?nocheck"),
        )
            .prop_map(|(name, qualifier, version, words, profile)| {
                let mut text = name;
                text += &qualifier.map_or_else(String::new, |q| format!(":{q}"));
                text += &version.map_or_else(String::new, |(sign, v)| format!(" ({sign}{v})"));
                text += &words.map_or_else(String::new, |w| format!(" [{w}]"));
                text += &profile.map_or_else(String::new, |p| format!(" <{p}>"));
                text
            })
    }

    proptest! {
        #[test]
        fn round_trips(field in prop::collection::vec(prop::collection::vec(relation(), 1..3), 0..4)) {
            let text = field.iter().map(|any| any.join(" | ")).collect::<Vec<_>>().join(", ");
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), field.len());
            let shown = show(&read);
            prop_assert_eq!(parse(&shown).unwrap(), read);
        }

        #[test]
        fn never_panics(text in ".*", near in "[a(<=>1) |,:\\[\\]!<-]{0,20}") {
            for text in [&text, &near] {
                if let Ok(read) = parse(text) {
                    let shown = show(&read);
                    prop_assert_eq!(parse(&shown).unwrap(), read);
                }
            }
        }
    }
}
