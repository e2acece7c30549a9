//! Group commit: records are appended to batches, one batch is written and synced at a time, and what
//! arrives meanwhile forms the next. A first batch waits for whatever has arrived together with its first record: it
//! is due at once, and what is due is done when everything that is there was taken. Also prepares the next segment
//! ahead of use and switches to it.
//!
//! With a mirror every operation is issued for both copies at once, and has ended when it has ended for both: the
//! slower of the two disks says how long a sync takes, and an error of either is final.
//!
//! It decides nothing about records. A write or sync that fails is final; only room that runs out while the
//! next segment is *prepared* is not: then [`Commit::room`] says no before a record is decided.
use super::mirror::{Copies, Side, Tickets};
use super::oplog::{
    BATCH_PAYLOAD_MAX, DIR, Forming, Joint, NEXT, PAGE_BYTES, SEGMENT_BYTES_MIN,
    SEGMENT_HEADER_BYTES, SegmentHeader, padded_bytes, segment_name,
};
use super::record::Logged;
use crate::buggify::{self, Site};
use crate::ids::{ClusterId, Epoch, LogSeq, Ticket};
use crate::limits::Limits;
use crate::machine::{DiskError, DiskOp, DiskResult, Fault, FaultKind, FileName, SyncMode};
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::rng::Rng;
use crate::time::Instant;
use bytes::Bytes;
use core::time::Duration;
use std::collections::VecDeque;

/// A mark is written when nothing was for this long.
const MARK_AFTER: Duration = Duration::from_millis(20);
/// After the disk was full, the next segment is tried again.
const RETRY_FULL: Duration = Duration::from_secs(5);

/// The segments on the disk by their first records, oldest first; the current one is last.
#[derive(Clone, Debug)]
pub(crate) struct Segments(pub(crate) Vec<LogSeq>);

impl Segments {
    /// Forgets those with nothing but records before this one, and says which they are: they may go.
    pub(crate) fn forget_before(&mut self, seq: LogSeq) -> Vec<LogSeq> {
        let old = self.0.iter().skip(1).take_while(|next| **next <= seq);
        let old = old.count();
        self.0.drain(..old).collect()
    }
}

/// The log, as it is being written.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    cluster: ClusterId,
    copies: Copies,
    batch_bytes: usize,
    segment_bytes: u64,
    segment: Segment,
    segments: Segments,
    chain: u64,
    queue: VecDeque<Forming>,
    flow: Flow,
    next: Next,
    appended: LogSeq,
    /// When the first record was appended that [`Commit::advance`] has not seen.
    unseen: Option<Instant>,
    durable: LogSeq,
    mark_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Segment {
    first: LogSeq,
    salt: u64,
    at: u64,
    bytes: u64,
}

/// What is being done to the segment that is written.
#[derive(Clone, Debug)]
enum Flow {
    Idle,
    Writing {
        tickets: Tickets,
        last: LogSeq,
        at: u64,
        chain: u64,
        what: Batch,
    },
    /// The switch to the next segment: its header is written, it is renamed, its name is made durable.
    Heading {
        tickets: Tickets,
        segment: Segment,
    },
    Renaming {
        tickets: Tickets,
        segment: Segment,
    },
    Naming {
        tickets: Tickets,
        segment: Segment,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Batch {
    Records,
    Mark,
}

/// What is being done to the segment after it.
#[derive(Clone, Debug)]
enum Next {
    Absent,
    Creating {
        tickets: Tickets,
        /// Whether one of the disks has no room for it.
        full: bool,
    },
    Syncing {
        tickets: Tickets,
    },
    Ready,
    /// The disk was full: what was made of it is taken away.
    Removing {
        tickets: Tickets,
    },
    Full {
        retry: Instant,
    },
    /// Being made the current one.
    Taken,
}

/// Whether a record may be appended now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// It may.
    Enough,
    /// Not until the next segment is prepared.
    Soon,
    /// Not until somebody makes room on the disk.
    Full,
}

impl Commit {
    /// The log in a segment that was just opened and holds nothing yet.
    pub(crate) fn new(
        cluster: ClusterId,
        limits: &Limits,
        header: &SegmentHeader,
        bytes: u64,
        mut segments: Vec<LogSeq>,
        copies: Copies,
    ) -> Self {
        assert!(
            bytes >= SEGMENT_BYTES_MIN,
            "a segment holds at least one record"
        );
        let durable = LogSeq(header.first.0 - 1);
        segments.push(header.first);
        let segments = Segments(segments);
        Self {
            cluster,
            copies,
            batch_bytes: limits.log_batch_bytes.min(BATCH_PAYLOAD_MAX / 2),
            segment_bytes: segment_bytes(limits.log_segment_bytes),
            segment: Segment {
                first: header.first,
                salt: header.salt,
                at: SEGMENT_HEADER_BYTES as u64,
                bytes,
            },
            segments,
            chain: header.chain,
            queue: VecDeque::new(),
            flow: Flow::Idle,
            next: Next::Absent,
            appended: durable,
            unseen: None,
            durable,
            mark_at: None,
        }
    }
    /// The segments on the disk.
    pub(crate) const fn segments(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// The newest record that is durable.
    pub(crate) const fn durable(&self) -> LogSeq {
        self.durable
    }

    /// Whether a record of at most so many bytes may be appended, with `reserve` batches of one page to come.
    pub(crate) fn room(&self, record_bytes: usize, reserve: usize) -> Room {
        let queued: u64 = self.queue.iter().map(Forming::padded_bytes).sum();
        let need = queued + padded_bytes(record_bytes) + PAGE_BYTES * reserve as u64;
        let at = match self.flow {
            Flow::Writing { at, .. } => at,
            Flow::Idle => self.segment.at,
            // The segment that is being opened is as good as ready.
            Flow::Heading { .. } | Flow::Renaming { .. } | Flow::Naming { .. } => {
                self.segment.bytes
            }
        };
        let fresh = self.segment_bytes - SEGMENT_HEADER_BYTES as u64 - PAGE_BYTES;
        if at + need + PAGE_BYTES <= self.segment.bytes {
            return Room::Enough;
        }
        match self.next {
            Next::Ready | Next::Taken if need <= fresh => Room::Enough,
            Next::Full { .. } | Next::Removing { .. } => Room::Full,
            Next::Absent
            | Next::Creating { .. }
            | Next::Syncing { .. }
            | Next::Ready
            | Next::Taken => Room::Soon,
        }
    }

    /// Appends a record that was applied. It is durable when [`Commit::durable`] says so.
    pub(crate) fn append(&mut self, now: Instant, logged: &Logged) {
        self.unseen.get_or_insert(now);
        assert_eq!(logged.seq, self.appended.next(), "the log has no gap");
        let open = self
            .queue
            .back()
            .is_some_and(|forming| forming.payload_bytes() < self.batch_bytes)
            && !buggify::is(Site::BatchClosed);
        if !open {
            self.queue.push_back(Forming::new(logged.seq));
        }
        self.queue
            .back_mut()
            .expect("one was just made sure of")
            .push(logged);
        self.appended = logged.seq;
    }

    /// Issues what can be issued now.
    pub(crate) fn advance<E>(
        &mut self,
        now: Instant,
        epoch: Epoch,
        rng: &mut Rng,
        outbox: &mut Outbox<E>,
    ) {
        self.unseen = None;
        match self.next {
            Next::Absent if buggify::is(Site::SegmentPreparedLate) => {}
            Next::Absent => {
                let zeroed = self.segment_bytes;
                let tickets = self.copies.issue(outbox, |side| DiskOp::Create {
                    file: log_file(side, NEXT),
                    zeroed,
                });
                self.next = Next::Creating {
                    tickets,
                    full: false,
                };
            }
            Next::Full { retry } if retry <= now => {
                self.next = Next::Absent;
                return self.advance(now, epoch, rng, outbox);
            }
            Next::Full { .. }
            | Next::Creating { .. }
            | Next::Syncing { .. }
            | Next::Ready
            | Next::Removing { .. }
            | Next::Taken => {}
        }
        if !matches!(self.flow, Flow::Idle) {
            return;
        }
        let room = self.segment.bytes - self.segment.at;
        let early = matches!(self.next, Next::Ready)
            && self.segment.bytes <= self.segment_bytes
            && buggify::is(Site::SegmentSwitchEarly);
        match self.queue.front() {
            Some(batch) if batch.padded_bytes() + PAGE_BYTES <= room && !early => {
                let batch = self.queue.pop_front().expect("the front was just seen");
                self.write(batch, Batch::Records, outbox);
            }
            Some(batch) => {
                if matches!(self.next, Next::Ready) {
                    let first = batch.first();
                    self.head(first, epoch, rng, outbox);
                }
            }
            None if self.mark_at.is_some_and(|at| at <= now) => {
                self.mark_at = None;
                if PAGE_BYTES <= room {
                    self.write(Forming::new(self.appended.next()), Batch::Mark, outbox);
                }
            }
            None => {}
        }
    }

    /// Nothing more is to come: the end is marked as soon as it can be.
    pub(crate) fn ends(&mut self, now: Instant) {
        self.mark_at = self.mark_at.map(|at| at.min(now));
    }
    /// Whether everything is written and synced, the mark behind it too.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.flow, Flow::Idle) && self.queue.is_empty() && self.mark_at.is_none()
    }

    /// When [`Commit::advance`] is due without anything else happening.
    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let retry = match self.next {
            Next::Full { retry } => Some((retry, "try the next log segment again")),
            Next::Absent
            | Next::Creating { .. }
            | Next::Syncing { .. }
            | Next::Ready
            | Next::Removing { .. }
            | Next::Taken => None,
        };
        let idle = matches!(self.flow, Flow::Idle);
        let mark = self
            .mark_at
            .filter(|_| idle && self.queue.is_empty())
            .map(|at| (at, "mark the end of the log"));
        let write = self
            .unseen
            .filter(|_| idle)
            .map(|at| (at, "write what came to the log"));
        retry.into_iter().chain(mark).chain(write).min()
    }

    /// Whether the ticket is the log's.
    pub(crate) fn owns(&self, done: Ticket) -> bool {
        let flow = match &self.flow {
            Flow::Idle => None,
            Flow::Writing { tickets, .. }
            | Flow::Heading { tickets, .. }
            | Flow::Renaming { tickets, .. }
            | Flow::Naming { tickets, .. } => Some(tickets),
        };
        let next = match &self.next {
            Next::Creating { tickets, .. }
            | Next::Syncing { tickets }
            | Next::Removing { tickets } => Some(tickets),
            Next::Absent | Next::Ready | Next::Full { .. } | Next::Taken => None,
        };
        let has = |tickets: Option<&Tickets>| tickets.is_some_and(|tickets| tickets.has(done));
        has(flow) || has(next)
    }

    /// Takes the completion of an operation of the log.
    ///
    /// # Errors
    /// If the log cannot be written: nothing that waits for it may leave.
    pub(crate) fn completed<E>(
        &mut self,
        now: Instant,
        done: Ticket,
        result: DiskResult,
        outbox: &mut Outbox<E>,
    ) -> Result<(), Fault> {
        assert!(
            self.owns(done),
            "a completion is given to who issued the operation"
        );
        match core::mem::replace(&mut self.next, Next::Absent) {
            Next::Creating {
                mut tickets,
                mut full,
            } if tickets.has(done) => {
                let side = tickets.end(done);
                match result {
                    Ok(_) => {}
                    Err(DiskError::NoSpace) => full = true,
                    Err(error) => return Err(fault("prepare", &log_file(side, NEXT), &error)),
                }
                self.next = if !tickets.are_done() {
                    Next::Creating { tickets, full }
                } else if full {
                    probe::hit(Probe::SegmentNoSpace);
                    tracing::warn!(
                        "no room for the next segment of the log: changes go on until this one is full"
                    );
                    Next::Removing {
                        tickets: self.copies.issue(outbox, |side| DiskOp::Remove {
                            file: log_file(side, NEXT),
                        }),
                    }
                } else {
                    Next::Syncing {
                        tickets: self.copies.issue(outbox, |side| DiskOp::Sync {
                            file: log_file(side, NEXT),
                        }),
                    }
                };
                return Ok(());
            }
            Next::Syncing { mut tickets } if tickets.has(done) => {
                let side = tickets.end(done);
                result.map_err(|error| fault("sync", &log_file(side, NEXT), &error))?;
                self.next = if tickets.are_done() {
                    Next::Ready
                } else {
                    Next::Syncing { tickets }
                };
                return Ok(());
            }
            Next::Removing { mut tickets } if tickets.has(done) => {
                let side = tickets.end(done);
                match result {
                    Ok(_) | Err(DiskError::NotFound) => {}
                    Err(error @ (DiskError::Exists | DiskError::NoSpace | DiskError::Io(_))) => {
                        return Err(fault("remove", &log_file(side, NEXT), &error));
                    }
                }
                self.next = if tickets.are_done() {
                    Next::Full {
                        retry: now + RETRY_FULL,
                    }
                } else {
                    Next::Removing { tickets }
                };
                return Ok(());
            }
            other => self.next = other,
        }
        let (side, all) = match &mut self.flow {
            Flow::Writing { tickets, .. }
            | Flow::Heading { tickets, .. }
            | Flow::Renaming { tickets, .. }
            | Flow::Naming { tickets, .. } => (tickets.end(done), tickets.are_done()),
            Flow::Idle => unreachable!("the ticket was found to be the log's"),
        };
        result.map_err(|error| self.failed(side, &error))?;
        if all {
            self.go_on(now, outbox);
        }
        Ok(())
    }

    /// What could not be done.
    fn failed(&self, side: Side, error: &DiskError) -> Fault {
        let next = log_file(side, NEXT);
        match &self.flow {
            Flow::Writing { .. } => fault(
                &format!("write and sync at offset {}", self.segment.at),
                &log_file(side, &segment_name(self.segment.first)),
                error,
            ),
            Flow::Heading { .. } => fault("write and sync the header of", &next, error),
            Flow::Renaming { .. } => fault("rename", &next, error),
            Flow::Naming { .. } => fault("sync the directory", &side.file(DIR), error),
            Flow::Idle => unreachable!("nothing is under way"),
        }
    }

    /// What was being done to the segment that is written has ended on all copies.
    fn go_on<E>(&mut self, now: Instant, outbox: &mut Outbox<E>) {
        match core::mem::replace(&mut self.flow, Flow::Idle) {
            Flow::Writing {
                last,
                at,
                chain,
                what,
                ..
            } => {
                (self.segment.at, self.chain) = (at, chain);
                match what {
                    Batch::Records => {
                        self.durable = last;
                        self.mark_at =
                            (!planted::is(Bug::MarkLeftOut)).then_some(now + mark_after());
                    }
                    Batch::Mark => {
                        probe::hit(Probe::MarkWritten);
                        assert_eq!(last, self.durable, "a mark holds no record");
                    }
                }
            }
            Flow::Heading { segment, .. } => {
                let name = segment_name(segment.first);
                let tickets = self.copies.issue(outbox, |side| DiskOp::Rename {
                    from: log_file(side, NEXT),
                    to: log_file(side, &name),
                });
                self.flow = Flow::Renaming { tickets, segment };
            }
            Flow::Renaming { segment, .. } => {
                if planted::is(Bug::SegmentUnnamed) {
                    return self.opened(segment);
                }
                let tickets = self.copies.issue(outbox, |side| {
                    if side == Side::Mirror && planted::is(Bug::MirrorUnnamed) {
                        return DiskOp::Space;
                    }
                    DiskOp::SyncDir {
                        dir: side.file(DIR),
                    }
                });
                self.flow = Flow::Naming { tickets, segment };
            }
            Flow::Naming { segment, .. } => self.opened(segment),
            Flow::Idle => unreachable!("the ticket was found to be the log's"),
        }
    }

    /// The next segment is the current one from now on.
    fn opened(&mut self, segment: Segment) {
        probe::hit(Probe::SegmentSwitched);
        self.segments.0.push(self.durable.next());
        self.segment = segment;
        assert!(
            matches!(self.next, Next::Taken),
            "the segment opened was the prepared one"
        );
        self.next = Next::Absent;
    }

    fn write<E>(&mut self, batch: Forming, what: Batch, outbox: &mut Outbox<E>) {
        let (last, bytes) = (batch.last(), batch.padded_bytes());
        if batch.first() < last {
            probe::hit(Probe::BatchOfSeveral);
        }
        let (data, chain) = batch.close(self.segment.salt, self.durable, self.chain);
        assert_eq!(
            data.len() as u64,
            bytes,
            "a batch is as long as was counted"
        );
        assert!(
            self.segment.at.is_multiple_of(PAGE_BYTES),
            "batches begin on a page"
        );
        assert!(
            self.segment.at + bytes <= self.segment.bytes,
            "a batch stays in its segment"
        );
        let (name, data) = (segment_name(self.segment.first), Bytes::from(data));
        let mut tickets = self.copies.issue(outbox, |side| DiskOp::Write {
            file: log_file(side, &name),
            offset: self.segment.at,
            data: vec![data.clone()],
            sync: SyncMode::Now,
        });
        if planted::is(Bug::MirrorNotAwaited) {
            tickets.forget(Side::Mirror);
        }
        self.flow = Flow::Writing {
            tickets,
            last,
            at: self.segment.at + bytes,
            chain,
            what,
        };
    }

    /// Begins the switch: everything before `first` is durable, so the header can say where the log stands.
    fn head<E>(&mut self, first: LogSeq, epoch: Epoch, rng: &mut Rng, outbox: &mut Outbox<E>) {
        assert_eq!(
            self.durable.next(),
            first,
            "a segment is opened when all before it is durable"
        );
        let header = SegmentHeader {
            cluster: self.cluster,
            epoch,
            first,
            salt: rng.u64(),
            chain: self.chain,
        };
        let tickets = self
            .copies
            .issue(outbox, |side| write_header(side, &header));
        let segment = Segment {
            first,
            salt: header.salt,
            at: SEGMENT_HEADER_BYTES as u64,
            bytes: self.segment_bytes,
        };
        self.next = Next::Taken;
        self.flow = Flow::Heading { tickets, segment };
    }
}

fn mark_after() -> Duration {
    if buggify::is(Site::MarkAtOnce) {
        Duration::ZERO
    } else {
        MARK_AFTER
    }
}

/// The size of a segment for a limit: whole pages, and room for the largest record.
pub(crate) fn segment_bytes(limit: u64) -> u64 {
    limit.max(SEGMENT_BYTES_MIN).next_multiple_of(PAGE_BYTES)
}

/// A file of the directory of a copy of the log.
pub(crate) fn log_file(side: Side, name: &str) -> FileName {
    side.file(&format!("{DIR}/{name}"))
}

/// Writes the header of the prepared segment, durably.
pub(crate) fn write_header(side: Side, header: &SegmentHeader) -> DiskOp {
    DiskOp::Write {
        file: log_file(side, NEXT),
        offset: 0,
        data: vec![Bytes::from(header.encode())],
        sync: if planted::is(Bug::SegmentHeaderUnsynced) {
            SyncMode::Later
        } else {
            SyncMode::Now
        },
    }
}

/// Where a log stands that was read or written so far.
pub(crate) const fn header_at(
    cluster: ClusterId,
    epoch: Epoch,
    joint: Joint,
    salt: u64,
) -> SegmentHeader {
    SegmentHeader {
        cluster,
        epoch,
        first: joint.seq,
        salt,
        chain: joint.chain,
    }
}

fn fault(what: &str, file: &FileName, error: &DiskError) -> Fault {
    Fault {
        kind: FaultKind::Disk,
        what: format!(
            "cannot {what} {file}: {error}; nothing that was not durable has been acknowledged"
        ),
        help: Some(if Side::of(file) == Side::Mirror {
            "check the disk of the log mirror, then start the meta server again; without --log-mirror it goes on with the log of the data directory alone".into()
        } else {
            "check the disk of the data directory, then start the meta server again".into()
        }),
    }
}
