//! Talking to a running agent: one request on a connection of its own, over the API that the page uses too.

use super::{EXIT_NO_AGENT, EXIT_NOT_ALLOWED, Failure};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;

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
    /// File with an API token; LIGHTSOUT_TOKEN holds one too
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl Agent {
    fn at(&self) -> Result<String, Failure> {
        let given = self.url.clone().or_else(|| std::env::var("LIGHTSOUT_URL").ok());
        let url = given.unwrap_or_else(|| "http://127.0.0.1:9464".into());
        match url.strip_prefix("http://") {
            Some(rest) => Ok(rest.trim_end_matches('/').to_string()),
            None => Err(Failure::usage(format!("--url: found {url}, expected http://host:port"))),
        }
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
        let (at, token) = (self.at()?, self.token()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(1, e.to_string()))?;
        let exchange = exchange(&at, token.as_deref(), method, path, body);
        let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, exchange).await });
        let (status, text) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                let text = format!("the agent at http://{at} cannot be reached: {why}; does it run? --url says where");
                return Err(Failure::new(EXIT_NO_AGENT, text));
            }
            Err(_) => {
                return Err(Failure::new(
                    EXIT_NO_AGENT,
                    format!("the agent at http://{at} does not answer in {LIMIT:?}"),
                ));
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

async fn exchange(
    at: &str,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<(u16, Bytes), String> {
    let stream = tokio::net::TcpStream::connect(at).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, at);
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
