//! A server that nests diagnostics without end, which the decoder of the library would follow until the stack is gone: the line ends and
//! says why, the process lives, and the lines beside it go on.

mod support;

use device_drivers::opcua::browse::browse;
use device_drivers::opcua::pki::Pki;
use device_drivers::opcua::{OpcUa, OpcUaSpec, Policy, Security, probe};
use opcua::crypto::SecurityPolicy;
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerEndpoint};
use opcua::types::{DataValue, DateTime, DiagnosticInfo, MessageSecurityMode, Variant};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::time::Duration;
use support::ua_server::UaServer;
use support::{Line, bank_points, ms, spec, test_points};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Another DiagnosticInfo inside, and nothing else.
const INNER: u8 = 0x40;
/// More than one stack holds, in what fits into a chunk.
const DEPTH: usize = 60_000;

const OPEN_RESPONSE: u16 = 449;
const PUBLISH_RESPONSE: u16 = 829;
const WHY: &str = "diagnostics nested";

/// One message: its header and the rest.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<([u8; 8], Vec<u8>)> {
    let mut head = [0u8; 8];
    from.read_exact(&mut head).await.ok()?;
    let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let mut rest = vec![0u8; size - head.len()];
    from.read_exact(&mut rest).await.ok()?;
    Some((head, rest))
}

fn framed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&kind[..], &(body.len() as u32 + 8).to_le_bytes(), &body].concat()
}

/// The type of a response and its header, with diagnostics so deep.
fn response(kind: u16, depth: usize) -> Vec<u8> {
    let header = [&DateTime::now().ticks().to_le_bytes()[..], &[1, 0, 0, 0], &[0; 4]].concat();
    [&[1, 0][..], &kind.to_le_bytes(), &header, &vec![INNER; depth], &[0], &[0xFF; 4], &[0; 3]].concat()
}

/// Answers an OpenSecureChannel without security, and any other request, with diagnostics of these depths.
async fn hostile(opening: usize, request: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sequence = 0u32;
                while let Some((head, rest)) = message(&mut socket).await {
                    sequence += 1;
                    let answer = match &head[..3] {
                        b"HEL" => framed(b"ACKF", &[&[0; 4], &[0, 0, 1, 0].repeat(2), &[0, 0, 0, 1], &[0; 4]]),
                        b"OPN" => {
                            let (fields, held) = rest.split_at(rest.len() - opening_length(&rest));
                            let token = [&[0; 4][..], &7u32.to_le_bytes(), &7u32.to_le_bytes(), &[0; 8]].concat();
                            let body =
                                [response(OPEN_RESPONSE, opening), token, vec![0x80, 0xEE, 0x36, 0], vec![0xFF; 4]];
                            let fields = [&7u32.to_le_bytes(), &fields[4..]].concat();
                            framed(b"OPNF", &[&fields, &sequence.to_le_bytes(), &held[4..8], &body.concat()])
                        }
                        b"MSG" => {
                            let kind = u16::from_le_bytes([rest[18], rest[19]]) + 3;
                            let body = response(kind, request);
                            framed(b"MSGF", &[&rest[..8], &sequence.to_le_bytes(), &rest[12..16], &body, &[0; 4]])
                        }
                        _ => return,
                    };
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// So long is an OPN from its sequence number on: behind channel, policy, certificate and thumbprint.
fn opening_length(rest: &[u8]) -> usize {
    let mut at = 4;
    for _ in 0..3 {
        let length = i32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        at += 4 + length.max(0) as usize;
    }
    rest.len() - at
}

/// A good server, until it publishes.
async fn hostile_when_publishing(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(&server).await else { return };
            let (mut near_read, mut near_write) = near.into_split();
            let (mut far_read, mut far_write) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            tokio::spawn(async move {
                while let Some((head, rest)) = message(&mut far_read).await {
                    let is_publish = &head[..3] == b"MSG" && rest[18..20] == PUBLISH_RESPONSE.to_le_bytes();
                    let answer = match is_publish {
                        true => framed(b"MSGF", &[&rest[..16], &response(PUBLISH_RESPONSE, DEPTH)]),
                        false => [&head[..], &rest].concat(),
                    };
                    if near_write.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

async fn says_why(line: &Line) {
    let told = |r: &support::Record| r.last_error().filter(|why| why.contains(WHY)).map(|_| ());
    line.told.until("the line ends and says why", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_nested_without_end_end_the_line_and_not_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = OpcuaBankConfig { variables: 5, period: ms(50), ..OpcuaBankConfig::default() };
    let bank = opcua_bank::serve(config).await.unwrap();
    let server = bank.url().trim_start_matches("opc.tcp://").trim_end_matches('/').to_string();
    let neighbour = Line::run(OpcUa::new(spec(bank.url(), dir.path(), bank_points(5))), false);
    neighbour.told.until("a value", |r| r.good(0)).await;

    for url in [hostile(DEPTH, 0).await, hostile(0, DEPTH).await, hostile_when_publishing(server).await] {
        let line = Line::run(OpcUa::new(spec(url, dir.path(), bank_points(5))), false);
        says_why(&line).await;
        line.stop().await;
        let before = neighbour.told.look().readings.len();
        neighbour.told.until("the neighbour goes on", |r| (r.readings.len() > before + 5).then_some(())).await;
    }
    assert_eq!(neighbour.told.look().ups(), 1, "and never went down");
    neighbour.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_end_those_who_only_look() {
    let dir = tempfile::tempdir().unwrap();
    for url in [hostile(DEPTH, 0).await, hostile(0, DEPTH).await] {
        let spec = spec(url, dir.path(), bank_points(1));
        let why = browse(&spec, 10, |_, _| true).await.unwrap_err().to_string();
        assert!(why.contains(WHY), "{why}");
        let why = probe(&spec).await.unwrap_err();
        assert!(why.contains(WHY), "{why}");
    }
}

/// The server needs more stack than a test has, to send what it sends.
#[test]
fn they_are_found_in_what_is_encrypted_too() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_stack_size(256 << 20).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(encrypted()).await.unwrap() });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let server = UaServer::start(|b| {
        let users = [ANONYMOUS_USER_TOKEN_ID.to_string()];
        let policy = SecurityPolicy::Basic256Sha256;
        let endpoint = ServerEndpoint::new("/", policy, MessageSecurityMode::SignAndEncrypt, &users);
        b.create_sample_keypair(true).trust_client_certs(true).add_endpoint("secure", endpoint)
    })
    .await;
    server.add("X", 1i32, None);
    let pki = Pki::open(&dir.path().join("client")).unwrap();
    pki.trust(server.dir.path().join("pki/own/cert.der").to_str().unwrap()).unwrap();
    let security = Security { check_host: false, ..Security::encrypted(Policy::Basic256Sha256) };
    let spec = OpcUaSpec { security, ..spec(server.url(), dir.path(), test_points(&["X"])) };
    let line = Line::run(OpcUa::new(spec), false);
    line.told.until("a value", |r| r.good(0)).await;
    let deep = (0..4000).fold(DiagnosticInfo::null(), |inner, _| DiagnosticInfo {
        inner_diagnostic_info: Some(Box::new(inner)),
        ..DiagnosticInfo::null()
    });
    server.set("X", DataValue::new_now(Variant::DiagnosticInfo(Box::new(deep))));
    says_why(&line).await;
    line.stop().await;
}
