//! TLS 1.3 for connections over TCP, as the libp2p specification has it: protocol `/tls/1.0.0`, mutual, each end shows one
//! certificate that it signed itself and that carries its node key's signature over the certificate's key.
//!
//! libp2p-tls makes the certificates and judges them ([`certificate`]); whether the peer is the one that was meant is checked
//! by the swarm, as with every transport. What this module adds is the way the bytes take:
//!
//! - **AES-GCM first** where the processor has instructions for it. libp2p-tls always offers ChaCha20-Poly1305 first, which
//!   then costs a multiple. The dialling end's order counts, so a robot without such instructions still gets ChaCha20.
//! - **Buffers below TLS.** Rustls reads the socket in steps of 4 KiB and writes it record by record. Behind buffers, a Yamux
//!   frame with its header is one write, and one read takes all that has arrived.
//! - **No resumption**: every connection proves both identities anew. **No key log**, whatever the environment says.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt, FutureExt,
    future::BoxFuture,
    io::{BufReader, BufWriter},
};
use futures_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    pki_types::{CertificateDer, ServerName, UnixTime},
    rustls::{
        self, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
        SignatureScheme, SupportedCipherSuite,
        client::{
            ResolvesClientCert, Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{
            CryptoProvider,
            aws_lc_rs::{
                self,
                cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
            },
        },
        server::danger::{ClientCertVerified, ClientCertVerifier},
        sign::{CertifiedKey, SingleCertAndKey},
        version::TLS13,
    },
};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    tls::certificate,
};

const PROTOCOL: &str = "/tls/1.0.0";
/// The same TLS under a name that only Tributary knows, see [`Config::among_ourselves`].
const OWN_PROTOCOL: &str = "/tributary/tls/1.0.0";
const ALPN: &[u8] = b"libp2p";
/// What one read of the socket may bring, bytes. One per connection; pages of it that were never filled take no memory.
const READ_BUFFER: usize = 64 << 10;
/// What is gathered before it is written, bytes: a Yamux frame of 64 KiB with its header, in records. One per connection, like
/// the other.
const WRITE_BUFFER: usize = 80 << 10;

/// The socket below TLS.
type Buffered<C> = BufReader<BufWriter<C>>;

fn buffered<C: AsyncRead + AsyncWrite>(socket: C) -> Buffered<C> {
    BufReader::with_capacity(READ_BUFFER, BufWriter::with_capacity(WRITE_BUFFER, socket))
}

/// Why TLS could not be set up at the start.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] certificate::GenError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Why a connection could not be secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the peer shows no single certificate")]
    NoCertificate,
    #[error("the peer's certificate is not valid: {0}")]
    Certificate(#[from] certificate::ParseError),
}

/// How connections are secured, in both directions.
#[derive(Clone)]
pub(super) struct Config {
    /// In the order of preference of the dialling end.
    names: &'static [&'static str],
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Config {
    /// A certificate for this start of the node, signed by its node key.
    pub(super) fn new(identity: &Keypair) -> Result<Self, SetupError> {
        let (certificate, key) = certificate::generate(identity)?;
        let shown = CertifiedKey::new(vec![certificate], aws_lc_rs::sign::any_ecdsa_type(&key)?);
        let shown = Arc::new(SingleCertAndKey::from(shown));
        let (provider, verifier) = (Arc::new(provider()), Arc::new(Verifier));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesClientCert>);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        // The specification forbids to send a name.
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let names = &[PROTOCOL, OWN_PROTOCOL];
        Ok(Self { names, server: Arc::new(server), client: Arc::new(client) })
    }

    /// For dialling somebody who may be another program: TLS if it is Tributary, and what is offered behind this if not. The TLS
    /// of peaq's software (py-libp2p) is not met so: it depends on private parts of the Python and OpenSSL it happens to run with.
    pub(super) fn among_ourselves(identity: &Keypair) -> Result<Self, SetupError> {
        Ok(Self { names: &[OWN_PROTOCOL], ..Self::new(identity)? })
    }
}

/// The suites of libp2p-tls, the one first that this processor does best.
fn provider() -> CryptoProvider {
    let mut cipher_suites: Vec<SupportedCipherSuite> =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        cipher_suites.reverse();
    }
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

/// Whether the processor has instructions for AES and for the hash of GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Copied<std::slice::Iter<'static, Self::Info>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.names.iter().copied()
    }
}

impl<C> InboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<Buffered<C>>);
    type Error = UpgradeError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        let accept = TlsAcceptor::from(self.server).accept(buffered(socket)).into_fallible();
        async move {
            match accept.await {
                Ok(stream) => authenticated(stream.into()),
                Err((error, socket)) => Err(refused(error, socket).await),
            }
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<Buffered<C>>);
    type Error = UpgradeError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        let nobody = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let connect = TlsConnector::from(self.client).connect(nobody, buffered(socket)).into_fallible();
        async move {
            match connect.await {
                Ok(stream) => authenticated(stream.into()),
                Err((error, socket)) => Err(refused(error, socket).await),
            }
        }
        .boxed()
    }
}

/// Sends what TLS still had to say, which is why it refused.
async fn refused<C: AsyncWrite + Unpin>(error: io::Error, mut socket: C) -> UpgradeError {
    // The connection is lost either way.
    let _ = socket.flush().await;
    error.into()
}

/// The peer that a finished handshake has proven.
fn authenticated<C>(stream: TlsStream<C>) -> Result<(PeerId, TlsStream<C>), UpgradeError> {
    let peer = peer_of(stream.get_ref().1)?;
    Ok((peer, stream))
}

fn peer_of(state: &CommonState) -> Result<PeerId, UpgradeError> {
    let Some([certificate]) = state.peer_certificates() else { return Err(UpgradeError::NoCertificate) };
    Ok(certificate::parse(certificate)?.peer_id())
}

/// Judges certificates as the specification asks: exactly one; valid now, signed by its own key with an algorithm that is
/// allowed, and carrying the node key's signature over that key ([`certificate::parse`] checks these); and the handshake signed
/// by the certificate's key. A client must show one, too: that is how rustls asks when nothing else is said.
#[derive(Debug)]
struct Verifier;

/// The algorithms of libp2p-tls, in its order.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

fn check_single(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    if !others.is_empty() {
        return Err(rustls::Error::General("libp2p peers show exactly one certificate".into()));
    }
    certificate::parse(certificate)?;
    Ok(())
}

fn check_handshake(
    certificate: &CertificateDer<'_>,
    message: &[u8],
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// TLS 1.2 is never negotiated.
fn too_old() -> rustls::Error {
    PeerIncompatible::Tls12NotOffered.into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        check_single(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(certificate, message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        check_single(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(certificate, message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests;
