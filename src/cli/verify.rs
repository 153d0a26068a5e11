//! `verify`: this host or a root tree, held against a lock; an image, held against its record.

use super::{Context, args, build, inputs::Sources, subject};
use crate::{
    build::verify::{self, Class, Finding, Outcome, Report, What, image},
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
    let begun = clock::now();
    let report = match (&path, &args.what) {
        (Some(path), Some(what)) if !files::exists(path) => {
            return Err(Error::usage(format!("`{}` is not there", what.display()))
                .hint("name an image that `bedplate build` wrote, or the directory of a root tree"));
        }
        (Some(path), Some(_)) if !files::is_dir(path) || files::exists(&path.join("oci-layout")) => {
            let named = args.profile.as_ref().map(|named| named_lock(context, named)).transpose()?;
            let find = |root: &Root| Ok(subject::current(root)?.map(|(_, pinned)| pinned.lock));
            image::verify(path, named.as_ref(), &find, build::threads())?
        }
        _ => {
            let root = Root::open(path.as_deref().unwrap_or(std::path::Path::new("/")))?;
            let lock = lock(context, args, &root)?;
            verify::verify(&root, &lock, build::threads())?
        }
    };
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
        return named_lock(context, named);
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

/// The lock of the profile that is named.
fn named_lock(context: &Context, named: &str) -> Result<Lock> {
    Ok(Sources::read(context, Some(named))?.pinned(context)?.1.lock)
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
    let mut compared = Vec::new();
    if report.image.is_some() {
        compared.push(format!("{} of the image", text::count(counts.parts, "part")));
    }
    // An image whose every byte is as recorded need not be looked into.
    if report.image.is_none() || counts.installed > 0 {
        let (locked, files) = (text::count(counts.locked, "package"), text::count(counts.files, "file"));
        compared.push(format!("{locked} locked, {} installed, {files}", counts.installed));
    }
    context.ui.data(&format!(
        "{} compared: {}\n",
        compared.join(", "),
        match report.outcome {
            Outcome::Same => "no difference".to_owned(),
            Outcome::Differs => text::count(counts.differences, "difference"),
            Outcome::Unverifiable => format!("{} cannot be verified", counts.unverifiable),
        }
    ))?;
    if report.findings.iter().any(|finding| finding.what == What::Part)
        && report.findings.iter().all(|finding| finding.path.is_none() && finding.what != What::Damaged)
    {
        context.ui.say("what differs is in no file that dpkg has a digest of: no path can be named");
    }
    context.ui.say(&format!("not looked at: {}", report.unseen.join("; ")));
    Ok(())
}

fn line(finding: &Finding) -> String {
    let mut line = String::new();
    if let Some(part) = &finding.part {
        line.push_str(&format!("{}: ", part.escape_debug()));
    }
    if let Some(path) = &finding.path {
        line.push_str(&format!("`{}` ", path.escape_debug()));
    }
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
