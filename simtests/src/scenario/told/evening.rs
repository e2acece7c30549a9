//! What a writer leaves behind that members hold and others do not: nobody goes on with the file, and in the end all of
//! them hold the same, and the log says what that is.
use super::takeovers::{NAME, append, bytes, in_a_sync, slow_syncs, steps, written};
use super::{dark, draws_of, plan, planned, read, small};
use crate::fault::{Fault, Planned, Trigger};
use crate::keyed::Keyed;
use crate::scenario::Scenario;
use crate::schedule::{ClientPlan, Schedule};
use crate::workload::job::{End, Fill, Job};

/// All of them.
pub(super) const ALL: [Scenario; 2] = [
    Scenario {
        name: "writer-dies-and-nobody-goes-on",
        about: "a writer dies as the power of some of its servers fails in the middle of a sync; who has less gets copies, and servers fail as these are made",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let few = draws.pick(&[&[1][..], &[2], &[3], &[1, 2], &[2, 3], &[]]);
            let ends = in_a_sync(&mut draws);
            let mut faults = vec![planned(ends.clone(), Fault::KillClient(0), 60_000)];
            if !few.is_empty() {
                faults.push(planned(ends, dark(few, &[], &mut draws), 80));
            }
            faults.extend(in_the_evening(&mut draws));
            Schedule {
                clients: vec![plan(vec![written(&mut draws, End::Close)]), looks_on()],
                faults,
                rests: true,
                ..slow_syncs(seed)
            }
        },
    },
    Scenario {
        name: "takeover-is-broken-off-and-nobody-goes-on",
        about: "a chunk is taken over, power fails when some of its members are raised, and who asked is gone; who is not raised gets copies, and servers fail as these are made",
        draw: |seed| {
            let mut draws = draws_of(seed);
            let message = draws.pick(&["ResumeChunk", "ChunkResumed"]);
            let at = 1 + draws.below(2);
            let raised = Trigger::AfterMessage(message.into(), at, draws.below(8));
            let servers = draws.pick(&[&[0][..], &[0, 1], &[0, 2, 3], &[0, 1, 2, 3]]);
            let mut faults = vec![
                planned(raised.clone(), dark(servers, &[], &mut draws), 60),
                planned(raised, Fault::KillClient(1), 60_000),
            ];
            faults.extend(in_the_evening(&mut draws));
            let mut steps = steps(&mut draws);
            // Nothing of it is synced before the power fails.
            steps.splice(0..0, [Fill::Idle { ms: 900 }, bytes(0, 20)]);
            let appends = vec![Job::Idle { ms: 500 }, append(steps, End::Close)];
            Schedule {
                clients: vec![
                    plan(vec![written(&mut draws, End::Close)]),
                    plan(appends),
                    looks_on(),
                ],
                faults,
                rests: true,
                ..small(seed)
            }
        },
    },
];

/// A server that makes a copy, or gives one, or the meta server, fails while it is made; or nobody does.
fn in_the_evening(draws: &mut Keyed) -> Vec<Planned> {
    if draws.percent(30) {
        return Vec::new();
    }
    let message = draws.pick(&["CopyChunk", "ReadRange", "RangeRead", "ChunkCopied"]);
    let at = Trigger::AfterMessage(message.into(), 1, draws.below(8));
    let servers = draws.pick(&[&[0][..], &[1], &[2], &[3], &[1, 2, 3], &[0, 1, 2, 3]]);
    let fault = if draws.percent(30) {
        Fault::Kill(draws.index(4))
    } else {
        dark(servers, &[], draws)
    };
    vec![planned(at, fault, draws.pick(&[60, 2_500]))]
}

/// Reads the file until all that is to be done about it has had the time.
fn looks_on() -> ClientPlan {
    let mut jobs = vec![Job::Idle { ms: 2_000 }];
    for _ in 0..16 {
        jobs.extend([read(NAME), Job::Idle { ms: 2_500 }]);
    }
    plan(jobs)
}
