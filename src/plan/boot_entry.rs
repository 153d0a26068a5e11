//! The kernel that GRUB starts: the locked one, also where a newer one stands beside it.
//!
//! GRUB's menu is made by `grub-mkconfig`, which reads `/etc/default/grub` and then `/etc/default/grub.d/*.cfg` as shell
//! (Debian's grub-mkconfig(8)). An entry is named by its id, which `/etc/grub.d/10_linux` makes from the kernel's release
//! and the root file system's: titles are translated, and numbers move with every kernel.

use super::{
    Deferred, Inputs, Plan, packages,
    record::Due,
    state::{HostState, Target},
    step::Step,
};
use crate::error::{Error, Result};

/// What says which entry GRUB starts. The last of its directory, so that nothing else has the last word.
pub const GRUB_DEFAULT: &str = "/etc/default/grub.d/zz-bedplate.cfg";

/// The default entry of a host's GRUB menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootMenu {
    /// As `set default=` has it: `ID`, or `SUBMENU>ID`; empty where the menu says nothing.
    pub default: String,
    /// Ids of the menu's entries.
    pub entries: Vec<String>,
}

impl BootMenu {
    /// Reads a `grub.cfg` that `grub-mkconfig` made.
    pub fn parse(text: &str) -> Self {
        let quoted = |rest: &str, mark: char| rest.split(mark).next().unwrap_or_default().to_owned();
        let lines = || text.lines().map(str::trim_start);
        // The first is for one start alone (`grub-reboot`): `set default="${next_entry}"`.
        let default = lines()
            .filter_map(|line| line.strip_prefix("set default=\""))
            // GRUB runs the menu from its top to its end: the last word holds.
            .rfind(|rest| !rest.starts_with("${next_entry}"))
            .map(|rest| quoted(rest, '"'));
        let entries = lines()
            .filter(|line| line.starts_with("menuentry "))
            .filter_map(|line| line.split_once("$menuentry_id_option '"))
            .map(|(_, rest)| quoted(rest, '\''));
        Self { default: default.unwrap_or_default(), entries: entries.collect() }
    }

    /// Whether it starts this kernel by name.
    pub fn starts(&self, kernel: &str) -> bool {
        let entry = self.default.rsplit('>').next().unwrap_or_default();
        entry.starts_with(&prefix(kernel)) && self.entries.iter().any(|known| known == entry)
    }

    /// Whether it has an entry for this kernel.
    pub fn has(&self, kernel: &str) -> bool {
        self.entries.iter().any(|entry| entry.starts_with(&prefix(kernel)))
    }
}

fn prefix(kernel: &str) -> String {
    format!("gnulinux-{kernel}-advanced-")
}

/// The kernel that shall start: that of the locked set.
///
/// # Errors
/// The lock names one that is no kernel release: it would be read as shell.
pub(super) fn kernel<'a>(inputs: &Inputs<'a>) -> Result<Option<&'a str>> {
    if !packages::pinned(inputs) {
        return Ok(None);
    }
    let Some(kernel) = inputs.lock.set.as_ref().and_then(|set| set.kernel.as_deref()) else {
        return Ok(None);
    };
    if !kernel.is_empty() && kernel.chars().all(|c| c.is_ascii_alphanumeric() || "+-._~".contains(c)) {
        return Ok(Some(kernel));
    }
    Err(Error::failed(format!("the lock's set has a kernel of no valid name: `{}`", kernel.escape_debug()))
        .hint("make the lock anew: `bedplate lock --update-all`"))
}

/// What [`GRUB_DEFAULT`] says.
pub(super) fn text(kernel: &str) -> String {
    format!(
        "# Written by bedplate; a change made here is overwritten by the next `bedplate provision`.\n\
         # The locked kernel is the one that starts. Another one, once: `grub-reboot`.\n\
         bedplate_root=$GRUB_DEVICE_UUID\n\
         if [ -z \"$bedplate_root\" ] || [ \"$GRUB_DISABLE_UUID\" = true ]; then\n  \
           bedplate_root=$(printf '%s' \"$GRUB_DEVICE\" | tr ' ' _)\n\
         fi\n\
         GRUB_DEFAULT=\"{}$bedplate_root\"\n\
         case $GRUB_DISABLE_SUBMENU in\n\
         true | yes | y) ;;\n\
         *) GRUB_DEFAULT=\"gnulinux-advanced-$bedplate_root>$GRUB_DEFAULT\" ;;\n\
         esac\n",
        prefix(kernel)
    )
}

/// Has the menu made anew where it does not start the locked kernel, or what it is made from changes.
pub(super) fn follow_up(inputs: &Inputs, state: &HostState, plan: &mut Plan) -> Result<()> {
    let kernel = kernel(inputs)?;
    let Some(menu) = &state.boot_menu else {
        plan.record.due.remove(&Due::MakeBootMenu);
        return Ok(());
    };
    let touched = plan.steps.iter().any(|step| step.path() == Some(GRUB_DEFAULT));
    if touched || kernel.is_some_and(|kernel| !menu.starts(kernel)) {
        plan.record.due.insert(Due::MakeBootMenu);
    }
    if !plan.record.due.contains(&Due::MakeBootMenu) {
        return Ok(());
    }
    if state.target == Target::Tree {
        plan.deferred.push(Deferred {
            what: "GRUB's menu".to_owned(),
            why: "it is made on the booted host, which knows its disks".to_owned(),
        });
    } else {
        plan.steps.push(Step::MakeBootMenu { kernel: kernel.map(str::to_owned) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Change,
            packages_tests::{host, lock},
            tests::profile,
        },
        *,
    };
    use crate::lock::{Lock, PackageSet};

    const MENU: &str = "\
if [ \"${next_entry}\" ] ; then\n   set default=\"${next_entry}\"\n   set next_entry=\n   set boot_once=true\n\
else\n   set default=\"gnulinux-advanced-7c5e>gnulinux-6.12.41+deb13-amd64-advanced-7c5e\"\nfi\n\
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-7c5e' {\n}\n\
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-7c5e' {\n\
\tmenuentry 'Debian GNU/Linux, with Linux 6.12.48+deb13-amd64' --class gnu $menuentry_id_option \
'gnulinux-6.12.48+deb13-amd64-advanced-7c5e' {\n\t}\n\
\tmenuentry 'Debian GNU/Linux, with Linux 6.12.48+deb13-amd64 (recovery mode)' $menuentry_id_option \
'gnulinux-6.12.48+deb13-amd64-recovery-7c5e' {\n\t}\n\
\tmenuentry 'Debian GNU/Linux, with Linux 6.12.41+deb13-amd64' --class gnu $menuentry_id_option \
'gnulinux-6.12.41+deb13-amd64-advanced-7c5e' {\n\t}\n}\n";

    fn with_kernel(kernel: &str) -> Lock {
        let mut lock = lock(&[(&format!("linux-image-{kernel}"), "1")]);
        lock.set = Some(PackageSet { kernel: Some(kernel.to_owned()), ..PackageSet::default() });
        lock
    }

    fn makes(plan: &Plan) -> Vec<Option<String>> {
        let made = plan.steps.iter().filter_map(|step| match step {
            Step::MakeBootMenu { kernel } => Some(kernel.clone()),
            _ => None,
        });
        made.collect()
    }

    #[test]
    fn a_menu_says_which_kernel_it_starts() {
        let menu = BootMenu::parse(MENU);
        assert!(menu.starts("6.12.41+deb13-amd64"), "{menu:?}");
        assert!(!menu.starts("6.12.48+deb13-amd64") && menu.has("6.12.48+deb13-amd64"));
        assert!(!menu.starts("6.12.4") && !menu.has("6.12.4"));
        assert!(
            !BootMenu::parse(&MENU.replace("advanced-7c5e>gnulinux", "advanced-7c5e>gone"))
                .starts("6.12.41+deb13-amd64")
        );
        let overruled = BootMenu::parse(&format!("{MENU}set default=\"0\"\n"));
        assert!(!overruled.starts("6.12.41+deb13-amd64") && overruled.has("6.12.41+deb13-amd64"));
        for other in ["", "set default=\"0\"\n", "set default=\"${saved_entry}\"\n", "set default=\""] {
            let menu = BootMenu::parse(other);
            assert!(!menu.starts("") && !menu.has("6.12.41+deb13-amd64"), "{other}");
        }
    }

    #[test]
    fn the_menu_follows_the_locked_kernel_and_is_let_alone_once_it_does() {
        let mut model = host([]);
        let (older, newer) = (with_kernel("6.12.41+deb13-amd64"), with_kernel("6.12.48+deb13-amd64"));
        // A host that GRUB does not boot has the file, which nothing reads.
        let plan = model.run(&profile(""), &older, None).unwrap();
        assert!(makes(&plan).is_empty());
        assert!(model.state.paths.contains_key(GRUB_DEFAULT));

        model.state.boot_menu = Some(BootMenu::parse(&MENU.replace("6.12.41", "6.12.48")));
        let plan = model.run(&profile(""), &older, None).unwrap();
        assert_eq!(
            (makes(&plan), plan.change),
            (vec![Some("6.12.41+deb13-amd64".to_owned())], Change::Repair)
        );
        model.state.boot_menu = Some(BootMenu::parse(MENU));
        assert!(model.plan(&profile(""), &older).unwrap().is_empty());

        assert_eq!(
            makes(&model.plan(&profile(""), &newer).unwrap()),
            [Some("6.12.48+deb13-amd64".to_owned())]
        );
        // A run that was killed before the menu was made is gone on with, also where nothing names a kernel any more.
        let plain = lock(&[("linux-image-6.12.41+deb13-amd64", "1")]);
        let steps = model.plan(&profile(""), &plain).unwrap().steps.len();
        model.run(&profile(""), &plain, Some(steps - 1)).unwrap();
        assert!(!model.state.paths.contains_key(GRUB_DEFAULT));
        assert_eq!(makes(&model.run(&profile(""), &plain, None).unwrap()), [None]);
        assert!(makes(&model.plan(&profile(""), &plain).unwrap()).is_empty());
    }

    #[test]
    fn a_tree_waits_for_its_host() {
        let mut model = host([]);
        model.state.target = Target::Tree;
        model.state.boot_menu = Some(BootMenu::parse(""));
        let plan = model.plan(&profile(""), &with_kernel("6.1-amd64")).unwrap();
        assert!(makes(&plan).is_empty());
        assert!(plan.deferred.iter().any(|deferred| deferred.what == "GRUB's menu"), "{:?}", plan.deferred);
    }

    #[test]
    fn nothing_but_a_release_reaches_the_shell() {
        let model = host([]);
        for name in ["6.1\"; reboot; \"", "$(reboot)", "", "6.1 a", "6.1\n"] {
            let error = model.plan(&profile(""), &with_kernel(name)).unwrap_err();
            assert!(error.message().contains("kernel of no valid name"), "{error:?}");
        }
    }
}
