//! A broker that says one thing to CONNECT, with TLS or without: for what happens before the first message.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use super::authority::{Authority, Made};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, crypto, version};

/// What a broker of MQTT 5 and one of 3.1.1 say to CONNECT.
pub const WELCOME_5: &[u8] = &[0x20, 3, 0, 0, 0];
/// See there.
pub const WELCOME_311: &[u8] = &[0x20, 2, 0, 0];
/// Bad user name or password.
pub const BAD_PASSWORD: &[u8] = &[0x20, 3, 0, 0x86, 0];
/// The same of 3.1.1.
pub const BAD_PASSWORD_311: &[u8] = &[0x20, 2, 0, 4];
/// 3.1.1: unacceptable protocol version.
pub const NOT_MY_VERSION: &[u8] = &[0x20, 2, 0, 1];

/// The one of the program.
pub fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// A server's side of TLS: its chain and key, and whose clients it takes.
pub fn tls(
    chain: &str,
    made: &Made,
    clients: Option<&Authority>,
    only: &[&'static SupportedProtocolVersion],
) -> TlsAcceptor {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(only).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// Both versions of TLS.
pub const ANY: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

/// A broker that says one thing to CONNECT: for MQTT 5, and for 3.1.1. Nothing: it hangs up.
pub async fn broker(tls: Option<TlsAcceptor>, to_5: &'static [u8], to_311: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, to_5, to_311).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, to_5, to_311).await;
                        }
                    }
                }
            });
        }
    });
    port
}

async fn answer(mut io: impl AsyncRead + AsyncWrite + Unpin, to_5: &[u8], to_311: &[u8]) {
    // Fixed header, "MQTT", level.
    let mut head = [0; 9];
    if io.read_exact(&mut head).await.is_err() || head[0] != 0x10 {
        return; // as a broker does when somebody greets it in another tongue
    }
    let (level, mut rest) = (head[8], [0; 1024]);
    let said = if level == 5 { to_5 } else { to_311 };
    let _ = io.read(&mut rest).await;
    let _ = io.write_all(said).await;
    let _ = io.flush().await;
    let _ = io.read(&mut rest).await;
    let _ = io.shutdown().await;
}
