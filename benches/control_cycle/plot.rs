//! Time of a cycle over the number of vehicles.

use crate::beat::Run;
use plotters::prelude::*;

/// Writes an SVG: microseconds a cycle, median and 99.9 %, over vehicles; both axes logarithmic.
pub(crate) fn draw(file: &str, runs: &[Run]) -> Result<(), Box<dyn std::error::Error>> {
    let fifo: Vec<&Run> = runs.iter().filter(|r| r.policy == "SCHED_FIFO").collect();
    let runs: Vec<&Run> = if fifo.is_empty() { runs.iter().collect() } else { fifo };
    let most = runs.iter().map(|r| f64::from(r.vehicles)).fold(1.0, f64::max);
    let least = runs.iter().map(|r| f64::from(r.vehicles)).fold(most, f64::min);
    let slowest = runs.iter().map(|r| r.us(0.999)).fold(1.0, f64::max);
    let fastest = runs.iter().map(|r| r.us(0.5)).fold(slowest, f64::min).max(0.1);
    let root = SVGBackend::new(file, (720, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .caption("Time of a control cycle", ("sans-serif", 18))
        .build_cartesian_2d((least * 0.8..most * 1.25).log_scale(), (fastest * 0.6..slowest * 1.6).log_scale())?;
    chart.configure_mesh().x_desc("vehicles").y_desc("microseconds").draw()?;
    for (quantile, name, colour) in [(0.5, "median", BLUE), (0.999, "99.9 %", RED)] {
        let points: Vec<(f64, f64)> = runs.iter().map(|r| (f64::from(r.vehicles), r.us(quantile))).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|p| Circle::new(p, 3, colour.filled())))?;
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
