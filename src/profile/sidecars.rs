//! The exporter, the agent, the collector and `extra_services` of a deployment file.

use std::collections::BTreeMap;

use super::{
    Published,
    compose_form::{self, LOOPBACK},
    decode::{Decoder, Fields, Text},
    deployment::{ComposeService, HostPort, Sidecar},
    forms, gpu_form,
    secrets_like::shown,
    tree::{Entry, Node, Scalar, Span, Value},
};

/// Where the agent keeps its identity unless `MINER_HOME` says otherwise.
pub(crate) const MINER_HOME: &str = "/root/.miner";
/// Variables of the agent that only ever come from a secret.
pub(crate) const AGENT_SECRETS: &[&str] = &["MINER_TOKEN", "MINER_VLLM_API_KEY", "MINER_API_KEY"];

/// A service read from the file, with places for the rules that look at several.
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
    pub(crate) depends_on: Vec<Text>,
}

/// Keys of Compose that are known and not carried out, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("build", "images come from the lock; build it elsewhere and name it with `image`"),
    ("privileged", "a privileged container is root on the host; name what it needs with `cap_add`"),
    ("network_mode", "each deployment has a network of its own; publish what is needed with `ports`"),
    ("networks", "each deployment has a network of its own"),
    ("pid", "host processes are not shown to containers"),
    ("ipc", "use `shm_size` for shared memory"),
    ("userns_mode", "the engine's user namespace is the host's choice"),
    ("uts", "the host's name is not shared"),
    ("cgroup", "the engine decides it"),
    ("cgroup_parent", "the engine decides it"),
    ("devices", "GPUs are given with `gpus`; other devices are not given"),
    ("device_cgroup_rules", "devices are not given"),
    ("env_file", "the lock would not know its content; use `environment`, and `secret:NAME` for secrets"),
    ("secrets", "name secrets in `environment` as `secret:NAME`"),
    ("configs", "put configuration in the profile as `[[file]]` and mount it with `volumes`"),
    ("extends", "write the service out"),
    ("profiles", "a service is started or it is not in the file"),
    ("hostname", "the service's name is its host name"),
    ("domainname", "the service's name is its host name"),
    ("container_name_prefix", "use `container_name`"),
    ("links", "services reach each other by name"),
    ("external_links", "services reach each other by name"),
    ("extra_hosts", "names come from the network"),
    ("dns", "names come from the host's resolver"),
    ("dns_search", "names come from the host's resolver"),
    ("security_opt", "the engine's defaults are kept"),
    ("sysctls", "set them in the profile as `[[file]]` under /etc/sysctl.d"),
    ("ulimits", "set them in the profile's `[container.daemon]` as `default-ulimits`"),
    ("logging", "set it in the profile's `[container.daemon]` as `log-opts`"),
    ("runtime", "`[container] gpu-access` of the profile decides it"),
    ("platform", "the lock holds one platform"),
    ("pull_policy", "images come from the lock by digest"),
    ("scale", "a service is one container"),
    ("init", "the image's own entrypoint runs first"),
    ("stdin_open", "services run without a terminal"),
    ("tty", "services run without a terminal"),
    ("stop_signal", "the image's own signal is used"),
    ("stop_grace_period", "all services are given the same time"),
    ("volumes_from", "name the volumes"),
    ("group_add", "use `user`"),
    ("mem_limit", "containers are not limited"),
    ("cpus", "containers are not limited"),
    ("cpuset", "containers are not limited"),
    ("pids_limit", "containers are not limited"),
    ("oom_kill_disable", "a container out of memory is ended"),
    ("oom_score_adj", "the engine's default is kept"),
    ("attach", "output is read with `bedplate logs`"),
    ("annotations", "use `labels`"),
    ("post_start", "hooks are not run"),
    ("pre_stop", "hooks are not run"),
];

fn image(f: &mut Fields<'_, '_>) -> Option<String> {
    let text = f.text("image")?;
    if let Err((message, hint)) = forms::image_reference(&text.value) {
        f.d.error(&text.span, message, "", hint);
    }
    Some(text.value)
}

fn name(f: &mut Fields<'_, '_>, key: &'static str) -> Option<String> {
    let text = f.text(key)?;
    check_name(f.d, &text, &f.at(key));
    Some(text.value)
}

/// Checks a container or service name.
pub(crate) fn check_name(d: &Decoder<'_>, text: &Text, what: &str) {
    if !forms::name(&text.value) {
        let message = format!("`{what}` is `{}`, which is not a container's name", shown(&text.value));
        d.error(
            &text.span,
            message,
            "",
            "letters, digits, `.`, `_` and `-`, a letter or digit first, at most 63",
        );
    }
}

/// `host_port`: `PORT` or `ADDRESS:PORT`.
fn host_port(f: &mut Fields<'_, '_>) -> Option<(HostPort, Span)> {
    let what = f.at("host_port");
    let node = f.get("host_port")?;
    if let Value::Scalar { kind: Scalar::Text, text } = &node.value
        && let Some((address, port)) = text.rsplit_once(':')
    {
        let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = compose_form::address(f.d, &Text { value: address, span: node.span.clone() })?;
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
            let message = format!("`{what}` is `{}`, wanted `PORT` or `ADDRESS:PORT`", shown(text));
            f.d.error(&node.span, message, "", "write it like 8080 or \"127.0.0.1:8080\"");
            return None;
        };
        return Some((HostPort { address: Some(address), port }, node.span.clone()));
    }
    let port = f.d.integer(node, &what, 1..=65535)?;
    Some((HostPort { address: None, port: u16::try_from(port).ok()? }, node.span.clone()))
}

/// Reads keys that all services have; each only where it is named in `keys`.
fn common(
    f: &mut Fields<'_, '_>,
    keys: &[&str],
    strict_env: bool,
    secret: &[&str],
) -> (Sidecar, Vec<Text>, Vec<(Published, Span)>) {
    let has = |key: &str| keys.contains(&key);
    let mut sidecar = Sidecar { image: image(f), ..Sidecar::default() };
    let (mut depends_on, mut ports) = (Vec::new(), Vec::new());
    macro_rules! read {
        ($key:literal, $read:path) => {{
            let what = f.at($key);
            if has($key) { f.get($key).map(|node| $read(f.d, node, &what)) } else { None }
        }};
    }
    sidecar.container_name = name(f, "container_name");
    let what = f.at("environment");
    if let Some(node) = f.get("environment") {
        let environment = compose_form::environment(f.d, node, &what, strict_env, secret);
        sidecar.environment = environment.plain;
        sidecar.secrets = environment.secrets;
    }
    sidecar.command = read!("command", compose_form::command).flatten();
    sidecar.entrypoint = read!("entrypoint", compose_form::command).flatten();
    sidecar.volumes = read!("volumes", compose_form::volumes).unwrap_or_default();
    if let Some(list) = read!("ports", compose_form::ports) {
        sidecar.ports = Some(list.iter().map(|(port, _)| port.clone()).collect());
        ports = list;
    }
    sidecar.labels = read!("labels", compose_form::labels).unwrap_or_default();
    sidecar.gpus = read!("gpus", gpu_form::gpus).flatten();
    if let Some(texts) = read!("depends_on", compose_form::depends_on) {
        sidecar.depends_on = texts.iter().map(|text| text.value.clone()).collect();
        depends_on = texts;
    }
    sidecar.healthcheck = read!("healthcheck", compose_form::healthcheck).flatten();
    sidecar.restart = read!("restart", compose_form::restart).flatten();
    if has("cap_add") && f.get("cap_add").is_some() {
        let texts = f.texts("cap_add");
        sidecar.cap_add = Some(compose_form::capabilities(f.d, texts));
    }
    (sidecar, depends_on, ports)
}

/// Whether a sidecar's table is switched on.
fn enabled(f: &mut Fields<'_, '_>) -> bool {
    let enabled = f.boolean("enabled");
    if enabled.is_none()
        && let Some(first) = f.entries.iter().find(|entry| entry.key != "enabled")
    {
        let table = f.at("");
        let message = format!("`{}` is described, but not enabled", table.trim_end_matches('.'));
        f.d.warn(Some(&first.key_span), message, "add `enabled: true`, or remove it");
    }
    enabled.unwrap_or(false)
}

/// `dcgm_exporter`.
pub(crate) fn exporter(d: &Decoder<'_>, entry: &Entry) -> Option<Placed<Sidecar>> {
    let mut f = d.fields(&entry.node, "dcgm_exporter")?;
    let enabled = enabled(&mut f);
    let keys = ["command", "volumes", "ports", "gpus", "restart", "cap_add"];
    let (sidecar, depends_on, ports) = common(&mut f, &keys, true, &[]);
    public_ports(d, &ports, "dcgm_exporter.ports");
    f.finish(&[]);
    enabled.then_some(Placed { value: sidecar, span: entry.key_span.clone(), depends_on })
}

const OVERRIDES: &[&str] =
    &["command", "entrypoint", "volumes", "ports", "labels", "gpus", "depends_on", "healthcheck", "restart"];

fn listening(f: &mut Fields<'_, '_>, sidecar: &mut Sidecar) -> Option<Span> {
    sidecar.service_name = name(f, "service_name");
    if let Some(text) = f.text("listen_host") {
        if text.value != "localhost" && text.value.parse::<std::net::IpAddr>().is_err() {
            let message =
                format!("`{}` is `{}`, which is not an address", f.at("listen_host"), shown(&text.value));
            f.d.error(&text.span, message, "", "write \"127.0.0.1\" or \"0.0.0.0\"");
        }
        sidecar.listen_host = Some(text.value);
    }
    sidecar.listen_port = f.port("listen_port");
    let host_port = host_port(f);
    if let Some(text) = f.text("upstream_http_url") {
        if !text.value.starts_with("http://") && !text.value.starts_with("https://") {
            let message = format!("`{}` is not an address", f.at("upstream_http_url"));
            f.d.error(&text.span, message, "", "write it like `http://HOST:PORT`");
        } else if super::secrets_like::looks_secret(&text.value) {
            f.d.hide(&text.span);
            let message = format!("`{}` holds a literal secret", f.at("upstream_http_url"));
            f.d.error(&text.span, message, "hidden here", "give the key in `environment` as `secret:NAME`");
        }
        sidecar.upstream_http_url = Some(text.value);
    }
    let span = host_port.as_ref().map(|(_, span)| span.clone());
    sidecar.host_port = host_port.map(|(port, _)| port);
    span
}

/// `miner_client`: the node agent. `key` is the name the file uses for it.
pub(crate) fn agent(d: &Decoder<'_>, entry: &Entry, key: &str) -> Option<Placed<Sidecar>> {
    let mut f = d.fields(&entry.node, key)?;
    let enabled = enabled(&mut f);
    let (mut sidecar, depends_on, ports) = common(&mut f, OVERRIDES, true, AGENT_SECRETS);
    let host_port = listening(&mut f, &mut sidecar);
    if let Some(text) = f.text("public_ip") {
        let address = text.value.parse::<std::net::IpAddr>().is_ok();
        let host = text.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        if !address && !host {
            let message =
                format!("`{}` is `{}`, which is not an address", f.at("public_ip"), shown(&text.value));
            f.d.error(&text.span, message, "", "write the node's public address, such as \"203.0.113.7\"");
        }
        sidecar.public_ip = Some(text.value);
    }
    if let Some(text) = f.text("dcgm_metrics_path") {
        if !text.value.starts_with('/') {
            let message = format!("`{}` does not start with `/`", f.at("dcgm_metrics_path"));
            f.d.error(&text.span, message, "", "write it like \"/metrics\"");
        }
        sidecar.dcgm_metrics_path = Some(text.value);
    }
    if enabled {
        if sidecar.image.is_none() {
            f.required("image", "image: registry.example/miner-agent:0.3.1");
        }
        if sidecar.public_ip.is_none() {
            f.required("public_ip", "public_ip: \"203.0.113.7\"");
        }
        identity(&f, entry, &sidecar);
        agent_exposure(&f, &sidecar, host_port.as_ref(), &ports);
    }
    f.finish(&[]);
    enabled.then_some(Placed { value: sidecar, span: entry.key_span.clone(), depends_on })
}

/// Without a volume for its home the agent would be another node after each restart.
fn identity(f: &Fields<'_, '_>, entry: &Entry, agent: &Sidecar) {
    let home = agent.environment.get("MINER_HOME").map_or(MINER_HOME, String::as_str);
    let covering = agent.volumes.iter().find(|volume| forms::within(home, &volume.target));
    let broken = f.entries.iter().any(|entry| entry.key == "volumes" && f.d.failed_within(&entry.node.span));
    match covering {
        Some(volume) if volume.read_only => {
            let message =
                format!("`{}` is mounted read-only, but the agent writes its identity there", volume.target);
            let span = f
                .entries
                .iter()
                .find(|entry| entry.key == "volumes")
                .map_or(&entry.key_span, |e| &e.node.span);
            f.d.error(span, message, "read-only", "remove `:ro`");
        }
        Some(_) => {}
        None if broken => {}
        None => {
            let message = format!(
                "`{}` has no volume for `{home}`: each restart would be a new identity",
                shown(&entry.key)
            );
            let hint = format!(
                "add `volumes: [\"/data/minerhome:{home}\"]`, and the directory to the profile as a `[[mount]]` with \
                 mode \"0700\"; `bedplate init --from FILE` does it"
            );
            f.d.error(&entry.key_span, message, "keeps its keys in the container", hint);
        }
    }
}

/// The agent's API on a public address: a key is needed, and a word said.
fn agent_exposure(
    f: &Fields<'_, '_>,
    agent: &Sidecar,
    host_port: Option<&Span>,
    ports: &[(Published, Span)],
) {
    let public =
        agent.host_port.as_ref().and_then(|port| port.address).filter(|address| !address.is_loopback());
    let spans = public.and(host_port).into_iter();
    let others = ports.iter().filter(|(port, _)| !port.address.is_loopback()).map(|(_, span)| span);
    for span in spans.chain(others) {
        let hint = "the profile must have a secret `MINER_API_KEY`; better keep it on 127.0.0.1 behind a proxy with TLS";
        f.d.warn(Some(span), "the agent's API is published on a public address", hint);
    }
}

/// Whether the agent's API is published on anything but loopback.
pub(crate) fn agent_is_public(agent: &Sidecar) -> bool {
    let host_port = agent.host_port.as_ref().and_then(|port| port.address);
    host_port.is_some_and(|address| !address.is_loopback())
        || agent.ports.iter().flatten().any(|port| !port.address.is_loopback())
}

fn public_ports(d: &Decoder<'_>, ports: &[(Published, Span)], what: &str) {
    for (port, span) in ports.iter().filter(|(port, _)| !port.address.is_loopback()) {
        let message = format!("`{what}` publishes port {} on a public address", port.host_port);
        d.warn(
            Some(span),
            message,
            format!(
                "write \"{LOOPBACK}:{}:{}\" unless others must reach it",
                port.host_port, port.container_port
            ),
        );
    }
}

/// `metrics_collector`.
pub(crate) fn collector(d: &Decoder<'_>, entry: &Entry) -> Option<Placed<Sidecar>> {
    let mut f = d.fields(&entry.node, "metrics_collector")?;
    let enabled = enabled(&mut f);
    let (mut sidecar, depends_on, ports) = common(&mut f, OVERRIDES, true, &[]);
    let span = listening(&mut f, &mut sidecar);
    if enabled && sidecar.image.is_none() {
        f.required("image", "image: registry.example/metrics-collector:1.0.0");
    }
    if let (Some(span), Some(port)) = (span, &sidecar.host_port)
        && port.address.is_some_and(|address| !address.is_loopback())
    {
        d.warn(
            Some(&span),
            "the collector is published on a public address",
            "leave the address out for 127.0.0.1",
        );
    }
    public_ports(d, &ports, "metrics_collector.ports");
    f.finish(&[]);
    enabled.then_some(Placed { value: sidecar, span: entry.key_span.clone(), depends_on })
}

/// `extra_services`.
pub(crate) fn extras(d: &Decoder<'_>, node: &Node) -> BTreeMap<String, Placed<ComposeService>> {
    let mut services = BTreeMap::new();
    let Some(f) = d.fields(node, "extra_services") else { return services };
    for entry in f.entries {
        let what = f.at(&shown(&entry.key));
        check_name(d, &Text { value: entry.key.clone(), span: entry.key_span.clone() }, &what);
        if let Some(service) = extra(d, entry, &what) {
            services.insert(entry.key.clone(), service);
        }
    }
    services
}

fn extra(d: &Decoder<'_>, entry: &Entry, what: &str) -> Option<Placed<ComposeService>> {
    let mut f = d.fields(&entry.node, what)?;
    let mut keys = OVERRIDES.to_vec();
    keys.push("cap_add");
    let (mut common, depends_on, ports) = common(&mut f, &keys, false, &[]);
    if common.image.is_none() {
        f.required("image", "image: registry.example/image:1.0.0");
    }
    public_ports(d, &ports, &f.at("ports"));
    if let Some(node) = f.get("deploy") {
        common.gpus = gpu_form::deploy_gpus(d, node, &f.at("deploy")).or(common.gpus);
    }
    let dropped = f.texts("cap_drop");
    let user_path = f.at("user");
    let mut service = ComposeService {
        common,
        working_dir: f.text("working_dir").map(|text| absolute(d, text)),
        user: f.get("user").and_then(|node| d.scalar(node, &user_path)).map(|text| text.value),
        cap_drop: compose_form::capabilities(d, dropped),
        read_only: f.boolean("read_only").unwrap_or(false),
        tmpfs: Vec::new(),
        shm_size: size(&mut f, "shm_size"),
    };
    let tmpfs = match f.get("tmpfs") {
        Some(node) if matches!(node.value, Value::List(_)) => f.texts("tmpfs"),
        Some(_) => f.text("tmpfs").into_iter().collect(),
        None => Vec::new(),
    };
    for text in tmpfs {
        if let Some((path, _)) = text.value.split_once(':') {
            d.error(
                &text.span,
                "options of a tmpfs are not carried out",
                "",
                format!("write `{}`", shown(path)),
            );
        }
        service.tmpfs.push(absolute(d, text));
    }
    // `expose` changes nothing on a network of one's own; `x-…` is Compose's room for remarks.
    f.allow(&["expose"]);
    let refused: Vec<(&str, &str)> = REFUSED.to_vec();
    f.finish_with(&refused, |key| key.starts_with("x-"));
    Some(Placed { value: service, span: entry.key_span.clone(), depends_on })
}

fn absolute(d: &Decoder<'_>, text: Text) -> String {
    let path = text.value.split(':').next().unwrap_or_default();
    if let Err((message, hint)) = forms::absolute_path(path) {
        d.error(&text.span, message, "", hint);
    }
    text.value
}

/// A size with units.
pub(crate) fn size(f: &mut Fields<'_, '_>, key: &'static str) -> Option<u64> {
    let what = f.at(key);
    let node = f.get(key)?;
    if matches!(&node.value, Value::Scalar { kind: Scalar::Text, text } if text.trim().is_empty()) {
        f.d.text(node, &what);
        return None;
    }
    let text = f.d.scalar(node, &what)?;
    let size = forms::size(&text.value);
    if size.is_none() {
        let message = format!("`{what}` is `{}`, wanted a size", shown(&text.value));
        f.d.error(&text.span, message, "", "write it like `16g` or `512m`");
    }
    size
}
