//! GRUB's menu of a host: read, and made anew by the host's own `update-grub`.

use std::time::Duration;

use super::layout::GRUB_MENU;
use crate::{
    error::{Error, Result},
    plan::{BootMenu, GRUB_DEFAULT},
    system::{files::Root, process::Command},
};

/// How long `update-grub` may take: it may look at every disk for other systems.
const LIMIT: Duration = Duration::from_mins(5);
/// Largest menu, in bytes.
const SIZE: u64 = 4 << 20;

/// What makes the menu on Debian and Ubuntu. Without it a menu is a left-over of another boot loader's time.
const MAKER: &str = "/usr/sbin/update-grub";

/// The menu; `None` where GRUB boots nothing here.
pub(super) fn read(root: &Root) -> Result<Option<BootMenu>> {
    if !root.exists(MAKER)? {
        return Ok(None);
    }
    // Titles may be in any encoding; ids are not.
    let bytes = root.read(GRUB_MENU, SIZE)?;
    Ok(bytes.map(|bytes| BootMenu::parse(&String::from_utf8_lossy(&bytes))))
}

/// Makes the menu anew, and looks whether it starts what it shall.
pub(super) async fn make(root: &Root, kernel: Option<&str>) -> Result<()> {
    Command::new("update-grub").timeout(LIMIT).package("grub2-common").check().await?;
    let Some(kernel) = kernel else { return Ok(()) };
    let menu = read(root)?.unwrap_or_else(|| BootMenu::parse(""));
    if menu.starts(kernel) {
        return Ok(());
    }
    let error = Error::failed(format!(
        "GRUB would start `{}`, and not the locked kernel {kernel}",
        menu.default.escape_debug()
    ));
    Err(if menu.has(kernel) {
        error.hint(format!("something has the last word over `{GRUB_DEFAULT}`: `ls /etc/default/grub.d`"))
    } else {
        error.hint(format!(
            "its menu has no entry for that kernel: `ls -l /boot/vmlinuz-{kernel}`, `update-grub`"
        ))
    })
}
