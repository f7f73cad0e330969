//! GGUF files, out: metadata, the table of tensors, and where their bytes go. Version 3 of the format that
//! [`crate::gguf`] reads.

use crate::dequantize::DataType;
use crate::gguf::Gguf;

/// Bytes that tensors begin at multiples of, where the metadata doesn't say.
const ALIGNMENT: usize = 32;

/// Kinds of values, as the format numbers them.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Keys and values, in the order that they are written in.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Values as the file has them, their kind first.
    entries: Vec<(String, Vec<u8>)>,
    alignment: Option<usize>,
}

impl Metadata {
    /// All that a file has, its alignment included.
    pub fn of(file: &Gguf) -> Self {
        let entries = file.values().into_iter().map(|(key, value)| (key.to_string(), value.to_vec())).collect();
        // The reader has checked that it is a power of two of 32 bits.
        let alignment = file.size("general.alignment").ok().flatten();
        Self { entries, alignment }
    }

    /// A whole number under `key`, in the place of what was there.
    pub fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, U32, &value.to_le_bytes());
    }

    /// A number under `key`.
    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, F32, &value.to_le_bytes());
    }

    /// A yes or no under `key`.
    pub fn set_flag(&mut self, key: &str, value: bool) {
        self.set(key, BOOL, &[value.into()]);
    }

    /// A text under `key`.
    pub fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, TEXT, &text(value));
    }

    /// A list of texts under `key`.
    pub fn set_texts(&mut self, key: &str, values: &[String]) {
        self.set(key, ARRAY, &list(TEXT, values.len(), values.iter().flat_map(|value| text(value))));
    }

    /// A list of whole numbers under `key`.
    pub fn set_i32s(&mut self, key: &str, values: &[i32]) {
        self.set(key, ARRAY, &list(I32, values.len(), values.iter().flat_map(|value| value.to_le_bytes())));
    }

    /// A list of numbers under `key`.
    pub fn set_f32s(&mut self, key: &str, values: &[f32]) {
        self.set(key, ARRAY, &list(F32, values.len(), values.iter().flat_map(|value| value.to_le_bytes())));
    }

    fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        let value = [&kind.to_le_bytes(), value].concat();
        match self.entries.iter_mut().find(|(there, _)| there == key) {
            Some((_, there)) => *there = value,
            None => self.entries.push((key.into(), value)),
        }
    }

    /// Bytes that tensors begin at multiples of.
    pub fn alignment(&self) -> usize {
        self.alignment.unwrap_or(ALIGNMENT)
    }
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

fn list(kind: u32, count: usize, values: impl Iterator<Item = u8>) -> Vec<u8> {
    kind.to_le_bytes().into_iter().chain((count as u64).to_le_bytes()).chain(values).collect()
}

/// What the table says of a tensor: its name, its row-major shape, and its type, whose blocks divide the rows.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The name.
    pub name: &'a str,
    /// Row-major.
    pub shape: &'a [usize],
    /// How the elements are stored.
    pub dtype: DataType,
}

impl Row<'_> {
    /// Bytes of the elements, without the padding behind them.
    pub fn bytes(&self) -> usize {
        let (elements, size) = self.dtype.block();
        self.shape.iter().product::<usize>() / elements * size
    }
}

/// A file up to where its tensors begin. These follow in the order of `rows`, each padded to the alignment.
pub fn header(metadata: &Metadata, rows: &[Row<'_>]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((rows.len() as u64).to_le_bytes());
    out.extend((metadata.entries.len() as u64).to_le_bytes());
    for (key, value) in &metadata.entries {
        out.extend(text(key));
        out.extend(value);
    }
    let mut offset = 0;
    for row in rows {
        out.extend(text(row.name));
        out.extend((row.shape.len() as u32).to_le_bytes());
        // Fastest first.
        out.extend(row.shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        let number = row.dtype.ggml_number().expect("a type that GGUF has");
        out.extend(number.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset = (offset + row.bytes()).next_multiple_of(metadata.alignment());
    }
    out.resize(out.len().next_multiple_of(metadata.alignment()), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut metadata = Metadata::default();
        metadata.set_text("general.architecture", "llama");
        metadata.set_u32("a.u32", 1);
        metadata.set_u32("a.u32", 7);
        metadata.set_f32("a.f32", 0.5);
        metadata.set_flag("a.flag", true);
        metadata.set_texts("a.texts", &["x".into(), "ÿ".into()]);
        metadata.set_i32s("a.i32s", &[-1, 2]);
        metadata.set_f32s("a.f32s", &[1.5]);
        let rows = [
            Row { name: "one", shape: &[2, 3], dtype: DataType::F16 },
            Row { name: "two", shape: &[1, 32], dtype: DataType::Q8_0 },
        ];
        let mut bytes = header(&metadata, &rows);
        bytes.extend([[1; 12].as_slice(), &[0; 20], &[2; 34]].concat());
        let file = Gguf::new(bytes.into()).unwrap();
        assert_eq!(file.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(file.size("a.u32").unwrap(), Some(7));
        assert_eq!(file.number("a.f32").unwrap(), Some(0.5));
        assert_eq!(file.flag("a.flag").unwrap(), Some(true));
        assert_eq!(file.texts("a.texts").unwrap(), Some(vec!["x", "ÿ"]));
        assert_eq!(file.integers("a.i32s").unwrap(), Some(vec![-1, 2]));
        assert_eq!(file.floats("a.f32s").unwrap(), Some(vec![1.5]));
        for (row, value) in rows.iter().zip([1, 2]) {
            let tensor = file.tensor(row.name).unwrap();
            assert_eq!((tensor.shape.as_slice(), tensor.dtype), (row.shape, Ok(row.dtype)));
            assert_eq!(file.bytes(tensor), vec![value; row.bytes()]);
        }
        // And what was read is written the same.
        assert_eq!(header(&Metadata::of(&file), &rows), header(&metadata, &rows));
    }
}
