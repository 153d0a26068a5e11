//! The sources that look at the host itself: clock, limits, packages, device links, tokens in files. Each has a thread and
//! a time limit of its own.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    basics::known,
    clock,
    data::{Facts, Known},
    device_links, engine_details,
    gather::{Sources, aside, when},
    leaks, limits,
    tree::Tree,
    upgrades,
    wanted::Wanted,
};
/// What they said.
pub(super) struct Rest {
    clock: Known<clock::Clock>,
    limits: Known<Option<limits::Limits>>,
    upgrades: Known<upgrades::Upgrades>,
    toolkit: Known<upgrades::VendorToolkit>,
    device_links: Known<device_links::DeviceLinks>,
    leaks: Known<leaks::Leaks>,
    daemon_keys: Known<BTreeMap<String, String>>,
}

impl Rest {
    /// Asks them all, side by side.
    pub(super) async fn gather(wanted: &Wanted, sources: &Sources) -> Self {
        let tree = Tree::new(Arc::clone(&sources.root));
        let limit = sources.limit;
        let clock = async {
            let services = {
                let tree = tree.clone();
                aside(sources, "the processes", move || clock::services(&tree))
            };
            let mut clock = services.await;
            if let Known::Ok(clock) = &mut clock {
                let _asked = sources.awaited.ask("the time service");
                clock::ask(&tree, clock, limit).await;
            }
            clock
        };
        let limits = {
            let tree = tree.clone();
            aside(sources, "the processes", move || limits::limits(&tree))
        };
        let packages = when(wanted.gpus || !wanted.host.packages.is_empty(), {
            let (tree, wanted) = (tree.clone(), wanted.host.clone());
            aside(sources, "the package database", move || {
                let packages = upgrades::packages(&tree);
                Ok(match packages {
                    Ok(packages) => (
                        known(upgrades::upgrades(&tree, &packages, &wanted)),
                        known(upgrades::toolkit(&tree, &packages)),
                    ),
                    Err(error) => {
                        let why = super::basics::one_line(&error);
                        (Known::unknown(&*why), Known::unknown(&*why))
                    }
                })
            })
        });
        let device_links = when(wanted.gpus, {
            let tree = tree.clone();
            aside(sources, "`/dev`", move || device_links::links(&tree))
        });
        let leaks = {
            let (tree, paths) = (tree.clone(), wanted.host.leak_paths.clone());
            aside(sources, "the search for tokens", move || Ok(leaks::leaks(&tree, &paths)))
        };
        let daemon_keys = {
            let (tree, keys) = (tree.clone(), wanted.host.daemon.keys().cloned().collect());
            aside(sources, "Docker's configuration", move || engine_details::keys(&tree, &keys))
        };
        let (clock, limits, packages, device_links, leaks, daemon_keys) =
            tokio::join!(clock, limits, packages, device_links, leaks, daemon_keys);
        let (upgrades, toolkit) = match packages {
            Known::Ok(both) => both,
            Known::Unknown { why } => (Known::unknown(&*why), Known::unknown(&*why)),
        };
        Self { clock, limits, upgrades, toolkit, device_links, leaks, daemon_keys }
    }

    /// Puts it where it belongs.
    pub(super) fn into(self, facts: &mut Facts) {
        facts.clock = self.clock;
        facts.limits = self.limits;
        facts.upgrades = self.upgrades;
        facts.toolkit = self.toolkit;
        facts.device_links = self.device_links;
        facts.leaks = self.leaks;
        facts.daemon_keys = self.daemon_keys;
    }
}
