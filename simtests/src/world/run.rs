//! One run: a cluster, its clients, its faults; then everything is healed, loses power once more, and all
//! that was acked is read back.
use super::cluster::{Cluster, server_name};
use super::shared::Shared;
use crate::disk::DiskModel;
use crate::keyed::Keyed;
use crate::observe::overseer::Overseer;
use crate::observe::record::Hurt;
use crate::oracle::bounds::OnTheirWay;
use crate::oracle::rest::{self, AtRest};
use crate::oracle::status::Truth;
use crate::oracle::{Verdicts, Violation, equal, log, order, replicas};
use crate::outcome::Totals;
use crate::schedule::{Class, Schedule};
use crate::workload::client::{list, read_all};
use kfs_core::meta::state::State;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Kind, ServerState};
use madsim::runtime::Runtime;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long clients may take for all their work, faults included.
const WORK_MAX: Duration = Duration::from_secs(1_200);
/// How long servers may take to be ready once nothing fails.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long copies may take, in seconds.
const COPIES_SECONDS_MAX: u32 = 60;
/// After so many seconds what nobody writes any more is sealed.
const RESTS_SECONDS_MAX: u32 = 120;
/// The client process that reads everything back.
const VERIFIER: u32 = 1_000_000;

/// Runs a schedule on this thread, which must be a fresh one: what a thread keeps would make the next run differ.
pub fn simulate(setup: Arc<Schedule>, record: Shared) -> Totals {
    let runtime = Runtime::with_seed_and_config(setup.seed, madsim::Config::default());
    runtime.block_on(async move {
        let begun = tokio::time::Instant::now();
        let overseer = Overseer::new(&setup, OnTheirWay::DRIVE);
        record.lock().overseer = Some(Box::new(overseer));
        let cluster = Cluster::start(Arc::clone(&setup), record.clone());
        let _plugged = cluster.wire().plug();
        let mut totals = Totals::default();
        let result = live(&cluster, &record, &setup, &mut totals).await;
        cluster.end().await;
        let held_by = cluster.wire().held_by();
        assert_eq!(
            held_by, 0,
            "links or tasks outlive their run and fill the memory of a sweep"
        );
        let mut kept = record.lock();
        kept.check(result);
        // A log that was hurt does not say what was acked.
        if !cluster.hurt().contains(&0) {
            let checked = order::check(&kept.operations, kept.sessions_lost.clone());
            if let Ok(checked) = &checked {
                totals.replies_certain = checked.certain;
                totals.replies_uncertain = checked.uncertain;
            }
            kept.check(checked);
        }
        totals.count(kept.counts, cluster.crashes());
        totals.bytes_verified = kept.contents.verified;
        totals.faults = cluster.faults();
        let explained = cluster.wire().explains(kept.malformed);
        kept.check(explained);
        totals.faults.extend(cluster.wire().effects().named());
        totals.disk_operations = cluster.disk_operations();
        totals.simulated = begun.elapsed();
        totals
    })
}

async fn live(
    cluster: &Cluster,
    record: &Shared,
    setup: &Schedule,
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
    let hurt = cluster.hurt();
    let hurt_chunkservers = hurt.iter().filter(|server| **server > 0).count();
    let (seed, up) = (setup.seed, setup.servers - 1 - hurt_chunkservers);
    record.lock().located.clear();
    let verifier = madsim::runtime::Handle::current()
        .create_node()
        .name("verifier")
        .ip(std::net::Ipv4Addr::new(192, 0, 2, 200).into())
        .build();
    let read = verifier.spawn(async move { read_back(&ours, &theirs, seed, up).await });
    let result = read.await;
    madsim::runtime::Handle::current().kill(verifier.id());
    let result =
        result.unwrap_or_else(|_| Err(Violation::new("O9", "L", "the verifier did not end")));
    // What may be lost may be missed; a log that was hurt does not say what was acked.
    if hurt.contains(&0) {
        return Ok(());
    }
    match result {
        Err(violation) if setup.class == Class::Safe && violation.promise == "L" => {}
        result => result?,
    }
    copies_settle(cluster, setup).await?;
    let mut verdicts = Verdicts::default();
    let verified = verdicts.hear(check_disks(cluster, record, setup));
    totals.bytes_verified_on_disk = verified.unwrap_or_default();
    // It is at rest also if what is on the disks is wrong.
    verdicts.hear(judge_rest(cluster, record, setup));
    if setup.rests && hurt.is_empty() {
        verdicts.hear(sealed(cluster).await);
    }
    verdicts.end()
}

/// Waits until copies are made where they are missing, and trimmed where there are too many.
async fn copies_settle(cluster: &Cluster, setup: &Schedule) -> Result<(), Violation> {
    let mut before = Vec::new();
    let mut same = 0;
    for _ in 0..COPIES_SECONDS_MAX {
        let disks = cluster.look(|name, disk| (name.to_owned(), disk.clone()));
        let files = |(_, disk): &(String, DiskModel)| disk.paths().map(str::to_owned).collect();
        let now: Vec<Vec<String>> = disks.iter().map(files).collect();
        if same == 0 {
            let logged = State::replay(&log::records(&cluster.meta_disk())?);
            let logged = logged.map_err(|why| Violation::new("O7", "N3", why))?;
            let servers: Vec<_> = disks.iter().map(|(name, disk)| (&**name, disk)).collect();
            let shelves = rest::shelves(&logged, &servers);
            if Truth::of(&logged, &shelves, setup.geometry).is_even() {
                return Ok(());
            }
        }
        let copying = now.iter().flatten().any(|path| path.ends_with(".copy"));
        same = if before == now && !copying {
            same + 1
        } else {
            1
        };
        // Every chunk is looked at within a second or two.
        if same > 4 {
            break;
        }
        before = now;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Waits until all chunks are sealed: then their members hold just what the log says.
async fn sealed(cluster: &Cluster) -> Result<(), Violation> {
    let logged = || {
        let logged = State::replay(&log::records(&cluster.meta_disk())?);
        logged.map_err(|why| Violation::new("O7", "N3", why))
    };
    for _ in 0..RESTS_SECONDS_MAX {
        if rest::is_sealed(&logged()?) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    let disks = cluster.look(|name, disk| (name.to_owned(), disk.clone()));
    let servers: Vec<_> = disks.iter().map(|(name, disk)| (&**name, disk)).collect();
    let logged = logged()?;
    equal::sealed_as_held(&logged, &rest::shelves(&logged, &servers))
}

/// Judges the cluster as it stands, once nobody works any more.
fn judge_rest(cluster: &Cluster, record: &Shared, setup: &Schedule) -> Result<(), Violation> {
    let disks = cluster.look(|name, disk| (name.to_owned(), disk.clone()));
    let hurt: Vec<String> = cluster.hurt().into_iter().map(server_name).collect();
    let hurt: BTreeSet<&str> = hurt.iter().map(String::as_str).collect();
    let servers: Vec<(&str, &DiskModel)> = disks
        .iter()
        .map(|(name, disk)| (name.as_str(), disk))
        .collect();
    let meta_disk = cluster.meta_disk();
    let mut record = record.lock();
    let at = AtRest {
        meta_disk: &meta_disk,
        // It runs in a task of its own.
        meta: None,
        servers: &servers,
        geometry: setup.geometry,
        hurt: &hurt,
    };
    let judged = rest::check(at, &record)?;
    record.counts.undecided += judged.undecided;
    record.counts.replicas_equal += judged.replicas_equal;
    Ok(())
}

/// Reads every file there is, with everything up.
async fn read_back(
    cluster: &Cluster,
    record: &Shared,
    seed: u64,
    servers_up: usize,
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
        if up.count() >= servers_up {
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
                let opened = record.lock().tick();
                let reader = kfs.open(&path).await?;
                read_all(record, (&reader, opened), &mut draws).await
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

/// Every replica of every chunk that holds bytes of a file is there, and is right, on every disk that was not
/// hurt.
fn check_disks(cluster: &Cluster, record: &Shared, setup: &Schedule) -> Result<u64, Violation> {
    let logged = State::replay(&log::records(&cluster.meta_disk())?);
    let logged = logged.map_err(|why| Violation::new("O7", "N3", why))?;
    let mut record = record.lock();
    let now = record.tick();
    let hurt: Vec<String> = cluster.hurt().into_iter().map(server_name).collect();
    let mut verified = 0;
    for (located, there) in record.located.values() {
        // A temporary file whose session ended since it was read: the oracle of names judges that.
        if located.log.len == 0 || logged.attrs(located.file).is_none() {
            continue;
        }
        let found = cluster.look(|server, disk| {
            if hurt.iter().any(|name| name == server) {
                return Ok(None);
            }
            let whose = (server, rest::is_member(&logged, disk, located.chunk));
            replicas::check(disk, whose, located, setup.geometry, &record.contents, now)
        });
        let mut held = 0;
        for replica in found {
            if let Some(bytes) = replica? {
                held += 1;
                verified += bytes;
            }
        }
        if !there.is_enough(held, Hurt::of(hurt.len(), setup), setup) {
            let what = format!(
                "{located:?}: {held} replicas are on disks, the meta server counts {there:?}"
            );
            return Err(Violation::new("O3", "D2", what));
        }
    }
    Ok(verified)
}
