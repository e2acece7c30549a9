//! Replicas of chunks that are somebody's, on servers that are no members of them: copies that the log never heard
//! of, older versions, those of a member that had to make room, and what has no good header.
use crate::ids::{ChunkId, ServerIndex, Version};
use std::collections::BTreeMap;

/// Where they are, as far as their servers are there.
#[derive(Clone, Debug, Default)]
pub(in crate::meta) struct Strays {
    at: BTreeMap<(ChunkId, ServerIndex), Stray>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::meta) struct Stray {
    pub(in crate::meta) version: Version,
    /// Whether its header says that it is of this log.
    pub(in crate::meta) is_known: bool,
}

impl Strays {
    pub(in crate::meta) fn found(&mut self, server: ServerIndex, chunk: ChunkId, stray: Stray) {
        self.at.insert((chunk, server), stray);
    }
    /// It is a member's now, or was deleted.
    pub(in crate::meta) fn settled(&mut self, server: ServerIndex, chunk: ChunkId) {
        self.at.remove(&(chunk, server));
    }
    /// A server is gone; what it has is found again when it comes back.
    pub(in crate::meta) fn server_down(&mut self, server: ServerIndex) {
        self.at.retain(|(_, at), _| *at != server);
    }
    pub(in crate::meta) fn len(&self) -> usize {
        self.at.len()
    }
    /// Who has one of this chunk.
    pub(in crate::meta) fn of(&self, chunk: ChunkId) -> impl Iterator<Item = (ServerIndex, Stray)> {
        let servers = (chunk, ServerIndex(0))..=(chunk, ServerIndex(u64::MAX));
        self.at
            .range(servers)
            .map(|((_, server), stray)| (*server, *stray))
    }
    /// The chunk is nobody's any more: those there were of it.
    pub(in crate::meta) fn freed(&mut self, chunk: ChunkId) -> Vec<(ServerIndex, Stray)> {
        let freed: Vec<_> = self.of(chunk).collect();
        for (server, _) in &freed {
            self.settled(*server, chunk);
        }
        freed
    }
}
