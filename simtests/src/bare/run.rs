//! One run of a bare cluster: clients do their jobs while faults strike; then everything is healed, loses power
//! once more, and all that was acked is read back.
use super::sim::Sim;
use crate::disk::DiskModel;
use crate::observe::record::{Hurt, Record};
use crate::oracle::rest::{self, AtRest};
use crate::oracle::status::Truth;
use crate::oracle::{Verdicts, Violation, equal, log, order, replicas};
use crate::outcome::{Outcome, Totals};
use crate::run::caught;
use crate::schedule::{Class, Schedule};
use kfs_core::limits::HEADER_BYTES;
use kfs_core::meta::Meta;
use kfs_core::meta::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long clients may take for all their work, faults included.
const WORK_MAX: Duration = Duration::from_secs(1_200);
/// How long servers may take to be ready once nothing fails.
pub const READY_MAX: Duration = Duration::from_secs(60);
/// How long the auditor may take.
const AUDIT_MAX: Duration = Duration::from_secs(120);
/// After so long every chunk was looked at, and what lacks copies is known.
const LOOKED: Duration = Duration::from_secs(3);
/// How long copies may take.
const COPIES_MAX: Duration = Duration::from_secs(120);
/// After so long nothing is on its way any more, if nothing fails.
const SETTLES: Duration = Duration::from_secs(2);
/// How often it is waited for that.
const STILL_MAX: usize = 30;
/// After so long what nobody writes any more is sealed: sessions are over, and all chunks were looked through.
const RESTS: Duration = Duration::from_secs(120);
/// How long it may take if what is lost is asked for until the call's time is up.
const AUDIT_OF_LOSSES_MAX: Duration = Duration::from_secs(1_200);

/// Runs a schedule on this thread.
#[must_use]
pub fn run(schedule: Arc<Schedule>, record: Record) -> Outcome {
    let mut sim = Sim::new(schedule, record);
    let mut totals = Totals::of_one();
    // What was kept until a panic is still judged by who looks at the trace, so the cluster stays outside.
    let lived = caught(|| live(&mut sim)).flatten();
    sim.record.check(lived);
    let judged = caught(|| judge(&mut sim, &mut totals));
    sim.record.check(judged);
    sim.record.finish(totals)
}

fn live(sim: &mut Sim) -> Result<(), Violation> {
    ready(sim)?;
    for client in 0..sim.schedule.clients.len() {
        sim.start_client(client);
    }
    sim.unleash();
    work(sim)?;
    sim.heal_all();
    ready(sim)?;
    if sim.schedule.class == Class::Clean {
        lived_in(sim)?;
    }
    sim.power_cycle();
    members_are_there(sim)?;
    ready(sim)?;
    let mut verdicts = Verdicts::default();
    verdicts.hear(audit(sim));
    verdicts.hear(copies(sim));
    // It is at rest also if what was read is wrong.
    verdicts.hear(rest(sim));
    verdicts.hear(sealed(sim));
    verdicts.end()
}

/// What a meta server that has served for a while says of the cluster is true: a start counts everything anew.
fn lived_in(sim: &mut Sim) -> Result<(), Violation> {
    sim.run_until(SETTLES, |_| false);
    let Some(status) = sim.meta().and_then(Meta::status) else {
        return Ok(());
    };
    truth(sim)?.agrees(&status)
}

/// What the log on the meta server's disk comes to.
fn logged(sim: &Sim) -> Result<State, Violation> {
    let records = log::records(sim.disk(0))?;
    State::replay(&records).map_err(|why| Violation::new("O7", "N3", why))
}

fn chunkservers(sim: &Sim) -> Vec<(&str, &DiskModel)> {
    (1..sim.servers())
        .map(|server| (&*sim.nodes[server].name, sim.disk(server)))
        .collect()
}

/// The servers whose disks no promise covers.
fn hurt(sim: &Sim) -> BTreeSet<&str> {
    sim.hurt.iter().map(|at| &*sim.nodes[*at].name).collect()
}

fn truth(sim: &Sim) -> Result<Truth, Violation> {
    let logged = logged(sim)?;
    let shelves = rest::shelves(&logged, &chunkservers(sim));
    Ok(Truth::of(&logged, &shelves, sim.schedule.geometry))
}

/// Who the log says has a replica has it, durably: looked at before copies are made of what is missing.
fn members_are_there(sim: &Sim) -> Result<(), Violation> {
    if sim.record.violation.is_some() || sim.hurt.contains(&0) {
        return Ok(());
    }
    let hurt = hurt(sim);
    let logged = logged(sim)?;
    let shelves = rest::shelves(&logged, &chunkservers(sim));
    equal::members_are_there(&logged, &shelves, |server| hurt.contains(server))
}

/// Waits until nothing was decided about replicas for a while: what was decided then is on disks, and done.
fn still(sim: &mut Sim) {
    let decided = |sim: &Sim| {
        let status = sim.meta().and_then(Meta::status);
        status.map(|status| (status.log_seq, status.replication_work))
    };
    for _ in 0..STILL_MAX {
        let before = decided(sim);
        sim.run_until(SETTLES, |_| false);
        if decided(sim) == before {
            return;
        }
    }
}

/// Waits until copies are made where they are missing, and trimmed where there are too many.
fn copies(sim: &mut Sim) -> Result<(), Violation> {
    if sim.hurt.contains(&0) {
        return Ok(());
    }
    still(sim);
    if sim.meta().is_none_or(|meta| meta.copies_uneven() == 0) {
        return Ok(());
    }
    let since = sim.now();
    let busy = |sim: &Sim| {
        let status = sim.meta().and_then(Meta::status);
        status.is_some_and(|status| {
            status.replication_work.waiting + status.replication_work.copying > 0
        })
    };
    let looked = u64::try_from(LOOKED.as_nanos()).expect("a few seconds");
    sim.run_until(COPIES_MAX, |sim| sim.now() >= since + looked && !busy(sim));
    still(sim);
    let status = sim.meta().and_then(Meta::status);
    let judged = sim.hurt.is_empty() && sim.schedule.class != Class::Safe;
    let Some(status) = status.filter(|status| judged && status.read_only.is_none()) else {
        return Ok(());
    };
    let geometry = sim.schedule.geometry;
    // Nothing is owed by who is full.
    let room = 3 * (HEADER_BYTES + geometry.chunk_bytes());
    if status.servers.iter().any(|server| server.bytes_free < room) {
        return Ok(());
    }
    truth(sim)?.copies_are_made()
}

/// Waits until all chunks are sealed, in a run that is about that: then their members hold just what the log says.
fn sealed(sim: &mut Sim) -> Result<(), Violation> {
    if !sim.schedule.rests || sim.record.violation.is_some() || !sim.hurt.is_empty() {
        return Ok(());
    }
    let is_sealed = |sim: &Sim| {
        sim.meta()
            .and_then(Meta::state)
            .is_some_and(rest::is_sealed)
    };
    for _ in 0..RESTS.as_nanos() / SETTLES.as_nanos() {
        if is_sealed(sim) {
            break;
        }
        sim.run_until(SETTLES, |_| false);
    }
    // What the log of the machine has is on its disk then.
    still(sim);
    let logged = logged(sim)?;
    equal::sealed_as_held(&logged, &rest::shelves(&logged, &chunkservers(sim)))
}

/// Judges the cluster as it stands, once nobody works any more.
///
/// # Errors
/// The first promise that is broken.
pub fn rest(sim: &mut Sim) -> Result<(), Violation> {
    // A log that was hurt does not say what was acked.
    if sim.record.violation.is_some() || sim.hurt.contains(&0) {
        return Ok(());
    }
    let (servers, hurt) = (chunkservers(sim), hurt(sim));
    let at = AtRest {
        meta_disk: sim.disk(0),
        meta: sim.meta(),
        servers: &servers,
        geometry: sim.schedule.geometry,
        hurt: &hurt,
    };
    let judged = rest::check(at, &sim.record)?;
    sim.record.counts.undecided += judged.undecided;
    sim.record.counts.replicas_equal += judged.replicas_equal;
    Ok(())
}

/// Waits until every server is ready.
///
/// # Errors
/// If that takes too long.
pub fn ready(sim: &mut Sim) -> Result<(), Violation> {
    let ready = sim.run_until(READY_MAX, Sim::all_ready);
    // Without a meta server nobody is.
    if ready || sim.record.violation.is_some() || sim.is_excused(0) {
        return Ok(());
    }
    let missing: Vec<&str> = (0..sim.servers())
        .filter(|server| !sim.record.ready.contains(server) && !sim.is_excused(*server))
        .map(|server| &*sim.nodes[server].name)
        .collect();
    let what = format!(
        "{READY_MAX:?} after all faults ended, not ready: {}",
        missing.join(", ")
    );
    Err(Violation::new("O9", "L", what))
}

/// Waits until every client has done its jobs.
///
/// # Errors
/// If that takes too long.
pub fn work(sim: &mut Sim) -> Result<(), Violation> {
    if sim.run_until(WORK_MAX, Sim::clients_done) || sim.record.violation.is_some() {
        return Ok(());
    }
    let what = format!("a client's call was not answered within {WORK_MAX:?}");
    Err(Violation::new("O9", "L", what))
}

/// Reads everything there is, with everything up, and looks at every disk.
///
/// # Errors
/// If something that was acked is not there.
pub fn audit(sim: &mut Sim) -> Result<(), Violation> {
    if sim.record.violation.is_some() {
        return Ok(());
    }
    sim.audit();
    let most = match sim.schedule.class {
        Class::Live | Class::Clean => AUDIT_MAX,
        Class::Safe => AUDIT_OF_LOSSES_MAX,
    };
    let audited = sim.run_until(most, |sim| sim.audited().is_some());
    let verdict = sim.audited();
    sim.end_audit();
    if sim.record.violation.is_some() {
        return Ok(());
    }
    match verdict {
        Some(Ok(())) if audited => {}
        // What may be lost may be missed.
        Some(Err(what)) if sim.schedule.class != Class::Safe && !sim.hurt.contains(&0) => {
            let what = format!("with everything healed, {what}");
            return Err(Violation::new("O3", "L", what));
        }
        Some(_) => {}
        // Every call of it ends, at the latest by its time-out.
        None => {
            let what = format!("with everything healed, the auditor was not done in {most:?}");
            return Err(Violation::new("O9", "L", what));
        }
    }
    check_disks(sim)
}

/// Every replica of every chunk that holds bytes of a file is there, and is right, on every disk that was not
/// hurt.
fn check_disks(sim: &mut Sim) -> Result<(), Violation> {
    if sim.hurt.contains(&0) {
        return Ok(());
    }
    let logged = logged(sim)?;
    let now = sim.record.tick();
    let geometry = sim.schedule.geometry;
    let mut verified = 0;
    for (located, there) in sim.record.located.values() {
        if located.log.len == 0 {
            continue;
        }
        let mut held = 0;
        for server in (1..sim.servers()).filter(|server| !sim.hurt.contains(server)) {
            let contents = &sim.record.contents;
            let name = &sim.nodes[server].name;
            let disk = sim.disk(server);
            let whose = (&**name, rest::is_member(&logged, disk, located.chunk));
            let found = replicas::check(disk, whose, located, geometry, contents, now);
            if let Some(bytes) = found? {
                held += 1;
                verified += bytes;
            }
        }
        let hurt = Hurt::of(sim.hurt.len(), &sim.schedule);
        if !there.is_enough(held, hurt, &sim.schedule) {
            let what = format!(
                "{located:?}: {held} replicas are on disks, the meta server counts {there:?}"
            );
            return Err(Violation::new("O3", "D2", what));
        }
    }
    sim.record.verified_on_disk += verified;
    Ok(())
}

/// What only the whole run shows.
pub fn judge(sim: &mut Sim, totals: &mut Totals) {
    if !sim.hurt.contains(&0) {
        let checked = order::check(&sim.record.operations, sim.record.sessions_lost.clone());
        if let Ok(checked) = &checked {
            totals.replies_certain = checked.certain;
            totals.replies_uncertain = checked.uncertain;
        }
        sim.record.check(checked);
    }
    totals.count(sim.record.counts, sim.crashes);
    totals.bytes_verified = sim.record.contents.verified;
    totals.bytes_verified_on_disk = sim.record.verified_on_disk;
    totals.faults.clone_from(&sim.faults);
    totals.disk_operations = (0..sim.servers())
        .filter_map(|server| sim.nodes[server].disk.as_ref())
        .map(|disk| disk.operations)
        .sum();
    totals.simulated = Duration::from_nanos(sim.now());
}
