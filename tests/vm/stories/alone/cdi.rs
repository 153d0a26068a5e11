//! The road to GPUs by CDI, with harmless devices: `toolkit install` has Docker take CDI devices and writes the specification of
//! what a stand-in of the driver shows; the machine's Docker gives a container what it says.

use bedplate::host::smoke;

use crate::{
    standins::compile,
    support::{Machine, Site},
};

/// What the stand-in for NVML says: two of eight GPUs.
const SCRIPT: &str = concat!(include_str!("../../../standin/machines/eight-h100.script"), "count 2\n");
/// The driver's user space as Debian's packages lay it out, nodes that take and give nothing, and a C library for an image.
const PLANT: &str = "set -e
cd /root/standin
lib=/usr/lib/x86_64-linux-gnu
cp libcuda.so.550.163.01 libnvidia-ml.so.550.163.01 libnvidia-ml.so.550.163.01.script $lib/
ln -s libcuda.so.550.163.01 $lib/libcuda.so.1
ln -s libnvidia-ml.so.550.163.01 $lib/libnvidia-ml.so.1
ln -s libnvidia-ml.so.550.163.01.script $lib/libnvidia-ml.so.1.script
for node in nvidia0 nvidia1 nvidiactl nvidia-uvm; do mknod -m 0666 /dev/$node c 1 3; done
mkdir -p /etc/bedplate
echo 'nvml = \"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\"' >/etc/bedplate/config.toml
tar -C / -chf - lib64/ld-linux-x86-64.so.2 lib/x86_64-linux-gnu/libc.so.6 lib/x86_64-linux-gnu/libgcc_s.so.1 | docker import - glibc:1
";

#[test]
#[ignore = "long: `make test-full`"]
fn containers_get_what_the_specification_says() {
    let machine = Machine::fresh("cdi");
    let site = Site::new();
    site.lock().provision(&machine, &[]).expect(0);
    let directory = tempfile::tempdir().expect("a temporary directory");
    compile("cuda.rs", &directory.path().join("libcuda.so.550.163.01"));
    compile("nvml.rs", &directory.path().join("libnvidia-ml.so.550.163.01"));
    std::fs::write(directory.path().join("probe"), smoke::PROGRAM).expect("written");
    std::fs::write(directory.path().join("libnvidia-ml.so.550.163.01.script"), SCRIPT).expect("written");
    machine.copy(directory.path(), "/root/standin");
    machine.sh("chmod 0755 /root/standin/probe");
    machine.sh(PLANT);

    site.change("flavor = \"none\"", "flavor = \"open\"\nversion = \"550.163.01\"");
    site.change("gpu-access = \"none\"", "gpu-access = \"cdi\"");
    site.change("architecture = \"amd64\"", "architecture = \"amd64\"\npin-packages = false");
    site.change("[images]", "[gpu]\nmodel = \"H100\"\ncount = 2\n\n[images]");
    site.lock();
    for part in ["profiles", "deployments"] {
        machine.copy(&site.path(part), &format!("/root/{part}"));
    }
    let install = "bedplate toolkit install profiles/try.toml";
    machine.script(install).expect(0).says("the CDI specification of 2 GPUs with driver 550.163.01");
    let again = machine.script(install).expect(0);
    assert!(!again.stderr.contains("CDI specification"), "{again}");

    // Docker takes it, and the container has the node, the library and a working probe.
    let inside = "docker run --rm --network none -v /root/standin/probe:/probe:ro --entrypoint /probe";
    for device in ["all", "0"] {
        let seen = machine.sh(&format!("{inside} --device nvidia.com/gpu={device} glibc:1"));
        let seen: serde_json::Value = serde_json::from_str(&seen).expect("the probe prints JSON");
        assert_eq!(seen["devices"][0]["kernel"], true, "{device}: {seen}");
    }
    let without = machine.sh(&format!("{inside} glibc:1"));
    assert!(without.contains("libcuda.so.1: cannot open"), "{without}");
    machine
        .script(&format!("{inside} --device nvidia.com/gpu=7 glibc:1 2>&1 || true"))
        .expect(0)
        .says("unresolvable CDI devices");

    // That no GPU is on PCI is the lowest cause.
    let report = machine.script("bedplate toolkit verify profiles/try.toml --format json").expect(3);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("the report is JSON");
    assert_eq!(report["blame"], "doctor", "{report:#}");
}
