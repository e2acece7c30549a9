//! The meta server as a process part: its machine on a thread, and its status in words and numbers.
use crate::admin::{Family, Kind, Report, Series, StartupWork, Unit};
use crate::config::MetaConfig;
use crate::error::StartError;
use crate::running::{self, Phase, Running, Server, Site};
use kfs_core::health::{self, Reason};
use kfs_core::limits::Geometry;
use kfs_core::meta::{Call, Config, Event, Meta};
use kfs_core::wire::Role;
use kfs_core::wire::client_meta::{
    CheckpointAge, ClusterStatus, DrainStatus, ServerState, ServerStatus,
};
use serde_json::{Value, json};

/// Starts meta servers.
#[derive(Debug)]
pub struct MetaServer;

impl MetaServer {
    /// Starts one: when this returns, its data directory is locked and its addresses are bound; it serves
    /// after [`Running::ready`].
    ///
    /// # Errors
    /// If the directory is in use or cannot be opened, or an address cannot be listened on.
    pub fn start(config: MetaConfig) -> Result<Running<ClusterStatus>, StartError> {
        let site = Site {
            data: config.data.clone(),
            mirror: config.log_mirror.clone(),
            listen: config.listen,
            http: config.http,
            record: config.record,
        };
        running::start::<Meta>(site, move |seed, _listen| Config {
            seed,
            geometry: Geometry::REAL,
            limits: config.limits,
            timing: config.timing,
            replication: config.replication,
            min_replicas: config.min_replicas,
            cluster: config.cluster,
            checkpoint_every: config.checkpoint_every,
            re_replicate_after: config.re_replicate_after,
            copy_rate: config.copy_rate,
            mirror: config.log_mirror.is_some(),
        })
    }
}

impl Server for Meta {
    type Status = ClusterStatus;
    const ROLE: Role = Role::Meta;
    const STARTUP: StartupWork = StartupWork::Load;
    fn ask() -> Call {
        Call::Status
    }
    fn stop() -> Call {
        Call::Stop
    }
    fn status(event: Event) -> Option<ClusterStatus> {
        match event {
            Event::Status(status) => status.map(|status| *status),
            Event::Ready { .. } | Event::Stopped | Event::Compacted(_) => None,
        }
    }
    fn phase(event: Event) -> Option<Phase> {
        match event {
            Event::Ready {
                cluster,
                epoch,
                seq,
            } => {
                tracing::info!(%cluster, %epoch, log_seq = %seq, "the meta server serves");
                Some(Phase::Ready {
                    cluster,
                    node: None,
                })
            }
            Event::Status(_) | Event::Stopped | Event::Compacted(_) => None,
        }
    }
}

impl Report for ClusterStatus {
    const KEY: &'static str = "cluster";

    fn json(&self) -> Value {
        json!({
            "cluster": self.cluster.to_string(),
            "epoch": self.epoch.0,
            "build": self.build,
            "log_seq": self.log_seq.0,
            "log_durable": self.log_durable.0,
            "files": self.files,
            "directories": self.directories,
            "chunks": self.chunks,
            "bytes": self.bytes,
            "chunks_under_replicated": self.chunks_under_replicated,
            "chunks_unavailable": self.chunks_unavailable,
            "replicas_damaged": self.replicas_damaged,
            "chunks_unknown": self.chunks_unknown,
            "sessions": self.sessions,
            "removed_files": self.reclaim.files,
            "removed_directories": self.reclaim.directories,
            "removed_entries": self.reclaim.entries,
            "reclaimed": self.reclaim.done,
            "copies_waiting": self.replication_work.waiting,
            "copies_running": self.replication_work.copying,
            "copies_made": self.replication_work.copied,
            "copies_made_bytes": self.replication_work.copied_bytes,
            "copies_failed": self.replication_work.failed,
            "replicas_trimmed": self.replication_work.trimmed,
            "replication": self.replication,
            "min_replicas": self.min_replicas,
            "read_only": self.read_only,
            "changes_wait": self.changes_wait,
            "tail_lost": self.tail_lost,
            "checkpoint": self.checkpoint.newest.map(|seq| seq.0),
            "checkpoint_age_s": self.checkpoint.age.map(|age| age.at_least().as_secs_f64()),
            "checkpoint_before_start": self.checkpoint.age.map(|age| matches!(age, CheckpointAge::Over(_))),
            "checkpoint_failed": self.checkpoint.failed,
            "log_mirror": self.log_mirror.is_some(),
            "log_repaired": self.log_mirror.as_ref().map(|mirror| &mirror.repaired),
            "log_caught_up": self.log_mirror.as_ref().map(|mirror| mirror.caught_up),
            "bytes_free": self.servers.iter().filter(|s| is_up(s)).map(|s| s.bytes_free).sum::<u64>(),
            "bytes_total": self.servers.iter().filter(|s| is_up(s)).map(|s| s.bytes_total).sum::<u64>(),
            "servers_up": self.servers.iter().filter(|s| is_up(s)).count(),
            "servers": self.servers.iter().map(server_json).collect::<Vec<_>>(),
        })
    }

    fn health(&self) -> Vec<Reason> {
        health::reasons(self)
    }

    fn series(&self) -> Vec<Series> {
        vec![Series {
            label: "Log records",
            unit: Unit::Count,
            value: self.log_seq.0,
        }]
    }

    fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = [
            (
                "log_seq",
                "Newest record of the operation log, applied",
                self.log_seq.0,
            ),
            (
                "log_durable_seq",
                "Newest record of the operation log, durable",
                self.log_durable.0,
            ),
            ("epoch", "Epoch of this start", u64::from(self.epoch.0)),
            (
                "files",
                "Files, removed ones that are not reclaimed among them",
                self.files,
            ),
            (
                "directories",
                "Directories in the namespace",
                self.directories,
            ),
            ("chunks", "Chunks that files own", self.chunks),
            (
                "file_bytes",
                "Bytes of all files, as their sizes say",
                self.bytes,
            ),
            (
                "chunks_under_replicated",
                "Chunks with too few confirmed replicas",
                self.chunks_under_replicated,
            ),
            (
                "chunks_unavailable",
                "Chunks that no live server has confirmed",
                self.chunks_unavailable,
            ),
            (
                "replicas_damaged",
                "Replicas reported damaged",
                self.replicas_damaged,
            ),
            (
                "chunks_unknown",
                "Chunks on servers that no log of this cluster knows",
                self.chunks_unknown,
            ),
            ("sessions", "Sessions alive", self.sessions),
            (
                "removed_files",
                "Removed files that somebody has open, or that wait to be reclaimed",
                self.reclaim.files,
            ),
            (
                "removed_directories",
                "Directories of removed trees, as far as they were looked into",
                self.reclaim.directories,
            ),
            (
                "removed_entries",
                "Names in directories of removed trees, as far as they were looked into",
                self.reclaim.entries,
            ),
            (
                "copies_waiting",
                "Chunks that were found to lack replicas, or to have too many, and wait",
                self.replication_work.waiting,
            ),
            (
                "copies_running",
                "Copies of chunks that are being made",
                self.replication_work.copying,
            ),
            (
                "copies_made",
                "Copies made since the start",
                self.replication_work.copied,
            ),
            (
                "copies_made_bytes",
                "Bytes of the copies made since the start",
                self.replication_work.copied_bytes,
            ),
            (
                "copies_failed",
                "Copies that could not be made, since the start",
                self.replication_work.failed,
            ),
            (
                "replicas_trimmed",
                "Replicas that went because there were enough, since the start",
                self.replication_work.trimmed,
            ),
            (
                "reclaimed",
                "Removed files and directories that were reclaimed since the start",
                self.reclaim.done,
            ),
            (
                "read_only",
                "1 while changes are refused",
                u64::from(self.read_only.is_some()),
            ),
        ]
        .into_iter()
        .map(|(name, about, value)| Family::single(name, about, Kind::Gauge, value))
        .collect();
        families.extend(self.checkpoint.age.map(|age| {
            Family::single(
                "checkpoint_age_seconds",
                "Seconds since what is in the newest checkpoint was the state; of one of before this start, since that",
                Kind::Gauge,
                age.at_least().as_secs(),
            )
        }));
        let mut states = Family::new("servers", "Chunkservers by state", Kind::Gauge);
        for state in [ServerState::Up, ServerState::Joining, ServerState::Down] {
            let count = self
                .servers
                .iter()
                .filter(|server| server.state == state)
                .count();
            states.push(&[("state", state.word())], count as u64);
        }
        families.push(states);
        let per_server = |name, about, value: fn(&ServerStatus) -> u64| {
            let mut family = Family::new(name, about, Kind::Gauge);
            for server in &self.servers {
                family.push(
                    &[("node", &server.node.to_string()), ("rack", &server.rack)],
                    value(server),
                );
            }
            family
        };
        families.extend([
            per_server("server_up", "1 if the chunkserver is up", |server| {
                u64::from(is_up(server))
            }),
            per_server(
                "server_chunks",
                "Confirmed replicas on the chunkserver",
                |server| server.chunks,
            ),
            per_server(
                "server_free_bytes",
                "Bytes that may still be written there",
                |server| server.bytes_free,
            ),
            per_server("server_total_bytes", "Bytes of its file system", |server| {
                server.bytes_total
            }),
            per_server(
                "server_draining",
                "1 if the chunkserver is being drained, or was",
                |server| u64::from(server.drain.is_some()),
            ),
            per_server(
                "server_drained",
                "1 if the chunkserver was drained, and may be stopped",
                |server| u64::from(server.drain == Some(DrainStatus::Drained)),
            ),
            per_server(
                "server_drain_chunks_left",
                "Chunks that a chunkserver which is being drained is a member of yet",
                |server| server.drain.map_or(0, |drain| drain.left().chunks),
            ),
        ]);
        families
    }
}

fn is_up(server: &ServerStatus) -> bool {
    server.state == ServerState::Up
}

fn drain_json(drain: DrainStatus) -> Value {
    let left = drain.left();
    json!({
        "state": drain.word(),
        "chunks_left": left.chunks,
        "bytes_left": left.bytes,
        "chunks_written": left.written,
        "chunks_stuck": left.stuck,
    })
}

fn server_json(server: &ServerStatus) -> Value {
    json!({
        "node": server.node.to_string(),
        "addr": server.addr.map(|addr| addr.to_string()),
        "rack": server.rack,
        "state": server.state.word(),
        "chunks": server.chunks,
        "bytes_free": server.bytes_free,
        "bytes_total": server.bytes_total,
        "drain": server.drain.map(drain_json),
        "silent_s": server.silent.map(|silent| silent.as_secs_f64()),
    })
}
