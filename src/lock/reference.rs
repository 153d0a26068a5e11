//! Image references as the lock writes them.

use crate::{
    error::{Error, Result},
    reference::Reference,
};

/// Prefix of a reference to an image layout on disk: `oci:DIR[:TAG]`.
const LAYOUT: &str = "oci:";

/// A reference in its one normal form: registry, repository, and tag or digest always written out
/// (`ubuntu` is `docker.io/library/ubuntu:latest`). `oci:DIR[:TAG]` stays as written.
///
/// # Errors
/// What is not a reference.
pub fn normalise(reference: &str) -> Result<String> {
    if let Some((directory, tag)) = layout(reference) {
        if directory.is_empty() || directory.contains('\0') || tag.is_some_and(str::is_empty) {
            return Err(Error::usage(format!("`{}` names no directory", reference.escape_debug()))
                .hint("write `oci:DIR` or `oci:DIR:TAG`"));
        }
        return Ok(reference.to_owned());
    }
    Ok(registry_reference(reference)?.to_string())
}

/// Whether a reference means something else tomorrow: the tag `latest`, or none, and no digest.
/// An image layout is never floating: it is a directory of the operator's own.
///
/// # Errors
/// What is not a reference.
pub fn is_floating(reference: &str) -> Result<bool> {
    if layout(reference).is_some() {
        return Ok(false);
    }
    let parsed = registry_reference(reference)?;
    Ok(parsed.digest().is_none() && parsed.tag().is_none_or(|tag| tag == "latest"))
}

/// Whether a reference names content by digest, so that it can never move.
pub fn is_pinned(reference: &str) -> bool {
    layout(reference).is_none() && registry_reference(reference).is_ok_and(|parsed| parsed.digest().is_some())
}

/// Directory and tag of `oci:DIR[:TAG]`; `None` for a reference to a registry.
pub fn layout(reference: &str) -> Option<(&str, Option<&str>)> {
    let rest = reference.strip_prefix(LAYOUT)?;
    // As skopeo splits it: at the first colon, so that a directory cannot hold one.
    Some(match rest.split_once(':') {
        Some((directory, tag)) => (directory, Some(tag)),
        None => (rest, None),
    })
}

/// `registry/repository` of a normalised reference to a registry, without tag and digest; `oci:DIR` of a layout.
pub(super) fn without_tag(reference: &str) -> String {
    if let Some((directory, _)) = layout(reference) {
        return format!("{LAYOUT}{directory}");
    }
    match registry_reference(reference) {
        Ok(parsed) => format!("{}/{}", parsed.registry(), parsed.repository()),
        Err(_) => reference.to_owned(),
    }
}

fn registry_reference(reference: &str) -> Result<Reference> {
    reference.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_one_form() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (written, normal, floating, pinned) in [
            ("ubuntu", "docker.io/library/ubuntu:latest", true, false),
            ("vllm/vllm-openai:v0.11.0", "docker.io/vllm/vllm-openai:v0.11.0", false, false),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1", false, false),
            ("index.docker.io/library/x:latest", "docker.io/library/x:latest", true, false),
            (&format!("r.example/x@{digest}"), &format!("r.example/x@{digest}"), false, true),
            ("oci:../layout:v1", "oci:../layout:v1", false, false),
            ("oci:dir", "oci:dir", false, false),
        ] {
            let once = normalise(written).unwrap();
            assert_eq!(once, normal);
            assert_eq!(normalise(&once).unwrap(), normal, "normal form is stable");
            assert_eq!(is_floating(written).unwrap(), floating, "{written}");
            assert_eq!(is_pinned(written), pinned, "{written}");
        }
        for bad in ["", "UPPER/Case", "a b", "x:", "oci:", "oci:a:", "x@sha256:1", "http://x/y:1"] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn layouts_split_at_the_first_colon() {
        assert_eq!(layout("oci:a/b:v1"), Some(("a/b", Some("v1"))));
        assert_eq!(layout("oci:a:b/c"), Some(("a", Some("b/c"))));
        assert_eq!(layout("docker.io/a:b"), None);
    }
}
