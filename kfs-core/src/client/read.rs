//! Reading: a call is cut into pieces, each read from one replica, or the next, until one gives bytes that
//! match their sums.
//!
//! A piece tries every replica that the meta server named, then asks the meta server again, waiting a
//! little longer each round, until the call's time is up. What each server said is kept for the error.
//! Bytes are passed on as they came, never copied, and never before they are verified.
use super::links::Use;
use super::locate::{Page, Place, Places};
use super::meta_on_client::Ask;
use super::{Asker, Errand, Event, Failure, Handle, Reach, backoff};
use crate::block::spans;
use crate::buggify::{self, Site};
use crate::ids::{CallId, FileId};
use crate::limits::Geometry;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_chunk::{RangeRead, ReadRange};
use crate::wire::client_meta::{Located, QueryOp};
use crate::wire::{Refusal, Status};
use bytes::Bytes;
use core::fmt::Write as _;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

/// One replica gets so long for one piece, also while it answers others.
const TRY_MAX: Duration = Duration::from_secs(12);

/// The files open for reading, and the reads in progress.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    files: BTreeMap<Handle, Places>,
    calls: BTreeMap<u64, Read>,
    next_read: u64,
    /// A piece of a hole.
    zeros: Bytes,
}

#[derive(Clone, Debug)]
struct Read {
    id: CallId,
    handle: Handle,
    offset: u64,
    len: usize,
    asked_at: Instant,
    /// Empty until the sizes that files are cut into are known.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    index: u64,
    /// In the chunk.
    offset: u64,
    len: u32,
    /// Bytes that servers are asked for; the rest is a hole at the end of the chunk.
    due: u32,
    rounds: u32,
    /// Asked in this round.
    tried: Vec<SocketAddr>,
    /// What each server asked said last.
    said: BTreeMap<SocketAddr, Refusal>,
    /// Replicas named and absent when the meta server was last asked.
    copies: usize,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Queued,
    /// No replica gave all of it: its blocks are read one by one, as pieces of their own.
    Split,
    /// The meta server is asked where the chunk is.
    Locating,
    Asked {
        addr: SocketAddr,
        request: u64,
        at: Instant,
    },
    /// No replica gave it; a new round begins then.
    Resting {
        until: Instant,
    },
    Done {
        bytes: Bytes,
        from: Option<SocketAddr>,
    },
}

impl Reads {
    pub(super) const fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_read: 1,
            zeros: Bytes::new(),
        }
    }

    pub(super) fn open(&mut self, handle: Handle, places: Places) {
        let before = self.files.insert(handle, places);
        assert!(before.is_none(), "handles are not reused");
    }

    pub(super) fn has(&self, handle: Handle) -> bool {
        self.files.contains_key(&handle)
    }

    /// Closes a file; reads of it that are not answered fail. Gives which file it was.
    pub(super) fn close(&mut self, handle: Handle, reach: &mut Reach) -> Option<FileId> {
        let why = Failure {
            status: Status::BadRequest,
            what: "the file was closed while it was read".into(),
        };
        for read in self.of(handle) {
            self.fail(read, why.clone(), reach);
        }
        self.files.remove(&handle).map(|places| places.file)
    }

    /// Every read fails with `why`, and every file is closed. Gives those that were open.
    pub(super) fn end(&mut self, why: &Failure, reach: &mut Reach) -> Vec<FileId> {
        for read in self.calls.keys().copied().collect::<Vec<_>>() {
            self.fail(read, why.clone(), reach);
        }
        let open = core::mem::take(&mut self.files);
        open.into_values().map(|places| places.file).collect()
    }

    pub(super) fn read(
        &mut self,
        now: Instant,
        id: CallId,
        at: (Handle, u64, usize),
        reach: &mut Reach,
    ) {
        let (handle, offset, len) = at;
        let file = self
            .files
            .get_mut(&handle)
            .expect("the caller found it open");
        if len == 0 || offset >= file.size {
            return reach.outbox.event(
                id,
                Event::Data {
                    parts: Vec::new(),
                    from: Vec::new(),
                },
            );
        }
        let len = usize::try_from(file.size - offset).map_or(len, |rest| rest.min(len));
        let read = self.next_read;
        self.next_read += 1;
        self.calls.insert(
            read,
            Read {
                id,
                handle,
                offset,
                len,
                asked_at: now,
                pieces: Vec::new(),
            },
        );
        if file.geometry.is_none() {
            file.geometry = reach.meta.geometry();
        }
        if file.geometry.is_none() {
            return locate(now, handle, file, 0, reach);
        }
        self.advance(now, read, reach);
    }

    /// The meta server said, or not, where these chunks are.
    pub(super) fn located(
        &mut self,
        now: Instant,
        (handle, page): (Handle, Page),
        outcome: Result<Located, Failure>,
        reach: &mut Reach,
    ) {
        let Some(file) = self.files.get_mut(&handle) else {
            return;
        };
        let outcome = match outcome {
            Ok(located) => file
                .answered(page, located, &mut reach.rng)
                .map_err(|what| Failure {
                    status: Status::Protocol,
                    what,
                }),
            Err(failure) => {
                file.unanswered(page.first);
                Err(failure)
            }
        };
        let count = u64::from(page.count);
        let waits = |piece: &Piece| {
            matches!(piece.step, Step::Locating)
                && piece.index >= page.first
                && piece.index - page.first < count
        };
        for read in self.of(handle) {
            let call = self
                .calls
                .get_mut(&read)
                .expect("reads of the file are in progress");
            let concerned = call.pieces.is_empty() || call.pieces.iter().any(waits);
            match &outcome {
                Err(failure) if concerned => {
                    let name = &self.files[&handle].name;
                    let what = format!("cannot find the chunks of {name}: {}", failure.what);
                    self.fail(
                        read,
                        Failure {
                            status: failure.status,
                            what,
                        },
                        reach,
                    );
                }
                Err(_) => {}
                Ok(()) => {
                    for piece in call.pieces.iter_mut().filter(|piece| waits(piece)) {
                        piece.step = Step::Queued;
                    }
                    self.advance(now, read, reach);
                }
            }
        }
    }

    /// A server answered for this piece.
    pub(super) fn range_read(
        &mut self,
        now: Instant,
        (read, at): (u64, usize),
        (answer, body): (RangeRead, Bytes),
        reach: &mut Reach,
    ) {
        let Some((piece, geometry, addr)) = self.asked(read, at) else {
            return;
        };
        let due = piece.due as usize;
        match answer.outcome {
            Ok(sums)
                if body.len() == due
                    && (sums.match_bytes(geometry, piece.offset, &body)
                        || planted::is(Bug::ReadSumsIgnored)) =>
            {
                piece.step = Step::Done {
                    bytes: padded(body, piece.len as usize),
                    from: Some(addr),
                };
                self.advance(now, read, reach);
            }
            Ok(_) => {
                let why = format!(
                    "sent {} bytes for {due} that do not match their sums",
                    body.len(),
                );
                self.failed_try(now, (read, at), Refusal::new(Status::Corrupt, why), reach);
            }
            Err(refusal) => self.failed_try(now, (read, at), refusal, reach),
        }
    }

    /// The link to the server that was asked for this piece is gone.
    pub(super) fn lost(&mut self, now: Instant, piece: (u64, usize), why: &str, reach: &mut Reach) {
        self.failed_try(now, piece, Refusal::new(Status::Unreachable, why), reach);
    }

    pub(super) fn tick(&mut self, now: Instant, reach: &mut Reach) {
        let timeout = reach.timeout;
        for read in self.calls.keys().copied().collect::<Vec<_>>() {
            let call = self.calls.get_mut(&read).expect("nothing was removed yet");
            if call.asked_at + timeout <= now {
                let failure = self.out_of_time(read, timeout);
                self.fail(read, failure, reach);
                continue;
            }
            let mut slow = Vec::new();
            let mut rested = false;
            for (at, piece) in call.pieces.iter_mut().enumerate() {
                match piece.step {
                    Step::Resting { until } if until <= now => {
                        piece.step = Step::Queued;
                        rested = true;
                    }
                    Step::Asked {
                        addr,
                        request,
                        at: since,
                    } if since + TRY_MAX <= now => {
                        reach.links.forget((Use::Read, addr), request);
                        slow.push(at);
                    }
                    Step::Queued
                    | Step::Split
                    | Step::Locating
                    | Step::Asked { .. }
                    | Step::Resting { .. }
                    | Step::Done { .. } => {}
                }
            }
            let why = format!("no answer within {} s", TRY_MAX.as_secs());
            for at in slow {
                self.failed_try(
                    now,
                    (read, at),
                    Refusal::new(Status::TimedOut, why.clone()),
                    reach,
                );
            }
            if rested {
                self.advance(now, read, reach);
            }
        }
    }

    pub(super) fn deadline(&self, timeout: Duration) -> Option<(Instant, &'static str)> {
        let of = |read: &Read| {
            let pieces = read.pieces.iter().filter_map(|piece| match piece.step {
                Step::Resting { until } => Some((until, "look for replicas again")),
                Step::Asked { at, .. } => Some((at + TRY_MAX, "a replica is slow")),
                Step::Queued | Step::Split | Step::Locating | Step::Done { .. } => None,
            });
            pieces
                .chain([(read.asked_at + timeout, "a read's time is up")])
                .min_by_key(|(at, _)| *at)
        };
        self.calls.values().filter_map(of).min_by_key(|(at, _)| *at)
    }

    fn of(&self, handle: Handle) -> Vec<u64> {
        self.calls
            .iter()
            .filter(|(_, read)| read.handle == handle)
            .map(|(read, _)| *read)
            .collect()
    }

    /// The piece, if a server is asked for it now.
    fn asked(&mut self, read: u64, at: usize) -> Option<(&mut Piece, Geometry, SocketAddr)> {
        let call = self.calls.get_mut(&read)?;
        let geometry = self.files.get(&call.handle)?.geometry?;
        let piece = call.pieces.get_mut(at)?;
        let Step::Asked { addr, .. } = piece.step else {
            return None;
        };
        Some((piece, geometry, addr))
    }

    fn failed_try(
        &mut self,
        now: Instant,
        (read, at): (u64, usize),
        refusal: Refusal,
        reach: &mut Reach,
    ) {
        let Some((piece, _, addr)) = self.asked(read, at) else {
            return;
        };
        let index = piece.index;
        probe::hit(Probe::ReadPassedOver);
        piece.said.insert(addr, refusal);
        piece.step = Step::Queued;
        let handle = self.calls[&read].handle;
        self.files
            .get_mut(&handle)
            .expect("reads are of open files")
            .put_last(index, addr);
        self.advance(now, read, reach);
    }

    /// Starts as many pieces as may be in flight; answers the call when all are there.
    fn advance(&mut self, now: Instant, read: u64, reach: &mut Reach) {
        let Some(call) = self.calls.get_mut(&read) else {
            return;
        };
        let file = self
            .files
            .get_mut(&call.handle)
            .expect("reads are of open files");
        let Some(geometry) = file.geometry else {
            return;
        };
        if call.pieces.is_empty() {
            call.pieces = cut(geometry, call.offset, call.len);
            assert!(
                !call.pieces.is_empty(),
                "a read of no bytes was answered at once"
            );
        }
        if self.zeros.len() < geometry.piece_bytes as usize {
            self.zeros = Bytes::from(vec![0; geometry.piece_bytes as usize]);
        }
        let in_flight_max = if buggify::is(Site::ReadAheadOfOne) {
            1
        } else {
            (reach.limits.read_ahead_bytes / geometry.piece_bytes as usize).max(1)
        };
        let (mut in_flight, mut next) = (0, 0);
        // Its pieces may become more on the way.
        while next < call.pieces.len() {
            let at = next;
            next += 1;
            let piece = &mut call.pieces[at];
            if in_flight < in_flight_max && matches!(piece.step, Step::Queued) {
                let to = (read, at);
                if let Err(failure) = piece.start(now, to, (call.handle, file), &self.zeros, reach)
                {
                    return self.fail(read, failure, reach);
                }
            }
            match piece.step {
                Step::Queued | Step::Done { .. } => {}
                Step::Split if piece.len > 0 => {
                    let (index, from) = (piece.index, piece.offset);
                    let blocks = spans(geometry, from, u64::from(piece.len));
                    let blocks: Vec<Piece> = blocks
                        .map(|span| Piece::new(index, from + span.at as u64, span.len))
                        .collect();
                    piece.len = 0;
                    call.pieces.extend(blocks);
                }
                Step::Split => {}
                Step::Locating | Step::Asked { .. } | Step::Resting { .. } => in_flight += 1,
            }
        }
        if call
            .pieces
            .iter()
            .all(|piece| matches!(piece.step, Step::Done { .. } | Step::Split))
        {
            self.finish(read, reach);
        }
    }

    fn finish(&mut self, read: u64, reach: &mut Reach) {
        let mut call = self.calls.remove(&read).expect("the caller has it");
        // The file may have been cut meanwhile: it ends there.
        let size = self.files.get(&call.handle).map_or(0, |file| file.size);
        let rest = usize::try_from(size.saturating_sub(call.offset)).unwrap_or(usize::MAX);
        call.pieces
            .retain(|piece| !matches!(piece.step, Step::Split));
        call.pieces.sort_by_key(|piece| (piece.index, piece.offset));
        let mut parts = Vec::with_capacity(call.pieces.len());
        let mut from = Vec::new();
        for piece in call.pieces {
            let Step::Done { bytes, from: addr } = piece.step else {
                unreachable!("all pieces are done")
            };
            assert_eq!(
                bytes.len(),
                piece.len as usize,
                "a piece gives what was asked for"
            );
            let left = rest - parts.iter().map(Bytes::len).sum::<usize>();
            let bytes = bytes.slice(..bytes.len().min(left));
            if bytes.is_empty() {
                continue;
            }
            parts.push(bytes);
            if let Some(addr) = addr
                && !from.contains(&(piece.index, addr))
            {
                from.push((piece.index, addr));
            }
        }
        assert_eq!(
            parts.iter().map(Bytes::len).sum::<usize>(),
            call.len.min(rest),
            "the parts are the whole"
        );
        reach.outbox.event(call.id, Event::Data { parts, from });
    }

    fn fail(&mut self, read: u64, failure: Failure, reach: &mut Reach) {
        let call = self.calls.remove(&read).expect("the caller has it");
        for piece in &call.pieces {
            if let Step::Asked { addr, request, .. } = piece.step {
                reach.links.forget((Use::Read, addr), request);
            }
        }
        reach.outbox.event(call.id, Event::Failed(failure));
    }

    fn out_of_time(&self, read: u64, timeout: Duration) -> Failure {
        let call = &self.calls[&read];
        let file = &self.files[&call.handle];
        // The piece that tells most: one that servers refused, or one that waits.
        let open = || {
            call.pieces
                .iter()
                .filter(|piece| !matches!(piece.step, Step::Done { .. } | Step::Split))
        };
        match open().max_by_key(|piece| (piece.rounds, piece.said.len())) {
            Some(piece) if piece.rounds > 0 || !piece.said.is_empty() => {
                let mut failure = piece.unreadable(&file.name);
                let _ = write!(failure.what, "; gave up after {timeout:?}");
                failure
            }
            _ => Failure {
                status: Status::TimedOut,
                what: format!(
                    "reading {} from byte {} was not done within {timeout:?}",
                    file.name, call.offset
                ),
            },
        }
    }
}

impl Piece {
    fn new(index: u64, offset: u64, len: u32) -> Self {
        Self {
            index,
            offset,
            len,
            due: len,
            rounds: 0,
            tried: Vec::new(),
            said: BTreeMap::new(),
            copies: 0,
            step: Step::Queued,
        }
    }

    /// Takes the next step of a queued piece.
    fn start(
        &mut self,
        now: Instant,
        to: (u64, usize),
        (handle, file): (Handle, &mut Places),
        zeros: &Bytes,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        assert!(
            matches!(self.step, Step::Queued),
            "only a queued piece starts"
        );
        let spot = match file.get(self.index) {
            None => {
                self.step = Step::Locating;
                locate(now, handle, file, self.index, reach);
                return Ok(());
            }
            Some(Place::Hole) => {
                probe::hit(Probe::HoleRead);
                self.step = Step::Done {
                    bytes: zeros.slice(..self.len as usize),
                    from: None,
                };
                return Ok(());
            }
            // Past what the log gives the chunk, up to where the file goes on with the next one.
            Some(Place::At(spot)) if spot.log.len <= self.offset => {
                self.step = Step::Done {
                    bytes: zeros.slice(..self.len as usize),
                    from: None,
                };
                return Ok(());
            }
            Some(Place::At(spot)) => spot,
        };
        let rest = u32::try_from(spot.log.len - self.offset).unwrap_or(u32::MAX);
        self.due = self.len.min(rest);
        self.copies = spot.replicas.len() + spot.absent as usize;
        if let Some(addr) = spot
            .replicas
            .iter()
            .find(|addr| !self.tried.contains(addr))
            .copied()
        {
            let ask = ReadRange {
                chunk: spot.chunk,
                version: spot.version,
                offset: self.offset,
                len: self.due,
                log: spot.log,
            };
            let (read, piece) = to;
            let errand = Errand::Range { read, piece };
            let whom = (Use::Read, addr);
            let request = reach.links.ask(
                now,
                whom,
                (ask.into(), Bytes::new()),
                errand,
                &mut reach.outbox,
            );
            self.tried.push(addr);
            self.step = Step::Asked {
                addr,
                request,
                at: now,
            };
            return Ok(());
        }
        let corrupt = self
            .said
            .values()
            .filter(|said| said.status == Status::Corrupt)
            .count();
        if corrupt > 0 && corrupt >= self.copies {
            let geometry = file.geometry.expect("a chunk that was located has sizes");
            if spans(geometry, self.offset, u64::from(self.len)).count() > 1 {
                probe::hit(Probe::ReadSplit);
                // No replica has all of it, but each block may be good on one of them.
                self.step = Step::Split;
                return Ok(());
            }
            return Err(self.unreadable(&file.name));
        }
        probe::hit(Probe::ReadRests);
        self.tried.clear();
        self.step = Step::Resting {
            until: now + backoff(self.rounds, &mut reach.rng),
        };
        self.rounds += 1;
        file.forget(self.index);
        Ok(())
    }

    /// Why this piece cannot be read, naming every server that was asked and what it said.
    fn unreadable(&self, name: &str) -> Failure {
        let all_corrupt = !self.said.is_empty()
            && self
                .said
                .values()
                .all(|said| said.status == Status::Corrupt);
        let mut what = format!("no replica of chunk {} of {name} can be read", self.index);
        for (addr, said) in &self.said {
            let _ = write!(what, "; {addr}: {said}");
        }
        let silent = self.copies.saturating_sub(self.said.len());
        if silent > 0 || self.said.is_empty() {
            let _ = write!(what, "; {silent} more on servers that are not there");
        }
        Failure {
            status: if all_corrupt {
                Status::Corrupt
            } else {
                Status::NoReplica
            },
            what,
        }
    }
}

fn locate(now: Instant, handle: Handle, file: &mut Places, index: u64, reach: &mut Reach) {
    if let Some(page) = file.page_for(index) {
        let op = QueryOp::Locate {
            file: file.file,
            first: page.first,
            count: page.count,
        };
        reach
            .meta
            .ask(now, Asker::Locate { handle, page }, Ask::Query(op));
    }
}

/// The bytes with zeros up to `len` after them.
fn padded(bytes: Bytes, len: usize) -> Bytes {
    if bytes.len() == len {
        return bytes;
    }
    let mut whole = bytes::BytesMut::with_capacity(len);
    whole.extend_from_slice(&bytes);
    whole.resize(len, 0);
    whole.freeze()
}

/// Cuts a range of a file at chunk edges, and at piece edges counted from the chunk's begin.
fn cut(geometry: Geometry, offset: u64, len: usize) -> Vec<Piece> {
    let end = offset + len as u64;
    let mut pieces = Vec::new();
    let mut at = offset;
    while at < end {
        let (index, within) = geometry.chunk_at(at);
        let piece = if buggify::is(Site::ReadPieceOfOneBlock) {
            u64::from(geometry.block_bytes)
        } else {
            u64::from(geometry.piece_bytes)
        };
        let edge = ((within / piece + 1) * piece).min(geometry.chunk_bytes());
        let share = (edge - within).min(end - at);
        let len = u32::try_from(share).expect("a piece is at most a frame's body");
        pieces.push(Piece::new(index, within, len));
        at += share;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_cut_at_piece_and_chunk_edges_only() {
        let geometry = Geometry {
            block_bytes: 10,
            chunk_blocks: 5,
            piece_bytes: 20,
        };
        let cut: Vec<_> = cut(geometry, 15, 60)
            .iter()
            .map(|p| (p.index, p.offset, p.len))
            .collect();
        assert_eq!(
            cut,
            [(0, 15, 5), (0, 20, 20), (0, 40, 10), (1, 0, 20), (1, 20, 5)]
        );
    }
}
