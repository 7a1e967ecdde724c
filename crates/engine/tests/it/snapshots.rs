//! `bre snapshot`, with a repository in a folder and no engine: real files, real keys.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};

use crate::{instance::Folder, process::Output};

const SETTINGS: &str = "\
# how long
[backup]
full_days = 31
schema_to = \"https://bob:hunter22@git.example/x.git\"
";

struct Fixture {
    folder: Folder,
}

impl Fixture {
    fn new() -> Self {
        let desk = Self {
            folder: Folder::new(),
        };
        for name in ["repository", "keys", "runbooks"] {
            fs::create_dir_all(desk.data(name)).unwrap();
        }
        let store = PosixStore::new(desk.data("repository"));
        Repository::init(Arc::new(store)).unwrap();
        let key = RecipientPrivate::generate().unwrap();
        key.store(&desk.data("keys/recipient.key")).unwrap();
        key.public()
            .store(&desk.data("keys/recipient.pub"))
            .unwrap();
        let chunk_id = ChunkIdKey::generate().unwrap();
        chunk_id.store(&desk.data("keys/chunk_id.key")).unwrap();
        fs::write(desk.data("bre.toml"), SETTINGS).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(desk.data("bre.toml"), mode).unwrap();
        fs::write(desk.data("runbooks/own.md"), "# Ours\n").unwrap();
        desk
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.folder.join("data");
        let first = ["--data", data.to_str().unwrap(), "snapshot"];
        self.folder.run(&[&first[..], arguments].concat())
    }

    /// Every file of the repository and the cache.
    fn kept(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut folders = vec![self.data("repository"), self.data("cache")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        files
    }
}

#[test]
fn the_configuration_is_taken_compared_and_brought_back() {
    let desk = Fixture::new();
    let first = desk.bre(&["run", "configuration", "--json"]).json();
    assert_eq!(
        (&first["is_new"], &first["verified"], &first["documents"]),
        (&true.into(), &true.into(), &3.into()),
        "{first}"
    );
    let same = desk.bre(&["run", "configuration", "--json"]).json();
    assert_eq!(
        (&same["is_new"], &same["id"]),
        (&false.into(), &first["id"])
    );
    // Nothing of it, in the repository or beside it.
    for (path, bytes) in desk.kept() {
        for needle in ["hunter22", "full_days", "own.md", "git.example"] {
            let shows = bytes
                .windows(needle.len())
                .any(|it| it == needle.as_bytes());
            let named = path.to_string_lossy().contains(needle);
            assert!(!shows && !named, "{needle} in {}", path.display());
        }
    }
    let shown = desk.bre(&["show", "configuration", "--document", "settings/bre.toml"]);
    assert!(shown.exits(0).out.contains("full_days = 31") && !shown.out.contains("hunter22"));

    fs::write(desk.data("bre.toml"), SETTINGS.replace("31", "32")).unwrap();
    fs::write(desk.data("runbooks/own.md"), "# Ours\nmore\n").unwrap();
    fs::write(desk.data("runbooks/new.md"), "# New\n").unwrap();
    let second = desk.bre(&["run", "configuration", "--json"]).json();
    let changes = &second["changes"];
    assert_eq!(changes["added"], serde_json::json!(["runbooks/new.md"]));
    assert_eq!(changes["removed"], 0);
    let id = first["id"].as_str().unwrap();
    let diff = desk.bre(&["diff", "configuration", id]);
    for line in [
        "-full_days = 31",
        "+full_days = 32",
        "added       runbooks/new.md",
        "+more",
    ] {
        assert!(diff.exits(0).out.contains(line), "{line} in {diff:?}");
    }
    assert!(!diff.out.contains("hunter22"), "{diff:?}");
    let newest = desk.bre(&["diff", "configuration", "--json"]).json();
    assert_eq!(newest["same"], true, "{newest}");

    // Shown, refused without a word of consent, done, and nothing is left to do.
    let plan = desk.bre(&["restore", "configuration", id, "--in-place", "--dry-run"]);
    assert!(plan.exits(0).out.contains("replace"), "{plan:?}");
    desk.bre(&["restore", "configuration", id, "--in-place"])
        .refused(&["bre.toml", "--yes"]);
    let before = fs::read_to_string(desk.data("bre.toml")).unwrap();
    assert!(before.contains("32"), "nothing was written yet");
    desk.bre(&["restore", "configuration", id, "--in-place", "--yes"])
        .exits(0);
    assert_eq!(fs::read_to_string(desk.data("bre.toml")).unwrap(), SETTINGS);
    let mode = fs::metadata(desk.data("bre.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        desk.data("runbooks/new.md").exists(),
        "what it does not hold stays"
    );
    let again = desk.bre(&["restore", "configuration", id, "--in-place", "--yes"]);
    assert!(again.exits(0).out.contains("nothing to do"), "{again:?}");
    let elsewhere = desk.folder.join("elsewhere");
    let to = elsewhere.to_str().unwrap();
    desk.bre(&[
        "restore",
        "configuration",
        id,
        "--to",
        to,
        "--yes",
        "--json",
    ])
    .json();
    assert_eq!(
        fs::read_to_string(elsewhere.join("settings/bre.toml")).unwrap(),
        SETTINGS
    );
    assert!(elsewhere.join("plan.json").exists());

    let list = desk.bre(&["list"]);
    let lines: Vec<&str> = list.exits(0).out.lines().collect();
    assert!(
        lines.len() == 3 && lines[1].contains(id) && lines[1].ends_with("verified"),
        "{list:?}"
    );
}

#[test]
fn a_host_that_cannot_read_takes_and_lists_and_says_what_it_needs_for_the_rest() {
    let desk = Fixture::new();
    fs::rename(desk.data("keys/recipient.key"), desk.folder.join("away")).unwrap();
    let taken = desk.bre(&["run", "configuration", "--json"]).json();
    assert_eq!(taken["verified"], false);
    let listed = desk.bre(&["list", "configuration", "--json"]).json();
    assert_eq!(listed["snapshots"][0]["id"], taken["id"]);
    assert_eq!(
        listed["snapshots"][0]["verified_at_micros"],
        serde_json::Value::Null
    );
    let shown = desk.bre(&["show", "configuration"]);
    assert!(shown.exits(0).out.contains("sealed"), "{shown:?}");
    for command in [
        &["diff", "configuration"][..],
        &["restore", "configuration", "--in-place", "--yes"],
        &["show", "configuration", "--document", "settings/bre.toml"],
    ] {
        desk.bre(command).exits(3).refused(&["private key"]);
    }
    desk.bre(&["show", "configuration", "2020"])
        .refused(&["bre snapshot list"]);
    desk.bre(&["show", "elsewhere"])
        .refused(&["no snapshot of elsewhere"]);
    desk.bre(&["list", "../x"]).refused(&["no component"]);
    desk.bre(&["run", "elsewhere"]).exits(2);
    let link = desk.data("runbooks/link.md");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    desk.bre(&["run", "configuration"])
        .exits(3)
        .refused(&["link.md"]);
}
