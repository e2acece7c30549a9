//! Writing a file: its bytes are cut into pieces, the pieces go to the heads of its chunks, syncs move the
//! window, and a size report makes what is synced visible.
//!
//! 1. Bytes of one file are cut in the order of the calls (`cut`); a piece never crosses a chunk's edge.
//! 2. At most a window of bytes is held that no sync covers yet; a further write waits.
//! 3. A chunk's own progress (grant, pieces, syncs, lost links) is in [`super::open_chunk`].
//! 4. A sync or close waits until every chunk is synced, then reports the size with all chunks it rests on.
//! 5. A new length is told to the meta server when all that was written before is synced and reported. Then the chunk in
//!    which the file is cut is taken over, and what was known of its chunks is forgotten.
//! 6. What fails for good fails the file: every later call on it fails the same way.
use super::cut::Cutter;
use super::links::Reached;
use super::meta_on_client::Ask;
use super::open_chunk::{OpenChunk, Rule};
use super::{Asker, Event, Failure, Handle, Reach};
use crate::ids::{CallId, FileId, PieceNumber, SessionId};
use crate::limits::{Geometry, SIZE_BASIS_MAX};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::Status;
use crate::wire::client_chunk::{Durable, PieceDone, SyncDone};
use crate::wire::client_meta::{Done, MutateOp, SyncedChunk, WriterStays};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// No byte of a file stands at or past this.
pub const FILE_BYTES_MAX: u64 = 1 << 62;

/// What a piece weighs against the window besides its bytes, so that tiny ones are bounded too.
pub const PIECE_COST: usize = 256;

/// What a file that is being written is, for its whole life.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) handle: Handle,
    pub(super) file: FileId,
    pub(super) session: SessionId,
    pub(super) geometry: Geometry,
    /// Its path, for people.
    pub(super) name: String,
}

impl Identity {
    /// Asks the meta server for a change of the file.
    fn ask(&self, now: Instant, asker: Asker, op: MutateOp, reach: &mut Reach) {
        let ask = Ask::MutateIn(self.session, op);
        reach.meta.ask(now, asker, ask);
    }
}

/// A file that this client writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    who: Identity,
    stage: Stage,
    calls: VecDeque<(CallId, Todo)>,
    cutter: Cutter,
    /// Chunks that may still change.
    open: BTreeMap<u64, OpenChunk>,
    /// Chunks that are full and synced. They are open again as soon as something is written over in them.
    full: BTreeMap<u64, OpenChunk>,
    /// Bytes of pieces that no sync covers yet, and of the cutter's tail.
    held: usize,
    /// Where the file ends, by what was written.
    end: u64,
    /// The size that the meta server knows.
    reported: u64,
    /// What was there when it was opened, or cut, ends here: a chunk before it is taken over when it is first written to.
    begin: u64,
    /// Where the file ended then.
    given: u64,
    /// The chunk in which that is, if there is none.
    absent: Option<u64>,
    /// Replicas of each chunk, if it was opened to be written further.
    replication: u8,
}

#[derive(Clone, Debug)]
enum Stage {
    Writing,
    /// A size report is on its way.
    Reporting(Report),
    /// The meta server is asked to cut the file, or the chunk in which that is.
    Cutting(Cutting),
    Failed(Failure),
}

/// A new length on its way.
#[derive(Clone, Copy, Debug)]
struct Cutting {
    len: u64,
    /// Where what is there of the file ends then: it is no longer than it was.
    end: u64,
}

#[derive(Clone, Debug)]
struct Report {
    size: u64,
    /// Each chunk it names, by index, and what it says of it.
    chunks: Vec<(u64, Durable)>,
    writer: WriterStays,
}

/// A call in its turn.
#[derive(Clone, Debug)]
enum Todo {
    Write { offset: u64, data: Bytes },
    Sync,
    SetLen { len: u64, says: Says },
    Close,
}

/// How who asked for a new length hears that the file has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Says {
    Done,
    /// The file was opened for it: its handle is told, and until then nobody knows it.
    Opened,
}

/// Whether the file is still there after an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Stays,
    Closed,
}

impl Writer {
    /// What it holds: bytes and pieces that no sync covers yet as they weigh against the window, and its chunks.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held, self.open.len() + self.full.len())
    }
    pub(super) fn new(who: Identity, reach: &Reach) -> Self {
        let cutter = Cutter::new(who.geometry, reach.limits.write_window_bytes);
        Self {
            who,
            stage: Stage::Writing,
            calls: VecDeque::new(),
            cutter,
            open: BTreeMap::new(),
            full: BTreeMap::new(),
            held: 0,
            end: 0,
            reported: 0,
            begin: 0,
            given: 0,
            absent: None,
            replication: 0,
        }
    }

    /// It is a file of this size that others have written.
    pub(super) const fn reopened(&mut self, size: u64, replication: u8) {
        (self.begin, self.end, self.reported) = (size, size, size);
        self.given = size;
        self.replication = replication;
    }

    /// The chunk in which it ends may be written further, or not. Gives the file, its replicas, and where it ends.
    pub(super) fn taken_over(
        &mut self,
        now: Instant,
        index: u64,
        outcome: Result<Done, Failure>,
    ) -> Result<(FileId, u8, u64), Failure> {
        let chunk_bytes = self.who.geometry.chunk_bytes();
        let taken = self.take_chunk(now, (index, chunk_bytes), outcome);
        let len = taken.map_err(|Failure { status, what }| {
            let what = format!("{} cannot be written further: {what}", self.who.name);
            Failure { status, what }
        })?;
        // Who wrote it before may have synced more than it reported: the next report covers that too.
        let end = self.reported.max(index * chunk_bytes + len);
        (self.begin, self.end, self.given) = (end, end, end);
        Ok((self.who.file, self.replication, end))
    }

    /// Takes up a chunk that may be written further, or is not there: gives how long it is, at most `most`.
    fn take_chunk(
        &mut self,
        now: Instant,
        (index, most): (u64, u64),
        outcome: Result<Done, Failure>,
    ) -> Result<u64, Failure> {
        match outcome? {
            Done::TakenOver { grant, len } => {
                let chunk = OpenChunk::taken_over((index, 1..=most), now, (grant, len), &self.who)?;
                self.open.insert(index, chunk);
                Ok(len)
            }
            Done::Ok => {
                probe::hit(Probe::EndsInHole);
                self.absent = Some(index);
                Ok(0)
            }
            other => {
                let what =
                    format!("the meta server answered {other:?} where a chunk was asked for");
                let status = Status::Protocol;
                Err(Failure { status, what })
            }
        }
    }

    pub(super) const fn file(&self) -> FileId {
        self.who.file
    }

    pub(super) const fn session(&self) -> SessionId {
        self.who.session
    }

    pub(super) fn write(
        &mut self,
        now: Instant,
        id: CallId,
        offset: u64,
        data: Bytes,
        reach: &mut Reach,
    ) -> Fate {
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > FILE_BYTES_MAX)
        {
            let what = format!(
                "{} bytes at {offset} of {} are past what a file can be",
                data.len(),
                self.who.name
            );
            reach.outbox.event(
                id,
                Event::Failed(Failure {
                    status: Status::BadRequest,
                    what,
                }),
            );
            return Fate::Stays;
        }
        self.take_up(now, id, Todo::Write { offset, data }, reach)
    }
    pub(super) fn sync(&mut self, now: Instant, id: CallId, reach: &mut Reach) -> Fate {
        self.take_up(now, id, Todo::Sync, reach)
    }
    pub(super) fn set_len(
        &mut self,
        now: Instant,
        id: CallId,
        (len, says): (u64, Says),
        reach: &mut Reach,
    ) -> Fate {
        self.take_up(now, id, Todo::SetLen { len, says }, reach)
    }
    pub(super) fn close(&mut self, now: Instant, id: CallId, reach: &mut Reach) -> Fate {
        if let Stage::Failed(failure) = &self.stage {
            reach.outbox.event(id, Event::Failed(failure.clone()));
            self.let_go(reach);
            return Fate::Closed;
        }
        self.take_up(now, id, Todo::Close, reach)
    }

    /// Forgets the file as it is: it stays as last reported.
    pub(super) fn abandon(mut self, id: CallId, reach: &mut Reach) {
        let why = Failure {
            status: Status::BadRequest,
            what: format!("{} was abandoned", self.who.name),
        };
        self.fail(why, reach);
        self.let_go(reach);
        reach.outbox.event(id, Event::Done);
    }

    /// Fails the file for good; the first failure is the one that stays.
    pub(super) fn fail(&mut self, failure: Failure, reach: &mut Reach) {
        if !matches!(self.stage, Stage::Failed(_)) {
            for (id, _) in self.calls.drain(..) {
                reach.outbox.event(id, Event::Failed(failure.clone()));
            }
            for (_, chunk) in core::mem::take(&mut self.open) {
                chunk.drop_asked(reach);
            }
            self.cutter = Cutter::new(self.who.geometry, reach.limits.write_window_bytes);
            self.held = 0;
            self.stage = Stage::Failed(failure);
        }
    }

    /// The meta server answered the request for chunk `index`.
    pub(super) fn allocated(
        &mut self,
        now: Instant,
        index: u64,
        outcome: Result<Done, Failure>,
        reach: &mut Reach,
    ) -> Fate {
        let Some(chunk) = self.open.get_mut(&index) else {
            return Fate::Stays;
        };
        let granted = match outcome {
            Ok(Done::Granted(grant)) => chunk.granted(now, grant, &self.who),
            Ok(Done::Ok) => {
                // It is not there, as the file has a hole as large as a chunk, or ends in one.
                chunk.is_new();
                let asker = Asker::Allocate {
                    handle: self.who.handle,
                    index,
                };
                let file = self.who.file;
                let op = MutateOp::Allocate { file, index };
                self.who.ask(now, asker, op, reach);
                return Fate::Stays;
            }
            Ok(Done::TakenOver { grant, len }) => {
                // It may be shorter than its share of the file: then what is missing is zeros.
                chunk.found(now, (grant, len), &self.who)
            }
            Ok(other) => Err(Failure {
                status: Status::Protocol,
                what: format!("the meta server answered {other:?} where a chunk was asked for"),
            }),
            Err(failure) if chunk.awaits_chain() => Err(chunk.not_rechained(failure, &self.who)),
            Err(_) if chunk.is_untouched() => {
                probe::hit(Probe::ChunkAheadRefused);
                // Asked for ahead and not needed yet: it is asked for again when it is.
                self.open.remove(&index);
                return match self.calls.front() {
                    Some((_, Todo::SetLen { .. })) => self.advance(now, reach),
                    _ => Fate::Stays,
                };
            }
            Err(Failure { status, what }) => Err(Failure {
                status,
                what: format!("no chunk {index} for {}: {what}", self.who.name),
            }),
        };
        self.go_on(now, granted, reach)
    }

    /// The head answered a piece.
    pub(super) fn piece_done(
        &mut self,
        now: Instant,
        (index, number): (u64, PieceNumber),
        done: PieceDone,
        reach: &mut Reach,
    ) -> Fate {
        let Some(chunk) = self.open.get_mut(&index) else {
            return Fate::Stays;
        };
        let outcome = chunk.piece_done(now, number, done, &self.who, reach);
        self.go_on(now, outcome, reach)
    }

    /// The head answered a sync.
    pub(super) fn sync_done(
        &mut self,
        now: Instant,
        index: u64,
        done: SyncDone,
        reach: &mut Reach,
    ) -> Fate {
        let Some(chunk) = self.open.get_mut(&index) else {
            return Fate::Stays;
        };
        let outcome = chunk.sync_done(now, done, &self.who, reach);
        self.go_on(now, outcome, reach)
    }

    /// The link to the head of this chunk is gone.
    pub(super) fn lost(
        &mut self,
        now: Instant,
        index: u64,
        why: (&str, Reached),
        reach: &mut Reach,
    ) {
        if let Some(chunk) = self.open.get_mut(&index) {
            chunk.lost(now, why, reach);
        }
    }

    /// The meta server answered a size report.
    pub(super) fn reported(
        &mut self,
        now: Instant,
        outcome: Result<Done, Failure>,
        reach: &mut Reach,
    ) -> Fate {
        let Stage::Reporting(report) = &self.stage else {
            return Fate::Stays;
        };
        match outcome {
            Ok(_) => {
                assert!(self.reported <= report.size, "a size never falls");
                self.reported = report.size;
                for (index, durable) in &report.chunks {
                    let full = self.full.get_mut(index);
                    if let Some(chunk) = full.or_else(|| self.open.get_mut(index)) {
                        chunk.named = Some(*durable);
                    }
                }
                let closed = report.writer == WriterStays::Closed;
                self.stage = Stage::Writing;
                if closed {
                    let (id, _) = self.calls.pop_front().expect("a close made the report");
                    reach.outbox.event(id, Event::Done);
                    let what = format!("{} is closed", self.who.name);
                    self.fail(
                        Failure {
                            status: Status::BadRequest,
                            what,
                        },
                        reach,
                    );
                    return Fate::Closed;
                }
                self.advance(now, reach)
            }
            Err(_)
                if matches!(self.calls.front(), Some((_, Todo::Close)))
                    && planted::is(Bug::CloseAckedUnreported) =>
            {
                let (id, _) = self.calls.pop_front().expect("it was just seen");
                reach.outbox.event(id, Event::Done);
                Fate::Closed
            }
            Err(Failure { status, what }) => {
                let size = report.size;
                let what = format!(
                    "the size {size} of {} was not reported: {what}",
                    self.who.name
                );
                self.go_on(now, Err(Failure { status, what }), reach)
            }
        }
    }

    /// The meta server has cut the file, or not.
    pub(super) fn truncated(
        &mut self,
        now: Instant,
        outcome: Result<Done, Failure>,
        reach: &mut Reach,
    ) -> Fate {
        let Stage::Cutting(Cutting { len, end }) = self.stage else {
            return Fate::Stays;
        };
        if let Err(failure) = outcome {
            return self.not_cut(now, len, failure, reach);
        }
        // All of it is synced and named; what is left of it is written no more, but for the chunk that is taken over.
        self.open.clear();
        self.full.clear();
        self.absent = None;
        (self.begin, self.end, self.given) = (end, len, len);
        self.reported = len;
        let (index, within) = self.who.geometry.chunk_at(end);
        if within == 0 {
            return self.has_len(now, reach);
        }
        let file = self.who.file;
        let op = MutateOp::TakeOver { file, index };
        let handle = self.who.handle;
        let asker = Asker::TakeCut { handle, index };
        self.who.ask(now, asker, op, reach);
        Fate::Stays
    }

    /// The chunk in which the file was cut may be written further, or not.
    pub(super) fn cut_taken(
        &mut self,
        now: Instant,
        index: u64,
        outcome: Result<Done, Failure>,
        reach: &mut Reach,
    ) -> Fate {
        let Stage::Cutting(Cutting { len, end }) = self.stage else {
            return Fate::Stays;
        };
        let (_, within) = self.who.geometry.chunk_at(end);
        match self.take_chunk(now, (index, within), outcome) {
            Ok(_) => self.has_len(now, reach),
            Err(failure) => self.not_cut(now, len, failure, reach),
        }
    }

    fn not_cut(&mut self, now: Instant, len: u64, failure: Failure, reach: &mut Reach) -> Fate {
        let Failure { status, what } = failure;
        let what = format!("{} may not have {len} bytes now: {what}", self.who.name);
        self.go_on(now, Err(Failure { status, what }), reach)
    }

    /// The file has its new length, and may be written from where what is there of it ends.
    fn has_len(&mut self, now: Instant, reach: &mut Reach) -> Fate {
        self.stage = Stage::Writing;
        let Some((id, Todo::SetLen { says, .. })) = self.calls.pop_front() else {
            unreachable!("the call in front has asked for it");
        };
        let event = match says {
            Says::Done => Event::Done,
            Says::Opened => Event::Appending {
                handle: self.who.handle,
                file: self.who.file,
                replication: self.replication,
                end: self.end,
            },
        };
        reach.outbox.event(id, event);
        self.advance(now, reach)
    }

    /// Asks the meta server to give the file another length.
    fn truncate(&mut self, now: Instant, len: u64, reach: &mut Reach) {
        let end = len.min(self.reported);
        // Whatever comes of it, nobody is told the size of before.
        self.reported = end;
        let op = MutateOp::Truncate {
            file: self.who.file,
            len,
        };
        let handle = self.who.handle;
        let asker = Asker::Truncate { handle };
        self.who.ask(now, asker, op, reach);
        self.stage = Stage::Cutting(Cutting { len, end });
    }

    /// Gives up on heads that are silent too long, and tries again where that is due.
    pub(super) fn tick(&mut self, now: Instant, reach: &mut Reach) -> Fate {
        let mut due = false;
        let mut outcome = Ok(());
        for chunk in self.open.values_mut() {
            if chunk
                .deadline(reach.timeout)
                .is_some_and(|(at, _)| at <= now)
            {
                due = true;
                outcome = outcome.and_then(|()| chunk.tick(now, &self.who, reach));
            }
        }
        if due {
            self.go_on(now, outcome, reach)
        } else {
            Fate::Stays
        }
    }

    /// Whether a chunk of it may still change: nothing else has a deadline.
    pub(super) fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }
    pub(super) fn deadline(&self, reach: &Reach) -> Option<(Instant, &'static str)> {
        self.open
            .values()
            .filter_map(|chunk| chunk.deadline(reach.timeout))
            .min_by_key(|(at, _)| *at)
    }

    fn take_up(&mut self, now: Instant, id: CallId, todo: Todo, reach: &mut Reach) -> Fate {
        if let Stage::Failed(failure) = &self.stage {
            reach.outbox.event(id, Event::Failed(failure.clone()));
            return Fate::Stays;
        }
        self.calls.push_back((id, todo));
        self.advance(now, reach)
    }

    /// Goes on after an input, or fails the file for good; a close that waits is answered then, and is its end.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        outcome: Result<(), Failure>,
        reach: &mut Reach,
    ) -> Fate {
        match outcome {
            Ok(()) => self.advance(now, reach),
            Err(failure) => {
                let ends = |todo: &Todo| match todo {
                    Todo::Close => true,
                    Todo::SetLen { says, .. } => *says == Says::Opened,
                    Todo::Write { .. } | Todo::Sync => false,
                };
                let ends = self.calls.iter().any(|(_, todo)| ends(todo));
                self.fail(failure, reach);
                if ends {
                    self.let_go(reach);
                    return Fate::Closed;
                }
                Fate::Stays
            }
        }
    }

    /// Tells the meta server that this session writes the file no more; nobody waits for the answer.
    pub(super) fn let_go(&self, reach: &mut Reach) {
        if reach.meta.session() == Some(self.who.session) {
            reach
                .meta
                .stop_writing(self.who.session, self.who.file, self.reported);
        }
    }

    /// Does all that can be done now: cuts, sends, syncs, reports.
    fn advance(&mut self, now: Instant, reach: &mut Reach) -> Fate {
        loop {
            if matches!(self.stage, Stage::Cutting(_)) {
                return Fate::Stays;
            }
            self.held -= self
                .open
                .values_mut()
                .map(OpenChunk::take_released)
                .sum::<usize>();
            let rule = match self.cut_front(now, reach) {
                Ok(rule) => rule,
                Err(failure) => return self.go_on(now, Err(failure), reach),
            };
            self.send(now, rule, reach);
            if rule != Rule::Covered || self.settle(now, reach) == Turn::Waits {
                return Fate::Stays;
            }
            if let Some((_, Todo::SetLen { len, .. })) = self.calls.front() {
                let len = *len;
                // A chunk that was asked for ahead must not come when nobody knows of it any more.
                if self.open.values().all(OpenChunk::has_grant) {
                    self.truncate(now, len, reach);
                }
                return Fate::Stays;
            }
            let (id, _) = self.calls.pop_front().expect("a sync was covered");
            reach.outbox.event(id, Event::Done);
        }
    }

    /// Cuts what the window has room for, answering writes that are taken whole. Says by which rule chunks
    /// are to be synced now.
    fn cut_front(&mut self, now: Instant, reach: &mut Reach) -> Result<Rule, Failure> {
        loop {
            match self.calls.front_mut() {
                None => return Ok(Rule::AtBlockEdges),
                Some((_, Todo::Sync | Todo::SetLen { .. } | Todo::Close)) => {
                    if matches!(self.stage, Stage::Writing) {
                        self.cut_tail(now, reach)?;
                        self.fill_out(now, reach)?;
                    }
                    return Ok(Rule::Covered);
                }
                Some((id, Todo::Write { offset, data })) => {
                    let id = *id;
                    if !data.is_empty() && !self.cutter.joins(*offset) {
                        if planted::is(Bug::GatheredBytesDropped)
                            && let Some((_, lost)) = self.cutter.tail()
                        {
                            self.held -= lost.len();
                            continue;
                        }
                        self.cut_tail(now, reach)?;
                        continue;
                    }
                    if data.is_empty() {
                        self.calls.pop_front();
                        reach.outbox.event(id, Event::Done);
                        continue;
                    }
                    let held = if planted::is(Bug::WindowIgnored) {
                        0
                    } else {
                        self.held
                    };
                    let Some(taken) = self.cutter.take(offset, data, held) else {
                        probe::hit(Probe::WindowFull);
                        return Ok(Rule::WindowFull);
                    };
                    self.held += taken.bytes;
                    self.end = self.end.max(*offset);
                    if let Some((at, piece)) = taken.piece {
                        self.put(now, at, piece, reach)?;
                    }
                }
            }
        }
    }

    fn cut_tail(&mut self, now: Instant, reach: &mut Reach) -> Result<(), Failure> {
        match self.cutter.tail() {
            Some((at, piece)) => self.put(now, at, piece, reach),
            None => Ok(()),
        }
    }

    /// Gives every chunk before the last its full length, as the file's size will say: a replica whose length is shorter
    /// serves nothing. Only files with holes have such chunks. One that was taken over and is left as it is, as the file
    /// was made longer since, stays so: the log knows where it ends.
    fn fill_out(&mut self, now: Instant, reach: &mut Reach) -> Result<(), Failure> {
        let Some(last) = self.last_index() else {
            return Ok(());
        };
        let chunk_bytes = self.who.geometry.chunk_bytes();
        let short: Vec<u64> = self
            .open
            .range(..last)
            .filter(|(_, chunk)| chunk.ends_before(chunk_bytes) && !chunk.is_as_taken())
            .map(|(index, _)| *index)
            .collect();
        for index in short {
            probe::hit(Probe::ChunkFilledOut);
            self.held += 1;
            self.put(
                now,
                (index + 1) * chunk_bytes - 1,
                Bytes::from_static(&[0]),
                reach,
            )?;
        }
        Ok(())
    }

    /// Hands a piece to its chunk, asking for the chunk, and for the next one before this one is full.
    fn put(
        &mut self,
        now: Instant,
        at: u64,
        piece: Bytes,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        let geometry = self.who.geometry;
        let (index, within) = geometry.chunk_at(at);
        let end = within + piece.len() as u64;
        assert!(
            end <= geometry.chunk_bytes(),
            "a piece never crosses the edge of its chunk"
        );
        if let Some(chunk) = self.full.remove(&index) {
            probe::hit(Probe::ChunkOpenAgain);
            self.open.insert(index, chunk);
        }
        self.want(now, index, reach);
        let chunk = self.open.get_mut(&index).expect("it was just wanted");
        chunk.put(within, piece, geometry);
        self.held += PIECE_COST;
        let ahead = (4 * u64::from(geometry.piece_bytes)).min(geometry.chunk_bytes() / 2);
        // One that is there already is not raised before it is written to, nor is one made in a hole that may stay one.
        let is_new = (index + 1) * geometry.chunk_bytes() >= self.end;
        if end + ahead >= geometry.chunk_bytes() && end < geometry.chunk_bytes() && is_new {
            self.want(now, index + 1, reach);
        }
        Ok(())
    }

    fn want(&mut self, now: Instant, index: u64, reach: &mut Reach) {
        if !self.full.contains_key(&index) && !self.open.contains_key(&index) {
            let file = self.who.file;
            let is_there = index * self.who.geometry.chunk_bytes() < self.begin;
            let (chunk, op) = if is_there && self.absent != Some(index) {
                probe::hit(Probe::ChunkTakenOverLate);
                let op = MutateOp::TakeOver { file, index };
                (OpenChunk::sought(index, now), op)
            } else {
                let op = MutateOp::Allocate { file, index };
                (OpenChunk::new(index, now), op)
            };
            self.open.insert(index, chunk);
            let asker = Asker::Allocate {
                handle: self.who.handle,
                index,
            };
            self.who.ask(now, asker, op, reach);
        }
    }

    /// Sends pieces and begins syncs.
    fn send(&mut self, now: Instant, rule: Rule, reach: &mut Reach) {
        let mut syncing = self.open.values().any(OpenChunk::is_syncing);
        let mut settled = Vec::new();
        for (index, chunk) in &mut self.open {
            // With a full window one sync under way is enough to move it.
            let rule = if syncing && rule == Rule::WindowFull {
                Rule::AtBlockEdges
            } else {
                rule
            };
            chunk.send(now, rule, &self.who, reach);
            syncing |= chunk.is_syncing();
            if chunk.is_full_and_synced(self.who.geometry) {
                settled.push(*index);
            }
        }
        for index in settled {
            let chunk = self.open.remove(&index).expect("it was just found");
            self.full.insert(index, chunk);
        }
    }

    /// Index of the chunk with the file's last byte.
    fn last_index(&self) -> Option<u64> {
        self.end
            .checked_sub(1)
            .map(|last| self.who.geometry.chunk_at(last).0)
    }

    /// Everything was cut: once all of it is synced, reports the size. Done when there is nothing to report.
    fn settle(&mut self, now: Instant, reach: &mut Reach) -> Turn {
        let last = self.last_index();
        let unsynced = last.is_some_and(|last| {
            self.open
                .range(..=last)
                .any(|(_, chunk)| !chunk.is_synced())
        });
        if unsynced || matches!(self.stage, Stage::Reporting(_)) {
            return Turn::Waits;
        }
        assert_eq!(self.held, 0, "nothing is held when every chunk is synced");
        let closing = matches!(self.calls.front(), Some((_, Todo::Close)));
        let mut fresh = self.unreported(last);
        let cutting = matches!(self.calls.front(), Some((_, Todo::SetLen { .. })));
        // What others wrote and did not report is not reported only to be cut off.
        let all_known = self.end == self.reported || (cutting && self.end == self.given);
        if fresh.is_empty() && all_known && !closing {
            return Turn::Done;
        }
        // The last chunk is named in every last report, because the size ends in it.
        if let Some(last) = last
            && fresh.last().is_none_or(|chunk| chunk.index < last)
        {
            let synced = self.synced(last);
            assert!(
                synced.is_some() || self.end == self.given,
                "every chunk up to the last is synced, unless the file ended there before and nothing came behind"
            );
            fresh.extend(synced);
        }
        let all = fresh.len() <= SIZE_BASIS_MAX;
        fresh.truncate(SIZE_BASIS_MAX);
        let size = match fresh.last() {
            Some(chunk) if !all => (chunk.index * self.who.geometry.chunk_bytes()
                + chunk.synced.len)
                .clamp(self.reported, self.end),
            _ => self.end,
        };
        let writer = if closing && all {
            WriterStays::Closed
        } else {
            WriterStays::Open
        };
        let chunks = fresh
            .iter()
            .map(|chunk| (chunk.index, chunk.synced))
            .collect();
        let op = MutateOp::SetSize {
            file: self.who.file,
            size,
            basis: fresh,
            writer,
        };
        let asker = Asker::SetSize {
            handle: self.who.handle,
        };
        self.who.ask(now, asker, op, reach);
        self.stage = Stage::Reporting(Report {
            size,
            chunks,
            writer,
        });
        Turn::Waits
    }

    /// What a size report would have to name, in order: chunks never named, or synced further since.
    fn unreported(&self, last: Option<u64>) -> Vec<SyncedChunk> {
        let Some(last) = last else { return Vec::new() };
        let all = self.full.range(..=last).chain(self.open.range(..=last));
        let mut chunks: Vec<SyncedChunk> = all
            .filter_map(|(_, chunk)| {
                let synced = chunk.synced()?;
                (chunk.named != Some(synced.synced)).then_some(synced)
            })
            .collect();
        chunks.sort_by_key(|chunk| chunk.index);
        chunks
    }

    fn synced(&self, index: u64) -> Option<SyncedChunk> {
        let chunk = self.full.get(&index).or_else(|| self.open.get(&index))?;
        chunk.synced()
    }
}

/// Whether the call in front is through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Waits,
    Done,
}
