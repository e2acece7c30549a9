//! A replica that is good, and has less than another, is replaced by a copy of that one: it is there until then, and
//! what stands there in the end is never less than what stood there before.
#![allow(clippy::unwrap_used, reason = "what surprises a test fails it")]

mod chunk_rig;

use chunk_rig::*;
use kfs_core::ids::*;
use kfs_core::machine::DiskError;
use kfs_core::wire::chunk_meta::*;
use kfs_core::wire::client_chunk::*;
use kfs_core::wire::{Head, Status};
use std::time::Duration;

const C: ChunkId = ChunkId(5);
const PATH: &str = "chunks/1000.5.9";
const COPY: &str = "chunks/1000.5.9.copy";
const FIRST: usize = 300;
const LAST: usize = 700;

/// What the disk does for a copy that replaces a replica, in its order.
fn steps() -> [String; 5] {
    [
        format!("create {COPY}"),
        format!("write {COPY} 16384+"),
        format!("write {COPY} 0+"),
        format!("rename {COPY}"),
        "syncdir chunks".into(),
    ]
}
fn io() -> DiskError {
    DiskError::Io("a bad disk".into())
}
fn less() -> Durable {
    let (len, wseq) = (FIRST as u64, WriteSeq(1));
    Durable { len, wseq }
}
fn more() -> Durable {
    let (len, wseq) = (LAST as u64, WriteSeq(2));
    Durable { len, wseq }
}

/// A chunk on two servers, of which the first has one write less; all that was written.
struct Uneven {
    world: World,
    all: Vec<u8>,
}

impl Uneven {
    fn begin() -> Self {
        let mut world = World::up(2);
        world.create(&[0, 1], C);
        let link = world.client(0);
        let (first, last) = (bytes(FIRST, 1), bytes(LAST - FIRST, 2));
        world.write(0, link, C, 1, 0, &first);
        world.sync(0, link, C, 1);
        world.run();
        assert_eq!(world.seal_chunk(0, C, Unsynced::Dropped).0, Ok(less()));
        let before = world.servers[0].disk.get(PATH).unwrap().to_vec();
        let mut all = first.to_vec();
        all.extend_from_slice(&last);
        assert_eq!(world.seal_chunk(1, C, Unsynced::Dropped).0, Ok(less()));
        // The second one goes on alone.
        let order = world.resume_order(1, &[1], C, 3, (1, 1));
        assert_eq!(world.resume_with(1, order), Ok(()));
        let link = world.client(1);
        world.write(1, link, C, 2, FIRST as u64, &last);
        world.sync(1, link, C, 2);
        world.run();
        assert_eq!(world.seal_chunk(1, C, Unsynced::Kept).0, Ok(more()));
        assert_eq!(world.servers[0].disk.get(PATH), Some(&*before));
        let log = less();
        world
            .meta
            .verdicts
            .insert((C, VERSION), Verdict::Keep { log });
        world.trace.clear();
        world.inbox.clear();
        Self { world, all }
    }
    fn order(&mut self, has: Durable) {
        self.world.copies(0, C, 1, has);
    }
    /// Orders the copy, and holds this.
    fn held_at(what: &str) -> Self {
        let mut at = Self::begin();
        at.world.rules.hold_disk = vec![(0, what.to_owned())];
        at.order(more());
        assert!(at.world.holds(what), "{what}");
        at
    }
    fn said(&self) -> Option<Result<Durable, Status>> {
        let mut heard = self.world.meta.heard.iter().rev();
        heard.find_map(|(_, msg)| match &msg.head {
            Head::ChunkCopied(said) => Some(match &said.outcome {
                Ok(has) => Ok(has.durable),
                Err(refusal) => Err(refusal.status),
            }),
            _ => None,
        })
    }
    /// As far as the log says, it is read from the first server.
    #[track_caller]
    fn assert_read(&mut self, log: Durable) {
        let len = u32::try_from(log.len).unwrap();
        let read = self.world.read_at(0, C, (0, len), log).unwrap();
        assert_eq!(read, self.all[..len as usize]);
    }
    fn raise(&mut self, at: Durable) -> Result<(), Status> {
        let order = self
            .world
            .resume_order(0, &[0], C, 7, (at.wseq.0, at.wseq.0));
        let (session, raised) = (SessionId(SESSION.0 + 1), at.wseq.taken_over());
        let order = ResumeChunk {
            session,
            raised,
            ..order
        };
        let said = self.world.resume_with(0, order);
        said.map_err(|refusal| refusal.status)
    }
}

#[test]
fn a_replica_is_read_until_a_copy_takes_its_place_and_counts_for_that_then() {
    for held in &steps()[..3] {
        let mut at = Uneven::held_at(held);
        at.assert_read(less());
        assert_eq!(at.world.header(0, C).wseq, less().wseq, "{held}");
        assert_eq!(at.said(), None);
        at.world.let_go(held);
        assert_eq!(at.said(), Some(Ok(more())), "{held}");
        at.assert_read(more());
        assert_eq!(at.world.damage(), []);
        assert_eq!(at.world.servers[0].disk.get(COPY), None);
        assert_eq!(at.world.seal_chunk(0, C, Unsynced::Kept).0, Ok(more()));
    }
}

#[test]
fn power_that_goes_at_any_moment_leaves_the_old_replica_or_the_new_one() {
    for held in steps() {
        let mut at = Uneven::held_at(&held);
        at.world.kill(0);
        at.world.lose_held(0);
        at.world.servers[0].disk.power_loss();
        at.world.start(0);
        at.world.run();
        let item = at.world.inventory_said(0, C).unwrap();
        assert_eq!(item.state, ReplicaState::Good, "{held}");
        assert_eq!(item.durable(), less(), "{held}");
        at.assert_read(less());
        at.order(more());
        assert_eq!(at.said(), Some(Ok(more())), "{held}");
        at.assert_read(more());
        at.world.kill(0);
        at.world.servers[0].disk.power_loss();
        at.world.start(0);
        at.world.run();
        let item = at.world.inventory_said(0, C).unwrap();
        assert_eq!(item.durable(), more(), "{held}");
    }
}

#[test]
fn a_replica_that_is_being_replaced_is_not_sealed_and_not_raised_before_that_is_done() {
    for held in &steps() {
        let mut at = Uneven::held_at(held);
        let (sealed, _) = at.world.seal_chunk(0, C, Unsynced::Kept);
        assert!(sealed.is_err(), "{held}: what it says may not be so later");
        assert!(at.raise(less()).is_err(), "{held}");
        at.world.forget_heard();
        at.world.let_go(held);
        assert_eq!(at.said(), Some(Ok(more())), "{held}");
        assert_eq!(at.raise(more()), Ok(()), "{held}");
        assert_eq!(
            at.world.header(0, C).wseq,
            more().wseq.taken_over().unwrap()
        );
        at.assert_read(more());
    }
}

#[test]
fn a_copy_does_not_take_the_place_of_a_replica_that_is_raised_when_it_is_ordered() {
    let mut at = Uneven::begin();
    let held = "write chunks/1000.5.9 ";
    at.world.rules.hold_disk = vec![(0, held.to_owned())];
    let order = at.world.resume_order(0, &[0], C, 7, (1, 1));
    let raised = less().wseq.taken_over();
    let order = ResumeChunk { raised, ..order };
    at.world.order(0, order);
    at.world.run();
    assert!(at.world.holds(held));
    at.order(more());
    assert_eq!(at.said(), Some(Err(Status::Busy)));
    at.world.let_go(held);
    assert_eq!(at.world.header(0, C).wseq, raised.unwrap());
    // It has less bytes than the copy, and is past all that the copy has. What is less than it is not copied either.
    at.order(less());
    let has = Durable {
        wseq: raised.unwrap(),
        ..less()
    };
    assert_eq!(at.said(), Some(Ok(has)));
    assert_eq!(at.world.traced(COPY), Vec::<&str>::new());
    at.assert_read(less());
}

#[test]
fn what_is_left_of_a_copy_of_an_earlier_term_does_not_reach_into_a_replica_that_was_raised_since() {
    for held in &steps()[..3] {
        let mut at = Uneven::held_at(held);
        at.world.cut_meta(0);
        at.world.run();
        at.world.pass(Duration::from_secs(3));
        let item = at.world.inventory_said(0, C).unwrap();
        assert_eq!(item.durable(), less(), "{held}");
        at.assert_read(less());
        assert_eq!(at.raise(less()), Ok(()), "{held}");
        at.world.let_go(held);
        at.world.pass(Duration::from_secs(1));
        let raised = less().wseq.taken_over().unwrap();
        assert_eq!(at.world.header(0, C).wseq, raised, "{held}");
        assert_eq!(at.world.traced("rename"), Vec::<&str>::new());
        at.assert_read(less());
    }
}

#[test]
fn a_replica_whose_copy_cannot_take_its_name_serves_on() {
    let mut at = Uneven::begin();
    at.world.rules.fail_disk = vec![(0, format!("rename {COPY}"), io())];
    at.order(more());
    assert_eq!(at.said(), Some(Err(Status::LocalIo)));
    assert_eq!(at.world.damage(), []);
    at.assert_read(less());
    assert_eq!(at.world.seal_chunk(0, C, Unsynced::Kept).0, Ok(less()));
    at.order(more());
    assert_eq!(at.said(), Some(Ok(more())));
    at.assert_read(more());
}

#[test]
fn a_replica_of_which_nobody_knows_what_stands_there_after_a_crash_is_made_anew() {
    let mut at = Uneven::begin();
    at.world.rules.fail_disk = vec![(0, "syncdir chunks".into(), io())];
    at.order(more());
    assert_eq!(at.said(), Some(Err(Status::LocalIo)));
    assert_eq!(at.world.damage(), [(0, C, None)]);
    at.order(more());
    assert_eq!(at.said(), Some(Ok(more())));
    at.assert_read(more());
    assert_eq!(at.world.damage(), []);
}
