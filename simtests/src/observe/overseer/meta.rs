//! What is seen of the meta server: the order of its states, and what it orders.
use super::{Overseen, Overseer, Setup, Whose};
use crate::keyed::mix;
use crate::oracle::bounds::{self, Population};
use crate::oracle::log::LiveStates;
use crate::oracle::meta::StateHistory;
use crate::oracle::{Tick, Violation};
use kfs_core::ids::{LinkId, LogSeq};
use kfs_core::machine::{Input, Output};
use kfs_core::meta::{Call, Event, Meta};
use kfs_core::time::Now;
use kfs_core::wire::Head;
use std::collections::BTreeMap;

/// One state in so many is checked whole, which costs as much as there are files; all of them in one run of so
/// many.
const STATES_EVERY: u64 = 16;

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct MetaSeen {
    pub(super) history: StateHistory,
    pub(super) live: LiveStates,
    /// Links that are up, and which server said hello on them.
    links: BTreeMap<LinkId, Option<u32>>,
    /// The last state seen of this process, and how far it was durable.
    last: Option<(LogSeq, LogSeq)>,
}

impl MetaSeen {
    pub(super) fn dies(&mut self) {
        self.history.died();
        self.live.died();
        self.links.clear();
        self.last = None;
    }
}

impl Setup {
    /// Whether a state is checked whole: the first of each process is.
    fn looks_closely(&self, seq: LogSeq, last: Option<(LogSeq, LogSeq)>) -> bool {
        let due = |key: u64| mix(key).is_multiple_of(STATES_EVERY);
        last.is_none_or(|(last, _)| last < seq && (due(self.seed) || due(self.seed ^ mix(seq.0))))
    }
}

impl Overseen for Meta {
    fn takes(
        overseer: &mut Overseer,
        _: Whose<'_>,
        _: Now,
        input: &Input<Call>,
    ) -> Result<(), Violation> {
        let links = &mut overseer.meta.links;
        match input {
            Input::Opened { link, .. } => {
                links.insert(*link, None);
            }
            Input::Closed { link, .. } => {
                links.remove(link);
            }
            Input::Received { link, msg } => {
                if let Head::Hello(hello) = &msg.head
                    && let Some(server) = links.get_mut(link)
                {
                    *server = overseer.instances.get(&hello.instance).copied();
                }
            }
            Input::Wake | Input::Sent { .. } | Input::Disk { .. } | Input::Call { .. } => {}
        }
        Ok(())
    }

    fn wants(
        &self,
        overseer: &mut Overseer,
        whose: Whose<'_>,
        (_, at): (Now, Tick),
        output: &Output<Event>,
    ) -> Result<(), Violation> {
        let (link, msg) = match output {
            Output::Send { link, msg } => (link, msg),
            Output::Close { link } => {
                overseer.meta.links.remove(link);
                return Ok(());
            }
            _ => return Ok(()),
        };
        match &msg.head {
            Head::CreateChunk(_) if !overseer.hurt.contains(&0) => {
                overseer.grants.sent(whose.node, *link, msg, at)
            }
            Head::DeleteChunks(_) | Head::Verdicts(_) => {
                let server = overseer.meta.links.get(link).copied().flatten();
                match (server, self.state()) {
                    (Some(server), Some(state)) => {
                        overseer.collector.meta_sent(server, msg, state, at)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn rests(&self, overseer: &mut Overseer, whose: Whose<'_>) -> Result<(), Violation> {
        let population = Population {
            sessions: overseer.nonces.len(),
            links: overseer.meta.links.len(),
            calls: overseer.setup.calls,
        };
        overseer.judged.bounds += 1;
        bounds::meta(whose.name, &self.bounds(), population)?;
        let (Some(state), Some(durable)) = (self.state(), self.durable()) else {
            return Ok(());
        };
        let now = (state.seq(), durable);
        let last = overseer.meta.last;
        if last == Some(now) || overseer.hurt.contains(&0) {
            return Ok(());
        }
        overseer.meta.last = Some(now);
        overseer.meta.live.saw(state, durable);
        if overseer.setup.looks_closely(state.seq(), last) {
            overseer.meta.history.observe(state, durable)?;
            overseer.collector.observe(state)?;
        }
        Ok(())
    }
}
