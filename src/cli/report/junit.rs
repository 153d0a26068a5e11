//! The report for test collectors: a suite for each layer.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::{LAYERS, command, word};
use crate::{
    check::report::{Finding, Outcome, Report},
    error::{Doing as _, Result},
};

/// The report as JUnit.
///
/// # Errors
/// It cannot be written as XML.
pub fn junit(report: &Report) -> Result<String> {
    let mut junit = Junit::new("bedplate");
    for layer in LAYERS {
        let findings: Vec<_> = report.findings.iter().filter(|finding| finding.layer == layer).collect();
        if findings.is_empty() {
            continue;
        }
        let mut suite = TestSuite::new(command(layer));
        for finding in findings {
            suite.add_test_case(case(finding));
        }
        junit.add_test_suite(suite);
    }
    junit.to_string().doing(|| "writing JUnit failed")
}

fn case(finding: &Finding) -> TestCase {
    let status = match finding.outcome {
        Outcome::Pass | Outcome::Warn => TestCaseStatus::success(),
        _ if finding.accepted.is_some() => TestCaseStatus::success(),
        Outcome::Fail => non_success(NonSuccessKind::Failure, finding),
        Outcome::Unknown => non_success(NonSuccessKind::Error, finding),
        Outcome::Skipped | Outcome::NotApplicable => {
            let mut status = TestCaseStatus::skipped();
            let also = finding.ahead.as_ref().map(|ahead| format!("; fails as well: {}", ahead.because));
            status.set_message(format!("{}{}", finding.because, also.unwrap_or_default()));
            status
        }
    };
    let mut case = TestCase::new(finding.id.clone(), status);
    case.set_classname(command(finding.layer));
    let mut lines = vec![format!("{}: {}", word(finding.outcome), finding.because)];
    lines.extend(finding.evidence.iter().cloned());
    lines.extend(finding.next.iter().map(|next| format!("next: {next}")));
    lines.extend(finding.accepted.iter().map(|reason| format!("accepted: {reason}")));
    if let Some(ahead) = &finding.ahead {
        lines.push(format!("fails as well: {}", ahead.because));
        lines.extend(ahead.evidence.iter().cloned());
        lines.extend(ahead.next.iter().map(|next| format!("then: {next}")));
    }
    case.set_system_out(lines.join("\n"));
    case
}

fn non_success(kind: NonSuccessKind, finding: &Finding) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(finding.because.clone());
    status
}
