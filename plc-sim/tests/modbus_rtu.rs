//! RTU framing, over TCP and on a pseudo-terminal: who answers, who keeps silent, and how the server finds its feet again.
//! Numbers are clauses of Modbus over Serial Line V1.02.

mod wire;

use plc_sim::bank::{Bank, BankConfig, BankDevice, FaultScript, Shape, signal};
use plc_sim::modbus::{Framing, Options, converse, crc};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};
use wire::{PATIENCE, SILENCE, STILL, read, still, write};

const GAP: Duration = Duration::from_millis(20);

fn adu(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let body = [&[unit][..], pdu].concat();
    [body.clone(), crc(&body).to_vec()].concat()
}

fn answer(unit: u8, value: u16) -> Vec<u8> {
    adu(unit, &[&[3, 2][..], &value.to_be_bytes()].concat())
}

async fn hears(line: &mut (impl AsyncRead + Unpin), want: &[u8], when: &str) {
    let mut got = vec![0; want.len()];
    let read = timeout(PATIENCE, line.read_exact(&mut got)).await;
    read.unwrap_or_else(|_| panic!("no answer {when}")).unwrap();
    assert_eq!(got, want, "{when}");
}

async fn hears_nothing(line: &mut (impl AsyncRead + Unpin), when: &str) {
    let mut byte = [0];
    let heard = timeout(SILENCE, line.read(&mut byte)).await;
    assert!(heard.is_err(), "heard {byte:?} {when}");
}

/// What every RTU line must do.
async fn conversation(line: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let first = |unit| answer(unit, signal::register(unit, 0, 1));
    let request = |unit| adu(unit, &read(3, 0, 1));

    line.write_all(&request(2)).await.unwrap();
    hears(line, &first(2), "to a request").await;

    // 2.2: other units keep silent. The answer to the next request is the next thing that comes.
    line.write_all(&request(9)).await.unwrap();
    sleep(GAP * 3).await;
    line.write_all(&request(1)).await.unwrap();
    hears(line, &first(1), "after a request to another unit").await;

    // 2.5.1.2: a frame with a wrong CRC is thrown away.
    let mut wrong = request(1);
    *wrong.last_mut().unwrap() ^= 1;
    line.write_all(&wrong).await.unwrap();
    hears_nothing(line, "after a wrong CRC").await;
    line.write_all(&request(1)).await.unwrap();
    hears(line, &first(1), "after a silence").await;

    // Half a request, noise, and noise without end: a silence sets all of it right.
    for (name, noise) in
        [("half a request", request(1)[..5].to_vec()), ("noise", vec![0xA5; 50]), ("much", vec![3; 9000])]
    {
        line.write_all(&noise).await.unwrap();
        sleep(GAP * 10).await;
        line.write_all(&request(1)).await.unwrap();
        hears(line, &first(1), name).await;
    }

    // A function whose length nobody knows ends with a silence.
    line.write_all(&adu(1, &[0x2B, 0x0E, 1, 0])).await.unwrap();
    hears(line, &adu(1, &[0xAB, 1]), "to a strange function").await;

    // 2.1: a broadcast is done by all and answered by none.
    line.write_all(&adu(0, &write(0, 0x0707))).await.unwrap();
    hears_nothing(line, "after a broadcast").await;
    for unit in [1, 2, 3] {
        line.write_all(&request(unit)).await.unwrap();
        hears(line, &answer(unit, 0x0707), "after a broadcast").await;
    }
}

#[tokio::test]
async fn rtu_over_tcp() {
    let config = BankConfig { units: 3, registers: 200, framing: Framing::Rtu { gap: GAP }, ..BankConfig::default() };
    let bank: Bank = still(config).await;
    let mut line = TcpStream::connect(bank.addr).await.unwrap();
    line.set_nodelay(true).unwrap();
    conversation(&mut line).await;
    let writes: Vec<u64> = [1, 2, 3].map(|unit| bank.counters(unit).unwrap().writes).into();
    assert_eq!(writes, [1, 1, 1]);
}

#[tokio::test]
async fn a_request_right_behind_garbage_is_lost_and_pipelined_ones_are_not() {
    let config = BankConfig { units: 3, registers: 200, framing: Framing::Rtu { gap: GAP }, ..BankConfig::default() };
    let bank = still(config).await;
    let mut line = TcpStream::connect(bank.addr).await.unwrap();
    let request = adu(1, &read(3, 0, 1));
    line.write_all(&[&[1, 3, 0xEE, 0xEE][..], &request].concat()).await.unwrap();
    hears_nothing(&mut line, "after garbage").await;
    line.write_all(&request.repeat(40)).await.unwrap();
    hears(&mut line, &answer(1, signal::register(1, 0, 1)).repeat(40), "to forty requests in one go").await;
}

#[tokio::test]
async fn what_follows_a_broken_frame_without_a_silence_is_lost_even_if_it_comes_later() {
    let gap = Duration::from_secs(2);
    let bank = still(BankConfig { units: 3, framing: Framing::Rtu { gap }, ..BankConfig::default() }).await;
    let mut line = TcpStream::connect(bank.addr).await.unwrap();
    line.set_nodelay(true).unwrap();
    let request = adu(1, &read(3, 0, 1));
    for piece in [&[1, 3, 0, 0, 0, 1, 0xEE, 0xEE][..], &request, &request] {
        line.write_all(piece).await.unwrap();
        sleep(gap / 20).await;
    }
    hears_nothing(&mut line, "before a silence").await;
    sleep(gap * 2).await;
    line.write_all(&request).await.unwrap();
    hears(&mut line, &answer(1, signal::register(1, 0, 1)), "after a silence").await;
    assert_eq!(bank.counters(1).unwrap().requests, 1);
}

#[tokio::test]
async fn rtu_on_a_pseudo_terminal() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(&name, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK, 0.into()).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings).unwrap();

    let shape = Shape { first_unit: 1, units: 3, registers: 200, rate: STILL };
    let device = Arc::new(BankDevice::new(shape, FaultScript::default()).unwrap());
    let options = Options { framing: Framing::Rtu { gap: GAP }, idle_max: None, ..Options::default() };
    let (mut served, mut line) = (both_ways(&slave), both_ways(&master));
    let server = tokio::spawn({
        let device = device.clone();
        async move { converse(&*device, &mut served, options).await }
    });
    conversation(&mut line).await;
    assert_eq!(device.counters(3).unwrap().writes, 1);
    assert!(!server.is_finished());
    server.abort();
}

/// One end of a pseudo-terminal for tokio.
fn both_ways(end: &OwnedFd) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
    let again = || end.as_fd().try_clone_to_owned().unwrap();
    let reader = pipe::Receiver::from_owned_fd_unchecked(again()).unwrap();
    let writer = pipe::Sender::from_owned_fd_unchecked(again()).unwrap();
    tokio::io::join(reader, writer)
}
