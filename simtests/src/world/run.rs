//! One run: a cluster, its clients, its faults; then everything is healed, loses power once more, and all
//! that was acked is read back.
use super::cluster::{Cluster, Crashes};
use super::record::{Counts, Record, Shared};
use super::scenario::{Scenario, Setup};
use crate::keyed::Keyed;
use crate::oracle::{Violation, order, replicas};
use crate::workload::client::{list, read_all};
use kfs_core::buggify;
use kfs_core::planted::{self, Bug};
use kfs_core::probe;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Kind, ServerState};
use madsim::runtime::Runtime;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long clients may take for all their work, faults included.
const WORK_MAX: Duration = Duration::from_secs(1_200);
/// How long servers may take to be ready once nothing fails.
const READY_MAX: Duration = Duration::from_secs(60);
/// The client process that reads everything back.
const VERIFIER: u32 = 1_000_000;

/// What is to be run.
#[derive(Debug)]
pub struct Run {
    /// Which kind.
    pub scenario: Scenario,
    /// Which one of it.
    pub seed: u64,
    /// A mistake that is planted in the product for this run.
    pub bug: Option<Bug>,
    /// Where every event is written as a line of text.
    pub trace: Option<File>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Over every input and output of every machine (O13).
    pub hash: u64,
    /// What happened.
    pub totals: Totals,
}

/// What happened in a run, or in many.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Changes, syncs and closes that were acked.
    pub acked: u64,
    /// Questions and reads that were answered.
    pub answered: u64,
    /// Calls that the namespace refused.
    pub refused: u64,
    /// Calls that failed for another reason.
    pub failed: u64,
    /// Bytes that clients read and that were what their writer wrote.
    pub bytes_verified: u64,
    /// Bytes on disks that were what their writer wrote.
    pub bytes_verified_on_disk: u64,
    /// Replies that the reference namespace confirmed.
    pub replies_certain: u64,
    /// Replies of which it could say nothing.
    pub replies_uncertain: u64,
    /// Power losses of one server.
    pub power_losses: u64,
    /// Those that dropped or tore pending operations.
    pub crashes_that_dropped: u64,
    /// Pending operations dropped.
    pub dropped: u64,
    /// Pending writes torn.
    pub torn: u64,
    /// Events of machines.
    pub events: u64,
    /// Operations of disks.
    pub disk_operations: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Adds another run or runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.acked += other.acked;
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.bytes_verified += other.bytes_verified;
        self.bytes_verified_on_disk += other.bytes_verified_on_disk;
        self.replies_certain += other.replies_certain;
        self.replies_uncertain += other.replies_uncertain;
        self.power_losses += other.power_losses;
        self.crashes_that_dropped += other.crashes_that_dropped;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.events += other.events;
        self.disk_operations += other.disk_operations;
        self.simulated += other.simulated;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn count(&mut self, counts: Counts, crashes: Crashes) {
        self.runs = 1;
        self.acked = counts.acked;
        self.answered = counts.answered;
        self.refused = counts.refused;
        self.failed = counts.failed;
        self.events = counts.events;
        self.power_losses = crashes.power_losses;
        self.crashes_that_dropped = crashes.that_dropped;
        self.dropped = crashes.dropped;
        self.torn = crashes.torn;
    }
}

impl Run {
    /// Runs it, on a fresh thread: what a thread keeps would make the next run differ.
    ///
    /// # Panics
    /// If the thread cannot be made.
    #[must_use]
    pub fn execute(self) -> Outcome {
        let thread = std::thread::Builder::new()
            .name(format!("world:{} {}", self.scenario.name, self.seed))
            .spawn(move || {
                planted::plant(self.bug);
                let _ = probe::take();
                buggify::arm(self.seed, if self.scenario.is_clean() { 0 } else { 100 });
                let setup = Arc::new(self.scenario.setup(self.seed));
                let record = Shared::new(Record::new(self.seed, self.trace));
                let seen = record.clone();
                let run = std::panic::AssertUnwindSafe(move || simulate(setup, record));
                let totals = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                    let what = panic_text(&*panic);
                    let violation = Violation::new("panic", "L", what);
                    seen.lock().check::<()>(Err(violation));
                    Totals {
                        runs: 1,
                        ..Totals::default()
                    }
                });
                let mut record = seen.lock();
                record.finish();
                Outcome {
                    violation: record.violation.clone(),
                    hash: record.hash.0,
                    totals,
                }
            });
        let thread = thread.expect("a thread for the run");
        thread.join().expect("the run catches its panics")
    }
}

fn simulate(setup: Arc<Setup>, record: Shared) -> Totals {
    let runtime = Runtime::with_seed_and_config(setup.seed, madsim::Config::default());
    runtime.block_on(async move {
        let begun = tokio::time::Instant::now();
        let cluster = Cluster::start(Arc::clone(&setup), record.clone());
        let mut totals = Totals::default();
        let result = live(&cluster, &record, &setup, &mut totals).await;
        cluster.end().await;
        let mut kept = record.lock();
        kept.check(result);
        let checked = order::check(&kept.operations, kept.sessions_lost.clone());
        if let Ok(checked) = &checked {
            totals.replies_certain = checked.certain;
            totals.replies_uncertain = checked.uncertain;
        }
        kept.check(checked);
        totals.count(kept.counts, cluster.crashes());
        totals.bytes_verified = kept.contents.verified;
        totals.faults = cluster.faults();
        totals.disk_operations = cluster.disk_operations();
        totals.simulated = begun.elapsed();
        totals
    })
}

async fn live(
    cluster: &Cluster,
    record: &Shared,
    setup: &Setup,
    totals: &mut Totals,
) -> Result<(), Violation> {
    cluster.all_ready(READY_MAX).await?;
    cluster.start_clients();
    cluster.unleash();
    cluster.all_done(WORK_MAX).await?;
    cluster.heal_all();
    cluster.all_ready(READY_MAX).await?;
    cluster.power_cycle();
    cluster.all_ready(READY_MAX).await?;
    let (ours, theirs) = (cluster.clone(), record.clone());
    let (seed, servers) = (setup.seed, setup.servers);
    record.lock().located.clear();
    let verifier = madsim::runtime::Handle::current()
        .create_node()
        .name("verifier")
        .ip(std::net::Ipv4Addr::new(192, 0, 2, 200).into())
        .build();
    let read = verifier.spawn(async move { read_back(&ours, &theirs, seed, servers).await });
    let result = read.await;
    madsim::runtime::Handle::current().kill(verifier.id());
    result.unwrap_or_else(|_| Err(Violation::new("end", "L", "the verifier did not end")))?;
    totals.bytes_verified_on_disk = check_disks(cluster, record, setup)?;
    Ok(())
}

/// Reads every file there is, with everything up.
async fn read_back(
    cluster: &Cluster,
    record: &Shared,
    seed: u64,
    servers: usize,
) -> Result<(), Violation> {
    let kfs = cluster.client(VERIFIER);
    let failed =
        |what: String| Violation::new("O3", "L", format!("with everything healed, {what}"));
    for _ in 0..200 {
        let status = kfs
            .status()
            .await
            .map_err(|why| failed(format!("status: {why}")))?;
        let up = status
            .servers
            .iter()
            .filter(|server| server.state == ServerState::Up);
        if up.count() == servers - 1 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let mut draws = Keyed::new(seed, "verifier");
    let mut dirs = vec![Vec::new()];
    while let Some(dir) = dirs.pop() {
        let path = if dir.is_empty() {
            b"/".to_vec()
        } else {
            dir.clone()
        };
        let entries = list(&kfs, &path).await;
        let name = String::from_utf8_lossy(&path).into_owned();
        for entry in entries.map_err(|why| failed(format!("list {name}: {why}")))? {
            let mut path = dir.clone();
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            if entry.attrs.kind == Kind::Directory {
                dirs.push(path);
                continue;
            }
            let name = String::from_utf8_lossy(&path).into_owned();
            let read = async {
                let reader = kfs.open(&path).await?;
                read_all(record, &reader, &mut draws).await
            };
            match read.await {
                // A temporary file whose session ended meanwhile: the oracle of names judges the answer.
                Err(why) if why.status == Status::NotFound && kfs.stat(&path).await.is_err() => {}
                Err(why) => return Err(failed(format!("{name}, {}: {why}", entry.attrs.file))),
                Ok(()) => {}
            }
        }
    }
    kfs.disconnect().await;
    Ok(())
}

/// Every replica of every chunk that holds bytes of a file is there, and is right.
fn check_disks(cluster: &Cluster, record: &Shared, setup: &Setup) -> Result<u64, Violation> {
    let mut record = record.lock();
    let now = record.tick();
    let mut verified = 0;
    for (located, there) in record.located.values() {
        if located.log_len == 0 {
            continue;
        }
        let found = cluster.look(|server, disk| {
            replicas::check(disk, server, located, setup.geometry, &record.contents, now)
        });
        let mut held = 0;
        for replica in found {
            if let Some(bytes) = replica? {
                held += 1;
                verified += bytes;
            }
        }
        if there.absent > 0 || held < there.present {
            let what = format!(
                "{located:?}: {held} replicas are on disks, the meta server counts {there:?}"
            );
            return Err(Violation::new("O3", "D2", what));
        }
    }
    Ok(verified)
}

thread_local! {
    /// Where this thread last panicked, and why.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics of runs part of their outcome rather than text between others. Called once, by the command.
pub fn keep_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let of_a_run = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("world:"));
        if of_a_run {
            PANICKED.with_borrow_mut(|kept| *kept = Some(info.to_string().replace('\n', " ")));
        } else {
            usual(info);
        }
    }));
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = PANICKED.with_borrow_mut(Option::take) {
        return text;
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
        .to_owned()
}
