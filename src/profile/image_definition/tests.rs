//! What a definition comes to, and how it is held against its profile. Its rules have samples: `tests/samples/image`.

use std::collections::BTreeSet;

use super::*;
use crate::profile;

/// An image definition of these lines below what is required.
fn image(formats: &str, rest: &str) -> ImageDefinition {
    let text = format!("schema = 1\nprofile = \"server\"\nformats = {formats}\n{rest}");
    parse("image", &text).unwrap()
}

#[test]
fn an_image_has_its_defaults() {
    let definition = image("[\"disk\"]", "[disk]\nsize-mib = 4096\n");
    assert_eq!(definition.profile, "../profiles/server.toml");
    assert!(Part::ALL.iter().all(|part| definition.include.contains(part) == (*part != Part::Images)));
    assert_eq!(definition.first_boot, BTreeSet::from([FirstBoot::MachineId, FirstBoot::SshHostKeys]));
    assert_eq!((&definition.hostname, definition.network), (&HostName::Dhcp, Network::Dhcp));
    let disk = definition.disk.unwrap();
    assert_eq!((disk.size_mib, disk.esp_mib, disk.root), (4096, 512, RootFileSystem::Ext4));
    assert!(disk.kernel_parameters.is_empty());
}

#[test]
fn the_words_of_an_image_are_read_back() {
    for format in Format::ALL {
        let disk = if format.is_disk() { "[disk]\nsize-mib = 4096\n" } else { "" };
        let definition = image(&format!("[{:?}]", format.name()), disk);
        assert_eq!(definition.formats, BTreeSet::from([format]));
        assert_eq!(definition.disk.is_some(), format.is_disk());
    }
    for part in Part::ALL {
        let all: BTreeSet<Part> = [Part::Packages, Part::Bedplate, Part::Profile, part].into();
        let words: Vec<&str> = all.iter().map(|part| part.name()).collect();
        let rest = format!("include = {words:?}\nfirst-boot = [\"machine-id\", \"provision\"]\n");
        assert_eq!(image("[\"tar\"]", &rest).include, all);
    }
    for step in FirstBoot::ALL {
        let all = BTreeSet::from([FirstBoot::MachineId, step]);
        let words: Vec<&str> = all.iter().map(|step| step.name()).collect();
        let rest = format!("first-boot = {words:?}\n[disk]\nsize-mib = 4096\n");
        assert_eq!(image("[\"disk\"]", &rest).first_boot, all);
    }
    // What cannot be written has none.
    let rest = "[disk]\nsize-mib = 4096\nroot = \"erofs\"\n";
    assert!(image("[\"disk\"]", rest).first_boot.is_empty());
    for (written, wanted) in [
        ("policy = \"dhcp\"", HostName::Dhcp),
        ("policy = \"machine-id\"", HostName::MachineId { prefix: "host".into() }),
        ("policy = \"machine-id\", prefix = \"gpu\"", HostName::MachineId { prefix: "gpu".into() }),
        ("policy = \"fixed\", name = \"n1\"", HostName::Fixed("n1".into())),
    ] {
        assert_eq!(image("[\"tar\"]", &format!("hostname = {{ {written} }}\n")).hostname, wanted);
    }
}

#[test]
fn an_image_reads_its_profile() {
    let text = include_str!("../../../tests/samples/image/valid/everything.toml");
    let definition = parse("everything.toml", text).unwrap();
    let paths: Vec<&str> = definition.input_paths().into_iter().collect();
    assert_eq!(paths, ["../profiles/h100-vllm.toml"]);
}

const PLAIN_PROFILE: &str = "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\n\
    [driver]\nflavor = \"none\"\n[container]\ngpu-access = \"none\"\n";

#[test]
fn an_image_is_held_against_its_profile() {
    let disk = image("[\"disk\"]", "[disk]\nsize-mib = 4096\n");
    let tar = image("[\"tar\"]", "");
    let kernel = "[kernel]\npackage = \"linux-image-amd64\"\n";
    let packages = "release = \"trixie\"\npackages = [\"linux-image-amd64\"]";
    let foreign = "release = \"trixie\"\npin-packages = false";
    let driver = PLAIN_PROFILE.replace("\"none\"\n[container]", "\"open\"\nversion = \"550\"\n[container]");
    for (definition, profile, wanted) in [
        (&tar, PLAIN_PROFILE.to_owned(), None),
        (&disk, PLAIN_PROFILE.to_owned(), Some("names no kernel")),
        (&disk, format!("{PLAIN_PROFILE}{kernel}"), None),
        (&disk, PLAIN_PROFILE.replace("release = \"trixie\"", packages), None),
        (&disk, driver, None),
        (&tar, PLAIN_PROFILE.replace("release = \"trixie\"", foreign), Some("someone else's")),
    ] {
        let parsed = profile::parse("profile", &profile).unwrap();
        let told = definition.check("images/x.toml", &parsed, "profiles/x.toml").err();
        match (told, wanted) {
            (None, None) => {}
            (Some(error), Some(wanted)) if error.message().contains(wanted) => {
                assert!(error.hints().iter().any(|hint| hint.contains("profiles/x.toml")));
            }
            (told, wanted) => panic!("{profile}\n{told:?}, wanted {wanted:?}"),
        }
    }
}

#[test]
fn an_image_adds_to_the_profiles_kernel_parameters() {
    let profile = format!("{PLAIN_PROFILE}[kernel]\nparameters = [\"iommu=pt\", \"quiet\"]\n");
    let profile = profile::parse("profile", &profile).unwrap();
    let rest = "[disk]\nsize-mib = 4096\nkernel-parameters = [\"quiet\", \"console=ttyS0\"]\n";
    let definition = image("[\"disk\"]", rest);
    assert_eq!(definition.kernel_parameters(&profile), ["iommu=pt", "quiet", "console=ttyS0"]);
}
