//! Which of the loads a machine could take next it takes.

use super::Axis;

/// So many of the oldest of the best class are looked at (FLEET section 3: eight retrievals for each storage).
pub const WINDOW: usize = 8;

/// A load a machine could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Class, 0 first.
    pub class: u8,
    /// Smaller came first; for loads that leave in a sequence, their number in it.
    pub rank: u64,
    /// Where the machine takes it, millimetres on its axis.
    pub from_mm: u32,
    /// Where it puts it.
    pub to_mm: u32,
}

/// The number of the load to take by a machine that stands at `at_mm`: of the oldest [`WINDOW`] of the best class the one with
/// the least empty travel beyond the travel it has to make anyway. Each is looked at once for each place in the window.
pub fn choose(axis: Axis, at_mm: u32, options: impl Iterator<Item = Candidate> + Clone) -> Option<usize> {
    let class = options.clone().map(|o| o.class).min()?;
    let mut window: heapless::Vec<(usize, Candidate), WINDOW> = heapless::Vec::new();
    for (n, option) in options.enumerate().filter(|(_, o)| o.class == class) {
        if window.push((n, option)).is_ok() {
            continue;
        }
        if let Some(youngest) = window.iter_mut().max_by_key(|(n, o)| (o.rank, *n))
            && (option.rank, n) < (youngest.1.rank, youngest.0)
        {
            *youngest = (n, option);
        }
    }
    let cost = |o: &Candidate| {
        let empty = axis.time_ms(at_mm.abs_diff(o.from_mm));
        let loaded = axis.time_ms(o.from_mm.abs_diff(o.to_mm));
        i64::from(empty) - i64::from(loaded)
    };
    window.iter().min_by_key(|(n, o)| (cost(o), o.rank, *n)).map(|(n, _)| *n)
}
