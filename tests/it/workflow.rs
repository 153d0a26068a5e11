//! The steps of `.github/workflows/lock-update.yml`, run as a runner would: real git with a bare remote, a real
//! registry, the real binary. Only `gh`, which talks to GitHub alone, is stood in for: it notes what it was asked.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use saphyr::{LoadableYamlNode as _, Yaml};
use tempfile::TempDir;

use crate::{
    cli::profile,
    support::{
        image::ImageSpec,
        registry::{Kind, Registry},
    },
};

/// A repository with profiles, its remote, and what a runner gives a step.
struct Runner {
    directory: TempDir,
    steps: BTreeMap<String, String>,
}

/// What a step left behind.
#[derive(Debug)]
struct Ended {
    code: i32,
    said: String,
    outputs: BTreeMap<String, String>,
}

impl Runner {
    fn new() -> Self {
        let text = fs::read_to_string(repository(".github/workflows/lock-update.yml")).unwrap();
        let documents = Yaml::load_from_str(&text).unwrap();
        let steps = documents[0]["jobs"]["update"]["steps"].as_vec().expect("the job has steps");
        let steps = steps.iter().filter_map(|step| {
            let run = step.as_mapping_get("run")?.as_str()?;
            assert!(
                !run.contains("${{"),
                "a step takes its inputs from its environment, never into its text"
            );
            Some((step["id"].as_str()?.to_owned(), run.to_owned()))
        });
        let runner = Self { directory: tempfile::tempdir().unwrap(), steps: steps.collect() };
        for folder in ["home", "temp", "bin", "work/profiles"] {
            fs::create_dir_all(runner.at(folder)).unwrap();
        }
        let stand_in = "#!/bin/sh\n{ printf '%s\\n' \"$*\"; } >>\"$HOME/gh.log\"\n\
                        for word; do [ -e \"$word\" ] && cp \"$word\" \"$HOME/body.md\"; done\nexit 0\n";
        fs::write(runner.at("bin/gh"), stand_in).unwrap();
        fs::set_permissions(runner.at("bin/gh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bedplate"), runner.at("bin/bedplate")).unwrap();
        runner.git(&["init", "-q", "--bare", "-b", "main", "../remote.git"]);
        runner.git(&["init", "-q", "-b", "main", "."]);
        runner.git(&["remote", "add", "origin", "../remote.git"]);
        runner
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.at("work"))
            .env_clear()
            .env("HOME", self.at("home"))
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.at("bin").display()))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Test")
            .env("GIT_AUTHOR_EMAIL", "test@example.org")
            .env("GIT_COMMITTER_NAME", "Test")
            .env("GIT_COMMITTER_EMAIL", "test@example.org");
        command
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let output = self.command("git").args(arguments).output().expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.at("work").join(path), text).unwrap();
    }

    fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "as it is"]);
        self.git(&["push", "-q", "origin", "main"]);
    }

    /// Locks a profile as its author did.
    #[track_caller]
    fn lock(&self, profile: &str) {
        let output = self.command("bedplate").args(["lock", profile]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs the step of this id as a runner does: `bash -e`, with files for outputs and the summary.
    #[track_caller]
    fn step(&self, id: &str, environment: &[(&str, &str)]) -> Ended {
        let script = self.at("temp/step.sh");
        fs::write(&script, self.steps.get(id).unwrap_or_else(|| panic!("there is no step `{id}`"))).unwrap();
        let outputs = self.at("temp/outputs");
        fs::write(&outputs, "").unwrap();
        let output = self
            .command("bash")
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
            .arg(&script)
            .envs(environment.iter().copied())
            .env("RUNNER_TEMP", self.at("temp"))
            .env("GITHUB_OUTPUT", &outputs)
            .env("GITHUB_STEP_SUMMARY", self.at("temp/summary.md"))
            .output()
            .unwrap();
        let lines = fs::read_to_string(outputs).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            outputs: lines
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn locks(&self) -> Ended {
        self.step("locks", &[("PROFILES", "profiles/*.toml"), ("UPDATE", "--update-all"), ("MIRROR", "")])
    }

    fn request(&self) -> Ended {
        self.step("request", &[("BRANCH", "bedplate/lock-update"), ("GH_TOKEN", "none")])
    }

    fn home(&self, name: &str) -> String {
        fs::read_to_string(self.at("home").join(name)).unwrap_or_default()
    }
}

impl Ended {
    #[track_caller]
    fn output(&self, name: &str) -> &str {
        self.outputs.get(name).map_or_else(|| panic!("no output `{name}`: {self:?}"), String::as_str)
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An image of a CUDA release.
fn image(cuda: &str) -> ImageSpec {
    let mut spec = ImageSpec::default();
    spec.env.push(format!("CUDA_VERSION={cuda}"));
    spec.env.push(format!("NVIDIA_REQUIRE_CUDA=cuda>={}", cuda.rsplit_once('.').unwrap().0));
    spec
}

/// A profile of a host with GPUs whose packages are someone else's.
fn gpu_profile(image: &str) -> String {
    profile(&format!("vllm = \"{image}\""), "[gpu]\nmodel = \"H100\"\ncount = 1\n")
        .replace("flavor = \"none\"", "flavor = \"open\"\nversion = \"550.163.01\"")
        .replace("gpu-access = \"none\"", "gpu-access = \"cdi\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_becomes_a_pull_request_with_the_diff() {
    let registry = Registry::start(Kind::Plain).await;
    registry.push_image("engine:1", &image("12.1.0")).await;
    registry.push_image("still:1", &image("12.1.0")).await;
    let runner = Runner::new();
    runner.put("profiles/gpu.toml", &gpu_profile(&format!("{}/engine:1", registry.host)));
    runner.put("profiles/still.toml", &gpu_profile(&format!("{}/still:1", registry.host)));
    runner.lock("profiles/gpu.toml");
    runner.lock("profiles/still.toml");
    runner.commit();

    // Nothing has moved.
    let ended = runner.locks();
    assert_eq!((ended.code, ended.output("changed"), ended.output("refused")), (0, "false", ""), "{ended:?}");

    registry.push_image("engine:1", &image("12.4.1")).await;
    let ended = runner.locks();
    assert_eq!((ended.code, ended.output("changed"), ended.output("refused")), (0, "true", ""), "{ended:?}");
    let ended = runner.request();
    assert_eq!(ended.code, 0, "{ended:?}");
    let body = runner.home("body.md");
    assert!(
        body.contains("## `profiles/gpu.toml`") && body.contains("12.1.0") && body.contains("12.4.1"),
        "{body}"
    );
    assert!(!body.contains("still"), "{body}");
    assert!(runner.home("gh.log").contains("pr create --base main --head bedplate/lock-update"));
    // What is in the request is the new lock, and nothing else.
    let changed = runner.git(&["diff", "--name-only", "main", "origin/bedplate/lock-update"]);
    assert_eq!(changed, "profiles/gpu.lock\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_verdict_fails_the_run_after_the_request_is_there() {
    let registry = Registry::start(Kind::Plain).await;
    registry.push_image("engine:1", &image("12.1.0")).await;
    let runner = Runner::new();
    runner.put("profiles/gpu.toml", &gpu_profile(&format!("{}/engine:1", registry.host)));
    runner.lock("profiles/gpu.toml");
    runner.commit();

    // No driver of branch 550 runs CUDA 13.
    registry.push_image("engine:1", &image("13.0.0")).await;
    let ended = runner.locks();
    assert_eq!((ended.code, ended.output("changed")), (0, "true"), "{ended:?}");
    assert_eq!(ended.output("refused"), "profiles/gpu.toml");
    assert_eq!(runner.request().code, 0);
    let body = runner.home("body.md");
    assert!(body.contains("Refused.") && body.contains("image `vllm` is refused"), "{body}");
    let verdict = runner.step("verdict", &[("REFUSED", ended.output("refused")), ("FAILED", "")]);
    assert_eq!(verdict.code, 1);
    assert!(verdict.said.contains("::error::refused: profiles/gpu.toml"), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_made_fails_the_run_and_the_others_go_on() {
    let registry = Registry::start(Kind::Plain).await;
    registry.push_image("engine:1", &image("12.1.0")).await;
    let runner = Runner::new();
    runner.put("profiles/absent.toml", &gpu_profile(&format!("{}/absent:1", registry.host)));
    runner.put("profiles/gpu.toml", &gpu_profile(&format!("{}/engine:1", registry.host)));
    runner.lock("profiles/gpu.toml");
    runner.commit();
    registry.push_image("engine:1", &image("12.4.1")).await;

    let ended = runner.locks();
    assert_eq!((ended.code, ended.output("changed")), (0, "true"), "{ended:?}");
    assert_eq!(ended.output("failed"), "profiles/absent.toml");
    assert!(ended.said.contains("::error file=profiles/absent.toml"), "{ended:?}");
    let verdict = runner.step("verdict", &[("REFUSED", ""), ("FAILED", ended.output("failed"))]);
    assert_eq!(verdict.code, 1);
}
