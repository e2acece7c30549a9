//! A closed file that another session writes further, at the meta server: its last chunk is taken from whoever wrote it
//! before, and nothing of theirs can pass for a replica of it any more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod meta_rig;

use core::time::Duration;
use kfs_core::identity::Identity;
use kfs_core::ids::*;
use kfs_core::meta::checkpoint::{Loader, Writer};
use kfs_core::meta::oplog::More;
use kfs_core::meta::state::{Owned, State};
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::Durable;
use kfs_core::wire::client_meta::*;
use kfs_core::wire::{Head, Refusal, Status};
use meta_rig::*;

const LEN: u64 = 1_000;
/// The write that the members are raised to by who writes the chunk second, and third.
const SECOND: WriteSeq = WriteSeq(1 << COUNTER_BITS);
const THIRD: WriteSeq = WriteSeq(2 << COUNTER_BITS);

/// A file of one chunk at three replicas that a client has closed, and another one that writes it further.
struct Closed {
    rig: Rig,
    servers: Vec<Server>,
    before: Client,
    client: Client,
    grant: Grant,
    file: FileId,
    beat: u64,
}

fn has(len: u64, wseq: WriteSeq) -> Content {
    content(Durable { len, wseq })
}
/// What the log says that all have.
fn synced_once() -> Content {
    content(durable(LEN))
}
fn refusal(status: Status) -> Refusal {
    Refusal::new(status, "no")
}

impl Closed {
    fn of(servers: u128) -> Self {
        let mut rig = Rig::fresh();
        let servers: Vec<Server> = (1..=servers).map(|node| rig.server(node)).collect();
        let mut before = rig.client(1);
        let file = rig.create(&mut before, "f");
        let of: Vec<&Server> = servers.iter().collect();
        let grant = rig.allocate(&mut before, &of, file, 0).unwrap();
        let basis = vec![synced(&grant, LEN)];
        let done = rig.mutate(&mut before, close(file, LEN, basis));
        assert_eq!(done, Ok(Done::Ok));
        let client = rig.client(2);
        let mut servers = servers;
        // In the order of the chain, those that do not have it behind.
        servers.sort_by_key(|server| {
            let mut chain = grant.chain.iter();
            chain
                .position(|place| *place == server.place())
                .unwrap_or(usize::MAX)
        });
        Self {
            rig,
            servers,
            before,
            client,
            grant,
            file,
            beat: 0,
        }
    }
    /// Half a second, in which every server beats.
    fn beats(&mut self) {
        self.beat += 1;
        for server in &self.servers {
            self.rig
                .send(server.link, server.heartbeat(self.beat, self.beat - 1));
        }
        self.rig.pass(Duration::from_millis(500));
    }
    /// It has rested, so that all are asked what they hold.
    fn rests(&mut self) {
        (0..20).for_each(|_| self.beats());
    }
    /// As the log knows what all replicas hold.
    fn sealed() -> Self {
        let mut at = Self::of(3);
        at.rests();
        for nth in 0..3 {
            at.says_sealed(nth, Ok(synced_once()));
        }
        assert!(at.chunk().sealed.is_some());
        at
    }
    /// The second client has the file open.
    fn reopened(servers: u128) -> Self {
        let mut at = Self::of(servers);
        at.appends();
        at
    }
    fn append(&mut self) -> Result<Done, Refusal> {
        let op = MutateOp::Append { at: at("f") };
        self.rig.mutate(&mut self.client, op)
    }
    #[track_caller]
    fn appends(&mut self) {
        let appending = Done::Appending {
            file: self.file,
            replication: 3,
            size: LEN,
        };
        assert_eq!(self.append(), Ok(appending));
    }
    fn op(&self) -> MutateOp {
        let (file, index) = (self.file, 0);
        MutateOp::TakeOver { file, index }
    }
    fn takes_over(&mut self) -> u64 {
        let op = self.op();
        self.rig.begin(&mut self.client, op)
    }
    fn answer(&mut self, request: u64) -> Option<Result<Done, Refusal>> {
        Some(self.rig.mutated(self.client.link, request)?.outcome)
    }
    /// What a server was ordered about the chunk since it was last looked at.
    fn orders(&mut self, nth: usize) -> Vec<Head> {
        let of_it = |order: &Head| {
            matches!(
                order,
                Head::SealChunk(_) | Head::ResumeChunk(_) | Head::CopyChunk(_)
            )
        };
        let orders = self.rig.orders(&self.servers[nth]);
        orders.into_iter().filter(of_it).collect()
    }
    /// A server was ordered to seal, to keep what no sync covered, and says this.
    #[track_caller]
    fn says_sealed(&mut self, nth: usize, outcome: Result<Content, Refusal>) {
        let (term, chunk, version) = (self.servers[nth].term, self.grant.chunk, self.grant.version);
        let order = SealChunk {
            term,
            chunk,
            version,
            unsynced: Unsynced::Kept,
        };
        assert_eq!(self.orders(nth), [order.into()]);
        let sealed = ChunkSealed {
            term,
            chunk,
            version,
            outcome,
            next_lost: false,
        };
        self.rig.send(self.servers[nth].link, sealed);
    }
    /// These servers seal what they are ordered to, to give a copy of this, and were ordered nothing else.
    #[track_caller]
    fn give_copies(&mut self, of: [usize; 2], has: Content) {
        for nth in of {
            for order in self.orders(nth) {
                let Head::SealChunk(order) = order else {
                    panic!("to give a copy: {order:?}")
                };
                let sealed = ChunkSealed {
                    term: order.term,
                    chunk: order.chunk,
                    version: order.version,
                    outcome: Ok(has),
                    next_lost: false,
                };
                self.rig.send(self.servers[nth].link, sealed);
            }
        }
    }
    /// These servers were ordered to go on at this write once they are raised from another one.
    #[track_caller]
    fn raises(&mut self, members: &[usize], from: WriteSeq, raised: WriteSeq) -> Vec<ResumeChunk> {
        let places: Vec<Place> = members
            .iter()
            .map(|nth| self.servers[*nth].place())
            .collect();
        let mut all = vec![];
        for nth in members {
            let orders = self.orders(*nth);
            let [Head::ResumeChunk(order)] = orders.as_slice() else {
                panic!("server {nth} is to resume: {orders:?}")
            };
            let expected = ResumeChunk {
                term: self.servers[*nth].term,
                chunk: self.grant.chunk,
                version: self.grant.version,
                chain: order.chain,
                members: places.clone(),
                session: self.client.session,
                from,
                to: from,
                raised: Some(raised),
                cut: None,
            };
            assert_eq!(*order, expected);
            all.push(order.clone());
        }
        all
    }
    fn says_resumed(&mut self, nth: usize, order: &ResumeChunk, outcome: Result<(), Refusal>) {
        let resumed = ChunkResumed {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            chain: order.chain,
            outcome,
        };
        self.rig.send(self.servers[nth].link, resumed);
    }
    /// These are raised, and the client is told; not before all have said so.
    #[track_caller]
    fn taken_over(&mut self, request: u64, members: &[usize], before: Content, raised: WriteSeq) {
        let Durable { len, wseq } = before.durable;
        let orders = self.raises(members, wseq, raised);
        for (nth, order) in members.iter().zip(&orders) {
            assert_eq!(self.answer(request), None, "not before all are raised");
            assert_ne!(self.chunk().synced.unwrap().wseq, raised);
            let places = self.places(&self.chunk().members);
            assert_eq!(places, self.grant.chain, "it is theirs until then");
            self.says_resumed(*nth, order, Ok(()));
        }
        let grant = Grant {
            index: 0,
            chunk: self.grant.chunk,
            version: self.grant.version,
            chain: members
                .iter()
                .map(|nth| self.servers[*nth].place())
                .collect(),
            from: PieceNumber(raised.0),
            to: PieceNumber(raised.0),
        };
        assert_eq!(
            self.answer(request),
            Some(Ok(Done::TakenOver { grant, len }))
        );
        let chunk = self.chunk();
        let synced = Durable { len, wseq: raised };
        assert_eq!((chunk.synced, chunk.sealed), (Some(synced), None));
        assert_eq!(chunk.members.len(), members.len());
    }
    fn places(&self, members: &[ServerIndex]) -> Vec<Place> {
        let known: std::collections::BTreeMap<_, _> =
            self.rig.meta.state().unwrap().servers().collect();
        let of = |member| {
            let servers = self.servers.iter();
            servers
                .map(Server::place)
                .find(|place| place.node == known[member])
        };
        members.iter().map(|member| of(member).unwrap()).collect()
    }
    /// All of the servers are sealed as this, raised, and the client is told.
    #[track_caller]
    fn all_taken_over(&mut self, before: Content, raised: WriteSeq) {
        let request = self.takes_over();
        for nth in 0..3 {
            self.says_sealed(nth, Ok(before));
        }
        self.taken_over(request, &[0, 1, 2], before, raised);
    }
    fn chunk(&self) -> Owned {
        let state = self.rig.meta.state().unwrap();
        state.check();
        state.chunk(self.grant.chunk).unwrap()
    }
    /// A server restarts and reports this.
    fn comes_back(&mut self, nth: usize, has: Content) -> Verdict {
        let state = self.rig.meta.state().unwrap();
        let mut epochs = state.epochs();
        let of = epochs.find(|(epoch, ..)| *epoch == self.grant.version.epoch());
        let incarnation = of.unwrap().1;
        drop(epochs);
        let item = InventoryItem {
            wseq: has.durable.wseq,
            digest: has.digest,
            ..item(self.file, &self.grant, incarnation, has.durable.len)
        };
        let server = &mut self.servers[nth];
        server.hello.boot = server.hello.boot.next();
        self.rig.join(server, vec![item])[0]
    }
    /// Where clients are sent to read it.
    fn located(&mut self) -> usize {
        let located = self.rig.locate(self.client.link, self.file);
        located.chunks[0].replicas.len()
    }
}

#[test]
fn a_closed_file_is_written_further_by_another_session_once_all_members_are_past_the_first_ones_writes()
 {
    let mut at = Closed::reopened(3);
    at.all_taken_over(synced_once(), SECOND);
    // What it writes is reported and closed as ever.
    let basis = SyncedChunk {
        synced: Durable {
            len: LEN + 10,
            wseq: SECOND.next(),
        },
        ..synced(&at.grant, LEN)
    };
    let closes = close(at.file, LEN + 10, vec![basis]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    let synced = at.chunk().synced;
    assert_eq!(synced, Some(basis.synced));
    at.rig.restart();
    assert_eq!(at.chunk().synced, synced, "it is in the log");
    let link = at.rig.open_link(kfs_core::wire::Role::Client);
    at.rig.newcomer_joins();
    at.rig.query(link, QueryOp::Checkpoint).unwrap();
    at.rig.restart();
    assert_eq!(at.chunk().synced, synced, "and in checkpoints");
}

#[test]
fn what_the_first_session_still_writes_to_a_server_that_was_left_out_is_no_replica() {
    let mut at = Closed::reopened(3);
    at.rig.close_link(at.servers[2].link);
    let request = at.takes_over();
    at.says_sealed(0, Ok(synced_once()));
    at.says_sealed(1, Ok(synced_once()));
    at.taken_over(request, &[0, 1], synced_once(), SECOND);
    // It has more writes than the others have bytes, and none of them was acknowledged.
    let more = has(LEN + 5_000, WriteSeq(900));
    let verdict = at.comes_back(2, more);
    assert!(!matches!(verdict, Verdict::Keep { .. }), "{verdict:?}");
    assert_eq!(at.located(), 2);
    // As a member of before, too, if the log did not have who is one now.
    let verdict = at.comes_back(1, more);
    assert!(matches!(verdict, Verdict::Damaged { .. }), "{verdict:?}");
    assert_eq!(at.located(), 1);
}

#[test]
fn no_member_is_raised_before_the_log_has_let_go_of_what_they_held() {
    let mut at = Closed::sealed();
    at.appends();
    at.rig.hold = true;
    let request = at.takes_over();
    for nth in 0..3 {
        assert_eq!(at.orders(nth), [], "the log does not have it yet");
    }
    at.rig.hold = false;
    at.rig.run_disk();
    assert_eq!(at.chunk().sealed, None);
    for nth in 0..3 {
        at.says_sealed(nth, Ok(synced_once()));
    }
    at.taken_over(request, &[0, 1, 2], synced_once(), SECOND);
}

#[test]
fn replicas_that_were_raised_and_not_logged_are_good_over_a_restart_and_raised_again() {
    let mut at = Closed::sealed();
    at.appends();
    let _ = at.takes_over();
    for nth in 0..3 {
        at.says_sealed(nth, Ok(synced_once()));
    }
    let _ = at.raises(&[0, 1, 2], WriteSeq(1), SECOND);
    // One has not done it when the meta server dies.
    at.rig.restart();
    let raised = has(LEN, SECOND);
    let keep = Verdict::Keep { log: durable(LEN) };
    assert_eq!(at.comes_back(0, raised), keep);
    assert_eq!(at.comes_back(1, raised), keep);
    assert_eq!(at.comes_back(2, synced_once()), keep);
    at.rig.resume(&mut at.client);
    assert_eq!(at.located(), 3);
    // Its client asks again, with the number that it had.
    let again = at.client.request(at.client.last, at.op());
    let request = at.rig.send(at.client.link, again);
    at.says_sealed(0, Ok(raised));
    at.says_sealed(1, Ok(raised));
    at.says_sealed(2, Ok(synced_once()));
    at.taken_over(request, &[0, 1], raised, THIRD);
}

fn through_a_checkpoint(state: &State, cluster: ClusterId) -> State {
    let mut writer = Writer::new(state.clone());
    let mut bytes = Vec::new();
    while let Some(more) = writer.next_bytes() {
        bytes.extend(more);
    }
    let mut loader = Loader::new("checkpoint/checkpoint.1".into(), cluster);
    let loaded = loader.feed(&bytes, More::Ends).unwrap();
    loaded.unwrap().0
}

#[test]
fn the_write_of_a_takeover_that_was_broken_off_is_not_given_out_again_to_members_that_never_heard_of_it()
 {
    for restarts in [false, true] {
        let mut at = Closed::reopened(3);
        let mut request = at.takes_over();
        for nth in 0..3 {
            at.says_sealed(nth, Ok(synced_once()));
        }
        // The first is raised, and is not heard of any more; the others have not.
        let _ = at.raises(&[0, 1, 2], WriteSeq(1), SECOND);
        let keep = Verdict::Keep { log: durable(LEN) };
        let state = at.rig.meta.state().unwrap();
        let identity = Identity::decode(&at.rig.disk.files["identity"]).unwrap();
        let loaded = through_a_checkpoint(state, identity.cluster);
        assert_eq!(state.difference(&loaded), None);
        if restarts {
            at.rig.restart();
        }
        assert_eq!(at.comes_back(1, synced_once()), keep);
        assert_eq!(at.comes_back(2, synced_once()), keep);
        if restarts {
            at.comes_back(0, has(LEN, SECOND));
            at.rig.resume(&mut at.client);
            let again = at.client.request(at.client.last, at.op());
            request = at.rig.send(at.client.link, again);
        }
        at.rig.close_link(at.servers[0].link);
        at.says_sealed(1, Ok(synced_once()));
        at.says_sealed(2, Ok(synced_once()));
        at.taken_over(request, &[1, 2], synced_once(), THIRD);
    }
}

#[test]
fn of_members_that_differ_those_with_the_most_go_on_and_the_client_writes_behind_all_that_they_have()
 {
    let mut at = Closed::reopened(3);
    let request = at.takes_over();
    let more = has(LEN + 500, WriteSeq(3));
    at.says_sealed(0, Ok(synced_once()));
    at.says_sealed(1, Ok(more));
    at.says_sealed(2, Ok(more));
    at.taken_over(request, &[1, 2], more, SECOND);
    assert_eq!(at.located(), 2);
    // Who had less has not what is written from here. It is as if it had nothing: once the file is closed it gets a
    // copy.
    let closes = close(at.file, LEN, vec![]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    let mut copied = false;
    for _ in 0..20 {
        at.rests();
        at.give_copies([1, 2], has(LEN + 500, SECOND));
        let orders = at.orders(0).into_iter();
        copied |= orders
            .filter(|order| matches!(order, Head::CopyChunk(_)))
            .count()
            > 0;
    }
    assert!(copied);
    let verdict = at.comes_back(0, synced_once());
    assert!(!matches!(verdict, Verdict::Keep { .. }), "{verdict:?}");
}

#[test]
fn members_with_as_many_writes_and_other_bytes_do_not_go_on_together() {
    let mut at = Closed::reopened(3);
    let request = at.takes_over();
    let other = Content {
        digest: Digest(7),
        ..synced_once()
    };
    at.says_sealed(0, Ok(synced_once()));
    at.says_sealed(1, Ok(synced_once()));
    at.says_sealed(2, Ok(other));
    let both = at.orders(0).len() + at.orders(2).len();
    assert_eq!(both, 1, "the two that are the same, or the one");
    assert_eq!(at.answer(request), None);
}

#[test]
fn of_a_chunk_whose_content_is_in_the_log_only_who_has_that_goes_on() {
    let mut at = Closed::sealed();
    at.appends();
    let request = at.takes_over();
    // More than was ever acknowledged: not what all had when it was sealed.
    at.says_sealed(0, Ok(has(LEN + 500, WriteSeq(3))));
    at.says_sealed(1, Ok(synced_once()));
    at.says_sealed(2, Ok(synced_once()));
    at.taken_over(request, &[1, 2], synced_once(), SECOND);
}

#[test]
fn a_chunk_with_too_few_members_left_is_copied_before_it_is_raised() {
    let mut at = Closed::reopened(4);
    at.rig.close_link(at.servers[1].link);
    at.rig.close_link(at.servers[2].link);
    let request = at.takes_over();
    at.says_sealed(0, Ok(synced_once()));
    let orders = at.orders(3);
    let [Head::CopyChunk(order)] = orders.as_slice() else {
        panic!("the fourth is to have a copy: {orders:?}")
    };
    assert_eq!(order.has, durable(LEN));
    assert_eq!(at.orders(0), [], "it is not raised yet");
    let copied = ChunkCopied {
        term: order.term,
        chunk: order.chunk,
        version: order.version,
        outcome: Ok(synced_once()),
    };
    at.rig.send(at.servers[3].link, copied);
    at.taken_over(request, &[0, 3], synced_once(), SECOND);
}

#[test]
fn a_member_that_cannot_be_raised_has_all_of_them_sealed_again_and_those_that_were_go_on() {
    let mut sealed = Closed::sealed();
    sealed.appends();
    for mut at in [Closed::reopened(3), sealed] {
        let request = at.takes_over();
        for nth in 0..3 {
            at.says_sealed(nth, Ok(synced_once()));
        }
        let orders = at.raises(&[0, 1, 2], WriteSeq(1), SECOND);
        at.says_resumed(0, &orders[0], Ok(()));
        at.says_resumed(2, &orders[2], Err(refusal(Status::LocalIo)));
        assert_eq!(at.answer(request), None);
        at.says_sealed(0, Ok(has(LEN, SECOND)));
        at.says_sealed(1, Ok(has(LEN, SECOND)));
        at.says_sealed(2, Err(refusal(Status::NotServed)));
        // Late, of the chain before.
        at.says_resumed(1, &orders[1], Ok(()));
        at.taken_over(request, &[0, 1], has(LEN, SECOND), THIRD);
    }
}

#[test]
fn a_member_whose_disk_fails_its_header_is_left_out_though_it_can_still_say_what_it_holds() {
    let mut at = Closed::reopened(3);
    let request = at.takes_over();
    for nth in 0..3 {
        at.says_sealed(nth, Ok(synced_once()));
    }
    let orders = at.raises(&[0, 1, 2], WriteSeq(1), SECOND);
    at.says_resumed(0, &orders[0], Ok(()));
    at.says_resumed(1, &orders[1], Err(refusal(Status::LocalIo)));
    at.says_sealed(0, Ok(has(LEN, SECOND)));
    at.says_sealed(1, Ok(has(LEN, SECOND)));
    at.says_sealed(2, Ok(has(LEN, SECOND)));
    at.taken_over(request, &[0, 2], has(LEN, SECOND), THIRD);
}

#[test]
fn a_copy_that_was_begun_before_stays_until_another_takes_its_place() {
    let mut at = Closed::of(4);
    let gone = at.servers.remove(2);
    at.rig.close_link(gone.link);
    at.servers.push(gone);
    let copy = |at: &mut Closed, has: Content| {
        for _ in 0..700 {
            at.beats();
            at.give_copies([0, 1], has);
            let orders = at.rig.orders(&at.servers[2]);
            for order in orders {
                match order {
                    Head::CopyChunk(order) => return order,
                    Head::DeleteChunks(order) => panic!("{order:?}"),
                    _ => {}
                }
            }
        }
        panic!("nobody is to have a copy")
    };
    let order = copy(&mut at, synced_once());
    // That of before has expired.
    at.client = at.rig.client(3);
    at.appends();
    let request = at.takes_over();
    at.says_sealed(0, Ok(synced_once()));
    at.says_sealed(1, Ok(synced_once()));
    at.taken_over(request, &[0, 1], synced_once(), SECOND);
    let closes = close(at.file, LEN, vec![]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    let copied = ChunkCopied {
        term: order.term,
        chunk: order.chunk,
        version: order.version,
        outcome: Ok(synced_once()),
    };
    at.rig.send(at.servers[2].link, copied);
    assert_eq!(at.located(), 2);
    let order = copy(&mut at, has(LEN, SECOND));
    assert_eq!(order.has.wseq, SECOND);
}

/// Asked for, and answered up to a stage: being sealed, or being raised.
fn asked_up_to(stage: u32) -> (Closed, u64) {
    let mut at = Closed::reopened(3);
    let request = at.takes_over();
    if stage > 0 {
        for nth in 0..3 {
            at.says_sealed(nth, Ok(synced_once()));
        }
    }
    (at, request)
}
/// Whatever was still ordered is done.
fn rest(at: &mut Closed) {
    for nth in 0..3 {
        for order in at.orders(nth) {
            if let Head::ResumeChunk(order) = order {
                at.says_resumed(nth, &order, Ok(()));
            }
        }
    }
}

#[test]
fn a_file_that_its_session_closed_meanwhile_is_not_taken_over() {
    for stage in 0..2 {
        let (mut at, request) = asked_up_to(stage);
        let closes = close(at.file, LEN, vec![]);
        assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
        rest(&mut at);
        let answer = at.answer(request);
        assert!(!matches!(answer, Some(Ok(_))), "{answer:?}");
        assert_eq!(at.chunk().synced, Some(durable(LEN)), "stage {stage}");
        // The first session may have it again.
        at.client = at.before.clone();
        at.rig.resume(&mut at.client);
        at.appends();
    }
}

#[test]
fn what_a_member_said_at_rest_is_not_held_against_what_it_was_raised_to_since() {
    let mut at = Closed::of(3);
    at.rests();
    at.says_sealed(0, Ok(synced_once()));
    at.says_sealed(1, Ok(synced_once()));
    // The last one has not said it when another session has the chunk raised, and then lets go of it.
    assert_eq!(at.orders(2).len(), 1);
    at.appends();
    let _ = at.takes_over();
    for nth in 0..3 {
        at.says_sealed(nth, Ok(synced_once()));
    }
    let orders = at.raises(&[0, 1, 2], WriteSeq(1), SECOND);
    at.says_resumed(0, &orders[0], Ok(()));
    at.says_resumed(1, &orders[1], Ok(()));
    let closes = close(at.file, LEN, vec![]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    at.rig.pass(Duration::from_secs(1));
    for nth in 0..3 {
        assert_eq!(
            at.orders(nth),
            [],
            "nobody is raised for a file that is closed"
        );
    }
    let said = ChunkSealed {
        term: at.servers[2].term,
        chunk: at.grant.chunk,
        version: at.grant.version,
        outcome: Ok(synced_once()),
        next_lost: false,
    };
    at.rig.send(at.servers[2].link, said);
    assert_eq!(at.chunk().sealed, None);
    let keep = Verdict::Keep { log: durable(LEN) };
    assert_eq!(at.comes_back(0, has(LEN, SECOND)), keep);
}

#[test]
fn a_session_that_ends_meanwhile_takes_nothing_over() {
    for stage in 0..2 {
        let (mut at, request) = asked_up_to(stage);
        let ends = MutateOp::EndSession;
        at.rig.mutate(&mut at.client, ends).unwrap();
        rest(&mut at);
        assert_eq!(at.answer(request), None, "nobody is there to be told");
        assert_eq!(at.chunk().synced, Some(durable(LEN)), "stage {stage}");
        at.client = at.rig.client(3);
        at.appends();
    }
}

#[test]
fn a_file_that_is_removed_meanwhile_is_taken_over_all_the_same() {
    for stage in 0..2 {
        let (mut at, request) = asked_up_to(stage);
        let mut other = at.before.clone();
        at.rig.mutate(&mut other, remove("f")).unwrap();
        if stage == 0 {
            for nth in 0..3 {
                at.says_sealed(nth, Ok(synced_once()));
            }
        }
        at.taken_over(request, &[0, 1, 2], synced_once(), SECOND);
    }
}

#[test]
fn a_file_is_written_by_one_session_at_a_time() {
    let mut at = Closed::reopened(3);
    at.all_taken_over(synced_once(), SECOND);
    let mut other = at.rig.client(3);
    let op = MutateOp::Append { at: crate::at("f") };
    let what = refused(at.rig.mutate(&mut other, op.clone()), Status::Busy);
    assert!(
        what.contains("/f") && what.contains("another client"),
        "{what}"
    );
    // Nor is a chunk of it taken from who writes it.
    let takes = at.op();
    refused(at.rig.mutate(&mut other, takes), Status::BadRequest);
    for nth in 0..3 {
        assert_eq!(at.orders(nth), []);
    }
    let closes = close(at.file, LEN, vec![]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    assert!(at.rig.mutate(&mut other, op).is_ok());
    // And the one that had it does not take it back.
    let takes = at.op();
    refused(at.rig.mutate(&mut at.client, takes), Status::BadRequest);
}

#[test]
fn who_does_not_write_a_file_does_not_have_its_chunk_unsealed() {
    let mut at = Closed::sealed();
    at.appends();
    let (mut other, takes) = (at.rig.client(3), at.op());
    refused(at.rig.mutate(&mut other, takes), Status::BadRequest);
    assert!(at.chunk().sealed.is_some());
}

#[test]
fn opening_it_again_changes_nothing_for_the_session_that_has_it() {
    let mut at = Closed::reopened(3);
    let before = at.rig.meta.state().unwrap().seq();
    at.appends();
    assert_eq!(at.rig.meta.state().unwrap().seq(), before);
    // A third session after both.
    let closes = close(at.file, LEN, vec![]);
    assert_eq!(at.rig.mutate(&mut at.client, closes), Ok(Done::Ok));
    at.client = at.rig.client(3);
    at.appends();
    at.all_taken_over(synced_once(), SECOND);
}

#[test]
fn what_is_no_file_with_a_chunk_of_another_session_is_not_taken_over() {
    let mut at = Closed::reopened(3);
    let file = at.file;
    let missing = MutateOp::TakeOver { file, index: 1 };
    let there_is_none = at.rig.mutate(&mut at.client, missing);
    assert_eq!(there_is_none, Ok(Done::Ok), "it may be made");
    let of: Vec<Server> = at.servers.clone();
    let of: Vec<&Server> = of.iter().collect();
    at.rig.allocate(&mut at.client, &of, file, 1).unwrap();
    let own = MutateOp::TakeOver { file, index: 1 };
    let what = refused(at.rig.mutate(&mut at.client, own), Status::BadRequest);
    assert!(what.contains("session's own"), "{what}");
    at.rig.mutate(&mut at.client, mkdir("d")).unwrap();
    for (path, status) in [("d", Status::IsADirectory), ("none", Status::NotFound)] {
        let op = MutateOp::Append {
            at: crate::at(path),
        };
        refused(at.rig.mutate(&mut at.client, op), status);
    }
}

#[test]
fn a_chunk_that_is_taken_over_may_break_and_go_on_from_where_all_are() {
    let mut at = Closed::reopened(3);
    at.all_taken_over(synced_once(), SECOND);
    at.rig.close_link(at.servers[2].link);
    let wish = MutateOp::Rechain {
        file: at.file,
        index: 0,
        chunk: at.grant.chunk,
        version: at.grant.version,
        synced: Durable {
            len: LEN,
            wseq: SECOND,
        },
        head: HeadSeen::Reached,
        broken: 0,
    };
    let request = at.rig.begin(&mut at.client, wish);
    for nth in 0..2 {
        let orders = at.orders(nth);
        let [Head::SealChunk(order)] = orders.as_slice() else {
            panic!("to be sealed: {orders:?}")
        };
        assert_eq!(order.unsynced, Unsynced::Dropped);
        let sealed = ChunkSealed {
            term: order.term,
            chunk: order.chunk,
            version: order.version,
            // Nothing that was written since is synced.
            outcome: Ok(has(LEN, SECOND)),
            next_lost: false,
        };
        at.rig.send(at.servers[nth].link, sealed);
    }
    for nth in 0..2 {
        let orders = at.orders(nth);
        let [Head::ResumeChunk(order)] = orders.as_slice() else {
            panic!("to resume: {orders:?}")
        };
        assert_eq!((order.from, order.to, order.raised), (SECOND, SECOND, None));
        let order = order.clone();
        at.says_resumed(nth, &order, Ok(()));
    }
    let Some(Ok(Done::Granted(grant))) = at.answer(request) else {
        panic!("granted")
    };
    let from = PieceNumber(SECOND.0);
    assert_eq!((grant.from, grant.to), (from, from));
}

#[test]
fn sessions_one_after_another_are_counted_and_the_last_that_can_be_is_told_so() {
    assert_eq!(WriteSeq(0).taken_over(), Some(SECOND));
    assert_eq!(WriteSeq(SECOND.0 - 1).taken_over(), Some(SECOND));
    assert_eq!(SECOND.taken_over(), Some(THIRD));
    let mut at = Closed::reopened(3);
    let request = at.takes_over();
    for nth in 0..3 {
        at.says_sealed(nth, Ok(has(LEN, WriteSeq(ID_LIMIT - 1))));
    }
    let answer = at.answer(request).unwrap();
    let what = refused(answer, Status::BadRequest);
    assert!(what.contains("more sessions"), "{what}");
}
