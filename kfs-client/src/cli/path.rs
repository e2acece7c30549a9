//! Paths of the file system as people write them: `/a/b` or `kfs://host:port/a/b`; any bytes.
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A path of the file system, and the meta server it names, if it names one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemotePath {
    /// `host:port` of `kfs://host:port/…`.
    pub(crate) meta: Option<String>,
    /// Names between single slashes; `/` is the root.
    path: Vec<u8>,
}

impl RemotePath {
    /// Reads an argument. Repeated and trailing slashes mean nothing.
    pub(crate) fn parse(argument: &OsStr) -> Result<Self, String> {
        let bytes = argument.as_bytes();
        let (meta, path) = match bytes.strip_prefix(b"kfs://") {
            None => (None, bytes),
            Some(rest) => {
                let slash = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
                let host = std::str::from_utf8(&rest[..slash])
                    .ok()
                    .filter(|host| host.contains(':'));
                let host =
                    host.ok_or("after kfs:// stands HOST:PORT, as in kfs://127.0.0.1:20000/a/b")?;
                (
                    Some(host.to_owned()),
                    if slash == rest.len() {
                        &b"/"[..]
                    } else {
                        &rest[slash..]
                    },
                )
            }
        };
        if !path.starts_with(b"/") {
            return Err(
                "a path of the file system begins with '/' or with kfs://HOST:PORT/".into(),
            );
        }
        let mut clean = Vec::with_capacity(path.len());
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            clean.push(b'/');
            clean.extend_from_slice(name);
        }
        if clean.is_empty() {
            clean.push(b'/');
        }
        Ok(Self { meta, path: clean })
    }

    /// As the library takes it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.path
    }

    pub(crate) fn is_root(&self) -> bool {
        self.path == b"/"
    }

    /// The last name; none for the root.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.path
            .rsplit(|b| *b == b'/')
            .next()
            .filter(|name| !name.is_empty())
    }

    /// The directory it is in; the root for the root.
    #[must_use]
    pub(crate) fn parent(&self) -> Self {
        let slash = self
            .path
            .iter()
            .rposition(|b| *b == b'/')
            .expect("a path begins with a slash");
        Self {
            meta: self.meta.clone(),
            path: self.path[..slash.max(1)].to_vec(),
        }
    }

    /// What has this name in this directory.
    #[must_use]
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        assert!(
            !name.is_empty() && !name.contains(&b'/'),
            "one name is joined at a time"
        );
        let mut path = if self.is_root() {
            Vec::new()
        } else {
            self.path.clone()
        };
        path.push(b'/');
        path.extend_from_slice(name);
        Self {
            meta: self.meta.clone(),
            path,
        }
    }

    /// Whether it is that one, or something in it.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        let rest = self.path.strip_prefix(&other.path[..]);
        other.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// What stands to `to` as this one does to `from`, which it is below.
    #[must_use]
    pub(crate) fn moved(&self, from: &Self, to: &Self) -> Self {
        assert!(self.is_below(from), "only what is below is moved along");
        let names = self.path[from.path.len()..].split(|b| *b == b'/');
        names
            .filter(|name| !name.is_empty())
            .fold(to.clone(), |path, name| path.join(name))
    }

    /// For a message or a terminal.
    pub(crate) fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// Bytes of a name or path for a message or a terminal: what cannot be printed is escaped, so that a name
/// cannot steer the terminal.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A name of this machine from the name in the file system.
pub(crate) fn local_name(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RemotePath, String> {
        RemotePath::parse(OsStr::new(text))
    }

    #[test]
    fn slashes_that_mean_nothing_are_dropped() {
        for (text, path) in [("/", "/"), ("//", "/"), ("/a", "/a"), ("//a///b/", "/a/b")] {
            assert_eq!(parse(text).unwrap().bytes(), path.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_url_names_the_meta_server_and_a_bare_one_the_root() {
        let path = parse("kfs://127.0.0.1:20000/a/b").unwrap();
        assert_eq!(
            (path.meta.as_deref(), path.bytes()),
            (Some("127.0.0.1:20000"), &b"/a/b"[..])
        );
        assert!(parse("kfs://[::1]:20000").unwrap().is_root());
        assert!(parse("kfs://nowhere/a").unwrap_err().contains("HOST:PORT"));
        assert!(parse("kfs:///a").is_err());
    }

    #[test]
    fn a_relative_path_is_refused_not_guessed() {
        for text in ["", "a/b", "./a", "file:///a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parents_names_and_joins_agree() {
        let path = parse("/a/b").unwrap();
        assert_eq!(path.name(), Some(&b"b"[..]));
        assert_eq!(path.parent().bytes(), b"/a");
        assert_eq!(path.parent().parent().bytes(), b"/");
        assert_eq!(path.parent().join(b"b"), path);
        assert_eq!(parse("/").unwrap().join(b"x").bytes(), b"/x");
        assert_eq!(parse("/").unwrap().name(), None);
    }

    #[test]
    fn what_is_below_moves_along_and_what_only_looks_like_it_is_not_below() {
        let (a, ab, abc) = (parse("/a"), parse("/a/b"), parse("/a/bc"));
        let (a, ab, abc, root) = (a.unwrap(), ab.unwrap(), abc.unwrap(), parse("/").unwrap());
        assert!(ab.is_below(&a) && a.is_below(&a) && a.is_below(&root) && root.is_below(&root));
        assert!(!abc.is_below(&ab) && !a.is_below(&ab) && !root.is_below(&a));
        assert_eq!(ab.moved(&a, &abc).bytes(), b"/a/bc/b");
        assert_eq!(ab.moved(&root, &abc).bytes(), b"/a/bc/a/b");
        assert_eq!(ab.moved(&ab, &abc), abc);
        assert_eq!(ab.moved(&a, &root).bytes(), b"/b");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(shown(b"a\x1b[2J\xff\n"), "a\\u{1b}[2J\\xff\\n");
        assert_eq!(shown("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
    }
}
