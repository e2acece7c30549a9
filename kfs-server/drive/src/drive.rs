//! THE loop: hands a machine one input at a time and carries out what it wants.
//!
//! One task owns the machine, its disk and its links; nothing is shared, so nothing is locked. Read
//! `kfs_core::machine` for the contract it keeps.
use crate::clock::Clock;
use crate::net::{LinkEvent, Net};
use crate::{Calls, Disk};
use kfs_core::ids::Ticket;
use kfs_core::machine::{DiskOp, DiskResult, Fault, Input, Machine, Output, SyncMode};
use kfs_core::planted::{self, Bug};
use kfs_core::time::{Instant, Now};
use std::pin::Pin;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Sleep;

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
    let mut input = Input::Wake;
    loop {
        machine.handle(clock.now(), input);
        while let Some(output) = machine.poll() {
            match output {
                Output::Disk { ticket, op } => disk.submit(ticket, carried_out(op)),
                Output::Event { id, event } => calls.answer(id, event),
                Output::Halt { fault } => return Exit::Fault(fault),
                Output::Send { link, msg } => net.send(link, msg),
                Output::Dial { link, addr } => net.dial(link, addr),
                Output::Close { link } => net.close(link),
                Output::Pause { link } => net.pause(link),
                Output::Resume { link } => net.resume(link),
            }
        }
        input = loop {
            let now = clock.now();
            let deadline = machine.deadline().map(|(at, _why)| at);
            // Looked at before anything else, so that a flood of messages does not starve a heartbeat.
            if deadline.is_some_and(|at| at <= now.mono) {
                break Input::Wake;
            }
            alarm.set(now, deadline);
            tokio::select! {
                biased;
                Some((ticket, result)) = completions.recv() => break Input::Disk { ticket, result },
                event = net.next() => {
                    if let Some(input) = net.accept(event) {
                        break input;
                    }
                }
                call = calls.queue.recv() => match call {
                    Some((call, reply)) => break Input::Call { id: calls.enter(reply), call },
                    None => return Exit::Released,
                },
                () = alarm.rings() => {}
            }
        };
    }
}

impl Net {
    /// What an event of a link means for the machine; nothing for a link that it closed.
    fn accept<C>(&mut self, event: LinkEvent) -> Option<Input<C>> {
        match event {
            LinkEvent::Opened { link, peer } => {
                self.knows(link).then_some(Input::Opened { link, peer })
            }
            LinkEvent::Received { link, msg } => {
                self.knows(link).then_some(Input::Received { link, msg })
            }
            LinkEvent::Sent { link, bytes } => {
                self.knows(link).then_some(Input::Sent { link, bytes })
            }
            LinkEvent::Closed { link, why } => {
                self.forget(link).then_some(Input::Closed { link, why })
            }
            LinkEvent::Accepted { link, handle } => {
                self.adopt(link, handle);
                None
            }
        }
    }
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

/// One timer that is set anew only when the deadline moved.
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
        let earlier = self.at.zip(at).is_some_and(|(set, at)| at < set);
        if self.at != at && !(earlier && planted::is(Bug::AlarmStaysLate)) {
            self.at = at;
            if let Some(at) = at {
                // Rounded up, so that it does not ring just before its time and spin.
                let wait = at.since(now.mono) + std::time::Duration::from_micros(1);
                self.sleep
                    .as_mut()
                    .reset(tokio::time::Instant::now() + wait);
            }
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
