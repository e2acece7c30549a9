//! What works on the meta server's disk beside its process, as a process of its own: the off-line compactor.
//!
//! It is the machine that `kfs-logcompactor` runs. It lives and dies apart from the server: a kill of either leaves
//! the other one at work, a loss of power takes both. Its operations wait in a queue of its own, so that those of the
//! server do what they would do without it.
use super::sim::{LOOK_AGAIN_NS, Sim, Step, What};
use crate::disk::queue::{Carried, Queue};
use crate::keyed::Keyed;
use crate::oracle::{Violation, log};
use crate::schedule::Speed;
use kfs_core::machine::{Input, Machine as _, Output};
use kfs_core::meta::compactor::{Aim, Compacted, Compactor};
use kfs_core::meta::{Config, Event};
use std::sync::Arc;

/// Its name in traces.
const COMPACTOR: &str = "compactor";

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Beside {
    compacting: Option<Compacting>,
    /// Rises with every start of one: what was due for an earlier one is void.
    life: u64,
    speed: Option<Speed>,
    slower: u64,
    /// Checkpoints that were made.
    pub made: u64,
}

/// A compactor at work.
#[derive(Clone, Debug)]
struct Compacting {
    machine: Box<Compactor>,
    queue: Queue<u64>,
}

impl Sim {
    /// Whether a compactor is at work.
    #[must_use]
    pub fn compacts(&self) -> bool {
        self.beside.compacting.is_some()
    }

    /// Starts a compactor that is so many times slower than the server, unless one is at work: two lock one another
    /// out. Whether it was started.
    pub fn compact(&mut self, slower: u64) -> bool {
        if self.compacts() || !self.nodes[0].is_powered() {
            return false;
        }
        let schedule = Arc::clone(&self.schedule);
        self.beside.life += 1;
        let named = format!("{COMPACTOR}, start {}", self.beside.life);
        let draws = Keyed::new(schedule.seed, &named);
        let speed = self.beside.speed.unwrap_or(schedule.speed).times(slower);
        self.beside.slower = slower;
        let config = Config {
            seed: 0,
            geometry: schedule.geometry,
            limits: schedule.limits,
            timing: schedule.timing,
            replication: 1,
            min_replicas: 1,
            cluster: None,
            checkpoint_every: None,
            re_replicate_after: std::time::Duration::ZERO,
            copy_rate: 1,
            mirror: schedule.log_mirror,
        };
        self.beside.compacting = Some(Compacting {
            machine: Box::new(Compactor::new(config, Aim::Checkpoint)),
            queue: Queue::new(draws, speed),
        });
        self.compactor_takes(Input::Wake);
        true
    }

    /// `kill -9`: of its operations in flight some are carried out. Whether there was one.
    pub fn kill_compactor(&mut self) -> bool {
        let Some(Compacting { mut queue, .. }) = self.beside.compacting.take() else {
            return false;
        };
        queue.kill(self.disk_mut(0));
        true
    }

    /// It dies before anything that is in flight is carried out.
    pub(super) fn kill_compactor_at_once(&mut self) {
        self.beside.compacting = None;
    }

    /// Its disk is faster or slower from now on.
    pub(super) fn compactor_speed(&mut self, speed: Speed) {
        self.beside.speed = Some(speed);
        if let Some(compacting) = &mut self.beside.compacting {
            compacting.queue.set_speed(speed.times(self.beside.slower));
        }
    }

    /// An operation of a compactor of this life is due.
    pub(super) fn compactor_due(&mut self, life: u64) -> Step {
        if self.beside.life != life {
            return Step::Other;
        }
        let now = self.now;
        let disk = self.nodes[0].disk.as_mut().expect("a server has a disk");
        let Some(compacting) = &mut self.beside.compacting else {
            return Step::Other;
        };
        match compacting.queue.carry_out(now, &mut disk.model) {
            Carried::Nothing | Carried::NotBefore(_) | Carried::Tripped => Step::Other,
            Carried::Stalled => {
                self.heap.push(now + LOOK_AGAIN_NS, What::Compactor(life));
                Step::Other
            }
            Carried::Done(ticket, _, result) => {
                disk.operations += 1;
                self.compactor_takes(Input::Disk { ticket, result });
                Step::Disk(0)
            }
        }
    }

    /// Hands something to it, and carries out what it wants.
    fn compactor_takes(&mut self, input: Input<kfs_core::meta::Call>) {
        let now = self.clock(0);
        self.record.now_ns = self.now;
        let life = self.beside.life;
        let disk = self.nodes[0].disk.as_mut().expect("a server has a disk");
        let Some(Compacting { machine, queue }) = &mut self.beside.compacting else {
            return;
        };
        self.record.input(now, COMPACTOR, &input);
        machine.handle(now, input);
        let mut ended = None;
        while let Some(output) = machine.poll() {
            self.record.output(COMPACTOR, &output);
            match output {
                Output::Disk { ticket, op } => {
                    let takes = queue.takes_ns(&mut disk.model, &op);
                    let at = queue.submit(self.now + takes, ticket, op);
                    self.heap.push(at, What::Compactor(life));
                }
                Output::Event {
                    event: Event::Compacted(done),
                    ..
                } => ended = Some(done),
                Output::Halt { fault } => ended = Some(Err(fault.what)),
                other => unreachable!("a compactor has no links and no calls: {other:?}"),
            }
        }
        if let Some(done) = ended {
            self.beside.compacting = None;
            let judged = self.compacted(done);
            self.record.check(judged);
        }
    }

    /// What it has made is what the log gives. It may fail only on a disk that does, or is not what it was.
    fn compacted(&mut self, done: Result<Compacted, String>) -> Result<(), Violation> {
        if self.meta_may_fail() {
            return Ok(());
        }
        let wrong = |what| Violation::new("O7", "N3", what);
        let Compacted { end, made, .. } =
            done.map_err(|why| Violation::new("halt", "L", format!("{COMPACTOR}: {why}")))?;
        let records = log::records(self.disk(0))?;
        let last = records.last().map_or(0, |logged| logged.seq.0);
        if last < end.0 {
            return Err(wrong(format!(
                "a compactor has read record {end}; the log ends with {last}"
            )));
        }
        if made.is_some() {
            self.beside.made += 1;
        }
        log::checkpoints(self.disk(0), &records)
    }
}
