//! prototype
use control_core::traffic::planner::{Planner, Wish};
use control_core::traffic::pool;
use control_core::traffic::roads::{NO_POSE, Place};
use floor_plan::map::Grid;
use floor_plan::{Arena, RoadTables};
use std::time::Instant;

fn arg(name: &str) -> Option<String> {
    let mut a = std::env::args().skip_while(|x| x != name);
    a.next()?;
    a.next()
}
fn main() {
    let dir = "/work/shared/fleet";
    let grid = Grid::parse(&std::fs::read_to_string(format!("{dir}/map.txt")).unwrap()).unwrap();
    let (mut roads, place_of) = RoadTables::of_grid(&grid, true);
    let cell = |r: usize, c: usize| place_of[r * grid.width + c].unwrap();
    let n: usize = arg("--robots").map_or(100, |x| x.parse().unwrap());
    let steps: usize = arg("--steps").map_or(1000, |x| x.parse().unwrap());
    let agents = std::fs::read_to_string(format!("{dir}/agents_{}.csv", n / 100 - 1)).unwrap();
    let starts: Vec<Place> = agents.lines().skip(1).map(|l| {
        let v: Vec<usize> = l.split(',').map(|x| x.trim().parse().unwrap()).collect();
        cell(v[1], v[2])
    }).collect();
    let tasks: Vec<Place> = std::fs::read_to_string(format!("{dir}/tasks_one.csv")).unwrap().lines().skip(1)
        .map(|l| { let v: usize = l.trim().parse().unwrap(); cell(v / 32, v % 32) }).collect();
    let t0 = Instant::now();
    let base: u16 = arg("--base").map_or(1, |x| x.parse().unwrap());
    let against: u16 = arg("--against").map_or(1, |x| x.parse().unwrap());
    let turn: u16 = arg("--turn").map_or(base, |x| x.parse().unwrap());
    let period: usize = arg("--period").map_or(1, |x| x.parse().unwrap());
    for (i, (r, c)) in grid.cells().enumerate() {
        for h in 0..4 {
            let bad = match h { 0 => (r / period) % 2 == 1, 2 => (r / period) % 2 == 0, 1 => (c / period) % 2 == 1, _ => (c / period) % 2 == 0 };
            roads.cost[i * 4 + h] = [if bad { against } else { base }, turn, turn, turn];
        }
    }
    let goals: Vec<Vec<Place>> = (0..roads.places).map(|p| vec![p as Place]).collect();
    if let Some(r) = arg("--rounds") {
        let f = |n: &str, d: f64| arg(n).map_or(d, |x| x.parse().unwrap());
        let start: Vec<[f64; 4]> = roads.cost.iter().map(|c| c.map(|x| x as f64 / base as f64)).collect();
        floor_plan::guidance::learn(&mut roads, &goals, &start, &floor_plan::guidance::Rule { base: f("--scale", 10.0), crowd: f("--crowd", 0.3), counter: f("--counter", 2.0), turn: f("--tcost", 1.0), rounds: r.parse().unwrap(), keep: f("--keep", 0.7), power: f("--power", 1.0) });
    } else {
        roads.measure(&goals);
    }
    println!("measure {:?}", t0.elapsed());
    let arena = Arena::new();
    let mut planner = Planner::new(&&arena, &pool::TURNING, n, roads.places, !std::env::args().any(|a| a == "--no-circles"));
    let view = roads.view();
    for (v, s) in starts.iter().enumerate() {
        assert!(planner.set_pose(&view, v as u16, roads.poses_of(*s).start));
    }
    let mut pos = starts.clone();
    let mut k = vec![0usize; n];
    let mut goal = vec![None::<Place>; n];
    let mut done = 0u64;
    let mut times = Vec::new();
    let lns: Option<u32> = arg("--lns").map(|x| x.parse().unwrap()); let mut seed = 88172645463325252u64;
    let cap: usize = arg("--cap").map_or(100000, |x| x.parse().unwrap());
    let mut active = vec![false; n];
    let mut queue: std::collections::VecDeque<usize> = (0..n).collect();
    for _ in 0..steps {
        for v in 0..n {
            while goal[v].is_none() {
                let g = tasks[(k[v] * n + v) % tasks.len()];
                k[v] += 1;
                if g != pos[v] { goal[v] = Some(g); }
            }
        }
        while active.iter().filter(|a| **a).count() < cap.min(n) { let v = queue.pop_front().unwrap(); active[v] = true; }
        let t = Instant::now();
        planner.begin(|v| Wish { goal: if active[v as usize] { goal[v as usize].unwrap() } else { 65535 }, rank: if active[v as usize] {0} else {1}, ..Wish::default() });
        while !planner.work(&view, 1 << 30) {}
        if let Some(g) = &lns { planner.improve(&view, *g, |n| { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; ((seed >> 32) % n as u64) as u16 }); }
        planner.commit(&view, |_, _| {});
        times.push(t.elapsed());
        let mut seen = vec![false; roads.places];
        for v in 0..n {
            let p = planner.pose(v as u16);
            assert!(p != NO_POSE);
            let to = view.place(p);
            assert!(!seen[to as usize]);
            seen[to as usize] = true;
            pos[v] = to;
            if goal[v] == Some(to) && active[v] { goal[v] = None; done += 1; if n > cap { active[v] = false; queue.push_back(v); } }
        }
    }
    times.sort();
    let sum: std::time::Duration = times.iter().sum();
    if std::env::args().any(|a| a == "--dirs") { for r in 0..32 { let l: String = (0..32).map(|c| place_of[r*32+c].map_or('@', |p| { let k: Vec<u16> = (0..4).map(|h| roads.cost[p as usize*4+h][0]).collect(); let m = (0..4).min_by_key(|h| k[*h]).unwrap(); ['>','v','<','^'][m] })).collect(); println!("{l}"); } }
    println!("robots {n} tasks {done} per step {:.3} mean {:?} p99 {:?} max {:?} checks/step {}", done as f64 / steps as f64, sum / steps as u32, times[times.len() * 99 / 100], times.last().unwrap(), planner.checks() / steps as u64);
}
