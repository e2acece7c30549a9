//! The durability gate: the one place where "acknowledge only what is durable" is kept.
//!
//! A machine pushes outputs; those that rest on a log record are pushed with its sequence number and
//! leave only when that much of the log is durable. Outputs of one sequence number keep their order.
use crate::ids::{CallId, LinkId, LogSeq, Ticket};
use crate::machine::{DiskOp, Fault, Output};
use crate::planted::{self, Bug};
use crate::wire::Msg;
use core::net::SocketAddr;
use std::collections::VecDeque;

/// A machine's outputs, ready or waiting for the log.
#[derive(Clone, Debug)]
pub struct Outbox<E> {
    ready: VecDeque<Output<E>>,
    waiting: VecDeque<(LogSeq, Output<E>)>,
    durable: LogSeq,
    next_ticket: Ticket,
    next_link: u64,
    halted: bool,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            durable: LogSeq(0),
            next_ticket: Ticket(1),
            next_link: 1,
            halted: false,
        }
    }
}

impl<E> Outbox<E> {
    /// Leaves at once: nothing it says rests on the log.
    pub fn push(&mut self, output: Output<E>) {
        if !self.halted {
            self.ready.push_back(output);
        }
    }
    /// Leaves when the log is durable up to `seq`. Calls must come with `seq` not falling.
    pub fn push_after(&mut self, seq: LogSeq, output: Output<E>) {
        if seq <= self.durable || planted::is(Bug::ReplyBeforeSync) {
            return self.push(output);
        }
        assert!(
            self.waiting.back().is_none_or(|(last, _)| *last <= seq),
            "gated outputs are pushed in log order"
        );
        if !self.halted {
            self.waiting.push_back((seq, output));
        }
    }
    /// The log is durable up to `seq`: what waited for it leaves.
    pub fn set_durable(&mut self, seq: LogSeq) {
        assert!(self.durable <= seq, "durability is not taken back");
        self.durable = seq;
        while self.waiting.front().is_some_and(|(after, _)| *after <= seq) {
            let (_, output) = self.waiting.pop_front().expect("the front was just seen");
            self.push(output);
        }
    }
    /// How far the log is durable.
    #[must_use]
    pub const fn durable(&self) -> LogSeq {
        self.durable
    }
    /// Outputs that wait for the log.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
    /// Sends at once.
    pub fn send(&mut self, link: LinkId, msg: Msg) {
        self.push(Output::Send { link, msg });
    }
    /// Sends when the log is durable up to `seq`.
    pub fn send_after(&mut self, seq: LogSeq, link: LinkId, msg: Msg) {
        self.push_after(seq, Output::Send { link, msg });
    }
    /// Tells the process around the machine.
    pub fn event(&mut self, id: CallId, event: E) {
        self.push(Output::Event { id, event });
    }
    /// Issues a disk operation.
    pub fn disk(&mut self, op: DiskOp) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.next();
        self.push(Output::Disk { ticket, op });
        ticket
    }
    /// Dials; the link's id is new.
    pub fn dial(&mut self, addr: SocketAddr) -> LinkId {
        let link = LinkId::dialed(self.next_link);
        self.next_link += 1;
        self.push(Output::Dial { link, addr });
        link
    }
    /// Stops the machine: nothing that waits leaves any more.
    pub fn halt(&mut self, fault: Fault) {
        self.waiting.clear();
        self.push(Output::Halt { fault });
        self.halted = true;
    }
    /// Whether the machine was stopped.
    #[must_use]
    pub const fn halted(&self) -> bool {
        self.halted
    }
    /// The next output.
    pub fn pop(&mut self) -> Option<Output<E>> {
        self.ready.pop_front()
    }
    /// Whether everything ready was taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::FaultKind;

    fn link(output: Option<Output<()>>) -> Option<u64> {
        output.map(|output| match output {
            Output::Close { link } => link.0,
            other => panic!("not a close: {other:?}"),
        })
    }

    #[test]
    fn nothing_leaves_before_its_record_is_durable() {
        let mut outbox = Outbox::<()>::default();
        outbox.push_after(LogSeq(1), Output::Close { link: LinkId(1) });
        outbox.push_after(LogSeq(2), Output::Close { link: LinkId(2) });
        assert!(outbox.pop().is_none());
        outbox.set_durable(LogSeq(1));
        assert_eq!(link(outbox.pop()), Some(1));
        assert!(outbox.pop().is_none());
        outbox.set_durable(LogSeq(2));
        assert_eq!(link(outbox.pop()), Some(2));
        outbox.push_after(LogSeq(2), Output::Close { link: LinkId(3) });
        assert_eq!(link(outbox.pop()), Some(3));
    }

    #[test]
    fn a_halt_drops_what_waits_and_what_comes_after() {
        let mut outbox = Outbox::<()>::default();
        outbox.push_after(LogSeq(1), Output::Close { link: LinkId(1) });
        outbox.halt(Fault {
            kind: FaultKind::Disk,
            what: "log".into(),
            help: None,
        });
        outbox.set_durable(LogSeq(1));
        outbox.push(Output::Close { link: LinkId(2) });
        assert!(matches!(outbox.pop(), Some(Output::Halt { .. })));
        assert!(outbox.pop().is_none());
    }
}
