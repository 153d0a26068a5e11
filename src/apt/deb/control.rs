//! A package's control stanza, as far as a package is known by it.

use super::{refused, shown};
use crate::error::Result;

/// What the stanza says, and its text.
#[derive(Debug)]
pub(super) struct Stanza {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) installed_size: Option<u64>,
    pub(super) text: String,
}

/// Reads the one stanza of a `control` file (deb-control(5)).
pub(super) fn stanza(bytes: &[u8]) -> Result<Stanza> {
    let text = std::str::from_utf8(bytes).map_err(|_| refused("its `control` is not UTF-8"))?;
    let mut lines: Vec<&str> = Vec::new();
    let mut ended = false;
    for line in text.lines() {
        if line.contains(|c: char| c != '\t' && c.is_control()) {
            return Err(refused("its `control` has a control character"));
        }
        if line.trim().is_empty() {
            ended = ended || !lines.is_empty();
        } else if ended {
            return Err(refused("its `control` has more than one stanza"));
        } else {
            lines.push(line.trim_end());
        }
    }
    let mut fields: Vec<(String, &str)> = Vec::new();
    for line in &lines {
        if line.starts_with([' ', '\t']) {
            if fields.is_empty() {
                return Err(refused("its `control` begins with a continued line"));
            }
            continue;
        }
        let (key, value) = line
            .split_once(':')
            .filter(|(key, _)| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic() && b != b'#'))
            .ok_or_else(|| {
                refused(format!("its `control` has a line without a field: `{}`", shown(line.as_bytes())))
            })?;
        let key = key.to_ascii_lowercase();
        if fields.iter().any(|(known, _)| *known == key) {
            return Err(refused(format!("its `control` gives `{}` twice", shown(key.as_bytes()))));
        }
        fields.push((key, value.trim()));
    }
    let field = |name: &str, fits: fn(&str) -> bool| {
        let value = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let value = value.ok_or_else(|| refused(format!("its `control` has no `{name}`")))?;
        if fits(value) {
            Ok(value.to_owned())
        } else {
            let value = shown(value.as_bytes());
            Err(refused(format!("its `control` has `{value}` for `{name}`, which is none")))
        }
    };
    let name = field("Package", is_name)?;
    let version = field("Version", is_version)?;
    let architecture = field("Architecture", is_architecture)?;
    // dpkg takes a size that is no number for none.
    let installed_size =
        fields.iter().find(|(key, _)| key == "installed-size").and_then(|(_, value)| value.parse().ok());
    let mut text = lines.join("\n");
    text.push('\n');
    Ok(Stanza { name, version, architecture, installed_size, text })
}

/// The paths of a `conffiles` file, without those that the package only wants removed.
pub(super) fn conffiles(bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| refused("its `conffiles` is not UTF-8"))?;
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        // deb-conffiles(5): an optional flag comes first.
        if line.starts_with("remove-on-upgrade ") {
            continue;
        }
        let outside = !line.starts_with('/') || line.split('/').any(|part| part == "..");
        if outside || line.contains(char::is_control) {
            return Err(refused(format!("its `conffiles` names `{}`", shown(line.as_bytes()))));
        }
        paths.push(line.to_owned());
    }
    Ok(paths)
}

/// Policy 5.6.7; dpkg also takes capitals.
fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// deb-version(7), as far as its letters go; the order is judged elsewhere.
fn is_version(version: &str) -> bool {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    !epoch.is_empty()
        && epoch.bytes().all(|b| b.is_ascii_digit())
        && rest.starts_with(|c: char| c.is_ascii_alphanumeric())
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-~:".contains(&b))
}

fn is_architecture(architecture: &str) -> bool {
    architecture.starts_with(|c: char| c.is_ascii_alphanumeric())
        && architecture.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
