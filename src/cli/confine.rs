//! `confine`: the inside of a build's room. Hidden; bedplate starts it.

use super::Context;
use crate::{error::Result, system::confine, ui::exit};

/// Takes orders on standard input, carries them out.
pub fn run(_: &Context) -> Result<u8> {
    let all = confine::inside(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
    Ok(if all { exit::DONE } else { exit::FAILED })
}
