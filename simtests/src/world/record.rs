//! What is kept of a run: every operation for the oracles, every event's hash, and counts.
use crate::oracle::contents::{Contents, Last};
use crate::oracle::order::{Answer, Asked, Operation, Outcome};
use crate::oracle::replicas::Located;
use crate::oracle::{Tick, Violation};
use kfs_core::ids::{FileId, LogSeq};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Observers and the supervisor share it; there is one thread.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Record>>);

impl Shared {
    /// Of a run that begins.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self(Arc::new(Mutex::new(record)))
    }
    /// To look at it or add to it.
    pub fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct Record {
    tick: Tick,
    /// The newest state that any client was told of.
    newest: LogSeq,
    /// Over every input and output of every machine.
    pub hash: EventHash,
    trace: Option<BufWriter<File>>,
    /// Operations on the namespace, in the order of their calls.
    pub operations: Vec<Operation>,
    /// What was written.
    pub contents: Contents,
    /// Clients whose session ended, or may have, and the state from which on it may have.
    pub sessions_lost: BTreeMap<u32, LogSeq>,
    /// Where chunks are, as clients were last told.
    pub located: BTreeMap<(FileId, u64), (Located, Replicas)>,
    /// Who waits for the n-th acked change or sync.
    waiting: BTreeMap<u64, Vec<Arc<Notify>>>,
    /// Who waits for the n-th more message of a kind.
    listening: BTreeMap<&'static str, Vec<(u64, Arc<Notify>)>>,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// What happened.
    pub counts: Counts,
    /// Servers that said they are ready, since they last started.
    pub ready: BTreeSet<usize>,
    /// Rings when a server is ready.
    pub ready_bell: Arc<Notify>,
}

/// How many replicas of a chunk there are, as the meta server says.
#[derive(Clone, Copy, Debug)]
pub struct Replicas {
    /// To be read from.
    pub present: usize,
    /// Not to be had.
    pub absent: usize,
}

/// What happened in a run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Changes, syncs and closes that were acked.
    pub acked: u64,
    /// Questions and reads that were answered.
    pub answered: u64,
    /// Calls that the namespace refuses in the state they met.
    pub refused: u64,
    /// Calls that failed for another reason.
    pub failed: u64,
    /// Events of all machines.
    pub events: u64,
}

impl Record {
    /// Of a run that begins; its bytes carry this salt.
    #[must_use]
    pub fn new(salt: u64, trace: Option<File>) -> Self {
        Self {
            tick: 0,
            newest: LogSeq(0),
            hash: EventHash::default(),
            trace: trace.map(BufWriter::new),
            operations: Vec::new(),
            contents: Contents::new(salt),
            sessions_lost: BTreeMap::new(),
            located: BTreeMap::new(),
            waiting: BTreeMap::new(),
            listening: BTreeMap::new(),
            violation: None,
            counts: Counts::default(),
            ready: BTreeSet::new(),
            ready_bell: Arc::new(Notify::new()),
        }
    }

    /// A new moment, after all earlier ones.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// An event of a machine.
    pub fn event(&mut self, text: impl FnOnce() -> String) {
        self.counts.events += 1;
        if let Some(trace) = &mut self.trace {
            // A trace that cannot be written is noticed by its reader.
            let _ = writeln!(trace, "{}", text());
        }
    }

    /// A line for the reader of a trace.
    pub fn remark(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", text());
        }
    }

    /// A client calls; gives the operation's number.
    pub fn called(&mut self, client: u32, asked: Asked) -> usize {
        let called = self.tick();
        self.operations.push(Operation {
            client,
            asked,
            called,
            floor: self.newest,
            answer: None,
        });
        self.operations.len() - 1
    }

    /// A client is told.
    pub fn told(&mut self, operation: usize, seq: Option<LogSeq>, outcome: Outcome) {
        let told = self.tick();
        if let Some(seq) = seq {
            self.newest = self.newest.max(seq);
        }
        let acked = matches!(outcome, Outcome::Changed(_));
        self.operations[operation].answer = Some(Answer { told, seq, outcome });
        if acked {
            self.acked();
        }
    }

    /// A sync or a close is acked.
    pub fn synced(&mut self, file: FileId, called: Tick, last: Last) {
        let acked = self.tick();
        let result = self.contents.acked(file, called, acked, last);
        self.check(result);
        self.acked();
    }

    fn acked(&mut self) {
        self.counts.acked += 1;
        if let Some(bells) = self.waiting.remove(&self.counts.acked) {
            for bell in bells {
                bell.notify_one();
            }
        }
    }

    /// A client's session ends from now on, at some time.
    pub fn session_ends(&mut self, client: u32) {
        let newest = self.newest;
        self.sessions_lost.entry(client).or_insert(newest);
    }

    /// A client's session turned out to have ended at some time.
    pub fn session_ended(&mut self, client: u32) {
        self.sessions_lost.insert(client, LogSeq(0));
    }

    /// Rings when so many acks have been given.
    pub fn at_ack(&mut self, nth: u64, bell: Arc<Notify>) {
        self.waiting.entry(nth).or_default().push(bell);
    }

    /// Rings when so many more messages of this kind were sent.
    pub fn at_message(&mut self, kind: &'static str, nth: u64, bell: Arc<Notify>) {
        self.listening.entry(kind).or_default().push((nth, bell));
    }

    /// A machine sends a message.
    pub fn sent(&mut self, kind: &'static str) {
        if let Some(listeners) = self.listening.get_mut(kind) {
            listeners.retain_mut(|(left, bell)| {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    bell.notify_one();
                }
                *left > 0
            });
        }
    }

    /// Keeps the first violation.
    pub fn check<T>(&mut self, result: Result<T, Violation>) {
        if let Err(violation) = result {
            self.remark(|| format!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    /// Ends the trace.
    pub fn finish(&mut self) {
        if let Some(trace) = &mut self.trace {
            let _ = trace.flush();
        }
    }
}

/// A running hash of 64 bits, eight bytes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EventHash(pub u64);

impl EventHash {
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
