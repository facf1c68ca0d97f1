//! `edge-agent check --connect` against set-ups that are wrong, as people set them up wrong: each ends with 1, and the cause is said in words.

#[path = "support/authority.rs"]
mod authority;
mod support;
#[path = "support/tls_broker.rs"]
mod tls_broker;

use authority::{Authority, Made, self_signed};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tls_broker::{ANY, BAD_PASSWORD, BAD_PASSWORD_311, NOT_MY_VERSION, WELCOME_5, WELCOME_311, broker, provider, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// A gateway from TCP to serial whose unit 1 is there; what it says for all others is an exception.
async fn modbus_gateway(exception: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut ask = [0; 12];
                while stream.read_exact(&mut ask).await.is_ok() {
                    let [t1, t0, .., unit, function, _, _, _, _] = ask;
                    let reply: &[u8] = match unit {
                        1 => &[t1, t0, 0, 0, 0, 5, unit, function, 2, 0, 7],
                        2 => &[t1, t0, 0, 0, 0, 3, unit, function | 0x80, 2],
                        _ => &[t1, t0, 0, 0, 0, 3, unit, function | 0x80, exception],
                    };
                    if stream.write_all(reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A configuration in a folder of its own.
fn config(dir: &Path, rest: &str) -> PathBuf {
    let file = dir.join("agent.toml");
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"a\"\nline = \"l\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{rest}"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// What `check --connect` says, and how it ends.
async fn check(file: PathBuf) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_edge-agent")).arg("check").arg(file).arg("--connect").output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

async fn refused(name: &str, file: PathBuf, words: &[&str]) {
    let (code, text) = check(file).await;
    assert_eq!(code, Some(1), "{name}: {text}");
    let said = text.lines().find(|l| l.contains("NOT reached")).unwrap_or_else(|| panic!("{name}: {text}"));
    for word in words {
        assert!(said.contains(word), "{name}: `{word}` is not in: {said}");
    }
    assert!(!text.contains("Error") && !text.contains("panicked"), "{name}: {text}");
}

fn mqtts(port: u16, more: &str) -> String {
    format!("[mqtt]\nbroker = \"mqtts://localhost:{port}\"\ntls = {{ ca = \"ca.pem\"{more} }}\n")
}

/// A folder with `ca.pem`.
fn folder(ca: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_s_certificate_that_is_not_to_be_believed_is_said_to_be_so_and_why() {
    let (ours, other) = (Authority::new("Plant CA"), Authority::new("Other CA"));
    let good = ours.signs("broker", &["localhost"]);
    let at = broker(Some(tls(&good.pem, &good, None, ANY)), WELCOME_5, WELCOME_311).await;

    let dir = folder(&ours.pem());
    let (code, text) = check(config(dir.path(), &mqtts(at, ""))).await;
    assert!(code == Some(0) && text.contains("reached  broker") && text.contains("let us in"), "{text}");

    let dir = folder(&other.pem());
    refused("wrong CA", config(dir.path(), &mqtts(at, "")), &["signed by CN=Plant CA", "ca.pem", "CN=Other CA"]).await;

    let twin = Authority::new("Plant CA");
    let dir = folder(&twin.pem());
    refused("a CA of the same name", config(dir.path(), &mqtts(at, "")), &["CN=Plant CA", "another key"]).await;

    let middle = ours.below("Plant Issuing CA");
    let below = middle.signs("broker", &["localhost"]);
    let alone = broker(Some(tls(&below.pem, &below, None, ANY)), WELCOME_5, WELCOME_311).await;
    let dir = folder(&ours.pem());
    let words = ["CN=Plant Issuing CA", "does not hold that authority", "between it and the peer"];
    refused("incomplete CA", config(dir.path(), &mqtts(alone, "")), &words).await;
    let dir = folder(&(ours.pem() + &middle.pem()));
    assert_eq!(check(config(dir.path(), &mqtts(alone, ""))).await.0, Some(0));

    let named = ours.signs("broker", &["broker.plant.example"]);
    let at = broker(Some(tls(&named.pem, &named, None, ANY)), WELCOME_5, WELCOME_311).await;
    let dir = folder(&ours.pem());
    let words = ["made out to broker.plant.example", "not to localhost", "name = "];
    refused("wrong name", config(dir.path(), &mqtts(at, "")), &words).await;
    let file = config(dir.path(), &mqtts(at, ", name = \"broker.plant.example\""));
    assert_eq!(check(file).await.0, Some(0));

    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let late = ours.signs_until("broker", &["localhost"], yesterday);
    let at = broker(Some(tls(&late.pem, &late, None, ANY)), WELCOME_5, WELCOME_311).await;
    refused("run out", config(dir.path(), &mqtts(at, "")), &["CN=broker", "has run out on 20", "renew"]).await;

    let old = ours.signs_version_1("broker");
    let at = broker(Some(old_server(&old)), WELCOME_5, WELCOME_311).await;
    refused("a broker of version 1", config(dir.path(), &mqtts(at, "")), &["X.509 version 1", "version 3"]).await;
}

/// A server with a certificate that its own library would not take from a file.
fn old_server(made: &Made) -> TlsAcceptor {
    use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
    use tokio_rustls::rustls::sign::CertifiedKey;
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(vec![CertificateDer::from(made.der.clone())], key);
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(ANY).unwrap();
    let config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_signed_itself_is_its_own_authority() {
    let own = self_signed("broker", &["localhost"]);
    let at = broker(Some(tls(&own.pem, &own, None, ANY)), WELCOME_5, WELCOME_311).await;
    let dir = folder(&own.pem);
    let (code, text) = check(config(dir.path(), &mqtts(at, ""))).await;
    assert_eq!(code, Some(0), "{text}");
    // Trusted as it is, and as nothing else: not for another name, and not for another key.
    let file = config(dir.path(), &mqtts(at, ", name = \"other.example\""));
    refused("another name", file, &["made out to localhost", "not to other.example"]).await;
    let dir = folder(&self_signed("broker", &["localhost"]).pem);
    refused("another of its kind", config(dir.path(), &mqtts(at, "")), &["CN=broker", "another key"]).await;
    let dir = folder(&Authority::new("Plant CA").pem());
    refused("unknown", config(dir.path(), &mqtts(at, "")), &["has signed itself", "put that certificate into `ca`"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_that_a_broker_does_not_take_is_said_to_be_so() {
    let (ours, other) = (Authority::new("Plant CA"), Authority::new("Other CA"));
    let made = ours.signs("broker", &["localhost"]);
    let dir = folder(&ours.pem());
    ours.signs("gw", &[]).write(dir.path(), "good");
    ours.signs_version_1("gw").write(dir.path(), "old");
    other.signs("gw", &[]).write(dir.path(), "foreign");
    ours.signs_until("gw", &[], SystemTime::now() - Duration::from_secs(86_400)).write(dir.path(), "late");
    let pair = |name: &str| format!(", certificate = \"{name}.pem\", key = \"{name}.key\"");
    for only in [&[&version::TLS13][..], &[&version::TLS12]] {
        let at = broker(Some(tls(&made.pem, &made, Some(&ours), only)), WELCOME_5, WELCOME_311).await;
        let (code, text) = check(config(dir.path(), &mqtts(at, &pair("good")))).await;
        assert_eq!(code, Some(0), "{text}");
        refused("none shown", config(dir.path(), &mqtts(at, "")), &["wants a certificate of ours", "`key` in `tls`"])
            .await;
        let file = config(dir.path(), &mqtts(at, &pair("old")));
        refused("version 1", file, &["old.pem", "X.509 version 1", "-extfile"]).await;
        let file = config(dir.path(), &mqtts(at, &pair("foreign")));
        refused("unknown there", file, &["refuses our certificate", "does not know the authority"]).await;
        let file = config(dir.path(), &mqtts(at, &pair("late")));
        refused("ours has run out", file, &["refuses our certificate", "run out"]).await;
    }
    let file = config(dir.path(), &mqtts(1, ", certificate = \"good.pem\", key = \"foreign.key\""));
    // Nothing has to listen for this: it is the gateway's own.
    let at = broker(Some(tls(&made.pem, &made, None, ANY)), WELCOME_5, WELCOME_311).await;
    let text = std::fs::read_to_string(&file).unwrap().replace("localhost:1\"", &format!("localhost:{at}\""));
    std::fs::write(&file, text).unwrap();
    refused("another's key", file, &["foreign.key is not the key of", "good.pem"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_speaks_otherwise_a_password_and_a_version_are_told_apart() {
    let ours = Authority::new("Plant CA");
    let made = ours.signs("broker", &["localhost"]);
    let dir = folder(&ours.pem());
    let secure = broker(Some(tls(&made.pem, &made, None, ANY)), WELCOME_5, WELCOME_311).await;
    let plain = broker(None, WELCOME_5, WELCOME_311).await;
    let mqtt = |port: u16, more: &str| format!("[mqtt]\nbroker = \"localhost:{port}\"\n{more}");
    assert_eq!(check(config(dir.path(), &mqtt(plain, ""))).await.0, Some(0));
    refused("plain on TLS", config(dir.path(), &mqtt(secure, "")), &["speaks TLS on this port", "mqtts://"]).await;
    refused("TLS on plain", config(dir.path(), &mqtts(plain, "")), &["does it speak TLS on this port", "plain one"])
        .await;

    std::fs::write(dir.path().join("secret"), "geheim\n").unwrap();
    let at = broker(None, BAD_PASSWORD, BAD_PASSWORD_311).await;
    let file = config(dir.path(), &mqtt(at, "username = \"gw\"\npassword_file = \"secret\"\nversion = \"5\"\n"));
    let (code, text) = check(file.clone()).await;
    assert!(code == Some(1) && text.contains("password") && !text.contains("geheim"), "{text}");

    for to_5 in [NOT_MY_VERSION, &[]] {
        let at = broker(None, to_5, WELCOME_311).await;
        refused("3.1.1 only", config(dir.path(), &mqtt(at, "version = \"5\"\n")), &["3.1.1", "version = \"3.1.1\""])
            .await;
    }
    let closed = support::free_port();
    refused("closed port", config(dir.path(), &mqtt(closed, "")), &["nothing listens on this port"]).await;
    let nowhere = "[mqtt]\nbroker = \"no.such.host.invalid:1883\"\n";
    refused("no such name", config(dir.path(), nowhere), &["no.such.host.invalid:1883 cannot be looked up"]).await;
}

fn modbus(at: &str, unit: u8) -> String {
    format!(
        "[[line]]\nname = \"hall\"\nmodbus = \"{at}\"\ntimeout = \"500ms\"\n\
         [[line.device]]\nname = \"meter\"\ncell = \"c\"\nunit = 1\nprofile = \"meter.toml\"\n\
         [[line.device]]\nname = \"drive\"\ncell = \"c\"\nunit = {unit}\nprofile = \"meter.toml\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_not_there_behind_a_gateway_is_named_and_its_neighbour_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("meter.toml"),
        "[[tag]]\nname = \"power\"\naddress = \"input:30\"\ntype = \"u16\"\n",
    )
    .unwrap();
    let (dead, no_way) = (modbus_gateway(11).await, modbus_gateway(10).await);
    let of = |port: u16, unit: u8| config(dir.path(), &modbus(&format!("127.0.0.1:{port}"), unit));
    let words = ["drive", "unit 7", "does not answer the gateway", "exception 11"];
    refused("absent unit, 0x0B", of(dead, 7), &words).await;
    let (_, text) = check(of(dead, 7)).await;
    assert!(text.contains("meter: unit 1 answers, input:30 was read"), "{text}");
    refused("absent unit, 0x0A", of(no_way, 7), &["drive", "unit 7", "has no way to it", "exception 10"]).await;
    refused("an address that is not there", of(dead, 2), &["drive", "unit 2 answers", "refuses input:30"]).await;

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    refused("nobody speaks", of(at.port(), 7), &["unit 1 does not answer within"]).await;
    let ours = Authority::new("Plant CA");
    let made = ours.signs("plc", &["127.0.0.1"]);
    let secure = broker(Some(tls(&made.pem, &made, None, ANY)), WELCOME_5, WELCOME_311).await;
    refused("plain Modbus on TLS", of(secure, 7), &["speaks TLS on this port", "tls://"]).await;
    refused("closed", of(support::free_port(), 7), &["nothing listens on this port"]).await;
    std::fs::write(dir.path().join("ca.pem"), Authority::new("Other CA").pem()).unwrap();
    let text = modbus(&format!("tls://127.0.0.1:{secure}"), 7).replace("timeout", "tls = { ca = \"ca.pem\" }\ntimeout");
    refused("wrong CA of a PLC", config(dir.path(), &text), &["signed by CN=Plant CA", "CN=Other CA"]).await;
    let text = modbus(&format!("tls://127.0.0.1:{dead}"), 7).replace("timeout", "tls = { ca = \"ca.pem\" }\ntimeout");
    refused("TLS to a plain PLC", config(dir.path(), &text), &["TLS"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opc_ua_server_is_really_signed_in_to_and_read() {
    let pki = tempfile::tempdir().unwrap();
    let bank = opcua_bank::serve(OpcuaBankConfig {
        secure: true,
        trust_all: true,
        pki_dir: Some(pki.path().into()),
        anonymous: false,
        users: vec![("op".into(), "geheim".into())],
        ..OpcuaBankConfig::default()
    });
    let bank = bank.await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let profile = |node: &str| {
        let text = format!("[[tag]]\nname = \"v\"\nnode = \"nsu={};s={node}\"\n", opcua_bank::NAMESPACE);
        std::fs::write(dir.path().join("ua.toml"), text).unwrap();
    };
    let line = |password: &str| {
        std::fs::write(dir.path().join("secret"), password).unwrap();
        let text = format!(
            "[[line]]\nname = \"ua\"\nopcua = \"{}\"\nsecurity = \"Basic256Sha256/SignAndEncrypt\"\ncheck_host = false\n\
             username = \"op\"\npassword_file = \"secret\"\n\
             [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"ua.toml\"\n",
            bank.url()
        );
        config(dir.path(), &text)
    };
    profile("V.0");
    refused("not trusted yet", line("geheim"), &["line ua", "edge-agent pki trust"]).await;
    device_drivers::opcua::pki::Pki::open(&dir.path().join("state/pki"))
        .unwrap()
        .trust(bank.certificate().to_str().unwrap())
        .unwrap();
    let (code, text) = check(line("geheim")).await;
    assert!(code == Some(0) && text.contains("V.0 was read"), "{text}");
    refused("wrong password", line("falsch"), &["line ua", "the user op or the password"]).await;
    profile("V.none");
    refused("no such node", line("geheim"), &["V.none cannot be read"]).await;
}
