//! A log that lost its end: a disk from the past, an old backup. Chunkservers prove it: by what they have seen of
//! meta servers that this log does not know, or by chunks that it never issued.
//!
//! The proof is logged before the server that has it is welcomed, because that server then forgets it. From then on
//! nothing changes, and no session ends, until an operator accepts it: meanwhile a newer backup can still take the
//! place of this log, with nothing to give up. Reads go on. What sessions were writing when the log was cut is theirs
//! no more once it is accepted: in the part that is missing it may have become a file, so it is not given up with them.
use super::key::{Key, Name};
use super::namespace;
use super::record::{Adopted, By, DirectoriesMade, OrphanAdopted, RollbackAccepted, TailLost};
use super::roster::{EPOCH_HEARD_MAX, Heard, Roster, is_issued};
use super::state::State;
use super::{Io, LOG_RESERVE, Serving};
use crate::ids::{Epoch, FileId, Incarnation, LogSeq, NodeId, ServerIndex};
use crate::limits::REPLICATION_MAX;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::chunk_meta::{InventoryItem, ReplicaState};
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::{MutateOp, Ownership};
use crate::wire::{Refusal, Status};
use core::fmt;

/// The directory, below the root, of what was found.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Chunks that are adopted before anything else is done.
const ADOPTED_AT_ONCE: usize = 256;

impl fmt::Display for TailLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            epoch,
            seq,
            has,
            ..
        } = self;
        write!(f, "chunkserver {node} has ")?;
        if *seq == LogSeq(0) {
            write!(f, "a chunk of epoch {epoch}")?;
        } else {
            write!(f, "seen record {seq} of epoch {epoch}")?;
        }
        if *has == LogSeq(0) {
            write!(f, ", and this log does not have that epoch")
        } else {
            write!(f, ", and this log has that epoch up to record {has} only")
        }
    }
}

impl Serving {
    /// A chunkserver says what it has seen: if this log does not have it, that is known from now on.
    pub(super) fn witnessed(
        &mut self,
        io: &mut Io,
        node: NodeId,
        seen: (Epoch, Incarnation),
        seq: LogSeq,
    ) {
        if seen.0.0 < EPOCH_HEARD_MAX
            && let Some(has) = self.state.lost(seen, seq)
        {
            self.tail_is_lost(io, node, seen, seq.max(LogSeq(1)), has);
        }
    }

    /// So does a replica of which this log knows nothing.
    pub(super) fn witnessed_by_replica(&mut self, io: &mut Io, node: NodeId, item: &InventoryItem) {
        let of = (item.version.epoch(), item.incarnation);
        if is_lost(&self.state, item)
            && let Some(has) = self.state.lost(of, LogSeq(u64::MAX))
            && self.has_room(1_024, 0).is_ok()
        {
            self.tail_is_lost(io, node, of, LogSeq(0), has);
        }
    }

    fn tail_is_lost(
        &mut self,
        io: &mut Io,
        node: NodeId,
        (epoch, incarnation): (Epoch, Incarnation),
        seq: LogSeq,
        has: LogSeq,
    ) {
        let lost = TailLost {
            node,
            epoch,
            incarnation,
            seq,
            has,
        };
        if planted::is(Bug::LostTailIgnored) || planted::is(Bug::EpochLivedTwice) {
            return;
        }
        tracing::error!(%lost, "a part of the log is missing: changes are refused until 'kfs admin accept-rollback'");
        if self.state.tail_lost.is_none() {
            probe::hit(Probe::TailLost);
            self.commit(io, By::NOBODY, lost);
        }
    }

    /// Why nothing may be changed, in words.
    pub(super) fn tail_lost(&self) -> Option<String> {
        let lost = self.state.tail_lost.as_ref()?;
        Some(format!(
            "a part of the log is missing: {lost}. Restore a newer backup, or give up what was acknowledged since with 'kfs admin accept-rollback'"
        ))
    }

    /// Whether this may be done as things stand.
    pub(super) fn may_change(&self, io: &Io, op: &MutateOp) -> Result<(), Refusal> {
        match (self.tail_lost(), op) {
            (Some(_), MutateOp::AcceptRollback) => Ok(()),
            (None, MutateOp::AcceptRollback) => Err(Refusal::new(
                Status::BadRequest,
                "there is nothing to accept: no part of the log is known to be missing",
            )),
            (Some(why), _) => {
                probe::hit(Probe::TailLostRefused);
                Err(Refusal::new(Status::ReadOnly, why))
            }
            (None, _) => match self.awaits_witnesses(&io.config, io.now) {
                Some(why) => {
                    probe::hit(Probe::WitnessesAwaited);
                    Err(Refusal::new(Status::Busy, why))
                }
                None => Ok(()),
            },
        }
    }

    /// An operator gives up what was lost.
    pub(super) fn accept_rollback(&self, io: &Io) -> RollbackAccepted {
        probe::hit(Probe::RollbackAccepted);
        if let Some(lost) = &self.state.tail_lost {
            tracing::warn!(%lost, "it is accepted that a part of the log is missing: changes go on");
        }
        RollbackAccepted { time: io.now.wall }
    }

    /// Once a rollback was accepted, chunks of what was lost become files in `/lost+found`, one each: their headers do
    /// not say which place they had in their files. Who had one is told to say hello again, and has it confirmed then.
    pub(super) fn adopt_orphans(&mut self, io: &mut Io) {
        if !self.roster.orphans_wait
            || self.state.accepted == Epoch(0)
            || self.state.tail_lost.is_some()
        {
            return;
        }
        for _ in 0..ADOPTED_AT_ONCE {
            let Some(orphan) = self.roster.orphan() else {
                self.roster.orphans_wait = false;
                return;
            };
            // A directory, and the file.
            if self.has_room(2_048, LOG_RESERVE).is_err() {
                return;
            }
            let found = self.roster.take_orphan(&orphan);
            if let Some(record) = self.adopted(io, &orphan, &found) {
                probe::hit(Probe::OrphanAdopted);
                self.roster.found_again(&record.members);
                tracing::info!(chunk = %orphan.chunk, key = ?record.key, "a chunk of the part of the log that is missing is a file now");
                self.commit(io, By::NOBODY, record);
            }
            for (server, _) in found {
                // Who has none that was adopted would say the same again, and again.
                if self.roster.get(server).is_some_and(|heard| {
                    heard.orphans.is_empty()
                        && (heard.found_again || planted::is(Bug::AcceptedDeleted))
                }) {
                    self.says_hello_again(io, server, "chunks that it has were adopted");
                }
            }
        }
    }

    /// What becomes of an orphan; `None`: nothing can, and it stays as it is.
    fn adopted(
        &mut self,
        io: &mut Io,
        orphan: &InventoryItem,
        found: &[(ServerIndex, Durable)],
    ) -> Option<OrphanAdopted> {
        if planted::is(Bug::AcceptedDeleted) {
            return None;
        }
        let time = io.now.wall;
        let whole = found
            .iter()
            .map(|(_, has)| *has)
            .max_by_key(|has| (has.wseq, has.len))?;
        let members = found.iter().filter(|(_, has)| has.covers(whole));
        let members = members.map(|(server, _)| *server);
        let members: Vec<ServerIndex> = members.take(usize::from(REPLICATION_MAX)).collect();
        let InventoryItem {
            file: named,
            chunk,
            version,
            incarnation,
            ..
        } = *orphan;
        let of = Adopted { named, incarnation };
        if let Some(at) = self.state.owners.get(&chunk) {
            // It was adopted before, and the file may have been moved since: only its members change.
            let file = at.0;
            let known = self.state.chunks.get(&at)?;
            let same = (self.state.adopted.get(&chunk), known.version) == (Some(&of), version);
            let has_all = whole.covers(self.state.logged(file, at.1, &known));
            let new = |member: &ServerIndex| same && has_all && !known.members.contains(member);
            let room = usize::from(REPLICATION_MAX).saturating_sub(known.members.len());
            let members: Vec<_> = members.into_iter().filter(new).take(room).collect();
            let key = Key {
                parent: FileId::ROOT,
                name: Name::new(LOST_AND_FOUND).ok()?,
            };
            return (!members.is_empty()).then_some(OrphanAdopted {
                key,
                file,
                chunk,
                version,
                of,
                members,
                synced: whole,
                replication: self.state.replication(file),
                time,
            });
        }
        let parent = self.lost_and_found(io)?;
        let free = |name: String| {
            let name = Name::new(name.as_bytes()).ok()?;
            let key = Key { parent, name };
            self.state.tree.get(&key).is_none().then_some(key)
        };
        let key = free(format!("{named}.{chunk}"))
            .or_else(|| free(format!("{named}.{chunk}.{version}")))?;
        let file = FileId::issued(self.state.epoch, self.state.next_counter());
        Some(OrphanAdopted {
            key,
            file,
            chunk,
            version,
            of,
            members,
            synced: whole,
            replication: io.config.replication,
            time,
        })
    }

    /// The directory of what was found, made if need be; `None` if its name is a file's.
    fn lost_and_found(&mut self, io: &mut Io) -> Option<FileId> {
        let name = Name::new(LOST_AND_FOUND).ok()?;
        let key = Key {
            parent: FileId::ROOT,
            name: name.clone(),
        };
        if let Some(found) = self.state.tree.get(&key) {
            let is_directory = namespace::is_directory(&self.state, found);
            if !is_directory {
                tracing::warn!(
                    "/lost+found is a file: what was found stays unknown until that is moved and the chunkservers say hello again"
                );
            }
            return is_directory.then_some(found);
        }
        let file = FileId::issued(self.state.epoch, self.state.next_counter());
        let record = DirectoriesMade {
            parent: FileId::ROOT,
            made: vec![(name, file)],
            owner: Ownership {
                uid: 0,
                gid: 0,
                mode: 0o700,
            },
            time: io.now.wall,
        };
        self.commit(io, By::NOBODY, record);
        Some(file)
    }
}

impl Roster {
    /// An orphan of a server that is up.
    fn orphan(&self) -> Option<InventoryItem> {
        let mut up = self.iter().filter(|(_, heard)| heard.is_up());
        up.find_map(|(_, heard)| heard.orphans.values().next().copied())
    }
    /// These have a replica that has to be confirmed.
    fn found_again(&mut self, members: &[ServerIndex]) {
        for member in members {
            if let Some(heard) = self.get_mut(*member) {
                heard.found_again = true;
            }
        }
    }
    /// Who has the same one, and how far. They are asked for it once.
    fn take_orphan(&mut self, orphan: &InventoryItem) -> Vec<(ServerIndex, Durable)> {
        let id = (orphan.chunk, orphan.version);
        let same = |(server, heard): (ServerIndex, &Heard)| {
            let item = heard.orphans.get(&id)?;
            let same = (item.file, item.incarnation) == (orphan.file, orphan.incarnation);
            (heard.is_up() && same).then_some((server, item.durable()))
        };
        let found: Vec<_> = self.iter().filter_map(same).collect();
        for (server, _) in &found {
            if let Some(heard) = self.get_mut(*server) {
                heard.orphans.remove(&id);
            }
        }
        found
    }
}

/// Whether a replica that no file owns is of a part of the log that is missing.
fn is_lost(state: &State, item: &InventoryItem) -> bool {
    if item.state == ReplicaState::BadHeader || state.owners.get(&item.chunk).is_some() {
        return false;
    }
    let epoch = item.version.epoch();
    let known = state.incarnations.get(&item.incarnation) == Some(&epoch);
    let issued = is_issued(state, epoch, item.version.counter())
        && is_issued(state, item.chunk.epoch(), item.chunk.counter());
    !(known && issued)
}

/// Whether this replica has something in it that no file owns, and that a part of the log which is missing once had:
/// a chunk, or one more replica of a chunk that was adopted.
pub(super) fn is_orphan(state: &State, item: &InventoryItem) -> bool {
    let adopted = || {
        let at = state.owners.get(&item.chunk)?;
        let chunk = state.chunks.get(&at)?;
        let of = state.adopted.get(&item.chunk)?;
        let log = state.logged(at.0, at.1, &chunk);
        let good = item.state != ReplicaState::BadHeader && item.durable().covers(log);
        let room = chunk.members.len() < usize::from(REPLICATION_MAX);
        let of = (of.named, of.incarnation, chunk.version);
        Some(good && room && of == (item.file, item.incarnation, item.version))
    };
    (1..=state.geometry().chunk_bytes()).contains(&item.len)
        && adopted().unwrap_or_else(|| is_lost(state, item))
}
