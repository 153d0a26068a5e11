//! The one error type: a kind for the machine, a message and hints for the person.
//!
//! The kind decides the exit code (`ui::exit`), the message says what was being done and what is
//! wrong (lower case, no full stop), a hint gives the exact command or edit. No message ever holds
//! a secret: whoever builds one names the secret, never its value.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// `Result` with bedplate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What sort of failure this is. Decides the exit code, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It was tried and failed (exit code 1).
    Failed,
    /// Wrong usage or configuration (exit code 2).
    Usage,
    /// A check failed, or a verdict or set is refused (exit code 3).
    Check,
    /// The lock is stale, or the host drifted (exit code 4).
    Stale,
    /// A signal ended the run (exit code 128 + signal number).
    Interrupted(i32),
}

/// A place in a file the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The path as the user would write it.
    pub path: String,
    /// The whole text of the file.
    pub text: Arc<str>,
    /// Byte range of what is wrong, within `text`.
    pub span: Range<usize>,
    /// What is said under the marked range.
    pub label: String,
}

impl Snippet {
    /// The first place of `what` in a file's text, without a label; `None` where it is not there.
    pub fn find(path: impl Into<String>, text: &Arc<str>, what: &str) -> Option<Self> {
        let start = text.find(what)?;
        let span = start..start + what.len();
        Some(Self { path: path.into(), text: text.clone(), span, label: String::new() })
    }
}

/// An error with a kind, an optional place, hints and a cause chain.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    snippet: Option<Snippet>,
    hints: Vec<String>,
    source: Option<Source>,
    related: Vec<Error>,
}

impl Error {
    /// An error of any kind.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            snippet: None,
            hints: Vec::new(),
            source: None,
            related: Vec::new(),
        }))
    }

    /// It was tried and failed: exit code 1.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Wrong usage or configuration: exit code 2.
    pub fn usage(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A check failed, or something is refused: exit code 3.
    pub fn check(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Check, message)
    }

    /// A stale lock or drift: exit code 4.
    pub fn stale(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Stale, message)
    }

    /// Adds a hint: the exact command or edit that helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Says where in the user's file the error is.
    #[must_use]
    pub fn at(mut self, snippet: Snippet) -> Self {
        self.0.snippet = Some(snippet);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Attaches further errors of the same run, shown after this one.
    #[must_use]
    pub fn and(mut self, related: impl IntoIterator<Item = Error>) -> Self {
        self.0.related.extend(related);
        self
    }

    /// Makes one error of many: the first, with the others related to it. `None` for none.
    pub fn join(errors: impl IntoIterator<Item = Error>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        Some(first.and(errors))
    }

    /// The same error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message alone, without causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where in the user's file the error is.
    pub fn snippet(&self) -> Option<&Snippet> {
        self.0.snippet.as_ref()
    }

    /// Hints of this error, then of its causes.
    pub fn hints(&self) -> Vec<&str> {
        let mut hints: Vec<&str> = self.0.hints.iter().map(String::as_str).collect();
        if let Some(inner) = self.0.source.as_deref().and_then(|s| s.downcast_ref::<Error>()) {
            hints.extend(inner.hints());
        }
        hints
    }

    /// Further errors of the same run.
    pub fn related(&self) -> &[Error] {
        &self.0.related
    }

    /// The messages of the cause chain below this error, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let text = error.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        for related in &self.0.related {
            write!(f, "; {related:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// Wraps the error: `message` says what was being done, the error becomes its cause. The kind
    /// of a bedplate error is kept; any other becomes [`Kind::Failed`].
    fn doing<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Source>> Doing<T> for std::result::Result<T, E> {
    fn doing<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| {
            let source: Source = error.into();
            let kind = source.downcast_ref::<Error>().map_or(Kind::Failed, Error::kind);
            let mut wrapped = Error::new(kind, message());
            wrapped.0.source = Some(source);
            wrapped
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_keeps_kind_hints_and_chain() {
        let inner = Error::usage("no such profile").hint("run `bedplate init`");
        let outer = Err::<(), _>(inner).doing(|| "reading `x.toml`").unwrap_err();
        assert_eq!(outer.kind(), Kind::Usage);
        assert_eq!(outer.hints(), ["run `bedplate init`"]);
        assert_eq!(outer.causes(), ["no such profile"]);
    }
}
