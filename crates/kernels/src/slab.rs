//! Memory for what lasts as long as a model: many matrices, each too small for pages of 2 MiB, in regions that have them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::buffer::{HUGE, advise_huge};

/// Bytes of a region that several share; what is not used of it is never touched, and takes no memory.
const SLAB: usize = 64 << 20;
/// Between two pieces, so that they share no line.
const LINE: usize = 64;

struct Slab {
    /// What the allocator gave.
    memory: NonNull<u8>,
    layout: Layout,
    /// The first page of 2 MiB in it; bytes from there on.
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the slab, and pieces of it do not overlap.
unsafe impl Send for Slab {}
// SAFETY: as above; the slab itself only frees it.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(len: usize) -> Slab {
        // Of the alignment that the system's allocator has anyway: it would clear a more aligned block by writing to it.
        let size = len.checked_add(HUGE).expect("no memory is so large");
        let layout = Layout::from_size_align(size, 16).expect("no memory is so large");
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let skip = memory.addr().get().next_multiple_of(HUGE) - memory.addr().get();
        // SAFETY: skip < HUGE, and `len` bytes follow inside the block.
        let first = unsafe { memory.add(skip) };
        // SAFETY: whole pages inside the block, which is ours.
        unsafe { advise_huge(first.as_ptr(), len / HUGE * HUGE) };
        Slab { memory, layout, first, len }
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
    /// `len` zeros, which are memory of the system's until they are written to.
    pub fn new(len: usize) -> Piece {
        static LATEST: Mutex<Option<(Arc<Slab>, usize)>> = Mutex::new(None);
        if len > SLAB / 4 {
            return Piece { slab: Arc::new(Slab::new(len)), at: 0 };
        }
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        // A slab that nobody holds any more has been written to: another one is zero.
        let usable = latest.take().filter(|(slab, used)| used + len <= slab.len && Arc::strong_count(slab) > 1);
        let (slab, at) = usable.unwrap_or_else(|| (Arc::new(Slab::new(SLAB)), 0));
        *latest = Some((Arc::clone(&slab), (at + len).next_multiple_of(LINE)));
        Piece { slab, at }
    }

    /// Where it begins.
    pub fn start(&self) -> *mut u8 {
        // SAFETY: `new` cut it out of the slab's `len` bytes.
        unsafe { self.slab.first.add(self.at) }.as_ptr()
    }
}
