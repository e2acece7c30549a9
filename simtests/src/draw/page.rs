//! The page around the drawing: what went wrong in words, the run in brief, what the marks mean.
//!
//! All of it is in one file: no font, picture, style or script comes from anywhere else, and the page itself
//! forbids that it does. Without its script only the names of lanes stay behind when the drawing scrolls sideways.
use super::lanes::{self, Columns};
use super::promise;
use super::rows::{Point, Rows, View};
use super::text::{counted, escape, seconds, span};
use super::{Story, Verdict, What};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lines of the run in brief.
const STEPS_MAX: usize = 14;

/// The whole page.
pub(super) fn page(story: &Story) -> String {
    let title = if story.title.is_empty() {
        "A run".to_owned()
    } else {
        escape(&story.title)
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{SYMBOLS}<header>\n<h1>{title}</h1>\n"
    );
    let nothing = story.moments.is_empty() && story.verdict.is_none();
    let columns = Columns::new(story);
    let short = Rows::new(story, &columns, View::Short);
    let whole = Rows::new(story, &columns, View::Whole);
    let more = short.counts.chatter + short.counts.in_runs > 0;
    if let Some(verdict) = &story.verdict {
        out.push_str(&broken(story, &columns, verdict, more));
    } else if !nothing {
        out.push_str("<p class=\"kept\">No promise was broken in this run.</p>\n");
    }
    if !story.paste.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"paste\">See it again: <code>{}</code></p>",
            escape(&story.paste)
        );
    }
    if nothing {
        out.push_str(
            "<p class=\"kept\">Nothing happened in this run: the story has no moments, so there is nothing to \
             draw.</p>\n</header>\n</body>\n</html>\n",
        );
        return out;
    }
    out.push_str("<div class=\"aside\">\n");
    out.push_str(&brief(story, &columns, &short, &whole, more));
    out.push_str(LEGEND);
    out.push_str("</div>\n</header>\n<main>\n");
    let _ = writeln!(out, "<p class=\"counts\">{}</p>", counts(story, &short));
    if more {
        out.push_str(
            "<input type=\"checkbox\" id=\"all\"><label for=\"all\">Show every moment by itself: heartbeats and \
             other chatter, and each message of a run</label>\n",
        );
    }
    out.push_str(&lanes::view(story, &columns, &short, View::Short));
    if more {
        out.push_str(&lanes::view(story, &columns, &whole, View::Whole));
    }
    let _ = write!(
        out,
        "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

/// A link into the view that is shown.
fn link(rows: [&Rows<'_>; 2], events: [usize; 2], text: &str, more: bool) -> String {
    let short = lanes::anchor(rows[0], events[0], View::Short);
    let mut out = format!("<a class=\"to-short\" href=\"#{short}\">{text}</a>");
    if more {
        let whole = lanes::anchor(rows[1], events[1], View::Whole);
        let _ = write!(out, "<a class=\"to-whole\" href=\"#{whole}\">{text}</a>");
    }
    out
}

/// What went wrong.
fn broken(story: &Story, columns: &Columns, verdict: &Verdict, more: bool) -> String {
    let mut out = format!(
        "<section class=\"verdict\" aria-label=\"What went wrong\">\n<h2>Promise {} is broken</h2>\n",
        escape(&verdict.promise)
    );
    for (code, words) in promise::in_words(&verdict.promise) {
        let _ = writeln!(
            out,
            "<p><b>Promised ({}):</b> {}.</p>",
            escape(&code),
            escape(&words)
        );
    }
    let place = verdict.lane.map_or_else(String::new, |lane| {
        format!(" at {}", escape(&columns.name(story, lane)))
    });
    let _ = writeln!(
        out,
        "<p class=\"what\"><b>Oracle {} says:</b> {}</p>",
        escape(&verdict.oracle),
        escape(&verdict.what)
    );
    let _ = write!(
        out,
        "<p>Seen at {} s{place}. <a class=\"to-short\" href=\"#broken-short\">Show where in the drawing</a>",
        seconds(verdict.at_ns)
    );
    if more {
        out.push_str("<a class=\"to-whole\" href=\"#broken-whole\">Show where in the drawing</a>");
    }
    out.push_str("</p>\n</section>\n");
    out
}

/// The steps that matter most, in their order: a person who reads only these knows what happened.
fn brief(
    story: &Story,
    columns: &Columns,
    short: &Rows<'_>,
    whole: &Rows<'_>,
    more: bool,
) -> String {
    let name = |lane: usize| escape(&columns.name(story, lane));
    let mut asked: BTreeMap<(usize, u64), &str> = BTreeMap::new();
    let mut steps = vec![];
    for (place, event) in short.events.iter().enumerate() {
        let (weight, class, text) = match event.point {
            Point::Broken(verdict) => (
                0,
                "broken",
                format!("Promise {} is broken.", escape(&verdict.promise)),
            ),
            Point::Moment(What::Call { lane, call, text }) => {
                asked.insert((*lane, *call), text);
                continue;
            }
            Point::Moment(What::Answer {
                lane,
                call,
                text,
                ok,
            }) => {
                let what = asked.remove(&(*lane, *call)).unwrap_or("a call");
                let (weight, class, sign) = if *ok {
                    (2, "ok", '✓')
                } else {
                    (1, "bad", '✗')
                };
                let text = format!(
                    "{}: {} <span class=\"{class}\">{sign} {}</span>",
                    name(*lane),
                    escape(what),
                    escape(text)
                );
                (weight, "", text)
            }
            Point::Moment(What::Fault {
                lanes,
                text,
                healed_ns,
            }) => {
                let hit = lanes.iter().map(|lane| name(*lane)).collect::<Vec<_>>();
                let healed = healed_ns.map_or_else(
                    || "never healed".to_owned(),
                    |ns| format!("healed after {}", span(ns.saturating_sub(event.at_ns))),
                );
                let at = if hit.is_empty() { "" } else { " at " };
                let text = format!("Fault{at}{}: {} ({healed})", hit.join(", "), escape(text));
                (0, "fault", text)
            }
            Point::Moment(What::Disk {
                lane,
                op,
                ok: false,
            }) => {
                let text = format!("{}: {} fails on its disk", name(*lane), escape(op));
                (1, "bad", text)
            }
            Point::Moment(What::Note { lane, text }) => {
                let of = lane.map_or_else(String::new, |lane| format!("{}: ", name(lane)));
                (2, "", format!("{of}{}", escape(text)))
            }
            Point::Moment(What::Message { .. } | What::Disk { .. } | What::State { .. })
            | Point::Healed { .. } => continue,
        };
        steps.push((weight, place, class, text));
    }
    if steps.is_empty() {
        return String::new();
    }
    let all = steps.len();
    // The heaviest, and of those the latest, are kept.
    steps.sort_by_key(|(weight, place, ..)| (*weight, usize::MAX - place));
    steps.truncate(STEPS_MAX);
    steps.sort_by_key(|(_, place, ..)| *place);
    let mut out = "<section>\n<h2>In brief</h2>\n<ol class=\"brief\">\n".to_owned();
    for (_, place, class, text) in &steps {
        let time = format!("{} s", seconds(short.events[*place].at_ns));
        let time = link([short, whole], [*place, *place], &time, more);
        let _ = writeln!(out, "<li class=\"{class}\">{time} <span>{text}</span></li>");
    }
    out.push_str("</ol>\n");
    if all > steps.len() {
        let _ = writeln!(
            out,
            "<p class=\"counts\">{} of less weight stand only in the drawing.</p>",
            counted(all - steps.len(), "step")
        );
    }
    out.push_str("</section>\n");
    out
}

/// How much is drawn, in one sentence.
fn counts(story: &Story, rows: &Rows<'_>) -> String {
    let counts = rows.counts;
    let passed = match (rows.events.first(), rows.events.last()) {
        (Some(first), Some(last)) => span(last.at_ns - first.at_ns),
        _ => span(0),
    };
    let mut said = format!(
        "{} in {passed} of simulated time: {} drawn one by one",
        counted(story.moments.len(), "moment"),
        counts.alone
    );
    for (count, how) in [
        (counts.in_runs, "in runs of the same (×n)"),
        (counts.chatter, "folded as chatter"),
        (
            counts.no_room,
            "left out because there are too many; grey rows say where",
        ),
    ] {
        if count > 0 {
            let _ = write!(said, ", {count} {how}");
        }
    }
    said.push('.');
    said
}

/// Names above the lanes follow when these scroll sideways.
const SCRIPT: &str = "for(const v of document.querySelectorAll('.view')){const s=v.querySelector('.scroll'),\
n=v.querySelector('.names');s.addEventListener('scroll',()=>{n.scrollLeft=s.scrollLeft})}";

/// Marks, each around the point where it stands.
const SYMBOLS: &str = r##"<svg class="defs" aria-hidden="true" width="0" height="0"><defs>
<marker id="a-message" class="a" viewBox="0 0 10 10" refX="9.5" refY="5" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="f-message" d="M0 0L10 5L0 10z"/></marker>
<marker id="a-chatter" class="a" viewBox="0 0 10 10" refX="9.5" refY="5" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="f-dim" d="M0 0L10 5L0 10z"/></marker>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hatch-ground" width="6" height="6"/><line class="hatch-line" x1="0" y1="0" x2="0" y2="6"/></pattern>
<g id="m-cross"><path class="s-bad" d="M-5 -5L5 5M5 -5L-5 5"/></g>
<g id="m-itself"><path class="s-message" d="M0 -4C14 -8 14 8 2 5"/></g>
<g id="m-disk"><rect class="f-disk" x="-4" y="-4" width="8" height="8" transform="rotate(45)"/></g>
<g id="m-call"><path class="s-call" d="M-8 0H8"/><circle class="f-call" r="4"/></g>
<g id="m-ok"><path class="s-ok" d="M-8 0H8"/><circle class="f-ok" r="4"/></g>
<g id="m-bad"><path class="s-bad" d="M-8 0H8"/><circle class="f-bad" r="4"/></g>
<g id="m-fault"><path class="f-fault" d="M2 -9L-6 2H-1L-3 9L6 -3H1z"/></g>
<g id="m-start"><path class="f-ink" d="M-6 -5H6L0 6z"/></g>
<g id="m-dead"><rect class="f-ink" x="-11" y="-2" width="22" height="4"/></g>
<g id="m-note"><circle class="f-dim" r="3.5"/></g>
<g id="m-broken"><circle class="f-bad" r="9"/><path class="s-paper" d="M-4 -4L4 4M4 -4L-4 4"/></g>
</defs></svg>
"##;

/// What the marks mean.
const LEGEND: &str = r##"<details class="legend" open><summary>What the marks mean</summary><ul>
<li><svg aria-hidden="true"><line class="message" x1="2" y1="6" x2="38" y2="14" marker-end="url(#a-message)"/></svg>a message, from its sending to its arrival</li>
<li><svg aria-hidden="true"><line class="lost" x1="2" y1="6" x2="28" y2="13"/><use href="#m-cross" x="28" y="13"/></svg>a message that was lost</li>
<li><svg aria-hidden="true"><line class="up" x1="20" x2="20" y1="0" y2="20"/><use href="#m-disk" x="20" y="10"/></svg>something on a disk; a red cross: it failed</li>
<li><svg aria-hidden="true"><g class="call ok"><line x1="24" x2="24" y1="4" y2="16"/></g><use href="#m-call" x="20" y="4"/><use href="#m-ok" x="20" y="16"/></svg>a client's call and its answer; red: failed, dashed: never answered</li>
<li><svg aria-hidden="true"><rect class="fault" x="1" y="1" width="38" height="18"/><use href="#m-fault" x="20" y="10"/></svg>a fault, until it is healed</li>
<li><svg aria-hidden="true"><rect class="down" x="9" y="0" width="22" height="20"/><use href="#m-dead" x="20" y="2"/><use href="#m-start" x="20" y="14"/></svg>a process is down, then starts</li>
<li><svg aria-hidden="true"><rect class="pause" x="0" y="4" width="40" height="12"/></svg>time that is not drawn: its length, and what was folded</li>
<li><svg aria-hidden="true"><rect class="broken" x="1" y="3" width="38" height="14"/><use href="#m-broken" x="20" y="10"/></svg>the promise that was broken</li>
</ul></details>
"##;

const STYLE: &str = r##":root{--paper:#fff;--stripe:#f6f8fa;--ink:#1b1f24;--dim:#57606a;--rule:#c4cbd3;--message:#1a56b0;--call:#6039b0;--ok:#11622a;--bad:#b3201a;--bad-paper:#ffebe8;--fault:#863b00;--band:#ffdfb0;--hatch:#a5adb6;--hatch-paper:#e7eaee;--pause:#eceff3;--disk:#0b6478}
@media (prefers-color-scheme:dark){:root{--paper:#0f1419;--stripe:#151b22;--ink:#e6edf3;--dim:#a3b0bd;--rule:#3b4652;--message:#84b9ff;--call:#c5a6ff;--ok:#7ddc9c;--bad:#ff9088;--bad-paper:#3d1512;--fault:#ffbd7a;--band:#4a2f0e;--hatch:#5b6773;--hatch-paper:#232b34;--pause:#1c242d;--disk:#6fd3e6}}
*{box-sizing:border-box}
html{scroll-padding-top:5rem;-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
header,.counts,main>label{padding-inline:16px;overflow-wrap:anywhere}
header,.counts,.view{max-width:1600px}
@media (min-width:1000px){.aside{display:grid;grid-template-columns:1fr 330px;gap:40px;align-items:start}}
h1{font-size:1.35rem;line-height:1.25;margin:16px 0 12px}
h2{font-size:1.05rem;margin:16px 0 6px}
p{margin:6px 0}
a{color:var(--message)}
code{font:13px/1.5 ui-monospace,monospace;background:var(--pause);padding:2px 6px;border-radius:4px;-webkit-user-select:all;user-select:all}
.verdict{border:2px solid var(--bad);border-left-width:8px;border-radius:6px;background:var(--bad-paper);padding:10px 14px}
.verdict h2{color:var(--bad);margin:0 0 6px;font-size:1.15rem}
.what{white-space:pre-line}
.brief{list-style:none;margin:0;padding:0}
.brief li{display:grid;grid-template-columns:7.2rem 1fr;gap:2px 10px;padding:3px 0;border-top:1px solid var(--rule)}
.brief a{font-variant-numeric:tabular-nums;white-space:nowrap}
.brief .fault{color:var(--fault)}.brief .broken{color:var(--bad);font-weight:700}
.ok{color:var(--ok)}.bad{color:var(--bad)}
.counts{color:var(--dim);font-size:14px}
header .counts{padding-inline:0}
.legend{margin:12px 0 6px}
.legend summary{cursor:pointer;font-weight:700;font-size:1.05rem;padding:3px 0 6px}
.legend ul{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:6px 18px}
.legend li{display:flex;gap:10px;align-items:center;font-size:14px}
.legend svg{width:40px;height:20px;flex:none;overflow:visible}
#all{width:20px;height:20px;margin:8px 0 8px 16px;vertical-align:middle}
main>label{padding-left:8px;display:inline-block;max-width:calc(100% - 44px);vertical-align:middle}
#whole,.to-whole{display:none}
#all:checked~#short,:root:has(#all:checked) .to-short{display:none}
#all:checked~#whole{display:block}
:root:has(#all:checked) .to-whole{display:inline}
.view{margin-top:8px;border-bottom:1px solid var(--rule)}
.names{position:sticky;top:0;z-index:3;display:flex;overflow:hidden;background:var(--paper);border-block:1px solid var(--rule)}
.corner{position:sticky;left:0;z-index:1;flex:none;width:88px;padding:8px 6px;text-align:right;color:var(--dim);font-size:12px;background:var(--paper);border-right:1px solid var(--rule)}
.heads{flex:1;display:flex}
.heads b{flex:1 1 0;min-width:0;padding:7px 4px;text-align:center;font-size:14px;overflow-wrap:anywhere}
.heads b:nth-child(even){background:var(--stripe)}
.scroll{display:flex;overflow-x:auto;overflow-y:hidden}
.scroll:focus-visible{outline:2px solid var(--message);outline-offset:-2px}
.times{position:sticky;left:0;z-index:2;flex:none;width:88px;background:var(--paper);border-right:1px solid var(--rule)}
.t{position:absolute;left:0;width:87px;padding:2px 6px 0 0;text-align:right;font-size:12px;line-height:16px;color:var(--dim);font-variant-numeric:tabular-nums;white-space:nowrap}
.t small{font-size:10px}
.t p{position:absolute;left:88px;margin:0;padding-left:12px;text-align:left;font-weight:400;color:var(--dim);font-size:12.5px;pointer-events:none}
.t.pause{color:var(--ink);font-weight:700;font-size:11px;padding-top:6px}
.t.pause p{top:6px}
.t.broken{padding-top:16px;color:var(--paper);background:var(--bad);font-weight:700}
.t.broken p{top:15px;color:var(--ink);font-size:13px}.t.broken b{color:var(--bad);font-size:14px}
.t:target{outline:2px solid var(--message);outline-offset:-2px}
.lanes{flex:1;display:block;overflow:hidden}
.lanes text{font-size:12.5px;fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round;stroke-opacity:.85}
.lanes .end{text-anchor:end}
.b{font-weight:700}
.moment.message .b{fill:var(--message)}.moment.lost .b,.moment.bad text{fill:var(--bad)}.moment.chatter text{fill:var(--dim)}
.moment.call text{fill:var(--call);font-weight:700}.moment.answer text{fill:var(--ok);font-weight:700}.moment.answer.bad text{fill:var(--bad)}
.moment.fault text,.moment.healed text{fill:var(--fault);stroke:none}.moment.fault text{font-weight:700}
.moment.disk text{fill:var(--disk)}.moment.disk.bad text{fill:var(--bad);font-weight:700}
.moment.note text{font-style:italic}
.stripe{fill:var(--stripe)}
rect.fault{fill:var(--band);stroke:var(--fault);stroke-dasharray:4 3;fill-opacity:.75}
rect.pause{fill:var(--pause);stroke:var(--rule);stroke-dasharray:2 3}
rect.broken{fill:var(--bad-paper);stroke:var(--bad);stroke-width:2}
rect.down{fill:url(#hatch);stroke:var(--hatch)}
.hatch-ground{fill:var(--hatch-paper)}.hatch-line{stroke:var(--hatch);stroke-width:4}
line.up{stroke:var(--rule);stroke-width:2}
line.message{stroke:var(--message);stroke-width:1.6}
line.chatter{stroke:var(--dim)}
line.lost{stroke:var(--bad);stroke-width:1.6;stroke-dasharray:5 3}
.call line{stroke:var(--call);stroke-width:4}.call.bad line{stroke:var(--bad)}.call.never line{stroke-dasharray:6 5}
.f-message{fill:var(--message)}.f-dim{fill:var(--dim)}.f-disk{fill:var(--disk)}.f-call{fill:var(--call)}.f-ok{fill:var(--ok)}.f-bad{fill:var(--bad)}.f-fault{fill:var(--fault)}.f-ink{fill:var(--ink)}
.s-message,.s-bad,.s-call,.s-ok,.s-paper{fill:none;stroke-width:2.2}
.s-message{stroke:var(--message)}.s-bad{stroke:var(--bad)}.s-call{stroke:var(--call)}.s-ok{stroke:var(--ok)}.s-paper{stroke:var(--paper)}
.defs{position:absolute}
@media print{.scroll{overflow:visible}.names{position:static}}
"##;
