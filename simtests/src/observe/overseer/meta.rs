//! What is seen of the meta server: the order of its states, and what it orders.
use super::{Overseen, Overseer, Setup, Whose};
use crate::keyed::mix;
use crate::oracle::bounds::{self, Population};
use crate::oracle::log::LiveStates;
use crate::oracle::meta::StateHistory;
use crate::oracle::silence::Hearing;
use crate::oracle::usage::Usages;
use crate::oracle::{Tick, Violation};
use crate::schedule::MIN_REPLICAS;
use kfs_core::ids::{Boot, Epoch, Incarnation, Instance, LinkId, LogSeq, NodeId, Term};
use kfs_core::machine::{Input, Output};
use kfs_core::meta::record::{Logged, Record};
use kfs_core::meta::state::State;
use kfs_core::meta::{Call, Event, Meta};
use kfs_core::time::{Instant, Now};
use kfs_core::wire::Head;
use kfs_core::wire::client_meta::{Answer, Answered, Query, QueryOp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One state in so many is checked whole, which costs as much as there are files; all of them in one run of so
/// many.
const STATES_EVERY: u64 = 16;

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct MetaSeen {
    pub(super) history: StateHistory,
    pub(super) live: LiveStates,
    /// Links that are up, and which server said hello on them.
    links: BTreeMap<LinkId, Option<u32>>,
    /// What is said in the hellos that came on them.
    hellos: BTreeMap<LinkId, (NodeId, Boot, Instance)>,
    /// Which meta server it is that they have seen last.
    seen: BTreeMap<LinkId, ((Epoch, Incarnation), LogSeq)>,
    /// The last boot of each node that was welcome.
    welcomed: BTreeMap<NodeId, (Boot, Instance)>,
    /// The last state seen of this process, and how far it was durable.
    last: Option<(LogSeq, LogSeq)>,
    /// The first one.
    began: Option<LogSeq>,
    /// Whether no chunkserver was in that one: then nobody is there who could know of more.
    began_alone: bool,
    /// Whether this process has welcomed anybody.
    has_welcomed: bool,
    /// The simulation's time.
    now: Tick,
    /// When the log was durable how far, the newest last.
    durable: VecDeque<(Tick, LogSeq)>,
    owed: Owed,
    /// What a backup had that was restored.
    pub(super) restored: Option<Arc<[Logged]>>,
    /// Its own clock's time.
    mono: Instant,
    hearing: Hearing,
    usages: Usages,
}

/// What a damaged log must still give, or no start at all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Owed {
    #[default]
    Everything,
    /// After one damage: up to this record.
    UpTo(LogSeq),
    Nothing,
}

/// After so long without another record, a mark is behind the last batch.
const MARKED_AFTER: Tick = 1_000_000_000;

impl MetaSeen {
    pub(super) fn dies(&mut self) {
        // Who dies soon after a batch has written no mark behind it.
        let unmarked = |(then, _): &(Tick, LogSeq)| *then + MARKED_AFTER > self.now;
        if self.durable.back().is_some_and(unmarked) {
            self.durable.pop_back();
        }
        self.history.died();
        self.live.died();
        self.links.clear();
        self.hellos.clear();
        self.seen.clear();
        self.last = None;
        self.began = None;
        self.has_welcomed = false;
        self.hearing = Hearing::default();
        self.usages = Usages::default();
    }

    pub(super) fn damaged(&mut self, at: Tick) {
        // Who is not there any more since it last did something marks nothing.
        let lived = self.now.min(at);
        let marked = |(then, _): &&(Tick, LogSeq)| *then + MARKED_AFTER <= lived;
        let durable = self.durable.iter().rev().find(marked);
        self.owed = match self.owed {
            Owed::Everything => Owed::UpTo(durable.map_or(LogSeq(0), |(_, seq)| *seq)),
            Owed::UpTo(_) | Owed::Nothing => Owed::Nothing,
        };
    }

    pub(super) fn lost(&mut self) {
        self.owed = Owed::Nothing;
    }

    /// Who is welcome on this link is listened to from now on.
    fn hears(&mut self, link: LinkId, term: Term) {
        if let Some((node, ..)) = self.hellos.get(&link) {
            self.hearing.welcomed(*node, term, self.mono);
        }
    }

    /// Whoever is welcome on this link has seen nothing that the log lacks, or it is known to lack it.
    fn misses(&self, link: LinkId, state: Option<&State>) -> Result<(), Violation> {
        let seen = self.seen.get(&link);
        let (Some(((epoch, incarnation), seq)), Some(state)) = (seen, state) else {
            return Ok(());
        };
        let there = *incarnation == Incarnation(0)
            || state.epochs().any(|(_, known, _)| known == *incarnation);
        let known = state.tail_lost().is_some() || state.rollback_accepted() > Epoch(0);
        if known {
            return Ok(());
        }
        self.misses_an_end(*incarnation, *seq)?;
        if there {
            return Ok(());
        }
        let what = format!(
            "a server is welcome that has seen epoch {epoch} of a meta server that is not in the log, and nothing is said to be missing"
        );
        Err(Violation::new("O12", "F", what))
    }

    /// The log of an incarnation that a restored backup ends in ends there.
    fn misses_an_end(&self, incarnation: Incarnation, seq: LogSeq) -> Result<(), Violation> {
        let Some(restored) = &self.restored else {
            return Ok(());
        };
        let of = |logged: &Logged| matches!(&logged.record, Record::EpochBegun(begun) if begun.incarnation == incarnation);
        let end = restored.last().map_or(LogSeq(0), |logged| logged.seq);
        if !restored.iter().any(of) || seq <= end {
            return Ok(());
        }
        let what = format!(
            "a server is welcome that has seen record {seq} of a meta server; a backup was restored that ends with its record {end}, and nothing is said to be missing"
        );
        Err(Violation::new("O12", "F", what))
    }

    /// A change was made: somebody was heard before, who would know if this log had lost its end.
    fn changed(&self, seq: LogSeq, meta: &Meta) -> Result<(), Violation> {
        let (Some(began), Some(state)) = (self.began, meta.state()) else {
            return Ok(());
        };
        let accepts = state.tail_lost().is_some() || state.rollback_accepted() == state.epoch();
        if self.has_welcomed || seq <= began || accepts || self.began_alone {
            return Ok(());
        }
        let what = format!(
            "a change was made as record {seq} of a log that ended with {began} at the start, and no chunkserver was asked whether it knows of more"
        );
        Err(Violation::new("O12", "F", what))
    }

    /// How far the log was durable before its last batch.
    pub(super) fn settled(&self) -> LogSeq {
        let before = self.durable.iter().rev().nth(1);
        before.map_or(LogSeq(0), |(_, seq)| *seq)
    }

    /// A server is welcome, on this link.
    fn welcomes(&mut self, link: LinkId) -> Result<(), Violation> {
        let Some((node, boot, instance)) = self.hellos.get(&link).copied() else {
            return Ok(());
        };
        let known = self.welcomed.insert(node, (boot, instance));
        match known {
            Some((known, other)) if boot <= known && other != instance => Err(Violation::new(
                "O5",
                "D5",
                format!(
                    "two processes are welcome as node {node}: one of its start {known}, and then one of start {boot}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Setup {
    /// Whether a state is checked whole: the first of each process is.
    fn looks_closely(&self, seq: LogSeq, last: Option<(LogSeq, LogSeq)>) -> bool {
        let due = |key: u64| mix(key).is_multiple_of(STATES_EVERY);
        last.is_none_or(|(last, _)| last < seq && (due(self.seed) || due(self.seed ^ mix(seq.0))))
    }
}

impl Overseen for Meta {
    fn takes(
        overseer: &mut Overseer,
        _: Whose<'_>,
        now: Now,
        input: &Input<Call>,
    ) -> Result<(), Violation> {
        overseer.meta.mono = now.mono;
        let links = &mut overseer.meta.links;
        match input {
            Input::Opened { link, .. } => {
                links.insert(*link, None);
            }
            Input::Closed { link, .. } => {
                links.remove(link);
                overseer.meta.hellos.remove(link);
                overseer.meta.seen.remove(link);
                overseer.meta.usages.closed(*link);
            }
            Input::Received { link, msg } => {
                if let Head::Hello(hello) = &msg.head
                    && let Some(server) = links.get_mut(link)
                {
                    *server = overseer.instances.get(&hello.instance).copied();
                    let said = (hello.node, hello.boot, hello.instance);
                    overseer.meta.hellos.insert(*link, said);
                    overseer
                        .meta
                        .seen
                        .insert(*link, (hello.seen, hello.seen_seq));
                }
                if let Head::Inventory(inventory) = &msg.head
                    && let Some(server) = links.get(link).copied().flatten()
                {
                    let node = overseer.meta.hellos.get(link).map(|(node, ..)| *node);
                    for item in &inventory.items {
                        let (term, id) = (inventory.term, (item.chunk, item.version));
                        overseer.collector.reported((server, node), term, id);
                    }
                }
                if let Head::Query(Query {
                    op: QueryOp::Usage { at, depth },
                }) = &msg.head
                {
                    let usages = &mut overseer.meta.usages;
                    usages.asked((*link, msg.request), at, *depth);
                }
                if let Head::Heartbeat(beat) = &msg.head
                    && let Some((node, ..)) = overseer.meta.hellos.get(link)
                {
                    overseer.meta.hearing.beats(*node, beat, now.mono);
                }
            }
            Input::Wake | Input::Sent { .. } | Input::Disk { .. } | Input::Call { .. } => {}
        }
        Ok(())
    }

    fn wants(
        &self,
        overseer: &mut Overseer,
        whose: Whose<'_>,
        (_, at): (Now, Tick),
        output: &Output<Event>,
    ) -> Result<(), Violation> {
        overseer.meta.now = at;
        let (link, msg) = match output {
            Output::Send { link, msg } => (link, msg),
            Output::Close { link } => {
                overseer.meta.links.remove(link);
                return Ok(());
            }
            _ => return Ok(()),
        };
        match &msg.head {
            Head::Mutated(mutated) if mutated.outcome.is_ok() => {
                overseer.meta.changed(mutated.seq, self)
            }
            Head::Welcome(welcome) => {
                overseer.meta.has_welcomed = true;
                overseer.meta.hears(*link, welcome.term);
                overseer.meta.misses(*link, self.state())?;
                if overseer.hurt.contains(&0) {
                    return Ok(());
                }
                overseer.meta.welcomes(*link)
            }
            Head::Answered(Answered {
                outcome: Ok(Answer::Usage(page)),
                ..
            }) => overseer.meta.usages.answered((*link, msg.request), page),
            Head::Answered(Answered {
                outcome: Ok(Answer::Status(status)),
                ..
            }) => self.state().map_or(Ok(()), |state| {
                crate::oracle::status::drained_have_nothing(state, status)?;
                crate::oracle::status::missing_members_are_told(state, status)
            }),
            Head::CreateChunk(_) if !overseer.hurt.contains(&0) => {
                overseer.grants.sent(whose.node, *link, msg, at)
            }
            Head::ResumeChunk(order) if !overseer.hurt.contains(&0) => {
                overseer.grants.sent(whose.node, *link, msg, at)?;
                let Some(owned) = self.state().and_then(|state| state.chunk(order.chunk)) else {
                    return Ok(());
                };
                let least = usize::from(MIN_REPLICAS.min(owned.wanted));
                let members = order.members.len();
                if members >= least {
                    return Ok(());
                }
                let what = format!(
                    "chunk {} is to be written further by {members} servers, of at least {least}",
                    order.chunk
                );
                Err(Violation::new("O8", "D2", what))
            }
            Head::CopyChunk(_) | Head::DeleteChunks(_) | Head::Verdicts(_) => {
                let server = overseer.meta.links.get(link).copied().flatten();
                let node = overseer.meta.hellos.get(link).map(|(node, ..)| *node);
                match (server.zip(node), self.state()) {
                    (Some(server), Some(state)) => {
                        overseer.collector.meta_sent(server, msg, state, at)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn rests(&self, overseer: &mut Overseer, whose: Whose<'_>) -> Result<(), Violation> {
        let population = Population {
            sessions: overseer.nonces.len(),
            links: overseer.meta.links.len(),
            calls: overseer.setup.calls,
        };
        overseer.judged.bounds += 1;
        bounds::meta(whose.name, &self.bounds(), population)?;
        let said = || self.status().map_or_else(Vec::new, |status| status.servers);
        let (mono, lease) = (overseer.meta.mono, overseer.setup.lease);
        overseer.meta.hearing.check(mono, lease, said)?;
        let (Some(state), Some(durable)) = (self.state(), self.durable()) else {
            return Ok(());
        };
        overseer.meta.usages.rests(state);
        let now = (state.seq(), durable);
        let last = overseer.meta.last;
        if overseer.meta.began.is_none() {
            overseer.meta.began = Some(state.seq());
            let alone = self.status().is_none_or(|status| status.servers.is_empty());
            overseer.meta.began_alone = alone;
        }
        if last.is_none()
            && let Owed::UpTo(owed) = overseer.meta.owed
            && durable < owed
        {
            let what = format!(
                "one block of the log was damaged, and the log is taken to end with record {durable}; record {owed} was durable a second before"
            );
            return Err(Violation::new("O7", "N3", what));
        }
        if overseer
            .meta
            .durable
            .back()
            .is_none_or(|(_, last)| *last < durable)
        {
            overseer
                .meta
                .durable
                .push_back((overseer.meta.now, durable));
        }
        overseer.meta.last = Some(now);
        if last == Some(now) || overseer.hurt.contains(&0) {
            return Ok(());
        }
        overseer.meta.live.saw(state, durable);
        if overseer.setup.looks_closely(state.seq(), last) {
            overseer.meta.history.observe(state, durable)?;
            overseer.collector.observe(state)?;
        }
        Ok(())
    }
}
