//! `planted`: plants each mistake and says how soon it was seen, and by whom.
use super::options::{PlantedArgs, Shared};
use super::report::{ended, print};
use kfs_core::planted::Bug;
use serde_json::json;
use simtests::planted::{self, Hunt};
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
    let (killers, idle) = planted::killers(&hunts);
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
            "never_kill_alone": idle,
        }));
    } else {
        let number = |value: Option<&u64>| value.map_or("-".into(), u64::to_string);
        say!(
            "killed {killed} of {}; runs to kill: median {}, p95 {}",
            hunts.len(),
            number(at(50)),
            number(at(95))
        );
        say!("seen first by:");
        for (oracle, count) in &killers {
            say!("  {oracle:<6} {count}");
        }
        let idle = if idle.is_empty() {
            "none".to_owned()
        } else {
            idle.join(", ")
        };
        say!("never kill alone: {idle}");
    }
    ended(killed == hunts.len() && killed > 0)
}
