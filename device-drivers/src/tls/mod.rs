//! TLS to a peer: whom to trust, who we are, and every refusal in words a technician can act on.
//!
//! ```text
//!   Tls (files) ──connect──> handshake ── the peer's certificate: judge ──> TlsLink: reads and writes, and says what an alert means
//!                                              ├─ signed by one of `ca`, or one of them itself; for this name; in time
//!                                              └─ noted in `shown`: what a peer shows runs out, too
//! ```

mod certificate;
mod judge;
pub mod shown;
mod words;

pub use certificate::Certificate;
pub use judge::is_as_signed;

use crate::files;
use judge::Judge;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// TLS files, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that may sign the peer's; or the peer's own, if nobody else has signed it.
    pub ca: PathBuf,
    /// Our own certificate (with its chain) and key: mutual TLS.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name the peer's certificate is made out to, if it is not the host of the address.
    pub name: Option<String>,
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |e: &dyn std::fmt::Display| format!("cannot read certificates from {}: {e}", path.display());
    let bytes = files::read(path, files::AUTHORITIES_MAX).map_err(|e| fail(&e))?;
    let all =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(|e| fail(&pem_trouble(&e)))?;
    if all.is_empty() { Err(format!("{} holds no certificate in PEM form", path.display())) } else { Ok(all) }
}

/// The key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let fail = |e: &dyn std::fmt::Display| format!("cannot read a key from {}: {e}", path.display());
    let bytes = files::read(path, files::SECRET_MAX).map_err(|e| fail(&e))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| fail(&pem_trouble(&e)))
}

/// What is wrong with a PEM file, in words: the library shows bytes.
pub fn pem_trouble(e: &pem::Error) -> String {
    match e {
        pem::Error::NoItemsFound => "it holds none in PEM form".into(),
        pem::Error::MissingSectionEnd { .. } => "it is cut short: a line -----END .. is missing".into(),
        pem::Error::IllegalSectionStart { .. } => "a line -----BEGIN .. is damaged".into(),
        pem::Error::Base64Decode(_) => "it is damaged: what stands between its lines BEGIN and END is no base64".into(),
        other => other.to_string(),
    }
}

impl Tls {
    /// Shakes hands with `host` over a connection that is there; the text says what a technician can look at.
    pub async fn connect(&self, host: &str, stream: TcpStream, limit: Duration) -> Result<TlsLink, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let peer = stream.peer_addr().map_or_else(|_| host.to_string(), |at| format!("{host}:{}", at.port()));
        let (config, judge) = self.client_config(&peer)?;
        let name = self.name.as_deref().unwrap_or(host).to_string();
        let name = ServerName::try_from(name).map_err(|e| format!("no name to check the certificate by: {e}"))?;
        match timeout(limit, tokio_rustls::TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(inner)) => Ok(TlsLink { inner, has_own: self.own.is_some(), has_heard: false }),
            Ok(Err(e)) => Err(judge.verdict().unwrap_or_else(|| words::of_handshake(&e, self.own.is_some()))),
            Err(_) => Err(format!("no TLS within {limit:?}; does the peer speak TLS on this port?")),
        }
    }

    /// TLS 1.2 or 1.3, the peer's certificate checked against `ca` (Modbus/TCP Security V3.6, 8). Read anew for every
    /// connection, so that a renewed certificate needs no restart.
    fn client_config(&self, peer: &str) -> Result<(Arc<rustls::ClientConfig>, Arc<Judge>), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let judge = Arc::new(Judge::new(&self.ca, certificates(&self.ca)?, peer, provider.clone())?);
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous() // so it is called; the judge asks what the library's own verifier asks
            .with_custom_certificate_verifier(judge.clone());
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let secret = private_key(key)?;
                let own = certificates(chain)?;
                fit_to_show(chain, &own)?;
                builder.with_client_auth_cert(own, secret).map_err(|e| match e {
                    rustls::Error::InconsistentKeys(_) => {
                        format!("{} is not the key of the certificate in {}", key.display(), chain.display())
                    }
                    other => format!("our own certificate {}: {other}", chain.display()),
                })?
            }
        };
        Ok((Arc::new(config), judge))
    }
}

/// Whether who is at the other end of a fresh connection answers a TLS greeting: to tell somebody who has spoken plainly there.
pub async fn is_spoken(mut stream: TcpStream, limit: Duration) -> bool {
    /// The first byte of a TLS record: a handshake message or an alert (RFC 8446, 5.1).
    const RECORDS: std::ops::RangeInclusive<u8> = 0x15..=0x16;
    let greeting = || -> Option<Vec<u8>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("localhost").ok()?;
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).ok()?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).ok()?;
        Some(bytes)
    };
    let Some(greeting) = greeting() else { return false };
    let answer = async {
        stream.write_all(&greeting).await.ok()?;
        stream.read_u8().await.ok()
    };
    timeout(limit, answer).await.ok().flatten().is_some_and(|first| RECORDS.contains(&first))
}

/// Whether our own certificate is one that a peer can take at all: nobody takes version 1 (RFC 5280, 4.1.2.1), and every TLS library says
/// it in another way.
fn fit_to_show(file: &Path, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let Some(own) = chain.first() else { return Ok(()) };
    let own = Certificate::from_der(own).map_err(|e| format!("{}: {e}", file.display()))?;
    if own.version < 3 {
        return Err(format!("our own certificate {}: {}", file.display(), words::VERSION_1));
    }
    Ok(())
}

/// A connection with TLS. What ends it is said in words: with TLS 1.3 a peer refuses our certificate after the handshake.
pub struct TlsLink {
    inner: tokio_rustls::client::TlsStream<TcpStream>,
    has_own: bool,
    /// Whether the peer has said anything since the handshake.
    has_heard: bool,
}

impl TlsLink {
    fn told(&self, e: io::Error) -> io::Error {
        words::of_link(e, self.has_own, self.has_heard)
    }

    /// What ends a write is often told by what was still to be read: an alert.
    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        done.map_err(|e| {
            if !words::is_cut(&e) {
                return self.told(e);
            }
            let mut bytes = [0];
            match Pin::new(&mut self.inner).poll_read(cx, &mut ReadBuf::new(&mut bytes)) {
                Poll::Ready(Err(why)) => self.told(why),
                _ => self.told(e),
            }
        })
    }
}

impl AsyncRead for TlsLink {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.has_heard |= buf.filled().len() > before;
        done.map_err(|e| self.told(e))
    }
}

impl AsyncWrite for TlsLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(cx, done)
    }
}
