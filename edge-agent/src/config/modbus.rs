//! What a Modbus line is told: TCP, TLS, serial frames through TCP, or a serial port.

use super::lines::beside;
use super::raw;
use super::report::{Problem, Source};
use super::values::{Spanned, host_port, within};
use device_drivers::files;
use device_drivers::modbus::{DeviceSpec, Endpoint, LineSpec, Serial, Tls};
use std::ops::Range;
use std::time::Duration;

/// Most requests on their way at once.
const PIPELINE_MAX: u8 = 32;
/// Speeds a serial port may have.
const BAUD: std::ops::RangeInclusive<u32> = 300..=1_000_000;

pub(super) fn line(
    source: &Source,
    line: &raw::Line,
    timeout: Duration,
    devices: Vec<DeviceSpec>,
    problems: &mut Vec<Problem>,
) -> Option<LineSpec> {
    let endpoint = endpoint(source, line, problems)?;
    let pipeline = line.pipeline.as_ref().map_or(1, |p| *p.get_ref());
    if let Some(given) = line.pipeline.as_ref().filter(|_| !(1..=PIPELINE_MAX).contains(&pipeline)) {
        problems.push(source.problem(
            given.span(),
            "this pipeline is out of range",
            format!("must be 1 to {PIPELINE_MAX}"),
        ));
    }
    if let Some(given) = line.pipeline.as_ref().filter(|_| !endpoint.has_transactions()) {
        let label = "serial frames carry no transaction id: one request at a time";
        problems.push(source.problem(given.span(), "a serial line has no pipeline", label));
    }
    if !endpoint.has_transactions() {
        // Modbus over Serial Line V1.02, 2.2: 1 to 247; 0 is everybody, and nobody answers.
        for unit in line.devices.iter().filter_map(|d| d.unit.as_ref()).filter(|u| !(1..=247).contains(u.get_ref())) {
            let label = "must be 1 to 247; 0 would be every device on the line";
            problems.push(source.problem(unit.span(), "no serial device has this address", label));
        }
    }
    let close_after_poll = line.close_after_poll.as_ref().is_some_and(|c| *c.get_ref());
    if let Some(given) = line.close_after_poll.as_ref().filter(|_| close_after_poll) {
        if endpoint.host_port().is_none() {
            let label = "a serial port stays open: nobody else could use it anyway";
            problems.push(source.problem(given.span(), "there is no connection to give up", label));
        } else if devices.iter().any(|d| !d.commands.is_empty()) {
            let label = "the line carries machines, and their heartbeat is written all the time";
            problems.push(source.problem(given.span(), "this connection is never done", label));
        }
    }
    for given in line.devices.iter().filter_map(|d| d.foreign_replies.as_ref()).filter(|f| *f.get_ref()) {
        let title = "foreign replies cannot be taken on this line";
        if !endpoint.has_transactions() {
            let label = "serial frames carry no transaction id, and units are told apart by their address alone";
            problems.push(source.problem(given.span(), title, label));
        } else if pipeline > 1 {
            let label = "with a pipeline they could be anybody's: take `pipeline` out of the line";
            problems.push(source.problem(given.span(), title, label));
        }
    }
    let pause = within(source, &line.pause, Duration::ZERO, Duration::ZERO..=Duration::from_secs(10), problems);
    Some(LineSpec { endpoint, connect_timeout: timeout, timeout, pipeline, pause, close_after_poll, devices })
}

fn endpoint(source: &Source, line: &raw::Line, problems: &mut Vec<Problem>) -> Option<Endpoint> {
    let text = line.modbus.as_ref()?;
    let (scheme, rest) = match text.get_ref().split_once("://") {
        Some((scheme, rest)) => (scheme, rest.to_string()),
        None if text.get_ref().starts_with('/') => ("rtu", text.get_ref().clone()),
        None => ("tcp", text.get_ref().clone()),
    };
    let at = Spanned::new(text.span(), rest.clone());
    let mut misplaced = |given: Option<Range<usize>>, wanted: &str, label: &str| {
        if let Some(span) = given.filter(|_| scheme != wanted) {
            problems.push(source.problem(span, "this table has no effect here", label));
        }
    };
    misplaced(line.serial.as_ref().map(Spanned::span), "rtu", "the line is no serial port");
    misplaced(line.tls.as_ref().map(Spanned::span), "tls", "the line does not use TLS: write \"tls://host:port\"");
    match scheme {
        "tcp" => {
            host_port(source, &at, problems);
            Some(Endpoint::Tcp(rest))
        }
        "rtu-over-tcp" => {
            host_port(source, &at, problems);
            Some(Endpoint::RtuOverTcp(rest))
        }
        "tls" => {
            host_port(source, &at, problems);
            Some(Endpoint::Tls(rest, tls(source, line, text, problems)?))
        }
        "rtu" => Some(Endpoint::Rtu(serial(source, line, rest, problems)?)),
        other => {
            let label = format!(
                "found \"{other}://\", expected tcp, tls or rtu-over-tcp, or a serial port as in \"/dev/ttyUSB0\""
            );
            problems.push(source.problem(text.span(), "unknown kind of Modbus line", label));
            None
        }
    }
}

fn tls(source: &Source, line: &raw::Line, text: &Spanned<String>, problems: &mut Vec<Problem>) -> Option<Tls> {
    let Some(table) = &line.tls else {
        let problem = source.problem(text.span(), "a TLS line needs certificates", "there is no `tls` table");
        problems
            .push(problem.help("add tls = { ca = \"ca.pem\", certificate = \"gateway.pem\", key = \"gateway.key\" }"));
        return None;
    };
    Some(tls_files(source, table.get_ref(), problems))
}

/// Certificates and key of a table, each file looked at.
pub(super) fn tls_files(source: &Source, table: &raw::Tls, problems: &mut Vec<Problem>) -> Tls {
    let mut file = |path: &Spanned<String>| {
        let found = beside(source, path.get_ref());
        if let Err(e) = files::look_at(&found, files::AUTHORITIES_MAX) {
            let label = format!("{}: {e}", found.display());
            problems.push(source.problem(path.span(), "this file cannot be read", label));
        }
        found
    };
    let ca = file(&table.ca);
    let own = match (&table.certificate, &table.key) {
        (Some(certificate), Some(key)) => Some((file(certificate), file(key))),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            let label = "`certificate` and `key` belong together";
            problems.push(source.problem(one.span(), "half of an identity", label));
            None
        }
    };
    Tls { ca, own, name: table.name.clone() }
}

fn serial(source: &Source, line: &raw::Line, path: String, problems: &mut Vec<Problem>) -> Option<Serial> {
    let Some(table) = &line.serial else {
        let span = line.modbus.as_ref().map_or(0..0, Spanned::span);
        let problem = source.problem(span, "a serial line needs its settings", "there is no `serial` table");
        problems.push(problem.help("add serial = { baud = 19200, parity = \"even\" }, as the devices are set"));
        return None;
    };
    let table = table.get_ref();
    let baud = *table.baud.get_ref();
    if !BAUD.contains(&baud) {
        let label = format!("must be {} to {}", BAUD.start(), BAUD.end());
        problems.push(source.problem(table.baud.span(), "no serial port is this fast or slow", label));
    }
    // Modbus over Serial Line V1.02, 2.5.1: even parity is the default, and two stop bits stand in for none.
    let parity = match table.parity.as_ref().map(|p| (p.get_ref().as_str(), p.span())) {
        None | Some(("even", _)) => 'E',
        Some(("odd", _)) => 'O',
        Some(("none", _)) => 'N',
        Some((other, span)) => {
            let label = format!("found \"{other}\", expected \"none\", \"even\" or \"odd\"");
            problems.push(source.problem(span, "unknown parity", label));
            'E'
        }
    };
    let stop_bits = table.stop_bits.as_ref().map_or(if parity == 'N' { 2 } else { 1 }, |s| *s.get_ref());
    if let Some(given) = table.stop_bits.as_ref().filter(|_| !(1..=2).contains(&stop_bits)) {
        problems.push(source.problem(given.span(), "no frame has this many stop bits", "must be 1 or 2"));
    }
    Some(Serial { path, baud, parity, stop_bits })
}
