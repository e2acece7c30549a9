//! What is kept of a run: every operation for the oracles, every event's hash, and counts.
//!
//! A value: a simulation that is forked takes a copy along.
use super::overseer::{Overseen, Overseer, Whose};
use super::telling::Telling;
use crate::disk::DiskModel;
use crate::fault::Fault;
use crate::oracle::contents::{Contents, CutId, Last, Tenure};
use crate::oracle::order::{Answer, Asked, Operation, Outcome};
use crate::oracle::replicas::Located;
use crate::oracle::{Tick, Violation};
use crate::outcome::{self, Totals};
use crate::schedule::{Class, Schedule};
use kfs_core::ids::{FileId, LogSeq};
use kfs_core::machine::{Input, Output};
use kfs_core::meta::record::Logged;
use kfs_core::time::Now;
use kfs_core::trace::{EventHash, TracedCall, TracedEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Clone, Debug)]
pub struct Record {
    tick: Tick,
    /// The newest state that any client was told of.
    newest: LogSeq,
    /// Over every input and output of every machine.
    pub hash: EventHash,
    trace: Option<Arc<Mutex<BufWriter<File>>>>,
    /// What is told of the run, if anybody wants to know.
    pub telling: Option<Box<Telling>>,
    /// Who looks at the machines, if anybody does.
    pub overseer: Option<Box<Overseer>>,
    /// Simulated time, in nanoseconds, as far as it is told.
    pub now_ns: u64,
    /// Operations on the namespace, in the order of their calls.
    pub operations: Vec<Operation>,
    /// What was written.
    pub contents: Contents,
    /// Clients whose session ended, or may have, and the state from which on it may have.
    pub sessions_lost: BTreeMap<u32, LogSeq>,
    /// Where chunks are, as clients were last told.
    pub located: BTreeMap<(FileId, u64), (Located, Replicas)>,
    /// Files that were cut, and since which state: what is said of their chunks in an older one says nothing of now.
    /// `None`: they may have been, and nobody knows since when.
    cut: BTreeMap<FileId, Option<LogSeq>>,
    watches: Vec<(Watch, WatchId)>,
    fired: Vec<WatchId>,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// When it was broken.
    broken_ns: Option<u64>,
    /// What happened.
    pub counts: Counts,
    /// Servers that said they are ready, since they last started.
    pub ready: BTreeSet<usize>,
    /// Bytes on disks that were what their writer wrote.
    pub verified_on_disk: u64,
}

/// Something that may be waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watch {
    /// The n-th ack of a change or a sync.
    Ack(u64),
    /// So many more messages of this kind.
    Message(String, u64),
    /// A server says that it is ready.
    Ready,
}

/// Who waits for something.
pub type WatchId = u64;

/// How many replicas of a chunk there are, as the meta server says.
#[derive(Clone, Copy, Debug)]
pub struct Replicas {
    /// To be read from.
    pub present: usize,
    /// Not to be had.
    pub absent: usize,
}

/// Which disks of chunkservers were hurt in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hurt {
    /// None.
    Nobody,
    /// Some of them.
    Some,
    /// All of them, one after the other.
    Everybody,
}

impl Hurt {
    /// So many chunkservers were hurt in a run of this setup.
    #[must_use]
    pub const fn of(hurt: usize, setup: &Schedule) -> Self {
        match hurt {
            0 => Self::Nobody,
            all if all + 1 >= setup.servers => Self::Everybody,
            _ => Self::Some,
        }
    }
}

impl Replicas {
    /// Whether so many, found on disks that were not hurt, are as many as they must be. Those above what a file asks
    /// for may have gone since.
    #[must_use]
    pub fn is_enough(self, held: usize, hurt: Hurt, of: &Schedule) -> bool {
        let needed = self.present.min(usize::from(of.replication));
        match (hurt, of.class) {
            (Hurt::Nobody, _) => self.absent == 0 && held >= needed,
            (Hurt::Some, Class::Live | Class::Clean) => held > 0,
            // Who reads everything in the end sees what they hold.
            (Hurt::Everybody, _) | (Hurt::Some, Class::Safe) => true,
        }
    }
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
    /// Histories of operations for which no order was found and none was ruled out.
    pub undecided: u64,
    /// Pairs of replicas at rest that had to be equal, and were.
    pub replicas_equal: u64,
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
            trace: trace.map(|file| Arc::new(Mutex::new(BufWriter::new(file)))),
            telling: None,
            overseer: None,
            now_ns: 0,
            operations: Vec::new(),
            contents: Contents::new(salt),
            sessions_lost: BTreeMap::new(),
            located: BTreeMap::new(),
            cut: BTreeMap::new(),
            watches: Vec::new(),
            fired: Vec::new(),
            violation: None,
            broken_ns: None,
            counts: Counts::default(),
            ready: BTreeSet::new(),
            verified_on_disk: 0,
        }
    }

    /// A new moment, after all earlier ones.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// Something goes into the machine of this name.
    pub fn input<C: Debug + TracedCall>(&mut self, now: Now, name: &str, input: &Input<C>) {
        self.hash.bytes(name.as_bytes());
        self.hash.hash_input(now, input);
        self.counts.events += 1;
        self.remark(|| format!("{:?} {name} <- {}", now.wall, shorten(input, LINE_MAX)));
        if let Some(telling) = &mut self.telling {
            telling.input(self.now_ns, name, input);
        }
    }

    /// Something comes out of the machine of this name.
    pub fn output<E: Debug + TracedEvent>(&mut self, name: &str, output: &Output<E>) {
        self.hash.hash_output(output);
        self.counts.events += 1;
        self.remark(|| format!("    {name} -> {}", shorten(output, LINE_MAX)));
        if let Output::Send { msg, .. } = output {
            let kind = msg.head.name();
            self.sent(kind);
        }
        if let Some(telling) = &mut self.telling {
            telling.output(self.now_ns, name, output);
        }
    }

    /// A machine is about to take this.
    pub fn oversee_input<M: Overseen>(
        &mut self,
        whose: Whose<'_>,
        now: Now,
        input: &Input<M::Call>,
    ) {
        self.oversee(|overseer, _| M::takes(overseer, whose, now, input));
    }

    /// A machine wants this.
    pub fn oversee_output<M: Overseen>(
        &mut self,
        whose: Whose<'_>,
        now: Now,
        machine: &M,
        output: &Output<M::Event>,
    ) {
        self.oversee(|overseer, at| machine.wants(overseer, whose, (now, at), output));
    }

    /// A machine wants nothing more.
    pub fn oversee_rest<M: Overseen>(&mut self, whose: Whose<'_>, machine: &M) {
        self.oversee(|overseer, _| machine.rests(overseer, whose));
    }

    /// A server's process starts on this disk.
    pub fn server_starts(&mut self, server: usize, disk: &DiskModel) {
        let server = u32::try_from(server).expect("a run has few servers");
        self.oversee(|overseer, _| overseer.starts(server, disk));
    }

    /// A fault has struck: what follows from it is no breach of a promise.
    pub fn struck(&mut self, fault: &Fault, ails: &[usize], hurts: &[usize]) {
        self.contents.log_hurt |= hurts.contains(&0);
        for server in ails {
            self.disk_hurt(*server);
        }
        if let (Some(overseer), true) = (&mut self.overseer, ails.contains(&0)) {
            overseer.log_at_fault();
            match fault {
                Fault::Spoil(..) => overseer.log_damaged(self.now_ns),
                _ if hurts.contains(&0) => overseer.log_lost(),
                _ => {}
            }
        }
    }

    /// The meta server's disk has what a backup with these records had, and is whole.
    pub fn log_restored(&mut self, records: &[Logged]) {
        if let Some(overseer) = &mut self.overseer {
            overseer.log_restored(records);
        }
    }

    /// Whether the meta server has what a backup had, and no reason to stop.
    #[must_use]
    pub fn log_is_restored(&self) -> bool {
        let overseer = self.overseer.as_ref();
        overseer.is_some_and(|overseer| overseer.log_is_restored())
    }

    /// How far the meta server's log was durable before its last batch.
    #[must_use]
    pub fn log_settled(&self) -> LogSeq {
        let overseer = self.overseer.as_ref();
        overseer.map_or(LogSeq(0), |overseer| overseer.log_settled())
    }

    /// A server's disk fails, or is changed behind its back.
    pub fn disk_hurt(&mut self, server: usize) {
        if let Some(overseer) = &mut self.overseer {
            overseer.hurt(u32::try_from(server).expect("a run has few servers"));
        }
    }

    fn oversee(&mut self, look: impl FnOnce(&mut Overseer, Tick) -> Result<(), Violation>) {
        if let Some(overseer) = &mut self.overseer {
            let seen = look(overseer, self.now_ns);
            self.check(seen);
        }
    }

    /// A line for the reader of a trace.
    pub fn remark(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
            // A trace that cannot be written is noticed by its reader.
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
    pub fn synced(&mut self, file: (FileId, Tenure), called: Tick, last: Last) {
        let acked = self.tick();
        let result = self.contents.acked(file, called, acked, last);
        self.check(result);
        self.acked();
    }

    /// A client asks for a file to be cut.
    pub fn cut_begins(&mut self, file: FileId) {
        self.located.retain(|(of, _), _| *of != file);
        self.cut.insert(file, None);
    }

    /// The meta server says since when it is.
    pub fn cut_ends(&mut self, file: FileId, seq: LogSeq) {
        self.cut.insert(file, Some(seq));
    }

    /// Whether what is said of a file's chunks in this state was not cut off since.
    #[must_use]
    pub fn is_uncut(&self, file: FileId, seq: LogSeq) -> bool {
        self.cut
            .get(&file)
            .is_none_or(|since| since.is_some_and(|since| seq >= since))
    }

    /// A cut is acked.
    pub fn cut(&mut self, file: FileId, cut: CutId) {
        let acked = self.tick();
        self.contents.cut_acked(file, cut, acked);
        self.acked();
    }

    fn acked(&mut self) {
        self.counts.acked += 1;
        let acked = self.counts.acked;
        self.fire(|watch| matches!(watch, Watch::Ack(nth) if *nth <= acked));
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

    /// Waits for something; when it happens, [`Self::take_fired`] says so, once.
    pub fn watch(&mut self, watch: Watch, id: WatchId) {
        self.watches.push((watch, id));
    }

    /// Those whose wait is over.
    #[must_use]
    pub fn take_fired(&mut self) -> Vec<WatchId> {
        std::mem::take(&mut self.fired)
    }

    /// Whether the wait of anybody is over.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        !self.fired.is_empty()
    }

    fn sent(&mut self, kind: &str) {
        if self.watches.is_empty() {
            return;
        }
        for (watch, _) in &mut self.watches {
            if let Watch::Message(awaited, left) = watch
                && awaited == kind
            {
                *left = left.saturating_sub(1);
            }
        }
        self.fire(|watch| matches!(watch, Watch::Message(_, 0)));
    }

    /// A server says that it is ready.
    pub fn server_ready(&mut self, server: usize) {
        self.ready.insert(server);
        self.fire(|watch| *watch == Watch::Ready);
    }

    fn fire(&mut self, due: impl Fn(&Watch) -> bool) {
        let fired = self.watches.extract_if(.., |(watch, _)| due(watch));
        self.fired.extend(fired.map(|(_, id)| id));
    }

    /// Keeps the first violation.
    pub fn check<T>(&mut self, result: Result<T, Violation>) {
        if let Err(violation) = result {
            self.remark(|| format!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
            self.broken_ns.get_or_insert(self.now_ns);
        }
    }

    /// The run is over: what came of it.
    pub fn finish(&mut self, mut totals: Totals) -> outcome::Outcome {
        if let Some(overseer) = &self.overseer {
            totals.judged = overseer.judged().by_oracle().collect();
        }
        if let Some(trace) = self.trace.take() {
            let _ = trace.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
        outcome::Outcome {
            violation: self.violation.take(),
            hash: self.hash.value(),
            totals,
            told: self.telling.take(),
            ended_ns: self.broken_ns.unwrap_or(self.now_ns),
        }
    }
}

/// Characters of one line of a trace.
const LINE_MAX: usize = 600;

/// As much of a value's text.
pub(super) fn shorten(value: &impl Debug, most: usize) -> String {
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}
