//! docs/reference/azure-provider.md#chain-order: the order of chains, first by identifiers alone,
//! then by openssl's certificates.

use proptest::prelude::*;

use super::openssl::{AUTHORITY, BARE, Lab, NO_SUBJECT_KEY, ROOT, SERVER};
use crate::formats::chain::{Error, Identifiers, Order, order};

/// Certificates as pairs of own key and issuer's key; 0 for none.
fn ordered(certificates: &[(u8, u8)]) -> Result<Order, Error> {
    let id = |key: u8| (key != 0).then(|| vec![key]);
    let all = certificates.iter().map(|(own, issuer)| Identifiers { subject: id(*own), authority: id(*issuer) });
    order(&all.collect::<Vec<_>>())
}

#[test]
fn chains_are_ordered_by_identifiers_alone() {
    let as_given = |count| Ok(Order::AsGiven((0..count).collect()));
    let chain = |order: &[usize]| Ok(Order::Chain(order.to_vec()));
    for (what, certificates, expected) in [
        ("one", &[(1, 0)][..], chain(&[0])),
        ("one that signed itself", &[(1, 1)], chain(&[0])),
        ("one without identifiers", &[(0, 0)], chain(&[0])),
        ("leaf, root, intermediate", &[(1, 2), (3, 3), (2, 3)], chain(&[0, 2, 1])),
        ("root first, leaf without own identifier", &[(3, 0), (2, 3), (0, 2)], chain(&[2, 1, 0])),
        ("none", &[], Err(Error::Empty)),
        ("two copies of a root that names itself", &[(1, 1), (1, 1)], Err(Error::NoLeaf(2))),
        ("two copies of a root that does not", &[(1, 0), (1, 0)], as_given(2)),
        ("leaf and two roots that name themselves", &[(1, 2), (2, 2), (2, 2)], Err(Error::Cycle)),
        ("leaf and two roots that do not", &[(1, 2), (2, 0), (2, 0)], as_given(3)),
        ("two leaves", &[(1, 3), (2, 3), (3, 0)], as_given(3)),
        ("an intermediate is missing", &[(4, 4), (1, 2), (3, 4)], as_given(3)),
        ("no identifiers", &[(0, 0), (0, 0)], as_given(2)),
        ("two that signed each other", &[(1, 2), (2, 1)], Err(Error::NoLeaf(2))),
        ("leaf above such a pair", &[(3, 1), (1, 2), (2, 1)], Err(Error::Cycle)),
        // The first of two that fit is the issuer; the other one is left over, so nothing is sorted.
        ("cross-signed intermediate", &[(1, 2), (2, 3), (2, 4), (3, 0), (4, 0)], as_given(5)),
    ] {
        assert_eq!(ordered(certificates), expected, "{what}");
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let shorter = permutations(last);
    shorter.iter().flat_map(|one| (0..count).map(move |at| [&one[..at], &[last], &one[at..]].concat())).collect()
}

fn check_all_orders(chain: &[Vec<u8>]) {
    for permutation in permutations(chain.len()) {
        let given: Vec<Identifiers> = permutation.iter().map(|at| Identifiers::of(&chain[*at])).collect();
        let Ok(Order::Chain(order)) = order(&given) else { panic!("{permutation:?} has no order") };
        let seen: Vec<usize> = order.iter().map(|at| permutation[*at]).collect();
        assert_eq!(seen, (0..chain.len()).collect::<Vec<_>>(), "{permutation:?}");
    }
}

#[test]
fn chains_of_openssl_are_ordered_from_every_order() {
    let lab = Lab::new();
    lab.chain("EC:P-256");
    check_all_orders(&["server", "intermediate", "root"].map(|name| lab.der(name)));
    lab.certificate("top", "RSA:2048", None, ROOT);
    lab.certificate("one", "RSA:2048", Some("top"), AUTHORITY);
    lab.certificate("two", "RSA:2048", Some("one"), AUTHORITY);
    lab.certificate("leaf", "RSA:2048", Some("two"), NO_SUBJECT_KEY);
    check_all_orders(&["leaf", "two", "one", "top"].map(|name| lab.der(name)));
}

#[test]
fn identifiers_are_found_in_any_company() {
    let lab = Lab::new();
    lab.certificate("root", "EC:P-256", None, AUTHORITY);
    let root = Identifiers::of(&lab.der("root"));
    assert!(root.subject.is_some() && root.subject == root.authority);
    lab.certificate("plain", "EC:P-256", Some("root"), SERVER);
    assert_eq!(Identifiers::of(&lab.der("plain")).authority, root.subject);
    // With the issuer's name and serial number behind the identifier, and with those alone.
    lab.certificate("full", "EC:P-256", Some("root"), "authorityKeyIdentifier=keyid:always,issuer:always\n");
    assert_eq!(Identifiers::of(&lab.der("full")).authority, root.subject);
    lab.certificate(
        "serial",
        "EC:P-256",
        Some("root"),
        "subjectKeyIdentifier=none\nauthorityKeyIdentifier=issuer:always\n",
    );
    lab.certificate("bare", "EC:P-256", None, BARE);
    assert_eq!(Identifiers::of(&lab.der("bare")), Identifiers::default());
    lab.certificate("empty", "EC:P-256", None, "subjectKeyIdentifier=DER:04:00\nauthorityKeyIdentifier=DER:30:00\n");
    assert_eq!(Identifiers::of(&lab.der("empty")), Identifiers::default());
    assert_eq!(Identifiers::of(b"hunter2"), Identifiers::default());
}

/// RFC 5280 allows serial numbers of 20 bytes; upstream takes longer ones too, and so do we.
#[test]
fn odd_serial_numbers_do_not_matter() {
    let lab = Lab::new();
    lab.key("odd", "EC:P-256", "odd");
    for serial in ["0", "-5", "0x0102030405060708090a0b0c0d0e0f101112131415161718"] {
        lab.openssl(&format!("req -x509 -key odd.key -subj /CN=odd -days 2 -set_serial {serial} -out odd.pem"));
        assert!(Identifiers::of(&lab.der("odd")).subject.is_some(), "{serial}");
    }
}

proptest! {
    #[test]
    fn every_certificate_comes_out_once(certificates in prop::collection::vec((0u8..6, 0u8..6), 0..9)) {
        if let Ok(Order::Chain(mut order) | Order::AsGiven(mut order)) = ordered(&certificates) {
            order.sort_unstable();
            prop_assert_eq!(order, (0..certificates.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Identifiers::of(&bytes);
    }
}

/// A file of a volume may hold tens of thousands of certificates; by pairs, this took minutes.
#[test]
fn tens_of_thousands_of_certificates_are_ordered_in_linear_time() {
    let began = std::time::Instant::now();
    const COUNT: usize = 50_000;
    let id = |number: usize| Some([&[7; 200][..], &number.to_be_bytes()].concat());
    let mut chain: Vec<Identifiers> =
        (0..COUNT).map(|number| Identifiers { subject: id(number), authority: id(number + 1) }).collect();
    chain.reverse();
    assert_eq!(order(&chain), Ok(Order::Chain((0..COUNT).rev().collect())));
    // All of one name: each is the first one's child, and the first one is the second one's.
    chain.fill(Identifiers { subject: id(0), authority: id(0) });
    assert_eq!(order(&chain), Err(Error::Cycle));
    assert!(began.elapsed().as_secs() < 30, "it took {:?}", began.elapsed());
}
