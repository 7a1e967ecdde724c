//! Signed heads come once a second under load. A later head of the same epoch vouches for all that an earlier one vouched for, so
//! the old ones are thinned (audit_log.md §5): what goes is the fineness in time, never an entry's cover.

use std::collections::BTreeSet;

use super::plan::{Action, Plan, Subject};
use super::rules::Rules;
use super::survey::Survey;
use crate::heads::HeadName;
use crate::store::ObjectInfo;

/// Around the end of an epoch, where a recovery may have cut it, so many heads stay on each side.
const AROUND_AN_END: usize = 100;

pub(super) fn plan(survey: &Survey, window_from: i64, rules: &Rules, plan: &mut Plan) {
    let mut thinned = Vec::new();
    let mut heads: Vec<&(ObjectInfo, HeadName)> = survey.heads.iter().collect();
    heads.sort_by(|a, b| a.1.cmp(&b.1));
    let same_epoch = |a: &&(ObjectInfo, HeadName), b: &&(ObjectInfo, HeadName)| {
        (&a.1.log, a.1.epoch) == (&b.1.log, b.1.epoch)
    };
    for epoch in heads.chunk_by(same_epoch) {
        thinned.extend(of_epoch(epoch, window_from, rules.heads_spacing_micros));
    }
    let gone: BTreeSet<&str> = thinned.iter().map(|head| head.name.as_str()).collect();
    let all = survey.heads.iter().map(|(object, _)| object);
    let kept: Vec<&ObjectInfo> = all
        .filter(|object| !gone.contains(object.name.as_str()))
        .collect();
    let about = (Subject::Heads, "");
    if !kept.is_empty() {
        let reason =
            "of the window, around the ends of epochs, and one in each stretch of time before";
        plan.decide(about, Action::Keep, reason, &kept);
    }
    if !thinned.is_empty() {
        let reason = "older than the window, and a later head of their epoch that is kept vouches for the same entries";
        plan.decide(about, Action::Sweep, reason, &thinned);
    }
    plan.heads = thinned.iter().map(|object| object.name.clone()).collect();
}

/// Heads of one epoch by size. By the store's time of them: what they say themselves only their key's owner can check.
fn of_epoch<'a>(
    heads: &[&'a (ObjectInfo, HeadName)],
    window_from: i64,
    spacing: i64,
) -> Vec<&'a ObjectInfo> {
    let middle = AROUND_AN_END.min(heads.len())..heads.len().saturating_sub(AROUND_AN_END);
    let mut last_stretch = None;
    let mut thinned = Vec::new();
    for (object, _) in heads.get(middle).unwrap_or(&[]) {
        let stretch = object.modified_micros.div_euclid(spacing.max(1));
        if object.modified_micros >= window_from || last_stretch != Some(stretch) {
            last_stretch = Some(stretch);
            continue;
        }
        thinned.push(object);
    }
    thinned
}
