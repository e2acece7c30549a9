//! Makes a failing run smaller: leaves out faults, clients, actors, jobs and steps of jobs, makes files and the
//! cluster smaller, as long as the same oracle still sees a promise broken.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over what is spelled out in a schedule. It works because what
//! is left out takes nobody's random numbers along.
use crate::fault::Trigger;
use crate::oracle::Violation;
use crate::run::{Run, Simulator, Watching};
use crate::schedule::Schedule;
use crate::workload::job::{Fill, Job, ReadHow};
use kfs_core::planted::Bug;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A run that fails, to be made smaller.
#[derive(Clone, Debug)]
pub struct Shrink {
    /// Where it runs.
    pub simulator: Simulator,
    /// The run.
    pub schedule: Schedule,
    /// The mistake that is planted.
    pub bug: Option<Bug>,
    /// No run is begun after this.
    pub longest: Duration,
}

/// What is left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub schedule: Schedule,
    /// What it breaks.
    pub violation: Violation,
    /// Runs made.
    pub runs: u64,
    /// Whether nothing more can be left out, rather than that the time was up.
    pub minimal: bool,
}

impl Shrink {
    /// Makes it smaller, if it fails at all.
    #[must_use]
    pub fn execute(&self) -> Option<Shrunk> {
        let mut shrinking = Shrinking {
            of: self,
            begun: Instant::now(),
            best: Shrunk {
                schedule: self.schedule.clone(),
                violation: self.fails(&self.schedule)?,
                runs: 1,
                minimal: false,
            },
        };
        loop {
            let before = shrinking.best.schedule.clone();
            shrinking.round();
            if shrinking.is_late() {
                break;
            }
            if shrinking.best.schedule == before {
                shrinking.best.minimal = true;
                break;
            }
        }
        Some(shrinking.best)
    }

    fn fails(&self, schedule: &Schedule) -> Option<Violation> {
        let run = Run {
            simulator: self.simulator,
            schedule: Arc::new(schedule.clone()),
            bug: self.bug,
            trace: None,
            watching: Watching::Usual,
        };
        run.execute().violation
    }
}

struct Shrinking<'a> {
    of: &'a Shrink,
    begun: Instant,
    best: Shrunk,
}

impl Shrinking<'_> {
    fn is_late(&self) -> bool {
        self.begun.elapsed() > self.of.longest
    }

    /// Takes a smaller schedule if it fails in the same way.
    fn attempt(&mut self, smaller: Schedule) -> bool {
        if self.is_late() || smaller == self.best.schedule || smaller.check().is_err() {
            return false;
        }
        self.best.runs += 1;
        match self.of.fails(&smaller) {
            Some(violation) if violation.oracle == self.best.violation.oracle => {
                self.best.schedule = smaller;
                self.best.violation = violation;
                true
            }
            _ => false,
        }
    }

    /// Changes a copy of the best schedule, and takes it if it still fails.
    fn with(&mut self, change: impl FnOnce(&mut Schedule)) -> bool {
        let mut smaller = self.best.schedule.clone();
        change(&mut smaller);
        self.attempt(smaller)
    }

    fn round(&mut self) {
        self.ddmin(
            |schedule| schedule.faults.len(),
            |schedule, keep| {
                retain(&mut schedule.faults, keep);
            },
        );
        for client in (0..self.best.schedule.clients.len()).rev() {
            self.with(|schedule| {
                schedule.clients[client].actors.clear();
            });
            for actor in (0..self.best.schedule.clients[client].actors.len()).rev() {
                self.with(|schedule| schedule.clients[client].actors[actor].clear());
                self.ddmin(
                    |schedule| {
                        schedule.clients[client]
                            .actors
                            .get(actor)
                            .map_or(0, Vec::len)
                    },
                    |schedule, keep| retain(&mut schedule.clients[client].actors[actor], keep),
                );
            }
        }
        self.with(|schedule| schedule.drop_idle_clients());
        while self.best.schedule.servers > 2 && self.with(drop_last_server) {}
        self.with(|schedule| schedule.loss_permille = 0);
        self.with(|schedule| schedule.buggify_permille = 0);
        self.with(|schedule| schedule.latency_us = (200, 200));
        self.with(|schedule| schedule.replication = schedule.replication.min(2));
        self.jobs();
        self.triggers();
    }

    /// Files become smaller, and are written and read in fewer steps.
    fn jobs(&mut self) {
        for client in 0..self.best.schedule.clients.len() {
            for actor in 0..self.best.schedule.clients[client].actors.len() {
                for nth in 0..self.best.schedule.clients[client].actors[actor].len() {
                    let job = move |schedule: &mut Schedule| -> Option<Vec<Fill>> {
                        fill_of(&mut schedule.clients[client].actors[actor][nth])
                            .map(std::mem::take)
                    };
                    self.ddmin(
                        |schedule| job(&mut schedule.clone()).map_or(0, |fill| fill.len()),
                        |schedule, keep| {
                            let at = &mut schedule.clients[client].actors[actor][nth];
                            if let Some(fill) = fill_of(at) {
                                retain(fill, keep);
                            }
                        },
                    );
                    while self.with(|schedule| {
                        let at = &mut schedule.clients[client].actors[actor][nth];
                        for step in fill_of(at).into_iter().flatten() {
                            if let Fill::Bytes { at, len } = step {
                                (*at, *len) = (*at / 2, (*len / 2).max(1));
                            }
                        }
                    }) {}
                    self.with(|schedule| {
                        let at = &mut schedule.clients[client].actors[actor][nth];
                        if let Job::Read { how, .. } = at {
                            *how = ReadHow::Stream;
                        }
                    });
                }
            }
        }
    }

    /// Faults strike at plain times and last no longer than they must.
    fn triggers(&mut self) {
        for nth in 0..self.best.schedule.faults.len() {
            self.with(|schedule| {
                if let Trigger::AfterMessage(_, _, ms) = &mut schedule.faults[nth].trigger {
                    *ms = 0;
                }
            });
            while self.best.schedule.faults[nth].lasts_ms > 10
                && self.with(|schedule| schedule.faults[nth].lasts_ms /= 2)
            {}
            for server in (0..self.best.schedule.servers).rev() {
                self.with(|schedule| {
                    if let Some(site) = schedule.faults[nth].fault.site_mut() {
                        site.servers.retain(|other| *other != server);
                    }
                });
            }
            self.with(|schedule| {
                if let Some(site) = schedule.faults[nth].fault.site_mut() {
                    site.clients.clear();
                }
            });
        }
    }

    /// Leaves out halves, quarters, … single ones of a list.
    fn ddmin(
        &mut self,
        len: impl Fn(&Schedule) -> usize,
        keep: impl Fn(&mut Schedule, &dyn Fn(usize) -> bool),
    ) {
        let mut size = len(&self.best.schedule).div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < len(&self.best.schedule) {
                let left_out = self.with(|schedule| {
                    keep(schedule, &|nth| !(from..from + size).contains(&nth));
                });
                if !left_out {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}

fn retain<T>(list: &mut Vec<T>, keep: &dyn Fn(usize) -> bool) {
    let mut nth = 0;
    list.retain(|_| {
        nth += 1;
        keep(nth - 1)
    });
}

fn fill_of(job: &mut Job) -> Option<&mut Vec<Fill>> {
    match job {
        Job::Put { fill, .. }
        | Job::Write { fill, .. }
        | Job::Append { fill, .. }
        | Job::Truncate { fill, .. } => Some(fill),
        _ => None,
    }
}

/// Leaves the last chunkserver out, and out of all faults.
fn drop_last_server(schedule: &mut Schedule) {
    schedule.servers -= 1;
    let gone = schedule.servers;
    schedule.faults.retain_mut(|planned| {
        if let Some(site) = planned.fault.site_mut() {
            site.servers.retain(|server| *server != gone);
        }
        !planned.names(gone)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Kind;

    #[test]
    fn a_planted_mistake_is_left_with_hardly_more_than_it_needs() {
        let kind = Kind::named("bare:files").unwrap();
        let bug = Bug::ReplyBeforeSync;
        let shrunk = (1..40).find_map(|seed| {
            let shrink = Shrink {
                simulator: kind.simulator,
                schedule: (kind.scenario.draw)(seed),
                bug: Some(bug),
                longest: Duration::MAX,
            };
            Some((shrink.schedule.clone(), shrink.execute()?))
        });
        let (before, after) = shrunk.expect("it is seen in forty seeds");
        assert!(
            after.schedule.faults.len() <= 3,
            "{:?}",
            after.schedule.faults
        );
        assert!(
            after.schedule.jobs() * 4 <= before.jobs().max(16),
            "{}",
            after.schedule.jobs()
        );
    }
}
