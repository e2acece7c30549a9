//! One number that stands for all that went into a machine and came out of it.
//!
//! Every byte of an event counts: heads as they are encoded on the wire, bodies as they are. It is quick
//! rather than strong: it tells two runs apart, and is no defence against anybody. What it gives is part of
//! the format of a trace (`docs/formats/trace.md`): recorded hashes are compared with those of a replay.
use super::code::{Addr, TracedCall, TracedEvent, encode_input};
use crate::machine::{DiskOp, Fault, FaultKind, Input, Output, SyncMode};
use crate::time::Now;
use crate::wire::Msg;
use core::fmt;
use serde::Serialize;

/// An odd number whose bits are evenly spread (2^64 divided by the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const ROTATION: u32 = 29;

/// A running hash of 64 bits, eight bytes at a time.
#[derive(Clone, Default)]
pub struct EventHash {
    value: u64,
    /// What heads are encoded in; kept for its room only.
    scratch: Vec<u8>,
}

impl EventHash {
    /// Its value so far; 0 of nothing.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }
    /// Adds a number. Whatever came before, two numbers give two values.
    pub const fn word(&mut self, word: u64) {
        self.value = (self.value ^ word)
            .wrapping_mul(MULTIPLIER)
            .rotate_left(ROTATION);
    }
    /// Adds bytes, and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }
    /// Adds a value by its postcard encoding.
    pub fn encoded(&mut self, value: &impl Serialize) {
        self.with_scratch(|scratch| super::code::put(scratch, value));
    }
    /// Adds what a machine is told, and when.
    pub fn hash_input<C: TracedCall>(&mut self, now: Now, input: &Input<C>) {
        self.word(now.mono.0);
        self.word(now.wall.0);
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        let (kind, head, body) = encode_input(input, scratch);
        self.word(u64::from(kind.code()));
        self.bytes(&head);
        self.bytes(&body);
        self.scratch = head;
    }
    /// Adds what a machine wants done.
    pub fn hash_output<E: TracedEvent>(&mut self, output: &Output<E>) {
        match output {
            Output::Send { link, msg } => {
                self.tagged(1, link.0);
                self.msg(msg);
            }
            Output::Dial { link, addr } => {
                self.tagged(2, link.0);
                self.encoded(&Addr::from(*addr));
            }
            Output::Close { link } => self.tagged(3, link.0),
            Output::Pause { link } => self.tagged(4, link.0),
            Output::Resume { link } => self.tagged(5, link.0),
            Output::Disk { ticket, op } => {
                self.tagged(6, ticket.0);
                self.disk(op);
            }
            Output::Event { id, event } => {
                self.tagged(7, id.0);
                event.add_to(self);
            }
            Output::Halt { fault } => self.fault(fault),
        }
    }

    fn with_scratch(&mut self, encode: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        let scratch = encode(scratch);
        self.bytes(&scratch);
        self.scratch = scratch;
    }
    const fn tagged(&mut self, tag: u64, number: u64) {
        self.word(tag);
        self.word(number);
    }
    /// Adds a message.
    pub fn msg(&mut self, msg: &Msg) {
        self.word(msg.request);
        self.word(u64::from(msg.head.code()));
        self.with_scratch(|scratch| msg.head.encode(scratch));
        self.bytes(&msg.body);
    }
    fn disk(&mut self, op: &DiskOp) {
        match op {
            DiskOp::List { dir } => self.named(1, dir.as_str()),
            DiskOp::MakeDir { dir } => self.named(2, dir.as_str()),
            DiskOp::Create { file, zeroed } => {
                self.named(3, file.as_str());
                self.word(*zeroed);
            }
            DiskOp::Write {
                file,
                offset,
                data,
                sync,
            } => {
                self.named(4, file.as_str());
                self.word(*offset);
                self.word(match sync {
                    SyncMode::Later => 0,
                    SyncMode::Now => 1,
                });
                self.word(data.len() as u64);
                for part in data {
                    self.bytes(part);
                }
            }
            DiskOp::Read { file, offset, len } => {
                self.named(5, file.as_str());
                self.word(*offset);
                self.word(*len as u64);
            }
            DiskOp::Sync { file } => self.named(6, file.as_str()),
            DiskOp::SyncDir { dir } => self.named(7, dir.as_str()),
            DiskOp::Rename { from, to } => {
                self.named(8, from.as_str());
                self.bytes(to.as_str().as_bytes());
            }
            DiskOp::Remove { file } => self.named(9, file.as_str()),
            DiskOp::Truncate { file, len } => {
                self.named(10, file.as_str());
                self.word(*len);
            }
            DiskOp::Space => self.named(11, ""),
            DiskOp::SyncAll { dir } => self.named(12, dir.as_str()),
        }
    }
    fn named(&mut self, tag: u64, name: &str) {
        self.word(tag);
        self.bytes(name.as_bytes());
    }
    fn fault(&mut self, fault: &Fault) {
        let kind = match fault.kind {
            FaultKind::Disk => 1,
            FaultKind::Corrupt => 2,
            FaultKind::Refused => 3,
        };
        self.tagged(8, kind);
        self.bytes(fault.what.as_bytes());
        self.encoded(&fault.help);
    }
}

impl PartialEq for EventHash {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}
impl Eq for EventHash {}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.value)
    }
}
impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventHash({self})")
    }
}
