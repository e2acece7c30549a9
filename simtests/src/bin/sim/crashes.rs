//! `crash-everywhere`: prints what was tried and what broke.
use super::options::{EverywhereArgs, Shared};
use super::report::{ended, print, usage};
use serde_json::json;
use simtests::bare::everywhere::{Depth, Everywhere, Report};
use simtests::scenario::{Scenario, told};
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn everywhere(args: EverywhereArgs, shared: Shared) -> ExitCode {
    let scenarios: Vec<Scenario> = match args.scenario.as_deref() {
        None => told::basics::ALL.to_vec(),
        Some(name) => {
            let name = name.strip_prefix("bare:").unwrap_or(name);
            match Scenario::named(name) {
                Some(scenario) => vec![scenario],
                None => return usage(&format!("no scenario '{name}'; see 'sim list'")),
            }
        }
    };
    let mut images = 0;
    let mut well = true;
    let mut documents = Vec::new();
    if !shared.json {
        say!(
            "{:<18} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>8} {:>7}",
            "scenario",
            "I/Os",
            "messages",
            "crashes",
            "second",
            "alike",
            "images",
            "bytes",
            "failures",
            "seconds"
        );
    }
    for scenario in scenarios {
        let everywhere = Everywhere {
            scenario,
            seed: args.seed,
            images_max: args.images,
            depth: if args.once { Depth::Once } else { Depth::Twice },
            only: args.point,
            bug: args.planted,
            jobs: shared.jobs as u64,
            longest: args
                .minutes
                .map(|minutes| Duration::from_secs(60 * minutes)),
        };
        let report = everywhere.execute();
        images += report.images.len();
        let planted = args
            .planted
            .map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
        let paste = |point: u64| {
            format!(
                "cargo sim crash-everywhere {} --seed {} --point {point}{planted}",
                scenario.name, args.seed
            )
        };
        well &= report.failures.is_empty() && report.crashes > 0;
        if shared.json {
            documents.push(document(&scenario, &report, paste));
        } else {
            text(&scenario, &report, paste);
        }
    }
    if shared.json {
        print(&json!({"scenarios": documents, "images": images}));
    } else {
        say!("{images} different images of disks in all");
    }
    ended(well)
}

fn text(scenario: &Scenario, report: &Report, paste: impl Fn(u64) -> String) {
    say!(
        "{:<18} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>8} {:>7.1}{}",
        scenario.name,
        report.operations,
        report.messages,
        report.crashes,
        report.second_crashes,
        report.alike,
        report.images.len(),
        report.bytes_verified,
        report.failures.len(),
        report.took.as_secs_f64(),
        if report.complete {
            ""
        } else {
            " (not all points: the time was up, or too much broke)"
        }
    );
    for failure in &report.failures {
        say!("  VIOLATION {failure}");
        say!("  {}", paste(failure.point));
    }
}

fn document(
    scenario: &Scenario,
    report: &Report,
    paste: impl Fn(u64) -> String,
) -> serde_json::Value {
    let failures: Vec<_> = report
        .failures
        .iter()
        .map(|failure| {
            json!({
                "point": failure.point,
                "blast": failure.blast.to_string(),
                "policy": format!("{:?}", failure.policy),
                "second": failure.second,
                "oracle": failure.violation.oracle,
                "promise": failure.violation.promise,
                "what": failure.violation.what,
                "run": paste(failure.point),
            })
        })
        .collect();
    json!({
        "scenario": scenario.name,
        "operations": report.operations,
        "messages": report.messages,
        "crashes": report.crashes,
        "second_crashes": report.second_crashes,
        "alike": report.alike,
        "images": report.images.len(),
        "points_sampled": report.sampled,
        "bytes_verified": report.bytes_verified,
        "failures": failures,
        "complete": report.complete,
        "seconds": report.took.as_secs_f64(),
    })
}
