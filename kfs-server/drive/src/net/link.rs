//! One link: a stream, negotiated, with a task that reads frames and a task that writes them.
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
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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
    queue: mpsc::UnboundedSender<Msg>,
    queued: Arc<AtomicUsize>,
    /// Of the task that reads. Each task has a channel of its own: of several that wait on one, it is drawn from
    /// what is not the simulation's which goes on first.
    pub(super) control: watch::Sender<Control>,
    /// Of the task that writes, which need not hear of pauses.
    pub(super) writing: watch::Sender<Control>,
}

impl Handle {
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
    pub(super) fn send(&self, msg: Msg) {
        self.queued.fetch_add(msg.cost(), Ordering::Relaxed);
        // A link that broke has said so, or is about to.
        let _ = self.queue.send(msg);
    }
}

/// The tasks' end of a link.
pub(super) struct Ends {
    link: LinkId,
    role: Role,
    events: mpsc::Sender<LinkEvent>,
    queue: mpsc::UnboundedReceiver<Msg>,
    queued: Arc<AtomicUsize>,
    control: watch::Receiver<Control>,
    writing: watch::Receiver<Control>,
}

pub(super) fn pair(link: LinkId, role: Role, events: mpsc::Sender<LinkEvent>) -> (Handle, Ends) {
    // Bounded by `queued`: see `Net::send`.
    let (sender, queue) = mpsc::unbounded_channel();
    let (control_sender, control) = watch::channel(Control::Run);
    let (writing_sender, writing) = watch::channel(Control::Run);
    let queued = Arc::new(AtomicUsize::new(0));
    let handle = Handle {
        queue: sender,
        queued: Arc::clone(&queued),
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
            queued,
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
            queued,
            mut control,
            writing,
            ..
        } = self;
        let protocol = peer.protocol;
        if events.send(LinkEvent::Opened { link, peer }).await.is_err() {
            return;
        }
        let writing = Writing {
            link,
            protocol,
            queue,
            queued,
            events: events.clone(),
            control: writing,
        };
        tokio::spawn(writing.run(write));
        let why = loop {
            let now = *control.borrow_and_update();
            match now {
                Control::Run => {}
                Control::Paused => {
                    if control.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Control::Stop => break CloseReason::Lost("the peer does not read".into()),
            }
            let next = tokio::select! {
                biased;
                changed = control.changed() => match changed {
                    // A frame may be half read: the reader keeps what it has.
                    Ok(()) => {
                        if !matches!(reader.partial, Partial::Prefix) {
                            probe::hit(Probe::FrameCutByPause);
                        }
                        if planted::is(Bug::HalfFrameDropped) {
                            reader.partial = Partial::Prefix;
                        }
                        continue;
                    }
                    Err(_) => return,
                },
                next = reader.next() => next,
            };
            match next {
                Ok(msg) => {
                    if events
                        .send(LinkEvent::Received { link, msg })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Err(why) => break why,
            }
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
            match &mut self.partial {
                Partial::Prefix => {
                    if self.to - self.from < PREFIX_BYTES {
                        self.buf.copy_within(self.from..self.to, 0);
                        (self.from, self.to) = (0, self.to - self.from);
                        let n = self.io.read(&mut self.buf[self.to..]).await;
                        self.to += some(n)?;
                        continue;
                    }
                    let bytes = self.buf[self.from..self.from + PREFIX_BYTES].try_into();
                    let prefix =
                        Prefix::decode(bytes.expect("as long as it says")).map_err(malformed)?;
                    self.from += PREFIX_BYTES;
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
                        *have += some(self.io.read(&mut head[*have..]).await)?;
                        continue;
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
                Partial::Body {
                    prefix, body, have, ..
                } => {
                    if *have < prefix.body_bytes {
                        *have += some(self.io.read(&mut body.as_mut()[*have..]).await)?;
                        continue;
                    }
                    let Partial::Body {
                        prefix, head, body, ..
                    } = std::mem::replace(&mut self.partial, Partial::Prefix)
                    else {
                        unreachable!("the arm says so");
                    };
                    return prefix.message(&head, body.freeze()).map_err(malformed);
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
    queue: mpsc::UnboundedReceiver<Msg>,
    queued: Arc<AtomicUsize>,
    events: mpsc::Sender<LinkEvent>,
    control: watch::Receiver<Control>,
}

impl Writing {
    async fn run(mut self, mut io: WriteHalf) {
        loop {
            let first = tokio::select! {
                biased;
                msg = self.queue.recv() => msg,
                _ = stopped(&mut self.control) => return,
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
            match wrote {
                Ok(bytes) => {
                    self.queued.fetch_sub(bytes, Ordering::Relaxed);
                    let sent = LinkEvent::Sent {
                        link: self.link,
                        bytes,
                    };
                    if !linger && self.events.send(sent).await.is_err() {
                        return;
                    }
                }
                // The reading task sees the same and says so; in case it is paused, this one does too.
                Err(error) => {
                    let why = CloseReason::Lost(error.to_string());
                    let _ = self
                        .events
                        .send(LinkEvent::Closed {
                            link: self.link,
                            why,
                        })
                        .await;
                    return;
                }
            }
        }
    }

    /// The next frames to write as one: small ones together, a body alone behind them.
    fn batch(&mut self, first: Msg) -> Batch {
        let mut batch = Batch {
            heads: Vec::new(),
            body: Bytes::new(),
            cost: 0,
        };
        let mut next = Some(first);
        while let Some(msg) = next {
            batch.cost += msg.cost();
            let bytes = frame::encode(self.protocol, &msg);
            if batch.heads.is_empty() {
                batch.heads = bytes;
            } else {
                batch.heads.extend_from_slice(&bytes);
            }
            if !msg.body.is_empty() {
                batch.body = msg.body;
                break;
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
