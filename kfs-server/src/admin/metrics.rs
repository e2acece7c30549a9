//! `/metrics`: numbers for Prometheus, from a registry that lives as long as one scrape.
//!
//! No process-global recorder: several servers may run in one process.
use crate::observed::Counts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// What [`encode`] writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric with its samples.
#[derive(Debug)]
pub(crate) struct Family {
    name: &'static str,
    about: &'static str,
    kind: Kind,
    samples: Vec<(Labels, u64)>,
}

type Labels = Vec<(&'static str, String)>;

/// Whether a number may fall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It may.
    Gauge,
    /// It only grows.
    Counter,
}

impl Family {
    /// Without samples yet.
    pub(crate) fn new(name: &'static str, about: &'static str, kind: Kind) -> Self {
        Self {
            name,
            about,
            kind,
            samples: Vec::new(),
        }
    }
    /// One number without labels.
    pub(crate) fn single(name: &'static str, about: &'static str, kind: Kind, value: u64) -> Self {
        Self {
            samples: vec![(Labels::new(), value)],
            ..Self::new(name, about, kind)
        }
    }
    /// Adds a sample.
    pub(crate) fn push(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.samples.push((
            labels
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
            value,
        ));
    }
}

/// What passed in and out of the machine.
pub(super) fn counted(counts: &Counts) -> Vec<Family> {
    let by_type = |name, about, of: &mut dyn Iterator<Item = (&'static str, u64)>| {
        let mut family = Family::new(name, about, Kind::Counter);
        for (message, count) in of {
            family.push(&[("type", message)], count);
        }
        family
    };
    let mut families = vec![
        by_type(
            "messages_received",
            "Messages received",
            &mut counts.received(),
        ),
        by_type("messages_sent", "Messages sent", &mut counts.sent()),
    ];
    families.extend(
        [
            (
                "body_received_bytes",
                "Bytes of bodies received",
                &counts.body_bytes_received,
            ),
            (
                "body_sent_bytes",
                "Bytes of bodies sent",
                &counts.body_bytes_sent,
            ),
            ("links_opened", "Links opened", &counts.links_opened),
            ("links_closed", "Links closed", &counts.links_closed),
            (
                "links_malformed",
                "Links closed for breaking the protocol",
                &counts.links_malformed,
            ),
            ("disk_reads", "Disk reads", &counts.disk_reads),
            (
                "disk_read_bytes",
                "Bytes of disk reads",
                &counts.disk_bytes_read,
            ),
            ("disk_writes", "Disk writes", &counts.disk_writes),
            (
                "disk_written_bytes",
                "Bytes of disk writes",
                &counts.disk_bytes_written,
            ),
            ("disk_syncs", "Disk syncs", &counts.disk_syncs),
            (
                "disk_errors",
                "Disk operations that failed",
                &counts.disk_errors,
            ),
        ]
        .map(|(name, about, count)| Family::single(name, about, Kind::Counter, count.get())),
    );
    families
}

/// All families in the OpenMetrics text format, each name with `kfs_` in front.
pub(super) fn encode(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("kfs");
    registry.register_collector(Box::new(Scrape(families)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape(Vec<Family>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.about, None, kind)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    write(&mut metric, family.kind, *value)?;
                } else {
                    write(&mut metric.encode_family(labels)?, family.kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Gauge => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_counters_named_as_such() {
        let mut servers = Family::new("server_up", "Up", Kind::Gauge);
        servers.push(&[("rack", "a\"b\\c\nd")], 1);
        let text = encode(vec![
            servers,
            Family::single("syncs", "Syncs", Kind::Counter, 7),
        ])
        .unwrap();
        assert!(
            text.contains(r#"kfs_server_up{rack="a\"b\\c\nd"} 1"#),
            "{text}"
        );
        assert!(text.contains("kfs_syncs_total 7"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
