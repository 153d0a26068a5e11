//! What may stand as a name, a version or a path in a lock: what comes from an archive is held against it when it is
//! locked, and again when the lock is read.

/// A package's name (Debian Policy 5.6.7).
pub(super) fn is_package(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

/// A version (Debian Policy 5.6.12): an epoch, an upstream version that starts with a digit, a revision.
pub(super) fn is_version(version: &str) -> bool {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    let made_of =
        |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    epoch.parse::<u32>().is_ok_and(|number| i32::try_from(number).is_ok())
        && epoch.bytes().all(|b| b.is_ascii_digit())
        && upstream.starts_with(|c: char| c.is_ascii_digit())
        && made_of(upstream, b".+-~:")
        && !revision.is_empty()
        && made_of(revision, b".+~")
}

/// An architecture as Debian names it, or `all`.
pub(super) fn is_architecture(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A path below an archive's base address.
pub(super) fn is_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.chars().all(|c| !c.is_control() && c != '\\')
}

/// The name of a repository, as profiles have them.
pub(super) fn is_repository(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The name of a suite, or the path of a flat repository.
pub(super) fn is_suite(name: &str) -> bool {
    let inner = name.strip_suffix('/').unwrap_or(name);
    name == "/" || name == "./" || is_path(inner)
}

/// The upstream version within a Debian version: `1:550.163.01-4` gives `550.163.01`.
pub(super) fn upstream(version: &str) -> &str {
    let rest = version.split_once(':').map_or(version, |(_, rest)| rest);
    rest.rsplit_once('-').map_or(rest, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_and_paths() {
        for good in ["docker.io", "libc6", "g++", "0ad"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "a", "A-b", "-a", "a b", "a:amd64", "a/b", "ä-b"] {
            assert!(!is_package(bad), "{bad}");
        }
        for good in ["1", "1:2.0-3~a", "26.1.5+dfsg1-9+deb13u1+b1", "0-1", "1:1:2-3"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "a", ":1", "+1:1", "1-", "1 ", "1_2", "9999999999:1", "1-2_3", "-1"] {
            assert!(!is_version(bad), "{bad}");
        }
        for good in ["pool/main/d/docker.io/docker.io_26_amd64.deb", "a.deb", "...deb/x"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "/a", "a//b", "./a", "a/..", "..", "a\\b", "a\nb", "a/"] {
            assert!(!is_path(bad), "{bad}");
        }
        for good in ["trixie", "/", "./", "a/b/", "stable/updates"] {
            assert!(is_suite(good), "{good}");
        }
        for bad in ["", "//", "../", "/a", "a/../b/"] {
            assert!(!is_suite(bad), "{bad}");
        }
        assert!(is_architecture("all") && is_architecture("kfreebsd-i386") && !is_architecture("../x"));
        assert!(is_repository("debian-security") && !is_repository("a/b") && !is_repository(""));
        assert_eq!(upstream("1:550.163.01-4~bpo13+1"), "550.163.01");
        assert_eq!(upstream("6.1-2-3"), "6.1-2");
    }
}
