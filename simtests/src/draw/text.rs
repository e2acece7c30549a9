//! Text as a picture needs it: escaped, wrapped to columns, and times and spans as people read them.
//!
//! Whatever a story says may be any text: nothing leaves here that a browser could take for markup, that could
//! turn the direction of what stands beside it, or that is without bound.

/// Characters of one text that are shown; what is longer says how much was left out.
const SHOWN_CHARS_MAX: usize = 600;

/// `text` with every control character spelled out, tabs as spaces, and no longer than a person will read.
#[must_use]
pub(super) fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            _ if c.is_control() || turns_direction(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    let left_out = text.chars().skip(SHOWN_CHARS_MAX).count();
    if left_out > 0 {
        out.push_str(&format!("… ({left_out} characters more)"));
    }
    out
}

/// `text`, cleaned, so that it can stand in an element or in a quoted attribute.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Marks that make a browser show what follows them in another order.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, cleaned and cut into lines of at most `columns` columns: between words where it can, else inside.
#[must_use]
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let mut lines = vec![];
    for paragraph in clean(text).split('\n') {
        let (mut line, mut used) = (String::new(), 0);
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            let width = word.chars().map(columns_of).sum::<usize>();
            if used > 0 && used + 1 + width > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            for c in word.chars() {
                if used + columns_of(c) > columns {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push(c);
                used += columns_of(c);
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// Wide scripts and pictures take two columns.
fn columns_of(c: char) -> usize {
    if c >= '\u{1100}' && !('\u{2000}'..='\u{2bff}').contains(&c) {
        2
    } else {
        1
    }
}

/// A time of the simulation, in seconds with microseconds.
#[must_use]
pub(super) fn seconds(at_ns: u64) -> String {
    format!("{}.{:06}", at_ns / 1_000_000_000, at_ns / 1_000 % 1_000_000)
}

/// A span of time in the unit that makes it short.
#[must_use]
pub(super) fn span(ns: u64) -> String {
    let tenths = |unit_ns: u64, name: &str| {
        let (whole, tenth) = (ns / unit_ns, ns % unit_ns * 10 / unit_ns);
        if whole >= 10 || tenth == 0 {
            format!("{whole} {name}")
        } else {
            format!("{whole}.{tenth} {name}")
        }
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => tenths(1_000, "µs"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "ms"),
        1_000_000_000..600_000_000_000 => tenths(1_000_000_000, "s"),
        _ => tenths(60_000_000_000, "min"),
    }
}

/// `count` things, with its noun in the right number.
#[must_use]
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_controls_in_a_text() {
        assert_eq!(
            escape("<script>&\"'\u{0}\u{202e}"),
            "&lt;script&gt;&amp;&quot;&#39;\\u{0}\\u{202e}"
        );
        assert!(escape(&"x".repeat(5000)).ends_with("xx… (4400 characters more)"));
    }

    #[test]
    fn a_word_longer_than_the_line() {
        assert_eq!(
            wrap("one abcdefghijkl two\nthree", 8),
            ["one", "abcdefgh", "ijkl two", "three"]
        );
        assert_eq!(wrap("", 8), Vec::<String>::new());
        assert_eq!(wrap("名前名前名前", 8), ["名前名前", "名前"]);
    }

    #[test]
    fn times_at_the_edges_of_units() {
        assert_eq!(seconds(12_345_678_901), "12.345678");
        assert_eq!(span(999), "999 ns");
        assert_eq!(span(1_500), "1.5 µs");
        assert_eq!(span(4_200_000_000), "4.2 s");
        assert_eq!(span(42_900_000_000), "42 s");
        assert_eq!(span(u64::MAX), "307445734 min");
    }
}
