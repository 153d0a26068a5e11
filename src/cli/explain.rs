//! `explain`: what a check looks at, why it matters, how to mend it.

use super::{Context, args, report};
use crate::{
    check,
    error::Result,
    ui::{Format, table::table},
};

/// Explains one check, or lists all.
pub fn run(context: &Context, args: &args::Explain) -> Result<()> {
    let Some(id) = &args.id else { return list(context) };
    let found = check::explain(id)?;
    if context.ui.format == Format::Json {
        return context.ui.json(&serde_json::json!({
            "schema": 1, "id": found.id, "layer": found.layer, "weight": found.weight,
            "what": found.what, "why": found.why, "mend": found.mend,
        }));
    }
    let weight = match found.weight {
        check::report::Weight::Required => {
            "required: a failure, or not being able to look, keeps `up` from starting"
        }
        check::report::Weight::Advisory => "advisory: at most a warning",
    };
    context.ui.data(&format!(
        "{}\n\n  layer   {}\n  weight  {weight}\n\n  looks at  {}\n  matters   {}\n  mend      {}\n",
        found.id,
        report::command(found.layer),
        found.what,
        found.why,
        found.mend
    ))
}

fn list(context: &Context) -> Result<()> {
    if context.ui.format == Format::Json {
        let all: Vec<_> = check::registry()
            .iter()
            .map(|check| serde_json::json!({ "id": check.id, "layer": check.layer, "weight": check.weight, "what": check.what }))
            .collect();
        return context.ui.json(&all);
    }
    let rows = check::registry()
        .iter()
        .map(|check| [check.id.to_owned(), report::command(check.layer).to_owned(), check.what.to_owned()]);
    context.ui.data(&table(["CHECK", "LAYER", "LOOKS AT"], rows))
}
