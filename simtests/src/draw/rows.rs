//! Which moments get a row of their own, which are folded, and how far down each row stands.
//!
//! Time is drawn as an order: simulated time comes in bursts with long silences between them, so a row follows
//! the one before at once, and a silence is one row that says how long it was.
use super::label::{self, Label};
use super::lanes::Columns;
use super::{CHATTER, MOMENTS_DRAWN_MAX, Story, Verdict, What};
use std::collections::BTreeMap;

/// How much of a story is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// Without chatter, runs of one message drawn once.
    Short,
    /// Every moment by itself.
    Whole,
}

impl View {
    /// Its name in anchors.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Whole => "whole",
        }
    }
}

/// A moment, the end of a fault, or the verdict, in the order in which they are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub(super) at_ns: u64,
    pub(super) point: Point<'a>,
}

/// What an [`Event`] is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point<'a> {
    Moment(&'a What),
    Healed {
        lanes: &'a [usize],
        text: &'a str,
        struck_ns: u64,
        /// The event in which it struck.
        struck: usize,
    },
    Broken(&'a Verdict),
}

/// All events of a story, in the order of their times.
pub(super) fn events(story: &Story) -> Vec<Event<'_>> {
    // Places of strikes are those among the moments at first, and are moved when all events stand in order.
    let mut all = vec![];
    for (place, moment) in story.moments.iter().enumerate() {
        all.push((moment.at_ns, place, Point::Moment(&moment.what)));
        if let What::Fault {
            lanes,
            text,
            healed_ns: Some(healed_ns),
        } = &moment.what
        {
            let healed = Point::Healed {
                lanes,
                text,
                struck_ns: moment.at_ns,
                struck: place,
            };
            all.push(((*healed_ns).max(moment.at_ns), place, healed));
        }
    }
    all.sort_by_key(|(at_ns, _, _)| *at_ns);
    if let Some(verdict) = &story.verdict {
        let after = all.partition_point(|(at_ns, _, _)| *at_ns <= verdict.at_ns);
        all.insert(after, (verdict.at_ns, usize::MAX, Point::Broken(verdict)));
    }
    let mut moved = vec![0; story.moments.len()];
    for (now, (_, place, point)) in all.iter().enumerate() {
        if matches!(point, Point::Moment(_)) {
            moved[*place] = now;
        }
    }
    all.into_iter()
        .map(|(at_ns, _, mut point)| {
            if let Point::Healed { struck, .. } = &mut point {
                *struck = moved[*struck];
            }
            Event { at_ns, point }
        })
        .collect()
}

/// One row of the drawing.
#[derive(Debug)]
pub(super) struct Row {
    /// Its upper edge, in pixels.
    pub(super) top: usize,
    /// Where its mark stands or its arrow begins.
    pub(super) mark: usize,
    /// Its lower edge.
    pub(super) bottom: usize,
    pub(super) body: Body,
}

/// What a [`Row`] shows.
#[derive(Debug)]
pub(super) enum Body {
    /// Events that are all alike; mostly one.
    Events {
        first: usize,
        last: usize,
        count: usize,
        label: Label,
    },
    /// What is not drawn here.
    Fold(Fold),
}

/// A silence, and what was left out in it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Fold {
    /// How long nothing that is drawn happened, if that was long.
    pub(super) silent_ns: Option<u64>,
    /// Chatter, by name.
    pub(super) chatter: BTreeMap<String, usize>,
    /// Moments for which there is no room.
    pub(super) no_room: usize,
}

impl Fold {
    /// What it says in its row.
    pub(super) fn text(&self) -> String {
        let mut said = self
            .chatter
            .iter()
            .map(|(name, count)| format!("{count} × {name}"))
            .collect::<Vec<_>>();
        if self.no_room > 0 {
            said.push(super::text::counted(self.no_room, "moment"));
        }
        if said.is_empty() {
            "nothing happens".to_owned()
        } else {
            format!("folded: {}", said.join(", "))
        }
    }
}

/// How many moments are drawn how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) alone: usize,
    pub(super) in_runs: usize,
    pub(super) chatter: usize,
    pub(super) no_room: usize,
}

/// Rows, from above, and where each event of the story is.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) events: Vec<Event<'a>>,
    pub(super) rows: Vec<Row>,
    /// The row of each event; of a folded one, the row that stands where it would.
    pub(super) row_of: Vec<usize>,
    pub(super) counts: Counts,
    pub(super) height: usize,
}

/// Why an event has no row, if it has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Drawn,
    Chatter,
    NoRoom,
}

impl<'a> Rows<'a> {
    /// Of a story, in columns.
    pub(super) fn new(story: &'a Story, columns: &Columns, view: View) -> Self {
        let events = events(story);
        let fates = fates(&events, view);
        let silence_ns = silence_ns(&events, &fates);
        let mut rows = Self {
            row_of: vec![0; events.len()],
            rows: vec![],
            counts: Counts::default(),
            height: 0,
            events,
        };
        let mut fold = Fold::default();
        let mut drawn_ns = rows.events.first().map_or(0, |event| event.at_ns);
        for (place, fate) in fates.iter().enumerate() {
            let event = rows.events[place];
            match fate {
                Fate::Drawn => {}
                Fate::Chatter => {
                    if let Point::Moment(What::Message {
                        name, arrived_ns, ..
                    }) = event.point
                    {
                        let lost = arrived_ns.map_or(" (lost)", |_| "");
                        *fold.chatter.entry(format!("{name}{lost}")).or_default() += 1;
                    }
                    rows.counts.chatter += 1;
                    rows.row_of[place] = rows.rows.len();
                    continue;
                }
                Fate::NoRoom => {
                    if matches!(event.point, Point::Moment(_)) {
                        fold.no_room += 1;
                        rows.counts.no_room += 1;
                    }
                    rows.row_of[place] = rows.rows.len();
                    continue;
                }
            }
            let passed_ns = event.at_ns - drawn_ns;
            drawn_ns = event.at_ns;
            fold.silent_ns = (passed_ns >= silence_ns).then_some(passed_ns);
            let broken_here = rows.push_fold(&mut fold);
            if view == View::Short && !broken_here && rows.lengthens_run(place) {
                continue;
            }
            rows.rows.push(Row {
                top: 0,
                mark: 0,
                bottom: 0,
                body: Body::Events {
                    first: place,
                    last: place,
                    count: 1,
                    label: Label::default(),
                },
            });
            rows.row_of[place] = rows.rows.len() - 1;
        }
        if !fold.chatter.is_empty() || fold.no_room > 0 {
            fold.silent_ns = rows.events.last().map(|event| event.at_ns - drawn_ns);
            rows.push_fold(&mut fold);
        }
        rows.place(story, columns);
        rows
    }

    /// A row for what was left out, if it is worth one; chatter in a short pause is only counted.
    fn push_fold(&mut self, fold: &mut Fold) -> bool {
        let fold = std::mem::take(fold);
        if fold.silent_ns.is_none() && fold.no_room == 0 {
            return false;
        }
        self.rows.push(Row {
            top: 0,
            mark: 0,
            bottom: 0,
            body: Body::Fold(fold),
        });
        true
    }

    /// Whether the event at `place` is one more of the row above.
    fn lengthens_run(&mut self, place: usize) -> bool {
        let above = self.rows.len().wrapping_sub(1);
        let Some(Row {
            body: Body::Events { last, count, .. },
            ..
        }) = self.rows.last_mut()
        else {
            return false;
        };
        let alike = alike(self.events[*last].point, self.events[place].point);
        if alike {
            *last = place;
            *count += 1;
            self.row_of[place] = above;
        }
        alike
    }

    /// Labels the rows, and gives each its place.
    fn place(&mut self, story: &Story, columns: &Columns) {
        let mut top = 8;
        for row in &mut self.rows {
            row.top = top;
            match &mut row.body {
                Body::Fold(fold) => {
                    row.mark = top + 15;
                    row.bottom = top + 14 + 16 * label::lines_of_fold(fold, columns).len();
                }
                Body::Events {
                    first,
                    last,
                    count,
                    label,
                } => {
                    let (from, to) = (&self.events[*first], &self.events[*last]);
                    *label = label::label(story, columns, from, to, *count);
                    let text = 16 * label.lines.len();
                    match from.point {
                        Point::Moment(What::Message { .. }) => {
                            row.mark = top + text + 5;
                            row.bottom = row.mark + 17;
                        }
                        Point::Broken(_) => {
                            row.mark = top + 26;
                            row.bottom = top + text + 36;
                        }
                        Point::Moment(_) | Point::Healed { .. } => {
                            row.mark = top + 10;
                            row.bottom = top + text.max(16) + 8;
                        }
                    }
                    if matches!(from.point, Point::Moment(_)) {
                        if *count == 1 {
                            self.counts.alone += 1;
                        } else {
                            self.counts.in_runs += *count;
                        }
                    }
                }
            }
            top = row.bottom;
        }
        self.height = top + 16;
        // What was folded after the last row stands at its end.
        let last = self.rows.len().saturating_sub(1);
        for row in &mut self.row_of {
            *row = (*row).min(last);
        }
    }

    /// The row of an event.
    pub(super) fn row(&self, event: usize) -> Option<&Row> {
        self.rows.get(*self.row_of.get(event)?)
    }

    /// How far down something ends that began in row `from` and reached its aim at `arrived_ns`: above the first
    /// row of that time, which may be what it caused.
    pub(super) fn arrival(&self, from: usize, arrived_ns: u64) -> usize {
        let lowest = self.rows[from].mark + 10;
        let mut before_ns = 0;
        let mut fold_above = None;
        for row in &self.rows[from..] {
            match &row.body {
                Body::Fold(_) => fold_above = Some(row),
                Body::Events { first, last, .. } => {
                    let first_ns = self.events[*first].at_ns;
                    if row.top > self.rows[from].top && first_ns >= arrived_ns {
                        let near_end = first_ns - arrived_ns < arrived_ns.saturating_sub(before_ns);
                        let end = fold_above.filter(|_| !near_end).unwrap_or(row).top;
                        return end.saturating_sub(1).max(lowest);
                    }
                    before_ns = self.events[*last].at_ns;
                    fold_above = None;
                }
            }
        }
        self.rows
            .last()
            .map_or(lowest, |row| row.bottom - 1)
            .max(lowest)
    }
}

/// Whether two events are drawn once, with their number.
fn alike(one: Point<'_>, other: Point<'_>) -> bool {
    let (Point::Moment(one), Point::Moment(other)) = (one, other) else {
        return false;
    };
    match (one, other) {
        (
            What::Message {
                from,
                to,
                arrived_ns,
                name,
                ..
            },
            What::Message {
                from: from2,
                to: to2,
                arrived_ns: arrived2_ns,
                name: name2,
                ..
            },
        ) => {
            (from, to, name) == (from2, to2, name2) && arrived_ns.is_some() == arrived2_ns.is_some()
        }
        (What::Disk { .. }, What::Disk { .. }) => one == other,
        _ => false,
    }
}

/// What happens to each event: chatter is folded in the short view, and if the rest is too much for a page, that
/// which is nearest to the verdict is kept, faults and calls before messages.
fn fates(events: &[Event<'_>], view: View) -> Vec<Fate> {
    let mut fates = events
        .iter()
        .map(|event| match event.point {
            Point::Moment(What::Message { name, .. })
                if view == View::Short && CHATTER.contains(&name.as_str()) =>
            {
                Fate::Chatter
            }
            Point::Moment(_) | Point::Healed { .. } | Point::Broken(_) => Fate::Drawn,
        })
        .collect::<Vec<_>>();
    let end = events
        .iter()
        .position(|event| matches!(event.point, Point::Broken(_)))
        .unwrap_or(events.len());
    let mut room = MOMENTS_DRAWN_MAX;
    for (rank, room_left_for_others) in [(0, 0), (1, MOMENTS_DRAWN_MAX / 2), (2, 0)] {
        let mut near = (0..events.len())
            .filter(|place| fates[*place] == Fate::Drawn && rank_of(events[*place].point) == rank)
            .collect::<Vec<_>>();
        near.sort_by_key(|place| (place.abs_diff(end), *place));
        let kept = room.saturating_sub(room_left_for_others).min(near.len());
        for place in &near[kept..] {
            fates[*place] = Fate::NoRoom;
        }
        room -= kept;
    }
    fates
}

/// How little a page can do without it.
fn rank_of(point: Point<'_>) -> usize {
    match point {
        Point::Broken(_) => 0,
        Point::Healed { .. }
        | Point::Moment(
            What::Call { .. }
            | What::Answer { .. }
            | What::Fault { .. }
            | What::State { .. }
            | What::Note { .. },
        ) => 1,
        Point::Moment(What::Message { .. } | What::Disk { .. }) => 2,
    }
}

/// How long nothing must happen to be called a silence: far longer than this story's usual pause.
fn silence_ns(events: &[Event<'_>], fates: &[Fate]) -> u64 {
    let drawn = events
        .iter()
        .zip(fates)
        .filter(|(_, fate)| **fate == Fate::Drawn)
        .map(|(event, _)| event.at_ns)
        .collect::<Vec<_>>();
    let mut pauses = drawn
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|pause_ns| *pause_ns > 0)
        .collect::<Vec<_>>();
    pauses.sort_unstable();
    let usual_ns = pauses.get(pauses.len() / 2).copied().unwrap_or(0);
    usual_ns.saturating_mul(20).clamp(1_000_000, 500_000_000)
}
