//! Logs to stderr, as text or as JSON lines.
use crate::error::{Code, StartError};
use std::io::{self, IsTerminal as _};
use tracing_subscriber::EnvFilter;

/// What is logged unless told otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs what passes `filter` (`info`, `warn`, `kfs_core::meta=debug`, …) from now on.
///
/// # Errors
/// If the filter is none.
pub fn init(filter: &str, format: Format) -> Result<(), StartError> {
    let filter = EnvFilter::builder().parse(filter).map_err(|err| {
        StartError::new(Code::BadConfig, format!("'{filter}' is not a log filter (--log): {err}"))
            .help("give a level (error, warn, info, debug, trace), or pairs such as kfs_core::meta=debug,info")
    })?;
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // A subscriber that is there already is the embedding program's choice.
    let _ = match format {
        Format::Text => base.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => base.json().try_init(),
    };
    Ok(())
}
