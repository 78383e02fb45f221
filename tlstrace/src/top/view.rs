//! What of a [`Model`] is shown, in which order, and what keys do about it.

use std::cmp::Ordering;
use std::net::SocketAddr;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Failure, FailureKey, Listener, Model};
use super::series::Span;

/// Longest filter, in characters.
const MAX_FILTER: usize = 64;

/// The user's choices.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub focus: Pane,
    pub sort: Sort,
    pub is_reversed: bool,
    /// `None`: the last minute; of what has ended, all.
    span: Option<Span>,
    /// Words that must all occur in what is shown.
    pub filter: String,
    /// The filter is being typed.
    pub is_typing: bool,
    /// The model stays as it is.
    pub is_paused: bool,
    /// What lies over the first screen, the topmost last.
    pub pages: Vec<Page>,
    /// Lines that the topmost page is scrolled down.
    pub scroll: usize,
    /// Lines of it that were shown last.
    pub page_height: usize,
    /// `None`: the first one, whichever that is.
    listener: Option<SocketAddr>,
    failure: Option<FailureKey>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pane {
    #[default]
    Listeners,
    Failures,
}

/// What listeners are sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sort {
    #[default]
    Failed,
    Rate,
    Share,
    P99,
    Address,
}

/// More about one thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Page {
    Listener(SocketAddr),
    Failure(FailureKey),
    Capture,
    Help,
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// To be drawn anew, perhaps.
    Draw,
    Quit,
    /// To count from zero.
    Reset,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Failed => Self::Rate,
            Self::Rate => Self::Share,
            Self::Share => Self::P99,
            Self::P99 => Self::Address,
            Self::Address => Self::Failed,
        }
    }

    /// What matters most comes first: many, slow, and little success.
    fn compare(self, a: &Listener, b: &Listener, rate: impl Fn(&Listener) -> f64) -> Ordering {
        match self {
            Self::Failed => b.failures.cmp(&a.failures).then(b.last_failure.cmp(&a.last_failure)),
            Self::Rate => rate(b).total_cmp(&rate(a)),
            Self::Share => a.share().unwrap_or(2.0).total_cmp(&b.share().unwrap_or(2.0)),
            Self::P99 => b.p99.cmp(&a.p99),
            Self::Address => Ordering::Equal,
        }
    }
}

impl View {
    /// How far is looked back.
    pub fn span(&self, model: &Model) -> Span {
        let at_first = if model.is_ended { Span::holding(model.period()) } else { Span::Minute };
        self.span.unwrap_or(at_first)
    }

    /// The listeners that are shown, in order.
    pub fn listeners<'m>(&self, model: &'m Model) -> Vec<&'m Listener> {
        let words = self.words();
        let mut listeners: Vec<_> =
            model.listeners.iter().filter(|listener| mentions_listener(listener, &words)).collect();
        let rate = |listener: &Listener| model.rate(&listener.series, self.span(model));
        listeners.sort_by(|a, b| {
            let order = self.sort.compare(a, b, rate).then_with(|| a.address.cmp(&b.address));
            if self.is_reversed { order.reverse() } else { order }
        });
        listeners
    }

    /// The failures that are shown, newest first: those of one listener on its page.
    pub fn failures<'m>(&self, model: &'m Model) -> Vec<&'m Failure> {
        let words = self.words();
        let of = self.pages.iter().find_map(|page| match page {
            Page::Listener(address) => Some(*address),
            _ => None,
        });
        let is_shown = |failure: &&Failure| {
            of.is_none_or(|address| failure.key.server == address)
                && (of.is_some() || mentions_failure(failure, &words))
        };
        model.failures.iter().filter(is_shown).collect()
    }

    /// Place of the selected one among `listeners`; the first if it is not there.
    pub fn selected_listener(&self, listeners: &[&Listener]) -> usize {
        let at = listeners.iter().position(|listener| Some(listener.address) == self.listener);
        at.unwrap_or_default()
    }

    /// Likewise of failures.
    pub fn selected_failure(&self, failures: &[&Failure]) -> usize {
        let at = failures.iter().position(|failure| Some(&failure.key) == self.failure.as_ref());
        at.unwrap_or_default()
    }

    /// Does what a key stands for.
    pub fn handle_key(&mut self, key: KeyEvent, model: &Model) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Action::Quit } else { Action::Draw };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Action::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('z') => return Action::Reset,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.toggle(Page::Help),
            KeyCode::Char('c') => self.toggle(Page::Capture),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('S') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('w') => self.span = Some(self.span(model).next()),
            KeyCode::Char('/') => self.is_typing = self.pages.is_empty(),
            KeyCode::Tab | KeyCode::BackTab => self.switch(),
            KeyCode::Enter | KeyCode::Right => self.open(model),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.go_back(),
            KeyCode::Up | KeyCode::Char('k') => self.go(model, -1),
            KeyCode::Down | KeyCode::Char('j') => self.go(model, 1),
            KeyCode::PageUp => self.go(model, -self.page()),
            KeyCode::PageDown => self.go(model, self.page()),
            KeyCode::Home | KeyCode::Char('g') => self.go(model, isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(model, isize::MAX),
            _ => {}
        }
        Action::Draw
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
    }

    fn toggle(&mut self, page: Page) {
        self.scroll = 0;
        if self.pages.last() == Some(&page) {
            self.pages.pop();
        } else {
            self.pages.retain(|open| *open != page);
            self.pages.push(page);
        }
    }

    fn switch(&mut self) {
        // A listener's page has but one pane to choose from.
        if self.pages.is_empty() {
            self.focus = match self.focus {
                Pane::Listeners => Pane::Failures,
                Pane::Failures => Pane::Listeners,
            };
        }
    }

    fn open(&mut self, model: &Model) {
        let page = match (self.pages.last(), self.focus) {
            (None, Pane::Listeners) => {
                let listeners = self.listeners(model);
                let selected = listeners.get(self.selected_listener(&listeners));
                selected.map(|listener| Page::Listener(listener.address))
            }
            (None, Pane::Failures) | (Some(Page::Listener(_)), _) => {
                let failures = self.failures(model);
                let selected = failures.get(self.selected_failure(&failures));
                selected.map(|failure| Page::Failure(failure.key.clone()))
            }
            (Some(_), _) => None,
        };
        if let Some(page) = page {
            if let Page::Failure(key) = &page {
                self.failure = Some(key.clone());
            }
            self.scroll = 0;
            self.pages.push(page);
        }
    }

    fn go_back(&mut self) {
        self.scroll = 0;
        if self.pages.pop().is_none() {
            self.filter.clear();
        }
    }

    /// So many lines down, or up.
    fn go(&mut self, model: &Model, by: isize) {
        match (self.pages.last(), self.focus) {
            (None, Pane::Listeners) => {
                let listeners = self.listeners(model);
                let at = moved(self.selected_listener(&listeners), by, listeners.len());
                self.listener = listeners.get(at).map(|listener| listener.address);
            }
            (None, Pane::Failures) | (Some(Page::Listener(_)), _) => {
                let failures = self.failures(model);
                let at = moved(self.selected_failure(&failures), by, failures.len());
                // Whoever stands at the top wants to see what comes.
                self.failure = failures.get(at).filter(|_| at > 0).map(|failure| failure.key.clone());
            }
            (Some(_), _) => self.scroll = moved(self.scroll, by, usize::MAX),
        }
    }

    fn page(&self) -> isize {
        isize::try_from(self.page_height.max(2) - 1).unwrap_or(1)
    }

    fn words(&self) -> Vec<String> {
        self.filter.split_whitespace().map(str::to_lowercase).collect()
    }
}

/// `at` moved within `len`.
fn moved(at: usize, by: isize, len: usize) -> usize {
    at.saturating_add_signed(by).min(len.saturating_sub(1))
}

fn mentions_listener(listener: &Listener, words: &[String]) -> bool {
    let names = listener.names.iter().chain(&listener.kinds).map(|(name, _)| name);
    let names = names.chain(&listener.who).map(|name| name.to_lowercase());
    let texts: Vec<_> = names.chain([listener.address.to_string()]).collect();
    words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
}

fn mentions_failure(failure: &Failure, words: &[String]) -> bool {
    let Failure { key, client, ends, .. } = failure;
    let names = [Some(&key.verdict), key.server_name.as_ref()].into_iter().flatten();
    let names = names.chain(ends.iter().map(|(_, who)| who)).map(|name| name.to_lowercase());
    let texts: Vec<_> = names.chain([key.server.to_string(), client.to_string()]).collect();
    words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
}
