//! Keys and values of past tokens, in pages of 32 positions.

use std::ops::Range;

use crate::arch::PAGE;
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::view::View;

/// Positions in a page, which is also the block in which attention walks the keys.
pub const PAGE_POSITIONS: usize = PAGE;

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
}

impl KvLayout {
    /// Distance between a page's values, padded so that whole vectors may be read.
    pub(crate) fn value_stride(&self) -> usize {
        self.value_width.next_multiple_of(16)
    }
    fn head_len(&self) -> usize {
        PAGE * (self.key_width + self.value_stride())
    }
    fn layer_len(&self) -> usize {
        self.kv_heads * self.head_len()
    }
    /// Bytes of one page over all layers.
    pub fn page_bytes(&self) -> usize {
        self.layers * self.layer_len() * size_of::<f32>()
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
/// Per layer and head a page holds its keys transposed, `[key_width][32]`, which is the form a product reads, and behind
/// them its values, `[32][value_width padded to 16]`.
pub struct KvPages {
    layout: KvLayout,
    pages: Vec<Buffer>,
}

impl KvPages {
    /// `pages` empty pages.
    pub fn new(layout: KvLayout, pages: usize) -> KvPages {
        let mut kv = KvPages { layout, pages: Vec::new() };
        kv.grow(pages);
        kv
    }

    /// Makes sure that there are at least `pages`.
    pub fn grow(&mut self, pages: usize) {
        let len = self.layout.layers * self.layout.layer_len();
        while self.pages.len() < pages {
            self.pages.push(Buffer::zeros(len));
        }
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there is no page at all.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The sizes that it was made for.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Copies page `from` to page `to`: the start of a sequence that goes on differently.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        let [from, to] = self
            .pages
            .get_disjoint_mut([from as usize, to as usize])
            .unwrap_or_else(|_| panic!("page {from} or {to} does not exist, or they are the same"));
        to.copy_from_slice(from);
    }

    /// Writes the keys and values of a layer for all rows of `spans`: `keys` is rows by kv_heads * key_width, `values` rows
    /// by kv_heads * value_width. A page's later positions are zero until they are written.
    pub fn write(&mut self, cpu: &Cpu, layer: usize, spans: &[Span], keys: View<'_>, values: View<'_>) {
        let layout = self.layout;
        let KvLayout { kv_heads, key_width, value_width, .. } = layout;
        assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
        assert_eq!(
            (keys.cols(), values.cols()),
            (kv_heads * key_width, kv_heads * value_width),
            "widths of keys and values"
        );
        // For each page, the rows that go there: (first row, first slot, how many).
        let mut parts: Vec<Vec<(usize, usize, usize)>> = vec![Vec::new(); self.pages.len()];
        for span in spans {
            let mut row = span.rows.start;
            while row < span.rows.end {
                let position = span.start + row - span.rows.start;
                let slot = position % PAGE;
                let count = (PAGE - slot).min(span.rows.end - row);
                parts[span.pages[position / PAGE] as usize].push((row, slot, count));
                row += count;
            }
        }
        cpu.pool().chunks_mut(&mut self.pages, 1, |p, page| {
            let data = &mut page[0][layer * layout.layer_len()..][..layout.layer_len()];
            for &(row, slot, count) in &parts[p] {
                if slot == 0 {
                    data.fill(0.0);
                }
                for (head, data) in data.chunks_exact_mut(layout.head_len()).enumerate() {
                    let (head_keys, head_values) = data.split_at_mut(PAGE * key_width);
                    for i in 0..count {
                        let key = &keys.row(row + i)[head * key_width..][..key_width];
                        for (d, &x) in key.iter().enumerate() {
                            head_keys[d * PAGE + slot + i] = x;
                        }
                        let value = &values.row(row + i)[head * value_width..][..value_width];
                        head_values[(slot + i) * layout.value_stride()..][..value_width].copy_from_slice(value);
                    }
                }
            }
        });
    }

    /// Key of one head at a position of a page, for whoever looks into what was remembered.
    pub fn key(&self, layer: usize, page: u32, head: usize, slot: usize) -> Vec<f32> {
        assert!(slot < PAGE, "position {slot} of a page");
        self.head(layer, page, head).0.chunks_exact(PAGE).map(|row| row[slot]).collect()
    }

    /// Keys `[key_width][32]` and values `[32][value_stride]` of one layer and head in a page.
    pub(crate) fn head(&self, layer: usize, page: u32, head: usize) -> (&[f32], &[f32]) {
        let at = layer * self.layout.layer_len() + head * self.layout.head_len();
        self.pages[page as usize][at..][..self.layout.head_len()].split_at(PAGE * self.layout.key_width)
    }
}
