//! Patterns of names, as shells have them: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before what means itself.
//!
//! Names are any bytes: what is UTF-8 is compared character by character, what is not byte by byte.

/// What a name has to look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glob(Vec<Token>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// `*`: any number of any units.
    Any,
    /// `?`
    One,
    Unit(u32),
    Set {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

/// Bytes that are not UTF-8 are units above all characters.
const BYTES_FROM: u32 = 0x11_0000;

impl Glob {
    /// Reads a pattern.
    pub(crate) fn parse(pattern: &[u8]) -> Result<Self, String> {
        let units = units(pattern);
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(unit) = units.get(at) {
            at += 1;
            match char::from_u32(*unit) {
                Some('*') => tokens.push(Token::Any),
                Some('?') => tokens.push(Token::One),
                Some('\\') => {
                    let escaped = units.get(at).ok_or("a pattern ends with '\\'")?;
                    at += 1;
                    tokens.push(Token::Unit(*escaped));
                }
                Some('[') => {
                    let (set, len) = set(&units[at..])?;
                    at += len;
                    tokens.push(set);
                }
                _ => tokens.push(Token::Unit(*unit)),
            }
        }
        Ok(Self(tokens))
    }

    /// Whether a whole name looks like it.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let (tokens, name) = (&self.0, units(name));
        let (mut token, mut at) = (0, 0);
        // The last `*` and how far it reaches: only that one ever has to give way.
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match tokens.get(token) {
                Some(Token::Any) => {
                    star = Some((token, at));
                    token += 1;
                }
                Some(expected) if expected.takes(name[at]) => {
                    token += 1;
                    at += 1;
                }
                _ => {
                    let Some((any, reach)) = star else {
                        return false;
                    };
                    star = Some((any, reach + 1));
                    (token, at) = (any + 1, reach + 1);
                }
            }
        }
        tokens[token..].iter().all(|rest| *rest == Token::Any)
    }
}

impl Token {
    fn takes(&self, unit: u32) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Unit(own) => *own == unit,
            Self::Set { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&unit))
                    != *negated
            }
        }
    }
}

/// What stands behind a `[`, and how many units that are, with the `]`.
fn set(units: &[u32]) -> Result<(Token, usize), String> {
    let is = |at: usize, c: char| units.get(at) == Some(&u32::from(c));
    let negated = is(0, '!') || is(0, '^');
    let begin = usize::from(negated);
    let mut ranges = Vec::new();
    let mut at = begin;
    loop {
        // The first one may be a `]` that means itself.
        if is(at, ']') && at > begin {
            return Ok((Token::Set { negated, ranges }, at + 1));
        }
        let from = *units.get(at).ok_or("a '[' in a pattern has no ']'")?;
        at += 1;
        let to = if is(at, '-') && !is(at + 1, ']') {
            let to = *units.get(at + 1).ok_or("a '[' in a pattern has no ']'")?;
            at += 2;
            to
        } else {
            from
        };
        if to < from {
            return Err("a range in a pattern ends before it begins".into());
        }
        ranges.push((from, to));
    }
}

fn units(bytes: &[u8]) -> Vec<u32> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        let invalid = chunk.invalid().iter();
        units.extend(invalid.map(|byte| BYTES_FROM + u32::from(*byte)));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        Glob::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_pattern_is_of_the_whole_name_and_of_any_bytes() {
        for (pattern, name, does) in [
            (&b"*"[..], &b""[..], true),
            (b"*", b".hidden", true),
            (b"", b"", true),
            (b"", b"a", false),
            (b"a", b"ab", false),
            (b"*.log", b"a.log", true),
            (b"*.log", b"a.log.1", false),
            (b"a*b*c", b"aXbYbZc", true),
            (b"a*b*c", b"aXbYbZ", false),
            (b"?", "\u{fc}".as_bytes(), true),
            (b"?", b"\xff", true),
            (b"?", b"", false),
            (b"[a-c]x", b"bx", true),
            (b"[!a-c]x", b"bx", false),
            (b"[^a-c]x", b"dx", true),
            (b"[]]", b"]", true),
            (b"[a-]", b"-", true),
            (b"\\*", b"*", true),
            (b"\\*", b"a", false),
            (b"\xff*", b"\xffa", true),
            (b"\xff*", b"\xfea", false),
            (b"A", b"a", false),
        ] {
            assert_eq!(matches(pattern, name), does, "{pattern:?} of {name:?}");
        }
    }

    #[test]
    fn a_pattern_that_takes_long_in_the_simple_way_takes_no_time() {
        assert!(!matches(&b"*a".repeat(60), &b"a".repeat(254)[..59]));
        assert!(!matches(
            &[b"*a".repeat(100), b"b".to_vec()].concat(),
            &b"a".repeat(255)
        ));
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_refused() {
        for pattern in [&b"["[..], b"[a", b"[]", b"[z-a]", b"a\\", b"[a-"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern:?}");
        }
    }
}
