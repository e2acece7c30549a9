//! `list`, `run`, `sweep`, `twice`.
use super::options::{RunArgs, Shared, SweepArgs, Which, kind};
use super::report::{
    broken_json, ended, line, print, print_broken, print_totals, totals_json, usage,
};
use kfs_core::planted::Bug;
use serde_json::{Value, json};
use simtests::outcome::Outcome;
use simtests::replay::Verdict;
use simtests::run::{Kind, Run};
use simtests::sched::{Planting, Sched};
use simtests::sweep::{Broken, Sweep};
use std::fs::File;
use std::path::Path;
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

pub(super) fn list(shared: Shared) -> ExitCode {
    if shared.json {
        let scenarios: Vec<_> = Kind::all()
            .iter()
            .map(|one| json!({"name": one.to_string(), "about": one.scenario.about}))
            .collect();
        let bugs: Vec<_> = Bug::ALL
            .iter()
            .map(|bug| json!({"name": bug.name(), "promise": bug.promise(), "about": bug.about()}))
            .collect();
        print(&json!({"scenarios": scenarios, "planted": bugs}));
        return ended(true);
    }
    for one in Kind::all() {
        say!("{one:<24} {}", one.scenario.about);
    }
    say!();
    for bug in Bug::ALL {
        say!("{:<28} {:<3} {}", bug.name(), bug.promise(), bug.about());
    }
    ended(true)
}

/// A run that was asked for, and what names it.
pub(super) struct Asked {
    pub(super) run: Run,
    /// As it is said in a line to paste.
    pub(super) named: String,
}

impl Which {
    /// The run.
    ///
    /// # Errors
    /// One line: what is wrong with what was asked for.
    pub(super) fn asked(&self) -> Result<Asked, String> {
        let path = Path::new(&self.what);
        if path.extension().is_some_and(|end| end == "sched") {
            if self.seed.is_some() {
                return Err("a .sched file says its seed itself".into());
            }
            let sched = Sched::read(path)?;
            let mut run = sched.run(Planting::AsFound)?;
            run.bug = self.planted.or(run.bug);
            let named = self.what.clone();
            return Ok(Asked { run, named });
        }
        let kind = kind(&self.what)?;
        let seed = self.seed.ok_or("a scenario needs --seed N")?;
        let mut run = Run::of(kind, seed);
        run.bug = self.planted;
        let planted = run
            .bug
            .map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
        let named = format!("{kind} --seed {seed}{planted}");
        Ok(Asked { run, named })
    }
}

pub(super) fn run(args: RunArgs, shared: Shared) -> ExitCode {
    let mut asked = match args.which.asked() {
        Ok(asked) => asked,
        Err(why) => return usage(&why),
    };
    if let Some(path) = args.trace {
        match File::create(&path) {
            Ok(file) => asked.run.trace = Some(file),
            Err(why) => return usage(&format!("cannot write {}: {why}", path.display())),
        }
    }
    let Outcome {
        violation,
        hash,
        totals,
        ..
    } = asked.run.execute();
    let paste = format!("cargo sim run {}", asked.named);
    if shared.json {
        let mut document = totals_json(&totals);
        document["hash"] = json!(format!("{hash:016x}"));
        document["violation"] = broken_json(violation.as_ref(), &paste);
        print(&document);
    } else {
        print_totals(&totals);
        line("events' hash", &format!("{hash:016x}"));
        print_broken(violation.as_ref(), &paste);
    }
    ended(violation.is_none())
}

/// The kinds that a word stands for: one, those of a simulator, those of it that are drawn, or all.
pub(super) fn kinds(word: Option<&str>) -> Result<Vec<Kind>, String> {
    let Some(word) = word else {
        return Ok(Kind::all());
    };
    let (simulator, is_drawn) = match word.split_once(':') {
        Some((simulator, "drawn")) => (simulator, true),
        _ => (word, false),
    };
    let of_one: Vec<Kind> = Kind::all()
        .into_iter()
        .filter(|kind| kind.simulator.name() == simulator)
        .filter(|kind| !is_drawn || kind.scenario.is_drawn())
        .collect();
    if of_one.is_empty() {
        return kind(word).map(|kind| vec![kind]);
    }
    Ok(of_one)
}

pub(super) fn sweep(args: SweepArgs, shared: Shared) -> ExitCode {
    let kinds = match kinds(args.scenario.as_deref()) {
        Ok(kinds) => kinds,
        Err(why) => return usage(&why),
    };
    let sweep = Sweep {
        kinds,
        seeds: args.seeds,
        bug: args.planted,
        jobs: shared.jobs,
        longest: args
            .minutes
            .map(|minutes| Duration::from_secs(60 * minutes)),
    };
    let swept = sweep.execute();
    let shortfalls = swept.shortfalls(&sweep.kinds);
    let broken = swept.broken.as_ref();
    let paste = broken.map_or_else(String::new, Broken::paste);
    let violation = broken.map(|broken| &broken.violation);
    let speed = swept.speed();
    if shared.json {
        let mut document = totals_json(&swept.totals);
        document["seconds"] = json!(speed.seconds);
        document["simulated_seconds_per_second"] = json!(speed.simulated_per_second);
        document["runs_per_minute"] = json!(speed.runs_per_minute);
        document["events_per_second"] = json!(speed.events_per_second);
        document["acked_per_second"] = json!(speed.acked_per_second);
        document["rss_peak_bytes"] = json!(speed.rss_peak_bytes);
        document["violation"] = broken_json(violation, &paste);
        document["shortfalls"] = json!(shortfalls);
        print(&document);
    } else {
        print_totals(&swept.totals);
        let (taken, due, never) = swept.rare_paths(&sweep.kinds);
        let mut rare = format!("{taken} of {due} were taken");
        if !never.is_empty() {
            rare = format!("{rare}; never: {}", never.join(", "));
        }
        line("rare paths", &rare);
        line(
            "speed",
            &format!(
                "{:.0} simulated seconds, {:.0} events, {:.0} acked operations per second; {:.0} runs per minute, {:.1} s in all",
                speed.simulated_per_second,
                speed.events_per_second,
                speed.acked_per_second,
                speed.runs_per_minute,
                speed.seconds
            ),
        );
        line(
            "memory",
            &format!("{} MiB at its peak", speed.rss_peak_bytes >> 20),
        );
        for shortfall in &shortfalls {
            line("TOO LITTLE DONE", shortfall);
        }
        print_broken(violation, &paste);
    }
    ended(broken.is_none() && shortfalls.is_empty())
}

pub(super) fn twice(kind: Kind, seed: u64, shared: Shared) -> ExitCode {
    let hashes: Result<Vec<String>, String> = (0..2).map(|_| elsewhere(kind, seed)).collect();
    let hashes = match hashes {
        Ok(hashes) => hashes,
        Err(why) => return usage(&why),
    };
    let same = hashes[0] == hashes[1];
    if shared.json {
        print(&json!({"seed": seed, "hashes": hashes, "same": same}));
    } else if same {
        say!("{kind} seed {seed}: {} in two processes", hashes[0]);
    } else {
        let violation = simtests::oracle::Violation::new(
            "O13",
            "the same seed gives the same events",
            format!("events' hashes {} and {}", hashes[0], hashes[1]),
        );
        let paste = format!("cargo sim twice {kind} --seed {seed}");
        print_broken(Some(&violation), &paste);
    }
    ended(same)
}

pub(super) fn replay(file: &Path, shared: Shared) -> ExitCode {
    let replayed = match simtests::replay::replay(file) {
        Ok(replayed) => replayed,
        Err(why) => return usage(&why.to_string()),
    };
    if shared.json {
        let mut document = json!({"machine": replayed.machine, "build": replayed.build});
        match &replayed.verdict {
            Verdict::Same { inputs, hash } => {
                document["inputs"] = json!(inputs);
                document["hash"] = json!(format!("{hash:016x}"));
            }
            Verdict::Differs(difference) => {
                document["differs"] = json!({
                    "input": difference.input,
                    "offset": difference.offset,
                    "words": difference.words,
                    "recorded": format!("{:016x}", difference.recorded),
                    "replayed": format!("{:016x}", difference.replayed),
                });
            }
            Verdict::Broke { input, what } => {
                document["broke"] = json!({"input": input, "what": what});
            }
        }
        print(&document);
    } else {
        say!("{replayed}");
    }
    ended(replayed.is_same())
}

/// The hash of a run in a process of its own.
fn elsewhere(kind: Kind, seed: u64) -> Result<String, String> {
    let exe = std::env::current_exe().map_err(|why| why.to_string())?;
    let output = Process::new(exe)
        .args([
            "--json",
            "run",
            &kind.to_string(),
            "--seed",
            &seed.to_string(),
        ])
        .output()
        .map_err(|why| why.to_string())?;
    let document: Value = serde_json::from_slice(&output.stdout)
        .map_err(|why| format!("a run in another process said nothing usable: {why}"))?;
    let hash = document["hash"].as_str();
    hash.map(str::to_owned)
        .ok_or_else(|| "a run without a hash".into())
}
