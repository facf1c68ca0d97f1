//! What the log gets of a line that something is wrong with for long: a line of its own for each thing, not one for each try.

use super::reporting_tests::{LONG, good, line};
use super::*;
use crate::plain::kept::Kept;
use device_drivers::block::COMMAND_WORDS;

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
    let things =
        ["line down", "device d is asked less often", "the command block of a machine was not taken", "1 tags are Bad"];
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
    let over = ["line up again after", "device d answers again after", "all command blocks are taken again after"];
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

#[test]
fn a_refused_command_block_is_named_and_taken_again_only_when_it_was_taken_itself() {
    let (mut line, _outlet) = line(0.0, LONG, LONG);
    let block = |n| BlockWrite { machine: MachineId(n), seq: 1, words: [0; COMMAND_WORDS] };
    line.points = line.points.iter().map(|p| PointPlan { role: Role::Machine(MachineId(41)), ..p.clone() }).collect();
    let said = logged(|| {
        for _ in 0..50 {
            line.not_written(&[block(41)], Cause::Exception(2));
            line.written(&[block(37), block(38)]);
        }
    });
    assert!(said.len() == 1 && said[0].contains("the command block of d/"), "its neighbours are no news: {said:#?}");
    let other = logged(|| line.not_written(&[block(42)], Cause::Exception(2)));
    assert_eq!(other.len(), 1, "another machine's is told as well: {other:#?}");
    let back = logged(|| [41, 37].iter().for_each(|n| line.written(&[block(*n)])));
    assert_eq!(back, [""; 0], "one is left");
    let back = logged(|| line.written(&[block(42)]));
    assert!(back.len() == 1 && back[0].contains("all command blocks are taken again"), "{back:#?}");
}
