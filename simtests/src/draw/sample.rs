//! A made-up run for the tests: a file is written down a chain, the power of one replica fails, and after its
//! restart a read returns what was there before the write.
//!
//! It has most of what the drawing shows, and is no run of the simulator: its numbers mean nothing.
use super::{Moment, Story, Verdict, What};

const META: usize = 0;
const CHUNK1: usize = 1;
const CHUNK2: usize = 2;
const CHUNK3: usize = 3;
const CLIENT0: usize = 4;

/// What is told so far.
struct Told {
    moments: Vec<Moment>,
    now_us: u64,
}

impl Told {
    fn is(&mut self, after_us: u64, what: What) {
        self.now_us += after_us;
        self.moments.push(Moment {
            at_ns: self.now_us * 1000,
            what,
        });
    }
    fn sends(&mut self, from: usize, to: usize, name: &str, detail: &str) {
        let arrived_ns = Some((self.now_us + 380) * 1000);
        let what = What::Message {
            from,
            to,
            arrived_ns,
            name: name.to_owned(),
            detail: detail.to_owned(),
        };
        self.is(0, what);
        self.now_us += 380;
    }
    fn loses(&mut self, from: usize, to: usize, name: &str, detail: &str) {
        let what = What::Message {
            from,
            to,
            arrived_ns: None,
            name: name.to_owned(),
            detail: detail.to_owned(),
        };
        self.is(40, what);
    }
    fn disk(&mut self, lane: usize, op: &str) {
        let what = What::Disk {
            lane,
            op: op.to_owned(),
            ok: true,
        };
        self.is(1200, what);
    }
    fn asks(&mut self, call: u64, text: &str) {
        let what = What::Call {
            lane: CLIENT0,
            call,
            text: text.to_owned(),
        };
        self.is(0, what);
    }
    fn answers(&mut self, call: u64, text: &str) {
        let what = What::Answer {
            lane: CLIENT0,
            call,
            text: text.to_owned(),
            ok: true,
        };
        self.is(0, what);
    }
    fn state(&mut self, after_us: u64, lane: usize, up: bool) {
        self.is(after_us, What::State { lane, up });
    }
    fn heartbeats(&mut self, rounds: usize, servers: &[usize]) {
        for _ in 0..rounds {
            self.now_us += 1_000_000;
            for server in servers {
                self.sends(*server, META, "Heartbeat", "state 41");
                self.sends(META, *server, "HeartbeatAnswer", "lease until +10 s");
            }
        }
    }
    fn written(&mut self, offset_kib: u64, content: &str) {
        let at = format!("file 2 chunk 0, {offset_kib} KiB: {content}");
        self.sends(CLIENT0, CHUNK1, "WritePiece", &at);
        self.sends(CHUNK1, CHUNK2, "ChainPiece", "piece 1");
        self.sends(CHUNK2, CHUNK3, "ChainPiece", "piece 1");
        self.sends(CHUNK3, CHUNK2, "ChainDone", "piece 1");
        self.sends(CHUNK2, CHUNK1, "ChainDone", "piece 1");
        self.sends(CHUNK1, CLIENT0, "PieceDone", "piece 1 on 3 replicas");
    }
}

/// See the module.
pub(super) fn old_bytes() -> Story {
    let mut told = Told {
        moments: vec![],
        now_us: 2_104_210,
    };
    told.asks(1, "create /a, 3 copies");
    told.sends(CLIENT0, META, "Mutate", "create /a");
    told.disk(META, "sync log, 1 record");
    told.sends(META, CLIENT0, "Mutated", "file 2, at 42");
    told.answers(1, "file 2");
    told.heartbeats(2, &[CHUNK1, CHUNK2, CHUNK3]);
    told.asks(2, "write /a 0..8192 (writer 7)");
    told.sends(CLIENT0, META, "Mutate", "new chunk 0 of file 2");
    for server in [CHUNK1, CHUNK2, CHUNK3] {
        told.sends(META, server, "CreateChunk", "2.0.1");
        told.disk(server, "create 2.0.1");
        told.sends(server, META, "ChunkCreated", "2.0.1");
    }
    told.disk(META, "sync log, 1 record");
    told.sends(META, CLIENT0, "Mutated", "chunk1, chunk2, chunk3");
    told.written(0, "4096 bytes of writer 7");
    let sent = told.moments[told.moments.len() - 6].clone();
    for n in 1..4 {
        let mut piece = sent.clone();
        if let What::Message { detail, .. } = &mut piece.what {
            *detail = format!("file 2 chunk 0, {} KiB: 4096 bytes of writer 7", 4 * n);
        }
        piece.at_ns = told.now_us * 1000;
        if let What::Message { arrived_ns, .. } = &mut piece.what {
            *arrived_ns = Some(told.now_us * 1000 + 400_000);
        }
        told.moments.push(piece);
        told.now_us += 10;
    }
    told.answers(2, "8192 bytes on 3 replicas");
    told.asks(3, "sync /a");
    told.sends(CLIENT0, CHUNK1, "SyncChunk", "2.0.1 up to 8192");
    told.sends(CHUNK1, CHUNK2, "ChainSync", "2.0.1 up to 8192");
    told.sends(CHUNK2, CHUNK3, "ChainSync", "2.0.1 up to 8192");
    told.disk(CHUNK1, "sync 2.0.1");
    told.disk(CHUNK3, "sync 2.0.1");
    told.sends(CHUNK3, CHUNK2, "ChainSynced", "8192");
    told.sends(CHUNK2, CHUNK1, "ChainSynced", "8192");
    told.sends(CHUNK1, CLIENT0, "SyncDone", "8192");
    told.sends(CLIENT0, META, "Mutate", "size of file 2 is 8192");
    told.disk(META, "sync log, 1 record");
    told.sends(META, CLIENT0, "Mutated", "at 44");
    told.answers(3, "8192 bytes durable");
    told.is(
        812_000,
        What::Fault {
            lanes: vec![CHUNK2],
            text: "power loss, unsynced writes are gone".to_owned(),
            healed_ns: Some((told.now_us + 812_000 + 2_400_000) * 1000),
        },
    );
    told.state(0, CHUNK2, false);
    told.loses(META, CHUNK2, "HeartbeatAnswer", "lease until +10 s");
    told.asks(4, "stat /a");
    told.sends(CLIENT0, META, "Query", "stat /a");
    told.sends(META, CLIENT0, "Answered", "8192 bytes");
    told.answers(4, "8192 bytes");
    told.loses(CHUNK1, CHUNK2, "ChainSync", "2.0.1 up to 8192");
    told.heartbeats(2, &[CHUNK1, CHUNK3]);
    told.state(392_000, CHUNK2, true);
    told.sends(CHUNK2, META, "Hello", "server 2, epoch 1");
    told.sends(META, CHUNK2, "Welcome", "epoch 1");
    told.sends(CHUNK2, META, "Inventory", "2.0.1, 4096 bytes synced");
    told.sends(META, CHUNK2, "Verdicts", "2.0.1: keep");
    told.heartbeats(1, &[CHUNK1, CHUNK2, CHUNK3]);
    told.is(
        10_000,
        What::Fault {
            lanes: vec![CHUNK1, CHUNK3],
            text: "cut off from client0".to_owned(),
            healed_ns: None,
        },
    );
    told.asks(5, "read /a 0..8192");
    told.sends(CLIENT0, META, "Query", "locate chunk 0 of file 2");
    told.sends(
        META,
        CLIENT0,
        "Answered",
        "chunk1, chunk2, chunk3; size 8192",
    );
    told.loses(CLIENT0, CHUNK1, "ReadRange", "2.0.1 0..8192");
    told.is(
        2_000_000,
        What::Note {
            lane: Some(CLIENT0),
            text: "gives up on chunk1, tries chunk2".to_owned(),
        },
    );
    told.sends(CLIENT0, CHUNK2, "ReadRange", "2.0.1 0..8192");
    told.disk(CHUNK2, "read 2.0.1");
    told.sends(CHUNK2, CLIENT0, "RangeRead", "8192 bytes, sums match");
    told.answers(5, "8192 bytes");
    let at_ns = told.now_us * 1000;
    told.heartbeats(1, &[CHUNK2]);
    Story {
        title: "bare:files --seed 7".to_owned(),
        paste: "cargo sim run bare:files --seed 7 --schedule 3f9a,1,20".to_owned(),
        lanes: ["meta", "chunk1", "chunk2", "chunk3", "client0"]
            .map(str::to_owned)
            .to_vec(),
        moments: told.moments,
        verdict: Some(Verdict {
            oracle: "O2".to_owned(),
            promise: "D5".to_owned(),
            what: "read of /a 4096..8192 through chunk2: expected the bytes of writer 7 (synced at 44), found zeros"
                .to_owned(),
            lane: Some(CLIENT0),
            at_ns,
        }),
    }
}
