//! The entrance: the address people come in at, with TLS if that can be had.

use super::{Door, Face, HttpStats, serve, tls};
use crate::config::plan::HttpPlan;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A network of which nobody is (RFC 5737): asked for the way there, the kernel says which address of ours is the first.
const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// An address that listens, and is not served yet.
pub(crate) struct Entrance {
    /// Where it listens.
    pub(crate) at: SocketAddr,
    listener: TcpListener,
    tls: Option<Arc<Door>>,
    /// Why there is no TLS although it was asked for.
    closed: Option<String>,
}

impl Entrance {
    /// Listens. A certificate that cannot be used is no reason to stand still; without one nobody beyond this machine is served.
    pub(crate) async fn open(plan: &HttpPlan, listen: SocketAddr) -> Result<Entrance, String> {
        let opened = plan.tls.as_ref().map(|t| Door::open(t, listen, &plan.names)).transpose();
        let (tls, closed) = opened.map_or_else(|why| (None, Some(why)), |tls| (tls, None));
        let listen = if closed.is_some() { on_this_machine(listen) } else { listen };
        if let Some(why) = &closed {
            tracing::error!("{why}; the page is served to this machine alone, without TLS");
        }
        let listener = TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        Ok(Entrance { at, listener, tls, closed })
    }

    /// Why a certificate that was made here is for this run only.
    pub(crate) fn unkept(&self) -> Option<String> {
        self.tls.as_ref()?.unkept.clone()
    }

    /// What is to be said of a certificate that was set aside.
    pub(crate) fn aside(&self) -> Option<String> {
        self.tls.as_ref()?.aside.clone()
    }

    /// Counters of what will be served.
    pub(crate) fn stats(&self, is_unencrypted: bool) -> HttpStats {
        HttpStats { is_unencrypted, closed: self.closed.clone(), ..HttpStats::default() }
    }

    /// Says where it is, and to who comes first how to sign in.
    fn announce(&self, names: &[String], first: Option<&str>) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        tracing::info!("serving {scheme}://{}/", self.at);
        if let Some(door) = &self.tls {
            tracing::info!("its certificate, to be compared with what a browser shows: SHA-256 {}", door.thumbprint());
        }
        if let Some(token) = first {
            let at = format!("{scheme}://{}/#setup={token}", address_for_people(self.at, names));
            tracing::info!("nobody can sign in yet. The one-time token {token} makes the first admin: open {at}");
        }
    }

    /// Serves until the tasks are aborted, and says so; `first` is the token that makes the first admin.
    pub(crate) fn serve(self, face: &Arc<Face>, first: Option<&str>) -> Vec<JoinHandle<()>> {
        self.announce(&face.door.names, first);
        let fresh = self.tls.clone().map(|door| tokio::spawn(door.keep_fresh()));
        let mut tasks = vec![tokio::spawn(serve(face.clone(), self.listener, self.tls))];
        tasks.extend(fresh);
        tasks
    }
}

/// The same port, for this machine alone.
fn on_this_machine(listen: SocketAddr) -> SocketAddr {
    let own = if listen.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    SocketAddr::new(own, listen.port())
}

/// How a person reaches what listens there from a desk: all addresses together are none.
fn address_for_people(at: SocketAddr, names: &[String]) -> String {
    if !at.ip().is_unspecified() {
        return at.to_string();
    }
    let own_address = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(NOBODY).ok()?; // nothing is sent
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    let named = names.first().cloned().or_else(tls::host_name).filter(|name| name != "localhost");
    let host = named.or_else(own_address).unwrap_or_else(|| "localhost".into());
    format!("{host}:{}", at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_that_is_shown_leads_there_from_a_desk() {
        let all = "0.0.0.0:9464".parse().unwrap();
        assert_eq!(address_for_people("10.1.2.3:9464".parse().unwrap(), &["gw".into()]), "10.1.2.3:9464");
        assert_eq!(address_for_people(all, &["gw-1.plant".into()]), "gw-1.plant:9464");
        let shown = address_for_people(all, &[]);
        assert!(!shown.starts_with("0.0.0.0") && shown.ends_with(":9464"), "{shown}");
        assert_eq!(on_this_machine("[::]:9464".parse().unwrap()), "[::1]:9464".parse().unwrap());
    }
}
