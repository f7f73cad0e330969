//! How much each column of each matrix matters, as llama.cpp's llama-imatrix writes it: GGUF, or the file before that.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dequantize::DataType;
use crate::error::{Error, Result, quoted};
use crate::gguf::Gguf;
use crate::mmap::Map;

/// Mean squares of what came into each column, by the matrix's name in GGUF.
#[derive(Debug)]
pub struct Importance(BTreeMap<String, Vec<f32>>);

impl Importance {
    /// Reads an importance matrix.
    ///
    /// # Errors
    /// A sentence without the path: what is damaged, or not a number that an importance can be.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Map::open(path)?)
    }

    /// Reads the bytes of an importance matrix.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(map: Map) -> Result<Self> {
        let entries = if map.starts_with(b"GGUF") { from_gguf(&Gguf::new(map)?)? } else { from_older(&map)? };
        for (name, values) in &entries {
            if values.iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
                return Err(Error::new(format!("{} has an importance that is no number from 0 up", quoted(name))));
            }
        }
        Ok(Self(entries.into_iter().map(|(name, values)| (name, proportions(values))).collect()))
    }

    /// Names of the matrices that it knows, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The importance of each column of a tensor of this row-major shape, matrix after matrix where there are several.
    ///
    /// # Errors
    /// When it was made for a tensor of another shape.
    pub fn of(&self, name: &str, shape: &[usize]) -> Result<Option<&[f32]>> {
        let (columns, matrices) = (shape.last().copied().unwrap_or(1), shape.iter().rev().skip(2).product::<usize>());
        match self.0.get(name) {
            Some(values) if values.len() != columns * matrices => Err(Error::new(format!(
                "the importance matrix has {} columns for tensor {name}, which has {}; it belongs to another model",
                values.len(),
                columns * matrices
            ))),
            values => Ok(values.map(Vec::as_slice)),
        }
    }
}

/// With a mean of 1, since only proportions matter. What the text that it was made from never reached may still be
/// reached by others, so nothing counts for less than a millionth.
fn proportions(mut values: Vec<f32>) -> Vec<f32> {
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64;
    if mean > 0.0 {
        values.iter_mut().for_each(|x| *x = ((f64::from(*x) / mean) as f32).max(1e-6));
    } else {
        values.fill(1.0);
    }
    values
}

/// `NAME.in_sum2` has sums of squares, `NAME.counts` how many were added up for each matrix of a mixture.
fn from_gguf(file: &Gguf) -> Result<BTreeMap<String, Vec<f32>>> {
    let values = |name: &str| {
        let tensor = file.tensor(name).ok_or_else(|| Error::new(format!("tensor {} is missing", quoted(name))))?;
        match tensor.dtype {
            Ok(DataType::F32) => Ok(DataType::F32.to_f32(file.bytes(tensor))),
            _ => Err(Error::new(format!("tensor {} has type {}, not F32", quoted(name), tensor.type_name()))),
        }
    };
    let mut entries = BTreeMap::new();
    for name in file.names().filter_map(|name| name.strip_suffix(".in_sum2")) {
        let (mut sums, counts) = (values(&format!("{name}.in_sum2"))?, values(&format!("{name}.counts"))?);
        if !sums.len().is_multiple_of(counts.len()) {
            return Err(Error::new(format!("{} has {} sums for {} counts", quoted(name), sums.len(), counts.len())));
        }
        let columns = sums.len() / counts.len();
        for (sums, &count) in sums.chunks_mut(columns).zip(&counts) {
            // A matrix that nothing came to is known nothing of.
            sums.iter_mut().for_each(|sum| *sum = if count > 0.0 { *sum / count } else { 1.0 });
        }
        entries.insert(name.to_string(), sums);
    }
    if entries.is_empty() {
        return Err(Error::new("the file has no tensors that end with .in_sum2; it is not an importance matrix"));
    }
    Ok(entries)
}

/// A count; for each matrix its name's length and name, how often it was called, and a number of sums with these.
fn from_older(bytes: &[u8]) -> Result<BTreeMap<String, Vec<f32>>> {
    fn number(rest: &mut &[u8]) -> Option<usize> {
        let bytes = rest.split_off(..4)?.try_into().ok()?;
        usize::try_from(i32::from_le_bytes(bytes)).ok()
    }
    let mut rest = bytes;
    let mut read = || -> Option<BTreeMap<String, Vec<f32>>> {
        let mut entries = BTreeMap::new();
        for _ in 0..number(&mut rest)? {
            let length = number(&mut rest)?;
            let name = String::from_utf8(rest.split_off(..length)?.to_vec()).ok()?;
            let calls = number(&mut rest)?.max(1);
            let length = number(&mut rest)?.checked_mul(4)?;
            let values = DataType::F32.to_f32(rest.split_off(..length)?);
            entries.insert(name, values.into_iter().map(|x| x / calls as f32).collect());
        }
        (!entries.is_empty()).then_some(entries)
    };
    read().ok_or_else(|| Error::new("the file is not an importance matrix, neither as GGUF nor as it was before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn older(entries: &[(&str, i32, &[f32])]) -> Vec<u8> {
        let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, calls, values) in entries {
            bytes.extend((name.len() as i32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(calls.to_le_bytes());
            bytes.extend((values.len() as i32).to_le_bytes());
            bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn the_older_file_is_read_and_broken_ones_are_refused() {
        let bytes = older(&[("a.weight", 2, &[3.0, 6.0, 0.0]), ("b.weight", 0, &[1.0])]);
        let read = Importance::new(bytes.clone().into()).unwrap();
        assert_eq!(read.of("a.weight", &[5, 3]).unwrap(), Some(&[1.0, 2.0, 1e-6][..]));
        assert_eq!(read.of("c.weight", &[5, 3]).unwrap(), None);
        assert!(read.of("a.weight", &[5, 4]).unwrap_err().to_string().contains("another model"));
        for end in 0..bytes.len() {
            assert!(Importance::new(bytes[..end].to_vec().into()).is_err(), "{end}");
        }
        for bytes in [older(&[("a", 1, &[f32::NAN])]), older(&[("a", 1, &[-1.0])]), older(&[]), vec![0xff; 64]] {
            assert!(Importance::new(bytes.into()).is_err());
        }
    }
}
