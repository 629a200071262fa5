//! Bare gossipsub between two swarms of this process: TCP, TLS, Yamux, libp2p's gossipsub, and messages that are taken as they are.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::{
    Swarm, SwarmBuilder,
    gossipsub::{self, Behaviour, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, ValidationMode},
    swarm::SwarmEvent,
    tcp, tls, yamux,
};
use rand::Rng as _;
use tokio::sync::mpsc;

const IDLE: Duration = Duration::from_secs(3600);
/// More than any message here.
const MAX_MESSAGE: usize = 128 << 10;

fn swarm() -> Swarm<Behaviour> {
    let settings = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::new(blake3::hash(&message.data).as_bytes()))
        .max_transmit_size(MAX_MESSAGE)
        .flood_publish(false)
        .build()
        .unwrap();
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Behaviour::new(MessageAuthenticity::Anonymous, settings).unwrap())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build()
}

/// Two swarms, one of which publishes.
pub(crate) struct Echo {
    publish: mpsc::Sender<Vec<u8>>,
    delivered: mpsc::Receiver<Instant>,
}

impl Echo {
    /// Connects them, and waits until the one listens to the other.
    pub(crate) async fn connect() -> Self {
        let topic = IdentTopic::new("bare");
        let (mut sender, mut receiver) = (swarm(), swarm());
        receiver.behaviour_mut().subscribe(&topic).unwrap();
        sender.behaviour_mut().subscribe(&topic).unwrap();
        receiver.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = receiver.select_next_some().await {
                break address;
            }
        };
        sender.dial(address).unwrap();
        let (publish, mut messages) = mpsc::channel::<Vec<u8>>(1);
        let (told, delivered) = mpsc::channel(64);
        let (heard, listens) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(gossipsub::Event::Message { propagation_source, message_id, .. }) =
                    receiver.select_next_some().await
                {
                    let behaviour = receiver.behaviour_mut();
                    behaviour.report_message_validation_result(
                        &message_id,
                        &propagation_source,
                        MessageAcceptance::Accept,
                    );
                    // Nobody waits any more when the section is over.
                    let _ = told.send(Instant::now()).await;
                }
            }
        });
        tokio::spawn(async move {
            let mut heard = Some(heard);
            loop {
                tokio::select! {
                    event = sender.select_next_some() => {
                        if let SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }) = event
                            && let Some(heard) = heard.take()
                        {
                            heard.send(()).unwrap();
                        }
                    }
                    message = messages.recv() => match message {
                        Some(message) => drop(sender.behaviour_mut().publish(topic.clone(), message).unwrap()),
                        None => break,
                    },
                }
            }
        });
        listens.await.unwrap();
        Self { publish, delivered }
    }

    /// Seconds from publishing a message of so many bytes until it is delivered.
    pub(crate) async fn one(&mut self, bytes: usize) -> f64 {
        let mut message = vec![0; bytes];
        rand::rng().fill_bytes(&mut message);
        let begun = Instant::now();
        self.publish.send(message).await.unwrap();
        let delivered = self.delivered.recv().await.unwrap();
        (delivered - begun).as_secs_f64()
    }
}
