//! The bytes of a checkpoint, read in pieces of any size: every flipped bit is found, and nothing is taken that does
//! not fit what came before it.
use super::entry::{Entry, Section, put};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, Header};
use super::{END, End};
use crate::block::crc;
use crate::ids::{ClusterId, LogSeq};
use crate::meta::oplog::{Damage, Mismatch, More};
use crate::meta::packed::Map;
use crate::meta::state::State;

/// Reads a checkpoint and gives its entries away, one after the other.
#[derive(Clone, Debug)]
pub struct Reader {
    file: String,
    cluster: ClusterId,
    header: Option<Header>,
    /// Bytes not yet consumed, which begin at `at` in the file.
    buffer: Vec<u8>,
    at: u64,
    number: u32,
    hash: u64,
    section: u16,
    counts: Vec<u64>,
    ended: bool,
}

/// What a whole, undamaged checkpoint says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Its first page.
    pub header: Header,
    /// Of the state: equal states have equal hashes.
    pub hash: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
}

impl Reader {
    /// Of the file of this name, which has to be of this cluster.
    #[must_use]
    pub fn new(file: String, cluster: ClusterId) -> Self {
        Self {
            file,
            cluster,
            header: None,
            buffer: Vec::new(),
            at: 0,
            number: 0,
            hash: 0,
            section: 0,
            counts: vec![0; Section::ALL.len()],
            ended: false,
        }
    }
    /// What the first page says, once it was read.
    #[must_use]
    pub const fn header(&self) -> Option<Header> {
        self.header
    }

    /// Takes the next bytes of the file and gives the entries found to `sink`, in order.
    /// `Some` when the file has ended as it should.
    ///
    /// # Errors
    /// If it is damaged, or `sink` says that an entry does not fit.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        more: More,
        sink: &mut impl FnMut(Entry) -> Result<(), &'static str>,
    ) -> Result<Option<Summary>, Damage> {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        let end = self.run(&mut used, more, sink);
        self.buffer.drain(..used);
        end
    }

    fn run(
        &mut self,
        used: &mut usize,
        more: More,
        sink: &mut impl FnMut(Entry) -> Result<(), &'static str>,
    ) -> Result<Option<Summary>, Damage> {
        loop {
            let rest = &self.buffer[*used..];
            let cut = |what: &str| {
                let found = format!("the end of the file after {} bytes", rest.len());
                match more {
                    More::Follows => Ok(None),
                    More::Ends => Err(self.damage(Mismatch::new(what, found))),
                }
            };
            let Some(header) = self.header else {
                let Some(page) = rest.first_chunk::<HEADER_BYTES>() else {
                    return cut("a checkpoint's header");
                };
                let header = Header::decode(page).map_err(|mismatch| self.damage(mismatch))?;
                if header.cluster != self.cluster {
                    let due = format!("a checkpoint of cluster {}", self.cluster);
                    let found = format!("one of cluster {}", header.cluster);
                    return Err(self.damage(Mismatch::new(due, found)));
                }
                self.hash = header.hash();
                self.header = Some(header);
                *used += HEADER_BYTES;
                self.at += HEADER_BYTES as u64;
                continue;
            };
            if self.ended {
                return match (rest, more) {
                    ([], More::Follows) => Ok(None),
                    ([], More::Ends) => Ok(Some(Summary {
                        header,
                        hash: self.hash,
                        bytes: self.at,
                        entries: self.counts.iter().sum(),
                    })),
                    _ => Err(self.damage(Mismatch::new("the end of the file", "more bytes"))),
                };
            }
            let Some(head) = rest.first_chunk::<BLOCK_HEADER_BYTES>() else {
                return cut("a block of a checkpoint");
            };
            let block = BlockHeader::decode(head).map_err(|mismatch| self.damage(mismatch))?;
            let whole = BLOCK_HEADER_BYTES + block.payload_bytes as usize;
            let Some(payload) = rest.get(BLOCK_HEADER_BYTES..whole) else {
                return cut(&format!("a block of {whole} bytes"));
            };
            self.check(&block, payload)?;
            if block.section == END {
                self.check_end(&header, payload)?;
                self.ended = true;
            } else {
                let payload = payload.to_vec();
                self.entries(&block, &payload, sink)?;
            }
            self.hash = block.hash_after();
            self.number += 1;
            self.section = block.section;
            *used += whole;
            self.at += whole as u64;
        }
    }

    /// Whether a block is undamaged, and the one that belongs here.
    fn check(&self, block: &BlockHeader, payload: &[u8]) -> Result<(), Damage> {
        let sum = crc(payload);
        let wrong = if sum != block.payload_crc {
            let said = block.payload_crc;
            Mismatch::new(
                format!("entries with the CRC 0x{sum:08X}"),
                format!("a block that says 0x{said:08X}"),
            )
        } else if (block.number, block.before) != (self.number, self.hash) {
            Mismatch::new(
                format!("block {} after the hash 0x{:016X}", self.number, self.hash),
                format!("block {} after 0x{:016X}", block.number, block.before),
            )
        } else if block.section < self.section {
            Mismatch::new(
                format!("entries of section {} or behind it", self.section),
                format!("section {}", block.section),
            )
        } else {
            return Ok(());
        };
        Err(self.damage(wrong))
    }

    fn entries(
        &mut self,
        block: &BlockHeader,
        payload: &[u8],
        sink: &mut impl FnMut(Entry) -> Result<(), &'static str>,
    ) -> Result<(), Damage> {
        let Some(section) = Section::of(block.section) else {
            let due = "a section that this build knows";
            let found = format!("section {}", block.section);
            return Err(self.damage(Mismatch::new(due, found)));
        };
        let mut rest = payload;
        for _ in 0..block.entries {
            let Some((entry, after)) = Entry::decode(section, rest) else {
                let due = format!("an entry of section {section:?}");
                return Err(self.damage(Mismatch::new(due, "other bytes")));
            };
            rest = after;
            sink(entry).map_err(|why| {
                self.damage(Mismatch::new(
                    format!("an entry of section {section:?} that fits"),
                    why,
                ))
            })?;
        }
        if !rest.is_empty() {
            let due = format!("{} entries", block.entries);
            return Err(self.damage(Mismatch::new(due, "bytes behind them")));
        }
        self.counts[usize::from(block.section) - 1] += u64::from(block.entries);
        Ok(())
    }

    fn check_end(&self, header: &Header, payload: &[u8]) -> Result<(), Damage> {
        let due = End {
            seq: header.seq,
            entries: self.counts.clone(),
        };
        let found = postcard::take_from_bytes::<End>(payload).ok();
        match found {
            Some((end, [])) if end == due => Ok(()),
            other => Err(self.damage(Mismatch::new(
                format!("an end that says {due:?}"),
                other.map_or_else(|| "other bytes".into(), |(end, _)| format!("{end:?}")),
            ))),
        }
    }

    fn damage(&self, mismatch: Mismatch) -> Damage {
        Damage {
            file: self.file.clone(),
            offset: self.at,
            mismatch,
        }
    }
}

/// Reads a checkpoint into a state.
#[derive(Clone, Debug)]
pub struct Loader {
    reader: Reader,
    state: State,
}

impl Loader {
    /// Of the file of this name, which has to be of this cluster.
    #[must_use]
    pub fn new(file: String, cluster: ClusterId) -> Self {
        let state = State {
            inodes: Map::default(),
            directories: 0,
            ..State::default()
        };
        Self {
            reader: Reader::new(file, cluster),
            state,
        }
    }
    /// Which record the checkpoint ends with, once its first page was read.
    #[must_use]
    pub fn seq(&self) -> Option<LogSeq> {
        self.reader.header().map(|header| header.seq)
    }

    /// Takes the next bytes of the file. `Some` when all of it was read: the state, and what it is.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn feed(&mut self, bytes: &[u8], more: More) -> Result<Option<(State, Summary)>, Damage> {
        let state = &mut self.state;
        let mut sink = |entry| put(state, entry);
        let Some(summary) = self.reader.feed(bytes, more, &mut sink)? else {
            return Ok(None);
        };
        let mut state = core::mem::take(&mut self.state);
        let Header {
            cluster,
            epoch,
            seq,
        } = summary.header;
        if state.epoch != epoch {
            let due = format!("epoch {epoch}, as its header says");
            let found = format!("epoch {}", state.epoch);
            return Err(self.reader.damage(Mismatch::new(due, found)));
        }
        (state.cluster, state.seq) = (cluster, seq);
        Ok(Some((state, summary)))
    }
}
