//! What `doctor` looks at on this machine: home, keys, configuration, clock, disk.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    super::{CliError, Context, show},
    Area::Local,
    Check, State,
};
use crate::{
    config::{Config, Role},
    control::api::NodeStatus,
    home::Home,
};

/// No node has run before this: 2026-01-01. A clock that is earlier was never set.
const EPOCH_OF_THE_PROGRAM: u64 = 1_767_225_600;
/// What this machine wrote later than its clock says by more than this shows that the clock was set back.
const CLOCK_SLACK: Duration = Duration::from_secs(120);
/// Less free space than this is warned about, bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// With less than this the store soon takes nothing more, bytes.
const NO_SPACE: u64 = 64 << 20;

/// What an error says, as a check that failed.
fn failed(name: &'static str, error: CliError) -> Check {
    let message = match error.cause {
        Some(cause) => format!("{}: {cause}", error.what),
        None => error.what,
    };
    let check = Check::new(Local, name, State::Failed, message);
    match error.hint {
        Some(hint) => check.hint(hint),
        None => check,
    }
}

/// The home and who can look into it.
pub(super) fn home(path: &Path, checks: &mut Vec<Check>) -> Option<Home> {
    match Home::open(path) {
        Ok(home) => {
            checks.push(Check::new(Local, "home", State::Ok, format!("{} is private", path.display())));
            Some(home)
        }
        Err(error) => {
            checks.push(failed("home", error.into()));
            None
        }
    }
}

/// The configuration.
pub(super) fn configuration(context: &Context, checks: &mut Vec<Check>) -> Option<Config> {
    match context.config(None, &[]) {
        Ok(config) => {
            checks.push(Check::new(Local, "configuration", State::Ok, "valid"));
            Some(config)
        }
        // A home that cannot be opened has been told of already.
        Err(error) => {
            if !checks.iter().any(|check| check.state == State::Failed) {
                checks.push(failed("configuration", error));
            }
            None
        }
    }
}

/// Everything else on this machine.
pub(super) fn machine(
    path: &Path,
    home: Option<&Home>,
    config: Option<&Config>,
    status: Option<&NodeStatus>,
    checks: &mut Vec<Check>,
) {
    if let Some(home) = home {
        checks.push(keys(home));
        if config.is_none_or(|config| config.has_role(Role::Machine)) {
            checks.push(owner(home));
        }
    }
    checks.push(clock(path, status, SystemTime::now()));
    checks.push(disk(path, status));
    if let Some(status) = status {
        let told = |message: &str| checks.iter().any(|check| check.message == message);
        // That the owner's key is here has a check of its own.
        let more = status.warnings.iter().filter(|warning| {
            warning.code != crate::service::status::WarningCode::OwnerKeyHere && !told(&warning.message)
        });
        let more: Vec<Check> =
            more.map(|warning| Check::new(Local, "node", State::Warning, warning.message.clone())).collect();
        checks.extend(more);
    }
}

/// Every file with a secret in it is there, and nobody else can read it.
fn keys(home: &Home) -> Check {
    match home.public_keys() {
        Err(error) => return failed("keys", error.into()),
        Ok(keys) if !keys.sealed => {}
        Ok(_) => {
            return open_files(home)
                .unwrap_or_else(|| Check::new(Local, "keys", State::Ok, "private, and sealed with a passphrase"));
        }
    }
    open_files(home).unwrap_or_else(|| Check::new(Local, "keys", State::Ok, "private; not sealed with a passphrase"))
}

/// A file among the keys that others can read.
fn open_files(home: &Home) -> Option<Check> {
    let entries = match std::fs::read_dir(home.keys_dir()) {
        Ok(entries) => entries,
        Err(error) => return Some(Check::new(Local, "keys", State::Failed, format!("cannot be listed: {error}"))),
    };
    let open = entries.flatten().find(|entry| entry.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0))?;
    let path = open.path();
    let message = format!("{} can be read or written by others", path.display());
    Some(Check::new(Local, "keys", State::Failed, message).hint(format!("chmod 600 {}", path.display())))
}

/// Whoever steals the machine must not get its owner's key.
fn owner(home: &Home) -> Check {
    if home.owner_key_is_here() {
        let path = home.owner_key_path();
        Check::new(
            Local,
            "owner key",
            State::Warning,
            format!("the owner's secret key is still here: {}", path.display()),
        )
        .hint("copy it to a safe place off this machine, then remove it here with `shred -u`")
    } else {
        Check::new(Local, "owner key", State::Ok, "not on this machine")
    }
}

/// Times stand in entries, grants and reservations: a clock that is wrong costs more than it seems.
fn clock(path: &Path, status: Option<&NodeStatus>, now: SystemTime) -> Check {
    const HINT: &str = "let the machine keep its time by NTP, and start the node only when the clock is set";
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = show::time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    if since.as_secs() < EPOCH_OF_THE_PROGRAM {
        return Check::new(Local, "clock", State::Failed, format!("it says {shown}, so it was never set")).hint(HINT);
    }
    let written = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    let files = [path.join("origin.json"), path.join("store/log"), path.join("keys")];
    let newest_file = files.iter().filter_map(|path| written(path)).max();
    let entries = status.into_iter().flat_map(|status| &status.logs);
    let newest_entry = entries.map(|log| UNIX_EPOCH + Duration::from_millis(log.newest_ms)).max();
    let ahead = newest_file.max(newest_entry).and_then(|newest| newest.duration_since(now).ok());
    match ahead {
        Some(ahead) if ahead > CLOCK_SLACK => {
            let ahead = crate::config::show_duration(Duration::from_secs(ahead.as_secs()));
            let message =
                format!("it says {shown}, but this node wrote something {ahead} later: the clock was set back");
            Check::new(Local, "clock", State::Failed, message).hint(HINT)
        }
        _ => Check::new(Local, "clock", State::Ok, format!("{shown}, not before what this node wrote last")),
    }
}

/// Whether there is room for more.
fn disk(path: &Path, status: Option<&NodeStatus>) -> Check {
    let check = |state, message: String| Check::new(Local, "disk", state, message);
    if let Some(status) = status
        && status.store.stopped
    {
        return check(State::Failed, "the store has stopped after a failure of the disk".into())
            .hint("look at the disk and the log, then restart the node");
    }
    let free = match rustix::fs::statvfs(path) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return check(State::Unknown, format!("{} cannot be looked at: {error}", path.display())),
    };
    let free_text = format!("{} free", show::bytes(free));
    if free < NO_SPACE {
        return check(State::Failed, format!("{free_text}: the store takes nothing more"))
            .hint("make room, or set `store.retention` and run `tributary store gc`");
    }
    let quota = status.and_then(|status| Some((status.store.used_bytes, status.store.quota_bytes?)));
    if let Some((used, quota)) = quota
        && used >= quota - quota / 20
    {
        let message = format!("{free_text}, but {} of the quota of {} are used", show::bytes(used), show::bytes(quota));
        return check(State::Warning, message).hint("raise `store.quota`, or set `store.retention`");
    }
    if free < LITTLE_SPACE {
        return check(State::Warning, free_text).hint("make room before the store has to stop");
    }
    check(State::Ok, free_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_or_was_set_back_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let never = clock(folder.path(), None, UNIX_EPOCH + Duration::from_secs(1000));
        assert!(never.state == State::Failed && never.message.contains("never set"), "{never:?}");
        std::fs::create_dir(folder.path().join("keys")).expect("made");
        let now = SystemTime::now();
        assert_eq!(clock(folder.path(), None, now).state, State::Ok);
        let back = clock(folder.path(), None, now - Duration::from_secs(3600));
        assert!(back.state == State::Failed && back.message.contains("set back"), "{back:?}");
    }
}
