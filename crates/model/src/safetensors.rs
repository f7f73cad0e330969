//! The safetensors format: a length, a JSON header, and the tensors' bytes; read through a memory map, written as a
//! stream. Format: <https://github.com/huggingface/safetensors#format>.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use minke_kernels::half::bf16_from_f32;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::dequantize::DataType;
use crate::error::{Error, Result, quoted};
use crate::mmap::Map;

/// The format's own limit on its header, in bytes.
const HEADER_LIMIT: u64 = 100_000_000;

/// An open safetensors file: where its tensors lie, all offsets checked.
#[derive(Debug)]
pub struct SafeTensors {
    map: Map,
    data_start: usize,
    tensors: BTreeMap<String, Entry>,
}

/// What the header says of one tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// One tensor as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Type of the elements, or the format's name of one that isn't read.
    pub dtype: std::result::Result<DataType, &'a str>,
    /// Row-major shape.
    pub shape: &'a [usize],
    /// Little-endian elements.
    pub bytes: &'a [u8],
}

impl SafeTensors {
    /// Opens and checks the file at `path`: every tensor lies inside the file, none overlap, no byte is left over.
    ///
    /// # Errors
    /// A sentence without the path, naming the tensor at fault.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Map::open(path)?)
    }

    /// The file's bytes.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Checks a file's bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(map: Map) -> Result<Self> {
        let (data_start, tensors) = read_header(&map)?;
        Ok(Self { map, data_start, tensors })
    }

    /// The tensor called `name`, if the file has it.
    pub fn get(&self, name: &str) -> Option<Stored<'_>> {
        let entry = self.tensors.get(name)?;
        let [begin, end] = entry.data_offsets;
        Some(Stored {
            dtype: data_type(&entry.dtype).ok_or(&entry.dtype),
            shape: &entry.shape,
            bytes: &self.map[self.data_start + begin..self.data_start + end],
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Checks the header of a whole file's `bytes`; returns where data starts and what each tensor is.
fn read_header(bytes: &[u8]) -> Result<(usize, BTreeMap<String, Entry>)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::new("the file is shorter than a safetensors header; download it again"));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT || length > rest.len() as u64 {
        return Err(Error::new(format!(
            "the file says that its header has {length} bytes, but {} follow; it is cut short or not a safetensors file",
            rest.len()
        )));
    }
    let (header, data) = rest.split_at(length as usize);
    let header: Header = serde_json::from_slice(header)
        .map_err(|e| Error::new(format!("the header is not as the safetensors format says ({e})")))?;

    let mut spans = Vec::with_capacity(header.0.len());
    for (name, entry) in &header.0 {
        let [begin, end] = entry.data_offsets;
        let tensor = || format!("tensor {}", quoted(name));
        if begin > end || end > data.len() {
            return Err(Error::new(format!(
                "{} has bytes {begin} to {end}, but the file has {} bytes of data; it is cut short or damaged",
                tensor(),
                data.len()
            )));
        }
        let elements = entry.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        // Types that aren't read here (integers, eight-bit floats) may lie in a file beside ones that are.
        if let Some(dtype) = data_type(&entry.dtype)
            && elements.and_then(|n| dtype.bytes(n)) != Some(end - begin)
        {
            return Err(Error::new(format!(
                "{} of type {} and shape {:?} can't have {} bytes; the file is damaged",
                tensor(),
                entry.dtype,
                entry.shape,
                end - begin
            )));
        }
        spans.push((begin, end, name));
    }
    spans.sort();
    let mut covered = 0;
    for (begin, end, name) in spans {
        if begin != covered {
            return Err(Error::new(format!(
                "tensor {} begins at byte {begin} of the data, where byte {covered} was expected; tensors may neither \
                 overlap nor leave holes",
                quoted(name)
            )));
        }
        covered = end;
    }
    if covered != data.len() {
        return Err(Error::new(format!(
            "the file has {} bytes of data, but its header accounts for {covered}; it is damaged",
            data.len()
        )));
    }
    Ok((8 + length as usize, header.0))
}

/// The type that a header calls `name`, if it is one that is read.
fn data_type(name: &str) -> Option<DataType> {
    [DataType::F32, DataType::F16, DataType::Bf16, DataType::F8E4m3].into_iter().find(|t| t.name() == name)
}

/// The header's tensors; a name that comes twice is refused, which a plain map would hide.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        continue;
                    }
                    match tensors.entry(name) {
                        btree_map::Entry::Vacant(place) => {
                            let entry = map.next_value();
                            let named = |e| A::Error::custom(format!("tensor {}: {e}", quoted(place.key())));
                            let entry = entry.map_err(named)?;
                            place.insert(entry)
                        }
                        btree_map::Entry::Occupied(place) => {
                            let twice = format!("tensor {} comes twice", quoted(place.key()));
                            return Err(A::Error::custom(twice));
                        }
                    };
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Writes `tensors` (name, row-major shape, elements) to `out` as one safetensors file of type `dtype`.
///
/// # Errors
/// What `out` says, and `InvalidInput` for a type other than F32 and BF16 or a tensor whose shape and elements differ.
pub fn write(out: &mut impl Write, dtype: DataType, tensors: &[(String, Vec<usize>, &[f32])]) -> io::Result<()> {
    if let Some((name, shape, elements)) =
        tensors.iter().find(|(_, shape, x)| shape.iter().product::<usize>() != x.len())
    {
        return Err(invalid(format!("{name} of shape {shape:?} has {} elements", elements.len())));
    }
    let shapes: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    write_each(out, dtype, &shapes, |i| Ok(Cow::Borrowed(tensors[i].2)))
}

/// As [`write()`], with the elements of tensor i asked for when they are written: only one tensor's need be in memory.
///
/// # Errors
/// What `out` or `elements` says, and `InvalidInput` as above.
pub fn write_each<'a>(
    out: &mut impl Write,
    dtype: DataType,
    tensors: &[(String, Vec<usize>)],
    mut elements: impl FnMut(usize) -> io::Result<Cow<'a, [f32]>>,
) -> io::Result<()> {
    let size = match dtype {
        DataType::F32 => 4,
        DataType::Bf16 => 2,
        other => return Err(invalid(format!("tensors are written as F32 or BF16, not {}", other.name()))),
    };
    let mut header = serde_json::Map::new();
    // transformers refuses files that don't say who laid them out.
    header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * size;
        let entry = Entry { dtype: dtype.name().into(), shape: shape.clone(), data_offsets: [offset, end] };
        if header.insert(name.clone(), serde_json::to_value(entry)?).is_some() {
            return Err(invalid(format!("{name} comes twice")));
        }
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // Padding keeps the data aligned for readers that map it.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let elements = elements(i)?;
        if elements.len() != shape.iter().product::<usize>() {
            return Err(invalid(format!("{name} of shape {shape:?} has {} elements", elements.len())));
        }
        match dtype {
            DataType::Bf16 => {
                for x in &*elements {
                    out.write_all(&bf16_from_f32(*x).to_le_bytes())?;
                }
            }
            _ => {
                for x in &*elements {
                    out.write_all(&x.to_le_bytes())?;
                }
            }
        }
    }
    Ok(())
}

fn invalid(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}

#[cfg(test)]
mod tests {
    use minke_kernels::half::f32_from_bf16;

    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn what_is_written_reads_back() {
        let (a, b) = ([1.0f32, -2.5, 3.25, 0.1, 5.0, 6.0], [7.0f32]);
        let tensors = [("a".to_string(), vec![2, 3], &a[..]), ("b".to_string(), vec![1], &b[..])];
        for dtype in [DataType::F32, DataType::Bf16] {
            let mut bytes = Vec::new();
            write(&mut bytes, dtype, &tensors).unwrap();
            let (start, entries) = read_header(&bytes).unwrap();
            assert_eq!(start % 8, 0);
            let read = |name: &str| {
                let entry = &entries[name];
                let [begin, end] = entry.data_offsets;
                (entry.shape.clone(), data_type(&entry.dtype).unwrap().to_f32(&bytes[start + begin..start + end]))
            };
            let rounded = a.map(|x| match dtype {
                DataType::Bf16 => f32_from_bf16(bf16_from_f32(x)),
                _ => x,
            });
            assert_eq!(read("a"), (vec![2, 3], rounded.to_vec()));
            assert_eq!(read("b"), (vec![1], b.to_vec()));
        }
        assert!(write(&mut Vec::new(), DataType::F16, &tensors).is_err());
        assert!(write(&mut Vec::new(), DataType::F32, &[("a".into(), vec![2], &a[..])]).is_err());
    }

    #[test]
    fn offsets_that_leave_the_file_overlap_or_wrap_are_refused() {
        let entry = |shape: &str, begin: u64, end: u64| {
            format!("{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
        };
        for (header, sentence) in [
            (format!("{{\"a\":{}}}", entry("[3]", 0, 12)), "tensor \"a\" has bytes 0 to 12, but the file has 8"),
            (format!("{{\"a\":{}}}", entry("[2]", 8, 0)), "tensor \"a\" has bytes 8 to 0"),
            (format!("{{\"a\":{}}}", entry("[1]", 0, 8)), "can't have 8 bytes"),
            (format!("{{\"a\":{}}}", entry("[4611686018427387905,4]", 0, 4)), "can't have 4 bytes"),
            (format!("{{\"a\":{}}}", entry("[1]", 0, 4)), "its header accounts for 4"),
            (format!("{{\"a\":{}}}", entry("[1]", 4, 8)), "tensor \"a\" begins at byte 4"),
            (format!("{{\"a\":{},\"b\":{}}}", entry("[2]", 0, 8), entry("[1]", 4, 8)), "tensor \"b\" begins at byte 4"),
            (format!("{{\"a\":{},\"a\":{}}}", entry("[1]", 0, 4), entry("[1]", 4, 8)), "tensor \"a\" comes twice"),
            ("[]".to_string(), "not as the safetensors format says"),
        ] {
            let error = read_header(&file(&header, &[0; 8])).unwrap_err().to_string();
            assert!(error.contains(sentence), "{header}: {error}");
        }
        let mut huge = file("{}", &[]);
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read_header(&huge).is_err());
        assert!(read_header(&huge[..5]).is_err());
        assert!(read_header(&file("{}", &[])).is_ok());
    }
}
