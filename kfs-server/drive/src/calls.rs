//! Calls into a machine from the process around it: the library, the pages.
use kfs_core::ids::CallId;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// Calls begun and not yet taken by the machine, at most; a further one waits.
const QUEUE: usize = 256;

/// Asks a machine for things; cloned freely. When the last one is dropped, the machine is released.
pub struct Caller<C, E> {
    queue: mpsc::Sender<(C, oneshot::Sender<E>)>,
}

/// The machine's end of its callers.
pub struct Calls<C, E> {
    pub(crate) queue: mpsc::Receiver<(C, oneshot::Sender<E>)>,
    waiting: BTreeMap<CallId, oneshot::Sender<E>>,
    on_event: Box<dyn FnMut(E) + Send>,
    next: CallId,
}

/// The machine has stopped; the call was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the machine has stopped")
    }
}
impl std::error::Error for Gone {}

/// Both ends. `on_event` gets the events that answer no call.
pub fn calls<C, E>(on_event: impl FnMut(E) + Send + 'static) -> (Caller<C, E>, Calls<C, E>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let calls = Calls {
        queue: receiver,
        waiting: BTreeMap::new(),
        on_event: Box::new(on_event),
        next: CallId(1),
    };
    (Caller { queue: sender }, calls)
}

impl<C, E> Caller<C, E> {
    /// Queues a call, waiting only for room in the queue; calls reach the machine in the order of their begins.
    pub async fn begin(&self, call: C) -> Pending<E> {
        let (reply, answer) = oneshot::channel();
        // If the machine is gone the sender of the reply is dropped here, and the answer says so.
        let _ = self.queue.send((call, reply)).await;
        Pending(answer)
    }

    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// If the machine has stopped or stops before it answers.
    pub async fn call(&self, call: C) -> Result<E, Gone> {
        self.begin(call).await.await
    }
}

impl<C, E> Clone for Caller<C, E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}
impl<C, E> fmt::Debug for Caller<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}
impl<C, E> fmt::Debug for Calls<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("waiting", &self.waiting.len())
            .finish()
    }
}

impl<C, E> Calls<C, E> {
    /// Gives a call its id.
    pub(crate) fn enter(&mut self, reply: oneshot::Sender<E>) -> CallId {
        let id = self.next;
        self.next = id.next();
        self.waiting.insert(id, reply);
        id
    }
    /// Brings an event to whoever waits for it.
    pub(crate) fn answer(&mut self, id: CallId, event: E) {
        if id == CallId::NONE {
            (self.on_event)(event);
        } else if let Some(reply) = self.waiting.remove(&id) {
            // Who no longer waits for an answer does not get it.
            let _ = reply.send(event);
        }
    }
}

/// A call that was begun: a future of its answer.
#[derive(Debug)]
pub struct Pending<E>(oneshot::Receiver<E>);

impl<E> Future for Pending<E> {
    type Output = Result<E, Gone>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<E, Gone>> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Gone)
    }
}
