//! O8: nothing acknowledged is ever deleted. A collector in the shadow of the real ones: it sees every order
//! to delete, every verdict, and every operation of every chunkserver's disk.
//!
//! - The meta server orders away no replica that a file owns at that version, not then and not after a restart
//!   that lost the record the order rested on; and none that its log never issued. One of a server that is no member
//!   of the chunk goes only if a size rests on it, or its file is at rest, and it has as many members as that asks for.
//! - A chunkserver moves to `trash/` only what it was told to; it removes from `trash/` only what was there for
//!   its grace by its own clock, and from `chunks/` only what it made in this process and never said was made.
//! - Nothing in `chunks/` is cut or moved elsewhere, and replaced only by a copy that this process made.
//!
//! Times are of each server's own clock; a restart begins every grace anew, as the server knows no better. A
//! server is named by its place in the roster, or by any number that stays its own.
use super::equal::chunk_name;
use super::{Tick, Violation};
use kfs_core::ids::{ChunkId, NodeId, ServerIndex, Term, Version};
use kfs_core::machine::DiskOp;
use kfs_core::meta::state::State;
use kfs_core::time::Instant;
use kfs_core::wire::chunk_meta::Verdict;
use kfs_core::wire::{Head, Msg};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct ShadowCollector {
    grace: Duration,
    fewest: u8,
    /// Replicas that the meta server ordered away, from whom, and when first.
    ordered: BTreeMap<(ChunkId, Version), BTreeMap<u32, Order>>,
    /// Copies that it ordered, to whom: as which of its orders, and to which server of the log.
    copies: BTreeMap<(ChunkId, Version, u32), (u64, Option<ServerIndex>)>,
    /// Who spoke in a term.
    nodes: BTreeMap<Term, NodeId>,
    /// Orders so far.
    orders: u64,
    servers: BTreeMap<u32, Seen>,
    /// What was seen.
    pub counts: Counts,
}

/// How much was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Replicas ordered away.
    pub ordered: u64,
    /// Replicas moved to `trash/`.
    pub moved: u64,
    /// Replicas removed for good.
    pub removed: u64,
}

/// An order to let a replica go.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Whom it went to, if the log knew it.
    member: Option<ServerIndex>,
    term: Term,
    at: Tick,
    /// Which of all orders it was.
    nth: u64,
    /// What another server has, which runs on a clone of that one's disk, is not what it is about.
    is_of_clone: bool,
}

/// One chunkserver.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// What is in `trash/` since when; of what was there at the start, since the start.
    trash: BTreeMap<String, Instant>,
    started: Instant,
    /// Files that this process made and did not say were made.
    making: BTreeSet<String>,
}

impl ShadowCollector {
    /// Of a cluster whose servers keep what is in `trash/` for so long.
    ///
    /// Files may be made to ask for so few replicas meanwhile, and for more again after one too many was taken off.
    #[must_use]
    pub const fn new(grace: Duration, fewest: u8) -> Self {
        Self {
            grace,
            fewest,
            ordered: BTreeMap::new(),
            copies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            orders: 0,
            servers: BTreeMap::new(),
            counts: Counts {
                ordered: 0,
                moved: 0,
                removed: 0,
            },
        }
    }

    /// The meta server sends a message to a chunkserver, while this is its state: an order to copy, or one to delete.
    ///
    /// # Errors
    /// If it orders away what a file owns.
    pub fn meta_sent(
        &mut self,
        (server, node): (u32, NodeId),
        msg: &Msg,
        state: &State,
        at: Tick,
    ) -> Result<(), Violation> {
        let mut servers = state.servers();
        let member = servers.find(|(_, known)| *known == node);
        let of = |term| (server, member.map(|(index, _)| index), term);
        match &msg.head {
            Head::CopyChunk(order) => {
                self.orders += 1;
                let to = (order.chunk, order.version, server);
                let member = member.map(|(index, _)| index);
                self.copies.insert(to, (self.orders, member));
                Ok(())
            }
            Head::DeleteChunks(order) => order.chunks.iter().try_for_each(|(chunk, version)| {
                self.ordered(of(order.term), *chunk, *version, state, at)
            }),
            Head::Verdicts(verdicts) => verdicts
                .verdicts
                .iter()
                .filter(|(_, _, verdict)| *verdict == Verdict::Stale)
                .try_for_each(|(chunk, version, _)| {
                    self.ordered(of(verdicts.term), *chunk, *version, state, at)
                }),
            _ => Ok(()),
        }
    }

    /// The meta server orders a replica away from a server.
    ///
    /// # Errors
    /// If a file of its state owns the chunk at that version, or at an earlier one.
    pub fn ordered(
        &mut self,
        (server, member, term): (u32, Option<ServerIndex>, Term),
        chunk: ChunkId,
        version: Version,
        state: &State,
        at: Tick,
    ) -> Result<(), Violation> {
        self.counts.ordered += 1;
        self.orders += 1;
        let nth = self.orders;
        let servers = self.ordered.entry((chunk, version)).or_default();
        let order = Order {
            member,
            term,
            at,
            nth,
            is_of_clone: false,
        };
        servers.insert(server, order);
        let mut epochs = state.epochs();
        let issued = epochs.find(|(epoch, ..)| *epoch == chunk.epoch());
        if issued.is_none_or(|(.., issued)| chunk.counter() > issued) {
            return Err(Violation::new(
                "O8",
                "F",
                format!(
                    "at {at} server {server} is ordered to delete chunk {chunk} version {version}, which this log never issued: what is unknown is kept"
                ),
            ));
        }
        match state.chunk(chunk).filter(|owned| owned.version <= version) {
            None => Ok(()),
            Some(owned)
                if member.is_some_and(|member| !owned.members.contains(&member))
                    // One that others have written may have been opened to go on with it after this was decided, and
                    // before it was logged.
                    && (state.writer(owned.file).is_none() || owned.synced.is_some())
                    && owned.members.len() >= usize::from(owned.wanted.min(self.fewest)) =>
            {
                Ok(())
            }
            Some(owned) => Err(Violation::new(
                "O8",
                "D2",
                format!(
                    "at {at} server {server} is ordered to delete chunk {chunk} version {version}; file {} owns it at {}, with {} bytes to be read",
                    owned.file, owned.version, owned.log.len
                ),
            )),
        }
    }

    /// A state of the meta server, after a restart most of all.
    ///
    /// # Errors
    /// If a file owns what was ordered away before.
    pub fn observe(&self, state: &State) -> Result<(), Violation> {
        let owned = self.ordered.iter().find_map(|((chunk, version), servers)| {
            let owned = state.chunk(*chunk)?;
            let to_member = |order: &Order| {
                let to = order.member;
                !order.is_of_clone && to.is_none_or(|to| owned.members.contains(&to))
            };
            (owned.version == *version && servers.values().any(to_member))
                .then_some((owned, servers))
        });
        match owned {
            None => Ok(()),
            Some((owned, servers)) => Err(Violation::new(
                "O8",
                "N3",
                format!(
                    "state {}: file {} owns chunk {} version {}; servers were ordered to delete it: {:?}",
                    state.seq(),
                    owned.file,
                    owned.chunk,
                    owned.version,
                    servers
                        .iter()
                        .map(|(server, order)| (server, order.at))
                        .collect::<Vec<_>>(),
                ),
            )),
        }
    }

    /// A chunkserver says in a new term that it has this: orders of earlier terms are void, and were not carried out.
    /// Those of the same node were not even if another server runs on a clone of its disk now: that has it.
    pub fn reported(
        &mut self,
        (server, node): (u32, Option<NodeId>),
        term: Term,
        (chunk, version): (ChunkId, Version),
    ) {
        if let Some(node) = node {
            self.nodes.insert(term, node);
        }
        if let Some(servers) = self.ordered.get_mut(&(chunk, version)) {
            servers.retain(|at, order| *at != server || order.term == term);
            let spoke =
                |order: &Order| node.is_some() && self.nodes.get(&order.term) == node.as_ref();
            for order in servers.values_mut().filter(|order| order.term != term) {
                order.is_of_clone |= spoke(order);
            }
        }
    }

    /// A chunkserver's process starts on its disk, which has these files.
    pub fn started<'a>(&mut self, server: u32, now: Instant, paths: impl Iterator<Item = &'a str>) {
        let trash = paths.filter(|path| path.starts_with("trash/"));
        let seen = Seen {
            trash: trash.map(|path| (path.to_owned(), now)).collect(),
            started: now,
            making: BTreeSet::new(),
        };
        self.servers.insert(server, seen);
    }

    /// A chunkserver sends a message.
    pub fn server_sent(&mut self, server: u32, msg: &Msg) {
        if let Head::ChunkCopied(copied) = &msg.head
            && copied.outcome.is_ok()
            && let Some(servers) = self.ordered.get_mut(&(copied.chunk, copied.version))
        {
            // A new one: orders that came before it was ordered are not about it.
            // One that went to a clone of its disk is about what the clone had.
            let copy = self.copies.get(&(copied.chunk, copied.version, server));
            let is_before = |order: &Order| copy.is_none_or(|(copy, _)| order.nth < *copy);
            servers.retain(|at, order| *at != server || !is_before(order));
            let to_it = |order: &Order| {
                copy.is_some_and(|(_, member)| member.is_some() && order.member == *member)
            };
            for order in servers.values_mut() {
                order.is_of_clone |= to_it(order) && is_before(order);
            }
        }
        if let Head::ChunkCreated(created) = &msg.head
            && created.outcome.is_ok()
        {
            let of = |path: &str| {
                chunk_name(path).is_some_and(|(_, chunk, version)| {
                    (chunk, version) == (created.chunk, created.version)
                })
            };
            let seen = self.servers.entry(server).or_default();
            seen.making.retain(|path| !of(path));
        }
    }

    /// A chunkserver issues an operation on its disk.
    ///
    /// # Errors
    /// If that deletes what was not ordered away, or too early.
    pub fn disk_op(&mut self, server: u32, now: Instant, op: &DiskOp) -> Result<(), Violation> {
        let broken = |what: String| Violation::new("O8", "D2", format!("server {server}: {what}"));
        let seen = self.servers.entry(server).or_default();
        match op {
            DiskOp::Create { file, .. } => {
                seen.making.insert(file.as_str().to_owned());
                Ok(())
            }
            DiskOp::Rename { from, to } if from.as_str().starts_with("chunks/") => {
                let (from, to) = (from.as_str(), to.as_str());
                if from.strip_suffix(".copy") == Some(to) && seen.making.remove(from) {
                    return Ok(());
                }
                let Some((_, chunk, version)) = chunk_name(from) else {
                    return Err(broken(format!(
                        "{from} is none of its files, and is moved to {to}"
                    )));
                };
                let rest = to.strip_prefix("trash/");
                let base = from.strip_prefix("chunks/").unwrap_or_default();
                if rest.is_none_or(|rest| !rest.starts_with(base)) || seen.trash.contains_key(to) {
                    return Err(broken(format!("{from} is moved to {to}")));
                }
                let ordered = self.ordered.get(&(chunk, version));
                if ordered.is_none_or(|servers| !servers.contains_key(&server)) {
                    return Err(broken(format!(
                        "{from} is moved to {to}; nobody ordered it"
                    )));
                }
                self.counts.moved += 1;
                seen.trash.insert(to.to_owned(), now);
                Ok(())
            }
            DiskOp::Remove { file } if file.as_str().starts_with("trash/") => {
                let path = file.as_str();
                let since = seen.trash.remove(path).unwrap_or(seen.started);
                if now < since + self.grace {
                    let grace = self.grace;
                    return Err(broken(format!(
                        "{path} is removed at {now:?}; it came at {since:?}, and is kept for {grace:?}"
                    )));
                }
                self.counts.removed += 1;
                Ok(())
            }
            DiskOp::Remove { file } if file.as_str().starts_with("chunks/") => {
                let path = file.as_str();
                // What is left of a copy is nobody's.
                if seen.making.remove(path) || path.ends_with(".copy") {
                    return Ok(());
                }
                Err(broken(format!(
                    "{path} is removed without going through trash/"
                )))
            }
            DiskOp::Truncate { file, len } if file.as_str().starts_with("chunks/") => {
                Err(broken(format!("{file} is cut to {len} bytes")))
            }
            DiskOp::Rename { from, to } if to.as_str().starts_with("chunks/") => {
                Err(broken(format!("{from} is moved to {to}")))
            }
            DiskOp::Rename { from, to } if from.as_str().starts_with("trash/") => {
                Err(broken(format!("{from} is moved to {to}")))
            }
            DiskOp::List { .. }
            | DiskOp::MakeDir { .. }
            | DiskOp::Write { .. }
            | DiskOp::Read { .. }
            | DiskOp::Sync { .. }
            | DiskOp::SyncDir { .. }
            | DiskOp::SyncAll { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::Truncate { .. }
            | DiskOp::Space => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::meta::tests::{chunk_id, removed, state, version, with_a_file};
    use kfs_core::ids::{Epoch, WriteSeq};
    use kfs_core::machine::FileName;
    use kfs_core::wire::chunk_meta::{ChunkCreated, DeleteChunks, Verdicts};
    use kfs_core::wire::client_chunk::Durable;

    const TERM: Term = Term {
        epoch: Epoch(1),
        number: 1,
    };
    const NODE: NodeId = NodeId(0);
    const GRACE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }
    fn delete() -> Msg {
        let chunks = vec![(chunk_id(3), version(4))];
        Msg::new(0, DeleteChunks { term: TERM, chunks })
    }
    fn freed() -> State {
        let mut records = with_a_file();
        records.push(removed("f"));
        state(records)
    }
    fn chunk_path() -> String {
        crate::oracle::equal::tests::path()
    }
    fn trash_path() -> String {
        chunk_path().replace("chunks/", "trash/") + ".1"
    }
    fn rename(from: &str, to: &str) -> DiskOp {
        DiskOp::Rename {
            from: FileName::new(from),
            to: FileName::new(to),
        }
    }
    fn remove(path: &str) -> DiskOp {
        DiskOp::Remove {
            file: FileName::new(path),
        }
    }
    fn collector() -> ShadowCollector {
        let mut collector = ShadowCollector::new(GRACE, u8::MAX);
        collector.started(1, at(0), std::iter::empty());
        collector
    }

    #[test]
    fn an_order_to_delete_what_a_file_owns_is_seen() {
        let mut collector = collector();
        let owning = state(with_a_file());
        assert!(
            collector
                .meta_sent((1, NODE), &delete(), &owning, 1)
                .is_err()
        );
        let verdicts = |verdict| {
            let verdicts = vec![(chunk_id(3), version(4), verdict)];
            let accepted = true;
            Msg::new(
                0,
                Verdicts {
                    term: TERM,
                    verdicts,
                    accepted,
                },
            )
        };
        let stale = verdicts(Verdict::Stale);
        assert!(collector.meta_sent((1, NODE), &stale, &owning, 2).is_err());
        let log = Durable {
            len: 100,
            wseq: WriteSeq(1),
        };
        let kept = verdicts(Verdict::Keep { log });
        assert!(collector.meta_sent((1, NODE), &kept, &owning, 3).is_ok());
        assert!(collector.meta_sent((1, NODE), &stale, &freed(), 4).is_ok());
    }

    #[test]
    fn an_order_whose_record_was_lost_is_seen_after_the_restart() {
        let mut collector = collector();
        collector
            .meta_sent((1, NODE), &delete(), &freed(), 1)
            .unwrap();
        collector.observe(&freed()).unwrap();
        let seen = collector.observe(&state(with_a_file())).unwrap_err();
        assert_eq!((seen.oracle, seen.promise), ("O8", "N3"));
    }

    #[test]
    fn a_move_that_nobody_ordered_and_one_out_of_the_trash_are_seen() {
        let moves = rename(&chunk_path(), &trash_path());
        let mut collector = collector();
        assert!(collector.disk_op(1, at(1), &moves).is_err());
        collector
            .meta_sent((1, NODE), &delete(), &freed(), 1)
            .unwrap();
        assert!(
            collector.disk_op(2, at(1), &moves).is_err(),
            "another server's order"
        );
        assert!(collector.disk_op(1, at(1), &moves).is_ok());
        assert_eq!(collector.counts.moved, 1);
        for wrong in [
            rename(&chunk_path(), "lost/x"),
            rename(&trash_path(), "trash/9.9.9.2"),
            rename("identity", &chunk_path()),
            remove(&chunk_path()),
            DiskOp::Truncate {
                file: FileName::new(&chunk_path()),
                len: 0,
            },
        ] {
            assert!(collector.disk_op(1, at(2), &wrong).is_err(), "{wrong:?}");
        }
        assert!(
            collector
                .disk_op(1, at(2), &rename("identity.new", "identity"))
                .is_ok()
        );
    }

    #[test]
    fn a_replica_that_leaves_the_trash_before_its_grace_is_seen_and_a_restart_begins_it_anew() {
        let mut collector = collector();
        collector
            .meta_sent((1, NODE), &delete(), &freed(), 1)
            .unwrap();
        let moves = rename(&chunk_path(), &trash_path());
        collector.disk_op(1, at(10), &moves).unwrap();
        let mut early = collector;
        let mut late = ShadowCollector::new(GRACE, u8::MAX);
        late.started(1, at(20), [trash_path()].iter().map(String::as_str));
        assert!(early.disk_op(1, at(69), &remove(&trash_path())).is_err());
        assert!(late.disk_op(1, at(79), &remove(&trash_path())).is_err());
        late.started(1, at(20), [trash_path()].iter().map(String::as_str));
        assert!(late.disk_op(1, at(80), &remove(&trash_path())).is_ok());
        assert_eq!(late.counts.removed, 1);
    }

    #[test]
    fn a_file_whose_making_failed_may_be_removed_and_one_that_was_made_may_not() {
        let make = DiskOp::Create {
            file: FileName::new(&chunk_path()),
            zeroed: 0,
        };
        let mut collector = collector();
        collector.disk_op(1, at(1), &make).unwrap();
        collector.disk_op(1, at(2), &remove(&chunk_path())).unwrap();
        collector.disk_op(1, at(3), &make).unwrap();
        let created = ChunkCreated {
            term: TERM,
            chunk: chunk_id(3),
            version: version(4),
            outcome: Ok(()),
        };
        collector.server_sent(1, &Msg::new(0, created));
        assert!(collector.disk_op(1, at(4), &remove(&chunk_path())).is_err());
    }
}
