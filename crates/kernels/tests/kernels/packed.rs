//! Packed matrices taken from bytes: the same numbers, or none where the bytes can't be them.

use std::sync::Arc;

use minke_kernels::quantized::{Format, Row};
use minke_kernels::random::fnv1a;
use minke_kernels::{Buffer, Cpu, Dtype, Isa, Matrix, Packing, Shared};

const OUTPUTS: usize = 37;

/// A matrix of numbers that follow from their places, the same everywhere.
fn matrix(cpu: &Cpu, packing: Packing) -> Matrix {
    match packing {
        Packing::Dense(dtype) => Matrix::dense(cpu, dtype, OUTPUTS, 45, &|row, out| {
            out.iter_mut().enumerate().for_each(|(i, x)| *x = (row * 64 + i) as f32 / 3.0);
        }),
        Packing::Quantized(format) => Matrix::quantized(cpu, format, OUTPUTS, 512, &|index, row: &mut Row| {
            let (codes, minima) = (1 << format.layout().bits, format.layout().minima);
            row.codes.iter_mut().enumerate().for_each(|(i, x)| *x = ((i * 7 + index) % codes) as u8);
            let second = |x: usize| if minima { x } else { 0 };
            row.halves
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = [i + index, second(i + 100)].map(|x| 0x2000 + x as u16));
            row.groups
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = [i % 16, second((i + index) % 16)].map(|x| x as u8));
        }),
    }
}

fn packings() -> impl Iterator<Item = Packing> {
    let dense = [Dtype::F32, Dtype::Bf16].map(Packing::Dense);
    dense.into_iter().chain(Format::ALL.map(Packing::Quantized))
}

/// The streams, each from a multiple of 64 bytes on, with where they begin.
fn stored(matrix: &Matrix) -> (Vec<u8>, [usize; 3]) {
    let mut bytes = vec![1; 64];
    let starts = matrix.streams().map(|stream| {
        let start = bytes.len();
        bytes.extend(stream);
        bytes.resize(bytes.len().next_multiple_of(64), 1);
        start
    });
    (bytes, starts)
}

fn shared(bytes: &[u8]) -> Shared {
    Arc::new(Buffer::<u8>::from_slice(bytes))
}

#[test]
fn matrices_come_back_from_their_bytes() {
    let cpu = Cpu::new(Isa::Portable, 2);
    for packing in packings() {
        let matrix = matrix(&cpu, packing);
        let inputs = matrix.inputs();
        assert_eq!(matrix.packing(), packing);
        assert_eq!(matrix.streams().map(<[u8]>::len), packing.lengths(OUTPUTS, inputs), "{packing:?}");
        let (bytes, starts) = stored(&matrix);
        let again = Matrix::shared(packing, OUTPUTS, inputs, &shared(&bytes), starts).unwrap();
        assert_eq!(again.streams(), matrix.streams(), "{packing:?}");
        let [mut a, mut b] = [vec![0.0; inputs], vec![0.0; inputs]];
        for row in 0..OUTPUTS {
            matrix.row(row, &mut a);
            again.row(row, &mut b);
            assert_eq!(a, b, "{packing:?}, row {row}");
        }
        assert_eq!(again.clone().streams(), matrix.streams(), "{packing:?}, copied");

        // Bytes that end too early, begin inside a line, or are others' for a shape that can't be.
        let used: Vec<usize> = (0..3).filter(|&i| !matrix.streams()[i].is_empty()).collect();
        for &i in &used {
            let mut late = starts;
            late[i] = bytes.len().next_multiple_of(64) - 64;
            assert!(Matrix::shared(packing, OUTPUTS, inputs, &shared(&bytes[..bytes.len() - 1]), late).is_none());
            late[i] = starts[i] + 32;
            assert!(Matrix::shared(packing, OUTPUTS, inputs, &shared(&[&bytes[..], &bytes].concat()), late).is_none());
            late[i] = usize::MAX - 63;
            assert!(Matrix::shared(packing, OUTPUTS, inputs, &shared(&bytes), late).is_none());
        }
        let empty = Matrix::empty(packing);
        assert_eq!((empty.packing(), empty.outputs(), empty.inputs(), empty.bytes()), (packing, 0, 0, 0));
    }
    let odd = Packing::Quantized(Format::Q4_0);
    assert!(Matrix::shared(odd, 16, 48, &shared(&[0; 4096]), [0; 3]).is_none(), "inputs that are not whole blocks");
}

/// Whoever changes how matrices are packed has to count [`Packing::LAYOUT`] up: files of the one before are still around.
#[test]
fn the_layout_is_the_one_that_is_counted() {
    let cpu = Cpu::new(Isa::Portable, 1);
    let hash = fnv1a(packings().flat_map(|packing| matrix(&cpu, packing).streams().concat()));
    assert_eq!(
        (Packing::LAYOUT, hash),
        (1, 0x94e8_8a0f_39f4_674f),
        "another layout needs another number here and in Packing::LAYOUT"
    );
}

/// A buffer over shared bytes is copied before it is written to.
#[test]
fn what_is_shared_is_not_written_to() {
    let cpu = Cpu::new(Isa::Portable, 1);
    let packing = Packing::Dense(Dtype::F32);
    let (bytes, starts) = stored(&matrix(&cpu, packing));
    let memory = shared(&bytes);
    let mut matrix = Matrix::shared(packing, OUTPUTS, 45, &memory, starts).unwrap();
    matrix.repack(&cpu, minke_kernels::View::new(&[5.0; OUTPUTS * 45], OUTPUTS, 45));
    let mut row = [0.0; 45];
    matrix.row(3, &mut row);
    assert_eq!(row, [5.0; 45]);
    assert!((*memory).as_ref() == bytes, "the shared bytes are as they were");
}
