//! Small dense symmetric matrices: Cholesky's factorisation, and what is solved with it.

/// A square matrix, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    size: usize,
    values: Vec<f64>,
}

impl Matrix {
    pub fn zeros(size: usize) -> Matrix {
        Matrix { size, values: vec![0.0; size * size] }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size + column]
    }

    pub fn add(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.size + column] += value;
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..(row + 1) * self.size]
    }

    /// The product with a symmetric matrix.
    pub fn times_symmetric(&self, other: &Matrix) -> Matrix {
        let rows = 0..self.size;
        let values = rows.clone().flat_map(|i| rows.clone().map(move |j| dot(self.row(i), other.row(j)))).collect();
        Matrix { size: self.size, values }
    }

    /// The factor L of this symmetric matrix, which is L Lᵀ; none unless all of its eigenvalues are above zero.
    pub fn cholesky(mut self) -> Option<Cholesky> {
        for i in 0..self.size {
            let (above, row) = self.values.split_at_mut(i * self.size);
            for j in 0..i {
                let other = &above[j * self.size..(j + 1) * self.size];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let square = row[i] - dot(&row[..i], &row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            row[i] = square.sqrt();
        }
        Some(Cholesky(self))
    }
}

/// A lower triangle; what stands above it is meaningless.
pub(crate) struct Cholesky(Matrix);

impl Cholesky {
    /// Solves L Lᵀ x = b in place.
    pub fn solve(&self, x: &mut [f64]) {
        let lower = &self.0;
        for i in 0..lower.size {
            x[i] = (x[i] - dot(&lower.row(i)[..i], &x[..i])) / lower.at(i, i);
        }
        for i in (0..lower.size).rev() {
            let (before, rest) = x.split_at_mut(i);
            rest[0] /= lower.at(i, i);
            for (x, l) in before.iter_mut().zip(lower.row(i)) {
                *x -= l * rest[0];
            }
        }
    }

    /// The inverse of L Lᵀ.
    pub fn inverse(&self) -> Matrix {
        let size = self.0.size;
        let mut inverse = Matrix::zeros(size);
        for (i, row) in inverse.values.chunks_exact_mut(size.max(1)).enumerate() {
            row[i] = 1.0;
            self.solve(row);
        }
        inverse
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A Aᵀ of a random A, and a bit of the identity.
    fn positive(size: usize, seed: u64) -> Matrix {
        let mut random = Random::new(seed);
        let root: Vec<f64> = (0..size * size).map(|_| random.uniform() - 0.5).collect();
        let root = Matrix { size, values: root };
        let mut matrix = root.times_symmetric(&root);
        (0..size).for_each(|i| matrix.add(i, i, 0.01));
        matrix
    }

    #[test]
    fn what_is_solved_holds() {
        for size in [0, 1, 2, 3, 20, 61] {
            let matrix = positive(size, size as u64);
            let cholesky = matrix.clone().cholesky().unwrap();
            let mut random = Random::new(7);
            let x: Vec<f64> = (0..size).map(|_| random.uniform()).collect();
            let mut b: Vec<f64> = (0..size).map(|i| dot(matrix.row(i), &x)).collect();
            cholesky.solve(&mut b);
            assert!(b.iter().zip(&x).all(|(b, x)| (b - x).abs() < 1e-9), "{size}");
            let identity = matrix.times_symmetric(&cholesky.inverse());
            for i in 0..size {
                for j in 0..size {
                    assert!((identity.at(i, j) - f64::from(u8::from(i == j))).abs() < 1e-9, "{size}");
                }
            }
        }
    }

    #[test]
    fn only_positive_matrices_have_a_factor() {
        for values in [[1.0, 2.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0; 4], [f64::NAN; 4], [f64::INFINITY; 4]] {
            assert!(Matrix { size: 2, values: values.to_vec() }.cholesky().is_none(), "{values:?}");
        }
    }
}
