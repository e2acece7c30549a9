//! The operation log's format: segments of batches of records, and the reader that tells a torn tail from
//! damage. Layout in `docs/formats/oplog.md`; every constant of it is here.
//!
//! Everything here is a function of bytes: nothing is read, written or timed. What writes it is in
//! [`super::commit`], what reads it at a start is in [`super::recovery`].
use super::page::{known_format, sealed, u32_at, u64_at, unsealed};
use super::record::{Logged, RECORD_BYTES_MAX, RecordError};
use crate::block::{crc, fnv};
use crate::ids::{ClusterId, Epoch, LogSeq};
use crate::planted::{self, Bug};
use core::fmt;

/// The directory of the log below the data directory.
pub const DIR: &str = "log";
/// The segment that is prepared for the next switch, in [`DIR`].
pub const NEXT: &str = "log.next";
/// What the name of a segment begins with; its first sequence number follows, in decimal.
pub const PREFIX: &str = "log.";
/// `KFSOPLOG`, little-endian: a segment's first bytes.
pub const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"KFSOPLOG");
/// `KFSBATCH`, little-endian: exclusive-or with the segment's salt it begins a batch.
pub const BATCH_MAGIC: u64 = u64::from_le_bytes(*b"KFSBATCH");
/// The format's version.
pub const FORMAT: u32 = 1;
/// What batches are aligned and padded to, so that a write never touches bytes that were acknowledged.
pub const PAGE_BYTES: u64 = 4_096;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 4_096;
/// Where the CRC-32 of a segment's header stands: the last bytes of it.
pub const SEGMENT_CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 64;
/// Where the CRC-32 of a batch's payload and padding stands.
pub const BATCH_PAYLOAD_CRC_AT: usize = 56;
/// Where the CRC-32 of a batch's header stands.
pub const BATCH_CRC_AT: usize = 60;
/// The most bytes of a batch's records.
pub const BATCH_PAYLOAD_MAX: usize = 16 << 20;
/// The smallest segment: its header, a batch of the largest record, and a mark.
pub const SEGMENT_BYTES_MIN: u64 =
    SEGMENT_HEADER_BYTES as u64 + padded_bytes(RECORD_BYTES_MAX) + padded_bytes(0);

const _: () = assert!(SEGMENT_HEADER_BYTES as u64 == PAGE_BYTES);
const _: () =
    assert!(BATCH_CRC_AT + 4 == BATCH_HEADER_BYTES && BATCH_PAYLOAD_CRC_AT + 4 == BATCH_CRC_AT);

/// Bytes that a batch with so many bytes of records takes in its segment.
#[must_use]
pub const fn padded_bytes(payload: usize) -> u64 {
    (BATCH_HEADER_BYTES as u64 + payload as u64).next_multiple_of(PAGE_BYTES)
}

/// The name of the segment that begins with this record.
#[must_use]
pub fn segment_name(first: LogSeq) -> String {
    format!("{PREFIX}{first}")
}

/// The first record of the segment of this name.
#[must_use]
pub fn segment_first(name: &str) -> Option<LogSeq> {
    let digits = name.strip_prefix(PREFIX)?;
    let first: u64 = digits.parse().ok()?;
    (first > 0 && segment_name(LogSeq(first)) == name).then_some(LogSeq(first))
}

/// The first page of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// The epoch it was opened in.
    pub epoch: Epoch,
    /// The record its first batch begins with.
    pub first: LogSeq,
    /// Random: bytes of another segment are no batches of this one.
    pub salt: u64,
    /// The chain hash where the segment before ends; 0 in the first one.
    pub chain: u64,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        sealed(out, SEGMENT_CRC_AT)
    }
    /// Reads the header's bytes.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn decode(page: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, Mismatch> {
        if u64_at(page, 0) != SEGMENT_MAGIC {
            return Err(Mismatch::new("a segment's header", "other bytes"));
        }
        unsealed(page, SEGMENT_CRC_AT, "a header")?;
        known_format(u32_at(page, 8), FORMAT)?;
        Ok(Self {
            epoch: Epoch(u32_at(page, 12)),
            cluster: ClusterId(u128::from_le_bytes(
                page[16..32].try_into().expect("sixteen bytes"),
            )),
            first: LogSeq(u64_at(page, 32)),
            salt: u64_at(page, 40),
            chain: u64_at(page, 48),
        })
    }
}

/// What was expected and what was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// For people.
    pub expected: String,
    /// For people.
    pub found: String,
}

impl Mismatch {
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
        }
    }
}
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

/// The first bytes of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Bytes of its records, without padding.
    pub payload_bytes: u32,
    /// How many records; 0: a mark.
    pub count: u32,
    /// Its first record; of a mark: the next one to come.
    pub first: LogSeq,
    /// How far the log was durable when the batch was formed.
    pub durable: LogSeq,
    /// The chain hash of all batches before it.
    pub chain: u64,
    /// Of payload and padding.
    pub payload_crc: u32,
}

impl BatchHeader {
    fn encode(&self, salt: u64) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[..8].copy_from_slice(&(BATCH_MAGIC ^ salt).to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.chain.to_le_bytes());
        out[BATCH_PAYLOAD_CRC_AT..BATCH_CRC_AT].copy_from_slice(&self.payload_crc.to_le_bytes());
        let sum = crc(&out[..BATCH_CRC_AT]);
        out[BATCH_CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }
    /// The chain hash after this batch: FNV-1a of the header, which holds the hash before and the payload's CRC.
    #[must_use]
    pub fn chain_after(&self, salt: u64) -> u64 {
        fnv(&self.encode(salt))
    }
}

/// A batch that is being formed: records are appended to it until it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forming {
    bytes: Vec<u8>,
    first: LogSeq,
    count: u32,
}

impl Forming {
    /// A batch that will begin with this record.
    #[must_use]
    pub fn new(first: LogSeq) -> Self {
        Self {
            bytes: vec![0; BATCH_HEADER_BYTES],
            first,
            count: 0,
        }
    }
    /// Adds a record, the next one.
    pub fn push(&mut self, logged: &Logged) {
        assert_eq!(
            logged.seq.0,
            self.first.0 + u64::from(self.count),
            "records come in order, without a gap"
        );
        self.bytes = logged.encode(core::mem::take(&mut self.bytes));
        self.count += 1;
        assert!(
            self.payload_bytes() <= BATCH_PAYLOAD_MAX,
            "a batch is closed before it is too long"
        );
    }
    /// Bytes of its records.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - BATCH_HEADER_BYTES
    }
    /// Bytes it takes in its segment.
    #[must_use]
    pub fn padded_bytes(&self) -> u64 {
        padded_bytes(self.payload_bytes())
    }
    /// Its last record; of a mark: the one before the next.
    #[must_use]
    pub const fn last(&self) -> LogSeq {
        LogSeq(self.first.0 + self.count as u64 - 1)
    }
    /// Its first record.
    #[must_use]
    pub const fn first(&self) -> LogSeq {
        self.first
    }
    /// Closes it: the bytes to write, and the chain hash after them.
    #[must_use]
    pub fn close(self, salt: u64, durable: LogSeq, chain: u64) -> (Vec<u8>, u64) {
        assert!(
            durable < self.first,
            "a batch is durable after it was formed"
        );
        let Self {
            mut bytes,
            first,
            count,
        } = self;
        let payload_bytes =
            u32::try_from(bytes.len() - BATCH_HEADER_BYTES).expect("bounded when pushed");
        let padded =
            usize::try_from(padded_bytes(payload_bytes as usize)).expect("bounded when pushed");
        bytes.resize(padded, 0);
        let payload_crc = crc(&bytes[BATCH_HEADER_BYTES..]);
        let header = BatchHeader {
            payload_bytes,
            count,
            first,
            durable,
            chain,
            payload_crc,
        };
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode(salt));
        (bytes, header.chain_after(salt))
    }
}

/// What stands at a place where a batch may begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found<'a> {
    /// A whole, undamaged batch.
    Batch {
        /// Its header.
        header: BatchHeader,
        /// Its records.
        payload: &'a [u8],
        /// Bytes it takes.
        padded: usize,
    },
    /// A batch that goes on past these bytes: so many are needed to tell.
    Short(usize),
    /// No batch.
    Bad(String),
}

/// Looks for a batch at the front of `bytes`.
#[must_use]
pub fn find_batch(bytes: &[u8], salt: u64) -> Found<'_> {
    let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
        return Found::Short(BATCH_HEADER_BYTES);
    };
    if u64_at(head, 0) != BATCH_MAGIC ^ salt {
        let zeros = head.iter().all(|byte| *byte == 0);
        return Found::Bad(if zeros {
            "zeros".into()
        } else {
            format!("the magic 0x{:016X}", u64_at(head, 0))
        });
    }
    let sum = crc(&head[..BATCH_CRC_AT]);
    if u32_at(head, BATCH_CRC_AT) != sum {
        let said = u32_at(head, BATCH_CRC_AT);
        return Found::Bad(format!(
            "a batch header that says CRC 0x{said:08X} and has 0x{sum:08X}"
        ));
    }
    let header = BatchHeader {
        payload_bytes: u32_at(head, 8),
        count: u32_at(head, 12),
        first: LogSeq(u64_at(head, 16)),
        durable: LogSeq(u64_at(head, 24)),
        chain: u64_at(head, 32),
        payload_crc: u32_at(head, BATCH_PAYLOAD_CRC_AT),
    };
    let payload_bytes = header.payload_bytes as usize;
    if payload_bytes > BATCH_PAYLOAD_MAX {
        return Found::Bad(format!(
            "a batch of {payload_bytes} bytes, more than the limit of {BATCH_PAYLOAD_MAX}"
        ));
    }
    let padded = usize::try_from(padded_bytes(payload_bytes)).expect("just bounded");
    let Some(whole) = bytes.get(..padded) else {
        return Found::Short(padded);
    };
    let sum = crc(&whole[BATCH_HEADER_BYTES..]);
    if sum != header.payload_crc {
        let said = header.payload_crc;
        return Found::Bad(format!(
            "a batch whose records say CRC 0x{said:08X} and have 0x{sum:08X}"
        ));
    }
    Found::Batch {
        header,
        payload: &whole[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + payload_bytes],
        padded,
    }
}

/// Where one segment has to join on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Joint {
    /// The next record.
    pub seq: LogSeq,
    /// The chain hash of all batches before it.
    pub chain: u64,
}

impl Joint {
    /// The beginning of a log.
    pub const START: Self = Self {
        seq: LogSeq(1),
        chain: 0,
    };
}

/// The log is damaged, and records that were acknowledged with it: nothing is guessed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file} at offset {offset}: {mismatch}")]
pub struct Damage {
    /// The segment, below the data directory.
    pub file: String,
    /// In bytes.
    pub offset: u64,
    /// What is wrong.
    pub mismatch: Mismatch,
}

/// How a segment ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentEnd {
    /// Where the next segment joins on.
    pub joint: Joint,
    /// Batches read, marks included.
    pub batches: u64,
    /// The first bytes that are no batch, and what they are.
    pub bad: Damage,
    /// Whether they are anything but zeros or the end of the file: the tail of a write that was cut.
    pub torn: bool,
}

/// How far a segment that is being written to holds what was acknowledged, for certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proven {
    /// Bytes from the start of the segment, its header among them.
    pub bytes: usize,
    /// The last record in them.
    pub last: LogSeq,
    /// What stands behind the last batch that can be read.
    pub behind: Behind,
}

/// What stands behind the last batch of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// Zeros.
    Nothing,
    /// Something that is no batch: one was read while it was written, or was read wrong.
    Something,
    /// A whole batch, behind one that is not; the place of that one in the segment, in bytes.
    Batch(usize),
}

/// Finds how far the bytes of a segment were durable when they were read, while somebody may be writing to it.
/// One batch is in flight at a time, and a later one says how far the log was durable when it was formed: so the
/// last batch found may not be durable yet, nor whole, and what stands behind a batch that was read half-written
/// may be whole. All of that is left out. `durable` is how far the log is known to be durable anyway, and `read` up
/// to which epoch a start has read it: it made that durable, and nobody writes to those segments any more.
///
/// # Errors
/// If the segment has no whole header.
pub fn proven(segment: &[u8], durable: LogSeq, read: Epoch) -> Result<Proven, Mismatch> {
    let Some(page) = segment.first_chunk() else {
        let found = format!("the end of the file after {} bytes", segment.len());
        return Err(Mismatch::new("a segment's header", found));
    };
    let header = SegmentHeader::decode(page)?;
    let mut proven = Proven {
        bytes: SEGMENT_HEADER_BYTES,
        last: LogSeq(header.first.0 - 1),
        behind: Behind::Nothing,
    };
    let durable = if header.epoch <= read {
        LogSeq(u64::MAX)
    } else {
        durable
    };
    let mut newest = proven;
    while let Found::Batch { header, padded, .. } =
        find_batch(&segment[newest.bytes..], header.salt)
    {
        if header.durable.max(durable) >= newest.last {
            proven = newest;
        }
        newest.bytes += padded;
        newest.last = LogSeq(header.first.0 + u64::from(header.count) - 1);
        // A mark holds nothing that could be too new. A batch of which a record is durable is so as a whole: a
        // checkpoint may be of a record in the middle of one.
        if newest.last <= proven.last || header.first <= durable {
            proven = newest;
        }
    }
    proven.behind = behind(segment, newest.bytes, header.salt);
    Ok(proven)
}

fn behind(segment: &[u8], end: usize, salt: u64) -> Behind {
    let rest = &segment[end.min(segment.len())..];
    let pages = || rest.chunks(SEGMENT_HEADER_BYTES);
    if pages().all(|page| page.iter().all(|byte| *byte == 0)) {
        return Behind::Nothing;
    }
    let begins = (0..rest.len()).step_by(SEGMENT_HEADER_BYTES);
    let whole = |at: usize| matches!(find_batch(&rest[at..], salt), Found::Batch { .. });
    if begins.into_iter().any(whole) {
        Behind::Batch(end)
    } else {
        Behind::Something
    }
}

/// Whether another segment follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follows {
    /// One does: its header says where this one ends.
    Segment,
    /// None does: all the rest of this one is searched for a batch that proves damage.
    Nothing,
}

/// Reads one segment, in pieces of any size.
#[derive(Clone, Debug)]
pub struct SegmentReader {
    file: String,
    cluster: ClusterId,
    follows: Follows,
    joint: Joint,
    /// Whether the segment says itself where it joins on: what was before it is not there any more.
    joins_anywhere: bool,
    /// Where the segment before ends: what is wrong if this one does not join on.
    before: Option<Damage>,
    /// Bytes not yet consumed, which begin at `at` in the file.
    buffer: Vec<u8>,
    at: u64,
    batches: u64,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Header,
    Batches {
        salt: u64,
    },
    /// Past the first bad place: looking for a batch that proves damage.
    Searching {
        salt: u64,
        bad: Damage,
        torn: bool,
    },
}

/// Whether more bytes follow those given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum More {
    /// They do.
    Follows,
    /// They do not: the file ends here.
    Ends,
}

impl SegmentReader {
    /// A reader of the segment `file`, which has to join on where the one before ends.
    #[must_use]
    pub fn new(
        file: String,
        cluster: ClusterId,
        before: Option<SegmentEnd>,
        follows: Follows,
    ) -> Self {
        let joint = before.as_ref().map_or(Joint::START, |end| end.joint);
        let before = before.map(|end| end.bad);
        Self {
            file,
            cluster,
            follows,
            joint,
            joins_anywhere: false,
            before,
            buffer: Vec::new(),
            at: 0,
            batches: 0,
            step: Step::Header,
        }
    }

    /// A reader of the segment `file`, the first one that is read: a checkpoint stands for the log before it.
    #[must_use]
    pub fn behind_checkpoint(
        file: String,
        cluster: ClusterId,
        first: LogSeq,
        follows: Follows,
    ) -> Self {
        let mut reader = Self::new(file, cluster, None, follows);
        reader.joint.seq = first;
        reader.joins_anywhere = true;
        reader
    }

    /// Takes the next bytes of the file and gives the records found to `sink`, in order.
    /// `Some` when nothing more needs to be read.
    ///
    /// # Errors
    /// If records that were acknowledged are damaged, or a record does not fit (`sink` says so).
    pub fn feed(
        &mut self,
        bytes: &[u8],
        more: More,
        sink: &mut impl FnMut(Logged) -> Result<(), String>,
    ) -> Result<Option<SegmentEnd>, Damage> {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        let end = self.run(&mut used, more, sink)?;
        self.buffer.drain(..used);
        Ok(end)
    }

    fn run(
        &mut self,
        used: &mut usize,
        more: More,
        sink: &mut impl FnMut(Logged) -> Result<(), String>,
    ) -> Result<Option<SegmentEnd>, Damage> {
        loop {
            let rest = &self.buffer[*used..];
            match &self.step {
                Step::Header => {
                    let Some(page) = rest.first_chunk() else {
                        if more == More::Follows {
                            return Ok(None);
                        }
                        let found = format!("the end of the file after {} bytes", rest.len());
                        return Err(self.damage(Mismatch::new("a segment's header", found)));
                    };
                    let header =
                        SegmentHeader::decode(page).map_err(|mismatch| self.damage(mismatch))?;
                    self.join(&header)?;
                    self.step = Step::Batches { salt: header.salt };
                    *used += SEGMENT_HEADER_BYTES;
                    self.at += PAGE_BYTES;
                }
                Step::Batches { salt } => {
                    let salt = *salt;
                    let bad = match find_batch(rest, salt) {
                        Found::Batch {
                            header,
                            payload,
                            padded,
                        } => {
                            self.take(&header, payload, sink)?;
                            self.joint.seq.0 += u64::from(header.count);
                            self.joint.chain = header.chain_after(salt);
                            self.batches += 1;
                            *used += padded;
                            self.at += padded as u64;
                            continue;
                        }
                        Found::Short(_) if more == More::Follows => return Ok(None),
                        Found::Short(_) => {
                            format!("the end of the file after {} bytes", rest.len())
                        }
                        Found::Bad(found) => found,
                    };
                    let torn = rest.iter().any(|byte| *byte != 0);
                    let expected = format!("the batch that begins with record {}", self.joint.seq);
                    let bad = self.damage(Mismatch::new(expected, bad));
                    if self.follows == Follows::Segment {
                        return Ok(Some(self.end(bad, torn)));
                    }
                    self.step = Step::Searching { salt, bad, torn };
                }
                Step::Searching { salt, bad, torn } => {
                    match find_batch(rest, *salt) {
                        Found::Batch { .. } if !planted::is(Bug::DamagePassesForTorn) => {
                            let mut bad = bad.clone();
                            bad.mismatch.found +=
                                &format!(", and a whole batch after it at offset {}", self.at);
                            return Err(bad);
                        }
                        Found::Short(_) if more == More::Follows => return Ok(None),
                        Found::Short(_) | Found::Bad(_) | Found::Batch { .. } => {}
                    }
                    let page = rest.len().min(SEGMENT_HEADER_BYTES);
                    let dirty = rest[..page].iter().any(|byte| *byte != 0);
                    if page < SEGMENT_HEADER_BYTES {
                        let end = self.end(bad.clone(), *torn || dirty);
                        return Ok((more == More::Ends).then_some(end));
                    }
                    *used += page;
                    self.at += PAGE_BYTES;
                    if let Step::Searching { torn, .. } = &mut self.step {
                        *torn |= dirty;
                    }
                }
            }
        }
    }

    fn join(&mut self, header: &SegmentHeader) -> Result<(), Damage> {
        if header.cluster != self.cluster {
            return Err(self.damage(Mismatch::new(
                format!("a segment of cluster {}", self.cluster),
                format!("one of cluster {}", header.cluster),
            )));
        }
        if self.joins_anywhere {
            self.joint.chain = header.chain;
        }
        let Joint { seq, chain } = self.joint;
        if (header.first, header.chain) == (seq, chain) {
            return Ok(());
        }
        let SegmentHeader {
            first,
            chain: after,
            ..
        } = *header;
        if let Some(mut bad) = self.before.clone() {
            bad.mismatch.found +=
                &format!(", while {} goes on with record {first} after it", self.file);
            return Err(bad);
        }
        Err(self.damage(Mismatch::new(
            format!("a segment that begins with record {seq} after the hash 0x{chain:016X}"),
            format!("one that begins with record {first} after the hash 0x{after:016X}"),
        )))
    }

    fn take(
        &self,
        header: &BatchHeader,
        payload: &[u8],
        sink: &mut impl FnMut(Logged) -> Result<(), String>,
    ) -> Result<(), Damage> {
        let Joint { seq, chain } = self.joint;
        if (header.first, header.chain) != (seq, chain) {
            return Err(self.damage(Mismatch::new(
                format!("the batch that begins with record {seq} after the hash 0x{chain:016X}"),
                format!(
                    "one that begins with record {} after the hash 0x{:016X}",
                    header.first, header.chain
                ),
            )));
        }
        if header.durable >= seq {
            return Err(self.damage(Mismatch::new(
                format!(
                    "a batch formed when at most record {} was durable",
                    seq.0 - 1
                ),
                format!("one formed when record {} was", header.durable),
            )));
        }
        let mut rest = payload;
        for nth in 0..u64::from(header.count) {
            let expected = || format!("record {}", seq.0 + nth);
            let (logged, len) = match Logged::decode(rest) {
                Ok(decoded) => decoded,
                Err(error @ (RecordError::Damaged(_) | RecordError::Unknown { .. })) => {
                    return Err(self.damage(Mismatch::new(expected(), error.to_string())));
                }
            };
            if logged.seq.0 != seq.0 + nth {
                return Err(
                    self.damage(Mismatch::new(expected(), format!("record {}", logged.seq)))
                );
            }
            rest = &rest[len..];
            sink(logged).map_err(|misfit| {
                self.damage(Mismatch::new(format!("{} to fit", expected()), misfit))
            })?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let expected = format!("a batch of {} records", header.count);
        Err(self.damage(Mismatch::new(
            expected,
            format!("{} bytes more", rest.len()),
        )))
    }

    fn damage(&self, mismatch: Mismatch) -> Damage {
        Damage {
            file: self.file.clone(),
            offset: self.at,
            mismatch,
        }
    }

    fn end(&self, bad: Damage, torn: bool) -> SegmentEnd {
        SegmentEnd {
            joint: self.joint,
            batches: self.batches,
            bad,
            torn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::meta::record::{By, SessionOpened};

    const CLUSTER: ClusterId = ClusterId(0xC1);
    const SALT: u64 = 0x5A17;

    fn logged(seq: u64) -> Logged {
        let record = SessionOpened {
            session: SessionId(seq),
            nonce: seq,
        }
        .into();
        Logged {
            seq: LogSeq(seq),
            by: By::NOBODY,
            record,
        }
    }

    /// A segment with these batches of records, zeros after it, and its end.
    fn segment(batches: &[u64]) -> (Vec<u8>, Joint) {
        let header = SegmentHeader {
            cluster: CLUSTER,
            epoch: Epoch(1),
            first: LogSeq(1),
            salt: SALT,
            chain: 0,
        };
        let mut bytes = header.encode();
        let (mut seq, mut chain) = (1, 0);
        for count in batches {
            let mut forming = Forming::new(LogSeq(seq));
            for _ in 0..*count {
                forming.push(&logged(seq));
                seq += 1;
            }
            let durable = LogSeq(forming.first().0 - 1);
            let (batch, after) = forming.close(SALT, durable, chain);
            chain = after;
            bytes.extend(batch);
        }
        (
            bytes,
            Joint {
                seq: LogSeq(seq),
                chain,
            },
        )
    }

    fn read(bytes: &[u8], step: usize, follows: Follows) -> Result<(Vec<u64>, SegmentEnd), Damage> {
        let mut reader = SegmentReader::new("log/log.1".into(), CLUSTER, None, follows);
        let mut seqs = Vec::new();
        let mut at = 0;
        loop {
            let end = (at + step).min(bytes.len());
            let more = if end == bytes.len() {
                More::Ends
            } else {
                More::Follows
            };
            let mut sink = |logged: Logged| {
                seqs.push(logged.seq.0);
                Ok(())
            };
            if let Some(end) = reader.feed(&bytes[at..end], more, &mut sink)? {
                return Ok((seqs, end));
            }
            at = end;
        }
    }

    #[test]
    fn records_come_back_in_order_however_the_bytes_are_cut() {
        let (mut bytes, joint) = segment(&[1, 200, 0, 3]);
        bytes.resize(bytes.len() + 20_000, 0);
        for step in [1_000, 4_096, 5_000, 1 << 20] {
            let (seqs, end) = read(&bytes, step, Follows::Nothing).unwrap();
            assert_eq!(seqs, (1..=204).collect::<Vec<_>>(), "in steps of {step}");
            assert_eq!((end.joint, end.batches, end.torn), (joint, 4, false));
        }
    }

    #[test]
    fn a_last_batch_cut_anywhere_is_a_torn_tail_and_nothing_before_it_is_lost() {
        let (before, joint) = segment(&[3]);
        let (whole, _) = segment(&[3, 2]);
        for len in before.len()..whole.len() {
            for zeros in [0, whole.len() - len] {
                let mut bytes = whole[..len].to_vec();
                bytes.resize(len + zeros, 0);
                if bytes == whole {
                    continue;
                }
                let (seqs, end) = read(&bytes, 1 << 20, Follows::Nothing).unwrap();
                assert_eq!(
                    (seqs.len(), end.joint),
                    (3, joint),
                    "cut at {len}, {zeros} zeros"
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_before_a_later_batch_is_damage_that_names_its_place() {
        let (bytes, _) = segment(&[1, 1, 1]);
        for byte in (0..8_192 + 4_096).step_by(37) {
            let mut bad = bytes.clone();
            bad[byte] ^= 0x10;
            let damage = read(&bad, 1 << 20, Follows::Nothing).unwrap_err();
            assert_eq!(
                damage.offset,
                byte as u64 / 4_096 * 4_096,
                "flipped at {byte}"
            );
            let text = damage.to_string();
            assert!(
                text.contains("log/log.1 at offset")
                    && text.contains("expected")
                    && text.contains("found")
            );
        }
    }

    #[test]
    fn a_mark_alone_proves_that_the_batch_before_it_was_acknowledged() {
        let (mut bytes, _) = segment(&[1, 1, 0]);
        bytes[8_192 + 70] ^= 1;
        assert!(read(&bytes, 1 << 20, Follows::Nothing).is_err());
    }

    #[test]
    fn of_a_segment_that_is_being_written_only_what_a_later_batch_proves_is_taken() {
        let proven_of = |bytes: &[u8], durable: u64| {
            let proven = proven(bytes, LogSeq(durable), Epoch(0)).unwrap();
            (proven.bytes, proven.last.0)
        };
        let (bytes, _) = segment(&[3, 2, 1]);
        let page = 4_096;
        assert_eq!(proven_of(&bytes, 0), (3 * page, 5));
        assert_eq!(proven_of(&bytes[..3 * page], 0), (2 * page, 3));
        assert_eq!(proven_of(&bytes[..2 * page], 0), (page, 0));
        // A checkpoint of record 6 is there: so much is durable.
        assert_eq!(proven_of(&bytes, 6), (4 * page, 6));
        // One of record 4 too: the batch that has it has another one behind it.
        assert_eq!(proven_of(&bytes[..3 * page], 4), (3 * page, 5));
        assert_eq!(proven_of(&bytes[..3 * page], 3), (2 * page, 3));
        // A mark proves what is before it, and holds nothing itself.
        let (marked, _) = segment(&[3, 2, 0]);
        assert_eq!(proven_of(&marked, 0), (4 * page, 5));
        // The second batch was read before it was written whole, the third one after.
        let mut torn = bytes.clone();
        torn[2 * page + 100..3 * page].fill(0);
        assert_eq!(proven_of(&torn, 0), (page, 0));
        let behind_of = |bytes: &[u8]| proven(bytes, LogSeq(0), Epoch(0)).unwrap().behind;
        assert_eq!(behind_of(&torn), Behind::Batch(2 * page));
        assert_eq!(behind_of(&bytes), Behind::Nothing);
        let longer = [&bytes, &[0; 8_192][..]].concat();
        assert_eq!(behind_of(&longer), Behind::Nothing);
        assert_eq!(behind_of(&bytes[..3 * page + 50]), Behind::Something);
        let (seqs, end) = read(&torn[..page], 1 << 20, Follows::Nothing).unwrap();
        assert_eq!((seqs.len(), end.torn), (0, false));
        assert!(read(&torn, 1 << 20, Follows::Nothing).is_err());
        assert!(proven(&bytes[..100], LogSeq(0), Epoch(0)).is_err());
        // A start has read it, and said so.
        let read = proven(&bytes, LogSeq(0), Epoch(u32::MAX)).unwrap();
        assert_eq!((read.bytes, read.last.0), (4 * page, 6));
    }

    #[test]
    fn a_batch_out_of_its_place_is_damage() {
        let (bytes, _) = segment(&[1, 1]);
        let doubled = [&bytes[..8_192], &bytes[4_096..8_192]].concat();
        assert!(read(&doubled, 1 << 20, Follows::Nothing).is_err());
        assert!(read(&doubled, 1 << 20, Follows::Segment).is_err());
    }

    #[test]
    fn segment_names_are_decimal_without_leading_zeros() {
        assert_eq!(segment_first("log.17"), Some(LogSeq(17)));
        for bad in [
            "log.next",
            "log.017",
            "log.0",
            "log.",
            "log.-1",
            "17",
            "log.1.old",
        ] {
            assert_eq!(segment_first(bad), None, "{bad}");
        }
    }
}
