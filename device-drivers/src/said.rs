//! What a peer says, as far as it is repeated: it may be long, and say anything.
//!
//! ```text
//!   "no licence\n2026-11-30 INFO all is well .. 36 kB"  ──>  no licence\n2026-11-30 INFO all is well .. … (36864 bytes)
//! ```

use std::fmt::{self, Display, Write};

/// Characters of a text that are repeated: none of ours is longer.
pub const SAID_MAX: usize = 1000;

/// A text on one line, and with an end.
pub fn said(text: &str) -> impl Display {
    Said(text)
}

struct Said<'a>(&'a str);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(SAID_MAX) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        if self.0.chars().nth(SAID_MAX).is_some() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::LinkError;

    #[test]
    fn whatever_a_peer_says_an_error_of_its_line_is_one_line_with_an_end() {
        let evil = "no licence\n2026-11-30 INFO all is well\u{1b}[2J".to_string() + &"x".repeat(36_000);
        let (peer, limit) = (|| "opc.tcp://plc".to_string(), std::time::Duration::from_secs(1));
        let (why, what, thumbprint) = (|| evil.clone(), || evil.clone(), String::new());
        let all = [
            LinkError::Connect { peer: peer(), why: why() },
            LinkError::Timeout { peer: peer(), what: what(), limit },
            LinkError::Protocol { peer: peer(), what: what() },
            LinkError::Untrusted { peer: peer(), what: what(), thumbprint },
            LinkError::Denied { peer: peer(), what: what() },
            LinkError::Login { peer: peer(), what: what() },
            LinkError::Lost { peer: peer(), why: why() },
        ];
        for error in all {
            let text = error.to_string();
            assert!(text.contains("no licence\\n2026"), "{text}");
            assert!(text.len() < 1200 && !text.contains(char::is_control), "{} bytes", text.len());
        }
        assert_eq!(said("as short as ours").to_string(), "as short as ours");
    }
}
