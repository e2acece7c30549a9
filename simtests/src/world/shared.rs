//! The record of a run, shared by all tasks of the world, with bells for those who wait for something in it.
use crate::disk::node::NodeDisk;
use crate::observe::record::{Record, Watch};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Observers and the supervisor share it; there is one thread. Cloned freely.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Kept>>);

/// A record and its bells.
pub struct Kept {
    record: Record,
    bells: BTreeMap<u64, Arc<Notify>>,
    next: u64,
    /// Links that closed because of bytes that are no frame.
    pub malformed: u64,
}

impl Shared {
    /// Of a run that begins.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            record,
            bells: BTreeMap::new(),
            next: 0,
            malformed: 0,
        })))
    }
    /// To look at it or add to it.
    pub fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A server's process starts on this disk.
    pub fn server_starts(&self, server: usize, disk: &NodeDisk) {
        disk.look(|disk| self.lock().server_starts(server, disk));
    }
    /// A bell that rings, once, when this happens.
    #[must_use]
    pub fn bell(&self, watch: Watch) -> Arc<Notify> {
        let mut kept = self.lock();
        let (id, bell) = (kept.next, Arc::new(Notify::new()));
        kept.next += 1;
        kept.bells.insert(id, Arc::clone(&bell));
        kept.record.watch(watch, id);
        bell
    }
}

impl Kept {
    /// Rings the bells of what has happened.
    pub fn ring(&mut self) {
        if self.record.has_fired() {
            for id in self.record.take_fired() {
                if let Some(bell) = self.bells.remove(&id) {
                    bell.notify_one();
                }
            }
        }
    }
}

impl Deref for Kept {
    type Target = Record;
    fn deref(&self) -> &Record {
        &self.record
    }
}
impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}
