//! The front page: one document with its styles and its script in it, asking for nothing but `/status.json`.
use serde_json::Value;

const PAGE: &str = include_str!("page.html");
/// Where the state as of the request stands in the page, so that it shows something before it asks.
const PLACE: &str = "/*STATE*/null";

/// The page, showing `state` until it has newer.
pub(super) fn render(state: &Value) -> String {
    // Within a script element only `</script` and `<!--` could end it: no `<` is left.
    let state = state.to_string().replace('<', "\\u003c");
    PAGE.replacen(PLACE, &state, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rack_named_like_a_script_does_not_become_one() {
        let page = render(&json!({ "rack": "</script><script>alert(1)</script>" }));
        assert!(!page.contains("alert(1)</script>"));
        assert_eq!(page.matches("</script").count(), 1);
        assert!(page.contains("\\u003c/script>"));
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        assert!(PAGE.contains(PLACE));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
