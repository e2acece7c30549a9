//! O5: what must hold of the meta server's state, now and across time, and of write grants.
//!
//! A state is checked as it is ([`kfs_core::meta::state::State::try_check`]) and against all states before it:
//! no id means two things, what is gone does not come back, versions and epochs grow. What was seen of a state
//! that was not durable yet is forgotten when its process dies: nobody was told. It never looks at the log.
use super::{Tick, Violation};
use kfs_core::ids::{
    ChainId, ChunkId, Epoch, FileId, Incarnation, LinkId, LogSeq, SessionId, Version, WriteSeq,
};
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::Kind;
use kfs_core::wire::{Head, Msg};
use std::collections::BTreeMap;

/// All that was seen of one meta server's states.
#[derive(Clone, Debug, Default)]
pub struct StateHistory {
    /// What each id was given to. Ids of all kinds come from one counter.
    ids: BTreeMap<u64, Fact<Meaning>>,
    /// What was there and is not any more.
    gone: BTreeMap<u64, LogSeq>,
    /// The highest version of each chunk.
    versions: BTreeMap<ChunkId, Fact<Version>>,
    /// Which start each epoch was.
    epochs: BTreeMap<Epoch, Fact<Incarnation>>,
    durable: LogSeq,
    /// The last state seen of this process.
    seq: LogSeq,
    /// States checked.
    pub checked: u64,
}

/// Something seen, and in which state first.
#[derive(Clone, Copy, Debug)]
struct Fact<T> {
    what: T,
    seen: LogSeq,
}

/// What an id stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    File,
    Directory,
    Chunk { file: FileId, index: u64 },
    Version(ChunkId),
    Session { nonce: u64 },
}

impl StateHistory {
    /// Checks a state, which is `durable` up to that record.
    ///
    /// # Errors
    /// If something does not hold of it, or not beside the states before it.
    pub fn observe(&mut self, state: &State, durable: LogSeq) -> Result<(), Violation> {
        let broken =
            |what: String| Violation::new("O5", "N1", format!("state {}: {what}", state.seq()));
        state.try_check().map_err(broken)?;
        let seq = state.seq();
        if seq < self.seq || durable < self.durable || durable > seq {
            return Err(broken(format!(
                "durable up to {durable}, after state {} that was durable up to {}",
                self.seq, self.durable
            )));
        }
        (self.seq, self.durable) = (seq, durable);
        self.epochs(state).map_err(broken)?;
        let now = meanings(state).map_err(broken)?;
        for (id, what) in &now {
            let fact = Fact {
                what: *what,
                seen: seq,
            };
            let before = self.ids.entry(*id).or_insert(fact).what;
            if before != *what {
                return Err(broken(format!("id {id} is {what:?}; it was {before:?}")));
            }
            if let Some(left) = self.gone.get(id) {
                return Err(broken(format!(
                    "{what:?} with id {id} is back; in state {left} it was gone"
                )));
            }
        }
        for id in self.ids.keys() {
            if !now.contains_key(id) {
                self.gone.entry(*id).or_insert(seq);
            }
        }
        for owned in state.chunks() {
            let version = Fact {
                what: owned.version,
                seen: seq,
            };
            let before = self.versions.entry(owned.chunk).or_insert(version);
            if owned.version < before.what {
                let (chunk, version, before) = (owned.chunk, owned.version, before.what);
                return Err(broken(format!(
                    "chunk {chunk} is at version {version}; it was at {before}"
                )));
            }
            if owned.version > before.what {
                *before = version;
            }
        }
        self.checked += 1;
        Ok(())
    }

    /// The process died: what it had not made durable is no more.
    pub fn died(&mut self) {
        let durable = self.durable;
        self.seq = durable;
        self.ids.retain(|_, fact| fact.seen <= durable);
        self.gone.retain(|_, seen| *seen <= durable);
        self.versions.retain(|_, fact| fact.seen <= durable);
        self.epochs.retain(|_, fact| fact.seen <= durable);
    }

    fn epochs(&mut self, state: &State) -> Result<(), String> {
        let mut issued = BTreeMap::new();
        for (epoch, incarnation, counter) in state.epochs() {
            let fact = Fact {
                what: incarnation,
                seen: state.seq(),
            };
            let before = self.epochs.entry(epoch).or_insert(fact).what;
            if before != incarnation {
                return Err(format!(
                    "epoch {epoch} is start {incarnation}; it was {before}"
                ));
            }
            issued.insert(epoch, counter);
        }
        if let Some((last, _)) = self.epochs.last_key_value()
            && *last != state.epoch()
        {
            return Err(format!(
                "epoch {last} was followed by epoch {}",
                state.epoch()
            ));
        }
        let known = |epoch: Epoch, counter: u64| {
            issued
                .get(&epoch)
                .is_some_and(|issued| (1..=*issued).contains(&counter))
        };
        for owned in state.chunks() {
            if !known(owned.chunk.epoch(), owned.chunk.counter())
                || !known(owned.version.epoch(), owned.version.counter())
            {
                return Err(format!(
                    "chunk {} version {} was never issued",
                    owned.chunk, owned.version
                ));
            }
        }
        Ok(())
    }
}

/// What each id in a state stands for.
fn meanings(state: &State) -> Result<BTreeMap<u64, Meaning>, String> {
    let mut now: BTreeMap<u64, Meaning> = BTreeMap::new();
    let mut give = |id: u64, what: Meaning| match now.insert(id, what) {
        None => Ok(()),
        Some(other) => Err(format!("id {id} is {what:?} and {other:?}")),
    };
    for attrs in state.files_and_directories() {
        let what = match attrs.kind {
            Kind::File => Meaning::File,
            Kind::Directory => Meaning::Directory,
        };
        give(attrs.file.0, what)?;
    }
    for owned in state.chunks() {
        let (file, index) = (owned.file, owned.index);
        give(owned.chunk.0, Meaning::Chunk { file, index })?;
        give(owned.version.0, Meaning::Version(owned.chunk))?;
    }
    for (session, nonce, _) in state.sessions() {
        give(session.0, Meaning::Session { nonce })?;
    }
    Ok(now)
}

/// One write grant at most: who wrote each (chunk, version), by what the meta server ordered and what
/// chunkservers accepted. A server is named by any number that stays its own.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    granted: BTreeMap<(ChunkId, Version), Vec<(SessionId, Tick)>>,
    /// To which write members of a chunk were to be raised last, and in which chain they would go on.
    raised: BTreeMap<ChunkId, (ChainId, WriteSeq)>,
    /// The newest version of each chunk under which a piece was acknowledged, to which of those it was granted to, and
    /// when.
    acked: BTreeMap<ChunkId, ((Version, usize), Tick)>,
    /// Pieces that a client sent and that are not answered.
    asked: BTreeMap<(u32, LinkId, u64), (ChunkId, Version, SessionId)>,
    /// Pieces acknowledged.
    pub pieces: u64,
}

impl Grants {
    /// The meta server orders a chunk to be made for a session.
    ///
    /// # Errors
    /// If it was ordered for another one.
    pub fn ordered(
        &mut self,
        chunk: ChunkId,
        version: Version,
        session: SessionId,
        at: Tick,
    ) -> Result<(), Violation> {
        let granted = self.granted.entry((chunk, version)).or_default();
        if granted.is_empty() {
            granted.push((session, at));
        }
        let (before, since) = granted[0];
        if before == session {
            return Ok(());
        }
        Err(Violation::new(
            "O5",
            "D1",
            format!(
                "chunk {chunk} version {version} was granted to session {before} at {since}, and to {session} at {at}"
            ),
        ))
    }

    /// The meta server orders a chunk to be taken over by another session.
    fn taken_over(&mut self, chunk: ChunkId, version: Version, session: SessionId, at: Tick) {
        let granted = self.granted.entry((chunk, version)).or_default();
        if granted.last().is_none_or(|(before, _)| *before != session) {
            granted.push((session, at));
        }
    }

    /// The meta server orders members of a chunk to be raised. No write is given out twice: whoever was raised before
    /// and is not among them must not pass for one of them.
    ///
    /// # Errors
    /// If others were to be raised to this one, or to a higher one.
    pub fn raises(
        &mut self,
        chunk: ChunkId,
        chain: ChainId,
        to: WriteSeq,
    ) -> Result<(), Violation> {
        let before = self.raised.insert(chunk, (chain, to));
        match before.filter(|(other, _)| *other != chain) {
            Some((_, before)) if before >= to => Err(Violation::new(
                "O5",
                "D5",
                format!(
                    "chunk {chunk} is taken over at write {to}, and members were raised to write {before} before"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// A chunkserver takes a piece of a session: it is written by all, or it was passed on to the next.
    ///
    /// # Errors
    /// If the chunk was never granted, or to another session.
    pub fn taken(
        &self,
        server: u32,
        chunk: ChunkId,
        version: Version,
        session: SessionId,
        at: Tick,
    ) -> Result<usize, Violation> {
        let granted = self.granted.get(&(chunk, version));
        let place = granted.and_then(|granted| granted.iter().rposition(|(to, _)| *to == session));
        if let Some(place) = place {
            return Ok(place);
        }
        Err(Violation::new(
            "O5",
            "D1",
            format!(
                "server {server} took a piece of session {session} for chunk {chunk} version {version} at {at}; granted is {granted:?}"
            ),
        ))
    }

    /// A piece is acknowledged to its client: every replica of that version has it.
    ///
    /// # Errors
    /// If a later version of the chunk is being written already, or another session was granted it since and has.
    pub fn acked(
        &mut self,
        server: u32,
        chunk: ChunkId,
        version: (Version, usize),
        at: Tick,
    ) -> Result<(), Violation> {
        self.pieces += 1;
        let (newest, since) = self.acked.entry(chunk).or_insert((version, at));
        if *newest <= version {
            (*newest, *since) = (version, at);
            return Ok(());
        }
        let (version, place) = version;
        Err(Violation::new(
            "O5",
            "D1",
            format!(
                "server {server} acknowledged a piece for chunk {chunk} version {version} of its session {place} at {at}; {newest:?} is being written since {since}"
            ),
        ))
    }

    /// A message reached a chunkserver.
    pub fn received(&mut self, server: u32, link: LinkId, msg: &Msg) {
        if let Head::WritePiece(piece) = &msg.head {
            let what = (piece.chunk, piece.version, piece.session);
            self.asked.insert((server, link, msg.request), what);
        }
    }

    /// A message left the meta server or a chunkserver.
    ///
    /// # Errors
    /// As the functions above.
    pub fn sent(
        &mut self,
        server: u32,
        link: LinkId,
        msg: &Msg,
        at: Tick,
    ) -> Result<(), Violation> {
        match &msg.head {
            Head::CreateChunk(order) => self.ordered(order.chunk, order.version, order.session, at),
            Head::ResumeChunk(order) => {
                let Some(to) = order.raised else {
                    return Ok(());
                };
                self.taken_over(order.chunk, order.version, order.session, at);
                self.raises(order.chunk, order.chain, to)
            }
            Head::ChainPiece(piece) => self
                .taken(server, piece.chunk, piece.version, piece.session, at)
                .map(drop),
            Head::PieceDone(done) => {
                let asked = self.asked.remove(&(server, link, msg.request));
                match (asked, &done.outcome) {
                    (Some((chunk, version, session)), Ok(())) => {
                        let place = self.taken(server, chunk, version, session, at)?;
                        self.acked(server, chunk, (version, place), at)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A chunkserver's process died: what it had not answered it never will.
    pub fn died(&mut self, server: u32) {
        self.asked.retain(|(asked, ..), _| *asked != server);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kfs_core::ids::{Boot, ClusterId, Instance, NodeId, RequestNumber, ServerIndex};
    use kfs_core::limits::Geometry;
    use kfs_core::meta::key::{Key, Name};
    use kfs_core::meta::record::{
        By, ChunkOpened, EpochBegun, Fate, FileCreated, FileRemoved, Logged, Record, ServerJoined,
        SessionOpened, SizeSet,
    };
    use kfs_core::time::UnixNanos;
    use kfs_core::wire::client_chunk::{Durable, PieceDone, WritePiece};
    use kfs_core::wire::client_meta::{Keep, Ownership, WriterStays};

    pub(in crate::oracle) const GEOMETRY: Geometry = Geometry {
        block_bytes: 64,
        chunk_blocks: 4,
        piece_bytes: 128,
    };
    pub(in crate::oracle) const CLUSTER: ClusterId = ClusterId(0xC1);

    pub(in crate::oracle) fn epoch(epoch: u32, incarnation: u64) -> Record {
        EpochBegun {
            epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
            cluster: CLUSTER,
            geometry: GEOMETRY,
        }
        .into()
    }
    pub(in crate::oracle) fn file_id(counter: u64) -> FileId {
        FileId::issued(Epoch(1), counter)
    }
    pub(in crate::oracle) fn chunk_id(counter: u64) -> ChunkId {
        ChunkId::issued(Epoch(1), counter)
    }
    pub(in crate::oracle) fn version(counter: u64) -> Version {
        Version::issued(Epoch(1), counter)
    }
    pub(in crate::oracle) fn session(counter: u64) -> SessionId {
        SessionId::issued(Epoch(1), counter)
    }
    pub(in crate::oracle) fn key(name: &str) -> Key {
        Key {
            parent: FileId::ROOT,
            name: Name::new(name.as_bytes()).unwrap(),
        }
    }
    pub(in crate::oracle) fn server(index: u64) -> Record {
        ServerJoined {
            index: ServerIndex(index),
            node: NodeId(u128::from(index)),
            boot: Boot(1),
            instance: Instance(index),
            rack: String::new(),
        }
        .into()
    }
    pub(in crate::oracle) fn created(name: &str, counter: u64) -> Record {
        FileCreated {
            key: key(name),
            file: file_id(counter),
            owner: Ownership {
                uid: 0,
                gid: 0,
                mode: 0o644,
            },
            replication: 2,
            keep: Keep::Always,
            time: UnixNanos(1),
        }
        .into()
    }
    pub(in crate::oracle) fn opened(file: u64, chunk: u64) -> Record {
        ChunkOpened {
            file: file_id(file),
            index: 0,
            chunk: chunk_id(chunk),
            version: version(chunk + 1),
            members: vec![ServerIndex(1), ServerIndex(2)],
        }
        .into()
    }
    pub(in crate::oracle) fn sized(file: u64, size: u64) -> Record {
        let synced = Durable {
            len: size,
            wseq: WriteSeq(1),
        };
        SizeSet {
            file: file_id(file),
            size,
            synced: vec![(0, synced)],
            writer: WriterStays::Closed,
            time: UnixNanos(2),
        }
        .into()
    }
    pub(in crate::oracle) fn removed(name: &str) -> Record {
        FileRemoved {
            key: key(name),
            fate: Fate::Dropped,
            time: UnixNanos(3),
        }
        .into()
    }
    pub(in crate::oracle) fn begun() -> Vec<Record> {
        let session = SessionOpened {
            session: session(1),
            nonce: 5,
        };
        vec![epoch(1, 77), server(1), server(2), session.into()]
    }
    /// A closed file `f` with id 2, of 100 bytes in chunk 3 at version 4 on servers 1 and 2.
    pub(in crate::oracle) fn with_a_file() -> Vec<Record> {
        let mut records = begun();
        records.extend([created("f", 2), opened(2, 3), sized(2, 100)]);
        records
    }
    pub(in crate::oracle) fn logged(records: Vec<Record>) -> Vec<Logged> {
        let by = By {
            session: session(1),
            request: RequestNumber(0),
            lowest: RequestNumber(1),
        };
        (1..)
            .zip(records)
            .map(|(seq, record)| Logged {
                seq: LogSeq(seq),
                by,
                record,
            })
            .collect()
    }
    pub(in crate::oracle) fn state(records: Vec<Record>) -> State {
        State::replay(&logged(records)).unwrap()
    }
    fn observe(history: &mut StateHistory, records: Vec<Record>) -> Result<(), Violation> {
        let state = state(records);
        history.observe(&state, state.seq())
    }

    #[test]
    fn a_history_of_one_log_is_fine() {
        let mut history = StateHistory::default();
        let mut records = with_a_file();
        for len in 1..=records.len() {
            observe(&mut history, records[..len].to_vec()).unwrap();
        }
        records.extend([removed("f"), created("f", 5), epoch(2, 78)]);
        observe(&mut history, records).unwrap();
        assert_eq!(history.checked, 8);
    }

    #[test]
    fn a_chunk_that_becomes_another_files_is_seen() {
        let mut history = StateHistory::default();
        observe(&mut history, with_a_file()).unwrap();
        let mut other = begun();
        other.extend([created("f", 2), created("g", 3), opened(3, 4), sized(3, 9)]);
        let seen = observe(&mut history, other).unwrap_err();
        assert!(seen.what.contains("it was"), "{seen}");
    }

    #[test]
    fn a_file_that_comes_back_with_its_old_id_is_seen() {
        let mut history = StateHistory::default();
        let mut records = with_a_file();
        observe(&mut history, records.clone()).unwrap();
        records.push(removed("f"));
        observe(&mut history, records).unwrap();
        let mut back = with_a_file();
        back.push(created("g", 9));
        let seen = observe(&mut history, back).unwrap_err();
        assert!(seen.what.contains("is back"), "{seen}");
    }

    #[test]
    fn an_id_of_a_record_that_was_never_durable_may_be_given_again() {
        let mut given = begun();
        given.push(created("f", 2));
        let mut other = begun();
        other.extend([epoch(2, 78), server(3)]);
        let lost = state(given);
        let mut history = StateHistory::default();
        history.observe(&lost, LogSeq(4)).unwrap();
        history.died();
        // A directory of the next epoch, and id 2 for something else.
        observe(&mut history, other).unwrap();
        let mut chunk = begun();
        chunk.extend([created("h", 9), opened(9, 10), server(3)]);
        let mut history = StateHistory::default();
        history.observe(&lost, LogSeq(4)).unwrap();
        history.died();
        observe(&mut history, chunk).unwrap();
    }

    #[test]
    fn a_version_that_falls_and_an_epoch_that_is_lived_twice_are_seen() {
        let mut history = StateHistory::default();
        observe(&mut history, with_a_file()).unwrap();
        history.versions.get_mut(&chunk_id(3)).unwrap().what = version(9);
        let seen = observe(&mut history, with_a_file()).unwrap_err();
        assert!(seen.what.contains("is at version"), "{seen}");
        let mut history = StateHistory::default();
        observe(&mut history, vec![epoch(1, 77)]).unwrap();
        assert!(observe(&mut history, vec![epoch(1, 78)]).is_err());
    }

    #[test]
    fn a_state_behind_what_was_durable_is_seen() {
        let mut history = StateHistory::default();
        observe(&mut history, with_a_file()).unwrap();
        history.died();
        assert!(observe(&mut history, begun()).is_err());
    }

    #[test]
    fn two_sessions_writing_one_version_and_a_zombie_head_are_seen() {
        let (chunk, first, second) = (chunk_id(3), version(4), version(8));
        let mut grants = Grants::default();
        grants.raises(chunk, ChainId(1), WriteSeq(7)).unwrap();
        grants.raises(chunk, ChainId(1), WriteSeq(7)).unwrap();
        grants.raises(chunk, ChainId(2), WriteSeq(8)).unwrap();
        assert!(grants.raises(chunk, ChainId(3), WriteSeq(8)).is_err());
        grants.ordered(chunk, first, session(1), 1).unwrap();
        grants.ordered(chunk, first, session(1), 2).unwrap();
        assert!(grants.ordered(chunk, first, session(2), 3).is_err());
        grants.taken(1, chunk, first, session(1), 4).unwrap();
        assert!(grants.taken(1, chunk, first, session(2), 5).is_err());
        assert!(grants.taken(1, chunk, second, session(1), 5).is_err());
        grants.acked(1, chunk, (first, 0), 6).unwrap();
        grants.acked(2, chunk, (second, 0), 7).unwrap();
        assert!(grants.acked(1, chunk, (first, 0), 8).is_err());
    }

    #[test]
    fn messages_tell_who_writes() {
        let link = LinkId(3);
        let piece = |session| {
            let head = WritePiece {
                chunk: chunk_id(3),
                version: version(4),
                session,
                piece: kfs_core::ids::PieceNumber(1),
                offset: 0,
                sums: kfs_core::block::Sums::of(GEOMETRY, 0, &bytes::Bytes::new()),
            };
            Msg::new(9, head)
        };
        let done = Msg::new(
            9,
            PieceDone {
                chunk: chunk_id(3),
                piece: kfs_core::ids::PieceNumber(1),
                outcome: Ok(()),
            },
        );
        let mut grants = Grants::default();
        grants
            .ordered(chunk_id(3), version(4), session(1), 1)
            .unwrap();
        grants.received(1, link, &piece(session(1)));
        grants.sent(1, link, &done, 2).unwrap();
        assert_eq!(grants.pieces, 1);
        grants.received(1, link, &piece(session(2)));
        assert!(grants.sent(1, link, &done, 3).is_err());
        grants.received(1, link, &piece(session(2)));
        grants.died(1);
        grants.sent(1, link, &done, 4).unwrap();
    }
}
