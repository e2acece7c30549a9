//! Replicas of a chunk at rest that are not the same are made equal: who has less gets a copy from one of those that
//! have the most.
//!
//! Nothing of that is owed to anybody: all have what the log says. But what differs is never sealed, so nothing in the
//! log protects it. Writes of a chunk come one behind the other, so who is at the last one has those of the others
//! too; and who was raised by a takeover that was broken off is ahead of everybody who was not, as it would be in the
//! next one. One member at a time gets a copy, and keeps the replica that it has, which counts and is read, until the
//! copy takes its name. Then all are asked again what they hold, until it is the same everywhere.
//!
//! Whatever comes between ends it: nothing but this list knows of it, and looking through all chunks finds it again.
use super::super::{By, Io, Serving};
use super::retries::{RETRIES_MAX, Retries};
use super::{BURST, COPIES_OF_SERVER, Copying, DECIDED, Loads, MAKING_MAX, Making};
use crate::ids::{ChunkId, ServerIndex, Term, Version};
use crate::meta::record::MembersChanged;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::chunk_meta::Content;
use std::collections::{BTreeMap, BTreeSet};

/// Chunks that wait for a copy of this kind at most; what is beyond them is found again by looking.
const UNEVEN_MAX: usize = 1_024;
/// What there is in memory of it at most: those, and chunks whose last copy failed.
pub(super) const WORK_MAX: usize = UNEVEN_MAX + RETRIES_MAX;

/// Chunks at rest of which members hold more than others.
#[derive(Clone, Debug, Default)]
pub(super) struct Evening {
    uneven: BTreeMap<ChunkId, Uneven>,
    retries: Retries,
    /// From here on it is looked for the next one.
    from: ChunkId,
}

/// What the members of a chunk have said that they hold, each in which term.
#[derive(Clone, Debug)]
pub(in crate::meta) struct Uneven {
    pub(in crate::meta) version: Version,
    pub(in crate::meta) said: Vec<(ServerIndex, Term, Content)>,
}

impl Uneven {
    /// The most that is held. `None`: some hold something else at the same write, and nobody can tell which is right.
    fn most(&self) -> Option<Content> {
        let held = || self.said.iter().map(|(.., has)| *has);
        let most = held().max_by_key(|has| has.durable.wseq)?;
        let mut last = held().filter(|has| has.durable.wseq == most.durable.wseq);
        last.all(|has| has == most).then_some(most)
    }
    fn with(&self, has: impl Fn(&Content) -> bool) -> impl Iterator<Item = ServerIndex> {
        let said = self.said.iter().filter(move |(.., said)| has(said));
        said.map(|(server, ..)| *server)
    }
}

impl Evening {
    pub(super) fn len(&self) -> usize {
        self.uneven.len() + self.retries.len()
    }
    /// Chunks that wait for a copy.
    pub(super) fn waiting(&self) -> usize {
        self.uneven.len()
    }
    pub(super) fn waits(&self, chunk: ChunkId) -> bool {
        self.uneven.contains_key(&chunk)
    }
    fn forget(&mut self, chunk: ChunkId) {
        self.uneven.remove(&chunk);
    }
    /// A copy was not made; gives when it is tried again.
    pub(super) fn failed(&mut self, chunk: ChunkId, now: Instant) -> Instant {
        self.retries.failed(chunk, now)
    }
    /// It was made.
    pub(super) fn settled(&mut self, chunk: ChunkId) {
        self.retries.settled(chunk);
    }
    /// A server is there that was not.
    pub(super) fn server_up(&mut self, now: Instant) {
        self.retries.server_up(now);
    }
    /// Forgets what failed of others than these.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(ChunkId) -> bool) {
        self.retries.retain(is_wanted);
    }
    /// The one whose turn it is.
    fn next(&mut self) -> Option<(ChunkId, Uneven)> {
        let found = self.uneven.range(self.from..).next();
        let found = found.or_else(|| self.uneven.iter().next());
        let (chunk, uneven) = found.map(|(chunk, uneven)| (*chunk, uneven.clone()))?;
        self.from = ChunkId(chunk.0 + 1);
        Some((chunk, uneven))
    }
}

/// What is to be done about a chunk whose members differ.
enum Step {
    /// Who has less gets a copy.
    Copy {
        server: ServerIndex,
        source: ServerIndex,
    },
    /// Who would do it has enough to do.
    Busy,
    /// It is not as it was said any more.
    Over,
}

impl Serving {
    /// The members of a chunk at rest hold what is not the same.
    pub(in crate::meta) fn differ(&mut self, io: &Io, chunk: ChunkId, uneven: Uneven) {
        let said = &uneven.said;
        probe::hit(Probe::SealDiffers);
        if uneven.most().is_none() {
            tracing::warn!(%chunk, ?said, "replicas of a chunk at rest hold something else at the same write: they stay as they are");
            return;
        }
        let evening = &self.copying.evening;
        if let Some(at) = evening.retries.at(chunk).filter(|at| *at > io.now.mono) {
            return self.rests_again(chunk, at);
        }
        if evening.waiting() >= UNEVEN_MAX {
            self.sealing.missed();
            return;
        }
        self.copying.evening.uneven.insert(chunk, uneven);
        self.copying.next = self.copying.next.min(io.now.mono);
    }

    /// Orders copies for who has less, as far as servers and the rate allow.
    pub(super) fn even(&mut self, io: &mut Io, loads: &mut Loads) {
        for _ in 0..DECIDED.min(self.copying.evening.waiting()) {
            if self.copying.is_at_limit(io.now.mono) {
                break;
            }
            let Some((chunk, uneven)) = self.copying.evening.next() else {
                break;
            };
            match self.evening_step(chunk, &uneven, loads) {
                Step::Busy => {}
                Step::Over => {
                    self.copying.evening.forget(chunk);
                    self.sealing.missed();
                }
                Step::Copy { server, source } => {
                    self.copying.evening.forget(chunk);
                    for busy in [server, source] {
                        *loads.entry(busy).or_default() += 1;
                    }
                    probe::hit(Probe::EveningOrdered);
                    let said = &uneven.said;
                    tracing::info!(%chunk, %server, %source, ?said, "a replica of a chunk at rest has less than another: it is replaced by a copy of that one");
                    if planted::is(Bug::EveningDropsFirst) {
                        self.drop_uneven(io, chunk, server);
                    }
                    self.order_seal(io, chunk, server, source);
                }
            }
        }
    }

    fn evening_step(&self, chunk: ChunkId, uneven: &Uneven, loads: &Loads) -> Step {
        let (Some((_, owned, log)), Some(most)) = (self.at_rest(chunk), uneven.most()) else {
            return Step::Over;
        };
        let in_terms = uneven.said.iter().all(|(server, term, _)| {
            let orders = self.roster.orders_to(*server);
            orders.is_some_and(|(_, now)| now == *term)
        });
        let good: BTreeSet<ServerIndex> = self.good(&owned).into_iter().collect();
        let all = good == uneven.said.iter().map(|(server, ..)| *server).collect();
        let is_cut = self.state.cut(chunk).is_some();
        let is_same = owned.version == uneven.version && owned.sealed.is_none() && !is_cut;
        let is_idle = !self.copying.makes(chunk) && !self.sealing.asks(chunk);
        if !is_same || !is_idle || !in_terms || !all || !owned.is_had_by(log, most) {
            return Step::Over;
        }
        let load = |server: &ServerIndex| loads.get(server).copied().unwrap_or(0);
        let free = |server: &ServerIndex| load(server) < COPIES_OF_SERVER;
        let (have_less, have_most): (Vec<_>, Vec<_>) = if planted::is(Bug::EveningTakesLess) {
            let less = uneven.with(|has| *has != most).collect();
            (uneven.with(|has| *has == most).collect(), less)
        } else {
            let most_held = uneven.with(|has| *has == most).collect();
            (uneven.with(|has| *has != most).collect(), most_held)
        };
        // What failed is not tried again in the same way.
        let failures = self.copying.evening.retries.failures(chunk) as usize;
        let turned = |of: &[ServerIndex]| {
            let turned = of.iter().cycle().skip(failures).take(of.len());
            turned.copied().filter(free).min_by_key(load)
        };
        match (turned(&have_less), turned(&have_most)) {
            (Some(server), Some(source)) => Step::Copy { server, source },
            _ => Step::Busy,
        }
    }

    /// What is planted: there is one good replica less in the log until the copy is made.
    fn drop_uneven(&mut self, io: &mut Io, chunk: ChunkId, server: ServerIndex) {
        let Some((_, owned, _)) = self.at_rest(chunk) else {
            return;
        };
        let members = owned.members.iter().copied();
        let members = members.filter(|member| *member != server).collect();
        let version = owned.version;
        self.commit(
            io,
            By::NOBODY,
            MembersChanged {
                chunk,
                version,
                members,
            },
        );
        self.roster.forget(server, chunk, &mut self.copies);
    }

    /// Something was done about the replicas of a chunk at rest: they are asked what they hold, at this time.
    pub(super) fn rests_again(&mut self, chunk: ChunkId, at: Instant) {
        if let Some(((file, index), owned, _)) = self.at_rest(chunk)
            && owned.sealed.is_none()
        {
            self.sealing.ask_again(file, index, at);
        }
    }

    /// A session writes a chunk further: whatever was to be made of its replicas is not, unless it is being made.
    pub(in crate::meta) fn not_at_rest(&mut self, chunk: ChunkId) {
        self.copying.evening.forget(chunk);
        let is_asked = |making: &&Making| !making.is_sealed;
        if self.copying.making.get(&chunk).filter(is_asked).is_some() {
            self.copying.making.remove(&chunk);
        }
    }
}

impl Copying {
    /// Whether no more copies are ordered now.
    pub(super) fn is_at_limit(&self, now: Instant) -> bool {
        self.paid_until > now + BURST || self.making.len() >= MAKING_MAX
    }
}
