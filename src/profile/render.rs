//! Services in Compose's form.

use std::fmt::Write as _;

use super::{
    deployment::{GpuIds, Healthcheck},
    services::{ImageChoice, Service},
};

/// A small YAML writer: block form, every string in double quotes.
struct Yaml {
    out: String,
    depth: usize,
}

/// A string as JSON writes it, which is YAML too (YAML 1.2, section 1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A key: bare where it is a plain word.
fn key(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

impl Yaml {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{:width$}{text}", "", width = self.depth * 2);
    }

    fn pair(&mut self, name: &str, value: &str) {
        self.line(&format!("{}: {value}", key(name)));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.pair(name, &quoted(value));
    }

    fn block(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.line(&format!("{}:", key(name)));
        self.depth += 1;
        write(self);
        self.depth -= 1;
    }

    fn list<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        let items: Vec<String> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
        if items.is_empty() {
            return;
        }
        self.block(name, |yaml| {
            for item in &items {
                yaml.line(&format!("- {item}"));
            }
        });
    }

    fn map<'a>(&mut self, name: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) {
        let mut pairs: Vec<(&str, String)> = pairs.into_iter().collect();
        pairs.sort();
        if pairs.is_empty() {
            return;
        }
        self.block(name, |yaml| {
            for (name, value) in &pairs {
                yaml.text(name, value);
            }
        });
    }
}

/// A string in which Compose would find no variable.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// Writes services in Compose's form.
pub(crate) fn render(name: &str, services: &[Service]) -> String {
    let mut yaml = Yaml { out: String::new(), depth: 0 };
    yaml.line("# What `bedplate up` starts, in Compose's form. Read it; bedplate does not use Compose.");
    yaml.line(
        "# A value `secret:NAME` is handed in as a file and never stands in the container's configuration.",
    );
    yaml.text("name", name);
    yaml.block("services", |yaml| {
        for service in services {
            yaml.block(&service.name, |yaml| write_service(yaml, service));
        }
    });
    yaml.out
}

fn write_service(yaml: &mut Yaml, service: &Service) {
    yaml.text("container_name", &service.container_name);
    match &service.image {
        ImageChoice::Reference(reference) => yaml.text("image", &escaped(reference)),
        ImageChoice::Named(name) => {
            yaml.line(&format!("# the profile's image `{name}`"));
            yaml.text("image", name);
        }
    }
    if let Some(entrypoint) = &service.entrypoint {
        yaml.list("entrypoint", entrypoint.iter().map(|word| escaped(word)));
    }
    if let Some(command) = &service.command {
        yaml.list("command", command.iter().map(|word| escaped(word)));
    }
    let plain = service.environment.iter().map(|(name, value)| (name.as_str(), escaped(value)));
    let secrets =
        service.secrets.iter().map(|(name, using)| (name.as_str(), format!("secret:{}", using.secret)));
    yaml.map("environment", plain.chain(secrets));
    for (path, file) in &service.secret_files {
        yaml.line(&format!("# `{path}` holds `{}: secret:{}`", file.key, file.secret.secret));
    }
    yaml.list(
        "volumes",
        service.volumes.iter().map(|volume| {
            let end = if volume.read_only { ":ro" } else { "" };
            escaped(&format!("{}:{}{end}", volume.source, volume.target))
        }),
    );
    yaml.list(
        "ports",
        service.ports.iter().map(|port| {
            let address =
                if port.address.is_ipv6() { format!("[{}]", port.address) } else { port.address.to_string() };
            let protocol = if port.protocol == "tcp" { "" } else { "/udp" };
            format!("{address}:{}:{}{protocol}", port.host_port, port.container_port)
        }),
    );
    if let Some(gpus) = &service.gpus {
        write_gpus(yaml, gpus);
    }
    yaml.list("cap_add", &service.cap_add);
    yaml.list("cap_drop", &service.cap_drop);
    if let Some(size) = service.shm_size {
        yaml.pair("shm_size", &size.to_string());
    }
    yaml.list("depends_on", &service.depends_on);
    yaml.map("labels", service.labels.iter().map(|(name, value)| (name.as_str(), escaped(value))));
    if let Some(healthcheck) = &service.healthcheck {
        write_healthcheck(yaml, healthcheck);
    }
    if let Some(user) = &service.user {
        yaml.text("user", &escaped(user));
    }
    if let Some(dir) = &service.working_dir {
        yaml.text("working_dir", &escaped(dir));
    }
    if service.read_only {
        yaml.pair("read_only", "true");
    }
    yaml.list("tmpfs", &service.tmpfs);
    yaml.text("restart", if service.restart_on_failure { "on-failure" } else { "no" });
}

fn write_gpus(yaml: &mut Yaml, gpus: &GpuIds) {
    match gpus {
        GpuIds::All => yaml.text("gpus", "all"),
        GpuIds::List(ids) => yaml.block("gpus", |yaml| {
            let ids: Vec<String> = ids.iter().map(|id| quoted(id)).collect();
            yaml.line("- driver: nvidia");
            yaml.line(&format!("  device_ids: [{}]", ids.join(", ")));
        }),
    }
}

fn write_healthcheck(yaml: &mut Yaml, healthcheck: &Healthcheck) {
    yaml.block("healthcheck", |yaml| {
        let test: Vec<String> = healthcheck.test.iter().map(|word| quoted(&escaped(word))).collect();
        yaml.pair("test", &format!("[{}]", test.join(", ")));
        let mut time = |name: &str, nanos: Option<i64>| {
            if let Some(nanos) = nanos {
                yaml.text(name, &format!("{}us", nanos / 1000));
            }
        };
        time("interval", healthcheck.interval);
        time("timeout", healthcheck.timeout);
        time("start_period", healthcheck.start_period);
        if let Some(retries) = healthcheck.retries {
            yaml.pair("retries", &retries.to_string());
        }
    });
}
