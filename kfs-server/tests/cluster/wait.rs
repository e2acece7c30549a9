//! Polling of conditions, with a deadline.
use std::time::{Duration, Instant};

/// How long anything may take; machines under load are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Polls `condition` until it gives something; panics after [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(POLL_EVERY);
    }
}

/// As [`until`], for a condition that is asked of a server.
pub(crate) async fn until_async<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(POLL_EVERY).await;
    }
}
