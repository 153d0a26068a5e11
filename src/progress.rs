//! How long work says where it stands, whoever shows it.
//!
//! Features send [`Event`]s; `ui` draws bars from them, or writes them as JSON lines when the
//! run is remote and another bedplate draws.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What the numbers of a task count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: images, steps, checks.
    Items,
    /// Nothing is counted; only that it goes on.
    None,
}

/// One thing that happened. `task` names the task, unique within the run, and is what a person sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event<'a> {
    /// A task began. `total` in units, when known.
    Started {
        /// The task.
        task: Cow<'a, str>,
        /// Its size, in `unit`, when known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// A task stands at `done` units (not: did that many more); `total` when it became known.
    Advanced {
        /// The task.
        task: Cow<'a, str>,
        /// Where it stands, in the task's unit.
        done: u64,
        /// Its size, when it became known or changed.
        total: Option<u64>,
        /// What it is doing now, for people.
        note: Option<Cow<'a, str>>,
    },
    /// A task ended well; `summary` is one line for people.
    Finished {
        /// The task.
        task: Cow<'a, str>,
        /// One line for people; where it is empty, the task ends without a line.
        summary: Option<Cow<'a, str>>,
    },
    /// Something worth saying once.
    Note {
        /// One line for people.
        text: Cow<'a, str>,
    },
    /// An error, rendered for people.
    Error {
        /// All of it, with causes and hints.
        text: Cow<'a, str>,
    },
    /// Something the operator should know although the work goes on.
    Warning {
        /// One line for people.
        text: Cow<'a, str>,
    },
}

/// Takes events. Implementations never block for long and never fail.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);

    /// A task began.
    fn started(&self, task: &str, total: Option<u64>, unit: Unit) {
        self.event(Event::Started { task: task.into(), total, unit });
    }

    /// A task stands at `done`.
    fn advanced(&self, task: &str, done: u64, total: Option<u64>) {
        self.event(Event::Advanced { task: task.into(), done, total, note: None });
    }

    /// A task ended well.
    fn finished(&self, task: &str, summary: Option<&str>) {
        self.event(Event::Finished { task: task.into(), summary: summary.map(Into::into) });
    }

    /// Something worth saying once.
    fn note(&self, text: &str) {
        self.event(Event::Note { text: text.into() });
    }

    /// Something the operator should know although the work goes on.
    fn warning(&self, text: &str) {
        self.event(Event::Warning { text: text.into() });
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
