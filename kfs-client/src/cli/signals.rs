//! SIGINT and SIGTERM: the first one stops cleanly, the second one at once.
use super::failure::{Exit, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that ask to stop.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they are ours to answer.
    pub(crate) fn new() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::local("cannot listen for signals", &error))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for either.
    pub(crate) async fn raised(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Cleaning up may take a while, and who asks again does not want to wait for it.
    pub(crate) fn exit_on_the_next(mut self) {
        tokio::spawn(async move {
            self.raised().await;
            std::process::exit(i32::from(Exit::Failed as u8));
        });
    }
}
