//! The embedded tables: CUDA releases and drivers, GPU models.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use super::version::{Range, Version};
use crate::{digest::Digest, lock::inputs::canonical_json};

/// CUDA toolkit release → driver, as data.
pub const CUDA_DRIVERS: &str = include_str!("../../../data/cuda-drivers.toml");
/// GPU model → compute capability, brand, kind, as data.
pub const GPUS: &str = include_str!("../../../data/gpus.toml");

#[derive(Deserialize)]
struct WireDrivers {
    floor: BTreeMap<String, String>,
    toolkit: BTreeMap<String, String>,
    dropped: BTreeMap<String, Vec<String>>,
}

/// `cuda-drivers.toml`, read.
pub(super) struct Tables {
    /// Major release → lowest driver for minor version compatibility.
    pub(super) floor: BTreeMap<u32, Version>,
    /// Release → first driver with its full feature level.
    pub(super) toolkit: BTreeMap<(u32, u32), Version>,
    /// Drivers of `toolkit` as the table writes them.
    texts: BTreeMap<(u32, u32), String>,
    floor_texts: BTreeMap<u32, String>,
    /// Major release → architectures it no longer supports.
    pub(super) dropped: BTreeMap<u32, Vec<String>>,
}

/// What kind of card a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuKind {
    /// Data-center GPU: eligible for forward compatibility.
    DataCenter,
    /// Workstation board: some are eligible.
    Workstation,
    /// Consumer card: never eligible.
    Consumer,
}

/// A model of `gpus.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name as the table writes it.
    pub name: String,
    /// CUDA compute capability.
    pub compute_capability: (u32, u32),
    /// Brands the driver may report.
    pub brands: Vec<String>,
    /// What kind of card.
    pub kind: GpuKind,
}

#[derive(Deserialize)]
struct WireKind {
    brand: Vec<String>,
    #[serde(flatten)]
    models: BTreeMap<String, Vec<String>>,
}

// The tables are part of the program; the tests below read every row, so what is wrong in one is found there.
static TABLES: LazyLock<Tables> =
    LazyLock::new(|| read_drivers(CUDA_DRIVERS).expect("the embedded table is valid"));
static MODELS: LazyLock<Vec<Model>> =
    LazyLock::new(|| read_models(GPUS).expect("the embedded table is valid"));

/// The CUDA tables.
pub(super) fn tables() -> &'static Tables {
    &TABLES
}

/// Digest of an embedded table as parsed, so that a comment in it changes nothing.
pub(in crate::lock) fn table_digest(text: &str) -> Digest {
    let table: serde_json::Value = toml::from_str(text).expect("the embedded table is valid");
    Digest::of(canonical_json(&table))
}

fn read_drivers(text: &str) -> Result<Tables, String> {
    let wire: WireDrivers = toml::from_str(text).map_err(|e| e.to_string())?;
    let major = |text: &str| text.parse::<u32>().map_err(|e| format!("{text}: {e}"));
    let driver = |text: &str| Version::parse(text).ok_or_else(|| format!("{text}: not a driver version"));
    let mut tables = Tables {
        floor: BTreeMap::new(),
        toolkit: BTreeMap::new(),
        texts: BTreeMap::new(),
        floor_texts: BTreeMap::new(),
        dropped: BTreeMap::new(),
    };
    for (release, version) in wire.floor {
        tables.floor.insert(major(&release)?, driver(&version)?);
        tables.floor_texts.insert(major(&release)?, version);
    }
    for (release, version) in wire.toolkit {
        let key = Version::parse(&release).ok_or_else(|| format!("{release}: not a release"))?.major_minor();
        tables.toolkit.insert(key, driver(&version)?);
        tables.texts.insert(key, version);
    }
    for (release, architectures) in wire.dropped {
        tables.dropped.insert(major(&release)?, architectures);
    }
    Ok(tables)
}

fn read_models(text: &str) -> Result<Vec<Model>, String> {
    let wire: BTreeMap<GpuKind, WireKind> = toml::from_str(text).map_err(|e| e.to_string())?;
    let mut models = Vec::new();
    for (kind, group) in wire {
        for (capability, names) in group.models {
            let compute_capability = Version::parse(&capability)
                .ok_or_else(|| format!("{capability}: not a capability"))?
                .major_minor();
            models.extend(names.into_iter().map(|name| Model {
                name,
                compute_capability,
                brands: group.brand.clone(),
                kind,
            }));
        }
    }
    Ok(models)
}

impl Tables {
    /// The first driver with a release's full feature level, as the table writes it.
    pub(super) fn wanted_text(&self, release: (u32, u32)) -> Option<&str> {
        self.texts.get(&release).map(String::as_str)
    }

    /// A major release's floor, as the table writes it.
    pub(super) fn floor_text(&self, major: u32) -> Option<&str> {
        self.floor_texts.get(&major).map(String::as_str)
    }

    /// The newest release in the table.
    pub(super) fn newest(&self) -> Option<(u32, u32)> {
        self.toolkit.keys().next_back().copied()
    }

    /// The CUDA versions a driver of this range may offer: those of the last row at or below it. A driver of a newer
    /// branch than the last row's has no known upper bound, one older than the first row no lower.
    pub(super) fn cuda_of(&self, driver: &Range) -> Range {
        let row = |version: &Version, open: bool| {
            self.toolkit
                .iter()
                .filter(|(_, first)| if open { *first < version } else { *first <= version })
                .map(|(release, _)| Version::of(&[release.0, release.1]))
                .next_back()
        };
        let low = driver.low.as_ref().and_then(|low| row(low, false));
        let last_branch = self.toolkit.values().next_back().map_or(0, Version::major);
        let high = driver.high.as_ref().and_then(|high| {
            let newest = if driver.open { high.major().saturating_sub(1) } else { high.major() };
            if newest > last_branch {
                return None;
            }
            // Older than every row: all that is known is that it is below the first.
            row(high, driver.open)
                .or_else(|| self.toolkit.keys().next().map(|first| Version::of(&[first.0, first.1])))
        });
        let open = low.is_none() && driver.high.as_ref().is_some_and(|high| row(high, driver.open).is_none());
        Range { low, high, open }
    }
}

/// A GPU model by the name of `[gpu]`, or as NVML reports it (`NVIDIA H100 80GB HBM3`): the longest name of the table
/// that stands in it as whole words. `None` for one that is not in the table.
pub fn model(name: &str) -> Option<&'static Model> {
    let words = words(name);
    MODELS
        .iter()
        .filter(|model| {
            let wanted = self::words(&model.name);
            words.windows(wanted.len()).any(|window| window == wanted)
        })
        .max_by_key(|model| model.name.len())
}

/// Every model of the table.
pub fn models() -> &'static [Model] {
    &MODELS
}

fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect()
}

/// The architecture of a compute capability, as `[dropped]` names it (NVIDIA, CUDA C++ programming guide, "compute
/// capabilities"). `None` for one that is not known here.
pub(super) fn architecture((major, minor): (u32, u32)) -> Option<&'static str> {
    Some(match (major, minor) {
        (5, _) => "maxwell",
        (6, _) => "pascal",
        (7, 0 | 2) => "volta",
        (7, 5) => "turing",
        (8, 9) => "ada",
        (8, _) => "ampere",
        (9, _) => "hopper",
        (10..=12, _) => "blackwell",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_complete() {
        let tables = tables();
        assert!(tables.toolkit.len() >= 22);
        let drivers: Vec<_> = tables.toolkit.values().collect();
        assert!(drivers.is_sorted(), "a newer release wants a newer driver");
        for release in tables.toolkit.keys() {
            assert!(tables.floor.contains_key(&release.0), "{release:?} has a floor");
            assert!(tables.wanted_text(*release).is_some());
        }
        for architectures in tables.dropped.values() {
            for name in architectures {
                assert!(models().iter().any(|m| architecture(m.compute_capability) == Some(name)), "{name}");
            }
        }
    }

    #[test]
    fn models_are_found_as_written_and_as_reported() {
        for (written, name, capability) in [
            ("H100", "H100", (9, 0)),
            ("h100", "H100", (9, 0)),
            ("NVIDIA H100 80GB HBM3", "H100", (9, 0)),
            ("NVIDIA A100-SXM4-80GB", "A100", (8, 0)),
            ("NVIDIA L40S", "L40S", (8, 9)),
            ("Tesla V100-PCIE-16GB", "V100", (7, 0)),
            ("NVIDIA RTX A6000", "RTX A6000", (8, 6)),
            ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", (8, 9)),
            ("Quadro RTX 6000", "Quadro RTX 6000", (7, 5)),
            ("NVIDIA GeForce RTX 2080 Ti", "GeForce RTX 2080 Ti", (7, 5)),
        ] {
            let found = model(written).unwrap_or_else(|| panic!("{written}"));
            assert_eq!((found.name.as_str(), found.compute_capability), (name, capability), "{written}");
        }
        for unknown in ["", "X9000", "H1000", "RTX 6000", "A10G"] {
            assert!(model(unknown).is_none(), "{unknown}");
        }
        for model in models() {
            assert!(architecture(model.compute_capability).is_some(), "{}", model.name);
            assert_eq!(super::model(&model.name), Some(model), "names are unambiguous");
        }
    }

    #[test]
    fn a_driver_offers_the_cuda_of_the_last_row_below_it() {
        let offers = |driver: &str| {
            let driver = super::super::version::Driver::parse(driver).unwrap();
            let cuda = tables().cuda_of(&driver.range);
            (cuda.low.map(|v| v.to_string()), cuda.high.map(|v| v.to_string()))
        };
        let pair = |low: &str, high: &str| (Some(low.to_owned()), Some(high.to_owned()));
        assert_eq!(offers("550.163.01"), pair("12.4", "12.4"));
        assert_eq!(offers("550"), pair("12.3", "12.4"));
        assert_eq!(offers("540.0.1"), pair("12.2", "12.2"));
        assert_eq!(offers("610.99.01"), pair("13.3", "13.3"));
        assert_eq!(offers("700.1"), (Some("13.3".into()), None));
        assert_eq!(offers("440.33"), (None, Some("11.0".into())));
        for (release, driver) in &tables().toolkit {
            let text = format!("{}.{}", release.0, release.1);
            assert_eq!(tables().cuda_of(&Range::exactly(driver.clone())).low.unwrap().to_string(), text);
        }
    }
}
