use std::collections::{BTreeMap, BTreeSet};

use super::payload;
use crate::node::volume::Group;
use crate::node::volume::layout::{DATA, DATA_TMP, Entry, FileFacts, Root, Step, Tree, digest, plan, repair};

/// A complete volume of these files: path, mode, content; owned by group 0.
fn tree(files: &[(&str, u32, &str)]) -> Tree {
    let mut entries =
        BTreeMap::from([(DATA.to_owned(), Entry::Link("..old".to_owned())), ("..old".to_owned(), Entry::Directory)]);
    let tops: BTreeSet<String> = files.iter().map(|(name, ..)| name.split('/').next().unwrap().to_owned()).collect();
    for top in &tops {
        entries.insert(top.clone(), Entry::Link(format!("{DATA}/{top}")));
    }
    let facts = |mode, content: &str| FileFacts { mode, gid: 0, digest: digest(content.as_bytes()) };
    Tree {
        root: Root { entries, current: Some(tops) },
        files: files.iter().map(|(name, mode, content)| ((*name).to_owned(), facts(*mode, content))).collect(),
    }
}

fn steps(old: &[(&str, u32, &str)], new: &[(&str, u32, &str)]) -> Vec<Step> {
    plan(&tree(old), &payload(new), None, 0, "..new")
}

#[test]
fn nothing_is_done_when_nothing_changed() {
    let same = [("foo", 0o644, "1"), ("nested/bar", 0o400, "2")];
    assert_eq!(steps(&same, &same), []);
}

#[test]
fn content_mode_and_group_each_make_a_new_generation() {
    let old = [("foo", 0o644, "1")];
    for (new, group) in [(("foo", 0o644, "2"), None), (("foo", 0o600, "1"), None), (old[0], Some(Group(2000)))] {
        let steps = plan(&tree(&old), &payload(&[new]), group, 0, "..new");
        assert!(steps.contains(&Step::Switch), "{new:?} {group:?}");
    }
}

#[test]
fn the_steps_of_a_first_write_are_in_order() {
    let steps = plan(&Tree::default(), &payload(&[("a/b/c", 0o644, "1"), ("d", 0o644, "2")]), None, 0, "..new");
    let text = |text: &str| text.to_owned();
    assert_eq!(
        steps,
        [
            Step::MakeDirectory(text("..new")),
            Step::MakeDirectory(text("..new/a")),
            Step::MakeDirectory(text("..new/a/b")),
            Step::WriteFile(0, text("..new/a/b/c")),
            Step::WriteFile(1, text("..new/d")),
            Step::Prepare(text("..new")),
            Step::Switch,
            Step::Link(text("a")),
            Step::Link(text("d")),
        ]
    );
}

/// The table of upstream's writer (docs/reference/csi-driver.md#writer-table). Upstream unlinks
/// removed paths one by one; here they are removed with the old generation, and only names in the
/// root are removed by a step of their own.
#[test]
fn names_that_the_payload_lacks_are_removed_from_the_root() {
    let foo = ("foo.txt", 0o644, "f");
    type Files<'a> = &'a [(&'a str, u32, &'a str)];
    let cases: [(Files<'_>, Files<'_>, &[&str]); 4] = [
        (&[foo, ("bar.txt", 0o644, "b")], &[foo], &["bar.txt"]),
        (&[foo, ("zip/bar.txt", 0o644, "b")], &[foo], &["zip"]),
        (&[foo, ("zip/1/2/3/4/bar.txt", 0o644, "b")], &[foo], &["zip"]),
        (
            &[foo, ("zap/1/2/3/4/bar.txt", 0o644, "b"), ("zap/1/2/magic.txt", 0o644, "m")],
            &[foo, ("zap/1/2/magic.txt", 0o644, "m")],
            &[],
        ),
    ];
    for (old, new, gone) in cases {
        let steps = steps(old, new);
        let removed: BTreeSet<&str> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Remove(name) => Some(name.as_str()),
                Step::MakeDirectory(_) | Step::WriteFile(..) | Step::Prepare(_) | Step::Switch | Step::Link(_) => None,
            })
            .collect();
        let expected: BTreeSet<&str> = gone.iter().copied().chain(["..old"]).collect();
        assert_eq!(removed, expected, "{old:?} → {new:?}");
    }
}

#[test]
fn a_stale_switch_link_is_removed_before_the_new_one_is_made() {
    let mut stale = tree(&[("foo", 0o644, "1")]);
    stale.root.entries.insert(DATA_TMP.to_owned(), Entry::Link("..lost".to_owned()));
    let steps = plan(&stale, &payload(&[("foo", 0o644, "2")]), None, 0, "..new");
    let at = |step: &Step| steps.iter().position(|other| other == step).unwrap();
    assert!(at(&Step::Remove(DATA_TMP.to_owned())) < at(&Step::Prepare("..new".to_owned())));
}

/// The leftovers of several writes would fill a tmpfs that has space for two generations.
#[test]
fn leftovers_of_an_interrupted_write_are_removed_before_the_next_one() {
    let mut interrupted = tree(&[("foo", 0o644, "1")]);
    let stale = Entry::Link(format!("{DATA}/gone"));
    interrupted.root.entries.extend([("..lost".to_owned(), Entry::Directory), ("gone".to_owned(), stale)]);
    let mut unfilled = Tree::default();
    unfilled.root.entries.insert("..lost".to_owned(), Entry::Directory);
    for (tree, gone) in [(interrupted, &["..lost", "gone"][..]), (unfilled, &["..lost"])] {
        let steps = plan(&tree, &payload(&[("foo", 0o644, "2")]), None, 0, "..new");
        let expected: Vec<Step> = gone.iter().map(|name| Step::Remove((*name).to_owned())).collect();
        assert_eq!(steps[..gone.len()], expected, "{steps:?}");
        let again = steps[gone.len()..].iter().filter(|step| expected.contains(step)).count();
        assert_eq!(again, 0, "{steps:?}");
    }
}

#[test]
fn a_repair_completes_links_and_removes_leftovers() {
    let mut interrupted = tree(&[("foo", 0o644, "1"), ("bar", 0o644, "2")]).root;
    interrupted.entries.remove("foo");
    interrupted.entries.insert("gone".to_owned(), Entry::Link(format!("{DATA}/gone")));
    interrupted.entries.insert("..lost".to_owned(), Entry::Directory);
    interrupted.entries.insert("bar".to_owned(), Entry::File);
    interrupted.entries.insert("stranger".to_owned(), Entry::File);
    let text = |text: &str| text.to_owned();
    let steps: BTreeSet<String> = repair(&interrupted).iter().map(|step| format!("{step:?}")).collect();
    let expected = [
        Step::Link(text("foo")),
        Step::Remove(text("bar")),
        Step::Link(text("bar")),
        Step::Remove(text("gone")),
        Step::Remove(text("..lost")),
    ];
    assert_eq!(steps, expected.iter().map(|step| format!("{step:?}")).collect());
}

#[test]
fn an_unfilled_volume_has_no_repair() {
    let dangling = BTreeMap::from([(DATA.to_owned(), Entry::Link("..nowhere".to_owned()))]);
    assert_eq!(repair(&Root { entries: dangling, current: None }), []);
    assert_eq!(repair(&Root::default()), []);
}
