//! `cargo fuzz run checkpoint`; without the fuzzer, replays the files named. The body is `kfs_fuzz::checkpoint`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kfs_fuzz::checkpoint(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    kfs_fuzz::replay_arguments(kfs_fuzz::checkpoint)
}
