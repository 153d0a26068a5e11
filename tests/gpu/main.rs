//! A real GPU and its driver, through the real NVML. Opt-in, since few machines have one: `make test-gpu` runs it where
//! one is, and fails where none is.
//!
//! What is said here is compared with what other sources of the same machine say: the driver's own `/proc` files, PCI in
//! sysfs and `nvidia-smi`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use bedplate::{
    check::{
        Subject, judge,
        report::{Layer, Outcome},
    },
    gpu::{Gpus, Library},
    host::facts::{Sources, gather},
    profile,
    system::files::Root,
};

const NEEDS: &str = "these tests are for a machine with an NVIDIA GPU and its driver";

fn observed() -> Gpus {
    Library::open(None).and_then(|library| library.observe()).expect(NEEDS)
}

fn smi(query: &str) -> Vec<String> {
    let output = Command::new("nvidia-smi")
        .args([&format!("--query-gpu={query}"), "--format=csv,noheader,nounits"])
        .output()
        .expect(NEEDS);
    assert!(output.status.success(), "{NEEDS}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn nvml_says_what_nvidia_smi_says() {
    let gpus = observed();
    assert!(!gpus.devices.is_empty() && gpus.lost.is_empty(), "{gpus:?}");
    let column = |query| smi(query);
    assert_eq!(column("driver_version")[0], gpus.driver);
    let names: Vec<_> = gpus.devices.iter().map(|gpu| gpu.name.clone().unwrap()).collect();
    assert_eq!(column("name"), names);
    let ids: Vec<_> = gpus.devices.iter().map(|gpu| gpu.uuid.clone().unwrap()).collect();
    assert_eq!(column("uuid"), ids);
    let memory: Vec<_> = gpus.devices.iter().map(|gpu| (gpu.memory.unwrap() >> 20).to_string()).collect();
    assert_eq!(column("memory.total"), memory);
    let capability: Vec<_> = gpus
        .devices
        .iter()
        .map(|gpu| gpu.compute_capability.map(|(major, minor)| format!("{major}.{minor}")).unwrap())
        .collect();
    assert_eq!(column("compute_cap"), capability);
    assert!(gpus.devices.iter().all(|gpu| gpu.brand.is_some()), "{gpus:?}");
    assert!(gpus.cuda.is_some_and(|(major, _)| major >= 11), "{gpus:?}");
}

#[tokio::test]
#[ignore = "needs a GPU: make test-gpu"]
async fn the_checks_see_what_is_there() {
    let here = observed().devices.len();
    let mut sources = Sources::of(Arc::new(Root::open(Path::new("/")).unwrap()));
    // Where the driver's libraries lie in no usual place.
    sources.nvml_library = std::env::var_os("BEDPLATE_NVML").map(PathBuf::from);
    for (wanted, outcome) in [(here, Outcome::Pass), (here + 1, Outcome::Fail)] {
        let text = format!(
            "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\n\
             pin-packages = false\n[gpu]\nmodel = \"H100\"\ncount = {wanted}\n\
             [driver]\nflavor = \"open\"\nversion = \"550.163.01\"\n\
             [container]\nengine = \"docker\"\ngpu-access = \"cdi\"\n"
        );
        let profile = profile::parse("gpu.toml", &text).unwrap();
        let subject = Subject::new("host", &profile, None, Vec::new()).unwrap();
        let facts = gather(&subject.wanted, &sources).await;
        let report = judge(&[Layer::Doctor], &subject, &facts);
        let gpu = report.findings.iter().filter(|finding| finding.id.starts_with("gpu."));
        for finding in gpu.clone() {
            eprintln!("{}: {:?}: {}", finding.id, finding.outcome, finding.because);
        }
        eprintln!("{:#?} {:#?} {:#?} {:#?}", facts.pci, facts.module, facts.user_space, facts.nvml);
        let pci = gpu.clone().find(|finding| finding.id == "gpu.pci").unwrap();
        assert_eq!(pci.outcome, outcome, "{}", pci.because);
        for id in ["gpu.module", "gpu.version-match", "gpu.count"] {
            let finding = gpu.clone().find(|finding| finding.id == id).unwrap();
            let expected = if outcome == Outcome::Pass { Outcome::Pass } else { Outcome::Skipped };
            assert_eq!(finding.outcome, expected, "{id}: {}", finding.because);
        }
    }
}
