//! What a lock depends on, by digest: how staleness is known without asking anyone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Lock, LockedImage, cuda, pairs, reference};
use crate::{
    digest::Digest,
    error::{Error, Result},
    profile::{Deployment, ImageDefinition, Profile, services::ImageChoice},
};

/// Name of the table of CUDA releases and drivers in `[inputs]`.
pub const TABLE_CUDA: &str = "cuda-drivers";
/// Name of the table of GPU models in `[inputs]`.
pub const TABLE_GPUS: &str = "gpus";
/// Name of the table of kernels and drivers in `[inputs]`, where packages are locked.
pub const TABLE_PAIRS: &str = "driver-kernel-pairs";
/// Name of what is asked of the archives in `[inputs]`, where packages are locked.
pub const PACKAGES: &str = "packages";

/// Rises when the same profile comes to ask for other packages, so that locks made before are stale.
const PACKAGE_RULES: u32 = 1;

/// The inputs of a lock, by path as the profile writes it, or by a table's name.
///
/// - The profile as parsed: comments, order and layout change nothing.
/// - Each deployment: only the images it chooses. A changed port does not make a lock stale.
/// - Each file the profile reads (`sources`), by its bytes.
/// - The tables verdicts are made with, as parsed.
/// - Where packages are locked, what is asked of the archives: an edit elsewhere solves nothing anew.
pub fn inputs(
    profile_file_name: &str,
    profile: &Profile,
    deployments: &BTreeMap<String, Deployment>,
    sources: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<String, Digest> {
    let mut inputs = BTreeMap::from([
        (TABLE_CUDA.to_owned(), cuda::table_digest(cuda::CUDA_DRIVERS)),
        (TABLE_GPUS.to_owned(), cuda::table_digest(cuda::GPUS)),
    ]);
    if profile.host.pin_packages {
        inputs.insert(TABLE_PAIRS.to_owned(), cuda::table_digest(pairs::DRIVER_KERNEL_PAIRS));
        inputs.insert(PACKAGES.to_owned(), packages_digest(profile, sources));
    }
    let mut add = |path: &str, digest: Digest| {
        // A file named like a table is told apart from it.
        let table = [TABLE_CUDA, TABLE_GPUS, TABLE_PAIRS, PACKAGES].contains(&path);
        let name = if table { format!("./{path}") } else { path.to_owned() };
        inputs.insert(name, digest);
    };
    for (path, content) in sources {
        add(path, Digest::of(content));
    }
    for (path, deployment) in deployments {
        add(path, deployment_digest(deployment));
    }
    add(profile_file_name, profile_digest(profile));
    inputs
}

/// The digest of a profile as parsed.
pub fn profile_digest(profile: &Profile) -> Digest {
    // Profile types hold only strings, numbers, lists and maps with string keys, whatever was read into them.
    let mut value = serde_json::to_value(profile).expect("a profile is plain data");
    // Docker's own settings count to the letter: there, `false`, `[]` and absent differ.
    let daemon = value.pointer_mut("/container/daemon").map(Value::take);
    strip(&mut value);
    let daemon = daemon.map(|daemon| canonical_json(&daemon)).unwrap_or_default();
    Digest::of(format!("{}\n{daemon}", canonical_json(&value)))
}

/// The digest of an image definition as parsed.
pub fn image_definition_digest(definition: &ImageDefinition) -> Digest {
    let mut value = serde_json::to_value(definition).expect("an image definition is plain data");
    strip(&mut value);
    Digest::of(canonical_json(&value))
}

/// The digest of what a profile asks of the archives. `sources` are the files it reads, of which keyrings count.
pub fn packages_digest(profile: &Profile, sources: &BTreeMap<String, Vec<u8>>) -> Digest {
    let host = &profile.host;
    let repositories: Vec<Value> = host
        .repositories
        .iter()
        .map(|repository| {
            json!({
                "name": repository.name,
                "uri": repository.uri,
                "suites": repository.suites,
                "components": repository.components,
                "keyring": sources.get(&repository.keyring).map(Digest::of),
            })
        })
        .collect();
    let packages: BTreeSet<&String> = host.packages.iter().collect();
    let mut asked = json!({
        "rules": PACKAGE_RULES,
        "distribution": host.distribution,
        "release": host.release,
        "architecture": host.architecture,
        "packages": packages,
        "recommends": host.recommends,
        "backports": host.backports,
        "snapshot": host.snapshot,
        "repositories": repositories,
        "kernel": profile.kernel.package,
        "driver": { "flavor": profile.driver.flavor, "version": profile.driver.version },
        "engine": profile.container.engine,
        "gpu-access": profile.container.gpu_access,
    });
    strip(&mut asked);
    Digest::of(canonical_json(&asked))
}

/// The digest of what a lock needs of a deployment: its image choices.
pub fn deployment_digest(deployment: &Deployment) -> Digest {
    let choices: Vec<String> = deployment
        .images()
        .iter()
        .map(|choice| match choice {
            ImageChoice::Named(name) => format!("named {name:?}"),
            ImageChoice::Reference(reference) => {
                format!(
                    "reference {:?}",
                    reference::normalise(reference).unwrap_or_else(|_| reference.clone())
                )
            }
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    Digest::of(choices.join("\n"))
}

/// Leaves out what is absent or empty, so that a setting added by a later bedplate, and not used, changes no digest.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, value| match value {
                Value::Null | Value::Bool(false) => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// JSON with sorted keys and no blanks: one text for one value.
pub(super) fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let fields: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), canonical_json(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(canonical_json).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// An image the lock must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Normalised reference.
    pub reference: String,
    /// Whether its tag moves by nature (`latest`, or none).
    pub floating: bool,
}

/// Every image that must be in the lock, by its key there: the profile's name for it, else its normalised reference.
///
/// # Errors
/// A reference that is none; a floating tag in the profile that does not say `floating = true`; a deployment that uses
/// an image the profile does not name. All of them at once.
pub fn wanted(profile: &Profile, deployments: &[&Deployment]) -> Result<BTreeMap<String, Wanted>> {
    let mut wanted = BTreeMap::new();
    let mut errors = Vec::new();
    let read = |text: &str| -> Result<Wanted> {
        Ok(Wanted { reference: reference::normalise(text)?, floating: reference::is_floating(text)? })
    };
    for (name, image) in &profile.images {
        match read(&image.reference) {
            Ok(read) if read.floating && !image.floating => errors.push(
                Error::usage(format!("image `{name}` has a floating tag: `{}`", image.reference)).hint(
                    format!(
                        "name a version, or write `{name} = {{ reference = \"{}\", floating = true }}`",
                        image.reference
                    ),
                ),
            ),
            Ok(read) => {
                wanted.insert(name.clone(), read);
            }
            Err(error) => errors.push(error),
        }
    }
    for deployment in deployments {
        for choice in deployment.images() {
            match choice {
                ImageChoice::Named(name) if profile.images.contains_key(&name) => {}
                ImageChoice::Named(name) => errors.push(
                    Error::usage(format!(
                        "deployment `{}` is started from the profile's image `{name}`, which the profile does not name",
                        deployment.name
                    ))
                    .hint(format!("add `{name} = \"REFERENCE\"` to `[images]`, or `image: REFERENCE` to the deployment")),
                ),
                ImageChoice::Reference(text) => match read(&text) {
                    Ok(read) if wanted.values().any(|known| known.reference == read.reference) => {}
                    Ok(read) => {
                        wanted.insert(read.reference.clone(), read);
                    }
                    Err(error) => errors.push(error),
                },
            }
        }
    }
    match Error::join(errors) {
        Some(error) => Err(error),
        None => Ok(wanted),
    }
}

/// The locked image a service is started from, with its key in the lock; `None` where the lock does not have it.
pub fn find<'a>(
    lock: &'a Lock,
    profile: &Profile,
    choice: &ImageChoice,
) -> Option<(&'a str, &'a LockedImage)> {
    let (key, image) = match choice {
        ImageChoice::Named(name) => {
            let (key, image) = lock.images.get_key_value(name)?;
            let written = &profile.images.get(name)?.reference;
            (reference::normalise(written).ok()? == image.reference).then_some((key, image))?
        }
        ImageChoice::Reference(text) => {
            let normal = reference::normalise(text).ok()?;
            lock.images.iter().find(|(_, image)| image.reference == normal)?
        }
    };
    Some((key, image))
}
