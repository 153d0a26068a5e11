//! A stand-in for a metrics exporter, and for the metrics collector: `/metrics` on `EXPORTER_PORT` or
//! `COLLECTOR_HTTP_PORT` (default 9400).

mod http;

use std::time::Instant;

fn main() {
    http::end_on_sigterm();
    let started = Instant::now();
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = env("COLLECTOR_HTTP_HOST").unwrap_or_else(|| "0.0.0.0".into());
    let port = env("EXPORTER_PORT").or_else(|| env("COLLECTOR_HTTP_PORT")).unwrap_or_else(|| "9400".into());
    println!("INFO: listening on {host}:{port}");
    http::serve(&format!("{host}:{port}"), move |request| match request.path.as_str() {
        "/metrics" => (
            200,
            format!(
                "# HELP exporter_uptime_seconds Time since the exporter started.\n\
                 # TYPE exporter_uptime_seconds gauge\nexporter_uptime_seconds {}\n\
                 # HELP DCGM_FI_DEV_COUNT GPUs that were seen: none on this machine.\n\
                 # TYPE DCGM_FI_DEV_COUNT gauge\nDCGM_FI_DEV_COUNT 0\n",
                started.elapsed().as_secs()
            ),
        ),
        "/health" | "/healthz" => (200, r#"{"status":"ok"}"#.into()),
        _ => (404, r#"{"error":"not found"}"#.into()),
    });
}
