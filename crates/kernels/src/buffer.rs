//! Memory that crosses crate edges: weights, activations, pages of keys and values.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::slab::Piece;

/// Where a buffer's bytes are. A GPU would be another place; nothing outside this crate looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Main memory.
    Host,
}

/// What a buffer may hold: plain numbers, for which all-zero bytes are a value.
pub trait Element: Copy + Send + Sync + sealed::Plain + 'static {}
impl Element for f32 {}
impl Element for u16 {}
impl Element for u8 {}
impl Element for i8 {}

mod sealed {
    /// No padding, any bytes valid, alignment at most that of a line.
    pub trait Plain {}
    impl Plain for f32 {}
    impl Plain for u16 {}
    impl Plain for u8 {}
    impl Plain for i8 {}
}

/// One cache line, so that a buffer starts where every vector load likes it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A large page.
pub(crate) const HUGE: usize = 2 << 20;

/// Asks the system for pages of 2 MiB: with those of 4 KiB, whoever reads memory once waits for translations of addresses as
/// well. Nothing depends on the answer.
///
/// # Safety
/// The memory is the caller's, from a multiple of [`HUGE`] on.
pub(crate) unsafe fn advise_huge(at: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{c_int, c_void};
        unsafe extern "C" {
            fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int;
        }
        const MADV_HUGEPAGE: c_int = 14;
        // SAFETY: the caller's memory; the advice changes no byte of it.
        unsafe { madvise(at.cast(), len, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, len);
}

/// The same for a large vector, not yet written.
fn ask_for_huge_pages(lines: &mut Vec<Line>) {
    let bytes = lines.spare_capacity_mut();
    let (at, len) = (bytes.as_mut_ptr(), size_of_val(bytes));
    if len >= 2 * HUGE {
        let skip = at.addr().next_multiple_of(HUGE) - at.addr();
        // SAFETY: whole pages inside the vector's own memory.
        unsafe { advise_huge(at.byte_add(skip).cast(), (len - skip) / HUGE * HUGE) };
    }
}

/// A 64-byte aligned run of numbers, zero at first.
pub struct Buffer<T: Element = f32> {
    memory: Memory,
    len: usize,
    element: PhantomData<T>,
}

enum Memory {
    Lines(Vec<Line>),
    Piece(Piece),
    Part(Part),
}

/// Bytes that several buffers read, such as a file mapped into memory: always the same ones at the same place.
pub type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of shared bytes.
struct Part {
    start: NonNull<u8>,
    /// What holds them.
    _memory: Shared,
}

// SAFETY: the bytes are only read, and what holds them is Send and Sync.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

impl<T: Element> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer<T> {
        let count = Self::lines_for(len);
        let mut lines = Vec::with_capacity(count);
        ask_for_huge_pages(&mut lines);
        lines.resize(count, Line([0; 64]));
        Buffer { memory: Memory::Lines(lines), len, element: PhantomData }
    }

    /// `len` zeros that are kept as long as a model, beside others such.
    pub fn lasting(len: usize) -> Buffer<T> {
        Buffer { memory: Memory::Piece(Piece::new(len * size_of::<T>())), len, element: PhantomData }
    }

    /// `len` numbers that lie in `memory` from byte `at` on, in this machine's byte order; none where it ends before
    /// them, or they begin inside a cache line. Whoever writes to the buffer gets a copy.
    pub(crate) fn shared(memory: &Shared, at: usize, len: usize) -> Option<Buffer<T>> {
        let end = len.checked_mul(size_of::<T>())?.checked_add(at)?;
        let bytes = (**memory).as_ref().get(at..end)?;
        let start = NonNull::from(bytes).cast::<u8>();
        let part = Part { start, _memory: Arc::clone(memory) };
        let aligned = start.addr().get().is_multiple_of(align_of::<Line>());
        aligned.then_some(Buffer { memory: Memory::Part(part), len, element: PhantomData })
    }

    /// The numbers' bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: numbers without padding (sealed).
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val::<[T]>(self)) }
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Buffer<T> {
        let mut buffer = Buffer::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Changes the length; elements gained are zero or left from an earlier, longer use.
    ///
    /// # Panics
    /// If it is one of those that last, which keep their length.
    pub fn resize(&mut self, len: usize) {
        let Memory::Lines(lines) = &mut self.memory else { panic!("a lasting buffer keeps its length") };
        let count = Self::lines_for(len);
        // Never fewer of them, or what is gained next time would be cleared for nothing.
        if lines.len() < count {
            // Buffers are large and grow seldom; memory that a vector takes ahead would stay theirs.
            lines.reserve_exact(count - lines.len());
            lines.resize(count, Line([0; 64]));
        }
        self.len = len;
    }

    /// The same memory for `len` numbers of another kind, of any value.
    ///
    /// # Panics
    /// If they do not fit, or the buffer is one of those that last.
    pub(crate) fn recast<U: Element>(self, len: usize) -> Buffer<U> {
        let Memory::Lines(lines) = &self.memory else { panic!("a lasting buffer keeps its kind") };
        assert!(Buffer::<U>::lines_for(len) <= lines.len(), "{len} numbers in {} lines", lines.len());
        Buffer { memory: self.memory, len, element: PhantomData }
    }

    /// Length that it can have without asking for more memory.
    pub fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Lines(lines) => lines.capacity() * (size_of::<Line>() / size_of::<T>()),
            Memory::Piece(_) | Memory::Part(_) => self.len,
        }
    }

    /// Where the bytes are.
    pub fn place(&self) -> Place {
        Place::Host
    }

    fn lines_for(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(size_of::<Line>())
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Buffer<T> {
        Buffer::from_slice(self)
    }
}

impl AsRef<[u8]> for Buffer<u8> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        let start = match &self.memory {
            Memory::Lines(lines) => lines.as_ptr().cast::<T>(),
            Memory::Piece(piece) => piece.start().cast_const().cast(),
            Memory::Part(part) => part.start.as_ptr().cast_const().cast(),
        };
        // SAFETY: `lines_for`, or `lasting`, made room for `len` elements, or `shared` found them in bytes that nobody can
        // change or take away while the part holds them; all are aligned for T, and all their bytes are initialised and
        // valid as T (sealed).
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if let Memory::Part(_) = &self.memory {
            *self = Buffer::from_slice(self);
        }
        let start = match &mut self.memory {
            Memory::Lines(lines) => lines.as_mut_ptr().cast::<T>(),
            Memory::Piece(piece) => piece.start().cast(),
            Memory::Part(_) => unreachable!("copied above"),
        };
        // SAFETY: as in `deref`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

impl<T: Element> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer::zeros(0)
    }
}
