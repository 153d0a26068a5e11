//! Finding and reading what a verb was given: profiles, image definitions, deployments, locks.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{Context, subject};
use crate::{
    error::{Doing as _, Error, Result},
    lock::{
        self, Lock,
        bundle::{Bundle, Pinned},
    },
    profile::{self, Deployment, ImageDefinition, Profile, image_definition},
    system::files,
};

/// Size limit of a profile or deployment, in bytes.
pub const TEXT_LIMIT: u64 = 1 << 20;
/// Size limit of a lock, in bytes.
pub const LOCK_LIMIT: u64 = 16 << 20;
/// Size limit of a file a profile carries along, in bytes.
const SOURCE_LIMIT: u64 = 16 << 20;

/// A profile with everything it names, read and parsed.
pub struct Sources {
    /// The profile's path as the user would write it.
    pub shown: String,
    /// The profile's path.
    pub path: PathBuf,
    /// The profile's text.
    pub text: String,
    /// The profile.
    pub profile: Profile,
    /// Files it names, by the path as written in it.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Deployments among them, parsed.
    pub deployments: BTreeMap<String, Deployment>,
    /// What is worth a word about them, once: when they are locked.
    pub warnings: Vec<profile::Warning>,
}

impl Sources {
    /// Whether there is a profile here, without a name given.
    pub fn any(context: &Context) -> Result<bool> {
        Ok(!here(context, "profiles")?.is_empty())
    }

    /// Finds and reads the profile `named`, or the only one there is.
    pub fn read(context: &Context, named: Option<&str>) -> Result<Self> {
        let path = find(context, "profiles", "profile", named)?.ok_or_else(|| {
            Error::usage("there is no profile here")
                .hint("write one with `bedplate init NAME --engine vllm --model ID`, or name its path")
        })?;
        Self::read_path(context, path)
    }

    fn read_path(context: &Context, path: PathBuf) -> Result<Self> {
        let shown = shown(context, &path);
        let text = files::read_text(&path, TEXT_LIMIT)?;
        let profile = profile::parse(&shown, &text)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut files = BTreeMap::new();
        let mut deployments = BTreeMap::new();
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        for named in profile.input_paths() {
            let at = directory.join(named);
            match files::read_input(&at, SOURCE_LIMIT)
                .doing(|| format!("reading what `{shown}` names failed"))
            {
                Ok(content) => {
                    files.insert(named.to_owned(), content);
                }
                Err(error) => errors.push(error),
            }
        }
        for named in &profile.deployments {
            let Some(content) = files.get(named) else { continue };
            let at = self::shown(context, &normal(&directory.join(named)));
            match text_of(&at, content).and_then(|text| profile::deployment::parse(&at, text)) {
                Ok(parsed) => {
                    warnings.extend(parsed.warnings);
                    deployments.insert(named.clone(), parsed.deployment);
                }
                Err(error) => errors.push(error),
            }
        }
        errors.extend(
            deployments.iter().flat_map(|(path, deployment)| unnamed_secrets(path, deployment, &profile)),
        );
        match Error::join(errors) {
            Some(error) => Err(error),
            None => Ok(Self { shown, path, text, profile, files, deployments, warnings }),
        }
    }

    /// The file name of the profile.
    pub fn file_name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// The directory that relative paths of the profile start from.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Where the lock is: beside the profile.
    pub fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// The lock's text and the lock, where there is one.
    pub fn lock(&self, context: &Context) -> Result<Option<(String, Lock)>> {
        let path = self.lock_path();
        if !files::exists(&path) {
            return Ok(None);
        }
        let content = files::read_input(&path, LOCK_LIMIT)?;
        let shown = shown(context, &path);
        let text = String::from_utf8(content).map_err(|error| lock::not_text(&shown, &error.utf8_error()))?;
        let lock = lock::parse(&shown, &text)?;
        Ok(Some((text, lock)))
    }

    /// The profile with its lock as one bundle. A missing or stale lock is an error (exit code 4).
    pub fn pinned(&self, context: &Context) -> Result<(Bundle, Pinned)> {
        let Some((lock_text, _)) = self.lock(context)? else {
            return Err(Error::stale(format!("`{}` has no lock", self.shown))
                .hint(format!("run `bedplate lock {}`", self.shown)));
        };
        let bundle = Bundle::assemble(&self.file_name(), &self.text, &lock_text, self.files.clone())?;
        let pinned = bundle.open()?;
        refuse_stale(&pinned, &self.shown)?;
        Ok((bundle, pinned))
    }
}

/// An image definition with the profile it is made from, read and parsed.
pub struct ImageSources {
    /// The definition's path as the user would write it.
    pub shown: String,
    /// The definition's path.
    pub path: PathBuf,
    /// The definition.
    pub definition: ImageDefinition,
    /// The profile with everything it names.
    pub profile: Sources,
}

impl ImageSources {
    /// Finds and reads the image definition `named`, or the only one there is, and its profile.
    pub fn read(context: &Context, named: Option<&str>) -> Result<Self> {
        let path = find(context, "images", "image definition", named)?.ok_or_else(|| {
            Error::usage("there is no image definition here")
                .hint("write `images/NAME.toml` with `profile` and `formats`, or name its path")
        })?;
        let shown = shown(context, &path);
        let definition = image_definition::parse(&shown, &files::read_text(&path, TEXT_LIMIT)?)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let profile = normal(&directory.join(&definition.profile));
        if !files::exists(&profile) {
            let profile_shown = self::shown(context, &profile);
            return Err(Error::usage(format!(
                "`{shown}` is made from the profile `{profile_shown}`, which is not there"
            ))
            .hint("`profile` is a name, looked up in `../profiles/`, or a path relative to the image definition"));
        }
        let profile = Sources::read_path(context, profile)?;
        definition.check(&shown, &profile.profile, &profile.shown)?;
        Ok(Self { shown, path, definition, profile })
    }
}

/// Secrets a deployment cannot do without and the profile does not name.
fn unnamed_secrets(path: &str, deployment: &Deployment, profile: &Profile) -> Vec<Error> {
    let missing = deployment
        .secrets()
        .into_iter()
        .filter(|(name, required)| *required && !profile.secrets.contains_key(name));
    missing
        .map(|(name, _)| {
            let near = profile.secrets.keys().find(|known| strsim::damerau_levenshtein(known, &name) <= 2);
            let error = Error::usage(format!(
                "deployment `{path}` needs secret `{name}`, which the profile's `[secrets]` does not name"
            ));
            error.hint(match near {
                Some(near) => format!(
                    "did you mean `{near}`? else add `{name} = {{ env = \"{name}\" }}` to `[secrets]`"
                ),
                None => format!("add `{name} = {{ env = \"{name}\" }}` to the profile's `[secrets]`"),
            })
        })
        .collect()
}

/// A lock whose set says other than its packages is an error (exit code 2), and so is a stale one, which says why
/// (exit code 4).
pub fn refuse_stale(pinned: &Pinned, shown: &str) -> Result<()> {
    let lock_shown = format!("{}.lock", shown.strip_suffix(".toml").unwrap_or(&pinned.name));
    lock::set::refuse(&pinned.contradictions, &lock_shown, &pinned.lock_text)?;
    match &pinned.freshness {
        lock::Freshness::Fresh => Ok(()),
        lock::Freshness::Stale(reasons) => {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            Err(Error::stale(format!("the lock of `{shown}` is stale: {}", reasons.join("; ")))
                .hint(format!("run `bedplate lock {shown}`, and review what `--diff` shows")))
        }
    }
}

/// A path as the user would write it: relative to where the command was given, where that is shorter.
pub fn shown(context: &Context, path: &Path) -> String {
    let mut base = context.directory.as_path();
    let mut up = String::new();
    for _ in 0..3 {
        if let Ok(rest) = path.strip_prefix(base) {
            return format!("{up}{}", rest.display());
        }
        up.push_str("../");
        let Some(parent) = base.parent() else { break };
        base = parent;
    }
    path.display().to_string()
}

/// UTF-8 text of a file that was read.
pub fn text_of<'a>(shown: &str, content: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(content).map_err(|error| {
        let offset = error.valid_up_to();
        Error::usage(format!("reading `{shown}`: byte {offset} is not valid UTF-8"))
            .hint("save the file as UTF-8")
    })
}

/// A deployment the user named, its text and what it says: a file, or the name of one that this host's current
/// generation carries.
pub fn deployment(context: &Context, named: &Path) -> Result<(String, Deployment)> {
    let path = context.path(named);
    if !files::exists(&path)
        && let Some(name) = named.to_str().filter(|name| !name.contains(['/', '.']))
    {
        let (found, known) = subject::deployment_of_generation(name)?;
        if let Some(found) = found {
            return Ok(found);
        }
        if !known.is_empty() {
            return Err(Error::usage(format!("there is no file and no deployment `{name}`"))
                .hint(format!("this host was provisioned with: {}", known.join(", "))));
        }
    }
    let shown = named.display().to_string();
    let text = files::read_text(&path, TEXT_LIMIT)?;
    let parsed = profile::deployment::parse(&shown, &text)?;
    for warning in &parsed.warnings {
        context.ui.warn_at(&warning.message, warning.snippet.as_ref(), &warning.hint);
    }
    Ok((text, parsed.deployment))
}

/// Finds `DIR/NAME.toml` from here upward, or a path. Without a name: the only one there is, `None`
/// where there is none. Several: an error that lists them.
fn find(context: &Context, directory: &str, noun: &str, named: Option<&str>) -> Result<Option<PathBuf>> {
    if let Some(named) = named {
        let path = context.path(Path::new(named));
        if named.contains('/') || Path::new(named).extension().is_some() || path.is_file() {
            return Ok(Some(normal(&path)));
        }
        let file = format!("{named}.toml");
        let found = upward(context).map(|at| at.join(directory).join(&file)).find(|path| path.is_file());
        return found.map(Some).ok_or_else(|| {
            let known = here(context, directory).map(|found| names(&found)).unwrap_or_default();
            let error = Error::usage(format!("there is no {noun} `{named}`"));
            if known.is_empty() {
                error.hint(format!("looked for `{directory}/{file}` from here upward; name its path"))
            } else {
                error.hint(format!("there is: {}", known.join(", ")))
            }
        });
    }
    let found = here(context, directory)?;
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => Err(Error::usage(format!("there are several {noun}s here"))
            .hint(format!("name one of: {}", names(several).join(", ")))),
    }
}

/// The nearest directory's files.
fn here(context: &Context, directory: &str) -> Result<Vec<PathBuf>> {
    for at in upward(context) {
        let directory = at.join(directory);
        let Some(entries) = files::list_input(&directory)? else { continue };
        let mut found: Vec<PathBuf> = entries
            .iter()
            .map(|entry| directory.join(&entry.name))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        found.sort();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn upward(context: &Context) -> impl Iterator<Item = &Path> {
    context.directory.ancestors()
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().filter_map(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned()).collect()
}

/// The path without `.` and `..`, by its text alone.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut all, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                all.pop();
            }
            part => all.push(part),
        }
        all
    })
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
