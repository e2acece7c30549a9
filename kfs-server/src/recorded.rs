//! A machine whose inputs are recorded, on demand, in a file that `sim replay` tells to the same machine again.
//!
//! An input is encoded before the machine sees it, so that the one that breaks a machine is in the file. The
//! file is written by a thread of its own behind a queue of bounded length: when that is full the machine
//! waits, so a recording slows a server down, but never grows its memory and never leaves out an entry. A file
//! that cannot be written ends the recording, never the server. The format is that of `kfs_core::trace`.
use crate::error::{Code, StartError};
use kfs_core::machine::{Input, Output};
use kfs_core::time::{Instant, Now};
use kfs_core::trace::{Recorder, TracedMachine};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Bytes of entries that wait for the file, beyond which the machine waits too.
const QUEUE_BYTES: usize = 8 << 20;
/// Whose files' bytes are in a recording may not be read by everybody.
const FILE_MODE: u32 = 0o600;

/// A machine that may be recorded; one that is not costs nothing.
#[derive(Debug)]
pub(crate) struct Recorded<M: TracedMachine> {
    machine: M,
    recording: Option<Recording>,
}

impl<M: TracedMachine> Recorded<M> {
    /// Builds the machine of this configuration, and records it if there is a file to record it in.
    pub(crate) fn new(config: M::Config, file: Option<RecordFile>) -> Self {
        let recording = file.and_then(|RecordFile { file, path }| {
            tracing::info!(file = %path.display(), "everything that this server is told is recorded");
            Recording::begin(config.clone(), file, path)
        });
        Self {
            machine: M::configured(config),
            recording,
        }
    }
}

impl<M: TracedMachine> kfs_core::machine::Machine for Recorded<M> {
    type Call = M::Call;
    type Event = M::Event;
    fn handle(&mut self, now: Now, input: Input<M::Call>) {
        if let Some(recording) = &self.recording {
            let queued = recording.queue.push(|bytes| {
                recording.recorder.input(now, &input, bytes);
            });
            if queued.is_err() {
                self.recording = None;
            }
        }
        self.machine.handle(now, input);
    }
    fn poll(&mut self) -> Option<Output<M::Event>> {
        let output = self.machine.poll()?;
        if let Some(recording) = &mut self.recording {
            recording.recorder.output(&output);
        }
        Some(output)
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.machine.deadline()
    }
}

/// A new file to record in.
#[derive(Debug)]
pub(crate) struct RecordFile {
    file: File,
    path: PathBuf,
}

impl RecordFile {
    /// Makes it; `data` is the data directory, where nothing but the server's own files may be.
    pub(crate) fn create(path: &Path, data: &Path) -> Result<Self, StartError> {
        let bad = |what: String| StartError::new(Code::BadConfig, what);
        let shown = path.display();
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if let (Ok(dir), Ok(data)) = (dir.canonicalize(), data.canonicalize())
            && dir.starts_with(&data)
        {
            return Err(bad(format!(
                "the recording {shown} (--record) would stand in the data directory {}",
                data.display()
            ))
            .help("give --record a file elsewhere, best on another file system"));
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path);
        let file = file.map_err(|err| match err.kind() {
            io::ErrorKind::AlreadyExists => bad(format!(
                "the recording {shown} (--record) exists already"
            ))
            .help("give --record a file that does not exist yet: no recording is written over"),
            _ => bad(format!(
                "cannot make the recording {shown} (--record): {err}"
            ))
            .help("give --record a file in a directory that exists and that this user may write"),
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }
}

/// A recording under way. Dropped, it writes what waits, and its end.
#[derive(Debug)]
struct Recording {
    recorder: Recorder,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl Recording {
    /// Begins one; `None`, with a warning, if it cannot.
    fn begin(
        config: impl Into<kfs_core::trace::Configuration>,
        file: impl Write + Send + 'static,
        path: PathBuf,
    ) -> Option<Self> {
        let mut header = Vec::new();
        let recorder = Recorder::begin(config, &mut header);
        let queue = Arc::new(Queue::holding(header));
        let from = Arc::clone(&queue);
        let name = path.display().to_string();
        let writer = std::thread::Builder::new()
            .name("kfs-record".into())
            .spawn(move || from.write_to(file, &path));
        match writer {
            Ok(writer) => Some(Self {
                recorder,
                queue,
                writer: Some(writer),
            }),
            Err(err) => {
                tracing::warn!(file = %name, "nothing is recorded: cannot start a thread: {err}");
                None
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The outputs of a machine that broke are not all known: its recording has no end, but all inputs.
        if !std::thread::panicking() {
            let recorder = std::mem::take(&mut self.recorder);
            // With the file broken there is no end to write.
            let _ = self.queue.push(|bytes| recorder.end(bytes));
        }
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, that was told on stderr.
            let _ = writer.join();
        }
    }
}

/// Bytes on their way to a file.
#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to write, or nothing will come.
    filled: Condvar,
    /// There is room, or nobody makes any.
    emptied: Condvar,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Open,
    /// Nothing more is pushed.
    Closed,
    /// Nothing more is taken.
    Broken,
}

/// The file takes nothing any more; that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Broken;

impl Queue {
    fn holding(bytes: Vec<u8>) -> Self {
        let life = Life::Open;
        Self {
            waiting: Mutex::new(Waiting { bytes, life }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Appends what `encode` does, when there is room.
    fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Broken> {
        let full = |waiting: &mut Waiting| {
            waiting.bytes.len() >= QUEUE_BYTES && waiting.life == Life::Open
        };
        let mut waiting = self
            .emptied
            .wait_while(self.lock(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.life == Life::Broken {
            return Err(Broken);
        }
        encode(&mut waiting.bytes);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }
    /// Changes places with all that waits, once there is something; `to` stays empty when nothing will come.
    fn take(&self, to: &mut Vec<u8>) {
        let nothing =
            |waiting: &mut Waiting| waiting.bytes.is_empty() && waiting.life == Life::Open;
        to.clear();
        let mut waiting = self
            .filled
            .wait_while(self.lock(), nothing)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.bytes, to);
        drop(waiting);
        self.emptied.notify_one();
    }
    fn close(&self) {
        let mut waiting = self.lock();
        if waiting.life == Life::Open {
            waiting.life = Life::Closed;
        }
        drop(waiting);
        self.filled.notify_one();
    }
    /// Writes everything, until nothing will come or the file takes no more.
    fn write_to(&self, mut file: impl Write, path: &Path) {
        let mut bytes = Vec::new();
        loop {
            self.take(&mut bytes);
            if bytes.is_empty() {
                return;
            }
            if let Err(err) = file.write_all(&bytes) {
                tracing::warn!(
                    file = %path.display(),
                    "the recording ends here: {err}; the server goes on without it"
                );
                let mut waiting = self.lock();
                waiting.life = Life::Broken;
                waiting.bytes = Vec::new();
                drop(waiting);
                self.emptied.notify_one();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::CallId;
    use kfs_core::limits::{Geometry, Limits, Timing};
    use kfs_core::machine::Machine as _;
    use kfs_core::meta::{Call, Config, Meta};
    use kfs_core::trace::{Replay, Replayed};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A file that takes so many bytes.
    struct Sink {
        room: usize,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = bytes.len().min(self.room);
            if some == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= some;
            self.taken.send(bytes[..some].to_vec()).unwrap();
            Ok(some)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn recorded(room: usize) -> (Recorded<Meta>, Receiver<Vec<u8>>) {
        let config = Config {
            seed: 5,
            geometry: Geometry::REAL,
            limits: Limits::REAL,
            timing: Timing::REAL,
            replication: 3,
            min_replicas: 2,
            cluster: None,
            checkpoint_every: None,
            re_replicate_after: std::time::Duration::ZERO,
            copy_rate: 1,
            mirror: false,
        };
        let (taken, written) = channel();
        let machine = Recorded {
            machine: Meta::new(config.clone()),
            recording: Recording::begin(config, Sink { room, taken }, "recording".into()),
        };
        (machine, written)
    }

    /// Tells it `n` things; counts the outputs.
    fn tell(machine: &mut Recorded<Meta>, n: u64) -> usize {
        let mut outputs = 0;
        for id in 1..=n {
            let call = Call::Status;
            let id = CallId(id);
            machine.handle(Now::default(), Input::Call { id, call });
            outputs += std::iter::from_fn(|| machine.poll()).count();
        }
        outputs
    }

    fn replay(written: &Receiver<Vec<u8>>) -> Replay {
        let mut replay = Replay::default();
        for bytes in written.iter() {
            replay.feed(&bytes).unwrap();
        }
        replay
    }

    #[test]
    fn what_was_told_is_in_the_file_when_the_machine_is_gone() {
        let (mut machine, written) = recorded(usize::MAX);
        assert_eq!(tell(&mut machine, 1_000), 1_000);
        drop(machine);
        let replayed = replay(&written).finish().unwrap();
        assert!(
            matches!(replayed, Replayed::Same { inputs: 1_000, .. }),
            "{replayed:?}"
        );
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_not_the_machine() {
        let (mut machine, written) = recorded(10_000);
        // More than the queue holds, so it would wait for ever for a file that takes no more.
        let (inputs, entry_bytes) = (250_000, 50);
        assert!(inputs * entry_bytes > QUEUE_BYTES as u64 + 10_000);
        assert_eq!(tell(&mut machine, inputs) as u64, inputs);
        assert!(machine.recording.is_none(), "it was given up");
        drop(machine);
        let replay = replay(&written);
        assert!(replay.same() > 50, "what there was room for can be told");
        assert!(replay.finish().is_err(), "and it says that it is not whole");
    }

    #[test]
    fn a_machine_that_breaks_leaves_the_input_that_broke_it() {
        let (mut machine, written) = recorded(usize::MAX);
        let broke = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let id = CallId(1);
            let call = Call::Status;
            machine.handle(Now::default(), Input::Call { id, call });
            // The outputs were not drained, which is against the contract.
            machine.handle(Now::default(), Input::Wake);
            drop(machine);
        }));
        assert!(broke.is_err());
        let bytes: Vec<u8> = written.iter().flatten().collect();
        let mut reader = kfs_core::trace::Reader::default();
        reader.feed(&bytes);
        reader.header().unwrap().unwrap();
        let entries: Vec<_> = std::iter::from_fn(|| reader.entry().unwrap()).collect();
        let last: Input<Call> = entries.last().unwrap().input().unwrap();
        assert!(matches!(last, Input::Wake) && entries.len() == 2);
        assert!(reader.finish().is_err(), "no end is claimed");
    }

    #[test]
    fn a_slow_disk_holds_the_machine_up_and_takes_no_memory() {
        const ENTRY_BYTES: usize = 100_000;
        const ENTRIES: usize = 300;
        let queue = Queue::holding(Vec::new());
        let push_all = || {
            for n in 0..ENTRIES {
                let entry = vec![u8::try_from(n % 251).unwrap(); ENTRY_BYTES];
                queue.push(|bytes| bytes.extend(entry)).unwrap();
            }
            queue.close();
        };
        std::thread::scope(|scope| {
            scope.spawn(push_all);
            // Until it is full, nothing is taken.
            while queue.lock().bytes.len() < QUEUE_BYTES {
                std::thread::yield_now();
            }
            let (mut all, mut some) = (Vec::new(), Vec::new());
            loop {
                queue.take(&mut some);
                assert!(some.len() < QUEUE_BYTES + ENTRY_BYTES, "{}", some.len());
                if some.is_empty() {
                    break;
                }
                all.extend_from_slice(&some);
            }
            let (entries, rest) = all.as_chunks::<ENTRY_BYTES>();
            assert!(entries.len() == ENTRIES && rest.is_empty());
            for (n, entry) in entries.iter().enumerate() {
                assert!(entry.iter().all(|byte| usize::from(*byte) == n % 251));
            }
        });
    }
}
