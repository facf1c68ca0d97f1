//! What a line of OPC UA is to do: where, how safely, as whom, and with which points.

use super::NodeName;
use crate::value::PointId;
use control_core::units::MachineId;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One line.
#[derive(Clone, Debug)]
pub struct OpcUaSpec {
    /// `opc.tcp://host:port/path`.
    pub endpoint: String,
    /// Time for connecting, and for each request.
    pub timeout: Duration,
    /// How often the server sends changes.
    pub publishing: Duration,
    /// How messages are protected.
    pub security: Security,
    /// Who we are to the server.
    pub identity: Identity,
    /// What kind of server it is.
    pub vendor: Vendor,
    /// Where keys and certificates are kept; see [`super::pki`].
    pub pki_dir: PathBuf,
    /// What is watched.
    pub points: Vec<UaPoint>,
    /// Command block nodes.
    pub commands: Vec<(MachineId, NodeName)>,
}

impl OpcUaSpec {
    /// Whether anyone on the network can read and write what this line carries. Worth a warning and a metric.
    pub fn is_insecure(&self) -> bool {
        self.security.policy == Policy::None
    }
}

/// One value of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct UaPoint {
    /// Its number on the line.
    pub id: PointId,
    /// Which device of the line it belongs to, in the order of the configuration.
    pub device: usize,
    /// Where it is.
    pub node: NodeName,
    /// How it comes to us.
    pub mode: Mode,
    /// How wide its range is as the configuration has it; counts where its server does not say.
    pub range: Option<f64>,
}

/// How a value comes to us.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// The server looks for changes and sends them.
    Subscribe {
        /// How often it looks.
        sampling: Duration,
        /// Changes it keeps between two publishings; never fewer than are sampled in that time, so 0 means just enough.
        queue: u32,
        /// Changes that are too small to be sent.
        deadband: Option<Deadband>,
    },
    /// It is read.
    Poll {
        /// How often.
        interval: Duration,
    },
}

impl Mode {
    /// Subscribed to, with a queue that is just long enough and without a deadband.
    pub fn subscribe(sampling: Duration) -> Mode {
        Mode::Subscribe { sampling, queue: 0, deadband: None }
    }
}

/// Changes that are too small to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadband {
    /// Smaller than this, in the unit of the value. Where the server cannot filter we do.
    Absolute(f64),
    /// Smaller than this part of the range of the value, as the server knows it (`EURange`) or else the configuration. Where the server cannot filter we
    /// do; where nobody knows the range every change is sent.
    Percent(f64),
}

/// How messages are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    /// Which algorithms.
    pub policy: Policy,
    /// Signed, or encrypted as well.
    pub mode: MessageMode,
    /// Whether the server's certificate must name the host it is reached by. The certificate itself must be trusted in any case; switch
    /// this off for a server behind an address translation, whose certificate cannot know it.
    pub check_host: bool,
}

impl Security {
    /// Nothing is protected: on this network anyone can read and write.
    pub const NONE: Security = Security { policy: Policy::None, mode: MessageMode::None, check_host: true };

    /// Signed and encrypted.
    pub const fn encrypted(policy: Policy) -> Security {
        Security { policy, mode: MessageMode::SignAndEncrypt, check_host: true }
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            Policy::None => f.write_str("none"),
            policy => write!(f, "{}/{}", policy.name(), self.mode.name()),
        }
    }
}

impl FromStr for Security {
    type Err = String;

    /// `none`, `Basic256Sha256/SignAndEncrypt`, ..
    fn from_str(text: &str) -> Result<Security, String> {
        if text == "none" {
            return Ok(Security::NONE);
        }
        let (policy, mode) = text.split_once('/').unwrap_or((text, ""));
        let policy = Policy::SAFE.into_iter().find(|p| p.name() == policy);
        let mode = [MessageMode::Sign, MessageMode::SignAndEncrypt].into_iter().find(|m| m.name() == mode);
        match (policy, mode) {
            (Some(policy), Some(mode)) => Ok(Security { policy, mode, check_host: true }),
            _ => Err(format!("found \"{text}\"; one of: none, {}", Security::names().join(", "))),
        }
    }
}

impl Security {
    /// All there are, as they are written, without `none`.
    pub fn names() -> Vec<String> {
        let modes = [MessageMode::SignAndEncrypt, MessageMode::Sign];
        modes.iter().flat_map(|m| Policy::SAFE.iter().map(move |p| format!("{}/{}", p.name(), m.name()))).collect()
    }
}

/// Algorithms. The broken ones (Basic128Rsa15, Basic256) are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// No protection.
    None,
    /// Basic256Sha256.
    Basic256Sha256,
    /// Aes128_Sha256_RsaOaep.
    Aes128Sha256RsaOaep,
    /// Aes256_Sha256_RsaPss.
    Aes256Sha256RsaPss,
}

impl Policy {
    const SAFE: [Policy; 3] = [Policy::Basic256Sha256, Policy::Aes128Sha256RsaOaep, Policy::Aes256Sha256RsaPss];

    /// As OPC 10000-7 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::None => "None",
            Policy::Basic256Sha256 => "Basic256Sha256",
            Policy::Aes128Sha256RsaOaep => "Aes128_Sha256_RsaOaep",
            Policy::Aes256Sha256RsaPss => "Aes256_Sha256_RsaPss",
        }
    }
}

/// Signed, or encrypted as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageMode {
    /// Neither.
    None,
    /// Nobody can change a message, anyone can read it.
    Sign,
    /// Nobody can change or read a message.
    SignAndEncrypt,
}

impl MessageMode {
    /// As OPC 10000-4 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            MessageMode::None => "None",
            MessageMode::Sign => "Sign",
            MessageMode::SignAndEncrypt => "SignAndEncrypt",
        }
    }
}

/// Who we are to the server.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password. Only where messages are protected: a password never leaves in the clear.
    User {
        /// Name.
        name: String,
        /// Password.
        password: String,
    },
    /// A user with a certificate (DER or PEM by its ending) and its private key (PEM).
    Certificate {
        /// Certificate file.
        certificate: PathBuf,
        /// Key file.
        key: PathBuf,
    },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Anonymous => f.write_str("Anonymous"),
            Identity::User { name, .. } => write!(f, "User({name:?}, password not shown)"),
            Identity::Certificate { certificate, .. } => write!(f, "Certificate({})", certificate.display()),
        }
    }
}

/// What kind of server it is, as far as that decides how much it takes; see [`super::limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// Any; only what it says of itself counts.
    #[default]
    Generic,
    /// Siemens SIMATIC S7-1200.
    S71200,
    /// Siemens SIMATIC S7-1500.
    S71500,
}

impl Vendor {
    /// All there are.
    pub const ALL: [Vendor; 3] = [Vendor::Generic, Vendor::S71200, Vendor::S71500];

    /// As the configuration names it.
    pub const fn name(self) -> &'static str {
        match self {
            Vendor::Generic => "generic",
            Vendor::S71200 => "s7-1200",
            Vendor::S71500 => "s7-1500",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_is_read_as_it_is_written() {
        for text in Security::names() {
            assert_eq!(text.parse::<Security>().unwrap().to_string(), text);
        }
        assert_eq!("none".parse::<Security>(), Ok(Security::NONE));
    }

    #[test]
    fn broken_and_half_named_security_is_refused() {
        for text in
            ["None", "", "Basic256/Sign", "Basic128Rsa15/Sign", "Basic256Sha256", "Basic256Sha256/None", "/Sign"]
        {
            let why = text.parse::<Security>().unwrap_err();
            assert!(why.contains("Basic256Sha256/SignAndEncrypt"), "{why}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let user = Identity::User { name: "op".into(), password: "geheim".into() };
        assert!(!format!("{user:?}").contains("geheim"));
    }
}
