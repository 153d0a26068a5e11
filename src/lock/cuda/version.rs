//! Dotted versions, and what is known of a driver from its version or branch.

use std::{cmp::Ordering, fmt};

/// A dotted version, compared number by number; what is missing is zero.
#[derive(Debug, Clone)]
pub(super) struct Version(Vec<u32>);

impl Version {
    /// Reads `550.163.01`. `None` for anything but digits and single dots.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        text.split('.')
            .map(|part| {
                let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| part.parse().ok()).flatten()
            })
            .collect::<Option<Vec<u32>>>()
            .map(Self)
    }

    /// A version of these numbers.
    pub(super) fn of(parts: &[u32]) -> Self {
        Self(parts.to_vec())
    }

    fn part(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The first number.
    pub(super) fn major(&self) -> u32 {
        self.part(0)
    }

    /// The first two numbers.
    pub(super) fn major_minor(&self) -> (u32, u32) {
        (self.part(0), self.part(1))
    }

    /// Whether only one number was given: of a driver, its branch.
    fn is_branch(&self) -> bool {
        self.0.len() == 1
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        (0..length).map(|i| self.part(i).cmp(&other.part(i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// How two values are compared in a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// What is known of a version: it lies between `low` and `high`.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// Lowest possible; `None`: no lower bound is known.
    pub(super) low: Option<Version>,
    /// Highest possible; `None`: no upper bound is known.
    pub(super) high: Option<Version>,
    /// Whether `high` itself is impossible.
    pub(super) open: bool,
}

impl Range {
    /// Exactly this version.
    pub(super) fn exactly(version: Version) -> Self {
        Self { low: Some(version.clone()), high: Some(version), open: false }
    }

    /// Evaluates `self OPERATOR value`; `None` where the range holds versions on both sides.
    pub(super) fn compare(&self, operator: Operator, value: &Version) -> Option<bool> {
        let at_least = || self.at_least(value);
        let above = || {
            if self.low.as_ref().is_some_and(|low| low > value) {
                Some(true)
            } else if self.high.as_ref().is_some_and(|high| high <= value) {
                Some(false)
            } else {
                None
            }
        };
        match operator {
            Operator::GreaterEqual => at_least(),
            Operator::Less => at_least().map(|b| !b),
            Operator::Greater => above(),
            Operator::LessEqual => above().map(|b| !b),
            Operator::Equal => self.equals(value),
            Operator::NotEqual => self.equals(value).map(|b| !b),
        }
    }

    fn at_least(&self, value: &Version) -> Option<bool> {
        if self.low.as_ref().is_some_and(|low| low >= value) {
            return Some(true);
        }
        match &self.high {
            Some(high) if high < value || (self.open && high == value) => Some(false),
            _ => None,
        }
    }

    fn equals(&self, value: &Version) -> Option<bool> {
        if self.at_least(value) == Some(false) || self.low.as_ref().is_some_and(|low| low > value) {
            return Some(false);
        }
        match (&self.low, &self.high) {
            (Some(low), Some(high)) if low == high && low == value => Some(true),
            _ => None,
        }
    }
}

/// A driver: an exact version, or a branch, which is any version from `BRANCH.0` up to the next branch.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    /// As written.
    pub(super) text: String,
    /// What is known of its version.
    pub(super) range: Range,
    /// Whether only the branch is known.
    pub(super) branch: bool,
}

impl Driver {
    /// Reads `550.163.01` or `550`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let version = Version::parse(text)?;
        let branch = version.is_branch();
        let range = if branch {
            let next = Version::of(&[version.major().checked_add(1)?]);
            Range { low: Some(version), high: Some(next), open: true }
        } else {
            Range::exactly(version)
        };
        Some(Self { text: text.to_owned(), range, branch })
    }

    /// `driver 550.163.01` or `driver branch 550`.
    pub(super) fn name(&self) -> String {
        if self.branch { format!("driver branch {}", self.text) } else { format!("driver {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_compare_number_by_number() {
        for (low, high) in [
            ("550.54.14", "550.163.01"),
            ("535", "535.0.1"),
            ("9.9", "10"),
            ("525.60.13", "570.26"),
            ("580.0", "580.65.06"),
        ] {
            assert!(version(low) < version(high), "{low} {high}");
        }
        assert_eq!(version("535"), version("535.0.0"));
        assert_eq!(version("550.163.01"), version("550.163.1"));
        for bad in ["", ".", "1.", "v1", "1..2", "-1", "+1", "99999999999", "1.2-rc"] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_branch_is_all_its_versions() {
        use Operator::*;
        let driver = Driver::parse("550").unwrap();
        for (operator, value, expected) in [
            (GreaterEqual, "535", Some(true)),
            (GreaterEqual, "550", Some(true)),
            (GreaterEqual, "550.54.14", None),
            (GreaterEqual, "551", Some(false)),
            (Less, "551", Some(true)),
            (Less, "550", Some(false)),
            (Less, "550.1", None),
            (Greater, "549.9", Some(true)),
            (Greater, "550.1", None),
            (LessEqual, "551", Some(true)),
            (Equal, "550.54.14", None),
            (Equal, "560.1", Some(false)),
            (NotEqual, "560.1", Some(true)),
        ] {
            assert_eq!(driver.range.compare(operator, &version(value)), expected, "550 {operator:?} {value}");
        }
        let exact = Driver::parse("550.163.01").unwrap();
        for (operator, value, expected) in [
            (GreaterEqual, "550.163.01", true),
            (Greater, "550.163.01", false),
            (LessEqual, "550.163.1", true),
            (Less, "551", true),
            (Equal, "550.163.1", true),
            (NotEqual, "550.163.1", false),
        ] {
            assert_eq!(
                exact.range.compare(operator, &version(value)),
                Some(expected),
                "{operator:?} {value}"
            );
        }
    }
}
