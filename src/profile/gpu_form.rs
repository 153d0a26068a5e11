//! Which GPUs a container is given: bedplate's own forms and Compose's device requests.

use super::{
    decode::Decoder,
    deployment::GpuIds,
    secrets_like::shown,
    tree::{Node, Scalar, Span, Value},
};

/// GPUs: `all`, a count, a list of ids, `true`/`false`, or Compose's device requests.
pub(crate) fn gpus(d: &Decoder<'_>, node: &Node, what: &str) -> Option<GpuIds> {
    match &node.value {
        Value::Scalar { kind: Scalar::Boolean(wanted), .. } => wanted.then_some(GpuIds::All),
        Value::Scalar { kind: Scalar::Integer(-1), .. } => Some(GpuIds::All),
        Value::Scalar { kind: Scalar::Integer(_), .. } => d
            .integer(node, what, 1..=64)
            .map(|count| GpuIds::List((0..count).map(|id| id.to_string()).collect())),
        Value::Scalar { .. } => {
            let text = d.text(node, what)?;
            match text.value.as_str() {
                "all" => Some(GpuIds::All),
                ids => gpu_list(
                    d,
                    what,
                    ids.split(',').map(|id| (id.trim().to_owned(), text.span.clone())).collect(),
                ),
            }
        }
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Table(_))) => {
            let mut found = None;
            for item in items {
                found = device_request(d, item, what).or(found);
            }
            found
        }
        Value::List(items) => {
            let ids: Vec<(String, Span)> = items
                .iter()
                .filter_map(|item| d.scalar(item, what))
                .map(|text| (text.value, text.span))
                .collect();
            if ids.is_empty() {
                d.error(
                    &node.span,
                    format!("`{what}` is an empty list"),
                    "no GPU",
                    "write `all`, or list indices or UUIDs",
                );
                return None;
            }
            gpu_list(d, what, ids)
        }
        Value::Table(_) => device_request(d, node, what),
    }
}

fn gpu_list(d: &Decoder<'_>, what: &str, ids: Vec<(String, Span)>) -> Option<GpuIds> {
    let mut list: Vec<String> = Vec::new();
    for (id, span) in ids {
        // Indices, UUIDs as `nvidia-smi -L` prints them, MIG devices as `GPU:INSTANCE` or by UUID.
        let index = id.parse::<u16>().is_ok();
        let uuid = id.strip_prefix("GPU-").or_else(|| id.strip_prefix("MIG-")).is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '-' | '/'))
                || rest.strip_prefix("GPU-").is_some_and(|rest| !rest.is_empty())
        });
        let mig = id
            .split_once(':')
            .is_some_and(|(gpu, part)| gpu.parse::<u16>().is_ok() && part.parse::<u16>().is_ok());
        if !index && !uuid && !mig {
            let message = format!("`{}` in `{what}` is not a GPU", shown(&id));
            d.error(
                &span,
                message,
                "",
                "write `all`, an index such as 0, or a UUID as `nvidia-smi -L` shows it",
            );
            return None;
        }
        if list.contains(&id) {
            d.error(
                &span,
                format!("GPU `{id}` is listed twice in `{what}`"),
                "again here",
                "keep one of them",
            );
            return None;
        }
        list.push(id);
    }
    Some(GpuIds::List(list))
}

/// One of Compose's device requests.
fn device_request(d: &Decoder<'_>, node: &Node, what: &str) -> Option<GpuIds> {
    let mut f = d.fields(node, what)?;
    if let Some(node) = f.get("driver") {
        d.choice(node, &f.at("driver"), &[("nvidia", ()), ("cdi", ())]);
    }
    f.allow(&["capabilities"]);
    let count = f.get("count").and_then(|node| gpus(d, node, &f.at("count")));
    let ids = f.get("device_ids").and_then(|node| gpus(d, node, &f.at("device_ids")));
    f.finish(&[]);
    Some(ids.or(count).unwrap_or(GpuIds::All))
}

/// `deploy`: only its GPU reservation is carried out.
pub(crate) fn deploy_gpus(d: &Decoder<'_>, node: &Node, what: &str) -> Option<GpuIds> {
    let mut f = d.fields(node, what)?;
    let mut found = None;
    if let Some(mut resources) = f.fields("resources") {
        if let Some(mut reservations) = resources.fields("reservations") {
            let path = reservations.at("devices");
            found = reservations.get("devices").and_then(|node| gpus(d, node, &path));
            reservations.finish(&[
                ("cpus", "nothing is reserved but GPUs"),
                ("memory", "nothing is reserved but GPUs"),
            ]);
        }
        resources.finish(&[("limits", "containers are not limited")]);
    }
    f.finish(&[("replicas", "a service is one container"), ("restart_policy", "use `restart`")]);
    found
}
