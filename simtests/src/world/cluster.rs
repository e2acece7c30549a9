//! A cluster on simulated nodes: how its processes start and what they do.
use super::shared::Shared;
use super::tap::{ServerObserver, Tapped};
use super::wire::Wire;
use crate::disk::DiskModel;
use crate::disk::node::NodeDisk;
use crate::fault::ServerNumber;
use crate::keyed::Keyed;
use crate::observe::client::ClientObserver;
use crate::observe::record::Watch;
use crate::oracle::Violation;
use crate::outcome::Crashes;
use crate::schedule::{COPY_RATE, MIN_REPLICAS, Schedule};
use crate::workload::client::Actor;
use kfs_client::Kfs;
use kfs_core::wire::Role;
use kfs_core::{chunk, client, meta};
use kfs_drive::{Exit, Net, drive};
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::{AbortHandle, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;

const PORT: u16 = 20_000;
const DISK_BYTES: u64 = 64 << 20;
/// How long a client's call may take.
const CALL_MAX: Duration = Duration::from_secs(20);
/// How long a server that stopped by itself is left alone.
const REVIVE_AFTER: Duration = Duration::from_millis(500);

/// The servers and clients of a run. Cloned freely: there is one.
#[derive(Clone)]
pub struct Cluster {
    pub(super) setup: Arc<Schedule>,
    pub(super) record: Shared,
    pub(super) handle: Handle,
    pub(super) net: Arc<NetSim>,
    pub(super) wire: Wire,
    pub(super) servers: Arc<Vec<Server>>,
    pub(super) clients: Arc<Vec<NodeId>>,
    state: Arc<Mutex<State>>,
    /// Rings when a client process has done all its work.
    client_done: Arc<Notify>,
}

/// A server whose process stopped by itself, and why.
type Halted = (ServerNumber, String);

pub(super) struct Server {
    pub(super) node: NodeId,
    pub(super) disk: NodeDisk,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) up: Vec<bool>,
    pub(super) paused: Vec<bool>,
    /// Servers without power.
    pub(super) dark: BTreeSet<ServerNumber>,
    pub(super) clients: Vec<ClientState>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) crashes: Crashes,
    /// No more faults: everything is being healed.
    pub(super) healing: bool,
    /// The tasks of the planned faults.
    pub(super) strikes: Vec<AbortHandle>,
    /// Servers that may have found that they cannot go on: their disks failed.
    pub(super) ailing: BTreeSet<ServerNumber>,
    /// Servers on whose disks something is not as they left it.
    pub(super) hurt: BTreeSet<ServerNumber>,
    /// Disks that were taken out of their servers.
    pub(super) put_aside: BTreeMap<ServerNumber, DiskModel>,
}

#[derive(Clone, Default)]
pub(super) struct ClientState {
    pub(super) processes: u32,
    pub(super) up: bool,
    /// Jobs begun, per actor: a new process goes on where the old one died.
    steps: Vec<usize>,
    pub(super) done: bool,
}

/// Where a server listens. Addresses for documentation (RFC 5737): nobody real is ever meant.
fn addr_of(server: ServerNumber) -> SocketAddr {
    SocketAddr::new(ip(1 + server), PORT)
}
fn ip(host: usize) -> IpAddr {
    let host = u8::try_from(host).expect("a run has few nodes");
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}
pub(super) fn server_name(server: ServerNumber) -> String {
    if server == 0 {
        "meta".into()
    } else {
        format!("chunk{server}")
    }
}

impl Cluster {
    /// Starts the servers. Clients are made, and started later.
    #[must_use]
    pub fn start(setup: Arc<Schedule>, record: Shared) -> Self {
        let handle = Handle::current();
        let net = NetSim::current();
        let wire = Wire::of_run(setup.seed);
        net.update_config(|config| {
            let (from, to) = setup.latency_us;
            config.send_latency = Duration::from_micros(from)..Duration::from_micros(to);
            #[allow(clippy::cast_precision_loss)]
            let lost = setup.loss_permille as f64 / 1_000.0;
            config.packet_loss_rate = lost;
        });
        let (halts, halted) = unbounded_channel();
        let servers = (0..setup.servers)
            .map(|server| {
                let name = server_name(server);
                let draws = Keyed::new(setup.seed, &format!("disk of {name}"));
                let disk = NodeDisk::new(DiskModel::new(DISK_BYTES), draws, setup.speed);
                let starts = Arc::new(Mutex::new(0_u64));
                let process = (setup.clone(), record.clone(), disk.clone(), halts.clone());
                let node = handle
                    .create_node()
                    .name(&name)
                    .ip(ip(1 + server))
                    .init(move || {
                        let (setup, record, disk, halts) = process.clone();
                        let mut starts = starts.lock().unwrap_or_else(PoisonError::into_inner);
                        *starts += 1;
                        let served = serve(setup, record, disk, server, *starts);
                        async move {
                            // Nobody listens any more when the run is over.
                            let _ = halts.send((server, served.await));
                        }
                    })
                    .build();
                wire.name(node.id(), server);
                Server {
                    node: node.id(),
                    disk,
                }
            })
            .collect();
        let clients = (0..setup.clients.len())
            .map(|client| {
                let host = 1 + setup.servers + client;
                let name = format!("client{client}");
                let node = handle.create_node().name(name).ip(ip(host)).build().id();
                wire.name(node, host - 1);
                node
            })
            .collect();
        let state = State {
            up: vec![true; setup.servers],
            paused: vec![false; setup.servers],
            clients: setup
                .clients
                .iter()
                .map(|plan| ClientState {
                    processes: 0,
                    up: false,
                    steps: vec![0; plan.actors.len()],
                    done: false,
                })
                .collect(),
            ..State::default()
        };
        let cluster = Self {
            setup,
            record,
            handle,
            net,
            wire,
            servers: Arc::new(servers),
            clients: Arc::new(clients),
            state: Arc::new(Mutex::new(state)),
            client_done: Arc::new(Notify::new()),
        };
        let supervising = madsim::task::spawn(cluster.clone().supervise(halted));
        cluster.state().strikes.push(supervising.abort_handle());
        cluster
    }

    /// Starts servers again that stopped by themselves. With a disk that does not fail none may.
    async fn supervise(self, mut halted: UnboundedReceiver<Halted>) {
        while let Some((server, why)) = halted.recv().await {
            // A meta server whose log is not what it was may refuse anybody.
            let may = |state: &State| state.ailing.contains(&server) || state.hurt.contains(&0);
            if !may(&self.state()) {
                let violation = Violation::new("halt", "L", why);
                self.record.lock().check::<()>(Err(violation));
                continue;
            }
            self.record.lock().remark(|| why);
            self.kill(server);
            let cluster = self.clone();
            madsim::task::spawn(async move {
                sleep(REVIVE_AFTER).await;
                if !cluster.state().dark.contains(&server) {
                    cluster.restart(server);
                }
            });
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every server has said since its last start that it is ready.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn all_ready(&self, most: Duration) -> Result<(), Violation> {
        let ready = async {
            loop {
                let bell = self.record.bell(Watch::Ready);
                let hurt = self.hurt();
                let ready = self.record.lock().ready.clone();
                // One whose disk was hurt may have good reason not to.
                if (0..self.setup.servers)
                    .all(|server| ready.contains(&server) || hurt.contains(&server))
                {
                    break;
                }
                bell.notified().await;
            }
        };
        // Without a meta server nobody is.
        if tokio::time::timeout(most, ready).await.is_ok() || self.hurt().contains(&0) {
            return Ok(());
        }
        let ready = self.record.lock().ready.clone();
        let missing: Vec<String> = (0..self.setup.servers)
            .filter(|server| !ready.contains(server))
            .map(server_name)
            .collect();
        let what = format!(
            "{most:?} after all faults ended, not ready: {}",
            missing.join(", ")
        );
        Err(Violation::new("O9", "L", what))
    }

    /// Starts the clients' work.
    pub fn start_clients(&self) {
        for client in 0..self.setup.clients.len() {
            self.start_client(client);
        }
    }

    pub(super) fn start_client(&self, client: usize) {
        let process = {
            let mut state = self.state();
            let state = &mut state.clients[client];
            state.processes += 1;
            state.up = true;
            (state.processes - 1) * as_u32(self.setup.clients.len()) + as_u32(client)
        };
        let node = self
            .handle
            .get_node(self.clients[client])
            .expect("it was made");
        let cluster = self.clone();
        node.spawn(async move { cluster.work(client, process).await });
    }

    /// A client process: its actors work beside one another.
    async fn work(self, client: usize, process: u32) {
        let kfs = self.client(process);
        let plan = &self.setup.clients[client];
        let actors: Vec<_> = (0..plan.actors.len())
            .map(|nth| {
                let number = as_u32(client) * self.setup.actors_max() + as_u32(nth);
                let (record, setup) = (self.record.clone(), self.setup.clone());
                let mut actor = Actor::new(kfs.clone(), record, setup, number);
                let cluster = self.clone();
                tokio::spawn(async move {
                    actor.prepare().await;
                    while let Some(job) = cluster.next_job(client, nth) {
                        actor
                            .work(job, &cluster.setup.clients[client].actors[nth][job])
                            .await;
                    }
                })
            })
            .collect();
        for actor in actors {
            // An actor ends when its steps are done; a panic of it ends the run.
            let _ = actor.await;
        }
        kfs.disconnect().await;
        self.state().clients[client].done = true;
        self.client_done.notify_one();
    }

    fn next_job(&self, client: usize, actor: usize) -> Option<usize> {
        let mut state = self.state();
        let next = &mut state.clients[client].steps[actor];
        let job = *next;
        *next += 1;
        (job < self.setup.clients[client].actors[actor].len()).then_some(job)
    }

    /// A client on the current node.
    #[must_use]
    pub fn client(&self, process: u32) -> Kfs {
        let config = client::Config {
            seed: Keyed::new(self.setup.seed, &format!("client {process}")).bits(),
            limits: self.setup.limits,
            meta: addr_of(0),
            timeout: CALL_MAX,
        };
        let observer = ClientObserver::new(process);
        let machine = client::Client::new(config);
        let name = format!("client-{process}");
        let machine = Tapped::new(machine, observer, self.record.clone(), name);
        Kfs::over(machine, self.setup.limits)
    }

    /// Waits until all clients are done.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn all_done(&self, most: Duration) -> Result<(), Violation> {
        let done = async {
            while !self.state().clients.iter().all(|client| client.done) {
                self.client_done.notified().await;
            }
        };
        match tokio::time::timeout(most, done).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let what = format!("a client's call was not answered within {most:?}");
                Err(Violation::new("O9", "L", what))
            }
        }
    }

    /// Kills every node, so that nothing of the run stays in memory.
    pub async fn end(&self) {
        let strikes = {
            let mut state = self.state();
            // None of them comes back.
            state.dark.extend(0..self.setup.servers);
            std::mem::take(&mut state.strikes)
        };
        for strike in strikes {
            strike.abort();
        }
        self.wire.end();
        for server in 0..self.setup.servers {
            self.resume(server);
            self.kill(server);
        }
        for client in self.clients.iter() {
            self.handle.kill(*client);
        }
        // Futures of killed nodes are dropped when the executor next comes to them.
        sleep(Duration::from_secs(1)).await;
    }

    /// A look at every chunkserver's disk.
    pub fn look<T>(&self, mut at: impl FnMut(&str, &DiskModel) -> T) -> Vec<T> {
        (1..self.setup.servers)
            .map(|server| {
                self.servers[server]
                    .disk
                    .look(|model| at(&server_name(server), model))
            })
            .collect()
    }

    /// The meta server's disk, as it is now.
    #[must_use]
    pub fn meta_disk(&self) -> DiskModel {
        self.servers[0].disk.look(DiskModel::clone)
    }

    /// Servers on whose disks something is not as they left it.
    #[must_use]
    pub fn hurt(&self) -> BTreeSet<ServerNumber> {
        self.state().hurt.clone()
    }
    /// What is between the nodes.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }
    /// Faults that struck, by kind.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state().faults.clone()
    }
    /// What power losses did.
    #[must_use]
    pub fn crashes(&self) -> Crashes {
        self.state().crashes
    }
    /// Operations of all disks.
    #[must_use]
    pub fn disk_operations(&self) -> u64 {
        self.servers
            .iter()
            .map(|server| server.disk.counts().operations)
            .sum()
    }
}

/// A server's process, until it is killed, or stops by itself; then why.
async fn serve(
    setup: Arc<Schedule>,
    record: Shared,
    disk: NodeDisk,
    server: ServerNumber,
    start: u64,
) -> String {
    record.server_starts(server, &disk);
    let (sender, completions) = unbounded_channel();
    let disk = disk.open(sender);
    let name = server_name(server);
    let seed = Keyed::new(setup.seed, &format!("{name}, start {start}")).bits();
    let role = if server == 0 { Role::Meta } else { Role::Chunk };
    let mut net = Net::new(role);
    let listening = net.listen(addr_of(server)).await;
    listening.expect("a port of its own");
    let observer = ServerObserver::new(server);
    let exit = if server == 0 {
        let machine = meta::Meta::new(meta::Config {
            seed,
            geometry: setup.geometry,
            limits: setup.limits,
            timing: setup.timing,
            replication: setup.replication,
            min_replicas: MIN_REPLICAS,
            cluster: None,
            checkpoint_every: setup.checkpoint_every(),
            re_replicate_after: setup.re_replicate_after(),
            copy_rate: COPY_RATE,
            mirror: setup.log_mirror,
        });
        let (_caller, calls) = kfs_drive::calls(|_| {});
        let machine = Tapped::new(machine, observer, record.clone(), name.clone());
        drive(machine, disk, completions, net, calls).await
    } else {
        let machine = chunk::Chunk::new(chunk::Config {
            seed,
            geometry: setup.geometry,
            limits: setup.limits,
            meta: addr_of(0),
            listen: addr_of(server),
            rack: format!("rack{}", server % 3),
            scrub_rate: setup.scrub_rate,
        });
        let (_caller, calls) = kfs_drive::calls(|_| {});
        let machine = Tapped::new(machine, observer, record.clone(), name.clone());
        drive(machine, disk, completions, net, calls).await
    };
    match exit {
        Exit::Fault(fault) => format!("{name} stopped by itself: {fault}"),
        Exit::Released => format!("{name} was released"),
    }
}

pub(super) fn as_u32(number: usize) -> u32 {
    u32::try_from(number).expect("a run has few of anything")
}
