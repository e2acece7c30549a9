//! How single values are written: addresses, durations, counts.
use kfs_core::limits::REPLICATION_MAX;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

/// The longest name of a rack, in bytes.
const RACK_BYTES_MAX: usize = 64;

/// A host, by name or address, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Its address. Of a name with several, the first IPv4 one, so that `localhost` is 127.0.0.1 everywhere.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let all: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let chosen = all.iter().find(|addr| addr.is_ipv4()).or(all.first());
        chosen
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }
}

impl FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("'{text}' is not HOST:PORT, such as 127.0.0.1:20000 or [::1]:20000");
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty()
            || (bare.is_none() && host.contains(':'))
            || host.contains(char::is_whitespace)
        {
            return Err(shape());
        }
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(shape());
        }
        let port = port
            .parse()
            .map_err(|_| format!("'{port}' is not a port: the highest is 65535"))?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `500ms`, `60s`, `5m`, `1h`, `2d`, and sums of them such as `1h30m`.
///
/// # Errors
/// If the text is none of these.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let shape = || format!("'{text}' is not a duration such as 500ms, 60s, 5m or 1h");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| shape())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(shape()),
        };
        rest = &rest[letters..];
        let part = count.checked_mul(unit_ms).map(Duration::from_millis);
        sum = part
            .and_then(|part| sum.checked_add(part))
            .ok_or_else(|| format!("'{text}' is too long a time"))?;
    }
    if text.is_empty() {
        Err(shape())
    } else {
        Ok(sum)
    }
}

/// Writes what [`parse_duration`] reads.
pub(super) fn duration(time: Duration) -> String {
    let mut left = time.as_millis();
    let mut text = String::new();
    for (unit, unit_ms) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ] {
        if left >= unit_ms {
            text.push_str(&format!("{}{unit}", left / unit_ms));
            left %= unit_ms;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Writes what [`parse_size_or_zero`] reads.
pub(super) fn bytes(count: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, shift): &&(&str, u32)| count > 0 && count.trailing_zeros() >= *shift;
    match units.iter().find(fits) {
        Some((unit, shift)) => format!("{}{unit}", count >> shift),
        None => count.to_string(),
    }
}

/// Reads `1048576`, `512KiB`, `256MiB`, `1GiB`; also `256M`.
///
/// # Errors
/// If the text is none of these, or nothing.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let size = parse_size_or_zero(text)?;
    if size == 0 {
        return Err(format!("'{text}' is nothing: at least one byte is meant"));
    }
    Ok(size)
}

pub(super) fn parse_size_or_zero(text: &str) -> Result<u64, String> {
    let shape = || format!("'{text}' is not a number of bytes such as 64KiB, 256MiB or 1GiB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 = text[..digits].parse().map_err(|_| shape())?;
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(shape()),
    };
    count.checked_mul(1 << shift).ok_or_else(shape)
}

pub(super) fn parse_replicas(text: &str) -> Result<u8, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=REPLICATION_MAX).contains(count));
    count.ok_or_else(|| format!("'{text}' is not a number of replicas from 1 to {REPLICATION_MAX}"))
}

pub(super) fn parse_rack(text: &str) -> Result<String, String> {
    if text.len() > RACK_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "a rack has a name of at most {RACK_BYTES_MAX} bytes, without control characters"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units_and_nothing_else_is() {
        assert_eq!(parse_size("4096"), Ok(4_096));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("3G"), Ok(3 << 30));
        for wrong in ["", "0", "MiB", "-1", "1.5GiB", "1Gb", "99999999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for ms in [0, 1, 999, 1_000, 60_000, 5_400_000, 90_061_001] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_duration(&duration(time)), Ok(time), "{ms}");
        }
        assert_eq!(duration(Duration::from_secs(3_600)), "1h");
        for count in [0, 1, 1_023, 1_024, 3 << 20, (1 << 30) + 1_024, 7 << 40] {
            assert_eq!(parse_size_or_zero(&bytes(count)), Ok(count));
        }
        assert_eq!(bytes(512 << 20), "512MiB");
    }

    #[test]
    fn durations_are_read_with_their_units_and_never_without() {
        let ms = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("60s"), Ok(60_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("0s"), Ok(0));
        for wrong in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1S",
            "1y",
            "99999999999999999999s",
            "18446744073709551615d",
            "1é",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let there_and_back = |text: &str| text.parse::<HostPort>().map(|addr| addr.to_string());
        for right in [
            "127.0.0.1:0",
            "localhost:20000",
            "[::1]:22000",
            "meta.example:65535",
        ] {
            assert_eq!(there_and_back(right), Ok(right.to_owned()));
        }
        for wrong in [
            "",
            ":1",
            "host",
            "host:",
            "host:x",
            "host:+1",
            "host:65536",
            "::1:20000",
            "a b:1",
        ] {
            assert!(there_and_back(wrong).is_err(), "{wrong:?}");
        }
        let localhost = "localhost:7"
            .parse::<HostPort>()
            .unwrap()
            .resolve()
            .unwrap();
        assert_eq!(localhost, "127.0.0.1:7".parse().unwrap());
    }
}
