//! The positive control of what is not shipped: the simulator's binary holds every mark, name and text that
//! the daemons and the command must not. If it did not, looking for them there would prove nothing.
#![cfg(madsim)]
#[path = "../../kfs-core/tests/source/sim_only.rs"]
mod sim_only;

use std::path::Path;

#[test]
fn the_texts_that_must_not_ship_are_found_nowhere() {
    let texts = sim_only::texts();
    let held = sim_only::held(Path::new(env!("CARGO_BIN_EXE_sim")), &texts);
    let missing: Vec<_> = texts.iter().filter(|text| !held.contains(text)).collect();
    assert_eq!(missing, Vec::<&String>::new());
}
