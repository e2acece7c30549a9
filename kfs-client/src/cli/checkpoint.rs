//! `kfs checkpoint`.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use serde::Serialize;

#[derive(Serialize, Debug)]
struct Shape {
    checkpoint: u64,
    state_hash: Option<String>,
    made: bool,
}

/// Asks for one and says which it is.
pub(crate) async fn checkpoint(reach: &Reach, screen: &Screen) -> Result<Exit, Failure> {
    let made = reach.kfs.checkpoint().await?;
    let hash = made.hash.map(|hash| format!("{hash:016x}"));
    let line = match &hash {
        Some(hash) => format!("checkpoint {} made, state hash {hash}", made.seq),
        None => format!("checkpoint {} has everything already", made.seq),
    };
    screen.json(&Shape {
        checkpoint: made.seq.0,
        made: hash.is_some(),
        state_hash: hash,
    })?;
    screen.line(line)?;
    Ok(Exit::Done)
}
