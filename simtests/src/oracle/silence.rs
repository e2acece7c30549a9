//! O12: who is said to be up was heard within a lease, and heard the answers: a server that is silent is not up, and
//! neither is one that speaks and hears nothing, because it serves nobody.
//!
//! Fed with the hellos and heartbeats that reach the meta server, at its own clock's times.
use super::Violation;
use kfs_core::ids::{NodeId, Term};
use kfs_core::time::Instant;
use kfs_core::wire::chunk_meta::Heartbeat;
use kfs_core::wire::client_meta::{ServerState, ServerStatus};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one process of the meta server heard of whom.
#[derive(Clone, Default, Debug)]
pub struct Hearing {
    servers: BTreeMap<NodeId, Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Since it was last welcome.
    term: Term,
    /// Last of anything.
    at: Instant,
    /// The last answer that arrived there, and when that was heard.
    answered: u64,
    answered_at: Instant,
}

impl Heard {
    fn silent_at(&self, lease: Duration) -> Instant {
        self.at.min(self.answered_at) + lease
    }
}

impl Hearing {
    /// A server is welcome.
    pub fn welcomed(&mut self, node: NodeId, term: Term, now: Instant) {
        let heard = Heard {
            term,
            at: now,
            answered: 0,
            answered_at: now,
        };
        self.servers.insert(node, heard);
    }

    /// A heartbeat of a server came.
    pub fn beats(&mut self, node: NodeId, beat: &Heartbeat, now: Instant) {
        if let Some(heard) = self.servers.get_mut(&node)
            && heard.term == beat.term
        {
            heard.at = now;
            // With the first one there is nothing that could have been answered.
            if beat.answered > heard.answered || beat.number <= 1 {
                (heard.answered, heard.answered_at) = (beat.answered, now);
            }
        }
    }

    /// Checks what is said of the servers that were silent for a lease. It is asked for if there are any.
    ///
    /// # Errors
    /// If one of them is said to be up.
    pub fn check(
        &mut self,
        now: Instant,
        lease: Duration,
        said: impl FnOnce() -> Vec<ServerStatus>,
    ) -> Result<(), Violation> {
        let silent = |heard: &Heard| heard.silent_at(lease) <= now;
        if !self.servers.values().any(silent) {
            return Ok(());
        }
        for server in said() {
            let heard = self.servers.get(&server.node);
            if let Some(heard) = heard.filter(|heard| silent(heard))
                && server.state == ServerState::Up
            {
                let what = format!(
                    "at {now:?} node {} is said to be up; it was heard at {:?}, and last heard an answer by {:?}",
                    server.node, heard.at, heard.answered_at
                );
                return Err(Violation::new("O12", "F", what));
            }
        }
        // They are not up before they say hello again.
        self.servers.retain(|_, heard| !silent(heard));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::Epoch;
    use kfs_core::wire::client_meta::ServerStatus;

    const LEASE: Duration = Duration::from_secs(5);
    const NODE: NodeId = NodeId(7);
    const TERM: Term = Term {
        epoch: Epoch(1),
        number: 1,
    };

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }
    fn beat(number: u64, answered: u64) -> Heartbeat {
        Heartbeat {
            term: TERM,
            number,
            answered,
            bytes_free: 0,
            bytes_total: 0,
            chunks_writing: 0,
        }
    }
    fn says(state: ServerState) -> impl FnOnce() -> Vec<ServerStatus> {
        let server = ServerStatus {
            node: NODE,
            addr: None,
            rack: String::new(),
            state,
            chunks: 0,
            bytes_free: 0,
            bytes_total: 0,
            silent: None,
            drain: None,
        };
        move || vec![server]
    }
    fn welcomed() -> Hearing {
        let mut hearing = Hearing::default();
        hearing.welcomed(NODE, TERM, at(0));
        hearing
    }

    #[test]
    fn a_silent_server_that_is_said_to_be_up_is_seen() {
        let mut hearing = welcomed();
        hearing.check(at(4), LEASE, says(ServerState::Up)).unwrap();
        let seen = hearing.check(at(5), LEASE, says(ServerState::Up));
        assert_eq!(seen.unwrap_err().oracle, "O12");
        hearing
            .check(at(5), LEASE, says(ServerState::Down))
            .unwrap();
        hearing
            .check(at(6), LEASE, || panic!("it is forgotten"))
            .unwrap();
    }

    #[test]
    fn a_server_that_speaks_and_hears_nothing_is_as_good_as_silent() {
        let mut hearing = welcomed();
        for second in 1..5 {
            hearing.beats(NODE, &beat(second, second - 1), at(second));
        }
        hearing.check(at(8), LEASE, says(ServerState::Up)).unwrap();
        for second in 5..9 {
            hearing.beats(NODE, &beat(second, 3), at(second));
        }
        hearing.check(at(8), LEASE, says(ServerState::Up)).unwrap();
        assert!(hearing.check(at(9), LEASE, says(ServerState::Up)).is_err());
    }
}
