//! Keys and values of past tokens, in pages of 32 positions.

use std::ops::Range;

use crate::arch::{PAGE, PANEL, prefetch};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::half::f32_from_bf16;
use crate::pool::Shareable;
use crate::view::View;

/// Positions in a page.
pub const PAGE_POSITIONS: usize = PAGE;

/// Numbers below which a write does not wake the other threads.
const SMALL: usize = 1 << 14;

/// How keys and values are kept. Sums over them are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// As they were computed: what training needs.
    #[default]
    F32,
    /// Rounded to bf16, as are the queries and weights that they meet.
    Bf16,
    /// 8 bits, a scale for each position and head: the largest number becomes 127. Queries and weights are rounded to bf16.
    Int8,
}

impl KvDtype {
    /// All of them, widest first.
    pub const ALL: [KvDtype; 3] = [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8];

    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            KvDtype::F32 => "f32",
            KvDtype::Bf16 => "bf16",
            KvDtype::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for KvDtype {
    type Err = String;
    fn from_str(name: &str) -> Result<KvDtype, String> {
        let named = KvDtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        named.ok_or_else(|| format!("{name:?} is no way to keep keys and values; choose f32, bf16 or int8"))
    }
}

/// Sizes of what a model remembers of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Blocks of the model.
    pub layers: usize,
    /// Key-value heads of a block; 1 for latent attention.
    pub kv_heads: usize,
    /// Width of a head's key.
    pub key_width: usize,
    /// Width of a head's value.
    pub value_width: usize,
    /// How its numbers are kept.
    pub dtype: KvDtype,
}

impl KvLayout {
    /// The same sizes, kept otherwise.
    pub fn kept_as(self, dtype: KvDtype) -> KvLayout {
        KvLayout { dtype, ..self }
    }

    /// Numbers of a position's value, padded so that whole vectors (f32) or panels may be read.
    pub(crate) fn value_stride(&self) -> usize {
        self.value_width.next_multiple_of(if self.dtype == KvDtype::F32 { 16 } else { PANEL })
    }
    /// Numbers of a position's key, padded to whole pairs where they are multiplied in pairs.
    pub(crate) fn key_stride(&self) -> usize {
        self.key_width.next_multiple_of(if self.dtype == KvDtype::F32 { 1 } else { 2 })
    }
    fn key_len(&self) -> usize {
        PAGE * self.key_stride()
    }
    fn value_len(&self) -> usize {
        PAGE * self.value_stride()
    }
    fn head_len(&self) -> usize {
        self.key_len() + self.value_len()
    }
    /// Where number d of the key at a slot is among a head's keys in a page.
    fn key_at(&self, slot: usize, d: usize) -> usize {
        match self.dtype {
            KvDtype::F32 => d * PAGE + slot,
            KvDtype::Bf16 | KvDtype::Int8 => (d / 2 * PAGE + slot) * 2 + d % 2,
        }
    }
    /// Where number d of the value at a slot is.
    fn value_at(&self, slot: usize, d: usize) -> usize {
        match self.dtype {
            KvDtype::F32 => slot * self.value_stride() + d,
            KvDtype::Bf16 | KvDtype::Int8 => d / PANEL * PANEL * PAGE + (slot / 2 * PANEL + d % PANEL) * 2 + slot % 2,
        }
    }
    /// Bytes of one page over all layers.
    pub fn page_bytes(&self) -> usize {
        let bytes = match self.dtype {
            KvDtype::F32 => 4 * self.head_len(),
            KvDtype::Bf16 => 2 * self.head_len(),
            KvDtype::Int8 => self.head_len() + 2 * PAGE * size_of::<f32>(),
        };
        self.layers * self.kv_heads * bytes
    }
}

/// Consecutive tokens of one sequence in a batch, and the pages that hold its past and will hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Their rows in the batch.
    pub rows: Range<usize>,
    /// Position in the sequence of the first of them.
    pub start: usize,
    /// The sequence's pages from position 0, enough for `start + rows.len()` positions.
    pub pages: Vec<u32>,
    /// Where the past is computed in the same batch, so that gradients can go back through it: the index of the span that
    /// is all of it. Several spans may go on from one; whole pages of it are theirs too, and [`KvPages::write`] writes the
    /// rest, the start of their own first page.
    pub past: Option<usize>,
}

impl Span {
    /// Rows of `past`, in a batch of `spans`, that are on the first page of this span's own.
    fn rest_of_past(&self, spans: &[Span]) -> Option<Range<usize>> {
        let past = &spans[self.past?];
        assert_eq!((past.start, past.rows.len()), (0, self.start), "the past is all of another span");
        let count = self.start % PAGE;
        (count > 0).then(|| past.rows.end - count..past.rows.end)
    }
}

/// Pages of keys and values, numbered from 0.
///
/// Per layer and head a page holds keys and values, each as the right operand of a product. In f32: keys `[key_width][32]`,
/// values `[32][value_width padded to 16]`. In bf16 and int8, in panels of pairs: keys `[key_width / 2][32][2]`, values
/// `[value_width / 32][16][32][2]`, where the last index is an odd or even position.
pub struct KvPages {
    layout: KvLayout,
    slabs: Vec<Slab>,
    pages: usize,
}

/// Some pages in one piece of memory, so that it may be of huge pages. Of each layer and head, the keys of all its pages and
/// then the values of all: who walks a sequence whose pages follow each other reads on and on.
enum Slab {
    F32(Buffer<f32>),
    Bf16(Buffer<u16>),
    /// Numbers, and a scale for each position, in the same order.
    Int8(Buffer<i8>, Buffer<f32>),
}

/// Bytes of a slab, unless one page is larger.
const SLAB: usize = 16 << 20;

/// One layer and head of a page.
#[derive(Clone, Copy)]
pub(crate) enum Head<'a> {
    F32 { keys: &'a [f32], values: &'a [f32] },
    Bf16 { keys: &'a [u16], values: &'a [u16] },
    Int8 { keys: &'a [i8], values: &'a [i8], key_scales: &'a [f32], value_scales: &'a [f32] },
}

/// Half of a head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Keys,
    Values,
}

impl Head<'_> {
    /// Asks for the keys or values to be brought near.
    pub fn prefetch(self, side: Side) {
        let keys_wanted = side == Side::Keys;
        match self {
            Head::F32 { keys, values } => prefetch(if keys_wanted { keys } else { values }),
            Head::Bf16 { keys, values } => prefetch(if keys_wanted { keys } else { values }),
            Head::Int8 { keys, values, .. } => prefetch(if keys_wanted { keys } else { values }),
        }
    }
}

/// Where a page's part of one layer and head is.
#[derive(Clone, Copy)]
struct At {
    slab: usize,
    keys: usize,
    values: usize,
    key_scales: usize,
    value_scales: usize,
}

/// Copies each (from, to, length) from one place of `data` to another.
fn copy_inside<T: Copy>(data: &mut [T], moves: [(usize, usize, usize); 2]) {
    moves.into_iter().for_each(|(from, to, len)| data.copy_within(from..from + len, to));
}

fn copy<T: Copy>(from: &[T], to: &mut [T], moves: [(usize, usize, usize); 2]) {
    moves.into_iter().for_each(|(at, to_at, len)| to[to_at..][..len].copy_from_slice(&from[at..][..len]));
}

/// Rows of a batch that go to one page.
#[derive(Clone, Copy)]
struct Part {
    page: u32,
    row: usize,
    slot: usize,
    count: usize,
}

impl KvPages {
    /// `pages` empty pages.
    pub fn new(layout: KvLayout, pages: usize) -> KvPages {
        let mut kv = KvPages { layout, slabs: Vec::new(), pages: 0 };
        kv.grow(pages);
        kv
    }

    /// Pages of a slab.
    fn per_slab(&self) -> usize {
        (SLAB / self.layout.page_bytes().max(1)).clamp(1, 64)
    }

    /// Makes sure that there are at least `pages`.
    pub fn grow(&mut self, pages: usize) {
        let heads = self.layout.layers * self.per_slab() * self.layout.kv_heads;
        let len = heads * self.layout.head_len();
        while self.slabs.len() * self.per_slab() < pages {
            self.slabs.push(match self.layout.dtype {
                KvDtype::F32 => Slab::F32(Buffer::zeros(len)),
                KvDtype::Bf16 => Slab::Bf16(Buffer::zeros(len)),
                KvDtype::Int8 => Slab::Int8(Buffer::zeros(len), Buffer::zeros(heads * 2 * PAGE)),
            });
        }
        self.pages = self.pages.max(pages);
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Whether there is no page at all.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// The sizes that it was made for.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// The slab of a page; and there, where a side of it begins in a layer and head, in whole pages of that side.
    fn locate(&self, layer: usize, page: u32, head: usize) -> At {
        let (page, per_slab) = (page as usize, self.per_slab());
        assert!(page < self.pages, "page {page} of {}", self.pages);
        let KvLayout { layers, kv_heads, .. } = self.layout;
        assert!(layer < layers && head < kv_heads, "layer {layer} of {layers}, head {head} of {kv_heads}");
        let before = (layer * kv_heads + head) * per_slab;
        let inside = page % per_slab;
        let keys = before * self.layout.head_len() + inside * self.layout.key_len();
        let values =
            before * self.layout.head_len() + per_slab * self.layout.key_len() + inside * self.layout.value_len();
        let key_scales = (2 * before + inside) * PAGE;
        At { slab: page / per_slab, keys, values, key_scales, value_scales: key_scales + per_slab * PAGE }
    }

    /// Copies page `from` to page `to`: the start of a sequence that goes on differently.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        assert!(from != to, "page {from} is copied to itself");
        let (key_len, value_len) = (self.layout.key_len(), self.layout.value_len());
        for layer in 0..self.layout.layers {
            for head in 0..self.layout.kv_heads {
                let (from, to) = (self.locate(layer, from, head), self.locate(layer, to, head));
                let numbers = [(from.keys, to.keys, key_len), (from.values, to.values, value_len)];
                let scales = [(from.key_scales, to.key_scales, PAGE), (from.value_scales, to.value_scales, PAGE)];
                if from.slab == to.slab {
                    match &mut self.slabs[from.slab] {
                        Slab::F32(data) => copy_inside(data, numbers),
                        Slab::Bf16(data) => copy_inside(data, numbers),
                        Slab::Int8(data, of) => {
                            copy_inside(data, numbers);
                            copy_inside(of, scales);
                        }
                    }
                    continue;
                }
                match self.slabs.get_disjoint_mut([from.slab, to.slab]) {
                    Ok([Slab::F32(from), Slab::F32(to)]) => copy(from, to, numbers),
                    Ok([Slab::Bf16(from), Slab::Bf16(to)]) => copy(from, to, numbers),
                    Ok([Slab::Int8(from, from_scales), Slab::Int8(to, to_scales)]) => {
                        copy(from, to, numbers);
                        copy(from_scales, to_scales, scales);
                    }
                    _ => unreachable!("two slabs of the layout's dtype"),
                }
            }
        }
    }

    /// Writes the keys and values of a layer for all rows of `spans`: `keys` is rows by kv_heads * key_width, `values` rows
    /// by kv_heads * value_width. A page's later positions are zero until they are written.
    pub fn write(&mut self, cpu: &Cpu, layer: usize, spans: &[Span], keys: View<'_>, values: View<'_>) {
        let layout = self.layout;
        let KvLayout { kv_heads, key_width, value_width, .. } = layout;
        assert_eq!(
            (keys.cols(), values.cols()),
            (kv_heads * key_width, kv_heads * value_width),
            "widths of keys and values"
        );
        let mut parts = Vec::new();
        for span in spans {
            if let Some(rows) = span.rest_of_past(spans) {
                let page = span.pages[span.start / PAGE];
                parts.push(Part { page, row: rows.start, slot: 0, count: rows.len() });
            }
            let mut row = span.rows.start;
            while row < span.rows.end {
                let position = span.start + row - span.rows.start;
                let (page, slot) = (span.pages[position / PAGE], position % PAGE);
                let count = (PAGE - slot).min(span.rows.end - row);
                parts.push(Part { page, row, slot, count });
                row += count;
            }
        }
        // A stable sort: rows of one page stay in their order.
        parts.sort_by_key(|part| part.page);
        let pages: Vec<&[Part]> = parts.chunk_by(|a, b| a.page == b.page).collect();
        let slabs: Vec<Data> = self.slabs.iter_mut().map(Slab::data).collect();
        let kv = &*self;
        let run = |i: usize| {
            for (part, head) in pages[i].iter().flat_map(|part| (0..kv_heads).map(move |head| (part, head))) {
                let at = kv.locate(layer, part.page, head);
                let key_rows = keys.cols_from(head * key_width, key_width);
                let value_rows = values.cols_from(head * value_width, value_width);
                // SAFETY: `locate` checked that page, layer and head exist, so they lie in their slab; this task alone has
                // the page, and `self` is borrowed for writing.
                unsafe { part.write(cpu, &layout, at, &slabs[at.slab], key_rows, value_rows) };
            }
        };
        if keys.rows() * (keys.cols() + values.cols()) < SMALL {
            (0..pages.len()).for_each(run);
        } else {
            cpu.pool().run(pages.len(), &run);
        }
    }

    /// Key of one head at a position of a page, for whoever looks into what was remembered.
    pub fn key(&self, layer: usize, page: u32, head: usize, slot: usize) -> Vec<f32> {
        assert!(slot < PAGE, "position {slot} of a page");
        let (layout, at) = (&self.layout, self.locate(layer, page, head));
        self.read(at.slab, at.key_scales + slot, (0..layout.key_width).map(|d| at.keys + layout.key_at(slot, d)))
    }

    /// Value of one head at a position of a page.
    pub fn value(&self, layer: usize, page: u32, head: usize, slot: usize) -> Vec<f32> {
        assert!(slot < PAGE, "position {slot} of a page");
        let (layout, at) = (&self.layout, self.locate(layer, page, head));
        self.read(
            at.slab,
            at.value_scales + slot,
            (0..layout.value_width).map(|d| at.values + layout.value_at(slot, d)),
        )
    }

    fn read(&self, slab: usize, scale: usize, places: impl Iterator<Item = usize>) -> Vec<f32> {
        match &self.slabs[slab] {
            Slab::F32(data) => places.map(|at| data[at]).collect(),
            Slab::Bf16(data) => places.map(|at| f32_from_bf16(data[at])).collect(),
            Slab::Int8(data, scales) => places.map(|at| f32::from(data[at]) * scales[scale]).collect(),
        }
    }

    /// What a page holds of one layer and head.
    pub(crate) fn head(&self, layer: usize, page: u32, head: usize) -> Head<'_> {
        let at = self.locate(layer, page, head);
        let (key_len, value_len) = (self.layout.key_len(), self.layout.value_len());
        match &self.slabs[at.slab] {
            Slab::F32(data) => Head::F32 { keys: &data[at.keys..][..key_len], values: &data[at.values..][..value_len] },
            Slab::Bf16(data) => {
                Head::Bf16 { keys: &data[at.keys..][..key_len], values: &data[at.values..][..value_len] }
            }
            Slab::Int8(data, scales) => Head::Int8 {
                keys: &data[at.keys..][..key_len],
                values: &data[at.values..][..value_len],
                key_scales: &scales[at.key_scales..][..PAGE],
                value_scales: &scales[at.value_scales..][..PAGE],
            },
        }
    }

    /// Keys `[key_width][32]` and values `[32][value_stride]` of pages in f32.
    pub(crate) fn head_f32(&self, layer: usize, page: u32, head: usize) -> (&[f32], &[f32]) {
        let Head::F32 { keys, values } = self.head(layer, page, head) else {
            panic!("gradients need keys and values in f32, not {}", self.layout.dtype.name())
        };
        (keys, values)
    }
}

/// A slab's memory, of which each task of a write has its own pages.
enum Data {
    F32(Shareable<f32>),
    Bf16(Shareable<u16>),
    Int8(Shareable<i8>, Shareable<f32>),
}

impl Slab {
    fn data(&mut self) -> Data {
        match self {
            Slab::F32(data) => Data::F32(Shareable(data.as_mut_ptr())),
            Slab::Bf16(data) => Data::Bf16(Shareable(data.as_mut_ptr())),
            Slab::Int8(data, scales) => Data::Int8(Shareable(data.as_mut_ptr()), Shareable(scales.as_mut_ptr())),
        }
    }
}

impl Part {
    /// Writes the rows of one head, after clearing the page where they are its first.
    ///
    /// # Safety
    /// `at` is a page's place in the slab that `data` points to, and nobody else uses it meanwhile.
    unsafe fn write(
        &self,
        cpu: &Cpu,
        layout: &KvLayout,
        at: At,
        data: &Data,
        key_rows: View<'_>,
        value_rows: View<'_>,
    ) {
        let (key_len, value_len) = (layout.key_len(), layout.value_len());
        let rows = || (self.slot..self.slot + self.count).zip(self.row..);
        let fresh = self.slot == 0;
        match data {
            Data::F32(data) => {
                // SAFETY: the caller's; `at` has so many keys and values, apart from each other.
                let (keys, values) = unsafe {
                    (piece(data.get(), at.keys, key_len, fresh), piece(data.get(), at.values, value_len, fresh))
                };
                for (slot, row) in rows() {
                    let key = key_rows.row(row)[..layout.key_width].iter();
                    key.enumerate().for_each(|(d, &x)| keys[layout.key_at(slot, d)] = x);
                    let value = &value_rows.row(row)[..layout.value_width];
                    values[layout.value_at(slot, 0)..][..value.len()].copy_from_slice(value);
                }
            }
            Data::Bf16(data) => {
                // SAFETY: as above.
                let (keys, values) = unsafe {
                    (piece(data.get(), at.keys, key_len, fresh), piece(data.get(), at.values, value_len, fresh))
                };
                for (slot, row) in rows() {
                    let (key, value) =
                        (&key_rows.row(row)[..layout.key_width], &value_rows.row(row)[..layout.value_width]);
                    rounded(cpu, key, |d, x| keys[layout.key_at(slot, d)] = x);
                    rounded(cpu, value, |d, x| values[layout.value_at(slot, d)] = x);
                }
            }
            Data::Int8(data, scales) => {
                // SAFETY: as above.
                let (keys, values) = unsafe {
                    (piece(data.get(), at.keys, key_len, fresh), piece(data.get(), at.values, value_len, fresh))
                };
                // SAFETY: as above, of scales.
                let (key_scales, value_scales) = unsafe {
                    (piece(scales.get(), at.key_scales, PAGE, fresh), piece(scales.get(), at.value_scales, PAGE, fresh))
                };
                for (slot, row) in rows() {
                    let (key, value) =
                        (&key_rows.row(row)[..layout.key_width], &value_rows.row(row)[..layout.value_width]);
                    key_scales[slot] = quantised(key, |d, x| keys[layout.key_at(slot, d)] = x);
                    value_scales[slot] = quantised(value, |d, x| values[layout.value_at(slot, d)] = x);
                }
            }
        }
    }
}

/// `len` numbers from `at` on, cleared if asked.
///
/// # Safety
/// They exist, and nobody else uses them while the result lives.
unsafe fn piece<'a, T: Copy + Default>(data: *mut T, at: usize, len: usize, clear: bool) -> &'a mut [T] {
    // SAFETY: the caller's.
    let piece = unsafe { std::slice::from_raw_parts_mut(data.add(at), len) };
    if clear {
        piece.fill(T::default());
    }
    piece
}

/// Calls `put` with each number of x rounded to bf16.
fn rounded(cpu: &Cpu, x: &[f32], mut put: impl FnMut(usize, u16)) {
    let mut out = [0; 64];
    for (i, x) in x.chunks(out.len()).enumerate() {
        // SAFETY: `out` is as long as a chunk at least.
        unsafe { (cpu.kernels.to_bf16)(x.len(), x.as_ptr(), out.as_mut_ptr()) };
        out[..x.len()].iter().enumerate().for_each(|(d, &x)| put(i * out.len() + d, x));
    }
}

/// Calls `put` with each number of x in units of a 127th of the largest, and returns that unit.
fn quantised(x: &[f32], mut put: impl FnMut(usize, i8)) -> f32 {
    let largest = x.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let per_unit = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    // Adding it leaves no bits for a fraction, which is how to round where no instruction may be assumed.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    x.iter().enumerate().for_each(|(d, &x)| put(d, (x * per_unit + WHOLE - WHOLE) as i8));
    largest / 127.0
}
