//! Progress: bars on a terminal, lines elsewhere, JSON lines for a bedplate that draws them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Ui, text, write_err};
use crate::progress::{Event, Progress, Unit};

/// Bars on a terminal.
pub struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    /// Nothing is drawn until a task starts.
    pub fn new() -> Self {
        Self { all: MultiProgress::new(), bars: Mutex::new(HashMap::new()) }
    }

    fn bar(&self, task: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => {
                "{spinner} {prefix} [{bar:28}] {bytes}/{total_bytes} {bytes_per_sec} {msg}"
            }
            (Unit::Bytes, None) => "{spinner} {prefix} {bytes} {msg}",
            (Unit::Items, Some(_)) => "{spinner} {prefix} [{bar:28}] {pos}/{len} {msg}",
            _ => "{spinner} {prefix} {elapsed} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(task.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.all.add(bar)
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { task, total, unit } => {
                let bar = self.bar(&task, total, unit);
                bars.insert(task.into_owned(), bar);
            }
            Event::Advanced { task, done, total, note } => {
                if let Some(bar) = bars.get(&*task) {
                    if let Some(total) = total {
                        bar.set_length(total);
                    }
                    bar.set_position(done);
                    if let Some(note) = note {
                        bar.set_message(note.into_owned());
                    }
                }
            }
            Event::Finished { task, summary } => {
                if let Some(bar) = bars.remove(&*task) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if summary.as_deref() == Some("") {
                    return;
                }
                let line = summary.map_or_else(|| task.clone().into_owned(), |s| format!("{task}: {s}"));
                self.all.suspend(|| write_err(&line));
            }
            Event::Note { text } | Event::Error { text } => self.all.suspend(|| write_err(&text)),
            Event::Warning { text } => self.all.suspend(|| Ui::default().warn(&text)),
        }
    }
}

/// Lines, where there is no terminal: a start, an end, and now and then where a task stands.
#[derive(Default)]
pub struct Plain {
    last: Mutex<HashMap<String, Said>>,
}

/// When a task last said where it stands, what it counts, and its size.
type Said = (Instant, Unit, Option<u64>);

/// How often a task that goes on says so, where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

impl Progress for Plain {
    fn event(&self, event: Event<'_>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { task, total, unit } => {
                last.insert(task.into_owned(), (Instant::now(), unit, total));
            }
            Event::Advanced { task, done, total, note } => {
                let Some((when, unit, known)) = last.get_mut(&*task) else { return };
                *known = total.or(*known);
                if when.elapsed() < EVERY {
                    return;
                }
                *when = Instant::now();
                let amount = |n| if *unit == Unit::Bytes { text::bytes(n) } else { n.to_string() };
                let mut line = match (*unit, *known) {
                    (Unit::None, _) => format!("{task} …"),
                    (_, Some(total)) => format!("{task}: {} of {}", amount(done), amount(total)),
                    (_, None) => format!("{task}: {}", amount(done)),
                };
                if let Some(note) = note.filter(|note| !note.is_empty()) {
                    line = format!("{line}: {note}");
                }
                write_err(&line);
            }
            Event::Finished { task, summary } => {
                last.remove(&*task);
                if summary.as_deref() == Some("") {
                    return;
                }
                write_err(&summary.map_or_else(|| task.clone().into_owned(), |s| format!("{task}: {s}")));
            }
            Event::Note { text } | Event::Error { text } => write_err(&text),
            Event::Warning { text } => Ui::default().warn(&text),
        }
    }
}

/// Only warnings and errors, for `--quiet`.
pub struct WarningsOnly(pub Ui);

impl Progress for WarningsOnly {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Warning { text } => self.0.warn(&text),
            Event::Error { text } => write_err(&text),
            _ => {}
        }
    }
}

/// JSON lines on standard error.
pub struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        write_line(&event);
    }
}

pub(crate) fn write_line(event: &Event<'_>) {
    if let Ok(line) = serde_json::to_string(event) {
        write_err(&line);
    }
}

/// Shows a line another bedplate wrote to its standard error: an event, or talk as it is.
pub fn relay(line: &str, to: &dyn Progress) {
    match serde_json::from_str::<Event<'_>>(line) {
        Ok(event) => to.event(event),
        Err(_) if line.trim().is_empty() => {}
        // Not bedplate's: a shell's, or sudo's. It may be the only word on what went wrong.
        Err(_) => to.event(Event::Error { text: line.into() }),
    }
}
