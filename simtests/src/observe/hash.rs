//! The hash of a run: over every input and every output of every machine, so that two runs of one seed can be
//! compared (O13). It reads no address, no pointer and no clock.
use kfs_core::machine::{DiskDone, DiskOp, Input, Output, SyncMode};
use kfs_core::wire::{Msg, frame};
use std::fmt::{Debug, Write as _};

/// A running hash of 64 bits, eight bytes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EventHash(pub u64);

impl EventHash {
    /// Adds an input of a machine.
    pub fn input<C: Debug>(&mut self, input: &Input<C>) {
        match input {
            Input::Wake => self.word(1),
            Input::Received { link, msg } => {
                self.word(2);
                self.word(link.0);
                self.msg(msg);
            }
            Input::Sent { link, bytes } => {
                self.word(3);
                self.word(link.0);
                self.word(*bytes as u64);
            }
            Input::Disk { ticket, result } => {
                self.word(4);
                self.word(ticket.0);
                match result {
                    Ok(DiskDone::Done) => self.word(0),
                    Ok(DiskDone::Data(bytes)) => self.bytes(bytes),
                    other => self.debug(other),
                }
            }
            other => self.debug(other),
        }
    }

    /// Adds an output of a machine.
    pub fn output<E: Debug>(&mut self, output: &Output<E>) {
        match output {
            Output::Send { link, msg } => {
                self.word(11);
                self.word(link.0);
                self.msg(msg);
            }
            Output::Disk { ticket, op } => {
                self.word(12);
                self.word(ticket.0);
                self.disk(op);
            }
            other => self.debug(other),
        }
    }

    fn disk(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Write {
                file,
                offset,
                data,
                sync,
            } => {
                self.bytes(file.as_str().as_bytes());
                self.word(*offset);
                self.word(u64::from(*sync == SyncMode::Now));
                for part in data {
                    self.bytes(part);
                }
            }
            DiskOp::Read { file, offset, len } => {
                self.bytes(file.as_str().as_bytes());
                self.word(*offset);
                self.word(*len as u64);
            }
            DiskOp::Sync { file } => self.bytes(file.as_str().as_bytes()),
            other => self.debug(other),
        }
    }

    /// Adds a message.
    pub fn msg(&mut self, msg: &Msg) {
        // The head as it goes over the wire, with its prefix: the request and the type stand there.
        self.bytes(&frame::encode(0, msg));
        self.bytes(&msg.body);
    }

    fn debug(&mut self, value: &impl Debug) {
        write!(self, "{value:?}").expect("a hash takes everything");
    }

    /// Adds bytes.
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

    /// Adds a number.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

impl std::fmt::Write for EventHash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
