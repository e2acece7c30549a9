//! What plain programs do beside the file system: which of them, in which manners, and what their rounds gave.
use super::floor::{self, Cache, Ending, Manner};
use super::median;
use super::meta::go_on;
use super::process::{Measured, run_part};
use crate::cli::failure::Failure;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// How plain programs are tried.
const BUFFERS: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// After a first round over all manners the best ones go on: the others would only cost time.
const MANNERS_KEPT: usize = 3;
const GIB: f64 = (1_u64 << 30) as f64;

/// What a plain program does for comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Floor {
    Chain1,
    Chain3,
    /// One hop, which syncs its file in the end.
    Chain1Synced,
    Read,
}

impl Floor {
    /// All ways that a plain program may do it.
    fn manners(self, direct: bool) -> Vec<Manner> {
        let caches: &[Cache] = match self {
            Self::Chain1 | Self::Chain3 | Self::Chain1Synced if direct => {
                &[Cache::Buffered, Cache::Direct]
            }
            // What is read is in memory, as what the file system reads is.
            _ => &[Cache::Buffered],
        };
        let manner = |cache: &Cache| {
            BUFFERS.map(|buffer_bytes| Manner {
                buffer_bytes,
                cache: *cache,
            })
        };
        caches.iter().flat_map(manner).collect()
    }
}

/// What rounds gave: MB/s and CPU seconds per GiB.
#[derive(Clone, Default, Debug)]
pub(super) struct Rounds {
    pub(super) mb_per_s: Vec<f64>,
    pub(super) cpu_per_gib: Vec<f64>,
    pub(super) rss_client_bytes: u64,
    pub(super) rss_chunkserver_bytes: u64,
}

impl Rounds {
    pub(super) fn add(&mut self, measured: Measured, bytes: u64) {
        self.mb_per_s.push(bytes as f64 / 1e6 / measured.seconds);
        self.cpu_per_gib.push(measured.cpu_s * GIB / bytes as f64);
        self.rss_client_bytes = self.rss_client_bytes.max(measured.rss_bytes);
    }
}

/// The plain programs of a run, in its directory.
#[derive(Debug)]
pub(super) struct Floors<'a> {
    dir: &'a Path,
    direct: bool,
    stop: &'a AtomicBool,
    rounds: BTreeMap<(Floor, Manner), Rounds>,
}

impl<'a> Floors<'a> {
    pub(super) fn new(dir: &'a Path, stop: &'a AtomicBool) -> Self {
        Self {
            dir,
            direct: floor::takes_direct(dir),
            stop,
            rounds: BTreeMap::new(),
        }
    }

    /// A round: the first one in all manners, the others in those that were best so far.
    pub(super) fn measure(&mut self, floor: Floor, bytes: u64, round: u16) -> Result<(), Failure> {
        let manners = if round == 0 {
            floor.manners(self.direct)
        } else {
            let best = self.best(floor).into_iter().take(MANNERS_KEPT);
            best.map(|(manner, _)| manner).collect()
        };
        for manner in manners {
            go_on(self.stop)?;
            let measured = self.run(floor, bytes, manner)?;
            let rounds = self.rounds.entry((floor, manner)).or_default();
            rounds.add(measured, bytes);
        }
        Ok(())
    }

    fn run(&self, floor: Floor, bytes: u64, manner: Manner) -> Result<Measured, Failure> {
        let [buffer, cache] = manner.arguments();
        let chain = |hops: &str, ending: Ending| {
            run_part(&[
                "floor-chain".into(),
                hops.into(),
                self.dir.display().to_string(),
                bytes.to_string(),
                buffer.clone(),
                cache,
                ending.name().into(),
            ])
        };
        match floor {
            Floor::Chain1 => chain("1", Ending::Written),
            Floor::Chain3 => chain("3", Ending::Written),
            Floor::Chain1Synced => chain("1", Ending::Synced),
            Floor::Read => {
                let file = floor::read_from(self.dir).display().to_string();
                run_part(&["floor-read".into(), file, bytes.to_string(), buffer])
            }
        }
    }

    /// All manners that were tried, the best one so far first.
    fn best(&self, floor: Floor) -> Vec<(Manner, &Rounds)> {
        let of = self.rounds.iter().filter(|((of, _), _)| *of == floor);
        let mut manners: Vec<_> = of.map(|((_, manner), rounds)| (*manner, rounds)).collect();
        manners.sort_by(|(_, a), (_, b)| median(&b.mb_per_s).total_cmp(&median(&a.mb_per_s)));
        manners
    }

    /// The best of those that were measured in most rounds: one lucky round does not make a floor.
    pub(super) fn steadily_best(&self, floor: Floor) -> (Manner, &Rounds) {
        let manners = self.best(floor);
        let rounds = |(_, rounds): &(Manner, &Rounds)| rounds.mb_per_s.len();
        let most = manners.iter().map(rounds).max();
        let mut steady = manners.into_iter().filter(|of| Some(rounds(of)) == most);
        steady
            .next()
            .expect("a floor is measured before it is asked for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_tries_all_buffers_and_the_disk_both_ways() {
        assert_eq!(Floor::Chain3.manners(true).len(), 8);
        assert_eq!(Floor::Chain1Synced.manners(true).len(), 8);
        assert_eq!(Floor::Chain3.manners(false).len(), 4);
        assert!(
            Floor::Read
                .manners(true)
                .iter()
                .all(|manner| manner.cache == Cache::Buffered)
        );
    }
}
