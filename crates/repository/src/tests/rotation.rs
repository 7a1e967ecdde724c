use super::*;
use crate::keys::{not_sealed_to, recipients, retire, rewrap};

const ID: &str = "20261123T081530Z-00000001";

/// A backup, a whole segment, a tail and a history: a data key each, or more.
fn world() -> World {
    let world = World::new();
    world.backup(ID).unwrap();
    let mut writer = world.writer(SEGMENT).unwrap();
    let end = 2 * SEGMENT + 100;
    writer.append(SEGMENT, &wal(SEGMENT, end), 1).unwrap();
    writer.finish().unwrap();
    put_history(
        &world.repository,
        world.private.public(),
        2,
        b"1\t0/20000\tx\n",
    )
    .unwrap();
    world
}

fn reads(world: &World, private: &RecipientPrivate) -> Result<()> {
    let backup = BackupReader::open(&world.repository, private, ID)?;
    assert_eq!(backup.verify(1, &|_| {})?.damaged, []);
    let reader = WalReader::new(&world.repository, private);
    let end = 2 * SEGMENT + 100;
    assert!(reader.bytes(1, SEGMENT, end)? == wal(SEGMENT, end));
    assert!(reader.history(2)?.is_some());
    Ok(())
}

#[test]
fn a_rotation_rewrites_no_data_and_then_the_old_key_can_go() {
    let world = world();
    let data = |world: &World| {
        let mut names = world.names("");
        names.retain(|name| !name.starts_with("wraps/"));
        names
    };
    let (before, old, new) = (
        data(&world),
        &world.private,
        RecipientPrivate::generate().unwrap(),
    );
    let missing = not_sealed_to(&world.repository, new.public()).unwrap();
    let done = rewrap(&world.repository, old, &new, &()).unwrap();
    assert_eq!(
        (done.wrapped, done.data_keys, done.foreign),
        (missing, missing, 0)
    );
    assert!(missing >= 3, "{done:?}");
    assert_eq!(before, data(&world));
    reads(&world, old).unwrap();
    reads(&world, &new).unwrap();
    assert_eq!(
        rewrap(&world.repository, old, &new, &()).unwrap().wrapped,
        0
    );

    let old_id = old.public().id();
    assert!(retire(&world.repository, &new.public().id(), &new, &()).is_err());
    assert_eq!(
        retire(&world.repository, &old_id, &new, &()).unwrap(),
        missing
    );
    assert_eq!(
        recipients(&world.repository).unwrap(),
        [new.public().id()].into()
    );
    reads(&world, &new).unwrap();
    let error = reads(&world, old).unwrap_err().to_string();
    for part in [&new.public().id(), &old_id, ID] {
        assert!(error.contains(part), "{error}");
    }
}

/// Killed at each of its writes: both keys are as good as before, and a repeat finishes.
#[test]
fn a_rotation_killed_at_any_write_is_finished_by_a_repeat() {
    let mut number = 0;
    loop {
        let world = world();
        let (old, new) = (&world.private, RecipientPrivate::generate().unwrap());
        world.faults.crash_at_write(Some(number));
        let outcome = rewrap(&world.repository, old, &new, &());
        world.faults.crash_at_write(None);
        reads(&world, old).unwrap();
        rewrap(&world.repository, old, &new, &()).unwrap();
        reads(&world, &new).unwrap();

        world.faults.crash_at_write(Some(number));
        let retired = retire(&world.repository, &old.public().id(), &new, &());
        world.faults.crash_at_write(None);
        reads(&world, &new).unwrap();
        retire(&world.repository, &old.public().id(), &new, &()).unwrap();
        reads(&world, &new).unwrap();
        if outcome.is_ok() && retired.is_ok() {
            assert!(number >= 3, "only {number} writes were killed");
            return;
        }
        number += 1;
    }
}

/// A data key that came meanwhile, or a new wrap that does not open, keeps all the old ones.
#[test]
fn nothing_is_retired_while_one_data_key_needs_it() {
    let world = world();
    let (old, new) = (&world.private, RecipientPrivate::generate().unwrap());
    rewrap(&world.repository, old, &new, &()).unwrap();
    // Written with the old public key by a host that has not heard of the new one.
    let _late = world.writer(3 * SEGMENT).unwrap();
    let before = world.names("wraps/");
    let error = retire(&world.repository, &old.public().id(), &new, &()).unwrap_err();
    assert!(error.to_string().contains("nothing was deleted"), "{error}");
    assert_eq!(not_sealed_to(&world.repository, new.public()).unwrap(), 1);
    assert_eq!(before, world.names("wraps/"));

    rewrap(&world.repository, old, &new, &()).unwrap();
    let new_id = new.public().id();
    let wrap = world
        .names("wraps/")
        .into_iter()
        .find(|name| name.ends_with(&new_id))
        .unwrap();
    world.memory.tamper(&wrap, |bytes| bytes[100] ^= 1);
    let count = world.names("wraps/").len();
    assert!(retire(&world.repository, &old.public().id(), &new, &()).is_err());
    assert!(
        rewrap(&world.repository, old, &new, &()).is_err(),
        "a bad wrap is told"
    );
    assert_eq!(world.names("wraps/").len(), count);
}
