//! A strict reader of OpenMetrics text, written from its specification and not from the node's code.

use std::collections::{BTreeMap, BTreeSet};

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    /// Families by name.
    pub families: BTreeMap<String, Family>,
    /// Values, in the order of the page.
    pub samples: Vec<Sample>,
}

/// What the page says of a family.
#[derive(Debug, Default, Clone)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Empty where there is none.
    pub unit: String,
    /// For people.
    pub help: String,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name, suffixes included.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads a page.
///
/// # Errors
///
/// Names the line that breaks a rule of the format.
pub fn parse(text: &str) -> Result<Page, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("the page does not end with # EOF")?;
    let mut page = Page::default();
    let mut current = String::new();
    for line in body.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, value) =
                (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if !is_name(name) {
                return Err(wrong("not a name"));
            }
            if name != current {
                current = name.to_owned();
                if page.families.insert(current.clone(), Family::default()).is_some() {
                    return Err(wrong("a family that was there before"));
                }
            }
            let family = page.families.entry(current.clone()).or_default();
            match what {
                Some("TYPE") => family.kind = value.to_owned(),
                Some("UNIT") => family.unit = value.to_owned(),
                Some("HELP") => family.help = value.to_owned(),
                _ => return Err(wrong("not a descriptor")),
            }
            continue;
        }
        let sample = sample(line).ok_or_else(|| wrong("not a sample"))?;
        let family = page.families.get(&current).ok_or_else(|| wrong("a sample without a family"))?;
        let suffix = sample.name.strip_prefix(current.as_str()).ok_or_else(|| wrong("a sample of another family"))?;
        let good = match family.kind.as_str() {
            "counter" => suffix == "_total" && sample.value >= 0.0,
            "gauge" => suffix.is_empty(),
            "histogram" => matches!(suffix, "_bucket" | "_sum" | "_count"),
            "info" => suffix == "_info" && sample.value == 1.0,
            _ => false,
        };
        if !good {
            return Err(wrong(&format!("not a value of a {}", family.kind)));
        }
        page.samples.push(sample);
    }
    page.check()?;
    Ok(page)
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, more) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), more.char_indices());
            let after = loop {
                match chars.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        escaped @ ('"' | '\\') => escaped,
                        _ => return None,
                    }),
                    (_, c) => value.push(c),
                }
            };
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = &more[after..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| Sample { name: name.to_owned(), labels, value })
}

impl Page {
    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for Sample { name, labels, .. } in &self.samples {
            if !seen.insert((name, labels)) {
                return Err(format!("twice on the page: {name} {labels:?}"));
            }
        }
        for (name, family) in &self.families {
            if !family.unit.is_empty() && !name.ends_with(&format!("_{}", family.unit)) {
                return Err(format!("{name} does not end with its unit {}", family.unit));
            }
            if family.kind == "histogram" {
                self.check_histogram(name)?;
            }
        }
        Ok(())
    }

    /// Buckets are cumulative, in order, and the last one is the count.
    fn check_histogram(&self, name: &str) -> Result<(), String> {
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").ok_or_else(|| format!("a bucket of {name} without a bound"))?;
            let bound = bound.parse().map_err(|_| format!("{name} has the bound {bound}"))?;
            series.entry(labels).or_default().push((bound, sample.value));
        }
        for (labels, buckets) in series {
            let named: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let count = self.find(&format!("{name}_count"), &named);
            let in_order = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            if !in_order || buckets.last() != count.map(|count| (f64::INFINITY, count)).as_ref() {
                return Err(format!("the histogram {name} {labels:?} is wrong: {buckets:?}, count {count:?}"));
            }
        }
        Ok(())
    }

    /// The value with exactly these labels.
    #[must_use]
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|sample| sample.name == name && sample.labels == labels).map(|sample| sample.value)
    }

    /// As [`Page::find`], for a value that must be there.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("{name} {labels:?} is not on the page"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = parse(
            "# HELP a_bytes What.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"q\\\"\\\\\\n,}\",y=\"\"} 7\n\
             # TYPE h histogram\nh_sum 1.5\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n",
        );
        let page = page.unwrap();
        assert_eq!(page.value("a_bytes_total", &[("x", "q\"\\\n,}"), ("y", "")]), 7.0);
        assert_eq!(page.value("h_bucket", &[("le", "+Inf")]), 2.0);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for bad in [
            "",
            "# TYPE a gauge\na 1\n",
            "a 1\n# EOF\n",
            "# TYPE a counter\na 1\n# EOF\n",
            "# TYPE a counter\na_total -1\n# EOF\n",
            "# TYPE a gauge\nb 1\n# EOF\n",
            "# TYPE a gauge\na 1\na 2\n# EOF\n",
            "# TYPE a gauge\na{x=\"1} 1\n# EOF\n",
            "# TYPE a gauge\na x\n# EOF\n",
            "# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n",
            "# TYPE a gauge\n# TYPE b gauge\n# TYPE a gauge\n# EOF\n",
            "# TYPE h histogram\nh_sum 1\nh_count 2\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 1\n# EOF\n",
            "# TYPE h histogram\nh_sum 1\nh_count 3\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 2\n# EOF\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
