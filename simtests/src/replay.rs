//! Recordings of real servers, told to the same machines again: `sim replay FILE`.
//!
//! The machines are plain values, so nothing here needs the simulated runtime, and the comparing is done by
//! `kfs_core::trace`. This file reads the recording, a piece at a time, and says what became of it.
use kfs_core::trace::{self, Difference, Replay, TraceError};
use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// What is read of a recording at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A recording that was replayed whole, or up to the first difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// What was recorded: a meta server, a chunkserver or a client.
    pub machine: &'static str,
    /// The program that recorded it.
    pub build: String,
    /// How it went.
    pub verdict: Verdict,
}

/// How a replay went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every input gave the same outputs.
    Same {
        /// How many there were.
        inputs: u64,
        /// The hash of all of it.
        hash: u64,
    },
    /// One gave others.
    Differs(Difference),
    /// The machine broke, as it may have when it was recorded.
    Broke {
        /// At which input, counted from 1.
        input: u64,
        /// What it said.
        what: String,
    },
}

/// Why a recording cannot be replayed whole.
#[derive(Debug)]
pub enum ReplayError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It is no trace, or no whole one.
    Trace {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: TraceError,
        /// So many inputs before that gave the same outputs.
        same: u64,
    },
}

/// Replays the recording at `path`.
///
/// # Errors
/// If it cannot be read, is no trace, is of another format, damaged, or ends before its end, and nothing
/// differed before that.
pub fn replay(path: &Path) -> Result<Replayed, ReplayError> {
    let unreadable = |why| ReplayError::Unreadable(path.to_owned(), why);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut piece = vec![0; READ_BYTES];
    let mut replay = Replay::default();
    loop {
        let len = file.read(&mut piece).map_err(unreadable)?;
        // A machine that breaks is what many a recording is made for: it is a result, and not our end.
        let fed = catch_unwind(AssertUnwindSafe(|| replay.feed(&piece[..len])));
        let fed = match (fed, replay.header()) {
            (Ok(fed), _) => fed,
            (Err(panic), Some(header)) => {
                return Ok(Replayed {
                    machine: header.configuration.machine(),
                    build: header.build.clone(),
                    verdict: Verdict::Broke {
                        input: replay.same() + 1,
                        what: panic_text(&*panic),
                    },
                });
            }
            (Err(panic), None) => resume_unwind(panic),
        };
        if fed.is_ok() && len > 0 && !replay.differs() {
            continue;
        }
        let same = replay.same();
        let header = replay.header().cloned();
        let ended = fed.and_then(|()| replay.finish());
        let ended = ended.and_then(|ended| Ok((ended, header.ok_or(TraceError::NoTrace)?)));
        let (ended, header) = ended.map_err(|why| ReplayError::Trace {
            path: path.to_owned(),
            why,
            same,
        })?;
        return Ok(Replayed {
            machine: header.configuration.machine(),
            build: header.build,
            verdict: match ended {
                trace::Replayed::Same { inputs, hash } => Verdict::Same { inputs, hash },
                trace::Replayed::Differs(difference) => Verdict::Differs(difference),
            },
        });
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
        .to_owned()
}

impl Replayed {
    /// Whether every input gave the same outputs.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        matches!(self.verdict, Verdict::Same { .. })
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            machine,
            build,
            verdict,
        } = self;
        match verdict {
            Verdict::Same { inputs, hash } => write!(
                f,
                "{machine}: {inputs} inputs, the same outputs; events' hash {hash:016x}"
            ),
            Verdict::Broke { input, what } => {
                write!(f, "{machine}: input {input} breaks it: {what}")
            }
            Verdict::Differs(difference) => {
                write!(f, "{machine} recorded by {build}: {difference}")?;
                if build != trace::BUILD {
                    write!(
                        f,
                        "\n  this is   {}, which may rightly differ",
                        trace::BUILD
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, why) => write!(f, "cannot read {}: {why}", path.display()),
            Self::Trace { path, why, same: 0 } => write!(f, "{}: {why}", path.display()),
            Self::Trace { path, why, same } => write!(
                f,
                "{}: {why}; the {same} inputs before gave the same outputs",
                path.display()
            ),
        }
    }
}
impl std::error::Error for ReplayError {}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::CallId;
    use kfs_core::limits::{Geometry, Limits};
    use kfs_core::machine::{DiskDone, DiskOp, Input, Machine as _, Output};
    use kfs_core::meta::{Call, Config, Meta};
    use kfs_core::time::Now;
    use kfs_core::trace::Recorder;
    use std::collections::VecDeque;

    fn config(seed: u64) -> Config {
        Config {
            seed,
            geometry: Geometry::REAL,
            limits: Limits::REAL,
            timing: kfs_core::limits::Timing::REAL,
            replication: 3,
            min_replicas: 2,
            cluster: None,
            checkpoint_every: None,
            re_replicate_after: std::time::Duration::ZERO,
            copy_rate: 1,
            mirror: false,
        }
    }

    /// A trace that says that a meta server was asked for its status so often, and the outputs of one that was
    /// asked less often.
    fn recorded(asked: u64, done: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut recorder = Recorder::begin(config(1), &mut bytes);
        let mut machine = Meta::new(config(1));
        for id in 1..=asked {
            let ask = || Input::Call {
                id: CallId(id),
                call: Call::Status,
            };
            recorder.input(Now::default(), &ask(), &mut bytes);
            if id <= done {
                machine.handle(Now::default(), ask());
            }
            while let Some(output) = machine.poll() {
                recorder.output(&output);
            }
        }
        recorder.end(&mut bytes);
        bytes
    }

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }
    fn told(bytes: &[u8]) -> Result<Replayed, ReplayError> {
        replay(file_of(bytes).path())
    }

    #[test]
    fn the_same_machine_does_the_same_however_long_the_file_is() {
        let bytes = recorded(60_000, 60_000);
        assert!(bytes.len() > 2 * READ_BYTES, "it takes several reads");
        let replayed = told(&bytes).unwrap();
        assert!(replayed.is_same());
        let text = replayed.to_string();
        assert!(
            text.starts_with("meta server: 60000 inputs, the same outputs; events' hash "),
            "{text}"
        );
    }

    #[test]
    fn a_machine_that_did_less_is_told_with_the_input_and_both_hashes() {
        let replayed = told(&recorded(10, 6)).unwrap();
        let Verdict::Differs(difference) = &replayed.verdict else {
            panic!("{replayed}");
        };
        assert_eq!(difference.input, 7, "the first one that did nothing then");
        assert_ne!(difference.recorded, difference.replayed);
        assert!(!replayed.is_same());
        let text = replayed.to_string();
        for part in ["input 7 ", "Call", "Status", "recorded  ", "replayed  "] {
            assert!(text.contains(part), "'{part}' is not in {text}");
        }
    }

    #[test]
    fn a_machine_that_breaks_is_told_with_the_input() {
        // A segment that is longer than any file: nothing says that a configuration makes sense.
        let mut config = config(1);
        config.limits.log_first_segment_bytes = u64::MAX;
        let mut bytes = Vec::new();
        let mut recorder = Recorder::begin(config.clone(), &mut bytes);
        let mut machine = Meta::new(config);
        let mut told = 0;
        let mut queue = VecDeque::from([Input::Wake]);
        let broke = catch_unwind(AssertUnwindSafe(|| {
            while let Some(input) = queue.pop_front() {
                told += 1;
                recorder.input(Now::default(), &input, &mut bytes);
                machine.handle(Now::default(), input);
                while let Some(output) = machine.poll() {
                    recorder.output(&output);
                    if let Output::Disk { ticket, op } = output {
                        let result = match op {
                            DiskOp::List { .. } => Ok(DiskDone::Entries(vec![])),
                            _ => Ok(DiskDone::Done),
                        };
                        queue.push_back(Input::Disk { ticket, result });
                    }
                }
            }
        }));
        assert!(broke.is_err() && told > 1, "it broke after {told} inputs");
        let replayed = replay(file_of(&bytes).path()).unwrap();
        assert!(
            matches!(replayed.verdict, Verdict::Broke { input, .. } if input == told),
            "{replayed}"
        );
        let text = replayed.to_string();
        assert!(
            text.starts_with(&format!("meta server: input {told} breaks it: ")),
            "{text}"
        );
        assert!(!replayed.is_same());
    }

    #[test]
    fn a_file_that_is_no_whole_trace_is_told_in_one_line() {
        let bytes = recorded(10, 10);
        let mut other = bytes.clone();
        other[8] = 7;
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for (bytes, parts) in [
            (&b"a letter"[..], &["not a trace"][..]),
            (b"", &["truncated in its header"]),
            (&other, &["format version 7", "version 1"]),
            (
                &bytes[..bytes.len() - 60],
                &["truncated at entry 10, offset ", "the 8 inputs before"],
            ),
            (&damaged, &["damaged at entry 11, offset ", "the 9 inputs"]),
        ] {
            let line = told(bytes).expect_err("it is not whole").to_string();
            assert!(!line.contains('\n'), "{line}");
            for part in parts {
                assert!(line.contains(part), "'{part}' is not in {line}");
            }
        }
        let missing = replay(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
