//! A process: one machine, whichever of the three, with an observer beside it.
use crate::observe::client::ClientObserver;
use crate::observe::overseer::{Overseen, Whose};
use crate::observe::record::Record;
use kfs_core::ids::{CallId, LinkId, Ticket};
use kfs_core::machine::{CloseReason, DiskOp, DiskResult, Fault, Input, Machine, Output};
use kfs_core::time::{Instant, Now};
use kfs_core::trace::{TracedCall, TracedEvent};
use kfs_core::wire::{Msg, Peer};
use kfs_core::{chunk, client, meta};
use std::net::SocketAddr;

/// One of the three machines.
#[derive(Clone, Debug)]
pub enum Process {
    /// A meta server.
    Meta(Box<meta::Meta>),
    /// A chunkserver.
    Chunk(Box<chunk::Chunk>),
    /// A client, observed.
    Client(Box<client::Client>, Box<ClientObserver>),
}

/// What happens to a machine, whichever it is.
#[derive(Clone, Debug)]
pub enum Happens {
    /// See [`Input::Wake`].
    Wake,
    /// See [`Input::Opened`].
    Opened(LinkId, Peer),
    /// See [`Input::Received`].
    Received(LinkId, Msg),
    /// See [`Input::Sent`].
    Sent(LinkId, usize),
    /// See [`Input::Closed`].
    Closed(LinkId, CloseReason),
    /// See [`Input::Disk`].
    Disk(Ticket, DiskResult),
    /// A client is called; see [`Input::Call`].
    Call(CallId, client::Call),
}

/// What a machine wants done, whichever it is.
#[derive(Debug)]
pub enum Wants {
    /// See [`Output::Send`].
    Send(LinkId, Msg),
    /// See [`Output::Dial`].
    Dial(LinkId, SocketAddr),
    /// See [`Output::Close`].
    Close(LinkId),
    /// See [`Output::Pause`].
    Pause(LinkId),
    /// See [`Output::Resume`].
    Resume(LinkId),
    /// See [`Output::Disk`].
    Disk(Ticket, DiskOp),
    /// A server says that it is ready.
    Ready,
    /// A client answers a call.
    Answer(CallId, client::Event),
    /// See [`Output::Halt`].
    Halt(Fault),
}

impl Process {
    /// Takes one input; adds what is wanted, in order. All of it goes into the record.
    pub fn handle(
        &mut self,
        now: Now,
        whose: Whose<'_>,
        happens: Happens,
        record: &mut Record,
        wants: &mut Vec<Wants>,
    ) {
        match self {
            Self::Meta(machine) => {
                let ready = |_: &mut Record, output| match output {
                    Output::Event {
                        event: meta::Event::Ready { .. },
                        ..
                    } => Some(Wants::Ready),
                    other => want(other),
                };
                turn(
                    &mut **machine,
                    now,
                    whose,
                    happens.into(),
                    record,
                    wants,
                    ready,
                );
            }
            Self::Chunk(machine) => {
                let ready = |_: &mut Record, output| match output {
                    Output::Event {
                        event: chunk::Event::Ready { .. },
                        ..
                    } => Some(Wants::Ready),
                    other => want(other),
                };
                turn(
                    &mut **machine,
                    now,
                    whose,
                    happens.into(),
                    record,
                    wants,
                    ready,
                );
            }
            Self::Client(machine, observer) => {
                let input = match happens {
                    Happens::Call(id, call) => Input::Call { id, call },
                    other => other.into(),
                };
                observer.input(record, &input);
                let answer = |record: &mut Record, output| {
                    observer.output(record, &output);
                    match output {
                        Output::Event { id, event } => Some(Wants::Answer(id, event)),
                        other => want(other),
                    }
                };
                turn(&mut **machine, now, whose, input, record, wants, answer);
            }
        }
    }

    /// When it must be woken at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let deadline = match self {
            Self::Meta(machine) => machine.deadline(),
            Self::Chunk(machine) => machine.deadline(),
            Self::Client(machine, _) => machine.deadline(),
        };
        deadline.map(|(at, _why)| at)
    }
}

fn turn<M: Overseen<Call: TracedCall, Event: TracedEvent>>(
    machine: &mut M,
    now: Now,
    whose: Whose<'_>,
    input: Input<M::Call>,
    record: &mut Record,
    wants: &mut Vec<Wants>,
    mut wanted: impl FnMut(&mut Record, Output<M::Event>) -> Option<Wants>,
) {
    record.input(now, whose.name, &input);
    record.oversee_input::<M>(whose, now, &input);
    machine.handle(now, input);
    while let Some(output) = machine.poll() {
        record.output(whose.name, &output);
        record.oversee_output(whose, now, machine, &output);
        wants.extend(wanted(record, output));
    }
    record.oversee_rest(whose, machine);
}

/// What an output wants done; nothing for an event.
fn want<E>(output: Output<E>) -> Option<Wants> {
    Some(match output {
        Output::Send { link, msg } => Wants::Send(link, msg),
        Output::Dial { link, addr } => Wants::Dial(link, addr),
        Output::Close { link } => Wants::Close(link),
        Output::Pause { link } => Wants::Pause(link),
        Output::Resume { link } => Wants::Resume(link),
        Output::Disk { ticket, op } => Wants::Disk(ticket, op),
        Output::Halt { fault } => Wants::Halt(fault),
        Output::Event { .. } => return None,
    })
}

impl<C> From<Happens> for Input<C> {
    fn from(happens: Happens) -> Self {
        match happens {
            Happens::Wake => Self::Wake,
            Happens::Opened(link, peer) => Self::Opened { link, peer },
            Happens::Received(link, msg) => Self::Received { link, msg },
            Happens::Sent(link, bytes) => Self::Sent { link, bytes },
            Happens::Closed(link, why) => Self::Closed { link, why },
            Happens::Disk(ticket, result) => Self::Disk { ticket, result },
            Happens::Call(..) => unreachable!("only clients are called"),
        }
    }
}
