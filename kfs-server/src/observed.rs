//! A machine with counters beside it: what came in, what went out, what its disk did.
//!
//! It changes nothing and decides nothing; the pages read the counters from other threads.
use kfs_core::machine::{CloseReason, DiskDone, DiskOp, Input, Machine, Output, SyncMode};
use kfs_core::time::{Instant, Now};
use kfs_core::wire::{Head, Msg};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A machine whose inputs and outputs are counted.
#[derive(Debug)]
pub struct Observed<M> {
    machine: M,
    counts: Arc<Counts>,
}

impl<M: Machine> Observed<M> {
    /// Counts what passes in and out of `machine`.
    pub fn new(machine: M, counts: Arc<Counts>) -> Self {
        Self { machine, counts }
    }
}

/// Counters since the start of the process. Read with [`Count::get`].
#[derive(Debug)]
pub struct Counts {
    /// Messages received, by the place of their type in [`Head::TYPES`].
    received: Vec<Count>,
    /// Messages sent, likewise.
    sent: Vec<Count>,
    /// Bytes of bodies received.
    pub body_bytes_received: Count,
    /// Bytes of bodies sent.
    pub body_bytes_sent: Count,
    /// Links opened.
    pub links_opened: Count,
    /// Links that closed or could not be made.
    pub links_closed: Count,
    /// Those of them that closed because what arrived was not the protocol.
    pub links_malformed: Count,
    /// Reads done.
    pub disk_reads: Count,
    /// Bytes of these.
    pub disk_bytes_read: Count,
    /// Writes begun.
    pub disk_writes: Count,
    /// Bytes of these.
    pub disk_bytes_written: Count,
    /// Syncs begun, of files, directories, and as part of a write.
    pub disk_syncs: Count,
    /// Disk operations that failed.
    pub disk_errors: Count,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl Default for Counts {
    fn default() -> Self {
        let per_type = || Head::TYPES.iter().map(|_| Count::default()).collect();
        Self {
            received: per_type(),
            sent: per_type(),
            body_bytes_received: Count::default(),
            body_bytes_sent: Count::default(),
            links_opened: Count::default(),
            links_closed: Count::default(),
            links_malformed: Count::default(),
            disk_reads: Count::default(),
            disk_bytes_read: Count::default(),
            disk_writes: Count::default(),
            disk_bytes_written: Count::default(),
            disk_syncs: Count::default(),
            disk_errors: Count::default(),
        }
    }
}

impl Counts {
    /// Messages received, by the name of their type; types that never came are left out.
    pub fn received(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        by_name(&self.received)
    }
    /// Messages sent, likewise.
    pub fn sent(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        by_name(&self.sent)
    }

    fn on_input<C>(&self, input: &Input<C>) {
        match input {
            Input::Opened { .. } => self.links_opened.add(1),
            Input::Received { msg, .. } => {
                self.body_bytes_received.add(msg.body.len());
                of_type(&self.received, msg).add(1);
            }
            Input::Closed { why, .. } => {
                self.links_closed.add(1);
                self.links_malformed
                    .add(usize::from(matches!(why, CloseReason::Malformed(_))));
            }
            Input::Disk {
                result: Ok(DiskDone::Data(bytes)),
                ..
            } => {
                self.disk_reads.add(1);
                self.disk_bytes_read.add(bytes.len());
            }
            Input::Disk { result: Err(_), .. } => self.disk_errors.add(1),
            Input::Wake | Input::Sent { .. } | Input::Disk { .. } | Input::Call { .. } => {}
        }
    }

    fn on_output<E>(&self, output: &Output<E>) {
        match output {
            Output::Send { msg, .. } => {
                self.body_bytes_sent.add(msg.body.len());
                of_type(&self.sent, msg).add(1);
            }
            Output::Disk {
                op: DiskOp::Write { data, sync, .. },
                ..
            } => {
                self.disk_writes.add(1);
                self.disk_bytes_written
                    .add(data.iter().map(bytes::Bytes::len).sum());
                self.disk_syncs.add(usize::from(*sync == SyncMode::Now));
            }
            Output::Disk {
                op: DiskOp::Sync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncAll { .. },
                ..
            } => self.disk_syncs.add(1),
            _ => {}
        }
    }
}

fn of_type<'a>(counts: &'a [Count], msg: &Msg) -> &'a Count {
    &counts[usize::from(PLACES[usize::from(msg.head.code())])]
}

/// The place of each message type in [`Head::TYPES`], by its number: it is asked for with every message.
static PLACES: [u8; CODES] = {
    let (mut places, mut nth) = ([u8::MAX; CODES], 0);
    while nth < Head::TYPES.len() {
        let (code, _) = Head::TYPES[nth];
        assert!(nth < u8::MAX as usize);
        #[allow(clippy::cast_possible_truncation, reason = "just asserted")]
        {
            places[code as usize] = nth as u8;
        }
        nth += 1;
    }
    places
};
/// Above all numbers of message types.
const CODES: usize = 0x400;

fn by_name(counts: &[Count]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let named = Head::TYPES
        .iter()
        .zip(counts)
        .map(|((_, name), count)| (*name, count.get()));
    named.filter(|(_, count)| *count > 0)
}

impl<M: Machine> Machine for Observed<M> {
    type Call = M::Call;
    type Event = M::Event;
    fn handle(&mut self, now: Now, input: Input<M::Call>) {
        self.counts.on_input(&input);
        self.machine.handle(now, input);
    }
    fn poll(&mut self) -> Option<Output<M::Event>> {
        let output = self.machine.poll()?;
        self.counts.on_output(&output);
        Some(output)
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.machine.deadline()
    }
}
