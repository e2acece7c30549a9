//! A start: whose directory this is, what the log holds, where it ends, and a new segment for this epoch.
//!
//! Nothing is changed before all of the log is read; then the boot is raised, and nothing is answered before
//! the new epoch is durable. What cannot be told for certain is refused, naming file, offset, expected and
//! found. Read `docs/formats/oplog.md` for what is a torn tail and what is damage.
//!
//! With a mirror, both copies of the log are read and one log is made of them ([`pair`], [`merge`]). What either
//! copy lacks is written when all of both is read and nothing was refused ([`work`]).
mod beside;
mod merge;
mod pair;
mod refusals;
mod twice;
mod work;

use self::pair::{Pair, Paired, Two, Whole};
use self::refusals::{damaged, data, entries, no_data, read_identity, without_identity};
pub(super) use self::refusals::{foreign_mirror, not_a_mirror};
use self::work::{Job, Work};
use super::apply::apply;
use super::checkpoint::{Loader, format as checkpoint};
use super::checkpointing::finished;
use super::commit::{Commit, header_at, log_file, segment_bytes, write_header};
use super::mirror::{self, Copies, Side};
use super::oplog::{
    DIR, Follows, Joint, More, NEXT, SegmentEnd, SegmentReader, segment_first, segment_name,
};
use super::record::Logged;
use super::state::State;
use super::{Io, Loaded};
use crate::identity::{self, Identity, Owner};
use crate::ids::{Boot, ClusterId, DiskId, Epoch, Incarnation, LogSeq, NodeId, Ticket};
use crate::machine::{
    DirEntry, DiskDone, DiskError, DiskOp, DiskResult, Fault, FaultKind, FileName, SyncMode,
};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of the log that are read at once.
const READ_BYTES: usize = 1 << 20;
/// An identity file is shorter than this.
pub(super) const IDENTITY_BYTES_MAX: usize = 1 << 16;
/// What a file system puts into its root by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// What is read for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A start: all of it is read, and then the directory is this start's.
    Serve,
    /// Somebody else may serve meanwhile: what is read will not change any more, and nothing is changed.
    ClosedSegments,
}

/// A start, as far as it has come.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    purpose: Purpose,
    ticket: Ticket,
    step: Step,
    /// Files of an interrupted start, or of a checkpoint that was not finished, which are made anew.
    leftovers: Vec<FileName>,
    /// Checkpoints that are damaged, which are put aside.
    damaged: Vec<LogSeq>,
    /// How often it was begun again because somebody else removed what was about to be read.
    again: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// Listing the data directory.
    Root,
    /// Listing the log of a directory without identity: only an interrupted format leaves it so, empty.
    EmptyLog,
    Identity,
    LogList {
        identity: Identity,
    },
    /// The mirror is looked at; without an identity the data directory is empty.
    MirrorRoot(Mirroring),
    MirrorIdentity(Mirroring),
    MirrorList(Mirroring),
    CheckpointList(Found),
    Checkpoint(Box<Loading>),
    Segment(Box<Reading>),
    /// Its last segment is read once more, from this part on, before its end is cut off.
    Again(Box<Whole>, usize),
    /// Both copies of the log are read.
    Segments(Box<Pair>),
    /// All is read: this, in its order, puts the copies of the log in order and opens the new segment.
    Opening {
        work: Work,
        opened: Box<Loaded>,
    },
}

/// A mirror, while it is being looked at.
#[derive(Clone, Debug)]
struct Mirroring {
    /// Of the data directory, with the first records of its segments.
    own: Option<(Identity, Vec<LogSeq>)>,
    two: Box<Two>,
}

/// What is in a data directory.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    /// The first records of the log's segments that are read, oldest first.
    pub(super) segments: Vec<LogSeq>,
    /// The first record of the segment behind those: of the open one, which is not read.
    pub(super) open: Option<LogSeq>,
    /// Checkpoints, oldest first. Those that are found to be damaged are taken out.
    pub(super) checkpoints: Vec<LogSeq>,
    /// Checkpoints that compactors did not finish.
    pub(super) compacting: Vec<FileName>,
    /// With a mirror: what there is of both copies.
    two: Option<Box<Two>>,
}

/// A checkpoint, while it is being read.
#[derive(Clone, Debug)]
struct Loading {
    found: Found,
    loader: Loader,
    offset: u64,
    /// What is wrong with the newer ones.
    damaged: Vec<String>,
}

/// The log, while it is being read.
#[derive(Clone, Debug)]
struct Reading {
    found: Found,
    /// Which of them is being read.
    nth: usize,
    reader: SegmentReader,
    offset: u64,
    /// Of the last segment, what was read.
    tail: Vec<Bytes>,
    state: State,
}

/// What a start has come to.
pub(super) enum Recovered {
    Going(Box<Recovery>),
    /// All of it is read, for a start.
    Done(Box<Loaded>),
    /// What does not change any more is read.
    Read(Box<(Found, State)>),
}

impl Recovery {
    pub(super) fn begin(io: &mut Io, purpose: Purpose) -> Self {
        let ticket = io.outbox.disk(DiskOp::List {
            dir: FileName::new(""),
        });
        Self {
            purpose,
            ticket,
            step: Step::Root,
            leftovers: Vec::new(),
            damaged: Vec::new(),
            again: 0,
        }
    }

    /// Takes the completion of an operation of the start.
    pub(super) fn completed(
        mut self: Box<Self>,
        io: &mut Io,
        ticket: Ticket,
        result: DiskResult,
    ) -> Result<Recovered, Fault> {
        if ticket != self.ticket {
            return Ok(Recovered::Going(self));
        }
        match core::mem::replace(&mut self.step, Step::Root) {
            Step::Root => {
                let listed = entries(result, "the data directory")?;
                let is_new = |entry: &DirEntry| entry.name == identity::NAME_NEW;
                if listed.iter().any(is_new) {
                    self.leftovers.push(FileName::new(identity::NAME_NEW));
                }
                if listed.iter().any(|entry| entry.name == identity::NAME) {
                    let (file, len) = (FileName::new(identity::NAME), IDENTITY_BYTES_MAX);
                    self.ticket = io.outbox.disk(DiskOp::Read {
                        file,
                        offset: 0,
                        len,
                    });
                    self.step = Step::Identity;
                    return Ok(Recovered::Going(self));
                }
                if self.purpose == Purpose::ClosedSegments {
                    return Err(no_data());
                }
                // The mirror stands in the data directory where a driver has no other place for it.
                let dirs = [DIR, mirror::DIR];
                let dirs = &dirs[..1 + usize::from(io.config.mirror)];
                let ours = |entry: &DirEntry| {
                    is_new(entry)
                        || entry.name == LOST_AND_FOUND
                        || (dirs.contains(&&*entry.name) && !entry.is_file)
                };
                if let Some(strange) = listed.iter().find(|entry| !ours(entry)) {
                    return Err(without_identity(&strange.name));
                }
                self.ticket = io.outbox.disk(DiskOp::List {
                    dir: FileName::new(DIR),
                });
                self.step = Step::EmptyLog;
                Ok(Recovered::Going(self))
            }
            Step::EmptyLog => {
                let listed = match result {
                    Err(DiskError::NotFound) => Vec::new(),
                    other => entries(other, "log/")?,
                };
                for entry in listed {
                    if segment_first(&entry.name).is_some() || entry.name != NEXT {
                        return Err(without_identity(&format!("{DIR}/{}", entry.name)));
                    }
                    self.leftovers.push(log_file(Side::Primary, NEXT));
                }
                if io.config.mirror {
                    return Ok(self.mirror(io, None, Box::default()));
                }
                self.format(io, None)
            }
            Step::Identity => {
                let identity = read_identity(&io.config, data(result, identity::NAME)?.as_ref())?;
                self.ticket = io.outbox.disk(DiskOp::List {
                    dir: FileName::new(DIR),
                });
                self.step = Step::LogList { identity };
                Ok(Recovered::Going(self))
            }
            Step::LogList { identity } => {
                let mut segments = Vec::new();
                let mut two = Box::<Two>::default();
                let listed = match result {
                    // The mirror has it.
                    Err(DiskError::NotFound)
                        if io.config.mirror && self.purpose == Purpose::Serve =>
                    {
                        two.make.push(FileName::new(DIR));
                        Vec::new()
                    }
                    other => entries(other, "log/")?,
                };
                two.listed(Side::Primary, listed.clone());
                for entry in listed {
                    match segment_first(&entry.name) {
                        Some(first) if entry.is_file => segments.push(first),
                        _ if entry.name == NEXT => {
                            self.leftovers.push(log_file(Side::Primary, NEXT));
                        }
                        // A start with a mirror leaves them, and only such a one takes them away.
                        _ if entry.name.ends_with(work::REPAIR)
                            || entry.name.ends_with(work::DAMAGED) => {}
                        _ => tracing::warn!(
                            name = entry.name,
                            "a file in the log's directory is none of it; left alone"
                        ),
                    }
                }
                segments.sort_unstable();
                if io.config.mirror && self.purpose == Purpose::Serve {
                    return Ok(self.mirror(io, Some((identity, segments)), two));
                }
                let open = match self.purpose {
                    Purpose::Serve => None,
                    Purpose::ClosedSegments => segments.pop(),
                };
                Ok(self.list_checkpoints(
                    io,
                    Found {
                        identity,
                        segments,
                        open,
                        checkpoints: Vec::new(),
                        compacting: Vec::new(),
                        two: None,
                    },
                ))
            }
            Step::MirrorRoot(mut mirroring) => {
                let op = if mirroring.two.rooted(result)? {
                    self.step = Step::MirrorIdentity(mirroring);
                    DiskOp::Read {
                        file: Side::Mirror.file(identity::NAME),
                        offset: 0,
                        len: IDENTITY_BYTES_MAX,
                    }
                } else {
                    self.step = Step::MirrorList(mirroring);
                    DiskOp::List {
                        dir: Side::Mirror.file(DIR),
                    }
                };
                self.ticket = io.outbox.disk(op);
                Ok(Recovered::Going(self))
            }
            Step::MirrorIdentity(mut mirroring) => {
                let cluster = mirroring.own.as_ref().map(|(own, _)| own.cluster);
                mirroring.two.identified(&io.config, cluster, result)?;
                self.ticket = io.outbox.disk(DiskOp::List {
                    dir: Side::Mirror.file(DIR),
                });
                self.step = Step::MirrorList(mirroring);
                Ok(Recovered::Going(self))
            }
            Step::MirrorList(Mirroring { own, mut two }) => {
                let listed = match result {
                    Err(DiskError::NotFound) => Vec::new(),
                    other => entries(other, "mirror/log/")?,
                };
                two.listed(Side::Mirror, listed);
                let own = match own {
                    Some(own) => own,
                    None => match two.restores(&io.config)? {
                        Some(identity) => (identity, Vec::new()),
                        None => return self.format(io, Some(two)),
                    },
                };
                let (mut identity, segments) = own;
                two.compare(&mut identity);
                Ok(self.list_checkpoints(
                    io,
                    Found {
                        identity,
                        segments,
                        open: None,
                        checkpoints: Vec::new(),
                        compacting: Vec::new(),
                        two: Some(two),
                    },
                ))
            }
            Step::CheckpointList(mut found) => {
                let listed = match result {
                    // Before the first one was made.
                    Err(DiskError::NotFound) => Vec::new(),
                    other => entries(other, "checkpoint/")?,
                };
                for entry in listed {
                    match checkpoint::checkpoint_seq(&entry.name) {
                        Some(seq) if entry.is_file => found.checkpoints.push(seq),
                        _ if checkpoint::is_unfinished(&entry.name) => {
                            let file =
                                FileName::new(&format!("{}/{}", checkpoint::DIR, entry.name));
                            self.leftovers.push(file);
                        }
                        // Left to the next compactor: one may be at work.
                        _ if checkpoint::is_compacting(&entry.name) => {
                            let file =
                                FileName::new(&format!("{}/{}", checkpoint::DIR, entry.name));
                            found.compacting.push(file);
                        }
                        _ if entry.name.ends_with(checkpoint::DAMAGED) => {}
                        _ => tracing::warn!(
                            name = entry.name,
                            "a file in the directory of checkpoints is none; left alone"
                        ),
                    }
                }
                found.checkpoints.sort_unstable();
                self.load(io, found, Vec::new())
            }
            Step::Checkpoint(loading) if self.was_removed(&result) => {
                self.begin_again(io, loading.found.identity)
            }
            Step::Segment(reading) if self.was_removed(&result) => {
                self.begin_again(io, reading.found.identity)
            }
            Step::Checkpoint(loading) => self.load_on(io, loading, result),
            Step::Segment(reading) => self.read_on(io, reading, result),
            Step::Again(whole, nth) => self.compare(io, whole, nth, result),
            Step::Segments(pair) => {
                let paired = pair.completed(io, result)?;
                self.paired(io, paired)
            }
            Step::Opening { mut work, opened } => {
                let Some(ticket) = work.go_on(io, result)? else {
                    return Ok(Recovered::Done(opened));
                };
                self.step = Step::Opening { work, opened };
                self.ticket = ticket;
                Ok(Recovered::Going(self))
            }
        }
    }

    /// Begins to look at the mirror.
    fn mirror(
        mut self: Box<Self>,
        io: &mut Io,
        own: Option<(Identity, Vec<LogSeq>)>,
        two: Box<Two>,
    ) -> Recovered {
        self.ticket = io.outbox.disk(DiskOp::List {
            dir: Side::Mirror.file(""),
        });
        self.step = Step::MirrorRoot(Mirroring { own, two });
        Recovered::Going(self)
    }

    fn list_checkpoints(mut self: Box<Self>, io: &mut Io, found: Found) -> Recovered {
        self.ticket = io.outbox.disk(DiskOp::List {
            dir: FileName::new(checkpoint::DIR),
        });
        self.step = Step::CheckpointList(found);
        Recovered::Going(self)
    }

    /// Makes an empty directory a meta server's.
    fn format(self: Box<Self>, io: &mut Io, two: Option<Box<Two>>) -> Result<Recovered, Fault> {
        if let Some(cluster) = io.config.cluster {
            return Err(refusals::empty(cluster));
        }
        let identity = Identity {
            owner: Owner::Meta,
            cluster: ClusterId(io.rng.id()),
            node: NodeId(io.rng.id()),
            disk: DiskId(io.rng.id()),
            boot: Boot(0),
            seen: (Epoch(0), Incarnation(0)),
            seen_seq: LogSeq(0),
            siblings: Vec::new(),
        };
        tracing::info!(cluster = %identity.cluster, "the data directory is empty: a new cluster begins");
        let log_dir = vec![
            DiskOp::MakeDir {
                dir: FileName::new(DIR),
            },
            DiskOp::SyncDir {
                dir: FileName::new(""),
            },
        ];
        let found = Found {
            identity,
            segments: Vec::new(),
            open: None,
            checkpoints: Vec::new(),
            compacting: Vec::new(),
            two,
        };
        self.open(io, found, State::default(), Joint::START, log_dir)
    }

    /// Begins to read the newest checkpoint; without one, the log from its first record on.
    fn load(
        mut self: Box<Self>,
        io: &mut Io,
        found: Found,
        damaged: Vec<String>,
    ) -> Result<Recovered, Fault> {
        let Some(newest) = found.checkpoints.last().copied() else {
            let whole = found
                .segments
                .first()
                .is_none_or(|first| *first == LogSeq(1));
            if !damaged.is_empty() && (!whole || found.segments.is_empty()) {
                return Err(Fault {
                    kind: FaultKind::Corrupt,
                    what: format!(
                        "no checkpoint can be used, and the log does not begin with its first record: {}",
                        damaged.join("; ")
                    ),
                    help: Some("restore a checkpoint from the backup; nothing was changed".into()),
                });
            }
            return self.begin_log(io, found, State::default());
        };
        let file = finished(newest);
        let loader = Loader::new(file.to_string(), found.identity.cluster);
        self.ticket = io.outbox.disk(DiskOp::Read {
            file,
            offset: 0,
            len: READ_BYTES,
        });
        self.step = Step::Checkpoint(Box::new(Loading {
            found,
            loader,
            offset: 0,
            damaged,
        }));
        Ok(Recovered::Going(self))
    }

    fn load_on(
        mut self: Box<Self>,
        io: &mut Io,
        mut loading: Box<Loading>,
        result: DiskResult,
    ) -> Result<Recovered, Fault> {
        let newest = *loading.found.checkpoints.last().expect("it is being read");
        let fed = match result {
            Ok(DiskDone::Data(bytes)) => {
                let more = if bytes.len() < READ_BYTES {
                    More::Ends
                } else {
                    More::Follows
                };
                loading.offset += bytes.len() as u64;
                let fed = loading.loader.feed(&bytes, more);
                fed.map_err(|damage| damage.to_string())
            }
            Ok(DiskDone::Done | DiskDone::Entries(_) | DiskDone::Space { .. }) => {
                panic!("a read gives data")
            }
            Err(error) => Err(format!("cannot read {}: {error}", finished(newest))),
        };
        match fed {
            Ok(None) => {
                self.ticket = io.outbox.disk(DiskOp::Read {
                    file: finished(newest),
                    offset: loading.offset,
                    len: READ_BYTES,
                });
                self.step = Step::Checkpoint(loading);
                Ok(Recovered::Going(self))
            }
            Ok(Some((state, summary))) if state.seq == newest => {
                probe::hit(Probe::CheckpointLoaded);
                tracing::info!(seq = %newest, entries = summary.entries, "a checkpoint was loaded");
                self.begin_log(io, loading.found, state)
            }
            wrong => {
                let why = match wrong {
                    Err(why) => why,
                    Ok(_) => format!(
                        "{} is of another record than its name says",
                        finished(newest)
                    ),
                };
                probe::hit(Probe::CheckpointDamaged);
                tracing::error!(
                    why,
                    "a checkpoint is damaged: an older one is tried, with more of the log"
                );
                let Loading {
                    mut found,
                    mut damaged,
                    ..
                } = *loading;
                found.checkpoints.pop();
                damaged.push(why);
                self.damaged.push(newest);
                self.load(io, found, damaged)
            }
        }
    }

    /// Begins to read the log where it goes on behind a state.
    fn begin_log(
        self: Box<Self>,
        io: &mut Io,
        found: Found,
        state: State,
    ) -> Result<Recovered, Fault> {
        if self.purpose == Purpose::ClosedSegments
            && found.open.is_none_or(|open| open <= state.seq.next())
        {
            // The newest checkpoint has all that does not change any more.
            return Ok(Recovered::Read(Box::new((found, state))));
        }
        let all = match &found.two {
            Some(two) => two.segments(),
            None => found.segments.clone(),
        };
        if all.is_empty() && state.seq == LogSeq(0) {
            return self.open(io, found, state, Joint::START, Vec::new());
        }
        let nth = match all.iter().rposition(|first| *first <= state.seq.next()) {
            Some(nth) => nth,
            // The reader says what is wrong with a first segment that is not the first.
            None if state.seq == LogSeq(0) => 0,
            None => {
                let goes_on = all.first().map_or_else(
                    || "log/ has no record".to_owned(),
                    |first| format!("log/ begins with record {first}"),
                );
                return Err(Fault {
                    kind: FaultKind::Corrupt,
                    what: format!(
                        "a part of the log is missing: the checkpoint ends with record {}, and {goes_on}",
                        state.seq
                    ),
                    help: Some(
                        "restore the log from the backup or a mirror; nothing was changed".into(),
                    ),
                });
            }
        };
        if found.two.is_some() {
            let paired = Pair::begin(io, found, state, nth);
            return self.paired(io, paired);
        }
        let reader = if state.seq == LogSeq(0) {
            reader(&found, nth, None)
        } else {
            let file = format!("{DIR}/{}", segment_name(found.segments[nth]));
            let cluster = found.identity.cluster;
            SegmentReader::behind_checkpoint(
                file,
                cluster,
                found.segments[nth],
                follows(&found, nth),
            )
        };
        let reading = Reading {
            found,
            nth,
            reader,
            offset: 0,
            tail: Vec::new(),
            state,
        };
        self.read(io, Box::new(reading))
    }

    fn read(mut self: Box<Self>, io: &mut Io, reading: Box<Reading>) -> Result<Recovered, Fault> {
        let file = log_file(
            Side::Primary,
            &segment_name(reading.found.segments[reading.nth]),
        );
        self.ticket = io.outbox.disk(DiskOp::Read {
            file,
            offset: reading.offset,
            len: READ_BYTES,
        });
        self.step = Step::Segment(reading);
        Ok(Recovered::Going(self))
    }

    fn read_on(
        self: Box<Self>,
        io: &mut Io,
        mut reading: Box<Reading>,
        result: DiskResult,
    ) -> Result<Recovered, Fault> {
        let name = segment_name(reading.found.segments[reading.nth]);
        let bytes = data(result, &format!("{DIR}/{name}"))?;
        assert!(
            bytes.len() <= READ_BYTES,
            "a read gives no more than was asked for"
        );
        let more = if bytes.len() < READ_BYTES {
            More::Ends
        } else {
            More::Follows
        };
        reading.offset += bytes.len() as u64;
        if reading.nth + 1 == reading.found.segments.len() {
            reading.tail.push(bytes.clone());
        }
        let state = &mut reading.state;
        let mut sink = |logged: Logged| replay(state, &logged);
        let Some(end) = reading
            .reader
            .feed(&bytes, more, &mut sink)
            .map_err(damaged)?
        else {
            assert!(
                more == More::Follows,
                "a file that has ended was read to its end"
            );
            return self.read(io, reading);
        };
        reading.nth += 1;
        if reading.nth > 1 {
            probe::hit(Probe::SegmentsJoined);
        }
        if reading.nth < reading.found.segments.len() {
            reading.reader = reader(&reading.found, reading.nth, Some(end));
            reading.offset = 0;
            return self.read(io, reading);
        }
        let Reading {
            found, state, tail, ..
        } = *reading;
        if let Some(open) = found.open {
            return if end.joint.seq == open {
                Ok(Recovered::Read(Box::new((found, state))))
            } else {
                let mut bad = end.bad;
                bad.mismatch.found +=
                    &format!(", while the log goes on with record {open} after it");
                Err(damaged(bad))
            };
        }
        let torn = end.torn.then(|| end.bad.clone());
        let whole = Whole {
            found,
            state,
            end,
            tail,
            torn,
        };
        if (whole.torn.is_some() || whole.end.batches == 0) && !planted::is(Bug::TornTailReadOnce) {
            return self.read_again(io, Box::new(whole), 0);
        }
        self.read_all(io, whole)
    }

    fn paired(mut self: Box<Self>, io: &mut Io, paired: Paired) -> Result<Recovered, Fault> {
        match paired {
            Paired::Going(pair, ticket) => {
                self.ticket = ticket;
                self.step = Step::Segments(pair);
                Ok(Recovered::Going(self))
            }
            Paired::Read(whole) => self.read_all(io, *whole),
        }
    }

    /// All of the log is read: whether it is all that there was, and how its end is made durable.
    fn read_all(self: Box<Self>, io: &mut Io, whole: Whole) -> Result<Recovered, Fault> {
        let Whole {
            mut found,
            state,
            end,
            tail,
            torn,
        } = whole;
        if end.joint.seq <= state.seq {
            return Err(Fault {
                kind: FaultKind::Corrupt,
                what: format!(
                    "a part of the log is missing: the checkpoint ends with record {}, and the log goes on to record {} only",
                    state.seq,
                    end.joint.seq.0 - 1
                ),
                help: Some(
                    "restore the log from the backup or a mirror; nothing was changed".into(),
                ),
            });
        }
        if found.identity.seen.0 > state.epoch {
            let (seen, found) = (found.identity.seen.0, state.epoch);
            return Err(Fault {
                kind: FaultKind::Corrupt,
                what: format!(
                    "a part of the log is missing: it was read up to epoch {seen} before, and now ends in epoch {found}"
                ),
                help: Some(
                    "restore the log from the backup or a mirror; nothing was changed".into(),
                ),
            });
        }
        let SegmentEnd {
            joint,
            batches,
            bad,
            ..
        } = end;
        if let Some(bad) = &torn {
            probe::hit(Probe::TornTailCut);
            tracing::warn!(%bad, records = joint.seq.0 - 1, "the log ends in a write that was cut; it goes on before it");
        }
        let last = *found.segments.last().expect("something was read");
        let name = segment_name(last);
        let sides = || {
            let two = found.two.as_ref();
            let has = move |side: &Side| two.is_some_and(|two| two.has(*side, last));
            Copies::with(two.is_some())
                .sides()
                .iter()
                .copied()
                .map(move |side| (side, has(&side)))
        };
        let durable: Vec<DiskOp> = match batches {
            0 => sides()
                .filter(|(side, has)| *has || *side == Side::Primary && found.two.is_none())
                .flat_map(|(side, _)| {
                    [
                        DiskOp::Remove {
                            file: log_file(side, &name),
                        },
                        DiskOp::SyncDir {
                            dir: side.file(DIR),
                        },
                    ]
                })
                .collect(),
            _ if planted::is(Bug::ReadTailUnsynced) => Vec::new(),
            _ if planted::is(Bug::ReadTailOnlySynced) => vec![DiskOp::Sync {
                file: log_file(Side::Primary, &name),
            }],
            _ => sides()
                .flat_map(|(side, _)| anew(side, &name, &tail, bad.offset))
                .collect(),
        };
        if batches == 0 {
            probe::hit(Probe::EmptySegmentRemoved);
            found.segments.pop();
        }
        self.open(io, found, state, joint, durable)
    }

    /// Raises the boot, opens the segment of this epoch.
    fn open(
        mut self: Box<Self>,
        io: &mut Io,
        found: Found,
        mut state: State,
        joint: Joint,
        first: Vec<DiskOp>,
    ) -> Result<Recovered, Fault> {
        let Found {
            identity,
            segments,
            checkpoints,
            open: _,
            compacting: _,
            two,
        } = found;
        if state.seq == LogSeq(0) && identity.seen.0 > Epoch(0) {
            return Err(Fault {
                kind: FaultKind::Corrupt,
                what: format!(
                    "the log is gone: log/ has no record, and epoch {} was read from it before",
                    identity.seen.0
                ),
                help: Some(
                    "restore the log from the backup or a mirror; nothing was changed".into(),
                ),
            });
        }
        if let Some(geometry) = state
            .geometry
            .filter(|geometry| *geometry != io.config.geometry)
        {
            let configured = io.config.geometry;
            return Err(Fault {
                kind: FaultKind::Refused,
                what: format!(
                    "the log is of a cluster with {geometry:?}, this meta server is set to {configured:?}"
                ),
                help: None,
            });
        }
        assert!(state.seq.0 < joint.seq.0, "what was applied was read");
        state.seq = LogSeq(joint.seq.0 - 1);
        let heard = identity.seen.0.max(state.epoch);
        let epoch = Epoch(heard.0 + 1);
        let mut identity = identity;
        identity.boot = identity.boot.next();
        identity.seen = identity.seen.max((state.epoch, state.incarnation()));

        let header = header_at(identity.cluster, epoch, joint, io.rng.u64());
        let bytes = segment_bytes(io.config.limits.log_first_segment_bytes);
        let copies = Copies::with(two.is_some());
        let mirror = two.as_ref().map(|two| two.told.clone());
        if !self.leftovers.is_empty() {
            probe::hit(Probe::LeftoverRemoved);
        }
        let leftovers = self.leftovers.drain(..);
        let mut ops: Vec<DiskOp> = leftovers.map(|file| DiskOp::Remove { file }).collect();
        if !self.damaged.is_empty() {
            // They may not be taken for good ones by somebody else, and are kept for who wants to look.
            let damaged = self.damaged.drain(..).map(finished);
            ops.extend(damaged.map(|from| DiskOp::Rename {
                to: FileName::new(&format!("{from}{}", checkpoint::DAMAGED)),
                from,
            }));
            ops.push(DiskOp::SyncDir {
                dir: FileName::new(checkpoint::DIR),
            });
        }
        let mut work: VecDeque<Job> = ops.drain(..).map(Job::from).collect();
        let mirrors = two.map(|two| self.prepare(io, *two, &identity, &mut work));
        ops.extend(first);
        ops.extend(write_identity(Side::Primary, &identity));
        ops.extend(
            mirrors
                .iter()
                .flat_map(|identity| write_identity(Side::Mirror, identity)),
        );
        for side in copies.sides() {
            ops.extend([
                DiskOp::Create {
                    file: log_file(*side, NEXT),
                    zeroed: bytes,
                },
                DiskOp::Sync {
                    file: log_file(*side, NEXT),
                },
                write_header(*side, &header),
                DiskOp::Rename {
                    from: log_file(*side, NEXT),
                    to: log_file(*side, &segment_name(joint.seq)),
                },
                DiskOp::SyncDir {
                    dir: side.file(DIR),
                },
            ]);
        }
        let unnamed = [
            (Side::Primary.file(""), Bug::IdentityUnnamed),
            (Side::Primary.file(DIR), Bug::FirstSegmentUnnamed),
            (Side::Mirror.file(DIR), Bug::MirrorUnnamed),
        ];
        ops.retain(|op| {
            let left_out = |(dir, bug): &(FileName, Bug)| {
                matches!(op, DiskOp::SyncDir { dir: synced } if synced == dir) && planted::is(*bug)
            };
            !unnamed.iter().any(left_out)
        });
        work.extend(ops.into_iter().map(Job::from));
        let commit = Commit::new(
            identity.cluster,
            &io.config.limits,
            &header,
            bytes,
            segments,
            copies,
        );
        let opened = Box::new(Loaded {
            identity,
            state,
            log: commit,
            checkpoints,
            epoch,
            mirror,
        });
        let mut work = Work::new(work);
        let begun = work.go_on(io, Ok(DiskDone::Done))?;
        self.ticket = begun.expect("a start has operations");
        self.step = Step::Opening { work, opened };
        Ok(Recovered::Going(self))
    }

    /// What makes the copies of the log the same, before the end of it is written anew. Gives the mirror's identity.
    fn prepare(
        &self,
        io: &mut Io,
        mut two: Two,
        identity: &Identity,
        work: &mut VecDeque<Job>,
    ) -> Identity {
        let mirror = Identity {
            owner: Owner::Mirror,
            disk: match &two.identity {
                Some(mirror) => mirror.disk,
                None => DiskId(io.rng.id()),
            },
            ..identity.clone()
        };
        let mut ops: Vec<DiskOp> = Vec::new();
        ops.extend(two.leftovers.drain(..).map(|file| DiskOp::Remove { file }));
        let mut make = |dir: FileName| {
            let parent = FileName::new(dir.dir());
            ops.extend([DiskOp::MakeDir { dir }, DiskOp::SyncDir { dir: parent }]);
        };
        if two.restored {
            make(FileName::new(DIR));
        }
        two.make.drain(..).for_each(&mut make);
        // A log without an identity beside it is refused, so that comes first.
        if two.restored {
            ops.extend(write_identity(Side::Primary, identity));
        }
        if two.identity.is_none() {
            ops.extend(write_identity(Side::Mirror, &mirror));
        }
        work.extend(ops.into_iter().map(Job::from));
        work.append(&mut two.jobs);
        mirror
    }
}

/// Replaces the identity file as a whole.
fn write_identity(side: Side, identity: &Identity) -> [DiskOp; 4] {
    let new = side.file(identity::NAME_NEW);
    [
        DiskOp::Create {
            file: new.clone(),
            zeroed: 0,
        },
        DiskOp::Write {
            file: new.clone(),
            offset: 0,
            data: vec![Bytes::from(identity.encode())],
            sync: SyncMode::Now,
        },
        DiskOp::Rename {
            from: new,
            to: side.file(identity::NAME),
        },
        DiskOp::SyncDir { dir: side.file("") },
    ]
}

/// Writes the last segment anew, up to where its batches end, and puts it in the place of the old one. What was
/// read may be in the page cache only; and if a sync of it failed once, the cache takes it for clean, so that
/// another sync saves nothing. The old one stays untouched until the new one is durable.
fn anew(side: Side, name: &str, tail: &[Bytes], end: u64) -> Vec<DiskOp> {
    let next = log_file(side, NEXT);
    let mut ops = vec![DiskOp::Create {
        file: next.clone(),
        zeroed: 0,
    }];
    let mut offset = 0;
    for part in tail {
        let mut part = part.clone();
        part.truncate(usize::try_from(end - offset).unwrap_or(usize::MAX));
        if part.is_empty() {
            break;
        }
        let at = offset;
        offset += part.len() as u64;
        ops.push(DiskOp::Write {
            file: next.clone(),
            offset: at,
            data: vec![part],
            sync: SyncMode::Later,
        });
    }
    ops.extend([
        DiskOp::Sync { file: next.clone() },
        DiskOp::Rename {
            from: next,
            to: log_file(side, name),
        },
        DiskOp::SyncDir {
            dir: side.file(DIR),
        },
    ]);
    ops
}

fn follows(found: &Found, nth: usize) -> Follows {
    if nth + 1 == found.segments.len() && found.open.is_none() {
        Follows::Nothing
    } else {
        Follows::Segment
    }
}

fn reader(found: &Found, nth: usize, before: Option<SegmentEnd>) -> SegmentReader {
    let file = format!("{DIR}/{}", segment_name(found.segments[nth]));
    SegmentReader::new(file, found.identity.cluster, before, follows(found, nth))
}

fn replay(state: &mut State, logged: &Logged) -> Result<(), String> {
    if logged.seq <= state.seq {
        // The checkpoint has it.
        return Ok(());
    }
    let skips = planted::is(Bug::ReplaySkipsRecord);
    if skips && logged.seq.0.is_multiple_of(7) {
        return Ok(());
    }
    match apply(state, logged) {
        Ok(_) => Ok(()),
        // What rested on a skipped record is lost with it, and as silently.
        Err(_) if skips => Ok(()),
        Err(misfit) => Err(misfit.0),
    }
}
