//! A program that is asked one line at a time: how long it may take, how much it may write and how much memory it may
//! have.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use minke_model::error::quoted;

use crate::system;

/// Longest line that a program may write, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Bytes of its complaints that are kept, the last.
const COMPLAINTS: usize = 2048;
/// Lines that wait to be read; a program that writes more is kept waiting itself.
const WAITING: usize = 4;

/// A running program. Dropped, it ends, with all that it has started in its process group.
#[derive(Debug)]
pub struct Program {
    child: Child,
    requests: SyncSender<String>,
    lines: Receiver<Result<String, &'static str>>,
    complaints: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// Starts a program, with at most `memory` bytes of address space for each of its processes (Linux only).
    ///
    /// # Errors
    /// What happened to it, as a sentence's end.
    pub fn start(command: &[String], memory: u64) -> Result<Program, String> {
        let (name, arguments) = command.split_first().ok_or("has no name")?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python keeps lines back when nobody is at the terminal, unless it is told not to.
        command.env("PYTHONUNBUFFERED", "1");
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| format!("can't be started: {error}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (requests, to_write) = sync_channel::<String>(WAITING);
        let (read, lines) = sync_channel(WAITING);
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let program = Program { child, requests, lines, complaints: Arc::clone(&complaints) };
        system::limit_memory(&program.child, memory)?;
        // Each end of the program has a thread, so that whatever it does not read or write, this side can stop waiting.
        let mut stdin = stdin.ok_or("has no input")?;
        thread::spawn(move || {
            while let Ok(line) = to_write.recv() {
                if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        });
        let mut stdout = BufReader::new(stdout.ok_or("has no output")?);
        thread::spawn(move || {
            while let Some(line) = next_line(&mut stdout) {
                if read.send(line).is_err() {
                    return;
                }
            }
        });
        let mut stderr = stderr.ok_or("has no place for complaints")?;
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let mut kept = complaints.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..length]);
                let spare = kept.len().saturating_sub(COMPLAINTS);
                kept.drain(..spare);
            }
        });
        Ok(program)
    }

    /// Its answer to a line.
    ///
    /// # Errors
    /// What it did instead, as a sentence's end: it can't be asked again then.
    pub fn ask(&mut self, request: &str, patience: Duration) -> Result<String, String> {
        match self.lines.try_recv() {
            Ok(_) => return Err("said more than it was asked".into()),
            Err(TryRecvError::Disconnected) => return Err(self.end()),
            Err(TryRecvError::Empty) => {}
        }
        // It can be full only where the program has not read what came before.
        self.requests.try_send(format!("{request}\n")).map_err(|_| self.end())?;
        match self.lines.recv_timeout(patience) {
            Ok(line) => line.map_err(str::to_string),
            Err(RecvTimeoutError::Timeout) => Err(format!("did not answer within {} s", patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(self.end()),
        }
    }

    /// How a program ended whose output has ended.
    fn end(&mut self) -> String {
        let mut status = None;
        for _ in 0..50 {
            status = self.child.try_wait().ok().flatten();
            // Whoever reads its complaints lets go of them at their end.
            if status.is_some() && Arc::strong_count(&self.complaints) == 1 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let how = status.map_or("closed its output".to_string(), |status| format!("ended ({status})"));
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let complaints = String::from_utf8_lossy(&complaints);
        match complaints.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) => format!("{how} and said {}", quoted(last.trim())),
            None => how,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        system::end(&mut self.child);
    }
}

/// The next line, or what is wrong with it; none at the end.
fn next_line(reader: &mut impl BufRead) -> Option<Result<String, &'static str>> {
    let mut line = Vec::new();
    let length = reader.take(LONGEST_LINE + 1).read_until(b'\n', &mut line).ok().filter(|length| *length > 0)?;
    if length as u64 > LONGEST_LINE {
        return Some(Err("wrote a line of more than 1 MiB"));
    }
    Some(String::from_utf8(line).map_err(|_| "wrote something that is not text"))
}
