//! What the log gets of a line that something is wrong with for long: a line of its own for each thing, not one for each try.

use super::reporting_tests::{LONG, good, line};
use super::*;
use crate::plain::kept::Kept;

/// The lines of the log that something brings about.
fn logged(what: impl FnOnce()) -> Vec<String> {
    let (kept, listening) = Kept::listen();
    what();
    drop(listening);
    kept.lines()
}

/// Each of these is tried again every few seconds, all night.
#[test]
fn what_goes_on_being_wrong_is_one_line_of_the_log_for_each_thing_that_is_wrong() {
    let (mut line, _outlet) = line(0.0, LONG, LONG);
    let down = LinkError::Connect { peer: "10.0.0.1:502".into(), why: "nobody is there".into() };
    let refused = Reading {
        value: None,
        quality: Quality::Bad,
        cause: Cause::Exception(2),
        point: PointId(0),
        ..good(0.0, 1000)
    };
    let said = logged(|| {
        for _ in 0..50 {
            line.link(LinkState::Down, Some(&down));
            line.health(0, Health::Demoted, Cause::NoAnswer);
            line.not_written(&[], Cause::NoAnswer);
            line.readings(PollReport::default(), &mut vec![refused.clone()]);
        }
    });
    let things = ["line down", "device d is asked less often", "a command block was not taken", "1 tags are Bad"];
    for thing in things {
        assert_eq!(said.iter().filter(|s| s.contains(thing)).count(), 1, "{thing}: {said:#?}");
    }
    assert_eq!(said.len(), things.len(), "{said:#?}");
    let back = logged(|| {
        for _ in 0..50 {
            line.link(LinkState::Up, None);
            line.health(0, Health::Healthy, Cause::None);
            line.written(&[]);
        }
    });
    let over = ["line up again after", "device d answers again after", "command blocks are taken again after"];
    assert!(back.len() == over.len() && back.iter().zip(over).all(|(s, over)| s.contains(over)), "{back:#?}");
}

#[test]
fn a_device_that_sleeps_is_recalled_hourly_although_nobody_tells_of_it_again() {
    let (mut line, _outlet) = line(0.0, LONG, LONG);
    line.health(0, Health::Demoted, Cause::NoAnswer);
    let ago = Instant::now().checked_sub(Duration::from_secs(9 * 3600)).unwrap();
    line.away[0] = Trouble::default();
    assert!(line.away[0].is(Cause::NoAnswer, ago).is_some());
    line.last_look = ago;
    let said = logged(|| (0..50).for_each(|_| line.sweep()));
    assert!(said.len() == 1 && said[0].contains("device d still does not answer; for 9h now"), "{said:#?}");
    let back = logged(|| line.health(0, Health::Healthy, Cause::None));
    assert!(back.len() == 1 && back[0].contains("device d answers again after 9h"), "{back:#?}");
}
