use super::*;

#[test]
fn histories_are_kept_once() {
    let world = World::new();
    let public = world.private.public();
    put_history(&world.repository, public, 2, b"first").unwrap();
    put_history(&world.repository, public, 2, b"second").unwrap();
    assert_eq!(world.reader().history(2).unwrap().unwrap(), b"first");
    assert_eq!(world.reader().history(3).unwrap(), None);
    assert_eq!(
        known_timelines(&world.repository)
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn reservations_never_collide() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer.append(SEGMENT, b"x", 1).unwrap();
    let reserve_one = |number: usize| reserve(&world.repository, &format!("r{number}")).unwrap();
    let claimed: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || reserve_one(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let distinct: std::collections::BTreeSet<u32> = claimed.iter().copied().collect();
    assert_eq!(distinct.len(), 8, "{claimed:?}");
    assert!(distinct.first() > Some(&1));
    put_history(&world.repository, world.private.public(), 100, b"x").unwrap();
    assert_eq!(reserve(&world.repository, "late").unwrap(), 101);
    release(&world.repository, 101, "late").unwrap();
    assert_eq!(reserve(&world.repository, "later").unwrap(), 101);
}

#[test]
fn heads_are_listed_in_order_and_never_replaced() {
    let world = World::new();
    for (epoch, size) in [(2, 3), (1, 300), (1, 20)] {
        put_head(
            &world.repository,
            "0",
            epoch,
            size,
            format!("{epoch}/{size}").as_bytes(),
        )
        .unwrap();
    }
    put_head(&world.repository, "0", 1, 20, b"1/20").unwrap();
    assert!(matches!(
        put_head(&world.repository, "0", 1, 20, b"other"),
        Err(Error::Store(StoreError::AlreadyExists { .. }))
    ));
    let found: Vec<(u32, u64)> = heads(&world.repository, "0")
        .unwrap()
        .iter()
        .map(|h| (h.epoch, h.size))
        .collect();
    assert_eq!(found, [(1, 20), (1, 300), (2, 3)]);
    assert_eq!(heads(&world.repository, "1").unwrap(), []);
}

#[test]
fn a_repository_opens_again_and_is_away_without_its_marker() {
    let world = World::new();
    let again = Repository::init(Arc::new(world.memory.clone())).unwrap();
    assert_eq!(again.id(), world.repository.id());
    world.memory.delete(MARKER).unwrap();
    let error = Repository::open(Arc::new(world.memory.clone())).unwrap_err();
    assert!(
        matches!(error, Error::Store(StoreError::Away { .. })),
        "{error}"
    );
}
