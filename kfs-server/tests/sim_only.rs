//! What ships holds no planted mistake, no probe and no pushed place: their names are not in the daemons.
#![cfg(not(madsim))]
#[path = "../../kfs-core/tests/source/sim_only.rs"]
mod sim_only;

use std::path::Path;

#[test]
fn a_mistake_planted_for_the_simulator_ships_with_the_daemons() {
    let texts = sim_only::texts();
    for daemon in [
        env!("CARGO_BIN_EXE_kfs-metaserver"),
        env!("CARGO_BIN_EXE_kfs-chunkserver"),
        env!("CARGO_BIN_EXE_kfs-logcompactor"),
    ] {
        let held = sim_only::held(Path::new(daemon), &texts);
        assert_eq!(held, Vec::<String>::new(), "{daemon}");
    }
}
