//! TLS by certificate files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that have agreed on keys and wait to be served.
const WAITING: usize = 64;

/// Reads a certificate (with those that vouch for it) and its key, both in PEM.
pub fn config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let unusable = |path: &Path, what| format!("{} can't be used as {what}; it must be a PEM file", path.display());
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.with_context(|| unusable(certificate, "a certificate"))?;
    if chain.is_empty() {
        bail!("there is no certificate in {}; it must be a PEM file", certificate.display());
    }
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| unusable(key, "a private key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("the TLS library has no protocol that it trusts")?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("{} is not a certificate for {}", certificate.display(), key.display()))?;
    Ok(Arc::new(config))
}

/// A listener whose connections have agreed on keys. Those that are slow to do so keep nobody else waiting.
pub struct TlsListener {
    agreed: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: std::io::Result<SocketAddr>,
}

impl TlsListener {
    /// Takes connections from `listener` from now on.
    pub fn start(mut listener: TcpListener, config: Arc<ServerConfig>) -> TlsListener {
        let (give, agreed) = mpsc::channel(WAITING);
        let address = listener.local_addr();
        let acceptor = TlsAcceptor::from(config);
        tokio::spawn(async move {
            while !give.is_closed() {
                let (stream, address) = Listener::accept(&mut listener).await;
                let (acceptor, give) = (acceptor.clone(), give.clone());
                tokio::spawn(async move {
                    // Tokens are small, and shall not wait for each other.
                    let _ = stream.set_nodelay(true);
                    // Whoever fails to agree learns it from TLS itself.
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        let _ = give.send((stream, address)).await;
                    }
                });
            }
        });
        TlsListener { agreed, address }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.agreed.recv().await {
                Some(connection) => return connection,
                // The task that gives them lives as long as we do.
                None => sleep(HANDSHAKE).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
