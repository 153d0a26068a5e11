//! Names and addresses that the profile, its lock and its deployments hold themselves. Whoever judges has the same ones, so
//! that a file holds their places in a list and not the words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::scrub;
use crate::{digest::Digest, host::facts::Wanted};

/// The shared words, and those that are never taken for the host's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    shared: Vec<String>,
    /// Of all that is wanted.
    asked: Digest,
    pub(super) kept: BTreeSet<String>,
}

impl Words {
    /// Those of what is wanted of a host.
    pub fn of(wanted: &Wanted) -> Self {
        let mut shared: BTreeSet<String> = wanted.names.clone();
        let images = wanted.images.values();
        shared.extend(images.clone().filter_map(|image| image.registry.clone()));
        shared.extend(images.flat_map(|image| scrub::dotted(&image.reference)));
        shared.extend(wanted.hub_host());
        shared.extend(
            wanted
                .ports()
                .map(|(_, _, port)| port.address)
                .filter(|address| !scrub::everywhere(address))
                .map(|address| address.to_string()),
        );
        shared.extend(wanted.host.daemon.values().flat_map(|value| scrub::dotted(&value.to_string())));
        // A UUID, or the beginning of one; an index is no secret and would be found everywhere.
        let ids = wanted.deployments.iter().flat_map(|deployment| &deployment.gpu_ids);
        shared.extend(ids.filter(|id| id.len() >= scrub::UUID_BEGINS).cloned());
        shared.retain(|word| !scrub::PUBLIC.contains(&word.as_str()) && !word.is_empty());
        let mut kept: BTreeSet<String> = wanted.images.keys().cloned().collect();
        kept.extend(wanted.secrets.keys().cloned());
        for deployment in &wanted.deployments {
            kept.insert(deployment.name.clone());
            kept.extend(deployment.services.iter().map(|service| service.name.clone()));
            kept.extend(deployment.secrets.keys().cloned());
        }
        Self { shared: shared.into_iter().collect(), asked: Digest::of(format!("{wanted:?}")), kept }
    }

    /// What tells one question from another: whatever was asked for, paths and packages included.
    pub(super) fn asked(&self) -> &Digest {
        &self.asked
    }

    /// What tells one list of words from another.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.shared.join("\n"))
    }

    /// Each word and what stands for it.
    pub(super) fn places(&self) -> BTreeMap<&str, String> {
        self.shared.iter().enumerate().map(|(at, word)| (word.as_str(), place(at))).collect()
    }

    /// Puts the words back where a file has their places; `same`: it was made with this list. Else an address that
    /// nobody knows takes the place, since there must be one.
    pub(super) fn restore(&self, value: &mut Value, same: bool) {
        match value {
            Value::String(text) if text.contains(OPEN) => *text = self.put_back(text, same),
            Value::Array(items) => items.iter_mut().for_each(|item| self.restore(item, same)),
            Value::Object(entries) => {
                let old = std::mem::take(entries);
                for (key, mut value) in old {
                    self.restore(&mut value, same);
                    let key = if key.contains(OPEN) { self.put_back(&key, same) } else { key };
                    entries.insert(key, value);
                }
            }
            _ => {}
        }
    }

    fn put_back(&self, text: &str, same: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once(OPEN) {
            out.push_str(head);
            let number =
                tail.split_once('>').and_then(|(number, after)| Some((number.parse::<usize>().ok()?, after)));
            let Some((at, after)) = number else {
                out.push_str(OPEN);
                rest = tail;
                continue;
            };
            match self.shared.get(at) {
                Some(word) if same => out.push_str(word),
                _ if head.is_empty() && out.is_empty() && after.is_empty() => {
                    out.push_str(&scrub::UNKNOWN.to_string());
                }
                _ => out.push_str(&place(at)),
            }
            rest = after;
        }
        out + rest
    }
}

const OPEN: &str = "<word-";

fn place(at: usize) -> String {
    format!("{OPEN}{at}>")
}
