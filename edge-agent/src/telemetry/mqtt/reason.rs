//! What a broker says when it does not want something: the reason codes of MQTT 5 (2.4) in plain words, what follows from each, and what a
//! person can look at.

use super::wire::Version;
use std::fmt;

/// A reason code of MQTT 5. The return codes of 3.1.1 are read as those that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

/// What follows when a message is refused with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will be taken later: nothing is wrong with the message.
    Later,
    /// It will never be taken.
    Never,
}

/// Codes, their names in the standard's words, and what to look at when a connection is refused or ended with them.
const TABLE: &[(u8, &str, &str)] = &[
    (0x00, "normal disconnection", "the broker was stopped, or somebody there has ended the connection"),
    (0x80, "unspecified error", "the broker's own log says more"),
    (
        0x81,
        "malformed packet",
        "the broker could not read what it was sent: is this its MQTT port, and this its version?",
    ),
    (0x82, "protocol error", "the broker's own log says more"),
    (0x83, "implementation specific error", "the broker's own log says more"),
    (
        0x84,
        "unsupported protocol version",
        "the broker does not know this version of MQTT: set `version` to the other one, \"3.1.1\" or \"5\"",
    ),
    (0x85, "client identifier not valid", "the broker does not take this gateway's name as a client id"),
    (0x86, "bad user name or password", "are user and password right?"),
    (0x87, "not authorized", "user and password, the client certificate, or the broker's access list"),
    (0x88, "server unavailable", "the broker is there and not ready: it is asked again"),
    (0x89, "server busy", "the broker has too much to do: it is asked again"),
    (0x8A, "banned", "the broker has banned this client: its administrator can lift that"),
    (0x8B, "server shutting down", "the broker is being stopped: it is asked again"),
    (0x8C, "bad authentication method", "the broker wants another way to sign in than this gateway has"),
    (0x8D, "keep alive timeout", "the broker has heard nothing for too long: the network, or `keep_alive`"),
    (0x8E, "session taken over", "another client uses this gateway's name"),
    (0x8F, "topic filter invalid", "the broker does not take a subscription"),
    (0x90, "topic name invalid", "the broker does not take this topic"),
    (0x91, "packet identifier in use", "the broker's own log says more"),
    (0x93, "receive maximum exceeded", "more messages were on their way than the broker takes: lower `window`"),
    (0x94, "topic alias invalid", "the broker's own log says more"),
    (0x95, "packet too large", "the broker takes no message of this size: its limit, or payload = \"tag\""),
    (0x96, "message rate too high", "the broker limits messages a second"),
    (0x97, "quota exceeded", "the broker limits what this client may do"),
    (0x98, "administrative action", "the broker's administrator has ended the connection"),
    (0x99, "payload format invalid", "the broker does not take this payload"),
    (0x9A, "retain not supported", "the broker keeps no messages"),
    (0x9B, "QoS not supported", "the broker takes no message that it has to acknowledge; this gateway sends no others"),
    (0x9C, "use another server", "the broker names another one: see its administrator"),
    (0x9D, "server moved", "the broker names another one: see its administrator"),
    (0x9F, "connection rate exceeded", "the broker is asked too often: it is asked less often"),
    (0xA0, "maximum connect time", "the broker ends every connection after a time"),
];

impl Code {
    /// Success.
    pub const SUCCESS: Code = Code(0);
    /// The broker does not know MQTT 5.
    pub const VERSION: Code = Code(0x84);
    /// Another client has come with the same id.
    pub const TAKEN_OVER: Code = Code(0x8E);
    /// A packet was too large.
    pub const TOO_LARGE: Code = Code(0x95);
    /// The broker acknowledges nothing.
    pub const NO_QOS: Code = Code(0x9B);
    /// The broker keeps nothing.
    pub const NO_RETAIN: Code = Code(0x9A);

    /// A return code of CONNACK in 3.1.1 (3.2.2.3).
    pub fn of_v311(code: u8) -> Code {
        Code(match code {
            0 => 0,
            1 => 0x84,
            2 => 0x85,
            3 => 0x88,
            4 => 0x86,
            5 => 0x87,
            _ => 0x80,
        })
    }

    fn row(self) -> (&'static str, &'static str) {
        let row = TABLE.iter().find(|(code, ..)| *code == self.0);
        row.map_or(("a reason that the standard does not know", "the broker's own log says more"), |(_, name, hint)| {
            (name, hint)
        })
    }

    /// What a person can look at.
    pub fn hint(self) -> &'static str {
        self.row().1
    }

    /// What follows when a PUBACK refuses a message (MQTT 5, 3.4.2.1).
    pub fn verdict(self) -> Verdict {
        match self.0 {
            0x87 | 0x90 | 0x95 | 0x99 => Verdict::Never,
            _ => Verdict::Later,
        }
    }

    /// Whether a connection that ends with this has ended over what was sent last, and not over something else.
    pub fn blames_a_message(self) -> bool {
        matches!(self.0, 0x81 | 0x82 | 0x83 | 0x87 | 0x90 | 0x95 | 0x99)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.row().0, self.0)
    }
}

/// Why there is no connection, or none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// CONNECT was refused, with these words.
    Refused(Code, Option<String>),
    /// Instead of an answer to CONNECT of this version the broker hung up.
    Unanswered(Version),
    /// The broker has ended the connection, with these words.
    Ended(Code, Option<String>),
    /// It hung up without a word, or the network did.
    HungUp(String),
    /// The same, over our birth, which is to be retained. 3.1.1 has no way to say that nothing is.
    HungUpOverBirth,
    /// Something else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says =
            |said: &Option<String>| said.as_ref().map_or_else(String::new, |said| format!(", \"{}\"", shown(said)));
        match self {
            Failure::Refused(code, said) => {
                write!(f, "the broker does not let us in: {code}{}; {}", says(said), code.hint())
            }
            Failure::Unanswered(Version::V5) => f.write_str(
                "the broker hung up on MQTT 5 instead of answering; is this its MQTT port? One that knows 3.1.1 alone does so as well: then \
                 set `version = \"3.1.1\"`",
            ),
            Failure::Unanswered(Version::V311) => f.write_str(
                "the broker hung up instead of answering; is this its MQTT port? One of 3.1.1 that keeps no retained messages does so \
                 as well: then set `retain = false`",
            ),
            Failure::Ended(code, said) => {
                write!(f, "the broker ends the connection: {code}{}; {}", says(said), code.hint())
            }
            Failure::HungUp(why) | Failure::Other(why) => f.write_str(why),
            Failure::HungUpOverBirth => f.write_str(
                "the broker hung up over our birth; does it keep no retained messages? Then set `retain = false`",
            ),
        }
    }
}

/// What a broker says, as far as a line of the log can show it.
fn shown(said: &str) -> String {
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Other(why)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match e.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Failure::HungUp(e.to_string()),
            _ => Failure::Other(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is asked for a password that is right looks in the wrong place for hours.
    #[test]
    fn only_what_is_about_user_and_password_speaks_of_them() {
        for code in (0..=0xFF).map(Code) {
            let speaks = ["user", "password"].iter().any(|word| code.hint().contains(word));
            assert!(!speaks || (0x84..=0x87).contains(&code.0), "{code}: {}", code.hint());
        }
        let of = |code| Failure::Refused(Code::of_v311(code), None).to_string();
        assert!(of(4).contains("password") && of(5).contains("password"), "{} {}", of(4), of(5));
        assert!(of(1).contains("version") && of(3).contains("not ready"), "{} {}", of(1), of(3));
        let moved = Failure::Refused(Code(0x9D), Some("b\n\u{7}:1".into())).to_string();
        assert!(moved.contains("server moved (0x9D), \"b  :1\""), "{moved}");
    }

    #[test]
    fn every_code_of_the_table_has_its_own_name_and_what_is_refused_for_now_is_sent_again() {
        for (n, (code, name, hint)) in TABLE.iter().enumerate() {
            assert!(TABLE.iter().take(n).all(|(c, other, _)| c < code && other != name), "{name}");
            assert!(!hint.is_empty());
        }
        for (code, verdict) in [
            (0x80, Verdict::Later),
            (0x83, Verdict::Later),
            (0x97, Verdict::Later),
            (0x87, Verdict::Never),
            (0x90, Verdict::Never),
            (0x95, Verdict::Never),
            (0x99, Verdict::Never),
        ] {
            assert_eq!(Code(code).verdict(), verdict);
        }
    }
}
