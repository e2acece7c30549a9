//! The off-line compactor: from the newest checkpoint and the closed segments of the log behind it, the next
//! checkpoint; by the same code that a start reads them with, and beside a meta server that may be serving.
//!
//! The open segment is never read, nor anything that the server may still change; closed segments and checkpoints
//! do not change any more. Of a log mirror it changes nothing but that old segments go, see [`trimming`]. The server makes checkpoints of its own: equal states give equal bytes, so two files of
//! one name would be the same. Killed at any instruction it leaves what was there, and perhaps an unfinished file.
mod trimming;

use self::trimming::{TrimStep, Trimming};
use super::checkpoint::Summary;
use super::checkpointing::{Checkpoints, Made, Maker};
use super::commit::Segments;
use super::mirror::Copies;
use super::recovery::{Found, Purpose, Recovered, Recovery};
use super::state::State;
use super::{Call, Config, Event, Io};
use crate::ids::{CallId, LogSeq, Ticket};
use crate::machine::{DiskOp, DiskResult, FileName, Input, Machine, Output};
use crate::planted::{self, Bug};
use crate::time::{Instant, Now};

/// See the module.
#[derive(Clone, Debug)]
pub struct Compactor {
    io: Io,
    aim: Aim,
    phase: Phase,
}

/// What a compactor is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// The next checkpoint, unless the newest one has everything.
    Checkpoint,
    /// Nothing but to read what there is.
    Read,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// The last record of what does not change any more; all up to it is whole.
    pub end: LogSeq,
    /// The checkpoint that was made.
    pub made: Option<Summary>,
    /// Segments that went from the log mirror.
    pub mirror_removed: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Until the first input.
    Asleep,
    Reading(Box<Recovery>),
    /// Whose mirror it is is looked at before anything is changed.
    Meeting(Box<Meeting>),
    Clearing(Box<Clearing>),
    Making(Box<Making>),
    Trimming(Box<Trimming>),
    Ended,
}

#[derive(Clone, Debug)]
struct Meeting {
    ticket: Ticket,
    found: Found,
    state: State,
}

/// What earlier ones did not finish is taken away first: the lock says that none of them is at work.
#[derive(Clone, Debug)]
struct Clearing {
    ticket: Ticket,
    left: Vec<FileName>,
    found: Found,
    state: State,
}

#[derive(Clone, Debug)]
struct Making {
    checkpoints: Checkpoints,
    segments: Segments,
    /// The last record of the closed segments, all of which are durable.
    end: LogSeq,
    made: Option<Made>,
}

impl Compactor {
    /// One that has not begun; its first input is [`Input::Wake`]. It ends with [`Event::Compacted`].
    #[must_use]
    pub fn new(config: Config, aim: Aim) -> Self {
        Self {
            io: Io::new(config),
            aim,
            phase: Phase::Asleep,
        }
    }

    fn disk(&mut self, ticket: Ticket, result: DiskResult) {
        let now = self.io.now.mono;
        self.phase = match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Reading(recovery) => match recovery.completed(&mut self.io, ticket, result) {
                Ok(Recovered::Going(recovery)) => Phase::Reading(recovery),
                Ok(Recovered::Read(read)) => {
                    let (found, state) = *read;
                    if self.trims() {
                        let ticket = self.io.outbox.disk(trimming::whose());
                        Phase::Meeting(Box::new(Meeting {
                            ticket,
                            found,
                            state,
                        }))
                    } else {
                        self.begin(found, state)
                    }
                }
                Ok(Recovered::Done(_)) => unreachable!("nothing is opened"),
                Err(fault) => {
                    self.io.outbox.halt(fault);
                    Phase::Ended
                }
            },
            Phase::Meeting(meeting) if meeting.ticket == ticket => {
                let Meeting { found, state, .. } = *meeting;
                match trimming::is_ours(found.identity.cluster, result) {
                    Ok(()) => self.begin(found, state),
                    Err(fault) => {
                        self.io.outbox.halt(fault);
                        Phase::Ended
                    }
                }
            }
            // What stays is in nobody's way, unless it has the name that is needed: then its creation says so.
            Phase::Clearing(clearing) if clearing.ticket == ticket => {
                let Clearing {
                    left, found, state, ..
                } = *clearing;
                self.clear(left, found, state)
            }
            Phase::Making(mut making) if making.checkpoints.owns(ticket) => {
                let Making {
                    checkpoints,
                    segments,
                    end,
                    made,
                } = &mut *making;
                let done =
                    checkpoints.completed(now, result, (*end, segments), &mut self.io.outbox);
                *made = done.or(made.take());
                if checkpoints.is_making() {
                    Phase::Making(making)
                } else {
                    let made = made.take().expect("it has ended one way or the other");
                    let end = *end;
                    match made {
                        Ok(made) => self.trim((end, Some(made)), checkpoints, segments),
                        Err(why) => self.end(Err(why)),
                    }
                }
            }
            Phase::Trimming(trimming) if trimming.ticket == ticket => {
                self.trim_on(trimming, result)
            }
            other @ (Phase::Asleep
            | Phase::Meeting(_)
            | Phase::Clearing(_)
            | Phase::Making(_)
            | Phase::Trimming(_)
            | Phase::Ended) => other,
        };
    }

    /// Whether it is to let go of segments of a mirror.
    fn trims(&self) -> bool {
        self.io.config.mirror && self.aim == Aim::Checkpoint
    }

    fn begin(&mut self, mut found: Found, state: State) -> Phase {
        let left = match self.aim {
            Aim::Checkpoint if !planted::is(Bug::CompactorLeavesRest) => {
                core::mem::take(&mut found.compacting)
            }
            Aim::Checkpoint | Aim::Read => Vec::new(),
        };
        self.clear(left, found, state)
    }

    /// Takes away the next of what was left, or begins the checkpoint.
    fn clear(&mut self, mut left: Vec<FileName>, found: Found, state: State) -> Phase {
        if let Some(file) = left.pop() {
            let ticket = self.io.outbox.disk(DiskOp::Remove { file });
            return Phase::Clearing(Box::new(Clearing {
                ticket,
                left,
                found,
                state,
            }));
        }
        let now = self.io.now.mono;
        let cluster = found.identity.cluster;
        let mut checkpoints = Checkpoints::new(
            (cluster, Maker::Compactor),
            None,
            Copies::One,
            found.checkpoints,
            now,
        );
        let mut segments = found.segments;
        segments.extend(found.open);
        let (mut segments, end) = (Segments(segments), state.seq());
        // While the first segment is open there is nothing that does not change any more.
        if self.aim == Aim::Checkpoint
            && end > LogSeq(0)
            && checkpoints.begin(now, &state, &segments, &mut self.io.outbox)
        {
            return Phase::Making(Box::new(Making {
                checkpoints,
                segments,
                end,
                made: None,
            }));
        }
        if self.trims() {
            return self.trim((end, None), &checkpoints, &mut segments);
        }
        self.end(Ok(Compacted {
            end,
            made: None,
            mirror_removed: 0,
        }))
    }

    /// What is needed of the log is known: the mirror may let go of the rest, if there is one.
    fn trim(
        &mut self,
        (end, made): (LogSeq, Option<Summary>),
        checkpoints: &Checkpoints,
        segments: &mut Segments,
    ) -> Phase {
        let done = Compacted {
            end,
            made,
            mirror_removed: 0,
        };
        let Some(from) = checkpoints.log_from().filter(|_| self.trims()) else {
            return self.end(Ok(done));
        };
        segments.forget_before(from);
        let Some(first) = segments.0.first().copied() else {
            return self.end(Ok(done));
        };
        let (op, step) = TrimStep::begin();
        let ticket = self.io.outbox.disk(op);
        Phase::Trimming(Box::new(Trimming {
            ticket,
            first,
            step,
            done,
        }))
    }

    fn trim_on(&mut self, mut trimming: Box<Trimming>, result: DiskResult) -> Phase {
        match trimming.go_on(result) {
            Some(op) => {
                trimming.ticket = self.io.outbox.disk(op);
                Phase::Trimming(trimming)
            }
            None => self.end(Ok(trimming.done)),
        }
    }

    fn end(&mut self, done: Result<Compacted, String>) -> Phase {
        self.io.outbox.event(CallId::NONE, Event::Compacted(done));
        Phase::Ended
    }
}

impl Machine for Compactor {
    type Call = Call;
    type Event = Event;
    fn handle(&mut self, now: Now, input: Input<Call>) {
        assert!(
            self.io.outbox.is_drained(),
            "the outbox is drained between inputs"
        );
        self.io.now = now;
        match input {
            Input::Wake => {
                if matches!(self.phase, Phase::Asleep) {
                    let recovery = Recovery::begin(&mut self.io, Purpose::ClosedSegments);
                    self.phase = Phase::Reading(Box::new(recovery));
                }
            }
            Input::Disk { ticket, result } => self.disk(ticket, result),
            Input::Opened { .. }
            | Input::Received { .. }
            | Input::Sent { .. }
            | Input::Closed { .. }
            | Input::Call { .. } => {}
        }
    }
    fn poll(&mut self) -> Option<Output<Event>> {
        self.io.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }
}
