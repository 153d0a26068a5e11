//! Package URLs (purl-spec, ECMA-427): names that scanners know packages by.

use std::fmt::Write as _;

/// A Package URL in its canonical form. Qualifiers are sorted by key, those without a value are left out.
///
/// `kind` is the purl type (`deb`, `oci`), written as it is; everything else is percent-encoded.
pub(super) fn purl(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let mut text = format!("pkg:{kind}/");
    if let Some(namespace) = namespace {
        text.push_str(&encoded(namespace));
        text.push('/');
    }
    text.push_str(&encoded(name));
    if !version.is_empty() {
        text.push('@');
        text.push_str(&encoded(version));
    }
    let mut qualifiers: Vec<_> = qualifiers.iter().filter(|(_, value)| !value.is_empty()).collect();
    qualifiers.sort_unstable();
    for (at, (key, value)) in qualifiers.into_iter().enumerate() {
        let _ = write!(text, "{}{key}={}", if at == 0 { '?' } else { '&' }, encoded(value));
    }
    text
}

/// Every byte but letters, digits, `.`, `-`, `_`, `~` and the colon, which is never encoded (purl-spec, "Character
/// encoding"), as `%` and two upper-case hexadecimal digits (RFC 3986, 2.1).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Examples of purl-spec: `types/deb-definition.json`, `tests/types/oci-test.json`.
    #[test]
    fn examples_of_the_specification() {
        assert_eq!(
            purl("deb", Some("debian"), "attr", "1:2.4.47-2+b1", &[("arch", "amd64")]),
            "pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64"
        );
        assert_eq!(
            purl(
                "deb",
                Some("debian"),
                "curl",
                "7.50.3-1",
                &[("distro", "jessie"), ("arch", "i386"), ("x", "")]
            ),
            "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie"
        );
        assert_eq!(
            purl(
                "oci",
                None,
                "debian",
                "sha256:244fd47e07d10",
                &[("repository_url", "docker.io/library/debian"), ("arch", "amd64"), ("tag", "latest")]
            ),
            "pkg:oci/debian@sha256:244fd47e07d10?arch=amd64&repository_url=docker.io%2Flibrary%2Fdebian&tag=latest"
        );
    }

    fn decoded(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let pair: Vec<u8> = if byte == b'%' { bytes.by_ref().take(2).collect() } else { Vec::new() };
            match pair.as_slice() {
                [] => decoded.push(byte),
                pair => decoded.extend(hex::decode(pair).unwrap()),
            }
        }
        decoded
    }

    proptest! {
        #[test]
        fn what_is_encoded_can_be_decoded_and_separates_nothing(text in any::<String>()) {
            let encoded = encoded(&text);
            prop_assert_eq!(decoded(&encoded), text.as_bytes());
            prop_assert!(encoded.is_ascii() && !encoded.contains(['/', '@', '?', '=', '&', '#', ' ', '+']));
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte));
            prop_assert_eq!(plain, encoded == text);
        }

        #[test]
        fn parts_can_be_told_apart(
            name in "[ -~é]{1,9}", version in "[ -~é]{1,9}", value in "[ -~é]{1,9}",
        ) {
            let text = purl("deb", Some("debian"), &name, &version, &[("arch", &value)]);
            let rest = text.strip_prefix("pkg:deb/debian/").unwrap();
            let (front, qualifier) = rest.split_once('?').unwrap();
            let (front, back) = front.split_once('@').unwrap();
            prop_assert_eq!(decoded(front), name.as_bytes());
            prop_assert_eq!(decoded(back), version.as_bytes());
            prop_assert_eq!(decoded(qualifier.strip_prefix("arch=").unwrap()), value.as_bytes());
        }
    }
}
