//! Files that are not what they should be: as profile, deployment, lock and configuration.

use std::{fs, process::Command, time::Instant};

use super::{Place, profile};

/// Makes `path` something other than a small text file, and says what is to be said of it.
fn spoil(place: &Place, path: &str, how: &str) -> &'static str {
    let at = place.at(path);
    let _ = fs::remove_file(&at);
    match how {
        "huge" => {
            // Sparse: nothing that size is on the disk.
            fs::File::create(&at).unwrap().set_len(1 << 40).unwrap();
            "larger than"
        }
        "binary" => {
            place.put(path, b"schema = 1\n\xff\xfe\x00");
            "byte 11 is not valid UTF-8"
        }
        "utf-16" => {
            let text: Vec<u8> = "schema = 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
            place.put(path, [&b"\xff\xfe"[..], &text].concat());
            "byte 0 is not valid UTF-8"
        }
        "directory" => {
            fs::create_dir(&at).unwrap();
            "it is a directory"
        }
        "fifo" => {
            assert!(Command::new("mkfifo").arg(&at).status().unwrap().success());
            "it is not a regular file"
        }
        "device" => {
            std::os::unix::fs::symlink("/dev/zero", &at).unwrap();
            "it is not a regular file"
        }
        "dangling" => {
            std::os::unix::fs::symlink("nowhere", &at).unwrap();
            "does not exist"
        }
        "circle" => {
            std::os::unix::fs::symlink(&at, &at).unwrap();
            "links go in a circle"
        }
        other => panic!("{other}"),
    }
}

const ALL: [&str; 8] = ["huge", "binary", "utf-16", "directory", "fifo", "device", "dangling", "circle"];

fn refuses(place: &Place, path: &str, arguments: &[&str], how: &str) {
    let says = spoil(place, path, how);
    // A sparse terabyte is not to be read, by the test either.
    if how == "huge" {
        place.run(arguments.iter().copied()).is_refusal(2, &[path, says], "");
    } else {
        place.refuses(arguments.iter().copied(), 2, &[path, says], "");
    }
}

#[test]
fn profiles() {
    for how in ALL {
        let place = Place::new();
        let start = Instant::now();
        refuses(&place, "profiles/p.toml", &["lock", "profiles/p.toml"], how);
        assert!(start.elapsed().as_secs() < 5, "{how}");
    }
    let place = Place::new();
    place.put("profiles/p.toml", "");
    place.refuses(["lock", "p"], 2, &["`schema` is missing", "`host` is missing"], "add `[host]`");
    place.refuses(["lock", "/dev/null"], 2, &["`/dev/null`: it is not a regular file"], "plain file");
    place.refuses(["lock", "profiles"], 2, &["there is no profile `profiles`"], "there is: p");
}

#[test]
fn deployments() {
    for how in ALL {
        let place = Place::new();
        refuses(&place, "deployments/d.yaml", &["render", "-f", "deployments/d.yaml"], how);
    }
    for how in ALL {
        let place = Place::new();
        place.put("profiles/p.toml", profile("", "[deploy]\ndeployments = [\"../deployments/d.yaml\"]"));
        refuses(&place, "deployments/d.yaml", &["lock", "p"], how);
    }
    for how in ALL {
        let place = Place::new();
        refuses(&place, "old.yaml", &["init", "x", "--from", "old.yaml"], how);
    }
    let place = Place::new();
    place.put("d.yaml", "");
    place.refuses(["render", "-f", "d.yaml"], 2, &["the file is empty"], "bedplate init");
}

#[test]
fn locks() {
    for how in ALL.into_iter().filter(|how| *how != "dangling" && *how != "circle") {
        let place = Place::with("", "");
        refuses(&place, "profiles/p.lock", &["lock", "p"], how);
        place.run(["provision", "p", "--root", "home"]).exits(2);
    }
}

#[test]
fn carried_files() {
    for how in ALL.into_iter().filter(|how| !["binary", "utf-16"].contains(how)) {
        let place = Place::new();
        place.put("profiles/p.toml", profile("", "[[file]]\npath = \"/etc/x\"\nsource = \"x.conf\""));
        refuses(&place, "profiles/x.conf", &["lock", "p"], how);
    }
}

#[test]
fn a_small_file_that_stands_for_a_large_one() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let ten = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{ten}]\n"));
    }
    let place = Place::new();
    place.put("d.yaml", bomb);
    let start = Instant::now();
    place.refuses(["render", "-f", "d.yaml"], 2, &["aliases make the file too large"], "");
    assert!(start.elapsed().as_secs() < 5);

    for (path, text, arguments) in [
        ("d.yaml", format!("a: {}", "[".repeat(200_000)), ["render", "-f", "d.yaml"]),
        ("d.yaml", format!("a: {}", "{b: ".repeat(100_000)), ["render", "-f", "d.yaml"]),
        ("d.yaml", "- ".repeat(100_000), ["render", "-f", "d.yaml"]),
        ("profiles/p.toml", format!("a = {}", "[".repeat(200_000)), ["lock", "p", "-q"]),
        ("profiles/p.toml", format!("{}a = 1", "a.".repeat(100_000)), ["lock", "p", "-q"]),
    ] {
        place.put(path, text);
        let start = Instant::now();
        let ran = place.refuses(arguments, 2, &[path], "");
        assert!(start.elapsed().as_secs() < 5 && ran.err.len() < 10_000, "{}", ran.err.len());
    }
}
