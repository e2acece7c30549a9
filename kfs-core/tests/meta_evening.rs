//! Members of a chunk at rest that hold what is not the same are made equal, and nothing of what the log has of it is
//! at stake meanwhile.
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
use std::collections::{BTreeMap, BTreeSet};

const LEN: u64 = 1_000;
const REST: Duration = Duration::from_secs(10);
/// Every chunk was looked at, and asked about, since.
const LOOKED: Duration = Duration::from_secs(75);
const TICK: Duration = Duration::from_millis(100);

/// What a server does with an order to make a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Makes {
    /// It has made it at once.
    Now,
    /// It is at work on it for as long as the test says.
    Later,
    Never,
}

/// Files of one chunk at three replicas, closed, and servers that say what they hold.
struct Cluster {
    rig: Rig,
    servers: Vec<Server>,
    has: Vec<Content>,
    client: Client,
    grant: Grant,
    file: FileId,
    makes: Makes,
    /// All copies that were ordered, and those that are not made.
    ordered: Vec<(usize, CopyChunk)>,
    under_way: Vec<(usize, CopyChunk)>,
    deleted: Vec<(usize, ChunkId)>,
    resumes: Vec<(usize, ResumeChunk)>,
    seals: usize,
    ticks: u64,
}

fn has(len: u64, wseq: u64) -> Content {
    let wseq = WriteSeq(wseq);
    content(Durable { len, wseq })
}
/// What was reported as synced.
fn reported() -> Content {
    has(LEN, 1)
}
fn more() -> Content {
    has(LEN + 500, 3)
}
/// As reported, and raised by a takeover that was broken off.
fn raised() -> Content {
    has(LEN, 1 << COUNTER_BITS)
}

impl Cluster {
    fn begin(servers: u128, has: [Content; 3]) -> Self {
        let mut rig = Rig::fresh();
        let mut servers: Vec<Server> = (1..=servers).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let of: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(&mut client, &of, file, 0).unwrap();
        let basis = vec![synced(&grant, LEN)];
        assert_eq!(
            rig.mutate(&mut client, close(file, LEN, basis)),
            Ok(Done::Ok)
        );
        // The members first, in the order of their places.
        servers.sort_by_key(|server| {
            let is_member = grant.chain.contains(&server.place());
            (!is_member, server.hello.node)
        });
        let mut has = has.to_vec();
        has.resize(servers.len(), content(Durable::default()));
        Self {
            rig,
            servers,
            has,
            client,
            grant,
            file,
            makes: Makes::Now,
            ordered: vec![],
            under_way: vec![],
            deleted: vec![],
            resumes: vec![],
            seals: 0,
            ticks: 0,
        }
    }
    fn holding(has: [Content; 3]) -> Self {
        Self::begin(3, has)
    }
    /// Copies are ordered of members that differ, and not made.
    fn uneven(has: [Content; 3]) -> Self {
        let mut at = Self::holding(has);
        at.makes = Makes::Later;
        at.pass(REST + TICK * 5);
        assert_eq!(at.under_way.len(), 1);
        at
    }
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / TICK.as_millis() {
            self.ticks += 1;
            if self.ticks.is_multiple_of(5) {
                let beat = self.ticks / 5;
                for server in &self.servers {
                    self.rig.send(server.link, server.heartbeat(beat, beat - 1));
                }
            }
            self.rig.pass(TICK);
            self.obey();
        }
    }
    /// Servers do what they were ordered, until there is nothing more.
    fn obey(&mut self) {
        loop {
            let before = (self.seals, self.ordered.len());
            for nth in 0..self.servers.len() {
                for order in self.rig.orders(&self.servers[nth].clone()) {
                    self.does(nth, order);
                }
            }
            if before == (self.seals, self.ordered.len()) {
                break;
            }
        }
    }
    fn does(&mut self, nth: usize, order: Head) {
        match order {
            Head::SealChunk(order) => {
                self.seals += 1;
                let busy = self
                    .under_way
                    .iter()
                    .any(|(at, copy)| (*at, copy.chunk) == (nth, order.chunk));
                let sealed = ChunkSealed {
                    term: order.term,
                    chunk: order.chunk,
                    version: order.version,
                    outcome: if busy {
                        Err(Refusal::new(Status::Busy, "it is being replaced"))
                    } else {
                        Ok(self.has[nth])
                    },
                    next_lost: false,
                };
                self.rig.send(self.servers[nth].link, sealed);
            }
            Head::CopyChunk(order) => {
                self.ordered.push((nth, order.clone()));
                match self.makes {
                    Makes::Now => self.made(nth, &order),
                    Makes::Later => self.under_way.push((nth, order)),
                    Makes::Never => self.says(nth, &order, Err(refusal(Status::NoRoom))),
                }
            }
            Head::DeleteChunks(order) => {
                let chunks = order.chunks.iter();
                self.deleted.extend(chunks.map(|(chunk, _)| (nth, *chunk)));
            }
            Head::ResumeChunk(order) => self.resumes.push((nth, order)),
            _ => {}
        }
    }
    fn source(&self, order: &CopyChunk) -> usize {
        let mut servers = self.servers.iter();
        servers
            .position(|server| server.place() == order.source)
            .unwrap()
    }
    fn made(&mut self, nth: usize, order: &CopyChunk) {
        let source = self.source(order);
        assert_eq!(order.has, self.has[source].durable, "it gives what it has");
        self.has[nth] = self.has[source];
        self.says(nth, order, Ok(self.has[nth]));
    }
    /// What was under way is made.
    fn made_now(&mut self) {
        self.makes = Makes::Now;
        for (nth, order) in core::mem::take(&mut self.under_way) {
            self.made(nth, &order);
        }
        self.obey();
    }
    fn says(&mut self, nth: usize, order: &CopyChunk, outcome: Result<Content, Refusal>) {
        let copied = ChunkCopied {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            outcome,
        };
        self.rig.send(self.servers[nth].link, copied);
    }
    fn chunk(&self) -> Owned {
        let state = self.rig.meta.state().unwrap();
        state.check();
        state.chunk(self.grant.chunk).unwrap()
    }
    /// Who of whom was to have copies, in their order.
    fn orders(&self) -> Vec<(usize, usize)> {
        let ordered = self.ordered.iter();
        ordered
            .map(|(nth, order)| (*nth, self.source(order)))
            .collect()
    }
    /// The log says that all three hold this, and they do.
    #[track_caller]
    fn assert_sealed(&mut self, as_what: Content) {
        let chunk = self.chunk();
        assert_eq!(chunk.sealed, Some(as_what.digest));
        assert_eq!(chunk.synced, Some(as_what.durable));
        assert_eq!(self.has[..3], [as_what; 3]);
        self.assert_redundant();
    }
    /// All three count, and are read.
    #[track_caller]
    fn assert_redundant(&mut self) {
        assert_eq!(self.chunk().members.len(), 3);
        let located = self.rig.locate(self.client.link, self.file);
        assert_eq!(located.chunks[0].replicas.len(), 3);
        assert_eq!(located.size, LEN);
        assert_eq!(located.chunks[0].log.len, LEN);
        assert_eq!(self.deleted, []);
    }
    fn item(&self, nth: usize) -> InventoryItem {
        let state = self.rig.meta.state().unwrap();
        let mut epochs = state.epochs();
        let of = epochs.find(|(epoch, ..)| *epoch == self.grant.version.epoch());
        let incarnation = of.unwrap().1;
        let Content { durable, digest } = self.has[nth];
        InventoryItem {
            wseq: durable.wseq,
            digest,
            ..item(self.file, &self.grant, incarnation, durable.len)
        }
    }
    /// A server restarts: what it was at work on is gone.
    fn comes_back(&mut self, nth: usize) -> Verdict {
        let item = self.item(nth);
        self.under_way.retain(|(at, _)| *at != nth);
        let server = &mut self.servers[nth];
        server.hello.boot = server.hello.boot.next();
        self.rig.join(server, vec![item])[0]
    }
    /// Another session opens the file and begins to take its chunk over; who it is, and what it asked.
    fn takes_over(&mut self) -> (Client, u64) {
        let mut other = self.rig.client(2);
        let op = MutateOp::Append { at: at("f") };
        self.rig.mutate(&mut other, op).unwrap();
        let (file, index) = (self.file, 0);
        let request = self
            .rig
            .begin(&mut other, MutateOp::TakeOver { file, index });
        (other, request)
    }
    /// Who was ordered to be raised is; who that is.
    fn all_raised(&mut self) -> Vec<usize> {
        let mut members = vec![];
        // An order that was not answered for a second is made anew.
        let last: BTreeMap<_, _> = core::mem::take(&mut self.resumes).into_iter().collect();
        for (nth, order) in last {
            let wseq = order.raised.unwrap();
            let len = self.has[nth].durable.len;
            self.has[nth] = content(Durable { len, wseq });
            let resumed = ChunkResumed {
                term: order.term,
                chunk: order.chunk,
                version: order.version,
                chain: order.chain,
                outcome: Ok(()),
            };
            self.rig.send(self.servers[nth].link, resumed);
            members.push(nth);
        }
        members
    }
}

fn refusal(status: Status) -> Refusal {
    Refusal::new(status, "no")
}

#[test]
fn what_all_hold_beyond_what_was_reported_is_in_the_log_and_readers_see_no_more_than_before() {
    for all in [more(), raised()] {
        let mut at = Cluster::holding([all; 3]);
        at.pass(REST + TICK);
        at.assert_sealed(all);
        assert_eq!(at.orders(), []);
        at.rig.restart();
        let chunk = at.chunk();
        assert_eq!(chunk.sealed, Some(all.digest), "it is in the log");
        assert_eq!(chunk.synced, Some(all.durable));
        let link = at.rig.open_link(Role::Client);
        at.rig.query(link, QueryOp::Checkpoint).unwrap();
        at.rig.restart();
        assert_eq!(at.chunk(), chunk, "and in checkpoints");
        // Who has less is judged by that.
        let log = Durable {
            len: LEN,
            ..all.durable
        };
        assert_eq!(at.comes_back(0), Verdict::Keep { log });
        at.has[1] = reported();
        assert_eq!(at.comes_back(1), Verdict::Damaged { log });
    }
}

#[test]
fn who_has_less_gets_what_the_others_have_one_after_another_and_all_count_meanwhile() {
    let mut at = Cluster::holding([reported(), more(), has(LEN + 200, 2)]);
    at.makes = Makes::Later;
    at.pass(REST + TICK * 5);
    for nth in 1..=2 {
        assert_eq!(at.orders().len(), nth, "one at a time");
        assert_eq!(at.ordered[nth - 1].1.has, more().durable, "of the most");
        at.assert_redundant();
        at.pass(Duration::from_secs(5));
        at.assert_redundant();
        let (to, order) = at.under_way.pop().unwrap();
        at.made(to, &order);
        at.pass(TICK * 3);
    }
    at.assert_sealed(more());
    let mut to: Vec<usize> = at.orders().iter().map(|(to, _)| *to).collect();
    to.sort_unstable();
    assert_eq!(to, [0, 2]);
    at.pass(LOOKED);
    assert_eq!(at.orders().len(), 2, "and nothing more");
}

#[test]
fn who_is_ahead_by_a_takeover_that_was_broken_off_has_the_most_also_where_another_has_more_bytes() {
    for other in [reported(), more()] {
        let mut at = Cluster::holding([raised(), other, raised()]);
        at.pass(REST + TICK * 5);
        assert_eq!(at.orders().len(), 1);
        assert_eq!(at.orders()[0].0, 1);
        at.assert_sealed(raised());
    }
}

#[test]
fn those_that_hold_something_else_at_the_same_write_stay_as_they_are() {
    let other = Content {
        digest: Digest(1),
        ..more()
    };
    let mut at = Cluster::holding([more(), other, reported()]);
    at.pass(LOOKED);
    assert!(at.seals > 0);
    assert_eq!(at.orders(), []);
    assert_eq!(at.chunk().sealed, None);
    at.assert_redundant();
}

#[test]
fn what_is_found_by_looking_after_a_restart_is_made_equal_too() {
    let mut at = Cluster::uneven([more(), reported(), more()]);
    at.rig.restart();
    for nth in 0..3 {
        let log = reported().durable;
        assert_eq!(at.comes_back(nth), Verdict::Keep { log });
    }
    at.client = at.rig.client(7);
    at.makes = Makes::Now;
    at.pass(LOOKED);
    at.assert_sealed(more());
}

#[test]
fn who_restarts_while_it_is_to_have_a_copy_counts_with_the_old_one_as_with_the_new() {
    for new in [false, true] {
        let mut at = Cluster::uneven([more(), reported(), more()]);
        let (to, order) = at.under_way[0].clone();
        assert_eq!(to, 1);
        if new {
            at.has[1] = more();
        }
        let log = reported().durable;
        assert_eq!(at.comes_back(1), Verdict::Keep { log });
        at.assert_redundant();
        at.makes = Makes::Now;
        // What it says of an order of before is nothing.
        at.says(1, &order, Ok(more()));
        at.pass(LOOKED);
        at.assert_sealed(more());
        assert_eq!(at.orders().len(), if new { 1 } else { 2 });
    }
}

#[test]
fn who_gives_a_copy_and_dies_is_asked_for_nothing_more_and_another_one_gives_it() {
    let mut at = Cluster::uneven([more(), reported(), more()]);
    let (to, order) = at.under_way[0].clone();
    let source = at.source(&order);
    let gone = at.servers[source].clone();
    at.rig.close_link(gone.link);
    at.says(to, &order, Err(refusal(Status::ChainBroken)));
    at.under_way.clear();
    at.makes = Makes::Now;
    at.pass(REST);
    assert_eq!(
        at.orders().len(),
        1,
        "not before as many are there as are wanted"
    );
    let log = reported().durable;
    assert_eq!(at.comes_back(source), Verdict::Keep { log });
    at.pass(LOOKED);
    at.assert_sealed(more());
}

#[test]
fn a_copy_that_cannot_be_made_is_tried_later_and_later_and_from_another() {
    let mut at = Cluster::holding([more(), reported(), more()]);
    at.makes = Makes::Never;
    at.pass(REST + Duration::from_secs(20));
    // After 1, 2, 4, 8 seconds.
    let orders = at.orders();
    assert!((4..=6).contains(&orders.len()), "{orders:?}");
    let from: BTreeSet<_> = orders.iter().map(|(_, source)| *source).collect();
    assert_eq!(from.len(), 2, "{orders:?}");
    at.assert_redundant();
    at.makes = Makes::Now;
    at.pass(Duration::from_secs(33));
    at.assert_sealed(more());
}

#[test]
fn a_copy_of_a_chunk_that_is_taken_over_meanwhile_is_nobodys_order_to_delete_and_mends_nobody() {
    // It is done before its server is asked what it has; or when the chunk is taken over without it.
    for late in [false, true] {
        let mut at = Cluster::uneven([more(), reported(), more()]);
        let (to, order) = at.under_way.pop().unwrap();
        if late {
            at.under_way.push((to, order.clone()));
        }
        let (other, request) = at.takes_over();
        if !late {
            at.made(to, &order);
        }
        at.pass(TICK * 15);
        let members = at.all_raised();
        let expected: &[usize] = if late { &[0, 2] } else { &[0, 1, 2] };
        assert_eq!(members, expected, "late: {late}");
        let answer = at.rig.mutated(other.link, request).unwrap();
        assert!(
            matches!(answer.outcome, Ok(Done::TakenOver { len, .. }) if len == LEN + 500),
            "{answer:?}"
        );
        if late {
            at.under_way.clear();
            at.says(to, &order, Ok(more()));
        }
        at.pass(REST);
        assert_eq!(at.deleted, [], "late: {late}");
        let chunk = at.chunk();
        assert_eq!(chunk.members.len(), expected.len());
        let located = at.rig.locate(at.client.link, at.file);
        assert_eq!(located.chunks[0].replicas.len(), expected.len());
        assert_eq!(at.orders().len(), 1);
    }
}

#[test]
fn what_waits_for_its_turn_is_not_copied_when_the_chunk_is_written_further_first() {
    // Who is to give it has not said yet that it takes no more pieces.
    let mut at = Cluster::holding([more(), reported(), more()]);
    at.makes = Makes::Later;
    let rests = REST - TICK * 2;
    at.pass(rests);
    assert_eq!(at.seals, 0);
    for _ in 0..400 {
        at.rig.pass(Duration::from_millis(10));
        if at.seals == 3 {
            break;
        }
        for nth in 0..3 {
            for order in at.rig.orders(&at.servers[nth].clone()) {
                at.does(nth, order);
            }
        }
    }
    assert_eq!(at.seals, 3, "all have said what they hold");
    let (_, _) = at.takes_over();
    at.pass(Duration::from_secs(2));
    assert_eq!(at.orders(), []);
    assert_eq!(at.all_raised(), [0, 2]);
}

#[test]
fn a_chunk_that_is_removed_while_a_copy_is_made_leaves_nothing() {
    let mut at = Cluster::uneven([more(), reported(), more()]);
    at.rig.mutate(&mut at.client, remove("f")).unwrap();
    at.rig.mutate(&mut at.client, MutateOp::EndSession).unwrap();
    at.makes = Makes::Now;
    at.pass(Duration::from_secs(60));
    at.made_now();
    at.pass(REST);
    assert!(at.rig.meta.state().unwrap().chunk(at.grant.chunk).is_none());
    for nth in 0..3 {
        assert!(at.deleted.contains(&(nth, at.grant.chunk)), "server {nth}");
    }
    assert_eq!(at.orders().len(), 1);
}

#[test]
fn a_replica_that_is_missing_and_one_that_has_less_are_not_made_at_once() {
    let mut at = Cluster::begin(4, [more(), reported(), more()]);
    at.makes = Makes::Later;
    at.pass(REST + TICK * 5);
    assert_eq!(at.under_way.len(), 1);
    // A member that gives nothing is gone for good.
    let source = at.source(&at.under_way[0].1);
    let gone = 2 - source;
    let gone = at.servers.remove(gone);
    at.has.remove(2 - source);
    at.rig.close_link(gone.link);
    let to = at.under_way[0].0;
    at.under_way[0].0 = to - usize::from(to > 2 - source);
    at.pass(Duration::from_secs(25));
    assert_eq!(at.orders().len(), 1, "one copy of a chunk at a time");
    at.made_now();
    at.pass(Duration::from_secs(400));
    let chunk = at.chunk();
    assert_eq!(at.orders().len(), 2, "and the missing one is made then");
    assert_eq!(at.has, [more(); 3]);
    assert_eq!(chunk.sealed, Some(more().digest));
}

#[test]
fn a_member_that_is_away_is_none_any_more_when_more_than_it_may_have_is_sealed() {
    let mut at = Cluster::begin(4, [more(), more(), more()]);
    let gone = at.servers.remove(2);
    at.has.remove(2);
    at.rig.close_link(gone.link);
    // Another one gets what is missing; then all that are there hold more than was reported.
    at.pass(Duration::from_secs(400));
    let chunk = at.chunk();
    assert_eq!(chunk.sealed, Some(more().digest));
    assert_eq!(chunk.synced, Some(more().durable));
    let state = at.rig.meta.state().unwrap();
    let node = |member| {
        state
            .servers()
            .find(|(index, _)| *index == member)
            .unwrap()
            .1
    };
    let members: BTreeSet<_> = chunk.members.iter().map(|member| node(*member)).collect();
    let there: BTreeSet<_> = at.servers.iter().map(|server| server.hello.node).collect();
    assert_eq!(members, there, "it may have lost what no report has named");
    // What it has is not needed.
    at.servers.push(gone);
    at.has.push(reported());
    assert_eq!(at.comes_back(3), Verdict::Stale);
    at.assert_redundant();
}

#[test]
fn many_that_differ_at_once_cost_each_server_two_copies_at_a_time() {
    const FILES: u64 = 60;
    let mut at = Cluster::holding([more(), reported(), more()]);
    let of = at.servers.clone();
    let of: Vec<&Server> = of.iter().collect();
    for nth in 0..FILES {
        let file = at.rig.create(&mut at.client, &format!("f{nth}"));
        let grant = at.rig.allocate(&mut at.client, &of, file, 0).unwrap();
        let basis = vec![synced(&grant, LEN)];
        at.rig
            .mutate(&mut at.client, close(file, LEN, basis))
            .unwrap();
    }
    at.makes = Makes::Later;
    at.pass(REST + Duration::from_secs(5));
    assert_eq!(at.under_way.len(), 2);
    assert_eq!(
        at.rig.meta.status().unwrap().replication_work.waiting,
        FILES - 1
    );
    let mut ordered = 2;
    while let Some((nth, order)) = at.under_way.pop() {
        // Each is asked again then, and all hold the same.
        let source = at.source(&order);
        let now = at.has[source];
        at.says(nth, &order, Ok(now));
        let said = at.has[nth];
        at.has[nth] = now;
        at.pass(TICK * 2);
        at.has[nth] = said;
        assert!(at.under_way.len() <= 2);
        ordered = ordered.max(at.ordered.len());
        if ordered > 30 {
            return;
        }
    }
    panic!("{ordered} copies were ordered");
}
