//! How results are said: in lines, or as one JSON document.
use serde_json::{Value, json};
use simtests::oracle::Violation;
use simtests::outcome::Totals;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) fn ended(well: bool) -> ExitCode {
    ExitCode::from(u8::from(!well))
}
/// What was asked for cannot be done.
pub(super) fn usage(why: &str) -> ExitCode {
    eprintln!("sim: {why}");
    ExitCode::from(2)
}
/// Prints a line, or ends the process if nobody reads it.
pub(super) fn say(text: Arguments<'_>) {
    if writeln!(io::stdout(), "{text}").is_err() {
        std::process::exit(1);
    }
}
pub(super) fn print(value: &Value) {
    say!("{value}");
}
pub(super) fn line(what: &str, value: &str) {
    say!("{what:<23} {value}");
}

pub(super) fn print_totals(totals: &Totals) {
    line("runs", &totals.runs.to_string());
    line(
        "operations",
        &format!(
            "{} acked, {} answered, {} refused, {} failed",
            totals.acked, totals.answered, totals.refused, totals.failed
        ),
    );
    line(
        "bytes verified",
        &format!(
            "{} read by clients, {} on disks",
            totals.bytes_verified, totals.bytes_verified_on_disk
        ),
    );
    line(
        "replies",
        &format!(
            "{} confirmed, {} uncertain",
            totals.replies_certain, totals.replies_uncertain
        ),
    );
    line(
        "at rest",
        &format!(
            "{} pairs of replicas equal, {} histories undecided",
            totals.replicas_equal, totals.undecided
        ),
    );
    let judged: Vec<String> = totals
        .judged
        .iter()
        .map(|(oracle, count)| format!("{oracle} {count}"))
        .collect();
    line("judged meanwhile", &judged.join(", "));
    line(
        "crashes that dropped",
        &format!(
            "{} of {} power losses; {} operations dropped, {} writes torn",
            totals.crashes_that_dropped, totals.power_losses, totals.dropped, totals.torn
        ),
    );
    let faults: Vec<String> = totals
        .faults
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let faults = if faults.is_empty() {
        "none".into()
    } else {
        faults.join(", ")
    };
    line("faults", &faults);
    line(
        "events",
        &format!(
            "{} of machines, {} of disks",
            totals.events, totals.disk_operations
        ),
    );
    line(
        "simulated",
        &format!("{:.1} s", totals.simulated.as_secs_f64()),
    );
}

pub(super) fn totals_json(totals: &Totals) -> Value {
    json!({
        "runs": totals.runs,
        "acked": totals.acked,
        "answered": totals.answered,
        "refused": totals.refused,
        "failed": totals.failed,
        "bytes_verified": totals.bytes_verified,
        "bytes_verified_on_disk": totals.bytes_verified_on_disk,
        "replies_confirmed": totals.replies_certain,
        "replies_uncertain": totals.replies_uncertain,
        "replicas_equal": totals.replicas_equal,
        "histories_undecided": totals.undecided,
        "judged_meanwhile": totals.judged,
        "probes": totals.probes,
        "power_losses": totals.power_losses,
        "crashes_that_dropped": totals.crashes_that_dropped,
        "operations_dropped": totals.dropped,
        "writes_torn": totals.torn,
        "faults": totals.faults,
        "events": totals.events,
        "disk_operations": totals.disk_operations,
        "simulated_seconds": totals.simulated.as_secs_f64(),
    })
}

pub(super) fn print_broken(violation: Option<&Violation>, paste: &str) {
    if let Some(violation) = violation {
        line("VIOLATION", "a promise was broken");
        line("oracle", violation.oracle);
        line("promise", violation.promise);
        line("what", &violation.what);
        say!("{paste}");
    }
}

pub(super) fn broken_json(violation: Option<&Violation>, paste: &str) -> Value {
    violation.map_or(Value::Null, |violation| {
        json!({
            "oracle": violation.oracle,
            "promise": violation.promise,
            "what": violation.what,
            "run": paste,
        })
    })
}
