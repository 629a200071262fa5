//! The section `peaq`: what stands in files and deliveries for peaq's own software, how many of its buyers are served, and the
//! orchestration API.

pub(super) mod orchestration;

use std::path::Path;

use tributary_protocol::peaq::parties::{Recipient, Role};

pub use self::orchestration::{BuyerToken, OrchestrationConfig, PaymentCheck, PriceConfig, SellerAgent};
use super::{
    error::ConfigError,
    reader::{Field, Section},
};

/// How this machine trades with peaq's own software. Keys are X25519 keys as hex, with or without `0x`, kept as they are
/// written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeaqConfig {
    /// The owner's key; `None` is that of the home's owner.
    pub owner_public_key: Option<String>,
    /// The operator's key; `None` is the owner's.
    pub operator_public_key: Option<String>,
    /// The machine's key; `None` is that of the home.
    pub machine_public_key: Option<String>,
    /// What the files call the machine; `None` is its peaqID.
    pub machine_did: Option<String>,
    /// What they call its signing key; `None` is the machine's name and `#keys-1`.
    pub machine_key_id: Option<String>,
    /// Deliveries served at once, 1 to 4096.
    pub deliveries: u32,
    /// The orchestration API; `None` is off.
    pub orchestration: Option<OrchestrationConfig>,
}

impl Default for PeaqConfig {
    fn default() -> Self {
        Self {
            owner_public_key: None,
            operator_public_key: None,
            machine_public_key: None,
            machine_did: None,
            machine_key_id: None,
            deliveries: 32,
            orchestration: None,
        }
    }
}

pub(super) fn peaq(field: Option<Field<'_>>, base: &Path) -> Result<PeaqConfig, ConfigError> {
    let Some(field) = field else { return Ok(PeaqConfig::default()) };
    let section = field.section()?;
    let out = PeaqConfig {
        owner_public_key: key(&section, "owner_public_key")?,
        operator_public_key: key(&section, "operator_public_key")?,
        machine_public_key: key(&section, "machine_public_key")?,
        machine_did: name(&section, "machine_did")?,
        machine_key_id: name(&section, "machine_key_id")?,
        deliveries: match section.get("deliveries") {
            Some(field) => field.integer32(1..=4096)?,
            None => PeaqConfig::default().deliveries,
        },
        orchestration: section
            .get("orchestration")
            .map(|field| orchestration::orchestration(&field, base))
            .transpose()?,
    };
    section.finish()?;
    Ok(out)
}

fn key(section: &Section<'_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    const EXPECTED: &str = "an X25519 public key, 64 hex digits";
    let Some(field) = section.get(key) else { return Ok(None) };
    let text = field.text(EXPECTED)?;
    Recipient::new("configured", Role::Owner, text).map_err(|_| field.wrong(EXPECTED))?;
    Ok(Some(text.to_owned()))
}

fn name(section: &Section<'_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    const EXPECTED: &str = "a name of 1 to 256 bytes that is not blank";
    let Some(field) = section.get(key) else { return Ok(None) };
    let text = field.text(EXPECTED)?;
    if text.trim().is_empty() || text.len() > 256 { Err(field.wrong(EXPECTED)) } else { Ok(Some(text.to_owned())) }
}
