//! The promises in words, as `docs/semantics.md` states them: what a person reads beside `D5`.
//!
//! The page is part of the program, so that there is one place in which a promise is worded.

/// Where promises are tables: `| D5 | words | now |`.
const SEMANTICS: &str = include_str!("../../../docs/semantics.md");

/// Each promise that `named` names (`D5`, or `D3, D5`) and its words, if the page has them.
#[must_use]
pub(super) fn in_words(named: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = vec![];
    for code in named.split(|c: char| !c.is_ascii_alphanumeric()) {
        if !code.is_empty()
            && found.iter().all(|(other, _)| other != code)
            && let Some(words) = words(code)
        {
            found.push((code.to_owned(), words));
        }
    }
    found
}

fn words(code: &str) -> Option<String> {
    SEMANTICS.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        if cells.next()? != code {
            return None;
        }
        let words = cells.next()?.replace("**", "").replace('`', "");
        (!words.is_empty()).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_the_page_no_longer_words() {
        for code in ["N1", "N2", "N3", "N4", "N5", "D1", "D2", "D3", "D4", "D5"] {
            let found = in_words(code);
            assert_eq!(found.len(), 1, "{code}");
            assert!(found[0].1.len() > 20, "{code}: {}", found[0].1);
        }
        assert_eq!(in_words("D3, D5 and D3").len(), 2);
        assert_eq!(in_words("no machine may do this"), []);
    }
}
