//! The health of a cluster in one word, and the reasons for it, each with a code: the same for the command,
//! the pages and whoever reads the library's status.
use crate::wire::client_meta::{ClusterStatus, DrainStatus, ServerState, ServerStatus};
use core::fmt::Write as _;
use serde::Serialize;

/// A server with less room than one part in so many is worth a word: a disk this full has been filling for
/// a while.
const NEARLY_FULL_PART: u64 = 20;

/// The health in one word, better ones first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Health {
    /// All is well.
    #[serde(rename = "HEALTH_OK")]
    Ok,
    /// Everything works, and something is to be looked at.
    #[serde(rename = "HEALTH_WARN")]
    Warn,
    /// Something does not work.
    #[serde(rename = "HEALTH_ERR")]
    Err,
}

impl Health {
    /// What these reasons make of it.
    #[must_use]
    pub fn of(reasons: &[Reason]) -> Self {
        let worst = reasons.iter().map(|reason| reason.level).max();
        worst.unwrap_or(Self::Ok)
    }
    /// As people and programs read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "HEALTH_OK",
            Self::Warn => "HEALTH_WARN",
            Self::Err => "HEALTH_ERR",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// How bad.
    pub level: Health,
    /// Stays the same from release to release.
    pub code: &'static str,
    /// What, where: one line.
    pub text: String,
}

impl Reason {
    /// Something that does not work.
    #[must_use]
    pub fn err(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Health::Err,
            code,
            text: text.into(),
        }
    }
    /// Something to look at.
    #[must_use]
    pub fn warn(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Health::Warn,
            code,
            text: text.into(),
        }
    }
}

/// What is wrong with a cluster, the worst first; nothing: all is well.
#[must_use]
pub fn reasons(status: &ClusterStatus) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let up = |server: &&ServerStatus| server.state == ServerState::Up;
    let servers_up = status.servers.iter().filter(up).count();
    if status.chunks_unavailable > 0 {
        let text = format!(
            "{} chunks are on no live server: their files cannot be read whole",
            status.chunks_unavailable
        );
        reasons.push(Reason::err("CHUNKS_UNAVAILABLE", text));
    }
    if let Some(why) = &status.read_only {
        let text = format!("changes are refused: {why}");
        let code = if status.tail_lost {
            "LOG_TAIL_LOST"
        } else {
            "READ_ONLY"
        };
        reasons.push(Reason::err(code, text));
    }
    if let Some(why) = &status.changes_wait {
        reasons.push(Reason::warn("CHANGES_WAIT", why.clone()));
    }
    if let Some(why) = &status.checkpoint.failed {
        let text = format!("the last checkpoint could not be made: {why}");
        reasons.push(Reason::warn("CHECKPOINT_FAILED", text));
    }
    let repaired = status.log_mirror.iter().flat_map(|mirror| &mirror.repaired);
    for what in repaired {
        let text = format!("damage was repaired at the start from the other copy: {what}");
        reasons.push(Reason::warn("LOG_REPAIRED", text));
    }
    if servers_up < usize::from(status.min_replicas) {
        let text = format!(
            "{servers_up} chunkservers are up, a new chunk needs {}",
            status.min_replicas
        );
        reasons.push(Reason::warn("FEW_SERVERS", text));
    }
    let absent: Vec<String> = status
        .servers
        .iter()
        .filter(|server| !up(server) && server.drain != Some(DrainStatus::Drained))
        .map(absence)
        .collect();
    if !absent.is_empty() {
        let (count, all) = (absent.len(), status.servers.len());
        let text = format!("{count} of {all}: {}", absent.join(", "));
        reasons.push(Reason::warn("SERVERS_DOWN", text));
    }
    let stays = |server: &&ServerStatus| up(server) && server.drain.is_none();
    let others = status.servers.iter().filter(stays).count();
    for server in &status.servers {
        let stuck = server.drain.map_or(0, |drain| drain.left().stuck);
        if stuck > 0 {
            let text = format!(
                "{} is being drained, and {stuck} of its chunks can go nowhere: of the {others} others that are up each has them already, or has no room",
                server.address()
            );
            reasons.push(Reason::warn("DRAIN_STUCK", text));
        }
    }
    let full: Vec<String> = status
        .servers
        .iter()
        .filter(up)
        .filter(|server| server.bytes_free < server.bytes_total / NEARLY_FULL_PART)
        .map(|server| {
            format!(
                "{} has {} MiB left",
                server.address(),
                server.bytes_free >> 20
            )
        })
        .collect();
    if !full.is_empty() {
        reasons.push(Reason::warn("SERVERS_FULL", full.join(", ")));
    }
    for (count, code, what) in [
        (
            status.chunks_under_replicated,
            "UNDER_REPLICATED",
            "chunks have fewer replicas than their files ask for",
        ),
        (
            status.replicas_damaged,
            "REPLICAS_DAMAGED",
            "replicas were reported damaged",
        ),
        (
            status.chunks_unknown,
            "CHUNKS_UNKNOWN",
            "chunks on servers are in no log of this cluster; they are left alone",
        ),
    ] {
        if count > 0 {
            reasons.push(Reason::warn(code, format!("{count} {what}")));
        }
    }
    reasons
}

/// `127.0.0.1:22000 (down for 7 s)`.
fn absence(server: &ServerStatus) -> String {
    let mut text = format!("{} ({}", server.address(), server.state.word());
    if let Some(silent) = server.silent {
        let _ = write!(text, " for {} s", silent.as_secs());
    }
    text.push(')');
    text
}
