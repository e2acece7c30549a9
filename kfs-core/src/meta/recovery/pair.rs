//! A start with a mirror: both copies of the log are read, one log is made of them ([`super::merge`]), and what
//! either copy lacks is planned. Nothing is written here; the plan is carried out when all is read and nothing
//! was refused ([`super::work`]).
use super::super::commit::log_file;
use super::super::mirror::Side;
use super::super::oplog::{
    DIR, Damage, Follows, Joint, Mismatch, More, NEXT, SEGMENT_HEADER_BYTES, SegmentEnd,
    SegmentHeader, SegmentReader, segment_first, segment_name,
};
use super::super::state::State;
use super::super::{Config, Io};
use super::merge::{self, Aside, Copy, Merged, Next, Place, Standing};
use super::refusals::{self, damaged};
use super::work::{self, DAMAGED, Job, REPAIR};
use super::{Found, LOST_AND_FOUND, READ_BYTES, replay};
use crate::identity::{self, Identity, Owner};
use crate::ids::{ClusterId, LogSeq, Ticket};
use crate::machine::{DirEntry, DiskDone, DiskError, DiskOp, DiskResult, Fault, FileName};
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use crate::wire::client_meta::LogMirror;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Repairs that the status tells of, at most.
const TOLD_MAX: usize = 16;

/// Memory taken for a segment before it is read, at most.
const ROOM_MAX: u64 = 128 << 20;

/// What the two copies of the log are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Two {
    /// Of the mirror; `None`: it has none that can be read, and gets one.
    pub(super) identity: Option<Identity>,
    /// Segments of each copy, with their lengths.
    files: [BTreeMap<LogSeq, u64>; 2],
    /// What was put aside earlier.
    aside: BTreeSet<FileName>,
    /// Directories that are made first.
    pub(super) make: Vec<FileName>,
    /// Files of an interrupted start.
    pub(super) leftovers: Vec<FileName>,
    /// Whether the data directory is made anew from the mirror.
    pub(super) restored: bool,
    /// Whether the mirror has missed a run of the server.
    missed: bool,
    /// What is done to the copies before anything is opened.
    pub(super) jobs: VecDeque<Job>,
    /// What the status says of it.
    pub(super) told: LogMirror,
}

impl Two {
    /// Whether this copy has this segment.
    pub(super) fn has(&self, side: Side, first: LogSeq) -> bool {
        self.files[side as usize].contains_key(&first)
    }
    /// Takes note of what stands in the log's directory of a copy.
    pub(super) fn listed(&mut self, side: Side, entries: Vec<DirEntry>) {
        for entry in entries {
            let file = log_file(side, &entry.name);
            match segment_first(&entry.name) {
                Some(first) if entry.is_file => {
                    self.files[side as usize].insert(first, entry.len);
                }
                _ if entry.name.ends_with(REPAIR) => self.leftovers.push(file),
                // The log's own is taken note of by who reads a log without a mirror.
                _ if entry.name == NEXT && side == Side::Mirror => self.leftovers.push(file),
                _ if entry.name.ends_with(DAMAGED) => {
                    self.aside.insert(file);
                }
                _ => {}
            }
        }
    }
    /// Takes note of the root of the mirror. Whether it has an identity file.
    pub(super) fn rooted(&mut self, result: DiskResult) -> Result<bool, Fault> {
        let entries = match result {
            Ok(DiskDone::Entries(entries)) => entries,
            Ok(_) => panic!("a listing gives entries"),
            Err(DiskError::NotFound) => {
                self.make.push(Side::Mirror.file(""));
                self.make.push(Side::Mirror.file(DIR));
                return Ok(false);
            }
            Err(error) => return Err(refusals::unreadable("the log mirror", &error)),
        };
        let is = |name: &str| entries.iter().any(|entry| entry.name == name);
        if is(identity::NAME_NEW) {
            self.leftovers.push(Side::Mirror.file(identity::NAME_NEW));
        }
        if !is(DIR) {
            self.make.push(Side::Mirror.file(DIR));
        }
        if is(identity::NAME) {
            return Ok(true);
        }
        let ours = [identity::NAME_NEW, LOST_AND_FOUND, DIR];
        match entries.iter().find(|entry| !ours.contains(&&*entry.name)) {
            Some(strange) => Err(refusals::strange_mirror(&strange.name)),
            None => Ok(false),
        }
    }
    /// Takes the identity file of the mirror, which must be one of a mirror of this cluster.
    pub(super) fn identified(
        &mut self,
        config: &Config,
        cluster: Option<ClusterId>,
        result: DiskResult,
    ) -> Result<(), Fault> {
        let decoded = match &result {
            Ok(DiskDone::Data(bytes)) => Identity::decode(bytes).map_err(|error| error.to_string()),
            Ok(_) => panic!("a read gives data"),
            Err(error) => Err(error.to_string()),
        };
        match decoded {
            Ok(identity) if identity.owner != Owner::Mirror => Err(refusals::not_a_mirror()),
            Ok(identity) => {
                let due = cluster.or(config.cluster);
                if due.is_some_and(|due| due != identity.cluster) {
                    return Err(refusals::foreign_mirror(identity.cluster, due));
                }
                self.identity = Some(identity);
                Ok(())
            }
            Err(why) => {
                tracing::warn!(
                    why,
                    "the identity file of the log mirror cannot be used: whose it is, its segments say"
                );
                self.tell(format!("mirror/{}: {why}", identity::NAME));
                Ok(())
            }
        }
    }
    /// Whose data directory this is, if that is empty and the mirror says it.
    pub(super) fn restores(&mut self, config: &Config) -> Result<Option<Identity>, Fault> {
        let Some(mirror) = &self.identity else {
            return match self.files[Side::Mirror as usize].first_key_value() {
                Some((first, _)) => Err(refusals::mirror_without_identity(*first)),
                None => Ok(None),
            };
        };
        if let Some(cluster) = config.cluster {
            return Err(refusals::empty(cluster));
        }
        let first = self.files[Side::Mirror as usize].keys().next();
        if let Some(first) = first.filter(|first| **first > LogSeq(1)) {
            return Err(refusals::mirror_needs_checkpoint(*first));
        }
        tracing::warn!(
            cluster = %mirror.cluster,
            "the data directory is empty: it is made anew from the log mirror"
        );
        self.restored = true;
        Ok(Some(Identity {
            owner: Owner::Meta,
            ..mirror.clone()
        }))
    }
    /// Both identities are known: how they stand to one another.
    pub(super) fn compare(&mut self, identity: &mut Identity) {
        let mirror = self.identity.as_ref();
        self.missed = mirror.is_none_or(|mirror| mirror.boot < identity.boot);
        if let Some(mirror) = mirror {
            identity.boot = identity.boot.max(mirror.boot);
            identity.seen = identity.seen.max(mirror.seen);
        }
    }
    /// All segments, of whichever copy.
    pub(super) fn segments(&self) -> Vec<LogSeq> {
        let all: BTreeSet<LogSeq> = self
            .files
            .iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        all.into_iter().collect()
    }
    fn tell(&mut self, what: String) {
        probe::hit(Probe::LogRepaired);
        if self.told.repaired.len() < TOLD_MAX {
            self.told.repaired.push(what);
        }
    }
    /// Keeps the file of a segment beside the one that takes its place.
    fn keep(&mut self, side: Side, first: LogSeq) {
        let file = log_file(side, &segment_name(first));
        let to = FileName::new(&format!("{file}{DAMAGED}"));
        if self.aside.remove(&to) {
            self.jobs
                .push_back(DiskOp::Remove { file: to.clone() }.into());
        }
        let len = self.files[side as usize][&first];
        self.jobs.extend(work::keep(&file, &to, len));
    }
    /// What a copy of a segment is, and what follows from it: whether it is written anew.
    fn found(&mut self, side: Side, first: LogSeq, standing: &Standing) -> bool {
        let name = log_file(side, &segment_name(first));
        match standing {
            Standing::Same => false,
            Standing::Missing => {
                tracing::info!(%name, "a copy of the log lacks a segment: it is copied from the other");
                self.told.caught_up += 1;
                true
            }
            Standing::Behind => {
                tracing::info!(%name, "a copy of the log is behind: it is brought up to date");
                self.told.caught_up += 1;
                true
            }
            Standing::Damaged(damage, aside) => {
                tracing::error!(%damage, "a copy of the log is damaged: it is repaired from the other");
                self.tell(damage.to_string());
                if *aside == Aside::Kept {
                    self.keep(side, first);
                }
                true
            }
            Standing::Beyond(damage) => {
                tracing::warn!(%damage, "the log mirror ends with what the log has gone on without: it is put aside");
                self.told.caught_up += 1;
                self.keep(side, first);
                true
            }
        }
    }
}

/// Two copies of the log, while they are being read.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    found: Found,
    state: State,
    /// The segments that are read, oldest first, and those before them.
    all: Vec<LogSeq>,
    /// Which of them is being read.
    nth: usize,
    /// Pages of headers still to be read, before all else: they say where each segment ends.
    heads: VecDeque<(Side, LogSeq)>,
    chains: BTreeMap<LogSeq, u64>,
    side: Side,
    offset: u64,
    /// Up to here it is read page by page: some page before cannot be read.
    pages_to: u64,
    unread: Option<String>,
    copies: [Option<Copy>; 2],
    before: Option<SegmentEnd>,
}

/// Whether all is read.
pub(super) enum Paired {
    Going(Box<Pair>, Ticket),
    Read(Box<Whole>),
}

/// The log that was made of both copies.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) found: Found,
    pub(super) state: State,
    pub(super) end: SegmentEnd,
    /// The last segment, as it is to be.
    pub(super) tail: Vec<Bytes>,
    /// What is behind its last batch in one of the copies.
    pub(super) torn: Option<Damage>,
}

impl Pair {
    /// Begins to read both copies, from the segment on that holds the record behind the state; or from an older one
    /// that a copy lacks.
    pub(super) fn begin(io: &mut Io, mut found: Found, state: State, nth: usize) -> Paired {
        let two = found.two.as_mut().expect("there is a mirror");
        let all = two.segments();
        // With two checkpoints nothing before the older one is needed.
        let older = found.checkpoints.iter().rev().nth(1);
        let needed = older.and_then(|older| all.iter().rposition(|first| *first <= older.next()));
        let needed = needed.unwrap_or(0);
        for first in &all[..needed] {
            if !two.has(Side::Primary, *first) {
                let file = log_file(Side::Mirror, &segment_name(*first));
                two.jobs.push_back(DiskOp::Remove { file }.into());
            }
        }
        let lacks = |first: &LogSeq| Side::BOTH.iter().any(|side| !two.has(*side, *first));
        let from = (needed..nth).find(|at| lacks(&all[*at])).unwrap_or(nth);
        let heads = all[from..].iter().flat_map(|first| {
            let sides = Side::BOTH.into_iter().filter(|side| two.has(*side, *first));
            sides.map(|side| (side, *first))
        });
        let heads: VecDeque<(Side, LogSeq)> = heads.collect();
        let pair = Self {
            state,
            nth: from,
            heads,
            chains: BTreeMap::new(),
            side: Side::Primary,
            offset: 0,
            pages_to: 0,
            unread: None,
            copies: [None, None],
            before: None,
            all,
            found,
        };
        Box::new(pair).read(io)
    }

    fn two(&mut self) -> &mut Two {
        self.found.two.as_mut().expect("there is a mirror")
    }

    /// Asks for what is to be read next.
    fn read(mut self: Box<Self>, io: &mut Io) -> Paired {
        let op = match self.heads.front() {
            Some((side, first)) => DiskOp::Read {
                file: log_file(*side, &segment_name(*first)),
                offset: 0,
                len: SEGMENT_HEADER_BYTES,
            },
            None => {
                let (first, side) = (self.all[self.nth], self.side);
                if !self.two().has(side, first) {
                    self.side = side.other();
                }
                DiskOp::Read {
                    file: log_file(self.side, &segment_name(first)),
                    offset: self.offset,
                    len: self.len(),
                }
            }
        };
        let ticket = io.outbox.disk(op);
        Paired::Going(self, ticket)
    }

    /// How much of a segment is read at once.
    const fn len(&self) -> usize {
        if self.offset < self.pages_to {
            SEGMENT_HEADER_BYTES
        } else {
            READ_BYTES
        }
    }

    /// Takes what was read.
    pub(super) fn completed(
        mut self: Box<Self>,
        io: &mut Io,
        result: DiskResult,
    ) -> Result<Paired, Fault> {
        let result = result.map(|done| match done {
            DiskDone::Data(bytes) => bytes,
            DiskDone::Done | DiskDone::Entries(_) | DiskDone::Space { .. } => {
                panic!("a read gives data")
            }
        });
        if let Some((side, first)) = self.heads.pop_front() {
            self.head(side, first, result.as_deref().unwrap_or_default())?;
            return Ok(self.read(io));
        }
        let first = self.all[self.nth];
        let side = self.side;
        let len = self.two().files[side as usize][&first];
        let most = self.len();
        let bytes = match result {
            Ok(bytes) => bytes,
            // The rest of it may be readable, and the other copy may have what is not.
            Err(_) if most > SEGMENT_HEADER_BYTES => {
                self.pages_to = self.offset + READ_BYTES as u64;
                return Ok(self.read(io));
            }
            Err(error) => {
                let rest = usize::try_from(len.saturating_sub(self.offset)).unwrap_or(most);
                self.unread = Some(format!("what cannot be read: {error}"));
                Bytes::from(vec![0; rest.min(most)])
            }
        };
        self.offset += bytes.len() as u64;
        let ended = bytes.len() < most;
        let copy = self.copies[self.side as usize].get_or_insert_with(|| Copy {
            file: log_file(self.side, &segment_name(first)).to_string(),
            bytes: Vec::with_capacity(usize::try_from(len.min(ROOM_MAX)).unwrap_or_default()),
            header: Err(Mismatch::new("", "")),
            goes_on: false,
        });
        copy.bytes.extend_from_slice(&bytes);
        if !ended {
            return Ok(self.read(io));
        }
        copy.header = header(&copy.bytes, self.unread.take());
        (self.offset, self.pages_to) = (0, 0);
        if self.side == Side::Primary && self.two().has(Side::Mirror, first) {
            self.side = Side::Mirror;
            return Ok(self.read(io));
        }
        self.side = Side::Primary;
        self.merged(io)
    }

    /// Takes the first page of a segment: where it joins on, and that it is of this cluster.
    fn head(&mut self, side: Side, first: LogSeq, bytes: &[u8]) -> Result<(), Fault> {
        let Ok(header) = header(bytes, None) else {
            return Ok(());
        };
        let cluster = self.found.identity.cluster;
        if header.cluster != cluster {
            return Err(match side {
                Side::Mirror => refusals::foreign_mirror(header.cluster, Some(cluster)),
                Side::Primary => damaged(Damage {
                    file: log_file(side, &segment_name(first)).to_string(),
                    offset: 0,
                    mismatch: Mismatch::new(
                        format!("a segment of cluster {cluster}"),
                        format!("one of cluster {}", header.cluster),
                    ),
                }),
            });
        }
        if header.first == first {
            // The log's own word counts, where it has one: it is asked first.
            self.chains.entry(first).or_insert(header.chain);
        }
        Ok(())
    }

    /// Both copies of a segment are read.
    fn merged(mut self: Box<Self>, io: &mut Io) -> Result<Paired, Fault> {
        let (nth, first) = (self.nth, self.all[self.nth]);
        let next = self.all.get(nth + 1).map(|next| Next {
            first: *next,
            chain: self.chains.get(next).copied(),
        });
        let start = (first == LogSeq(1)).then_some(Joint::START.chain);
        let chain = self.before.as_ref().map(|end| end.joint.chain).or(start);
        let mut copies = core::mem::take(&mut self.copies);
        let later = |side: Side, two: &Two| {
            two.files[side as usize]
                .range(first.next()..)
                .next()
                .is_some()
        };
        for side in Side::BOTH {
            let goes_on = later(side, self.two());
            if let Some(copy) = &mut copies[side as usize] {
                copy.goes_on = goes_on;
            }
        }
        let place = Place {
            first,
            chain,
            next,
            mirror_missed: self.two().missed,
        };
        let merged = merge::merge(place, copies).map_err(refusals::conflict)?;
        let follows = if next.is_some() {
            Follows::Segment
        } else {
            Follows::Nothing
        };
        let file = log_file(Side::Primary, &segment_name(first)).to_string();
        let cluster = self.found.identity.cluster;
        let mut reader = match self.before.take() {
            None if first > LogSeq(1) && self.state.seq > LogSeq(0) => {
                SegmentReader::behind_checkpoint(file, cluster, first, follows)
            }
            before => SegmentReader::new(file, cluster, before, follows),
        };
        let state = &mut self.state;
        let end = reader
            .feed(&merged.bytes, More::Ends, &mut |logged| {
                replay(state, &logged)
            })
            .map_err(damaged)?
            .expect("a segment that has ended was read to its end");
        let Some(next) = next else {
            return Ok(self.ended(first, merged, end));
        };
        assert!(
            end.joint.seq == next.first,
            "a segment ends where the next one begins"
        );
        for side in Side::BOTH {
            let two = self.found.two.as_mut().expect("there is a mirror");
            let anew = two.found(side, first, &merged.standing[side as usize]);
            // What a copy ends with may be in the page cache only, as in a log without a mirror.
            let was_last = two.files[side as usize].keys().next_back() == Some(&first);
            let left = side == Side::Mirror && planted::is(Bug::MirrorLeftDamaged);
            if (anew || was_last) && !left {
                let jobs = work::replace(side, first, &merged.parts, &merged.bytes);
                two.jobs.extend(jobs);
            }
        }
        if nth > 0 {
            probe::hit(Probe::SegmentsJoined);
        }
        self.before = Some(end);
        self.nth += 1;
        Ok(self.read(io))
    }

    /// The last segment is read. It is written anew in both copies, whatever they have of it.
    fn ended(mut self: Box<Self>, first: LogSeq, merged: Merged, end: SegmentEnd) -> Paired {
        if end.batches > 0 {
            for side in Side::BOTH {
                self.two()
                    .found(side, first, &merged.standing[side as usize]);
            }
        }
        if self.two().told.caught_up > 0 {
            probe::hit(Probe::MirrorBehind);
        }
        let whole = Bytes::from(merged.bytes);
        let tail = (0..whole.len()).step_by(READ_BYTES);
        let tail = tail.map(|at| whole.slice(at..whole.len().min(at + READ_BYTES)));
        let tail = tail.collect();
        self.found.segments = self.all;
        Paired::Read(Box::new(Whole {
            found: self.found,
            state: self.state,
            end,
            tail,
            torn: merged.torn,
        }))
    }
}

/// The header in the first page of a segment.
fn header(bytes: &[u8], unread: Option<String>) -> Result<SegmentHeader, Mismatch> {
    let wrong = |found: String| Mismatch::new("a segment's header", found);
    match bytes.first_chunk() {
        Some(page) => SegmentHeader::decode(page).map_err(|mismatch| match unread {
            Some(why) => wrong(why),
            None => mismatch,
        }),
        None => Err(wrong(unread.unwrap_or_else(|| {
            format!("the end of the file after {} bytes", bytes.len())
        }))),
    }
}
