//! Quantised weights: integers of a few bits with scales, kept in the bits that they have on disk.
//!
//! A row of a weight is cut into blocks, and a block into groups of 16 or 32 elements. An element is
//! `scale * (code - offset)`, or `scale * code` plus or less a minimum, by the formats of llama.cpp
//! (`ggml-common.h`). Sixteen rows, the outputs of one vector of AVX-512, are interleaved into a strip. Codes, scales and
//! scales of scales are three streams, each read from end to end, which is what memory is quickest at:
//!
//! ```text
//! codes   for each 32 inputs of a strip, planes of bits: byte 64 v + 4 r + i has bits of row r, inputs 4 j + i, for some j
//! scales  for each 32 inputs of a strip, sixteen of each group; then sixteen minima of each group
//! supers  for each 256 inputs of a strip, sixteen scales of scales; then sixteen of minima
//! ```

use crate::blocks::chunks_mut_3;
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::half::f32_from_f16;

/// Rows of a weight that are interleaved.
pub(crate) const STRIP: usize = 16;
/// Inputs whose codes lie together, and activations that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Inputs of a block whose scales have a scale.
pub(crate) const SUPER: usize = 256;

/// What the nibbles of IQ4_NL stand for (`kvalues_iq4nl` in `ggml-common.h`).
pub const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The same plus 128.
pub(crate) const UNEVEN_CODES: [u8; 16] = {
    let (mut codes, mut i) = ([0; 16], 0);
    while i < 16 {
        codes[i] = (UNEVEN[i] as u8) ^ 128;
        i += 1;
    }
    codes
};

/// A way of storing weights in a few bits.
#[allow(missing_docs, reason = "the names are llama.cpp's, and the table below says what they are")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Iq4Nl,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// How the scales of a format are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// In half precision, one for each block of 32.
    Half,
    /// A signed byte for each group, times a scale in half precision for each 256.
    Bytes,
    /// The low half of a byte, the minimum being the high half, for each group, and the same for each 256.
    Nibbles,
}

/// Where bits of codes lie: see [`Layout::planes`].
type Planes = [(usize, usize, usize, usize); 2];

/// What a format is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bits of a code.
    pub bits: usize,
    /// Whether codes are places in a table of uneven steps.
    pub uneven: bool,
    /// Elements that share a scale.
    pub group: usize,
    /// How it is stored.
    pub scales: Scales,
    /// What each value's integer is less than its code.
    pub offset: i32,
    /// Whether groups have a minimum: added where scales are [`Scales::Half`], taken away where it is itself scaled.
    pub minima: bool,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 11] = [
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Iq4Nl,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
    ];

    /// The name that files and people use.
    pub fn name(self) -> &'static str {
        match self {
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q4_1 => "Q4_1",
            Format::Q5_0 => "Q5_0",
            Format::Q5_1 => "Q5_1",
            Format::Iq4Nl => "IQ4_NL",
            Format::Q2K => "Q2_K",
            Format::Q3K => "Q3_K",
            Format::Q4K => "Q4_K",
            Format::Q5K => "Q5_K",
            Format::Q6K => "Q6_K",
        }
    }

    /// What it is made of.
    pub const fn layout(self) -> Layout {
        use Scales::*;
        let (bits, group, scales, offset, minima) = match self {
            Format::Q8_0 => (8, 32, Half, 128, false),
            Format::Q4_0 => (4, 32, Half, 8, false),
            Format::Q4_1 => (4, 32, Half, 0, true),
            Format::Q5_0 => (5, 32, Half, 16, false),
            Format::Q5_1 => (5, 32, Half, 0, true),
            Format::Iq4Nl => (4, 32, Half, 128, false),
            Format::Q2K => (2, 16, Nibbles, 0, true),
            Format::Q3K => (3, 16, Bytes, 4, false),
            Format::Q4K => (4, 32, Bytes, 0, true),
            Format::Q5K => (5, 32, Bytes, 0, true),
            Format::Q6K => (6, 16, Bytes, 32, false),
        };
        Layout { bits, uneven: matches!(self, Format::Iq4Nl), group, scales, offset, minima }
    }

    /// Elements of a block: a row has a whole number of them.
    pub const fn block(self) -> usize {
        match self.layout().scales {
            Scales::Half => BLOCK,
            Scales::Bytes | Scales::Nibbles => SUPER,
        }
    }
}

impl Layout {
    /// Bytes of a strip's codes for 32 inputs.
    pub(crate) const fn code_bytes(self) -> usize {
        STRIP * BLOCK * self.bits / 8
    }

    /// Bytes of a strip's scales and minima for 32 inputs.
    pub(crate) const fn scale_bytes(self) -> usize {
        let scales = match self.scales {
            Scales::Half => 2 * STRIP,
            Scales::Bytes | Scales::Nibbles => BLOCK / self.group * STRIP,
        };
        if self.minima && !matches!(self.scales, Scales::Nibbles) { 2 * scales } else { scales }
    }

    /// Bytes of a strip's scales of scales for 256 inputs.
    pub(crate) const fn super_bytes(self) -> usize {
        match self.scales {
            Scales::Half => 0,
            Scales::Bytes | Scales::Nibbles => 2 * STRIP * (1 + self.minima as usize),
        }
    }

    /// Where codes lie: for `j` = input / 4 of 32, each plane's (vector of 64 bytes, shift inside a byte, bits, shift
    /// inside the code). There are one or two planes; the second is empty where there is one.
    pub(crate) const fn planes(self, j: usize) -> Planes {
        let low = match self.bits {
            8 => (j, 0, 8, 0),
            4..8 => (j % 4, j / 4 * 4, 4, 0),
            _ => (j / 4, j % 4 * 2, 2, 0),
        };
        let high = match self.bits {
            5 => (4, j, 1, 4),
            6 => (4 + j / 4, j % 4 * 2, 2, 4),
            3 => (2, j, 1, 2),
            _ => (0, 0, 0, 0),
        };
        [low, high]
    }

    /// [`Layout::planes`] of every four inputs, and how many there are of each.
    fn all_planes(self) -> ([Planes; BLOCK / 4], usize) {
        let planes: [Planes; BLOCK / 4] = std::array::from_fn(|j| self.planes(j));
        (planes, if planes[0][1].2 == 0 { 1 } else { 2 })
    }
}

/// One row of a weight as its format stores it, before it is interleaved with others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// A code for each input.
    pub codes: Vec<u8>,
    /// For each block the scale and the minimum, in half precision: of its elements, or of its groups' own.
    pub halves: Vec<[u16; 2]>,
    /// For each group its scale (the bits of a signed byte) and its minimum, where scales have a scale.
    pub groups: Vec<[u8; 2]>,
}

impl Row {
    /// Room for `inputs` elements of `format`, all zero.
    pub fn new(format: Format, inputs: usize) -> Row {
        let layout = format.layout();
        let groups = if layout.scales == Scales::Half { 0 } else { inputs / layout.group };
        Row { codes: vec![0; inputs], halves: vec![[0; 2]; inputs / format.block()], groups: vec![[0; 2]; groups] }
    }

    /// The numbers it stands for: each product, sum and difference rounded by itself, as gguf-py has them.
    pub fn to_f32(&self, format: Format, out: &mut [f32]) {
        let layout = format.layout();
        for (i, (group, out)) in self.codes.chunks(layout.group).zip(out.chunks_mut(layout.group)).enumerate() {
            let [scale, minimum] = self.halves[i * layout.group / format.block()].map(f32_from_f16);
            let (scale, minimum) = match layout.scales {
                Scales::Half => (scale, minimum),
                _ => {
                    let [s, m] = self.groups[i];
                    (scale * f32::from(s as i8), -(minimum * f32::from(m)))
                }
            };
            for (&code, out) in group.iter().zip(out) {
                let code = if layout.uneven { UNEVEN_CODES[usize::from(code)] } else { code };
                *out = (i32::from(code) - layout.offset) as f32 * scale;
                if layout.minima {
                    *out += minimum;
                }
            }
        }
    }
}

/// Rows interleaved by sixteen.
#[derive(Clone)]
pub(crate) struct Strips {
    pub format: Format,
    inputs: usize,
    codes: Buffer<u8>,
    scales: Buffer<u8>,
    supers: Buffer<u8>,
}

/// A strip from some block on, as kernels read it.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    pub codes: *const u8,
    pub scales: *const u8,
    pub supers: *const u8,
    /// How far on those of the next strip are.
    distances: [usize; 3],
}

impl Strip {
    /// The strip that is so many further on.
    pub fn nth(self, index: usize) -> Strip {
        let [codes, scales, supers] = self.distances.map(|distance| index * distance);
        Strip {
            codes: self.codes.wrapping_add(codes),
            scales: self.scales.wrapping_add(scales),
            supers: self.supers.wrapping_add(supers),
            ..self
        }
    }

    /// The same without its first `blocks`, a multiple of eight.
    pub fn after(self, layout: Layout, blocks: usize) -> Strip {
        Strip {
            codes: self.codes.wrapping_add(blocks * layout.code_bytes()),
            scales: self.scales.wrapping_add(blocks * layout.scale_bytes()),
            supers: self.supers.wrapping_add(blocks / (SUPER / BLOCK) * layout.super_bytes()),
            ..self
        }
    }
}

impl Strips {
    /// Interleaves rows of `inputs` elements; `read` fills row i, of `outputs`.
    pub fn pack(
        cpu: &Cpu,
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &(dyn Fn(usize, &mut Row) + Sync),
    ) -> Strips {
        assert!(inputs.is_multiple_of(format.block()), "{inputs} inputs are not whole blocks of {}", format.block());
        let strips = outputs.div_ceil(STRIP);
        let lengths = lengths(format.layout(), inputs);
        let [mut codes, mut scales, mut supers] = lengths.map(|len| Buffer::lasting(strips * len));
        if !codes.is_empty() {
            let [a, b, c] = lengths;
            chunks_mut_3(
                cpu.pool(),
                (&mut codes, a),
                (&mut scales, b),
                (&mut supers, c),
                |i, codes, scales, supers| {
                    let mut row = Row::new(format, inputs);
                    for r in 0..STRIP.min(outputs - i * STRIP) {
                        read(i * STRIP + r, &mut row);
                        put_row(format, &row, r, codes, scales, supers);
                    }
                },
            );
        }
        Strips { format, inputs, codes, scales, supers }
    }

    /// Rows that are interleaved already, in streams of [`Strips::lengths`].
    pub fn of(format: Format, inputs: usize, [codes, scales, supers]: [Buffer<u8>; 3]) -> Strips {
        Strips { format, inputs, codes, scales, supers }
    }

    /// Bytes of the three streams.
    pub fn lengths(format: Format, outputs: usize, inputs: usize) -> [usize; 3] {
        lengths(format.layout(), inputs).map(|len| outputs.div_ceil(STRIP) * len)
    }

    /// The three streams.
    pub fn streams(&self) -> [&[u8]; 3] {
        [&self.codes, &self.scales, &self.supers]
    }

    /// Strip `index` from input `start` on, a multiple of a block; empty past the last.
    pub fn strip(&self, index: usize, start: usize) -> Strip {
        assert!(start.is_multiple_of(self.format.block()) && start <= self.inputs, "a strip from input {start}");
        let layout = self.format.layout();
        let [codes, scales, supers] = lengths(layout, self.inputs);
        let block = start / BLOCK;
        Strip {
            codes: self.codes[index * codes..][..codes][block * layout.code_bytes()..].as_ptr(),
            scales: self.scales[index * scales..][..scales][block * layout.scale_bytes()..].as_ptr(),
            supers: self.supers[index * supers..][..supers][block / 8 * layout.super_bytes()..].as_ptr(),
            distances: [codes, scales, supers],
        }
    }

    /// Row `row` again.
    pub fn row(&self, row: usize, out: &mut Row) {
        let layout = self.format.layout();
        let [codes, scales, supers] = lengths(layout, self.inputs);
        let (index, r) = (row / STRIP, row % STRIP);
        let codes = &self.codes[index * codes..][..codes];
        let scales = &self.scales[index * scales..][..scales];
        let supers = &self.supers[index * supers..][..supers];
        let (planes, count) = layout.all_planes();
        let blocks = codes.chunks_exact(layout.code_bytes());
        for (codes, block) in out.codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
            for (codes, planes) in codes.as_chunks_mut::<4>().0.iter_mut().zip(&planes) {
                let mut word = 0;
                for &(vector, shift, bits, up) in &planes[..count] {
                    let mask = ((1_u32 << bits) - 1) * 0x0101_0101;
                    let place = &block[64 * vector + 4 * r..][..4];
                    word |= (u32::from_le_bytes([place[0], place[1], place[2], place[3]]) >> shift & mask) << up;
                }
                *codes = word.to_le_bytes();
            }
        }
        let (halves, stride) = match layout.scales {
            Scales::Half => (scales, layout.scale_bytes()),
            _ => (supers, layout.super_bytes()),
        };
        let half = |at: usize| u16::from_le_bytes([halves[at + 2 * r], halves[at + 2 * r + 1]]);
        for (i, [scale, minimum]) in out.halves.iter_mut().enumerate() {
            *scale = half(i * stride);
            *minimum = if layout.minima { half(i * stride + 2 * STRIP) } else { 0 };
        }
        let per_block = BLOCK / layout.group;
        for (i, [scale, minimum]) in out.groups.iter_mut().enumerate() {
            let at = i / per_block * layout.scale_bytes() + i % per_block * STRIP + r;
            (*scale, *minimum) = match layout.scales {
                Scales::Nibbles => (scales[at] & 15, scales[at] >> 4),
                _ => (scales[at], if layout.minima { scales[at + per_block * STRIP] } else { 0 }),
            };
        }
    }
}

/// Bytes that a strip of `inputs` has of codes, of scales and of scales of scales.
fn lengths(layout: Layout, inputs: usize) -> [usize; 3] {
    let blocks = inputs / BLOCK;
    [blocks * layout.code_bytes(), blocks * layout.scale_bytes(), blocks / 8 * layout.super_bytes()]
}

/// The code of row `r` and input `i` in a strip's 32 inputs.
pub(crate) fn code_at(layout: Layout, block: &[u8], r: usize, i: usize) -> u8 {
    let bits = |(vector, shift, bits, up): (usize, usize, usize, usize)| {
        let byte = u32::from(block[64 * vector + 4 * r + i % 4]);
        (byte >> shift & ((1 << bits) - 1)) << up
    };
    let [low, high] = layout.planes(i / 4);
    (bits(low) | bits(high)) as u8
}

fn put_row(format: Format, row: &Row, r: usize, codes: &mut [u8], scales: &mut [u8], supers: &mut [u8]) {
    let layout = format.layout();
    let (planes, count) = layout.all_planes();
    for (codes, block) in row.codes.as_chunks::<BLOCK>().0.iter().zip(codes.chunks_exact_mut(layout.code_bytes())) {
        for (codes, planes) in codes.as_chunks::<4>().0.iter().zip(&planes) {
            // Four bytes at a time; no bit leaves its byte but those that the mask takes away.
            let codes = u32::from_le_bytes(*codes);
            for &(vector, shift, bits, up) in &planes[..count] {
                let mask = ((1_u32 << bits) - 1) * 0x0101_0101;
                let place = &mut block[64 * vector + 4 * r..][..4];
                let word = u32::from_le_bytes([place[0], place[1], place[2], place[3]]) | (codes >> up & mask) << shift;
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    let mut put_half = |at: usize, half: u16| {
        let to = if layout.scales == Scales::Half { &mut *scales } else { &mut *supers };
        to[at + 2 * r..][..2].copy_from_slice(&half.to_le_bytes());
    };
    let stride = if layout.scales == Scales::Half { layout.scale_bytes() } else { layout.super_bytes() };
    for (i, &[scale, minimum]) in row.halves.iter().enumerate() {
        put_half(i * stride, scale);
        if layout.minima {
            put_half(i * stride + 2 * STRIP, minimum);
        }
    }
    let per_block = BLOCK / layout.group;
    for (i, &[scale, minimum]) in row.groups.iter().enumerate() {
        let at = i / per_block * layout.scale_bytes() + i % per_block * STRIP + r;
        match layout.scales {
            Scales::Nibbles => scales[at] = scale | minimum << 4,
            _ => {
                scales[at] = scale;
                if layout.minima {
                    scales[at + per_block * STRIP] = minimum;
                }
            }
        }
    }
}
