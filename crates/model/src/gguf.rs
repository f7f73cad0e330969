//! GGUF, llama.cpp's file format: metadata, a table of tensors, and their bytes; read through a memory map.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Nothing is copied while a file is opened but keys and names: values stay where they lie until they are asked for,
//! so what is allocated is always a small multiple of bytes that the file really has.

use std::collections::{BTreeMap, btree_map};
use std::ops::Range;
use std::path::Path;

use crate::dequantize::{DataType, ggml_type_name};
use crate::error::{Error, Result, quoted};
use crate::mmap::Map;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays may hold arrays; files in the wild hold none.
const DEEPEST_ARRAY: usize = 4;
const MOST_DIMENSIONS: u32 = 4;

/// An open GGUF file, its tables checked against its size.
#[derive(Debug)]
pub struct Gguf {
    map: Map,
    tables: Tables,
}

/// Where things lie in a file.
#[derive(Debug)]
struct Tables {
    metadata: BTreeMap<String, Place>,
    tensors: BTreeMap<String, Tensor>,
}

/// A metadata value: its kind and where its bytes begin.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    at: usize,
}

/// One row of the table of tensors.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// How the elements are stored, or the number of a type that isn't read.
    pub dtype: std::result::Result<DataType, u32>,
    /// Row-major shape (the file has it the other way round).
    pub shape: Vec<usize>,
    /// Where the bytes lie in the file; empty for a type that isn't read.
    bytes: Range<usize>,
}

impl Tensor {
    /// The type's name, as people know it.
    pub fn type_name(&self) -> String {
        match self.dtype {
            Ok(dtype) => dtype.name().into(),
            Err(number) => ggml_type_name(number),
        }
    }
}

/// Kinds of metadata values, in the order of their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Bytes of one value, where all have as many.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

impl Gguf {
    /// Opens the file at `path` and checks its tables.
    ///
    /// # Errors
    /// A sentence without the path, naming the key or tensor at fault.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Map::open(path)?)
    }

    /// Checks the tables of a file's bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(map: Map) -> Result<Self> {
        let tables = read_tables(&map)?;
        Ok(Self { map, tables })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.tensors.keys().map(String::as_str)
    }

    /// The table's row for a tensor.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tables.tensors.get(name)
    }

    /// A tensor's stored bytes; none for a type that isn't read.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.map[tensor.bytes.clone()]
    }

    /// The file's bytes.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Size of the whole file, in bytes.
    pub fn file_size(&self) -> usize {
        self.map.len()
    }

    /// Whether there is a value under `key`.
    pub fn has(&self, key: &str) -> bool {
        self.tables.metadata.contains_key(key)
    }

    /// The whole number under `key`, if there is one and it is not negative.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.scalar(key, "a whole number", |reader, kind| reader.integer(kind).and_then(|n| usize::try_from(n).ok()))
    }

    /// The number under `key`, whole or not.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.scalar(key, "a number", |reader, kind| match kind {
            Kind::F32 => reader.take::<4>().map(|b| f32::from_le_bytes(b) as f64),
            Kind::F64 => reader.take::<8>().map(f64::from_le_bytes),
            other => reader.integer(other).map(|n| n as f64),
        })
    }

    /// The flag under `key`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.scalar(key, "true or false", |reader, kind| match kind {
            Kind::Bool => reader.take::<1>().map(|[b]| b != 0),
            _ => None,
        })
    }

    /// Keys with the bytes of their values, kind first, in the order of the file.
    pub(crate) fn values(&self) -> Vec<(&str, &[u8])> {
        let mut places: Vec<_> = self.tables.metadata.iter().collect();
        places.sort_by_key(|(_, place)| place.at);
        let whole = |&Place { kind, at }: &Place| {
            let mut reader = Reader { bytes: &self.map, at };
            // It was stepped over before, so it ends inside the file.
            let _ = reader.step_over(kind, 0);
            &self.map[at - size_of::<u32>()..reader.at]
        };
        places.into_iter().map(|(key, place)| (key.as_str(), whole(place))).collect()
    }

    /// The text under `key`.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.scalar(key, "UTF-8 text", |reader, kind| match kind {
            Kind::Text => std::str::from_utf8(reader.text()?).ok(),
            _ => None,
        })
    }

    /// The list of texts under `key`.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, "a list of UTF-8 texts", |reader, kind| match kind {
            Kind::Text => std::str::from_utf8(reader.text()?).ok(),
            _ => None,
        })
    }

    /// The list of whole numbers under `key`.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.list(key, "a list of whole numbers", |reader, kind| {
            reader.integer(kind).and_then(|n| i64::try_from(n).ok())
        })
    }

    /// The list of single-precision numbers under `key`.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.list(key, "a list of numbers", |reader, kind| match kind {
            Kind::F32 => reader.take::<4>().map(f32::from_le_bytes),
            _ => None,
        })
    }

    fn scalar<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&mut Reader<'a>, Kind) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(&Place { kind, at }) = self.tables.metadata.get(key) else { return Ok(None) };
        let mut reader = Reader { bytes: &self.map, at };
        read(&mut reader, kind).map(Some).ok_or_else(|| Error::new(format!("{key} is not {expected}")))
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        mut read: impl FnMut(&mut Reader<'a>, Kind) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(&Place { kind, at }) = self.tables.metadata.get(key) else { return Ok(None) };
        let mut reader = Reader { bytes: &self.map, at };
        let mut values = || {
            if kind != Kind::Array {
                return None;
            }
            let (element, count) = (reader.kind()?, reader.u64()?);
            (0..count).map(|_| read(&mut reader, element)).collect()
        };
        values().map(Some).ok_or_else(|| Error::new(format!("{key} is not {expected}")))
    }
}

/// Reads and checks the tables of a whole file's `bytes`.
fn read_tables(bytes: &[u8]) -> Result<Tables> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take::<4>().as_ref() != Some(MAGIC) {
        return Err(Error::new("the file is not GGUF: it does not begin with these letters"));
    }
    let version = reader.u32().ok_or_else(|| cut_short("the version"))?;
    match version {
        // Versions 2 and 3 differ in the byte order they allow, and this is the little end.
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 2 | 3) => {
            return Err(Error::new("the file is big-endian GGUF; convert it to little-endian"));
        }
        other => return Err(Error::new(format!("the file has GGUF version {other}; versions 2 and 3 are read"))),
    }
    let tensor_count = reader.u64().ok_or_else(|| cut_short("the number of tensors"))?;
    let key_count = reader.u64().ok_or_else(|| cut_short("the number of metadata keys"))?;

    let mut metadata = BTreeMap::new();
    for i in 0..key_count {
        let key = reader.name().ok_or_else(|| cut_short(&format!("metadata key {i} of {key_count}")))??;
        let place = reader.value().map_err(|e| e.about(format!("metadata key {}", quoted(&key))))?;
        if metadata.insert(key.clone(), place).is_some() {
            return Err(Error::new(format!("metadata key {} comes twice", quoted(&key))));
        }
    }

    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(&Place { kind: Kind::U32, at }) => {
            let stated = Reader { bytes, at }.u32().unwrap_or(0);
            if !stated.is_power_of_two() {
                return Err(Error::new(format!("general.alignment is {stated}, which is not a power of two")));
            }
            stated.into()
        }
        Some(_) => return Err(Error::new("general.alignment is not a 32-bit whole number")),
    };

    let mut rows = BTreeMap::new();
    for i in 0..tensor_count {
        let name = reader.name().ok_or_else(|| cut_short(&format!("tensor {i} of {tensor_count}")))??;
        let row = reader.row().map_err(|e| e.about(format!("tensor {}", quoted(&name))))?;
        match rows.entry(name) {
            btree_map::Entry::Vacant(place) => place.insert(row),
            btree_map::Entry::Occupied(place) => {
                return Err(Error::new(format!("tensor {} comes twice", quoted(place.key()))));
            }
        };
    }

    // The header's end lies inside the file and alignment fits 32 bits, so neither sum below can overflow.
    let data_start = (reader.at as u64).next_multiple_of(alignment).min(bytes.len() as u64) as usize;
    let data = bytes.len() - data_start;
    let tensors = rows
        .into_iter()
        .map(|(name, row)| {
            let tensor =
                row.place(alignment, data_start, data).map_err(|e| e.about(format!("tensor {}", quoted(&name))))?;
            Ok((name, tensor))
        })
        .collect::<Result<_>>()?;
    Ok(Tables { metadata, tensors })
}

/// A tensor's row as the file has it.
struct Row {
    /// Fastest first.
    dimensions: Vec<u64>,
    type_number: u32,
    /// From the start of the data.
    offset: u64,
}

impl Row {
    /// Checks that the tensor lies in the `data` bytes that begin at `data_start`.
    fn place(mut self, alignment: u64, data_start: usize, data: usize) -> Result<Tensor> {
        if !self.offset.is_multiple_of(alignment) {
            return Err(Error::new(format!("begins at byte {}, which is not a multiple of {alignment}", self.offset)));
        }
        let dtype = DataType::from_ggml(self.type_number);
        let mut bytes = 0..0;
        if let Ok(dtype) = dtype {
            let (per_block, _) = dtype.block();
            if !self.dimensions[0].is_multiple_of(per_block as u64) {
                return Err(Error::new(format!(
                    "has rows of {} elements, which type {} can't divide in blocks of {per_block}",
                    self.dimensions[0],
                    dtype.name()
                )));
            }
            let size = self
                .dimensions
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
                .and_then(|elements| dtype.bytes(elements));
            let end = size.and_then(|n| usize::try_from(self.offset).ok()?.checked_add(n)).filter(|&end| end <= data);
            let Some(end) = end else {
                return Err(Error::new(format!(
                    "of type {} and shape {:?} at byte {} does not fit the file's {data} bytes of data; the file is \
                     cut short or damaged",
                    dtype.name(),
                    self.dimensions.iter().rev().collect::<Vec<_>>(),
                    self.offset
                )));
            };
            bytes = data_start + self.offset as usize..data_start + end;
        }
        self.dimensions.reverse();
        let shape = self.dimensions.iter().map(|&d| usize::try_from(d)).collect::<std::result::Result<_, _>>();
        let shape = shape.map_err(|_| Error::new("has a dimension that this machine can't count to"))?;
        Ok(Tensor { dtype, shape, bytes })
    }
}

/// A place in the file's bytes; every read checks that there are enough left.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(taken)
    }

    fn skip(&mut self, count: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        let skipped = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(skipped)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A length, and as many bytes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u64()?;
        self.skip(length)
    }

    /// A key or a tensor's name: text that must be UTF-8.
    fn name(&mut self) -> Option<Result<String>> {
        let name = self.text()?;
        let valid = std::str::from_utf8(name).map(str::to_string);
        Some(valid.map_err(|_| Error::new(format!("the name {} is not UTF-8", quoted(&String::from_utf8_lossy(name))))))
    }

    fn kind(&mut self) -> Option<Kind> {
        let number = self.u32()?;
        Kind::ALL.get(number as usize).copied()
    }

    /// A whole number of any width; numbers of 128 bits hold them all.
    fn integer(&mut self, kind: Kind) -> Option<i128> {
        Some(match kind {
            Kind::U8 => u8::from_le_bytes(self.take()?).into(),
            Kind::I8 => i8::from_le_bytes(self.take()?).into(),
            Kind::U16 => u16::from_le_bytes(self.take()?).into(),
            Kind::I16 => i16::from_le_bytes(self.take()?).into(),
            Kind::U32 => u32::from_le_bytes(self.take()?).into(),
            Kind::I32 => i32::from_le_bytes(self.take()?).into(),
            Kind::U64 => u64::from_le_bytes(self.take()?).into(),
            Kind::I64 => i64::from_le_bytes(self.take()?).into(),
            Kind::F32 | Kind::F64 | Kind::Bool | Kind::Text | Kind::Array => return None,
        })
    }

    /// Steps over a value with its kind, and remembers where it lay.
    fn value(&mut self) -> Result<Place> {
        let number = self.u32().ok_or_else(outlives)?;
        let kind = *Kind::ALL
            .get(number as usize)
            .ok_or_else(|| Error::new(format!("has a value of the unknown kind {number}")))?;
        let at = self.at;
        self.step_over(kind, 0)?;
        Ok(Place { kind, at })
    }

    fn step_over(&mut self, kind: Kind, depth: usize) -> Result<()> {
        let outside = outlives;
        match (kind, kind.size()) {
            (_, Some(size)) => self.skip(size as u64).map(drop).ok_or_else(outside),
            (Kind::Text, None) => self.text().map(drop).ok_or_else(outside),
            (_, None) => {
                if depth == DEEPEST_ARRAY {
                    return Err(Error::new(format!("has arrays nested more than {DEEPEST_ARRAY} deep")));
                }
                let number = self.u32().ok_or_else(outside)?;
                let count = self.u64().ok_or_else(outside)?;
                let element = *Kind::ALL
                    .get(number as usize)
                    .ok_or_else(|| Error::new(format!("has an array of the unknown kind {number}")))?;
                let too_long = || Error::new(format!("has an array of {count} values, which the file can't hold"));
                match element.size() {
                    Some(size) => {
                        let bytes = count.checked_mul(size as u64).ok_or_else(too_long)?;
                        self.skip(bytes).map(drop).ok_or_else(too_long)
                    }
                    // Every text or array takes bytes of its own, so the file's end bounds this loop.
                    None => (0..count).try_for_each(|_| self.step_over(element, depth + 1)),
                }
            }
        }
    }

    fn row(&mut self) -> Result<Row> {
        let outside = outlives;
        let count = self.u32().ok_or_else(outside)?;
        if !(1..=MOST_DIMENSIONS).contains(&count) {
            return Err(Error::new(format!("has {count} dimensions, which is not from 1 to {MOST_DIMENSIONS}")));
        }
        let dimensions = (0..count).map(|_| self.u64()).collect::<Option<Vec<_>>>().ok_or_else(outside)?;
        if dimensions.contains(&0) {
            return Err(Error::new("has a dimension of 0"));
        }
        let type_number = self.u32().ok_or_else(outside)?;
        let offset = self.u64().ok_or_else(outside)?;
        Ok(Row { dimensions, type_number, offset })
    }
}

/// For the rest of a sentence about a key or tensor.
fn outlives() -> Error {
    Error::new("goes on after the file's end; the file is cut short or damaged")
}

fn cut_short(what: &str) -> Error {
    Error::new(format!("the file ends before {what} does; it is cut short or damaged"))
}
