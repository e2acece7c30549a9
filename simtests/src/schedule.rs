//! A run, spelled out before it begins: the cluster, what its clients do, and what goes wrong when.
//!
//! A seed draws one ([`crate::scenario`]); a file holds one; a failing one is made smaller by leaving parts out
//! ([`crate::shrink`]). What is not in it (latencies, back-off, ids) is a function of its seed and of whom it
//! concerns, so that the rest stays as it was when a part is left out.
use crate::fault::{Fault, Planned, ServerNumber};
use crate::workload::job::Job;
use kfs_core::limits::{Geometry, Limits, Timing};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A chunk is written to by so many servers at least, or by as many as are wanted.
pub const MIN_REPLICAS: u8 = 2;

/// Everything about a run that is decided before it begins.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Schedule {
    /// Of all that is not said here; also the salt of all bytes.
    pub seed: u64,
    /// What may be asked of the run.
    pub class: Class,
    /// Servers, the meta server included.
    pub servers: usize,
    /// Replicas of a file.
    pub replication: u8,
    /// The sizes files are cut into.
    pub geometry: Geometry,
    /// Of all machines.
    pub limits: Limits,
    /// Of all machines.
    pub timing: Timing,
    /// Of one packet, in microseconds: from, to.
    pub latency_us: (u64, u64),
    /// Packets lost, in thousandths.
    pub loss_permille: u64,
    /// Of every disk.
    pub speed: Speed,
    /// How often rare paths are taken on purpose, in thousandths.
    pub buggify_permille: u64,
    /// How often the meta server makes a checkpoint, in milliseconds; 0: never.
    #[serde(default)]
    pub checkpoint_ms: u64,
    /// Whether the meta server keeps a second copy of its log.
    #[serde(default)]
    pub log_mirror: bool,
    /// Bytes a second that chunkservers read by themselves; 0: none.
    #[serde(default)]
    pub scrub_rate: u64,
    /// Whether the run goes on until all chunks are sealed: what their members hold is judged then.
    #[serde(default)]
    pub rests: bool,
    /// What clients do.
    pub clients: Vec<ClientPlan>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
}

/// What may be asked of a run.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Class {
    /// Faults leave one good copy of all that was acked: nothing is lost, and all is well after healing.
    Live,
    /// Anything may fail: never a wrong byte, and what is lost is said.
    Safe,
    /// Nothing fails: nothing is tried twice.
    Clean,
}

/// What one client process does: its actors work beside one another. If the process dies, the next one goes on
/// with the jobs that were not begun.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct ClientPlan {
    /// The jobs of each, in order.
    pub actors: Vec<Vec<Job>>,
}

/// How fast a disk is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Speed {
    /// Of a read, at most, in microseconds.
    pub read_us: u64,
    /// Of a write to the page cache or a change of a name, at most, in microseconds.
    pub write_us: u64,
    /// Of a sync, at most, in microseconds.
    pub sync_us: u64,
}

impl Speed {
    /// So many times slower.
    #[must_use]
    pub fn times(self, slower: u64) -> Self {
        Self {
            read_us: self.read_us * slower,
            write_us: self.write_us * slower,
            sync_us: self.sync_us * slower,
        }
    }
}

/// Bytes a second that copies may take, in the simulated cluster.
pub const COPY_RATE: u64 = 64 << 20;

impl Schedule {
    /// How long a server that is silent may merely be restarting.
    #[must_use]
    pub fn re_replicate_after(&self) -> Duration {
        self.timing.serve_lease * 2
    }
    /// See [`Schedule::checkpoint_ms`].
    #[must_use]
    pub fn checkpoint_every(&self) -> Option<Duration> {
        (self.checkpoint_ms > 0).then(|| Duration::from_millis(self.checkpoint_ms))
    }

    /// The servers of whose disk this fault takes what is asked for afterwards. A log that lies on two disks is
    /// whole when one of the copies is not.
    #[must_use]
    pub fn hurts(&self, fault: &Fault) -> Vec<ServerNumber> {
        if self.spares(fault) {
            Vec::new()
        } else {
            fault.hurts()
        }
    }
    /// The servers whose process may find, by this fault, that it cannot go on.
    #[must_use]
    pub fn ails(&self, fault: &Fault) -> Vec<ServerNumber> {
        if self.spares(fault) {
            Vec::new()
        } else {
            fault.ails()
        }
    }
    fn spares(&self, fault: &Fault) -> bool {
        let copies = ["log/", "mirror/"];
        matches!(fault, Fault::Spoil(0, spot, _)
            if self.log_mirror && copies.iter().any(|copy| spot.under.starts_with(copy)))
    }

    /// How many jobs there are.
    #[must_use]
    pub fn jobs(&self) -> usize {
        let actors = self.clients.iter().flat_map(|client| &client.actors);
        actors.map(Vec::len).sum()
    }
    /// Whether everything it names is there, so that it can be run.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=200).contains(&self.servers) {
            return Err(format!("{} servers; 2 to 200 can be run", self.servers));
        }
        if self.clients.is_empty() || self.clients.len() > 40 {
            return Err(format!(
                "{} clients; 1 to 40 can be run",
                self.clients.len()
            ));
        }
        if self.latency_us.0 > self.latency_us.1 {
            return Err("the least latency is above the greatest".into());
        }
        if self.replication == 0 {
            return Err("a file has at least one replica".into());
        }
        for planned in &self.faults {
            planned.check(self.servers, self.clients.len())?;
        }
        Ok(())
    }

    /// Leaves out clients that do nothing, from the last one on.
    pub fn drop_idle_clients(&mut self) {
        let idle = |client: &ClientPlan| client.actors.iter().all(Vec::is_empty);
        while self.clients.len() > 1 && self.clients.last().is_some_and(idle) {
            self.clients.pop();
            let gone = self.clients.len();
            self.faults
                .retain_mut(|planned| planned.without_client(gone));
        }
    }

    /// The fewest replicas that any file is made to ask for after it was made; as many as can be, if none is.
    #[must_use]
    pub fn fewest_replicas(&self) -> u8 {
        let jobs = self
            .clients
            .iter()
            .flat_map(|client| &client.actors)
            .flatten();
        let set = jobs.filter_map(|job| match job {
            Job::SetReplication { replication, .. } => Some(*replication),
            _ => None,
        });
        set.min().unwrap_or(u8::MAX)
    }

    /// Actors of one client process, at most: what makes their numbers differ.
    #[must_use]
    pub fn actors_max(&self) -> u32 {
        let most = self.clients.iter().map(|client| client.actors.len()).max();
        u32::try_from(most.unwrap_or(0).max(1)).expect("a run has few actors")
    }
}
