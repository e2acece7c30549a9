//! A cluster on simulated nodes: how its processes start, die, lose power, are cut off, and come back.
use super::shared::Shared;
use super::tap::{ServerObserver, Tapped};
use crate::disk::DiskModel;
use crate::disk::node::NodeDisk;
use crate::fault::{Fault, Planned, ServerNumber, Site, Trigger};
use crate::keyed::Keyed;
use crate::observe::client::ClientObserver;
use crate::observe::record::Watch;
use crate::oracle::Violation;
use crate::outcome::Crashes;
use crate::schedule::{Schedule, Speed};
use crate::workload::client::Actor;
use kfs_client::Kfs;
use kfs_core::wire::Role;
use kfs_core::{chunk, client, meta};
use kfs_drive::{Exit, Net, drive};
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::{AbortHandle, NodeId};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep;

const PORT: u16 = 20_000;
const DISK_BYTES: u64 = 64 << 20;
/// How long a client's call may take.
const CALL_MAX: Duration = Duration::from_secs(20);

/// The servers and clients of a run. Cloned freely: there is one.
#[derive(Clone)]
pub struct Cluster {
    setup: Arc<Schedule>,
    record: Shared,
    handle: Handle,
    net: Arc<NetSim>,
    servers: Arc<Vec<Server>>,
    clients: Arc<Vec<NodeId>>,
    state: Arc<Mutex<State>>,
    /// Rings when a client process has done all its work.
    client_done: Arc<Notify>,
}

struct Server {
    node: NodeId,
    disk: NodeDisk,
}

#[derive(Default)]
struct State {
    up: Vec<bool>,
    paused: Vec<bool>,
    clients: Vec<ClientState>,
    faults: BTreeMap<&'static str, u64>,
    crashes: Crashes,
    /// No more faults: everything is being healed.
    healing: bool,
    /// The tasks of the planned faults.
    strikes: Vec<AbortHandle>,
}

#[derive(Clone, Default)]
struct ClientState {
    processes: u32,
    up: bool,
    /// Jobs begun, per actor: a new process goes on where the old one died.
    steps: Vec<usize>,
    done: bool,
}

/// Where a server listens. Addresses for documentation (RFC 5737): nobody real is ever meant.
fn addr_of(server: ServerNumber) -> SocketAddr {
    SocketAddr::new(ip(1 + server), PORT)
}
fn ip(host: usize) -> IpAddr {
    let host = u8::try_from(host).expect("a run has few nodes");
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}
fn server_name(server: ServerNumber) -> String {
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
        net.update_config(|config| {
            let (from, to) = setup.latency_us;
            config.send_latency = Duration::from_micros(from)..Duration::from_micros(to);
            #[allow(clippy::cast_precision_loss)]
            let lost = setup.loss_permille as f64 / 1_000.0;
            config.packet_loss_rate = lost;
        });
        let servers = (0..setup.servers)
            .map(|server| {
                let name = server_name(server);
                let draws = Keyed::new(setup.seed, &format!("disk of {name}"));
                let disk = NodeDisk::new(DiskModel::new(DISK_BYTES), draws, setup.speed);
                let starts = Arc::new(Mutex::new(0_u64));
                let process = (setup.clone(), record.clone(), disk.clone());
                let node = handle
                    .create_node()
                    .name(&name)
                    .ip(ip(1 + server))
                    .init(move || {
                        let (setup, record, disk) = process.clone();
                        let mut starts = starts.lock().unwrap_or_else(PoisonError::into_inner);
                        *starts += 1;
                        serve(setup, record, disk, server, *starts)
                    })
                    .build();
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
                handle.create_node().name(name).ip(ip(host)).build().id()
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
        Self {
            setup,
            record,
            handle,
            net,
            servers: Arc::new(servers),
            clients: Arc::new(clients),
            state: Arc::new(Mutex::new(state)),
            client_done: Arc::new(Notify::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
                if self.record.lock().ready.len() == self.setup.servers {
                    break;
                }
                bell.notified().await;
            }
        };
        if tokio::time::timeout(most, ready).await.is_ok() {
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

    fn start_client(&self, client: usize) {
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

    /// Lets the planned faults strike, each when it is due.
    pub fn unleash(&self) {
        for planned in self.setup.faults.clone() {
            let cluster = self.clone();
            let strike = madsim::task::spawn(async move { cluster.strike(planned).await });
            self.state().strikes.push(strike.abort_handle());
        }
    }

    async fn strike(self, planned: Planned) {
        match planned.trigger {
            Trigger::At(ms) => sleep(Duration::from_millis(ms)).await,
            Trigger::AtAck(nth) => {
                self.record.bell(Watch::Ack(nth)).notified().await;
            }
            Trigger::AfterMessage(kind, nth, ms) => {
                self.record.bell(Watch::Message(kind, nth)).notified().await;
                if ms > 0 {
                    sleep(Duration::from_millis(ms)).await;
                }
            }
            Trigger::AtOperation(server, ms, operations) => {
                sleep(Duration::from_millis(ms)).await;
                if !self.state().up[server] || self.state().healing {
                    return;
                }
                let bell = Arc::new(Notify::new());
                self.servers[server]
                    .disk
                    .trip_after(operations, bell.clone());
                bell.notified().await;
            }
        }
        if self.state().healing || !self.inflict(&planned.fault) {
            return;
        }
        sleep(Duration::from_millis(planned.lasts_ms)).await;
        if !self.state().healing {
            self.heal(&planned.fault);
        }
    }

    /// Makes it go wrong, if what it strikes is up.
    fn inflict(&self, fault: &Fault) -> bool {
        let struck = match fault {
            Fault::Kill(server) => self.kill(*server),
            Fault::PowerLoss(site, policy) => {
                for client in &site.clients {
                    self.kill_client(*client);
                }
                for server in &site.servers {
                    // A dead process's data is still in the page cache of a machine that has power.
                    self.kill(*server);
                    let crash = self.servers[*server].disk.power_loss(*policy);
                    self.state().crashes.add(crash);
                }
                true
            }
            Fault::Isolate(server) => {
                self.net.clog_node(self.servers[*server].node);
                true
            }
            Fault::OneWay(from, to) => {
                self.net
                    .clog_link(self.servers[*from].node, self.servers[*to].node);
                true
            }
            Fault::Pause(server) => {
                let mut state = self.state();
                let strikes = state.up[*server] && !state.paused[*server];
                if strikes {
                    state.paused[*server] = true;
                    self.handle.pause(self.servers[*server].node);
                }
                strikes
            }
            Fault::SlowDisk(server) => {
                let Speed {
                    read_us,
                    write_us,
                    sync_us,
                } = self.setup.speed;
                self.servers[*server].disk.set_speed(Speed {
                    read_us: read_us * 50,
                    write_us: write_us * 50,
                    sync_us: sync_us * 50,
                });
                true
            }
            Fault::KillClient(client) => self.kill_client(*client),
        };
        if struck {
            let kind = fault.kind();
            *self.state().faults.entry(kind).or_default() += 1;
            self.record.lock().remark(|| format!("FAULT {fault:?}"));
        }
        struck
    }

    fn heal(&self, fault: &Fault) {
        self.record.lock().remark(|| format!("HEAL {fault:?}"));
        match fault {
            Fault::Kill(server) => self.restart(*server),
            Fault::PowerLoss(site, _) => {
                site.servers.iter().for_each(|server| self.restart(*server));
                site.clients
                    .iter()
                    .for_each(|client| self.restart_client(*client));
            }
            Fault::Isolate(server) => self.net.unclog_node(self.servers[*server].node),
            Fault::OneWay(from, to) => self
                .net
                .unclog_link(self.servers[*from].node, self.servers[*to].node),
            Fault::Pause(server) => self.resume(*server),
            Fault::SlowDisk(server) => self.servers[*server].disk.set_speed(self.setup.speed),
            Fault::KillClient(client) => self.restart_client(*client),
        }
    }

    fn kill(&self, server: ServerNumber) -> bool {
        let mut state = self.state();
        if !state.up[server] {
            return false;
        }
        state.up[server] = false;
        state.paused[server] = false;
        drop(state);
        self.record.lock().ready.remove(&server);
        self.handle.kill(self.servers[server].node);
        self.servers[server].disk.kill();
        true
    }

    fn restart(&self, server: ServerNumber) {
        let mut state = self.state();
        if !state.up[server] {
            state.up[server] = true;
            drop(state);
            self.handle.restart(self.servers[server].node);
        }
    }

    fn kill_client(&self, client: usize) -> bool {
        let process = {
            let mut state = self.state();
            let state = &mut state.clients[client];
            if state.done || !state.up {
                return false;
            }
            state.up = false;
            (state.processes - 1) * as_u32(self.setup.clients.len()) + as_u32(client)
        };
        self.handle.kill(self.clients[client]);
        self.record.lock().session_ends(process);
        true
    }

    fn restart_client(&self, client: usize) {
        if !self.state().clients[client].up {
            self.handle.restart(self.clients[client]);
            self.start_client(client);
        }
    }

    fn resume(&self, server: ServerNumber) {
        let mut state = self.state();
        if state.paused[server] {
            state.paused[server] = false;
            drop(state);
            self.handle.resume(self.servers[server].node);
        }
    }

    /// Ends all faults for good and starts what is down.
    pub fn heal_all(&self) {
        self.state().healing = true;
        for from in 0..self.setup.servers {
            self.net.unclog_node(self.servers[from].node);
            for to in 0..self.setup.servers {
                self.net
                    .unclog_link(self.servers[from].node, self.servers[to].node);
            }
            self.servers[from].disk.set_speed(self.setup.speed);
            if self.servers[from].disk.disarm() {
                // Its crash was due just now.
                self.kill(from);
            }
            self.resume(from);
            self.restart(from);
        }
        self.net
            .update_config(|config| config.packet_loss_rate = 0.0);
    }

    /// The power of everything fails once more, and comes back.
    pub fn power_cycle(&self) {
        let draws = &mut Keyed::new(self.setup.seed, "last power loss");
        let policy = draws.pick(&crate::disk::Policy::ALL);
        let everything = Site {
            servers: (0..self.setup.servers).collect(),
            clients: Vec::new(),
        };
        self.inflict(&Fault::PowerLoss(everything, policy));
        for server in 0..self.setup.servers {
            self.restart(server);
        }
    }

    /// Kills every node, so that nothing of the run stays in memory.
    pub async fn end(&self) {
        for strike in std::mem::take(&mut self.state().strikes) {
            strike.abort();
        }
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

/// A server's process, until it is killed. No fault of these runs is a reason to stop by itself.
async fn serve(
    setup: Arc<Schedule>,
    record: Shared,
    disk: NodeDisk,
    server: ServerNumber,
    start: u64,
) {
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
            min_replicas: 2,
            cluster: None,
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
        });
        let (_caller, calls) = kfs_drive::calls(|_| {});
        let machine = Tapped::new(machine, observer, record.clone(), name.clone());
        drive(machine, disk, completions, net, calls).await
    };
    let what = match exit {
        Exit::Fault(fault) => format!("{name} stopped by itself: {fault}"),
        Exit::Released => format!("{name} was released"),
    };
    record
        .lock()
        .check::<()>(Err(Violation::new("halt", "L", what)));
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).expect("a run has few of anything")
}
