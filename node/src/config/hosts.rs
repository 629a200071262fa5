//! Lists of host names that an HTTP server answers to.

use super::{error::ConfigError, reader::Field};

/// Host names that are accepted beside the address itself.
const MAX_HOSTS: usize = 64;
const HOST: &str = "a host as clients name it, such as robot.example or robot.example:4680";

pub(super) fn hosts(field: Option<Field<'_>>) -> Result<Vec<String>, ConfigError> {
    field.map(|f| f.list(MAX_HOSTS, HOST, |f| host(&f))).transpose().map(Option::unwrap_or_default)
}

fn host(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text(HOST)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
    if text.len() <= 260 && text.chars().all(good) { Ok(text.to_ascii_lowercase()) } else { Err(field.wrong(HOST)) }
}
