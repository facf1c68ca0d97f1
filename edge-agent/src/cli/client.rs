//! Talking to a running agent: one request on a connection of its own, over the API that the page uses too.

use super::{EXIT_NO_AGENT, EXIT_NOT_ALLOWED, Failure};
use clap::Args;
use device_drivers::dial;
use device_drivers::tls::{Tls, shown};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest answer taken, bytes.
const ANSWER_MAX: usize = 16 << 20;
/// Time for an answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Which agent, and who asks.
#[derive(Clone, Debug, Args)]
pub(super) struct Agent {
    /// Where the agent listens; LIGHTSOUT_URL says it too
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// File with certificates to believe an https:// agent by, its own or its authority's; LIGHTSOUT_CA says it too
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// File with an API token; LIGHTSOUT_TOKEN holds one too
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// Where the authorities of the system are, when none is named.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An address, and whom to believe there.
struct Place {
    at: String,
    tls: Option<Tls>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.at)
    }
}

impl Agent {
    fn place(&self) -> Result<Place, Failure> {
        let given = self.url.clone().or_else(|| std::env::var("LIGHTSOUT_URL").ok());
        let url = given.unwrap_or_else(|| "http://127.0.0.1:9464".into());
        let ca = self.ca.clone().or_else(|| std::env::var_os("LIGHTSOUT_CA").map(PathBuf::from));
        let tls = || Tls { ca: ca.unwrap_or_else(|| SYSTEM_CA.into()), own: None, name: None };
        let (rest, tls, usual_port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, None, 80),
            (_, Some(rest)) => (rest, Some(tls()), 443),
            _ => {
                let text = format!("--url: found {url}, expected http://host:port or https://host:port");
                return Err(Failure::usage(text));
            }
        };
        let rest = rest.trim_end_matches('/');
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let at = if has_port { rest.to_string() } else { format!("{rest}:{usual_port}") };
        Ok(Place { at, tls })
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        match &self.token_file {
            Some(file) => std::fs::read_to_string(file)
                .map(|text| Some(text.trim().to_string()))
                .map_err(|e| Failure::usage(format!("{}: {e}", file.display()))),
            None => Ok(std::env::var("LIGHTSOUT_TOKEN").ok()),
        }
    }

    /// Asks, and reads the answer as JSON; a problem becomes a failure with its detail.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, Failure> {
        let (place, token) = (self.place()?, self.token()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(1, e.to_string()))?;
        let exchange = exchange(&place, token.as_deref(), method, path, body);
        let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, exchange).await });
        let (status, text) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                let text = match why {
                    Unheard::Silent(why) => {
                        format!("the agent at {place} cannot be reached: {why}; does it run? --url says where")
                    }
                    Unheard::Untrusted(why) => format!(
                        "the agent at {place} answers, and its certificate is not trusted: {why}; --ca FILE says whom to believe"
                    ),
                };
                return Err(Failure::new(EXIT_NO_AGENT, text));
            }
            Err(_) => {
                return Err(Failure::new(EXIT_NO_AGENT, format!("the agent at {place} does not answer in {LIMIT:?}")));
            }
        };
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null);
        if (200..300).contains(&status) {
            return Ok(json);
        }
        let detail = json["detail"].as_str().map_or_else(|| format!("HTTP {status}"), String::from);
        let (code, hint) = match status {
            401 | 403 => (EXIT_NOT_ALLOWED, "; a token goes into LIGHTSOUT_TOKEN or --token-file"),
            _ => (1, ""),
        };
        Err(Failure { code, text: format!("{detail}{hint}"), json: Some(json) })
    }
}

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why there is no answer.
enum Unheard {
    Silent(String),
    Untrusted(String),
}

impl From<String> for Unheard {
    fn from(why: String) -> Unheard {
        Unheard::Silent(why)
    }
}

async fn connect(place: &Place) -> Result<Box<dyn Io>, Unheard> {
    let stream = dial(place.at.as_str(), LIMIT).await.map_err(|e| e.to_string())?;
    let Some(tls) = &place.tls else { return Ok(Box::new(stream)) };
    let host = place.at.rsplit_once(':').map_or(place.at.as_str(), |(host, _)| host);
    let stream = tls.connect(host, stream, LIMIT).await.map_err(|why| match shown::of(&place.at) {
        Some(own) if own.subject == own.issuer => Unheard::Untrusted(format!(
            "it has signed itself ({}). If the gateway has made it, it is tls/gateway.pem in its state_dir",
            own.subject
        )),
        Some(_) => Unheard::Untrusted(why),
        None => Unheard::Silent(why),
    })?;
    Ok(Box::new(stream))
}

async fn exchange(
    place: &Place,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<(u16, Bytes), Unheard> {
    let stream = connect(place).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, &place.at);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(body.map_or_else(String::new, ToString::to_string)));
    let request = request.body(body).map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = answer.status().as_u16();
    let text = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
    driver.abort();
    Ok((status, text))
}
