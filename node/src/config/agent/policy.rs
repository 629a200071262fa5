//! The policy file, which has the last word on what it says.

use std::path::{Path, PathBuf};

use super::{layers::text, spelling};
use crate::config::{
    error::ConfigError,
    read_text,
    reader::Field,
    yaml::{self, Node},
};

/// What the policy file says.
pub(super) struct Policy {
    /// The key of the section in it; empty when the document itself is the section.
    pub(super) key: &'static str,
    pub(super) node: Node,
}

/// Reads the file that `path` names. `~` is the home of the user; a relative path starts from `base`.
pub(super) fn read(path: &Field<'_>, base: &Path) -> Result<Policy, ConfigError> {
    const FORM: &str = "the path of a policy file";
    let text = text(path, FORM)?;
    let file = match text.strip_prefix("~/") {
        Some(rest) => {
            let home = std::env::var_os("HOME").ok_or_else(|| path.wrong("a path without ~: HOME is not set"))?;
            PathBuf::from(home).join(rest)
        }
        None if text.starts_with('~') => return Err(path.wrong("a path that does not start with another user's ~")),
        None => base.join(text),
    };
    // Opening a pipe would wait for somebody to write to it.
    let metadata = std::fs::metadata(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
    if !metadata.is_file() {
        return Err(path.wrong("the path of a regular file"));
    }
    let (document, name) = read_text(&file)?;
    let root = yaml::parse(&document, &yaml::in_file(name))?;
    let key = "stream_policy";
    Ok(match root.get(key) {
        Some(section) => Policy { key, node: spelling::unified(section)? },
        None => Policy { key: "", node: spelling::unified(&root)? },
    })
}
