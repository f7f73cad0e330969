//! Memory for what lasts as long as a model: many matrices, each too small for pages of 2 MiB, in regions that have them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::buffer::{HUGE, advise_huge};

/// Bytes of a region; what is not used of it is never touched, and takes no memory.
const SLAB: usize = 64 << 20;
/// Between two pieces, so that they share no line.
const LINE: usize = 64;

struct Slab {
    /// What the allocator gave.
    memory: NonNull<u8>,
    layout: Layout,
    /// Its first page of 2 MiB.
    first: NonNull<u8>,
}

// SAFETY: the memory belongs to the slab, and pieces of it do not overlap.
unsafe impl Send for Slab {}
// SAFETY: as above; the slab itself only frees it.
unsafe impl Sync for Slab {}

impl Slab {
    fn new() -> Slab {
        // Of the alignment that the system's allocator has anyway: it would clear a more aligned block by writing to it.
        let layout = Layout::from_size_align(SLAB + HUGE, 16).expect("a layout of constants");
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let skip = memory.addr().get().next_multiple_of(HUGE) - memory.addr().get();
        // SAFETY: skip < HUGE, and SLAB bytes follow inside the block.
        let first = unsafe { memory.add(skip) };
        // SAFETY: whole pages inside the block, which is ours.
        unsafe { advise_huge(first.as_ptr(), SLAB) };
        Slab { memory, layout, first }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; every piece holds the slab, so none is left.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// Some bytes of a slab, zero at first, aligned to a line, and nobody else's.
pub(crate) struct Piece {
    slab: Arc<Slab>,
    at: usize,
}

impl Piece {
    /// `len` zeros; none where a slab is too small for them.
    pub fn new(len: usize) -> Option<Piece> {
        static LATEST: Mutex<Option<(Arc<Slab>, usize)>> = Mutex::new(None);
        if len > SLAB / 4 {
            return None;
        }
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        // A slab that nobody holds any more has been written to: another one is zero.
        let usable = latest.take().filter(|(slab, used)| used + len <= SLAB && Arc::strong_count(slab) > 1);
        let (slab, at) = usable.unwrap_or_else(|| (Arc::new(Slab::new()), 0));
        *latest = Some((Arc::clone(&slab), (at + len).next_multiple_of(LINE)));
        Some(Piece { slab, at })
    }

    /// Where it begins.
    pub fn start(&self) -> *mut u8 {
        // SAFETY: `new` cut it out of the slab's SLAB bytes.
        unsafe { self.slab.first.add(self.at) }.as_ptr()
    }
}
