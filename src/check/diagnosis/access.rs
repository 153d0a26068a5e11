//! Symptoms of GPU access: how Docker gives GPUs to containers, and how a container loses them.

use super::{Case, Cause, Layer, Repair, Sign, Symptom};
use crate::{
    check::toolkit::{KIND, engine, generate},
    profile::GpuAccess,
};

/// Who makes a specification, where it is not known whether the vendor's toolkit is there.
const WRITES: &str = "`bedplate provision` writes it; where the vendor's toolkit is installed: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`";

pub(super) const ROWS: &[Symptom] = &[
    Symptom {
        id: "symptom.device-driver",
        texts: &["could not select device driver"],
        exit: None,
        looks: "`could not select device driver`",
        causes: &[
            Cause {
                id: "snap",
                means: "Docker is the snap package, which cannot reach the driver's files",
                layer: Layer::Toolkit,
                repair: Repair::Install,
                decides: "Docker's data root: `docker.daemon`",
                fix: "`snap remove docker`, then `bedplate toolkit install`",
                sign: snap,
            },
            Cause {
                id: "toolkit-missing",
                means: "the vendor's container toolkit is not installed",
                layer: Layer::Toolkit,
                repair: Repair::Install,
                decides: "whether dpkg has `nvidia-container-toolkit`: `toolkit.package`",
                fix: "`bedplate toolkit install`, then `systemctl restart docker`",
                sign: toolkit_missing,
            },
            Cause {
                id: "cdi-off",
                means: "Docker's configuration does not turn CDI on",
                layer: Layer::Toolkit,
                repair: Repair::Provision,
                decides: "`features.cdi` in `/etc/docker/daemon.json`, and what Docker says: `toolkit.wiring`",
                fix: "`bedplate provision`, which sets `features.cdi` and restarts Docker",
                sign: cdi_off,
            },
            Cause {
                id: "docker-not-restarted",
                means: "Docker was not restarted since it was configured for GPUs",
                layer: Layer::Toolkit,
                repair: Repair::RestartService,
                decides: "what `/etc/docker/daemon.json` sets against what Docker runs with; else `systemctl restart docker` and another start",
                fix: "`systemctl restart docker`",
                sign: not_restarted,
            },
        ],
    },
    Symptom {
        id: "symptom.cdi-devices",
        texts: &["unresolvable cdi devices", "cdi device injection failed"],
        exit: None,
        looks: "`unresolvable CDI devices`",
        causes: &[
            Cause {
                id: "no-specification",
                means: "there is no CDI specification of the GPUs",
                layer: Layer::Toolkit,
                repair: Repair::Provision,
                decides: "files in `/etc/cdi` and `/var/run/cdi`: `toolkit.wiring`",
                fix: WRITES,
                sign: no_specification,
            },
            Cause {
                id: "no-such-device",
                means: "the specification does not have a device that the deployment asks for",
                layer: Layer::Up,
                repair: Repair::EditDeployment,
                decides: "the device in the message against those of the specification",
                fix: "name GPUs that are there in `gpu_ids` of the deployment (`nvidia-smi -L`), or make the specification anew",
                sign: no_such_device,
            },
            Cause {
                id: "stale-specification",
                means: "the specification is of another driver, or names what is not there",
                layer: Layer::Toolkit,
                repair: Repair::Provision,
                decides: "driver version and paths that the specification names: `toolkit.cdi-fresh`",
                fix: WRITES,
                sign: |case| case.by_check("toolkit.cdi-fresh"),
            },
        ],
    },
    Symptom {
        id: "symptom.gpus-taken-away",
        texts: &["nvml: unknown error", "nvml_error_unknown"],
        exit: None,
        looks: "`Failed to initialize NVML: Unknown Error` in a container that worked",
        causes: &[Cause {
            id: "daemon-reload",
            means: "`systemctl daemon-reload` took the GPUs away from the running container",
            layer: Layer::Toolkit,
            repair: Repair::EditProfile,
            decides: "Docker's driver of control groups, runc's version and links in `/dev/char`: `docker.cgroup`",
            fix: "`bedplate restart` the deployment; then `gpu-access = \"cdi\"` with runc 1.1.7 or newer, and `bedplate provision`",
            sign: |case| case.by_check("docker.cgroup"),
        }],
    },
];

fn snap(case: &Case<'_>) -> Sign {
    match engine(case.facts) {
        Ok(engine) if engine.root.starts_with("/var/snap/") => {
            Sign::holds(format!("Docker's data are in `{}`", engine.root))
        }
        Ok(engine) => Sign::no(format!("Docker's data are in `{}`", engine.root)),
        Err(why) => Sign::open(why),
    }
}

fn access(case: &Case<'_>) -> GpuAccess {
    case.subject.profile.container.gpu_access
}

fn toolkit_missing(case: &Case<'_>) -> Sign {
    if access(case) == GpuAccess::Cdi {
        return Sign::no("containers get GPUs by a CDI specification");
    }
    match case.facts.toolkit.as_result() {
        Ok(toolkit) => match &toolkit.version {
            None => Sign::holds("dpkg does not have `nvidia-container-toolkit`"),
            Some(version) if toolkit.broken => {
                Sign::holds(format!("`nvidia-container-toolkit` {version} is installed in part"))
                    .fix("`dpkg --configure -a`, then `systemctl restart docker`")
            }
            Some(version) => Sign::no(format!("`nvidia-container-toolkit` {version} is installed")),
        },
        Err(why) => Sign::open(why),
    }
}

/// What Docker says of CDI, and what its configuration says.
fn cdi(case: &Case<'_>) -> Result<(bool, bool), Sign> {
    if access(case) != GpuAccess::Cdi {
        return Err(Sign::no("the profile does not give GPUs by CDI"));
    }
    let runs = match engine(case.facts) {
        Ok(engine) => {
            engine.cdi.ok_or_else(|| Sign::open("Docker does not say whether it takes CDI devices"))?
        }
        Err(why) => return Err(Sign::open(why)),
    };
    if case.facts.broken_daemon_json().is_some() {
        return Err(Sign::open("`/etc/docker/daemon.json` is not JSON"));
    }
    match case.facts.daemon_json.as_result() {
        Ok(configuration) => Ok((runs, configuration.as_ref().and_then(|found| found.cdi) == Some(true))),
        Err(why) => Err(Sign::open(why)),
    }
}

fn cdi_off(case: &Case<'_>) -> Sign {
    match cdi(case) {
        Ok((false, false)) => Sign::holds("Docker takes no CDI devices, and `features.cdi` is not on"),
        Ok((true, _)) => Sign::no("Docker takes CDI devices"),
        Ok((false, true)) => Sign::no("`/etc/docker/daemon.json` turns it on"),
        Err(sign) => sign,
    }
}

fn not_restarted(case: &Case<'_>) -> Sign {
    if access(case) == GpuAccess::Cdi {
        return match cdi(case) {
            Ok((false, true)) => {
                Sign::holds("`/etc/docker/daemon.json` turns CDI on, and Docker runs without it")
            }
            Ok((true, _)) => Sign::no("Docker takes CDI devices"),
            Ok((false, false)) => Sign::no("`/etc/docker/daemon.json` does not turn CDI on"),
            Err(sign) => sign,
        };
    }
    // Docker looks for the toolkit's hook once, when it starts (moby, `daemon/nvidia_linux.go`).
    match toolkit_missing(case) {
        Sign::Holds(seen, _) => return Sign::no(seen),
        Sign::Open(why) => return Sign::open(why),
        Sign::No(_) => {}
    }
    let configured = match case.facts.daemon_keys.as_result() {
        Ok(keys) => keys.contains_key("/runtimes/nvidia/path"),
        Err(why) => return Sign::open(why),
    };
    match engine(case.facts) {
        Ok(engine) if configured && !engine.runtimes.contains("nvidia") => {
            Sign::holds("`/etc/docker/daemon.json` has the runtime `nvidia`, and Docker runs without it")
        }
        Ok(_) => Sign::open("the toolkit is installed, and when Docker looked for it is not known"),
        Err(why) => Sign::open(why),
    }
}

fn no_specification(case: &Case<'_>) -> Sign {
    match case.facts.cdi.as_result() {
        Ok(specs) => match specs.iter().find(|spec| spec.kind.as_deref() == Some(KIND)) {
            Some(spec) => Sign::no(format!("`{}` is one", spec.path)),
            None => Sign::holds(format!("no file in `/etc/cdi` and `/var/run/cdi` is of `{KIND}`"))
                .fix(generate(case.subject, case.facts)),
        },
        Err(why) => Sign::open(why),
    }
}

fn no_such_device(case: &Case<'_>) -> Sign {
    let specs = match case.facts.cdi.as_result() {
        Ok(specs) => specs,
        Err(why) => return Sign::open(why),
    };
    let ours = || specs.iter().filter(|spec| spec.kind.as_deref() == Some(KIND));
    if ours().next().is_none() {
        return Sign::no("there is no specification at all");
    }
    // `unresolvable CDI devices nvidia.com/gpu=7, nvidia.com/gpu=8`
    let asked = case.line.split(|c: char| c.is_whitespace() || c == ',' || c == '"');
    let asked: Vec<&str> = asked
        .filter_map(|word| word.strip_prefix(KIND)?.strip_prefix('='))
        .filter(|name| !name.is_empty())
        .collect();
    let has =
        |name: &str| ours().any(|spec| spec.devices.iter().any(|device| device.eq_ignore_ascii_case(name)));
    match asked.iter().find(|name| !has(name)) {
        Some(name) => Sign::holds(format!("the specification has no `{KIND}={name}`")),
        None if asked.is_empty() => Sign::open("the message names no device"),
        None => Sign::no("the specification has every device that the message names"),
    }
}
