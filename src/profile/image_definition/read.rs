//! TOML to [`ImageDefinition`], every rule checked, every error at once.

use std::collections::BTreeSet;

use super::{Disk, FirstBoot, Format, HostName, ImageDefinition, Network, Part, RootFileSystem};
use crate::{
    error::Result,
    profile::{
        decode::{Decoder, Fields, Text},
        forms,
        host_profile::{check, kernel_parameters, schema},
        host_rules,
        secrets_like::shown,
        tree::{Node, Span},
        tree_toml,
    },
};

/// Version of the format this bedplate reads.
const SCHEMA: u64 = 1;

/// Smallest disk, in MiB: the smallest EFI system partition, and a Debian with a kernel beside it.
const MIN_SIZE: u64 = 1024;
/// Largest disk, in MiB: what ext4 with blocks of 4 KiB holds (16 TiB; mke2fs(8), without `64bit`).
const MAX_SIZE: u64 = 16 << 20;
/// Smallest and largest EFI system partition, in MiB. FAT32 takes 33 MiB (65,525 clusters of a sector each, FAT
/// specification 1.03, "FAT Type Determination"); a unified kernel image with its initramfs takes 50 and more.
const ESP: std::ops::RangeInclusive<u64> = 100..=4096;
/// The EFI system partition unless said, in MiB: two kernels at least.
const ESP_DEFAULT: u64 = 512;
/// What must be left for the root partition, in MiB.
const MIN_ROOT: u64 = 512;

/// Longest prefix of a host name made from the machine id: 63 characters (RFC 1123) less `-` and eight digits.
const MAX_PREFIX: usize = 54;

/// Kernel parameters that the image itself decides, or that would run a command, with the reason.
const REFUSED_PARAMETERS: &[(&str, &str)] = &[
    ("root", "the disk's own root partition is mounted"),
    ("rootfstype", "`disk.root` decides it"),
    ("initrd", "the image's own is started"),
    ("init", "an image runs no free commands"),
    ("rdinit", "an image runs no free commands"),
    ("systemd.run", "an image runs no free commands"),
];

/// Words and the places they stand, or what a key stands for where it is left out.
type Chosen<T> = Vec<(T, Span)>;

/// Reads a definition.
pub(super) fn parse(path: &str, text: &str) -> Result<ImageDefinition> {
    let d = Decoder::new(path, text, false);
    let definition = match tree_toml::read(text) {
        Ok(node) => {
            let hint = "name the file that holds it; no secret belongs in an image";
            host_rules::no_literal_secrets(&d, &node, "", hint);
            read(&d, &node)
        }
        Err(faults) => {
            d.faults(faults);
            None
        }
    };
    d.finish(definition).map(|(definition, _)| definition)
}

fn read(d: &Decoder<'_>, node: &Node) -> Option<ImageDefinition> {
    let mut f = d.fields(node, "")?;
    if !schema(&mut f, "image definition", SCHEMA) {
        return None;
    }
    let description = f.text("description").map(|text| text.value);
    let profile = profile(&mut f);
    let formats = formats(&mut f);
    let include = include(&mut f);
    let first_boot = f.choices("first-boot", &FirstBoot::ALL.map(|step| (step.name(), step)));
    let hostname = hostname(&mut f);
    let networks = [("dhcp", Network::Dhcp), ("profile", Network::Profile)];
    let network = match f.get("network") {
        Some(node) => d.choice(node, "network", &networks),
        None => Some(Network::Dhcp),
    };
    let disk = disk(&mut f, formats.as_ref());
    let read_only = disk.as_ref().is_some_and(|disk| disk.root == RootFileSystem::Erofs);
    let said = f.get("first-boot").is_some();
    parts_needed(d, include.as_ref(), first_boot.as_ref(), said);
    if let (Some(steps), Some(formats)) = (&first_boot, &formats) {
        first_boot_fits(d, steps, formats, read_only);
    }
    if let (Some(node), Some(steps), false) = (f.get("first-boot"), &first_boot, read_only)
        && !holds(steps, FirstBoot::MachineId)
    {
        // machine-id(5): systemd gives a host whose root can be written an id, and keeps it, in any case.
        let message = "`first-boot` leaves out \"machine-id\", which systemd gives every host in any case";
        d.error(&node.span, message, "", "add \"machine-id\"");
    }
    if let (Some((HostName::MachineId { .. }, place)), true) = (&hostname, read_only) {
        let message = "the host name is made from the machine id, which a read-only root does not keep";
        d.error(place, message, "another at each boot", "set `root = \"ext4\"`, or write another policy");
    }
    f.finish(&[
        ("user", "an image has the users of its profile"),
        ("packages", "an image has the packages of its profile"),
        ("file", "an image has the files of its profile"),
        ("signing", "modules are signed as `[driver] signing` of the profile says"),
        ("run", "an image runs no free commands"),
        ("script", "an image runs no free commands"),
    ]);
    let default_steps = || {
        if read_only {
            BTreeSet::new()
        } else {
            BTreeSet::from([FirstBoot::MachineId, FirstBoot::SshHostKeys])
        }
    };
    let default_parts = || Part::ALL.into_iter().filter(|part| *part != Part::Images).collect();
    Some(ImageDefinition {
        description,
        profile: profile?,
        formats: values(formats?),
        include: include.map_or_else(default_parts, values),
        hostname: hostname.map_or(HostName::Dhcp, |(name, _)| name),
        network: network?,
        first_boot: first_boot.map_or_else(default_steps, values),
        disk,
    })
}

fn values<T: Ord>(chosen: Chosen<T>) -> BTreeSet<T> {
    chosen.into_iter().map(|(value, _)| value).collect()
}

/// The profile: a path, or a name that is looked up beside `images/`.
fn profile(f: &mut Fields<'_, '_>) -> Option<String> {
    let node = f.required("profile", "profile = \"NAME\"")?;
    let text = f.d.text(node, "profile")?;
    if !text.value.contains(['/', '.']) {
        if !forms::name(&text.value) {
            let message = format!("`{}` is not a profile's name", shown(&text.value));
            f.d.error(
                &text.span,
                message,
                "",
                "letters, digits, `_` and `-`; or a path that ends in `.toml`",
            );
        }
        return Some(format!("../profiles/{}.toml", text.value));
    }
    if relative(f.d, &text) && !text.value.ends_with(".toml") {
        let message = format!("`{}` is not a profile", shown(&text.value));
        let hint = "write a name, looked up in `../profiles/`, or a path that ends in `.toml`";
        f.d.error(&text.span, message, "", hint);
    }
    Some(text.value)
}

fn relative(d: &Decoder<'_>, text: &Text) -> bool {
    check(d, &text.span, forms::relative_path(&text.value, "image definition"))
}

fn formats(f: &mut Fields<'_, '_>) -> Option<Chosen<Format>> {
    let node = f.required("formats", "formats = [\"disk\"]")?;
    let formats = f.choices("formats", &Format::ALL.map(|format| (format.name(), format)))?;
    if formats.is_empty() {
        f.d.error(&node.span, "`formats` is empty", "nothing is written", "name one, such as \"disk\"");
        return None;
    }
    Some(formats)
}

fn include(f: &mut Fields<'_, '_>) -> Option<Chosen<Part>> {
    let node = f.get("include")?;
    let parts = f.choices("include", &Part::ALL.map(|part| (part.name(), part)))?;
    if !holds(&parts, Part::Packages) {
        let message = "`include` leaves out the packages, without which there is no root tree";
        f.d.error(&node.span, message, "no packages", "add \"packages\"");
    }
    Some(parts)
}

fn holds<T: PartialEq>(chosen: &Chosen<T>, wanted: T) -> bool {
    chosen.iter().any(|(value, _)| *value == wanted)
}

/// What carries a profile out on the host needs bedplate and the profile there. `said`: the steps are written out.
fn parts_needed(
    d: &Decoder<'_>,
    include: Option<&Chosen<Part>>,
    first_boot: Option<&Chosen<FirstBoot>>,
    said: bool,
) {
    // Left out, or wrong already: nothing is missing.
    let Some(include) = include else { return };
    let provision = first_boot.into_iter().flatten().find(|(step, _)| *step == FirstBoot::Provision);
    let images = include.iter().find(|(part, _)| *part == Part::Images);
    let users = provision
        .map(|(step, span)| (step.name(), span))
        .into_iter()
        .chain(images.map(|(part, span)| (part.name(), span)));
    for (word, span) in users {
        for part in [Part::Bedplate, Part::Profile] {
            if !holds(include, part) {
                let name = part.name();
                let message = format!("\"{word}\" needs \"{name}\", which `include` leaves out");
                d.error(span, message, "", format!("add \"{name}\" to `include`, or remove \"{word}\""));
            }
        }
    }
    if let Some((_, span)) = images
        && provision.is_none()
        && (first_boot.is_some() || !said)
    {
        let message = "\"images\" needs the step \"provision\", which brings them into Docker";
        d.error(span, message, "", "add \"provision\" to `first-boot`, or remove \"images\"");
    }
    let profile = include.iter().find(|(part, _)| *part == Part::Profile);
    if let Some((_, span)) = profile
        && !holds(include, Part::Bedplate)
        && provision.is_none()
        && images.is_none()
    {
        let message = "\"profile\" needs \"bedplate\", which `include` leaves out: nothing else reads it";
        d.error(span, message, "", "add \"bedplate\" to `include`, or remove \"profile\"");
    }
}

/// Every step writes into the root file system, and one needs a partition.
fn first_boot_fits(d: &Decoder<'_>, steps: &Chosen<FirstBoot>, formats: &Chosen<Format>, read_only: bool) {
    for (step, place) in steps {
        if *step == FirstBoot::GrowRoot && !formats.iter().any(|(format, _)| format.is_disk()) {
            let message = "\"grow-root\" is given, but none of `formats` has a root partition";
            d.error(place, message, "nothing to grow", "remove it, or add \"disk\" to `formats`");
        } else if read_only {
            let message =
                format!("\"{}\" is given, but `disk.root` is \"erofs\", which is read-only", step.name());
            d.error(place, message, "nothing is kept", "remove it, or set `root = \"ext4\"`");
        }
    }
}

/// `[hostname]` and where its policy stands.
fn hostname(f: &mut Fields<'_, '_>) -> Option<(HostName, Span)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Policy {
        Dhcp,
        MachineId,
        Fixed,
    }
    let mut f = f.fields("hostname")?;
    let policies = [("dhcp", Policy::Dhcp), ("machine-id", Policy::MachineId), ("fixed", Policy::Fixed)];
    let node = f.required("policy", "policy = \"dhcp\"");
    let policy = node.and_then(|node| Some((f.d.choice(node, "hostname.policy", &policies)?, node)));
    let name = f.text("name");
    let prefix = f.text("prefix");
    for text in name.iter().chain(&prefix) {
        if !forms::host_name(&text.value) {
            let message = format!("`{}` is not a host name", shown(&text.value));
            let hint = "lower case letters, digits and `-` between them; at most 63";
            f.d.error(&text.span, message, "", hint);
        }
    }
    if let Some(prefix) = &prefix
        && prefix.value.len() > MAX_PREFIX
    {
        let message = format!("the prefix has {} characters, more than {MAX_PREFIX}", prefix.value.len());
        f.d.error(&prefix.span, message, "", "shorten it: `-` and eight digits follow");
    }
    if let Some((policy, node)) = policy {
        let uses =
            [("name", &name, Policy::Fixed, "fixed"), ("prefix", &prefix, Policy::MachineId, "machine-id")];
        for (key, text, of, wanted) in uses {
            if let Some(text) = text
                && policy != of
            {
                let given = policies.iter().find(|(_, known)| *known == policy).map_or("", |(word, _)| word);
                let message = format!("`hostname.{key}` is given, but `hostname.policy` is \"{given}\"");
                let hint = format!("remove `{key}`, or set `policy = \"{wanted}\"`");
                f.d.error(&text.span, message, "not used", hint);
            }
        }
        if policy == Policy::Fixed && name.is_none() && f.get("name").is_none() {
            f.d.error(&node.span, "a fixed host name is not given", "which one?", "add `name = \"…\"`");
        }
    }
    f.finish(&[]);
    let (policy, node) = policy?;
    let name = match policy {
        Policy::Dhcp => HostName::Dhcp,
        Policy::MachineId => {
            HostName::MachineId { prefix: prefix.map_or_else(|| "host".to_owned(), |text| text.value) }
        }
        Policy::Fixed => HostName::Fixed(name?.value),
    };
    Some((name, node.span.clone()))
}

fn disk(f: &mut Fields<'_, '_>, formats: Option<&Chosen<Format>>) -> Option<Disk> {
    let wanted = formats.and_then(|formats| formats.iter().find(|(format, _)| format.is_disk()));
    let entry = f.entry("disk");
    match (entry, formats, wanted) {
        (None, _, Some((format, span))) => {
            let message = format!("the format \"{}\" needs `[disk]`, which is missing", format.name());
            f.d.error(span, message, "how large?", "add `[disk]` with `size-mib = 8192`");
        }
        (Some(entry), Some(_), None) => {
            let message = "`[disk]` is given, but none of `formats` is a disk";
            let hint = "remove it, or add \"disk\" or \"qcow2\" to `formats`";
            f.d.error(&entry.key_span, message, "not used", hint);
        }
        _ => {}
    }
    let mut f = f.fields("disk")?;
    if f.get("size-mib").is_none() {
        f.missing("size-mib", "size-mib = 8192");
    }
    let size = f.integer("size-mib", MIN_SIZE..=MAX_SIZE);
    let esp = match f.get("esp-mib") {
        Some(_) => f.integer("esp-mib", ESP),
        None => Some(ESP_DEFAULT),
    };
    if let (Some(size), Some(esp), Some(node)) = (size, esp, f.get("size-mib"))
        && size < esp + MIN_ROOT
    {
        let message = format!(
            "a disk of {size} MiB has less than {MIN_ROOT} MiB beside {esp} MiB for the EFI system partition"
        );
        f.d.error(&node.span, message, "too small", format!("write {} or more", esp + MIN_ROOT));
    }
    let file_systems = [("ext4", RootFileSystem::Ext4), ("erofs", RootFileSystem::Erofs)];
    let root = match f.get("root") {
        Some(node) => f.d.choice(node, "disk.root", &file_systems),
        None => Some(RootFileSystem::Ext4),
    };
    let parameters = kernel_parameters(&mut f, "kernel-parameters");
    for text in &parameters {
        let name = text.value.split('=').next().unwrap_or_default();
        let refused =
            |known: &str| name == known || known == "systemd.run" && name.starts_with("systemd.run_");
        if let Some((_, why)) = REFUSED_PARAMETERS.iter().find(|(known, _)| refused(known)) {
            let message = format!("the kernel parameter `{}` cannot be given: {why}", shown(name));
            f.d.error(&text.span, message, "refused", "remove it");
        }
    }
    f.finish(&[]);
    Some(Disk {
        size_mib: size?,
        esp_mib: esp?,
        root: root?,
        kernel_parameters: parameters.into_iter().map(|text| text.value).collect(),
    })
}
