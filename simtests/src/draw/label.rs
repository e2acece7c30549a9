//! What stands beside each mark: which words, in how many lines, on which side of the lane.
//!
//! Lines are broken here and not by the browser, because the height of a row must be known before anything is
//! drawn. They are as long as fits on a narrow screen, so that no text is cut off on any.
use super::lanes::Columns;
use super::promise;
use super::rows::{Event, Fold, Point};
use super::text::{self, wrap};
use super::{Story, What};

/// Columns of text in a line: what a phone shows beside the times.
const COLUMNS_MAX: usize = 43;
/// Pixels that a column of text takes at most, on average over a line.
const COLUMN_PX: usize = 7;

/// The words of a row.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Label {
    /// The column at whose centre it is anchored.
    pub(super) anchor: Anchor,
    /// How many characters of the first line say what kind of thing it is.
    pub(super) head_chars: usize,
    pub(super) lines: Vec<String>,
    /// All of it in one sentence, for who hears the page or points at it.
    pub(super) sentence: String,
}

/// Where a label begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Anchor {
    /// At the left edge of the drawing.
    #[default]
    Edge,
    /// To the right of a column's line.
    RightOf(usize),
    /// To the left of a column's line.
    LeftOf(usize),
}

/// The words for the events from `first` to `last`, which are `count` and alike.
pub(super) fn label(
    story: &Story,
    columns: &Columns,
    first: &Event<'_>,
    last: &Event<'_>,
    count: usize,
) -> Label {
    let name = |lane: usize| columns.name(story, lane);
    let times = if count > 1 {
        format!(" ×{count}")
    } else {
        String::new()
    };
    let what = match first.point {
        Point::Broken(verdict) => return broken(verdict, columns),
        Point::Healed {
            lanes,
            text,
            struck_ns,
            ..
        } => {
            let after = text::span(first.at_ns - struck_ns);
            let head = format!("Healed after {after}:");
            return words(beside_all(columns, lanes), columns, &head, text, "");
        }
        Point::Moment(what) => what,
    };
    match what {
        What::Message {
            from,
            to,
            arrived_ns,
            name: kind,
            detail,
        } => {
            let mut rest = detail.clone();
            if let Point::Moment(What::Message { detail: end, .. }) = last.point
                && end != detail
            {
                rest = format!("{detail} … {end}");
            }
            let (fate, spoken) = match arrived_ns {
                Some(_) if from == to => (" (to itself)", String::new()),
                Some(at_ns) => (
                    "",
                    format!(
                        ", there after {}",
                        text::span(at_ns.saturating_sub(first.at_ns))
                    ),
                ),
                None => (" (lost)", ", lost".to_owned()),
            };
            let (low, high) = {
                let (from, to) = (columns.of(*from), columns.of(*to));
                (from.min(to), from.max(to))
            };
            let head = format!("{}{times}{fate}", text::clean(kind));
            let sentence = format!("{} to {}{spoken}: ", name(*from), name(*to));
            words(
                between(columns, low, high),
                columns,
                &head,
                &rest,
                &sentence,
            )
        }
        What::Disk { lane, op, ok } => {
            let failed = if *ok { "" } else { " failed" };
            let head = format!("{}{times}{failed}", text::clean(op));
            let sentence = format!("{}, disk: ", name(*lane));
            words(beside(columns, *lane), columns, &head, "", &sentence)
        }
        What::Call { lane, text, .. } => {
            let sentence = format!("{} is asked: ", name(*lane));
            words(beside(columns, *lane), columns, text, "", &sentence)
        }
        What::Answer { lane, text, ok, .. } => {
            let (head, spoken) = if *ok {
                ("✓", "answers")
            } else {
                ("✗", "answers with a failure")
            };
            let sentence = format!("{} {spoken}: ", name(*lane));
            words(beside(columns, *lane), columns, head, text, &sentence)
        }
        What::Fault { lanes, text, .. } => {
            words(beside_all(columns, lanes), columns, "Fault:", text, "")
        }
        What::State { lane, up } => {
            let head = name(*lane);
            let rest = if *up { "starts" } else { "is down" };
            words(beside(columns, *lane), columns, &head, rest, "")
        }
        What::Note { lane, text } => {
            let anchor = lane.map_or(Anchor::Edge, |lane| beside(columns, lane));
            words(anchor, columns, "", text, "")
        }
    }
}

/// Lines of a row that says what is not drawn.
pub(super) fn lines_of_fold(fold: &Fold, columns: &Columns) -> Vec<String> {
    wrap(&fold.text(), columns_at(columns, Anchor::Edge))
}

/// What was promised and what came of it.
fn broken(verdict: &super::Verdict, columns: &Columns) -> Label {
    let head = format!("Promise {} is broken.", text::clean(&verdict.promise));
    let room = columns_at(columns, Anchor::Edge);
    let mut lines = wrap(&head, room);
    for (code, words) in promise::in_words(&verdict.promise) {
        lines.extend(wrap(&format!("{code}: {words}."), room));
    }
    lines.extend(wrap(
        &format!("Oracle {} says: {}", verdict.oracle, verdict.what),
        room,
    ));
    Label {
        anchor: Anchor::Edge,
        head_chars: lines[0].chars().count(),
        sentence: lines.join(" "),
        lines,
    }
}

fn words(anchor: Anchor, columns: &Columns, head: &str, rest: &str, sentence: &str) -> Label {
    let both = format!("{head} {rest}");
    let lines = wrap(&both, columns_at(columns, anchor));
    let head_chars = head.chars().count();
    let whole = lines
        .first()
        .is_some_and(|line| line.starts_with(head) && !rest.is_empty());
    Label {
        anchor,
        head_chars: if whole { head_chars } else { 0 },
        sentence: format!("{sentence}{}", text::clean(both.trim())),
        lines,
    }
}

/// How many columns of text fit beside an anchor on the narrowest screen.
fn columns_at(columns: &Columns, anchor: Anchor) -> usize {
    (room_px(columns, anchor) / COLUMN_PX).min(COLUMNS_MAX)
}

fn room_px(columns: &Columns, anchor: Anchor) -> usize {
    let whole = columns.count() * columns.min_px();
    let from_left = |column| (2 * column + 1) * columns.min_px() / 2;
    let room = match anchor {
        Anchor::Edge => whole,
        Anchor::RightOf(column) => whole.saturating_sub(from_left(column)),
        Anchor::LeftOf(column) => from_left(column),
    };
    room.saturating_sub(24)
}

fn beside(columns: &Columns, lane: usize) -> Anchor {
    let column = columns.of(lane);
    between(columns, column, column)
}

fn beside_all(columns: &Columns, lanes: &[usize]) -> Anchor {
    let columns_hit = || lanes.iter().map(|lane| columns.of(*lane));
    match (columns_hit().min(), columns_hit().max()) {
        (Some(low), Some(high)) => between(columns, low, high),
        _ => Anchor::Edge,
    }
}

/// Right of the lower column if a full line fits there, else on the side that has more room.
fn between(columns: &Columns, low: usize, high: usize) -> Anchor {
    let (right, left) = (Anchor::RightOf(low), Anchor::LeftOf(high));
    let enough = COLUMNS_MAX * COLUMN_PX;
    if room_px(columns, right) >= enough.min(room_px(columns, left)) {
        right
    } else {
        left
    }
}
