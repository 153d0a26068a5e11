use super::*;
use crate::ui::{Format, Ui};

const PROFILE: &str = "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\n\
    [driver]\nflavor = \"none\"\n[container]\ngpu-access = \"none\"\n";

fn image(profile: &str) -> String {
    format!("schema = 1\nprofile = \"{profile}\"\nformats = [\"tar\"]\n")
}

/// A directory with these files, and a context of `below`, which is in it.
fn place(below: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
    let directory = tempfile::tempdir().unwrap();
    files::make_dir(&directory.path().join(below)).unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        files::make_dir(path.parent().unwrap()).unwrap();
        files::write_output(&path, text.as_bytes(), 0o644).unwrap();
    }
    let ui = Ui { format: Format::Text, quiet: true, verbose: 0, remote: false };
    let at = directory.path().join(below);
    let config = directory.path().join("config.toml");
    files::write_output(&config, b"", 0o644).unwrap();
    let env = BTreeMap::from([("BEDPLATE_CONFIG".to_owned(), config.display().to_string())]);
    let context = Context::new(ui, env, at, Some(directory.path().join("store"))).unwrap();
    (directory, context)
}

#[test]
fn an_image_is_found_as_a_profile_is() {
    let (server, other) = (image("server"), image("../profiles/other.toml"));
    let files = [
        ("profiles/server.toml", PROFILE),
        ("profiles/other.toml", PROFILE),
        ("images/a.toml", server.as_str()),
        ("images/b.toml", other.as_str()),
        ("one/images/c.toml", server.as_str()),
        ("one/profiles/server.toml", PROFILE),
    ];
    for (below, named, image, profile) in [
        ("", Some("a"), "images/a.toml", "profiles/server.toml"),
        ("", Some("images/b.toml"), "images/b.toml", "profiles/other.toml"),
        ("deeper/still", Some("b"), "../../images/b.toml", "../../profiles/other.toml"),
        ("one", None, "images/c.toml", "profiles/server.toml"),
        ("one", Some("a"), "../images/a.toml", "../profiles/server.toml"),
    ] {
        let (_directory, context) = place(below, &files);
        let found = ImageSources::read(&context, named).unwrap();
        assert_eq!(
            (found.shown.as_str(), found.profile.shown.as_str()),
            (image, profile),
            "{below} {named:?}"
        );
    }
}

#[test]
fn what_an_image_lacks_is_said() {
    let (server, foreign) = (image("server"), PROFILE.replace("[driver]", "pin-packages = false\n[driver]"));
    let profile = ("profiles/server.toml", PROFILE);
    for (files, named, wanted) in [
        (vec![], None, "no image definition here"),
        (vec![], Some("a"), "no image definition `a`"),
        (vec![("images/a.toml", &*server), ("images/b.toml", &*server)], None, "several image definitions"),
        (vec![("images/a.toml", &*server)], None, "`profiles/server.toml`, which is not there"),
        (vec![("images/a.toml", &*server), ("profiles/server.toml", &*foreign)], None, "someone else's"),
        (vec![("images/a.toml", "schema = 1\n"), profile], None, "`images/a.toml`: `profile` is missing"),
    ] {
        let (_directory, context) = place("", &files);
        let error = ImageSources::read(&context, named).err().unwrap();
        assert!(error.message().contains(wanted), "{wanted}: {error}");
    }
}
