//! A machine told again what it was told, to see whether it does the same.
//!
//! It reads no file: whoever has the bytes feeds them. The outputs of an input are compared when the next
//! entry is there, which holds their hash; so a trace that breaks off leaves those of its last input unseen.
use super::{
    Configuration, Entry, EntryKind, EventHash, Header, Reader, TraceError, TracedMachine,
};
use crate::chunk::Chunk;
use crate::client::Client;
use crate::machine::{Input, Output};
use crate::meta::Meta;
use crate::time::Now;
use core::fmt;

/// The most characters of an input or an output in words.
const WORDS_MAX: usize = 600;
/// The most outputs that a difference shows.
const SHOWN_MAX: usize = 16;

/// A replay under way.
#[derive(Default)]
pub struct Replay {
    reader: Reader,
    header: Option<Header>,
    machine: Option<Box<dyn Retold>>,
    /// Inputs whose outputs were found the same.
    same: u64,
    difference: Option<Difference>,
}

/// How a whole replay ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// Every input gave the outputs that it gave when it was recorded.
    Same {
        /// How many there were.
        inputs: u64,
        /// The hash of all inputs and outputs.
        hash: u64,
    },
    /// One did not.
    Differs(Difference),
}

/// The first input that gave other outputs than when it was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Which, counted from 1.
    pub input: u64,
    /// Where its entry begins, in bytes.
    pub offset: u64,
    /// When it was.
    pub now: Now,
    /// What it was, in words.
    pub words: String,
    /// The hash of all outputs up to then, as recorded.
    pub recorded: u64,
    /// The same, as replayed.
    pub replayed: u64,
    /// What it gave in the replay, in words.
    pub outputs: Vec<String>,
}

impl Replay {
    /// The next bytes of the trace, in pieces of any length. After a difference nothing more is done with them.
    ///
    /// # Errors
    /// If they are no trace.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        if self.difference.is_some() {
            return Ok(());
        }
        self.reader.feed(bytes);
        if let Some(header) = self.reader.header()? {
            self.machine = Some(match header.configuration.clone() {
                Configuration::Meta(config) => Box::new(Telling::<Meta>::of(config)),
                Configuration::Chunk(config) => Box::new(Telling::<Chunk>::of(config)),
                Configuration::Client(config) => Box::new(Telling::<Client>::of(config)),
            });
            self.header = Some(header);
        }
        while self.difference.is_none()
            && let Some(machine) = &mut self.machine
            && let Some(entry) = self.reader.entry()?
        {
            self.difference = machine.compare(&entry)?;
            if self.difference.is_none() {
                self.same = entry.number - 1;
                if entry.kind != EntryKind::End {
                    machine.tell(entry)?;
                }
            }
        }
        Ok(())
    }
    /// What the trace begins with, when that was read.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }
    /// So many inputs gave the same outputs so far.
    #[must_use]
    pub const fn same(&self) -> u64 {
        self.same
    }
    /// Whether there is no need for more bytes.
    #[must_use]
    pub const fn differs(&self) -> bool {
        self.difference.is_some()
    }
    /// Nothing more comes.
    ///
    /// # Errors
    /// If the trace has not come to its end, and nothing differed before.
    pub fn finish(self) -> Result<Replayed, TraceError> {
        if let Some(difference) = self.difference {
            return Ok(Replayed::Differs(difference));
        }
        self.reader.finish()?;
        let hash = self.machine.map_or(0, |machine| machine.hash());
        Ok(Replayed::Same {
            inputs: self.same,
            hash,
        })
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("header", &self.header)
            .field("same", &self.same)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            input,
            offset,
            now,
            words,
            recorded,
            replayed,
            outputs,
        } = self;
        writeln!(f, "input {input} (offset {offset}) gives other outputs")?;
        writeln!(f, "  when      {:?}, {} ns", now.wall, now.mono.0)?;
        writeln!(f, "  input     {words}")?;
        writeln!(f, "  recorded  {recorded:016x}")?;
        write!(f, "  replayed  {replayed:016x}")?;
        for output in outputs.iter().take(SHOWN_MAX) {
            write!(f, "\n            {output}")?;
        }
        if let Some(more) = outputs.len().checked_sub(SHOWN_MAX + 1) {
            write!(f, "\n            and {} more", more + 1)?;
        }
        Ok(())
    }
}

/// A machine of any kind that is told things again.
trait Retold {
    /// Compares what the inputs so far gave with what this entry says they gave.
    fn compare(&self, entry: &Entry) -> Result<Option<Difference>, TraceError>;
    /// Hands it the input of this entry.
    fn tell(&mut self, entry: Entry) -> Result<(), TraceError>;
    /// The hash of all inputs and outputs.
    fn hash(&self) -> u64;
}

struct Telling<M: TracedMachine> {
    machine: M,
    outputs: EventHash,
    events: EventHash,
    /// The newest input, and what it gave.
    last: Option<(Entry, Vec<Output<M::Event>>)>,
}

impl<M: TracedMachine> Telling<M> {
    fn of(config: M::Config) -> Self {
        Self {
            machine: M::configured(config),
            outputs: EventHash::default(),
            events: EventHash::default(),
            last: None,
        }
    }
}

impl<M: TracedMachine> Retold for Telling<M> {
    fn compare(&self, entry: &Entry) -> Result<Option<Difference>, TraceError> {
        if entry.outputs == self.outputs.value() {
            return Ok(None);
        }
        let Some((input, outputs)) = &self.last else {
            return Err(entry.damaged("it says that there were outputs before any input"));
        };
        let input_words: Input<M::Call> = input.input()?;
        Ok(Some(Difference {
            input: input.number,
            offset: input.offset,
            now: input.now,
            words: words(&input_words),
            recorded: entry.outputs,
            replayed: self.outputs.value(),
            outputs: outputs.iter().map(words).collect(),
        }))
    }
    fn tell(&mut self, entry: Entry) -> Result<(), TraceError> {
        let input = entry.input()?;
        self.events.hash_input(entry.now, &input);
        self.machine.handle(entry.now, input);
        let mut outputs = match self.last.take() {
            Some((_, mut outputs)) => {
                outputs.clear();
                outputs
            }
            None => Vec::new(),
        };
        while let Some(output) = self.machine.poll() {
            self.outputs.hash_output(&output);
            outputs.push(output);
        }
        self.events.word(self.outputs.value());
        self.last = Some((entry, outputs));
        Ok(())
    }
    fn hash(&self) -> u64 {
        self.events.value()
    }
}

/// As one line.
fn words(value: &impl fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(WORDS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
