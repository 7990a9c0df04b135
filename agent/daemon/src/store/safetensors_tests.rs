//! Headers: whole, damaged and hostile.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

/// A file with this header and this much data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = u64::try_from(header.len()).expect("fits").to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

fn read(file: &[u8]) -> Result<BTreeMap<String, Tensor>, HeaderError> {
    read_header(Cursor::new(file), file.len() as u64)
}

fn fault(header: &str, data_bytes: usize) -> String {
    read(&file(header, data_bytes)).expect_err("refused").to_string()
}

const TWO: &str = r#"{"__metadata__": {"format": "mlx"},
    "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}  "#;

#[test]
fn tensors_are_read_by_name() {
    let tensors = read(&file(TWO, 16)).expect("whole");
    let expected = [
        ("a".to_owned(), Tensor { dtype: Dtype::F32, shape: vec![1], bytes: 4 }),
        ("b".to_owned(), Tensor { dtype: Dtype::Bf16, shape: vec![2, 3], bytes: 12 }),
    ];
    assert_eq!(tensors, BTreeMap::from(expected));
    assert_eq!(tensors["b"].elements(), 6);
}

#[test]
fn a_scalar_and_an_empty_tensor_are_tensors() {
    let header = r#"{"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]}}"#;
    let tensors = read(&file(header, 4)).expect("whole");
    assert_eq!((tensors["s"].elements(), tensors["e"].elements()), (1, 0));
}

#[test]
fn a_file_that_was_cut_says_how_much_is_missing() {
    assert!(fault(TWO, 15).contains("should have"), "{}", fault(TWO, 15));
    let whole = file(TWO, 16);
    for cut in 0..whole.len() {
        assert!(matches!(read(&whole[..cut]), Err(HeaderError::Truncated { .. })), "cut at {cut}");
    }
}

#[test]
fn bytes_that_belong_to_nothing_are_damage() {
    assert!(matches!(read(&file(TWO, 17)), Err(HeaderError::Trailing(1))));
}

#[test]
fn a_header_length_is_bounded_before_anything_is_read() {
    let mut huge = file("{}", 0);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&huge), Err(HeaderError::HeaderTooLong(u64::MAX))));
    huge[..8].copy_from_slice(&(HEADER_BYTES_MAX + 1).to_le_bytes());
    assert!(matches!(read(&huge), Err(HeaderError::HeaderTooLong(_))));
}

#[test]
fn a_name_given_twice_is_refused() {
    let one = r#""a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#;
    assert!(fault(&format!("{{{one}, {one}}}"), 1).contains("tensor a is there twice"));
}

#[test]
fn offsets_are_held_to_the_shape_and_to_one_another() {
    for (header, data, expected) in [
        (r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 0]}}"#, 2, "before its begin"),
        (r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}}"#, 1, "do not match its shape"),
        (r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#, 3, "a hole before it"),
        (
            r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#,
            3,
            "overlaps",
        ),
        (
            r#"{"a": {"dtype": "F64", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}"#,
            0,
            "do not match its shape",
        ),
        (
            r#"{"a": {"dtype": "F64", "shape": [2305843009213693952], "data_offsets": [0, 0]}}"#,
            0,
            "do not match its shape",
        ),
    ] {
        assert!(fault(header, data).contains(expected), "{header}: {}", fault(header, data));
    }
}

#[test]
fn a_tensor_past_the_end_is_a_cut_file() {
    let header = r#"{"a": {"dtype": "U8", "shape": [18446744073709551615], "data_offsets": [0, 18446744073709551615]}}"#;
    assert!(matches!(read(&file(header, 4)), Err(HeaderError::Truncated { .. })));
}

#[test]
fn unknown_types_negative_sizes_and_endless_shapes_are_refused() {
    let sizes = vec!["1"; DIMENSIONS_MAX + 1].join(",");
    for header in [
        r#"{"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 1]}}"#.to_owned(),
        r#"{"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}"#.to_owned(),
        r#"{"a": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}}"#.to_owned(),
        r#"{"a": {"dtype": "U8", "shape": [1]}}"#.to_owned(),
        format!(r#"{{"a": {{"dtype": "U8", "shape": [{sizes}], "data_offsets": [0, 1]}}}}"#),
        "[]".to_owned(),
        "{".to_owned(),
        "{} x".to_owned(),
        "[".repeat(100_000),
    ] {
        assert!(matches!(read(&file(&header, 1)), Err(HeaderError::Json(_))), "{header:.60}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn any_text_as_a_header_is_read_or_refused(header in ".{0,200}", data in 0_usize..40) {
        let _ = read(&file(&header, data));
    }

    #[test]
    fn what_is_accepted_fills_the_file_exactly(
        tensors in proptest::collection::vec((0_u64..5, 0_u64..5, any::<bool>()), 0..6),
        wrong in -1_i64..2,
        at in 0_usize..6,
    ) {
        let mut entries = Vec::new();
        let mut reached = 0_u64;
        for (index, (rows, columns, wide)) in tensors.iter().enumerate() {
            let (dtype, size) = if *wide { ("F32", 4) } else { ("U8", 1) };
            let end = reached + rows * columns * size;
            // One end may be moved by one: the file is then refused.
            let told = if index == at { end.saturating_add_signed(wrong) } else { end };
            entries.push(format!(r#""t{index}": {{"dtype": "{dtype}", "shape": [{rows}, {columns}], "data_offsets": [{reached}, {told}]}}"#));
            reached = end;
        }
        let bytes = file(&format!("{{{}}}", entries.join(",")), usize::try_from(reached).expect("small"));
        let moved = at < tensors.len() && wrong != 0 && !(wrong < 0 && reached == 0 && at == 0);
        match read(&bytes) {
            Ok(tensors) => {
                prop_assert_eq!(tensors.values().map(|tensor| tensor.bytes).sum::<u64>(), reached);
            }
            Err(error) => prop_assert!(moved, "{}", error),
        }
    }
}
