//! What a chunk at rest holds, in the log: only what all of its replicas said, and who holds something else is damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::limits::Timing;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Status};
use meta_rig::*;

const LEN: u64 = 1_000;
const REST: Duration = Duration::from_secs(10);

/// A file of one chunk at three replicas, closed.
struct Closed {
    rig: Rig,
    servers: Vec<Server>,
    client: Client,
    grant: Grant,
    file: FileId,
    beat: u64,
}

impl Closed {
    fn begin() -> Self {
        let mut rig = Rig::fresh();
        let servers: Vec<Server> = (1..=3).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let of: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(&mut client, &of, file, 0).unwrap();
        let mut at = Self {
            rig,
            servers,
            client,
            grant,
            file,
            beat: 0,
        };
        at.closes();
        at
    }
    fn closes(&mut self) {
        let basis = vec![synced(&self.grant, LEN)];
        let done = self
            .rig
            .mutate(&mut self.client, close(self.file, LEN, basis));
        assert_eq!(done, Ok(Done::Ok));
    }
    /// Passes time in which every server beats.
    fn pass(&mut self, time: Duration) {
        const STEP: Duration = Duration::from_millis(500);
        let steps = time.as_millis() / STEP.as_millis();
        for _ in 0..steps {
            self.beat += 1;
            for server in &self.servers {
                self.rig
                    .send(server.link, server.heartbeat(self.beat, self.beat - 1));
            }
            self.rig.pass(STEP);
        }
    }
    /// The orders to seal that servers were given, by their places.
    fn asked(&mut self) -> Vec<(usize, SealChunk)> {
        let mut asked = vec![];
        for (nth, server) in self.servers.iter().enumerate() {
            for order in self.rig.orders(server) {
                if let Head::SealChunk(order) = order {
                    assert_eq!(
                        (order.chunk, order.unsynced),
                        (self.grant.chunk, Unsynced::Kept)
                    );
                    asked.push((nth, order));
                }
            }
        }
        asked
    }
    fn says(&mut self, (nth, order): &(usize, SealChunk), outcome: Result<Content, Refusal>) {
        let sealed = ChunkSealed {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            outcome,
            next_lost: false,
        };
        let link = self.servers[*nth].link;
        self.rig.send(link, sealed);
    }
    fn sealed(&self) -> Option<Digest> {
        let state = self.rig.meta.state().unwrap();
        state.check();
        state.chunk(self.grant.chunk).unwrap().sealed
    }
    /// All are asked, and say this.
    fn all_say(&mut self, outcomes: [Result<Content, Refusal>; 3]) {
        let asked = self.asked();
        assert_eq!(asked.len(), 3, "all are asked");
        for (order, outcome) in asked.iter().zip(outcomes) {
            assert_eq!(self.sealed(), None, "not before all have said");
            self.says(order, outcome);
        }
    }
    fn is_sealed() -> Self {
        let mut at = Self::begin();
        at.pass(REST);
        at.all_say([same(), same(), same()]);
        assert_eq!(at.sealed(), Some(content(durable(LEN)).digest));
        at
    }
    fn incarnation(&self) -> Incarnation {
        let state = self.rig.meta.state().unwrap();
        let mut epochs = state.epochs();
        let of = epochs.find(|(epoch, ..)| *epoch == self.grant.version.epoch());
        of.unwrap().1
    }
    /// A server restarts and reports this.
    fn comes_back(&mut self, nth: usize, has: Content) -> Verdict {
        let item = InventoryItem {
            wseq: has.durable.wseq,
            digest: has.digest,
            ..item(self.file, &self.grant, self.incarnation(), has.durable.len)
        };
        let server = &mut self.servers[nth];
        server.hello.boot = server.hello.boot.next();
        self.rig.join(server, vec![item])[0]
    }
}

fn same() -> Result<Content, Refusal> {
    Ok(content(durable(LEN)))
}
fn longer() -> Content {
    content(Durable {
        len: LEN + 500,
        wseq: WriteSeq(2),
    })
}

#[test]
fn a_chunk_that_rests_is_sealed_as_all_of_its_replicas_say_and_stays_so_over_a_restart() {
    let mut at = Closed::begin();
    at.pass(REST - Duration::from_secs(1));
    assert_eq!(at.asked(), [], "not before it has rested");
    at.pass(Duration::from_secs(1));
    at.all_say([same(), same(), same()]);
    let digest = content(durable(LEN)).digest;
    assert_eq!(at.sealed(), Some(digest));
    at.pass(REST * 20);
    assert_eq!(at.asked(), [], "nobody is asked again");
    at.rig.restart();
    assert_eq!(at.sealed(), Some(digest));
    let link = at.rig.open_link(kfs_core::wire::Role::Client);
    at.rig.query(link, QueryOp::Checkpoint).unwrap();
    at.rig.restart();
    assert_eq!(at.sealed(), Some(digest), "it is in checkpoints");
}

#[test]
fn replicas_that_are_not_the_same_are_not_sealed_and_serve_on() {
    let mut at = Closed::begin();
    at.pass(REST);
    at.all_say([same(), Ok(longer()), same()]);
    assert_eq!(at.sealed(), None);
    let located = at.rig.locate(at.client.link, at.file);
    assert_eq!(located.chunks[0].replicas.len(), 3);
}

#[test]
fn nobody_is_asked_while_a_file_is_written_or_a_replica_is_missing() {
    let mut at = Closed::begin();
    let mut other = at.rig.client(2);
    let file = at.rig.create(&mut other, "open");
    let of: Vec<&Server> = at.servers.iter().collect();
    at.rig.allocate(&mut other, &of, file, 0).unwrap();
    let gone = at.servers.pop().unwrap();
    at.rig.close_link(gone.link);
    at.pass(REST * 3);
    assert_eq!(at.asked(), []);
    // It is back: what was not asked about is found by looking.
    at.servers.push(gone);
    assert_eq!(at.comes_back(2, content(durable(LEN))), keep());
    at.pass(Timing::REAL.serve_lease * 13);
    let asked = at.asked();
    assert_eq!(asked.len(), 3);
}

#[test]
fn what_is_synced_of_a_file_that_is_still_written_is_not_asked_about() {
    let mut at = Closed::is_sealed();
    let file = at.rig.create(&mut at.client, "open");
    let of: Vec<Server> = at.servers.clone();
    let of: Vec<&Server> = of.iter().collect();
    let grant = at.rig.allocate(&mut at.client, &of, file, 0).unwrap();
    let basis = vec![synced(&grant, LEN)];
    at.rig
        .mutate(&mut at.client, set_size(file, LEN, basis.clone()))
        .unwrap();
    // The end of another session has all chunks looked through.
    let ends = |at: &mut Closed, nonce| {
        let mut other = at.rig.client(nonce);
        at.rig.mutate(&mut other, MutateOp::EndSession).unwrap();
        at.pass(REST * 8);
        at.grant = grant.clone();
        at.asked().len()
    };
    assert_eq!(ends(&mut at, 2), 0);
    at.rig
        .mutate(&mut at.client, close(file, LEN, basis))
        .unwrap();
    assert_ne!(ends(&mut at, 3), 0);
}

#[test]
fn who_is_at_work_is_asked_again_and_who_cannot_say_is_not_asked_every_second() {
    let mut at = Closed::begin();
    at.pass(REST);
    let asked = at.asked();
    let refuse = |status| Err(Refusal::new(status, "no"));
    at.says(&asked[0], refuse(Status::Busy));
    at.says(&asked[1], same());
    at.pass(Duration::from_millis(500));
    assert_eq!(at.asked(), []);
    at.pass(Duration::from_secs(1));
    let asked = at.asked();
    assert_eq!(asked.len(), 3, "all are asked anew");
    at.says(&asked[0], refuse(Status::NotServed));
    at.pass(Duration::from_secs(5));
    assert_eq!(at.asked(), []);
    assert_eq!(at.sealed(), None);
}

#[test]
fn what_was_said_in_an_earlier_term_seals_nothing() {
    let mut at = Closed::begin();
    at.pass(REST);
    let asked = at.asked();
    at.says(&asked[0], same());
    at.says(&asked[1], same());
    // It restarts, and may have something else now.
    assert_eq!(at.comes_back(0, content(durable(LEN))), keep());
    at.says(&asked[2], same());
    assert_eq!(at.sealed(), None);
}

fn keep() -> Verdict {
    Verdict::Keep { log: durable(LEN) }
}

#[test]
fn a_replica_of_a_sealed_chunk_is_what_the_log_says_or_damaged() {
    let mut at = Closed::is_sealed();
    assert_eq!(at.comes_back(0, content(durable(LEN))), keep());
    let damaged = Verdict::Damaged { log: durable(LEN) };
    let other_bytes = Content {
        digest: Digest(1),
        ..content(durable(LEN))
    };
    assert_eq!(at.comes_back(0, other_bytes), damaged);
    assert_eq!(at.comes_back(1, longer()), damaged);
    assert_eq!(at.comes_back(1, content(durable(LEN))), keep());
}

#[test]
fn a_sealed_chunk_can_be_removed_and_its_members_let_go_of_it() {
    let mut at = Closed::is_sealed();
    at.rig.mutate(&mut at.client, remove("f")).unwrap();
    at.pass(Timing::REAL.session_idle * 2);
    let state = at.rig.meta.state().unwrap();
    assert!(state.chunk(at.grant.chunk).is_none());
    state.check();
}

#[test]
fn a_file_of_many_chunks_is_sealed_a_few_at_a_time() {
    const CHUNKS: u64 = 100;
    let mut at = Closed::begin();
    let file = at.rig.create(&mut at.client, "long");
    let of: Vec<Server> = at.servers.clone();
    let of: Vec<&Server> = of.iter().collect();
    let mut basis = vec![];
    let chunk_bytes = at.rig.config.geometry.chunk_bytes();
    for index in 0..CHUNKS {
        let grant = at.rig.allocate(&mut at.client, &of, file, index).unwrap();
        basis.push(synced(&grant, chunk_bytes));
    }
    let done = at
        .rig
        .mutate(&mut at.client, close(file, CHUNKS * chunk_bytes, basis));
    assert_eq!(done, Ok(Done::Ok));
    let mut most = 0;
    for _ in 0..40 {
        at.pass(Duration::from_millis(500));
        let mut asked = 0;
        for server in at.servers.clone() {
            for order in at.rig.orders(&server) {
                let Head::SealChunk(order) = order else {
                    continue;
                };
                asked += 1;
                let owned = at.rig.meta.state().unwrap().chunk(order.chunk).unwrap();
                let sealed = ChunkSealed {
                    term: order.term,
                    chunk: order.chunk,
                    version: order.version,
                    outcome: Ok(content(owned.synced.unwrap())),
                    next_lost: false,
                };
                at.rig.send(server.link, sealed);
            }
        }
        most = most.max(asked);
    }
    assert!((1..=3 * 64).contains(&most), "{most} orders at once");
    let state = at.rig.meta.state().unwrap();
    let sealed = state.chunks().filter(|owned| owned.sealed.is_some());
    assert_eq!(sealed.count() as u64, CHUNKS + 1);
    state.check();
}
