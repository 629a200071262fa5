//! Scenario files: a testnet, what goes wrong in it and when, and how it must end. The same YAML as the configuration, read with the same
//! strictness; `examples/scenarios/market.yaml` describes every key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    error::ConfigError,
    read_text,
    reader::{Field, Section},
    resolve, yaml,
};

const MAX_FAULTS: usize = 1000;
const MAX_GROUPS: usize = 100;
const MAX_MEMBERS: usize = 300;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// See `expect.catch_up`.
const CATCH_UP: Duration = Duration::from_secs(120);

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What the report calls it.
    pub name: String,
    /// Machines, 1 to 100.
    pub machines: u16,
    /// Buyers, at most 200.
    pub buyers: u16,
    /// Mirrors, at most 16; each keeps the feeds of all machines.
    pub mirrors: u16,
    /// Whether each node has a network of its own.
    pub namespaces: bool,
    /// What the machines are fed with.
    pub feed: ScenarioFeed,
    /// How long it runs.
    pub duration: Duration,
    /// What goes wrong, in order of time.
    pub faults: Vec<Fault>,
    /// How it must end.
    pub expect: Expectations,
}

/// What the machines are fed with.
#[derive(Debug, Clone, PartialEq)]
pub enum ScenarioFeed {
    /// A recording, over and over.
    Recording {
        /// The recording; `None` is the one that comes with the program.
        path: Option<PathBuf>,
        /// How many times as fast as it was recorded.
        speed: f64,
    },
    /// Made-up packages.
    Packages {
        /// Bytes of each.
        bytes: u32,
        /// From one to the next.
        every: Duration,
    },
}

/// Something that is done to a testnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub what: FaultKind,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// A node is ended with SIGKILL.
    Kill(String),
    /// A node is started again.
    Restart(String),
    /// Groups of nodes are cut off from each other.
    Partition(Vec<Vec<String>>),
    /// The partition ends.
    Heal,
}

/// How a scenario must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectations {
    /// Whether everything is verified.
    pub verify: bool,
    /// Packages that every buyer has written at least.
    pub packages: Option<u64>,
    /// How long buyers may take to catch up.
    pub catch_up: Duration,
}

impl Scenario {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Names the file, line and key, and what was expected.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, name) = read_text(path)?;
        Self::parse(&text, &name, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a scenario from `text`. `file` is its name in messages, `base` the folder that relative paths start from.
    ///
    /// # Errors
    ///
    /// As [`Scenario::load`].
    pub fn parse(text: &str, file: &str, base: &Path) -> Result<Self, ConfigError> {
        let root = yaml::parse(text, &yaml::in_file(file.into()))?;
        let section = Section::root(&root)?;
        let name = section.need("name", "what the report calls it")?.text("a name")?.to_owned();
        let machines = section.need("machines", "how many machines, 1 to 100")?;
        let machines = small(&machines, 1, 100)?;
        let buyers = small(&section.need("buyers", "how many buyers, at most 200")?, 0, 200)?;
        let mirrors = section.get("mirrors").map(|field| small(&field, 0, 16)).transpose()?.unwrap_or(0);
        let namespaces = truth(section.get("namespaces"), false)?;
        let feed = match section.get("feed") {
            Some(field) => feed(&field, base)?,
            None => ScenarioFeed::Recording { path: None, speed: 1.0 },
        };
        let duration = section.need("duration", "how long it runs, such as 30s")?.duration(SECOND..=DAY)?;
        let mut faults: Vec<Fault> = Vec::new();
        if let Some(field) = section.get("faults") {
            field.list(MAX_FAULTS, "a list of faults, each with `at` and what happens", |item| {
                let fault = fault(&item, namespaces, duration)?;
                if faults.last().is_some_and(|before| before.at > fault.at) {
                    return Err(item.conflict("happens before the one above it; put them in order of time"));
                }
                faults.push(fault);
                Ok(())
            })?;
        }
        let expect = expectations(section.get("expect"))?;
        section.finish()?;
        Ok(Self { name, machines, buyers, mirrors, namespaces, feed, duration, faults, expect })
    }
}

fn small(field: &Field<'_>, least: u64, most: u64) -> Result<u16, ConfigError> {
    u16::try_from(field.integer(least..=most)?).map_err(|_| field.wrong("a smaller number"))
}

fn truth(field: Option<Field<'_>>, default: bool) -> Result<bool, ConfigError> {
    field.map_or(Ok(default), |field| field.one_of(&[("true", true), ("false", false)]))
}

fn feed(field: &Field<'_>, base: &Path) -> Result<ScenarioFeed, ConfigError> {
    let section = field.section()?;
    let path = match section.get("recording") {
        Some(field) => Some(resolve(base, field.text("the path of a recording")?)),
        None => None,
    };
    let speed_field = section.get("speed");
    let speed = match &speed_field {
        Some(field) => {
            const SPEED: &str = "how many times as fast as it was recorded, 0.01 to 1000";
            let speed = field.parse::<f64>(SPEED)?;
            if !crate::ingest::SPEEDS.contains(&speed) {
                return Err(field.wrong(SPEED));
            }
            speed
        }
        None => 1.0,
    };
    let packages = section.get("packages");
    let feed = match &packages {
        None => ScenarioFeed::Recording { path, speed },
        Some(field) if path.is_some() || speed_field.is_some() => {
            return Err(field.conflict("and a recording cannot both be what the machines are fed with"));
        }
        Some(field) => {
            let section = field.section()?;
            let bytes = section.need("bytes", "the size of a package, such as 1KiB")?;
            let every = section.need("every", "the time from one to the next, such as 1s")?;
            let size = bytes.bytes(64..=64 << 10)?;
            let bytes = u32::try_from(size).map_err(|_| bytes.wrong("at most 64KiB"))?;
            let every = every.duration(Duration::from_millis(10)..=DAY)?;
            section.finish()?;
            ScenarioFeed::Packages { bytes, every }
        }
    };
    section.finish()?;
    Ok(feed)
}

fn fault(item: &Field<'_>, namespaces: bool, duration: Duration) -> Result<Fault, ConfigError> {
    const NODE: &str = "the name of a node, such as machine-1";
    let section = item.section()?;
    let at = section.need("at", "when, from the beginning, such as 5s")?.duration(Duration::ZERO..=duration)?;
    let name = |field: Field<'_>| field.text(NODE).map(str::to_owned);
    let mut found = Vec::new();
    if let Some(field) = section.get("kill") {
        found.push(FaultKind::Kill(name(field)?));
    }
    if let Some(field) = section.get("restart") {
        found.push(FaultKind::Restart(name(field)?));
    }
    let cut = section.get("partition");
    if let Some(field) = &cut {
        const GROUPS: &str = "a list of groups, each a list of nodes";
        found.push(FaultKind::Partition(
            field.list(MAX_GROUPS, GROUPS, |group| group.list(MAX_MEMBERS, GROUPS, &name))?,
        ));
    }
    let heal = section.get("heal");
    if let Some(field) = &heal {
        field.one_of(&[("true", ())])?;
        found.push(FaultKind::Heal);
    }
    section.finish()?;
    if let Some(field) = cut.or(heal).filter(|_| !namespaces) {
        return Err(field.conflict("needs networks of the nodes' own; write `namespaces: true`"));
    }
    match (found.pop(), found.is_empty()) {
        (Some(what), true) => Ok(Fault { at, what }),
        _ => Err(item.wrong("one of kill, restart, partition, heal")),
    }
}

fn expectations(field: Option<Field<'_>>) -> Result<Expectations, ConfigError> {
    let Some(field) = field else { return Ok(Expectations { verify: true, packages: None, catch_up: CATCH_UP }) };
    let section = field.section()?;
    let verify = truth(section.get("verify"), true)?;
    let packages = section.get("packages").map(|field| field.integer(1..=u64::MAX)).transpose()?;
    let catch_up = match section.get("catch_up") {
        Some(field) => field.duration(SECOND..=DAY)?,
        None => CATCH_UP,
    };
    section.finish()?;
    Ok(Expectations { verify, packages, catch_up })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, ConfigError> {
        Scenario::parse(text, "test.yaml", Path::new("/base"))
    }

    #[test]
    fn the_scenarios_that_ship_are_valid() {
        let market = parse(include_str!("../../../examples/scenarios/market.yaml")).unwrap();
        assert_eq!((market.machines, market.buyers, market.faults.len()), (2, 4, 0));
        assert_eq!(market.feed, ScenarioFeed::Recording { path: None, speed: 4.0 });
        let crashes = parse(include_str!("../../../examples/scenarios/crashes.yaml")).unwrap();
        assert_eq!(crashes.faults.len(), 6);
        let cut = parse(include_str!("../../../examples/scenarios/cut.yaml")).unwrap();
        assert!(cut.namespaces && cut.faults[1].what == FaultKind::Heal);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = "name: x\nmachines: 1\nbuyers: 1\nduration: 10s\n";
        assert!(parse(base).is_ok());
        for (more, named) in [
            ("faults: [{ at: 5s, kill: a }, { at: 4s, kill: b }]", "order of time"),
            ("faults: [{ at: 11s, kill: a }]", "faults[0].at"),
            ("faults: [{ at: 1s }]", "kill, restart"),
            ("faults: [{ at: 1s, kill: a, restart: b }]", "kill, restart"),
            ("faults: [{ at: 1s, heal: true }]", "namespaces: true"),
            ("feed: { speed: 0 }", "0.01 to 1000"),
            ("feed: { speed: NaN }", "0.01 to 1000"),
            ("feed: { speed: 2, packages: { bytes: 1KiB, every: 1s } }", "cannot both"),
            ("feed: { packages: { bytes: 1MiB, every: 1s } }", "feed.packages.bytes"),
            ("expect: { verfy: true }", "verify"),
            ("machine: 2", "machines"),
        ] {
            let error = parse(&format!("{base}{more}\n")).unwrap_err().to_string();
            assert!(error.contains(named), "{more}: {error}");
        }
        let relative = parse(&format!("{base}feed: {{ recording: a.mcap }}\n")).unwrap();
        assert_eq!(relative.feed, ScenarioFeed::Recording { path: Some("/base/a.mcap".into()), speed: 1.0 });
    }
}
