//! `planted`: plants each mistake and says how soon it was seen, and by whom.
use super::options::{PlantedArgs, Shared};
use super::report::{ended, print};
use kfs_core::planted::Bug;
use serde_json::json;
use simtests::planted::{self, Hunt, Kills};
use std::process::ExitCode;

pub(super) fn planted(args: PlantedArgs, shared: Shared) -> ExitCode {
    let bugs: Vec<Bug> = args.bug.map_or(Bug::ALL.to_vec(), |bug| vec![bug]);
    let mut hunts = Vec::new();
    for bug in bugs {
        let hunt = planted::hunt(bug, args.most, shared.jobs);
        if !shared.json {
            say!("{hunt}");
        }
        hunts.push(hunt);
    }
    let killed = hunts.iter().filter(|hunt| hunt.kills()).count();
    let mut needed: Vec<u64> = hunts.iter().filter_map(Hunt::runs_needed).collect();
    needed.sort_unstable();
    let at = |percent: usize| needed.get((needed.len().saturating_sub(1)) * percent / 100);
    let killers = planted::killers(&hunts);
    let names = |which: fn(&Kills) -> bool| -> Vec<&str> {
        let those = killers.iter().filter(|(_, kills)| which(kills));
        those.map(|(name, _)| *name).collect()
    };
    let never_first = names(|kills| kills.first == 0);
    let blind = names(|kills| *kills == Kills::default());
    // Of one mistake most oracles have nothing to say.
    let all_see = args.bug.is_some() || blind.is_empty();
    if shared.json {
        let each: Vec<_> = hunts
            .iter()
            .map(|hunt| {
                json!({
                    "planted": hunt.bug.name(),
                    "promise": hunt.bug.promise(),
                    "killed": hunt.kills(),
                    "runs": hunt.runs,
                    "oracle": hunt.broken.as_ref().map(|broken| broken.violation.oracle),
                    "also": hunt.broken.as_ref().map(|broken| &broken.violation.also),
                    "run": hunt.broken.as_ref().map(|broken| broken.paste()),
                })
            })
            .collect();
        print(&json!({
            "planted": each,
            "killed": killed,
            "total": hunts.len(),
            "runs_to_kill_median": at(50),
            "runs_to_kill_p95": at(95),
            "kills_by_oracle": killers,
            "never_first": never_first,
            "saw_none": blind,
        }));
    } else {
        let number = |value: Option<&u64>| value.map_or("-".into(), u64::to_string);
        say!(
            "killed {killed} of {}; runs to kill: median {}, p95 {}",
            hunts.len(),
            number(at(50)),
            number(at(95))
        );
        say!("seen by   first  with others");
        for (oracle, Kills { first, with_others }) in &killers {
            say!("  {oracle:<6} {first:>6} {with_others:>12}");
        }
        let list = |names: &[&str]| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        say!("never first: {}", list(&never_first));
        if args.bug.is_none() {
            say!("saw no mistake: {}", list(&blind));
        }
    }
    ended(killed == hunts.len() && killed > 0 && all_see)
}
