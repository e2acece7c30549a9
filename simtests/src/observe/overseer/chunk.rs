//! What is seen of a chunkserver: what it does to its disk, what it passes on and acks, and what it counts.
use super::{COUNTERS_EVERY, Overseen, Overseer, Setup, Whose};
use crate::disk::DiskModel;
use crate::oracle::bounds;
use crate::oracle::counters::{self, Injected};
use crate::oracle::{Tick, Violation};
use kfs_core::block::crc;
use kfs_core::chunk::{Call, Chunk, Event};
use kfs_core::ids::{ChunkId, Epoch, Incarnation, LinkId, PieceNumber};
use kfs_core::machine::{Input, Output};
use kfs_core::time::Now;
use kfs_core::wire::{Head, Msg};
use std::collections::{BTreeMap, BTreeSet};

/// One process of a chunkserver.
#[derive(Clone, Default, Debug)]
pub(super) struct ServerSeen {
    /// What was on the disk, until its first input says what time it is there.
    starting: Option<Vec<String>>,
    /// Inputs taken.
    inputs: u64,
    /// Pieces that it said are written everywhere: it may say so again.
    acked: BTreeSet<(ChunkId, PieceNumber)>,
    /// Links on which a meta server welcomes it that it must not accept, and what it had accepted.
    behind: BTreeMap<LinkId, String>,
    /// Links on which it is welcome, and by whom.
    welcome: BTreeMap<LinkId, (Epoch, Incarnation)>,
    /// Pieces that came as their sender summed them, and were not refused since.
    whole: BTreeSet<(ChunkId, PieceNumber)>,
    /// Pieces that came, and never as their sender summed them.
    changed: BTreeSet<(ChunkId, PieceNumber)>,
    /// Chunks that it took pieces for again: some of those it may have from before, and not write.
    resumed: BTreeSet<ChunkId>,
    injected: Injected,
}

impl ServerSeen {
    pub(super) fn starting(disk: &DiskModel) -> Self {
        let trash = disk.paths().filter(|path| path.starts_with("trash/"));
        Self {
            starting: Some(trash.map(str::to_owned).collect()),
            ..Self::default()
        }
    }

    fn receives(&mut self, msg: &Msg) {
        let (piece, sums) = match &msg.head {
            Head::WritePiece(head) => ((head.chunk, head.piece), &head.sums),
            Head::ChainPiece(head) => ((head.chunk, head.piece), &head.sums),
            Head::ResumeChunk(order) => {
                self.whole.retain(|(chunk, _)| *chunk != order.chunk);
                self.resumed.insert(order.chunk);
                return;
            }
            _ => return,
        };
        if crc(&msg.body) == sums.crc {
            self.changed.remove(&piece);
            if self.whole.insert(piece) {
                self.injected.pieces_whole += 1;
                self.injected.bytes_whole += msg.body.len() as u64;
            }
        } else {
            // Sent again, a piece that is here already is acked for what is here; what comes with it then is nothing.
            if !self.whole.contains(&piece) {
                self.changed.insert(piece);
            }
            self.injected.pieces_changed += 1;
        }
    }

    fn sends(&mut self, msg: &Msg) -> Result<(), Violation> {
        match &msg.head {
            Head::RangeRead(read) if read.outcome.is_ok() => {
                self.injected.ranges_sent += 1;
                self.injected.bytes_sent += msg.body.len() as u64;
            }
            Head::PieceDone(done) if done.outcome.is_err() => {
                self.whole.remove(&(done.chunk, done.piece));
            }
            Head::PieceDone(done) => {
                if self.changed.contains(&(done.chunk, done.piece)) {
                    let what = format!("a piece that was changed on its way is acked: {done:?}");
                    return Err(Violation::new("O11", "D2", what));
                }
                if !self.resumed.contains(&done.chunk) {
                    self.acked.insert((done.chunk, done.piece));
                }
                self.injected.pieces_acked = self.acked.len() as u64;
            }
            Head::ChainSynced(synced) if synced.outcome.is_ok() => self.injected.syncs_passed += 1,
            _ => {}
        }
        Ok(())
    }
}

impl Overseen for Chunk {
    fn takes(
        overseer: &mut Overseer,
        whose: Whose<'_>,
        now: Now,
        input: &Input<Call>,
    ) -> Result<(), Violation> {
        let server = whose.node;
        let seen = overseer.servers.entry(server).or_default();
        seen.inputs += 1;
        if let Some(paths) = seen.starting.take() {
            let paths = paths.iter().map(String::as_str);
            overseer.collector.started(server, now.mono, paths);
        }
        if let Input::Received { link, msg } = input {
            seen.receives(msg);
            if let Head::Welcome(welcome) = &msg.head {
                let by = (welcome.term.epoch, welcome.incarnation);
                let known = overseer.accepted.get(&server).copied();
                let is_behind =
                    known.is_some_and(|known| by.0 < known.0 || by.0 == known.0 && by.1 != known.1);
                if is_behind {
                    let what = format!("{by:?}, after it accepted {known:?}");
                    seen.behind.insert(*link, what);
                }
                seen.welcome.insert(*link, by);
            }
            overseer.grants.received(server, *link, msg);
        }
        Ok(())
    }

    fn wants(
        &self,
        overseer: &mut Overseer,
        whose: Whose<'_>,
        (now, at): (Now, Tick),
        output: &Output<Event>,
    ) -> Result<(), Violation> {
        let server = whose.node;
        match output {
            Output::Disk { op, .. } => overseer.collector.disk_op(server, now.mono, op),
            Output::Send { link, msg } => {
                if let Head::Hello(hello) = &msg.head {
                    overseer.instances.insert(hello.instance, server);
                }
                if matches!(msg.head, Head::ReportDamage(_)) && !overseer.hurt.contains(&server) {
                    let what = format!(
                        "{} reports damage, and none was made: {:?}",
                        whose.name, msg.head
                    );
                    return Err(Violation::new("O11", "F", what));
                }
                let seen = overseer.servers.entry(server).or_default();
                seen.sends(msg)?;
                if matches!(msg.head, Head::Inventory(_)) && !overseer.hurt.contains(&server) {
                    if let Some(behind) = seen.behind.get(link) {
                        let what = format!("{} accepts the meta server of {behind}", whose.name);
                        return Err(Violation::new("O5", "D5", what));
                    }
                    if let Some(by) = seen.welcome.get(link) {
                        overseer.accepted.insert(server, *by);
                    }
                }
                overseer.collector.server_sent(server, msg);
                if overseer.hurt.contains(&0) {
                    return Ok(());
                }
                overseer.grants.sent(server, *link, msg, at)
            }
            _ => Ok(()),
        }
    }

    fn rests(&self, overseer: &mut Overseer, whose: Whose<'_>) -> Result<(), Violation> {
        let Setup {
            limits,
            geometry,
            on_their_way,
            ..
        } = overseer.setup;
        overseer.judged.bounds += 1;
        bounds::chunk(whose.name, &self.bounds(), &limits, geometry, on_their_way)?;
        let Some(seen) = overseer.servers.get(&whose.node) else {
            return Ok(());
        };
        if !seen.inputs.is_multiple_of(COUNTERS_EVERY) || overseer.hurt.contains(&whose.node) {
            return Ok(());
        }
        overseer.judged.counters += 1;
        let counted = counters::of_chunkserver(&self.counters(), seen.injected);
        counters::check(whose.name, &counted)
    }
}
