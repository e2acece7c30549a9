//! The drivers' links over a wire that fails: two nodes that talk.
use super::*;
use kfs_core::ids::{CallId, LinkId, SessionId};
use kfs_core::machine::{CloseReason, Input, Machine, Output};
use kfs_core::outbox::Outbox;
use kfs_core::planted::{self, Bug};
use kfs_core::time::{Instant, Now};
use kfs_core::wire::client_meta::Renew;
use kfs_core::wire::{Head, Msg, Role};
use kfs_drive::{Caller, NoDisk, calls, drive};
use madsim::runtime::{Handle, Runtime};
use std::future::Future;
use std::net::Ipv4Addr;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// Says what it is asked to say, and tells of everything that happens on its link.
#[derive(Default)]
struct Talker {
    outbox: Outbox<String>,
    link: LinkId,
}

#[derive(Debug)]
enum Ask {
    Dial(SocketAddr),
    /// A message of this number with so many bytes.
    Say(u64, usize),
    Pause,
    Resume,
}

fn body(number: u64, len: usize) -> Vec<u8> {
    let mut draws = Keyed::new(number, "body");
    (0..len).map(|_| draws.bits().to_le_bytes()[0]).collect()
}

fn told(msg: &Msg) -> String {
    let Head::Renew(Renew { session }) = &msg.head else {
        return "heard something else".into();
    };
    let right = msg.body == body(session.0, msg.body.len());
    let how = if right { "right" } else { "wrong" };
    format!("heard {}: {} bytes, {how}", session.0, msg.body.len())
}

impl Machine for Talker {
    type Call = Ask;
    type Event = String;
    fn handle(&mut self, _now: Now, input: Input<Ask>) {
        let link = self.link;
        let tell = match input {
            Input::Opened { link, .. } => {
                self.link = link;
                "opened".to_owned()
            }
            Input::Closed { why, .. } => match why {
                CloseReason::Lost(_) => "lost".into(),
                CloseReason::Unreachable(_) => "unreachable".into(),
                CloseReason::Malformed(_) => "malformed".into(),
                CloseReason::Refused(_) => "refused".into(),
            },
            Input::Received { msg, .. } => told(&msg),
            Input::Call { id, call } => {
                match call {
                    Ask::Dial(addr) => {
                        self.outbox.dial(addr);
                    }
                    Ask::Say(number, len) => {
                        let session = SessionId(number);
                        let msg = Msg::with_body(0, Renew { session }, body(number, len).into());
                        self.outbox.send(link, msg);
                    }
                    Ask::Pause => self.outbox.push(Output::Pause { link }),
                    Ask::Resume => self.outbox.push(Output::Resume { link }),
                }
                return self.outbox.event(id, String::new());
            }
            Input::Wake | Input::Sent { .. } | Input::Disk { .. } => return,
        };
        self.outbox.event(CallId::NONE, tell);
    }
    fn poll(&mut self) -> Option<Output<String>> {
        self.outbox.pop()
    }
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }
}

struct Talks {
    caller: Caller<Ask, String>,
    events: UnboundedReceiver<String>,
    machine: NodeId,
}

impl Talks {
    async fn asks(&self, ask: Ask) {
        self.caller.call(ask).await.expect("it runs");
    }
    /// The next thing that it tells of within this time.
    async fn tells_within(&mut self, ms: u64) -> Option<String> {
        let told = timeout(Duration::from_millis(ms), self.events.recv()).await;
        told.ok().map(|told| told.expect("it runs"))
    }
    async fn tells(&mut self) -> String {
        let told = self.tells_within(60_000).await;
        told.expect("something happens within a minute")
    }
}

fn addr(node: Node) -> SocketAddr {
    let host = u8::try_from(node + 1).expect("few nodes");
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 20_000)
}

async fn talk(
    node: Node,
    tells: UnboundedSender<String>,
    ready: UnboundedSender<Caller<Ask, String>>,
) {
    let mut net = kfs_drive::Net::new(Role::Client);
    net.listen(addr(node)).await.expect("a port of its own");
    let (caller, calls) = calls(move |event| drop(tells.send(event)));
    let (_done, completions) = unbounded_channel();
    ready.send(caller).expect("the test goes on");
    drive(Talker::default(), NoDisk, completions, net, calls).await;
}

async fn start(machine: NodeId, node: Node) -> Talks {
    let ((tells, events), (ready, mut started)) = (unbounded_channel(), unbounded_channel());
    let on = Handle::current().get_node(machine).expect("it was made");
    on.spawn(talk(node, tells, ready));
    let caller = started.recv().await.expect("it starts");
    Talks {
        caller,
        events,
        machine,
    }
}

async fn node(wire: &Wire, node: Node) -> Talks {
    let made = Handle::current().create_node().ip(addr(node).ip()).build();
    wire.name(made.id(), node);
    start(made.id(), node).await
}

/// Two nodes with a link, made by the first.
async fn pair(wire: &Wire) -> (Talks, Talks) {
    let (mut one, mut two) = (node(wire, 0).await, node(wire, 1).await);
    one.asks(Ask::Dial(addr(1))).await;
    assert_eq!(one.tells().await, "opened");
    assert_eq!(two.tells().await, "opened");
    (one, two)
}

/// A simulation of this seed, on a thread of its own.
fn simulate<T: Send + 'static, F: Future<Output = T>>(
    seed: u64,
    test: impl FnOnce(Wire) -> F + Send + 'static,
) -> T {
    let run = move || {
        let wire = Wire::new(seed);
        let _plugged = wire.plug();
        Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(test(wire))
    };
    std::thread::spawn(run).join().expect("the test holds")
}

const SIZES: [usize; 8] = [0, 1, 27, 28, 29, 4_096, 0, 20_000];

async fn says_all(talks: &Talks) {
    for (number, len) in SIZES.into_iter().enumerate() {
        talks.asks(Ask::Say(number as u64, len)).await;
    }
}

async fn hears_all(talks: &mut Talks) {
    for (number, len) in SIZES.into_iter().enumerate() {
        let heard = format!("heard {number}: {len} bytes, right");
        assert_eq!(talks.tells().await, heard);
    }
}

#[test]
fn frames_that_come_a_few_bytes_at_a_time_are_whole_and_in_order() {
    for seed in 0..12 {
        simulate(seed, |wire| async move {
            wire.fragment(1_000);
            let (mut one, mut two) = pair(&wire).await;
            says_all(&one).await;
            says_all(&two).await;
            hears_all(&mut two).await;
            hears_all(&mut one).await;
            assert_eq!(wire.effects().of(Effect::Parts), 1);
        });
    }
}

/// Pauses the second node's link again and again while the first one speaks; gives whether all was heard.
async fn heard_with_pauses(wire: Wire) -> bool {
    wire.fragment(1_000);
    let (one, mut two) = pair(&wire).await;
    let mut heard = 0;
    for number in 0..20 {
        one.asks(Ask::Say(number, 6_000)).await;
        while let Some(told) = two.tells_within(2).await {
            if told != format!("heard {heard}: 6000 bytes, right") {
                return false;
            }
            heard += 1;
        }
        two.asks(Ask::Pause).await;
        two.asks(Ask::Resume).await;
    }
    while heard < 20 {
        if two.tells().await != format!("heard {heard}: 6000 bytes, right") {
            return false;
        }
        heard += 1;
    }
    true
}

#[test]
fn a_pause_in_the_middle_of_a_frame_loses_nothing() {
    for seed in 0..6 {
        assert!(simulate(seed, heard_with_pauses));
    }
    let forgets = |wire| async {
        planted::plant(Some(Bug::HalfFrameDropped));
        heard_with_pauses(wire).await
    };
    let saw = (0..6).filter(|seed| !simulate(*seed, forgets)).count();
    assert!(
        saw >= 3,
        "a link that forgets what it has read of a frame is seen: {saw} of 6"
    );
}

#[test]
fn a_break_that_both_see_is_told_to_both_at_once() {
    simulate(1, |wire| async move {
        let (mut one, mut two) = pair(&wire).await;
        assert_eq!(wire.cut(1, How::Seen), 1);
        assert_eq!(one.tells_within(20).await.as_deref(), Some("lost"));
        assert_eq!(two.tells_within(20).await.as_deref(), Some("lost"));
        assert_eq!(wire.cut(1, How::Seen), 0, "there is nothing left to break");
    });
}

#[test]
fn who_is_not_told_of_a_break_writes_into_the_void_and_learns_late() {
    let mut dialers = 0;
    for seed in 0..8 {
        dialers += simulate(seed, |wire| async move {
            let (one, two) = pair(&wire).await;
            assert_eq!(wire.cut(0, How::HalfSeen), 1);
            let mut ends = [one, two];
            let mut knows = None;
            for (side, end) in ends.iter_mut().enumerate() {
                if end.tells_within(100).await.as_deref() == Some("lost") {
                    assert_eq!(knows.replace(side), None, "one of the two knows at once");
                }
            }
            let knows = knows.expect("one of the two knows at once");
            let silent = &mut ends[1 - knows];
            silent.asks(Ask::Say(1, 100)).await;
            assert_eq!(
                silent.tells_within(200).await,
                None,
                "the other one does not"
            );
            assert_eq!(
                wire.effects().of(Effect::SwallowedWrite),
                2,
                "head and body"
            );
            // More than its buffers hold: it waits.
            silent.asks(Ask::Say(2, 100_000)).await;
            assert_eq!(silent.tells_within(13_000).await.as_deref(), Some("lost"));
            assert_eq!(
                ends[knows].tells_within(13_000).await,
                None,
                "nothing came through"
            );
            knows
        });
    }
    assert!(
        (1..8).contains(&dialers),
        "now the one, now the other is told"
    );
}

#[test]
fn a_frame_that_breaks_off_is_no_message_and_ends_its_link() {
    for seed in 0..40 {
        simulate(seed, move |wire| async move {
            if seed % 2 == 0 {
                wire.fragment(1_000);
            }
            let (mut one, mut two) = pair(&wire).await;
            assert_eq!(wire.cut(1, How::MidFrame), 1);
            assert_eq!(one.tells_within(1_000).await, None, "until somebody speaks");
            let len = if seed % 3 == 0 { 0 } else { 3_000 };
            one.asks(Ask::Say(1, len)).await;
            two.asks(Ask::Say(2, len)).await;
            let heard = |number| format!("heard {number}: {len} bytes, right");
            let mut whole = 0;
            for (end, theirs) in [(&mut one, 2), (&mut two, 1)] {
                let mut told = end.tells().await;
                if told == heard(theirs) {
                    whole += 1;
                    told = end.tells().await;
                }
                assert_eq!(told, "lost");
            }
            assert!(whole <= 1, "one of the two frames broke off");
            assert_eq!(wire.effects().of(Effect::CutMidFrame), 1);
            // Each driver lets go of its end after it has told its machine.
            sleep(Duration::from_millis(100)).await;
            assert!(wire.lock().conns.is_empty(), "nothing is left of it");
        });
    }
}

#[test]
fn a_dial_without_an_answer_ends_after_five_seconds_and_one_that_is_answered_late_goes_on() {
    for hung in [0, 1] {
        simulate(1, move |wire| async move {
            let (mut one, mut two) = (node(&wire, 0).await, node(&wire, 1).await);
            wire.hang_dials(hung, Switch::On);
            one.asks(Ask::Dial(addr(1))).await;
            assert_eq!(one.tells_within(4_900).await, None);
            assert_eq!(one.tells_within(200).await.as_deref(), Some("unreachable"));
            one.asks(Ask::Dial(addr(1))).await;
            assert_eq!(one.tells_within(3_000).await, None);
            wire.hang_dials(hung, Switch::Off);
            assert_eq!(one.tells_within(100).await.as_deref(), Some("opened"));
            assert_eq!(
                two.tells().await,
                "opened",
                "and nobody heard of the first one"
            );
            assert_eq!(wire.effects().of(Effect::HungDial), 2);
        });
    }
}

#[test]
fn what_waits_behind_full_buffers_leaves_once_there_is_room() {
    for stuffed in [0, 1] {
        simulate(1, move |wire| async move {
            let (mut one, mut two) = pair(&wire).await;
            wire.stuff(stuffed, Switch::On);
            says_all(&one).await;
            says_all(&two).await;
            assert_eq!(one.tells_within(20_000).await, None);
            assert_eq!(two.tells_within(1_000).await, None);
            assert!(wire.effects().of(Effect::FullBuffer) >= 2);
            if stuffed == 0 {
                wire.stuff(stuffed, Switch::Off);
            } else {
                wire.heal_all();
            }
            hears_all(&mut two).await;
            hears_all(&mut one).await;
        });
    }
}

#[test]
fn a_flipped_bit_is_refused_by_the_sums_of_the_frame_or_stands_in_the_body() {
    let mut met = BTreeSet::new();
    for seed in 0..40 {
        let part = simulate(seed, |wire| async move {
            let (one, mut two) = pair(&wire).await;
            wire.corrupt(1, 1);
            one.asks(Ask::Say(1, 500)).await;
            assert_eq!(
                two.tells().await,
                "heard 1: 500 bytes, right",
                "the other one's do not"
            );
            wire.corrupt(0, 1);
            one.asks(Ask::Say(2, 500)).await;
            let flips = wire.flipped();
            let told = two.tells().await;
            let [flip] = wire.flipped()[..] else {
                panic!("one bit flipped: {flips:?}");
            };
            assert_eq!((flip.from, flip.to), (0, 1));
            let expected = match flip.part {
                Part::Prefix | Part::Head => "malformed",
                // The sums of what is in it are in the head, and are the machines' to check.
                Part::Body => "heard 2: 500 bytes, wrong",
            };
            assert_eq!(told, expected);
            assert_eq!(wire.effects().of(Effect::flipped(flip.part)), 1);
            flip.part
        });
        met.insert(part);
    }
    assert_eq!(
        met.into_iter().collect::<Vec<_>>(),
        Part::ALL,
        "each is hit"
    );
}

#[test]
fn a_connection_that_a_dead_process_never_accepted_is_not_taken_for_one_of_its_successor() {
    simulate(1, |wire| async move {
        let (mut one, two) = (node(&wire, 0).await, node(&wire, 1).await);
        let handle = Handle::current();
        handle.pause(two.machine);
        one.asks(Ask::Dial(addr(1))).await;
        assert_eq!(one.tells().await, "lost", "no negotiation in time");
        handle.kill(two.machine);
        handle.restart(two.machine);
        let mut two = start(two.machine, 1).await;
        one.asks(Ask::Dial(addr(1))).await;
        assert_eq!(one.tells().await, "opened");
        assert_eq!(two.tells().await, "opened");
        assert_eq!(wire.lock().conns.len(), 1, "the first one is forgotten");
        assert_eq!(wire.cut(1, How::Seen), 1);
        assert_eq!(one.tells().await, "lost");
        assert_eq!(two.tells().await, "lost");
    });
}

#[test]
fn what_befalls_a_connection_does_not_depend_on_others() {
    let draws = |others: u64| {
        let mut net = Wire::new(7);
        for _ in 0..others {
            net.0.lock().expect("one thread").dialed(addr(0), addr(2));
        }
        let at = net.lock().dialed(addr(0), addr(1));
        let bits = net.lock().conn(at).draws.bits();
        net = Wire::new(8);
        let other = net.lock().dialed(addr(0), addr(1));
        assert_ne!(net.lock().conn(other).draws.bits(), bits, "another seed");
        bits
    };
    assert_eq!(draws(0), draws(3));
}
