//! docs/reference/azure-provider.md#separate-files, and the rules of Go's `encoding/pem`.

use proptest::prelude::*;

use crate::formats::pem::{Block, encode, parse};

/// Label, headers joined, content of each block; and how many are damaged.
fn parsed(text: &str) -> (Vec<(String, String, Vec<u8>)>, usize) {
    let parsed = parse(text);
    let header = |(name, value): &(String, String)| format!("{name}={value};");
    let block =
        |block: &Block| (block.label.clone(), block.headers.iter().map(header).collect(), block.content.to_vec());
    (parsed.blocks.iter().map(block).collect(), parsed.damaged)
}

fn one(label: &str, headers: &str, content: &[u8]) -> (Vec<(String, String, Vec<u8>)>, usize) {
    (vec![(label.into(), headers.into(), content.to_vec())], 0)
}

#[test]
fn blocks_are_found_as_in_go() {
    for (text, found) in [
        ("", (vec![], 0)),
        ("no block", (vec![], 0)),
        ("-----BEGIN A-----\naGk=\n-----END A-----\n", one("A", "", b"hi")),
        ("-----BEGIN A-----\naGk=\n-----END A-----", one("A", "", b"hi")),
        ("-----BEGIN A-----\r\naG\r\nk=\r\n-----END A-----\r\n", one("A", "", b"hi")),
        ("-----BEGIN A----- \n aG\tk= \n-----END A-----\t\n", one("A", "", b"hi")),
        ("-----BEGIN -----\naGk=\n-----END -----\n", one("", "", b"hi")),
        ("-----BEGIN A B-----\n-----END A B-----\n", one("A B", "", b"")),
        ("text\n-----BEGIN A-----\naGk=\n-----END A-----\nmore: text\n", one("A", "", b"hi")),
        (
            "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info:  x:y \n\naGk=\n-----END A-----\n",
            one("A", "Proc-Type=4,ENCRYPTED;DEK-Info=x:y;", b"hi"),
        ),
        // A damaged block is skipped, and the next one is found.
        ("-----BEGIN A-----\na!k=\n-----END A-----\n-----BEGIN B-----\naGk=\n-----END B-----\n", {
            (one("B", "", b"hi").0, 1)
        }),
        ("-----BEGIN A-----\n-----BEGIN B-----\naGk=\n-----END B-----\n", (one("B", "", b"hi").0, 1)),
        ("-----BEGIN A-----\naGk=\n-----END B-----\n", (vec![], 1)),
        ("-----BEGIN A-----\naGk=\n", (vec![], 1)),
        ("-----BEGIN A---\naGk=\n-----END A---\n", (vec![], 1)),
        ("-----BEGIN A-----\naGk\n-----END A-----\n", (vec![], 1)),
        // Only at the start of a line.
        ("x-----BEGIN A-----\naGk=\n-----END A-----\n", (vec![], 0)),
    ] {
        assert_eq!(parsed(text), found, "{text:?}");
    }
}

#[test]
fn blocks_are_written_in_64_columns_with_headers_kept() {
    let mut block = Block::new("A", &[0; 49]);
    let zeros = "A".repeat(64);
    assert_eq!(*encode([&block]), format!("-----BEGIN A-----\n{zeros}\nAA==\n-----END A-----\n"));
    block.content.truncate(48);
    assert_eq!(*encode([&block]), format!("-----BEGIN A-----\n{zeros}\n-----END A-----\n"));
    block.content.clear();
    block.headers = ["X-b", "Proc-Type", "X-a"].map(|name| (name.to_owned(), "v".to_owned())).into();
    let text = "-----BEGIN A-----\nProc-Type: v\nX-a: v\nX-b: v\n\n-----END A-----\n";
    assert_eq!(*encode([&block]), text);
    assert_eq!(*encode([]), "");
    assert_eq!(*encode([&Block::new("CERTIFICATE", b"test")]), {
        "-----BEGIN CERTIFICATE-----\ndGVzdA==\n-----END CERTIFICATE-----\n"
    });
}

/// A tenant's text of a mebibyte takes a fraction of a second; with a quadratic algorithm each of
/// these took minutes.
#[test]
fn no_text_takes_more_than_linear_time() {
    let started = std::time::Instant::now();
    for (repeated, end) in [
        ("-----BEGIN A-----\n", ""),
        ("-----BEGIN A-----\n", "-----END A-----\n"),
        ("-----BEGIN A-----\n", "-----END B-----\n"),
        ("-----BEGIN A:-----\n", "-----END A-----\n"),
        ("-----BEGIN A-----\na:b\n", "-----END A-----\n"),
        ("-----BEGIN A-----\nx-----END A-----\n", ""),
        ("-----BEGIN A-----\n-----END A\n", ""),
        ("-----BEGIN ", "\n-----END "),
    ] {
        let text = repeated.repeat((1 << 20) / repeated.len()) + end;
        let parsed = parse(&text);
        assert!(parsed.blocks.len() <= 1, "{repeated:?}");
    }
    assert!(started.elapsed().as_secs() < 120, "it took {:?}", started.elapsed());
}

proptest! {
    #[test]
    fn written_blocks_are_read_back(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let blocks: Vec<Block> = contents.iter().map(|content| Block::new("SOME KEY", content)).collect();
        let text = encode(&blocks);
        prop_assert!(text.len() <= text.capacity());
        let read = parse(&text);
        prop_assert!(read.blocks == blocks);
        prop_assert_eq!(read.damaged, 0);
    }

    #[test]
    fn no_text_panics(text in "(-----BEGIN |-----END |-----|A|[a-z=:é\\r\\n \\t]{0,4}){0,30}") {
        let again = encode(&parse(&text).blocks);
        prop_assert_eq!(encode(&parse(&again).blocks), again);
    }
}
