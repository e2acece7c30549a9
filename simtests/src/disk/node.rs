//! One node's disk behind the drivers' [`kfs_drive::Disk`]: latencies, order, incarnations, and what a crash
//! does to the operations in flight.
//!
//! The disk outlives the processes on its node. Each process opens it anew; what an older process still asks
//! for is refused, because futures of a killed node are dropped some time after the kill.
use super::crash::{Crash, Policy};
use super::model::DiskModel;
use super::queue::{Carried, Queue};
use crate::keyed::Keyed;
use crate::schedule::Speed;
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, SyncMode};
use kfs_drive::{Completions, Disk};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A node's disk. Cloned freely: there is one.
#[derive(Clone)]
pub struct NodeDisk(Arc<Mutex<Shelf>>);

struct Shelf {
    model: DiskModel,
    queue: Queue<Instant>,
    /// Which process may use it.
    incarnation: u64,
    counts: Counts,
    /// Who is told when the crash that is armed is due, and whether it was.
    trip: Option<(Arc<Notify>, Tripped)>,
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

/// Whether a crash at an operation is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tripped {
    No,
    Yes,
}

impl NodeDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(model: DiskModel, draws: Keyed, speed: Speed) -> Self {
        Self(Arc::new(Mutex::new(Shelf {
            model,
            queue: Queue::new(draws, speed),
            incarnation: 0,
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
        shelf.queue.kill_at_once();
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
        let shelf = &mut *shelf;
        shelf.queue.kill(&mut shelf.model);
    }

    /// The power fails: the process dies and pending operations survive as the policy says.
    pub fn power_loss(&self, policy: Policy) -> Crash {
        self.kill();
        let mut shelf = self.shelf();
        let shelf = &mut *shelf;
        shelf.queue.power_loss(policy, &mut shelf.model)
    }

    /// Rings the bell when so many more operations that change something were carried out, and the next one is
    /// in flight or was carried out too; until the process is killed the disk then does nothing more.
    pub fn trip_after(&self, operations: u64, bell: Arc<Notify>) {
        let mut shelf = self.shelf();
        shelf.queue.trip_after(operations);
        shelf.trip = Some((bell, Tripped::No));
    }

    /// Takes a trip back. Gives whether it came too late: the disk does nothing more until it is opened again.
    #[must_use]
    pub fn disarm(&self) -> bool {
        let mut shelf = self.shelf();
        shelf.queue.disarm();
        matches!(shelf.trip.take(), Some((_, Tripped::Yes)))
    }

    /// Changes its speed from now on.
    pub fn set_speed(&self, speed: Speed) {
        self.shelf().queue.set_speed(speed);
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
        let takes = shelf.queue.takes_ns(&mut shelf.model, &op);
        let at = Instant::now() + Duration::from_nanos(takes);
        shelf.queue.submit(at, ticket, op);
        self.work.notify_one();
    }
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
        loop {
            let (ticket, op, result) = match self.queue.carry_out(Instant::now(), &mut self.model) {
                Carried::Done(ticket, op, result) => (ticket, op, result),
                Carried::Tripped => return self.rings(),
                Carried::NotBefore(at) => return Next::At(at),
                Carried::Stalled | Carried::Nothing => return Next::Idle,
            };
            self.counts.operations += 1;
            self.counts.syncs += u64::from(matches!(
                op,
                DiskOp::Sync { .. }
                    | DiskOp::SyncDir { .. }
                    | DiskOp::SyncAll { .. }
                    | DiskOp::Write {
                        sync: SyncMode::Now,
                        ..
                    }
            ));
            if completions.send((ticket, result)).is_err() {
                return Next::Stop;
            }
        }
    }

    fn rings(&mut self) -> Next {
        if let Some((bell, tripped)) = &mut self.trip {
            bell.notify_one();
            *tripped = Tripped::Yes;
        }
        // Shut out, so that nothing more happens before the kill.
        self.incarnation += 1;
        Next::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faults::{DiskFault, Effect};
    use bytes::Bytes;
    use kfs_core::machine::FileName;
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
