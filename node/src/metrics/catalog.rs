//! What metrics there are.

use super::page;

/// A family of metrics: one name, and a value for each combination of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name without what the type adds to the names of its values.
    pub family: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What is counted or measured; `seconds` and `bytes` are also the end of the name.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The type of a metric, as in OpenMetrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, with a sum.
    Histogram,
    /// A constant 1 whose labels say something.
    Info,
}

impl Metric {
    /// The name under which its values are found, without the suffixes of a histogram.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.family),
            Kind::Info => format!("{}_info", self.family),
            Kind::Gauge | Kind::Histogram => self.family.to_owned(),
        }
    }

    /// The names that its values have on the page.
    #[must_use]
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.family)).to_vec(),
            _ => vec![self.name()],
        }
    }
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// All metrics, by group, in the order of the page. The heading of each group is that of `docs/metrics.md`.
#[must_use]
pub fn catalog() -> Vec<(&'static str, &'static [Metric])> {
    page::GROUPS.iter().map(|group| (group.heading, group.metrics)).collect()
}

/// Defines the metrics of a group, and their list.
macro_rules! metrics {
    ($($name:ident = $kind:ident $family:literal in $unit:literal by [$($label:literal),*]: $help:literal;)*) => {
        $(const $name: $crate::metrics::Metric = $crate::metrics::Metric {
            family: $family,
            kind: $crate::metrics::Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)*
        /// The metrics of this group.
        pub(super) const METRICS: &[$crate::metrics::Metric] = &[$($name),*];
    };
}
pub(super) use metrics;
