//! One chunk that is being written: its grant, its pieces in order, its syncs, and the link to its head.
//!
//! Pieces are numbered from 1 and sent in order; a piece that is not known to be on every replica is sent
//! again with the same number when the link was lost, so it takes effect once. A refusal of the head is
//! final, but for "busy" and for bytes that were damaged on the way.
//!
//! A sync in the background falls on a block edge: a head's cut covers the rest of the block it ends in, and
//! what is written to that later costs more.
use super::links::{Reached, Use};
use super::meta_on_client::Ask;
use super::write::{Identity, PIECE_COST};
use super::{Asker, Errand, Failure, Reach, backoff};
use crate::block::{Sums, spans};
use crate::buggify::{self, Site};
use crate::ids::{ChunkId, ID_LIMIT, PieceNumber, WriteSeq};
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_chunk::{Durable, PieceDone, SyncChunk, SyncDone, WritePiece};
use crate::wire::client_meta::{Grant, HeadSeen, MutateOp, SyncedChunk};
use crate::wire::{Refusal, Status};
use bytes::Bytes;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// A head that cannot be reached for this long is given up: the chunk is asked to be written in another chain.
const RECONNECT: Duration = Duration::from_millis(200);
/// A head may get nothing done for so long before the same is asked: the meta server knows by then who is gone without
/// a word. Twice as long with every chain that got nothing done, as disks that are slow gain nothing by another one.
const STANDS_STILL: Duration = Duration::from_secs(6);
/// And no longer than this part of a call's time limit.
const STANDS_STILL_PART: u32 = 3;
/// Times that damaged bytes are sent again.
const RESENDS_MAX: u32 = 3;

/// When a chunk is synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// When enough was sent and it ends at a block edge.
    AtBlockEdges,
    /// Now, wherever it ends: nothing more can be sent before.
    WindowFull,
    /// Now, all of it: the caller asked for it.
    Covered,
}

#[derive(Clone, Debug)]
pub(super) struct OpenChunk {
    index: u64,
    grant: Option<Grant>,
    /// Whether others may have written it, and what they have is not known yet.
    is_sought: bool,
    /// In order of their numbers, without a gap: first those on every replica, then those sent, then the rest.
    pieces: VecDeque<Piece>,
    done: usize,
    sent: usize,
    next: PieceNumber,
    /// Pieces up to it were written before this session took it over.
    before: PieceNumber,
    sync: Option<Sync>,
    /// Bytes sent since the last sync was begun.
    since_sync: usize,
    counted_to: PieceNumber,
    /// Blocks written in part where the chunk grew, and how far.
    partial: BTreeMap<usize, u32>,
    /// Where the last byte written ends, and bytes written in all.
    end: u64,
    filled: u64,
    /// What syncs have covered: where its last byte ends, and what the replicas said.
    synced_end: u64,
    durable: Option<Durable>,
    /// Weight of pieces that a sync has covered since this was last asked.
    released: usize,
    /// What the last size report that named it has said of it.
    pub(super) named: Option<Durable>,
    line: Line,
    /// When the head last got something done, or was first asked to.
    progress: Instant,
    trouble: Option<Trouble>,
    /// Pieces up to it are sent whatever syncs are under way: a member of the chain has them already.
    resend_to: PieceNumber,
}

/// Chains that broke since something was last done that had not been before.
#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    chains: u32,
    /// What was done before.
    done_to: PieceNumber,
    asks: Asks,
    /// What the last one broke of.
    why: Refusal,
}

/// Whether another chain is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    No,
    /// From then on: chains that break one after the other are not asked for as fast as they break.
    At(Instant, HeadSeen),
    /// The meta server has not answered.
    Asked,
}

#[derive(Clone, Debug)]
struct Piece {
    offset: u64,
    bytes: Bytes,
    sums: Sums,
    request: u64,
    number: PieceNumber,
}

#[derive(Clone, Debug)]
struct Sync {
    up_to: PieceNumber,
    /// `None`: to be sent (again).
    request: Option<u64>,
}

#[derive(Clone, Debug)]
enum Line {
    Good,
    /// Nothing was done since this; tried again at `until`, and then `None`.
    Bad {
        since: Instant,
        tries: u32,
        why: Refusal,
        until: Option<Instant>,
    },
}

impl OpenChunk {
    pub(super) const fn new(index: u64, now: Instant) -> Self {
        Self {
            index,
            grant: None,
            is_sought: false,
            pieces: VecDeque::new(),
            done: 0,
            sent: 0,
            next: PieceNumber(1),
            before: PieceNumber(0),
            sync: None,
            since_sync: 0,
            counted_to: PieceNumber(0),
            partial: BTreeMap::new(),
            end: 0,
            filled: 0,
            synced_end: 0,
            durable: None,
            released: 0,
            named: None,
            line: Line::Good,
            progress: now,
            trouble: None,
            resend_to: PieceNumber(0),
        }
    }

    /// One that others may have written.
    pub(super) const fn sought(index: u64, now: Instant) -> Self {
        let mut chunk = Self::new(index, now);
        chunk.is_sought = true;
        chunk
    }

    /// One that was written up to `len`, which is to be one of `ends`, before this session took it over: the next piece
    /// comes after those that the grant names.
    pub(super) fn taken_over(
        (index, ends): (u64, RangeInclusive<u64>),
        now: Instant,
        (grant, len): (Grant, u64),
        who: &Identity,
    ) -> Result<Self, Failure> {
        let geometry = who.geometry;
        let fits = grant.index == index
            && !grant.chain.is_empty()
            && grant.from == grant.to
            && (1..ID_LIMIT).contains(&grant.from.0)
            && ends.contains(&len);
        if !fits {
            let what = format!(
                "the meta server granted a chunk that was not asked for: {len} bytes, {grant:?} of {}",
                who.name
            );
            let status = Status::Protocol;
            return Err(Failure { status, what });
        }
        let durable = Durable {
            len,
            wseq: WriteSeq(grant.from.0),
        };
        let mut partial = BTreeMap::new();
        let block = u64::from(geometry.block_bytes);
        if let (Ok(nth), Ok(within @ 1..)) =
            (usize::try_from(len / block), u32::try_from(len % block))
        {
            partial.insert(nth, within);
        }
        Ok(Self {
            next: grant.from.next(),
            before: grant.from,
            counted_to: grant.from,
            resend_to: grant.from,
            partial,
            end: len,
            filled: len,
            synced_end: len,
            durable: Some(durable),
            named: Some(durable),
            grant: Some(grant),
            ..Self::new(index, now)
        })
    }

    /// As [`Self::taken_over`], of one that pieces wait for already: they come behind what was there.
    pub(super) fn found(
        &mut self,
        now: Instant,
        had: (Grant, u64),
        who: &Identity,
    ) -> Result<(), Failure> {
        if self.grant.is_some() {
            return Err(self.confused(who, "the meta server granted a chunk twice"));
        }
        let ends = 0..=who.geometry.chunk_bytes();
        let before = Self::taken_over((self.index, ends), now, had, who)?;
        let by = before.next.0 - self.first().0;
        for piece in &mut self.pieces {
            piece.number.0 += by;
        }
        let mut partial = before.partial;
        partial.append(&mut self.partial);
        *self = Self {
            next: PieceNumber(self.next.0 + by),
            pieces: core::mem::take(&mut self.pieces),
            partial,
            end: before.end.max(self.end),
            filled: before.filled + self.filled,
            released: self.released,
            ..before
        };
        Ok(())
    }

    /// Nobody has written it.
    pub(super) const fn is_new(&mut self) {
        self.is_sought = false;
    }

    /// Whether it certainly ends before this.
    pub(super) fn ends_before(&self, end: u64) -> bool {
        (!self.is_sought || planted::is(Bug::SoughtChunkFilledOut)) && self.end < end
    }
    pub(super) const fn is_untouched(&self) -> bool {
        self.next.0 == 1
    }
    /// Whether it was taken over, and this session has not written to it.
    pub(super) fn is_as_taken(&self) -> bool {
        self.before.0 > 0 && self.next == self.before.next()
    }
    /// Whether the meta server has answered for it.
    pub(super) const fn has_grant(&self) -> bool {
        self.grant.is_some()
    }
    pub(super) const fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }
    /// Whether a sync has covered everything; a chunk that nothing was written to is not synced.
    pub(super) fn is_synced(&self) -> bool {
        self.pieces.is_empty() && self.sync.is_none() && self.durable.is_some()
    }
    /// What a size report says of it.
    pub(super) fn synced(&self) -> Option<SyncedChunk> {
        let grant = self.grant.as_ref()?;
        let synced = self.durable?;
        Some(SyncedChunk {
            index: self.index,
            chunk: grant.chunk,
            version: grant.version,
            synced,
        })
    }
    /// Whether all of it was written, and is synced.
    pub(super) fn is_full_and_synced(&self, geometry: Geometry) -> bool {
        self.is_full(geometry) && self.is_synced() && self.released == 0
    }
    pub(super) const fn take_released(&mut self) -> usize {
        core::mem::replace(&mut self.released, 0)
    }

    /// The first piece that is held; the next one, if none is.
    fn first(&self) -> PieceNumber {
        PieceNumber(self.next.0 - self.pieces.len() as u64)
    }
    /// The last piece that is on every replica.
    fn done_to(&self) -> PieceNumber {
        PieceNumber(self.first().0 - 1 + self.done as u64)
    }

    /// Takes up the next piece.
    pub(super) fn put(&mut self, offset: u64, bytes: Bytes, geometry: Geometry) {
        let len = bytes.len() as u64;
        assert!(
            len > 0 && len <= u64::from(geometry.piece_bytes),
            "a piece has bytes, and not too many"
        );
        for span in spans(geometry, offset, len) {
            let grows = offset + span.at as u64 + u64::from(span.len) >= self.end;
            if span.from + span.len == geometry.block_bytes {
                self.partial.remove(&span.block);
            } else if grows {
                self.partial.insert(span.block, span.from + span.len);
            }
        }
        self.end = self.end.max(offset + len);
        self.filled += len;
        let sums = Sums::of(geometry, offset, &bytes);
        self.pieces.push_back(Piece {
            offset,
            bytes,
            sums,
            request: 0,
            number: self.next,
        });
        self.next = self.next.next();
    }

    /// The chunk may be written.
    pub(super) fn granted(
        &mut self,
        now: Instant,
        grant: Grant,
        who: &Identity,
    ) -> Result<(), Failure> {
        if grant.index != self.index || grant.chain.is_empty() {
            let what = format!(
                "the meta server granted a chunk that was not asked for: {grant:?} of {}",
                who.name
            );
            return Err(Failure {
                status: Status::Protocol,
                what,
            });
        }
        self.progress = now;
        self.is_sought = false;
        let Some(before) = self.grant.take() else {
            self.grant = Some(grant);
            return Ok(());
        };
        let first = self.first().0;
        let same = (before.chunk, before.version) == (grant.chunk, grant.version);
        let covers = if same {
            let from = grant.from.0.checked_add(1);
            from.is_some_and(|from| from >= first) && grant.from <= grant.to && grant.to < self.next
        } else {
            self.durable.is_none()
        };
        if !covers {
            let what = format!(
                "the meta server gave chunk {} of {} a chain that has not all that was synced: {grant:?}",
                self.index, who.name
            );
            self.grant = Some(before);
            return Err(Failure {
                status: Status::Protocol,
                what,
            });
        }
        probe::hit(Probe::ClientRechained);
        let (from, to) = if same {
            (grant.from.0, grant.to)
        } else {
            (0, PieceNumber(0))
        };
        let done = (from + 1).saturating_sub(first);
        self.done = usize::try_from(done).expect("as many as there are pieces");
        self.sent = self.done;
        self.resend_to = to;
        self.line = Line::Good;
        self.grant = Some(grant);
        if let Some(trouble) = &mut self.trouble {
            trouble.asks = Asks::No;
        }
        Ok(())
    }

    /// The meta server has no other chain for it.
    pub(super) fn not_rechained(&self, failure: Failure, who: &Identity) -> Failure {
        let Some(trouble) = &self.trouble else {
            return failure;
        };
        let broken = self.broken(&trouble.why, who);
        Failure {
            status: broken.status,
            what: format!(
                "{}; no other chain can be had: {}",
                broken.what, failure.what
            ),
        }
    }
    /// Whether another chain is awaited, or will be asked for.
    pub(super) fn awaits_chain(&self) -> bool {
        self.trouble
            .as_ref()
            .is_some_and(|trouble| trouble.asks != Asks::No)
    }

    /// The chain takes no more: asks for another one, which goes on where all its members are. Fails when nothing got
    /// done in any chain for as long as a call may take.
    fn rechain(
        &mut self,
        now: Instant,
        why: Refusal,
        who: &Identity,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        let Some(_) = &self.grant else {
            return Err(self.broken(&why, who));
        };
        // Bytes that were changed on the way there, again and again, are no better than none.
        let head = match why.status {
            Status::Unreachable | Status::TimedOut | Status::Corrupt => HeadSeen::Lost,
            _ => HeadSeen::Reached,
        };
        let done_to = self.done_to();
        let before = self.trouble.take();
        let moved = before
            .as_ref()
            .is_none_or(|before| done_to > before.done_to);
        let mut trouble = match before {
            Some(before) if !moved => before,
            Some(_) | None => Trouble {
                since: now,
                chains: 0,
                done_to,
                asks: Asks::No,
                why: why.clone(),
            },
        };
        let spent = now.since(trouble.since);
        if spent >= reach.timeout {
            return Err(self.broken(&why, who));
        }
        self.drop_asked(reach);
        let rests = trouble.chains.checked_sub(1);
        let rests = rests.map_or(Duration::ZERO, |tries| backoff(tries, &mut reach.rng));
        trouble.asks = Asks::At(now + rests, head);
        trouble.why = why;
        self.trouble = Some(trouble);
        // A sync is begun anew when all that is not synced was sent.
        self.sync = None;
        let counted = |piece: &&Piece| piece.number <= self.counted_to;
        let counted = self.pieces.iter().filter(counted);
        self.since_sync = counted.map(|piece| piece.bytes.len()).sum();
        self.sent = self.done;
        self.line = Line::Good;
        self.progress = now;
        self.ask_for_chain(now, who, reach);
        Ok(())
    }

    /// Asks the meta server, if it is time to.
    fn ask_for_chain(&mut self, now: Instant, who: &Identity, reach: &mut Reach) {
        let (Some(trouble), Some(grant)) = (&mut self.trouble, &self.grant) else {
            return;
        };
        let Asks::At(at, head) = trouble.asks else {
            return;
        };
        if at > now {
            return;
        }
        let op = MutateOp::Rechain {
            file: who.file,
            index: self.index,
            chunk: grant.chunk,
            version: grant.version,
            synced: self.durable.unwrap_or_default(),
            head,
            broken: trouble.chains,
        };
        let asker = Asker::Allocate {
            handle: who.handle,
            index: self.index,
        };
        trouble.chains += 1;
        trouble.asks = Asks::Asked;
        let within = reach.timeout.saturating_sub(now.since(trouble.since));
        reach
            .meta
            .ask_within(now, within, asker, Ask::MutateIn(who.session, op));
    }

    /// Sends what may be sent, and begins a sync by `rule`.
    pub(super) fn send(&mut self, now: Instant, rule: Rule, who: &Identity, reach: &mut Reach) {
        if self.awaits_chain() {
            return;
        }
        if self.grant.is_none() {
            return;
        }
        if let Line::Bad {
            until: rest @ Some(_),
            ..
        } = &mut self.line
        {
            if rest.is_some_and(|until| until > now) {
                return;
            }
            *rest = None;
        }
        if !reach.meta.may_write(now) {
            // Another session may write the file by now: who is not heard by the meta server sends nothing.
            if !self.pieces.is_empty() {
                probe::hit(Probe::WriterOutOfLease);
                let what = "the meta server was not heard of for as long as others may not write";
                self.rewind(now, Refusal::new(Status::Busy, what), reach);
            }
            return;
        }
        let Some(grant) = &self.grant else { return };
        if !self.waits() {
            self.progress = now;
        }
        let head = (Use::Write, grant.chain[0].addr);
        let (chunk, version, session) = (grant.chunk, grant.version, who.session);
        while let Some(piece) = self.pieces.get_mut(self.sent) {
            let ask = WritePiece {
                chunk,
                version,
                session,
                piece: piece.number,
                offset: piece.offset,
                sums: piece.sums.clone(),
            };
            let errand = Errand::Piece {
                handle: who.handle,
                index: self.index,
                number: piece.number,
            };
            piece.request = reach.links.ask(
                now,
                head,
                (ask.into(), piece.bytes.clone()),
                errand,
                &mut reach.outbox,
            );
            if piece.number > self.counted_to {
                self.counted_to = piece.number;
                self.since_sync += piece.bytes.len();
            }
            self.sent += 1;
        }
        let resent = self
            .pieces
            .get(self.sent)
            .is_none_or(|next| next.number > self.resend_to);
        let may_sync = self.sync.is_none() && self.sent > 0 && resent;
        if may_sync && self.is_sync_due(rule, who.geometry, reach) {
            if rule != Rule::Covered {
                probe::hit(Probe::BackgroundSync);
            }
            self.sync = Some(Sync {
                up_to: self.pieces[self.sent - 1].number,
                request: None,
            });
            self.since_sync = 0;
        }
        if let Some(Sync {
            up_to,
            request: request @ None,
        }) = &mut self.sync
        {
            let ask = SyncChunk {
                chunk,
                version,
                session,
                up_to: *up_to,
            };
            let errand = Errand::Sync {
                handle: who.handle,
                index: self.index,
            };
            *request = Some(reach.links.ask(
                now,
                head,
                (ask.into(), Bytes::new()),
                errand,
                &mut reach.outbox,
            ));
        }
        assert!(
            self.done <= self.sent && self.sent <= self.pieces.len(),
            "done, sent and cut, in this order"
        );
    }

    /// The head answered a piece.
    pub(super) fn piece_done(
        &mut self,
        now: Instant,
        number: PieceNumber,
        done: PieceDone,
        who: &Identity,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        let first = self.first().0;
        // Covered by a sync, or known to be everywhere: nothing new.
        let Some(at) = number
            .0
            .checked_sub(first)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return Ok(());
        };
        if at < self.done || at >= self.sent {
            return Ok(());
        }
        match done.outcome {
            Ok(()) if self.is_granted(done.chunk) && done.piece == number => {
                self.done = at + 1;
                self.progressed(now);
                Ok(())
            }
            Ok(()) => Err(self.confused(
                who,
                &format!("answered for piece {} when asked for {number}", done.piece),
            )),
            Err(refusal) => self.refused(now, refusal, who, reach),
        }
    }

    /// The head answered the sync.
    pub(super) fn sync_done(
        &mut self,
        now: Instant,
        done: SyncDone,
        who: &Identity,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        let Some(sync) = &self.sync else {
            return Ok(());
        };
        let up_to = sync.up_to;
        let durable = match done.outcome {
            Ok(durable) => durable,
            Err(refusal) => return self.refused(now, refusal, who, reach),
        };
        let covered = self.pieces.iter().take_while(|piece| piece.number <= up_to);
        let end = covered
            .map(|piece| piece.offset + piece.bytes.len() as u64)
            .max()
            .unwrap_or(0);
        let end = end.max(self.synced_end);
        let Durable { len, wseq } = durable;
        let before = self.durable.unwrap_or_default().wseq;
        let fits = len >= end && len <= who.geometry.chunk_bytes();
        if !self.is_granted(done.chunk) || !fits || wseq == WriteSeq(0) || wseq < before {
            let what = format!(
                "says {len} bytes of {} are durable at write {wseq} where {end} were synced, at write {before} before",
                done.chunk
            );
            return Err(self.confused(who, &what));
        }
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.number <= up_to)
        {
            let piece = self.pieces.pop_front().expect("the front was just seen");
            self.released += piece.bytes.len() + PIECE_COST;
            self.done = self.done.saturating_sub(1);
            self.sent = self
                .sent
                .checked_sub(1)
                .expect("a sync covers what was sent");
        }
        self.synced_end = end;
        self.durable = Some(durable);
        self.sync = None;
        // Whatever a chain got synced is got done, even if all of it had been taken before.
        self.trouble = None;
        self.progressed(now);
        Ok(())
    }

    /// The link to the head is gone: what is not known to be done is sent again on the next one.
    pub(super) fn lost(
        &mut self,
        now: Instant,
        (why, reached): (&str, Reached),
        reach: &mut Reach,
    ) {
        if !self.is_asked() || self.awaits_chain() {
            return;
        }
        probe::hit(Probe::HeadLinkLost);
        if reached == Reached::Yes
            && let Line::Bad { since, .. } = &mut self.line
        {
            // It could be reached until now; how long it may get nothing done is another limit.
            *since = now;
        }
        self.rewind(now, Refusal::new(Status::Unreachable, why), reach);
    }

    /// Gives up on a head that gets nothing done: another chain is asked for.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        who: &Identity,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        if self.awaits_chain() {
            self.ask_for_chain(now, who, reach);
            return Ok(());
        }
        if self.waits() && self.progress + self.stands_still(reach.timeout) <= now {
            let last = if let Line::Bad { why, .. } = &self.line {
                why.detail.as_str()
            } else {
                "nothing was heard"
            };
            let within = self.stands_still(reach.timeout);
            let why = format!("nothing got done within {within:?} ({last})");
            return self.rechain(now, Refusal::new(Status::TimedOut, why), who, reach);
        }
        match &self.line {
            Line::Bad {
                since,
                why,
                until: Some(_),
                ..
            } if *since + patience(why, reach.timeout) <= now => {
                let what = format!("{}, for {:?}", why.detail, now.since(*since));
                let why = Refusal::new(why.status, what);
                if why.status == Status::Unreachable {
                    return self.rechain(now, why, who, reach);
                }
                Err(self.broken(&why, who))
            }
            Line::Bad { .. } | Line::Good => Ok(()),
        }
    }

    /// How long its head may get nothing done.
    fn stands_still(&self, timeout: Duration) -> Duration {
        let chains = self.trouble.as_ref().map_or(0, |trouble| trouble.chains);
        let within = STANDS_STILL.saturating_mul(1 << chains.min(8));
        within.min(timeout / STANDS_STILL_PART)
    }

    pub(super) fn deadline(&self, timeout: Duration) -> Option<(Instant, &'static str)> {
        match self.trouble.as_ref().map(|trouble| trouble.asks) {
            Some(Asks::At(at, _)) => return Some((at, "another chain is asked for")),
            Some(Asks::Asked) => return None,
            Some(Asks::No) | None => {}
        }
        // While a try is under way, its link's own limits and the progress count.
        let line = match &self.line {
            Line::Bad {
                since,
                why,
                until: Some(until),
                ..
            } => Some((
                (*until).min(*since + patience(why, timeout)),
                "a head is tried again, or given up",
            )),
            Line::Bad { until: None, .. } | Line::Good => None,
        };
        let progress = self.waits().then(|| {
            (
                self.progress + self.stands_still(timeout),
                "the head gets nothing done",
            )
        });
        line.into_iter().chain(progress).min_by_key(|(at, _)| *at)
    }

    /// Nobody waits for the head's answers any more.
    pub(super) fn drop_asked(&self, reach: &mut Reach) {
        let Some(grant) = &self.grant else { return };
        let head = (Use::Write, grant.chain[0].addr);
        let pieces = self
            .pieces
            .iter()
            .skip(self.done)
            .take(self.sent - self.done)
            .map(|piece| piece.request);
        for request in pieces.chain(self.sync.as_ref().and_then(|sync| sync.request)) {
            reach.links.forget(head, request);
        }
    }

    fn is_full(&self, geometry: Geometry) -> bool {
        self.end == geometry.chunk_bytes() && self.filled >= geometry.chunk_bytes()
    }
    fn is_asked(&self) -> bool {
        self.sent > self.done
            || self
                .sync
                .as_ref()
                .is_some_and(|sync| sync.request.is_some())
    }
    /// Whether the head has to get something done.
    fn waits(&self) -> bool {
        self.is_asked() || matches!(self.line, Line::Bad { .. })
    }
    fn is_granted(&self, chunk: ChunkId) -> bool {
        self.grant
            .as_ref()
            .is_some_and(|grant| grant.chunk == chunk)
    }

    fn is_sync_due(&self, rule: Rule, geometry: Geometry, reach: &Reach) -> bool {
        let all_sent = self.sent == self.pieces.len();
        match rule {
            Rule::WindowFull => true,
            Rule::Covered => all_sent,
            Rule::AtBlockEdges => {
                let is_filled = self.is_full(geometry) && self.synced_end < geometry.chunk_bytes();
                let enough = self.since_sync >= reach.limits.sync_every_bytes
                    || is_filled
                    || (self.since_sync > 0 && buggify::is(Site::SyncEveryPiece));
                all_sent && enough && self.partial.is_empty()
            }
        }
    }

    fn progressed(&mut self, now: Instant) {
        self.progress = now;
        self.line = Line::Good;
        let done_to = self.done_to();
        let before = self.trouble.as_ref().map(|trouble| trouble.done_to);
        if before.is_some_and(|before| done_to > before) {
            self.trouble = None;
        }
    }

    fn refused(
        &mut self,
        now: Instant,
        refusal: Refusal,
        who: &Identity,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        let tries = if let Line::Bad { tries, .. } = self.line {
            tries
        } else {
            0
        };
        let again = match refusal.status {
            Status::Busy => true,
            Status::Corrupt => tries < RESENDS_MAX,
            _ => false,
        };
        let is_broken = matches!(
            refusal.status,
            Status::ChainBroken | Status::NotServed | Status::Corrupt
        );
        if !again && is_broken {
            return self.rechain(now, refusal, who, reach);
        }
        if !again {
            return Err(self.broken(&refusal, who));
        }
        self.rewind(now, refusal, reach);
        Ok(())
    }

    fn rewind(&mut self, now: Instant, why: Refusal, reach: &mut Reach) {
        self.drop_asked(reach);
        if self.sent > self.done {
            probe::hit(Probe::PiecesSentAgain);
        }
        self.sent = self.done;
        if let Some(sync) = &mut self.sync {
            sync.request = None;
        }
        let (since, tries) = match &self.line {
            Line::Good => (now, 0),
            Line::Bad { since, tries, .. } => (*since, *tries),
        };
        let until = Some(now + backoff(tries, &mut reach.rng));
        self.line = Line::Bad {
            since,
            tries: tries.saturating_add(1),
            why,
            until,
        };
    }

    /// Why the chunk cannot be written any further: which server, what it said.
    fn broken(&self, refusal: &Refusal, who: &Identity) -> Failure {
        let chain: Vec<_> = self
            .grant
            .iter()
            .flat_map(|grant| &grant.chain)
            .map(|place| place.addr.to_string())
            .collect();
        let head = chain.first().map_or("its head", String::as_str);
        let what = format!(
            "chunk {} of {} cannot be written further: {head}, head of the chain {}: {}",
            self.index,
            who.name,
            chain.join(" -> "),
            refusal.detail
        );
        // A head that is gone took the chain with it.
        let status = match refusal.status {
            Status::Unreachable => Status::ChainBroken,
            status => status,
        };
        Failure { status, what }
    }

    fn confused(&self, who: &Identity, what: &str) -> Failure {
        self.broken(&Refusal::new(Status::Protocol, what), who)
    }
}

/// How long a head that gets nothing done is tried again.
fn patience(why: &Refusal, timeout: Duration) -> Duration {
    if why.status == Status::Unreachable {
        RECONNECT.min(timeout)
    } else {
        timeout
    }
}
