//! Frames that break a rule or a limit: the error, and the bytes before it.

use super::super::frames::{PADDED, PRIORITY};
use super::*;

/// One block on stream 1.
fn check_block(block: &[u8], error: Option<&str>) {
    assert_eq!(error_of(&[frame(HEADERS, END_HEADERS, 1, block)]).as_deref(), error);
}

/// Several frames.
fn check(frames: &[Vec<u8>], error: Option<&str>) {
    assert_eq!(error_of(frames).as_deref(), error);
}

/// One field of `length` bytes, in full frames. It decodes to a quarter of that: the value is a
/// Huffman string of symbols of 30 bits, and of 8 bits where four of them do not fit.
fn large_block(length: usize) -> Vec<Vec<u8>> {
    let mut block = vec![0, 1, b'a', 0xff];
    let beyond = length - 7 - 127;
    block.extend([beyond as u8 | 0x80, (beyond >> 7) as u8 | 0x80, (beyond >> 14) as u8]);
    block.resize(length, 0xf8);
    let four_symbols = (0..4).fold(0_u128, |bits, _| bits << 30 | 0x3fff_fffc) << 8;
    for part in block[7..].chunks_exact_mut(15) {
        part.copy_from_slice(&four_symbols.to_be_bytes()[..15]);
    }
    let mut frames: Vec<_> = block.chunks(MAX_FRAME_SIZE).map(|part| frame(CONTINUATION, 0, 1, part)).collect();
    frames[0][3] = HEADERS;
    let last = frames.len() - 1;
    frames[last][4] = END_HEADERS;
    frames
}

#[test]
fn a_frame_has_at_most_16384_bytes() {
    let error = Some("an HTTP/2 frame is larger than 16384 bytes");
    check(&[frame(DATA, 0, 1, &[0; 16_384])], None);
    check(&[frame(DATA, 0, 1, &[0; 16_385])], error);
    check(&[frame(HEADERS, END_HEADERS, 1, &[0; 16_385])], error);
    check(&[frame(0xbe, 0, 0, &[0; 16_385])], error);
}

#[test]
fn a_block_has_at_most_32768_bytes() {
    check(&large_block(32_768), None);
    check(&large_block(32_769), Some("an HTTP/2 header block is larger than 32768 bytes"));
}

#[test]
fn a_block_has_at_most_64_continuations() {
    let block = |continuations: usize| {
        let mut frames = vec![frame(HEADERS, 0, 1, &[0x82])];
        frames.extend(vec![frame(CONTINUATION, 0, 1, &[]); continuations - 1]);
        frames.push(frame(CONTINUATION, END_HEADERS, 1, &[]));
        frames
    };
    check(&block(64), None);
    check(&block(65), Some("an HTTP/2 header block has more than 64 CONTINUATION frames"));
    check(&vec![block(64).concat(); 3], None);
}

#[test]
fn a_block_has_at_most_256_fields() {
    check_block(&[0x82; 256], None);
    check_block(&[0x82; 257], Some("an HTTP/2 header block has more than 256 fields"));
    // Huffman strings are the most expensive to decode; strings above the limit are never decoded.
    check_block(&[0x04, 0x80].repeat(8_192), Some("an HTTP/2 header block has more than 256 fields"));
}

#[test]
fn a_small_block_may_not_grow_without_bound() {
    // One field of 4,000 bytes in the dynamic table, then references to it.
    let value = [&[0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    let bomb = |references: usize| [&[0x40, 1, b'a'][..], &value, &vec![0xbe; references]].concat();
    check_block(&bomb(7), None);
    check_block(&bomb(8), Some("an HTTP/2 header block is larger than 32768 bytes when decoded"));
}

#[test]
fn a_block_may_not_be_interrupted() {
    let error = Some("an HTTP/2 header block is interrupted by another frame");
    let open = frame(HEADERS, 0, 1, &[0x82]);
    for other in [
        frame(DATA, 0, 1, b"data"),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &[0x82]),
        frame(CONTINUATION, END_HEADERS, 3, &[0x82]),
        frame(0xbe, 0, 0, &[]),
    ] {
        check(&[open.clone(), other], error);
    }
}

#[test]
fn padding_and_priority_have_to_fit() {
    let error = Some("the padding or priority of an HTTP/2 HEADERS frame does not fit into it");
    let check_payload = |flags, payload: &[u8], error| check(&[frame(HEADERS, END_HEADERS | flags, 1, payload)], error);
    check_payload(PADDED, &[], error);
    check_payload(PADDED, &[0], None);
    check_payload(PADDED, &[1], error);
    check_payload(PADDED, &[255, 0x82], error);
    check_payload(PRIORITY, &[0; 4], error);
    check_payload(PRIORITY, &[0; 5], None);
    check_payload(PADDED | PRIORITY, &[0; 5], error);
    check_payload(PADDED | PRIORITY, &[0; 6], None);
    check_payload(PADDED | PRIORITY, &[1, 0, 0, 0, 0, 0], error);
}

#[test]
fn errors_of_malformed_hpack_name_the_rule() {
    let truncated = Some("an HPACK header block ends inside a field");
    for block in ["ff", "40", "0001", "000161", "00016105 61", "ff80", "3f", "20 41", "04", "7f", "0f", "00ff", "8201"]
    {
        check_block(&hex(block), truncated);
    }
    let too_long = Some("an HPACK integer is longer than 5 octets");
    for block in ["ff8080808080", "ffffffffffff7f", "3fffffffff01", "0001617fffffffff01"] {
        check_block(&hex(block), too_long);
    }
    let misplaced = Some("an HPACK table size update is not at the start of its header block");
    check_block(&hex("82 20 82"), misplaced);
    check_block(&hex("20 20 20 82"), misplaced);
    check_block(&hex("82 20"), misplaced);
    for (block, rule) in [
        ("80", "Header index out of bounds"),
        ("be", "Header index out of bounds"),
        ("ffffffff7f", "Header index out of bounds"),
        ("7e 01 61", "Header index out of bounds"),
        ("20", "Dynamic table size update at the end of a header block"),
        ("04 81 00", "String decoding error: Huffman decoder error: Invalid padding"),
        ("04 81 ff", "String decoding error: Huffman decoder error: Padding too large"),
        ("04 84 ffffffff", "String decoding error: Huffman decoder error: EOS in string"),
    ] {
        let error = format!("an HPACK header block does not decode: {rule}");
        check_block(&hex(block), Some(&error));
    }
}

#[test]
fn bytes_before_an_error_are_delivered() {
    let good = connection(&[frame(SETTINGS, 0, 0, &[]), frame(DATA, 0, 1, b"data")]);
    let input = [&good[..], &frame(HEADERS, END_HEADERS, 1, &[0x80]), &frame(PING, 0, 0, &[0; 8])].concat();
    for (pieces, reads) in [(usize::MAX, 8_192), (1, 8_192), (usize::MAX, 1), (1, 1)] {
        let outcome = pass_in(&input, &[pieces], &[reads]);
        assert_eq!(outcome.bytes, good);
        assert!(outcome.error.is_some());
    }
}

#[test]
fn errors_contain_nothing_of_the_request() {
    let secret = literals(&[("authorization", "hunter2"), ("x", "y")]);
    let input = connection(&[frame(HEADERS, END_HEADERS, 1, &secret[..secret.len() - 1])]);
    let text = pass(&input).error.expect("the block is cut short");
    assert!(!text.contains("hunter2") && !text.contains("authorization"));
}
