//! How a channel may be opened, and how short its messages may be: looked at before the library sees them.
//!
//! ```text
//!   OPN  [policy URI][certificate][thumbprint] [ encrypted to us: sequence, body, padding, signature ]
//!            │            │           │              └── whole blocks; decrypted it has room for padding and signature, and that is right
//!            │            │           └── ours
//!            │            └── the one that was judged
//!            └── the one that was asked for
//!   MSG  [channel][token] [ sequence, body, padding, signature ]       long enough for what it must hold
//! ```
//!
//! async-opcua takes the policy of an `OPN` from the message, looks for keys that are not there, and counts back from the end of what it has
//! decrypted without asking how long that is: a server that opens the channel in another way than was asked for (anyone on the network can
//! be one) ends in a panic, and in the daemon that is the end of all lines.

use opcua::crypto::{KeySize, PrivateKey, SecurityPolicy, X509};
use opcua::types::{EndpointDescription, MessageSecurityMode};
use std::borrow::Cow;
use std::sync::Arc;

/// Message header and channel id of every secure message (OPC 10000-6, 6.7.2).
const CHANNEL: usize = 12;
/// Sequence number and request id.
const SEQUENCE: usize = 8;
/// The block of AES.
const BLOCK: usize = 16;

/// Our own key and the thumbprint of our certificate.
pub(super) struct Keys {
    pub(super) thumbprint: Vec<u8>,
    pub(super) key: PrivateKey,
}

/// What is expected of the server on one connection.
#[derive(Clone)]
pub(super) struct Opening {
    policy: SecurityPolicy,
    encrypted: bool,
    secure: Option<Secure>,
}

#[derive(Clone)]
struct Secure {
    certificate: Vec<u8>,
    keys: Arc<Keys>,
}

impl Opening {
    /// Without security, as the question for the endpoints is asked.
    pub(super) const PLAIN: Opening = Opening { policy: SecurityPolicy::None, encrypted: false, secure: None };

    /// As this endpoint has it.
    pub(super) fn of(endpoint: &EndpointDescription, keys: Option<&Arc<Keys>>) -> Opening {
        let policy = SecurityPolicy::from_uri(endpoint.security_policy_uri.as_ref());
        match keys {
            Some(keys) if policy != SecurityPolicy::None => {
                let certificate = super::pki::bytes_of(&endpoint.server_certificate).to_vec();
                let encrypted = endpoint.security_mode == MessageSecurityMode::SignAndEncrypt;
                Opening { policy, encrypted, secure: Some(Secure { certificate, keys: keys.clone() }) }
            }
            _ => Opening::PLAIN,
        }
    }

    /// Whether a message of the open channel, `MSG` or `CLO`, of so many bytes can be one.
    pub(super) fn takes(&self, size: usize) -> bool {
        if self.secure.is_none() {
            return true;
        }
        // Channel, token, sequence, signature; encrypted, whole blocks of these.
        let head = CHANNEL + 4;
        let least = SEQUENCE + self.policy.symmetric_signature_size();
        size.checked_sub(head).is_some_and(|rest| rest >= least && (!self.encrypted || rest.is_multiple_of(BLOCK)))
    }

    /// Whether what is sent over the open channel is signed or encrypted.
    pub(super) fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// Whether this `OPN`, header and all, is what was asked for: then what it holds, from its sequence number on. The text says what it is
    /// instead.
    pub(super) fn check<'a>(&self, message: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let mut rest = message.get(CHANNEL..).ok_or("a message that opens the channel, and is too short for one")?;
        let policy = field(&mut rest)?;
        let (certificate, thumbprint) = (field(&mut rest)?, field(&mut rest)?);
        if policy != self.policy.to_uri().as_bytes() {
            let wanted = self.policy.to_str();
            return Err(format!("it opens the channel with security {}, and {wanted} was asked for", shown(policy)));
        }
        let Some(Secure { certificate: judged, keys }) = &self.secure else { return Ok(rest.into()) };
        if certificate != judged {
            return Err("it opens the channel with another certificate than it has shown".into());
        }
        if thumbprint != keys.thumbprint {
            return Err("it opens the channel for another certificate than ours".into());
        }
        self.opens(message, rest, judged, keys).map(Cow::Owned)
    }

    /// Decrypts the rest of an `OPN`, and sees whether it holds what the library takes for granted.
    fn opens(&self, message: &[u8], cipher: &[u8], certificate: &[u8], keys: &Keys) -> Result<Vec<u8>, String> {
        let wrong = |what: &str| format!("the message that opens the channel {what}");
        let block = keys.key.size();
        if cipher.is_empty() || !cipher.len().is_multiple_of(block) {
            return Err(wrong("is not made of whole blocks"));
        }
        let theirs = X509::from_der(certificate).map_err(|_| wrong("has no certificate"))?;
        let theirs = theirs.public_key().map_err(|_| wrong("has a certificate without an RSA key"))?;
        let mut plain = vec![0u8; cipher.len()];
        let length = self.policy.asymmetric_decrypt(&keys.key, cipher, &mut plain);
        plain.truncate(length.map_err(|_| wrong("is not encrypted to us"))?);
        // A key of more than 2048 bits has a second byte for the length of the padding (OPC 10000-6, 6.7.2.5).
        let counts = if block > 256 { 2 } else { 1 };
        let signature_at = plain.len().checked_sub(theirs.size()).filter(|at| *at >= SEQUENCE + counts);
        let (body, signature) = signature_at
            .and_then(|at| plain.split_at_checked(at))
            .ok_or_else(|| wrong("has no room for its signature"))?;
        let head = message.get(..message.len() - cipher.len()).unwrap_or_default();
        let signed = [head, body].concat();
        self.policy
            .asymmetric_verify_signature(&theirs, &signed, signature)
            .map_err(|_| wrong("is not signed by the server"))?;
        let padding = match (counts, body) {
            (2, [.., low, high]) => usize::from(*high) << 8 | usize::from(*low),
            (_, [.., low]) => usize::from(*low),
            _ => 0,
        };
        if padding + counts + SEQUENCE > body.len() {
            return Err(wrong("claims more padding than it is long"));
        }
        let held = body.len() - padding - counts;
        plain.truncate(held);
        Ok(plain)
    }
}

/// The name of a policy, as far as it can be shown.
fn shown(uri: &[u8]) -> String {
    let name = uri.rsplit(|byte| *byte == b'#').next().unwrap_or(uri);
    name.iter().take(40).map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}

/// The next field: a length, and so many bytes; a negative length is none.
fn field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let short = || "a message that opens the channel, and ends in the middle".to_string();
    let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = usize::try_from(i32::from_le_bytes(*length)).unwrap_or(0);
    let (value, tail) = tail.split_at_checked(length).ok_or_else(short)?;
    *rest = tail;
    Ok(value)
}
