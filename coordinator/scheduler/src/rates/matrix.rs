//! Vectors of three numbers and symmetric matrices of three by three: all the linear algebra that learning speeds takes.
//!
//! Owns the arithmetic. Refuses meaning, and refuses to invert what has no inverse. There is no square root without a
//! mathematics library, so one is here.

pub(super) type Three = [f64; 3];

/// A symmetric matrix: its diagonal, and the entries (0,1), (0,2) and (1,2) beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Symmetric {
    pub(super) diagonal: Three,
    pub(super) beside: Three,
}

impl Symmetric {
    pub(super) const fn diagonal(diagonal: Three) -> Self {
        Self { diagonal, beside: [0.0; 3] }
    }

    pub(super) fn times(&self, vector: Three) -> Three {
        let ([a, d, f], [b, c, e]) = (self.diagonal, self.beside);
        [dot([a, b, c], vector), dot([b, d, e], vector), dot([c, e, f], vector)]
    }

    /// This matrix and `weight` times the outer product of `vector` with itself.
    pub(super) fn plus_outer(&self, vector: Three, weight: f64) -> Self {
        let [x, y, z] = vector;
        let squares = Self { diagonal: [x * x, y * y, z * z], beside: [x * y, x * z, y * z] };
        self.plus(&squares, weight)
    }

    pub(super) fn plus(&self, other: &Self, weight: f64) -> Self {
        Self {
            diagonal: plus(self.diagonal, other.diagonal, weight),
            beside: plus(self.beside, other.beside, weight),
        }
    }

    pub(super) fn scaled(&self, factor: f64) -> Self {
        let zero = Self::diagonal([0.0; 3]);
        zero.plus(self, factor)
    }

    /// Each entry times the factors of its row and of its column.
    pub(super) fn rescaled(&self, factors: Three) -> Self {
        let [x, y, z] = factors;
        Self {
            diagonal: product(self.diagonal, product(factors, factors)),
            beside: product(self.beside, [x * y, x * z, y * z]),
        }
    }

    /// By cofactors; `None` when the matrix is not positive definite as far as its determinant tells.
    pub(super) fn inverse(&self) -> Option<Self> {
        let ([a, d, f], [b, c, e]) = (self.diagonal, self.beside);
        let cofactors = Self {
            diagonal: [d * f - e * e, a * f - c * c, a * d - b * b],
            beside: [c * e - b * f, b * e - c * d, b * c - a * e],
        };
        let [first, _, _] = cofactors.diagonal;
        let [second, third, _] = cofactors.beside;
        let determinant = dot([a, b, c], [first, second, third]);
        (determinant > 0.0 && determinant.is_finite()).then(|| cofactors.scaled(1.0 / determinant))
    }
}

pub(super) fn dot([a, b, c]: Three, [x, y, z]: Three) -> f64 {
    a * x + b * y + c * z
}

/// `a` and `weight` times `b`.
pub(super) fn plus([a, b, c]: Three, [x, y, z]: Three, weight: f64) -> Three {
    [a + weight * x, b + weight * y, c + weight * z]
}

/// Entry by entry.
pub(super) fn product([a, b, c]: Three, [x, y, z]: Three) -> Three {
    [a * x, b * y, c * z]
}

/// The square root by Newton's method, which comes down from above and stops when it no longer does. Zero for what has none.
pub(super) fn root(square: f64) -> f64 {
    if !(square > 0.0 && square.is_finite()) {
        return 0.0;
    }
    let mut root = square.max(1.0);
    loop {
        let next = 0.5 * (root + square / root);
        if next >= root {
            return root;
        }
        root = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MATRIX: Symmetric = Symmetric { diagonal: [4.0, 3.0, 2.0], beside: [1.0, 0.5, 0.25] };

    fn close(left: Three, right: Three) -> bool {
        left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-9)
    }

    #[test]
    fn a_matrix_times_a_vector_uses_both_halves() {
        assert_eq!(
            MATRIX.times([1.0, 10.0, 100.0]),
            [4.0 + 10.0 + 50.0, 1.0 + 30.0 + 25.0, 0.5 + 2.5 + 200.0]
        );
    }

    #[test]
    fn an_outer_product_is_added_with_its_weight() {
        let sum = Symmetric::diagonal([1.0; 3]).plus_outer([1.0, 2.0, 3.0], 2.0);
        assert_eq!(sum, Symmetric { diagonal: [3.0, 9.0, 19.0], beside: [4.0, 6.0, 12.0] });
    }

    #[test]
    fn rescaling_goes_by_rows_and_columns() {
        let rescaled = MATRIX.rescaled([1.0, 2.0, 4.0]);
        assert_eq!(rescaled, Symmetric { diagonal: [4.0, 12.0, 32.0], beside: [2.0, 2.0, 2.0] });
    }

    #[test]
    fn what_has_no_inverse_gets_none() {
        assert_eq!(Symmetric::diagonal([1.0, 0.0, 1.0]).inverse(), None);
        assert_eq!(Symmetric::diagonal([1.0, -1.0, 1.0]).inverse(), None);
        assert_eq!(Symmetric::diagonal([f64::NAN; 3]).inverse(), None);
        assert_eq!(Symmetric::diagonal([f64::INFINITY; 3]).inverse(), None);
    }

    #[test]
    fn roots_are_those_of_the_mathematics_library() {
        for square in [1e-300, 1e-6, 0.25, 1.0, 2.0, 9.0, 1e12, 1e300] {
            let (ours, theirs) = (root(square), f64::sqrt(square));
            assert!((ours - theirs).abs() <= 1e-15 * theirs.max(ours), "{square}: {ours} {theirs}");
        }
        assert_eq!([0.0, -1.0, f64::NAN, f64::INFINITY].map(root), [0.0; 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_inverse_undoes_the_matrix(
            rows in proptest::collection::vec([-1.0_f64..1.0, -1.0..1.0, -1.0..1.0], 0..9), vector in [-9.0_f64..9.0, -9.0..9.0, -9.0..9.0],
        ) {
            let start = Symmetric::diagonal([0.01; 3]);
            let matrix = rows.into_iter().fold(start, |sum, row| sum.plus_outer(row, 1.0));
            let inverse = matrix.inverse();
            prop_assert!(inverse.is_some_and(|inverse| close(inverse.times(matrix.times(vector)), vector)));
        }
    }
}
