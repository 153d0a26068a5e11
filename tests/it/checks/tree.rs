//! A host with GPUs as a tree on disk, with the NVML stand-in: gathered and judged by the real code.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bedplate::{
    host::facts::{Facts, Known, Nvml, PathState, Sources, gather},
    system::files::Root,
};
use tempfile::TempDir;

use super::{
    nvml::{EIGHT, standin},
    *,
};

pub(super) fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn mode(root: &Path, path: &str, mode: u32) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A character device. Only root may make one.
pub(super) fn node(root: &Path, path: &str, mode: u32, major: u32, minor: u32) {
    assert!(rustix::process::geteuid().is_root(), "these tests make device nodes: run them as root");
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let number = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::from_raw_mode(mode), number).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What the loaded driver makes: its files in `/proc`, its nodes, a quiet log.
fn driver(root: &Path) {
    write(root, "/proc/driver/nvidia/params", "ResmanDebugLevel: 4294967295\nDeviceFileMode: 438\n");
    write(
        root,
        "/proc/devices",
        "Character devices:\n  1 mem\n195 nvidia\n238 nvidia-uvm\n\nBlock devices:\n  7 loop\n",
    );
    for index in 0..8 {
        let place = format!("/proc/driver/nvidia/gpus/0000:{index:02x}:00.0/information");
        write(root, &place, &format!("Model: \t\t NVIDIA H100 80GB HBM3\nDevice Minor: \t {index}\n"));
        node(root, &format!("/dev/nvidia{index}"), 0o666, 195, index);
    }
    node(root, "/dev/nvidiactl", 0o666, 195, 255);
    node(root, "/dev/nvidia-uvm", 0o666, 238, 0);
    node(root, "/dev/nvidia-caps/nvidia-cap1", 0o400, 241, 1);
    write(root, "/sys/fs/cgroup/cgroup.procs", "1\n");
    write(root, "/proc/uptime", "7200.11 14000.00\n");
    log(
        root,
        "6,0,0,-;Linux version 6.12.57+deb13-amd64\n6,1,900000,-;NVRM: loading NVIDIA UNIX Open Kernel Module\n",
    );
}

/// The kernel's log, as `/dev/kmsg` gives it.
pub(super) fn log(root: &Path, lines: &str) {
    write(root, "/dev/kmsg", lines);
}

/// Eight H100, a network card, a loaded module, libraries, a CDI specification, a shut mount, a model.
pub(super) fn host() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    write(
        root,
        "/etc/os-release",
        "ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
    );
    write(root, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    write(root, "/etc/group", "root:x:0:\n");
    write(root, "/proc/meminfo", "MemTotal: 1000000000 kB\nMemAvailable: 900000000 kB\n");
    write(root, "/proc/sys/kernel/random/boot_id", "b00t\n");
    std::fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
    for index in 0..9 {
        let name = format!("0000:{index:02x}:00.0");
        let place = format!("/sys/devices/pci0000:00/{name}");
        let (vendor, class) = if index == 8 { ("0x15b3", "0x020000") } else { ("0x10de", "0x030200") };
        write(root, &format!("{place}/vendor"), vendor);
        write(root, &format!("{place}/class"), class);
        write(root, &format!("{place}/device"), "0x2330\n");
        symlink("../../../bus/pci/drivers/nvidia", root.join(format!("{}/driver", &place[1..]))).unwrap();
        symlink(format!("../../../devices/pci0000:00/{name}"), root.join("sys/bus/pci/devices").join(&name))
            .unwrap();
    }
    write(root, "/sys/module/nvidia/version", "550.163.01\n");
    write(root, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01", "");
    symlink("libnvidia-ml.so.550.163.01", root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")).unwrap();
    write(root, "/usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01", "");
    driver(root);
    write(
        root,
        "/etc/cdi/nvidia.yaml",
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n\
         containerEdits:\n  mounts:\n  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01\n    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01\n    options: [ro, bind]\n",
    );
    write(root, "/data/minerhome/config.json", "{}");
    mode(root, "/data/minerhome", 0o700);
    mode(root, "/data/minerhome/config.json", 0o600);
    write(root, "/run/bedplate/secrets/HF_TOKEN", "hf_very_secret_value");
    mode(root, "/run/bedplate/secrets", 0o700);
    mode(root, "/run/bedplate/secrets/HF_TOKEN", 0o400);
    let model = "/data/huggingface/hub/models--organisation--tiny";
    write(root, &format!("{model}/refs/main"), "abc");
    write(root, &format!("{model}/blobs/1"), "weights");
    write(
        root,
        &format!("{model}/snapshots/abc/config.json"),
        "{\"model_type\": \"llama\", \"num_attention_heads\": 8, \"num_key_value_heads\": 2, \"hidden_size\": 512, \
         \"num_hidden_layers\": 4, \"max_position_embeddings\": 4096, \"torch_dtype\": \"bfloat16\"}",
    );
    symlink("../../blobs/1", root.join(format!("{}/snapshots/abc/model.safetensors", &model[1..]))).unwrap();
    directory
}

pub(super) async fn look(root: &Path, script: &str) -> (Facts, Report) {
    let (_library, library) = standin(script);
    let mut sources = Sources::of(Arc::new(Root::open(root).unwrap()));
    sources.docker_socket = root.join("docker.sock").display().to_string();
    sources.nvml_library = Some(library);
    sources.limit = Duration::from_secs(3);
    let (profile, deployment) = (profile(), deployment());
    let subject = Subject::new("tiny", &profile, None, vec![&deployment]).unwrap();
    let facts = gather(&subject.wanted, &sources).await;
    let again: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
    assert_eq!(again, facts);
    let report = judge(&[Layer::Doctor], &subject, &facts);
    (facts, report)
}

fn outcomes<'i>(report: &Report, ids: &[&'i str]) -> Vec<(&'i str, Outcome)> {
    ids.iter().map(|id| (*id, finding(report, id).outcome)).collect()
}

const GPU: [&str; 4] = ["gpu.pci", "gpu.module", "gpu.version-match", "gpu.count"];

#[tokio::test]
async fn a_healthy_tree_is_read_as_it_is() {
    let host = host();
    let (facts, report) = look(host.path(), EIGHT).await;
    assert_eq!(facts.pci.ok().unwrap().len(), 8);
    assert_eq!(facts.pci.ok().unwrap()[0].driver.as_deref(), Some("nvidia"));
    let spec = &facts.cdi.ok().unwrap()[0];
    assert_eq!((spec.kind.as_deref(), spec.missing.len()), (Some("nvidia.com/gpu"), 0));
    assert_eq!(spec.versions.iter().collect::<Vec<_>>(), ["550.163.01"]);
    let model = &facts.models["tiny"];
    let local = model.local.ok().unwrap().as_ref().unwrap();
    let heads = model.shape.ok().and_then(|shape| shape.heads);
    assert_eq!((local.complete, local.weights, heads, model.weights.ok()), (true, 7, Some(8), Some(&7)));
    for id in GPU.iter().chain(&["host.memory", "host.disk", "deploy.fit", "secret.present"]) {
        let finding = finding(&report, id);
        assert_eq!(finding.outcome, Outcome::Pass, "{id}: {} {:?}", finding.because, finding.evidence);
    }
    let root = rustix::process::geteuid().is_root();
    let modes = finding(&report, "secret.modes");
    assert_eq!(modes.outcome == Outcome::Pass, root, "{} {:?}", modes.because, modes.evidence);
    let said =
        format!("{}{}", serde_json::to_string(&facts).unwrap(), serde_json::to_string(&report).unwrap());
    assert!(!said.contains("hf_very_secret_value"));
}

#[tokio::test]
async fn each_fault_of_the_driver_is_its_own_check() {
    use Outcome::{Fail, Pass, Skipped, Unknown};
    let host = host();
    let (_, report) = look(host.path(), &format!("{EIGHT}lost 3\n")).await;
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Pass, Pass, Pass, Fail]);
    assert!(finding(&report, "gpu.count").evidence.iter().any(|line| line.starts_with("GPU 3: ")));
    let (_, report) = look(host.path(), "init 18").await;
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Pass, Pass, Fail, Skipped]);
    let (_, report) = look(host.path(), "init 9").await;
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Pass, Pass, Unknown, Skipped]);
    // A library that hangs makes only what NVML says unknown.
    let (facts, report) = look(host.path(), "hang").await;
    assert!(matches!(&facts.nvml, Known::Unknown { why } if why.contains("did not answer within")));
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Pass, Pass, Unknown, Skipped]);
    assert_eq!(finding(&report, "host.memory").outcome, Pass);
    std::fs::remove_dir_all(host.path().join("sys/module/nvidia")).unwrap();
    let (_, report) = look(host.path(), "init 9").await;
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Pass, Fail, Skipped, Skipped]);
    std::fs::remove_dir_all(host.path().join("sys/bus/pci/devices")).unwrap();
    let (facts, report) = look(host.path(), EIGHT).await;
    assert!(matches!(facts.nvml, Known::Ok(Nvml::Answers(_))));
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Fail, Skipped, Skipped, Skipped]);
    std::fs::remove_dir_all(host.path().join("sys")).unwrap();
    let (_, report) = look(host.path(), EIGHT).await;
    assert_eq!(outcomes(&report, &GPU).map_outcomes(), [Unknown, Skipped, Skipped, Skipped]);
}

trait Outcomes {
    fn map_outcomes(&self) -> Vec<Outcome>;
}

impl Outcomes for Vec<(&str, Outcome)> {
    fn map_outcomes(&self) -> Vec<Outcome> {
        self.iter().map(|(_, outcome)| *outcome).collect()
    }
}

#[tokio::test]
async fn a_link_or_a_wide_mode_on_the_way_to_what_is_private_fails() {
    let host = host();
    mode(host.path(), "/data/minerhome/config.json", 0o644);
    let (_, report) = look(host.path(), EIGHT).await;
    let modes = finding(&report, "secret.modes");
    assert_eq!(modes.outcome, Outcome::Fail);
    assert!(modes.because.contains("has mode 0644, at most 0600"), "{}", modes.because);
    std::fs::rename(host.path().join("data"), host.path().join("elsewhere")).unwrap();
    symlink("elsewhere", host.path().join("data")).unwrap();
    let (facts, report) = look(host.path(), EIGHT).await;
    assert_eq!(facts.paths["/data/minerhome"], Known::Ok(PathState::Link("/data".to_owned())));
    assert_eq!(finding(&report, "secret.modes").outcome, Outcome::Fail);
}

#[tokio::test]
async fn a_stale_or_broken_specification_is_seen() {
    let host = host();
    std::fs::remove_file(host.path().join("dev/nvidia0")).unwrap();
    write(host.path(), "/var/run/cdi/other.json", "{ not json");
    write(host.path(), "/sys/module/nvidia/version", "570.10.01\n");
    let (facts, _) = look(host.path(), EIGHT).await;
    let specs = facts.cdi.ok().unwrap();
    assert_eq!(specs.len(), 2);
    assert_eq!(specs[0].missing.iter().collect::<Vec<_>>(), ["/dev/nvidia0"]);
    assert!(specs[1].broken.is_some());
    let profile = profile();
    let subject = Subject::new("host", &profile, None, Vec::new()).unwrap();
    let report = bedplate::check::judge_only(&["toolkit.cdi-fresh"], &subject, &facts);
    let fresh = finding(&report, "toolkit.cdi-fresh");
    assert_eq!(fresh.outcome, Outcome::Fail);
    assert!(fresh.because.contains("made for driver 550.163.01, 570.10.01 is loaded"), "{}", fresh.because);
}
