//! The signals that end a run: the first one is a future, or a flag to work that does not wait; the second ends the
//! process at once.

use std::{
    future::Future,
    io::{self, Read},
    sync::atomic::{AtomicI32, Ordering},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::error::{Doing, Error, Kind, Result};

/// The signal that [`watch`] heard; 0: none.
static HEARD: AtomicI32 = AtomicI32::new(0);

/// Listens for SIGINT and SIGTERM from now on, on a thread of its own, for work that does not wait in a runtime: it asks
/// [`refuse_heard`] as it goes. A second signal ends the process with 128 + its number.
///
/// # Errors
/// The handlers cannot be installed.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "listening for signals")?;
    let interrupt = runtime.block_on(async { listen() })?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                HEARD.store(interrupt.wait().await, Ordering::Relaxed);
                // The listening task goes on, for the second one.
                std::future::pending::<()>().await;
            });
        })
        .map(drop)
        .doing(|| "listening for signals")
}

/// The error for a run that a signal ends, where one came since [`watch`].
///
/// # Errors
/// [`Kind::Interrupted`].
pub fn refuse_heard() -> Result<()> {
    match HEARD.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => Err(Interrupt::error(number)),
    }
}

/// A reader that ends with an error where a signal came since [`watch`].
#[derive(Debug)]
pub struct Heard<R>(pub R);

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        refuse_heard().map_err(io::Error::other)?;
        self.0.read(buffer)
    }
}

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
