//! `init`: a profile and a deployment to start from, new or from a deployment file there is.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{
    Context,
    args::{self, EngineArg},
    inputs,
};
use crate::{
    error::{Error, Result},
    profile::{
        self, SecretSource,
        deployment::Engine,
        rewrite,
        template::{self, Template},
    },
    system::files,
};

/// A file to write, private or not.
struct Output {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
}

/// Runs `init`.
pub fn run(context: &Context, args: &args::Init) -> Result<()> {
    let (name, outputs, changes) = match &args.from {
        Some(from) => from_deployment(context, args, from)?,
        None => anew(context, args)?,
    };
    if !args.force {
        let there: Vec<String> = outputs
            .iter()
            .filter(|output| files::is_there(&output.path))
            .map(|output| inputs::shown(context, &output.path))
            .collect();
        if !there.is_empty() {
            return Err(Error::usage(format!("`{}` is there already", there.join("`, `")))
                .hint("give another name, or overwrite with `--force`"));
        }
    }
    for change in &changes {
        context.ui.say(&format!("changed: {change}"));
    }
    for output in &outputs {
        let shown = inputs::shown(context, &output.path);
        if args.dry_run {
            context.ui.say(&format!("would write {shown}"));
            if output.mode == 0o644 {
                context.ui.data(&String::from_utf8_lossy(&output.content))?;
            }
            continue;
        }
        let folder = output.path.parent().unwrap_or(Path::new("."));
        if output.mode == 0o600 {
            files::make_private_dir(folder)?;
        } else {
            files::make_dir(folder)?;
        }
        if output.mode == 0o600 {
            files::write_private(&output.path, &output.content)?;
        } else {
            files::write_output(&output.path, &output.content, output.mode)?;
        }
        context.ui.say(&format!("wrote {shown}"));
    }
    if !args.dry_run {
        context.ui.say(&format!(
            "next: look through profiles/{name}.toml, then `bedplate lock {name}` and `bedplate provision {name} --dry-run`"
        ));
    }
    Ok(())
}

fn places(context: &Context, name: &str) -> (PathBuf, PathBuf, String) {
    let profile = context.directory.join("profiles").join(format!("{name}.toml"));
    let deployment = context.directory.join("deployments").join(format!("{name}.yaml"));
    (profile, deployment, format!("../deployments/{name}.yaml"))
}

fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 63 && name.chars().all(fine) {
        return Ok(());
    }
    Err(Error::usage(format!("`{}` cannot be a name", name.escape_debug()))
        .hint("start with a letter or digit, go on with letters, digits, `-`, `_` and `.`"))
}

fn anew(context: &Context, args: &args::Init) -> Result<(String, Vec<Output>, Vec<String>)> {
    let name = args.name.clone().ok_or_else(|| {
        Error::usage("`init` needs a name").hint("write `bedplate init NAME --engine vllm --model ID`")
    })?;
    check_name(&name)?;
    let missing = |what: &str| {
        Error::usage(format!("`init` needs `{what}`"))
            .hint(format!("write `bedplate init {name} --engine vllm --model ID`, or `--from DEPLOYMENT`"))
    };
    let engine = match args.engine.ok_or_else(|| missing("--engine"))? {
        EngineArg::Vllm => Engine::Vllm,
        EngineArg::Sglang => Engine::Sglang,
    };
    let model = args.model.clone().ok_or_else(|| missing("--model"))?;
    let (profile_path, deployment_path, relative) = places(context, &name);
    let template = Template {
        tensor_parallel: args.tp,
        port: args.port,
        ..Template::new(name.clone(), engine, model, relative)
    };
    let profile = template::profile(&template);
    let deployment = template::deployment(&template);
    // What is written must be read again: a model's name could hold anything.
    profile::parse("the new profile", &profile)?;
    profile::deployment::parse("the new deployment", &deployment)?;
    Ok((name, vec![text(profile_path, profile), text(deployment_path, deployment)], Vec::new()))
}

fn from_deployment(
    context: &Context,
    args: &args::Init,
    from: &Path,
) -> Result<(String, Vec<Output>, Vec<String>)> {
    let old = Zeroizing::new(files::read_text(&context.path(from), inputs::TEXT_LIMIT)?);
    let shown = from.display().to_string();
    let new = rewrite::rewrite(&shown, &old)?;
    let deployment = profile::deployment::parse(&shown, &new.text)?.deployment;
    let name = args.name.clone().unwrap_or_else(|| deployment.name.clone());
    check_name(&name)?;
    let (profile_path, deployment_path, relative) = places(context, &name);
    let mut outputs = Vec::new();
    let mut moved = Vec::new();
    let folder = context.directory.join("secrets");
    for (secret, value) in new.secrets {
        check_name(&secret)?;
        moved.push((secret.clone(), SecretSource::File(format!("../secrets/{secret}"))));
        outputs.push(Output {
            path: folder.join(&secret),
            content: Zeroizing::new(value.into_bytes()),
            mode: 0o600,
        });
    }
    if !outputs.is_empty() {
        // They must not be committed by accident.
        let ignore = folder.join(".gitignore");
        if !files::is_there(&ignore) {
            outputs.push(Output { path: ignore, content: Zeroizing::new(b"*\n".to_vec()), mode: 0o600 });
        }
    }
    let template = Template::of(&deployment, relative, &moved);
    let profile = template::profile(&template);
    profile::parse("the new profile", &profile)?;
    outputs.push(text(profile_path, profile));
    outputs.push(text(deployment_path, new.text));
    Ok((name, outputs, new.changes))
}

fn text(path: PathBuf, content: String) -> Output {
    Output { path, content: Zeroizing::new(content.into_bytes()), mode: 0o644 }
}
