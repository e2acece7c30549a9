//! A server that runs: its thread, what is known of it, and how it is stopped.
//!
//! Every server has one thread with a runtime of its own for machine, links and disk completions, and one
//! for its pages; so several servers fit in one process, and a busy page does not hold up a write.
use crate::admin::{self, Pages, Report, Startup, StartupWork};
use crate::disk::Files;
use crate::error::{Code, StartError};
use crate::observed::{Counts, Observed};
use crate::recorded::{RecordFile, Recorded};
use kfs_core::ids::{ClusterId, NodeId};
use kfs_core::machine::Fault;
use kfs_core::trace::TracedMachine;
use kfs_core::wire::Role;
use kfs_drive::{Caller, Net, calls, drive, entropy};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How often the published status is renewed.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// How long a page waits for the machine before it shows what was published last.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A server on its own thread. Dropping it ends it at once, as a crash would.
pub struct Running<S> {
    /// Where it is reached.
    pub listen: SocketAddr,
    /// Where its pages are.
    pub http: Option<SocketAddr>,
    data: PathBuf,
    progress: Progress,
    view: watch::Receiver<View<S>>,
    order: watch::Sender<Order>,
    ended: watch::Receiver<Option<Exit>>,
    thread: Option<JoinHandle<()>>,
}

/// How far a start has come.
struct Progress {
    startup: Startup,
    counts: Arc<Counts>,
}

/// What is known of a server.
#[derive(Clone, Debug)]
pub struct View<S> {
    /// How far it is.
    pub phase: Phase,
    /// What it last said of itself; `None` while it is starting.
    pub status: Option<S>,
}

/// How far a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It reads its data directory.
    Starting,
    /// It has read its data directory and waits for somebody else.
    Waiting {
        /// For whom and why.
        why: String,
    },
    /// It serves.
    Ready {
        /// Its cluster.
        cluster: ClusterId,
        /// Its own id; a meta server has none.
        node: Option<NodeId>,
    },
}

/// How a server ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was told to, and has finished what it had begun.
    Stopped,
    /// It was ended at once.
    Killed,
    /// It cannot go on.
    Fault(Fault),
    /// An assertion failed; its message is on stderr.
    Panicked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Stop,
    Kill,
}

impl<S> Running<S> {
    /// What was last published of it, at most a second old while it answers.
    #[must_use]
    pub fn status(&self) -> View<S>
    where
        S: Clone,
    {
        self.view.borrow().clone()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A line that says how far its start has come; `None`: it has read what it reads.
    #[must_use]
    pub fn progress(&self) -> Option<String> {
        let starts = matches!(self.view.borrow().phase, Phase::Starting);
        starts.then(|| self.progress.startup.line(&self.progress.counts))
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// If it ends before.
    pub async fn ready(&self) -> Result<(), Exit> {
        let mut view = self.view.clone();
        let is_ready = |view: &View<S>| matches!(view.phase, Phase::Ready { .. });
        // The sender is dropped when the server ends.
        let ready = view.wait_for(is_ready).await.is_ok();
        if ready {
            Ok(())
        } else {
            Err(self.wait().await)
        }
    }

    /// Has it finish what it has begun and end; its port is closed and its data directory free afterwards.
    pub async fn stop(&self) -> Exit {
        self.order.send_if_modified(|order| {
            *order == Order::Run && std::mem::replace(order, Order::Stop) != Order::Stop
        });
        self.wait().await
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&self) -> Exit {
        self.order.send_replace(Order::Kill);
        self.wait().await
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Exit {
        let mut ended = self.ended.clone();
        // Without a word the thread ends only by a panic.
        let exit = ended
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone());
        exit.ok().flatten().unwrap_or(Exit::Panicked)
    }
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        self.order.send_replace(Order::Kill);
        if let Some(thread) = self.thread.take() {
            // A panic was told on stderr.
            let _ = thread.join();
        }
    }
}

impl<S> fmt::Debug for Running<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("listen", &self.listen)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

/// What the thread of a server needs to know of its machine.
pub(crate) trait Server:
    TracedMachine<Call: Send, Event: Send, Config: Send> + 'static
{
    /// What it says of itself.
    type Status: Report + Clone + Send + Sync + 'static;
    /// What it tells its peers it is.
    const ROLE: Role;
    /// The directory whose reading is most of a start, and what is counted there.
    const STARTUP: StartupWork;
    /// The call that asks for the status.
    fn ask() -> Self::Call;
    /// The call that ends it.
    fn stop() -> Self::Call;
    /// The status in an answer; `None` while it is starting.
    fn status(event: Self::Event) -> Option<Self::Status>;
    /// What an event that answers no call means.
    fn phase(event: Self::Event) -> Option<Phase>;
}

/// Where a server runs.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) data: PathBuf,
    /// The directory of the second copy of a meta server's log.
    pub(crate) mirror: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    /// A new file to record the machine in.
    pub(crate) record: Option<PathBuf>,
}

/// Starts the machine that `configure` describes, given a seed and the address bound, once its data directory
/// is locked and its addresses are bound.
pub(crate) fn start<M: Server>(
    site: Site,
    configure: impl FnOnce(u64, SocketAddr) -> M::Config + Send + 'static,
) -> Result<Running<M::Status>, StartError> {
    let (order, orders) = watch::channel(Order::Run);
    let (view, views) = watch::channel(View {
        phase: Phase::Starting,
        status: None,
    });
    let (end, ended) = watch::channel(None);
    let (report, bound) = sync_channel(1);
    let data = site.data.clone();
    let name = match M::ROLE {
        Role::Meta => "kfs-meta",
        Role::Chunk => "kfs-chunk",
        Role::Client => "kfs-client",
    };
    let failed = |err: &std::io::Error| {
        StartError::new(Code::DataUnusable, format!("cannot start a thread: {err}"))
    };
    let thread = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // The first local is the last one dropped: who waits for the end sees port and directory free.
            let end = end;
            let exit = run::<M>(site, configure, view, orders, |started| {
                // Nobody waits for it if the caller has gone away.
                let _ = report.send(started);
            });
            if let Some(exit) = exit {
                end.send_replace(Some(exit));
            }
        });
    let thread = thread.map_err(|err| failed(&err))?;
    let bound = bound
        .recv()
        .unwrap_or_else(|_| Err(StartError::new(Code::Panicked, "the server's thread broke")));
    match bound {
        Ok(Bound {
            listen,
            http,
            progress,
        }) => Ok(Running {
            listen,
            http,
            data,
            progress,
            view: views,
            order,
            ended,
            thread: Some(thread),
        }),
        Err(err) => {
            let _ = thread.join();
            Err(err)
        }
    }
}

struct Bound {
    listen: SocketAddr,
    http: Option<SocketAddr>,
    progress: Progress,
}

/// The life of a server's thread; `None` if it did not come so far as to begin.
fn run<M: Server>(
    site: Site,
    configure: impl FnOnce(u64, SocketAddr) -> M::Config,
    view: watch::Sender<View<M::Status>>,
    orders: watch::Receiver<Order>,
    report: impl FnOnce(Result<Bound, StartError>),
) -> Option<Exit> {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(err) => {
            report(Err(StartError::new(
                Code::DataUnusable,
                format!("cannot make a runtime: {err}"),
            )));
            return None;
        }
    };
    let mut pages_thread = None;
    let exit = runtime.block_on(async {
        let (completions, completed) = mpsc::unbounded_channel();
        let opened = async {
            let files = Files::open_mirrored(&site.data, site.mirror.as_deref(), completions)
                .map_err(|err| StartError::open(&err))?;
            let mut net = Net::new(M::ROLE);
            let listen = net.listen(site.listen).await;
            let listen =
                listen.map_err(|err| StartError::cannot_listen("listen", site.listen, &err))?;
            let pages = site.http.map(|addr| {
                let bind = TcpListener::bind(addr)
                    .and_then(|listener| Ok((listener.local_addr()?, listener)));
                bind.map_err(|err| StartError::cannot_listen("http", addr, &err))
            });
            let pages = pages.transpose()?;
            // Last, so that a start that fails for another reason leaves no file behind.
            let record = site.record.as_deref();
            let record = record.map(|path| RecordFile::create(path, &site.data));
            Ok((files, net, listen, pages, record.transpose()?))
        };
        let (files, net, listen, pages, record) = match opened.await {
            Ok(opened) => opened,
            Err(err) => {
                report(Err(err));
                return None;
            }
        };
        let http = pages.as_ref().map(|(addr, _)| *addr);
        let startup = Startup::of(M::STARTUP, &site.data);
        let (phase, phases) = mpsc::unbounded_channel();
        let (caller, calls) = calls(move |event| {
            if let Some(to) = M::phase(event) {
                // Its receiver goes only when the server ends.
                let _ = phase.send(to);
            }
        });
        let counts = Arc::new(Counts::default());
        let source = Source::<M> {
            caller: caller.clone(),
            view: view.subscribe(),
        };
        if let Some((_, listener)) = pages {
            let pages = Pages::new(source.clone(), listen, Arc::clone(&counts), startup);
            match admin::serve(listener, pages) {
                Ok(thread) => pages_thread = Some(thread),
                Err(err) => {
                    report(Err(StartError::new(
                        Code::DataUnusable,
                        format!("cannot serve pages: {err}"),
                    )));
                    return None;
                }
            }
        }
        let machine = Recorded::<M>::new(configure(entropy(), listen), record);
        let progress = Progress {
            startup,
            counts: Arc::clone(&counts),
        };
        let machine = Observed::new(machine, counts);
        report(Ok(Bound {
            listen,
            http,
            progress,
        }));
        tokio::spawn(publish(source, view, phases));
        let (finished, end) = oneshot::channel();
        tokio::spawn(async move {
            let exit = obey::<M>(orders, caller).await;
            let _ = finished.send(exit);
        });
        let exit = tokio::select! {
            biased;
            exit = drive(machine, files, completed, net, calls) => match exit {
                kfs_drive::Exit::Fault(fault) => Exit::Fault(fault),
                kfs_drive::Exit::Released => Exit::Killed,
            },
            exit = end => exit.unwrap_or(Exit::Panicked),
        };
        Some(exit)
    });
    // With the runtime goes who publishes, and with that the pages end.
    drop(runtime);
    if let Some(thread) = pages_thread {
        let _ = thread.join();
    }
    exit
}

/// Publishes what the machine says of itself: every now and then, and together with each new phase.
async fn publish<M: Server>(
    source: Source<M>,
    view: watch::Sender<View<M::Status>>,
    mut phases: mpsc::UnboundedReceiver<Phase>,
) {
    let mut every = tokio::time::interval(PUBLISH_EVERY);
    loop {
        let phase = tokio::select! {
            biased;
            phase = phases.recv() => match phase {
                Some(phase) => Some(phase),
                None => return,
            },
            _ = every.tick() => None,
        };
        let status = source.ask().await;
        view.send_modify(|view| {
            view.phase = phase.unwrap_or_else(|| view.phase.clone());
            view.status = status.or_else(|| view.status.take());
        });
    }
}

/// Waits for an order to end, and carries it out.
async fn obey<M: Server>(
    mut orders: watch::Receiver<Order>,
    caller: Caller<M::Call, M::Event>,
) -> Exit {
    // Whoever could give orders is gone: that is one, too.
    let first = orders
        .wait_for(|order| *order != Order::Run)
        .await
        .map_or(Order::Kill, |order| *order);
    if first == Order::Kill {
        return Exit::Killed;
    }
    let kill = async {
        let _ = orders.wait_for(|order| *order == Order::Kill).await;
    };
    tokio::select! {
        biased;
        () = kill => Exit::Killed,
        answer = caller.call(M::stop()) => match answer {
            Ok(_stopped) => Exit::Stopped,
            // The machine came to an end of its own, which the loop that drove it tells.
            Err(_gone) => std::future::pending().await,
        },
    }
}

/// Asks a machine what it has to say of itself.
pub(crate) struct Source<M: Server> {
    caller: Caller<M::Call, M::Event>,
    view: watch::Receiver<View<M::Status>>,
}

impl<M: Server> Clone for Source<M> {
    fn clone(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            view: self.view.clone(),
        }
    }
}

impl<M: Server> Source<M> {
    /// What it says now; `None` if it has nothing to say yet, or does not answer in time.
    async fn ask(&self) -> Option<M::Status> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.caller.call(M::ask())).await;
        M::status(answer.ok()?.ok()?)
    }
    /// What is known of it, as new as can be had, and whether it answered.
    pub(crate) async fn look(&self) -> (View<M::Status>, Answers) {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.caller.call(M::ask())).await;
        let mut view = self.view.borrow().clone();
        match answer {
            Ok(Ok(event)) => {
                view.status = M::status(event).or(view.status);
                (view, Answers::Yes)
            }
            Ok(Err(_)) | Err(_) => (view, Answers::No),
        }
    }
    /// What was published last.
    pub(crate) fn last(&self) -> View<M::Status> {
        self.view.borrow().clone()
    }
    /// Waits until the server has ended.
    pub(crate) async fn ended(&self) {
        let mut view = self.view.clone();
        while view.changed().await.is_ok() {}
    }
}

/// Whether a machine answers when it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answers {
    Yes,
    No,
}
