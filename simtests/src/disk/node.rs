//! One node's disk behind the drivers' [`kfs_drive::Disk`]: latencies, order, incarnations, and what a crash
//! does to the operations in flight.
//!
//! The disk outlives the processes on its node. Each process opens it anew; what an older process still asks
//! for is refused, because futures of a killed node are dropped some time after the kill.
use super::crash::{Crash, Policy};
use super::model::DiskModel;
use crate::keyed::Keyed;
use crate::schedule::Speed;
use bytes::Bytes;
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, FileName, SyncMode};
use kfs_drive::{Completions, Disk};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A node's disk. Cloned freely: there is one.
#[derive(Clone)]
pub struct NodeDisk(Arc<Mutex<Shelf>>);

struct Shelf {
    model: DiskModel,
    draws: Keyed,
    speed: Speed,
    /// Which process may use it.
    incarnation: u64,
    /// By when they are due, then by submission: operations on one name are due in their order.
    in_flight: BTreeMap<(Instant, u64), (Ticket, DiskOp)>,
    /// When the last operation on a name is due.
    due: BTreeMap<FileName, Instant>,
    submitted: u64,
    counts: Counts,
    trip: Option<Trip>,
    /// Wakes who carries out the operations.
    work: Arc<Notify>,
}

/// What a disk did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Operations that were carried out.
    pub operations: u64,
    /// Syncs among them, of files or directories.
    pub syncs: u64,
}

/// A crash at an operation: rings when so many more operations that change something were carried out.
struct Trip {
    after: u64,
    /// Whether that operation is still in flight then, and so may be cut, or is done and nobody was told.
    in_flight: bool,
    bell: Arc<Notify>,
    tripped: bool,
}

impl NodeDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(model: DiskModel, draws: Keyed, speed: Speed) -> Self {
        Self(Arc::new(Mutex::new(Shelf {
            model,
            draws,
            speed,
            incarnation: 0,
            in_flight: BTreeMap::new(),
            due: BTreeMap::new(),
            submitted: 0,
            counts: Counts::default(),
            trip: None,
            work: Arc::new(Notify::new()),
        })))
    }

    /// Opens it for a new process, on whose node this must be called; older ones are shut out.
    #[must_use]
    pub fn open(&self, completions: Completions) -> Opened {
        let mut shelf = self.shelf();
        shelf.incarnation += 1;
        shelf.in_flight.clear();
        shelf.due.clear();
        let work = Arc::new(Notify::new());
        shelf.work = Arc::clone(&work);
        let opened = Opened {
            shelf: Arc::clone(&self.0),
            incarnation: shelf.incarnation,
            work: Arc::clone(&work),
        };
        drop(shelf);
        tokio::spawn(carry_out(
            Arc::clone(&self.0),
            opened.incarnation,
            work,
            completions,
        ));
        opened
    }

    /// The process dies: of its operations in flight the first so many are carried out, one in part, and
    /// nothing more. What is in the page cache stays.
    pub fn kill(&self) {
        let mut shelf = self.shelf();
        shelf.incarnation += 1;
        shelf.trip = None;
        let in_flight = std::mem::take(&mut shelf.in_flight);
        let survivors = shelf.draws.index(in_flight.len() + 1);
        for (nth, (_, op)) in in_flight.into_values().enumerate() {
            if nth < survivors {
                // The dead process does not hear how it went.
                let _ = shelf.model.apply(&op);
            } else if nth == survivors {
                if let Some(part) = cut(&op, &mut shelf.draws) {
                    let _ = shelf.model.apply(&part);
                }
            }
        }
    }

    /// The power fails: the process dies and pending operations survive as the policy says.
    pub fn power_loss(&self, policy: Policy) -> Crash {
        self.kill();
        let mut shelf = self.shelf();
        let shelf = &mut *shelf;
        shelf.model.power_loss(policy, &mut shelf.draws)
    }

    /// Rings the bell when so many more operations that change something were carried out, and the next one is
    /// in flight or was carried out too; until the process is killed the disk then does nothing more.
    pub fn trip_after(&self, operations: u64, bell: Arc<Notify>) {
        let mut shelf = self.shelf();
        let in_flight = shelf.draws.percent(60);
        shelf.trip = Some(Trip {
            after: operations,
            in_flight,
            bell,
            tripped: false,
        });
    }

    /// Takes a trip back. Gives whether it came too late: the disk does nothing more until it is opened again.
    #[must_use]
    pub fn disarm(&self) -> bool {
        self.shelf().trip.take().is_some_and(|trip| trip.tripped)
    }

    /// Changes its speed from now on.
    pub fn set_speed(&self, speed: Speed) {
        self.shelf().speed = speed;
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shelf().counts
    }

    /// A look at the files, for oracles.
    pub fn look<T>(&self, at: impl FnOnce(&DiskModel) -> T) -> T {
        at(&self.shelf().model)
    }

    /// Lets faults strike, lifts them, or makes the disk remember; whatever a [`DiskModel`] does between two
    /// operations.
    pub fn alter<T>(&self, change: impl FnOnce(&mut DiskModel) -> T) -> T {
        let mut shelf = self.shelf();
        let did = change(&mut shelf.model);
        // It may have been stalled.
        shelf.work.notify_one();
        did
    }

    /// The disks of two nodes change places; both must be down.
    pub fn swap(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            self.shelf().model.swap(&mut other.shelf().model);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.0)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a write that a dying process gets done; nothing of anything else.
fn cut(op: &DiskOp, draws: &mut Keyed) -> Option<DiskOp> {
    let DiskOp::Write {
        file, offset, data, ..
    } = op
    else {
        return None;
    };
    let all: Vec<u8> = data.concat();
    let kept = draws.index(all.len() + 1);
    Some(DiskOp::Write {
        file: file.clone(),
        offset: *offset,
        data: vec![Bytes::from(all).slice(..kept)],
        sync: SyncMode::Later,
    })
}

/// One process's handle of its node's disk.
pub struct Opened {
    shelf: Arc<Mutex<Shelf>>,
    incarnation: u64,
    work: Arc<Notify>,
}

impl Disk for Opened {
    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let mut shelf = lock(&self.shelf);
        let shelf = &mut *shelf;
        if shelf.incarnation != self.incarnation {
            return;
        }
        let speed = shelf.speed;
        let most = match &op {
            DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => speed.read_us,
            DiskOp::Sync { .. }
            | DiskOp::SyncDir { .. }
            | DiskOp::Write {
                sync: SyncMode::Now,
                ..
            } => speed.sync_us,
            DiskOp::MakeDir { .. }
            | DiskOp::Create { .. }
            | DiskOp::Write { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::Truncate { .. } => speed.write_us,
        };
        // Mostly far below the most, as disks are.
        let share = shelf.draws.below(1_000) * shelf.draws.below(1_000);
        let micros = shelf.model.latency_us(most * share / 1_000_000);
        let mut at = Instant::now() + Duration::from_micros(micros);
        for name in changed(&op) {
            at = at.max(shelf.due.get(name).copied().unwrap_or(at));
        }
        for name in changed(&op) {
            shelf.due.insert(name.clone(), at);
        }
        shelf.submitted += 1;
        shelf.in_flight.insert((at, shelf.submitted), (ticket, op));
        self.work.notify_one();
    }
}

/// The names on which an operation keeps its order.
fn changed(op: &DiskOp) -> impl Iterator<Item = &FileName> {
    let (one, other) = match op {
        DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => (None, None),
        DiskOp::MakeDir { dir } | DiskOp::SyncDir { dir } => (Some(dir), None),
        DiskOp::Create { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Remove { file }
        | DiskOp::Truncate { file, .. } => (Some(file), None),
        DiskOp::Rename { from, to } => (Some(from), Some(to)),
    };
    one.into_iter().chain(other)
}

/// Carries out what is due, in order, until the process that opened the disk is gone.
async fn carry_out(
    shelf: Arc<Mutex<Shelf>>,
    incarnation: u64,
    work: Arc<Notify>,
    completions: Completions,
) {
    loop {
        let next = {
            let mut shelf = lock(&shelf);
            if shelf.incarnation != incarnation {
                return;
            }
            shelf.due_now(&completions)
        };
        match next {
            Next::Stop => return,
            Next::Idle => work.notified().await,
            Next::At(at) => {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = work.notified() => {}
                }
            }
        }
    }
}

enum Next {
    At(Instant),
    Idle,
    Stop,
}

impl Shelf {
    fn due_now(&mut self, completions: &Completions) -> Next {
        let now = Instant::now();
        if self.model.is_stalled() {
            return Next::Idle;
        }
        while let Some((&(at, nth), (_, op))) = self.in_flight.first_key_value() {
            if at > now {
                return Next::At(at);
            }
            let trips =
                changed(op).next().is_some() && self.trip.as_mut().is_some_and(Trip::counts);
            if trips && self.trip.as_ref().is_some_and(|trip| trip.in_flight) {
                return self.rings();
            }
            let (ticket, op) = self
                .in_flight
                .remove(&(at, nth))
                .expect("it was the first just now");
            let result = self.model.apply(&op);
            self.counts.operations += 1;
            self.counts.syncs += u64::from(matches!(
                op,
                DiskOp::Sync { .. }
                    | DiskOp::SyncDir { .. }
                    | DiskOp::Write {
                        sync: SyncMode::Now,
                        ..
                    }
            ));
            if trips {
                return self.rings();
            }
            if completions.send((ticket, result)).is_err() {
                return Next::Stop;
            }
        }
        Next::Idle
    }

    fn rings(&mut self) -> Next {
        if let Some(trip) = &mut self.trip {
            trip.bell.notify_one();
            trip.tripped = true;
        }
        // Shut out, so that nothing more happens before the kill.
        self.incarnation += 1;
        Next::Stop
    }
}

impl Trip {
    /// Counts an operation that changes something. Gives whether it is the one.
    fn counts(&mut self) -> bool {
        let due = self.after == 0;
        self.after = self.after.saturating_sub(1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faults::{DiskFault, Effect};
    use kfs_core::machine::{DiskDone, DiskResult};
    use madsim::runtime::Runtime;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn disk(seed: u64) -> NodeDisk {
        let speed = Speed {
            read_us: 2_000,
            write_us: 3_000,
            sync_us: 20_000,
        };
        NodeDisk::new(DiskModel::new(1 << 20), Keyed::new(seed, "disk"), speed)
    }
    fn simulate<F: Future<Output = ()> + Send + 'static>(test: fn(u64) -> F) {
        for seed in 0..20 {
            let run = move || {
                Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(test(seed))
            };
            std::thread::spawn(run).join().unwrap();
        }
    }
    fn create() -> DiskOp {
        DiskOp::Create {
            file: FileName::new("a"),
            zeroed: 0,
        }
    }
    fn write(nth: u8) -> DiskOp {
        DiskOp::Write {
            file: FileName::new("a"),
            offset: 0,
            data: vec![Bytes::from(vec![nth; 100])],
            sync: SyncMode::Later,
        }
    }
    async fn completed(
        completions: &mut UnboundedReceiver<(Ticket, DiskResult)>,
        tickets: u64,
    ) -> Vec<u64> {
        let mut done = Vec::new();
        for _ in 0..tickets {
            let (ticket, result) = completions.recv().await.expect("the disk is there");
            assert_eq!(result, Ok(DiskDone::Done));
            done.push(ticket.0);
        }
        done
    }

    #[test]
    fn operations_on_one_file_keep_their_order_whatever_their_latencies() {
        simulate(|seed| async move {
            let disk = disk(seed);
            let (sender, mut completions) = unbounded_channel();
            let mut opened = disk.open(sender);
            opened.submit(Ticket(0), create());
            for nth in 1..30 {
                opened.submit(Ticket(nth), write(u8::try_from(nth).unwrap()));
            }
            let done = completed(&mut completions, 30).await;
            assert!(done.is_sorted());
            disk.look(|model| assert_eq!(model.contents("a"), Some(vec![29; 100].into())));
        });
    }

    #[test]
    fn a_dead_process_changes_nothing_any_more_and_its_last_writes_are_a_prefix() {
        simulate(|seed| async move {
            let disk = disk(seed);
            let (sender, mut completions) = unbounded_channel();
            let mut dead = disk.open(sender);
            dead.submit(Ticket(0), create());
            completed(&mut completions, 1).await;
            for nth in 1..30 {
                dead.submit(Ticket(nth), write(u8::try_from(nth).unwrap()));
            }
            disk.kill();
            let left = disk.look(|model| model.contents("a")).unwrap();
            dead.submit(Ticket(30), write(77));
            sleep_a_while().await;
            disk.look(|model| assert_eq!(model.contents("a"), Some(left.clone())));
            assert!(
                left.is_sorted_by(|a, b| a >= b),
                "one write, over the one before: {left:?}"
            );
            assert!(completions.try_recv().is_err(), "nobody is told");
        });
    }

    #[test]
    fn a_trip_stops_the_disk_at_that_operation() {
        simulate(|seed| async move {
            let disk = disk(seed);
            let (sender, mut completions) = unbounded_channel();
            let mut opened = disk.open(sender);
            let bell = Arc::new(Notify::new());
            disk.trip_after(3, bell.clone());
            opened.submit(Ticket(0), create());
            for nth in 1..10 {
                opened.submit(Ticket(nth), write(u8::try_from(nth).unwrap()));
            }
            bell.notified().await;
            sleep_a_while().await;
            let left = disk.look(|model| model.contents("a").map(Vec::from));
            // The operation itself is in flight, or done.
            assert!(
                [vec![2; 100], vec![3; 100]].map(Some).contains(&left),
                "{left:?}"
            );
            assert_eq!(completed(&mut completions, 3).await, [0, 1, 2]);
            assert!(disk.disarm(), "it struck");
        });
    }

    #[test]
    fn a_stalled_disk_does_nothing_and_then_all_of_it_in_order() {
        simulate(|seed| async move {
            let disk = disk(seed);
            let (sender, mut completions) = unbounded_channel();
            let mut opened = disk.open(sender);
            opened.submit(Ticket(0), create());
            completed(&mut completions, 1).await;
            opened.submit(Ticket(1), write(1));
            disk.alter(|model| model.inject(&DiskFault::Stall));
            for nth in 2..30 {
                opened.submit(Ticket(nth), write(u8::try_from(nth).unwrap()));
            }
            sleep_a_while().await;
            assert!(completions.try_recv().is_err(), "nothing comes back");
            disk.look(|model| assert_eq!(model.contents("a"), Some(Bytes::new())));
            disk.alter(DiskModel::heal);
            assert!(completed(&mut completions, 29).await.is_sorted());
            disk.look(|model| {
                assert_eq!(model.contents("a"), Some(vec![29; 100].into()));
                assert_eq!(model.fault_counts()[Effect::Stalled], 28);
            });
        });
    }

    #[test]
    fn a_slow_disk_is_so_many_times_slower_and_a_swapped_one_is_the_other_s() {
        simulate(|seed| async move {
            let (healthy, slow) = (disk(seed), disk(seed));
            slow.alter(|model| model.inject(&DiskFault::Slow { factor: 50 }));
            let mut took = Vec::new();
            for disk in [&healthy, &slow] {
                let (sender, mut completions) = unbounded_channel();
                let mut opened = disk.open(sender);
                let start = Instant::now();
                opened.submit(Ticket(0), create());
                opened.submit(Ticket(1), write(took.len().to_le_bytes()[0]));
                for nth in 2..12 {
                    let file = FileName::new("a");
                    opened.submit(Ticket(nth), DiskOp::Sync { file });
                }
                completed(&mut completions, 12).await;
                took.push(start.elapsed());
                disk.kill();
            }
            // The runtime's clock is whole milliseconds coarse where it wakes a task.
            assert!(
                took[1] >= took[0].saturating_sub(Duration::from_millis(4)) * 49,
                "{took:?}"
            );
            healthy.swap(&slow);
            healthy.swap(&healthy);
            healthy.look(|model| assert_eq!(model.contents("a"), Some(vec![1; 100].into())));
            slow.look(|model| assert_eq!(model.contents("a"), Some(vec![0; 100].into())));
        });
    }

    async fn sleep_a_while() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
