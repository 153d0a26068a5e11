//! Deployment files: YAML to [`Deployment`], as operators already have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    assemble,
    compose_form::{self, Environment, LOOPBACK},
    decode::{Decoder, Fields, Text},
    deployment::{ComposeService, Deployment, Engine, GpuIds, Parsed, Sidecar},
    forms::{self, Reference},
    gpu_form,
    secrets_like::{self, shown},
    services,
    sidecars::{self, Placed},
    tree::{Entry, Node, Scalar, Span, Value},
    tree_yaml,
};
use crate::error::Result;

/// Reads a deployment file.
pub(crate) fn parse(path: &str, text: &str) -> Result<Parsed> {
    let d = Decoder::new(path, text, true);
    let deployment = match tree_yaml::read(text) {
        Ok(node) => read(&d, &node),
        Err(faults) => {
            d.faults(faults);
            None
        }
    };
    let (deployment, warnings) = d.finish(deployment)?;
    Ok(Parsed { deployment, warnings })
}

fn read(d: &Decoder<'_>, node: &Node) -> Option<Deployment> {
    let mut f = d.fields(node, "")?;
    let name = f.required("name", "name: qwen72b").and_then(|node| d.text(node, "name"));
    if let Some(name) = &name {
        sidecars::check_name(d, name, "name");
    }
    let engines = [("vllm", Engine::Vllm), ("sglang", Engine::Sglang)];
    let engine = f.required("engine", "engine: vllm").and_then(|node| d.choice(node, "engine", &engines));
    let model =
        f.required("model", "model: Qwen/Qwen2.5-72B-Instruct").and_then(|node| d.text(node, "model"));
    if let Some(model) = &model
        && (model.value.starts_with('-') || model.value.contains(char::is_whitespace))
    {
        let message =
            format!("`model` is `{}`, which is neither a Hugging Face id nor a path", shown(&model.value));
        d.error(&model.span, message, "", "write it like `Qwen/Qwen2.5-72B-Instruct` or `/models/NAME`");
    }
    let image = f.text("image");
    if let Some(image) = &image
        && let Err((message, hint)) = forms::image_reference(&image.value)
    {
        d.error(&image.span, message, "", hint);
    }
    let host = f.text("host");
    if let Some(host) = &host
        && (host.value == "localhost"
            || host.value.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
    {
        let hint =
            "leave `host` out: the port is published on the host's 127.0.0.1 unless `publish` says otherwise";
        d.warn(
            Some(&host.span),
            "the engine listens on its container's own loopback, where nothing reaches it",
            hint,
        );
    }
    let port = f.port("port").unwrap_or(8000);
    let tensor_parallel =
        f.integer("tensor_parallel", 1..=1024).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let gpu_ids = f.get("gpu_ids").and_then(|node| gpu_ids(d, node, tensor_parallel)).unwrap_or(GpuIds::All);
    let trust_remote_code = trust_remote_code(&mut f);
    let dtype = dtype(&mut f);
    let max_model_len = f.integer("max_model_len", 1..=u64::MAX);
    let api_key = api_key(&mut f);
    let hf_token = hf_token(&mut f);
    let hf_cache = hf_cache(&mut f);
    let shm_size = sidecars::size(&mut f, "shm_size").unwrap_or(16 << 30);
    let extra_args = extra_args(&mut f);
    let env = match f.get("env") {
        Some(node) => compose_form::environment(d, node, "env", true, &["HF_TOKEN", "VLLM_API_KEY"]),
        None => Environment::default(),
    };
    let keyed = api_key.is_some()
        || (engine == Some(Engine::Vllm) && env.secrets.contains_key("VLLM_API_KEY"))
        || f.entries.iter().any(|entry| entry.key == "api_key" && !entry.node.is_null());
    let publish = publish(&mut f, keyed);
    let exporter = f.entry("dcgm_exporter").and_then(|entry| sidecars::exporter(d, entry));
    let agent = agent(&mut f);
    let collector = f.entry("metrics_collector").and_then(|entry| sidecars::collector(d, entry));
    let extras = f.get("extra_services").map(|node| sidecars::extras(d, node)).unwrap_or_default();
    f.finish(&[]);
    if let Some(name) = &name {
        graph(
            d,
            name,
            &[
                (exporter.as_ref(), "dcgm-exporter"),
                (agent.as_ref(), "miner-client"),
                (collector.as_ref(), "metrics-collector"),
            ],
            &extras,
        );
    }
    let deployment = Deployment {
        name: name?.value,
        engine: engine?,
        model: model?.value,
        image: image.map(|text| text.value),
        host: host.map_or_else(|| "0.0.0.0".to_owned(), |text| text.value),
        port,
        publish,
        tensor_parallel,
        gpu_ids,
        trust_remote_code,
        dtype,
        max_model_len,
        api_key,
        hf_token,
        hf_cache,
        shm_size,
        extra_args,
        env: env.plain,
        env_secrets: env.secrets,
        dcgm_exporter: exporter.map(|placed| placed.value),
        miner_client: agent.map(|placed| placed.value),
        metrics_collector: collector.map(|placed| placed.value),
        extra_services: extras.into_iter().map(|(name, placed)| (name, placed.value)).collect(),
    };
    if !d.failed() {
        ports_once(d, node, &deployment);
    }
    Some(deployment)
}

fn gpu_ids(d: &Decoder<'_>, node: &Node, tensor_parallel: u32) -> Option<GpuIds> {
    // A bare number is one index here, not a count.
    let ids = match &node.value {
        Value::Scalar { kind: Scalar::Integer(id), .. } if *id >= 0 => {
            Some(GpuIds::List(vec![id.to_string()]))
        }
        Value::Scalar { kind: Scalar::Text, .. } | Value::List(_) => gpu_form::gpus(d, node, "gpu_ids"),
        _ => {
            d.wanted(node, "gpu_ids", "`all` or a list of indices or UUIDs", "");
            None
        }
    };
    if let Some(GpuIds::List(list)) = &ids
        && list.len() < tensor_parallel as usize
    {
        let message =
            format!("`tensor_parallel` is {tensor_parallel}, but `gpu_ids` names only {}", list.len());
        d.error(&node.span, message, "too few", "name as many GPUs as the model is sharded over");
    }
    ids
}

fn trust_remote_code(f: &mut Fields<'_, '_>) -> bool {
    let span = f.entry("trust_remote_code").map(|entry| entry.key_span.clone());
    let trust = f.boolean("trust_remote_code").unwrap_or(true);
    if trust {
        let hint = "write `trust_remote_code: false` unless the model needs it";
        f.d.warn(
            span.as_ref(),
            "the engine runs code from the model's repository (`trust_remote_code`)",
            hint,
        );
    }
    trust
}

fn dtype(f: &mut Fields<'_, '_>) -> Option<String> {
    // An explicit null leaves the choice to the engine.
    if f.entries.iter().any(|entry| entry.key == "dtype" && entry.node.is_null()) {
        f.allow(&["dtype"]);
        return None;
    }
    let Some(text) = f.text("dtype") else { return Some("bfloat16".to_owned()) };
    if !text.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        let message = format!("`dtype` is `{}`, which is not a data type", shown(&text.value));
        f.d.error(&text.span, message, "", "write it like `bfloat16`, `float16` or `auto`");
    }
    Some(text.value)
}

fn api_key(f: &mut Fields<'_, '_>) -> Option<String> {
    let node = f.get("api_key")?;
    let text = f.d.scalar(node, "api_key")?;
    if let Reference::Secret(name) = forms::reference(&text.value) {
        Some(name)
    } else {
        f.d.hide(&text.span);
        let hint = "write `api_key: secret:API_KEY` and give the profile `[secrets] API_KEY = { env = \"API_KEY\" }`; \
                    `bedplate init --from FILE` does it for the whole file";
        f.d.error(&text.span, "`api_key` holds a literal secret", "hidden here", hint);
        None
    }
}

fn hf_token(f: &mut Fields<'_, '_>) -> String {
    let Some(text) = f.text("hf_token_env") else { return "HF_TOKEN".to_owned() };
    if !forms::variable_name(&text.value) || secrets_like::looks_secret(&text.value) {
        f.d.hide(&text.span);
        let hint = "write the name of the secret, not its value: `hf_token_env: HF_TOKEN`";
        f.d.error(&text.span, "`hf_token_env` is not a secret's name", "hidden here", hint);
    }
    text.value
}

fn hf_cache(f: &mut Fields<'_, '_>) -> String {
    let Some(text) = f.text("hf_cache") else { return "/data/huggingface".to_owned() };
    let path = if text.value == "/" { text.value.as_str() } else { text.value.trim_end_matches('/') };
    if let Err((message, hint)) = forms::managed_path(path) {
        f.d.error(&text.span, message, "", hint);
    }
    path.to_owned()
}

fn extra_args(f: &mut Fields<'_, '_>) -> Vec<String> {
    let Some(node) = f.get("extra_args") else { return Vec::new() };
    let Some(texts) = f.d.texts(node, "extra_args") else { return Vec::new() };
    for text in &texts {
        let flag = text.value.split('=').next().unwrap_or_default();
        if flag == "--api-key" {
            let hint = "remove it with its value and write `api_key: secret:NAME`";
            f.d.hide(&node.span);
            f.d.error(
                &node.span,
                "`extra_args` gives an API key, which everyone on the host would see",
                "hidden here",
                hint,
            );
            return Vec::new();
        }
        let owned =
            ["--host", "--port", "--model", "--model-path", "--tensor-parallel-size", "--tp", "--tp-size"];
        if owned.contains(&flag) {
            let field = match flag {
                "--model" | "--model-path" => "model",
                "--host" => "host",
                "--port" => "port",
                _ => "tensor_parallel",
            };
            let message = format!("`extra_args` sets `{flag}`, which `{field}` decides");
            f.d.warn(
                Some(&text.span),
                message,
                format!("set `{field}` instead, so that checks and sidecars see it"),
            );
        }
    }
    compose_form::public_words(f.d, &texts, "extra_args");
    texts.into_iter().map(|text| text.value).collect()
}

fn publish(f: &mut Fields<'_, '_>, keyed: bool) -> IpAddr {
    let Some(text) = f.text("publish") else { return LOOPBACK };
    let Some(address) = compose_form::address(f.d, &text) else { return LOOPBACK };
    if !address.is_loopback() && !keyed {
        let hint = "add `api_key: secret:API_KEY`, or leave `publish` out for 127.0.0.1";
        let message = format!("`publish` is `{address}`, so that anyone who reaches it may use the engine");
        f.d.error(&text.span, message, "without an API key", hint);
    }
    address
}

fn agent(f: &mut Fields<'_, '_>) -> Option<Placed<Sidecar>> {
    let new = f.entry("miner_client");
    let old = f.entry("custom_service");
    match (new, old) {
        (Some(_), Some(old)) => {
            let message = "`custom_service` is the old name of `miner_client`; both are given";
            f.d.error(
                &old.key_span,
                message,
                "the same thing again",
                "keep `miner_client` and remove this one",
            );
            None
        }
        (Some(entry), None) => sidecars::agent(f.d, entry, "miner_client"),
        (None, Some(entry)) => {
            f.d.warn(
                Some(&entry.key_span),
                "`custom_service` is the old name of `miner_client`",
                "rename it",
            );
            sidecars::agent(f.d, entry, "custom_service")
        }
        (None, None) => None,
    }
}

/// Names are used once, dependencies exist, and nothing waits for itself.
fn graph(
    d: &Decoder<'_>,
    engine: &Text,
    sidecars: &[(Option<&Placed<Sidecar>>, &str)],
    extras: &BTreeMap<String, Placed<ComposeService>>,
) {
    // Service name, container name, place, what it says it depends on.
    let mut nodes: Vec<(String, String, Span, Vec<Text>)> =
        vec![(engine.value.clone(), engine.value.clone(), engine.span.clone(), Vec::new())];
    let mut add = |default: &str, sidecar: &Sidecar, span: &Span, needs: &[Text]| {
        let service = sidecar.service_name.clone().unwrap_or_else(|| default.to_owned());
        let container =
            sidecar.container_name.clone().unwrap_or_else(|| format!("{}-{service}", engine.value));
        nodes.push((service, container, span.clone(), needs.to_vec()));
    };
    for (placed, default) in sidecars {
        if let Some(placed) = placed {
            add(default, &placed.value, &placed.span, &placed.depends_on);
        }
    }
    for (name, placed) in extras {
        add(name, &placed.value.common, &placed.span, &placed.depends_on);
    }
    for (at, (service, container, span, _)) in nodes.iter().enumerate() {
        let before = nodes.iter().take(at);
        for (other, other_container, _, _) in before {
            if service == other {
                let hint = "rename one of them";
                d.error(span, format!("two services are called `{}`", shown(service)), "again here", hint);
            } else if container == other_container {
                let message = format!("two containers are called `{}`", shown(container));
                d.error(span, message, "again here", "give one of them another `container_name`");
            }
        }
    }
    let names: Vec<&str> = nodes.iter().map(|(service, ..)| service.as_str()).collect();
    for (_, _, _, needs) in &nodes {
        for need in needs {
            if !names.contains(&need.value.as_str()) {
                let hint = super::decode::nearest(&need.value, &names).map_or_else(
                    || format!("services here: {}", super::decode::alternatives(&names)),
                    |near| format!("did you mean `{near}`?"),
                );
                d.error(&need.span, format!("there is no service `{}`", shown(&need.value)), "", hint);
            }
        }
    }
    let exporter = nodes.iter().any(|(service, ..)| service == "dcgm-exporter");
    let edges: Vec<(&str, BTreeSet<&str>)> = nodes
        .iter()
        .enumerate()
        .map(|(at, (service, _, _, needs))| {
            let mut needs: BTreeSet<&str> =
                needs.iter().map(|need| need.value.as_str()).filter(|need| names.contains(need)).collect();
            // Agent and collector wait for the engine and the exporter without being told.
            let sidecars = sidecars.iter().filter(|(placed, _)| placed.is_some()).count();
            if at > 0 && at <= sidecars && service != "dcgm-exporter" {
                needs.insert(&engine.value);
                if exporter {
                    needs.insert("dcgm-exporter");
                }
            }
            (service.as_str(), needs)
        })
        .collect();
    if let Err(cycle) = assemble::order(&edges) {
        let name = cycle.first().copied().unwrap_or_default();
        let place = nodes.iter().find(|(service, ..)| service == name);
        let span =
            place.map_or(&engine.span, |(_, _, span, needs)| needs.first().map_or(span, |need| &need.span));
        let message = format!("services wait for each other: {}", cycle.join(" → "));
        d.error(span, message, "waits for itself", "remove one of the `depends_on`");
    }
}

/// Two services cannot publish the same port of the same address.
fn ports_once(d: &Decoder<'_>, node: &Node, deployment: &Deployment) {
    let mut taken: Vec<(IpAddr, u16, &'static str, String)> = Vec::new();
    for service in services::services(deployment) {
        for port in &service.ports {
            let same = |(address, number, protocol, _): &&(IpAddr, u16, &'static str, String)| {
                *number == port.host_port
                    && *protocol == port.protocol
                    && (*address == port.address || address.is_unspecified() || port.address.is_unspecified())
            };
            if let Some((.., other)) = taken.iter().find(same) {
                let message =
                    format!("`{other}` and `{}` publish the same port {}", service.name, port.host_port);
                let span = place(node, &service.name).unwrap_or(0..0);
                d.error(&span, message, "publishes it too", "give one of them another host port");
            }
            taken.push((port.address, port.host_port, port.protocol, service.name.clone()));
        }
    }
}

/// Where a service stands in the file, as near as its name says.
fn place(node: &Node, service: &str) -> Option<Span> {
    let Value::Table(entries) = &node.value else { return None };
    let key = service.replace('-', "_");
    let find =
        |entries: &[Entry], key: &str| entries.iter().find(|e| e.key == key).map(|e| e.key_span.clone());
    find(entries, &key)
        .or_else(|| {
            let extra = entries.iter().find(|entry| entry.key == "extra_services")?;
            let Value::Table(inner) = &extra.node.value else { return None };
            find(inner, service)
        })
        .or_else(|| {
            let sidecar = entries.iter().find(|entry| match &entry.node.value {
                Value::Table(inner) => inner.iter().any(|e| {
                    e.key == "service_name"
                        && matches!(&e.node.value, Value::Scalar { text, .. } if text == service)
                }),
                _ => false,
            })?;
            Some(sidecar.key_span.clone())
        })
        .or_else(|| find(entries, "port"))
        .or_else(|| find(entries, "name"))
}
