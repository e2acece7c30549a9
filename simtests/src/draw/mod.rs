//! The picture of a run: one page of HTML that stands alone, a lane per node, time downwards, and the broken
//! promise marked, so that someone who was not there sees in a minute what went wrong.
//!
//! A [`Story`] is plain data and can be kept as a file; [`html`] draws it. The same story gives the same bytes.
//! Nothing on the page comes from elsewhere, nothing moves, and a story of any size gives a page of bounded
//! size: what is not drawn is counted where it was. Begin with `rows` (what is drawn, and how high) and
//! `lanes` (the drawing); `page` puts the rest around it.
mod label;
mod lanes;
mod page;
mod promise;
mod rows;
#[cfg(test)]
mod sample;
mod text;

use serde::{Deserialize, Serialize};

/// Moments that are drawn of one story; the others are folded, those far from the end of the story first.
pub const MOMENTS_DRAWN_MAX: usize = 1500;

/// Messages that tell nothing as long as they come: folded unless a reader asks for them.
pub const CHATTER: [&str; 5] = [
    "Heartbeat",
    "HeartbeatAnswer",
    "Negotiate",
    "Renew",
    "Renewed",
];

/// A run, as it is told to someone who was not there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Story {
    /// What ran: `bare:files --seed 7`.
    pub title: String,
    /// The line to paste in order to see it again.
    pub paste: String,
    /// The nodes, from left to right; a moment names one by its place here.
    pub lanes: Vec<String>,
    /// What happened. Moments at one time are drawn in this order.
    pub moments: Vec<Moment>,
    /// The promise that was broken.
    pub verdict: Option<Verdict>,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// When, in simulated time.
    pub at_ns: u64,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum What {
    /// A message was sent.
    Message {
        /// The lane that sent it.
        from: usize,
        /// The lane it was sent to.
        to: usize,
        /// When it was there; `None`: it was lost.
        arrived_ns: Option<u64>,
        /// Its type: `WritePiece`.
        name: String,
        /// What it says, in short.
        detail: String,
    },
    /// A disk did something.
    Disk {
        /// Whose disk.
        lane: usize,
        /// What it did: `sync log`.
        op: String,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A client was asked for something.
    Call {
        /// The client.
        lane: usize,
        /// Which call of this client; its [`What::Answer`] carries the same number.
        call: u64,
        /// What was asked: `read /a 0..4096`.
        text: String,
    },
    /// A client answered a call.
    Answer {
        /// The client.
        lane: usize,
        /// Which call.
        call: u64,
        /// The answer.
        text: String,
        /// Whether what was asked was done.
        ok: bool,
    },
    /// A fault struck.
    Fault {
        /// Whom.
        lanes: Vec<usize>,
        /// Which.
        text: String,
        /// When it was healed; `None`: never.
        healed_ns: Option<u64>,
    },
    /// A process started or died. Before its first state a process is what that state ends.
    State {
        /// Whose process.
        lane: usize,
        /// Whether it is up from now on.
        up: bool,
    },
    /// Something worth saying.
    Note {
        /// Of whom; `None`: of all.
        lane: Option<usize>,
        /// What.
        text: String,
    },
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Who saw it: `O2`.
    pub oracle: String,
    /// Which promises, by their codes: `D5`, or `D3, D5`. Their words come from the page of promises.
    pub promise: String,
    /// What was expected and what was found.
    pub what: String,
    /// Where it was seen.
    pub lane: Option<usize>,
    /// When it was seen.
    pub at_ns: u64,
}

/// The story as a page.
#[must_use]
pub fn html(story: &Story) -> String {
    page::page(story)
}

#[cfg(test)]
mod tests {
    use super::sample;
    use super::*;
    use kfs_core::wire::Head;

    fn message(at_ns: u64, from: usize, to: usize, name: &str, detail: &str) -> Moment {
        Moment {
            at_ns,
            what: What::Message {
                from,
                to,
                arrived_ns: Some(at_ns + 1000),
                name: name.to_owned(),
                detail: detail.to_owned(),
            },
        }
    }

    fn story(moments: Vec<Moment>) -> Story {
        Story {
            title: "bare:files --seed 7".to_owned(),
            paste: "cargo sim run bare:files --seed 7".to_owned(),
            lanes: vec!["meta".to_owned(), "chunk1".to_owned(), "client0".to_owned()],
            moments,
            verdict: None,
        }
    }

    /// A number that stands before `after` in the page.
    fn number_before(page: &str, after: &str) -> usize {
        let before = page.split_once(after).expect("the page says it").0;
        let start = before
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(0, |at| at + 1);
        before[start..].parse().expect("a number")
    }

    #[test]
    fn markup_in_every_text_of_a_story() {
        let evil = |n: usize| format!("<script>alert({n})</script>&amp;\"'{n}");
        let mut told = story(vec![
            message(1, 0, 1, &evil(1), &evil(2)),
            Moment {
                at_ns: 2,
                what: What::Disk {
                    lane: 0,
                    op: evil(3),
                    ok: false,
                },
            },
            Moment {
                at_ns: 3,
                what: What::Call {
                    lane: 2,
                    call: 1,
                    text: evil(4),
                },
            },
            Moment {
                at_ns: 4,
                what: What::Answer {
                    lane: 2,
                    call: 1,
                    text: evil(5),
                    ok: true,
                },
            },
            Moment {
                at_ns: 5,
                what: What::Fault {
                    lanes: vec![1],
                    text: evil(6),
                    healed_ns: Some(9),
                },
            },
            Moment {
                at_ns: 6,
                what: What::Note {
                    lane: None,
                    text: evil(7),
                },
            },
            Moment {
                at_ns: 7,
                what: What::State { lane: 1, up: false },
            },
        ]);
        told.title = evil(8);
        told.paste = evil(9);
        told.lanes = vec![evil(10), evil(11), evil(12)];
        told.verdict = Some(Verdict {
            oracle: evil(13),
            promise: evil(14),
            what: evil(15),
            lane: Some(0),
            at_ns: 8,
        });
        let page = html(&told);
        assert_eq!(page.matches("<script").count(), 1, "the page's own");
        assert!(!page.contains("alert(1)</"));
        for n in 1..=15 {
            assert!(page.contains(&format!("alert({n})&lt;")), "text {n}");
        }
        assert!(page.contains("&amp;amp;"));
    }

    #[test]
    fn a_moment_that_is_neither_drawn_nor_counted() {
        let told = sample::old_bytes();
        let page = html(&told);
        let drawn = number_before(&page, " drawn one by one");
        let runs = number_before(&page, " in runs of the same");
        let folded = number_before(&page, " folded as chatter");
        assert_eq!(drawn + runs + folded, told.moments.len());
        let verdict = told.verdict.as_ref().expect("it ends badly");
        assert!(page.contains("id=\"broken-short\""));
        assert!(page.contains("id=\"broken-whole\""));
        assert!(page.contains(&format!("Oracle {}", verdict.oracle)));
        let whole = page.split_once("id=\"whole\"").expect("both views").1;
        assert!(whole.contains(&format!("Oracle {} says", verdict.oracle)));
        assert_eq!(
            whole.matches("<g class=\"moment ").count(),
            told.moments.len() + told_healed(&told),
            "each moment and each healing"
        );
    }

    fn told_healed(story: &Story) -> usize {
        story
            .moments
            .iter()
            .filter(|moment| {
                matches!(
                    moment.what,
                    What::Fault {
                        healed_ns: Some(_),
                        ..
                    }
                )
            })
            .count()
    }

    #[test]
    fn a_page_that_fetches_something() {
        let page = html(&sample::old_bytes());
        for reference in [
            "http://", "https://", "src=", "url(h", "@import", "<link", "//cdn",
        ] {
            assert!(!page.contains(reference), "{reference}");
        }
        for link in page.split("href=\"").skip(1) {
            assert!(link.starts_with('#'), "{}", &link[..link.len().min(40)]);
        }
    }

    #[test]
    fn an_anchor_without_its_place_or_twice() {
        let page = html(&sample::old_bytes());
        for link in page.split("href=\"#").skip(1) {
            let id = link.split('"').next().expect("it ends");
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }

    #[test]
    fn lanes_that_are_not_there_and_times_that_run_backwards() {
        let far = usize::MAX;
        let mut told = story(vec![
            message(u64::MAX - 2000, far, 1, "Late", ""),
            message(5, 0, far, "Early", ""),
            message(5, 1, 1, "ToItself", ""),
            Moment {
                at_ns: u64::MAX,
                what: What::Fault {
                    lanes: vec![far, 7, 0, 0],
                    text: "all of it".to_owned(),
                    healed_ns: Some(0),
                },
            },
            Moment {
                at_ns: 1,
                what: What::Fault {
                    lanes: vec![],
                    text: "nobody".to_owned(),
                    healed_ns: None,
                },
            },
            Moment {
                at_ns: 9,
                what: What::State {
                    lane: far,
                    up: true,
                },
            },
            Moment {
                at_ns: 9,
                what: What::Answer {
                    lane: far,
                    call: 3,
                    text: "nobody asked".to_owned(),
                    ok: false,
                },
            },
            Moment {
                at_ns: 10,
                what: What::Note {
                    lane: Some(far),
                    text: "here".to_owned(),
                },
            },
        ]);
        if let What::Message { arrived_ns, .. } = &mut told.moments[0].what {
            *arrived_ns = Some(3);
        }
        told.verdict = Some(Verdict {
            oracle: "end".to_owned(),
            promise: "none".to_owned(),
            what: String::new(),
            lane: Some(far),
            at_ns: 0,
        });
        assert!(html(&told).contains(lanes::ELSEWHERE));
        told.lanes.clear();
        assert!(html(&told).contains("nobody asked"));
        told.lanes = vec!["meta".to_owned()];
        told.moments.clear();
        assert!(html(&told).contains("id=\"broken-short\""));
    }

    #[test]
    fn a_story_in_which_nothing_happens() {
        let page = html(&Story::default());
        assert!(page.contains("Nothing happened in this run"));
        assert!(!page.contains("<svg class=\"lanes\""));
    }

    #[test]
    fn a_run_that_never_ends_gives_a_page_that_does() {
        let moments = (0..40_000)
            .map(|n| message(n * 10_000, 0, 1, &format!("M{n}"), &"long ".repeat(500)))
            .collect::<Vec<_>>();
        let mut told = story(moments);
        told.moments[39_998] = message(39_998 * 10_000, 1, 0, CHATTER[0], "");
        told.moments[3].what = What::Fault {
            lanes: vec![1],
            text: "power loss long ago".to_owned(),
            healed_ns: None,
        };
        told.verdict = Some(Verdict {
            oracle: "O2".to_owned(),
            promise: "D5".to_owned(),
            what: "old bytes".to_owned(),
            lane: Some(0),
            at_ns: u64::MAX,
        });
        let page = html(&told);
        assert!(page.contains("id=\"whole\""));
        assert!(page.len() < 8_000_000, "{} bytes", page.len());
        let drawn = number_before(&page, " drawn one by one");
        assert!(drawn <= MOMENTS_DRAWN_MAX);
        assert_eq!(
            drawn + 1 + number_before(&page, " left out because there are too many"),
            40_000
        );
        let drawing = page
            .split_once("<svg class=\"lanes\"")
            .expect("it is drawn")
            .1;
        assert!(
            drawing.contains("power loss long ago"),
            "faults before messages"
        );
        assert!(page.contains(">M39999<"));
        assert!(!page.contains(">M4<"));
        assert!(page.contains("id=\"broken-short\""));
    }

    #[test]
    fn a_silence_as_long_on_the_page_as_in_the_run() {
        let told = story(vec![
            message(0, 0, 1, "Before", ""),
            message(4_200_000_000, 1, 0, "After", ""),
            message(4_200_500_000, 1, 0, "Later", ""),
        ]);
        let page = html(&told);
        assert_eq!(page.matches("… 4.2 s …").count(), 1);
        assert!(!page.contains("… 500 µs …"));
        let columns = lanes::Columns::new(&told);
        let drawn = rows::Rows::new(&told, &columns, rows::View::Short);
        assert!(drawn.height < 250, "{} px", drawn.height);
    }

    #[test]
    fn a_lost_message_in_a_run_of_those_that_arrived() {
        let mut told = story(
            (0..5)
                .map(|n| message(n, 0, 1, "WritePiece", &format!("piece {n}")))
                .collect(),
        );
        if let What::Message { arrived_ns, .. } = &mut told.moments[2].what {
            *arrived_ns = None;
        }
        let short = html(&told);
        let short = short.split_once("id=\"whole\"").expect("both views").0;
        assert_eq!(short.matches(">WritePiece ×2<").count(), 2);
        assert_eq!(short.matches(">WritePiece (lost)<").count(), 1);
        assert!(short.contains("piece 3 … piece 4"));
    }

    #[test]
    fn an_arrow_that_ends_after_what_it_caused() {
        let mut told = story(vec![
            message(0, 0, 1, "Ask", ""),
            message(1000, 1, 0, "Reply", ""),
            message(9000, 0, 1, "Later", ""),
        ]);
        let drawn = |told: &Story| {
            let columns = lanes::Columns::new(told);
            let drawn = rows::Rows::new(told, &columns, rows::View::Whole);
            let asked = drawn.arrival(0, 1000);
            assert!(asked > drawn.rows[0].mark, "time runs downwards");
            (asked, drawn.rows[1].top, drawn.rows[1].mark)
        };
        let (end, _, effect) = drawn(&told);
        assert!(end < effect, "{end} is not above {effect}");
        // Before a silence, if it arrived before it.
        told.moments[1].at_ns = 5_000_000_000;
        told.moments[2].at_ns = 5_000_009_000;
        let (end, silence, _) = drawn(&told);
        assert!(end < silence, "{end} is not above {silence}");
    }

    #[test]
    fn a_band_that_outlives_its_fault() {
        let fault = |at_ns, healed_ns| Moment {
            at_ns,
            what: What::Fault {
                lanes: vec![0, 1],
                text: "cut off".to_owned(),
                healed_ns: Some(healed_ns),
            },
        };
        let told = story(vec![
            fault(1, 2),
            fault(3, 4),
            message(5, 0, 1, "After", ""),
        ]);
        let columns = lanes::Columns::new(&told);
        let drawn = rows::Rows::new(&told, &columns, rows::View::Short);
        let page = html(&told);
        let drawing = page
            .split_once("<svg class=\"lanes\"")
            .expect("it is drawn")
            .1;
        for (struck, healed) in [(0, 1), (2, 3)] {
            let (top, bottom) = (drawn.rows[struck].top, drawn.rows[healed].bottom - 2);
            let band = format!("y=\"{top}\" width=\"66.66%\" height=\"{}\"", bottom - top);
            assert_eq!(drawing.matches(&band).count(), 1, "{band}");
        }
    }

    #[test]
    fn a_call_whose_client_dies() {
        let asks = |call| What::Call {
            lane: 2,
            call,
            text: "sync".to_owned(),
        };
        let mut told = story(vec![
            Moment {
                at_ns: 1,
                what: asks(1),
            },
            Moment {
                at_ns: 2,
                what: asks(2),
            },
            Moment {
                at_ns: 3,
                what: What::Answer {
                    lane: 2,
                    call: 1,
                    text: "done".to_owned(),
                    ok: true,
                },
            },
            Moment {
                at_ns: 4,
                what: What::State { lane: 2, up: false },
            },
        ]);
        let drawing = |told: &Story| {
            let page = html(told);
            let drawing = page
                .split_once("<svg class=\"lanes\"")
                .expect("it is drawn")
                .1;
            let count = |what: &str| drawing.matches(what).count();
            (
                count("class=\"call ok\""),
                count("class=\"call never\""),
                count("class=\"down\""),
            )
        };
        assert_eq!(drawing(&told), (1, 1, 1), "the client is down to the end");
        told.moments.push(Moment {
            at_ns: 5,
            what: What::State { lane: 2, up: true },
        });
        told.moments.push(Moment {
            at_ns: 6,
            what: asks(2),
        });
        assert_eq!(drawing(&told), (1, 2, 1));
    }

    #[test]
    fn two_pages_of_one_story() {
        let told = sample::old_bytes();
        let kept = serde_json::to_string(&told).expect("a story can be kept");
        let again: Story = serde_json::from_str(&kept).expect("and read");
        assert_eq!(told, again);
        assert_eq!(html(&told), html(&again));
    }

    #[test]
    fn chatter_that_hides_nothing_because_it_was_renamed() {
        for name in CHATTER {
            assert!(
                Head::TYPES.iter().any(|(_, known)| *known == name),
                "{name}"
            );
        }
    }
}
