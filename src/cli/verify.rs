//! `verify`: this host, or a root tree, held against a lock.

use super::{Context, args, build, inputs::Sources, subject};
use crate::{
    build::verify::{self, Class, Finding, Outcome, Report},
    error::{Error, Result},
    lock::Lock,
    system::{
        clock,
        files::{self, Root},
    },
    ui::{Format, exit, text},
};

/// Runs `verify`.
pub fn run(context: &Context, args: &args::Verify) -> Result<u8> {
    let path = args.what.as_ref().map(|what| context.path(what));
    if let (Some(path), Some(what)) = (&path, &args.what) {
        let shown = what.display();
        if !files::exists(path) {
            return Err(
                Error::usage(format!("`{shown}` is not there")).hint("name the directory of a root tree")
            );
        }
        if !files::is_dir(path) || files::exists(&path.join("oci-layout")) {
            return Err(Error::usage(format!(
                "not in this version yet: `bedplate verify` of an image as a file, such as `{shown}`"
            ))
            .hint(
                "verify the booted host with `bedplate verify`, or the unpacked root tree by its directory",
            ));
        }
    }
    let root = match &path {
        Some(path) => Root::open(path)?,
        None => Root::open(std::path::Path::new("/"))?,
    };
    let lock = lock(context, args, &root)?;
    let begun = clock::now();
    let report = verify::verify(&root, &lock, build::threads())?;
    tracing::debug!("verified in {}", clock::now().duration_since(begun));
    print(context, &report)?;
    Ok(match report.outcome {
        Outcome::Same => exit::DONE,
        Outcome::Differs => exit::STALE,
        Outcome::Unverifiable => exit::CHECK,
    })
}

/// The lock that is asked for, else the one the root's current generation was made from.
fn lock(context: &Context, args: &args::Verify, root: &Root) -> Result<Lock> {
    if let Some(named) = &args.profile {
        return Ok(Sources::read(context, Some(named))?.pinned(context)?.1.lock);
    }
    let Some((_, pinned)) = subject::current(root)? else {
        return Err(Error::usage(format!(
            "`{}` says of no lock that it was made from it, or not to this user",
            root.path().display()
        ))
        .hint(
            "name the profile: `bedplate verify --profile PROFILE`; on a provisioned host, run it as root",
        ));
    };
    Ok(pinned.lock)
}

fn print(context: &Context, report: &Report) -> Result<()> {
    if context.ui.format == Format::Json {
        return context.ui.json(report);
    }
    for (class, heading) in [
        (Class::Difference, "differs"),
        (Class::Unverifiable, "cannot be verified"),
        (Class::Administrator, "configuration of the administrator's own"),
    ] {
        let found: Vec<&Finding> = report.findings.iter().filter(|finding| finding.class == class).collect();
        if !found.is_empty() {
            context.ui.data(&format!("{heading}:\n"))?;
        }
        for finding in found {
            context.ui.data(&format!("  {}\n", line(finding)))?;
        }
    }
    let counts = &report.counts;
    context.ui.data(&format!(
        "{} locked, {} installed, {} compared: {}\n",
        text::count(counts.locked, "package"),
        counts.installed,
        text::count(counts.files, "file"),
        match report.outcome {
            Outcome::Same => "no difference".to_owned(),
            Outcome::Differs => text::count(counts.differences, "difference"),
            Outcome::Unverifiable => format!("{} cannot be verified", counts.unverifiable),
        }
    ))?;
    context.ui.say(&format!("not looked at: {}", report.unseen.join("; ")));
    Ok(())
}

fn line(finding: &Finding) -> String {
    let mut line =
        finding.path.as_ref().map_or_else(String::new, |path| format!("`{}` ", path.escape_debug()));
    if let Some(package) = &finding.package {
        line.push_str(&if finding.path.is_some() { format!("of {package} ") } else { format!("{package} ") });
    }
    line.push_str(finding.what.words());
    if let Some(expected) = &finding.expected {
        line.push_str(&format!(": {expected} expected"));
        if let Some(found) = &finding.found {
            line.push_str(&format!(", {found} found"));
        }
    } else if let Some(found) = &finding.found {
        line.push_str(&format!(": {found}"));
    }
    line
}
