//! Microsoft's SDKs for JavaScript against the emulator: clients that share no code with it.

use crate::sdk_machine::{Machine, assert_pinned};
use crate::sdk_reads::Objects;
use crate::{sdk_logins, sdk_reads};

#[test]
fn each_way_of_logging_in_works_and_each_mistake_is_named() {
    Machine::run(sdk_logins::NAMES, |machine, emulator| {
        sdk_logins::set_up(machine, emulator);
        let report = machine.javascript("logins.mjs", &[]);
        assert_pinned(&report, "javascript/package.json");
        sdk_logins::check(emulator, &report, &sdk_logins::JAVASCRIPT);
    });
}

#[test]
fn every_version_of_every_object_is_read_page_by_page() {
    Machine::run(sdk_reads::NAMES, |machine, emulator| {
        let objects = Objects::new(machine, emulator);
        let report = machine.javascript("reads.mjs", &[]);
        assert_pinned(&report, "javascript/package.json");
        objects.check(emulator, &report);
    });
}
