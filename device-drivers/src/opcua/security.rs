//! Before the first word: is this the server we trust, and does it offer what we ask for?
//!
//! ```text
//!   GetEndpoints ──> is our policy and mode among them? ──no──> Denied, "it offers .."     (never a weaker one instead)
//!                         │yes
//!                    certificate trusted, in time, strong enough, for this application and host? ──no──> Untrusted, quarantined
//!                         │yes
//!                    does it take our kind of user, without a password in the clear? ──no──> Denied
//!                         │yes
//!                    open the session
//! ```
//!
//! async-opcua asks most of these questions too, later and only in its log; asked here, the answer is a state with a text.

use super::guard::{Door, Note};
use super::pki::{self, Pki, Wanted};
use super::{Identity, MessageMode, OpcUaSpec, Policy};
use crate::driver::LinkError;
use crate::files;
use opcua::client::{Client, ClientBuilder, IdentityToken};
use opcua::core::comms::url::hostname_from_url;
use opcua::crypto::SecurityPolicy;
use opcua::types::{EndpointDescription, MessageSecurityMode, StatusCode, UserTokenType};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Who we say we are when we have no certificate to say it.
const APPLICATION_URI: &str = "urn:lightsout:edge-agent";

/// Chunks of one message: with 64 KiB each this is 8 MiB, about 200,000 values.
const CHUNKS_MAX: usize = 128;
/// Elements of one array: more than any call asks for.
const ARRAY_MAX: usize = 50_000;

/// All that is needed to open a session.
pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) endpoint: EndpointDescription,
    pub(super) identity: IdentityToken,
    pub(super) door: Door,
    /// Thumbprint of our own certificate, for those who have to trust it.
    pub(super) own: Option<String>,
}

/// `host:port` of an endpoint.
fn peer_of(endpoint: &str) -> String {
    let rest = endpoint.strip_prefix("opc.tcp://").unwrap_or(endpoint);
    rest.split('/').next().unwrap_or(rest).to_string()
}

fn policy_of(policy: Policy) -> SecurityPolicy {
    match policy {
        Policy::None => SecurityPolicy::None,
        Policy::Basic256Sha256 => SecurityPolicy::Basic256Sha256,
        Policy::Aes128Sha256RsaOaep => SecurityPolicy::Aes128Sha256RsaOaep,
        Policy::Aes256Sha256RsaPss => SecurityPolicy::Aes256Sha256RsaPss,
    }
}

fn mode_of(mode: MessageMode) -> MessageSecurityMode {
    match mode {
        MessageMode::None => MessageSecurityMode::None,
        MessageMode::Sign => MessageSecurityMode::Sign,
        MessageMode::SignAndEncrypt => MessageSecurityMode::SignAndEncrypt,
    }
}

fn denied(spec: &OpcUaSpec, what: impl Into<String>) -> LinkError {
    LinkError::Denied { peer: spec.endpoint.clone(), what: what.into() }
}

pub(super) fn no_link(spec: &OpcUaSpec, why: impl Into<String>) -> LinkError {
    LinkError::Connect { peer: spec.endpoint.clone(), why: why.into() }
}

/// Asks the server what it offers, and decides.
pub(super) async fn prepare(spec: &OpcUaSpec) -> Result<Prepared, LinkError> {
    let folder = spec.pki_dir.clone();
    let secure = !spec.is_insecure();
    // Making a key takes seconds: on a thread that may.
    let opened = tokio::task::spawn_blocking(move || {
        let pki = match Pki::open(&folder) {
            Ok(pki) => pki,
            // Who has no security needs no keys.
            Err(_) if !secure => return Ok(None),
            Err(why) => return Err(why),
        };
        if !secure {
            return Ok(None);
        }
        let (own, keys) = (pki.own()?, Arc::new(pki.keys()?));
        Ok(Some((pki, own, keys)))
    });
    let opened = opened.await.map_err(|e| no_link(spec, e.to_string()))?.map_err(|e| no_link(spec, e))?;
    let (pki, own, keys) = opened.map_or((None, None, None), |(pki, own, keys)| (Some(pki), Some(own), Some(keys)));
    let uri = own.as_ref().and_then(|c| c.application_uri.clone()).unwrap_or_else(|| APPLICATION_URI.into());
    let client = client(spec, &uri)?;
    let door = Door::new(&spec.endpoint, keys, spec.timeout);

    let asked = timeout(spec.timeout, client.get_server_endpoints_from_url(door.clone())).await;
    let offers = match asked {
        Ok(Ok(offers)) => offers,
        Ok(Err(e)) => {
            return Err(
                at_the_door(spec, &door).unwrap_or_else(|| no_link(spec, format!("asking for the endpoints: {e}")))
            );
        }
        Err(_) => {
            let what = "the question for its endpoints".into();
            return Err(LinkError::Timeout { peer: spec.endpoint.clone(), what, limit: spec.timeout });
        }
    };
    let mut endpoint = choose(spec, &offers)?;
    if let Some(pki) = &pki {
        let host = hostname_from_url(&spec.endpoint).ok();
        let wanted = Wanted {
            policy: policy_of(spec.security.policy),
            host: host.as_deref().filter(|_| spec.security.check_host),
            application_uri: endpoint.server.application_uri.as_ref(),
        };
        let der = pki::bytes_of(&endpoint.server_certificate);
        crate::tls::shown::note(&peer_of(&spec.endpoint), [der]);
        let judged = pki.judge(der, &wanted);
        judged.map_err(|doubt| LinkError::Untrusted {
            peer: spec.endpoint.clone(),
            what: doubt.what,
            thumbprint: doubt.thumbprint,
        })?;
    }
    let identity = identity(spec, &mut endpoint)?;
    Ok(Prepared { client, endpoint, identity, door, own: own.map(|c| c.thumbprint) })
}

fn client(spec: &OpcUaSpec, uri: &str) -> Result<Client, LinkError> {
    let folder = std::path::absolute(&spec.pki_dir).map_err(|e| no_link(spec, e.to_string()))?;
    ClientBuilder::new()
        .application_name("Lightsout edge-agent")
        .application_uri(uri)
        .product_uri("urn:lightsout:edge-agent")
        .pki_dir(folder.join("library"))
        .certificate_path(folder.join("own/cert.der"))
        .private_key_path(folder.join("private/private.pem"))
        .create_sample_keypair(false)
        .trust_server_certs(false)
        // Whether it is trusted is asked once more; time, application and host have been checked above.
        .verify_server_certs(false)
        .session_name("Lightsout")
        // A controller's clock may be wrong by years: without this its channel would be renewed at each request, or never.
        .ignore_clock_skew(true)
        .session_retry_limit(0)
        .recreate_subscriptions(false)
        .session_timeout(30_000)
        .keep_alive_interval(Duration::from_secs(2))
        .min_publish_interval(Duration::from_millis(10))
        .request_timeout(spec.timeout)
        .max_message_size(8 << 20)
        .max_chunk_count(CHUNKS_MAX)
        .max_array_length(ARRAY_MAX)
        .client()
        .map_err(|e| no_link(spec, e.join(", ")))
}

/// What our own door has seen, and the library would only log.
pub(super) fn at_the_door(spec: &OpcUaSpec, door: &Door) -> Option<LinkError> {
    let peer = spec.endpoint.clone();
    Some(match door.note()? {
        Note::NoConnection(why) => LinkError::Connect { peer, why },
        Note::Wrong(what) => LinkError::Protocol { peer, what },
    })
}

fn choose(spec: &OpcUaSpec, offers: &[EndpointDescription]) -> Result<EndpointDescription, LinkError> {
    let (policy, mode) = (policy_of(spec.security.policy), mode_of(spec.security.mode));
    let binary = |e: &&EndpointDescription| {
        let profile = e.transport_profile_uri.as_ref();
        profile.is_empty() || profile.ends_with("uatcp-uasc-uabinary")
    };
    let fits = |e: &&EndpointDescription| {
        e.security_mode == mode && SecurityPolicy::from_uri(e.security_policy_uri.as_ref()) == policy
    };
    let path = |url: &str| url.splitn(4, '/').nth(3).unwrap_or("").trim_end_matches('/').to_string();
    let same_path = |e: &&EndpointDescription| path(e.endpoint_url.as_ref()) == path(&spec.endpoint);
    let fitting = || offers.iter().filter(binary).filter(fits);
    let Some(found) = fitting().find(same_path).or_else(|| fitting().next()) else {
        let mut offered: Vec<String> = offers.iter().filter(binary).map(name_of).collect();
        offered.sort();
        offered.dedup();
        let wanted = spec.security;
        let offered = if offered.is_empty() { "nothing at all".to_string() } else { offered.join(", ") };
        return Err(denied(spec, format!("it does not offer security {wanted}, it offers {offered}")));
    };
    let mut endpoint = found.clone();
    // The server may know itself by a name that does not lead there from here.
    endpoint.endpoint_url = spec.endpoint.as_str().into();
    Ok(endpoint)
}

fn name_of(offer: &EndpointDescription) -> String {
    let uri = offer.security_policy_uri.as_ref();
    let policy = uri.rsplit('#').next().unwrap_or(uri);
    if policy == "None" { "none".into() } else { format!("{policy}/{}", offer.security_mode) }
}

/// Who we are to this server; other kinds of users are taken off the endpoint, so that the library cannot choose among them.
fn identity(spec: &OpcUaSpec, endpoint: &mut EndpointDescription) -> Result<IdentityToken, LinkError> {
    let (kind, token) = match &spec.identity {
        Identity::Anonymous => (UserTokenType::Anonymous, IdentityToken::Anonymous),
        Identity::User { name, password } => {
            (UserTokenType::UserName, IdentityToken::new_user_name(name, password.as_str()))
        }
        Identity::Certificate { certificate, key } => {
            // The library would read whatever is there, for as long as it takes.
            for file in [certificate, key] {
                let looked = files::read(file, files::SECRET_MAX);
                looked.map_err(|e| denied(spec, format!("the user's {} cannot be read: {e}", file.display())))?;
            }
            let token = IdentityToken::new_x509_path(certificate, key);
            (
                UserTokenType::Certificate,
                token.map_err(|e| denied(spec, format!("the user's certificate cannot be read: {e}")))?,
            )
        }
    };
    let anonymous = kind == UserTokenType::Anonymous;
    if !anonymous && spec.is_insecure() {
        let what = "a user is only named where messages are protected: choose a security for this line";
        return Err(denied(spec, what));
    }
    let offered = endpoint.user_identity_tokens.take().unwrap_or_default();
    if anonymous && offered.is_empty() {
        endpoint.user_identity_tokens = Some(vec![opcua::types::UserTokenPolicy::anonymous()]);
        return Ok(token);
    }
    let kinds: Vec<&str> = offered.iter().map(|t| kind_name(t.token_type)).collect();
    let mut usable: Vec<_> = offered.iter().filter(|t| t.token_type == kind).cloned().collect();
    for policy in &mut usable {
        // Nothing said means that of the endpoint (OPC 10000-4, 7.41); the library takes it for none with certificates.
        if policy.security_policy_uri.is_empty() {
            policy.security_policy_uri = endpoint.security_policy_uri.clone();
        }
    }
    if !anonymous {
        // A password in the clear inside a message that is only signed can be read by all.
        usable.retain(|t| {
            let own = SecurityPolicy::from_uri(t.security_policy_uri.as_ref());
            own != SecurityPolicy::Unknown
                && (own != SecurityPolicy::None
                    || (kind == UserTokenType::UserName
                        && endpoint.security_mode == MessageSecurityMode::SignAndEncrypt))
        });
    }
    if usable.is_empty() {
        let mut kinds = kinds;
        kinds.sort_unstable();
        kinds.dedup();
        let wanted = kind_name(kind);
        let what = if kinds.contains(&wanted) {
            format!("it takes {wanted} only in a way that others can read")
        } else {
            format!("it does not take {wanted}, it takes {}", kinds.join(", "))
        };
        return Err(denied(spec, what));
    }
    endpoint.user_identity_tokens = Some(usable);
    Ok(token)
}

fn kind_name(kind: UserTokenType) -> &'static str {
    match kind {
        UserTokenType::Anonymous => "anonymous users",
        UserTokenType::UserName => "users with a password",
        UserTokenType::Certificate => "users with a certificate",
        _ => "users with a token",
    }
}

/// Why a session was refused, as the server's status code tells it.
pub(super) fn refusal(spec: &OpcUaSpec, status: StatusCode, own: Option<&str>) -> LinkError {
    use StatusCode as S;
    match status {
        S::BadIdentityTokenInvalid
        | S::BadIdentityTokenRejected
        | S::BadUserAccessDenied
        | S::BadUserSignatureInvalid => {
            let who = match &spec.identity {
                Identity::Anonymous => "anonymous users".to_string(),
                Identity::User { name, .. } => format!("the user {name} or the password"),
                Identity::Certificate { certificate, .. } => {
                    format!("the user's certificate {}", certificate.display())
                }
            };
            let what = format!("{who} ({status})");
            match spec.identity {
                Identity::Anonymous => denied(spec, what),
                _ => LinkError::Login { peer: spec.endpoint.clone(), what },
            }
        }
        S::BadSecurityChecksFailed
        | S::BadCertificateInvalid
        | S::BadCertificateUntrusted
        | S::BadCertificateUriInvalid
        | S::BadCertificateHostNameInvalid
        | S::BadCertificateTimeInvalid
        | S::BadCertificateUseNotAllowed
        | S::BadCertificateChainIncomplete
        | S::BadCertificateIssuerUseNotAllowed
            if own.is_some() =>
        {
            let (own, folder) = (own.unwrap_or_default(), spec.pki_dir.display());
            let what = format!(
                "the certificate of this gateway ({status}); let the server trust {folder}/own/cert.der, thumbprint {own}"
            );
            denied(spec, what)
        }
        S::BadSecurityPolicyRejected | S::BadSecurityModeRejected => {
            denied(spec, format!("security {} ({status})", spec.security))
        }
        S::BadTooManySessions | S::BadTcpNotEnoughResources => {
            no_link(spec, format!("the server has no session left ({status}); close another client"))
        }
        _ => no_link(spec, format!("opening the session: {status}")),
    }
}
