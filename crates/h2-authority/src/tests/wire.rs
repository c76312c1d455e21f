//! Well-formed frames: only the authority changes.

use loona_hpack::Encoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::frames::{PADDED, PRIORITY};
use super::recorded::{Recording, recordings};
use super::*;

const PATH: &str = "/var/lib/kubelet/plugins/secrets-store.csi.k8s.io/csi.sock";
const BEFORE: &[(&str, &str)] = &[(":method", "POST"), (":path", "/a.B/C"), (":authority", PATH), ("te", "trailers")];
const AFTER: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/a.B/C"), (":authority", "localhost"), ("te", "trailers")];

fn block(stream: u32, end_stream: bool, list: &[(&str, &str)]) -> Seen {
    Seen::Block { stream, end_stream, fields: fields(list) }
}

/// Asserts the adapter's output for one block on stream 1.
fn check_block(bytes: &[u8], expected: &[(&str, &str)]) {
    assert_eq!(pass_frames(&[frame(HEADERS, END_HEADERS, 1, bytes)]), [block(1, false, expected)]);
}

#[test]
fn a_path_becomes_localhost() {
    check_block(&literals(BEFORE), AFTER);
}

#[test]
fn a_request_without_authority_stays_without() {
    check_block(&literals(&[(":method", "GET"), ("host", "/x")]), &[(":method", "GET"), ("host", "/x")]);
}

#[test]
fn an_empty_block_stays_empty() {
    check_block(&[], &[]);
}

#[test]
fn end_of_stream_and_stream_id_are_kept() {
    let frames = [
        frame(HEADERS, END_HEADERS | END_STREAM, 5, &literals(BEFORE)),
        frame(HEADERS, END_HEADERS, 0x7fff_ffff, &literals(BEFORE)),
    ];
    assert_eq!(pass_frames(&frames), [block(5, true, AFTER), block(0x7fff_ffff, false, AFTER)]);
}

#[test]
fn other_frames_pass_byte_for_byte() {
    let frames = [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(DATA, PADDED, 1, &[1; MAX_FRAME_SIZE]),
        frame(DATA, END_STREAM, 1, &[]),
        frame(0x2, 0, 3, &[0, 0, 0, 1, 9]),
        frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        frame(PING, 0, 0, &[7; 8]),
        frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0client transport shutdown"),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 115]),
        frame(CONTINUATION, END_HEADERS, 1, &[0x82]),
        frame(0xbe, 0xff, 0xffff_ffff, b"unknown, reserved bit set"),
    ];
    let input = connection(&frames);
    assert_eq!(pass(&input), Outcome { bytes: input, error: None });
}

#[test]
fn padding_and_priority_are_dropped() {
    let priority = [0x80, 0, 0, 0, 16];
    let check = |flags: u8, payload: Vec<u8>| {
        let seen = pass_frames(&[frame(HEADERS, END_HEADERS | flags, 1, &payload)]);
        assert_eq!(seen, [block(1, false, AFTER)]);
    };
    let list = literals(BEFORE);
    check(PRIORITY, [&priority[..], &list].concat());
    check(PADDED, [&[0][..], &list].concat());
    check(PADDED, [&[255][..], &list, &[0; 255]].concat());
    check(PADDED | PRIORITY, [&[3][..], &priority, &list, &[0; 3]].concat());
    check(0x40 | 0x10 | 0x02, list);
}

#[test]
fn a_block_may_be_split_anywhere() {
    let list = literals(BEFORE);
    for at in 0..=list.len() {
        let (first, second) = list.split_at(at);
        let frames = [
            frame(HEADERS, PADDED | END_STREAM, 1, &[&[2][..], first, &[0; 2]].concat()),
            frame(CONTINUATION, 0, 1, &[]),
            frame(CONTINUATION, END_HEADERS, 1, second),
            frame(DATA, 0, 1, b"next"),
        ];
        let data = Seen::Frame { kind: DATA, flags: 0, stream: 1, payload: b"next".to_vec() };
        assert_eq!(pass_frames(&frames), [block(1, true, AFTER), data]);
    }
}

/// RFC 7541 C.3 and C.4: three requests on one connection, the second and third with `:authority`
/// by index 62.
#[test]
fn a_later_request_may_name_the_authority_by_index() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];
    let second = [&first[..], &[("cache-control", "no-cache")]].concat();
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "localhost"),
        ("custom-key", "custom-value"),
    ];
    for requests in [plain, huffman] {
        let frames: Vec<_> =
            [1, 3, 5].iter().zip(requests).map(|(id, block)| frame(HEADERS, END_HEADERS, *id, &hex(block))).collect();
        let expected = [block(1, false, &first), block(3, false, &second), block(5, false, &third)];
        assert_eq!(pass_frames(&frames), expected);
    }
}

#[test]
fn trailers_change_the_dynamic_table_too() {
    let mut encoder = Encoder::new();
    let mut encode = |list: &[(&str, &str)]| encoder.encode(list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    let trailers = [("x-checksum", "1")];
    let request = [(":authority", "a b"), ("x-checksum", "1")];
    let first = encode(&request[..1]);
    let end = encode(&trailers);
    let second = encode(&request);
    assert_eq!(second.last(), Some(&0xbe), "by index");
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &first),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &end),
        frame(HEADERS, END_HEADERS, 3, &second),
    ];
    let expected = [
        block(1, false, &[(":authority", "localhost")]),
        block(1, true, &trailers),
        block(3, false, &[(":authority", "localhost"), ("x-checksum", "1")]),
    ];
    assert_eq!(pass_frames(&frames), expected);
}

#[test]
fn table_size_updates_are_followed() {
    let indexed = hex("41 03 612062");
    let by_index = hex("be");
    let run = |blocks: &[&[u8]]| {
        error_of(&blocks.iter().map(|block| frame(HEADERS, END_HEADERS, 1, block)).collect::<Vec<_>>())
    };
    assert_eq!(run(&[&indexed, &by_index]), None);
    let emptied = run(&[&indexed, &[&[0x20][..], &by_index].concat()]);
    assert_eq!(emptied.as_deref(), Some("an HPACK header block does not decode: Header index out of bounds"));
    assert_eq!(run(&[&hex("20 3fe11f 41 03 612062"), &by_index]), None, "down to 0 and up to 4096");
    let too_large = run(&[&hex("3fe21f 41 03 612062")]);
    let expected = "an HPACK header block does not decode: Dynamic table size exceeds the maximum size";
    assert_eq!(too_large.as_deref(), Some(expected));
}

#[test]
fn never_indexed_fields_stay_so() {
    let check = |block: &str, expected: Vec<u8>| {
        let output = pass(&connection(&[frame(HEADERS, END_HEADERS, 1, &hex(block))])).bytes;
        assert_eq!(output[PREFACE.len() + 9..], expected);
    };
    check("10 01 61 01 62", hex("10 01 61 01 62"));
    check("1f 08 01 65", [&hex("10 0d"), &b"authorization"[..], &hex("01 65")].concat());
    check("00 01 63 01 64", hex("00 01 63 01 64"));
    // The same bit within an index has no meaning: field 16 of the static table, with indexing and
    // indexed.
    check("50 01 66", [&hex("00 0f"), &b"accept-encoding"[..], &hex("01 66")].concat());
    check("90", [&hex("00 0f"), &b"accept-encoding"[..], &hex("0d"), b"gzip, deflate"].concat());
}

#[test]
fn a_block_that_grows_beyond_a_frame_is_continued() {
    let value = "v".repeat(5_000);
    let list: Vec<_> = [(":authority", PATH)].into_iter().chain([("x-large", value.as_str()); 6]).collect();
    let mut encoder = Encoder::new();
    let small = encoder.encode(list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    let mut frames: Vec<_> = small.chunks(9_000).map(|part| frame(CONTINUATION, 0, 1, part)).collect();
    let last = frames.len() - 1;
    frames[0][3] = HEADERS;
    frames[0][4] = END_STREAM;
    frames[last][4] = END_HEADERS;
    let expected: Vec<_> = [(":authority", "localhost")].into_iter().chain(list[1..].iter().copied()).collect();
    assert_eq!(pass_frames(&frames), [block(1, true, &expected)]);
}

#[test]
fn recorded_requests_change_in_the_authority_only() {
    for recording in recordings() {
        let mut frames = Recording::settings().to_vec();
        frames.extend(recording.calls.iter().flat_map(|call| call.frames()));
        let seen = pass_frames(&frames);
        for (call, seen) in recording.calls.iter().zip(seen[2..].chunks(2)) {
            let mut expected = call.fields.clone();
            assert_eq!(expected[3].0, b":authority");
            expected[3].1 = b"localhost".to_vec();
            assert_eq!(seen[0], Seen::Block { stream: call.stream, end_stream: false, fields: expected });
            let data =
                Seen::Frame { kind: DATA, flags: END_STREAM, stream: call.stream, payload: call.message.clone() };
            assert_eq!(seen[1], data);
        }
    }
}

#[test]
fn pieces_of_one_byte_give_the_same_result() {
    let frames: Vec<_> = recordings()[4].calls.iter().flat_map(|call| call.frames()).collect();
    let input = connection(&frames);
    let whole = pass(&input);
    assert_eq!(whole.error, None);
    assert_eq!(pass_in(&input, &[1], &[8_192]), whole);
    assert_eq!(pass_in(&input, &[usize::MAX], &[1]), whole);
    assert_eq!(pass_in(&input, &[1], &[1]), whole);
}

#[test]
fn an_end_within_a_frame_is_an_end_after_its_bytes() {
    let whole = connection(&[
        frame(DATA, 0, 1, b"data"),
        frame(HEADERS, 0, 1, &literals(BEFORE)),
        frame(CONTINUATION, END_HEADERS, 1, &literals(AFTER)),
    ]);
    let headers_at = PREFACE.len() + 9 + 4;
    let continuation_at = whole.len() - 9 - literals(AFTER).len();
    for length in 0..whole.len() {
        let outcome = pass(&whole[..length]);
        assert_eq!(outcome.error, None);
        // Of an incomplete block only the last frame's header passes: it announces bytes that do
        // not follow.
        let expected = match length {
            _ if length <= headers_at => whole[..length].to_vec(),
            _ if length < continuation_at => whole[..length.min(headers_at + 9)].to_vec(),
            _ => [&whole[..headers_at], &whole[continuation_at..length.min(continuation_at + 9)]].concat(),
        };
        if length == continuation_at {
            assert_eq!(outcome.bytes, whole[..headers_at], "between two frames nothing is held back");
        } else {
            assert_eq!(outcome.bytes, expected, "{length}");
        }
    }
}

#[test]
fn other_protocols_pass_unchanged() {
    let http1 = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let nearly = [&PREFACE[..23], b"X", &frame(HEADERS, END_HEADERS, 1, &literals(BEFORE))].concat();
    for input in [http1, nearly, vec![0x16; 100_000]] {
        assert_eq!(pass(&input).bytes, input);
        assert_eq!(pass_in(&input, &[1, 5, 20], &[7]).bytes, input);
    }
}

#[tokio::test]
async fn writing_is_the_streams_own() {
    let (near, mut far) = tokio::net::UnixStream::pair().expect("a socket pair");
    let mut adapter = LocalhostAuthority::new(near);
    assert!(tokio::io::AsyncWrite::is_write_vectored(&adapter));
    let bytes = frame(HEADERS, END_HEADERS, 1, &literals(BEFORE));
    let slices = [io::IoSlice::new(&bytes), io::IoSlice::new(b"tail")];
    assert_eq!(adapter.write_vectored(&slices).await.expect("written"), bytes.len() + 4);
    adapter.write_all(b"!").await.expect("written");
    adapter.flush().await.expect("flushed");
    adapter.shutdown().await.expect("shut down");
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, [&bytes[..], b"tail!"].concat());
}
