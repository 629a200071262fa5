//! Frames that lie: about their length, about being a frame at all, and more subscriptions than anybody has.

use futures::AsyncWriteExt as _;
use libp2p::identity::Keypair;
use tokio::task::JoinSet;
use tributary_protocol::{
    ids::{Did, Hash, StreamId},
    wire::{PullRequest, topic_stream},
};
use tributary_tests::{
    hostile::{Attacker, Ground, raw, seen},
    wait::until,
};

/// More than a peer may have.
const SUBSCRIPTIONS: usize = 10_000;
/// Offences of this kind until a peer is banned.
const FOUR: u64 = 4;

/// Offends until the node throws the offender out; returns who it was and how often it took.
async fn offend(ground: &Ground, protocol: &'static str, bytes: &[u8]) -> (Keypair, u64) {
    let attacker = Attacker::connect(&ground.machine_at).await;
    let mut offences = 0;
    while attacker.is_connected() && offences < 20 {
        let Some(mut stream) = attacker.open(protocol).await else { break };
        if !raw::write(&mut stream, bytes).await {
            break;
        }
        offences += 1;
        raw::ending(&mut stream).await;
    }
    attacker.thrown_out().await;
    (attacker.key(), offences)
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_are_refused_before_memory_is_taken_and_ban_their_sender() {
    let mut ground = Ground::start().await;
    let mut offenders = Vec::new();
    for (protocol, bytes) in [
        ("/tributary/sync/1", raw::frame(u32::MAX, &[0; 100])),
        ("/tributary/access/1", raw::frame(1 << 30, b"")),
        ("/tributary/pull/1", raw::frame(u32::MAX, &[0x81; 5000])),
        // The right length around what is no request.
        ("/tributary/pull/1", raw::frame(9, &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255])),
    ] {
        let before = ground.machine.status().await;
        let (key, offences) = offend(&ground, protocol, &bytes).await;
        let after = ground.machine.status().await;
        let seen = match protocol {
            "/tributary/pull/1" => after.served.malformed - before.served.malformed,
            _ => after.traffic.bad_frames - before.traffic.bad_frames,
        };
        assert!(seen >= FOUR && offences >= FOUR, "{protocol}: {seen} seen of {offences}");
        assert_eq!(after.traffic.bans, before.traffic.bans + 1, "{protocol}");
        offenders.push(key);
        ground.honest_trade().await;
    }
    // They are not let in again.
    for key in offenders {
        assert!(Attacker::connect_as(key, ground.machine_at.clone()).await.is_none());
    }
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_and_cut_off_requests_take_no_more_than_a_frame() {
    const ENDLESS: usize = 64 << 20;
    let ground = Ground::start().await;
    let mut pours = JoinSet::new();
    for protocol in raw::PROTOCOLS {
        let address = ground.machine_at.clone();
        pours.spawn(async move {
            let attacker = Attacker::connect(&address).await;
            let mut stream = attacker.must_open(protocol).await;
            let went = raw::pour(&mut stream, &vec![0xff; 64 << 10], ENDLESS).await;
            // A request that ends in the middle.
            if let Some(mut stream) = attacker.open(protocol).await {
                raw::write(&mut stream, &raw::frame(2000, &[0; 10])).await;
                let _ = stream.close().await;
            }
            went
        });
    }
    let went: usize = pours.join_all().await.into_iter().sum();
    assert!(went >= raw::PROTOCOLS.len() * (64 << 10), "{went} bytes went out");
    assert!(went < raw::PROTOCOLS.len() * ENDLESS / 2, "somebody reads for ever: {went} bytes");
    let status = ground.machine.status().await;
    assert!(status.traffic.bad_frames + status.served.malformed + status.served.failed > 0);
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_are_refused_and_leave_the_feed_alone() {
    let mut ground = Ground::start().await;
    let topics: Vec<String> = (0..SUBSCRIPTIONS)
        .map(|n| {
            let hash = Hash::of(&n.to_be_bytes());
            let stream = StreamId::from_bytes(*hash.as_bytes());
            topic_stream(&Did::from_bytes([7; 20]), &stream)
        })
        .collect();
    for victim in [ground.machine_at.clone(), ground.buyer_at.clone()] {
        let mut attackers = Vec::new();
        for _ in 0..3 {
            let attacker = Attacker::connect(&victim).await;
            let mut stream = attacker.must_open("/meshsub/1.1.0").await;
            // As many as fit a frame of gossip, again and again; all of the frame that goes over the limit is refused.
            for part in topics.chunks(300) {
                assert!(raw::write(&mut stream, &raw::subscriptions(part.iter().map(String::as_str))).await);
            }
            raw::write(&mut stream, &raw::subscriptions(["no topic of ours", ""])).await;
            attackers.push((attacker, stream));
        }
        ground.honest_trade().await;
        let node = if victim == ground.machine_at { &ground.machine } else { &ground.buyer };
        for (attacker, _) in &attackers {
            let known = until("the subscriptions to be read", async || {
                seen(node, &attacker.id()).await.map(|peer| peer.topics).filter(|topics| *topics >= 3900)
            })
            .await;
            assert!(known <= 4096, "{known}");
        }
    }
    ground.stood().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_nothing_without_number_are_answered_and_the_others_are_served() {
    let mut ground = Ground::start().await;
    let attacker = Attacker::connect(&ground.machine_at).await;
    let request = PullRequest { hashes: vec![Hash::of(b"nothing of yours"); 1000] }.encode_frame().unwrap();
    let mut streams = Vec::new();
    for _ in 0..60 {
        let Some(mut stream) = attacker.open("/tributary/pull/1").await else { break };
        // A request is whole when its stream is closed on this side.
        if raw::write(&mut stream, &request).await && stream.close().await.is_ok() {
            streams.push(stream);
        }
    }
    // Nobody reads what they answer; meanwhile the buyer is served.
    ground.honest_trade().await;
    assert!(streams.len() > 8, "{} streams", streams.len());
    let served = ground.machine.status().await.served;
    assert!(served.active <= u64::from(served.limit), "{served:?}");
    let mut answered = 0;
    for mut stream in streams {
        answered += u64::from(matches!(raw::ending(&mut stream).await, raw::Ending::Answered(_)));
    }
    let served = ground.machine.status().await.served;
    assert!(answered > 8 && served.transfers + served.busy >= answered, "{answered} answered, {served:?}");
    ground.stood().await;
}
