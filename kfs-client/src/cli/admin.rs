//! `kfs admin`: what only an operator may decide.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use serde::Serialize;

#[derive(Serialize, Debug)]
struct Shape {
    did: &'static str,
    was: String,
}

/// Accepts that the log has lost its end.
pub(crate) async fn accept_rollback(reach: &Reach, screen: &Screen) -> Result<Exit, Failure> {
    let was = reach.kfs.status().await?.read_only;
    reach.kfs.accept_rollback().await?;
    screen.json(&Shape {
        did: "accepted",
        was: was.unwrap_or_default(),
    })?;
    screen.line("accepted: what was acknowledged in the part of the log that is missing is given up, and changes are taken again")?;
    Ok(Exit::Done)
}
