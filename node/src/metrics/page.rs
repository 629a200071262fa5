//! The page of metrics: OpenMetrics text, from a snapshot of the node.

mod access;
mod feeds;
mod mirror;
mod network;
mod node;
mod pulls;
mod sources;
mod store;
mod streams;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{Kind, Metric};
use crate::{
    durations::DurationsReport,
    service::{Timings, health::Health, status::NodeStatus},
};

/// Values of a label that comes from outside this node's own streams; what is beyond is added up under [`OTHERS`].
const MAX_NAMED: usize = 150;
/// The label of what is beyond.
const OTHERS: &str = "other";

/// What the page is made of.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) status: NodeStatus,
    pub(super) timings: Timings,
    pub(super) health: Health,
}

/// Metrics about one part, and what writes them.
pub(super) struct Group {
    /// The heading in the documentation.
    pub(super) heading: &'static str,
    pub(super) metrics: &'static [Metric],
    write: fn(&Snapshot, &mut Page<'_>) -> fmt::Result,
}

/// All groups, in the order of the page.
pub(super) const GROUPS: &[Group] = &[
    Group { heading: "Node", metrics: node::METRICS, write: node::write },
    Group { heading: "Streams", metrics: streams::METRICS, write: streams::write },
    Group { heading: "Live sources", metrics: sources::METRICS, write: sources::write },
    Group { heading: "Store", metrics: store::METRICS, write: store::write },
    Group { heading: "Access", metrics: access::METRICS, write: access::write },
    Group { heading: "Network", metrics: network::METRICS, write: network::write },
    Group { heading: "Pulls", metrics: pulls::METRICS, write: pulls::write },
    Group { heading: "Followed feeds", metrics: feeds::METRICS, write: feeds::write },
    Group { heading: "Mirror", metrics: mirror::METRICS, write: mirror::write },
];

/// Writes the page.
pub(super) fn write(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::with_capacity(64 << 10);
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        GROUPS.iter().try_for_each(|group| (group.write)(self, &mut page))
    }
}

/// A page being written.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

/// A value of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
    Durations(DurationsReport),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<DurationsReport> for Value {
    fn from(value: DurationsReport) -> Self {
        Self::Durations(value)
    }
}

impl Page<'_> {
    /// Writes a metric without labels.
    fn one(&mut self, metric: &Metric, value: impl Into<Value>) -> fmt::Result {
        self.each(metric, [([], value)])
    }

    /// Writes a metric without labels, where there is a value.
    fn maybe(&mut self, metric: &Metric, value: Option<impl Into<Value>>) -> fmt::Result {
        self.each(metric, value.map(|value| ([], value)))
    }

    /// Writes a metric with the values of its labels, in their order. Nothing at all is written without rows.
    fn each<'a, const N: usize, V: Into<Value>>(
        &mut self,
        metric: &Metric,
        rows: impl IntoIterator<Item = ([&'a str; N], V)>,
    ) -> fmt::Result {
        debug_assert_eq!(metric.labels.len(), N, "labels of {}", metric.family);
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        // The encoder puts the unit behind the name itself.
        let unit = match metric.unit {
            "seconds" => Some(Unit::Seconds),
            "bytes" => Some(Unit::Bytes),
            _ => None,
        };
        let end = unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let stem = metric.family.strip_suffix(end.as_str()).unwrap_or(metric.family);
        let help = metric.help.strip_suffix('.').unwrap_or(metric.help);
        let mut encoder = self.encoder.encode_descriptor(stem, help, unit.as_ref(), kind)?;
        for (values, value) in rows {
            let labels: Vec<(&str, &str)> = metric.labels.iter().copied().zip(values).collect();
            if metric.kind == Kind::Info {
                encoder.encode_info(&labels)?;
            } else if labels.is_empty() {
                write_value(&mut encoder, metric.kind, value.into())?;
            } else {
                write_value(&mut encoder.encode_family(&labels)?, metric.kind, value.into())?;
            }
        }
        Ok(())
    }
}

fn write_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (value, kind) {
        (Value::Whole(value), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (Value::Real(value), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (Value::Whole(value), _) => encoder.encode_gauge(&value),
        (Value::Real(value), _) => encoder.encode_gauge(&value),
        (Value::Durations(report), _) => {
            let buckets: Vec<(f64, u64)> = report.bounded().collect();
            encoder.encode_histogram::<NoLabelSet>(report.sum_s, report.count(), &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests;
