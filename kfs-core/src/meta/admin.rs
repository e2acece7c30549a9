//! Questions: what stands where, where chunks are, how the cluster is. Nothing is changed but who has what open, and
//! nothing is counted that was not counted when it changed.
use super::namespace;
use super::roster::{Heard, Standing};
use super::{Config, Io, Serving};
use crate::ids::{FileId, LinkId};
use crate::limits::LOCATE_PAGE_MAX;
use crate::time::Now;
use crate::wire::client_meta::{
    Answer, ChunkPlaces, ClusterStatus, Located, Place, QueryOp, ServerState, ServerStatus,
};
use crate::wire::{Refusal, Status};

impl Serving {
    pub(super) fn query(&mut self, io: &Io, link: LinkId, op: &QueryOp) -> Result<Answer, Refusal> {
        match op {
            QueryOp::Stat { at } => namespace::stat(&self.state, at).map(Answer::Attrs),
            QueryOp::List { at, after, limit } => {
                let (entries, end) = namespace::list(&self.state, at, after, *limit)?;
                Ok(Answer::Entries { entries, end })
            }
            QueryOp::Locate { file, first, count } => {
                self.locate(*file, *first, *count).map(Answer::Located)
            }
            // Answered when it is made: see `Serving::checkpoint`.
            QueryOp::Checkpoint => Err(Refusal::new(
                Status::Busy,
                "a checkpoint is asked for by itself",
            )),
            // Answered when it has come so far: see `Serving::usage`.
            QueryOp::Usage { .. } | QueryOp::UsageNext { .. } => {
                Err(Refusal::new(Status::Busy, "a scan is asked for by itself"))
            }
            QueryOp::Open { at } => self.open(io, link, at),
            QueryOp::Hold { files } => self.hold(io, link, files),
            QueryOp::Release { file } => Ok(self.release(io, link, *file)),
            QueryOp::Status => Ok(Answer::Status(Box::new(self.status(&io.config, io.now)))),
        }
    }

    /// A chunk of which nothing is readable yet is left out: it is a hole as far as the log goes.
    fn locate(&self, file: FileId, first: u64, count: u32) -> Result<Located, Refusal> {
        let size = namespace::file_size(&self.state, file)?;
        let count = (count as usize).clamp(1, LOCATE_PAGE_MAX);
        let chunks = self
            .state
            .chunks
            .range((file, first)..=(file, u64::MAX))
            .map(|((_, index), chunk)| {
                let log = self.state.logged(file, index, &chunk);
                (index, chunk, log)
            })
            .filter(|(_, _, log)| log.len > 0)
            .take(count)
            .map(|(index, chunk, log)| {
                let replicas: Vec<Place> = chunk
                    .members
                    .iter()
                    .filter_map(|member| {
                        let addr = self.roster.serves(*member, chunk.chunk)?;
                        Some(Place {
                            node: self.state.roster.get(member)?.node,
                            addr,
                        })
                    })
                    .collect();
                let absent = u32::try_from(chunk.members.len() - replicas.len())
                    .expect("a chunk has few members");
                ChunkPlaces {
                    index,
                    chunk: chunk.chunk,
                    version: chunk.version,
                    log,
                    replicas,
                    absent,
                }
            })
            .collect();
        Ok(Located {
            size,
            geometry: self.state.geometry(),
            chunks,
        })
    }

    pub(super) fn status(&self, config: &Config, now: Now) -> ClusterStatus {
        let servers = self
            .state
            .roster
            .iter()
            .map(|(index, server)| {
                let heard = self.roster.get(*index);
                let number = |of: fn(&Heard) -> u64| heard.map_or(0, of);
                ServerStatus {
                    node: server.node,
                    addr: heard.map(|heard| heard.addr),
                    rack: server.rack.to_string(),
                    state: match heard.map(|heard| heard.standing) {
                        Some(Standing::Up(_)) => ServerState::Up,
                        Some(Standing::Joining(_)) => ServerState::Joining,
                        Some(Standing::Down) | None => ServerState::Down,
                    },
                    chunks: number(|heard| heard.confirmed.len() as u64),
                    bytes_free: number(|heard| heard.bytes_free),
                    bytes_total: number(|heard| heard.bytes_total),
                    silent: heard.map(|heard| now.mono.since(heard.at)),
                    drain: self.drain_status(*index),
                }
            })
            .collect();
        let sum = |of: fn(&Heard) -> u64| self.roster.iter().map(|(_, heard)| of(heard)).sum();
        ClusterStatus {
            cluster: self.identity.cluster,
            epoch: self.state.epoch,
            build: concat!("kfs-metaserver ", env!("CARGO_PKG_VERSION")).into(),
            log_seq: self.state.seq,
            log_durable: self.log.durable(),
            files: self.state.files(),
            directories: self.state.directories,
            chunks: self.state.chunks.len() as u64,
            bytes: self.state.bytes,
            chunks_under_replicated: self.copies.under_replicated(),
            chunks_unavailable: self.copies.unavailable(),
            replicas_damaged: sum(|heard| heard.damaged.len() as u64),
            chunks_unknown: sum(|heard| heard.unknown) + self.roster.strays.len() as u64,
            sessions: self.state.sessions.len() as u64,
            replication: config.replication,
            min_replicas: config.min_replicas,
            read_only: self.read_only(),
            changes_wait: self.awaits_witnesses(config, now),
            tail_lost: self.state.tail_lost.is_some(),
            checkpoint: Box::new(self.checkpoints.status(now.mono)),
            replication_work: Box::new(self.copying.status()),
            reclaim: Box::new(self.reclaim.status(&self.state)),
            log_mirror: self.mirror.clone().map(Box::new),
            servers,
        }
    }
}
