//! A first start as people and their scripts see it: without `--json`, and with somebody who waits for readiness.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
};

use rustix::process::Signal;

use crate::{
    instance::Folder,
    process::{TIMEOUT, within},
};

/// The status line of an answer; `None` while nobody answers.
fn readiness(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = "GET /api/v1/health/readiness HTTP/1.1\r\nHost: bre\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}

#[test]
fn who_waits_for_readiness_finds_what_a_start_leaves_and_people_read_no_codes() {
    let mut folder = Folder::new();
    // As systemd says that its journal keeps what is printed.
    let out = std::fs::File::create(folder.join("command-0.out")).unwrap();
    let out = out.metadata().unwrap();
    let journal = format!("{}:{}", out.dev(), out.ino());
    folder
        .environment
        .push(("JOURNAL_STREAM".to_owned(), journal));
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let data = folder.join("data");
    let data = data.to_str().unwrap();
    let engine = folder.start(&["up", "--port", &port.to_string(), "--data", data]);
    let ready = within(TIMEOUT, || {
        readiness(port).filter(|line| line.starts_with("HTTP/1.1 200"))
    });
    // Looked at before anything else: it has to be there by now, not soon.
    let key = std::fs::read_to_string(folder.join("data/keys/first_api_key"));
    assert!(ready.is_some(), "it was never ready: {}", engine.err());
    let key = key.unwrap().trim().to_owned();
    assert!(key.starts_with("bre_"));

    let told = within(TIMEOUT, || Some(engine.out()).filter(|out| !out.is_empty()));
    let told = told.unwrap();
    assert!(told.contains("first_api_key"), "{told}");
    // The live key is in its file, and nowhere else.
    for kept in [told, engine.err()] {
        assert!(!kept.contains(&key), "{kept}");
    }
    let status = folder.run(&["--data", data, "status"]);
    status.exits(0);
    let first: Vec<&str> = status.out.lines().take(3).collect();
    for (line, name) in first.iter().zip(["state ", "RPO now ", "what to do "]) {
        assert!(line.starts_with(name), "{}", status.out);
    }
    assert!(first[0].contains("sound"), "{}", status.out);
    let stream = status
        .out
        .lines()
        .find(|line| line.starts_with("WAL stream"));
    assert!(stream.unwrap().contains("attached; "), "{}", status.out);
    for (what, text) in [
        ("the log", engine.err()),
        ("status", status.out.clone()),
        ("the start", engine.out()),
    ] {
        assert!(
            !text.contains('\u{1b}'),
            "{what} has codes for a terminal: {text}"
        );
    }
    assert!(!status.out.contains(['{', '}']), "{}", status.out);
    assert!(!engine.err().is_empty(), "nothing was logged");
    engine.signal(Signal::TERM);
    engine.wait().exits(0);
}
