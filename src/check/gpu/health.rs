//! Layer 1: how the GPUs are: persistence, memory errors, link, heat, MIG.

use super::{answering, reached};
use crate::{
    check::{
        subject::Subject,
        verdict::{Tally, Verdict},
    },
    host::facts::{Facts, Health, Of, Reading, Slowed, looked_at},
    profile::{Deployment, deployment::GpuIds},
};

/// Looks at each GPU that NVML reaches; one that it does not is `gpu.count`'s matter.
fn each(facts: &Facts, pass: &str, nothing: &str, look: impl Fn(&mut Tally, u32, &Health)) -> Verdict {
    let mut tally = Tally::default();
    if let Err(why) = visit(&mut tally, facts, look) {
        return Verdict::unknown(why);
    }
    tally.verdict(pass, nothing)
}

fn visit(tally: &mut Tally, facts: &Facts, look: impl Fn(&mut Tally, u32, &Health)) -> Result<(), String> {
    for gpu in &answering(facts)?.devices {
        match looked_at(&facts.health, gpu.index) {
            Ok(health) => look(tally, gpu.index, health),
            Err(why) => tally.unknown(format!("GPU {}: {why}", gpu.index)),
        }
    }
    Ok(())
}

/// The value, or a line that says why there is none.
fn value<'r, T>(tally: &mut Tally, reading: &'r Reading<T>, what: &str) -> Option<&'r T> {
    match reading {
        Reading::Value(value) => return Some(value),
        Reading::NotSupported => tally.note(format!("{what}: this card has none")),
        Reading::Unknown { why } => tally.unknown(format!("{what}: {why}")),
    }
    None
}

pub(super) fn persistence(_: &Subject<'_>, facts: &Facts) -> Verdict {
    each(facts, "persistence mode is on", "no GPU has a persistence mode", |tally, index, health| {
        match value(tally, &health.persistence, &format!("persistence mode of GPU {index}")) {
            Some(true) => tally.good(format!("GPU {index}: persistence mode is on")),
            Some(false) => tally.weak(
                format!("persistence mode of GPU {index} is off: the driver forgets its settings while nobody uses the GPU, and starting takes seconds longer"),
                "`systemctl enable --now nvidia-persistenced` (package `nvidia-persistenced`), or until the next boot `nvidia-smi -pm 1`",
            ),
            None => {}
        }
    })
}

pub(super) fn ecc(_: &Subject<'_>, facts: &Facts) -> Verdict {
    each(facts, "no uncorrected memory error, and nothing waits for a reset", "no GPU has ECC", memory)
}

/// One GPU gives at most one problem, the gravest.
fn memory(tally: &mut Tally, index: u32, health: &Health) {
    let Some(ecc) = value(tally, &health.ecc, &format!("ECC of GPU {index}")) else { return };
    let errors = match (&health.uncorrected, ecc.now) {
        (Reading::Value(errors), _) => Some(*errors),
        (Reading::Unknown { why }, _) => {
            tally.unknown(format!("memory errors of GPU {index}: {why}"));
            None
        }
        (Reading::NotSupported, true) => {
            tally.unknown(format!("memory errors of GPU {index}: ECC is on, and NVML gives no count"));
            None
        }
        (Reading::NotSupported, false) => None,
    };
    let seen = errors.map_or(String::new(), |errors| {
        format!(" ({} uncorrected errors since the driver was loaded, {} ever)", errors.recent, errors.ever)
    });
    let reset = format!("stop what uses it, then `nvidia-smi --gpu-reset -i {index}`, or reboot");
    // Cards have rows that are remapped or pages that are retired, never both.
    let rows = value(tally, &health.remaps, &format!("remapped rows of GPU {index}"));
    let pages = value(tally, &health.retired, &format!("retired pages of GPU {index}"));
    if rows.is_some_and(|rows| rows.failed) {
        return tally.bad(
            format!("GPU {index} could not replace a row of memory: no spare one is left{seen}"),
            "take the GPU out of use and have the card replaced",
        );
    }
    if rows.is_some_and(|rows| rows.pending) {
        return tally.bad(format!("GPU {index} waits for a reset to replace a row of memory{seen}"), reset);
    }
    if pages.is_some_and(|pages| pages.pending) {
        return tally.bad(
            format!("GPU {index} waits for a reboot to take a page of memory out of use{seen}"),
            "stop what uses it, then reboot",
        );
    }
    if errors.is_some_and(|errors| errors.recent > 0) {
        return tally.bad(
            format!("GPU {index} had memory errors that ECC could not correct{seen}"),
            format!("{reset}; if they come back, have the card replaced"),
        );
    }
    if !ecc.now || !ecc.next {
        let when = match (ecc.now, ecc.next) {
            (false, false) => "is off",
            (false, true) => "is off until the next reset",
            (true, _) => "goes off with the next reset",
        };
        return tally.weak(
            format!("ECC of GPU {index} {when}: memory errors go unseen"),
            format!("`nvidia-smi -i {index} -e 1`, then {reset}"),
        );
    }
    if errors.is_some() {
        let rows = rows.map_or(String::new(), |rows| {
            format!(", {} rows replaced", rows.corrected.saturating_add(rows.uncorrected))
        });
        let pages = pages.map_or(String::new(), |pages| {
            format!(", {} pages retired", pages.single.saturating_add(pages.double))
        });
        tally.good(format!("GPU {index}: ECC is on{rows}{pages}{seen}"));
    }
}

pub(super) fn link(_: &Subject<'_>, facts: &Facts) -> Verdict {
    const NEXT: &str = "reseat the card or its riser, look at the slot's settings in the firmware, and at `lspci -vv` (`LnkSta`)";
    each(
        facts,
        "every link is as wide and fast as card and slot can",
        "no GPU has a PCI Express link",
        |tally, index, health| {
            let width = value(tally, &health.link_width, &format!("link width of GPU {index}"));
            let generation =
                value(tally, &health.link_generation, &format!("link generation of GPU {index}"));
            if let Some(Of { now, most }) = width.filter(|width| width.now < width.most) {
                return tally.weak(format!("the link of GPU {index} has {now} of {most} lanes"), NEXT);
            }
            if let Some(Of { now, most }) = generation.filter(|generation| generation.now < generation.most) {
                // Idle cards lower it to save power.
                let busy = health.clocks.value().is_some_and(|clocks| !clocks.contains(&Slowed::Idle));
                if busy {
                    return tally
                        .weak(format!("the link of GPU {index} runs at generation {now} of {most}"), NEXT);
                }
                return tally.unknown_until(
                format!("the link of GPU {index} is at generation {now} of {most}, and the GPU is idle: many cards lower it then"),
                "look again while something runs on it",
            );
            }
            if let (Some(width), Some(generation)) = (width, generation) {
                tally.good(format!(
                    "GPU {index}: generation {} of {}, {} of {} lanes",
                    generation.now, generation.most, width.now, width.most
                ));
            }
        },
    )
}

pub(super) fn thermal(_: &Subject<'_>, facts: &Facts) -> Verdict {
    each(
        facts,
        "no GPU is slowed down by heat or power",
        "no GPU says why it is slowed down",
        |tally, index, health| {
            let Some(clocks) = value(tally, &health.clocks, &format!("clocks of GPU {index}")) else {
                return;
            };
            let degrees =
                health.temperature.value().map_or(String::new(), |degrees| format!(" at {degrees} °C"));
            let has = |reason| clocks.contains(&reason);
            if has(Slowed::HeatByDriver) || has(Slowed::HeatByHardware) {
                let by =
                    if has(Slowed::HeatByHardware) { "the hardware, by half or more" } else { "the driver" };
                return tally.weak(
                format!("GPU {index} is slowed down for heat{degrees}, by {by}"),
                "look at fans, filters and the air that goes in: `nvidia-smi -q -d TEMPERATURE,PERFORMANCE`",
            );
            }
            if has(Slowed::PowerBrake) {
                return tally.weak(
                    format!("GPU {index} is slowed down by half or more: the power supply asks for it"),
                    "look at the power supplies and their limit in the machine's management controller",
                );
            }
            if has(Slowed::Hardware) {
                return tally.weak(
                    format!(
                        "GPU {index} is slowed down by the hardware{degrees}: heat, power supply or a spike"
                    ),
                    "`nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER`",
                );
            }
            if has(Slowed::PowerLimit) {
                return tally.weak(
                format!("GPU {index} is slowed down by its power limit"),
                "usual under full load; `nvidia-smi -q -d POWER` shows the limit, `nvidia-smi -pl` sets it",
            );
            }
            let idle = if has(Slowed::Idle) { ", idle" } else { "" };
            tally.good(format!("GPU {index}: not slowed down{degrees}{idle}"));
        },
    )
}

/// What a deployment asks of a GPU.
enum Asks {
    /// Whole.
    Whole,
    /// Divided, with an instance of this number.
    Divided(u32),
}

pub(super) fn mig(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    let deployments = &subject.deployments;
    let visited = visit(&mut tally, facts, |tally, index, health| {
        let what = format!("MIG mode of GPU {index}");
        let on = match &health.mig {
            Reading::Unknown { why } => return tally.unknown(format!("{what}: {why}")),
            // A card that cannot be divided is whole.
            Reading::NotSupported => false,
            Reading::Value(mode) if mode.now != mode.next => {
                let (now, next) = if mode.now { ("on", "off") } else { ("off", "on") };
                return tally.bad(
                    format!("{what} is {now}, and {next} after the next reset"),
                    format!("stop what uses it, then `nvidia-smi --gpu-reset -i {index}`, or reboot"),
                );
            }
            Reading::Value(mode) => mode.now,
        };
        let instances = health.instances.value().copied().unwrap_or(0);
        let word = if on { format!("on, {instances} MIG devices") } else { "off".to_owned() };
        let mut asked = false;
        for deployment in deployments {
            let (name, uuid) = (&deployment.name, uuid(facts, index));
            match asks(deployment, index, uuid) {
                None => {}
                Some(Asks::Whole) if on => return tally.bad(
                    format!("`{name}` wants GPU {index} whole, and its MIG mode is on"),
                    format!("`nvidia-smi -i {index} -mig 0` and reset it, or name MIG devices in `gpu_ids` of `{name}.yaml` (`nvidia-smi -L`)"),
                ),
                Some(Asks::Divided(_)) if !on => return tally.bad(
                    format!("`{name}` wants a MIG device of GPU {index}, and its MIG mode is off"),
                    format!("`nvidia-smi -i {index} -mig 1`, reset it and make instances (`nvidia-smi mig -cgi … -C`), or name whole GPUs in `gpu_ids` of `{name}.yaml`"),
                ),
                Some(Asks::Divided(instance)) if instance >= instances => return tally.bad(
                    format!("`{name}` wants MIG device {instance} of GPU {index}, which has {instances}"),
                    format!("make it: `nvidia-smi mig -i {index} -cgi … -C`, or name one that is there in `gpu_ids` of `{name}.yaml`"),
                ),
                Some(_) => asked = true,
            }
        }
        let line = format!("{what}: {word}");
        if asked {
            tally.good(line);
        } else {
            tally.note(line);
        }
    });
    if let Err(why) = visited {
        return Verdict::unknown(why);
    }
    by_uuid(&mut tally, deployments, facts);
    tally.verdict("MIG is as the deployments ask", "no deployment was given that asks for these GPUs")
}

fn uuid(facts: &Facts, index: u32) -> Option<&str> {
    let gpus = reached(facts).ok()?;
    gpus.devices.iter().find(|gpu| gpu.index == index)?.uuid.as_deref()
}

/// What a deployment asks of the GPU with this index; `None`: nothing, or it names a MIG device by UUID.
fn asks(deployment: &Deployment, index: u32, uuid: Option<&str>) -> Option<Asks> {
    let GpuIds::List(ids) = &deployment.gpu_ids else { return Some(Asks::Whole) };
    let own = index.to_string();
    ids.iter().find_map(|id| {
        if let Some((gpu, instance)) = id.split_once(':') {
            return if gpu == own { instance.parse().ok().map(Asks::Divided) } else { None };
        }
        // Docker takes the beginning of a UUID, too.
        let named = id.len() >= 8 && uuid.is_some_and(|uuid| uuid.starts_with(id.as_str()));
        (*id == own || named).then_some(Asks::Whole)
    })
}

/// MIG devices by UUID: which GPU they are of is not looked at, but there must be some.
fn by_uuid(tally: &mut Tally, deployments: &[&Deployment], facts: &Facts) {
    let some = facts
        .health
        .values()
        .filter_map(|health| health.ok())
        .any(|health| health.instances.value().is_some_and(|instances| *instances > 0));
    for deployment in deployments {
        let GpuIds::List(ids) = &deployment.gpu_ids else { continue };
        let name = &deployment.name;
        if ids.iter().any(|id| id.starts_with("MIG-")) {
            if some {
                tally.good(format!("`{name}` wants MIG devices by UUID, and there are MIG devices"));
            } else {
                tally.bad(
                    format!("`{name}` wants MIG devices, and there are none"),
                    format!("make them (`nvidia-smi -mig 1`, a reset, `nvidia-smi mig -cgi … -C`), or name whole GPUs in `gpu_ids` of `{name}.yaml`"),
                );
            }
        }
    }
}
