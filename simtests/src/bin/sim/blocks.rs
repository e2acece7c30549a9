//! `faults-sweep`: prints what was damaged, what came of it, and what broke.
use super::options::{FaultsArgs, Shared};
use super::report::{ended, print, usage};
use serde_json::json;
use simtests::bare::blocks::{Blocks, Failure, Outcome, Report};
use simtests::scenario::{Scenario, told};
use simtests::schedule::Class;
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn sweep(args: FaultsArgs, shared: Shared) -> ExitCode {
    let scenarios: Vec<Scenario> = match args.scenario.as_deref() {
        None if args.only.is_some() => return usage("--only needs a scenario"),
        // Of a log that lost its end a start may refuse what it could use otherwise.
        None => {
            let all = told::basics::ALL.into_iter();
            all.filter(|story| (story.draw)(args.seed).class == Class::Live)
                .collect()
        }
        Some(name) => {
            let name = name.strip_prefix("bare:").unwrap_or(name);
            match Scenario::named(name) {
                Some(scenario) => vec![scenario],
                None => return usage(&format!("no scenario '{name}'; see 'sim list'")),
            }
        }
    };
    let mut well = true;
    let mut documents = Vec::new();
    for scenario in scenarios {
        let blocks = Blocks {
            scenario,
            seed: args.seed,
            block_bytes: args.block,
            every: args.every,
            only: args.only.clone(),
            bug: args.planted,
            jobs: shared.jobs as u64,
            longest: args
                .minutes
                .map(|minutes| Duration::from_secs(60 * minutes)),
        };
        let report = blocks.execute();
        let is_well = match &report.only {
            Some(tried) => !tried.outcome.is_failure(),
            None => report.is_well(),
        };
        well &= is_well;
        let planted = args
            .planted
            .map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
        let paste = |failure: &Failure| {
            format!(
                "cargo sim faults-sweep {} --seed {} --only {}{planted}",
                scenario.name, args.seed, failure.case
            )
        };
        if shared.json {
            documents.push(document(&scenario, &report, paste));
        } else {
            text(&scenario, &report, paste);
        }
    }
    if shared.json {
        print(&json!({"scenarios": documents}));
    }
    ended(well)
}

fn text(scenario: &Scenario, report: &Report, paste: impl Fn(&Failure) -> String) {
    if let Some(violation) = &report.unsound {
        say!(
            "{}: VIOLATION before anything was damaged: {violation}",
            scenario.name
        );
        return;
    }
    if let Some(tried) = &report.only {
        say!("{}: {}", tried.outcome.name(), tried.told);
        return;
    }
    let heads = Outcome::ALL.map(|outcome| format!("{:>9}", outcome.name()));
    say!("{:<22} {:<10} {}", scenario.name, "damage", heads.concat());
    for ((kind, damage), tally) in &report.table {
        let counts = tally.map(|count| format!("{count:>9}"));
        say!("  {:<20} {damage:<10} {}", kind.name(), counts.concat());
    }
    let sums = Outcome::ALL.map(|outcome| format!("{:>9}", report.count(outcome)));
    say!("  {:<20} {:<10} {}", "all", "", sums.concat());
    say!(
        "  {} of {} blocks swept in {} files, 8 damages each: {} tried, {} bytes read back, {:.1} s{}",
        report.blocks_swept,
        report.blocks_there,
        report.files,
        report.cases,
        report.bytes_verified,
        report.took.as_secs_f64(),
        if report.complete {
            ""
        } else {
            "; the time was up"
        },
    );
    if report.blocks_swept != report.blocks_due {
        let due = report.blocks_due;
        say!("  VIOLATION {due} blocks were to be swept");
    }
    for (_, failure) in &report.failures {
        let Failure { case, kind, tried } = failure;
        say!(
            "  VIOLATION {} ({}), {case}: {}",
            tried.outcome.name(),
            kind.name(),
            tried.told
        );
        say!("  {}", paste(failure));
    }
}

fn document(
    scenario: &Scenario,
    report: &Report,
    paste: impl Fn(&Failure) -> String,
) -> serde_json::Value {
    let table: Vec<_> = report
        .table
        .iter()
        .map(|((kind, damage), tally)| {
            let mut row = json!({"kind": kind.name(), "damage": damage});
            for (outcome, count) in Outcome::ALL.into_iter().zip(tally) {
                row[outcome.name()] = json!(count);
            }
            row
        })
        .collect();
    let mut sums = json!({});
    for outcome in Outcome::ALL {
        sums[outcome.name()] = json!(report.count(outcome));
    }
    let examples: Vec<_> = report
        .examples
        .iter()
        .map(|((kind, outcome), (_, told))| {
            json!({"kind": kind.name(), "outcome": outcome.name(), "told": told})
        })
        .collect();
    let failures: Vec<_> = report
        .failures
        .iter()
        .map(|(_, failure)| {
            json!({
                "case": failure.case.to_string(),
                "kind": failure.kind.name(),
                "outcome": failure.tried.outcome.name(),
                "told": failure.tried.told,
                "run": paste(failure),
            })
        })
        .collect();
    json!({
        "scenario": scenario.name,
        "unsound": report.unsound.as_ref().map(ToString::to_string),
        "table": table,
        "outcomes": sums,
        "examples": examples,
        "files": report.files,
        "blocks_there": report.blocks_there,
        "blocks_due": report.blocks_due,
        "blocks_swept": report.blocks_swept,
        "cases": report.cases,
        "bytes_verified": report.bytes_verified,
        "failures": failures,
        "complete": report.complete,
        "seconds": report.took.as_secs_f64(),
    })
}
