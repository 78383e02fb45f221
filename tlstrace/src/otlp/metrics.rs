//! The metrics as OTLP has them, from their text in OpenMetrics: so there is one place that says what is measured.
//!
//! A counter loses its suffix `_total`, which who makes Prometheus metrics of OTLP adds again (*OpenTelemetry, Prometheus
//! and OpenMetrics Compatibility*). Counts are numbers: the JSON of protobuf writes 64-bit integers as strings and reads
//! both, but some receivers take strings for times only, and drop a count without a word.

use serde_json::{Value, json};

/// Counts since the start of the program, not since the last request.
const CUMULATIVE: u8 = 2;

/// What is described together.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    unit: &'a str,
    samples: Vec<Sample<'a>>,
}

/// One line with a number.
#[derive(Debug)]
struct Sample<'a> {
    /// What follows the family's name: `_total`, `_bucket`.
    suffix: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

/// An `ExportMetricsServiceRequest`, of what was counted from `since` to `now`, in nanoseconds since 1970.
pub(super) fn request(open_metrics: &str, since: u64, now: u64, resource: &Value) -> Value {
    let families = parse(open_metrics);
    let metrics: Vec<_> = families.iter().filter_map(|family| family.metric(since, now)).collect();
    let scope = json!({ "scope": super::exporter::scope(), "metrics": metrics });
    json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": [scope] }] })
}

impl Family<'_> {
    /// `None` if there is no number yet.
    fn metric(&self, since: u64, now: u64) -> Option<Value> {
        if self.samples.is_empty() {
            return None;
        }
        let (since, now) = (since.to_string(), now.to_string());
        let points = || -> Vec<Value> {
            let point = |sample: &Sample<'_>| {
                let mut point = json!({
                    "attributes": attributes(&sample.labels),
                    "startTimeUnixNano": since,
                    "timeUnixNano": now,
                });
                let (kind, value) = match sample.value.parse::<i64>() {
                    Ok(value) => ("asInt", json!(value)),
                    Err(_) => ("asDouble", json!(sample.value.parse::<f64>().unwrap_or_default())),
                };
                if let Some(fields) = point.as_object_mut() {
                    fields.insert(kind.to_owned(), value);
                }
                point
            };
            self.samples.iter().map(point).collect()
        };
        let (kind, data) = match self.kind {
            "counter" => (
                "sum",
                json!({ "dataPoints": points(), "aggregationTemporality": CUMULATIVE, "isMonotonic": true }),
            ),
            "histogram" => (
                "histogram",
                json!({ "dataPoints": [self.histogram(&since, &now)], "aggregationTemporality": CUMULATIVE }),
            ),
            _ => ("gauge", json!({ "dataPoints": points() })),
        };
        let mut metric = json!({ "name": self.name, "description": self.help });
        if let Some(fields) = metric.as_object_mut() {
            fields.insert(kind.to_owned(), data);
            // As UCUM writes it.
            if self.unit == "seconds" {
                fields.insert("unit".to_owned(), "s".into());
            }
        }
        Some(metric)
    }

    /// The only series of a histogram; what is cumulative over buckets there counts for each bucket here.
    fn histogram(&self, since: &str, now: &str) -> Value {
        let value = |suffix: &str| {
            self.samples.iter().find(|sample| sample.suffix == suffix).map(|sample| sample.value)
        };
        let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
        for sample in self.samples.iter().filter(|sample| sample.suffix == "_bucket") {
            let up_to: u64 = sample.value.parse().unwrap_or_default();
            counts.push(up_to - below.min(up_to));
            below = up_to;
            let bound = sample.labels.iter().find(|(name, _)| *name == "le");
            // The last bucket has no upper bound.
            bounds.extend(
                bound.and_then(|(_, bound)| bound.parse::<f64>().ok()).filter(|bound| bound.is_finite()),
            );
        }
        json!({
            "startTimeUnixNano": since,
            "timeUnixNano": now,
            "count": value("_count").and_then(|count| count.parse::<u64>().ok()).unwrap_or_default(),
            "sum": value("_sum").and_then(|sum| sum.parse::<f64>().ok()).unwrap_or_default(),
            "explicitBounds": bounds,
            "bucketCounts": counts,
        })
    }
}

fn attributes(labels: &[(&str, String)]) -> Vec<Value> {
    let attribute =
        |(name, value): &(&str, String)| json!({ "key": name, "value": { "stringValue": value } });
    labels.iter().map(attribute).collect()
}

/// Reads OpenMetrics as this program writes it.
fn parse(open_metrics: &str) -> Vec<Family<'_>> {
    let mut families = Vec::<Family<'_>>::new();
    for line in open_metrics.lines() {
        let described = line.strip_prefix("# ").and_then(|line| {
            let (what, rest) = line.split_once(' ')?;
            let (name, text) = rest.split_once(' ')?;
            Some((what, name, text))
        });
        if let Some((what, name, text)) = described {
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name, ..Family::default() });
            }
            if let Some(family) = families.last_mut() {
                match what {
                    "HELP" => family.help = text,
                    "TYPE" => family.kind = text,
                    "UNIT" => family.unit = text,
                    _ => {}
                }
            }
        } else if let Some(family) = families.last_mut()
            && let Some(rest) = line.strip_prefix(family.name)
            && let Some(sample) = sample(rest)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `_total{name="value"} 1 # {…} 1`, behind the family's name.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (suffix, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((name, value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.get(1..)?;
    }
    let value = rest.trim_start().split(' ').next()?;
    Some(Sample { suffix, labels, value })
}

/// A label's value, whose first quote was read, and what follows its last.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
}
