//! Opening a file that is there, to write it further from where it ends, or from where it is to end.
use super::meta_on_client::{Ask, Reply};
use super::write::{FILE_BYTES_MAX, Identity, Says, Writer};
use super::{Asker, Client, Event, Failure, Handle, confused};
use crate::ids::CallId;
use crate::time::Instant;
use crate::wire::Status;
use crate::wire::client_meta::{Done, MutateOp};

impl Client {
    /// The file may be written further; its last chunk is taken over first, unless it ends with a whole one. If it is to
    /// have another length, that is said first, and the chunk in which it ends then is taken over.
    pub(super) fn appending(
        &mut self,
        now: Instant,
        id: CallId,
        (name, len): (String, Option<u64>),
        outcome: Result<Reply, Failure>,
    ) {
        let geometry = self.reach.meta.geometry();
        let (session, file, replication, size) = match (outcome, geometry) {
            (
                Ok(Reply::Done(
                    session,
                    Done::Appending {
                        file,
                        replication,
                        size,
                    },
                )),
                Some(_),
            ) => (session, file, replication, size),
            (outcome, _) => return self.reach.answer(id, outcome, |_| None),
        };
        if size > FILE_BYTES_MAX {
            let what = format!("the meta server says that {name} has {size} bytes");
            return self.reach.fail(id, Status::Protocol, &what);
        }
        // One of a session that is over holds nothing any more; it only waits to be closed.
        let is_writer = |writer: &Writer| (writer.file(), writer.session()) == (file, session);
        if self
            .writers
            .values()
            .chain(self.opening.values())
            .any(is_writer)
        {
            let what = format!("{name} is open for writing here already");
            return self.reach.fail(id, Status::BadRequest, &what);
        }
        let handle = self.new_handle();
        let who = Identity {
            handle,
            file,
            session,
            geometry: geometry.expect("it was just seen"),
            name,
        };
        let (index, within) = who.geometry.chunk_at(size);
        let mut writer = Writer::new(who, &self.reach);
        writer.reopened(size, replication);
        if let Some(len) = len {
            self.writers.insert(handle, writer);
            return self.with_writer(id, handle, |writer, reach| {
                writer.set_len(now, id, (len, Says::Opened), reach)
            });
        }
        if within == 0 {
            self.writers.insert(handle, writer);
            self.reach.outbox.event(
                id,
                Event::Appending {
                    handle,
                    file,
                    replication,
                    end: size,
                },
            );
            return;
        }
        self.opening.insert(handle, writer);
        let op = MutateOp::TakeOver { file, index };
        let asker = Asker::TakeOver { id, handle, index };
        self.reach.meta.ask(now, asker, Ask::MutateIn(session, op));
    }

    /// The last chunk of a file may be written further, or not.
    pub(super) fn taken_over(
        &mut self,
        now: Instant,
        id: CallId,
        (handle, index): (Handle, u64),
        outcome: Result<Done, Failure>,
    ) {
        // The client may be going away.
        let Some(mut writer) = self.opening.remove(&handle) else {
            let failure = outcome.err().unwrap_or_else(confused);
            return self.reach.outbox.event(id, Event::Failed(failure));
        };
        let event = match writer.taken_over(now, index, outcome) {
            Ok((file, replication, end)) => {
                self.writers.insert(handle, writer);
                Event::Appending {
                    handle,
                    file,
                    replication,
                    end,
                }
            }
            Err(failure) => {
                writer.let_go(&mut self.reach);
                Event::Failed(failure)
            }
        };
        self.reach.outbox.event(id, event);
    }
}
