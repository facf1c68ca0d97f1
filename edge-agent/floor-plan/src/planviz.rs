//! What PlanViz of the League of Robot Runners shows: where everybody starts, one action a step, and which errands were finished.
//!
//! ```text
//!   states, step by step ──> F forward, R and C a quarter turn, W wait ──> JSON (actionModel MAPF_T), beside a MovingAI map
//! ```

use serde::Serialize;

/// Where a robot is: row, column, heading (0 east, 1 south, 2 west, 3 north); nowhere while it waits outside.
pub type State = Option<(usize, usize, u8)>;

/// Names of the headings.
const HEADINGS: [&str; 4] = ["E", "S", "W", "N"];

/// An errand that was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// After so many steps.
    pub step: usize,
    /// By which robot.
    pub robot: usize,
    /// Row and column.
    pub cell: (usize, usize),
}

/// A run, as PlanViz reads it. Field names are those of its format.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    action_model: &'static str,
    #[serde(rename = "AllValid")]
    all_valid: &'static str,
    team_size: usize,
    start: Vec<(usize, usize, &'static str)>,
    num_task_finished: usize,
    sum_of_cost: usize,
    makespan: usize,
    actual_paths: Vec<String>,
    planner_paths: Vec<String>,
    planner_times: [f64; 0],
    errors: [u8; 0],
    events: Vec<Vec<(usize, usize, &'static str)>>,
    tasks: Vec<(usize, usize, usize)>,
}

fn action(before: State, after: State) -> &'static str {
    match (before, after) {
        (Some(a), Some(b)) if (a.0, a.1) != (b.0, b.1) => "F",
        (Some(a), Some(b)) if (4 + b.2 - a.2) % 4 == 1 => "R",
        (Some(a), Some(b)) if a.2 != b.2 => "C",
        _ => "W",
    }
}

impl Run {
    /// Of what was seen: `starts` has row, column and heading of each robot, `states` everybody's state step by step, `finished` in order.
    /// `valid` says that nobody hit anybody.
    pub fn new(starts: &[(usize, usize, u8)], states: &[Vec<State>], finished: &[Finished], valid: bool) -> Run {
        let robots = starts.len();
        let of = |row: &Vec<State>, r: usize| row.get(r).copied().flatten();
        let path = |r: usize| {
            let steps = states.windows(2).filter_map(|pair| match pair {
                [a, b] => Some(action(of(a, r), of(b, r))),
                _ => None,
            });
            steps.collect::<Vec<_>>().join(",")
        };
        let paths: Vec<String> = (0..robots).map(path).collect();
        let mut events = vec![Vec::new(); robots];
        for (n, done) in finished.iter().enumerate() {
            if let Some(list) = events.get_mut(done.robot) {
                list.push((n, done.step, "finished"));
            }
        }
        let heading = |h: u8| HEADINGS.get(usize::from(h % 4)).copied().unwrap_or("E");
        Run {
            action_model: "MAPF_T",
            all_valid: if valid { "Yes" } else { "No" },
            team_size: robots,
            start: starts.iter().map(|(row, column, h)| (*row, *column, heading(*h))).collect(),
            num_task_finished: finished.len(),
            sum_of_cost: states.len() * robots,
            makespan: states.len(),
            actual_paths: paths.clone(),
            planner_paths: paths,
            planner_times: [],
            errors: [],
            events,
            tasks: finished.iter().enumerate().map(|(n, f)| (n, f.cell.0, f.cell.1)).collect(),
        }
    }
}
