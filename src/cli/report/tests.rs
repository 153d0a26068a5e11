use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::check::report::{Ahead, Weight};

fn finding(id: &str, layer: Layer, outcome: Outcome) -> Finding {
    Finding {
        id: id.into(),
        layer,
        weight: Weight::Required,
        outcome,
        because: format!("because of {id}"),
        evidence: vec!["path: value".into()],
        next: Some("do this".into()),
        accepted: None,
        ahead: None,
    }
}

fn report() -> Report {
    Report {
        subject: "host".into(),
        findings: vec![
            finding("host.os", Layer::Doctor, Outcome::Pass),
            finding("gpu.pci", Layer::Doctor, Outcome::Fail),
            finding("docker.daemon", Layer::Toolkit, Outcome::Skipped),
        ],
    }
}

fn plain(report: &Report, verbose: bool, width: Option<usize>) -> String {
    anstream::adapter::strip_str(&table::table(report, verbose, width)).to_string()
}

#[test]
fn the_table_names_the_layer_and_one_next_step_a_failure() {
    let text = plain(&report(), false, None);
    assert!(text.contains("FAIL     gpu.pci        because of gpu.pci"), "{text}");
    assert_eq!(text.matches("next: do this").count(), 1, "{text}");
    assert!(text.contains("the layer to blame is the host (`doctor`)"), "{text}");
    assert!(text.contains("start with gpu.pci"), "{text}");
}

#[test]
fn a_chain_is_one_cause_with_what_follows() {
    let text = plain(&report(), false, None);
    assert!(text.contains("\ngpu.pci failed; skipped: docker.daemon\nstart with gpu.pci"), "{text}");
    let shown = json(&report());
    let causes = shown["diagnosis"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 1);
    assert_eq!((&causes[0]["id"], &causes[0]["next"]), (&"gpu.pci".into(), &"do this".into()));
    assert_eq!(causes[0]["consequences"][0]["id"], "docker.daemon");
    // With nothing to mend nothing is said.
    let fine = Report { findings: report().findings[..1].to_vec(), ..report() };
    assert_eq!(json(&fine)["diagnosis"]["causes"], serde_json::json!([]));
    assert!(!plain(&fine, false, None).contains("; skipped"));
}

#[test]
fn what_fails_as_well_is_in_every_format() {
    let mut report = report();
    report.findings.push(Finding {
        ahead: Some(Ahead {
            because: "image \x1b`vllm` is not pulled".into(),
            evidence: vec!["docker: none".into()],
            next: Some("provision".into()),
        }),
        next: None,
        ..finding("image.present", Layer::Runtime, Outcome::Skipped)
    });
    let text = plain(&report, false, Some(90));
    let wanted = [
        "  skipped  image.present  because of image.present",
        "                          fails as well: image \\u{1b}`vllm` is not pulled",
        "                          docker: none",
        "                          then: provision",
    ];
    assert!(text.contains(&wanted.join("\n")), "{text}");
    let end = [
        "gpu.pci failed; skipped: docker.daemon",
        "these fail as well, and can be mended in the same round: image.present",
        "start with gpu.pci: `bedplate explain gpu.pci`\n",
    ];
    assert!(text.ends_with(&end.join("\n")), "{text}");
    assert_eq!(json(&report)["findings"][3]["ahead"]["next"], "provision");
    assert_eq!(json(&report)["diagnosis"]["ahead"], serde_json::json!(["image.present"]));
    assert!(junit(&report).unwrap().contains("fails as well: image"));
    let page = html(&report, Timestamp::UNIX_EPOCH).unwrap();
    assert!(page.contains("these fail as well") && page.contains("1 skipped: not judged"), "{page}");
    assert!(!page.contains('\x1b') && page.matches("provision").count() == 2, "{page}");
    assert!(!html(&self::report(), Timestamp::UNIX_EPOCH).unwrap().contains("fail as well"));
}

#[test]
fn what_does_not_apply_for_one_reason_is_one_line() {
    let mut report = report();
    for id in ["gpu.count", "gpu.ecc", "toolkit.wiring"] {
        let because = "the profile's host has no GPUs".into();
        report.findings.push(Finding { because, ..finding(id, Layer::Toolkit, Outcome::NotApplicable) });
    }
    report.findings.push(finding("toolkit.smoke", Layer::Toolkit, Outcome::NotApplicable));
    let text = plain(&report, false, None);
    assert!(text.contains("n/a      gpu.* (2)       the profile's host has no GPUs\n"), "{text}");
    assert!(text.contains("  toolkit.wiring  the") && text.contains("  toolkit.smoke   because"), "{text}");
    assert!(text.contains("4 n/a"), "{text}");
    let whole = plain(&report, true, None);
    assert!(whole.contains("gpu.count") && whole.contains("gpu.ecc"), "{whole}");
}

#[test]
fn every_format_holds_the_same_findings() {
    let mut report = report();
    report.findings[2].accepted = Some("until March".into());
    let json = json(&report).to_string();
    let xml = junit(&report).unwrap();
    let page = html(&report, Timestamp::UNIX_EPOCH).unwrap();
    for held in
        ["host.os", "gpu.pci", "docker.daemon", "because of docker.daemon", "path: value", "until March"]
    {
        for text in [&json, &xml, &page, &plain(&report, true, None)] {
            assert!(text.contains(held), "{held} is not in {text}");
        }
    }
    assert!(xml.contains("failures=\"1\"") && json.contains("\"ready\":false"));
    assert!(page.contains("1970-01-01T00:00:00Z"));
}

/// A report with lines that are too long for any terminal.
fn long() -> Report {
    let mut report = report();
    let fail = &mut report.findings[1];
    fail.because = "none of the eight cards that the profile asks for answers on the bus of this host".into();
    fail.next = Some(
        "power the host off and on, then look at the cards' seats; where they stay away: `bedplate explain gpu.pci`"
            .into(),
    );
    report
}

#[test]
fn on_a_terminal_long_lines_hang_below_their_own_column() {
    let text = plain(&long(), false, Some(72));
    let wanted = [
        "  FAIL     gpu.pci        none of the eight cards that the profile asks",
        "                          for answers on the bus of this host",
        "                          path: value",
        "                          next: power the host off and on, then look at",
        "                            the cards' seats; where they stay away:",
        "                            `bedplate explain gpu.pci`",
    ];
    assert!(text.contains(&wanted.join("\n")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 72), "{text}");
}

#[test]
fn on_a_narrow_terminal_what_was_found_stands_below() {
    let text = plain(&long(), false, Some(40));
    let wanted = [
        "  FAIL     gpu.pci",
        "    none of the eight cards that the",
        "    profile asks for answers on the bus",
    ];
    assert!(text.contains(&wanted.join("\n")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
}

#[test]
fn where_there_is_no_terminal_a_line_is_a_line() {
    let report = long();
    let text = plain(&report, false, None);
    let fail = &report.findings[1];
    assert!(text.contains(&format!("{}\n", fail.because)), "{text}");
    assert!(text.contains(&format!("next: {}\n", fail.next.as_deref().unwrap())), "{text}");
}

#[test]
fn what_a_host_says_cannot_move_the_cursor_or_turn_the_line() {
    let mut report = report();
    report.findings[1].because = "one\u{1b}[2J\ntwo".into();
    report.findings[1].evidence = vec!["/tmp/\u{202e}txt.exe".into()];
    let text = table::table(&report, false, None);
    let text = text.replace("\u{1b}[", "");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    assert!(text.contains("one\\u{1b}[2J\n                          two\n"), "{text}");
    assert!(text.contains("/tmp/\\u{202e}txt.exe"), "{text}");
}

#[test]
fn the_page_shows_first_what_shuts_the_gate() {
    let mut report = report();
    report
        .findings
        .push(Finding { accepted: Some("known".into()), ..finding("gpu.ecc", Layer::Doctor, Outcome::Fail) });
    let page = html(&report, Timestamp::UNIX_EPOCH).unwrap();
    let rows: Vec<&str> =
        page.split("<th scope=\"row\">").skip(1).map(|row| row.split('<').next().unwrap()).collect();
    assert_eq!(rows, ["gpu.pci", "gpu.ecc", "host.os", "docker.daemon"]);
    let (_, mend) = page.split_once("id=\"mend\"").unwrap();
    let (mend, _) = mend.split_once("</section>").unwrap();
    assert!(mend.contains("gpu.pci") && mend.contains("do this") && mend.contains("1 skipped"), "{mend}");
    assert!(!mend.contains("gpu.ecc") && !mend.contains("docker.daemon"), "{mend}");
    // Accepted: no next step beside the reason. Skipped: its cause has one.
    assert_eq!(page.matches("do this").count(), 2, "{page}");
}

#[test]
fn the_page_holds_nothing_that_a_host_could_put_there() {
    let mut report = report();
    let hostile = "</bdi><script>alert(1)</script>\"' <img src=x onerror=alert(1)>\u{202e}\u{1b}";
    report.subject = hostile.into();
    report.findings[1].because = hostile.into();
    report.findings[1].evidence = vec![hostile.into()];
    report.findings[1].next = Some(hostile.into());
    report.findings[0].accepted = Some(hostile.into());
    let page = html(&report, Timestamp::UNIX_EPOCH).unwrap();
    let tags: BTreeSet<&str> = page
        .split('<')
        .skip(1)
        .map(|tag| tag.trim_start_matches('/').split([' ', '>']).next().unwrap())
        .collect();
    assert!(!tags.contains("script") && !tags.contains("img"), "{tags:?}");
    assert!(!page.contains(['\u{202e}', '\u{1b}']));
    // As many as in a page without any: none was closed early.
    let tame = html(&self::report(), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(page.matches("<td>").count(), tame.matches("<td>").count());
}
