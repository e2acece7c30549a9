//! A state, taken apart into the bytes of a checkpoint, a part at a time.
use super::entry::{Entry, Section, entries_after};
use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_DUE, BLOCK_PAYLOAD_MAX, BlockHeader, Header,
};
use super::{END, End};
use crate::block::crc;
use crate::meta::state::State;

/// Entries that are taken out of the state at once.
const ENTRIES_AT_ONCE: usize = 64;

/// Gives the bytes of a checkpoint of a state, as it was when this was begun: a state is a value, and a copy of it
/// costs next to nothing, whatever happens to the original.
#[derive(Clone, Debug)]
pub struct Writer {
    state: State,
    section: Section,
    last: Option<Entry>,
    step: Step,
    /// Blocks so far.
    number: u32,
    hash: u64,
    counts: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Header,
    Blocks,
    End,
    Done,
}

impl Writer {
    /// Of this state.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            state,
            section: Section::Whole,
            last: None,
            step: Step::Header,
            number: 0,
            hash: 0,
            counts: vec![0; Section::ALL.len()],
        }
    }
    /// The state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
    /// The state, when nothing is left to be given.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }
    /// The hash of all that was given so far; when nothing is left, of the state.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
    /// The next bytes: the header page, a block, or the end. `None`: that was all.
    pub fn next_bytes(&mut self) -> Option<Vec<u8>> {
        match self.step {
            Step::Header => {
                let header = Header {
                    cluster: self.state.cluster,
                    epoch: self.state.epoch,
                    seq: self.state.seq,
                };
                self.hash = header.hash();
                self.step = Step::Blocks;
                Some(header.encode())
            }
            Step::Blocks => Some(self.block().unwrap_or_else(|| self.end())),
            Step::End => Some(self.end()),
            Step::Done => None,
        }
    }

    /// The next block with entries; `None`: there are no more.
    fn block(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; BLOCK_HEADER_BYTES];
        let mut entries = 0;
        while bytes.len() < BLOCK_HEADER_BYTES + BLOCK_PAYLOAD_DUE {
            let some = entries_after(
                &self.state,
                self.section,
                self.last.as_ref(),
                ENTRIES_AT_ONCE,
            );
            let ends = some.len() < ENTRIES_AT_ONCE;
            for entry in some {
                let before = bytes.len();
                bytes = entry.encode(bytes);
                assert!(
                    bytes.len() <= BLOCK_HEADER_BYTES + BLOCK_PAYLOAD_MAX,
                    "{before} bytes and an entry are too long for a block"
                );
                entries += 1;
                self.last = Some(entry);
            }
            if !ends {
                continue;
            }
            let section = self.section;
            let next = Section::of(section as u16 + 1);
            if entries > 0 {
                if let Some(next) = next {
                    (self.section, self.last) = (next, None);
                } else {
                    self.step = Step::End;
                }
                return Some(self.close(section as u16, entries, bytes));
            }
            match next {
                Some(next) => (self.section, self.last) = (next, None),
                None => return None,
            }
        }
        Some(self.close(self.section as u16, entries, bytes))
    }

    fn end(&mut self) -> Vec<u8> {
        self.step = Step::Done;
        let end = End {
            seq: self.state.seq,
            entries: self.counts.clone(),
        };
        let bytes = postcard::to_extend(&end, vec![0; BLOCK_HEADER_BYTES])
            .expect("an end holds nothing that postcard cannot encode");
        self.close(END, 1, bytes)
    }

    fn close(&mut self, section: u16, entries: u32, mut bytes: Vec<u8>) -> Vec<u8> {
        if section != END {
            self.counts[usize::from(section) - 1] += u64::from(entries);
        }
        let payload = &bytes[BLOCK_HEADER_BYTES..];
        let header = BlockHeader {
            section,
            number: self.number,
            entries,
            payload_bytes: u32::try_from(payload.len()).expect("bounded when it was filled"),
            payload_crc: crc(payload),
            before: self.hash,
        };
        bytes[..BLOCK_HEADER_BYTES].copy_from_slice(&header.encode());
        self.number += 1;
        self.hash = header.hash_after();
        bytes
    }
}
