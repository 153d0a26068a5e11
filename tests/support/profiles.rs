//! Profiles of the repository, made fit for tests of any kind.

/// A profile without its container images, which lie in registries that no test asks, and without what starts them. They
/// are not in the host's image.
pub(crate) fn without_images(profile: &str) -> String {
    let mut kept = String::new();
    let mut leaves = false;
    for line in profile.lines() {
        if line.starts_with('[') {
            leaves = ["[images]", "[deploy]"].contains(&line);
        }
        if !leaves {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}
