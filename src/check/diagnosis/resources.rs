//! Symptoms of what a host has too little of: room, memory, a port.

use super::{Case, Cause, Layer, Repair, Sign, Symptom};
use crate::{
    check::{host::unpacked, verdict::size},
    host::facts::{Kill, looked_up, need},
};

pub(super) const ROWS: &[Symptom] = &[
    Symptom {
        id: "symptom.no-space",
        texts: &["no space left on"],
        exit: None,
        looks: "`no space left on device`",
        causes: &[
            Cause {
                id: "shared-memory",
                means: "the container's shared memory is full",
                layer: Layer::Up,
                repair: Repair::EditDeployment,
                decides: "whether the log speaks of `/dev/shm`",
                fix: "raise `shm_size` in the deployment",
                sign: shared_memory,
            },
            Cause {
                id: "inodes",
                means: "the file system has no inodes left",
                layer: Layer::Doctor,
                repair: Repair::MakeRoom,
                decides: "free inodes where images and models are: `host.inodes`",
                fix: "find what has many small files, and remove it",
                sign: |case| case.by_check("host.inodes"),
            },
            Cause {
                id: "unpacked-images",
                means: "the image needs more room unpacked than Docker's disk has, which is more than its download",
                layer: Layer::Doctor,
                repair: Repair::MakeRoom,
                decides: "free space where Docker keeps images against the unpacked size of those not pulled yet (estimated): `host.disk`",
                fix: "make room there: `docker system df`, then `docker image prune`; or move Docker's data to a larger disk",
                sign: images,
            },
            Cause {
                id: "weights",
                means: "the model's weights need more room than the cache's disk has",
                layer: Layer::Runtime,
                repair: Repair::MakeRoom,
                decides: "free space at the model cache against what must be fetched: `runtime.cache`",
                fix: "make room, or move `hf_cache` to a larger disk",
                sign: weights,
            },
        ],
    },
    Symptom {
        id: "symptom.port-taken",
        texts: &["address already in use", "port is already allocated"],
        exit: None,
        looks: "`address already in use`",
        causes: &[Cause {
            id: "taken",
            means: "another program has the port",
            layer: Layer::Doctor,
            repair: Repair::EndProcess,
            decides: "who listens on the deployment's ports: `host.ports`",
            fix: "end that process, or choose another port in the deployment",
            sign: |case| case.by_check("host.ports"),
        }],
    },
    Symptom {
        id: "symptom.exit-137",
        texts: &[],
        exit: Some(137),
        looks: "exit code 137 (killed)",
        causes: &[
            Cause {
                id: "container-limit",
                means: "a memory limit over the container was reached: bedplate sets none, so it is Docker's slice or the machine's",
                layer: Layer::Toolkit,
                repair: Repair::EditProfile,
                decides: "the kernel's log: `Memory cgroup out of memory`",
                fix: "raise or remove it: `systemctl show docker.service system.slice -p MemoryMax`, and `cgroup-parent` in Docker's configuration",
                sign: |case| killed(case, true),
            },
            Cause {
                id: "host-memory",
                means: "the host ran out of memory",
                layer: Layer::Doctor,
                repair: Repair::EditDeployment,
                decides: "the kernel's log: `Out of memory: Killed process`; and the host's memory against the need: `host.memory`",
                fix: "lower `shm_size` or what else runs there, or use a host with more memory",
                sign: host_memory,
            },
            Cause {
                id: "killed",
                means: "something else sent it SIGKILL: a person, `docker kill`, or a stop that took too long",
                layer: Layer::Up,
                repair: Repair::RestartService,
                decides: "that Docker and the kernel's log know of no kill for memory; `journalctl -u docker` shows who stopped it",
                fix: "`bedplate restart` it; `journalctl -u docker` shows who stopped it",
                sign: by_others,
            },
        ],
    },
];

fn shared_memory(case: &Case<'_>) -> Sign {
    if case.says(&["/dev/shm", "shared memory"]) {
        Sign::holds("the log speaks of shared memory")
    } else {
        Sign::no("the log does not speak of shared memory")
    }
}

fn images(case: &Case<'_>) -> Sign {
    let root = case.facts.image_root();
    let missing = need::images(&case.subject.wanted, case.facts);
    let download: u64 = missing.values().map(|image| image.download).sum();
    if download == 0 {
        return Sign::no("every locked image is on the host");
    }
    let need = unpacked(download);
    match looked_up(&case.facts.space, root) {
        Ok(space) => {
            let line = format!(
                "`{root}` has {} free; images not yet there are {} to fetch and about {} unpacked",
                size(space.free),
                size(download),
                size(need)
            );
            if space.free < need { Sign::holds(line) } else { Sign::no(line) }
        }
        Err(why) => Sign::open(format!("free space for `{root}`: {why}")),
    }
}

fn weights(case: &Case<'_>) -> Sign {
    if case.seen.service.is_empty() {
        return Sign::no("no container speaks, and nothing else fetches weights");
    }
    let cannot_write =
        case.facts.caches.values().filter_map(|cache| cache.ok()).find_map(|cache| cache.why.as_ref());
    match cannot_write {
        Some(why) => Sign::no(format!("the cache cannot be written at all: {why}")),
        None => case.by_check("runtime.cache"),
    }
}

/// How long a kill may be ago to be this container's, in seconds: it is looked at right after the end.
const RECENT: u64 = 3600;

/// The last kill for memory of this kind.
fn last_kill<'c>(case: &'c Case<'_>, limit: bool) -> Result<Option<&'c Kill>, &'c str> {
    let log = case.facts.kernel_log.as_result()?;
    Ok(log.kills.iter().rev().find(|kill| kill.limit == limit && kill.ago <= RECENT))
}

fn killed(case: &Case<'_>, limit: bool) -> Sign {
    match last_kill(case, limit) {
        Ok(Some(kill)) => Sign::holds(format!(
            "the kernel killed `{}` {} s ago, {}",
            kill.program,
            kill.ago,
            if limit { "for a limit" } else { "for the host's memory" }
        )),
        Ok(None) if case.facts.kernel_log.ok().is_some_and(|log| log.whole || log.reach >= RECENT) => {
            Sign::no("the kernel's log has no such kill within the hour")
        }
        Ok(None) => Sign::open("the kernel's log does not go back far enough"),
        Err(why) => Sign::open(format!("the kernel's log: {why}")),
    }
}

fn host_memory(case: &Case<'_>) -> Sign {
    match (killed(case, false), case.by_check("host.memory")) {
        (holds @ Sign::Holds(..), _) | (Sign::Open(_), holds @ Sign::Holds(..)) => holds,
        (other, _) => other,
    }
}

fn by_others(case: &Case<'_>) -> Sign {
    if case.seen.oom_killed {
        return Sign::no("Docker says that it was killed for memory");
    }
    match (killed(case, true), killed(case, false)) {
        (Sign::Holds(seen, _), _) | (_, Sign::Holds(seen, _)) => Sign::no(seen),
        (Sign::No(_), Sign::No(_)) => {
            Sign::holds("Docker and the kernel's log know of no kill for memory within the hour")
        }
        (Sign::Open(why), _) | (_, Sign::Open(why)) => Sign::open(why),
    }
}
