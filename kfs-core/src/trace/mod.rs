//! Traces: everything that a machine was told, so that it can be told again and be seen to do the same.
//!
//! Law 7 of [`crate::machine`]: configuration, seed and inputs determine all outputs. A trace holds those, and
//! beside each input the hash of all outputs before it; [`Replay`] builds the machine anew, feeds the inputs
//! and names the first one whose outputs differ. Layout: `docs/formats/trace.md`.
//!
//! [`Recorder`] and [`Reader`] are the two ends, and neither knows a file. Reading is total: any bytes give
//! entries or one [`TraceError`], and no more memory is taken than there are bytes.
mod code;
mod hash;
mod replay;

pub use code::{Configuration, EntryKind, TracedCall, TracedEvent, TracedMachine};
pub use hash::EventHash;
pub use replay::{Difference, Replay, Replayed};

use crate::block::crc;
use crate::machine::{Input, Output};
use crate::time::{Instant, Now, UnixNanos};
use bytes::{Buf as _, Bytes, BytesMut};
use core::fmt;

/// A trace begins with it: `KFSTRACE`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KFSTRACE");
/// The version of the format.
pub const FORMAT: u32 = 1;
/// Bytes of a trace before its configuration.
pub const HEADER_BYTES: usize = 24;
/// Bytes of an entry before its head.
pub const ENTRY_BYTES: usize = 48;
/// Bytes of a CRC.
pub const CRC_BYTES: usize = 4;
/// What this build calls itself.
pub const BUILD: &str = concat!("kfs ", env!("CARGO_PKG_VERSION"));

/// What a trace begins with.
#[derive(Clone, Debug)]
pub struct Header {
    /// The program that recorded it: another one may do other things, and rightly so.
    pub build: String,
    /// What the machine is built from.
    pub configuration: Configuration,
}

impl Header {
    /// The bytes that a trace begins with.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = code::put(Vec::new(), &self.build);
        let payload = self.configuration.encode(payload);
        let len = u32::try_from(payload.len()).expect("a configuration is small");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CRC_BYTES);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.configuration.code().to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&crc(&bytes).to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&crc(&payload).to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes` and its length; `None` if more bytes are needed.
    fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, TraceError> {
        let magic = MAGIC.to_le_bytes();
        let seen = bytes.len().min(magic.len());
        if bytes[..seen] != magic[..seen] {
            return Err(TraceError::NoTrace);
        }
        if bytes.len() < 12 {
            return Ok(None);
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(TraceError::OtherFormat(format));
        }
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        if crc(&bytes[..HEADER_BYTES - CRC_BYTES]) != u32_at(bytes, HEADER_BYTES - CRC_BYTES) {
            return Err(TraceError::Header("its first bytes do not match their CRC"));
        }
        let (machine, len) = (u32_at(bytes, 12), u32_at(bytes, 16));
        let rest = &bytes[HEADER_BYTES..];
        let Some(end) = usize::try_from(len)
            .ok()
            .and_then(|len| len.checked_add(CRC_BYTES))
            .filter(|end| *end <= rest.len())
        else {
            return Ok(None);
        };
        let payload = &rest[..end - CRC_BYTES];
        if crc(payload) != u32_at(rest, end - CRC_BYTES) {
            return Err(TraceError::Header(
                "the configuration does not match its CRC",
            ));
        }
        let header = postcard::take_from_bytes(payload).ok();
        let header = header.and_then(|(build, payload)| {
            let configuration = Configuration::decode(machine, payload)?;
            Some(Self {
                build,
                configuration,
            })
        });
        let header = header.ok_or(TraceError::Header(
            "no machine of this build has such a configuration",
        ))?;
        Ok(Some((header, HEADER_BYTES + end)))
    }
}

/// Makes a trace: the header, then an entry before each input, then the end. What it gives is appended to a
/// buffer; where that goes is the caller's business.
#[derive(Debug, Default)]
pub struct Recorder {
    outputs: EventHash,
}

impl Recorder {
    /// Begins a trace of a machine of this configuration.
    pub fn begin(configuration: impl Into<Configuration>, to: &mut Vec<u8>) -> Self {
        let header = Header {
            build: BUILD.into(),
            configuration: configuration.into(),
        };
        to.extend_from_slice(&header.encode());
        Self::default()
    }
    /// The machine is about to be told this.
    pub fn input<C: TracedCall>(&self, now: Now, input: &Input<C>, to: &mut Vec<u8>) {
        let at = to.len();
        to.extend_from_slice(&[0; ENTRY_BYTES]);
        let (kind, head, body) = code::encode_input(input, core::mem::take(to));
        *to = head;
        let head_bytes = to.len() - at - ENTRY_BYTES;
        to.extend_from_slice(&body);
        self.fill_in(kind, now, head_bytes, &mut to[at..]);
    }
    /// The machine wants this done.
    pub fn output<E: TracedEvent>(&mut self, output: &Output<E>) {
        self.outputs.hash_output(output);
    }
    /// Nothing more is recorded: all outputs of the last input are known.
    pub fn end(self, to: &mut Vec<u8>) {
        let at = to.len();
        to.extend_from_slice(&[0; ENTRY_BYTES]);
        self.fill_in(EntryKind::End, Now::default(), 0, &mut to[at..]);
    }

    /// Writes what stands before an entry's head.
    fn fill_in(&self, kind: EntryKind, now: Now, head_bytes: usize, entry: &mut [u8]) {
        let (fixed, payload) = entry
            .split_first_chunk_mut::<ENTRY_BYTES>()
            .expect("room was made for it");
        let body_bytes = (payload.len() - head_bytes) as u64;
        let head_bytes = u32::try_from(head_bytes).expect("a head is small");
        fixed[..8].copy_from_slice(&body_bytes.to_le_bytes());
        fixed[8..12].copy_from_slice(&head_bytes.to_le_bytes());
        fixed[12..16].copy_from_slice(&kind.code().to_le_bytes());
        fixed[16..24].copy_from_slice(&now.mono.0.to_le_bytes());
        fixed[24..32].copy_from_slice(&now.wall.0.to_le_bytes());
        fixed[32..40].copy_from_slice(&self.outputs.value().to_le_bytes());
        fixed[40..44].copy_from_slice(&crc(payload).to_le_bytes());
        let sum = crc(&fixed[..ENTRY_BYTES - CRC_BYTES]);
        fixed[ENTRY_BYTES - CRC_BYTES..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// One entry of a trace: an input, or the end.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counted from 1.
    pub number: u64,
    /// Where it begins, in bytes from the beginning of the trace.
    pub offset: u64,
    /// What it is.
    pub kind: EntryKind,
    /// When the machine was told; zero at the end.
    pub now: Now,
    /// The hash of all outputs before it.
    pub outputs: u64,
    head: Bytes,
    body: Bytes,
}

impl Entry {
    /// What the machine was told.
    ///
    /// # Errors
    /// If it is the end, or an input that this build or this machine does not know.
    pub fn input<C: TracedCall>(&self) -> Result<Input<C>, TraceError> {
        code::decode_input(self.kind, &self.head, self.body.clone())
            .ok_or_else(|| self.damaged("it is no input that this build knows"))
    }

    const fn damaged(&self, what: &'static str) -> TraceError {
        TraceError::Damaged {
            entry: self.number,
            offset: self.offset,
            what,
        }
    }
}

/// Reads a trace from bytes as they come, in pieces of any length.
#[derive(Debug, Default)]
pub struct Reader {
    unread: BytesMut,
    /// Where `unread` begins in the trace.
    offset: u64,
    /// Entries given.
    entries: u64,
    part: Part,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Part {
    #[default]
    Header,
    Entry,
    Nothing,
}

impl Reader {
    /// The next bytes of the trace.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }
    /// The header, once, when it is there whole; to be asked for before the entries.
    ///
    /// # Errors
    /// If it is none.
    pub fn header(&mut self) -> Result<Option<Header>, TraceError> {
        if self.part != Part::Header {
            return Ok(None);
        }
        Ok(Header::decode(&self.unread)?.map(|(header, len)| {
            self.skip(len);
            self.part = Part::Entry;
            header
        }))
    }
    /// The next entry, when it is there whole; `None` also before the header and after the end.
    ///
    /// # Errors
    /// If it is none. It stays where it is, and so does every later try.
    pub fn entry(&mut self) -> Result<Option<Entry>, TraceError> {
        match self.part {
            Part::Header => return Ok(None),
            Part::Nothing if self.unread.is_empty() => return Ok(None),
            Part::Nothing => return Err(TraceError::AfterEnd(self.offset)),
            Part::Entry => {}
        }
        let Some(fixed) = self.unread.first_chunk::<ENTRY_BYTES>() else {
            return Ok(None);
        };
        let damaged = |what| TraceError::Damaged {
            entry: self.entries + 1,
            offset: self.offset,
            what,
        };
        if crc(&fixed[..ENTRY_BYTES - CRC_BYTES]) != u32_at(fixed, ENTRY_BYTES - CRC_BYTES) {
            return Err(damaged("its first bytes do not match their CRC"));
        }
        let kind = EntryKind::of_code(u32_at(fixed, 12))
            .ok_or_else(|| damaged("this build knows no entry of its kind"))?;
        let now = Now {
            mono: Instant(u64_at(fixed, 16)),
            wall: UnixNanos(u64_at(fixed, 24)),
        };
        let outputs = u64_at(fixed, 32);
        let sum = u32_at(fixed, 40);
        let (head_bytes, body_bytes) = (u64::from(u32_at(fixed, 8)), u64_at(fixed, 0));
        let payload = head_bytes
            .checked_add(body_bytes)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes <= self.unread.len() - ENTRY_BYTES);
        let Some(payload) = payload else {
            return Ok(None);
        };
        if crc(&self.unread[ENTRY_BYTES..ENTRY_BYTES + payload]) != sum {
            return Err(damaged("its head and body do not match their CRC"));
        }
        if kind == EntryKind::End && (payload != 0 || now != Now::default()) {
            return Err(damaged("an end says nothing but the hash of all outputs"));
        }
        let (number, offset) = (self.entries + 1, self.offset);
        self.skip(ENTRY_BYTES);
        self.offset += payload as u64;
        let mut body = self.unread.split_to(payload).freeze();
        let head = body.split_to(usize::try_from(head_bytes).expect("within the payload"));
        self.entries = number;
        if kind == EntryKind::End {
            self.part = Part::Nothing;
        }
        Ok(Some(Entry {
            number,
            offset,
            kind,
            now,
            outputs,
            head,
            body,
        }))
    }
    /// Nothing more comes: whether the trace has come to its end.
    ///
    /// # Errors
    /// If it has not.
    pub fn finish(&self) -> Result<(), TraceError> {
        match self.part {
            Part::Header => Err(TraceError::Truncated {
                entry: 0,
                offset: 0,
            }),
            Part::Entry => Err(TraceError::Truncated {
                entry: self.entries + 1,
                offset: self.offset,
            }),
            Part::Nothing if self.unread.is_empty() => Ok(()),
            Part::Nothing => Err(TraceError::AfterEnd(self.offset)),
        }
    }

    fn skip(&mut self, len: usize) {
        self.unread.advance(len);
        self.offset += len as u64;
    }
}

/// Why bytes are no trace, or no whole one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TraceError {
    /// They do not begin like one.
    NoTrace,
    /// They are a trace of another format.
    OtherFormat(u32),
    /// The header is damaged, or of a machine that this build has not.
    Header(&'static str),
    /// It ends before its end.
    Truncated {
        /// The entry that is not whole; 0: the header.
        entry: u64,
        /// Where that begins, in bytes.
        offset: u64,
    },
    /// An entry is damaged, or not known to this build.
    Damaged {
        /// Which, counted from 1.
        entry: u64,
        /// Where it begins, in bytes.
        offset: u64,
        /// How.
        what: &'static str,
    },
    /// Something stands behind its end, at this offset.
    AfterEnd(u64),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrace => f.write_str("not a trace: it does not begin with KFSTRACE"),
            Self::OtherFormat(format) => write!(
                f,
                "a trace of format version {format}; this build reads version {FORMAT}"
            ),
            Self::Header(what) => write!(f, "the header is damaged: {what}"),
            Self::Truncated { entry: 0, .. } => f.write_str("truncated in its header"),
            Self::Truncated { entry, offset } => {
                write!(f, "truncated at entry {entry}, offset {offset}")
            }
            Self::Damaged {
                entry,
                offset,
                what,
            } => write!(f, "damaged at entry {entry}, offset {offset}: {what}"),
            Self::AfterEnd(offset) => {
                write!(f, "bytes follow the end of the trace, at offset {offset}")
            }
        }
    }
}
impl core::error::Error for TraceError {}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
