//! `reference/STAGE.f32`: the weights that a stage with a penalty for leaving them is held to, those it began with.
//!
//! They are written once, before the stage's first step, and checkpoints of that stage keep their checksum: a run that goes
//! on finds the very same numbers, or says that it does not.

use std::path::{Path, PathBuf};

use minke_model::{Error, Result};

use crate::files::{hidden, make_directory, read_floats, rename, write_floats};

/// The file of a stage, counted from 1.
pub fn path(run: &Path, stage: usize) -> PathBuf {
    run.join("reference").join(format!("{stage}.f32"))
}

/// Keeps the weights that `stage` begins with, and returns their CRC-32; what an earlier beginning left is replaced.
///
/// # Errors
/// What the file system says.
pub fn write(run: &Path, stage: usize, values: &[f32]) -> Result<u32> {
    let path = path(run, stage);
    make_directory(path.parent().unwrap_or(run))?;
    let partial = hidden(&path, "partial");
    let crc32 = write_floats(&partial, values)?;
    rename(&partial, &path)?;
    Ok(crc32)
}

/// The weights that `stage` began with: `length` numbers with the CRC-32 that a checkpoint kept.
///
/// # Errors
/// What is wrong with the file.
pub fn read(run: &Path, stage: usize, length: usize, crc32: u32) -> Result<Vec<f32>> {
    let path = path(run, stage);
    read_floats(&path, length, crc32).map_err(|what| {
        Error::new(format!(
            "{} {what}; put back the one that stage {stage} began with, or start anew elsewhere (--out)",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_back_or_the_file_is_named() {
        let run = tempfile::tempdir().unwrap();
        let values = [0.1, -0.0, f32::MIN_POSITIVE / 2.0, 7e33];
        write(run.path(), 2, &[1.0; 9]).unwrap();
        let crc32 = write(run.path(), 2, &values).unwrap();
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&read(run.path(), 2, 4, crc32).unwrap()), bits(&values));
        assert_eq!(std::fs::read_dir(run.path().join("reference")).unwrap().count(), 1);
        let error = |stage, length, crc32| read(run.path(), stage, length, crc32).unwrap_err().to_string();
        assert!(
            error(2, 4, crc32 ^ 1).contains("2.f32 is damaged: its checksum is another; put back the one that stage 2")
        );
        assert!(error(2, 5, crc32).contains("2.f32 is damaged: it has 16 bytes, but should have 5 numbers of 4; put"));
        assert!(error(1, 4, crc32).contains("1.f32 can't be read: "));
    }
}
