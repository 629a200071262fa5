//! The testnet of `docker/compose.yaml`.

use tributary::service::status::WarningCode;
use tributary_tests::{
    containers::{LONG, Project, docker, docker_ok, health},
    wait::until_within,
};

/// Entries of the logs that a machine publishes.
async fn published(project: &Project, machine: &str) -> u64 {
    project.status(machine).await.streams.iter().map(|stream| stream.entries).sum()
}

#[tokio::test]
async fn machines_and_buyers_that_share_no_network_trade_through_the_relay_and_outlive_a_machine() {
    let project = Project::up("market").await;
    project.is_sound().await;

    // Who shares a network is connected directly; who does not, through the relay.
    let [one, two, relay] = ["machine-1", "machine-2", "relay"].map(async |node| project.status(node).await.peer);
    let (one, two, relay) = (one.await, two.await, relay.await);
    for (buyer, machine, through) in
        [("buyer-1", &one, Some(&relay)), ("buyer-2", &two, None), ("buyer-3", &two, Some(&relay))]
    {
        let status = project.status(buyer).await;
        let path = status.peers.iter().find(|peer| peer.peer == *machine);
        let path = path.unwrap_or_else(|| panic!("{buyer} is not connected to its machine: {:?}", status.peers));
        assert_eq!((path.direct, path.relay.as_ref()), (through.is_none(), through), "{buyer}: {path:?}");
    }
    // Not for want of trying: there is no way from the one network to the other.
    let format = format!("{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", project.network("field"));
    let address = docker_ok(&["inspect", "--format", &format, &project.container("machine-1").await]).await;
    let probe = format!("timeout 5 bash -c 'echo > /dev/tcp/{address}/4600'");
    for (node, reached) in [("relay", true), ("buyer-1", false)] {
        let probed = docker(&["exec", &project.container(node).await, "bash", "-c", &probe]).await;
        assert_eq!(probed.code == Some(0), reached, "{node}: {probed:?}");
    }

    project.feeds(true).await;
    let machine = project.container("machine-1").await;
    docker_ok(&["kill", &machine]).await;
    let findings = project.is_unsound().await;
    assert!(findings.iter().any(|finding| finding.starts_with("machine-1: ")), "{findings:?}");
    docker_ok(&["start", &machine]).await;
    health(&machine, " healthy").await;
    // It is fed again, by itself.
    let before = published(&project, "machine-1").await;
    until_within("new entries", LONG, async || (published(&project, "machine-1").await > before).then_some(())).await;
    project.is_sound().await;
}

#[tokio::test]
async fn a_machine_whose_network_is_cut_goes_on_and_its_buyer_catches_up() {
    let project = Project::up("cut").await;
    let (machine, network) = (project.container("machine-1").await, project.network("field"));
    docker_ok(&["network", "disconnect", &network, &machine]).await;
    let before = published(&project, "machine-1").await;
    until_within("entries that nobody hears", LONG, async || {
        (published(&project, "machine-1").await > before + 10).then_some(())
    })
    .await;
    let findings = project.is_unsound().await;
    assert!(
        findings.iter().any(|finding| finding.starts_with("buyer-1: ") && finding.contains("missing")),
        "{findings:?}"
    );
    assert!(
        !findings.iter().any(|finding| finding.starts_with("buyer-2: ")),
        "the others have no part in it: {findings:?}"
    );
    docker_ok(&["network", "connect", "--alias", "machine-1", &network, &machine]).await;
    project.is_sound().await;
}

#[tokio::test]
async fn containers_are_made_anew_one_after_the_other_and_nothing_is_lost() {
    let project = Project::up("rolling").await;
    for service in ["relay", "machine-1", "machine-2", "buyer-1", "buyer-2", "buyer-3"] {
        let before = project.status(service).await;
        let old = project.container(service).await;
        project.compose_ok(&["up", "-d", "--no-build", "--no-deps", "--force-recreate", service]).await;
        let new = project.container(service).await;
        assert_ne!(old, new, "{service} was not made anew");
        health(&new, " healthy").await;
        let after = project.status(service).await;
        assert_eq!((before.did, before.peer), (after.did, after.peer), "{service} has another home");
        assert!(
            after.incarnation == before.incarnation
                && after.warnings.iter().all(|warning| warning.code != WarningCode::Displaced)
        );
    }
    project.is_sound().await;
}
