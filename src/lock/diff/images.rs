//! What changed of images.

use serde_json::{Value, json};

use super::{Change, kind, union};
use crate::lock::{Lock, LockedImage, VerdictOutcome, cuda};

/// An image that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageChange {
    /// Its name in the lock.
    pub name: String,
    /// How it differs.
    pub change: Change,
    /// The image in the old lock.
    pub from: Option<LockedImage>,
    /// The image in the new lock.
    pub to: Option<LockedImage>,
    /// What that means, most telling first.
    pub details: Vec<Detail>,
}

/// One thing about an image that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// What: `cuda`, `driver-wanted`, `verdict`, `download`, …: stable, for machines.
    pub what: &'static str,
    /// What it was; `None`: nothing was known.
    pub from: Option<String>,
    /// What it is; `None`: nothing is known.
    pub to: Option<String>,
    /// For people.
    pub text: String,
}

/// The images that differ, by name.
pub(super) fn images(old: &Lock, new: &Lock) -> Vec<ImageChange> {
    let mut images = Vec::new();
    for name in union(old.images.keys(), new.images.keys()) {
        let (from, to) = (old.images.get(name), new.images.get(name));
        if from == to {
            continue;
        }
        images.push(ImageChange {
            name: name.clone(),
            change: kind(from.is_some(), to.is_some()),
            from: from.cloned(),
            to: to.cloned(),
            details: match (from, to) {
                (Some(from), Some(to)) => details(from, to),
                _ => Vec::new(),
            },
        });
    }
    images
}

fn details(from: &LockedImage, to: &LockedImage) -> Vec<Detail> {
    let mut list = Vec::new();
    let mut moved = |what: &'static str, label: &str, from: Option<&str>, to: Option<&str>| {
        if from != to {
            list.push(Detail {
                what,
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
                text: format!("{label} {} → {}", from.unwrap_or("unknown"), to.unwrap_or("unknown")),
            });
        }
    };
    moved("reference", "reference", Some(&from.reference), Some(&to.reference));
    moved("platform", "platform", Some(&from.platform), Some(&to.platform));
    moved("cuda", "CUDA", from.facts.cuda.as_deref(), to.facts.cuda.as_deref());
    moved(
        "driver-wanted",
        "driver wanted",
        from.facts.cuda.as_deref().and_then(cuda::driver_wanted),
        to.facts.cuda.as_deref().and_then(cuda::driver_wanted),
    );
    moved("verdict", "verdict", Some(from.verdict.outcome.name()), Some(to.verdict.outcome.name()));
    let mut changed = |what: &'static str, label: &str, from: String, to: String| {
        if from != to {
            let text = match (from.is_empty(), to.is_empty()) {
                (true, _) => format!("{label} added"),
                (_, true) => format!("{label} removed"),
                _ => format!("{label} changed"),
            };
            let known = |text: String| (!text.is_empty()).then_some(text);
            list.push(Detail { what, from: known(from), to: known(to), text });
        }
    };
    let require = |image: &LockedImage| {
        let lines: Vec<String> =
            image.facts.require.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.join("\n")
    };
    let words = |words: &[String]| if words.is_empty() { String::new() } else { json!(words).to_string() };
    changed("require", "requirement", require(from), require(to));
    changed("entrypoint", "entrypoint", words(&from.facts.entrypoint), words(&to.facts.entrypoint));
    changed("command", "command", words(&from.facts.command), words(&to.facts.command));
    let user = |image: &LockedImage| image.facts.user.clone().unwrap_or_default();
    changed("user", "user", user(from), user(to));
    if from.facts.disable_require != to.facts.disable_require {
        list.push(Detail {
            what: "disable-require",
            from: Some(from.facts.disable_require.to_string()),
            to: Some(to.facts.disable_require.to_string()),
            text: format!(
                "NVIDIA_DISABLE_REQUIRE {}",
                if to.facts.disable_require { "now set" } else { "no longer set" }
            ),
        });
    }
    let content = |image: &LockedImage| (image.manifest, image.config, image.layers.clone());
    if from.facts == to.facts && content(from) != content(to) {
        list.push(digest_detail("manifest", from, to, "rebuilt, same facts"));
    } else if content(from) == content(to) && from.index != to.index {
        list.push(digest_detail("index", from, to, "new index, same image"));
    }
    if from.verdict.outcome == to.verdict.outcome && from.verdict.because != to.verdict.because {
        list.push(Detail {
            what: "because",
            from: Some(from.verdict.because.clone()),
            to: Some(to.verdict.because.clone()),
            text: "same verdict for another reason".to_owned(),
        });
    }
    if from.download != to.download {
        list.push(Detail {
            what: "download",
            from: Some(from.download.to_string()),
            to: Some(to.download.to_string()),
            text: size_change(from.download, to.download),
        });
    }
    list
}

fn digest_detail(what: &'static str, from: &LockedImage, to: &LockedImage, text: &str) -> Detail {
    let digest = |image: &LockedImage| match what {
        "index" => image.index.map(|index| index.to_string()),
        _ => Some(image.manifest.to_string()),
    };
    Detail { what, from: digest(from), to: digest(to), text: text.to_owned() }
}

/// Bytes for people, in decimal units: `1.2 GB`.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1e3, "kB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

fn size_change(from: u64, to: u64) -> String {
    if to >= from { format!("+{}", size(to - from)) } else { format!("-{}", size(from - to)) }
}

fn summary(image: &LockedImage) -> String {
    let mut parts = vec![format!("`{}`", image.reference)];
    if let Some(cuda) = &image.facts.cuda {
        parts.push(format!("CUDA {cuda}"));
        if let Some(driver) = cuda::driver_wanted(cuda) {
            parts.push(format!("driver wanted {driver}"));
        }
    }
    parts.push(size(image.download));
    parts.push(image.verdict.outcome.name().to_owned());
    parts.join(", ")
}

impl ImageChange {
    /// One line for people.
    pub(super) fn line(&self) -> String {
        match (&self.from, &self.to) {
            (Some(_), Some(_)) => {
                self.details.iter().map(|detail| detail.text.as_str()).collect::<Vec<_>>().join(", ")
            }
            (Some(image), None) | (None, Some(image)) => summary(image),
            (None, None) => String::new(),
        }
    }

    /// Why the new verdict is what it is, where it moved or came with the image.
    pub(super) fn because(&self) -> Option<&str> {
        let to = self.to.as_ref()?;
        let moved = self.from.as_ref().is_none_or(|from| from.verdict.outcome != to.verdict.outcome);
        let telling = !matches!(to.verdict.outcome, VerdictOutcome::NotApplicable);
        (moved && telling).then_some(to.verdict.because.as_str())
    }

    /// The same for machines.
    pub(super) fn json(&self) -> Value {
        let side = |image: &Option<LockedImage>| {
            image.as_ref().map(|image| {
                json!({
                    "reference": image.reference,
                    "platform": image.platform,
                    "index": image.index,
                    "manifest": image.manifest,
                    "cuda": image.facts.cuda,
                    "driver-wanted": image.facts.cuda.as_deref().and_then(cuda::driver_wanted),
                    "download": image.download,
                    "verdict": image.verdict.outcome.name(),
                    "because": image.verdict.because,
                })
            })
        };
        let details: Vec<Value> = self
            .details
            .iter()
            .map(|detail| {
                json!({ "what": detail.what, "from": detail.from, "to": detail.to, "text": detail.text })
            })
            .collect();
        json!({
            "name": self.name,
            "change": self.change,
            "from": side(&self.from),
            "to": side(&self.to),
            "details": details,
        })
    }
}
