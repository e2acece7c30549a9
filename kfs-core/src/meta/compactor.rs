//! The off-line compactor: from the newest checkpoint and the closed segments of the log behind it, the next
//! checkpoint; by the same code that a start reads them with, and beside a meta server that may be serving.
//!
//! The open segment is never read, nor anything that the server may still change; closed segments and checkpoints
//! do not change any more. The server makes checkpoints of its own: equal states give equal bytes, so two files of
//! one name would be the same. Killed at any instruction it leaves what was there, and perhaps an unfinished file.
use super::checkpoint::Summary;
use super::checkpointing::{Checkpoints, Made};
use super::commit::Segments;
use super::recovery::{Purpose, Recovered, Recovery};
use super::{Call, Config, Event, Io};
use crate::ids::{CallId, LogSeq, Ticket};
use crate::machine::{DiskResult, Input, Machine, Output};
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
}

#[derive(Clone, Debug)]
enum Phase {
    /// Until the first input.
    Asleep,
    Reading(Box<Recovery>),
    Making(Box<Making>),
    Ended,
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
                    let cluster = found.identity.cluster;
                    let mut checkpoints = Checkpoints::new(cluster, None, found.checkpoints, now);
                    let mut segments = found.segments;
                    segments.extend(found.open);
                    let (segments, end) = (Segments(segments), state.seq());
                    if self.aim == Aim::Checkpoint
                        && checkpoints.begin(now, &state, &segments, &mut self.io.outbox)
                    {
                        Phase::Making(Box::new(Making {
                            checkpoints,
                            segments,
                            end,
                            made: None,
                        }))
                    } else {
                        self.end(Ok(Compacted { end, made: None }))
                    }
                }
                Ok(Recovered::Done(_)) => unreachable!("nothing is opened"),
                Err(fault) => {
                    self.io.outbox.halt(fault);
                    Phase::Ended
                }
            },
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
                    self.end(made.map(|made| Compacted {
                        end,
                        made: Some(made),
                    }))
                }
            }
            other @ (Phase::Asleep | Phase::Making(_) | Phase::Ended) => other,
        };
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
