//! The way to a host, which may have several addresses: IPv6 and IPv4, or two network cards of which one is dead.
//!
//! ```text
//!   host ──look up──> addresses, families in turn ──> first attempt
//!                                                        ├── fails, or STAGGER passes ──> the next one, beside it ..
//!                                                        └── connected: all others are dropped
//! ```
//!
//! As RFC 8305 (Happy Eyeballs) has it: every attempt has what is left of the whole time, the look-up aside, so that one that is swallowed takes nothing
//! from the others. MQTT, Modbus and OPC UA all go this way.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The next address is tried beside those before it after this long (RFC 8305, 5: "Connection Attempt Delay"); sooner where less than this
/// would be left for it.
const STAGGER: Duration = Duration::from_millis(250);
/// A name server has this long, however quick the device behind the name has to be: the first of two may be dead, and each is asked for 5 s.
const LOOKUP: Duration = Duration::from_secs(12);
/// So many addresses of a name are tried: more are a name server's mistake, and each costs a socket.
const ADDRESSES_MAX: usize = 8;

/// Connects to `host:port`, at whichever of its addresses answers first. Delays nothing that is sent (TCP_NODELAY). The error has the kind
/// that says most, and names every address where there are several.
pub async fn dial(at: impl ToSocketAddrs, limit: Duration) -> io::Result<TcpStream> {
    let patience = limit.max(LOOKUP);
    let Ok(found) = timeout(patience, lookup_host(at)).await else {
        let why = format!("the name server has not answered within {patience:?}; can it be reached from here?");
        return Err(io::Error::new(ErrorKind::NotFound, why));
    };
    let stream = first_of(in_turn(found?), Instant::now() + limit, limit).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The families in turn, beginning with that of the first address (RFC 8305, 4).
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    let starts_with_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| a.is_ipv6() == starts_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || ordered.len() >= ADDRESSES_MAX {
            ordered.truncate(ADDRESSES_MAX);
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

async fn first_of(addresses: Vec<SocketAddr>, end: Instant, limit: Duration) -> io::Result<TcpStream> {
    let stagger = STAGGER.min(limit / (addresses.len() as u32 + 1));
    let mut untried = addresses.iter().copied();
    let mut tries = JoinSet::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        if let Some(address) = untried.next() {
            tries.spawn(async move { (address, TcpStream::connect(address).await) });
        } else if tries.is_empty() {
            return Err(why(&addresses, &failed, limit));
        }
        let more = untried.len() > 0;
        let wake = if more { end.min(Instant::now() + stagger) } else { end };
        tokio::select! {
            Some(Ok((address, done))) = tries.join_next() => match done {
                Ok(stream) => return Ok(stream),
                Err(e) => failed.push((address, e)),
            },
            () = sleep_until(wake) => if Instant::now() >= end {
                return Err(why(&addresses, &failed, limit));
            },
        }
    }
}

/// Why no address was reached. One of which nothing is known has not answered.
fn why(addresses: &[SocketAddr], failed: &[(SocketAddr, io::Error)], limit: Duration) -> io::Error {
    let told = |address| failed.iter().find(|(a, _)| *a == address).map(|(_, e)| e);
    let kind = |address| told(address).map_or(ErrorKind::TimedOut, io::Error::kind);
    let said = |address| told(address).map_or_else(|| format!("no answer within {limit:?}"), ToString::to_string);
    match addresses {
        [] => io::Error::new(ErrorKind::NotFound, "the name has no address"),
        [only] => io::Error::new(kind(*only), said(*only)),
        [first, rest @ ..] => {
            let is_one = rest.iter().all(|address| kind(*address) == kind(*first));
            let each: Vec<String> = addresses.iter().map(|a| format!("{}: {}", a.ip(), said(*a))).collect();
            let text = format!("none of the {} addresses of this name answers: {}", each.len(), each.join(", "));
            io::Error::new(if is_one { kind(*first) } else { ErrorKind::Other }, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    const LIMIT: Duration = Duration::from_secs(30);

    /// An address that swallows whoever knocks: its queue is full. What is given has to be kept.
    async fn swallowing(at: &str) -> (SocketAddr, TcpListener, Vec<tokio::task::JoinHandle<io::Result<TcpStream>>>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(at.parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let knocks = (0..4).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        (address, listener, knocks)
    }

    /// eclipse-mosquitto/mosquitto#574: a name of which the first address is dead.
    #[tokio::test]
    async fn an_address_that_swallows_takes_no_time_from_the_next_and_one_that_refuses_none_at_all() {
        let (dead, _kept, _knocks) = swallowing("127.0.0.21:0").await;
        let alive = TcpListener::bind(("127.0.0.22", dead.port())).await.unwrap();
        let alive = alive.local_addr().unwrap();
        let refusing = SocketAddr::from(([127, 0, 0, 23], dead.port()));
        for first in [dead, refusing] {
            let began = Instant::now();
            let stream = dial(&[first, alive][..], LIMIT).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), alive);
            assert!(began.elapsed() < LIMIT / 2, "it has its share, not what is left");
            assert!(stream.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn an_error_names_every_address_and_one_alone_says_what_the_host_said() {
        let (dead, _kept, _knocks) = swallowing("127.0.0.24:0").await;
        let refusing = SocketAddr::from(([127, 0, 0, 25], dead.port()));
        let limit = Duration::from_millis(400);
        let e = dial(&[refusing][..], limit).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
        let e = dial(&[dead][..], limit).await.unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::TimedOut, "no answer within 400ms"));
        let e = dial(&[dead, refusing][..], limit).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Other);
        let text = e.to_string();
        let begins = "none of the 2 addresses of this name answers: 127.0.0.24: no answer within 400ms, 127.0.0.25: ";
        assert!(text.starts_with(begins), "{text}");
    }

    #[test]
    fn families_take_turns_and_an_address_that_stands_twice_is_one() {
        let parse = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = parse(&["[::1]:1", "[::2]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let want = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(in_turn(found.into_iter()), want);
        assert_eq!(in_turn((1..99).map(|n| SocketAddr::from(([1, 1, 1, n], 1)))).len(), ADDRESSES_MAX);
    }
}
