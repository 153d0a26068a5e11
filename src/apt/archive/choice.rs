//! Which indices of a release file are read, and in which form.

use super::{Archive, unpack::Form};
use crate::{
    apt::release::{Listed, Release},
    error::{Error, Result},
};

/// An index to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its path from the release file on, without the end of a compressed form: `main/binary-amd64/Packages`.
    pub(super) path: String,
    /// The forms that the release file lists, the smallest first.
    pub(super) forms: Vec<(Form, Listed)>,
    /// Its size when unpacked, where the release file says it.
    pub(super) size: Option<u64>,
}

/// The indices of a suite, by component, then architecture, then those for all architectures.
///
/// # Errors
/// A component, the host's own architecture, or an index is missing, or has no SHA-256.
pub(super) fn choose(
    archive: &Archive,
    suite: &str,
    release: &Release,
    architectures: &[String],
) -> Result<Vec<Choice>> {
    let of = format!("the release file of `{}` `{suite}`", archive.name);
    if suite.ends_with('/') {
        return Ok(vec![
            one(release, "Packages".to_owned()).ok_or_else(|| missing(&of, release, "Packages"))?,
        ]);
    }
    if archive.components.is_empty() {
        return Err(Error::usage(format!("the archive `{}` is given no components", archive.name))
            .hint("add `components = [\"main\"]`, or end the suite with `/` for a flat repository"));
    }
    let mut choices = Vec::new();
    for component in &archive.components {
        if !release.has_component(component) {
            return Err(Error::failed(format!(
                "{of} has no component `{component}`: it has {}",
                list(&release.components)
            ))
            .hint("name the components that it has, or check the suite's name"));
        }
        for (at, architecture) in architectures.iter().enumerate() {
            let path = format!("{component}/binary-{architecture}/Packages");
            let own = at == 0;
            if own && !release.has_architecture(architecture) {
                return Err(Error::failed(format!(
                    "{of} has no packages for `{architecture}`: it has {}",
                    list(&release.architectures)
                ))
                .hint("use an archive that is made for this architecture"));
            }
            match one(release, path.clone()) {
                Some(choice) => choices.push(choice),
                None if own => return Err(missing(&of, release, &path)),
                None => {}
            }
        }
        if release.separate_all {
            // Archives say that they have it where they do not.
            choices.extend(one(release, format!("{component}/binary-all/Packages")));
        }
    }
    Ok(choices)
}

fn one(release: &Release, path: String) -> Option<Choice> {
    let listed = |form: Form| release.indices.get(&format!("{path}{}", form.end())).copied();
    let forms: Vec<(Form, Listed)> =
        Form::ALL.into_iter().filter_map(|form| Some((form, listed(form)?))).collect();
    let size = listed(Form::Plain).map(|plain| plain.size);
    (!forms.is_empty()).then_some(Choice { path, forms, size })
}

fn missing(of: &str, release: &Release, path: &str) -> Error {
    let weak = Form::ALL.iter().any(|form| release.weak.contains(&format!("{path}{}", form.end())));
    if weak {
        return Error::failed(format!(
            "{of} gives only weak hashes (MD5, SHA-1) for its index `{path}`, and no SHA-256"
        ))
        .hint(
            "weak hashes can be forged: ask the archive's owner to publish SHA-256, or use another mirror",
        );
    }
    if release.indices.is_empty() {
        return Error::failed(format!("{of} lists no index with its SHA-256"))
            .hint("ask the archive's owner to publish SHA-256, or use another mirror");
    }
    Error::failed(format!("{of} lists no index `{path}`"))
        .hint("check suite, components and architecture, or use another mirror")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{}`", name.escape_debug())).collect::<Vec<_>>().join(", ")
}
