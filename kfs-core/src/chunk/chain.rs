//! Along the chain: pieces passed down, acknowledgements passed up, and what becomes of a chain that breaks.
//!
//! A replica takes write n only after it took n-1 in this process, over one link; nobody skips. It says that
//! n is done when it is written here and by all below. A chain that broke takes no more: what was committed
//! stays served, what was not is gone from this replica.
use super::inventory::Broken;
use super::link::{HoldId, Link, Purpose};
use super::name::ReplicaId;
use super::write::{Incoming, piece_done};
use super::{Chunk, Stopping};
use crate::ids::{ChainId, LinkId, WriteSeq};
use crate::machine::{CloseReason, Output};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::client_chunk::{ChainDone, ChainPiece, SyncDone};
use crate::wire::{Msg, Peer, Refusal, Role, Status};
use bytes::Bytes;

impl Chunk {
    /// Sends a piece that was just taken to the next server of its chain.
    pub(super) fn pass_on(&mut self, id: ReplicaId, wseq: WriteSeq, piece: Incoming, hold: HoldId) {
        let link = self
            .downstream(id)
            .expect("only a chunk with a next server passes pieces on");
        let writing = self.writing.get(&id).expect("it just took the piece");
        let head = ChainPiece {
            chunk: id.chunk,
            version: id.version,
            chain: writing.chain_id,
            position: writing.position + 1,
            wseq,
            session: piece.session,
            piece: piece.number,
            offset: piece.offset,
            sums: piece.sums,
        };
        self.links.send(
            &mut self.outbox,
            link,
            Msg::with_body(0, head, piece.body),
            Some(hold),
        );
    }

    /// The link to the next server, dialed if need be; `None` at the tail.
    pub(super) fn downstream(&mut self, id: ReplicaId) -> Option<LinkId> {
        let writing = self.writing.get_mut(&id)?;
        let (next, position) = writing.next()?;
        if writing.downstream.is_none() {
            let link = self.links.next(&mut self.outbox, next.addr, position);
            writing.downstream = Some(link);
            self.links
                .get_mut(link)
                .expect("just dialed, or in use")
                .replicas
                .insert(id);
        }
        writing.downstream
    }

    /// The link to a next server is up.
    pub(super) fn next_opened(&mut self, link: LinkId, peer: Peer) {
        if self.links.get(link).is_none() {
            return self.outbox.push(Output::Close { link });
        }
        if peer.role == Role::Chunk {
            return self.links.opened(&mut self.outbox, link, peer);
        }
        self.outbox.push(Output::Close { link });
        if let Some(gone) = self.links.closed(&mut self.outbox, link) {
            self.chains_lost(
                &gone,
                &CloseReason::Refused(format!("a {:?} answers there", peer.role)),
            );
        }
    }

    /// A piece from the server before in the chain.
    pub(super) fn chain_piece(
        &mut self,
        link: LinkId,
        request: u64,
        head: ChainPiece,
        body: Bytes,
    ) {
        if let Err(why) = self.carries(link, head.position) {
            return self.close(link, why);
        }
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        let fits = self.fits(head.offset, body.len() as u64).is_ok();
        if fits && self.wakes(id, link, head.position) {
            return self.unpark(id, link, head.position, Msg::with_body(request, head, body));
        }
        if self.stopping != Stopping::No {
            return;
        }
        let wseq = head.wseq;
        if self.is_of_another_chain(id, head.chain) {
            return self.refuse_late(id, link, head.chain, wseq);
        }
        match self.may_take(id, link, &head, &body) {
            Ok(()) => {
                let ChainPiece {
                    session,
                    piece,
                    offset,
                    sums,
                    ..
                } = head;
                self.take_piece(
                    id,
                    link,
                    Incoming {
                        session,
                        number: piece,
                        offset,
                        sums,
                        body,
                        ask: None,
                    },
                );
            }
            Err(refusal) => {
                if refusal.status == Status::Corrupt {
                    probe::hit(Probe::PieceCorrupt);
                    self.counts.pieces_bad += 1;
                }
                self.refuse_up(id, link, head.chain, wseq, &refusal);
            }
        }
    }

    /// Whether a message is of another chain than the one that is written in here.
    pub(super) fn is_of_another_chain(&self, id: ReplicaId, chain: ChainId) -> bool {
        let parked = self.parked.get(&id).map(|parked| &parked.writing);
        let writing = self.writing.get(&id).or(parked);
        writing.is_some_and(|writing| writing.chain_id != chain)
    }

    /// Answers what comes late from an earlier chain: it is over, and the one there is now goes on.
    pub(super) fn refuse_late(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        chain: ChainId,
        wseq: WriteSeq,
    ) {
        probe::hit(Probe::ChainOver);
        let why = format!("{id} is written in another chain on {}", self.who());
        let refusal = Refusal::new(Status::ChainBroken, why);
        self.send(link, chain_done(id, chain, wseq, Err(refusal)));
    }

    /// A link that pieces of this position may come on; position 0 is for clients.
    pub(super) fn carries(&mut self, link: LinkId, position: u8) -> Result<(), String> {
        if position == 0 {
            return Err("the head of a chain takes pieces from clients only".into());
        }
        self.links.carries(link, position)
    }

    fn may_take(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        head: &ChainPiece,
        body: &Bytes,
    ) -> Result<(), Refusal> {
        self.joins_chain(id, link, head.position)?;
        let (wseq, who) = (head.wseq, self.who());
        let refuse = |status, why: String| Err(Refusal::new(status, why));
        let writing = self.writing.get(&id).expect("it joined the chain");
        let expected = writing.applied.next();
        if wseq != expected {
            return refuse(
                Status::ChainBroken,
                format!("{who} got write {wseq} of {id}, {expected} comes next"),
            );
        }
        if head.piece != writing.last_piece.next() || head.session != writing.session {
            let why = format!(
                "{who} got piece {} of session {} of {id}, piece {} of session {} comes next",
                head.piece,
                head.session,
                writing.last_piece.next(),
                writing.session
            );
            return refuse(Status::ChainBroken, why);
        }
        if let Err(why) = self.fits(head.offset, body.len() as u64) {
            return refuse(
                Status::ChainBroken,
                format!("{who} got write {wseq} of {id}: {why}"),
            );
        }
        if !head
            .sums
            .match_bytes(self.config.geometry, head.offset, body)
            && !planted::is(Bug::PieceUnverified)
        {
            return refuse(
                Status::Corrupt,
                format!("write {wseq} of {id} did not match its sums at {who}"),
            );
        }
        if wseq > writing.had && writing.waits_too_much(head.offset, body.len() as u64) {
            let why = format!("{who} got write {wseq} of {id}, which is more than a sync covers");
            return refuse(Status::ChainBroken, why);
        }
        Ok(())
    }

    /// Whether what comes on `link` is for a chunk being written here, from the one server before it.
    pub(super) fn joins_chain(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        position: u8,
    ) -> Result<(), Refusal> {
        let Some(writing) = self.writing.get_mut(&id) else {
            return Err(self.not_writable(id));
        };
        if writing.position != position {
            let why = format!(
                "{} is at position {} of the chain of {id}, not {position}",
                writing.who(),
                writing.position
            );
            return Err(Refusal::new(Status::ChainBroken, why));
        }
        if *writing.upstream.get_or_insert(link) != link {
            let why = format!("{} got writes of {id} over two links", writing.who());
            return Err(Refusal::new(Status::ChainBroken, why));
        }
        self.links
            .get_mut(link)
            .expect("a message just came on it")
            .replicas
            .insert(id);
        Ok(())
    }

    /// Breaks the chain at this replica, and tells the server before once.
    pub(super) fn refuse_up(
        &mut self,
        id: ReplicaId,
        link: LinkId,
        chain: ChainId,
        wseq: WriteSeq,
        refusal: &Refusal,
    ) {
        self.break_chain(id, wseq, &refusal.detail);
        if let Some(replica) = self.inventory.replicas.get_mut(&id)
            && let Some(broken) = &mut replica.broken
        {
            if broken.told == Some(link) {
                return;
            }
            broken.told = Some(link);
        }
        self.send(link, chain_done(id, chain, wseq, Err(refusal.clone())));
    }

    /// The next server speaks of writes; or the one before says that the chain is broken.
    pub(super) fn chain_done(&mut self, link: LinkId, head: ChainDone) {
        let id = ReplicaId {
            chunk: head.chunk,
            version: head.version,
        };
        let parked = self.parked.get_mut(&id).map(|parked| &mut parked.writing);
        let Some(writing) = self.writing.get_mut(&id).or(parked) else {
            return;
        };
        if writing.chain_id != head.chain {
            return probe::hit(Probe::ChainOver);
        }
        let from_below = writing.downstream == Some(link);
        match head.outcome {
            _ if !from_below && writing.upstream != Some(link) => {}
            Err(refusal) => self.break_chain(id, head.wseq, &refusal.detail),
            Ok(()) if !from_below => {}
            Ok(()) if head.wseq > writing.applied => {
                let why = format!(
                    "{} heard of write {} of {id}, {} was the last",
                    writing.who(),
                    head.wseq,
                    writing.applied
                );
                self.break_chain(id, head.wseq, &why);
            }
            Ok(()) => {
                writing.below = writing.below.max(head.wseq);
                self.advance(id);
            }
        }
    }

    /// Says what is done, as far as it is, and lets go on what waited for it.
    pub(super) fn advance(&mut self, id: ReplicaId) {
        let Some(writing) = self.writing.get_mut(&id) else {
            return;
        };
        let is_tail = writing.next().is_none();
        let mut done = None;
        let mut answers = Vec::new();
        while let Some(piece) = writing.pieces.front() {
            if piece.at_disk > 0 || !(is_tail || piece.wseq <= writing.below) {
                break;
            }
            let piece = writing.pieces.pop_front().expect("the front was just seen");
            done = Some(piece.wseq);
            let number = piece.number();
            answers.extend(
                piece
                    .asks
                    .into_iter()
                    .map(|(link, request)| (link, request, number)),
            );
        }
        let Some(wseq) = done else { return };
        assert!(wseq <= writing.applied, "what is done was taken");
        let (upstream, reads) = (writing.upstream, core::mem::take(&mut writing.reads));
        let chain = writing.chain_id;
        let over = writing.pieces.is_empty();
        for (link, request, number) in answers {
            self.send(link, piece_done(request, (id.chunk, number), Ok(())));
        }
        if let Some(link) = upstream {
            self.send(link, chain_done(id, chain, wseq, Ok(())));
        }
        self.reads.again(reads);
        if over && planted::is(Bug::SyncAckedWhenWritten) {
            self.ack_written(id);
        }
    }

    /// The chain of a chunk is broken: it takes no more pieces, and all who wait for it hear why.
    pub(super) fn break_chain(&mut self, id: ReplicaId, wseq: WriteSeq, why: &str) {
        let parked = self
            .parked
            .remove(&id)
            .map(|parked| (parked.writing, parked.waiting));
        let writing = self
            .writing
            .remove(&id)
            .map(|writing| (writing, Vec::new()));
        let Some((mut writing, waiting)) = writing.or(parked) else {
            return;
        };
        probe::hit(if writing.position == 0 {
            Probe::ChainBrokeAtHead
        } else if writing.next().is_some() {
            Probe::ChainBrokeInMiddle
        } else {
            Probe::ChainBrokeAtTail
        });
        tracing::warn!(%id, why, "a chain broke");
        for link in [writing.upstream, writing.downstream].into_iter().flatten() {
            if let Some(link) = self.links.get_mut(link) {
                link.replicas.remove(&id);
            }
        }
        let refusal = Refusal::new(Status::ChainBroken, why);
        let made = writing.take_made();
        let next_lost = writing.next().is_some() && writing.below < writing.applied;
        self.answer_created(id, &made, Some(refusal.clone()));
        for piece in writing.pieces {
            let number = piece.number();
            for (link, request) in piece.asks {
                self.send(
                    link,
                    piece_done(request, (id.chunk, number), Err(refusal.clone())),
                );
            }
        }
        for ask in writing.asks {
            let answer = SyncDone {
                chunk: id.chunk,
                outcome: Err(refusal.clone()),
            };
            self.send(ask.link, Msg::new(ask.request, answer));
        }
        // Up, so that the client hears it; down, so that nobody holds on to a chunk that gets no more.
        for link in [writing.upstream, writing.downstream].into_iter().flatten() {
            let done = chain_done(id, writing.chain_id, wseq, Err(refusal.clone()));
            self.send(link, done);
        }
        assert!(
            !self.writing.contains_key(&id) && !self.parked.contains_key(&id),
            "a chunk is written or parked, not both"
        );
        if !planted::is(Bug::StaleTableRead) {
            self.inventory.tables.forget(id);
        }
        if let Some(replica) = self.inventory.replicas.get_mut(&id) {
            replica.broken = Some(Box::new(Broken {
                why: why.into(),
                told: writing.upstream,
                next_lost,
                failed_here: false,
            }));
        }
        self.reads.again(writing.reads);
        for (link, msg, hold) in waiting {
            self.links.let_go(&mut self.outbox, Some(hold));
            self.received(link, msg);
        }
    }

    /// A link is gone, and with it every chain that ran over it.
    pub(super) fn chains_lost(&mut self, gone: &Link, reason: &CloseReason) {
        let who = self.who();
        let why = match gone.purpose {
            Purpose::Next(addr, _) => {
                format!("{who} lost the next server of the chain, {addr}: {reason}")
            }
            _ => format!(
                "{who} lost the server before it in the chain, {}: {reason}",
                gone.addr()
            ),
        };
        let next = matches!(gone.purpose, Purpose::Next(..));
        for id in &gone.replicas {
            if next && planted::is(Bug::ChainGoesOnWithoutTail) && self.writing.contains_key(id) {
                self.end_chain_here(*id);
                continue;
            }
            let parked = self.parked.get(id).map(|parked| &parked.writing);
            if let Some(writing) = self.writing.get(id).or(parked) {
                let wseq = writing.below.next();
                self.break_chain(*id, wseq, &why);
                if let Some(replica) = self.inventory.replicas.get_mut(id)
                    && let Some(broken) = &mut replica.broken
                {
                    broken.next_lost |= next;
                }
            }
        }
    }
}

fn chain_done(id: ReplicaId, chain: ChainId, wseq: WriteSeq, outcome: Result<(), Refusal>) -> Msg {
    Msg::new(
        0,
        ChainDone {
            chunk: id.chunk,
            version: id.version,
            chain,
            wseq,
            outcome,
        },
    )
}
