//! Tells what happened in a run, for a picture of it: who sent what to whom, what disks did, what clients called
//! and were answered, what failed.
//!
//! It sees only what goes into machines and what comes out, so it serves both simulators. Whom a message reached
//! is known when it arrives there; of one that never arrives, from others on the same link.
use super::record::shorten;
use crate::draw::{Moment, Story, Verdict, What};
use crate::oracle::Violation;
use kfs_core::ids::LinkId;
use kfs_core::machine::{DiskOp, Input, Output, SyncMode};
use kfs_core::trace::EventHash;
use kfs_core::wire::Msg;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// Characters of a detail that are told.
const DETAIL_MAX: usize = 300;

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Telling {
    lanes: Vec<String>,
    moments: Vec<Moment>,
    /// Messages that have not arrived, by what is in them: their moments, and who sent them on which link.
    under_way: BTreeMap<u64, VecDeque<(usize, usize, LinkId)>>,
    /// Who is at the other end of a lane's link.
    peers: BTreeMap<(usize, LinkId), usize>,
    /// Disk operations that have not ended: what they are.
    operations: BTreeMap<(usize, u64), String>,
    /// Faults that have not been healed.
    faults: Vec<(usize, String)>,
}

impl Telling {
    /// The lane of this name.
    fn lane(&mut self, name: &str) -> usize {
        let known = self.lanes.iter().position(|lane| lane == name);
        known.unwrap_or_else(|| {
            self.lanes.push(name.into());
            self.lanes.len() - 1
        })
    }
    fn tell(&mut self, at_ns: u64, what: What) -> usize {
        self.moments.push(Moment { at_ns, what });
        self.moments.len() - 1
    }

    /// Something goes into a machine.
    pub fn input<C: Debug>(&mut self, at_ns: u64, name: &str, input: &Input<C>) {
        let lane = self.lane(name);
        match input {
            Input::Received { link, msg } => self.arrived(at_ns, lane, *link, msg),
            Input::Call { id, call } => {
                let text = short(call);
                self.tell(
                    at_ns,
                    What::Call {
                        lane,
                        call: id.0,
                        text,
                    },
                );
            }
            Input::Disk { ticket, result } => {
                let Some(op) = self.operations.remove(&(lane, ticket.0)) else {
                    return;
                };
                let (op, ok) = match result {
                    Ok(_) => (op, true),
                    Err(error) => (format!("{op}: {error}"), false),
                };
                self.tell(at_ns, What::Disk { lane, op, ok });
            }
            Input::Closed { why, .. } => {
                let text = format!("a link closed: {why}");
                let lane = Some(lane);
                self.tell(at_ns, What::Note { lane, text });
            }
            Input::Wake | Input::Opened { .. } | Input::Sent { .. } => {}
        }
    }

    /// Something comes out of a machine.
    pub fn output<E: Debug>(&mut self, at_ns: u64, name: &str, output: &Output<E>) {
        let lane = self.lane(name);
        match output {
            Output::Send { link, msg } => {
                let to = self.peers.get(&(lane, *link)).copied();
                let message = What::Message {
                    from: lane,
                    to: to.unwrap_or(usize::MAX),
                    arrived_ns: None,
                    name: msg.head.name().into(),
                    detail: short(&msg.head),
                };
                let moment = self.tell(at_ns, message);
                let waiting = self.under_way.entry(contents(msg)).or_default();
                waiting.push_back((moment, lane, *link));
            }
            Output::Disk { ticket, op } => {
                if let Some(text) = operation(op) {
                    self.operations.insert((lane, ticket.0), text);
                }
            }
            Output::Event { id, event } if id.0 != 0 => {
                let text = short(event);
                let ok = !text.starts_with("Failed");
                let call = id.0;
                self.tell(
                    at_ns,
                    What::Answer {
                        lane,
                        call,
                        text,
                        ok,
                    },
                );
            }
            Output::Event { event, .. } => {
                let (lane, text) = (Some(lane), short(event));
                self.tell(at_ns, What::Note { lane, text });
            }
            Output::Halt { fault } => {
                let (lane, text) = (Some(lane), format!("stops by itself: {}", fault.what));
                self.tell(at_ns, What::Note { lane, text });
            }
            Output::Dial { .. }
            | Output::Close { .. }
            | Output::Pause { .. }
            | Output::Resume { .. } => {}
        }
    }

    fn arrived(&mut self, at_ns: u64, lane: usize, link: LinkId, msg: &Msg) {
        let key = contents(msg);
        let Some(waiting) = self.under_way.get_mut(&key) else {
            return;
        };
        // The first of those that are alike and not from here.
        let Some(nth) = waiting.iter().position(|(_, from, _)| *from != lane) else {
            return;
        };
        let (moment, from, sent_on) = waiting.remove(nth).expect("it was just found");
        if waiting.is_empty() {
            self.under_way.remove(&key);
        }
        self.peers.insert((from, sent_on), lane);
        self.peers.insert((lane, link), from);
        if let What::Message { to, arrived_ns, .. } = &mut self.moments[moment].what {
            (*to, *arrived_ns) = (lane, Some(at_ns));
        }
    }

    /// A process starts or ends.
    pub fn process(&mut self, at_ns: u64, name: &str, life: Life) {
        let lane = self.lane(name);
        let up = life == Life::Begins;
        if !up {
            self.operations.retain(|(of, _), _| *of != lane);
            self.peers.retain(|(of, _), _| *of != lane);
        }
        self.tell(at_ns, What::State { lane, up });
    }

    /// Something goes wrong, at these lanes.
    pub fn fault(&mut self, at_ns: u64, names: &[&str], text: String) {
        let lanes = names.iter().map(|name| self.lane(name)).collect();
        let moment = self.tell(
            at_ns,
            What::Fault {
                lanes,
                text: text.clone(),
                healed_ns: None,
            },
        );
        self.faults.push((moment, text));
    }

    /// It is healed.
    pub fn healed(&mut self, at_ns: u64, text: &str) {
        if let Some(nth) = self.faults.iter().position(|(_, known)| known == text) {
            let (moment, _) = self.faults.remove(nth);
            if let What::Fault { healed_ns, .. } = &mut self.moments[moment].what {
                *healed_ns = Some(at_ns);
            }
        }
    }

    /// The story, with its end.
    #[must_use]
    pub fn story(
        mut self,
        title: String,
        paste: String,
        violation: Option<(u64, &Violation)>,
    ) -> Story {
        let lost = self.lanes.len();
        for moment in &mut self.moments {
            if let What::Message { to, .. } = &mut moment.what {
                *to = (*to).min(lost);
            }
        }
        Story {
            title,
            paste,
            lanes: self.lanes,
            moments: self.moments,
            verdict: violation.map(|(at_ns, violation)| Verdict {
                oracle: violation.oracle.into(),
                promise: violation.promise.into(),
                what: violation.what.clone(),
                lane: None,
                at_ns,
            }),
        }
    }
}

/// Whether a process begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It begins.
    Begins,
    /// It ends.
    Ends,
}

fn contents(msg: &Msg) -> u64 {
    let mut hash = EventHash::default();
    hash.msg(msg);
    hash.value()
}

fn short(value: &impl Debug) -> String {
    shorten(value, DETAIL_MAX)
}

/// A disk operation in words; reads are not told.
fn operation(op: &DiskOp) -> Option<String> {
    Some(match op {
        DiskOp::Read { .. } | DiskOp::List { .. } | DiskOp::Space => return None,
        DiskOp::MakeDir { dir } => format!("make directory {dir}"),
        DiskOp::Create { file, .. } => format!("create {file}"),
        DiskOp::Write {
            file,
            offset,
            data,
            sync,
        } => {
            let bytes: usize = data.iter().map(bytes::Bytes::len).sum();
            let synced = match sync {
                SyncMode::Now => ", synced",
                SyncMode::Later => "",
            };
            format!("write {bytes} bytes at {offset} of {file}{synced}")
        }
        DiskOp::Sync { file } => format!("sync {file}"),
        DiskOp::SyncDir { dir } if dir.as_str().is_empty() => "sync the data directory".into(),
        DiskOp::SyncDir { dir } => format!("sync directory {dir}"),
        DiskOp::SyncAll { dir } => format!("sync all in {dir}"),
        DiskOp::Rename { from, to } => format!("rename {from} to {to}"),
        DiskOp::Remove { file } => format!("remove {file}"),
        DiskOp::Truncate { file, len } => format!("cut {file} to {len} bytes"),
    })
}
