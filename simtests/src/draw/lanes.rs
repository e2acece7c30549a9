//! The drawing itself: a column per node, its line, and everything that happens on it or between two of them.
//!
//! Across, all places are shares of the width, so that one drawing fills a wide screen and scrolls on a narrow
//! one; downwards they are pixels, from [`Rows`].
use super::label::{Anchor, Label};
use super::rows::{Body, Point, Row, Rows, View};
use super::text::{escape, seconds, span};
use super::{Story, What};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The column for lanes that the story does not have.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// A column is never narrower than this.
const COLUMN_PX_MIN: usize = 104;
/// The drawing is never narrower than this, so that text has room beside few lanes too.
const WIDTH_PX_MIN: usize = 560;
/// Brackets of calls that overlap stand side by side, as many as this.
const BRACKETS_MAX: usize = 5;

/// How lanes stand side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Columns {
    /// Lanes that the story names.
    named: usize,
    count: usize,
}

impl Columns {
    /// For a story: one column for each of its lanes, and one more if something names a lane that is not there.
    pub(super) fn new(story: &Story) -> Self {
        let named = story.lanes.len();
        let outside = |lane: &usize| *lane >= named;
        let moments_outside = story.moments.iter().any(|moment| match &moment.what {
            What::Message { from, to, .. } => outside(from) || outside(to),
            What::Disk { lane, .. }
            | What::Call { lane, .. }
            | What::Answer { lane, .. }
            | What::State { lane, .. } => outside(lane),
            What::Fault { lanes, .. } => lanes.iter().any(outside),
            What::Note { lane, .. } => lane.as_ref().is_some_and(outside),
        });
        let verdict_outside = story
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.lane.as_ref().is_some_and(outside));
        let count = if moments_outside || verdict_outside || named == 0 {
            named + 1
        } else {
            named
        };
        Self { named, count }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The column of a lane.
    pub(super) fn of(&self, lane: usize) -> usize {
        lane.min(self.count - 1)
    }

    /// The name above a column or of a lane.
    pub(super) fn name(&self, story: &Story, lane: usize) -> String {
        if lane < self.named {
            super::text::clean(&story.lanes[lane])
        } else {
            ELSEWHERE.to_owned()
        }
    }

    /// How wide a column is on a narrow screen.
    pub(super) fn min_px(&self) -> usize {
        COLUMN_PX_MIN.max(WIDTH_PX_MIN.div_ceil(self.count))
    }

    /// A share of the width.
    fn share(&self, half_columns: usize) -> String {
        let hundredths = half_columns * 5000 / self.count;
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    }

    fn centre(&self, column: usize) -> String {
        self.share(2 * column + 1)
    }

    fn left(&self, column: usize) -> String {
        self.share(2 * column)
    }
}

/// Parts of the drawing, those that lie below first.
#[derive(Default)]
struct Layers {
    bands: String,
    lines: String,
    brackets: String,
    arrows: String,
    marks: String,
    words: String,
}

/// One view of a story: names, times and the drawing.
pub(super) fn view(story: &Story, columns: &Columns, rows: &Rows<'_>, view: View) -> String {
    let name = view.name();
    let width = columns.count() * columns.min_px();
    let mut out = format!(
        "<section class=\"view\" id=\"{name}\" aria-label=\"Drawing\">\n\
         <div class=\"names\"><div class=\"corner\">seconds</div>\
         <div class=\"heads\" style=\"min-width:{width}px\">"
    );
    for column in 0..columns.count() {
        let head = escape(&columns.name(story, column));
        let _ = write!(out, "<b>{head}</b>");
    }
    let _ = write!(
        out,
        "</div></div>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Lanes, time downwards\">\n\
         <div class=\"times\" style=\"height:{}px\">\n{}</div>\n\
         <svg class=\"lanes\" role=\"group\" aria-labelledby=\"title-{name} desc-{name}\" \
         style=\"min-width:{width}px;height:{}px\">\n\
         <title id=\"title-{name}\">{}: what each node did, time downwards</title>\n\
         <desc id=\"desc-{name}\">A column per node: {}. Arrows are messages, bands are faults, hatched stretches \
         are processes that are down, brackets are calls of clients{}.</desc>\n",
        rows.height,
        times(columns, rows, view),
        rows.height,
        escape(&story.title),
        escape(
            &(0..columns.count())
                .map(|column| columns.name(story, column))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        if story.verdict.is_some() {
            "; the red row is the promise that was broken"
        } else {
            ""
        }
    );
    let mut layers = Layers::default();
    stripes(columns, rows, &mut layers);
    faults(columns, rows, &mut layers);
    processes(columns, rows, &mut layers);
    calls(columns, rows, &mut layers);
    for (place, row) in rows.rows.iter().enumerate() {
        draw_row(columns, rows, place, row, &mut layers);
    }
    for layer in [
        layers.bands,
        layers.lines,
        layers.brackets,
        layers.arrows,
        layers.marks,
        layers.words,
    ] {
        out.push_str(&layer);
    }
    out.push_str("</svg>\n</div>\n</section>\n");
    out
}

/// The anchor of a row in a view.
pub(super) fn anchor(rows: &Rows<'_>, event: usize, view: View) -> String {
    match rows.events[event].point {
        Point::Broken(_) => format!("broken-{}", view.name()),
        Point::Moment(_) | Point::Healed { .. } => {
            format!("{}-{}", view.name(), rows.row_of[event])
        }
    }
}

/// The column of times, which stays while the lanes scroll sideways; so do the words that belong to no lane.
fn times(columns: &Columns, rows: &Rows<'_>, view: View) -> String {
    let mut out = String::new();
    let mut said = String::new();
    for (place, row) in rows.rows.iter().enumerate() {
        let (id, class, text) = match &row.body {
            Body::Fold(fold) => {
                let silent = fold
                    .silent_ns
                    .map_or_else(|| "…".to_owned(), |ns| format!("… {} …", span(ns)));
                let lines = words_that_stay(&super::label::lines_of_fold(fold, columns), "");
                let id = format!("{}-{place}", view.name());
                (id, " pause", format!("{silent}{lines}"))
            }
            Body::Events { first, label, .. } => {
                let event = &rows.events[*first];
                let now = seconds(event.at_ns);
                let (coarse, fine) = now.split_at(now.len() - 3);
                let clock = format!("{coarse}<small>{fine}</small>");
                let (class, shown) = match event.point {
                    Point::Broken(_) => {
                        let head = label.lines.first().map_or("", String::as_str);
                        let rest = label.lines.get(1..).unwrap_or_default();
                        (" broken", clock + &words_that_stay(rest, head))
                    }
                    Point::Moment(_) | Point::Healed { .. } if now == said => {
                        ("", "<i>″</i>".to_owned())
                    }
                    Point::Moment(_) | Point::Healed { .. } => ("", clock),
                };
                said = now;
                (anchor(rows, *first, view), class, shown)
            }
        };
        // The red row has a little room above and below.
        let room = if class == " broken" { 4 } else { 0 };
        let _ = writeln!(
            out,
            "<div id=\"{id}\" class=\"t{class}\" style=\"top:{}px;height:{}px\">{text}</div>",
            row.top + room,
            row.bottom - row.top - 2 * room
        );
    }
    out
}

/// Words beside the times, over the lanes.
fn words_that_stay(lines: &[String], head: &str) -> String {
    let mut out = "<p>".to_owned();
    if !head.is_empty() {
        let _ = write!(out, "<b>{}</b><br>", escape(head));
    }
    for (number, line) in lines.iter().enumerate() {
        out.push_str(if number == 0 { "" } else { "<br>" });
        out.push_str(&escape(line));
    }
    out.push_str("</p>");
    out
}

/// Every other column a shade darker, so that the eye stays in it.
fn stripes(columns: &Columns, rows: &Rows<'_>, layers: &mut Layers) {
    for column in (1..columns.count()).step_by(2) {
        let _ = writeln!(
            layers.bands,
            "<rect class=\"stripe\" x=\"{}\" y=\"0\" width=\"{}\" height=\"{}\"/>",
            columns.left(column),
            columns.share(2),
            rows.height
        );
    }
}

/// Bands over the lanes that a fault hits, for as long as it lasts.
fn faults(columns: &Columns, rows: &Rows<'_>, layers: &mut Layers) {
    let mut healed = BTreeMap::new();
    for (place, event) in rows.events.iter().enumerate() {
        if let Point::Healed { struck, .. } = event.point {
            healed.insert(struck, place);
        }
    }
    for (place, event) in rows.events.iter().enumerate() {
        let Point::Moment(What::Fault { lanes, .. }) = event.point else {
            continue;
        };
        let Some(row) = rows.row(place) else { continue };
        let bottom = healed
            .get(&place)
            .and_then(|healed| rows.row(*healed))
            .map_or(rows.height, |healed| healed.bottom - 2)
            .max(row.bottom);
        let hit = lanes
            .iter()
            .map(|lane| columns.of(*lane))
            .collect::<BTreeSet<_>>();
        for column in &hit {
            if column
                .checked_sub(1)
                .is_some_and(|left| hit.contains(&left))
            {
                continue;
            }
            let wide = (*column..).take_while(|next| hit.contains(next)).count();
            let _ = writeln!(
                layers.bands,
                "<rect class=\"fault\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                columns.left(*column),
                row.top,
                columns.share(2 * wide),
                bottom - row.top
            );
        }
    }
}

/// The line of each node: solid while its process is up, hatched while it is down.
fn processes(columns: &Columns, rows: &Rows<'_>, layers: &mut Layers) {
    let mut turns = vec![vec![]; columns.count()];
    for (place, event) in rows.events.iter().enumerate() {
        if let Point::Moment(What::State { lane, up }) = event.point
            && let Some(row) = rows.row(place)
        {
            turns[columns.of(*lane)].push((row.mark, *up));
        }
    }
    for (column, turns) in turns.iter().enumerate() {
        let x = columns.centre(column);
        // Before its first state a process is what that state ends.
        let mut up = turns.first().is_none_or(|(_, up)| !up);
        let mut from = 0;
        let mut stretch = |up: bool, from: usize, to: usize| {
            let _ = if up {
                writeln!(
                    layers.lines,
                    "<line class=\"up\" x1=\"{x}\" x2=\"{x}\" y1=\"{from}\" y2=\"{to}\"/>"
                )
            } else {
                writeln!(
                    layers.lines,
                    "<rect class=\"down\" x=\"{x}\" y=\"{from}\" width=\"22\" height=\"{}\" \
                     transform=\"translate(-11 0)\"/>",
                    to - from
                )
            };
        };
        for (at, next) in turns {
            if *next != up {
                stretch(up, from, *at);
                (up, from) = (*next, *at);
            }
        }
        stretch(up, from, rows.height);
    }
}

/// A call that is not answered yet.
struct Open {
    event: usize,
    slot: usize,
}

/// Brackets from each call to its answer, or to the death of the client.
fn calls(columns: &Columns, rows: &Rows<'_>, layers: &mut Layers) {
    let mut open: BTreeMap<(usize, u64), Open> = BTreeMap::new();
    let mut bracket = |column: usize, open: &Open, to: usize, end: &str| {
        let Some(row) = rows.row(open.event) else {
            return;
        };
        let x = columns.centre(column);
        let shift = 4 + 6 * open.slot;
        let _ = writeln!(
            layers.brackets,
            "<g class=\"call {end}\" transform=\"translate({shift} 0)\"><line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" \
             y2=\"{to}\"/></g>",
            row.mark
        );
    };
    for (place, event) in rows.events.iter().enumerate() {
        let Some(row) = rows.row(place) else { continue };
        match event.point {
            Point::Moment(What::Call { lane, call, .. }) => {
                let column = columns.of(*lane);
                let slot = (0..BRACKETS_MAX)
                    .find(|slot| {
                        !open
                            .iter()
                            .any(|((other, _), open)| *other == column && open.slot == *slot)
                    })
                    .unwrap_or(BRACKETS_MAX);
                open.insert((column, *call), Open { event: place, slot });
            }
            Point::Moment(What::Answer { lane, call, ok, .. }) => {
                let column = columns.of(*lane);
                if let Some(asked) = open.remove(&(column, *call)) {
                    let end = if *ok { "ok" } else { "bad" };
                    bracket(column, &asked, row.mark, end);
                }
            }
            Point::Moment(What::State { lane, up: false }) => {
                let column = columns.of(*lane);
                open.retain(|(other, _), asked| {
                    if *other == column {
                        bracket(column, asked, row.mark, "never");
                    }
                    *other != column
                });
            }
            Point::Moment(_) | Point::Healed { .. } | Point::Broken(_) => {}
        }
    }
    for ((column, _), asked) in &open {
        bracket(*column, asked, rows.height, "never");
    }
}

/// Marks, arrow and words of one row.
fn draw_row(columns: &Columns, rows: &Rows<'_>, place: usize, row: &Row, layers: &mut Layers) {
    let (first, last, label) = match &row.body {
        Body::Fold(_) => {
            let _ = writeln!(
                layers.marks,
                "<rect class=\"pause\" x=\"0\" y=\"{}\" width=\"100%\" height=\"{}\"/>",
                row.top + 3,
                row.bottom - row.top - 6
            );
            return;
        }
        Body::Events {
            first, last, label, ..
        } => (&rows.events[*first], &rows.events[*last], label),
    };
    let mark = |layers: &mut Layers, symbol: &str, lane: usize| {
        let _ = writeln!(
            layers.marks,
            "<use href=\"#m-{symbol}\" x=\"{}\" y=\"{}\"/>",
            columns.centre(columns.of(lane)),
            row.mark
        );
    };
    let class = match first.point {
        Point::Healed { .. } => "healed",
        Point::Broken(verdict) => {
            let _ = writeln!(
                layers.marks,
                "<rect class=\"broken\" x=\"0\" y=\"{}\" width=\"100%\" height=\"{}\"/>",
                row.top + 4,
                row.bottom - row.top - 8
            );
            if let Some(lane) = verdict.lane {
                let x = columns.centre(columns.of(lane));
                let _ = writeln!(
                    layers.marks,
                    "<use href=\"#m-broken\" x=\"{x}\" y=\"{}\"/>",
                    row.top + 4
                );
            }
            return;
        }
        Point::Moment(What::Message { from, to, name, .. }) => {
            let arrived_ns = match last.point {
                Point::Moment(What::Message { arrived_ns, .. }) => *arrived_ns,
                Point::Moment(_) | Point::Healed { .. } | Point::Broken(_) => None,
            };
            let chatter = super::CHATTER.contains(&name.as_str());
            let class = match (arrived_ns, chatter) {
                (None, _) => "lost",
                (Some(_), true) => "chatter",
                (Some(_), false) => "message",
            };
            let (from, to) = (columns.of(*from), columns.of(*to));
            let x = columns.centre(from);
            if from == to {
                mark(
                    layers,
                    if class == "lost" { "cross" } else { "itself" },
                    from,
                );
            } else if let Some(arrived_ns) = arrived_ns {
                let _ = writeln!(
                    layers.arrows,
                    "<line class=\"{class}\" x1=\"{x}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" \
                     marker-end=\"url(#a-{class})\"/>",
                    row.mark,
                    columns.centre(to),
                    rows.arrival(place, arrived_ns.max(last.at_ns))
                );
            } else {
                // Half-way or a little further, between two columns: on the line of a third node it would seem to
                // have reached that one.
                let middle = from + to + 1;
                let end = columns.share(match (middle % 2, from < to) {
                    (0, _) => middle,
                    (_, true) => middle + 1,
                    (_, false) => middle - 1,
                });
                let y = row.mark + 9;
                let _ = writeln!(
                    layers.arrows,
                    "<line class=\"{class}\" x1=\"{x}\" y1=\"{}\" x2=\"{end}\" y2=\"{y}\"/>\
                     <use href=\"#m-cross\" x=\"{end}\" y=\"{y}\"/>",
                    row.mark
                );
            }
            class
        }
        Point::Moment(What::Disk { lane, ok, .. }) => {
            mark(layers, if *ok { "disk" } else { "cross" }, *lane);
            if *ok { "disk" } else { "disk bad" }
        }
        Point::Moment(What::Call { lane, .. }) => {
            mark(layers, "call", *lane);
            "call"
        }
        Point::Moment(What::Answer { lane, ok, .. }) => {
            mark(layers, if *ok { "ok" } else { "bad" }, *lane);
            if *ok { "answer" } else { "answer bad" }
        }
        Point::Moment(What::Fault { lanes, .. }) => {
            for lane in lanes
                .iter()
                .map(|lane| columns.of(*lane))
                .collect::<BTreeSet<_>>()
            {
                mark(layers, "fault", lane);
            }
            "fault"
        }
        Point::Moment(What::State { lane, up }) => {
            mark(layers, if *up { "start" } else { "dead" }, *lane);
            "state"
        }
        Point::Moment(What::Note { lane, .. }) => {
            if let Some(lane) = lane {
                mark(layers, "note", *lane);
            }
            "note"
        }
    };
    let text = words(columns, label, row.top + 14);
    let _ = writeln!(
        layers.words,
        "<g class=\"moment {class}\"><title>{} s: {}</title>{text}</g>",
        seconds(first.at_ns),
        escape(&label.sentence)
    );
}

/// The lines of a label, the first at `baseline`.
fn words(columns: &Columns, label: &Label, baseline: usize) -> String {
    let (x, dx, end) = match label.anchor {
        Anchor::Edge => ("0%".to_owned(), "12", ""),
        Anchor::RightOf(column) => (columns.centre(column), "12", ""),
        Anchor::LeftOf(column) => (columns.centre(column), "-12", " class=\"end\""),
    };
    let mut out = format!("<text y=\"{baseline}\"{end}>");
    for (number, line) in label.lines.iter().enumerate() {
        let down = if number == 0 { "" } else { " dy=\"16\"" };
        let bold_chars = if number == 0 { label.head_chars } else { 0 };
        let bold_bytes = line.chars().take(bold_chars).map(char::len_utf8).sum();
        let (bold, rest) = line.split_at(bold_bytes);
        let _ = write!(out, "<tspan x=\"{x}\" dx=\"{dx}\"{down}>");
        if bold.is_empty() {
            let _ = write!(out, "{}</tspan>", escape(rest));
        } else {
            let _ = write!(
                out,
                "<tspan class=\"b\">{}</tspan>{}</tspan>",
                escape(bold),
                escape(rest)
            );
        }
    }
    out.push_str("</text>");
    out
}
