//! Debian's version order, as deb-version(7) and dpkg define it.
//!
//! Our own: the crate at hand allocates for every comparison and orders `1a` below `1a0`, which dpkg holds equal.

use std::cmp::Ordering;

use crate::error::{Error, Result};

/// Largest epoch dpkg takes (`INT_MAX`).
const EPOCH_MAX: u32 = i32::MAX as u32;

/// Orders two versions. Total over any text; what is not a version orders by the same rules.
pub fn compare(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (a, b) = (split(a), split(b));
    compare_digits(a.epoch.as_bytes(), b.epoch.as_bytes())
        .then_with(|| compare_part(a.upstream.as_bytes(), b.upstream.as_bytes()))
        .then_with(|| compare_part(a.revision.as_bytes(), b.revision.as_bytes()))
}

/// Whether dpkg takes this as a version (Debian Policy 5.6.12).
pub fn check(version: &str) -> Result<()> {
    let wrong =
        |what: &str| Err(Error::failed(format!("`{}` is not a version: {what}", version.escape_debug())));
    if version.is_empty() {
        return wrong("it is empty");
    }
    let parts = split(version);
    if version.contains(':') {
        match parts.epoch.parse::<u32>() {
            Ok(epoch) if epoch <= EPOCH_MAX && parts.epoch.bytes().all(|b| b.is_ascii_digit()) => {}
            _ => return wrong("what stands before the colon is not a number"),
        }
    }
    if !parts.upstream.starts_with(|c: char| c.is_ascii_digit()) {
        return wrong("it does not start with a digit");
    }
    if !parts.upstream.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-~:".contains(&b)) {
        return wrong("it has a character that versions cannot have");
    }
    if parts.dashed && parts.revision.is_empty() {
        return wrong("nothing follows the hyphen");
    }
    if !parts.revision.bytes().all(|b| b.is_ascii_alphanumeric() || b".+~".contains(&b)) {
        return wrong("its revision has a character that revisions cannot have");
    }
    Ok(())
}

/// The upstream version: without epoch and Debian revision. `1:550.163.01-4` gives `550.163.01`.
pub fn upstream(version: &str) -> &str {
    split(version).upstream
}

struct Parts<'v> {
    epoch: &'v str,
    upstream: &'v str,
    revision: &'v str,
    dashed: bool,
}

fn split(version: &str) -> Parts<'_> {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    match rest.rsplit_once('-') {
        Some((upstream, revision)) => Parts { epoch, upstream, revision, dashed: true },
        None => Parts { epoch, upstream: rest, revision: "", dashed: false },
    }
}

/// Two numbers of any length, as digits; leading zeros do not count.
fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (trim_zeros(a), trim_zeros(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

/// Weight of a byte outside numbers: `~` before the end of the part, the end before letters, letters before the rest.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) => i32::from(b) + 256,
    }
}

/// dpkg's `verrevcmp`: text and numbers in turn, an absent number being zero.
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let is_text = |part: &[u8]| part.first().is_some_and(|b| !b.is_ascii_digit());
    while !a.is_empty() || !b.is_empty() {
        while is_text(a) || is_text(b) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order.is_ne() {
                return order;
            }
            a = &a[1..];
            b = &b[1..];
        }
        let digits = |part: &[u8]| part.iter().take_while(|b| b.is_ascii_digit()).count();
        let (in_a, in_b) = (digits(a), digits(b));
        let order = compare_digits(&a[..in_a], &b[..in_b]);
        if order.is_ne() {
            return order;
        }
        a = &a[in_a..];
        b = &b[in_b..];
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        // In ascending order, equal ones in one row.
        let rows: &[&[&str]] = &[
            &["0~~"],
            &["0~"],
            &["0", "0-0", "0:0", "00", "0-", "0-00"],
            &["0a", "0a0", "0a00"],
            &["0+"],
            &["1.0~beta1~svn1245-1"],
            &["1.0~beta1-1"],
            &["1.0-1~bpo12+1"],
            &["1.0-1"],
            &["1.0-1+b1"],
            &["1.0-1+deb12u1"],
            &["1.0-1.1"],
            &["1.0-2"],
            &["1.0-10"],
            &["1.0a-1"],
            &["1.0+dfsg-1"],
            &["1.0.1-1"],
            &["1.2-3-1"],
            &["9.99999999999999999999999999999"],
            &["9.100000000000000000000000000000"],
            &["1:0.1"],
            &["2:0"],
            &["10:0"],
        ];
        for (i, low) in rows.iter().enumerate() {
            for (j, high) in rows.iter().enumerate() {
                for a in *low {
                    for b in *high {
                        assert_eq!(compare(a, b), i.cmp(&j), "`{a}` against `{b}`");
                    }
                }
            }
        }
    }

    #[test]
    fn checks_as_dpkg_does() {
        for good in
            ["1", "0", "1.0-1", "1:2.3+dfsg-4~bpo12+1", "1-2-3", "3:1:2-4", "2147483647:1", "1a", "00:1"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a1",
            "-1",
            "1-",
            ":1",
            "a:1",
            "+1:1",
            "-1:1",
            "2147483648:1",
            "1_2",
            "1 2",
            "1:",
            "1-1_",
            "1é",
            "1:-1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstream_is_what_remains() {
        let rows = [
            ("1:550.163.01-4", "550.163.01"),
            ("1.0", "1.0"),
            ("26.1.5+dfsg1-9+b1", "26.1.5+dfsg1"),
            ("1-2-3", "1-2"),
        ];
        for (version, wanted) in rows {
            assert_eq!(upstream(version), wanted);
        }
    }

    proptest! {
        #[test]
        fn is_an_order(a in "[0-3:a~.+-]{0,8}", b in "[0-3:a~.+-]{0,8}", c in "[0-3:a~.+-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn never_panics(a in ".*", b in ".*") {
            let _ = (compare(&a, &b), check(&a), upstream(&b));
        }
    }
}
