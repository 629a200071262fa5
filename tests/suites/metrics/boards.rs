//! The dashboard and the alerts name metrics and labels that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tributary::metrics::catalog;
use tributary_tests::promql::named;

/// What Prometheus itself adds to whatever it scrapes.
const BY_PROMETHEUS: [&str; 2] = ["instance", "job"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn yaml(name: &str) -> Value {
    let text = fs::read_to_string(repository().join("docker").join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The labels of every series on the page of a node, and of `up`, which Prometheus makes for each target.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all = BTreeMap::from([("up".to_owned(), BTreeSet::from(BY_PROMETHEUS))]);
    for metric in catalog().into_iter().flat_map(|(_, metrics)| metrics) {
        for series in metric.series() {
            let bucket = series.ends_with("_bucket").then_some("le");
            let labels = metric.labels.iter().copied().chain(BY_PROMETHEUS).chain(bucket);
            all.insert(series, labels.collect());
        }
    }
    all
}

/// Checks an expression and returns the metrics in it and the labels that they have.
fn check(expression: &str) -> (Vec<String>, BTreeSet<&'static str>) {
    let known = series();
    let found = named(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert!(!found.selectors.is_empty(), "names no metric: {expression}");
    let mut labels = BTreeSet::new();
    for (metric, selected) in &found.selectors {
        let there = known.get(metric).unwrap_or_else(|| panic!("there is no metric {metric}: {expression}"));
        for label in selected {
            assert!(there.contains(label.as_str()), "{metric} has no label {label}: {expression}");
        }
        labels.extend(there);
    }
    for label in &found.grouped {
        assert!(labels.contains(label.as_str()), "nothing has the label {label}: {expression}");
    }
    (found.selectors.into_iter().map(|(metric, _)| metric).collect(), labels)
}

/// The words behind each `begin` in a text.
fn words<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    let word = |rest: &'a str| rest.trim_start().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
    text.split(begin).skip(1).filter_map(word)
}

#[test]
fn every_query_of_the_dashboard_names_metrics_and_labels_that_exist() {
    let text = fs::read_to_string(repository().join("docker/grafana/tributary.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let (mut shown, mut ids, mut places) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id of {title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is beyond the edge");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} is empty");
        for target in targets {
            let (metrics, labels) = check(target["expr"].as_str().unwrap());
            shown.extend(metrics);
            for label in words(target["legendFormat"].as_str().unwrap(), "{{") {
                assert!(labels.contains(label), "{title} has no label {label}");
            }
        }
    }
    assert!(shown.len() > 60, "the queries were read: {}", shown.len());
    for variable in board["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().unwrap();
        let Some(inside) = query.strip_prefix("label_values(") else { continue };
        let (metric, label) = inside.trim_end_matches(')').rsplit_once(", ").unwrap();
        let (_, labels) = check(metric);
        assert!(labels.contains(label), "{query}");
    }
}

#[test]
fn every_alert_names_metrics_that_exist_and_says_what_to_do() {
    let operations = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let groups = yaml("alerts.yml");
    let rules = groups["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        let (_, labels) = check(rule["expr"].as_str().unwrap());
        for text in ["summary", "description"].map(|key| rule["annotations"][key].as_str().unwrap()) {
            assert!(!text.is_empty(), "{name}");
            for label in words(text, "$labels.") {
                assert!(labels.contains(label), "{name} has no label {label}");
            }
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        assert!(
            operations.contains(&format!("| `{name}` |")),
            "docs/operations.md does not say what to do about {name}"
        );
    }
    for line in operations.lines().filter_map(|line| line.strip_prefix("| `Tributary")) {
        let name = format!("Tributary{}", line.split('`').next().unwrap());
        assert!(names.contains(name.as_str()), "docs/operations.md has an alert {name} that is not there");
    }
}

#[test]
fn prometheus_scrapes_where_nodes_listen_by_default_and_loads_the_alerts() {
    let config = yaml("prometheus.yml");
    assert_eq!(config["rule_files"], serde_json::json!(["alerts.yml"]));
    let scraped = &config["scrape_configs"][0];
    // What the alerts and the dashboard select by.
    assert_eq!(scraped["job_name"], "tributary");
    let text = "roles: [buyer]\nmetrics: {}\n";
    let overrides = tributary::config::Overrides::none();
    let by_default = tributary::config::Config::parse(text, "t.yaml", Path::new("/"), &overrides).unwrap();
    let listen = by_default.metrics.unwrap().listen.to_string();
    assert_eq!(scraped["static_configs"][0]["targets"], serde_json::json!([listen]));
}
