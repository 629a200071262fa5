//! A bare libp2p stream between two processes: TCP, Noise or TLS, Yamux with their defaults, the version the node uses, and bytes
//! that nobody looks at.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, tls,
    yamux,
};
use libp2p_stream::{Behaviour, Control};

use crate::machine::cpu_of;

const CHILD: &str = "BARE_STREAM_CHILD";
const PROTOCOL: StreamProtocol = StreamProtocol::new("/bare");
const BLOCK: usize = 256 << 10;
/// A connection is kept while rounds of something else take their turn.
const IDLE: std::time::Duration = std::time::Duration::from_secs(3600);

/// What protects the connection.
#[derive(Clone, Copy)]
pub(crate) enum Security {
    Noise,
    Tls,
}

impl Security {
    fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Tls => "tls",
        }
    }

    fn swarm(self) -> Swarm<Behaviour> {
        let builder = SwarmBuilder::with_new_identity().with_tokio();
        let (tcp, muxer) = (tcp::Config::default().nodelay(true), yamux::Config::default);
        let behaviour = |_: &_| Behaviour::new();
        let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE);
        match self {
            Self::Noise => {
                let builder = builder.with_tcp(tcp, noise::Config::new, muxer).unwrap();
                builder.with_behaviour(behaviour).unwrap().with_swarm_config(idle).build()
            }
            Self::Tls => {
                let builder = builder.with_tcp(tcp, tls::Config::new, muxer).unwrap();
                builder.with_behaviour(behaviour).unwrap().with_swarm_config(idle).build()
            }
        }
    }
}

/// When this process is the sending one: serves until it is killed.
pub(crate) fn run_child() -> bool {
    let Ok(security) = std::env::var(CHILD) else { return false };
    let security = if security == "tls" { Security::Tls } else { Security::Noise };
    tokio::runtime::Runtime::new().unwrap().block_on(serve(security));
    true
}

async fn serve(security: Security) {
    let mut swarm = security.swarm();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let mut streams = swarm.behaviour().new_control().accept(PROTOCOL).unwrap();
    tokio::spawn(async move {
        let block = vec![7; BLOCK];
        while let Some((_, mut stream)) = streams.next().await {
            let mut len = [0; 8];
            stream.read_exact(&mut len).await.unwrap();
            for _ in 0..u64::from_be_bytes(len) / BLOCK as u64 {
                stream.write_all(&block).await.unwrap();
            }
            stream.close().await.unwrap();
        }
    });
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            println!("{}", address.with(Protocol::P2p(*swarm.local_peer_id())));
        }
    }
}

/// What one transfer took, seconds.
pub(crate) struct Received {
    pub(crate) clock: f64,
    /// CPU of both processes, in the program and in the kernel.
    pub(crate) cpu: f64,
}

/// A connection to a process that sends.
pub(crate) struct Bare {
    child: Child,
    control: Control,
    peer: PeerId,
}

impl Bare {
    pub(crate) async fn connect(security: Security) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, security.name())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address: Multiaddr = line.trim().parse().unwrap();
        let Some(Protocol::P2p(peer)) = address.iter().last() else { panic!("no peer in {address}") };
        let mut swarm = security.swarm();
        let control = swarm.behaviour().new_control();
        swarm.dial(address).unwrap();
        while !swarm.is_connected(&peer) {
            swarm.select_next_some().await;
        }
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { child, control, peer }
    }

    /// Receives so many bytes, a multiple of 256 KiB.
    pub(crate) async fn receive(&mut self, bytes: u64) -> Received {
        let pids = [std::process::id(), self.child.id()];
        let cpu = || pids.map(cpu_of).iter().map(|(program, kernel)| program + kernel).sum::<f64>();
        let (before, begun) = (cpu(), Instant::now());
        let mut stream = self.control.open_stream(self.peer, PROTOCOL).await.unwrap();
        stream.write_all(&bytes.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let (mut buffer, mut received) = (vec![0; BLOCK], 0);
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => received += count as u64,
            }
        }
        assert_eq!(received, bytes);
        Received { clock: begun.elapsed().as_secs_f64(), cpu: cpu() - before }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
