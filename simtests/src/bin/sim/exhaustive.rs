//! `exhaustive`: prints what was tried and what broke.
use super::options::{ExhaustiveArgs, Shared};
use super::report::{ended, line, print, usage};
use serde_json::json;
use simtests::bare::exhaustive::{Exhaustive, Failure, Report, sequence, sequences};
use std::process::ExitCode;

pub(super) fn exhaustive(args: ExhaustiveArgs, shared: Shared) -> ExitCode {
    let all = sequences(args.depth);
    if args.only.is_some_and(|only| only >= all) {
        return usage(&format!("there are {all} sequences, the first one is 0"));
    }
    let tried = Exhaustive {
        depth: args.depth,
        every: args.every,
        only: args.only,
        seed: args.seed,
        bug: args.planted,
        jobs: shared.jobs as u64,
    };
    let report = tried.execute();
    let planted = args
        .planted
        .map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
    let paste = |failure: &Failure| {
        format!(
            "cargo sim exhaustive --depth {} --only {} --seed {}{planted}",
            args.depth, failure.sequence, args.seed
        )
    };
    if shared.json {
        document(&report, paste);
    } else {
        text(&report, paste);
    }
    ended(report.failures.is_empty() && report.sequences > 0 && report.replies > 0)
}

fn text(report: &Report, paste: impl Fn(&Failure) -> String) {
    line(
        "sequences",
        &format!("{} of {}", report.sequences, report.all),
    );
    line("power losses", &report.crashes.to_string());
    line(
        "replies",
        &format!(
            "{} confirmed; {} operations refused",
            report.replies, report.refused
        ),
    );
    line("seconds", &format!("{:.1}", report.took.as_secs_f64()));
    for failure in &report.failures {
        let (before, _) = sequence(failure.sequence);
        let when = failure.crash.map_or_else(
            || "after it".into(),
            |nth| format!("power lost after disk operation {nth} of the last one"),
        );
        say!("  VIOLATION {}", failure.violation);
        say!("  {when}, with {} files there before:", before.len());
        for job in &failure.jobs[before.len().min(failure.jobs.len())..] {
            say!("    {job:?}");
        }
        say!("  {}", paste(failure));
    }
}

fn document(report: &Report, paste: impl Fn(&Failure) -> String) {
    let failures: Vec<_> = report
        .failures
        .iter()
        .map(|failure| {
            json!({
                "sequence": failure.sequence,
                "jobs": failure.jobs,
                "crash": failure.crash,
                "oracle": failure.violation.oracle,
                "promise": failure.violation.promise,
                "what": failure.violation.what,
                "run": paste(failure),
            })
        })
        .collect();
    print(&json!({
        "sequences": report.sequences,
        "sequences_there_are": report.all,
        "power_losses": report.crashes,
        "replies_confirmed": report.replies,
        "refused": report.refused,
        "failures": failures,
        "seconds": report.took.as_secs_f64(),
    }));
}
