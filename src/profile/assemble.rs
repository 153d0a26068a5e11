//! From a deployment to its services: every default filled in, every injected variable set.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Published,
    compose_form::LOOPBACK,
    deployment::{Deployment, Engine, GpuIds, Sidecar},
    services::{ImageChoice, Role, SecretFile, SecretUse, Service, Volume},
    sidecars,
};

/// Where the model cache is mounted in the engine's container.
const CACHE: &str = "/root/.cache/huggingface";
/// The file SGLang reads its API key from (`sglang.launch_server --config FILE`, flags as YAML keys).
const SGLANG_CONFIG: &str = "/run/bedplate/sglang.yaml";
/// Service and host name of the exporter.
const EXPORTER: &str = "dcgm-exporter";
/// The exporter's port in its container.
const EXPORTER_PORT: u16 = 9400;
/// Port agent and collector listen on unless the file says otherwise.
const LISTEN_PORT: u16 = 8080;

/// The services in dependency order.
pub(crate) fn services(deployment: &Deployment) -> Vec<Service> {
    let mut services = vec![engine(deployment)];
    services.extend(deployment.dcgm_exporter.as_ref().map(|sidecar| exporter(deployment, sidecar)));
    services.extend(deployment.miner_client.as_ref().map(|sidecar| agent(deployment, sidecar)));
    services.extend(deployment.metrics_collector.as_ref().map(|sidecar| collector(deployment, sidecar)));
    for (name, extra) in &deployment.extra_services {
        let mut service = from_sidecar(deployment, &extra.common, Role::Extra, name);
        service.working_dir.clone_from(&extra.working_dir);
        service.user.clone_from(&extra.user);
        service.cap_drop.clone_from(&extra.cap_drop);
        service.read_only = extra.read_only;
        service.tmpfs.clone_from(&extra.tmpfs);
        service.shm_size = extra.shm_size;
        services.push(service);
    }
    let edges: Vec<(&str, BTreeSet<&str>)> = services
        .iter()
        .map(|service| (service.name.as_str(), service.depends_on.iter().map(String::as_str).collect()))
        .collect();
    // Parsing refuses cycles; a deployment made by hand keeps the order of its parts.
    let order = order(&edges).unwrap_or_else(|_| (0..edges.len()).collect());
    let mut slots: Vec<Option<Service>> = services.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| slots.get_mut(at).and_then(Option::take)).collect()
}

/// Positions in dependency order, or the names along a cycle.
pub(crate) fn order<'a>(nodes: &[(&'a str, BTreeSet<&'a str>)]) -> Result<Vec<usize>, Vec<&'a str>> {
    let mut done: Vec<usize> = Vec::new();
    let mut ready: BTreeSet<&str> = BTreeSet::new();
    let known: BTreeSet<&str> = nodes.iter().map(|(name, _)| *name).collect();
    while done.len() < nodes.len() {
        let open = |at: &usize| !done.contains(at);
        let next = (0..nodes.len()).filter(open).find(|at| {
            nodes
                .get(*at)
                .is_some_and(|(_, needs)| needs.iter().all(|n| ready.contains(n) || !known.contains(n)))
        });
        let Some(next) = next else {
            let stuck: Vec<usize> = (0..nodes.len()).filter(open).collect();
            return Err(cycle(nodes, &stuck));
        };
        done.push(next);
        ready.extend(nodes.get(next).map(|(name, _)| *name));
    }
    Ok(done)
}

/// Walks from one stuck node to another until one comes again.
fn cycle<'a>(nodes: &[(&'a str, BTreeSet<&'a str>)], stuck: &[usize]) -> Vec<&'a str> {
    let needs: BTreeMap<&str, &BTreeSet<&'a str>> =
        stuck.iter().filter_map(|at| nodes.get(*at)).map(|(name, needs)| (*name, needs)).collect();
    let mut path: Vec<&'a str> = Vec::new();
    let mut here = stuck.first().and_then(|at| nodes.get(*at)).map(|(name, _)| *name);
    while let Some(name) = here {
        if let Some(start) = path.iter().position(|known| *known == name) {
            path.drain(..start);
            path.push(name);
            return path;
        }
        path.push(name);
        here = needs.get(name).and_then(|set| set.iter().find(|need| needs.contains_key(*need)).copied());
    }
    path
}

fn engine(deployment: &Deployment) -> Service {
    let d = deployment;
    let text = str::to_owned;
    let mut entrypoint = None;
    let mut secrets: BTreeMap<String, SecretUse> = required(&d.env_secrets);
    let mut secret_files = BTreeMap::new();
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().copied().map(text));
    let (port, shards) = (d.port.to_string(), d.tensor_parallel.to_string());
    let length = d.max_model_len.map(|length| length.to_string());
    match d.engine {
        Engine::Vllm => {
            add(&[&d.model, "--host", &d.host, "--port", &port, "--tensor-parallel-size", &shards]);
            if d.trust_remote_code {
                add(&["--trust-remote-code"]);
            }
            if let Some(dtype) = &d.dtype {
                add(&["--dtype", dtype]);
            }
            if let Some(length) = &length {
                add(&["--max-model-len", length]);
            }
            if let Some(secret) = &d.api_key {
                secrets.insert(text("VLLM_API_KEY"), SecretUse { secret: secret.clone(), required: true });
            }
        }
        Engine::Sglang => {
            entrypoint = Some(["python", "-m", "sglang.launch_server"].map(text).to_vec());
            add(&["--host", &d.host, "--port", &port, "--model-path", &d.model, "--tp", &shards]);
            if let Some(dtype) = &d.dtype {
                add(&["--dtype", dtype]);
            }
            if d.trust_remote_code {
                add(&["--trust-remote-code"]);
            }
            if let Some(length) = &length {
                add(&["--context-length", length]);
            }
            if let Some(secret) = &d.api_key {
                add(&["--config", SGLANG_CONFIG]);
                let secret = SecretUse { secret: secret.clone(), required: true };
                secret_files.insert(text(SGLANG_CONFIG), SecretFile { secret, key: text("api-key") });
            }
        }
    }
    arguments.extend(d.extra_args.iter().cloned());
    // The token is optional: a public model needs none. `runtime.hf-token` says when it is missed.
    secrets
        .entry(text("HF_TOKEN"))
        .or_insert_with(|| SecretUse { secret: d.hf_token.clone(), required: false });
    let mut environment = d.env.clone();
    for (name, value) in [
        ("HF_HOME", CACHE.to_owned()),
        ("HUGGINGFACE_HUB_CACHE", format!("{CACHE}/hub")),
        ("TRANSFORMERS_CACHE", format!("{CACHE}/hub")),
    ] {
        if !secrets.contains_key(name) {
            environment.entry(text(name)).or_insert(value);
        }
    }
    let image =
        d.image.clone().map_or_else(|| ImageChoice::Named(text(d.engine.name())), ImageChoice::Reference);
    Service {
        name: d.name.clone(),
        role: Role::Engine,
        container_name: d.name.clone(),
        image,
        entrypoint,
        command: Some(arguments),
        environment,
        secrets,
        secret_files,
        volumes: vec![Volume { source: d.hf_cache.clone(), target: text(CACHE), read_only: false }],
        ports: BTreeSet::from([Published {
            address: d.publish,
            host_port: d.port,
            container_port: d.port,
            protocol: "tcp",
        }]),
        gpus: Some(d.gpu_ids.clone()),
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        shm_size: Some(d.shm_size),
        depends_on: BTreeSet::new(),
        labels: BTreeMap::new(),
        healthcheck: None,
        user: None,
        working_dir: None,
        read_only: false,
        tmpfs: Vec::new(),
        restart_on_failure: true,
    }
}

fn required(secrets: &BTreeMap<String, String>) -> BTreeMap<String, SecretUse> {
    secrets
        .iter()
        .map(|(name, secret)| (name.clone(), SecretUse { secret: secret.clone(), required: true }))
        .collect()
}

/// What every service but the engine has.
fn from_sidecar(deployment: &Deployment, sidecar: &Sidecar, role: Role, default: &str) -> Service {
    let name = sidecar.service_name.clone().unwrap_or_else(|| default.to_owned());
    let container_name =
        sidecar.container_name.clone().unwrap_or_else(|| format!("{}-{name}", deployment.name));
    let image =
        sidecar.image.clone().map_or_else(|| ImageChoice::Named(default.to_owned()), ImageChoice::Reference);
    Service {
        name,
        role,
        container_name,
        image,
        entrypoint: sidecar.entrypoint.clone(),
        command: sidecar.command.clone(),
        environment: sidecar.environment.clone(),
        secrets: required(&sidecar.secrets),
        secret_files: BTreeMap::new(),
        volumes: sidecar.volumes.clone(),
        ports: sidecar.ports.clone().unwrap_or_default(),
        gpus: sidecar.gpus.clone(),
        cap_add: sidecar.cap_add.clone().unwrap_or_default(),
        cap_drop: Vec::new(),
        shm_size: None,
        depends_on: sidecar.depends_on.iter().cloned().collect(),
        labels: sidecar.labels.clone(),
        healthcheck: sidecar.healthcheck.clone(),
        user: None,
        working_dir: None,
        read_only: false,
        tmpfs: Vec::new(),
        restart_on_failure: sidecar.restart.as_deref() != Some("no"),
    }
}

fn exporter(deployment: &Deployment, sidecar: &Sidecar) -> Service {
    let mut service = from_sidecar(deployment, sidecar, Role::Exporter, EXPORTER);
    if sidecar.ports.is_none() {
        service.ports = BTreeSet::from([Published {
            address: LOOPBACK,
            host_port: EXPORTER_PORT,
            container_port: EXPORTER_PORT,
            protocol: "tcp",
        }]);
    }
    if sidecar.cap_add.is_none() {
        service.cap_add = vec!["SYS_ADMIN".to_owned()];
    }
    service.gpus = Some(sidecar.gpus.clone().unwrap_or(GpuIds::All));
    service
}

/// Sets a variable unless the file sets it, plainly or from a secret.
fn inject(service: &mut Service, name: &str, value: impl Into<String>) {
    if !service.secrets.contains_key(name) {
        service.environment.entry(name.to_owned()).or_insert_with(|| value.into());
    }
}

/// Takes a variable from a secret unless the file sets it.
fn inject_secret(service: &mut Service, name: &str, secret: &str, required: bool) {
    if service.environment.get(name).is_some_and(String::is_empty) {
        service.environment.remove(name);
    }
    if !service.environment.contains_key(name) {
        let using = SecretUse { secret: secret.to_owned(), required };
        service.secrets.entry(name.to_owned()).or_insert(using);
    }
}

/// Binds the API: on the container's loopback, or on all its addresses where it is published.
fn listen(service: &mut Service, sidecar: &Sidecar, host_variable: &str, port_variable: &str) {
    let published =
        sidecar.host_port.is_some() || sidecar.ports.as_ref().is_some_and(|ports| !ports.is_empty());
    let host = sidecar.listen_host.as_deref().unwrap_or(if published { "0.0.0.0" } else { "127.0.0.1" });
    let port = sidecar.listen_port.unwrap_or(LISTEN_PORT);
    inject(service, host_variable, host);
    inject(service, port_variable, port.to_string());
    if let Some(host_port) = &sidecar.host_port {
        let set = service.environment.get(port_variable).and_then(|value| value.parse().ok());
        service.ports.insert(Published {
            address: host_port.address.unwrap_or(LOOPBACK),
            host_port: host_port.port,
            container_port: set.unwrap_or(port),
            protocol: "tcp",
        });
    }
}

/// Agent and collector wait for what they read from.
fn wait_for_sources(service: &mut Service, deployment: &Deployment) {
    service.depends_on.insert(deployment.name.clone());
    if deployment.dcgm_exporter.is_some() {
        service.depends_on.insert(EXPORTER.to_owned());
    }
}

fn agent(deployment: &Deployment, sidecar: &Sidecar) -> Service {
    let mut service = from_sidecar(deployment, sidecar, Role::Agent, "miner-client");
    listen(&mut service, sidecar, "MINER_HTTP_HOST", "MINER_HTTP_PORT");
    if let Some(address) = &sidecar.public_ip {
        inject(&mut service, "MINER_PUBLIC_IP", address);
    }
    inject(&mut service, "MINER_RUNTIME_TYPE", deployment.engine.name());
    inject(&mut service, "MODELDOCK_DEPLOYMENT_NAME", &deployment.name);
    let upstream = sidecar.upstream_http_url.clone();
    let upstream = upstream.unwrap_or_else(|| format!("http://{}:{}", deployment.name, deployment.port));
    inject(&mut service, "MINER_VLLM_BASE_URL", upstream);
    if deployment.dcgm_exporter.is_some() {
        let path = sidecar.dcgm_metrics_path.as_deref().unwrap_or("/metrics");
        inject(&mut service, "MINER_DCGM_METRICS_URL", format!("http://{EXPORTER}:{EXPORTER_PORT}{path}"));
    }
    inject_secret(&mut service, "MINER_TOKEN", "MINER_TOKEN", false);
    match &deployment.api_key {
        // The engine asks for this key, so the agent must have the same.
        Some(secret) => inject_secret(&mut service, "MINER_VLLM_API_KEY", secret, true),
        None => inject_secret(&mut service, "MINER_VLLM_API_KEY", "MINER_VLLM_API_KEY", false),
    }
    inject_secret(&mut service, "MINER_API_KEY", "MINER_API_KEY", sidecars::agent_is_public(sidecar));
    wait_for_sources(&mut service, deployment);
    service
}

fn collector(deployment: &Deployment, sidecar: &Sidecar) -> Service {
    let mut service = from_sidecar(deployment, sidecar, Role::Collector, "metrics-collector");
    listen(&mut service, sidecar, "COLLECTOR_HTTP_HOST", "COLLECTOR_HTTP_PORT");
    let upstream = sidecar.upstream_http_url.clone();
    let upstream = upstream.unwrap_or_else(|| format!("http://{}:{}", deployment.name, deployment.port));
    let upstream = upstream.trim_end_matches('/');
    let metrics =
        if upstream.ends_with("/metrics") { upstream.to_owned() } else { format!("{upstream}/metrics") };
    inject(&mut service, "INFERENCE_METRICS_URL", metrics);
    if deployment.dcgm_exporter.is_some() {
        inject(&mut service, "DCGM_EXPORTER_URL", format!("http://{EXPORTER}:{EXPORTER_PORT}/metrics"));
    }
    inject(&mut service, "MODELDOCK_DEPLOYMENT_NAME", &deployment.name);
    inject(&mut service, "MODELDOCK_ENGINE", deployment.engine.name());
    wait_for_sources(&mut service, deployment);
    service
}
