//! `shrink` and `draw`: from a failing run to what a person can look at.
use super::options::{DrawArgs, Shared, ShrinkArgs};
use super::report::{ended, line, print, usage};
use serde_json::json;
use simtests::draw;
use simtests::run::{Run, Watching};
use simtests::sched::Sched;
use simtests::shrink::Shrink;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn shrink(args: ShrinkArgs, shared: Shared) -> ExitCode {
    let asked = match args.which.asked() {
        Ok(asked) => asked,
        Err(why) => return usage(&why),
    };
    let Run {
        simulator,
        schedule,
        bug,
        ..
    } = asked.run;
    let shrink = Shrink {
        simulator,
        schedule: (*schedule).clone(),
        bug,
        longest: Duration::from_secs(60 * args.minutes),
    };
    let Some(shrunk) = shrink.execute() else {
        return usage(&format!(
            "{} breaks no promise: there is nothing to shrink",
            asked.named
        ));
    };
    let name = format!(
        "{}-{}-{}",
        simulator.name(),
        schedule.seed,
        shrunk.violation.oracle.to_lowercase()
    );
    let sched = Sched::new(
        asked.named.clone(),
        simulator,
        bug,
        shrunk.schedule.clone(),
        Some(&shrunk.violation),
    );
    let file = args.out.join(format!("{name}.sched"));
    let test = args.out.join(format!("{name}.rs"));
    let written = std::fs::create_dir_all(&args.out)
        .and_then(|()| std::fs::write(&file, sched.text()))
        .and_then(|()| std::fs::write(&test, sched.test(&name)));
    if let Err(why) = written {
        return usage(&format!("cannot write to {}: {why}", args.out.display()));
    }
    let count = |before: usize, after: usize| format!("{after} of {before}");
    let sizes = [
        ("jobs", count(schedule.jobs(), shrunk.schedule.jobs())),
        (
            "faults",
            count(schedule.faults.len(), shrunk.schedule.faults.len()),
        ),
        ("servers", count(schedule.servers, shrunk.schedule.servers)),
        (
            "clients",
            count(schedule.clients.len(), shrunk.schedule.clients.len()),
        ),
    ];
    if shared.json {
        print(&json!({
            "sched": file, "test": test, "runs": shrunk.runs, "minimal": shrunk.minimal,
            "jobs": shrunk.schedule.jobs(), "faults": shrunk.schedule.faults.len(),
            "servers": shrunk.schedule.servers, "oracle": shrunk.violation.oracle,
            "promise": shrunk.violation.promise, "what": shrunk.violation.what,
        }));
        return ended(true);
    }
    for (what, left) in sizes {
        line(what, &format!("{left} left"));
    }
    for planned in &shrunk.schedule.faults {
        line("fault", &format!("{planned:?}"));
    }
    let why = if shrunk.minimal {
        "nothing more can be left out"
    } else {
        "the time was up"
    };
    line("runs", &format!("{}; {why}", shrunk.runs));
    line("breaks", &shrunk.violation.to_string());
    line("again", &format!("cargo sim run {}", file.display()));
    line("picture", &format!("cargo sim draw {}", file.display()));
    line("test to paste", &test.display().to_string());
    ended(true)
}

pub(super) fn draw(args: DrawArgs, shared: Shared) -> ExitCode {
    let mut asked = match args.which.asked() {
        Ok(asked) => asked,
        Err(why) => return usage(&why),
    };
    asked.run.watching = Watching::Closely;
    let (simulator, seed) = (asked.run.simulator, asked.run.schedule.seed);
    let paste = format!("cargo sim run {}", asked.named);
    let outcome = asked.run.execute();
    let Some(told) = outcome.told else {
        return usage("nothing was told of the run");
    };
    let violation = outcome.violation.as_ref();
    let story = told.story(
        asked.named.clone(),
        paste,
        violation.map(|violation| (outcome.ended_ns, violation)),
    );
    let beside = Path::new(&args.which.what).with_extension("html");
    let page = args.out.unwrap_or_else(|| {
        if args.which.seed.is_some() {
            format!("{}-{seed}.html", simulator.name()).into()
        } else {
            beside
        }
    });
    if let Err(why) = std::fs::write(&page, draw::html(&story)) {
        return usage(&format!("cannot write {}: {why}", page.display()));
    }
    if shared.json {
        print(&json!({"page": page, "moments": story.moments.len()}));
    } else {
        line("page", &page.display().to_string());
        line("moments", &story.moments.len().to_string());
    }
    ended(true)
}
