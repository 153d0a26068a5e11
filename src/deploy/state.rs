//! What is kept of a deployment on the host, so that the boot unit can bring back what ran.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Paths;
use crate::{
    error::{Doing, Result},
    system::files::{Owner, Root},
};

const LIMIT: u64 = 4 << 20;

/// Whether a deployment should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedState {
    /// It runs, and is brought back after a boot, behind the gate.
    Running,
    /// It was stopped, and stays so.
    Stopped,
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this form.
    pub version: u32,
    /// Whether it should run.
    pub wanted: WantedState,
    /// The generation it was last brought up under.
    pub generation: u64,
    /// Its services in the order they start, each with the container that was made for it.
    pub services: Vec<Made>,
    /// Where the engine's API is asked, such as `http://127.0.0.1:8000`.
    pub address: Option<String>,
    /// When it was last brought up, RFC 3339.
    pub since: String,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Name of the service.
    pub service: String,
    /// Name of the container.
    pub container: String,
    /// Its id.
    pub id: String,
    /// Digest of all it was made of.
    pub spec: String,
}

fn directory(paths: &Paths, deployment: &str) -> String {
    format!("{}/{deployment}", paths.state)
}

/// The state of a deployment, when there is one.
pub fn load(root: &Root, paths: &Paths, deployment: &str) -> Result<Option<State>> {
    let path = format!("{}/state.json", directory(paths, deployment));
    let Some(text) = root.read(&path, LIMIT)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).doing(|| format!("reading `{path}`"))
}

/// The deployment file it was brought up with.
pub fn deployment_text(root: &Root, paths: &Paths, deployment: &str) -> Result<Option<String>> {
    root.read_text(&format!("{}/deployment.yaml", directory(paths, deployment)), LIMIT)
}

/// Keeps a state, and the deployment file where given.
pub fn save(root: &Root, paths: &Paths, deployment: &str, state: &State, text: Option<&str>) -> Result<()> {
    let directory = directory(paths, deployment);
    if root.stat(&directory)?.is_none() {
        root.make_dir(&directory, 0o700, Owner::current())?;
    }
    if let Some(text) = text {
        root.write(&format!("{directory}/deployment.yaml"), text.as_bytes(), 0o600, Owner::current())?;
    }
    let mut json = serde_json::to_vec_pretty(state).doing(|| "writing a deployment's state")?;
    json.push(b'\n');
    root.write(&format!("{directory}/state.json"), &json, 0o600, Owner::current())
}

/// Forgets a deployment.
pub fn forget(root: &Root, paths: &Paths, deployment: &str) -> Result<bool> {
    root.remove_tree(&directory(paths, deployment))
}

/// Every deployment a state is kept of, by name. One that cannot be read does not hide the others.
pub fn all(root: &Root, paths: &Paths) -> Result<BTreeMap<String, Result<State>>> {
    let mut found = BTreeMap::new();
    for entry in root.list(&paths.state)? {
        if !entry.is_dir {
            continue;
        }
        if let Some(state) = load(root, paths, &entry.name).transpose() {
            found.insert(entry.name, state);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn one_unreadable_state_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let paths = Paths { state: "/deployments".to_owned(), ..Paths::default() };
        std::fs::create_dir(dir.path().join("deployments")).unwrap();
        let state = State {
            version: 1,
            wanted: WantedState::Running,
            generation: 3,
            services: Vec::new(),
            address: None,
            since: String::new(),
        };
        for name in ["bad", "good"] {
            save(&root, &paths, name, &state, Some("name: x\n")).unwrap();
        }
        std::fs::write(dir.path().join("deployments/bad/state.json"), "{").unwrap();
        std::fs::create_dir(dir.path().join("deployments/empty")).unwrap();
        let found = all(&root, &paths).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["bad", "good"]);
        assert!(found["bad"].as_ref().unwrap_err().message().contains("bad/state.json"));
        assert_eq!(found["good"].as_ref().unwrap(), &state);
    }
}
