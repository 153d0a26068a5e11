//! `render`: the services a deployment stands for.

use super::{Context, args, inputs};
use crate::{error::Result, profile::services};

/// Prints the services of a deployment in Compose's form, secrets by name only.
pub fn run(context: &Context, args: &args::Render) -> Result<()> {
    let (_, deployment) = inputs::deployment(context, &args.file)?;
    context.ui.data(&services::render(&deployment))
}
