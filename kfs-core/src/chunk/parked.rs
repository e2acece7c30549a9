//! Chunks that may be written to and that nobody writes to: they give their tables back, and read them again
//! from their headers when a piece comes. So memory follows what is being written, not what was.
use super::header::Header;
use super::link::HoldId;
use super::name::ReplicaId;
use super::redo::check_last;
use super::table::Table;
use super::write::Writing;
use super::{Chunk, Job};
use crate::buggify::{self, Site};
use crate::ids::{LinkId, SessionId};
use crate::limits::HEADER_BYTES;
use crate::machine::{DiskOp, DiskResult};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::{Msg, Refusal, Status};
use core::time::Duration;
use std::sync::Arc;

/// A chunk whose bytes are all durable, and that nobody wrote to for this long, gives its table back.
const PARK_AFTER: Duration = Duration::from_secs(10);

/// A replica that may be written to, and has given its table back meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub writing: Writing,
    /// Messages that wait for the table to be read again, with the room they take.
    pub waiting: Vec<(LinkId, Msg, HoldId)>,
    /// Once it was read; the block in which the chunk ends is read then.
    header: Option<Arc<Header>>,
}

impl Chunk {
    /// Gives back the table of a chunk that is at rest.
    pub(super) fn park(&mut self, id: ReplicaId) {
        let Some(mut writing) = self.writing.remove(&id) else {
            return;
        };
        assert!(
            writing.is_at_rest(),
            "what is not durable is in the table only"
        );
        probe::hit(Probe::ChunkParked);
        writing.table = writing.table.emptied();
        if !planted::is(Bug::StaleTableRead) {
            self.inventory.tables.forget(id);
        }
        self.parked.insert(
            id,
            Parked {
                writing,
                waiting: Vec::new(),
                header: None,
            },
        );
    }

    /// Parks a chunk that cannot be written to any more because it is full.
    pub(super) fn park_if_full(&mut self, id: ReplicaId) {
        let full = |writing: &Writing| {
            writing.table.end() == self.config.geometry.chunk_bytes()
                || buggify::is(Site::ParkedAtOnce)
        };
        if !self.is_placing(id)
            && self
                .writing
                .get(&id)
                .is_some_and(|writing| writing.is_at_rest() && full(writing))
        {
            self.park(id);
        }
    }

    /// There is a chunk being written: it is looked at again when it may be idle.
    pub(super) fn park_later(&mut self) {
        self.park_at.get_or_insert(self.now.mono + PARK_AFTER);
    }

    pub(super) fn park_on_time(&mut self) {
        if self.park_at.is_none_or(|at| self.now.mono < at) {
            return;
        }
        let idle = |writing: &Writing| {
            writing.is_at_rest()
                && !self.is_placing(writing.id())
                && self.now.mono.since(writing.used) >= PARK_AFTER
        };
        let ids: Vec<_> = self
            .writing
            .values()
            .filter(|writing| idle(writing))
            .map(Writing::id)
            .collect();
        for id in ids {
            self.park(id);
        }
        self.park_at = (!self.writing.is_empty()).then(|| self.now.mono + PARK_AFTER);
    }

    /// Whether a client's message is worth reading the table of a parked chunk again. All else that it may be
    /// refused for is looked at then.
    pub(super) fn may_wake(&self, id: ReplicaId, session: SessionId) -> Result<(), Refusal> {
        let parked = self.parked.get(&id).map(|parked| &parked.writing);
        if parked.is_some_and(|writing| writing.position == 0 && writing.session == session) {
            return Ok(());
        }
        Err(Refusal::new(
            Status::BadRequest,
            format!(
                "session {session} was not granted {id} with {} at its head",
                self.who()
            ),
        ))
    }

    /// Whether a message of the chain is for a parked chunk, from the one server before this one in it.
    pub(super) fn wakes(&self, id: ReplicaId, link: LinkId, position: u8) -> bool {
        self.parked.get(&id).is_some_and(|parked| {
            let upstream = parked.writing.upstream;
            parked.writing.position == position && upstream.is_none_or(|known| known == link)
        })
    }

    /// A message for a parked chunk: it waits until the table is read again.
    pub(super) fn unpark(&mut self, id: ReplicaId, link: LinkId, position: u8, msg: Msg) {
        let hold = self
            .links
            .hold(&mut self.outbox, (link, position), msg.body.len(), 1);
        let Some(parked) = self.parked.get_mut(&id) else {
            return;
        };
        parked.waiting.push((link, msg, hold));
        if parked.waiting.len() == 1 {
            let file = parked.writing.name.path();
            let len = usize::try_from(HEADER_BYTES).expect("a header is small");
            self.disk(
                Job::Unpark(id),
                DiskOp::Read {
                    file,
                    offset: 0,
                    len,
                },
            );
        }
    }

    pub(super) fn unparked(&mut self, id: ReplicaId, result: DiskResult) {
        let Some(parked) = self.parked.remove(&id) else {
            return;
        };
        let geometry = self.config.geometry;
        let name = parked.writing.name;
        let (header, block) = self.header_or_block(name, parked.header.clone(), result);
        if let (Ok(header), None) = (&header, &block)
            && let Some(op) = self.last_block(name, header)
        {
            let header = Some(Arc::clone(header));
            self.parked.insert(id, Parked { header, ..parked });
            return self.disk(Job::Unpark(id), op);
        }
        let Parked {
            mut writing,
            waiting,
            ..
        } = parked;
        let header = header.and_then(|header| {
            let same = header.wseq == writing.applied && header.generation == writing.generation;
            if same {
                let checked = check_last(geometry, &header, &block.unwrap_or_default());
                checked.map_err(|bad| self.block_is_bad(name, &bad))?;
                Ok(header)
            } else {
                Err("its newest header is gone".into())
            }
        });
        probe::hit(Probe::ChunkUnparked);
        writing.used = self.now.mono;
        self.park_later();
        let (applied, who) = (writing.applied, writing.who());
        let why = match header {
            Ok(header) => {
                writing.table = Table::of(geometry, &header, writing.table.elsewhere());
                None
            }
            Err(why) => Some(why),
        };
        self.writing.insert(id, writing);
        if let Some(why) = why {
            self.break_chain(
                id,
                applied.next(),
                &format!("{who} cannot write to {id} again: {why}"),
            );
        }
        for (link, msg, hold) in waiting {
            self.links.let_go(&mut self.outbox, Some(hold));
            self.received(link, msg);
        }
    }
}
