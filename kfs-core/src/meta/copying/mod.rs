//! Copies are made again: which chunks lack replicas, who gets one from whom, and what becomes of those there are
//! too many of.
//!
//! Only chunks at rest, of files that nobody writes, are copied: what the log has of them never changes, so a copy
//! of that is as good as any replica. A copy counts when the log has its server as a member, which is decided when
//! the copy is durable and only if it is still wanted; a copy that is not is deleted again. A server that is gone
//! stays a member until the list is full: when it comes back, its replica counts again, and one too many goes.
//!
//! What lacks replicas is found by looking through all chunks, a bounded number at a time, and queued by copies
//! left. A server that was silent only lately may merely be restarting: it is waited for, less long if there is
//! only one copy left.
mod draining;
pub(super) mod evening;
mod retries;
pub(super) mod strays;

use super::chunkmap::Look;
use super::placement::{Candidate, Wanted, choose};
use super::record::{By, MembersChanged};
use super::roster::Standing;
use super::state::ChunkState;
use super::{Io, LOG_RESERVE, Serving};
use crate::buggify::{self, Site};
use crate::ids::{ChunkId, FileId, Incarnation, LinkId, ServerIndex, Version};
use crate::limits::{HEADER_BYTES, REPLICATION_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{
    ChunkCopied, ChunkSealed, Content, CopyChunk, InventoryItem, ReplicaState, Unsynced, Verdict,
};
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::ReplicationStatus;
use core::time::Duration;
use draining::Drains;
use evening::Evening;
use retries::{RETRIES_MAX, Retries};
use std::collections::{BTreeMap, BTreeSet};
use strays::Stray;

/// Chunks that are looked at in one go, and that may wait for their turn.
const LOOKED_AT: usize = 2_048;
const QUEUE_MAX: usize = 1_024;
/// Copies in the whole cluster at once.
const MAKING_MAX: usize = 256;
/// What there is in memory of it at most: copies that are made, and chunks that wait for their turn or another try, as
/// they lack replicas or have some that differ.
pub const WORK_MAX: usize = QUEUE_MAX + MAKING_MAX + RETRIES_MAX + evening::WORK_MAX;
/// Chunks of the queue that are decided on in one go.
const DECIDED: usize = 16;
/// Between two goes, and after everything was looked at without anything to do.
const EVERY: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_secs(1);
/// Copies that a server makes, or gives, at once.
const COPIES_OF_SERVER: usize = 2;
/// What the rate allows in one go, in time.
const BURST: Duration = Duration::from_secs(1);
/// A copy gets so long, and a second more for each MiB.
const MADE_WITHIN: Duration = Duration::from_secs(30);
/// So long where the simulator hurries it.
const MADE_HURRIED: Duration = Duration::from_millis(3);
/// A record of it has at most so many bytes.
const RECORD_BYTES: usize = 512;

/// What is being done about replicas that are missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Copying {
    /// Where to look next, and when.
    from: ChunkId,
    damaged_from: ChunkId,
    next: Instant,
    /// What was found since the last pause that something can be done about.
    found: bool,
    /// By copies left.
    queue: BTreeSet<(u8, ChunkId)>,
    making: BTreeMap<ChunkId, Making>,
    evening: Evening,
    drains: Drains,
    retries: Retries,
    /// Until then the rate is used up.
    paid_until: Instant,
    made: u64,
    failed: u64,
    bytes: u64,
    trimmed: u64,
}

/// A copy that was ordered.
#[derive(Clone, Copy, Debug)]
struct Making {
    server: ServerIndex,
    source: ServerIndex,
    /// Whether who gives it has said how far it is durable, and the copy was ordered.
    is_sealed: bool,
    due: Instant,
}

/// How many copies each server makes or gives.
type Loads = BTreeMap<ServerIndex, usize>;

/// What is to be done about a chunk.
enum Decision {
    /// Nothing, or nothing now.
    Leave,
    /// A server is to get a copy from another.
    Copy {
        server: ServerIndex,
        source: ServerIndex,
    },
    /// Somebody has one too many.
    Trim(ServerIndex),
    /// Something is to be done, and who would do it has enough to do.
    Busy,
    /// A server that is being drained has it, and there is none that could take it.
    Nowhere,
}

impl Copying {
    pub(super) fn status(&self) -> ReplicationStatus {
        ReplicationStatus {
            waiting: (self.queue.len() + self.retries.len() + self.evening.waiting()) as u64,
            copying: self.making.len() as u64,
            copied: self.made,
            copied_bytes: self.bytes,
            failed: self.failed,
            trimmed: self.trimmed,
        }
    }
    pub(super) fn len(&self) -> usize {
        self.making.len() + self.queue.len() + self.retries.len() + self.evening.len()
    }
    /// Whether a copy of the chunk is being made.
    pub(super) fn makes(&self, chunk: ChunkId) -> bool {
        self.making.contains_key(&chunk)
    }
    /// Whether members of the chunk differ, and it waits for its turn.
    pub(super) fn evens(&self, chunk: ChunkId) -> bool {
        self.evening.waits(chunk)
    }
    /// A chunk is sealed: all of its replicas are the same.
    pub(super) fn is_even(&mut self, chunk: ChunkId) {
        self.evening.settled(chunk);
    }
    /// A server is there that was not.
    pub(super) fn server_up(&mut self, now: Instant) {
        self.retries.server_up(now);
        self.evening.server_up(now);
    }
    /// Whether a chunk that was found is to wait for its turn now.
    fn has_turn(&self, chunk: ChunkId, now: Instant) -> bool {
        !self.making.contains_key(&chunk) && !self.retries.waits(chunk, now)
    }
    /// A server is gone: it makes no copies, and gives none. Whether it would have.
    pub(super) fn server_down(&mut self, server: ServerIndex) -> bool {
        let before = self.making.len();
        self.making
            .retain(|_, making| making.server != server && making.source != server);
        self.making.len() < before
    }
    fn loads(&self) -> Loads {
        let mut loads = Loads::new();
        for making in self.making.values() {
            for server in [making.server, making.source] {
                *loads.entry(server).or_default() += 1;
            }
        }
        loads
    }
}

impl Serving {
    /// When replicas are looked at next; `None`: all is as it should be.
    pub(super) fn replication_due(&self) -> Option<Instant> {
        let wanting = self.copies.uneven() > 0
            || (self.roster.has_damage() && !planted::is(Bug::DamageLeft))
            || !self.copying.queue.is_empty()
            || self.copying.evening.waiting() > 0
            || self.drains()
            || self.copies.catches_up()
            || !self.copying.making.is_empty();
        (wanting && self.state.tail_lost.is_none()).then_some(self.copying.next)
    }

    /// Makes copies where they are missing, as far as it is time.
    pub(super) fn replicate(&mut self, io: &mut Io) {
        let now = io.now.mono;
        if self.replication_due().is_none_or(|due| due > now) {
            return;
        }
        let overdue = |_: &ChunkId, making: &mut Making| making.due <= now;
        let overdue: Vec<_> = self.copying.making.extract_if(.., overdue).collect();
        for (chunk, making) in overdue {
            probe::hit(Probe::CopyOverdue);
            tracing::warn!(%chunk, server = %making.server, "a copy was not made in time");
            self.copy_failed(io, chunk);
        }
        self.copies.catch_up(&self.state, None);
        self.count_drained(now);
        if self.copying.queue.is_empty() {
            self.look_for_work(now);
            self.look_for_drained(now);
        }
        let mut loads = self.copying.loads();
        let mut left_over = Vec::new();
        for _ in 0..DECIDED {
            if self.copying.is_at_limit(now) {
                break;
            }
            let Some((had, chunk)) = self.copying.queue.pop_first() else {
                break;
            };
            match self.next_step(io, chunk, &loads) {
                Decision::Leave => {}
                Decision::Nowhere => self.drains_nowhere(chunk),
                Decision::Busy => left_over.push((had, chunk)),
                Decision::Copy { server, source } => {
                    self.copying.found = true;
                    for busy in [server, source] {
                        *loads.entry(busy).or_default() += 1;
                    }
                    self.order_seal(io, chunk, server, source);
                }
                Decision::Trim(server) => {
                    self.copying.found = true;
                    self.trim(io, chunk, server);
                }
            }
        }
        self.copying.queue.extend(left_over);
        // Behind what is missing: all of these have what the log says.
        self.even(io, &mut loads);
        let idle = self.copying.queue.is_empty()
            && self.copying.evening.waiting() == 0
            && self.copying.from == ChunkId(0)
            && self.copying.drains.is_idle()
            && !self.copies.catches_up()
            && !core::mem::take(&mut self.copying.found);
        self.copying.next = now + if idle { PAUSE } else { EVERY };
    }

    /// Fills the queue from the next chunks, and from those that are damaged.
    fn look_for_work(&mut self, now: Instant) {
        if self.copying.from == ChunkId(0) {
            let mut evening = core::mem::take(&mut self.copying.evening);
            evening.retain(|chunk| self.is_unsealed(chunk));
            self.copying.evening = evening;
            let mut retries = core::mem::take(&mut self.copying.retries);
            retries.retain(|chunk| self.is_wanting(chunk));
            self.copying.retries = retries;
        }
        if self.copying.from == ChunkId(0) && !planted::is(Bug::DamageLeft) {
            let from = self.copying.damaged_from;
            let damaged = self.roster.damaged_chunks(from, QUEUE_MAX / 2);
            let last = damaged.last().filter(|_| damaged.len() == QUEUE_MAX / 2);
            self.copying.damaged_from = last.map_or(ChunkId(0), |last| ChunkId(last.0 + 1));
            for chunk in damaged {
                if self.copying.has_turn(chunk, now) {
                    self.copying.queue.insert((0, chunk));
                }
            }
        }
        if self.copies.uneven() == 0 {
            return;
        }
        let Look { uneven, next } = self
            .copies
            .look(self.copying.from, LOOKED_AT, QUEUE_MAX / 2);
        self.copying.from = next.unwrap_or(ChunkId(0));
        for (chunk, had) in uneven {
            if had > 0 && self.copying.has_turn(chunk, now) {
                self.copying.queue.insert((had, chunk));
            }
        }
        self.copying.next = now;
    }

    /// Members that are up and have it whole.
    pub(super) fn good(&self, chunk: &ChunkState) -> Vec<ServerIndex> {
        let members = chunk.members.iter().copied();
        members
            .filter(|member| self.roster.has_whole(*member, chunk.chunk))
            .collect()
    }

    /// A chunk that is at rest, with where it stands and what the log has of it.
    pub(super) fn at_rest(&self, chunk: ChunkId) -> Option<((FileId, u64), ChunkState, Durable)> {
        let at = self.state.owners.get(&chunk)?;
        let owned = self.state.chunks.get(&at)?;
        let log = self.state.logged(at.0, at.1, &owned);
        (!self.state.is_written(at.0) && log.len > 0).then_some((at, owned, log))
    }

    /// Whether a replica more is wanted of a chunk, on this server. Those on servers that are being drained count for
    /// who is being drained himself: they are replicas, and are to be replaced.
    fn is_missing(&self, server: ServerIndex, file: FileId, owned: &ChunkState) -> bool {
        let wanted = usize::from(self.state.replication(file));
        let good = self.good(owned);
        let counts = |member: &&ServerIndex| !self.stays(server) || self.stays(**member);
        good.iter().filter(counts).count() < wanted
    }

    /// Whether a chunk has fewer good replicas than it should, or one that is to move, and one to copy.
    fn is_wanting(&self, chunk: ChunkId) -> bool {
        self.at_rest(chunk).is_some_and(|((file, _), owned, _)| {
            let wanted = usize::from(self.state.replication(file));
            let good = self.good(&owned);
            let moves = good.len() == wanted && !good.iter().all(|server| self.stays(*server));
            moves || (1..wanted).contains(&good.len())
        })
    }

    /// Whether a chunk is at rest and not sealed: its replicas may differ.
    fn is_unsealed(&self, chunk: ChunkId) -> bool {
        self.at_rest(chunk)
            .is_some_and(|(_, owned, _)| owned.sealed.is_none())
    }

    fn next_step(&self, io: &mut Io, chunk: ChunkId, loads: &Loads) -> Decision {
        let Some(((file, _), owned, log)) = self.at_rest(chunk) else {
            return Decision::Leave;
        };
        if self.copying.making.contains_key(&chunk) {
            return Decision::Leave;
        }
        // What is read for a copy is not cut meanwhile.
        if self.sealing.asks(chunk) || self.rechains.has(chunk) {
            return Decision::Busy;
        }
        let wanted = usize::from(self.state.replication(file));
        let good = self.good(&owned);
        if good.is_empty() {
            return Decision::Leave;
        }
        // Who may be gone without anybody knowing yet makes nobody superfluous.
        let heard = |server: &ServerIndex| {
            self.gone_since(*server) + io.config.timing.heartbeat * 2 > io.now.mono
        };
        if good.len() > wanted {
            if !good.iter().all(heard) {
                return Decision::Leave;
            }
            return self.too_many(&good);
        }
        let stays = |server: &ServerIndex| self.stays(*server);
        let leaves = owned.members.iter().copied().find(|at| !stays(at));
        let moves = good.len() == wanted && !good.iter().all(stays);
        let is_up = |server: &ServerIndex| self.roster.get(*server).is_some_and(|at| at.is_up());
        let damaged = owned
            .members
            .iter()
            .copied()
            .find(|member| is_up(member) && !good.contains(member));
        if good.len() == wanted {
            // A damaged one beside enough good ones is not needed.
            if let Some(damaged) = damaged {
                return Decision::Trim(damaged);
            }
            if !moves {
                // Neither is one that is to leave and is not there.
                let enough = leaves.filter(|_| good.iter().all(heard));
                return enough.map_or(Decision::Leave, Decision::Trim);
            }
            if planted::is(Bug::DrainDropsFirst) {
                return leaves.map_or(Decision::Leave, Decision::Trim);
            }
        }
        let damaged = damaged.filter(stays);
        let grace = io.config.re_replicate_after;
        let grace = if good.len() == 1 { grace / 10 } else { grace };
        let lately = |server: &&ServerIndex| {
            !is_up(server) && self.gone_since(**server) + grace > io.now.mono
        };
        let awaited = owned.members.iter().filter(lately).count();
        if !moves && damaged.is_none() && good.len() + awaited >= wanted {
            probe::hit(Probe::CopyAwaitsRestart);
            return Decision::Leave;
        }
        let load = |server: &ServerIndex| loads.get(server).copied().unwrap_or(0);
        let free = |server: &ServerIndex| load(server) < COPIES_OF_SERVER;
        // What failed is not tried again in the same way: another gives, and another gets it.
        let failures = self.copying.retries.failures(chunk) as usize;
        let turned = good.iter().cycle().skip(failures).take(good.len());
        let Some(source) = turned.copied().filter(free).min_by_key(load) else {
            return Decision::Busy;
        };
        // Who has one already that the log does not know of needs none of another.
        let strayed = || {
            let mut strays = self.roster.strays.of(chunk).map(|(server, _)| server);
            strays.find(|server| is_up(server) && stays(server))
        };
        let has_one = damaged.or_else(strayed);
        if let Some(server) = has_one.filter(|_| failures.is_multiple_of(2)) {
            return if free(&server) {
                Decision::Copy { server, source }
            } else {
                Decision::Busy
            };
        }
        let up: Vec<_> = self
            .roster
            .iter()
            .filter(|(server, heard)| {
                heard.is_up() && self.takes_new(*server) && !owned.members.contains(server)
            })
            .collect();
        let all = up.iter();
        let all = all.map(|(server, heard)| self.candidate(*server, heard));
        let (candidates, busy): (Vec<Candidate>, Vec<_>) = all.partition(|at| free(&at.server));
        let racks = good
            .iter()
            .filter(|member| stays(member))
            .filter_map(|member| self.state.roster.get(member));
        let wants = Wanted {
            replicas: 1,
            bytes_free_min: self.chunk_file_bytes() + HEADER_BYTES + log.len,
            client: None,
            racks_taken: racks.map(|member| member.rack.to_string()).collect(),
        };
        // Where it is copied to it stays: one of a rack without a replica is waited for.
        if wants.is_spread_by(&busy) && !wants.is_spread_by(&candidates) {
            return Decision::Busy;
        }
        match choose(&candidates, &wants, &mut io.rng).first() {
            Some(server) => Decision::Copy {
                server: *server,
                source,
            },
            None if !busy.is_empty() => Decision::Busy,
            None => match has_one.filter(free) {
                Some(server) => Decision::Copy { server, source },
                None if leaves.is_some() => Decision::Nowhere,
                None => Decision::Leave,
            },
        }
    }

    /// Of more members than are wanted, which one goes: one that is being drained; else from the rack that has most of
    /// them, the fullest.
    fn too_many(&self, good: &[ServerIndex]) -> Decision {
        let rack = |server: &ServerIndex| {
            let known = self.state.roster.get(server);
            known.map_or("", |known| &*known.rack).to_owned()
        };
        let in_rack = |server: &ServerIndex| {
            let own = rack(server);
            let same = |other: &&ServerIndex| !own.is_empty() && rack(other) == own;
            good.iter().filter(same).count()
        };
        let free = |server: &ServerIndex| self.roster.get(*server).map_or(0, |at| at.bytes_free);
        let goes = good.iter().max_by_key(|server| {
            let leaves = !self.stays(**server);
            let fullest = core::cmp::Reverse(free(server));
            (leaves, in_rack(server), fullest, **server)
        });
        goes.map_or(Decision::Leave, |server| Decision::Trim(*server))
    }

    /// Since when a server is not there: since it was last heard, or since the start.
    fn gone_since(&self, server: ServerIndex) -> Instant {
        let heard = self.roster.get(server);
        heard.map_or(self.started, |heard| heard.at)
    }

    /// Who is to give a copy is asked first how far it is durable, and takes no more pieces from then on.
    fn order_seal(
        &mut self,
        io: &mut Io,
        chunk: ChunkId,
        server: ServerIndex,
        source: ServerIndex,
    ) {
        let Some((_, owned, log)) = self.at_rest(chunk) else {
            return;
        };
        let which = (chunk, owned.version);
        if self
            .order_to_seal(io, source, which, Unsynced::Kept)
            .is_none()
        {
            return;
        }
        let making = Making {
            server,
            source,
            is_sealed: false,
            due: io.now.mono
                + if buggify::is(Site::CopyHurried) {
                    MADE_HURRIED
                } else {
                    MADE_WITHIN + Duration::from_secs(log.len >> 20)
                },
        };
        self.copying.making.insert(chunk, making);
    }

    /// Who gives a copy says how far it is durable: whoever makes it is told to.
    pub(super) fn chunk_sealed(&mut self, io: &mut Io, link: LinkId, m: &ChunkSealed) {
        let Some(source) = self.in_term(io, link, m.term) else {
            return;
        };
        if self.rechain_sealed(io, source, m) || self.rest_told(io, source, m) {
            return;
        }
        let making = self.copying.making.get(&m.chunk).copied();
        let Some(making) = making.filter(|making| making.source == source && !making.is_sealed)
        else {
            return;
        };
        let rest = self.at_rest(m.chunk);
        let rest = rest.filter(|(_, owned, _)| owned.version == m.version);
        let ordered = match (&m.outcome, rest) {
            (Ok(has), Some((at, owned, log))) if owned.is_had_by(log, *has) => {
                self.order_copy(io, making, at.0, &owned, has.durable)
            }
            (Ok(_), _) => false,
            (Err(refusal), _) => {
                tracing::warn!(chunk = %m.chunk, %source, %refusal, "a replica cannot be copied now");
                false
            }
        };
        if !ordered {
            self.copying.making.remove(&m.chunk);
            self.copy_failed(io, m.chunk);
        }
    }

    /// A copy was not made: it is tried again later.
    fn copy_failed(&mut self, io: &Io, chunk: ChunkId) {
        let now = io.now.mono;
        self.copying.failed += 1;
        if self.is_wanting(chunk) || !self.is_unsealed(chunk) {
            self.copying.retries.failed(chunk, now);
        } else {
            // All have what the log says, and are asked again then whether they are the same.
            let at = self.copying.evening.failed(chunk, now);
            self.rests_again(chunk, at);
        }
    }

    fn order_copy(
        &mut self,
        io: &mut Io,
        making: Making,
        file: FileId,
        owned: &ChunkState,
        has: Durable,
    ) -> bool {
        let (chunk, between) = (owned.chunk, (making.server, making.source));
        if !self.order_to_copy(io, between, file, owned, has, HEADER_BYTES + has.len) {
            return false;
        }
        probe::hit(Probe::CopyOrdered);
        let now = io.now.mono;
        let rate = io.config.copy_rate.max(1);
        let takes = Duration::from_nanos(has.len.saturating_mul(1_000_000_000) / rate);
        self.copying.paid_until = self.copying.paid_until.max(now) + takes;
        let is_sealed = true;
        self.copying.making.insert(
            chunk,
            Making {
                is_sealed,
                ..making
            },
        );
        true
    }

    /// Orders a server to copy from another what that one has. Its file may take so much room. Whether both are there.
    pub(super) fn order_to_copy(
        &mut self,
        io: &mut Io,
        (server, source): (ServerIndex, ServerIndex),
        file: FileId,
        owned: &ChunkState,
        has: Durable,
        room: u64,
    ) -> bool {
        let (chunk, version) = (owned.chunk, owned.version);
        let incarnation = self.incarnation_of(chunk, version);
        let (Some((link, term)), Some(source_at), Some(incarnation)) = (
            self.roster.orders_to(server),
            self.place(source),
            incarnation,
        ) else {
            return false;
        };
        tracing::info!(%chunk, %server, %source, bytes = has.len, "a replica is copied");
        let order = CopyChunk {
            term,
            file: self.state.named(chunk, file),
            chunk,
            version,
            incarnation,
            has,
            source: source_at,
        };
        self.reply(io, link, 0, order);
        if let Some(heard) = self.roster.get_mut(server) {
            heard.promised.insert(chunk, room);
        }
        true
    }

    /// Of the meta server that issued a version: what the headers of its replicas say.
    fn incarnation_of(&self, chunk: ChunkId, version: Version) -> Option<Incarnation> {
        let adopted = self.state.adopted.get(&chunk).map(|of| of.incarnation);
        let issued = || self.state.epochs.get(&version.epoch());
        adopted.or_else(|| issued().map(|epoch| epoch.incarnation))
    }

    /// A copy is durable, or could not be made.
    pub(super) fn chunk_copied(&mut self, io: &mut Io, link: LinkId, m: &ChunkCopied) {
        let Some(server) = self.in_term(io, link, m.term) else {
            return;
        };
        if self.rechain_copied(io, server, m) {
            return;
        }
        let making = self.copying.making.get(&m.chunk);
        if making.is_some_and(|making| making.server == server) {
            self.copying.making.remove(&m.chunk);
        }
        match &m.outcome {
            Err(refusal) => {
                probe::hit(Probe::CopyRefused);
                self.copy_failed(io, m.chunk);
                tracing::warn!(chunk = %m.chunk, %server, %refusal, "a replica could not be copied");
            }
            Ok(has) => {
                let counts = self.counts(io, server, (m.chunk, m.version), *has);
                self.copying.retries.settled(m.chunk);
                self.copying.evening.settled(m.chunk);
                if counts == Some(true) {
                    self.copying.made += 1;
                    self.copying.bytes += has.durable.len;
                    self.rests_again(m.chunk, io.now.mono);
                } else if counts.is_none() {
                    // It stays where it is, and is found again when the chunk is at rest, or the log has room.
                    probe::hit(Probe::CopyUnregistered);
                    let stray = Stray {
                        version: m.version,
                        is_known: true,
                    };
                    self.roster.strays.found(server, m.chunk, stray);
                } else {
                    probe::hit(Probe::CopyNotWanted);
                    self.roster.strays.settled(server, m.chunk);
                    let deletes = self.deletes.entry(server).or_default();
                    deletes.push((m.chunk, m.version));
                }
            }
        }
    }

    /// Takes a replica that a server has made, if it is one that is wanted; `None`: it may be, and cannot be taken now.
    fn counts(
        &mut self,
        io: &mut Io,
        server: ServerIndex,
        (chunk, version): (ChunkId, Version),
        has: Content,
    ) -> Option<bool> {
        let Some(at) = self.state.owners.get(&chunk) else {
            return Some(false);
        };
        let Some(owned) = self.state.chunks.get(&at) else {
            return Some(false);
        };
        let is_member = owned.members.contains(&server);
        if owned.version != version {
            return Some(is_member);
        }
        let log = self.state.logged(at.0, at.1, &owned);
        let fits = !self.state.is_written(at.0) && owned.is_had_by(log, has);
        if is_member {
            if fits {
                self.roster.mended(server, chunk, &mut self.copies);
            }
            return Some(true);
        }
        // It was to be written further, and its writer has given that up for now: it may be the only one left.
        if self.state.is_written(at.0) {
            return None;
        }
        if !self.is_missing(server, at.0, &owned) {
            return Some(false);
        }
        // It was written further while this was copied. Another copy takes its place, and until then it stays.
        if !fits {
            return None;
        }
        self.joins(io, server, &owned)
    }

    /// Makes a server that has a replica whole a member, if there is room for one; `None`: the log has none.
    fn joins(&mut self, io: &mut Io, server: ServerIndex, owned: &ChunkState) -> Option<bool> {
        self.has_room(RECORD_BYTES, LOG_RESERVE).ok()?;
        let mut members = owned.members.to_vec();
        let mut made_room = None;
        if members.len() >= usize::from(REPLICATION_MAX) {
            // Who is gone the longest makes room, or who is being drained.
            let gone = members.iter().copied().filter(|member| {
                self.roster
                    .get(*member)
                    .is_none_or(|heard| matches!(heard.standing, Standing::Down))
            });
            let longest = gone.min_by_key(|member| self.gone_since(*member));
            let mut leaving = members.iter().copied();
            let leaving = leaving.find(|member| !self.stays(*member));
            let Some(goes) = longest.or(leaving) else {
                return Some(false);
            };
            members.retain(|member| *member != goes);
            made_room = Some(goes);
        }
        members.push(server);
        let (chunk, version) = (owned.chunk, owned.version);
        let changed = MembersChanged {
            chunk,
            version,
            members,
        };
        self.commit(io, By::NOBODY, changed);
        if let Some(gone) = made_room
            && self.roster.forget(gone, chunk, &mut self.copies)
        {
            self.deletes.entry(gone).or_default().push((chunk, version));
        }
        self.roster.mended(server, owned.chunk, &mut self.copies);
        Some(true)
    }

    /// A member has one that is not needed.
    fn trim(&mut self, io: &mut Io, chunk: ChunkId, server: ServerIndex) {
        let Some((_, owned, _)) = self.at_rest(chunk) else {
            return;
        };
        if self.has_room(RECORD_BYTES, LOG_RESERVE).is_err() {
            return;
        }
        probe::hit(Probe::CopyTrimmed);
        tracing::info!(%chunk, %server, "there are more replicas than are wanted: one goes");
        self.copying.trimmed += 1;
        self.take_off(io, &owned, &[server]);
    }

    /// Takes servers off the members of a chunk at rest, and has them delete what they hold of it. The log has room.
    pub(super) fn take_off(&mut self, io: &mut Io, owned: &ChunkState, gone: &[ServerIndex]) {
        let (chunk, version) = (owned.chunk, owned.version);
        let is_logged = !planted::is(Bug::TrimUnlogged);
        let goes = |member: &ServerIndex| is_logged && gone.contains(member);
        let members = owned.members.iter().copied();
        let members = members.filter(|member| !goes(member)).collect();
        let changed = MembersChanged {
            chunk,
            version,
            members,
        };
        self.commit(io, By::NOBODY, changed);
        for server in gone {
            if self.roster.forget(*server, chunk, &mut self.copies) {
                let deletes = self.deletes.entry(*server).or_default();
                deletes.push((chunk, version));
            }
        }
    }

    /// A chunk is nobody's any more: what is certainly of it goes, wherever it is.
    pub(super) fn strays_freed(&mut self, chunk: ChunkId) {
        self.copying.retries.settled(chunk);
        for (server, stray) in self.roster.strays.freed(chunk) {
            if stray.is_known {
                let deletes = self.deletes.entry(server).or_default();
                deletes.push((chunk, stray.version));
            } else if let Some(heard) = self.roster.get_mut(server) {
                heard.unknown += 1;
            }
        }
    }

    /// A replica of a chunk that is at rest, on a server that is no member: a copy that the log never heard of, or
    /// one of a member that had to make room. It is taken if one is missing, and goes if there are enough.
    pub(super) fn strayed(
        &mut self,
        io: &mut Io,
        server: ServerIndex,
        item: &InventoryItem,
    ) -> Option<Verdict> {
        let ((file, _), owned, log) = self.at_rest(item.chunk)?;
        let is_ours = owned.version == item.version
            && self.state.named(item.chunk, file) == item.file
            && self.incarnation_of(item.chunk, item.version) == Some(item.incarnation)
            && item.state == ReplicaState::Good;
        if !is_ours || owned.members.contains(&server) || self.state.tail_lost.is_some() {
            return None;
        }
        if !self.is_missing(server, file, &owned) {
            probe::hit(Probe::StrayNotWanted);
            return Some(Verdict::Stale);
        }
        if owned.is_had_by(log, item.content()) && self.joins(io, server, &owned) == Some(true) {
            probe::hit(Probe::StrayTaken);
            return Some(Verdict::Keep { log });
        }
        None
    }
}
