//! Layer 1: whether the driver's branch still gets updates.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use crate::{
    check::{
        subject::Subject,
        verdict::{Tally, Verdict},
    },
    host::facts::Facts,
    version,
};

/// Driver branches and their ends, as data.
pub(super) const BRANCHES: &str = include_str!("../../../data/driver-branches.toml");

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    ended_below: u32,
    branch: BTreeMap<String, Branch>,
}

/// A branch of the driver.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    kind: Kind,
    /// `2026-06`: the month it ends in.
    ends: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    LongTerm,
    Production,
    NewFeature,
}

// The table is part of the program; a test reads every row, so what is wrong in one is found there.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(BRANCHES).expect("the embedded table is valid"));

const LIST: &str = "NVIDIA's list of data-center drivers";

pub(super) fn driver_branch(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let loaded = match facts.module.as_result() {
        Ok(module) => module.loaded.as_deref(),
        Err(why) => return Verdict::unknown(why),
    };
    let Some(loaded) = loaded else { return Verdict::unknown("no module is loaded") };
    let mut tally = Tally::default();
    tally.note(format!("loaded module: {loaded}"));
    if let Some(wanted) = &subject.profile.driver.version {
        tally.note(format!("profile: driver {wanted}"));
        // A branch, such as `550`, is its first version.
        if version::compare(loaded, wanted).is_lt() && !loaded.starts_with(&format!("{wanted}.")) {
            tally.weak(
                format!("driver {loaded} is loaded, the profile says {wanted}"),
                format!("{}, then reboot", subject.brings("provision", &format!("install driver {wanted}"))),
            );
        }
    }
    match facts.at.as_result() {
        Ok(at) => ends(&mut tally, loaded, &at.strftime("%Y-%m").to_string()),
        Err(why) => tally.unknown(format!("today's date: {why}")),
    }
    tally.verdict("the driver's branch gets updates", "no driver is loaded")
}

/// Months are compared as they are written.
fn ends(tally: &mut Tally, loaded: &str, now: &str) {
    let name = loaded.split('.').next().unwrap_or(loaded);
    let next = || {
        let lasting = TABLE.branch.iter().filter(|(_, branch)| branch.ends.as_str() >= now);
        let names: Vec<String> =
            lasting.map(|(name, branch)| format!("{name} (until {})", branch.ends)).collect();
        if names.is_empty() {
            format!("look for a newer bedplate, and at {LIST}")
        } else {
            format!(
                "write a branch that lasts in `[driver] version`: {}; `bedplate lock`, `bedplate provision`",
                names.join(", ")
            )
        }
    };
    match (TABLE.branch.get(name), name.parse::<u32>()) {
        (Some(branch), _) if branch.ends.as_str() < now => {
            tally.weak(
                format!(
                    "branch {name} of the driver ended in {}: it gets no more security updates",
                    branch.ends
                ),
                next(),
            );
        }
        (Some(branch), _) => {
            let kind = match branch.kind {
                Kind::LongTerm => "long-term support",
                Kind::Production => "production",
                Kind::NewFeature => "new features",
            };
            tally.good(format!("{LIST}: branch {name} ({kind}) ends in {}", branch.ends));
        }
        (None, Ok(number)) if number < TABLE.ended_below => {
            tally.weak(
                format!("branch {name} of the driver has ended: it gets no more security updates"),
                next(),
            );
        }
        (None, _) => tally.unknown_until(
            format!("branch {name} is not in the list that this bedplate has"),
            format!("look at {LIST}, and for a newer bedplate"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_agrees_with_the_one_that_locks_name() {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Drivers {
            end_of_life: BTreeMap<String, String>,
        }
        let drivers: Drivers = toml::from_str(crate::lock::cuda::CUDA_DRIVERS).unwrap();
        for (name, ends) in drivers.end_of_life {
            assert_eq!(TABLE.branch[&name].ends, ends, "{name}");
        }
        for (name, branch) in &TABLE.branch {
            let (year, month) = branch.ends.split_once('-').unwrap();
            assert!(year.len() == 4 && month.len() == 2, "{name}");
            assert!((2020..2040).contains(&year.parse::<u32>().unwrap()), "{name}");
            assert!((1..=12).contains(&month.parse::<u32>().unwrap()), "{name}");
            assert!(name.parse::<u32>().is_ok(), "{name}");
        }
    }
}
