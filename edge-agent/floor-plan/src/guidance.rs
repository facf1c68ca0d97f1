//! prototype
use crate::tables::RoadTables;
use control_core::traffic::roads::{FAR, NO_POSE, WAYS};

pub struct Rule { pub base: f64, pub crowd: f64, pub counter: f64, pub turn: f64, pub rounds: usize, pub keep: f64, pub power: f64 }

pub fn learn(tables: &mut RoadTables, goals: &[Vec<u16>], start: &[[f64; WAYS]], rule: &Rule) {
    let n = tables.next.len();
    let mut cost: Vec<[f64; WAYS]> = start.to_vec();
    let mut flow_avg = vec![[0.0f64; WAYS]; n];
    for round in 0..rule.rounds {
        for (c, w) in tables.cost.iter_mut().zip(&cost) {
            *c = w.map(|x| (x * rule.base).round().clamp(1.0, 4000.0) as u16);
        }
        tables.measure(goals);
        let mut flow = vec![[0.0f64; WAYS]; n];
        let mut order: Vec<u32> = (0..n as u32).collect();
        let mut through = vec![0.0f64; n];
        for row in tables.distance.chunks(n) {
            order.sort_unstable_by_key(|p| std::cmp::Reverse(row[*p as usize]));
            through.fill(1.0);
            for p in &order {
                let p = *p as usize;
                if row[p] == 0 || row[p] == FAR { continue; }
                let mut ways = 0.0;
                for w in 0..WAYS {
                    let to = tables.next[p][w];
                    if to != NO_POSE && row[to as usize].saturating_add(tables.cost[p][w]) == row[p] { ways += 1.0; }
                }
                for w in 0..WAYS {
                    let to = tables.next[p][w];
                    if to != NO_POSE && row[to as usize].saturating_add(tables.cost[p][w]) == row[p] {
                        let share = through[p] / ways;
                        through[to as usize] += share;
                        flow[p][w] += share;
                    }
                }
            }
        }
        let a = if round == 0 { 1.0 } else { 1.0 - rule.keep };
        for (avg, f) in flow_avg.iter_mut().zip(&flow) { for w in 0..WAYS { avg[w] = avg[w] * (1.0 - a) + f[w] * a; } }
        // crowd at places
        let mut crowd = vec![0.0f64; tables.places];
        for p in 0..n { for w in 0..WAYS { let to = tables.next[p][w]; if to != NO_POSE { crowd[tables.place[to as usize] as usize] += flow_avg[p][w]; } } }
        let mean = crowd.iter().sum::<f64>() / crowd.len() as f64;
        // flows between places
        let mut between = std::collections::HashMap::new();
        for p in 0..n { for w in 0..WAYS { let to = tables.next[p][w]; if to != NO_POSE { let (x, y) = (tables.place[p], tables.place[to as usize]); if x != y { *between.entry((x, y)).or_insert(0.0) += flow_avg[p][w]; } } } }
        for p in 0..n { for w in 0..WAYS {
            let to = tables.next[p][w];
            if to == NO_POSE { continue; }
            let (x, y) = (tables.place[p], tables.place[to as usize]);
            let busy = (crowd[y as usize] / mean).powf(rule.power);
            if x == y { cost[p][w] = rule.turn * (1.0 + rule.crowd * busy); continue; }
            let (go, come) = (between[&(x, y)], between.get(&(y, x)).copied().unwrap_or(0.0));
            let against = come / (go + come + 1e-9) * (come / mean).min(1.0);
            cost[p][w] = 1.0 + rule.crowd * busy + rule.counter * against;
        } }
    }
    for (c, w) in tables.cost.iter_mut().zip(&cost) {
        *c = w.map(|x| (x * rule.base).round().clamp(1.0, 4000.0) as u16);
    }
    tables.measure(goals);
}
