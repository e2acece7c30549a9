//! A few runs of every scenario, every seed that once found a mistake, and the measure of the simulator
//! itself: planted mistakes are seen, the same seed gives the same events, an idle world does not pass.
//!
//! Run with `cargo sim-test`; without the simulator only the first test is left.

#[test]
fn a_simulation_is_never_built_without_its_runtime() {
    assert!(
        cfg!(madsim) || std::env::var_os("KFS_SIM").is_none(),
        "RUSTFLAGS in the environment dropped --cfg madsim: unset it"
    );
}

#[cfg(madsim)]
mod simulated {
    use kfs_core::planted::Bug;
    use simtests::outcome::Outcome;
    use simtests::planted::{SHOWN, hunt};
    use simtests::run::{Kind, Run};
    use simtests::sweep::{Sweep, Swept};
    use std::path::Path;

    fn kind(name: &str) -> Kind {
        Kind::named(name).expect("it is in the list")
    }
    fn run(kind: Kind, seed: u64) -> Outcome {
        Run::of(kind, seed).execute()
    }

    fn sweep(name: &str) {
        let sweep = Sweep {
            kinds: vec![kind(name)],
            seeds: 1..31,
            bug: None,
            jobs: 2,
            longest: None,
        };
        let swept = sweep.execute();
        assert!(swept.broken.is_none(), "{:?}", swept.broken);
        assert_eq!(swept.shortfalls(&sweep.kinds), Vec::<String>::new());
    }

    #[test]
    fn files_survive_everything() {
        sweep("world:files");
        sweep("bare:files");
    }
    #[test]
    fn names_survive_crashes_of_the_meta_server() {
        sweep("world:names");
        sweep("bare:names");
    }
    #[test]
    fn closed_files_survive_power_losses() {
        sweep("world:power");
        sweep("bare:power");
    }
    #[test]
    fn files_are_cut_and_made_longer_whatever_fails() {
        sweep("world:lengths");
        sweep("bare:lengths");
    }
    #[test]
    fn nothing_fails_when_nothing_fails() {
        sweep("world:clean");
        sweep("bare:clean");
    }

    #[test]
    fn seeds_that_found_a_mistake_stay_quiet() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
        for file in std::fs::read_dir(kept).expect("the kept seeds") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (name, seed) = line.split_once(' ').expect("SCENARIO SEED");
                let violation = run(kind(name), seed.parse().expect("a seed")).violation;
                assert!(violation.is_none(), "{line}: {violation:?}");
            }
        }
    }

    #[test]
    fn every_planted_mistake_is_seen() {
        for bug in Bug::ALL {
            let hunt = hunt(bug, 200, 2);
            assert!(hunt.kills(), "{hunt}");
        }
    }

    #[test]
    fn every_story_sees_the_mistake_that_it_is_shown_with() {
        for (story, bug) in SHOWN {
            let mut kinds = Kind::all();
            kinds.retain(|kind| kind.scenario.name == story);
            let sweep = Sweep {
                kinds,
                seeds: 1..61,
                bug: Some(bug),
                jobs: 2,
                longest: None,
            };
            let swept = sweep.execute();
            assert!(swept.broken.is_some(), "{story}: {}", bug.name());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_one_others() {
        for kind in Kind::all() {
            let hash = |seed| run(kind, seed).hash;
            assert_eq!(hash(5), hash(5), "{kind}");
            assert_ne!(hash(5), hash(6), "{kind}");
        }
    }

    #[test]
    fn an_idle_world_does_not_pass() {
        let kinds = Kind::all();
        let mut idle = Swept::default();
        idle.totals.runs = kinds.len() as u64;
        assert!(idle.shortfalls(&kinds).len() >= 4);
    }
}
