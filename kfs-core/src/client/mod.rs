//! The client: paths, sessions and retries towards the meta server, pieces and reads towards chunkservers.
//!
//! One file per concern: `meta_on_client` (the link and session to the meta server), `links` (to the
//! chunkservers), `locate` and `read`, and for writing `cut`, `open_chunk` and `write`. This file is what
//! they are called by: calls in, events out, and who gets which answer.
mod append;
mod call;
mod cut;
mod links;
mod locate;
mod meta_on_client;
mod open_chunk;
mod read;
mod requests;
mod write;

pub use self::call::{Call, Event, Failure, Handle};
use self::links::{Links, Lost};
use self::locate::{Page, Places};
use self::meta_on_client::{Ask, MetaOnClient, News, Reply};
use self::read::Reads;
pub use self::write::{FILE_BYTES_MAX, PIECE_COST};
use self::write::{Fate, Identity, Says, Writer};
use crate::buggify::{self, Site};
use crate::ids::{CallId, ChunkId, FileId, LinkId, PieceNumber};
use crate::limits::{
    FRAME_BODY_MAX, Geometry, HEADER_BLOCKS, LIST_PAGE_MAX, LOCATE_PAGE_MAX, Limits,
};
use crate::machine::{Input, Machine, Output};
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::wire::client_chunk::{PieceDone, RangeRead, SyncDone};
use crate::wire::client_meta::{Answer, At, Done, Kind, MutateOp, QueryOp};
use crate::wire::{Head, Msg, Refusal, Status};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// One read gives at most so many bytes.
pub const READ_BYTES_MAX: usize = 1 << 30;
/// The session's end is waited for so long; then the meta server finds out by its silence.
const FAREWELL: Duration = Duration::from_secs(2);
/// The first wait before a try is repeated; it doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// No wait is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How a client is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// For back-off, the choice of replicas, and the session's nonce.
    pub seed: u64,
    /// Bounds of windows.
    pub limits: Limits,
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// How long a call may take in all, with its retries.
    pub timeout: Duration,
}

/// What a client holds in memory, to be compared with its [`Limits`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    /// Files open for writing: what no sync covers yet as it weighs against the window, and chunks known.
    pub writers: Vec<Window>,
    /// Per link to a chunkserver: bytes on their way out.
    pub links: Vec<usize>,
}

/// What one open file holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Window {
    /// Bytes that no sync covers, and [`PIECE_COST`] for each of their pieces.
    pub held: usize,
    /// Chunks that it has.
    pub chunks: usize,
}

/// The client.
#[derive(Clone, Debug)]
pub struct Client {
    reach: Reach,
    reads: Reads,
    writers: BTreeMap<Handle, Writer>,
    /// Those of them that have something under way.
    busy: BTreeSet<Handle>,
    /// Files whose last chunk is being taken over: nobody has their handles yet.
    opening: BTreeMap<Handle, Writer>,
    next_handle: u64,
    life: Life,
}

/// How far the client has come with going away.
#[derive(Clone, Copy, Debug)]
enum Life {
    Serving,
    /// The session is being ended for this call.
    Ending(CallId),
    Ended,
}

/// What reaches out of the client: its outputs, its chance, the meta server and the chunkservers.
#[derive(Clone, Debug)]
struct Reach {
    limits: Limits,
    timeout: Duration,
    outbox: Outbox<Event>,
    rng: Rng,
    meta: MetaOnClient,
    links: Links<Errand>,
}

/// Who asked the meta server.
#[derive(Clone, Debug)]
enum Asker {
    Stat(CallId),
    List(CallId),
    Change(CallId),
    Status(CallId),
    Checkpoint(CallId),
    Usage(CallId),
    Places(CallId),
    Open {
        id: CallId,
        name: String,
    },
    Create {
        id: CallId,
        name: String,
    },
    Append {
        id: CallId,
        name: String,
        /// If it is to have another length first.
        len: Option<u64>,
    },
    TakeOver {
        id: CallId,
        handle: Handle,
        index: u64,
    },
    Locate {
        handle: Handle,
        page: Page,
    },
    Allocate {
        handle: Handle,
        index: u64,
    },
    SetSize {
        handle: Handle,
    },
    Truncate {
        handle: Handle,
    },
    /// The chunk in which a file was cut.
    TakeCut {
        handle: Handle,
        index: u64,
    },
    /// See [`MetaOnClient::stop_writing`].
    LetGo(FileId),
    Disconnect,
    Nobody,
}

/// What a chunkserver was asked.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Range {
        read: u64,
        piece: usize,
    },
    Piece {
        handle: Handle,
        index: u64,
        number: PieceNumber,
    },
    Sync {
        handle: Handle,
        index: u64,
    },
}

impl Client {
    /// A client that has not connected; it dials when it is asked for something.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut rng = Rng::new(config.seed);
        let meta = MetaOnClient::new(config.meta, config.timeout, &mut rng);
        Self {
            reach: Reach {
                limits: config.limits,
                timeout: config.timeout,
                outbox: Outbox::default(),
                rng,
                meta,
                links: Links::new(config.limits.link_unsent_bytes),
            },
            reads: Reads::new(),
            writers: BTreeMap::new(),
            busy: BTreeSet::new(),
            opening: BTreeMap::new(),
            next_handle: 1,
            life: Life::Serving,
        }
    }

    /// What it holds in memory.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let window = |(held, chunks)| Window { held, chunks };
        Bounds {
            writers: self
                .writers
                .values()
                .map(Writer::held)
                .map(window)
                .collect(),
            links: self.reach.links.loads().map(|(unsent, _)| unsent).collect(),
        }
    }

    fn call(&mut self, now: Instant, id: CallId, call: Call) {
        if !matches!(self.life, Life::Serving) {
            return self
                .reach
                .fail(id, Status::BadRequest, "the client has disconnected");
        }
        if let Err(refusal) = call.check_names() {
            return self.reach.fail(id, refusal.status, &refusal.detail);
        }
        let meta = &mut self.reach.meta;
        match call {
            Call::Stat(at) => meta.ask(now, Asker::Stat(id), Ask::Query(QueryOp::Stat { at })),
            Call::List { at, after } => {
                let limit = u32::try_from(LIST_PAGE_MAX).expect("a page is small");
                meta.ask(
                    now,
                    Asker::List(id),
                    Ask::Query(QueryOp::List { at, after, limit }),
                );
            }
            Call::Status => meta.ask(now, Asker::Status(id), Ask::Query(QueryOp::Status)),
            Call::Checkpoint => {
                meta.ask(now, Asker::Checkpoint(id), Ask::Query(QueryOp::Checkpoint))
            }
            Call::Usage { at, depth } => {
                let op = QueryOp::Usage { at, depth };
                meta.ask(now, Asker::Usage(id), Ask::Query(op));
            }
            Call::Locate { file, first } => {
                let count = u32::try_from(LOCATE_PAGE_MAX).expect("a page is small");
                let op = QueryOp::Locate { file, first, count };
                meta.ask(now, Asker::Places(id), Ask::Query(op));
            }
            Call::UsageNext { scan } => {
                let op = QueryOp::UsageNext { scan };
                meta.ask(now, Asker::Usage(id), Ask::Query(op));
            }
            Call::AcceptRollback => meta.ask(
                now,
                Asker::Change(id),
                Ask::Mutate(MutateOp::AcceptRollback),
            ),
            Call::SetReplication { at, replication } => meta.ask(
                now,
                Asker::Change(id),
                Ask::Mutate(MutateOp::SetReplication { at, replication }),
            ),
            Call::SetAttributes { at, to } => meta.ask(
                now,
                Asker::Change(id),
                Ask::Mutate(MutateOp::SetAttributes { at, to }),
            ),
            Call::Drain { node, drain } => meta.ask(
                now,
                Asker::Change(id),
                Ask::Mutate(MutateOp::Drain { node, drain }),
            ),
            Call::Mkdir { at, parents, owner } => {
                meta.ask(
                    now,
                    Asker::Change(id),
                    Ask::Mutate(MutateOp::Mkdir { at, parents, owner }),
                );
            }
            Call::Rename { from, to, mode } => {
                meta.ask(
                    now,
                    Asker::Change(id),
                    Ask::Mutate(MutateOp::Rename { from, to, mode }),
                );
            }
            Call::Remove(at) => {
                meta.ask(now, Asker::Change(id), Ask::Mutate(MutateOp::Remove { at }))
            }
            Call::RemoveTree(at) => meta.ask(
                now,
                Asker::Change(id),
                Ask::Mutate(MutateOp::RemoveTree { at }),
            ),
            Call::Rmdir(at) => {
                meta.ask(now, Asker::Change(id), Ask::Mutate(MutateOp::Rmdir { at }))
            }
            Call::Create {
                at,
                owner,
                replication,
                keep,
            } => {
                let name = name_of(&at);
                let op = MutateOp::Create {
                    at,
                    owner,
                    replication,
                    keep,
                };
                meta.ask(now, Asker::Create { id, name }, Ask::Mutate(op));
            }
            Call::Append(at) => {
                let name = name_of(&at);
                let op = MutateOp::Append { at };
                let asker = Asker::Append {
                    id,
                    name,
                    len: None,
                };
                meta.ask(now, asker, Ask::Mutate(op));
            }
            Call::Truncate { len, .. } | Call::SetLen { len, .. } if len > FILE_BYTES_MAX => {
                let what = format!("a file has at most {FILE_BYTES_MAX} bytes, not {len}");
                self.reach.fail(id, Status::BadRequest, &what);
            }
            Call::Truncate { at, len } => {
                let name = name_of(&at);
                let op = MutateOp::Append { at };
                let asker = Asker::Append {
                    id,
                    name,
                    len: Some(len),
                };
                meta.ask(now, asker, Ask::Mutate(op));
            }
            Call::SetLen { handle, len } => {
                self.with_writer(id, handle, |writer, reach| {
                    writer.set_len(now, id, (len, Says::Done), reach)
                });
            }
            Call::Open(at) => {
                let name = name_of(&at);
                meta.ask(
                    now,
                    Asker::Open { id, name },
                    Ask::Query(QueryOp::Open { at }),
                );
            }
            Call::Write {
                handle,
                offset,
                data,
            } => {
                self.with_writer(id, handle, |writer, reach| {
                    writer.write(now, id, offset, data, reach)
                });
            }
            Call::Sync(handle) => {
                self.with_writer(id, handle, |writer, reach| writer.sync(now, id, reach))
            }
            Call::Close(handle) if self.reads.has(handle) => {
                if let Some(file) = self.reads.close(handle, &mut self.reach) {
                    self.reach.meta.closed_file(now, file);
                }
                self.reach.outbox.event(id, Event::Done);
            }
            Call::Close(handle) => {
                self.with_writer(id, handle, |writer, reach| writer.close(now, id, reach))
            }
            Call::Abandon(handle) => match self.writers.remove(&handle) {
                Some(writer) => {
                    self.busy.remove(&handle);
                    writer.abandon(id, &mut self.reach);
                }
                None => self.reach.fail(
                    id,
                    Status::BadRequest,
                    &format!("{handle:?} is no file open for writing"),
                ),
            },
            Call::Read {
                handle,
                offset,
                len,
            } => {
                if !self.reads.has(handle) {
                    let what = format!("{handle:?} is no file open for reading");
                    self.reach.fail(id, Status::BadRequest, &what);
                } else if len > READ_BYTES_MAX {
                    let what = format!(
                        "one read gives at most {READ_BYTES_MAX} bytes, {len} were asked for"
                    );
                    self.reach.fail(id, Status::BadRequest, &what);
                } else {
                    self.reads
                        .read(now, id, (handle, offset, len), &mut self.reach);
                }
            }
            Call::Disconnect => self.disconnect(now, id),
        }
    }

    /// Lets a writer act, and forgets it if that was its end.
    fn with_writer(
        &mut self,
        id: CallId,
        handle: Handle,
        act: impl FnOnce(&mut Writer, &mut Reach) -> Fate,
    ) {
        match self.writers.get_mut(&handle) {
            Some(writer) => {
                let fate = act(writer, &mut self.reach);
                if fate == Fate::Stays && writer.is_busy() {
                    self.busy.insert(handle);
                } else {
                    self.busy.remove(&handle);
                }
                if fate == Fate::Closed {
                    self.writers.remove(&handle);
                }
            }
            None if id == CallId::NONE => {}
            None => self.reach.fail(
                id,
                Status::BadRequest,
                &format!("{handle:?} is no file open for writing"),
            ),
        }
    }

    fn new_handle(&mut self) -> Handle {
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        handle
    }

    fn disconnect(&mut self, now: Instant, id: CallId) {
        let why = Refusal::new(Status::BadRequest, "the client disconnects");
        for writer in self.writers.values_mut() {
            writer.fail(why.clone().into(), &mut self.reach);
        }
        self.writers.clear();
        self.busy.clear();
        self.opening.clear();
        let open = self.reads.end(&why.clone().into(), &mut self.reach);
        self.reach.meta.fail_all(&why);
        self.take_news(now);
        self.life = Life::Ending(id);
        let within = FAREWELL.min(self.reach.timeout);
        let meta = &mut self.reach.meta;
        let released = meta.closed_files(now, within, open);
        match meta.session() {
            Some(session) => {
                let ask = Ask::MutateIn(session, MutateOp::EndSession);
                meta.ask_within(now, within, Asker::Disconnect, ask);
            }
            // Nobody is to wait for this client to be found out by its silence.
            None if released => {
                let ask = Ask::Query(QueryOp::Hold { files: Vec::new() });
                meta.ask_within(now, within, Asker::Disconnect, ask);
            }
            None => self.end(),
        }
    }

    /// Nothing is sent after this.
    fn end(&mut self) {
        if let Life::Ending(id) = self.life {
            self.reach.links.hang_up(&mut self.reach.outbox);
            self.reach.meta.hang_up(&mut self.reach.outbox);
            self.reach.outbox.event(id, Event::Done);
            self.life = Life::Ended;
        }
    }

    /// Does what is due towards the meta server; whether that made news.
    fn pump_meta(&mut self, now: Instant) -> bool {
        let Reach {
            meta, outbox, rng, ..
        } = &mut self.reach;
        meta.pump(now, outbox, rng);
        self.take_news(now)
    }

    fn take_news(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(news) = self.reach.meta.news() {
            any = true;
            match news {
                News::Answered(asker, outcome) => self.answered(now, asker, outcome),
                News::SessionLost(session, refusal) => {
                    let theirs = self
                        .writers
                        .iter()
                        .filter(|(_, writer)| writer.session() == session);
                    for handle in theirs.map(|(handle, _)| *handle).collect::<Vec<_>>() {
                        let what = format!(
                            "the session that wrote the file is over: {}",
                            refusal.detail
                        );
                        let failure = Failure {
                            status: Status::SessionExpired,
                            what,
                        };
                        self.with_writer(CallId::NONE, handle, |writer, reach| {
                            writer.go_on(now, Err(failure), reach)
                        });
                    }
                    if matches!(self.life, Life::Ending(_)) {
                        self.end();
                    }
                }
            }
        }
        any
    }

    fn answered(&mut self, now: Instant, asker: Asker, outcome: Result<Reply, Failure>) {
        match asker {
            Asker::Stat(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Attrs(attrs)) => Some(Event::Attrs(attrs)),
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::List(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Entries { entries, end }) => {
                    Some(Event::Entries { entries, end })
                }
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::Status(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Status(status)) => Some(Event::Status(status)),
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::Checkpoint(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Checkpoint(made)) => Some(Event::Checkpoint(made)),
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::Usage(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Usage(page)) => Some(Event::Usage(page)),
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::Places(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Answer(Answer::Located(located)) => Some(Event::Located(Box::new(located))),
                Reply::Answer(_) | Reply::Done(..) => None,
            }),
            Asker::Change(id) => self.reach.answer(id, outcome, |reply| match reply {
                Reply::Done(..) => Some(Event::Done),
                Reply::Answer(_) => None,
            }),
            Asker::Open { id, name } => self.opened(now, id, name, outcome),
            Asker::Create { id, name } => self.created(id, name, outcome),
            Asker::Append { id, name, len } => self.appending(now, id, (name, len), outcome),
            Asker::TakeOver { id, handle, index } => {
                self.taken_over(now, id, (handle, index), outcome.and_then(done));
            }
            Asker::Locate { handle, page } => {
                let outcome = outcome.and_then(|reply| match reply {
                    Reply::Answer(Answer::Located(located)) => Ok(located),
                    Reply::Answer(_) | Reply::Done(..) => Err(confused()),
                });
                self.reads
                    .located(now, (handle, page), outcome, &mut self.reach);
            }
            Asker::Allocate { handle, index } => {
                let outcome = outcome.and_then(done);
                self.with_writer(CallId::NONE, handle, |writer, reach| {
                    writer.allocated(now, index, outcome, reach)
                });
            }
            Asker::SetSize { handle } => {
                let outcome = outcome.and_then(done);
                self.with_writer(CallId::NONE, handle, |writer, reach| {
                    writer.reported(now, outcome, reach)
                });
            }
            Asker::Truncate { handle } => {
                let outcome = outcome.and_then(done);
                self.with_writer(CallId::NONE, handle, |writer, reach| {
                    writer.truncated(now, outcome, reach)
                });
            }
            Asker::TakeCut { handle, index } => {
                let outcome = outcome.and_then(done);
                self.with_writer(CallId::NONE, handle, |writer, reach| {
                    writer.cut_taken(now, index, outcome, reach)
                });
            }
            Asker::LetGo(file) => self.reach.meta.stopped_writing(file, &outcome),
            Asker::Disconnect => self.end(),
            Asker::Nobody => {}
        }
    }

    fn opened(&mut self, now: Instant, id: CallId, name: String, outcome: Result<Reply, Failure>) {
        match outcome {
            Ok(Reply::Answer(Answer::Opened { attrs, idle })) if attrs.kind == Kind::File => {
                let handle = self.new_handle();
                self.reach.meta.opened_file(now, attrs.file, idle);
                self.reads
                    .open(handle, Places::new(attrs.file, name, attrs.size));
                self.reach.outbox.event(id, Event::Opened { handle, attrs });
            }
            Ok(Reply::Answer(Answer::Opened { .. })) => {
                self.reach
                    .fail(id, Status::IsADirectory, &format!("{name} is a directory"));
            }
            outcome => self.reach.answer(id, outcome, |_| None),
        }
    }

    fn created(&mut self, id: CallId, name: String, outcome: Result<Reply, Failure>) {
        match (outcome, self.reach.meta.geometry()) {
            (Ok(Reply::Done(session, Done::Made { file, replication })), Some(geometry)) => {
                let handle = self.new_handle();
                let who = Identity {
                    handle,
                    file,
                    session,
                    geometry,
                    name,
                };
                self.writers.insert(handle, Writer::new(who, &self.reach));
                self.reach.outbox.event(
                    id,
                    Event::Created {
                        handle,
                        file,
                        replication,
                    },
                );
            }
            (outcome, _) => self.reach.answer(id, outcome, |_| None),
        }
    }

    fn chunkserver_said(&mut self, now: Instant, link: LinkId, msg: Msg) {
        let Some((errand, _)) = self.reach.links.received(now, link, msg.request) else {
            return;
        };
        let Msg { head, body, .. } = msg;
        match errand {
            Errand::Range { read, piece } => {
                let answer = if let Head::RangeRead(answer) = head {
                    answer
                } else {
                    RangeRead {
                        outcome: Err(Refusal::new(
                            Status::Protocol,
                            format!("answered {}", head.name()),
                        )),
                    }
                };
                self.reads
                    .range_read(now, (read, piece), (answer, body), &mut self.reach);
            }
            Errand::Piece {
                handle,
                index,
                number,
            } => {
                let done = if let Head::PieceDone(done) = head {
                    done
                } else {
                    let refusal =
                        Refusal::new(Status::Protocol, format!("answered {}", head.name()));
                    PieceDone {
                        chunk: ChunkId(0),
                        piece: number,
                        outcome: Err(refusal),
                    }
                };
                let act = |writer: &mut Writer, reach: &mut Reach| {
                    writer.piece_done(now, (index, number), done, reach)
                };
                self.with_writer(CallId::NONE, handle, act);
            }
            Errand::Sync { handle, index } => {
                let done = if let Head::SyncDone(done) = head {
                    done
                } else {
                    let refusal =
                        Refusal::new(Status::Protocol, format!("answered {}", head.name()));
                    SyncDone {
                        chunk: ChunkId(0),
                        outcome: Err(refusal),
                    }
                };
                self.with_writer(CallId::NONE, handle, |writer, reach| {
                    writer.sync_done(now, index, done, reach)
                });
            }
        }
    }

    /// Errands of a link that is gone go back to whom they were for.
    fn lost(&mut self, now: Instant, lost: Lost<Errand>) {
        for errand in lost.errands {
            match errand {
                Errand::Range { read, piece } => {
                    self.reads
                        .lost(now, (read, piece), &lost.why, &mut self.reach)
                }
                Errand::Piece { handle, index, .. } | Errand::Sync { handle, index } => {
                    if let Some(writer) = self.writers.get_mut(&handle) {
                        writer.lost(now, index, (&lost.why, lost.reached), &mut self.reach);
                    }
                }
            }
        }
    }

    /// Does all that is due by now.
    fn tick(&mut self, now: Instant) {
        for lost in self.reach.links.tick(now, &mut self.reach.outbox) {
            self.lost(now, lost);
        }
        self.reads.tick(now, &mut self.reach);
        for handle in self.busy.iter().copied().collect::<Vec<_>>() {
            self.with_writer(CallId::NONE, handle, |writer, reach| {
                writer.tick(now, reach)
            });
        }
        // What an answer makes the client ask leaves with the same input.
        while self.pump_meta(now) {}
    }
}

impl Reach {
    fn fail(&mut self, id: CallId, status: Status, what: &str) {
        self.outbox.event(
            id,
            Event::Failed(Failure {
                status,
                what: what.into(),
            }),
        );
    }

    fn answer(
        &mut self,
        id: CallId,
        outcome: Result<Reply, Failure>,
        as_event: impl FnOnce(Reply) -> Option<Event>,
    ) {
        let event = match outcome {
            Ok(reply) => as_event(reply).unwrap_or_else(|| Event::Failed(confused())),
            Err(failure) => Event::Failed(failure),
        };
        self.outbox.event(id, event);
    }
}

fn done(reply: Reply) -> Result<Done, Failure> {
    match reply {
        Reply::Done(_, done) => Ok(done),
        Reply::Answer(_) => Err(confused()),
    }
}

fn confused() -> Failure {
    Failure {
        status: Status::Protocol,
        what: "the meta server answered something else than was asked".into(),
    }
}

/// How long to wait before the next try after `tries` in vain.
fn backoff(tries: u32, rng: &mut Rng) -> Duration {
    let tries = if buggify::is(Site::RetryAtOnce) {
        0
    } else {
        tries.min(10)
    };
    let base = BACKOFF_FIRST.saturating_mul(1 << tries);
    rng.jitter(base.min(BACKOFF_MAX))
}

/// Whether these sizes can be: [`Geometry::check`] for what came from outside.
fn is_sound(sizes: Geometry) -> bool {
    let Geometry {
        block_bytes,
        chunk_blocks,
        piece_bytes,
    } = sizes;
    block_bytes > 0
        && chunk_blocks > 0
        && chunk_blocks as usize <= HEADER_BLOCKS
        && piece_bytes >= block_bytes
        && piece_bytes.is_multiple_of(block_bytes)
        && piece_bytes as usize <= FRAME_BODY_MAX
        && u64::from(piece_bytes) <= sizes.chunk_bytes()
}

/// A place in the tree as people write it.
fn name_of(at: &At) -> String {
    let path = String::from_utf8_lossy(&at.path);
    if at.dir == FileId::ROOT {
        format!("/{path}")
    } else {
        format!("#{}/{path}", at.dir)
    }
}

impl Machine for Client {
    type Call = Call;
    type Event = Event;
    fn handle(&mut self, now: Now, input: Input<Call>) {
        assert!(
            self.reach.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
        if matches!(self.life, Life::Ended) {
            if let Input::Call { id, call } = input {
                self.call(now.mono, id, call);
            }
            return;
        }
        let now = now.mono;
        match input {
            Input::Wake | Input::Disk { .. } => {}
            // Nothing waits for that.
            Input::Sent { link, .. } if self.reach.meta.is_line(link) => return,
            Input::Sent { link, bytes } => {
                self.reach.links.sent(link, bytes, &mut self.reach.outbox)
            }
            Input::Opened { link, peer } if self.reach.meta.is_line(link) => {
                let Reach {
                    meta, outbox, rng, ..
                } = &mut self.reach;
                meta.opened(now, link, &peer, outbox, rng);
            }
            Input::Opened { link, peer } => {
                if let Some(lost) =
                    self.reach
                        .links
                        .opened(now, link, &peer, &mut self.reach.outbox)
                {
                    self.lost(now, lost);
                }
            }
            Input::Received { link, msg } if self.reach.meta.is_line(link) => {
                self.reach.meta.received(now, msg, &mut self.reach.rng);
            }
            Input::Received { link, msg } => self.chunkserver_said(now, link, msg),
            Input::Closed { link, why } if self.reach.meta.is_line(link) => {
                self.reach.meta.closed(now, &why, &mut self.reach.rng);
            }
            Input::Closed { link, why } => {
                if let Some(lost) = self.reach.links.closed(link, &why) {
                    self.lost(now, lost);
                }
            }
            Input::Call { id, call } => self.call(now, id, call),
        }
        self.take_news(now);
        self.tick(now);
    }
    fn poll(&mut self) -> Option<Output<Event>> {
        self.reach.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        if matches!(self.life, Life::Ended) {
            return None;
        }
        let writers = self
            .busy
            .iter()
            .filter_map(|handle| self.writers[handle].deadline(&self.reach));
        let others = [
            self.reach.meta.deadline(),
            self.reach.links.deadline(),
            self.reads.deadline(self.reach.timeout),
        ];
        others
            .into_iter()
            .flatten()
            .chain(writers)
            .min_by_key(|(at, _)| *at)
    }
}
