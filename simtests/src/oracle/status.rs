//! O12: the status agrees: what the meta server says of the cluster's health, against what its state and the
//! disks say. Whatever else speaks of the health of all chunks is held to the same truth.
//!
//! The truth is made at rest: every server that is up has said hello since anything was done to its disk, and
//! all that was ordered is done. Verdicts are made here anew, from the page of promises, with the independent
//! reader of chunk files. What no hello can show (a block that rotted under a good header) is a range: it is
//! reported only when somebody has read it.
use super::Violation;
use super::equal::{Shelf, chunk_name};
use super::replicas::Slot;
use kfs_core::health::{Health, reasons};
use kfs_core::ids::{ChunkId, NodeId, ServerIndex, Version};
use kfs_core::limits::Geometry;
use kfs_core::meta::state::{Owned, State};
use kfs_core::wire::client_meta::{ClusterStatus, DrainStatus, Kind, ServerState};
use std::collections::{BTreeMap, BTreeSet};

/// The health of a cluster as it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Truth {
    /// Files in the namespace.
    pub files: u64,
    /// Directories in the namespace.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Chunks that files own.
    pub chunks: u64,
    /// Of those, the ones with fewer copies on servers that are up than their file asks for.
    pub under_replicated: BTreeSet<ChunkId>,
    /// Of those, the ones without any, of which something was ever synced: of another one nothing can be missed.
    pub unavailable: BTreeSet<ChunkId>,
    /// Of those, the ones with other than the number of copies that their file asks for.
    pub uneven: BTreeSet<ChunkId>,
    /// Of those, the ones at rest that have a copy, and fewer than they could have on the servers that are up.
    pub copies_owed: BTreeSet<ChunkId>,
    /// Replicas, by server, that are shorter or older than the log says or have no header.
    pub damaged: BTreeSet<(ServerIndex, ChunkId)>,
    /// Replicas, by server, that have a bad block under a good header.
    pub rotten: BTreeSet<(ServerIndex, ChunkId)>,
    /// Replicas on servers that are up and that are none of this log, or not as it has them.
    pub unknown: BTreeSet<(ServerIndex, String)>,
    /// Which servers there are, and which are up.
    pub servers: BTreeMap<NodeId, Up>,
}

/// Whether a server is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Up {
    /// Its process runs and reaches the meta server.
    Yes,
    /// It does not.
    No,
}

/// What becomes of one chunk file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Served,
    Damaged,
    Unknown,
    /// Nobody's: on its way to `trash/`.
    Stale,
}

/// Nothing rests on a server that is told to be drained: it may be stopped.
///
/// # Errors
/// If it is a member of a chunk.
pub fn drained_have_nothing(state: &State, status: &ClusterStatus) -> Result<(), Violation> {
    let drained = status.servers.iter();
    let drained = drained.filter(|at| at.drain == Some(DrainStatus::Drained));
    for node in drained.map(|at| at.node) {
        let index = state.servers().find(|(_, of)| *of == node);
        let has = |owned: &Owned| index.is_some_and(|(at, _)| owned.members.contains(&at));
        if let Some(owned) = state.chunks().find(has) {
            let what = format!(
                "server {node} is said to be drained, and is a member of chunk {}: {:?}",
                owned.chunk, owned.members
            );
            return Err(Violation::new("O12", "F", what));
        }
    }
    Ok(())
}

/// A chunk with fewer members than its file asks for is one that lacks replicas, whoever is there.
///
/// # Errors
/// If more of them are known than are told.
pub fn missing_members_are_told(state: &State, status: &ClusterStatus) -> Result<(), Violation> {
    let lacks = |owned: &Owned| owned.members.len() < usize::from(owned.wanted);
    let lack = state.chunks().filter(lacks).count() as u64;
    if lack <= status.chunks_under_replicated {
        return Ok(());
    }
    let what = format!(
        "{lack} chunks have fewer members than their files ask for, and {} are told to lack replicas",
        status.chunks_under_replicated
    );
    Err(Violation::new("O12", "F", what))
}

impl Truth {
    /// Of a state, with the disks of the servers that are up.
    #[must_use]
    pub fn of(state: &State, up: &[Shelf<'_>], geometry: Geometry) -> Self {
        let mut truth = Self::default();
        for attrs in state.files_and_directories() {
            match attrs.kind {
                Kind::File => {
                    truth.files += 1;
                    truth.bytes += attrs.size;
                }
                Kind::Directory => truth.directories += 1,
            }
        }
        let mut copies: BTreeMap<ChunkId, usize> = BTreeMap::new();
        let block_bytes = geometry.block_bytes as usize;
        for shelf in up {
            let Some(server) = shelf.server else {
                continue;
            };
            for path in shelf.disk.paths() {
                let Some((file, chunk, version)) = chunk_name(path) else {
                    continue;
                };
                let bytes = shelf.disk.contents(path).unwrap_or_default();
                let slot =
                    Slot::newest(&bytes).filter(|slot| slot.ids == [file.0, chunk.0, version.0]);
                let owned = state.chunk(chunk);
                let ours = owned.as_ref().filter(|owned| {
                    (owned.named, owned.version) == (file, version)
                        && owned.members.contains(&server)
                });
                let fate = match (&owned, ours) {
                    (_, Some(ours)) => fate_of_ours(ours, slot.as_ref(), block_bytes),
                    (Some(_), None) => Fate::Unknown,
                    (None, None) => fate_of_nobodys(state, chunk, version, slot.as_ref()),
                };
                match fate {
                    Fate::Served => *copies.entry(chunk).or_default() += 1,
                    Fate::Damaged => {
                        truth.damaged.insert((server, chunk));
                    }
                    Fate::Unknown => {
                        truth.unknown.insert((server, path.to_owned()));
                    }
                    Fate::Stale => {}
                }
                let rots = |slot: &Slot| slot.bad_block(&bytes, block_bytes).is_some();
                if fate == Fate::Served && slot.as_ref().is_some_and(rots) {
                    truth.rotten.insert((server, chunk));
                }
            }
        }
        for owned in state.chunks() {
            truth.chunks += 1;
            let had = copies.get(&owned.chunk).copied().unwrap_or(0);
            if had < usize::from(owned.wanted) {
                truth.under_replicated.insert(owned.chunk);
            }
            if had != usize::from(owned.wanted) {
                truth.uneven.insert(owned.chunk);
            }
            let at_rest = state.writer(owned.file).is_none() && owned.log.len > 0;
            // A server that is drained takes no copies.
            let takes = |shelf: &&Shelf<'_>| {
                let server = shelf.server;
                server.is_none_or(|at| !state.is_draining(at) || owned.members.contains(&at))
            };
            let could = up.iter().filter(takes).count();
            if at_rest && (1..usize::from(owned.wanted).min(could)).contains(&had) {
                truth.copies_owed.insert(owned.chunk);
            }
            if had == 0 && owned.synced.unwrap_or_default().len > 0 {
                truth.unavailable.insert(owned.chunk);
            }
        }
        for (index, node) in state.servers() {
            let runs = up.iter().any(|shelf| shelf.server == Some(index));
            truth
                .servers
                .insert(node, if runs { Up::Yes } else { Up::No });
        }
        truth
    }

    /// Whether every chunk has as many copies as it should, all of them whole, and nobody has one too many.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.uneven.is_empty()
            && self.damaged.is_empty()
            && self.rotten.is_empty()
            && self.unknown.is_empty()
    }
    /// Nothing fails, and nothing has for a while: every chunk has its copies again.
    ///
    /// # Errors
    /// If one has not.
    pub fn copies_are_made(&self) -> Result<(), Violation> {
        if self.copies_owed.is_empty() {
            return Ok(());
        }
        let what = format!(
            "copies are missing of chunks {:?}, and servers are there that could have them",
            self.copies_owed
        );
        Err(Violation::new("O9", "L", what))
    }

    /// Compares with what the meta server says.
    ///
    /// # Errors
    /// The first number that is wrong, with what it should count.
    pub fn agrees(&self, status: &ClusterStatus) -> Result<(), Violation> {
        let len = |set: usize| set as u64;
        exactly("files", status.files, self.files, "")?;
        exactly("directories", status.directories, self.directories, "")?;
        exactly("bytes", status.bytes, self.bytes, "")?;
        exactly("chunks", status.chunks, self.chunks, "")?;
        let (under, none) = (&self.under_replicated, &self.unavailable);
        exactly(
            "under-replicated",
            status.chunks_under_replicated,
            len(under.len()),
            &format!("{under:?}"),
        )?;
        exactly(
            "unavailable",
            status.chunks_unavailable,
            len(none.len()),
            &format!("{none:?}"),
        )?;
        let unknown = &self.unknown;
        exactly(
            "unknown",
            status.chunks_unknown,
            len(unknown.len()),
            &format!("{unknown:?}"),
        )?;
        let (damaged, rotten) = (&self.damaged, &self.rotten);
        let most = len(damaged.union(rotten).count());
        if !(len(damaged.len())..=most).contains(&status.replicas_damaged) {
            return Err(wrong(format!(
                "{} replicas are said to be damaged; there are {damaged:?}, and bad blocks in {rotten:?}",
                status.replicas_damaged
            )));
        }
        let said: BTreeMap<NodeId, Up> = status
            .servers
            .iter()
            .map(|server| {
                let up = server.state == ServerState::Up;
                (server.node, if up { Up::Yes } else { Up::No })
            })
            .collect();
        if said != self.servers {
            let servers = &self.servers;
            return Err(wrong(format!(
                "the servers are said to be {said:?}; they are {servers:?}"
            )));
        }
        self.agrees_in_words(status)
    }

    /// The word that people read follows from the numbers.
    fn agrees_in_words(&self, status: &ClusterStatus) -> Result<(), Violation> {
        let reasons = reasons(status);
        let says = |code: &str| reasons.iter().any(|reason| reason.code == code);
        let down = self.servers.values().any(|up| *up == Up::No);
        for (code, due) in [
            ("CHUNKS_UNAVAILABLE", !self.unavailable.is_empty()),
            ("UNDER_REPLICATED", !self.under_replicated.is_empty()),
            ("CHUNKS_UNKNOWN", !self.unknown.is_empty()),
            ("SERVERS_DOWN", down),
        ] {
            if says(code) != due {
                let said = if due { "is not said" } else { "is said" };
                return Err(wrong(format!("{code} {said}; the truth is {self:?}")));
            }
        }
        let healthy = self.under_replicated.is_empty() && self.damaged.is_empty() && !down;
        if Health::of(&reasons) == Health::Ok && !healthy {
            return Err(wrong(format!(
                "all is said to be well; the truth is {self:?}"
            )));
        }
        Ok(())
    }
}

/// A member's replica is served if nothing that readers may see is missing.
fn fate_of_ours(owned: &Owned, slot: Option<&Slot>, block_bytes: usize) -> Fate {
    let is_as_sealed = |slot: &Slot| {
        owned.sealed.is_none_or(|digest| {
            let synced = owned.synced.unwrap_or_default();
            (slot.wseq, slot.len) == (synced.wseq.0, synced.len)
                && slot.digest(block_bytes) == digest.0
        })
    };
    match slot {
        Some(slot) if slot.has_all(owned.log) && is_as_sealed(slot) => Fate::Served,
        Some(_) | None => Fate::Damaged,
    }
}

/// Only what is certainly of this log, and certainly nobody's, is stale.
fn fate_of_nobodys(state: &State, chunk: ChunkId, version: Version, slot: Option<&Slot>) -> Fate {
    let Some(slot) = slot else {
        return Fate::Unknown;
    };
    let issued = |epoch, counter| {
        state
            .epochs()
            .any(|(known, _, issued)| known == epoch && (1..=issued).contains(&counter))
    };
    let of_this_log = state.epochs().any(|(epoch, incarnation, _)| {
        incarnation.0 == slot.incarnation && epoch == version.epoch()
    });
    let ours = of_this_log
        && chunk.epoch() <= version.epoch()
        && issued(chunk.epoch(), chunk.counter())
        && issued(version.epoch(), version.counter());
    if ours { Fate::Stale } else { Fate::Unknown }
}

fn exactly(what: &str, said: u64, due: u64, which: &str) -> Result<(), Violation> {
    if said == due {
        return Ok(());
    }
    Err(wrong(format!(
        "{what}: {said} are said; there are {due} {which}"
    )))
}

fn wrong(what: String) -> Violation {
    Violation::new("O12", "F", what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskModel;
    use crate::oracle::equal::tests::{NAME, bytes, chunk_file, disk, path};
    use crate::oracle::meta::tests::{CLUSTER, GEOMETRY, chunk_id, state, version, with_a_file};
    use kfs_core::chunk::name::ChunkName;
    use kfs_core::ids::{Epoch, LogSeq};
    use kfs_core::wire::client_meta::ServerStatus;

    fn whole() -> DiskModel {
        disk(&[(path(), chunk_file(NAME(), &bytes(100), 2))])
    }
    fn truth(disks: &[DiskModel]) -> Truth {
        let shelves: Vec<Shelf<'_>> = (1..)
            .zip(disks)
            .map(|(index, disk)| Shelf {
                server: Some(ServerIndex(index)),
                name: "a server",
                disk,
            })
            .collect();
        Truth::of(&state(with_a_file()), &shelves, GEOMETRY)
    }
    fn said(under: u64, none: u64, damaged: u64, unknown: u64, up: u128) -> ClusterStatus {
        let server = |node| ServerStatus {
            node: NodeId(node),
            addr: None,
            rack: String::new(),
            state: if node <= up {
                ServerState::Up
            } else {
                ServerState::Down
            },
            chunks: 1,
            bytes_free: 1,
            bytes_total: 1,
            silent: None,
            drain: None,
        };
        ClusterStatus {
            cluster: CLUSTER,
            epoch: Epoch(1),
            build: String::new().into(),
            log_seq: LogSeq(7),
            log_durable: LogSeq(7),
            files: 1,
            directories: 1,
            chunks: 1,
            bytes: 100,
            chunks_under_replicated: under,
            chunks_unavailable: none,
            replicas_damaged: damaged,
            chunks_unknown: unknown,
            sessions: 1,
            replication: 2,
            min_replicas: 1,
            read_only: None,
            changes_wait: None,
            tail_lost: false,
            checkpoint: Box::default(),
            reclaim: Box::default(),
            replication_work: Box::default(),
            log_mirror: None,
            servers: vec![server(1), server(2)],
        }
    }

    #[test]
    fn a_whole_cluster_is_said_to_be_whole_and_nothing_else() {
        let truth = truth(&[whole(), whole()]);
        truth.agrees(&said(0, 0, 0, 0, 2)).unwrap();
        for lie in [
            said(1, 0, 0, 0, 2),
            said(0, 1, 0, 0, 2),
            said(0, 0, 1, 0, 2),
            said(0, 0, 0, 1, 2),
            said(0, 0, 0, 0, 1),
        ] {
            assert_eq!(truth.agrees(&lie).unwrap_err().oracle, "O12");
        }
    }

    #[test]
    fn a_lost_and_a_short_replica_that_are_not_said_are_seen() {
        let lost = truth(&[whole(), disk(&[])]);
        lost.agrees(&said(1, 0, 0, 0, 2)).unwrap();
        assert!(lost.agrees(&said(0, 0, 0, 0, 2)).is_err());
        let short = disk(&[(path(), chunk_file(NAME(), &bytes(99), 1))]);
        let short = truth(&[short, disk(&[])]);
        short.agrees(&said(1, 1, 1, 0, 2)).unwrap();
        assert!(short.agrees(&said(1, 0, 1, 0, 2)).is_err());
        assert!(short.agrees(&said(1, 1, 0, 0, 2)).is_err());
    }

    #[test]
    fn a_replica_that_is_as_long_and_older_than_the_log_is_damaged() {
        let older = disk(&[(path(), chunk_file(NAME(), &bytes(100), 0))]);
        let truth = truth(&[whole(), older]);
        truth.agrees(&said(1, 0, 1, 0, 2)).unwrap();
        assert!(truth.agrees(&said(0, 0, 0, 0, 2)).is_err());
    }

    #[test]
    fn a_chunk_that_was_never_synced_and_is_nowhere_is_no_lost_data() {
        let mut records = with_a_file();
        records.pop();
        let truth = |records| Truth::of(&state(records), &[], GEOMETRY);
        let unfinished = truth(records);
        let lacks = |truth: &Truth| (truth.under_replicated.len(), truth.unavailable.len());
        assert_eq!(lacks(&unfinished), (1, 0));
        assert_eq!(lacks(&truth(with_a_file())), (1, 1));
    }

    #[test]
    fn a_server_that_is_down_takes_its_copies_with_it() {
        let one = truth(&[whole()]);
        one.agrees(&said(1, 0, 0, 0, 1)).unwrap();
        assert!(one.agrees(&said(0, 0, 0, 0, 1)).is_err());
    }

    #[test]
    fn rot_under_a_good_header_may_be_said_or_not() {
        let mut rotten = chunk_file(NAME(), &bytes(100), 2);
        rotten[16_384 + 3] ^= 1;
        let truth = truth(&[whole(), disk(&[(path(), rotten)])]);
        truth.agrees(&said(0, 0, 0, 0, 2)).unwrap();
        truth.agrees(&said(0, 0, 1, 0, 2)).unwrap();
        assert!(truth.agrees(&said(0, 0, 2, 0, 2)).is_err());
    }

    #[test]
    fn what_is_not_of_this_log_is_unknown_and_what_is_nobodys_is_not_counted() {
        let future = ChunkName {
            chunk: chunk_id(900),
            version: version(901),
            ..NAME()
        };
        let nobodys = ChunkName {
            chunk: chunk_id(1),
            version: version(2),
            ..NAME()
        };
        let file = |name: ChunkName| {
            (
                name.path().as_str().to_owned(),
                chunk_file(name, &bytes(9), 1),
            )
        };
        let more = disk(&[
            (path(), chunk_file(NAME(), &bytes(100), 2)),
            file(future),
            file(nobodys),
        ]);
        let truth = truth(&[whole(), more]);
        truth.agrees(&said(0, 0, 0, 1, 2)).unwrap();
        assert!(truth.agrees(&said(0, 0, 0, 0, 2)).is_err());
        assert!(truth.agrees(&said(0, 0, 0, 2, 2)).is_err());
    }
}
