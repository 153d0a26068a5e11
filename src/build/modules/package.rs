//! The modules as a package that apt installs.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};

use super::{Recipe, needs};
use crate::{
    apt::{
        control,
        deb::{self, NewFile},
        relation,
    },
    error::{Error, Result},
    lock::{LockedPackage, modules::BUILT},
    system::files::Root,
};

/// Largest list of a package's files, and dpkg's status, in bytes.
const LIMIT: u64 = 64 << 20;

/// A package that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// What the lock says of it, but its digest and size.
    pub(super) locked: LockedPackage,
    /// The `.deb`.
    pub(super) content: Vec<u8>,
}

/// The package of these modules, by name, for the workshop's kernel.
///
/// # Errors
/// dpkg's database of the tree cannot be read or does not know the source's package.
pub(super) fn make(
    tree: &Root,
    recipe: &Recipe<'_>,
    modules: &BTreeMap<String, Vec<u8>>,
    time: i64,
) -> Result<Made> {
    let workshop = recipe.workshop;
    let (source, kernel, release) = (&workshop.source, &workshop.kernel, &workshop.release);
    let base = source.name.strip_suffix("-dkms").unwrap_or(&source.name);
    let inputs = recipe.inputs.hex();
    let locked = LockedPackage {
        repository: BUILT.to_owned(),
        name: format!("{}-{release}", base.replace("-dkms-", "-")),
        // Another way of making the same driver is another version: apt takes one for the other.
        version: format!("{}+bedplate.{}", source.version, &inputs[..12]),
        architecture: kernel.architecture.clone(),
        sha256: recipe.inputs,
        size: 0,
        path: String::new(),
        depends: needs(workshop),
        wanted_by: vec!["driver".to_owned()],
    };
    let locked = LockedPackage { path: locked.file_name(), ..locked };
    // Beside the kernel's own, so that a file has one name.
    let list =
        tree.read_text(&format!("/var/lib/dpkg/info/{}.list", kernel.name), LIMIT)?.unwrap_or_default();
    let top = format!("/usr/lib/modules/{release}");
    let top = if list.lines().any(|line| line == top) { &top[1..] } else { &top["/usr/".len()..] };
    let mut data = Vec::new();
    let place = format!("{top}/updates/bedplate/");
    let mut above = String::new();
    for part in place.split_inclusive('/') {
        above.push_str(part);
        data.push(NewFile { path: above.clone(), mode: 0o755, content: Vec::new() });
    }
    let mut bytes = 0;
    let mut sums = String::new();
    for (name, content) in modules {
        bytes += content.len();
        let sum = Md5::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        sums += &format!("{sum}  {place}{name}\n");
        data.push(NewFile { path: format!("{place}{name}"), mode: 0o644, content: content.clone() });
    }
    let stanza = stanza(tree, source)?;
    let control = [
        ("control", 0o644, fields(&locked, &stanza, recipe, bytes.div_ceil(1024))?),
        ("md5sums", 0o644, sums),
        ("postinst", 0o755, script("configure", release)),
        ("postrm", 0o755, script("remove", release)),
    ];
    let control =
        control.map(|(name, mode, text)| NewFile { path: name.to_owned(), mode, content: text.into_bytes() });
    let content = deb::write(&control, &data, u64::try_from(time).unwrap_or(0))?;
    Ok(Made { locked, content })
}

/// What dpkg's database says of a package.
struct Stanza {
    depends: String,
    provides: String,
    section: String,
}

fn stanza(tree: &Root, package: &LockedPackage) -> Result<Stanza> {
    let status = tree.read("/var/lib/dpkg/status", LIMIT)?.unwrap_or_default();
    let bad = |why: &str| Error::failed(format!("dpkg's database of the tree: {why}"));
    let stanzas = control::stanzas(&status).map_err(|_| bad("it is damaged"))?;
    let found = stanzas.iter().find(|stanza| stanza.get("Package") == Some(&package.name));
    let found = found.ok_or_else(|| bad("it does not know the modules' source"))?;
    let text = |name: &str| found.get(name).unwrap_or_default().to_owned();
    let both = [text("Pre-Depends"), text("Depends")];
    let both: Vec<&str> = both.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    Ok(Stanza { depends: both.join(", "), provides: text("Provides"), section: text("Section") })
}

/// The control stanza (deb-control(5)).
fn fields(locked: &LockedPackage, source: &Stanza, recipe: &Recipe<'_>, kib: usize) -> Result<String> {
    let workshop = recipe.workshop;
    let relations = relation::parse(&source.depends)?;
    let without_dkms: Vec<_> =
        relations.into_iter().filter(|any| any.iter().all(|one| one.name != "dkms")).collect();
    let of_source = relation::show(&without_dkms);
    let kernel = format!("{} (= {})", workshop.kernel.name, workshop.kernel.version);
    let depends: Vec<&str> =
        [of_source.as_str(), &kernel, "kmod"].into_iter().filter(|text| !text.is_empty()).collect();
    let source_name = &workshop.source.name;
    // Without a version, so that the conflict, which has one, is with the package alone and not with what provides its
    // name: modules for several kernels stand side by side (Debian Policy 7.5).
    let provides = if source.provides.is_empty() {
        source_name.clone()
    } else {
        format!("{}, {source_name}", source.provides)
    };
    let section = if source.section.is_empty() { "kernel" } else { &source.section };
    Ok(format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: bedplate <bedplate@localhost>\nInstalled-Size: {kib}\n\
         Depends: {}\nConflicts: {source_name} (>= 0)\nProvides: {provides}\nSection: {section}\nPriority: optional\n\
         Description: kernel modules of {} for {}\n Built by bedplate from {} {}{}, so that no host compiles them.\n \
         .\n Made from {}.\n",
        locked.name,
        locked.version,
        locked.architecture,
        depends.join(", "),
        source_name,
        workshop.release,
        source_name,
        workshop.source.version,
        if recipe.patches.is_empty() { "" } else { " with the profile's patches" },
        recipe.inputs,
    ))
}

/// A maintainer script that tells `modprobe` of what is there now (depmod(8)).
fn script(when: &str, release: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = {when} ] && [ -e /lib/modules/{release}/modules.order ]; then\n\
         \tdepmod -a {release}\nfi\n"
    )
}
