//! The hosts that a server answers to.
//!
//! A `Host` that is not ours is refused, so that no web page can reach a node on loopback under a name of its own (DNS
//! rebinding), and whatever a browser sends says so in `Origin` and is refused too.

use std::net::SocketAddr;

use axum::http::{HeaderMap, header};

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Its `Host` is not ours, is missing, or is there twice.
    Host,
    /// A web page sent it.
    Origin,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Those of a server that listens on `bound`: its address, `localhost`, and `more` as they are written, with the port and
    /// without.
    pub(crate) fn new(bound: SocketAddr, more: &[String]) -> Self {
        let port = bound.port();
        let mut hosts = vec![bound.to_string(), format!("localhost:{port}")];
        if bound.ip().is_loopback() {
            hosts.extend([format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
        }
        for host in more {
            hosts.push(host.clone());
            hosts.push(format!("{host}:{port}"));
        }
        Self(hosts)
    }

    /// Refuses what does not name this node, and what a browser sends.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()).map(str::to_ascii_lowercase);
        if !host.is_some_and(|host| self.0.contains(&host)) || hosts.next().is_some() {
            return Err(Foreign::Host);
        }
        if headers.contains_key(header::ORIGIN) { Err(Foreign::Origin) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn another_host_and_a_browser_are_refused() {
        let hosts = Hosts::new(([127, 0, 0, 1], 1).into(), &["robot.example".to_owned()]);
        for host in ["127.0.0.1:1", "localhost:1", "[::1]:1", "robot.example", "ROBOT.example:1"] {
            assert_eq!(hosts.check(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in ["evil.example:1", "127.0.0.1", "127.0.0.1:2", "robot.example:2", ""] {
            assert_eq!(hosts.check(&headers(&[("host", host)])), Err(Foreign::Host), "{host}");
        }
        assert_eq!(hosts.check(&headers(&[])), Err(Foreign::Host));
        let page = headers(&[("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:1")]);
        assert_eq!(hosts.check(&page), Err(Foreign::Origin));
        let mut two = headers(&[("host", "127.0.0.1:1")]);
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(hosts.check(&two), Err(Foreign::Host));
    }

    #[test]
    fn beyond_loopback_only_the_address_itself_and_what_is_named() {
        let hosts = Hosts::new(([192, 0, 2, 7], 1).into(), &[]);
        assert_eq!(hosts.check(&headers(&[("host", "192.0.2.7:1")])), Ok(()));
        assert_eq!(hosts.check(&headers(&[("host", "127.0.0.1:1")])), Err(Foreign::Host));
    }
}
