//! `peaq.orchestration`: where the orchestration API listens, who may use it, what it charges.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::super::{error::ConfigError, hosts, reader::Field, resolve};

/// Buyers with tokens of their own.
const MAX_BUYERS: usize = 1_024;

/// The orchestration API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrchestrationConfig {
    /// Address to listen on. Beyond loopback, buyers need a token.
    pub listen: SocketAddr,
    /// Further values of the `Host` header that are answered, as clients write them: a name, or a name and a port.
    pub hosts: Vec<String>,
    /// The machine's id at peaq, a decimal uint256. Nothing proves that this machine has it.
    pub machine_id: String,
    /// File with the token that all buyers share.
    pub token_file: Option<PathBuf>,
    /// Buyers with a token of their own.
    pub buyers: Vec<BuyerToken>,
    /// A seller that uses peaq's SDK with this node.
    pub agent: Option<SellerAgent>,
    /// What an order costs; `None` is nothing.
    pub price: Option<PriceConfig>,
    /// Who says that an order is paid.
    pub payment: PaymentCheck,
}

/// A buyer with a token of its own: only with it can the buyer's name be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuyerToken {
    /// The buyer's id in orders, mostly its `did:peaq:0x…`.
    pub id: String,
    /// File with the token.
    pub token_file: PathBuf,
}

/// A seller that uses peaq's SDK with this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SellerAgent {
    /// Its agent id.
    pub id: String,
    /// File with its token.
    pub token_file: PathBuf,
}

/// What an order costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceConfig {
    /// Decimal number, more than 0.
    pub amount: String,
    /// The token's name, such as USDC.
    pub token: String,
    /// The chain's name, such as peaq.
    pub chain: String,
    /// Whom to pay.
    pub pay_to: String,
    /// The token's contract, where there is one.
    pub token_address: Option<String>,
}

/// Who says that an order is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentCheck {
    /// The operator: `tributary peaq orders confirm`.
    Manual,
    /// A file of references that count as paid.
    Static {
        /// The file.
        references: PathBuf,
    },
}

const LISTEN: &str = "an address and a port such as 127.0.0.1:4680";
const MACHINE: &str = "the machine's decimal id, in quotes: digits without leading zeros, below 2^256";
const TOKEN_FILE: &str = "the path of a file with a token of 16 to 512 characters, relative to this configuration";
const AMOUNT: &str = "a decimal number above 0 in quotes, such as \"1.5\", at most 78 digits";
const NAME: &str = "1 to 256 printable characters";

pub(in super::super) fn orchestration(field: &Field<'_>, base: &Path) -> Result<OrchestrationConfig, ConfigError> {
    let section = field.section()?;
    let listen_field = section.need("listen", LISTEN)?;
    let listen = listen_field.parse::<SocketAddr>(LISTEN)?;
    let hosts = hosts::hosts(section.get("hosts"))?;
    let machine = section.need("machine_id", MACHINE)?;
    let machine_id = machine.text(MACHINE)?;
    if !is_machine_id(machine_id) {
        return Err(machine.wrong(MACHINE));
    }
    let file = |f: Field<'_>| Ok::<_, ConfigError>(resolve(base, f.text(TOKEN_FILE)?));
    let token_file = section.get("token_file").map(file).transpose()?;
    let mut buyers: Vec<BuyerToken> = Vec::new();
    if let Some(list) = section.get("buyers") {
        list.list(MAX_BUYERS, "a list of buyers, each with `id` and `token_file`", |item| {
            let (id_field, id, token_file) = party(&item, base)?;
            if buyers.iter().any(|buyer| buyer.id == id) {
                return Err(id_field.conflict("is given twice"));
            }
            buyers.push(BuyerToken { id, token_file });
            Ok(())
        })?;
    }
    let agent = section.get("agent").map(|f| party(&f, base)).transpose()?;
    let agent = agent.map(|(_, id, token_file)| SellerAgent { id, token_file });
    let price = section.get("price").map(|f| price(&f)).transpose()?;
    let payment_field = section.get("payment");
    let is_static =
        payment_field.as_ref().map(|f| f.one_of(&[("manual", false), ("static", true)])).transpose()?.unwrap_or(false);
    const REFERENCES: &str = "the path of a file with one payment reference a line, relative to this configuration";
    let references_field = section.get("references_file");
    let payment = if is_static {
        let field = section.need("references_file", REFERENCES)?;
        PaymentCheck::Static { references: resolve(base, field.text(REFERENCES)?) }
    } else {
        if let Some(field) = &references_field {
            return Err(field.conflict("works only with `payment: static`; change the payment or remove it"));
        }
        PaymentCheck::Manual
    };
    if let Some(field) = &payment_field
        && price.is_none()
    {
        return Err(field.conflict("means nothing without a `price`; add one or remove it"));
    }
    if !listen.ip().is_loopback() && token_file.is_none() && buyers.is_empty() {
        return Err(
            listen_field.conflict("is open to other computers, so buyers need a token: add `token_file` or `buyers`")
        );
    }
    section.finish()?;
    let machine_id = machine_id.to_owned();
    Ok(OrchestrationConfig { listen, hosts, machine_id, token_file, buyers, agent, price, payment })
}

fn party<'a>(field: &Field<'a>, base: &Path) -> Result<(Field<'a>, String, PathBuf), ConfigError> {
    let section = field.section()?;
    let id_field = section.need("id", NAME)?;
    let id = name(&id_field)?;
    let token_file = resolve(base, section.need("token_file", TOKEN_FILE)?.text(TOKEN_FILE)?);
    section.finish()?;
    Ok((id_field, id, token_file))
}

fn name(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text(NAME)?;
    let good = text.len() <= 256 && !text.trim().is_empty() && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err(field.wrong(NAME)) }
}

fn price(field: &Field<'_>) -> Result<PriceConfig, ConfigError> {
    let section = field.section()?;
    let amount = section.need("amount", AMOUNT)?;
    if !is_amount(amount.text(AMOUNT)?) {
        return Err(amount.wrong(AMOUNT));
    }
    let price = PriceConfig {
        amount: amount.text(AMOUNT)?.to_owned(),
        token: name(&section.need("token", NAME)?)?,
        chain: name(&section.need("chain", NAME)?)?,
        pay_to: name(&section.need("pay_to", NAME)?)?,
        token_address: section.get("token_address").map(|f| name(&f)).transpose()?,
    };
    section.finish()?;
    Ok(price)
}

/// What peaq's SDK takes for an amount: `1.5`, `0.25`, not `01`, `.5`, `1e3` or 0.
fn is_amount(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && fraction.is_none_or(digits)
        && (whole == "0" || !whole.starts_with('0'))
        && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
        && text.len() <= 79
}

/// 2^256 - 1, which no machine id is above.
const MAX_ID: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

/// A canonical decimal uint256, as peaq's SDK takes it.
fn is_machine_id(text: &str) -> bool {
    let canonical = text == "0" || !text.starts_with('0');
    let fits = text.len() < MAX_ID.len() || (text.len() == MAX_ID.len() && text <= MAX_ID);
    canonical && fits && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn parse(inside: &str) -> Result<OrchestrationConfig, String> {
        let text = format!("roles: [machine]\npeaq:\n  orchestration: {{ {inside} }}\n");
        let config = Config::parse(&text, "t.yaml", Path::new("/base"), &Overrides::none());
        config.map(|config| config.peaq.orchestration.expect("it is there")).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_and_amounts_are_those_of_peaqs_sdk() {
        for good in ["0", "1", "42", MAX_ID] {
            assert!(is_machine_id(good), "{good}");
        }
        let above = format!("{}6", &MAX_ID[..MAX_ID.len() - 1]);
        for bad in ["", "01", "-1", "+1", "1.0", "0x1", " 1", "١", above.as_str()] {
            assert!(!is_machine_id(bad), "{bad}");
        }
        for good in ["1", "1.5", "0.000001", "10.50"] {
            assert!(is_amount(good), "{good}");
        }
        for bad in ["", "0", "0.0", "01", ".5", "1.", "1e3", "-1", "1,5", "+1"] {
            assert!(!is_amount(bad), "{bad}");
        }
    }

    #[test]
    fn vector_amounts_that_peaqs_sdk_refuses_are_refused() {
        let vectors = crate::vectors::read_vectors("payments");
        let mut refused = 0;
        for case in vectors["validate"].as_array().expect("cases") {
            let amount = case["params"]["amount"].as_str().expect("an amount");
            if case["error"]["message"] == "amount must be a positive decimal string" {
                assert!(!is_amount(amount), "{amount}");
                refused += 1;
            } else {
                assert!(is_amount(amount), "{amount}");
            }
        }
        assert!(refused > 2, "{refused}");
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let base = "listen: 127.0.0.1:0, machine_id: \"7\"";
        assert_eq!(parse(base).expect("valid").payment, PaymentCheck::Manual);
        for (more, expected) in [
            (", payment: static", "references_file` is missing"),
            (", payment: manual", "without a `price`"),
            (", references_file: f", "only with `payment: static`"),
            (", price: {amount: \"0\", token: a, chain: b, pay_to: c}", "price.amount"),
            (", buyers: [{id: a, token_file: f}, {id: a, token_file: g}]", "given twice"),
            (", hosts: [\"a b\"]", "hosts[0]"),
            (", tokenfile: f", "perhaps `token_file`"),
        ] {
            let error = parse(&format!("{base}{more}")).expect_err(more);
            assert!(error.contains(expected), "{more}: {error}");
        }
        let open = parse("listen: 0.0.0.0:4680, machine_id: \"7\"").expect_err("open");
        assert!(open.contains("need a token"), "{open}");
        assert!(parse("listen: 0.0.0.0:4680, machine_id: \"7\", token_file: t").is_ok());
        assert!(parse("listen: 127.0.0.1:0, machine_id: 007").expect_err("zeros").contains("decimal id"));
    }
}
