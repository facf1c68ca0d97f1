//! All figures of one aisle.

use crate::model::Setting;
use crate::rack::{Rack, Rule, Storage};

/// Loads for a figure that is only compared.
const COMPARED: u64 = 20_000;

/// What one aisle does.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) loads: u64,
    pub(crate) loads_per_hour: f64,
    pub(crate) first_come: f64,
    pub(crate) double: f64,
    pub(crate) double_first_come: f64,
    pub(crate) same_tier: f64,
    pub(crate) stuck: u64,
    pub(crate) lift_busy: f64,
    pub(crate) shuttle_busy: f64,
    pub(crate) relocations: f64,
    pub(crate) changes: f64,
    /// Percent of the bound, then median and 95 % in seconds.
    pub(crate) retrieval: Vec<(u32, [f64; 2])>,
}

/// Retrievals an hour while there is always more to do; whether it is stuck.
pub(crate) fn rate(setting: &Setting, rule: Rule, storage: Storage, loads: u64, seed: u64) -> (f64, Rack, bool) {
    let mut rack = Rack::new(setting, rule, storage, seed, false);
    let goes = rack.saturate(loads);
    (rack.brought as f64 / rack.now_s().max(1.0) * 3600.0, rack, !goes)
}

pub(crate) fn figures(setting: &Setting, loads: u64, seed: u64) -> Figures {
    let (loads_per_hour, rack, stuck) = rate(setting, Rule::Core, Storage::None, loads, seed);
    let mut all = vec![stuck];
    let mut compared = |rule, storage| {
        let (rate, _, stuck) = rate(setting, rule, storage, COMPARED, seed);
        all.push(stuck);
        rate
    };
    let (lift_busy, shuttle_busy) = rack.utilisation();
    let per_load = |count: u64| count as f64 / rack.brought.max(1) as f64;
    let mut figures = Figures {
        loads: rack.brought,
        loads_per_hour,
        first_come: compared(Rule::FirstCome, Storage::None),
        double: compared(Rule::Core, Storage::RandomTier),
        double_first_come: compared(Rule::FirstCome, Storage::RandomTier),
        same_tier: compared(Rule::Core, Storage::ChosenTier),
        lift_busy,
        shuttle_busy,
        relocations: per_load(rack.relocations),
        changes: per_load(rack.changes),
        ..Figures::default()
    };
    for percent in [50, 80, 95] {
        let mut rack = Rack::new(setting, Rule::Core, Storage::None, seed ^ u64::from(percent), true);
        all.push(!rack.at_random(setting.bound() * f64::from(percent) / 100.0, COMPARED));
        rack.took_s.sort_by(f32::total_cmp);
        let at = |share: f64| {
            let n = (rack.took_s.len() as f64 * share) as usize;
            rack.took_s.get(n).copied().map_or(0.0, f64::from)
        };
        figures.retrieval.push((percent, [at(0.5), at(0.95)]));
    }
    figures.stuck = all.iter().filter(|s| **s).count() as u64;
    figures
}
