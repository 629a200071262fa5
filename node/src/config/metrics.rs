//! The section `metrics`: where metrics and health are offered over HTTP. Off unless the section is there.

use std::net::{Ipv4Addr, SocketAddr};

use super::{error::ConfigError, hosts, reader::Field};

/// The port that is registered for OpenTelemetry's Prometheus exporter.
const PORT: u16 = 9464;

/// Metrics and health over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address to listen on. Who reaches it can read everything there: there are no tokens.
    pub listen: SocketAddr,
    /// Further values of the `Host` header that are answered, as clients write them: a name, or a name and a port.
    pub hosts: Vec<String>,
}

const LISTEN: &str = "an address and a port such as 127.0.0.1:9464";

pub(super) fn metrics(field: Option<Field<'_>>) -> Result<Option<MetricsConfig>, ConfigError> {
    let Some(field) = field else { return Ok(None) };
    let section = field.section()?;
    let listen = match section.get("listen") {
        Some(field) => field.parse::<SocketAddr>(LISTEN)?,
        None => (Ipv4Addr::LOCALHOST, PORT).into(),
    };
    let hosts = hosts::hosts(section.get("hosts"))?;
    section.finish()?;
    Ok(Some(MetricsConfig { listen, hosts }))
}
