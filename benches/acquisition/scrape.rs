//! The agent's HTTP, as anybody sees it: the page of figures, and writes.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection that is kept, and made anew when the agent has closed it.
pub(crate) struct Http {
    at: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    pub(crate) fn new(at: SocketAddr) -> Http {
        Http { at, stream: None }
    }

    /// One request, body of the answer. The agent ends connections of a certain age: then once more on a new one.
    fn ask(&mut self, head: &str, body: &str) -> String {
        let (at, length) = (self.at, body.len());
        let text = format!(
            "{head} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let used = self.stream.is_some();
        match self.exchange(&text) {
            Ok(answer) => answer,
            Err(_) if used => {
                self.stream = None;
                self.exchange(&text).unwrap_or_else(|e| panic!("{head}: {e}"))
            }
            Err(e) => panic!("{head}: {e}"),
        }
    }

    fn exchange(&mut self, request: &str) -> std::io::Result<String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.at)?;
                stream.set_nodelay(true)?;
                self.stream.insert(BufReader::new(stream))
            }
        };
        stream.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        String::from_utf8(body).map_err(std::io::Error::other)
    }

    /// The page of figures.
    pub(crate) fn page(&mut self) -> Page {
        Page::new(&self.ask("GET /metrics", ""))
    }

    /// Writes a tag; the answer is its outcome.
    pub(crate) fn write(&mut self, tag: &str, value: f64) -> String {
        let answer = self.ask("POST /api/v1/writes", &serde_json::json!({ "tag": tag, "value": value }).to_string());
        let json: Json = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{answer:?}: {e}"));
        json["outcome"].as_str().map_or(answer, String::from)
    }
}

/// The figures of one moment: name, labels, value.
pub(crate) struct Page(Vec<(String, String, f64)>);

impl Page {
    fn new(text: &str) -> Page {
        let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let (name, labels) = key.split_once('{').unwrap_or((key, ""));
            Some((name.to_string(), labels.trim_end_matches('}').to_string(), value.parse().ok()?))
        });
        Page(rows.collect())
    }

    /// A figure, summed over those labels that are wanted.
    pub(crate) fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        self.0.iter().filter(|(n, labels, _)| n == name && wanted(label(labels))).map(|(.., value)| value).sum()
    }

    /// A figure without labels, or over all of them.
    pub(crate) fn total(&self, name: &str) -> f64 {
        self.sum(name, |_| true)
    }

    /// A distribution, summed: count at each edge. Edges in microseconds, of a device's histogram four times apart: that is its resolution.
    fn edges(&self, name: &str, wanted: &impl Fn(&str) -> bool) -> BTreeMap<u64, f64> {
        let name = format!("{name}_bucket");
        let mut edges = BTreeMap::new();
        for (_, labels, count) in self.0.iter().filter(|(n, labels, _)| *n == name && wanted(label(labels))) {
            let edge = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
            if let Some(edge) = edge.filter(|e| e.is_finite()) {
                *edges.entry((edge * 1e6).round() as u64).or_default() += count;
            }
        }
        edges
    }

    /// p50, p99 and the highest of a distribution since `before`: the upper edge of the bucket each falls into.
    pub(crate) fn spread_us(&self, before: &Page, name: &str, wanted: impl Fn(&str) -> bool) -> Option<[u64; 3]> {
        let (old, new) = (before.edges(name, &wanted), self.edges(name, &wanted));
        let since: Vec<(u64, f64)> =
            new.iter().map(|(edge, count)| (*edge, count - old.get(edge).copied().unwrap_or(0.0))).collect();
        let total = since.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let at = |share: f64| since.iter().find(|(_, count)| *count >= share * total).map_or(0, |(edge, _)| *edge);
        Some([at(0.5), at(0.99), at(1.0)])
    }
}

/// The value of the first label.
fn label(labels: &str) -> &str {
    labels.split('"').nth(1).unwrap_or_default()
}
