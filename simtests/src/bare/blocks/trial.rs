//! One damage tried on a copy of a story at rest: who notices it, what is still read, what is told of it.
//!
//! Reading everything proves that the damage costs nobody a byte. That the damaged replica itself gives no wrong
//! byte is proved by reading it alone: the bytes of the others cannot be read meanwhile.
use super::super::net::NodeId;
use super::super::process::Process;
use super::super::run;
use super::super::sim::Sim;
use super::Story;
use super::case::{Case, How, bytes};
use crate::disk::DiskModel;
use crate::disk::faults::{Access, Aim, Block, Damage, DiskFault, Errno, FaultId, Injected};
use crate::disk::faults::{Target, Times};
use crate::oracle::equal::{self, Closed};
use crate::oracle::status::Truth;
use crate::oracle::{Violation, log, replicas, rest};
use crate::outcome::Totals;
use crate::run::caught;
use bytes::Bytes;
use kfs_core::chunk::name::{CHUNKS, ChunkName};
use kfs_core::ids::LogSeq;
use kfs_core::limits::HEADER_BYTES;
use kfs_core::machine::{DiskOp, FileName, SyncMode};
use kfs_core::meta::Meta;
use kfs_core::meta::checkpoint::format::checkpoint_seq;
use kfs_core::meta::oplog::segment_first;
use kfs_core::meta::state::State;
use std::time::Duration;

/// How long the auditor may take.
const AUDIT_MAX: Duration = Duration::from_secs(120);
/// How long a report may be on its way.
const REPORT_MAX: Duration = Duration::from_secs(2);

/// What came of one damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// There was nothing to damage: the bytes are what they were.
    Same,
    /// Nobody needs the block: all bytes of its replica were read, and it was started on.
    Harmless,
    /// A server noticed, said so, and gave no wrong byte.
    Detected,
    /// It was noticed, and the block is again as it was.
    Repaired,
    /// The server did not start, and said why; with the block restored all is there.
    Refused,
    /// A wrong byte was read, or something acked is missing, or nobody noticed what must be noticed.
    Silent,
    /// Anything else that must not be: a panic, a whole file that could not be read.
    Broken,
}

impl Outcome {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 7] = [
        Self::Same,
        Self::Harmless,
        Self::Detected,
        Self::Repaired,
        Self::Refused,
        Self::Silent,
        Self::Broken,
    ];
    /// For people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Harmless => "harmless",
            Self::Detected => "detected",
            Self::Repaired => "repaired",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Broken => "broken",
        }
    }
    /// Whether a promise was broken.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Silent | Self::Broken)
    }
    /// Which of the two a violation is.
    fn of(violation: &Violation) -> Self {
        match violation.oracle {
            "O9" | "panic" | "halt" => Self::Broken,
            _ if violation.promise == "L" => Self::Broken,
            _ => Self::Silent,
        }
    }
}

/// What came of one damage, in words too.
#[derive(Clone, Debug)]
pub struct Tried {
    /// In one word.
    pub outcome: Outcome,
    /// What was seen, step by step.
    pub told: String,
    /// Bytes that were read and were what their writer wrote.
    pub bytes_verified: u64,
}

/// Tries it.
pub(super) fn attempt(story: &Story, case: &Case) -> Tried {
    let there = |disk: &DiskModel| !bytes(disk, &case.block).is_empty();
    if case.server >= story.sim.servers() || !there(story.sim.disk(case.server)) {
        return Tried {
            outcome: Outcome::Broken,
            told: "there is no such block in this story".into(),
            bytes_verified: 0,
        };
    }
    let mut sim = story.sim.clone();
    let verified = sim.record.contents.verified;
    if case.how == How::Down {
        sim.kill(case.server);
    }
    let intact = bytes(sim.disk(case.server), &case.block);
    sim.record.disk_hurt(case.server);
    let injected = sim.disk_mut(case.server).inject(&story.fault(case));
    let armed = match injected {
        Injected::Armed(id) => Some(id),
        Injected::Changed(ranges) if !ranges.is_empty() => None,
        Injected::Changed(_) | Injected::Missed | Injected::Replaced => {
            return Tried {
                outcome: Outcome::Same,
                told: "the bytes are what they were".into(),
                bytes_verified: 0,
            };
        }
    };
    let mut trial = Trial {
        story,
        case,
        sim,
        intact,
        armed,
        told: String::new(),
        started: false,
        noticed: false,
    };
    let outcome = caught(|| trial.outcome()).flatten();
    let outcome = outcome.unwrap_or_else(|violation| {
        trial.tell(&violation.to_string());
        Outcome::of(&violation)
    });
    Tried {
        outcome,
        told: trial.told,
        bytes_verified: trial.sim.record.contents.verified - verified,
    }
}

/// The first record of the segment of this path.
fn segment_of(path: &str) -> Option<LogSeq> {
    segment_first(path.strip_prefix("log/")?)
}

struct Trial<'a> {
    story: &'a Story,
    case: &'a Case,
    sim: Sim,
    /// The block as it was.
    intact: Bytes,
    /// The damage, if it lies in wait.
    armed: Option<FaultId>,
    told: String,
    /// Its server was started on it.
    started: bool,
    /// Somebody noticed, and said so.
    noticed: bool,
}

/// What a start came to.
enum Start {
    Ready,
    /// The server stopped, and said this.
    Refused(String),
}

impl Trial<'_> {
    fn outcome(&mut self) -> Result<Outcome, Violation> {
        if self.case.how == How::Running {
            self.read()?;
        }
        // What nobody needed until now is met by a start, at the latest.
        if !self.noticed {
            self.sim.kill(self.case.server);
            if let Start::Refused(why) = self.start()? {
                return self.refused(&why);
            }
            if self.is_behind_checkpoint() {
                // Only who needs the checkpoint before reads it.
                self.tell("a checkpoint stands for it");
                self.restore()?;
            }
            self.log_is_there()?;
            self.read()?;
        }
        let repaired = bytes(self.sim.disk(self.case.server), &self.case.block) == self.intact
            && self.armed.is_none();
        let outcome = match (self.noticed, repaired) {
            (true, true) => Outcome::Repaired,
            (true, false) => Outcome::Detected,
            (false, true) => Outcome::Harmless,
            (false, false) => {
                self.replica_is_right()?;
                Outcome::Harmless
            }
        };
        self.judge()?;
        Ok(outcome)
    }

    fn tell(&mut self, what: &str) {
        if !self.told.is_empty() {
            self.told.push_str("; ");
        }
        self.told.push_str(what);
    }

    fn start(&mut self) -> Result<Start, Violation> {
        let server = self.case.server;
        self.sim.start(server);
        let ready = run::ready(&mut self.sim);
        let said = format!("{} stopped by itself: ", self.sim.nodes[server].name);
        let halted = self.sim.record.violation.take();
        match halted {
            None => {
                ready?;
                self.tell("it starts");
                self.started = true;
                Ok(Start::Ready)
            }
            Some(violation) if violation.oracle == "halt" => {
                match violation.what.strip_prefix(&said) {
                    Some(why) if !why.is_empty() => {
                        self.sim.kill(server);
                        Ok(Start::Refused(why.to_owned()))
                    }
                    _ => Err(violation),
                }
            }
            Some(violation) => Err(violation),
        }
    }

    /// It did not start on this. With the block as it was it does, and all is there.
    fn refused(&mut self, why: &str) -> Result<Outcome, Violation> {
        self.tell(&format!("it does not start: {why}"));
        self.restore()?;
        if let Start::Refused(why) = self.start()? {
            let what = format!("with the block restored it does not start: {why}");
            return Err(Violation::new("O9", "L", what));
        }
        self.log_is_there()?;
        self.read_everything()?;
        self.judge()?;
        Ok(Outcome::Refused)
    }

    /// Whether the block is of a segment of the log of which the newest checkpoint has every record.
    fn is_behind_checkpoint(&self) -> bool {
        let Some(first) = segment_of(&self.case.block.file) else {
            return false;
        };
        // As it was before anything was damaged: a start puts another segment behind.
        let disk = self.story.sim.disk(0);
        let next = disk
            .paths()
            .filter_map(segment_of)
            .filter(|next| *next > first);
        let checkpoints = disk
            .paths()
            .filter_map(|path| checkpoint_seq(path.strip_prefix("checkpoint/")?));
        match (next.min(), checkpoints.max()) {
            (Some(next), Some(newest)) => next <= newest.next(),
            _ => false,
        }
    }

    fn restore(&mut self) -> Result<(), Violation> {
        let disk = self.sim.disk_mut(self.case.server);
        if let Some(id) = self.armed {
            disk.lift(id);
        }
        let restored = disk.apply(&DiskOp::Write {
            file: FileName::new(&self.case.block.file),
            offset: self.case.block.offset,
            data: vec![self.intact.clone()],
            sync: SyncMode::Now,
        });
        restored.map(|_| ()).map_err(|error| {
            let what = format!("the block cannot be restored: {error}");
            Violation::new("O3", "L", what)
        })
    }

    /// Every record that was in the log is in it still.
    fn log_is_there(&mut self) -> Result<(), Violation> {
        let due = &self.story.records;
        let found = log::records(self.sim.disk(0))?;
        if found.starts_with(due) {
            return Ok(());
        }
        let lost = due
            .iter()
            .zip(&found)
            .take_while(|(due, found)| due == found);
        let lost = lost.count();
        let what = format!(
            "record {:?} was acked, and the log has {:?} in its place",
            due.get(lost),
            found.get(lost)
        );
        Err(Violation::new("O7", "N3", what))
    }

    /// Reads everything, then the damaged replica alone.
    fn read(&mut self) -> Result<(), Violation> {
        self.read_everything()?;
        let status = self.sim.meta().and_then(Meta::status);
        let damaged = status.is_some_and(|status| status.replicas_damaged > 0);
        if damaged {
            self.tell("the meta server counts a damaged replica");
            self.noticed = true;
        }
        self.status_is_true()?;
        self.read_alone()
    }

    /// One damage leaves good copies of everything: all of it is read.
    fn read_everything(&mut self) -> Result<(), Violation> {
        if let Err(what) = self.audited()? {
            let what = format!("one block is damaged, and {what}");
            return Err(Violation::new("O3", "L", what));
        }
        self.tell("everything is read");
        Ok(())
    }

    /// What the auditor could not read, if anything.
    fn audited(&mut self) -> Result<Result<(), String>, Violation> {
        let sim = &mut self.sim;
        sim.audit();
        sim.run_until(AUDIT_MAX, |sim| sim.audited().is_some());
        let verdict = sim.audited();
        sim.end_audit();
        if let Some(violation) = sim.record.violation.take() {
            return Err(violation);
        }
        verdict.ok_or_else(|| {
            let what = format!("the auditor was not done in {AUDIT_MAX:?}");
            Violation::new("O9", "L", what)
        })
    }

    /// Reads everything while no other server can read the bytes of the damaged replica. Whatever comes of it is
    /// right; and if something does not come, the meta server hears of it.
    ///
    /// On a copy: what the others said of themselves is no news of this damage.
    fn read_alone(&mut self) -> Result<(), Violation> {
        let file = &self.case.block.file;
        if chunk_name(file).is_none() {
            return Ok(());
        }
        let others: Vec<NodeId> = (1..self.sim.servers())
            .filter(|server| *server != self.case.server)
            .filter(|server| self.sim.disk(*server).paths().any(|path| path == file))
            .collect();
        let fault = bytes_unreadable(file);
        let before = self.sim.clone();
        for server in &others {
            self.sim.record.disk_hurt(*server);
            self.sim.disk_mut(*server).inject(&fault);
        }
        let audited = self.audited()?;
        let bad = match &self.sim.nodes[self.case.server].process {
            Some(Process::Chunk(machine)) => machine.counters().blocks_bad,
            _ => 0,
        };
        let Err(what) = audited else {
            self.tell("read alone: everything");
            self.noticed |= bad > 0;
            let verified = self.sim.record.contents.verified;
            if !self.noticed {
                self.sim = before;
                self.sim.record.contents.verified = verified;
            }
            return Ok(());
        };
        self.tell(&format!("read alone: {what}"));
        self.noticed = true;
        let due = others.len() as u64 + 1;
        let counted = |sim: &Sim| {
            let status = sim.meta().and_then(Meta::status);
            status.map_or(0, |status| status.replicas_damaged)
        };
        if self.sim.run_until(REPORT_MAX, |sim| counted(sim) >= due) {
            return Ok(());
        }
        let what = format!(
            "nobody gives all bytes of {file}, and the meta server counts {} damaged replicas of {due}",
            counted(&self.sim)
        );
        Err(Violation::new("O12", "F", what))
    }

    /// Nobody noticed anything: then the independent reader finds nothing either.
    fn replica_is_right(&mut self) -> Result<(), Violation> {
        let Some(name) = chunk_name(&self.case.block.file) else {
            return Ok(());
        };
        let now = self.sim.record.tick();
        let located = self.sim.record.located.values();
        let mut located = located.map(|(located, _)| located);
        let Some(located) = located
            .find(|one| (one.chunk, one.version) == (name.chunk, name.version) && one.log.len > 0)
        else {
            return Ok(());
        };
        let disk = self.sim.disk(self.case.server);
        let whose = &self.sim.nodes[self.case.server].name;
        let (geometry, contents) = (self.sim.schedule.geometry, &self.sim.record.contents);
        replicas::check(disk, (whose, true), located, geometry, contents, now)
            .map(|_| ())
            .map_err(|violation| {
                let what = format!("nobody noticed: {}", violation.what);
                Violation::new("O12", "F", what)
            })
    }

    /// What the meta server says of the cluster's health is so, once it was said hello to.
    fn status_is_true(&self) -> Result<(), Violation> {
        if !self.started || self.case.damage == Damage::Unreadable {
            return Ok(());
        }
        let logged = self.logged()?;
        let named = self.shelved();
        let shelves = rest::shelves(&logged, &named);
        let status = self.sim.meta().and_then(Meta::status);
        match status {
            Some(status) => {
                Truth::of(&logged, &shelves, self.sim.schedule.geometry).agrees(&status)
            }
            None => Err(Violation::new("O9", "L", "the meta server is not there")),
        }
    }

    /// The other replicas are as equal as ever, and no operation was undone.
    fn judge(&mut self) -> Result<(), Violation> {
        let logged = self.logged()?;
        let named = self.shelved();
        let shelves = rest::shelves(&logged, &named);
        let closed = self.sim.record.contents.closed();
        let how = |file| {
            if closed.contains_key(&file) {
                Closed::Acked
            } else {
                Closed::Abandoned
            }
        };
        let (whose, hurt) = (
            &*self.sim.nodes[self.case.server].name,
            &self.case.block.file,
        );
        let is_hurt = |server: &str, path: &str| server == whose && path == hurt;
        let over = |file| self.sim.record.contents.is_written_over(file);
        let geometry = self.sim.schedule.geometry;
        equal::check(&logged, &shelves, geometry, how, over, is_hurt)?;
        run::judge(&mut self.sim, &mut Totals::default());
        self.sim.record.violation.take().map_or(Ok(()), Err)
    }

    fn logged(&self) -> Result<State, Violation> {
        let records = log::records(self.sim.disk(0))?;
        State::replay(&records).map_err(|why| Violation::new("O7", "N3", why))
    }
    fn shelved(&self) -> Vec<(&str, &DiskModel)> {
        (1..self.sim.servers())
            .map(|server| (&*self.sim.nodes[server].name, self.sim.disk(server)))
            .collect()
    }
}

/// The chunk of a path in `chunks/`.
fn chunk_name(path: &str) -> Option<ChunkName> {
    let base = path.strip_prefix(CHUNKS)?.strip_prefix('/')?;
    ChunkName::parse(base)
}

/// No byte behind the header of a chunk file can be read.
fn bytes_unreadable(file: &str) -> DiskFault {
    let block = Block {
        file: file.into(),
        offset: HEADER_BYTES,
        len: u64::MAX,
    };
    DiskFault::Fail {
        on: Access::Read,
        with: Errno::Io,
        aim: Aim {
            at: Target::Block(block),
            ..Aim::now(Times::Always)
        },
    }
}
