//! Values in Compose's own forms: environment, ports, volumes, commands, GPUs, health checks.
//! The grammar is the Compose Specification's; what is not carried out is refused by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{
    Published,
    decode::{Decoder, Text},
    deployment::Healthcheck,
    forms::{self, Reference},
    secrets_like::{self, shown},
    services::Volume,
    tree::{Node, Scalar, Span, Value},
};

/// Where things are published unless an address is given.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An environment: plain values and references to secrets.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) plain: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
}

/// Reads an environment, as a map or a list of `NAME=VALUE`. `strings`: numbers and booleans must be
/// quoted. `secret`: variables that may only come from a secret.
pub(crate) fn environment(
    d: &Decoder<'_>,
    node: &Node,
    what: &str,
    strings: bool,
    secret: &[&str],
) -> Environment {
    let mut environment = Environment::default();
    let mut add = |name: &str, name_span: &Span, value: Text| {
        let what = format!("{what}.{}", shown(name));
        if !forms::variable_name(name) {
            d.error(
                name_span,
                format!("`{}` is not a variable's name", shown(name)),
                "",
                "letters, digits and `_`",
            );
            return;
        }
        match forms::reference(&value.value) {
            Reference::Secret(secret) => {
                environment.secrets.insert(name.to_owned(), secret);
            }
            Reference::Wrong(message, hint) => d.error(&value.span, format!("`{what}` {message}"), "", hint),
            Reference::Plain => {
                let must = secret.contains(&name) && !value.value.is_empty();
                if must || secrets_like::variable_is_secret(name, &value.value) {
                    literal(d, &value.span, &what, name);
                    return;
                }
                environment.plain.insert(name.to_owned(), value.value);
            }
        }
    };
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let path = format!("{what}.{}", shown(&entry.key));
                if entry.node.is_null() {
                    let hint = format!("write a value, or `secret:{}` if it is a secret", entry.key);
                    d.error(&entry.key_span, format!("`{path}` has no value"), "empty", hint);
                    continue;
                }
                let number = !matches!(&entry.node.value, Value::Scalar { kind: Scalar::Text, .. });
                if number
                    && (secret.contains(&entry.key.as_str()) || secrets_like::name_says_secret(&entry.key))
                {
                    literal(d, &entry.node.span, &path, &entry.key);
                    continue;
                }
                let value =
                    if strings { d.any_text(&entry.node, &path) } else { d.scalar(&entry.node, &path) };
                if let Some(value) = value {
                    add(&entry.key, &entry.key_span, value);
                }
            }
        }
        Value::List(items) if !strings => {
            for item in items {
                let Some(text) = d.text(item, what) else { continue };
                let Some((name, value)) = text.value.split_once('=') else {
                    let hint = "write `NAME=VALUE`; nothing is taken from the shell's environment";
                    d.error(&text.span, format!("an entry of `{what}` has no value"), "no `=`", hint);
                    continue;
                };
                add(name, &text.span, Text { value: value.to_owned(), span: text.span.clone() });
            }
        }
        _ => d.wanted(node, what, "a table", "write `NAME: \"value\"` lines"),
    }
    environment
}

/// Refuses a literal secret, hides it, and says how to move it.
pub(crate) fn literal(d: &Decoder<'_>, span: &Span, what: &str, name: &str) {
    d.hide(span);
    let hint = format!(
        "write `secret:{name}` and give the profile `[secrets] {name} = {{ env = \"{name}\" }}`; \
         `bedplate init --from FILE` does it for the whole file"
    );
    d.error(span, format!("`{what}` holds a literal secret"), "hidden here", hint);
}

/// Refuses words that hold a secret or a reference to one: arguments are seen by everyone on the host.
pub(crate) fn public_words(d: &Decoder<'_>, texts: &[Text], what: &str) {
    let mut last = "";
    for text in texts {
        let value = text.value.as_str();
        // A commit looks like a token and is none.
        let revision =
            last.ends_with("revision") || value.split('=').next().is_some_and(|k| k.ends_with("revision"));
        if (secrets_like::looks_secret(value) && !revision) || secrets_like::holds_known_token(value) {
            d.hide(&text.span);
            let hint =
                "arguments are seen by everyone on the host: put it in the environment as `secret:NAME`";
            d.error(&text.span, format!("`{what}` holds a literal secret"), "hidden here", hint);
        } else if forms::reference(value) != Reference::Plain {
            let hint = "arguments are seen by everyone on the host and no variables are filled in: \
                        put a secret in the environment as `secret:NAME`, write other values out";
            d.error(&text.span, format!("`{what}` holds a reference"), "", hint);
        }
        last = value;
    }
}

/// A command or entrypoint: a list, or one string split as a shell would.
pub(crate) fn command(d: &Decoder<'_>, node: &Node, what: &str) -> Option<Vec<String>> {
    let texts: Vec<Text> = if let Value::List(items) = &node.value {
        items.iter().filter_map(|item| d.scalar(item, what)).collect()
    } else {
        let text = d.any_text(node, what)?;
        let Some(words) = shlex::split(&text.value) else {
            d.error(&text.span, format!("`{what}` has an open quote"), "", "close it, or write a list");
            return None;
        };
        words.into_iter().map(|value| Text { value, span: text.span.clone() }).collect()
    };
    public_words(d, &texts, what);
    Some(texts.into_iter().map(|text| text.value).collect())
}

/// Labels, as a map or a list of `NAME=VALUE`.
pub(crate) fn labels(d: &Decoder<'_>, node: &Node, what: &str) -> BTreeMap<String, String> {
    let mut pairs: Vec<(String, String, Span)> = Vec::new();
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                if let Some(value) = d.scalar(&entry.node, &format!("{what}.{}", shown(&entry.key))) {
                    pairs.push((entry.key.clone(), value.value, value.span));
                }
            }
        }
        Value::List(items) => {
            for item in items {
                let Some(text) = d.text(item, what) else { continue };
                let (name, value) = text.value.split_once('=').unwrap_or((&text.value, ""));
                pairs.push((name.to_owned(), value.to_owned(), text.span.clone()));
            }
        }
        Value::Scalar { .. } => d.wanted(node, what, "a table or a list of `NAME=VALUE`", ""),
    }
    let mut labels = BTreeMap::new();
    for (name, value, span) in pairs {
        if name.starts_with("bedplate.") {
            d.error(&span, format!("label `{}` is bedplate's own", shown(&name)), "", "choose another name");
        } else if secrets_like::variable_is_secret(&name, &value) {
            d.hide(&span);
            d.error(
                &span,
                format!("a label in `{what}` holds a literal secret"),
                "hidden here",
                "labels are public: remove it",
            );
        } else {
            labels.insert(name, value);
        }
    }
    labels
}

/// Published ports, in the short and the long form, each with its place.
pub(crate) fn ports(d: &Decoder<'_>, node: &Node, what: &str) -> Vec<(Published, Span)> {
    let mut ports: Vec<(Published, Span)> = Vec::new();
    for item in d.list(node, what).unwrap_or_default() {
        let port = if matches!(item.value, Value::Table(_)) {
            long_port(d, item, what)
        } else {
            d.scalar(item, what).and_then(|text| short_port(d, &text, what))
        };
        if let Some(port) = port {
            if ports.iter().any(|(known, _)| *known == port) {
                d.error(&item.span, "the same port is published twice", "again here", "keep one of them");
            }
            ports.push((port, item.span.clone()));
        }
    }
    ports
}

fn port_error(d: &Decoder<'_>, text: &Text, why: &str) {
    let hint = "write `HOST_PORT:CONTAINER_PORT` or `ADDRESS:HOST_PORT:CONTAINER_PORT`, such as \"127.0.0.1:9400:9400\"";
    d.error(&text.span, format!("`{}` is not a published port: {why}", shown(&text.value)), "", hint);
}

fn number(text: &str) -> Option<u16> {
    text.parse::<u16>().ok().filter(|port| *port > 0)
}

fn short_port(d: &Decoder<'_>, text: &Text, _what: &str) -> Option<Published> {
    let (rest, protocol) = text.value.split_once('/').unwrap_or((&text.value, "tcp"));
    let protocol = match protocol {
        "tcp" => "tcp",
        "udp" => "udp",
        _ => {
            port_error(d, text, "the protocol is `tcp` or `udp`");
            return None;
        }
    };
    let Some((rest, container)) = rest.rsplit_once(':') else {
        port_error(d, text, "no host port is given, so it would be another one at each start");
        return None;
    };
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address.trim_start_matches('[').trim_end_matches(']')), host),
        None => (None, rest),
    };
    if host.contains('-') || container.contains('-') {
        port_error(d, text, "ranges are not carried out; list each port");
        return None;
    }
    let (Some(host_port), Some(container_port)) = (number(host), number(container)) else {
        port_error(d, text, "a port is a number from 1 to 65535");
        return None;
    };
    let address = match address.map(str::parse::<IpAddr>) {
        None => LOOPBACK,
        Some(Ok(address)) => address,
        Some(Err(_)) => {
            port_error(d, text, "the address is not an IP address");
            return None;
        }
    };
    Some(Published { address, host_port, container_port, protocol })
}

fn long_port(d: &Decoder<'_>, node: &Node, what: &str) -> Option<Published> {
    let mut f = d.fields(node, what)?;
    f.required("target", "target: 9400");
    let target = f.port("target");
    f.required("published", "published: 9400");
    let published = f.port("published");
    let address = match f.text("host_ip") {
        None => Some(LOOPBACK),
        Some(text) => address(d, &text),
    };
    let protocol = match f.get("protocol") {
        None => Some("tcp"),
        Some(node) => d.choice(node, &format!("{what}.protocol"), &[("tcp", "tcp"), ("udp", "udp")]),
    };
    f.allow(&["name", "app_protocol", "mode"]);
    f.finish(&[]);
    Some(Published { address: address?, host_port: published?, container_port: target?, protocol: protocol? })
}

/// An IP address.
pub(crate) fn address(d: &Decoder<'_>, text: &Text) -> Option<IpAddr> {
    let parsed = if text.value == "localhost" { Ok(LOOPBACK) } else { text.value.parse() };
    if parsed.is_err() {
        let message = format!("`{}` is not an IP address", shown(&text.value));
        d.error(&text.span, message, "", "write it like \"127.0.0.1\"");
    }
    parsed.ok()
}

/// Volumes, in the short and the long form.
pub(crate) fn volumes(d: &Decoder<'_>, node: &Node, what: &str) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for item in d.list(node, what).unwrap_or_default() {
        let volume = if matches!(item.value, Value::Table(_)) {
            long_volume(d, item, what)
        } else {
            d.text(item, what).and_then(|text| short_volume(d, &text))
        };
        let Some(volume) = volume else { continue };
        if volumes.iter().any(|known| known.target == volume.target) {
            let message = format!("two volumes are mounted at `{}`", shown(&volume.target));
            d.error(&item.span, message, "again here", "keep one of them");
        }
        volumes.push(volume);
    }
    volumes
}

fn short_volume(d: &Decoder<'_>, text: &Text) -> Option<Volume> {
    let parts: Vec<&str> = text.value.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            let message = format!("`{}` is not a volume", shown(&text.value));
            d.error(
                &text.span,
                message,
                "",
                "write `/HOST/DIRECTORY:/PATH/IN/CONTAINER`, with `:ro` where it is only read",
            );
            return None;
        }
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // Relabelling for SELinux, which Debian and Ubuntu do not use.
            "rw" | "z" | "Z" => {}
            _ => {
                let message = format!("volume option `{}` is not carried out", shown(option));
                d.error(&text.span, message, "", "`ro` and `rw` are; remove the others");
                return None;
            }
        }
    }
    volume(d, &text.span, source, target, read_only)
}

fn long_volume(d: &Decoder<'_>, node: &Node, what: &str) -> Option<Volume> {
    let mut f = d.fields(node, what)?;
    let kinds = [("bind", true), ("volume", false)];
    let bind = f.required("type", "type: bind").and_then(|node| d.choice(node, &f.at("type"), &kinds));
    f.required("source", "source: /data/…");
    let source = f.text("source");
    f.required("target", "target: /…");
    let target = f.text("target");
    let read_only = f.boolean("read_only").unwrap_or(false);
    if let Some(mut bind) = f.fields("bind") {
        bind.allow(&["create_host_path"]);
        bind.finish(&[]);
    }
    f.finish(&[("volume", "driver options are not set"), ("tmpfs", "use the service's `tmpfs` list")]);
    let (source, target) = (source?, target?);
    if bind? != source.value.starts_with('/') {
        let hint = "`bind` takes a host directory, `volume` the name of a Docker volume";
        d.error(&source.span, "the volume's `type` and `source` do not fit", "", hint);
    }
    volume(d, &node.span, &source.value, &target.value, read_only)
}

/// Checks both ends of a volume.
fn volume(d: &Decoder<'_>, span: &Span, source: &str, target: &str, read_only: bool) -> Option<Volume> {
    let plain =
        |path: &str| if path == "/" { path.to_owned() } else { path.trim_end_matches('/').to_owned() };
    let (source, target) = (plain(source), plain(target));
    if source.contains("${") || target.contains("${") {
        d.error(span, "a volume holds a variable", "", "write the path out");
        return None;
    }
    let named = !source.starts_with('/');
    let bad = if named {
        let hint = "write the host directory from the root: `/data/…:…`";
        (!forms::name(&source))
            .then(|| (format!("`{}` is not an absolute path", shown(&source)), hint.to_owned()))
    } else {
        forms::absolute_path(&source).err()
    };
    let bad = bad.or_else(|| forms::absolute_path(&target).err()).or_else(|| {
        (target == "/")
            .then(|| ("a volume cannot be mounted at `/`".to_owned(), "name a directory below it".to_owned()))
    });
    if let Some((message, hint)) = bad {
        d.error(span, message, "", hint);
        return None;
    }
    let guarded = ["/run/bedplate", "/var/lib/bedplate"];
    if !named && guarded.iter().any(|place| forms::within(&source, place) || forms::within(place, &source)) {
        let message = format!("`{}` would show the container bedplate's own files", shown(&source));
        d.error(span, message, "secrets lie there", "mount the directory that is needed, no more");
        return None;
    }
    if source.ends_with("/docker.sock") {
        let hint = "whoever has this socket is root on the host; remove the volume if you can";
        d.warn(Some(span), "a container is given the Docker socket", hint);
    }
    Some(Volume { source, target, read_only })
}

/// A health check.
pub(crate) fn healthcheck(d: &Decoder<'_>, node: &Node, what: &str) -> Option<Healthcheck> {
    let mut f = d.fields(node, what)?;
    let disabled = f.boolean("disable").unwrap_or(false);
    let test = f.get("test").and_then(|node| {
        if let Value::List(_) = &node.value {
            let words = d.texts(node, &format!("{what}.test"))?;
            public_words(d, &words, &format!("{what}.test"));
            let words: Vec<String> = words.into_iter().map(|text| text.value).collect();
            if !matches!(words.first().map(String::as_str), Some("NONE" | "CMD" | "CMD-SHELL")) {
                let hint = "start the list with `CMD` or `CMD-SHELL`";
                d.error(&node.span, format!("`{what}.test` does not say how it is run"), "", hint);
            }
            Some(words)
        } else {
            let text = d.text(node, &format!("{what}.test"))?;
            public_words(d, std::slice::from_ref(&text), &format!("{what}.test"));
            Some(vec!["CMD-SHELL".to_owned(), text.value])
        }
    });
    let mut time = |key: &'static str| {
        let text = f.text(key)?;
        let parsed = forms::duration(&text.value);
        if parsed.is_none() {
            let message = format!("`{what}.{key}` is `{}`, wanted a duration", shown(&text.value));
            d.error(&text.span, message, "", "write it like `30s` or `1m30s`");
        }
        parsed
    };
    let (interval, timeout, start_period) = (time("interval"), time("timeout"), time("start_period"));
    let retries = f.integer("retries", 1..=1000).and_then(|n| i64::try_from(n).ok());
    f.finish(&[("start_interval", "Docker 25 and newer only")]);
    let test = if disabled { vec!["NONE".to_owned()] } else { test.unwrap_or_default() };
    Some(Healthcheck { test, interval, timeout, retries, start_period })
}

/// Services that must run first: a list, or a map with conditions.
pub(crate) fn depends_on(d: &Decoder<'_>, node: &Node, what: &str) -> Vec<Text> {
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let path = format!("{what}.{}", shown(&entry.key));
                let Some(mut f) = d.fields(&entry.node, &path) else { continue };
                let conditions = [("service_started", true), ("service_healthy", false)];
                let node = f.get("condition");
                if let Some(node) = node
                    && d.choice(node, &f.at("condition"), &conditions) == Some(false)
                {
                    let hint = "the order is kept, but the dependency is started, not waited for";
                    d.warn(Some(&node.span), format!("`{path}` waits for the start only"), hint);
                }
                f.allow(&["restart", "required"]);
                f.finish(&[]);
            }
            entries
                .iter()
                .map(|entry| Text { value: entry.key.clone(), span: entry.key_span.clone() })
                .collect()
        }
        _ => d.texts(node, what).unwrap_or_default(),
    }
}

/// A restart policy, as written.
pub(crate) fn restart(d: &Decoder<'_>, node: &Node, what: &str) -> Option<String> {
    // YAML 1.1 reads a bare `no` as false.
    if let Value::Scalar { kind: Scalar::Boolean(false), .. } = node.value {
        return Some("no".into());
    }
    let text = d.text(node, what)?;
    let known = ["no", "always", "unless-stopped", "on-failure"];
    let (word, count) = text.value.split_once(':').unwrap_or((&text.value, "0"));
    if !known.contains(&word) || count.parse::<u32>().is_err() {
        let message = format!("`{what}` is `{}`, wanted a restart policy", shown(&text.value));
        d.error(&text.span, message, "", "write `no`, `on-failure`, `always` or `unless-stopped`");
        return None;
    }
    Some(text.value)
}

/// Capabilities, with or without `CAP_`.
pub(crate) fn capabilities(d: &Decoder<'_>, texts: Vec<Text>) -> Vec<String> {
    for text in &texts {
        if !text.value.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            let message = format!("`{}` is not a capability", shown(&text.value));
            d.error(&text.span, message, "", "write it in capitals, such as `SYS_ADMIN`");
        }
    }
    let names: BTreeSet<String> =
        texts.into_iter().map(|text| text.value.trim_start_matches("CAP_").to_owned()).collect();
    names.into_iter().collect()
}
