//! The chunkserver as a process part: its machine on a thread, and its status in words and numbers.
use crate::admin::{Family, Kind, Report, Series, StartupWork, Unit};
use crate::config::ChunkConfig;
use crate::error::StartError;
use crate::running::{self, Phase, Running, Server, Site};
use kfs_core::chunk::{Call, Chunk, ChunkStatus, Config, Event};
use kfs_core::health::Reason;
use kfs_core::limits::Geometry;
use kfs_core::wire::Role;
use serde_json::{Value, json};

/// Starts chunkservers.
#[derive(Debug)]
pub struct ChunkServer;

impl ChunkServer {
    /// Starts one: when this returns, its data directory is locked and its addresses are bound; it serves
    /// after [`Running::ready`], which waits for the meta server.
    ///
    /// # Errors
    /// If the directory is in use or cannot be opened, or an address cannot be listened on.
    pub fn start(config: ChunkConfig) -> Result<Running<ChunkStatus>, StartError> {
        let site = Site {
            mirror: None,
            data: config.data.clone(),
            listen: config.listen,
            http: config.http,
            record: config.record,
        };
        running::start::<Chunk>(site, move |seed, listen| Config {
            seed,
            geometry: Geometry::REAL,
            limits: config.limits,
            meta: config.meta,
            listen,
            rack: config.rack,
            scrub_rate: config.scrub_rate,
        })
    }
}

impl Server for Chunk {
    type Status = ChunkStatus;
    const ROLE: Role = Role::Chunk;
    const STARTUP: StartupWork = StartupWork::Look("chunks");
    fn ask() -> Call {
        Call::Status
    }
    fn stop() -> Call {
        Call::Stop
    }
    fn status(event: Event) -> Option<ChunkStatus> {
        match event {
            Event::Status(status) => Some(*status),
            Event::Ready { .. } | Event::Waiting { .. } | Event::Stopped => None,
        }
    }
    fn phase(event: Event) -> Option<Phase> {
        match event {
            Event::Ready { node, cluster } => {
                tracing::info!(%node, %cluster, "the chunkserver serves");
                Some(Phase::Ready {
                    cluster,
                    node: Some(node),
                })
            }
            Event::Waiting { why } => {
                tracing::warn!("{why}");
                Some(Phase::Waiting { why })
            }
            Event::Status(_) | Event::Stopped => None,
        }
    }
}

impl Report for ChunkStatus {
    const KEY: &'static str = "server";

    fn json(&self) -> Value {
        json!({
            "node": self.node.to_string(),
            "cluster": self.cluster.to_string(),
            "serving": self.serving,
            "chunks": self.chunks,
            "chunks_writing": self.chunks_writing,
            "chunks_damaged": self.chunks_damaged,
            "chunks_trash": self.chunks_trash,
            "bytes_free": self.bytes_free,
            "bytes_total": self.bytes_total,
            "pieces_written": self.pieces_written,
            "bytes_written": self.bytes_written,
            "syncs": self.syncs,
            "reads": self.reads,
            "bytes_read": self.bytes_read,
            "blocks_bad": self.blocks_bad,
            "pieces_bad": self.pieces_bad,
            "chunks_copied": self.chunks_copied,
            "bytes_copied": self.bytes_copied,
            "ranges_bad": self.ranges_bad,
            "piece_buffer_bytes": self.piece_buffer_bytes,
            "scrub_bytes": self.scrub.bytes,
            "scrub_chunks": self.scrub.chunks,
            "scrub_bad": self.scrub.bad,
            "scrub_rounds": self.scrub.rounds,
            "scrub_round_age_s": self.scrub.began_ms_ago.map(seconds),
            "scrub_whole_age_s": self.scrub.ended_ms_ago.map(seconds),
        })
    }

    fn health(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !self.serving {
            reasons.push(Reason::warn(
                "NOT_SERVING",
                "the meta server does not answer, or has not accepted the inventory",
            ));
        }
        for (count, code, what) in [
            (
                self.chunks_damaged,
                "CHUNKS_DAMAGED",
                "replicas serve nothing: damaged, unknown, or with an unreadable header",
            ),
            (
                self.blocks_bad,
                "BLOCKS_BAD",
                "blocks did not match their sums when read",
            ),
            (
                self.pieces_bad,
                "PIECES_BAD",
                "pieces did not match their sums when received",
            ),
            (
                self.ranges_bad,
                "RANGES_BAD",
                "ranges of copies did not match their sums when received",
            ),
        ] {
            if count > 0 {
                reasons.push(Reason::warn(code, format!("{count} {what}")));
            }
        }
        reasons
    }

    fn series(&self) -> Vec<Series> {
        vec![
            Series {
                label: "Written",
                unit: Unit::Bytes,
                value: self.bytes_written,
            },
            Series {
                label: "Read",
                unit: Unit::Bytes,
                value: self.bytes_read,
            },
        ]
    }

    fn read_only(&self) -> Option<&str> {
        None
    }

    fn families(&self) -> Vec<Family> {
        let ages = [
            (
                "scrub_round_age_seconds",
                "Seconds since the newest round through all replicas began",
                self.scrub.began_ms_ago,
            ),
            (
                "scrub_whole_age_seconds",
                "Seconds since a round through all replicas was ended",
                self.scrub.ended_ms_ago,
            ),
        ];
        let ages = ages.into_iter().filter_map(|(name, about, ms)| {
            Some(Family::single(name, about, Kind::Gauge, ms? / 1_000))
        });
        [
            (
                "serving",
                "1 while the meta server answers and has accepted the inventory",
                Kind::Gauge,
                u64::from(self.serving),
            ),
            ("chunks", "Replicas served", Kind::Gauge, self.chunks),
            (
                "chunks_writing",
                "Replicas being written",
                Kind::Gauge,
                self.chunks_writing,
            ),
            (
                "chunks_damaged",
                "Replicas that serve nothing",
                Kind::Gauge,
                self.chunks_damaged,
            ),
            (
                "chunks_trash",
                "Replicas in trash",
                Kind::Gauge,
                self.chunks_trash,
            ),
            (
                "free_bytes",
                "Bytes that may still be written",
                Kind::Gauge,
                self.bytes_free,
            ),
            (
                "total_bytes",
                "Bytes of the file system",
                Kind::Gauge,
                self.bytes_total,
            ),
            (
                "piece_buffer_bytes",
                "Bytes of pieces in memory",
                Kind::Gauge,
                self.piece_buffer_bytes,
            ),
            (
                "pieces_written",
                "Pieces written",
                Kind::Counter,
                self.pieces_written,
            ),
            (
                "written_bytes",
                "Bytes of pieces written",
                Kind::Counter,
                self.bytes_written,
            ),
            ("syncs", "Syncs of chunks", Kind::Counter, self.syncs),
            (
                "reads",
                "Reads answered with bytes",
                Kind::Counter,
                self.reads,
            ),
            (
                "read_bytes",
                "Bytes of these reads",
                Kind::Counter,
                self.bytes_read,
            ),
            (
                "blocks_bad",
                "Blocks that did not match their sums when read",
                Kind::Counter,
                self.blocks_bad,
            ),
            (
                "pieces_bad",
                "Pieces that did not match their sums when received",
                Kind::Counter,
                self.pieces_bad,
            ),
            (
                "chunks_copied",
                "Replicas made here as copies of others",
                Kind::Counter,
                self.chunks_copied,
            ),
            (
                "copied_bytes",
                "Bytes written for copies",
                Kind::Counter,
                self.bytes_copied,
            ),
            (
                "ranges_bad",
                "Ranges of copies that did not match their sums when received",
                Kind::Counter,
                self.ranges_bad,
            ),
            (
                "scrub_bytes",
                "Bytes that nobody asked for and that matched their sums",
                Kind::Counter,
                self.scrub.bytes,
            ),
            (
                "scrub_chunks",
                "Replicas of which all bytes were read so",
                Kind::Counter,
                self.scrub.chunks,
            ),
            (
                "scrub_bad",
                "Blocks and headers that were found bad so",
                Kind::Counter,
                self.scrub.bad,
            ),
            (
                "scrub_rounds",
                "Rounds through all replicas",
                Kind::Counter,
                self.scrub.rounds,
            ),
        ]
        .into_iter()
        .map(|(name, about, kind, value)| Family::single(name, about, kind, value))
        .chain(ages)
        .collect()
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}
