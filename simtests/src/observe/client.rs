//! Turns the calls, events and replies that pass a client into operations for the oracles.
//!
//! An event that a client outputs on a reply rests on that reply's `LogSeq`. The client does not know that it is
//! observed, and the observer never asks it for anything.
use super::record::{Record, Replicas};
use crate::model::Change;
use crate::oracle::contents::{CutId, Last, Tenure};
use crate::oracle::order::{Asked, Outcome};
use crate::oracle::replicas::Located;
use crate::oracle::{Tick, Violation};
use kfs_core::client::{Call, Event, Handle};
use kfs_core::ids::{CallId, FileId, LinkId, LogSeq, RequestNumber};
use kfs_core::machine::{Input, Output};
use kfs_core::wire::client_meta::{
    Answer, ChunkPlaces, Done, Keep, Kind, Mutate, MutateOp, Mutated, QueryOp, UsageRow,
};
use kfs_core::wire::{Head, Msg, Status};
use std::collections::BTreeMap;

/// Turns what a client does into operations for the oracles.
#[derive(Clone, Debug)]
pub struct ClientObserver {
    client: u32,
    calls: BTreeMap<CallId, Called>,
    handles: BTreeMap<Handle, (FileId, Tenure)>,
    locates: BTreeMap<(LinkId, u64), FileId>,
    /// Scans of what trees take that have more pages, and their operations.
    scans: BTreeMap<u64, usize>,
    /// Sizes that it knows of files that it writes: those that it was told, and has reported.
    sizes: BTreeMap<FileId, u64>,
    /// Sizes that it has reported, and that are not answered.
    reports: BTreeMap<(LinkId, u64), (FileId, u64)>,
    /// Who it is among those that write a file, where it has asked for another length.
    setting: BTreeMap<FileId, Tenure>,
    /// The last cut of each file that it has asked the meta server for, and the request.
    cuts: BTreeMap<FileId, (RequestNumber, Tenure, CutId)>,
    /// Cuts that are not answered.
    cutting: BTreeMap<(LinkId, u64), FileId>,
    /// Of the reply that is being handled.
    seq: Option<LogSeq>,
    made: Option<FileId>,
}

/// A call that was not answered yet.
#[derive(Clone, Copy, Debug)]
enum Called {
    Name(usize),
    Create(usize),
    Stat(usize, Tick),
    Open(usize, Tick),
    Write,
    Append(usize),
    Truncate(usize),
    Sync((FileId, Tenure), Tick, Last),
    SetLen(FileId),
    Read,
    /// The first page of what a tree takes, or a later one.
    Usage(usize),
    Other,
}

impl ClientObserver {
    /// Of the client of this number.
    #[must_use]
    pub fn new(client: u32) -> Self {
        Self {
            client,
            calls: BTreeMap::new(),
            handles: BTreeMap::new(),
            locates: BTreeMap::new(),
            scans: BTreeMap::new(),
            sizes: BTreeMap::new(),
            reports: BTreeMap::new(),
            setting: BTreeMap::new(),
            cuts: BTreeMap::new(),
            cutting: BTreeMap::new(),
            seq: None,
            made: None,
        }
    }

    fn called(&mut self, record: &mut Record, call: &Call) -> Called {
        let client = self.client;
        let mut change = |change| Called::Name(record.called(client, Asked::Change(change)));
        match call {
            Call::Mkdir { at, parents, .. } => change(Change::Mkdir {
                path: at.path.clone(),
                parents: *parents,
            }),
            Call::Rename { from, to, mode } => change(Change::Rename {
                from: from.path.clone(),
                to: to.path.clone(),
                mode: *mode,
            }),
            Call::Remove(at) => change(Change::Remove {
                path: at.path.clone(),
            }),
            Call::Rmdir(at) => change(Change::Rmdir {
                path: at.path.clone(),
            }),
            Call::RemoveTree(at) => change(Change::RemoveTree {
                path: at.path.clone(),
            }),
            Call::SetAttributes { at, to } => change(Change::SetAttributes {
                path: at.path.clone(),
                to: *to,
            }),
            Call::Create { at, keep, .. } => {
                let change = Change::Create {
                    path: at.path.clone(),
                    held_by: (*keep == Keep::UntilSessionEnds).then_some(client),
                };
                Called::Create(record.called(client, Asked::Change(change)))
            }
            Call::Stat(at) => {
                let operation = record.called(client, Asked::Stat(at.path.clone()));
                Called::Stat(operation, record.tick())
            }
            Call::Open(at) => {
                let operation = record.called(client, Asked::Stat(at.path.clone()));
                Called::Open(operation, record.tick())
            }
            // What it says of the path, if it refuses that, is what it would say of it to who looks.
            Call::Append(at) => Called::Append(record.called(client, Asked::Stat(at.path.clone()))),
            Call::Truncate { at, .. } => {
                Called::Truncate(record.called(client, Asked::Stat(at.path.clone())))
            }
            Call::SetLen { handle, .. } => match self.handles.get(handle) {
                Some((file, tenure)) => {
                    self.setting.insert(*file, *tenure);
                    Called::SetLen(*file)
                }
                None => Called::Other,
            },
            Call::List { at, after } => {
                let asked = Asked::List(at.path.clone(), after.clone());
                Called::Name(record.called(client, asked))
            }
            Call::Write {
                handle,
                offset,
                data,
            } => {
                if let Some(file) = self.handles.get(handle) {
                    let tick = record.tick();
                    record
                        .contents
                        .write_called(*file, tick, *offset, data.clone());
                }
                Called::Write
            }
            Call::Sync(handle) | Call::Close(handle) => match self.handles.get(handle) {
                Some(file) => {
                    let last = if matches!(call, Call::Close(_)) {
                        Last::Closed
                    } else {
                        Last::Synced
                    };
                    Called::Sync(*file, record.tick(), last)
                }
                None => Called::Other,
            },
            Call::Read { .. } => Called::Read,
            Call::Usage { at, .. } => {
                Called::Usage(record.called(client, Asked::Usage(at.path.clone())))
            }
            Call::UsageNext { scan } => match self.scans.remove(scan) {
                Some(operation) => Called::Usage(operation),
                None => Called::Other,
            },
            Call::Disconnect => {
                record.session_ends(client);
                Called::Other
            }
            Call::Abandon(_)
            | Call::Status
            | Call::Locate { .. }
            | Call::Checkpoint
            | Call::Drain { .. }
            | Call::SetReplication { .. }
            | Call::AcceptRollback => Called::Other,
        }
    }

    fn told(&mut self, record: &mut Record, called: Called, event: &Event) {
        let (seq, made) = (self.seq, self.made);
        if let Event::Failed(failure) = event {
            if matches!(failure.status, Status::SessionExpired | Status::Unknown) {
                record.session_ended(self.client);
            }
            if failure.status == Status::Protocol && !record.contents.log_hurt {
                let what = format!("an answer that cannot be: {}", failure.what);
                record.check::<()>(Err(Violation::new("O11", "F", what)));
            }
            if seq.is_some() {
                record.counts.refused += 1;
            } else {
                record.counts.failed += 1;
            }
            if let Called::Name(operation)
            | Called::Create(operation)
            | Called::Stat(operation, _)
            | Called::Open(operation, _) = called
            {
                record.told(operation, seq, Outcome::Failed(failure.status));
            }
            if let Called::SetLen(file) = called {
                self.setting.remove(&file);
                self.cuts.remove(&file);
            }
            if let Called::Append(operation) | Called::Truncate(operation) = called
                && matches!(failure.status, Status::NotFound | Status::NotADirectory)
            {
                record.told(operation, seq, Outcome::Failed(failure.status));
            }
            // That a scan has ended before its last page says nothing of the tree.
            if let Called::Usage(operation) = called {
                let seq = seq.filter(|_| failure.status != Status::BadRequest);
                record.told(operation, seq, Outcome::Failed(failure.status));
            }
            return;
        }
        match (called, event) {
            (Called::Name(operation), Event::Done) => {
                record.told(operation, seq, Outcome::Changed(made));
            }
            (Called::Name(operation), Event::Entries { entries, end }) => {
                record.counts.answered += 1;
                record.told(operation, seq, Outcome::Entries(entries.clone(), *end));
            }
            (Called::Create(operation), Event::Created { handle, file, .. }) => {
                self.handles.insert(*handle, (*file, 0));
                self.sizes.insert(*file, 0);
                record.contents.created(*file);
                record.told(operation, seq, Outcome::Changed(Some(*file)));
            }
            (
                Called::Append(_),
                Event::Appending {
                    handle, file, end, ..
                },
            ) => {
                let now = record.tick();
                match record.contents.appending(*file, *end, now) {
                    Ok(tenure) => {
                        self.handles.insert(*handle, (*file, tenure));
                    }
                    Err(violation) => record.check::<()>(Err(violation)),
                }
                record.counts.answered += 1;
            }
            (Called::Truncate(_), Event::Appending { handle, file, .. }) => {
                if let Some((_, tenure, cut)) = self.cuts.remove(file) {
                    record.cut(*file, cut);
                    self.handles.insert(*handle, (*file, tenure));
                }
            }
            (Called::SetLen(file), Event::Done) => {
                self.setting.remove(&file);
                if let Some((_, _, cut)) = self.cuts.remove(&file) {
                    record.cut(file, cut);
                }
            }
            (
                Called::Stat(operation, asked) | Called::Open(operation, asked),
                Event::Attrs(attrs) | Event::Opened { attrs, .. },
            ) => {
                record.counts.answered += 1;
                record.told(operation, seq, Outcome::Attrs(*attrs));
                if attrs.kind == Kind::File {
                    let told = record.tick();
                    let result = record
                        .contents
                        .check_size(attrs.file, attrs.size, asked, told);
                    record.check(result);
                }
            }
            (Called::Sync(file, called, last), Event::Done) => record.synced(file, called, last),
            (Called::Read, Event::Data { .. }) => record.counts.answered += 1,
            (Called::Usage(operation), Event::Usage(page)) if !page.end => {
                self.scans.insert(page.scan, operation);
            }
            (Called::Usage(operation), Event::Usage(page)) => {
                record.counts.answered += 1;
                if let Some(UsageRow::Leaves(all)) = page.rows.last() {
                    record.told(operation, seq, Outcome::Usage(*all));
                }
            }
            _ => {}
        }
    }

    /// It asks the meta server for something, perhaps once more.
    fn mutates(&mut self, record: &mut Record, (link, request): (LinkId, u64), asked: &Mutate) {
        match asked.op {
            MutateOp::SetSize { file, size, .. } => {
                self.reports.insert((link, request), (file, size));
            }
            MutateOp::Truncate { file, len } => {
                self.cutting.insert((link, request), file);
                let known = self.cuts.get(&file);
                if known.is_some_and(|(number, ..)| *number == asked.number) {
                    return;
                }
                record.cut_begins(file);
                let size = self.sizes.get(&file).copied().unwrap_or(0);
                let (tenure, tick) = (self.setting.get(&file).copied(), record.tick());
                match record.contents.cuts(file, tenure, (size, len), tick) {
                    Ok((tenure, cut)) => {
                        self.cuts.insert(file, (asked.number, tenure, cut));
                    }
                    Err(violation) => record.check::<()>(Err(violation)),
                }
            }
            _ => {}
        }
    }

    /// The meta server answers that.
    fn mutated(&mut self, record: &mut Record, at: (LinkId, u64), mutated: &Mutated) {
        let report = self.reports.remove(&at);
        if let (Some((file, size)), Ok(_)) = (report, &mutated.outcome) {
            self.sizes.insert(file, size);
        }
        if let Ok(Done::Appending { file, size, .. }) = mutated.outcome {
            self.sizes.insert(file, size);
        }
        let Some(file) = self.cutting.remove(&at) else {
            return;
        };
        record.cut_ends(file, mutated.seq);
        if let Some((_, _, cut)) = self.cuts.get(&file) {
            if mutated.outcome.is_ok() {
                let len = record.contents.cut_len(file, *cut);
                self.sizes.insert(file, len);
            } else {
                record.contents.cut_refused(file, *cut);
            }
        }
    }

    fn located(&mut self, record: &mut Record, link: LinkId, msg: &Msg) {
        let Some(file) = self.locates.remove(&(link, msg.request)) else {
            return;
        };
        if let Head::Answered(answered) = &msg.head
            && record.is_uncut(file, answered.seq)
            && let Ok(Answer::Located(located)) = &answered.outcome
        {
            for chunk in &located.chunks {
                let known = Located {
                    file,
                    index: chunk.index,
                    chunk: chunk.chunk,
                    version: chunk.version,
                    log: chunk.log,
                };
                record
                    .located
                    .insert((file, chunk.index), (known, replicas(chunk)));
            }
        }
    }
}

fn replicas(chunk: &ChunkPlaces) -> Replicas {
    Replicas {
        present: chunk.replicas.len(),
        absent: usize::try_from(chunk.absent).expect("few replicas"),
    }
}

impl ClientObserver {
    /// Before the client takes this.
    pub fn input(&mut self, record: &mut Record, input: &Input<Call>) {
        self.seq = None;
        self.made = None;
        match input {
            Input::Call { id, call } => {
                let called = self.called(record, call);
                self.calls.insert(*id, called);
            }
            Input::Received { link, msg } => {
                match &msg.head {
                    Head::Mutated(mutated) => {
                        self.seq = Some(mutated.seq);
                        self.mutated(record, (*link, msg.request), mutated);
                        if let Ok(Done::Made { file, .. }) = mutated.outcome {
                            self.made = Some(file);
                        }
                    }
                    Head::Answered(answered) => self.seq = Some(answered.seq),
                    Head::SessionOpened(opened) if opened.outcome.is_err() => {
                        // Its files that last as long as the session are gone, or will be.
                        record.session_ended(self.client);
                    }
                    _ => {}
                }
                self.located(record, *link, msg);
            }
            _ => {}
        }
    }
    /// When the client outputs this.
    pub fn output(&mut self, record: &mut Record, output: &Output<Event>) {
        match output {
            Output::Event { id, event } => {
                if let Some(called) = self.calls.remove(id) {
                    self.told(record, called, event);
                }
            }
            Output::Send { link, msg } => {
                if let Head::Mutate(mutate) = &msg.head {
                    self.mutates(record, (*link, msg.request), mutate);
                }
                if let Head::Query(query) = &msg.head
                    && let QueryOp::Locate { file, .. } = query.op
                {
                    self.locates.insert((*link, msg.request), file);
                }
            }
            _ => {}
        }
    }
}
