//! Standard output: a table that is redrawn in place under a growing log, or plain lines where there is no terminal.
//!
//! The log scrolls as usual and only the table at its foot is drawn over, so everything can be scrolled back to, and no
//! mode of the terminal is changed for longer than one write: whatever ends the program, the terminal is as it was.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::schedule::Pace;

const CLEAR_DOWN: &str = "\x1b[J";
/// A line that is longer than the terminal is wide must not take two rows, or the way back up would be wrong.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

pub(crate) struct Screen {
    live: bool,
    color: bool,
    /// The frame on display, which is drawn over.
    frame: Vec<String>,
}

impl Screen {
    pub(crate) fn new(plain: bool) -> Self {
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = !plain && !dumb && io::stdout().is_terminal();
        let color = live && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { live, color, frame: Vec::new() }
    }

    /// How often to draw.
    pub(crate) fn period(&self, pace: Pace) -> Duration {
        if self.live { Duration::from_millis(200) } else { pace.of(2.0).max(Duration::from_secs(1)) }
    }

    /// Adds to the log.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        let frame = std::mem::take(&mut self.frame);
        self.write(&format!("{}{text}\n{}", up(frame.len()), self.render(&frame)))?;
        self.frame = frame;
        Ok(())
    }

    /// Shows a frame in place of the last one.
    pub(crate) fn draw(&mut self, frame: &[String]) -> io::Result<()> {
        self.write(&format!("{}{}", up(self.frame.len()), self.render(frame)))?;
        if self.live {
            self.frame = frame.to_vec();
        }
        Ok(())
    }

    /// Lets the last frame stand.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.frame.clear();
        self.write("\n")
    }

    fn render(&self, frame: &[String]) -> String {
        if frame.is_empty() {
            return String::new();
        }
        let text: String = frame.iter().map(|line| format!("{}\n", self.painted(line))).collect();
        if self.live { format!("{NO_WRAP}{text}{WRAP}") } else { text }
    }

    /// Colour only repeats what a word says already.
    fn painted(&self, line: &str) -> String {
        let color = match line.split_whitespace().nth(1) {
            Some("open") if self.color => 31,
            Some("half_open" | "ramp") if self.color => 33,
            _ => return line.to_owned(),
        };
        format!("\x1b[{color}m{line}\x1b[0m")
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Back to the first line of a frame of this height, and clear.
fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r{CLEAR_DOWN}") }
}
