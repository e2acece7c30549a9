//! Faults: what goes wrong in a run. [`plan`] says when; [`drawn`] draws plans from a seed.
pub mod drawn;
pub mod plan;
pub mod spot;

pub use drawn::{Target, Weights, backups, compactions, plan};
pub use plan::{MESSAGES, Planned, Trigger};
pub use spot::Spot;

use crate::disk::Policy;
use crate::disk::faults::{Damage, DiskFault};
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
    /// No packet reaches or leaves a client.
    IsolateClient(usize),
    /// No packet passes between a client and a server.
    Apart(usize, ServerNumber),
    /// No packet passes between these servers, with their clients, and all the others.
    Split(Site),
    /// All connections of somebody break; dialing anew is possible at once.
    CutLinks(Party, Cut),
    /// Dials to somebody are not answered, and not refused either.
    HangDials(Party),
    /// In so many of the bodies that somebody sends from now on, a bit flips on the way. Where there are frames, in
    /// so many of these, anywhere.
    FlipBodies(Party, u32),
    /// A server's clock runs faster or slower, and its wall clock is off.
    Clock(ServerNumber, Clock),
    /// A server's disk is at fault.
    Disk(ServerNumber, DiskFault),
    /// A place on a server's disk that cannot be named before the run is damaged. Stays.
    Spoil(ServerNumber, Spot, Damage),
    /// A server gets its disk back as it was so many milliseconds after the clients began, and its process is
    /// killed for it; healed by a start. Stays.
    SetBack(ServerNumber, u64),
    /// A copy of the first server's disk is put into the second, whose process is killed for it and started
    /// again at once; healed by its own disk, as it was.
    CloneDisk(ServerNumber, ServerNumber),
    /// The off-line compactor runs on the meta server's disk, beside its process or without one, and gives way to it
    /// so that it is so many times slower; if it is still at work when that is healed, it is killed.
    Compact(u64),
    /// The meta server's data directory is copied, beside its process or without one, so many times slower than its
    /// disk is read; what is not finished when that is healed is given up.
    Backup(u64),
    /// The meta server gets another disk, with what the newest finished backup has, and its process is killed for it;
    /// healed by a start. Stays.
    Restore,
}

/// What hangs on one power line, or on one switch.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Site {
    /// Servers.
    pub servers: Vec<ServerNumber>,
    /// Clients.
    pub clients: Vec<usize>,
}

/// Somebody with connections.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Party {
    /// A server.
    Server(ServerNumber),
    /// A client.
    Client(usize),
}

/// How connections break.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Cut {
    /// Both ends learn it soon.
    Seen,
    /// One end learns it, the other one much later; what was on its way to that one still arrives.
    HalfSeen,
    /// A part of a frame still arrives, then both ends learn it. Where there are no frames, as [`Self::Seen`].
    MidFrame,
}

/// How a clock is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Clock {
    /// How much faster its monotonic clock runs than it should, in millionths.
    pub drift_ppm: i64,
    /// How far the wall clock jumps, in milliseconds.
    pub wall_jump_ms: i64,
}

impl Clock {
    /// As it should be.
    pub const RIGHT: Self = Self {
        drift_ppm: 0,
        wall_jump_ms: 0,
    };
}

impl Fault {
    /// The kinds there are, as they are counted.
    pub const KINDS: [&'static str; 23] = [
        "kill",
        "power-one",
        "power-some",
        "isolate",
        "one-way",
        "pause",
        "slow-disk",
        "kill-client",
        "isolate-client",
        "apart",
        "split",
        "cut-links",
        "cut-half-seen",
        "hang-dials",
        "flip-bodies",
        "clock",
        "disk",
        "spoil",
        "set-back",
        "clone-disk",
        "compact",
        "backup",
        "restore",
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
            Self::IsolateClient(_) => "isolate-client",
            Self::Apart(..) => "apart",
            Self::Split(_) => "split",
            Self::CutLinks(_, Cut::HalfSeen) => "cut-half-seen",
            Self::CutLinks(..) => "cut-links",
            Self::HangDials(_) => "hang-dials",
            Self::FlipBodies(..) => "flip-bodies",
            Self::Clock(..) => "clock",
            Self::Disk(..) => "disk",
            Self::Spoil(..) => "spoil",
            Self::SetBack(..) => "set-back",
            Self::CloneDisk(..) => "clone-disk",
            Self::Compact(_) => "compact",
            Self::Backup(_) => "backup",
            Self::Restore => "restore",
        }
    }

    /// Servers that are named.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerNumber> {
        match self {
            Self::Kill(server)
            | Self::Isolate(server)
            | Self::Pause(server)
            | Self::SlowDisk(server)
            | Self::Apart(_, server)
            | Self::CutLinks(Party::Server(server), _)
            | Self::HangDials(Party::Server(server))
            | Self::FlipBodies(Party::Server(server), _)
            | Self::Clock(server, _)
            | Self::Disk(server, _)
            | Self::Spoil(server, ..)
            | Self::SetBack(server, _) => vec![*server],
            Self::PowerLoss(site, _) | Self::Split(site) => site.servers.clone(),
            Self::OneWay(from, to) | Self::CloneDisk(from, to) => vec![*from, *to],
            Self::Compact(_) | Self::Backup(_) | Self::Restore => vec![0],
            Self::KillClient(_)
            | Self::IsolateClient(_)
            | Self::CutLinks(Party::Client(_), _)
            | Self::HangDials(Party::Client(_))
            | Self::FlipBodies(Party::Client(_), _) => Vec::new(),
        }
    }

    /// Clients that are named.
    #[must_use]
    pub fn clients(&self) -> Vec<usize> {
        match self {
            Self::PowerLoss(site, _) | Self::Split(site) => site.clients.clone(),
            Self::KillClient(client)
            | Self::IsolateClient(client)
            | Self::Apart(client, _)
            | Self::CutLinks(Party::Client(client), _)
            | Self::HangDials(Party::Client(client))
            | Self::FlipBodies(Party::Client(client), _) => vec![*client],
            Self::Kill(_)
            | Self::Isolate(_)
            | Self::OneWay(..)
            | Self::Pause(_)
            | Self::SlowDisk(_)
            | Self::CutLinks(Party::Server(_), _)
            | Self::HangDials(Party::Server(_))
            | Self::FlipBodies(Party::Server(_), _)
            | Self::Clock(..)
            | Self::Disk(..)
            | Self::Spoil(..)
            | Self::SetBack(..)
            | Self::CloneDisk(..)
            | Self::Compact(_)
            | Self::Backup(_)
            | Self::Restore => Vec::new(),
        }
    }

    /// The part of the site that goes wrong together, if it can be made smaller.
    pub fn site_mut(&mut self) -> Option<&mut Site> {
        match self {
            Self::PowerLoss(site, _) | Self::Split(site) => Some(site),
            _ => None,
        }
    }

    /// The servers whose disk fails operations or is replaced, so that a process on it may find that it cannot
    /// go on.
    #[must_use]
    pub fn ails(&self) -> Vec<ServerNumber> {
        match self {
            Self::Disk(server, _) | Self::Spoil(server, ..) | Self::SetBack(server, _) => {
                vec![*server]
            }
            Self::CloneDisk(from, to) => vec![*from, *to],
            Self::Restore => vec![0],
            _ => Vec::new(),
        }
    }

    /// The servers on whose disk something is not as a process left it afterwards: what lies there is not
    /// asked for any more.
    #[must_use]
    pub fn hurts(&self) -> Vec<ServerNumber> {
        match self {
            Self::Disk(server, fault) if spot::hurts(fault) => vec![*server],
            // Another one stands behind a checkpoint.
            Self::Spoil(0, spot, _) if spot.under.starts_with("checkpoint/") => Vec::new(),
            Self::Spoil(server, _, damage) if *damage != Damage::Unreadable => vec![*server],
            Self::SetBack(server, _) => vec![*server],
            Self::Restore => vec![0],
            // What the copy was given while it ran is gone with it.
            Self::CloneDisk(from, to) => vec![*from, *to],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(_) => f.write_str("killed"),
            Self::PowerLoss(_, policy) => write!(f, "power lost ({policy:?})"),
            Self::Isolate(_) | Self::IsolateClient(_) => f.write_str("cut off from everybody"),
            Self::OneWay(from, to) => write!(f, "nothing passes from server {from} to {to}"),
            Self::Pause(_) => f.write_str("stands still"),
            Self::SlowDisk(_) => f.write_str("a slow disk"),
            Self::KillClient(client) => write!(f, "client {client} killed"),
            Self::Apart(client, server) => {
                write!(
                    f,
                    "nothing passes between client {client} and server {server}"
                )
            }
            Self::Split(_) => f.write_str("cut off from all the others"),
            Self::CutLinks(_, Cut::Seen) => f.write_str("all connections break"),
            Self::CutLinks(_, Cut::HalfSeen) => {
                f.write_str("all connections break, and one end does not know")
            }
            Self::CutLinks(_, Cut::MidFrame) => {
                f.write_str("all connections break in the middle of a frame")
            }
            Self::HangDials(_) => f.write_str("does not answer dials"),
            Self::FlipBodies(_, times) => write!(f, "{times} sent bodies have a flipped bit"),
            Self::Clock(_, clock) => write!(
                f,
                "clock runs {} ppm fast, wall clock jumps {} ms",
                clock.drift_ppm, clock.wall_jump_ms
            ),
            Self::Disk(_, fault) => write!(f, "disk: {fault:?}"),
            Self::Spoil(_, spot, damage) => write!(f, "{damage:?}: {spot}"),
            Self::SetBack(_, ms) => write!(f, "disk set back to what it was at {ms} ms"),
            Self::CloneDisk(from, to) => {
                write!(f, "a copy of the disk of server {from} in server {to}")
            }
            Self::Compact(_) => f.write_str("a compactor runs"),
            Self::Backup(_) => f.write_str("the data directory is backed up"),
            Self::Restore => f.write_str("the newest backup is restored"),
        }
    }
}
