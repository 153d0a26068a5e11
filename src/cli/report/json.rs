//! The report for scripts. Its form is published as `docs/reference/report.schema.json`.

use crate::{
    check::{diagnosis::chains, report::Report},
    system::clock,
};

/// The report as JSON: what made it and when, the findings, and what follows from them.
pub fn json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "schema": 1,
        "bedplate": env!("CARGO_PKG_VERSION"),
        "at": clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "subject": report.subject,
        "ready": report.opens_gate(),
        "blame": report.layer_to_blame(),
        "diagnosis": { "causes": chains(report), "ahead": report.ahead() },
        "findings": report.findings,
    })
}
