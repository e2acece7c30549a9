//! A backup of the meta server's data directory, taken while its server may be running, and its restoration: what
//! `kfs snapshot`, `scripts/backup` and `scripts/restore` do.
//!
//! What is copied, in which order and how much of it is decided by the code that the command uses
//! ([`kfs_core::meta::snapshot`]); the server goes on between any two of its steps. A copy becomes a set when it was
//! verified. Only sets are restored, into an empty disk.
use super::sim::{DISK_BYTES, Sim, What};
use crate::disk::DiskModel;
use crate::keyed::Keyed;
use crate::oracle::{Violation, log};
use bytes::Bytes;
use kfs_core::ids::LogSeq;
use kfs_core::machine::{DiskDone, DiskError, DiskOp, FileName, SyncMode};
use kfs_core::meta::Meta;
use kfs_core::meta::checkpoint::format::{DIR as CHECKPOINTS, checkpoint_seq};
use kfs_core::meta::oplog::segment_first;
use kfs_core::meta::record::Logged;
use kfs_core::meta::snapshot::{Answer, Ask, Snapshot, TRIES, Taken};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More bytes than any file has.
const WHOLE: usize = 1 << 26;
const IDENTITY: &str = "identity";

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Backups {
    copying: Option<Copying>,
    /// Rises with every start of one: what was due for an earlier one is void.
    life: u64,
    /// The newest good one.
    latest: Option<Arc<Set>>,
}

/// A copy that is being made.
#[derive(Clone, Debug)]
struct Copying {
    snapshot: Snapshot,
    ask: Ask,
    files: BTreeMap<FileName, Bytes>,
    read: Bytes,
    draws: Keyed,
    slower: u64,
    /// The record that was durable, and no batch in flight any more, when it was begun.
    least: LogSeq,
    /// The newest checkpoint each time it was begun: a server that makes one between any two steps of it outruns it.
    newest: BTreeSet<Option<LogSeq>>,
}

/// A copy that was verified.
#[derive(Debug)]
pub struct Set {
    /// A disk that it was restored to.
    disk: DiskModel,
    /// All records up to its end.
    pub records: Vec<Logged>,
}

impl Sim {
    /// Begins a backup that is so many times slower than the disk is read, unless one is under way: two lock one another
    /// out. Whether it was begun.
    pub fn back_up(&mut self, slower: u64) -> bool {
        if self.backups.copying.is_some() || !self.nodes[0].is_powered() {
            return false;
        }
        self.backups.life += 1;
        let mut snapshot = Snapshot::new();
        let Ok(ask) = snapshot.go_on(Answer::Done) else {
            return false;
        };
        let named = format!("backup {}", self.backups.life);
        self.backups.copying = Some(Copying {
            snapshot,
            ask,
            files: BTreeMap::new(),
            read: Bytes::new(),
            draws: Keyed::new(self.schedule.seed, &named),
            slower,
            least: self.record.log_settled(),
            newest: BTreeSet::new(),
        });
        self.backup_goes_on();
        true
    }

    /// Whoever takes a backup is killed, or loses power: there is no new set.
    pub(super) fn end_backup(&mut self) {
        self.backups.copying = None;
    }

    /// The next step of it takes a while.
    fn backup_goes_on(&mut self) {
        let Some(copying) = &mut self.backups.copying else {
            return;
        };
        let most_ns = self.schedule.speed.read_us * 1_000 * copying.slower;
        let takes = 1_000 + copying.draws.below(most_ns.max(1));
        let due = What::Backup(self.backups.life);
        self.heap.push(self.now + takes, due);
    }

    /// A step of a backup is due. Whether there was one.
    pub(super) fn backup_due(&mut self, life: u64) -> bool {
        if self.backups.life != life {
            return false;
        }
        let Some(mut copying) = self.backups.copying.take() else {
            return false;
        };
        self.record.now_ns = self.now;
        let asks = format!("    backup -> {:?}", copying.ask);
        self.record.hash.bytes(asks.as_bytes());
        self.record.remark(|| asks);
        if let Ask::Nothing(taken) = copying.ask {
            let judged = self.backed_up(copying, taken);
            self.record.check(judged);
            return true;
        }
        let disk = self.disk_mut(0);
        match copying.step(disk) {
            Ok(()) => {
                self.backups.copying = Some(copying);
                self.backup_goes_on();
            }
            Err(why) => {
                let failed = Violation::new("halt", "L", format!("a backup: {why}"));
                if !self.meta_may_fail() && !copying.is_outrun() {
                    self.record.check::<()>(Err(failed));
                }
            }
        }
        true
    }

    /// Whether what works on the meta server's disk may find that it cannot.
    pub(super) fn meta_may_fail(&self) -> bool {
        self.ailing.contains(&0) || self.hurt.contains(&0)
    }

    /// The copy is verified, and is a set then. It must be whole, have what was durable when it was begun, and nothing
    /// that is not.
    fn backed_up(&mut self, copying: Copying, taken: Taken) -> Result<(), Violation> {
        let wrong = |what| Err(Violation::new("O7", "N3", what));
        let mut disk = laid_out(&copying.files);
        let segments = copying.files.keys();
        let first = segments.filter_map(|file| first_of(file.as_str())).min();
        let newest = disk.paths().filter_map(checkpoint_of).max();
        let begins = newest.unwrap_or(LogSeq(0)).next();
        if first.is_some_and(|first| first > begins) && !self.meta_may_fail() {
            return wrong(format!(
                "a backup needs record {begins}, and its log begins with {first:?}"
            ));
        }
        let before = |path: &str| first_of(path) < first;
        let gone = self.disk(0).archived().filter(|(path, _)| before(path));
        disk.archive(gone);
        let records = match log::records(&disk) {
            Ok(records) => records,
            // Verification refuses it.
            Err(_) if self.meta_may_fail() => return Ok(()),
            Err(violation) => return Err(violation),
        };
        let last = records.last().map_or(LogSeq(0), |logged| logged.seq);
        if self.hurt.contains(&0) {
            return Ok(());
        }
        if last != taken.record {
            let said = taken.record;
            return wrong(format!(
                "a backup that is said to reach record {said} reaches {last}"
            ));
        }
        // One that is being started makes more of it durable than was said before.
        if let Some(durable) = self.meta().and_then(Meta::durable)
            && last > durable
        {
            return wrong(format!(
                "a backup has record {last}, and the log is durable up to {durable} only"
            ));
        }
        if last < copying.least {
            let least = copying.least;
            return wrong(format!(
                "a backup reaches record {last}; record {least} was durable, and a batch behind it, when it was begun"
            ));
        }
        match log::checkpoints(&disk, &records) {
            // Verification refuses this, too.
            Err(_) if self.meta_may_fail() => return Ok(()),
            judged => judged?,
        }
        log::ahead(&disk, &records)?;
        self.backups.latest = Some(Arc::new(Set { disk, records }));
        Ok(())
    }

    /// The meta server's disk is another one, with what the newest good backup has. Whether there is one.
    pub(super) fn restore(&mut self) -> bool {
        let Some(set) = self.backups.latest.clone() else {
            return false;
        };
        self.kill(0);
        self.kill_compactor();
        self.end_backup();
        *self.disk_mut(0) = set.disk.clone();
        true
    }

    /// What the newest good backup has.
    pub(super) fn backed_up_records(&self) -> Option<Arc<Set>> {
        self.backups.latest.clone()
    }
}

impl Copying {
    /// Whether the server made a checkpoint each time it was begun anew: it gave up as it says it does.
    fn is_outrun(&self) -> bool {
        self.slower > 1 && self.newest.len() >= TRIES as usize
    }

    /// Does what is asked for.
    fn step(&mut self, disk: &mut DiskModel) -> Result<(), String> {
        let mut read = |file: &FileName| {
            let (file, offset, len) = (file.clone(), 0, WHOLE);
            match disk.apply(&DiskOp::Read { file, offset, len }) {
                Ok(DiskDone::Data(bytes)) => Ok(Some(bytes)),
                Ok(_) => unreachable!("a read gives data"),
                Err(DiskError::NotFound) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        };
        let ask = self.ask.clone();
        let answer = match &ask {
            Ask::Link(file) => match read(file)? {
                Some(bytes) => {
                    self.files.insert(file.clone(), bytes);
                    Answer::Done
                }
                None => Answer::Gone,
            },
            Ask::ReadCopy(file) => {
                self.read = self.files[file].clone();
                Answer::Bytes(&self.read)
            }
            Ask::List(dir) => {
                let checkpoints = *dir == CHECKPOINTS;
                let dir = FileName::new(dir);
                match disk.apply(&DiskOp::List { dir }) {
                    Ok(DiskDone::Entries(entries)) => {
                        let names: Vec<String> =
                            entries.into_iter().map(|entry| entry.name).collect();
                        if checkpoints {
                            let found = names.iter().filter_map(|name| checkpoint_seq(name));
                            self.newest.insert(found.max());
                        }
                        Answer::Names(names)
                    }
                    Ok(_) => unreachable!("a listing gives entries"),
                    Err(DiskError::NotFound) => Answer::Names(Vec::new()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ask::Read(file) => match read(file)? {
                Some(bytes) => {
                    self.read = bytes;
                    Answer::Bytes(&self.read)
                }
                None => Answer::Gone,
            },
            Ask::Keep(file, bytes) => {
                self.files.insert(file.clone(), self.read.slice(..*bytes));
                Answer::Done
            }
            Ask::Clear => {
                self.files.clear();
                Answer::Done
            }
            Ask::Nothing(_) => unreachable!("it has ended"),
        };
        let next = self.snapshot.go_on(answer);
        self.ask = next.map_err(|wrong| format!("{wrong:?}"))?;
        Ok(())
    }
}

fn first_of(path: &str) -> Option<LogSeq> {
    segment_first(path.strip_prefix("log/")?)
}

fn checkpoint_of(path: &str) -> Option<LogSeq> {
    checkpoint_seq(path.strip_prefix("checkpoint/")?)
}

/// An empty disk to which these files were restored, durably: the identity last, so that no server starts before.
fn laid_out(files: &BTreeMap<FileName, Bytes>) -> DiskModel {
    let mut disk = DiskModel::new(DISK_BYTES);
    let mut ops = Vec::new();
    let dirs = ["log", "checkpoint"].map(FileName::new);
    for dir in &dirs {
        ops.push(DiskOp::MakeDir { dir: dir.clone() });
    }
    let identity = |file: &FileName| file.as_str() == IDENTITY;
    let all = files.iter().filter(|(file, _)| !identity(file));
    for (file, bytes) in all.chain(files.iter().filter(|(file, _)| identity(file))) {
        let file = file.clone();
        ops.push(DiskOp::Create {
            file: file.clone(),
            zeroed: 0,
        });
        ops.push(DiskOp::Write {
            file,
            offset: 0,
            data: vec![bytes.clone()],
            sync: SyncMode::Now,
        });
    }
    ops.extend(dirs.into_iter().map(|dir| DiskOp::SyncDir { dir }));
    ops.push(DiskOp::SyncDir {
        dir: FileName::new(""),
    });
    for op in ops {
        disk.apply(&op).expect("an empty disk takes it");
    }
    disk
}
