//! What a pair of wires does that a connection does not: it may give back what we say, and it may never be silent.
//!
//! ```text
//!   we say    [17 06 00 05 00 07 crc]
//!   we hear   [17 06 00 05 00 07 crc]                             the reply of the device, or our own words?
//!   we hear   [17 06 00 05 00 07 crc][17 06 00 05 00 07 crc]      an adapter with local echo, and a device that answers
//! ```
//!
//! Functions 5, 6 and 22 are answered with the request itself: one copy proves nothing before it is known whether the adapter echoes.
//! A read tells: no device answers a read with the read. Once its copy has come, the first copy of whatever we say is taken for our own
//! words, for as long as the link lives; and before a read has told, no such write is sent.
//!
//! A line that is never silent (an adapter without bias, a device that babbles) is spoken into after one time limit: an answer is unlikely,
//! but waiting for ever would tell nobody why.

use super::frame::Inbox;
use super::pdu::Expected;
use crate::value::Cause;
use std::time::Duration;
use tokio::time::Instant;

/// A serial line as it is heard.
#[derive(Debug, Default)]
pub(super) struct Bus {
    /// Whether the adapter gives back what we say; `None`: nobody knows yet.
    echoes: Option<bool>,
    /// The request on its way, as it went out.
    said: Vec<u8>,
    /// A good reply may look like it.
    ambiguous: bool,
    /// Its copy has come back.
    copied: bool,
    /// Anything has come since it went out.
    heard: bool,
    /// It went out although the line was not silent.
    through_noise: bool,
    /// Since when bytes come without a silence between them, and when the last came.
    noise: Option<(Instant, Instant)>,
}

impl Bus {
    /// A request goes out; the answer is whether the line was not silent.
    pub(super) fn say(&mut self, frame: &[u8], expected: Expected, now: Instant, silence: Duration) -> bool {
        self.said.clear();
        self.said.extend_from_slice(frame);
        self.ambiguous = expected.may_be_the_request();
        self.through_noise = self.noise.is_some_and(|(_, last)| now < last + silence);
        (self.copied, self.heard) = (false, false);
        self.through_noise
    }

    /// The connection behind which the line lies was made anew: nothing is on its way. What is known of the adapter is still known.
    pub(super) fn is_connected_again(&mut self) {
        *self = Bus { echoes: self.echoes, ..Bus::default() };
    }

    /// Bytes have come. The answer is when the next request may go out: after a silence, but not later than `limit` after they began.
    pub(super) fn hears(&mut self, now: Instant, silence: Duration, limit: Duration) -> Instant {
        self.heard = true;
        let since = match self.noise {
            Some((since, last)) if now <= last + silence => since,
            _ => now,
        };
        self.noise = Some((since, now));
        (now + silence).min(since + limit).max(now)
    }

    /// Takes our own words out of what has come. False: wait, what is there may be no more than that. Also counts them.
    pub(super) fn takes_its_copy(&mut self, inbox: &mut Inbox, copies: &mut u64) -> bool {
        if self.copied || self.said.is_empty() || (self.echoes == Some(false) && self.ambiguous) {
            return true;
        }
        let at = inbox.rest().windows(self.said.len()).position(|bytes| bytes == self.said);
        if let Some(at) = at {
            inbox.skip(at + self.said.len());
            self.copied = true;
            *copies += 1;
            if !self.ambiguous {
                self.echoes = Some(true);
            }
            return true;
        }
        // A reply that equals the request is a copy, and taken above; what differs from it is a reply, or nothing yet.
        let begun = !inbox.rest().is_empty() && self.said.starts_with(inbox.rest());
        self.echoes == Some(false) || !begun
    }

    /// A reply has been found.
    pub(super) fn is_answered(&mut self) {
        if !self.copied && !self.ambiguous {
            self.echoes.get_or_insert(false);
        }
    }

    /// No reply has come in time; why not, as far as the line can tell.
    pub(super) fn is_not_answered(&mut self) -> Cause {
        if !self.heard {
            self.echoes.get_or_insert(false);
        }
        match () {
            () if self.copied => Cause::OnlyEcho,
            () if self.through_noise => Cause::NeverSilent,
            () => Cause::NoAnswer,
        }
    }

    /// Whether a reply that equals its request can be told from an echo.
    pub(super) fn knows_its_echo(&self) -> bool {
        self.echoes.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Table;
    use super::super::frame::put_rtu;
    use super::super::pdu::{Answer, Ask};
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const READ: Ask = Ask::Read { table: Table::Holding, start: 5, count: 1 };

    fn write(number: u16) -> Ask {
        Ask::WriteRegisters { start: number, words: vec![7], single: true }
    }

    fn framed(pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_rtu(17, pdu, &mut out);
        out
    }

    /// Says something, hears these pieces, and tells what was made of them.
    fn exchange(bus: &mut Bus, ask: &Ask, hears: &[&[u8]]) -> Result<Vec<u8>, Cause> {
        let (mut pdu, now, mut inbox, mut copies) = (Vec::new(), Instant::now(), Inbox::default(), 0);
        let expected = ask.encode(&mut pdu);
        bus.say(&framed(&pdu), expected, now, 2 * MS);
        for piece in hears {
            bus.hears(now, 2 * MS, 100 * MS);
            inbox.push(piece);
            if bus.takes_its_copy(&mut inbox, &mut copies)
                && let Some(found) = inbox.rtu(17, expected)
            {
                bus.is_answered();
                let pdu = inbox.get(found).to_vec();
                assert!(!matches!(expected.check(&pdu), Ok(Answer::Exception(_)) | Err(_)));
                return Ok(pdu);
            }
        }
        Err(bus.is_not_answered())
    }

    fn request(ask: &Ask) -> Vec<u8> {
        let mut pdu = Vec::new();
        ask.encode(&mut pdu);
        framed(&pdu)
    }

    #[test]
    fn one_copy_is_a_reply_without_echo_and_none_with_it() {
        let (reply, word) = (framed(&[3, 2, 0, 9]), vec![3, 2, 0, 9]);
        let single = request(&write(5));
        let mut plain = Bus::default();
        assert!(!plain.knows_its_echo());
        assert_eq!(exchange(&mut plain, &READ, &[&reply]), Ok(word.clone()));
        assert!(plain.knows_its_echo());
        assert!(exchange(&mut plain, &write(5), &[&single]).is_ok());

        let mut echoing = Bus::default();
        assert_eq!(exchange(&mut echoing, &READ, &[&request(&READ), &reply]), Ok(word));
        assert_eq!(exchange(&mut echoing, &write(5), &[&single]), Err(Cause::OnlyEcho), "a device that is not there");
        assert!(exchange(&mut echoing, &write(5), &[&single, &single]).is_ok());
        assert!(exchange(&mut echoing, &write(5), &[&[&[0xFF][..], &single, &single].concat()]).is_ok());
        assert_eq!(exchange(&mut echoing, &write(5), &[&reply, &single]), Err(Cause::OnlyEcho));
    }

    #[test]
    fn an_adapter_that_only_echoes_is_found_out_and_one_that_says_nothing_does_not_echo() {
        let mut loopback = Bus::default();
        assert_eq!(exchange(&mut loopback, &READ, &[&request(&READ)]), Err(Cause::OnlyEcho));
        assert_eq!(exchange(&mut loopback, &write(1), &[&request(&write(1))]), Err(Cause::OnlyEcho));
        let mut silent = Bus::default();
        assert_eq!(exchange(&mut silent, &READ, &[]), Err(Cause::NoAnswer));
        assert!(silent.knows_its_echo());
        let mut damaged = Bus::default();
        assert_eq!(exchange(&mut damaged, &READ, &[&[1, 2, 3]]), Err(Cause::NoAnswer));
        assert!(!damaged.knows_its_echo(), "garbage tells nothing");
    }

    #[test]
    fn the_echo_of_a_long_write_never_passes_for_its_reply_however_it_is_cut() {
        // The reply is the head of the request and a CRC. Where that CRC begins with the request's byte count, and the value with the
        // CRC's other half, the request begins with its own reply.
        let forged = (0..=u16::MAX).map(|start| (start, framed(&[&[16], &start.to_be_bytes()[..], &[0, 1]].concat())));
        let (start, reply) = forged.into_iter().find(|(_, reply)| reply[6] == 2).expect("one in 256");
        let ask = Ask::WriteRegisters { start, words: vec![u16::from(reply[7]) << 8], single: false };
        let said = request(&ask);
        assert_eq!(said[..8], reply);
        for cut in 1..said.len() {
            let mut bus = Bus::default();
            assert_eq!(exchange(&mut bus, &ask, &[&said[..cut], &said[cut..]]), Err(Cause::OnlyEcho), "cut at {cut}");
        }
    }

    #[test]
    fn bits_whose_reply_could_be_their_request_are_believed_only_where_nothing_echoes() {
        let coils = Ask::Read { table: Table::Coil, start: 0x0312, count: 20 };
        let said = request(&coils);
        let mut unknown = Bus::default();
        assert_eq!(exchange(&mut unknown, &coils, &[&said]), Err(Cause::OnlyEcho));
        assert!(!unknown.knows_its_echo(), "it may have been the reply");
        let mut plain = Bus::default();
        exchange(&mut plain, &READ, &[&framed(&[3, 2, 0, 9])]).unwrap();
        assert_eq!(exchange(&mut plain, &coils, &[&said]), Ok(vec![1, 3, 0x12, 0, 20]));
    }

    #[test]
    fn a_line_that_is_never_silent_is_spoken_into_after_its_limit_and_one_that_was_silent_is_not() {
        let (mut bus, start) = (Bus::default(), Instant::now());
        let mut may_send = start;
        for n in 0..100 {
            may_send = bus.hears(start + n * MS, 2 * MS, 50 * MS);
            let silent = start + (n + 2) * MS;
            assert_eq!(may_send, silent.min(start + 50 * MS).max(start + n * MS), "after {n} ms");
        }
        let expected = READ.encode(&mut Vec::new());
        assert!(bus.say(&[1], expected, may_send, 2 * MS));
        assert_eq!(bus.is_not_answered(), Cause::NeverSilent);
        // A silence ends the noise: what comes after it has its whole limit again.
        let later = start + 200 * MS;
        assert!(!bus.say(&[1], expected, later, 2 * MS));
        assert_eq!(bus.hears(later, 2 * MS, 50 * MS), later + 2 * MS);
    }
}
