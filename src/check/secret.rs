//! Layer 1: modes of what must be shut, and whether every secret is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    subject::Subject,
    verdict::{Tally, Verdict},
};
use crate::host::facts::{Facts, Known, PathState, SecretState, above, looked_up};

/// A secret's file, and Docker's client configuration: its owner may read and write, nobody else anything.
const SECRET_FILE: u32 = 0o600;
/// The directory of secrets.
const SECRET_DIR: u32 = 0o700;

/// Whoever is neither owner nor root may write.
const OTHERS_WRITE: u32 = 0o022;

/// What a path's mode may be at most, and whose it must be.
struct Rule<'a> {
    mode: u32,
    owner: &'a str,
    /// Whether it must be there.
    required: bool,
    /// What makes it right.
    mend: String,
}

pub(super) fn modes(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    let mut ruled = BTreeSet::new();
    for mount in &subject.profile.mounts {
        let rule = Rule {
            mode: mount.mode,
            owner: &mount.owner,
            required: true,
            mend: "run `bedplate provision`".to_owned(),
        };
        one(&mut tally, facts, &mount.path, &rule);
        ruled.insert(mount.path.clone());
        for (file, mode) in &mount.files {
            let path = format!("{}/{file}", mount.path);
            let mend = format!("run `bedplate provision`, or `chmod {mode:04o} {path}`");
            one(&mut tally, facts, &path, &Rule { mode: *mode, owner: &mount.owner, required: false, mend });
            ruled.insert(path);
        }
    }
    parents(&mut tally, subject, facts, &ruled);
    // What is left in the facts is secrets: their directory, their files.
    for (path, state) in facts.paths.iter().filter(|(path, _)| !ruled.contains(*path)) {
        let directory = matches!(state.ok(), Some(PathState::Present { directory: true, .. }));
        let mode = if directory { SECRET_DIR } else { SECRET_FILE };
        let mend = format!("`chown root:root {path} && chmod {mode:04o} {path}`");
        one(&mut tally, facts, path, &Rule { mode, owner: "root:root", required: false, mend });
    }
    match facts.docker_config.as_result() {
        Ok(None) => {}
        Ok(Some(config)) => {
            let path = &config.path;
            let mend = format!("`chmod 0600 {path}`");
            // Whoever logs in to registries owns it; its group is given nothing.
            let own = config.user.to_string();
            let owner = match &config.state {
                PathState::Present { owner, ids, .. } if same_owner(owner, *ids, "root") => "root",
                _ => own.as_str(),
            };
            let rule = Rule { mode: SECRET_FILE, owner, required: false, mend };
            state(&mut tally, path, &config.state, &rule);
            if !config.plain.is_empty() {
                let registries: Vec<&str> = config.plain.iter().map(String::as_str).collect();
                tally.weak(
                    format!("`{path}` holds the password of {} in clear", registries.join(", ")),
                    "use a credential helper (`credHelpers` in Docker's configuration), or a token that can only pull",
                );
            }
        }
        Err(why) => tally.unknown(format!("Docker's client configuration: {why}")),
    }
    tally.verdict("all that was looked at is shut", "there is no mount, private file or secret on this host")
}

/// Directories above what is private: whoever may write into one of them may put something else in its place. The rule is
/// OpenSSH's (`safe_path`, sshd_config(5), `StrictModes`): of root or of the file's owner, and written by nobody else.
fn parents(tally: &mut Tally, subject: &Subject<'_>, facts: &Facts, ruled: &BTreeSet<String>) {
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, state) in &facts.paths {
        // What is not there yet is made with its directories.
        if !matches!(state, Known::Ok(PathState::Present { .. })) {
            continue;
        }
        let mount = subject.profile.mounts.iter().find(|mount| {
            path.strip_prefix(&mount.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        for directory in above(path) {
            owners
                .entry(directory)
                .or_default()
                .insert(mount.map_or("root:root", |mount| mount.owner.as_str()));
        }
    }
    for (path, owners) in owners {
        // Their own rule says what they may be.
        if ruled.contains(path) || facts.paths.contains_key(path) {
            continue;
        }
        match looked_up(&facts.parents, path) {
            Ok(PathState::Present { mode, .. }) if mode & OTHERS_WRITE != 0 => tally.bad(
                format!("`{path}`, above what is private, has mode {mode:04o}: others may put something in its place"),
                format!("`chmod go-w {path}`, or keep it elsewhere"),
            ),
            Ok(PathState::Present { owner, ids, .. })
                if ids.0 != 0
                    && !owners.iter().all(|wanted| {
                        same_owner(owner, *ids, wanted.split(':').next().unwrap_or(wanted))
                    }) =>
            {
                tally.bad(
                    format!("`{path}`, above what is private, belongs to {owner}, who may put something in its place"),
                    format!("`chown root:root {path}`, or keep it elsewhere"),
                );
            }
            Ok(PathState::Present { mode, owner, .. }) => tally.good(format!("`{path}`: {mode:04o} {owner}")),
            // That what is below is reached through a link is said there.
            Ok(PathState::Link(_)) => {}
            Ok(PathState::Absent) => tally.unknown(format!("`{path}`: gone while it was looked at")),
            Err(why) => tally.unknown_until(format!("`{path}`: {why}"), "run it as root: `sudo bedplate doctor`"),
        }
    }
}

fn one(tally: &mut Tally, facts: &Facts, path: &str, rule: &Rule<'_>) {
    match looked_up(&facts.paths, path) {
        Ok(found) => state(tally, path, found, rule),
        Err(why) => tally.unknown_until(format!("`{path}`: {why}"), "run it as root: `sudo bedplate doctor`"),
    }
}

fn state(tally: &mut Tally, path: &str, found: &PathState, rule: &Rule<'_>) {
    let Rule { mode: wanted, owner: wanted_owner, required, mend } = rule;
    match found {
        PathState::Absent if *required => tally.bad(format!("`{path}` is not there"), mend.clone()),
        PathState::Absent => tally.note(format!("`{path}`: not there yet")),
        PathState::Link(link) if link == path => tally.bad(
            format!("`{path}` is a link, and must be there itself"),
            format!("put what it points to in its place: `mv -T \"$(readlink -f {path})\" {path}`; `rm` alone would lose it"),
        ),
        PathState::Link(link) => tally.bad(
            format!("`{path}` is reached through the link `{link}`"),
            format!("put what it points to in its place: `mv -T \"$(readlink -f {link})\" {link}`; or name the real path in the profile"),
        ),
        PathState::Present { mode, .. } if mode & !wanted & 0o7777 != 0 => {
            tally.bad(format!("`{path}` has mode {mode:04o}, at most {wanted:04o} is allowed"), mend.clone());
        }
        PathState::Present { owner, ids, .. } if !same_owner(owner, *ids, wanted_owner) => {
            tally.bad(
                format!("`{path}` belongs to {owner}, not to {wanted_owner}"),
                format!("`chown {wanted_owner} {path}`"),
            );
        }
        PathState::Present { mode, owner, .. } => tally.good(format!("`{path}`: {mode:04o} {owner}")),
    }
}

/// Whether an owner is the one asked for: each part by name or by number.
fn same_owner(names: &str, ids: (u32, u32), wanted: &str) -> bool {
    let (user, group) = names.split_once(':').unwrap_or((names, ""));
    let (wanted_user, wanted_group) = wanted.split_once(':').map_or((wanted, None), |(u, g)| (u, Some(g)));
    let same = |name: &str, id: u32, wanted: &str| name == wanted || id.to_string() == wanted;
    same(user, ids.0, wanted_user) && wanted_group.is_none_or(|wanted| same(group, ids.1, wanted))
}

pub(super) fn present(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    for deployment in &subject.wanted.deployments {
        for (name, required) in &deployment.secrets {
            let shown = format!("`{name}` of `{}`", deployment.name);
            match looked_up(&facts.secrets, name) {
                Ok(SecretState::Present(place)) => tally.good(format!("{shown}: {place}")),
                Ok(SecretState::Absent(why)) if *required => {
                    let next = if subject.profile.secrets.contains_key(name) {
                        format!(
                            "give it where the profile's `[secrets]` says, then `bedplate provision`; or `bedplate secret set {name}`"
                        )
                    } else {
                        format!("add it to the profile: `[secrets]` `{name} = {{ env = \"{name}\" }}`")
                    };
                    tally.bad(format!("secret {shown} resolves to nothing: {why}"), next);
                }
                Ok(SecretState::Absent(_)) => tally.note(format!("{shown}: not given, and not needed")),
                Err(why) if *required => tally.unknown_until(
                    format!("secret {shown}: {why}"),
                    "run it as root: `sudo bedplate doctor`",
                ),
                Err(why) => tally.note(format!("{shown}: {why}; not needed")),
            }
        }
    }
    tally.verdict("every secret that is needed resolves", "no deployment needs a secret")
}

pub(super) fn leaks(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let found = match facts.leaks.as_result() {
        Ok(found) => found,
        Err(why) => return Verdict::unknown(why),
    };
    let quoted = |path: &String| format!("`{path}`");
    let places = found.asked.iter().map(quoted).collect::<Vec<_>>().join(", ");
    let mut tally = Tally::default();
    // Facts from a file may have been gathered for another profile.
    for path in subject.wanted.host.leak_paths.iter().filter(|path| !found.asked.contains(path)) {
        tally.unknown(format!("`{path}`: nothing was looked at"));
    }
    for leak in &found.found {
        tally.bad(
            format!("`{}`, line {}, holds {}", leak.path, leak.line, leak.what),
            "replace it where it was issued: it has been on disk in clear; in a shell's or `.env` file delete the line, in a deployment write `${NAME}` in its place (`bedplate init --from FILE` does so); bedplate keeps the new one: `[secrets]` in the profile, `bedplate secret set NAME`",
        );
    }
    for unseen in &found.unseen {
        tally.unknown_until(
            unseen,
            "run it as root: `sudo bedplate doctor`; or name other directories in `[checks] leak-paths`",
        );
    }
    for path in &found.unfinished {
        tally.unknown_until(
            format!("there is more below `{path}` than is searched"),
            "name narrower directories in `[checks] leak-paths`",
        );
    }
    let line = format!("{} files looked at in {places}", found.files);
    if found.places > 0 {
        tally.good(line);
    }
    tally.verdict("no token in a file that people write by hand", format!("none of {places} is there"))
}
