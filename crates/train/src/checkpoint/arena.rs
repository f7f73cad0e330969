//! A checkpoint's arena: a file of little-endian numbers, in the type that they are kept in.

use std::path::Path;

use minke_kernels::Moments;
use minke_model::Result;
use serde::{Deserialize, Serialize};

use crate::files::{read_floats, write_floats};

/// What `state.json` says of an arena's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arena {
    length: usize,
    crc32: u32,
    /// The type of its numbers, which is also the file's extension.
    #[serde(default, skip_serializing_if = "Kept::is_f32")]
    dtype: Kept,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    #[default]
    F32,
    Bf16,
}

impl Kept {
    fn is_f32(&self) -> bool {
        *self == Kept::F32
    }

    fn file_name(self, arena: &str) -> String {
        match self {
            Kept::F32 => format!("{arena}.f32"),
            Kept::Bf16 => format!("{arena}.bf16"),
        }
    }
}

impl Arena {
    /// Writes the values of parameters to a file in `directory`.
    pub fn write_values(directory: &Path, name: &str, values: &[f32]) -> Result<Arena> {
        let crc32 = write_floats(&directory.join(Kept::F32.file_name(name)), values)?;
        Ok(Arena { length: values.len(), crc32, dtype: Kept::F32 })
    }

    /// Writes moments.
    pub fn write(directory: &Path, name: &str, moments: &Moments) -> Result<Arena> {
        match moments {
            Moments::F32(moments) => Arena::write_values(directory, name, moments),
            Moments::Bf16(moments) => {
                let crc32 = write_floats(&directory.join(Kept::Bf16.file_name(name)), moments)?;
                Ok(Arena { length: moments.len(), crc32, dtype: Kept::Bf16 })
            }
        }
    }

    /// The file's name.
    pub fn file_name(&self, name: &str) -> String {
        self.dtype.file_name(name)
    }

    /// Reads the numbers back from `file`, bit for bit.
    ///
    /// # Errors
    /// What is wrong with the file, without its name.
    pub fn read(&self, file: &Path) -> std::result::Result<Moments, String> {
        match self.dtype {
            Kept::F32 => read_floats(file, self.length, self.crc32).map(Moments::F32),
            Kept::Bf16 => read_floats(file, self.length, self.crc32).map(Moments::Bf16),
        }
    }
}
