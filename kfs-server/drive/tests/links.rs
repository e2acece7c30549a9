//! The loop and its links over real sockets, with a machine that only talks.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use bytes::Bytes;
use kfs_core::ids::{CallId, LinkId, SessionId};
use kfs_core::machine::{CloseReason, Input, Machine, Output};
use kfs_core::outbox::Outbox;
use kfs_core::time::{Instant, Now};
use kfs_core::wire::client_chunk::RangeRead;
use kfs_core::wire::client_meta::Renew;
use kfs_core::wire::{Head, Msg, Refusal, Role, Status};
use kfs_drive::{Caller, Exit, Net, NoDisk, calls, drive};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Says back what it hears; tells of everything that happens on its links.
struct Echo {
    outbox: Outbox<String>,
    dialed: Option<LinkId>,
    heard: usize,
}

#[derive(Debug)]
enum Ask {
    Dial(SocketAddr),
    Say(Bytes),
    Pause,
    Resume,
    Heard,
    Close,
}

impl Machine for Echo {
    type Call = Ask;
    type Event = String;
    fn handle(&mut self, _now: Now, input: Input<Ask>) {
        assert!(self.outbox.is_drained());
        match input {
            Input::Opened { link, .. } => {
                self.dialed.get_or_insert(link);
                self.outbox.event(CallId::NONE, "opened".into());
            }
            Input::Closed { why, .. } => {
                let word = if matches!(why, CloseReason::Malformed(_)) {
                    "malformed"
                } else {
                    "closed"
                };
                self.outbox.event(CallId::NONE, word.into());
            }
            Input::Received { link, msg } => {
                self.heard += msg.body.len();
                if msg.request == 1 {
                    self.outbox.send(link, Msg { request: 2, ..msg });
                } else {
                    self.outbox
                        .event(CallId::NONE, format!("heard {}", msg.body.len()));
                }
            }
            Input::Call { id, call } => {
                let link = self.dialed.unwrap_or(LinkId(999));
                match call {
                    Ask::Dial(addr) => {
                        self.outbox.dial(addr);
                    }
                    Ask::Say(body) => {
                        let refusal = Refusal::new(Status::Busy, "no matter");
                        self.outbox.send(
                            link,
                            Msg::with_body(
                                1,
                                RangeRead {
                                    outcome: Err(refusal),
                                },
                                body,
                            ),
                        );
                    }
                    Ask::Pause => self.outbox.push(Output::Pause { link }),
                    Ask::Resume => self.outbox.push(Output::Resume { link }),
                    Ask::Close => self.outbox.push(Output::Close { link }),
                    Ask::Heard => {}
                }
                self.outbox.event(id, self.heard.to_string());
            }
            Input::Wake | Input::Sent { .. } | Input::Disk { .. } => {}
        }
    }
    fn poll(&mut self) -> Option<Output<String>> {
        self.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }
}

struct Node {
    caller: Caller<Ask, String>,
    events: tokio::sync::mpsc::UnboundedReceiver<String>,
    addr: SocketAddr,
    task: tokio::task::JoinHandle<Exit>,
}

async fn node() -> Node {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let (caller, calls) = calls(move |event| drop(sender.send(event)));
    let mut net = Net::new(Role::Client);
    let addr = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (_done, completions) = tokio::sync::mpsc::unbounded_channel();
    let machine = Echo {
        outbox: Outbox::default(),
        dialed: None,
        heard: 0,
    };
    let task = tokio::spawn(drive(machine, NoDisk, completions, net, calls));
    Node {
        caller,
        events,
        addr,
        task,
    }
}

async fn pair() -> (Node, Node) {
    let (mut one, mut two) = (node().await, node().await);
    one.caller.call(Ask::Dial(two.addr)).await.unwrap();
    assert_eq!(one.events.recv().await.unwrap(), "opened");
    assert_eq!(two.events.recv().await.unwrap(), "opened");
    (one, two)
}

#[tokio::test]
async fn bodies_of_every_size_come_back_whole_and_in_order() {
    let (mut one, _two) = pair().await;
    for len in [0, 1, 4_095, 16_384, 40_000, 1 << 20] {
        let body = Bytes::from(vec![7; len]);
        one.caller.call(Ask::Say(body)).await.unwrap();
    }
    for len in [0, 1, 4_095, 16_384, 40_000, 1 << 20] {
        assert_eq!(one.events.recv().await.unwrap(), format!("heard {len}"));
    }
}

#[tokio::test]
async fn a_paused_link_is_not_read_and_loses_nothing() {
    let (one, two) = pair().await;
    two.caller.call(Ask::Pause).await.unwrap();
    for _ in 0..40 {
        one.caller
            .call(Ask::Say(Bytes::from(vec![7; 1 << 20])))
            .await
            .unwrap();
    }
    let before: usize = two.caller.call(Ask::Heard).await.unwrap().parse().unwrap();
    assert!(
        before <= 2 << 20,
        "what was on its way when the pause came, no more: {before}"
    );
    two.caller.call(Ask::Resume).await.unwrap();
    let mut one = one;
    for _ in 0..40 {
        assert_eq!(
            one.events.recv().await.unwrap(),
            format!("heard {}", 1 << 20)
        );
    }
}

#[tokio::test]
async fn what_was_sent_before_a_close_still_arrives() {
    let (one, mut two) = pair().await;
    for _ in 0..8 {
        one.caller
            .call(Ask::Say(Bytes::from(vec![7; 1 << 20])))
            .await
            .unwrap();
    }
    one.caller.call(Ask::Close).await.unwrap();
    assert_eq!(two.events.recv().await.unwrap(), "closed");
    assert_eq!(
        two.caller.call(Ask::Heard).await.unwrap(),
        (8_usize << 20).to_string()
    );
}

#[tokio::test]
async fn garbage_closes_its_link_and_no_other() {
    let (one, mut two) = pair().await;
    let mut stranger = TcpStream::connect(two.addr).await.unwrap();
    stranger.write_all(&[0x47; 400]).await.unwrap();
    assert_eq!(two.events.recv().await.unwrap(), "malformed");
    let mut rest = Vec::new();
    // Reset or closed: either way the stranger is told, and does not hang.
    let _ = tokio::time::timeout(Duration::from_secs(5), stranger.read_to_end(&mut rest))
        .await
        .unwrap();
    let mut one = one;
    one.caller.call(Ask::Say(Bytes::new())).await.unwrap();
    assert_eq!(one.events.recv().await.unwrap(), "heard 0");
}

#[tokio::test]
async fn a_message_before_the_negotiation_is_refused() {
    let mut two = node().await;
    let mut stranger = TcpStream::connect(two.addr).await.unwrap();
    let msg = Msg::new(
        1,
        Head::Renew(Renew {
            session: SessionId(1),
        }),
    );
    stranger
        .write_all(&kfs_core::wire::frame::encode(1, &msg))
        .await
        .unwrap();
    assert_eq!(two.events.recv().await.unwrap(), "malformed");
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_said_so_and_the_loop_ends_with_its_callers() {
    let mut one = node().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    one.caller.call(Ask::Dial(gone)).await.unwrap();
    assert_eq!(one.events.recv().await.unwrap(), "closed");
    drop(one.caller);
    assert_eq!(one.task.await.unwrap(), Exit::Released);
}
