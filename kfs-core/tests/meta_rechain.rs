//! A chunk whose chain broke, at the meta server: who writes it further, from where on, and what the client is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::ids::*;
use kfs_core::meta::Config;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Status};
use meta_rig::*;
use std::collections::BTreeSet;

/// A chunk that a client writes to, and what the client is going to say of it.
struct Broken {
    rig: Rig,
    /// In the order of the chain.
    chain: Vec<Server>,
    /// Servers that do not have it.
    others: Vec<Server>,
    client: Client,
    file: FileId,
    grant: Grant,
    synced: Durable,
    head: HeadSeen,
    broken: u32,
}

/// So many writes of 100 bytes.
fn writes(wseq: u64) -> Durable {
    Durable {
        len: 100 * wseq,
        wseq: WriteSeq(wseq),
    }
}

impl Broken {
    /// On a chain of three of so many servers; two writes are synced.
    fn of(servers: u128) -> Self {
        Self::with(config(), servers)
    }
    fn with(config: Config, servers: u128) -> Self {
        let mut rig = Rig::start(config, Disk::default());
        let servers: Vec<Server> = (1..=servers).map(|node| rig.server(node)).collect();
        let mut client = rig.client(1);
        let file = rig.create(&mut client, "f");
        let all: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(&mut client, &all, file, 0).unwrap();
        assert_eq!((grant.from, grant.to), (PieceNumber(0), PieceNumber(0)));
        let at = |place: &Place| servers.iter().find(|server| server.place() == *place);
        let chain: Vec<Server> = grant
            .chain
            .iter()
            .map(|of| at(of).unwrap().clone())
            .collect();
        assert_eq!(chain.len(), 3);
        let is_other = |server: &&Server| !grant.chain.contains(&server.place());
        let others = servers.iter().filter(is_other).cloned().collect();
        Self {
            rig,
            chain,
            others,
            client,
            file,
            grant,
            synced: writes(2),
            head: HeadSeen::Reached,
            broken: 0,
        }
    }
    /// As [`Self::of`], with no server to spare.
    fn three() -> Self {
        Self::of(3)
    }
    fn wish(&self) -> MutateOp {
        MutateOp::Rechain {
            file: self.file,
            index: 0,
            chunk: self.grant.chunk,
            version: self.grant.version,
            synced: self.synced,
            head: self.head,
            broken: self.broken,
        }
    }
    fn ask(&mut self) -> u64 {
        let wish = self.wish();
        self.rig.begin(&mut self.client, wish)
    }
    /// Asks again with the number that was used last.
    fn ask_again(&mut self) -> u64 {
        let wish = self.client.request(self.client.last, self.wish());
        self.rig.send(self.client.link, wish)
    }
    fn answer(&mut self, request: u64) -> Option<Result<Done, Refusal>> {
        let mutated = self.rig.mutated(self.client.link, request)?;
        Some(mutated.outcome)
    }
    #[track_caller]
    fn granted(&mut self, request: u64) -> Grant {
        match self.answer(request) {
            Some(Ok(Done::Granted(grant))) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }
    #[track_caller]
    fn refused(&mut self, request: u64, status: Status) -> String {
        refused(self.answer(request).expect("it is answered"), status)
    }
    fn gone(&mut self, member: usize) {
        self.rig.close_link(self.chain[member].link);
    }
    /// The orders to seal that a server was given since it was last looked at.
    fn seals(&mut self, server: &Server) -> Vec<SealChunk> {
        let orders = self.rig.orders(server).into_iter();
        let seals = orders.filter_map(|order| match order {
            Head::SealChunk(order) => Some(order),
            Head::ResumeChunk(_) | Head::CopyChunk(_) | Head::CreateChunk(_) => {
                panic!("nobody is to be ordered {order:?} yet")
            }
            _ => None,
        });
        seals.collect()
    }
    /// A member answers the one order to seal that it was given.
    #[track_caller]
    fn sealed_with(&mut self, member: usize, outcome: Result<Durable, Refusal>, next_lost: bool) {
        let server = self.chain[member].clone();
        let seals = self.seals(&server);
        let [order] = seals.as_slice() else {
            panic!("one order to seal: {seals:?}")
        };
        let expected = SealChunk {
            term: server.term,
            chunk: self.grant.chunk,
            version: self.grant.version,
            unsynced: Unsynced::Dropped,
        };
        assert_eq!(*order, expected);
        let sealed = ChunkSealed {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            outcome: outcome.map(content),
            next_lost,
        };
        self.rig.send(server.link, sealed);
    }
    #[track_caller]
    fn sealed(&mut self, member: usize, wseq: u64) {
        self.sealed_with(member, Ok(writes(wseq)), false);
    }
    /// The order to resume that a server was given.
    fn resume_of(&mut self, server: &Server) -> Option<ResumeChunk> {
        let orders = self.rig.orders(server).into_iter();
        let mut resumes = orders.filter_map(|order| match order {
            Head::ResumeChunk(order) => Some(order),
            _ => None,
        });
        let found = resumes.next();
        assert_eq!(resumes.next(), None, "one order");
        found
    }
    /// The orders that these servers were given, which are alike, and say that they are the members.
    #[track_caller]
    fn resumes(&mut self, members: &[Server], from: u64, to: u64) -> Vec<ResumeChunk> {
        let places: Vec<Place> = members.iter().map(Server::place).collect();
        let mut chains = BTreeSet::new();
        let mut orders = vec![];
        for server in members {
            let order = self.resume_of(server).expect("a member is to resume");
            chains.insert(order.chain);
            let expected = ResumeChunk {
                term: server.term,
                chunk: self.grant.chunk,
                version: self.grant.version,
                chain: order.chain,
                members: places.clone(),
                session: self.client.session,
                from: WriteSeq(from),
                to: WriteSeq(to),
                raised: None,
                cut: None,
            };
            assert_eq!(order, expected);
            orders.push(order);
        }
        assert_eq!(chains.len(), 1, "it is one chain");
        assert!(!chains.contains(&ChainId(0)), "and not the first one");
        orders
    }
    fn say_resumed(&mut self, server: &Server, order: &ResumeChunk, outcome: Result<(), Refusal>) {
        let resumed = ChunkResumed {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            chain: order.chain,
            outcome,
        };
        self.rig.send(server.link, resumed);
    }
    /// These servers are ordered to go on, do so, and the client is told; not before all have.
    #[track_caller]
    fn resumed(&mut self, members: &[Server], from: u64, to: u64, request: u64) {
        let orders = self.resumes(members, from, to);
        for (server, order) in members.iter().zip(&orders) {
            assert_eq!(self.answer(request), None, "not before all take pieces");
            self.say_resumed(server, order, Ok(()));
        }
        let grant = self.granted(request);
        let expected = Grant {
            index: 0,
            chunk: self.grant.chunk,
            version: self.grant.version,
            chain: members.iter().map(Server::place).collect(),
            from: PieceNumber(from),
            to: PieceNumber(to),
        };
        assert_eq!(grant, expected);
        self.rig.meta.state().unwrap().check();
    }
    fn members(&self, of: &[usize]) -> Vec<Server> {
        of.iter().map(|at| self.chain[*at].clone()).collect()
    }
    /// Closes the file with what is synced, restarts the meta server with these servers, each of which reports so
    /// much: what is located then, and what the servers are told.
    fn after_a_restart(
        mut self,
        synced: Durable,
        servers: &[(Server, Durable)],
    ) -> (ChunkPlaces, Vec<Verdict>) {
        let basis = SyncedChunk {
            index: 0,
            chunk: self.grant.chunk,
            version: self.grant.version,
            synced,
        };
        let closes = close(self.file, synced.len, vec![basis]);
        let done = self.rig.mutate(&mut self.client, closes);
        assert_eq!(done, Ok(Done::Ok));
        self.rig.restart();
        let mut verdicts = vec![];
        for (server, has) in servers {
            let mut item = item(self.file, &self.grant, server.incarnation, has.len);
            item.wseq = has.wseq;
            verdicts.extend(self.rig.join(&mut server.clone(), vec![item]));
        }
        let asks = self.rig.open_link(kfs_core::wire::Role::Client);
        let mut located = self.rig.locate(asks, self.file);
        assert_eq!(located.chunks.len(), 1);
        (located.chunks.remove(0), verdicts)
    }
}

fn places(servers: &[Server]) -> BTreeSet<NodeId> {
    servers.iter().map(|server| server.hello.node).collect()
}

#[test]
fn a_chunk_whose_tail_is_lost_is_written_further_by_the_others_from_what_all_have() {
    let mut at = Broken::three();
    at.gone(2);
    let request = at.ask();
    at.sealed(0, 5);
    assert_eq!(
        at.resume_of(&at.chain[0].clone()),
        None,
        "not before all said"
    );
    at.sealed(1, 3);
    let survivors = at.members(&[0, 1]);
    at.resumed(&survivors, 3, 5, request);
    let has = [writes(5), writes(5), writes(4)];
    let reports: Vec<_> = at.chain.iter().cloned().zip(has).collect();
    let (located, verdicts) = at.after_a_restart(writes(5), &reports);
    let has: BTreeSet<NodeId> = located.replicas.iter().map(|place| place.node).collect();
    assert_eq!(has, places(&survivors), "the members are in the log");
    assert_eq!(located.absent, 0, "and nobody else");
    let kept: Vec<bool> = verdicts
        .iter()
        .map(|verdict| matches!(verdict, Verdict::Keep { .. }))
        .collect();
    assert_eq!(kept, [true, true, false], "{verdicts:?}");
}

#[test]
fn nobody_takes_pieces_in_a_chain_whose_members_are_not_durable_in_the_log() {
    let mut at = Broken::three();
    at.gone(2);
    let request = at.ask();
    at.sealed(0, 2);
    at.rig.hold = true;
    at.sealed(1, 2);
    let survivors = at.members(&[0, 1]);
    for server in &survivors {
        assert_eq!(at.resume_of(server), None, "the log does not have it yet");
    }
    at.rig.hold = false;
    at.rig.run_disk();
    at.resumed(&survivors, 2, 2, request);
}

#[test]
fn a_chain_of_which_all_are_left_goes_on_with_all_and_nothing_is_logged() {
    let mut at = Broken::three();
    let request = at.ask();
    let before = at.rig.writes;
    at.sealed(2, 4);
    at.sealed(0, 2);
    at.sealed(1, 9);
    let all = at.chain.clone();
    at.resumed(&all, 2, 9, request);
    assert_eq!(at.rig.writes, before);
}

#[test]
fn a_member_that_lacks_what_was_synced_does_not_write_further_and_nothing_synced_is_lost() {
    // As the client says, or as the log says of what a size rests on.
    for said_by_client in [true, false] {
        let mut at = Broken::three();
        if !said_by_client {
            let basis = SyncedChunk {
                index: 0,
                chunk: at.grant.chunk,
                version: at.grant.version,
                synced: writes(2),
            };
            let report = set_size(at.file, 200, vec![basis]);
            assert_eq!(at.rig.mutate(&mut at.client, report), Ok(Done::Ok));
            at.synced = Durable::default();
        }
        let request = at.ask();
        at.sealed(0, 2);
        at.sealed(1, 1);
        at.sealed(2, 3);
        let members = at.members(&[0, 2]);
        at.resumed(&members, 2, 3, request);
        assert_eq!(at.resume_of(&at.chain[1].clone()), None);
    }
}

#[test]
fn a_length_alone_does_not_make_a_member_of_who_lacks_a_synced_write() {
    let mut at = Broken::three();
    let request = at.ask();
    let long = Durable {
        len: 4_000,
        wseq: WriteSeq(1),
    };
    at.sealed(0, 2);
    at.sealed_with(1, Ok(long), false);
    at.sealed(2, 2);
    let members = at.members(&[0, 2]);
    at.resumed(&members, 2, 2, request);
}

#[test]
fn a_member_that_does_not_say_how_far_it_is_holds_the_writer_up_for_a_second_and_no_longer() {
    let mut at = Broken::three();
    let request = at.ask();
    at.sealed(0, 2);
    at.sealed(1, 2);
    at.rig.pass(Duration::from_millis(999));
    let survivors = at.members(&[0, 1]);
    for server in &survivors {
        assert_eq!(at.resume_of(server), None, "it may still answer");
    }
    at.rig.pass(Duration::from_millis(2));
    at.resumed(&survivors, 2, 2, request);
    // What it says too late changes nothing.
    at.sealed(2, 9);
    for server in &at.chain.clone() {
        assert_eq!(at.resume_of(server), None);
    }
}

#[test]
fn a_member_that_cannot_go_on_is_left_out_at_once() {
    let mut at = Broken::three();
    let request = at.ask();
    at.sealed(0, 2);
    let rotten = Refusal::new(Status::NotServed, "it rotted");
    at.sealed_with(1, Err(rotten), false);
    at.sealed(2, 2);
    let members = at.members(&[0, 2]);
    at.resumed(&members, 2, 2, request);
}

#[test]
fn a_member_that_is_still_at_work_is_asked_again_soon_and_not_left_out() {
    let mut at = Broken::three();
    let request = at.ask();
    at.sealed(0, 2);
    at.sealed(1, 2);
    let busy = || Err(Refusal::new(Status::Busy, "still at work"));
    let third = at.chain[2].clone();
    for _ in 0..20 {
        at.sealed_with(2, busy(), false);
        at.rig.pass(Duration::from_millis(4));
        assert_eq!(at.seals(&third), [], "not asked without a pause");
        at.rig.pass(Duration::from_millis(1));
    }
    at.sealed(2, 3);
    let all = at.chain.clone();
    at.resumed(&all, 2, 3, request);
}

#[test]
fn a_member_that_is_busy_for_ever_is_left_out_after_the_second_that_all_have() {
    let mut at = Broken::three();
    let request = at.ask();
    let begin = at.rig.now.mono;
    at.sealed(0, 2);
    at.sealed(1, 2);
    let survivors = at.members(&[0, 1]);
    let order = loop {
        let busy = Err(Refusal::new(Status::Busy, "still at work"));
        at.sealed_with(2, busy, false);
        at.rig.pass(Duration::from_millis(5));
        if at.rig.now.mono.since(begin) >= Duration::from_secs(1) {
            break at.resumes(&survivors, 2, 2);
        }
    };
    for (server, order) in survivors.iter().zip(&order) {
        at.say_resumed(server, order, Ok(()));
    }
    assert_eq!(at.granted(request).chain.len(), 2);
}

/// Servers obey orders to make a chunk; which one, and who was ordered.
fn made(at: &mut Broken, servers: &[Server]) -> (CreateChunk, Vec<Server>) {
    let mut orders = vec![];
    for server in servers {
        if let Some(order) = at.rig.ordered(server) {
            orders.push((server.clone(), order));
        }
    }
    let first = orders.first().expect("somebody is to make it").1.clone();
    for (server, order) in &orders {
        assert_eq!((order.chunk, order.version), (first.chunk, first.version));
        at.rig.send(server.link, created(order, Ok(())));
    }
    (
        first,
        orders.into_iter().map(|(server, _)| server).collect(),
    )
}

#[test]
fn a_chunk_of_which_nothing_was_synced_is_made_anew_when_a_member_is_gone() {
    let mut at = Broken::of(4);
    at.synced = Durable::default();
    at.gone(1);
    let request = at.ask();
    at.sealed(0, 0);
    at.sealed(2, 1);
    assert_eq!(at.answer(request), None);
    let live = [at.members(&[0, 2]), at.others.clone()].concat();
    let (order, by) = made(&mut at, &live);
    assert_ne!(order.chunk, at.grant.chunk, "under another id");
    assert_ne!(order.version, at.grant.version);
    assert_eq!((order.file, order.session), (at.file, at.client.session));
    assert_eq!(places(&by), places(&live), "on all that are left");
    let grant = at.granted(request);
    let expected = Grant {
        index: 0,
        chunk: order.chunk,
        version: order.version,
        chain: order.chain,
        from: PieceNumber(0),
        to: PieceNumber(0),
    };
    assert_eq!(grant, expected);
    let again = at.ask_again();
    assert_eq!(at.granted(again), grant, "a retry gets the same");
    // Nobody writes the chunk that was given up.
    at.client.lowest = at.client.last + 1;
    at.synced = writes(1);
    let late = at.ask();
    at.refused(late, Status::NotFound);
    at.rig.meta.state().unwrap().check();
}

#[test]
fn a_chunk_of_which_nothing_was_synced_is_not_made_anew_where_that_gains_nothing() {
    let mut at = Broken::three();
    at.synced = Durable::default();
    at.gone(1);
    let request = at.ask();
    at.sealed(0, 0);
    at.sealed(2, 1);
    let members = at.members(&[0, 2]);
    at.resumed(&members, 0, 1, request);
}

#[test]
fn a_chunk_that_was_given_up_to_be_made_anew_is_made_though_the_meta_server_restarted_meanwhile() {
    let mut at = Broken::of(4);
    at.synced = Durable::default();
    at.gone(1);
    at.ask();
    at.sealed(0, 0);
    at.sealed(2, 0);
    at.rig.restart();
    // Who is gone is not waited for any more.
    at.rig.pass(Duration::from_secs(10));
    let mut live = [at.members(&[0, 2]), at.others.clone()].concat();
    for server in &mut live {
        at.rig.join(server, vec![]);
    }
    at.rig.resume(&mut at.client);
    let request = at.ask_again();
    let (order, by) = made(&mut at, &live);
    assert_ne!(order.chunk, at.grant.chunk);
    assert_eq!(by.len(), 3);
    assert_eq!(at.granted(request).chunk, order.chunk);
}

fn copied(order: &CopyChunk, outcome: Result<Durable, Refusal>) -> ChunkCopied {
    ChunkCopied {
        term: order.term,
        chunk: order.chunk,
        version: order.version,
        outcome: outcome.map(content),
    }
}

/// The one order to make a copy that these servers were given.
fn copy_of(at: &mut Broken, servers: &[Server]) -> (Server, CopyChunk) {
    let mut found = vec![];
    for server in servers {
        for order in at.rig.orders(server) {
            match order {
                Head::CopyChunk(order) => found.push((server.clone(), order)),
                Head::ResumeChunk(order) => panic!("not before there is a copy: {order:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_chunk_with_too_few_replicas_left_is_copied_before_anything_more_is_written_to_it() {
    let mut at = Broken::of(4);
    let request = at.ask();
    at.gone(0);
    at.gone(2);
    at.sealed(1, 3);
    let (source, live) = (at.chain[1].clone(), at.others.clone());
    let (taker, order) = copy_of(&mut at, &[vec![source.clone()], live].concat());
    assert_eq!(taker.hello.node, at.others[0].hello.node);
    let expected = CopyChunk {
        term: taker.term,
        file: at.file,
        chunk: at.grant.chunk,
        version: at.grant.version,
        incarnation: source.incarnation,
        has: writes(3),
        source: source.place(),
    };
    assert_eq!(order, expected);
    assert_eq!(at.answer(request), None);
    at.rig.send(taker.link, copied(&order, Ok(writes(3))));
    let members = vec![source, taker];
    at.resumed(&members, 3, 3, request);
    let reports: Vec<_> = members.iter().map(|of| (of.clone(), writes(3))).collect();
    let (located, _) = at.after_a_restart(writes(3), &reports);
    let has: BTreeSet<NodeId> = located.replicas.iter().map(|place| place.node).collect();
    assert_eq!((has, located.absent), (places(&members), 0));
}

#[test]
fn a_copy_that_cannot_be_made_has_the_client_ask_again_and_the_next_try_may_succeed() {
    for silent in [false, true] {
        let mut at = Broken::of(4);
        let request = at.ask();
        at.gone(0);
        at.gone(2);
        at.sealed(1, 3);
        let others = at.others.clone();
        let (taker, order) = copy_of(&mut at, &others);
        if silent {
            for beat in 1..=11 {
                for server in [&at.chain[1], &taker] {
                    at.rig.send(server.link, server.heartbeat(beat, beat - 1));
                }
                at.rig.pass(Duration::from_secs(1));
            }
        } else {
            let full = Refusal::new(Status::NoRoom, "the disk is full");
            at.rig.send(taker.link, copied(&order, Err(full)));
        }
        at.refused(request, Status::Busy);
        at.rig.orders(&at.chain[1]);
        let request = at.ask_again();
        at.sealed(1, 3);
        let (taker, order) = copy_of(&mut at, &others);
        at.rig.send(taker.link, copied(&order, Ok(writes(3))));
        let members = vec![at.chain[1].clone(), taker];
        at.resumed(&members, 3, 3, request);
    }
}

#[test]
fn the_same_request_on_another_link_gets_the_one_answer_and_nobody_is_ordered_twice() {
    let mut at = Broken::three();
    let first = at.ask();
    let old = at.client.link;
    at.sealed(0, 2);
    at.sealed(1, 2);
    at.rig.resume(&mut at.client);
    let again = at.ask_again();
    for member in 0..2 {
        let server = at.chain[member].clone();
        assert_eq!(at.seals(&server), [], "it was asked");
    }
    at.sealed(2, 2);
    let twice = at.ask_again();
    let all = at.chain.clone();
    at.resumed(&all, 2, 2, twice);
    assert_eq!(
        at.answer(again),
        None,
        "one answer, to where it was last asked"
    );
    assert_eq!(at.rig.mutated(old, first), None);
    let after = at.ask_again();
    assert_eq!(at.granted(after).from, PieceNumber(2), "it is remembered");
    for server in &all {
        assert_eq!(at.seals(server), []);
    }
}

#[test]
fn too_few_servers_now_do_not_keep_the_same_request_from_succeeding_later() {
    let mut at = Broken::three();
    let request = at.ask();
    at.gone(0);
    at.gone(2);
    at.sealed(1, 3);
    let why = at.refused(request, Status::Busy);
    assert!(
        why.contains("1 live") && why.contains("at least 2"),
        "{why}"
    );
    let request = at.ask_again();
    at.sealed(1, 3);
    at.refused(request, Status::Busy);

    let mut back = at.chain[0].clone();
    let mut has = item(at.file, &at.grant, back.incarnation, 200);
    has.wseq = WriteSeq(2);
    let verdicts = at.rig.join(&mut back, vec![has]);
    assert!(
        matches!(verdicts[..], [Verdict::Keep { .. }]),
        "{verdicts:?}"
    );
    at.chain[0] = back;
    let request = at.ask_again();
    at.sealed(0, 2);
    at.sealed(1, 3);
    let members = at.members(&[0, 1]);
    at.resumed(&members, 2, 3, request);
}

#[test]
fn when_nobody_has_what_was_synced_nothing_is_written_and_nothing_is_made_anew() {
    let mut at = Broken::of(5);
    let request = at.ask();
    for member in 0..3 {
        at.sealed(member, 1);
    }
    at.refused(request, Status::Busy);
    for server in [at.chain.clone(), at.others.clone()].concat() {
        assert_eq!(at.seals(&server), []);
    }
}

#[test]
fn only_the_session_that_writes_a_file_gets_another_chain_for_it() {
    let mut at = Broken::three();
    let mut other = at.rig.client(2);
    refused(at.rig.mutate(&mut other, at.wish()), Status::BadRequest);
    for server in &at.chain.clone() {
        assert_eq!(at.seals(server), [], "its chain goes on");
    }
    let done = at.rig.mutate(&mut at.client, close(at.file, 0, vec![]));
    assert_eq!(done, Ok(Done::Ok));
    let request = at.ask();
    at.refused(request, Status::BadRequest);
}

#[test]
fn a_chunk_that_is_not_as_it_was_granted_is_not_sealed() {
    let at = Broken::three();
    let (chunk, version) = (at.grant.chunk, at.grant.version);
    for (chunk, version) in [
        (ChunkId(chunk.0 + 1), version),
        (chunk, Version(version.0 + 1)),
    ] {
        let mut at = Broken::three();
        (at.grant.chunk, at.grant.version) = (chunk, version);
        let request = at.ask();
        at.refused(request, Status::NotFound);
        for server in &at.chain.clone() {
            assert_eq!(at.seals(server), []);
        }
    }
}

#[test]
fn a_head_that_its_client_cannot_reach_takes_pieces_from_another_member() {
    let mut at = Broken::three();
    at.head = HeadSeen::Lost;
    let request = at.ask();
    for member in 0..3 {
        at.sealed(member, 2);
    }
    let turned = at.members(&[1, 2, 0]);
    at.resumed(&turned, 2, 2, request);
}

#[test]
fn a_head_that_is_gone_has_no_other_member_sent_to_the_end() {
    let mut at = Broken::three();
    at.head = HeadSeen::Lost;
    at.gone(0);
    let request = at.ask();
    at.sealed(1, 2);
    at.sealed(2, 2);
    let rest = at.members(&[1, 2]);
    at.resumed(&rest, 2, 2, request);
}

#[test]
fn two_that_cannot_reach_one_another_are_not_put_into_one_chain_again_and_again() {
    for (broken, lost, left) in [
        (0, 0, &[0, 1, 2][..]),
        (1, 0, &[0, 2]),
        (1, 1, &[0, 1]),
        (3, 1, &[0, 1]),
    ] {
        let mut at = Broken::three();
        at.broken = broken;
        let request = at.ask();
        for member in 0..3 {
            at.sealed_with(member, Ok(writes(2)), member == lost);
        }
        let members = at.members(left);
        at.resumed(&members, 2, 2, request);
    }
}

#[test]
fn who_cannot_be_reached_is_not_given_a_copy_to_go_on_with_and_is_tried_again_if_there_is_nobody_else()
 {
    let mut at = Broken::of(4);
    at.broken = 1;
    at.gone(2);
    let request = at.ask();
    at.sealed_with(0, Ok(writes(2)), true);
    at.sealed(1, 2);
    let live = [at.members(&[0, 1]), at.others.clone()].concat();
    let (taker, order) = copy_of(&mut at, &live);
    assert_eq!(taker.hello.node, at.others[0].hello.node);
    at.rig.send(taker.link, copied(&order, Ok(writes(2))));
    let members = vec![at.chain[0].clone(), taker];
    at.resumed(&members, 2, 2, request);

    let mut at = Broken::three();
    at.broken = 1;
    at.gone(2);
    let request = at.ask();
    at.sealed_with(0, Ok(writes(2)), true);
    at.sealed(1, 2);
    let both = at.members(&[0, 1]);
    at.resumed(&both, 2, 2, request);
}

#[test]
fn a_copy_that_was_made_for_a_chain_that_is_given_up_goes_with_its_chunk() {
    let config = Config {
        min_replicas: 3,
        ..config()
    };
    let mut at = Broken::with(config, 5);
    at.gone(1);
    at.gone(2);
    let request = at.ask();
    at.sealed(0, 2);
    let others = at.others.clone();
    let copies: Vec<_> = others
        .iter()
        .map(|other| copy_of(&mut at, core::slice::from_ref(other)))
        .collect();
    let (taker, order) = &copies[0];
    at.rig.send(taker.link, copied(order, Ok(writes(2))));
    // Who gives the other copy is lost, and the file is closed without the chunk.
    at.gone(0);
    at.refused(request, Status::Busy);
    let mut client = at.client.clone();
    client.lowest = client.last + 1;
    let done = at.rig.mutate(&mut client, close(at.file, 0, vec![]));
    assert_eq!(done, Ok(Done::Ok));
    at.rig.pass(Duration::from_secs(1));
    let deleted = at.rig.orders(taker).into_iter().any(|order| {
        matches!(order, Head::DeleteChunks(order) if order.chunks == [(at.grant.chunk, at.grant.version)])
    });
    assert!(deleted, "nobody else knows of it");
}

/// Asks for another chain, and lets the members seal the chunk, or also order them to go on.
fn asked_up_to(stage: u32) -> (Broken, u64) {
    let mut at = Broken::three();
    at.synced = Durable::default();
    let request = at.ask();
    if stage > 0 {
        for member in 0..3 {
            at.sealed(member, 0);
        }
    }
    (at, request)
}

#[test]
fn a_chunk_that_leaves_its_file_meanwhile_leaves_nobody_waiting() {
    for stage in 0..2 {
        let (mut at, request) = asked_up_to(stage);
        let mut other = at.client.clone();
        let done = at.rig.mutate(&mut other, close(at.file, 0, vec![]));
        assert_eq!(done, Ok(Done::Ok));
        let why = at.refused(request, Status::NotFound);
        assert!(why.contains("removed, or closed"), "{why}");
        assert_eq!(at.rig.meta.bounds().rechains, 0);
        let again = at.ask_again();
        assert_eq!(at.refused(again, Status::NotFound), why, "it is remembered");
        at.rig.pass(Duration::from_secs(2));
        for server in &at.chain.clone() {
            assert!(at.rig.orders(server).iter().all(is_no_order_to_write));
        }
    }
}

#[test]
fn a_chunk_whose_file_is_closed_meanwhile_keeps_a_member_that_is_away() {
    let mut at = Broken::three();
    at.gone(2);
    let request = at.ask();
    at.sealed(0, 2);
    let mut other = at.client.clone();
    let basis = SyncedChunk {
        synced: writes(2),
        ..synced(&at.grant, 0)
    };
    let closed = at.rig.mutate(&mut other, close(at.file, 200, vec![basis]));
    assert_eq!(closed, Ok(Done::Ok));
    at.sealed(1, 2);
    at.rig.pass(Duration::from_secs(2));
    at.refused(request, Status::BadRequest);
    let state = at.rig.meta.state().unwrap();
    assert_eq!(state.chunk(at.grant.chunk).unwrap().members.len(), 3);
}

fn is_no_order_to_write(order: &Head) -> bool {
    !matches!(order, Head::CreateChunk(_) | Head::CopyChunk(_))
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_written_further_all_the_same() {
    let (mut at, request) = asked_up_to(0);
    let mut other = at.rig.client(2);
    assert_eq!(at.rig.mutate(&mut other, remove("f")), Ok(Done::Ok));
    for member in 0..3 {
        at.sealed(member, 1);
    }
    let all = at.chain.clone();
    at.resumed(&all, 1, 1, request);
}

#[test]
fn a_server_that_is_lost_while_resuming_starts_another_round_without_it() {
    let mut at = Broken::three();
    let request = at.ask();
    for member in 0..3 {
        at.sealed(member, 2 + member as u64);
    }
    let all = at.chain.clone();
    let first = at.resumes(&all, 2, 4);
    at.say_resumed(&all[2], &first[2], Ok(()));
    // It had said that it goes on, and is lost nevertheless.
    at.gone(2);
    at.sealed(0, 2);
    at.sealed(1, 3);
    let survivors = at.members(&[0, 1]);
    let second = at.resumes(&survivors, 2, 3);
    assert_ne!(second[0].chain, first[0].chain, "it is another chain");
    // What comes late of the chain before is not of this one.
    for member in 0..2 {
        at.say_resumed(&all[member], &first[member], Ok(()));
    }
    assert_eq!(at.answer(request), None);
    for (server, order) in survivors.iter().zip(&second) {
        at.say_resumed(server, order, Ok(()));
    }
    let grant = at.granted(request);
    assert_eq!((grant.from, grant.to), (PieceNumber(2), PieceNumber(3)));
    assert_eq!(grant.chain.len(), 2);
}

#[test]
fn a_server_that_is_lost_while_it_is_sealed_is_not_waited_for() {
    let mut at = Broken::three();
    let request = at.ask();
    at.sealed(0, 2);
    at.sealed(1, 2);
    at.gone(2);
    let survivors = at.members(&[0, 1]);
    at.resumed(&survivors, 2, 2, request);
}

#[test]
fn a_server_that_sealed_and_is_lost_before_the_others_said_is_no_member() {
    let mut at = Broken::three();
    let request = at.ask();
    at.sealed(0, 2);
    at.gone(0);
    at.sealed(1, 2);
    at.sealed(2, 2);
    let survivors = at.members(&[1, 2]);
    at.resumed(&survivors, 2, 2, request);
}

#[test]
fn a_member_that_does_not_resume_starts_another_round_and_not_for_ever() {
    for silent in [false, true] {
        let mut at = Broken::three();
        let request = at.ask();
        for round in 1..=4 {
            for member in 0..3 {
                at.sealed(member, 2);
            }
            let all = at.chain.clone();
            let orders = at.resumes(&all, 2, 2);
            assert_eq!(at.answer(request), None, "round {round}");
            if silent {
                at.rig.pass(Duration::from_secs(1));
            } else {
                let why = Refusal::new(Status::ChainBroken, "it is at another write");
                at.say_resumed(&all[1], &orders[1], Err(why));
            }
        }
        at.refused(request, Status::Busy);
        assert_eq!(at.rig.meta.bounds().rechains, 0);
        let request = at.ask_again();
        for member in 0..3 {
            at.sealed(member, 2);
        }
        let all = at.chain.clone();
        at.resumed(&all, 2, 2, request);
    }
}

#[test]
fn a_session_that_ends_meanwhile_is_forgotten_with_what_it_asked_for() {
    let mut at = Broken::three();
    at.ask();
    let mut other = at.client.clone();
    let done = at.rig.mutate(&mut other, MutateOp::EndSession);
    assert_eq!(done, Ok(Done::Ok));
    assert_eq!(at.rig.meta.bounds().rechains, 0);
    for member in 0..3 {
        at.sealed(member, 2);
    }
    for server in &at.chain.clone() {
        assert_eq!(at.resume_of(server), None);
    }
}

#[test]
fn a_second_wish_for_the_same_chunk_takes_the_place_of_the_one_that_its_client_gave_up() {
    let mut at = Broken::three();
    let first = at.ask();
    at.sealed(0, 2);
    let second = at.ask();
    for member in 1..3 {
        let server = at.chain[member].clone();
        assert_eq!(at.seals(&server).len(), 2, "asked by both");
    }
    let order = SealChunk {
        term: at.chain[1].term,
        chunk: at.grant.chunk,
        version: at.grant.version,
        unsynced: Unsynced::Dropped,
    };
    for member in 1..3 {
        let server = at.chain[member].clone();
        let sealed = ChunkSealed {
            term: server.term,
            chunk: order.chunk,
            version: order.version,
            outcome: Ok(content(writes(2))),
            next_lost: false,
        };
        at.rig.send(server.link, sealed);
    }
    at.sealed(0, 2);
    let all = at.chain.clone();
    at.resumed(&all, 2, 2, second);
    assert_eq!(at.answer(first), None);
    assert_eq!(at.rig.meta.bounds().rechains, 0);
}
