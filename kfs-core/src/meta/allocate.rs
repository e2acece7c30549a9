//! Chunks that are being made: logged, ordered, awaited, and given up for another set when a member fails.
//!
//! Nobody is granted a chunk before all its members have made it, so giving one up needs no fencing: it is
//! logged, its members are told, and the next round has a new chunk id.
use super::namespace;
use super::placement::{Candidate, Wanted, choose};
use super::record::{By, ChunkAbandoned, ChunkOpened};
use super::roster::Heard;
use super::state::ChunkState;
use super::{Io, LOG_RESERVE, Serving};
use crate::buggify::{self, Site};
use crate::ids::{
    ChunkId, FileId, ID_LIMIT, LinkId, LogSeq, PieceNumber, RequestNumber, ServerIndex, SessionId,
    Version,
};
use crate::limits::HEADER_BYTES;
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{ChunkCreated, CreateChunk};
use crate::wire::client_meta::{Done, Grant, Place};
use crate::wire::{Refusal, Status};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Members have so long to make a chunk.
const MADE_WITHIN: Duration = Duration::from_secs(1);
/// So long where the simulator hurries them.
const MADE_HURRIED: Duration = Duration::from_millis(3);
/// Sets of members that are tried.
const ROUNDS_MAX: u32 = 4;
/// Chunks that must fit a server besides the new one.
const HEADROOM_CHUNKS: u64 = 1;

/// Who waits for a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    pub(super) by: By,
    pub(super) link: LinkId,
    /// Of the message.
    pub(super) request: u64,
}

type Target = (FileId, u64);

/// The chunks that are being made.
#[derive(Clone, Debug, Default)]
pub(super) struct Allocations {
    pending: BTreeMap<Target, Pending>,
    /// Which chunk a request waits for.
    asked: BTreeMap<(SessionId, RequestNumber), Target>,
    due: BTreeSet<(Instant, Target)>,
}

#[derive(Clone, Debug)]
struct Pending {
    askers: Vec<Asker>,
    chunk: ChunkId,
    version: Version,
    /// Of the record that made it.
    seq: LogSeq,
    /// Members that have not made it yet.
    missing: BTreeSet<ServerIndex>,
    due: Instant,
    failed: Failed,
}

/// What went wrong in earlier rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Failed {
    rounds: u32,
    servers: BTreeMap<ServerIndex, Refusal>,
}

impl Failed {
    /// These servers are not to be tried.
    pub(super) fn of(servers: BTreeMap<ServerIndex, Refusal>) -> Self {
        Self { rounds: 0, servers }
    }
}

impl Allocations {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
    /// When the next one is given up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
    /// Nobody of this session is answered any more.
    pub(super) fn drop_session(&mut self, session: SessionId) {
        let asked: BTreeSet<Target> = self
            .asked
            .range((session, RequestNumber(0))..=(session, RequestNumber(u64::MAX)))
            .map(|(_, target)| *target)
            .collect();
        // Only the session that writes a file asks for its chunks, so nobody else waits for these.
        for target in asked {
            self.take(target);
        }
    }
    /// Nobody is answered any more.
    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }
    /// Another request for a chunk that is being made.
    fn join(&mut self, target: Target, asker: Asker) -> bool {
        let Some(pending) = self.pending.get_mut(&target) else {
            return false;
        };
        pending.askers.push(asker);
        self.asked
            .insert((asker.by.session, asker.by.request), target);
        true
    }
    fn put(&mut self, target: Target, pending: Pending) {
        for asker in &pending.askers {
            self.asked
                .insert((asker.by.session, asker.by.request), target);
        }
        self.due.insert((pending.due, target));
        let before = self.pending.insert(target, pending);
        assert!(before.is_none(), "a chunk is made once at a time");
    }
    fn take(&mut self, target: Target) -> Option<Pending> {
        let pending = self.pending.remove(&target)?;
        self.due.remove(&(pending.due, target));
        for asker in &pending.askers {
            self.asked.remove(&(asker.by.session, asker.by.request));
        }
        Some(pending)
    }
}

impl Serving {
    /// A request that is in progress is answered on the link it last came on.
    pub(super) fn rebind(&mut self, asker: Asker) -> bool {
        if self.rechains.rebind(asker) {
            return true;
        }
        let Allocations { pending, asked, .. } = &mut self.allocations;
        let Some(target) = asked.get(&(asker.by.session, asker.by.request)) else {
            return false;
        };
        let pending = pending
            .get_mut(target)
            .expect("who asked waits for something");
        let known = pending
            .askers
            .iter_mut()
            .find(|known| known.by.request == asker.by.request);
        *known.expect("who asked is an asker") = asker;
        true
    }

    /// Makes a chunk, or gives the standing one; `None`: it will be answered when it is made.
    pub(super) fn allocate(
        &mut self,
        io: &mut Io,
        asker: Asker,
        file: FileId,
        index: u64,
    ) -> Result<Option<Done>, Refusal> {
        namespace::file_size(&self.state, file)?;
        namespace::writes(&self.state, asker.by.session, file)?;
        let end = index
            .checked_add(1)
            .and_then(|chunks| chunks.checked_mul(self.state.geometry().chunk_bytes()));
        if end.is_none_or(|end| end >= ID_LIMIT) {
            let what = format!("chunk {index} of file {file} is past what a file can have");
            return Err(Refusal::new(Status::BadRequest, what));
        }
        let target = (file, index);
        if self.state.is_behind(target) {
            namespace::may_grow(&self.state, file)?;
        }
        if self.allocations.join(target, asker) {
            return Ok(None);
        }
        let Some(standing) = self.state.chunks.get(&target) else {
            self.make(io, target, vec![asker], Failed::default())?;
            return Ok(None);
        };
        // One that was written has been told of; its number may be that of a request of an earlier session.
        if standing.opened_by != asker.by.request || standing.synced.is_some() {
            return self
                .grant(target, &standing)
                .map(|grant| Some(Done::Granted(grant)));
        }
        // Asked for before a restart and not answered since: nobody has written it. Its members are ordered
        // again, which is fine for those that have it; if one is not there, another set is chosen.
        let absent = standing
            .members
            .iter()
            .find(|member| self.roster.get(**member).is_none_or(|heard| !heard.is_up()));
        let Some(absent) = absent.copied() else {
            probe::hit(Probe::AllocationOrderedAgain);
            self.order(io, target, vec![asker], &standing, Failed::default());
            return Ok(None);
        };
        if self.awaits_servers(io) {
            return Err(waits());
        }
        self.commit(
            io,
            By::NOBODY,
            ChunkAbandoned {
                chunk: standing.chunk,
            },
        );
        let gone = Refusal::new(Status::ChainBroken, "it is not there any more");
        let failed = Failed {
            rounds: 1,
            servers: BTreeMap::from([(absent, gone)]),
        };
        self.make(io, target, vec![asker], failed)?;
        Ok(None)
    }

    /// Chooses members, logs the chunk, orders it.
    pub(super) fn make(
        &mut self,
        io: &mut Io,
        target: Target,
        askers: Vec<Asker>,
        failed: Failed,
    ) -> Result<(), Refusal> {
        let asker = *askers.first().expect("somebody asks for a chunk");
        let (file, index) = target;
        let members = self.members(io, target, asker.link, &failed)?;
        let counter = self.state.next_counter();
        let (chunk, version) = (
            ChunkId::issued(self.state.epoch, counter),
            Version::issued(self.state.epoch, counter + 1),
        );
        self.commit(
            io,
            asker.by,
            ChunkOpened {
                file,
                index,
                chunk,
                version,
                members,
            },
        );
        let opened = self.state.chunks.get(&target).expect("it was just made");
        assert_eq!(opened.chunk, chunk, "what was logged is what is ordered");
        self.order(io, target, askers, &opened, failed);
        Ok(())
    }

    /// Orders the members of a chunk that is in the log to make it.
    fn order(
        &mut self,
        io: &mut Io,
        target: Target,
        askers: Vec<Asker>,
        chunk: &ChunkState,
        failed: Failed,
    ) {
        let promise = self.chunk_file_bytes();
        let session = askers
            .first()
            .expect("somebody asks for a chunk")
            .by
            .session;
        let chain: Vec<Place> = chunk
            .members
            .iter()
            .filter_map(|member| self.place(*member))
            .collect();
        assert_eq!(
            chain.len(),
            chunk.members.len(),
            "members are chosen among those that are up"
        );
        let incarnation = self
            .state
            .epochs
            .get(&chunk.version.epoch())
            .map(|epoch| epoch.incarnation)
            .expect("a version is of an epoch of this log");
        for member in chunk.members.iter() {
            let (link, term) = self
                .roster
                .orders_to(*member)
                .expect("members are chosen among those that are up");
            let (version, chain) = (chunk.version, chain.clone());
            let order = CreateChunk {
                term,
                file: target.0,
                chunk: chunk.chunk,
                version,
                incarnation,
                chain,
                session,
            };
            self.reply(io, link, 0, order);
            let heard = self
                .roster
                .get_mut(*member)
                .expect("members are chosen among those that are up");
            heard.placed += 1;
            heard.promised.insert(chunk.chunk, promise);
        }
        let pending = Pending {
            askers,
            chunk: chunk.chunk,
            version: chunk.version,
            seq: self.state.seq,
            missing: chunk.members.iter().copied().collect(),
            due: io.now.mono
                + if buggify::is(Site::AllocationHurried) {
                    MADE_HURRIED
                } else {
                    MADE_WITHIN
                },
            failed,
        };
        self.allocations.put(target, pending);
    }

    /// The servers for a new chunk, or why there are too few.
    pub(super) fn members(
        &self,
        io: &mut Io,
        target: Target,
        client: LinkId,
        failed: &Failed,
    ) -> Result<Vec<ServerIndex>, Refusal> {
        let (file, index) = target;
        let wanted = self.state.replication(file);
        let needed = usize::from(io.config.min_replicas.min(wanted));
        let stays = |server: ServerIndex| self.takes_new(server);
        let up = || {
            let all = self.roster.iter();
            all.filter(move |(server, heard)| heard.is_up() && stays(*server))
        };
        let live = up().count();
        if live < usize::from(wanted) && self.awaits_servers(io) {
            return Err(waits());
        }
        if live < needed {
            let what = format!(
                "{live} live chunkservers are too few for chunk {index} of file {file} (replication {wanted}, at least {needed} needed)"
            );
            // Those that were there before may come back while the client waits.
            let known = self.state.roster.len() - self.state.draining.len();
            let status = if known < needed {
                Status::NoServers
            } else {
                Status::Busy
            };
            return Err(Refusal::new(status, what));
        }
        let candidates: Vec<Candidate> = up()
            .filter(|(server, _)| !failed.servers.contains_key(server))
            .map(|(server, heard)| self.candidate(server, heard))
            .collect();
        let bytes_free_min = self.chunk_file_bytes() * (1 + HEADROOM_CHUNKS);
        let wants = Wanted {
            replicas: usize::from(wanted),
            bytes_free_min,
            client: Self::host(io, client),
            racks_taken: BTreeSet::new(),
        };
        let members = choose(&candidates, &wants, &mut io.rng);
        if members.len() >= needed {
            return Ok(members);
        }
        if candidates.len() < needed {
            return Err(self.gave_up(target, failed));
        }
        let fullest = self.fullest_percent();
        let what = format!(
            "no chunkserver has room for chunk {index} of file {file} (replication {wanted}; {live} live servers, fullest {fullest} %)"
        );
        Err(Refusal::new(Status::NoRoom, what))
    }

    fn gave_up(&self, target: Target, failed: &Failed) -> Refusal {
        probe::hit(Probe::AllocationGaveUp);
        let (file, index) = target;
        let full = failed
            .servers
            .values()
            .any(|why| why.status == Status::NoRoom);
        let status = if full { Status::NoRoom } else { Status::Busy };
        let tried: Vec<String> = failed
            .servers
            .iter()
            .map(|(server, why)| {
                let place = self.place(*server).map_or_else(
                    || format!("server {server}"),
                    |place| place.addr.to_string(),
                );
                format!("{place}: {}", why.detail)
            })
            .collect();
        Refusal::new(
            status,
            format!(
                "chunk {index} of file {file} could not be made ({})",
                tried.join("; ")
            ),
        )
    }

    fn fullest_percent(&self) -> u64 {
        let used = |free: u64, total: u64| {
            total
                .saturating_sub(free)
                .saturating_mul(100)
                .checked_div(total)
                .unwrap_or(0)
        };
        let up = self.roster.iter().filter(|(_, heard)| heard.is_up());
        up.map(|(_, heard)| used(heard.bytes_free, heard.bytes_total))
            .max()
            .unwrap_or(0)
    }

    /// A server that is up, as it stands for a new replica.
    pub(super) fn candidate(&self, server: ServerIndex, heard: &Heard) -> Candidate {
        let known = self.state.roster.get(&server);
        let promised = heard.promised.values().sum();
        Candidate {
            server,
            host: heard.addr.ip(),
            rack: known.map_or_else(String::new, |known| known.rack.to_string()),
            bytes_free: heard.bytes_free.saturating_sub(promised),
            writing: heard.writing.saturating_add(heard.placed),
        }
    }

    /// A whole chunk takes so much of a disk.
    pub(super) fn chunk_file_bytes(&self) -> u64 {
        HEADER_BYTES + self.state.geometry().chunk_bytes()
    }

    pub(super) fn grant(&self, target: Target, chunk: &ChunkState) -> Result<Grant, Refusal> {
        let chain: Option<Vec<Place>> = chunk
            .members
            .iter()
            .map(|member| self.place(*member))
            .collect();
        let chain = chain.ok_or_else(waits)?;
        Ok(Grant {
            index: target.1,
            chunk: chunk.chunk,
            version: chunk.version,
            chain,
            from: PieceNumber(0),
            to: PieceNumber(0),
        })
    }

    pub(super) fn chunk_created(&mut self, io: &mut Io, link: LinkId, m: &ChunkCreated) {
        let Some(server) = self.in_term(io, link, m.term) else {
            return;
        };
        let Some(target) = self.state.owners.get(&m.chunk) else {
            return;
        };
        let Some(pending) = self.allocations.pending.get_mut(&target) else {
            return;
        };
        if (pending.chunk, pending.version) != (m.chunk, m.version)
            || !pending.missing.contains(&server)
        {
            return;
        }
        match &m.outcome {
            Ok(()) => {
                pending.missing.remove(&server);
                let made = pending.missing.is_empty();
                self.roster.confirm(server, m.chunk, &mut self.copies);
                if made {
                    self.made(io, target);
                }
            }
            Err(refusal) => self.failed(io, target, BTreeMap::from([(server, refusal.clone())])),
        }
    }

    fn made(&mut self, io: &mut Io, target: Target) {
        let pending = self.allocations.take(target).expect("it was just there");
        let chunk = self
            .state
            .chunks
            .get(&target)
            .expect("a chunk that is being made is in the state");
        let outcome = self.grant(target, &chunk).map(Done::Granted);
        self.answer(io, &pending.askers, pending.seq, &outcome);
    }

    pub(super) fn answer(
        &mut self,
        io: &mut Io,
        askers: &[Asker],
        seq: LogSeq,
        outcome: &Result<Done, Refusal>,
    ) {
        for Asker { by, link, request } in askers {
            self.sessions.remember(by.session, by.request, seq, outcome);
            self.mutated(io, *link, *request, seq, outcome.clone());
        }
    }

    /// Gives a chunk up and tries another set of members, or says why not.
    fn failed(&mut self, io: &mut Io, target: Target, why: BTreeMap<ServerIndex, Refusal>) {
        let Pending {
            askers,
            chunk,
            mut failed,
            ..
        } = self
            .allocations
            .take(target)
            .expect("who gives a chunk up has seen it");
        probe::hit(Probe::AllocationAbandoned);
        failed.rounds += 1;
        failed.servers.extend(why);
        self.commit(io, By::NOBODY, ChunkAbandoned { chunk });
        let room = self.has_room(1_024, LOG_RESERVE + self.allocations.len());
        let refusal = match room {
            Err(refusal) => refusal,
            Ok(()) if failed.rounds >= ROUNDS_MAX => self.gave_up(target, &failed),
            Ok(()) => match self.make(io, target, askers.clone(), failed) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
        };
        self.answer(io, &askers, self.state.seq, &Err(refusal));
    }

    /// A server is not there any more: what it was to make is made elsewhere.
    pub(super) fn member_lost(&mut self, io: &mut Io, server: ServerIndex, why: &str) {
        let waiting: Vec<Target> = self
            .allocations
            .pending
            .iter()
            .filter(|(target, _)| {
                self.state
                    .chunks
                    .get(*target)
                    .is_some_and(|chunk| chunk.members.contains(&server))
            })
            .map(|(target, _)| *target)
            .collect();
        for target in waiting {
            let refusal = Refusal::new(Status::ChainBroken, why);
            self.failed(io, target, BTreeMap::from([(server, refusal)]));
        }
    }

    pub(super) fn overdue_allocations(&mut self, io: &mut Io) {
        while let Some((_, target)) = self
            .allocations
            .due
            .first()
            .copied()
            .filter(|(at, _)| *at <= io.now.mono)
        {
            let pending = self
                .allocations
                .pending
                .get(&target)
                .expect("what is due is pending");
            probe::hit(Probe::AllocationOverdue);
            let late = Refusal::new(
                Status::ChainBroken,
                format!("it did not make the chunk within {MADE_WITHIN:?}"),
            );
            let why = pending
                .missing
                .iter()
                .map(|server| (*server, late.clone()))
                .collect();
            self.failed(io, target, why);
        }
    }

    /// A chunk has left the table while it was being made: its file was removed, or closed.
    pub(super) fn cancel(&mut self, io: &mut Io, target: Target, chunk: ChunkId) {
        self.cancel_rechain(io, chunk);
        if self
            .allocations
            .pending
            .get(&target)
            .is_none_or(|pending| pending.chunk != chunk)
        {
            return;
        }
        probe::hit(Probe::AllocationCancelled);
        let pending = self.allocations.take(target).expect("it was just there");
        let refusal = Refusal::new(
            Status::NotFound,
            "the file was removed, or closed, while its chunk was being made",
        );
        self.answer(io, &pending.askers, self.state.seq, &Err(refusal));
    }
}

fn waits() -> Refusal {
    probe::hit(Probe::ServersAwaited);
    Refusal::new(
        Status::Busy,
        "the meta server has just started and waits for its chunkservers",
    )
}
