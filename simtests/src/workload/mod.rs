//! What clients do: files whose bytes describe themselves, and churn of names.
pub mod bytes;
#[cfg(madsim)]
pub mod client;
pub mod job;
