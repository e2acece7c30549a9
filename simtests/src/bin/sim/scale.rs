//! `scale`: prints what each part took, and what was not as it has to be.
use super::options::{ScaleArgs, Shared};
use super::report::{ended, line, print, usage};
use serde_json::json;
use simtests::bare::scale::{Phase, Report, Scale, phase};
use std::process::ExitCode;

pub(super) fn scale(args: ScaleArgs, shared: Shared) -> ExitCode {
    let scale = Scale {
        seed: args.seed,
        servers: args.servers,
        chunks: args.chunks,
        replication: args.replication,
        file_chunks: args.file_chunks,
    };
    if let Err(why) = scale.check() {
        return usage(&why);
    }
    let report = scale.execute();
    if shared.json {
        document(&report);
    } else {
        text(&report);
    }
    ended(report.wrong.is_empty())
}

fn text(report: &Report) {
    let written = &report.written;
    line(
        "cluster",
        &format!(
            "{} chunkservers, {} replicas of {} chunks, {} files in {} directories, {} log records",
            written.servers,
            written.chunks() * u64::from(written.replication),
            written.chunks(),
            written.files(),
            written.directories(),
            written.records(),
        ),
    );
    for phase in &report.phases {
        line(
            phase.name,
            &format!(
                "{:.2} s ({:.2} s of a processor), {:.2} s simulated, {} events{}, {} MiB in memory",
                phase.took.as_secs_f64(),
                phase.worked.as_secs_f64(),
                phase.simulated.as_secs_f64(),
                phase.events,
                if phase.events > 0 {
                    format!(" ({:.0} a second)", rate(phase))
                } else {
                    String::new()
                },
                phase.resident >> 20,
            ),
        );
    }
    if let Some(cost) = Cost::of(report) {
        line(
            "meta server",
            &format!(
                "{:.0} ns to replay a record, {:.0} bytes for a chunk with its share of a file",
                cost.replay_ns, cost.chunk_bytes
            ),
        );
    }
    line("bytes verified", &report.bytes_read.to_string());
    line(
        "memory, at most",
        &format!("{} MiB", report.resident_most >> 20),
    );
    for wrong in &report.wrong {
        line("WRONG", wrong);
    }
}

fn document(report: &Report) {
    let written = &report.written;
    let phases: Vec<_> = report
        .phases
        .iter()
        .map(|phase| {
            json!({
                "phase": phase.name,
                "seconds": phase.took.as_secs_f64(),
                "processor_seconds": phase.worked.as_secs_f64(),
                "simulated_seconds": phase.simulated.as_secs_f64(),
                "events": phase.events,
                "events_per_second": rate(phase),
                "resident_bytes": phase.resident,
            })
        })
        .collect();
    let cost = Cost::of(report);
    print(&json!({
        "servers": written.servers,
        "replicas": written.chunks() * u64::from(written.replication),
        "chunks": written.chunks(),
        "files": written.files(),
        "records": written.records(),
        "phases": phases,
        "replay_ns_per_record": cost.as_ref().map(|cost| cost.replay_ns),
        "meta_bytes_per_chunk": cost.as_ref().map(|cost| cost.chunk_bytes),
        "bytes_verified": report.bytes_read,
        "resident_bytes_most": report.resident_most,
        "wrong": report.wrong,
    }));
}

/// Events a second.
#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(phase: &Phase) -> f64 {
    phase.events as f64 / phase.took.as_secs_f64().max(1e-9)
}

/// What the meta server costs.
struct Cost {
    replay_ns: f64,
    chunk_bytes: f64,
}

impl Cost {
    #[allow(clippy::cast_precision_loss, reason = "averages for people")]
    fn of(report: &Report) -> Option<Self> {
        let took = report.phase(phase::META)?.took;
        let grown = report.grown(phase::META)?;
        Some(Self {
            replay_ns: took.as_nanos() as f64 / report.written.records() as f64,
            chunk_bytes: grown as f64 / report.written.chunks() as f64,
        })
    }
}
