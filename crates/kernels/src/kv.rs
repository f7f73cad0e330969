//! Keys and values of past tokens, in pages of 32 positions.

use std::ops::Range;

use crate::arch::{PAGE, PANEL, prefetch};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
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
    fn head_len(&self) -> usize {
        self.key_len() + PAGE * self.value_stride()
    }
    /// Where number d of the key at a slot is within its head.
    fn key_at(&self, slot: usize, d: usize) -> usize {
        match self.dtype {
            KvDtype::F32 => d * PAGE + slot,
            KvDtype::Bf16 | KvDtype::Int8 => (d / 2 * PAGE + slot) * 2 + d % 2,
        }
    }
    /// Where number d of the value at a slot is within its head.
    fn value_at(&self, slot: usize, d: usize) -> usize {
        self.key_len()
            + match self.dtype {
                KvDtype::F32 => slot * self.value_stride() + d,
                KvDtype::Bf16 | KvDtype::Int8 => {
                    d / PANEL * PANEL * PAGE + (slot / 2 * PANEL + d % PANEL) * 2 + slot % 2
                }
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
}

/// Pages of keys and values, numbered from 0.
///
/// Per layer and head a page holds its keys and behind them its values, each as the right operand of a product. In f32: keys
/// `[key_width][32]`, values `[32][value_width padded to 16]`. In bf16 and int8, in panels of pairs: keys
/// `[key_width / 2][32][2]`, values `[value_width / 32][16][32][2]`, where the last index is an odd or even position.
pub struct KvPages {
    layout: KvLayout,
    slabs: Vec<Slab>,
    pages: usize,
}

/// Some pages in one piece of memory, so that it may be of huge pages: `[layers][pages of a slab][kv_heads]` of keys and values.
enum Slab {
    F32(Buffer<f32>),
    Bf16(Buffer<u16>),
    /// Behind the numbers, their scales: `[layers][pages of a slab][kv_heads][2][32]`, of keys and of values.
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

/// Rows of a batch that go to one page, and where its heads of the layer are.
#[derive(Clone, Copy)]
struct Part {
    page: u32,
    row: usize,
    slot: usize,
    count: usize,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    F32(*mut f32),
    Bf16(*mut u16),
    Int8(*mut i8, *mut f32),
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

    /// The slab of a page, and the index there of its first head in a layer.
    fn locate(&self, layer: usize, page: u32) -> (usize, usize) {
        let (page, per_slab) = (page as usize, self.per_slab());
        assert!(page < self.pages, "page {page} of {}", self.pages);
        assert!(layer < self.layout.layers, "layer {layer} of {}", self.layout.layers);
        (page / per_slab, (layer * per_slab + page % per_slab) * self.layout.kv_heads)
    }

    /// Copies page `from` to page `to`: the start of a sequence that goes on differently.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        fn copy<T: Copy>(from: &[T], from_at: usize, to: &mut [T], to_at: usize, len: usize) {
            to[to_at * len..][..len].copy_from_slice(&from[from_at * len..][..len]);
        }
        fn copy_inside<T: Copy>(data: &mut [T], from_at: usize, to_at: usize, len: usize) {
            data.copy_within(from_at * len..(from_at + 1) * len, to_at * len);
        }
        let (kv_heads, head_len) = (self.layout.kv_heads, self.layout.head_len());
        let (len, scales) = (kv_heads * head_len, kv_heads * 2 * PAGE);
        for layer in 0..self.layout.layers {
            let ((from, i), (to, j)) = (self.locate(layer, from), self.locate(layer, to));
            let (i, j) = (i / kv_heads, j / kv_heads);
            if from == to {
                match &mut self.slabs[from] {
                    Slab::F32(data) => copy_inside(data, i, j, len),
                    Slab::Bf16(data) => copy_inside(data, i, j, len),
                    Slab::Int8(data, of) => {
                        copy_inside(data, i, j, len);
                        copy_inside(of, i, j, scales);
                    }
                }
                continue;
            }
            match self.slabs.get_disjoint_mut([from, to]) {
                Ok([Slab::F32(from), Slab::F32(to)]) => copy(from, i, to, j, len),
                Ok([Slab::Bf16(from), Slab::Bf16(to)]) => copy(from, i, to, j, len),
                Ok([Slab::Int8(from, from_scales), Slab::Int8(to, to_scales)]) => {
                    copy(from, i, to, j, len);
                    copy(from_scales, i, to_scales, j, scales);
                }
                _ => unreachable!("two slabs of the layout's dtype"),
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
            let mut row = span.rows.start;
            while row < span.rows.end {
                let position = span.start + row - span.rows.start;
                let (page, slot) = (span.pages[position / PAGE], position % PAGE);
                let count = (PAGE - slot).min(span.rows.end - row);
                parts.push(Part { page, row, slot, count, place: self.place(layer, page) });
                row += count;
            }
        }
        // A stable sort: rows of one page stay in their order.
        parts.sort_by_key(|part| part.page);
        let mut pages: Vec<&mut [Part]> = parts.chunk_by_mut(|a, b| a.page == b.page).collect();
        let start = Shareable(pages.as_mut_ptr());
        let run = |i: usize| {
            // SAFETY: i is below the number of pages, and each has one task.
            for part in unsafe { &**start.get().add(i) } {
                // SAFETY: `place` checked that the page's heads of this layer lie in its slab, which `self` borrows for
                // itself, and a page is written by one task.
                unsafe { part.write(cpu, &layout, keys, values) };
            }
        };
        if keys.rows() * (keys.cols() + values.cols()) < SMALL {
            (0..pages.len()).for_each(run);
        } else {
            cpu.pool().run(pages.len(), &run);
        }
    }

    /// Where the heads of a layer are in a page.
    fn place(&mut self, layer: usize, page: u32) -> Place {
        let (slab, head) = self.locate(layer, page);
        let KvLayout { kv_heads, .. } = self.layout;
        let (at, len) = (head * self.layout.head_len(), kv_heads * self.layout.head_len());
        match &mut self.slabs[slab] {
            Slab::F32(data) => Place::F32(data[at..][..len].as_mut_ptr()),
            Slab::Bf16(data) => Place::Bf16(data[at..][..len].as_mut_ptr()),
            Slab::Int8(data, scales) => Place::Int8(
                data[at..][..len].as_mut_ptr(),
                scales[head * 2 * PAGE..][..kv_heads * 2 * PAGE].as_mut_ptr(),
            ),
        }
    }

    /// Key of one head at a position of a page, for whoever looks into what was remembered.
    pub fn key(&self, layer: usize, page: u32, head: usize, slot: usize) -> Vec<f32> {
        let layout = &self.layout;
        self.read(layer, page, head, slot, 0, (0..layout.key_width).map(|d| layout.key_at(slot, d)))
    }

    /// Value of one head at a position of a page.
    pub fn value(&self, layer: usize, page: u32, head: usize, slot: usize) -> Vec<f32> {
        let layout = &self.layout;
        self.read(layer, page, head, slot, 1, (0..layout.value_width).map(|d| layout.value_at(slot, d)))
    }

    fn read(
        &self,
        layer: usize,
        page: u32,
        head: usize,
        slot: usize,
        side: usize,
        at: impl Iterator<Item = usize>,
    ) -> Vec<f32> {
        assert!(slot < PAGE, "position {slot} of a page");
        let (slab, first) = self.locate(layer, page);
        let head = first + head;
        let at = at.map(|at| head * self.layout.head_len() + at);
        match &self.slabs[slab] {
            Slab::F32(data) => at.map(|at| data[at]).collect(),
            Slab::Bf16(data) => at.map(|at| f32::from_bits(u32::from(data[at]) << 16)).collect(),
            Slab::Int8(data, scales) => {
                let scale = scales[(2 * head + side) * PAGE + slot];
                at.map(|at| f32::from(data[at]) * scale).collect()
            }
        }
    }

    /// What a page holds of one layer and head.
    pub(crate) fn head(&self, layer: usize, page: u32, head: usize) -> Head<'_> {
        let (slab, first) = self.locate(layer, page);
        let head = first + head;
        let (len, key_len) = (self.layout.head_len(), self.layout.key_len());
        match &self.slabs[slab] {
            Slab::F32(data) => {
                let (keys, values) = data[head * len..][..len].split_at(key_len);
                Head::F32 { keys, values }
            }
            Slab::Bf16(data) => {
                let (keys, values) = data[head * len..][..len].split_at(key_len);
                Head::Bf16 { keys, values }
            }
            Slab::Int8(data, scales) => {
                let (keys, values) = data[head * len..][..len].split_at(key_len);
                let (key_scales, value_scales) = scales[head * 2 * PAGE..][..2 * PAGE].split_at(PAGE);
                Head::Int8 { keys, values, key_scales, value_scales }
            }
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

impl Part {
    /// Writes the rows, after clearing the page where they are its first.
    ///
    /// # Safety
    /// `place` points to all heads of the layer, and nobody else uses them meanwhile.
    unsafe fn write(&self, cpu: &Cpu, layout: &KvLayout, keys: View<'_>, values: View<'_>) {
        let &Part { row, slot, count, place, .. } = self;
        let &KvLayout { kv_heads, key_width, value_width, .. } = layout;
        let len = layout.head_len();
        for head in 0..kv_heads {
            let of = |row: usize| {
                (&keys.row(row)[head * key_width..][..key_width], &values.row(row)[head * value_width..][..value_width])
            };
            let slots = (slot..slot + count).zip(row..);
            match place {
                Place::F32(data) => {
                    // SAFETY: the caller's; head is one of the layer's.
                    let data = unsafe { std::slice::from_raw_parts_mut(data.add(head * len), len) };
                    if slot == 0 {
                        data.fill(0.0);
                    }
                    for (slot, row) in slots {
                        let (key, value) = of(row);
                        key.iter().enumerate().for_each(|(d, &x)| data[layout.key_at(slot, d)] = x);
                        data[layout.value_at(slot, 0)..][..value_width].copy_from_slice(value);
                    }
                }
                Place::Bf16(data) => {
                    // SAFETY: as above.
                    let data = unsafe { std::slice::from_raw_parts_mut(data.add(head * len), len) };
                    if slot == 0 {
                        data.fill(0);
                    }
                    for (slot, row) in slots {
                        let (key, value) = of(row);
                        rounded(cpu, key, |d, x| data[layout.key_at(slot, d)] = x);
                        rounded(cpu, value, |d, x| data[layout.value_at(slot, d)] = x);
                    }
                }
                Place::Int8(data, scales) => {
                    // SAFETY: as above.
                    let data = unsafe { std::slice::from_raw_parts_mut(data.add(head * len), len) };
                    // SAFETY: as above.
                    let scales = unsafe { std::slice::from_raw_parts_mut(scales.add(head * 2 * PAGE), 2 * PAGE) };
                    if slot == 0 {
                        data.fill(0);
                        scales.fill(0.0);
                    }
                    for (slot, row) in slots {
                        let (key, value) = of(row);
                        scales[slot] = quantised(key, |d, x| data[layout.key_at(slot, d)] = x);
                        scales[PAGE + slot] = quantised(value, |d, x| data[layout.value_at(slot, d)] = x);
                    }
                }
            }
        }
    }
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
