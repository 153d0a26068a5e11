//! The specification of a driver laid out as Debian does, read back as the checks read it.
#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeSet, os::unix::fs::symlink, path::Path, sync::Arc};

use serde_json::Value;

use super::*;
use crate::{
    gpu::{Health, Reading},
    host::facts::{Device, DeviceNodes, Gpus, Known, Node, Tree, VendorToolkit, specs},
};

const VERSION: &str = "550.163.01";
const CURRENT: &str = "usr/lib/x86_64-linux-gnu/nvidia/current";

fn put(root: &Path, path: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "x").unwrap();
}

fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// Debian's layout: the libraries in a directory of their own, reached through alternatives.
fn debian() -> (tempfile::TempDir, Arc<Root>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (stem, so) in
        [("libcuda", "1"), ("libnvidia-ml", "1"), ("libnvidia-nvvm", "4"), ("libGLX_nvidia", "0")]
    {
        put(root, &format!("{CURRENT}/{stem}.so.{VERSION}"));
        link(root, &format!("{CURRENT}/{stem}.so.{so}"), &format!("{stem}.so.{VERSION}"));
        let alternative = format!("glx--{stem}.so.{so}-x86_64-linux-gnu");
        link(root, &format!("etc/alternatives/{alternative}"), &format!("/{CURRENT}/{stem}.so.{so}"));
        link(
            root,
            &format!("usr/lib/x86_64-linux-gnu/{stem}.so.{so}"),
            &format!("/etc/alternatives/{alternative}"),
        );
    }
    // Of a driver before, and of something else.
    put(root, "usr/lib/x86_64-linux-gnu/libnvidia-ptxjitcompiler.so.535.261.03");
    put(root, "usr/lib/x86_64-linux-gnu/libcudart.so.12");
    put(root, "usr/lib/nvidia/current/nvidia-smi");
    link(root, "usr/bin/nvidia-smi", "/usr/lib/nvidia/current/nvidia-smi");
    put(root, &format!("usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"));
    for node in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"] {
        put(root, &format!("dev/{node}"));
    }
    let root = Arc::new(Root::open(root).unwrap());
    (dir, root)
}

/// Two GPUs, which the kernel numbers the other way round.
fn facts() -> Facts {
    let device = |index: u32| Device {
        index,
        name: Some("NVIDIA H100 80GB HBM3".to_owned()),
        uuid: Some(format!("GPU-0000000{index}")),
        memory: None,
        mig: Some(false),
        compute_capability: None,
        brand: None,
    };
    let node =
        |name: &str| (format!("/dev/{name}"), Node { mode: 0o666, ids: (0, 0), number: Some((195, 0)) });
    let health =
        |index: u32| (index, Known::Ok(Health { minor: Reading::Value(1 - index), ..Health::default() }));
    Facts {
        toolkit: Known::Ok(VendorToolkit { version: None, mode: None, broken: false }),
        nvml: Known::Ok(Nvml::Answers(Gpus {
            driver: VERSION.to_owned(),
            devices: vec![device(0), device(1)],
            ..Gpus::default()
        })),
        health: [health(0), health(1)].into(),
        nodes: Known::Ok(DeviceNodes {
            nodes: ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"].map(node).into(),
            ..DeviceNodes::default()
        }),
        ..Facts::default()
    }
}

fn written(root: &Root) -> Value {
    serde_json::from_slice(&root.read(PATH, 1 << 20).unwrap().unwrap()).unwrap()
}

#[test]
fn what_is_written_is_what_the_checks_want() {
    let (_dir, root) = debian();
    let facts = facts();
    assert_eq!(refresh(&root, &facts).unwrap(), Written::New(2, VERSION.to_owned()));
    assert_eq!(refresh(&root, &facts).unwrap(), Written::Unchanged);
    let read = specs(&Tree::new(Arc::clone(&root))).unwrap();
    let [spec] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((spec.path.as_str(), spec.kind.as_deref()), (PATH, Some("nvidia.com/gpu")));
    assert_eq!(spec.versions, BTreeSet::from([VERSION.to_owned()]));
    assert!(spec.missing.is_empty() && spec.broken.is_none(), "{spec:?}");
    let names = ["0", "1", "GPU-00000000", "GPU-00000001", "all"];
    assert_eq!(spec.devices, names.map(str::to_owned).into());

    let text = written(&root);
    let nodes = |name: &str| -> Vec<String> {
        let devices = text["devices"].as_array().unwrap();
        let device = devices.iter().find(|device| device["name"] == name).unwrap();
        let nodes = device["containerEdits"]["deviceNodes"].as_array().unwrap();
        nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect()
    };
    // By the kernel's number, not NVML's.
    assert_eq!(nodes("0"), ["/dev/nvidia1"]);
    assert_eq!(nodes("GPU-00000001"), ["/dev/nvidia0"]);
    assert_eq!(nodes("all"), ["/dev/nvidia1", "/dev/nvidia0"]);
    let inside: BTreeSet<&str> = text["containerEdits"]["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["containerPath"].as_str().unwrap())
        .collect();
    let lib = "/usr/lib/x86_64-linux-gnu";
    let wanted = [
        "/lib/firmware/nvidia/550.163.01/gsp_ga10x.bin".to_owned(),
        "/usr/bin/nvidia-smi".to_owned(),
        format!("{lib}/libcuda.so"),
        format!("{lib}/libcuda.so.1"),
        format!("{lib}/libcuda.so.{VERSION}"),
        format!("{lib}/libnvidia-ml.so.1"),
        format!("{lib}/libnvidia-ml.so.{VERSION}"),
        format!("{lib}/libnvidia-nvvm.so.4"),
        format!("{lib}/libnvidia-nvvm.so.{VERSION}"),
    ];
    assert_eq!(inside, wanted.iter().map(String::as_str).collect());
}

#[test]
fn what_cannot_be_described_is_refused_and_nothing_is_written() {
    let (dir, root) = debian();
    let change = |change: fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        refresh(&root, &facts)
    };
    let parted = change(|facts| {
        let Known::Ok(Nvml::Answers(gpus)) = &mut facts.nvml else { return };
        gpus.devices[1].mig = Some(true);
    });
    assert!(parted.unwrap_err().message().contains("GPU 1 is divided (MIG)"));
    let unnumbered = change(|facts| drop(facts.health.remove(&1)));
    assert!(unnumbered.unwrap_err().message().contains("which `/dev/nvidiaN` is GPU 1"));
    let vendors = change(|facts| {
        facts.toolkit =
            Known::Ok(VendorToolkit { version: Some("1.17.8-1".into()), mode: None, broken: false });
    });
    assert_eq!(vendors.unwrap(), Written::Vendors);
    let waits = |change_of: fn(&mut Facts), why: &str| match change(change_of).unwrap() {
        Written::Waits(said) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    };
    waits(|facts| facts.nvml = Known::Ok(Nvml::DriverNotLoaded), "the driver is not loaded");
    waits(|facts| facts.nvml = Known::Ok(Nvml::NoLibrary("no file".into())), "NVML: no file");
    waits(|facts| facts.toolkit = Known::default(), "toolkit is installed: nothing was looked at");
    std::fs::remove_file(dir.path().join(format!("{CURRENT}/libcuda.so.{VERSION}"))).unwrap();
    let gone = change(|_| {}).unwrap_err();
    assert!(gone.message().contains("`libcuda.so.1` of driver 550.163.01 is not on this host"), "{gone}");
    assert!(root.read(PATH, 1 << 20).unwrap().is_none());
}
