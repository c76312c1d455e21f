//! docs/reference/azure-provider.md#chain-order: chains of bare identifiers, and chains of
//! openssl's certificates.

use proptest::prelude::*;

use super::openssl::{AUTHORITY, BARE, NO_SUBJECT_KEY, OpenSsl, ROOT, SERVER};
use crate::formats::chain::{Error, Identifiers, Order, order};

/// Certificates as pairs of own key and issuer's key; 0 stands for an absent identifier.
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
        ("a self-signed one", &[(1, 1)], chain(&[0])),
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
        // The first of two matches is the issuer. The second belongs to no chain, so nothing is
        // sorted.
        ("cross-signed intermediate", &[(1, 2), (2, 3), (2, 4), (3, 0), (4, 0)], as_given(5)),
    ] {
        assert_eq!(ordered(certificates), expected, "{what}");
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let shorter = permutations(last);
    shorter.iter().flat_map(|of| (0..count).map(move |at| [&of[..at], &[last], &of[at..]].concat())).collect()
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
fn chains_of_openssl_are_ordered_from_every_permutation() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    check_all_orders(&["server", "intermediate", "root"].map(|name| openssl.der(name)));
    openssl.certificate("top", "RSA:2048", None, ROOT);
    openssl.certificate("one", "RSA:2048", Some("top"), AUTHORITY);
    openssl.certificate("two", "RSA:2048", Some("one"), AUTHORITY);
    openssl.certificate("leaf", "RSA:2048", Some("two"), NO_SUBJECT_KEY);
    check_all_orders(&["leaf", "two", "one", "top"].map(|name| openssl.der(name)));
}

#[test]
fn identifiers_are_found_among_other_extensions() {
    let openssl = OpenSsl::new();
    openssl.certificate("root", "EC:P-256", None, AUTHORITY);
    let root = Identifiers::of(&openssl.der("root"));
    assert!(root.subject.is_some() && root.subject == root.authority);
    openssl.certificate("plain", "EC:P-256", Some("root"), SERVER);
    assert_eq!(Identifiers::of(&openssl.der("plain")).authority, root.subject);
    // With the issuer's name and serial number after the identifier, and with those alone.
    openssl.certificate("full", "EC:P-256", Some("root"), "authorityKeyIdentifier=keyid:always,issuer:always\n");
    assert_eq!(Identifiers::of(&openssl.der("full")).authority, root.subject);
    openssl.certificate(
        "serial",
        "EC:P-256",
        Some("root"),
        "subjectKeyIdentifier=none\nauthorityKeyIdentifier=issuer:always\n",
    );
    openssl.certificate("bare", "EC:P-256", None, BARE);
    assert_eq!(Identifiers::of(&openssl.der("bare")), Identifiers::default());
    openssl.certificate(
        "empty",
        "EC:P-256",
        None,
        "subjectKeyIdentifier=DER:04:00\nauthorityKeyIdentifier=DER:30:00\n",
    );
    assert_eq!(Identifiers::of(&openssl.der("empty")), Identifiers::default());
    assert_eq!(Identifiers::of(b"hunter2"), Identifiers::default());
}

/// RFC 5280 allows serial numbers of 20 bytes; upstream and this program accept longer ones, too.
#[test]
fn odd_serial_numbers_are_accepted() {
    let openssl = OpenSsl::new();
    openssl.key("odd", "EC:P-256", "odd");
    for serial in ["0", "-5", "0x0102030405060708090a0b0c0d0e0f101112131415161718"] {
        openssl.run(&format!("req -x509 -key odd.key -subj /CN=odd -days 2 -set_serial {serial} -out odd.pem"));
        assert!(Identifiers::of(&openssl.der("odd")).subject.is_some(), "{serial}");
    }
}

proptest! {
    #[test]
    fn the_order_has_each_certificate_once(certificates in prop::collection::vec((0u8..6, 0u8..6), 0..9)) {
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

/// A file of a volume may hold tens of thousands of certificates; a quadratic algorithm took
/// minutes.
#[test]
fn tens_of_thousands_of_certificates_are_ordered_in_linear_time() {
    let started = std::time::Instant::now();
    const COUNT: usize = 50_000;
    let id = |number: usize| Some([&[7; 200][..], &number.to_be_bytes()].concat());
    let mut chain: Vec<Identifiers> =
        (0..COUNT).map(|number| Identifiers { subject: id(number), authority: id(number + 1) }).collect();
    chain.reverse();
    assert_eq!(order(&chain), Ok(Order::Chain((0..COUNT).rev().collect())));
    // One identifier for all: the first is the issuer of the others, and the second is the issuer
    // of the first.
    chain.fill(Identifiers { subject: id(0), authority: id(0) });
    assert_eq!(order(&chain), Err(Error::Cycle));
    assert!(started.elapsed().as_secs() < 120, "it took {:?}", started.elapsed());
}
