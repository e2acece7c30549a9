//! How planned faults strike a cluster of the world, and how they are healed.
use super::cluster::{Cluster, as_u32};
use super::wire::{How, Switch};
use crate::disk::faults::{DiskFault, Injected};
use crate::disk::{DiskModel, Moment, Policy};
use crate::fault::{Cut, Fault, Party, Planned, ServerNumber, Site, Trigger};
use crate::keyed::Keyed;
use crate::observe::record::Watch;
use madsim::net::NetSim;
use madsim::task::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

impl Cluster {
    /// Lets the planned faults strike, each when it is due.
    pub fn unleash(&self) {
        for planned in self.setup.faults.clone() {
            self.remembers(&planned.fault);
            let cluster = self.clone();
            let strike = madsim::task::spawn(async move { cluster.strike(planned).await });
            self.state().strikes.push(strike.abort_handle());
        }
    }

    /// Disks that are set back later are remembered when that is due.
    fn remembers(&self, fault: &Fault) {
        match *fault {
            Fault::SetBack(server, ms) => {
                let cluster = self.clone();
                let due = madsim::task::spawn(async move {
                    sleep(Duration::from_millis(ms)).await;
                    cluster.servers[server].disk.alter(DiskModel::remember);
                });
                self.state().strikes.push(due.abort_handle());
            }
            Fault::Spoil(server, ..) => self.servers[server].disk.alter(|disk| {
                if disk.moments() == 0 {
                    disk.remember();
                }
            }),
            _ => {}
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
                self.site_loses_power(site, *policy);
                true
            }
            Fault::Isolate(server) => {
                self.net.clog_node(self.servers[*server].node);
                true
            }
            Fault::IsolateClient(client) => {
                self.net.clog_node(self.clients[*client]);
                true
            }
            Fault::OneWay(from, to) => {
                self.net
                    .clog_link(self.servers[*from].node, self.servers[*to].node);
                true
            }
            Fault::Apart(..) | Fault::Split(_) => {
                self.between(fault, NetSim::clog_link);
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
                let slow = self.setup.speed.times(50);
                self.servers[*server].disk.set_speed(slow);
                true
            }
            Fault::KillClient(client) => self.kill_client(*client),
            // The clock of all nodes is the runtime's; beside a server runs nothing there.
            Fault::Clock(..) | Fault::Compact(_) | Fault::Backup(_) | Fault::Restore => false,
            Fault::CutLinks(party, how) => {
                let how = match how {
                    Cut::Seen => How::Seen,
                    Cut::HalfSeen => How::HalfSeen,
                    Cut::MidFrame => How::MidFrame,
                };
                self.wire.cut(self.number_of(*party), how) > 0
            }
            Fault::HangDials(party) => {
                self.wire.hang_dials(self.number_of(*party), Switch::On);
                true
            }
            Fault::FlipBodies(party, times) => {
                let node = self.number_of(*party);
                self.wire.corrupt(node, u64::from(*times));
                true
            }
            Fault::Disk(server, fault) => self.disk_fails(*server, fault),
            Fault::Spoil(server, spot, damage) => {
                let block = self.servers[*server].disk.look(|disk| spot.find(disk));
                block.is_some_and(|block| self.disk_fails(*server, &damage.of(block)))
            }
            Fault::SetBack(server, _) => self.set_back(*server),
            Fault::CloneDisk(from, to) => self.clone_disk(*from, *to),
        };
        if struck {
            self.suffers(fault);
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
            Fault::IsolateClient(client) => self.net.unclog_node(self.clients[*client]),
            Fault::Apart(..) | Fault::Split(_) => self.between(fault, NetSim::unclog_link),
            Fault::OneWay(from, to) => self
                .net
                .unclog_link(self.servers[*from].node, self.servers[*to].node),
            Fault::Pause(server) => self.resume(*server),
            Fault::SlowDisk(server) => self.servers[*server].disk.set_speed(self.setup.speed),
            Fault::KillClient(client) => self.restart_client(*client),
            Fault::Disk(server, fault) => self.disk_recovers(*server, fault),
            Fault::SetBack(server, _) => self.restart(*server),
            Fault::CloneDisk(_, to) => self.put_back(*to),
            Fault::HangDials(party) => {
                self.wire.hang_dials(self.number_of(*party), Switch::Off);
            }
            Fault::Clock(..)
            | Fault::CutLinks(..)
            | Fault::FlipBodies(..)
            | Fault::Spoil(..)
            | Fault::Compact(_)
            | Fault::Backup(_)
            | Fault::Restore => {}
        }
    }

    /// The number of somebody on the wire.
    fn number_of(&self, party: Party) -> usize {
        match party {
            Party::Server(server) => server,
            Party::Client(client) => self.setup.servers + client,
        }
    }

    fn site_loses_power(&self, site: &Site, policy: Policy) {
        for client in &site.clients {
            self.kill_client(*client);
        }
        for server in &site.servers {
            // A dead process's data is still in the page cache of a machine that has power.
            self.kill(*server);
            let crash = self.servers[*server].disk.power_loss(policy);
            let mut state = self.state();
            state.crashes.add(crash);
            state.dark.insert(*server);
        }
    }

    /// What may be asked of whom after a fault.
    fn suffers(&self, fault: &Fault) {
        let (ails, hurts) = (self.setup.ails(fault), self.setup.hurts(fault));
        let mut state = self.state();
        state.ailing.extend(&ails);
        state.hurt.extend(&hurts);
        drop(state);
        self.record.lock().struck(fault, &ails, &hurts);
    }

    /// Between the two sides of a part of the site, in both directions.
    fn between(&self, fault: &Fault, then: fn(&NetSim, NodeId, NodeId)) {
        let servers = fault.servers().into_iter();
        let clients = fault.clients().into_iter();
        let servers: Vec<NodeId> = servers.map(|server| self.servers[server].node).collect();
        let clients: Vec<NodeId> = clients.map(|client| self.clients[client]).collect();
        let (near, far) = if matches!(fault, Fault::Apart(..)) {
            (clients, servers)
        } else {
            let apart = [servers, clients].concat();
            let all = self.servers.iter().map(|server| server.node);
            let all = all.chain(self.clients.iter().copied());
            (all.filter(|node| !apart.contains(node)).collect(), apart)
        };
        for one in &near {
            for other in &far {
                then(&self.net, *one, *other);
                then(&self.net, *other, *one);
            }
        }
    }

    /// A fault strikes a disk or lies in wait there. Whether it does.
    fn disk_fails(&self, server: ServerNumber, fault: &DiskFault) -> bool {
        let disk = &self.servers[server].disk;
        disk.alter(|disk| disk.inject(fault)) != Injected::Missed
    }

    fn disk_recovers(&self, server: ServerNumber, fault: &DiskFault) {
        self.servers[server].disk.alter(|disk| {
            let armed = disk.armed().find(|(_, armed)| *armed == fault);
            if let Some((id, _)) = armed {
                disk.lift(id);
            }
        });
    }

    /// A server's disk is as it was when it was last remembered. Whether it was.
    fn set_back(&self, server: ServerNumber) -> bool {
        let moments = self.servers[server].disk.look(DiskModel::moments);
        let Some(last) = moments.checked_sub(1) else {
            return false;
        };
        self.kill(server);
        let moment = Moment(last);
        self.disk_fails(server, &DiskFault::Restore { moment })
    }

    fn clone_disk(&self, from: ServerNumber, to: ServerNumber) -> bool {
        let out = self.state().put_aside.keys().copied().collect::<Vec<_>>();
        if out.contains(&from) || out.contains(&to) {
            return false;
        }
        self.kill(to);
        let copy = self.servers[from].disk.look(DiskModel::clone);
        let own = self.servers[to]
            .disk
            .alter(|disk| std::mem::replace(disk, copy));
        self.state().put_aside.insert(to, own);
        self.restart(to);
        true
    }

    /// A server whose disk was taken out gets it back.
    fn put_back(&self, server: ServerNumber) {
        let own = self.state().put_aside.remove(&server);
        if let Some(own) = own {
            self.kill(server);
            self.servers[server].disk.alter(|disk| *disk = own);
            self.restart(server);
        }
    }

    pub(super) fn kill(&self, server: ServerNumber) -> bool {
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

    pub(super) fn restart(&self, server: ServerNumber) {
        let mut state = self.state();
        state.dark.remove(&server);
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

    pub(super) fn resume(&self, server: ServerNumber) {
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
        self.wire.heal_all();
        for client in 0..self.setup.clients.len() {
            self.heal(&Fault::IsolateClient(client));
            for server in 0..self.setup.servers {
                self.heal(&Fault::Apart(client, server));
            }
        }
        for from in 0..self.setup.servers {
            self.net.unclog_node(self.servers[from].node);
            for to in 0..self.setup.servers {
                self.net
                    .unclog_link(self.servers[from].node, self.servers[to].node);
            }
            self.servers[from].disk.set_speed(self.setup.speed);
            self.servers[from].disk.alter(DiskModel::heal);
            self.put_back(from);
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
        let policy = draws.pick(&Policy::ALL);
        let everything = Site {
            servers: (0..self.setup.servers).collect(),
            clients: Vec::new(),
        };
        self.inflict(&Fault::PowerLoss(everything, policy));
        for server in 0..self.setup.servers {
            self.restart(server);
        }
    }
}
