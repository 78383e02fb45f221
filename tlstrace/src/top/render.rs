//! Draws a [`Model`] as a [`View`] wants it. Made for 80 × 24 and sixteen colours; larger screens show more.

use std::fmt::Write as _;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, SparklineBar, Table, TableState};

use super::model::{Failure, Listener, Model, Point, share};
use super::series::{BUCKETS, Bucket};
use super::text::{ellipsis, grouped, percent, period, rate, short, time, wrap};
use super::view::{Page, Pane, Sort, View};
use crate::sink::Clean;
use crate::verdict::Severity;
use crate::verdict::explain;

/// What stands in front of a point, and its columns.
const LABEL: usize = 10;
/// Heights of bars in one row.
const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Keys of the first screen; the last is left out where there is no room.
const HOME_KEYS: &[(&str, &str)] = &[
    ("q", "quit"),
    ("?", "help"),
    ("Tab", "pane"),
    ("↵", "open"),
    ("/", "filter"),
    ("s", "sort"),
    ("w", "span"),
    ("p", "pause"),
    ("c", "capture"),
    ("z", "zero"),
];

const HELP: &[(&str, &str)] = &[
    ("↑ ↓ j k", "select, or scroll a page; PgUp, PgDn, Home, End too"),
    ("Tab", "between listeners and failures"),
    ("Enter →", "open what is selected: a listener, then a failure of its"),
    ("Esc ←", "back; on the first screen, show everything again"),
    ("/", "filter by words that occur in an address, a name or a verdict"),
    ("s  S", "sort listeners by the next column; in reverse"),
    ("w", "look back 1 min, 10 min, 1 h, 24 h: rates and bars"),
    ("p Space", "pause: the screen stays, counting goes on"),
    ("z", "count from zero, for instance after a fix"),
    ("c", "what the capture saw, did not read and lost, and what was said"),
    ("q", "quit (or Ctrl-C)"),
    ("", ""),
    (
        "listener",
        "address and port that clients connect to, and the name they ask for most; +2: two more names",
    ),
    ("/s", "handshakes a second in the time that is looked back on"),
    ("ok", "successes among the handshakes that succeeded or failed, since the start or since z"),
    ("fail", "failures since then, and the most frequent kind of them"),
    (
        "p50 p99",
        "time from ClientHello to the end of completed handshakes: half, and 99 of 100, took no longer",
    ),
    ("bars", "handshakes over time, each row by its own highest; red: most failed, yellow: some failed"),
];

/// Draws everything. `is_coloured`: colours may be used.
pub fn render(frame: &mut Frame<'_>, model: &Model, view: &mut View, is_coloured: bool) {
    let area = frame.area();
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(if area.height >= 36 && !model.notes.is_empty() { 3 } else { 2 }),
    ])
    .areas(area);
    let painter = Painter { model, paint: Paint(is_coloured) };
    painter.head(frame, head, view);
    match view.pages.last().cloned() {
        None => painter.home(frame, body, view),
        Some(Page::Listener(address)) => {
            match model.listeners.iter().find(|listener| listener.address == address) {
                Some(listener) => painter.listener(frame, body, view, listener),
                None => painter.page(frame, body, view, &address.to_string(), vec![Line::raw("forgotten")]),
            }
        }
        Some(Page::Failure(key)) => {
            let width = usize::from(body.width);
            let lines = match model.failures.iter().find(|failure| failure.key == key) {
                Some(failure) => painter.failure(failure, width),
                None => vec![Line::raw("It was revised, or forgotten for want of room.")],
            };
            painter.page(frame, body, view, &key.verdict, lines);
        }
        Some(Page::Capture) => {
            let lines = painter.capture(usize::from(body.width));
            painter.page(frame, body, view, "capture", lines);
        }
        Some(Page::Help) => {
            let lines = painter.help(usize::from(body.width));
            painter.page(frame, body, view, "help", lines);
        }
    }
    painter.foot(frame, foot, view);
}

/// Styles, of which there are few without colours.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }

    fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Error => self.bad(),
            Severity::Warning => self.colour(Color::Yellow).add_modifier(Modifier::BOLD),
            Severity::Info => Style::new(),
        }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn bold() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn title(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn selected(has_focus: bool) -> Style {
        if has_focus {
            // Colours of parts would be backgrounds of different colours.
            Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED)
        } else {
            Style::new().add_modifier(Modifier::BOLD)
        }
    }

    /// By how many failed.
    fn bucket(self, bucket: Bucket) -> Style {
        match bucket {
            Bucket { failures: 0, .. } => self.good(),
            Bucket { handshakes, failures } if failures >= handshakes.div_ceil(2) => self.colour(Color::Red),
            _ => self.colour(Color::Yellow),
        }
    }

    fn share(self, share: f64) -> Style {
        match share {
            0.999.. => self.good(),
            0.95.. => self.colour(Color::Yellow),
            _ => self.bad(),
        }
    }
}

struct Painter<'m> {
    model: &'m Model,
    paint: Paint,
}

impl Painter<'_> {
    /// What is watched and how it is, in two lines.
    fn head(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let Self { model, paint } = self;
        let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
        let mut state = Vec::new();
        if view.is_paused {
            let style = paint.colour(Color::Yellow).add_modifier(Modifier::REVERSED | Modifier::BOLD);
            state.extend([Text::styled(" PAUSED ", style), Text::raw(" ")]);
        }
        if model.is_ended {
            state.push(Text::styled("end of input ", Paint::dim()));
        }
        if model.since.is_some() {
            let zone = if model.offset == 0 { " UTC" } else { "" };
            state.push(Text::styled(model.clock(model.now) + zone, Paint::bold()));
        }
        let state = Line::from(state).right_aligned();
        let [left, right] =
            Layout::horizontal([Constraint::Min(0), Constraint::Length(width_of(&state) + 1)]).areas(first);
        frame.render_widget(
            Line::from(vec![Text::styled("tlstrace top  ", paint.title()), Text::raw(&*model.source)]),
            left,
        );
        frame.render_widget(state, right);

        let mut totals = vec![
            Text::styled(grouped(model.handshakes), Paint::bold()),
            Text::raw(" handshakes  "),
            Text::styled(format!("{}/s", rate(model.rate(&model.all, view.span(model)))), Paint::bold()),
            Text::raw("  "),
        ];
        if let Some(share) = share(model.successes, model.failed) {
            totals.push(Text::styled(format!("{} ok", percent(share)), paint.share(share)));
            totals.push(Text::raw("  "));
        }
        let failed = if model.failed > 0 { paint.bad() } else { Paint::dim() };
        totals.push(Text::styled(format!("{} failed", grouped(model.failed)), failed));
        if let Some(since) = model.since {
            let since = format!("  since {} ({})", model.clock(since), period(model.period()));
            totals.push(Text::styled(since, Paint::dim()));
        }
        let bars = if second.width >= 100 { 30 } else { 0 };
        let [left, right] = Layout::horizontal([Constraint::Min(0), Constraint::Length(bars)]).areas(second);
        frame.render_widget(Line::from(totals), left);
        let cells = model.cells(&model.all, view.span(model), usize::from(bars));
        frame.render_widget(self.bars(&cells).right_aligned(), right);
    }

    fn home(&self, frame: &mut Frame<'_>, area: Rect, view: &mut View) {
        let headline = self.headline(area.width, area.height);
        let rest = area.height.saturating_sub(u16::try_from(headline.len()).unwrap_or(0));
        let listeners = view.listeners(self.model);
        // Listeners get what they need of two fifths, the selected failure what it needs of three fifths of the rest.
        let wanted = u16::try_from(listeners.len()).unwrap_or(u16::MAX).saturating_add(2).max(4);
        let of_listeners = wanted.min(rest * 2 / 5);
        let [of_failures, of_detail] = self.share_out(rest - of_listeners, area.width, view);
        let [head, top, failures, detail] = Layout::vertical([
            Constraint::Length(u16::try_from(headline.len()).unwrap_or(0)),
            Constraint::Length(of_listeners),
            Constraint::Length(of_failures),
            Constraint::Min(of_detail),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(headline), head);
        if self.model.handshakes == 0 {
            self.nothing_yet(frame, Rect { height: area.height - head.height, ..top });
            return;
        }
        self.listeners(frame, top, view, &listeners);
        self.failures(frame, failures, view, view.focus == Pane::Failures);
        self.selected(frame, detail, view);
    }

    /// What to know first.
    fn headline(&self, width: u16, height: u16) -> Vec<Line<'static>> {
        let Self { model, paint } = self;
        let width = usize::from(width).saturating_sub(2);
        let most = if height >= 30 { 4 } else { 2 };
        let mut lines = Vec::new();
        let points = model.incidents.iter().map(|incident| ("▲ ", paint.bad(), incident));
        let certificates = model.certificates.iter().map(|end| ("◷ ", paint.colour(Color::Yellow), end));
        for (mark, style, text) in points.chain(certificates) {
            let wrapped = wrap(text, width);
            if !lines.is_empty() && lines.len() + wrapped.len() > most {
                break;
            }
            for (i, line) in wrapped.into_iter().take(most).enumerate() {
                let mark = if i == 0 { mark } else { "  " };
                lines.push(Line::from(vec![Text::styled(mark, style), Text::styled(line, style)]));
            }
        }
        lines
    }

    /// The first screen of an idle capture says why it may be idle.
    fn nothing_yet(&self, frame: &mut Frame<'_>, area: Rect) {
        let model = self.model;
        let width = usize::from(area.width).saturating_sub(4);
        let what = if model.is_ended { "There was no handshake." } else { "No handshake was seen yet." };
        let mut lines = vec![Line::raw(""), Line::styled(format!("  {what}"), Paint::bold()), Line::raw("")];
        for note in model.notes.iter().rev().take(3).rev() {
            lines.extend(wrap(note, width).into_iter().map(|line| Line::raw(format!("  {line}"))));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn listeners(&self, frame: &mut Frame<'_>, area: Rect, view: &mut View, listeners: &[&Listener]) {
        let Self { model, paint } = self;
        let has_focus = view.focus == Pane::Listeners;
        let mut title = format!("listeners {}", listeners.len());
        if listeners.len() < model.listeners.len() {
            let _ = write!(title, " of {}", model.listeners.len());
        }
        if model.forgotten > 0 {
            let _ = write!(title, ", {} forgotten for want of room", model.forgotten);
        }
        let block = self.block(&title, has_focus).title_top(self.filter(view).right_aligned());
        let (bars, verdict) = match area.width {
            140.. => (30, 32),
            110.. => (20, 32),
            96.. => (12, 20),
            _ => (6, 16),
        };
        let sorted = |by, text: &str| {
            let mark = if view.is_reversed { "▲" } else { "▼" };
            if view.sort == by { format!("{mark}{text}") } else { text.to_owned() }
        };
        let looked_back = span_name(model, view);
        let bars_title = if bars > 6 { format!("last {looked_back}") } else { looked_back };
        let header = Row::new([
            Cell::from(sorted(Sort::Address, "listener")),
            right(sorted(Sort::Rate, "/s")),
            right(sorted(Sort::Share, "ok")),
            right(sorted(Sort::Failed, "fail")),
            Cell::from("mostly"),
            right("p50".to_owned()),
            right(sorted(Sort::P99, "p99")),
            right(bars_title),
        ])
        .style(Paint::dim());
        let others = 4 + 5 + 5 + verdict + 5 + 5 + bars + 7;
        let rows = listeners.iter().map(|listener| {
            let share = listener.share();
            let failed = if listener.failures > 0 { paint.bad() } else { Paint::dim() };
            let cells = model.cells(&listener.series, view.span(model), usize::from(bars));
            Row::new([
                Cell::from(self.address(listener, usize::from(area.width.saturating_sub(others)))),
                right(rate(model.rate(&listener.series, view.span(model)))),
                right(share.map_or("–".to_owned(), percent))
                    .style(share.map_or(Style::new(), |share| paint.share(share))),
                right(short(listener.failures)).style(failed),
                Cell::from(ellipsis(listener.top_verdict().unwrap_or(""), usize::from(verdict))),
                right(listener.median.map_or("–".to_owned(), time)),
                right(listener.p99.map_or("–".to_owned(), time)),
                Cell::from(self.bars(&cells)),
            ])
        });
        let widths = [
            Constraint::Min(10),
            Constraint::Length(4),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(verdict),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(bars),
        ];
        let table = Table::new(rows, widths).header(header).block(block);
        let selected = view.selected_listener(listeners);
        let mut state = TableState::new().with_selected(selected);
        frame.render_stateful_widget(table, area, &mut state);
        let row = area.y.saturating_add(u16::try_from(2 + selected - state.offset()).unwrap_or(u16::MAX));
        if row < area.bottom() && !listeners.is_empty() {
            // Bars keep their colours.
            let row = Rect { y: row, height: 1, width: area.width.saturating_sub(bars + 1), ..area };
            frame.buffer_mut().set_style(row, Paint::selected(has_focus));
        }
        if has_focus {
            view.page_height = usize::from(area.height.saturating_sub(2));
        }
    }

    /// The address, and as much of the name that is used most as fits.
    fn address(&self, listener: &Listener, width: usize) -> Line<'static> {
        let address = listener.address.to_string();
        let Some(name) = listener.names.first().map(|(name, _)| name).or(listener.who.as_ref()) else {
            return Line::raw(address);
        };
        let more =
            if listener.names.len() > 1 { format!(" +{}", listener.names.len() - 1) } else { String::new() };
        let room = width.saturating_sub(address.len() + 1 + more.len());
        Line::from(vec![
            Text::raw(address),
            Text::styled(format!(" {}", ellipsis(name, room)), self.paint.colour(Color::Cyan)),
            Text::styled(more, Paint::dim()),
        ])
    }

    fn failures(&self, frame: &mut Frame<'_>, area: Rect, view: &mut View, has_focus: bool) {
        let Self { model, paint } = self;
        let failures = view.failures(model);
        let kinds = if failures.len() == 1 { "kind" } else { "kinds" };
        let block = self.block(&format!("failures, newest first: {} {kinds}", failures.len()), has_focus);
        let is_wide = area.width >= 110;
        let rows = failures.iter().map(|failure| {
            let count = if failure.count > 1 { format!("×{}", short(failure.count)) } else { String::new() };
            let mut row = vec![
                Cell::from(Line::styled(model.clock(failure.last), Paint::dim())),
                right(count),
                Cell::from(Line::styled(failure.key.verdict.clone(), paint.severity(failure.severity))),
                Cell::from(client(failure)),
                Cell::from(server(failure)),
            ];
            if is_wide {
                row.push(Cell::from(failure.summary.clone()));
            }
            Row::new(row)
        });
        let mut widths = vec![
            Constraint::Length(8),
            Constraint::Length(6),
            Constraint::Length(if is_wide { 32 } else { 24 }),
            Constraint::Length(if is_wide { 16 } else { 15 }),
            Constraint::Fill(1),
        ];
        if is_wide {
            widths.push(Constraint::Fill(2));
        }
        let table = Table::new(rows, widths).block(block).row_highlight_style(Paint::selected(has_focus));
        let mut state = TableState::new().with_selected(view.selected_failure(&failures));
        frame.render_stateful_widget(table, area, &mut state);
        if has_focus {
            view.page_height = usize::from(area.height.saturating_sub(1));
        }
    }

    /// Rows for the failures, and for the selected one of them: what it needs, of three fifths of the room.
    fn share_out(&self, room: u16, width: u16, view: &View) -> [u16; 2] {
        let failures = view.failures(self.model);
        let selected = failures.get(view.selected_failure(&failures));
        let lines = selected.map_or(0, |failure| self.what_happened(failure, usize::from(width)).len());
        let rows = |lines: usize| u16::try_from(lines + 1).unwrap_or(u16::MAX);
        let of_detail = rows(lines).min(room * 3 / 5);
        [rows(failures.len()).min(room - of_detail), of_detail]
    }

    /// The selected failure, as much as fits.
    fn selected(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let failures = view.failures(self.model);
        let Some(failure) = failures.get(view.selected_failure(&failures)) else {
            return frame.render_widget(self.block("nothing has failed", false), area);
        };
        let mut lines = self.what_happened(failure, usize::from(area.width));
        let room = usize::from(area.height.saturating_sub(1));
        let title = match lines.len().saturating_sub(room) {
            0 => failure.key.verdict.clone(),
            more => format!("{} (… {more} more lines)", failure.key.verdict),
        };
        lines.truncate(room);
        let remarks = Line::styled(format!(" {} ", failure.remarks()), Paint::dim());
        let block = self.block(&title, false).title_top(remarks.right_aligned());
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    /// Sentence, remedy, ends, evidence, alternatives: what is needed most comes first.
    fn what_happened(&self, failure: &Failure, width: usize) -> Vec<Line<'static>> {
        let paint = self.paint;
        let mut lines: Vec<_> =
            wrap(&failure.summary, width).into_iter().map(|line| Line::styled(line, Paint::bold())).collect();
        let explained = &failure.explained;
        if let Some(remedy) = &explained.remedy {
            lines.extend(labelled("remedy", remedy, width, paint.good()));
        }
        let ends = format!("{} → {}", failure.client, target(failure));
        lines.extend(labelled("who", &ends, width, paint.title()));
        let points: [(&str, &[Point], Style); 3] = [
            ("evidence", &explained.evidence, paint.title()),
            ("warning", &explained.warnings, paint.colour(Color::Yellow)),
            ("or", &explained.alternatives, paint.colour(Color::Yellow)),
        ];
        for (label, points, style) in points {
            for Point { name, text } in points {
                lines.extend(labelled(label, &format!("{name}: {text}"), width, style));
            }
        }
        lines
    }

    /// All about a failure, and about its kind.
    fn failure(&self, failure: &Failure, width: usize) -> Vec<Line<'static>> {
        let Self { model, paint } = self;
        let mut lines = vec![Line::styled(failure.remarks(), paint.severity(failure.severity))];
        lines.extend(self.what_happened(failure, width));
        let times = match failure.count {
            1 => format!("once, at {}", model.clock(failure.last)),
            many => format!(
                "{} times, {} to {}, from {}",
                grouped(many),
                model.clock(failure.first),
                model.clock(failure.last),
                client(failure)
            ),
        };
        lines.extend(labelled("seen", &times, width, paint.title()));
        if let Some(ja4) = &failure.ja4 {
            lines.extend(labelled("JA4", ja4, width, paint.title()));
        }
        for (role, who) in &failure.ends {
            lines.extend(labelled(role.as_str(), who, width, paint.title()));
        }
        let recent = failure.recent.iter().map(|(time, client)| format!("{} {client}", model.clock(*time)));
        let recent = recent.collect::<Vec<_>>().join(", ");
        lines.extend(labelled("last", &recent, width, paint.title()));
        if let Some(page) = explain::page(&failure.key.verdict, None) {
            lines.push(Line::raw(""));
            for line in page.lines() {
                let indent = line.len() - line.trim_start().len();
                let wrapped = wrap(line.trim_start(), width.saturating_sub(indent).max(20));
                lines.extend(wrapped.into_iter().map(|part| Line::raw(format!("{:indent$}{part}", ""))));
            }
        }
        lines
    }

    fn listener(&self, frame: &mut Frame<'_>, area: Rect, view: &mut View, listener: &Listener) {
        let Self { model, paint } = self;
        let width = usize::from(area.width);
        let names: Vec<_> =
            listener.names.iter().map(|(name, count)| format!("{name} ×{}", short(*count))).collect();
        let names = if names.is_empty() { "no client named it".to_owned() } else { names.join(", ") };
        let mut lines = labelled("names", &names, width, paint.title());
        lines.truncate(2);
        if let Some(who) = &listener.who {
            lines.extend(labelled("who", who, width, paint.title()).into_iter().take(1));
        }
        let duration = |duration: Option<Duration>| duration.map_or("–".to_owned(), time);
        let counts = format!(
            "{} handshakes, {}/s; {} ok, {} failed; p50 {}, p99 {}",
            grouped(listener.handshakes),
            rate(model.rate(&listener.series, view.span(model))),
            listener.share().map_or("–".to_owned(), percent),
            grouped(listener.failures),
            duration(listener.median),
            duration(listener.p99),
        );
        lines.extend(labelled("counts", &counts, width, paint.title()));
        for (i, (verdict, count)) in listener.kinds.iter().take(4).enumerate() {
            let part = share(*count, listener.failures.saturating_sub(*count)).unwrap_or_default();
            lines.push(Line::from(vec![
                Text::styled(format!("{:LABEL$}", if i == 0 { "failures" } else { "" }), paint.title()),
                Text::styled(format!("{verdict:32} "), paint.bad()),
                Text::raw(format!("{:>6} {:>6}", short(*count), percent(part))),
            ]));
        }
        let block = self.block(&listener.address.to_string(), false);
        let head = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
        let bars = if area.height >= 30 { 6 } else { 4 };
        let room = area.height.saturating_sub(head + bars);
        let [of_failures, of_detail] = self.share_out(room, area.width, view);
        let [top, chart, failures, detail] = Layout::vertical([
            Constraint::Length(head),
            Constraint::Length(bars),
            Constraint::Length(of_failures),
            Constraint::Min(of_detail),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(lines).block(block), top);
        self.chart(frame, chart, listener, view);
        self.failures(frame, failures, view, true);
        self.selected(frame, detail, view);
    }

    /// A listener's handshakes over time, in bars of more than one row.
    fn chart(&self, frame: &mut Frame<'_>, area: Rect, listener: &Listener, view: &View) {
        let Self { model, paint } = self;
        let span = view.span(model);
        let cells = model.cells(&listener.series, span, BUCKETS);
        let most = cells.iter().map(|cell| cell.handshakes).max().unwrap_or_default();
        let label = u16::try_from(LABEL).unwrap_or_default();
        let [left, right] = Layout::horizontal([Constraint::Length(label), Constraint::Min(0)]).areas(area);
        let lines = vec![
            Line::styled("history", paint.title()),
            Line::styled(span_name(model, view), Paint::dim()),
            Line::styled(format!("≤ {}", short(most.into())), Paint::dim()),
        ];
        frame.render_widget(Paragraph::new(lines), left);
        let each = usize::from(right.width).checked_div(cells.len()).unwrap_or_default().clamp(1, 4);
        let width = u16::try_from(each * cells.len()).unwrap_or(u16::MAX).min(right.width);
        let [bars, axis] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(Rect { width, ..right });
        let data = cells.into_iter().flat_map(|cell| {
            let bar = SparklineBar::from(u64::from(cell.handshakes)).style(paint.bucket(cell));
            std::iter::repeat_n(bar, each)
        });
        frame.render_widget(Sparkline::default().data(data.collect::<Vec<_>>()), bars);
        frame.render_widget(Line::styled(model.clock(model.begin(span)), Paint::dim()), axis);
        frame.render_widget(Line::styled(model.clock(model.now), Paint::dim()).right_aligned(), axis);
    }

    fn capture(&self, width: usize) -> Vec<Line<'static>> {
        let Self { model, paint } = self;
        let mut lines = labelled("source", &model.source, width, paint.title());
        if let Some(capture) = &model.capture {
            let mut counts = vec![(capture.packets, "packets"), (capture.tcp, "of them TCP")];
            counts.extend(capture.candidates.map(|count| (count, "candidates for a handshake")));
            counts.extend(capture.events.map(|count| (count, "events handed over by the kernel")));
            lines.extend(numbers("seen", counts, paint.title()));
            if capture.losses.is_empty() {
                lines.extend(labelled("lost", "nothing", width, paint.good()));
            }
            let counts = |counts: &[(std::borrow::Cow<'static, str>, u64)]| {
                counts.iter().map(|(what, count)| (*count, what.to_string())).collect::<Vec<_>>()
            };
            lines.extend(numbers("lost", counts(&capture.losses), paint.bad()));
            lines.extend(numbers("not read", counts(&capture.unread), paint.colour(Color::Yellow)));
            if !capture.losses.is_empty() {
                let text = "Verdicts that a loss may have touched say so: `undetermined`, or `suspected`.";
                lines.extend(labelled("", text, width, Paint::dim()));
            }
        } else {
            let text = "Saved lines do not tell what their capture saw or lost.";
            lines.extend(labelled("seen", text, width, paint.title()));
        }
        for certificate in &model.certificates {
            lines.extend(labelled("ends", certificate, width, paint.colour(Color::Yellow)));
        }
        for note in model.notes.iter().rev() {
            lines.extend(labelled("said", note, width, Paint::dim()));
        }
        lines
    }

    fn help(&self, width: usize) -> Vec<Line<'static>> {
        HELP.iter().flat_map(|(key, text)| labelled(key, text, width, self.paint.title())).collect()
    }

    /// Lines to scroll through.
    fn page(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        view: &mut View,
        title: &str,
        lines: Vec<Line<'static>>,
    ) {
        let height = usize::from(area.height.saturating_sub(1));
        view.page_height = height;
        view.scroll = view.scroll.min(lines.len().saturating_sub(height));
        let mut block = self.block(title, true);
        if lines.len() > height {
            let shown = format!(" {}–{} of {} ", view.scroll + 1, view.scroll + height, lines.len());
            block = block.title_top(Line::styled(shown, Paint::dim()).right_aligned());
        }
        let shown: Vec<_> = lines.into_iter().skip(view.scroll).take(height).collect();
        frame.render_widget(Paragraph::new(shown).block(block), area);
    }

    /// The capture's health, and the keys.
    fn foot(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let Self { model, paint } = self;
        let mut lines = Vec::new();
        let label = |text, style| Text::styled(format!("{text:LABEL$}"), style);
        lines.push(match &model.capture {
            Some(capture) if capture.losses.is_empty() => {
                let mut text = format!("nothing lost; {} packets", grouped(capture.packets));
                let counts = [(capture.candidates, "candidates"), (capture.events, "events")];
                for (count, what) in counts {
                    text += &count.map_or(String::new(), |count| format!(", {} {what}", grouped(count)));
                }
                for (what, count) in &capture.unread {
                    let _ = write!(text, "; not read: {} {what}", grouped(*count));
                }
                Line::from(vec![label("capture", paint.title()), Text::raw(text)])
            }
            Some(capture) => {
                let losses = capture.losses.iter().map(|(what, count)| format!("{} {what}", grouped(*count)));
                let losses = losses.collect::<Vec<_>>().join(", ");
                let seen = format!(" of {} packets", grouped(capture.packets));
                Line::from(vec![
                    label("LOST", paint.bad()),
                    Text::styled(losses, paint.bad()),
                    Text::raw(seen),
                ])
            }
            None => {
                let text = "saved lines do not tell what was lost";
                Line::from(vec![label("capture", paint.title()), Text::styled(text, Paint::dim())])
            }
        });
        if area.height > 2 {
            let note = model.notes.last().map_or("", |note| note);
            lines.push(Line::from(vec![label("said", paint.title()), Text::styled(note, Paint::dim())]));
        }
        lines.push(if view.is_typing {
            Line::from(vec![
                label("filter", paint.title()),
                Text::raw(Clean(&view.filter).to_string()),
                Text::styled("▏", Paint::bold()),
                Text::styled("  Enter keeps it, Esc drops it", Paint::dim()),
            ])
        } else {
            let keys: &[(&str, &str)] = match view.pages.last() {
                None if area.width < 90 => HOME_KEYS.get(..HOME_KEYS.len() - 1).unwrap_or_default(),
                None => HOME_KEYS,
                Some(Page::Listener(_)) => &[
                    ("Esc", "back"),
                    ("↑↓", "select"),
                    ("↵", "open"),
                    ("w", "span"),
                    ("p", "pause"),
                    ("q", "quit"),
                ],
                Some(_) => &[("Esc", "back"), ("↑↓", "scroll"), ("p", "pause"), ("q", "quit")],
            };
            let spans = keys.iter().flat_map(|(key, text)| {
                [Text::styled(*key, Paint::bold()), Text::styled(format!(" {text}  "), Paint::dim())]
            });
            Line::from(spans.collect::<Vec<_>>())
        });
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn block(&self, title: &str, has_focus: bool) -> Block<'static> {
        let style = if has_focus { self.paint.title() } else { Paint::bold() };
        Block::new()
            .borders(Borders::TOP)
            .border_style(Paint::dim())
            .title_top(Line::styled(format!("{} {title} ", if has_focus { "▶" } else { "─" }), style))
    }

    fn filter(&self, view: &View) -> Line<'static> {
        if view.filter.is_empty() {
            return Line::default();
        }
        Line::styled(format!(" filter: {} ", Clean(&view.filter)), self.paint.colour(Color::Yellow))
    }

    /// Bars of one row, by the highest of them.
    fn bars(&self, cells: &[Bucket]) -> Line<'static> {
        let most = cells.iter().map(|cell| cell.handshakes).max().unwrap_or_default().max(1);
        let bars = cells.iter().map(|cell| {
            let level = (u64::from(cell.handshakes) * LEVELS.len() as u64).div_ceil(most.into());
            match usize::try_from(level).ok().and_then(|level| level.checked_sub(1)) {
                Some(level) => Text::styled(LEVELS[level.min(LEVELS.len() - 1)], self.paint.bucket(*cell)),
                None => Text::raw(" "),
            }
        });
        Line::from(bars.collect::<Vec<_>>())
    }
}

/// What is looked back on, or all there is of it.
fn span_name(model: &Model, view: &View) -> String {
    let span = view.span(model);
    if model.is_ended && model.period().as_secs() < span.seconds() {
        return period(model.period());
    }
    span.name().to_owned()
}

/// `api.example.com (10.4.0.9:8443)`
fn target(failure: &Failure) -> String {
    match &failure.key.server_name {
        Some(name) => format!("{name} ({})", failure.key.server),
        None => failure.key.server.to_string(),
    }
}

/// The server in short.
fn server(failure: &Failure) -> String {
    match &failure.key.server_name {
        Some(name) => format!("→ {name}"),
        None => format!("→ {}", failure.key.server),
    }
}

/// Whom it happens to.
fn client(failure: &Failure) -> String {
    match failure.clients {
        Some(0 | 1) => failure.client.ip().to_string(),
        Some(many) => format!("{many} clients"),
        None => "many clients".to_owned(),
    }
}

/// A text behind a label, broken where the line ends.
fn labelled(label: &str, text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let wrapped = wrap(text, width.saturating_sub(LABEL).max(20));
    let lines = wrapped.into_iter().enumerate().map(|(i, line)| {
        let label = if i == 0 { label } else { "" };
        Line::from(vec![Text::styled(format!("{label:LABEL$}"), style), Text::raw(line)])
    });
    lines.collect()
}

/// Counts behind a label, one a line.
fn numbers<T: std::fmt::Display>(label: &str, counts: Vec<(u64, T)>, style: Style) -> Vec<Line<'static>> {
    let lines = counts.into_iter().enumerate().map(|(i, (count, what))| {
        let label = if i == 0 { label } else { "" };
        Line::from(vec![
            Text::styled(format!("{label:LABEL$}"), style),
            Text::raw(format!("{:>14}  {what}", grouped(count))),
        ])
    });
    lines.collect()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn width_of(line: &Line<'_>) -> u16 {
    u16::try_from(line.width()).unwrap_or(u16::MAX)
}
