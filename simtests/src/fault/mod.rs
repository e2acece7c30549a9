//! Faults, and the plan of when which one strikes, drawn from the seed before anything runs.
use crate::disk::Policy;
use crate::keyed::Keyed;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A server of a cluster; 0 is the meta server.
pub type ServerNumber = usize;

/// What goes wrong, until it is healed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Fault {
    /// `kill -9` of a server's process; healed by a start.
    Kill(ServerNumber),
    /// The power of a part of the site fails; healed by a start of all that stood there.
    PowerLoss(Site, Policy),
    /// No packet reaches or leaves a server.
    Isolate(ServerNumber),
    /// No packet goes from the first server to the second; the other way is open.
    OneWay(ServerNumber, ServerNumber),
    /// A server's process stops for a while and goes on as if nothing was.
    Pause(ServerNumber),
    /// A server's disk is fifty times slower.
    SlowDisk(ServerNumber),
    /// `kill -9` of a client's process; healed by a start of another.
    KillClient(usize),
}

/// What hangs on one power line.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Site {
    /// Servers.
    pub servers: Vec<ServerNumber>,
    /// Clients.
    pub clients: Vec<usize>,
}

impl Fault {
    /// The kinds there are, as they are counted.
    pub const KINDS: [&'static str; 8] = [
        "kill",
        "power-one",
        "power-some",
        "isolate",
        "one-way",
        "pause",
        "slow-disk",
        "kill-client",
    ];

    /// Its kind: one of [`Self::KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::PowerLoss(site, _) if site.servers.len() == 1 && site.clients.is_empty() => {
                "power-one"
            }
            Self::PowerLoss(..) => "power-some",
            Self::Isolate(_) => "isolate",
            Self::OneWay(..) => "one-way",
            Self::Pause(_) => "pause",
            Self::SlowDisk(_) => "slow-disk",
            Self::KillClient(_) => "kill-client",
        }
    }
}

/// Messages around which a crash is told from no crash, for [`Trigger::AfterMessage`].
pub const MESSAGES: [&str; 14] = [
    "Mutate",
    "Mutated",
    "SessionOpened",
    "Hello",
    "Welcome",
    "Inventory",
    "Verdicts",
    "CreateChunk",
    "ChunkCreated",
    "DeleteChunks",
    "ChainPiece",
    "ChainSync",
    "ChainSynced",
    "SyncDone",
];

/// When a fault strikes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Trigger {
    /// So many milliseconds after the start.
    At(u64),
    /// At the moment a client hears the n-th ack.
    AtAck(u64),
    /// So many milliseconds after any machine sent its n-th message of this kind.
    AfterMessage(String, u64, u64),
    /// After so many more operations of a server's disk, counted from this many milliseconds on.
    AtOperation(ServerNumber, u64, u64),
}

/// A fault of a plan.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Planned {
    /// When it strikes.
    pub trigger: Trigger,
    /// What goes wrong.
    pub fault: Fault,
    /// When it is healed, in milliseconds after it struck.
    pub lasts_ms: u64,
}

impl Fault {
    /// Servers that are named.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerNumber> {
        match self {
            Self::Kill(server)
            | Self::Isolate(server)
            | Self::Pause(server)
            | Self::SlowDisk(server) => vec![*server],
            Self::PowerLoss(site, _) => site.servers.clone(),
            Self::OneWay(from, to) => vec![*from, *to],
            Self::KillClient(_) => Vec::new(),
        }
    }
    /// Clients that are named.
    #[must_use]
    pub fn clients(&self) -> Vec<usize> {
        match self {
            Self::PowerLoss(site, _) => site.clients.clone(),
            Self::KillClient(client) => vec![*client],
            Self::Kill(_)
            | Self::Isolate(_)
            | Self::OneWay(..)
            | Self::Pause(_)
            | Self::SlowDisk(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(_) => f.write_str("killed"),
            Self::PowerLoss(_, policy) => write!(f, "power lost ({policy:?})"),
            Self::Isolate(_) => f.write_str("cut off from everybody"),
            Self::OneWay(from, to) => write!(f, "nothing passes from server {from} to {to}"),
            Self::Pause(_) => f.write_str("stands still"),
            Self::SlowDisk(_) => f.write_str("a slow disk"),
            Self::KillClient(client) => write!(f, "client {client} killed"),
        }
    }
}

impl Planned {
    /// Servers that are named.
    fn servers(&self) -> Vec<ServerNumber> {
        let mut named = self.fault.servers();
        if let Trigger::AtOperation(server, ..) = self.trigger {
            named.push(server);
        }
        named
    }
    /// Whether it names this server.
    #[must_use]
    pub fn names(&self, server: ServerNumber) -> bool {
        self.servers().contains(&server)
    }
    /// Leaves a client out of it; whether anything is left.
    pub fn without_client(&mut self, client: usize) -> bool {
        if let Fault::PowerLoss(site, _) = &mut self.fault {
            site.clients.retain(|other| *other != client);
        }
        !self.fault.clients().contains(&client)
    }
    /// Whether all that it names is there.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self, servers: usize, clients: usize) -> Result<(), String> {
        if let Some(server) = self.servers().into_iter().find(|named| *named >= servers) {
            return Err(format!(
                "a fault of server {server}, and there are {servers}"
            ));
        }
        if let Some(client) = self
            .fault
            .clients()
            .into_iter()
            .find(|named| *named >= clients)
        {
            return Err(format!(
                "a fault of client {client}, and there are {clients}"
            ));
        }
        match &self.trigger {
            Trigger::AfterMessage(kind, ..) if !is_message(kind) => {
                Err(format!("there are no messages of the kind '{kind}'"))
            }
            _ => Ok(()),
        }
    }
}

fn is_message(kind: &str) -> bool {
    kfs_core::wire::Head::TYPES
        .iter()
        .any(|(_, known)| *known == kind)
}

/// How often which fault is drawn; a weight of 0 never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weights {
    /// See [`Fault::Kill`], of a chunkserver.
    pub kill_chunk: u64,
    /// See [`Fault::Kill`], of the meta server.
    pub kill_meta: u64,
    /// See [`Fault::PowerLoss`], of one server.
    pub power_one: u64,
    /// See [`Fault::PowerLoss`], of all or many.
    pub power_some: u64,
    /// See [`Fault::PowerLoss`], of the meta server and all clients: nobody is left to ask again.
    pub power_desk: u64,
    /// See [`Fault::Isolate`] and [`Fault::OneWay`].
    pub partition: u64,
    /// See [`Fault::Pause`].
    pub pause: u64,
    /// See [`Fault::SlowDisk`].
    pub slow_disk: u64,
    /// See [`Fault::KillClient`].
    pub kill_client: u64,
}

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Servers, the meta server included.
    pub servers: usize,
    /// Clients.
    pub clients: usize,
    /// Acks that the workload is expected to reach.
    pub acks: u64,
    /// Milliseconds that it is expected to take.
    pub millis: u64,
}

/// Draws so many faults.
#[must_use]
pub fn plan(weights: Weights, faults: u64, target: Target, draws: &mut Keyed) -> Vec<Planned> {
    (0..faults)
        .filter_map(|_| one(weights, target, draws))
        .collect()
}

fn one(weights: Weights, target: Target, draws: &mut Keyed) -> Option<Planned> {
    // Each fault takes the same number of draws, so that another target does not reshuffle the rest.
    let kind = draws.bits();
    let chunk = 1 + draws.index(target.servers - 1);
    let other = (chunk + 1 + draws.index(target.servers - 1)) % target.servers;
    let any = draws.index(target.servers);
    let policy = draws.pick(&Policy::ALL);
    let spares = draws.bits();
    let with_clients = draws.percent(40);
    let one_way = draws.percent(40);
    let client = draws.index(target.clients);
    let how = draws.below(100);
    let at_ms = draws.below(target.millis);
    let at_ack = 1 + draws.below(target.acks);
    let operations = draws.below(60);
    let (message, nth) = (draws.pick(&MESSAGES), 1 + draws.below(30));
    let after_ms = draws.pick(&[0, 0, 1, 3, 10]);
    let short = draws.percent(50);
    let lasts_ms = draws.between(5, if short { 300 } else { 7_000 });
    // Everything, or the meta server and some of the others; with the clients, or without.
    let spared =
        |server: &ServerNumber| *server > 0 && spares & 1 == 1 && spares >> server & 1 == 1;
    let site = Site {
        servers: (0..target.servers)
            .filter(|server| !spared(server))
            .collect(),
        clients: (0..target.clients).filter(|_| with_clients).collect(),
    };
    let one_server = Site {
        servers: vec![any],
        clients: Vec::new(),
    };
    let desk = Site {
        servers: vec![0],
        clients: (0..target.clients).collect(),
    };
    let choices = [
        (weights.kill_chunk, Fault::Kill(chunk)),
        (weights.kill_meta, Fault::Kill(0)),
        (weights.power_one, Fault::PowerLoss(one_server, policy)),
        (weights.power_some, Fault::PowerLoss(site, policy)),
        (weights.power_desk, Fault::PowerLoss(desk, policy)),
        (
            weights.partition,
            if one_way {
                Fault::OneWay(chunk, other)
            } else {
                Fault::Isolate(any)
            },
        ),
        (weights.pause, Fault::Pause(any)),
        (weights.slow_disk, Fault::SlowDisk(any)),
        (weights.kill_client, Fault::KillClient(client)),
    ];
    let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut left = kind % total;
    let fault = choices.into_iter().find_map(|(weight, fault)| {
        if left < weight {
            return Some(fault);
        }
        left -= weight;
        None
    })?;
    let struck = match &fault {
        Fault::Kill(server) => Some(*server),
        Fault::PowerLoss(site, _) => site.servers.first().copied(),
        _ => None,
    };
    let trigger = match (struck, how) {
        (_, 0..30) => Trigger::AfterMessage(message.into(), nth, after_ms),
        (Some(server), 30..55) => Trigger::AtOperation(server, at_ms, operations),
        (_, 30..75) => Trigger::AtAck(at_ack),
        _ => Trigger::At(at_ms),
    };
    Some(Planned {
        trigger,
        fault,
        lasts_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_fault_and_trigger_is_drawn_and_a_weight_of_zero_never() {
        let all = Weights {
            kill_chunk: 1,
            kill_meta: 1,
            power_one: 1,
            power_some: 1,
            power_desk: 1,
            partition: 2,
            pause: 1,
            slow_disk: 1,
            kill_client: 1,
        };
        let target = Target {
            servers: 5,
            clients: 2,
            acks: 100,
            millis: 10_000,
        };
        let drawn = plan(all, 500, target, &mut Keyed::new(1, "faults"));
        let kinds: BTreeSet<&str> = drawn.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds, BTreeSet::from(Fault::KINDS));
        let at = |test: fn(&Trigger) -> bool| drawn.iter().any(|planned| test(&planned.trigger));
        assert!(at(|t| matches!(t, Trigger::At(_))));
        assert!(at(|t| matches!(t, Trigger::AtAck(_))));
        assert!(at(|t| matches!(t, Trigger::AtOperation(..))));
        assert!(at(|t| matches!(t, Trigger::AfterMessage(..))));
        assert!(MESSAGES.into_iter().all(is_message));
        assert!(
            !drawn
                .iter()
                .any(|p| matches!(p.fault, Fault::OneWay(a, b) if a == b))
        );
        let none = Weights {
            kill_client: 0,
            ..all
        };
        let drawn = plan(none, 500, target, &mut Keyed::new(1, "faults"));
        assert!(
            drawn
                .iter()
                .all(|planned| planned.fault.kind() != "kill-client")
        );
    }
}
