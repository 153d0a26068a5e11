//! What an image definition asks for besides the profile: files of a tree, as data.

use crate::profile::image_definition::{FirstBoot, HostName, ImageDefinition, Network, Part};

/// Where the profile lies in a tree that has no generation of it.
pub const BUNDLE: &str = "/var/lib/bedplate/profile.bundle";

/// Whether the tree is brought to its profile as a host is, so that it has a generation: where all the profile says of it
/// is in it, and bedplate, to go on from there.
pub fn has_generation(definition: &ImageDefinition) -> bool {
    [Part::Files, Part::Users, Part::Bedplate, Part::Profile]
        .iter()
        .all(|part| definition.include.contains(part))
}

/// A file or link of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path, relative to the top.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of root's, 0644.
    Text(String),
    /// A symbolic link.
    Link(String),
    /// Nothing: what a package or script has put there is removed.
    Nothing,
}

/// Programs that the settings of a definition start, with the package that has each. They have to be in the tree.
pub fn needs(definition: &ImageDefinition) -> Vec<(&'static str, &'static str)> {
    let mut needs = Vec::new();
    if definition.network == Network::Dhcp {
        needs.push(("usr/lib/systemd/systemd-networkd", "systemd"));
    }
    for step in &definition.first_boot {
        match step {
            FirstBoot::GrowRoot => needs.push(("usr/bin/systemd-repart", "systemd-repart")),
            FirstBoot::SshHostKeys => needs.push(("usr/bin/ssh-keygen", "openssh-client")),
            FirstBoot::MachineId | FirstBoot::Provision => {}
        }
    }
    if matches!(definition.hostname, HostName::MachineId { .. }) {
        needs.push(("usr/bin/systemd-id128", "systemd"));
    }
    needs
}

/// The settings of a definition, in order. `root`: the UUID of the root partition, where there is a disk.
pub fn settings(definition: &ImageDefinition, root: Option<&str>) -> Vec<Setting> {
    let mut all = vec![match &definition.hostname {
        HostName::Fixed(name) => text("etc/hostname", format!("{name}\n")),
        HostName::Dhcp | HostName::MachineId { .. } => {
            Setting { path: "etc/hostname".to_owned(), content: Content::Nothing }
        }
    }];
    all.push(text("etc/hosts", hosts(&definition.hostname)));
    if definition.network == Network::Dhcp {
        all.push(text(
            "etc/systemd/network/80-bedplate-dhcp.network",
            "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n".to_owned(),
        ));
        // What `systemctl enable systemd-networkd` makes (its unit, "[Install]").
        for (place, unit) in [
            ("dbus-org.freedesktop.network1.service", "systemd-networkd.service"),
            ("multi-user.target.wants/systemd-networkd.service", "systemd-networkd.service"),
            ("sockets.target.wants/systemd-networkd.socket", "systemd-networkd.socket"),
        ] {
            all.push(link(
                &format!("etc/systemd/system/{place}"),
                &format!("/usr/lib/systemd/system/{unit}"),
            ));
        }
    }
    let grows = definition.first_boot.contains(&FirstBoot::GrowRoot);
    if let Some(partition) = root {
        let grow = if grows { ",x-systemd.growfs" } else { "" };
        all.push(text("etc/fstab", format!("PARTUUID={partition} / auto defaults{grow} 0 1\n")));
    }
    for step in &definition.first_boot {
        match step {
            // repart.d(5): a partition of this type that is there is grown to all the room there is.
            FirstBoot::GrowRoot => {
                all.push(text("etc/repart.d/50-root.conf", "[Partition]\nType=root\n".to_owned()));
            }
            // machine-id(5): the empty file is the request.
            FirstBoot::MachineId => {}
            FirstBoot::SshHostKeys => all.extend(unit("bedplate-ssh-host-keys", SSH_HOST_KEYS)),
            FirstBoot::Provision => {
                // Without a generation in the tree, its profile lies there as a bundle.
                let given = if has_generation(definition) { String::new() } else { format!(" {BUNDLE}") };
                all.extend(unit("bedplate-first-boot", &FIRST_BOOT.replace(" GIVEN", &given)));
            }
        }
    }
    if let HostName::MachineId { prefix } = &definition.hostname {
        all.extend(unit("bedplate-hostname", &HOST_NAME.replace("PREFIX", prefix)));
    }
    all
}

fn hosts(name: &HostName) -> String {
    let own = match name {
        HostName::Fixed(name) => format!("127.0.1.1 {name}\n"),
        HostName::Dhcp | HostName::MachineId { .. } => String::new(),
    };
    format!("127.0.0.1 localhost\n{own}::1 localhost ip6-localhost ip6-loopback\n")
}

const SSH_HOST_KEYS: &str = "\
[Unit]
Description=OpenSSH host keys of this host's own
Before=ssh.service ssh.socket sshd.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
";

const FIRST_BOOT: &str = "\
[Unit]
Description=What an image cannot hold: images, secrets, checks
Wants=network-online.target
After=network-online.target docker.service
Before=bedplate-boot.service
ConditionPathExists=!/var/lib/bedplate/first-boot-done

[Service]
Type=oneshot
ExecStart=/usr/local/bin/bedplate provision GIVEN
SuccessExitStatus=3 10
ExecStartPost=/usr/bin/touch /var/lib/bedplate/first-boot-done

[Install]
WantedBy=multi-user.target
";

const HOST_NAME: &str = "\
[Unit]
Description=A host name made from the machine id
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target systemd-networkd.service
ConditionPathExists=!/etc/hostname

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'id=$$(systemd-id128 machine-id --app-specific=7d1b3bb2f4e94d4aa3f0a2c1f4c7f2b6) && \
printf \"PREFIX-%%.8s\\\\n\" \"$$id\" >/etc/hostname && hostname -F /etc/hostname'

[Install]
WantedBy=sysinit.target
";

fn text(path: &str, content: String) -> Setting {
    Setting { path: path.to_owned(), content: Content::Text(content) }
}

fn link(path: &str, target: &str) -> Setting {
    Setting { path: path.to_owned(), content: Content::Link(target.to_owned()) }
}

/// A unit, enabled as its `WantedBy` says.
fn unit(name: &str, content: &str) -> [Setting; 2] {
    let wanted =
        content.lines().find_map(|line| line.strip_prefix("WantedBy=")).unwrap_or("multi-user.target");
    let file = format!("/etc/systemd/system/{name}.service");
    [
        text(file.trim_start_matches('/'), content.to_owned()),
        link(&format!("etc/systemd/system/{wanted}.wants/{name}.service"), &file),
    ]
}
