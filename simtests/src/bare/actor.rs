//! One actor of a client: does its jobs with calls into the client machine, one at a time.
//!
//! The same jobs as in the world, without the library: so that an actor, too, is a value that can be copied in
//! the middle of what it does. It expects nothing of names, which the oracles judge from the replies; it checks
//! every byte it reads.
use crate::observe::record::Record;
use crate::oracle::contents::Seen;
use crate::oracle::{Tick, Violation};
use crate::schedule::{Class, Schedule};
use crate::workload::job::{Author, End, Fill, Job, Look, OWNER, ReadHow, SHARED_DIRS, attributes};
use crate::workload::{
    COUNT_MS, copies_missing, drain_of, is_unexpected, judge_open, must_not_fail, not_drained,
};
use kfs_core::client::{Call, Event, Handle};
use kfs_core::ids::FileId;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{
    At, Attrs, Drain, DrainStatus, Keep, Kind, Parents, ServerState,
};
use std::collections::VecDeque;

/// How long the auditor waits before it asks again whether all servers are there.
const LOOK_AGAIN_NS: u64 = 100_000_000;
/// How often it asks.
const LOOKS_MAX: u32 = 200;
const MS: u64 = 1_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Actor {
    client: usize,
    nth: usize,
    /// Different for each actor of each client.
    number: u32,
    /// Jobs begun: a new process goes on where the old one died.
    next_job: usize,
    doing: Doing,
    audit: Audit,
    /// Where the file ended that it writes.
    begin: u64,
    /// Chunkservers that the auditor waits for.
    servers_up: usize,
}

/// What an actor wants next.
#[derive(Debug)]
pub enum Next {
    /// To call its client.
    Call(Call),
    /// To go on after so many nanoseconds.
    Wait(u64),
    /// Nothing any more.
    Done,
}

/// What it is at, and what it waits for.
#[derive(Clone, Debug)]
enum Doing {
    Begin,
    /// Makes the shared directories, or finds them.
    Preparing(u64),
    Job(usize, Stage),
    Idle,
    /// Waits for so many acks, for so many milliseconds at most.
    Awaiting(u64, u64),
    /// Does nothing for a while in the middle of a job.
    Resting(usize, Stage),
    /// Asks, so many times at most, whether all copies are there.
    Counting(u64),
    /// Has that server drained, and asks so many times at most whether it is.
    Draining(usize, u64),
    Looking(u32),
    Auditing(Stage),
    Done,
}

#[derive(Clone, Debug)]
enum Stage {
    Creating,
    Filling(Handle, usize),
    Ending(Option<Status>),
    Moving,
    Cleaning(Status),
    /// Since then.
    Opening(Tick),
    Reading(Reading),
    Closing,
    Listing(Vec<u8>),
    /// Until the last page of what a tree takes.
    Scanning,
    /// Whether a file that could not be read is there at all.
    Missing(String),
    Simple,
}

/// A file that is being read.
#[derive(Clone, Debug)]
struct Reading {
    handle: Handle,
    file: FileId,
    size: u64,
    opened: Tick,
    asked: Tick,
    /// The range that is being read.
    range: (u64, u64),
    then: Then,
}

#[derive(Clone, Debug)]
enum Then {
    Ranges(VecDeque<(u64, u64)>),
    Looks(VecDeque<Look>),
    /// From there on, in steps of so many bytes.
    Steps(u64, u64),
}

/// What the auditor has still to see, and what it could not.
#[derive(Clone, Default, Debug)]
struct Audit {
    dirs: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    failures: Vec<String>,
}

impl Actor {
    /// An actor of a client that has done nothing yet.
    #[must_use]
    pub fn new(schedule: &Schedule, client: usize, nth: usize) -> Self {
        let number = client * schedule.actors_max() as usize + nth;
        Self {
            client,
            nth,
            number: u32::try_from(number).expect("a run has few actors"),
            next_job: 0,
            doing: Doing::Begin,
            audit: Audit::default(),
            begin: 0,
            servers_up: 0,
        }
    }

    /// The actor that reads everything there is, once so many chunkservers are there.
    #[must_use]
    pub fn auditor(schedule: &Schedule, servers_up: usize) -> Self {
        Self {
            doing: Doing::Looking(0),
            servers_up,
            ..Self::new(schedule, schedule.clients.len(), 0)
        }
    }

    /// In a new process of its client: goes on with the next job.
    pub fn begin(&mut self) {
        if !matches!(self.doing, Doing::Looking(_)) {
            self.doing = Doing::Begin;
        }
    }

    /// Whether it has done everything.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.doing, Doing::Done)
    }

    /// How many of its jobs it has begun.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.next_job
    }

    /// What the auditor could not read, if anything.
    ///
    /// # Errors
    /// All of it, in words.
    pub fn verdict(&self) -> Result<(), String> {
        if self.audit.failures.is_empty() {
            Ok(())
        } else {
            Err(self.audit.failures.join("; "))
        }
    }

    /// What it wants next, given what came of its last call; `None` at the beginning and after a wait.
    pub fn next(&mut self, schedule: &Schedule, record: &mut Record, event: Option<Event>) -> Next {
        let doing = std::mem::replace(&mut self.doing, Doing::Done);
        match doing {
            Doing::Begin => self.prepare(0),
            Doing::Preparing(dir) if dir + 1 < SHARED_DIRS => self.prepare(dir + 1),
            Doing::Preparing(_) | Doing::Idle => self.next_job(schedule, record),
            Doing::Job(job, stage) => match event {
                Some(event) => self.go_on(schedule, record, job, stage, event),
                None => self.next_job(schedule, record),
            },
            Doing::Awaiting(acks, ms) => self.await_acks(schedule, record, acks, ms),
            Doing::Counting(times) => self.count(schedule, record, times, event),
            Doing::Draining(server, times) => self.drain(schedule, record, (server, times), event),
            Doing::Resting(job, Stage::Filling(handle, step)) => {
                self.fill(schedule, job, handle, step, None)
            }
            Doing::Resting(job, Stage::Reading(reading)) => {
                self.read(record, reading, |stage| Doing::Job(job, stage))
            }
            Doing::Resting(..) => self.next_job(schedule, record),
            Doing::Looking(times) => self.look(record, times, event),
            Doing::Auditing(stage) => match event {
                Some(event) => self.audit(record, stage, event),
                None => Next::Done,
            },
            Doing::Done => Next::Done,
        }
    }

    fn prepare(&mut self, dir: u64) -> Next {
        self.doing = Doing::Preparing(dir);
        Next::Call(Call::Mkdir {
            at: at(&format!("/d{dir}")),
            parents: Parents::Make,
            owner: OWNER,
        })
    }

    fn jobs<'a>(&self, schedule: &'a Schedule) -> &'a [Job] {
        &schedule.clients[self.client].actors[self.nth]
    }

    fn next_job(&mut self, schedule: &Schedule, record: &mut Record) -> Next {
        let number = self.next_job;
        let Some(job) = self.jobs(schedule).get(number) else {
            self.doing = Doing::Done;
            return Next::Done;
        };
        self.next_job += 1;
        record.remark(|| format!("actor {}: job {number}, {job:?}", self.number));
        let (call, stage) = match job {
            Job::Put { temp, .. } => (create(temp, Keep::UntilSessionEnds), Stage::Creating),
            Job::Write { name, .. } | Job::Overwrite { name, .. } | Job::Touch(name) => {
                (create(name, Keep::Always), Stage::Creating)
            }
            Job::Append { name, .. } => (Call::Append(at(name)), Stage::Creating),
            Job::Truncate { name, len, .. } => {
                let (at, len) = (at(name), *len);
                (Call::Truncate { at, len }, Stage::Creating)
            }
            Job::Read { name, .. } => (Call::Open(at(name)), Stage::Opening(record.tick())),
            Job::List(name) => (
                list(name.as_bytes(), Vec::new()),
                Stage::Listing(name.clone().into()),
            ),
            Job::Usage { name, depth } => {
                let (at, depth) = (at(name), *depth);
                (Call::Usage { at, depth }, Stage::Scanning)
            }
            Job::Stat(name) => (Call::Stat(at(name)), Stage::Simple),
            Job::Remove(name) => (Call::Remove(at(name)), Stage::Simple),
            Job::Rmdir(name) => (Call::Rmdir(at(name)), Stage::Simple),
            Job::RemoveTree(name) => (Call::RemoveTree(at(name)), Stage::Simple),
            Job::AcceptRollback => (Call::AcceptRollback, Stage::Simple),
            Job::Copies { ms } => return self.count(schedule, record, ms / COUNT_MS, None),
            Job::SetReplication { name, replication } => {
                let (at, replication) = (at(name), *replication);
                (Call::SetReplication { at, replication }, Stage::Simple)
            }
            Job::SetMode { name, mode } => {
                let (at, to) = (at(name), attributes(*mode));
                (Call::SetAttributes { at, to }, Stage::Simple)
            }
            Job::Drain { server, ms } => {
                let drain = (*server, ms / COUNT_MS);
                return self.drain(schedule, record, drain, None);
            }
            Job::Rename { from, to, mode } => {
                let call = Call::Rename {
                    from: at(from),
                    to: at(to),
                    mode: *mode,
                };
                (call, Stage::Simple)
            }
            Job::Idle { ms } => {
                self.doing = Doing::Idle;
                return Next::Wait(ms * MS);
            }
            Job::Await { acks, ms } => return self.await_acks(schedule, record, *acks, *ms),
            Job::Mkdir { name, parents } => {
                let call = Call::Mkdir {
                    at: at(name),
                    parents: *parents,
                    owner: OWNER,
                };
                (call, Stage::Simple)
            }
        };
        self.wants(number, stage, call)
    }

    /// Waits on, or goes on with the next job.
    fn await_acks(&mut self, schedule: &Schedule, record: &mut Record, acks: u64, ms: u64) -> Next {
        if ms == 0 || record.counts.acked >= acks {
            return self.next_job(schedule, record);
        }
        self.doing = Doing::Awaiting(acks, ms - 1);
        Next::Wait(MS)
    }

    /// Asks whether all copies are there, unless that was the answer.
    fn count(
        &mut self,
        schedule: &Schedule,
        record: &mut Record,
        times: u64,
        event: Option<Event>,
    ) -> Next {
        let lack = match event {
            None => {
                self.doing = Doing::Counting(times);
                return Next::Call(Call::Status);
            }
            Some(Event::Status(status)) => {
                Some(status.chunks_under_replicated + status.replicas_damaged)
            }
            Some(_) => None,
        };
        if lack == Some(0) {
            return self.next_job(schedule, record);
        }
        if times == 0 {
            record.check::<()>(Err(copies_missing(lack)));
            return self.next_job(schedule, record);
        }
        self.doing = Doing::Counting(times - 1);
        Next::Wait(COUNT_MS * MS)
    }

    fn drain(
        &mut self,
        schedule: &Schedule,
        record: &mut Record,
        (server, times): (usize, u64),
        event: Option<Event>,
    ) -> Next {
        let told = match event {
            None => {
                self.doing = Doing::Draining(server, times);
                return Next::Call(Call::Status);
            }
            Some(Event::Status(status)) => drain_of(&status, server),
            Some(_) => None,
        };
        match told {
            Some((_, Some(DrainStatus::Drained))) => return self.next_job(schedule, record),
            Some((node, None)) if times > 0 => {
                self.doing = Doing::Draining(server, times - 1);
                let drain = Drain::Begin;
                return Next::Call(Call::Drain { node, drain });
            }
            _ => {}
        }
        if times == 0 {
            let drain = told.and_then(|(_, drain)| drain);
            record.check::<()>(Err(not_drained(server, drain)));
            return self.next_job(schedule, record);
        }
        self.doing = Doing::Draining(server, times - 1);
        Next::Wait(COUNT_MS * MS)
    }

    fn wants(&mut self, job: usize, stage: Stage, call: Call) -> Next {
        self.doing = Doing::Job(job, stage);
        Next::Call(call)
    }

    /// The job is over. A failure is no violation, unless nothing fails in this run: the oracles judge.
    fn ends(&mut self, schedule: &Schedule, record: &mut Record, failed: Option<Status>) -> Next {
        if let Some(status) = failed {
            record.remark(|| format!("actor {}: {status:?}", self.number));
            if schedule.class == Class::Clean && is_unexpected(status) {
                let what = format!("nothing fails, and still: {status:?}");
                record.check::<()>(Err(Violation::new("clean", "L", what)));
            }
        }
        self.next_job(schedule, record)
    }

    fn go_on(
        &mut self,
        schedule: &Schedule,
        record: &mut Record,
        number: usize,
        stage: Stage,
        event: Event,
    ) -> Next {
        let job = &self.jobs(schedule)[number];
        let failed = match &event {
            Event::Failed(failure) => Some(failure.status),
            _ => None,
        };
        if let (Stage::Filling(..) | Stage::Reading(_), Event::Failed(failure)) = (&stage, &event) {
            let said = (failure.status, failure.what.as_str());
            judge_open(record, schedule, self.client, said);
        }
        if let (
            Stage::Filling(..) | Stage::Ending(_),
            Job::Write {
                name,
                failed: End::MustNot,
                ..
            },
            Event::Failed(failure),
        ) = (&stage, job, &event)
        {
            record.check::<()>(Err(must_not_fail(name, &failure.what)));
        }
        match (stage, event) {
            (Stage::Creating, Event::Created { handle, .. }) => {
                self.begin = 0;
                self.fill(schedule, number, handle, 0, None)
            }
            (Stage::Creating, Event::Appending { handle, end, .. }) => {
                self.begin = end;
                self.fill(schedule, number, handle, 0, None)
            }
            (Stage::Filling(handle, step), _) => self.fill(schedule, number, handle, step, failed),
            (Stage::Ending(earlier), _) => {
                let failed = earlier.or(failed);
                let Job::Put {
                    temp, name, mode, ..
                } = job
                else {
                    return self.ends(schedule, record, failed);
                };
                match failed {
                    None => {
                        let call = Call::Rename {
                            from: at(temp),
                            to: at(name),
                            mode: *mode,
                        };
                        self.wants(number, Stage::Moving, call)
                    }
                    Some(status) => {
                        self.wants(number, Stage::Cleaning(status), Call::Remove(at(temp)))
                    }
                }
            }
            (Stage::Moving, Event::Failed(failure)) => {
                let Job::Put { temp, .. } = job else {
                    return self.ends(schedule, record, failed);
                };
                let stage = Stage::Cleaning(failure.status);
                self.wants(number, stage, Call::Remove(at(temp)))
            }
            (Stage::Cleaning(status), _) => self.ends(schedule, record, Some(status)),
            (Stage::Opening(opened), Event::Opened { handle, attrs }) => {
                let Job::Read { how, .. } = job else {
                    return self.ends(schedule, record, None);
                };
                let reading = Reading::of(handle, (attrs, opened), how);
                self.read(record, reading, |stage| Doing::Job(number, stage))
            }
            (Stage::Reading(reading), Event::Data { parts, .. }) => {
                let reading = reading.checked(record, &parts.concat());
                self.read(record, reading, |stage| Doing::Job(number, stage))
            }
            (Stage::Reading(reading), _) => {
                self.wants(number, Stage::Ending(failed), Call::Close(reading.handle))
            }
            (
                Stage::Listing(dir),
                Event::Entries {
                    entries,
                    end: false,
                },
            ) if !entries.is_empty() => {
                let last = entries.last().map(|entry| entry.name.clone());
                let call = list(&dir, last.unwrap_or_default());
                self.wants(number, Stage::Listing(dir), call)
            }
            (Stage::Scanning, Event::Usage(page)) if !page.end => {
                let call = Call::UsageNext { scan: page.scan };
                self.wants(number, Stage::Scanning, call)
            }
            _ => self.ends(schedule, record, failed),
        }
    }

    /// The next step of filling a file, or its end.
    fn fill(
        &mut self,
        schedule: &Schedule,
        number: usize,
        handle: Handle,
        step: usize,
        failed: Option<Status>,
    ) -> Next {
        let author = Author {
            salt: schedule.seed,
            actor: self.number,
            job: u32::try_from(number).expect("an actor has few jobs"),
        };
        let job = &self.jobs(schedule)[number];
        if let Job::Put { fill, .. }
        | Job::Write { fill, .. }
        | Job::Append { fill, .. }
        | Job::Truncate { fill, .. } = job
            && let (Some(Fill::Idle { ms }), None) = (fill.get(step), failed)
        {
            self.doing = Doing::Resting(number, Stage::Filling(handle, step + 1));
            return Next::Wait(ms * MS);
        }
        let write = |offset, data| Call::Write {
            handle,
            offset,
            data,
        };
        let call = match job {
            _ if failed.is_some() => None,
            Job::Put { fill, .. }
            | Job::Write { fill, .. }
            | Job::Append { fill, .. }
            | Job::Truncate { fill, .. } => fill.get(step).map(|done| match *done {
                Fill::SetLen { len } => Call::SetLen { handle, len },
                // Nothing is there that could be written over: then nothing is written.
                Fill::Bytes { .. } | Fill::Over { .. } | Fill::Idle { .. } => {
                    let what = Fill::write(self.begin, fill, step, author);
                    let (at, bytes) = what.unwrap_or_default();
                    write(at, bytes)
                }
                Fill::Sync => Call::Sync(handle),
            }),
            Job::Overwrite { synced, from, .. } => match (step, synced) {
                (0, _) => Some(write(0, author.bytes(0, 100))),
                (1, true) => Some(Call::Sync(handle)),
                (1, false) | (2, true) => Some(write(*from, author.over_stamp(1).fill(*from, 50))),
                _ => None,
            },
            _ => None,
        };
        if let Some(call) = call {
            return self.wants(number, Stage::Filling(handle, step + 1), call);
        }
        let end = match (job, failed) {
            (Job::Put { .. } | Job::Append { .. } | Job::Truncate { .. }, Some(_)) => End::Abandon,
            (Job::Write { failed: end, .. }, Some(_))
            | (
                Job::Write { end, .. } | Job::Append { end, .. } | Job::Truncate { end, .. },
                None,
            ) => *end,
            _ => End::Close,
        };
        let call = match end {
            End::Close => Call::Close(handle),
            End::Abandon | End::MustNot => Call::Abandon(handle),
        };
        self.wants(number, Stage::Ending(failed), call)
    }

    /// The next range of a file, or its end.
    fn read(
        &mut self,
        record: &mut Record,
        mut reading: Reading,
        doing: impl Fn(Stage) -> Doing,
    ) -> Next {
        if let Then::Looks(looks) = &mut reading.then
            && let Some(Look::Idle { ms }) = looks.front().copied()
        {
            looks.pop_front();
            self.doing = match doing(Stage::Reading(reading)) {
                Doing::Job(job, stage) => Doing::Resting(job, stage),
                other => other,
            };
            return Next::Wait(ms * MS);
        }
        let Some((offset, len)) = reading.then.next(reading.size) else {
            let handle = reading.handle;
            self.doing = doing(Stage::Closing);
            return Next::Call(Call::Close(handle));
        };
        reading.range = (offset, len);
        reading.asked = record.tick();
        let handle = reading.handle;
        self.doing = doing(Stage::Reading(reading));
        Next::Call(Call::Read {
            handle,
            offset,
            len: usize::try_from(len).expect("reads fit in memory"),
        })
    }

    fn look(&mut self, record: &mut Record, times: u32, event: Option<Event>) -> Next {
        if let Some(Event::Status(status)) = &event {
            let up = |server: &&kfs_core::wire::client_meta::ServerStatus| {
                server.state == ServerState::Up
            };
            if status.servers.iter().filter(up).count() >= self.servers_up {
                self.audit.dirs.push(b"/".to_vec());
                return self.look_on(record);
            }
        }
        if let Some(Event::Failed(failure)) = &event {
            self.audit
                .failures
                .push(format!("status: {}", failure.what));
            return Next::Done;
        }
        self.doing = Doing::Looking(times + 1);
        match event {
            None => Next::Call(Call::Status),
            Some(_) if times < LOOKS_MAX => Next::Wait(LOOK_AGAIN_NS),
            Some(_) => {
                self.doing = Doing::Done;
                let what = "the meta server does not count every server as up".to_owned();
                self.audit.failures.push(what);
                Next::Done
            }
        }
    }

    /// The next file, or the next directory.
    fn look_on(&mut self, record: &mut Record) -> Next {
        if let Some(path) = self.audit.files.last() {
            self.doing = Doing::Auditing(Stage::Opening(record.tick()));
            return Next::Call(Call::Open(At::root(path.clone())));
        }
        let Some(dir) = self.audit.dirs.pop() else {
            self.doing = Doing::Done;
            return Next::Done;
        };
        let call = list(&dir, Vec::new());
        self.doing = Doing::Auditing(Stage::Listing(dir));
        Next::Call(call)
    }

    fn audit(&mut self, record: &mut Record, stage: Stage, event: Event) -> Next {
        let path = self.audit.files.last().cloned().unwrap_or_default();
        let name = String::from_utf8_lossy(&path).into_owned();
        match (stage, event) {
            (Stage::Listing(dir), Event::Entries { entries, end }) => {
                let last = entries.last().map(|entry| entry.name.clone());
                for entry in entries {
                    let mut path = dir.clone();
                    if path.last() != Some(&b'/') {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&entry.name);
                    match entry.attrs.kind {
                        Kind::Directory => self.audit.dirs.push(path),
                        Kind::File => self.audit.files.push(path),
                    }
                }
                match last.filter(|_| !end) {
                    Some(last) => {
                        let call = list(&dir, last);
                        self.doing = Doing::Auditing(Stage::Listing(dir));
                        Next::Call(call)
                    }
                    None => self.look_on(record),
                }
            }
            (Stage::Opening(opened), Event::Opened { handle, attrs }) => {
                let step = attrs.size / 2 + 1;
                let reading = Reading::of(handle, (attrs, opened), &ReadHow::Steps(step));
                self.read(record, reading, Doing::Auditing)
            }
            (Stage::Reading(reading), Event::Data { parts, .. }) => {
                let reading = reading.checked(record, &parts.concat());
                self.read(record, reading, Doing::Auditing)
            }
            (Stage::Reading(reading), Event::Failed(failure)) => {
                self.audit
                    .failures
                    .push(format!("{name}, {}: {}", reading.file, failure.what));
                self.doing = Doing::Auditing(Stage::Closing);
                Next::Call(Call::Close(reading.handle))
            }
            // A temporary file whose session ended meanwhile: the oracle of names judges the answer.
            (Stage::Opening(_), Event::Failed(failure)) if failure.status == Status::NotFound => {
                self.doing = Doing::Auditing(Stage::Missing(failure.what));
                Next::Call(Call::Stat(At::root(path)))
            }
            (Stage::Missing(_), Event::Failed(failure)) if failure.status == Status::NotFound => {
                self.audit.files.pop();
                self.look_on(record)
            }
            (Stage::Missing(what), _) => {
                self.audit.failures.push(format!("{name}: {what}"));
                self.audit.files.pop();
                self.look_on(record)
            }
            (Stage::Opening(_), Event::Failed(failure)) => {
                self.audit
                    .failures
                    .push(format!("{name}: {}", failure.what));
                self.audit.files.pop();
                self.look_on(record)
            }
            (Stage::Listing(dir), Event::Failed(failure)) => {
                let dir = String::from_utf8_lossy(&dir).into_owned();
                self.audit
                    .failures
                    .push(format!("list {dir}: {}", failure.what));
                self.look_on(record)
            }
            _ => {
                self.audit.files.pop();
                self.look_on(record)
            }
        }
    }
}

impl Reading {
    fn of(handle: Handle, (attrs, opened): (Attrs, Tick), how: &ReadHow) -> Self {
        let then = match how {
            ReadHow::Stream => Then::Steps(0, attrs.size + 1),
            ReadHow::Steps(step) => Then::Steps(0, *step),
            ReadHow::Ranges(ranges) => Then::Ranges(
                ranges
                    .iter()
                    .map(|(permille, len)| (attrs.size * permille / 1_000, *len))
                    .collect(),
            ),
            ReadHow::Looks(looks) => Then::Looks(looks.clone().into()),
        };
        Self {
            handle,
            file: attrs.file,
            size: attrs.size,
            opened,
            asked: 0,
            range: (0, 0),
            then,
        }
    }

    /// Checks what was read, and goes on behind it.
    fn checked(mut self, record: &mut Record, bytes: &[u8]) -> Self {
        let came = record.tick();
        let seen = Seen {
            file: self.file,
            size: self.size,
            offset: self.range.0,
            len: usize::try_from(self.range.1).expect("reads fit in memory"),
            bytes,
            opened: self.opened,
            asked: self.asked,
            came,
        };
        let result = record.contents.check(&seen);
        record.check(result);
        if let Then::Steps(at, _) = &mut self.then {
            // A read that gives nothing would never end: the file may have been cut.
            *at += if bytes.is_empty() {
                self.size
            } else {
                bytes.len() as u64
            };
        }
        self
    }
}

impl Then {
    fn next(&mut self, size: u64) -> Option<(u64, u64)> {
        match self {
            Self::Ranges(ranges) => ranges.pop_front(),
            Self::Looks(looks) => match looks.pop_front()? {
                Look::At { at, len } => Some((at, len)),
                Look::Idle { .. } => None,
            },
            Self::Steps(at, step) => (*at < size).then_some((*at, *step)),
        }
    }
}

fn at(path: &str) -> At {
    At::root(path.as_bytes())
}
fn create(path: &str, keep: Keep) -> Call {
    Call::Create {
        at: at(path),
        owner: OWNER,
        replication: 0,
        keep,
    }
}
fn list(path: &[u8], after: Vec<u8>) -> Call {
    Call::List {
        at: At::root(path),
        after,
    }
}
