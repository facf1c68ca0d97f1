//! The OPC UA part of a line: how safely, as whom, and how each tag comes.
//!
//! ```text
//!   [[line]]  security, check_host, username + password_file | user_certificate + user_key, vendor
//!   [[tag]]   sampling, queue, deadband | deadband_percent, poll
//! ```

use super::plan::PointPlan;
use super::raw;
use super::report::{Problem, Source, closest};
use super::values::{Spanned, is_host, not_filled_in, within};
use device_drivers::files;
use device_drivers::opcua::{Deadband, Identity, Mode, NodeName, OpcUaSpec, Policy, Security, UaPoint, Vendor};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;
/// How often a server looks for changes when nothing is said.
const SAMPLING: Duration = Duration::from_millis(50);
/// Rarer than this is not watching.
const SAMPLING_MAX: Duration = Duration::from_secs(60);
/// The longest queue a tag may ask for.
const QUEUE_MAX: u32 = 10_000;

/// What a line says, beside its devices.
pub(super) struct LineKeys {
    pub(super) endpoint: String,
    pub(super) timeout: Duration,
    pub(super) publishing: Duration,
    pub(super) security: Security,
    pub(super) identity: Identity,
    pub(super) vendor: Vendor,
    pub(super) pki_dir: PathBuf,
}

impl LineKeys {
    /// A point is not stale before the server would have had to say something of it, or it would have been read three times.
    pub(super) fn allow_for(&self, points: &[UaPoint], plans: &mut [PointPlan]) {
        for point in points {
            let interval = if let Mode::Poll { interval } = point.mode { interval } else { self.publishing };
            if let Some(plan) = plans.get_mut(point.id.0 as usize) {
                plan.stale_after = plan.stale_after.max(interval * 3);
            }
        }
    }

    /// The line with its points.
    pub(super) fn spec(
        self,
        points: Vec<UaPoint>,
        commands: Vec<(control_core::units::MachineId, NodeName)>,
    ) -> OpcUaSpec {
        OpcUaSpec {
            endpoint: self.endpoint,
            timeout: self.timeout,
            publishing: self.publishing,
            security: self.security,
            identity: self.identity,
            vendor: self.vendor,
            pki_dir: self.pki_dir,
            points,
            commands,
        }
    }
}

/// Where the OPC UA keys of a line stand; on another line they are strays.
pub(super) fn keys_of_line(line: &raw::Line) -> Vec<Range<usize>> {
    let texts =
        [&line.security, &line.username, &line.password_file, &line.user_certificate, &line.user_key, &line.vendor];
    let texts = texts.into_iter().flatten().map(Spanned::span);
    let others = [line.publishing.as_ref().map(Spanned::span), line.check_host.as_ref().map(Spanned::span)];
    texts.chain(others.into_iter().flatten()).collect()
}

/// Where the keys of a tag stand that only OPC UA knows.
pub(super) fn keys_of_tag(tag: &raw::Tag) -> Vec<Range<usize>> {
    let sampling = tag.sampling.as_ref().map(Spanned::span);
    let queue = tag.queue.as_ref().map(Spanned::span);
    [sampling, queue, tag.poll.as_ref().map(Spanned::span)].into_iter().flatten().collect()
}

/// Reads the keys of an OPC UA line.
pub(super) fn line(
    source: &Source,
    line: &raw::Line,
    endpoint: &Spanned<String>,
    timeout: Duration,
    (state_dir, is_kept): (&Path, bool),
    problems: &mut Vec<Problem>,
) -> LineKeys {
    check_endpoint(source, endpoint, problems);
    let mut security = security(source, line, endpoint, problems);
    security.check_host = line.check_host.as_ref().is_none_or(|c| *c.get_ref());
    if let Some(given) = line.security.as_ref().filter(|_| security.policy != Policy::None && !is_kept) {
        let label = "it would be made anew after each restart of this machine, and no server would know it";
        let problem = source.problem(given.span(), "a line with security has a key that must be kept", label);
        problems.push(problem.help("add `state_dir = \"/var/lib/lightsout\"` to [gateway]"));
    }
    let identity = identity(source, line, security, problems);
    LineKeys {
        endpoint: endpoint.get_ref().clone(),
        timeout: timeout.max(Duration::from_secs(3)),
        publishing: within(source, &line.publishing, MS(100), MS(50)..=MS(10_000), problems),
        security,
        identity,
        vendor: vendor(source, line, problems),
        pki_dir: state_dir.join("pki"),
    }
}

fn check_endpoint(source: &Source, endpoint: &Spanned<String>, problems: &mut Vec<Problem>) {
    let address = endpoint.get_ref().strip_prefix("opc.tcp://").map(|rest| rest.split('/').next().unwrap_or(rest));
    let valid = address.and_then(|a| a.rsplit_once(':')).is_some_and(|(h, p)| is_host(h) && p.parse::<u16>().is_ok());
    if !valid {
        let label = "expected an endpoint, as in \"opc.tcp://192.168.1.20:4840/\"";
        let problem = source.problem(endpoint.span(), "this is not an OPC UA endpoint", label);
        problems.push(match not_filled_in(endpoint.get_ref()) {
            Some(help) => problem.help(help),
            None => problem,
        });
    }
}

fn security(source: &Source, line: &raw::Line, endpoint: &Spanned<String>, problems: &mut Vec<Problem>) -> Security {
    let Some(given) = &line.security else {
        let problem = source.problem(
            endpoint.span(),
            "say which security this line has",
            "without any, anyone on this network can read and write it",
        );
        let help =
            "add `security = \"Basic256Sha256/SignAndEncrypt\"`, or `security = \"none\"` if that is what you want";
        problems.push(problem.help(help));
        return Security::NONE;
    };
    given.get_ref().parse().unwrap_or_else(|_| {
        let mut names = Security::names();
        names.push("none".into());
        let near = closest(given.get_ref(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        let near = near.map_or(String::new(), |n| format!("did you mean \"{n}\"? "));
        let problem = source.problem(given.span(), "unknown OPC UA security", format!("found \"{}\"", given.get_ref()));
        problems.push(problem.help(format!("{near}There are: {}", names.join(", "))));
        Security::NONE
    })
}

fn identity(source: &Source, line: &raw::Line, security: Security, problems: &mut Vec<Problem>) -> Identity {
    let file =
        |name: &Spanned<String>| source.path.parent().map_or_else(PathBuf::new, Path::to_path_buf).join(name.get_ref());
    let user = [&line.username, &line.password_file];
    let certificate = [&line.user_certificate, &line.user_key];
    let first = |keys: [&Option<Spanned<String>>; 2]| keys.into_iter().flatten().map(Spanned::span).next();
    if let (Some(at), Some(_)) = (first(user), first(certificate)) {
        let label = "a user has either a password or a certificate";
        problems.push(source.problem(at, "this line has two users", label));
        return Identity::Anonymous;
    }
    if let Some(at) = first(user).or_else(|| first(certificate))
        && security.policy == Policy::None
    {
        let problem =
            source.problem(at, "a user needs security", "on this line anyone could read who it is and what it knows");
        problems.push(problem.help("choose a security for the line, such as \"Basic256Sha256/SignAndEncrypt\""));
        return Identity::Anonymous;
    }
    match (user, certificate) {
        ([None, None], [None, None]) => Identity::Anonymous,
        ([Some(name), Some(password)], _) => match files::read_secret(&file(password)) {
            Ok(password) => Identity::User { name: name.get_ref().clone(), password },
            Err(e) => {
                let problem = source.problem(password.span(), "the password cannot be read", e.to_string());
                problems.push(problem.help("the file is looked for beside this file"));
                Identity::Anonymous
            }
        },
        (_, [Some(certificate), Some(key)]) => {
            for (given, path) in [(certificate, file(certificate)), (key, file(key))] {
                if let Err(e) = files::read(&path, files::SECRET_MAX) {
                    let problem = source.problem(given.span(), "this file cannot be read", e.to_string());
                    problems.push(problem.help("the file is looked for beside this file"));
                }
            }
            Identity::Certificate { certificate: file(certificate), key: file(key) }
        }
        _ => {
            let missing = match (user, certificate) {
                ([Some(_), None], _) => "password_file",
                ([None, Some(_)], _) => "username",
                (_, [Some(_), None]) => "user_key",
                _ => "user_certificate",
            };
            let at = first(user).or_else(|| first(certificate)).unwrap_or(0..0);
            problems.push(source.problem(at, "this user is not complete", format!("add `{missing} = ..` to the line")));
            Identity::Anonymous
        }
    }
}

fn vendor(source: &Source, line: &raw::Line, problems: &mut Vec<Problem>) -> Vendor {
    let Some(given) = &line.vendor else { return Vendor::Generic };
    let names = Vendor::ALL.map(Vendor::name);
    Vendor::ALL.into_iter().find(|v| v.name() == given.get_ref()).unwrap_or_else(|| {
        let near = closest(&given.get_ref().to_ascii_lowercase(), &names);
        let near = near.map_or(String::new(), |n| format!("did you mean \"{n}\"? "));
        let problem = source.problem(given.span(), "unknown vendor", format!("found \"{}\"", given.get_ref()));
        problems
            .push(problem.help(format!("{near}There are: {}; leave it out for any other server", names.join(", "))));
        Vendor::Generic
    })
}

/// How a status block comes.
pub(super) fn status_block(publishing: Duration) -> Mode {
    Mode::subscribe(SAMPLING.min(publishing))
}

/// How a tag comes, by what it says.
pub(super) fn mode(profile: &Source, tag: &raw::Tag, publishing: Duration, problems: &mut Vec<Problem>) -> Mode {
    let poll = tag.poll.as_ref().is_some_and(|p| *p.get_ref());
    let usual = if poll { publishing } else { SAMPLING.min(publishing) };
    let sampling = within(profile, &tag.sampling, usual, MS(10)..=SAMPLING_MAX, problems);
    let positive = |given: &Option<Spanned<f64>>, most: f64, problems: &mut Vec<Problem>| {
        let given = given.as_ref()?;
        let value = *given.get_ref();
        if value > 0.0 && value.is_finite() && value <= most {
            return Some(value);
        }
        let label =
            if most.is_finite() { format!("must be above 0 and at most {most}") } else { "must be above 0".into() };
        problems.push(profile.problem(given.span(), "this deadband is out of range", label));
        None
    };
    let absolute = positive(&tag.deadband, f64::INFINITY, problems).map(Deadband::Absolute);
    let percent = positive(&tag.deadband_percent, 100.0, problems).map(Deadband::Percent);
    if let (Some(given), Some(_)) = (&tag.deadband_percent, &tag.deadband) {
        let label = "`deadband` says it already, in the unit of the value";
        problems.push(profile.problem(given.span(), "this tag has two deadbands", label));
    }
    let queue = match &tag.queue {
        Some(given) if !(1..=QUEUE_MAX).contains(given.get_ref()) => {
            let label = format!("must be 1 to {QUEUE_MAX}");
            problems.push(profile.problem(given.span(), "this queue is out of range", label));
            0
        }
        given => given.as_ref().map_or(0, |q| *q.get_ref()),
    };
    if !poll {
        return Mode::Subscribe { sampling, queue, deadband: absolute.or(percent) };
    }
    let strays = [
        tag.deadband.as_ref().map(Spanned::span),
        tag.deadband_percent.as_ref().map(Spanned::span),
        tag.queue.as_ref().map(Spanned::span),
    ];
    for stray in strays.into_iter().flatten() {
        let problem = profile.problem(stray, "this key is for tags that are subscribed to", "the tag is polled");
        problems.push(problem.help("remove it, or remove `poll = true`; `sampling` says how often the tag is polled"));
    }
    Mode::Poll { interval: sampling }
}

/// How wide the range of a tag is, if it says both ends.
pub(super) fn range(tag: &raw::Tag) -> Option<f64> {
    Some(tag.high.as_ref()?.get_ref() - tag.low.as_ref()?.get_ref()).filter(|width| *width > 0.0)
}

/// Says once, for each line that anyone on the network can read and write, that this is so.
pub fn warn_insecure(plan: &super::Plan) {
    for line in &plan.lines {
        if let super::DriverPlan::OpcUa(spec) = &line.driver
            && spec.is_insecure()
        {
            tracing::warn!(
                line = &*line.name,
                "security = \"none\": anyone on this network can read and write {}",
                spec.endpoint
            );
        }
    }
}
