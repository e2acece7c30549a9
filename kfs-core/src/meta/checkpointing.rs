//! Checkpoints made while the meta server serves, and what they let go of.
//!
//! A copy of the state is taken, which costs next to nothing, and written block by block beside everything else:
//! one block is taken apart in each turn. The file has another name until it was synced, read back and found to be
//! what was written, and until the log is durable as far as it goes. Then old checkpoints go, at least two stay, and
//! the log is kept from the older of those on. Nothing that fails here harms the log, or stops the server: what was
//! begun is taken away, and is tried again later.
use super::checkpoint::format::{COMPACTING, DIR, UNFINISHED, checkpoint_name};
use super::checkpoint::{Reader, Summary, Writer};
use super::commit::{Segments, log_file};
use super::mirror::Copies;
use super::oplog::{More, segment_name};
use super::state::State;
use crate::buggify::{self, Site};
use crate::ids::{ClusterId, LogSeq, Ticket};
use crate::machine::{DiskDone, DiskError, DiskOp, DiskResult, FileName, SyncMode};
use crate::outbox::Outbox;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::time::Instant;
use crate::wire::client_meta::{CheckpointAge, CheckpointStatus};
use bytes::Bytes;
use core::time::Duration;
use std::collections::VecDeque;

/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Segments of the log behind the newest checkpoint after which the next one is due, however little time has passed:
/// a start reads them all.
const SEGMENTS_DUE: usize = 16;
/// After one that failed, the next is tried.
const RETRY: Duration = Duration::from_secs(60);
/// Bytes that are read back at once: nobody is answered while they are looked at.
const READ_BYTES: usize = 64 << 10;
/// Nodes of the state that was written that are let go of with each of them: it is gone before all is read back.
const SHED_AT_ONCE: usize = 32;

/// Who makes them. What is not finished has a name of each of the two, so that neither takes the file away that the
/// other one is writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Maker {
    Server,
    Compactor,
}

impl Maker {
    fn unfinished(self, seq: LogSeq) -> FileName {
        let end = match self {
            Self::Server => UNFINISHED,
            Self::Compactor => COMPACTING,
        };
        FileName::new(&format!("{DIR}/{}{end}", checkpoint_name(seq)))
    }
}

/// The checkpoints of a meta server that serves.
#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    cluster: ClusterId,
    maker: Maker,
    every: Option<Duration>,
    /// Of the log: what two checkpoints stand for goes from each.
    copies: Copies,
    /// On the disk, and whole, oldest first.
    kept: Vec<LogSeq>,
    /// Of the newest of them.
    since: Since,
    due: Option<Instant>,
    /// How many segments the log had when the last one was begun.
    segments: usize,
    making: Option<Making>,
    /// Why the last one that was begun is not there.
    failed: Option<String>,
}

/// From when on the age of a checkpoint is counted.
#[derive(Clone, Copy, Debug)]
enum Since {
    /// It was there at this start; what is in it is older.
    Start(Instant),
    /// The state in it was that of this instant.
    State(Instant),
}

/// A checkpoint that is being made.
#[derive(Clone, Debug)]
struct Making {
    seq: LogSeq,
    /// When its state was the one there was.
    begun: Instant,
    /// `None` while it waits for the log.
    ticket: Option<Ticket>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    MakingDir(Writer),
    NamingDir(Writer),
    Creating(Writer),
    Writing {
        writer: Writer,
        at: u64,
    },
    Syncing {
        hash: u64,
        old: State,
    },
    Reading {
        hash: u64,
        reader: Reader,
        at: u64,
        /// What was written. What is nobody else's any more is let go of bit by bit.
        old: State,
    },
    /// Until the log is durable that far.
    Waiting(Summary),
    Renaming(Summary),
    Naming(Summary),
    /// Old checkpoints and segments go, one after the other.
    Pruning(VecDeque<DiskOp>),
    /// It failed, and is taken away.
    Removing,
}

/// How making a checkpoint has ended.
pub(super) type Made = Result<Summary, String>;

impl Checkpoints {
    pub(super) fn new(
        (cluster, maker): (ClusterId, Maker),
        every: Option<Duration>,
        copies: Copies,
        kept: Vec<LogSeq>,
        now: Instant,
    ) -> Self {
        Self {
            cluster,
            maker,
            every,
            copies,
            kept,
            since: Since::Start(now),
            due: every.map(|every| now + every),
            segments: 0,
            making: None,
            failed: None,
        }
    }
    /// The newest one.
    pub(super) fn newest(&self) -> Option<LogSeq> {
        self.kept.last().copied()
    }
    /// From this record on the log is kept: two checkpoints stand for what is before it. `None`: all of it is.
    pub(super) fn log_from(&self) -> Option<LogSeq> {
        let older = self.kept.len().checked_sub(KEPT)?;
        Some(self.kept[older].next())
    }
    /// Whether one is being made, or what it replaces is being taken away.
    pub(super) const fn is_making(&self) -> bool {
        self.making.is_some()
    }
    /// For who asks how the cluster is.
    pub(super) fn status(&self, now: Instant) -> CheckpointStatus {
        let newest = self.newest();
        let age = match self.since {
            Since::Start(at) => CheckpointAge::Over(now.since(at)),
            Since::State(at) => CheckpointAge::Exactly(now.since(at)),
        };
        CheckpointStatus {
            newest,
            age: newest.map(|_| age),
            failed: self.failed.clone(),
        }
    }
    /// When [`Checkpoints::tick`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.making.is_none())
    }
    pub(super) fn owns(&self, ticket: Ticket) -> bool {
        let making = self.making.as_ref();
        making.is_some_and(|making| making.ticket == Some(ticket))
    }

    /// Begins one if it is due.
    pub(super) fn tick<E>(
        &mut self,
        now: Instant,
        state: &State,
        segments: &Segments,
        outbox: &mut Outbox<E>,
    ) {
        let by_time = self.due.is_some_and(|due| due <= now);
        let by_length = self.every.is_some() && segments.0.len() >= self.segments + SEGMENTS_DUE;
        let pushed = self.every.is_some()
            && self
                .newest()
                .is_none_or(|newest| newest.0 + 8 <= state.seq.0)
            && buggify::is(Site::CheckpointAtOnce);
        if self.making.is_none() && (by_time || by_length || pushed) {
            self.begin(now, state, segments, outbox);
        }
    }

    /// Begins one now; `false` if the newest one has everything, or one is being made.
    pub(super) fn begin<E>(
        &mut self,
        now: Instant,
        state: &State,
        segments: &Segments,
        outbox: &mut Outbox<E>,
    ) -> bool {
        self.due = self.every.map(|every| now + every);
        if self.making.is_some() || self.newest() == Some(state.seq) {
            return false;
        }
        self.segments = segments.0.len();
        let writer = Writer::new(state.clone());
        let ticket = Some(outbox.disk(DiskOp::MakeDir {
            dir: FileName::new(DIR),
        }));
        self.making = Some(Making {
            seq: state.seq,
            begun: now,
            ticket,
            step: Step::MakingDir(writer),
        });
        true
    }

    /// The log is durable that far: a checkpoint that waited for it gets its name.
    pub(super) fn durable<E>(&mut self, durable: LogSeq, outbox: &mut Outbox<E>) {
        let Some(making) = &mut self.making else {
            return;
        };
        if let Step::Waiting(summary) = making.step
            && making.seq <= durable
        {
            making.ticket = Some(outbox.disk(DiskOp::Rename {
                from: self.maker.unfinished(making.seq),
                to: finished(making.seq),
            }));
            making.step = Step::Renaming(summary);
        }
    }

    /// Takes the completion of an operation of a checkpoint. `Some` when it is made, or has failed.
    pub(super) fn completed<E>(
        &mut self,
        now: Instant,
        result: DiskResult,
        (durable, segments): (LogSeq, &mut Segments),
        outbox: &mut Outbox<E>,
    ) -> Option<Made> {
        let making = self.making.take().expect("the ticket was its");
        let Making {
            seq, begun, step, ..
        } = making;
        let done = match (step, result) {
            // What is there already, or is gone already, is fine.
            (Step::Removing, _) => return None,
            (Step::Pruning(ops), Ok(_) | Err(DiskError::NotFound)) => {
                self.prune((seq, begun), ops, outbox);
                return None;
            }
            (Step::Pruning(_), Err(error)) => {
                tracing::warn!(%error, "an old checkpoint or segment of the log cannot be removed; it stays");
                return None;
            }
            (step, Ok(done)) => self.go_on((seq, begun), step, done, (durable, segments), outbox),
            (step, Err(error)) => Err(format!("{}: {error}", described(&step))),
        };
        match done {
            Ok(made) => made.map(Ok),
            Err(why) => {
                probe::hit(Probe::CheckpointFailed);
                tracing::warn!(%seq, why, "a checkpoint could not be made; the log is not touched by that");
                self.due = self.every.map(|_| now + RETRY);
                self.failed = Some(why.clone());
                let ticket = Some(outbox.disk(DiskOp::Remove {
                    file: self.maker.unfinished(seq),
                }));
                self.making = Some(Making {
                    seq,
                    begun,
                    ticket,
                    step: Step::Removing,
                });
                Some(Err(why))
            }
        }
    }

    fn go_on<E>(
        &mut self,
        (seq, begun): (LogSeq, Instant),
        step: Step,
        done: DiskDone,
        (durable, segments): (LogSeq, &mut Segments),
        outbox: &mut Outbox<E>,
    ) -> Result<Option<Summary>, String> {
        let file = self.maker.unfinished(seq);
        let (op, step) = match step {
            Step::MakingDir(writer) => {
                let dir = FileName::new("");
                let op = synced(dir, Bug::CheckpointDirUnnamed);
                (op, Step::NamingDir(writer))
            }
            Step::NamingDir(writer) => (DiskOp::Create { file, zeroed: 0 }, Step::Creating(writer)),
            Step::Creating(writer) => write(file, writer, 0),
            Step::Writing { writer, at } => write(file, writer, at),
            Step::Syncing { hash, old } => {
                let reader = Reader::new(finished(seq).to_string(), self.cluster);
                (
                    read(file, 0),
                    Step::Reading {
                        hash,
                        reader,
                        at: 0,
                        old,
                    },
                )
            }
            Step::Reading {
                hash,
                mut reader,
                at,
                mut old,
            } => {
                let DiskDone::Data(bytes) = done else {
                    panic!("a read gives data")
                };
                let more = if bytes.len() < READ_BYTES {
                    More::Ends
                } else {
                    More::Follows
                };
                let summary = reader
                    .feed(&bytes, more, &mut |_| Ok(()))
                    .map_err(|damage| {
                        format!("what was read back is not what was written: {damage}")
                    })?;
                match summary {
                    None => {
                        let at = at + bytes.len() as u64;
                        old.shed(SHED_AT_ONCE);
                        let step = Step::Reading {
                            hash,
                            reader,
                            at,
                            old,
                        };
                        (read(file, at), step)
                    }
                    Some(summary) if summary.hash == hash => {
                        self.making = Some(Making {
                            seq,
                            begun,
                            ticket: None,
                            step: Step::Waiting(summary),
                        });
                        self.durable(durable, outbox);
                        return Ok(None);
                    }
                    Some(_) => return Err("what was read back has another hash".into()),
                }
            }
            Step::Renaming(summary) => {
                let dir = FileName::new(DIR);
                let op = synced(dir, Bug::CheckpointUnnamed);
                (op, Step::Naming(summary))
            }
            Step::Naming(summary) => {
                self.made((seq, begun), segments, outbox);
                return Ok(Some(summary));
            }
            Step::Waiting(_) | Step::Pruning(_) | Step::Removing => {
                unreachable!("no operation of this step is under way")
            }
        };
        let ticket = Some(outbox.disk(op));
        self.making = Some(Making {
            seq,
            begun,
            ticket,
            step,
        });
        Ok(None)
    }

    /// It has its name, durably: what it stands for may go.
    fn made<E>(
        &mut self,
        (seq, begun): (LogSeq, Instant),
        segments: &mut Segments,
        outbox: &mut Outbox<E>,
    ) {
        probe::hit(Probe::CheckpointMade);
        self.failed = None;
        self.kept.push(seq);
        self.since = Since::State(begun);
        let mut ops = VecDeque::new();
        let old = self.kept.len().saturating_sub(KEPT);
        for seq in self.kept.drain(..old) {
            ops.push_back(DiskOp::Remove {
                file: finished(seq),
            });
        }
        if old > 0 {
            ops.push_back(DiskOp::SyncDir {
                dir: FileName::new(DIR),
            });
        }
        // With one checkpoint only, all of the log stands for the other.
        if self.kept.len() == KEPT || planted::is(Bug::LogPrunedByNewest) {
            let from = if planted::is(Bug::LogPrunedByNewest) {
                seq
            } else {
                self.kept[0]
            };
            let gone = segments.forget_before(from.next());
            if !gone.is_empty() {
                probe::hit(Probe::LogPruned);
            }
            // Either copy has all that is needed whenever this ends; the mirror never has less than the log.
            for side in self.copies.sides() {
                for first in &gone {
                    let file = log_file(*side, &segment_name(*first));
                    ops.push_back(DiskOp::Remove { file });
                }
            }
        }
        self.prune((seq, begun), ops, outbox);
    }

    fn prune<E>(
        &mut self,
        (seq, begun): (LogSeq, Instant),
        mut ops: VecDeque<DiskOp>,
        outbox: &mut Outbox<E>,
    ) {
        if let Some(op) = ops.pop_front() {
            let ticket = Some(outbox.disk(op));
            let step = Step::Pruning(ops);
            self.making = Some(Making {
                seq,
                begun,
                ticket,
                step,
            });
        }
    }
}

/// Makes the names in a directory durable, unless this is planted.
fn synced(dir: FileName, bug: Bug) -> DiskOp {
    if planted::is(bug) {
        return DiskOp::Space;
    }
    DiskOp::SyncDir { dir }
}

/// The next bytes, or the sync that follows them.
fn write(file: FileName, mut writer: Writer, at: u64) -> (DiskOp, Step) {
    let Some(bytes) = writer.next_bytes() else {
        let hash = writer.hash();
        let old = writer.into_state();
        if planted::is(Bug::CheckpointUnsynced) {
            return (DiskOp::Space, Step::Syncing { hash, old });
        }
        return (DiskOp::Sync { file }, Step::Syncing { hash, old });
    };
    let len = bytes.len() as u64;
    let op = DiskOp::Write {
        file,
        offset: at,
        data: vec![Bytes::from(bytes)],
        sync: SyncMode::Later,
    };
    let at = at + len;
    (op, Step::Writing { writer, at })
}

fn read(file: FileName, offset: u64) -> DiskOp {
    DiskOp::Read {
        file,
        offset,
        len: READ_BYTES,
    }
}

pub(super) fn finished(seq: LogSeq) -> FileName {
    FileName::new(&format!("{DIR}/{}", checkpoint_name(seq)))
}

const fn described(step: &Step) -> &'static str {
    match step {
        Step::MakingDir(_) | Step::NamingDir(_) => "cannot make the directory of checkpoints",
        Step::Creating(_) => "cannot create its file",
        Step::Writing { .. } => "cannot write its file",
        Step::Syncing { .. } => "cannot sync its file",
        Step::Reading { .. } => "cannot read its file back",
        Step::Renaming(_) => "cannot name its file",
        Step::Naming(_) => "cannot sync the directory of checkpoints",
        Step::Waiting(_) | Step::Pruning(_) | Step::Removing => "cannot end it",
    }
}
