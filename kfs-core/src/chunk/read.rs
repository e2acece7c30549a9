//! Reads: whole blocks from the disk, each checked against its sum before a byte of it is served.
//!
//! A block counts up to its filled end; past it, and in a hole, it is zeros whatever the disk holds. A read
//! that meets a block whose newest write is not yet everywhere below waits. No more is read from the disk
//! than the link takes (see [`super::link`]), nor more at once than [`Limits::disk_reads_max`]: a read that
//! the disk has is counted until it ends, also when its reader is gone, so who asks and leaves, again and
//! again, piles up nothing. What waits for the disk waits in its link's queue and goes with the link; links
//! take turns.
//!
//! What [`super::scrub`] reads goes the same way, beside all this: nobody waits for its one read at the disk.
//!
//! [`Limits::disk_reads_max`]: crate::limits::Limits::disk_reads_max
use super::inventory::{Lookup, Standing};
use super::name::ReplicaId;
use super::redo::After;
use super::table::Expected;
use super::{Chunk, Job};
use crate::block::{self, EMPTY, Sums, spans};
use crate::buggify::{self, Site};
use crate::ids::LinkId;
use crate::limits::HEADER_BYTES;
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::client_chunk::{RangeRead, ReadRange};
use crate::wire::{Msg, Refusal, Status};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A read that is not answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ReadId(u64);

/// All reads that are not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    open: BTreeMap<ReadId, Read>,
    made: u64,
    /// Links that may take another read, in the order in which they are served.
    ready: VecDeque<LinkId>,
    /// Reads whose wait is over.
    again: Vec<ReadId>,
    /// Reads that were taken on and wait for the disk.
    waiting: VecDeque<ReadId>,
    /// Reads that the disk has, of ranges and of headers, those included that nobody waits for any more.
    at_disk: usize,
    at_disk_max: usize,
    /// The read of the scrub that is not over, and what the disk has for it, if only for one that is.
    scrub: Option<ReadId>,
    beside: Option<AtDisk>,
}

#[derive(Clone, Debug)]
struct Read {
    reader: Reader,
    ask: ReadRange,
    /// How each block must look; filled when the disk is asked.
    expected: Vec<Expected>,
    /// Whether the replica has become another one since: bytes of now say nothing about sums of before.
    stale: bool,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Link { link: LinkId, request: u64 },
    Scrub,
}

/// Among whose reads one counts at the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Links,
    Scrub,
}

/// What a read asks of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AtDisk {
    Header(ReplicaId),
    Range(ReadId),
}

/// Why bytes that were read are not served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BadBlock {
    pub block: usize,
    pub why: String,
}

impl Reader {
    const fn lane(self) -> Lane {
        match self {
            Self::Link { .. } => Lane::Links,
            Self::Scrub => Lane::Scrub,
        }
    }
}

impl Reads {
    pub(super) fn new(at_disk_max: usize) -> Self {
        assert!(at_disk_max > 0, "a disk that has nothing takes a read");
        Self {
            at_disk_max,
            ..Self::default()
        }
    }
    /// Reads that the disk has.
    pub(super) const fn at_disk(&self) -> usize {
        self.at_disk
    }
    const fn disk_is_full(&self) -> bool {
        self.at_disk >= self.at_disk_max
    }
    /// The disk has one read more.
    fn goes_to_disk(&mut self, what: AtDisk, lane: Lane) {
        match lane {
            Lane::Links => self.at_disk += 1,
            Lane::Scrub => {
                assert_eq!(self.beside, None, "the scrub reads one thing at a time");
                self.beside = Some(what);
            }
        }
    }
    /// The disk has one read less.
    fn goes_off_disk(&mut self, what: AtDisk) {
        if self.beside == Some(what) {
            self.beside = None;
            return;
        }
        let left = self.at_disk.checked_sub(1);
        self.at_disk = left.expect("a read ends at the disk once");
    }
    /// Reads that links wait for.
    pub(super) fn open(&self) -> usize {
        self.open.len() - usize::from(self.scrub.is_some())
    }
    /// Reads that the disk has for the scrub: one, or none.
    pub(super) fn beside(&self) -> usize {
        usize::from(self.beside.is_some())
    }
    /// Whether the disk has it for the scrub.
    pub(super) fn is_beside(&self, id: ReadId) -> bool {
        self.beside == Some(AtDisk::Range(id))
    }
    /// Whether the scrub may read: what it read before is over, also at the disk.
    pub(super) fn scrub_may(&self) -> bool {
        self.scrub.is_none() && self.beside.is_none()
    }
    /// Takes a read on.
    fn begin(&mut self, reader: Reader, ask: ReadRange) -> ReadId {
        self.made += 1;
        let id = ReadId(self.made);
        let read = Read {
            reader,
            ask,
            expected: Vec::new(),
            stale: false,
        };
        self.open.insert(id, read);
        id
    }
    /// Whether somebody waits for it.
    pub(super) fn waits(&self, id: ReadId) -> bool {
        self.open.contains_key(&id)
    }
    /// The link's queue may move.
    pub(super) fn ready(&mut self, link: LinkId) {
        if !self.ready.contains(&link) {
            self.ready.push_back(link);
        }
    }
    /// What these reads waited for has come, or never will.
    pub(super) fn again(&mut self, reads: Vec<ReadId>) {
        self.again.extend(reads);
    }
}

impl Chunk {
    pub(super) fn read_range(&mut self, link: LinkId, request: u64, ask: ReadRange) {
        let refusal = match self.may_read(&ask) {
            Err(refusal) => Some(refusal),
            Ok(()) => {
                let open = self.links.get(link).map_or(0, |link| link.reads_open);
                let busy = open >= self.config.limits.link_requests || buggify::is(Site::ReadBusy);
                busy.then(|| {
                    Refusal::new(
                        Status::Busy,
                        format!("{open} reads of this link wait already"),
                    )
                })
            }
        };
        if let Some(refusal) = refusal {
            return self.send(link, range_read(request, Err(refusal)));
        }
        let id = self.reads.begin(Reader::Link { link, request }, ask);
        let at = self.links.get_mut(link).expect("a message just came on it");
        at.reads_open += 1;
        at.reads_queued.push_back(id);
        self.reads.ready(link);
    }

    /// Reads a range for the scrub; [`Chunk::scrub_has_read`] hears what came of it.
    pub(super) fn read_for_scrub(&mut self, ask: ReadRange) {
        assert!(self.reads.scrub_may(), "it has asked");
        let id = self.reads.begin(Reader::Scrub, ask);
        self.reads.scrub = Some(id);
        self.read_step(id);
    }

    /// Whether a range may be served now. Asked again after every wait.
    fn may_read(&self, ask: &ReadRange) -> Result<(), Refusal> {
        let id = ReplicaId {
            chunk: ask.chunk,
            version: ask.version,
        };
        let who = self.who();
        let refuse = |status, why: String| Err(Refusal::new(status, why));
        let Some(replica) = self.inventory.replicas.get(&id) else {
            return refuse(Status::NotServed, format!("{id} is not on {who}"));
        };
        match replica.standing {
            Standing::Served => {}
            Standing::Unconfirmed => {
                return refuse(
                    Status::NotServed,
                    format!("{id} is not yet confirmed on {who}"),
                );
            }
            Standing::Damaged => {
                return refuse(Status::NotServed, format!("{id} is damaged on {who}"));
            }
            Standing::Unknown => {
                return refuse(
                    Status::NotServed,
                    format!("{id} on {who} is not known to the cluster"),
                );
            }
            Standing::BadHeader => {
                return refuse(
                    Status::NotServed,
                    format!("{id} has no readable header on {who}"),
                );
            }
        }
        if let Err(why) = self.fits(ask.offset, u64::from(ask.len)) {
            return refuse(Status::BadRequest, format!("a read of {id}: {why}"));
        }
        if !replica.durable().covers(ask.log) {
            let why = format!(
                "{id} has {} committed bytes at write {} on {who}, the log says {} at write {}",
                replica.len, replica.wseq, ask.log.len, ask.log.wseq
            );
            return refuse(Status::NotServed, why);
        }
        if ask.offset + u64::from(ask.len) > ask.log.len {
            let why = format!(
                "{id} is served up to {}, not {} bytes from {}",
                ask.log.len, ask.len, ask.offset
            );
            return refuse(Status::NotServed, why);
        }
        Ok(())
    }

    /// Takes on the reads that may go on, after each input.
    pub(super) fn reads_go(&mut self) {
        loop {
            if let Some(id) = self.reads.again.pop() {
                self.read_step(id);
            } else if self.reads.disk_is_full() {
                return;
            } else if let Some(id) = self.reads.waiting.pop_front() {
                self.read_step(id);
            } else if let Some(link) = self.reads.ready.pop_front() {
                self.read_of(link);
            } else {
                return;
            }
        }
    }

    /// Takes on the next read of a link, if the link has room; the one after waits for the link's next turn.
    fn read_of(&mut self, link: LinkId) {
        let Some(at) = self.links.get_mut(link) else {
            return;
        };
        if at.outgoing_bytes() >= self.config.limits.link_unsent_bytes
            && !planted::is(Bug::AnswersUnbounded)
        {
            if !at.reads_queued.is_empty() {
                probe::hit(Probe::ReadWaitsForLink);
            }
            return;
        }
        let Some(id) = at.reads_queued.pop_front() else {
            return;
        };
        let read = &self.reads.open[&id];
        at.reads_bytes += read.ask.len as usize;
        self.reads.ready(link);
        self.read_step(id);
    }

    /// Goes on with a read as far as it gets without waiting.
    fn read_step(&mut self, id: ReadId) {
        let Some(read) = self.reads.open.get(&id) else {
            return;
        };
        if let Err(refusal) = self.may_read(&read.ask) {
            return self.read_ends(id, Err(refusal));
        }
        let replica = ReplicaId {
            chunk: read.ask.chunk,
            version: read.ask.version,
        };
        let (geometry, lane) = (self.config.geometry, read.reader.lane());
        let is_full = lane == Lane::Links && self.reads.disk_is_full();
        let blocks: Vec<_> = spans(geometry, read.ask.offset, u64::from(read.ask.len))
            .map(|span| span.block)
            .collect();
        if self.waits_for_place(replica, id) {
            return;
        }
        let (first, last) = (blocks[0], blocks[blocks.len() - 1]);
        let expected: Vec<Expected> = if let Some(writing) = self.writing.get_mut(&replica) {
            if writing.is_dirty(first, last) && !planted::is(Bug::DirtyBlockRead) {
                probe::hit(Probe::ReadWaitsForWrite);
                return writing.reads.push(id);
            }
            blocks
                .iter()
                .map(|block| writing.table.expected(*block))
                .collect()
        } else {
            if is_full && !self.inventory.tables.has(replica) {
                return self.reads.waiting.push_back(id);
            }
            if lane == Lane::Links {
                self.inventory.tables.is_wanted(replica);
            }
            match self.inventory.tables.get(replica, id) {
                Lookup::Loaded(header) => blocks
                    .iter()
                    .map(|block| Expected::by(geometry, &header, *block))
                    .collect(),
                Lookup::Loading => return,
                Lookup::Load => return self.load_table(replica, lane),
            }
        };
        let block_bytes = geometry.block_bytes as usize;
        let filled = expected.iter().rposition(|block| block.sum.is_some());
        if filled.is_some() && is_full {
            return self.reads.waiting.push_back(id);
        }
        let read = self.reads.open.get_mut(&id).expect("it was just found");
        let Some(last_filled) = filled else {
            read.expected = expected;
            return self.read_done(id, Ok(DiskDone::Data(Bytes::new())));
        };
        let len = last_filled * block_bytes + expected[last_filled].filled as usize;
        read.expected = expected;
        self.reads.goes_to_disk(AtDisk::Range(id), lane);
        let file = replica.of(self.inventory.replicas[&replica].file).path();
        let offset = HEADER_BYTES + first as u64 * block_bytes as u64;
        self.disk(Job::Read(id), DiskOp::Read { file, offset, len });
    }

    /// A table is still to be loaded that reads wait for, unless the replica has gone meanwhile.
    pub(super) fn table_is_missing(&mut self, id: ReplicaId) {
        if self.inventory.replicas.contains_key(&id) {
            let for_scrub = |read| self.inventory.tables.is_waited_for(id, read);
            let lane = if self.reads.scrub.is_some_and(for_scrub) {
                Lane::Scrub
            } else {
                Lane::Links
            };
            return self.load_table(id, lane);
        }
        let waiting = self.inventory.tables.loaded(id, None);
        self.reads.again(waiting);
    }

    fn load_table(&mut self, id: ReplicaId, lane: Lane) {
        self.reads.goes_to_disk(AtDisk::Header(id), lane);
        let file = id.of(self.inventory.replicas[&id].file).path();
        let len = usize::try_from(HEADER_BYTES).expect("a header is small");
        self.disk(
            Job::Table(id),
            DiskOp::Read {
                file,
                offset: 0,
                len,
            },
        );
    }

    pub(super) fn table_loaded(&mut self, id: ReplicaId, result: DiskResult) {
        self.reads.goes_off_disk(AtDisk::Header(id));
        let replica = self
            .inventory
            .replicas
            .get(&id)
            .map(|replica| (id.of(replica.file), replica.wseq, replica.len));
        let header = match replica {
            // Deleted, or being written: what waits looks again.
            None => None,
            Some(_) if self.writing.contains_key(&id) => None,
            // It has changed since the header was read.
            Some(_) if self.inventory.tables.is_stale(id) => return self.table_is_missing(id),
            Some((name, wseq, len)) => match self.read_header(name, result) {
                // An older header of the same length may call a hole what has been written since.
                Ok(header) if header.wseq >= wseq && header.len >= len => {
                    if !self.is_tried(id, &header) && self.has_failed_here(id) {
                        // The sync that was to save it has failed, and no other one can be believed.
                        let why = format!("{}: its newest header is not durable", name.path());
                        self.replica_rotted(id, why);
                        None
                    } else if !self.is_tried(id, &header) {
                        return self.recall(&header, header.wseq == wseq, After::Table);
                    } else {
                        Some(header)
                    }
                }
                Ok(header) if header.wseq > wseq && self.is_at_work_on(id) => {
                    // It is being cut, and that is not heard of yet.
                    let why = format!("{id} is being cut on {}", self.who());
                    let refusal = Refusal::new(Status::NotServed, why);
                    for read in self.inventory.tables.loaded(id, None) {
                        if self.reads.waits(read) {
                            self.read_ends(read, Err(refusal.clone()));
                        }
                    }
                    return;
                }
                Ok(header) => {
                    let why = format!(
                        "{}: the newest header is gone: {} bytes committed at write {}, {len} at write {wseq} before",
                        name.path(),
                        header.len,
                        header.wseq
                    );
                    self.replica_rotted(id, why);
                    None
                }
                Err(why) => {
                    self.replica_rotted(id, why);
                    None
                }
            },
        };
        let waiting = self.inventory.tables.loaded(id, header);
        self.reads.again(waiting);
    }

    /// A replica whose header is not what it was: nothing of it is served any more.
    pub(super) fn replica_rotted(&mut self, id: ReplicaId, why: String) {
        probe::hit(Probe::ReplicaRotted);
        tracing::error!(%id, why, "a replica is damaged");
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            replica.standing = Standing::BadHeader;
        }
        self.report_damage(id, None, why);
    }

    /// The disk has ended a read, whether or not somebody still waits for it.
    pub(super) fn read_came(&mut self, id: ReadId, result: DiskResult) {
        self.reads.goes_off_disk(AtDisk::Range(id));
        self.read_done(id, result);
    }

    fn read_done(&mut self, id: ReadId, result: DiskResult) {
        let Some(read) = self.reads.open.get(&id) else {
            return;
        };
        if let Err(refusal) = self.may_read(&read.ask) {
            return self.read_ends(id, Err(refusal));
        }
        let (geometry, ask) = (self.config.geometry, &read.ask);
        let replica = ReplicaId {
            chunk: ask.chunk,
            version: ask.version,
        };
        let first = usize::try_from(ask.offset / u64::from(geometry.block_bytes))
            .expect("a chunk has few blocks");
        let checked = match result {
            Ok(DiskDone::Data(bytes)) => {
                check(geometry, ask.offset, ask.len, &read.expected, &bytes)
            }
            Ok(_) => Err(BadBlock {
                block: first,
                why: "the disk answered something else".into(),
            }),
            Err(DiskError::NotFound) => Err(BadBlock {
                block: first,
                why: "the file is gone".into(),
            }),
            Err(error) => Err(BadBlock {
                block: first,
                why: format!("cannot be read: {error}"),
            }),
        };
        match checked {
            Ok(whole) => self.read_ends(id, Ok(whole)),
            Err(_) if read.stale => {
                let read = self.reads.open.get_mut(&id).expect("it was just found");
                read.expected.clear();
                read.stale = false;
                self.reads.again.push(id);
            }
            Err(_) if read.reader == Reader::Scrub && planted::is(Bug::ScrubSkips) => {
                let (blocks, crc) = (Vec::new(), 0);
                self.read_ends(id, Ok((Sums { blocks, crc }, Bytes::new())));
            }
            Err(bad) => {
                probe::hit(Probe::BadBlockSeen);
                self.counts.blocks_bad += 1;
                let why = format!(
                    "block {} of {replica} on {}: {}",
                    bad.block,
                    self.who(),
                    bad.why
                );
                tracing::error!(why, "a block is bad");
                self.report_damage(replica, u32::try_from(bad.block).ok(), why.clone());
                self.read_ends(id, Err(Refusal::new(Status::Corrupt, why)));
            }
        }
    }

    fn read_ends(&mut self, id: ReadId, outcome: Result<(Sums, Bytes), Refusal>) {
        let read = self.reads.open.remove(&id).expect("a read ends once");
        let Reader::Link { link, request } = read.reader else {
            self.reads.scrub = None;
            let filled = |block: &Expected| u64::from(block.filled);
            let bytes = read.expected.iter().map(filled).sum();
            return self.scrub_has_read(&read.ask, outcome.map(|_| bytes));
        };
        let Some(at) = self.links.get_mut(link) else {
            return;
        };
        at.reads_open -= 1;
        at.reads_bytes -= read.ask.len as usize;
        if let Ok((_, body)) = &outcome {
            assert_eq!(
                body.len(),
                read.ask.len as usize,
                "as many bytes as were asked for"
            );
            self.counts.reads += 1;
            self.counts.bytes_read += u64::from(read.ask.len);
        }
        self.send(link, range_read(request, outcome));
        self.reads.ready(link);
    }

    /// What is read of this replica now may not be what its sums were of: it is deleted, and a copy of it may come; or
    /// it is written anew behind its committed end. If they do not match, it is read again.
    pub(super) fn reads_are_stale(&mut self, id: ReplicaId) {
        for read in self.reads.open.values_mut() {
            let of_it = (read.ask.chunk, read.ask.version) == (id.chunk, id.version);
            read.stale |= of_it && !read.expected.is_empty();
        }
    }

    /// Nobody reads this replica any more.
    pub(super) fn refuse_reads(&mut self, id: ReplicaId, refusal: &Refusal) {
        let of = |read: &Read| (read.ask.chunk, read.ask.version) == (id.chunk, id.version);
        let reads = self.reads.open.iter();
        let ids: Vec<ReadId> = reads
            .filter(|(_, read)| of(read) && !read.expected.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.read_ends(id, Err(refusal.clone()));
        }
    }

    /// The link is gone, and its reads with it; the disk ends those it has for nobody.
    pub(super) fn reads_lost(&mut self, link: LinkId) {
        self.reads.ready.retain(|other| *other != link);
        let lost: BTreeSet<ReadId> = self
            .reads
            .open
            .extract_if(
                ..,
                |_, read| matches!(read.reader, Reader::Link { link: of, .. } if of == link),
            )
            .map(|(id, _)| id)
            .collect();
        if lost.is_empty() {
            return;
        }
        self.reads.waiting.retain(|id| !lost.contains(id));
        self.inventory.tables.lost(&lost);
        self.places_lose(&lost);
        for writing in self.writing.values_mut() {
            writing.reads.retain(|id| !lost.contains(id));
        }
    }
}

/// Checks whole blocks, `bytes` from the start of the first, and cuts the range asked for out of them.
///
/// The padded sums are computed here from the bytes, not as they were when the header was made.
fn check(
    geometry: crate::limits::Geometry,
    offset: u64,
    len: u32,
    expected: &[Expected],
    bytes: &Bytes,
) -> Result<(Sums, Bytes), BadBlock> {
    let block_bytes = geometry.block_bytes as usize;
    let within = usize::try_from(offset % u64::from(geometry.block_bytes)).expect("within a block");
    let mut sums = Vec::with_capacity(expected.len());
    let mut zeros = Vec::new();
    for (index, (span, expected)) in spans(geometry, offset, u64::from(len))
        .zip(expected)
        .enumerate()
    {
        let filled = expected.filled as usize;
        let begin = index * block_bytes;
        let (from, to) = (span.from as usize, (span.from + span.len) as usize);
        let plain = match expected.sum {
            None => EMPTY,
            Some(sum) => {
                let Some(block) = bytes.get(begin..begin + filled) else {
                    return Err(BadBlock {
                        block: span.block,
                        why: "the file ends before it does".into(),
                    });
                };
                let plain = block::sum(block);
                let found = block::pad(plain, (block_bytes - filled) as u64);
                let partial = to - from < filled;
                if found != sum && !(partial && planted::is(Bug::PartialReadUnverified)) {
                    let why = format!("its sum is 0x{found:08X}, its header says 0x{sum:08X}");
                    return Err(BadBlock {
                        block: span.block,
                        why,
                    });
                }
                plain
            }
        };
        let read_end = to.min(filled).max(from);
        let share = if from == 0 && read_end == filled {
            plain
        } else if read_end > from {
            block::sum(&bytes[begin + from..begin + read_end])
        } else {
            EMPTY
        };
        sums.push(block::pad(share, (to - read_end) as u64));
        if read_end < to {
            zeros.push((begin + read_end - within, begin + to - within));
        }
    }
    assert_eq!(sums.len(), expected.len(), "every block was checked");
    let body = if zeros.is_empty() {
        bytes.slice(within..within + len as usize)
    } else {
        let mut body = BytesMut::zeroed(len as usize);
        let there = bytes.get(within..).unwrap_or_default();
        let there = &there[..there.len().min(len as usize)];
        body[..there.len()].copy_from_slice(there);
        for (begin, end) in zeros {
            body[begin..end].fill(0);
        }
        body.freeze()
    };
    Ok((
        Sums {
            blocks: sums,
            crc: block::crc(&body),
        },
        body,
    ))
}

fn range_read(request: u64, outcome: Result<(Sums, Bytes), Refusal>) -> Msg {
    match outcome {
        Ok((sums, body)) => Msg::with_body(request, RangeRead { outcome: Ok(sums) }, body),
        Err(refusal) => Msg::new(
            request,
            RangeRead {
                outcome: Err(refusal),
            },
        ),
    }
}
