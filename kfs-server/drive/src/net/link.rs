//! One link: a stream, negotiated, with a task that reads frames and one that writes what the loop does not.
//!
//! The loop writes small frames itself, all of a turn at once, while the connection takes them: a message that goes
//! through a task is woken for twice. What does not fit, and every frame with a body, goes to the writing task; and
//! while that has anything, everything does, so frames keep their order.
use super::LinkEvent;
use super::socket::{self, ReadHalf, Stream, WriteHalf};
use crate::pool::Pool;
use bytes::{Buf, Bytes};
use kfs_core::ids::{ClusterId, LinkId};
use kfs_core::limits::FRAME_BODY_MAX;
use kfs_core::machine::CloseReason;
use kfs_core::planted::{self, Bug};
use kfs_core::probe::{self, Probe};
use kfs_core::wire::frame::{self, PREFIX_BYTES, Prefix};
use kfs_core::wire::{Head, Msg, Negotiate, Peer, Role};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long a connection may take to be made, and the negotiation after it.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long what is queued may take to leave after the machine closed the link.
const LINGER_MAX: Duration = Duration::from_secs(5);
/// Bytes read at once where small frames are expected.
const READ_BYTES: usize = 16 << 10;
/// Small frames are written together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;
/// Unused bulk buffers that a process keeps.
const POOL_KEEP: usize = 64;

/// What the reading task is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    Run,
    Paused,
    Stop,
}

/// The loop's end of a link. Dropped: the link closes.
#[derive(Debug)]
pub(crate) struct Handle {
    queue: mpsc::UnboundedSender<Work>,
    shared: Arc<Shared>,
    /// Once the link is open.
    protocol: Option<u8>,
    /// Frames that leave with the next [`Handle::flush`], and what they weigh.
    out: Vec<u8>,
    out_cost: usize,
    /// Of the task that reads. Each task has a channel of its own: of several that wait on one, it is drawn from
    /// what is not the simulation's which goes on first.
    pub(super) control: watch::Sender<Control>,
    /// Of the task that writes, which need not hear of pauses.
    pub(super) writing: watch::Sender<Control>,
}

/// What the loop and the writing task of a link share.
#[derive(Default)]
struct Shared {
    /// What waits for the writing task, or is being written by it.
    queued: AtomicUsize,
    /// Here while nobody writes; whoever writes has it, not the lock.
    half: Mutex<Option<WriteHalf>>,
}

impl Shared {
    fn half(&self) -> Option<WriteHalf> {
        self.half
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
    fn give_back(&self, half: WriteHalf) {
        let before = self
            .half
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(half);
        assert!(before.is_none(), "one writes at a time");
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

/// What is to be written by the task.
#[derive(Debug)]
enum Work {
    Msg(Msg),
    /// The rest of frames that the loop began to write, what all of them weigh, and a flush.
    Frames(Vec<u8>, usize),
    /// Nothing: the loop could not write.
    Failed(io::Error),
}

/// How a message leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    /// When [`Handle::flush`] is called, which must follow.
    WithFlush,
    /// With what was taken before it, or by the task.
    AsTheOthers,
}

impl Handle {
    pub(super) fn queued_bytes(&self) -> usize {
        self.out_cost + self.shared.queued.load(Ordering::Relaxed)
    }
    pub(super) const fn opened(&mut self, protocol: u8) {
        self.protocol = Some(protocol);
    }
    /// Takes a message.
    pub(super) fn send(&mut self, msg: Msg) -> Leaves {
        let cost = msg.cost();
        if let Some(protocol) = self.protocol
            && msg.body.is_empty()
            && self.is_idle()
        {
            let first = self.out.is_empty();
            self.out_cost += cost;
            frame::append(protocol, &msg, &mut self.out);
            return if first {
                Leaves::WithFlush
            } else {
                Leaves::AsTheOthers
            };
        }
        self.hand_over();
        self.work(Work::Msg(msg), cost);
        Leaves::AsTheOthers
    }
    /// Writes what was taken, if the connection takes it at once; gives what has left. The rest is the task's.
    pub(super) fn flush(&mut self) -> usize {
        if self.out.is_empty() {
            return 0;
        }
        // Only this end gives the task work, so it stays idle meanwhile.
        let half = self.is_idle().then(|| self.shared.half()).flatten();
        let Some(mut half) = half else {
            self.hand_over();
            return 0;
        };
        match write_at_once(&mut half, &self.out) {
            Ok(AtOnce::All) => {
                self.shared.give_back(half);
                self.out.clear();
                self.out.shrink_to(WRITE_BYTES);
                return std::mem::take(&mut self.out_cost);
            }
            Ok(AtOnce::Only(written)) => {
                self.shared.give_back(half);
                self.out.drain(..written);
                self.hand_over();
            }
            // Told by the task, behind what has come from the peer by now. Nothing is written any more.
            Err(error) => {
                let cost = std::mem::take(&mut self.out_cost);
                self.out.clear();
                self.work(Work::Failed(error), cost);
            }
        }
        0
    }
    fn is_idle(&self) -> bool {
        // The task lets go of the half before it says that it is done.
        self.shared.queued.load(Ordering::Acquire) == 0
    }
    /// What was taken is the task's to write.
    fn hand_over(&mut self) {
        if self.out_cost > 0 {
            let cost = std::mem::take(&mut self.out_cost);
            let frames = Work::Frames(std::mem::take(&mut self.out), cost);
            self.work(frames, cost);
        }
    }
    fn work(&self, work: Work, cost: usize) {
        self.shared.queued.fetch_add(cost, Ordering::Relaxed);
        // A link that broke has said so, or is about to.
        let _ = self.queue.send(work);
    }
}

/// How much was written without waiting.
enum AtOnce {
    /// All of it, and it was flushed.
    All,
    /// So many bytes; a flush has to follow, too.
    Only(usize),
}

/// Writes and flushes as far as that goes without waiting.
fn write_at_once(half: &mut WriteHalf, bytes: &[u8]) -> io::Result<AtOnce> {
    // Whoever goes on waits with a waker of its own.
    let mut cx = Context::from_waker(Waker::noop());
    let mut written = 0;
    while written < bytes.len() {
        match Pin::new(&mut *half).poll_write(&mut cx, &bytes[written..])? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => written += n,
            Poll::Pending => return Ok(AtOnce::Only(written)),
        }
    }
    match Pin::new(half).poll_flush(&mut cx)? {
        Poll::Ready(()) => Ok(AtOnce::All),
        Poll::Pending => Ok(AtOnce::Only(written)),
    }
}

/// The tasks' end of a link.
pub(super) struct Ends {
    link: LinkId,
    role: Role,
    events: mpsc::Sender<LinkEvent>,
    queue: mpsc::UnboundedReceiver<Work>,
    shared: Arc<Shared>,
    control: watch::Receiver<Control>,
    writing: watch::Receiver<Control>,
}

pub(super) fn pair(link: LinkId, role: Role, events: mpsc::Sender<LinkEvent>) -> (Handle, Ends) {
    // Bounded by what is queued: see `Net::send`.
    let (sender, queue) = mpsc::unbounded_channel();
    let (control_sender, control) = watch::channel(Control::Run);
    let (writing_sender, writing) = watch::channel(Control::Run);
    let shared = Arc::new(Shared::default());
    let handle = Handle {
        queue: sender,
        shared: Arc::clone(&shared),
        protocol: None,
        out: Vec::new(),
        out_cost: 0,
        control: control_sender,
        writing: writing_sender,
    };
    (
        handle,
        Ends {
            link,
            role,
            events,
            queue,
            shared,
            control,
            writing,
        },
    )
}

/// The buffers that bodies are read into, shared by all links of the process.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(FRAME_BODY_MAX, POOL_KEEP))
}

impl Ends {
    pub(super) async fn dial(self, addr: SocketAddr) {
        match timeout(OPEN_MAX, socket::connect(addr)).await {
            Ok(Ok(stream)) => self.run(stream, addr).await,
            Ok(Err(error)) => {
                probe::hit(Probe::DialFailed);
                self.closed(CloseReason::Unreachable(format!("{addr}: {error}")))
                    .await
            }
            Err(_) => {
                self.closed(CloseReason::Unreachable(format!("{addr}: no answer")))
                    .await
            }
        }
    }

    /// Negotiates, then runs both tasks until the link ends.
    pub(super) async fn run(self, stream: Stream, addr: SocketAddr) {
        let (read, mut write) = match socket::split(stream) {
            Ok(halves) => halves,
            Err(error) => return self.closed(CloseReason::Lost(error.to_string())).await,
        };
        let mut reader = Reader::new(read);
        let peer = match timeout(
            OPEN_MAX,
            negotiate(self.role, &mut reader, &mut write, addr),
        )
        .await
        {
            Ok(Ok(peer)) => peer,
            Ok(Err(why)) => {
                if !matches!(why, CloseReason::Lost(_)) {
                    tracing::warn!(%addr, %why, "connection not accepted");
                }
                return self.closed(why).await;
            }
            Err(_) => {
                return self
                    .closed(CloseReason::Lost("no negotiation in time".into()))
                    .await;
            }
        };
        let Self {
            link,
            events,
            queue,
            shared,
            control,
            writing,
            ..
        } = self;
        let protocol = peer.protocol;
        shared.give_back(write);
        if events.send(LinkEvent::Opened { link, peer }).await.is_err() {
            return;
        }
        let writing = Writing {
            link,
            protocol,
            queue,
            shared,
            events: events.clone(),
            control: writing,
        };
        tokio::spawn(writing.run());
        let Some(why) = hand_over(link, &mut reader, &events, control).await else {
            return;
        };
        if matches!(why, CloseReason::Malformed(_)) {
            tracing::warn!(%addr, %why, "connection closed");
        }
        let _ = events.send(LinkEvent::Closed { link, why }).await;
    }

    async fn closed(self, why: CloseReason) {
        let _ = self
            .events
            .send(LinkEvent::Closed {
                link: self.link,
                why,
            })
            .await;
    }
}

/// Hands over what comes, until the link ends, and says why it did; `None` if nobody wants to know.
async fn hand_over(
    link: LinkId,
    reader: &mut Reader,
    events: &mpsc::Sender<LinkEvent>,
    mut control: watch::Receiver<Control>,
) -> Option<CloseReason> {
    loop {
        let now = *control.borrow_and_update();
        match now {
            Control::Run => {}
            Control::Paused => {
                control.changed().await.ok()?;
                continue;
            }
            Control::Stop => return Some(CloseReason::Lost("the peer does not read".into())),
        }
        // Waited for all along, not anew with every frame.
        let mut changes = control.clone();
        let mut changed = std::pin::pin!(changes.changed());
        while !control.has_changed().ok()? {
            let next = tokio::select! {
                biased;
                next = reader.next() => next,
                changed = &mut changed => {
                    changed.ok()?;
                    // A frame may be half read: the reader keeps what it has.
                    if !matches!(reader.partial, Partial::Prefix) {
                        probe::hit(Probe::FrameCutByPause);
                    }
                    if planted::is(Bug::HalfFrameDropped) {
                        reader.partial = Partial::Prefix;
                    }
                    break;
                }
            };
            let msg = match next {
                Ok(msg) => msg,
                Err(why) => return Some(why),
            };
            let (more, end) = reader.there();
            let received = LinkEvent::Received { link, msg, more };
            events.send(received).await.ok()?;
            if let Some(why) = end {
                return Some(why);
            }
        }
    }
}

async fn negotiate(
    role: Role,
    reader: &mut Reader,
    write: &mut WriteHalf,
    addr: SocketAddr,
) -> Result<Peer, CloseReason> {
    let ours = Negotiate::ours(role, ClusterId(0));
    let lost = |error: io::Error| CloseReason::Lost(error.to_string());
    write
        .write_all(&frame::encode(0, &Msg::new(0, ours.clone())))
        .await
        .map_err(lost)?;
    write.flush().await.map_err(lost)?;
    let Head::Negotiate(theirs) = reader.next().await?.head else {
        return Err(CloseReason::Malformed(
            "the first message is not a negotiation".into(),
        ));
    };
    let protocol = ours.agree(&theirs).map_err(CloseReason::Refused)?;
    Ok(Peer {
        role: theirs.role,
        cluster: theirs.cluster,
        addr,
        protocol,
        build: theirs.build,
    })
}

/// Reads frames. What was read of a frame is kept when `next` is dropped half-way.
struct Reader {
    io: ReadHalf,
    buf: Box<[u8]>,
    from: usize,
    to: usize,
    partial: Partial,
}

enum Partial {
    Prefix,
    Head {
        prefix: Prefix,
        head: Vec<u8>,
        have: usize,
    },
    Body {
        prefix: Prefix,
        head: Vec<u8>,
        body: crate::pool::Buffer,
        have: usize,
    },
}

impl Reader {
    fn new(io: ReadHalf) -> Self {
        Self {
            io,
            buf: vec![0; READ_BYTES].into_boxed_slice(),
            from: 0,
            to: 0,
            partial: Partial::Prefix,
        }
    }

    async fn next(&mut self) -> Result<Msg, CloseReason> {
        loop {
            if let Some(msg) = self.take()? {
                return Ok(msg);
            }
            let n = match &mut self.partial {
                Partial::Prefix => {
                    self.buf.copy_within(self.from..self.to, 0);
                    (self.from, self.to) = (0, self.to - self.from);
                    let n = some(self.io.read(&mut self.buf[self.to..]).await)?;
                    self.to += n;
                    continue;
                }
                Partial::Head { head, have, .. } => {
                    (some(self.io.read(&mut head[*have..]).await)?, have)
                }
                Partial::Body { body, have, .. } => {
                    (some(self.io.read(&mut body.as_mut()[*have..]).await)?, have)
                }
            };
            *n.1 += n.0;
        }
    }

    /// All frames that are there already, and what is wrong with the bytes behind them.
    fn there(&mut self) -> (Vec<Msg>, Option<CloseReason>) {
        let mut all = Vec::new();
        loop {
            match self.take() {
                Ok(Some(msg)) => all.push(msg),
                Ok(None) => return (all, None),
                Err(why) => return (all, Some(why)),
            }
        }
    }

    /// A frame, if it is there without reading.
    fn take(&mut self) -> Result<Option<Msg>, CloseReason> {
        loop {
            match &mut self.partial {
                Partial::Prefix => {
                    let there = &self.buf[self.from..self.to];
                    let Some(bytes) = there.first_chunk() else {
                        return Ok(None);
                    };
                    let prefix = Prefix::decode(bytes).map_err(malformed)?;
                    self.from += PREFIX_BYTES;
                    // Most frames are all there: no need to gather them elsewhere.
                    let head = &self.buf[self.from..self.to];
                    if prefix.body_bytes == 0
                        && let Some(head) = head.get(..prefix.head_bytes)
                    {
                        self.from += prefix.head_bytes;
                        let msg = prefix.message(head, Bytes::new());
                        return msg.map(Some).map_err(malformed);
                    }
                    let head = vec![0; prefix.head_bytes];
                    self.partial = Partial::Head {
                        prefix,
                        head,
                        have: 0,
                    };
                }
                Partial::Head { prefix, head, have } => {
                    let n = (head.len() - *have).min(self.to - self.from);
                    head[*have..*have + n].copy_from_slice(&self.buf[self.from..self.from + n]);
                    self.from += n;
                    *have += n;
                    if *have < head.len() {
                        return Ok(None);
                    }
                    let (prefix, head) = (*prefix, std::mem::take(head));
                    let mut body = pool().take(prefix.body_bytes);
                    let n = prefix.body_bytes.min(self.to - self.from);
                    body.as_mut()[..n].copy_from_slice(&self.buf[self.from..self.from + n]);
                    self.from += n;
                    self.partial = Partial::Body {
                        prefix,
                        head,
                        body,
                        have: n,
                    };
                }
                Partial::Body { prefix, have, .. } => {
                    if *have < prefix.body_bytes {
                        return Ok(None);
                    }
                    let Partial::Body {
                        prefix, head, body, ..
                    } = std::mem::replace(&mut self.partial, Partial::Prefix)
                    else {
                        unreachable!("the arm says so");
                    };
                    let msg = prefix.message(&head, body.freeze());
                    return msg.map(Some).map_err(malformed);
                }
            }
        }
    }
}

fn some(read: io::Result<usize>) -> Result<usize, CloseReason> {
    match read {
        Ok(0) => Err(CloseReason::Lost("the peer closed the connection".into())),
        Ok(n) => Ok(n),
        Err(error) => Err(CloseReason::Lost(error.to_string())),
    }
}

fn malformed(error: frame::FrameError) -> CloseReason {
    CloseReason::Malformed(error.to_string())
}

/// The writing task.
struct Writing {
    link: LinkId,
    protocol: u8,
    queue: mpsc::UnboundedReceiver<Work>,
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
    control: watch::Receiver<Control>,
}

impl Writing {
    async fn run(mut self) {
        loop {
            let first = tokio::select! {
                biased;
                work = self.queue.recv() => work,
                _ = stopped(&mut self.control) => return,
            };
            if let Some(Work::Failed(error)) = first {
                return self.failed(&error).await;
            }
            // The loop, which writes without waiting, has given it back, unless it has failed.
            let Some(mut io) = self.shared.half() else {
                return;
            };
            let Some(first) = first else {
                let _ = timeout(LINGER_MAX, io.shutdown()).await;
                return;
            };
            let linger = self.queue.is_closed();
            let batch = self.batch(first);
            let wrote = async {
                let bytes = Self::write(&mut io, batch).await?;
                if self.queue.is_empty() {
                    io.flush().await?;
                }
                Ok::<usize, io::Error>(bytes)
            };
            let wrote = tokio::select! {
                biased;
                wrote = wrote => wrote,
                // The link was given up while the peer takes nothing: no more than a moment for what is left.
                () = hung(&mut self.control) => return,
            };
            self.shared.give_back(io);
            match wrote {
                Ok(bytes) => {
                    self.shared.queued.fetch_sub(bytes, Ordering::Release);
                    let sent = LinkEvent::Sent {
                        link: self.link,
                        bytes,
                    };
                    if !linger && self.events.send(sent).await.is_err() {
                        return;
                    }
                }
                // The reading task sees the same and says so; in case it is paused, this one does too.
                Err(error) => return self.failed(&error).await,
            }
        }
    }

    async fn failed(self, error: &io::Error) {
        let (link, why) = (self.link, CloseReason::Lost(error.to_string()));
        let _ = self.events.send(LinkEvent::Closed { link, why }).await;
    }

    /// The next frames to write as one: small ones together, a body alone behind them.
    fn batch(&mut self, first: Work) -> Batch {
        let mut batch = Batch {
            heads: Vec::new(),
            body: Bytes::new(),
            cost: 0,
        };
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Frames(frames, cost) => {
                    batch.cost += cost;
                    if batch.heads.is_empty() {
                        batch.heads = frames;
                    } else {
                        batch.heads.extend_from_slice(&frames);
                    }
                }
                // Nothing comes before it that was not written.
                Work::Failed(_) => unreachable!("the loop writes while there is no work"),
                Work::Msg(msg) => {
                    batch.cost += msg.cost();
                    frame::append(self.protocol, &msg, &mut batch.heads);
                    if !msg.body.is_empty() {
                        batch.body = msg.body;
                        break;
                    }
                }
            }
            next = if batch.heads.len() < WRITE_BYTES {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        batch
    }

    async fn write(io: &mut WriteHalf, batch: Batch) -> io::Result<usize> {
        let cost = batch.cost;
        io.write_all_buf(&mut Buf::chain(batch.heads.as_slice(), batch.body))
            .await?;
        Ok(cost)
    }
}

struct Batch {
    heads: Vec<u8>,
    body: Bytes,
    cost: usize,
}

/// Resolves when the link is stopped; never when its handle was dropped (what is queued still leaves).
async fn stopped(control: &mut watch::Receiver<Control>) {
    loop {
        if *control.borrow_and_update() == Control::Stop {
            return;
        }
        if control.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves when the link is stopped, or a while after its handle was dropped.
async fn hung(control: &mut watch::Receiver<Control>) {
    loop {
        if *control.borrow_and_update() == Control::Stop {
            return;
        }
        if control.changed().await.is_err() {
            tokio::time::sleep(LINGER_MAX).await;
            return;
        }
    }
}
