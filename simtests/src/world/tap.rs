//! Taps: machines wrapped so that all that goes in and comes out is seen, without the machine or its driver
//! knowing. Every event goes into the run's hash (O13).
use super::shared::Shared;
use crate::observe::client::ClientObserver;
use crate::observe::overseer::{Overseen, Whose};
use crate::observe::record::Record;
use kfs_core::machine::{CloseReason, Input, Machine, Output};
use kfs_core::time::{Instant, Now};
use kfs_core::trace::{TracedCall, TracedEvent};

/// Sees what goes into a machine and what comes out.
pub trait Observer<M: Machine> {
    /// Before the machine does.
    fn input(&mut self, record: &mut Record, input: &Input<M::Call>);
    /// The number of the server; of a client any.
    fn node(&self) -> u32 {
        0
    }
    /// Before the driver does.
    fn output(&mut self, record: &mut Record, output: &Output<M::Event>);
}

/// A machine with an observer.
pub struct Tapped<M: Machine, O: Observer<M>> {
    machine: M,
    observer: O,
    record: Shared,
    name: String,
    /// When the last input came.
    now: Now,
}

impl<M: Machine, O: Observer<M>> Tapped<M, O> {
    /// Observes this machine, under this name.
    pub fn new(machine: M, observer: O, record: Shared, name: String) -> Self {
        Self {
            machine,
            observer,
            record,
            name,
            now: Now::default(),
        }
    }

    fn whose(&self) -> Whose<'_> {
        Whose {
            node: self.observer.node(),
            name: &self.name,
        }
    }
}

impl<M, O> Machine for Tapped<M, O>
where
    M: Overseen<Call: TracedCall, Event: TracedEvent>,
    O: Observer<M>,
{
    type Call = M::Call;
    type Event = M::Event;
    fn handle(&mut self, now: Now, input: Input<M::Call>) {
        {
            let mut record = self.record.lock();
            record.now_ns = now.wall.0;
            record.input(now, &self.name, &input);
            record.oversee_input::<M>(self.whose(), now, &input);
            self.observer.input(&mut record, &input);
            if let Input::Closed {
                why: CloseReason::Malformed(_),
                ..
            } = input
            {
                record.malformed += 1;
            }
        }
        self.now = now;
        self.machine.handle(now, input);
    }
    fn poll(&mut self) -> Option<Output<M::Event>> {
        let output = self.machine.poll();
        let mut record = self.record.lock();
        let Some(output) = output else {
            record.oversee_rest(self.whose(), &self.machine);
            return None;
        };
        record.output(&self.name, &output);
        record.oversee_output(self.whose(), self.now, &self.machine, &output);
        self.observer.output(&mut record, &output);
        record.ring();
        drop(record);
        Some(output)
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.machine.deadline()
    }
}

/// Says when a server is ready.
pub struct ServerObserver {
    server: usize,
}

impl ServerObserver {
    /// Of the server of this number.
    #[must_use]
    pub fn new(server: usize) -> Self {
        Self { server }
    }
}

impl Observer<kfs_core::meta::Meta> for ServerObserver {
    fn node(&self) -> u32 {
        u32::try_from(self.server).expect("a run has few servers")
    }
    fn input(&mut self, _record: &mut Record, _input: &Input<kfs_core::meta::Call>) {}
    fn output(&mut self, record: &mut Record, output: &Output<kfs_core::meta::Event>) {
        if let Output::Event {
            event: kfs_core::meta::Event::Ready { .. },
            ..
        } = output
        {
            record.server_ready(self.server);
        }
    }
}
impl Observer<kfs_core::chunk::Chunk> for ServerObserver {
    fn node(&self) -> u32 {
        u32::try_from(self.server).expect("a run has few servers")
    }
    fn input(&mut self, _record: &mut Record, _input: &Input<kfs_core::chunk::Call>) {}
    fn output(&mut self, record: &mut Record, output: &Output<kfs_core::chunk::Event>) {
        if let Output::Event {
            event: kfs_core::chunk::Event::Ready { .. },
            ..
        } = output
        {
            record.server_ready(self.server);
        }
    }
}

impl Observer<kfs_core::client::Client> for ClientObserver {
    fn input(&mut self, record: &mut Record, input: &Input<kfs_core::client::Call>) {
        Self::input(self, record, input);
    }
    fn output(&mut self, record: &mut Record, output: &Output<kfs_core::client::Event>) {
        Self::output(self, record, output);
    }
}
