//! How planned faults strike a bare cluster, and how they are healed.
use super::net::{Break, Hangs, NodeId};
use super::sim::{Sim, What};
use crate::disk::faults::{DiskFault, Injected};
use crate::disk::{Moment, Policy};
use crate::fault::{Clock, Cut, Fault, Party, Site, Trigger};
use crate::keyed::Keyed;
use crate::observe::record::Watch;
use crate::schedule::Speed;

const MS: u64 = 1_000_000;

impl Sim {
    /// From now on the planned faults strike, each when it is due.
    pub fn unleash(&mut self) {
        let schedule = std::sync::Arc::clone(&self.schedule);
        for (nth, planned) in schedule.faults.iter().enumerate() {
            match planned.fault {
                Fault::SetBack(server, ms) => {
                    self.heap.push(self.now + ms * MS, What::Remember(server));
                }
                Fault::Spoil(server, ..) if self.disk(server).moments() == 0 => {
                    self.disk_mut(server).remember();
                }
                _ => {}
            }
            match &planned.trigger {
                Trigger::At(ms) => self.heap.push(self.now + ms * MS, What::Strike(nth)),
                Trigger::AtAck(ack) => self.record.watch(Watch::Ack(*ack), nth as u64),
                Trigger::AfterMessage(kind, times, _) => self
                    .record
                    .watch(Watch::Message(kind.clone(), *times), nth as u64),
                Trigger::AtOperation(_, ms, _) => {
                    self.heap.push(self.now + ms * MS, What::Arm(nth));
                }
            }
        }
    }

    /// What a planned fault waited for has happened.
    pub(super) fn triggered(&mut self, nth: u64) {
        let nth = usize::try_from(nth).expect("a plan has few faults");
        match self
            .schedule
            .faults
            .get(nth)
            .map(|planned| &planned.trigger)
        {
            Some(Trigger::AfterMessage(_, _, ms)) if *ms > 0 => {
                self.heap.push(self.now + ms * MS, What::Strike(nth));
            }
            Some(_) => self.strike(nth),
            None => {}
        }
    }

    /// A crash at an operation is due after so many more of them.
    pub(super) fn arm(&mut self, nth: usize) {
        if let Trigger::AtOperation(server, _, operations) = self.schedule.faults[nth].trigger
            && self.is_up(server)
            && !self.healing
            && !self.armed.contains_key(&server)
        {
            self.armed.insert(server, nth);
            if let Some(disk) = &mut self.nodes[server].disk {
                disk.queue.trip_after(operations);
            }
        }
    }

    /// A planned fault strikes, if what it strikes is there.
    pub(super) fn strike(&mut self, nth: usize) {
        let planned = self.schedule.faults[nth].clone();
        if self.healing || !self.inflict(&planned.fault) {
            return;
        }
        self.striking.push(nth);
        self.heap
            .push(self.now + planned.lasts_ms * MS, What::Heal(nth));
    }

    /// Makes it go wrong. Whether anything did.
    pub fn inflict(&mut self, fault: &Fault) -> bool {
        let struck = match fault {
            Fault::Kill(server) => self.kill(*server),
            Fault::PowerLoss(site, policy) => {
                self.site_loses_power(site, *policy);
                true
            }
            Fault::Isolate(server) => {
                self.each_other(*server, Self::block);
                true
            }
            Fault::OneWay(from, to) => {
                self.net.block(*from, *to);
                true
            }
            Fault::Pause(server) => {
                let node = &mut self.nodes[*server];
                let strikes = node.process.is_some() && node.frozen.is_none();
                if strikes {
                    node.frozen = Some(std::collections::VecDeque::new());
                }
                strikes
            }
            Fault::SlowDisk(server) => {
                self.set_speed(*server, self.schedule.speed.times(50));
                true
            }
            Fault::KillClient(client) => self.kill_client(*client),
            Fault::IsolateClient(client) => {
                self.each_other(self.servers() + client, Self::block);
                true
            }
            Fault::Apart(client, server) => {
                self.both_ways(self.servers() + client, *server, Self::block);
                true
            }
            Fault::Split(site) => {
                self.across(site, Self::block);
                true
            }
            Fault::CutLinks(party, how) => {
                let how = match how {
                    Cut::Seen | Cut::MidFrame => Break::Seen,
                    Cut::HalfSeen => Break::HalfSeen,
                };
                self.break_links(self.node_of(*party), how) > 0
            }
            Fault::HangDials(party) => {
                self.net.hang(self.node_of(*party), Hangs::Yes);
                true
            }
            Fault::FlipBodies(party, times) => {
                let node = self.node_of(*party);
                self.nodes[node].flips += times;
                true
            }
            Fault::Clock(server, clock) => {
                self.set_clock(*server, *clock);
                true
            }
            Fault::Disk(server, fault) => self.disk_fails(*server, fault),
            Fault::Spoil(server, spot, damage) => {
                let block = spot.find(self.disk(*server));
                block.is_some_and(|block| self.disk_fails(*server, &damage.of(block)))
            }
            Fault::SetBack(server, _) => self.set_back(*server),
            Fault::CloneDisk(from, to) => self.clone_disk(*from, *to),
            Fault::Compact(slower) => self.compact(*slower),
            Fault::Backup(slower) => self.back_up(*slower),
            Fault::Restore => self.restore(),
        };
        if struck {
            let (ails, hurts) = (self.schedule.ails(fault), self.schedule.hurts(fault));
            self.record.struck(fault, &ails, &hurts);
            if *fault == Fault::Restore
                && let Some(set) = self.backed_up_records()
            {
                self.record.log_restored(&set.records);
            }
            self.ailing.extend(ails);
            self.hurt.extend(hurts);
            *self.faults.entry(fault.kind()).or_default() += 1;
            self.record.remark(|| format!("FAULT {fault:?}"));
            let clients = fault.clients().into_iter();
            let clients = clients.map(|client| self.schedule.servers + client);
            let struck = fault.servers().into_iter().chain(clients);
            let names: Vec<&str> = struck.map(|node| &*self.nodes[node].name).collect();
            if let Some(telling) = &mut self.record.telling {
                telling.fault(self.now, &names, fault.to_string());
            }
        }
        struck
    }

    /// A planned fault that struck is healed.
    pub(super) fn heal(&mut self, nth: usize) {
        self.striking.retain(|other| *other != nth);
        let fault = self.schedule.faults[nth].fault.clone();
        self.record.remark(|| format!("HEAL {fault:?}"));
        if let Some(telling) = &mut self.record.telling {
            telling.healed(self.now, &fault.to_string());
        }
        match fault {
            Fault::Kill(server) => self.start(server),
            Fault::PowerLoss(site, _) => {
                for server in site.servers {
                    self.start(server);
                }
                for client in site.clients {
                    self.restart_client(client);
                }
            }
            Fault::Isolate(server) => self.each_other(server, Self::unblock),
            Fault::OneWay(from, to) => self.net.unblock(&mut self.heap, self.now, from, to),
            Fault::Pause(server) => self.thaw(server),
            Fault::SlowDisk(server) => self.set_speed(server, self.schedule.speed),
            Fault::KillClient(client) => self.restart_client(client),
            Fault::IsolateClient(client) => {
                self.each_other(self.servers() + client, Self::unblock);
            }
            Fault::Apart(client, server) => {
                self.both_ways(self.servers() + client, server, Self::unblock);
            }
            Fault::Split(site) => self.across(&site, Self::unblock),
            Fault::HangDials(party) => self.net.hang(self.node_of(party), Hangs::No),
            Fault::FlipBodies(party, _) => {
                let node = self.node_of(party);
                self.nodes[node].flips = 0;
            }
            Fault::Clock(server, _) => self.set_clock(server, Clock::RIGHT),
            Fault::Disk(server, fault) => self.disk_recovers(server, &fault),
            Fault::SetBack(server, _) => self.start(server),
            Fault::CloneDisk(_, to) => self.put_back(to),
            Fault::Compact(_) => {
                self.kill_compactor();
            }
            Fault::Backup(_) => self.end_backup(),
            Fault::Restore => self.start(0),
            Fault::CutLinks(..) | Fault::Spoil(..) => {}
        }
    }

    fn node_of(&self, party: Party) -> NodeId {
        match party {
            Party::Server(server) => server,
            Party::Client(client) => self.servers() + client,
        }
    }

    /// A fault strikes a disk or lies in wait there. Whether it does.
    fn disk_fails(&mut self, server: NodeId, fault: &DiskFault) -> bool {
        self.disk_mut(server).inject(fault) != Injected::Missed
    }

    fn disk_recovers(&mut self, server: NodeId, fault: &DiskFault) {
        let disk = self.disk_mut(server);
        let armed = disk.armed().find(|(_, armed)| *armed == fault);
        if let Some((id, _)) = armed {
            disk.lift(id);
        }
    }

    /// A server's disk is as it was when it was last remembered. Whether it was.
    fn set_back(&mut self, server: NodeId) -> bool {
        let Some(last) = self.disk(server).moments().checked_sub(1) else {
            return false;
        };
        self.kill(server);
        let moment = Moment(last);
        self.disk_fails(server, &DiskFault::Restore { moment })
    }

    fn clone_disk(&mut self, from: NodeId, to: NodeId) -> bool {
        if self.put_aside.contains_key(&to) || self.put_aside.contains_key(&from) {
            return false;
        }
        self.kill(to);
        let copy = self.disk(from).clone();
        let own = std::mem::replace(self.disk_mut(to), copy);
        self.put_aside.insert(to, own);
        self.start(to);
        true
    }

    /// A server whose disk was taken out gets it back.
    fn put_back(&mut self, server: NodeId) {
        if let Some(own) = self.put_aside.remove(&server) {
            self.kill(server);
            *self.disk_mut(server) = own;
            self.start(server);
        }
    }

    /// Changes how a server's clocks run from now on.
    fn set_clock(&mut self, server: NodeId, clock: Clock) {
        self.set_drift(server, clock.drift_ppm);
        self.nodes[server].wall_off_ns = clock.wall_jump_ms * 1_000_000;
    }

    fn site_loses_power(&mut self, site: &Site, policy: Policy) {
        for client in &site.clients {
            self.kill_client(*client);
        }
        for server in &site.servers {
            self.power_loss(*server, policy);
        }
    }

    fn restart_client(&mut self, client: usize) {
        if !self.clients[client].done && !self.is_up(self.servers() + client) {
            self.start_client(client);
        }
    }

    fn both_ways(&mut self, one: NodeId, other: NodeId, then: fn(&mut Self, NodeId, NodeId)) {
        then(self, one, other);
        then(self, other, one);
    }
    /// Between all nodes of a part of the site and all others.
    fn across(&mut self, site: &Site, then: fn(&mut Self, NodeId, NodeId)) {
        let servers = self.servers();
        let clients = site.clients.iter().map(|client| servers + client);
        let far: Vec<NodeId> = site.servers.iter().copied().chain(clients).collect();
        for one in &far {
            for other in (0..self.nodes.len()).filter(|other| !far.contains(other)) {
                self.both_ways(*one, other, then);
            }
        }
    }
    fn each_other(&mut self, node: NodeId, then: fn(&mut Self, NodeId, NodeId)) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.both_ways(node, other, then);
        }
    }
    fn block(&mut self, from: NodeId, to: NodeId) {
        self.net.block(from, to);
    }
    fn unblock(&mut self, from: NodeId, to: NodeId) {
        self.net.unblock(&mut self.heap, self.now, from, to);
    }

    fn set_speed(&mut self, server: NodeId, speed: Speed) {
        if let Some(disk) = &mut self.nodes[server].disk {
            disk.queue.set_speed(speed);
        }
        if server == 0 {
            self.compactor_speed(speed);
        }
    }

    /// A process that stood still goes on: what happened meanwhile reaches it now, in its order.
    pub fn thaw(&mut self, node: NodeId) {
        let Some(waited) = self.nodes[node].frozen.take() else {
            return;
        };
        for what in waited {
            self.heap.push(self.now, what);
        }
        self.nodes[node].wake_at = None;
        self.set_alarm(node);
    }

    /// Ends all faults for good and starts what is down.
    pub fn heal_all(&mut self) {
        self.healing = true;
        self.striking.clear();
        self.armed.clear();
        self.net.loss_permille = 0;
        for from in 0..self.nodes.len() {
            self.net.hang(from, Hangs::No);
            self.nodes[from].flips = 0;
            for to in 0..self.nodes.len() {
                self.unblock(from, to);
            }
        }
        for server in 0..self.servers() {
            if let Some(disk) = &mut self.nodes[server].disk {
                disk.queue.disarm();
                disk.model.heal();
            }
            self.set_speed(server, self.schedule.speed);
            self.set_clock(server, Clock::RIGHT);
            self.put_back(server);
            self.thaw(server);
            self.start(server);
        }
    }

    /// The power of everything fails once more, and comes back.
    pub fn power_cycle(&mut self) {
        let draws = &mut Keyed::new(self.schedule.seed, "last power loss");
        let policy = draws.pick(&Policy::ALL);
        let everything = Site {
            servers: (0..self.servers()).collect(),
            clients: Vec::new(),
        };
        self.inflict(&Fault::PowerLoss(everything, policy));
        for server in 0..self.servers() {
            self.start(server);
        }
    }

    /// All connections of a node break.
    pub fn break_links(&mut self, node: NodeId, how: Break) -> u64 {
        self.net.break_all(&mut self.heap, self.now, node, how)
    }
}
