//! Reports as they are printed: the schema they keep, the page in a browser, the table on a terminal.

mod browser;
mod schema;
mod terminal;

use bedplate::check::report::{Ahead, Finding, Layer, Outcome, Report, Weight};

use super::cli::{Place, profile};

/// A text that runs a script, closes elements and turns the line, where it is not escaped.
const HOSTILE: &str = "<img src=x onerror=document.title='hacked'></bdi></td><script>document.title='hacked'</script>\"'&amp; \
                       \u{202e}gnp.exe";

/// A report with every outcome in every layer, and texts of all kinds.
fn every_outcome() -> Report {
    let outcomes = [
        Outcome::Pass,
        Outcome::Warn,
        Outcome::Fail,
        Outcome::Unknown,
        Outcome::Skipped,
        Outcome::NotApplicable,
    ];
    let mut findings = Vec::new();
    for layer in [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up] {
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let done = matches!(outcome, Outcome::Pass | Outcome::NotApplicable);
            findings.push(Finding {
                id: format!("host.number-{at}"),
                layer,
                weight: if outcome == Outcome::Warn { Weight::Advisory } else { Weight::Required },
                outcome,
                because: format!("a cause {HOSTILE}"),
                evidence: if done {
                    Vec::new()
                } else {
                    vec![format!("/a/{}", "long/".repeat(60)), HOSTILE.into()]
                },
                next: (!done).then(|| format!("{HOSTILE} `bedplate provision`")),
                accepted: None,
                ahead: (outcome == Outcome::Skipped).then(|| Ahead {
                    because: format!("seen {HOSTILE}"),
                    evidence: vec![HOSTILE.into()],
                    next: Some(format!("{HOSTILE} `bedplate up`")),
                }),
            });
        }
        findings.push(Finding {
            id: "host.accepted".into(),
            layer,
            weight: Weight::Required,
            outcome: Outcome::Fail,
            because: "known".into(),
            evidence: vec!["a: b".into()],
            next: Some("mend it".into()),
            accepted: Some(format!("until March {HOSTILE}")),
            ahead: None,
        });
    }
    Report { subject: format!("host {HOSTILE}"), findings }
}

/// A place whose profile has a file searched for tokens, by this name, in which there is one.
fn leaking(name: &str) -> Place {
    let place = Place::new();
    let path = place.at("home").join(name).display().to_string();
    place.put(
        "profiles/p.toml",
        profile("", &format!("[checks]\nleak-paths = [\"{path}\"]\nopen-files = 0\n")),
    );
    place.put(&format!("home/{name}"), format!("HF_TOKEN={}\n", super::cli::TOKEN));
    place.config("docker-socket = \"/nonexistent/docker.sock\"\nhub = \"http://127.0.0.1:1\"\n");
    place
}
