//! Group commit: records are appended to batches, one batch is written and synced at a time, and what
//! arrives meanwhile forms the next. Also prepares the next segment ahead of use and switches to it.
//!
//! It decides nothing about records. A write or sync that fails is final; only room that runs out while the
//! next segment is *prepared* is not: then [`Commit::room`] says no before a record is decided.
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
    batch_bytes: usize,
    segment_bytes: u64,
    segment: Segment,
    segments: Segments,
    chain: u64,
    queue: VecDeque<Forming>,
    flow: Flow,
    next: Next,
    appended: LogSeq,
    durable: LogSeq,
    mark_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Segment {
    file: FileName,
    salt: u64,
    at: u64,
    bytes: u64,
}

/// What is being done to the segment that is written.
#[derive(Clone, Debug)]
enum Flow {
    Idle,
    Writing {
        ticket: Ticket,
        last: LogSeq,
        at: u64,
        chain: u64,
        what: Batch,
    },
    /// The switch to the next segment: its header is written, it is renamed, its name is made durable.
    Heading {
        ticket: Ticket,
        segment: Segment,
    },
    Renaming {
        ticket: Ticket,
        segment: Segment,
    },
    Naming {
        ticket: Ticket,
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
        ticket: Ticket,
    },
    Syncing {
        ticket: Ticket,
    },
    Ready,
    /// The disk was full: what was made of it is taken away.
    Removing {
        ticket: Ticket,
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
            batch_bytes: limits.log_batch_bytes.min(BATCH_PAYLOAD_MAX / 2),
            segment_bytes: segment_bytes(limits.log_segment_bytes),
            segment: Segment {
                file: log_file(&segment_name(header.first)),
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
    pub(crate) fn append(&mut self, logged: &Logged) {
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
        match self.next {
            Next::Absent if buggify::is(Site::SegmentPreparedLate) => {}
            Next::Absent => {
                let ticket = outbox.disk(DiskOp::Create {
                    file: log_file(NEXT),
                    zeroed: self.segment_bytes,
                });
                self.next = Next::Creating { ticket };
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
        let idle = matches!(self.flow, Flow::Idle) && self.queue.is_empty();
        let mark = self
            .mark_at
            .filter(|_| idle)
            .map(|at| (at, "mark the end of the log"));
        retry.into_iter().chain(mark).min()
    }

    /// Whether the ticket is the log's.
    pub(crate) fn owns(&self, done: Ticket) -> bool {
        let flow = match &self.flow {
            Flow::Idle => None,
            Flow::Writing { ticket, .. }
            | Flow::Heading { ticket, .. }
            | Flow::Renaming { ticket, .. }
            | Flow::Naming { ticket, .. } => Some(*ticket),
        };
        let next = match &self.next {
            Next::Creating { ticket } | Next::Syncing { ticket } | Next::Removing { ticket } => {
                Some(*ticket)
            }
            Next::Absent | Next::Ready | Next::Full { .. } | Next::Taken => None,
        };
        flow == Some(done) || next == Some(done)
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
            Next::Creating { ticket } if ticket == done => {
                self.next = match result {
                    Ok(_) => Next::Syncing {
                        ticket: outbox.disk(DiskOp::Sync {
                            file: log_file(NEXT),
                        }),
                    },
                    Err(DiskError::NoSpace) => {
                        probe::hit(Probe::SegmentNoSpace);
                        tracing::warn!(
                            "no room for the next segment of the log: changes go on until this one is full"
                        );
                        Next::Removing {
                            ticket: outbox.disk(DiskOp::Remove {
                                file: log_file(NEXT),
                            }),
                        }
                    }
                    Err(error) => return Err(fault("prepare", &log_file(NEXT), &error)),
                };
                return Ok(());
            }
            Next::Syncing { ticket } if ticket == done => {
                result.map_err(|error| fault("sync", &log_file(NEXT), &error))?;
                self.next = Next::Ready;
                return Ok(());
            }
            Next::Removing { ticket } if ticket == done => {
                match result {
                    Ok(_) | Err(DiskError::NotFound) => {}
                    Err(error @ (DiskError::Exists | DiskError::NoSpace | DiskError::Io(_))) => {
                        return Err(fault("remove", &log_file(NEXT), &error));
                    }
                }
                self.next = Next::Full {
                    retry: now + RETRY_FULL,
                };
                return Ok(());
            }
            other => self.next = other,
        }
        match core::mem::replace(&mut self.flow, Flow::Idle) {
            Flow::Writing {
                last,
                at,
                chain,
                what,
                ..
            } => {
                result.map_err(|error| {
                    fault(
                        &format!("write and sync at offset {}", self.segment.at),
                        &self.segment.file,
                        &error,
                    )
                })?;
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
                result.map_err(|error| {
                    fault("write and sync the header of", &log_file(NEXT), &error)
                })?;
                let ticket = outbox.disk(DiskOp::Rename {
                    from: log_file(NEXT),
                    to: segment.file.clone(),
                });
                self.flow = Flow::Renaming { ticket, segment };
            }
            Flow::Renaming { segment, .. } => {
                result.map_err(|error| fault("rename", &log_file(NEXT), &error))?;
                if planted::is(Bug::SegmentUnnamed) {
                    self.opened(segment);
                    return Ok(());
                }
                let ticket = outbox.disk(DiskOp::SyncDir {
                    dir: FileName::new(DIR),
                });
                self.flow = Flow::Naming { ticket, segment };
            }
            Flow::Naming { segment, .. } => {
                result.map_err(|error| fault("sync the directory", &FileName::new(DIR), &error))?;
                self.opened(segment);
            }
            Flow::Idle => unreachable!("the ticket was found to be the log's"),
        }
        Ok(())
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
        let ticket = outbox.disk(DiskOp::Write {
            file: self.segment.file.clone(),
            offset: self.segment.at,
            data: vec![Bytes::from(data)],
            sync: SyncMode::Now,
        });
        self.flow = Flow::Writing {
            ticket,
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
        let ticket = outbox.disk(write_header(&header));
        let segment = Segment {
            file: log_file(&segment_name(first)),
            salt: header.salt,
            at: SEGMENT_HEADER_BYTES as u64,
            bytes: self.segment_bytes,
        };
        self.next = Next::Taken;
        self.flow = Flow::Heading { ticket, segment };
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

/// A file of the log's directory.
pub(crate) fn log_file(name: &str) -> FileName {
    FileName::new(&format!("{DIR}/{name}"))
}

/// Writes the header of the prepared segment, durably.
pub(crate) fn write_header(header: &SegmentHeader) -> DiskOp {
    DiskOp::Write {
        file: log_file(NEXT),
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
        help: Some("check the disk of the data directory, then start the meta server again".into()),
    }
}
