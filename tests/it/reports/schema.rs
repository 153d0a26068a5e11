//! `docs/reference/report.schema.json` against reports, by a validator that is not ours: Debian's python3-jsonschema.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use bedplate::{check::report::Report, cli::report};
use serde_json::{Value, json};

use super::{every_outcome, leaking};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/report.schema.json");

/// Reads the schema, and a list of reports on standard input; writes for each why it is refused, or null.
const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator as Validator
schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
def why(report):
    error = next(Validator(schema).iter_errors(report), None)
    return error and f'{list(error.absolute_path)}: {error.message}'
json.dump([why(report) for report in json.load(sys.stdin)], sys.stdout)
";

/// Why each is refused; `None`: it keeps the schema.
fn judged(reports: &[Value]) -> Vec<Option<String>> {
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", VALIDATE, SCHEMA])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), reports).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed (tests/setup/packages.sh installs it)");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn reports_keep_the_published_schema() {
    let place = leaking("token.env");
    let recorded = place.run(["doctor", "p", "--record", "facts.json", "--format", "json"]).exits(3).json();
    let judge = ["doctor", "p", "--facts", "facts.json", "--format", "json"];
    let reports = [
        recorded,
        place.run(judge).exits(3).json(),
        place.run(["toolkit", "verify", "p", "--format", "json"]).exits(3).json(),
        report::json(&every_outcome()),
        report::json(&Report::default()),
    ];
    for (report, why) in reports.iter().zip(judged(&reports)) {
        assert_eq!(why, None, "{report:#}");
    }
    // What is printed is described: a key that came in has its line.
    let schema: Value = serde_json::from_slice(&std::fs::read(Path::new(SCHEMA)).unwrap()).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let known = keys(&schema["properties"]);
    let known_of_finding = keys(&schema["$defs"]["finding"]["properties"]);
    for report in &reports {
        assert!(keys(report).is_subset(&known), "not in the schema: {:?}", keys(report));
        for finding in report["findings"].as_array().unwrap() {
            assert!(keys(finding).is_subset(&known_of_finding), "not in the schema: {:?}", keys(finding));
        }
    }
}

#[test]
fn what_is_no_report_is_refused() {
    let good = report::json(&every_outcome());
    let mut wrong = Vec::new();
    for key in ["schema", "bedplate", "at", "subject", "ready", "blame", "findings"] {
        let mut report = good.clone();
        report.as_object_mut().unwrap().remove(key);
        wrong.push(report);
    }
    for key in ["id", "layer", "weight", "outcome", "because"] {
        let mut report = good.clone();
        report["findings"][0].as_object_mut().unwrap().remove(key);
        wrong.push(report);
    }
    for (place, value) in [
        ("/schema", json!(2)),
        ("/at", json!("yesterday")),
        ("/ready", json!("yes")),
        ("/blame", json!("driver")),
        ("/findings", json!({})),
        ("/findings/0/outcome", json!("FAIL")),
        ("/findings/0/weight", json!("heavy")),
        ("/findings/0/layer", json!("host")),
        ("/findings/0/id", json!("host")),
        ("/findings/0/because", json!("")),
        ("/findings/2/evidence", json!("a: b")),
        ("/findings/2/next", json!(null)),
    ] {
        let mut report = good.clone();
        *report.pointer_mut(place).unwrap() = value;
        wrong.push(report);
    }
    wrong.push(json!([]));
    for (report, why) in wrong.iter().zip(judged(&wrong)) {
        assert!(why.is_some(), "taken for a report: {report:#}");
    }
}
