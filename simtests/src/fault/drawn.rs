//! Plans of faults, drawn from a seed before anything runs.
use super::spot::{Spot, Which};
use super::{Clock, Cut, Fault, MESSAGES, Party, Planned, ServerNumber, Site, Trigger};
use crate::disk::Policy;
use crate::disk::faults::{
    Access, Aim, Damage, DiskFault, Elsewhere, Errno, Target as DiskTarget, Times,
};
use crate::keyed::Keyed;

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
    /// See [`Fault::IsolateClient`], [`Fault::Apart`] and [`Fault::Split`].
    pub split: u64,
    /// See [`Fault::CutLinks`] and [`Fault::HangDials`].
    pub links: u64,
    /// See [`Fault::FlipBodies`].
    pub flip_bodies: u64,
    /// See [`Fault::Clock`].
    pub clock: u64,
    /// Any fault of a disk, and damage on it, always of the same chunkserver in one plan.
    pub sick_chunk: u64,
    /// Faults of the meta server's disk that leave what lies on it as it is.
    pub sick_meta: u64,
    /// Any fault of any disk, and damage on it.
    pub sick_any: u64,
    /// See [`Fault::SetBack`].
    pub set_back: u64,
    /// See [`Fault::CloneDisk`].
    pub clone_disk: u64,
}

impl Weights {
    /// Nothing fails.
    pub const NONE: Self = Self {
        kill_chunk: 0,
        kill_meta: 0,
        power_one: 0,
        power_some: 0,
        power_desk: 0,
        partition: 0,
        pause: 0,
        slow_disk: 0,
        kill_client: 0,
        split: 0,
        links: 0,
        flip_bodies: 0,
        clock: 0,
        sick_chunk: 0,
        sick_meta: 0,
        sick_any: 0,
        set_back: 0,
        clone_disk: 0,
    };
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
    let sick = 1 + draws.fork("the sick one").index(target.servers - 1);
    (0..faults)
        .filter_map(|nth| {
            let of_its_own = draws.fork(&format!("fault {nth}"));
            one(weights, target, draws, More::draw(target, sick, of_its_own))
        })
        .collect()
}

/// Draws when the off-line compactor runs, beside a plan that is what it would be without.
#[must_use]
pub fn compactions(target: Target, draws: &mut Keyed) -> Vec<Planned> {
    let some = if draws.percent(40) {
        draws.between(1, 3)
    } else {
        0
    };
    let mut drawn = Vec::new();
    for _ in 0..some {
        let (at_ms, at_ack) = (draws.below(target.millis), 1 + draws.below(target.acks));
        let trigger = if draws.percent(50) {
            Trigger::AtAck(at_ack)
        } else {
            Trigger::At(at_ms)
        };
        // Some are killed, most end by themselves.
        let short_ms = 1 + draws.below(100);
        let lasts_ms = if draws.percent(30) { short_ms } else { 30_000 };
        drawn.push(Planned {
            trigger,
            fault: Fault::Compact(draws.pick(&[1, 1, 1, 20, 400])),
            lasts_ms,
        });
    }
    drawn
}

/// Draws a backup and its restoration, beside a plan that is what it would be without.
#[must_use]
pub fn backups(target: Target, draws: &mut Keyed) -> Vec<Planned> {
    if !draws.percent(15) {
        return Vec::new();
    }
    let backup = Planned {
        trigger: Trigger::At(draws.below(target.millis / 2)),
        fault: Fault::Backup(draws.pick(&[1, 1, 100])),
        lasts_ms: 30_000,
    };
    let restore = Planned {
        trigger: Trigger::At(target.millis / 2 + draws.below(target.millis)),
        fault: Fault::Restore,
        lasts_ms: draws.between(5, 2_000),
    };
    vec![backup, restore]
}

fn one(weights: Weights, target: Target, draws: &mut Keyed, more: More) -> Option<Planned> {
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
        (weights.split, more.split),
        (weights.links, more.links),
        (weights.flip_bodies, more.flip_bodies),
        (weights.clock, more.clock),
        (weights.sick_chunk, more.sick_chunk),
        (weights.sick_meta, more.sick_meta),
        (weights.sick_any, more.sick_any),
        (weights.set_back, more.set_back),
        (weights.clone_disk, more.clone_disk),
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

/// One fault of each further kind, of which at most one is taken.
struct More {
    split: Fault,
    links: Fault,
    flip_bodies: Fault,
    clock: Fault,
    sick_chunk: Fault,
    sick_meta: Fault,
    sick_any: Fault,
    set_back: Fault,
    clone_disk: Fault,
}

impl More {
    fn draw(target: Target, sick: ServerNumber, mut draws: Keyed) -> Self {
        let client = draws.index(target.clients);
        let any = draws.index(target.servers);
        let chunk = 1 + draws.index(target.servers - 1);
        let other = (chunk + draws.index(target.servers - 1).max(1) - 1) % (target.servers - 1) + 1;
        let party = if draws.percent(40) {
            Party::Client(client)
        } else {
            Party::Server(any)
        };
        // Half of the servers at most stand apart, sometimes the meta server among them; clients anywhere.
        let (far, far_clients) = (draws.bits(), draws.bits());
        let apart = Site {
            servers: (0..target.servers)
                .filter(|server| far >> server & 1 == 1)
                .take((target.servers / 2).max(1))
                .collect(),
            clients: (0..target.clients)
                .filter(|client| far_clients >> client & 1 == 1)
                .collect(),
        };
        let split = match draws.below(3) {
            0 => Fault::IsolateClient(client),
            1 => Fault::Apart(client, any),
            _ => Fault::Split(apart),
        };
        let cut = draws.pick(&[Cut::Seen, Cut::HalfSeen, Cut::HalfSeen, Cut::MidFrame]);
        let links = if draws.percent(70) {
            Fault::CutLinks(party, cut)
        } else {
            Fault::HangDials(party)
        };
        let clock = Clock {
            drift_ppm: draws.pick(&[-300, -20, 0, 20, 300]),
            wall_jump_ms: draws.pick(&[-86_400_000, -1_500, 0, 1_500, 86_400_000]),
        };
        let flips = draws.pick(&[1, 1, 2, 5]);
        let set_back = draws.index(target.servers);
        let copied_ms = draws.below(target.millis);
        Self {
            split,
            links,
            flip_bodies: Fault::FlipBodies(party, flips),
            clock: Fault::Clock(any, clock),
            sick_chunk: ails(sick, Ails::InAnyWay, &mut draws.fork("chunk")),
            sick_meta: ails(0, Ails::AndKeepsItsData, &mut draws.fork("meta")),
            sick_any: ails(any, Ails::InAnyWay, &mut draws.fork("any")),
            set_back: Fault::SetBack(set_back, copied_ms),
            clone_disk: Fault::CloneDisk(chunk, other),
        }
    }
}

/// How a disk is at fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ails {
    /// Operations fail; what lies there stays.
    AndKeepsItsData,
    /// Also: what was acked is not there, or is something else.
    InAnyWay,
}

/// A disk is at fault in some way.
fn ails(server: ServerNumber, how: Ails, draws: &mut Keyed) -> Fault {
    let own = if server == 0 { "log" } else { "chunks" };
    let at = if draws.percent(70) {
        DiskTarget::Under(own.into())
    } else {
        DiskTarget::All
    };
    let times = if draws.percent(60) {
        Times::Once
    } else {
        Times::Always
    };
    let aim = Aim {
        at,
        after: draws.pick(&[0, 0, 1, 5, 20, 60]),
        times,
        seed: draws.bits(),
    };
    let on = draws.pick(&[
        Access::Read,
        Access::Read,
        Access::List,
        Access::Write,
        Access::Sync,
        Access::Name,
        Access::Change,
        Access::Any,
    ]);
    let full = draws.percent(40) && matches!(on, Access::Write | Access::Name | Access::Change);
    let with = if full { Errno::NoSpace } else { Errno::Io };
    let (seed, bytes) = (draws.bits(), draws.below(1 << 18));
    let to = draws.pick(&[Elsewhere::Offset, Elsewhere::File]);
    let nth = draws.below(40);
    let spot = Spot {
        under: if draws.percent(80) {
            own.into()
        } else {
            String::new()
        },
        which: if draws.percent(60) {
            Which::FromLast(nth)
        } else {
            Which::FromFirst(nth)
        },
        bytes: draws.pick(&[256, 512, 4_096]),
    };
    let damage = draws.pick(&Damage::ALL);
    let bits = draws.pick(&[1, 1, 2, 30]);
    let kinds = match how {
        Ails::AndKeepsItsData => 11,
        Ails::InAnyWay => 19,
    };
    let fault = match draws.below(kinds) {
        0..3 => DiskFault::Fail { on, with, aim },
        3 => DiskFault::ShortRead { aim },
        4 => DiskFault::ShortWrite { with, aim },
        5 => DiskFault::DropSync { aim },
        6 => DiskFault::ShuffleLists { seed },
        7 => DiskFault::Room { bytes },
        8 => DiskFault::Stall,
        9 => DiskFault::ReadOnly,
        10 => DiskFault::Gone,
        11 => DiskFault::CorruptRead { bits, aim },
        12 => DiskFault::LoseWrite { aim },
        13 => DiskFault::MisdirectWrite { to, aim },
        14 => DiskFault::Empty,
        _ => return Fault::Spoil(server, spot, damage),
    };
    Fault::Disk(server, fault)
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
            split: 3,
            links: 2,
            flip_bodies: 1,
            clock: 1,
            sick_chunk: 3,
            sick_meta: 1,
            sick_any: 1,
            set_back: 1,
            clone_disk: 1,
        };
        let target = Target {
            servers: 5,
            clients: 2,
            acks: 100,
            millis: 10_000,
        };
        let drawn = plan(all, 500, target, &mut Keyed::new(1, "faults"));
        let kinds: BTreeSet<&str> = drawn.iter().map(|planned| planned.fault.kind()).collect();
        let mut all_kinds = BTreeSet::from(Fault::KINDS);
        for apart in ["compact", "backup", "restore"] {
            assert!(all_kinds.remove(apart), "drawn apart");
        }
        assert_eq!(kinds, all_kinds);
        let at = |test: fn(&Trigger) -> bool| drawn.iter().any(|planned| test(&planned.trigger));
        assert!(at(|t| matches!(t, Trigger::At(_))));
        assert!(at(|t| matches!(t, Trigger::AtAck(_))));
        assert!(at(|t| matches!(t, Trigger::AtOperation(..))));
        assert!(at(|t| matches!(t, Trigger::AfterMessage(..))));
        assert!(drawn.iter().all(|planned| planned.check(5, 2).is_ok()));
        for kind in MESSAGES {
            let mut planned = drawn[0].clone();
            planned.trigger = Trigger::AfterMessage(kind.into(), 1, 0);
            assert_eq!(planned.check(5, 2), Ok(()));
        }
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

    #[test]
    fn one_chunkserver_is_sick_and_the_meta_server_keeps_its_data() {
        let weights = Weights {
            sick_chunk: 1,
            sick_meta: 1,
            ..Weights::NONE
        };
        let target = Target {
            servers: 5,
            clients: 2,
            acks: 100,
            millis: 10_000,
        };
        let drawn = plan(weights, 500, target, &mut Keyed::new(1, "faults"));
        let ailing: BTreeSet<usize> = drawn.iter().flat_map(|p| p.fault.ails()).collect();
        let hurt: BTreeSet<usize> = drawn.iter().flat_map(|p| p.fault.hurts()).collect();
        assert_eq!((ailing.len(), hurt.len()), (2, 1), "{ailing:?}, {hurt:?}");
        assert!(ailing.contains(&0) && !hurt.contains(&0));
    }
}
