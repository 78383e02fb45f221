//! A verdict as a log record: the fields of `tlstrace/1` under their whole names, and the sentence as the body. The same
//! of `tlstrace-aggregate/1`, whose body says how many there were.

use serde_json::{Value, json};

use crate::engine::timestamp::Timestamp;

/// An `ExportLogsServiceRequest`.
pub(super) fn request(records: &[Value], resource: &Value) -> Value {
    let scope = json!({ "scope": super::exporter::scope(), "logRecords": records });
    json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [scope] }] })
}

/// A `LogRecord` of a line of `-o json`; `None` if it is none.
pub(super) fn record(line: &Value) -> Option<Value> {
    let text = |pointer: &str| line.pointer(pointer)?.as_str();
    // 64-bit numbers are strings in the JSON of protobuf.
    let time = Timestamp::parse(text("/@timestamp")?)?.as_nanos().to_string();
    let verdict = text("/tlstrace/verdict")?;
    let count = line.pointer("/tlstrace/count").and_then(Value::as_u64);
    let (event, body) = match (text("/tlstrace/summary"), count) {
        (Some(summary), _) => ("tlstrace.verdict", format!("{verdict}: {summary}")),
        (None, Some(count)) => {
            ("tlstrace.aggregate", format!("{verdict}: {count} since {}", text("/event/start")?))
        }
        (None, None) => return None,
    };
    let (number, severity) = match text("/tlstrace/severity")? {
        "error" => (17, "ERROR"),
        "warning" => (13, "WARN"),
        _ => (9, "INFO"),
    };
    let mut attributes = Vec::new();
    flatten(&mut String::new(), line, &mut attributes);
    Some(json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": number,
        "severityText": severity,
        "eventName": event,
        "body": { "stringValue": body },
        "attributes": attributes,
    }))
}

/// Names what is in nested objects as ECS does in text: `tls.client.server_name`.
fn flatten(name: &mut String, value: &Value, attributes: &mut Vec<Value>) {
    // In the record itself, or in its resource.
    if matches!(&**name, "@timestamp" | "observer.hostname" | "tlstrace.summary") {
        return;
    }
    let Value::Object(fields) = value else {
        attributes.extend(any(value).map(|value| json!({ "key": name, "value": value })));
        return;
    };
    let length = name.len();
    for (field, value) in fields {
        if length > 0 {
            name.push('.');
        }
        name.push_str(field);
        flatten(name, value, attributes);
        name.truncate(length);
    }
}

/// An `AnyValue`.
fn any(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(bool) => json!({ "boolValue": bool }),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            json!({ "intValue": number.to_string() })
        }
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().filter_map(any).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Value::Object(fields) => {
            let fields =
                fields.iter().filter_map(|(key, value)| Some(json!({ "key": key, "value": any(value)? })));
            json!({ "kvlistValue": { "values": fields.collect::<Vec<_>>() } })
        }
    })
}
