//! The terminal: entered, drawn to, and left as it was, whatever happens.

use std::io::{self, Stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{self, MissedTickBehavior};

use super::board::Board;
use super::{Action, View, render};
use crate::run::Signals;

/// How often is drawn what a source has changed: seldom enough for a slow line.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Whether the terminal is ours.
static IS_UP: AtomicBool = AtomicBool::new(false);

/// The thread that draws, and reads keys.
#[derive(Debug)]
pub struct Display {
    thread: JoinHandle<io::Result<()>>,
    leave: Arc<Notify>,
}

impl Display {
    /// Takes the terminal and begins to draw. `ended` is notified when the user has seen enough, or a signal came.
    pub fn start(board: Board, is_coloured: bool, ended: Arc<Notify>) -> io::Result<Self> {
        force_color_output(is_coloured);
        let screen = Screen::enter()?;
        let leave = Arc::new(Notify::new());
        let asked_to = Arc::clone(&leave);
        let thread = thread::Builder::new().name("display".to_owned()).spawn(move || {
            // Also when it panics.
            let _ended = NotifyAtDrop(ended);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(draw(screen, &board, is_coloured, &asked_to))
        })?;
        Ok(Self { thread, leave })
    }

    /// Waits until the user has seen enough; the terminal is as it was before.
    pub fn wait(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Gives the terminal back.
    pub fn leave(self) -> io::Result<()> {
        self.leave.notify_one();
        self.wait()
    }
}

/// The terminal in raw mode, showing its other screen. Dropped, or at a panic of any thread, it is what it was.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
        });
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        enable_raw_mode()?;
        IS_UP.store(true, Ordering::SeqCst);
        let screen = Self { terminal };
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once.
fn restore() {
    if IS_UP.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

struct NotifyAtDrop(Arc<Notify>);

impl Drop for NotifyAtDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn draw(mut screen: Screen, board: &Board, is_coloured: bool, leave: &Notify) -> io::Result<()> {
    let mut signals = Signals::listen().map_err(io::Error::other)?;
    let mut keys = read_keys()?;
    let mut tick = time::interval(DRAW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = View::default();
    let mut model = board.lock().model();
    let mut drawn = None;
    loop {
        tokio::select! {
            biased;
            () = signals.end() => return Ok(()),
            () = leave.notified() => return Ok(()),
            key = keys.recv() => match key {
                Some(Input::Key(key)) => match view.handle_key(key, &model) {
                    Action::Draw => {}
                    Action::Quit => return Ok(()),
                    Action::Reset => board.lock().reset(),
                },
                Some(Input::Resized) => {}
                Some(Input::Failed(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = tick.tick() => {
                let mut state = board.lock();
                state.pass(DRAW_EVERY);
                if view.is_paused || drawn == Some(state.version()) {
                    continue;
                }
            }
        }
        if !view.is_paused {
            let state = board.lock();
            drawn = Some(state.version());
            model = state.model();
        }
        if !IS_UP.load(Ordering::SeqCst) {
            // Another thread has panicked, and the terminal belongs to its last words.
            return Ok(());
        }
        screen.terminal.draw(|frame| render(frame, &model, &mut view, is_coloured))?;
    }
}

enum Input {
    Key(KeyEvent),
    Resized,
    Failed(io::Error),
}

/// Reads keys on a thread of its own, which ends with the program: it cannot be told to stop waiting.
fn read_keys() -> io::Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(64);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let input = match event::read() {
                Ok(Event::Key(key)) => Input::Key(key),
                Ok(Event::Resize(..)) => Input::Resized,
                Ok(_) => continue,
                Err(error) => Input::Failed(error),
            };
            let is_last = matches!(input, Input::Failed(_));
            if sender.blocking_send(input).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}
