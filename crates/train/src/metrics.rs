//! `metrics.jsonl`: one JSON object a line for each step and each point of the learning curve, in order, never a line twice.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use minke_model::{Error, Result};
use serde::Serialize;

use crate::files::failed;
use crate::learning_curve::Point;
use crate::progress::StepMetrics;

/// The metrics file of a run, open for the next line.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    lines: u64,
}

impl MetricsFile {
    /// Opens the file for a run that goes on after its first `lines` lines (0 for a new run): what an interrupted run
    /// wrote after its last checkpoint is cut off, since it will be written again.
    ///
    /// # Errors
    /// What the file system says; that the file has fewer lines; or the line that isn't metrics, which the report would
    /// stumble over when all the work is done.
    pub fn open(path: &Path, lines: u64) -> Result<MetricsFile> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| failed("open", path, e))?;
        let (mut kept, mut length, mut line) = (0, 0, Vec::new());
        let mut reader = BufReader::new(&file);
        while kept < lines {
            line.clear();
            length += reader.read_until(b'\n', &mut line).map_err(|e| failed("read", path, e))? as u64;
            if !line.ends_with(b"\n") {
                return Err(Error::new(format!(
                    "{} has {kept} lines, but the checkpoint was made after {lines}; put the missing lines back, or \
                     start the run anew",
                    path.display()
                )));
            }
            kept += 1;
            Line::parse(path, kept, &line)?;
        }
        file.set_len(length)
            .and_then(|()| file.seek(SeekFrom::Start(length)))
            .map_err(|e| failed("cut off the end of", path, e))?;
        Ok(MetricsFile { path: path.to_path_buf(), file, lines })
    }

    /// Lines written so far; a checkpoint keeps this number.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Writes a line, a step's metrics or a [`Point`], at once.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, row: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(row).map_err(|e| Error::new(format!("metrics can't be written: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| failed("write", &self.path, e))?;
        self.lines += 1;
        Ok(())
    }

    /// Makes the lines last; before a checkpoint that counts on them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| failed("sync", &self.path, e))
    }
}

/// Reads the steps of a metrics file; a last line that was cut off by a crash is left out.
///
/// # Errors
/// What the file system says, or the line that isn't metrics.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>> {
    let bytes = std::fs::read(path).map_err(|e| failed("read", path, e))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let lines = lines.zip(1..).map(|(line, number)| Line::parse(path, number, line));
    lines.filter_map(|line| line.map(Line::step).transpose()).collect()
}

/// What a line has.
enum Line {
    Step(Box<StepMetrics>),
    Point,
}

impl Line {
    /// Of a line, counted from 1.
    fn parse(path: &Path, number: u64, line: &[u8]) -> Result<Line> {
        let step = serde_json::from_slice(line).map(|step| Line::Step(Box::new(step)));
        let either = step.or_else(|error| serde_json::from_slice(line).map(|_: Point| Line::Point).map_err(|_| error));
        either.map_err(|e| {
            Error::new(format!("{} line {number} is damaged: {e}; put it right, or start the run anew", path.display()))
        })
    }

    fn step(self) -> Option<StepMetrics> {
        match self {
            Line::Step(step) => Some(*step),
            Line::Point => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u32) -> StepMetrics {
        StepMetrics { step, ..StepMetrics::example() }
    }

    #[test]
    fn resuming_cuts_off_what_will_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        for i in 1..=5 {
            file.append(&step(i)).unwrap();
        }
        assert_eq!(file.lines(), 5);
        // A crash in the middle of a line.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"stage\":");
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap().len(), 5);

        let mut file = MetricsFile::open(&path, 3).unwrap();
        file.append(&Point::example(3)).unwrap();
        file.append(&step(40)).unwrap();
        file.sync().unwrap();
        assert_eq!(read(&path).unwrap(), [1, 2, 3, 40].map(step));
        assert_eq!(MetricsFile::open(&path, 5).unwrap().lines(), 5);
        let error = MetricsFile::open(&path, 7).unwrap_err().to_string();
        assert!(error.contains("has 5 lines, but the checkpoint was made after 7"), "{error}");
        assert_eq!(MetricsFile::open(&path, 0).unwrap().lines(), 0);
        assert_eq!(read(&path).unwrap(), []);
    }

    #[test]
    fn a_broken_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        MetricsFile::open(&path, 0).unwrap().append(&step(1)).unwrap();
        let line = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{line}{{}}\n{line}")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("metrics.jsonl line 2 is damaged: missing field"));
    }
}
