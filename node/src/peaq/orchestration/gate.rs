//! Who may come in: the `Host` a request names, where it comes from, and the tokens it carries.
//!
//! Hosts are those of [`Hosts`]. Tokens are compared by their hashes, in constant time, and all of them each time. Where no token
//! for buyers is configured, whoever reaches the socket is a buyer; that is only possible on loopback.

use std::net::SocketAddr;

use axum::http::{HeaderMap, StatusCode, header};
use blake3::Hash;

use super::answer::ApiError;
use crate::{
    config::OrchestrationConfig,
    home::{HomeError, read_token},
    http::hosts::{Foreign, Hosts},
};

/// Account of the buyers that share a token, or need none.
const SHARED: &str = "shared";

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A buyer; `id` is its name where the token is its own.
    Buyer {
        /// What its purchases are kept under.
        account: String,
        /// Its name, if the token proves one.
        id: Option<String>,
    },
    /// The seller with peaq's SDK.
    Agent,
}

/// See the module.
pub(super) struct Gate {
    hosts: Hosts,
    shared: Option<Hash>,
    buyers: Vec<(String, Hash)>,
    agent: Option<(String, Hash)>,
}

impl Gate {
    /// Reads the tokens of a configuration. `bound` is where the API listens.
    pub(super) fn open(config: &OrchestrationConfig, bound: SocketAddr) -> Result<Self, HomeError> {
        let token = |path| read_token(path).map(|token| blake3::hash(token.as_bytes()));
        let hosts = Hosts::new(bound, &config.hosts);
        let mut buyers = Vec::new();
        for buyer in &config.buyers {
            buyers.push((buyer.id.clone(), token(&buyer.token_file)?));
        }
        let agent =
            config.agent.as_ref().map(|agent| Ok::<_, HomeError>((agent.id.clone(), token(&agent.token_file)?)));
        let shared = config.token_file.as_deref().map(token).transpose()?;
        Ok(Self { hosts, shared, buyers, agent: agent.transpose()? })
    }

    /// Refuses what does not name this node, and what a browser sends.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        self.hosts.check(headers).map_err(|foreign| match foreign {
            Foreign::Host => ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "HOST_NOT_ALLOWED",
                "this node does not answer to that host; use its address, or add the name to `peaq.orchestration.hosts`",
            ),
            Foreign::Origin => ApiError::forbidden("ORIGIN_NOT_ALLOWED", "this API is not for web pages"),
        })
    }

    /// Whose tokens the headers carry. The seller's counts before a buyer's own, and that before the shared one.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let texts = ["x-api-key", "x-agent-pairing-token"].map(|name| headers.get(name).map(|value| value.as_bytes()));
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let presented: Vec<Hash> = texts.into_iter().chain([bearer]).flatten().map(blake3::hash).collect();
        // Every token is compared with every one: how long it takes says nothing.
        let given = |token: &Hash| presented.iter().fold(false, |found, hash| found | (hash == token));
        let agent = self.agent.as_ref().is_some_and(|(_, token)| given(token));
        let own = self.buyers.iter().fold(None, |found, (id, token)| if given(token) { Some(id) } else { found });
        let shared = self.shared.as_ref().is_some_and(given);
        if agent {
            return Ok(Caller::Agent);
        }
        if let Some(id) = own {
            return Ok(Caller::Buyer { account: format!("own/{id}"), id: Some(id.clone()) });
        }
        if shared || (self.shared.is_none() && self.buyers.is_empty()) {
            return Ok(Caller::Buyer { account: SHARED.to_owned(), id: None });
        }
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "a token is needed: in x-api-key, in x-agent-pairing-token, or as Authorization: Bearer",
        ))
    }

    /// Whether these are the credentials of the seller with peaq's SDK.
    pub(super) fn check_agent(&self, agent_id: &str, token: &str) -> Result<(), ApiError> {
        let Some((id, expected)) = &self.agent else {
            let message = "no seller agent is configured at this node; add `peaq.orchestration.agent`";
            return Err(ApiError::forbidden("AGENT_NOT_CONFIGURED", message));
        };
        if blake3::hash(token.as_bytes()) == *expected && id == agent_id {
            return Ok(());
        }
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "agent id and token do not belong together here"))
    }

    /// The id of the seller with peaq's SDK.
    pub(super) fn agent_id(&self) -> Option<&str> {
        self.agent.as_ref().map(|(id, _)| id.as_str())
    }

    /// Whether the name belongs to a buyer with a token of its own.
    pub(super) fn is_reserved(&self, buyer_id: &str) -> bool {
        self.buyers.iter().any(|(id, _)| id == buyer_id)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn gate(shared: bool) -> Gate {
        let hash = |text: &str| blake3::hash(text.as_bytes());
        Gate {
            hosts: Hosts::new(([127, 0, 0, 1], 1).into(), &[]),
            shared: shared.then(|| hash("shared-token")),
            buyers: vec![("alice".to_owned(), hash("alice-token"))],
            agent: Some(("agent".to_owned(), hash("agent-token"))),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_token_counts_wherever_peaqs_sdk_puts_it() {
        let gate = gate(true);
        let shared = Caller::Buyer { account: SHARED.to_owned(), id: None };
        let alice = Caller::Buyer { account: "own/alice".to_owned(), id: Some("alice".to_owned()) };
        for (pairs, expected) in [
            (vec![("x-api-key", "shared-token")], Some(&shared)),
            (vec![("x-agent-pairing-token", "shared-token")], Some(&shared)),
            (vec![("authorization", "Bearer shared-token")], Some(&shared)),
            (vec![("x-api-key", "shared-token"), ("x-agent-pairing-token", "alice-token")], Some(&alice)),
            (vec![("x-api-key", "nonsense"), ("x-agent-pairing-token", "alice-token")], Some(&alice)),
            (vec![("x-api-key", "agent-token")], Some(&Caller::Agent)),
            (vec![("x-api-key", "shared-toke")], None),
            (vec![("x-api-key", "")], None),
            (vec![("authorization", "shared-token")], None),
            (vec![], None),
        ] {
            assert_eq!(gate.caller(&headers(&pairs)).ok().as_ref(), expected, "{pairs:?}");
        }
        // Tokens of single buyers close the door for those without.
        assert!(Gate { shared: None, ..gate }.caller(&headers(&[])).is_err());
    }

    #[test]
    fn an_agent_is_its_id_and_its_token() {
        let gate = gate(true);
        assert!(gate.check_agent("agent", "agent-token").is_ok());
        assert!(gate.check_agent("agent", "shared-token").is_err());
        assert!(gate.check_agent("other", "agent-token").is_err());
    }
}
