//! `kfs admin`: what only an operator may decide.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::tree::Effect;
use kfs_core::wire::Status;
use serde::Serialize;

#[derive(Serialize, Debug)]
struct Shape {
    did: &'static str,
    was: String,
}

/// Accepts that the log has lost its end.
pub(crate) async fn accept_rollback(
    reach: &Reach,
    screen: &Screen,
    effect: Effect,
) -> Result<Exit, Failure> {
    let status = reach.kfs.status().await?;
    let was = status.read_only;
    if effect == Effect::Said {
        if !status.tail_lost {
            let what = "no part of the log is known to be missing: there is nothing to accept";
            return Err(Failure::new(Status::BadRequest, what));
        }
        let was = was.unwrap_or_default();
        screen.line(format!("would accept: {was}"))?;
        screen.json(&Shape {
            did: "would accept",
            was,
        })?;
        return Ok(Exit::Done);
    }
    reach.kfs.accept_rollback().await?;
    screen.json(&Shape {
        did: "accepted",
        was: was.unwrap_or_default(),
    })?;
    screen.line("accepted: what was acknowledged in the part of the log that is missing is given up, and changes are taken again")?;
    Ok(Exit::Done)
}
