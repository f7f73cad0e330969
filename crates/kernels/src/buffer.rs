//! Memory that crosses crate edges: weights, activations, pages of keys and values.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

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

/// Asks the system to back a large vector, not yet written, by pages of 2 MiB: with those of 4 KiB, whoever reads memory
/// once waits for translations of addresses as well. Nothing depends on the answer.
fn ask_for_huge_pages(lines: &mut Vec<Line>) {
    #[cfg(target_os = "linux")]
    if lines.capacity() * size_of::<Line>() >= 4 << 20 {
        use std::ffi::{c_int, c_void};
        unsafe extern "C" {
            fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int;
        }
        const HUGE: usize = 2 << 20;
        const MADV_HUGEPAGE: c_int = 14;
        let bytes = lines.spare_capacity_mut();
        let (at, len) = (bytes.as_mut_ptr(), size_of_val(bytes));
        let skip = at.addr().next_multiple_of(HUGE) - at.addr();
        let len = (len - skip) / HUGE * HUGE;
        // SAFETY: whole pages inside the vector's own memory; the advice changes no byte of it.
        unsafe { madvise(at.byte_add(skip).cast(), len, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = lines;
}

/// A 64-byte aligned run of numbers, zero at first.
#[derive(Clone)]
pub struct Buffer<T: Element = f32> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer<T> {
        let count = Self::lines_for(len);
        let mut lines = Vec::with_capacity(count);
        ask_for_huge_pages(&mut lines);
        lines.resize(count, Line([0; 64]));
        Buffer { lines, len, element: PhantomData }
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Buffer<T> {
        let mut buffer = Buffer::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Changes the length; elements gained are zero or left from an earlier, longer use.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(Self::lines_for(len), Line([0; 64]));
        self.len = len;
    }

    /// Length that it can have without asking for more memory.
    pub fn capacity(&self) -> usize {
        self.lines.capacity() * (size_of::<Line>() / size_of::<T>())
    }

    /// Where the bytes are.
    pub fn place(&self) -> Place {
        Place::Host
    }

    fn lines_for(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(size_of::<Line>())
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `lines_for` made room for `len` elements; a line is aligned for T, and all its bytes are initialised
        // and valid as T (sealed).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Element> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer::zeros(0)
    }
}
