//! The small grammars of profiles and deployments: paths, modes, owners, image references, sizes,
//! durations, secret references.

use super::secrets_like::shown;

/// Why a value is not what it should be, and what to write.
pub(crate) type Wrong = (String, String);

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
    (message.into(), hint.into())
}

/// Places that belong to the kernel or to bedplate: never a mount or a managed file.
const RESERVED: &[&str] = &["/proc", "/sys", "/dev", "/run/bedplate", "/var/lib/bedplate"];

/// Directories of the distribution whose mode and owner are not a profile's to give (hier(7), the Filesystem
/// Hierarchy Standard 3.0): shut, they shut out everyone who needs what is in them.
const DISTRIBUTION: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/sbin",
    "/snap",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/games",
    "/usr/local/include",
    "/usr/local/lib",
    "/usr/local/libexec",
    "/usr/local/man",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/local/src",
    "/var",
    "/var/backups",
    "/var/cache",
    "/var/crash",
    "/var/lib",
    "/var/local",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/run",
    "/var/snap",
    "/var/spool",
    "/var/tmp",
];

/// Directories of the distribution and of its services, with all that is in them.
const DISTRIBUTION_TREES: &[&str] = &[
    "/bin",
    "/boot",
    "/etc/apt",
    "/etc/cdi",
    "/etc/docker",
    "/etc/modprobe.d",
    "/etc/pam.d",
    "/etc/ssh",
    "/etc/ssl",
    "/etc/sysctl.d",
    "/etc/systemd",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/root/.ssh",
    "/run/docker",
    "/run/containerd",
    "/run/systemd",
    "/run/user",
    "/sbin",
    "/usr",
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/containerd",
    "/var/lib/dbus",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/systemd",
    "/var/log/journal",
];

/// Checks a path for a directory of state: a managed one that is not the distribution's own.
pub(crate) fn mount_path(path: &str) -> Result<(), Wrong> {
    absolute_path(path)?;
    let home = path.strip_prefix("/home/").is_some_and(|user| !user.contains('/'));
    let tree = |place: &&&str| within(path, place) && !(**place == "/usr" && within(path, "/usr/local"));
    if !home && !DISTRIBUTION.contains(&path) && !DISTRIBUTION_TREES.iter().any(|place| tree(&place)) {
        return managed_path(path);
    }
    let whose = if home { "a user's home" } else { "the distribution's own" };
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("NAME");
    Err(wrong(
        format!("`{}` is {whose}: a mount would give it another mode and owner", shown(path)),
        format!("choose a directory of its own, such as `/data/{}`", shown(name)),
    ))
}

/// Whether `inner` is `outer` or lies in it. Both absolute and normalised.
pub(crate) fn within(inner: &str, outer: &str) -> bool {
    inner == outer || outer == "/" || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Checks an absolute, normalised path.
pub(crate) fn absolute_path(path: &str) -> Result<(), Wrong> {
    if !path.starts_with('/') {
        return Err(wrong(
            format!("`{}` is not an absolute path", shown(path)),
            "write it from the root: `/…`",
        ));
    }
    if path.chars().any(char::is_control) {
        return Err(wrong("a path holds a control character", "remove it"));
    }
    if path == "/" {
        return Ok(());
    }
    let odd = path.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..");
    if odd {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        return Err(wrong(
            format!("`{}` is not in its plain form", shown(path)),
            format!("write `/{}`", parts.join("/")),
        ));
    }
    Ok(())
}

/// Checks a path that bedplate may make on a host.
pub(crate) fn managed_path(path: &str) -> Result<(), Wrong> {
    absolute_path(path)?;
    if path == "/" {
        return Err(wrong("`/` itself cannot be managed", "name a directory or file below it"));
    }
    if let Some(place) = RESERVED.iter().find(|place| within(path, place) || within(place, path)) {
        let owner = if place.contains("bedplate") { "bedplate" } else { "the kernel" };
        return Err(wrong(
            format!("`{}` touches `{place}`, which belongs to {owner}", shown(path)),
            "choose another path",
        ));
    }
    Ok(())
}

/// Checks a path relative to the profile. It may climb (`../deployments/x.yaml`).
pub(crate) fn input_path(path: &str) -> Result<(), Wrong> {
    relative_path(path, "profile")
}

/// Checks the path of a file relative to the file that names it, which is a `noun`.
pub(crate) fn relative_path(path: &str, noun: &str) -> Result<(), Wrong> {
    if path.starts_with('/') || path.starts_with('~') {
        return Err(wrong(
            format!("`{}` is not relative to the {noun}", shown(path)),
            format!(
                "keep it in the same repository and write `../…`, so that the {noun} works on any machine"
            ),
        ));
    }
    if path.ends_with('/') || path.chars().any(char::is_control) {
        return Err(wrong(format!("`{}` is not the path of a file", shown(path)), "name the file itself"));
    }
    Ok(())
}

/// Reads permission bits: octal, quoted, four digits.
pub(crate) fn mode(text: &str) -> Result<u32, Wrong> {
    let octal = text.len() == 4 && text.chars().all(|c| ('0'..='7').contains(&c));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal => Ok(mode),
        Ok(mode) if mode <= 0o7777 && text.chars().all(|c| c.is_ascii_digit()) => {
            Err(wrong(format!("mode `{text}` is not four octal digits"), format!("write \"{mode:04o}\"")))
        }
        _ => Err(wrong(
            format!("mode `{}` is not four octal digits", shown(text)),
            "write it like \"0700\" or \"0644\"",
        )),
    }
}

/// An account or group name, as shadow's `useradd` takes it on Debian.
pub(crate) fn account_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name.len() <= 32
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
}

/// Checks `user:group`: names or numbers.
pub(crate) fn owner(text: &str) -> Result<(), Wrong> {
    let part = |part: &str| account_name(part) || part.parse::<u32>().is_ok_and(|id| id != u32::MAX);
    match text.split_once(':') {
        Some((user, group)) if part(user) && part(group) => Ok(()),
        None if part(text) => Err(wrong(
            format!("owner `{text}` has no group"),
            format!("write \"{text}:{text}\", or the group you mean"),
        )),
        _ => Err(wrong(
            format!("owner `{}` is not `user:group`", shown(text)),
            "write it like \"root:root\" or \"1000:1000\"",
        )),
    }
}

/// A name for an image, a service, a container: Docker's own rule, at most 63 characters so that it
/// also works as a host name on the deployment's network.
pub(crate) fn name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// A host name of one label (RFC 1123, section 2.1; hostname(7)), in lower case.
pub(crate) fn host_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-')
}

/// The name of a secret or variable.
pub(crate) fn variable_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What an image reference says about its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// A digest: always the same.
    Digest,
    /// A tag that names a version.
    Tag,
    /// `latest`, or none.
    Floating,
}

/// Checks an image reference (the grammar of the OCI distribution reference, and `oci:DIR[:TAG]`).
pub(crate) fn image_reference(text: &str) -> Result<Pin, Wrong> {
    let bad = |why: &str| {
        wrong(
            format!("`{}` is not an image reference: {why}", shown(text)),
            "write it like `registry.example/team/image:1.2.3` or `…@sha256:…`",
        )
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad("it holds a space"));
    }
    if text.contains("${") {
        return Err(wrong(
            format!("`{}` holds a variable", shown(text)),
            "write the whole reference, so that it can be locked",
        ));
    }
    if let Some(dir) = text.strip_prefix("oci:") {
        return if dir.is_empty() { Err(bad("no directory after `oci:`")) } else { Ok(Pin::Tag) };
    }
    if text.contains("://") {
        return Err(bad("an image has no `https://` before it"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let good = digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
        if !good {
            return Err(bad("a digest is `sha256:` and 64 hexadecimal digits"));
        }
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        let good = tag.len() <= 128
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !good {
            return Err(bad("a tag is letters, digits, `_`, `.` and `-`"));
        }
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    let first = parts.first().copied().unwrap_or_default();
    if parts.len() > 1 && (first.contains(['.', ':']) || first == "localhost") {
        let (host, port) = first.rsplit_once(':').map_or((first, None), |(host, port)| (host, Some(port)));
        let good = !host.is_empty()
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':'))
            && port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !good {
            return Err(bad("its registry is not a host name"));
        }
        parts.remove(0);
    }
    for part in &parts {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if part.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(bad("a repository is written in lower case"));
        }
        let good = part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(|c| edge(c) || matches!(c, '_' | '.' | '-'));
        if !good {
            return Err(bad("each part is letters, digits, `_`, `.` and `-`"));
        }
    }
    Ok(match (digest, tag) {
        (Some(_), _) => Pin::Digest,
        (None, None | Some("latest")) => Pin::Floating,
        (None, Some(_)) => Pin::Tag,
    })
}

/// A size with Docker's units (`16g`, `512mb`, a number of bytes), powers of 1024.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(split)?;
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0 && *bytes < 1 << 50)
}

/// A duration as Compose writes it (`1m30s`, `500ms`), in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, tail) = rest.split_at_checked(split)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let nanos: i64 = match unit {
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<i64>().ok()?.checked_mul(nanos)?)?;
        rest = tail;
    }
    Some(total)
}

/// What a value says about secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// No reference.
    Plain,
    /// The whole value is a reference to this secret.
    Secret(String),
    /// A reference that cannot be carried out, and what to write.
    Wrong(String, String),
}

/// Reads `${NAME}` or `secret:NAME`.
pub(crate) fn reference(value: &str) -> Reference {
    let inner =
        value.strip_prefix("secret:").or_else(|| value.strip_prefix("${").and_then(|v| v.strip_suffix('}')));
    if let Some(name) = inner {
        if variable_name(name) {
            return Reference::Secret(name.to_owned());
        }
        let head: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let hint = if variable_name(&head) {
            format!("write `secret:{head}`; defaults and other forms of `${{…}}` are not carried out")
        } else {
            "the name of a secret is letters, digits and `_`, such as `secret:HF_TOKEN`".to_owned()
        };
        return Reference::Wrong("is not a reference to a secret".into(), hint);
    }
    if value.contains("${") {
        return Reference::Wrong(
            "holds a `${…}` within other text".into(),
            "only a whole value can be a secret: `${NAME}` or `secret:NAME`; write other values out".into(),
        );
    }
    Reference::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        assert_eq!(image_reference("vllm/vllm-openai:v0.11.0").ok(), Some(Pin::Tag));
        assert_eq!(image_reference("localhost:5000/a").ok(), Some(Pin::Floating));
        assert_eq!(image_reference("127.0.0.1:5000/a/b:1").ok(), Some(Pin::Tag));
        assert_eq!(image_reference(&format!("a@sha256:{}", "0".repeat(64))).ok(), Some(Pin::Digest));
        for bad in ["a b:1", "Upper/case:1", "https://x/y:1", "a@sha256:00", ":1", "a//b:1", "a:-x"] {
            assert!(image_reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_durations_modes() {
        assert_eq!(size("16g"), Some(16 << 30));
        assert_eq!(size("512MB"), Some(512 << 20));
        assert_eq!(size("0"), None);
        assert_eq!(size("16x"), None);
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("30"), None);
        assert_eq!(mode("0640").ok(), Some(0o640));
        assert!(mode("640").is_err_and(|(_, hint)| hint.contains("0640")));
        assert!(mode("0o640").is_err());
    }

    #[test]
    fn paths() {
        assert!(managed_path("/data/minerhome").is_ok());
        for bad in
            ["data", "/data/", "/a//b", "/a/../b", "/", "/proc/x", "/var/lib", "/run/bedplate/x", "/sys"]
        {
            assert!(managed_path(bad).is_err(), "{bad}");
        }
        for good in [
            "/data",
            "/data/x",
            "/srv/x",
            "/opt/models",
            "/var/lib/models",
            "/home/miner/.cache/hf",
            "/mnt/nvme",
            "/root/x",
            "/usr/local/share/models",
            "/var/log/miner",
            "/etc/miner",
        ] {
            assert!(mount_path(good).is_ok(), "{good}");
        }
        for bad in [
            "/",
            "/usr",
            "/usr/share",
            "/usr/local/bin",
            "/var/lib/docker",
            "/var/lib/docker/volumes",
            "/home",
            "/home/miner",
            "/root",
            "/root/.ssh",
            "/var",
            "/etc",
            "/etc/ssh",
            "/boot",
            "/boot/efi",
            "/bin",
            "/lib",
            "/lib64",
            "/sbin",
            "/opt",
            "/srv",
            "/tmp",
            "/var/lib",
            "/var/log",
            "/run",
            "/proc/x",
            "/var/lib/bedplate/x",
            "data",
        ] {
            assert!(mount_path(bad).is_err(), "{bad}");
        }
        assert!(within("/data/x", "/data") && !within("/database", "/data"));
    }

    #[test]
    fn secret_references() {
        assert_eq!(reference("${A}"), Reference::Secret("A".into()));
        assert_eq!(reference("secret:A_B"), Reference::Secret("A_B".into()));
        assert_eq!(reference("plain"), Reference::Plain);
        assert!(matches!(reference("x${A}"), Reference::Wrong(..)));
        assert!(matches!(reference("${A:-b}"), Reference::Wrong(_, hint) if hint.contains("secret:A")));
    }
}
