//! A real mosquitto, as a test wants it configured.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use crate::sending::plan;
use crate::support::{eventually, free_port};
use device_drivers::modbus::Tls;
use edge_agent::config::plan::MqttPlan;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A CA, and certificates for the broker and the gateway, as PEM files in a folder.
pub fn certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    for (name, host) in [("broker", "localhost"), ("gateway", "gateway-1")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, host);
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A mosquitto of this test.
pub struct Broker {
    dir: tempfile::TempDir,
    pub port: u16,
    _process: Process,
}

impl Broker {
    /// Starts it; `more` is what its configuration says beside the listener, given its folder.
    pub async fn start(mosquitto: &Path, more: impl Fn(&Path) -> String) -> Broker {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates(dir.path());
        // mosquitto gives up its rights when it is started by root: what it reads must be readable.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!("listener {port} 127.0.0.1\npersistence false\n{}\n", more(dir.path()));
        std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let mut command = Command::new(mosquitto);
        command.arg("-c").arg(dir.path().join("mosquitto.conf"));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("mosquitto starts");
        let up = eventually(Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        });
        assert!(up.await, "{}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
        Broker { dir, port, _process: Process(process) }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A plan for this broker over TLS.
    pub fn tls_plan(&self, own: bool) -> MqttPlan {
        let mut plan = plan(self.port);
        plan.brokers[0].host = "localhost".into();
        plan.brokers[0].tls = true;
        let own = own.then(|| (self.file("gateway.pem"), self.file("gateway.key")));
        plan.tls = Some(Tls { ca: self.file("ca.pem"), own, name: None });
        plan
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}
