//! Scenarios of which the seed draws almost everything: sizes, speeds, what clients do and what goes wrong.
//!
//! Each run leaves some features and faults out, so that the others are met more often (swarm testing, Groce et
//! al. 2012).
use super::Scenario;
use crate::fault::{Target, Weights, backups, compactions, plan};
use crate::keyed::Keyed;
use crate::schedule::{Class, ClientPlan, Schedule, Speed};
use crate::workload::job::{self, Mix};
use kfs_core::limits::{Geometry, Limits, Timing};
use std::time::Duration;

/// What a seed draws from.
#[derive(Clone, Copy, Debug)]
struct Odds {
    class: Class,
    faults_max: u64,
    weights: Weights,
    mix: Mix,
    work: Work,
}

/// How many work on how much.
#[derive(Clone, Copy, Debug)]
struct Work {
    chunkservers: &'static [usize],
    clients: &'static [u32],
    /// Of each client, at once.
    actors: &'static [u32],
    /// Jobs of each of those.
    steps: &'static [u32],
}

/// So short that thousands of runs take minutes.
const SHORT: Work = Work {
    chunkservers: &[3, 4, 4, 5],
    clients: &[1, 2, 3],
    actors: &[1, 2],
    steps: &[12, 20, 30],
};

/// All of them.
pub const ALL: [Scenario; 8] = [
    Scenario {
        name: "files",
        about: "files written, read, replaced and removed, while everything that can fails",
        draw: |seed| draw(FILES, seed),
    },
    Scenario {
        name: "four-by-four",
        about: "as files, with some 200 calls of four clients on four servers",
        draw: |seed| draw(FOUR_BY_FOUR, seed),
    },
    Scenario {
        name: "names",
        about: "directories and names made, moved, listed and removed, while the meta server crashes",
        draw: |seed| draw(NAMES, seed),
    },
    Scenario {
        name: "power",
        about: "files written and closed, while the power of one server or of all fails",
        draw: |seed| draw(POWER, seed),
    },
    Scenario {
        name: "disks",
        about: "files written and read, while the disk of one chunkserver is sick and the meta server's falters",
        draw: |seed| draw(DISKS, seed),
    },
    Scenario {
        name: "lengths",
        about: "files cut, made longer, written on and read, while everything that can fails",
        draw: |seed| draw(LENGTHS, seed),
    },
    Scenario {
        name: "anything",
        about: "more goes wrong than can be borne: never a wrong byte, and what is lost is said",
        draw: |seed| draw(ANYTHING, seed),
    },
    Scenario {
        name: "clean",
        about: "nothing fails: every call is answered, nothing is tried twice",
        draw: |seed| draw(CLEAN, seed),
    },
];

const FILES: Odds = Odds {
    class: Class::Live,
    faults_max: 7,
    weights: Weights {
        kill_chunk: 5,
        kill_meta: 4,
        power_one: 5,
        power_some: 4,
        power_desk: 2,
        partition: 4,
        pause: 2,
        slow_disk: 3,
        kill_client: 2,
        split: 4,
        links: 5,
        flip_bodies: 1,
        clock: 2,
        ..Weights::NONE
    },
    mix: Mix {
        put: 4,
        write: 4,
        read: 5,
        names: 5,
        overwrite: 1,
        cut: 0,
    },
    work: SHORT,
};

const FOUR_BY_FOUR: Odds = Odds {
    work: Work {
        chunkservers: &[3],
        clients: &[4],
        actors: &[1],
        steps: &[17],
    },
    ..FILES
};

const NAMES: Odds = Odds {
    class: Class::Live,
    faults_max: 7,
    weights: Weights {
        kill_meta: 8,
        power_one: 3,
        power_some: 3,
        power_desk: 3,
        partition: 3,
        pause: 1,
        slow_disk: 2,
        kill_client: 3,
        ..Weights::NONE
    },
    mix: Mix {
        put: 1,
        write: 0,
        read: 1,
        names: 16,
        overwrite: 0,
        cut: 0,
    },
    work: SHORT,
};

const POWER: Odds = Odds {
    class: Class::Live,
    faults_max: 6,
    weights: Weights {
        power_one: 6,
        power_some: 6,
        power_desk: 4,
        slow_disk: 2,
        ..Weights::NONE
    },
    mix: Mix {
        put: 6,
        write: 6,
        read: 3,
        names: 2,
        overwrite: 0,
        cut: 0,
    },
    work: SHORT,
};

const DISKS: Odds = Odds {
    class: Class::Live,
    faults_max: 7,
    weights: Weights {
        kill_chunk: 2,
        kill_meta: 2,
        power_one: 2,
        power_some: 3,
        links: 1,
        sick_chunk: 12,
        sick_meta: 5,
        ..Weights::NONE
    },
    mix: Mix {
        put: 5,
        write: 5,
        read: 6,
        names: 2,
        overwrite: 0,
        cut: 0,
    },
    work: SHORT,
};

const LENGTHS: Odds = Odds {
    class: Class::Live,
    faults_max: 7,
    weights: Weights {
        kill_chunk: 5,
        kill_meta: 4,
        power_one: 5,
        power_some: 5,
        power_desk: 3,
        partition: 4,
        pause: 2,
        slow_disk: 3,
        kill_client: 4,
        split: 3,
        links: 4,
        clock: 2,
        ..Weights::NONE
    },
    mix: Mix {
        put: 3,
        write: 4,
        read: 6,
        names: 2,
        overwrite: 0,
        cut: 9,
    },
    work: SHORT,
};

const ANYTHING: Odds = Odds {
    class: Class::Safe,
    faults_max: 12,
    weights: Weights {
        kill_chunk: 2,
        kill_meta: 2,
        power_one: 2,
        power_some: 3,
        power_desk: 1,
        partition: 2,
        pause: 1,
        slow_disk: 1,
        kill_client: 1,
        split: 2,
        links: 2,
        flip_bodies: 3,
        clock: 2,
        sick_chunk: 4,
        sick_meta: 3,
        sick_any: 8,
        set_back: 3,
        clone_disk: 3,
    },
    mix: Mix {
        put: 5,
        write: 5,
        read: 6,
        names: 4,
        overwrite: 1,
        cut: 0,
    },
    work: SHORT,
};

const CLEAN: Odds = Odds {
    class: Class::Clean,
    faults_max: 0,
    weights: Weights::NONE,
    mix: Mix {
        put: 4,
        write: 4,
        read: 4,
        names: 4,
        overwrite: 1,
        cut: 0,
    },
    work: SHORT,
};

/// Draws a run.
fn draw(odds: Odds, seed: u64) -> Schedule {
    let mut draws = Keyed::new(seed, "setup");
    let block_bytes = draws.pick(&[256, 512, 1_024, 4_096]);
    let geometry = Geometry {
        block_bytes,
        chunk_blocks: draws.pick(&[8, 16]),
        piece_bytes: block_bytes * draws.pick(&[1, 2, 4]),
    };
    geometry.check();
    let block = block_bytes as usize;
    let chunkservers = draws.pick(odds.work.chunkservers);
    let clients = draws.pick(odds.work.clients);
    let actors = draws.pick(odds.work.actors);
    let steps = draws.pick(odds.work.steps);
    let mix = draw_mix(odds.mix, &mut draws);
    let target = Target {
        servers: chunkservers + 1,
        clients: clients as usize,
        acks: u64::from(actors * steps * clients),
        millis: 3_000,
    };
    let faults = draws.below(odds.faults_max + 1);
    let mut faults = plan(
        odds.weights,
        faults,
        target,
        &mut Keyed::new(seed, "faults"),
    );
    if odds.class != Class::Clean {
        let draws = &mut Keyed::new(seed, "compactions");
        faults.extend(compactions(target, draws));
    }
    if odds.class == Class::Safe {
        let draws = &mut Keyed::new(seed, "backups");
        faults.extend(backups(target, draws));
    }
    Schedule {
        seed,
        class: odds.class,
        servers: chunkservers + 1,
        replication: draws.pick(&[3, 3, 3, 2]),
        geometry,
        limits: Limits {
            piece_buffer_bytes: 16 * block,
            link_unsent_bytes: 16 * block,
            link_requests: 64,
            chunk_tables: 4,
            log_batch_bytes: draws.pick(&[8 << 10, 32 << 10]),
            log_first_segment_bytes: draws.pick(&[0, 160 << 10]),
            log_segment_bytes: 0,
            write_window_bytes: 16 * block,
            sync_every_bytes: block * draws.pick(&[2, 4, 8]),
            read_ahead_bytes: 8 * block,
        },
        timing: Timing {
            heartbeat: Duration::from_millis(draws.pick(&[200, 500])),
            serve_lease: Duration::from_millis(draws.pick(&[1_500, 3_000])),
            trash_grace: Duration::from_secs(draws.pick(&[2, 60])),
            session_idle: Duration::from_secs(draws.pick(&[12, 60])),
        },
        latency_us: draws.pick(&[(50, 400), (200, 2_000), (1_000, 10_000)]),
        loss_permille: if odds.class == Class::Clean {
            0
        } else {
            draws.pick(&[0, 0, 0, 10])
        },
        speed: Speed {
            read_us: 2_000,
            write_us: draws.pick(&[300, 3_000]),
            sync_us: draws.pick(&[2_000, 20_000, 60_000]),
        },
        buggify_permille: if odds.class == Class::Clean {
            0
        } else {
            draws.pick(&[0, 50, 250])
        },
        checkpoint_ms: Keyed::new(seed, "checkpoints").pick(&[0, 150, 600, 2_000]),
        log_mirror: Keyed::new(seed, "log mirror").percent(40),
        scrub_rate: Keyed::new(seed, "scrub").pick(&[0, 64 << 10, 1 << 20]),
        rests: false,
        clients: (0..clients)
            .map(|client| ClientPlan {
                actors: (0..actors)
                    .map(|nth| job::draw(seed, client * actors + nth, steps, mix, geometry))
                    .collect(),
            })
            .collect(),
        faults,
    }
}

/// Leaves some of it out.
fn draw_mix(mix: Mix, draws: &mut Keyed) -> Mix {
    let mut keep = |weight: u64| if draws.percent(75) { weight } else { 0 };
    let drawn = Mix {
        put: keep(mix.put),
        write: keep(mix.write),
        read: keep(mix.read),
        names: keep(mix.names),
        overwrite: keep(mix.overwrite),
        // It is what a scenario is about, or not.
        cut: mix.cut,
    };
    if drawn.put + drawn.write + drawn.names == 0 {
        return mix;
    }
    drawn
}
