//! Where secrets come from: `secret check` on the operator's side.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{Place, TOKEN, ran};

fn place(source: &str) -> Place {
    Place::with("", &format!("[secrets]\nHF_TOKEN = {{ {source} }}\n"))
}

#[test]
fn values_are_found_and_never_shown() {
    let by_env = place("env = \"HF_TOKEN\"");
    ran(by_env.command(["-vv", "secret", "check", "p"]).env("HF_TOKEN", TOKEN)).exits(0).says("1 of 1");
    by_env.run(["secret", "check", "p"]).exits(3).says("`HF_TOKEN` is not set here");
    ran(by_env.command(["secret", "check", "p"]).env("HF_TOKEN", "")).exits(3);

    let by_file = place("file = \"../secrets/token\"");
    by_file.run(["secret", "check", "p"]).exits(3).says("is not here");
    by_file.put_private("secrets/token", TOKEN);
    by_file.run(["-vv", "secret", "check", "p"]).exits(0);

    let by_command = place(&format!("command = [\"sh\", \"-c\", \"cat {}\"]", "../secrets/token"));
    by_command.put_private("secrets/token", TOKEN);
    by_command.run(["-vv", "secret", "check", "p"]).exits(0);
}

#[test]
fn a_file_that_others_may_read() {
    let place = place("file = \"../secrets/token\"");
    place.put_private("secrets/token", TOKEN);
    for mode in [0o777, 0o644, 0o640, 0o604] {
        fs::set_permissions(place.at("secrets/token"), fs::Permissions::from_mode(mode)).unwrap();
        let says = ["secrets/token`", "others may open it", &format!("{mode:04o}")];
        place.refuses(["secret", "check", "p"], 3, &says, "chmod 600");
    }
    fs::rename(place.at("secrets/token"), place.at("secrets/real")).unwrap();
    std::os::unix::fs::symlink("real", place.at("secrets/token")).unwrap();
    place.refuses(["secret", "check", "p"], 3, &["secrets/token` is a link"], "name the file itself");
}

#[test]
fn a_command_that_fails_shows_nothing_of_what_it_said() {
    let place =
        place("command = [\"sh\", \"-c\", \"cat ../secrets/token; cat ../secrets/token >&2; exit 3\"]");
    place.put_private("secrets/token", TOKEN);
    place.refuses(["-vv", "secret", "check", "p"], 3, &["the command of secret `HF_TOKEN`"], "");
    let place = self::place("command = [\"bedplate-no-such-program\"]");
    place.refuses(["secret", "check", "p"], 3, &["`bedplate-no-such-program`"], "");
}

#[test]
fn values_that_are_no_secrets() {
    let place = place("file = \"../secrets/token\"");
    for (content, says) in [(&b"\xff\xfe"[..], "HF_TOKEN"), (b"", "HF_TOKEN"), (b"a\0b", "HF_TOKEN")] {
        place.put("secrets/token", content);
        fs::set_permissions(place.at("secrets/token"), fs::Permissions::from_mode(0o600)).unwrap();
        let ran = place.run(["secret", "check", "p"]);
        assert!(matches!(ran.code, Some(1..=3)), "{content:?}: {ran:?}");
        ran.says(says);
    }
}
