//! Taps: machines wrapped so that all that goes in and comes out is seen, without the machine or its driver
//! knowing.
//!
//! Every event goes into the run's hash (O13). A client's tap also turns calls, events and the replies of the
//! meta server between them into operations for the oracles: an event that a client outputs on a reply rests on
//! that reply's `LogSeq`.
use super::record::{EventHash, Replicas, Shared};
use crate::model::Change;
use crate::oracle::Tick;
use crate::oracle::contents::Last;
use crate::oracle::order::{Asked, Outcome};
use crate::oracle::replicas::Located;
use kfs_core::client::{Call, Client, Event, Handle};
use kfs_core::ids::{CallId, FileId, LinkId, LogSeq};
use kfs_core::machine::{DiskDone, DiskOp, Input, Machine, Output};
use kfs_core::time::{Instant, Now};
use kfs_core::wire::client_meta::{Answer, ChunkPlaces, Done, Keep, Kind, QueryOp};
use kfs_core::wire::{Head, Msg, Status};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Sees what goes into a machine and what comes out.
pub trait Observer<M: Machine> {
    /// Before the machine does.
    fn input(&mut self, input: &Input<M::Call>);
    /// Before the driver does.
    fn output(&mut self, output: &Output<M::Event>);
}

/// A machine with an observer.
pub struct Tapped<M: Machine, O: Observer<M>> {
    machine: M,
    observer: O,
    record: Shared,
    name: String,
}

impl<M: Machine, O: Observer<M>> Tapped<M, O> {
    /// Observes this machine, under this name.
    pub fn new(machine: M, observer: O, record: Shared, name: String) -> Self {
        Self {
            machine,
            observer,
            record,
            name,
        }
    }
}

impl<M: Machine, O: Observer<M>> Machine for Tapped<M, O> {
    type Call = M::Call;
    type Event = M::Event;
    fn handle(&mut self, now: Now, input: Input<M::Call>) {
        {
            let mut record = self.record.lock();
            let hash = &mut record.hash;
            hash.bytes(self.name.as_bytes());
            hash.word(now.mono.0);
            hash_input(hash, &input);
            record.event(|| format!("{:?} {} <- {}", now.wall, self.name, shorten(&input)));
        }
        self.observer.input(&input);
        self.machine.handle(now, input);
    }
    fn poll(&mut self) -> Option<Output<M::Event>> {
        let output = self.machine.poll()?;
        {
            let mut record = self.record.lock();
            hash_output(&mut record.hash, &output);
            record.event(|| format!("    {} -> {}", self.name, shorten(&output)));
            if let Output::Send { msg, .. } = &output {
                record.sent(msg.head.name());
            }
        }
        self.observer.output(&output);
        Some(output)
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.machine.deadline()
    }
}

fn hash_debug(hash: &mut EventHash, value: &impl std::fmt::Debug) {
    write!(hash, "{value:?}").expect("a hash takes everything");
}

fn hash_msg(hash: &mut EventHash, msg: &Msg) {
    hash.word(msg.request);
    hash_debug(hash, &msg.head);
    hash.bytes(&msg.body);
}

fn hash_input<C: std::fmt::Debug>(hash: &mut EventHash, input: &Input<C>) {
    match input {
        Input::Received { link, msg } => {
            hash.word(link.0);
            hash_msg(hash, msg);
        }
        Input::Disk {
            ticket,
            result: Ok(DiskDone::Data(bytes)),
        } => {
            hash.word(ticket.0);
            hash.bytes(bytes);
        }
        other => hash_debug(hash, other),
    }
}

fn hash_output<E: std::fmt::Debug>(hash: &mut EventHash, output: &Output<E>) {
    match output {
        Output::Send { link, msg } => {
            hash.word(link.0);
            hash_msg(hash, msg);
        }
        Output::Disk {
            ticket,
            op: DiskOp::Write {
                file, offset, data, ..
            },
        } => {
            hash.word(ticket.0);
            hash.bytes(file.as_str().as_bytes());
            hash.word(*offset);
            for part in data {
                hash.bytes(part);
            }
        }
        other => hash_debug(hash, other),
    }
}

/// One line of a trace.
fn shorten(value: &impl std::fmt::Debug) -> String {
    const MOST: usize = 600;
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(MOST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Says when a server is ready.
pub struct ServerObserver {
    record: Shared,
    server: usize,
}

impl ServerObserver {
    /// Of the server of this number.
    #[must_use]
    pub fn new(record: Shared, server: usize) -> Self {
        Self { record, server }
    }
    fn ready(&self) {
        let mut record = self.record.lock();
        record.ready.insert(self.server);
        record.ready_bell.notify_one();
    }
}

impl Observer<kfs_core::meta::Meta> for ServerObserver {
    fn input(&mut self, _input: &Input<kfs_core::meta::Call>) {}
    fn output(&mut self, output: &Output<kfs_core::meta::Event>) {
        if let Output::Event {
            event: kfs_core::meta::Event::Ready { .. },
            ..
        } = output
        {
            self.ready();
        }
    }
}
impl Observer<kfs_core::chunk::Chunk> for ServerObserver {
    fn input(&mut self, _input: &Input<kfs_core::chunk::Call>) {}
    fn output(&mut self, output: &Output<kfs_core::chunk::Event>) {
        if let Output::Event {
            event: kfs_core::chunk::Event::Ready { .. },
            ..
        } = output
        {
            self.ready();
        }
    }
}

/// Turns what a client does into operations for the oracles.
pub struct ClientObserver {
    record: Shared,
    client: u32,
    calls: BTreeMap<CallId, Called>,
    handles: BTreeMap<Handle, FileId>,
    locates: BTreeMap<(LinkId, u64), FileId>,
    /// Of the reply that is being handled.
    seq: Option<LogSeq>,
    made: Option<FileId>,
}

/// A call that was not answered yet.
enum Called {
    Name(usize),
    Create(usize),
    Stat(usize, Tick),
    Open(usize, Tick),
    Write,
    Sync(FileId, Tick, Last),
    Read,
    Other,
}

impl ClientObserver {
    /// Of the client of this number.
    #[must_use]
    pub fn new(record: Shared, client: u32) -> Self {
        Self {
            record,
            client,
            calls: BTreeMap::new(),
            handles: BTreeMap::new(),
            locates: BTreeMap::new(),
            seq: None,
            made: None,
        }
    }

    fn called(&mut self, call: &Call) -> Called {
        let mut record = self.record.lock();
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
            Call::Disconnect => {
                record.session_ends(client);
                Called::Other
            }
            Call::Abandon(_) | Call::Status => Called::Other,
        }
    }

    fn told(&mut self, called: Called, event: &Event) {
        let (seq, made) = (self.seq, self.made);
        let mut record = self.record.lock();
        if let Event::Failed(failure) = event {
            if matches!(failure.status, Status::SessionExpired | Status::Unknown) {
                record.session_ended(self.client);
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
                self.handles.insert(*handle, *file);
                record.contents.created(*file);
                record.told(operation, seq, Outcome::Changed(Some(*file)));
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
            _ => {}
        }
    }

    fn located(&mut self, link: LinkId, msg: &Msg) {
        let Some(file) = self.locates.remove(&(link, msg.request)) else {
            return;
        };
        if let Head::Answered(answered) = &msg.head
            && let Ok(Answer::Located(located)) = &answered.outcome
        {
            let mut record = self.record.lock();
            for chunk in &located.chunks {
                let known = Located {
                    file,
                    index: chunk.index,
                    chunk: chunk.chunk,
                    version: chunk.version,
                    log_len: chunk.log_len,
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

impl Observer<Client> for ClientObserver {
    fn input(&mut self, input: &Input<Call>) {
        self.seq = None;
        self.made = None;
        match input {
            Input::Call { id, call } => {
                let called = self.called(call);
                self.calls.insert(*id, called);
            }
            Input::Received { link, msg } => {
                match &msg.head {
                    Head::Mutated(mutated) => {
                        self.seq = Some(mutated.seq);
                        if let Ok(Done::Made { file, .. }) = mutated.outcome {
                            self.made = Some(file);
                        }
                    }
                    Head::Answered(answered) => self.seq = Some(answered.seq),
                    Head::SessionOpened(opened) if opened.outcome.is_err() => {
                        // Its files that last as long as the session are gone, or will be.
                        self.record.lock().session_ended(self.client);
                    }
                    _ => {}
                }
                self.located(*link, msg);
            }
            _ => {}
        }
    }
    fn output(&mut self, output: &Output<Event>) {
        match output {
            Output::Event { id, event } => {
                if let Some(called) = self.calls.remove(id) {
                    self.told(called, event);
                }
            }
            Output::Send { link, msg } => {
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
