//! Runs that were shrunk from a failing one, each kept as a file and run on the product as it is.
//!
//! `sim shrink` writes the file and the test; `docs/testing.md` says how.
#![cfg(madsim)]

/// The meta server loses power between a change and its answer; the client asks again. Shrunk with the mistake
/// `results-forgotten` planted, which does the change twice.
#[test]
fn answer_lost_with_the_power() {
    simtests::sched::stays_quiet(include_str!("kept/answer-lost-with-the-power.sched"));
}
