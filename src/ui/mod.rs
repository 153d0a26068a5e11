//! What a person or a script sees: standard output is data, standard error is talk.

pub mod errors;
pub mod exit;
pub mod progress;
pub mod table;
pub mod text;

use std::io::{IsTerminal as _, Write as _};

use crate::error::{Error, Result};

/// How a command prints what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
    /// For test collectors.
    Junit,
    /// For people elsewhere: one page that can be sent.
    Html,
}

impl Format {
    /// Its name on the command line, where it can hold nothing but a report of checks.
    pub fn of_checks_alone(self) -> Option<&'static str> {
        match self {
            Self::Text | Self::Json => None,
            Self::Junit => Some("junit"),
            Self::Html => Some("html"),
        }
    }
}

/// Where output goes and how much of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ui {
    /// How reports are printed.
    pub format: Format,
    /// Only errors and data.
    pub quiet: bool,
    /// 0: the usual; 1: details; 2 and more: also the log.
    pub verbose: u8,
    /// Progress as JSON lines on standard error, for a bedplate that draws it elsewhere.
    pub remote: bool,
}

impl Ui {
    /// Writes data to standard output. A closed pipe is not an error: the reader has had enough.
    pub fn data(&self, text: &str) -> Result<()> {
        let mut out = anstream::stdout().lock();
        let result = out.write_all(text.as_bytes()).and_then(|()| {
            if text.is_empty() || text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") }
        });
        match result.and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::failed("writing to standard output failed")
                    .because(error)
                    .hint("make room where it goes, or send it elsewhere"))
            }
            _ => Ok(()),
        }
    }

    /// Writes a value as pretty JSON to standard output.
    pub fn json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::failed("writing JSON failed").because(error))?;
        self.data(&text)
    }

    /// One line of talk on standard error, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.talk(text);
        }
    }

    /// A warning on standard error, also when quiet.
    pub fn warn(&self, text: &str) {
        if self.remote {
            progress::write_line(&crate::progress::Event::Warning { text: text.into() });
        } else {
            let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
            write_err(&format!("{style}warning:{style:#} {text}"));
        }
    }

    /// A warning with its place in a file and a hint, where it has them.
    pub fn warn_at(&self, message: &str, place: Option<&crate::error::Snippet>, hint: &str) {
        let place = place.map_or_else(String::new, |place| {
            let start = place.span.start.min(place.text.len());
            let line = place.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{}:{line}: ", place.path)
        });
        self.warn(&format!("{place}{message}"));
        if !hint.is_empty() {
            self.say(&format!("hint: {hint}"));
        }
    }

    /// Renders an error to standard error.
    pub fn error(&self, error: &Error) {
        let text = errors::render(error);
        if self.remote {
            let text = anstream::adapter::strip_str(&text).to_string();
            progress::write_line(&crate::progress::Event::Error { text: text.trim_end().into() });
        } else {
            write_err(&text);
        }
    }

    fn talk(&self, text: &str) {
        if self.remote {
            progress::write_line(&crate::progress::Event::Note { text: text.into() });
        } else {
            write_err(text);
        }
    }

    /// Whether standard error is a terminal a person looks at.
    pub fn is_interactive(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// The progress display for this output.
    pub fn progress(&self) -> std::sync::Arc<dyn crate::progress::Progress> {
        if self.remote {
            std::sync::Arc::new(progress::Lines)
        } else if self.quiet {
            std::sync::Arc::new(progress::WarningsOnly(*self))
        } else if self.is_interactive() {
            std::sync::Arc::new(progress::Bars::new())
        } else {
            std::sync::Arc::new(progress::Plain::default())
        }
    }
}

pub(crate) fn write_err(text: &str) {
    let mut err = anstream::stderr().lock();
    // Nothing can be said when standard error itself is gone.
    let _ = writeln!(err, "{}", text.trim_end_matches('\n'));
}
