//! `verify`: this host or a root tree, held against a lock; an image, held against its record.

use std::collections::{BTreeMap, BTreeSet};

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
        for line in lines(&found, context.ui.verbose > 0) {
            context.ui.data(&format!("  {line}\n"))?;
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

/// More documents than these that are gone from one directory are one line.
const FEW: usize = 10;
/// Where documents and translations are, for which dpkg may be told to leave them out (`path-exclude`, dpkg(1)).
const DOCUMENTS: [&str; 5] =
    ["/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/"];

/// A line for each finding. Where dpkg leaves documents out, thousands are gone: those of one directory are one line, unless
/// `each` is asked for.
fn lines(found: &[&Finding], each: bool) -> Vec<String> {
    let directory = |finding: &Finding| {
        let path =
            finding.path.as_deref().filter(|_| finding.what == What::Missing && finding.part.is_none())?;
        DOCUMENTS.into_iter().find(|directory| !each && path.starts_with(directory))
    };
    let mut gone: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for finding in found {
        if let Some(directory) = directory(finding) {
            let (files, packages) = gone.entry(directory).or_default();
            *files += 1;
            packages.extend(finding.package.as_deref());
        }
    }
    gone.retain(|_, (files, _)| *files > FEW);
    let mut lines = Vec::new();
    for finding in found {
        match directory(finding).and_then(|directory| Some((directory, gone.get_mut(directory)?))) {
            None => lines.push(line(finding)),
            Some((directory, of)) => {
                // Said where the first one is.
                let (files, packages) = std::mem::take(of);
                if files > 0 {
                    let packages = text::count(packages.len(), "package");
                    lines.push(format!(
                        "`{directory}`: {files} files of {packages} are not there; `--verbose` names each"
                    ));
                }
            }
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(path: String, package: &str) -> Finding {
        Finding {
            class: Class::Difference,
            what: What::Missing,
            part: None,
            path: Some(path),
            package: Some(package.to_owned()),
            expected: None,
            found: None,
        }
    }

    #[test]
    fn what_is_gone_from_one_directory_by_the_hundred_is_one_line() {
        let mut found: Vec<Finding> =
            (0..99).map(|n| gone(format!("/usr/share/doc/p{n}/copyright"), &format!("p{}", n % 9))).collect();
        found.insert(50, gone("/usr/bin/p".to_owned(), "p1"));
        found.push(gone("/usr/share/man/man1/p.1.gz".to_owned(), "p1"));
        // A library is named, however many are gone.
        found.extend((0..20).map(|n| gone(format!("/usr/lib/x/libp{n}.so"), "p1")));
        let found: Vec<&Finding> = found.iter().collect();
        let short = lines(&found, false);
        assert_eq!(short.len(), 23, "{short:?}");
        assert_eq!(
            short[0],
            "`/usr/share/doc/`: 99 files of 9 packages are not there; `--verbose` names each"
        );
        assert!(short[1].starts_with("`/usr/bin/p` of p1") && short[2].contains("man1"), "{short:?}");
        assert_eq!(lines(&found, true).len(), found.len());
    }
}
