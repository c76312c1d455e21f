//! Properties: valid conversations keep their meaning, and no bytes cause a panic or unbounded
//! memory.
//!
//! `KEYVAULT_CSI_FUZZ_CASES` sets the number of cases of each property.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::super::frames::{PADDED, PRIORITY};
use super::*;

fn config() -> Config {
    let cases = std::env::var("KEYVAULT_CSI_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    Config { cases, failure_persistence: None, ..Config::default() }
}

type Field = (Vec<u8>, Vec<u8>);

/// The encoding of a field, where HPACK allows several.
#[derive(Clone, Debug)]
enum Style {
    Indexed,
    Incremental,
    WithoutIndexing,
    NeverIndexed,
}

/// One header block, with its encoding and frames.
#[derive(Clone, Debug)]
struct Request {
    fields: Vec<(Field, Style)>,
    table_size: Option<usize>,
    fragments: Vec<usize>,
    padding: Option<u8>,
    priority: bool,
    end_stream: bool,
    data: Vec<u8>,
}

/// An encoder that can produce every representation; the dynamic table is that of RFC 7541 §2.3.2.
struct Encoder {
    table: VecDeque<Field>,
    limit: usize,
}

impl Encoder {
    fn encode(&mut self, request: &Request) -> Vec<u8> {
        let mut block = Vec::new();
        if let Some(size) = request.table_size
            && !request.fields.is_empty()
        {
            self.limit = size;
            self.evict();
            integer(size, 5, 0x20, &mut block);
        }
        for (field, style) in &request.fields {
            let whole = self.table.iter().position(|entry| entry == field);
            let named = self.table.iter().position(|entry| entry.0 == field.0);
            let (prefix, first) = match (style, whole) {
                (Style::Indexed, Some(index)) => {
                    integer(index + 62, 7, 0x80, &mut block);
                    continue;
                }
                (Style::Indexed | Style::Incremental, _) => (6, 0x40),
                (Style::WithoutIndexing, _) => (4, 0x00),
                (Style::NeverIndexed, _) => (4, 0x10),
            };
            integer(named.map_or(0, |index| index + 62), prefix, first, &mut block);
            if named.is_none() {
                string(&field.0, &mut block);
            }
            string(&field.1, &mut block);
            if first == 0x40 {
                self.table.push_front(field.clone());
                self.evict();
            }
        }
        block
    }

    fn evict(&mut self) {
        while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > self.limit {
            self.table.pop_back();
        }
    }
}

fn integer(value: usize, prefix: u32, first: u8, block: &mut Vec<u8>) {
    let largest = (1 << prefix) - 1;
    if value < largest {
        block.push(first | value as u8);
        return;
    }
    block.push(first | largest as u8);
    let mut rest = value - largest;
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn string(string: &[u8], block: &mut Vec<u8>) {
    integer(string.len(), 7, 0, block);
    block.extend(string);
}

/// The frames of the request on its stream: HEADERS, CONTINUATION frames, and DATA unless it ends
/// there.
fn frames_of(request: &Request, stream: u32, block: &[u8]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<_> = request.fragments.iter().map(|at| at % (block.len() + 1)).collect();
    cuts.extend((0..block.len()).step_by(10_000));
    cuts.extend([0, block.len()]);
    cuts.sort_unstable();
    let mut frames: Vec<_> =
        cuts.windows(2).map(|cut| frame(CONTINUATION, 0, stream, &block[cut[0]..cut[1]])).collect();
    let first = &block[..cuts[1]];
    let mut flags = if request.end_stream { END_STREAM } else { 0 };
    let mut payload = Vec::new();
    if let Some(padding) = request.padding {
        flags |= PADDED;
        payload.push(padding);
    }
    if request.priority {
        flags |= PRIORITY;
        payload.extend([0, 0, 0, 0, 1]);
    }
    payload.extend(first);
    payload.resize(payload.len() + usize::from(request.padding.unwrap_or(0)), 0);
    frames[0] = frame(HEADERS, flags, stream, &payload);
    let last = frames.len() - 1;
    frames[last][4] |= END_HEADERS;
    if !request.end_stream {
        frames.push(frame(DATA, END_STREAM, stream, &request.data));
    }
    frames
}

/// The expected output for the request.
fn expected_of(request: &Request, stream: u32) -> Vec<Seen> {
    let fields = request.fields.iter().map(|((name, value), _)| {
        let value = if name == b":authority" { b"localhost" } else { &value[..] };
        (name.clone(), value.to_vec())
    });
    let mut seen = vec![Seen::Block { stream, end_stream: request.end_stream, fields: fields.collect() }];
    if !request.end_stream {
        seen.push(Seen::Frame { kind: DATA, flags: END_STREAM, stream, payload: request.data.clone() });
    }
    seen
}

fn bytes(size: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), size)
}

fn field() -> impl Strategy<Value = (Field, Style)> {
    let name = prop_oneof![
        3 => Just(b":authority".to_vec()),
        3 => prop::sample::select(vec![":path", "te", "grpc-timeout", ":authorit", ":authority2"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => bytes(0..300),
    ];
    let value = prop_oneof![
        3 => prop::sample::select(vec!["", "localhost", "%2Fvar%2Frun", "/x.sock", "a b"])
            .prop_map(|value| value.as_bytes().to_vec()),
        1 => bytes(0..300),
    ];
    let style = prop_oneof![
        3 => Just(Style::Indexed),
        1 => Just(Style::Incremental),
        1 => Just(Style::WithoutIndexing),
        1 => Just(Style::NeverIndexed),
    ];
    ((name, value), style)
}

fn request() -> impl Strategy<Value = Request> {
    let table_size = prop_oneof![3 => Just(None), 1 => (0usize..=4_096).prop_map(Some)];
    let fields =
        prop_oneof![4 => proptest::collection::vec(field(), 0..16), 1 => proptest::collection::vec(field(), 90)];
    let fragments = proptest::collection::vec(any::<usize>(), 0..6);
    let framing = (fragments, any::<Option<u8>>(), any::<bool>(), any::<bool>(), bytes(0..500));
    (fields, table_size, framing).prop_map(|(fields, table_size, (fragments, padding, priority, end_stream, data))| {
        Request { fields, table_size, fragments, padding, priority, end_stream, data }
    })
}

fn conversation(requests: &[Request]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder { table: VecDeque::new(), limit: 4_096 };
    let mut frames = Vec::new();
    for (request, stream) in requests.iter().zip((1..).step_by(2)) {
        let block = encoder.encode(request);
        frames.extend(frames_of(request, stream, &block));
    }
    frames
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        proptest::collection::vec(1usize..40, 1..8),
        proptest::collection::vec(1usize..20_000, 1..4),
    ]
}

/// A frame that may be anything, often part of a header block.
fn hostile_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => Just(HEADERS), 2 => Just(CONTINUATION), 1 => any::<u8>()];
    let flags = prop_oneof![3 => Just(END_HEADERS), 1 => Just(0), 1 => any::<u8>()];
    let stream = prop_oneof![6 => Just(1u32), 1 => any::<u32>()];
    // Octets that begin fields, table size updates and Huffman strings, and random ones.
    let octet = prop_oneof![
        4 => any::<u8>(),
        2 => prop::sample::select(vec![0x00, 0x04, 0x10, 0x20, 0x3f, 0x40, 0x41, 0x81, 0x82, 0xbe, 0xff, 0x7f, 0x80]),
    ];
    let payload = prop_oneof![
        8 => proptest::collection::vec(octet, 0..60),
        1 => (any::<u8>(), 16_000usize..16_400).prop_map(|(octet, length)| vec![octet; length]),
    ];
    (kind, flags, stream, payload).prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

/// Asserts that nothing panics, memory stays bounded (in `pass_in`), and the result does not depend
/// on the pieces.
fn check_harmless(input: &[u8], pieces: &[usize], reads: &[usize]) -> Result<(), TestCaseError> {
    let whole = pass(input);
    prop_assert_eq!(&pass_in(input, pieces, reads), &whole);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn conversations_keep_their_meaning(
        requests in proptest::collection::vec(request(), 1..6), pieces in sizes(), reads in sizes(),
    ) {
        let outcome = pass_in(&connection(&conversation(&requests)), &pieces, &reads);
        prop_assert_eq!(outcome.error, None);
        let seen = read_frames(outcome.bytes.strip_prefix(PREFACE).expect("the preface passes"));
        let expected: Vec<_> =
            requests.iter().zip((1..).step_by(2)).flat_map(|(request, id)| expected_of(request, id)).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn noise_does_no_harm(noise in bytes(0..2_000), preface in any::<bool>(), pieces in sizes(), reads in sizes()) {
        let input = if preface { connection(&[noise]) } else { noise };
        check_harmless(&input, &pieces, &reads)?;
    }

    #[test]
    fn hostile_frames_do_no_harm(
        frames in proptest::collection::vec(hostile_frame(), 0..30), pieces in sizes(), reads in sizes(),
    ) {
        check_harmless(&connection(&frames), &pieces, &reads)?;
    }

    #[test]
    fn spoiled_conversations_do_no_harm(
        requests in proptest::collection::vec(request(), 1..4),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(), pieces in sizes(), reads in sizes(),
    ) {
        let mut input = connection(&conversation(&requests));
        for (at, octet) in spoils {
            let at = at.index(input.len());
            input[at] ^= octet;
        }
        input.truncate(end.index(input.len()) + 1);
        check_harmless(&input, &pieces, &reads)?;
    }
}
