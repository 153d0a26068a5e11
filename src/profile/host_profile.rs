//! Host profiles: TOML to [`Profile`], every rule checked, every error at once.

use std::collections::BTreeMap;

use super::{
    Container, ContainerEngine, Distribution, Driver, DriverFlavor, Gpu, GpuAccess, Host, ImageWanted,
    Kernel, Profile, Repository, SecretSource, Signing,
    decode::{Decoder, Fields, Text},
    forms::{self, Pin},
    host_files, host_rules, secrets_like,
    tree::{Node, Scalar, Span, Value},
    tree_toml,
};
use crate::error::Result;

/// Version of the profile format this bedplate reads.
const SCHEMA: u64 = 1;

/// What to do about a secret in a profile.
const NAME_THE_SOURCE: &str = "name where it comes from in `[secrets]`, such as `NAME = { env = \"NAME\" }`";

/// Releases that are known, by distribution: code names.
const RELEASES: &[(Distribution, &[&str])] = &[
    (Distribution::Debian, &["bookworm", "trixie", "forky"]),
    (Distribution::Ubuntu, &["jammy", "noble", "resolute"]),
];

/// A mount or a file and where its path stands, for the rules that look at several.
pub(crate) struct Placed {
    pub(crate) path: Text,
}

/// Reads a profile.
pub(crate) fn parse(path: &str, text: &str) -> Result<Profile> {
    let d = Decoder::new(path, text, false);
    let profile = match tree_toml::read(text) {
        Ok(node) => {
            host_rules::no_literal_secrets(&d, &node, "", NAME_THE_SOURCE);
            read(&d, &node)
        }
        Err(faults) => {
            d.faults(faults);
            None
        }
    };
    d.finish(profile).map(|(profile, _)| profile)
}

fn read(d: &Decoder<'_>, node: &Node) -> Option<Profile> {
    let mut f = d.fields(node, "")?;
    if !schema(&mut f, "profile", SCHEMA) {
        return None;
    }
    let description = f.text("description").map(|text| text.value);
    let host = host(&mut f);
    let kernel = f.fields("kernel").map(kernel).unwrap_or_default();
    let gpu = f.fields("gpu").map(gpu);
    let driver = driver(&mut f);
    let container = container(&mut f);
    let images = images(&mut f);
    let (mounts, mount_places) = tables(&mut f, "mount", host_files::mount);
    let (files, file_places) = tables(&mut f, "file", host_files::file);
    let (users, user_places) = tables(&mut f, "user", host_files::user);
    let checks = host_rules::checks(&mut f);
    let secrets = secrets(&mut f);
    let deployments = deployments(&mut f);
    host_rules::places(d, &mount_places, &file_places);
    host_rules::twice(d, "user", &user_places);
    if let (Some(driver), Some(container)) = (&driver, &container) {
        host_rules::gpu_access(d, node, driver, container, gpu.as_ref());
        host_rules::engine(d, node, container);
    }
    f.finish(&[]);
    Some(Profile {
        description,
        host: host?,
        kernel,
        gpu,
        driver: driver?,
        container: container?,
        images,
        mounts,
        files,
        users,
        checks,
        secrets,
        deployments,
    })
}

/// Checks `schema` of a `noun`, of which `newest` is read. `false`: nothing else can be said about the file.
pub(crate) fn schema(f: &mut Fields<'_, '_>, noun: &str, newest: u64) -> bool {
    let Some(node) = f.required("schema", "schema = 1") else { return true };
    let Some(schema) = f.d.integer(node, "schema", 1..=u64::MAX) else { return true };
    if schema > newest {
        let message =
            format!("the {noun} was made for a newer bedplate (schema {schema}; this one reads {newest})");
        f.d.error(&node.span, message, "newer", "update bedplate on this machine");
    }
    schema <= newest
}

/// Reads each table of a `[[key]]`.
fn tables<T>(
    f: &mut Fields<'_, '_>,
    key: &'static str,
    read: impl Fn(Fields<'_, '_>) -> (Option<T>, Option<Text>),
) -> (Vec<T>, Vec<Placed>) {
    let (mut values, mut places) = (Vec::new(), Vec::new());
    let Some(node) = f.get(key) else { return (values, places) };
    let Value::List(items) = &node.value else {
        let what = f.at(key);
        f.d.wanted(node, &what, "a list of tables", &format!("write `[[{what}]]` with two brackets"));
        return (values, places);
    };
    for (at, item) in items.iter().enumerate() {
        let what = format!("{}[{at}]", f.at(key));
        if let Some(fields) = f.d.fields(item, &what) {
            let (value, place) = read(fields);
            values.extend(value);
            places.extend(place.map(|path| Placed { path }));
        }
    }
    (values, places)
}

/// Notes an error of one of the small grammars.
pub(crate) fn check(d: &Decoder<'_>, span: &Span, result: std::result::Result<(), forms::Wrong>) -> bool {
    match result {
        Ok(()) => true,
        Err((message, hint)) => {
            d.error(span, message, "", hint);
            false
        }
    }
}

fn host(f: &mut Fields<'_, '_>) -> Option<Host> {
    let Some(mut f) = f.fields("host") else {
        f.missing("host", "[host]");
        return None;
    };
    let distributions = [("debian", Distribution::Debian), ("ubuntu", Distribution::Ubuntu)];
    let distribution = f
        .required("distribution", "distribution = \"debian\"")
        .and_then(|node| f.d.choice(node, "host.distribution", &distributions));
    let release = f.required("release", "release = \"trixie\"").and_then(|node| {
        let Some(distribution) = distribution else { return f.d.text(node, "host.release").map(|t| t.value) };
        let (_, known) = RELEASES.iter().find(|(known, _)| *known == distribution)?;
        let choices: Vec<(&str, &str)> = known.iter().map(|name| (*name, *name)).collect();
        f.d.choice(node, "host.release", &choices).map(str::to_owned)
    });
    let architecture = match f.get("architecture") {
        Some(node) => f.d.choice(node, "host.architecture", &[("amd64", "amd64")]).map(str::to_owned),
        None => Some("amd64".to_owned()),
    };
    let packages = package_names(f.d, f.texts("packages"));
    let strict = f.boolean("strict").unwrap_or(false);
    let pin_packages = f.boolean("pin-packages").unwrap_or(true);
    let recommends = f.boolean("recommends").unwrap_or(false);
    let backports = f.boolean("backports").unwrap_or(false);
    let snapshot = snapshot(&mut f);
    let (repositories, names) = tables(&mut f, "repository", repository);
    host_rules::twice(f.d, "repository", &names);
    f.finish(&[]);
    Some(Host {
        distribution: distribution?,
        release: release?,
        architecture: architecture?,
        packages,
        strict,
        pin_packages,
        recommends,
        backports,
        snapshot,
        repositories,
    })
}

/// The time of a snapshot, as archives write it: `20261121T091500Z`.
fn snapshot(f: &mut Fields<'_, '_>) -> Option<String> {
    let text = f.text("snapshot")?;
    let read = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &text.value);
    if read.is_err() || text.value.len() != 16 {
        let message = format!("`{}` is not the time of a snapshot", secrets_like::shown(&text.value));
        let hint = "write it in UTC as archives do: \"20261121T091500Z\"";
        f.d.error(&text.span, message, "", hint);
    }
    Some(text.value)
}

/// Debian package names (Debian Policy 5.6.7), also with `:architecture`.
fn package_names(d: &Decoder<'_>, texts: Vec<Text>) -> Vec<String> {
    for text in &texts {
        let (name, _) = text.value.split_once(':').unwrap_or((&text.value, ""));
        let good = name.len() >= 2
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        if !good {
            let shown = secrets_like::shown(&text.value);
            let hint = "name the package alone; its version is pinned by the lock";
            d.error(&text.span, format!("`{shown}` is not a package name"), "", hint);
        }
    }
    texts.into_iter().map(|text| text.value).collect()
}

fn repository(mut f: Fields<'_, '_>) -> (Option<Repository>, Option<Text>) {
    let name = f.required("name", "name = \"…\"").and_then(|node| f.d.text(node, &f.at("name")));
    if let Some(name) = &name
        && !forms::name(&name.value)
    {
        f.d.error(
            &name.span,
            "a repository's name is letters, digits, `.`, `_` and `-`",
            "",
            "choose a short name",
        );
    }
    let uri = f.required("uri", "uri = \"https://…\"").and_then(|node| f.d.text(node, &f.at("uri")));
    if let Some(uri) = &uri
        && !["http://", "https://", "file:/"].iter().any(|scheme| uri.value.starts_with(scheme))
    {
        let message = format!("`{}` is not an address", secrets_like::shown(&uri.value));
        f.d.error(&uri.span, message, "", "start it with `https://`, `http://` or `file:/`");
    }
    if f.get("suites").is_none() {
        f.missing("suites", "suites = [\"/\"]");
    }
    let suites = f.texts("suites");
    let components = f.strings("components");
    for suite in &suites {
        if suite.value.ends_with('/') && !components.is_empty() {
            let hint = "a flat repository (its suite ends in `/`) has no components: remove one of them";
            f.d.error(&suite.span, "a flat repository is given components", "flat", hint);
        } else if !suite.value.ends_with('/') && components.is_empty() {
            let hint = "add `components = [\"main\"]`, or end the suite with `/` for a flat repository";
            f.d.error(
                &suite.span,
                format!("suite `{}` has no components", secrets_like::shown(&suite.value)),
                "",
                hint,
            );
        }
    }
    let keyring =
        f.required("keyring", "keyring = \"keys/….asc\"").and_then(|node| f.d.text(node, &f.at("keyring")));
    if let Some(keyring) = &keyring {
        check(f.d, &keyring.span, forms::input_path(&keyring.value));
    }
    f.finish(&[]);
    let value = match (&name, uri, keyring) {
        (Some(name), Some(uri), Some(keyring)) => Some(Repository {
            name: name.value.clone(),
            uri: uri.value,
            suites: suites.into_iter().map(|suite| suite.value).collect(),
            components,
            keyring: keyring.value,
        }),
        _ => None,
    };
    (value, name)
}

/// Parameters of a kernel's command line, one a string.
pub(crate) fn kernel_parameters(f: &mut Fields<'_, '_>, key: &'static str) -> Vec<Text> {
    let parameters = f.texts(key);
    for parameter in &parameters {
        if parameter.value.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let hint = "write each parameter as a string of its own";
            f.d.error(&parameter.span, "a kernel parameter holds a space", "", hint);
        }
    }
    parameters
}

fn kernel(mut f: Fields<'_, '_>) -> Kernel {
    let package = f.text("package");
    let package = package_names(f.d, package.into_iter().collect()).into_iter().next();
    let parameters = kernel_parameters(&mut f, "parameters");
    let mut kernel = Kernel {
        package,
        parameters: parameters.into_iter().map(|text| text.value).collect(),
        ..Kernel::default()
    };
    let module = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    if let Some(mut modules) = f.fields("modules") {
        for text in modules.texts("blacklist") {
            if !module(&text.value) {
                modules.d.error(&text.span, "a module's name is letters, digits, `_` and `-`", "", "");
            }
            kernel.blacklist.push(text.value);
        }
        if let Some(options) = modules.fields("options") {
            for entry in options.entries {
                if !module(&entry.key) {
                    options.d.error(
                        &entry.key_span,
                        "a module's name is letters, digits, `_` and `-`",
                        "",
                        "",
                    );
                }
                if let Some(text) = options.d.text(&entry.node, &options.at(&entry.key)) {
                    if text.value.chars().any(char::is_control) {
                        options.d.error(
                            &text.span,
                            "module options are one line",
                            "",
                            "separate them with spaces",
                        );
                    }
                    kernel.options.insert(entry.key.clone(), text.value);
                }
            }
        }
        modules.finish(&[]);
    }
    f.finish(&[]);
    kernel
}

fn gpu(mut f: Fields<'_, '_>) -> Gpu {
    let model = f.text("model").map(|text| text.value);
    let compute_capability = f.text("compute-capability").and_then(|text| {
        let parsed = text
            .value
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        if parsed.is_none() {
            let message = format!("`{}` is not a compute capability", secrets_like::shown(&text.value));
            f.d.error(&text.span, message, "", "write it like \"9.0\"");
        }
        parsed
    });
    let brand = f.text("brand").map(|text| text.value);
    let count = f.integer("count", 1..=64).and_then(|count| u32::try_from(count).ok());
    f.finish(&[]);
    Gpu { model, compute_capability, brand, count }
}

fn driver(f: &mut Fields<'_, '_>) -> Option<Driver> {
    let Some(mut f) = f.fields("driver") else {
        f.missing("driver", "[driver]` with `flavor = \"open\"` or `flavor = \"none\"");
        return None;
    };
    let flavors = [
        ("open", DriverFlavor::Open),
        ("proprietary", DriverFlavor::Proprietary),
        ("none", DriverFlavor::None),
    ];
    let flavor = f
        .required("flavor", "flavor = \"open\"")
        .and_then(|node| f.d.choice(node, "driver.flavor", &flavors));
    let version = f.text("version");
    if let Some(version) = &version {
        let parts: Vec<&str> = version.value.split('.').collect();
        let digits = parts
            .iter()
            .all(|part| !part.is_empty() && part.len() <= 4 && part.chars().all(|c| c.is_ascii_digit()));
        if !digits || parts.len() > 3 {
            let message = format!("`{}` is not a driver version", secrets_like::shown(&version.value));
            f.d.error(
                &version.span,
                message,
                "",
                "write it exactly (\"550.163.01\") or as a branch (\"550\")",
            );
        }
    }
    let patches = f.texts("patches");
    for patch in &patches {
        check(f.d, &patch.span, forms::input_path(&patch.value));
    }
    let signed = f.get("signing").map(|node| node.span.clone());
    let signing = f.fields("signing").and_then(signing);
    match flavor {
        Some(DriverFlavor::None) => {
            let spans = version
                .iter()
                .map(|text| ("version", &text.span))
                .chain(patches.iter().map(|text| ("patches", &text.span)))
                .chain(signed.iter().map(|span| ("signing", span)));
            for (key, span) in spans {
                let hint = format!("remove `{key}`, or set `flavor = \"open\"`");
                f.d.error(
                    span,
                    format!("`driver.{key}` is given, but `driver.flavor` is \"none\""),
                    "no driver",
                    hint,
                );
            }
        }
        Some(_) if version.is_none() && f.get("version").is_none() => {
            f.missing("version", "version = \"550.163.01\"");
        }
        _ => {}
    }
    f.finish(&[]);
    Some(Driver {
        flavor: flavor?,
        version: version.map(|text| text.value),
        patches: patches.into_iter().map(|text| text.value).collect(),
        signing,
    })
}

fn signing(mut f: Fields<'_, '_>) -> Option<Signing> {
    let key = f.required("key", "key = \"/…/modules.pem\"");
    let key = key.and_then(|node| f.d.text(node, "driver.signing.key"));
    if let Some(key) = &key
        && !f.d.failed_within(&key.span)
        && let Err((message, _)) = forms::absolute_path(&key.value)
    {
        let hint = "write its path from the root, `/…`: a private key is not kept beside the profile";
        f.d.error(&key.span, message, "", hint);
    }
    let certificate = f.required("certificate", "certificate = \"keys/modules.crt\"");
    let certificate = certificate.and_then(|node| f.d.text(node, "driver.signing.certificate"));
    if let Some(certificate) = &certificate {
        check(f.d, &certificate.span, forms::input_path(&certificate.value));
    }
    f.finish(&[]);
    Some(Signing { key: key?.value, certificate: certificate?.value })
}

fn container(f: &mut Fields<'_, '_>) -> Option<Container> {
    let Some(mut f) = f.fields("container") else {
        f.missing("container", "[container]` with `gpu-access = \"cdi\"` or `gpu-access = \"none\"");
        return None;
    };
    let engines = [("docker", ContainerEngine::Docker), ("none", ContainerEngine::None)];
    let engine = match f.get("engine") {
        Some(node) => f.d.choice(node, "container.engine", &engines),
        None => Some(ContainerEngine::Docker),
    };
    let access =
        [("cdi", GpuAccess::Cdi), ("nvidia-runtime", GpuAccess::NvidiaRuntime), ("none", GpuAccess::None)];
    let gpu_access = f
        .required("gpu-access", "gpu-access = \"cdi\"")
        .and_then(|node| f.d.choice(node, "container.gpu-access", &access));
    let mut daemon = serde_json::Map::new();
    if let Some(table) = f.fields("daemon") {
        for entry in table.entries {
            daemon.insert(entry.key.clone(), json(&entry.node));
        }
        host_rules::daemon(&table);
    }
    f.finish(&[]);
    Some(Container { engine: engine?, gpu_access: gpu_access?, daemon })
}

/// A tree as JSON, for `daemon.json`.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Scalar { text, kind } => match kind {
            Scalar::Boolean(value) => (*value).into(),
            Scalar::Integer(number) => {
                i64::try_from(*number).map_or_else(|_| text.clone().into(), Into::into)
            }
            Scalar::Float(number) => (*number).into(),
            Scalar::Null => serde_json::Value::Null,
            Scalar::Text | Scalar::Date => text.clone().into(),
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Table(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn images(f: &mut Fields<'_, '_>) -> BTreeMap<String, ImageWanted> {
    let mut images = BTreeMap::new();
    let Some(f) = f.fields("images") else { return images };
    for entry in f.entries {
        let what = f.at(&entry.key);
        if !forms::name(&entry.key) {
            f.d.error(&entry.key_span, "an image's name is letters, digits, `.`, `_` and `-`", "", "");
        }
        let (reference, floating) = match &entry.node.value {
            Value::Table(_) => {
                let Some(mut table) = f.d.fields(&entry.node, &what) else { continue };
                let reference = table.required("reference", "reference = \"…\"");
                let reference = reference.and_then(|node| f.d.text(node, &table.at("reference")));
                let floating = table.boolean("floating").unwrap_or(false);
                table.finish(&[]);
                (reference, floating)
            }
            _ => (f.d.text(&entry.node, &what), false),
        };
        let Some(reference) = reference else { continue };
        match forms::image_reference(&reference.value) {
            Err((message, hint)) => f.d.error(&reference.span, message, "", hint),
            Ok(Pin::Floating) if !floating => {
                let shown = secrets_like::shown(&reference.value);
                let message = format!("`{what}` has a floating tag");
                let hint = format!(
                    "name a version, or write `{} = {{ reference = \"{shown}\", floating = true }}`",
                    entry.key
                );
                f.d.error(&reference.span, message, "means something else tomorrow", hint);
            }
            Ok(_) => {}
        }
        images.insert(entry.key.clone(), ImageWanted { reference: reference.value, floating });
    }
    images
}

fn secrets(f: &mut Fields<'_, '_>) -> BTreeMap<String, SecretSource> {
    let mut secrets = BTreeMap::new();
    let Some(f) = f.fields("secrets") else { return secrets };
    for entry in f.entries {
        if !forms::variable_name(&entry.key) {
            f.d.error(
                &entry.key_span,
                "a secret's name is letters, digits and `_`",
                "",
                "such as `HF_TOKEN`",
            );
        }
        if let Some(source) = host_rules::secret(&f, entry) {
            secrets.insert(entry.key.clone(), source);
        }
    }
    secrets
}

fn deployments(f: &mut Fields<'_, '_>) -> Vec<String> {
    let Some(mut f) = f.fields("deploy") else { return Vec::new() };
    let texts = f.texts("deployments");
    let mut seen: Vec<String> = Vec::new();
    for text in &texts {
        check(f.d, &text.span, forms::input_path(&text.value));
        let plain = text.value.trim_start_matches("./").to_owned();
        if seen.contains(&plain) {
            let message = format!("deployment `{}` is listed twice", secrets_like::shown(&text.value));
            f.d.error(&text.span, message, "again here", "keep one of them");
        }
        seen.push(plain);
    }
    f.finish(&[]);
    texts.into_iter().map(|text| text.value).collect()
}
