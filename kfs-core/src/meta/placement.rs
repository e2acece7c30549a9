//! Chooses servers for a new chunk: a pure function of what is known of them.
//!
//! One replica on a server, spread over racks, the client's own host first; within that by free bytes, less
//! where much is being written.
use crate::ids::ServerIndex;
use crate::rng::Rng;
use core::net::IpAddr;
use std::collections::BTreeSet;

/// A live server, as it stands for a new chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) server: ServerIndex,
    pub(crate) host: IpAddr,
    /// Empty: not told.
    pub(crate) rack: String,
    /// Free bytes less what was promised since they were counted.
    pub(crate) bytes_free: u64,
    /// Chunks being written there, those just placed included.
    pub(crate) writing: u32,
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) replicas: usize,
    /// A server with fewer free bytes has no room.
    pub(crate) bytes_free_min: u64,
    /// Where the client is.
    pub(crate) client: Option<IpAddr>,
    /// Racks that have a replica already.
    pub(crate) racks_taken: BTreeSet<String>,
}

impl Wanted {
    fn has_room(&self, candidate: &Candidate) -> bool {
        candidate.bytes_free >= self.bytes_free_min
    }
    /// Whether one of these has room, and is in a rack that has no replica. A rack that was not told says nothing: such
    /// a server is taken as alone in its own.
    pub(crate) fn is_spread_by(&self, candidates: &[Candidate]) -> bool {
        let is_fresh = |at: &Candidate| at.rack.is_empty() || !self.racks_taken.contains(&at.rack);
        let mut candidates = candidates.iter();
        candidates.any(|candidate| is_fresh(candidate) && self.has_room(candidate))
    }
}

/// The servers for a chunk, head of the chain first: as many as are wanted, or all that have room.
pub(crate) fn choose(candidates: &[Candidate], wanted: &Wanted, rng: &mut Rng) -> Vec<ServerIndex> {
    let mut left: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| wanted.has_room(candidate))
        .collect();
    let mut racks = wanted.racks_taken.clone();
    let mut chosen = Vec::with_capacity(wanted.replicas);
    while chosen.len() < wanted.replicas && !left.is_empty() {
        let near =
            |candidate: &Candidate| chosen.is_empty() && wanted.client == Some(candidate.host);
        // A rack that was not told says nothing: such a server is taken as alone in its own.
        let fresh =
            |candidate: &Candidate| candidate.rack.is_empty() || !racks.contains(&candidate.rack);
        let rank = |candidate: &Candidate| (near(candidate), fresh(candidate));
        let best = left
            .iter()
            .map(|candidate| rank(candidate))
            .max()
            .expect("somebody is left");
        let weights: Vec<u64> = left
            .iter()
            .map(|candidate| {
                if rank(candidate) == best {
                    weight(candidate)
                } else {
                    0
                }
            })
            .collect();
        let picked = left.remove(draw(&weights, rng));
        racks.insert(picked.rack.clone());
        chosen.push(picked.server);
    }
    assert!(chosen.len() <= wanted.replicas, "no more than wanted");
    chosen
}

/// Free MiB, quartered by each chunk that is being written: the fewer-writing come first, ties go by space.
fn weight(candidate: &Candidate) -> u64 {
    let space = (candidate.bytes_free >> 20).clamp(1, 1 << 40);
    (space << 20 >> (2 * candidate.writing.min(20))).max(1)
}

/// An index, drawn by weight.
fn draw(weights: &[u64], rng: &mut Rng) -> usize {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    assert!(total > 0, "somebody has a weight");
    let mut at = u128::from(rng.u64()) % total;
    for (index, weight) in weights.iter().enumerate() {
        match at.checked_sub(u128::from(*weight)) {
            Some(rest) => at = rest,
            None => return index,
        }
    }
    unreachable!("the draw is below the total")
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const GIB: u64 = 1 << 30;

    fn candidate(server: u64, rack: &str, gib_free: u64) -> Candidate {
        let host = IpAddr::V4(Ipv4Addr::new(127, 0, 0, u8::try_from(server).unwrap()));
        Candidate {
            server: ServerIndex(server),
            host,
            rack: rack.into(),
            bytes_free: gib_free * GIB,
            writing: 0,
        }
    }
    fn wanted(replicas: usize) -> Wanted {
        Wanted {
            replicas,
            bytes_free_min: GIB,
            client: None,
            racks_taken: BTreeSet::new(),
        }
    }

    #[test]
    fn no_server_is_chosen_twice_and_none_without_room() {
        let servers = [
            candidate(1, "", 5),
            candidate(2, "", 0),
            candidate(3, "", 5),
        ];
        for seed in 0..100 {
            let mut chosen = choose(&servers, &wanted(3), &mut Rng::new(seed));
            chosen.sort();
            assert_eq!(chosen, [ServerIndex(1), ServerIndex(3)]);
        }
    }

    #[test]
    fn replicas_are_spread_over_racks_while_there_are_racks() {
        let servers = [
            candidate(1, "a", 9),
            candidate(2, "a", 9),
            candidate(3, "b", 1),
            candidate(4, "a", 9),
            candidate(5, "c", 1),
        ];
        for seed in 0..100 {
            let chosen = choose(&servers, &wanted(3), &mut Rng::new(seed));
            assert!(
                chosen.contains(&ServerIndex(3)) && chosen.contains(&ServerIndex(5)),
                "seed {seed}: {chosen:?}"
            );
        }
    }

    #[test]
    fn the_clients_own_host_is_the_head() {
        let servers = [
            candidate(1, "", 900),
            candidate(2, "", 2),
            candidate(3, "", 900),
        ];
        let client = Some(servers[1].host);
        for seed in 0..100 {
            let chosen = choose(
                &servers,
                &Wanted {
                    client,
                    ..wanted(2)
                },
                &mut Rng::new(seed),
            );
            assert_eq!(chosen[0], ServerIndex(2));
        }
    }

    #[test]
    fn more_space_and_less_writing_draw_more() {
        let mut servers = [
            candidate(1, "", 10),
            candidate(2, "", 90),
            candidate(3, "", 90),
        ];
        servers[2].writing = 4;
        let mut heads = [0_u32; 4];
        for seed in 0..1_000 {
            heads[usize::try_from(choose(&servers, &wanted(1), &mut Rng::new(seed))[0].0)
                .unwrap()] += 1;
        }
        assert!(
            heads[2] > 800 && heads[1] > 50 && heads[3] < 30,
            "{heads:?}"
        );
    }
}
