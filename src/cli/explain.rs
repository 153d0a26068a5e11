//! `explain`: what a check looks at, why it matters, how to mend it; what a symptom stands for.

use std::fmt::Write as _;

use super::{Context, args, report};
use crate::{
    check::{self, diagnosis},
    error::Result,
    ui::{Format, table::table},
};

/// Explains one check, or lists all.
pub fn run(context: &Context, args: &args::Explain) -> Result<()> {
    let Some(id) = &args.id else { return list(context) };
    if let Some(found) = check::named_xid(id) {
        let (code, meaning) = found?;
        return xid(context, code, meaning);
    }
    if let Some(found) = diagnosis::named(id) {
        return symptom(context, found?);
    }
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

/// Explains an error that the driver reports in the kernel's log.
fn xid(context: &Context, code: u32, meaning: &check::Meaning) -> Result<()> {
    let step = meaning.action.step();
    if context.ui.format == Format::Json {
        return context.ui.json(&serde_json::json!({
            "schema": 1, "id": format!("xid-{code}"), "class": meaning.class, "action": meaning.action,
            "means": meaning.means, "mend": step,
        }));
    }
    let from: Vec<&str> = meaning.class.iter().map(|class| class.word()).collect();
    context.ui.data(&format!(
        "xid-{code}\n\n  check   gpu.xid\n  from    {}\n\n  means   {}\n  mend    {step}\n",
        from.join(", or "),
        meaning.means,
    ))
}

/// Explains what a container's last lines stand for.
fn symptom(context: &Context, found: &diagnosis::Symptom) -> Result<()> {
    if context.ui.format == Format::Json {
        let causes: Vec<_> = found
            .causes
            .iter()
            .map(|cause| {
                serde_json::json!({
                    "id": cause.id, "means": cause.means, "layer": cause.layer, "repair": cause.repair,
                    "decides": cause.decides, "mend": cause.fix,
                })
            })
            .collect();
        return context.ui.json(&serde_json::json!({
            "schema": 1, "id": found.id, "looks": found.looks, "causes": causes,
        }));
    }
    let mut out = format!("{}\n\n  looks like  {}\n", found.id, found.looks);
    for cause in found.causes {
        let _ = write!(
            out,
            "\n  cause    {}\n  decides  {}\n  layer    {}\n  mend     {}\n",
            cause.means,
            cause.decides,
            report::command(cause.layer),
            cause.fix
        );
    }
    context.ui.data(&out)
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
    let symptoms = diagnosis::symptoms().map(|symptom| [symptom.id.to_owned(), symptom.looks.to_owned()]);
    context.ui.data(&format!(
        "{}\n{}",
        table(["CHECK", "LAYER", "LOOKS AT"], rows),
        table(["SYMPTOM", "LOOKS LIKE"], symptoms)
    ))
}
