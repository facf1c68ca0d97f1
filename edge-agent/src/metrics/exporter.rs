//! The exporter: reads the table into what Prometheus scrapes.

use super::Stages;
use super::figure::{Figure, Kind, Reading};
use super::table::TABLE;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::Arc;

/// The exporter.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An exporter that reads these stages.
    pub fn new(stages: Arc<Stages>) -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(Reader::new(stages)?))?;
        Ok(Metrics { registry })
    }

    /// The page Prometheus scrapes.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

struct Reader {
    stages: Arc<Stages>,
    descriptions: Vec<Desc>,
}

impl Reader {
    fn new(stages: Arc<Stages>) -> Result<Reader, prometheus::Error> {
        let describe = |f: &Figure| Desc::new(f.name.into(), f.help.into(), vec![], HashMap::new());
        Ok(Reader { stages, descriptions: TABLE.iter().map(describe).collect::<Result<_, _>>()? })
    }
}

impl Collector for Reader {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        TABLE.iter().map(|figure| family(figure, &self.stages)).filter(|f| !f.get_metric().is_empty()).collect()
    }
}

fn family(figure: &Figure, stages: &Stages) -> MetricFamily {
    let mut metrics = Vec::new();
    (figure.read)(stages, &mut |label, reading| metrics.push(metric(figure.kind, label, &reading)));
    let mut family = MetricFamily::default();
    family.set_name(figure.name.into());
    family.set_help(figure.help.into());
    family.set_field_type(match figure.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

fn metric(kind: Kind, label: Option<(&'static str, &str)>, reading: &Reading<'_>) -> proto::Metric {
    let mut metric = proto::Metric::default();
    let more = if let Reading::Labelled(more, _) = reading { *more } else { &[] };
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    metric.set_label(label.iter().chain(more).map(pair).collect());
    match (kind, reading) {
        (Kind::Counter, Reading::Number(value) | Reading::Labelled(_, value)) => {
            let mut c = proto::Counter::default();
            c.set_value(*value);
            metric.set_counter(c);
        }
        (_, Reading::Number(value) | Reading::Labelled(_, value)) => {
            let mut g = proto::Gauge::default();
            g.set_value(*value);
            metric.set_gauge(g);
        }
        (_, Reading::Distribution(histogram, edges)) => {
            let mut h = proto::Histogram::default();
            let counts = histogram.cumulative(*edges);
            // The total is the last cumulative count of this very reading, so that no bucket can exceed it.
            h.set_sample_count(counts.last().map_or(0, |(_, count)| *count));
            h.set_sample_sum(histogram.sum_s());
            let bucket = |(edge, count): (f64, u64)| {
                let mut b = proto::Bucket::default();
                b.set_upper_bound(edge);
                b.set_cumulative_count(count);
                b
            };
            h.set_bucket(counts.into_iter().map(bucket).collect());
            metric.set_histogram(h);
        }
    }
    metric
}
