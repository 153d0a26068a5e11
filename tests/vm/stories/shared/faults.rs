//! Faults planted for real, one at a time and in pairs: the lowest guilty layer is named, by the check that must name it,
//! and once they are mended nothing is found.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use bedplate::check::report::{Finding, Layer, Outcome, Weight};

use crate::{
    faults::{self, Fault},
    support::{Machine, Run, Site, turn},
};

/// What is sourced before each fault.
const LIBRARY: &str = include_str!("../../faults.sh");

/// The shared machine with a deployment to look at, which is not up, and a hub of models.
fn lab() -> &'static Machine {
    let machine = Machine::shared();
    machine.tunnel();
    machine.sh("grep -q hub.lab /etc/hosts || echo 127.0.0.1 hub.lab >>/etc/hosts");
    let site = Site::new();
    site.change("[checks]", "[checks]\nresolve = [\"hub.lab\"]\nshm-gib = 1\nmemlock-mib = 8");
    site.lock().provision(machine, &[]).expect(0);
    machine.sh(
        "bedplate list --format json >/dev/null; bedplate rm try || true; rm -rf /root/lab; mkdir /root/lab",
    );
    for folder in ["profiles", "deployments"] {
        machine.copy(&site.path(folder), "/root/lab/");
    }
    machine.sh(&format!(
        "cat >/root/lab/faults.sh <<'LIBRARY'\n{LIBRARY}\nLIBRARY\n\
         cp /root/lab/deployments/try.yaml /root/lab/good.yaml\n\
         set -e; . /root/lab/faults.sh; lab_open"
    ));
    machine
}

/// What the lab changed on the shared machine is put back, whatever becomes of the story.
struct Open(&'static Machine);

impl Drop for Open {
    fn drop(&mut self) {
        let run = self.0.script(". /root/lab/faults.sh; lab_close");
        if run.code != 0 {
            eprintln!("{run}");
        }
    }
}

/// The command that looks at a layer, and at all below it.
fn command(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "doctor -f $lab/lab.yaml",
        Layer::Toolkit => "toolkit verify",
        Layer::Runtime => "runtime prepare --engine vllm -f $lab/lab.yaml",
        Layer::Up => "up -f $lab/lab.yaml --timeout 25",
    }
}

/// What one look said.
struct Said {
    code: i32,
    blame: Option<Layer>,
    /// The causes, lowest first.
    causes: Vec<String>,
    findings: Vec<Finding>,
}

impl Said {
    fn read(text: &str) -> Option<Self> {
        let (report, code) = text.rsplit_once("code=")?;
        let report: serde_json::Value = serde_json::from_str(report).ok()?;
        let causes = report.pointer("/diagnosis/causes")?.as_array()?;
        Some(Self {
            code: code.trim().parse().ok()?,
            blame: serde_json::from_value(report.get("blame")?.clone()).ok()?,
            causes: causes.iter().filter_map(|cause| Some(cause.get("id")?.as_str()?.to_owned())).collect(),
            findings: serde_json::from_value(report.get("findings")?.clone()).ok()?,
        })
    }

    /// The checks that found something.
    fn guilty(&self) -> BTreeSet<&str> {
        let speaks = |finding: &&Finding| match finding.outcome {
            Outcome::Fail | Outcome::Warn => true,
            Outcome::Unknown => finding.weight == Weight::Required,
            Outcome::Pass | Outcome::Skipped | Outcome::NotApplicable => false,
        };
        self.findings.iter().filter(speaks).map(|finding| finding.id.as_str()).collect()
    }

    /// The skipped checks that saw something all the same.
    fn ahead(&self) -> BTreeSet<&str> {
        self.findings.iter().filter(|found| found.ahead.is_some()).map(|found| found.id.as_str()).collect()
    }

    fn clean(&self) -> Result<(), String> {
        if self.code == 0 && self.blame.is_none() && self.guilty().is_empty() {
            return Ok(());
        }
        Err(format!("exit code {}, {}", self.code, self.lines()))
    }

    /// What was found, for people.
    fn lines(&self) -> String {
        let mut lines = format!("blamed: {:?}, causes {:?}", self.blame, self.causes);
        for finding in self.findings.iter().filter(|finding| self.guilty().contains(finding.id.as_str())) {
            let _ = write!(lines, "\n    {:?} {}: {}", finding.outcome, finding.id, finding.because);
        }
        for finding in &self.findings {
            if let Some(ahead) = &finding.ahead {
                let _ = write!(lines, "\n    ahead {}: {}", finding.id, ahead.because);
            }
        }
        lines
    }
}

/// Plants these, lowest layer first, looks, mends them, the last first, and with `again` looks once more.
fn look(machine: &Machine, planted: &[&Fault], layer: Layer, again: bool) -> Run {
    let line = |text: &str| format!("{text}\n");
    // `toolkit verify` is about the host, whatever is deployed.
    let deployed = planted.iter().any(|fault| fault.touches.contains(&"the deployment"));
    let layer = if layer == Layer::Toolkit && deployed { Layer::Runtime } else { layer };
    let command = planted.iter().find_map(|fault| fault.by).unwrap_or(command(layer));
    // What was started is not there for the next look.
    let remove = if command.starts_with("up ") { "bedplate rm try >/dev/null 2>&1" } else { ":" };
    let once_more = if again { "look" } else { ":" };
    let plant: String = planted.iter().map(|fault| line(fault.plant)).collect();
    // The last first: Docker starts again only where its configuration is well.
    let mend: String = planted.iter().rev().map(|fault| line(fault.mend)).collect();
    machine.script(&format!(
        ". /root/lab/faults.sh\n\
         part() {{ bash -e -c '. /root/lab/faults.sh; . /dev/stdin' >$lab/said 2>&1 || {{ echo \"not $1\"; cat $lab/said; }} >&2; }}\n\
         look() {{\n\
         rm -f /var/lib/bedplate/generations/*/readiness/*\n\
         bedplate {command} --format json </dev/null 2>$lab/errors || code=$?\n\
         echo; echo code=${{code:-0}}; unset code\n\
         {remove}\n\
         }}\n\
         cp $lab/good.yaml $lab/lab.yaml\n\
         part planted <<'PART'\n{plant}PART\n\
         look; cat $lab/errors >&2\n\
         part mended <<'PART'\n{mend}settle\nPART\n\
         cp $lab/good.yaml $lab/lab.yaml\n\
         echo =====\n\
         {once_more}\n"
    ))
}

/// Whether what was said names the lowest of those that were planted, and nothing that was not.
fn judge(said: &Said, planted: &[&Fault], layer: Layer) -> Result<(), String> {
    let shut: Vec<&&Fault> = planted.iter().filter(|fault| !fault.warns).collect();
    let blame = shut.iter().map(|fault| fault.layer).min();
    let (guilty, ahead) = (said.guilty(), said.ahead());
    let wrong = |what: String| Err(format!("{what}: {}", said.lines()));
    if said.code != if shut.is_empty() { 0 } else { 3 } {
        return wrong(format!("exit code {}", said.code));
    }
    if said.blame != blame {
        return wrong(format!("the layer to blame is {blame:?}"));
    }
    if let Some(stranger) =
        guilty.union(&ahead).find(|id| !planted.iter().any(|fault| fault.names.contains(id)))
    {
        return wrong(format!("`{stranger}` is not guilty"));
    }
    let lowest: Vec<&str> =
        shut.iter().filter(|fault| Some(fault.layer) == blame).map(|fault| fault.names[0]).collect();
    let first = said.causes.first().map(String::as_str);
    if blame.is_some() && !first.is_some_and(|first| lowest.contains(&first)) {
        return wrong(format!("the cause to begin with is of {lowest:?}"));
    }
    let step = said.findings.iter().find(|finding| Some(finding.id.as_str()) == first);
    if step.is_some_and(|finding| finding.next.is_none()) {
        return wrong("no next step is told".to_owned());
    }
    match planted {
        [alone] => {
            let names: BTreeSet<&str> = alone.names.iter().copied().collect();
            if guilty != names {
                return wrong(format!("{names:?} are guilty"));
            }
        }
        // Of one layer, both are named, unless one cannot be looked at because of the other.
        _ => {
            for fault in planted
                .iter()
                .filter(|fault| Some(fault.layer) == blame || fault.layer == layer && blame.is_none())
            {
                let id = fault.names[0];
                let seen = said.findings.iter().find(|finding| finding.id == id);
                if !guilty.contains(id) && seen.is_some_and(|finding| finding.outcome != Outcome::Skipped) {
                    return wrong(format!("`{id}` is guilty, too"));
                }
            }
        }
    }
    Ok(())
}

/// Plants, looks, mends; what is wrong about it.
fn tried(machine: &Machine, planted: &[&Fault], again: bool) -> Result<(), String> {
    let layer = planted.iter().map(|fault| fault.layer).max().expect("there is one");
    let run = look(machine, planted, layer, again);
    if run.stderr.contains("not planted") || run.stderr.contains("not mended") {
        return Err(run.to_string());
    }
    let (first, second) = run.stdout.split_once("=====").unwrap_or_default();
    let said = Said::read(first).ok_or_else(|| format!("no report\n{run}"))?;
    judge(&said, planted, layer)?;
    if again {
        let said = Said::read(second).ok_or_else(|| format!("no report after mending\n{run}"))?;
        said.clean().map_err(|found| format!("mended, and still {found}"))?;
    }
    Ok(())
}

#[test]
fn the_lowest_guilty_layer_is_named_for_faults_alone_and_in_pairs() {
    let _turn = turn();
    let only = std::env::var("BEDPLATE_FAULTS").unwrap_or_default();
    let full = std::env::var_os("BEDPLATE_FULL").is_some() || !only.is_empty();
    let machine = lab();
    let open = Open(machine);
    let all = faults::all();
    let alone: Vec<&Fault> = all
        .iter()
        .copied()
        .filter(|fault| full || fault.often)
        .filter(|fault| fault.name.contains(&only))
        .collect();
    let pairs = if full { faults::pairs(&all) } else { faults::often_pairs(&all) };
    let pairs: Vec<[&Fault; 2]> =
        pairs.into_iter().filter(|pair| pair.iter().any(|fault| fault.name.contains(&only))).collect();

    assert!(!alone.is_empty() || !pairs.is_empty(), "no fault's name has `{only}`");

    let mut wrong = Vec::new();
    let began = Instant::now();
    let mut each = |planted: &[&Fault]| {
        let started = Instant::now();
        let names: Vec<&str> = planted.iter().map(|fault| fault.name).collect();
        let names = names.join(" + ");
        let outcome = tried(machine, planted, full);
        let word = if outcome.is_ok() { "named" } else { "WRONG" };
        eprintln!("{word} after {:.1?}: {names}", started.elapsed());
        if let Err(why) = outcome {
            eprintln!("{why}");
            wrong.push(names);
            return 0;
        }
        1
    };
    let (mut score_alone, mut score_pairs) = (0, 0);
    for fault in &alone {
        score_alone += each(&[*fault]);
    }
    for pair in &pairs {
        score_pairs += each(pair);
    }
    let clean = look(machine, &[], Layer::Runtime, false);
    drop(open);
    let said = clean.stdout.split_once("=====").and_then(|(report, _)| Said::read(report));
    let said = said.unwrap_or_else(|| panic!("no report\n{clean}"));
    let spent = Duration::from_secs(began.elapsed().as_secs());
    eprintln!(
        "faults: {score_alone} of {} alone, {score_pairs} of {} in pairs, in {spent:?}",
        alone.len(),
        pairs.len()
    );
    assert!(wrong.is_empty(), "blamed wrongly:\n{}", wrong.join("\n"));
    said.clean().expect("all is mended");
}
