//! Matrices inside larger slices: a head of a row, a transposed operand, a part of a buffer.

/// A matrix of `rows` by `cols` whose element (i, j) is at `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix that fills `data`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> View<'a> {
        assert_eq!(data.len(), rows * cols, "a view of {rows} by {cols} over {} elements", data.len());
        View { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Columns `col..col + cols` of a row-major matrix whose rows are `row_stride` apart.
    pub fn columns(data: &'a [f32], rows: usize, row_stride: usize, col: usize, cols: usize) -> View<'a> {
        assert!(col + cols <= row_stride, "columns {col}..{} of a row of {row_stride}", col + cols);
        assert!(rows == 0 || data.len() >= (rows - 1) * row_stride + col + cols, "a view past the end of its slice");
        let data = if rows == 0 { &data[..0] } else { &data[col..] };
        View { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> View<'a> {
        let View { data, rows, cols, row_stride, col_stride } = self;
        View { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// Rows `start..start + rows`.
    pub fn rows_from(self, start: usize, rows: usize) -> View<'a> {
        assert!(start + rows <= self.rows, "rows {start}..{} of {}", start + rows, self.rows);
        let data = if rows == 0 { &self.data[..0] } else { &self.data[start * self.row_stride..] };
        View { data, rows, ..self }
    }

    /// Columns `start..start + cols`.
    pub fn cols_from(self, start: usize, cols: usize) -> View<'a> {
        assert!(start + cols <= self.cols, "columns {start}..{} of {}", start + cols, self.cols);
        let data = if self.rows * cols == 0 { &self.data[..0] } else { &self.data[start * self.col_stride..] };
        View { data, cols, ..self }
    }

    /// `rows` rows, each of them the one row of this matrix.
    pub fn repeat_row(self, rows: usize) -> View<'a> {
        assert_eq!(self.rows, 1, "one row is repeated");
        View { rows, row_stride: 0, ..self }
    }

    /// Whether it is the same part of the same numbers.
    pub(crate) fn is(&self, other: &View<'_>) -> bool {
        let shape = |view: &View<'_>| (view.rows, view.cols, view.row_stride, view.col_stride);
        std::ptr::eq(self.data.as_ptr(), other.data.as_ptr()) && shape(self) == shape(other)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of neighbouring rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Distance between neighbouring elements of a row.
    pub fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// Row i, which must be contiguous.
    pub fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows && self.col_stride == 1, "row {i} of a view");
        &self.data[i * self.row_stride..][..self.cols]
    }

    /// All elements, which must be row-major without gaps.
    pub fn contiguous(&self) -> &'a [f32] {
        assert!(self.row_stride == self.cols && self.col_stride == 1, "a view without gaps");
        &self.data[..self.rows * self.cols]
    }

    /// Element (i, j).
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> f32 {
        debug_assert!(i < self.rows && j < self.cols);
        self.data[i * self.row_stride + j * self.col_stride]
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}
