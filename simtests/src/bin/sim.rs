//! `sim`: runs the simulators. Exit 0 only when no promise was broken and enough was done; 1 when one was;
//! 2 on wrong usage.
#![allow(clippy::print_stdout)] // A command speaks on its standard output.

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("sim: this build has no simulator in it; build and run it with 'cargo sim …'");
    std::process::ExitCode::from(2)
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(madsim)]
mod command {
    use clap::{Parser, Subcommand};
    use kfs_core::planted::Bug;
    use serde_json::{Value, json};
    use simtests::planted;
    use simtests::replay::Verdict;
    use simtests::world::run::{Outcome, Run, Totals, keep_panics};
    use simtests::world::scenario::{ALL, Scenario};
    use simtests::world::sweep::{Broken, Sweep, Swept};
    use std::fs::File;
    use std::ops::Range;
    use std::path::{Path, PathBuf};
    use std::process::{Command as Process, ExitCode};
    use std::time::Duration;

    /// KFS in simulation: the real machines and drivers, with faults that replay from a seed.
    #[derive(Parser, Debug)]
    #[command(name = "sim", version)]
    struct Options {
        /// One JSON document instead of text.
        #[arg(long, global = true)]
        json: bool,
        /// Threads for many runs; 0: as many as there are processors.
        #[arg(long, global = true, default_value_t = 0)]
        jobs: usize,
        #[command(subcommand)]
        what: What,
    }

    #[derive(Subcommand, Debug)]
    enum What {
        /// The scenarios and the mistakes that can be planted.
        List,
        /// One run.
        Run {
            /// Such as `world:files`.
            #[arg(value_parser = scenario)]
            scenario: Scenario,
            #[arg(long)]
            seed: u64,
            /// Writes every event of every machine there.
            #[arg(long)]
            trace: Option<PathBuf>,
            /// Plants this mistake.
            #[arg(long, value_parser = bug)]
            planted: Option<Bug>,
        },
        /// Many runs.
        Sweep {
            /// Such as `world:files`; all, if it is left out.
            #[arg(value_parser = scenario)]
            scenario: Option<Scenario>,
            /// `A..B`, B exclusive.
            #[arg(long, value_parser = seeds)]
            seeds: Range<u64>,
            /// Begins no run after so many minutes.
            #[arg(long)]
            minutes: Option<u64>,
        },
        /// The same run in two processes: every event must be the same.
        Twice {
            #[arg(value_parser = scenario)]
            scenario: Scenario,
            #[arg(long)]
            seed: u64,
        },
        /// What a real server recorded with --record: the same machine must do the same again.
        Replay { file: PathBuf },
        /// Plants each mistake and looks how soon it is seen.
        Planted {
            /// Only this one.
            #[arg(value_parser = bug)]
            bug: Option<Bug>,
            /// Runs of each scenario until a mistake counts as not seen.
            #[arg(long, default_value_t = 200)]
            most: u64,
        },
    }

    fn scenario(name: &str) -> Result<Scenario, String> {
        Scenario::named(name).ok_or_else(|| "no such scenario; see 'sim list'".into())
    }
    fn bug(name: &str) -> Result<Bug, String> {
        let found = Bug::ALL.into_iter().find(|bug| planted::name(*bug) == name);
        found.ok_or_else(|| "no such mistake; see 'sim list'".into())
    }
    fn seeds(range: &str) -> Result<Range<u64>, String> {
        let (from, to) = range.split_once("..").ok_or("expected A..B")?;
        let number = |text: &str| text.parse::<u64>().map_err(|why| why.to_string());
        let range = number(from)?..number(to)?;
        if range.is_empty() {
            return Err("the range is empty: its end is exclusive".into());
        }
        Ok(range)
    }

    pub(super) fn main() -> ExitCode {
        let options = Options::parse();
        keep_panics();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = if options.jobs == 0 {
            processors
        } else {
            options.jobs
        };
        let json = options.json;
        match options.what {
            What::List => list(json),
            What::Run {
                scenario,
                seed,
                trace,
                planted,
            } => run(scenario, seed, trace, planted, json),
            What::Sweep {
                scenario,
                seeds,
                minutes,
            } => {
                let sweep = Sweep {
                    scenarios: scenario.map_or(ALL.to_vec(), |one| vec![one]),
                    seeds,
                    bug: None,
                    jobs,
                    longest: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
                };
                report(&sweep, &sweep.execute(), json)
            }
            What::Twice { scenario, seed } => twice(scenario, seed, json),
            What::Replay { file } => replay(&file, json),
            What::Planted { bug, most } => hunt(bug, most, jobs, json),
        }
    }

    fn ended(well: bool) -> ExitCode {
        ExitCode::from(u8::from(!well))
    }
    fn print(value: &Value) {
        println!("{value}");
    }

    fn list(json: bool) -> ExitCode {
        if json {
            let scenarios: Vec<_> = ALL
                .iter()
                .map(|one| json!({"name": format!("world:{}", one.name), "about": one.about}))
                .collect();
            let bugs: Vec<_> = Bug::ALL
                .iter()
                .map(|bug| json!({"name": planted::name(*bug), "about": planted::about(*bug)}))
                .collect();
            print(&json!({"scenarios": scenarios, "planted": bugs}));
            return ended(true);
        }
        for one in ALL {
            println!("world:{:<8} {}", one.name, one.about);
        }
        println!();
        for bug in Bug::ALL {
            println!("{:<22} {}", planted::name(bug), planted::about(bug));
        }
        ended(true)
    }

    fn run(
        scenario: Scenario,
        seed: u64,
        trace: Option<PathBuf>,
        bug: Option<Bug>,
        json: bool,
    ) -> ExitCode {
        let trace = match trace.map(|path| (File::create(&path), path)) {
            None => None,
            Some((Ok(file), _)) => Some(file),
            Some((Err(why), path)) => {
                eprintln!("sim: cannot write {}: {why}", path.display());
                return ExitCode::from(2);
            }
        };
        let run = Run {
            scenario,
            seed,
            bug,
            trace,
        };
        let Outcome {
            violation,
            hash,
            totals,
        } = run.execute();
        let well = violation.is_none();
        let broken = violation.map(|violation| Broken {
            scenario: scenario.name,
            seed,
            violation,
        });
        if json {
            let mut document = totals_json(&totals);
            document["hash"] = json!(format!("{hash:016x}"));
            document["violation"] = broken_json(broken.as_ref());
            print(&document);
        } else {
            print_totals(&totals);
            println!("events' hash            {hash:016x}");
            print_broken(broken.as_ref());
        }
        ended(well)
    }

    fn report(sweep: &Sweep, swept: &Swept, json: bool) -> ExitCode {
        let shortfalls = swept.shortfalls(&sweep.scenarios);
        let seconds = swept.took.as_secs_f64().max(0.001);
        let per_second = swept.totals.simulated.as_secs_f64() / seconds;
        #[allow(clippy::cast_precision_loss)]
        let per_minute = swept.totals.runs as f64 * 60.0 / seconds;
        if json {
            let mut document = totals_json(&swept.totals);
            document["seconds"] = json!(seconds);
            document["simulated_seconds_per_second"] = json!(per_second);
            document["runs_per_minute"] = json!(per_minute);
            document["violation"] = broken_json(swept.broken.as_ref());
            document["shortfalls"] = json!(shortfalls);
            print(&document);
        } else {
            print_totals(&swept.totals);
            println!(
                "speed                   {per_second:.0} simulated seconds per second, {per_minute:.0} runs per minute, {seconds:.1} s in all"
            );
            for shortfall in &shortfalls {
                println!("TOO LITTLE DONE         {shortfall}");
            }
            print_broken(swept.broken.as_ref());
        }
        ended(swept.broken.is_none() && shortfalls.is_empty())
    }

    fn print_totals(totals: &Totals) {
        let line = |what: &str, value: String| println!("{what:<23} {value}");
        line("runs", totals.runs.to_string());
        line(
            "operations",
            format!(
                "{} acked, {} answered, {} refused, {} failed",
                totals.acked, totals.answered, totals.refused, totals.failed
            ),
        );
        line(
            "bytes verified",
            format!(
                "{} read by clients, {} on disks",
                totals.bytes_verified, totals.bytes_verified_on_disk
            ),
        );
        line(
            "replies",
            format!(
                "{} confirmed, {} uncertain",
                totals.replies_certain, totals.replies_uncertain
            ),
        );
        line(
            "crashes that dropped",
            format!(
                "{} of {} power losses; {} operations dropped, {} writes torn",
                totals.crashes_that_dropped, totals.power_losses, totals.dropped, totals.torn
            ),
        );
        let faults: Vec<String> = totals
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        line(
            "faults",
            if faults.is_empty() {
                "none".into()
            } else {
                faults.join(", ")
            },
        );
        line(
            "events",
            format!(
                "{} of machines, {} of disks",
                totals.events, totals.disk_operations
            ),
        );
        line(
            "simulated",
            format!("{:.1} s", totals.simulated.as_secs_f64()),
        );
    }

    fn totals_json(totals: &Totals) -> Value {
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

    fn paste(broken: &Broken) -> String {
        format!(
            "cargo sim run world:{} --seed {}",
            broken.scenario, broken.seed
        )
    }
    fn print_broken(broken: Option<&Broken>) {
        if let Some(broken) = broken {
            println!("VIOLATION               seed {}", broken.seed);
            println!("oracle                  {}", broken.violation.oracle);
            println!("promise                 {}", broken.violation.promise);
            println!("what                    {}", broken.violation.what);
            println!("{}", paste(broken));
        }
    }
    fn broken_json(broken: Option<&Broken>) -> Value {
        broken.map_or(Value::Null, |broken| {
            json!({
                "scenario": format!("world:{}", broken.scenario),
                "seed": broken.seed,
                "oracle": broken.violation.oracle,
                "promise": broken.violation.promise,
                "what": broken.violation.what,
                "run": paste(broken),
            })
        })
    }

    fn twice(scenario: Scenario, seed: u64, json: bool) -> ExitCode {
        let hashes: Result<Vec<String>, String> =
            (0..2).map(|_| elsewhere(scenario, seed)).collect();
        let hashes = match hashes {
            Ok(hashes) => hashes,
            Err(why) => {
                eprintln!("sim: {why}");
                return ExitCode::from(2);
            }
        };
        let same = hashes[0] == hashes[1];
        if json {
            print(&json!({"seed": seed, "hashes": hashes, "same": same}));
        } else if same {
            println!("seed {seed}: {} in two processes", hashes[0]);
        } else {
            let broken = Broken {
                scenario: scenario.name,
                seed,
                violation: simtests::oracle::Violation::new(
                    "O13",
                    "the same seed gives the same events",
                    format!("events' hashes {} and {}", hashes[0], hashes[1]),
                ),
            };
            print_broken(Some(&broken));
        }
        ended(same)
    }

    fn replay(file: &Path, json: bool) -> ExitCode {
        let replayed = match simtests::replay::replay(file) {
            Ok(replayed) => replayed,
            Err(why) => {
                eprintln!("sim: {why}");
                return ExitCode::from(2);
            }
        };
        if json {
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
            }
            print(&document);
        } else {
            println!("{replayed}");
        }
        ended(replayed.is_same())
    }

    /// The hash of a run in a process of its own.
    fn elsewhere(scenario: Scenario, seed: u64) -> Result<String, String> {
        let exe = std::env::current_exe().map_err(|why| why.to_string())?;
        let output = Process::new(exe)
            .args(["--json", "run", scenario.name, "--seed", &seed.to_string()])
            .output()
            .map_err(|why| why.to_string())?;
        let document: Value = serde_json::from_slice(&output.stdout)
            .map_err(|why| format!("a run in another process said nothing usable: {why}"))?;
        let hash = document["hash"].as_str();
        hash.map(str::to_owned)
            .ok_or_else(|| "a run without a hash".into())
    }

    fn hunt(only: Option<Bug>, most: u64, jobs: usize, json: bool) -> ExitCode {
        let bugs: Vec<Bug> = only.map_or(Bug::ALL.to_vec(), |bug| vec![bug]);
        let mut hunts = Vec::new();
        for bug in bugs {
            let hunt = planted::hunt(bug, most, jobs);
            if !json {
                println!("{hunt}");
            }
            hunts.push(hunt);
        }
        let killed = hunts.iter().filter(|hunt| hunt.kills()).count();
        let mut needed: Vec<u64> = hunts
            .iter()
            .filter_map(planted::Hunt::runs_needed)
            .collect();
        needed.sort_unstable();
        let at = |percent: usize| needed.get((needed.len().saturating_sub(1)) * percent / 100);
        if json {
            let each: Vec<_> = hunts
                .iter()
                .map(|hunt| {
                    json!({
                        "planted": planted::name(hunt.bug),
                        "killed": hunt.kills(),
                        "runs": hunt.runs,
                        "by": broken_json(hunt.broken.as_ref()),
                    })
                })
                .collect();
            print(
                &json!({"killed": killed, "total": hunts.len(), "hunts": each, "runs_median": at(50), "runs_p95": at(95)}),
            );
        } else {
            println!("killed {killed} of {}", hunts.len());
            if let (Some(median), Some(p95)) = (at(50), at(95)) {
                println!("runs to kill: median {median}, p95 {p95}");
            }
        }
        ended(killed == hunts.len())
    }
}
