//! A file is cut, or made longer, at the meta server: what was behind is never seen again, whatever replicas still have.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::meta::state::Owned;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Role, Status};
use meta_rig::*;
use std::collections::BTreeMap;

const RAISED: WriteSeq = WriteSeq(1 << COUNTER_BITS);

/// Servers that do what they are told, and what they hold.
struct Cluster {
    rig: Rig,
    servers: Vec<Server>,
    client: Client,
    file: FileId,
    grants: Vec<Grant>,
    /// What each holds of each chunk.
    holds: BTreeMap<(NodeId, ChunkId), Content>,
    /// Who is not there: orders to it are lost.
    away: Option<NodeId>,
    /// Orders to go on that were carried out.
    resumed: Vec<(NodeId, ResumeChunk)>,
    deleted: Vec<ChunkId>,
    beat: u64,
}

impl Cluster {
    /// A closed file of chunks that are synced so far, on three servers.
    fn of(lens: &[u64]) -> Self {
        let mut rig = Rig::fresh();
        let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let mut at = Self {
            rig,
            servers,
            client,
            file,
            grants: Vec::new(),
            holds: BTreeMap::new(),
            away: None,
            resumed: Vec::new(),
            deleted: Vec::new(),
            beat: 0,
        };
        let mut size = 0;
        for (index, len) in (0..).zip(lens) {
            at.allocate(index);
            size = index * CHUNK + len;
            let basis = vec![synced(&at.grants[at.grants.len() - 1], *len)];
            let report = set_size(file, size, basis);
            assert_eq!(at.mutate(report), Ok(Done::Ok));
            at.hold(at.grants.len() - 1, durable(*len));
        }
        assert_eq!(at.mutate(close(file, size, vec![])), Ok(Done::Ok));
        at
    }
    /// As [`Self::of`], and the client writes it further.
    fn open(lens: &[u64]) -> Self {
        let mut at = Self::of(lens);
        at.append();
        at
    }
    fn allocate(&mut self, index: u64) {
        let of: Vec<&Server> = self.servers.iter().collect();
        let grant = self.rig.allocate(&mut self.client, &of, self.file, index);
        self.grants.push(grant.unwrap());
    }
    /// All servers hold this of a chunk.
    fn hold(&mut self, nth: usize, has: Durable) {
        for server in &self.servers {
            let at = (server.hello.node, self.grants[nth].chunk);
            self.holds.insert(at, content(has));
        }
    }
    fn mutate(&mut self, op: MutateOp) -> Result<Done, Refusal> {
        self.rig.mutate(&mut self.client, op)
    }
    fn append(&mut self) {
        let done = self.mutate(MutateOp::Append { at: at("f") });
        assert!(matches!(done, Ok(Done::Appending { .. })), "{done:?}");
    }
    fn truncate(&mut self, len: u64) -> Result<Done, Refusal> {
        let file = self.file;
        self.mutate(MutateOp::Truncate { file, len })
    }
    /// Servers carry out what they were ordered.
    fn serve(&mut self) {
        for server in self.servers.clone() {
            let orders = self.rig.orders(&server);
            let node = server.hello.node;
            if self.away == Some(node) {
                continue;
            }
            for order in orders {
                match order {
                    Head::SealChunk(order) => {
                        let has = self.holds[&(node, order.chunk)];
                        let said = ChunkSealed {
                            term: order.term,
                            chunk: order.chunk,
                            version: order.version,
                            outcome: Ok(has),
                            next_lost: false,
                        };
                        self.rig.send(server.link, said);
                    }
                    Head::ResumeChunk(order) => {
                        let has = self.holds.get_mut(&(node, order.chunk)).unwrap();
                        if let Some(wseq) = order.raised {
                            let len = order.cut.unwrap_or(u64::MAX).min(has.durable.len);
                            *has = content(Durable { len, wseq });
                        }
                        let said = ChunkResumed {
                            term: order.term,
                            chunk: order.chunk,
                            version: order.version,
                            chain: order.chain,
                            outcome: Ok(()),
                        };
                        self.rig.send(server.link, said);
                        self.resumed.push((node, order));
                    }
                    Head::DeleteChunks(order) => {
                        let chunks = order.chunks.iter().map(|(chunk, _)| *chunk);
                        self.deleted.extend(chunks);
                    }
                    _ => {}
                }
            }
        }
    }
    /// The chunk in which the file was cut is taken over.
    fn take_over(&mut self, index: u64) -> Result<Done, Refusal> {
        let file = self.file;
        let op = MutateOp::TakeOver { file, index };
        let request = self.rig.begin(&mut self.client, op);
        for _ in 0..4 {
            self.serve();
        }
        self.client.lowest = self.client.last + 1;
        let answered = self.rig.mutated(self.client.link, request);
        answered.expect("it is answered").outcome
    }
    /// Half a second at a time, in which every server beats and does what it is told.
    fn pass(&mut self, times: u64) {
        for _ in 0..times {
            self.beat += 1;
            for server in self.servers.clone() {
                if self.away != Some(server.hello.node) {
                    let beat = server.heartbeat(self.beat, self.beat - 1);
                    self.rig.send(server.link, beat);
                }
            }
            self.rig.pass(Duration::from_millis(500));
            self.serve();
        }
    }
    fn chunk(&self, nth: usize) -> Option<Owned> {
        let state = self.rig.meta.state().unwrap();
        state.check();
        state.chunk(self.grants[nth].chunk)
    }
    fn cut(&self, nth: usize) -> Option<u64> {
        let chunk = self.grants[nth].chunk;
        self.rig.meta.state().unwrap().cut(chunk)
    }
    fn size(&mut self) -> u64 {
        self.rig.stat(self.client.link, "f").unwrap().size
    }
    /// What readers may see of each chunk that is there for them.
    fn seen(&mut self) -> Vec<(u64, u64)> {
        let located = self.rig.locate(self.client.link, self.file);
        let chunks = located.chunks.iter();
        chunks.map(|at| (at.index, at.log.len)).collect()
    }
    /// The meta server starts again, from its log or from a checkpoint; all servers come back with what they have.
    fn restart(&mut self, checkpoint: bool) {
        if checkpoint {
            let link = self.rig.open_link(Role::Client);
            self.rig.query(link, QueryOp::Checkpoint).unwrap();
        }
        self.rig.restart();
        for nth in 0..self.servers.len() {
            self.comes_back(nth);
        }
        let mut client = self.client.clone();
        self.rig.resume(&mut client);
        self.client = client;
    }
    /// A server restarts, and reports what it has.
    fn comes_back(&mut self, nth: usize) -> Vec<(ChunkId, Verdict)> {
        let state = self.rig.meta.state().unwrap();
        let epochs: BTreeMap<_, _> = state
            .epochs()
            .map(|(epoch, incarnation, ..)| (epoch, incarnation))
            .collect();
        let node = self.servers[nth].hello.node;
        let mut items = Vec::new();
        for grant in &self.grants {
            if let Some(has) = self.holds.get(&(node, grant.chunk)) {
                items.push(InventoryItem {
                    wseq: has.durable.wseq,
                    digest: has.digest,
                    ..item(
                        self.file,
                        grant,
                        epochs[&grant.version.epoch()],
                        has.durable.len,
                    )
                });
            }
        }
        let chunks: Vec<ChunkId> = items.iter().map(|item| item.chunk).collect();
        let server = &mut self.servers[nth];
        server.hello.boot = server.hello.boot.next();
        let verdicts = self.rig.join(server, items);
        chunks.into_iter().zip(verdicts).collect()
    }
}

#[test]
fn what_was_behind_a_cut_is_gone_at_once_and_its_chunk_is_cut_before_it_is_written_further() {
    for restart in [None, Some(false), Some(true)] {
        let mut at = Cluster::open(&[CHUNK, CHUNK, 1_000]);
        assert_eq!(at.truncate(CHUNK + 700), Ok(Done::Ok));
        assert_eq!(at.size(), CHUNK + 700);
        assert_eq!(at.seen(), [(0, CHUNK), (1, 700)]);
        assert_eq!(at.chunk(2), None);
        at.serve();
        assert_eq!(at.deleted, [at.grants[2].chunk; 3], "on every server");
        assert_eq!(at.cut(1), Some(700));
        if let Some(checkpoint) = restart {
            at.restart(checkpoint);
            assert_eq!(at.cut(1), Some(700), "checkpoint: {checkpoint}");
            assert_eq!(at.seen(), [(0, CHUNK), (1, 700)]);
        }
        // What is reported of it now is of before: it was not written since.
        let late = vec![synced(&at.grants[1], CHUNK)];
        for report in [
            set_size(at.file, CHUNK + 700, late.clone()),
            set_size(at.file, 2 * CHUNK, late),
        ] {
            let what = refused(at.mutate(report), Status::BadRequest);
            assert!(what.contains("cut since"), "{what}");
        }
        let rechain = MutateOp::Rechain {
            file: at.file,
            index: 1,
            chunk: at.grants[1].chunk,
            version: at.grants[1].version,
            synced: durable(CHUNK),
            head: HeadSeen::Reached,
            broken: 0,
        };
        refused(at.mutate(rechain), Status::BadRequest);
        let done = at.take_over(1);
        let Ok(Done::TakenOver { grant, len }) = done else {
            panic!("not taken over: {done:?}")
        };
        assert_eq!((grant.chunk, len), (at.grants[1].chunk, 700));
        assert_eq!(at.resumed.len(), 3);
        for (_, order) in &at.resumed {
            assert_eq!((order.cut, order.raised), (Some(700), Some(RAISED)));
        }
        assert_eq!(at.cut(1), None);
        let written = Durable {
            len: 900,
            wseq: RAISED.next(),
        };
        let basis = SyncedChunk {
            synced: written,
            ..synced(&grant, 900)
        };
        let report = close(at.file, CHUNK + 900, vec![basis]);
        assert_eq!(at.mutate(report), Ok(Done::Ok));
        assert_eq!(at.seen(), [(0, CHUNK), (1, 900)]);
    }
}

#[test]
fn a_longer_file_shows_nothing_that_no_report_had_named() {
    let mut at = Cluster::open(&[300]);
    // Its writer died when it had synced more than it reported.
    let more = Durable {
        len: 500,
        wseq: WriteSeq(2),
    };
    at.hold(0, more);
    assert_eq!(at.truncate(3 * CHUNK + 5), Ok(Done::Ok));
    assert_eq!(at.size(), 3 * CHUNK + 5);
    assert_eq!(at.seen(), [(0, 300)]);
    assert_eq!(at.cut(0), Some(300));
    let done = at.take_over(0);
    assert!(
        matches!(done, Ok(Done::TakenOver { len: 300, .. })),
        "{done:?}"
    );
    let at_300 = at.holds.values().filter(|has| has.durable.len == 300);
    assert_eq!(at_300.count(), 3);
    assert_eq!(
        at.take_over(3),
        Ok(Done::Ok),
        "there is no chunk where it ends"
    );
    assert_eq!(at.mutate(close(at.file, 0, vec![])), Ok(Done::Ok));
    at.pass(60);
    assert!(at.chunk(0).unwrap().sealed.is_some());
    assert_eq!(at.seen(), [(0, 300)]);
}

#[test]
fn a_chunk_that_is_known_to_have_nothing_behind_is_left_as_it_is() {
    let mut at = Cluster::of(&[300]);
    at.pass(60);
    let sealed = at.chunk(0).unwrap().sealed;
    assert!(sealed.is_some());
    at.append();
    assert_eq!(at.truncate(900), Ok(Done::Ok));
    assert_eq!((at.cut(0), at.chunk(0).unwrap().sealed), (None, sealed));
    assert_eq!(at.truncate(300), Ok(Done::Ok));
    assert_eq!((at.cut(0), at.chunk(0).unwrap().sealed), (None, sealed));
    assert_eq!(at.truncate(299), Ok(Done::Ok));
    assert_eq!((at.cut(0), at.chunk(0).unwrap().sealed), (Some(299), None));
}

#[test]
fn a_cut_that_was_not_made_stays_where_it_was_farthest_back() {
    let mut at = Cluster::open(&[CHUNK, 1_000]);
    assert_eq!(at.truncate(CHUNK + 500), Ok(Done::Ok));
    assert_eq!(at.truncate(2 * CHUNK), Ok(Done::Ok), "longer again");
    assert_eq!(at.cut(1), Some(500));
    assert_eq!(at.truncate(CHUNK + 800), Ok(Done::Ok));
    assert_eq!(at.cut(1), Some(500), "what is behind 500 must not be seen");
    assert_eq!(at.seen(), [(0, CHUNK), (1, 500)]);
    assert_eq!(at.truncate(CHUNK + 200), Ok(Done::Ok));
    assert_eq!(at.cut(1), Some(200));
    let done = at.take_over(1);
    assert!(
        matches!(done, Ok(Done::TakenOver { len: 200, .. })),
        "{done:?}"
    );
    // At the edge of a chunk nothing is cut in the one before.
    assert_eq!(at.truncate(CHUNK), Ok(Done::Ok));
    assert_eq!((at.cut(0), at.chunk(1)), (None, None));
    assert_eq!(at.truncate(0), Ok(Done::Ok));
    assert_eq!((at.size(), at.seen()), (0, vec![]));
    assert_eq!(at.take_over(0), Ok(Done::Ok));
    let bytes = at.rig.status(at.client.link).bytes;
    assert_eq!(bytes, 0);
}

#[test]
fn a_cut_whose_session_ends_before_it_is_made_is_made_without_one_and_the_chunk_is_sealed() {
    for restart in [None, Some(false), Some(true)] {
        let mut at = Cluster::open(&[1_000]);
        assert_eq!(at.truncate(400), Ok(Done::Ok));
        assert_eq!(at.mutate(close(at.file, 0, vec![])), Ok(Done::Ok));
        assert_eq!(
            at.size(),
            400,
            "who lets go of a file does not say its size"
        );
        if let Some(checkpoint) = restart {
            at.restart(checkpoint);
        }
        at.pass(120);
        assert_eq!(at.cut(0), None, "restart: {restart:?}");
        assert!(at.holds.values().all(|has| has.durable.len == 400));
        let chunk = at.chunk(0).unwrap();
        assert_eq!(chunk.synced.unwrap().len, 400);
        assert!(chunk.sealed.is_some(), "restart: {restart:?}");
        assert_eq!(chunk.members.len(), 3);
    }
}

#[test]
fn no_chunk_that_is_to_be_cut_is_sealed_while_a_replica_of_it_is_missing() {
    let mut at = Cluster::open(&[1_000]);
    assert_eq!(at.truncate(400), Ok(Done::Ok));
    assert_eq!(at.mutate(close(at.file, 0, vec![])), Ok(Done::Ok));
    at.away = Some(at.servers[2].hello.node);
    at.rig.close_link(at.servers[2].link);
    at.pass(120);
    assert_eq!(at.cut(0), Some(400));
    assert_eq!(at.chunk(0).unwrap().sealed, None);
    assert_eq!(at.seen(), [(0, 400)]);
    at.away = None;
    at.comes_back(2);
    at.pass(120);
    assert_eq!(at.cut(0), None);
    assert!(at.chunk(0).unwrap().sealed.is_some());
}

#[test]
fn a_member_that_was_away_while_a_chunk_was_cut_is_no_replica_of_it_any_more() {
    let mut at = Cluster::open(&[1_000]);
    let away = at.servers[2].hello.node;
    at.away = Some(away);
    at.rig.close_link(at.servers[2].link);
    assert_eq!(at.truncate(400), Ok(Done::Ok));
    let done = at.take_over(0);
    assert!(
        matches!(done, Ok(Done::TakenOver { len: 400, .. })),
        "{done:?}"
    );
    assert_eq!(at.chunk(0).unwrap().members.len(), 2);
    // It has more bytes, and they are of before.
    at.away = None;
    let verdicts = at.comes_back(2);
    let [(_, verdict)] = verdicts.as_slice() else {
        panic!("one replica: {verdicts:?}")
    };
    assert!(!matches!(verdict, Verdict::Keep { .. }), "{verdict:?}");
    let located = at.rig.locate(at.client.link, at.file);
    assert_eq!(located.chunks[0].replicas.len(), 2);
}

#[test]
fn many_chunks_behind_a_cut_go_bit_by_bit_and_nothing_is_put_in_their_place_before() {
    for restart in [None, Some(false), Some(true)] {
        let chunks = 150;
        let lens: Vec<u64> = vec![CHUNK; chunks];
        let mut at = Cluster::open(&lens);
        assert_eq!(at.truncate(CHUNK), Ok(Done::Ok));
        assert_eq!(at.size(), CHUNK);
        assert_eq!(at.seen(), [(0, CHUNK)]);
        let behind = |at: &Cluster| at.rig.meta.state().unwrap().behind().count();
        assert_eq!(behind(&at), 1);
        let chunk = at.grants[0].clone();
        let grown = set_size(at.file, CHUNK + 1, vec![synced(&chunk, CHUNK)]);
        for op in [
            grown,
            MutateOp::Allocate {
                file: at.file,
                index: 1,
            },
            MutateOp::TakeOver {
                file: at.file,
                index: 1,
            },
            MutateOp::Truncate {
                file: at.file,
                len: 2 * CHUNK,
            },
        ] {
            refused(at.mutate(op), Status::Busy);
        }
        if let Some(checkpoint) = restart {
            at.restart(checkpoint);
            assert_eq!(behind(&at), 1, "checkpoint: {checkpoint}");
        }
        assert_eq!(at.mutate(close(at.file, CHUNK, vec![])), Ok(Done::Ok));
        at.chunk(0).expect("it stays");
        for _ in 0..10 {
            at.rig.pass(Duration::from_millis(5));
        }
        assert_eq!(behind(&at), 0, "restart: {restart:?}");
        let state = at.rig.meta.state().unwrap();
        assert_eq!(state.chunks().count(), 1);
        at.append();
        assert_eq!(at.truncate(3 * CHUNK), Ok(Done::Ok));
        assert_eq!(at.seen(), [(0, CHUNK)]);
    }
}

#[test]
fn chunks_that_no_report_has_named_go_with_a_cut() {
    let mut at = Cluster::open(&[CHUNK]);
    at.allocate(1);
    at.allocate(2);
    assert_eq!(at.truncate(2 * CHUNK + 10), Ok(Done::Ok));
    assert_eq!((at.chunk(1), at.chunk(2)), (None, None));
    // Also the one in which it ends, where there was a hole.
    at.allocate(2);
    assert_eq!(at.truncate(2 * CHUNK + 5), Ok(Done::Ok));
    assert_eq!(at.chunk(3), None);
    // The file ends in a hole, and goes on from there.
    assert_eq!(at.take_over(2), Ok(Done::Ok));
    at.allocate(2);
    let basis = vec![synced(&at.grants[4], 50)];
    let report = set_size(at.file, 2 * CHUNK + 50, basis);
    assert_eq!(at.mutate(report), Ok(Done::Ok));
    assert_eq!(at.seen(), [(0, CHUNK), (2, 50)]);
}

#[test]
fn who_does_not_write_a_file_does_not_cut_it() {
    let mut at = Cluster::of(&[1_000]);
    refused(at.truncate(10), Status::BadRequest);
    let mut other = at.rig.client(2);
    let op = MutateOp::Append {
        at: meta_rig::at("f"),
    };
    at.rig.mutate(&mut other, op).unwrap();
    refused(at.truncate(10), Status::BadRequest);
    assert_eq!(at.size(), 1_000);
    let file = at.file;
    for len in [u64::MAX, 1 << 63] {
        let op = MutateOp::Truncate { file, len };
        refused(at.rig.mutate(&mut other, op), Status::BadRequest);
    }
    let op = MutateOp::Truncate {
        file: FileId::ROOT,
        len: 0,
    };
    refused(at.rig.mutate(&mut other, op), Status::IsADirectory);
}

#[test]
fn a_chunk_that_is_given_another_chain_when_its_file_is_cut_is_not() {
    let mut at = Cluster::open(&[1_000]);
    let done = at.take_over(0);
    assert!(matches!(done, Ok(Done::TakenOver { .. })), "{done:?}");
    let file = at.file;
    let rechain = MutateOp::Rechain {
        file,
        index: 0,
        chunk: at.grants[0].chunk,
        version: at.grants[0].version,
        synced: Durable {
            len: 1_000,
            wseq: RAISED,
        },
        head: HeadSeen::Reached,
        broken: 0,
    };
    let asked = at.rig.begin(&mut at.client, rechain);
    assert_eq!(at.truncate(100), Ok(Done::Ok));
    let refused = at.rig.mutated(at.client.link, asked).unwrap().outcome;
    assert_eq!(refused.unwrap_err().status, Status::NotFound);
    at.resumed.clear();
    at.serve();
    assert_eq!(at.resumed, [], "nobody goes on as before");
    let done = at.take_over(0);
    assert!(
        matches!(done, Ok(Done::TakenOver { len: 100, .. })),
        "{done:?}"
    );
}
