//! Chunkservers: hello, terms, heartbeats, what becomes of each replica they report, and when they count as
//! down. What the log knows of a server is its place, boot and rack; the rest is known from its last hello on.
use super::chunkmap::ChunkMap;
use super::copying::strays::{Stray, Strays};
use super::packed::{ChunkSet, Map};
use super::record::{By, ServerJoined};
use super::rollback::is_orphan;
use super::state::State;
use super::{Config, Io, LinkRole, Serving};
use crate::ids::{ChunkId, Epoch, Incarnation, LinkId, ServerIndex, Term, Version};
use crate::machine::Output;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::{Instant, Now};
use crate::wire::chunk_meta::{
    Heartbeat, HeartbeatAnswer, Hello, HelloRefused, Inventory, InventoryItem, ReplicaState,
    ReportDamage, SayHello, SealChunk, Unsynced, Verdict, Verdicts, Welcome,
};
use crate::wire::client_chunk::Durable;
use crate::wire::client_meta::Place;
use crate::wire::{Msg, Refusal, Status};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of a rack's name.
const RACK_BYTES_MAX: usize = 255;
/// An epoch that is heard of must leave room for many above it.
pub(super) const EPOCH_HEARD_MAX: u32 = 1 << 22;

/// The chunkservers heard of since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    heard: BTreeMap<ServerIndex, Heard>,
    pub(super) strays: Strays,
    /// Of the last term, within the epoch.
    terms: u64,
    /// Before this, nobody is silent for too long.
    look_at: Option<Instant>,
    /// Whether servers that are up may have orphans that nobody has looked at.
    pub(super) orphans_wait: bool,
}

/// A chunkserver, as it was last heard.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) addr: SocketAddr,
    pub(super) standing: Standing,
    pub(super) at: Instant,
    pub(super) bytes_free: u64,
    pub(super) bytes_total: u64,
    pub(super) writing: u32,
    /// Chunks placed there since the last heartbeat.
    pub(super) placed: u32,
    /// What each of them may take: a whole chunk, until its file says how much it is.
    pub(super) promised: BTreeMap<ChunkId, u64>,
    /// What it was told to keep, or has made, in its term.
    pub(super) confirmed: Map<ChunkSet>,
    /// What it has and cannot serve whole.
    pub(super) damaged: BTreeSet<ChunkId>,
    /// How far it has what is at rest there and is still written by the log: a report may yet go past it.
    resting: BTreeMap<ChunkId, Durable>,
    /// Replicas it has that are not of this log.
    pub(super) unknown: u64,
    /// Those among them that are of a part of the log that is missing, and have something in them.
    pub(super) orphans: BTreeMap<(ChunkId, Version), InventoryItem>,
    /// Whether some of those were adopted in its term.
    pub(super) found_again: bool,
}

/// Whether a chunkserver is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Down,
    /// It said hello; its inventory is being looked at.
    Joining(Connection),
    Up(Connection),
}

/// A hello that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Connection {
    pub(super) link: LinkId,
    pub(super) term: Term,
    /// The highest answer that the server has said it got, and when that last grew.
    answered: u64,
    answered_at: Instant,
}

impl Heard {
    const fn connection(&self) -> Option<Connection> {
        match self.standing {
            Standing::Down => None,
            Standing::Joining(connection) | Standing::Up(connection) => Some(connection),
        }
    }
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up(_))
    }
}

impl Roster {
    /// The servers heard of since the start.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ServerIndex, &Heard)> {
        self.heard.iter().map(|(server, heard)| (*server, heard))
    }
    pub(super) fn get(&self, server: ServerIndex) -> Option<&Heard> {
        self.heard.get(&server)
    }
    pub(super) fn get_mut(&mut self, server: ServerIndex) -> Option<&mut Heard> {
        self.heard.get_mut(&server)
    }
    /// The link that a server said hello on.
    pub(super) fn link(&self, server: ServerIndex) -> Option<LinkId> {
        self.heard
            .get(&server)?
            .connection()
            .map(|connection| connection.link)
    }
    /// Where orders go, and the term they name.
    pub(super) fn orders_to(&self, server: ServerIndex) -> Option<(LinkId, Term)> {
        self.heard
            .get(&server)?
            .connection()
            .map(|connection| (connection.link, connection.term))
    }
    /// A server that is up, with its replica confirmed: where to read from.
    pub(super) fn serves(&self, server: ServerIndex, chunk: ChunkId) -> Option<SocketAddr> {
        let heard = self
            .heard
            .get(&server)
            .filter(|heard| heard.is_up() && heard.confirmed.contains_key(&chunk))?;
        Some(heard.addr)
    }
    /// A replica is known to be there.
    pub(super) fn confirm(&mut self, server: ServerIndex, chunk: ChunkId, copies: &mut ChunkMap) {
        let Some(heard) = self.heard.get_mut(&server) else {
            return;
        };
        if heard.confirmed.insert(chunk, ()).is_none() && heard.is_up() {
            copies.gained(chunk);
        }
    }
    fn unconfirm(&mut self, server: ServerIndex, chunk: ChunkId, copies: &mut ChunkMap) {
        let Some(heard) = self.heard.get_mut(&server) else {
            return;
        };
        if heard.confirmed.remove(&chunk).is_some() && heard.is_up() {
            copies.lost(chunk);
        }
    }
    /// The log has this of a chunk now. A replica that restarted meanwhile, with less, is damaged: its server
    /// was told to keep it before the log had heard of the sync that it lost.
    pub(super) fn outgrown(
        &mut self,
        server: ServerIndex,
        chunk: ChunkId,
        log: Durable,
        copies: &mut ChunkMap,
    ) {
        let Some(heard) = self.heard.get_mut(&server) else {
            return;
        };
        if heard.resting.get(&chunk).is_none_or(|has| has.covers(log)) {
            return;
        }
        probe::hit(Probe::ReplicaOutgrown);
        tracing::warn!(%server, %chunk, ?log, "a replica lacks what was synced: it is damaged");
        heard.resting.remove(&chunk);
        heard.damaged.insert(chunk);
        self.unconfirm(server, chunk, copies);
    }
    /// A chunk takes so many bytes and no more, as far as its server has not counted it yet.
    pub(super) fn settle(&mut self, server: ServerIndex, chunk: ChunkId, bytes: u64) {
        let heard = self.heard.get_mut(&server);
        if let Some(promise) = heard.and_then(|heard| heard.promised.get_mut(&chunk)) {
            *promise = bytes.min(*promise);
        }
    }
    /// A chunk is nobody's any more. Whether the server is there to be told.
    pub(super) fn forget(
        &mut self,
        server: ServerIndex,
        chunk: ChunkId,
        copies: &mut ChunkMap,
    ) -> bool {
        self.unconfirm(server, chunk, copies);
        let Some(heard) = self.heard.get_mut(&server) else {
            return false;
        };
        heard.damaged.remove(&chunk);
        heard.resting.remove(&chunk);
        heard.promised.remove(&chunk);
        heard.connection().is_some()
    }
    /// Ends a server's term; gives its link.
    fn end_term(&mut self, server: ServerIndex, copies: &mut ChunkMap) -> Option<LinkId> {
        let heard = self.heard.get_mut(&server)?;
        let connection = heard.connection()?;
        if heard.is_up() {
            for chunk in heard.confirmed.keys() {
                copies.lost(chunk);
            }
        }
        heard.confirmed = Map::default();
        heard.damaged.clear();
        heard.resting.clear();
        heard.unknown = 0;
        heard.orphans.clear();
        heard.found_again = false;
        heard.standing = Standing::Down;
        self.strays.server_down(server);
        Some(connection.link)
    }
    /// Whether a server is up and has a replica that it can serve whole.
    pub(super) fn has_whole(&self, server: ServerIndex, chunk: ChunkId) -> bool {
        let heard = self.heard.get(&server).filter(|heard| heard.is_up());
        heard.is_some_and(|heard| {
            heard.confirmed.contains_key(&chunk) && !heard.damaged.contains(&chunk)
        })
    }
    /// Whether a server that is up has a replica that it cannot serve whole.
    pub(super) fn has_damage(&self) -> bool {
        let mut heard = self.heard.values();
        heard.any(|heard| heard.is_up() && !heard.damaged.is_empty())
    }
    /// The first chunks, from this one on, of which a server that is up has a damaged replica.
    pub(super) fn damaged_chunks(&self, from: ChunkId, most: usize) -> BTreeSet<ChunkId> {
        let mut first = BTreeSet::new();
        for heard in self.heard.values().filter(|heard| heard.is_up()) {
            first.extend(heard.damaged.range(from..).take(most));
            while first.len() > most {
                first.pop_last();
            }
        }
        first
    }
    /// A replica that was damaged was made anew.
    pub(super) fn mended(&mut self, server: ServerIndex, chunk: ChunkId, copies: &mut ChunkMap) {
        if let Some(heard) = self.heard.get_mut(&server) {
            heard.damaged.remove(&chunk);
            heard.resting.remove(&chunk);
        }
        self.strays.settled(server, chunk);
        self.confirm(server, chunk, copies);
    }
    /// A replica is written again: it is not at rest, and goes with the log.
    pub(super) fn resumed(&mut self, server: ServerIndex, chunk: ChunkId, copies: &mut ChunkMap) {
        if let Some(heard) = self.heard.get_mut(&server) {
            heard.resting.remove(&chunk);
        }
        self.confirm(server, chunk, copies);
    }
    /// A server has a replica of a part of the log that is missing.
    fn orphaned(&mut self, server: ServerIndex, item: &InventoryItem) {
        if let Some(heard) = self.heard.get_mut(&server) {
            heard.orphans.insert((item.chunk, item.version), *item);
        }
    }
    /// When to look next whether a server is silent for too long.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.look_at
    }
    /// The servers that are silent for too long; and when to look next.
    fn silent(&mut self, now: Instant, lease: Duration) -> Vec<ServerIndex> {
        if self.look_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let ends = || {
            self.heard
                .iter()
                .filter_map(|(server, heard)| Some((silent_at(heard, lease)?, *server)))
        };
        let silent = ends()
            .filter(|(at, _)| *at <= now && !planted::is(Bug::SilenceForgiven))
            .map(|(_, server)| server)
            .collect();
        self.look_at = ends().map(|(at, _)| at).filter(|at| *at > now).min();
        silent
    }
}

/// When a server's silence, or that of the answers to it, ends its term.
fn silent_at(heard: &Heard, lease: Duration) -> Option<Instant> {
    let connection = heard.connection()?;
    Some(heard.at.min(connection.answered_at) + lease)
}

impl Serving {
    pub(super) fn hello(&mut self, io: &mut Io, link: LinkId, request: u64, m: &Hello) {
        match self.welcome(io, link, m) {
            Ok(welcome) => self.reply(io, link, request, welcome),
            Err(refusal) => {
                tracing::warn!(node = %m.node, %refusal, "a chunkserver was refused");
                self.reply(io, link, request, HelloRefused { refusal });
            }
        }
    }

    fn welcome(&mut self, io: &mut Io, link: LinkId, m: &Hello) -> Result<Welcome, Refusal> {
        let refuse = |what: String| Err(Refusal::new(Status::BadRequest, what));
        let cluster = self.identity.cluster;
        if m.cluster != cluster && m.cluster.0 != 0 {
            return refuse(format!(
                "this server belongs to cluster {}, the meta server to {cluster}",
                m.cluster
            ));
        }
        if m.geometry != self.state.geometry() {
            let ours = self.state.geometry();
            return refuse(format!(
                "this server stores chunks as {:?}, the cluster as {ours:?}",
                m.geometry
            ));
        }
        if m.node.0 == 0 || m.rack.len() > RACK_BYTES_MAX || m.addr.port() == 0 {
            return refuse(
                "a hello without a node id, with no port, or with a rack's name that is too long"
                    .into(),
            );
        }
        let known = self.state.nodes.get(&m.node).copied();
        let server = known.and_then(|index| self.state.roster.get(&index));
        let rejoins =
            server.is_some_and(|server| (server.boot, server.instance) == (m.boot, m.instance));
        if let Some(server) = server.filter(|server| !rejoins && m.boot <= server.boot)
            && !planted::is(Bug::ClonedDiskAccepted)
        {
            probe::hit(Probe::HelloCloned);
            let (node, boot, known) = (m.node, m.boot, server.boot);
            let what = format!(
                "node {node} has started {known} times and this says it is start {boot}: is its disk cloned, or restored?"
            );
            return Err(Refusal::new(Status::Permission, what));
        }
        // Three records may follow: the epoch, what is lost, and the server.
        self.has_room(3_072, 1)?;
        if self.is_ahead(m.seen) {
            self.raise_epoch(io, m.seen.0);
        }
        self.witnessed(io, m.node, m.seen, m.seen_seq);
        let index = known.unwrap_or_else(|| {
            self.state
                .roster
                .get_max()
                .map_or(ServerIndex(1), |(last, _)| last.next())
        });
        if !rejoins {
            let (node, boot, instance, rack) = (m.node, m.boot, m.instance, m.rack.clone());
            self.commit(
                io,
                By::NOBODY,
                ServerJoined {
                    index,
                    node,
                    boot,
                    instance,
                    rack,
                },
            );
        }
        let older = self.roster.link(index).filter(|older| *older != link);
        self.server_down(io, index, "it said hello again");
        if let Some(older) = older {
            probe::hit(Probe::HelloAgain);
            drop_link(io, older);
        }
        self.leave_link(io, link, index);
        let Some(up) = io.links.get_mut(&link) else {
            return Err(Refusal::new(Status::Busy, "the link is gone"));
        };
        up.role = LinkRole::Server(index);
        let ip = if m.addr.ip().is_unspecified() {
            up.peer.addr.ip()
        } else {
            m.addr.ip()
        };
        self.roster.terms += 1;
        let term = Term {
            epoch: self.state.epoch,
            number: self.roster.terms,
        };
        let now = io.now.mono;
        let heard = Heard {
            addr: SocketAddr::new(ip, m.addr.port()),
            standing: Standing::Joining(Connection {
                link,
                term,
                answered: 0,
                answered_at: now,
            }),
            at: now,
            bytes_free: m.bytes_free,
            bytes_total: m.bytes_total,
            writing: 0,
            placed: 0,
            promised: BTreeMap::new(),
            confirmed: Map::default(),
            damaged: BTreeSet::new(),
            resting: BTreeMap::new(),
            unknown: 0,
            orphans: BTreeMap::new(),
            found_again: false,
        };
        self.roster.heard.insert(index, heard);
        let silent_at = now + io.config.timing.serve_lease;
        self.roster.look_at = Some(
            self.roster
                .look_at
                .map_or(silent_at, |at| at.min(silent_at)),
        );
        let incarnation = self.state.incarnation();
        Ok(Welcome {
            cluster,
            term,
            incarnation,
            timing: io.config.timing,
        })
    }

    /// A link that was another server's, or this server's other link, is not any more.
    fn leave_link(&mut self, io: &mut Io, link: LinkId, index: ServerIndex) {
        if let Some(LinkRole::Server(before)) = io.links.get(&link).map(|link| link.role)
            && before != index
            && self.roster.link(before) == Some(link)
        {
            self.server_down(io, before, "its link was taken by another server");
        }
    }

    /// Whether a meta server's epoch that was seen must be passed: it is above ours, or ours lived twice.
    fn is_ahead(&self, (epoch, incarnation): (Epoch, Incarnation)) -> bool {
        let ours = self.state.epoch;
        let twice = epoch == ours && incarnation != self.state.incarnation();
        (epoch > ours || twice) && epoch.0 < EPOCH_HEARD_MAX && !planted::is(Bug::EpochLivedTwice)
    }

    pub(super) fn epoch_behind(&mut self, io: &mut Io, link: LinkId, seen: (Epoch, Incarnation)) {
        if self.is_ahead(seen) && self.has_room(1_024, 0).is_ok() {
            self.raise_epoch(io, seen.0);
        }
        io.outbox.push(Output::Close { link });
        if let Some(closed) = io.links.remove(&link) {
            self.closed(io, link, closed.role);
        }
    }

    /// Begins an epoch above one that was heard of. All terms end with it: every server says hello again.
    fn raise_epoch(&mut self, io: &mut Io, heard: Epoch) {
        probe::hit(Probe::EpochRaised);
        let epoch = Epoch(heard.0.max(self.state.epoch.0) + 1);
        tracing::warn!(%heard, %epoch, "a chunkserver has seen a later epoch: a part of the log may be missing");
        let servers: Vec<ServerIndex> = self.roster.heard.keys().copied().collect();
        let ended: Vec<(ServerIndex, LinkId)> = servers
            .into_iter()
            .filter_map(|server| Some((server, self.roster.end_term(server, &mut self.copies)?)))
            .collect();
        self.roster.terms = 0;
        self.started = io.now.mono;
        self.begin_epoch(io, epoch);
        for (server, link) in ended {
            drop_link(io, link);
            self.member_lost(io, server, "a new epoch has begun");
            self.rechains_lost(io, server);
        }
    }

    /// Ends a server's term, if it has one. An older link of it is closed by who calls, or gone.
    pub(super) fn server_down(&mut self, io: &mut Io, server: ServerIndex, why: &str) {
        if let Some(link) = self.roster.end_term(server, &mut self.copies) {
            tracing::info!(%server, why, "a chunkserver's term ended");
            if let Some(link) = io.links.get_mut(&link) {
                link.role = LinkRole::Unsaid;
            }
            self.member_lost(io, server, why);
            if self.copying.server_down(server) {
                let lease = io.config.timing.serve_lease;
                self.sealing.look_later(io.now.mono, lease);
            }
            self.rechains_lost(io, server);
        }
    }

    /// Ends a server's term, and asks it to begin another one.
    pub(super) fn says_hello_again(&mut self, io: &mut Io, server: ServerIndex, why: &str) {
        let link = self.roster.link(server);
        self.server_down(io, server, why);
        if let Some(link) = link {
            io.outbox
                .send(link, Msg::new(0, SayHello { why: why.into() }));
        }
    }

    pub(super) fn silence_servers(&mut self, io: &mut Io) {
        for server in self
            .roster
            .silent(io.now.mono, io.config.timing.serve_lease)
        {
            probe::hit(Probe::ServerSilent);
            let link = self.roster.link(server);
            self.server_down(io, server, "nothing was heard of it for a lease");
            if let Some(link) = link {
                drop_link(io, link);
            }
        }
    }

    /// The server whose current term this is, said on its own link.
    pub(super) fn in_term(&self, io: &Io, link: LinkId, term: Term) -> Option<ServerIndex> {
        let LinkRole::Server(server) = io.links.get(&link)?.role else {
            return None;
        };
        (self.roster.orders_to(server) == Some((link, term))).then_some(server)
    }

    pub(super) fn heartbeat(&mut self, io: &mut Io, link: LinkId, request: u64, m: &Heartbeat) {
        let now = io.now.mono;
        let Some(server) = self.in_term(io, link, m.term) else {
            let why = "the term it named has ended".into();
            return io.outbox.send(link, Msg::new(request, SayHello { why }));
        };
        let heard = self
            .roster
            .heard
            .get_mut(&server)
            .expect("a server in a term was heard");
        heard.at = now;
        (heard.bytes_free, heard.bytes_total, heard.writing) =
            (m.bytes_free, m.bytes_total, m.chunks_writing);
        heard.placed = 0;
        heard.promised.clear();
        if let Standing::Joining(connection) | Standing::Up(connection) = &mut heard.standing
            && (m.answered > connection.answered || m.number <= 1)
        {
            (connection.answered, connection.answered_at) = (m.answered, now);
        }
        let answer = HeartbeatAnswer {
            term: m.term,
            number: m.number,
            durable: io.outbox.durable(),
        };
        io.outbox.send(link, Msg::new(request, answer));
    }

    pub(super) fn inventory(&mut self, io: &mut Io, link: LinkId, request: u64, m: &Inventory) {
        let Some(server) = self.in_term(io, link, m.term) else {
            let why = "the term it named has ended".into();
            return io.outbox.send(link, Msg::new(request, SayHello { why }));
        };
        let mut verdicts = Vec::with_capacity(m.items.len());
        for item in &m.items {
            let verdict = match verdict(&self.state, server, item) {
                Verdict::Unknown => self.strayed(io, server, item).unwrap_or(Verdict::Unknown),
                verdict => verdict,
            };
            let heard = self
                .roster
                .heard
                .get_mut(&server)
                .expect("a server in a term was heard");
            match verdict {
                Verdict::Keep { .. } => {
                    if item.state == ReplicaState::Good && self.state.is_written(item.file) {
                        heard.resting.insert(item.chunk, item.durable());
                    }
                    self.roster.confirm(server, item.chunk, &mut self.copies);
                }
                Verdict::Stale => probe::hit(Probe::ReplicaStale),
                Verdict::Damaged { log } => {
                    probe::hit(Probe::ReplicaDamaged);
                    heard.damaged.insert(item.chunk);
                    tracing::warn!(%server, chunk = %item.chunk, ?log, has = ?item.durable(), "a replica is damaged");
                }
                Verdict::Unknown => {
                    probe::hit(Probe::ReplicaUnknown);
                    if self.state.owners.get(&item.chunk).is_some() {
                        let stray = Stray {
                            version: item.version,
                            is_known: is_of_this_log(&self.state, item),
                        };
                        self.roster.strays.found(server, item.chunk, stray);
                    } else {
                        heard.unknown += 1;
                    }
                    tracing::warn!(%server, ?item, "a replica is not of this log; it is left where it is");
                    let node = self.state.roster.get(&server).map(|known| known.node);
                    self.witnessed_by_replica(io, node.unwrap_or_default(), item);
                    if is_orphan(&self.state, item) {
                        self.roster.orphaned(server, item);
                    }
                }
            }
            verdicts.push((item.chunk, item.version, verdict));
        }
        let heard = self
            .roster
            .heard
            .get_mut(&server)
            .expect("a server in a term was heard");
        heard.at = io.now.mono;
        if let (Standing::Joining(connection), true) = (heard.standing, m.last) {
            heard.standing = Standing::Up(connection);
            for chunk in heard.confirmed.keys() {
                self.copies.gained(chunk);
            }
            self.copying.server_up(io.now.mono);
            if !heard.orphans.is_empty() {
                self.roster.orphans_wait = true;
            }
        }
        self.reply(
            io,
            link,
            request,
            Verdicts {
                term: m.term,
                verdicts,
                accepted: m.last,
            },
        );
    }

    pub(super) fn damage_reported(&mut self, io: &Io, link: LinkId, m: &ReportDamage) {
        let Some(server) = self.in_term(io, link, m.term) else {
            return;
        };
        let owned = self
            .state
            .owners
            .get(&m.chunk)
            .and_then(|at| self.state.chunks.get(&at));
        if owned.is_none_or(|chunk| chunk.version != m.version || !chunk.members.contains(&server))
        {
            return;
        }
        probe::hit(Probe::DamageReported);
        tracing::warn!(%server, chunk = %m.chunk, block = m.block, why = m.why, "a replica is damaged");
        if m.block.is_none() {
            self.roster.unconfirm(server, m.chunk, &mut self.copies);
        }
        if let Some(heard) = self.roster.get_mut(server) {
            heard.damaged.insert(m.chunk);
        }
    }

    /// Where a member listens, if it was heard of since the start.
    pub(super) fn place(&self, server: ServerIndex) -> Option<Place> {
        let node = self.state.roster.get(&server)?.node;
        Some(Place {
            node,
            addr: self.roster.get(server)?.addr,
        })
    }
    /// Orders a server to take no more pieces for its replica; in which term, if it is there.
    pub(super) fn order_to_seal(
        &self,
        io: &mut Io,
        server: ServerIndex,
        (chunk, version): (ChunkId, Version),
        unsynced: Unsynced,
    ) -> Option<Term> {
        let (link, term) = self.roster.orders_to(server)?;
        let order = SealChunk {
            term,
            chunk,
            version,
            unsynced,
        };
        self.reply(io, link, 0, order);
        Some(term)
    }
    /// Until when servers are waited for that were there before the start.
    fn awaited_until(&self, config: &Config) -> Instant {
        self.started + config.timing.serve_lease + config.timing.heartbeat
    }
    /// Why changes wait, if they do: who is not heard yet may have seen a part of the log that is missing here, and
    /// what is acknowledged before that is known goes into the wrong history. Who was there before the start is
    /// waited for as long as a server counts as there without a word of it, and one of them for as long as it takes.
    pub(super) fn awaits_witnesses(&self, config: &Config, now: Now) -> Option<String> {
        if planted::is(Bug::WitnessesNotAwaited) {
            return None;
        }
        let known = self.state.roster.len();
        let heard = self.roster.heard.len();
        let is_over = now.mono >= self.awaited_until(config) && heard > 0;
        (heard < known && !is_over).then(|| {
            format!(
                "after a start changes wait for chunkservers, which may know more of the log: {heard} of {known} have said hello"
            )
        })
    }
    /// Whether servers may still come back that were there before the start.
    pub(super) fn awaits_servers(&self, io: &Io) -> bool {
        let unheard = |server: &ServerIndex| {
            self.roster
                .get(*server)
                .is_none_or(|heard| matches!(heard.standing, Standing::Joining(_)))
        };
        io.now.mono < self.awaited_until(&io.config) && self.state.roster.keys().any(unheard)
    }
    /// The address a link comes from.
    pub(super) fn host(io: &Io, link: LinkId) -> Option<IpAddr> {
        io.links.get(&link).map(|link| link.peer.addr.ip())
    }
}

pub(super) fn drop_link(io: &mut Io, link: LinkId) {
    io.links.remove(&link);
    io.outbox.push(Output::Close { link });
}

/// What becomes of a replica. Only what is certainly ours and certainly nobody's is stale.
fn verdict(state: &State, server: ServerIndex, item: &InventoryItem) -> Verdict {
    if let Some(at) = state.owners.get(&item.chunk) {
        let chunk = state.chunks.get(&at).expect("an owner has its chunk");
        let named = state.named(item.chunk, at.0);
        let ours =
            named == item.file && chunk.version == item.version && chunk.members.contains(&server);
        let log = state.logged(at.0, at.1, &chunk);
        return match item.state {
            _ if !ours => Verdict::Unknown,
            _ if log.len == 0 && planted::is(Bug::UnreadReplicaStale) => Verdict::Stale,
            ReplicaState::Writing | ReplicaState::Good if chunk.is_had_by(log, item.content()) => {
                Verdict::Keep { log }
            }
            ReplicaState::Writing | ReplicaState::Good | ReplicaState::BadHeader => {
                Verdict::Damaged { log }
            }
        };
    }
    let given_up = state.rollback_accepted() > Epoch(0) && planted::is(Bug::AcceptedDeleted);
    let stale = is_of_this_log(state, item) || given_up || planted::is(Bug::UnknownDeleted);
    match item.state {
        ReplicaState::Writing | ReplicaState::Good if stale => Verdict::Stale,
        ReplicaState::Writing | ReplicaState::Good | ReplicaState::BadHeader => Verdict::Unknown,
    }
}

/// Whether a replica has a header that says it was made by order of this log.
fn is_of_this_log(state: &State, item: &InventoryItem) -> bool {
    let issued = |epoch: Epoch, counter: u64| is_issued(state, epoch, counter);
    let epoch = state.incarnations.get(&item.incarnation).copied();
    item.state != ReplicaState::BadHeader
        && epoch == Some(item.version.epoch())
        && item.chunk.epoch() <= item.version.epoch()
        && issued(item.version.epoch(), item.version.counter())
        && issued(item.chunk.epoch(), item.chunk.counter())
}

/// Whether this log issued an id.
pub(super) fn is_issued(state: &State, epoch: Epoch, counter: u64) -> bool {
    state
        .epochs
        .get(&epoch)
        .is_some_and(|epoch| (1..=epoch.issued).contains(&counter))
}
