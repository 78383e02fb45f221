use std::ops::ControlFlow;
use tlstrace::capture::file::CaptureReader;
use tlstrace::engine::{Engine, Output, Settings};
fn main() {
    for path in std::env::args().skip(1) {
        let Ok(mut reader) = CaptureReader::open(std::path::Path::new(&path)) else { continue };
        let mut engine = Engine::new(Settings::default());
        let _ = tlstrace::command::replay::feed(&mut reader, &mut engine, &mut |output| {
            let Output::Verdict(v) = output;
            println!(
                "{path}\t{}\t{}\t{}\t{}\t{}\t{}\tdata={}/{}\t{}\t{:?}",
                v.id,
                v.severity,
                v.confidence,
                v.blame,
                v.facts.history.as_str(),
                v.facts.version().map(|v| v.to_string()).unwrap_or_default(),
                v.facts.progress.client_data.is_some(),
                v.facts.progress.server_data.is_some(),
                v.summary,
                v.warnings.iter().map(|w| format!("{}: {}", w.fact, w.detail)).collect::<Vec<_>>()
            );
            Ok(ControlFlow::Continue(()))
        });
    }
}
