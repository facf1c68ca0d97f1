//! Which security the OPC UA servers offer.

use opcua::crypto::SecurityPolicy;
use opcua::types::MessageSecurityMode;

/// Names, policies and modes of the endpoints: one without security, and all the others beside it.
pub(super) fn endpoints(secure: bool) -> Vec<(String, SecurityPolicy, MessageSecurityMode)> {
    let mut all = vec![("none".to_string(), SecurityPolicy::None, MessageSecurityMode::None)];
    let policies =
        [SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep, SecurityPolicy::Aes256Sha256RsaPss];
    for policy in policies.into_iter().filter(|_| secure) {
        all.push((format!("{policy}-sign"), policy, MessageSecurityMode::Sign));
        all.push((format!("{policy}-encrypt"), policy, MessageSecurityMode::SignAndEncrypt));
    }
    all
}
