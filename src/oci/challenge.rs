//! `WWW-Authenticate`: how a registry wants to be logged in to.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 7617.
    Basic,
    /// distribution.github.io/distribution/spec/auth/token.
    Bearer { realm: String, service: Option<String> },
}

/// The scheme a 401 asks for: a token where there is a choice. `None` where it names none we know.
pub(super) fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in http_auth::ChallengeParser::new(text).map_while(Result::ok) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameter("realm") {
                    return Some(Scheme::Bearer { realm, service: parameter("service") });
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Scheme::Basic);
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Option<Scheme> {
        scheme(&values.iter().map(|v| (WWW_AUTHENTICATE, HeaderValue::from_str(v).unwrap())).collect())
    }

    #[test]
    fn what_registries_send() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Scheme::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        assert_eq!(of(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(of(&[r#"bearer realm="https://h/t""#]), bearer("https://h/t", None));
        assert_eq!(of(&[r#"Basic realm="x""#]), Some(Scheme::Basic));
        assert_eq!(of(&[r#"Basic realm="x""#, r#"Bearer realm="https://h/t""#]), bearer("https://h/t", None));
        for none in [&[][..], &["Negotiate"], &[r#"Bearer service="x""#], &["\"\"\","]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(text in "[ -~]{0,80}") {
            let _ = of(&[&text]);
            let _ = of(&[&format!("Bearer {text}")]);
        }
    }
}
