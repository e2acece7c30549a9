//! The plan of when which fault strikes: a part of a schedule, as text.
use super::{Fault, ServerNumber};
use serde::{Deserialize, Serialize};

/// No clock runs at half or at twice its speed.
const DRIFT_MAX_PPM: i64 = 500_000;

/// Messages around which a crash is told from no crash, for [`Trigger::AfterMessage`].
pub const MESSAGES: [&str; 18] = [
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
    "SealChunk",
    "ChunkSealed",
    "ResumeChunk",
    "ChunkResumed",
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
        if let Some(site) = self.fault.site_mut() {
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
        if let Trigger::AfterMessage(kind, ..) = &self.trigger
            && !is_message(kind)
        {
            return Err(format!("there are no messages of the kind '{kind}'"));
        }
        match &self.fault {
            Fault::CloneDisk(from, to) if from == to || *from == 0 || *to == 0 => Err(format!(
                "no copy of the disk of server {from} goes into {to}"
            )),
            Fault::Spoil(_, spot, _) if spot.bytes == 0 => Err("a block of 0 bytes".into()),
            Fault::Clock(server, clock) if clock.drift_ppm.abs() > DRIFT_MAX_PPM => {
                let ppm = clock.drift_ppm;
                Err(format!("the clock of server {server} runs {ppm} ppm fast"))
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
