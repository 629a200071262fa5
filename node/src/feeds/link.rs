//! Feed links: `tributary://<did>?addr=<multiaddr>`, how people pass a feed on.
//!
//! Owns the text form. A link is a hint where to look, never proof: what is found there is checked from the DID alone.

use std::{fmt, str::FromStr};

use libp2p::Multiaddr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tributary_protocol::ids::Did;

/// The longest link, bytes.
pub const MAX_LINK_LEN: usize = 4096;
/// Most addresses in a link.
pub const MAX_LINK_ADDRS: usize = 16;

const SCHEME: &str = "tributary://";
/// What an address may not hold as it is: it would end the value, or stand for something else.
const ESCAPED: &[u8] = b"%&#?+ \"<>";

/// A machine's feed and where its nodes may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedLink {
    /// The machine.
    pub did: Did,
    /// Where to dial, at most [`MAX_LINK_ADDRS`].
    pub addrs: Vec<Multiaddr>,
}

/// A text that is not a feed link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Too long.
    #[error("a feed link of {0} bytes is too long: at most {MAX_LINK_LEN}")]
    TooLong(usize),
    /// It does not begin as a link does.
    #[error("not a feed link: it must read tributary://did:peaq:0x...?addr=/ip4/...")]
    Scheme,
    /// The machine is no DID.
    #[error("{0:?} in the feed link is not a peaqID (did:peaq:0x and 40 hex digits in lower case)")]
    Did(String),
    /// An address is none.
    #[error("{0:?} in the feed link is not an address such as /ip4/192.0.2.1/tcp/4001")]
    Addr(String),
    /// A parameter that links do not have.
    #[error("{0:?} is no part of a feed link; only addr is")]
    Parameter(String),
    /// Too many addresses.
    #[error("a feed link has at most {MAX_LINK_ADDRS} addresses")]
    TooMany,
}

impl FeedLink {
    /// A link to a machine at one address.
    #[must_use]
    pub fn new(did: Did, addrs: Vec<Multiaddr>) -> Self {
        Self { did, addrs }
    }
}

impl fmt::Display for FeedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.did)?;
        for (i, addr) in self.addrs.iter().enumerate() {
            f.write_str(if i == 0 { "?addr=" } else { "&addr=" })?;
            for byte in addr.to_string().bytes() {
                if ESCAPED.contains(&byte) || !byte.is_ascii_graphic() {
                    write!(f, "%{byte:02X}")?;
                } else {
                    write!(f, "{}", char::from(byte))?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for FeedLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.len() > MAX_LINK_LEN {
            return Err(LinkError::TooLong(text.len()));
        }
        let rest = text.trim().strip_prefix(SCHEME).ok_or(LinkError::Scheme)?;
        let (did, query) = rest.split_once('?').unwrap_or((rest, ""));
        let did = did.strip_suffix('/').unwrap_or(did);
        let did = did.parse().map_err(|_| LinkError::Did(short(did)))?;
        let mut addrs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some(value) = pair.strip_prefix("addr=") else { return Err(LinkError::Parameter(short(pair))) };
            if addrs.len() == MAX_LINK_ADDRS {
                return Err(LinkError::TooMany);
            }
            let plain = unescape(value).ok_or_else(|| LinkError::Addr(short(value)))?;
            let addr: Multiaddr = plain.parse().map_err(|_| LinkError::Addr(short(&plain)))?;
            if addr.is_empty() {
                return Err(LinkError::Addr(String::new()));
            }
            addrs.push(addr);
        }
        Ok(Self { did, addrs })
    }
}

impl Serialize for FeedLink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FeedLink {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let mut value = [0; 1];
            hex::decode_to_slice(digits, &mut value).ok()?;
            out.extend_from_slice(&value);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DID: &str = "did:peaq:0x00112233445566778899aabbccddeeff00112233";

    #[test]
    fn a_link_survives_its_text() {
        for addrs in
            ["", "?addr=/ip4/127.0.0.1/tcp/4001", "?addr=/ip6/::1/udp/9/quic-v1&addr=/dns4/robot.example/tcp/1"]
        {
            let text = format!("tributary://{DID}{addrs}");
            let link: FeedLink = text.parse().unwrap();
            assert_eq!(link.to_string(), text);
            assert_eq!(serde_json::from_str::<FeedLink>(&serde_json::to_string(&link).unwrap()).unwrap(), link);
        }
    }

    #[test]
    fn escapes_are_read() {
        let link: FeedLink = format!("tributary://{DID}?addr=%2Fip4%2f127.0.0.1%2Ftcp/1").parse().unwrap();
        assert_eq!(link.addrs[0].to_string(), "/ip4/127.0.0.1/tcp/1");
    }

    #[test]
    fn bad_links_say_what_is_bad() {
        let parse = |text: String| text.parse::<FeedLink>().unwrap_err();
        assert_eq!(parse(format!("http://{DID}")), LinkError::Scheme);
        assert!(matches!(parse("tributary://robot".into()), LinkError::Did(_)));
        assert!(matches!(parse(format!("tributary://{DID}?addr=here")), LinkError::Addr(_)));
        assert!(matches!(parse(format!("tributary://{DID}?addr=")), LinkError::Addr(_)));
        assert!(matches!(parse(format!("tributary://{DID}?key=1")), LinkError::Parameter(_)));
        let many = format!("tributary://{DID}?{}", "addr=/ip4/127.0.0.1&".repeat(MAX_LINK_ADDRS + 1));
        assert_eq!(parse(many), LinkError::TooMany);
        assert!(matches!(parse("x".repeat(MAX_LINK_LEN + 1)), LinkError::TooLong(_)));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = text.parse::<FeedLink>();
            let _ = format!("tributary://{DID}?addr={text}").parse::<FeedLink>();
        }
    }
}
