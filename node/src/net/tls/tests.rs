use std::net::Ipv4Addr;

use futures::{AsyncReadExt, future::join};
use futures_rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    rustls::CipherSuite,
};
use libp2p::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

type Socket = Compat<TcpStream>;

async fn sockets() -> (Socket, Socket) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let (dialled, accepted) = join(TcpStream::connect(listener.local_addr().expect("bound")), listener.accept()).await;
    (dialled.expect("connects").compat(), accepted.expect("accepts").0.compat())
}

fn ours(identity: &Keypair) -> Config {
    Config::new(identity).expect("a certificate")
}

fn stock(identity: &Keypair) -> tls::Config {
    tls::Config::new(identity).expect("a certificate")
}

/// Both ends of a handshake over a real socket, as text where it failed.
async fn handshake<D, L, S, T>(dialler: D, listener: L) -> (Result<(PeerId, S), String>, Result<(PeerId, T), String>)
where
    D: OutboundConnectionUpgrade<Socket, Output = (PeerId, S), Info = &'static str>,
    L: InboundConnectionUpgrade<Socket, Output = (PeerId, T), Info = &'static str>,
    D::Error: std::fmt::Display,
    L::Error: std::fmt::Display,
{
    let (dialled, accepted) = sockets().await;
    let (out, inn) =
        join(dialler.upgrade_outbound(dialled, PROTOCOL), listener.upgrade_inbound(accepted, PROTOCOL)).await;
    (out.map_err(|error| error.to_string()), inn.map_err(|error| error.to_string()))
}

/// Bytes go both ways, in pieces that fit no buffer.
async fn talk<S, T>(mut one: S, mut other: T)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let question: Vec<u8> = (0..=u8::MAX).cycle().take(777_777).collect();
    let ask = async {
        for piece in question.chunks(33_333) {
            one.write_all(piece).await.expect("written");
        }
        one.flush().await.expect("flushed");
        let mut answer = [0; 6];
        one.read_exact(&mut answer).await.expect("an answer");
        answer
    };
    let reply = async {
        let mut heard = vec![0; question.len()];
        other.read_exact(&mut heard).await.expect("a question");
        other.write_all(b"answer").await.expect("written");
        other.flush().await.expect("flushed");
        heard
    };
    let (answer, heard) = join(ask, reply).await;
    assert_eq!(&answer, b"answer");
    assert!(heard == question);
}

fn identities() -> [Keypair; 2] {
    [Keypair::generate_ed25519(), Keypair::generate_ed25519()]
}

fn suite<C>(stream: &TlsStream<C>) -> CipherSuite {
    stream.get_ref().1.negotiated_cipher_suite().expect("a suite").suite()
}

fn best() -> CipherSuite {
    if has_aes() { CipherSuite::TLS13_AES_128_GCM_SHA256 } else { CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 }
}

#[tokio::test]
async fn two_of_ours_know_each_other_and_take_the_best_suite() {
    let [a, b] = identities();
    let (out, inn) = handshake(ours(&a), ours(&b)).await;
    let ((to, out), (from, inn)) = (out.expect("dials"), inn.expect("accepts"));
    assert_eq!((to, from), (b.public().to_peer_id(), a.public().to_peer_id()));
    assert_eq!((suite(&out), suite(&inn)), (best(), best()));
    assert_eq!(out.get_ref().1.alpn_protocol(), Some(ALPN));
    talk(out, inn).await;
}

#[tokio::test]
async fn libp2p_tls_accepts_us_and_takes_our_order() {
    let [a, b] = identities();
    let (out, inn) = handshake(ours(&a), stock(&b)).await;
    let ((to, out), (from, inn)) = (out.expect("dials"), inn.expect("accepts"));
    assert_eq!((to, from), (b.public().to_peer_id(), a.public().to_peer_id()));
    assert_eq!(suite(&out), best());
    talk(out, inn).await;
}

#[tokio::test]
async fn we_accept_libp2p_tls_and_take_its_order() {
    let [a, b] = identities();
    let (out, inn) = handshake(stock(&a), ours(&b)).await;
    let ((to, out), (from, inn)) = (out.expect("dials"), inn.expect("accepts"));
    assert_eq!((to, from), (b.public().to_peer_id(), a.public().to_peer_id()));
    assert_eq!(suite(&inn), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    talk(inn, out).await;
}

#[test]
fn the_suites_and_algorithms_are_those_of_libp2p_tls() {
    let [identity, _] = identities();
    let theirs = tls::make_client_config(&identity, None).expect("a certificate");
    let ours = ours(&identity);
    let suites = |provider: &CryptoProvider| {
        let mut suites: Vec<String> =
            provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        suites.sort();
        suites
    };
    let groups = |provider: &CryptoProvider| provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
    for provider in [ours.client.crypto_provider(), ours.server.crypto_provider()] {
        assert_eq!(suites(provider), suites(theirs.crypto_provider()));
        assert_eq!(groups(provider), groups(theirs.crypto_provider()));
    }
    assert_eq!(ours.client.alpn_protocols, theirs.alpn_protocols);
}

/// What somebody else than an honest peer shows.
enum Forgery {
    /// The victim's node key in the certificate, signed by the forger's.
    Claimed,
    /// No node key at all.
    Bare,
    /// The victim's own certificate, without the key to it.
    Replayed,
    /// A good certificate with a changed byte in it.
    Altered,
    /// The victim's certificate beside an own one.
    Two,
}

const FORGERIES: [Forgery; 5] = [Forgery::Claimed, Forgery::Bare, Forgery::Replayed, Forgery::Altered, Forgery::Two];

/// The libp2p extension: `SEQUENCE { OCTET STRING public key, OCTET STRING signature }`.
fn extension(shown: &Keypair, signer: &Keypair, certificate_key: &rcgen::KeyPair) -> rcgen::CustomExtension {
    let message = [b"libp2p-tls-handshake:".as_slice(), &certificate_key.public_key_der()].concat();
    let octets = |bytes: &[u8]| [&[4, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let signature = signer.sign(&message).expect("signs");
    let content = [octets(&shown.public().encode_protobuf()), octets(&signature)].concat();
    let content = [&[0x30, u8::try_from(content.len()).expect("short")], content.as_slice()].concat();
    let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], content);
    extension.set_criticality(true);
    extension
}

fn self_made(extensions: Vec<rcgen::CustomExtension>, key: &rcgen::KeyPair) -> CertificateDer<'static> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.custom_extensions = extensions;
    params.self_signed(key).expect("a certificate").into()
}

fn private(key: &rcgen::KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Our own configuration, showing other certificates.
fn showing(certificates: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Config {
    let mut config = ours(&Keypair::generate_ed25519());
    let key = aws_lc_rs::sign::any_ecdsa_type(key).expect("a key");
    let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(certificates, key)));
    Arc::make_mut(&mut config.client).client_auth_cert_resolver = Arc::clone(&shown) as Arc<dyn ResolvesClientCert>;
    Arc::make_mut(&mut config.server).cert_resolver = shown;
    config
}

fn forge(forgery: &Forgery, victim: &Keypair, forger: &Keypair) -> Config {
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = || self_made(vec![extension(forger, forger, &key)], &key);
    let (real, _) = certificate::generate(victim).expect("a certificate");
    let certificates = match forgery {
        Forgery::Claimed => vec![self_made(vec![extension(victim, forger, &key)], &key)],
        Forgery::Bare => vec![self_made(vec![], &key)],
        Forgery::Replayed => vec![real],
        Forgery::Altered => {
            let mut bytes = own().to_vec();
            // Inside the validity, which is followed by more than this.
            let middle = bytes.len() / 3;
            bytes[middle] ^= 1;
            vec![bytes.into()]
        }
        Forgery::Two => vec![own(), real],
    };
    showing(certificates, &private(&key))
}

#[tokio::test]
async fn the_forger_is_accepted_while_it_forges_nothing() {
    let [victim, forger] = identities();
    let key = rcgen::KeyPair::generate().expect("a key");
    let honest = || showing(vec![self_made(vec![extension(&forger, &forger, &key)], &key)], &private(&key));
    let (_, inn) = handshake(honest(), ours(&victim)).await;
    assert_eq!(inn.expect("accepts").0, forger.public().to_peer_id());
    let (out, _) = handshake(ours(&victim), honest()).await;
    assert_eq!(out.expect("dials").0, forger.public().to_peer_id());
}

#[tokio::test]
async fn forged_certificates_are_refused_from_those_who_dial_and_those_who_listen() {
    let [victim, forger] = identities();
    let other = Keypair::generate_ed25519();
    for (number, forgery) in FORGERIES.iter().enumerate() {
        let (_, inn) = handshake(forge(forgery, &victim, &forger), ours(&other)).await;
        let refusal = inn.err().unwrap_or_else(|| panic!("forgery {number} was accepted by the listener"));
        assert!(refusal.starts_with("the TLS handshake failed"), "forgery {number}: {refusal}");
        let (out, inn) = handshake(ours(&other), forge(forgery, &victim, &forger)).await;
        assert!(out.is_err(), "forgery {number} was accepted by the dialler");
        // The refusal was sent, not just meant.
        let told = inn.err().unwrap_or_else(|| panic!("forgery {number}: the listener went on"));
        assert!(told.contains("alert"), "forgery {number}: {told}");
    }
}

#[tokio::test]
async fn whoever_shows_no_certificate_is_refused() {
    #[derive(Debug)]
    struct Nothing;
    impl ResolvesClientCert for Nothing {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    let [a, b] = identities();
    let mut shy = ours(&a);
    Arc::make_mut(&mut shy.client).client_auth_cert_resolver = Arc::new(Nothing);
    let (_, inn) = handshake(shy, ours(&b)).await;
    assert!(inn.is_err(), "accepted");
}
