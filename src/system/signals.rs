//! The signals that end a run: the first one is a future, the second ends the process at once.

use std::future::Future;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::error::{Doing, Error, Kind, Result};

/// Says when SIGINT or SIGTERM came. Clones see the same signal.
#[derive(Debug, Clone)]
pub struct Interrupt {
    seen: watch::Receiver<Option<i32>>,
}

/// Listens for SIGINT and SIGTERM from now on. The first one is seen by [`Interrupt`]; a second one
/// ends the process with 128 + its number. Call it once, inside the runtime.
///
/// # Errors
/// The handlers cannot be installed.
pub fn listen() -> Result<Interrupt> {
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).doing(|| "listening for SIGTERM")?;
    let (tell, seen) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                Some(()) = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                Some(()) = terminate.recv() => SignalKind::terminate().as_raw_value(),
                else => return,
            };
            if tell.borrow().is_some() {
                std::process::exit(128 + number);
            }
            tell.send_replace(Some(number));
        }
    });
    Ok(Interrupt { seen })
}

impl Interrupt {
    /// The signal that came, if any.
    pub fn seen(&self) -> Option<i32> {
        *self.seen.borrow()
    }

    /// Waits for the first signal, and gives its number.
    pub async fn wait(&self) -> i32 {
        let mut seen = self.seen.clone();
        let number = seen.wait_for(Option::is_some).await.ok().and_then(|number| *number);
        match number {
            Some(number) => number,
            // The listening task ended without a signal: none will ever be seen.
            None => std::future::pending().await,
        }
    }

    /// The error for a run that a signal ended: exit code 130 (SIGINT) or 143 (SIGTERM).
    pub fn error(number: i32) -> Error {
        let name = if number == SignalKind::interrupt().as_raw_value() { "SIGINT" } else { "SIGTERM" };
        Error::new(Kind::Interrupted(number), format!("interrupted by {name}"))
    }

    /// Runs `work` to its end, or drops it when a signal comes.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Interrupted`] when a signal came first.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            number = self.wait() => Err(Self::error(number)),
            done = work => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_ends_the_work() {
        let interrupt = listen().unwrap();
        assert_eq!(interrupt.guard(async { Ok(7) }).await.unwrap(), 7);
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        let work = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            Ok(())
        };
        let error = interrupt.guard(work).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(15));
        assert_eq!(interrupt.seen(), Some(15));
    }
}
