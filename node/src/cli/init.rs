//! `tributary init`: a home with keys and a configuration.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    CliError, Context,
    key::{KeyReport, move_owner_key},
};
use crate::home::{Home, InitOptions, OwnerPublic, import_identity};

/// `tributary init`
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// What the node will do; give it twice for both
    #[arg(long = "role", value_enum, value_name = "ROLE", default_values = ["machine"])]
    roles: Vec<RoleArg>,
    /// Public keys of an owner that exists already (did:peaq:0x…/…); without it, an owner key file is made that you then have
    /// to move off this machine
    #[arg(long, value_name = "PUBLIC")]
    owner: Option<OwnerPublic>,
    /// File with an existing secp256k1 identity key as 64 hex digits, such as one from a peaqOS activation
    #[arg(long, value_name = "FILE")]
    identity_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Publishes data
    Machine,
    /// Gets data
    Buyer,
    /// Carries connections between peers that cannot reach each other
    Relay,
}

const HEAD: &str = "\
# Configuration of this Tributary node. Check it with `tributary config check`.
# Every key is described in examples/tributary.yaml; a key that is not there has its default.

";

const NETWORK: &str = "
network:
  listen: [/ip4/0.0.0.0/tcp/4600, /ip4/0.0.0.0/udp/4600/quic-v1]
  # Behind a NAT: the relay through which others reach this node until they have a direct connection.
#  relays: [/ip4/192.0.2.7/tcp/4600/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5]
  # Find peers on the local network, and be found by them; have the router forward the ports.
#  discovery: { mdns: true }
#  nat: { upnp: true }
";

const MACHINE: &str = "
# The Data Event Map: which topics leave this machine, and under which rules.
# Nothing leaves that is not listed here.
streams: []
#  - topic: /imu/data
#    mode: fields
#    default: include
#    rules:
#      - { path: header.frame_id, action: exclude }
#    access: { policy: manual }
";

const BUYER: &str = "
# The machines to follow.
follow: []
#  - machine: did:peaq:0x…
#    addresses: [/ip4/192.0.2.7/tcp/4600/p2p/12D3Koo…]
";

fn config_text(roles: &[RoleArg]) -> String {
    let has = |role| roles.contains(&role);
    let names: Vec<&str> = [(RoleArg::Machine, "machine"), (RoleArg::Buyer, "buyer"), (RoleArg::Relay, "relay")]
        .iter()
        .filter(|(role, _)| has(*role))
        .map(|(_, name)| *name)
        .collect();
    let (machine, buyer) = (has(RoleArg::Machine), has(RoleArg::Buyer));
    let mut text = format!("{HEAD}roles: [{}]\n", names.join(", "));
    text.push_str(NETWORK);
    text.push_str(if machine { MACHINE } else { "" });
    text.push_str(if buyer { BUYER } else { "" });
    text
}

/// What to do with a new home.
fn next(roles: &[RoleArg], config: &Path) -> String {
    if roles == [RoleArg::Relay] {
        "Next: start the node with `tributary run`. Others name it under `network.relays`: the addresses that `run` prints."
            .to_owned()
    } else if roles.contains(&RoleArg::Machine) {
        format!("Next: write your streams into {} and run `tributary config check`.", config.display())
    } else {
        "Next: start the node with `tributary run`, and follow a machine with `tributary subscribe LINK` in another terminal."
            .to_owned()
    }
}

#[derive(Serialize)]
struct Report {
    home: PathBuf,
    config: PathBuf,
    #[serde(flatten)]
    keys: KeyReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_key: Option<PathBuf>,
}

pub(super) fn run(args: &InitArgs, context: &Context) -> Result<(), CliError> {
    let options = InitOptions {
        owner: args.owner,
        identity: args.identity_key.as_deref().map(import_identity).transpose()?,
        passphrase: context.passphrase()?,
        config: config_text(&args.roles),
    };
    let home = Home::init(&context.home_path()?, options, &mut rand::rng())?;
    let keys = KeyReport::of(&home)?;
    let here = keys.owner_key_on_machine();
    let report = Report {
        home: home.path().to_owned(),
        config: home.config_path(),
        keys,
        owner_key: here.then(|| home.owner_key_path()),
    };
    context.output.document(&report, |out| {
        writeln!(out, "Made a Tributary home in {}\n", home.path().display())?;
        report.keys.table().write(out)?;
        if here {
            writeln!(out, "\n{}", move_owner_key(&home))?;
        }
        writeln!(out, "\n{}", next(&args.roles, &report.config))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn the_first_configuration_is_valid_for_every_role() {
        for roles in
            [&[RoleArg::Machine][..], &[RoleArg::Buyer], &[RoleArg::Relay], &[RoleArg::Buyer, RoleArg::Machine]]
        {
            let text = config_text(roles);
            let config = Config::parse(&text, "config.yaml", Path::new(""), &Overrides::none()).expect("valid");
            assert_eq!(config.roles.len(), roles.len(), "{text}");
        }
    }

    #[test]
    fn the_next_step_is_one_of_the_role() {
        let config = Path::new("config.yaml");
        assert!(next(&[RoleArg::Buyer, RoleArg::Machine], config).contains("config.yaml"));
        let buyer = next(&[RoleArg::Buyer], config);
        assert!(buyer.contains("subscribe") && !buyer.contains("streams"), "{buyer}");
    }

    #[test]
    fn the_stream_in_the_comment_is_valid_when_it_is_used() {
        let text = config_text(&[RoleArg::Machine]).replace("streams: []", "streams:").replace("\n#  ", "\n  ");
        let config = Config::parse(&text, "config.yaml", Path::new(""), &Overrides::none()).expect("valid");
        assert_eq!(config.streams.len(), 1);
    }
}
