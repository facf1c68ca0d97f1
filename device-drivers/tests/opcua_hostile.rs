//! A server that has been taken over, or somebody between us and a good one: a proxy changes bytes on their way to us, or cuts messages short,
//! by a seed. Nothing that comes may make the client panic, for in the daemon a panic is the end of all lines.
//!
//! `LIGHTSOUT_SEED=17 LIGHTSOUT_ROUNDS=1 cargo test -p device-drivers --test opcua_hostile` runs one seed again;
//! `LIGHTSOUT_ROUNDS=500` looks longer.

mod support;

use device_drivers::opcua::pki::Pki;
use device_drivers::opcua::{OpcUa, OpcUaSpec, Policy, Security};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::sync::Mutex;
use std::time::Duration;
use support::{Line, bank_points, ms, spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Seeds at once.
const AT_ONCE: u64 = 10;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Somebody between us and `server`, as the seed has it.
async fn between(server: String, seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("opc.tcp://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(&server).await else { return };
            let (mut near_read, mut near_write) = near.into_split();
            let (mut far_read, mut far_write) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            let mut rng = rng.fork();
            tokio::spawn(async move {
                // Which message is the first to be spoilt; a few are let through, or nothing but openings would be tried.
                let first = rng.usize(0..12);
                let mut head = [0u8; 8];
                for n in 0.. {
                    if far_read.read_exact(&mut head).await.is_err() {
                        return;
                    }
                    let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
                    let mut message = head.to_vec();
                    message.resize(size, 0);
                    if far_read.read_exact(&mut message[8..]).await.is_err() {
                        return;
                    }
                    if n >= first && rng.bool() {
                        spoil(&mut message, &mut rng);
                    }
                    if near_write.write_all(&message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Makes a message one that cannot be.
fn spoil(message: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    if rng.bool() {
        // Cut short, and its header says so: often so short that nothing of what it must hold has room.
        let most = if rng.bool() { message.len().min(64) } else { message.len() };
        message.truncate(rng.usize(8..most.max(9)));
        let size = (message.len() as u32).to_le_bytes();
        message[4..8].copy_from_slice(&size);
        return;
    }
    for _ in 0..rng.usize(1..6) {
        let (at, bit) = (rng.usize(8..message.len().max(9)), rng.u8(0..8));
        let Some(byte) = message.get_mut(at) else { return };
        *byte = match rng.u8(0..5) {
            0 => 0xFF,
            1 => 0,
            2 => 0x7F,
            3 => *byte ^ 1 << bit,
            _ => rng.u8(..),
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_of_a_server_make_the_client_panic() {
    std::panic::set_hook(Box::new(|info| {
        let told = info.to_string();
        // Three quarters of a token's lifetime: with the checks of a debug build alone, and never in the daemon.
        if !told.contains("multiply with overflow") {
            PANICS.lock().unwrap().push(told);
        }
    }));
    let dir = tempfile::tempdir().unwrap();
    let config = OpcuaBankConfig {
        variables: 20,
        period: ms(50),
        secure: true,
        trust_all: true,
        pki_dir: Some(dir.path().join("server")),
        ..OpcuaBankConfig::default()
    };
    let bank = opcua_bank::serve(config).await.unwrap();
    let server = bank.url().trim_start_matches("opc.tcp://").trim_end_matches('/').to_string();
    let pki = Pki::open(&dir.path().join("client")).unwrap();
    pki.own().unwrap();
    pki.trust(dir.path().join("server/own/cert.der").to_str().unwrap()).unwrap();
    let encrypted = Security { check_host: false, ..Security::encrypted(Policy::Basic256Sha256) };
    let securities = [Security::NONE, encrypted, "Aes256_Sha256_RsaPss/Sign".parse().unwrap()];
    let first = number("LIGHTSOUT_SEED", 1);
    let seeds: Vec<u64> = (first..first + number("LIGHTSOUT_ROUNDS", 30)).collect();
    let mut heard = 0;
    for batch in seeds.chunks(AT_ONCE as usize) {
        let mut lines = Vec::new();
        for seed in batch {
            let security = Security { check_host: false, ..securities[*seed as usize % 3] };
            let url = between(server.clone(), *seed).await;
            let spec = OpcUaSpec { security, timeout: ms(500), ..spec(url, dir.path(), bank_points(20)) };
            lines.push(Line::run(OpcUa::new(spec), false));
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for (line, seed) in lines.into_iter().zip(batch) {
            let panics = std::mem::take(&mut *PANICS.lock().unwrap());
            if !panics.is_empty() {
                let _ = std::panic::take_hook(); // the test's own is shown
            }
            assert!(panics.is_empty(), "by seed {seed} or another of {batch:?}: {panics:#?}");
            heard += line.told.look().readings.len();
            line.stop().await;
        }
    }
    let _ = std::panic::take_hook();
    assert!(heard > 100, "{heard} readings: the proxy lets nothing through, and this shows nothing");
}
