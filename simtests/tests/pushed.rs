//! The instruments in the machines: probes count where they are hit, pushed places are a function of the seed.
#![cfg(madsim)]
use kfs_core::buggify::{Site, arm, is, is_on};
use kfs_core::probe::{Counts, Probe, hit, take};

#[test]
fn a_path_is_counted_on_another_thread_or_twice() {
    let before = take();
    assert_eq!(before.of(Probe::ListPaged), 0);
    hit(Probe::ListPaged);
    hit(Probe::DialFailed);
    hit(Probe::ListPaged);
    let elsewhere = std::thread::spawn(take).join().expect("it does not fail");
    assert_eq!(elsewhere, Counts::ZERO);
    let mut counts = take();
    assert_eq!(counts.of(Probe::ListPaged), 2);
    assert_eq!(counts.missing().count(), Probe::ALL.len() - 2);
    assert_eq!(take(), Counts::ZERO);
    counts.add(&counts.clone());
    assert_eq!(counts.of(Probe::DialFailed), 2);
}

/// Answers at `site`, with questions at `other` between.
fn answers(seed: u64, site: Site, other: Option<Site>) -> Vec<bool> {
    arm(seed, 300);
    let ask = |_| {
        if let Some(other) = other {
            let _ = is(other);
        }
        is(site)
    };
    (0..200).map(ask).collect()
}

#[test]
fn a_question_at_one_site_changes_the_answers_at_another() {
    let seed = (0..)
        .find(|seed| {
            arm(*seed, 1);
            is_on(Site::BatchClosed) && is_on(Site::MarkAtOnce)
        })
        .expect("a seed has both on");
    let alone = answers(seed, Site::BatchClosed, None);
    assert_eq!(
        alone,
        answers(seed, Site::BatchClosed, Some(Site::MarkAtOnce))
    );
    let fired = alone.iter().filter(|fired| **fired).count();
    assert!((30..90).contains(&fired), "{fired} of 200 at 300 in 1000");
    arm(seed, 0);
    assert!(!is(Site::BatchClosed), "disarmed");
}

#[test]
fn a_quarter_of_the_sites_is_on_and_not_the_same_ones_always() {
    let mut on = 0;
    for seed in 0..1_000 {
        arm(seed, 1);
        on += Site::ALL.into_iter().filter(|site| is_on(*site)).count();
    }
    let permille = on / Site::ALL.len();
    assert!((230..270).contains(&permille), "{permille} of 1000");
    let of = |seed| {
        arm(seed, 1);
        Site::ALL.map(is_on)
    };
    assert_ne!(of(1), of(2));
}
