//! `build` by an ordinary user, who is root of a range of ids (subuid(5)).

use std::{
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::{Command, Output},
};

use super::Place;
use crate::support::files::copy;

/// An id that no user of the machine has, and the first of the ids given to it.
const USER: u32 = 471_100;
const FIRST: u32 = 900_000_000;

/// Becomes that user, in a mount namespace in which the machine has it and the ranges in `sub`: the machine itself stays
/// as it is.
const ENTER: &str = r#"set -e
for file in passwd group; do
  { cat /etc/$file; cat $file; } >$file.both
  mount --bind $file.both /etc/$file
done
for file in subuid subgid; do
  mount --bind $1 /etc/$file
done
cd place; shift
exec setpriv --reuid 471100 --regid 471100 --clear-groups --reset-env -- "$@"
"#;

struct User {
    place: Place,
}

impl User {
    /// The user, with the definitions, the lock and the packages of `place`.
    fn with(place: &Place) -> Self {
        let user = Self { place: Place::new() };
        for (name, text) in [
            ("passwd", "bedplate-test:x:471100:471100::/nonexistent:/bin/sh\n"),
            ("group", "bedplate-test:x:471100:\n"),
            ("granted", "bedplate-test:900000000:65536\n"),
            ("none", ""),
        ] {
            std::fs::write(user.place.path(name), text).unwrap();
        }
        let inner = user.place.path("place");
        std::fs::create_dir(&inner).unwrap();
        copy(&place.path("profiles"), &inner.join("profiles"));
        copy(&place.path("images"), &inner.join("images"));
        copy(&place.path("store/sha256"), &inner.join("store/sha256"));
        std::fs::create_dir_all(inner.join("store/build/tree/left")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_bedplate"), inner.join("bedplate")).unwrap();
        give(&inner, USER);
        // What a build that was killed has left belongs to one of the range.
        give(&inner.join("store/build/tree"), FIRST + 41);
        chown(user.place.path(""), Some(USER), Some(USER)).unwrap();
        user
    }

    fn build(&self, ranges: &str) -> Output {
        Command::new("unshare")
            .args(["--mount", "--", "sh", "-c", ENTER, "sh"])
            .arg(self.place.path(ranges))
            .args(["./bedplate", "--quiet", "--store", "store", "build", "small", "--output", "out"])
            .current_dir(self.place.path(""))
            .output()
            .unwrap()
    }
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap().flatten() {
            give(&entry.path(), user);
        }
    }
}

/// The image that root built from `place` into `out`, by a user: the same bytes, the user's files, nothing left.
pub(super) fn builds_the_same(place: &Place) {
    let user = User::with(place);
    let refused = user.build("none");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for words in ["`bedplate-test` has no subordinate user ids", "usermod --add-subuids"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let built = user.build("granted");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let record = |place: &Path| std::fs::read_to_string(place.join("out/small.record.json")).unwrap();
    let inner = user.place.path("place");
    assert_eq!(record(&inner), record(&place.path("")));
    for path in ["out", "out/small.tar", "out/small.oci/index.json", "out/small.spdx.json"] {
        assert_eq!(inner.join(path).metadata().unwrap().uid(), USER, "{path}");
    }
    let mut left: Vec<_> = std::fs::read_dir(inner.join("store/build"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["kept", "lock"]);
}
