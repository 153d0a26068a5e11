//! What a run is doing, for the next one, should this one be interrupted.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Doing as _, Result},
    host::layout::JOURNAL,
    plan::Change,
    system::files::{Owner, Root},
};

/// The journal. Nothing that must be right depends on `done`: the host itself says what was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Journal {
    /// The generation that is made, repaired or gone to.
    pub generation: u64,
    /// `new`, `repair` or `switch`.
    pub change: String,
    /// When the run began.
    pub since: String,
    /// How many steps are done.
    pub done: usize,
    /// How many there are.
    pub of: usize,
    /// The step being done.
    pub step: String,
}

impl Journal {
    pub(crate) fn new(generation: u64, change: Change, of: usize) -> Self {
        let change = match change {
            Change::New => "new",
            Change::Repair => "repair",
            Change::Switch => "switch",
        };
        let since = format!("{:.0}", crate::system::clock::now());
        Self { generation, change: change.to_owned(), since, done: 0, of, step: String::new() }
    }

    pub(crate) fn write(&self, root: &Root) -> Result<()> {
        let text = serde_json::to_vec(self).doing(|| "writing the journal")?;
        root.write(JOURNAL, &text, 0o600, Owner::current())
    }

    /// What an interrupted run was doing, for people. `None`: none was interrupted. A journal that cannot be
    /// understood still says that a run was interrupted.
    pub fn read(root: &Root) -> Result<Option<String>> {
        let Some(text) = root.read(JOURNAL, 1 << 20)? else { return Ok(None) };
        let Ok(journal) = serde_json::from_slice::<Self>(&text) else {
            return Ok(Some("a run was interrupted".to_owned()));
        };
        let Self { generation, since, done, of, step, .. } = journal;
        let what = match journal.change.as_str() {
            "repair" => "a repair of",
            "switch" => "a switch to",
            _ => "the making of",
        };
        let at = if step.is_empty() {
            String::new()
        } else {
            format!(", at step {} of {of} (`{}`)", (done + 1).min(of), step.escape_debug())
        };
        Ok(Some(format!("{what} generation {generation} was interrupted (begun {since}){at}")))
    }

    pub(crate) fn remove(root: &Root) -> Result<()> {
        root.remove_file(JOURNAL).map(drop)
    }
}
