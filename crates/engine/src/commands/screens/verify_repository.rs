use super::*;
use crate::commands::screens::{at, readable};
use repository::read_back::{ClassReport, ObjectClass, TimelineContinuity};

#[test]
fn a_repository() {
    let class = |class, objects, bytes, findings, not_opened| ClassReport {
        class,
        objects,
        bytes,
        not_opened,
        cold: 0,
        gone: 0,
        findings,
    };
    let finding = Finding {
        class: ObjectClass::Pack,
        object: "packs/ab/abcd".to_owned(),
        what: "its tag does not match".to_owned(),
        remedy: "take a full backup: bre backup run".to_owned(),
    };
    let read = ReadBack {
        classes: vec![
            class(ObjectClass::Format, 1, 120, 0, 0),
            class(ObjectClass::Pack, 1_204, 987_654_321, 1, 0),
            class(ObjectClass::WalSegment, 77, 1_234_567, 0, 3),
        ],
        findings: vec![finding],
        notes: Vec::new(),
        timelines: vec![TimelineContinuity {
            timeline: 1,
            from_lsn: 0x300_0028,
            to_lsn: 0x1_0300_0028,
            until_micros: at("10:30"),
            gaps: Vec::new(),
        }],
        newest: None,
        closed: vec!["no private key is here".to_owned()],
        cancelled: false,
    };
    let report = RepositoryReport {
        repository: "/srv/bre/repository".to_owned(),
        verdict: Verdict::of(&read),
        not_opened: read.not_opened(),
        read,
    };
    insta::assert_snapshot!("verify_repository", readable(sentences(&report)));
}
