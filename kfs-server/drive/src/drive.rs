//! THE loop: hands a machine one input at a time and carries out what it wants.
//!
//! One task owns the machine, its disk and its links; nothing is shared, so nothing is locked. Read
//! `kfs_core::machine` for the contract it keeps.
use crate::clock::Clock;
use crate::net::Net;
use crate::{Calls, Disk};
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, DiskResult, Fault, Input, Machine, Output, SyncMode};
use kfs_core::planted::{self, Bug};
use kfs_core::time::{Instant, Now};
use std::pin::Pin;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Sleep;

/// Inputs that are taken together at most.
const TURN: usize = 64;

/// Why the loop ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The machine cannot go on.
    Fault(Fault),
    /// Nobody can call the machine any more.
    Released,
}

/// Drives a machine until it halts or all its callers are gone. Dropping the future stops it at once, as a
/// crash would.
pub async fn drive<M: Machine, D: Disk>(
    mut machine: M,
    mut disk: D,
    mut completions: UnboundedReceiver<(Ticket, DiskResult)>,
    mut net: Net,
    mut calls: Calls<M::Call, M::Event>,
) -> Exit {
    let clock = Clock::new();
    let mut alarm = Alarm::new();
    let mut first = Some(Input::Wake);
    loop {
        // What is there already is one turn: one reading of the clocks, and what is sent leaves together.
        let now = clock.now();
        for _ in 0..TURN {
            let ready = match first.take() {
                Some(input) => Some(input),
                None => ready(&mut completions, &mut net, &mut calls),
            };
            // What is due is done with every turn, so that a flood of messages does not starve a heartbeat; and as its
            // last, for it may rest on all that was there.
            let (input, is_last) = match ready {
                Some(input) => (input, false),
                None if is_due(&machine, now) => (Input::Wake, true),
                None => break,
            };
            let told = tell(&mut machine, &mut disk, &mut net, &mut calls, now, input);
            if let Err(fault) = told {
                net.flush();
                return Exit::Fault(fault);
            }
            if is_last {
                break;
            }
        }
        net.flush();
        // That it has left is a part of this turn: most machines do not wait for it, and a turn of its own would be as
        // dear as that of a message.
        for _ in 0..net.sent_count() {
            let Some(input) = net.sent() else { break };
            let told = tell(&mut machine, &mut disk, &mut net, &mut calls, now, input);
            if let Err(fault) = told {
                net.flush();
                return Exit::Fault(fault);
            }
        }
        net.flush();
        let deadline = machine.deadline().map(|(at, _why)| at);
        if deadline.is_some_and(|at| at <= now.mono) {
            first = Some(Input::Wake);
            continue;
        }
        if let Some(input) = net.at_hand() {
            first = Some(input);
            continue;
        }
        alarm.set(now, deadline);
        first = tokio::select! {
            biased;
            Some((ticket, result)) = completions.recv() => Some(Input::Disk { ticket, result }),
            event = net.next() => net.accept(event),
            call = calls.queue.recv() => match call {
                Some((call, reply)) => Some(Input::Call { id: calls.enter(reply), call }),
                None => return Exit::Released,
            },
            () = alarm.rings() => None,
        };
    }
}

fn is_due<M: Machine>(machine: &M, now: Now) -> bool {
    machine.deadline().is_some_and(|(at, _why)| at <= now.mono)
}

/// Tells the machine, and carries out what it wants.
fn tell<M: Machine, D: Disk>(
    machine: &mut M,
    disk: &mut D,
    net: &mut Net,
    calls: &mut Calls<M::Call, M::Event>,
    now: Now,
    input: Input<M::Call>,
) -> Result<(), Fault> {
    machine.handle(now, input);
    while let Some(output) = machine.poll() {
        match output {
            Output::Disk { ticket, op } => disk.submit(ticket, carried_out(op)),
            Output::Event { id, event } => calls.answer(id, event),
            Output::Halt { fault } => return Err(fault),
            Output::Send { link, msg } => net.send(link, msg),
            Output::Dial { link, addr } => net.dial(link, addr),
            Output::Close { link } => net.close(link),
            Output::Pause { link } => net.pause(link),
            Output::Resume { link } => net.resume(link),
        }
    }
    Ok(())
}

/// What the machine can be told without waiting.
fn ready<C, E>(
    completions: &mut UnboundedReceiver<(Ticket, DiskResult)>,
    net: &mut Net,
    calls: &mut Calls<C, E>,
) -> Option<Input<C>> {
    if let Ok((ticket, result)) = completions.try_recv() {
        return Some(Input::Disk { ticket, result });
    }
    if let Some(input) = net.ready() {
        return Some(input);
    }
    let (call, reply) = calls.queue.try_recv().ok()?;
    let id = calls.enter(reply);
    Some(Input::Call { id, call })
}

/// The operation as it is carried out: as it was asked for, unless a mistake is planted here.
fn carried_out(op: DiskOp) -> DiskOp {
    match op {
        DiskOp::Write {
            file, offset, data, ..
        } if planted::is(Bug::WriteNotSynced) => DiskOp::Write {
            file,
            offset,
            data,
            sync: SyncMode::Later,
        },
        DiskOp::Sync { file } if planted::is(Bug::SyncNotMade) => DiskOp::Write {
            file,
            offset: 0,
            data: Vec::new(),
            sync: SyncMode::Later,
        },
        op => op,
    }
}

/// One timer. It is set anew when the deadline moves to an earlier time; when it moves to a later one, as with every
/// request that is answered, the alarm rings once for nothing instead.
struct Alarm {
    at: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new() -> Self {
        Self {
            at: None,
            sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
        }
    }
    fn set(&mut self, now: Now, at: Option<Instant>) {
        let Some(at) = at else { return };
        let late = match self.at {
            None => true,
            Some(set) => at < set && !planted::is(Bug::AlarmStaysLate),
        };
        if late {
            self.at = Some(at);
            // Rounded up, so that it does not ring just before its time and spin.
            let wait = at.since(now.mono) + std::time::Duration::from_micros(1);
            self.sleep
                .as_mut()
                .reset(tokio::time::Instant::now() + wait);
        }
    }
    async fn rings(&mut self) {
        if self.at.is_some() {
            self.sleep.as_mut().await;
            self.at = None;
        } else {
            std::future::pending().await
        }
    }
}
