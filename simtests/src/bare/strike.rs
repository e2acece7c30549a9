//! How planned faults strike a bare cluster, and how they are healed.
use super::net::{Break, Hangs, NodeId};
use super::sim::{Sim, What};
use crate::disk::Policy;
use crate::fault::{Fault, Site, Trigger};
use crate::keyed::Keyed;
use crate::observe::record::Watch;
use crate::schedule::Speed;

const MS: u64 = 1_000_000;

impl Sim {
    /// From now on the planned faults strike, each when it is due.
    pub fn unleash(&mut self) {
        let schedule = std::sync::Arc::clone(&self.schedule);
        for (nth, planned) in schedule.faults.iter().enumerate() {
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
                let Speed {
                    read_us,
                    write_us,
                    sync_us,
                } = self.schedule.speed;
                self.set_speed(
                    *server,
                    Speed {
                        read_us: read_us * 50,
                        write_us: write_us * 50,
                        sync_us: sync_us * 50,
                    },
                );
                true
            }
            Fault::KillClient(client) => self.kill_client(*client),
        };
        if struck {
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
        }
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

    fn each_other(&mut self, node: NodeId, then: fn(&mut Self, NodeId, NodeId)) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            then(self, node, other);
            then(self, other, node);
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
            for to in 0..self.nodes.len() {
                self.unblock(from, to);
            }
        }
        for server in 0..self.servers() {
            if let Some(disk) = &mut self.nodes[server].disk {
                disk.queue.disarm();
                disk.queue.set_speed(self.schedule.speed);
            }
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
