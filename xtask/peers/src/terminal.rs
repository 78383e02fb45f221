//! A program in a terminal: what its user sees, and whether the terminal is theirs again afterwards.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{self, Pts};

pub use pty_process::blocking::Command;
pub use vt100::Screen;

const ROWS: u16 = 30;
const COLUMNS: u16 = 100;

/// A terminal of 100 columns and 30 rows, and the program that has it. Killed and reaped on drop.
pub struct Terminal {
    child: Child,
    /// Keeps the other end open when the program has ended.
    _pts: Pts,
    keys: File,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    has_shown_other_screen: bool,
    /// Its mode before the program began.
    before: Termios,
}

impl Terminal {
    /// Starts a command whose terminal it is.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let (pty, pts) = blocking::open()?;
        pty.resize(Size::new(ROWS, COLUMNS))?;
        let keys = File::from(OwnedFd::from(pty));
        let before = tcgetattr(keys.as_fd())?;
        let child = command.spawn_borrowed(&pts).context("cannot run the command")?;
        let mut reader = keys.try_clone()?;
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes.iter().take(len).copied().collect()).is_err() {
                    return;
                }
            }
        });
        let parser = vt100::Parser::new(ROWS, COLUMNS, 0);
        Ok(Self { child, _pts: pts, keys, output, parser, has_shown_other_screen: false, before })
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id fits an i32")?;
        kill(Pid::from_raw(pid), signal).context("cannot signal the child")
    }

    /// What is seen, as of what was read so far.
    pub fn screen(&self) -> &Screen {
        self.parser.screen()
    }

    /// Waits until the screen is as it should be; the error shows how it is.
    pub fn wait_for(&mut self, within: Duration, mut is_there: impl FnMut(&Screen) -> bool) -> Result<()> {
        let deadline = now() + within;
        while !is_there(self.screen()) {
            let left = deadline.saturating_duration_since(now());
            let received = self.output.recv_timeout(left);
            let bytes = received.with_context(|| format!("the screen is:\n{}", self.screen().contents()))?;
            self.show(&bytes);
        }
        Ok(())
    }

    /// Waits until a text is on the screen.
    pub fn find(&mut self, within: Duration, text: &str) -> Result<()> {
        self.wait_for(within, |screen| screen.contents().contains(text))
            .with_context(|| format!("`{text}` did not appear"))
    }

    /// Waits until the program has ended, and shows all that it wrote.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        // It ends when it has given the terminal back.
        self.wait_for(within, |screen| !screen.alternate_screen() && !screen.hide_cursor())?;
        let status = self.child.wait()?;
        while let Ok(bytes) = self.output.try_recv() {
            self.show(&bytes);
        }
        Ok(status)
    }

    /// Whether the program has ever shown the terminal's other screen.
    pub fn has_shown_other_screen(&self) -> bool {
        self.has_shown_other_screen
    }

    /// Whether the terminal shows the screen and the cursor, and treats input, as before the program.
    pub fn is_as_before(&self) -> Result<bool> {
        let screen = self.screen();
        let is_first_screen = !screen.alternate_screen() && !screen.hide_cursor();
        Ok(is_first_screen && tcgetattr(self.keys.as_fd())? == self.before)
    }

    fn show(&mut self, bytes: &[u8]) {
        // Byte by byte: a screen that is entered and left within one read was shown, too.
        for byte in bytes {
            self.parser.process(&[*byte]);
            self.has_shown_other_screen |= self.parser.screen().alternate_screen();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "patience with real processes is real time")]
fn now() -> Instant {
    Instant::now()
}
