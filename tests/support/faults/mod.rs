//! Faults that are planted for real on the provisioned test machine, as data: what is done to it, and which check must be
//! named for it. `tests/vm/stories/shared/faults.rs` plants them; `tests/it/reference.rs` lists them.

mod files;
mod host;
mod runtime;
mod toolkit;
mod up;

use bedplate::check::report::Layer;

/// One fault. Its shell text runs as root on the machine, after `tests/vm/faults.sh`, with `set -e`.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What an operator would call it.
    pub(crate) name: &'static str,
    /// Whose it is: the layer that must be blamed.
    pub(crate) layer: Layer,
    /// The checks that fail or warn for it, and no others, lowest first: the first one must be named.
    pub(crate) names: &'static [&'static str],
    /// What of the machine it touches: two faults of the same are not planted together.
    pub(crate) touches: &'static [&'static str],
    /// Plants it.
    pub(crate) plant: &'static str,
    /// Mends it.
    pub(crate) mend: &'static str,
    /// It is at most a warning: the gate stays open.
    pub(crate) warns: bool,
    /// Planted in `make test`, too.
    pub(crate) often: bool,
    /// The command that looks, where it is another one than its layer's.
    pub(crate) by: Option<&'static str>,
}

impl Fault {
    const fn new(
        layer: Layer,
        name: &'static str,
        names: &'static [&'static str],
        touches: &'static [&'static str],
        [plant, mend]: [&'static str; 2],
    ) -> Self {
        Self { name, layer, names, touches, plant, mend, warns: false, often: false, by: None }
    }

    const fn warns(self) -> Self {
        Self { warns: true, ..self }
    }

    const fn often(self) -> Self {
        Self { often: true, ..self }
    }

    const fn by(self, command: &'static str) -> Self {
        Self { by: Some(command), ..self }
    }
}

/// All of them, lowest layer first.
pub(crate) fn all() -> Vec<&'static Fault> {
    [files::FAULTS, host::FAULTS, toolkit::FAULTS, runtime::FAULTS, up::FAULTS]
        .into_iter()
        .flatten()
        .collect()
}

/// Pairs of `make test`, by name.
const OFTEN: &[[&str; 2]] = &[
    ["another program has the agent's port", "`daemon.json` is not JSON"],
    ["a link stands in place of the identity file", "the wrong image under the right name"],
    ["`daemon.json` is not JSON", "the model is gated, and there is no token"],
    ["a token in a YAML file", "the engine ends while it loads"],
];

/// Pairs that are planted together, the lower one first: each fault with the next of its own layer, and with one of a
/// higher layer, where they do not touch the same.
pub(crate) fn pairs(all: &[&'static Fault]) -> Vec<[&'static Fault; 2]> {
    let mut pairs = Vec::new();
    let alike = |one: &Fault, other: &Fault| one.touches.iter().any(|it| other.touches.contains(it));
    for (at, lower) in all.iter().enumerate().filter(|(_, fault)| fault.by.is_none()) {
        let fits = |other: &&&Fault| other.by.is_none() && !alike(lower, other);
        pairs.extend(
            all[at + 1..]
                .iter()
                .filter(|fault| fault.layer == lower.layer)
                .find(fits)
                .map(|higher| [*lower, *higher]),
        );
        // Another layer for each, and in it another fault, so that all are partners.
        let layers: Vec<Layer> = [Layer::Toolkit, Layer::Runtime, Layer::Up]
            .into_iter()
            .filter(|layer| *layer > lower.layer)
            .collect();
        let Some(layer) = layers.get(at % layers.len().max(1)) else { continue };
        let others: Vec<&&Fault> = all.iter().filter(|fault| fault.layer == *layer).collect();
        let turned = others.iter().cycle().skip(at / layers.len() % others.len()).take(others.len());
        pairs.extend(turned.copied().find(|other| fits(other)).map(|higher| [*lower, *higher]));
    }
    pairs
}

/// The pairs of `make test`.
pub(crate) fn often_pairs(all: &[&'static Fault]) -> Vec<[&'static Fault; 2]> {
    let find = |name: &str| {
        *all.iter().find(|fault| fault.name == name).unwrap_or_else(|| panic!("there is no fault `{name}`"))
    };
    OFTEN.iter().map(|[lower, higher]| [find(lower), find(higher)]).collect()
}
