//! How good the traffic is: many robots on one map, step by step, moved as the product moves them; or, beside that, by the planner alone
//! by the rules of the published figures.
//!
//! ```text
//!   cargo bench --bench fleet -- --map FILE [--agents FILE] [--tasks FILE] --robots N --steps T --seed S
//!       [--turning] [--guidance] [--improve CHECKS] [--delays P] [--json]       the product
//!       .. --planner-alone [--zone-cap K]                                       the lock-step planner alone
//!       .. --oneshot                                                            one goal each, for all at once
//!   cargo bench --bench fleet -- --draw random|warehouse|rack --size 32x32 ..       a floor from the seed
//!   cargo bench --bench fleet -- --problem FILE ..                     a League of Robot Runners problem (JSON)
//!   .. --planviz FILE writes what PlanViz shows; --plot FILE.svg [--robots 100,200,..] draws tasks a step over robots
//! ```
//!
//! Rules: unit steps; with `--turning` the actions are forward, a quarter turn either way, wait; without, any cell next to it.
//! No two in a cell after a step, no two exchanging cells. A goal counts when the robot stands on it; the next one is given in
//! the following step. Robot r's k-th goal is line (k x N + r) of the task file.
//!
//! Both play by these rules; the product keeps stricter ones: a robot comes to a place when it is free, stops at its goal, and drives only along
//! what is allocated to it. `mode` in what is printed says who moved the robots.
//!
//! `--improve` grants the planner so many checks a step to make its plan better than it has to be (about 30 ns each).
//! `--zone-cap K` lets at most K robots onto the floor at once: the others wait in a bay beside the cell where they left it, and
//! a robot that has reached a goal makes room if somebody waits. `--delays P`: every robot misses each step with that
//! probability, and the plan is carried out in its order, not in time; what that costs is printed beside.
//! A checker that knows nothing of the planner counts collisions.

#[path = "common/arguments.rs"]
mod arguments;
#[path = "fleet/checker.rs"]
mod checker;
#[path = "common/counting.rs"]
mod counting;
#[path = "fleet/instance.rs"]
mod instance;
#[path = "fleet/lockstep.rs"]
mod lockstep;
#[path = "fleet/oneshot.rs"]
mod oneshot;
#[path = "fleet/plot.rs"]
mod plot;
#[path = "fleet/product.rs"]
mod product;

use arguments::{Arguments, refuse};
use floor_plan::guidance::{self, Guidance};
use instance::Instance;
use serde_json::json;
use std::time::{Duration, Instant};

/// Who moves the robots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The traffic of the product.
    Product,
    /// The planner, every robot in step with every other.
    PlannerAlone,
    /// The search for a way out, for all at once.
    Oneshot,
}

impl Mode {
    fn of(arguments: &Arguments) -> Mode {
        let mode = match (arguments.flag("--planner-alone"), arguments.flag("--oneshot")) {
            (true, true) => refuse("--planner-alone and --oneshot: one of them"),
            (true, false) => Mode::PlannerAlone,
            (false, true) => Mode::Oneshot,
            (false, false) => Mode::Product,
        };
        for (flag, of) in [("--zone-cap", Mode::PlannerAlone), ("--delays", Mode::Product)] {
            if arguments.flag(flag) && mode != of {
                refuse(&format!("{flag} goes with {}, this is {}", of.name(), mode.name()));
            }
        }
        mode
    }

    /// As the figures are named.
    fn name(self) -> &'static str {
        match self {
            Mode::Product => "product",
            Mode::PlannerAlone => "lock-step planner alone",
            Mode::Oneshot => "one shot",
        }
    }
}

/// How it is played.
#[derive(Clone, Copy, Debug)]
struct Play {
    mode: Mode,
    steps: usize,
    turning: bool,
    improve: u32,
    zone_cap: Option<usize>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    robots: usize,
    steps: usize,
    tasks: u64,
    times: Vec<Duration>,
    memory: usize,
    allocations: u64,
    collisions: u64,
}

impl Outcome {
    fn per_step(&self) -> f64 {
        self.tasks as f64 / self.steps.max(1) as f64
    }

    fn json(&self, mode: Mode, preprocessing: Duration) -> serde_json::Value {
        let mut times = self.times.clone();
        times.sort_unstable();
        let ms = |d: Option<&Duration>| d.map_or(0.0, |d| round(d.as_secs_f64() * 1000.0, 4));
        let mean = times.iter().sum::<Duration>() / times.len().max(1) as u32;
        json!({
            "mode": mode.name(),
            "robots": self.robots,
            "steps": self.steps,
            "tasks_finished": self.tasks,
            "tasks_per_step": round(self.per_step(), 4),
            "planner_ms": {
                "mean": ms(Some(&mean)),
                "p99": ms(times.get(times.len() * 99 / 100)),
                "max": ms(times.last()),
            },
            "preprocessing_ms": round(preprocessing.as_secs_f64() * 1000.0, 1),
            "memory_mib": round(self.memory as f64 / 1048576.0, 2),
            "allocations": self.allocations,
            "collisions": self.collisions,
        })
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let by = 10f64.powi(digits);
    (value * by).round() / by
}

fn main() {
    let arguments = Arguments::of_process();
    let counts: Vec<usize> = match arguments.text("--robots") {
        None => vec![100],
        Some(list) => list
            .split(',')
            .map(|n| n.parse().unwrap_or_else(|_| refuse(&format!("--robots {n}: expected a number"))))
            .collect(),
    };
    let play = Play {
        mode: Mode::of(&arguments),
        steps: arguments.number("--steps", 1000),
        turning: arguments.flag("--turning"),
        improve: arguments.number("--improve", 0),
        zone_cap: arguments.text("--zone-cap").map(|_| arguments.number("--zone-cap", 0)),
    };
    let mut drawn = Vec::new();
    let mut collisions = 0;
    for robots in counts {
        let instance = Instance::read(&arguments, robots).unwrap_or_else(|why| refuse(&why));
        let (result, outcome) = run(&arguments, instance, play);
        collisions += outcome.collisions;
        drawn.push((robots, outcome.per_step()));
        if arguments.flag("--json") {
            println!("{result}");
        } else {
            println!("{result:#}");
        }
    }
    if let Some(file) = arguments.text("--plot") {
        plot::tasks_over_robots(file, play.mode, &drawn).unwrap_or_else(|why| refuse(&format!("{file}: {why}")));
    }
    if collisions > 0 {
        refuse("there were collisions");
    }
}

fn run(arguments: &Arguments, mut instance: Instance, play: Play) -> (serde_json::Value, Outcome) {
    let begin = Instant::now();
    let mut tables = instance.tables(play.turning && play.mode != Mode::Oneshot);
    let goals = instance.goals(play.steps);
    if arguments.flag("--guidance") {
        guidance::learn(&mut tables, &goals, Guidance::default());
    } else {
        tables.measure(&goals);
    }
    let preprocessing = begin.elapsed();
    let delays: f64 = arguments.number("--delays", 0.0);
    let seed = arguments.number("--seed", 1);
    let (outcome, log) = match play.mode {
        Mode::Oneshot => {
            let (outcome, extra) = oneshot::play(&instance, &tables, play);
            let mut result = outcome.json(play.mode, preprocessing);
            result["sum_of_costs"] = json!(extra);
            return (result, outcome);
        }
        Mode::PlannerAlone => lockstep::play(&instance, &tables, play),
        Mode::Product => product::play(&instance, &tables, play, delays, seed),
    };
    if let Some(file) = arguments.text("--planviz") {
        let text = serde_json::to_string(&log.planviz(&instance)).unwrap_or_else(|why| refuse(&why.to_string()));
        std::fs::write(file, text).unwrap_or_else(|why| refuse(&format!("{file}: {why}")));
    }
    let mut result = outcome.json(play.mode, preprocessing);
    if delays > 0.0 {
        let (in_time, _) = product::play(&instance, &tables, play, 0.0, seed);
        result["delays"] = json!(delays);
        result["tasks_per_step_in_time"] = json!(round(in_time.per_step(), 4));
        result["lost_to_delays"] = json!(round(1.0 - outcome.per_step() / in_time.per_step(), 4));
    }
    (result, outcome)
}
