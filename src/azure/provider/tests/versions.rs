//! docs/reference/azure-provider.md#versions: which versions a history holds.

use super::*;
use proptest::prelude::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn version(id: &str, created: impl Into<Option<i64>>) -> ListedVersion {
    ListedVersion { id: id.to_owned(), has_attributes: true, enabled: Some(true), created: created.into() }
}

fn pick(history: i32, start: &str, listed: &[ListedVersion]) -> Result<Vec<String>, String> {
    let spec = object(&secret(&format!("objectVersionHistory: {history}\nobjectVersion: {start:?}"))).unwrap();
    newest(&spec, listed).map_err(|error| error.to_string())
}

fn owned(ids: &[&str]) -> Result<Vec<String>, String> {
    Ok(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn a_history_of_n_is_n_versions_newest_first() {
    let five = [version("c", 30), version("e", 50), version("a", 10), version("d", 40), version("b", 20)];
    for start in ["", "latest"] {
        assert_eq!(pick(2, start, &five), owned(&["e", "d"]));
        assert_eq!(pick(5, start, &five), owned(&["e", "d", "c", "b", "a"]));
        assert_eq!(pick(200, start, &five), owned(&["e", "d", "c", "b", "a"]));
        assert_eq!(pick(i32::MAX, start, &five[..2]), owned(&["e", "c"]));
        assert_eq!(pick(1, start, &five), owned(&["e"]));
        assert_eq!(pick(-1, start, &five), owned(&["e"]));
    }
}

#[test]
fn a_history_begins_at_the_version_of_the_class() {
    let four = [version("x", 50), version(A, 40), version("c", 30), version("b", 20)];
    assert_eq!(pick(2, A, &four), owned(&[A, "c"]));
    assert_eq!(pick(9, A, &four), owned(&[A, "c", "b"]));
}

#[test]
fn disabled_and_bare_entries_are_skipped_and_dates_are_optional() {
    let listed = [
        version("none", None),
        ListedVersion { enabled: Some(false), ..version("disabled", 90) },
        ListedVersion { has_attributes: false, ..version("bare", 80) },
        ListedVersion { enabled: None, ..version("silent", 70) },
        version("old", -1),
    ];
    assert_eq!(pick(9, "", &listed), owned(&["silent", "none", "old"]));
}

#[test]
fn versions_of_one_second_stand_in_the_order_of_their_ids() {
    let mut listed = [version("b", 7), version("a", 7), version("c", 7)];
    for _ in 0..3 {
        listed.rotate_left(1);
        assert_eq!(pick(2, "", &listed), owned(&["a", "b"]));
    }
}

#[test]
fn a_start_that_is_not_there_is_an_error() {
    let upper = A.to_uppercase();
    assert_eq!(
        pick(2, &upper, &[version(A, 1), version("b", 2)]).unwrap_err(),
        format!(
            "secret/secret1: objectVersion \"{upper}\" is not among the object's 2 versions; set objectVersion to one that az \
             keyvault secret list-versions shows, or leave it out to begin with the newest"
        )
    );
    let disabled = ListedVersion { enabled: Some(false), ..version(A, 1) };
    assert_eq!(
        pick(2, A, std::slice::from_ref(&disabled)).unwrap_err(),
        format!(
            "secret/secret1: objectVersion \"{A}\" is disabled; enable it, set objectVersion to another one, or leave it out \
             to begin with the newest"
        )
    );
    assert_eq!(
        pick(2, "", &[disabled]).unwrap_err(),
        "secret/secret1: none of the object's 1 versions is enabled; enable one, or make a new one"
    );
    assert!(pick(2, "", &[]).is_err());
}

proptest! {
    #[test]
    fn never_more_than_n_and_never_out_of_order(created in prop::collection::vec(0i64..5, 1..12), history in 2i32..8) {
        let listed: Vec<_> = created.iter().enumerate().map(|(at, when)| version(&format!("{at:02}"), *when)).collect();
        let picked = pick(history, "", &listed).unwrap();
        prop_assert_eq!(picked.len(), listed.len().min(usize::try_from(history).unwrap()));
        let keys: Vec<_> = picked.iter().map(|id| (-created[id.parse::<usize>().unwrap()], id.clone())).collect();
        prop_assert!(keys.is_sorted());
    }
}
