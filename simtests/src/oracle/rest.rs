//! What is judged when a run has come to rest, everything healed and read back: the log against the machine
//! (O7), the tree against the reference namespace (O6), replicas against one another (O4), the status against
//! the disks (O12), the state and its history (O5), and the order of operations once more without their
//! sequence numbers (O1).
//!
//! It looks at disks as they are and at the meta server's machine, and asks nobody anything.
use super::equal::{self, Closed, Shelf};
use super::meta::StateHistory;
use super::{Verdicts, Violation, log, names, order, status, temporary, wing_gong};
use crate::disk::DiskModel;
use crate::observe::record::Record;
use kfs_core::identity::Identity;
use kfs_core::ids::{ChunkId, ServerIndex};
use kfs_core::limits::Geometry;
use kfs_core::meta::Meta;
use kfs_core::meta::record::{Logged, Record as Logs};
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::Drain;
use std::collections::BTreeSet;

/// States that the search for an order may take per answer; a history that needs more counts as undecided.
const STATES_MAX: usize = 1_000;

/// A cluster at rest.
#[derive(Clone, Copy, Debug)]
pub struct AtRest<'a> {
    /// The meta server's disk.
    pub meta_disk: &'a DiskModel,
    /// Its machine, if it can be looked at.
    pub meta: Option<&'a Meta>,
    /// Every chunkserver's name and disk.
    pub servers: &'a [(&'a str, &'a DiskModel)],
    /// The sizes files are cut into.
    pub geometry: Geometry,
    /// Chunkservers on whose disks something is not as they left it.
    pub hurt: &'a BTreeSet<&'a str>,
}

/// How much was judged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Judged {
    /// Pairs of replicas that had to be equal.
    pub replicas_equal: u64,
    /// Histories for which no order was found and none was ruled out.
    pub undecided: u64,
}

/// Judges a cluster at rest by what is kept of its run.
///
/// # Errors
/// The first promise that is broken, and who else saw one.
pub fn check(at: AtRest<'_>, record: &Record) -> Result<Judged, Violation> {
    let mut judged = Judged::default();
    let records = log::records(at.meta_disk)?;
    let logged = State::replay(&records).map_err(|why| Violation::new("O7", "N3", why))?;
    let mut verdicts = Verdicts::default();
    if let Some(meta) = at.meta
        && let Some(live) = meta.state()
        && meta.durable() == Some(live.seq())
        && let Some(difference) = logged.difference(live)
    {
        let what = format!("the log on the disk against the machine: {difference}");
        verdicts.hear::<()>(Err(Violation::new("O7", "N3", what)));
    }
    verdicts.hear(grows(&records));
    verdicts.hear(members_stay(&records));
    verdicts.hear(drained_get_nothing(&records));
    verdicts.hear(temporary::check(&records, &logged));
    let shelves = shelves(&logged, at.servers);
    let closed = record.contents.closed();
    let how = |file| {
        if closed.contains_key(&file) {
            Closed::Acked
        } else {
            Closed::Abandoned
        }
    };
    let over = |file| record.contents.is_written_over(file);
    let compared = equal::check(&logged, &shelves, at.geometry, how, over, |server, _| {
        at.hurt.contains(server)
    });
    if let Some(compared) = verdicts.hear(compared) {
        judged.replicas_equal = compared.equal;
    }
    let replayed = order::replay(&record.operations, record.sessions_lost.clone());
    verdicts.hear(replayed.checked);
    if let Some(reference) = replayed.reference {
        verdicts.hear(names::check(&logged, &reference));
    }
    // What is damaged is in the status when somebody has met it.
    if let Some(status) = at.meta.and_then(Meta::status)
        && at.hurt.is_empty()
    {
        verdicts.hear(status::Truth::of(&logged, &shelves, at.geometry).agrees(&status));
    }
    let lost: BTreeSet<u32> = record.sessions_lost.keys().copied().collect();
    let order = wing_gong::check(&record.operations, &lost, STATES_MAX);
    if let Some(wing_gong::Verdict::Undecided { .. }) = verdicts.hear(order) {
        judged.undecided = 1;
    }
    verdicts.end().map(|()| judged)
}

/// A chunk of a file that nobody writes has no fewer members after a record than before, unless it has as many as the
/// file asks for: who is to get another replica keeps the one it has until then.
///
/// # Errors
/// The first record after which it has.
fn members_stay(records: &[Logged]) -> Result<(), Violation> {
    let mut state = State::default();
    for logged in records {
        let before = match &logged.record {
            Logs::MembersChanged(changed) => state.chunk(changed.chunk),
            _ => None,
        };
        let broken = |why| Violation::new("O7", "N3", why);
        state.apply(logged).map_err(broken)?;
        let Some(before) = before.filter(|before| state.writer(before.file).is_none()) else {
            continue;
        };
        let now = state.chunk(before.chunk).map_or(0, |now| now.members.len());
        let least = before.members.len().min(usize::from(before.wanted));
        if now < least {
            let (seq, chunk, members) = (logged.seq, before.chunk, before.members.len());
            let what = format!(
                "record {seq}: chunk {chunk} is at rest and had {members} members; it has {now} now, and {} are wanted",
                before.wanted
            );
            return Err(Violation::new("O4", "L", what));
        }
    }
    Ok(())
}

/// No new chunk is given to a server while it is drained.
///
/// # Errors
/// The first record that gives it one.
fn drained_get_nothing(records: &[Logged]) -> Result<(), Violation> {
    let mut draining = BTreeSet::new();
    for logged in records {
        match &logged.record {
            Logs::ServerDrains(drains) => match drains.drain {
                Drain::Begin => drop(draining.insert(drains.index)),
                Drain::End => drop(draining.remove(&drains.index)),
            },
            Logs::ChunkOpened(opened) => {
                if let Some(server) = opened.members.iter().find(|at| draining.contains(at)) {
                    let (seq, chunk) = (logged.seq, opened.chunk);
                    let what = format!(
                        "record {seq}: chunk {chunk} is given to server {server}, which is being drained"
                    );
                    return Err(Violation::new("O5", "L", what));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether nobody writes a file any more, and the log says of every chunk that has something to be read what its
/// replicas hold.
#[must_use]
pub fn is_sealed(state: &State) -> bool {
    let mut chunks = state.chunks();
    chunks.all(|owned| {
        state.writer(owned.file).is_none() && (owned.sealed.is_some() || owned.log.len == 0)
    })
}

/// What a log's states were, they may become: looked at after each third of it.
fn grows(records: &[Logged]) -> Result<(), Violation> {
    let mut history = StateHistory::default();
    for cut in [records.len() / 3, 2 * records.len() / 3, records.len()] {
        let earlier = State::replay(&records[..cut]);
        let earlier = earlier.map_err(|why| Violation::new("O7", "N3", why))?;
        history.observe(&earlier, earlier.seq())?;
    }
    Ok(())
}

/// The disks of chunkservers, each with its server's place in the roster.
#[must_use]
pub fn shelves<'a>(state: &State, servers: &[(&'a str, &'a DiskModel)]) -> Vec<Shelf<'a>> {
    let shelf = |(name, disk): &(&'a str, &'a DiskModel)| Shelf {
        server: server_of(state, disk),
        name,
        disk,
    };
    servers.iter().map(shelf).collect()
}

/// Whose disk it is, as the log knows its server.
fn server_of(state: &State, disk: &DiskModel) -> Option<ServerIndex> {
    let identity = Identity::decode(&disk.contents("identity")?).ok()?;
    let mut known = state.servers();
    let (server, _) = known.find(|(_, node)| *node == identity.node)?;
    Some(server)
}

/// Whether the server whose disk it is is a member of a chunk.
#[must_use]
pub fn is_member(state: &State, disk: &DiskModel, chunk: ChunkId) -> bool {
    let owned = state.chunk(chunk);
    owned.is_some_and(|owned| {
        server_of(state, disk).is_some_and(|server| owned.members.contains(&server))
    })
}
