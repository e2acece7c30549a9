//! The meta server as a chunkserver sees it: hello, inventory and verdicts, heartbeats, orders.
//!
//! Each accepted hello is a term; what names another term is dropped. A meta server whose epoch is below
//! one that was accepted before is refused, durably: the identity file holds the highest.
use super::inventory::Standing;
use super::name::{ChunkName, ReplicaId};
use super::{Chunk, Event, Stopping};
use crate::buggify::{self, Site};
use crate::ids::{CallId, ChunkId, LinkId, LogSeq, Term, Version, WriteSeq};
use crate::limits::INVENTORY_BATCH;
use crate::machine::{CloseReason, DiskResult, FaultKind, Output};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::{
    EpochBehind, Heartbeat, HeartbeatAnswer, Hello, HelloRefused, Inventory, ReplicaState,
    ReportDamage, SayHello, Verdict, Verdicts, Welcome,
};
use crate::wire::{Head, Msg, Role, Status};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// The first and the longest pause between two tries to reach the meta server.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A period of zero would never let time pass.
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// Damage that waits to be reported again at the next hello.
const DAMAGE_MAX: usize = 1_024;

/// Where this server stands with the meta server.
#[derive(Clone, Debug)]
pub(super) enum Station {
    /// The disk is being read.
    Starting,
    /// How much room there is, is being asked.
    Measuring,
    /// The meta server is dialed again at this time.
    Away {
        until: Instant,
        tries: u32,
    },
    Dialing {
        link: LinkId,
        tries: u32,
    },
    /// The hello was said.
    Greeting {
        link: LinkId,
        since: Instant,
        tries: u32,
    },
    /// The welcome names what the identity file does not have yet.
    Recording {
        link: LinkId,
        welcome: Box<Welcome>,
    },
    Member(Box<Member>),
}

/// A term.
#[derive(Clone, Debug)]
pub(super) struct Member {
    link: LinkId,
    term: Term,
    /// What is still to be said of the inventory, sorted.
    left: VecDeque<ChunkName>,
    /// The batch that waits for its verdicts; `None`: all was said.
    batch: Option<Vec<ReplicaId>>,
    accepted: bool,
    /// The last heartbeat sent, and when the next one is due.
    beat: u64,
    beat_at: Instant,
    /// Heartbeats not answered: number and when they were sent.
    unanswered: VecDeque<(u64, Instant)>,
    answered: u64,
    /// When the last answered heartbeat was sent.
    alive: Instant,
}

impl Station {
    pub(super) const fn link(&self) -> Option<LinkId> {
        match self {
            Self::Starting | Self::Measuring | Self::Away { .. } => None,
            Self::Dialing { link, .. }
            | Self::Greeting { link, .. }
            | Self::Recording { link, .. } => Some(*link),
            Self::Member(member) => Some(member.link),
        }
    }
    pub(super) const fn term(&self) -> Option<Term> {
        match self {
            Self::Member(member) => Some(member.term),
            _ => None,
        }
    }
    pub(super) const fn accepted(&self) -> bool {
        matches!(self, Self::Member(member) if member.accepted)
    }
    const fn tries(&self) -> u32 {
        match self {
            Self::Away { tries, .. }
            | Self::Dialing { tries, .. }
            | Self::Greeting { tries, .. } => *tries,
            _ => 0,
        }
    }
}

impl Chunk {
    /// The disk said how much room it has.
    pub(super) fn space_measured(&mut self, written: u64, result: DiskResult) {
        self.space.measure(written, result);
        if matches!(self.station, Station::Measuring) {
            self.dial_meta(0);
        }
    }

    pub(super) fn station_due(&self) -> Option<(Instant, &'static str)> {
        match &self.station {
            Station::Away { until, .. } => Some((*until, "dial the meta server")),
            Station::Greeting { since, .. } => {
                Some((*since + self.timing.serve_lease, "hello unanswered"))
            }
            Station::Member(member) => {
                let lapse = member.alive + self.timing.serve_lease.max(PERIOD_MIN);
                let beat = (member.beat_at, "heartbeat");
                Some(if lapse < beat.0 {
                    (lapse, "heartbeats unanswered")
                } else {
                    beat
                })
            }
            Station::Starting
            | Station::Measuring
            | Station::Dialing { .. }
            | Station::Recording { .. } => None,
        }
    }

    pub(super) fn station_on_time(&mut self) {
        let now = self.now.mono;
        match &self.station {
            Station::Away { until, tries } if *until <= now => {
                let tries = *tries;
                self.dial_meta(tries);
            }
            Station::Greeting { since, .. } if *since + self.timing.serve_lease <= now => {
                self.leave_meta("the meta server does not answer the hello");
            }
            Station::Member(member)
                if member.alive + self.timing.serve_lease.max(PERIOD_MIN) <= now =>
            {
                probe::hit(Probe::HeartbeatsUnanswered);
                self.leave_meta("the meta server does not answer heartbeats");
            }
            Station::Member(member) if member.beat_at <= now => self.heartbeat(),
            _ => {}
        }
    }

    fn dial_meta(&mut self, tries: u32) {
        let link = self.outbox.dial(self.config.meta);
        self.links.dialed_meta(link);
        self.station = Station::Dialing { link, tries };
    }

    /// The link to the meta server is up.
    pub(super) fn greet(&mut self) {
        let Station::Dialing { link, tries } = self.station else {
            return;
        };
        let role = self
            .links
            .get(link)
            .and_then(|link| link.peer.as_ref())
            .map(|peer| peer.role);
        if role != Some(Role::Meta) {
            return self.leave_meta("what answers there is no meta server");
        }
        let hello = Hello {
            cluster: self.identity.cluster,
            node: self.identity.node,
            boot: self.identity.boot,
            instance: self.instance,
            addr: self.config.listen,
            rack: self.config.rack.clone(),
            seen: self.identity.seen,
            seen_seq: self.identity.seen_seq,
            bytes_free: self.space.bytes_free(),
            bytes_total: self.space.bytes_total(),
            geometry: self.config.geometry,
        };
        self.station = Station::Greeting {
            link,
            since: self.now.mono,
            tries,
        };
        self.send(link, Msg::new(0, hello));
    }

    /// Closes the link to the meta server, and tries again later.
    fn leave_meta(&mut self, why: &str) {
        if let Some(link) = self.station.link() {
            self.outbox.push(Output::Close { link });
            self.links.closed(&mut self.outbox, link);
        }
        self.away(why.into());
    }

    /// Says hello again, for the meta server to hear of what is here now.
    pub(super) fn greet_again(&mut self, why: &str) {
        if self.station.term().is_some() {
            self.leave_meta(why);
        }
    }

    /// The link to the meta server is gone.
    pub(super) fn meta_lost(&mut self, why: &CloseReason) {
        match (why, self.counts_as_new()) {
            (CloseReason::Refused(_), true) => {
                let what = format!(
                    "the meta server at {} refuses this server: {why}",
                    self.config.meta
                );
                self.halt(
                    FaultKind::Refused,
                    what,
                    Some("check --meta and --data".into()),
                );
            }
            _ => self.away(why.to_string()),
        }
    }

    /// Whether no meta server has accepted it in this process.
    const fn counts_as_new(&self) -> bool {
        !self.ready_said
    }

    fn away(&mut self, why: String) {
        self.copies_end();
        let tries = self.station.tries();
        let pause = RETRY_FIRST
            .saturating_mul(1 << tries.min(16))
            .min(RETRY_MAX);
        let pause = if buggify::is(Site::ServerRedialsAtOnce) {
            RETRY_FIRST / 100
        } else {
            pause
        };
        let until = self.now.mono + self.rng.jitter(pause);
        self.station = Station::Away {
            until,
            tries: tries.saturating_add(1),
        };
        let why = format!("waiting for the meta server at {}: {why}", self.config.meta);
        if self.waiting_said.as_ref() != Some(&why) && self.stopping == Stopping::No {
            self.waiting_said = Some(why.clone());
            self.outbox.event(CallId::NONE, Event::Waiting { why });
        }
    }

    /// A message that only the meta server sends; from anybody else it is nonsense.
    pub(super) fn meta_says(&mut self, link: LinkId, request: u64, head: Head) {
        if self.station.link() != Some(link) {
            return self.close(
                link,
                format!("{} does not belong on this link", head.name()),
            );
        }
        let term = self.station.term();
        match head {
            Head::Welcome(welcome) => self.welcomed(link, welcome),
            Head::HelloRefused(refused) => self.hello_refused(&refused),
            Head::SayHello(SayHello { why }) => self.leave_meta(&why),
            Head::Verdicts(verdicts) if Some(verdicts.term) == term => self.verdicts(verdicts),
            Head::HeartbeatAnswer(answer) if Some(answer.term) == term => self.heard(&answer),
            Head::CreateChunk(order) if Some(order.term) == term => {
                self.create_chunk(link, request, order)
            }
            Head::DeleteChunks(order) if Some(order.term) == term => {
                self.delete_chunks(link, request, order)
            }
            Head::SealChunk(order) if Some(order.term) == term => {
                self.seal_chunk(link, request, &order)
            }
            Head::CopyChunk(order) if Some(order.term) == term => {
                self.copy_chunk(link, request, order)
            }
            Head::ResumeChunk(order) if Some(order.term) == term => {
                self.resume_chunk(link, request, order)
            }
            Head::Verdicts(_)
            | Head::HeartbeatAnswer(_)
            | Head::CreateChunk(_)
            | Head::DeleteChunks(_)
            | Head::SealChunk(_)
            | Head::ResumeChunk(_)
            | Head::CopyChunk(_) => {}
            other => self.close(link, format!("a meta server does not say {}", other.name())),
        }
    }

    fn hello_refused(&mut self, HelloRefused { refusal }: &HelloRefused) {
        // What passes by itself: too much to do, or no room in the log for who is new.
        if matches!(refusal.status, Status::Busy | Status::ReadOnly) {
            return self.leave_meta(&refusal.detail);
        }
        let what = format!(
            "the meta server at {} refuses this server: {}",
            self.config.meta, refusal.detail
        );
        self.halt(FaultKind::Refused, what, None);
    }

    fn welcomed(&mut self, link: LinkId, welcome: Welcome) {
        if !matches!(self.station, Station::Greeting { .. }) {
            return;
        }
        let ours = self.identity.cluster;
        if ours.0 != 0 && ours != welcome.cluster {
            let what = format!(
                "this server belongs to cluster {ours}, the meta server to {}",
                welcome.cluster
            );
            return self.halt(
                FaultKind::Refused,
                what,
                Some("check --meta and --data".into()),
            );
        }
        let (seen_epoch, seen_incarnation) = self.identity.seen;
        let epoch = welcome.term.epoch;
        let behind =
            epoch < seen_epoch || (epoch == seen_epoch && welcome.incarnation != seen_incarnation);
        if behind && !planted::is(Bug::EpochLivedTwice) {
            probe::hit(Probe::EpochBehind);
            let seen = self.identity.seen;
            self.send(link, Msg::new(0, EpochBehind { seen }));
            return self.leave_meta(&format!(
                "its epoch {epoch} is behind {seen_epoch}, which was accepted before"
            ));
        }
        self.timing = welcome.timing;
        self.station = Station::Recording {
            link,
            welcome: Box::new(welcome),
        };
        self.record_welcome();
    }

    /// Makes sure that the identity file has what the welcome says, then goes on.
    fn record_welcome(&mut self) {
        let Station::Recording { link, welcome } = &self.station else {
            return;
        };
        if !self.identity_steps.is_empty() {
            return;
        }
        let seen = (welcome.term.epoch, welcome.incarnation);
        if self.identity.seen == seen && self.identity.cluster == welcome.cluster {
            let (link, term) = (*link, welcome.term);
            return self.join(link, term);
        }
        assert!(
            self.identity.seen.0 <= seen.0 || planted::is(Bug::EpochLivedTwice),
            "an epoch behind was refused before"
        );
        self.identity.seen = seen;
        self.identity.seen_seq = LogSeq(0);
        self.identity.cluster = welcome.cluster;
        self.replace_identity(super::recovery::Leftover::None, Vec::new());
    }

    /// The identity file was replaced.
    pub(super) fn identity_recorded(&mut self) {
        self.record_welcome();
    }

    /// The term begins: heartbeats before inventory.
    fn join(&mut self, link: LinkId, term: Term) {
        let member = Member {
            link,
            term,
            left: self.inventory.names().into(),
            batch: None,
            accepted: false,
            beat: 0,
            beat_at: self.now.mono,
            unanswered: VecDeque::new(),
            answered: 0,
            alive: self.now.mono,
        };
        self.station = Station::Member(Box::new(member));
        self.heartbeat();
        self.say_inventory();
    }

    fn heartbeat(&mut self) {
        let Station::Member(member) = &mut self.station else {
            return;
        };
        member.beat += 1;
        member.beat_at = self.now.mono + self.timing.heartbeat.max(PERIOD_MIN);
        member.unanswered.push_back((member.beat, self.now.mono));
        let heartbeat = Heartbeat {
            term: member.term,
            number: member.beat,
            answered: member.answered,
            bytes_free: self.space.bytes_free(),
            bytes_total: self.space.bytes_total(),
            chunks_writing: u32::try_from(self.writing.len()).unwrap_or(u32::MAX),
        };
        let link = member.link;
        self.send(link, Msg::new(0, heartbeat));
        self.measure_space();
    }

    fn heard(&mut self, answer: &HeartbeatAnswer) {
        let Station::Member(member) = &mut self.station else {
            return;
        };
        while let Some((number, sent)) = member
            .unanswered
            .front()
            .copied()
            .filter(|(number, _)| *number <= answer.number)
        {
            member.unanswered.pop_front();
            (member.answered, member.alive) = (number, sent);
        }
        self.log_is_durable(answer.durable);
        self.note_seen();
    }

    /// Says the next batch of the inventory; the one after waits for its verdicts.
    fn say_inventory(&mut self) {
        let Station::Member(member) = &mut self.station else {
            return;
        };
        let mut items = Vec::new();
        let batch = if buggify::is(Site::InventoryOfOne) {
            1
        } else {
            INVENTORY_BATCH
        };
        while items.len() < batch
            && let Some(name) = member.left.pop_front()
        {
            let id = name.id();
            let written = self.writing.contains_key(&id) || self.parked.contains_key(&id);
            let whole = if written {
                ReplicaState::Writing
            } else {
                ReplicaState::Good
            };
            if let Some(replica) = self.inventory.replicas.get(&id) {
                items.push(replica.item(id, whole));
            }
        }
        let id = |chunk: ChunkId, version: Version| ReplicaId { chunk, version };
        member.batch = Some(
            items
                .iter()
                .map(|item| id(item.chunk, item.version))
                .collect(),
        );
        let (link, term, last) = (member.link, member.term, member.left.is_empty());
        self.send(link, Msg::new(0, Inventory { term, items, last }));
    }

    fn verdicts(
        &mut self,
        Verdicts {
            verdicts, accepted, ..
        }: Verdicts,
    ) {
        let Station::Member(member) = &mut self.station else {
            return;
        };
        let ids: Vec<_> = verdicts
            .iter()
            .map(|(chunk, version, _)| ReplicaId {
                chunk: *chunk,
                version: *version,
            })
            .collect();
        if member.batch.as_ref() != Some(&ids) {
            return self.leave_meta("its verdicts are not on what was said");
        }
        let last = member.left.is_empty();
        member.batch = None;
        let mut stale = Vec::new();
        for (id, (.., verdict)) in ids.into_iter().zip(verdicts) {
            if verdict == Verdict::Stale {
                stale.push(id);
            } else {
                self.judged(id, verdict);
            }
        }
        if !stale.is_empty() {
            probe::hit(Probe::StaleToTrash);
            self.move_to_trash(&stale, None);
        }
        match (last, accepted) {
            (true, true) => self.joined(),
            (false, false) => self.say_inventory(),
            _ => self.leave_meta("it accepts another inventory than was said"),
        }
    }

    fn judged(&mut self, id: ReplicaId, verdict: Verdict) {
        let Some(replica) = self.inventory.replicas.get_mut(&id) else {
            return;
        };
        let standing = match verdict {
            _ if replica.standing == Standing::BadHeader => Standing::BadHeader,
            Verdict::Keep { log } if replica.durable().covers(log) => Standing::Served,
            Verdict::Keep { .. } | Verdict::Damaged { .. } => Standing::Damaged,
            Verdict::Unknown => Standing::Unknown,
            Verdict::Stale => return,
        };
        replica.standing = standing;
        if standing != Standing::Served {
            tracing::warn!(%id, ?verdict, "a replica is served to nobody");
            self.break_chain(
                id,
                WriteSeq(0),
                &format!(
                    "the meta server says of {id} on {}: {verdict:?}",
                    self.who()
                ),
            );
        }
    }

    /// The inventory is accepted.
    fn joined(&mut self) {
        let Station::Member(member) = &mut self.station else {
            return;
        };
        member.accepted = true;
        self.waiting_said = None;
        if !self.ready_said {
            self.ready_said = true;
            let event = Event::Ready {
                node: self.identity.node,
                cluster: self.identity.cluster,
            };
            self.outbox.event(CallId::NONE, event);
        }
        for (key, why) in self.damage.clone() {
            self.send_damage(key, why);
        }
    }

    /// Tells the meta server what is wrong with a replica, now and after each hello while it is here.
    pub(super) fn report_damage(&mut self, id: ReplicaId, block: Option<u32>, why: String) {
        if self.damage.contains_key(&(id, block)) {
            return;
        }
        if self.damage.len() < DAMAGE_MAX {
            self.damage.insert((id, block), why.clone());
        }
        self.send_damage((id, block), why);
    }

    fn send_damage(&mut self, (id, block): (ReplicaId, Option<u32>), why: String) {
        let Station::Member(member) = &self.station else {
            return;
        };
        let (link, term) = (member.link, member.term);
        let report = ReportDamage {
            term,
            chunk: id.chunk,
            version: id.version,
            block,
            why,
        };
        self.send(link, Msg::new(0, report));
    }
}

/// Damage found in this process, to be said at each hello.
pub(super) type Damage = BTreeMap<(ReplicaId, Option<u32>), String>;
