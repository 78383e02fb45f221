//! `tlstrace top` in a terminal: what its user sees, and that the terminal is theirs again afterwards.

#![cfg(feature = "top")]
#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::env;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{self, Pts};
use tlstrace::top::screen::Screen;

/// Set where this program is run by its own test.
const PANICS: &str = "TLSTRACE_TEST_PANICS";
/// Longest wait for something to appear.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn saved_lines_are_followed_and_keys_lead_to_the_remedy_and_back() {
    let (mut terminal, mut input) = Terminal::with_piped_input(&["top", "-"]);
    terminal.wait_for("the first screen", |screen| screen.contents().contains("No handshake was seen yet"));
    assert!(terminal.parser.screen().alternate_screen());
    assert_ne!(terminal.mode(), terminal.before, "keys are read one by one");

    input.write_all(b"pod/tlstrace-x ").unwrap();
    input.write_all(&saved("closed_port.pcap")).unwrap();
    terminal.wait_for("the listener", |screen| screen.contents().contains("127.0.0.1:7402"));
    terminal.wait_for("its failure", |screen| screen.contents().contains("port_closed"));

    input.write_all(&saved("go_srv_http_to_tls.pcap")).unwrap();
    terminal.wait_for("a second failure", |screen| screen.contents().contains("http_on_tls_port"));
    terminal.press("\t\r");
    terminal.wait_for("all about the newest", |screen| screen.contents().contains("How to confirm"));
    terminal.press("\u{1b}");
    terminal.wait_for("the first screen", |screen| screen.contents().contains("listeners 2"));
    terminal.press("/port_cl\r");
    terminal.wait_for("what is asked for", |screen| {
        let text = screen.contents();
        text.contains("listeners 1 of 2") && text.contains("newest first: 1 kind")
    });
    terminal.press("p");
    terminal.wait_for("the pause", |screen| screen.contents().contains("PAUSED"));

    terminal.press("q");
    let text = terminal.assert_given_back();
    assert!(text.contains("2 of 2 handshakes failed"), "the sum stays on the screen: {text}");
}

#[test]
fn captures_are_judged_and_shown() {
    let file = directory().join("closed_port.pcap");
    let mut terminal = Terminal::start(&["top", file.to_str().unwrap()]);
    terminal.wait_for("the end", |screen| screen.contents().contains("end of input"));
    terminal.wait_for("the failure", |screen| screen.contents().contains("port_closed"));
    terminal.wait_for("the capture's health", |screen| screen.contents().contains("nothing lost"));
    terminal.press("\u{3}");
    terminal.assert_given_back();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut terminal, _input) = Terminal::with_piped_input(&["top", "-"]);
        terminal.wait_for("the first screen", |screen| screen.contents().contains("No handshake"));
        kill(Pid::from_raw(terminal.child.id().try_into().unwrap()), signal).unwrap();
        terminal.assert_given_back();
    }
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    if env::var_os(PANICS).is_some() {
        let _screen = Screen::enter().unwrap();
        panic!("a bug that was put here");
    }
    let name = "a_panic_gives_the_terminal_back_before_its_message";
    let command = blocking::Command::new(env::current_exe().unwrap());
    let command = command.args(["--exact", name, "--nocapture"]).env(PANICS, "1");
    let mut terminal = Terminal::run(command);
    terminal.wait_for("the other screen", |screen| screen.contents().contains("a bug that was put here"));
    let screen = terminal.parser.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{}", screen.contents());
    assert!(terminal.has_shown_other_screen, "there was something to give back");
    assert!(!terminal.child.wait().unwrap().success());
    assert_eq!(terminal.mode(), terminal.before);
}

#[test]
fn without_a_terminal_it_is_exit_2_and_the_message_says_what_to_use() {
    let output = Command::new(env!("CARGO_BIN_EXE_tlstrace")).args(["top", "-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tlstrace watch prints lines"));
}

/// A terminal of 100 columns and 30 rows, and the program that has it.
struct Terminal {
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
    fn start(arguments: &[&str]) -> Self {
        Self::run(blocking::Command::new(env!("CARGO_BIN_EXE_tlstrace")).args(arguments))
    }

    /// Also gives the end of a pipe that the program reads.
    fn with_piped_input(arguments: &[&str]) -> (Self, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let command = blocking::Command::new(env!("CARGO_BIN_EXE_tlstrace")).args(arguments);
        (Self::run(command.stdin(Stdio::from(reader))), writer)
    }

    fn run(mut command: blocking::Command) -> Self {
        let (pty, pts) = blocking::open().unwrap();
        pty.resize(Size::new(30, 100)).unwrap();
        let keys = File::from(OwnedFd::from(pty));
        let before = tcgetattr(keys.as_fd()).unwrap();
        let child = command.spawn_borrowed(&pts).unwrap();
        drop(command);
        let mut reader = keys.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let parser = vt100::Parser::new(30, 100, 0);
        Self { child, _pts: pts, keys, output, parser, has_shown_other_screen: false, before }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as expected.
    fn wait_for(&mut self, what: &str, is_there: impl Fn(&vt100::Screen) -> bool) {
        let deadline = now() + PATIENCE;
        while !is_there(self.parser.screen()) {
            match self.output.recv_timeout(deadline.saturating_duration_since(now())) {
                Ok(bytes) => {
                    for byte in bytes {
                        self.parser.process(&[byte]);
                        self.has_shown_other_screen |= self.parser.screen().alternate_screen();
                    }
                }
                Err(error) => panic!("no {what} ({error}):\n{}", self.parser.screen().contents()),
            }
        }
    }

    fn mode(&self) -> Termios {
        tcgetattr(self.keys.as_fd()).unwrap()
    }

    /// Waits for the end of the program; gives what is on the screen then.
    fn assert_given_back(mut self) -> String {
        self.wait_for("the first screen", |screen| !screen.alternate_screen() && !screen.hide_cursor());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.parser.screen().contents());
        assert_eq!(self.mode(), self.before);
        assert!(self.has_shown_other_screen);
        while let Ok(bytes) = self.output.try_recv() {
            self.parser.process(&bytes);
        }
        self.parser.screen().contents()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A capture as saved lines.
fn saved(capture: &str) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    let output = command.args(["replay", "-o", "json"]).arg(directory().join(capture)).output().unwrap();
    assert!(!output.stdout.is_empty());
    output.stdout
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

#[expect(clippy::disallowed_methods, reason = "patience with real processes is real time")]
fn now() -> Instant {
    Instant::now()
}
