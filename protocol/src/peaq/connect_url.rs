//! `peaqos-p2p://` URLs: where a buyer finds its seller.
//!
//! `peaqos-p2p://<label>?addr=<multiaddr>&session=<purchase>`. The label says nothing; the address ends in `/p2p/<peer id>`,
//! because whoever dials needs to know whom to expect. Reading follows peaq's SDK, which decodes values as form fields and
//! then once more; the ROS 2 agent repeats `addr` and adds `expiresAt`, which the SDK ignores.

use std::borrow::Cow;

/// Longest URL that is read, in bytes.
pub const MAX_URL_BYTES: usize = 16 * 1024;
/// Most addresses taken from one URL.
pub const MAX_ADDRESSES: usize = 16;

const SCHEME: &str = "peaqos-p2p";

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectUrl {
    /// Where the seller is, as text. At least one; peaq's SDK dials the first.
    pub addresses: Vec<String>,
    /// The purchase id (SDK) or the delivery session id (ROS 2 agent).
    pub session: String,
}

/// Why a URL is of no use; the texts are peaq's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectUrlError {
    /// Another scheme.
    #[error("expected peaqos-p2p:// scheme, got '{0}'")]
    Scheme(String),
    /// No address, or an empty one.
    #[error("missing 'addr' parameter in connect URL")]
    Address,
    /// No session, or an empty one.
    #[error("missing 'session' parameter in connect URL")]
    Session,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("the connect URL has {0} bytes, more than the {MAX_URL_BYTES} allowed")]
    TooLong(usize),
}

impl ConnectUrl {
    /// Writes a URL with one address, as the SDK does.
    #[must_use]
    pub fn build(label: &str, address: &str, purchase_id: &str) -> String {
        format!("{SCHEME}://{label}?addr={}&session={}", percent_encoded(address), percent_encoded(purchase_id))
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// Another scheme, a parameter missing or empty, or a text that is too long.
    pub fn parse(url: &str) -> Result<Self, ConnectUrlError> {
        if url.len() > MAX_URL_BYTES {
            return Err(ConnectUrlError::TooLong(url.len()));
        }
        // As Python's `urlparse`, which the SDK uses.
        let url = url.trim_start_matches(|c: char| c <= ' ').replace(['\t', '\r', '\n'], "");
        let (scheme, rest) = split_scheme(&url);
        if scheme != SCHEME {
            return Err(ConnectUrlError::Scheme(scheme.chars().take(40).collect()));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        let value_of = |wanted: &'static str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .filter(move |(name, value)| !value.is_empty() && form_decoded(name) == wanted)
                .map(|(_, value)| percent_decoded(&form_decoded(value)))
        };
        let addresses: Vec<_> = value_of("addr").take(MAX_ADDRESSES).collect();
        if addresses.first().is_none_or(String::is_empty) {
            return Err(ConnectUrlError::Address);
        }
        let session = value_of("session").next().filter(|session| !session.is_empty());
        Ok(Self { addresses, session: session.ok_or(ConnectUrlError::Session)? })
    }

    /// The address peaq's SDK dials.
    #[must_use]
    pub fn first_address(&self) -> &str {
        self.addresses.first().map(String::as_str).unwrap_or_default()
    }
}

/// The scheme in lower case and what comes behind its colon; no scheme where there is none.
fn split_scheme(url: &str) -> (String, &str) {
    let Some((scheme, rest)) = url.split_once(':') else { return (String::new(), url) };
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if valid { (scheme.to_ascii_lowercase(), rest) } else { (String::new(), url) }
}

fn form_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// Escapes of two digits become bytes, anything else stays; what is not UTF-8 then becomes U+FFFD.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let mut decoded = [0];
        match tail.get(..2) {
            Some(digits) if byte == b'%' && hex::decode_to_slice(digits, &mut decoded).is_ok() => {
                out.push(decoded[0]);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Everything but RFC 3986's unreserved characters is escaped, in upper case.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_agents_url_gives_every_address() {
        let url = "peaqos-p2p://12D3?addr=%2Fip4%2F1&addr=%2Fip6%2F2&session=s&expiresAt=x";
        let parsed = ConnectUrl::parse(url).unwrap();
        assert_eq!(parsed.addresses, ["/ip4/1", "/ip6/2"]);
        assert_eq!(parsed.session, "s");
    }

    #[test]
    fn a_url_is_bounded_before_it_is_taken_apart() {
        let url = format!("peaqos-p2p://x?session=s&{}", "addr=a&".repeat(100));
        assert_eq!(ConnectUrl::parse(&url).unwrap().addresses.len(), MAX_ADDRESSES);
        let url = format!("{url}{}", "x".repeat(MAX_URL_BYTES));
        assert_eq!(ConnectUrl::parse(&url), Err(ConnectUrlError::TooLong(url.len())));
    }

    proptest! {
        #[test]
        fn what_is_built_reads_back(address in "[^%]{1,60}", purchase in "[^%]{1,60}") {
            let url = ConnectUrl::build("seller-1", &address, &purchase);
            prop_assert!(url.is_ascii());
            let parsed = ConnectUrl::parse(&url).unwrap();
            prop_assert_eq!(parsed.addresses, vec![address]);
            prop_assert_eq!(parsed.session, purchase);
        }

        #[test]
        fn any_text_is_read_or_refused(url in any::<String>(), query in any::<String>()) {
            let _ = ConnectUrl::parse(&url);
            let _ = ConnectUrl::parse(&format!("peaqos-p2p://x?{query}"));
        }
    }
}
