#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::docker::Credentials;

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn profile(secrets: &str) -> Profile {
    let text = format!(
        "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\n\
         [driver]\nflavor = \"none\"\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n[secrets]\n{secrets}"
    );
    crate::profile::parse("t.toml", &text).unwrap_or_else(|error| panic!("{error:?}"))
}

fn find(secrets: &str, folder: &Path) -> Result<Resolved> {
    let environment =
        [("SET".to_owned(), "from the environment".to_owned()), ("EMPTY".to_owned(), String::new())];
    block(resolve(&profile(secrets), &environment.into(), folder))
}

#[test]
fn values_come_from_where_the_profile_says() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "in a file\n\n").unwrap();
    std::fs::set_permissions(folder.path().join("token"), PermissionsExt::from_mode(0o600)).unwrap();
    let file = folder.path().join("token").display().to_string();
    let found = find(
        &format!(
            "A = {{ env = \"SET\" }}\nB = {{ env = \"EMPTY\" }}\nC = {{ file = \"{file}\" }}\nD = {{ file = \"/nowhere/x\" }}\n\
             E = {{ command = [\"printf\", \"%s\\n\", \"$HOME `id`\"] }}\nF = {{ credential = \"f\" }}\n"
        ),
        folder.path(),
    )
    .unwrap();
    let value = |name| found.values.get(name).map(|value| value.expose_secret().to_owned());
    assert_eq!(value("A").as_deref(), Some("from the environment"));
    assert_eq!(value("C").as_deref(), Some("in a file\n"));
    assert_eq!(value("E").as_deref(), Some("$HOME `id`"));
    assert_eq!(found.absent.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["B", "D", "F"]);
    assert!(!format!("{found:?}").contains("environment\""));
}

#[test]
fn what_is_not_shut_or_not_a_value_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    std::fs::write(&open, "s3cret").unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o640)).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&open, &link).unwrap();
    for (source, part) in [
        (format!("{{ file = \"{}\" }}", open.display()), "others may open it: mode 0640"),
        (format!("{{ file = \"{}\" }}", link.display()), "is a link"),
        (
            "{ command = [\"sh\", \"-c\", \"echo s3cret; echo s3cret >&2; exit 3\"] }".into(),
            "running the command",
        ),
        ("{ command = [\"printf\", \"s3cret\\\\377\"] }".into(), "is not UTF-8"),
        ("{ command = [\"printf\", \"s3cret\\\\000\"] }".into(), "NUL"),
        ("{ command = [\"true\"] }".into(), "is empty"),
        ("{ command = [\"no-such-program-here\", \"s3cret\"] }".into(), "running the command"),
    ] {
        let error = find(&format!("A = {source}\n"), folder.path()).unwrap_err();
        assert!(error.message().contains(part), "{source}: {error:?}");
        assert!(!format!("{error:?} {:?}", error.hints()).contains("s3cret"), "{error:?}");
    }
}

#[test]
fn a_frame_comes_back_as_it_was_and_errors_show_nothing() {
    let mut frame = Frame::default();
    frame.secrets.insert("A", "\"quoted\"\n\u{1f512}".into());
    let credentials =
        Credentials { username: "u".into(), password: "p".into(), identity_token: Some("t".into()) };
    frame.registries.insert("docker.io".into(), credentials);
    let line = frame.encode().unwrap();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    let back = Frame::decode(&line).unwrap();
    assert!(same(back.secrets.get("A").unwrap(), frame.secrets.get("A").unwrap()));
    assert_eq!(back.registries["docker.io"].password.expose_secret(), "p");
    for bad in [&b"{\"version\":1,\"secrets\":{\"A\":\"s3cret\"}"[..], b"s3cret", b""] {
        assert!(!format!("{:?}", Frame::decode(bad).unwrap_err()).contains("s3cret"));
    }
    let evil = br#"{"version":1,"secrets":{"../x":"v"},"registries":{}}"#;
    assert!(Frame::decode(evil).unwrap_err().message().contains("cannot be a secret's name"));
}

#[test]
fn kept_on_tmpfs_alone_and_back_after_a_boot() {
    let disk = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = Root::open(disk.path()).unwrap();
    if root.file_system("/").unwrap() != "tmpfs" {
        let error = put(&root, "A", &"v".into()).unwrap_err();
        assert!(error.message().contains("tmpfs alone"), "{error:?}");
        assert!(!disk.path().join("run").exists());
    }

    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = Root::open(memory.path()).unwrap();
    assert_eq!(root.file_system("/").unwrap(), "tmpfs", "this test needs a tmpfs at `/dev/shm`");
    put(&root, "A", &"value of a".into()).unwrap();
    let mode =
        |path: &str| std::fs::metadata(memory.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run/bedplate/secrets"), mode("run/bedplate/secrets/A")), (0o700, 0o400));
    assert_eq!(read(&root, "A").unwrap().unwrap().expose_secret(), "value of a");
    assert!(read(&root, "../A").is_err());

    assert!(can_keep(), "this test needs `systemd-creds`");
    block(keep(&root, "A", &"value of a\n".into())).unwrap();
    let sealed = std::fs::read(memory.path().join("var/lib/bedplate/credentials/A.cred")).unwrap();
    assert!(!sealed.windows(5).any(|part| part == b"value"));
    assert_eq!(
        (mode("var/lib/bedplate/credentials"), mode("var/lib/bedplate/credentials/A.cred")),
        (0o700, 0o600)
    );
    remove(&root, "A").unwrap();
    block(restore(&root, "A", "A")).unwrap();
    assert_eq!(read(&root, "A").unwrap().unwrap().expose_secret(), "value of a\n");

    // Another name does not open it: the name is sealed with it.
    std::fs::rename(
        memory.path().join("var/lib/bedplate/credentials/A.cred"),
        memory.path().join("var/lib/bedplate/credentials/B.cred"),
    )
    .unwrap();
    assert!(block(restore(&root, "B", "B")).is_err());
    assert!(block(restore(&root, "A", "A")).unwrap_err().hints()[0].contains("bedplate secret set"));
}

#[test]
fn one_stored_after_the_provision_comes_back_too() {
    assert!(can_keep(), "this test needs `systemd-creds`");
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = Root::open(memory.path()).unwrap();
    let profile = profile("A = { env = \"A\" }\nB = { credential = \"b\" }\nC = { env = \"C\" }\n");
    // As a provision without any value leaves it; `B` is not even named.
    let none = crate::plan::OwnedSecret { credential: None, ours: true, wanted: true };
    let record = Record {
        secrets: [("A".to_owned(), none.clone()), ("C".to_owned(), none)].into(),
        ..Record::default()
    };
    for (name, value) in [("A", "of a"), ("B", "of b")] {
        block(set(&root, Some(&profile), name, &value.into())).unwrap();
        remove(&root, name).unwrap();
    }
    let mut out = Restored::default();
    block(restore_those(&root, &record, Some(&profile), &mut out)).unwrap();
    assert_eq!(out.names, ["A", "B"]);
    assert_eq!(read(&root, "B").unwrap().unwrap().expose_secret(), "of b");
    assert!(
        out.failed.len() == 1 && out.failed[0].message().contains("`C` was not kept"),
        "{:?}",
        out.failed
    );
}
